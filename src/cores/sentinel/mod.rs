//! The sentinel: finds out whether a master is down, agrees with the other sentinels on it, and replaces it.
//!
//! Speaks the protocol of redis-sentinel (hello, votes by `SENTINEL IS-MASTER-DOWN-BY-ADDR`, events, commands), so that
//! stock sentinels can be among the voters. Where the peers are vigie it is faster, because facts travel by the peer link:
//! the word of a supervisor that its process is dead is proof, everything else is silence and has to last `down_after`.
//!
//! ```text
//!             down by quorum, nobody leads                 majority and quorum of votes
//!  Idle ────────────────► Waiting ──► Electing ───────────────────┬─────────────────────┐
//!   ▲ ▲                      │            │ not elected           │ crash, bootstrap    │ ordered, master lives
//!   │ └──────────────────────┴────────────┘                       ▼                     ▼
//!   │  a vote for another: Following ─► Idle                  Selecting             Pausing ─► Catching
//!   │                                                             └─────► Promoting ◄─────────────┘
//!   └──────────────────────── Reconfiguring ◄─────────────────────────────────┘ decision stored, posted, published
//! ```
//! What promises something to others (votes, questions for votes, decisions, posted facts) stands behind a
//! [`Output::Store`] in the same batch whenever durable state has changed, and is lost with it if that fails.
//!
//! Only the set of sentinels in the file votes. Who the voters are is configuration; their run ids are learned.

mod command;
mod durable;
mod event;
mod failover;
mod glob;
mod heal;
mod instance;
mod monitor;
mod promote;
mod quorum;
mod render;
mod sabotage;
mod select;
mod state;
mod switchover;

pub use durable::{Durable, DurableMaster};
pub use event::{Event, Severity};
pub use instance::LinkId;
pub use monitor::Tag;
pub use sabotage::Rule;
pub use select::Rejection;
pub use state::{DOWN_AFTER, FAILOVER_TIMEOUT, KnownSentinel, MasterState, Place, Settings, State};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Epoch, Instant, Machine, NodeName, Rng, RunId, Secret};
use crate::wire::frame::{RedisFacts, SentinelFacts};
use crate::wire::resp::Reply;

use failover::{Cause, Failover};
use instance::{Instance, Peer};
use sabotage::Rules;

/// A turn that comes so much later than it should means that this process was not running: all silence it measured is its
/// own.
const LATE_TURN_MAX: Duration = Duration::from_secs(1);
/// Most data nodes of one master beyond those of the file: whoever may attach replicas must not fill the memory.
const EXTRA_NODES_MAX: usize = 64;
/// How soon a failed store is tried again.
const STORE_RETRY: Duration = Duration::from_millis(250);

/// What a sentinel has to know; all of it from the cluster file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub me: NodeName,
    /// All sentinels of the file, this one among them, in the order of the file. A majority is one of these.
    pub voters: Vec<Voter>,
    /// The masters to watch, 1 to 4.
    pub masters: Vec<MasterConfig>,
    /// Password of redis and of the sentinels; none: they have none.
    pub password: Option<Secret>,
    /// Addresses of all nodes of the file: from there commands that change state need no password.
    pub trusted: Vec<IpAddr>,
    /// Where jitter comes from.
    pub seed: u64,
}

/// One sentinel of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its node.
    pub name: NodeName,
    /// Where its port for clients and sentinels is.
    pub address: SocketAddr,
}

/// One watched master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterConfig {
    /// The name that clients ask for, at most 32 bytes.
    pub name: String,
    /// Sentinels that must agree that it is down, 1 to the number of voters.
    pub quorum: u32,
    /// Silence before it is suspected.
    pub down_after: Duration,
    /// Silence before it is suspected while its own supervisor says that it is alive and busy.
    pub busy_grace: Duration,
    /// Longest duration of each phase of a failover.
    pub failover_timeout: Duration,
    /// Replicas re-pointed at once after a failover, at least 1.
    pub parallel_syncs: u32,
    /// The data nodes of the file.
    pub nodes: Vec<DataNode>,
}

