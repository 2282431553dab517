//! What must come once nothing goes wrong any more.

use vigie::wire::frame::Decision;

use crate::redis::Link;
use crate::world::{World, redis_at};

impl World {
    /// What is not yet as it should be; none: everything is.
    pub fn unwell(&self) -> Option<String> {
        (0..self.groups.len()).find_map(|group| self.group_unwell(group))
    }

    fn group_unwell(&self, group: usize) -> Option<String> {
        let mut agreed: Option<Decision> = None;
        for s in 0..self.plan.sentinels {
            let facts = self.said(s).and_then(|facts| facts.masters.get(group));
            let Some(facts) = facts.filter(|_| self.sentinels[s].core.is_some()) else {
                return Some(format!("s{s} does not say anything"));
            };
            if let Some(epoch) = facts.leads {
                return Some(format!("s{s} leads group {group} in epoch {epoch}"));
            }
            let Some(decision) = facts.decision else { return Some(format!("s{s} has no master of group {group}")) };
            let first = *agreed.get_or_insert(decision);
            if first != decision {
                return Some(format!("group {group}: {first:?} and, says s{s}, {decision:?}"));
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
            } else if redis.master != Some(master) || redis.link != Link::Up {
                return Some(format!("r{r} does not follow {master}: {:?} {:?}", redis.master, redis.link));
            }
        }
        None
    }

    /// Whether a group is without a master for a reason that only a person can clear: nobody has the history.
    pub fn operator_must_decide(&self) -> bool {
        !self.checks.undecided.is_empty()
    }
}
