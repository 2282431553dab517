//! Why there is, or is not, a failover: every gate between a master that looks bad and a replica that is made master, with its
//! value, its threshold and its verdict. Numbers, no prose: who asks puts them into words.
//!
//! Nothing is decided here. Each gate reads what the machine itself decides by.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{Epoch, Instant, NodeName};
use crate::wire::info::Role;

use super::instance::{Peer, Reconf};
use super::lead::{Failover, Following, Phase};
use super::select::{self, Candidate};
use super::{Rejection, Sentinel, monitor};

/// The other sentinels are asked, and answer, within this time: until then a missing voice blocks nothing.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// What one sentinel makes of one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterWhy {
    /// The name that clients ask for.
    pub name: String,
    /// The master by the decision; none before the first one.
    pub master: Option<Who>,
    /// What the gates come to.
    pub outcome: Outcome,
    /// All gates, in their order.
    pub gates: Vec<Checked>,
    /// The other sentinels.
    pub sentinels: Vec<SentinelWhy>,
}

/// What the gates come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The master is well, as far as this sentinel can see.
    NotNeeded,
    /// It will begin when some time has passed, if nothing changes.
    Awaited,
    /// It is under way, here or at another sentinel.
    UnderWay,
    /// It is needed and cannot be.
    Blocked,
}

/// What one gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is open.
    Open,
    /// There is nothing to let through: the master is well.
    Idle,
    /// It opens by itself, or the wait for it ends.
    Waits,
    /// It is shut.
    Blocks,
    /// It has not been come to.
    Ahead,
}

/// A gate and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What it does.
    pub verdict: Verdict,
    /// Which one, and its values.
    #[serde(flatten)]
    pub gate: Gate,
}

/// A gate and its values. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "snake_case")]
pub enum Gate {
    /// There has to be a master to replace; before the first one, a majority has to agree that there was none.
    Decision {
        /// The epoch of the decision; none before the first one.
        epoch: Option<Epoch>,
        /// Sentinels that know of none, this one among them.
        without_record: usize,
        /// As many have to.
        needed: usize,
    },
    /// This sentinel has to find the master down.
    Down {
        /// Why it does; none: it does not.
        by: Option<DownBy>,
        /// For how long it does.
        down_ms: Option<u64>,
        /// For how long nothing valid has come.
        silent_ms: Option<u64>,
        /// So long a silence is allowed: `down_after`, or `busy_grace` of one that is busy.
        limit_ms: u64,
        /// Whether its supervisor, or itself, says that it is busy.
        busy: bool,
    },
    /// A quorum has to find it down.
    Quorum {
        /// Who does, this sentinel among them.
        agree: usize,
        /// As many have to.
        needed: usize,
        /// Of so many.
        of: usize,
    },
    /// This node's password has to be that of the others.
    Password {
        /// Redis that refuse it.
        refused_by: usize,
        /// Of so many.
        of: usize,
    },
    /// So many sentinels have to be there as have to vote.
    Majority {
        /// Who is there, this sentinel among them.
        reachable: usize,
        /// As many have to be: a majority of the voters, and the quorum.
        needed: usize,
        /// Of so many.
        of: usize,
    },
    /// A vote has to be on disk before it is given.
    Store {
        /// The store fails, and is tried again after so long; none: it works.
        retry_ms: Option<u64>,
    },
    /// Nobody else may lead.
    Leader {
        /// Who does, or has this sentinel's vote to do so.
        other: Option<String>,
        /// Its epoch.
        epoch: Option<Epoch>,
        /// This sentinel waits for it at most so long.
        left_ms: Option<u64>,
    },
    /// After a failed attempt, and before the turn of this sentinel, there is a pause.
    Pause {
        /// What is left of it.
        left_ms: u64,
    },
    /// Somebody must be fit to be master.
    Candidate {
        /// The best one.
        best: Option<Who>,
        /// If there is none: everybody, and why not.
        rejected: Vec<Rejected>,
        /// The master itself, if it came back without its role.
        master: Option<Rejection>,
    },
    /// The voters have to elect this sentinel.
    Election {
        /// The epoch that is voted in; none: no election.
        epoch: Option<Epoch>,
        /// Votes for this sentinel, its own among them.
        votes: usize,
        /// As many are needed.
        needed: usize,
        /// Votes that may still come.
        open: usize,
        /// The election ends then.
        left_ms: Option<u64>,
    },
    /// The chosen one has to say that it is master.
    Promotion {
        /// Who; none: nobody is chosen yet.
        target: Option<Who>,
        /// Whether it has been told.
        told: bool,
        /// It is given up then.
        left_ms: Option<u64>,
    },
    /// The others are pointed at the new master.
    Reconfiguration {
        /// Who does not follow it yet; none: it has not begun.
        pending: Option<usize>,
        /// They are given up then.
        left_ms: Option<u64>,
    },
}

