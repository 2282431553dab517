//! What a node, and each of its parts, says of itself: the words in which the roles of a cluster know of each other.
//!
//! Texts and lists are bounded, so that a node's whole state fits one datagram of the peer link.

use std::net::SocketAddr;

use heapless::{String, Vec};

use super::lease::{Tenure, Terms};
use super::{Epoch, NodeName, RunId};

/// Longest reason of a bad health, bytes.
pub const REASON_MAX: usize = 240;

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Name in the cluster file.
    pub name: NodeName,
    /// Version of the software.
    pub version: String<16>,
    /// The roles it really runs.
    pub roles: Roles,
    /// Whether it can do its work, and if not, why.
    pub health: Health,
    /// Its redis, if it has that role.
    pub redis: Option<RedisFacts>,
    /// Its sentinel, if it has that role.
    pub sentinel: Option<SentinelFacts>,
    /// Its proxy, if it has that role.
    pub proxy: Option<ProxyFacts>,
    /// Its virtual routers.
    pub vips: Vec<VipFacts, 4>,
    /// What it says of the lease of its redis.
    pub tenure: Tenure,
    /// By which voters it goes.
    pub terms: Terms,
    /// Whether it hears a majority of the sentinels: else it is no use as a master.
    pub hears_majority: bool,
    /// Whether it is being emptied of its roles: nothing is to be moved to it.
    pub draining: bool,
}

impl NodeState {
    /// A node whose roles have said nothing yet, and that is well.
    pub fn new(name: NodeName, version: String<16>, roles: Roles) -> Self {
        Self {
            name,
            version,
            roles,
            health: Health::Good,
            redis: None,
            sentinel: None,
            proxy: None,
            vips: Vec::new(),
            tenure: Tenure::None,
            terms: Terms::default(),
            hears_majority: false,
            draining: false,
        }
    }
}

/// The roles of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Holds the virtual IP if elected and relays clients to the master.
    pub proxy: bool,
    /// Runs a redis-server.
    pub redis: bool,
    /// Votes.
    pub sentinel: bool,
}

impl Roles {
    /// Their names, as files and people have them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.proxy, "proxy"), (self.redis, "redis"), (self.sentinel, "sentinel")];
        all.into_iter().filter_map(|(has, name)| has.then_some(name))
    }

    /// The names with something between them.
    pub fn joined(self, between: &str) -> std::string::String {
        self.names().collect::<std::vec::Vec<_>>().join(between)
    }
}

/// Whether a node can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything it should do works.
    Good,
    /// Something does not, in words for a person.
    Bad(String<REASON_MAX>),
}

impl Health {
    /// A bad health with the reason cut to what a frame can carry; a cut one ends in "…".
    pub fn bad(reason: &str) -> Self {
        if reason.len() <= REASON_MAX {
            return Self::Bad(clipped(reason));
        }
        let end = reason.floor_char_boundary(REASON_MAX - '…'.len_utf8());
        Self::Bad(clipped(&format!("{}…", &reason[..end])))
    }
}

/// `text`, cut at a character boundary to the capacity of the target.
pub fn clipped<const N: usize>(text: &str) -> String<N> {
    let mut cut = String::new();
    for character in text.chars() {
        if cut.push(character).is_err() {
            break;
        }
    }
    cut
}

/// The name of the first start of a process by a supervisor that was given the number `life`, after `starts` by earlier ones.
/// The number of starts alone would not do: who has lost its disk counts from one again, and a restored one goes back.
pub fn incarnation(life: u32, starts: u32) -> u64 {
    u64::from(life) << 32 | u64::from(starts)
}

/// How many starts there were up to that incarnation, as far as the disk of its host remembers: what people are told.
pub fn starts(incarnation: u64) -> u32 {
    // The lower half.
    incarnation as u32
}

/// What the supervisor knows of its redis process. Its word is proof: it is the parent of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisFacts {
    /// Where clients and replicas reach it.
    pub address: SocketAddr,
    /// Names one start of the process: see [`incarnation`]. What is said of one incarnation is never true of another.
    pub incarnation: u64,
    /// State of the process.
    pub process: Process,
    /// Its replication role, as it last said itself.
    pub role: RedisRole,
    /// Its run id, once known.
    pub run_id: Option<RunId>,
    /// Its replication id (`master_replid`), once known: the lineage of its data.
    pub replication_id: Option<RunId>,
    /// Its replication offset in bytes (`master_repl_offset`, on a replica what it has applied).
    pub offset: u64,
    /// Its configured replica priority; 0: never to be promoted.
    pub priority: u32,
    /// Whether it holds any key at all.
    pub has_data: bool,
    /// What the durable record beside its data says of that data's history.
    pub history: Option<History>,
}

