//! What a sentinel tells others: on its disk before, never two votes in an epoch, never back.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use vigie::base::node::{Decision, SentinelFacts};
use vigie::base::{Epoch, RunId};
use vigie::cores::sentinel::{Answer, ClientId, Durable, Record, State, Tag};
use vigie::wire::hello::Hello;
use vigie::wire::resp::Reply;

use super::{Checks, FAR, Hold};
use crate::dropin::{about, epoch_on, first_address, is_for_somebody, known_on};
use crate::world::{World, host_of};

/// In the place of a candidate: the epoch counts as voted, and it is not known for which one.
const NOBODY: RunId = RunId([0; 20]);

impl Checks {
    /// A vote has left a sentinel.
    fn voted(&mut self, host: usize, group: usize, leader: RunId, epoch: Epoch) {
        let nobody = leader == NOBODY && self.wiped == Some(host);
        let first = if nobody { leader } else { *self.votes.entry((host, group, epoch)).or_insert(leader) };
        self.must(first == leader, || {
            format!("s{host} voted twice on group {group} in epoch {epoch}: for {first} and for {leader}")
        });
        let told = &mut self.told[host].vote_epochs[group];
        let last = std::mem::replace(told, epoch.max(*told));
        self.must(last <= epoch || self.is_restored(host), || {
            format!("s{host} told of its vote in epoch {epoch} after that in epoch {last}")
        });
    }

    /// A decision has left a sentinel, or is on its disk.
    fn decided(&mut self, host: usize, group: usize, decision: Decision) {
        let Decision { master, epoch } = decision;
        if epoch == 0 {
            // The word of the configuration, which is no decision.
            return;
        }
        let here = |address: SocketAddr| first_address(&address.ip().to_string()).unwrap_or(address);
        let first = *self.decisions.entry((group, epoch)).or_insert(master);
        let same = here(first) == here(master);
        if !same && self.loose.contains(&(group, epoch)) {
            self.split.insert((group, epoch));
            return;
        }
        self.must(same, || {
            format!("two masters of group {group} in epoch {epoch}: {first}, and {master} says s{host}")
        });
        let told = &mut self.told[host].config_epochs[group];
        let last = std::mem::replace(told, epoch.max(*told));
        self.must(last <= epoch || self.is_restored(host), || {
            format!("s{host} went back from the decision of epoch {last} on group {group} to that of epoch {epoch}")
        });
    }

    /// An epoch has left a sentinel. What is composed before an epoch rises in the same turn may leave behind its store.
    fn told_epoch(&mut self, host: usize, epoch: Epoch) {
        let told = &mut self.told[host].current_epoch;
        let last = std::mem::replace(told, epoch.max(*told));
        self.must(last <= epoch || self.is_restored(host), || {
            format!("s{host} went back from epoch {last} to epoch {epoch}")
        });
    }

    /// A store has failed.
    pub fn not_on_disk(&mut self, host: usize) {
        self.holds.iter_mut().filter(|((of, _), _)| *of == host).for_each(|(_, hold)| hold.fenced_off = true);
    }

    /// A store has succeeded.
    pub fn on_disk(&mut self, host: usize, record: &Record) {
        match record {
            Record::Votes(durable) => self.votes_on_disk(host, durable),
            Record::Everything(state) => self.file_on_disk(host, record, state),
        }
        let epoch = epoch_on(record);
        let last = std::mem::replace(&mut self.stored[host].current_epoch, epoch);
        self.must(last <= epoch || self.is_restored(host), || {
            format!("s{host} stores epoch {epoch} over epoch {last}")
        });
    }

    /// A file was rewritten.
    fn file_on_disk(&mut self, host: usize, record: &Record, state: &State) {
        for group in 0..self.stored[host].config_epochs.len() {
            let Some(known) = known_on(record, group) else {
                // It may be told anything about it when it watches it again; its votes stay given.
                (self.stored[host].config_epochs[group], self.told[host].config_epochs[group]) = (0, 0);
                self.memories[host].decisions[group] = None;
                self.memories[host].lineages[group] = None;
                continue;
            };
            let (decided, voted) = (known.decision.map_or(0, |it| it.epoch), known.vote.map_or(0, |(_, it)| it));
            if let Some(decision) = known.decision {
                self.decided(host, group, decision);
            }
            self.memories[host].decisions[group] = known.decision;
            if let Some((leader, epoch)) = known.vote {
                self.votes_kept.insert((host, group, epoch), leader);
            }
            let stored = &mut self.stored[host];
            let back = decided < stored.config_epochs[group] || voted < stored.vote_epochs[group];
            (stored.config_epochs[group], stored.vote_epochs[group]) = (decided, voted);
            let reached = decided <= state.current_epoch && voted <= state.current_epoch;
            self.must(reached, || format!("s{host} stores an epoch that its current one has not reached: {state:?}"));
            self.must(!back || self.is_restored(host), || {
                format!("s{host} stores what is older than what it had on disk: {known:?}")
            });
        }
    }

