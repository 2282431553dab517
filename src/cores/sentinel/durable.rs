//! What must survive a crash, and the only places that change it.

use crate::base::node::Decision;
use crate::base::{Epoch, Instant, NodeName, RunId};
use crate::wire::hello::EPOCH_MAX;

use super::sabotage::Rule;
use super::trust::Refused;
use super::{Agreement, Membership, Record};

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

impl Agreement {
    /// What must survive a crash, as it is now.
    pub(super) fn record(&self) -> Record {
        if let Membership::Discovered { .. } = self.membership {
            return Record::Everything(Box::new(self.state()));
        }
        let watched = self.masters.iter().map(|master| DurableMaster {
            name: master.config.name.clone(),
            decision: master.decision,
            vote: master.vote,
        });
        let known = self.peers.iter().filter_map(|peer| Some((peer.name.clone()?, peer.id?)));
        Record::Votes(Durable {
            id: self.id,
            current_epoch: self.current_epoch,
            masters: watched.chain(self.retired.iter().cloned()).collect(),
            sentinels: known.collect(),
        })
    }

    /// Adopts a higher epoch, unless it is out of reach.
    pub(super) fn raise_epoch(&mut self, epoch: Epoch, now: Instant) {
        if epoch <= self.current_epoch {
            return;
        }
        if !self.is_in_reach(epoch) {
            let own = self.current_epoch;
            let text = move || match epoch {
                ..=EPOCH_MAX => {
                    format!("epoch {epoch} is too far above {own}, and no majority of the sentinels has got there")
                }
                _ => format!("epoch {epoch} is beyond the last one there is: the epochs are used up"),
            };
            return self.refuse(Refused::Epoch, text, now);
        }
        self.current_epoch = epoch;
        self.dirty = true;
        self.publish_new_epoch(epoch);
    }

    /// Records the vote for `leader` in `epoch`, which must be higher than that of the last vote.
    pub(super) fn record_vote(&mut self, m: usize, leader: RunId, epoch: Epoch) {
        let once = self.voted(m).is_none_or(|(_, last)| last < epoch);
        assert!(once || !self.rules.holds(Rule::VoteOnce), "a second vote in epoch {epoch}");
        self.masters[m].vote = Some((leader, epoch));
        self.masters[m].vote_disk = OnDisk::No;
        self.dirty = true;
        self.publish_vote(m, leader, epoch);
    }

    /// Records a decision; its epoch must be higher than that of the last one.
    pub(super) fn record_decision(&mut self, m: usize, decision: Decision, now: Instant) {
        let higher = self.decision(m).is_none_or(|last| last.epoch < decision.epoch);
        assert!(higher || !self.rules.holds(Rule::HigherDecision), "decisions never go back");
        self.masters[m].decision = Some(decision);
        self.masters[m].decision_disk = OnDisk::No;
        self.dirty = true;
        self.raise_epoch(decision.epoch, now);
    }
}
