//! A sentinel: the real core, driven as the runtime drives it, with a disk that takes its time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use vigie::base::{Instant, Machine, Secret};
use vigie::cores::sentinel::names::Request;
use vigie::cores::sentinel::{
    Answer, ClientId, Config, DataNode, Durable, Input, LinkId, Logins, MasterConfig, Membership, OrderId, Output,
    Record, Sentinel, Settings, Sockets, Voter,
};

use crate::net::{Packet, Way};
use crate::world::{Happening, World, group_name, ms, node_name, redis_at, sentinel_at};

/// What applications log in with.
const PASSWORD: &str = "known-to-applications";
/// As the runtime: so many inputs are taken in before deadlines are looked at again.
const INPUTS_PER_TURN: usize = 64;

/// The process of one sentinel, and its disk.
#[derive(Default)]
pub struct Actor {
    /// None: no process.
    pub core: Option<Sentinel>,
    /// Counts the processes.
    pub boot: u64,
    /// What survives a crash.
    pub disk: Option<Record>,
    /// Stores fail.
    pub broken: bool,
    /// Stores take so long at most; none: as planned.
    pub slow: Option<Duration>,
    /// The process does not run.
    pub frozen: bool,
    /// Its open connections.
    pub links: BTreeMap<LinkId, u64>,
    /// The far end of every link it ever had: its host, and whether a sentinel is there. What was heard may be taken in when
    /// the link is gone.
    pub ends: BTreeMap<LinkId, (usize, bool)>,
    /// Connections of others to it.
    pub clients: BTreeMap<ClientId, u64>,
    running: bool,
    inbox: VecDeque<Input>,
    turn: Option<Turn>,
    storing: Option<Storing>,
    wake_at: Option<Instant>,
}

/// One turn of the driver: the clock is read once.
struct Turn {
    now: Instant,
    left: usize,
    ticked: bool,
    out: VecDeque<Output>,
    fed: VecDeque<Input>,
}

/// A store that is under way.
struct Storing {
    serial: u64,
    record: Record,
}

/// The connection of a client on one host to the sentinel of another.
pub fn sockets(from: usize, to: usize) -> Sockets {
    Sockets { peer: SocketAddr::new(redis_at(from).ip(), 50_000), local: sentinel_at(to), fd: 9 }
}

impl World {
    /// What a sentinel is configured with: the one place where one is made.
    fn sentinel_config(&self, host: usize) -> Config {
        let voters =
            (0..self.plan.sentinels).map(|s| Voter { name: node_name(s), address: sentinel_at(s), stock: false });
        let masters = self.groups.iter().enumerate().map(|(g, group)| MasterConfig {
            down_after: self.plan.down_after,
            busy_grace: ms(5_000).max(self.plan.down_after),
            failover_timeout: self.plan.failover_timeout,
            parallel_syncs: self.plan.parallel_syncs,
            nodes: group
                .iter()
                .map(|r| DataNode { name: node_name(*r), address: redis_at(*r), bootstrap: *r == group[0] })
                .collect(),
            ..MasterConfig::new(group_name(g), self.plan.quorums[g])
        });
        Config {
            membership: Membership::Voters { me: node_name(host), all: voters.collect() },
            settings: Settings::default(),
            masters: masters.collect(),
            logins: Some(Logins {
                applications: Secret::new(PASSWORD).into(),
                cluster: Secret::new("known-to-no-application").into(),
            }),
            seed: self.plan.seed ^ (self.sentinels[host].boot << 32) ^ host as u64,
        }
    }

    /// Starts the process of a sentinel with what is on its disk.
    pub fn start_sentinel(&mut self, host: usize) {
        if self.sentinels[host].core.is_some() || !self.hosts[host].powered {
            return;
        }
        self.sentinels[host].boot += 1;
        let now = self.local(host);
        let core = if self.plan.drop_in {
            self.drop_in(host)
        } else {
            let durable = match self.sentinels[host].disk.clone() {
                Some(Record::Votes(durable)) => durable,
                Some(Record::Everything(_)) | None => Durable::new(self.dice.id()),
            };
            Sentinel::new(self.sentinel_config(host), durable, now)
        };
        #[cfg(feature = "sabotage")]
        let core = match self.sabotage {
            Some(rule) => core.without(rule),
            None => core,
        };
        self.note(|| format!("s{host} starts"));
        self.checks.sentinel_started(host, now);
        self.sentinels[host].core = Some(core);
        self.sentinels[host].frozen = false;
        self.view_forgotten(host);
        self.wake(host, self.now);
    }

