//! What the sentinels agree on: who is down, who leads, who is master.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::lease::FileTerms;
use crate::base::node::{Decision, MasterFacts, Mode, SentinelFacts, clipped};
use crate::base::{Epoch, Instant, RunId, census};
use crate::wire::resp::Reply;

use super::event::{Event, Severity};
use super::ids::MasterId;
use super::master::Master;
use super::peer::Peer;
use super::ports::Output;
use super::query::{Tag, words};
use super::refused::Refused;
use super::sabotage::Rule;
use super::{Agreement, scripts};

/// While a master is only just found down, peers are asked four times as often.
const ASK_SOON: Duration = Duration::from_secs(1);

impl Agreement {
    /// Sentinels known to watch a master beside this one.
    pub(super) fn watchers<'a>(&'a self, master: &'a Master) -> impl Iterator<Item = &'a Peer> {
        self.peers.iter().filter(|peer| peer.watches(master))
    }

    /// Sentinels that have a vote on a master, this one included.
    pub(super) fn voters(&self, master: &Master) -> usize {
        self.membership.voters(self.watchers(master).count())
    }

    /// Sentinels that make a majority of them.
    pub(super) fn majority(&self, master: &Master) -> usize {
        census::majority(self.voters(master))
    }

    /// Sentinels that are there, this one included.
    pub(super) fn reachable(&self, master: &Master) -> usize {
        1 + self.watchers(master).filter(|peer| peer.looks_alive()).count()
    }

    /// Whether most redis refuse this node's password, although they are those of the cluster.
    pub(super) fn is_refused(&self, master: &Master) -> bool {
        self.membership.shares_password() && master.is_refused_by_most()
    }

    /// Whether a majority of the sentinels is there, this one included.
    pub(super) fn has_majority(&self, master: &Master) -> bool {
        self.reachable(master) >= self.majority(master)
    }

    /// Whether a majority of the sentinels is there that knows of the master and can grant it anything. One without a record can not:
    /// from when it has one, that it grants may still be on its way.
    pub(super) fn hears_majority_of(&self, master: &Master) -> bool {
        let voices = self.watchers(master).filter(|peer| peer.looks_alive() && !peer.has_no_record_of(master)).count();
        voices + usize::from(self.amnesia.is_none()) >= self.majority(master)
    }

    /// Whether there is no use in standing for election: nobody would be left to vote, or to be promoted. Each attempt takes an
    /// epoch, and a sentinel that is cut off must not run ahead of the others.
    pub(super) fn shut_out(&self, master: &Master) -> bool {
        !self.has_majority(master) && !self.membership.stands_without_majority() || self.is_refused(master)
    }

    pub(super) fn judge_quorum(&mut self, m: usize, now: Instant) {
        let master = &self.masters[m];
        let (seen, quorum) = (master.sees_down(), master.quorum());
        let proved = seen && master.proved_down();
        let agrees = |peer: &&Peer| peer.sees_down(master, now) || (proved && peer.takes_our_word());
        let agreeing = 1 + self.watchers(master).filter(agrees).count();
        let down = seen && (agreeing >= quorum || !self.rules.holds(Rule::Quorum));
        if down == master.odown_since.is_some() {
            return;
        }
        self.masters[m].odown_since = down.then_some(now);
        let extra = format!(" #quorum {agreeing}/{quorum}");
        self.master_event(if down { "+odown" } else { "-odown" }, m, if down { &extra } else { "" });
    }

    /// Asks the other sentinels whether they see the master down, and for their votes while an election runs.
    pub(super) fn ask_peers(&mut self, m: usize, now: Instant) {
        let master = &self.masters[m];
        if !master.sees_down() && master.failover().stands().is_none() || !master.is_located() {
            return;
        }
        // The others find it down at about the same time: the sooner that is heard, the sooner there is a quorum.
        let fresh = master.watched().down_since.is_some_and(|at| now.since(at) < ASK_SOON);
        let period = if fresh { self.timers.ask / 4 } else { self.timers.ask };
        let due = master.asked_at.map_or(now, |at| at + period);
        if now < due {
            self.wake_at(due);
            return;
        }
        self.wake_at(now + period);
        self.ask_all(m, |peer, id| !peer.owes_answer(id, now), now);
    }

    /// Asks everybody for a vote at once, whatever was asked before.
    pub(super) fn ask_votes(&mut self, m: usize, now: Instant) {
        self.ask_all(m, |_, _| true, now);
    }

