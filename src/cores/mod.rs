//! The cores decide, the runtime does.
//!
//! Each core is a [`Machine`](crate::base::Machine) or a plain deterministic value: time, bytes, facts and a seed go in,
//! requests and events come out. A core opens no socket, reads no clock, spawns nothing, and never uses another core: what
//! one must know of another travels as the facts of [`base::node`](crate::base::node), carried by the runtime.

pub mod cluster;
pub mod proxy;
pub mod redis;
pub mod sentinel;
pub mod vrrp;
