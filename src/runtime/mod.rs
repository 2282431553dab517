//! Sockets, netlink, processes, disks and clocks. It drives the cores and has no opinion about protocol meaning.

pub mod clock;
pub mod connection;
pub mod control;
pub mod drive;
pub mod journal;
pub mod peers;
pub mod netlink;
pub mod status;
pub mod store;
pub mod vip;
