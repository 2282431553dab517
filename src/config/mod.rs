//! The cluster file, parsed and validated whole, and the kernel command line.
//!
//! A [`Config`] that exists is consistent: every rule that can be checked without looking at the machine holds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::node::Roles;
use crate::base::{Credentials, NodeName};

pub mod boot;
mod draft;
pub mod faults;
pub mod file;
mod include;
pub mod kernel;
pub mod keys;
mod reader;
mod rules;
pub mod sentinel;

pub use faults::{Fault, Faults, Warning};
pub use file::{load, parse};
pub use kernel::{Identity, IdentityError, Kernel, identify};

/// The whole cluster, the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[[vip]]`
    pub vips: Vec<Vip>,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[redis]`
    pub redis: Redis,
    /// `[sentinel]`
    pub sentinel: Sentinel,
    /// `[[node]]`, in the order of the file.
    pub nodes: Vec<Node>,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The name that Sentinel clients ask for.
    pub name: String,
    /// Sentinels that must agree that the master is down.
    pub quorum: u32,
    /// The applications' password and the cluster's own secret.
    pub credentials: Credentials,
    /// Silence of a host before its master is suspected.
    pub down_after: Duration,
    /// A redis that its own supervisor sees alive and busy is not suspected for so long.
    pub busy_grace: Duration,
    /// Whether a master that is cut off is kept from taking writes, as far as this file says it.
    pub fencing: Fencing,
    /// Whether the file says that itself.
    pub fencing_said: bool,
    /// For how long a sentinel of this node promises a master that no other one takes writes. There is one with `Off` too: the
    /// cluster may have been fenced by a decision that was made before the file said so.
    pub lease: Duration,
    /// Longest duration of each phase of a failover.
    pub failover_timeout: Duration,
}

/// `cluster.fencing`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fencing {
    /// A master that is cut off goes on taking writes.
    Off,
    /// A master takes writes only while a majority of the sentinels promises it that nobody else does.
    Lease,
}

impl fmt::Display for Fencing {
    /// As the file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Lease => "lease",
        })
    }
}

/// `[[vip]]`: one virtual router and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Addresses with their prefix lengths, all of one family.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The interface that carries them.
    pub interface: String,
    /// 1–255, one per segment.
    pub virtual_router_id: u8,
    /// VRRP version, 2 or 3.
    pub version: u8,
    /// Time between advertisements.
    pub advert_interval: Duration,
    /// Whether a router of higher priority takes over from a working one.
    pub preempt: bool,
    /// Other routers whose adverts count besides those of the proxies.
    pub peers: Vec<IpAddr>,
}

/// `[proxy]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Port on the VIP: the master.
    pub port: u16,
    /// Longest time to connect to the master.
    pub connect_timeout: Duration,
    /// How often the route to the master is proved.
    pub check_interval: Duration,
    /// How long a new client waits for a master before it gets an error.
    pub hold_timeout: Duration,
    /// Clients at once.
    pub max_clients: u32,
}

/// `[redis]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Port on the node's own address and loopback.
    pub port: u16,
    /// `redis-server`, `valkey-server`, or a path.
    pub server: String,
    /// Where it keeps its data; none: `<state-dir>/redis`.
    pub data_dir: Option<PathBuf>,
    /// Whom it runs as; none: as `redis` or `valkey` where there is such a user.
    pub user: Option<String>,
    /// How it persists.
    pub persistence: Persistence,
    /// Extra configuration files, read first; patterns already expanded at load.
    pub include: Vec<String>,
    /// Whether the kernel's settings of the whole host are made for redis.
    pub tune_host: bool,
}

/// `redis.persistence`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Append-only file, fsync every second.
    Aof,
    /// Snapshots.
    Rdb,
    /// None.
    None,
}

/// `[sentinel]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinel {
    /// Port on every address of the node.
    pub port: u16,
    /// Addresses of voters that may be redis-sentinel or valkey-sentinel.
    pub stock: Vec<IpAddr>,
}

/// `[[node]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its own address.
    pub address: IpAddr,
    /// What it does.
    pub roles: Roles,
    /// VRRP priority of a proxy, 1–254.
    pub priority: u8,
    /// Replica priority of a redis, 0–1000000; 0: never a master.
    pub replica_priority: u32,
    /// Whether it becomes the first master of a cluster without any record of one.
    pub bootstrap_master: bool,
}

/// UDP port of the peer link.
pub const PEER_PORT: u16 = 26_380;

impl Config {
    /// The node of that name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// Where the redis of `node` is reached.
    pub fn redis_address(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(node.address, self.redis.port)
    }

    /// Where the sentinel of `node` is reached.
    pub fn sentinel_address(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(node.address, self.sentinel.port)
    }
}
