//! The peer link's socket, and the watch through which every role of this node sees the cluster.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::drive::{Execute, Flow, Inputs, drive};
use super::journal::{Journal, Level};
use crate::base::node::Health;
use crate::base::{Credentials, Instant, NodeName, Purpose};
use crate::cores::cluster::{Cluster, Config, Event, Input, Output, Part, View};
use crate::runtime::clock;
use crate::wire::frame::Keys;

/// Datagrams and parts that may wait; what does not fit is dropped (datagrams) or waits (parts).
const WAITING_MAX: usize = 256;
/// One byte more than the longest frame, so that a longer one is seen to be too long.
const DATAGRAM_MAX: usize = crate::wire::frame::FRAME_MAX + 1;

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
    /// What this node knows of the cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// For the roles to speak of themselves.
    pub post: mpsc::Sender<Part>,
    /// For the roles to make sure of a node before they tell it a password.
    pub presence: Presence,
    machine: Cluster,
    socket: Arc<UdpSocket>,
    views: watch::Sender<Arc<View>>,
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
    /// Opens the link's socket. Needs a tokio runtime.
    pub fn open(config: Config) -> Result<Self, PeersError> {
        let own = &config.peers[config.me];
        let address = SocketAddr::new(own.address, config.port);
        let fault = |source| PeersError { node: own.name.clone(), address, hint: hint(&source), source };
        let socket = bind(address).map_err(fault)?;
        let nodes: Arc<[IpAddr]> = config.peers.iter().map(|peer| peer.address).collect();
        let machine = Cluster::new(config, env!("CARGO_PKG_VERSION"), clock::now());
        let (views, view) = watch::channel(Arc::new(machine.view().clone()));
        let (post, posted) = mpsc::channel(WAITING_MAX);
        let (reached, seen) = watch::channel(vec![None; nodes.len()]);
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        let presence = Presence { own: address.ip(), nodes, stock: Arc::default(), reached: seen, ask };
        Ok(Self { view, post, presence, machine, socket: Arc::new(socket), views, posted, reached, asked })
    }

    /// Runs the link until `stop` says so; the caller still sends its last words through `post` before.
    pub async fn run(
        self,
        credentials: watch::Receiver<Arc<Credentials>>,
        journal: Journal,
        mut stop: watch::Receiver<bool>,
    ) {
        let Self { view: _, post, presence, mut machine, socket, views, mut posted, reached, mut asked } = self;
        drop((post, presence));
        let (inputs, told) = mpsc::channel(WAITING_MAX);
        let keys = follow(credentials, inputs.clone());
        let askers = inputs.clone();
        let asks = async move {
            while let Some(place) = asked.recv().await {
                if askers.send(Input::Prove(place)).await.is_err() {
                    return;
                }
            }
        };
        let parts = async move {
            while let Some(part) = posted.recv().await {
                if inputs.send(Input::Part(part)).await.is_err() {
                    return;
                }
            }
        };
        let ears = Ears { told, socket: Arc::clone(&socket), data: Box::new([0; DATAGRAM_MAX]) };
        let mut executor = Executor { socket, views, reached, journal };
        tokio::select! {
            () = drive(&mut machine, ears, &mut executor) => {}
            () = keys => {}
            () = async { tokio::join!(parts, asks, std::future::pending::<()>()); } => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// What the link is told, and its socket. Nothing stands between the socket and the machine: a datagram is dated when it is
/// read, and none lies unread when a node is found silent.
struct Ears {
    told: mpsc::Receiver<Input>,
    socket: Arc<UdpSocket>,
    data: Box<[u8; DATAGRAM_MAX]>,
}

impl Inputs<Input> for Ears {
    async fn next(&mut self) -> Option<Input> {
        loop {
            let received = tokio::select! {
                biased;
                told = self.told.recv() => return told,
                received = self.socket.recv_from(self.data.as_mut_slice()) => received,
            };
            // An error is about an earlier datagram of ours that nobody took (ICMP): the next one may be taken.
            if let Ok((length, from)) = received {
                return Some(Input::Datagram { from, at: clock::now(), bytes: self.data[..length].into() });
            }
        }
    }

    fn waiting(&mut self) -> Option<Input> {
        if let Ok(told) = self.told.try_recv() {
            return Some(told);
        }
        loop {
            match self.socket.try_recv_from(self.data.as_mut_slice()) {
                Ok((length, from)) => {
                    return Some(Input::Datagram { from, at: clock::now(), bytes: self.data[..length].into() });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // About an earlier datagram of ours, as above.
                Err(_) => {}
            }
        }
    }
}

/// Tells of each change of the secret.
async fn follow(mut credentials: watch::Receiver<Arc<Credentials>>, inputs: mpsc::Sender<Input>) {
    while credentials.changed().await.is_ok() {
        let keys = Keys::new(&credentials.borrow_and_update().own(Purpose::Link));
        if inputs.send(Input::Keys(keys)).await.is_err() {
            return;
        }
    }
    // Nobody can change it any more; the link goes on.
    std::future::pending().await
}

#[derive(Debug)]
struct Executor {
    socket: Arc<UdpSocket>,
    views: watch::Sender<Arc<View>>,
    reached: watch::Sender<Vec<Option<Instant>>>,
    journal: Journal,
}

impl Execute<Cluster> for Executor {
    async fn execute(&mut self, output: Output) -> Flow<Input> {
        match output {
            // Not sent (no route, a full queue): the next frame repeats it.
            Output::Send { to, bytes } => drop(self.socket.try_send_to(&bytes, to)),
            Output::View(view) => drop(self.views.send_replace(Arc::new(*view))),
            Output::Reached { node, sent } => self.reached.send_modify(|reached| {
                reached[node] = reached[node].max(Some(sent));
            }),
            Output::Publish(event) => {
                let level = match &event {
                    Event::PeerUp(_) | Event::PeerHealth(_, Health::Good) => Level::Info,
                    Event::PeerDown(_) | Event::PeerRestarted(_) | Event::PeerHealth(_, Health::Bad(_)) => Level::Warn,
                    Event::Refused { .. } => Level::Error,
                };
                self.journal.record("cluster", level, event.name(), event.to_string());
            }
        }
        Flow::Done
    }
}
