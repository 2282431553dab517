//! The thread of the election: sockets, timers and the machines, and nothing that could wait.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::addresses::{Attachment, Wire};
use super::clerk::Reports;
use super::segment::Segment;
use super::{Told, VipSpec, claims, words};
use crate::cores::vrrp::{Event, Hold, Input, Output, Router};
use crate::runtime::drive::{Execute, Flow, Inputs, drive};
use crate::runtime::journal::Level;
use crate::runtime::realtime::Rank;
use crate::wire::arp::Mac;

/// Between attempts to open sockets, and after a failure of one.
const SOCKET_RETRY: Duration = Duration::from_secs(1);

/// Where packets come from and go to; none while there is no interface.
type Seat = Rc<RefCell<Option<Rc<AsyncFd<Segment>>>>>;

/// Runs the routers until told to stop.
pub(super) fn run(
    routers: impl Iterator<Item = (Router, Wire)>,
    told: &Told,
    stop: oneshot::Receiver<()>,
    mut pulse: mpsc::Receiver<oneshot::Sender<()>>,
    reports: &Reports,
) {
    reports.raise(Rank::Election);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return reports.line(Level::Error, "election", format!("no runtime for VRRP: {error}")),
    };
    LocalSet::new().block_on(&runtime, async {
        let mut drivers = Vec::new();
        let mut feeders = Vec::new();
        let mut stops = Vec::new();
        for (place, (router, wire)) in routers.enumerate() {
            let Wire { spec, hold, place: attachment, inputs_tx, inputs_rx } = wire;
            let seat = Seat::default();
            let virtual_router_id = spec.virtual_router_id;
            let mut hands = Hands { seat: seat.clone(), hold, spec, place, reports: reports.clone(), sending: Ok(()) };
            feeders.push(spawn_local(attach(
                hands.spec.clone(),
                seat.clone(),
                attachment,
                inputs_tx.clone(),
                reports.clone(),
            )));
            feeders.push(spawn_local(follow(told.usable.clone(), inputs_tx.clone())));
            if let Some(view) = told.view.clone() {
                feeders.push(spawn_local(words::follow(hands.spec.clone(), view, inputs_tx.clone())));
            }
            stops.push(inputs_tx);
            let mut machine = router;
            let ears = Ears { told: inputs_rx, seat };
            drivers.push(spawn_local(async move {
                drive(&mut machine, ears, &mut hands).await;
                tracing::debug!(virtual_router_id, "election ended");
            }));
        }
        feeders.push(spawn_local(async move {
            while let Some(answer) = pulse.recv().await {
                // Whoever asked may have given up.
                let _ = answer.send(());
            }
        }));
        // Also when the handle was dropped.
        let _ = stop.await;
        for inputs in stops {
            // A router that has ended needs no telling. What waits before it is taken in first.
            let _ = inputs.send(Input::Stop).await;
        }
        for feeder in feeders {
            feeder.abort();
            let _ = feeder.await;
        }
        for driver in drivers {
            let _ = driver.await;
        }
    });
}

/// What a router is told, and the socket in which adverts may lie unread: a host that was starved must not declare a master
/// dead whose adverts it has not read yet.
struct Ears {
    told: mpsc::Receiver<Input>,
    seat: Seat,
}

impl Inputs<Input> for Ears {
    fn next(&mut self) -> impl Future<Output = Option<Input>> {
        self.told.recv()
    }

    fn waiting(&mut self) -> Option<Input> {
        let unread = || self.seat.borrow().as_ref().and_then(|segment| segment.get_ref().receive().ok());
        self.told.try_recv().ok().or_else(unread)
    }
}

/// Carries out what a router asks for.
struct Hands {
    seat: Seat,
    hold: watch::Sender<Hold>,
    spec: VipSpec,
    place: usize,
    reports: Reports,
    /// Whether the last packet left, and if not, why: told when it changes.
    sending: Result<(), String>,
}

impl Hands {
    fn send(&mut self, send: impl FnOnce(&Segment) -> io::Result<()>) {
        let Some(segment) = self.seat.borrow().clone() else { return };
        let sent = send(segment.get_ref()).map_err(|error| error.to_string());
        if sent == self.sending {
            return;
        }
        let interface = &self.spec.interface;
        match &sent {
            Ok(()) => self.reports.line(Level::Info, "sending", format!("{interface}: adverts leave again")),
            Err(error) => self.reports.line(Level::Error, "sending", format!("{interface}: no advert leaves: {error}")),
        }
        self.sending = sent;
    }
}

