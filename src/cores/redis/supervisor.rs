//! The machine of the supervisor.

use std::time::Duration;

use super::fence::{By, Phase, Status};
use super::gate::{Gate, Ground, Move, News, Order};
use super::{Answer, Ask, Config, Durable, Event, Exit, Info, Input, Named, Output, Token};
use crate::base::lease::{Held, Writes};
use crate::base::node::{Decision, History, Mode, Process, RedisFacts, RedisRole, incarnation, starts};
use crate::base::{Epoch, Instant, Machine, time::earliest};

/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Between two probes while somebody waits for what they find: who is promoted and how far everybody is, in a failover; the
/// end of reading the data from disk, at a start.
const PROBE_AWAITED: Duration = Duration::from_millis(20);
/// Between two tries to reach a process that is starting: it listens some ten milliseconds after its start.
const PROBE_STARTING: Duration = Duration::from_millis(10);
/// Between two tries after the connection broke.
const PROBE_BROKEN: Duration = Duration::from_millis(50);
/// A living process that owes an answer for so long is busy.
const ANSWER_LATE: Duration = Duration::from_millis(300);
/// A process that answers nothing for so long after its start is worth a word to a person.
const START_SLOW: Duration = Duration::from_secs(10);
/// A process that lived for so long started well: what ends it later is a new matter.
const RUN_MIN: Duration = Duration::from_secs(10);
/// The shortest pause between two starts that failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// One that does not know its supervisor any more must be back within 5 s, whatever it has to save.
const SHUT_OUT_MAX: Duration = Duration::from_secs(4);
/// One that is starting is given this time: until then it is likely another process that holds the port.
const STRANGE_MAX: Duration = Duration::from_secs(2);
/// A redis that was asked to end saves its data for at most so long.
const STOP_MAX: Duration = Duration::from_secs(10);
/// A change of the offset alone is posted at most so often. Less than [`PROBE_EVERY`], so that jitter never skips a
/// probe.
const OFFSET_EVERY: Duration = Duration::from_millis(150);
/// A change of the offset alone is stored at most so often: each store costs a write of the disk.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// Supervises one redis. See the [module](super).
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    durable: Durable,
    state: State,
    /// Starts in a row that came to nothing; the last one may have served, for less than [`RUN_MIN`].
    failed_runs: u32,
    decision: Option<Decision>,
    leading: Option<Epoch>,
    /// Whom the leader of the highest epoch wants.
    named: Option<Named>,
    /// The lease that it has, or had last.
    lease: Option<Held>,
    /// The master that the cluster names now, if it is none of its data nodes.
    stranger: Option<Decision>,
    /// How often the secrets have changed.
    secrets: u64,
    /// By what right the master of the decision takes writes; none: no decision was ever known.
    mode: Option<Mode>,
    /// A master that is told of another one in an epoch up to this was promoted later than that: it must not step down.
    floor: Epoch,
    /// Whether the data of this incarnation have been in sync with the decision's master, and still are.
    in_sync: bool,
    /// It rewrites its append-only file. After a full copy, what is on disk until that ends is from before, and so must
    /// the record be.
    rewriting: bool,
    facts: RedisFacts,
    posted: Option<(RedisFacts, Instant)>,
    stored_at: Instant,
    fault: Option<String>,
    asked: Token,
}

#[derive(Debug)]
enum State {
    /// No process; the next start is due.
    Down { until: Instant },
    /// The runtime starts one.
    Spawning { closed: bool, then_stop: bool },
    /// A process lives.
    Up(Up),
    /// It was asked to end; without `kill_at` it was killed, and only the kernel's word is awaited. With `again` it is started
    /// again then, after that run.
    Stopping { kill_at: Option<Instant>, again: Option<Run> },
    /// No process any more, for ever.
    Left,
}

