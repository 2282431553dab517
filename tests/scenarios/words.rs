//! The words of one command line, and what they must mean.

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use vigie::wire::vrrp::Interval;

/// The words not taken yet. Text in double quotes is one word.
#[derive(Clone, Debug)]
pub(crate) struct Words(VecDeque<String>);

impl Words {
    /// Splits a line.
    pub(crate) fn of(line: &str) -> Result<Self, String> {
        let mut words = VecDeque::new();
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let (word, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or("a closing quote is missing")?,
                None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
            };
            words.push_back(word.to_owned());
            rest = after.trim_start();
        }
        Ok(Self(words))
    }

    /// The next word; `what` it should be goes into the complaint that there is none.
    pub(crate) fn next(&mut self, what: &str) -> Result<String, String> {
        self.0.pop_front().ok_or_else(|| format!("the line ends where {what} is expected"))
    }

    /// The next word, which must be this one.
    pub(crate) fn keyword(&mut self, word: &str) -> Result<(), String> {
        let found = self.next(&format!("{word:?}"))?;
        if found == word { Ok(()) } else { Err(unexpected(&found, &format!("{word:?}"))) }
    }

    /// Takes the next word if it is this one.
    pub(crate) fn optional(&mut self, word: &str) -> bool {
        let found = self.0.front().is_some_and(|next| next == word);
        if found {
            self.0.pop_front();
        }
        found
    }

    /// A number, an address or the like.
    pub(crate) fn value<T: FromStr<Err: Display>>(&mut self, what: &str) -> Result<T, String> {
        let word = self.next(what)?;
        word.parse().map_err(|error| format!("{} ({error})", unexpected(&word, what)))
    }

    /// `word` and a value, or `default` if the next word is another.
    pub(crate) fn value_or<T: FromStr<Err: Display>>(&mut self, word: &str, default: T) -> Result<T, String> {
        if self.optional(word) { self.value(word) } else { Ok(default) }
    }

    /// A duration: `250us`, `100ms`, `10s`.
    pub(crate) fn duration(&mut self) -> Result<Duration, String> {
        let word = self.next("a duration")?;
        let wrong = || unexpected(&word, "a duration like 250us, 100ms or 10s");
        let split = word.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = word[..split].parse().map_err(|_| wrong())?;
        match &word[split..] {
            "us" => Ok(Duration::from_micros(count)),
            "ms" => Ok(Duration::from_millis(count)),
            "s" => Ok(Duration::from_secs(count)),
            _ => Err(wrong()),
        }
    }

    /// `interval` and the time between adverts, whose unit says the version: `1s` is VRRPv2's, `10cs` VRRPv3's.
    pub(crate) fn interval(&mut self) -> Result<Interval, String> {
        self.keyword("interval")?;
        let word = self.next("an interval")?;
        let wrong = || unexpected(&word, "an interval like 1s (version 2) or 10cs (version 3)");
        if let Some(count) = word.strip_suffix("cs") {
            count.parse().map(Interval::Centiseconds).map_err(|_| wrong())
        } else {
            word.strip_suffix('s').and_then(|count| count.parse().ok()).map(Interval::Seconds).ok_or_else(wrong)
        }
    }

    /// The address of a redis; its port is 6379 unless said otherwise.
    pub(crate) fn redis(&mut self) -> Result<SocketAddr, String> {
        let word = self.next("the address of a redis")?;
        let bare = word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 6379));
        bare.or_else(|_| word.parse()).map_err(|_| unexpected(&word, "the address of a redis"))
    }

    /// `yes`-like words without a reason, or a `no`-like word with one.
    pub(crate) fn outcome(&mut self, good: &str, bad: &str) -> Result<Result<(), String>, String> {
        let word = self.next(&format!("{good:?} or {bad:?}"))?;
        if word == good {
            Ok(Ok(()))
        } else if word == bad {
            Ok(Err(self.next("a reason in quotes")?))
        } else {
            Err(unexpected(&word, &format!("{good:?} or {bad:?}")))
        }
    }

    /// Whether any word is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), String> {
        self.0.front().map_or(Ok(()), |word| Err(unexpected(word, "the end of the line")))
    }
}

/// A complaint about a word.
pub(crate) fn unexpected(found: &str, expected: &str) -> String {
    format!("{found:?} where {expected} is expected")
}
