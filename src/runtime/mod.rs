//! Sockets, netlink, processes, disks and clocks. It drives the cores and has no opinion about protocol meaning.

pub mod clock;
pub mod connection;
pub mod drive;
pub mod journal;
pub mod sentinel;
pub mod status;
pub mod store;
