//! Who takes over a master: what is known of its redis, put before the rules of the choice.

use std::time::Duration;

use crate::base::node::{Mode, Process, RedisRole};
use crate::wire::info::{Info, LinkDown, Role};

use super::lead::Phase;
use super::master::Master;
use super::moment::Moment;
use super::sabotage::Rule;
use super::select::{self, Candidate, Ground, Rejection};

/// What a replica has said of itself is too old then, as in redis-sentinel; while nothing is wrong it is asked now and then.
const INFO_AGE_MAX: Duration = Duration::from_secs(5);
/// A recorded master whose host is unreachable is given up, beyond `down_after`, for one with a good history.
const RECORDED_MASTER_WAIT: Duration = Duration::from_secs(5);

impl Master {
    /// What is known of the redis in a place.
    pub(super) fn candidate(&self, n: usize, moment: Moment<'_>) -> Candidate {
        let Moment { now, rules, .. } = moment;
        let node = &self.nodes[n];
        let unknown = Info::default();
        let info = node.info.as_ref().unwrap_or(&unknown);
        let facts = node.fresh_facts();
        Candidate {
            address: node.address,
            connected: node.command.up().is_some(),
            cut_off: self.mode == Mode::Fenced && !(facts.is_some() && node.hears_majority),
            // A recorded master that came back closed, or was made a replica, counts as down, as a master, and yet answers.
            down: node.down_since.is_some()
                && !(info.role == Some(Role::Replica)
                    && (info.is_closed() || n == self.at())
                    && facts.is_none_or(|facts| facts.process != Process::Dead)
                    && node.answers(now, self.config.down_after)),
            info_age: node.info_at.map(|at| now.since(at)),
            does_not_open: node.does_not_open(now),
            priority: info.slave_priority.filter(|it| *it > 0 || rules.holds(Rule::NotPriorityZero)).unwrap_or(100),
            offset: info.slave_repl_offset.or(info.master_repl_offset).unwrap_or(0),
            run_id: info.run_id,
            lineage: info.master_replid.filter(|_| rules.holds(Rule::SameLineage)),
            replica: info.role == Some(Role::Replica),
            promoted_from: info.master_replid2.filter(|_| info.role == Some(Role::Master)),
            closed: info.is_closed(),
            loading: info.loading || facts.is_some_and(|facts| facts.process == Process::Loading),
            syncing: info.master_sync_in_progress && rules.holds(Rule::NotSyncing),
            ever_linked: info.master_link_up || matches!(info.master_link_down, Some(LinkDown::For(_))),
            link_down: match info.master_link_down {
                Some(LinkDown::For(time)) if !info.master_link_up => time,
                Some(LinkDown::For(_) | LinkDown::Never) | None => Duration::ZERO,
            },
            has_data: info.has_keys.filter(|_| rules.holds(Rule::NotEmpty)),
            in_sync: facts.and_then(|facts| facts.history).filter(|h| h.in_sync).map(|h| (h.epoch, h.offset)),
        }
    }

    /// All redis of the master, in their places.
    pub(super) fn candidates(&self, moment: Moment<'_>) -> Vec<Candidate> {
        (0..self.nodes.len()).map(|n| self.candidate(n, moment)).collect()
    }

    /// What the choice depends on beside them.
    pub(super) fn ground(&self, moment: Moment<'_>) -> Ground {
        let down_for = self.watched().down_since.map_or(Duration::ZERO, |since| moment.now.since(since));
        // Who is to take over was asked a moment ago.
        let asked = self.failover().lead().is_some_and(|lead| matches!(lead.phase, Phase::Selecting { .. }));
        let period = if asked { Duration::ZERO } else { moment.timers.info_period(self.config.down_after) };
        Ground {
            info_age_max: INFO_AGE_MAX + period,
            link_down_max: down_for + self.config.down_after * 10 + Duration::from_secs(1),
            lineage: self.lineage(),
            epoch: self.epoch(),
        }
    }

    /// Who takes over from a master that is down: a replica of it; else itself if it came back closed with its data; else,
    /// once it is given up, whoever came back with the best history.
    pub(super) fn choose(&self, moment: Moment<'_>) -> Result<usize, String> {
        let (at, now, ground) = (self.at(), moment.now, self.ground(moment));
        let all = self.candidates(moment);
        let others: Vec<usize> = self.others().collect();
        let rest: Vec<Candidate> = others.iter().map(|n| all[*n].clone()).collect();
        let reasons = match select::replica(&rest, &ground) {
            Ok(best) => return Ok(others[best]),
            Err(reasons) => reasons,
        };
        if self.nodes[at].down_since.is_some()
            && let Ok(best) = select::promoted(&rest, &ground)
        {
            return Ok(others[best]);
        }
        let own = match select::returned_master(&all, at, &ground) {
            Ok(()) => return Ok(at),
            Err(own) => own,
        };
        let wait = self.config.down_after + RECORDED_MASTER_WAIT;
        let given_up = match own {
            Rejection::Empty | Rejection::NoHistory | Rejection::EarlierMaster | Rejection::Changed => true,
            Rejection::Down | Rejection::NotConnected | Rejection::StaleInfo => {
                now.since(self.nodes[at].pulse.last_ok) > wait
            }
            Rejection::NoReplica
            | Rejection::CutOff
            | Rejection::PriorityZero
            | Rejection::Closed
            | Rejection::Loading
            | Rejection::Syncing
            | Rejection::NeverLinked
            | Rejection::LinkDownTooLong
            | Rejection::OtherLineage => false,
        };
        let recorded = format!("{}: {own}; {}", all[at].address, select::explain(&reasons));
        if !given_up {
            return Err(recorded);
        }
        let reasons = match select::by_history(&rest, &ground) {
            Ok(best) => return Ok(others[best]),
            Err(reasons) => reasons,
        };
        // Its disk may lack the last of what it had as master; when nobody else who could have it comes, it is the best left.
        let unproved = matches!(own, Rejection::NoHistory | Rejection::EarlierMaster);
        let waited = self.odown_since.is_some_and(|since| now.since(since) > wait);
        if unproved && waited {
            return Ok(at);
        }
        Err(format!("{recorded}; by history: {}; an operator must decide", select::explain(&reasons)))
    }

    /// The redis that would become the first master, if it is ready to be one.
    pub(super) fn first(&self) -> Option<usize> {
        let n = self.config.nodes.iter().position(|node| node.bootstrap)?;
        let node = &self.nodes[n];
        let closed = node.info.as_ref().is_some_and(|info| info.is_closed() && !info.loading);
        let alive = node.fresh_facts().is_none_or(|facts| {
            facts.process == Process::Alive && matches!(facts.role, RedisRole::Closed | RedisRole::Unknown)
        });
        (closed && alive && node.command.up().is_some()).then_some(n)
    }

    /// Whether the supervisor of the wanted node, or of any, says what its INFO will say when it is next read here: that it
    /// is in sync.
    pub(super) fn is_said_in_sync(&self, to: Option<usize>) -> bool {
        let of = self.monitored();
        let nodes = self.nodes.iter().enumerate().filter(|(n, _)| to.is_none_or(|wanted| wanted == *n));
        let mut facts = nodes.filter_map(|(_, node)| node.fresh_facts());
        facts.any(|facts| facts.role == RedisRole::Replica { of, link_up: true })
    }

    /// What is said to whoever wants the master to become what it is.
    pub(super) fn is_master_already(&self, to: Option<usize>) -> Option<String> {
        (to == Some(self.at())).then(|| format!("{} is the master already", self.watched().label()))
    }
}
