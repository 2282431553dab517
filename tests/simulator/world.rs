//! One world: virtual time, what happens in it, and everybody who lives there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use vigie::base::{Instant, NodeName};
use vigie::cores::cluster::Cluster;
use vigie::cores::proxy::Route;
use vigie::cores::redis::Supervisor;
use vigie::cores::redis::fence::Fence;
use vigie::cores::sentinel::{Input, Sentinel};
use vigie::cores::vrrp::Router;

use crate::check::{Checks, Watch};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::drive::Kind;
use crate::net::{Net, Packet, Way, Wire};
use crate::plan::{Fault, Plan};
use crate::redis::{Redis, Work};
use crate::replication::Copy;
use crate::segment::{Frame, Port};
use crate::sentinel::Actor;
use crate::trace::Trace;
use crate::worker::{Disk, Worker};
use crate::writes::{Via, Writer, Writes};

/// Where redis listen.
pub const REDIS_PORT: u16 = 6379;
/// Where sentinels listen.
pub const SENTINEL_PORT: u16 = 26379;
/// The world is left alone for so long before the faults begin.
pub const CALM: Duration = ms(4_000);
/// Within so long after the last fault everything must be well again.
pub const LIVENESS: Duration = ms(60_000);
/// It counts as well when it stays so for this long.
const STABLE: Duration = ms(1_500);
/// Where there are virtual addresses, longer than a kernel holds one that is not renewed.
const STABLE_ADDRESS: Duration = ms(4_000);
/// More happenings at one moment mean that time stands still.
const MOMENT_MAX: u32 = 50_000;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn address(host: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(host + 1).expect("few hosts")], port))
}

/// The redis of a host.
pub fn redis_at(host: usize) -> SocketAddr {
    address(host, REDIS_PORT)
}

/// The sentinel of a host.
pub fn sentinel_at(host: usize) -> SocketAddr {
    address(host, SENTINEL_PORT)
}

/// The host of an address.
pub fn host_of(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]).wrapping_sub(1),
        SocketAddr::V6(_) => usize::MAX,
    }
}

/// The name of a host.
pub fn node_name(host: usize) -> NodeName {
    format!("n-{host}").parse().expect("a good name")
}

/// The name of the master of a group.
pub fn group_name(group: usize) -> String {
    format!("group-{group}")
}

/// What can be due.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A machine of a process of that boot has a turn.
    Wake(Kind, usize, u64),
    /// A store of a sentinel ends.
    Stored(usize, u64),
    /// The cluster file of that host is edited.
    Edited(usize, bool),
    /// The lease of a process of that boot ends, unless it was renewed.
    LeaseEnds(usize, u64),
    /// A role of a process of that boot has left.
    Left(usize, u64),
    /// A process of that boot tells its roles to stop.
    StopRoles(usize, u64),
    /// A supervisor of a process of that boot has written a record.
    Recorded(usize, u64),
    /// A supervisor of a process of that boot has started its redis.
    Spawned(usize, u64),
    /// A connection's first packet arrives; until when an answer counts.
    Syn(u64, Instant),
    Connected(u64),
    ConnectFailed(u64, &'static str),
    Deliver(u64, Way, Packet),
    /// To, from, payload.
    Datagram(usize, usize, Rc<[u8]>),
    /// A redis of that incarnation listens.
    Listens(usize, u64),
    /// A redis of that incarnation ends as it was told.
    Terminated(usize, u64),
    /// A redis of that incarnation has read its data.
    Loaded(usize, u64),
    Works(usize, u64, Work),
    PauseOver(usize, u64),
    /// The link of that number tries to reach its master.
    TryMaster(usize, u64),
    Copied(usize, u64, Box<Copy>),
    Stream(usize, usize, Work),
    LinkTimeout(usize, u64),
    Flush(usize, u64),
    WriteDue(usize),
    Acked(usize, u32),
    /// A client is answered with an error.
    Refused(usize),
    /// A proxy has closed a session of a client.
    Closed(usize, u64),
    /// A write of a client arrives at a proxy.
    Asked(Via, usize, u32),
    /// A redis has answered it, well or not.
    Answered(Via, usize, u32, bool),
    /// A session's connection of that number tries to reach a redis.
    Dial(Via, u64, usize),
    /// A redis has closed it.
    SessionCut(Via),
    SessionTick(Via),
    /// The check of that serial of a proxy in a process of that boot has taken too long.
    CheckLate(usize, u64, u64),
    /// To, from, and what everybody on the segment gets.
    Frame(usize, usize, Frame),
    /// The kernel of a host has done what a process of that boot asked it for.
    Kernel(usize, u64),
    /// A process of that boot looks at its interface.
    Plugged(usize, u64),
    /// Does anybody hold a virtual address who must not?
    Judge,
    /// A fault begins.
    Fault(Fault),
    /// What a fault did ends.
    Heal(Heal),
    StartRedis(usize, u64),
    StartWorker(usize),
    /// Something for a sentinel in a process of that boot.
    Told(usize, u64, Box<Input>),
    /// The operator looks after what a sentinel watches.
    Tidy(usize),
    /// Faults end.
    Quiet,
    /// Is everything well?
    Look,
}

