//! A few words that one writes and many read, also over processes: nobody ever waits for anybody.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Two copies, of which the writer changes the one that nobody is sent to, and then sends the readers there. So a writer that is
/// stopped in the middle of it keeps no reader from the words before, as it would with a plain sequence lock.
///
/// All of it is zeros at the start.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Latch<const N: usize> {
    /// Of the last write. Its lowest bit is the copy that counts.
    turn: AtomicU64,
    copies: [[AtomicU64; N]; 2],
}

impl<const N: usize> Default for Latch<N> {
    fn default() -> Self {
        Self { turn: AtomicU64::new(0), copies: [const { [const { AtomicU64::new(0) }; N] }; 2] }
    }
}

/// The copy of a turn.
const fn copy(turn: u64) -> usize {
    (turn & 1) as usize
}

impl<const N: usize> Latch<N> {
    /// There must be no other writer at that time.
    pub(super) fn write(&self, words: [u64; N]) {
        let turn = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        // Who reads one of these words sees that the turn before has been taken, and that its own is over.
        fence(Ordering::Release);
        for (place, word) in self.copies[copy(turn)].iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.turn.store(turn, Ordering::Release);
    }

    /// The words of the last write that has ended. Reads again if there was another one meanwhile.
    pub(super) fn read(&self) -> [u64; N] {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let words = self.copies[copy(turn)].each_ref().map(|place| place.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if self.turn.load(Ordering::Relaxed) == turn {
                return words;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn no_reader_sees_half_of_a_write_or_an_older_one_after_a_newer_one() {
        let (latch, stop) = (Arc::new(Latch::<6>::default()), Arc::new(AtomicBool::new(false)));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (latch, stop) = (Arc::clone(&latch), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let (mut last, mut reads) = (0, 0_u64);
                    while !stop.load(Ordering::Relaxed) {
                        let words = latch.read();
                        let expected: [u64; 6] = std::array::from_fn(|place| words[0].wrapping_mul(place as u64 + 1));
                        assert_eq!(words, expected);
                        assert!(words[0] >= last);
                        (last, reads) = (words[0], reads + 1);
                    }
                    reads
                })
            })
            .collect();
        let (end, mut writes) = (Instant::now() + Duration::from_millis(500), 0_u64);
        while Instant::now() < end {
            for _ in 0..100 {
                writes += 1;
                latch.write(std::array::from_fn(|place| writes.wrapping_mul(place as u64 + 1)));
            }
        }
        stop.store(true, Ordering::Relaxed);
        let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        println!("{writes} writes, {reads} reads");
        assert_eq!(latch.read()[0], writes);
    }

    #[test]
    fn a_writer_that_is_stopped_in_the_middle_keeps_nobody_from_reading() {
        let latch = Latch::<2>::default();
        latch.write([1, 1]);
        // What a write does before it ends.
        latch.copies[copy(2)][0].store(7, Ordering::Relaxed);
        assert_eq!(latch.read(), [1, 1]);
        latch.write([2, 2]);
        assert_eq!(latch.read(), [2, 2]);
    }
}
