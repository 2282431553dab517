//! What a redis may rely on.

use super::{Rule, Rules};
use crate::base::census::majority;
use crate::base::lease::{Grant, Held, Lease};
use crate::base::{Epoch, Instant};

/// The promises that one process of a redis has. Another process has a holder of its own.
#[derive(Debug)]
pub struct Holder {
    rules: Rules,
    incarnation: u64,
    /// The newest of each sentinel.
    grants: Vec<Option<Grant>>,
    /// The epoch that it asks in; none: it wants no lease.
    wants: Option<Epoch>,
    /// What was granted for stamps up to then is worth nothing.
    floor: Instant,
    /// The epoch of the lease that it has, or had last.
    opened: Option<Epoch>,
    /// The lease that it has had without a gap.
    lease: Option<Lease>,
}

impl Holder {
    /// Of a process that nobody has promised anything, in a cluster of so many sentinels.
    pub fn new(incarnation: u64, voters: usize, rules: Rules) -> Self {
        let grants = vec![None; voters];
        Self { rules, incarnation, grants, wants: None, floor: Instant::START, opened: None, lease: None }
    }

    /// The process.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The epoch that it asks in.
    pub fn wants(&self) -> Option<Epoch> {
        self.wants
    }

    /// It was elected in that epoch, and asks for the grants of it. What it has, it keeps.
    pub fn ask(&mut self, now: Instant, epoch: Epoch) {
        if self.wants < Some(epoch) {
            self.wants = Some(epoch);
            // Grants may have come before.
            self.count(now);
        }
    }

    /// Its redis refuses writes since `at`; every grant for a stamp up to then is given back.
    pub fn release(&mut self, at: Instant) {
        (self.wants, self.opened, self.lease) = (None, None, None);
        if self.rules.holds(Rule::AfterRelease) {
            self.floor = self.floor.max(at);
            self.grants.fill(None);
        }
    }

    /// What the sentinel of that number promises. Returns whether it says anything new.
    pub fn granted(&mut self, now: Instant, voter: usize, grant: Grant) -> bool {
        let ours = grant.incarnation == self.incarnation && grant.stamp > self.floor;
        let newer = |known: &Option<Grant>| known.is_none_or(|known| known.stamp < grant.stamp);
        let Some(known) = self.grants.get_mut(voter).filter(|known| ours && newer(known)) else { return false };
        *known = Some(grant);
        self.count(now);
        true
    }

    /// What its grants come to.
    ///
    /// A lease that has not ended goes on with whatever epochs its grants are of: who has stored a higher one since, or has not yet
    /// stored this one, is bound to this process all the same, and nobody else can have had a majority meanwhile. One that is new,
    /// or has lapsed, begins only with a majority that is bound in one and the same epoch. With grants of several, others may
    /// have held the lease between them.
    fn count(&mut self, now: Instant) {
        let lasts = |lease: &Lease| now < lease.ends_at();
        let gapless = self.lease.is_some_and(|lease| lasts(&lease));
        let begun =
            |epoch: Epoch| self.majority(|grant| grant.epoch == epoch).filter(lasts).map(|lease| (epoch, lease));
        let again = self.wants.and_then(begun).or_else(|| self.opened.and_then(begun));
        let any = self.majority(|_| true);
        if let Some((epoch, lease)) = again {
            self.opened = Some(epoch);
            self.lease = if gapless { any } else { Some(lease) };
        } else if gapless || !self.rules.holds(Rule::OwnEpoch) {
            (self.opened, self.lease) = (self.opened.or(self.wants), any);
        }
    }

    /// The lease that it had last, whether it has ended or not; none: it had none since it began to ask.
    pub fn held(&self) -> Option<Held> {
        Some(Held { incarnation: self.incarnation, epoch: self.opened?, lease: self.lease? })
    }

    /// What the grants that count come to: a majority lasts until the first of its promises ends, and of all majorities the one that
    /// lasts longest is meant.
    fn majority(&self, counts: impl Fn(&Grant) -> bool) -> Option<Lease> {
        let mut grants: Vec<Grant> = self.grants.iter().flatten().filter(|grant| counts(grant)).copied().collect();
        let needed = if self.rules.holds(Rule::Majority) { majority(self.grants.len()) } else { 1 };
        grants.sort_unstable_by_key(|grant| std::cmp::Reverse(grant.stamp + grant.lease));
        let longest = grants.get(..needed)?;
        let first = if self.rules.holds(Rule::FirstToEnd) { longest.last() } else { longest.first() };
        let Grant { stamp, lease, .. } = *first?;
        // Without the margin it relies on all of what was promised.
        let length = if self.rules.holds(Rule::Margin) { lease } else { lease * 10 / 9 };
        Some(Lease { from: stamp, length })
    }

    /// Which sentinels have granted something newer than `since`: bit 0 is the first one.
    pub fn newer_than(&self, since: Instant) -> u32 {
        let grants = self.grants.iter().enumerate().take(32);
        let newer = grants.filter(|(_, grant)| grant.is_some_and(|grant| grant.stamp > since));
        newer.fold(0, |bits, (voter, _)| bits | 1 << voter)
    }
}
