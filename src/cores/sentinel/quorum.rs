//! What the sentinels agree on: who is down, who leads, who is master.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::node::{Decision, MasterFacts, SentinelFacts, clipped};
use crate::base::{Epoch, Instant, NodeName, RunId};
use crate::wire::resp::Reply;

use super::instance::{Peer, Reconf};
use super::monitor::{Tag, words};
use super::sabotage::Rule;
use super::trust::Refused;
use super::{EXTRA_NODES_MAX, MasterId, Membership, NOBODY, Output, Sentinel, scripts};

/// An answer of a peer counts for so long (as stock).
const OPINION_AGE_MAX: Duration = Duration::from_secs(5);
/// While a master is only just found down, peers are asked four times as often.
const ASK_SOON: Duration = Duration::from_secs(1);
/// Who answers for so long and says nothing over the peer link is a stock sentinel.
const STOCK_IS_SILENT: Duration = Duration::from_secs(1);
/// A question without an answer for so long is asked again.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

impl Sentinel {
    /// What a peer says of a master over the peer link.
    pub(super) fn peer_master(&self, p: usize, m: usize) -> Option<&MasterFacts> {
        let name = self.masters[m].config.name.as_str();
        self.peers[p].fresh_facts()?.masters.iter().find(|facts| facts.name.as_str() == name)
    }

    /// Whether a peer finds the master down: by its facts, which are of this moment, else by its last answer.
    pub(super) fn peer_sees_down(&self, p: usize, m: usize, now: Instant) -> bool {
        if let Some(facts) = self.peer_master(p, m) {
            return facts.sees_down && facts.decision == self.decision(m);
        }
        let answer = self.peers[p].opinion(self.masters[m].id).down;
        answer.is_some_and(|(at, down)| down && now.since(at) <= OPINION_AGE_MAX)
    }

    /// Whether a peer is a stock sentinel that can be asked for its vote. It does not hear the supervisors: of a master that
    /// was started anew, closed, it finds for 20 s that it answers. Its vote, without which there is no majority, is its word.
    fn takes_our_word(&self, p: usize) -> bool {
        let peer = &self.peers[p];
        if !peer.stock {
            return false;
        }
        // One of ours speaks as soon as it answers.
        let silent = peer.first_reply.is_some_and(|first| peer.last_reply.since(first) >= STOCK_IS_SILENT);
        !peer.spoke && silent && peer.down_since.is_none()
    }

    pub(super) fn judge_quorum(&mut self, m: usize, now: Instant) {
        let n = self.master_at(m);
        let seen = self.masters[m].nodes[n].down_since.is_some() && self.decision(m).is_some();
        let quorum = usize::try_from(self.masters[m].config.quorum).unwrap_or(usize::MAX);
        let proved = seen && self.proved_down(m);
        let agrees = |p: &usize| self.peer_sees_down(*p, m, now) || (proved && self.takes_our_word(*p));
        let others = self.peers_of(m).filter(agrees).count();
        let down = seen && (1 + others >= quorum || !self.rules.holds(Rule::Quorum));
        if down == self.masters[m].odown_since.is_some() {
            return;
        }
        self.masters[m].odown_since = down.then_some(now);
        let extra = format!(" #quorum {}/{quorum}", 1 + others);
        self.master_event(if down { "+odown" } else { "-odown" }, m, if down { &extra } else { "" });
    }

    /// Asks the other sentinels whether they see the master down, and for their votes while an election runs.
    pub(super) fn ask_peers(&mut self, m: usize, now: Instant) {
        let down = self.masters[m].nodes[self.master_at(m)].down_since.is_some() && self.decision(m).is_some();
        let electing = self.masters[m].failover.stands().is_some();
        if !down && !electing || self.monitored(m).ip().is_unspecified() {
            return;
        }
        // The others find it down at about the same time: the sooner that is heard, the sooner there is a quorum.
        let fresh = self.masters[m].nodes[self.master_at(m)].down_since.is_some_and(|at| now.since(at) < ASK_SOON);
        let period = if fresh { self.timers.ask / 4 } else { self.timers.ask };
        let due = self.masters[m].asked_at.map_or(now, |at| at + period);
        if now < due {
            self.wake_at(due);
            return;
        }
        self.masters[m].asked_at = Some(now);
        self.wake_at(now + period);
        let id = self.masters[m].id;
        for p in self.peers_of(m).collect::<Vec<_>>() {
            let waiting = self.peers[p].opinion(id).asked.is_some_and(|at| now.since(at) < ASK_PATIENCE);
            if !waiting {
                self.ask_peer(p, m, now);
            }
        }
    }

