//! Drop-ins: sentinels without a cluster file. What is on their disks, the operator who adds and removes masters while they
//! run, names of hosts that move, and scripts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use vigie::base::node::{Decision, MasterFacts, SentinelFacts};
use vigie::base::{Epoch, Place, RunId};
use vigie::cores::sentinel::names;
use vigie::cores::sentinel::scripts::{Exit, Report, Request};
use vigie::cores::sentinel::{
    ClientId, Config, Fact, Input, MasterConfig, MasterState, Membership, Question, Record, Sentinel, Settings, State,
    Usage,
};

use crate::plan::Fault;
use crate::world::{Happening, REDIS_PORT, SENTINEL_PORT, World, group_name, host_of, ms, redis_at};

/// Whom a vote was for is not in the file.
const NOBODY: RunId = RunId([0; 20]);
/// A script that is not there.
const NO_SCRIPT: &str = "/missing";

/// The name of a host.
pub fn host_name(host: usize) -> String {
    format!("host-{host}")
}

/// The host that a text names, by address or name.
pub fn host_in(text: &str) -> Option<usize> {
    match text.strip_prefix("host-") {
        Some(number) => number.parse().ok(),
        None => Some(host_of(SocketAddr::new(text.parse::<IpAddr>().ok()?, REDIS_PORT))),
    }
}

/// The address that a host had at first: by it everybody is known to the checkers.
pub fn first_address(text: &str) -> Option<SocketAddr> {
    let ip = text.parse::<IpAddr>().ok().filter(|ip| ip.is_loopback() || ip.is_unspecified());
    match ip {
        Some(ip) => Some(SocketAddr::new(ip, REDIS_PORT)),
        None => host_in(text).filter(|host| *host < 255).map(redis_at),
    }
}

/// What a sentinel says of a group.
pub fn about(facts: &SentinelFacts, group: usize) -> Option<&MasterFacts> {
    let name = group_name(group);
    facts.masters.iter().find(|facts| facts.name.as_str() == name)
}

/// What is on a disk about a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub decision: Option<Decision>,
    /// Nobody: the file has the epoch only.
    pub vote: Option<(Option<RunId>, Epoch)>,
    /// What the file says.
    pub quorum: Option<u32>,
    /// Others that the file names.
    pub sentinels: Option<usize>,
}

impl Known {
    /// Whether it holds that vote, as far as it says for whom.
    pub fn has_vote(&self, leader: RunId, epoch: Epoch) -> bool {
        self.vote.is_some_and(|(of, voted)| voted == epoch && of.is_none_or(|of| of == leader))
    }
}

pub fn id_on(record: &Record) -> Option<RunId> {
    match record {
        Record::Votes(durable) => Some(durable.id),
        Record::Everything(state) => state.id,
    }
}

pub fn epoch_on(record: &Record) -> Epoch {
    match record {
        Record::Votes(durable) => durable.current_epoch,
        Record::Everything(state) => state.current_epoch,
    }
}

/// None: the file does not name that group.
pub fn known_on(record: &Record, group: usize) -> Option<Known> {
    match record {
        Record::Votes(durable) => {
            let master = durable.masters.get(group)?;
            let vote = master.vote.map(|(leader, epoch)| (Some(leader), epoch));
            Some(Known { decision: master.decision, vote, ..Known::default() })
        }
        Record::Everything(state) => {
            let name = group_name(group);
            let master = state.masters.iter().find(|master| master.config.name == name)?;
            let epoch = master.config_epoch;
            Some(Known {
                decision: first_address(&master.place.host).map(|master| Decision { master, epoch }),
                vote: (master.leader_epoch > 0).then_some((None, master.leader_epoch)),
                quorum: Some(master.config.quorum),
                sentinels: Some(master.sentinels.len()),
            })
        }
    }
}

/// Whether a posted vote says for whom it was.
pub fn is_for_somebody(leader: RunId) -> bool {
    leader != NOBODY
}

impl World {
    fn place_in_file(&self, host: usize) -> Place {
        let named = self.plan.named;
        let address = redis_at(host);
        Place { host: if named { host_name(host) } else { address.ip().to_string() }, port: address.port() }
    }

