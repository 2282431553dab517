//! What each role is told of the [`View`] of the peer link: the part of it that the role acts upon.
//!
//! Here and not in a core, since cores never use each other; nothing here waits or asks anybody.

use std::collections::BTreeMap;

use crate::base::lease::FileTerms;
use crate::base::node::{Decision, MasterFacts, Mode, RedisFacts, RedisRole};
use crate::base::{EPOCH_STEP, Epoch, NodeName, census};
use crate::cores::cluster::View;
use crate::cores::proxy::route::{Facts, Peer, Server, Voice};
use crate::cores::redis::Named;
use crate::cores::sentinel::NodeFacts;

/// What a sentinel has been told of the nodes.
#[derive(Clone, Debug, Default)]
pub struct News {
    told: BTreeMap<NodeName, NodeFacts>,
}

impl News {
    /// Every node whose facts have changed since the last view. A node never heard is what every node is at the start.
    pub fn of(&mut self, view: &View) -> Vec<NodeFacts> {
        let mut news = Vec::new();
        // Who has no link has no nodes either.
        let own = view.nodes.get(view.me).and_then(|node| node.state.as_ref());
        let own = own.map(|state| state.terms).unwrap_or_default();
        let majority = census::majority(view.voters());
        for node in &view.nodes {
            let state = node.state.as_ref();
            let facts = NodeFacts {
                node: node.name.clone(),
                redis: state.and_then(|state| state.redis.clone()).map(steady),
                sentinel: state.and_then(|state| state.sentinel.clone()),
                lease: state.and_then(|state| state.tenure.open()),
                granted: state.and_then(|state| state.tenure.waits(majority)),
                hears_majority: state.is_some_and(|state| state.hears_majority),
                terms: state.map_or(FileTerms::Unknown, |state| state.terms.beside(own)),
                fresh: node.fresh && state.is_some(),
                overdue_since: node.overdue_since,
            };
            let told = self.told.get(&node.name);
            if told != Some(&facts) && (state.is_some() || told.is_some()) {
                self.told.insert(node.name.clone(), facts.clone());
                news.push(facts);
            }
        }
        news
    }
}

/// Without what changes with every write: the sentinel asks for offsets when it needs them.
fn steady(facts: RedisFacts) -> RedisFacts {
    RedisFacts { offset: 0, ..facts }
}

/// What a supervisor steers its redis by, of what the sentinels that are heard say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// The master that the cluster decided on.
    pub decision: Option<Decision>,
    /// The epoch of the failover that is on, if one is.
    pub leading: Option<Epoch>,
    /// Whom its leader wants as the master.
    pub named: Option<Named>,
    /// By what right its master takes writes, [if that is known](View::mode).
    pub mode: Option<Mode>,
}

/// What a supervisor must know of a view.
pub fn heard(view: &View, cluster: &str) -> Steering {
    let sentinels = view.fresh().filter_map(|(_, state)| state.sentinel.as_ref());
    let mut epochs: Vec<_> = sentinels.map(|sentinel| sentinel.current_epoch).collect();
    epochs.sort_unstable();
    // What most of them have got to: one with the disk of another life is followed by nobody, wherever it says it leads.
    let most = epochs.get(epochs.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    let in_reach = |master: &&MasterFacts| master.leads.is_some_and(|epoch| epoch <= most.saturating_add(EPOCH_STEP));
    let leaders: Vec<&MasterFacts> = view.masters(cluster).filter(in_reach).collect();
    let named = |master: &&MasterFacts| Some(Named { epoch: master.leads?, incarnation: master.target? });
    Steering {
        decision: view.newest_decision(cluster),
        leading: leaders.iter().filter_map(|master| master.leads).max(),
        named: leaders.iter().filter_map(named).max_by_key(|named| named.epoch),
        mode: view.mode(cluster),
    }
}

/// What the route of a proxy must know of the cluster, reduced to what it acts upon: most frames change none of it.
pub fn facts(view: &View, master_name: &str) -> Facts {
    let mut facts = Facts { voters: view.voters(), ..Facts::default() };
    let own = &view.own().name;
    for (node, state) in view.fresh() {
        if let Some(sentinel) = &state.sentinel {
            let ours = sentinel.master(master_name);
            // Where it is not said it is said in the next frame.
            let (decision, fenced) =
                ours.map_or((None, false), |master| (master.decision, master.mode == Some(Mode::Fenced)));
            facts.sentinels.push(Voice { current_epoch: sentinel.current_epoch, decision, fenced });
        }
        if let Some(redis) = &state.redis {
            let master = match redis.role {
                RedisRole::Unknown => None,
                RedisRole::Closed | RedisRole::Replica { .. } => Some(false),
                RedisRole::Master { .. } => Some(true),
            };
            let (incarnation, process) = (redis.incarnation, redis.process);
            let lease = state.tenure.open();
            facts.servers.push(Server { address: redis.address, incarnation, process, master, lease });
        }
        if let Some(proxy) = state.proxy.filter(|_| node.name != *own) {
            facts.peers.push(Peer { name: node.name.clone(), listening: proxy.listening, route: proxy.route });
        }
    }
    facts
}
