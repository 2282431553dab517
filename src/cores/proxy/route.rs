//! The one write target: the master that the sentinels' latest decision names, once it has proved itself.
//!
//! ```text
//!             a decision            proved: ROLE says master
//! Undecided ─────────────► Proving ──────────────────────────► Routed
//!                           ▲   ▲                                │
//!           newer decision  └───┘  newer decision, process dead, │
//!                           ▲      restarted, demoted, refused,  │
//!                           └────  three checks unanswered ──────┘
//! ```
//! Leaving `Routed` says [`Output::Switch`]`(None)` in the same call. A role text alone never makes a route: two nodes can
//! say `master` at the same time, but only one of them is named by the highest epoch. Sentinels that are not heard change
//! nothing: the route stays.
//!
//! In a fenced cluster the lease of a redis is the decision, whether a sentinel has stored it yet or not: a majority has granted it. It is
//! the proof as well, but for the first one of all; whether that redis is reached from here is asked behind it. And who is not heard
//! to hold one gets no writes, since it would refuse them: another proxy may hear it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::census::{Named, majority};
use crate::base::node::{Decision, Process, ProxyFacts};
use crate::base::time::earliest;
use crate::base::{Epoch, Instant, Machine, NodeName};

/// While a named master fails its proof, it is asked again after so long: a promotion is a matter of milliseconds.
const RETRY: Duration = Duration::from_millis(20);
/// After so long of failed proofs in a row they become rarer, down to the check interval.
const EAGER: Duration = Duration::from_secs(2);
/// A route whose check had no clear answer is checked again after so long, or after the check interval if that is shorter.
const DOUBT: Duration = Duration::from_millis(200);
/// So many checks in a row without a clear answer end a route.
const STRIKES_MAX: u8 = 3;
/// A check is bounded by who carries it out; this only keeps the machine alive if that promise is broken.
const CHECK_LOST: Duration = Duration::from_secs(2);
/// What keeps a named master from being believed at all.
const DISPUTED: &str = "sentinels name different masters in one epoch";
/// How long a peer may have a route before lacking one costs this node the VIP. At a failover both proxies prove the new
/// master within milliseconds of each other; one lost SYN or reply costs one check limit (at most 250 ms).
const BEHIND_GRACE: Duration = Duration::from_millis(500);
/// A master that is heard, and says that it holds no lease, keeps its route for so long: a sentinel that restarts costs it less, and
/// who reads from it is served. One that is not heard has been silent for as long already.
const LEASE_GRACE: Duration = Duration::from_millis(500);
/// What keeps a named master from being routed to although it is one.
const UNLEASED: &str = "it holds no lease, and refuses writes";

/// What a route must know from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time between two checks of an established route; at least 20 ms is used.
    pub check_interval: Duration,
    /// The redis of the cluster file: no other one is ever routed to, or connected to.
    pub masters: Vec<SocketAddr>,
}

/// What is known of the cluster now: fresh words only, this node's own included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How many sentinels the cluster file names.
    pub voters: usize,
    /// What the sentinels say of our master.
    pub sentinels: Vec<Voice>,
    /// What the supervisors say of their redis.
    pub servers: Vec<Server>,
    /// What the other proxies say of themselves.
    pub peers: Vec<Peer>,
}

/// One sentinel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
    /// The highest epoch it has seen.
    pub current_epoch: Epoch,
    /// Who is master by its record.
    pub decision: Option<Decision>,
    /// Whether that is a decision of a fenced cluster.
    pub fenced: bool,
}

/// One supervisor's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where its redis is reached.
    pub address: SocketAddr,
    /// Grows with every start of the process.
    pub incarnation: u64,
    /// State of the process.
    pub process: Process,
    /// Whether it said that it is a master; none: not asked yet.
    pub master: Option<bool>,
    /// The epoch of the lease by which it takes writes; none: it holds none.
    pub lease: Option<Epoch>,
}

