//! Runs the sentinel: its links, its port for clients and sentinels, its durable state, its part of the node's frame.

pub mod alone;
pub mod bind;
mod error;
pub mod file;
mod links;
pub mod names;
mod record;
pub mod scripts;
mod server;
mod teller;
mod wrong;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use super::drive::{Execute, Flow, Lanes, drive};
use super::journal::{Journal, Level};
use super::peers::Presence;
use super::store::{Store, StoreError};
use super::view::News;
use super::{clock, random};
use crate::base::{Credentials, NodeName, Purpose, RunId};
use crate::config::sentinel::{Document, Host, ThisHost};
use crate::cores::cluster::{Part, View};
use crate::cores::sentinel::why::MasterWhy;
use crate::cores::sentinel::{
    Access, Acl, Config, Durable, FailoverReport, Input, Logins, OrderId, Output, Record, Renewal, Sentinel, Severity,
};

pub use error::SentinelError;
use links::Links;
use server::{Admission, Clients};
use teller::Teller;

/// Inputs that may wait. Whoever brings more waits itself.
const INPUTS_MAX: usize = 1_024;
/// The same of clients, which wait behind all others: a crowd must not make servers look silent.
const CLIENT_INPUTS_MAX: usize = 256;
/// What was sent at the end may take so long to leave.
const LEAVE_MAX: Duration = Duration::from_millis(200);

/// What a sentinel needs to run.
#[derive(Debug)]
pub struct Setup {
    /// What it has to know.
    pub config: Config,
    /// Where its state is.
    pub store: Store<Durable>,
    /// Port for clients and sentinels.
    pub port: u16,
    /// Where it is listened on: the node's own address, loopback, the virtual addresses of a proxy.
    pub addresses: Vec<IpAddr>,
    /// Nodes for which some connections there are reserved: a crowd of others must not keep them out.
    pub nodes: Vec<IpAddr>,
    /// The secrets of the cluster, whenever they change.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// Asked before a node is told a password.
    pub presence: Option<Presence>,
    /// Who is let in at that port.
    pub door: Door,
}

/// Who is let in, and what is said of the process. By default: as the cluster file has it.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// Users that decide instead of the password of the cluster.
    pub acl: Option<Acl>,
    /// Where `ACL LOAD` reads them and `ACL SAVE` writes them.
    pub acl_file: Option<PathBuf>,
    /// `protected-mode`: while the user `default` has no password, only this host is let in.
    pub protected: bool,
    /// The configuration file, as `INFO` names it.
    pub config_file: Option<PathBuf>,
}

/// Where what must survive is kept.
enum Keep {
    Store(Store<Durable>),
    File(Arc<Document>),
}

/// An order of the operator.
#[derive(Debug)]
pub enum Order {
    /// A planned switchover.
    Switch {
        /// The node to become master; none: the best replica.
        to: Option<NodeName>,
        /// Told when it is done or why it was not.
        done: oneshot::Sender<Result<FailoverReport, String>>,
    },
    /// To take over what all other sentinels have.
    Bootstrap(oneshot::Sender<Result<String, String>>),
    /// To give the redis of this node the writes without a majority.
    Takeover {
        /// Only to say what that risks.
        risks: bool,
        /// Told when it is done or why it was not.
        done: oneshot::Sender<Result<String, String>>,
    },
    /// Why there is, or is not, a failover: told at once.
    Why(oneshot::Sender<Vec<MasterWhy>>),
}

