//! The promotion, the decision that follows from it, and what is told to all others then.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::node::{Decision, Mode, Process};
use crate::base::{Epoch, Instant, Place};
use crate::wire::info::{Info, Role};
use crate::wire::resp::Reply;

use super::instance::Reconf;
use super::lead::{Cause, Failover, HELD_STEP_MAX, Hold, Lead, Phase, Promotion, REASK, SIMULATED};
use super::ports::{FailoverReport, Output};
use super::query::Tag;
use super::{Agreement, scripts};

/// What was told and has no effect is told again.
const RECONF_RETRY: Duration = Duration::from_secs(1);
/// Between two questions of the target for its role.
const ROLE_PERIOD: Duration = Duration::from_millis(20);

impl Agreement {
    pub(super) fn begin_promoting(&mut self, m: usize, lead: Lead, target: usize, hold: Option<Hold>, now: Instant) {
        self.node_event("+selected-slave", m, target, "");
        self.node_event("+failover-state-send-slaveof-noone", m, target, "");
        let config = &self.masters[m].config;
        let timeout = config.failover_timeout;
        let timeout = if hold.is_some() { timeout.min(HELD_STEP_MAX) } else { timeout };
        let lease = config.lease.filter(|_| self.decides(&self.masters[m], lead.cause) == Mode::Fenced);
        let (step, timeout) = match (lease, self.masters[m].nodes[target].fresh_facts()) {
            (None, _) => (Promotion::Unsent, timeout),
            // Once for the lease of the one before to end, once to be granted its own.
            (Some(lease), Some(facts)) => (Promotion::Named { incarnation: facts.incarnation }, timeout.min(lease * 2)),
            (Some(_), None) => {
                let reason = "the new master is not heard on the peer link";
                return self.abort(m, "-failover-abort-slave-timeout", reason, now);
            }
        };
        // From now on its silence counts.
        self.masters[m].nodes[target].pulse.due = now;
        self.wake_at(now);
        self.go_on(m, lead, hold, Phase::Promoting { target, step }, now + timeout);
    }

    pub(super) fn step_promoting(&mut self, m: usize, lead: Lead, target: usize, step: Promotion, now: Instant) {
        let Lead { epoch, until, hold, .. } = lead;
        let master = &self.masters[m];
        let (node, at) = (&master.nodes[target], master.at());
        let dead = node.fresh_facts().is_some_and(|facts| facts.process == Process::Dead);
        let lost = dead || (node.down_since.is_some() && !node.answers(now, master.config.down_after));
        let link = node.command.up();
        let process = node.fresh_facts().map(|facts| facts.incarnation);
        let another = lead.phase.named().is_some_and(|named| process.is_some_and(|process| process != named));
        if now >= until || lost || another {
            let reason = match step {
                Promotion::Named { .. } if another => "the new master was restarted",
                Promotion::Named { .. } if !lost => {
                    if node.granted == Some(epoch) {
                        self.masters[m].nodes[target].not_opened(now);
                        "the new master was granted the lease and did not open: the journal of its node says why"
                    } else {
                        "a majority of the sentinels did not grant the new master the lease in time"
                    }
                }
                Promotion::Named { .. } | Promotion::Unsent | Promotion::Sent { .. } => {
                    "the new master does not answer"
                }
            };
            return self.abort(m, "-failover-abort-slave-timeout", reason, now);
        }
        self.wake_at(until);
        match (step, link) {
            (Promotion::Unsent, _) if self.current_epoch > epoch => {
                self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
            }
            // Its frame says when it is the master.
            (Promotion::Named { .. }, _) | (_, None) => {}
            (Promotion::Unsent, Some(link)) => {
                if hold.is_some() {
                    // The hold must outlast the promotion whatever its time until now.
                    self.hold_writes(m, at);
                }
                // What is refused already behind MULTI says why; EXEC then says only that something was.
                for args in self.membership.role_change(None, false) {
                    self.free.push(Output::Query { link, tag: Tag::Promote(epoch), args });
                }
                self.query(link, Tag::Role(epoch), &["ROLE"]);
                self.node_event("+failover-state-wait-promotion", m, target, "");
                self.masters[m].told_target(now + ROLE_PERIOD);
            }
            (Promotion::Sent { role_at }, Some(_)) if now < role_at => self.wake_at(role_at),
            (Promotion::Sent { .. }, Some(link)) => {
                self.query(link, Tag::Role(epoch), &["ROLE"]);
                self.masters[m].told_target(now + ROLE_PERIOD);
            }
        }
    }