impl Server {
    /// Whether the word before it still holds: of the same process, in the same state, which may have become the master since then.
    fn adds_to(self, before: Self) -> bool {
        let same = (self.incarnation, self.process) == (before.incarnation, before.process);
        same && (self.master == Some(true) || self.master == before.master) && self.lease >= before.lease
    }
}

/// One other proxy's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its node.
    pub name: NodeName,
    /// Whether it accepts clients.
    pub listening: bool,
    /// Where it sends writes.
    pub route: Option<Decision>,
}

/// Why a check proved nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckFault {
    /// Nobody listens there.
    Refused,
    /// It answered `ROLE`, with this other than `master`.
    NotMaster(String),
    /// It says itself that it is alive and too busy to answer, or this node lacks the means to ask: no proof, and no evidence
    /// against it either.
    Busy(String),
    /// Time-out, reset, an unexpected reply, a fault of our own: says nothing certain about the other side.
    Unclear(String),
}

impl fmt::Display for CheckFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::NotMaster(role) => write!(f, "its role is {role:?}, not master"),
            Self::Busy(text) => write!(f, "busy: {text}"),
            Self::Unclear(text) => f.write_str(text),
        }
    }
}

/// What happens to a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Only time has passed.
    Tick,
    /// The whole of what is known of the cluster has changed.
    View(Facts),
    /// The answer to the check of that serial.
    Checked {
        /// The serial of the [`Output::Check`].
        serial: u64,
        /// Connected, authenticated, and `ROLE` says master; or why not.
        result: Result<(), CheckFault>,
    },
    /// A session could not connect to the target, or was reset by it: a reason to check now.
    Suspect,
    /// The listeners are all up, or why not.
    Listener(Result<(), String>),
    /// Clients connected now. Fed at most once per second.
    Clients(u32),
    /// Leave cleanly.
    Stop,
}

/// What a route asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Prove the master of `decision` by connecting to it. A check under way is obsolete.
    Check {
        /// To be repeated in the answer: an answer to an obsolete check would prove nothing.
        serial: u64,
        /// Whom to ask.
        decision: Decision,
        /// Whether to log in and ask for the role; if not, only whether it accepts connections.
        login: bool,
    },
    /// The write target from now on. Sessions with any other are to be cut in this event.
    Switch(Option<Decision>),
    /// Whether this node may hold the VIP, or why not.
    Usable(Result<(), String>),
    /// What to say of this proxy to the cluster.
    Post(ProxyFacts),
    /// What keeps this proxy from its work; none: nothing.
    Fault(Option<String>),
    /// For people.
    Publish(Event),
}

/// What people read about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Writes go there from now on.
    Routed(Decision),
    /// The sentinels decided again for the master that the route already has.
    Renewed(Decision),
    /// The route is gone and its sessions are cut.
    Lost {
        /// What it was.
        was: Decision,
        /// Why.
        why: Loss,
    },
    /// The master that the sentinels name fails its proof for a while now.
    Unproved {
        /// Whom they name.
        decision: Decision,
        /// What is wrong.
        fault: CheckFault,
    },
    /// Sentinels name different masters in one epoch, which must not happen: none of them is believed.
    Conflict(Epoch),
    /// Sentinels name a master that is no data node of the cluster file.
    Foreign(Decision),
    /// A majority of the sentinels has no memory of the epoch of the decision known here: they were reset.
    HistoryReset(Epoch),
    /// Whether this node may hold the VIP has changed.
    Usable(Result<(), String>),
}

