//! What a sentinel was told since its start: the ground on which it may decide.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use vigie::base::{Instant, RunId};
use vigie::cores::sentinel::{Input, NodeFacts, Tag};
use vigie::wire::frame::Decision;
use vigie::wire::info::{Info, Role};

use super::Checks;

/// An answer of a peer counts for so long.
const OPINION_AGE_MAX: std::time::Duration = std::time::Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Memory {
    /// What each redis last said, by host.
    pub(super) infos: BTreeMap<usize, (Instant, Info)>,
    /// What each node last said over the peer link.
    pub(super) facts: BTreeMap<usize, NodeFacts>,
    /// What each sentinel last answered, by host and group: about whom, when, whether down.
    opinions: BTreeMap<(usize, SocketAddr), (Instant, bool)>,
    /// Lineage of the master's data, by group.
    pub(super) lineages: Vec<Option<(SocketAddr, RunId)>>,
    /// The decision it has on disk, by group.
    pub(super) decisions: Vec<Option<Decision>>,
    /// When it last heard something.
    pub(super) now: Instant,
}

impl Memory {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            infos: BTreeMap::new(),
            facts: BTreeMap::new(),
            opinions: BTreeMap::new(),
            lineages: vec![None; groups],
            decisions: vec![None; groups],
            now: Instant::START,
        }
    }

    /// Sentinels that find the master of a group down, beside this one, as far as it was told.
    pub(super) fn see_down(&self, me: usize, group: usize, sentinels: usize) -> usize {
        let decision = self.decisions[group];
        let sees_down = |peer: &usize| {
            let facts = self.facts.get(peer).filter(|facts| facts.fresh).and_then(|facts| facts.sentinel.as_ref());
            if let Some(facts) = facts.and_then(|facts| facts.masters.get(group)) {
                return facts.sees_down && facts.decision == decision;
            }
            let answer = decision.and_then(|known| self.opinions.get(&(*peer, known.master)));
            answer.is_some_and(|(at, down)| *down && self.now.since(*at) <= OPINION_AGE_MAX)
        };
        (0..sentinels).filter(|peer| *peer != me).filter(sees_down).count()
    }
}

impl Checks {
    /// A sentinel starts, with nothing but its disk.
    pub fn sentinel_started(&mut self, host: usize, now: Instant) {
        let groups = self.told[host].config_epochs.len();
        let decisions = std::mem::take(&mut self.memories[host].decisions);
        self.holds.retain(|(of, _), _| *of != host);
        self.memories[host] = Memory { decisions, now, ..Memory::new(groups) };
    }

    /// A sentinel takes something in; `about`: the host of the link, and whether a sentinel is there.
    pub fn hears(&mut self, host: usize, about: Option<(usize, bool)>, input: &Input, now: Instant) {
        let memory = &mut self.memories[host];
        memory.now = now;
        match (input, about) {
            (Input::Reply(_, Tag::Info, reply), Some((redis, false))) => {
                if let Some(text) = reply.text() {
                    memory.info_heard(redis, Info::parse(text), now);
                }
            }
            (Input::Reply(_, Tag::Ask(_, about), reply), Some((peer, true))) => {
                let down = reply.array().and_then(|answer| answer.first()?.integer());
                if let Some(down) = down {
                    memory.opinions.insert((peer, *about), (now, down == 1));
                }
            }
            (Input::Facts(facts), _) => {
                if let Some(node) = facts.node.as_str().strip_prefix("n-").and_then(|node| node.parse().ok()) {
                    memory.facts.insert(node, (**facts).clone());
                }
            }
            _ => {}
        }
    }
}

impl Memory {
    fn info_heard(&mut self, redis: usize, info: Info, now: Instant) {
        let own = crate::world::redis_at(redis);
        for group in 0..self.decisions.len() {
            let Some(decision) = self.decisions[group] else { continue };
            let linked = if decision.master == own {
                info.role == Some(Role::Master)
            } else {
                let follows = info.master() == Some(decision.master);
                info.role == Some(Role::Replica) && follows && info.master_link_up && !info.master_sync_in_progress
            };
            if let Some(lineage) = info.master_replid.filter(|_| linked) {
                self.lineages[group] = Some((decision.master, lineage));
            }
        }
        self.infos.insert(redis, (now, info));
    }
}
