//! Sockets, netlink, processes, disks and clocks. It drives the cores and has no opinion about protocol meaning.

pub mod clock;
pub mod connection;
pub mod control;
pub mod crowd;
pub mod daemon;
pub mod drive;
pub mod forward;
pub mod guard;
pub mod host;
pub mod journal;
pub mod log;
pub mod netlink;
pub mod notify;
pub mod peers;
pub mod pidfd;
pub mod private;
pub mod proxy;
pub mod redis;
pub mod rights;
pub mod sentinel;
pub mod status;
pub mod store;
pub mod vip;
pub mod watchdog;
pub mod why;
pub mod worker;
