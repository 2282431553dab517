//! The frame of the peer link: what a node says of itself to every other node.
//!
//! ```text
//!  0        1                                 n                    n+32
//!  +--------+---------------------------------+----------------------+
//!  | version| Frame, postcard                 | HMAC-SHA256 of 0..n  |
//!  +--------+---------------------------------+----------------------+
//! ```
//! A frame is whole state, never a delta, so that a lost one heals itself. The tag is of the bytes before it and of the name of
//! the receiver, under a key derived from the cluster's own secret: what was sent to one node convinces no other, and nobody by
//! being sent back. `heard` is what the age of a frame is known by: its sender had heard that stamp of the receiver.

use std::fmt;
use std::net::SocketAddr;

use heapless::{String, Vec};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::base::{Epoch, NodeName, RunId, Secrets};

/// The version that is spoken. Version 1 was signed with the applications' password, and is refused.
pub const VERSION: u8 = 2;
/// A frame never exceeds this many bytes, so that it fits any Ethernet path unfragmented.
pub const FRAME_MAX: usize = 1_200;
const TAG_LEN: usize = 32;
/// Longest reason of a bad health, bytes.
pub const REASON_MAX: usize = 240;

/// One datagram of the peer link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The cluster it speaks of.
    pub cluster: String<32>,
    /// Random at each start of the sender's worker.
    pub boot: u64,
    /// Counts the sender's frames to everybody, from 1.
    pub sequence: u64,
    /// A number the receiver must echo before the sender believes a new boot of it.
    pub nonce: u64,
    /// The receiver's own nonce as last heard; zero: none heard yet.
    pub echo: u64,
    /// The sender's clock when it was sent, microseconds.
    pub stamp: u64,
    /// The newest stamp of the receiver that the sender has heard; zero: none yet.
    pub heard: u64,
    /// What the sender is.
    pub state: NodeState,
}

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl NodeState {
    /// A node whose roles have said nothing yet, and that is well.
    pub fn new(name: NodeName, version: String<16>, roles: Roles) -> Self {
        Self { name, version, roles, health: Health::Good, redis: None, sentinel: None, proxy: None, vips: Vec::new() }
    }
}

/// The roles of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What the supervisor knows of its redis process. Its word is proof: it is the parent of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisFacts {
    /// Where clients and replicas reach it.
    pub address: SocketAddr,
    /// Grows with every start of the process, also over restarts of the supervisor. What is said of one incarnation is
    /// never true of another.
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

/// Where the data of a redis came from, kept durably beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct History {
    /// The configuration epoch of the master it last was or followed.
    pub epoch: Epoch,
    /// Whether it was that master, or a replica in sync with it.
    pub in_sync: bool,
    /// The offset it had reached then.
    pub offset: u64,
}

/// State of a supervised process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelFacts {
    /// Its id (`SENTINEL MYID`).
    pub id: RunId,
    /// The highest epoch it has seen.
    pub current_epoch: Epoch,
    /// One per watched master.
    pub masters: Vec<MasterFacts, 4>,
}

/// What a sentinel thinks of one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Who is master since which configuration epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The master's address.
    pub master: SocketAddr,
    /// The epoch of the decision; a higher one supersedes it.
    pub epoch: Epoch,
}

/// What a proxy says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyFacts {
    /// Whether its listener accepts clients.
    pub listening: bool,
    /// Where it sends writes, and by which decision.
    pub route: Option<Decision>,
    /// Clients connected now.
    pub clients: u32,
}

/// What a node says of one of its virtual routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipFacts {
    /// Virtual router id, 1–255.
    pub virtual_router_id: u8,
    /// State of the protocol.
    pub state: VipState,
    /// Priority it advertises or would advertise.
    pub priority: u8,
}

/// States of VRRP (RFC 9568 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VipState {
    /// Not taking part.
    Initialize,
    /// Listening.
    Backup,
    /// Holding the addresses (the RFC's Active).
    Master,
}

/// Why a datagram is not a frame of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a version byte and a tag, or longer than [`FRAME_MAX`].
    #[error("{0} bytes are no frame: {min} to {FRAME_MAX} are expected", min = 1 + TAG_LEN)]
    Length(usize),
    /// Another version of the frame.
    #[error("frame version {0} is not spoken here: {VERSION} is expected; every node needs the same version of vigie")]
    Version(u8),
    /// The tag does not match: another secret, another receiver, or a changed frame.
    #[error("the frame is not authentic: its sender has another secret, or it was changed or redirected on its way")]
    Tag,
    /// Authentic and yet not readable: a bug or a foreign build.
    #[error("the frame is authentic but not readable: {0}")]
    Body(postcard::Error),
}

/// The keys of the link: frames are signed with the current one, and believed with either.
#[derive(Clone)]
pub struct Keys {
    current: Hmac<Sha256>,
    other: Option<Hmac<Sha256>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

impl Keys {
    /// From what the cluster's credentials have for [`Purpose::Link`](crate::base::Purpose::Link).
    pub fn new(secrets: &Secrets) -> Self {
        let mut keys = secrets.accepted().map(|secret| mac(secret.reveal().as_bytes()));
        let current = keys.next().unwrap_or_else(|| mac(secrets.current().reveal().as_bytes()));
        Self { current, other: keys.next() }
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// Encodes a frame and signs it for the node of that name. None if it does not fit, which the bounded fields exclude.
pub fn emit(frame: &Frame, keys: &Keys, to: &NodeName) -> Option<Vec<u8, FRAME_MAX>> {
    let mut body = [0; FRAME_MAX];
    let body = postcard::to_slice(frame, &mut body).ok()?;
    let mut bytes = Vec::new();
    bytes.push(VERSION).ok()?;
    bytes.extend_from_slice(body).ok()?;
    let tag = signed(&keys.current, &bytes, to).finalize().into_bytes();
    bytes.extend_from_slice(&tag).ok()?;
    Some(bytes)
}

/// The name stands behind the frame, which says itself where it ends.
fn signed(key: &Hmac<Sha256>, bytes: &[u8], to: &NodeName) -> Hmac<Sha256> {
    let mut tag = key.clone();
    tag.update(bytes);
    tag.update(to.as_str().as_bytes());
    tag
}

/// Checks and decodes a datagram that came to the node of that name.
pub fn parse(bytes: &[u8], keys: &Keys, me: &NodeName) -> Result<Frame, Malformed> {
    if bytes.len() <= TAG_LEN || bytes.len() > FRAME_MAX {
        return Err(Malformed::Length(bytes.len()));
    }
    if bytes[0] != VERSION {
        return Err(Malformed::Version(bytes[0]));
    }
    let (body, tag) = bytes.split_at(bytes.len() - TAG_LEN);
    let authentic = |key: &Hmac<Sha256>| signed(key, body, me).verify_slice(tag).is_ok();
    if !authentic(&keys.current) && !keys.other.as_ref().is_some_and(authentic) {
        return Err(Malformed::Tag);
    }
    postcard::from_bytes(&body[1..]).map_err(Malformed::Body)
}

#[cfg(test)]
mod tests;