    pub(super) fn promote_answered(&mut self, m: usize, n: usize, epoch: Epoch, reply: &Reply, now: Instant) {
        if self.masters[m].promoting(n, epoch).is_none() {
            return;
        }
        // Its first part changes the role; a configuration file that cannot be rewritten is no reason to give up.
        let said = reply.array().map_or(Some(reply), <[_]>::first);
        if let Some(Reply::Error(error)) = said {
            let reason = format!("the new master refuses: {error}");
            self.abort(m, "-failover-abort-slave-timeout", &reason, now);
        }
    }

    pub(super) fn role_answered(&mut self, m: usize, n: usize, epoch: Epoch, reply: &Reply, now: Instant) {
        let is_master = reply.array().and_then(|role| role.first()?.text()) == Some("master");
        if let Some(lead) = self.masters[m].promoting(n, epoch).filter(|_| is_master) {
            self.promoted(m, lead, n, now);
        }
    }

    /// The replica says that it is master. From here on there is no way back: decided, stored, told.
    pub(super) fn promoted(&mut self, m: usize, lead: Lead, target: usize, now: Instant) {
        let Lead { epoch, cause, hold, .. } = lead;
        debug_assert!(
            epoch <= self.current_epoch,
            "it decides in epoch {epoch} and has only seen {}",
            self.current_epoch
        );
        self.node_event("+promoted-slave", m, target, "");
        self.node_event("+failover-state-reconf-slaves", m, target, "");
        let master = &self.masters[m];
        if master.has_decided(epoch) {
            // Too late: a higher decision stands, and healing will make this one a replica again.
            return self.become_idle(m, now);
        }
        let (from, old, to) = (master.monitored(), master.at(), master.nodes[target].address);
        let named = |n: usize| master.nodes[n].node.clone();
        let held = hold.and_then(|hold| master.place_of_id(hold.at));
        let (from_node, to_node) = (named(old), named(target));
        let until = now + master.config.failover_timeout;
        let before = self.told_place(m);
        self.go_on(m, lead, hold, Phase::Reconfiguring, until);
        let mode = match (cause, lead.phase.named()) {
            (Cause::Takeover(_), _) => Mode::TakenOver,
            (Cause::Down | Cause::Bootstrap | Cause::Mode | Cause::Ordered(_), Some(_)) => Mode::Fenced,
            (Cause::Down | Cause::Bootstrap | Cause::Mode | Cause::Ordered(_), None) => Mode::Unfenced,
        };
        self.switch(m, Decision { master: to, epoch }, mode, now);
        if from != to {
            self.reconfigure_clients(m, scripts::Role::Leader, &before, &self.told_place(m));
        }
        if self.simulated.after_promotion {
            self.fenced.push(Output::Exit(SIMULATED));
        }
        let nodes = &mut self.masters[m].nodes;
        nodes[target].promoted();
        if let Some(held) = held {
            // Before the greeting: its PUBLISH would be held there, and on that link the end of the hold with it.
            nodes[held].reconf = Reconf::Sent(now);
            self.demote(m, held, true);
            if old != held {
                // By a lower decision, which was heard of meanwhile.
                self.masters[m].nodes[old].reconf = Reconf::Sent(now);
                self.demote(m, old, self.membership.releases_at_demotion());
            }
        }
        self.say_hello(m, now);
        if let Cause::Takeover(order) = cause {
            self.owed.push(Output::Said(order, Ok(self.taken_over(m))));
        }
        if let Cause::Ordered(order) = cause {
            let pause = hold.map(|hold| now.since(hold.since));
            let report = FailoverReport { from, from_node, to, to_node, epoch, pause };
            self.owed.extend(order.by.told(Ok(report)));
        }
    }

    pub(super) fn step_reconfiguring(&mut self, m: usize, lead: Lead, now: Instant) {
        let master = &self.masters[m];
        if master.odown_since.is_some() {
            return self.end(m, now);
        }
        let mut open = master.repointed();
        let mut pending = false;
        for n in master.others() {
            pending |= self.repoint(m, n, &mut open, now);
        }
        if !pending {
            self.end(m, now);
        } else if now >= lead.until {
            self.master_event("+failover-end-for-timeout", m, "");
            self.end(m, now);
        } else {
            self.wake_at(lead.until);
        }
    }

