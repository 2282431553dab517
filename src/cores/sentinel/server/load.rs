//! How much clients ask for, and how much of it is answered.

use std::time::Duration;

use crate::base::Instant;

/// Lines of long answers that may be made in one second. A crowd that asks for long lists must not keep the sentinel from
/// its judgement: what the servers say waits behind what clients ask.
const LINES_PER_SECOND: usize = 20_000;

/// Lines of long answers in this second.
#[derive(Debug, Default)]
pub(super) struct Effort {
    since: Instant,
    lines: usize,
}

impl Effort {
    /// Whether so many more lines may be looked through in this second. One answer may always be, however long.
    pub(super) fn affords(&mut self, lines: usize, now: Instant) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, lines: 0 };
        }
        let affords = self.lines == 0 || self.lines + lines <= LINES_PER_SECOND;
        if affords {
            self.lines += lines;
        }
        affords
    }
}

/// What has been asked so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub(super) commands: u64,
    /// Commands that were answered by an error.
    pub(super) errors: u64,
    /// What `instantaneous_ops_per_sec` tells.
    pub(super) pace: Pace,
}

/// How many commands there were in the last whole second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    since: Instant,
    count: u64,
    last: u64,
}

impl Pace {
    pub(super) fn count(&mut self, now: Instant, commands: u64) -> u64 {
        let passed = now.since(self.since);
        if passed >= Duration::from_secs(1) {
            self.last = if passed < Duration::from_secs(2) { self.count } else { 0 };
            (self.since, self.count) = (now, 0);
        }
        self.count += commands;
        self.last
    }
}