#[derive(Debug)]
struct Up {
    pid: u32,
    since: Instant,
    /// Whether it has been of use: a master, or a replica in sync.
    served: bool,
    probe: Probe,
    /// The order to follow somebody that is not answered yet.
    order: Option<(Token, Decision)>,
    log: Log,
    /// It was started so that it refuses writes: whatever the cluster has become meanwhile, only its fence can open it.
    closed: bool,
    /// Its fence; none: it has none, and takes writes as a master.
    gate: Option<Gate>,
    /// What the cluster was told of its writes.
    writes: Writes,
    /// The epoch of the lease by which this process was opened last.
    opened: Epoch,
    /// A lease of an epoch up to this was given back, whatever the link still says of it.
    given_back: Option<Epoch>,
    /// The secrets that it has.
    secrets: u64,
    /// The order to take others that is not answered yet, and which.
    secrets_order: Option<(Token, u64)>,
    /// Since when it refuses its supervisor, while it is starting.
    strange_since: Option<Instant>,
    /// The last refusal of an order that was published: it is tried again at each probe, and said once.
    refusal: Option<String>,
    /// When to complain that it does not answer at all; none: it did, or that was said.
    slow_at: Option<Instant>,
}

impl Up {
    fn refused(&mut self, reason: String, event: fn(String) -> Event, out: &mut Vec<Output>) {
        if self.refusal.as_ref() != Some(&reason) {
            self.refusal = Some(reason.clone());
            out.push(Output::Publish(event(reason)));
        }
    }
}

/// What became of a start.
#[derive(Clone, Copy, Debug)]
enum Run {
    /// The process lived for [`RUN_MIN`].
    Long,
    /// It had become a master, or a replica in sync: what ended it was not its start, however often that happens.
    Served,
    /// It was never of use.
    Failed,
}

/// Whether a redis that was started from a snapshot logs its writes.
#[derive(Clone, Copy, Debug)]
enum Log {
    /// It must be told to once it has read its data.
    Wanted,
    /// It was told to.
    Ordered(Token),
    /// It does, or never had to be told.
    Settled,
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    /// The next one is due at `at`; `silent_since`: the last answer is owed since.
    Due { at: Instant, silent_since: Option<Instant> },
    /// Asked, when the cluster said `decision`.
    Asked { token: Token, silent_since: Instant, decision: Option<Decision> },
}

impl Probe {
    fn silent_since(self) -> Option<Instant> {
        match self {
            Self::Due { silent_since, .. } => silent_since,
            Self::Asked { silent_since, .. } => Some(silent_since),
        }
    }
}

impl Machine for Supervisor {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.on_tick(now, out),
            Input::RecordFailed(reason) | Input::SpawnFailed(reason) => self.on_spawn_failed(now, reason, out),
            Input::Spawned { pid, log_later, secrets } => self.on_spawned(now, pid, log_later, secrets, out),
            Input::Exited(exit) => self.on_exited(now, exit, out),
            Input::LastWords(words) => self.on_last_words(&words, out),
            Input::Answer { token, answer } => self.on_answer(now, token, answer, out),
            Input::Cluster { decision, leading, named, mode } => {
                self.named = named;
                self.on_cluster(now, decision, leading, mode, out);
            }
            Input::Lease(held) => self.lease = held,
            Input::Fence(status) => self.on_fence(now, status, out),
            Input::Secrets(count) => {
                self.secrets = count;
                self.give_secrets(out);
            }
            Input::Stop => self.on_stop(now, out),
        }
        self.move_gate(now, out);
        self.ask_if_due(now, out);
        self.post(now, out);
        if matches!(self.state, State::Left) && !matches!(out.last(), Some(Output::Left)) {
            out.push(Output::Left);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Down { until } => Some(*until),
            State::Up(up) => {
                let due = match up.probe {
                    Probe::Due { at, .. } => Some(at),
                    Probe::Asked { .. } => None,
                };
                let late = up.probe.silent_since().filter(|_| self.facts.process == Process::Alive);
                let gate = up.gate.and_then(|gate| gate.deadline());
                earliest(gate, earliest(due, earliest(late.map(|since| since + ANSWER_LATE), up.slow_at)))
            }
            State::Stopping { kill_at, .. } => *kill_at,
            State::Spawning { .. } | State::Left => None,
        }
    }
}

impl Supervisor {
    /// A supervisor without a process yet; the first tick starts one. `durable` is what it last recorded.
    pub fn new(config: Config, mut durable: Durable) -> Self {
        durable.incarnation = incarnation(config.life, starts(durable.incarnation));
        let facts = RedisFacts {
            priority: config.priority,
            history: durable.history,
            ..RedisFacts::new(config.address, durable.incarnation)
        };
        Self {
            config,
            durable,
            state: State::Down { until: Instant::START },
            failed_runs: 0,
            decision: None,
            leading: None,
            named: None,
            lease: None,
            stranger: None,
            secrets: 0,
            mode: durable.fenced.map(Mode::asked),
            floor: 0,
            in_sync: false,
            rewriting: false,
            facts,
            posted: None,
            stored_at: Instant::START,
            fault: None,
            asked: 0,
        }
    }