    /// Asks a sentinel that may be a stock one; the others read the question in this one's frames. A question for a vote tells of
    /// this sentinel's own vote, so it stands behind the fence.
    fn ask_peer(&mut self, p: usize, m: usize, now: Instant) {
        // Only those have a link.
        let Some(link) = self.peers[p].link.up() else { return };
        let (candidate, epoch) = match self.masters[m].failover.stands() {
            Some(epoch) => (self.me().to_string(), epoch),
            None => ("*".to_owned(), self.current_epoch),
        };
        let master = self.monitored(m);
        let (ip, port, epoch) = (master.ip().to_string(), master.port().to_string(), epoch.to_string());
        let args = words(&["SENTINEL", "is-master-down-by-addr", &ip, &port, &epoch, &candidate]);
        let id = self.masters[m].id;
        self.fenced.push(Output::Query { link, tag: Tag::Ask(id, master), args });
        self.peers[p].opinions.entry(id).or_default().asked = Some(now);
    }

    /// Asks everybody for a vote at once, whatever was asked before.
    pub(super) fn ask_votes(&mut self, m: usize, now: Instant) {
        self.masters[m].asked_at = Some(now);
        for p in self.peers_of(m).collect::<Vec<_>>() {
            self.ask_peer(p, m, now);
        }
    }

    /// A peer's answer: down or not, its vote, the epoch of that. What it says of a master that was replaced meanwhile is
    /// not said of the new one.
    pub(super) fn opinion(&mut self, p: usize, master: MasterId, about: SocketAddr, reply: &Reply, now: Instant) {
        let current = self.place_of(master).is_some_and(|m| self.monitored(m) == about);
        let Some(opinion) = self.peers[p].opinions.get_mut(&master) else { return };
        opinion.asked = None;
        let Some([down, leader, epoch]) = reply.array() else { return };
        let (Some(down), Some(epoch)) = (down.integer(), epoch.integer()) else { return };
        if current {
            opinion.down = Some((now, down == 1));
        }
        let epoch = Epoch::try_from(epoch).unwrap_or(0);
        if !self.is_in_reach(epoch) {
            return;
        }
        let Some(opinion) = self.peers[p].opinions.get_mut(&master) else { return };
        if let Some(leader) = leader.text().and_then(|leader| leader.parse::<RunId>().ok()) {
            opinion.vote = Some((leader, epoch));
            // A refusal for the sake of a higher epoch: the next attempt has to be above it.
            self.raise_epoch(epoch, now);
        }
    }

    /// Answers a question of another sentinel. A vote is granted once per epoch, and stands behind the fence.
    pub(super) fn is_master_down(
        &mut self,
        about: SocketAddr,
        epoch: Epoch,
        candidate: Option<RunId>,
        now: Instant,
    ) -> Reply {
        // Several masters may be at no known address: nothing is said of any of them.
        let known = !about.ip().is_unspecified();
        let found = (0..self.masters.len()).find(|m| known && self.monitored(*m) == about);
        let (down, vote) = match found {
            None => (false, None),
            Some(m) => {
                let n = self.master_at(m);
                let down = self.masters[m].nodes[n].down_since.is_some() && self.decision(m).is_some();
                let candidate = candidate.filter(|candidate| self.may_ask(*candidate, now));
                (down, candidate.and_then(|candidate| self.vote(m, candidate, epoch, now)))
            }
        };
        let (leader, leader_epoch) = vote.map_or_else(
            || ("*".to_owned(), 0),
            |(leader, epoch)| {
                // After a restart nobody knows any more whom it was for: it was given, and is not given again.
                let leader = if leader == NOBODY { "*".to_owned() } else { leader.to_string() };
                (leader, i64::try_from(epoch).unwrap_or(0))
            },
        );
        let leader = Reply::Bulk(leader.into());
        Reply::Array(vec![Reply::Integer(i64::from(down)), leader, Reply::Integer(leader_epoch)])
    }

    /// Whether a vote may be asked for at this sentinel's port in that name: in a cluster only by a listed stock sentinel whose
    /// greeting was heard.
    fn may_ask(&mut self, candidate: RunId, now: Instant) -> bool {
        let known = |peer: &Peer| peer.stock && peer.id == Some(candidate);
        if !self.of_cluster() || self.peers.iter().any(known) || !self.rules.holds(Rule::OwnVoices) {
            return true;
        }
        let text =
            || format!("a vote for {candidate}, which is no sentinel of this cluster, was asked for and not given");
        self.refuse(Refused::Candidate, text, now);
        false
    }

    /// Gives a peer the vote that it asks for in its frames: who stands for election has voted for itself.
    fn vote_by_link(&mut self, p: usize, m: usize, now: Instant) {
        let Some(facts) = self.peer_master(p, m) else { return };
        let (vote, leads) = (facts.vote, facts.leads);
        let (Some((id, epoch)), Some(own)) = (vote, self.peers[p].id) else { return };
        let decided = self.decision(m).is_some_and(|decision| decision.epoch >= epoch);
        if id == own && leads == Some(epoch) && !decided {
            self.vote(m, id, epoch, now);
        }
    }