/// Why a route ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The sentinels decided for another.
    Superseded(Decision),
    /// Its supervisor says that the process is dead.
    Dead,
    /// Its supervisor says that it is another process now.
    Restarted,
    /// Its supervisor says that it is not a master any more.
    Demoted,
    /// The check says so.
    Check(CheckFault),
    /// The sentinels were reset.
    HistoryReset,
    /// The cluster is fenced, and it is not heard to hold a lease.
    Unleased,
    /// This proxy stops.
    Stopped,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded(next) => write!(f, "the sentinels named {} in epoch {}", next.master, next.epoch),
            Self::Dead => f.write_str("its supervisor says that the process is dead"),
            Self::Restarted => f.write_str("its supervisor says that the process was restarted"),
            Self::Demoted => f.write_str("its supervisor says that it is not a master any more"),
            Self::Check(fault) => write!(f, "the check failed: {fault}"),
            Self::HistoryReset => f.write_str("the sentinels were reset"),
            Self::Unleased => f.write_str("it is not heard any more that it holds a lease"),
            Self::Stopped => f.write_str("this proxy stops"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Routed(to) => write!(f, "writes go to {} (epoch {})", to.master, to.epoch),
            Self::Renewed(to) => write!(f, "writes still go to {} (epoch {} now)", to.master, to.epoch),
            Self::Lost { was, why } => write!(f, "no writes to {} (epoch {}) any more: {why}", was.master, was.epoch),
            Self::Unproved { decision, fault } => {
                write!(f, "{} is master by epoch {} and does not prove it: {fault}", decision.master, decision.epoch)
            }
            Self::Conflict(epoch) => write!(f, "sentinels name different masters in epoch {epoch}: none is believed"),
            Self::Foreign(decision) => write!(
                f,
                "sentinels name {} as the master of epoch {}: refused, it is no data node of the cluster file",
                decision.master, decision.epoch
            ),
            Self::HistoryReset(epoch) => write!(f, "the sentinels have forgotten epoch {epoch}: they were reset"),
            Self::Usable(Ok(())) => f.write_str("fit to hold the virtual addresses"),
            Self::Usable(Err(why)) => write!(f, "not fit to hold the virtual addresses: {why}"),
        }
    }
}

/// The machine that decides the write target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    check_interval: Duration,
    masters: Vec<SocketAddr>,
    facts: Facts,
    state: State,
    /// Serial of the latest check.
    serial: u64,
    /// None: the listeners have not been tried yet.
    listener: Option<Result<(), String>>,
    clients: u32,
    /// Since when a peer has a route and this node has none.
    behind_since: Option<Instant>,
    /// The epoch of the last conflict told.
    conflict: Option<Epoch>,
    /// The last decision that named somebody outside of the file, as told.
    foreign: Option<Decision>,
    said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// No sentinel has named a master yet.
    Undecided,
    /// A master is named, and not proved or not any more. There is no route.
    Proving {
        decision: Decision,
        /// Since when it may be expected to pass.
        since: Instant,
        probe: Probe,
        /// What the last check found.
        fault: Option<CheckFault>,
        /// What people were told.
        told: Option<CheckFault>,
    },
    /// Writes go to the master of `decision`.
    Routed {
        decision: Decision,
        probe: Probe,
        /// Checks in a row without a clear answer.
        strikes: u8,
        /// The process that its supervisor spoke of while the route stood.
        incarnation: Option<u64>,
        /// Whether the supervisor has called that process a master yet: its word may come later than the proof.
        confirmed: bool,
        /// Since when it says that it holds no lease, in a fenced cluster.
        unleased_since: Option<Instant>,
    },
    /// This proxy stops.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Due(Instant),
    Asked { serial: u64, lost_at: Instant },
}

/// What was last put out, to put out changes only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    usable: Option<Result<(), String>>,
    posted: Option<ProxyFacts>,
    fault: Option<Option<String>>,
}

