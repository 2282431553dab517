//! A sentinel: the real core, with a disk that takes its time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use vigie::base::node::SentinelFacts;
use vigie::base::{Instant, Secret};
use vigie::cores::cluster::Part;
use vigie::cores::sentinel::names::Request;
use vigie::cores::sentinel::{
    Answer, ClientId, Config, DataNode, Durable, Input, LinkId, Logins, MasterConfig, Membership, OrderId, Output,
    Record, Sentinel, Settings, Sockets, Voter,
};
use vigie::runtime::drive::Flow;

use crate::drive::{Driver, Kind, Lane, Lives};
use crate::net::{Packet, Way};
#[cfg(feature = "sabotage")]
use crate::sabotage::Broken;
use crate::world::{Happening, World, group_name, ms, node_name, redis_at, sentinel_at};

/// What applications log in with.
const PASSWORD: &str = "known-to-applications";

/// One sentinel, and its disk.
#[derive(Default)]
pub struct Actor {
    /// None: no process.
    pub core: Option<Driver<Sentinel>>,
    /// What survives a crash.
    pub disk: Option<Record>,
    /// What it last said of itself: what a client would hear that asks it.
    pub said: Option<SentinelFacts>,
    /// Its open connections.
    pub links: BTreeMap<LinkId, u64>,
    /// The far end of every link it ever had: its host, and whether a sentinel is there. What was heard may be taken in when
    /// the link is gone.
    pub ends: BTreeMap<LinkId, (usize, bool)>,
    /// Connections of others to it.
    pub clients: BTreeMap<ClientId, u64>,
    storing: Option<Storing>,
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
            lease: self.plan.lease,
            fencing: self.disks[host].fencing,
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
            seed: self.plan.seed ^ (self.workers[host].boot << 32) ^ host as u64,
        }
    }

    /// A sentinel with what is on its disk.
    pub fn new_sentinel(&mut self, host: usize) -> Sentinel {
        let core = if self.plan.drop_in {
            self.drop_in(host)
        } else {
            let durable = match self.sentinels[host].disk.clone() {
                Some(Record::Votes(durable)) => durable,
                Some(Record::Everything(_)) | None => Durable::new(self.dice.id()),
            };
            Sentinel::new(self.sentinel_config(host), durable, self.local(host))
        };
        #[cfg(feature = "sabotage")]
        let core = match self.sabotage {
            Some(Broken::Sentinel(rule)) => core.without(rule),
            Some(Broken::Router(_) | Broken::Lease(_) | Broken::Promise(_)) | None => core,
        };
        core
    }

    /// Its process dies. `told`: its connections are closed by the kernel; else the host is gone with it.
    pub fn sentinel_dies(&mut self, host: usize, told: bool) {
        self.sentinels[host].core = None;
        self.checks.takeovers_forgotten(host);
        // A store that was under way is either there or not.
        if let Some(storing) = self.sentinels[host].storing.take()
            && !self.disks[host].broken
            && self.dice.chance(500)
        {
            self.on_disk(host, storing.record);
        }
        self.drop_far(host, true, told);
        self.sentinels[host] = Actor { disk: self.sentinels[host].disk.take(), ..Actor::default() };
    }

    /// What a sentinel says now, if it runs.
    pub fn said(&self, host: usize) -> Option<&SentinelFacts> {
        self.sentinels[host].said.as_ref()
    }

    /// Gives an input to a sentinel.
    pub fn give(&mut self, host: usize, input: Input) {
        self.feed::<Sentinel>(host, Lane::First, input);
    }

    /// The same of what its clients say.
    pub fn give_later(&mut self, host: usize, input: Input) {
        self.feed::<Sentinel>(host, Lane::Crowd, input);
    }
}

impl Lives<Sentinel> for World {
    const KIND: Kind = Kind::Sentinel;

