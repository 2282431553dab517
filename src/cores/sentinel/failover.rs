//! The failover: when it begins and ends, the election, the choice. Each state owns its deadline.

use std::time::Duration;

use crate::base::{EPOCH_STEP, Epoch, Instant, RunId};

use super::durable::OnDisk;
use super::event::{Event, Severity};
use super::instance::Instance;
use super::lead::{Cause, Failover, Following, Hold, Lead, Ordered, Phase, REASK, SIMULATED};
use super::master::Master;
use super::ports::Output;
use super::sabotage::Rule;
use super::{Agreement, query::Tag};

/// Between the candidates' attempts, so that one is elected before the next one stands.
const STAGGER: Duration = Duration::from_millis(40);
/// Jitter of all but the first candidate.
const STAGGER_JITTER: Duration = Duration::from_millis(5);
/// Pause after a failed attempt, and as much again at random.
const RETRY: Duration = Duration::from_millis(100);
/// The same, where nobody waits: the mode of the cluster is to change.
const MODE_RETRY: Duration = Duration::from_secs(2);
/// Replicas get so long to drain what the kernel of a dead master's host still delivers.
const DRAIN_MAX: Duration = Duration::from_millis(300);
/// Replicas get so long to say what they have, after a silence.
const REFRESH_MAX: Duration = Duration::from_millis(100);
/// A leader that was voted for and neither leads nor decides for so long is not waited for.
const LEADER_SILENCE_MAX: Duration = Duration::from_secs(1);

impl Agreement {
    /// The only way by which a failover changes its state: writes that the new one does not hold any more are released.
    pub(super) fn enter(&mut self, m: usize, next: Failover) {
        let release = self.masters[m].enter(next);
        if let Some(n) = release.filter(|_| self.rules.holds(Rule::ReleaseWrites)) {
            self.release_writes(m, n);
        }
    }

    /// Goes on to the next phase of the failover that is led.
    pub(super) fn go_on(&mut self, m: usize, lead: Lead, hold: Option<Hold>, phase: Phase, until: Instant) {
        self.enter(m, Failover::Leading(Lead { hold, phase, until, ..lead }));
    }

    /// Ends a failover without a result; the next one may begin a little later.
    pub(super) fn abort(&mut self, m: usize, event: &'static str, reason: &str, now: Instant) {
        self.master_event(event, m, "");
        let pause = if self.masters[m].cause() == Some(Cause::Mode) { MODE_RETRY } else { RETRY };
        let not_before = now + pause + self.rng.below(pause);
        self.give_up(m, not_before, reason);
    }

    /// Ends whatever is under way, and says so to whoever ordered it.
    pub(super) fn give_up(&mut self, m: usize, not_before: Instant, reason: &str) {
        let cause = self.masters[m].cause();
        self.enter(m, Failover::Idle { not_before });
        match cause {
            Some(Cause::Ordered(order)) => self.free.extend(order.by.told(Err(reason.to_owned()))),
            Some(Cause::Takeover(order)) => self.free.push(Output::Said(order, Err(reason.to_owned()))),
            Some(Cause::Down | Cause::Bootstrap | Cause::Mode) | None => {}
        }
    }

    /// A decision of others makes whatever was under way here pointless, unless it is further and of a higher epoch.
    pub(super) fn become_idle(&mut self, m: usize, now: Instant) {
        let master = &self.masters[m];
        match *master.failover() {
            Failover::Leading(Lead { phase: Phase::Reconfiguring, .. }) => self.end(m, now),
            Failover::Leading(lead) if lead.phase.is_told() && lead.epoch > master.epoch() => {}
            Failover::Leading(_)
            | Failover::Waiting {
                cause: Cause::Bootstrap | Cause::Mode | Cause::Ordered(_) | Cause::Takeover(_),
                ..
            } => {
                self.abort(m, "-failover-abort-not-elected", "another sentinel has decided meanwhile", now);
            }
            Failover::Idle { .. } | Failover::Following(_) | Failover::Waiting { cause: Cause::Down, .. } => {
                self.enter(m, Failover::Idle { not_before: now });
            }
        }
    }

    /// Nothing is undone that others may have seen already.
    pub(super) fn abort_if_early(&mut self, m: usize, now: Instant, reason: &str) {
        match self.masters[m].failover() {
            // Nobody has heard of it yet.
            Failover::Waiting { cause: Cause::Down | Cause::Bootstrap | Cause::Mode, .. } => {
                self.enter(m, Failover::Idle { not_before: now });
            }
            Failover::Leading(lead) if lead.phase.is_told() => {}
            Failover::Leading(_) | Failover::Waiting { cause: Cause::Ordered(_) | Cause::Takeover(_), .. } => {
                self.abort(m, "-failover-abort-not-elected", reason, now);
            }
            Failover::Idle { .. } | Failover::Following(_) => {}
        }
    }

    pub(super) fn abort_if_electing(&mut self, m: usize, now: Instant) {
        if self.masters[m].failover().stands().is_some() {
            self.abort(m, "-failover-abort-not-elected", "the sentinel cannot store its own vote", now);
        }
    }