    /// What it says of its redis.
    pub fn facts(&self) -> &RedisFacts {
        &self.facts
    }

    /// The probe that is not answered yet.
    #[cfg(test)]
    pub(super) fn owed(&self) -> Option<Token> {
        match &self.state {
            State::Up(Up { probe: Probe::Asked { token, .. }, .. }) => Some(*token),
            State::Down { .. } | State::Spawning { .. } | State::Up(_) | State::Stopping { .. } | State::Left => None,
        }
    }

    #[cfg(test)]
    pub(super) fn is_spawning(&self) -> bool {
        matches!(self.state, State::Spawning { .. })
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        match &mut self.state {
            State::Down { until } if *until <= now => self.spawn(out),
            State::Up(up) => {
                let late = up.probe.silent_since().is_some_and(|since| since + ANSWER_LATE <= now);
                if late && self.facts.process == Process::Alive {
                    self.facts.process = Process::Busy;
                    out.push(Output::Publish(Event::Busy));
                }
                if up.slow_at.is_some_and(|at| at <= now) {
                    up.slow_at = None;
                    let reason = format!("redis was started {START_SLOW:?} ago and does not answer yet");
                    self.fault(Some(reason), out);
                }
            }
            State::Stopping { kill_at, .. } if kill_at.is_some_and(|at| at <= now) => {
                *kill_at = None;
                out.extend([Output::Publish(Event::Killed), Output::Kill]);
            }
            State::Down { .. } | State::Spawning { .. } | State::Stopping { .. } | State::Left => {}
        }
    }

    /// Whether its redis refuses writes from its start on. One whose cluster is not fenced yet, and is to be, is opened without a
    /// lease.
    fn rests_closed(&self) -> bool {
        self.config.fencing || self.mode == Some(Mode::Fenced)
    }

    /// The number of the incarnation is on disk before the process is: no two ever share one.
    fn spawn(&mut self, out: &mut Vec<Output>) {
        self.durable.incarnation += 1;
        let closed = self.rests_closed();
        out.extend([Output::Record(self.durable), Output::Spawn { closed }]);
        self.state = State::Spawning { closed, then_stop: false };
    }

    fn on_spawn_failed(&mut self, now: Instant, reason: String, out: &mut Vec<Output>) {
        let State::Spawning { then_stop, .. } = self.state else { return };
        // Tried again and again, and said once.
        if self.fault.as_ref() != Some(&reason) {
            out.push(Output::Publish(Event::NotStarted(reason.clone())));
        }
        self.fault(Some(reason), out);
        if then_stop { self.state = State::Left } else { self.pause(now, Run::Failed, out) }
    }

    fn on_spawned(&mut self, now: Instant, pid: u32, log_later: bool, secrets: u64, out: &mut Vec<Output>) {
        let State::Spawning { closed, then_stop } = self.state else { return };
        self.floor = self.decision.map_or(0, |decision| decision.epoch);
        self.in_sync = false;
        self.rewriting = false;
        self.facts = RedisFacts {
            process: Process::Starting,
            priority: self.facts.priority,
            history: self.facts.history,
            ..RedisFacts::new(self.facts.address, self.durable.incarnation)
        };
        out.push(Output::Publish(Event::Started { pid, incarnation: self.facts.incarnation }));
        if then_stop {
            self.terminate(now + STOP_MAX, None, out);
        } else {
            let probe = Probe::Due { at: now, silent_since: None };
            let log = if log_later { Log::Wanted } else { Log::Settled };
            self.state = State::Up(Up {
                pid,
                since: now,
                served: false,
                probe,
                order: None,
                log,
                closed,
                gate: None,
                writes: Writes::Refused,
                opened: 0,
                given_back: None,
                secrets,
                secrets_order: None,
                strange_since: None,
                refusal: None,
                slow_at: Some(now + START_SLOW),
            });
        }
    }