/// Why a sentinel finds a master down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownBy {
    /// Its supervisor says that it is dead, or was started anew.
    Proof,
    /// Nothing valid has come for too long.
    Silence,
    /// It says of itself, for too long, that it is a replica.
    Role,
}

/// One redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its node; none if it is not in the file.
    pub node: Option<NodeName>,
    /// Where it is.
    pub address: SocketAddr,
}

/// Who cannot be master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// Why not.
    pub reason: Rejection,
}

/// Another sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelWhy {
    /// Its node.
    pub node: String,
    /// For how long it cannot be counted on to answer; none: it can.
    pub unreachable_ms: Option<u64>,
    /// Whether it finds the master down, by its last word that is recent enough; as long as there is none it does not.
    pub finds_down: bool,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn left(until: Instant, now: Instant) -> Option<u64> {
    Some(millis(until.since(now)))
}

/// A gate that is either open or shut, whatever stands before it.
fn open_if(open: bool) -> Verdict {
    if open { Verdict::Open } else { Verdict::Blocks }
}

impl Sentinel {
    /// Every gate of every master, as it stands now.
    pub fn why(&self, now: Instant) -> Vec<MasterWhy> {
        (0..self.masters.len()).map(|m| self.master_why(m, now)).collect()
    }

    fn master_why(&self, m: usize, now: Instant) -> MasterWhy {
        let decided = self.decision(m).is_some();
        let down = self.masters[m].nodes[self.master_at(m)].down_since;
        let needed = down.is_some() || !decided;
        let gates = vec![
            self.decision_gate(m),
            self.down_gate(m, now),
            self.quorum_gate(m, now),
            self.password_gate(m),
            self.majority_gate(m),
            self.store_gate(now),
            self.leader_gate(m, now),
            self.pause_gate(m, needed, now),
            self.candidate_gate(m, now),
            self.election_gate(m, now),
            self.promotion_gate(m, now),
            self.reconfiguration_gate(m, now),
        ];
        let master = decided.then(|| self.who(m, self.master_at(m)));
        MasterWhy {
            name: self.masters[m].config.name.clone(),
            master,
            outcome: self.outcome(m, needed, &gates),
            gates,
            sentinels: self.peers_of(m).map(|p| self.sentinel_why(p, &self.peers[p], m, now)).collect(),
        }
    }

    fn outcome(&self, m: usize, needed: bool, gates: &[Checked]) -> Outcome {
        let blocks = gates.iter().any(|gate| gate.verdict == Verdict::Blocks);
        // Who cannot win only tries; who is elected needs nobody's vote any more.
        let elected = self.masters[m].failover.lead().is_some_and(|lead| lead.phase != Phase::Electing);
        let ordered = self.masters[m].cause().is_some() && !needed;
        let followed = matches!(self.masters[m].failover, Failover::Following(_));
        if elected || ordered || followed || self.other_leads(m) {
            Outcome::UnderWay
        } else if needed && blocks {
            Outcome::Blocked
        } else if needed && self.masters[m].leads().is_some() {
            Outcome::UnderWay
        } else if needed || gates.iter().any(|gate| gate.verdict == Verdict::Waits) {
            Outcome::Awaited
        } else {
            Outcome::NotNeeded
        }
    }

    fn who(&self, m: usize, n: usize) -> Who {
        let node = &self.masters[m].nodes[n];
        Who { node: node.node.clone(), address: node.address }
    }

    fn sentinel_why(&self, p: usize, peer: &Peer, m: usize, now: Instant) -> SentinelWhy {
        let silent = now.since(peer.silent_since.unwrap_or(peer.last_ok));
        SentinelWhy {
            node: peer.label(),
            unreachable_ms: (!peer.looks_alive()).then(|| millis(silent)),
            finds_down: self.peer_sees_down(p, m, now),
        }
    }

    fn decision_gate(&self, m: usize) -> Checked {
        let decision = self.decision(m);
        let verdict = open_if(decision.is_some() || self.bootstrap_node(m).is_some());
        let unrecorded = |p: &usize| self.peer_master(*p, m).is_some_and(|facts| facts.decision.is_none());
        let others = self.peers_of(m).filter(unrecorded).count();
        let without_record = usize::from(decision.is_none()) + others;
        let epoch = decision.map(|decision| decision.epoch);
        Checked { verdict, gate: Gate::Decision { epoch, without_record, needed: self.majority(m) } }
    }

