//! What the supervisor wants of the [fence](super::fence), by what that says of itself: to open redis while it holds the lease, or
//! its cluster is not fenced; to close it when somebody else was elected. That it closes in time is up to the fence. One that is
//! named as the next master is ordered to open before it has the lease: then nobody but the fence is on the way of the first write.

use std::time::Duration;

use super::Closing;
use super::fence::{Answer, By, Phase, Refusal, Status};
use crate::base::lease::Held;
use crate::base::{Epoch, Instant};

/// Between two tries to open what has refused.
const RETRY: Duration = Duration::from_millis(100);
/// Between two tries to close what was busy.
const INSIST: Duration = Duration::from_millis(10);

/// The fence of one process, as its supervisor sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// What the fence has said last of this process; none: nothing yet.
    status: Option<Status>,
    /// The order that is not answered yet.
    pending: Option<(u64, Order)>,
    /// The epoch of the lease by which it was opened last.
    epoch: Epoch,
    /// No order is given before: the last one was refused.
    again_at: Option<Instant>,
}

/// What the fence was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To take writes, by the lease of that epoch as soon as there is one.
    Open(Epoch),
    /// To take writes without one, by the decision of that epoch.
    Unbind(Epoch),
    /// To refuse writes.
    Close {
        /// To make room for somebody else.
        returns: bool,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Tell the fence.
    Tell(Order),
    /// It goes on by the lease of that epoch.
    GoOn(Epoch),
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Redis takes writes, by the lease of that epoch.
    Opened(Epoch),
    /// It took them without one, and holds one now.
    Bound,
    /// It takes them without one.
    Unbound,
    /// It was not opened: why, if that is more than bad timing.
    NotOpened(Option<Refusal>),
    /// What it was promised is given back.
    Returned,
    /// It refuses writes.
    Closed(Closing),
    /// It has not confirmed that it refuses writes, and was killed.
    Killed,
}

/// What the moves depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground<F> {
    /// The lease that is held, or was held last.
    pub(super) lease: Option<Held>,
    /// The epoch in which a leader wants this process as the master, if it has not given back the lease of that.
    pub(super) named: Option<Epoch>,
    /// The epoch of the decision, if that is one of a cluster that is not fenced.
    pub(super) unfenced: Option<Epoch>,
    /// Whether redis can be told anything.
    pub(super) ready: bool,
    /// Whether somebody else was elected after that epoch.
    pub(super) replaced: F,
}

impl Gate {
    /// Of a process that was just started, closed.
    pub(super) const START: Self = Self { status: None, pending: None, epoch: 0, again_at: None };

    fn phase(&self) -> Phase {
        self.status.map_or(Phase::Closed, |status| status.phase)
    }

    fn by(&self) -> By {
        self.status.map_or(By::Lease, |status| status.by)
    }

    /// Whether redis surely refuses writes, or takes them by a right that does not end.
    pub(super) fn is_settled(&self) -> bool {
        match (self.phase(), self.pending) {
            (Phase::Closed, None | Some((_, Order::Unbind(_)))) => true,
            (Phase::Opening | Phase::Open, None | Some((_, Order::Unbind(_)))) => self.by() == By::Decision,
            (Phase::Closed | Phase::Opening | Phase::Open, Some((_, Order::Open(_) | Order::Close { .. })))
            | (Phase::Closing | Phase::Killed, _) => false,
        }
    }

    /// What is to be done now.
    pub(super) fn next<F: Fn(Epoch) -> bool>(&mut self, now: Instant, ground: &Ground<F>) -> Option<Move> {
        self.again_at.take_if(|at| now >= *at);
        let Ground { lease, named, unfenced, ready, replaced } = ground;
        let status = self.status?;
        let lasts = lease.filter(|held| now < held.lease.fence_at());
        // Told before the lease comes, the fence opens by it without a word from here.
        let expected = lasts.map(|held| held.epoch).max(*named);
        // Who has held a lease of a later epoch than that of the decision was granted it in a fenced cluster.
        let unfenced = unfenced.filter(|epoch| *epoch >= self.epoch && lease.is_none_or(|held| held.epoch < *epoch));
        let may = *ready && self.again_at.is_none();
        // By the epoch of a lease that it is about to open by, too.
        let epoch = match self.pending {
            Some((_, Order::Open(epoch))) => epoch,
            Some((_, Order::Unbind(_) | Order::Close { .. })) | None => self.epoch,
        };
        match (status.phase, status.by, self.pending) {
            (_, _, Some((_, Order::Close { .. }))) => None,
            // It was told to open before it was known.
            (Phase::Closed | Phase::Opening, _, Some((_, Order::Open(_)))) | (Phase::Open, By::Lease, _)
                if replaced(epoch) && unfenced.is_none() =>
            {
                may.then_some(Move::Tell(Order::Close { returns: true }))
            }
            // It waits for what nobody means to give it any more.
            (Phase::Closed, _, Some((_, Order::Open(epoch)))) if expected < Some(epoch) => {
                may.then_some(Move::Tell(Order::Close { returns: false }))
            }
            (_, _, Some(_)) | (Phase::Opening, _, None) => None,
            (Phase::Closed, _, None) => {
                if let Some(epoch) = unfenced {
                    return (may && status.ready).then_some(Move::Tell(Order::Unbind(epoch)));
                }
                expected
                    .filter(|epoch| may && status.ready && !replaced(*epoch))
                    .map(|epoch| Move::Tell(Order::Open(epoch)))
            }
            // Of a lease that has not been heard of yet, nobody knows which is later.
            (Phase::Open, By::Lease, None) if unfenced.is_some() && self.epoch > 0 => {
                unfenced.filter(|_| may).map(|epoch| Move::Tell(Order::Unbind(epoch)))
            }
            // The one that the fence has seen is later than the decision, and than what is known here.
            (Phase::Open, By::Lease, None) if unfenced.is_some() => None,
            (Phase::Open, By::Lease, None) => {
                lasts.filter(|held| held.epoch > self.epoch).map(|held| Move::GoOn(held.epoch))
            }
            // The fence sees a lease by itself.
            (Phase::Open, By::Decision, None) if unfenced.is_some() || lasts.is_some() => None,
            (Phase::Open, By::Decision, None) => may.then_some(Move::Tell(Order::Close { returns: false })),
            (Phase::Closing | Phase::Killed, _, None) => None,
        }
    }

