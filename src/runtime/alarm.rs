//! A timer of the kernel, for a thread on which other nodes wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use super::clock;
use super::drive::Wait;
use crate::base::Instant;

/// Rings at a deadline by the clock that the cores live by. Tokio's own timers are up to a millisecond late, and about each 64 ms
/// they wake their thread to do no more than to sort themselves.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Timer>,
    /// What it was set to last.
    set: Option<Instant>,
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// One that is set to nothing. Needs a tokio runtime.
    #[expect(unsafe_code, reason = "the safe constructors of AsyncFd are deprecated")]
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: a TimerFd owns its descriptor and names the same one as long as it lives, which the AsyncFd keeps it.
        let timer = unsafe { AsyncFd::register(Timer(timer)) }?;
        Ok(Self { timer, set: None })
    }

    fn set(&mut self, deadline: Instant) -> io::Result<()> {
        if self.set != Some(deadline) {
            let time = Duration::from_micros(deadline.as_micros());
            // This takes back what it rang for and nobody has heard.
            let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
            self.timer.get_ref().0.set(Expiration::OneShot(time.into()), flags)?;
            self.set = Some(deadline);
        }
        Ok(())
    }

    async fn ring(&mut self, deadline: Instant) -> io::Result<()> {
        while clock::now() < deadline {
            self.set(deadline)?;
            let mut ready = self.timer.readable().await?;
            // It may have been about what the alarm was set to before.
            if let Ok(rung) = ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                rung?;
            }
        }
        Ok(())
    }
}

impl Wait for Alarm {
    async fn until(&mut self, deadline: Option<Instant>) {
        match deadline {
            None => std::future::pending().await,
            Some(deadline) => {
                if self.ring(deadline).await.is_err() {
                    clock::sleep_until(Some(deadline)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn it_rings_at_its_deadline_and_not_for_another_one() {
        let mut alarm = Alarm::new().unwrap();
        alarm.until(Some(Instant::START)).await;
        for wait in [2 * MS, Duration::ZERO, 70 * MS] {
            let deadline = clock::now() + wait;
            alarm.until(Some(deadline)).await;
            assert!(clock::now() >= deadline);
        }
        // It rings, and nobody listens.
        let (early, late) = (clock::now() + 10 * MS, clock::now() + 40 * MS);
        tokio::select! {
            biased;
            () = alarm.until(Some(early)) => assert!(clock::now() >= early),
            () = std::future::ready(()) => {}
        }
        clock::sleep_until(Some(early + MS)).await;
        alarm.until(Some(late)).await;
        assert!(clock::now() >= late);
        // Set forward, and back again.
        let soon = clock::now() + 20 * MS;
        for deadline in [soon + 3_600_000 * MS, soon] {
            let waited = tokio::time::timeout(MS, alarm.until(Some(deadline))).await;
            assert!(waited.is_err() || clock::now() >= soon);
        }
        alarm.until(Some(soon)).await;
        assert!(clock::now() >= soon);
        assert!(tokio::time::timeout(5 * MS, alarm.until(None)).await.is_err());
    }
}
