//! Why there is, or is not, a failover: every gate between a master that looks bad and a replica that is made master, with its
//! value, its threshold and its verdict. Numbers, no prose: who asks puts them into words.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::base::{Epoch, NodeName};

use super::select::Rejection;

/// What one sentinel makes of one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterWhy {
    /// The name that clients ask for.
    pub name: String,
    /// The master by the decision; none before the first one.
    pub master: Option<Who>,
    /// What the gates come to.
    pub outcome: Outcome,
    /// All gates, in their order.
    pub gates: Vec<Checked>,
    /// The other sentinels.
    pub sentinels: Vec<SentinelWhy>,
}

/// What the gates come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The master is well, as far as this sentinel can see.
    NotNeeded,
    /// It will begin when some time has passed, if nothing changes.
    Awaited,
    /// It is under way, here or at another sentinel.
    UnderWay,
    /// It is needed and cannot be.
    Blocked,
}

/// What one gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is open.
    Open,
    /// There is nothing to let through: the master is well.
    Idle,
    /// It opens by itself, or the wait for it ends.
    Waits,
    /// It is shut.
    Blocks,
    /// It has not been come to.
    Ahead,
}

/// A gate and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What it does.
    pub verdict: Verdict,
    /// Which one, and its values.
    #[serde(flatten)]
    pub gate: Gate,
}

/// A gate and its values. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "snake_case")]
pub enum Gate {
    /// There has to be a master to replace; before the first one, a majority has to agree that there was none.
    Decision {
        /// The epoch of the decision; none before the first one.
        epoch: Option<Epoch>,
        /// Sentinels that know of none, this one among them.
        without_record: usize,
        /// As many have to.
        needed: usize,
        /// This sentinel has no record of anything, and gives no vote until it has heard these.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        waits_for: Vec<String>,
        /// An operator gave it the writes, where no majority was left.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        taken_over: bool,
    },
    /// This sentinel has to find the master down.
    Down {
        /// Why it does; none: it does not.
        by: Option<DownBy>,
        /// For how long it does.
        down_ms: Option<u64>,
        /// For how long nothing valid has come.
        silent_ms: Option<u64>,
        /// So long a silence is allowed: `down_after`, or `busy_grace` of one that is busy.
        limit_ms: u64,
        /// Whether its supervisor, or itself, says that it is busy.
        busy: bool,
    },
    /// A quorum has to find it down.
    Quorum {
        /// Who does, this sentinel among them.
        agree: usize,
        /// As many have to.
        needed: usize,
        /// Of so many.
        of: usize,
    },
    /// This node's password has to be that of the others.
    Password {
        /// Redis that refuse it.
        refused_by: usize,
        /// Of so many.
        of: usize,
    },
    /// So many sentinels have to be there as have to vote.
    Majority {
        /// Who is there, this sentinel among them.
        reachable: usize,
        /// As many have to be: a majority of the voters, and the quorum.
        needed: usize,
        /// Of so many.
        of: usize,
        /// An operator could give this node the writes, if the others are lost for good.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        takeover: bool,
    },
    /// A vote has to be on disk before it is given.
    Store {
        /// The store fails, and is tried again after so long; none: it works.
        retry_ms: Option<u64>,
    },
    /// Nobody else may lead.
    Leader {
        /// Who does, or has this sentinel's vote to do so.
        other: Option<String>,
        /// Its epoch.
        epoch: Option<Epoch>,
        /// This sentinel waits for it at most so long.
        left_ms: Option<u64>,
    },
    /// After a failed attempt, and before the turn of this sentinel, there is a pause.
    Pause {
        /// What is left of it.
        left_ms: u64,
    },
    /// Somebody must be fit to be master.
    Candidate {
        /// The best one.
        best: Option<Who>,
        /// If there is none: everybody, and why not.
        rejected: Vec<Rejected>,
        /// The master itself, if it came back without its role.
        master: Option<Rejection>,
    },
    /// The voters have to elect this sentinel.
    Election {
        /// The epoch that is voted in; none: no election.
        epoch: Option<Epoch>,
        /// Votes for this sentinel, its own among them.
        votes: usize,
        /// As many are needed.
        needed: usize,
        /// Votes that may still come.
        open: usize,
        /// The election ends then.
        left_ms: Option<u64>,
    },
    /// The chosen one has to say that it is master.
    Promotion {
        /// Who; none: nobody is chosen yet.
        target: Option<Who>,
        /// Whether it has been told.
        told: bool,
        /// It is given up then.
        left_ms: Option<u64>,
    },
    /// The others are pointed at the new master.
    Reconfiguration {
        /// Who does not follow it yet; none: it has not begun.
        pending: Option<usize>,
        /// They are given up then.
        left_ms: Option<u64>,
    },
}

/// Why a sentinel finds a master down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownBy {
    /// Its supervisor says that it is dead, or was restarted.
    Proof,
    /// Nothing valid has come for too long.
    Silence,
    /// It says of itself, for too long, that it is a replica.
    Role,
    /// It has not been heard, for too long, to take writes by a lease.
    Lease,
}

/// One redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its node; none if it is not in the file.
    pub node: Option<NodeName>,
    /// Where it is.
    pub address: SocketAddr,
}

/// Who cannot be master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// Why not.
    pub reason: Rejection,
}

/// Another sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelWhy {
    /// Its node.
    pub node: String,
    /// For how long it cannot be counted on to answer; none: it can.
    pub unreachable_ms: Option<u64>,
    /// Whether it finds the master down, by its last word that is recent enough; as long as there is none it does not.
    pub finds_down: bool,
}
