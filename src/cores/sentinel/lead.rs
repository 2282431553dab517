//! Why there is a failover, and how far it is: the states alone, without what moves them.

use std::time::Duration;

use crate::base::{Epoch, Instant, RunId};

use super::ids::InstanceId;
use super::ports::{ClientId, OrderId};

/// Exit code of a simulated failure, as stock.
pub(super) const SIMULATED: u8 = 99;
/// Between two questions of a replica whose answer is awaited.
pub(super) const REASK: Duration = Duration::from_millis(2);
/// How long each step may take while writes are held, the catching up and the promotion; well within the hold, which each of
/// them begins again: who is promoted after its end lacks what was acknowledged since.
pub(super) const HELD_STEP_MAX: Duration = Duration::from_secs(2);

/// Why there is a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A quorum finds the master down.
    Down,
    /// There never was a master.
    Bootstrap,
    /// The master stays, and the cluster becomes a fenced one, or is one no more.
    Mode,
    /// A person ordered it.
    Ordered(Ordered),
    /// A person ordered it where there is no majority.
    Takeover(OrderId),
}

impl Cause {
    /// Whether it was ordered, and only with the agreement of the others and from a master that holds its writes.
    pub(super) fn is_coordinated(self) -> bool {
        matches!(self, Self::Ordered(Ordered { coordinated: true, .. }))
    }
}

/// A switchover that was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ordered {
    /// To whom to report.
    pub(super) by: By,
    /// The place of the wanted master; none: the best.
    pub(super) to: Option<usize>,
    /// Only with the agreement of the others, and from a master that holds its writes.
    pub(super) coordinated: bool,
}

/// Who ordered a switchover, and how it hears of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The operator at this node.
    Order(OrderId),
    /// A client that waits for the end: SENTINEL SWITCHOVER.
    Client(ClientId),
    /// A client that was answered at once: SENTINEL FAILOVER.
    Nobody,
}

/// States of a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failover {
    /// None; none may begin before.
    Idle { not_before: Instant },
    /// Another one has this sentinel's vote and is given the time to use it.
    Following(Following),
    /// This sentinel will stand for election.
    Waiting { cause: Cause, start_at: Instant },
    /// It stands, or leads.
    Leading(Lead),
}

/// A vote for another sentinel that may come to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Following {
    /// Who has the vote.
    pub(super) leader: RunId,
    /// In which epoch.
    pub(super) epoch: Epoch,
    /// Since when nothing was heard of its leading: the vote, or its last word that it leads.
    pub(super) since: Instant,
    /// It is waited for at most so long.
    pub(super) until: Instant,
    /// Whether it has said that it leads.
    pub(super) led: bool,
}

/// A failover that this sentinel leads, or stands to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    /// The epoch of its election, and of the decision that comes of it.
    pub(super) epoch: Epoch,
    /// Why it was begun.
    pub(super) cause: Cause,
    /// The redis that was told to hold its writes, until another one is the master and this one has been told.
    pub(super) hold: Option<Hold>,
    /// The phase is given up, or ends, then.
    pub(super) until: Instant,
    /// How far it is.
    pub(super) phase: Phase,
}

/// Where writes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// The redis. Not the watched master any more once a decision is there.
    pub(super) at: InstanceId,
    /// Since when.
    pub(super) since: Instant,
}

/// Phases of a failover that is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// This sentinel stands for election.
    Electing,
    /// Elected; it asks the replicas what they have.
    Selecting { since: Instant },
    /// Ordered: the master was told to hold writes.
    Pausing { target: usize },
    /// Ordered: the target catches up with `goal`, the offset at which the master stands still, in its `lineage`.
    Catching { target: usize, goal: u64, lineage: Option<RunId> },
    /// The target is told to be master; done when it says that it is.
    Promoting { target: usize, step: Promotion },
    /// Decided, stored and published; the others are pointed at the new master.
    Reconfiguring,
}

/// How far a promotion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promotion {
    /// To be sent as soon as there is a link.
    Unsent,
    /// Sent; ROLE is asked again then.
    Sent { role_at: Instant },
    /// Not told but named, where there is a lease: the supervisor of that process makes it the master once it has that.
    Named { incarnation: u64 },
}

impl Failover {
    pub(super) fn lead(&self) -> Option<&Lead> {
        match self {
            Self::Leading(lead) => Some(lead),
            Self::Idle { .. } | Self::Following(_) | Self::Waiting { .. } => None,
        }
    }

    /// The epoch in which this sentinel leads, or stands for election.
    pub(super) fn leads(&self) -> Option<Epoch> {
        self.lead().map(|lead| lead.epoch)
    }

    /// The epoch in which this sentinel stands for election and is not elected yet.
    pub(super) fn stands(&self) -> Option<Epoch> {
        self.lead().filter(|lead| lead.phase == Phase::Electing).map(|lead| lead.epoch)
    }