    fn vote(&mut self, m: usize, candidate: RunId, epoch: Epoch, now: Instant) -> Option<(RunId, Epoch)> {
        if !self.is_in_reach(epoch) {
            return self.voted(m);
        }
        if self.rules.holds(Rule::RaiseEpoch) {
            self.raise_epoch(epoch, now);
        }
        let last = self.voted(m).map_or(0, |(_, epoch)| epoch);
        if (last < epoch || !self.rules.holds(Rule::VoteOnce)) && self.current_epoch <= epoch {
            self.record_vote(m, candidate, epoch);
            // Where the first master is elected at its own address, the decision may be heard before the request to vote
            // for it: nothing is left to wait for.
            let decided = self.decision(m).is_some_and(|decision| decision.epoch >= epoch);
            if candidate != self.me() && !decided {
                self.follow(m, candidate, epoch, now);
            }
        }
        self.voted(m)
    }

    /// Votes for this sentinel in `epoch`, its own included.
    pub(super) fn votes_for_me(&self, m: usize, epoch: Epoch) -> usize {
        let mine = Some((self.me(), epoch));
        let id = self.masters[m].id;
        let by_peer = |p: &usize| {
            let facts = self.peer_master(*p, m).and_then(|facts| facts.vote);
            facts == mine || self.peers[*p].opinion(id).vote == mine
        };
        let own = if self.rules.holds(Rule::OwnVoteOnce) { 1 } else { 2 };
        own * usize::from(self.voted(m) == mine) + self.peers_of(m).filter(by_peer).count()
    }

    /// Voters that may still give their vote in `epoch`: alive as far as can be seen, and not known to have given it.
    pub(super) fn votes_open(&self, m: usize, epoch: Epoch) -> usize {
        let given = |vote: Option<(RunId, Epoch)>| vote.is_some_and(|(_, voted)| voted >= epoch);
        let id = self.masters[m].id;
        let open = |p: &usize| {
            let facts = self.peer_master(*p, m).and_then(|facts| facts.vote);
            self.peers[*p].looks_alive() && !given(facts) && !given(self.peers[*p].opinion(id).vote)
        };
        self.peers_of(m).filter(open).count()
    }