/// One redis of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataNode {
    /// Its node.
    pub name: NodeName,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Whether it becomes the first master of a cluster without any record of one.
    pub bootstrap: bool,
}

/// A connection of a client, named by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// An order of the operator, named by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// What comes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Only time has passed.
    Tick,
    /// A link asked for with [`Output::Connect`] is connected.
    LinkUp(LinkId),
    /// It could not be connected, or has ended; the reason in words. The link is gone.
    LinkDown(LinkId, String),
    /// The reply to the query with that tag; replies of one link come in the order of its queries.
    Reply(LinkId, Tag, Reply),
    /// A message on the hello channel of a redis.
    Message(LinkId, Bytes),
    /// A client has connected from that address.
    ClientCame(ClientId, IpAddr),
    /// A client is gone.
    ClientGone(ClientId),
    /// A client has sent what is no command; why in words. Nothing more comes from it.
    Garbage(ClientId, String),
    /// A client's command, at least one word.
    Command(ClientId, Vec<Bytes>),
    /// What the peer link says of a node, whenever it changes.
    Facts(Box<NodeFacts>),
    /// What became of the last [`Output::Store`]. Success need not be said.
    Stored(Result<(), String>),
    /// The operator orders a switchover.
    Order(OrderId, Option<NodeName>),
    /// The process is about to leave: an ordered switchover is undone.
    Stop,
}

/// What the peer link says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub node: NodeName,
    /// Its supervisor's word on its redis.
    pub redis: Option<RedisFacts>,
    /// Its sentinel's word.
    pub sentinel: Option<SentinelFacts>,
    /// Whether it is recent enough to be acted upon.
    pub fresh: bool,
}

/// What goes out, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a link; answered by [`Input::LinkUp`] or [`Input::LinkDown`] within `limit`.
    Connect {
        /// Its name, never used before.
        link: LinkId,
        /// Where to.
        address: SocketAddr,
        /// How long to try.
        limit: Duration,
    },
    /// Close a link. Nothing is heard of it any more.
    Hangup(LinkId),
    /// Send a command.
    Query {
        /// Where.
        link: LinkId,
        /// What to call its reply.
        tag: Tag,
        /// Its words.
        args: Vec<Bytes>,
    },
    /// FENCE: nothing behind it in the batch happens unless this is on disk.
    Store(Durable),
    /// Answer a client, or send it a message it has subscribed to.
    Respond(ClientId, Answer),
    /// Close the client's connection once it has what it was answered.
    Dismiss(ClientId),
    /// This sentinel's facts have changed.
    Post(Box<SentinelFacts>),
    /// What keeps the sentinel from its work has changed.
    Fault(Option<String>),
    /// An event, for the journal.
    Publish(Event),
    /// What became of an order.
    OrderDone(OrderId, Result<FailoverReport, String>),
    /// What was begun is undone: the process may leave.
    Stopped,
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Any reply.
    Reply(Reply),
    /// The null array of RESP2, which is not the null of strings.
    NullArray,
    /// Several replies to one command, as of SUBSCRIBE.
    Many(Vec<Reply>),
}

/// What a switchover did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverReport {
    /// The master before.
    pub from: SocketAddr,
    /// Its node, if it is one of the file.
    pub from_node: Option<NodeName>,
    /// The master now.
    pub to: SocketAddr,
    /// Its node, if it is one of the file.
    pub to_node: Option<NodeName>,
    /// The epoch of the decision.
    pub epoch: Epoch,
    /// How long writes were held; none if the old master could not be asked to hold them.
    pub pause: Option<Duration>,
}