    /// Asks sentinels that may be stock ones; the others read the question in this one's frames. A question for a vote tells of
    /// this sentinel's own vote, so it stands behind the fence.
    fn ask_all(&mut self, m: usize, wanted: impl Fn(&Peer, MasterId) -> bool, now: Instant) {
        let Self { masters, peers, fenced, id, current_epoch, .. } = self;
        let master = &mut masters[m];
        master.asked_at = Some(now);
        let (candidate, epoch) = match master.failover().stands() {
            Some(epoch) => (id.to_string(), epoch),
            None => ("*".to_owned(), *current_epoch),
        };
        let about = master.monitored();
        let (ip, port, epoch) = (about.ip().to_string(), about.port().to_string(), epoch.to_string());
        let args = words(&["SENTINEL", "is-master-down-by-addr", &ip, &port, &epoch, &candidate]);
        for peer in peers.iter_mut().filter(|peer| peer.watches(master) && wanted(peer, master.id)) {
            // Only those have a link.
            let Some(link) = peer.link.up() else { continue };
            fenced.push(Output::Query { link, tag: Tag::Ask(master.id, about), args: args.clone() });
            peer.opinions.entry(master.id).or_default().asked = Some(now);
        }
    }

    /// A peer's answer: down or not, its vote, the epoch of that. What it says of a master that was replaced meanwhile is
    /// not said of the new one.
    pub(super) fn opinion(&mut self, p: usize, master: MasterId, about: SocketAddr, reply: &Reply, now: Instant) {
        let current = self.masters.iter().any(|one| one.id == master && one.monitored() == about);
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

    /// Answers a question of another sentinel: whether the master is down, and the vote. A vote is granted once per epoch, and
    /// stands behind the fence.
    pub(super) fn is_master_down(
        &mut self,
        about: SocketAddr,
        epoch: Epoch,
        candidate: Option<RunId>,
        now: Instant,
    ) -> (bool, Option<(RunId, Epoch)>) {
        // Several masters may be at no known address: nothing is said of any of them.
        let known = !about.ip().is_unspecified();
        let Some(m) = self.masters.iter().position(|master| known && master.monitored() == about) else {
            return (false, None);
        };
        let down = self.masters[m].sees_down();
        let candidate = candidate.filter(|candidate| self.may_ask(*candidate, now));
        (down, candidate.and_then(|candidate| self.vote(m, candidate, epoch, now)))
    }

    /// Whether a vote may be asked for at this sentinel's port in that name: in a cluster only by a listed stock sentinel whose
    /// greeting was heard.
    fn may_ask(&mut self, candidate: RunId, now: Instant) -> bool {
        let known = |peer: &Peer| peer.stock && peer.id == Some(candidate);
        if self.membership.votes_for_strangers() || self.peers.iter().any(known) || !self.rules.holds(Rule::OwnVoices) {
            return true;
        }
        let text =
            || format!("a vote for {candidate}, which is no sentinel of this cluster, was asked for and not given");
        self.refuse(Refused::Candidate, text, now);
        false
    }

    /// Gives a peer the vote that it asks for in its frames: who stands for election has voted for itself.
    fn vote_by_link(&mut self, p: usize, m: usize, now: Instant) {
        let (peer, master) = (&self.peers[p], &self.masters[m]);
        let Some(facts) = peer.says_of(master) else { return };
        let (Some((id, epoch)), Some(own)) = (facts.vote, peer.id) else { return };
        // What is a majority to one is none to the other.
        let other_voters = peer.terms == FileTerms::OtherVoters;
        if id == own && facts.leads == Some(epoch) && !master.has_decided(epoch) && !other_voters {
            self.vote(m, id, epoch, now);
        }
    }

    fn vote(&mut self, m: usize, candidate: RunId, epoch: Epoch, now: Instant) -> Option<(RunId, Epoch)> {
        if self.amnesia.is_some() || !self.is_in_reach(epoch) {
            return self.masters[m].vote;
        }
        if self.rules.holds(Rule::RaiseEpoch) {
            self.raise_epoch(epoch, now);
        }
        let master = &self.masters[m];
        let last = master.vote.map_or(0, |(_, epoch)| epoch);
        // Where the first master is elected at its own address, the decision may be heard before the request to vote
        // for it: nothing is left to wait for.
        let follows = candidate != self.me() && !master.has_decided(epoch);
        if (last < epoch || !self.rules.holds(Rule::VoteOnce)) && self.current_epoch <= epoch {
            self.record_vote(m, candidate, epoch);
            if follows {
                self.follow(m, candidate, epoch, now);
            }
        }
        self.masters[m].vote
    }

    /// Votes for this sentinel in `epoch`, its own included.
    pub(super) fn votes_for_me(&self, master: &Master, epoch: Epoch) -> usize {
        let mine = (self.me(), epoch);
        let own = if self.rules.holds(Rule::OwnVoteOnce) { 1 } else { 2 };
        let others = self.watchers(master).filter(|peer| peer.has_voted(master, |vote| vote == mine));
        own * usize::from(master.vote == Some(mine)) + others.count()
    }

    /// Voters that may still give their vote in `epoch`: alive as far as can be seen, and not known to have given it.
    pub(super) fn votes_open(&self, master: &Master, epoch: Epoch) -> usize {
        let given = |peer: &Peer| peer.has_voted(master, |(_, voted)| voted >= epoch);
        self.watchers(master).filter(|peer| peer.looks_alive() && !given(peer)).count()
    }

    /// This sentinel's place among those that look alive: the first stands first.
    pub(super) fn rank(&self, master: &Master) -> u32 {
        let alive = self.watchers(master).filter(|peer| peer.looks_alive());
        let before = alive.filter(|peer| self.membership.ranks_before(peer.name.as_ref(), peer.id, self.id));
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }

    /// Whether another sentinel leads a failover beyond the decision known here, or this one does.
    pub(super) fn somebody_leads(&self, master: &Master) -> bool {
        master.leads().is_some_and(|epoch| epoch > master.epoch()) || self.other_leads(master)
    }

    /// The epoch in which a peer leads a failover beyond the decision known here. One out of reach leads nobody here.
    pub(super) fn peer_leads(&self, peer: &Peer, master: &Master) -> Option<Epoch> {
        peer.says_of(master)?.leads.filter(|epoch| self.is_in_reach(*epoch) && *epoch > master.epoch())
    }

    pub(super) fn other_leads(&self, master: &Master) -> bool {
        self.watchers(master).any(|peer| self.peer_leads(peer, master).is_some())
    }

    /// Remembers who the sentinel at a voter's address is.
    pub(super) fn know_peer(&mut self, p: usize, id: RunId) {
        let peer = &mut self.peers[p];
        if peer.id == Some(id) {
            return;
        }
        peer.id = Some(id);
        // Another one: in the place of one of ours there may be a stock sentinel now, whose silence here means nothing.
        peer.spoke = false;
        let address = peer.address;
        self.dirty = true;
        for m in 0..self.masters.len() {
            self.sentinel_event("+sentinel", m, id, address);
        }
    }

    /// Takes in what a peer says over the peer link.
    pub(super) fn peer_facts(&mut self, p: usize, facts: Option<SentinelFacts>, fresh: bool, now: Instant) {
        if let Some(facts) = facts.as_ref().filter(|_| fresh) {
            self.know_peer(p, facts.id);
        }
        let peer = &mut self.peers[p];
        // Its sentinel may have nothing to say yet, or cannot store it: it is one of ours all the same.
        peer.spoke |= facts.is_some() || fresh;
        (peer.facts, peer.fresh) = (facts, fresh);
        peer.heard_on_link(now);
        let Some(epoch) = peer.fresh_facts().map(|facts| facts.current_epoch) else { return };
        peer.last_hello = now;
        self.raise_epoch(epoch, now);
        for m in 0..self.masters.len() {
            self.adopt_said(p, m, now);
            self.vote_by_link(p, m, now);
        }
    }

    /// Adopts what a peer says over the peer link.
    pub(super) fn adopt_said(&mut self, p: usize, m: usize, now: Instant) {
        let said = self.peers[p].says_of(&self.masters[m]);
        if let Some((decision, mode)) = said.and_then(|facts| Some((facts.decision?, facts.mode?))) {
            self.adopt(m, p, decision, mode, now);
        }
    }

    /// Adopts a decision of a higher epoch, or the first one at all.
    pub(super) fn adopt(&mut self, m: usize, p: usize, decision: Decision, mode: Mode, now: Instant) {
        let (master, peer) = (&self.masters[m], &self.peers[p]);
        let known = master.decision;
        let higher = known.is_none_or(|known| known.epoch < decision.epoch);
        if self.amnesia.is_some() || !(higher || !self.rules.holds(Rule::HigherDecision) && known != Some(decision)) {
            return;
        }
        if !self.is_in_reach(decision.epoch) {
            let text = format!("{} names a master of epoch {}, out of reach", peer.label(), decision.epoch);
            return self.refuse(Refused::Epoch, || text, now);
        }
        if !self.may_be_master(master, decision.master) {
            let (who, master) = (peer.label(), decision.master);
            let text = format!("{who} names {master} as the master, which is no data node of the cluster file");
            return self.refuse(Refused::Master, || text, now);
        }
        if !self.mode_may_be(master, decision, mode) {
            let (who, master) = (peer.label(), decision.master);
            let text = format!(
                "{who} names {master} as the master without a lease, while this cluster is fenced: is an older vigie running there?"
            );
            return self.refuse(Refused::Mode, || text, now);
        }
        // A master that nobody here has heard of: the stock sentinels may know replicas that are not in the file.
        if !master.has_room() && master.place_of(decision.master).is_none() {
            return;
        }
        // Another sentinel has heard the new master say so first.
        if let Some((lead, target)) = master.promotion_of(decision).filter(|_| mode == Mode::Fenced) {
            return self.promoted(m, lead, target, now);
        }
        let moves = master.monitored() != decision.master;
        let (id, address) = (peer.id, peer.address);
        if let Some(id) = id.filter(|_| moves) {
            self.sentinel_event("+config-update-from", m, id, address);
        }
        self.accept(m, decision, mode, now);
    }

    /// Makes a decision that was made elsewhere the current one.
    fn accept(&mut self, m: usize, decision: Decision, mode: Mode, now: Instant) {
        let (moves, before) = (self.masters[m].monitored() != decision.master, self.told_place(m));
        self.switch(m, decision, mode, now);
        if moves {
            self.reconfigure_clients(m, scripts::Role::Observer, &before, &self.told_place(m));
        }
        self.become_idle(m, now);
    }

    /// A redis takes writes by the lease of that epoch. A majority has granted it: that is the decision, whether its leader lives to
    /// store it or not.
    pub(super) fn lease_seen(&mut self, m: usize, n: usize, epoch: Epoch, now: Instant) {
        if self.masters[m].config.lease.is_none() || self.amnesia.is_some() || !self.is_in_reach(epoch) {
            return;
        }
        self.raise_epoch(epoch, now);
        let master = &self.masters[m];
        let decision = Decision { master: master.nodes[n].address, epoch };
        if let Some((lead, target)) = master.promotion_of(decision) {
            self.promoted(m, lead, target, now);
        } else if master.decision.is_none_or(|known| known.epoch < epoch) {
            self.accept(m, decision, Mode::Fenced, now);
        }
    }

    /// Makes a decision the current one: everything that was true of the old master is forgotten.
    pub(super) fn switch(&mut self, m: usize, decision: Decision, mode: Mode, now: Instant) {
        let master = &self.masters[m];
        let (from, old, first) = (master.monitored(), master.at(), master.decision.is_none());
        let changed = if first { mode == Mode::TakenOver } else { master.mode != mode };
        self.record_decision(m, decision, mode, now);
        let new = self.index_of(m, decision.master, now);
        let master = &mut self.masters[m];
        master.switched(old, new, now);
        let (id, nodes) = (master.id, master.nodes.len());
        for peer in &mut self.peers {
            peer.opinions.get_mut(&id).into_iter().for_each(|opinion| opinion.down = None);
        }
        if from != decision.master || (first && decision.epoch > 0) {
            self.publish_switch(m, from, decision.master);
        }
        if changed {
            let text = match mode {
                Mode::Fenced => "this cluster is fenced from now on: its master takes writes only while a majority of the sentinels \
                     promises that nobody else does"
                    .to_owned(),
                Mode::Unfenced => "this cluster is not fenced any more: in a network split, what the side without the majority \
                     acknowledges is lost"
                    .to_owned(),
                Mode::TakenOver => self.taken_over(m),
            };
            self.publish(Event::new("mode", Severity::Warn, text));
        }
        for n in 0..nodes {
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
        let masters = self.masters.iter().map(|master| MasterFacts {
            name: clipped(&master.config.name),
            decision: master.decision,
            sees_down: master.sees_down(),
            leads: master.leads(),
            vote: master.vote,
            target: master.failover().lead().and_then(|lead| lead.phase.named()),
            mode: Some(master.decision.map_or_else(Mode::default, |_| master.mode)),
        });
        SentinelFacts { id: self.me(), current_epoch: self.current_epoch, masters: masters.take(4).collect() }
    }
}

#[cfg(test)]
mod tests;
