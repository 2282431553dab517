//! The agreement as the server may see it: to be read, by the names of masters and never by their places.

use std::net::SocketAddr;

use crate::base::node::Decision;
use crate::base::{Instant, Place, RunId};
use crate::wire::info::Info;

use super::durable::OnDisk;
use super::instance::Instance;
use super::master::Master;
use super::peer::Peer;
use super::sabotage::Rule;
use super::scripts::Scripts;
use super::{Agreement, MasterConfig, MasterId, Settings, Simulated, Timers};

/// All of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a>(&'a Agreement);

/// One watched master.
#[derive(Clone, Copy, Debug)]
pub(super) struct MasterView<'a> {
    all: &'a Agreement,
    m: usize,
}

/// One redis of a master.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeView<'a> {
    of: MasterView<'a>,
    n: usize,
}

impl Agreement {
    pub(super) fn view(&self) -> View<'_> {
        View(self)
    }
}

impl<'a> View<'a> {
    /// The id of this sentinel.
    pub(super) fn id(self) -> RunId {
        self.0.me()
    }

    pub(super) fn started_at(self) -> Instant {
        self.0.started_at
    }

    pub(super) fn settings(self) -> &'a Settings {
        &self.0.settings
    }

    pub(super) fn timers(self) -> &'a Timers {
        &self.0.timers
    }

    pub(super) fn simulated(self) -> Simulated {
        self.0.simulated
    }

    pub(super) fn scripts(self) -> &'a Scripts {
        &self.0.scripts
    }

    /// Whether what is watched, and how, is in a cluster file.
    pub(super) fn is_of_cluster(self) -> bool {
        self.0.of_cluster()
    }

    pub(super) fn holds(self, rule: Rule) -> bool {
        self.0.rules.holds(rule)
    }

    /// The address of a place, if it is one or its name is known.
    pub(super) fn address_of(self, place: &Place) -> Option<SocketAddr> {
        self.0.address_of(place)
    }

    /// A host as clients are told: by its name if that is wanted and there is one.
    pub(super) fn told_host(self, name: Option<&str>, address: SocketAddr) -> String {
        self.0.told_host(name, address)
    }

    /// The watched masters, in their order.
    pub(super) fn masters(self) -> impl Iterator<Item = MasterView<'a>> {
        (0..self.0.masters.len()).map(move |m| MasterView { all: self.0, m })
    }

    /// The master of that name.
    pub(super) fn master(self, name: &[u8]) -> Option<MasterView<'a>> {
        self.masters().find(|master| master.name().as_bytes() == name)
    }
}

impl<'a> MasterView<'a> {
    fn master(self) -> &'a Master {
        &self.all.masters[self.m]
    }

    /// The agreement it is a part of.
    pub(super) fn all(self) -> View<'a> {
        View(self.all)
    }

    pub(super) fn id(self) -> MasterId {
        self.master().id
    }

    pub(super) fn name(self) -> &'a str {
        &self.config().name
    }

    pub(super) fn config(self) -> &'a MasterConfig {
        &self.master().config
    }

    /// Who is master since which epoch, if there is a record of any.
    pub(super) fn decision(self) -> Option<Decision> {
        self.all.decision(self.m)
    }

    /// Whether the decision is not on disk yet.
    pub(super) fn is_unstored(self) -> bool {
        self.master().decision_disk != OnDisk::Yes
    }

    /// The address under which it is watched.
    pub(super) fn address(self) -> SocketAddr {
        self.master().monitored()
    }

    /// Where it is, as clients are told.
    pub(super) fn told_place(self) -> Place {
        self.all.told_place(self.m)
    }

    /// Since when a quorum finds it down.
    pub(super) fn odown_since(self) -> Option<Instant> {
        self.master().odown_since
    }

    /// Whether this sentinel leads a failover of it.
    pub(super) fn is_led(self) -> bool {
        self.master().leads().is_some()
    }

    /// Whether that was ordered by a person.
    pub(super) fn is_ordered(self) -> bool {
        self.master().is_ordered()
    }

    /// The name of the state of that failover.
    pub(super) fn failover_state(self) -> Option<&'static str> {
        self.master().failover().stock_name()
    }

    /// The redis that is master.
    pub(super) fn node(self) -> NodeView<'a> {
        NodeView { of: self, n: self.master().at() }
    }

    /// The replicas that want to be listed.
    pub(super) fn replicas(self) -> impl Iterator<Item = NodeView<'a>> {
        let announced = |info: &Info| info.replica_announced;
        let nodes = (0..self.master().nodes.len()).map(move |n| NodeView { of: self, n });
        nodes.filter(move |node| !node.is_master() && node.redis().info.as_ref().is_none_or(announced))
    }

    /// The other sentinels that watch it and have told their id.
    pub(super) fn sentinels(self) -> impl Iterator<Item = &'a Peer> {
        self.all.watchers(self.master()).filter(|peer| peer.id.is_some())
    }

    /// Sentinels that make a majority of those that have a vote on it.
    pub(super) fn majority(self) -> usize {
        self.all.majority(self.master())
    }
}

impl<'a> NodeView<'a> {
    /// What is known of it.
    pub(super) fn redis(self) -> &'a Instance {
        &self.of.master().nodes[self.n]
    }

    /// The master it belongs to.
    pub(super) fn of(self) -> MasterView<'a> {
        self.of
    }

    /// Whether it is that master.
    pub(super) fn is_master(self) -> bool {
        self.n == self.of.master().at()
    }

    /// Whether it was told to be master and has not said yet that it is.
    pub(super) fn is_promoted(self) -> bool {
        self.of.master().awaits_promotion_of(self.n)
    }

    /// For how long its link to the master has been down, by its own word.
    pub(super) fn link_down(self, now: Instant) -> std::time::Duration {
        self.of.master().candidate(self.n, self.of.all.moment(now)).link_down
    }
}
