//! What is sent to redis and to other sentinels, and what a reply answers.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::Epoch;

use super::ids::MasterId;

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// AUTH
    Auth,
    /// What is only sent for its effect.
    Ignored,
    /// PING
    Ping,
    /// INFO
    Info,
    /// SUBSCRIBE
    Subscribe,
    /// SENTINEL IS-MASTER-DOWN-BY-ADDR about that master, by the address it had when that was asked.
    Ask(MasterId, SocketAddr),
    /// The EXEC that makes a replica the master, in the failover of that epoch.
    Promote(Epoch),
    /// ROLE of the replica to promote.
    Role(Epoch),
    /// CLIENT PAUSE before an ordered switchover.
    Pause(Epoch),
    /// The master's INFO after the pause.
    PausedInfo(Epoch),
    /// The role of a redis, as it follows from that master's decision of that epoch. Sent only for its effect.
    Follow(MasterId, Epoch),
}

/// A command of text words.
pub(super) fn words(args: &[&str]) -> Vec<Bytes> {
    args.iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect()
}
