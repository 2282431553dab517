//! Host names in place of addresses: what each one stands for, as far as it has been found out. Nothing is asked here.
//!
//! A name may move, so it is asked again and again as long as it is kept. What it stood for is believed until another answer
//! comes: a name server that is down must not make a master unreachable.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::{Instant, time::earliest};

/// Names kept at most: whoever may attach replicas must not fill the memory.
pub const NAMES_MAX: usize = 256;
/// How long an answer is taken as it is.
const REFRESH: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles up to [`REFRESH`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Answers come sooner, or not at all.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// RFC 1035 section 2.3.4, without the length bytes of the wire.
const NAME_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

/// What is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The addresses of a host name; answered by an [`Answer`].
    Resolve(String),
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for.
    pub name: String,
    /// Its addresses, the preferred one first; or why there are none.
    pub found: Result<Vec<IpAddr>, String>,
}

/// What a host is known to stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This address; of a name, by the last good answer.
    Known(IpAddr),
    /// Nothing yet: it is being asked.
    Pending,
    /// Nothing, and the last answer says why. It is asked again.
    Failed(String),
    /// Neither an address nor a host name.
    Invalid,
    /// [`NAMES_MAX`] names are kept already.
    Full,
}

/// A name stands for another address than before, or for one for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The name.
    pub name: String,
    /// The address before, if there was any.
    pub from: Option<IpAddr>,
    /// The address now.
    pub to: IpAddr,
}

#[derive(Clone, Debug)]
struct Entry {
    address: Option<IpAddr>,
    /// Why the last answer was none.
    fault: Option<String>,
    backoff: Duration,
    /// When it is asked, or asked again.
    due: Instant,
}

/// All names of interest.
#[derive(Clone, Debug, Default)]
pub struct Names {
    entries: BTreeMap<String, Entry>,
}

/// Whether a text is a host name (RFC 1123 section 2.1; underscores, which many networks use, are allowed). A last label of
/// digits only is none: that is a misspelt address.
pub fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let good = |label: &str| {
        (1..=LABEL_LENGTH_MAX).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME_LENGTH_MAX && name.split('.').all(good) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Names differ in neither case nor a final dot.
fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl Names {
    /// What `host`, an address or a name, stands for. A name that is new is kept from now on, and asked at the next
    /// [`turn`](Self::turn).
    pub fn lookup(&mut self, host: &str, now: Instant) -> Lookup {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Lookup::Known(address);
        }
        if !is_host_name(host) {
            return Lookup::Invalid;
        }
        let (key, full) = (key(host), self.entries.len() >= NAMES_MAX);
        match self.entries.get(&key) {
            Some(Entry { address: Some(address), .. }) => Lookup::Known(*address),
            Some(Entry { fault: Some(fault), .. }) => Lookup::Failed(fault.clone()),
            Some(_) => Lookup::Pending,
            None if full => Lookup::Full,
            None => {
                self.entries.insert(key, Entry { address: None, fault: None, backoff: RETRY_MIN, due: now });
                Lookup::Pending
            }
        }
    }

    /// What `host` stands for as far as it is known; asks nothing.
    pub fn known(&self, host: &str) -> Option<IpAddr> {
        host.parse().ok().or_else(|| self.entries.get(&key(host))?.address)
    }

    /// Takes in an answer. The address stays what it was as long as it is among those found: of several, each is as good.
    /// To be followed by a [`turn`](Self::turn).
    pub fn answered(&mut self, answer: Answer, now: Instant) -> Option<Moved> {
        let entry = self.entries.get_mut(&key(&answer.name))?;
        let found =
            answer.found.and_then(|all| if all.is_empty() { Err("it has no address".to_owned()) } else { Ok(all) });
        match found {
            Err(fault) => {
                entry.fault = Some(fault);
                entry.due = now + entry.backoff;
                entry.backoff = (entry.backoff * 2).min(REFRESH);
                None
            }
            Ok(all) => {
                (entry.fault, entry.backoff, entry.due) = (None, RETRY_MIN, now + REFRESH);
                let from = entry.address;
                let to = from.filter(|address| all.contains(address)).or_else(|| all.first().copied())?;
                entry.address = Some(to);
                (from != Some(to)).then_some(Moved { name: answer.name, from, to })
            }
        }
    }

    /// Why the last question for `host` had no answer; what it stood for before is still believed.
    pub fn fault(&self, host: &str) -> Option<&str> {
        self.entries.get(&key(host))?.fault.as_deref()
    }

    /// Forgets all names that nobody needs any more.
    pub fn retain(&mut self, mut needed: impl FnMut(&str) -> bool) {
        self.entries.retain(|name, _| needed(name));
    }

    /// Asks what is due. Returns when to call again at the latest.
    pub fn turn(&mut self, now: Instant, requests: &mut Vec<Request>) -> Option<Instant> {
        let mut wake = None;
        for (name, entry) in &mut self.entries {
            if entry.due <= now {
                requests.push(Request::Resolve(name.clone()));
                // An answer sets the time again; without one it is asked again.
                entry.due = now + ANSWER_MAX;
            }
            wake = earliest(wake, Some(entry.due));
        }
        wake
    }
}

#[cfg(test)]
mod tests;