    /// Whether it has its new master: what is left is to point the others at it.
    pub(super) fn is_reconfiguring(&self) -> bool {
        self.lead().is_some_and(|lead| lead.phase == Phase::Reconfiguring)
    }

    /// Why a new master is looked for; none once there is one.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Idle { .. } | Self::Following(_) => None,
            Self::Waiting { cause, .. } => Some(*cause),
            Self::Leading(lead) => (lead.phase != Phase::Reconfiguring).then_some(lead.cause),
        }
    }

    /// Where writes are held, or were until the decision.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.lead().and_then(|lead| lead.hold)
    }

    /// Its name in `failover-state`.
    pub(super) fn stock_name(&self) -> Option<&'static str> {
        self.lead().map(|lead| match lead.phase {
            Phase::Electing => "wait_start",
            Phase::Selecting { .. } | Phase::Pausing { .. } | Phase::Catching { .. } => "select_slave",
            Phase::Promoting { step: Promotion::Unsent, .. } => "send_slaveof_noone",
            Phase::Promoting { step: Promotion::Sent { .. } | Promotion::Named { .. }, .. } => "wait_promotion",
            Phase::Reconfiguring => "reconf_slaves",
        })
    }
}

impl Failover {
    /// Whether that state may come after this one: a failover that is led goes on to the next phase in its epoch, or ends.
    pub(super) fn leads_to(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Leading(before), Self::Leading(after)) => {
                (before.epoch, before.cause) == (after.epoch, after.cause) && before.phase.leads_to(&after.phase)
            }
            (Self::Waiting { cause, .. }, Self::Leading(lead)) => lead.phase == Phase::Electing && lead.cause == *cause,
            (Self::Idle { .. } | Self::Following(_), Self::Leading(_)) => false,
            (Self::Leading(_) | Self::Waiting { .. }, Self::Following(_) | Self::Waiting { .. })
            | (Self::Following(_), Self::Waiting { .. }) => false,
            (Self::Idle { .. } | Self::Following(_), Self::Following(_))
            | (Self::Idle { .. }, Self::Waiting { .. })
            | (_, Self::Idle { .. }) => true,
        }
    }
}

impl Lead {
    /// Whether writes are held where its phase says that they are, and nowhere else.
    pub(super) fn holds_rightly(&self) -> bool {
        match self.phase {
            Phase::Electing | Phase::Selecting { .. } => self.hold.is_none(),
            Phase::Pausing { .. } | Phase::Catching { .. } => self.hold.is_some(),
            Phase::Promoting { .. } | Phase::Reconfiguring => true,
        }
    }
}

impl Phase {
    fn leads_to(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Electing, Self::Selecting { .. } | Self::Pausing { .. } | Self::Promoting { .. })
            | (Self::Selecting { .. }, Self::Promoting { .. })
            | (Self::Promoting { .. }, Self::Reconfiguring) => true,
            (Self::Pausing { target: before }, Self::Catching { target, .. } | Self::Promoting { target, .. })
            | (Self::Catching { target: before, .. }, Self::Promoting { target, .. }) => before == target,
            (
                Self::Electing
                | Self::Selecting { .. }
                | Self::Pausing { .. }
                | Self::Catching { .. }
                | Self::Promoting { .. }
                | Self::Reconfiguring,
                _,
            ) => false,
        }
    }

    /// Who is to be the master, once that is chosen and as long as it is none.
    pub(super) fn target(&self) -> Option<usize> {
        match self {
            Self::Pausing { target } | Self::Catching { target, .. } | Self::Promoting { target, .. } => Some(*target),
            Self::Electing | Self::Selecting { .. } | Self::Reconfiguring => None,
        }
    }

    /// The process that is wanted as the master of the epoch, for as long as it is none.
    pub(super) fn named(&self) -> Option<u64> {
        match self {
            Self::Promoting { step: Promotion::Named { incarnation }, .. } => Some(*incarnation),
            Self::Promoting { step: Promotion::Unsent | Promotion::Sent { .. }, .. }
            | Self::Electing
            | Self::Selecting { .. }
            | Self::Pausing { .. }
            | Self::Catching { .. }
            | Self::Reconfiguring => None,
        }
    }

    /// Whether the target has been told to be master: there may be a new master already.
    pub(super) fn is_told(&self) -> bool {
        match self {
            Self::Promoting { step: Promotion::Sent { .. } | Promotion::Named { .. }, .. } | Self::Reconfiguring => {
                true
            }
            Self::Promoting { step: Promotion::Unsent, .. }
            | Self::Electing
            | Self::Selecting { .. }
            | Self::Pausing { .. }
            | Self::Catching { .. } => false,
        }
    }
}
