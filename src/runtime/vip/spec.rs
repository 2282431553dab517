//! A virtual router of this node, as the cluster file has it, and what such a router is told.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use socket2::Domain;
use tokio::sync::watch;

use crate::config;
use crate::cores::cluster::View;
use crate::cores::vrrp::{Config, Router};
use crate::wire::vrrp::{Interval, Malformed};

/// One virtual router, as this node takes part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// The virtual addresses with their prefix lengths, at least one, all of one family.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The interface that carries them.
    pub interface: String,
    /// 1–255, one per segment.
    pub virtual_router_id: u8,
    /// Between adverts; its unit says the version of the protocol.
    pub interval: Interval,
    /// Whether to take over from a working master of lower priority.
    pub preempt: bool,
    /// 1–254.
    pub priority: u8,
    /// This node's address in the cluster file: the source of adverts if the interface has it.
    pub own_address: IpAddr,
    /// Those of the other proxies of the file.
    pub proxies: Vec<IpAddr>,
    /// Other routers whose adverts count.
    pub peers: Vec<IpAddr>,
}

/// Why the virtual addresses cannot be served at all.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// The values of the file are no virtual router.
    #[error("virtual router {virtual_router_id} on {interface}: {source}")]
    Invalid {
        /// Its id.
        virtual_router_id: u8,
        /// Its interface.
        interface: String,
        /// What is wrong.
        source: Malformed,
    },
    /// A virtual address is the node's own.
    #[error("virtual router {virtual_router_id}: {address} is this node's own address and cannot move")]
    OwnAddress {
        /// Its id.
        virtual_router_id: u8,
        /// The address.
        address: IpAddr,
    },
    /// Raw sockets are not allowed.
    #[error("no raw socket for VRRP: {0}; CAP_NET_RAW and CAP_NET_ADMIN are needed")]
    RawSocket(io::Error),
    /// A thread did not start.
    #[error("no thread for VRRP: {0}")]
    Thread(io::Error),
}

impl VipSpec {
    /// This node's part in `vip`, with its `priority` (1–254) and its `own_address`, beside the other `proxies` of the file.
    pub fn new(vip: &config::Vip, priority: u8, own_address: IpAddr, proxies: Vec<IpAddr>) -> Result<Self, VipError> {
        let virtual_router_id = vip.virtual_router_id;
        let interface = vip.interface.clone();
        let invalid = |source| VipError::Invalid { virtual_router_id, interface: vip.interface.clone(), source };
        let interval = Interval::new(vip.version, vip.advert_interval).map_err(invalid)?;
        let (addresses, preempt, peers) = (vip.addresses.clone(), vip.preempt, vip.peers.clone());
        let spec =
            Self { addresses, interface, virtual_router_id, interval, preempt, priority, own_address, proxies, peers };
        if let Some((address, _)) = spec.addresses.iter().find(|(address, _)| *address == own_address) {
            return Err(VipError::OwnAddress { virtual_router_id, address: *address });
        }
        spec.router().map(|_| spec.clone())
    }

    pub(super) fn router(&self) -> Result<Router, VipError> {
        let mut addresses: Vec<IpAddr> = self.addresses.iter().map(|(address, _)| *address).collect();
        // Over IPv6 the link-local address comes first (RFC 9568 §5.2.9).
        addresses.sort_by_key(|address| matches!(address, IpAddr::V6(address) if !address.is_unicast_link_local()));
        let config = Config {
            virtual_router_id: self.virtual_router_id,
            priority: self.priority,
            interval: self.interval,
            preempt: self.preempt,
            addresses,
            own_address: self.own_address,
            proxies: self.proxies.clone(),
            peers: self.peers.clone(),
        };
        Router::new(config).map_err(|source| VipError::Invalid {
            virtual_router_id: self.virtual_router_id,
            interface: self.interface.clone(),
            source,
        })
    }

    /// The virtual addresses that ARP tells about.
    pub(super) fn addresses_v4(&self) -> Vec<Ipv4Addr> {
        let v4 = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        };
        self.addresses.iter().filter_map(|(ip, _)| v4(ip)).collect()
    }

    /// What people should know if adverts leave from an address by which the other proxies do not know this node. Over IPv6
    /// that is always so.
    pub(super) fn unknown_source(&self, primary: IpAddr) -> Option<String> {
        let known = primary == self.own_address || self.peers.contains(&primary);
        let unknown = primary.is_ipv4() && !known && !self.proxies.is_empty();
        unknown.then(|| {
            format!(
                "adverts leave {} from {primary}, which is neither this node's address in the cluster file ({}) nor in \
                 vip.peers: proxies whose interface has their own address in the file refuse them",
                self.interface, self.own_address
            )
        })
    }

    pub(super) fn own_address_family(&self) -> Domain {
        let v6 = self.addresses.first().is_some_and(|(address, _)| address.is_ipv6());
        if v6 { Domain::IPV6 } else { Domain::IPV4 }
    }
}

/// What the rest of the node tells the routers.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) usable: watch::Receiver<Result<(), String>>,
    pub(super) view: Option<watch::Receiver<Arc<View>>>,
}
