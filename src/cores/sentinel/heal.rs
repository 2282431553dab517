//! Makes what the redis say of themselves agree with the decision, when no failover does.

use std::time::Duration;

use crate::base::Instant;
use crate::base::node::{Decision, Mode};
use crate::wire::info::Role;

use super::Agreement;
use super::lead::Failover;
use super::sabotage::Rule;

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

impl Agreement {
    /// A master that is one already, at its place in the file, where no sentinel has a record: as a stock sentinel takes
    /// over what it is told to monitor.
    pub(super) fn adopt_first(&mut self, m: usize, now: Instant) {
        let master = &self.masters[m];
        let known = master.decision.is_some() || self.amnesia.is_some();
        if known || !master.watched().is_master() || self.other_leads(master) {
            return;
        }
        // The others may have a record: they are heard first.
        let heard_at = self.started_at + hello_wait(self.peers.len());
        if now < heard_at {
            self.wake_at(heard_at);
            return;
        }
        let master = master.watched().address;
        self.switch(m, Decision { master, epoch: 0 }, Mode::Unfenced, now);
    }

    pub(super) fn heal(&mut self, m: usize, now: Instant) {
        let master = &self.masters[m];
        let idle = matches!(master.failover(), Failover::Idle { .. });
        if master.decision.is_none() || !idle || self.other_leads(master) || !self.rules.holds(Rule::Heal) {
            return;
        }
        let node = master.watched();
        let said = node.info_at.is_some_and(|said| now.since(said) <= INFO_AGE_MAX);
        if node.down_since.is_some() || !node.is_master() || !said {
            return;
        }
        for n in master.others() {
            self.heal_node(m, n, now);
        }
    }

    fn heal_node(&mut self, m: usize, n: usize, now: Instant) {
        let master = &self.masters[m];
        let Some(info) = master.said_since(n) else { return };
        let is_master = info.role == Some(Role::Master);
        let strays = match info.role {
            Some(Role::Master) => true,
            Some(Role::Replica) => info.master_host.is_some() && self.master_of(info) != Some(master.monitored()),
            Some(Role::Sentinel) | None => false,
        };
        let wait = if info.is_closed() {
            // It waits for exactly this.
            Duration::ZERO
        } else if is_master && master.nodes[n].was_master {
            // It claims what is known to be over.
            LEADER_FIRST
        } else if is_master && self.peers.iter().any(|peer| peer.stock && !peer.spoke) {
            STABLE_STOCK
        } else {
            STABLE
        };
        let due = now + wait + STAGGER * self.rank(master);
        let node = &mut self.masters[m].nodes[n];
        if !strays {
            node.heal_at = None;
            return;
        }
        let due = *node.heal_at.get_or_insert(due);
        if now < due {
            self.wake_at(due);
            return;
        }
        node.heal_at = Some(now + STABLE);
        // Its answer to this decides; the effect is seen at once.
        node.info_due = now;
        self.tell(m, n, is_master);
        self.node_event(if is_master { "+convert-to-slave" } else { "+fix-slave-config" }, m, n, "");
        self.wake_at(now + STABLE);
    }
}

/// How long a sentinel without a record listens to the others before it believes that there is none.
fn hello_wait(peers: usize) -> Duration {
    if peers == 0 { Duration::ZERO } else { Duration::from_secs(1) }
}