/// The machine.
#[derive(Debug)]
pub struct Sentinel {
    config: Config,
    durable: Durable,
    /// Whether `durable` has changed since it was last given to the store.
    dirty: bool,
    /// Set while the store fails: when to try again.
    store_retry_at: Option<Instant>,
    rng: Rng,
    started_at: Instant,
    masters: Vec<Master>,
    /// All voters but this one.
    peers: Vec<Peer>,
    clients: BTreeMap<ClientId, command::Client>,
    links_made: u32,
    posted: Option<SentinelFacts>,
    fault: Option<String>,
    /// Clients whose answers stand behind the fence of this turn.
    promised: Vec<ClientId>,
    /// Outputs of this turn that promise nothing.
    free: Vec<Output>,
    /// Outputs of this turn that must not happen unless the durable state is on disk.
    fenced: Vec<Output>,
    /// When to wake, gathered during a turn.
    wake: Option<Instant>,
    deadline: Option<Instant>,
    rules: Rules,
}

/// One watched master and its replicas.
#[derive(Debug)]
struct Master {
    config: MasterConfig,
    /// Those of the file, in its order, and behind them those found out.
    nodes: Vec<Instance>,
    failover: Failover,
    /// Since when a quorum finds it down.
    odown_since: Option<Instant>,
    /// When the decision became known to this process.
    decided_at: Instant,
    /// When it was last asked of the peers whether it is down.
    asked_at: Option<Instant>,
    hello_due: Instant,
    /// Lineage of the data of the master at that address, as it last said while it was master.
    lineage: Option<(SocketAddr, RunId)>,
    /// Why nobody can be promoted, as last published.
    no_candidate: Option<String>,
}

impl Sentinel {
    /// A sentinel at its start. `durable` is what was stored last, or [`Durable::new`] with a new random id.
    pub fn new(config: Config, durable: Durable, now: Instant) -> Self {
        let peers = config.voters.iter().filter(|voter| voter.name != config.me);
        let mut peers: Vec<Peer> = peers.map(|voter| Peer::new(voter.clone(), config.masters.len(), now)).collect();
        for peer in &mut peers {
            peer.id = durable.sentinel(&peer.voter.name);
        }
        let durable = durable.for_masters(config.masters.iter().map(|master| master.name.as_str()));
        let masters = config.masters.iter().map(|master| Master::new(master.clone(), now)).collect();
        let mut sentinel = Self {
            rng: Rng::new(config.seed),
            config,
            durable,
            // The id itself has to be on disk before anybody hears of it.
            dirty: true,
            store_retry_at: None,
            started_at: now,
            masters,
            peers,
            clients: BTreeMap::new(),
            links_made: 0,
            posted: None,
            fault: None,
            promised: Vec::new(),
            free: Vec::new(),
            fenced: Vec::new(),
            wake: None,
            deadline: Some(now),
            rules: Rules::default(),
        };
        for m in 0..sentinel.masters.len() {
            sentinel.index_of(m, sentinel.monitored(m), now);
            sentinel.publish_monitor(m);
        }
        sentinel
    }

    /// Sentinels that make a majority of the file's.
    fn majority(&self) -> usize {
        self.config.voters.len() / 2 + 1
    }

    /// Whether the authentic frames of a majority, this one included, come in: then this node's password is the cluster's.
    fn hears_majority(&self) -> bool {
        self.peers.iter().filter(|peer| peer.fresh_facts().is_some()).count() + 1 >= self.majority()
    }

    /// Whether this node has another password than the cluster: most redis refuse it, and most sentinels are not heard. It
    /// must not lead: it could promote nobody but its own redis.
    fn shut_out(&self, m: usize) -> bool {
        let nodes = &self.masters[m].nodes;
        !self.hears_majority() && nodes.iter().filter(|node| node.auth_failed).count() * 2 >= nodes.len()
    }

    fn me(&self) -> RunId {
        self.durable.id
    }

    /// The address this sentinel is reached at by the file.
    fn address(&self) -> Option<SocketAddr> {
        self.config.voters.iter().find(|voter| voter.name == self.config.me).map(|voter| voter.address)
    }

