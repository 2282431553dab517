//! The fence of one redis: whether it takes writes, and until when.
//!
//! ```text
//!              open                  done
//!  ┌────────┐ ───────▶ ┌─────────┐ ───────▶ ┌──────┐
//!  │ Closed │          │ Opening │          │ Open │ ◀─┐ refused, while the lease lasts
//!  └────────┘          └─────────┘          └──────┘   │
//!    ▲    ▲                 │ close, the lease │ runs  │
//!    │    │ +OK             ▼      out         ▼       │
//!    │    └──────────────── ┌─────────────────────────┐│
//!    │ it has ended         │         Closing         │┘
//!  ┌────────┐               └─────────────────────────┘
//!  │ Killed │ ◀─────────────── refused after that, or silent
//!  └────────┘
//! ```
//! Redis rests closed: every start of it refuses writes. To open it, and to close it again, takes one command each over one
//! connection, so that redis carries them out in their order: a close that follows an open at once comes after it. Of a
//! connection that has ended, redis carries out nothing any more, since it is redis that ends one: what it has not read by then it
//! never reads. So a close over the next connection comes after all that was sent over the last one.
//!
//! **What is due is not asked for.** Without a renewal the close leaves at [`Term::fence_at`]; whatever redis has not confirmed by
//! [`Term::kill_at`] counts as open, and redis is killed. A close that is asked for while the lease lasts may be refused (a script
//! is busy): then redis stays as open as its lease lets it be.
//!
//! **A fence that cannot close is not opened.** Over every new connection to a closed redis the closing command goes first, and
//! again from time to time. It changes nothing, and shows that it would work.
//!
//! **A cluster that is not fenced needs no lease.** Its redis is opened by the decision ([`By`]), without an end; from the first
//! lease that is heard of, the end of that counts, without having been closed.
//!
//! None of this allocates once its list of outputs has room for [`OUTPUTS_MAX`].

use std::time::Duration;

use crate::base::lease::Held;
use crate::base::time::earliest;
use crate::base::{Epoch, Instant, Machine};

/// So many replicas in sync a closed redis wants before it takes a write.
pub const OUT_OF_REACH: u32 = 1_000_000;
/// Seconds, where an operator has set none: redis's own default. Zero would switch the whole check off.
pub const MAX_LAG: u32 = 10;
/// One input brings about no more outputs.
pub const OUTPUTS_MAX: usize = 8;

/// Between two tries to connect, while nothing hangs on it.
const RETRY: Duration = Duration::from_millis(100);
/// The same, of a redis that is to be closed.
const RETRY_CLOSING: Duration = Duration::from_millis(5);
/// Redis ends connections that are quiet, if an operator has told it to.
const PING_EVERY: Duration = Duration::from_secs(10);
/// What was open without a limit is given so long to confirm that it is closed.
const UNBOUND_MAX: Duration = Duration::from_secs(1);
/// A closed redis has refused to be closed.
const PROVE_AGAIN: Duration = Duration::from_secs(1);

/// How many replicas must be in sync for an open redis to take a write, as its operator wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    min_replicas: u32,
    max_lag: u32,
}

impl Setting {
    /// `min-replicas-to-write` and `min-replicas-max-lag` (seconds). Either is zero: no replica is needed.
    pub const fn new(min_replicas: u32, max_lag: u32) -> Self {
        // A lag of zero would keep the fence from closing.
        if max_lag == 0 { Self { min_replicas: 0, max_lag: MAX_LAG } } else { Self { min_replicas, max_lag } }
    }

    /// So many.
    pub const fn min_replicas(self) -> u32 {
        self.min_replicas
    }

    /// One that acknowledged within so many seconds counts; at least 1.
    pub const fn max_lag(self) -> u32 {
        self.max_lag
    }
}

impl Default for Setting {
    /// Redis's own.
    fn default() -> Self {
        Self::new(0, MAX_LAG)
    }
}

/// By what right redis takes writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// It holds a lease, and takes them until that ends.
    #[default]
    Lease,
    /// Its cluster is not fenced: whoever makes it a master may write to it.
    Decision,
}

/// How long a process of redis may take writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Which process: see [`crate::base::node::incarnation`].
    pub incarnation: u64,
    /// The epoch of the lease.
    pub epoch: Epoch,
    /// When the close leaves.
    pub fence_at: Instant,
    /// When it must have been confirmed.
    pub kill_at: Instant,
    /// When nothing may be acknowledged any more.
    pub ends_at: Instant,
}

