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
mod spec;
mod words;

use std::io;
use std::sync::{Arc, mpsc as sync};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Domain;
use tokio::sync::{mpsc, oneshot, watch};

use super::journal::Journal;
use crate::cores::cluster::{Part, View};
use crate::wire::vrrp::ChecksumForm;
use segment::{Segment, primary};
use spec::Told;
pub use spec::{VipError, VipSpec};
pub use words::words;

/// A stop is never waited for longer.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The running virtual routers of this node. Dropping it stops them too, without waiting.
#[derive(Debug)]
pub struct VipHandle {
    stop: Option<oneshot::Sender<()>>,
    pulse: Pulse,
    done: sync::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
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
