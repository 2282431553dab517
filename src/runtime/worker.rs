//! The worker: every role of this node, wired together. Only this file and [`setup`](super::setup) know two roles.
//!
//! ```text
//!             datagrams of the other nodes
//!                        |
//!   redis  --.      +---------+      .--> redis     (whom to follow)
//!   sentinel-+-post-> peers   +-view-+--> sentinel  (who is dead, who says so)
//!   proxy  --+      +---------+      '--> proxy     (where the master is)
//!   vip    --'                             proxy --usable--> vip
//! ```

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::exit::Exit;
use super::fence::{self, Begun, Fence, Guarded, Renewals};
use super::journal::{Journal, Level};
use super::orders::{Orders, ThisNode, hand_over};
use super::peers::{Peers, Presence};
use super::service::{keep_notified, reload_on_hangup};
use super::setup::Spec;
use super::{clock, control, guard, notify, private, promised, proxy, random, redis, sentinel, store, vip};
use crate::base::Credentials;
use crate::base::lease::Held;
use crate::config::Fencing;
use crate::cores::cluster::{Part, View};

/// What a role could not get (a port, an interface) is tried again so often.
const RETRY: Duration = Duration::from_secs(1);
/// The kernel closes the sockets of a process that was killed within this time.
const PORT_WAIT: Duration = Duration::from_secs(2);
/// Between two tries for them.
const PORT_RETRY: Duration = Duration::from_millis(20);
/// A role that runs for so long has got what it needs.
const SETTLE: Duration = Duration::from_millis(500);

/// A worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A directory cannot be made.
    #[error("{path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another vigie has this node's state.
    #[error(transparent)]
    State(#[from] store::LockError),
    /// The runtime or a signal handler cannot be had.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The peer link cannot listen.
    #[error(transparent)]
    Peers(#[from] super::peers::PeersError),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] control::ControlError),
}

impl WorkerError {
    /// No: a person must change something before another start makes sense.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Directory { .. } | Self::State(_) | Self::Peers(_) | Self::Control(_) => Exit::No,
            Self::System(_) => Exit::Internal,
        }
    }
}

