//! The promotion, the decision that follows from it, and what is told to all others then.

use std::time::Duration;

use crate::base::{Epoch, Instant};
use crate::wire::frame::{Decision, Process};
use crate::wire::info::Role;
use crate::wire::resp::Reply;

use super::failover::{By, Cause, Failover, Promotion, REASK};
use super::instance::Reconf;
use super::monitor::{Tag, words};
use super::switchover::Refused;
use super::{Answer, FailoverReport, Output, Sentinel};

/// As stock: a replica that was told and does not follow counts as done.
const RECONF_SENT_MAX: Duration = Duration::from_secs(10);
/// What was told and has no effect is told again.
const RECONF_RETRY: Duration = Duration::from_secs(1);

impl Sentinel {
    pub(super) fn begin_promoting(
        &mut self,
        m: usize,
        cause: Cause,
        epoch: Epoch,
        target: usize,
        held: Option<Instant>,
        now: Instant,
    ) {
        self.node_event("+selected-slave", m, target, "");
        self.node_event("+failover-state-send-slaveof-noone", m, target, "");
        let until = now + self.masters[m].config.failover_timeout;
        self.enter(m, Failover::Promoting { cause, epoch, target, held, step: Promotion::Unsent, until });
    }

    pub(super) fn step_promoting(
        &mut self,
        m: usize,
        epoch: Epoch,
        (target, held): (usize, Option<Instant>),
        step: Promotion,
        until: Instant,
        now: Instant,
    ) {
        let node = &self.masters[m].nodes[target];
        let dead = node.fresh_facts().is_some_and(|facts| facts.process == Process::Dead);
        let lost = dead || (node.down_since.is_some() && !node.answers(now, self.masters[m].config.down_after));
        let link = node.command.up();
        if now >= until || lost {
            return self.abort(m, "-failover-abort-slave-timeout", "the new master does not answer", now);
        }
        self.wake_at(until);
        match (step, link) {
            (Promotion::Unsent, _) if self.durable.current_epoch > epoch => {
                self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
            }
            (_, None) => {}
            (Promotion::Unsent, Some(link)) => {
                if held.is_some() {
                    // The hold must outlast the promotion whatever its time until now.
                    self.hold_writes(m, self.master_at(m));
                }
                for args in [&["MULTI"][..], &["REPLICAOF", "NO", "ONE"]] {
                    self.query(link, Tag::Ignored, args);
                }
                self.query(link, Tag::Promote(epoch), &["EXEC"]);
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
        if let Failover::Promoting { step, .. } = &mut self.masters[m].failover {
            *step = Promotion::Sent { role_at: now + Duration::from_millis(20) };
        }
    }

    /// The target of the promotion under way in that epoch.
    fn promoting(&self, m: usize, n: usize, epoch: Epoch) -> bool {
        matches!(self.masters[m].failover, Failover::Promoting { epoch: now, target, .. } if now == epoch && target == n)
    }

    pub(super) fn promote_answered(&mut self, m: usize, n: usize, epoch: Epoch, reply: &Reply, now: Instant) {
        if !self.promoting(m, n, epoch) {
            return;
        }
        let errors = reply.array().unwrap_or_else(|| std::slice::from_ref(reply));
        let error = errors.iter().find_map(|reply| match reply {
            Reply::Error(text) => Some(text.clone()),
            Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Null | Reply::Array(_) => None,
        });
        if let Some(error) = error {
            let reason = format!("the new master refuses: {error}");
            self.abort(m, "-failover-abort-slave-timeout", &reason, now);
        }
    }

    pub(super) fn role_answered(&mut self, m: usize, n: usize, epoch: Epoch, reply: &Reply, now: Instant) {
        let master = reply.array().and_then(|role| role.first()?.text()) == Some("master");
        if self.promoting(m, n, epoch) && master {
            self.promoted(m, n, epoch, now);
        }
    }

    /// The replica says that it is master. From here on there is no way back: decided, stored, told.
    fn promoted(&mut self, m: usize, target: usize, epoch: Epoch, now: Instant) {
        let (cause, held) = (self.masters[m].cause().copied(), self.masters[m].failover.held());
        let (old, to) = (self.master_at(m), self.masters[m].nodes[target].address);
        let from = self.monitored(m);
        self.node_event("+promoted-slave", m, target, "");
        self.node_event("+failover-state-reconf-slaves", m, target, "");
        if self.durable.decision(m).is_some_and(|known| known.epoch >= epoch) {
            // Too late: a higher decision stands, and healing will make this one a replica again.
            return self.become_idle(m, now);
        }
        let until = now + self.masters[m].config.failover_timeout;
        self.enter(m, Failover::Reconfiguring { epoch, until });
        self.switch(m, Decision { master: to, epoch }, now);
        let node = &mut self.masters[m].nodes[target];
        if let Some(info) = &mut node.info {
            info.role = Some(Role::Master);
            info.master_host = None;
        }
        // The facts that still call it closed or a replica are of this incarnation: no proof against it.
        node.served = node.facts.as_ref().map(|facts| facts.incarnation);
        node.down_since = None;
        if held.is_some() {
            // Before the greeting: its PUBLISH would be held at the old master, and on that link the end of the hold with it.
            self.demote(m, old);
            self.masters[m].nodes[old].reconf = Reconf::Sent(now);
        }
        self.say_hello(m, now);
        if let Some(Cause::Ordered { by, .. }) = cause {
            let named = |n: usize| self.masters[m].nodes[n].node.clone();
            let pause = held.map(|since| now.since(since));
            let (from_node, to_node) = (named(old), named(target));
            let report = FailoverReport { from, from_node, to, to_node, epoch, pause };
            self.fenced.extend(by.told(Ok(report)));
        }
    }

    pub(super) fn step_reconfiguring(&mut self, m: usize, until: Instant, now: Instant) {
        let (at, to) = (self.master_at(m), self.monitored(m));
        if self.masters[m].odown_since.is_some() {
            return self.end(m, now);
        }
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
            let follows = info.role == Some(Role::Replica) && info.master() == Some(to);
            let (master, up) = (info.role == Some(Role::Master), info.master_link_up);
            match node.reconf {
                Reconf::None if follows && up => self.masters[m].nodes[n].reconf = Reconf::Done,
                Reconf::None if open >= limit && !master => {}
                Reconf::None => {
                    open += 1;
                    if master {
                        self.demote(m, n);
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
                Reconf::Sent(since) if now >= since + RECONF_SENT_MAX => {
                    self.node_event("-slave-reconf-sent-timeout", m, n, "");
                    self.masters[m].nodes[n].reconf = Reconf::Done;
                }
                Reconf::Sent(since) => {
                    let again = self.masters[m].nodes[n].heal_at.unwrap_or(since) + RECONF_RETRY;
                    if now >= again {
                        self.masters[m].nodes[n].heal_at = Some(now);
                        if master { self.demote(m, n) } else { self.point(m, n) }
                    }
                    self.wake_at((since + RECONF_SENT_MAX).min(again.max(now + REASK)));
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

    /// Points a replica at the master of the decision; behind the fence, as the decision is.
    pub(super) fn point(&mut self, m: usize, n: usize) {
        let Some(link) = self.masters[m].nodes[n].command.up() else { return };
        let to = self.monitored(m);
        let args = words(&["REPLICAOF", &to.ip().to_string(), &to.port().to_string()]);
        self.fenced.push(Output::Query { link, tag: Tag::Ignored, args });
    }

    /// Makes a master a replica, drops its clients and ends a hold of writes, as one transaction: no client may write in
    /// between, and no other sentinel's CLIENT KILL may cut this link before the hold has ended.
    pub(super) fn demote(&mut self, m: usize, n: usize) {
        let Some(link) = self.masters[m].nodes[n].command.up() else { return };
        let to = self.monitored(m);
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        let commands: [&[&str]; 6] = [
            &["MULTI"],
            &["REPLICAOF", &ip, &port],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["CLIENT", "KILL", "TYPE", "pubsub"],
            &["CLIENT", "UNPAUSE"],
            &["EXEC"],
        ];
        for args in commands {
            self.fenced.push(Output::Query { link, tag: Tag::Ignored, args: words(args) });
        }
    }

    /// `SENTINEL FAILOVER`: what is answered at once.
    pub(super) fn failover_command(&mut self, m: usize, now: Instant) -> Answer {
        let error = |text: &str| Answer::Reply(Reply::Error(text.to_owned()));
        match self.begin_ordered(m, By::Nobody, None, now) {
            Ok(()) => Answer::Reply(Reply::Simple("OK".to_owned())),
            Err(Refused::InProgress) => error("INPROG Failover already in progress"),
            Err(Refused::NoGoodReplica(_)) => error("NOGOODSLAVE No suitable replica to promote"),
            Err(Refused::NoMaster) => error("ERR there is no master yet"),
        }
    }
}
