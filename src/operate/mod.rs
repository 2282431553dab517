//! What a person uses: status, events, why, orders to a running node, the drop-in for redis-sentinel; with the feature `demo`
//! also the demo and its lab.

pub mod check;
pub mod client;
pub mod commands;
pub mod console;
#[cfg(feature = "demo")]
pub mod demo;
#[cfg(feature = "demo")]
pub mod lab;
pub mod sentinel;
pub mod status;
pub mod why;
