//! The greeting that sentinels publish on `__sentinel__:hello`: who speaks, and who is master by which decision.
//!
//! Eight fields parted by commas: ip, port, run id, current epoch, master name, master ip, master port, master's
//! configuration epoch.

use std::fmt;
use std::str::FromStr;

use crate::base::{Epoch, Place, RunId};

/// The channel.
pub const CHANNEL: &str = "__sentinel__:hello";
/// Longer payloads are refused unread.
pub const LENGTH_MAX: usize = 512;
/// The last epoch: what a reply can carry as an integer. By steps nobody comes near it.
pub const EPOCH_MAX: Epoch = i64::MAX as Epoch;
/// Up to here a sentinel without a cluster file follows a greeting at once, as redis-sentinel does. Beyond it only a step further,
/// so that no greeting uses the epochs up.
pub const GREETED_MAX: Epoch = 1 << 53;

/// One greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Where the speaker is reached.
    pub place: Place,
    /// Its id.
    pub id: RunId,
    /// The highest epoch it has seen.
    pub current_epoch: Epoch,
    /// The name of the master it speaks of.
    pub master_name: String,
    /// Who is master.
    pub master: Place,
    /// Since which epoch.
    pub config_epoch: Epoch,
}

/// Why a payload is no greeting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`LENGTH_MAX`] bytes.
    #[error("{0} bytes are too long for a hello: at most {LENGTH_MAX} are expected")]
    Length(usize),
    /// Not eight fields.
    #[error("a hello has 8 fields, not {0}")]
    Fields(usize),
    /// One field is not what it should be.
    #[error("field {name} of a hello cannot be {value:?}")]
    Field {
        /// Which one.
        name: &'static str,
        /// What it was.
        value: String,
    },
}

impl FromStr for Hello {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.len() > LENGTH_MAX {
            return Err(Malformed::Length(text.len()));
        }
        let fields: Vec<&str> = text.split(',').collect();
        let [ip, port, id, current_epoch, master_name, master_ip, master_port, config_epoch] = fields[..] else {
            return Err(Malformed::Fields(fields.len()));
        };
        if master_name.is_empty() {
            return Err(Malformed::Field { name: "master name", value: String::new() });
        }
        Ok(Self {
            place: place("ip", ip, positive("port", port)?)?,
            id: field("run id", id)?,
            current_epoch: epoch("current epoch", current_epoch)?,
            master_name: master_name.to_owned(),
            master: place("master ip", master_ip, positive("master port", master_port)?)?,
            config_epoch: epoch("configuration epoch", config_epoch)?,
        })
    }
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, id, current_epoch, master_name, master, config_epoch } = self;
        write!(f, "{},{},{id},{current_epoch},{master_name},", place.host, place.port)?;
        write!(f, "{},{},{config_epoch}", master.host, master.port)
    }
}

fn wrong(name: &'static str, value: &str) -> Malformed {
    Malformed::Field { name, value: value.chars().take(64).collect() }
}

fn field<T: FromStr>(name: &'static str, value: &str) -> Result<T, Malformed> {
    value.parse().map_err(|_| wrong(name, value))
}

fn positive(name: &'static str, value: &str) -> Result<u16, Malformed> {
    field(name, value).and_then(|port| if port > 0 { Ok(port) } else { Err(wrong(name, value)) })
}

fn place(name: &'static str, host: &str, port: u16) -> Result<Place, Malformed> {
    Place::new(host, port).ok_or_else(|| wrong(name, host))
}

fn epoch(name: &'static str, value: &str) -> Result<Epoch, Malformed> {
    field(name, value).and_then(|epoch| if epoch <= EPOCH_MAX { Ok(epoch) } else { Err(wrong(name, value)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from redis-sentinel 7.0.15.
    const REAL: &str = "127.0.0.1,27601,667b3f5e0023927b7df1451b8b35011e3d8ac71f,0,mymaster,127.0.0.1,17601,0";

    #[test]
    fn a_hello_round_trips() {
        let hello: Hello = REAL.parse().unwrap();
        assert_eq!((hello.current_epoch, hello.config_epoch, hello.master.port), (0, 0, 17601));
        assert_eq!(hello.to_string(), REAL);
        let six = REAL.replace("127.0.0.1,17601", "fd00::1,6379");
        assert_eq!(six.parse::<Hello>().unwrap().to_string(), six);
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        assert_eq!("".parse::<Hello>(), Err(Malformed::Fields(1)));
        assert_eq!("x".repeat(600).parse::<Hello>(), Err(Malformed::Length(600)));
        let said = |text: &str| text.parse::<Hello>().unwrap_err().to_string();
        assert!(said(&REAL.replace("27601", "0")).contains("port"));
        assert!(said(&REAL.replace(",0,", ",18446744073709551615,")).contains("current epoch"));
        assert!(said(&REAL.replace("mymaster", "")).contains("master name"));
        assert!(said(&REAL.replace("667b", "zzzz")).contains("run id"));
        assert!(said(&format!("{REAL},1")).contains("not 9"));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(text in "[0-9a-f:.,]{0,120}") {
            let _ = text.parse::<Hello>();
        }
    }
}