/// What ends a fault.
#[derive(Clone, Debug)]
pub enum Heal {
    Thaw(usize, u64),
    Disk(usize),
    Power(usize),
    Ways(Vec<(usize, usize)>),
    Storm,
    Resume(usize, u64),
    Quick(usize),
    Plug(usize),
    Addresses(usize),
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    pub clock: Clock,
    pub powered: bool,
    /// How often its address has changed.
    pub moves: u8,
}

/// What a world counts.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub worlds: u64,
    pub events: u64,
    pub turns: u64,
    /// Frames of the peer link that arrived.
    pub frames: u64,
    pub stores: u64,
    pub votes: u64,
    pub elections: u64,
    pub promotions: u64,
    pub orders: u64,
    pub orders_done: u64,
    pub full_syncs: u64,
    pub partial_syncs: u64,
    pub faults: u64,
    pub acked: u64,
    pub lost: u64,
    pub lost_copied: u64,
    /// For how long two redis of a group acknowledged writes, or would have.
    pub two_masters: Duration,
    /// Worlds in which that was so.
    pub two_masters_in: u64,
    /// Worlds with leases; how often a redis was opened there, closed since its lease was about to end, and killed by the guard.
    pub fenced: u64,
    pub opened: u64,
    pub closed: u64,
    pub guard_kills: u64,
    /// Redis that fences have killed.
    pub fence_kills: u64,
    /// Writes that the older one of two acknowledged.
    pub acked_by_older: u64,
    /// Virtual addresses that there are.
    pub addresses: u64,
    /// How often one was taken.
    pub takeovers: u64,
    /// For how long two proxies had the same one.
    pub two_holders: Duration,
    /// Worlds in which that was so.
    pub two_holders_in: u64,
    /// Connections of clients to a virtual address.
    pub by_address: u64,
    /// How often a client that wanted one found nobody there.
    pub astray: u64,
    pub drop_ins: u64,
    /// Orders carried out without a majority, as stock does.
    pub forced: u64,
    /// Leaders elected by a majority of those they knew, which was none of all.
    pub thin: u64,
    /// Epochs with two masters by one of these.
    pub split: u64,
    /// Worlds that ended with "an operator must decide".
    pub undecided: u64,
    pub virtual_time: Duration,
    /// Longest time from the end of the faults to everything well.
    pub healed_max: Duration,
}

