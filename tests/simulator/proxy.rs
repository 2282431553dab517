//! The proxies: the real machine that decides where writes go, and one that decides for each session; the bytes between them
//! are writes of clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use vigie::base::{Instant, Machine};
use vigie::cores::cluster::Part;
use vigie::cores::proxy::route::{CheckFault, Config, Facts, Input, Output, Route};
use vigie::cores::proxy::session::{self, Session, Step};
use vigie::runtime::drive::Flow;
use vigie::runtime::view::facts;
use vigie::wire::resp::Reply;

use crate::drive::{Driver, Kind, Lane, Lives};
use crate::net::{Owner, Packet, Way};
use crate::redis::Work;
use crate::world::{Happening, World, group_name, ms, redis_at};
use crate::writes::{Via, Write};

/// A check longer than this counts as unanswered.
const CHECK_LIMIT: Duration = ms(250);
/// As in a file that says nothing of these.
const CHECK_INTERVAL: Duration = ms(1_000);
const HOLD_TIMEOUT: Duration = ms(5_000);
const CONNECT_TIMEOUT: Duration = ms(4_000);

/// The proxy of a node.
pub struct Gate {
    driver: Driver<Route>,
    /// Whose master it leads to.
    group: usize,
    known: Facts,
    /// The check under way: its serial, its connection, whether it asks for the role.
    check: Option<(u64, u64, bool)>,
    /// The redis that sessions are led to.
    target: Option<usize>,
    sessions: BTreeMap<u64, Relayed>,
    /// Sessions that are over: what still comes on them goes nowhere.
    over: BTreeSet<u64>,
}

/// A client's connection.
struct Relayed {
    writer: usize,
    session: Session,
    /// Writes that have not left the proxy.
    waiting: Vec<u32>,
    /// The redis at the other side, and its incarnation.
    to: Option<(usize, u64)>,
    /// Counts the connections that were tried.
    dials: u64,
}

impl World {
    /// Whether a host has a proxy.
    pub fn is_proxy(&self, host: usize) -> bool {
        (self.data_hosts..self.workers.len()).contains(&host)
    }

    /// The group whose master a proxy leads to.
    pub fn led_to(&self, host: usize) -> usize {
        (host - self.data_hosts) % self.groups.len()
    }

    pub fn new_gate(&self, host: usize) -> Gate {
        let group = self.led_to(host);
        let masters = self.groups[group].iter().map(|r| redis_at(*r)).collect();
        let machine = Route::new(&Config { check_interval: CHECK_INTERVAL, masters });
        let (known, sessions, over) = (Facts::default(), BTreeMap::new(), BTreeSet::new());
        Gate { driver: Driver::new(machine), group, known, check: None, target: None, sessions, over }
    }

    fn gate(&mut self, host: usize) -> Option<&mut Gate> {
        self.workers[host].gate.as_mut()
    }

    pub fn route(&mut self, host: usize, input: Input) {
        self.feed::<Route>(host, Lane::First, input);
    }

    /// Tells the route what is news to it in the view of its node.
    pub fn route_news(&mut self, host: usize, view: &vigie::cores::cluster::View) {
        let Some(gate) = self.gate(host) else { return };
        let facts = facts(view, &group_name(gate.group));
        if facts != gate.known {
            gate.known.clone_from(&facts);
            self.route(host, Input::View(facts));
        }
    }

    fn begin_check(&mut self, host: usize, serial: u64, master: std::net::SocketAddr, login: bool) {
        let wire = self.open_far(host, Owner::Check(serial), master, CHECK_LIMIT);
        let old = self.gate(host).and_then(|gate| gate.check.replace((serial, wire, login)));
        if let Some((_, wire, _)) = old {
            self.close_near(wire);
        }
        self.later(CHECK_LIMIT, Happening::CheckLate(host, self.workers[host].boot, serial));
    }

    /// A check has found something, unless it is over.
    fn end_check(&mut self, host: usize, serial: u64, result: Result<(), CheckFault>) {
        let Some((_, wire, _)) = self.gate(host).and_then(|gate| gate.check.take_if(|(of, ..)| *of == serial)) else {
            return;
        };
        self.close_near(wire);
        self.route(host, Input::Checked { serial, result });
    }

    pub fn check_late(&mut self, host: usize, serial: u64) {
        self.end_check(host, serial, Err(CheckFault::Unclear("no answer".to_owned())));
    }