    /// When [`Self::next`] may have something to say, if nothing is heard until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at
    }

    /// Whether it takes writes by a lease that is not known here yet.
    pub(super) fn is_by_unknown_lease(&self) -> bool {
        self.epoch == 0
    }

    /// The fence was told.
    pub(super) fn told(&mut self, number: u64, order: Order) {
        self.pending = Some((number, order));
    }

    /// It goes on by a later epoch.
    pub(super) fn go_on(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// The fence says where it stands, of this process.
    pub(super) fn says(&mut self, now: Instant, status: Status) -> heapless::Vec<News, 3> {
        let before = self.status.replace(status);
        let mut news = heapless::Vec::new();
        // There is room for one of each.
        let mut tell = |one| {
            let _ = news.push(one);
        };
        let killed = |status: Option<Status>| status.and_then(|status| status.killed);
        if status.phase == Phase::Killed && killed(before) != killed(Some(status)) {
            tell(News::Killed);
        }
        let answered = self.pending.filter(|(number, _)| *number == status.answered.0);
        if answered.is_some() {
            self.pending = None;
        }
        let opened = |before: Option<Status>| before.is_some_and(|before| before.phase != Phase::Closed);
        match (answered.map(|(_, order)| order), status.answered.1) {
            (Some(Order::Open(epoch)), Answer::Opened) => {
                self.epoch = self.epoch.max(epoch);
                tell(News::Opened(epoch));
            }
            (Some(Order::Unbind(_)), Answer::Opened) => {
                // What it had before is over: the next lease is a new one.
                self.epoch = 0;
                tell(News::Unbound);
            }
            (Some(Order::Open(_) | Order::Unbind(_)), Answer::Refused(refusal)) => {
                self.again_at = Some(now + RETRY);
                let worth_a_word = match refusal {
                    Refusal::NoProcess
                    | Refusal::NotReady
                    | Refusal::NotClosed
                    | Refusal::Overtaken
                    | Refusal::Ended => None,
                    Refusal::Refused | Refusal::InPart | Refusal::Broken => Some(refusal),
                };
                tell(News::NotOpened(worth_a_word));
            }
            (Some(Order::Close { returns }), Answer::Closed) => {
                if returns {
                    tell(News::Returned);
                }
                if opened(before) {
                    tell(News::Closed(if returns { Closing::Returned } else { Closing::NeedsLease }));
                }
            }
            (Some(Order::Close { .. }), Answer::Refused(_)) => self.again_at = Some(now + INSIST),
            // The fence answers what it was asked.
            (Some(Order::Open(_) | Order::Unbind(_)), Answer::Closed) | (Some(Order::Close { .. }), Answer::Opened) => {
            }
            (None, _) if status.phase == Phase::Closed && opened(before) => tell(News::Closed(Closing::Lapsed)),
            // The first lease since it took writes without one.
            (None, _)
                if status.phase == Phase::Open
                    && status.by == By::Lease
                    && before.is_some_and(|before| before.phase == Phase::Open && before.by == By::Decision) =>
            {
                tell(News::Bound);
            }
            (None, _) => {}
        }
        // Both may be heard of in one.
        let shut = status.phase == Phase::Closed && matches!(answered, Some((_, Order::Open(_) | Order::Unbind(_))));
        if shut && status.answered.1 == Answer::Opened {
            let _ = news.push(News::Closed(Closing::Lapsed));
        }
        news
    }
}