    /// The process of a sentinel dies. `told`: its connections are closed by the kernel; else the host is gone with it.
    pub fn kill_sentinel(&mut self, host: usize, told: bool) {
        // First of all: nothing of what follows is heard by it.
        if self.sentinels[host].core.take().is_none() {
            return;
        }
        self.note(|| format!("s{host} dies"));
        // A store that was under way is either there or not.
        if let Some(storing) = self.sentinels[host].storing.take()
            && !self.sentinels[host].broken
            && self.dice.chance(500)
        {
            self.on_disk(host, storing.record);
        }
        self.drop_far(host, true, told);
        self.drop_near(host, told);
        let actor = &mut self.sentinels[host];
        let old = std::mem::take(actor);
        *actor = Actor { boot: old.boot, disk: old.disk, broken: old.broken, slow: old.slow, ..Actor::default() };
        self.sentinel_says(host, None);
    }

    /// Gives an input to a sentinel.
    pub fn give(&mut self, host: usize, input: Input) {
        if self.sentinels[host].core.is_some() {
            self.sentinels[host].inbox.push_back(input);
            self.run_sentinel(host);
        }
    }

    /// Lets the sentinel have a turn at `at`, late as any process may be.
    fn wake(&mut self, host: usize, at: Instant) {
        let late = if self.dice.chance(20) { self.dice.upto(ms(3)) } else { self.dice.upto(Duration::from_micros(50)) };
        let at = at.max(self.now) + late;
        if self.sentinels[host].wake_at.is_none_or(|known| at < known || known < self.now) {
            self.sentinels[host].wake_at = Some(at);
            let boot = self.sentinels[host].boot;
            self.at(at, Happening::Wake(host, boot));
        }
    }

    pub fn woken(&mut self, host: usize, boot: u64) {
        let actor = &mut self.sentinels[host];
        if actor.boot == boot && actor.core.is_some() {
            if actor.wake_at == Some(self.now) {
                actor.wake_at = None;
            }
            self.run_sentinel(host);
        }
    }

    /// Runs the driver as far as it comes: until nothing waits, or the process is stopped.
    pub fn run_sentinel(&mut self, host: usize) {
        // What it does now may come back to itself: it waits in the inbox.
        if std::mem::replace(&mut self.sentinels[host].running, true) {
            return;
        }
        self.run_on(host);
        self.sentinels[host].running = false;
        let deadline = self.sentinels[host].core.as_ref().and_then(Machine::deadline);
        if let Some(deadline) = deadline {
            let at = self.hosts[host].clock.when(deadline);
            self.wake(host, at);
        }
    }

    fn run_on(&mut self, host: usize) {
        let local = self.local(host);
        loop {
            let actor = &mut self.sentinels[host];
            let Some(core) = actor.core.as_ref().filter(|_| !actor.frozen) else { return };
            let deadline = core.deadline();
            let due = |at: Instant| deadline.is_some_and(|deadline| deadline <= at);
            let Some(turn) = actor.turn.as_mut() else {
                if actor.inbox.is_empty() && !due(local) {
                    return;
                }
                let (out, fed) = (VecDeque::new(), VecDeque::new());
                actor.turn = Some(Turn { now: local, left: INPUTS_PER_TURN, ticked: false, out, fed });
                continue;
            };
            if let Some(output) = turn.out.pop_front() {
                self.carry_out(host, output);
            } else if let Some(input) = turn.fed.pop_front() {
                self.handle(host, input);
            } else if turn.left > 0
                && let Some(input) = actor.inbox.pop_front()
            {
                turn.left -= 1;
                self.handle(host, input);
            } else if !turn.ticked && due(turn.now) {
                turn.ticked = true;
                self.handle(host, Input::Tick);
                let (core, turn) = (&self.sentinels[host].core, &self.sentinels[host].turn);
                if let (Some(core), Some(turn)) = (core, turn)
                    && core.deadline().is_some_and(|next| next <= turn.now)
                {
                    self.checks.violated("time stands still: a tick must move the deadline".to_owned());
                }
            } else {
                actor.turn = None;
            }
        }
    }