impl Machine for Route {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        if self.state == State::Stopped {
            return;
        }
        match input {
            Input::Tick => self.weigh_lease(now, out),
            Input::View(facts) => self.on_facts(now, facts, out),
            Input::Checked { serial, result } => self.on_checked(now, serial, result, out),
            Input::Suspect => self.on_suspect(now),
            Input::Listener(result) => self.listener = Some(result),
            Input::Clients(clients) => self.clients = clients,
            Input::Stop => self.become_(State::Stopped, Some(Loss::Stopped), out),
        }
        self.run_probe(now, out);
        self.say(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        let probe = match &self.state {
            State::Undecided | State::Stopped => None,
            State::Proving { probe, .. } | State::Routed { probe, .. } => Some(probe.deadline()),
        };
        // Once the grace is over it has been acted upon, and only a fact can change that.
        let behind = self.behind_since.filter(|_| matches!(self.said.usable, Some(Ok(())))).map(|at| at + BEHIND_GRACE);
        let unleased = match &self.state {
            State::Routed { unleased_since, .. } => unleased_since.map(|since| since + LEASE_GRACE),
            State::Undecided | State::Proving { .. } | State::Stopped => None,
        };
        earliest(unleased, earliest(probe, behind))
    }
}

impl Probe {
    fn deadline(self) -> Instant {
        match self {
            Self::Due(at) | Self::Asked { lost_at: at, .. } => at,
        }
    }

    /// Brings a check forward; one under way is left alone.
    fn hurry(&mut self, now: Instant) {
        if let Self::Due(at) = self {
            *at = now.min(*at);
        }
    }

    fn answers(self, given: u64) -> bool {
        matches!(self, Self::Asked { serial, .. } if serial == given)
    }
}

impl Route {
    /// A route to nowhere, before anything is known.
    pub fn new(config: &Config) -> Self {
        Self {
            check_interval: config.check_interval.max(RETRY),
            masters: config.masters.clone(),
            facts: Facts::default(),
            state: State::Undecided,
            serial: 0,
            listener: None,
            clients: 0,
            behind_since: None,
            conflict: None,
            foreign: None,
            said: Said::default(),
        }
    }

    /// The write target.
    pub fn target(&self) -> Option<Decision> {
        match &self.state {
            State::Routed { decision, .. } => Some(*decision),
            State::Undecided | State::Proving { .. } | State::Stopped => None,
        }
    }

    /// The highest decision ever heard, proved or not. An older one is never believed.
    fn known(&self) -> Option<Decision> {
        match &self.state {
            State::Proving { decision, .. } | State::Routed { decision, .. } => Some(*decision),
            State::Undecided | State::Stopped => None,
        }
    }

    /// Whether the sentinels name another master in the epoch of the decision known here. Which of them was heard first
    /// says nothing: two proxies could prove one each. A route that stood before stays.
    fn is_disputed(&self) -> bool {
        self.known().is_some_and(|known| self.conflict == Some(known.epoch))
    }

    fn server(&self, address: SocketAddr) -> Option<Server> {
        self.facts.servers.iter().find(|server| server.address == address).copied()
    }

    fn is_dead(&self, address: SocketAddr) -> bool {
        self.server(address).is_some_and(|server| server.process == Process::Dead)
    }

    fn on_facts(&mut self, now: Instant, mut facts: Facts, out: &mut Vec<Output>) {
        self.drop_foreign(&mut facts, out);
        let old = std::mem::replace(&mut self.facts, facts);
        if let Some(known) = self.known()
            && self.forgotten(known.epoch)
        {
            out.push(Output::Publish(Event::HistoryReset(known.epoch)));
            self.conflict = None;
            self.become_(State::Undecided, Some(Loss::HistoryReset), out);
        }
        let disputed = self.is_disputed();
        if let Some(best) = self.best(out)
            && self.known().is_none_or(|known| best.epoch > known.epoch)
        {
            self.on_decision(now, best, out);
        }
        if disputed
            && !self.is_disputed()
            && let State::Proving { since, probe, .. } = &mut self.state
        {
            *since = now;
            probe.hurry(now);
        }
        if let Some(known) = self.known() {
            let before = old.servers.iter().find(|server| server.address == known.master).copied();
            self.on_server(now, before, out);
        }
        self.weigh_lease(now, out);
        // What a peer has just proved can be proved here as well.
        if self.behind_since.is_none()
            && self.peer_ahead().is_some()
            && let State::Proving { since, probe, .. } = &mut self.state
        {
            *since = now;
            probe.hurry(now);
        }
    }

