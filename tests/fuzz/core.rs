//! The sentinel core under what clients, redis and other sentinels may send.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use vigie::base::lease::{Grant, Tenure, Terms};
use vigie::base::node::{
    Decision, Health, History, MasterFacts, Mode, NodeState, Process, ProxyFacts, RedisFacts, RedisRole, Roles,
    SentinelFacts, VipFacts, VipState, clipped,
};
use vigie::base::{Instant, Machine, RunId, Secret};
use vigie::cores::sentinel::{
    Access, Acl, ClientId, Config, DataNode, Durable, Fact, Input, LinkId, Logins, MasterConfig, MasterState,
    Membership, NodeFacts, Output, Place, Question, Record, Sentinel, Settings, Sockets, State, Tag, Voter, names,
};
use vigie::wire::frame::{Frame, NEWEST};
use vigie::wire::resp::{Decoder, Reply, inline};
use vigie::wire::scan::Limits;

/// More outputs of one input than this are an avalanche.
const OUTPUTS_MAX: usize = 20_000;
/// Turns of one run: a core that asks for a turn at once, for ever, is seen by it.
const TURNS_MAX: usize = 100_000;

fn address(last: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(last).unwrap_or(0) + 1], port))
}

fn name(n: usize) -> vigie::base::NodeName {
    format!("redis-0{}", n + 1).parse().expect("a good name")
}

/// A sentinel with two peers and three redis.
fn sentinel(now: Instant) -> Sentinel {
    let nodes = (0..3).map(|n| DataNode { name: name(n), address: address(n, 6379), bootstrap: n == 0 });
    let (password, voter) =
        (Some(Secret::new("a-password")), |n| Voter { name: name(n), address: address(n, 26379), stock: n == 2 });
    let config = Config {
        membership: Membership::Voters { me: name(0), all: (0..3).map(voter).collect() },
        masters: vec![MasterConfig {
            down_after: Duration::from_millis(500),
            busy_grace: Duration::from_secs(5),
            nodes: nodes.collect(),
            auth_pass: password.clone(),
            ..MasterConfig::new("mymaster", 2)
        }],
        settings: Settings { sentinel_pass: password.clone(), ..Settings::default() },
        logins: password.map(|password| Logins { applications: password.clone().into(), cluster: password.into() }),
        seed: 1,
    };
    Sentinel::new(config, Durable::new(RunId([7; 20])), now)
}

/// One without a cluster file, which everybody may change.
fn alone(now: Instant) -> Sentinel {
    let config = Config {
        membership: Membership::Discovered { port: 26379 },
        masters: Vec::new(),
        settings: Settings::default(),
        logins: None,
        seed: 1,
    };
    let place = Place::new("10.0.0.1", 6379).expect("an address and a port");
    let settings = Settings { resolve_hostnames: true, deny_scripts_reconfig: false, ..Settings::default() };
    let masters = vec![MasterState::new(MasterConfig::new("mymaster", 2), place)];
    let sentinel = Sentinel::alone(&config, State { settings, masters, ..State::default() }, RunId([7; 20]), now);
    let users = Acl::from_lines(&[], None).expect("nobody is somebody");
    sentinel.with_access(Access::Acl(users), false)
}

/// The core, its clock, and the questions that wait for an answer.
struct Run {
    core: Sentinel,
    now: Instant,
    turns: usize,
    links: Vec<LinkId>,
    asked: Vec<(LinkId, Tag)>,
    stored: usize,
}

fn fact(question: Question) -> Fact {
    match question {
        Question::Usage => Fact::Usage(Box::default()),
        Question::Random(bytes) => Fact::Random(vec![7; bytes]),
        Question::LoadUsers => Fact::Users(Ok("user default on nopass ~* &* +@all".to_owned())),
        Question::SaveUsers(_) => Fact::Saved(Ok(())),
    }
}

