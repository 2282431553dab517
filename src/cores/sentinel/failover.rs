//! The failover: election, choice, promotion, reconfiguration. Each state owns its deadline.

use std::time::Duration;

use crate::base::node::{Process, RedisRole};
use crate::base::{Epoch, Instant, RunId};
use crate::wire::info::{Info, LinkDown, Role};

use super::lead::{Cause, Failover, Following, Hold, Lead, Ordered, Phase};
use super::promote::SIMULATED;
use super::sabotage::Rule;
use super::select::{self, Candidate, Ground};
use super::{Membership, Output, Sentinel};

/// Between the candidates' attempts, so that one is elected before the next one stands.
const STAGGER: Duration = Duration::from_millis(40);
/// Jitter of all but the first candidate.
const STAGGER_JITTER: Duration = Duration::from_millis(5);
/// Pause after a failed attempt, and as much again at random.
const RETRY: Duration = Duration::from_millis(100);
/// Replicas get so long to drain what the kernel of a dead master's host still delivers.
const DRAIN_MAX: Duration = Duration::from_millis(300);
/// Replicas get so long to say what they have, after a silence.
const REFRESH_MAX: Duration = Duration::from_millis(100);
/// What a replica has said of itself is too old then, as in redis-sentinel; while nothing is wrong it is asked now and then.
const INFO_AGE_MAX: Duration = Duration::from_secs(5);
/// Between two questions of a replica whose answer is awaited.
pub(super) const REASK: Duration = Duration::from_millis(2);
/// A leader that was voted for and neither leads nor decides for so long is not waited for.
const LEADER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// A recorded master whose host is unreachable is given up, beyond `down_after`, for one with a good history.
const RECORDED_MASTER_WAIT: Duration = Duration::from_secs(5);

impl Sentinel {
    /// The only place where a failover changes its state. Leaving a state that holds writes for anything but what follows
    /// from it releases them.
    pub(super) fn enter(&mut self, m: usize, next: Failover) {
        let master = &mut self.masters[m];
        let left = std::mem::replace(&mut master.failover, next);
        let Some(hold) = left.hold().filter(|_| next.hold().is_none()) else { return };
        let Some(n) = master.nodes.iter().position(|node| node.id == hold.at) else { return };
        // Its demotion, which would have released it, was lost if it could not be stored.
        let is_master = master.nodes[n].info.as_ref().is_some_and(|info| info.role == Some(Role::Master));
        if (!left.is_reconfiguring() || is_master) && self.rules.holds(Rule::ReleaseWrites) {
            self.release_writes(m, n);
        }
    }

    /// Ends a failover without a result; the next one may begin a little later.
    pub(super) fn abort(&mut self, m: usize, event: &'static str, reason: &str, now: Instant) {
        self.master_event(event, m, "");
        let not_before = now + RETRY + self.rng.below(RETRY);
        self.give_up(m, not_before, reason);
    }

    /// Ends whatever is under way, and says so to whoever ordered it.
    pub(super) fn give_up(&mut self, m: usize, not_before: Instant, reason: &str) {
        let cause = self.masters[m].cause();
        self.enter(m, Failover::Idle { not_before });
        if let Some(Cause::Ordered(order)) = cause {
            self.free.extend(order.by.told(Err(reason.to_owned())));
        }
    }

    /// A decision of others makes whatever was under way here pointless, unless it is further and of a higher epoch.
    pub(super) fn become_idle(&mut self, m: usize, now: Instant) {
        let known = self.decision(m).map_or(0, |decision| decision.epoch);
        match self.masters[m].failover {
            Failover::Leading(Lead { phase: Phase::Reconfiguring, .. }) => self.end(m, now),
            Failover::Leading(lead) if lead.phase.is_told() && lead.epoch > known => {}
            Failover::Leading(_) | Failover::Waiting { cause: Cause::Bootstrap | Cause::Ordered(_), .. } => {
                self.abort(m, "-failover-abort-not-elected", "another sentinel has decided meanwhile", now);
            }
            Failover::Idle { .. } | Failover::Following(_) | Failover::Waiting { cause: Cause::Down, .. } => {
                self.enter(m, Failover::Idle { not_before: now });
            }
        }
    }

