//! Buffers of one worker thread: a session holds one only while bytes are on their way.

use std::cell::RefCell;

/// One read at most takes in so much.
pub(super) const BUFFER_LEN: usize = 16 * 1024;
/// So many unused buffers are kept (1 MiB); more are given back to the allocator.
const SPARE_MAX: usize = 64;

/// A buffer of [`BUFFER_LEN`] bytes.
pub(super) type Buffer = Box<[u8]>;

/// The unused buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct Pool(RefCell<Vec<Buffer>>);

impl Pool {
    /// A buffer with unspecified content.
    pub(super) fn take(&self) -> Buffer {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub(super) fn give(&self, buffer: Buffer) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_spares_are_bounded() {
        let pool = Pool::default();
        let mut taken: Vec<_> = (0..SPARE_MAX + 5).map(|_| pool.take()).collect();
        taken[SPARE_MAX - 1][0] = 7;
        taken.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.0.borrow().len(), SPARE_MAX);
        assert_eq!(pool.take()[0], 7);
    }
}