impl Run {
    fn new(make: fn(Instant) -> Sentinel) -> Self {
        let now = Instant::from_millis(1_000_000);
        Self { core: make(now), now, turns: 0, links: Vec::new(), asked: Vec::new(), stored: 0 }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.take(input, &mut inputs);
        }
    }

    fn take(&mut self, input: Input, next: &mut VecDeque<Input>) {
        let mut out = Vec::new();
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "no end of turns");
        let ticked = input == Input::Tick;
        self.core.handle(self.now, input, &mut out);
        assert!(out.len() < OUTPUTS_MAX, "{} outputs", out.len());
        if ticked && let Some(deadline) = self.core.deadline() {
            assert!(deadline > self.now, "a tick at {} asks for one at {deadline}", self.now);
        }
        for output in out {
            match output {
                Output::Connect { link, .. } => self.links.push(link),
                Output::Hangup(link) => {
                    self.links.retain(|other| *other != link);
                    self.asked.retain(|(other, _)| *other != link);
                }
                Output::Query { link, tag, .. } => self.asked.push((link, tag)),
                Output::Store(Record::Votes(_)) => next.push_back(Input::Stored(Ok(()))),
                Output::Store(Record::Everything(state)) => {
                    // A disk that fails now and then.
                    self.stored += 1;
                    if self.stored.is_multiple_of(5) {
                        next.push_back(Input::Stored(Err("no space left".to_owned())));
                        return;
                    }
                    assert!(state.masters.iter().all(|master| !master.config.name.is_empty()));
                    next.push_back(Input::Stored(Ok(())));
                }
                Output::CheckScript(path) => {
                    let executable = path.len().is_multiple_of(2);
                    next.push_back(Input::ScriptChecked(path, executable));
                }
                Output::Ask(client, question) => next.push_back(Input::Told(client, fact(question))),
                Output::Resolve(names::Request::Resolve(name)) => {
                    let found =
                        if name.len() > 3 { Ok(vec![address(2, 0).ip()]) } else { Err("no such host".to_owned()) };
                    next.push_back(Input::Resolved(names::Answer { name, found }));
                }
                Output::Respond(..)
                | Output::Protocol(..)
                | Output::WrongPassword(_)
                | Output::Kill(_)
                | Output::Why(..)
                | Output::Script(_)
                | Output::LogLevel(_)
                | Output::Exit(_)
                | Output::Dismiss(_)
                | Output::Post(_)
                | Output::Fault(_)
                | Output::Publish(_)
                | Output::OrderDone(..)
                | Output::Said(..)
                | Output::Stopped => {}
            }
        }
    }

    /// Lets time pass, with a tick at every deadline.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.core.deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.feed(Input::Tick);
        }
        self.now = until;
    }
}

/// Every value of a stream of RESP and of inline commands, as the port for clients reads it.
fn each(input: &[u8], mut take: impl FnMut(Result<Reply, String>)) {
    let limits = Limits { bulk_max: 16 * 1024, elements_max: 1_024 };
    let (mut data, mut decoder) = (BytesMut::from(input), Decoder::new(limits));
    while let Some(first) = data.first() {
        if b"*$+-:_%~>#,(=|".contains(first) {
            match decoder.next(&mut data) {
                Ok(Some(value)) => take(Ok(value)),
                Ok(None) => return,
                Err(fault) => return take(Err(fault.to_string())),
            }
        } else {
            match inline(&mut data) {
                Some(Ok(words)) => take(Ok(Reply::Array(words.into_iter().map(Reply::Bulk).collect()))),
                Some(Err(fault)) => return take(Err(fault.to_string())),
                None => return,
            }
        }
    }
}

/// Two clients, one from a node of the cluster and one from elsewhere, say what the input says, with the master known.
pub(crate) fn commands(input: &[u8]) {
    [sentinel, alone].into_iter().for_each(|make| commands_of(make, input));
}

fn commands_of(make: fn(Instant) -> Sentinel, input: &[u8]) {
    let mut run = Run::new(make);
    run.feed(Input::Facts(Box::new(facts(1))));
    let (near, far) = (ClientId(1), ClientId(2));
    let sockets = |n| Sockets { peer: address(n, 50_000), local: address(0, 26379), fd: 9 };
    run.feed(Input::ClientCame(near, sockets(1)));
    run.feed(Input::ClientCame(far, sockets(77)));
    each(input, |value| {
        for client in [near, far] {
            match &value {
                Ok(Reply::Array(elements)) => {
                    let words: Option<Vec<Bytes>> = elements.iter().map(word).collect();
                    if let Some(words) = words.filter(|words| !words.is_empty()) {
                        run.feed(Input::Command(client, words));
                    }
                }
                Ok(_) => run.feed(Input::Garbage(client, "expected an array of bulk strings".to_owned())),
                Err(fault) => run.feed(Input::Garbage(client, fault.clone())),
            }
        }
        run.wait(Duration::from_millis(30));
    });
    run.feed(Input::ClientGone(near));
    run.wait(Duration::from_secs(2));
    run.feed(Input::Stop);
}

