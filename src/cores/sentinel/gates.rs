//! How the gates stand between a master that looks bad and a replica that is made master. Nothing is decided here: each gate
//! reads what the machine itself decides by.

use std::time::Duration;

use crate::base::Instant;
use crate::base::node::Mode;
use crate::base::time::millis;

use super::Agreement;
use super::instance::{Instance, Reconf};
use super::lead::{Failover, Following, Lead, Phase};
use super::master::Master;
use super::moment::Moment;
use super::peer::Peer;
use super::select::{self, Candidate, Rejection};
use super::why::{Checked, DownBy, Gate, MasterWhy, Outcome, Rejected, SentinelWhy, Verdict, Who};

/// The other sentinels are asked, and answer, within this time: until then a missing voice blocks nothing.
const ANSWER_TIME: Duration = Duration::from_secs(1);

impl Agreement {
    /// Every gate of every master, as it stands now.
    pub(super) fn why(&self, now: Instant) -> Vec<MasterWhy> {
        self.masters.iter().map(|master| self.master_why(master, now)).collect()
    }

    fn master_why(&self, master: &Master, now: Instant) -> MasterWhy {
        let decided = master.decision.is_some();
        let needed = master.watched().down_since.is_some() || !decided;
        let gates = vec![
            self.decision_gate(master),
            down_gate(master, now),
            self.quorum_gate(master, now),
            self.password_gate(master),
            self.majority_gate(master, now),
            self.store_gate(now),
            self.leader_gate(master, now),
            pause_gate(master, needed, now),
            self.candidate_gate(master, now),
            self.election_gate(master, now),
            promotion_gate(master, now),
            reconfiguration_gate(master, now),
        ];
        MasterWhy {
            name: master.config.name.clone(),
            master: decided.then(|| who(master.watched())),
            outcome: self.outcome(master, needed, &gates),
            gates,
            sentinels: self.watchers(master).map(|peer| sentinel_why(peer, master, now)).collect(),
        }
    }

    fn outcome(&self, master: &Master, needed: bool, gates: &[Checked]) -> Outcome {
        let blocks = gates.iter().any(|gate| gate.verdict == Verdict::Blocks);
        // Who cannot win only tries; who is elected needs nobody's vote any more.
        let elected = elected(master).is_some();
        let ordered = master.cause().is_some() && !needed;
        let followed = matches!(master.failover(), Failover::Following(_));
        if elected || ordered || followed || self.other_leads(master) {
            Outcome::UnderWay
        } else if needed && blocks {
            Outcome::Blocked
        } else if needed && master.leads().is_some() {
            Outcome::UnderWay
        } else if needed || gates.iter().any(|gate| gate.verdict == Verdict::Waits) {
            Outcome::Awaited
        } else {
            Outcome::NotNeeded
        }
    }

    fn decision_gate(&self, master: &Master) -> Checked {
        let waits_for = self.waits_for();
        let first = self.amnesia.is_none() && self.bootstrap_node(master).is_some();
        let verdict = open_if(master.decision.is_some() || first);
        let others = self.watchers(master).filter(|peer| peer.has_no_record_of(master)).count();
        let without_record = usize::from(master.decision.is_none()) + others;
        let epoch = master.decision.map(|decision| decision.epoch);
        let taken_over = epoch.is_some() && master.mode == Mode::TakenOver;
        Checked {
            verdict,
            gate: Gate::Decision { epoch, without_record, needed: self.majority(master), waits_for, taken_over },
        }
    }

    fn quorum_gate(&self, master: &Master, now: Instant) -> Checked {
        let own = master.watched().down_since.filter(|_| master.decision.is_some());
        let others = self.watchers(master).filter(|peer| peer.sees_down(master, now)).count();
        let (agree, needed) = (usize::from(own.is_some()) + others, master.quorum());
        let verdict = match own {
            None => Verdict::Ahead,
            Some(_) if agree >= needed => Verdict::Open,
            Some(since) if now.since(since) < ANSWER_TIME => Verdict::Waits,
            Some(_) => Verdict::Blocks,
        };
        Checked { verdict, gate: Gate::Quorum { agree, needed, of: self.voters(master) } }
    }

