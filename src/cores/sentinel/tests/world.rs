//! A small cluster in virtual time: real sentinel cores, modelled redis, a peer link, a network that can be cut.

use std::collections::{BTreeMap, VecDeque};

use crate::base::node::{History, MasterFacts, RedisFacts, SentinelFacts};
use crate::base::{Machine, Secret};
use crate::wire::info::CLOSED;

use super::super::*;
use super::model::{Server, Session, Words};
use super::redis::started;

pub(super) const DOWN_AFTER: Duration = Duration::from_millis(500);
const LATENCY: Duration = Duration::from_micros(200);
/// How often what waits for a redis that stands still is tried again.
const HUNG: Duration = Duration::from_millis(5);
/// Without a frame for so long a node is not fresh any more.
const FRESH: Duration = Duration::from_millis(300);
/// Between two frames, and when their absence is told.
const FRAMES: Duration = Duration::from_millis(75);
const OVERDUE: Duration = Duration::from_millis(200);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn redis_at(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap() + 1], 6379))
}

fn sentinel_at(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap() + 1], 26379))
}

pub(super) fn name(n: usize) -> NodeName {
    format!("n-{n}").parse().unwrap()
}

pub(super) fn id(kind: u8, n: usize, count: u64) -> RunId {
    let mut id = [kind; 20];
    id[1] = u8::try_from(n).unwrap();
    id[12..].copy_from_slice(&count.to_be_bytes());
    RunId(id)
}

pub(super) fn sockets(from: IpAddr) -> Sockets {
    Sockets { peer: SocketAddr::new(from, 40_000), local: sentinel_at(0), fd: 9 }
}

fn fact(question: Question) -> Fact {
    match question {
        Question::Usage => Fact::Usage(Box::default()),
        Question::Random(count) => Fact::Random(vec![0xa5; count]),
        Question::LoadUsers => Fact::Users(Ok("user default on nopass ~* &* +@all\nuser bob on >pw +@all\n".into())),
        Question::SaveUsers(_) => Fact::Saved(Err("disk on fire".into())),
    }
}

/// One end of a connection of a sentinel.
pub(super) struct Wire {
    sentinel: usize,
    pub(super) address: SocketAddr,
    up: bool,
    /// What a redis at its far end knows of it.
    pub(super) session: Session,
    /// What the replies to come answer.
    pub(super) tags: VecDeque<Tag>,
    client: ClientId,
    born: u64,
}

enum Happening {
    Input(usize, u64, Input),
    /// A query arrives at the far end of a link.
    Arrive(usize, LinkId, Tag, Words),
    Connected(usize, LinkId),
    /// A fact of a node reaches a sentinel.
    Facts(usize, usize),
    Stale(usize, usize, u64),
    /// Nothing has come of it since it should have.
    Overdue(usize, usize, u64, Instant),
    /// The process of a redis has the lease of that epoch.
    Granted(usize, u64, Epoch),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) sentinels: Vec<Option<Sentinel>>,
    boots: Vec<u64>,
    pub(super) disks: Vec<Option<Durable>>,
    /// What is on the disks of sentinels without a cluster file; none: they have one.
    pub(super) states: Option<Vec<State>>,
    pub(super) broken: Vec<bool>,
    pub(super) exits: Vec<(usize, u8)>,
    pub(super) scripts: Vec<(usize, scripts::Request)>,
    pub(super) redis: Vec<Server>,
    /// What their supervisors remember.
    pub(super) histories: Vec<Option<History>>,
    /// What is left in the socket of a replica whose master has died, and when it has read that.
    pub(super) drains: Vec<Option<(Instant, Vec<u32>)>>,
    pub(super) facts: Vec<(RedisFacts, Option<SentinelFacts>)>,
    told: Vec<Vec<Option<NodeFacts>>>,
    /// How often each redis was pinged.
    pub(super) pings: Vec<u64>,
    /// By node and who misses its frames, since when.
    overdue: Vec<Vec<Option<Instant>>>,
    /// The lease that masters need; none: the cluster is not fenced.
    pub(super) lease: Option<Duration>,
    /// The epoch of the lease by which each redis takes writes.
    pub(super) leases: Vec<Option<Epoch>>,
    /// Whose redis refuses to take writes.
    pub(super) refuses: Vec<bool>,
    /// The epoch of the lease that such a one was granted.
    granted: Vec<Option<Epoch>>,
    /// Hosts cut from all others.
    pub(super) cut: Vec<bool>,
    cuts: Vec<u64>,
    pub(super) supervised: bool,
    pub(super) wires: BTreeMap<(usize, LinkId), Wire>,
    queue: BTreeMap<(Instant, u64), Happening>,
    pub(super) count: u64,
    pub(super) events: Vec<(Instant, usize, Event)>,
    pub(super) done: Vec<Result<FailoverReport, String>>,
    pub(super) said_to_operator: Vec<Result<String, String>>,
    pub(super) answers: BTreeMap<ClientId, Vec<Answer>>,
    pub(super) faults: Vec<Option<String>>,
    votes: BTreeMap<(usize, Epoch), RunId>,
    pub(super) password: Option<String>,
}

