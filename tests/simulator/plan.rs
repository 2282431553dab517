//! What a seed makes of the world: how many there are of each, how the network is, and which faults come how often.

use std::time::Duration;

use vigie::wire::vrrp::Interval;

use crate::dice::Dice;
use crate::world::{LIVENESS, ms};

/// The faults, each with a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process of a sentinel dies, alone or with its redis, and comes back with its disk.
    SentinelCrash,
    /// The process of a sentinel does not run for a while; its clock goes on.
    SentinelPause,
    /// A sentinel leaves as it should, and comes back.
    SentinelStop,
    /// Nothing can be stored for a while.
    DiskError,
    /// Storing takes long for a while.
    SlowDisk,
    /// A whole host loses its power: nobody is told.
    PowerLoss,
    /// One or more hosts are cut from the others.
    Partition,
    /// What one host sends does not reach another one.
    OneWay,
    /// A few connections are reset.
    Reset,
    /// A connection ends at one end only.
    HalfOpen,
    /// Delays and losses grow for a while.
    Storm,
    /// A redis dies and is started again.
    RedisCrash,
    /// A redis does not run for a while.
    RedisHang,
    /// A redis answers late, again and again, for a while.
    RedisSlow,
    /// A redis closes the links of all its replicas: their output buffers were full.
    ReplicasDropped,
    /// A redis dies and its disk is empty.
    RedisWipe,
    /// All redis of a group die at once.
    GroupCrash,
    /// All sentinels die at once.
    AllSentinelsCrash,
    /// An operator orders a switchover.
    Order,
    /// An operator says SENTINEL FAILOVER.
    Failover,
    /// Somebody makes a replica a master by hand.
    Meddling,
    /// An operator says SENTINEL REMOVE to one sentinel, and SENTINEL MONITOR later.
    Remove,
    /// An operator says SENTINEL SET to one sentinel.
    Change,
    /// An operator says SENTINEL RESET to one sentinel.
    Forget,
    /// A host whose name is known gets another address.
    HostMoves,
    /// Somebody who knows the password of the applications says to a sentinel, and publishes, what could move it.
    Stranger,
    /// One sentinel, once, comes back with the disk of another life: its epoch is far above that of all others.
    Restored,
    /// One sentinel, always the same, comes back without anything on its disk.
    SentinelWipe,
    /// The process of a proxy dies and is started again.
    ProxyCrash,
    /// The process of a proxy does not run for a while.
    ProxyPause,
    /// The cable of a proxy is out for a while.
    Unplugged,
    /// The kernel of a proxy refuses virtual addresses for a while.
    AddressRefused,
    /// So many machines are lost that there is no majority, and an operator gives the writes to one that is left. The others come
    /// back, each with its disk. It is the same one that is left each time.
    Takeover,
    /// The cluster files are edited, one node after the other, to ask for leases or for none.
    Edit,
}

/// All of them, with the mean time between two at the full rate.
pub const FAULTS: [(Fault, Duration); 20] = [
    (Fault::SentinelCrash, ms(3_000)),
    (Fault::SentinelPause, ms(4_000)),
    (Fault::SentinelStop, ms(8_000)),
    (Fault::DiskError, ms(6_000)),
    (Fault::SlowDisk, ms(6_000)),
    (Fault::PowerLoss, ms(8_000)),
    (Fault::Partition, ms(4_000)),
    (Fault::OneWay, ms(4_000)),
    (Fault::Reset, ms(2_000)),
    (Fault::HalfOpen, ms(3_000)),
    (Fault::Storm, ms(6_000)),
    (Fault::RedisCrash, ms(3_000)),
    (Fault::RedisHang, ms(4_000)),
    (Fault::RedisSlow, ms(6_000)),
    (Fault::RedisWipe, ms(12_000)),
    (Fault::GroupCrash, ms(15_000)),
    (Fault::AllSentinelsCrash, ms(15_000)),
    (Fault::Order, ms(3_000)),
    (Fault::Failover, ms(4_000)),
    (Fault::Meddling, ms(15_000)),
];

/// What happens to drop-ins beside these.
pub const DROP_IN_FAULTS: [(Fault, Duration); 4] = [
    (Fault::Remove, ms(5_000)),
    (Fault::Change, ms(4_000)),
    (Fault::Forget, ms(8_000)),
    (Fault::HostMoves, ms(12_000)),
];

/// What happens to proxies beside these.
pub const PROXY_FAULTS: [(Fault, Duration); 4] = [
    (Fault::ProxyCrash, ms(4_000)),
    (Fault::ProxyPause, ms(4_000)),
    (Fault::Unplugged, ms(5_000)),
    (Fault::AddressRefused, ms(8_000)),
];