    fn driver(&mut self, host: usize) -> Option<&mut Driver<Sentinel>> {
        self.sentinels.get_mut(host)?.core.as_mut()
    }

    fn hears(&mut self, host: usize, now: Instant, input: &Input) {
        let about = match input {
            Input::Reply(link, ..) | Input::LinkUp(link, _) | Input::LinkDown(link, _) => {
                self.sentinels[host].ends.get(link).copied()
            }
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
            | Input::Risks(_)
            | Input::Takeover(_)
            | Input::Renew(_)
            | Input::Stop => None,
        };
        self.checks.all_said(host);
        self.checks.hears(host, about, input, now);
        if let Input::Takeover(order) = input {
            self.checks.takeover_ordered(*order);
        }
        if let Some(line) = self.trace.on.then(|| crate::trace::input(input)).flatten() {
            self.trace.lines.push(format!("{} s{host} < {line}", self.now));
        }
        self.stats.turns += 1;
    }

    fn carry_out(&mut self, host: usize, output: Output) -> Option<Flow<Input>> {
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
                let Some(id) = self.sentinels[host].links.get(&link).copied() else { return Some(Flow::Done) };
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
                self.sentinels[host].said = Some((*facts).clone());
                if self.plan.linked {
                    self.post(host, Part::Sentinel(*facts));
                }
            }
            Output::Kill(client) => self.kill_client(host, client),
            Output::Ask(client, question) => {
                let fact = self.fact(question);
                return Some(Flow::Feed(Input::Told(client, fact)));
            }
            Output::Script(request) => self.script(host, request),
            Output::Resolve(Request::Resolve(name)) => self.resolve(host, name),
            Output::CheckScript(path) => {
                let can_run = Self::can_run(&path);
                return Some(Flow::Feed(Input::ScriptChecked(path, can_run)));
            }
            Output::Exit(_) => self.exited(host),
            Output::Fault(reason) => {
                if self.plan.linked {
                    self.post(host, Part::Fault { source: "sentinel", reason });
                }
            }
            Output::Protocol(..) | Output::WrongPassword(_) | Output::LogLevel(_) | Output::Why(..) => {}
            Output::Said(order, _) => self.checks.takeover_over(order),
            Output::Publish(event) => self.check_event(host, &event),
            Output::OrderDone(order, result) => {
                self.stats.orders += 1;
                self.stats.orders_done += u64::from(result.is_ok());
                self.handed_over(host, order);
            }
            Output::Stopped => self.later(Duration::ZERO, Happening::Left(host, self.workers[host].boot)),
        }
        Some(Flow::Done)
    }
}

impl World {
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
        let (serial, takes) = (self.count(), self.store_takes(host));
        if self.sentinels[host].storing.is_some() {
            self.checks.violated(format!("s{host} stores before it knows what became of the last store"));
        }
        self.sentinels[host].storing = Some(Storing { serial, record });
        self.later(takes, Happening::Stored(host, serial));
    }

    /// A store has ended, well or not.
    pub fn stored(&mut self, host: usize, serial: u64) {
        // A process that is stopped hears of its disk later; the kernel does not wait for it.
        let storing = self.sentinels[host].storing.take_if(|storing| storing.serial == serial);
        let Some(storing) = storing else { return };
        self.stats.stores += 1;
        let stored = if self.disks[host].broken {
            self.checks.not_on_disk(host);
            Err("input/output error".to_owned())
        } else {
            self.on_disk(host, storing.record);
            Ok(())
        };
        self.give(host, Input::Stored(stored));
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
        self.give_later(host, Input::ClientCame(client, sockets(host, host)));
        let login: &[&str] = &["AUTH", PASSWORD];
        for words in [login, words] {
            let words = words.iter().map(|word| bytes::Bytes::copy_from_slice(word.as_bytes())).collect();
            self.give_later(host, Input::Command(client, words));
        }
        self.give_later(host, Input::ClientGone(client));
    }
}
