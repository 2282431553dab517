//! From whom a sentinel believes what. In a cluster the file says who its nodes are, and only the authentic frames of the peer
//! link speak for them; a stock sentinel speaks for itself where the file lists it, at this sentinel's own port and logged in
//! as the cluster. What others publish, greet or claim changes nothing; where it matters to a person, it is reported.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::{EPOCH_STEP, Epoch, Instant};
use crate::wire::hello::EPOCH_MAX;

use super::sabotage::Rule;
use super::{Event, Membership, Sentinel, Severity};

/// The same kind of refusal is reported at most so often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What was refused, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// An epoch out of reach.
    Epoch,
    /// A master that is no data node of the file.
    Master,
    /// A redis that is no node of the file.
    Replica,
    /// A greeting of somebody who is not listed.
    Greeting,
    /// A request for a vote by somebody who is no sentinel of this cluster.
    Candidate,
}

impl Refused {
    const COUNT: usize = 5;

    fn event(self) -> &'static str {
        match self {
            Self::Epoch => "epoch-refused",
            Self::Master => "master-refused",
            Self::Replica => "replica-refused",
            Self::Greeting => "greeting-refused",
            Self::Candidate => "candidate-refused",
        }
    }
}

/// When each kind was last reported, and how many there were since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reports([(Option<Instant>, u64); Refused::COUNT]);

impl Sentinel {
    /// Whether it has its masters and voters from a cluster file.
    pub(super) fn of_cluster(&self) -> bool {
        matches!(self.membership, Membership::Voters { .. })
    }

    /// Whether that is a data node of the file; without a file, anybody may be one.
    pub(super) fn may_be_master(&self, m: usize, address: SocketAddr) -> bool {
        let nodes = &self.masters[m].config.nodes;
        !self.of_cluster() || !self.rules.holds(Rule::OwnVoices) || nodes.iter().any(|node| node.address == address)
    }

    /// Whether an epoch may be taken over: a step further than the own one, or what a majority of the voters has got to.
    pub(super) fn is_in_reach(&self, epoch: Epoch) -> bool {
        let voters = match &self.membership {
            Membership::Voters { all, .. } => all.len(),
            // As redis-sentinel: there is nobody whose word could be told from that of a stranger.
            Membership::Discovered { .. } => return epoch <= EPOCH_MAX,
        };
        let there = |facts: &crate::wire::frame::SentinelFacts| facts.current_epoch >= epoch;
        let heard = self.peers.iter().filter_map(|peer| peer.fresh_facts()).filter(|facts| there(facts)).count();
        let near = epoch <= self.current_epoch.saturating_add(EPOCH_STEP) || !self.rules.holds(Rule::EpochStep);
        epoch <= EPOCH_MAX && (near || heard > voters / 2)
    }

    /// Tells people what was refused, and how often since it was last told.
    pub(super) fn refuse(&mut self, kind: Refused, text: impl FnOnce() -> String, now: Instant) {
        let (told_at, count) = &mut self.reports.0[kind as usize];
        *count += 1;
        if told_at.is_some_and(|at| now.since(at) < REPORT_EVERY) {
            return;
        }
        let before = std::mem::take(count) - 1;
        *told_at = Some(now);
        let more = if before > 0 { format!(" ({before} more since the last report)") } else { String::new() };
        self.publish(Event::new(kind.event(), Severity::Warn, format!("{}{more}", text())));
    }
}