    fn terminate(&mut self, kill_at: Instant, again: Option<Run>, out: &mut Vec<Output>) {
        out.push(Output::Terminate);
        self.state = State::Stopping { kill_at: Some(kill_at), again };
    }

    /// Somebody has changed its users: nothing that its supervisor or a sentinel orders is carried out any more. How it was is
    /// in its configuration. Somebody who does that again and again finds it gone for longer and longer.
    fn start_again(&mut self, now: Instant, reason: String, out: &mut Vec<Output>) {
        let State::Up(up) = &self.state else { return };
        let run = if now.since(up.since) >= RUN_MIN { Run::Long } else { Run::Failed };
        self.fault(Some(format!("redis refuses its own supervisor and is started again: {reason}")), out);
        out.push(Output::Publish(Event::ShutOut(reason)));
        self.terminate(now + SHUT_OUT_MAX, Some(run), out);
    }

    fn on_exited(&mut self, now: Instant, exit: Exit, out: &mut Vec<Output>) {
        let run = match &self.state {
            State::Up(up) if now.since(up.since) >= RUN_MIN => Some(Run::Long),
            State::Up(up) => Some(if up.served { Run::Served } else { Run::Failed }),
            State::Stopping { again, .. } => *again,
            State::Down { .. } | State::Spawning { .. } | State::Left => return,
        };
        // Peers wait for this word and for nothing else: it leaves before anything is decided here.
        self.facts.process = Process::Dead;
        self.facts.role = RedisRole::Unknown;
        self.post(now, out);
        let stopped = matches!(self.state, State::Stopping { .. });
        out.push(Output::Publish(if stopped { Event::Stopped(exit) } else { Event::Died(exit) }));
        let Some(run) = run else {
            self.state = State::Left;
            return;
        };
        if !stopped {
            self.fault(Some(format!("redis {exit}")), out);
        }
        self.pause(now, run, out);
    }

    /// Waits before the next start: not at all after a long run, longer and longer after starts that came to nothing.
    fn pause(&mut self, now: Instant, run: Run, out: &mut Vec<Output>) {
        self.failed_runs = match run {
            Run::Long => 0,
            Run::Served => 1,
            Run::Failed => self.failed_runs.saturating_add(1),
        };
        let pause = match self.failed_runs {
            0 => Duration::ZERO,
            n => PAUSE_MIN.saturating_mul(1 << (n - 1).min(16)).min(PAUSE_MAX),
        };
        self.state = State::Down { until: now + pause };
        if pause.is_zero() {
            self.spawn(out);
        }
    }

    fn on_last_words(&mut self, words: &str, out: &mut Vec<Output>) {
        // They explain a fault that is still there, or nothing: a process that answers meanwhile needs no excuse.
        if let Some(fault) = self.fault.clone().filter(|_| self.facts.process == Process::Dead || self.starting()) {
            self.fault(Some(format!("{fault}: {words}")), out);
        }
    }

    fn starting(&self) -> bool {
        self.facts.process == Process::Starting
    }

    fn on_stop(&mut self, now: Instant, out: &mut Vec<Output>) {
        match &mut self.state {
            State::Down { .. } => self.state = State::Left,
            State::Spawning { then_stop, .. } => *then_stop = true,
            State::Up(_) => self.terminate(now + STOP_MAX, None, out),
            State::Stopping { again, .. } => *again = None,
            State::Left => {}
        }
    }

    fn on_cluster(
        &mut self,
        now: Instant,
        decision: Option<Decision>,
        leading: Option<Epoch>,
        mode: Option<Mode>,
        out: &mut Vec<Output>,
    ) {
        let known = self.decision.map(|known| known.epoch);
        let stranger = decision.filter(|decision| !self.config.nodes.contains(&decision.master));
        if stranger != self.stranger {
            self.stranger = stranger;
            out.extend(stranger.map(|decision| Output::Publish(Event::Stranger(decision))));
            if self.facts.process == Process::Alive {
                self.fault(self.strange(), out);
            }
        }
        let decision = decision.filter(|_| stranger.is_none());
        let news = decision.filter(|decision| known.is_none_or(|known| known < decision.epoch));
        let newest = decision.is_some_and(|decision| known.is_none_or(|known| known <= decision.epoch));
        if newest && mode.is_some() && self.mode != mode {
            self.mode = mode;
            self.durable.fenced = mode.map(|mode| mode == Mode::Fenced);
            out.push(Output::Remember(self.durable));
        }
        // A lower one, or none, comes from a view that lost sight of somebody: a decision is never taken back.
        if let Some(decision) = news {
            if decision.master == self.config.address {
                self.floor = decision.epoch;
            }
            self.decision = Some(decision);
        }
        if news.is_none() && leading == self.leading {
            return;
        }
        self.leading = leading;
        if let State::Up(Up { probe: Probe::Due { at, .. }, .. }) = &mut self.state {
            *at = now.min(*at);
        }
        self.steer(out);
    }

