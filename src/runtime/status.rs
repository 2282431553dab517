//! What `vigie status --json` prints: the view of one node on the whole cluster, in words and numbers for people and scripts.

use serde::{Deserialize, Serialize};

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the cluster.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// Version of its software.
    pub version: String,
    /// Since when its worker runs, milliseconds.
    pub uptime_ms: u64,
    /// `not fenced` as long as nothing stops a master that is cut off from the majority from taking writes.
    pub fencing: String,
    /// The master by the latest decision known; none before the first one.
    pub master: Option<MasterStatus>,
    /// All nodes of the file, in its order.
    pub nodes: Vec<NodeStatus>,
}

/// The latest decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterStatus {
    /// Its node; none if no node of the file has that address.
    pub node: Option<String>,
    /// Address and port of its redis.
    pub address: String,
    /// Configuration epoch of the decision.
    pub epoch: u64,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// `proxy`, `redis`, `sentinel`.
    pub roles: Vec<String>,
    /// `good`, `bad`, or `unreachable`.
    pub health: String,
    /// Why it is not good; empty if it is.
    pub why: String,
    /// Age of what is known of it, milliseconds; none if it was never heard.
    pub heard_ms_ago: Option<u64>,
    /// Version of its software, if heard.
    pub version: Option<String>,
    /// Its redis.
    pub redis: Option<RedisStatus>,
    /// Its sentinel.
    pub sentinel: Option<SentinelStatus>,
    /// Its proxy.
    pub proxy: Option<ProxyStatus>,
    /// Its virtual routers.
    pub vips: Vec<VipStatus>,
}

/// One redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisStatus {
    /// `starting`, `loading`, `alive`, `busy`, `dead`.
    pub process: String,
    /// `unknown`, `closed`, `replica`, `master`.
    pub role: String,
    /// The master of a replica.
    pub master: Option<String>,
    /// Whether a replica is in sync with it; true of a master.
    pub in_sync: bool,
    /// Replication offset, bytes.
    pub offset: u64,
    /// How far it is behind the master, bytes; none if that cannot be told.
    pub lag_bytes: Option<u64>,
    /// Replicas attached to a master.
    pub replicas: Option<u8>,
    /// Counts the starts of the process.
    pub incarnation: u64,
}

/// One sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelStatus {
    /// Its id.
    pub id: String,
    /// The highest epoch it has seen.
    pub current_epoch: u64,
    /// Who is master by its decision.
    pub master: Option<String>,
    /// The epoch of that decision.
    pub config_epoch: Option<u64>,
    /// Whether it finds that master down.
    pub sees_down: bool,
    /// The epoch of the failover it leads now.
    pub leads: Option<u64>,
}

/// One proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Whether it accepts clients.
    pub listening: bool,
    /// Where it sends writes.
    pub route: Option<String>,
    /// Clients connected now.
    pub clients: u32,
}

/// One virtual router of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// Its addresses, with prefix length.
    pub addresses: Vec<String>,
    /// Virtual router id.
    pub virtual_router_id: u8,
    /// `initialize`, `backup`, `master`.
    pub state: String,
    /// Priority, 1–254.
    pub priority: u8,
}
