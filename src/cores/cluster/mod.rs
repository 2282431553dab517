//! The peer link: every node's small state, repeated to every other node.
//!
//! Owns the one table of what this node knows of the cluster, itself included: the [`View`].

mod core;
pub use self::core::{Cluster, Config, Event, Input, Output, Peer};

use std::net::IpAddr;

use crate::base::node::{NodeState, ProxyFacts, RedisFacts, Roles, SentinelFacts, VipFacts};
use crate::base::{Instant, NodeName};

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
    /// Why it is not fresh, or what is wrong with its frames, in words for a person; empty if nothing is.
    pub fault: String,
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
}

/// What a role of this node says of itself: becomes part of this node's state, and of the next frame, which leaves at once
/// if anything changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The supervisor's word on its redis.
    Redis(RedisFacts),
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
