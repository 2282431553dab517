//! What must come once nothing goes wrong any more.

use vigie::base::node::{Decision, Mode};

use crate::dropin::{about, first_address};
use crate::model::Link;
use crate::world::{World, redis_at};

impl World {
    /// What is not yet as it should be; none: everything is.
    pub fn unwell(&self) -> Option<String> {
        let groups = 0..self.groups.len();
        groups.clone().find_map(|group| self.group_unwell(group)).or_else(|| {
            let mut groups = groups;
            groups.find_map(|group| self.address_unwell(group))
        })
    }

    fn group_unwell(&self, group: usize) -> Option<String> {
        let mut agreed: Option<Decision> = None;
        for s in 0..self.plan.sentinels {
            let facts = self.said(s).and_then(|facts| about(facts, group));
            let Some(facts) = facts.filter(|_| self.sentinels[s].core.is_some()) else {
                return Some(format!("s{s} does not say anything"));
            };
            if let Some(epoch) = facts.leads {
                return Some(format!("s{s} leads group {group} in epoch {epoch}"));
            }
            let here = |decision: Decision| {
                let master = first_address(&decision.master.ip().to_string()).unwrap_or(decision.master);
                Decision { master, ..decision }
            };
            let Some(decision) = facts.decision.map(here) else {
                return Some(format!("s{s} has no master of group {group}"));
            };
            let first = *agreed.get_or_insert(decision);
            if first != decision {
                return Some(format!("group {group}: {first:?} and, says s{s}, {decision:?}"));
            }
        }
        let fencing = |s: usize| self.disks[s].fencing;
        if self.plan.lease.is_some() && (0..self.workers.len()).all(|host| fencing(host) == fencing(0)) {
            let fenced = |s: usize| {
                self.said(s).and_then(|facts| about(facts, group)).map(|facts| facts.mode == Some(Mode::Fenced))
            };
            if let Some(s) = (0..self.plan.sentinels).find(|s| fenced(*s) != Some(fencing(0))) {
                return Some(format!("the files say fencing = {}, and s{s} {:?}", fencing(0), fenced(s)));
            }
        }
        let master = agreed?.master;
        for r in &self.groups[group] {
            let redis = &self.redis[*r];
            if redis.pause.is_some() {
                return Some(format!("r{r} holds writes"));
            }
            if redis_at(*r) == master {
                if !redis.is_master() || redis.loading {
                    return Some(format!("r{r} is no master: {:?}", redis.master));
                }
            } else if !redis.is_in_sync_with(master) {
                return Some(format!("r{r} does not follow {master}: {:?} {:?}", redis.master, redis.link));
            }
        }
        None
    }

    /// Whether a group is without a master for a reason that only a person can clear: a sentinel has said so, and nobody has
    /// data with the right history.
    pub fn operator_must_decide(&self) -> bool {
        let unwell = (0..self.groups.len()).filter(|group| self.group_unwell(*group).is_some());
        let nobody = !self.checks.undecided.is_empty() && unwell.into_iter().all(|group| !self.somebody_fits(group));
        nobody || self.checks.splits() > 0
    }

    /// Whether a redis of a group holds data that were in sync with the last master.
    fn somebody_fits(&self, group: usize) -> bool {
        let decisions = self.checks.memories.iter().filter_map(|memory| memory.decisions[group]);
        let Some(decision) = decisions.max_by_key(|decision| decision.epoch) else { return true };
        self.groups[group].iter().any(|r| {
            let (redis, history) = (&self.redis[*r], self.disks[*r].record.history);
            let in_sync = history.is_some_and(|history| history.in_sync && history.epoch >= decision.epoch);
            let own = redis_at(*r) == decision.master && redis.link == Link::Down(None);
            !redis.data.is_empty() && (own || in_sync && redis.priority > 0)
        })
    }
}