    /// Takes out what the sentinels cannot mean: a master that the file does not know.
    fn drop_foreign(&mut self, facts: &mut Facts, out: &mut Vec<Output>) {
        for voice in &mut facts.sentinels {
            let foreign = voice.decision.filter(|decision| !self.masters.contains(&decision.master));
            if let Some(decision) = foreign {
                voice.decision = None;
                if self.foreign.replace(decision) != Some(decision) {
                    out.push(Output::Publish(Event::Foreign(decision)));
                }
            }
        }
    }

    /// Whether the cluster is fenced, as far as is known.
    fn is_fenced(&self) -> bool {
        let newest = self.facts.sentinels.iter().filter_map(|voice| Some((voice.decision?.epoch, voice.fenced))).max();
        newest.is_some_and(|(_, fenced)| fenced)
    }

    /// Whether that redis would refuse writes for want of a lease, as far as is heard.
    fn is_unleased(&self, address: SocketAddr) -> bool {
        self.is_fenced() && self.server(address).is_none_or(|server| server.lease.is_none())
    }

    /// Ends the route to a master that is not heard to hold a lease.
    fn weigh_lease(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(target) = self.target() else { return };
        let (unleased, heard) = (self.is_unleased(target.master), self.server(target.master).is_some());
        let State::Routed { unleased_since, .. } = &mut self.state else { return };
        *unleased_since = unleased_since.or(Some(now)).filter(|_| unleased);
        if unleased && (!heard || unleased_since.is_some_and(|since| now.since(since) >= LEASE_GRACE)) {
            self.become_(State::proving(target, now, now + RETRY), Some(Loss::Unleased), out);
        }
    }

    /// The decision of the highest epoch, unless two different ones claim it.
    fn best(&mut self, out: &mut Vec<Output>) -> Option<Decision> {
        let leased = |server: &Server| Some(Decision { master: server.address, epoch: server.lease? });
        let holders = self.facts.servers.iter().filter_map(leased).filter(|held| self.masters.contains(&held.master));
        match Named::by(self.facts.sentinels.iter().filter_map(|voice| voice.decision).chain(holders)) {
            Named::Nobody => None,
            Named::One(best) => {
                self.conflict = None;
                Some(best)
            }
            Named::Several(epoch) => {
                if self.conflict.replace(epoch) != Some(epoch) {
                    out.push(Output::Publish(Event::Conflict(epoch)));
                }
                None
            }
        }
    }

    /// Whether a majority of the sentinels has not got as far as `epoch`. Whoever won it was voted for by a majority in
    /// that epoch, durably: so these sentinels have lost their records, and what was decided before binds nobody.
    fn forgotten(&self, epoch: Epoch) -> bool {
        let behind = self.facts.sentinels.iter().filter(|voice| voice.current_epoch < epoch).count();
        let knows = |voice: &Voice| voice.decision.is_some_and(|decision| decision.epoch >= epoch);
        let holds = |server: &Server| server.lease.is_some_and(|lease| lease >= epoch);
        let known = self.facts.sentinels.iter().any(knows) || self.facts.servers.iter().any(holds);
        behind >= majority(self.facts.voters) && !known
    }

    fn on_decision(&mut self, now: Instant, next: Decision, out: &mut Vec<Output>) {
        if let State::Routed { decision, probe, .. } = &mut self.state
            && decision.master == next.master
        {
            *decision = next;
            probe.hurry(now);
            out.push(Output::Publish(Event::Renewed(next)));
            return;
        }
        // Before the first proof of all, nothing is known of the way to them.
        let way_known = self.known().is_some();
        self.become_(State::proving(next, now, now), Some(Loss::Superseded(next)), out);
        if way_known {
            self.follow_holder(now, next, out);
        }
    }