fn word(reply: &Reply) -> Option<Bytes> {
    match reply {
        Reply::Bulk(bytes) => Some(bytes.clone()),
        Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => None,
    }
}

/// Redis and the other sentinels answer with what the input says, whatever was asked; strings are greetings, too.
pub(crate) fn answers(input: &[u8]) {
    [sentinel, alone].into_iter().for_each(|make| answers_to(make, input));
}

fn answers_to(make: fn(Instant) -> Sentinel, input: &[u8]) {
    let mut run = Run::new(make);
    run.feed(Input::Facts(Box::new(facts(1))));
    let mut step = 0_usize;
    each(input, |value| {
        run.wait(Duration::from_millis(10));
        for link in std::mem::take(&mut run.links) {
            run.feed(Input::LinkUp(link, address(0, 0).ip()));
        }
        let Ok(reply) = value else { return };
        step += 1;
        // The longer the answers, the more links have been lost.
        if step.is_multiple_of(7)
            && let Some((link, _)) = run.asked.first().copied()
        {
            run.asked.retain(|(other, _)| *other != link);
            run.feed(Input::LinkDown(link, "connection reset".to_owned()));
        }
        for (link, tag) in std::mem::take(&mut run.asked) {
            run.feed(Input::Reply(link, tag, reply.clone()));
            if let Reply::Bulk(payload) = &reply {
                run.feed(Input::Message(link, payload.clone()));
            }
        }
        run.wait(Duration::from_millis(100));
    });
    run.wait(Duration::from_secs(3));
}

/// What a node says over the peer link: a master and a sentinel that leads.
fn facts(n: usize) -> NodeFacts {
    let state = frames()[0].state.clone();
    let lease = state.tenure.open();
    NodeFacts {
        node: name(n),
        redis: state.redis,
        sentinel: state.sentinel,
        lease,
        granted: None,
        hears_majority: state.hears_majority,
        terms: vigie::base::lease::FileTerms::Same { fencing: true },
        fresh: true,
        overdue_since: None,
    }
}

/// Frames of a node with every role, and of one with none.
pub(crate) fn frames() -> [Frame; 2] {
    let id = RunId([5; 20]);
    let decision = Decision { master: address(0, 6379), epoch: 3 };
    let master = MasterFacts {
        name: clipped("mymaster"),
        decision: Some(decision),
        sees_down: false,
        leads: Some(4),
        vote: Some((id, 4)),
        target: Some(1 << 40),
        mode: Some(Mode::Fenced),
    };
    let state = NodeState {
        name: name(1),
        version: clipped("0.1.0"),
        roles: Roles { proxy: true, redis: true, sentinel: true },
        health: Health::bad("no route to the master"),
        redis: Some(RedisFacts {
            address: address(1, 6379),
            incarnation: 2,
            process: Process::Alive,
            role: RedisRole::Replica { of: address(0, 6379), link_up: true },
            run_id: Some(id),
            replication_id: Some(id),
            offset: 12_345,
            priority: 100,
            has_data: true,
            history: Some(History { epoch: 3, in_sync: true, offset: 12_000 }),
        }),
        sentinel: Some(SentinelFacts { id, current_epoch: 4, masters: [master].into_iter().collect() }),
        proxy: Some(ProxyFacts { listening: true, route: Some(decision), clients: 17, held: Some(5) }),
        vips: [VipFacts { virtual_router_id: 51, state: VipState::Master, priority: 101 }].into_iter().collect(),
        tenure: Tenure::Asks { epoch: 4, open: Some(4), grants: 0b110, slack: Duration::from_millis(140) },
        terms: Terms { voters: 7, lease: Some(Duration::from_millis(250)) },
        hears_majority: true,
        draining: false,
    };
    let full = Frame {
        cluster: clipped("mymaster"),
        boot: 1,
        sequence: 2,
        nonce: 3,
        echo: 4,
        stamp: 5,
        heard: 4,
        grant: Some(Grant {
            incarnation: 2,
            epoch: 4,
            stamp: Instant::from_millis(7),
            lease: Duration::from_millis(250),
        }),
        left: Duration::from_millis(200),
        reads: NEWEST,
        state,
    };
    let mut bare = full.clone();
    bare.state.health = Health::Good;
    bare.state.roles = Roles::default();
    (bare.state.redis, bare.state.sentinel, bare.state.proxy) = (None, None, None);
    bare.state.vips.clear();
    [full, bare]
}