/// Runs the worker until it is told to leave. Blocks.
pub fn run(spec: &Spec) -> Result<(), WorkerError> {
    // It was started as /proc/self/exe, which is not what people look for in a list of processes.
    if let Err(error) = nix::sys::prctl::set_name(c"vigie") {
        tracing::debug!("the process keeps its name: {error}");
    }
    for path in [&spec.state_dir, &spec.runtime_dir] {
        let made = private::directory(path);
        made.map_err(|source| WorkerError::Directory { path: path.clone(), source })?;
    }
    let _held = store::lock(&spec.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Blocking disk writes of the control plane happen on threads of this runtime: do not wait for a hung disk at the end.
    let done = LocalSet::new().block_on(&runtime, serve(spec));
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

/// The same, without leases where nobody has asked for them and the server of this host is too old for them: an update of vigie is to
/// stop no redis.
fn fenceable(spec: &Spec, journal: &Journal) -> Spec {
    let mut spec = spec.clone();
    let cluster = &mut spec.config.cluster;
    if spec.roles.redis
        && cluster.fencing == Fencing::Lease
        && !cluster.fencing_said
        && let Some(why) = redis::too_old_to_fence(&spec.config.redis)
    {
        let text = format!("the cluster is not fenced while this host has this server: {why}");
        journal.record("worker", Level::Warn, "not-fenceable", text);
        cluster.fencing = Fencing::Off;
    }
    spec
}

async fn serve(spec: &Spec) -> Result<(), WorkerError> {
    let started = clock::now();
    let journal = Journal::new();
    let spec = &fenceable(spec, &journal);
    let own = spec.node();
    let (leave, mut leaving) = watch::channel(false);
    tokio::task::spawn_local(guard::watch_guard(leave));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // The link outlives the roles, so that their last words still reach the other nodes.
    let (end_link, link_ends) = watch::channel(false);
    let cluster = &spec.config.cluster;
    let promised = spec.roles.sentinel.then(|| promised::longest(&spec.state_dir, cluster, &journal));
    let promised = promised.unwrap_or(cluster.lease);
    let peers = open_link(spec, (random::number()?, random::number()?), promised).await?;
    // Before any role begins: whatever refuses the start has started nothing.
    let control = control::open(&spec.runtime_dir)?;
    let (view, post, presence) = (peers.view.clone(), peers.post.clone(), peers.presence.clone());
    // Read again at SIGHUP, and followed by every role.
    let (renew, credentials) = watch::channel(Arc::new(spec.config.cluster.credentials.clone()));
    tokio::task::spawn_local(peers.liveness.clone().show());
    let lease = peers.lease.clone();
    let (fence, peers) = match spec.roles.redis.then(|| begin_fence(&journal)).transpose()? {
        Some((fence, renewals)) => (Some(fence), peers.renewing(renewals)),
        None => (None, peers),
    };
    let link = peers.spawn(credentials.clone(), journal.clone(), link_ends)?;
    journal.record("worker", Level::Info, "started", format!("{} runs {}", own.name, spec.roles.joined(", ")));

    let (stop, stopping) = watch::channel(false);
    let ends = Ends {
        view: view.clone(),
        post: post.clone(),
        journal: journal.clone(),
        stop: stopping.clone(),
        credentials: credentials.clone(),
        presence,
    };
    let orders = Orders::default();
    let mut roles = Vec::new();
    if spec.roles.sentinel {
        roles.push(tokio::task::spawn_local(run_sentinel(
            spec.clone(),
            random::number()?,
            ends.clone(),
            orders.clone(),
        )));
    }
    if let Some(fence) = fence {
        let life = u32::from_le_bytes(random::bytes()?);
        roles.push(tokio::task::spawn_local(run_redis(spec.clone(), life, (lease, fence), ends.clone())));
    }
    let mut virtual_ip = None;
    if spec.roles.proxy {
        let (usable, usable_now) = watch::channel(Err("the proxy does not listen yet".to_owned()));
        roles.push(tokio::task::spawn_local(run_proxy(spec.clone(), ends.clone(), usable)));
        virtual_ip = start_vip(spec, usable_now, &ends).await;
    }

    let node = ThisNode { spec: Rc::new(spec.clone()), started, view: view.clone(), credentials, orders };
    let served = control::serve(control, node.clone(), journal.clone(), stopping.clone());
    let control = tokio::task::spawn_local(served);
    let pulse = virtual_ip.as_ref().map(vip::VipHandle::pulse);
    let notifier = tokio::task::spawn_local(keep_notified(node.clone(), view.clone(), pulse));
    tokio::task::spawn_local(reload_on_hangup(spec.clone(), renew, journal.clone()));

    let why = tokio::select! {
        _ = terminate.recv() => "told to (SIGTERM)",
        _ = interrupt.recv() => "told to (SIGINT)",
        _ = leaving.wait_for(|leave| *leave) => "its guard is gone",
    };
    notify::stopping();
    notifier.abort();
    journal.record("worker", Level::Info, "stopping", format!("leaves: {why}"));

    // The order matters: the address goes while the peer can take it at once, the master before its redis ends.
    if let Some(handle) = virtual_ip {
        let stopped = tokio::task::spawn_blocking(move || handle.stop());
        drop(stopped.await);
    }
    hand_over(&node, &journal).await;
    stop.send_replace(true);
    for role in roles {
        drop(role.await);
    }
    control.abort();
    end_link.send_replace(true);
    link.ended().await;
    Ok(())
}

/// Opens the peer link. A worker that was killed may still be giving its port back; whoever else has it keeps it longer.
async fn open_link(
    spec: &Spec,
    (boot, seed): (u64, u64),
    promised: Duration,
) -> Result<Peers, super::peers::PeersError> {
    let deadline = clock::now() + PORT_WAIT;
    loop {
        match Peers::open(spec.link(boot, seed, promised)) {
            Err(error) if error.in_use() && clock::now() < deadline => tokio::time::sleep(PORT_RETRY).await,
            opened => return opened,
        }
    }
}

/// What every role is given.
#[derive(Clone, Debug)]
struct Ends {
    view: watch::Receiver<Arc<View>>,
    post: mpsc::Sender<Part>,
    journal: Journal,
    stop: watch::Receiver<bool>,
    credentials: watch::Receiver<Arc<Credentials>>,
    presence: Presence,
}

impl Ends {
    async fn fault(&self, source: &'static str, reason: Option<String>) {
        // The link has ended only if this node has.
        drop(self.post.send(Part::Fault { source, reason }).await);
    }

    /// Keeps a role running until the stop: what it could not get at its start (a port, a file) may be had later. The fault
    /// is shown meanwhile.
    async fn keep<F, E>(&self, source: &'static str, mut start: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let mut said = String::new();
        let mut stop = self.stop.clone();
        loop {
            let mut running = std::pin::pin!(start());
            let ended = tokio::select! {
                ended = &mut running => ended,
                () = tokio::time::sleep(SETTLE) => {
                    if !said.is_empty() {
                        said.clear();
                        self.fault(source, None).await;
                    }
                    running.await
                }
            };
            let Err(error) = ended else { return };
            let reason = error.to_string();
            if reason != said {
                self.journal.record(source, Level::Error, "fault", reason.clone());
                self.fault(source, Some(reason.clone())).await;
                said = reason;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

async fn run_sentinel(spec: Spec, seed: u64, ends: Ends, orders: Orders) {
    ends.keep("sentinel start", || {
        let setup = sentinel::Setup {
            config: spec.sentinel(seed),
            store: store::Store::new(spec.state_dir.join("sentinel.state")),
            port: spec.config.sentinel.port,
            addresses: spec.sentinel_addresses(),
            nodes: spec.config.nodes.iter().map(|node| node.address).collect(),
            credentials: ends.credentials.clone(),
            presence: Some(ends.presence.clone().beside(&spec.config.sentinel.stock)),
            door: sentinel::Door::default(),
        };
        let Ends { view, post, journal, stop, credentials: _, presence: _ } = ends.clone();
        sentinel::run(setup, view, orders.renew(), post, journal, stop)
    })
    .await;
}

async fn run_redis(spec: Spec, life: u32, (lease, fence): (watch::Receiver<Option<Held>>, Arc<Fence>), ends: Ends) {
    ends.keep("redis start", || {
        let Ends { view, post, journal, stop, credentials, presence: _ } = ends.clone();
        redis::run(spec.redis(life, credentials, lease.clone(), Arc::clone(&fence)), view, post, journal, stop)
    })
    .await;
}

/// Starts the fence of this node's redis, with the second one in the guard.
fn begin_fence(journal: &Journal) -> std::io::Result<(Arc<Fence>, Renewals)> {
    let guarded = Guarded::inherited().unwrap_or_else(|error| {
        let text =
            format!("the guard cannot be told of redis, and does not close it in the place of this process: {error}");
        journal.record("redis", Level::Warn, "no-second-fence", text);
        None
    });
    let Begun { fence, renewals, handicaps } = fence::start(guarded)?;
    for handicap in handicaps {
        journal.record("redis", Level::Warn, "fence-handicap", handicap);
    }
    Ok((Arc::new(fence), renewals))
}

async fn run_proxy(spec: Spec, ends: Ends, usable: watch::Sender<Result<(), String>>) {
    ends.keep("proxy start", || {
        let Ends { view, post, journal, stop, credentials, presence } = ends.clone();
        proxy::run(spec.proxy(credentials, presence), view, usable.clone(), post, journal, stop)
    })
    .await;
}

/// Takes part in the election of the virtual addresses, after removing what an earlier worker may have left of them.
async fn start_vip(spec: &Spec, usable: watch::Receiver<Result<(), String>>, ends: &Ends) -> Option<vip::VipHandle> {
    if spec.config.vips.is_empty() {
        return None;
    }
    let journal = ends.journal.clone();
    let started = spec.vips().and_then(|vips| {
        match vip::remove_leftovers(&vips) {
            Ok(0) => {}
            Ok(count) => journal.record("vrrp", Level::Warn, "leftovers-removed", format!("{count} addresses")),
            Err(error) => journal.record("vrrp", Level::Warn, "leftovers-unknown", error.to_string()),
        }
        vip::spawn(vips, usable, Some(ends.view.clone()), ends.post.clone(), journal.clone())
    });
    match started {
        Ok(handle) => Some(handle),
        Err(error) => {
            journal.record("vrrp", Level::Error, "fault", error.to_string());
            ends.fault("vrrp start", Some(error.to_string())).await;
            None
        }
    }
}
