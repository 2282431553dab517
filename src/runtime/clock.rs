//! The only place that reads clocks: the one the cores live by, and the one people do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::base::Instant;
use crate::base::time::millis;

/// Time since the machine booted, suspension included (`CLOCK_BOOTTIME`): a step of the wall clock is not seen, a pause of
/// the machine is.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Instant::START + time
}

/// Time since 1970 by the wall clock, which may be wrong and jump: for people, never for a decision. One that is set to a time
/// before 1970 is shown as 1970.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in whole milliseconds.
pub fn wall_ms() -> u64 {
    millis(wall())
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
