//! Who is to be the next master: a pure choice among what is known, with a reason for everybody who is passed over.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{Epoch, RunId};

/// What is known of one redis at the moment of the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where it is.
    pub(super) address: SocketAddr,
    /// Whether it can be told anything now.
    pub(super) connected: bool,
    /// Whether this sentinel finds it down.
    pub(super) down: bool,
    /// Whether no majority could grant it the lease that it needs: its node does not hear one, or is not heard.
    pub(super) cut_off: bool,
    /// Age of what it last said of itself; none if it never did.
    pub(super) info_age: Option<Duration>,
    /// Whether it was named as the next master again and again, and did not open.
    pub(super) does_not_open: bool,
    /// `slave_priority`
    pub(super) priority: u32,
    /// What it has applied, bytes.
    pub(super) offset: u64,
    /// Its run id.
    pub(super) run_id: Option<RunId>,
    /// Lineage of its data.
    pub(super) lineage: Option<RunId>,
    /// Whether it says that it is a replica.
    pub(super) replica: bool,
    /// Whose data it had when it was made a master; none if it is none, or never was anything else.
    pub(super) promoted_from: Option<RunId>,
    /// Closed: it follows nobody since its start.
    pub(super) closed: bool,
    /// Whether it still reads its data from disk.
    pub(super) loading: bool,
    /// Whether a full synchronisation is under way.
    pub(super) syncing: bool,
    /// Whether its link to the master was up since it was pointed at it.
    pub(super) ever_linked: bool,
    /// For how long its link to the master is down.
    pub(super) link_down: Duration,
    /// Whether it holds data; none if it does not say.
    pub(super) has_data: Option<bool>,
    /// History of its data, in sync with a master of that epoch at that offset.
    pub(super) in_sync: Option<(Epoch, u64)>,
}

/// What the choice depends on beside the candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ground {
    /// Oldest word of a candidate that is believed.
    pub(super) info_age_max: Duration,
    /// Longest time that a replica may have been without its master.
    pub(super) link_down_max: Duration,
    /// Lineage of the master's data, if it is known.
    pub(super) lineage: Option<RunId>,
    /// The epoch since which the master is master.
    pub(super) epoch: Epoch,
}

/// Why a redis is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// No link to it.
    #[error("not connected")]
    NotConnected,
    /// It is down itself.
    #[error("down")]
    Down,
    /// Its node hears no majority of the sentinels, or is not heard: it would get no lease.
    #[error("cut off from the majority of the sentinels")]
    CutOff,
    /// It has not said anything for too long.
    #[error("its INFO is too old")]
    StaleInfo,
    /// It does not say that it is a replica.
    #[error("no replica")]
    NoReplica,
    /// `slave_priority` 0.
    #[error("its priority is 0")]
    PriorityZero,
    /// It was restarted and follows nobody.
    #[error("closed since its start")]
    Closed,
    /// It reads its data from disk.
    #[error("still loading its data")]
    Loading,
    /// In the middle of a full synchronisation: its data is nobody's.
    #[error("in the middle of a synchronisation")]
    Syncing,
    /// Its link to the master was never up.
    #[error("never in sync with its master")]
    NeverLinked,
    /// Its link to the master went down long before the master did.
    #[error("too long without its master")]
    LinkDownTooLong,
    /// Its data comes from somewhere else.
    #[error("its data is of another lineage")]
    OtherLineage,
    /// It is empty and others are not.
    #[error("empty, while others hold data")]
    Empty,
    /// Nothing says that its data was in sync when it stopped.
    #[error("no record of having been in sync")]
    NoHistory,
    /// It was in sync with an earlier master, and knows nothing of what the last one acknowledged.
    #[error("its data is that of an earlier master")]
    EarlierMaster,
    /// It has synchronised since its start: what it holds is not what its record tells of.
    #[error("its data has changed since its start")]
    Changed,
}

/// The best replica: lowest priority, then most data, then smallest run id; one that does not open only if there is no other.
/// All others with the reason why not.
pub(super) fn replica(candidates: &[Candidate], ground: &Ground) -> Result<usize, Vec<(SocketAddr, Rejection)>> {
    let judge = |at: usize| regular(&candidates[at], ground).or_else(|| empty(candidates, at));
    best(candidates, judge, |one| {
        (one.does_not_open, one.priority, Reverse(one.offset), one.run_id.is_none(), one.run_id)
    })
}

/// The best of those that were made masters in the place of the one that is gone, by a leader that did not live to say so. They
/// are no replicas any more, and yet the only ones that have all of its data.
pub(super) fn promoted(candidates: &[Candidate], ground: &Ground) -> Result<usize, Vec<(SocketAddr, Rejection)>> {
    let judge = |at: usize| {
        let one = &candidates[at];
        let unfit = reachable(one, ground)
            .or_else(|| one.closed.then_some(Rejection::Closed))
            .or_else(|| one.promoted_from.is_none().then_some(Rejection::NoReplica))
            .or_else(|| one.loading.then_some(Rejection::Loading));
        // Of a lineage that is not known, anybody could claim to be the heir.
        let other = one.promoted_from != ground.lineage;
        unfit.or_else(|| other.then_some(Rejection::OtherLineage)).or_else(|| empty(candidates, at))
    };
    best(candidates, judge, |one| (Reverse(one.offset), one.run_id.is_none(), one.run_id))
}