    fn password_gate(&self, master: &Master) -> Checked {
        let refused_by = master.nodes.iter().filter(|node| node.auth_failed).count();
        let gate = Gate::Password { refused_by, of: master.nodes.len() };
        Checked { verdict: open_if(!self.is_refused(master)), gate }
    }

    /// Votes that an election takes.
    fn votes_needed(&self, master: &Master) -> usize {
        self.majority(master).max(master.quorum())
    }

    fn majority_gate(&self, master: &Master, now: Instant) -> Checked {
        let (reachable, needed) = (self.reachable(master), self.votes_needed(master));
        let takeover = self.takeover_would_help();
        let gate = Gate::Majority { reachable, needed, of: self.voters(master), takeover };
        let verdict = match open_if(reachable >= needed) {
            Verdict::Open if master.sees_down() && self.reunited_until(master, now).is_some() => Verdict::Waits,
            verdict => verdict,
        };
        Checked { verdict, gate }
    }

    fn store_gate(&self, now: Instant) -> Checked {
        let retry_ms = self.store_retry_at.map(|at| millis(at.since(now)));
        Checked { verdict: open_if(retry_ms.is_none()), gate: Gate::Store { retry_ms } }
    }

    fn leader_gate(&self, master: &Master, now: Instant) -> Checked {
        let leading = self.watchers(master).find_map(|peer| {
            let epoch = self.peer_leads(peer, master)?;
            Some((Some(peer.label()), epoch, None))
        });
        let followed = if let Failover::Following(Following { leader, epoch, until, .. }) = *master.failover() {
            let peer = self.peers.iter().find(|peer| peer.id == Some(leader));
            Some((peer.map(Peer::label), epoch, left(until, now)))
        } else {
            None
        };
        let (verdict, other, epoch, left_ms) = match leading.or(followed) {
            Some((other, epoch, left_ms)) => (Verdict::Waits, other, Some(epoch), left_ms),
            None => (Verdict::Open, None, None, None),
        };
        Checked { verdict, gate: Gate::Leader { other, epoch, left_ms } }
    }

    fn candidate_gate(&self, master: &Master, now: Instant) -> Checked {
        let decided = master.decision.is_some();
        let chosen = chosen(master);
        let choice = || if decided { master.choose(self.moment(now)).ok() } else { self.bootstrap_node(master) };
        let best = chosen.or_else(choice);
        let verdict = match best {
            Some(_) => Verdict::Open,
            None if decided => Verdict::Blocks,
            // Before the first decision it is a matter of that gate.
            None => Verdict::Ahead,
        };
        let (rejected, rejection) = match chosen {
            None if decided => rejections(master, best, self.moment(now)),
            Some(_) | None => (Vec::new(), None),
        };
        let best = best.map(|n| who(&master.nodes[n]));
        Checked { verdict, gate: Gate::Candidate { best, rejected, master: rejection } }
    }

    fn election_gate(&self, master: &Master, now: Instant) -> Checked {
        let needed = self.votes_needed(master);
        let epoch = master.leads();
        let votes = epoch.map_or(0, |epoch| self.votes_for_me(master, epoch));
        let open = epoch.map_or(0, |epoch| self.votes_open(master, epoch));
        let (verdict, left_ms) = match master.failover().lead() {
            Some(lead) if lead.phase == Phase::Electing => (Verdict::Waits, left(lead.until, now)),
            Some(_) => (Verdict::Open, None),
            None => (Verdict::Ahead, None),
        };
        Checked { verdict, gate: Gate::Election { epoch, votes, needed, open, left_ms } }
    }
}

/// The failover that this sentinel leads and not only stands for.
fn elected(master: &Master) -> Option<&Lead> {
    master.failover().lead().filter(|lead| lead.phase != Phase::Electing)
}

/// Who is told to be master, or is it already, by the failover that this sentinel leads.
fn chosen(master: &Master) -> Option<usize> {
    let phase = master.failover().lead()?.phase;
    if phase == Phase::Reconfiguring { Some(master.at()) } else { phase.target() }
}

fn who(node: &Instance) -> Who {
    Who { node: node.node.clone(), address: node.address }
}

fn sentinel_why(peer: &Peer, master: &Master, now: Instant) -> SentinelWhy {
    let silent = now.since(peer.pulse.silent_since.unwrap_or(peer.pulse.last_ok));
    SentinelWhy {
        node: peer.label(),
        unreachable_ms: (!peer.looks_alive()).then(|| millis(silent)),
        finds_down: peer.sees_down(master, now),
    }
}