impl World {
    /// Three nodes with a sentinel and a closed redis each; the first one is to become master.
    pub(super) fn new() -> Self {
        let mut world = Self::empty();
        (0..3).for_each(|n| world.start(n));
        world
    }

    /// The same in a cluster with leases, settled.
    pub(super) fn fenced() -> Self {
        let mut world = Self::empty();
        world.lease = Some(ms(250));
        (0..3).for_each(|n| world.start(n));
        world.settle();
        world
    }

    /// The same, with nobody running yet.
    pub(super) fn unstarted() -> Self {
        Self::empty()
    }

    fn empty() -> Self {
        let mut world = Self {
            now: Instant::from_millis(1_000),
            sentinels: Vec::new(),
            boots: vec![0; 3],
            disks: vec![None, None, None],
            states: None,
            broken: vec![false; 3],
            exits: vec![],
            scripts: vec![],
            redis: (0..3).map(|n| started(n, Some(CLOSED))).collect(),
            histories: vec![None; 3],
            drains: vec![None, None, None],
            facts: vec![],
            told: vec![vec![None; 3]; 3],
            pings: vec![0; 3],
            overdue: vec![vec![None; 3]; 3],
            lease: None,
            leases: vec![None; 3],
            refuses: vec![false; 3],
            granted: vec![None; 3],
            cut: vec![false; 3],
            cuts: vec![0; 3],
            supervised: true,
            wires: BTreeMap::new(),
            queue: BTreeMap::new(),
            count: 0,
            events: vec![],
            done: vec![],
            said_to_operator: vec![],
            answers: BTreeMap::new(),
            faults: vec![None; 3],
            votes: BTreeMap::new(),
            password: None,
        };
        world.facts = (0..3).map(|n| (world.facts_of(n), None)).collect();
        world.sentinels.resize_with(3, || None);
        world
    }

    /// Three sentinels that have nothing but a file that names a running master with two replicas.
    pub(super) fn alone() -> Self {
        let mut world = Self::empty();
        world.supervised = false;
        world.redis = (0..3).map(|n| started(n, (n > 0).then(|| redis_at(0)))).collect();
        world.redis[0].write(1_000);
        world.replicate();
        let place = Place { host: redis_at(0).ip().to_string(), port: 6379 };
        let config =
            MasterConfig { down_after: DOWN_AFTER, failover_timeout: ms(10_000), ..MasterConfig::new("mymaster", 2) };
        let masters = vec![MasterState::new(config, place)];
        world.states = Some(vec![State { masters, ..State::default() }; 3]);
        (0..3).for_each(|n| world.start(n));
        world
    }

    /// The same, settled with node 0 as the master and some data.
    pub(super) fn settled() -> Self {
        let mut world = Self::new();
        world.settle();
        world
    }