    /// The address under which master `m` is watched: that of the decision, else where the first one will be.
    fn monitored(&self, m: usize) -> SocketAddr {
        let nodes = &self.masters[m].config.nodes;
        let first = nodes.iter().find(|node| node.bootstrap).or_else(|| nodes.first()).map(|node| node.address);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        self.durable.decision(m).map_or_else(|| first.unwrap_or(unknown), |decision| decision.master)
    }

    /// The place of the instance at `address`, made if there is none and room for it; else of the watched master.
    fn index_of(&mut self, m: usize, address: SocketAddr, now: Instant) -> usize {
        let master = &mut self.masters[m];
        if let Some(at) = master.nodes.iter().position(|node| node.address == address) {
            return at;
        }
        master.nodes.push(Instance::new(address, None, now));
        master.nodes.len() - 1
    }

    /// The place of the watched master.
    fn master_at(&self, m: usize) -> usize {
        let address = self.monitored(m);
        self.masters[m].nodes.iter().position(|node| node.address == address).unwrap_or(0)
    }

    /// Asks for a turn at `at`.
    fn wake_at(&mut self, at: Instant) {
        self.wake = crate::base::time::earliest(self.wake, Some(at));
    }

    fn take_in(&mut self, now: Instant, input: Input) {
        match input {
            Input::Tick => {}
            Input::LinkUp(link) => self.link_up(link, now),
            Input::LinkDown(link, reason) => self.link_down(link, &reason, now),
            Input::Reply(link, tag, reply) => self.reply(link, tag, &reply, now),
            Input::Message(link, payload) => self.hello_heard(link, &payload, now),
            Input::ClientCame(client, address) => self.client_came(client, address),
            Input::ClientGone(client) => self.client_gone(client),
            Input::Garbage(client, why) => {
                // Behind the answers to what came before it.
                let error = Reply::Error(format!("ERR Protocol error: {why}"));
                self.free.push(Output::Respond(client, Answer::Reply(error)));
            }
            Input::Command(client, args) => self.command(client, &args, now),
            Input::Facts(facts) => self.facts(*facts, now),
            Input::Stored(Ok(())) => self.stored(),
            Input::Stored(Err(reason)) => self.store_failed(&reason, now),
            Input::Order(order, to) => self.order(order, to.as_ref(), now),
            Input::Stop => self.stop(now),
        }
    }

    /// Everything that follows from what is known and what time it is.
    fn turn(&mut self, now: Instant) {
        for p in 0..self.peers.len() {
            self.tend_peer(p, now);
        }
        for m in 0..self.masters.len() {
            for n in 0..self.masters[m].nodes.len() {
                self.tend_node(m, n, now);
                self.judge(m, n, now);
            }
            self.adopt_first(m, now);
            self.judge_quorum(m, now);
            self.say_hello_if_due(m, now);
            self.failover(m, now);
            self.ask_peers(m, now);
            self.heal(m, now);
        }
        self.tell_fault();
        self.post(now);
    }

    /// Puts the outputs of the turn in their order: what promises nothing, the fence, what stands behind it.
    fn flush(&mut self, out: &mut Vec<Output>) {
        let promises = !self.fenced.is_empty();
        out.append(&mut self.free);
        if !self.rules.holds(Rule::StoreFirst) {
            out.append(&mut self.fenced);
        }
        if self.dirty && promises {
            self.dirty = false;
            out.push(Output::Store(self.durable.clone()));
        } else {
            self.promised.clear();
        }
        out.append(&mut self.fenced);
    }

    /// The process was not running: what looked like silence of others was its own.
    fn was_paused(&mut self, now: Instant) {
        for master in &mut self.masters {
            master.nodes.iter_mut().for_each(|node| node.restart_silence(now));
        }
        self.peers.iter_mut().for_each(|peer| peer.restart_silence(now));
        for m in 0..self.masters.len() {
            self.abort_if_early(m, now, "this sentinel was paused");
        }
        self.publish(Event::new("paused", Severity::Warn, "this process did not run for more than 1 s".to_owned()));
    }