/// The longest delay of a storm, and what may come on top of it.
pub const STORM_DELAY: Duration = ms(100);
pub const STORM_JITTER: Duration = ms(500);

/// One world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// Sentinels, on the first hosts.
    pub sentinels: usize,
    /// Proxies, on hosts of their own.
    pub proxies: usize,
    /// The priority of each in the election of its virtual address.
    pub priorities: Vec<u8>,
    /// Between two adverts of a virtual router.
    pub interval: Interval,
    /// Whether a proxy of higher priority takes the address from one that works.
    pub preempt: bool,
    /// Whether the clients of the proxies know their virtual address, or all of them by name.
    pub by_address: bool,
    /// Redis of each group; one host each.
    pub groups: Vec<usize>,
    /// Quorum of each group.
    pub quorums: Vec<u32>,
    /// Whether nodes have supervisors and a peer link: the way of `vigie run`.
    pub linked: bool,
    /// Whether the sentinels have no cluster file: the way of redis-sentinel.
    pub drop_in: bool,
    /// Whether hosts are known by their names. Drop-ins only.
    pub named: bool,
    /// Whether there are scripts. Drop-ins only.
    pub scripts: bool,
    /// Silence before a master is suspected.
    pub down_after: Duration,
    /// The length of leases; none: there are none.
    pub lease: Option<Duration>,
    /// Whether the cluster files ask for them at first.
    pub fencing: bool,
    /// Longest phase of a failover.
    pub failover_timeout: Duration,
    /// Replicas re-pointed at once.
    pub parallel_syncs: u32,
    /// Clocks run fast or slow by at most so many millionths.
    pub drift: i64,
    /// Shortest time on the way from host to host.
    pub delay: Duration,
    /// So much longer at most.
    pub jitter: Duration,
    /// Losses, of 1,000.
    pub loss: usize,
    /// Longest time of a store while the disk is well.
    pub store: Duration,
    /// Longest full copy of the data.
    pub copy: Duration,
    /// A replica that hears nothing of its master for so long gives the link up.
    pub repl_timeout: Duration,
    /// Missing writes up to which a replica goes on where it stopped.
    pub backlog: usize,
    /// A redis that dies is started again after at most this time.
    pub restart: Duration,
    /// Between two writes of a client.
    pub write_every: Duration,
    /// Faults of this world, with their mean distance.
    pub faults: Vec<(Fault, Duration)>,
    /// How long the faults go on.
    pub trouble: Duration,
}