    pub(super) fn settle(&mut self) {
        self.run(ms(3_000));
        self.redis[0].write(1_000);
        self.run(ms(3_000));
        assert_eq!(self.master(), Some(0), "{:#?}", self.events);
        assert!(self.redis[1..].iter().all(|redis| redis.is_in_sync_with(redis_at(0))));
        self.events.clear();
        self.redis.iter_mut().for_each(|redis| redis.log.clear());
    }

    pub(super) fn config(&self, n: usize) -> Config {
        let nodes = (0..3).map(|n| DataNode { name: name(n), address: redis_at(n), bootstrap: n == 0 }).collect();
        Config {
            membership: Membership::Voters {
                me: name(n),
                all: (0..3).map(|n| Voter { name: name(n), address: sentinel_at(n), stock: false }).collect(),
            },
            settings: Settings { sentinel_pass: self.password.clone().map(Secret::new), ..Settings::default() },
            masters: vec![MasterConfig {
                down_after: DOWN_AFTER,
                busy_grace: ms(5_000),
                failover_timeout: ms(10_000),
                nodes,
                lease: self.lease,
                fencing: self.lease.is_some(),
                auth_pass: self.password.clone().map(Secret::new),
                ..MasterConfig::new("mymaster", 2)
            }],
            logins: self.password.clone().map(|password| {
                let secrets = crate::base::Secrets::from(Secret::new(password));
                Logins { applications: secrets.clone(), cluster: secrets }
            }),
            seed: n as u64,
        }
    }

    pub(super) fn start(&mut self, n: usize) {
        self.boots[n] += 1;
        let durable = self.disks[n].clone().unwrap_or_else(|| Durable::new(id(5, n, 1)));
        self.sentinels[n] = Some(match &self.states {
            Some(states) => {
                let config =
                    Config { membership: Membership::Discovered { port: 26379 }, masters: vec![], ..self.config(n) };
                Sentinel::alone(&config, states[n].clone(), durable.id, self.now)
            }
            None => Sentinel::new(self.config(n), durable, self.now),
        });
        self.told[n] = vec![None; 3];
        if self.supervised {
            self.announce_all(n);
        }
        self.feed(n, Input::Tick);
    }

    fn announce_all(&mut self, to: usize) {
        for node in 0..3 {
            self.later(LATENCY, Happening::Facts(node, to));
        }
    }

    /// The process of a sentinel dies; its node's frames end.
    pub(super) fn crash_sentinel(&mut self, n: usize) {
        self.sentinels[n] = None;
        self.boots[n] += 1;
        self.facts[n].1 = None;
        self.wires.retain(|(sentinel, _), _| *sentinel != n);
        self.drop_links(sentinel_at(n));
        for to in 0..3 {
            self.later(LATENCY, Happening::Facts(n, to));
        }
    }

    pub(super) fn drop_links(&mut self, address: SocketAddr) {
        let lost: Vec<_> = self.wires.iter().filter(|(_, wire)| wire.address == address).map(|(key, _)| *key).collect();
        for (sentinel, link) in lost {
            self.wires.remove(&(sentinel, link));
            self.give(sentinel, Input::LinkDown(link, "connection reset".into()));
        }
    }

    pub(super) fn cut(&mut self, n: usize, cut: bool) {
        self.cut[n] = cut;
        self.cuts[n] += 1;
        for other in (0..3).filter(|other| *other != n) {
            if cut {
                let (cuts, due) = (self.cuts[n], self.now + FRAMES);
                for (node, to) in [(n, other), (other, n)] {
                    self.later(OVERDUE, Happening::Overdue(node, to, cuts, due));
                    self.later(FRESH, Happening::Stale(node, to, cuts));
                }
            } else {
                self.later(LATENCY, Happening::Facts(n, other));
                self.later(LATENCY, Happening::Facts(other, n));
            }
        }
        self.replicate();
    }

    pub(super) fn reach(&self, a: usize, b: usize) -> bool {
        a == b || !(self.cut[a] || self.cut[b])
    }