impl From<Held> for Term {
    fn from(Held { incarnation, epoch, lease }: Held) -> Self {
        let (fence_at, kill_at, ends_at) = (lease.fence_at(), lease.kill_at(), lease.ends_at());
        Self { incarnation, epoch, fence_at, kill_at, ends_at }
    }
}

impl Term {
    /// When the guard kills a redis that is still open: after the worker would have done so, and before it is too late.
    pub fn guard_at(self) -> Instant {
        self.kill_at + self.ends_at.since(self.kill_at) / 2
    }
}

/// What the guard is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    /// Redis refuses writes, or has ended, or nothing limits for how long it takes them.
    Closed,
    /// It may take writes until then.
    Open(Term),
}

/// What is sent to redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// To take writes, in one transaction.
    Open {
        /// By a lease it becomes a master first, if it is none: whatever it was told meanwhile.
        by: By,
        /// What its operator wants.
        setting: Setting,
    },
    /// To refuse writes.
    Close,
    /// Nothing.
    Ping,
}

/// What became of a [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It was refused, and nothing of it was carried out.
    Nothing,
    /// It was refused, and some of it may have been carried out.
    Unknown,
}

/// What the fence is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Only time has passed. What is due happens at this input and at no other: feed what waits before it.
    Tick,
    /// A new process runs, started closed; the one before has ended.
    Process(u64),
    /// The process has ended, by the kernel's word.
    Ended,
    /// The connection is made, and redis knows who is there.
    Connected,
    /// The connection was refused, or has ended.
    Broken,
    /// The last command was not sent, not one byte of it, and the connection is of no more use.
    Unsent,
    /// How long the lease lasts now. None: there is none any more, whatever was said before.
    Lease(Option<Term>),
    /// To take writes; of one that does so already, to go on by that right. By a lease that it does not have yet it takes them from
    /// the moment on at which it has it, unless it is told something else before.
    Open {
        /// Comes back with the answer. Every order has a higher number than the one before.
        order: u64,
        /// By what right.
        by: By,
        /// The epoch of that.
        epoch: Epoch,
        /// What its operator wants.
        setting: Setting,
    },
    /// To refuse writes.
    Close {
        /// Comes back with the answer.
        order: u64,
    },
    /// What redis says to a command.
    Reply {
        /// The number of the command.
        number: u32,
        /// What became of it.
        outcome: Outcome,
    },
}

/// What the fence wants done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to redis and log in.
    Connect,
    /// End the connection; no reply that came by it is told any more.
    Disconnect,
    /// Send this.
    Send {
        /// Comes back with the reply.
        number: u32,
        /// What.
        command: Command,
    },
    /// Let the guard know, before what follows.
    Doors(Doors),
    /// Kill redis and what it has started.
    Kill,
}

/// Where the fence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Redis refuses writes, or there is none.
    Closed,
    /// It was told to take writes.
    Opening,
    /// It takes writes.
    Open,
    /// It is to be told, or was told, to refuse them.
    Closing,
    /// It was killed, and has not ended yet.
    Killed,
}

/// Why redis was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It refused to be closed: a script is busy, or somebody has changed its users.
    Refused,
    /// It has not confirmed in time that it is closed.
    Silent,
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("no redis runs")]
    NoProcess,
    /// No connection, or redis has not shown yet that it can be closed.
    #[error("redis has not shown yet that it could be closed again")]
    NotReady,
    /// It is not closed.
    #[error("redis is not closed")]
    NotClosed,
    /// It was closed again before it was open.
    #[error("redis was told to refuse writes again before it had confirmed that it takes them")]
    Overtaken,
    /// Redis refused, and has changed nothing.
    #[error("redis refuses, and is as it was")]
    Refused,
    /// Redis refused a part of it: it is closed again.
    #[error("redis refuses a part of it, and is closed again")]
    InPart,
    /// The connection ended meanwhile: redis is closed again.
    #[error("the connection to redis ended before the answer, and it is closed again")]
    Broken,
    /// It has ended, or was killed.
    #[error("redis has ended")]
    Ended,
}

/// What an order has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Redis takes writes.
    Opened,
    /// Redis refuses writes, or has ended.
    Closed,
    /// It was not carried out.
    Refused(Refusal),
}

