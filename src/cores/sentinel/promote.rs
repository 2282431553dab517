//! The promotion, the decision that follows from it, and what is told to all others then.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::node::{Decision, Process};
use crate::base::{Epoch, Instant, Place};
use crate::wire::info::{Info, Role};
use crate::wire::resp::Reply;

use super::failover::REASK;
use super::instance::Reconf;
use super::lead::{Cause, Failover, Hold, Lead, Phase, Promotion};
use super::monitor::{Tag, words};
use super::switchover::HELD_STEP_MAX;
use super::{FailoverReport, Membership, Output, Sentinel, scripts};

/// Exit code of a simulated failure, as stock.
pub(super) const SIMULATED: u8 = 99;
/// What was told and has no effect is told again.
const RECONF_RETRY: Duration = Duration::from_secs(1);

impl Sentinel {
    pub(super) fn begin_promoting(&mut self, m: usize, lead: Lead, target: usize, hold: Option<Hold>, now: Instant) {
        self.node_event("+selected-slave", m, target, "");
        self.node_event("+failover-state-send-slaveof-noone", m, target, "");
        let timeout = self.masters[m].config.failover_timeout;
        let until = now + if hold.is_some() { timeout.min(HELD_STEP_MAX) } else { timeout };
        self.go_on(m, lead, hold, Phase::Promoting { target, step: Promotion::Unsent }, until);
    }

    pub(super) fn step_promoting(&mut self, m: usize, lead: Lead, target: usize, step: Promotion, now: Instant) {
        let Lead { epoch, until, hold, .. } = lead;
        let node = &self.masters[m].nodes[target];
        let dead = node.fresh_facts().is_some_and(|facts| facts.process == Process::Dead);
        let lost = dead || (node.down_since.is_some() && !node.answers(now, self.masters[m].config.down_after));
        let link = node.command.up();
        if now >= until || lost {
            return self.abort(m, "-failover-abort-slave-timeout", "the new master does not answer", now);
        }
        self.wake_at(until);
        match (step, link) {
            (Promotion::Unsent, _) if self.current_epoch > epoch => {
                self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
            }
            (_, None) => {}
            (Promotion::Unsent, Some(link)) => {
                if hold.is_some() {
                    // The hold must outlast the promotion whatever its time until now.
                    self.hold_writes(m, self.master_at(m));
                }
                for args in self.transaction(None, false) {
                    let tag = if args[0] == "EXEC" { Tag::Promote(epoch) } else { Tag::Ignored };
                    self.free.push(Output::Query { link, tag, args });
                }
                self.query(link, Tag::Role(epoch), &["ROLE"]);
                self.node_event("+failover-state-wait-promotion", m, target, "");
                self.sent(m, now);
            }
            (Promotion::Sent { role_at }, Some(link)) => {
                if now >= role_at {
                    self.query(link, Tag::Role(epoch), &["ROLE"]);
                    self.sent(m, now);
                } else {
                    self.wake_at(role_at);
                }
            }
        }
    }

    fn sent(&mut self, m: usize, now: Instant) {
        if let Failover::Leading(Lead { phase: Phase::Promoting { step, .. }, .. }) = &mut self.masters[m].failover {
            *step = Promotion::Sent { role_at: now + Duration::from_millis(20) };
        }
    }

    /// The promotion of that redis that is under way in that epoch.
    fn promoting(&self, m: usize, n: usize, epoch: Epoch) -> Option<Lead> {
        let of_it =
            |lead: &&Lead| lead.epoch == epoch && matches!(lead.phase, Phase::Promoting { target, .. } if target == n);
        self.masters[m].failover.lead().filter(of_it).copied()
    }