    /// The word of a living redis' supervisor that it takes writes, by a lease of the epoch that is routed to next, is the decision and
    /// its proof: nobody else has that lease. A check follows, whether it is reached from here.
    fn follow_holder(&mut self, now: Instant, decision: Decision, out: &mut Vec<Output>) {
        let holds = |server: &Server| server.process == Process::Alive && server.lease == Some(decision.epoch);
        if let Some(server) = self.server(decision.master).filter(holds)
            && self.is_fenced()
            && !self.is_disputed()
        {
            self.become_(State::routed(decision, now, Some(server)), None, out);
        }
    }

    /// Weighs what the supervisor of the named master says; `before` is what it said last.
    fn on_server(&mut self, now: Instant, before: Option<Server>, out: &mut Vec<Output>) {
        let Some(known) = self.known() else { return };
        let Some(server) = self.server(known.master) else {
            // Its supervisor is silent. A route stays; a proof may go on without that word.
            if before.is_some_and(|before| before.process == Process::Dead) {
                self.on_suspect(now);
            }
            return;
        };
        let changed = before != Some(server);
        let loss = match &mut self.state {
            State::Undecided | State::Stopped => return,
            State::Proving { since, probe, .. } => {
                if changed {
                    *since = now;
                    // A check under way may have been answered by a process that is no more, or no master any more: ask again.
                    // One that still holds is not begun again for what only adds to it.
                    if before.is_some_and(|before| server.adds_to(before)) {
                        probe.hurry(now);
                    } else {
                        *probe = Probe::Due(now);
                    }
                }
                return;
            }
            State::Routed { probe, incarnation, confirmed, .. } => {
                if server.process == Process::Dead {
                    Loss::Dead
                } else if incarnation.is_some_and(|known| known != server.incarnation) {
                    Loss::Restarted
                } else if *confirmed && server.master == Some(false) {
                    Loss::Demoted
                } else {
                    // Not yet a master by a word that may be older than the proof: ask again rather than believe it.
                    if changed && server.master == Some(false) {
                        probe.hurry(now);
                    }
                    *incarnation = Some(server.incarnation);
                    *confirmed |= server.master == Some(true);
                    return;
                }
            }
        };
        self.become_(State::proving(known, now, now), Some(loss), out);
    }

    fn on_suspect(&mut self, now: Instant) {
        match &mut self.state {
            State::Proving { probe, .. } | State::Routed { probe, .. } => {
                // At most one check per RETRY, however many sessions complain.
                let soon = now + RETRY;
                if let Probe::Due(at) = probe {
                    *at = soon.min(*at);
                }
            }
            State::Undecided | State::Stopped => {}
        }
    }

    fn on_checked(&mut self, now: Instant, serial: u64, result: Result<(), CheckFault>, out: &mut Vec<Output>) {
        match &self.state {
            State::Proving { probe, .. } if probe.answers(serial) => self.on_proof(now, result, out),
            State::Routed { probe, .. } if probe.answers(serial) => self.on_check(now, result, out),
            State::Undecided | State::Stopped | State::Proving { .. } | State::Routed { .. } => {}
        }
    }

    /// A check of a master that is not routed to yet.
    fn on_proof(&mut self, now: Instant, result: Result<(), CheckFault>, out: &mut Vec<Output>) {
        let State::Proving { decision, .. } = &self.state else { return };
        let decision = *decision;
        let dead = self.is_dead(decision.master);
        let disputed = self.is_disputed();
        let unleased = self.is_unleased(decision.master);
        let server = self.server(decision.master);
        if let (Ok(()), false, false, false) = (&result, dead, disputed, unleased) {
            self.become_(State::routed(decision, now + self.check_interval, server), None, out);
            return;
        }
        let State::Proving { since, probe, fault, told, .. } = &mut self.state else { return };
        let overtaken = matches!(*probe, Probe::Asked { lost_at, .. } if *since + CHECK_LOST > lost_at);
        // A proof that is older than the word of death, or than the dispute, counts as none.
        let void = match (dead, disputed) {
            (true, _) => "its process is dead",
            (false, true) => DISPUTED,
            (false, false) => UNLEASED,
        };
        *fault = Some(result.err().unwrap_or_else(|| CheckFault::Unclear(void.to_owned())));
        let failing = now.since(*since);
        let wait = if failing < EAGER { RETRY } else { (failing / 8).clamp(RETRY, self.check_interval) };
        // What was heard since it was asked may be what it lacked.
        *probe = Probe::Due(if overtaken { now } else { now + wait });
        if failing >= EAGER && told != fault {
            told.clone_from(fault);
            out.extend(fault.clone().map(|fault| Output::Publish(Event::Unproved { decision, fault })));
        }
    }

