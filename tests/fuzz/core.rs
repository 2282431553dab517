//! The sentinel core under what clients, redis and other sentinels may send.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use vigie::base::{Instant, Machine, RunId, Secret};
use vigie::cores::sentinel::{
    ClientId, Config, DataNode, Durable, Input, LinkId, MasterConfig, NodeFacts, Output, Sentinel, Tag, Voter,
};
use vigie::wire::frame::{
    Decision, Frame, Health, History, MasterFacts, NodeState, Process, ProxyFacts, RedisFacts, RedisRole, Roles,
    SentinelFacts, VipFacts, VipState, clipped,
};
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
    let master = MasterConfig {
        name: "mymaster".to_owned(),
        quorum: 2,
        down_after: Duration::from_millis(500),
        busy_grace: Duration::from_secs(5),
        failover_timeout: Duration::from_secs(10),
        parallel_syncs: 1,
        nodes: nodes.collect(),
    };
    let config = Config {
        me: name(0),
        voters: (0..3).map(|n| Voter { name: name(n), address: address(n, 26379) }).collect(),
        masters: vec![master],
        password: Some(Secret::new("a-password")),
        trusted: (0..3).map(|n| address(n, 0).ip()).collect(),
        seed: 1,
    };
    Sentinel::new(config, Durable::new(RunId([7; 20])), now)
}

/// The core, its clock, and the questions that wait for an answer.
struct Run {
    core: Sentinel,
    now: Instant,
    turns: usize,
    links: Vec<LinkId>,
    asked: Vec<(LinkId, Tag)>,
}

impl Run {
    fn new() -> Self {
        let now = Instant::from_millis(1_000_000);
        Self { core: sentinel(now), now, turns: 0, links: Vec::new(), asked: Vec::new() }
    }

    fn feed(&mut self, input: Input) {
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
                Output::Store(_)
                | Output::Respond(..)
                | Output::Dismiss(_)
                | Output::Post(_)
                | Output::Fault(_)
                | Output::Publish(_)
                | Output::OrderDone(..)
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
            let Some(words) = inline(&mut data) else { return };
            take(Ok(Reply::Array(words.into_iter().map(Reply::Bulk).collect())));
        }
    }
}

/// Two clients, one from a node of the cluster and one from elsewhere, say what the input says, with the master known.
pub(crate) fn commands(input: &[u8]) {
    let mut run = Run::new();
    run.feed(Input::Facts(Box::new(facts(1))));
    let (near, far) = (ClientId(1), ClientId(2));
    run.feed(Input::ClientCame(near, address(1, 0).ip()));
    run.feed(Input::ClientCame(far, address(77, 0).ip()));
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
        Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Null | Reply::Array(_) => None,
    }
}

/// Redis and the other sentinels answer with what the input says, whatever was asked; strings are greetings, too.
pub(crate) fn answers(input: &[u8]) {
    let mut run = Run::new();
    run.feed(Input::Facts(Box::new(facts(1))));
    let mut step = 0_usize;
    each(input, |value| {
        run.wait(Duration::from_millis(10));
        for link in std::mem::take(&mut run.links) {
            run.feed(Input::LinkUp(link));
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
    NodeFacts { node: name(n), redis: state.redis, sentinel: state.sentinel, fresh: true }
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
        proxy: Some(ProxyFacts { listening: true, route: Some(decision), clients: 17 }),
        vips: [VipFacts { virtual_router_id: 51, state: VipState::Master, priority: 101 }].into_iter().collect(),
    };
    let full = Frame { cluster: clipped("mymaster"), boot: 1, sequence: 2, nonce: 3, echo: 4, state };
    let mut bare = full.clone();
    bare.state.health = Health::Good;
    bare.state.roles = Roles::default();
    (bare.state.redis, bare.state.sentinel, bare.state.proxy) = (None, None, None);
    bare.state.vips.clear();
    [full, bare]
}
