//! From whom a sentinel believes what. In a cluster the file says who its nodes are, and only the authentic frames of the peer
//! link speak for them; a stock sentinel speaks for itself where the file lists it, at this sentinel's own port and logged in
//! as the cluster. What others publish, greet or claim changes nothing; where it matters to a person, it is reported.

use std::net::SocketAddr;

use crate::base::node::Mode;
use crate::base::{EPOCH_STEP, Epoch, Instant, census};

use super::Agreement;
use super::event::{Event, Severity};
use super::ids::NOBODY;
use super::master::Master;
use super::ports::{OrderId, Output};
use super::refused::Refused;
use super::sabotage::Rule;

impl Agreement {
    /// Whether it has its masters and voters from a cluster file.
    pub(super) fn of_cluster(&self) -> bool {
        self.membership.is_of_file()
    }

    /// Whether that is a data node of the file; without a file, anybody may be one.
    pub(super) fn may_be_master(&self, master: &Master, address: SocketAddr) -> bool {
        let nodes = master.config.nodes.iter().map(|node| node.address);
        self.membership.admits(address, nodes) || !self.rules.holds(Rule::OwnVoices)
    }

    /// Whether an epoch may be taken over: a step further than the own one, or what a majority of the voters has got to.
    pub(super) fn is_in_reach(&self, epoch: Epoch) -> bool {
        let heard = self.peers.iter().filter_map(|peer| peer.fresh_facts());
        let there = heard.filter(|facts| facts.current_epoch >= epoch).count();
        let there = if self.rules.holds(Rule::EpochStep) { there } else { usize::MAX };
        self.membership.is_in_reach(epoch, self.current_epoch, there)
    }

    /// The way back for a sentinel whose record is of another life (a disk that was restored): none of the others follows it to
    /// its epoch, and it has no vote that counts. It takes over what they have got to, and counts all of that as voted. Only with
    /// every other sentinel heard: what one of them knows must not be missed. An operator orders it, and hears the end.
    pub(super) fn bootstrap(&mut self, order: OrderId, now: Instant) {
        match self.rejoin(now) {
            Ok(text) => {
                self.publish(Event::new("bootstrap", Severity::Warn, text.clone()));
                // Heard of once it is on disk.
                self.owed.push(Output::Said(order, Ok(text)));
            }
            Err(reason) => self.free.push(Output::Said(order, Err(reason))),
        }
    }

    /// The epoch that a majority of the voters has got to without this one, if so many others are heard.
    fn common(&self, voters: usize) -> Option<Epoch> {
        let heard = self.peers.iter().filter_map(|peer| peer.fresh_facts());
        let mut epochs: Vec<Epoch> = heard.map(|facts| facts.current_epoch).collect();
        epochs.sort_unstable();
        epochs.len().checked_sub(census::majority(voters)).and_then(|at| epochs.get(at)).copied()
    }

    /// What is wrong with this sentinel if nobody follows it to its epoch.
    pub(super) fn out_of_step(&self) -> Option<String> {
        let own = self.current_epoch;
        if own <= EPOCH_STEP {
            // As nearly always: nothing is that far below it, and every turn asks.
            return None;
        }
        let common = self.common(self.membership.listed()?)?;
        (own > common.saturating_add(EPOCH_STEP)).then(|| {
            format!(
                "the epoch of this sentinel is {own}, a majority of the others has got to {common} and does not follow it: its votes \
                 do not count; if its disk was restored from elsewhere: vigie bootstrap"
            )
        })
    }

    fn rejoin(&mut self, now: Instant) -> Result<String, String> {
        let voters = self.membership.listed();
        let voters = voters.ok_or("only a sentinel of a cluster file can take over what the others have")?;
        let silent: Vec<_> =
            self.peers.iter().filter(|peer| peer.fresh_facts().is_none()).map(|peer| peer.label()).collect();
        if self.amnesia.is_some() {
            let epoch = self.go_on_from_others(now);
            let silent = if silent.is_empty() { String::new() } else { format!("; not heard: {}", silent.join(", ")) };
            return Ok(format!(
                "this sentinel, which has no record, gives votes from now on, above epoch {epoch}{silent}"
            ));
        }
        if !silent.is_empty() {
            return Err(format!("every sentinel must be heard; not heard: {}", silent.join(", ")));
        }
        let common = self.common(voters).ok_or("the others are no majority: there is nobody to follow")?;
        let limit = common.saturating_add(EPOCH_STEP);
        let own = self.current_epoch;
        if own <= limit {
            return Err(format!(
                "this sentinel is in step: its epoch is {own}, a majority of the others has got to {common}"
            ));
        }
        let epochs = self.peers.iter().filter_map(|peer| peer.fresh_facts()).map(|facts| facts.current_epoch);
        let highest = epochs.filter(|epoch| *epoch <= limit).max().unwrap_or(common);
        for m in 0..self.masters.len() {
            self.give_up(m, now, "the operator ordered a bootstrap");
            let master = &self.masters[m];
            let said = self.peers.iter().filter_map(|peer| peer.says_of(master));
            let decisions = said.filter_map(|facts| Some((facts.decision?, facts.mode?)));
            let decisions = decisions.filter(|(decision, _)| decision.epoch <= highest);
            let decision = decisions.max_by_key(|(decision, mode)| (decision.epoch, *mode == Mode::Fenced));
            let decision = decision.filter(|(decision, _)| self.may_be_master(master, decision.master));
            let master = &mut self.masters[m];
            // A vote in that very epoch is known.
            if master.vote.is_none_or(|(_, epoch)| epoch != highest) {
                master.vote = Some((NOBODY, highest));
            }
            master.decision = None;
            if let Some((decision, mode)) = decision {
                self.switch(m, decision, mode, now);
            }
        }
        self.current_epoch = highest;
        self.dirty = true;
        Ok(format!("this sentinel goes on from epoch {highest}, which the others have got to; it was at {own}"))
    }

    /// Tells people what was refused, and how often since it was last told.
    pub(super) fn refuse(&mut self, kind: Refused, text: impl FnOnce() -> String, now: Instant) {
        let Some(before) = self.reports.take_down(kind, now) else { return };
        let more = if before > 0 { format!(" ({before} more since the last report)") } else { String::new() };
        self.publish(Event::new(kind.event(), Severity::Warn, format!("{}{more}", text())));
    }
}
