//! The only places that change what must survive a crash.

use crate::base::node::{Decision, Mode};
use crate::base::{Epoch, Instant, RunId};
use crate::wire::hello::EPOCH_MAX;

use super::Agreement;
use super::durable::{Durable, DurableMaster, OnDisk};
use super::ports::Record;
use super::refused::Refused;
use super::sabotage::Rule;
#[cfg(feature = "sabotage")]
use super::sabotage::Rules;

impl Agreement {
    /// What must survive a crash, as it is now.
    pub(super) fn record(&self) -> Record {
        if !self.of_cluster() {
            return Record::Everything(Box::new(self.state()));
        }
        let watched = self.masters.iter().map(|master| DurableMaster {
            name: master.config.name.clone(),
            decision: master.decision,
            vote: master.vote,
            mode: master.mode,
        });
        let watched = watched.filter(|_| self.amnesia.is_none());
        let known = self.peers.iter().filter_map(|peer| Some((peer.name.clone()?, peer.id?)));
        Record::Votes(Durable {
            id: self.id,
            current_epoch: self.current_epoch,
            masters: watched.chain(self.retired.iter().cloned()).collect(),
            sentinels: known.collect(),
        })
    }

    /// Goes on without one rule.
    #[cfg(feature = "sabotage")]
    pub(super) fn break_rule(&mut self, rule: Rule) {
        self.rules = Rules::without(rule);
        if rule == Rule::Amnesia {
            self.amnesia = None;
        }
        if rule == Rule::KeepVote {
            self.masters.iter_mut().for_each(|master| master.vote = None);
        }
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
        let current = self.current_epoch;
        debug_assert!(
            epoch == current || !self.rules.holds(Rule::RaiseEpoch),
            "a vote is given in epoch {epoch}, while {current} is the current one"
        );
        let master = &mut self.masters[m];
        let once = master.vote.is_none_or(|(_, last)| last < epoch);
        assert!(once || !self.rules.holds(Rule::VoteOnce), "a second vote in epoch {epoch}");
        master.vote = Some((leader, epoch));
        master.vote_disk = OnDisk::No;
        self.dirty = true;
        self.publish_vote(m, leader, epoch);
    }

    /// Records a decision; its epoch must be higher than that of the last one.
    pub(super) fn record_decision(&mut self, m: usize, decision: Decision, mode: Mode, now: Instant) {
        let master = &mut self.masters[m];
        let higher = master.decision.is_none_or(|last| last.epoch < decision.epoch);
        assert!(higher || !self.rules.holds(Rule::HigherDecision), "decisions never go back");
        (master.decision, master.mode) = (Some(decision), mode);
        master.decision_disk = OnDisk::No;
        self.dirty = true;
        self.raise_epoch(decision.epoch, now);
        debug_assert!(decision.epoch <= self.current_epoch, "a decision of an epoch out of reach: {decision:?}");
    }
}
