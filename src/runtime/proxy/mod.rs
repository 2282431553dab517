//! Carries out what the proxy's cores decide.
//!
//! ```text
//! control plane                            │ worker threads, one per core, at most four
//!   view, checks, listeners ─► Route       │   accept (on the first) ─► Session ─► relay
//!                                └─ Target ┼─► generation: an atomic; sessions of another one end
//! ```
//! The two sides share `Shared` only. The control plane never touches a client's bytes, and a worker never decides where
//! writes go.

mod check;
mod listen;
mod pool;
mod relay;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{MissedTickBehavior, interval};

use super::crowd::{Crowd, LEAVING_MAX};
use super::drive::{Execute, Flow, drive};
use super::journal::{Journal, Level};
use super::peers::Presence;
use super::view::facts;
use crate::base::{Credentials, NodeName, Purpose, Secrets};
use crate::config;
use crate::cores::cluster::{Part, View};
use crate::cores::proxy::route::{self, Event, Facts, Input, Output, Route};

/// A check longer than this counts as unanswered.
const CHECK_LIMIT: Duration = Duration::from_millis(250);
/// How often the number of clients is looked at, to be posted if it changed.
const CLIENTS_INTERVAL: Duration = Duration::from_secs(1);
const INPUTS_MAX: usize = 64;
/// File descriptors beside those of clients and their connections to the master: of the rest of the process, and of clients
/// that have given way to others and are not gone yet.
const FILES_RESERVED: u64 = 256 + LEAVING_MAX as u64;
/// A client that has said nothing for this time is closed. Only until its first byte: a session may be idle for ever.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a proxy is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `[proxy]` of the file.
    pub config: config::Proxy,
    /// The virtual addresses with the proxy's port.
    pub listen: Vec<SocketAddr>,
    /// The name of the master among the sentinels' (`cluster.name`).
    pub master_name: String,
    /// The redis of the cluster file.
    pub masters: Vec<SocketAddr>,
    /// What the checks log in with; clients bring their own password.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// Asked before a node is told a password.
    pub presence: Option<Presence>,
    /// This node, as errors to clients name it.
    pub node: NodeName,
    /// Counted while the proxy runs, for whoever wants to show it.
    pub counters: Arc<Counters>,
}

/// Running totals of the data path.
#[derive(Debug, Default)]
pub struct Counters {
    clients: AtomicU32,
    accepted: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    silent: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The totals at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Clients connected now.
    pub clients: u32,
    /// Clients accepted since the start.
    pub accepted: u64,
    /// Clients that got an error of the proxy's own: no master in time, or one client too many.
    pub refused: u64,
    /// Sessions closed because the write target changed.
    pub cut: u64,
    /// Clients closed before they had said anything: for their silence, or to make room for others.
    pub silent: u64,
    /// Bytes from clients to masters.
    pub bytes_in: u64,
    /// Bytes from masters to clients.
    pub bytes_out: u64,
}

impl Counters {
    /// Reads all of them; each is exact, their relation is not.
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            clients: self.clients.load(Ordering::Relaxed),
            accepted: load(&self.accepted),
            refused: load(&self.refused),
            cut: load(&self.cut),
            silent: load(&self.silent),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
        }
    }
}

/// Why a proxy could not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No thread for the data path.
    #[error("cannot start a thread for the proxy's data path: {0}")]
    Thread(std::io::Error),
    /// A thread of the data path ended by itself.
    #[error("a thread of the proxy's data path died")]
    Died,
}

/// Where sessions go.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// Grows with every switch: a session of another generation is to end.
    generation: u64,
    address: Option<SocketAddr>,
}

/// What the control plane and the workers share.
#[derive(Debug)]
struct Shared {
    setup: Setup,
    /// Clients at once: what the file says, or less if the system has not enough descriptors.
    clients_max: u32,
    /// Those of them that have said nothing yet.
    crowd: Arc<Crowd>,
    /// Written before `target`, so that no session forwards another byte from that moment on.
    generation: AtomicU64,
    target: watch::Sender<Target>,
    /// A session could not reach the target.
    suspect: Notify,
    journal: Journal,
}

impl Shared {
    fn new(setup: Setup, journal: Journal) -> Self {
        let clients_max = raise_file_limit(setup.config.max_clients, &journal);
        let target = watch::Sender::new(Target { generation: 0, address: None });
        let crowd = Crowd::new(usize::try_from(clients_max).unwrap_or(usize::MAX), SILENCE_MAX);
        Self { setup, clients_max, crowd, generation: AtomicU64::new(0), target, suspect: Notify::new(), journal }
    }

    fn switch(&self, address: Option<SocketAddr>) {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.target.send_replace(Target { generation, address });
    }

    fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }
}

/// Runs the proxy until `stop` says so (or its sender is gone): no clients are accepted any more, all sessions are closed and
/// all threads joined when this returns. Give it a task of its own.
///
/// `usable` says whether this node may hold the VIP, `post` what other nodes are to know.
pub async fn run(
    setup: Setup,
    view: watch::Receiver<Arc<View>>,
    usable: watch::Sender<Result<(), String>>,
    post: mpsc::Sender<Part>,
    journal: Journal,
    stop: watch::Receiver<bool>,
) -> Result<(), ProxyError> {
    let limit = setup.config.connect_timeout.min(CHECK_LIMIT);
    let (check_interval, masters) = (setup.config.check_interval, setup.masters.clone());
    let mut route = Route::new(&route::Config { check_interval, masters });
    let shared = Arc::new(Shared::new(setup, journal.clone()));
    let (listeners, threads) = worker::start(&shared).map_err(ProxyError::Thread)?;
    let (inputs, received) = mpsc::channel(INPUTS_MAX);
    let mut executor =
        Executor { shared: Arc::clone(&shared), inputs: inputs.downgrade(), check: None, limit, usable, post, journal };
    let listening = Owned(tokio::spawn(listen::keep(Arc::clone(&shared), listeners, inputs.clone())));
    let feeding = Owned(tokio::spawn(feed(Arc::clone(&shared), view, stop, inputs, listening)));
    drive(&mut route, received, &mut executor).await;
    drop(feeding);
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(std::thread::JoinHandle::join));
    joined.await.map_err(|_| ProxyError::Died)?.map_err(|_| ProxyError::Died)
}

