//! What a person uses: status, events, why, orders to a running node, the drop-in for redis-sentinel, the demo and its lab.

pub mod check;
pub mod client;
pub mod commands;
pub mod console;
pub mod demo;
pub mod lab;
pub mod sentinel;
pub mod status;
pub mod why;
