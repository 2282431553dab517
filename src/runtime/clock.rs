//! The only place that reads the clock the cores live by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::base::Instant;

/// Time since the machine booted, suspension included (`CLOCK_BOOTTIME`): a step of the wall clock is not seen, a pause of
/// the machine is.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Instant::START + time
}

/// Sleeps until `deadline`; forever without one. A deadline already past returns at once, whatever tokio's own clock says.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        None => std::future::pending().await,
        Some(deadline) => loop {
            let left = deadline.since(now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        },
    }
}