    /// Its connection stands; the node there has shown that it is there if it is to be told a password.
    pub fn check_connected(&mut self, host: usize, serial: u64, wire: u64) {
        if self.asks_for_role(host, serial) {
            let commands = ["AUTH", "ROLE"].map(|word| vec![Bytes::from_static(word.as_bytes())]);
            self.send(wire, Way::Far, Packet::Commands(commands.to_vec()));
        } else {
            self.end_check(host, serial, Ok(()));
        }
    }

    pub fn asks_for_role(&self, host: usize, serial: u64) -> bool {
        let check = self.workers[host].gate.as_ref().and_then(|gate| gate.check);
        check.is_some_and(|(of, _, login)| of == serial && login)
    }

    pub fn check_hears(&mut self, host: usize, serial: u64, replies: &[Reply]) {
        let role = replies.last().and_then(Reply::array).and_then(<[Reply]>::first).and_then(Reply::text);
        let result = match role {
            Some("master") => Ok(()),
            Some(role) => Err(CheckFault::NotMaster(role.to_owned())),
            None => Err(CheckFault::Unclear("an unexpected reply to ROLE".to_owned())),
        };
        self.end_check(host, serial, result);
    }

    pub fn check_cut(&mut self, host: usize, serial: u64, why: &str) {
        let fault = match why {
            "connection refused" => CheckFault::Refused,
            why => CheckFault::Unclear(why.to_owned()),
        };
        self.end_check(host, serial, Err(fault));
    }

    /// A client's write arrives at a proxy.
    pub fn asked(&mut self, via: Via, writer: usize, id: u32) {
        if self.workers[via.host].boot != via.boot || !self.workers[via.host].lives {
            return;
        }
        if self.workers[via.host].frozen {
            return self.later(ms(5), Happening::Asked(via, writer, id));
        }
        // Who has not the address does not take what is sent there.
        if self.writers[writer].by_address && !self.holds(via.host) {
            return;
        }
        let Some(gate) = self.gate(via.host).filter(|gate| !gate.over.contains(&via.session)) else { return };
        let target = gate.target.is_some();
        let new =
            || Relayed { writer, session: Session::new(HOLD_TIMEOUT, target), waiting: Vec::new(), to: None, dials: 0 };
        let relayed = gate.sessions.entry(via.session).or_insert_with(new);
        if let Some(to) = relayed.to {
            return self.relay(via, to, writer, id);
        }
        relayed.waiting.push(id);
        self.session(via, session::Input::Request);
    }

    fn relay(&mut self, via: Via, (r, incarnation): (usize, u64), writer: usize, id: u32) {
        if self.net.passes(via.host, r) && self.hosts[r].powered {
            let takes = self.net.takes_surely(via.host, r);
            let write = Write { writer, id, via: Some(via) };
            self.later(takes, Happening::Works(r, incarnation, Work::Write(write)));
        }
    }

    /// Something happens to a session.
    fn session(&mut self, via: Via, input: session::Input) {
        if self.workers[via.host].boot != via.boot || self.workers[via.host].frozen {
            return;
        }
        let local = self.local(via.host);
        let Some(gate) = self.gate(via.host) else { return };
        let target = gate.target;
        let Some(relayed) = gate.sessions.get_mut(&via.session) else { return };
        let step = relayed.session.handle(local, input);
        let deadline = relayed.session.deadline();
        match step {
            Step::Wait => {}
            Step::Dial => {
                relayed.dials += 1;
                let dials = relayed.dials;
                if let Some(r) = target {
                    let there = self.net.passes(via.host, r) && self.hosts[r].powered;
                    let takes = if there { self.net.takes_surely(via.host, r) } else { CONNECT_TIMEOUT };
                    self.later(takes, Happening::Dial(via, dials, r));
                }
            }
            Step::Relay => {
                let (waiting, writer) = (std::mem::take(&mut relayed.waiting), relayed.writer);
                if let Some(to) = relayed.to {
                    for id in waiting {
                        self.relay(via, to, writer, id);
                    }
                }
            }
            Step::Refuse(_) | Step::Close => {
                let writer = relayed.writer;
                gate.sessions.remove(&via.session);
                gate.over.insert(via.session);
                let client = self.writers[writer].host;
                if self.net.passes(via.host, client) {
                    let takes = self.net.takes_surely(via.host, client);
                    self.later(takes, Happening::Closed(writer, via.session));
                }
                return;
            }
        }
        if let Some(at) = deadline {
            let at = self.hosts[via.host].clock.when(at);
            self.at(at, Happening::SessionTick(via));
        }
    }

