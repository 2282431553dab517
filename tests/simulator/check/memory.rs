//! What a sentinel was told since its start: the ground on which it may decide.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use vigie::base::node::Decision;
use vigie::base::{Instant, RunId};
use vigie::cores::sentinel::{ClientId, Input, NodeFacts, Tag};
use vigie::wire::info::{Info, Role};

use crate::dropin::{about, first_address};

use super::Checks;

/// An answer of a peer counts for so long.
const OPINION_AGE_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// By the address that it had at first.
fn here(address: SocketAddr) -> SocketAddr {
    first_address(&address.ip().to_string()).unwrap_or(address)
}

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
    /// Lineage that the master was started with, by group.
    claims: Vec<Option<(SocketAddr, RunId)>>,
    /// The decision it has on disk, by group.
    pub(super) decisions: Vec<Option<Decision>>,
    /// Masters of which others have asked whether they are down, by client, in the order of their answers.
    pub(super) questions: BTreeMap<ClientId, VecDeque<Option<SocketAddr>>>,
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
            claims: vec![None; groups],
            decisions: vec![None; groups],
            questions: BTreeMap::new(),
            now: Instant::START,
        }
    }

    /// Sentinels that find that master of a group down, beside this one, as far as it was told. It may know of that master
    /// by a decision that it could not store yet.
    pub(super) fn see_down(&self, me: usize, group: usize, master: SocketAddr, sentinels: usize) -> usize {
        let stored = self.decisions[group].map_or(0, |decision| decision.epoch);
        let is_master = |decision: &Decision| here(decision.master) == master && decision.epoch >= stored;
        let sees_down = |peer: &usize| {
            let facts = self.facts.get(peer).filter(|facts| facts.fresh).and_then(|facts| facts.sentinel.as_ref());
            if let Some(facts) = facts.and_then(|facts| about(facts, group)) {
                return facts.sees_down && facts.decision.as_ref().is_some_and(is_master);
            }
            let answer = self.opinions.get(&(*peer, master));
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
        self.behind.retain(|(of, _), _| *of != host);
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
                    memory.opinions.insert((peer, here(*about)), (now, down == 1));
                }
            }
            (Input::Command(client, words), _) => {
                let word = |at: usize| words.get(at).and_then(|word| std::str::from_utf8(word).ok()).unwrap_or("");
                if word(1) == "is-master-down-by-addr" {
                    memory.questions.entry(*client).or_default().push_back(first_address(word(2)));
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
                let of = info.master_host.as_deref().and_then(first_address);
                let follows = of == Some(decision.master);
                info.role == Some(Role::Replica) && follows && info.master_link_up && !info.master_sync_in_progress
            };
            let Some(lineage) = info.master_replid else { continue };
            let its = Some((decision.master, lineage));
            let whole = info.role == Some(Role::Replica) && !info.master_sync_in_progress;
            let shared = self.lineages[group].is_none_or(|(of, _)| of != decision.master)
                || decision.master != own
                || info.replicas.iter().any(|replica| replica.online);
            if linked && shared || whole && decision.master != own && self.claims[group] == its {
                (self.lineages[group], self.claims[group]) = (its, None);
            } else if linked {
                // Nobody shares it before a replica has synchronised.
                self.claims[group] = its;
            }
        }
        self.infos.insert(redis, (now, info));
    }
}