impl Plan {
    /// The world of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 0);
        let sentinels = dice.pick(&[3, 3, 3, 3, 3, 3, 5, 5, 4, 6, 7]);
        let groups = dice.pick(&[1, 1, 1, 1, 1, 1, 1, 2, 2, 3]);
        let groups: Vec<usize> = (0..groups).map(|_| dice.pick(&[3, 3, 3, 3, 4, 5])).collect();
        let single = groups.len() == 1;
        let quorums = groups.iter().map(|_| {
            let usual = sentinels / 2 + 1;
            let quorum = if dice.chance(600) { usual } else { 1 + dice.below(sentinels) };
            u32::try_from(quorum).expect("small")
        });
        let quorums: Vec<u32> = quorums.collect();
        let down_after = dice.pick(&[ms(250), ms(500), ms(500), ms(1_000), ms(2_000)]);
        // One world of 16 is calm: there nothing may happen at all.
        let calm = dice.chance(60);
        let rate = dice.pick(&[1, 1, 2, 4]);
        let mut faults = Vec::new();
        for (fault, every) in FAULTS {
            if !calm && dice.chance(350) {
                faults.push((fault, every * rate));
            }
        }
        // Dice of its own: the worlds of the others stay what they were.
        let mut other = Dice::new(seed, 4);
        let drop_in = other.chance(333);
        let named = drop_in && other.chance(300);
        for (fault, every) in DROP_IN_FAULTS {
            if drop_in && !calm && other.chance(350) && (named || fault != Fault::HostMoves) {
                faults.push((fault, every * rate));
            }
        }
        // A cluster cannot do without its link. It was drawn once: the worlds stay what they were.
        dice.chance(800);
        let linked = !drop_in;
        let mut strangers = Dice::new(seed, 5);
        if linked && strangers.chance(400) {
            faults.push((Fault::Stranger, ms(300)));
        }
        let others = u32::try_from(sentinels - 1).expect("small");
        let all_but_one_suffice = sentinels - 1 > sentinels / 2 && quorums.iter().all(|quorum| *quorum <= others);
        if linked && !calm && all_but_one_suffice && strangers.chance(100) {
            faults.push((Fault::Restored, ms(2_000)));
        }
        let mut wipes = Dice::new(seed, 11);
        let restored = faults.iter().any(|(fault, _)| *fault == Fault::Restored);
        if linked && !calm && !restored && wipes.chance(250) {
            faults.push((Fault::SentinelWipe, ms(100)));
            faults.push((Fault::Partition, ms(2_000)));
        }
        let proxies = if linked { Dice::new(seed, 6).pick(&[0, 0, 1, 2, 2, 3]) } else { 0 };
        let mut routers = Dice::new(seed, 7);
        // The article's, or all alike: then the higher address goes before.
        let priorities = routers.pick(&[[101, 100, 100], [100, 101, 99], [100, 100, 100], [254, 1, 2]]);
        let intervals = [Interval::Centiseconds(10), Interval::Centiseconds(1), Interval::Seconds(1)];
        let interval = intervals[routers.pick(&[0, 0, 0, 0, 1, 2])];
        let (preempt, by_address) = (routers.chance(400), routers.chance(750));
        for (fault, every) in PROXY_FAULTS {
            if proxies > 0 && !calm && routers.chance(350) {
                faults.push((fault, every * rate));
            }
        }
        // Much data on slow links, and short backlogs: replicas are in the middle of a copy whenever something else happens.
        let bulky = Dice::new(seed, 8).chance(100);
        if bulky && !calm {
            faults.push((Fault::Partition, ms(3_000)));
            faults.push((Fault::ReplicasDropped, ms(1_500)));
            faults.push((Fault::RedisHang, ms(4_000)));
        }
        let lease = (linked && single && Dice::new(seed, 9).chance(500)).then_some(ms(250).min(down_after / 2));
        let mut files = Dice::new(seed, 10);
        let edited = lease.is_some() && !calm && files.chance(400);
        if edited {
            faults.push((Fault::Edit, ms(4_000)));
        }
        // What is decided with the disk of another life is out of reach for the others, and stays a question to the operator.
        if lease.is_some() && !calm && !restored && Dice::new(seed, 12).chance(250) {
            faults.push((Fault::Takeover, ms(6_000)));
        }
        let plan = Self {
            seed,
            sentinels,
            proxies,
            priorities: priorities[..proxies].to_vec(),
            interval,
            preempt,
            by_address,
            groups,
            quorums,
            linked,
            drop_in,
            named,
            scripts: drop_in && other.chance(300),
            down_after,
            lease,
            fencing: lease.is_some() && !(edited && files.chance(500)),
            failover_timeout: dice.pick(&[ms(2_000), ms(5_000), ms(10_000)]),
            parallel_syncs: dice.pick(&[1, 1, 2, 5]),
            drift: dice.pick(&[0, 50, 500, 2_000]),
            delay: dice.pick(&[ms(0), ms(0), ms(1), ms(5)]) + Duration::from_micros(100),
            jitter: dice.pick(&[Duration::from_micros(100), ms(1), ms(10)]),
            loss: if calm { 0 } else { dice.pick(&[0, 0, 1, 10, 50]) },
            store: dice.pick(&[ms(1), ms(5), ms(30)]),
            copy: dice.pick(&[ms(50), ms(500), ms(3_000)]),
            repl_timeout: dice.pick(&[ms(2_000), ms(10_000), ms(60_000)]),
            backlog: dice.pick(&[3, 50, 10_000]),
            restart: dice.pick(&[ms(100), ms(1_000), ms(4_000)]),
            write_every: dice.pick(&[ms(10), ms(40), ms(40), ms(200)]),
            faults,
            trouble: dice.pick(&[ms(3_000), ms(6_000), ms(6_000), ms(12_000), ms(25_000)]),
        };
        if bulky { Self { copy: ms(20_000), repl_timeout: ms(2_000), backlog: 3, ..plan } } else { plan }
    }

    /// Within so long after the last fault everything must be well again. Where nobody hears the supervisors it takes a few
    /// rounds of being found down, and of waiting for a leader that is gone.
    pub fn liveness(&self) -> Duration {
        if self.drop_in { ms(20_000) + (self.down_after + self.failover_timeout) * 3 } else { LIVENESS }
    }

    /// Whether nothing at all goes wrong. What strangers say is nothing.
    pub fn calm(&self) -> bool {
        self.faults.iter().all(|(fault, _)| *fault == Fault::Stranger) && self.loss == 0
    }
}