fn down_gate(master: &Master, now: Instant) -> Checked {
    let (node, decided) = (master.watched(), master.decision.is_some());
    let limit = master.silence_allowed(node);
    let silent = node.pulse.silent_since.map(|since| now.since(since));
    let by = node.down_since.filter(|_| decided).map(|_| {
        if master.proved_down() {
            DownBy::Proof
        } else if silent.is_some_and(|silent| silent >= limit) {
            DownBy::Silence
        } else if node.is_replica() {
            DownBy::Role
        } else {
            DownBy::Lease
        }
    });
    let strays = decided && node.is_replica();
    // A ping that was sent a moment ago and is not answered yet is no silence.
    let worries = strays || silent.is_some_and(|silent| silent >= limit / 2 || node.command.up().is_none());
    let verdict = match by {
        Some(_) => Verdict::Open,
        None if !decided => Verdict::Open,
        None if worries => Verdict::Waits,
        None => Verdict::Idle,
    };
    let down_ms = by.and(node.down_since).map(|since| millis(now.since(since)));
    let (silent_ms, limit_ms, busy) = (silent.map(millis), millis(limit), node.is_busy());
    Checked { verdict, gate: Gate::Down { by, down_ms, silent_ms, limit_ms, busy } }
}

fn pause_gate(master: &Master, needed: bool, now: Instant) -> Checked {
    let until = match *master.failover() {
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

/// Every replica that is passed over for another reason than that another one is better, and, if there is none, what
/// keeps the master itself from going on.
fn rejections(master: &Master, best: Option<usize>, moment: Moment<'_>) -> (Vec<Rejected>, Option<Rejection>) {
    let (at, ground, all) = (master.at(), master.ground(moment), master.candidates(moment));
    let others: Vec<Candidate> = all.iter().filter(|one| one.address != all[at].address).cloned().collect();
    let reasons = match select::replica(&others, &ground) {
        Err(reasons) => reasons,
        Ok(_) => others
            .iter()
            .filter_map(|one| select::replica(std::slice::from_ref(one), &ground).err())
            .flatten()
            .collect(),
    };
    let passed_over = reasons.into_iter().filter_map(|(address, reason)| Some((master.place_of(address)?, reason)));
    let rejected = passed_over.filter(|(n, _)| Some(*n) != best);
    let rejected = rejected.map(|(n, reason)| Rejected { who: who(&master.nodes[n]), reason }).collect();
    let own = if best.is_none() { select::returned_master(&all, at, &ground).err() } else { None };
    (rejected, own)
}

fn promotion_gate(master: &Master, now: Instant) -> Checked {
    let (verdict, told, left_ms) = match elected(master) {
        None => (Verdict::Ahead, false, None),
        Some(lead) if lead.phase == Phase::Reconfiguring => (Verdict::Open, true, None),
        Some(lead) => (Verdict::Waits, lead.phase.is_told(), left(lead.until, now)),
    };
    let target = chosen(master).map(|n| who(&master.nodes[n]));
    Checked { verdict, gate: Gate::Promotion { target, told, left_ms } }
}

fn reconfiguration_gate(master: &Master, now: Instant) -> Checked {
    let reconfiguring = elected(master).filter(|lead| lead.phase == Phase::Reconfiguring);
    let (verdict, pending, left_ms) = if let Some(lead) = reconfiguring {
        let others = master.others().map(|n| &master.nodes[n]);
        let waited_for = others.filter(|node| node.down_since.is_none() && node.command.up().is_some());
        let pending = waited_for.filter(|node| node.reconf != Reconf::Done).count();
        (Verdict::Waits, Some(pending), left(lead.until, now))
    } else {
        (Verdict::Ahead, None, None)
    };
    Checked { verdict, gate: Gate::Reconfiguration { pending, left_ms } }
}

fn left(until: Instant, now: Instant) -> Option<u64> {
    Some(millis(until.since(now)))
}

/// A gate that is either open or shut, whatever stands before it.
fn open_if(open: bool) -> Verdict {
    if open { Verdict::Open } else { Verdict::Blocks }
}
