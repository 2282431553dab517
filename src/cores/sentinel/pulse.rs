//! Whether somebody answers: pings, and how long nothing valid has come.

use std::time::Duration;

use crate::base::Instant;

/// Of one redis, or of one other sentinel.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    /// When the next ping is to be sent.
    pub(super) due: Instant,
    /// When the ping was sent that is not answered yet.
    pub(super) sent: Option<Instant>,
    /// Since when nothing valid has come although something was asked, or could not be for want of a link.
    pub(super) silent_since: Option<Instant>,
    /// The last valid answer.
    pub(super) last_ok: Instant,
    /// The last answer, valid or not.
    pub(super) last_reply: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, sent: None, silent_since: Some(now), last_ok: now, last_reply: now }
    }

    /// A ping has been sent; the next one is due after `period`.
    pub(super) fn pinged(&mut self, now: Instant, period: Duration) {
        self.sent = Some(now);
        self.silent_since.get_or_insert(now);
        self.due = now + period;
    }

    /// The link has ended: what was asked on it is lost.
    pub(super) fn lost(&mut self, now: Instant) {
        self.sent = None;
        self.due = now;
        self.silent_since.get_or_insert(now);
    }

    /// A silence that lasts gets the whole time again.
    pub(super) fn restart_silence(&mut self, now: Instant) {
        for since in [&mut self.silent_since, &mut self.sent].into_iter().flatten() {
            *since = now;
        }
    }
}