impl Stats {
    pub fn add(&mut self, other: &Self) {
        let sums: [(&mut u64, u64); 33] = [
            (&mut self.addresses, other.addresses),
            (&mut self.takeovers, other.takeovers),
            (&mut self.two_holders_in, other.two_holders_in),
            (&mut self.by_address, other.by_address),
            (&mut self.astray, other.astray),
            (&mut self.acked_by_older, other.acked_by_older),
            (&mut self.two_masters_in, other.two_masters_in),
            (&mut self.fenced, other.fenced),
            (&mut self.opened, other.opened),
            (&mut self.closed, other.closed),
            (&mut self.guard_kills, other.guard_kills),
            (&mut self.fence_kills, other.fence_kills),
            (&mut self.frames, other.frames),
            (&mut self.worlds, other.worlds),
            (&mut self.events, other.events),
            (&mut self.turns, other.turns),
            (&mut self.stores, other.stores),
            (&mut self.votes, other.votes),
            (&mut self.elections, other.elections),
            (&mut self.promotions, other.promotions),
            (&mut self.orders, other.orders),
            (&mut self.orders_done, other.orders_done),
            (&mut self.full_syncs, other.full_syncs),
            (&mut self.partial_syncs, other.partial_syncs),
            (&mut self.faults, other.faults),
            (&mut self.acked, other.acked),
            (&mut self.lost, other.lost),
            (&mut self.lost_copied, other.lost_copied),
            (&mut self.undecided, other.undecided),
            (&mut self.drop_ins, other.drop_ins),
            (&mut self.forced, other.forced),
            (&mut self.thin, other.thin),
            (&mut self.split, other.split),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        self.virtual_time += other.virtual_time;
        self.two_masters += other.two_masters;
        self.two_holders += other.two_holders;
        self.healed_max = self.healed_max.max(other.healed_max);
    }
}

/// Everything.
pub struct World {
    pub now: Instant,
    pub plan: Plan,
    pub dice: Dice,
    pub fault_dice: Dice,
    pub hosts: Vec<Machine>,
    pub net: Net,
    pub wires: BTreeMap<u64, Wire>,
    pub sentinels: Vec<Actor>,
    pub redis: Vec<Redis>,
    /// The redis of each group.
    pub groups: Vec<Vec<usize>>,
    /// Sentinels and redis are on the hosts before; the proxies come next, then the clients.
    pub data_hosts: usize,
    /// The process of each host that has one.
    pub workers: Vec<Worker>,
    pub disks: Vec<Disk>,
    /// The interface of each of these.
    pub ports: Vec<Port>,
    pub writers: Vec<Writer>,
    pub writes: Writes,
    pub checks: Checks,
    pub watch: Watch,
    pub trace: Trace,
    pub stats: Stats,
    /// When the faults ended.
    pub quiet_at: Option<Instant>,
    tidy_at: Instant,
    /// Since when everything is well.
    well_since: Option<Instant>,
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<crate::sabotage::Broken>,
    queue: BTreeMap<(Instant, u64), Happening>,
    serial: u64,
}

impl World {
    /// The world of a plan, at its start.
    pub fn new(plan: Plan) -> Self {
        let mut dice = Dice::new(plan.seed, 2);
        let mut first = 0;
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for size in &plan.groups {
            groups.push((first..first + size).collect());
            first += size;
        }
        let data_hosts = plan.sentinels.max(first);
        let nodes = data_hosts + plan.proxies;
        // For each group one client that asks a sentinel, and one that goes through the proxies of that group if it has any.
        let leads_to = |g: usize| (0..plan.proxies).filter(|p| p % groups.len() == g).map(|p| data_hosts + p).collect();
        let through = (0..groups.len()).map(|g| (g, leads_to(g)));
        let through = through.filter(|(_, proxies): &(usize, Vec<usize>)| !proxies.is_empty());
        let clients = (0..groups.len()).map(|g| (g, vec![])).chain(through);
        let writers = clients.enumerate().map(|(at, (group, proxies))| {
            let by_address = plan.by_address && !proxies.is_empty();
            Writer::new(group, nodes + at, proxies, by_address)
        });
        let writers: Vec<Writer> = writers.collect();
        let addresses = plan.proxies.min(groups.len()) as u64;
        let hosts = (0..nodes + writers.len()).map(|_| {
            let drift = if plan.drift == 0 { 0 } else { dice.below(2 * plan.drift.unsigned_abs() as usize + 1) as i64 };
            Machine { clock: Clock::new(dice.upto(ms(1_000_000)), drift - plan.drift), powered: true, moves: 0 }
        });
        let hosts = hosts.collect();
        let redis = groups.iter().enumerate().flat_map(|(g, group)| group.iter().map(move |r| (g, group[0], *r)));
        let redis =
            redis.map(|(g, master, r)| Redis::new(g, (r != master).then(|| redis_at(master)), dice.id(), plan.named));
        let redis: Vec<Redis> = redis.collect();
        let mut world = Self {
            now: Instant::from_millis(1_000),
            net: Net::new(plan.seed, plan.delay, plan.jitter, 0),
            fault_dice: Dice::new(plan.seed, 3),
            hosts,
            wires: BTreeMap::new(),
            sentinels: (0..plan.sentinels).map(|_| Actor::default()).collect(),
            workers: (0..nodes).map(|_| Worker::default()).collect(),
            disks: vec![Disk { fencing: plan.fencing, ..Disk::default() }; nodes],
            ports: vec![Port::default(); nodes],
            redis,
            writers,
            data_hosts,
            writes: Writes::default(),
            checks: Checks::new(data_hosts, plan.sentinels, groups.len()),
            watch: Watch::default(),
            groups,
            trace: Trace::default(),
            stats: Stats { worlds: 1, drop_ins: u64::from(plan.drop_in), addresses, ..Stats::default() },
            quiet_at: None,
            tidy_at: Instant::START,
            well_since: None,
            #[cfg(feature = "sabotage")]
            sabotage: None,
            queue: BTreeMap::new(),
            serial: 0,
            dice,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for r in 0..self.redis.len() {
            if self.dice.chance(50) {
                self.redis[r].priority = self.dice.pick(&[0, 50, 50]);
            }
            if !self.plan.linked {
                self.start_redis(r, false);
            }
        }
        for host in 0..self.workers.len() {
            let wait = self.dice.upto(ms(500));
            self.later(wait, Happening::StartWorker(host));
        }
        for w in 0..self.writers.len() {
            let wait = ms(1_500) + self.dice.upto(ms(500));
            self.later(wait, Happening::WriteDue(w));
        }
        self.plan_faults(CALM);
        let quiet = CALM + self.plan.trouble;
        self.later(quiet, Happening::Quiet);
    }

    pub fn count(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// What the clock of a host shows.
    pub fn local(&self, host: usize) -> Instant {
        self.hosts[host].clock.shows(self.now)
    }

    pub fn later(&mut self, wait: Duration, what: Happening) {
        self.at(self.now + wait, what);
    }

    pub fn at(&mut self, at: Instant, what: Happening) {
        let serial = self.count();
        self.queue.insert((at.max(self.now), serial), what);
    }

    /// A line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.on {
            let line = line();
            self.trace.lines.push(format!("{} {line}", self.now));
        }
    }

