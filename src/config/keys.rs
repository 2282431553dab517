//! Every key that the cluster file may hold: what is allowed, and what holds without it. The one table of them.

use std::fmt;
use std::time::Duration;

use super::Fencing;

/// A key whose values are of type `T`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<T: 'static> {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) allowed: Allowed<T>,
    /// What holds if the key is absent; none: it must be there, or absence has a meaning of its own.
    pub(super) default: Option<T>,
}

/// The values of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowed<T: 'static> {
    /// Judged by a rule of its own.
    Any(&'static str),
    /// From the first to the second, both included.
    Range(T, T),
    /// One of the first list; the second names values that a later version will know.
    OneOf(&'static [T], &'static [T]),
}

/// What the names of the keys are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// `cluster`, `vip`, `proxy`, `redis`, `sentinel`, `node`.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Whether it works in this version; if not, it is refused.
    pub built: bool,
}

/// The sections of a file, and whether each is a list (`[[vip]]`).
pub(super) const SECTIONS: &[(&str, bool)] =
    &[("cluster", false), ("vip", true), ("proxy", false), ("redis", false), ("sentinel", false), ("node", true)];

/// Sections and keys that are planned: refused with that reason, never accepted and ignored.
pub(super) const SECTIONS_LATER: &[&str] = &["admin", "notify"];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const HOUR: u64 = 3_600;
const NAMES: &str = "1 to 32 characters of a-z, A-Z, 0-9, '.', '_' and '-'";
const PREFIXED: &str = "1 to 16 addresses with prefix length, like \"192.168.0.1/24\"";

/// A shorter one runs out between two frames that come late, on a machine that is busy for a moment.
pub(super) const LEASE_LEAST: Duration = ms(150);
/// What it is where `down_after` leaves room for it: frames come late by less than that on any network that serves Redis.
const LEASE_USUAL: Duration = ms(250);
const LEASES: &str = "\"150ms\" to half of cluster.down_after";

/// So many sentinels bear the loss of one: from there on a cluster is fenced whose file does not say whether.
const FENCED_FROM: usize = 3;

/// What `cluster.fencing` is in a file that does not say it, by the number of sentinels there, how many of them are stock ones, and
/// `down_after`: a file that says nothing of leases is not refused for their sake.
pub(super) fn default_fencing(sentinels: usize, stock: usize, down_after: Duration) -> Fencing {
    let borne = sentinels >= FENCED_FROM && stock == 0 && default_lease(down_after) >= LEASE_LEAST;
    if borne { Fencing::Lease } else { Fencing::Off }
}

/// The longest lease beside `down_after`: it has to have ended, and a new master to be chosen, in about the time that clients are
/// used to wait for a failover.
pub(super) fn longest_lease(down_after: Duration) -> Duration {
    down_after / 2
}

/// What `cluster.lease` is in a file that does not say it. Where `down_after` is short it is less than [`LEASE_LEAST`]: such a
/// cluster may not be fenced.
pub(super) fn default_lease(down_after: Duration) -> Duration {
    longest_lease(down_after).min(LEASE_USUAL)
}

const PEER_ADDRESSES: &str = "up to 16 addresses without prefix length, like \"192.168.0.9\"";

macro_rules! keys {
    (built { $($constant:ident: $type:ty = $section:literal, $name:literal, $allowed:expr, $default:expr;)* }
     later { $($section_later:literal, $name_later:literal;)* }) => {
        $(pub(super) const $constant: Key<$type> =
            Key { section: $section, name: $name, allowed: $allowed, default: $default };)*
        /// Every key, in the order of the sections.
        pub const KEYS: &[Known] = &[
            $(Known { section: $section, name: $name, built: true },)*
            $(Known { section: $section_later, name: $name_later, built: false },)*
        ];

        /// What each key that works allows, in the words of the faults.
        pub fn allowed() -> Vec<(Known, String)> {
            vec![$((Known { section: $section, name: $name, built: true }, $constant.allowed.to_string()),)*]
        }
    };
}

use Allowed::{Any, OneOf, Range};