    fn down_gate(&self, m: usize, now: Instant) -> Checked {
        let (config, node) = (&self.masters[m].config, &self.masters[m].nodes[self.master_at(m)]);
        let decided = self.decision(m).is_some();
        let busy = monitor::busy(node);
        let limit = if busy { config.busy_grace.max(config.down_after) } else { config.down_after };
        let silent = node.silent_since.map(|since| now.since(since));
        let by = node.down_since.filter(|_| decided).map(|_| {
            if self.proved_down(m) {
                DownBy::Proof
            } else if silent.is_some_and(|silent| silent >= limit) {
                DownBy::Silence
            } else {
                DownBy::Role
            }
        });
        let strays = decided && node.info.as_ref().is_some_and(|info| info.role == Some(Role::Replica));
        // A ping that was sent a moment ago and is not answered yet is no silence.
        let worries = strays || silent.is_some_and(|silent| silent >= limit / 2 || node.command.up().is_none());
        let verdict = match by {
            Some(_) => Verdict::Open,
            None if !decided => Verdict::Open,
            None if worries => Verdict::Waits,
            None => Verdict::Idle,
        };
        let down_ms = by.and(node.down_since).map(|since| millis(now.since(since)));
        let gate = Gate::Down { by, down_ms, silent_ms: silent.map(millis), limit_ms: millis(limit), busy };
        Checked { verdict, gate }
    }

    fn quorum_gate(&self, m: usize, now: Instant) -> Checked {
        let down_since = self.masters[m].nodes[self.master_at(m)].down_since;
        let own = down_since.filter(|_| self.decision(m).is_some());
        let others = self.peers_of(m).filter(|p| self.peer_sees_down(*p, m, now)).count();
        let agree = usize::from(own.is_some()) + others;
        let needed = usize::try_from(self.masters[m].config.quorum).unwrap_or(usize::MAX);
        let verdict = match own {
            None => Verdict::Ahead,
            Some(_) if agree >= needed => Verdict::Open,
            Some(since) if now.since(since) < ANSWER_TIME => Verdict::Waits,
            Some(_) => Verdict::Blocks,
        };
        Checked { verdict, gate: Gate::Quorum { agree, needed, of: self.voters(m) } }
    }

    fn password_gate(&self, m: usize) -> Checked {
        let nodes = &self.masters[m].nodes;
        let refused_by = nodes.iter().filter(|node| node.auth_failed).count();
        Checked { verdict: open_if(!self.is_refused(m)), gate: Gate::Password { refused_by, of: nodes.len() } }
    }

    /// Votes that an election takes.
    fn votes_needed(&self, m: usize) -> usize {
        self.majority(m).max(usize::try_from(self.masters[m].config.quorum).unwrap_or(usize::MAX))
    }

    fn majority_gate(&self, m: usize) -> Checked {
        let (reachable, needed) =
            (1 + self.peers_of(m).filter(|p| self.peers[*p].looks_alive()).count(), self.votes_needed(m));
        let gate = Gate::Majority { reachable, needed, of: self.voters(m) };
        Checked { verdict: open_if(reachable >= needed), gate }
    }

    fn store_gate(&self, now: Instant) -> Checked {
        let retry_ms = self.store_retry_at.map(|at| millis(at.since(now)));
        Checked { verdict: open_if(retry_ms.is_none()), gate: Gate::Store { retry_ms } }
    }

    fn leader_gate(&self, m: usize, now: Instant) -> Checked {
        let known = self.decision(m).map_or(0, |decision| decision.epoch);
        let leading = self.peers_of(m).find_map(|p| {
            let peer = &self.peers[p];
            let epoch = self.peer_leads(p, m).filter(|epoch| *epoch > known)?;
            Some((Some(peer.label()), epoch, None))
        });
        let followed = if let Failover::Following(Following { leader, epoch, until, .. }) = self.masters[m].failover {
            let peer = self.peers.iter().find(|peer| peer.id == Some(leader));
            Some((peer.map(|peer| peer.label()), epoch, left(until, now)))
        } else {
            None
        };
        let (verdict, other, epoch, left_ms) = match leading.or(followed) {
            Some((other, epoch, left_ms)) => (Verdict::Waits, other, Some(epoch), left_ms),
            None => (Verdict::Open, None, None, None),
        };
        Checked { verdict, gate: Gate::Leader { other, epoch, left_ms } }
    }

    fn pause_gate(&self, m: usize, needed: bool, now: Instant) -> Checked {
        let until = match self.masters[m].failover {
            Failover::Idle { not_before: until } | Failover::Waiting { start_at: until, .. } => until,
            Failover::Following(_) | Failover::Leading(_) => now,
        };
        let left_ms = millis(until.since(now));
        let verdict = match left_ms {
            0 => Verdict::Open,
            _ if needed => Verdict::Waits,
            _ => Verdict::Ahead,
        };
        Checked { verdict, gate: Gate::Pause { left_ms } }
    }

