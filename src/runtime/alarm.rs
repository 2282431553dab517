//! Waits with a timer of the kernel.

use std::io;

use tokio::io::unix::AsyncFd;

use super::clock;
use super::timer::Timer;
use crate::base::Instant;

/// Rings at a deadline by the clock that the cores live by. Tokio's own timers are up to a millisecond late, and about each 64 ms
/// they wake their thread to do no more than to sort themselves.
#[derive(Debug)]
pub(super) struct Alarm {
    /// None: the system gives no more timers, and tokio's have to do.
    timer: Option<AsyncFd<Timer>>,
}

impl Alarm {
    /// One that is set to nothing. Needs a tokio runtime.
    #[expect(unsafe_code, reason = "the safe constructors of AsyncFd are deprecated")]
    pub(super) fn new() -> Self {
        let timer = Timer::new().ok();
        // SAFETY: a Timer owns its descriptor and names the same one as long as it lives, which the AsyncFd keeps it.
        Self { timer: timer.and_then(|timer| unsafe { AsyncFd::register(timer) }.ok()) }
    }

    /// Returns at `deadline`; without one, never. Cancel safe.
    pub(super) async fn until(&mut self, deadline: Option<Instant>) {
        if let (Some(timer), Some(deadline)) = (&mut self.timer, deadline)
            && ring(timer, deadline).await.is_ok()
        {
            return;
        }
        clock::sleep_until(deadline).await;
    }
}

async fn ring(timer: &mut AsyncFd<Timer>, deadline: Instant) -> io::Result<()> {
    while clock::now() < deadline {
        timer.get_mut().set(Some(deadline))?;
        // It may be about what the timer was set to before.
        timer.readable_mut().await?.clear_ready();
        timer.get_mut().hush();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn it_rings_at_its_deadline_and_not_for_another_one() {
        let mut alarm = Alarm::new();
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
