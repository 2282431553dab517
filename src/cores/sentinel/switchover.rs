//! The ordered switchover: writes are held at the master until the target has everything, then the roles change.
//!
//! The server's own FAILOVER waits for the replica's acknowledgement, once a second; asking both for their offsets takes
//! about a millisecond.

use std::time::Duration;

use crate::base::{Epoch, Instant, NodeName};
use crate::wire::info::{Info, Role};
use crate::wire::resp::Reply;

use super::Agreement;
use super::effect::{Effect, Settled};
use super::event::{Event, Severity};
use super::ids::MasterId;
use super::instance::Instance;
use super::lead::{By, Cause, Failover, HELD_STEP_MAX, Hold, Lead, Ordered, Phase};
use super::master::Master;
use super::ports::{ClientId, FailoverReport, OrderId, Output};
use super::query::Tag;
use super::sabotage::Rule;
use super::select::{self, Rejection};

/// How long the master is told to hold writes. It ends by itself if this sentinel dies.
const HOLD_MS: &str = "3000";
/// A replica that is in sync by its supervisor's word says so to this sentinel within this time.
const INFO_WAIT: Duration = Duration::from_secs(1);

/// Why an order cannot even begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Another failover runs.
    #[error("a failover is already in progress")]
    InProgress,
    /// Nobody can take over, or not the one wanted.
    #[error("{0}")]
    NoGoodReplica(String),
    /// It is down: nobody can hold its writes.
    #[error("the master is down and cannot hold its writes")]
    NoGoodMaster,
    /// There is no master to take over from.
    #[error("there is no master yet: no sentinel has any record of one")]
    NoMaster,
    /// It is watched by its name, and nobody has told where that is.
    #[error("the address of the master is not known yet")]
    NoAddress,
}

impl By {
    /// What tells it the end.
    pub(super) fn told(self, result: Result<FailoverReport, String>) -> Option<Effect> {
        match self {
            Self::Order(order) => Some(Output::OrderDone(order, result).into()),
            Self::Client(client) => Some((client, Settled::Switchover(result)).into()),
            Self::Nobody => None,
        }
    }
}

impl Agreement {
    /// An order of the operator.
    pub(super) fn order(&mut self, order: OrderId, to: Option<&NodeName>, now: Instant) {
        let begun =
            if self.masters.is_empty() { Err(Refused::NoMaster) } else { self.place(0, By::Order(order), to, now) };
        if let Err(refused) = begun {
            self.free.extend(By::Order(order).told(Err(refused.to_string())));
        }
    }

    /// A client's order of a switchover: it is told the end.
    pub(super) fn switchover_order(&mut self, master: MasterId, client: ClientId, to: Option<&NodeName>, now: Instant) {
        let by = By::Client(client);
        let begun = self.place_of(master).ok_or(Refused::NoMaster).and_then(|m| self.place(m, by, to, now));
        if let Err(refused) = begun {
            self.free.extend(by.told(Err(refused.to_string())));
        }
    }

    fn place(&mut self, m: usize, by: By, to: Option<&NodeName>, now: Instant) -> Result<(), Refused> {
        let master = &self.masters[m];
        let place = |name: &NodeName| {
            let found = master.place_of_node(name);
            found.ok_or_else(|| Refused::NoGoodReplica(format!("node {name} has no redis")))
        };
        let to = to.map(place).transpose()?;
        self.begin_ordered(m, Ordered { by, to, coordinated: false }, now)
    }

    /// A client's order of a failover: it is told at once whether it has begun.
    pub(super) fn failover_order(&mut self, master: MasterId, coordinated: bool, now: Instant) -> Result<(), Refused> {
        let m = self.place_of(master).ok_or(Refused::NoMaster)?;
        self.begin_ordered(m, Ordered { by: By::Nobody, to: None, coordinated }, now)
    }

    fn begin_ordered(&mut self, m: usize, order: Ordered, now: Instant) -> Result<(), Refused> {
        let to = order.to;
        let master = &self.masters[m];
        if master.decision.is_none() {
            return Err(Refused::NoMaster);
        }
        if !master.is_located() {
            return Err(Refused::NoAddress);
        }
        // Whatever is under way: this would be refused at its end, too.
        if let Some(label) = master.is_master_already(to) {
            return Err(Refused::NoGoodReplica(label));
        }
        // Of a failover that has its new master, the rest is healing: only stock's clients know that as a failover.
        let ending = master.failover().is_reconfiguring() && order.by != By::Nobody;
        if !(ending || matches!(master.failover(), Failover::Idle { .. })) || self.other_leads(master) {
            return Err(Refused::InProgress);
        }
        if order.coordinated && master.watched().down_since.is_some() {
            return Err(Refused::NoGoodMaster);
        }
        let start_at = match self.target(master, to, now) {
            Ok(_) => now,
            Err(why) if !master.is_said_in_sync(to) => return Err(Refused::NoGoodReplica(why)),
            Err(_) => now + INFO_WAIT,
        };
        if ending {
            self.end(m, now);
        }
        self.enter(m, Failover::Waiting { cause: Cause::Ordered(order), start_at });
        Ok(())
    }