    /// What there is to say of a master that is no data node of the file.
    fn strange(&self) -> Option<String> {
        self.stranger.map(|Decision { master, epoch }| {
            format!(
                "the cluster names {master} master of epoch {epoch}, which is no data node of the file: not followed"
            )
        })
    }

    fn on_answer(&mut self, now: Instant, token: Token, answer: Answer, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        let known = up.order.is_some_and(|(order, _)| order == token)
            || up.secrets_order.is_some_and(|(order, _)| order == token)
            || matches!(up.log, Log::Ordered(order) if order == token)
            || matches!(up.probe, Probe::Asked { token: expected, .. } if expected == token);
        if let Answer::ShutOut(reason) = &answer
            && known
        {
            let since = *up.strange_since.get_or_insert(now);
            // Another process may hold the port; ours finds that out and ends.
            if self.facts.process != Process::Starting || now.since(since) >= STRANGE_MAX {
                self.start_again(now, reason.clone(), out);
                return;
            }
        }
        let State::Up(up) = &mut self.state else { return };
        if let Some((_, given)) = up.secrets_order.filter(|(order, _)| *order == token) {
            up.secrets_order = None;
            match answer {
                Answer::Done => {
                    up.secrets = given;
                    up.refusal = None;
                    out.push(Output::Publish(Event::Secrets));
                    self.give_secrets(out);
                }
                Answer::Refused(reason) => up.refused(reason, Event::NotSecrets, out),
                // The next look at it brings it up again.
                Answer::Busy | Answer::Unreachable(_) | Answer::Info(_) | Answer::ShutOut(_) => {}
            }
            return;
        }
        if let Some((_, decision)) = up.order.filter(|(order, _)| *order == token) {
            up.order = None;
            match answer {
                Answer::Done => {
                    up.refusal = None;
                    out.push(Output::Publish(Event::Follows(decision)));
                    self.probe_soon(now);
                }
                Answer::Refused(reason) => up.refused(reason, Event::NotFollowed, out),
                // The next look at its role brings it up again.
                Answer::Busy | Answer::Unreachable(_) | Answer::Info(_) | Answer::ShutOut(_) => {}
            }
            return;
        }
        if matches!(up.log, Log::Ordered(order) if order == token) {
            (up.log, _) = match answer {
                Answer::Done => (Log::Settled, out.push(Output::Publish(Event::Logs))),
                Answer::Refused(reason) => (Log::Wanted, up.refused(reason, Event::NotLogged, out)),
                Answer::Busy | Answer::Unreachable(_) | Answer::Info(_) | Answer::ShutOut(_) => (Log::Wanted, ()),
            };
            return;
        }
        let Probe::Asked { token: expected, silent_since, decision } = up.probe else { return };
        if token != expected {
            return;
        }
        let starting = self.facts.process == Process::Starting;
        let pid = up.pid;
        let failed = match answer {
            // Somebody else's redis holds the port; ours finds that out and ends.
            Answer::Info(info) if info.identity.is_some_and(|(_, found)| found != pid) => Some(PROBE_STARTING),
            Answer::Info(info) => {
                self.on_info(now, &info, decision, out);
                None
            }
            Answer::Busy => {
                self.alive(Process::Busy, out);
                None
            }
            Answer::Refused(reason) => {
                self.alive(Process::Alive, out);
                self.fault(Some(format!("redis refuses its own supervisor: {reason}")), out);
                None
            }
            Answer::Unreachable(_) | Answer::ShutOut(_) | Answer::Done => {
                Some(if starting { PROBE_STARTING } else { PROBE_BROKEN })
            }
        };
        let State::Up(up) = &mut self.state else { return };
        up.probe = match failed {
            Some(pause) => Probe::Due { at: now + pause, silent_since: Some(silent_since) },
            // What was answered is older than the last news of the cluster.
            None if decision != self.decision => Probe::Due { at: now, silent_since: None },
            None if self.leading.is_some() || self.facts.process == Process::Loading => {
                Probe::Due { at: now + PROBE_AWAITED, silent_since: None }
            }
            None => Probe::Due { at: now + PROBE_EVERY, silent_since: None },
        };
    }