    pub(super) fn promote_answered(&mut self, m: usize, n: usize, epoch: Epoch, reply: &Reply, now: Instant) {
        if self.promoting(m, n, epoch).is_none() {
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
        let master = reply.array().and_then(|role| role.first()?.text()) == Some("master");
        if let Some(lead) = self.promoting(m, n, epoch).filter(|_| master) {
            self.promoted(m, lead, n, now);
        }
    }

    /// The replica says that it is master. From here on there is no way back: decided, stored, told.
    fn promoted(&mut self, m: usize, lead: Lead, target: usize, now: Instant) {
        let Lead { epoch, cause, hold, .. } = lead;
        let (old, to) = (self.master_at(m), self.masters[m].nodes[target].address);
        let from = self.monitored(m);
        self.node_event("+promoted-slave", m, target, "");
        self.node_event("+failover-state-reconf-slaves", m, target, "");
        if self.decision(m).is_some_and(|known| known.epoch >= epoch) {
            // Too late: a higher decision stands, and healing will make this one a replica again.
            return self.become_idle(m, now);
        }
        let until = now + self.masters[m].config.failover_timeout;
        self.go_on(m, lead, hold, Phase::Reconfiguring, until);
        let before = self.told_place(m);
        self.switch(m, Decision { master: to, epoch }, now);
        self.reconfigure_clients(m, scripts::Role::Leader, &before, &self.told_place(m));
        if self.simulated.after_promotion {
            self.fenced.push(Output::Exit(SIMULATED));
        }
        let node = &mut self.masters[m].nodes[target];
        if let Some(info) = &mut node.info {
            info.role = Some(Role::Master);
            info.master_host = None;
        }
        // The facts that still call it closed or a replica are of this incarnation: no proof against it.
        node.served = node.facts.as_ref().map(|facts| facts.incarnation);
        node.down_since = None;
        if hold.is_some() {
            // Before the greeting: its PUBLISH would be held at the old master, and on that link the end of the hold with it.
            self.demote(m, old, true);
            self.masters[m].nodes[old].reconf = Reconf::Sent(now);
        }
        self.say_hello(m, now);
        if let Cause::Ordered(order) = cause {
            let named = |n: usize| self.masters[m].nodes[n].node.clone();
            let pause = hold.map(|hold| now.since(hold.since));
            let (from_node, to_node) = (named(old), named(target));
            let report = FailoverReport { from, from_node, to, to_node, epoch, pause };
            self.owed.extend(order.by.told(Ok(report)));
        }
    }

    pub(super) fn step_reconfiguring(&mut self, m: usize, until: Instant, now: Instant) {
        let (at, to) = (self.master_at(m), self.monitored(m));
        if self.masters[m].odown_since.is_some() {
            return self.end(m, now);
        }
        // Where nobody but vigie holds writes, releasing them is never wrong.
        let file = matches!(self.membership, Membership::Voters { .. });
        let limit = usize::try_from(self.masters[m].config.parallel_syncs).unwrap_or(usize::MAX).max(1);
        let syncing = |reconf| matches!(reconf, Reconf::Sent(_) | Reconf::InProgress(_));
        let mut open = self.masters[m].nodes.iter().filter(|node| syncing(node.reconf)).count();
        let mut pending = false;
        for n in (0..self.masters[m].nodes.len()).filter(|n| *n != at) {
            let node = &self.masters[m].nodes[n];
            let Some(info) = node.info.as_ref().filter(|_| node.down_since.is_none() && node.command.up().is_some())
            else {
                continue;
            };
            let follows = info.role == Some(Role::Replica) && self.master_of(info) == Some(to);
            let (master, up) = (info.role == Some(Role::Master), info.master_link_up);
            match node.reconf {
                Reconf::None if follows && up => self.masters[m].nodes[n].reconf = Reconf::Done,
                Reconf::None if open >= limit && !master => {}
                Reconf::None => {
                    open += 1;
                    if master {
                        self.demote(m, n, file);
                        self.node_event("+convert-to-slave", m, n, "");
                    } else {
                        self.point(m, n);
                        self.node_event("+slave-reconf-sent", m, n, "");
                    }
                    self.masters[m].nodes[n].reconf = Reconf::Sent(now);
                    self.masters[m].nodes[n].info_due = now + REASK;
                }
                Reconf::Sent(_) if follows => {
                    self.node_event("+slave-reconf-inprog", m, n, "");
                    self.masters[m].nodes[n].reconf = Reconf::InProgress(now);
                    self.wake_at(now);
                }
                Reconf::Sent(since) if now >= since + self.timers.slave_reconf => {
                    self.node_event("-slave-reconf-sent-timeout", m, n, "");
                    self.masters[m].nodes[n].reconf = Reconf::Done;
                }
                Reconf::Sent(since) => {
                    let again = self.masters[m].nodes[n].heal_at.unwrap_or(since) + RECONF_RETRY;
                    if now >= again {
                        self.masters[m].nodes[n].heal_at = Some(now);
                        if master { self.demote(m, n, file) } else { self.point(m, n) }
                    }
                    self.wake_at((since + self.timers.slave_reconf).min(again.max(now + REASK)));
                }
                Reconf::InProgress(_) if up => {
                    self.node_event("+slave-reconf-done", m, n, "");
                    self.masters[m].nodes[n].reconf = Reconf::Done;
                }
                Reconf::InProgress(_) | Reconf::Done => {}
            }
            pending |= self.masters[m].nodes[n].reconf != Reconf::Done;
        }
        if !pending {
            self.end(m, now);
        } else if now >= until {
            self.master_event("+failover-end-for-timeout", m, "");
            self.end(m, now);
        } else {
            self.wake_at(until);
        }
    }

    pub(super) fn end(&mut self, m: usize, now: Instant) {
        self.master_event("+failover-end", m, "");
        // From here on each is a replica like any other, as clients read in its flags.
        self.masters[m].nodes.iter_mut().for_each(|node| node.reconf = Reconf::None);
        self.enter(m, Failover::Idle { not_before: now });
    }

    /// Changes the role of a redis in one step: no client may write in between, and no other sentinel's CLIENT KILL may cut
    /// this link before a hold has ended (`release`). To whom none is given, it becomes a master.
    fn transaction(&self, to: Option<Place>, release: bool) -> Vec<Vec<Bytes>> {
        let (host, port) = match &to {
            Some(Place { host, port }) => (host.clone(), port.to_string()),
            None => ("NO".to_owned(), "ONE".to_owned()),
        };
        let normal: &[&str] = &["CLIENT", "KILL", "TYPE", "normal"];
        let pubsub: &[&str] = &["CLIENT", "KILL", "TYPE", "pubsub"];
        let mut commands: Vec<&[&str]> = vec![&["MULTI"]];
        let (replicaof, slaveof) = (["REPLICAOF", &host, &port], ["SLAVEOF", &host, &port]);
        match self.membership {
            Membership::Voters { .. } => {
                commands.push(&replicaof);
                if to.is_some() {
                    commands.extend([normal, pubsub]);
                }
            }
            // A redis that nobody supervises has to remember it itself. The words are those that the access lists of
            // existing setups allow.
            Membership::Discovered { .. } => commands.extend([&slaveof[..], &["CONFIG", "REWRITE"], normal, pubsub]),
        }
        if release {
            commands.push(&["CLIENT", "UNPAUSE"]);
        }
        commands.push(&["EXEC"]);
        commands.into_iter().map(words).collect()
    }

    /// Points a replica at the master of the decision; behind the fence, as the decision is.
    pub(super) fn point(&mut self, m: usize, n: usize) {
        match self.membership {
            Membership::Voters { .. } => {
                let Some(link) = self.masters[m].nodes[n].command.up() else { return };
                let Place { host, port } = self.told_place(m);
                let args = words(&["REPLICAOF", &host, &port.to_string()]);
                self.fenced.push(Output::Query { link, tag: Tag::Ignored, args });
            }
            Membership::Discovered { .. } => self.demote(m, n, false),
        }
    }

    /// Makes a master a replica of the master of the decision and drops its clients; `release` ends a hold of writes.
    pub(super) fn demote(&mut self, m: usize, n: usize, release: bool) {
        let Some(link) = self.masters[m].nodes[n].command.up() else { return };
        // What released them before was lost if it could not be stored.
        let holds = self.masters[m].failover.hold().is_some_and(|hold| hold.at == self.masters[m].nodes[n].id);
        for args in self.transaction(Some(self.told_place(m)), release || holds) {
            self.fenced.push(Output::Query { link, tag: Tag::Ignored, args });
        }
    }

    /// The master as replicas and sentinels are told.
    pub(super) fn told_place(&self, m: usize) -> Place {
        let (address, node) = (self.monitored(m), &self.masters[m].nodes[self.master_at(m)]);
        Place { host: self.told_host(node.host.as_deref(), address), port: address.port() }
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
