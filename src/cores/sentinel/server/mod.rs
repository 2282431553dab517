//! The command server in front of the agreement: the port at which clients and other sentinels speak the protocol of
//! redis-sentinel.
//!
//! It owns what it knows of clients, users and their rights, and what it counts. What the sentinels agree on it only reads, by a
//! [`View`](super::view::View); what is to change there it orders, by an [`Order`](super::order::Order), and it puts into words
//! what comes of that. The other way the agreement knows nothing of it: it says what happens, and who has subscribed to it
//! hears it from here.
//!
//! ```text
//!  words ──► command: the table, admission ──► what it knows itself ──────────────────────────► answer
//!                                        └──► Order ──► agreement ──► Outcome, Settled, Event ──► answer, messages
//! ```
//! Each file uses only files that stand above it here; `tests/layers.rs` holds it.

mod ask;
mod glob;
mod load;
mod reply;

mod fence;
mod refusals;
mod render;
mod step;
mod table;

mod acl;
mod describe;

mod access;
mod client;

mod clients;
mod orders;

mod state;

mod admission;
mod session;
mod users;
mod wording;

mod connections;
mod info;

mod command;

pub use access::Access;
pub use acl::{Acl, AclError, Fault};
pub use ask::{Fact, Question, Sockets, Usage};
pub(super) use state::{Deferred, Server};
#[cfg(test)]
pub(super) use table::callable;