    /// Tells the fence what is wanted of it now.
    fn move_gate(&mut self, now: Instant, out: &mut Vec<Output>) {
        let rests_closed = self.rests_closed();
        let (own, incarnation) = (self.config.address, self.facts.incarnation);
        let (named, decision) = (self.named, self.decision);
        let replaced = |epoch: Epoch| {
            named.is_some_and(|named| named.epoch > epoch && named.incarnation != incarnation)
                || decision.is_some_and(|decision| decision.epoch > epoch && decision.master != own)
        };
        let unfenced = |decision: &Decision| match self.mode {
            Some(Mode::Unfenced) => true,
            // Of whoever was given the writes nobody else takes them: who did before may not have heard of it.
            Some(Mode::TakenOver) => decision.master == own,
            Some(Mode::Fenced) | None => false,
        };
        let State::Up(up) = &mut self.state else { return };
        if (rests_closed || up.closed) && up.gate.is_none() {
            up.gate = Some(Gate::START);
            out.push(Output::Enclose { incarnation });
        }
        let Some(gate) = &mut up.gate else { return };
        let ours = |held: &Held| held.incarnation == incarnation && Some(held.epoch) > up.given_back;
        let here = |named: &Named| named.incarnation == incarnation && Some(named.epoch) > up.given_back;
        let ground = Ground {
            lease: self.lease.filter(ours),
            named: named.filter(here).map(|named| named.epoch),
            unfenced: decision.filter(unfenced).map(|decision| decision.epoch),
            ready: matches!(self.facts.process, Process::Alive | Process::Busy),
            replaced,
        };
        while let Some(next) = gate.next(now, &ground) {
            match next {
                Move::GoOn(epoch) => {
                    if gate.is_by_unknown_lease() {
                        out.push(Output::Publish(Event::Opened(epoch)));
                    }
                    gate.go_on(epoch);
                    up.opened = up.opened.max(epoch);
                }
                Move::Tell(order) => {
                    self.asked += 1;
                    gate.told(self.asked, order);
                    out.push(match order {
                        Order::Open(epoch) => Output::Open { order: self.asked, by: By::Lease, epoch },
                        Order::Unbind(epoch) => Output::Open { order: self.asked, by: By::Decision, epoch },
                        Order::Close { .. } => Output::Close { order: self.asked },
                    });
                }
            }
        }
    }

    /// The fence says where it stands.
    fn on_fence(&mut self, now: Instant, status: Status, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        let ours = status.incarnation == Some(self.facts.incarnation);
        // A copy, which is put back below.
        let Some(mut gate) = up.gate.filter(|_| ours) else { return };
        for news in gate.says(now, status) {
            match news {
                News::Opened(epoch) => {
                    // It was promoted by its own node in that epoch: a decision before it is not about this.
                    up.opened = up.opened.max(epoch);
                    up.refusal = None;
                    out.push(Output::Publish(Event::Opened(epoch)));
                }
                // The fence may have heard of it first. One of before the decision is not the one.
                News::Bound => {
                    let decided = self.decision.map_or(0, |decision| decision.epoch);
                    if let Some(held) = self.lease.filter(|held| held.epoch > decided) {
                        gate.go_on(held.epoch);
                        up.opened = up.opened.max(held.epoch);
                        out.push(Output::Publish(Event::Opened(held.epoch)));
                    }
                }
                News::Unbound => up.refusal = None,
                News::NotOpened(None) => {}
                News::NotOpened(Some(refusal)) => up.refused(refusal.to_string(), Event::NotOpened, out),
                News::Returned => {
                    up.given_back = up.given_back.max(self.lease.map(|held| held.epoch));
                    // It is closed since earlier than that, and is not opened before the next order.
                    up.writes = Writes::Returned { at: now };
                    out.push(Output::Writes(up.writes));
                }
                News::Closed(why) => out.push(Output::Publish(Event::Closed(why))),
                News::Killed => out.push(Output::Publish(Event::Unconfirmed)),
            }
        }
        up.gate = Some(gate);
        let writes = match (status.phase, status.by) {
            (Phase::Open, By::Lease) => Writes::Taken,
            (Phase::Open, By::Decision) => Writes::Unleased,
            // What is given back stays so until it is opened again.
            (Phase::Closed, _) if matches!(up.writes, Writes::Returned { .. }) => up.writes,
            (Phase::Closed, _) => Writes::Refused,
            // It may still take them, and is on its way.
            (Phase::Opening | Phase::Closing | Phase::Killed, _) => up.writes,
        };
        if writes != up.writes {
            up.writes = writes;
            out.push(Output::Writes(writes));
        }
        if gate.is_settled() {
            self.probe_soon(now);
            self.steer(out);
        } else if status.phase == Phase::Open {
            self.probe_soon(now);
        }
    }

