//! What each role of this node is told at its start, made of the cluster file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fence::Fence;
use super::peers::Presence;
use super::sentinel::renewal;
use super::{proxy, redis, vip};
use crate::base::lease::Held;
use crate::base::node::Roles;
use crate::base::secret::CONTROL_USER;
use crate::base::{Credentials, Purpose};
use crate::config::{Config, Fencing, Node, PEER_PORT};
use crate::cores::{cluster, sentinel};
use crate::wire::frame::Keys;

/// Replicas re-pointed at once after a failover: all of them, since a partial resynchronisation is cheap and reads from
/// replicas are not what a cluster this small lives from.
const PARALLEL_SYNCS: u32 = 8;

/// Everything a worker is told at its start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The cluster file, validated.
    pub config: Config,
    /// This node's place in it.
    pub me: usize,
    /// The roles to run.
    pub roles: Roles,
    /// The file it came from.
    pub config_path: PathBuf,
    /// Where state is kept over restarts.
    pub state_dir: PathBuf,
    /// Where sockets are.
    pub runtime_dir: PathBuf,
}

impl Spec {
    /// This node.
    pub fn node(&self) -> &Node {
        &self.config.nodes[self.me]
    }

    /// The virtual routers of this node; none if it is no proxy.
    pub fn vips(&self) -> Result<Vec<vip::VipSpec>, vip::VipError> {
        let own = self.node();
        let others = self.config.nodes.iter().filter(|node| node.roles.proxy && node.address != own.address);
        let proxies: Vec<_> = others.map(|node| node.address).collect();
        let vips = self.config.vips.iter().filter(|_| self.roles.proxy);
        vips.map(|vip| vip::VipSpec::new(vip, own.priority, own.address, proxies.clone())).collect()
    }

    /// What the peer link is told. `boot` is a number that no other start of this node has, `seed` one for its chances.
    /// `promised`: the longest promise that its sentinel may be bound by from before.
    pub(super) fn link(&self, boot: u64, seed: u64, promised: Duration) -> cluster::Config {
        let cluster = &self.config.cluster;
        let peers = self.config.nodes.iter().map(|node| cluster::Peer {
            name: node.name.clone(),
            address: node.address,
            roles: node.roles,
        });
        cluster::Config {
            lease: Some(self.config.cluster.lease),
            promised,
            fencing: self.fencing(),
            cluster: cluster.name.clone(),
            keys: Keys::new(&cluster.credentials.own(Purpose::Link)),
            me: self.me,
            roles: self.roles,
            peers: peers.collect(),
            port: PEER_PORT,
            boot,
            seed,
        }
    }

    /// Whether the file asks for leases.
    fn fencing(&self) -> bool {
        match self.config.cluster.fencing {
            Fencing::Lease => true,
            Fencing::Off => false,
        }
    }

    /// Where clients find the sentinel of this node: not on networks that the cluster file says nothing of.
    pub(super) fn sentinel_addresses(&self) -> Vec<IpAddr> {
        let own = self.node().address;
        let mut addresses = vec![own];
        if !own.is_loopback() {
            addresses.push(Ipv4Addr::LOCALHOST.into());
        }
        if self.roles.proxy {
            addresses.extend(self.config.vips.iter().flat_map(|vip| vip.addresses.iter().map(|(address, _)| *address)));
        }
        addresses
    }

    /// What the sentinel of this node watches, and with whom.
    pub(super) fn sentinel(&self, seed: u64) -> sentinel::Config {
        use sentinel::{Config, DataNode, MasterConfig, Membership, Settings, Voter};
        let (config, cluster) = (&self.config, &self.config.cluster);
        let renewal = renewal(&cluster.credentials);
        let voters = config.nodes.iter().filter(|node| node.roles.sentinel);
        let voters = voters.map(|node| Voter {
            name: node.name.clone(),
            address: config.sentinel_address(node),
            stock: config.sentinel.stock.contains(&node.address),
        });
        let nodes = config.nodes.iter().filter(|node| node.roles.redis).map(|node| DataNode {
            name: node.name.clone(),
            address: config.redis_address(node),
            bootstrap: node.bootstrap_master,
        });
        Config {
            membership: Membership::Voters { me: self.node().name.clone(), all: voters.collect() },
            masters: vec![MasterConfig {
                down_after: cluster.down_after,
                busy_grace: cluster.busy_grace,
                failover_timeout: cluster.failover_timeout,
                parallel_syncs: PARALLEL_SYNCS,
                lease: Some(self.config.cluster.lease),
                fencing: self.fencing(),
                nodes: nodes.collect(),
                auth_user: Some(CONTROL_USER.to_owned()),
                auth_pass: Some(renewal.auth_pass),
                ..MasterConfig::new(cluster.name.clone(), cluster.quorum)
            }],
            settings: Settings {
                sentinel_user: Some(CONTROL_USER.to_owned()),
                sentinel_pass: Some(renewal.logins.cluster.current().clone()),
                ..Settings::default()
            },
            logins: Some(renewal.logins),
            seed,
        }
    }

    /// What the supervisor of this node's redis is told.
    pub(super) fn redis(
        &self,
        life: u32,
        credentials: watch::Receiver<Arc<Credentials>>,
        lease: watch::Receiver<Option<Held>>,
        fence: Arc<Fence>,
    ) -> redis::Setup {
        let own = self.node();
        redis::Setup {
            config: self.config.redis.clone(),
            cluster: self.config.cluster.name.clone(),
            address: own.address,
            node: own.name.clone(),
            credentials,
            nodes: self.data_nodes(),
            state_dir: self.state_dir.clone(),
            priority: own.replica_priority,
            life,
            fencing: self.fencing(),
            lease,
            fence,
        }
    }

    /// What the proxy of this node is told.
    pub(super) fn proxy(&self, credentials: watch::Receiver<Arc<Credentials>>, presence: Presence) -> proxy::Setup {
        let config = &self.config;
        let addresses = config.vips.iter().flat_map(|vip| vip.addresses.iter().map(|(address, _)| *address));
        proxy::Setup {
            config: config.proxy.clone(),
            listen: addresses.map(|address| SocketAddr::new(address, config.proxy.port)).collect(),
            master_name: config.cluster.name.clone(),
            masters: self.data_nodes(),
            credentials,
            presence: Some(presence),
            node: self.node().name.clone(),
            counters: Arc::default(),
        }
    }

    /// The redis of the cluster file.
    fn data_nodes(&self) -> Vec<SocketAddr> {
        let nodes = self.config.nodes.iter().filter(|node| node.roles.redis);
        nodes.map(|node| self.config.redis_address(node)).collect()
    }
}