    /// Nothing is undone that others may have seen already.
    pub(super) fn abort_if_early(&mut self, m: usize, now: Instant, reason: &str) {
        match self.masters[m].failover {
            // Nobody has heard of it yet.
            Failover::Waiting { cause: Cause::Down | Cause::Bootstrap, .. } => {
                self.enter(m, Failover::Idle { not_before: now });
            }
            Failover::Leading(lead) if lead.phase.is_told() => {}
            Failover::Leading(_) | Failover::Waiting { cause: Cause::Ordered(_), .. } => {
                self.abort(m, "-failover-abort-not-elected", reason, now);
            }
            Failover::Idle { .. } | Failover::Following(_) => {}
        }
    }

    pub(super) fn abort_if_electing(&mut self, m: usize, now: Instant) {
        if self.masters[m].failover.stands().is_some() {
            self.abort(m, "-failover-abort-not-elected", "the sentinel cannot store its own vote", now);
        }
    }

    /// The vote went to another sentinel: whatever is only begun here waits for that one.
    pub(super) fn follow(&mut self, m: usize, leader: RunId, epoch: Epoch, now: Instant) {
        self.abort_if_early(m, now, "another sentinel stands at a higher epoch");
        if matches!(self.masters[m].failover, Failover::Idle { .. } | Failover::Following(_)) {
            let until = now + self.masters[m].config.failover_timeout;
            self.enter(m, Failover::Following(Following { leader, epoch, since: now, until, led: false }));
        }
    }

    /// Steps until nothing moves any more.
    pub(super) fn failover(&mut self, m: usize, now: Instant) {
        for _ in 0..8 {
            let before = self.masters[m].failover;
            self.step(m, now);
            if self.masters[m].failover == before {
                return;
            }
        }
        self.wake_at(now);
    }

    fn step(&mut self, m: usize, now: Instant) {
        match self.masters[m].failover {
            Failover::Idle { not_before } => self.step_idle(m, not_before, now),
            Failover::Following(following) => self.step_following(m, following, now),
            Failover::Waiting { cause, start_at } => self.step_waiting(m, cause, start_at, now),
            Failover::Leading(lead) => self.step_lead(m, lead, now),
        }
    }

    fn step_lead(&mut self, m: usize, lead: Lead, now: Instant) {
        match lead.phase {
            Phase::Electing => self.step_electing(m, lead, now),
            Phase::Selecting { since } => self.step_selecting(m, lead, since, now),
            Phase::Pausing { .. } => self.step_holding(m, lead, now),
            Phase::Catching { target, .. } => {
                self.step_holding(m, lead, now);
                self.reask(m, target, now);
            }
            Phase::Promoting { target, step } => self.step_promoting(m, lead, target, step, now),
            Phase::Reconfiguring => self.step_reconfiguring(m, lead.until, now),
        }
    }

    /// Goes on to the next phase of the failover that is led.
    pub(super) fn go_on(&mut self, m: usize, lead: Lead, hold: Option<Hold>, phase: Phase, until: Instant) {
        self.enter(m, Failover::Leading(Lead { hold, phase, until, ..lead }));
    }

    /// What there is to do, if anything.
    fn needed(&mut self, m: usize, now: Instant) -> Option<Cause> {
        // Where the master is has not been found out yet: that is no word on whether it is down.
        if self.shut_out(m) || self.decision(m).is_some_and(|known| known.master.ip().is_unspecified()) {
            return None;
        }
        if self.decision(m).is_none() {
            return self.bootstrap_node(m).map(|_| Cause::Bootstrap);
        }
        self.masters[m].odown_since?;
        match self.choose(m, now) {
            Ok(_) => {
                self.masters[m].no_candidate = None;
                Some(Cause::Down)
            }
            Err(why) => {
                if self.masters[m].no_candidate.is_none() {
                    self.master_event("-failover-abort-no-good-slave", m, "");
                }
                if self.masters[m].no_candidate.as_ref() != Some(&why) {
                    let text = format!("nobody can become master: {why}");
                    self.publish(super::Event::new("no-candidate", super::Severity::Error, text));
                    self.masters[m].no_candidate = Some(why);
                }
                self.wake_at(now + RETRY);
                None
            }
        }
    }

    fn step_idle(&mut self, m: usize, not_before: Instant, now: Instant) {
        let Some(cause) = self.needed(m, now) else { return };
        let ready_at = self.store_retry_at.map_or(not_before, |retry_at| retry_at.max(not_before));
        if now < ready_at {
            self.wake_at(ready_at);
            return;
        }
        if self.other_leads(m) {
            return;
        }
        let rank = self.rank(m);
        let jitter = if rank == 0 { Duration::ZERO } else { self.rng.below(STAGGER_JITTER) };
        self.enter(m, Failover::Waiting { cause, start_at: now + STAGGER * rank + jitter });
    }