    /// Stands for an ordered switchover as soon as there is somebody to hand over to, at the latest at `until`.
    pub(super) fn step_ordered(&mut self, m: usize, order: Ordered, until: Instant, now: Instant) {
        match self.target(&self.masters[m], order.to, now) {
            Ok(_) => self.stand(m, Cause::Ordered(order), now),
            Err(_) if now < until => self.wake_at(until),
            Err(why) => self.abort(m, "-failover-abort-no-good-slave", &why, now),
        }
    }

    /// The node to promote by order: the wanted one, or the best replica. Its link to the master has to be up.
    fn target(&self, master: &Master, to: Option<usize>, now: Instant) -> Result<usize, String> {
        if let Some(refusal) = master.is_master_already(to) {
            return Err(refusal);
        }
        let (moment, nodes) = (self.moment(now), &master.nodes);
        if master.watched().down_since.is_some() {
            return match (master.choose(moment), to) {
                (Ok(best), None) => Ok(best),
                (Ok(best), Some(wanted)) if best == wanted => Ok(best),
                (Ok(_), Some(_)) => Err("the master is down, and another replica has more of its data".to_owned()),
                (Err(why), _) => Err(why),
            };
        }
        let places: Vec<usize> = match to {
            Some(wanted) => vec![wanted],
            None => master.others().collect(),
        };
        let (linked, unlinked): (Vec<usize>, Vec<usize>) = places.into_iter().partition(|n| {
            let info = nodes[*n].info.as_ref();
            info.is_some_and(|info| info.master_link_up && self.master_of(info) == Some(master.monitored()))
        });
        let candidates: Vec<_> = linked.iter().map(|n| master.candidate(*n, moment)).collect();
        let best = select::replica(&candidates, &master.ground(moment)).map(|best| linked[best]);
        best.map_err(|reasons| {
            let out_of_sync = unlinked.iter().map(|n| match nodes[*n].down_since {
                Some(_) => format!("{}: {}", nodes[*n].label(), Rejection::Down),
                None => format!("{}: not in sync", nodes[*n].label()),
            });
            let label = |address| master.place_of(address).map_or_else(String::new, |n| Instance::label(&nodes[n]));
            let judged = reasons.iter().map(|(address, why)| format!("{}: {why}", label(*address)));
            let all: Vec<String> = judged.chain(out_of_sync).collect();
            format!(
                "no replica can take over: {}",
                if all.is_empty() { "there is none".into() } else { all.join("; ") }
            )
        })
    }

    pub(super) fn begin_pausing(&mut self, m: usize, lead: Lead, to: Option<usize>, now: Instant) {
        let master = &self.masters[m];
        let target = match self.target(master, to, now) {
            Ok(target) => target,
            Err(why) => return self.abort(m, "-failover-abort-no-good-slave", &why, now),
        };
        let Some(link) = master.watched().command.up() else {
            return self.abort_hold(m, "the master cannot be reached to hold writes", now);
        };
        let hold = Hold { at: master.watched().id, since: now };
        self.go_on(m, lead, Some(hold), Phase::Pausing { target }, now + HELD_STEP_MAX);
        self.query(link, Tag::Pause(lead.epoch), &["CLIENT", "PAUSE", HOLD_MS, "WRITE"]);
        // Behind the pause on the same link: the offset it tells cannot grow by writes any more.
        self.query(link, Tag::PausedInfo(lead.epoch), &["INFO", "replication"]);
    }

    pub(super) fn pause_answered(&mut self, m: usize, epoch: Epoch, reply: &Reply, now: Instant) {
        let Some((lead, target)) = self.masters[m].pausing(epoch).filter(|_| !reply.is_ok()) else { return };
        if lead.cause.is_coordinated() || !self.membership.goes_on_unheld() {
            return self.abort_hold(m, &format!("the master does not hold writes: {reply:?}"), now);
        }
        // As stock does, where the server does not know it or the access list forbids it.
        let text = "the master cannot hold writes: what it acknowledges until the end may be lost".to_owned();
        self.publish(Event::new("unheld", Severity::Warn, text));
        self.begin_promoting(m, lead, target, None, now);
    }