    fn handle(&mut self, host: usize, input: Input) {
        let actor = &mut self.sentinels[host];
        let (Some(core), Some(turn)) = (actor.core.as_mut(), actor.turn.as_mut()) else { return };
        let about = match &input {
            Input::Reply(link, ..) | Input::LinkUp(link, _) | Input::LinkDown(link, _) => actor.ends.get(link).copied(),
            Input::Tick
            | Input::Message(..)
            | Input::ClientCame(..)
            | Input::ClientGone(_)
            | Input::Garbage(..)
            | Input::Command(..)
            | Input::Facts(_)
            | Input::Stored(_)
            | Input::ScriptChecked(..)
            | Input::Script(_)
            | Input::Resolved(_)
            | Input::Told(..)
            | Input::Order(..)
            | Input::Why(_)
            | Input::Bootstrap(_)
            | Input::Renew(_)
            | Input::Stop => None,
        };
        self.checks.hears(host, about, &input, turn.now);
        if self.trace.on {
            let line = crate::trace::input(&input);
            if let Some(line) = line {
                self.trace.lines.push(format!("{} s{host} < {line}", self.now));
            }
        }
        let mut out = Vec::new();
        core.handle(turn.now, input, &mut out);
        turn.out.extend(out);
        self.stats.turns += 1;
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        if let Some(line) = self.trace.on.then(|| crate::trace::output(&output)).flatten() {
            self.trace.lines.push(format!("{} s{host} > {line}", self.now));
        }
        match output {
            Output::Store(record) => {
                let file = matches!(record, Record::Everything(_));
                if file != self.plan.drop_in {
                    self.checks.violated(format!("s{host} stores what it is not configured by: {record:?}"));
                }
                self.store(host, record);
            }
            Output::Connect { link, address, limit } => self.connect(host, link, address, limit),
            Output::Hangup(link) => self.hang_up(host, link),
            Output::Query { link, tag, args } => {
                let Some(id) = self.sentinels[host].links.get(&link).copied() else { return };
                self.check_query(host, id, tag, &args);
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.tags.push_back(tag);
                    self.send(id, Way::Far, Packet::Command(args));
                }
            }
            Output::Respond(client, answer) => self.respond(host, client, answer),
            Output::Dismiss(client) => {
                if let Some(id) = self.sentinels[host].clients.get(&client).copied() {
                    self.cut_off(id, true, "dismissed");
                }
            }
            Output::Post(facts) => {
                self.check_post(host, &facts);
                self.sentinel_says(host, Some(*facts));
            }
            Output::Kill(client) => self.kill_client(host, client),
            Output::Ask(client, question) => {
                let fact = self.fact(question);
                self.feed_first(host, Input::Told(client, fact));
            }
            Output::Script(request) => self.script(host, request),
            Output::Resolve(Request::Resolve(name)) => self.resolve(host, name),
            Output::CheckScript(path) => {
                let can_run = Self::can_run(&path);
                self.feed_first(host, Input::ScriptChecked(path, can_run));
            }
            Output::Exit(_) => self.exited(host),
            Output::Fault(_)
            | Output::Protocol(..)
            | Output::WrongPassword(_)
            | Output::LogLevel(_)
            | Output::Bootstrapped(..)
            | Output::Why(..) => {}
            Output::Publish(event) => self.check_event(host, &event),
            Output::OrderDone(_, result) => {
                self.stats.orders += 1;
                self.stats.orders_done += u64::from(result.is_ok());
            }
            Output::Stopped => self.later(Duration::ZERO, Happening::Left(host, self.sentinels[host].boot)),
        }
    }

    /// Takes in an answer that comes before any other input.
    fn feed_first(&mut self, host: usize, input: Input) {
        if let Some(turn) = self.sentinels[host].turn.as_mut() {
            turn.fed.push_back(input);
        }
    }

    fn respond(&mut self, host: usize, client: ClientId, answer: Answer) {
        self.check_answer(host, client, &answer);
        let Some(id) = self.sentinels[host].clients.get(&client).copied() else { return };
        let reply = match answer {
            Answer::Reply(reply) => Some(reply),
            Answer::Many(_) => None,
        };
        self.send(id, Way::Near, Packet::Reply(reply));
    }

    fn store(&mut self, host: usize, record: Record) {
        let (serial, limit) = (self.count(), self.sentinels[host].slow.unwrap_or(self.plan.store));
        if self.sentinels[host].storing.is_some() {
            self.checks.violated(format!("s{host} stores before it knows what became of the last store"));
        }
        let takes = self.dice.time(Duration::from_micros(50), limit);
        self.sentinels[host].storing = Some(Storing { serial, record });
        self.later(takes, Happening::Stored(host, serial));
    }

    /// A store has ended, well or not.
    pub fn stored(&mut self, host: usize, serial: u64) {
        let actor = &mut self.sentinels[host];
        // A process that is stopped hears of its disk later; the kernel does not wait for it.
        let Some(storing) = actor.storing.take_if(|storing| storing.serial == serial) else { return };
        let result = if actor.broken { Err("input/output error".to_owned()) } else { Ok(()) };
        actor.inbox.push_back(Input::Stored(result.clone()));
        if result.is_ok() {
            self.on_disk(host, storing.record);
        } else {
            self.checks.not_on_disk(host);
        }
        self.stats.stores += 1;
        self.run_sentinel(host);
    }

    fn on_disk(&mut self, host: usize, record: Record) {
        self.checks.on_disk(host, &record);
        self.sentinels[host].disk = Some(record);
    }

    /// An operator at that node.
    pub fn order(&mut self, host: usize, to: Option<usize>) {
        let count = self.count();
        self.give(host, Input::Order(OrderId(count), to.map(node_name)));
    }

    /// A client of that sentinel, that logs in as applications do, says one thing and leaves.
    pub fn client_says(&mut self, host: usize, words: &[&str]) {
        let client = ClientId(self.count());
        self.give(host, Input::ClientCame(client, sockets(host, host)));
        let login: &[&str] = &["AUTH", PASSWORD];
        for words in [login, words] {
            let words = words.iter().map(|word| bytes::Bytes::copy_from_slice(word.as_bytes())).collect();
            self.give(host, Input::Command(client, words));
        }
        self.give(host, Input::ClientGone(client));
    }
}
