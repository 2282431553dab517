//! The worker: every role of this node, wired together. The only file that knows two roles.
//!
//! ```text
//!             datagrams of the other nodes
//!                        |
//!   redis  --.      +---------+      .--> redis     (whom to follow)
//!   sentinel-+-post-> peers   +-view-+--> sentinel  (who is dead, who says so)
//!   proxy  --+      +---------+      '--> proxy     (where the master is)
//!   vip    --'                             proxy --usable--> vip
//! ```

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use super::control::{self, Switched};
use super::exit::Exit;
use super::journal::{Journal, Level};
use super::peers::{Peers, Presence};
use super::status::Status;
use super::why::{Frames, Why};
use super::{clock, forward, guard, notify, private, proxy, redis, sentinel, store, vip};
use crate::base::node::{RedisRole, Roles};
use crate::base::secret::CONTROL_USER;
use crate::base::{Credentials, Instant, NodeName, Purpose};
use crate::config::{Config, Node, PEER_PORT};
use crate::cores::{
    self,
    cluster::{self, Part, View},
};
use crate::wire::frame::Keys;

/// A master that stops hands over first; if nobody takes over within this time, it stops all the same.
const HANDOVER_TIME: Duration = Duration::from_secs(5);
/// What a role could not get (a port, an interface) is tried again so often.
const RETRY: Duration = Duration::from_secs(1);
/// The kernel closes the sockets of a process that was killed within this time.
const PORT_WAIT: Duration = Duration::from_secs(2);
/// Between two tries for them.
const PORT_RETRY: Duration = Duration::from_millis(20);
/// Everything that a self-check asks answers within this time, or hangs.
const SELF_CHECK_TIME: Duration = Duration::from_secs(2);
/// A role that runs for so long has got what it needs.
const SETTLE: Duration = Duration::from_millis(500);
/// Orders to the sentinel that may wait.
const ORDERS_MAX: usize = 4;
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
}

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

async fn serve(spec: &Spec) -> Result<(), WorkerError> {
    let started = clock::now();
    let journal = Journal::new();
    let own = spec.node();
    let (leave, mut leaving) = watch::channel(false);
    tokio::task::spawn_local(guard::watch_guard(leave));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // The link outlives the roles, so that their last words still reach the other nodes.
    let (end_link, link_ends) = watch::channel(false);
    let peers = open_link(spec).await?;
    // Before any role begins: whatever refuses the start has started nothing.
    let control = control::open(&spec.runtime_dir)?;
    let (view, post, presence) = (peers.view.clone(), peers.post.clone(), peers.presence.clone());
    // Read again at SIGHUP, and followed by every role.
    let (renew, credentials) = watch::channel(Arc::new(spec.config.cluster.credentials.clone()));
    let link = tokio::task::spawn_local(peers.run(credentials.clone(), journal.clone(), link_ends));
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
        roles.push(tokio::task::spawn_local(run_sentinel(spec.clone(), ends.clone(), orders.clone())));
    }
    if spec.roles.redis {
        roles.push(tokio::task::spawn_local(run_redis(spec.clone(), ends.clone())));
    }
    let mut virtual_ip = None;
    if spec.roles.proxy {
        let (usable, usable_now) = watch::channel(Err("the proxy does not listen yet".to_owned()));
        roles.push(tokio::task::spawn_local(run_proxy(spec.clone(), ends.clone(), usable)));
        virtual_ip = start_vip(spec, usable_now, &ends).await;
    }

    let node = ControlNode { spec: Rc::new(spec.clone()), started, view: view.clone(), credentials, orders };
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
    drop(link.await);
    Ok(())
}

/// Opens the peer link. A worker that was killed may still be giving its port back; whoever else has it keeps it longer.
async fn open_link(spec: &Spec) -> Result<Peers, super::peers::PeersError> {
    let deadline = clock::now() + PORT_WAIT;
    loop {
        match Peers::open(link_config(spec)) {
            Err(error) if error.in_use() && clock::now() < deadline => tokio::time::sleep(PORT_RETRY).await,
            opened => return opened,
        }
    }
}