    /// The vote went to another sentinel: whatever is only begun here waits for that one.
    pub(super) fn follow(&mut self, m: usize, leader: RunId, epoch: Epoch, now: Instant) {
        self.abort_if_early(m, now, "another sentinel stands at a higher epoch");
        let master = &self.masters[m];
        if matches!(master.failover(), Failover::Idle { .. } | Failover::Following(_)) {
            let until = now + master.config.failover_timeout;
            self.enter(m, Failover::Following(Following { leader, epoch, since: now, until, led: false }));
        }
    }

    /// Steps until nothing moves any more.
    pub(super) fn failover(&mut self, m: usize, now: Instant) {
        let mut before = *self.masters[m].failover();
        for _ in 0..8 {
            self.step(m, before, now);
            let after = *self.masters[m].failover();
            if after == before {
                return;
            }
            before = after;
        }
        self.wake_at(now);
    }

    fn step(&mut self, m: usize, failover: Failover, now: Instant) {
        match failover {
            Failover::Idle { not_before } => self.step_idle(m, not_before, now),
            Failover::Following(following) => self.step_following(m, following, now),
            Failover::Waiting { cause: Cause::Ordered(order), start_at } => self.step_ordered(m, order, start_at, now),
            Failover::Waiting { cause: Cause::Takeover(order), .. } => self.step_takeover(m, order, now),
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
            Phase::Reconfiguring => self.step_reconfiguring(m, lead, now),
        }
    }

    /// What there is to do, if anything.
    fn needed(&mut self, m: usize, now: Instant) -> Option<Cause> {
        if self.amnesia.is_some() {
            return None;
        }
        let master = &self.masters[m];
        // Where the master is has not been found out yet: that is no word on whether it is down.
        if self.shut_out(master) || master.decision.is_some() && !master.is_located() {
            return None;
        }
        if master.decision.is_none() {
            return self.bootstrap_node(master).map(|_| Cause::Bootstrap);
        }
        if master.odown_since.is_none() {
            return self.mode_is_to_change(master).then_some(Cause::Mode);
        }
        if let Some(at) = self.reunited_until(master, now) {
            self.wake_at(at);
            return None;
        }
        let choice = master.choose(self.moment(now));
        let known = std::mem::replace(&mut self.masters[m].no_candidate, choice.as_ref().err().cloned());
        let Err(why) = choice else { return Some(Cause::Down) };
        if known.is_none() {
            self.master_event("-failover-abort-no-good-slave", m, "");
        }
        if known.as_ref() != Some(&why) {
            let text = format!("nobody can become master: {why}");
            self.publish(Event::new("no-candidate", Severity::Error, text));
        }
        self.wake_at(now + RETRY);
        None
    }

    /// How long sentinels that hear each other again after all were cut off wait for their master, if they do. Where there is no
    /// file, redis-sentinel is the model, which does not.
    pub(super) fn reunited_until(&self, master: &Master, now: Instant) -> Option<Instant> {
        master.silence_counts_at().filter(|at| now < *at && self.of_cluster())
    }

    fn step_idle(&mut self, m: usize, not_before: Instant, now: Instant) {
        let Some(cause) = self.needed(m, now) else { return };
        let ready_at = self.store_retry_at.map_or(not_before, |retry_at| retry_at.max(not_before));
        if now < ready_at {
            self.wake_at(ready_at);
            return;
        }
        let master = &self.masters[m];
        if self.other_leads(master) {
            return;
        }
        let rank = self.rank(master);
        let jitter = if rank == 0 { Duration::ZERO } else { self.rng.below(STAGGER_JITTER) };
        self.enter(m, Failover::Waiting { cause, start_at: now + STAGGER * rank + jitter });
    }

    fn step_following(&mut self, m: usize, following: Following, now: Instant) {
        let Following { leader, epoch, since, until, led } = following;
        let peer = self.peers.iter().find(|peer| peer.id == Some(leader));
        let facts = peer.and_then(|peer| peer.says_of(&self.masters[m]));
        let leads = facts.map(|facts| facts.leads.is_some_and(|led| led >= epoch));
        // Whoever has ever spoken over the peer link is known by its frames; another one only by what it decides, and by
        // whether it answers at all.
        let speaks = peer.is_some_and(|peer| peer.spoke || peer.down_since.is_some());
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
        if self.other_leads(&self.masters[m]) || self.needed(m, now) != Some(cause) {
            self.enter(m, Failover::Idle { not_before: now });
        } else if now < start_at {
            self.wake_at(start_at);
        } else {
            self.stand(m, cause, now);
        }
    }

    /// Stands for election: a new epoch, the own vote on disk, and then everybody is asked.
    pub(super) fn stand(&mut self, m: usize, cause: Cause, now: Instant) {
        self.stand_in(m, cause, self.current_epoch.max(self.recorded_epoch(&self.masters[m])) + 1, now);
    }