    /// Runs to the end: the first violation, or everything well for a while, or the bound of liveness.
    pub fn run(&mut self) {
        let (mut moment, mut count) = (self.now, 0);
        while self.checks.violation.is_none() {
            let Some(((at, _), what)) = self.queue.pop_first() else { break };
            count = if at == moment { count + 1 } else { 0 };
            moment = at;
            if count > MOMENT_MAX {
                self.checks.violated("time stands still".to_owned());
                break;
            }
            self.now = at;
            self.stats.events += 1;
            if matches!(what, Happening::Look) && self.look() {
                break;
            }
            self.happen(what);
        }
        (self.stats.forced, self.stats.thin) = (self.checks.forced, self.checks.thin);
        self.stats.split = self.checks.splits();
        self.stats.two_holders_in = u64::from(!self.stats.two_holders.is_zero());
        self.stats.fenced = u64::from(self.plan.lease.is_some());
        self.stats.two_masters_in = u64::from(!self.stats.two_masters.is_zero());
        self.stats.virtual_time = self.now.since(Instant::from_millis(1_000));
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(kind, host, boot) if self.workers[host].boot == boot => match kind {
                Kind::Sentinel => self.woken::<Sentinel>(host),
                Kind::Link => self.woken::<Cluster>(host),
                Kind::Supervisor => self.woken::<Supervisor>(host),
                Kind::Fence => self.woken::<Fence>(host),
                Kind::Route => self.woken::<Route>(host),
                Kind::Router => self.woken::<Router>(host),
            },
            Happening::StopRoles(host, boot) if self.workers[host].boot == boot => self.stop_roles(host),
            Happening::Recorded(host, boot) if self.workers[host].boot == boot => self.recorded(host),
            Happening::Spawned(host, boot) if self.workers[host].boot == boot => self.spawned(host),
            Happening::Kernel(host, boot) if self.workers[host].boot == boot => self.kernel(host),
            Happening::Plugged(host, boot) if self.workers[host].boot == boot => self.plugged(host),
            Happening::Wake(..)
            | Happening::StopRoles(..)
            | Happening::Recorded(..)
            | Happening::Spawned(..)
            | Happening::Kernel(..)
            | Happening::Plugged(..) => {}
            Happening::Frame(to, from, frame) => self.frame(to, from, &frame),
            Happening::Judge => self.judge_addresses(),
            Happening::Stored(host, serial) => self.stored(host, serial),
            Happening::LeaseEnds(host, boot) if self.workers[host].boot == boot => self.lease_ends(host),
            Happening::LeaseEnds(..) => {}
            Happening::Edited(host, fencing) => self.edited(host, fencing),
            Happening::Left(host, boot) => self.left(host, boot),
            Happening::Syn(id, limit) => self.syn(id, limit),
            Happening::Connected(id) => self.connected(id),
            Happening::ConnectFailed(id, why) => self.connect_failed(id, why),
            Happening::Deliver(id, way, packet) => self.deliver(id, way, packet),
            Happening::Datagram(to, from, bytes) => self.datagram(to, from, &bytes),
            Happening::Listens(r, incarnation) => self.begins_to_listen(r, incarnation),
            Happening::Terminated(r, incarnation) => self.terminated(r, incarnation),
            Happening::Loaded(r, incarnation) => self.loaded(r, incarnation),
            Happening::Works(r, incarnation, work) => {
                if self.redis[r].incarnation == incarnation {
                    self.redis_works(r, work);
                }
            }
            Happening::PauseOver(r, serial) => self.pause_over(r, serial),
            Happening::TryMaster(r, generation) => self.try_master(r, generation),
            Happening::Copied(r, generation, copy) => self.copied(r, generation, *copy),
            Happening::Stream(from, to, work) => self.stream_comes(from, to, work),
            Happening::LinkTimeout(r, generation) => self.link_timed_out(r, generation),
            Happening::Flush(r, incarnation) => self.flush(r, incarnation),
            Happening::WriteDue(w) => self.write_due(w),
            Happening::Acked(w, id) => self.acked(w, id),
            Happening::Refused(w) => self.refused(w),
            Happening::Closed(w, session) => self.session_closed(w, session),
            Happening::Asked(via, w, id) => self.asked(via, w, id),
            Happening::Answered(via, w, id, acked) => self.answered(via, w, id, acked),
            Happening::Dial(via, dials, r) => self.dial(via, dials, r),
            Happening::SessionCut(via) => self.session_cut(via),
            Happening::SessionTick(via) => self.session_tick(via),
            Happening::CheckLate(host, boot, serial) => {
                if self.workers[host].boot == boot {
                    self.check_late(host, serial);
                }
            }
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal(heal) => self.heal(heal),
            Happening::StartRedis(r, incarnation) => {
                if self.redis[r].incarnation == incarnation {
                    self.start_redis(r, false);
                }
            }
            Happening::StartWorker(host) => self.start_worker(host),
            Happening::Told(host, boot, input) => self.told(host, boot, *input),
            Happening::Tidy(host) => self.tidy(host),
            Happening::Quiet => self.quiet(),
            Happening::Look => {}
        }
    }