    /// This sentinel's place among those that look alive, in the order of the file, else of their ids: the first stands
    /// first.
    pub(super) fn rank(&self, m: usize) -> u32 {
        let alive = self.peers_of(m).map(|p| &self.peers[p]).filter(|peer| peer.looks_alive());
        let before = match &self.membership {
            Membership::Voters { me, all } => {
                let place = |name: &NodeName| all.iter().position(|voter| voter.name == *name);
                alive.filter(|peer| peer.name.as_ref().and_then(place) < place(me)).count()
            }
            Membership::Discovered { .. } => alive.filter(|peer| peer.id.is_some_and(|id| id < self.id)).count(),
        };
        u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// Whether another sentinel leads a failover beyond the decision known here, or this one does.
    pub(super) fn somebody_leads(&self, m: usize) -> bool {
        let known = self.decision(m).map_or(0, |decision| decision.epoch);
        self.masters[m].leads().is_some_and(|epoch| epoch > known) || self.other_leads(m)
    }

    /// The epoch in which a peer leads. One out of reach leads nobody here.
    pub(super) fn peer_leads(&self, p: usize, m: usize) -> Option<Epoch> {
        self.peer_master(p, m)?.leads.filter(|epoch| self.is_in_reach(*epoch))
    }

    pub(super) fn other_leads(&self, m: usize) -> bool {
        let known = self.decision(m).map_or(0, |decision| decision.epoch);
        self.peers_of(m).any(|p| self.peer_leads(p, m).is_some_and(|epoch| epoch > known))
    }

    /// Remembers who the sentinel at a voter's address is.
    pub(super) fn know_peer(&mut self, p: usize, id: RunId) {
        if self.peers[p].id == Some(id) {
            return;
        }
        self.peers[p].id = Some(id);
        // Another one: in the place of one of ours there may be a stock sentinel now, whose silence here means nothing.
        self.peers[p].spoke = false;
        self.dirty = true;
        let address = self.peers[p].address;
        for m in 0..self.masters.len() {
            self.sentinel_event("+sentinel", m, id, address);
        }
    }

    /// Takes in what a peer says over the peer link.
    pub(super) fn peer_facts(&mut self, p: usize, facts: Option<SentinelFacts>, fresh: bool, now: Instant) {
        if let Some(facts) = facts.as_ref().filter(|_| fresh) {
            self.know_peer(p, facts.id);
        }
        // Its sentinel may have nothing to say yet, or cannot store it: it is one of ours all the same.
        self.peers[p].spoke |= facts.is_some() || fresh;
        self.peers[p].facts = facts;
        self.peers[p].fresh = fresh;
        self.peers[p].heard_on_link(now);
        let Some(facts) = self.peers[p].fresh_facts().cloned() else { return };
        self.peers[p].last_hello = now;
        self.raise_epoch(facts.current_epoch, now);
        for m in 0..self.masters.len() {
            if let Some(decision) = self.peer_master(p, m).and_then(|facts| facts.decision) {
                self.adopt(m, p, decision, now);
            }
            self.vote_by_link(p, m, now);
        }
    }

    /// Adopts a decision of a higher epoch, or the first one at all.
    pub(super) fn adopt(&mut self, m: usize, p: usize, decision: Decision, now: Instant) {
        let known = self.decision(m);
        let higher = known.is_none_or(|known| known.epoch < decision.epoch);
        if !(higher || !self.rules.holds(Rule::HigherDecision) && known != Some(decision)) {
            return;
        }
        if !self.is_in_reach(decision.epoch) {
            let text = format!("{} names a master of epoch {}, out of reach", self.peers[p].label(), decision.epoch);
            return self.refuse(Refused::Epoch, || text, now);
        }
        if !self.may_be_master(m, decision.master) {
            let (who, master) = (self.peers[p].label(), decision.master);
            let text = format!("{who} names {master} as the master, which is no data node of the cluster file");
            return self.refuse(Refused::Master, || text, now);
        }
        // A master that nobody here has heard of: the stock sentinels may know replicas that are not in the file.
        let full = self.masters[m].nodes.len() >= self.masters[m].config.nodes.len() + EXTRA_NODES_MAX;
        if full && !self.masters[m].nodes.iter().any(|node| node.address == decision.master) {
            return;
        }
        let from = self.monitored(m);
        if from != decision.master
            && let Some(id) = self.peers[p].id
        {
            self.sentinel_event("+config-update-from", m, id, self.peers[p].address);
        }
        let before = self.told_place(m);
        self.switch(m, decision, now);
        if from != decision.master {
            self.reconfigure_clients(m, scripts::Role::Observer, &before, &self.told_place(m));
        }
        self.become_idle(m, now);
    }

    /// Makes a decision the current one: everything that was true of the old master is forgotten.
    pub(super) fn switch(&mut self, m: usize, decision: Decision, now: Instant) {
        let from = self.monitored(m);
        let old = self.master_at(m);
        let first = self.decision(m).is_none();
        self.record_decision(m, decision, now);
        let new = self.index_of(m, decision.master, now);
        let master = &mut self.masters[m];
        master.odown_since = None;
        master.decided_at = now;
        master.no_candidate = None;
        for node in &mut master.nodes {
            node.reconf = Reconf::None;
            node.heal_at = None;
        }
        for peer in &mut self.peers {
            peer.opinions.get_mut(&master.id).into_iter().for_each(|opinion| opinion.down = None);
        }
        if old != new {
            master.nodes[old].was_master = true;
        }
        let node = &mut master.nodes[new];
        node.was_master = false;
        // What it reported before it was master is no straying.
        node.role_since = now;
        node.served = node.fresh_facts().map(|facts| facts.incarnation);
        if from != decision.master || (first && decision.epoch > 0) {
            self.publish_switch(m, from, decision.master);
        }
        for n in 0..self.masters[m].nodes.len() {
            self.ask_info(m, n, now);
        }
    }

    /// Posts this sentinel's facts if they have changed. Behind the fence: they tell of votes and decisions.
    pub(super) fn post(&mut self, now: Instant) {
        let facts = self.own_facts();
        if self.posted.as_ref() == Some(&facts) {
            return;
        }
        if let Some(retry_at) = self.store_retry_at.filter(|at| now < *at) {
            self.wake_at(retry_at);
            return;
        }
        self.posted = Some(facts.clone());
        self.fenced.push(Output::Post(Box::new(facts)));
    }

    fn own_facts(&self) -> SentinelFacts {
        let masters = (0..self.masters.len()).map(|m| MasterFacts {
            name: clipped(&self.masters[m].config.name),
            decision: self.decision(m),
            sees_down: self.decision(m).is_some() && self.masters[m].nodes[self.master_at(m)].down_since.is_some(),
            leads: self.masters[m].leads(),
            vote: self.voted(m),
        });
        SentinelFacts { id: self.me(), current_epoch: self.current_epoch, masters: masters.take(4).collect() }
    }
}

#[cfg(test)]
mod tests;