/// What others may know of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process that lives.
    pub incarnation: Option<u64>,
    /// Where it stands.
    pub phase: Phase,
    /// Since when. Of [`Phase::Closed`]: redis had confirmed by then that it refuses writes, or was started, or had ended.
    pub since: Instant,
    /// By what right it takes writes, if it does.
    pub by: By,
    /// Whether it can be opened, if there is a lease.
    pub ready: bool,
    /// When and why a redis was killed last.
    pub killed: Option<(Instant, Cause)>,
    /// The last order that was answered, and how; 0: none yet.
    pub answered: (u64, Answer),
}

impl Default for Status {
    fn default() -> Self {
        let (phase, since) = (Phase::Closed, Instant::START);
        let answered = (0, Answer::Closed);
        Self { incarnation: None, phase, since, by: By::default(), ready: false, killed: None, answered }
    }
}

/// An order to open a closed redis by a lease that it does not have yet.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    order: u64,
    /// Not by one of an earlier epoch.
    epoch: Epoch,
    setting: Setting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// The open was sent as `number`.
    Opening {
        order: u64,
        number: u32,
    },
    Open,
    /// The close was sent as `sent`, or waits for a connection.
    Closing {
        order: Option<u64>,
        sent: Option<u32>,
    },
    Killed {
        order: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Nobody to connect to.
    Off,
    Down {
        retry_at: Instant,
    },
    Connecting,
    Up {
        ping_at: Instant,
        /// The close that was sent to a closed redis.
        proof: Option<u32>,
        /// It was carried out.
        proved: bool,
    },
}

/// The fence of the redis of this node, one process after the other.
#[derive(Debug)]
pub struct Fence {
    state: State,
    link: Link,
    /// The last that was had.
    term: Option<Term>,
    /// It still stands, as far as is known.
    held: bool,
    /// What opens it, while it is closed.
    awaited: Option<Awaited>,
    /// By what right redis takes writes, if it does.
    by: By,
    /// The epoch of the last decision by which it needed no lease: one of an earlier epoch does not count any more.
    unbound: Epoch,
    /// Of the last command that was sent.
    number: u32,
    status: Status,
}

impl Default for Fence {
    /// Of no process yet.
    fn default() -> Self {
        let (state, link) = (State::Closed, Link::Off);
        Self {
            state,
            link,
            term: None,
            held: false,
            awaited: None,
            by: By::default(),
            unbound: 0,
            number: 0,
            status: Status::default(),
        }
    }
}

impl Fence {
    /// Where it stands.
    pub fn status(&self) -> Status {
        Status { ready: self.is_ready(), by: self.by, ..self.status }
    }

    /// Whether redis is closed, and has shown that it can be closed again.
    fn is_ready(&self) -> bool {
        self.state == State::Closed && matches!(self.link, Link::Up { proved: true, .. })
    }

    /// The lease that it has, while redis may take writes by it.
    fn lasting(&self, now: Instant) -> Option<Term> {
        self.term.filter(|term| self.held && now < term.fence_at)
    }

    fn enter(&mut self, now: Instant, state: State) {
        let phase = match state {
            State::Closed => Phase::Closed,
            State::Opening { .. } => Phase::Opening,
            State::Open => Phase::Open,
            State::Closing { .. } => Phase::Closing,
            State::Killed { .. } => Phase::Killed,
        };
        self.state = state;
        (self.status.phase, self.status.since) = (phase, now);
    }

    fn answer(&mut self, order: u64, answer: Answer) {
        self.status.answered = (order, answer);
    }

    fn refuse(&mut self, order: u64, refusal: Refusal) {
        self.answer(order, Answer::Refused(refusal));
    }

    fn send(&mut self, command: Command, out: &mut Vec<Output>) -> u32 {
        self.number = self.number.wrapping_add(1);
        out.push(Output::Send { number: self.number, command });
        self.number
    }

    /// Whether redis may take writes now.
    fn may_be_open(&self, now: Instant) -> bool {
        match self.by {
            By::Lease => self.lasting(now).is_some(),
            By::Decision => true,
        }
    }

