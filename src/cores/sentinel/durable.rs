//! What must survive a crash.

use crate::base::node::{Decision, Mode};
use crate::base::{Epoch, NodeName, RunId};

/// State of a sentinel that survives restarts. Epochs never go back, and there is one vote per epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The id of this sentinel (`SENTINEL MYID`).
    pub id: RunId,
    /// The highest epoch seen.
    pub current_epoch: Epoch,
    /// One per master ever watched.
    pub masters: Vec<DurableMaster>,
    /// Ids of the other sentinels, as last heard.
    pub sentinels: Vec<(NodeName, RunId)>,
}

/// The record of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableMaster {
    /// Its name.
    pub name: String,
    /// Who is master since which epoch; none: there is no record of any.
    pub decision: Option<Decision>,
    /// The last vote: for whom, in which epoch.
    pub vote: Option<(RunId, Epoch)>,
    /// By what right the master of the decision takes writes.
    pub mode: Mode,
}

/// Whether what has changed is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDisk {
    Yes,
    /// It is a part of what is being stored.
    Soon,
    No,
}

impl OnDisk {
    /// A store begins, of everything as it is now.
    pub(super) fn begin(&mut self) {
        if *self == Self::No {
            *self = Self::Soon;
        }
    }

    /// The store that was under way has ended. What has changed since it began was no part of it.
    pub(super) fn end(&mut self, stored: bool) {
        if *self == Self::Soon {
            *self = if stored { Self::Yes } else { Self::No };
        }
    }
}

impl Durable {
    /// The state of a sentinel that never ran before.
    pub fn new(id: RunId) -> Self {
        Self { id, current_epoch: 0, masters: Vec::new(), sentinels: Vec::new() }
    }
}
