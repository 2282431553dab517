//! Runs the supervisor of the node's redis: its process, its configuration file, its durable record.

mod account;
mod asker;
mod child;
mod conf;
mod disk;
mod keeper;
mod log;
mod record;
mod server;
mod undelivered;
mod users;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::drive::{Execute, Flow, drive};
use super::fence::{self, Fence, Wish};
use super::host;
use super::journal::{Journal, Level};
use super::pidfd::{Ending, PidFd};
use super::store::{Store, StoreError};
use super::view::{Steering, heard};
use crate::base::lease::Held;
use crate::base::node::{Decision, RedisRole, starts};
use crate::base::{Credentials, Machine, NodeName, Secret};
use crate::config;
use crate::cores::cluster::{Part, View};
use crate::cores::redis::fence::{Setting, Status};
use crate::cores::redis::{Ask, Closing, Config, Durable, Event, Exit, Input, Output, Supervisor, Token};
pub use account::AccountError;
use account::Choice;
pub use conf::ConfError;
use conf::{Conf, Start};
pub use keeper::SpawnError;
use keeper::{Numbered, Order, Plan, Spawned};
pub use server::ServerError;
pub use users::LOCAL_RIGHTS;

const SOURCE: &str = "redis";
/// More inputs than can wait at once: one answer, one exit, one view, one stop.
const INPUTS_MAX: usize = 16;

/// What the supervisor of a node is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `[redis]` of the cluster file.
    pub config: config::Redis,
    /// The cluster's name, which is the master's name for the sentinels.
    pub cluster: String,
    /// The node's own address.
    pub address: IpAddr,
    /// The node's name.
    pub node: NodeName,
    /// The cluster's secrets, as they are now.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// The data nodes of the cluster: nobody else is ever followed.
    pub nodes: Vec<SocketAddr>,
    /// Where its log and record are written; made if it is missing.
    pub state_dir: PathBuf,
    /// Replica priority, 0–1000000; 0: never a master.
    pub priority: u32,
    /// A number that no other start of this node has.
    pub life: u32,
    /// Whether the file asks for leases.
    pub fencing: bool,
    /// The lease by which it takes writes, by the link.
    pub lease: watch::Receiver<Option<Held>>,
    /// The fence of it.
    pub fence: Arc<Fence>,
}

/// Why a supervisor could not begin its work. Whatever happens later is a fault that it posts, and tries again.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// An include file is not allowed or not readable.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// There is nobody to run it as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The durable record cannot be read.
    #[error(transparent)]
    Record(#[from] StoreError),
    /// The system refused a thread.
    #[error("cannot start the thread that starts redis: {0}")]
    Thread(io::Error),
}

/// Why the server program of this host would not be started in a fenced cluster: it is too old. None too where that cannot be known,
/// such as on a host without one. Blocks for as long as the program takes to say its version.
pub fn too_old_to_fence(config: &config::Redis) -> Option<ServerError> {
    let Choice { account, .. } = account::choose(config.user.as_deref()).ok()?;
    match server::check(&config.server, account.as_ref()).and_then(|server| server.fenceable(&config.server)) {
        Err(error @ (ServerError::Unfenced { .. } | ServerError::Old { .. })) => Some(error),
        Err(
            ServerError::Missing { .. }
            | ServerError::Run { .. }
            | ServerError::Forbidden { .. }
            | ServerError::Silent { .. }
            | ServerError::Foreign { .. },
        )
        | Ok(()) => None,
    }
}