    /// Of a process that may be open: when it is to be closed, and when it is killed; none: at no time. Both have passed without a
    /// term.
    fn times(&self) -> Option<(Instant, Instant)> {
        let (fence_at, kill_at) =
            self.term.map_or((Instant::START, Instant::START), |term| (term.fence_at, term.kill_at));
        (self.by == By::Lease).then_some((if self.held { fence_at } else { Instant::START }, kill_at))
    }

    /// What the guard is to know of a redis that may be open.
    fn doors(&self) -> Doors {
        self.term.filter(|_| self.by == By::Lease).map_or(Doors::Closed, Doors::Open)
    }

    /// Nothing has limited for how long it takes writes: it is given a while to confirm that it does not any more.
    fn bind(&mut self, now: Instant) {
        if let (By::Decision, Some(incarnation)) = (self.by, self.status.incarnation) {
            let by_then = now + UNBOUND_MAX;
            let epoch = self.unbound;
            let term = Term { incarnation, epoch, fence_at: now, kill_at: by_then, ends_at: by_then };
            (self.term, self.held, self.by) = (Some(term), false, By::Lease);
        }
    }

    fn process(&mut self, now: Instant, incarnation: u64, out: &mut Vec<Output>) {
        if self.status.incarnation.is_some() {
            // Whoever says that a new one runs knows that the old one has ended. In case that is wrong:
            if self.state != State::Closed {
                out.push(Output::Kill);
            }
            self.ended(now, out);
        }
        self.status.incarnation = Some(incarnation);
        self.link = Link::Down { retry_at: now };
        (self.term, self.held, self.by, self.unbound) = (None, false, By::Lease, 0);
        self.enter(now, State::Closed);
    }

    fn ended(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.disconnect(out);
        self.status.incarnation = None;
        if let Some(awaited) = self.awaited.take() {
            self.refuse(awaited.order, Refusal::Ended);
        }
        match self.state {
            State::Closed => return,
            State::Opening { order, .. } => self.refuse(order, Refusal::Ended),
            State::Closing { order: Some(order), .. } | State::Killed { order: Some(order) } => {
                self.answer(order, Answer::Closed);
            }
            State::Open | State::Closing { order: None, .. } | State::Killed { order: None } => {}
        }
        out.push(Output::Doors(Doors::Closed));
        self.enter(now, State::Closed);
    }

    fn disconnect(&mut self, out: &mut Vec<Output>) {
        match self.link {
            Link::Off | Link::Down { .. } => {}
            Link::Connecting | Link::Up { .. } => out.push(Output::Disconnect),
        }
        self.link = Link::Off;
    }

    fn connected(&mut self, now: Instant, out: &mut Vec<Output>) {
        let proof = match self.state {
            State::Closed => Some(self.send(Command::Close, out)),
            State::Closing { order, sent: None } => {
                // The first one over this connection; that it works needs no other proof.
                let sent = Some(self.send(Command::Close, out));
                self.state = State::Closing { order, sent };
                None
            }
            State::Closing { sent: Some(_), .. } | State::Opening { .. } | State::Open | State::Killed { .. } => None,
        };
        self.link = Link::Up { ping_at: now + PING_EVERY, proof, proved: false };
    }

    fn broken(&mut self, now: Instant) {
        let retry = match self.state {
            State::Opening { .. } | State::Closing { .. } => RETRY_CLOSING,
            State::Closed | State::Open | State::Killed { .. } => RETRY,
        };
        self.link = match self.link {
            Link::Off => Link::Off,
            // It may have been the connection and not redis.
            Link::Up { .. } => Link::Down { retry_at: now },
            Link::Down { .. } | Link::Connecting => Link::Down { retry_at: now + retry },
        };
        match self.state {
            State::Opening { order, .. } => {
                self.refuse(order, Refusal::Broken);
                self.bind(now);
                self.enter(now, State::Closing { order: None, sent: None });
            }
            State::Closing { order, sent: Some(_) } => self.state = State::Closing { order, sent: None },
            State::Closed | State::Open | State::Closing { sent: None, .. } | State::Killed { .. } => {}
        }
    }

    fn unsent(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let State::Opening { order, number } = self.state
            && number == self.number
        {
            self.refuse(order, Refusal::NotReady);
            out.push(Output::Doors(Doors::Closed));
            self.enter(now, State::Closed);
        }
        self.broken(now);
    }