    fn quiet(&mut self) {
        self.note(|| "the faults end".to_owned());
        self.quiet_at = Some(self.now);
        self.end_faults();
        self.later(ms(100), Happening::Look);
    }

    /// Looks whether everything is well; true at the end of the world.
    fn look(&mut self) -> bool {
        let quiet_at = self.quiet_at.unwrap_or(self.now);
        match self.unwell() {
            None => {
                let since = *self.well_since.get_or_insert(self.now);
                if self.now.since(since) >= if self.plan.proxies > 0 { STABLE_ADDRESS } else { STABLE } {
                    self.stats.healed_max = since.since(quiet_at);
                    self.end_account();
                    return true;
                }
            }
            Some(why) => {
                self.well_since = None;
                if self.plan.drop_in && self.now.since(quiet_at) > ms(5_000) && self.now >= self.tidy_at {
                    self.tidy_at = self.now + ms(2_000);
                    self.tidy_all();
                }
                if self.now.since(quiet_at) > self.plan.liveness() {
                    let addresses = (0..self.groups.len()).find_map(|group| self.address_unwell(group));
                    if addresses.is_none() && self.operator_must_decide() {
                        self.stats.undecided = 1;
                    } else {
                        self.checks
                            .violated(format!("not well {:?} after the last fault: {why}", self.plan.liveness()));
                    }
                    return true;
                }
            }
        }
        self.later(ms(100), Happening::Look);
        false
    }

    fn end_account(&mut self) {
        for group in 0..self.groups.len() {
            let master = self.groups[group].iter().copied().find(|r| self.redis[*r].is_master());
            if let Some(master) = master {
                self.account(group, master);
            }
        }
        self.stats.votes = self.checks.votes_seen();
        if self.plan.calm() && self.stats.lost > 0 {
            self.checks.violated(format!("{} writes are lost although nothing went wrong", self.stats.lost));
        }
    }
}