/// The best of the redis that hold what they read from disk, by the history of that data.
pub(super) fn by_history(candidates: &[Candidate], ground: &Ground) -> Result<usize, Vec<(SocketAddr, Rejection)>> {
    let judge = |at: usize| {
        let one = &candidates[at];
        let unfit = reachable(one, ground)
            .or_else(|| (!one.replica).then_some(Rejection::NoReplica))
            .or_else(|| one.syncing.then_some(Rejection::Syncing))
            .or_else(|| (!untouched(one)).then_some(Rejection::Changed))
            .or_else(|| one.loading.then_some(Rejection::Loading))
            .or_else(|| (one.priority == 0).then_some(Rejection::PriorityZero));
        unfit.or_else(|| unrecorded(one, ground)).or_else(|| empty(candidates, at))
    };
    best(candidates, judge, |one| (Reverse(one.in_sync), one.priority, one.run_id.is_none(), one.run_id))
}

/// Whether it holds what it held when it was closed or pointed elsewhere. Its supervisor points a closed redis at the master
/// of the record, whether that one is there or not: without a link nothing has come of it.
fn untouched(one: &Candidate) -> bool {
    one.closed || (one.replica && !one.ever_linked)
}

fn unrecorded(one: &Candidate, ground: &Ground) -> Option<Rejection> {
    match one.in_sync {
        None => Some(Rejection::NoHistory),
        Some((epoch, _)) if epoch < ground.epoch => Some(Rejection::EarlierMaster),
        Some(_) => None,
    }
}

/// Whether the master itself may go on where it stopped: it came back closed, or was made a replica of somebody who never
/// took it in (an order of an earlier leader that arrived late does that). What it holds must be what it had as that master.
pub(super) fn returned_master(candidates: &[Candidate], at: usize, ground: &Ground) -> Result<(), Rejection> {
    let one = &candidates[at];
    let unfit = reachable(one, ground)
        .or_else(|| (!one.replica).then_some(Rejection::NoReplica))
        .or_else(|| one.syncing.then_some(Rejection::Syncing))
        .or_else(|| (!untouched(one)).then_some(Rejection::Changed))
        .or_else(|| one.loading.then_some(Rejection::Loading))
        .or_else(|| empty(candidates, at))
        .or_else(|| unrecorded(one, ground));
    unfit.map_or(Ok(()), Err)
}

fn best<K: Ord>(
    candidates: &[Candidate],
    judge: impl Fn(usize) -> Option<Rejection>,
    key: impl Fn(&Candidate) -> K,
) -> Result<usize, Vec<(SocketAddr, Rejection)>> {
    let judged: Vec<_> = (0..candidates.len()).map(|at| (at, judge(at))).collect();
    let fit = judged.iter().filter(|(_, unfit)| unfit.is_none()).map(|(at, _)| *at);
    fit.min_by_key(|at| key(&candidates[*at])).ok_or_else(|| {
        let why = judged.iter().filter_map(|(at, unfit)| Some((candidates[*at].address, (*unfit)?)));
        why.collect()
    })
}

fn reachable(one: &Candidate, ground: &Ground) -> Option<Rejection> {
    if one.down {
        Some(Rejection::Down)
    } else if !one.connected {
        Some(Rejection::NotConnected)
    } else if one.cut_off {
        Some(Rejection::CutOff)
    } else if one.info_age.is_none_or(|age| age > ground.info_age_max) {
        Some(Rejection::StaleInfo)
    } else {
        None
    }
}

fn regular(one: &Candidate, ground: &Ground) -> Option<Rejection> {
    let unreachable = reachable(one, ground);
    if unreachable.is_some() {
        unreachable
    } else if one.closed {
        Some(Rejection::Closed)
    } else if !one.replica {
        Some(Rejection::NoReplica)
    } else if one.priority == 0 {
        Some(Rejection::PriorityZero)
    } else if one.loading {
        Some(Rejection::Loading)
    } else if one.syncing {
        Some(Rejection::Syncing)
    } else if !one.ever_linked {
        Some(Rejection::NeverLinked)
    } else if one.link_down > ground.link_down_max {
        Some(Rejection::LinkDownTooLong)
    } else if ground.lineage.is_some() && one.lineage.is_some() && one.lineage != ground.lineage {
        Some(Rejection::OtherLineage)
    } else {
        None
    }
}

/// An empty redis would take the data away from all others at their synchronisation.
fn empty(candidates: &[Candidate], at: usize) -> Option<Rejection> {
    let others = candidates.iter().enumerate().any(|(other, one)| other != at && one.has_data == Some(true));
    (candidates[at].has_data == Some(false) && others).then_some(Rejection::Empty)
}

/// The reasons in one line.
pub(super) fn explain(reasons: &[(SocketAddr, Rejection)]) -> String {
    if reasons.is_empty() {
        return "there is no other redis".to_owned();
    }
    reasons.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