keys! {
    built {
        CLUSTER_NAME: &str = "cluster", "name", Any(NAMES), Some("mymaster");
        QUORUM: u32 = "cluster", "quorum", Range(1, 32), None;
        PASSWORD: &str = "cluster", "password", Any("1 to 512 characters without spaces and control characters"), None;
        PASSWORD_FILE: &str = "cluster", "password_file", Any("an absolute path"), None;
        SECRET_FILE: &str = "cluster", "secret_file", Any("an absolute path"), None;
        DOWN_AFTER: Duration = "cluster", "down_after", Range(ms(100), secs(HOUR)), Some(ms(500));
        BUSY_GRACE: Duration = "cluster", "busy_grace", Range(ms(0), secs(HOUR)), Some(secs(5));
        FENCING: &str = "cluster", "fencing", OneOf(&["lease", "off"], &[]), None;
        LEASE: Duration = "cluster", "lease", Any(LEASES), None;
        FAILOVER_TIMEOUT: Duration = "cluster", "failover_timeout", Range(secs(1), secs(HOUR)), Some(secs(10));
        DURABILITY: &str = "cluster", "durability", OneOf(&["async"], &["quorum"]), Some("async");

        VIP_ADDRESSES: &str = "vip", "addresses", Any(PREFIXED), None;
        VIP_INTERFACE: &str = "vip", "interface", Any("1 to 15 characters without spaces and '/', like \"eth0\""), None;
        VIRTUAL_ROUTER_ID: u32 = "vip", "virtual_router_id", Range(1, 255), None;
        VRRP_VERSION: u32 = "vip", "version", Range(2, 3), Some(3);
        ADVERT_INTERVAL: Duration = "vip", "advert_interval", Range(ms(10), secs(255)), Some(ms(100));
        PREEMPT: bool = "vip", "preempt", Any("true or false"), Some(false);
        VIP_PEERS: &str = "vip", "peers", Any(PEER_ADDRESSES), None;

        PROXY_PORT: u32 = "proxy", "port", Range(1, 65_535), Some(6_379);
        CONNECT_TIMEOUT: Duration = "proxy", "connect_timeout", Range(ms(10), secs(300)), Some(secs(4));
        CLIENT_TIMEOUT: Duration = "proxy", "client_timeout", Range(ms(0), ms(0)), Some(ms(0));
        CHECK_INTERVAL: Duration = "proxy", "check_interval", Range(ms(10), secs(60)), Some(secs(1));
        HOLD_TIMEOUT: Duration = "proxy", "hold_timeout", Range(ms(0), secs(300)), Some(secs(5));
        MAX_CLIENTS: u32 = "proxy", "max_clients", Range(1, 100_000), Some(10_000);

        REDIS_PORT: u32 = "redis", "port", Range(1, 65_535), Some(6_379);
        SERVER: &str = "redis", "server", Any("a program found in PATH, or an absolute path"), Some("redis-server");
        DATA_DIR: &str = "redis", "data_dir", Any("an absolute path"), None;
        USER: &str = "redis", "user", Any("the name of a user of /etc/passwd that is not root"), None;
        PERSISTENCE: &str = "redis", "persistence", OneOf(&["aof", "rdb", "none"], &[]), Some("aof");
        INCLUDE: &str = "redis", "include", Any("absolute paths, '*' only after the last '/'"), None;
        TUNE_HOST: bool = "redis", "tune_host", Any("true or false"), Some(false);

        SENTINEL_PORT: u32 = "sentinel", "port", Range(1, 65_535), Some(26_379);
        SENTINEL_STOCK: &str = "sentinel", "stock", Any("addresses of nodes of this file with the role \"sentinel\""), None;

        NODE_NAME: &str = "node", "name", Any(NAMES), None;
        ADDRESS: &str = "node", "address", Any("an IPv4 or IPv6 address without prefix length"), None;
        ROLES: &str = "node", "roles", Any("one or more of \"proxy\", \"redis\" and \"sentinel\""), None;
        PRIORITY: u32 = "node", "priority", Range(1, 254), Some(100);
        REPLICA_PRIORITY: u32 = "node", "replica_priority", Range(0, 1_000_000), Some(100);
        BOOTSTRAP_MASTER: bool = "node", "bootstrap_master", Any("true or false"), Some(false);
    }
    later {
        "proxy", "replica_port";
        "proxy", "server_timeout";
    }
}

/// How values of a type are written in the file.
pub(super) trait Written: Copy + 'static {
    fn written(self) -> String;
}

impl Written for Duration {
    fn written(self) -> String {
        format!("\"{}\"", duration(self))
    }
}

impl Written for u32 {
    fn written(self) -> String {
        self.to_string()
    }
}

impl Written for bool {
    fn written(self) -> String {
        self.to_string()
    }
}

impl Written for &'static str {
    fn written(self) -> String {
        format!("{self:?}")
    }
}

impl<T: Written> fmt::Display for Allowed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Any(words) => f.write_str(words),
            Range(least, most) => write!(f, "{} to {}", least.written(), most.written()),
            OneOf(values, _) => {
                let values: Vec<String> = values.iter().map(|value| value.written()).collect();
                f.write_str(&values.join(", "))
            }
        }
    }
}

/// The units of durations, largest first, in microseconds.
const UNITS: &[(&str, u64)] = &[("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// A duration in the largest unit that writes it as a whole number.
pub fn duration(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let fits = |unit: &&(&str, u64)| micros.is_multiple_of(unit.1) && (micros > 0 || unit.0 == "s");
    let (name, size) = UNITS.iter().find(fits).copied().unwrap_or(("us", 1));
    format!("{}{name}", micros / size)
}

/// Reads `"500ms"`: a whole number and one of `us ms s m h`. The error says what is wrong.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let form = "a whole number and a unit (us, ms, s, m or h), like \"500ms\"";
    if number.is_empty() {
        return Err(format!("not a duration; allowed: {form}"));
    }
    if unit.is_empty() {
        return Err(format!(
            "the unit is missing; write \"{number}ms\" or \"{number}s\" (us, ms, s, m and h are allowed)"
        ));
    }
    let size = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
    let size = size.ok_or_else(|| format!("{unit:?} is not a unit of time; allowed: {form}"))?;
    let micros = number.parse::<u64>().ok().and_then(|number| number.checked_mul(size));
    micros.map(Duration::from_micros).ok_or_else(|| "longer than any duration here can be".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "1us", "250us", "100ms", "40950ms", "10s", "5m", "90m", "1h"] {
            assert_eq!(parse_duration(text).map(duration), Ok(text.to_owned()));
        }
        assert_eq!(parse_duration("1000ms").map(duration), Ok("1s".to_owned()));
    }

    #[test]
    fn every_key_stands_once_in_a_section() {
        assert!(KEYS.len() > 30);
        for (n, key) in KEYS.iter().enumerate() {
            let twice = KEYS[..n].iter().any(|other| (other.section, other.name) == (key.section, key.name));
            assert!(!twice, "{key:?} stands there twice");
            assert!(SECTIONS.iter().any(|(section, _)| *section == key.section), "{key:?} has no section");
        }
    }
}
