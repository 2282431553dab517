//! Bytes on a wire and the values they mean: small, bounded, without clocks or sockets.
//!
//! Each codec has `parse` (bytes to a value, or a reason why not; never a panic, whatever the bytes) and `emit` (a value to
//! bytes). A value that exists can be emitted and parses back to itself.

pub mod arp;
pub mod frame;
pub mod hello;
pub mod inet_diag;
pub mod info;
pub mod resp;
pub mod scan;
pub mod vrrp;
pub mod words;
