//! Wrong passwords: counted by source, told now and then, and answered the more slowly the more there are in a row.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::Instant;
use crate::base::crowd::Source;

/// Sources that are remembered; beyond it, the one that has failed least recently is forgotten.
const SOURCES_MAX: usize = 1_024;
/// A failure after this time is the first in a row again.
const FORGET: Duration = Duration::from_secs(60);
/// What each one beyond the first in a row adds to the time until its answer, and the most that it comes to.
const DELAY_STEP: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(2);
/// The most for a node of the cluster: a sentinel that has another password, for a while, must not look silent.
const NODE_DELAY_MAX: Duration = Duration::from_millis(100);
/// Sources that are named in one line.
const NAMED_MAX: usize = 4;

#[derive(Debug)]
struct Failed {
    in_a_row: u32,
    last: Instant,
    untold: u64,
    is_node: bool,
}

/// Who has given a wrong password, and how often.
#[derive(Debug, Default)]
pub(super) struct Failures {
    sources: BTreeMap<Source, Failed>,
    /// Not told yet, of sources that are forgotten.
    forgotten: u64,
}

impl Failures {
    /// One more; how long its answer has to wait.
    pub(super) fn count(&mut self, address: IpAddr, is_node: bool, now: Instant) -> Duration {
        let source = Source::from(address);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            let oldest = self.sources.iter().min_by_key(|(_, failed)| failed.last).map(|(source, _)| *source);
            let gone = oldest.and_then(|oldest| self.sources.remove(&oldest));
            self.forgotten += gone.map_or(0, |gone| gone.untold);
        }
        let failed = self.sources.entry(source).or_insert(Failed { in_a_row: 0, last: now, untold: 0, is_node });
        if now.since(failed.last) > FORGET {
            failed.in_a_row = 0;
        }
        let delay = DELAY_STEP.saturating_mul(failed.in_a_row);
        failed.in_a_row = failed.in_a_row.saturating_add(1);
        failed.last = now;
        failed.is_node = is_node;
        failed.untold += 1;
        delay.min(if is_node { NODE_DELAY_MAX } else { DELAY_MAX })
    }

    /// Whether what comes from there may be one more guess.
    pub(super) fn suspects(&self, address: IpAddr, now: Instant) -> bool {
        let failed = self.sources.get(&Source::from(address));
        failed.is_some_and(|failed| !failed.is_node && now.since(failed.last) <= FORGET)
    }

    /// What has not been told yet: from where, and how many.
    pub(super) fn news(&mut self) -> Option<String> {
        let mut untold: Vec<_> = self.sources.iter().map(|(source, failed)| (failed.untold, *source)).collect();
        untold.retain(|(count, _)| *count > 0);
        untold.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let named = untold.len().min(NAMED_MAX);
        let others = untold[named..].iter().map(|(count, _)| count).sum::<u64>() + std::mem::take(&mut self.forgotten);
        self.sources.values_mut().for_each(|failed| failed.untold = 0);
        let mut parts: Vec<_> =
            untold[..named].iter().map(|(count, source)| format!("{source} ({count} times)")).collect();
        if others > 0 {
            parts.push(format!("others ({others} times)"));
        }
        (!parts.is_empty()).then(|| format!("wrong password from {}", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::START + Duration::from_millis(ms)
    }

    fn from(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    #[test]
    fn the_first_is_answered_at_once_and_each_one_more_later() {
        let mut failures = Failures::default();
        let mut delay = |address, node, ms| failures.count(address, node, at(ms)).as_millis();
        let delays: Vec<_> = (0..4).map(|n| delay(from(1), false, n)).collect();
        assert_eq!(delays, [0, 100, 200, 300]);
        // Somebody else is not made to wait for it.
        assert_eq!(delay(from(2), false, 5), 0);
        assert_eq!((0..50).map(|n| delay(from(1), false, n)).max(), Some(2_000));
        assert_eq!((0..50).map(|n| delay(from(3), true, n)).max(), Some(100));
        // After a while it is a first one again.
        assert_eq!(delay(from(1), false, 60_100), 0);
        assert!(failures.suspects(from(1), at(60_200)) && !failures.suspects(from(1), at(120_200)));
        assert!(!failures.suspects(from(3), at(60)) && !failures.suspects(from(4), at(60)));
    }

    #[test]
    fn all_are_told_once_and_the_most_frequent_are_named() {
        let mut failures = Failures::default();
        assert_eq!(failures.news(), None);
        for source in 1..=6 {
            for _ in 0..source {
                failures.count(from(source), false, at(1));
            }
        }
        let said = failures.news().unwrap();
        let named = "10.0.0.6 (6 times), 10.0.0.5 (5 times), 10.0.0.4 (4 times), 10.0.0.3 (3 times), others (3 times)";
        assert_eq!(said, format!("wrong password from {named}"));
        assert_eq!(failures.news(), None);
    }

    #[test]
    fn many_sources_take_no_more_room_and_none_is_left_untold() {
        let mut failures = Failures::default();
        for n in 0..5_000 {
            failures.count(from(n), false, at(n.into()));
        }
        assert_eq!(failures.sources.len(), SOURCES_MAX);
        assert!(failures.news().unwrap().ends_with("others (4996 times)"));
    }
}
