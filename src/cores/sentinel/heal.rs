//! Makes what the redis say of themselves agree with the decision, when no failover does.

use std::time::Duration;

use crate::base::Instant;
use crate::base::node::Decision;
use crate::wire::info::Role;

use super::lead::Failover;
use super::sabotage::Rule;
use super::{Membership, Sentinel, hello_wait};

/// A redis that says something else than the decision is left alone for so long: a decision may be on its way.
const STABLE: Duration = Duration::from_secs(1);
/// A replica that became master with stock sentinels among the voters is left alone for so long, as they do: their leader looks
/// once a second whether the promotion has happened, and tells of it only then.
const STABLE_STOCK: Duration = Duration::from_secs(8);
/// Whoever led the failover demotes the old master itself, at once: the others only see to it that it happened.
const LEADER_FIRST: Duration = Duration::from_millis(200);
/// The sentinels act one after the other: the first one's act is enough.
const STAGGER: Duration = Duration::from_millis(100);
/// The word of the master by which others are judged must not be older.
const INFO_AGE_MAX: Duration = Duration::from_secs(3);

impl Sentinel {
    /// A master that is one already, at its place in the file, where no sentinel has a record: as a stock sentinel takes
    /// over what it is told to monitor.
    pub(super) fn adopt_first(&mut self, m: usize, now: Instant) {
        if self.decision(m).is_some() {
            return;
        }
        let n = self.master_at(m);
        let node = &self.masters[m].nodes[n];
        let is_master = node.info.as_ref().is_some_and(|info| info.role == Some(Role::Master));
        // The others may have a record: they are heard first.
        let heard_at = self.started_at + hello_wait(self.peers.len());
        if !is_master || self.other_leads(m) {
            return;
        }
        if now < heard_at {
            self.wake_at(heard_at);
            return;
        }
        let master = node.address;
        self.switch(m, Decision { master, epoch: 0 }, now);
    }

    pub(super) fn heal(&mut self, m: usize, now: Instant) {
        let idle = matches!(self.masters[m].failover, Failover::Idle { .. });
        let at = self.master_at(m);
        if self.decision(m).is_none() || !idle || self.other_leads(m) || !self.rules.holds(Rule::Heal) {
            return;
        }
        let master = &self.masters[m].nodes[at];
        let sane = master.down_since.is_none()
            && master.info.as_ref().is_some_and(|info| info.role == Some(Role::Master))
            && master.info_at.is_some_and(|said| now.since(said) <= INFO_AGE_MAX);
        if !sane {
            return;
        }
        for n in (0..self.masters[m].nodes.len()).filter(|n| *n != at) {
            self.heal_node(m, n, now);
        }
    }

    fn heal_node(&mut self, m: usize, n: usize, now: Instant) {
        let to = self.monitored(m);
        let decided_at = self.masters[m].decided_at;
        let node = &self.masters[m].nodes[n];
        // What it said before the decision is no disagreement with it.
        let current = node.info_at.is_some_and(|at| at > decided_at) && node.down_since.is_none();
        let Some(info) = node.info.as_ref().filter(|_| current && node.command.up().is_some()) else { return };
        let strays = match info.role {
            Some(Role::Master) => true,
            Some(Role::Replica) => info.master_host.is_some() && self.master_of(info) != Some(to),
            Some(Role::Sentinel) | None => false,
        };
        if !strays {
            self.masters[m].nodes[n].heal_at = None;
            return;
        }
        let is_master = info.role == Some(Role::Master);
        let wait = if info.is_closed() {
            // It waits for exactly this.
            Duration::ZERO
        } else if is_master && node.was_master {
            // It claims what is known to be over.
            LEADER_FIRST
        } else if is_master && self.peers.iter().any(|peer| peer.stock && !peer.spoke) {
            STABLE_STOCK
        } else {
            STABLE
        };
        let due = node.heal_at.unwrap_or_else(|| now + wait + STAGGER * self.rank(m));
        if now < due {
            self.masters[m].nodes[n].heal_at = Some(due);
            self.wake_at(due);
            return;
        }
        if is_master {
            self.demote(m, n, matches!(self.membership, Membership::Voters { .. }));
            self.node_event("+convert-to-slave", m, n, "");
        } else {
            self.point(m, n);
            self.node_event("+fix-slave-config", m, n, "");
        }
        let node = &mut self.masters[m].nodes[n];
        node.heal_at = Some(now + STABLE);
        // Its answer to this decides; the effect is seen at once.
        node.info_due = now;
        self.wake_at(now + STABLE);
    }
}
