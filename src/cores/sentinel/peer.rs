//! What is known of one other sentinel, and what it says of a master.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::lease::FileTerms;
use crate::base::node::{MasterFacts, SentinelFacts};
use crate::base::{Epoch, Instant, NodeName, RunId};

use super::ids::{MasterId, PeerId};
use super::link::Link;
use super::master::Master;
use super::pulse::Pulse;

/// An answer counts for so long (as stock).
const OPINION_AGE_MAX: Duration = Duration::from_secs(5);
/// Who answers for so long and says nothing over the peer link is a stock sentinel.
const STOCK_IS_SILENT: Duration = Duration::from_secs(1);
/// A question without an answer for so long is asked again.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

/// What another sentinel has answered about one master.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opinion {
    /// When it last answered, and whether it finds the master down.
    pub(super) down: Option<(Instant, bool)>,
    /// Its vote as it last said.
    pub(super) vote: Option<(RunId, Epoch)>,
    /// When it was asked what is not answered yet.
    pub(super) asked: Option<Instant>,
}

/// One other sentinel.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: PeerId,
    /// Its node; none if it is not in the file.
    pub(super) name: Option<NodeName>,
    pub(super) address: SocketAddr,
    /// Its host name, if it is known by one.
    pub(super) host: Option<String>,
    /// Its run id, once heard.
    pub(super) id: Option<RunId>,
    pub(super) link: Link,
    pub(super) pulse: Pulse,
    /// The first reply over the link that is open.
    pub(super) first_reply: Option<Instant>,
    pub(super) last_hello: Instant,
    pub(super) down_since: Option<Instant>,
    /// One per master that it is known to watch.
    pub(super) opinions: BTreeMap<MasterId, Opinion>,
    pub(super) facts: Option<SentinelFacts>,
    pub(super) fresh: bool,
    /// What its file says, as it last told.
    pub(super) terms: FileTerms,
    /// Whether it has ever spoken over the peer link: a stock sentinel does not.
    pub(super) spoke: bool,
    /// Whether it may be a stock sentinel: then it is connected to, asked and heard at its port, too.
    pub(super) stock: bool,
}

impl Peer {
    pub(super) fn new(
        key: PeerId,
        name: Option<NodeName>,
        address: SocketAddr,
        id: Option<RunId>,
        now: Instant,
    ) -> Self {
        Self {
            key,
            name,
            address,
            host: None,
            id,
            link: Link::default(),
            pulse: Pulse::new(now),
            first_reply: None,
            last_hello: now,
            down_since: None,
            opinions: BTreeMap::new(),
            facts: None,
            fresh: false,
            terms: FileTerms::Unknown,
            spoke: false,
            stock: true,
        }
    }

    /// How people call it.
    pub(super) fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.address.to_string(), ToString::to_string)
    }

    pub(super) fn fresh_facts(&self) -> Option<&SentinelFacts> {
        self.facts.as_ref().filter(|_| self.fresh)
    }

    /// What it said of a master; nothing if it does not watch it.
    pub(super) fn opinion(&self, master: MasterId) -> Opinion {
        self.opinions.get(&master).copied().unwrap_or_default()
    }

    /// It was heard, or is not heard any more, on the peer link. Who has no other way to be heard lives by that.
    pub(super) fn heard_on_link(&mut self, now: Instant) {
        if self.stock {
            return;
        }
        if self.fresh {
            let pulse = &mut self.pulse;
            (pulse.last_ok, pulse.last_reply, pulse.silent_since) = (now, now, None);
        } else {
            self.pulse.silent_since.get_or_insert(now);
        }
    }

    /// Whether it can be counted on to answer.
    pub(super) fn looks_alive(&self) -> bool {
        self.fresh_facts().is_some() || (self.link.up().is_some() && self.down_since.is_none())
    }

    pub(super) fn restart_silence(&mut self, now: Instant) {
        self.pulse.restart_silence(now);
        // What it has said over the peer link since then may still wait to be heard.
        self.first_reply = None;
    }

    /// Whether it is known to watch that master.
    pub(super) fn watches(&self, master: &Master) -> bool {
        self.opinions.contains_key(&master.id)
    }

    /// What it says of a master over the peer link.
    pub(super) fn says_of(&self, master: &Master) -> Option<&MasterFacts> {
        self.fresh_facts()?.master(&master.config.name)
    }

    /// Whether it finds the master down: by its facts, which are of this moment, else by its last answer.
    pub(super) fn sees_down(&self, master: &Master, now: Instant) -> bool {
        if let Some(facts) = self.says_of(master) {
            return facts.sees_down && facts.decision == master.decision;
        }
        let answer = self.opinion(master.id).down;
        answer.is_some_and(|(at, down)| down && now.since(at) <= OPINION_AGE_MAX)
    }

    /// Whether it knows of no decision about that master, by its own word.
    pub(super) fn has_no_record_of(&self, master: &Master) -> bool {
        self.says_of(master).is_some_and(|facts| facts.decision.is_none())
    }

    /// Whether its last vote on a master, by one way or the other, is of that kind.
    pub(super) fn has_voted(&self, master: &Master, kind: impl Fn((RunId, Epoch)) -> bool) -> bool {
        let facts = self.says_of(master).and_then(|facts| facts.vote);
        facts.is_some_and(&kind) || self.opinion(master.id).vote.is_some_and(&kind)
    }

    /// Whether it is a stock sentinel that can be asked for its vote. It does not hear the supervisors: of a master that was
    /// restarted, closed, it finds for 20 s that it answers. Its vote, without which there is no majority, is its word.
    pub(super) fn takes_our_word(&self) -> bool {
        // One of ours speaks as soon as it answers.
        let silent = self.first_reply.is_some_and(|first| self.pulse.last_reply.since(first) >= STOCK_IS_SILENT);
        self.stock && !self.spoke && silent && self.down_since.is_none()
    }

    /// Whether it has been asked about a master and may still answer.
    pub(super) fn owes_answer(&self, master: MasterId, now: Instant) -> bool {
        self.opinion(master).asked.is_some_and(|at| now.since(at) < ASK_PATIENCE)
    }

    /// The link has ended: what was asked on it is lost.
    pub(super) fn lost(&mut self, now: Instant) {
        self.link.ended(now);
        self.pulse.lost(now);
        self.first_reply = None;
        self.opinions.values_mut().for_each(|opinion| opinion.asked = None);
    }
}