    fn probe_soon(&mut self, now: Instant) {
        if let State::Up(Up { probe: Probe::Due { at, .. }, .. }) = &mut self.state {
            *at = now;
        }
    }

    /// The process answered, and is `process`.
    fn alive(&mut self, process: Process, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        up.slow_at = None;
        if self.facts.process == process {
            return;
        }
        self.facts.process = process;
        match process {
            Process::Loading => out.push(Output::Publish(Event::Loading)),
            Process::Alive => out.push(Output::Publish(Event::Answers)),
            Process::Busy => out.push(Output::Publish(Event::Busy)),
            Process::Starting | Process::Dead => {}
        }
    }

    /// `decision` is what the cluster had decided when this was asked.
    fn on_info(&mut self, now: Instant, info: &Info, decision: Option<Decision>, out: &mut Vec<Output>) {
        self.alive(if info.loading { Process::Loading } else { Process::Alive }, out);
        self.fault(self.strange(), out);
        let serves = matches!(info.role, RedisRole::Master { .. } | RedisRole::Replica { link_up: true, .. });
        if let State::Up(up) = &mut self.state {
            up.served |= serves;
            up.strange_since = None;
        }
        match info.role {
            RedisRole::Master { .. } => {}
            // A promotion that is seen later was ordered in a later epoch than what was decided by then.
            RedisRole::Unknown | RedisRole::Closed | RedisRole::Replica { .. } => {
                self.floor = self.floor.max(decision.map_or(0, |decision| decision.epoch));
            }
        }
        if info.role != self.facts.role {
            out.push(Output::Publish(Event::Role { from: self.facts.role, to: info.role }));
        }
        self.facts.role = info.role;
        self.facts.run_id = info.identity.map(|(run_id, _)| run_id).or(self.facts.run_id);
        self.facts.replication_id = info.replication_id;
        self.facts.offset = info.offset;
        self.facts.has_data = info.has_data;
        self.rewriting = info.rewriting;
        self.remember(now, out);
        self.log_writes(out);
        self.give_secrets(out);
        self.steer(out);
    }

    /// Tells a redis that was started with other secrets which ones are valid now; again and again, until it has them.
    fn give_secrets(&mut self, out: &mut Vec<Output>) {
        let answers = match self.facts.process {
            Process::Alive | Process::Busy | Process::Loading => true,
            Process::Starting | Process::Dead => false,
        };
        if let State::Up(up) = &mut self.state
            && answers
            && up.secrets != self.secrets
            && up.secrets_order.is_none()
        {
            self.asked += 1;
            up.secrets_order = Some((self.asked, self.secrets));
            out.push(Output::Ask { token: self.asked, ask: Ask::Secrets });
        }
    }

    /// Before it follows anybody, so that what it read from disk is never only in memory.
    fn log_writes(&mut self, out: &mut Vec<Output>) {
        if let State::Up(up) = &mut self.state
            && matches!(up.log, Log::Wanted)
            && self.facts.process == Process::Alive
        {
            self.asked += 1;
            up.log = Log::Ordered(self.asked);
            out.push(Output::Ask { token: self.asked, ask: Ask::LogWrites });
        }
    }