    fn later(&mut self, delay: Duration, what: Happening) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), what);
    }

    pub(super) fn give(&mut self, sentinel: usize, input: Input) {
        let boot = self.boots[sentinel];
        self.later(LATENCY, Happening::Input(sentinel, boot, input));
    }

    pub(super) fn host(address: SocketAddr) -> usize {
        match address {
            SocketAddr::V4(address) => usize::from(address.ip().octets()[3]) - 1,
            SocketAddr::V6(_) => panic!("no such host"),
        }
    }

    /// Sentinel `to` hears on the peer link that the one of `from` stands for election in `epoch`.
    pub(super) fn stands(&mut self, from: usize, epoch: Epoch, to: usize) {
        let (redis, sentinel) = self.facts[from].clone();
        let mut facts = sentinel.expect("it runs");
        facts.current_epoch = epoch;
        (facts.masters[0].vote, facts.masters[0].leads) = (Some((facts.id, epoch)), Some(epoch));
        let facts = NodeFacts::unfenced(name(from), Some(redis), Some(facts), true);
        self.feed(to, Input::Facts(Box::new(facts)));
    }

    /// The highest epoch that a sentinel has seen.
    pub(super) fn epoch_seen(&self, n: usize) -> Epoch {
        self.sentinels[n].as_ref().map_or(0, |sentinel| sentinel.agreement.current_epoch)
    }

    /// The last vote that a sentinel has told of.
    pub(super) fn vote_of(&self, n: usize) -> Option<(RunId, Epoch)> {
        self.facts[n].1.as_ref().and_then(|facts| facts.masters[0].vote)
    }

    pub(super) fn announce(&mut self, n: usize) {
        if self.supervised {
            for to in 0..3 {
                self.later(LATENCY, Happening::Facts(n, to));
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let (mut at, mut steps) = (self.now, 0);
        while self.step(end) {
            steps = if self.now == at { steps + 1 } else { 0 };
            at = self.now;
            assert!(steps < 1_000, "time stands still at {at}; {:#?}", self.told_events());
        }
        self.now = end;
    }

    /// Lets time pass until something holds; how long it took.
    pub(super) fn run_until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let (start, end) = (self.now, self.now + limit);
        while !holds(self) {
            assert!(self.step(end), "not within {limit:?}: {what}; {:#?}", self.told_events());
        }
        self.now.since(start)
    }

    pub(super) fn told_events(&self) -> Vec<String> {
        let line = |(at, n, event): &(Instant, usize, Event)| format!("{at} s{n} {} {}", event.name, event.payload);
        self.events.iter().map(line).collect()
    }

    fn step(&mut self, end: Instant) -> bool {
        let deadlines = self.sentinels.iter().enumerate();
        let tick = deadlines.filter_map(|(n, s)| Some((s.as_ref()?.deadline()?, n))).min();
        let queued = self.queue.keys().next().copied();
        // Replication moves each millisecond.
        let flow = Instant::from_micros((self.now.as_micros() / 1_000 + 1) * 1_000);
        let next =
            [tick.map(|(at, _)| at), queued.map(|(at, _)| at)].into_iter().flatten().min().unwrap_or(end).min(flow);
        if next > end
            || self.now >= end
                && next >= end
                && queued.is_none_or(|(at, _)| at > end)
                && tick.is_none_or(|(at, _)| at > end)
        {
            return false;
        }
        self.now = self.now.max(next);
        self.replicate();
        match (queued, tick) {
            (Some(key), _) if key.0 <= self.now => {
                if let Some(what) = self.queue.remove(&key) {
                    self.happen(what);
                }
            }
            (_, Some((at, n))) if at <= self.now => {
                self.feed(n, Input::Tick);
                let deadline = self.sentinels[n].as_ref().and_then(Sentinel::deadline_for_test);
                assert!(deadline.is_none_or(|next| next > self.now), "a tick must move the deadline");
            }
            _ => {}
        }
        true
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Input(n, boot, input) => {
                if self.boots[n] == boot {
                    self.feed(n, input);
                }
            }
            Happening::Connected(sentinel, link) => self.connected(sentinel, link),
            Happening::Arrive(sentinel, link, tag, words) => self.arrive(sentinel, link, tag, words),
            Happening::Facts(node, to) => {
                let down = self.sentinels[node].is_none();
                if self.reach(node, to) && self.supervised {
                    self.overdue[node][to] = None;
                    self.tell(node, to, !down);
                }
            }
            Happening::Granted(n, incarnation, epoch) => self.granted(n, incarnation, epoch),
            Happening::Overdue(node, to, cuts, since) => {
                if self.cuts[node].max(self.cuts[to]) == cuts && !self.reach(node, to) {
                    self.overdue[node][to] = Some(since);
                    self.tell(node, to, self.told[to][node].as_ref().is_some_and(|facts| facts.fresh));
                }
            }
            Happening::Stale(node, to, cuts) => {
                if self.cuts[node].max(self.cuts[to]) == cuts && !self.reach(node, to) {
                    self.tell(node, to, false);
                }
            }
        }
    }

    /// The frames of a node do not come any more, and all else does.
    pub(super) fn misses(&mut self, node: usize, to: usize) {
        self.overdue[node][to] = Some(self.now);
        self.tell(node, to, true);
    }

    pub(super) fn tell(&mut self, node: usize, to: usize, fresh: bool) {
        let (redis, sentinel) = self.facts[node].clone();
        let lease = self.leases[node].filter(|_| self.redis[node].alive);
        let hears_majority = (0..3).filter(|other| self.reach(node, *other)).count() > 1;
        let terms = crate::base::lease::FileTerms::Same { fencing: self.lease.is_some() };
        let redis = Some(redis);
        let granted = self.granted[node];
        let (name, overdue_since) = (name(node), self.overdue[node][to]);
        let facts =
            NodeFacts { node: name, redis, sentinel, lease, granted, hears_majority, terms, fresh, overdue_since };
        if self.told[to][node].as_ref() != Some(&facts) {
            self.told[to][node] = Some(facts.clone());
            self.feed(to, Input::Facts(Box::new(facts)));
        }
    }

    pub(super) fn feed(&mut self, n: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(sentinel) = self.sentinels[n].as_mut() else { return };
            let mut out = vec![];
            sentinel.handle(self.now, input, &mut out);
            for output in out {
                match output {
                    Output::Store(_) if self.broken[n] => {
                        inputs.push_back(Input::Stored(Err("disk on fire".into())));
                    }
                    Output::Store(record) => {
                        match (record, &mut self.states) {
                            (Record::Votes(durable), _) => self.disks[n] = Some(durable),
                            (Record::Everything(state), Some(states)) => states[n] = *state,
                            (Record::Everything(_), None) => panic!("a file that is not there"),
                        }
                        inputs.push_back(Input::Stored(Ok(())));
                    }
                    Output::CheckScript(path) => {
                        let executable = path.starts_with("/bin/");
                        inputs.push_back(Input::ScriptChecked(path, executable));
                    }
                    Output::Ask(client, question) => inputs.push_back(Input::Told(client, fact(question))),
                    output => self.carry_out(n, output),
                }
            }
        }
    }

    fn carry_out(&mut self, n: usize, output: Output) {
        match output {
            Output::Store(_) | Output::CheckScript(_) | Output::LogLevel(_) | Output::Stopped => {}
            Output::Protocol(..) | Output::WrongPassword(_) | Output::Kill(_) | Output::Ask(..) => {}
            Output::Resolve(request) => {
                let names::Request::Resolve(name) = request;
                let found = match name.strip_prefix("host-").and_then(|n| n.parse::<usize>().ok()) {
                    Some(host) => Ok(vec![redis_at(host).ip()]),
                    None => Err("no such host".to_owned()),
                };
                let answer = names::Answer { name, found };
                let boot = self.boots[n];
                self.later(ms(3), Happening::Input(n, boot, Input::Resolved(answer)));
            }
            Output::Script(request) => self.scripts.push((n, request)),
            Output::Exit(code) => self.exits.push((n, code)),
            Output::Connect { link, address, limit } => self.connect(n, link, address, limit),
            Output::Hangup(link) => drop(self.wires.remove(&(n, link))),
            Output::Query { link, tag, args } => self.later(LATENCY, Happening::Arrive(n, link, tag, args)),
            Output::Respond(client, answer) => self.respond(n, client, answer),
            Output::Dismiss(_) => {}
            Output::Post(_) if self.states.is_some() => {}
            Output::Post(facts) => {
                let disk = self.disks[n].clone().expect("stored before it is posted");
                let stored = disk.masters.first();
                let (decision, vote) =
                    (stored.and_then(|master| master.decision), stored.and_then(|master| master.vote));
                assert_eq!(facts.masters[0].decision, decision, "posted what is not stored");
                assert_eq!(facts.masters[0].vote, vote, "posted what is not stored");
                if let Some((leader, epoch)) = facts.masters[0].vote.filter(|(leader, _)| *leader != NOBODY) {
                    let first = *self.votes.entry((n, epoch)).or_insert(leader);
                    assert_eq!(first, leader, "sentinel {n} voted twice in epoch {epoch}");
                }
                self.facts[n].1 = Some(*facts);
                self.announce(n);
                self.grant();
            }
            Output::Fault(fault) => self.faults[n] = fault,
            Output::Publish(event) => self.events.push((self.now, n, event)),
            Output::OrderDone(_, result) => self.done.push(result),
            Output::Said(_, result) => self.said_to_operator.push(result),
            Output::Why(..) => {}
        }
    }

    /// What links and supervisors do: who is named by a leader, and granted the lease by a majority that has stored the epoch, is
    /// made the master by its own node.
    pub(super) fn grant(&mut self) {
        if self.lease.is_none() {
            return;
        }
        for n in 0..3 {
            let incarnation = self.facts_of(n).incarnation;
            let heard = |by: &usize| self.reach(*by, n) && self.sentinels[*by].is_some();
            let said = |by: usize| self.facts[by].1.as_ref().map(|facts| facts.masters[0].clone());
            let named = (0..3).filter(heard).filter_map(said).filter(|master| master.target == Some(incarnation));
            let Some(epoch) = named.filter_map(|master| master.leads).max() else { continue };
            let stored = |master: &MasterFacts| {
                master.vote.map(|(_, epoch)| epoch).max(master.decision.map(|decision| decision.epoch)) == Some(epoch)
            };
            let free = (0..3).all(|other| other == n || self.leases[other].is_none());
            let granted = (0..3).filter(heard).filter_map(said).filter(stored).count();
            if self.leases[n] < Some(epoch) && free && granted > 1 && self.redis[n].alive {
                self.later(LATENCY, Happening::Granted(n, incarnation, epoch));
            }
        }
    }

    fn granted(&mut self, n: usize, incarnation: u64, epoch: Epoch) {
        if self.facts_of(n).incarnation == incarnation && self.leases[n] < Some(epoch) {
            if self.refuses[n] {
                self.granted[n] = Some(epoch);
                return (0..3).for_each(|to| self.tell(n, to, true));
            }
            if self.redis[n].master.is_some() {
                self.count += 1;
                let id = id(9, n, self.count);
                self.redis[n].promote(self.now, id);
            }
            self.leases[n] = Some(epoch);
            self.replicate();
            self.announce(n);
        }
    }

    fn connect(&mut self, sentinel: usize, link: LinkId, address: SocketAddr, limit: Duration) {
        let host = Self::host(address);
        if !self.reach(sentinel, host) {
            let boot = self.boots[sentinel];
            let input = Input::LinkDown(link, "timed out".into());
            return self.later(limit, Happening::Input(sentinel, boot, input));
        }
        let listens = match address.port() {
            6379 => self.redis[host].alive,
            _ => self.sentinels[host].is_some(),
        };
        if !listens {
            return self.give(sentinel, Input::LinkDown(link, "connection refused".into()));
        }
        self.count += 1;
        let wire = Wire {
            sentinel,
            address,
            up: false,
            session: Session::default(),
            tags: VecDeque::new(),
            client: ClientId(self.count),
            born: self.boots[host],
        };
        self.wires.insert((sentinel, link), wire);
        self.later(LATENCY, Happening::Connected(sentinel, link));
    }

    fn connected(&mut self, sentinel: usize, link: LinkId) {
        let Some(wire) = self.wires.get_mut(&(sentinel, link)) else { return };
        wire.up = true;
        let (host, client, address) = (Self::host(wire.address), wire.client, wire.address);
        if address.port() == 26379 {
            self.feed(host, Input::ClientCame(client, sockets(redis_at(sentinel).ip())));
        }
        self.feed(sentinel, Input::LinkUp(link, redis_at(sentinel).ip()));
    }

    fn arrive(&mut self, sentinel: usize, link: LinkId, tag: Tag, words: Words) {
        let Some(wire) = self.wires.get_mut(&(sentinel, link)) else { return };
        let (address, born, client) = (wire.address, wire.born, wire.client);
        let host = Self::host(address);
        let to_sentinel = address.port() == 26379;
        if to_sentinel && self.boots[host] != born || !self.reach(sentinel, host) {
            return;
        }
        if !to_sentinel && self.redis[host].hung {
            // It lies in the socket until it goes on.
            return self.later(HUNG, Happening::Arrive(sentinel, link, tag, words));
        }
        if let Some(wire) = self.wires.get_mut(&(sentinel, link)) {
            wire.tags.push_back(tag);
        }
        if to_sentinel {
            self.feed(host, Input::Command(client, words));
        } else {
            self.pings[host] += u64::from(words[0] == "PING");
            self.ask_redis(host, (sentinel, link), words);
        }
    }

    fn respond(&mut self, n: usize, client: ClientId, answer: Answer) {
        let wire = self.wires.iter_mut().find(|(_, wire)| wire.client == client && Self::host(wire.address) == n);
        let Some(((sentinel, link), wire)) = wire else {
            self.answers.entry(client).or_default().push(answer);
            return;
        };
        let (sentinel, link) = (*sentinel, *link);
        let Some(tag) = wire.tags.pop_front() else { return };
        assert_eq!(sentinel, wire.sentinel);
        if let Answer::Reply(reply) = answer
            && self.reach(sentinel, n)
        {
            self.give(sentinel, Input::Reply(link, tag, reply.flat()));
        }
    }

    /// The master that all running sentinels agree on, if it serves as one.
    pub(super) fn master(&self) -> Option<usize> {
        let mut known = self.sentinels.iter().zip(&self.cut).filter(|(_, cut)| !**cut).filter_map(|(s, _)| s.as_ref());
        let first = known.next()?.agreement.decision(0)?;
        if known.any(|sentinel| sentinel.agreement.decision(0) != Some(first)) {
            return None;
        }
        let n = Self::host(first.master);
        (self.redis[n].alive && self.redis[n].master.is_none()).then_some(n)
    }

    pub(super) fn epoch(&self, n: usize) -> Epoch {
        self.sentinels[n]
            .as_ref()
            .and_then(|sentinel| sentinel.agreement.decision(0))
            .map_or(0, |decision| decision.epoch)
    }

    pub(super) fn said(&self, event: &str) -> usize {
        self.events.iter().filter(|(_, _, one)| one.name == event).count()
    }

    /// A client's command; its answers so far.
    pub(super) fn ask(&mut self, n: usize, from: IpAddr, args: &[&str]) -> Vec<Answer> {
        self.count += 1;
        let client = ClientId(self.count);
        self.feed(n, Input::ClientCame(client, sockets(from)));
        self.ask_again(n, client, args)
    }

    pub(super) fn ask_again(&mut self, n: usize, client: ClientId, args: &[&str]) -> Vec<Answer> {
        let args = args.iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        self.feed(n, Input::Command(client, args));
        self.answers.remove(&client).unwrap_or_default()
    }
}

impl Sentinel {
    fn deadline_for_test(&self) -> Option<Instant> {
        self.deadline
    }
}
