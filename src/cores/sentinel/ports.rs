//! What comes in and what goes out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::lease::FileTerms;
use crate::base::node::{RedisFacts, SentinelFacts};
use crate::base::{Epoch, Instant, NodeName};
use crate::wire::resp::{Protocol, Reply};

use super::{Durable, Event, Fact, LinkId, Question, Renewal, Sockets, State, Tag, names, scripts, why};

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
    /// A link asked for with [`Output::Connect`] is connected, from this address of the own host.
    LinkUp(LinkId, IpAddr),
    /// It could not be connected, or has ended; the reason in words. The link is gone.
    LinkDown(LinkId, String),
    /// The reply to the query with that tag; replies of one link come in the order of its queries.
    Reply(LinkId, Tag, Reply),
    /// A message on the hello channel of a redis.
    Message(LinkId, Bytes),
    /// A client has connected.
    ClientCame(ClientId, Sockets),
    /// A client is gone.
    ClientGone(ClientId),
    /// A client has sent what is no command; why in words. Nothing more comes from it.
    Garbage(ClientId, String),
    /// A client's command, at least one word.
    Command(ClientId, Vec<Bytes>),
    /// The answer to an [`Output::Ask`], before any other command of that client.
    Told(ClientId, Fact),
    /// What the peer link says of a node, whenever it changes.
    Facts(Box<NodeFacts>),
    /// What became of the last [`Output::Store`].
    Stored(Result<(), String>),
    /// Whether the file of an [`Output::CheckScript`] can be run; before any other input.
    ScriptChecked(String, bool),
    /// What becomes of a script.
    Script(scripts::Report),
    /// What a host name stands for.
    Resolved(names::Answer),
    /// The operator orders a switchover.
    Order(OrderId, Option<NodeName>),
    /// The operator asks why there is, or is not, a failover.
    Why(OrderId),
    /// The operator orders this sentinel to take over what all others have.
    Bootstrap(OrderId),
    /// The operator asks what a takeover at this node would risk.
    Risks(OrderId),
    /// The operator orders that the redis of this node takes writes without a majority.
    Takeover(OrderId),
    /// The secrets of the cluster were changed.
    Renew(Box<Renewal>),
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
    /// The epoch of the lease by which its redis takes writes; none: it holds none.
    pub lease: Option<Epoch>,
    /// The epoch of a lease that a majority has granted it, while its redis does not take writes.
    pub granted: Option<Epoch>,
    /// Whether it hears a majority of the sentinels.
    pub hears_majority: bool,
    /// What its file says.
    pub terms: FileTerms,
    /// Whether it is recent enough to be acted upon.
    pub fresh: bool,
    /// Since when more is to be heard of it, and is not.
    pub overdue_since: Option<Instant>,
}

impl NodeFacts {
    /// Of a cluster without leases.
    pub fn unfenced(node: NodeName, redis: Option<RedisFacts>, sentinel: Option<SentinelFacts>, fresh: bool) -> Self {
        Self {
            node,
            redis,
            sentinel,
            lease: None,
            granted: None,
            hears_majority: false,
            terms: FileTerms::Unknown,
            fresh,
            overdue_since: None,
        }
    }
}

impl From<names::Answer> for Input {
    fn from(answer: names::Answer) -> Self {
        Self::Resolved(answer)
    }
}

impl From<scripts::Report> for Input {
    fn from(report: scripts::Report) -> Self {
        Self::Script(report)
    }
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
    /// Put this on disk, and answer by [`Input::Stored`]. What must not be said before comes only then; everything else goes on
    /// meanwhile, and there is no second one before that answer.
    Store(Record),
    /// Answer a client, or send it a message it has subscribed to.
    Respond(ClientId, Answer),
    /// Answers to the client, from here on, are in that protocol.
    Protocol(ClientId, Protocol),
    /// Close the client's connection once it has what it was answered.
    Dismiss(ClientId),
    /// Close the client's connection at once.
    Kill(ClientId),
    /// The client has given a wrong password; the answer follows.
    WrongPassword(ClientId),
    /// A command of the client waits for a fact: to be fed as [`Input::Told`] before the next input.
    Ask(ClientId, Question),
    /// This sentinel's facts have changed.
    Post(Box<SentinelFacts>),
    /// What keeps the sentinel from its work has changed.
    Fault(Option<String>),
    /// An event, for the journal.
    Publish(Event),
    /// What became of an order.
    OrderDone(OrderId, Result<FailoverReport, String>),
    /// What became of an order that is answered in words, or why it was refused.
    Said(OrderId, Result<String, String>),
    /// Why there is, or is not, a failover.
    Why(OrderId, Vec<why::MasterWhy>),
    /// What was begun is undone: the process may leave.
    Stopped,
    /// Run a script, or kill it.
    Script(scripts::Request),
    /// Find out what a host name stands for; answered by [`Input::Resolved`].
    Resolve(names::Request),
    /// Look whether the file at that path exists and can be run.
    CheckScript(String),
    /// Log from that level on: `debug`, `verbose`, `notice`, `warning` or `nothing`.
    LogLevel(String),
    /// End the process at once with that code, as SENTINEL SIMULATE-FAILURE asked for.
    Exit(u8),
}

/// What is to be on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Of a sentinel of a cluster file, which is configured by that file.
    Votes(Durable),
    /// Of one that is configured by commands, too.
    Everything(Box<State>),
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Any reply.
    Reply(Reply),
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