    /// Orders redis to follow the decision's master if it does anything else.
    fn steer(&mut self, out: &mut Vec<Output>) {
        let (State::Up(up), Some(decision)) = (&mut self.state, self.decision) else { return };
        let answers = match self.facts.process {
            Process::Alive | Process::Busy => true,
            // It would refuse; the end of the loading is seen by a probe.
            Process::Starting | Process::Loading | Process::Dead => false,
        };
        // Whoever leads a later failover points the replicas, and may just have promoted this one.
        let being_failed_over = self.leading.is_some_and(|leading| leading > decision.epoch);
        let ordered = up.order.is_some_and(|(_, ordered)| ordered.master == decision.master);
        // Whoever takes writes by a lease refuses them first, so that what it was promised is given back.
        let open = up.gate.is_some_and(|gate| !gate.is_settled());
        // In a fenced cluster whoever was not opened was made a master by somebody who has nothing to say.
        let floor = if self.mode == Some(Mode::Fenced) { up.opened } else { self.floor };
        if decision.master == self.config.address || !answers || being_failed_over || ordered || open {
            return;
        }
        let demote = match self.facts.role {
            RedisRole::Unknown => return,
            RedisRole::Closed => false,
            RedisRole::Replica { of, .. } if of == decision.master => return,
            RedisRole::Replica { .. } => false,
            RedisRole::Master { .. } if decision.epoch <= floor => return,
            RedisRole::Master { .. } => true,
        };
        self.asked += 1;
        up.order = Some((self.asked, decision));
        out.push(Output::Ask { token: self.asked, ask: Ask::Follow { master: decision.master, demote } });
    }

    fn ask_if_due(&mut self, now: Instant, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        let Probe::Due { at, silent_since } = up.probe else { return };
        if at > now {
            return;
        }
        self.asked += 1;
        up.probe =
            Probe::Asked { token: self.asked, silent_since: silent_since.unwrap_or(now), decision: self.decision };
        let identity = self.facts.run_id.is_none();
        out.push(Output::Ask { token: self.asked, ask: Ask::Probe { identity } });
    }

    /// Keeps the record of where the data came from. A closed redis has learned nothing new: its record stays as it is.
    fn remember(&mut self, now: Instant, out: &mut Vec<Output>) {
        let synced_with = match self.facts.role {
            RedisRole::Master { .. } => Some(self.config.address),
            RedisRole::Replica { of, link_up: true } => Some(of),
            RedisRole::Unknown | RedisRole::Closed | RedisRole::Replica { link_up: false, .. } => None,
        };
        let decision = self.decision.filter(|decision| Some(decision.master) == synced_with);
        let history = match (decision, self.durable.history) {
            (Some(decision), _) if !self.facts_are_partial() && !self.rewriting => {
                self.in_sync = true;
                Some(History { epoch: decision.epoch, in_sync: true, offset: self.facts.offset })
            }
            // What it had when it fell behind still is on disk; what came after is unknown.
            (None, Some(history)) if self.in_sync && synced_with.is_none() => {
                self.in_sync = false;
                Some(History { in_sync: false, ..history })
            }
            (_, history) => history,
        };
        if history == self.durable.history {
            return;
        }
        let without_offset = |history: Option<History>| history.map(|history| (history.epoch, history.in_sync));
        let only_offset = without_offset(history) == without_offset(self.durable.history);
        if only_offset && now.since(self.stored_at) < STORE_EVERY {
            return;
        }
        self.durable.history = history;
        self.facts.history = history;
        self.stored_at = now;
        out.push(Output::Remember(self.durable));
    }

    fn facts_are_partial(&self) -> bool {
        self.facts.process == Process::Loading
    }

    fn post(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let Some((posted, at)) = &self.posted {
            let mut same = posted.clone();
            same.offset = self.facts.offset;
            same.history = self.facts.history;
            let too_soon = now.since(*at) < OFFSET_EVERY && self.leading.is_none();
            if *posted == self.facts || same == self.facts && too_soon {
                return;
            }
        }
        self.posted = Some((self.facts.clone(), now));
        out.push(Output::Post(self.facts.clone()));
    }

    fn fault(&mut self, fault: Option<String>, out: &mut Vec<Output>) {
        if self.fault != fault {
            self.fault.clone_from(&fault);
            out.push(Output::Fault(fault));
        }
    }
}
