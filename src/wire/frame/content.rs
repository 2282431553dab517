//! What a frame says, in whatever version.

use std::time::Duration;

use heapless::String;

use crate::base::NameError;
use crate::base::lease::Grant;
use crate::base::node::NodeState;

/// One datagram of the peer link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The cluster it speaks of.
    pub cluster: String<32>,
    /// Random at each start of the sender's worker.
    pub boot: u64,
    /// Counts the sender's frames to everybody, from 1.
    pub sequence: u64,
    /// A number the receiver must echo before the sender believes a new boot of it.
    pub nonce: u64,
    /// The receiver's own nonce as last heard; zero: none heard yet.
    pub echo: u64,
    /// The sender's clock when it was sent, microseconds.
    pub stamp: u64,
    /// The newest stamp of the receiver that the sender has heard; zero: none yet.
    pub heard: u64,
    /// What its sentinel promises the redis of the receiver.
    pub grant: Option<Grant>,
    /// What was left of the lease that its redis holds when it was sent; zero: it holds none.
    pub left: Duration,
    /// The highest version that the sender reads; at least that of the frame.
    pub reads: u8,
    /// What the sender is.
    pub state: NodeState,
}

/// Why what an authentic frame says cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not in the layout of its version: a bug or a foreign build.
    #[error("{0}")]
    Layout(postcard::Error),
    /// It is of a node whose name cannot be one.
    #[error("{0}")]
    Name(NameError),
}
