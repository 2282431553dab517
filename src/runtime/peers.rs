//! The peer link: its thread, and the watch through which every role of this node sees the cluster.
//!
//! Other nodes are told each 100 ms that this one lives, whatever its other threads wait for. So the link has a thread of its
//! own, real-time, which waits for no disk and for no log: events are written by a clerk. What it shares with others is locked for
//! moments only: **take a view out of the watch (`borrow().clone()`), rather than to work in a borrowed one**.

mod clerk;
mod ears;
mod liveness;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as Bound};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

use self::ears::Ears;
pub use self::liveness::Liveness;
use super::drive::{Execute, Flow, drive};
use super::fence::Renewals;
use super::journal::{Journal, Level};
use super::lines::Lines;
use super::realtime::Rank;
use crate::base::lease::Held;
use crate::base::node::Health;
use crate::base::{Credentials, Instant, NodeName};
use crate::cores::cluster::{Cluster, Config, Event, Input, Output, Part, View};
use crate::cores::redis::fence::Term;
use crate::runtime::clock;

/// Parts and questions that may wait; further parts wait with their senders.
const WAITING_MAX: usize = 256;
/// What the clerk still has to write when the link has ended is not waited for longer.
const CLERK_TIME: Duration = Duration::from_millis(200);

/// The link cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("peer link of {node}: cannot listen on UDP {address}: {source}{hint}")]
pub struct PeersError {
    node: NodeName,
    address: SocketAddr,
    source: io::Error,
    hint: &'static str,
}

/// What a person may have done.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; does another vigie run on this host?",
        io::ErrorKind::AddrNotAvailable => {
            "; this host does not have the node's address of the cluster file: is it that node, and its network up?"
        }
        _ => "",
    }
}

impl PeersError {
    /// Whether somebody else has the port: that may pass.
    pub fn in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// A link that listens, and its ends for the roles of this node.
#[derive(Debug)]
pub struct Peers {
    /// What this node knows of the cluster. A role that keeps it borrowed holds the link up.
    pub view: watch::Receiver<Arc<View>>,
    /// For the roles to speak of themselves.
    pub post: mpsc::Sender<Part>,
    /// For the roles to make sure of a node before they tell it a password.
    pub presence: Presence,
    /// For the thread of the roles to show that it runs.
    pub liveness: Liveness,
    /// The lease that the redis of this node has, or had last.
    pub lease: watch::Receiver<Option<Held>>,
    machine: Cluster,
    socket: Bound,
    /// Nothing waited in it then.
    bound_at: Instant,
    views: watch::Sender<Arc<View>>,
    leases: watch::Sender<Option<Held>>,
    renewals: Option<Renewals>,
    posted: mpsc::Receiver<Part>,
    reached: watch::Sender<Vec<Option<Instant>>>,
    asked: mpsc::Receiver<usize>,
}

/// A node has not shown that it is there.
#[derive(Debug, thiserror::Error)]
#[error("somebody answers at {address}, and the node does not show that it does")]
pub struct NotShown {
    address: SocketAddr,
}

/// Tells whether a node of the file is at its address, or somebody else.
#[derive(Clone, Debug)]
pub struct Presence {
    own: IpAddr,
    nodes: Arc<[IpAddr]>,
    /// Nodes that do not speak on the link.
    stock: Arc<[IpAddr]>,
    /// By place in the file: when that was sent which the node has heard last.
    reached: watch::Receiver<Vec<Option<Instant>>>,
    ask: mpsc::Sender<usize>,
}

impl Presence {
    /// The same, of a cluster that has stock sentinels at these addresses.
    pub fn beside(self, stock: &[IpAddr]) -> Self {
        Self { stock: stock.into(), ..self }
    }

    /// Waits until the node of this address has shown that it hears what is sent to it from now on; an error if it has not within
    /// `limit`. With a connection to that address open already, that shows that nobody had taken the address before. Done at
    /// once for this node itself, and for addresses of which the link knows nothing: those of no node, and of stock sentinels.
    pub async fn show(&mut self, address: SocketAddr, limit: Duration) -> Result<(), NotShown> {
        let ip = address.ip();
        let speaks = ip != self.own && !self.stock.contains(&ip);
        let Some(place) = self.nodes.iter().position(|node| *node == ip).filter(|_| speaks) else { return Ok(()) };
        let since = clock::now();
        // Full, or gone: the frames that are sent anyway show it, a little later, or nothing does.
        let _ = self.ask.try_send(place);
        let shown = self.reached.wait_for(|reached| reached[place].is_some_and(|sent| sent >= since));
        if tokio::time::timeout(limit, shown).await.is_ok_and(|shown| shown.is_ok()) {
            Ok(())
        } else {
            Err(NotShown { address })
        }
    }
}

impl Peers {
    /// Opens the link's socket.
    pub fn open(config: Config) -> Result<Self, PeersError> {
        let own = &config.peers[config.me];
        let address = SocketAddr::new(own.address, config.port);
        let fault = |source| PeersError { node: own.name.clone(), address, hint: hint(&source), source };
        let bound_at = clock::now();
        let socket = ears::bind(address).map_err(fault)?;
        let nodes: Arc<[IpAddr]> = config.peers.iter().map(|peer| peer.address).collect();
        let machine = Cluster::new(config, env!("CARGO_PKG_VERSION"), clock::now());
        let (views, view) = watch::channel(Arc::new(machine.view().clone()));
        let (leases, lease) = watch::channel(None);
        let (post, posted) = mpsc::channel(WAITING_MAX);
        let (reached, seen) = watch::channel(vec![None; nodes.len()]);
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        let presence = Presence { own: address.ip(), nodes, stock: Arc::default(), reached: seen, ask };
        let liveness = Liveness::new();
        Ok(Self {
            view,
            post,
            presence,
            liveness,
            lease,
            machine,
            socket,
            bound_at,
            views,
            leases,
            renewals: None,
            posted,
            reached,
            asked,
        })
    }