    fn step_following(&mut self, m: usize, following: Following, now: Instant) {
        let Following { leader, epoch, since, until, led } = following;
        let peer = self.peers.iter().position(|peer| peer.id == Some(leader));
        let leads = peer.and_then(|p| self.peer_master(p, m)).map(|facts| facts.leads.is_some_and(|led| led >= epoch));
        // Whoever has ever spoken over the peer link is known by its frames; another one only by what it decides, and by
        // whether it answers at all.
        let speaks = peer.is_some_and(|p| self.peers[p].spoke || self.peers[p].down_since.is_some());
        let over = match leads {
            Some(true) => {
                if !led || since != now {
                    self.enter(m, Failover::Following(Following { since: now, led: true, ..following }));
                }
                now >= until
            }
            Some(false) if led => true,
            Some(false) | None if speaks => now >= (since + LEADER_SILENCE_MAX).min(until),
            Some(false) | None => now >= until,
        };
        if over {
            self.enter(m, Failover::Idle { not_before: now });
        } else {
            self.wake_at(if speaks && leads != Some(true) { until.min(since + LEADER_SILENCE_MAX) } else { until });
        }
    }

    fn step_waiting(&mut self, m: usize, cause: Cause, start_at: Instant, now: Instant) {
        if let Cause::Ordered(order) = cause {
            return self.step_ordered(m, order, start_at, now);
        }
        if self.other_leads(m) || self.needed(m, now).is_none() {
            self.enter(m, Failover::Idle { not_before: now });
        } else if now < start_at {
            self.wake_at(start_at);
        } else {
            self.stand(m, cause, now);
        }
    }

    /// Stands for election: a new epoch, the own vote on disk, and then everybody is asked.
    pub(super) fn stand(&mut self, m: usize, cause: Cause, now: Instant) {
        let epoch = self.current_epoch + 1;
        self.raise_epoch(epoch, now);
        if self.current_epoch != epoch {
            let reason = "epochs are used up";
            return self.abort(m, "-failover-abort-not-elected", reason, now);
        }
        self.master_event("+try-failover", m, "");
        self.record_vote(m, self.me(), epoch);
        let until = now + self.timers.election.min(self.masters[m].config.failover_timeout);
        self.enter(m, Failover::Leading(Lead { epoch, cause, hold: None, until, phase: Phase::Electing }));
        self.ask_votes(m, now);
    }

    fn step_electing(&mut self, m: usize, lead: Lead, now: Instant) {
        let Lead { epoch, cause, until, .. } = lead;
        let quorum = usize::try_from(self.masters[m].config.quorum).unwrap_or(usize::MAX);
        let majority = if self.rules.holds(Rule::Majority) { self.majority(m) } else { 1 };
        let (votes, needed) = (self.votes_for_me(m, epoch), majority.max(quorum));
        // Nobody else may hear of the own vote where nobody else is needed: it is one only on disk all the same.
        let stored = !self.masters[m].vote_unstored || !self.rules.holds(Rule::StoreFirst);
        if self.current_epoch > epoch {
            self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
        } else if votes >= needed && stored {
            self.master_event("+elected-leader", m, "");
            self.master_event("+failover-state-select-slave", m, "");
            self.elected(m, lead, now);
        } else if now >= until || stored && votes + self.votes_open(m, epoch) < needed {
            let forced = matches!(cause, Cause::Ordered(Ordered { coordinated: false, .. }));
            if forced && stored && matches!(self.membership, Membership::Discovered { .. }) {
                // Stock asks nobody: an order counts even where most sentinels are lost.
                return self.elected(m, lead, now);
            }
            // A split vote is known to be one as soon as everybody alive has voted: no use in waiting.
            let reason = format!("not elected: {votes} of {} votes", self.voters(m));
            self.abort(m, "-failover-abort-not-elected", &reason, now);
        } else {
            self.wake_at(until);
        }
    }