    /// A check of the master that is routed to.
    fn on_check(&mut self, now: Instant, result: Result<(), CheckFault>, out: &mut Vec<Output>) {
        let interval = self.check_interval;
        let State::Routed { decision, .. } = &self.state else { return };
        let decision = *decision;
        // Its parent sees it alive and not answering: nobody else would answer in its place, so that a cut helps nobody,
        // and whether it is still the master is for the sentinels to say.
        let vouched = self.server(decision.master).is_some_and(|server| server.process == Process::Busy);
        let State::Routed { probe, strikes, .. } = &mut self.state else { return };
        let loss = match result {
            Ok(()) | Err(CheckFault::Busy(_)) => {
                *strikes = 0;
                *probe = Probe::Due(now + interval);
                return;
            }
            Err(fault @ (CheckFault::Refused | CheckFault::NotMaster(_))) => fault,
            Err(fault @ CheckFault::Unclear(_)) => {
                *strikes = if vouched { 0 } else { *strikes + 1 };
                if *strikes < STRIKES_MAX {
                    *probe = Probe::Due(now + interval.min(DOUBT));
                    return;
                }
                fault
            }
        };
        self.become_(State::proving(decision, now, now + RETRY), Some(Loss::Check(loss)), out);
    }

    /// The only place that enters and leaves states. `why` is told if a route ends.
    fn become_(&mut self, next: State, why: Option<Loss>, out: &mut Vec<Output>) {
        let was = self.target();
        self.state = next;
        match (was, self.target()) {
            (Some(was), None) => {
                out.push(Output::Switch(None));
                out.extend(why.map(|why| Output::Publish(Event::Lost { was, why })));
            }
            (_, Some(target)) => {
                out.push(Output::Switch(Some(target)));
                out.push(Output::Publish(Event::Routed(target)));
            }
            (None, None) => {}
        }
    }

    /// Asks for a check that is due. One whose answer was lost counts as unclear.
    fn run_probe(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let State::Proving { probe: Probe::Asked { serial, lost_at }, .. }
        | State::Routed { probe: Probe::Asked { serial, lost_at }, .. } = &self.state
            && *lost_at <= now
        {
            self.on_checked(now, *serial, Err(CheckFault::Unclear("the check did not end".to_owned())), out);
        }
        let dead = self.known().is_some_and(|known| self.is_dead(known.master));
        let disputed = self.is_disputed();
        let (decision, probe, in_vain) = match &mut self.state {
            State::Undecided | State::Stopped => return,
            State::Proving { decision, probe, .. } => (*decision, probe, dead || disputed),
            State::Routed { decision, probe, .. } => (*decision, probe, dead),
        };
        if !matches!(probe, Probe::Due(at) if *at <= now) {
            return;
        }
        if in_vain {
            // The first word of a new process, silence of its supervisor, or the end of the dispute brings this forward.
            *probe = Probe::Due(now + self.check_interval);
            return;
        }
        self.serial += 1;
        *probe = Probe::Asked { serial: self.serial, lost_at: now + CHECK_LOST };
        // A redis lives only beside its vigie: where that is not heard, somebody else may have its address, and must neither be told
        // a password nor prove anything. What was proved before stays, unless nobody is there at all.
        let login = self.server(decision.master).is_some();
        if !login && self.target().is_none() {
            let fault = CheckFault::Unclear("its node is not heard on the peer link".to_owned());
            return self.on_checked(now, self.serial, Err(fault), out);
        }
        out.push(Output::Check { serial: self.serial, decision, login });
    }

