//! Whether the cluster is fenced: a property of the decision, not of anybody's file.
//!
//! Files are edited one after the other, and builds replaced likewise. So what is done is what the last decision says, until every
//! sentinel has said over the peer link that its file asks for the other way. Then one of them has itself elected to confirm the
//! master that there is, in a decision of the other mode ([`Cause::Mode`]).
//!
//! **The mode changes only with the master staying.** A node that replaces a master keeps its mode: it waits for the lease of a fenced
//! one to end, and could not wait for one that never had a lease. The exception is what an operator orders where no majority is left
//! ([`Cause::Takeover`]): that one waits for nobody.

use crate::base::lease::FileTerms;
use crate::base::node::{Decision, Mode, RedisRole};
use crate::base::{Instant, census};

use super::Agreement;
use super::instance::Instance;
use super::lead::{Cause, Lead, Phase, Promotion};
use super::master::Master;
use super::peer::Peer;
use super::sabotage::Rule;

impl Agreement {
    /// The mode that the files of all sentinels ask for, if it is one and the same. For leases those of the redis that are heard have
    /// to ask for it, too: one that was started without leases has no fence, and could not take writes by one.
    fn asked_by_all(&self, master: &Master) -> Option<Mode> {
        let wanted = FileTerms::Same { fencing: master.config.fencing };
        let agrees = |peer: &Peer| peer.fresh && peer.terms == wanted;
        let mut data = master.nodes.iter().take(master.config.nodes.len());
        let can = !master.config.fencing || data.all(|node| node.terms == wanted || node.fresh_facts().is_none());
        let all = can && self.watchers(master).all(agrees) || !self.rules.holds(Rule::ModeOfAll);
        (all && master.config.lease.is_some()).then_some(Mode::asked(master.config.fencing))
    }

    /// The mode of the decision that comes of a failover for that cause.
    pub(super) fn decides(&self, master: &Master, cause: Cause) -> Mode {
        match (cause, master.mode) {
            (Cause::Takeover(_), _) => Mode::TakenOver,
            (Cause::Down | Cause::Ordered(_), _) if !self.rules.holds(Rule::ModeStays) => {
                Mode::asked(master.config.fencing)
            }
            (Cause::Down | Cause::Ordered(_), Mode::Fenced) => Mode::Fenced,
            // A majority has decided again: the order of the operator is history.
            (Cause::Down | Cause::Ordered(_), Mode::Unfenced | Mode::TakenOver) => Mode::Unfenced,
            (Cause::Bootstrap | Cause::Mode, _) => self.asked_by_all(master).unwrap_or_default(),
        }
    }

    /// Whether the mode is to be changed now: all want it, the master is well, and no other node has one that takes writes, which
    /// the first lease could not make room for.
    pub(super) fn mode_is_to_change(&self, master: &Master) -> bool {
        let leads = |node: &Instance| Some(matches!(node.fresh_facts()?.role, RedisRole::Master { .. }));
        let others = master.others().filter(|n| *n < master.config.nodes.len());
        let alone = others.map(|n| &master.nodes[n]).all(|node| leads(node) == Some(false));
        let node = master.watched();
        let fenced = master.mode == Mode::Fenced;
        let well = node.down_since.is_none() && leads(node) == Some(true) && (node.hears_majority || fenced);
        let asked = self.asked_by_all(master);
        well && alone && master.decision.is_some() && asked.is_some_and(|asked| asked != master.mode)
    }

    /// Elected to change the mode.
    pub(super) fn begin_mode(&mut self, m: usize, lead: Lead, now: Instant) {
        let master = &self.masters[m];
        if !self.mode_is_to_change(master) {
            let reason = "the mode of the cluster is not to be changed any more";
            return self.abort(m, "-failover-abort-no-good-slave", reason, now);
        }
        let target = master.at();
        if self.decides(master, lead.cause) == Mode::Fenced {
            return self.begin_promoting(m, lead, target, None, now);
        }
        // The master needs nothing to go on without a lease but the decision.
        self.go_on(m, lead, None, Phase::Promoting { target, step: Promotion::Unsent }, lead.until);
        self.promoted(m, lead, target, now);
    }

    /// Whether a decision that is heard of may be adopted as far as its mode goes. Who was away while the mode changed has to
    /// believe it of a majority; one sentinel of an older build, which knows of no leases, is no reason to forget them.
    pub(super) fn mode_may_be(&self, master: &Master, decision: Decision, mode: Mode) -> bool {
        // Who has taken over was told to by an operator, where no majority was left: the word of the one sentinel that was is all there can be.
        let forgets = mode == Mode::Unfenced && master.mode == Mode::Fenced;
        let stays = master.decision.is_some_and(|known| known.master == decision.master);
        let says = |peer: &&Peer| {
            let facts = peer.says_of(master);
            facts.is_some_and(|facts| {
                facts.mode.is_some_and(|mode| mode != Mode::Fenced)
                    && facts.decision.is_some_and(|other| other.epoch >= decision.epoch)
            })
        };
        let saying = self.watchers(master).filter(says).count();
        !forgets || stays || saying >= census::majority(self.voters(master))
    }
}