    fn elected(&mut self, m: usize, lead: Lead, now: Instant) {
        if self.simulated.after_election {
            self.fenced.push(Output::Exit(SIMULATED));
        }
        match lead.cause {
            Cause::Down => self.begin_selecting(m, lead, now),
            Cause::Bootstrap => match self.bootstrap_node(m) {
                Some(target) => self.begin_promoting(m, lead, target, None, now),
                None => self.abort(m, "-failover-abort-no-good-slave", "the first master is gone", now),
            },
            Cause::Ordered(order) => {
                if self.masters[m].nodes[self.master_at(m)].down_since.is_none() {
                    self.begin_pausing(m, lead, order.to, now);
                } else if order.coordinated {
                    self.abort_hold(m, "the master went down meanwhile", now);
                } else {
                    self.begin_selecting(m, lead, now);
                }
            }
        }
    }

    fn begin_selecting(&mut self, m: usize, lead: Lead, now: Instant) {
        let limit = if self.proved_down(m) { DRAIN_MAX } else { REFRESH_MAX };
        self.go_on(m, lead, None, Phase::Selecting { since: now }, now + limit);
        for n in 0..self.masters[m].nodes.len() {
            self.ask_info(m, n, now);
        }
    }

    fn step_selecting(&mut self, m: usize, lead: Lead, since: Instant, now: Instant) {
        if self.current_epoch > lead.epoch {
            return self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
        }
        let (proved, master) = (self.proved_down(m), self.master_at(m));
        let mut waiting = false;
        for n in (0..self.masters[m].nodes.len()).filter(|n| *n != master) {
            let node = &self.masters[m].nodes[n];
            if node.down_since.is_some() || node.command.up().is_none() {
                continue;
            }
            let said = node.info_at.is_some_and(|at| at >= since && node.info_sent.is_none_or(|sent| sent >= since));
            // What a dead master's kernel still delivers was acknowledged to clients: REPLICAOF NO ONE would drop it.
            let drained = node.info.as_ref().is_some_and(|info| !info.master_link_up);
            if !(said && (drained || !proved)) {
                waiting = true;
                self.reask(m, n, now);
            }
        }
        if waiting && now < lead.until {
            self.wake_at(lead.until);
            return;
        }
        match self.choose(m, now) {
            Ok(target) => self.begin_promoting(m, lead, target, None, now),
            Err(why) => self.abort(m, "-failover-abort-no-good-slave", &why, now),
        }
    }

    /// Asks a redis again whose answer is awaited, a little after its last one.
    pub(super) fn reask(&mut self, m: usize, n: usize, now: Instant) {
        let node = &self.masters[m].nodes[n];
        if node.info_sent.is_some() {
            return;
        }
        let due = node.info_answered.map_or(now, |at| at + REASK);
        if now >= due { self.ask_info(m, n, now) } else { self.wake_at(due) }
    }

    pub(super) fn candidate(&self, m: usize, n: usize, now: Instant) -> Candidate {
        let node = &self.masters[m].nodes[n];
        let unknown = Info::default();
        let info = node.info.as_ref().unwrap_or(&unknown);
        let facts = node.fresh_facts();
        Candidate {
            address: node.address,
            connected: node.command.up().is_some(),
            // A recorded master that came back closed, or was made a replica, counts as down, as a master, and yet answers.
            down: node.down_since.is_some()
                && !(info.role == Some(Role::Replica)
                    && (info.is_closed() || n == self.master_at(m))
                    && facts.is_none_or(|facts| facts.process != Process::Dead)
                    && node.answers(now, self.masters[m].config.down_after)),
            info_age: node.info_at.map(|at| now.since(at)),
            priority: info
                .slave_priority
                .filter(|it| *it > 0 || self.rules.holds(Rule::NotPriorityZero))
                .unwrap_or(100),
            offset: info.slave_repl_offset.or(info.master_repl_offset).unwrap_or(0),
            run_id: info.run_id,
            lineage: info.master_replid.filter(|_| self.rules.holds(Rule::SameLineage)),
            replica: info.role == Some(Role::Replica),
            promoted_from: info.master_replid2.filter(|_| info.role == Some(Role::Master)),
            closed: info.is_closed(),
            loading: info.loading || facts.is_some_and(|facts| facts.process == Process::Loading),
            syncing: info.master_sync_in_progress && self.rules.holds(Rule::NotSyncing),
            ever_linked: info.master_link_up || matches!(info.master_link_down, Some(LinkDown::For(_))),
            link_down: match info.master_link_down {
                Some(LinkDown::For(time)) if !info.master_link_up => time,
                Some(LinkDown::For(_) | LinkDown::Never) | None => Duration::ZERO,
            },
            has_data: info.has_keys.filter(|_| self.rules.holds(Rule::NotEmpty)),
            in_sync: facts.and_then(|facts| facts.history).filter(|h| h.in_sync).map(|h| (h.epoch, h.offset)),
        }
    }