impl Execute<Router> for Hands {
    async fn execute(&mut self, output: Output) -> Flow<Input> {
        match output {
            Output::Advertise(advert, form) => self.send(|segment| segment.advertise(&advert, form)),
            // Answered by an input, from the other thread.
            Output::Hold(wish) => drop(self.hold.send_replace(wish)),
            Output::Announce => {
                let addresses: Vec<_> = self.spec.addresses.iter().map(|(ip, _)| *ip).collect();
                self.send(|segment| addresses.into_iter().try_for_each(|ip| segment.announce(ip)));
            }
            Output::Publish(event) => self.publish(&event),
        }
        Flow::Done
    }
}

impl Hands {
    fn publish(&self, event: &Event) {
        self.reports.event(self.place, self.spec.virtual_router_id, event);
    }
}

/// Follows the interface: opens sockets where it is, and tells the router.
async fn attach(
    spec: VipSpec,
    seat: Seat,
    mut place: watch::Receiver<Result<Attachment, String>>,
    inputs: mpsc::Sender<Input>,
    reports: Reports,
) {
    let interface = &spec.interface;
    // Aborted when replaced or dropped.
    let mut readers: Vec<Reader> = Vec::new();
    if place.changed().await.is_err() {
        return;
    }
    loop {
        let known = place.borrow_and_update().clone();
        let mut retry = false;
        let link = match known {
            Ok(Attachment { index, mac, primary }) => {
                let same = seat.borrow().as_ref().is_some_and(|segment| segment.get_ref().is(index, mac, primary));
                let opened = if same {
                    Ok(())
                } else {
                    open(interface, index, mac, primary).map(|segment| {
                        *seat.borrow_mut() = Some(segment.clone());
                        readers = vec![Reader(spawn_local(read(segment, inputs.clone(), reports.clone())))];
                        let addresses = spec.addresses_v4();
                        if let Some(mac) = mac.filter(|_| !addresses.is_empty()) {
                            let place = (interface.clone(), index);
                            let watch = claims::watch(place, mac, addresses, inputs.clone(), reports.clone());
                            readers.push(Reader(spawn_local(watch)));
                        }
                        if let Some(said) = spec.unknown_source(primary) {
                            reports.line(Level::Warn, "source-unknown", said);
                        }
                    })
                };
                retry = opened.is_err();
                opened.map(|()| primary).map_err(|error| format!("no raw socket on {interface}: {error}"))
            }
            Err(reason) => Err(reason),
        };
        let lost = link.is_err();
        if inputs.send(Input::Link(link)).await.is_err() {
            return;
        }
        if lost {
            // After the router was told, so that its last advert may still leave if the interface is only half gone.
            tokio::task::yield_now().await;
            readers.clear();
            seat.borrow_mut().take();
        }
        let changed = place.changed();
        let ended = if retry {
            tokio::time::timeout(SOCKET_RETRY, changed).await.is_ok_and(|changed| changed.is_err())
        } else {
            changed.await.is_err()
        };
        if ended {
            return drop(readers);
        }
    }
}

#[expect(unsafe_code, reason = "a custom type can be watched for readiness in no other way")]
fn open(interface: &str, index: u32, mac: Option<Mac>, primary: IpAddr) -> io::Result<Rc<AsyncFd<Segment>>> {
    let segment = Segment::open(interface, index, mac, primary)?;
    // SAFETY: the segment owns its socket, never replaces it, and its `as_raw_fd` always names that one.
    Ok(Rc::new(unsafe { AsyncFd::register(segment) }?))
}

/// A reading task that ends with its handle.
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Passes packets on. While the router is busy they wait in the socket, whose buffer is bounded.
async fn read(segment: Rc<AsyncFd<Segment>>, inputs: mpsc::Sender<Input>, reports: Reports) {
    loop {
        let Ok(mut ready) = segment.readable().await else { return };
        match ready.try_io(|segment| segment.get_ref().receive()) {
            Ok(Ok(input)) => {
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            // An interface that goes down says so here; the link is watched elsewhere.
            Ok(Err(error)) => {
                reports.line(Level::Warn, "receiving", format!("no advert can be read: {error}"));
                tokio::time::sleep(SOCKET_RETRY).await;
            }
            Err(_would_block) => {}
        }
    }
}

/// Follows the proxy's word; that nobody is left to give it means no.
async fn follow(mut usable: watch::Receiver<Result<(), String>>, inputs: mpsc::Sender<Input>) {
    loop {
        let word = usable.borrow_and_update().clone();
        if inputs.send(Input::Usable(word)).await.is_err() {
            return;
        }
        if usable.changed().await.is_err() {
            let gone = Err("the proxy has ended".to_owned());
            let _ = inputs.send(Input::Usable(gone)).await;
            return;
        }
    }
}