    /// Whether it has no route and hears no majority of the sentinels, who could name it one: because it is cut off, or has
    /// another password than the cluster. It hears nothing of a peer that may do better then.
    fn is_deaf(&self) -> bool {
        self.target().is_none() && self.facts.sentinels.len() < majority(self.facts.voters)
    }

    /// Puts out what others are to know, if it changed.
    fn say(&mut self, now: Instant, out: &mut Vec<Output>) {
        let ahead = self.peer_ahead();
        let deaf = self.is_deaf();
        self.behind_since = if ahead.is_some() || deaf { self.behind_since.or(Some(now)) } else { None };
        let behind = self.behind_since.is_some_and(|since| now.since(since) >= BEHIND_GRACE);
        let usable = match (&self.state, &self.listener, ahead.filter(|_| behind)) {
            (State::Stopped, _, _) => Err("the proxy stops".to_owned()),
            (_, None, _) => Err("the proxy does not listen yet".to_owned()),
            (_, Some(Err(why)), _) => Err(why.clone()),
            (_, Some(Ok(())), Some(peer)) => Err(format!("no route to the master, and {peer} has one")),
            (_, Some(Ok(())), None) if deaf && behind => {
                Err("no route to the master, and most sentinels are not heard".to_owned())
            }
            (_, Some(Ok(())), None) => Ok(()),
        };
        if self.said.usable.as_ref() != Some(&usable) {
            self.said.usable = Some(usable.clone());
            out.push(Output::Usable(usable.clone()));
            out.push(Output::Publish(Event::Usable(usable)));
        }
        let listening = matches!(self.listener, Some(Ok(()))) && self.state != State::Stopped;
        let facts = ProxyFacts { listening, route: self.target(), clients: self.clients, held: None };
        if self.said.posted.replace(facts) != Some(facts) {
            out.push(Output::Post(facts));
        }
        let fault = self.fault(now);
        if self.said.fault.as_ref() != Some(&fault) {
            self.said.fault = Some(fault.clone());
            out.push(Output::Fault(fault));
        }
    }

    /// A peer that serves the master of the latest decision known here while this node does not.
    fn peer_ahead(&self) -> Option<NodeName> {
        if self.target().is_some() {
            return None;
        }
        let known = self.known().map_or(0, |known| known.epoch);
        let serves = |peer: &&Peer| peer.listening && peer.route.is_some_and(|route| route.epoch >= known);
        self.facts.peers.iter().find(serves).map(|peer| peer.name.clone())
    }

    fn fault(&self, now: Instant) -> Option<String> {
        if let Some(Err(why)) = &self.listener {
            return Some(why.clone());
        }
        match &self.state {
            State::Undecided if self.conflict.is_some() => Some(DISPUTED.to_owned()),
            State::Undecided => Some("no sentinel has named a master yet".to_owned()),
            State::Proving { .. } if self.is_disputed() => Some(DISPUTED.to_owned()),
            State::Proving { decision, since, fault, .. } if now.since(*since) >= EAGER => {
                let why = fault.as_ref().map_or_else(|| "its process is dead".to_owned(), ToString::to_string);
                Some(format!("no route to the master {}: {why}", decision.master))
            }
            State::Proving { .. } | State::Routed { .. } | State::Stopped => None,
        }
    }
}

impl State {
    fn proving(decision: Decision, now: Instant, check_at: Instant) -> Self {
        Self::Proving { decision, since: now, probe: Probe::Due(check_at), fault: None, told: None }
    }

    /// `server`: what its supervisor said last.
    fn routed(decision: Decision, check_at: Instant, server: Option<Server>) -> Self {
        Self::Routed {
            decision,
            probe: Probe::Due(check_at),
            strikes: 0,
            incarnation: server.map(|server| server.incarnation),
            confirmed: server.is_some_and(|server| server.master == Some(true)),
            unleased_since: None,
        }
    }
}

#[cfg(test)]
mod tests;
