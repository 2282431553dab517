//! The peer link: every node's small state, repeated to every other node.
//!
//! Owns the one table of what this node knows of the cluster, itself included: the [`View`].

mod core;
pub mod lease;
mod promises;
pub use self::core::{Cluster, Event, Input, Output};

use std::net::IpAddr;
use std::time::Duration;

use crate::base::census::{Named, majority};
use crate::base::lease::Writes;
use crate::base::node::{
    Decision, MasterFacts, Mode, NodeState, ProxyFacts, RedisFacts, Roles, SentinelFacts, VipFacts,
};
use crate::base::{Epoch, Instant, NodeName};
use crate::wire::frame::Keys;

/// What the link must know of the cluster file.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// Keys of the link.
    pub keys: Keys,
    /// This node's place in `peers`.
    pub me: usize,
    /// The roles this node really runs.
    pub roles: Roles,
    /// All nodes of the file, this one included.
    pub peers: Vec<Peer>,
    /// UDP port of the link, the same on every node.
    pub port: u16,
    /// What a sentinel of this file promises at a time; none: nothing, ever.
    pub lease: Option<Duration>,
    /// What it may have promised before it was started, at most.
    pub promised: Duration,
    /// Whether the file asks for leases. They are asked for by the masters of a fenced cluster, which the decision makes.
    pub fencing: bool,
    /// Random at each start.
    pub boot: u64,
    /// Seed of nonces and jitter, random at each start.
    pub seed: u64,
}

/// One node of the file.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub address: IpAddr,
    /// Its roles in the file.
    pub roles: Roles,
}

/// What this node knows of the whole cluster, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// When it was taken.
    pub at: Instant,
    /// This node's place in `nodes`.
    pub me: usize,
    /// All nodes of the file, in its order.
    pub nodes: Vec<NodeView>,
}

/// What this node knows of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its address in the file.
    pub address: IpAddr,
    /// Its roles in the file.
    pub roles: Roles,
    /// What it last said of itself; none if it was never heard.
    pub state: Option<NodeState>,
    /// Whether that is recent enough to be acted upon. Always true of this node itself.
    pub fresh: bool,
    /// When it last spoke.
    pub heard_at: Option<Instant>,
    /// When its next frame should have come, if none has come for twice as long as it should take.
    pub overdue_since: Option<Instant>,
    /// What was left of the lease that its redis held when it last spoke; zero: it held none.
    pub lease_left: Duration,
    /// Why it is not fresh, or what is wrong with its frames, in words for a person; empty if nothing is.
    pub fault: String,
}

impl NodeView {
    /// A node of the file, of which nothing is known.
    pub fn new(name: NodeName, address: IpAddr, roles: Roles) -> Self {
        let (lease_left, fault) = (Duration::ZERO, String::new());
        Self { name, address, roles, state: None, fresh: false, heard_at: None, overdue_since: None, lease_left, fault }
    }
}

impl View {
    /// This node itself.
    pub fn own(&self) -> &NodeView {
        &self.nodes[self.me]
    }

    /// The states that may be acted upon, this node's included.
    pub fn fresh(&self) -> impl Iterator<Item = (&NodeView, &NodeState)> {
        self.nodes.iter().filter(|node| node.fresh).filter_map(|node| Some((node, node.state.as_ref()?)))
    }

    /// How many sentinels the file names.
    pub fn voters(&self) -> usize {
        self.nodes.iter().filter(|node| node.roles.sentinel).count()
    }

    /// Whether so many of them are heard as make a majority, this node's own included.
    pub fn hears_majority(&self) -> bool {
        let speaks = |(node, state): &(&NodeView, &NodeState)| node.roles.sentinel && state.sentinel.is_some();
        self.fresh().filter(speaks).count() >= majority(self.voters())
    }

    /// The decision on the master of that name, of those that the sentinels heard know of; none: there is none yet, or a
    /// [conflict](Self::conflict).
    pub fn newest_decision(&self, name: &str) -> Option<Decision> {
        self.named(name).decision()
    }

    /// The epoch in which the sentinels heard name different masters, if it is the newest: none of them is to be believed.
    pub fn conflict(&self, name: &str) -> Option<Epoch> {
        self.named(name).conflict()
    }

    /// By what right the master of the newest decision takes writes. That it needs no lease is the word of a majority: an old build
    /// knows no other. That an operator gave it the writes is not: whoever was left to say so is no majority. None: there is no
    /// such majority, or no decision.
    pub fn mode(&self, name: &str) -> Option<Mode> {
        let decision = self.newest_decision(name)?;
        let says = |mode| {
            let ours = self.masters(name).filter(|master| master.decision == Some(decision));
            ours.filter(|master| master.mode == Some(mode)).count()
        };
        match (says(Mode::Fenced), says(Mode::TakenOver), says(Mode::Unfenced)) {
            (1.., _, _) => Some(Mode::Fenced),
            (0, 1.., _) => Some(Mode::TakenOver),
            (0, 0, unfenced) => (unfenced >= majority(self.voters())).then_some(Mode::Unfenced),
        }
    }

    fn named(&self, name: &str) -> Named {
        Named::by(self.masters(name).filter_map(|master| master.decision))
    }

    /// What the sentinels heard say of the master of that name.
    pub fn masters(&self, name: &str) -> impl Iterator<Item = &MasterFacts> {
        self.fresh().filter_map(move |(_, state)| state.sentinel.as_ref()?.master(name))
    }
}

/// What a role of this node says of itself: becomes part of this node's state, and of the next frame, which leaves at once
/// if anything changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The supervisor's word on its redis.
    Redis(RedisFacts),
    /// What it does with writes. It was [told](Output::Lease) of the lease by which it may take them.
    Writes(Writes),
    /// The sentinel.
    Sentinel(SentinelFacts),
    /// The proxy.
    Proxy(ProxyFacts),
    /// One virtual router.
    Vip(VipFacts),
    /// Something that keeps the node from its work, by the part that found it; none: mended. In words for a person.
    Fault {
        /// `redis`, `sentinel`, `proxy`, `vrrp`, `cluster`.
        source: &'static str,
        /// What is wrong.
        reason: Option<String>,
    },
}

#[cfg(test)]
mod tests;