fn link_config(spec: &Spec) -> cluster::Config {
    let cluster = &spec.config.cluster;
    let peers = spec.config.nodes.iter().map(|node| cluster::Peer {
        name: node.name.clone(),
        address: node.address,
        roles: node.roles,
    });
    cluster::Config {
        cluster: cluster.name.clone(),
        keys: Keys::new(&cluster.credentials.own(Purpose::Link)),
        me: spec.me,
        roles: spec.roles,
        peers: peers.collect(),
        port: PEER_PORT,
        boot: random(),
        seed: random(),
    }
}

/// 64 bits that no other start has: from the kernel, through the keys of the standard library's hash maps.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() ^ clock::now().as_micros()
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

async fn run_sentinel(spec: Spec, ends: Ends, orders: Orders) {
    ends.keep("sentinel start", || {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        orders.0.replace(Some(sender));
        let store = store::Store::new(spec.state_dir.join("sentinel.state"), sentinel::KIND);
        let (config, port, addresses) = (sentinel_config(&spec), spec.config.sentinel.port, sentinel_addresses(&spec));
        let Ends { view, post, journal, stop, credentials, presence } = ends.clone();
        let presence = Some(presence.beside(&spec.config.sentinel.stock));
        let (nodes, door) = (spec.config.nodes.iter().map(|node| node.address).collect(), sentinel::Door::default());
        let setup = sentinel::Setup { config, store, port, addresses, nodes, credentials, presence, door };
        sentinel::run(setup, view, receiver, post, journal, stop)
    })
    .await;
}

/// Where clients find the sentinel of this node: not on networks that the cluster file says nothing of.
fn sentinel_addresses(spec: &Spec) -> Vec<IpAddr> {
    let own = spec.node().address;
    let mut addresses = vec![own];
    if !own.is_loopback() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    if spec.roles.proxy {
        addresses.extend(spec.config.vips.iter().flat_map(|vip| vip.addresses.iter().map(|(address, _)| *address)));
    }
    addresses
}

