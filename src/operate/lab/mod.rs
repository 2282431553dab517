//! A whole network on one machine: hosts as network namespaces on a switch of their own, and a client that measures.
//!
//! Everything happens in a [`sandbox`]: when it ends, however it ends, nothing of it is left.

pub mod client;
pub mod cluster;
pub mod hosts;
pub mod sandbox;