    pub(super) fn paused_info(&mut self, m: usize, n: usize, epoch: Epoch, reply: &Reply, now: Instant) {
        let master = &mut self.masters[m];
        let of_the_master = n == master.at();
        let Some((lead, target)) = master.pausing(epoch).filter(|_| of_the_master) else { return };
        let info = Info::parse(reply.text().unwrap_or_default());
        match info.master_repl_offset.filter(|_| info.role == Some(Role::Master)) {
            Some(goal) => {
                // What it said before the pause does not count.
                master.nodes[target].info_at = None;
                let phase = Phase::Catching { target, goal, lineage: info.master_replid };
                self.go_on(m, lead, lead.hold, phase, lead.until);
                self.ask_info(m, target, now);
            }
            None => self.abort_hold(m, "the master does not say its offset", now),
        }
    }

    /// Any redis has said something of itself: has the target caught up?
    pub(super) fn info_for_failover(&mut self, m: usize, n: usize, now: Instant) {
        let master = &self.masters[m];
        let Some(lead) = master.failover().lead().copied() else { return };
        let Phase::Catching { target, goal, lineage } = lead.phase else { return };
        let Some(info) = master.nodes[n].info.as_ref().filter(|_| n == target) else { return };
        let whole = info.slave_repl_offset.is_some_and(|offset| offset >= goal) || !self.rules.holds(Rule::CatchUp);
        // A master that was restarted counts from elsewhere: its offset says nothing of what an unlinked replica has.
        let same = lineage.is_none() || info.master_replid.is_none() || info.master_replid == lineage;
        if whole && same && info.role == Some(Role::Replica) && self.master_of(info) == Some(master.monitored()) {
            self.begin_promoting(m, lead, target, lead.hold, now);
        }
    }

    /// Gives up because of the master. Only who knows COORDINATED knows the event of that.
    pub(super) fn abort_hold(&mut self, m: usize, reason: &str, now: Instant) {
        let coordinated = self.masters[m].cause().is_some_and(Cause::is_coordinated);
        let event = if coordinated { "-failover-abort-master-timeout" } else { "-failover-abort-slave-timeout" };
        self.abort(m, event, reason, now);
    }

    /// While writes are held: the limits.
    pub(super) fn step_holding(&mut self, m: usize, lead: Lead, now: Instant) {
        let master = &self.masters[m];
        if self.current_epoch > lead.epoch {
            self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
        } else if master.odown_since.is_some() {
            self.abort_hold(m, "the master went down meanwhile", now);
        } else if now < lead.until {
            self.wake_at(lead.until);
        } else if let Phase::Catching { goal: goal @ 1.., target, .. } = lead.phase {
            let has = master.candidate(target, self.moment(now)).offset;
            let reason = format!("the replica did not catch up in {HELD_STEP_MAX:?}: it has {has} of {goal} bytes");
            self.abort(m, "-failover-abort-slave-timeout", &reason, now);
        } else {
            let reason = format!("the master {} did not answer in {HELD_STEP_MAX:?}", master.watched().address);
            self.abort_hold(m, &reason, now);
        }
    }

    /// A link was lost on which a switchover depends.
    pub(super) fn link_lost(&mut self, m: usize, n: usize, reason: &str, now: Instant) {
        let master = &self.masters[m];
        let phase = master.failover().lead().map(|lead| lead.phase);
        if matches!(phase, Some(Phase::Pausing { .. } | Phase::Catching { .. })) && n == master.at() {
            let reason = format!("the link to the master was lost while it held writes: {reason}");
            self.abort_hold(m, &reason, now);
        }
    }

    pub(super) fn hold_writes(&mut self, m: usize, n: usize) {
        self.tell_clients(m, n, &["CLIENT", "PAUSE", HOLD_MS, "WRITE"]);
    }

    pub(super) fn release_writes(&mut self, m: usize, n: usize) {
        self.tell_clients(m, n, &["CLIENT", "UNPAUSE"]);
    }

    /// Promises nothing: a store that fails must not keep it back.
    fn tell_clients(&mut self, m: usize, n: usize, order: &[&str]) {
        if let Some(link) = self.masters[m].nodes[n].command.up() {
            self.query(link, Tag::Ignored, order);
        }
    }

    /// About to leave: writes are not left held.
    pub(super) fn stop(&mut self, now: Instant) {
        for m in 0..self.masters.len() {
            self.abort_if_early(m, now, "the sentinel is leaving");
        }
        self.fenced.push(Output::Stopped);
    }
}

#[cfg(test)]
mod tests;