fn sentinel_config(spec: &Spec) -> cores::sentinel::Config {
    use cores::sentinel::{Config, DataNode, MasterConfig, Membership, Settings, Voter};
    let (config, cluster) = (&spec.config, &spec.config.cluster);
    let renewal = sentinel::renewal(&cluster.credentials);
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
        membership: Membership::Voters { me: spec.node().name.clone(), all: voters.collect() },
        masters: vec![MasterConfig {
            down_after: cluster.down_after,
            busy_grace: cluster.busy_grace,
            failover_timeout: cluster.failover_timeout,
            parallel_syncs: PARALLEL_SYNCS,
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
        seed: random(),
    }
}

/// The redis of the cluster file.
fn data_nodes(config: &Config) -> Vec<SocketAddr> {
    config.nodes.iter().filter(|node| node.roles.redis).map(|node| config.redis_address(node)).collect()
}

async fn run_redis(spec: Spec, ends: Ends) {
    let own = spec.node();
    ends.keep("redis start", || {
        let setup = redis::Setup {
            config: spec.config.redis.clone(),
            cluster: spec.config.cluster.name.clone(),
            address: own.address,
            node: own.name.clone(),
            credentials: ends.credentials.clone(),
            nodes: data_nodes(&spec.config),
            state_dir: spec.state_dir.clone(),
            priority: own.replica_priority,
        };
        let Ends { view, post, journal, stop, credentials: _, presence: _ } = ends.clone();
        redis::run(setup, view, post, journal, stop)
    })
    .await;
}

async fn run_proxy(spec: Spec, ends: Ends, usable: watch::Sender<Result<(), String>>) {
    let (config, own) = (&spec.config, spec.node());
    let addresses = config.vips.iter().flat_map(|vip| vip.addresses.iter().map(|(address, _)| *address));
    let listen: Vec<_> = addresses.map(|address| SocketAddr::new(address, config.proxy.port)).collect();
    ends.keep("proxy start", || {
        let setup = proxy::Setup {
            config: config.proxy.clone(),
            listen: listen.clone(),
            master_name: config.cluster.name.clone(),
            masters: data_nodes(config),
            credentials: ends.credentials.clone(),
            presence: Some(ends.presence.clone()),
            node: own.name.clone(),
            counters: Arc::default(),
        };
        let Ends { view, post, journal, stop, credentials: _, presence: _ } = ends.clone();
        proxy::run(setup, view, usable.clone(), post, journal, stop)
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

/// The way to the sentinel that runs now, if one does.
#[derive(Clone, Debug, Default)]
struct Orders(Rc<RefCell<Option<mpsc::Sender<sentinel::Order>>>>);

/// Asks for a planned switchover if this node holds the master.
async fn hand_over(node: &ControlNode, journal: &Journal) {
    let is_master = |view: &View| {
        let redis = view.own().state.as_ref().and_then(|state| state.redis.as_ref());
        redis.is_some_and(|redis| matches!(redis.role, RedisRole::Master { replicas: 1.. }))
    };
    if !is_master(&node.view.borrow()) {
        return;
    }
    match tokio::time::timeout(HANDOVER_TIME, control::Node::failover(node, None)).await {
        Ok(Ok(done)) => {
            journal.record(
                "worker",
                Level::Info,
                "handed-over",
                format!("{} is master instead of {}", done.to, done.from),
            );
        }
        Ok(Err(why)) => journal.record("worker", Level::Warn, "not-handed-over", why),
        Err(_) => {
            journal.record("worker", Level::Warn, "not-handed-over", format!("not done within {HANDOVER_TIME:?}"))
        }
    }
}

/// What the control socket sees of this node.
#[derive(Clone, Debug)]
struct ControlNode {
    spec: Rc<Spec>,
    started: Instant,
    view: watch::Receiver<Arc<View>>,
    credentials: watch::Receiver<Arc<Credentials>>,
    orders: Orders,
}

impl control::Node for ControlNode {
    fn status(&self) -> Status {
        Status::new(&self.spec.config, &self.view.borrow(), self.started, clock::now())
    }

    async fn failover(&self, to: Option<NodeName>) -> Result<Switched, String> {
        if let Some(name) = &to {
            let node = self.spec.config.node(name);
            let known = || self.spec.config.nodes.iter().filter(|node| node.roles.redis);
            let names = || known().map(|node| node.name.to_string()).collect::<Vec<_>>().join(", ");
            if !node.is_some_and(|node| node.roles.redis) {
                return Err(format!("{name} is no node with a redis; there are: {}", names()));
            }
        }
        if !self.spec.roles.sentinel {
            let sentinels = self.fresh_sentinels();
            let cluster = &self.spec.config.cluster;
            let own = self.credentials.borrow().own(Purpose::Sentinel);
            let done = forward::switchover(sentinels.into_iter(), own.current(), &cluster.name, to.as_ref());
            return done.await.map(|report| self.switched(&report));
        }
        let report = self.order(|done| sentinel::Order::Switch { to, done }).await??;
        Ok(self.switched(&report))
    }

    async fn bootstrap(&self) -> Result<String, String> {
        if !self.spec.roles.sentinel {
            return Err("this node has no sentinel: give the order on one that has".to_owned());
        }
        self.order(sentinel::Order::Bootstrap).await?
    }

    async fn why(&self) -> Result<Why, String> {
        let (node, config) = (self.spec.node().name.to_string(), &self.spec.config);
        if !self.spec.roles.sentinel {
            let frames = Frames::new(config, &self.view.borrow());
            return Ok(Why { node, masters: Vec::new(), frames: Some(frames) });
        }
        let masters = self.order(sentinel::Order::Why).await?;
        Ok(Why { node, masters, frames: None })
    }
}

impl ControlNode {
    /// Gives the sentinel of this node an order, and waits for what it answers.
    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> sentinel::Order) -> Result<T, String> {
        let (done, answer) = oneshot::channel();
        let gone = || "the sentinel of this node does not run".to_owned();
        let orders = self.orders.0.borrow().clone().ok_or_else(gone)?;
        orders.send(order(done)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    fn switched(&self, report: &cores::sentinel::FailoverReport) -> Switched {
        Switched {
            from: self.name_of(report.from),
            to: self.name_of(report.to),
            epoch: report.epoch,
            pause_us: report.pause.map(|pause| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    /// Where the sentinels are that were heard of late.
    fn fresh_sentinels(&self) -> Vec<SocketAddr> {
        let view = self.view.borrow();
        let heard = view.fresh().filter(|(_, state)| state.sentinel.is_some());
        heard.map(|(node, _)| SocketAddr::new(node.address, self.spec.config.sentinel.port)).collect()
    }

    /// The node whose redis has that address, or the address itself.
    fn name_of(&self, address: SocketAddr) -> String {
        let config = &self.spec.config;
        let node = config.nodes.iter().find(|node| node.roles.redis && config.redis_address(node) == address);
        node.map_or_else(|| address.to_string(), |node| node.name.to_string())
    }
}

/// Tells the service manager that the node is ready, what it is, and that its control plane turns.
async fn keep_notified(node: ControlNode, mut view: watch::Receiver<Arc<View>>, vrrp: Option<vip::Pulse>) {
    notify::ready();
    let mut said = String::new();
    // The pause below is not longer: no two pets are further apart than the interval.
    let pet = notify::watchdog_interval().map(|interval| interval / 2);
    let every = pet.unwrap_or(RETRY);
    let mut due = tokio::time::Instant::now();
    loop {
        let status = status_line(&control::Node::status(&node));
        if status != said {
            notify::status(&status);
            said = status;
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(due) => {}
        }
        if due <= tokio::time::Instant::now() {
            if pet.is_some() {
                match tokio::time::timeout(SELF_CHECK_TIME, self_check(&node, vrrp.as_ref())).await {
                    Ok(Ok(())) => notify::watchdog(),
                    Ok(Err(what)) => tracing::error!("self-check: {what}"),
                    Err(_) => tracing::error!("self-check: no answer within {SELF_CHECK_TIME:?}"),
                }
            }
            due = tokio::time::Instant::now() + every;
        }
        // Views change with every offset: once in a while is enough for a line that people read.
        tokio::time::sleep(every.min(RETRY)).await;
    }
}

/// Whether everything answers that this node stands on. Must not be called without a limit: what hangs does not return.
async fn self_check(node: &ControlNode, vrrp: Option<&vip::Pulse>) -> Result<(), String> {
    if let Some(vrrp) = vrrp
        && !vrrp.beats().await
    {
        return Err("the thread of VRRP has ended".to_owned());
    }
    control::ask_status(&node.spec.runtime_dir).await.map_err(|error| format!("the control socket: {error}"))
}

fn status_line(status: &Status) -> String {
    let bad = status.nodes.iter().filter(|node| node.health != "good").map(|node| node.name.as_str());
    let bad = bad.collect::<Vec<_>>().join(", ");
    let master = status.master.as_ref().map_or_else(
        || "no master yet".to_owned(),
        |master| format!("master {}", master.node.as_deref().unwrap_or(&master.address)),
    );
    if bad.is_empty() { format!("{master}; all nodes are well") } else { format!("{master}; not well: {bad}") }
}

/// SIGHUP: reads the file again and says what it finds. Password and secret are taken over at once, so that they can be
/// changed while the cluster runs; anything else that has changed takes effect at the next start only, as a whole.
async fn reload_on_hangup(spec: Spec, renew: watch::Sender<Arc<Credentials>>, journal: Journal) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        notify::reloading();
        match crate::config::file::load(&spec.config_path) {
            Ok((mut config, _)) => {
                let credentials =
                    std::mem::replace(&mut config.cluster.credentials, spec.config.cluster.credentials.clone());
                let renewed = **renew.borrow() != credentials;
                if renewed {
                    renew.send_replace(Arc::new(credentials));
                    let text = "password and secret were read again and are in use";
                    journal.record("worker", Level::Info, "credentials-renewed", text);
                }
                if config != spec.config {
                    let text = "the file is valid and differs from what runs: it takes effect when vigie is restarted";
                    journal.record("worker", Level::Warn, "config-changed", text);
                } else if !renewed {
                    journal.record("worker", Level::Info, "config-unchanged", "the file says what runs already");
                }
            }
            Err(faults) => journal.record("worker", Level::Error, "config-invalid", faults.to_string()),
        }
        notify::ready();
    }
}