    /// Points one redis at the new master, with `open` others that are being re-pointed. Whether it has to be waited for.
    fn repoint(&mut self, m: usize, n: usize, open: &mut usize, now: Instant) -> bool {
        let master = &self.masters[m];
        let node = &master.nodes[n];
        let Some(info) = node.info.as_ref().filter(|_| node.down_since.is_none() && node.command.up().is_some()) else {
            return false;
        };
        let limit = usize::try_from(master.config.parallel_syncs).unwrap_or(usize::MAX).max(1);
        let follows = info.role == Some(Role::Replica) && self.master_of(info) == Some(master.monitored());
        let (is_master, up) = (info.role == Some(Role::Master), info.master_link_up);
        let reconf_max = self.timers.slave_reconf;
        let reconf = match node.reconf {
            Reconf::None if follows && up => Reconf::Done,
            Reconf::None if *open >= limit && !is_master => Reconf::None,
            Reconf::None => {
                *open += 1;
                self.tell(m, n, is_master);
                self.node_event(if is_master { "+convert-to-slave" } else { "+slave-reconf-sent" }, m, n, "");
                self.masters[m].nodes[n].info_due = now + REASK;
                Reconf::Sent(now)
            }
            Reconf::Sent(_) if follows => {
                self.node_event("+slave-reconf-inprog", m, n, "");
                self.wake_at(now);
                Reconf::InProgress(now)
            }
            Reconf::Sent(since) if now >= since + reconf_max => {
                self.node_event("-slave-reconf-sent-timeout", m, n, "");
                Reconf::Done
            }
            Reconf::Sent(since) => {
                let again = node.heal_at.unwrap_or(since) + RECONF_RETRY;
                if now >= again {
                    self.masters[m].nodes[n].heal_at = Some(now);
                    self.tell(m, n, is_master);
                }
                self.wake_at((since + reconf_max).min(again.max(now + REASK)));
                Reconf::Sent(since)
            }
            Reconf::InProgress(_) if up => {
                self.node_event("+slave-reconf-done", m, n, "");
                // The next one is told at once.
                self.wake_at(now);
                Reconf::Done
            }
            other @ (Reconf::InProgress(_) | Reconf::Done) => other,
        };
        self.masters[m].nodes[n].reconf = reconf;
        reconf != Reconf::Done
    }

    /// Tells a redis that another one is the master.
    pub(super) fn tell(&mut self, m: usize, n: usize, is_master: bool) {
        if is_master {
            self.demote(m, n, self.membership.releases_at_demotion());
        } else {
            self.point(m, n);
        }
    }

    pub(super) fn end(&mut self, m: usize, now: Instant) {
        self.master_event("+failover-end", m, "");
        let master = &mut self.masters[m];
        debug_assert!(master.failover().is_reconfiguring(), "it ends without a decision: {:?}", master.failover());
        master.forget_reconfiguration();
        self.enter(m, Failover::Idle { not_before: now });
    }

    /// Points a replica at the master of the decision.
    fn point(&mut self, m: usize, n: usize) {
        let orders = self.membership.repointing(&self.told_place(m), self.masters[m].holds(n));
        self.promise_orders(m, n, orders);
    }

    /// Makes a master a replica of the master of the decision and drops its clients; `release` ends a hold of writes.
    fn demote(&mut self, m: usize, n: usize, release: bool) {
        // What released them before was lost if it could not be stored.
        let release = release || self.masters[m].holds(n);
        let orders = self.membership.role_change(Some(&self.told_place(m)), release);
        self.promise_orders(m, n, orders);
    }

    /// Orders that stand behind the fence, as the decision does that they follow from.
    fn promise_orders(&mut self, m: usize, n: usize, orders: Vec<Vec<bytes::Bytes>>) {
        let master = &self.masters[m];
        let Some(link) = master.nodes[n].command.up() else { return };
        let tag = Tag::Follow(master.id, master.epoch());
        self.fenced.extend(orders.into_iter().map(|args| Output::Query { link, tag, args }));
    }

    /// The master as replicas and sentinels are told.
    pub(super) fn told_place(&self, m: usize) -> Place {
        let master = &self.masters[m];
        let address = master.monitored();
        Place { host: self.told_host(master.watched().host.as_deref(), address), port: address.port() }
    }

    /// A host as others are told: by its name if that is wanted and there is one.
    pub(super) fn told_host(&self, name: Option<&str>, address: SocketAddr) -> String {
        let name = name.filter(|_| self.settings.announce_hostnames).map(str::to_owned);
        name.unwrap_or_else(|| address.ip().to_string())
    }

    /// The master of a replica, by its own word.
    pub(super) fn master_of(&self, info: &Info) -> Option<SocketAddr> {
        self.address_of(&info.master_place()?)
    }
}
