//! Where everything that looks like chance comes from.

use std::time::Duration;

use vigie::base::Rng;

/// A seeded source of choices. Each part of the world has one of its own, so that a change in one part leaves the others'
/// choices as they were.
pub struct Dice(Rng);

impl Dice {
    /// The choices of one part of the world of a seed.
    pub fn new(seed: u64, part: u64) -> Self {
        // Neighbouring seeds must not lead to similar worlds (the finalizer of SplitMix64).
        let mut mixed = seed.wrapping_mul(64).wrapping_add(part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(Rng::new(mixed ^ (mixed >> 31)))
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("fits");
        usize::try_from(self.0.next_u64() % limit).expect("below a usize")
    }

    /// True in so many of 1,000 cases.
    pub fn chance(&mut self, permille: usize) -> bool {
        self.below(1_000) < permille
    }

    /// Any of these; there is at least one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A time in `[shortest, longest]`, every order of magnitude as likely as every other.
    pub fn time(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let (mut low, mut high) = (shortest, longest);
        while low * 2 < high {
            if self.chance(500) { low *= 2 } else { high /= 2 }
        }
        low.max(shortest) + self.0.below(high.saturating_sub(low))
    }

    /// A time in `[0, longest)`, evenly.
    pub fn upto(&mut self, longest: Duration) -> Duration {
        self.0.below(longest)
    }

    /// 20 bytes nobody else has.
    pub fn id(&mut self) -> vigie::base::RunId {
        let mut id = [0; 20];
        id.fill_with(|| u8::try_from(self.0.next_u32() >> 24).expect("8 bits"));
        vigie::base::RunId(id)
    }
}
