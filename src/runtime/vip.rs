//! The virtual addresses of this node: drives one `cores::vrrp` router per virtual router.
//!
//! Three threads, so that nothing slow ever delays an advert:
//!
//! ```text
//!  election  (SCHED_FIFO)  sockets, timers, the machines        never waits for disk, log or the kernel's network lock;
//!                          what the peer link says of the other proxies, and who else claims the addresses by ARP
//!  addresses (SCHED_FIFO)  netlink: sets, renews, deletes; watches interfaces
//!  clerk                   tells the journal and the rest of the node
//! ```
//! An address is set for 3 s and renewed each second by the machine's own word: whatever stops the machine, the kernel
//! takes the address away.

mod addresses;
mod claims;
mod clerk;
mod election;
mod segment;
mod words;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, mpsc as sync};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Domain;
use tokio::sync::{mpsc, oneshot, watch};

use super::journal::Journal;
use crate::config;
use crate::cores::cluster::{Part, View};
use crate::cores::vrrp::{Config, Router};
use crate::wire::vrrp::{ChecksumForm, Interval, Malformed};
use segment::{Segment, primary};

/// A stop is never waited for longer.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

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

    fn router(&self) -> Result<Router, VipError> {
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
}

/// The running virtual routers of this node. Dropping it stops them too, without waiting.
#[derive(Debug)]
pub struct VipHandle {
    stop: Option<oneshot::Sender<()>>,
    pulse: Pulse,
    done: sync::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

/// What the rest of the node tells the routers.
#[derive(Clone, Debug)]
struct Told {
    usable: watch::Receiver<Result<(), String>>,
    view: Option<watch::Receiver<Arc<View>>>,
}

/// Feels whether the thread of the election still turns.
#[derive(Clone, Debug)]
pub struct Pulse(mpsc::Sender<oneshot::Sender<()>>);

impl Pulse {
    /// Returns when the thread has answered; false: it has ended.
    pub async fn beats(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.is_ok() && answered.await.is_ok()
    }
}

impl VipHandle {
    /// Of its thread.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Gives up being master (priority 0), takes the addresses off and waits for it, at most 2 s; false: not done by
    /// then.
    pub fn stop(mut self) -> bool {
        drop(self.stop.take());
        // The threads send nothing: the channel closes when the last of them has ended.
        let ended = self.done.recv_timeout(STOP_TIMEOUT) == Err(sync::RecvTimeoutError::Disconnected);
        if ended {
            // One that panicked has said so already.
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
        ended
    }
}

/// Starts the virtual routers in the caller's network namespace. `usable`: whether clients can be served here; `view`: what
/// the peer link knows, none where there is no link; `post` gets [`Part::Vip`] and, with the source `vrrp`, [`Part::Fault`]. An interface that is missing is waited for.
pub fn spawn(
    vips: Vec<VipSpec>,
    usable: watch::Receiver<Result<(), String>>,
    view: Option<watch::Receiver<Arc<View>>>,
    post: mpsc::Sender<Part>,
    journal: Journal,
) -> Result<VipHandle, VipError> {
    let routers = vips.iter().map(VipSpec::router).collect::<Result<Vec<_>, _>>()?;
    for domain in [Domain::IPV4, Domain::IPV6] {
        if vips.iter().any(|vip| vip.own_address_family() == domain) {
            segment::raw(domain).map_err(VipError::RawSocket)?;
        }
    }
    let (stop, stopped) = oneshot::channel();
    let (pulse, felt) = mpsc::channel(1);
    let (alive, done) = sync::channel::<()>();
    let (reports, reported) = clerk::channel(&vips, &routers);
    let (wires, ends) = addresses::channels(&vips);
    let mut threads = Vec::new();
    let mut start = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let alive = alive.clone();
        let run = move || {
            work();
            drop(alive);
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(VipError::Thread)?;
        threads.push(thread);
        Ok(())
    };
    let told = reports.clone();
    start("vigie-vip-addr", Box::new(move || addresses::run(ends, &told)))?;
    start(
        "vigie-vrrp",
        Box::new(move || {
            election::run(routers.into_iter().zip(wires), &Told { usable, view }, stopped, felt, &reports)
        }),
    )?;
    // Not waited for at a stop: it may wait for somebody who waits for the stop.
    let clerk = move || clerk::run(reported, &post, &journal);
    std::thread::Builder::new().name("vigie-vip-clerk".to_owned()).spawn(clerk).map_err(VipError::Thread)?;
    Ok(VipHandle { stop: Some(stop), pulse: Pulse(pulse), done, threads })
}

impl VipSpec {
    /// The virtual addresses that ARP tells about.
    fn addresses_v4(&self) -> Vec<Ipv4Addr> {
        let v4 = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        };
        self.addresses.iter().filter_map(|(ip, _)| v4(ip)).collect()
    }

    /// What people should know if adverts leave from an address by which the other proxies do not know this node. Over IPv6
    /// that is always so.
    fn unknown_source(&self, primary: IpAddr) -> Option<String> {
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

    fn own_address_family(&self) -> Domain {
        let v6 = self.addresses.first().is_some_and(|(address, _)| address.is_ipv6());
        if v6 { Domain::IPV6 } else { Domain::IPV4 }
    }
}

/// For the guard, after its worker died: takes the virtual addresses off and tells the other routers to take over. Does
/// nothing, and returns false, where none is set: the word of a backup would only disturb. Goes on after a failure and
/// returns the first one. Blocks for some milliseconds.
pub fn abandon(vips: &[VipSpec]) -> io::Result<bool> {
    let vips = vips.to_vec();
    addresses::blocking(move |netlink| async move {
        let (mut any, mut failed) = (false, Ok(()));
        for vip in vips {
            match addresses::clear(&netlink, &vip).await {
                Ok(0) => {}
                Ok(_) => {
                    any = true;
                    failed = failed.and(resign(&netlink, &vip).await);
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| any)
    })
}

/// Says priority 0 in the name of a router that is dead.
async fn resign(netlink: &super::netlink::Netlink, vip: &VipSpec) -> io::Result<()> {
    let interface = netlink.interface(&vip.interface).await?;
    let addresses = netlink.addresses(interface.index).await?;
    let Some(primary) = primary(&addresses, vip.own_address, &vip.addresses) else { return Ok(()) };
    let segment = Segment::open(&vip.interface, interface.index, interface.mac, primary)?;
    let router = vip.router().map_err(io::Error::other)?;
    // Which form of checksum the peers take died with the worker: both are said, and each peer drops at most one.
    for form in [ChecksumForm::PseudoHeader, ChecksumForm::Plain] {
        segment.advertise(&router.resignation(), form)?;
    }
    Ok(())
}

/// At the start of the worker: takes off what a former one left on the interfaces. Returns how many addresses there
/// were. An interface that does not exist has none. Blocks for some milliseconds.
pub fn remove_leftovers(vips: &[VipSpec]) -> io::Result<usize> {
    let vips = vips.to_vec();
    addresses::blocking(move |netlink| async move {
        let mut removed = 0;
        for vip in vips {
            removed += addresses::clear(&netlink, &vip).await?;
        }
        Ok(removed)
    })
}

#[cfg(test)]
mod tests;
