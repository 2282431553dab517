//! Whether somebody answers: pings, and how long nothing valid has come.

use std::time::Duration;

use crate::base::Instant;

/// That something is missed is told within this time. Told later, it has waited for this process, whose own time is nobody's silence.
const MISSED_MAX: Duration = Duration::from_millis(200);

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

    /// Whoever should have spoken at `since` in another way has not: is it still there? If it does not answer, it has been silent
    /// since then.
    pub(super) fn missed(&mut self, since: Instant, now: Instant) {
        let since = since.max(now - MISSED_MAX);
        if since > self.last_ok {
            self.silent_since = Some(self.silent_since.map_or(since, |silent| silent.min(since)));
        }
        self.due = now;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_silent_since_then_unless_it_has_answered() {
        let ms = Duration::from_millis;
        let now = Instant::from_millis(10_000);
        let answered = |ago| Pulse { silent_since: None, last_ok: now - ms(ago), ..Pulse::new(now - ms(5_000)) };
        let missed = |mut pulse: Pulse, ago| {
            pulse.missed(now - ms(ago), now);
            assert_eq!(pulse.due, now, "it is asked at once");
            pulse.silent_since.map(|at| now.since(at))
        };
        assert_eq!(missed(answered(300), 125), Some(ms(125)));
        assert_eq!(missed(answered(100), 125), None);
        // What is told late has waited for this process.
        assert_eq!(missed(answered(3_000), 2_000), Some(MISSED_MAX));
        // A ping that is on its way counts from when it was sent, if that was before.
        for (sent, silent) in [(40, 125), (180, 180)] {
            let mut pulse = answered(300);
            pulse.pinged(now - ms(sent), ms(250));
            assert_eq!(missed(pulse, 125), Some(ms(silent)));
        }
    }
}