    /// The file that an operator has written for a sentinel.
    fn first_state(&self, host: usize) -> State {
        let masters = self.groups.iter().enumerate().map(|(g, group)| {
            let config = MasterConfig {
                down_after: self.plan.down_after,
                failover_timeout: self.plan.failover_timeout,
                parallel_syncs: self.plan.parallel_syncs,
                notification_script: self.plan.scripts.then(|| "/bin/notify".to_owned()),
                client_reconfig_script: self.plan.scripts.then(|| "/bin/reconfigure".to_owned()),
                ..MasterConfig::new(group_name(g), self.plan.quorums[g])
            };
            MasterState::new(config, self.place_in_file(group[0]))
        });
        let named = self.plan.named;
        let settings = Settings {
            announce_ip: named.then(|| host_name(host)),
            resolve_hostnames: named,
            announce_hostnames: named,
            deny_scripts_reconfig: false,
            ..Settings::default()
        };
        State { id: None, current_epoch: 0, settings, masters: masters.collect() }
    }

    /// The process of a drop-in, with its file.
    pub fn drop_in(&mut self, host: usize) -> Sentinel {
        let state = match &self.sentinels[host].disk {
            Some(Record::Everything(state)) => (**state).clone(),
            Some(Record::Votes(_)) | None => self.first_state(host),
        };
        let config = Config {
            membership: Membership::Discovered { port: SENTINEL_PORT },
            masters: Vec::new(),
            settings: Settings::default(),
            logins: None,
            seed: self.plan.seed ^ (self.workers[host].boot << 32) ^ host as u64,
        };
        let (id, now) = (self.dice.id(), self.local(host));
        Sentinel::alone(&config, state, id, now)
    }

    pub fn known(&self, host: usize, group: usize) -> Option<Known> {
        known_on(self.sentinels[host].disk.as_ref()?, group)
    }

    /// A fact for a command that waits for it.
    pub fn fact(&mut self, question: Question) -> Fact {
        match question {
            Question::Usage => Fact::Usage(Box::<Usage>::default()),
            Question::Random(count) => Fact::Random(vec![0xa5; count]),
            Question::LoadUsers => Fact::Users(Err("there is no such file".to_owned())),
            Question::SaveUsers(_) => Fact::Saved(Err("there is no such file".to_owned())),
        }
    }

    pub fn can_run(path: &str) -> bool {
        path != NO_SCRIPT
    }

    /// Runs a script, or ends it.
    pub fn script(&mut self, host: usize, request: Request) {
        let boot = self.workers[host].boot;
        let (id, takes) = match request {
            Request::Start { id, .. } => {
                let pid = u32::try_from(self.count() % 30_000).unwrap_or(0);
                let started = Input::from(Report::Started(id, pid));
                self.later(ms(1), Happening::Told(host, boot, Box::new(started)));
                (id, ms(2) + self.dice.time(ms(1), ms(20_000)))
            }
            Request::Kill(_) => return,
        };
        let exit = self.dice.pick(&[Exit::Code(0), Exit::Code(0), Exit::Code(1), Exit::Code(2), Exit::Signal(9)]);
        self.later(takes, Happening::Told(host, boot, Box::new(Input::from(Report::Ended(id, exit)))));
    }

    /// Asks the name server, which is a host of its own that does not always answer.
    pub fn resolve(&mut self, host: usize, name: String) {
        let found = match host_in(&name).filter(|of| *of < self.hosts.len()) {
            Some(_) if self.quiet_at.is_none() && self.dice.chance(50) => Err("timed out".to_owned()),
            Some(of) => Ok(vec![self.now_at(of, REDIS_PORT).ip()]),
            None => Err("there is no such host".to_owned()),
        };
        let takes = self.dice.time(ms(1), ms(300));
        let answer = Input::from(names::Answer { name, found });
        self.later(takes, Happening::Told(host, self.workers[host].boot, Box::new(answer)));
    }

    /// Where a host is now.
    pub fn now_at(&self, host: usize, port: u16) -> SocketAddr {
        let SocketAddr::V4(first) = redis_at(host) else { unreachable!("all addresses are IPv4") };
        let [a, b, _, d] = first.ip().octets();
        SocketAddr::from(([a, b, self.hosts[host].moves, d], port))
    }

    /// Something for a process of a sentinel, if it is still that one.
    pub fn told(&mut self, host: usize, boot: u64, input: Input) {
        if self.workers[host].boot == boot {
            self.give(host, input);
        }
    }

    /// SIMULATE-FAILURE has ended it.
    pub fn exited(&mut self, host: usize) {
        self.later(Duration::ZERO, Happening::Left(host, self.workers[host].boot));
    }

    /// An operator at a drop-in orders a failover.
    pub fn order_at(&mut self, s: usize, group: usize) {
        self.checks.ordered(s, group);
        let word = if self.fault_dice.chance(300) { "SWITCHOVER" } else { "FAILOVER" };
        self.client_says(s, &["SENTINEL", word, &group_name(group)]);
    }

