//! What everything else stands on: time without a clock, names, limits, what nodes say and what it comes to, seeded
//! randomness and the one shape of a core.
//!
//! Nothing here opens, reads, spawns or waits.

pub mod census;
pub mod crowd;
pub mod drive;
pub mod lease;
pub mod machine;
pub mod names;
pub mod node;
pub mod rng;
pub mod sabotage;
pub mod secret;
pub mod time;

pub use machine::Machine;
pub use names::{EPOCH_STEP, Epoch, NameError, NodeName, Place, RunId};
pub use rng::Rng;
pub use secret::{Credentials, Purpose, Secret, Secrets};
pub use time::Instant;
