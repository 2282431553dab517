//! What is refused of what others say: by kind, and how often it is worth a word.

use std::time::Duration;

use crate::base::Instant;

/// The same kind of refusal is reported at most so often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What was refused, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// An epoch out of reach.
    Epoch,
    /// A master that is no data node of the file.
    Master,
    /// A redis that is no node of the file.
    Replica,
    /// A greeting of somebody who is not listed.
    Greeting,
    /// A request for a vote by somebody who is no sentinel of this cluster.
    Candidate,
    /// A master without a lease, in a fenced cluster.
    Mode,
}

impl Refused {
    const COUNT: usize = 6;

    /// The event that tells of it.
    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Epoch => "epoch-refused",
            Self::Master => "master-refused",
            Self::Replica => "replica-refused",
            Self::Greeting => "greeting-refused",
            Self::Candidate => "candidate-refused",
            Self::Mode => "mode-refused",
        }
    }
}

/// When each kind was last reported, and how many there were since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reports([(Option<Instant>, u64); Refused::COUNT]);

impl Reports {
    /// One more of that kind. If that is to be reported: how many before it were not.
    pub(super) fn take_down(&mut self, kind: Refused, now: Instant) -> Option<u64> {
        let (told_at, count) = &mut self.0[kind as usize];
        *count += 1;
        if told_at.is_some_and(|at| now.since(at) < REPORT_EVERY) {
            return None;
        }
        *told_at = Some(now);
        Some(std::mem::take(count) - 1)
    }
}