    fn lease(&mut self, now: Instant, term: Option<Term>, out: &mut Vec<Output>) {
        let Some(term) = term.filter(|term| Some(term.incarnation) == self.status.incarnation) else {
            self.held = false;
            return;
        };
        if self.by == By::Decision && term.epoch <= self.unbound {
            return;
        }
        // From the first later one on, its end counts.
        (self.term, self.held, self.by) = (Some(term), true, By::Lease);
        match self.state {
            State::Opening { .. } | State::Open | State::Closing { .. } => out.push(Output::Doors(Doors::Open(term))),
            State::Closed => self.open_by_lease(now, out),
            State::Killed { .. } => {}
        }
    }

    fn open(&mut self, now: Instant, order: u64, (by, epoch): (By, Epoch), setting: Setting, out: &mut Vec<Output>) {
        self.awaited = None;
        let refusal = match (self.state, self.link, by) {
            (_, Link::Off, _) if self.status.incarnation.is_none() => Refusal::NoProcess,
            (State::Open, _, By::Decision) => {
                (self.by, self.unbound) = (By::Decision, epoch);
                out.push(Output::Doors(Doors::Closed));
                return self.answer(order, Answer::Opened);
            }
            (State::Opening { .. } | State::Open | State::Closing { .. } | State::Killed { .. }, _, _) => {
                Refusal::NotClosed
            }
            (State::Closed, Link::Up { proved: true, .. }, By::Decision) => {
                (self.by, self.unbound) = (By::Decision, epoch);
                return self.begin_to_open(now, order, setting, out);
            }
            (State::Closed, Link::Up { proved: true, .. }, By::Lease) => {
                self.awaited = Some(Awaited { order, epoch, setting });
                return self.open_by_lease(now, out);
            }
            (State::Closed, Link::Off | Link::Down { .. } | Link::Connecting | Link::Up { .. }, _) => Refusal::NotReady,
        };
        self.refuse(order, refusal);
    }

    /// Opens a closed redis that is to be opened by a lease, if it has it, and has shown that it can be closed again.
    fn open_by_lease(&mut self, now: Instant, out: &mut Vec<Output>) {
        let lasting = self.lasting(now).filter(|_| self.is_ready());
        let leased = |awaited: &mut Awaited| lasting.is_some_and(|term| term.epoch >= awaited.epoch);
        if let Some(Awaited { order, setting, .. }) = self.awaited.take_if(leased) {
            self.by = By::Lease;
            self.begin_to_open(now, order, setting, out);
        }
    }

    fn begin_to_open(&mut self, now: Instant, order: u64, setting: Setting, out: &mut Vec<Output>) {
        // Before it leaves: the guard must know of whatever might become open.
        out.push(Output::Doors(self.doors()));
        let number = self.send(Command::Open { by: self.by, setting }, out);
        self.enter(now, State::Opening { order, number });
    }

    fn close(&mut self, now: Instant, order: u64, out: &mut Vec<Output>) {
        self.awaited = None;
        match self.state {
            State::Closed => self.answer(order, Answer::Closed),
            State::Opening { .. } | State::Open => self.begin_to_close(now, Some(order), Refusal::Overtaken, out),
            State::Closing { sent, .. } => self.state = State::Closing { order: Some(order), sent },
            State::Killed { .. } => self.state = State::Killed { order: Some(order) },
        }
    }

    /// Closes what is open, or may be. An open that has not been answered is told `refusal`.
    fn begin_to_close(&mut self, now: Instant, order: Option<u64>, refusal: Refusal, out: &mut Vec<Output>) {
        self.bind(now);
        if let State::Opening { order, .. } = self.state {
            self.refuse(order, refusal);
        }
        let sent = match self.link {
            Link::Up { .. } => Some(self.send(Command::Close, out)),
            Link::Down { .. } => {
                self.link = Link::Down { retry_at: now };
                None
            }
            Link::Off | Link::Connecting => None,
        };
        self.enter(now, State::Closing { order, sent });
    }

    fn kill(&mut self, now: Instant, order: Option<u64>, cause: Cause, out: &mut Vec<Output>) {
        out.push(Output::Kill);
        self.disconnect(out);
        self.status.killed = Some((now, cause));
        self.enter(now, State::Killed { order });
    }

