//! What a sentinel is bound by.

use std::time::Duration;

use super::{Claim, Process, Rule, Rules};
use crate::base::lease::Grant;
use crate::base::{Epoch, Instant};

/// What a sentinel has on disk, and what it thinks of who holds its grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    /// The highest epoch on its disk: it has voted in it, or knows the decision of it.
    pub stored: Epoch,
    /// The master of the decision on its disk, by the place of its node, and the epoch of that.
    pub decided: Option<(usize, Epoch)>,
    /// Whether it finds the master of that decision down, and so does not renew.
    pub suspects: bool,
}

/// A frame of a node that asks for a grant, or of one that is to be given it unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// For whom, and the epoch in which it says, or a leader says, that it was elected.
    pub claim: Claim,
    /// When the node has sent its newest frame, by its own clock.
    pub stamp: Instant,
    /// The epoch of the lease that it says to hold.
    pub open: Option<Epoch>,
    /// Whether the leader of that epoch, who is heard, wants this process and no other.
    pub named: bool,
}

/// The process that a sentinel is bound to, or was bound to last.
#[derive(Clone, Copy, Debug)]
struct Bound {
    claim: Claim,
    /// The newest stamp that it has answered, by the clock of the process.
    stamp: Instant,
    until: Instant,
}

/// The promises of one sentinel. It forgets everything at a restart: see [`Grantor::new`].
#[derive(Debug)]
pub struct Grantor {
    lease: Duration,
    rules: Rules,
    /// Before that, it may be bound by a promise of before its start.
    quiet_until: Instant,
    bound: Option<Bound>,
}

impl Grantor {
    /// Of a sentinel that starts now, and promises `lease` from now on. `before`: the longest that it may have promised before.
    pub fn new(lease: Duration, before: Duration, now: Instant, rules: Rules) -> Self {
        Self { lease, rules, quiet_until: now + before.max(lease), bound: None }
    }

    /// To whom it is bound.
    pub fn bound(&self, now: Instant) -> Option<Claim> {
        self.bound.filter(|bound| now < bound.until).map(|bound| bound.claim)
    }

    /// Answers a frame, `now` at the earliest when it was received; none: it promises nothing.
    pub fn ask(&mut self, now: Instant, ask: Ask, ballot: &Ballot) -> Option<Grant> {
        let Ask { claim, stamp, .. } = ask;
        let renewed = self.bound.filter(|bound| bound.claim.process == claim.process);
        let may = match renewed {
            Some(bound) => self.may_renew(&bound, &ask, ballot),
            None => self.may_bind(now, &ask, ballot),
        };
        if !may {
            return None;
        }
        // Elected again, it goes on in the epoch of that once this is on disk.
        let newer = ballot.stored == claim.epoch;
        let epoch = renewed.filter(|_| !newer).map_or(claim.epoch, |bound| bound.claim.epoch);
        let lasts = if self.rules.holds(Rule::WholeLease) { self.lease } else { self.lease * 3 / 4 };
        self.bound = Some(Bound { claim: Claim { epoch, ..claim }, stamp, until: now + lasts });
        Some(Grant { incarnation: claim.process.incarnation, epoch, stamp, lease: self.lease })
    }

    /// Whether it may bind itself for longer to the process that it was bound to last. It pays no regard to votes.
    fn may_renew(&self, bound: &Bound, ask: &Ask, ballot: &Ballot) -> bool {
        let Ask { claim, stamp, open, named } = *ask;
        let decided = ballot.decided.filter(|(node, _)| *node == claim.process.node).map(|(_, epoch)| epoch);
        let suspect = decided.is_some() && ballot.suspects;
        // The holder, one that lost its lease and was replaced by nobody, or one that is to have it. Who was passed over must not
        // keep others waiting: nor must one whose leader goes on after somebody stood against it, and that half of the
        // sentinels are bound to.
        let of_use = open.is_some() || decided == Some(bound.claim.epoch);
        let wanted = named && (claim.epoch >= ballot.stored || !self.rules.holds(Rule::NewestLeader));
        stamp > bound.stamp && (wanted || !suspect && of_use || !self.rules.holds(Rule::OfUse))
    }

    /// Whether it may bind itself to a process that it is not bound to.
    fn may_bind(&self, now: Instant, ask: &Ask, ballot: &Ballot) -> bool {
        let rules = self.rules;
        let free = self.bound.is_none_or(|bound| now >= bound.until);
        let taken = self.bound.is_some_and(|bound| bound.claim.epoch >= ask.claim.epoch);
        let low = ask.claim.epoch < ballot.stored;
        let not_stored = ask.claim.epoch > ballot.stored;
        // If it was bound to somebody in a higher epoch before its start, that is on its disk.
        let recorded = ballot.decided == Some((ask.claim.process.node, ask.claim.epoch));
        let quiet = now < self.quiet_until;
        (free || !rules.holds(Rule::OneGrant))
            && (!(low || taken) || !rules.holds(Rule::NotBelow))
            && (!not_stored || !rules.holds(Rule::StoreFirst))
            && (!quiet || recorded || !rules.holds(Rule::WaitAfterStart))
    }

    /// The process says that it refuses writes since `at`, by its own clock, and gives back what was promised for stamps up to
    /// then.
    pub fn released(&mut self, now: Instant, process: Process, at: Instant) {
        let gives = |bound: &&mut Bound| {
            bound.claim.process == process && (bound.stamp <= at || !self.rules.holds(Rule::LateRelease))
        };
        if let Some(bound) = self.bound.as_mut().filter(gives) {
            bound.until = bound.until.min(now);
        }
    }

    /// The supervisor of that node says that this process is dead, or that it has another one now, which it says only once the one
    /// before is gone.
    pub fn gone(&mut self, now: Instant, process: Process) {
        if let Some(bound) = self.bound.as_mut().filter(|bound| bound.claim.process == process) {
            bound.until = bound.until.min(now);
        }
    }
}
