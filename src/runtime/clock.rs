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

/// Time since 1970 by the wall clock, which may be wrong and jump: for people, never for a decision ([`received`] has bounds for
/// it). One that is set to a time before 1970 is shown as 1970.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in whole milliseconds.
pub fn wall_ms() -> u64 {
    millis(wall())
}

/// When a packet came in that was read at `read`, by the kernel's date on it (`SO_TIMESTAMPNS`): that is of the wall clock, so only
/// the packet's age is taken from it. At `empty_at`, nothing waited where it was read.
///
/// A wall clock that was set meanwhile says anything. Yet the packet came neither before `empty_at`, or it would have been read
/// then, nor in the future: by such a step no packet looks older than it can be, and none younger than by its reading. Without a
/// date it is as old as its reading.
pub fn received(read: Instant, empty_at: Instant, dated: Option<Duration>) -> Instant {
    // After `read`: if this thread stood still between the two, the packet looks older, and tells of nobody's life too late.
    dated_at(read, empty_at, dated.map(|dated| wall().saturating_sub(dated)))
}

fn dated_at(read: Instant, empty_at: Instant, age: Option<Duration>) -> Instant {
    (read - age.unwrap_or_default()).max(empty_at.min(read))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_makes_no_packet_younger_than_its_reading_or_older_than_it_can_be() {
        let [before, empty_at, read] = [8_000, 9_000, 10_000].map(Instant::from_millis);
        let hour = Duration::from_secs(3_600);
        for (age, expected) in [
            (Some(Duration::ZERO), read),
            (Some(Duration::from_millis(600)), Instant::from_millis(9_400)),
            // Set forward while it waited.
            (Some(hour), empty_at),
            // No date.
            (None, read),
        ] {
            assert_eq!(dated_at(read, empty_at, age), expected, "{age:?}");
        }
        assert_eq!(dated_at(before, empty_at, Some(hour)), before, "never after its reading");
        // Set back while it waited: its date lies in the future.
        assert_eq!(received(read, empty_at, Some(wall() + hour)), read);
        assert_eq!(received(read, empty_at, Some(Duration::ZERO)), empty_at);
    }
}