    /// The same, of a node whose redis has a fence: it is told of every renewal of the lease by the link itself.
    pub fn renewing(self, renewals: Renewals) -> Self {
        Self { renewals: Some(renewals), ..self }
    }

    /// Runs the link in a thread of its own until `stop` says so; what was posted before that is still said.
    pub fn spawn(
        self,
        credentials: watch::Receiver<Arc<Credentials>>,
        journal: Journal,
        stop: watch::Receiver<bool>,
    ) -> io::Result<LinkThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (lines, clerk) = clerk::start(journal)?;
        let link = {
            let _inside = runtime.enter();
            self.attend(credentials, stop, lines)?
        };
        let (here, ended) = oneshot::channel();
        let work = move || {
            link.executor.lines.raise(Rank::Link);
            runtime.block_on(link.run());
            drop(here);
        };
        std::thread::Builder::new().name("vigie-link".to_owned()).spawn(work)?;
        Ok(LinkThread { ended, clerk })
    }

    /// The same, in the thread of the caller, which needs a tokio runtime.
    pub async fn run(
        self,
        credentials: watch::Receiver<Arc<Credentials>>,
        journal: Journal,
        stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let (lines, clerk) = clerk::start(journal)?;
        self.attend(credentials, stop, lines)?.run().await;
        written(clerk).await;
        Ok(())
    }

    fn attend(
        self,
        credentials: watch::Receiver<Arc<Credentials>>,
        stop: watch::Receiver<bool>,
        lines: Lines,
    ) -> io::Result<Attended> {
        // Without its own ends, so that it sees when the roles have let go of theirs.
        let Self { liveness, machine, socket, bound_at, views, leases, renewals, posted, reached, asked, .. } = self;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let ears = Ears::new((posted, asked), credentials, stop, (Arc::clone(&socket), bound_at));
        let executor = Executor { socket, liveness, views, leases, renewals, reached, lines };
        Ok(Attended { machine, ears, executor })
    }
}

/// The thread of a link.
#[derive(Debug)]
pub struct LinkThread {
    ended: oneshot::Receiver<()>,
    clerk: oneshot::Receiver<()>,
}

impl LinkThread {
    /// Waits until the link has ended, and what it had to tell is in the journal, unless that hangs.
    pub async fn ended(self) {
        // Nothing is ever sent: the channel closes with the thread.
        let _ = self.ended.await;
        written(self.clerk).await;
    }
}

async fn written(clerk: oneshot::Receiver<()>) {
    let _ = tokio::time::timeout(CLERK_TIME, clerk).await;
}

/// A link with all that it needs to run.
#[derive(Debug)]
struct Attended {
    machine: Cluster,
    ears: Ears,
    executor: Executor,
}

impl Attended {
    async fn run(self) {
        let Self { mut machine, ears, mut executor } = self;
        drive(&mut machine, ears, &mut executor).await;
    }
}

#[derive(Debug)]
struct Executor {
    socket: Arc<UdpSocket>,
    liveness: Liveness,
    views: watch::Sender<Arc<View>>,
    leases: watch::Sender<Option<Held>>,
    /// Of the fence of this node's redis.
    renewals: Option<Renewals>,
    reached: watch::Sender<Vec<Option<Instant>>>,
    lines: Lines,
}

impl Execute<Cluster> for Executor {
    async fn execute(&mut self, output: Output) -> Flow<Input> {
        match output {
            // Not sent (no route, a full queue): the next frame repeats it.
            Output::Send { to, bytes } if self.liveness.lasts() => drop(ears::send(&self.socket, &bytes, to)),
            // The others find this node silent, which it is but for this thread.
            Output::Send { .. } => {}
            Output::View(view) => drop(self.views.send_replace(Arc::new(*view))),
            Output::Lease(held) => {
                // The fence first: what the others are told of the lease holds for it, too.
                if let Some(renewals) = &mut self.renewals {
                    renewals.renew(held.map(Term::from));
                }
                self.leases.send_replace(held);
            }
            Output::Reached { node, sent } => self.reached.send_modify(|reached| {
                reached[node] = reached[node].max(Some(sent));
            }),
            Output::Publish(event) => {
                let level = match &event {
                    Event::PeerUp(_) | Event::PeerHealth(_, Health::Good) => Level::Info,
                    Event::PeerDown(_) | Event::PeerRestarted(_) | Event::PeerHealth(_, Health::Bad(_)) => Level::Warn,
                    Event::Refused { .. } | Event::Unsent(_) => Level::Error,
                };
                self.lines.put(level, event.name(), event.to_string());
            }
        }
        Flow::Done
    }
}
