//! The checkers: what must never happen, looked at after every event, and what must come in the end.
//!
//! They see what leaves a sentinel, what it was told, and what is on its disk; never its inside.

mod address;
mod failover;
mod liveness;
mod memory;
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use vigie::base::{Epoch, Instant, RunId};
use vigie::cores::sentinel::OrderId;

pub use address::Watch;
use memory::Memory;

/// The ledger of a world.
#[derive(Debug)]
pub struct Checks {
    /// The first thing that was wrong.
    pub violation: Option<String>,
    /// Hosts that there are.
    hosts: usize,
    /// What each sentinel was told since its start.
    memories: Vec<Memory>,
    /// What each sentinel has told, over all its lives.
    told: Vec<Told>,
    /// What each had on its disk.
    stored: Vec<Told>,
    /// Every vote that ever left: who voted, on which group, in which epoch; for whom.
    votes: BTreeMap<(usize, usize, Epoch), RunId>,
    /// Every vote that was ever on a disk; a file does not say for whom it was.
    votes_kept: BTreeMap<(usize, usize, Epoch), Option<RunId>>,
    /// Who is master by the decision of an epoch.
    decisions: BTreeMap<(usize, Epoch), SocketAddr>,
    /// Who led in an epoch.
    leaders: BTreeMap<(usize, Epoch), usize>,
    /// Writes that a sentinel holds for a group.
    holds: BTreeMap<(usize, usize), Hold>,
    /// Promotions that were ordered while writes were held: sentinel and old master, by the promoted redis.
    handovers: BTreeMap<usize, (usize, usize)>,
    /// What the redis that a sentinel has chosen for a group lacks.
    behind: BTreeMap<(usize, usize), String>,
    /// Groups for which a sentinel has said that an operator must decide.
    undecided: BTreeSet<usize>,
    /// Sentinels whose failover of a group began with an order.
    ordered: BTreeSet<(usize, usize)>,
    /// Sentinels whose failover of a group began with an election, and the votes it took then.
    elected: BTreeMap<(usize, usize), usize>,
    /// Epochs of a group in which one leads or has led without the votes of a majority of all, by stock's rules.
    loose: BTreeSet<(usize, Epoch)>,
    /// Epochs of a group in which two were made masters by one of these.
    split: BTreeSet<(usize, Epoch)>,
    /// Who stood for election: group, id, epoch. By its own vote on its disk.
    stood: BTreeSet<(usize, RunId, Epoch)>,
    /// Sentinels that came back with the disk of another life.
    restored: BTreeSet<usize>,
    /// The one whose disk was replaced.
    wiped: Option<usize>,
    /// Where an operator orders takeovers.
    taker: Option<usize>,
    /// Such orders that the sentinel there has heard, and neither led by nor answered yet.
    takeovers: BTreeSet<u64>,
    /// Those that it has answered among what it says now: what it says behind that may still be of them.
    takeovers_answered: BTreeSet<u64>,
    /// Epochs in which one leads by his word alone.
    taken: BTreeSet<Epoch>,
    pub forced: u64,
    pub thin: u64,
}

/// Epochs that no world comes to by itself.
const FAR: Epoch = 1 << 40;

/// Writes that are held for an ordered switchover.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// The connection it was asked for on.
    wire: u64,
    redis: usize,
    incarnation: u64,
    /// The epoch in which the sentinel leads.
    epoch: Epoch,
    /// When it asked for it, by its own clock.
    since: Instant,
    /// A store has failed since: what stood behind it, the end of the hold among it, was never sent.
    fenced_off: bool,
}

/// The highest that a sentinel has told, or had on its disk.
#[derive(Clone, Debug, Default)]
struct Told {
    current_epoch: Epoch,
    /// By group.
    config_epochs: Vec<Epoch>,
    /// By group.
    vote_epochs: Vec<Epoch>,
}

impl Checks {
    pub fn new(hosts: usize, sentinels: usize, groups: usize) -> Self {
        let told = Told { current_epoch: 0, config_epochs: vec![0; groups], vote_epochs: vec![0; groups] };
        Self {
            violation: None,
            hosts,
            memories: (0..sentinels).map(|_| Memory::new(groups)).collect(),
            told: vec![told.clone(); sentinels],
            stored: vec![told; sentinels],
            votes: BTreeMap::new(),
            votes_kept: BTreeMap::new(),
            decisions: BTreeMap::new(),
            leaders: BTreeMap::new(),
            holds: BTreeMap::new(),
            handovers: BTreeMap::new(),
            behind: BTreeMap::new(),
            undecided: BTreeSet::new(),
            ordered: BTreeSet::new(),
            elected: BTreeMap::new(),
            loose: BTreeSet::new(),
            split: BTreeSet::new(),
            stood: BTreeSet::new(),
            restored: BTreeSet::new(),
            wiped: None,
            taker: None,
            takeovers: BTreeSet::new(),
            takeovers_answered: BTreeSet::new(),
            taken: BTreeSet::new(),
            forced: 0,
            thin: 0,
        }
    }

    /// Something was wrong. Only the first one counts: what follows may come of it.
    pub fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    /// An operator orders a failover at a sentinel.
    pub fn ordered(&mut self, host: usize, group: usize) {
        self.ordered.insert((host, group));
    }

    /// Groups whose sentinels cannot agree, as two have the same epoch by orders without a majority.
    pub fn splits(&self) -> u64 {
        self.split.len() as u64
    }

    /// A sentinel comes back with an epoch far above that of all others.
    pub fn restored(&mut self, host: usize) {
        self.restored.insert(host);
    }

    pub fn is_restored(&self, host: usize) -> bool {
        self.restored.contains(&host)
    }

    /// The disk of a sentinel is empty: it knows nothing any more. The others still know what it told them.
    pub fn wipes(&mut self, host: usize, id: Option<RunId>) {
        self.wiped = Some(host);
        // Whom it stood as before leads nothing any more: it may stand in the same epoch again.
        self.votes.retain(|(of, ..), leader| *of != host || Some(*leader) != id);
        let groups = self.told[host].config_epochs.len();
        let nothing = Told { current_epoch: 0, config_epochs: vec![0; groups], vote_epochs: vec![0; groups] };
        (self.told[host], self.stored[host]) = (nothing.clone(), nothing);
        self.memories[host].decisions = vec![None; groups];
    }

    /// An operator may order a takeover there, and nowhere else.
    pub fn takes_over(&mut self, host: usize) {
        self.taker = Some(host);
    }

    /// The sentinel there hears such an order.
    pub fn takeover_ordered(&mut self, OrderId(order): OrderId) {
        self.takeovers.insert(order);
    }

    /// A sentinel has said everything that followed from what it heard last.
    pub fn all_said(&mut self, host: usize) {
        if self.taker == Some(host) {
            let answered = std::mem::take(&mut self.takeovers_answered);
            self.takeovers.retain(|order| !answered.contains(order));
        }
    }

    /// It has answered it.
    pub fn takeover_over(&mut self, OrderId(order): OrderId) {
        self.takeovers_answered.insert(order);
    }

    /// A process has died: it has forgotten what it was ordered.
    pub fn takeovers_forgotten(&mut self, host: usize) {
        if self.taker == Some(host) {
            self.takeovers.clear();
        }
    }

    /// Where an operator has ordered a takeover.
    pub fn taker(&self) -> Option<usize> {
        self.taker
    }

    /// The one whose disk was replaced.
    pub fn wiped(&self) -> Option<usize> {
        self.wiped
    }

    pub fn votes_seen(&self) -> u64 {
        self.votes.len() as u64
    }
}
