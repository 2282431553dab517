//! Newtypes for what could be mixed up, each with its range.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a node of the cluster file: 1–32 characters of `a–z A–Z 0–9 . _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "heapless::String<32>", into = "heapless::String<32>")]
pub struct NodeName(heapless::String<32>);

/// Why a text is not the name or the number it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or a character outside of the allowed ones.
    #[error("{0:?} is not a node name: 1 to 32 characters of a-z, A-Z, 0-9, '.', '_' and '-' are allowed")]
    NodeName(String),
    /// Not 40 lower-case hexadecimal digits.
    #[error("{0:?} is not a run id: 40 hexadecimal digits are expected")]
    RunId(String),
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let name = heapless::String::try_from(text).map_err(|_| NameError::NodeName(text.to_owned()))?;
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(NameError::NodeName(text.to_owned()));
        }
        Ok(Self(name))
    }
}

impl TryFrom<heapless::String<32>> for NodeName {
    type Error = NameError;

    fn try_from(text: heapless::String<32>) -> Result<Self, NameError> {
        text.as_str().parse()
    }
}

impl From<NodeName> for heapless::String<32> {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

/// Identity of a redis process or of a sentinel: 160 random bits, written as 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub [u8; 20]);

impl FromStr for RunId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::RunId(text.chars().take(64).collect());
        if text.len() != 40 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut id = [0; 20];
        for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(id))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A logical clock of votes and configurations, as Sentinel uses it. Never goes back. Zero: none yet.
pub type Epoch = u64;

/// An epoch so far above the known ones is believed of anybody who may speak at all; one further off only of a majority. Each
/// failover takes a few: who was away for a year is not left behind, and nobody can use up the epochs of all others.
pub const EPOCH_STEP: Epoch = 1_000;

/// A host, by address or name, and a port, as files and servers write them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Address, or name.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl Place {
    /// Longest host name, bytes (RFC 1035 §2.3.4).
    pub const HOST_MAX: usize = 253;

    /// Whether a text can be a host: an address, or a name of letters, digits, `.`, `-` and `_`.
    pub fn is_host(host: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let name = host.len() <= Self::HOST_MAX && !host.is_empty() && host.bytes().all(allowed);
        name || host.parse::<IpAddr>().is_ok()
    }

    /// A place of these, if both can be true.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        (port > 0 && Self::is_host(host)).then(|| Self { host: host.to_owned(), port })
    }

    /// The address, unless the host is a name.
    pub fn address(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_bounded() {
        assert!("redis-01".parse::<NodeName>().is_ok());
        for wrong in ["", "a b", "é", &"x".repeat(33)] {
            assert!(wrong.parse::<NodeName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn run_ids_round_trip() {
        let text = "00112233445566778899aabbccddeeff00112233";
        assert_eq!(text.parse::<RunId>().map(|id| id.to_string()), Ok(text.to_owned()));
        assert!("zz".parse::<RunId>().is_err());
    }

    #[test]
    fn places_are_addresses_or_names() {
        assert_eq!(Place::new("10.0.0.1", 6379).unwrap().address(), Some("10.0.0.1:6379".parse().unwrap()));
        let named = Place::new("redis-1.example", 6379).unwrap();
        assert_eq!((named.address(), named.to_string()), (None, "redis-1.example:6379".to_owned()));
        assert_eq!(Place::new("fd00::1", 1).unwrap().to_string(), "[fd00::1]:1");
        for (host, port) in [("", 1), ("a b", 1), ("a,b", 1), ("a", 0), (&*"x".repeat(254), 1)] {
            assert_eq!(Place::new(host, port), None, "{host:?} {port}");
        }
    }
}
