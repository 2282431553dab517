//! A cluster file that was read and not judged yet.

use std::net::IpAddr;
use std::time::Duration;

use super::keys;
use super::reader::Placed;
use super::{Cluster, Config, Fencing, Node, Proxy, Redis, Sentinel, Vip};
use crate::base::node::Roles;
use crate::base::{Credentials, NodeName, Secrets};

/// What was read, with the places that the rules between keys need. A value is none after a fault of its own.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) quorum: Option<Placed<u32>>,
    pub(super) password: Option<Secrets>,
    /// None: to be derived from the password. The inner one is none after a fault.
    pub(super) secret: Option<Option<Secrets>>,
    pub(super) down_after: Option<Placed<Duration>>,
    pub(super) busy_grace: Placed<Duration>,
    /// None: not written.
    pub(super) fencing: Option<Placed<Fencing>>,
    /// None: not written.
    pub(super) lease: Option<Placed<Duration>>,
    pub(super) failover_timeout: Duration,
    pub(super) vips: Vec<DraftVip>,
    pub(super) proxy: Proxy,
    pub(super) redis: Redis,
    pub(super) sentinel: Placed<u16>,
    pub(super) stock: Vec<Placed<IpAddr>>,
    pub(super) nodes: Vec<DraftNode>,
}

/// The same of a `[[vip]]`.
#[derive(Debug)]
pub(super) struct DraftVip {
    pub(super) line: Option<usize>,
    pub(super) addresses: Vec<Placed<(IpAddr, u8)>>,
    pub(super) interface: Option<String>,
    pub(super) id: Option<Placed<u8>>,
    pub(super) version: Option<Placed<u8>>,
    pub(super) advert_interval: Option<Placed<Duration>>,
    pub(super) preempt: bool,
    pub(super) peers: Vec<Placed<IpAddr>>,
}

/// The same of a `[[node]]`.
#[derive(Debug)]
pub(super) struct DraftNode {
    pub(super) line: Option<usize>,
    pub(super) name: Option<Placed<NodeName>>,
    pub(super) address: Option<Placed<IpAddr>>,
    pub(super) roles: Option<Placed<Roles>>,
    pub(super) priority: Placed<u8>,
    pub(super) replica_priority: Placed<u32>,
    pub(super) bootstrap_master: Placed<bool>,
}

impl Draft {
    /// Nodes with the role "sentinel", of those whose roles could be read.
    pub(super) fn sentinels(&self) -> usize {
        let roles = self.nodes.iter().filter_map(|node| node.roles.as_ref());
        roles.filter(|roles| roles.value.sentinel).count()
    }

    /// What the file says of fencing, or what holds if it says nothing.
    pub(super) fn fencing(&self) -> Placed<Fencing> {
        let default = || {
            // What is missing or wrong has a fault of its own.
            let down_after = self.down_after.as_ref().map_or(Duration::ZERO, |down_after| down_after.value);
            let value = keys::default_fencing(self.sentinels(), self.stock.len(), down_after);
            Placed { value, line: None }
        };
        self.fencing.clone().unwrap_or_else(default)
    }

    /// The configuration; none if any part of it is missing, which a fault has said then.
    pub(super) fn finish(self) -> Option<Config> {
        let (fencing, fencing_said) = (self.fencing().value, self.fencing.is_some());
        let down_after = self.down_after?.value;
        let vips = self.vips.into_iter().map(DraftVip::finish).collect::<Option<_>>()?;
        let nodes = self.nodes.into_iter().map(DraftNode::finish).collect::<Option<_>>()?;
        let secret = match self.secret {
            Some(secret) => Some(secret?),
            None => None,
        };
        let name = self.name?;
        let cluster = Cluster {
            credentials: Credentials::new(&name, self.password?, secret),
            name,
            quorum: self.quorum?.value,
            down_after,
            busy_grace: self.busy_grace.value,
            fencing,
            fencing_said,
            lease: self.lease.map_or_else(|| keys::default_lease(down_after), |lease| lease.value),
            failover_timeout: self.failover_timeout,
        };
        let stock = self.stock.into_iter().map(|address| address.value).collect();
        let sentinel = Sentinel { port: self.sentinel.value, stock };
        Some(Config { cluster, vips, proxy: self.proxy, redis: self.redis, sentinel, nodes })
    }
}

impl DraftVip {
    fn finish(self) -> Option<Vip> {
        Some(Vip {
            addresses: self.addresses.into_iter().map(|address| address.value).collect(),
            interface: self.interface?,
            virtual_router_id: self.id?.value,
            version: self.version?.value,
            advert_interval: self.advert_interval?.value,
            preempt: self.preempt,
            peers: self.peers.into_iter().map(|peer| peer.value).collect(),
        })
    }
}

impl DraftNode {
    fn finish(self) -> Option<Node> {
        Some(Node {
            name: self.name?.value,
            address: self.address?.value,
            roles: self.roles?.value,
            priority: self.priority.value,
            replica_priority: self.replica_priority.value,
            bootstrap_master: self.bootstrap_master.value,
        })
    }
}