    /// The first packet of a session's connection arrives at a redis, or never does.
    pub fn dial(&mut self, via: Via, dials: u64, r: usize) {
        if self.workers[via.host].frozen {
            return self.later(ms(5), Happening::Dial(via, dials, r));
        }
        let incarnation = self.redis[r].incarnation;
        let there = self.net.passes(via.host, r) && self.net.passes(r, via.host) && self.hosts[r].powered;
        let listens = self.redis[r].listens();
        let Some(gate) = self.gate(via.host).filter(|gate| gate.target == Some(r)) else { return };
        let Some(relayed) = gate.sessions.get_mut(&via.session).filter(|relayed| relayed.dials == dials) else {
            return;
        };
        if there && listens {
            relayed.to = Some((r, incarnation));
            self.session(via, session::Input::Dialed(Ok(())));
        } else {
            self.session(via, session::Input::Dialed(Err("not reached".to_owned())));
            self.route(via.host, Input::Suspect);
        }
    }

    /// The redis answers a write.
    pub fn answered(&mut self, via: Via, writer: usize, id: u32, acked: bool) {
        let worker = &self.workers[via.host];
        if worker.boot != via.boot || !worker.gate.as_ref().is_some_and(|gate| gate.sessions.contains_key(&via.session))
        {
            return;
        }
        if worker.frozen {
            return self.later(ms(5), Happening::Answered(via, writer, id, acked));
        }
        let client = self.writers[writer].host;
        if self.net.passes(via.host, client) {
            let takes = self.net.takes_surely(via.host, client);
            self.later(takes, if acked { Happening::Acked(writer, id) } else { Happening::Refused(writer) });
        }
    }

    /// A redis has closed the connections of its clients: it ends, or was told to.
    pub fn sessions_cut(&mut self, r: usize) {
        let mut cut = Vec::new();
        for (host, worker) in self.workers.iter().enumerate() {
            let sessions = worker.gate.iter().flat_map(|gate| &gate.sessions);
            let its = sessions.filter(|(_, relayed)| relayed.to.is_some_and(|(to, _)| to == r));
            cut.extend(its.map(|(session, _)| Via { host, boot: worker.boot, session: *session }));
        }
        for via in cut {
            let takes = self.net.takes_surely(r, via.host);
            self.later(takes, Happening::SessionCut(via));
        }
    }

    pub fn session_cut(&mut self, via: Via) {
        if self.workers[via.host].frozen {
            return self.later(ms(5), Happening::SessionCut(via));
        }
        if self.workers[via.host].boot == via.boot && self.workers[via.host].gate.is_some() {
            self.session(via, session::Input::Gone);
            self.route(via.host, Input::Suspect);
        }
    }

    pub fn session_tick(&mut self, via: Via) {
        if self.workers[via.host].frozen {
            return self.later(ms(5), Happening::SessionTick(via));
        }
        self.session(via, session::Input::Tick);
    }

    fn switch(&mut self, host: usize, target: Option<usize>) {
        let boot = self.workers[host].boot;
        let Some(gate) = self.gate(host) else { return };
        gate.target = target;
        let sessions: Vec<u64> = gate.sessions.keys().copied().collect();
        for session in sessions {
            self.session(Via { host, boot, session }, session::Input::Moved(target.is_some()));
        }
    }
}

impl Lives<Route> for World {
    const KIND: Kind = Kind::Route;

    fn driver(&mut self, host: usize) -> Option<&mut Driver<Route>> {
        self.gate(host).map(|gate| &mut gate.driver)
    }

    fn hears(&mut self, _: usize, _: Instant, _: &<Route as Machine>::Input) {}

    fn carry_out(&mut self, host: usize, output: Output) -> Option<Flow<Input>> {
        match output {
            Output::Check { serial, decision, login } => self.begin_check(host, serial, decision.master, login),
            Output::Switch(target) => {
                let target = target.and_then(|decision| self.redis_of(decision.master));
                self.switch(host, target);
            }
            Output::Usable(usable) => self.router_usable(host, usable),
            Output::Post(facts) => self.post(host, Part::Proxy(facts)),
            Output::Fault(reason) => self.post(host, Part::Fault { source: "proxy", reason }),
            Output::Publish(event) => self.note(|| format!("p{host} {event}")),
        }
        Some(Flow::Done)
    }
}