/// Supervises the node's redis until `stop` is true, then ends it cleanly and returns. Dropped before that, redis is
/// killed.
pub async fn run(
    setup: Setup,
    view: watch::Receiver<Arc<View>>,
    post: mpsc::Sender<Part>,
    journal: Journal,
    stop: watch::Receiver<bool>,
) -> Result<(), RedisError> {
    let data_dir = setup.config.data_dir.clone().unwrap_or_else(|| setup.state_dir.join("redis"));
    let conf = Conf {
        address: setup.address,
        port: setup.config.port,
        data_dir,
        persistence: setup.config.persistence,
        include: setup.config.include.iter().map(PathBuf::from).collect(),
        priority: setup.priority,
    };
    let store = record(&setup.state_dir);
    let own = SocketAddr::new(conf.own_ip(), conf.port);
    let wanted = setup.config.user.clone();
    let (choice, checked, loaded, conf, store) = blocking(move || {
        let wanted = wanted.as_deref();
        (account::choose(wanted), conf.includes(), store.load(), conf, store)
    })
    .await;
    checked?;
    let Choice { account, warning } = choice?;
    if let Some(warning) = warning {
        journal.record(SOURCE, Level::Warn, "user", warning);
    }
    if setup.config.tune_host {
        for fault in blocking(|| host::tune(Path::new("/"))).await {
            journal.record(SOURCE, Level::Warn, "not-tuned", fault);
        }
    }
    let durable = loaded?.unwrap_or_default();
    tracing::debug!(node = %setup.node, starts = starts(durable.incarnation), "supervises {own}");

    let address = SocketAddr::new(setup.address, setup.config.port);
    let mut machine = Supervisor::new(
        Config {
            address,
            priority: setup.priority,
            nodes: setup.nodes.clone(),
            fencing: setup.fencing,
            life: setup.life,
        },
        durable,
    );
    let (inputs, received) = mpsc::channel(INPUTS_MAX);
    let (spawned, started) = mpsc::unbounded_channel();
    let (numbered, secrets) = watch::channel((0, setup.credentials.borrow().clone()));
    // Nothing knows the first one: no process has it.
    let (local, local_now) = watch::channel(Secret::new(""));
    let plan = Plan {
        server: setup.config.server.clone(),
        conf,
        state_dir: setup.state_dir.clone(),
        account,
        secrets: secrets.clone(),
        local,
    };
    let orders = keeper::start(plan, move |result| {
        // Nobody is left to hear of it: dropping the child's hold is all that can be done, its parent thread ends too.
        let _ = spawned.send(result);
    });
    let (asks, asked) = mpsc::channel(INPUTS_MAX);
    let (records, recorded) = mpsc::channel(1);
    let (left, ended) = oneshot::channel();

    let mut tasks = JoinSet::new();
    tasks.spawn(asker::run(own, local_now.clone(), secrets, asked, inputs.clone()));
    tasks.spawn(watch_secrets(setup.credentials.clone(), numbered, inputs.clone()));
    tasks.spawn(watch_view(setup.cluster.clone(), view, inputs.clone()));
    tasks.spawn(watch_lease(setup.lease.clone(), inputs.clone()));
    tasks.spawn(watch_fence(setup.fence.watch(), inputs.clone()));
    tasks.spawn(watch_stop(stop, inputs.clone()));
    tasks.spawn(write_records(store, recorded, journal.clone()));
    let (lapsed, since_lapsed) = watch::channel(false);
    tasks.spawn(undelivered::run(setup.config.port, since_lapsed, journal.clone()));
    let (running, runs) = watch::channel(None);
    tasks.spawn(watch_process(Watched { started, running, inputs, address, state_dir: setup.state_dir.clone() }));

    let mut executor = Executor {
        orders: orders.map_err(RedisError::Thread)?,
        asks,
        records,
        runs,
        fence: setup.fence,
        own,
        password: local_now.clone(),
        post,
        journal,
        fencing: setup.fencing,
        lapsed,
        left: Some(left),
    };
    tokio::select! {
        () = drive(&mut machine, received, &mut executor) => {}
        _ = ended => {}
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("neither cancelled nor does the work panic")
}

async fn watch_view(cluster: String, mut view: watch::Receiver<Arc<View>>, inputs: mpsc::Sender<Input>) {
    let mut last = None;
    loop {
        let newest = view.borrow_and_update().clone();
        let now = heard(&newest, &cluster);
        if last != Some(now) {
            last = Some(now);
            let Steering { decision, leading, named, mode } = now;
            if inputs.send(Input::Cluster { decision, leading, named, mode }).await.is_err() {
                return;
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_lease(mut lease: watch::Receiver<Option<Held>>, inputs: mpsc::Sender<Input>) {
    while lease.changed().await.is_ok() {
        let held = *lease.borrow_and_update();
        if inputs.send(Input::Lease(held)).await.is_err() {
            return;
        }
    }
    // The link has ended; what it had promised ends by itself.
    std::future::pending().await
}

async fn watch_fence(mut status: watch::Receiver<Status>, inputs: mpsc::Sender<Input>) {
    while status.changed().await.is_ok() {
        let status = *status.borrow_and_update();
        if inputs.send(Input::Fence(status)).await.is_err() {
            return;
        }
    }
}

/// Counts the changes of the secrets: the start of a process and a change while it runs must not miss each other.
async fn watch_secrets(
    mut credentials: watch::Receiver<Arc<Credentials>>,
    numbered: watch::Sender<Numbered>,
    inputs: mpsc::Sender<Input>,
) {
    while credentials.changed().await.is_ok() {
        let newest = credentials.borrow_and_update().clone();
        numbered.send_modify(|(number, secrets)| {
            *number += 1;
            *secrets = newest;
        });
        let number = numbered.borrow().0;
        if inputs.send(Input::Secrets(number)).await.is_err() {
            return;
        }
    }
}

async fn watch_stop(mut stop: watch::Receiver<bool>, inputs: mpsc::Sender<Input>) {
    // A sender that is gone means stop, too: nobody could say it any more.
    let _ = stop.wait_for(|stop| *stop).await;
    let _ = inputs.send(Input::Stop).await;
}

/// Where a supervisor keeps its [`Durable`].
pub fn record(state_dir: &Path) -> Store<Durable> {
    Store::new(state_dir.join("redis.record"))
}

/// A record, and who waits for it to be on disk.
type Write = (Durable, Option<oneshot::Sender<Result<(), StoreError>>>);

/// Writes records one after the other, so that none is overtaken by an older one.
async fn write_records(store: Store<Durable>, mut records: mpsc::Receiver<Write>, journal: Journal) {
    let mut failing = false;
    while let Some((durable, waiting)) = records.recv().await {
        let store = store.clone();
        let written = blocking(move || store.save(&durable)).await;
        match (&written, waiting) {
            (_, Some(waiting)) => {
                // Who gave up waiting does not care any more.
                let _ = waiting.send(written);
                failing = false;
            }
            (Ok(()), None) => failing = false,
            (Err(error), None) => {
                if !failing {
                    journal.record(SOURCE, Level::Warn, "record-failed", error.to_string());
                }
                failing = true;
            }
        }
    }
}

struct Watched {
    started: mpsc::UnboundedReceiver<Result<Spawned, SpawnError>>,
    /// The process that lives now.
    running: watch::Sender<Option<Running>>,
    inputs: mpsc::Sender<Input>,
    address: SocketAddr,
    state_dir: PathBuf,
}

/// Says when a process was started, and when it ended, the moment the kernel knows.
async fn watch_process(mut watched: Watched) {
    while let Some(result) = watched.started.recv().await {
        let input = match result {
            Ok(spawned) => match watched.take(spawned) {
                Ok(process) => {
                    let (pid, log_later) = (process.child.id(), process.start == Start::FromSnapshot);
                    let secrets = process.secrets;
                    if watched.inputs.send(Input::Spawned { pid, log_later, secrets }).await.is_err() {
                        return;
                    }
                    watched.live(process).await;
                    continue;
                }
                Err(error) => Input::SpawnFailed(format!("cannot watch redis: {error}")),
            },
            Err(error) => Input::SpawnFailed(error.to_string()),
        };
        if watched.inputs.send(input).await.is_err() {
            return;
        }
    }
}

/// A process, for whoever has to do with it.
#[derive(Clone, Debug)]
struct Running {
    held: Arc<PidFd>,
    /// What its operator wants of replicas in sync while it takes writes.
    setting: Setting,
}

struct Living {
    child: std::process::Child,
    ending: Ending,
    last_words: oneshot::Receiver<Vec<String>>,
    start: Start,
    secrets: u64,
}

impl Watched {
    fn take(&self, mut spawned: Spawned) -> io::Result<Living> {
        let (words, last_words) = oneshot::channel();
        let directory = self.state_dir.clone();
        let log = spawned.log;
        let thread = std::thread::Builder::new().name("redis-log".to_owned()).stack_size(128 * 1024);
        let begun = thread.spawn(move || {
            // Nobody waits for the last words of a redis that was killed with its supervisor.
            let _ = words.send(log::keep(log, &directory));
        });
        let held = Arc::new(spawned.held);
        match begun.and_then(|_| Ending::of(held.clone())) {
            Ok(ending) => {
                let Spawned { child, start, secrets, setting, .. } = spawned;
                self.running.send_replace(Some(Running { held, setting }));
                Ok(Living { child, ending, last_words, start, secrets })
            }
            Err(error) => {
                // A process that nobody watches must not live.
                let _ = spawned.child.kill();
                let _ = spawned.child.wait();
                Err(error)
            }
        }
    }

    async fn live(&self, mut process: Living) {
        process.ending.wait().await;
        // Its children (a save, a rewrite) have lost their purpose. It is not waited for yet, so that its number,
        // which is that of the group, cannot belong to anybody else.
        if let Ok(group) = i32::try_from(process.child.id()) {
            match killpg(Pid::from_raw(group), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => tracing::debug!("killing what redis left behind: {error}"),
            }
        }
        let exit = process.child.wait().map_or(Exit::Unknown, exit);
        self.running.send_replace(None);
        if self.inputs.send(Input::Exited(exit)).await.is_err() {
            return;
        }
        let lines = process.last_words.await.unwrap_or_default();
        // One that was killed had no time to say why; its last lines are about something else.
        let killed = exit == Exit::Signal(Signal::SIGKILL as i32);
        if let Some(words) = log::reason(&lines, self.address).filter(|_| !killed) {
            // Without a reader the supervisor has left.
            let _ = self.inputs.send(Input::LastWords(words)).await;
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

struct Executor {
    orders: std::sync::mpsc::Sender<Order>,
    asks: mpsc::Sender<(Token, Ask)>,
    records: mpsc::Sender<Write>,
    runs: watch::Receiver<Option<Running>>,
    fence: Arc<Fence>,
    /// Where the fence reaches it, and with which password.
    own: SocketAddr,
    password: watch::Receiver<Secret>,
    post: mpsc::Sender<Part>,
    journal: Journal,
    /// Whether the file asks for leases.
    fencing: bool,
    /// Set when the lease has run out, until redis takes writes again.
    lapsed: watch::Sender<bool>,
    left: Option<oneshot::Sender<()>>,
}

impl Execute<Supervisor> for Executor {
    async fn execute(&mut self, output: Output) -> Flow<<Supervisor as Machine>::Input> {
        match output {
            Output::Record(durable) => {
                let (waiting, written) = oneshot::channel();
                let sent = self.records.send((durable, Some(waiting))).await;
                match (sent, written.await) {
                    (Ok(()), Ok(Ok(()))) => {}
                    (_, Ok(Err(error))) => return Flow::Abort(Input::RecordFailed(error.to_string())),
                    (_, Err(_)) | (Err(_), Ok(Ok(()))) => {
                        return Flow::Abort(Input::RecordFailed("the writer of records has ended".to_owned()));
                    }
                }
            }
            // Full: the disk is slower than once a second, and the next one says more.
            Output::Remember(durable) => drop(self.records.try_send((durable, None))),
            Output::Spawn { closed } => {
                if self.orders.send(Order { closed }).is_err() {
                    return Flow::Abort(Input::SpawnFailed(SpawnError::Thread.to_string()));
                }
            }
            Output::Terminate => self.signal(Signal::SIGTERM),
            Output::Kill => self.signal(Signal::SIGKILL),
            Output::Ask { token, ask } => {
                // Only an asker that ended refuses; the task set lives as long as this executor.
                let _ = self.asks.send((token, ask)).await;
            }
            Output::Enclose { incarnation } => self.enclose(incarnation),
            Output::Open { order, by, epoch } => {
                // One that has just ended is not opened.
                let setting = self.runs.borrow().as_ref().map(|running| running.setting).unwrap_or_default();
                self.fence.order(order, Wish::Open { by, epoch, setting });
            }
            Output::Close { order } => self.fence.order(order, Wish::Close),
            // Whoever collects facts and no longer does is about to end everything.
            Output::Post(facts) => drop(self.post.send(Part::Redis(facts)).await),
            Output::Writes(writes) => drop(self.post.send(Part::Writes(writes)).await),
            Output::Fault(reason) => drop(self.post.send(Part::Fault { source: SOURCE, reason }).await),
            Output::Publish(event) => self.publish(&event),
            Output::Left => {
                // Received by `run` as long as it runs.
                self.left.take().map(|left| left.send(()));
            }
        }
        Flow::Done
    }
}

impl Executor {
    fn enclose(&self, incarnation: u64) {
        // One that has just ended needs no fence.
        let Some(Running { held, .. }) = self.runs.borrow().clone() else { return };
        let password = self.password.borrow().clone();
        let process = fence::Process { incarnation, held: &held, address: self.own, password: &password };
        if let Err(error) = self.fence.process(&process) {
            let text =
                format!("redis is killed and started again, since it could not be put behind its fence: {error}");
            self.journal.record(SOURCE, Level::Error, "not-fenced", text);
            self.signal(Signal::SIGKILL);
        }
    }

    /// A process that has just ended needs none.
    fn signal(&self, signal: Signal) {
        if let Some(Running { held, .. }) = &*self.runs.borrow()
            && let Err(error) = held.signal(signal)
        {
            tracing::debug!("{signal} to redis: {error}");
        }
    }

    fn publish(&self, event: &Event) {
        let (level, name, text) = match event {
            Event::Started { pid, incarnation } => {
                (Level::Info, "started", format!("redis runs as process {pid}, start number {}", starts(*incarnation)))
            }
            Event::NotStarted(reason) => (Level::Error, "not-started", reason.clone()),
            Event::Died(exit) => {
                // A fence may have killed it.
                if self.fencing {
                    self.lapsed.send_replace(true);
                }
                (Level::Warn, "died", format!("redis {exit}"))
            }
            Event::Stopped(exit) => (Level::Info, "stopped", format!("redis was stopped and {exit}")),
            Event::Killed => (Level::Warn, "killed", "redis did not end in time and is killed".to_owned()),
            Event::Logs => {
                (Level::Info, "logs", "redis has read its snapshot and begins its append-only file".to_owned())
            }
            Event::NotLogged(reason) => {
                (Level::Error, "not-logged", format!("redis does not begin its append-only file: {reason}"))
            }
            Event::Loading => (Level::Info, "loading", "redis reads its data from disk".to_owned()),
            Event::Answers => (Level::Info, "answers", "redis answers".to_owned()),
            Event::Busy => (Level::Warn, "busy", "redis is alive and does not answer".to_owned()),
            Event::Follows(Decision { master, epoch }) => {
                (Level::Info, "follows", format!("redis was told to follow {master}, master of epoch {epoch}"))
            }
            Event::Stranger(Decision { master, epoch }) => {
                let text =
                    format!("{master}, master of epoch {epoch}, is no data node of the file: it is not followed");
                (Level::Error, "stranger", text)
            }
            Event::ShutOut(reason) => {
                let text = format!(
                    "redis is started again from its own configuration, since its users were changed: {reason}"
                );
                (Level::Error, "shut-out", text)
            }
            Event::Secrets => (Level::Info, "secrets", "redis takes the secrets that are valid now".to_owned()),
            Event::NotSecrets(reason) => {
                (Level::Warn, "not-secrets", format!("redis does not take the secrets that are valid now: {reason}"))
            }
            Event::NotFollowed(reason) => (Level::Warn, "not-followed", format!("redis refuses to follow: {reason}")),
            Event::Opened(epoch) => {
                self.lapsed.send_replace(false);
                (Level::Info, "opened", format!("redis takes writes, by the lease of epoch {epoch}"))
            }
            Event::NotOpened(reason) => {
                (Level::Error, "not-opened", format!("redis does not take writes as it was told to: {reason}"))
            }
            Event::Closed(Closing::Returned) => {
                (Level::Info, "closed", "redis refuses writes, to make room for another master".to_owned())
            }
            Event::Closed(Closing::NeedsLease) => {
                (Level::Info, "closed", "redis refuses writes: from now on it needs a lease to take them".to_owned())
            }
            Event::Closed(Closing::Lapsed) => {
                self.lapsed.send_replace(true);
                let text = "redis refuses writes: its lease was not renewed by a majority of the sentinels";
                (Level::Warn, "fenced", text.to_owned())
            }
            Event::Unconfirmed => {
                self.lapsed.send_replace(true);
                let text = "redis has not confirmed that it refuses writes, and is killed before its lease ends";
                (Level::Error, "fence-killed", text.to_owned())
            }
            Event::Role { from, to } => {
                (Level::Info, "role", format!("redis is {}, and was {}", said(*to), said(*from)))
            }
        };
        self.journal.record(SOURCE, level, name, text);
    }
}

fn said(role: RedisRole) -> String {
    match role {
        RedisRole::Unknown => "not known yet".to_owned(),
        RedisRole::Closed => "closed".to_owned(),
        RedisRole::Replica { of, link_up: true } => format!("a replica in sync with {of}"),
        RedisRole::Replica { of, link_up: false } => format!("a replica of {of}, not in sync"),
        RedisRole::Master { replicas } => format!("master of {replicas} replicas"),
    }
}

#[cfg(test)]
mod tests;