/// Runs the sentinel until `stop` is true.
pub async fn run(
    setup: Setup,
    view: watch::Receiver<Arc<View>>,
    orders: mpsc::Receiver<Order>,
    post: mpsc::Sender<Part>,
    journal: Journal,
    stop: watch::Receiver<bool>,
) -> Result<(), SentinelError> {
    let Setup { config, store, port, addresses, nodes, credentials, presence, door } = setup;
    let durable = match load(&store).await? {
        Some(durable) => durable,
        None => Durable::new(random_id().map_err(SentinelError::Random)?),
    };
    let listeners = addresses.iter().map(|address| server::listen(SocketAddr::new(*address, port)));
    let listeners = listeners.collect::<Result<_, _>>()?;
    let mut machine = Sentinel::new(config, durable, clock::now());
    let teller = Teller::new(port, door.config_file.as_deref(), door.acl_file.clone());
    machine = let_in(machine, door);
    let keep = Keep::Store(store);
    let admission = Admission::among_others(nodes, &journal);
    let port = Port { listeners, admission, teller };
    operate(machine, port, keep, (view, orders, post), Some((credentials, presence)), journal, stop).await;
    Ok(())
}

/// Puts the users in the place of the cluster's password, if there are any.
fn let_in(machine: Sentinel, door: Door) -> Sentinel {
    let Some(mut acl) = door.acl else { return machine };
    acl.has_file = door.acl_file.is_some();
    machine.with_access(Access::Acl(acl), door.protected)
}

/// What the other roles of the node say, order and hear.
type Node = (watch::Receiver<Arc<View>>, mpsc::Receiver<Order>, mpsc::Sender<Part>);

/// Where clients and sentinels come in.
struct Port {
    listeners: Vec<TcpListener>,
    admission: Admission,
    teller: Teller,
}

async fn operate(
    mut machine: Sentinel,
    port: Port,
    keep: Keep,
    (view, orders, post): Node,
    cluster: Option<(watch::Receiver<Arc<Credentials>>, Option<Presence>)>,
    journal: Journal,
    stop: watch::Receiver<bool>,
) {
    let Port { listeners, admission, teller } = port;
    let (inputs, first) = mpsc::channel(INPUTS_MAX);
    let (of_clients, second) = mpsc::channel(CLIENT_INPUTS_MAX);
    let clients = Clients::default();
    let waiting = Waiting::default();
    let (stopped_tx, stopped) = oneshot::channel();
    // Everything spawned here ends with this set.
    let mut tasks = JoinSet::new();
    let admission = Arc::new(admission);
    for listener in listeners {
        tasks.spawn(server::accept(listener, admission.clone(), clients.clone(), of_clients.clone(), journal.clone()));
    }
    drop(of_clients);
    tasks.spawn(watch_view(view, inputs.clone()));
    tasks.spawn(take_orders(orders, waiting.clone(), inputs.clone()));
    tasks.spawn(tell_stop(stop, inputs.clone()));
    let mut presence = None;
    if let Some((credentials, of_nodes)) = cluster {
        tasks.spawn(follow(credentials, inputs.clone()));
        presence = of_nodes;
    }
    let scripts = scripts::Runner::new(inputs.clone());
    let names = names::Resolver::new(inputs.clone());
    let links = Links::new(inputs.clone(), presence);
    tasks.spawn(clients.clone().tell_wrong_passwords(journal.clone()));
    let stopped_tx = Some(stopped_tx);
    let mut runner = Runner {
        links,
        clients,
        admission,
        teller,
        waiting,
        keep,
        scripts,
        names,
        post,
        journal,
        inputs,
        saving: None,
        stopped: stopped_tx,
    };
    tokio::select! {
        () = drive(&mut machine, Lanes { first, second }, &mut runner) => {}
        _ = stopped => {}
    }
    runner.links.leave(LEAVE_MAX).await;
    if let Some(saving) = runner.saving.take() {
        // What it says is for nobody any more.
        let _ = saving.await;
    }
}

