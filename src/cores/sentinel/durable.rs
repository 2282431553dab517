//! What must survive a crash, and the only places that change it.

use serde::{Deserialize, Serialize};

use crate::base::{Epoch, NodeName, RunId};
use crate::wire::frame::Decision;
use crate::wire::hello::EPOCH_MAX;

use super::Sentinel;
use super::sabotage::Rule;

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

    /// With the records in the order of `names`, and those of masters no more in the file behind them.
    pub(super) fn for_masters<'a>(mut self, names: impl Iterator<Item = &'a str>) -> Self {
        for (at, name) in names.enumerate() {
            match self.masters.iter().position(|master| master.name == name) {
                Some(found) => self.masters.swap(at, found),
                None => self.masters.insert(at, DurableMaster { name: name.to_owned(), decision: None, vote: None }),
            }
        }
        self
    }

    pub(super) fn decision(&self, m: usize) -> Option<Decision> {
        self.masters.get(m).and_then(|master| master.decision)
    }

    pub(super) fn vote(&self, m: usize) -> Option<(RunId, Epoch)> {
        self.masters.get(m).and_then(|master| master.vote)
    }

    pub(super) fn sentinel(&self, name: &NodeName) -> Option<RunId> {
        self.sentinels.iter().find(|(known, _)| known == name).map(|(_, id)| *id)
    }
}

impl Sentinel {
    /// Adopts a higher epoch; one beyond all reason is not believed.
    pub(super) fn raise_epoch(&mut self, epoch: Epoch) {
        if epoch > self.durable.current_epoch && epoch <= EPOCH_MAX {
            self.durable.current_epoch = epoch;
            self.dirty = true;
            self.publish_new_epoch(epoch);
        }
    }

    /// Records the vote for `leader` in `epoch`, which must be higher than that of the last vote.
    pub(super) fn record_vote(&mut self, m: usize, leader: RunId, epoch: Epoch) {
        let once = self.durable.vote(m).is_none_or(|(_, last)| last < epoch);
        assert!(once || !self.rules.holds(Rule::VoteOnce), "a second vote in epoch {epoch}");
        self.durable.masters[m].vote = Some((leader, epoch));
        self.dirty = true;
        self.publish_vote(leader, epoch);
    }

    /// Records a decision; its epoch must be higher than that of the last one.
    pub(super) fn record_decision(&mut self, m: usize, decision: Decision) {
        let higher = self.durable.decision(m).is_none_or(|last| last.epoch < decision.epoch);
        assert!(higher || !self.rules.holds(Rule::HigherDecision), "decisions never go back");
        self.durable.masters[m].decision = Some(decision);
        self.dirty = true;
        self.raise_epoch(decision.epoch);
    }

    /// Remembers the id of another sentinel.
    pub(super) fn record_sentinel(&mut self, name: &NodeName, id: RunId) {
        self.durable.sentinels.retain(|(known, _)| known != name);
        self.durable.sentinels.push((name.clone(), id));
        self.dirty = true;
    }
}