impl RedisFacts {
    /// Of a redis of which nothing is known yet but where it will be reached: no process, with the usual priority.
    pub fn new(address: SocketAddr, incarnation: u64) -> Self {
        Self {
            address,
            incarnation,
            process: Process::Dead,
            role: RedisRole::Unknown,
            run_id: None,
            replication_id: None,
            offset: 0,
            priority: 100,
            has_data: false,
            history: None,
        }
    }
}

/// Where the data of a redis came from, kept durably beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct History {
    /// The configuration epoch of the master it last was or followed.
    pub epoch: Epoch,
    /// Whether it was that master, or a replica in sync with it.
    pub in_sync: bool,
    /// The offset it had reached then.
    pub offset: u64,
}

/// State of a supervised process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Spawned, does not answer yet.
    Starting,
    /// Answers, reads its data from disk.
    Loading,
    /// Answers.
    Alive,
    /// Alive by the kernel's word, but does not answer at the moment (a slow script, a fork).
    Busy,
    /// Dead by the kernel's word.
    Dead,
}

/// Replication role of a redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisRole {
    /// Not asked yet.
    Unknown,
    /// Started closed: a replica of nobody, refuses writers and replicas.
    Closed,
    /// Replica of another node.
    Replica {
        /// Its master.
        of: SocketAddr,
        /// Whether the link to it is up, which includes that the initial synchronisation has ended.
        link_up: bool,
    },
    /// Takes writes.
    Master {
        /// How many replicas are attached and in sync.
        replicas: u8,
    },
}

/// What a sentinel says of itself and of the masters it watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelFacts {
    /// Its id (`SENTINEL MYID`).
    pub id: RunId,
    /// The highest epoch it has seen.
    pub current_epoch: Epoch,
    /// One per watched master.
    pub masters: Vec<MasterFacts, 4>,
}

impl SentinelFacts {
    /// What it thinks of the master of that name, if it watches one.
    pub fn master(&self, name: &str) -> Option<&MasterFacts> {
        self.masters.iter().find(|master| master.name == name)
    }
}

/// What a sentinel thinks of one master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasterFacts {
    /// The name that clients ask for.
    pub name: String<32>,
    /// The master by the last decision known here, with the epoch of that decision. None: no record of any master.
    pub decision: Option<Decision>,
    /// Whether this sentinel, by itself, finds that master down (`s_down`).
    pub sees_down: bool,
    /// Whether this sentinel leads a failover now, and in which epoch.
    pub leads: Option<Epoch>,
    /// Who got its last vote, in which epoch.
    pub vote: Option<(RunId, Epoch)>,
    /// The process that it wants as the master of the epoch in which it leads: its incarnation. There is never another one in that
    /// epoch.
    pub target: Option<u64>,
    /// By what right the master of the decision takes writes.
    /// None: that is not said. A node speaks to others in a layout that has no place for it until it has heard what they read; of an
    /// older build, which knows of no leases, it is [`Mode::Unfenced`].
    pub mode: Option<Mode>,
}

/// By what right the master of a decision takes writes. It belongs to the decision, and changes only with the master staying, but by
/// the order of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By the decision alone.
    #[default]
    Unfenced,
    /// By a lease: only while a majority of the sentinels promises that nobody else does.
    Fenced,
    /// By the word of an operator, who gave it to the redis beside the one sentinel that was left: see `vigie takeover`.
    TakenOver,
}

impl Mode {
    /// What a file asks for.
    pub fn asked(fencing: bool) -> Self {
        if fencing { Self::Fenced } else { Self::Unfenced }
    }
}

/// Who is master since which configuration epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The master's address.
    pub master: SocketAddr,
    /// The epoch of the decision; a higher one supersedes it.
    pub epoch: Epoch,
}

/// What a proxy says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyFacts {
    /// Whether its listener accepts clients.
    pub listening: bool,
    /// Where it sends writes, and by which decision.
    pub route: Option<Decision>,
    /// Clients connected now.
    pub clients: u32,
    /// Requests are held for the master of that epoch.
    pub held: Option<Epoch>,
}

/// What a node says of one of its virtual routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipFacts {
    /// Virtual router id, 1–255.
    pub virtual_router_id: u8,
    /// State of the protocol.
    pub state: VipState,
    /// Priority it advertises or would advertise.
    pub priority: u8,
}

/// States of VRRP (RFC 9568 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VipState {
    /// Not taking part.
    Initialize,
    /// Listening.
    Backup,
    /// Holding the addresses (the RFC's Active).
    Master,
}