    /// The epoch that the records beside the data have got to. An operator's takeover whose sentinel has lost its disk is on no
    /// other record, and supervisors that have followed it open nobody by an earlier one.
    fn recorded_epoch(&self, master: &Master) -> Epoch {
        let facts = master.nodes.iter().filter_map(Instance::fresh_facts);
        let epochs = facts.filter_map(|facts| Some(facts.history?.epoch));
        // In reach of others, too, who may be some epochs behind. One further above comes from a disk of another life.
        let limit = self.current_epoch.saturating_add(EPOCH_STEP / 4 * 3);
        epochs.filter(|epoch| *epoch <= limit).max().unwrap_or(0)
    }

    /// The same, in that epoch.
    pub(super) fn stand_in(&mut self, m: usize, cause: Cause, epoch: Epoch, now: Instant) {
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
        let master = &self.masters[m];
        let majority = if self.rules.holds(Rule::Majority) { self.majority(master) } else { 1 };
        let needed = if matches!(cause, Cause::Takeover(_)) { 1 } else { majority.max(master.quorum()) };
        let votes = self.votes_for_me(master, epoch);
        let voters = self.voters(master);
        debug_assert!(votes <= voters || !self.rules.holds(Rule::OwnVoteOnce), "{votes} votes of {voters} voters");
        // Nobody else may hear of the own vote where nobody else is needed: it is one only on disk all the same.
        let stored = master.vote_disk == OnDisk::Yes || !self.rules.holds(Rule::StoreFirst);
        if self.current_epoch > epoch {
            self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
        } else if votes >= needed && stored {
            self.master_event("+elected-leader", m, "");
            self.master_event("+failover-state-select-slave", m, "");
            self.elected(m, lead, now);
        } else if now >= until || stored && votes + self.votes_open(master, epoch) < needed {
            let forced = matches!(cause, Cause::Ordered(Ordered { coordinated: false, .. }));
            if forced && stored && self.membership.obeys_without_majority() {
                return self.elected(m, lead, now);
            }
            // A split vote is known to be one as soon as everybody alive has voted: no use in waiting.
            let reason = format!("not elected: {votes} of {voters} votes");
            self.abort(m, "-failover-abort-not-elected", &reason, now);
        } else {
            self.wake_at(until);
        }
    }

    fn elected(&mut self, m: usize, lead: Lead, now: Instant) {
        debug_assert_eq!(lead.epoch, self.current_epoch, "elected in an epoch that is not the current one");
        if self.simulated.after_election {
            self.fenced.push(Output::Exit(SIMULATED));
        }
        let master = &self.masters[m];
        match lead.cause {
            Cause::Down => self.begin_selecting(m, lead, now),
            Cause::Bootstrap => match self.bootstrap_node(master) {
                Some(target) => self.begin_promoting(m, lead, target, None, now),
                None => self.abort(m, "-failover-abort-no-good-slave", "the first master is gone", now),
            },
            Cause::Mode => self.begin_mode(m, lead, now),
            Cause::Takeover(_) => self.begin_takeover(m, lead, now),
            Cause::Ordered(order) if master.watched().down_since.is_none() => {
                self.begin_pausing(m, lead, order.to, now);
            }
            Cause::Ordered(order) if order.coordinated => {
                self.abort_hold(m, "the master went down meanwhile", now);
            }
            Cause::Ordered(_) => self.begin_selecting(m, lead, now),
        }
    }

    fn begin_selecting(&mut self, m: usize, lead: Lead, now: Instant) {
        let master = &self.masters[m];
        let (limit, nodes) = (if master.proved_down() { DRAIN_MAX } else { REFRESH_MAX }, master.nodes.len());
        self.go_on(m, lead, None, Phase::Selecting { since: now }, now + limit);
        for n in 0..nodes {
            self.ask_info(m, n, now);
        }
    }

    fn step_selecting(&mut self, m: usize, lead: Lead, since: Instant, now: Instant) {
        if self.current_epoch > lead.epoch {
            return self.abort(m, "-failover-abort-not-elected", "another sentinel stands at a higher epoch", now);
        }
        let waiting = self.masters[m].awaited(since);
        for n in &waiting {
            self.reask(m, *n, now);
        }
        if !waiting.is_empty() && now < lead.until {
            self.wake_at(lead.until);
            return;
        }
        match self.masters[m].choose(self.moment(now)) {
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

    /// Asks for INFO at once, unless an answer is already on its way.
    pub(super) fn ask_info(&mut self, m: usize, n: usize, now: Instant) {
        let Self { masters, timers, rules, .. } = self;
        let moment = super::moment::Moment { now, timers, rules: *rules };
        if let Some(link) = masters[m].asks_info(n, moment) {
            self.query(link, Tag::Info, &["INFO"]);
        }
    }

    /// The redis that becomes the first master, if the cluster has never had one and a majority of the sentinels says so.
    pub(super) fn bootstrap_node(&self, master: &Master) -> Option<usize> {
        let agreeing =
            1 + self.peers.iter().filter(|peer| peer.watches(master) && peer.has_no_record_of(master)).count();
        master.first().filter(|_| agreeing >= self.majority(master))
    }
}