    fn votes_on_disk(&mut self, host: usize, durable: &Durable) {
        let far = durable.current_epoch >= FAR && !self.is_restored(host);
        self.must(!far, || format!("s{host} follows somebody to epoch {}", durable.current_epoch));
        for (group, master) in durable.masters.iter().enumerate() {
            if let Some(decision) = master.decision {
                self.decided(host, group, decision);
            }
            self.memories[host].decisions[group] = master.decision;
            if let Some((leader, epoch)) = master.vote {
                self.votes_kept.insert((host, group, epoch), Some(leader));
                if leader == durable.id {
                    self.stood.insert((group, leader, epoch));
                }
                // A sentinel without a record, or with another's, has taken what the others have reached as voted.
                let stood = leader == NOBODY || self.stood.contains(&(group, leader, epoch));
                self.must(stood, || format!("s{host} votes for {leader}, who does not stand in epoch {epoch}"));
            }
            let known = master.decision.is_none_or(|decision| host_of(decision.master) < self.hosts);
            self.must(known, || format!("s{host} takes a host of no file for the master: {master:?}"));
            let stored = &mut self.stored[host];
            let (decided, voted) = (master.decision.map_or(0, |it| it.epoch), master.vote.map_or(0, |(_, it)| it));
            let back = decided < stored.config_epochs[group] || voted < stored.vote_epochs[group];
            (stored.config_epochs[group], stored.vote_epochs[group]) = (decided, voted);
            self.must(decided <= durable.current_epoch && voted <= durable.current_epoch, || {
                format!("s{host} stores an epoch that its current one has not reached: {durable:?}")
            });
            self.must(!back || self.is_restored(host), || {
                format!("s{host} stores what is older than what it had on disk: {master:?}")
            });
        }
    }
}

/// A decision by the address that its master had at first.
fn here(decision: Decision) -> Decision {
    Decision { master: first_address(&decision.master.ip().to_string()).unwrap_or(decision.master), ..decision }
}

fn text(words: &[Bytes], at: usize) -> &str {
    words.get(at).and_then(|word| std::str::from_utf8(word).ok()).unwrap_or("")
}

impl World {
    fn disk_decision(&self, host: usize, group: usize) -> Option<Decision> {
        self.known(host, group)?.decision
    }

    fn has_vote(&self, host: usize, group: usize, leader: RunId, epoch: Epoch) -> bool {
        self.known(host, group).is_some_and(|known| known.has_vote(leader, epoch))
    }

    /// Whether the disk of a sentinel says nothing of a group any more: what it still says of it is about to end.
    pub(super) fn removed(&self, host: usize, group: usize) -> bool {
        self.plan.drop_in && self.sentinels[host].disk.is_some() && self.known(host, group).is_none()
    }

    fn disk_epoch(&self, host: usize) -> Epoch {
        self.sentinels[host].disk.as_ref().map_or(0, epoch_on)
    }

    /// What it posts to the peer link.
    pub fn check_post(&mut self, host: usize, facts: &SentinelFacts) {
        let disk = self.disk_epoch(host);
        let told = facts.current_epoch;
        self.checks.must(told == disk, || format!("s{host} posts epoch {told}, and has {disk} on disk"));
        self.checks.told_epoch(host, told);
        for group in 0..self.groups.len() {
            let Some(master) = about(facts, group) else {
                self.check_released(host, group, None);
                continue;
            };
            self.check_released(host, group, master.leads);
            // A name that is not known yet stands for no address.
            let unknown = master.decision.is_some_and(|decision| decision.master.ip().is_unspecified());
            if self.removed(host, group) || unknown {
                continue;
            }
            let on_disk = self.known(host, group).unwrap_or_default();
            let decision = master.decision.map(here);
            let vote = match (master.vote, on_disk.vote) {
                (Some((leader, epoch)), Some(_)) => on_disk.has_vote(leader, epoch),
                (told, on_disk) => told.is_none() && on_disk.is_none(),
            };
            self.checks.must(vote && decision == on_disk.decision, || {
                format!("s{host} posts what is not on its disk: {master:?}, {on_disk:?}")
            });
            if let Some(decision) = master.decision {
                self.checks.decided(host, group, decision);
            }
            if let Some((leader, epoch)) = master.vote.filter(|(leader, _)| is_for_somebody(*leader)) {
                self.checks.voted(host, group, leader, epoch);
            }
        }
    }

