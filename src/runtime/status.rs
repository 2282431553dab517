//! What `vigie status --json` prints: the view of one node on the whole cluster, in words and numbers for people and scripts.

pub mod fencing;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use self::fencing::Fencing;
use crate::base::Instant;
use crate::base::node::{Health, Process, RedisFacts, RedisRole, VipFacts, VipState, starts};
use crate::base::time::millis;
use crate::config::Config;
use crate::cores::cluster::{NodeView, View};

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
    /// Whether a master that is cut off from the majority is kept from taking writes, and by which lease. Its fields stand here.
    #[serde(flatten)]
    pub fencing: Fencing,
    /// The master by the latest decision known; none before the first one, and while there is a conflict.
    pub master: Option<MasterStatus>,
    /// The epoch in which sentinels name different masters, if it is the latest: none of them is believed.
    pub conflict: Option<u64>,
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
    /// Whether it is the master by the latest decision.
    #[serde(default)]
    pub decided: bool,
    /// Whether it takes writes; none: that is not known.
    #[serde(default)]
    pub takes_writes: Option<bool>,
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
    pub incarnation: u32,
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

impl Status {
    /// The status of the cluster of `config` as `view` has it at `now`; the worker runs since `started`.
    pub fn new(config: &Config, view: &View, started: Instant, now: Instant) -> Self {
        let master_name = config.cluster.name.as_str();
        let decision = view.newest_decision(master_name);
        let is_master =
            |node: &NodeView| decision.is_some_and(|d| d.master == SocketAddr::new(node.address, config.redis.port));
        let master = decision.map(|decision| MasterStatus {
            node: view.nodes.iter().find(|node| is_master(node)).map(|node| node.name.to_string()),
            address: decision.master.to_string(),
            epoch: decision.epoch,
        });
        let master_offset = view.fresh().find(|(node, _)| is_master(node)).and_then(|(_, state)| state.redis.as_ref());
        let master_offset = master_offset.map(|redis| redis.offset);
        let shown = Shown { config, view, master: decision.map(|decision| decision.master), master_offset, now };
        Self {
            cluster: master_name.to_owned(),
            node: view.own().name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: millis(now.since(started)),
            fencing: Fencing::new(config, view),
            master,
            conflict: view.conflict(master_name),
            nodes: view.nodes.iter().map(|node| shown.node(node)).collect(),
        }
    }
}

/// What every node is shown beside.
struct Shown<'v> {
    config: &'v Config,
    view: &'v View,
    /// Where the master is by the latest decision.
    master: Option<SocketAddr>,
    master_offset: Option<u64>,
    now: Instant,
}

impl Shown<'_> {
    fn node(&self, node: &NodeView) -> NodeStatus {
        let Self { config, now, .. } = *self;
        let state = node.state.as_ref();
        let roles = state.map_or(node.roles, |state| state.roles);
        let health = match state.filter(|_| node.fresh).map(|state| &state.health) {
            None => "unreachable",
            Some(Health::Good) => "good",
            Some(Health::Bad(_)) => "bad",
        };
        let sentinel = state.and_then(|state| state.sentinel.as_ref());
        let vip_addresses = |id: u8| {
            let vip = config.vips.iter().find(|vip| vip.virtual_router_id == id);
            vip.map_or_else(Vec::new, |vip| vip.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect())
        };
        NodeStatus {
            name: node.name.to_string(),
            address: node.address.to_string(),
            roles: roles.names().map(str::to_owned).collect(),
            health: health.to_owned(),
            why: node.fault.clone(),
            heard_ms_ago: node.heard_at.map(|at| millis(now.since(at))),
            version: state.map(|state| state.version.to_string()),
            redis: state.and_then(|state| state.redis.as_ref()).map(|redis| self.redis(node, redis)),
            sentinel: sentinel.map(|sentinel| {
                let master = sentinel.master(&config.cluster.name);
                let decision = master.and_then(|master| master.decision);
                SentinelStatus {
                    id: sentinel.id.to_string(),
                    current_epoch: sentinel.current_epoch,
                    master: decision.map(|decision| decision.master.to_string()),
                    config_epoch: decision.map(|decision| decision.epoch),
                    sees_down: master.is_some_and(|master| master.sees_down),
                    leads: master.and_then(|master| master.leads),
                }
            }),
            proxy: state.and_then(|state| state.proxy).map(|proxy| ProxyStatus {
                listening: proxy.listening,
                route: proxy.route.map(|route| route.master.to_string()),
                clients: proxy.clients,
            }),
            vips: state.map_or_else(Vec::new, |state| {
                let status = |vip: &VipFacts| VipStatus {
                    addresses: vip_addresses(vip.virtual_router_id),
                    virtual_router_id: vip.virtual_router_id,
                    state: match vip.state {
                        VipState::Initialize => "initialize",
                        VipState::Backup => "backup",
                        VipState::Master => "master",
                    }
                    .to_owned(),
                    priority: vip.priority,
                };
                state.vips.iter().map(status).collect()
            }),
        }
    }

    fn redis(&self, node: &NodeView, redis: &RedisFacts) -> RedisStatus {
        let process = match redis.process {
            Process::Starting => "starting",
            Process::Loading => "loading",
            Process::Alive => "alive",
            Process::Busy => "busy",
            Process::Dead => "dead",
        };
        let (role, master, in_sync, replicas) = match redis.role {
            RedisRole::Unknown => ("unknown", None, false, None),
            RedisRole::Closed => ("closed", None, false, None),
            RedisRole::Replica { of, link_up } => ("replica", Some(of.to_string()), link_up, None),
            RedisRole::Master { replicas } => ("master", None, true, Some(replicas)),
        };
        RedisStatus {
            process: process.to_owned(),
            role: role.to_owned(),
            decided: self.master == Some(SocketAddr::new(node.address, self.config.redis.port)),
            takes_writes: fencing::takes_writes(self.view, node, self.config.cluster.name.as_str()),
            master,
            in_sync,
            offset: redis.offset,
            // The two offsets are not of the same moment: a replica may seem to be ahead.
            lag_bytes: self
                .master_offset
                .filter(|_| role == "replica" && in_sync)
                .map(|at| at.saturating_sub(redis.offset)),
            replicas,
            incarnation: starts(redis.incarnation),
        }
    }
}
