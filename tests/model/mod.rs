//! The one model of redis-server, for whoever needs one and runs none: the simulator, the scenarios, and the unit worlds of the
//! sentinel.
//!
//! A [`Server`] knows what it answers and does, and nothing of the world around it. Whoever surrounds it says what time it is,
//! carries its data to others as fast or as slowly as goes there, does what an [`Effect`] wants done elsewhere, and breaks
//! things.

#![allow(dead_code, unused_imports, reason = "nobody uses all of it")]
#![allow(unreachable_pub, reason = "each of them has it as a module of its own")]

mod command;
mod info;
mod replication;
mod server;

pub use command::{Effect, Moment, Session, Words};
pub use replication::Copy;
pub use server::{Hosts, Link, Server};