/// A task that ends with its owner.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Brings the route what changes around it, until the stop. Its end ends the driver.
async fn feed(
    shared: Arc<Shared>,
    mut view: watch::Receiver<Arc<View>>,
    mut stop: watch::Receiver<bool>,
    inputs: mpsc::Sender<Input>,
    listening: Owned,
) {
    let mut second = interval(CLIENTS_INTERVAL);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut clients, mut viewed) = (Facts::default(), 0, true);
    view.mark_changed();
    loop {
        let input = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            changed = view.changed(), if viewed => {
                viewed = changed.is_ok();
                let facts = facts(&view.borrow_and_update(), &shared.setup.master_name);
                if facts == known {
                    continue;
                }
                known.clone_from(&facts);
                Input::View(facts)
            }
            () = shared.suspect.notified() => Input::Suspect,
            _ = second.tick() => {
                let now = shared.setup.counters.clients.load(Ordering::Relaxed);
                if std::mem::replace(&mut clients, now) == now {
                    continue;
                }
                Input::Clients(now)
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
    // No client is accepted from here on; the sessions are cut by the switch that follows.
    drop(listening);
    let _ = inputs.send(Input::Stop).await;
}

/// Carries out what the route asks for.
struct Executor {
    shared: Arc<Shared>,
    /// Weak, so that the driver ends with the feeder.
    inputs: mpsc::WeakSender<Input>,
    check: Option<AbortHandle>,
    limit: Duration,
    usable: watch::Sender<Result<(), String>>,
    post: mpsc::Sender<Part>,
    journal: Journal,
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(check) = self.check.take() {
            check.abort();
        }
    }
}

impl Execute<Route> for Executor {
    async fn execute(&mut self, output: Output) -> Flow<Input> {
        match output {
            Output::Check { serial, decision, login } => {
                let (shared, inputs, limit) = (Arc::clone(&self.shared), self.inputs.clone(), self.limit);
                let check = tokio::spawn(async move {
                    let own = login.then(|| shared.setup.credentials.borrow().own(Purpose::Check));
                    let password = own.as_ref().map(Secrets::current);
                    let present = shared.setup.presence.clone();
                    let result = check::check(decision.master, password, present, limit).await;
                    if let Some(inputs) = inputs.upgrade() {
                        let _ = inputs.send(Input::Checked { serial, result }).await;
                    }
                });
                if let Some(obsolete) = self.check.replace(check.abort_handle()) {
                    obsolete.abort();
                }
            }
            Output::Switch(target) => self.shared.switch(target.map(|decision| decision.master)),
            Output::Usable(usable) => {
                let _ = self.usable.send_replace(usable);
            }
            Output::Post(facts) => self.post(Part::Proxy(facts)).await,
            Output::Fault(reason) => self.post(Part::Fault { source: "proxy", reason }).await,
            Output::Publish(event) => {
                let (level, name) = label(&event);
                self.journal.record("proxy", level, name, event.to_string());
            }
        }
        Flow::Done
    }
}

impl Executor {
    /// Nobody to post to: the worker is on its way out.
    async fn post(&self, part: Part) {
        let _ = self.post.send(part).await;
    }
}

fn label(event: &Event) -> (Level, &'static str) {
    match event {
        Event::Routed(_) => (Level::Info, "route-up"),
        Event::Renewed(_) => (Level::Info, "route-renewed"),
        Event::Lost { .. } => (Level::Warn, "route-down"),
        Event::Unproved { .. } => (Level::Warn, "route-unproved"),
        Event::Conflict(_) => (Level::Error, "decision-conflict"),
        Event::Foreign(_) => (Level::Warn, "master-refused"),
        Event::HistoryReset(_) => (Level::Warn, "history-reset"),
        Event::Usable(Ok(())) => (Level::Info, "vip-fit"),
        Event::Usable(Err(_)) => (Level::Warn, "vip-unfit"),
    }
}

/// Every client needs two descriptors. Returns how many clients there are enough for, `wanted` at most: without a reserve,
/// clients would take the descriptors that checks need, and lose the route for everybody.
fn raise_file_limit(wanted: u32, journal: &Journal) -> u32 {
    let needed = u64::from(wanted) * 2 + FILES_RESERVED;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    if soft >= needed || setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).is_ok() {
        return wanted;
    }
    let limit =
        if setrlimit(Resource::RLIMIT_NOFILE, hard.min(needed), hard).is_ok() { hard.min(needed) } else { soft };
    let served = u32::try_from(limit.saturating_sub(FILES_RESERVED) / 2).unwrap_or(wanted).clamp(1, wanted.max(1));
    if served < wanted {
        let text = format!("{limit} open files are allowed, enough for {served} clients; max_clients is {wanted}");
        journal.record("proxy", Level::Warn, "file-limit", text);
    }
    served
}

#[cfg(test)]
mod tests;
