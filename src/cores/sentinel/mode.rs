//! Whether the cluster is fenced: a property of the decision, not of anybody's file.
//!
//! Files are edited one after the other, and builds replaced likewise. So what is done is what the last decision says, until every
//! sentinel has said over the peer link that its file asks for the other way. Then one of them has itself elected to confirm the
//! master that there is, in a decision of the other mode ([`Cause::Mode`]).
//!
//! **The mode changes only with the master staying.** Whoever becomes the master in the place of another one does so in the mode of
//! that one: it waits for the lease of a fenced one to end, and it could not wait for one that never had any.

use crate::base::node::{Decision, RedisRole};
use crate::base::{Instant, census};

use super::Agreement;
use super::instance::Instance;
use super::lead::{Cause, Lead, Phase, Promotion};
use super::master::Master;
use super::peer::Peer;
use super::ports::FileTerms;

impl Agreement {
    /// The mode that the files of all sentinels ask for, if it is one and the same.
    fn asked_by_all(&self, master: &Master) -> Option<bool> {
        let wanted = FileTerms::Same { fencing: master.config.fencing };
        let agrees = |peer: &Peer| peer.fresh && peer.terms == wanted;
        let all = master.config.lease.is_some() && self.watchers(master).all(agrees);
        all.then_some(master.config.fencing)
    }

    /// Whether the decision that comes of a failover for that cause is one of a fenced cluster.
    pub(super) fn decides_fenced(&self, master: &Master, cause: Cause) -> bool {
        match cause {
            Cause::Down | Cause::Ordered(_) => master.fenced,
            Cause::Bootstrap => self.asked_by_all(master) == Some(true),
            Cause::Mode => !master.fenced,
        }
    }

    /// Whether the mode is to be changed now: all want it, the master is well, and no other node has one that takes writes, which
    /// the first lease could not make room for.
    pub(super) fn mode_is_to_change(&self, master: &Master) -> bool {
        let leads = |node: &Instance| Some(matches!(node.fresh_facts()?.role, RedisRole::Master { .. }));
        let others = master.others().filter(|n| *n < master.config.nodes.len());
        let alone = others.map(|n| &master.nodes[n]).all(|node| leads(node) == Some(false));
        let node = master.watched();
        let well = node.down_since.is_none() && leads(node) == Some(true) && (node.hears_majority || master.fenced);
        well && alone && master.decision.is_some() && self.asked_by_all(master) == Some(!master.fenced)
    }

    /// Elected to change the mode.
    pub(super) fn begin_mode(&mut self, m: usize, lead: Lead, now: Instant) {
        let master = &self.masters[m];
        if !self.mode_is_to_change(master) {
            let reason = "the mode of the cluster is not to be changed any more";
            return self.abort(m, "-failover-abort-no-good-slave", reason, now);
        }
        let (target, fenced) = (master.at(), master.fenced);
        if !fenced {
            return self.begin_promoting(m, lead, target, None, now);
        }
        // The master needs nothing to go on without a lease but the decision.
        self.go_on(m, lead, None, Phase::Promoting { target, step: Promotion::Unsent }, lead.until);
        self.promoted(m, lead, target, now);
    }

    /// Whether a decision that is heard of may be adopted as far as its mode goes. Who was away while the mode changed has to
    /// believe it of a majority; one sentinel of an older build, which knows of no leases, is no reason to forget them.
    pub(super) fn mode_may_be(&self, master: &Master, decision: Decision, fenced: bool) -> bool {
        let stays = master.decision.is_some_and(|known| known.master == decision.master);
        let says = |peer: &&Peer| {
            let facts = peer.says_of(master);
            facts
                .is_some_and(|facts| !facts.fenced && facts.decision.is_some_and(|other| other.epoch >= decision.epoch))
        };
        let saying = self.watchers(master).filter(says).count();
        fenced || !master.fenced || stays || saying >= census::majority(self.voters(master))
    }
}