    /// What it answers to the question whether a master is down: it may be a vote.
    pub fn check_answer(&mut self, host: usize, client: ClientId, answer: &Answer) {
        let Answer::Reply(reply) = answer else { return };
        let refused = matches!(reply, Reply::Error(_));
        let [Reply::Integer(_), leader, Reply::Integer(epoch)] = reply.array().unwrap_or_default() else {
            if refused && let Some(asked) = self.checks.memories[host].questions.get_mut(&client) {
                asked.pop_front();
            }
            return;
        };
        let asked = self.checks.memories[host].questions.get_mut(&client).and_then(VecDeque::pop_front).flatten();
        let Some(leader) = leader.text().and_then(|leader| leader.parse::<RunId>().ok()) else { return };
        let epoch = Epoch::try_from(*epoch).unwrap_or(0);
        let Some(group) = asked.and_then(|about| self.redis_of(about)).map(|redis| self.redis[redis].group) else {
            return self.checks.violated(format!("s{host} gives a vote on nothing: {leader} in {epoch}"));
        };
        if self.removed(host, group) {
            return;
        }
        // It may have voted in a higher epoch since, and wait for that one's store; or both votes came within one store, and a
        // higher one on disk rules another one in this epoch out as well.
        let kept = self.checks.votes_kept.get(&(host, group, epoch));
        let higher = self.checks.stored[host].vote_epochs[group] > epoch;
        self.checks.must(kept.map_or(higher, |of| of.is_none_or(|of| of == leader)), || {
            format!("s{host} gives a vote on group {group} that was never on its disk: {leader} in {epoch}")
        });
        self.checks.voted(host, group, leader, epoch);
    }

    /// What it asks or orders.
    pub fn check_query(&mut self, host: usize, wire: u64, tag: Tag, args: &[Bytes]) {
        match (text(args, 0), tag) {
            ("SENTINEL", Tag::Ask(_, about)) => {
                let group = self.redis_of(about).map_or(0, |redis| self.redis[redis].group);
                self.check_question(host, group, args);
            }
            ("PUBLISH", _) => {
                // A hold of writes holds PUBLISH too, and all that is sent behind it: its own end among it.
                let held = self.checks.holds.values().any(|hold| hold.wire == wire && !hold.fenced_off);
                self.checks.must(!held, || format!("s{host} blocks the link on which it must release writes"));
                self.check_hello(host, text(args, 2));
            }
            ("REPLICAOF" | "SLAVEOF", _) if text(args, 1) != "NO" => {
                let to = first_address(text(args, 1)).zip(text(args, 2).parse().ok());
                let Some(to) = to.map(|(to, port)| SocketAddr::new(to.ip(), port)) else { return };
                let Some(redis) = self.wires.get(&wire).map(|wire| wire.to) else { return };
                let group = self.redis[redis].group;
                if self.removed(host, group) {
                    return;
                }
                let on_disk = self.disk_decision(host, group).map(|decision| decision.master);
                self.checks.must(on_disk == Some(to), || {
                    format!("s{host} points r{redis} at {to}, and has {on_disk:?} on disk")
                });
            }
            (_, Tag::Pause(epoch)) => {
                let Some(redis) = self.wires.get(&wire).map(|wire| wire.to) else { return };
                let (incarnation, group) = (self.redis[redis].incarnation, self.redis[redis].group);
                let hold =
                    Hold { wire, redis, incarnation, epoch, since: self.checks.memories[host].now, fenced_off: false };
                self.checks.holds.insert((host, group), hold);
            }
            ("CLIENT", _) if text(args, 1) == "UNPAUSE" => self.checks.holds.retain(|_, hold| hold.wire != wire),
            ("EXEC", Tag::Promote(epoch)) => self.check_promotion(host, wire, epoch),
            _ => {}
        }
    }

    fn check_question(&mut self, host: usize, group: usize, args: &[Bytes]) {
        let epoch: Epoch = text(args, 4).parse().unwrap_or(0);
        let disk = self.disk_epoch(host);
        self.checks.must(epoch <= disk, || format!("s{host} asks in epoch {epoch}, and has {disk} on disk"));
        if let Ok(candidate) = text(args, 5).parse::<RunId>() {
            let vote = self.known(host, group).and_then(|known| known.vote);
            self.checks.must(self.removed(host, group) || self.has_vote(host, group, candidate, epoch), || {
                format!("s{host} asks for votes in epoch {epoch}, and its own on disk is {vote:?}")
            });
            self.checks.voted(host, group, candidate, epoch);
        }
    }

    fn check_hello(&mut self, host: usize, payload: &str) {
        let Ok(hello) = payload.parse::<Hello>() else {
            return self.checks.violated(format!("s{host} greets with what is no hello: {payload:?}"));
        };
        let group = (0..self.groups.len()).find(|group| crate::world::group_name(*group) == hello.master_name);
        let Some(group) = group else { return };
        let disk = self.disk_epoch(host);
        let told = hello.current_epoch;
        self.checks.must(told <= disk, || format!("s{host} greets with epoch {told}, and has {disk} on disk"));
        self.checks.told_epoch(host, told);
        let on_disk = self.disk_decision(host, group);
        if self.removed(host, group) {
            return;
        }
        if hello.config_epoch > 0
            && let Some(master) = first_address(&hello.master.host)
        {
            let told = Decision { master, epoch: hello.config_epoch };
            self.checks.must(on_disk == Some(told), || format!("s{host} greets with {told:?}, on disk is {on_disk:?}"));
            self.checks.decided(host, group, told);
        }
    }
}