    fn reply(&mut self, now: Instant, number: u32, outcome: Outcome, out: &mut Vec<Output>) {
        if let Link::Up { ping_at, proof: Some(proof), .. } = self.link
            && proof == number
        {
            let proved = outcome == Outcome::Done;
            let ping_at = if proved { ping_at } else { now + PROVE_AGAIN };
            self.link = Link::Up { ping_at, proof: None, proved };
            self.open_by_lease(now, out);
        }
        match self.state {
            State::Opening { order, number: sent } if sent == number => match outcome {
                Outcome::Done => {
                    self.answer(order, Answer::Opened);
                    self.enter(now, State::Open);
                }
                Outcome::Nothing => {
                    self.refuse(order, Refusal::Refused);
                    out.push(Output::Doors(Doors::Closed));
                    self.enter(now, State::Closed);
                }
                Outcome::Unknown => self.begin_to_close(now, None, Refusal::InPart, out),
            },
            State::Closing { order, sent: Some(sent) } if sent == number => match outcome {
                Outcome::Done => {
                    if let Link::Up { ping_at, proof, .. } = self.link {
                        self.link = Link::Up { ping_at, proof, proved: true };
                    }
                    if let Some(order) = order {
                        self.answer(order, Answer::Closed);
                    }
                    out.push(Output::Doors(Doors::Closed));
                    self.enter(now, State::Closed);
                }
                Outcome::Nothing | Outcome::Unknown if self.may_be_open(now) => {
                    if let Some(order) = order {
                        self.refuse(order, Refusal::Refused);
                    }
                    self.enter(now, State::Open);
                }
                Outcome::Nothing | Outcome::Unknown => self.kill(now, order, Cause::Refused, out),
            },
            State::Closed | State::Opening { .. } | State::Open | State::Closing { .. } | State::Killed { .. } => {}
        }
    }

    fn due(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let Some((fence_at, kill_at)) = self.times() {
            match self.state {
                // Too late to ask.
                State::Opening { .. } | State::Open if now >= fence_at && now >= kill_at => {
                    if let State::Opening { order, .. } = self.state {
                        self.refuse(order, Refusal::Ended);
                    }
                    self.kill(now, None, Cause::Silent, out);
                }
                State::Opening { .. } | State::Open if now >= fence_at => {
                    self.begin_to_close(now, None, Refusal::Overtaken, out);
                }
                State::Closing { order, .. } if now >= kill_at => self.kill(now, order, Cause::Silent, out),
                State::Closed | State::Opening { .. } | State::Open | State::Closing { .. } | State::Killed { .. } => {}
            }
        }
        match self.link {
            Link::Down { retry_at } if now >= retry_at => {
                self.link = Link::Connecting;
                out.push(Output::Connect);
            }
            Link::Up { ping_at, proof, proved } if now >= ping_at => {
                let proof = match (self.state, proof) {
                    (State::Closed, None) => Some(self.send(Command::Close, out)),
                    (State::Open, None) => {
                        self.send(Command::Ping, out);
                        None
                    }
                    // Something is on its way already.
                    (State::Closed | State::Open, Some(_)) => proof,
                    (State::Opening { .. } | State::Closing { .. } | State::Killed { .. }, _) => proof,
                };
                self.link = Link::Up { ping_at: now + PING_EVERY, proof, proved };
            }
            Link::Off | Link::Down { .. } | Link::Connecting | Link::Up { .. } => {}
        }
    }
}

impl Machine for Fence {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.due(now, out),
            Input::Process(incarnation) => self.process(now, incarnation, out),
            Input::Ended => self.ended(now, out),
            Input::Connected => self.connected(now, out),
            Input::Broken => self.broken(now),
            Input::Unsent => self.unsent(now, out),
            Input::Lease(term) => self.lease(now, term, out),
            Input::Open { order, by, epoch, setting } => self.open(now, order, (by, epoch), setting, out),
            Input::Close { order } => self.close(now, order, out),
            Input::Reply { number, outcome } => self.reply(now, number, outcome, out),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let times = self.times();
        let due = match self.state {
            State::Closed | State::Killed { .. } => None,
            State::Opening { .. } | State::Open => times.map(|(fence_at, _)| fence_at),
            State::Closing { .. } => times.map(|(_, kill_at)| kill_at),
        };
        let link = match self.link {
            Link::Off | Link::Connecting => None,
            Link::Down { retry_at } => Some(retry_at),
            Link::Up { ping_at, .. } => Some(ping_at),
        };
        earliest(due, link)
    }
}

#[cfg(test)]
mod tests;
