//! A timer of the kernel, by the clock that the cores live by.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::base::Instant;

/// Readable from the moment on that it is set to, until it is [hushed](Timer::hush) or set to another one. It never waits and
/// allocates nothing.
#[derive(Debug)]
pub(super) struct Timer {
    timer: TimerFd,
    /// What it was set to last, and has not rung for.
    set: Option<Instant>,
}

impl Timer {
    /// One that is set to nothing.
    pub(super) fn new() -> nix::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        Ok(Self { timer, set: None })
    }

    /// To ring then; none: not at all. What it has rung for and nobody has heard is taken back if that is another moment.
    pub(super) fn set(&mut self, at: Option<Instant>) -> nix::Result<()> {
        if self.set == at {
            return Ok(());
        }
        match at {
            Some(at) => {
                // All zeros would take it back.
                let time = Duration::from_micros(at.as_micros().max(1));
                self.timer.set(Expiration::OneShot(time.into()), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            None => self.timer.unset()?,
        }
        self.set = at;
        Ok(())
    }

    /// What it is set to.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Instant> {
        self.set
    }

    /// If it has rung, it is quiet until it is set again.
    pub(super) fn hush(&mut self) {
        if self.timer.wait().is_ok() {
            self.set = None;
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }
}