    pub(super) fn ground(&self, m: usize, now: Instant) -> Ground {
        let master = &self.masters[m];
        let down_for = master.nodes[self.master_at(m)].down_since.map_or(Duration::ZERO, |since| now.since(since));
        let monitored = self.monitored(m);
        // Who is to take over was asked a moment ago.
        let asked = master.failover.lead().is_some_and(|lead| matches!(lead.phase, Phase::Selecting { .. }));
        let period = if asked { Duration::ZERO } else { self.timers.info_period(master.config.down_after) };
        Ground {
            info_age_max: INFO_AGE_MAX + period,
            link_down_max: down_for + master.config.down_after * 10 + Duration::from_secs(1),
            lineage: master.lineage.filter(|(address, _)| *address == monitored).map(|(_, lineage)| lineage),
            epoch: self.decision(m).map_or(0, |decision| decision.epoch),
        }
    }

    /// Who takes over from a master that is down: a replica of it; else itself if it came back closed with its data; else,
    /// once it is given up, whoever came back with the best history.
    pub(super) fn choose(&self, m: usize, now: Instant) -> Result<usize, String> {
        let (at, ground) = (self.master_at(m), self.ground(m, now));
        let all: Vec<Candidate> = (0..self.masters[m].nodes.len()).map(|n| self.candidate(m, n, now)).collect();
        let others: Vec<usize> = (0..all.len()).filter(|n| *n != at).collect();
        let rest: Vec<Candidate> = others.iter().map(|n| all[*n].clone()).collect();
        let reasons = match select::replica(&rest, &ground) {
            Ok(best) => return Ok(others[best]),
            Err(reasons) => reasons,
        };
        if self.masters[m].nodes[at].down_since.is_some()
            && let Ok(best) = select::promoted(&rest, &ground)
        {
            return Ok(others[best]);
        }
        let own = match select::returned_master(&all, at, &ground) {
            Ok(()) => return Ok(at),
            Err(own) => own,
        };
        let wait = self.masters[m].config.down_after + RECORDED_MASTER_WAIT;
        let given_up = match own {
            select::Rejection::Empty
            | select::Rejection::NoHistory
            | select::Rejection::EarlierMaster
            | select::Rejection::Changed => true,
            select::Rejection::Down | select::Rejection::NotConnected | select::Rejection::StaleInfo => {
                now.since(self.masters[m].nodes[at].last_ok) > wait
            }
            select::Rejection::NoReplica
            | select::Rejection::PriorityZero
            | select::Rejection::Closed
            | select::Rejection::Loading
            | select::Rejection::Syncing
            | select::Rejection::NeverLinked
            | select::Rejection::LinkDownTooLong
            | select::Rejection::OtherLineage => false,
        };
        let recorded = format!("{}: {own}; {}", all[at].address, select::explain(&reasons));
        if !given_up {
            return Err(recorded);
        }
        let reasons = match select::by_history(&rest, &ground) {
            Ok(best) => return Ok(others[best]),
            Err(reasons) => reasons,
        };
        // Its disk may lack the last of what it had as master; when nobody else who could have it comes, it is the best left.
        let unproved = matches!(own, select::Rejection::NoHistory | select::Rejection::EarlierMaster);
        let waited = self.masters[m].odown_since.is_some_and(|since| now.since(since) > wait);
        if unproved && waited {
            return Ok(at);
        }
        Err(format!("{recorded}; by history: {}; an operator must decide", select::explain(&reasons)))
    }

    /// The redis that becomes the first master, if the cluster has never had one and a majority of the sentinels says so.
    pub(super) fn bootstrap_node(&self, m: usize) -> Option<usize> {
        let unrecorded = |p: &usize| self.peer_master(*p, m).is_some_and(|facts| facts.decision.is_none());
        let agreeing = 1 + self.peers_of(m).filter(unrecorded).count();
        let n = self.masters[m].config.nodes.iter().position(|node| node.bootstrap)?;
        let node = &self.masters[m].nodes[n];
        let closed = node.info.as_ref().is_some_and(|info| info.is_closed() && !info.loading);
        let alive = node.fresh_facts().is_none_or(|facts| {
            facts.process == Process::Alive && matches!(facts.role, RedisRole::Closed | RedisRole::Unknown)
        });
        let ready = agreeing >= self.majority(m) && closed && alive && node.command.up().is_some();
        ready.then_some(n)
    }
}
