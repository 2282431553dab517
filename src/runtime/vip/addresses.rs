//! The thread of netlink: makes the addresses what the routers want, and tells them of their interfaces.
//!
//! Netlink requests run in the caller's own system call and can wait long for the kernel's network lock; that is why
//! they have a thread of their own.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::VipSpec;
use super::clerk::Reports;
use super::segment::primary;
use crate::cores::vrrp::{HOLD_LIFETIME, Hold, Input};
use crate::runtime::journal::Level;
use crate::runtime::netlink::{Change, Changes, Netlink, NetlinkError};
use crate::runtime::realtime::Rank;
use crate::wire::arp::Mac;

/// Interfaces are looked at so often even if no change was told.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Inputs that wait for one router at most; further packets wait in the socket.
pub(super) const INPUTS_MAX: usize = 256;

/// Where a router can be: its interface, or why it has none.
pub(super) type Place = Result<Attachment, String>;

/// What a router needs to know of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) index: u32,
    pub(super) mac: Option<Mac>,
    pub(super) primary: IpAddr,
}

/// The election's ends of the channels of one router.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) spec: VipSpec,
    pub(super) hold: watch::Sender<Hold>,
    pub(super) place: watch::Receiver<Place>,
    pub(super) inputs_tx: mpsc::Sender<Input>,
    pub(super) inputs_rx: mpsc::Receiver<Input>,
}

/// This thread's ends.
#[derive(Debug)]
pub(super) struct End {
    spec: VipSpec,
    hold: watch::Receiver<Hold>,
    place: watch::Sender<Place>,
    /// Weak, so that the router ends when the election lets it go.
    inputs: mpsc::WeakSender<Input>,
}

/// Channels for each router.
pub(super) fn channels(vips: &[VipSpec]) -> (Vec<Wire>, Vec<End>) {
    let ends = vips.iter().map(|spec| {
        let (hold_tx, hold) = watch::channel(Hold::Released);
        let (place_tx, place) = watch::channel(Err("not looked at yet".to_owned()));
        let (inputs_tx, inputs_rx) = mpsc::channel(INPUTS_MAX);
        let end = End { spec: spec.clone(), hold, place: place_tx, inputs: inputs_tx.downgrade() };
        (Wire { spec: spec.clone(), hold: hold_tx, place, inputs_tx, inputs_rx }, end)
    });
    ends.unzip()
}

/// Runs until every router has let its wish go and the last of them is fulfilled.
pub(super) fn run(ends: Vec<End>, reports: &Reports) {
    reports.raise(Rank::Addresses);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let serve = async {
        let (netlink, changes) = Netlink::open()?;
        let (changes_tx, changed) = watch::channel(());
        let all: Vec<IpAddr> = ends.iter().flat_map(|end| &end.spec.addresses).map(|(ip, _)| *ip).collect();
        let listener = tokio::spawn(listen(changes, all, changes_tx));
        let mut tasks = JoinSet::new();
        for end in ends {
            tasks.spawn(keep(netlink.clone(), end, changed.clone(), reports.clone()));
        }
        tasks.join_all().await;
        listener.abort();
        Ok::<(), io::Error>(())
    };
    if let Err(error) = runtime.and_then(|runtime| runtime.block_on(serve)) {
        reports.line(Level::Error, "netlink", format!("no netlink, so no virtual address: {error}"));
    }
}

/// Tells of changes, but for the renewals of the virtual addresses themselves.
async fn listen(mut changes: Changes, virtual_addresses: Vec<IpAddr>, changed: watch::Sender<()>) {
    while let Some(change) = changes.next().await {
        match change {
            Change::Address(ip) if virtual_addresses.contains(&ip) => {}
            Change::Address(_) | Change::Link => changed.send_modify(|()| {}),
        }
    }
}

