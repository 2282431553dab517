//! What must survive a crash.

use serde::{Deserialize, Serialize};

use crate::base::node::Decision;
use crate::base::{Epoch, NodeName, RunId};

/// State of a sentinel that survives restarts. Epochs never go back, and there is one vote per epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableMaster {
    /// Its name.
    pub name: String,
    /// Who is master since which epoch; none: there is no record of any.
    pub decision: Option<Decision>,
    /// The last vote: for whom, in which epoch.
    pub vote: Option<(RunId, Epoch)>,
}

impl Durable {
    /// The state of a sentinel that never ran before.
    pub fn new(id: RunId) -> Self {
        Self { id, current_epoch: 0, masters: Vec::new(), sentinels: Vec::new() }
    }
}