    /// Who is told to be master, or is it already, by the failover that this sentinel leads.
    fn chosen(&self, m: usize) -> Option<usize> {
        let phase = self.masters[m].failover.lead()?.phase;
        if phase == Phase::Reconfiguring { Some(self.master_at(m)) } else { phase.target() }
    }

    fn candidate_gate(&self, m: usize, now: Instant) -> Checked {
        let decided = self.decision(m).is_some();
        let chosen = self.chosen(m);
        let best = chosen.or_else(|| if decided { self.choose(m, now).ok() } else { self.bootstrap_node(m) });
        let verdict = match best {
            Some(_) => Verdict::Open,
            None if decided => Verdict::Blocks,
            // Before the first decision it is a matter of that gate.
            None => Verdict::Ahead,
        };
        let (rejected, master) = match chosen {
            None if decided => self.rejections(m, best, now),
            Some(_) | None => (Vec::new(), None),
        };
        let best = best.map(|n| self.who(m, n));
        Checked { verdict, gate: Gate::Candidate { best, rejected, master } }
    }

    /// Every replica that is passed over for another reason than that another one is better, and, if there is none, what
    /// keeps the master itself from going on.
    fn rejections(&self, m: usize, best: Option<usize>, now: Instant) -> (Vec<Rejected>, Option<Rejection>) {
        let (at, ground) = (self.master_at(m), self.ground(m, now));
        let all: Vec<Candidate> = (0..self.masters[m].nodes.len()).map(|n| self.candidate(m, n, now)).collect();
        let others: Vec<Candidate> = all.iter().filter(|one| one.address != all[at].address).cloned().collect();
        let reasons = match select::replica(&others, &ground) {
            Err(reasons) => reasons,
            Ok(_) => others
                .iter()
                .filter_map(|one| select::replica(std::slice::from_ref(one), &ground).err())
                .flatten()
                .collect(),
        };
        let nodes = &self.masters[m].nodes;
        let place = |address| nodes.iter().position(|node| node.address == address);
        let passed_over = reasons.into_iter().filter_map(|(address, reason)| Some((place(address)?, reason)));
        let rejected = passed_over.filter(|(n, _)| Some(*n) != best);
        let rejected = rejected.map(|(n, reason)| Rejected { who: self.who(m, n), reason }).collect();
        let master = if best.is_none() { select::returned_master(&all, at, &ground).err() } else { None };
        (rejected, master)
    }

    fn election_gate(&self, m: usize, now: Instant) -> Checked {
        let needed = self.votes_needed(m);
        let epoch = self.masters[m].leads();
        let votes = epoch.map_or(0, |epoch| self.votes_for_me(m, epoch));
        let open = epoch.map_or(0, |epoch| self.votes_open(m, epoch));
        let (verdict, left_ms) = match self.masters[m].failover.lead() {
            Some(lead) if lead.phase == Phase::Electing => (Verdict::Waits, left(lead.until, now)),
            Some(_) => (Verdict::Open, None),
            None => (Verdict::Ahead, None),
        };
        Checked { verdict, gate: Gate::Election { epoch, votes, needed, open, left_ms } }
    }

    fn promotion_gate(&self, m: usize, now: Instant) -> Checked {
        let elected = self.masters[m].failover.lead().filter(|lead| lead.phase != Phase::Electing);
        let (verdict, told, left_ms) = match elected {
            None => (Verdict::Ahead, false, None),
            Some(lead) if lead.phase == Phase::Reconfiguring => (Verdict::Open, true, None),
            Some(lead) => (Verdict::Waits, lead.phase.is_told(), left(lead.until, now)),
        };
        let target = self.chosen(m).map(|n| self.who(m, n));
        Checked { verdict, gate: Gate::Promotion { target, told, left_ms } }
    }

    fn reconfiguration_gate(&self, m: usize, now: Instant) -> Checked {
        let reconfiguring = self.masters[m].failover.lead().filter(|lead| lead.phase == Phase::Reconfiguring);
        let (verdict, pending, left_ms) = if let Some(lead) = reconfiguring {
            let others = self.masters[m].nodes.iter().filter(|node| node.address != self.monitored(m));
            let waited_for = others.filter(|node| node.down_since.is_none() && node.command.up().is_some());
            let pending = waited_for.filter(|node| node.reconf != Reconf::Done).count();
            (Verdict::Waits, Some(pending), left(lead.until, now))
        } else {
            (Verdict::Ahead, None, None)
        };
        Checked { verdict, gate: Gate::Reconfiguration { pending, left_ms } }
    }
}
