//! Whether redis takes writes: only by a lease, and for as long as it lasts.

use std::time::Duration;

use super::Token;
use crate::base::lease::Held;
use crate::base::{Epoch, Instant};

/// Between two tries to open what has refused.
const RETRY: Duration = Duration::from_millis(100);
/// Between two tries to close what has not answered.
const INSIST: Duration = Duration::from_millis(10);

/// States of the gate. A process starts with it closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Redis refuses writes.
    Closed {
        /// Not opened before.
        not_before: Instant,
    },
    /// It was told to take writes, by the lease of that epoch, and may do so already.
    Opening { token: Token, epoch: Epoch },
    /// It takes writes.
    Open { epoch: Epoch },
    /// It was told to refuse writes, and may not have heard it.
    Closing {
        /// The order that is not answered; none: it is due again at `again_at`.
        token: Option<Token>,
        again_at: Instant,
        /// Whether the lease is given back then.
        returns: bool,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Tell redis to take writes, by the lease of that epoch.
    Open(Epoch),
    /// It goes on by the lease of a later epoch.
    GoOn(Epoch),
    /// Tell it to refuse writes.
    Close {
        /// To make room for somebody else.
        returns: bool,
    },
    /// It has not confirmed that it refuses writes, and the lease is about to end.
    Kill,
}

impl Gate {
    /// Of a process that was just started.
    pub(super) const START: Self = Self::Closed { not_before: Instant::START };

    /// Whether redis surely refuses writes.
    pub(super) fn is_closed(self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// What is to be done now, with the lease that was held last. `replaced`: whether somebody else was elected after that epoch;
    /// `ready`: whether redis can be told anything.
    pub(super) fn next(
        self,
        now: Instant,
        lease: Option<Held>,
        ready: bool,
        replaced: impl Fn(Epoch) -> bool,
    ) -> Option<Move> {
        let lasts = lease.filter(|held| now < held.lease.fence_at());
        // Without one there is nothing that could end: whoever takes writes all the same must not go on.
        let over = lease.is_none_or(|held| now >= held.lease.kill_at());
        match self {
            Self::Closed { not_before } => {
                let held = lasts.filter(|held| ready && now >= not_before && !replaced(held.epoch))?;
                Some(Move::Open(held.epoch))
            }
            Self::Open { epoch } if replaced(epoch) => Some(Move::Close { returns: true }),
            Self::Open { epoch } => match lasts {
                Some(held) => (held.epoch > epoch).then_some(Move::GoOn(held.epoch)),
                None => Some(Move::Close { returns: false }),
            },
            // The order to close comes behind the one to open, and takes back whatever that did.
            Self::Opening { epoch, .. } if replaced(epoch) => Some(Move::Close { returns: true }),
            Self::Opening { .. } => lasts.is_none().then_some(Move::Close { returns: false }),
            Self::Closing { .. } if over => Some(Move::Kill),
            Self::Closing { token: None, again_at, returns } => (now >= again_at).then_some(Move::Close { returns }),
            Self::Closing { token: Some(_), .. } => None,
        }
    }

    /// When [`Self::next`] has something to say at the latest.
    pub(super) fn deadline(self, lease: Option<Held>) -> Option<Instant> {
        let lease = lease.map(|held| held.lease);
        match self {
            // A lease that comes is told; one that was refused is tried again.
            Self::Closed { not_before } => {
                lease.filter(|lease| not_before > Instant::START && not_before < lease.fence_at()).map(|_| not_before)
            }
            Self::Opening { .. } | Self::Open { .. } => lease.map(|lease| lease.fence_at()),
            Self::Closing { token: Some(_), .. } => lease.map(|lease| lease.kill_at()),
            Self::Closing { token: None, again_at, .. } => {
                Some(lease.map_or(again_at, |lease| again_at.min(lease.kill_at())))
            }
        }
    }

    /// Redis has refused to open.
    pub(super) fn refused(now: Instant) -> Self {
        Self::Closed { not_before: now + RETRY }
    }

    /// Redis has not confirmed that it is closed: it is told again.
    pub(super) fn insist(now: Instant, returns: bool) -> Self {
        Self::Closing { token: None, again_at: now + INSIST, returns }
    }
}
