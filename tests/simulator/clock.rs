//! The clock of a host: monotonic, and not quite as fast as the world's time.

use std::time::Duration;

use vigie::base::Instant;

/// The clock of one host.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed when the world began.
    offset: Duration,
    /// Faster than the world by so many millionths.
    drift: i64,
}

impl Clock {
    /// A clock that showed `offset` at the start of the world.
    pub fn new(offset: Duration, drift: i64) -> Self {
        Self { offset, drift }
    }

    /// What it shows.
    pub fn shows(&self, world: Instant) -> Instant {
        let micros = i64::try_from(world.as_micros()).expect("a short world");
        let local = micros + micros * self.drift / 1_000_000;
        Instant::from_micros(u64::try_from(local).expect("drifts are small")) + self.offset
    }

    /// The first moment of the world at which it shows at least `local`.
    pub fn when(&self, local: Instant) -> Instant {
        let since = i64::try_from((local - self.offset).as_micros()).unwrap_or(i64::MAX / 2_000_000);
        let guess = since - since * self.drift / 1_000_000 - 2 - since / 100_000;
        let mut world = Instant::from_micros(u64::try_from(guess).unwrap_or(0));
        while self.shows(world) < local {
            let missing = local.since(self.shows(world)).as_micros();
            world = world + Duration::from_micros(u64::try_from(missing / 2).unwrap_or(0).max(1));
        }
        world
    }
}
