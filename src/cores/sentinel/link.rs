//! One connection, as it is wanted: always open.

use std::time::Duration;

use crate::base::Instant;

use super::ids::LinkId;

/// A link that lived this long is tried again at once, as if it had never failed.
const STABLE: Duration = Duration::from_secs(1);
/// Longest wait between two attempts to connect.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// One connection, as it is wanted: always open.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// Closed; to be opened at `retry_at`.
    Down { retry_at: Instant, backoff: Duration },
    /// Being opened.
    Connecting { id: LinkId, backoff: Duration },
    /// Open.
    Up { id: LinkId, since: Instant, backoff: Duration },
}

impl Link {
    pub(super) fn id(&self) -> Option<LinkId> {
        match self {
            Self::Down { .. } => None,
            Self::Connecting { id, .. } | Self::Up { id, .. } => Some(*id),
        }
    }

    pub(super) fn up(&self) -> Option<LinkId> {
        match self {
            Self::Up { id, .. } => Some(*id),
            Self::Down { .. } | Self::Connecting { .. } => None,
        }
    }

    /// Since when it is open.
    pub(super) fn since(&self) -> Option<Instant> {
        match self {
            Self::Up { since, .. } => Some(*since),
            Self::Down { .. } | Self::Connecting { .. } => None,
        }
    }

    pub(super) fn connected(&mut self, now: Instant) {
        if let Self::Connecting { id, backoff } = *self {
            *self = Self::Up { id, since: now, backoff };
        }
    }

    /// The link has ended: again at once if it was a good one, else after a while that doubles.
    pub(super) fn ended(&mut self, now: Instant) {
        let backoff = match *self {
            Self::Up { since, .. } if now.since(since) >= STABLE => Duration::ZERO,
            Self::Up { backoff, .. } | Self::Connecting { backoff, .. } | Self::Down { backoff, .. } => backoff,
        };
        let next = (backoff * 2).clamp(Duration::from_millis(10), BACKOFF_MAX);
        *self = Self::Down { retry_at: now + backoff, backoff: next };
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::Down { retry_at: Instant::START, backoff: Duration::ZERO }
    }
}