/// Serves one router until it lets its wish go.
async fn keep(netlink: Netlink, mut end: End, mut changed: watch::Receiver<()>, reports: Reports) {
    let mut look_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            wished = end.hold.changed() => {
                if wished.is_err() {
                    return;
                }
                let wish = *end.hold.borrow_and_update();
                fulfil(&netlink, &end, wish, &reports).await;
            }
            Ok(()) = changed.changed() => look_at = Instant::now(),
            () = sleep_until(look_at) => {
                look_at = Instant::now() + LOOK_EVERY;
                let place = look(&netlink, &end.spec).await;
                end.place.send_if_modified(|known| {
                    let news = *known != place;
                    *known = place;
                    news
                });
            }
        }
    }
}

/// Makes the addresses what is wished; only a wish to hold is answered.
async fn fulfil(netlink: &Netlink, end: &End, wish: Hold, reports: &Reports) {
    // Asked by name each time: the interface may be another one by now.
    let interface = netlink.interface(&end.spec.interface).await;
    match (wish, interface) {
        (Hold::Held, interface) => {
            let done = match interface {
                Ok(interface) => hold(netlink, interface.index, &end.spec).await,
                Err(error) => Err(error),
            };
            if let Some(inputs) = end.inputs.upgrade() {
                // The router is gone: it has wished for nothing any more.
                let _ = inputs.send(Input::Vip(done.map_err(|error| error.to_string()))).await;
            }
        }
        (Hold::Released, Ok(interface)) => {
            for (ip, prefix) in &end.spec.addresses {
                if let Err(error) = netlink.release(interface.index, *ip, *prefix).await {
                    let after = format!("{error}; the kernel takes it away within {HOLD_LIFETIME:?}");
                    reports.line(Level::Warn, "address-not-deleted", after);
                }
            }
        }
        (Hold::Released, Err(NetlinkError::NoInterface { .. })) => {}
        (Hold::Released, Err(error @ NetlinkError::Kernel { .. })) => {
            reports.line(Level::Warn, "address-not-deleted", error.to_string());
        }
    }
}

async fn hold(netlink: &Netlink, index: u32, spec: &VipSpec) -> Result<(), NetlinkError> {
    for (ip, prefix) in &spec.addresses {
        netlink.hold(index, *ip, *prefix, HOLD_LIFETIME).await?;
    }
    Ok(())
}

async fn look(netlink: &Netlink, spec: &VipSpec) -> Place {
    let interface = netlink.interface(&spec.interface).await.map_err(|error| error.to_string())?;
    if !interface.running {
        return Err(format!("{} is down or has no carrier", spec.interface));
    }
    let addresses = netlink.addresses(interface.index).await.map_err(|error| error.to_string())?;
    let found = primary(&addresses, spec.own_address, &spec.addresses);
    let primary = found.ok_or_else(|| {
        let v6 = spec.addresses.first().is_some_and(|(ip, _)| ip.is_ipv6());
        let family = if v6 { "IPv6 link-local" } else { "IPv4" };
        format!("{} has no {family} address that adverts could come from", spec.interface)
    })?;
    Ok(Attachment { index: interface.index, mac: interface.mac, primary })
}

/// Takes a virtual router's addresses off, whatever their prefix length; returns how many there were.
pub(super) async fn clear(netlink: &Netlink, spec: &VipSpec) -> io::Result<usize> {
    let interface = match netlink.interface(&spec.interface).await {
        Ok(interface) => interface,
        Err(NetlinkError::NoInterface { .. }) => return Ok(0),
        Err(error @ NetlinkError::Kernel { .. }) => return Err(error.into()),
    };
    let mut cleared = 0;
    for address in netlink.addresses(interface.index).await? {
        let ours = spec.addresses.iter().any(|(ip, _)| *ip == address.ip);
        if ours && netlink.release(interface.index, address.ip, address.prefix).await? {
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// Runs `work` with netlink on a thread of its own, whether or not the caller is inside of a tokio runtime.
pub(super) fn blocking<T, F, W>(work: W) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>>,
    W: FnOnce(Netlink) -> F + Send + 'static,
{
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (netlink, _) = Netlink::open()?;
            work(netlink).await
        })
    };
    let thread = std::thread::Builder::new().name("vigie-vip-once".to_owned()).spawn(run)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread for netlink panicked")))
}
