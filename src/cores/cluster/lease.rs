//! The lease of the master: who may take writes, and until when.
//!
//! Votes decide who should be master; grants decide who may take writes. Each sentinel binds itself to one process of a redis at a
//! time ([`Grantor`]); whichever process has the grants of a majority holds the lease ([`Holder`]).
//!
//! ```text
//!   holder                                   sentinel
//!   stamp s  ── frame: asks, stamp s ──▶  t: bound to this process until t + L, by its own clock
//!            ◀─ frame to it: grant, s ──
//!   counts on it until s + 0.9 L, by its own clock
//! ```
//!
//! **Why there are never two holders.** Two majorities share a sentinel. It is bound to one process until L after it received a stamp,
//! and the holder has sent that stamp earlier, by whatever clock: s ≤ t. The holder stops at 0.9 L after s and the sentinel
//! waits for L after t, so that their clocks may run at rates that differ by a tenth. After a start the sentinel does not know to
//! whom it was bound: it is quiet for the length of a grant, but for the holder of the decision on its disk.
//!
//! **Why nobody comes back.** A sentinel binds itself to another process only in the epoch that is the highest on its disk. A
//! holder had a majority, so a majority has stored its epoch or a higher one, and no process can find a majority in a lower
//! epoch later. To renew what it is bound to, a sentinel asks nobody and stores nothing: an election that comes to nothing fences
//! nobody.

mod grantor;
mod holder;
mod sabotage;

use std::time::Duration;

pub use grantor::{Ask, Ballot, Grantor};
pub use holder::Holder;
pub use sabotage::{Rule, Rules};

use crate::base::Epoch;

/// One process of a redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The place of its node in the file.
    pub node: usize,
    /// Its incarnation: see [`crate::base::node::incarnation`].
    pub incarnation: u64,
}

/// A process, elected in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub process: Process,
    /// In which epoch.
    pub epoch: Epoch,
}

/// Between two frames of a node whose redis may hold a lease. Its fence begins at 0.7 of the lease: what is left of that after one
/// period bears a round trip, an answer that is lost and asked for again, and a thread that stands still.
pub fn ask_every(lease: Duration) -> Duration {
    (lease * 3 / 10).min(Duration::from_millis(100))
}