async fn load(store: &Store<Durable>) -> Result<Option<Durable>, StoreError> {
    let store = store.clone();
    // A panic of the blocking task can only be one of `load`, and is passed on.
    spawn_blocking(move || store.load()).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn random_id() -> io::Result<RunId> {
    random::bytes().map(RunId)
}

/// Who is told of the end of an order.
#[derive(Debug)]
enum Done {
    Switch(oneshot::Sender<Result<FailoverReport, String>>),
    Said(oneshot::Sender<Result<String, String>>),
    Why(oneshot::Sender<Vec<MasterWhy>>),
}

/// Orders that wait for their end.
#[derive(Clone, Debug, Default)]
struct Waiting(Arc<std::sync::Mutex<BTreeMap<OrderId, Done>>>);

impl Waiting {
    fn put(&self, order: OrderId, done: Done) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(order, done);
    }

    fn take(&self, order: OrderId) -> Option<Done> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&order)
    }
}

async fn take_orders(mut orders: mpsc::Receiver<Order>, waiting: Waiting, inputs: mpsc::Sender<Input>) {
    let mut count = 0;
    while let Some(order) = orders.recv().await {
        count += 1;
        let (done, input) = match order {
            Order::Switch { to, done } => (Done::Switch(done), Input::Order(OrderId(count), to)),
            Order::Bootstrap(done) => (Done::Said(done), Input::Bootstrap(OrderId(count))),
            Order::Takeover { risks: true, done } => (Done::Said(done), Input::Risks(OrderId(count))),
            Order::Takeover { risks: false, done } => (Done::Said(done), Input::Takeover(OrderId(count))),
            Order::Why(done) => (Done::Why(done), Input::Why(OrderId(count))),
        };
        waiting.put(OrderId(count), done);
        if inputs.send(input).await.is_err() {
            return;
        }
    }
    // Nobody can order any more; the others go on.
    std::future::pending().await
}

async fn tell_stop(mut stop: watch::Receiver<bool>, inputs: mpsc::Sender<Input>) {
    // Whoever dropped the sending end wants the same.
    let _ = stop.wait_for(|stop| *stop).await;
    let _ = inputs.send(Input::Stop).await;
}

/// What the secrets of a cluster are to its sentinels.
pub fn renewal(credentials: &Credentials) -> Renewal {
    let logins = Logins { applications: credentials.password().clone(), cluster: credentials.own(Purpose::Sentinel) };
    Renewal { logins, auth_pass: credentials.own(Purpose::Control).current().clone() }
}

/// Tells of each change of the secrets.
async fn follow(mut credentials: watch::Receiver<Arc<Credentials>>, inputs: mpsc::Sender<Input>) {
    while credentials.changed().await.is_ok() {
        let renewed = Box::new(renewal(&credentials.borrow_and_update()));
        if inputs.send(Input::Renew(renewed)).await.is_err() {
            return;
        }
    }
}