    pub fn operator_fault(&mut self, fault: Fault) {
        let s = self.fault_dice.below(self.plan.sentinels);
        let group = self.fault_dice.below(self.groups.len());
        let name = group_name(group);
        match fault {
            Fault::Remove => {
                // One after the other, as every manual says.
                let missing = |s: usize| self.known(s, group).is_none();
                if !(0..self.plan.sentinels).any(missing) {
                    self.client_says(s, &["SENTINEL", "REMOVE", &name]);
                    let wait = self.pause_time();
                    self.later(wait, Happening::Tidy(s));
                }
            }
            Fault::Change => {
                let quorum = (1 + self.fault_dice.below(self.plan.sentinels)).to_string();
                let path = self.fault_dice.pick(&[NO_SCRIPT, "/bin/notify", ""]);
                let change: &[&str] = match self.fault_dice.below(3) {
                    0 => &["quorum", &quorum],
                    1 => &["notification-script", path],
                    _ => &["parallel-syncs", "3", "quorum", &quorum],
                };
                self.client_says(s, &[&["SENTINEL", "SET", &name], change].concat());
                self.client_says(s, &["INFO"]);
                self.client_says(s, &["SENTINEL", "FLUSHCONFIG"]);
            }
            Fault::Forget => self.client_says(s, &["SENTINEL", "RESET", &name]),
            Fault::HostMoves => {
                let host = self.fault_dice.below(self.workers.len());
                self.host_moves(host);
            }
            _ => {}
        }
    }

    /// A host gets another address; what was connected to the old one is not told.
    fn host_moves(&mut self, host: usize) {
        self.hosts[host].moves = self.hosts[host].moves.wrapping_add(1);
        let at = self.now_at(host, REDIS_PORT).ip();
        self.note(|| format!("host {host} moves to {at}"));
        self.drop_far(host, true, false);
        self.drop_far(host, false, false);
    }

    /// The operator sees to it that a sentinel watches what it should, as it should.
    pub fn tidy(&mut self, s: usize) {
        if !self.plan.drop_in || self.sentinels[s].core.is_none() {
            return;
        }
        for group in 0..self.groups.len() {
            let name = group_name(group);
            let known = (0..self.plan.sentinels).filter_map(|s| self.known(s, group)?.decision);
            let Some(Decision { master, .. }) = known.max_by_key(|decision| decision.epoch) else { continue };
            let Some(Record::Everything(state)) = &self.sentinels[s].disk else { continue };
            let Some(config) = state.masters.iter().map(|master| &master.config).find(|config| config.name == name)
            else {
                let Place { host, port } = self.place_in_file(host_of(master));
                let quorum = self.plan.quorums[group].to_string();
                self.client_says(s, &["SENTINEL", "MONITOR", &name, &host, &port.to_string(), &quorum]);
                self.later(ms(50), Happening::Tidy(s));
                continue;
            };
            if (config.down_after, config.failover_timeout) != (self.plan.down_after, self.plan.failover_timeout) {
                let (down, timeout) = (self.plan.down_after.as_millis(), self.plan.failover_timeout.as_millis());
                let (down, timeout) = (down.to_string(), timeout.to_string());
                let options = ["down-after-milliseconds", &down, "failover-timeout", &timeout];
                self.client_says(s, &[&["SENTINEL", "SET", &name], &options[..]].concat());
            }
        }
    }

    /// At the end: all sentinels watch all masters, and a redis that every sentinel was told to forget follows the master.
    pub fn tidy_all(&mut self) {
        (0..self.plan.sentinels).for_each(|s| self.tidy(s));
        for group in 0..self.groups.len() {
            for r in self.groups[group].clone() {
                let names_it = |record: &Record| match record {
                    Record::Votes(_) => true,
                    Record::Everything(state) => {
                        let masters = state.masters.iter().filter(|master| master.config.name == group_name(group));
                        masters
                            .flat_map(|one| one.replicas.iter().chain([&one.place]))
                            .any(|place| host_in(&place.host) == Some(r))
                    }
                };
                let known = self.sentinels.iter().filter_map(|actor| actor.disk.as_ref()).any(names_it);
                let decision = (0..self.plan.sentinels).filter_map(|s| self.known(s, group)?.decision);
                if let Some(decision) = decision.max_by_key(|decision| decision.epoch).filter(|_| !known) {
                    self.follow(r, decision.master);
                }
            }
        }
    }

    /// A client that nobody waits for has gone with its answer.
    pub fn kill_client(&mut self, host: usize, client: ClientId) {
        if let Some(id) = self.sentinels[host].clients.get(&client).copied() {
            self.cut_off(id, true, "killed");
        }
    }
}
