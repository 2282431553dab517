//! vigie makes Redis and Valkey highly available without touching their clients.
// The tour and the map are written at the end of the first slice.

pub mod args;
pub mod base;
pub mod config;
pub mod cores;
pub mod operate;
pub mod runtime;
pub mod wire;