/// Tells of every node whose facts have changed.
async fn watch_view(mut view: watch::Receiver<Arc<View>>, inputs: mpsc::Sender<Input>) {
    let mut news = News::default();
    loop {
        let now = view.borrow_and_update().clone();
        for facts in news.of(&now) {
            if inputs.send(Input::Facts(Box::new(facts))).await.is_err() {
                return;
            }
        }
        if view.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

struct Runner {
    links: Links,
    clients: Clients,
    admission: Arc<Admission>,
    teller: Teller,
    waiting: Waiting,
    keep: Keep,
    scripts: scripts::Runner<Input>,
    names: names::Resolver<Input>,
    post: mpsc::Sender<Part>,
    journal: Journal,
    inputs: mpsc::Sender<Input>,
    /// The store that is under way, or was the last one.
    saving: Option<JoinHandle<()>>,
    stopped: Option<oneshot::Sender<()>>,
}

impl Execute<Sentinel> for Runner {
    async fn execute(&mut self, output: Output) -> Flow<Input> {
        match output {
            Output::Connect { link, address, limit } => self.links.connect(link, address, limit),
            Output::Hangup(link) => self.links.hang_up(link),
            Output::Query { link, tag, args } => {
                if let Some(reason) = self.links.query(link, tag, args) {
                    return Flow::Feed(Input::LinkDown(link, reason));
                }
            }
            Output::Store(record) => self.save(record),
            Output::Respond(client, answer) => self.clients.respond(client, &answer),
            Output::Protocol(client, protocol) => self.clients.speak(client, protocol),
            Output::Dismiss(client) => self.clients.dismiss(client),
            Output::Kill(client) => self.clients.kill(client),
            Output::WrongPassword(client) => self.clients.wrong_password(client, &self.admission),
            Output::Ask(client, question) => {
                let fact = self.teller.tell(question, &self.clients.totals).await;
                return Flow::Feed(Input::Told(client, fact));
            }
            // Without a peer link nobody listens, and the sentinel works all the same.
            Output::Post(facts) => drop(self.post.send(Part::Sentinel(*facts)).await),
            Output::Fault(reason) => drop(self.post.send(Part::Fault { source: "sentinel", reason }).await),
            Output::Publish(event) => {
                let level = match event.severity {
                    Severity::Info => Level::Info,
                    Severity::Warn => Level::Warn,
                    Severity::Error => Level::Error,
                };
                self.journal.record("sentinel", level, event.name, event.payload);
                #[cfg(feature = "sabotage")]
                end_at(event.name);
            }
            Output::OrderDone(order, result) => {
                // Who ordered may have gone.
                if let Some(Done::Switch(done)) = self.waiting.take(order) {
                    let _ = done.send(result);
                }
            }
            Output::Said(order, result) => {
                if let Some(Done::Said(done)) = self.waiting.take(order) {
                    let _ = done.send(result);
                }
            }
            Output::Resolve(request) => self.names.ask(request),
            Output::Script(request) => self.scripts.request(request),
            Output::CheckScript(path) => {
                let executable = spawn_blocking({
                    let path = path.clone();
                    move || ThisHost.is_executable(path.as_ref())
                });
                return Flow::Feed(Input::ScriptChecked(path, executable.await.unwrap_or(false)));
            }
            // The core lets none through that is not known.
            Output::LogLevel(level) => drop(super::log::set_level(&level)),
            Output::Exit(code) => std::process::exit(i32::from(code)),
            Output::Why(order, why) => {
                if let Some(Done::Why(done)) = self.waiting.take(order) {
                    let _ = done.send(why);
                }
            }
            Output::Stopped => {
                if let Some(stopped) = self.stopped.take() {
                    let _ = stopped.send(());
                }
            }
        }
        Flow::Done
    }
}

/// Ends the process at an event, once, if a file of that name is in the directory that `VIGIE_END_AT` names: so a test ends
/// a leader between two steps that nobody could hit from outside.
#[cfg(feature = "sabotage")]
fn end_at(event: &str) {
    let Some(directory) = std::env::var_os("VIGIE_END_AT") else { return };
    if std::fs::remove_file(std::path::Path::new(&directory).join(event)).is_ok() {
        // By a signal that cannot be caught: nothing is tidied up.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

impl Runner {
    /// Everything else goes on meanwhile: a slow disk delays what has to be on it, and no judgement.
    fn save(&mut self, record: Record) {
        let save: Box<dyn FnOnce() -> Result<(), String> + Send> = match (&self.keep, record) {
            (Keep::Store(store), Record::Votes(durable)) => {
                let store = store.clone();
                Box::new(move || store.save(&durable).map_err(|error| error.to_string()))
            }
            (Keep::File(document), Record::Everything(state)) => {
                let document = document.clone();
                Box::new(move || file::save(&document, &state).map_err(|error| error.to_string()))
            }
            (Keep::Store(_), Record::Everything(_)) | (Keep::File(_), Record::Votes(_)) => {
                Box::new(|| Err("there is no place for such a record".to_owned()))
            }
        };
        let inputs = self.inputs.clone();
        self.saving = Some(tokio::spawn(async move {
            let saved = spawn_blocking(save).await.unwrap_or_else(|panic| Err(panic.to_string()));
            // At the end of the process nobody listens.
            let _ = inputs.send(Input::Stored(saved)).await;
        }));
    }
}