    fn stored(&mut self) {
        if self.store_retry_at.take().is_some() {
            self.publish(Event::new("store-works", Severity::Info, "state can be stored again".to_owned()));
        }
    }

    /// Everything behind the fence was thrown away: nobody has heard of it.
    fn store_failed(&mut self, reason: &str, now: Instant) {
        self.dirty = true;
        if self.store_retry_at.is_none() {
            let text = format!("no vote is given and no failover led: {reason}");
            self.publish(Event::new("store-failed", Severity::Error, text));
        }
        self.store_retry_at = Some(now + STORE_RETRY);
        self.posted = None;
        for client in std::mem::take(&mut self.promised) {
            let refusal = "ERR the vote is refused: it cannot be stored".to_owned();
            self.free.push(Output::Respond(client, Answer::Reply(Reply::Error(refusal))));
        }
        for m in 0..self.masters.len() {
            self.abort_if_electing(m, now);
        }
    }

    fn tell_fault(&mut self) {
        let fault = match self.store_retry_at {
            Some(_) => Some("the sentinel cannot store its state: it gives no votes".to_owned()),
            None => {
                let agreed = self.hears_majority();
                self.masters.iter().find_map(|master| password_fault(&master.nodes, agreed))
            }
        };
        if fault != self.fault {
            self.fault.clone_from(&fault);
            self.free.push(Output::Fault(fault));
        }
    }
}

/// Whose password is the wrong one: this node's, unless most sentinels have the same (`agreed`). A node that the peer link
/// shuts out for its password is shown to be at fault itself.
fn password_fault(nodes: &[Instance], agreed: bool) -> Option<String> {
    let refusing = || nodes.iter().filter(|node| node.auth_failed);
    let names = |nodes: Vec<&Instance>| nodes.iter().map(|node| node.label()).collect::<Vec<_>>().join(", ");
    if agreed {
        let heard: Vec<_> = refusing().filter(|node| node.fresh || node.node.is_none()).collect();
        return (!heard.is_empty()).then(|| format!("redis does not take the cluster's password: {}", names(heard)));
    }
    let all: Vec<_> = refusing().collect();
    (!all.is_empty())
        .then(|| format!("the password of this node is not that of others: refused by the redis of {}", names(all)))
}

/// How long a sentinel without a record listens to the others before it believes that there is none.
fn hello_wait(peers: usize) -> Duration {
    if peers == 0 { Duration::ZERO } else { Duration::from_secs(1) }
}

impl Machine for Sentinel {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        self.wake = None;
        if self.deadline.is_some_and(|deadline| now > deadline + LATE_TURN_MAX) {
            self.was_paused(now);
        }
        self.take_in(now, input);
        self.turn(now);
        self.flush(out);
        // A rule that asks for this very moment again has to wait a little: a tick must move the deadline.
        let soonest = now + Duration::from_millis(1);
        self.deadline = self.wake.map(|wake| wake.max(soonest));
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Master {
    fn new(config: MasterConfig, now: Instant) -> Self {
        let nodes = config.nodes.iter().map(|node| Instance::new(node.address, Some(node.name.clone()), now)).collect();
        Self {
            config,
            nodes,
            failover: Failover::Idle { not_before: now },
            odown_since: None,
            decided_at: now,
            asked_at: None,
            hello_due: now,
            lineage: None,
            no_candidate: None,
        }
    }

    /// The voter's share of a failover it leads: its epoch.
    fn leads(&self) -> Option<Epoch> {
        self.failover.leads()
    }

    /// Whether a failover that it leads was ordered by a person.
    fn cause(&self) -> Option<&Cause> {
        self.failover.cause()
    }
}

#[cfg(test)]
mod tests;
