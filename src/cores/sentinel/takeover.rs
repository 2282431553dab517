//! The order to take over: most machines of a cluster are lost for good, one lives with the data, and no majority is left to decide
//! anything. An operator decides in its place, beside that redis.
//!
//! It goes the way of a failover, without an election: the own vote is on disk, then the redis is promoted, then the decision is on
//! disk and told. Its epoch is above all that the lost ones may have got to, and in reach of those that come back: they find a higher
//! decision, and their redis follow. What is given up is that nobody else takes writes: so the decision is one of a mode of its own
//! ([`Mode::TakenOver`]), until every sentinel is heard again.

use std::time::Duration;

use crate::base::node::{Mode, Process};
use crate::base::{EPOCH_STEP, Epoch, Instant};
use crate::wire::info::{Info, LinkDown, Role};

use super::Agreement;
use super::lead::{Cause, Failover, Lead};
use super::master::Master;
use super::peer::Peer;
use super::ports::{OrderId, Output};

/// The epoch of a takeover is above the highest one known by so much: more than others can have used up meanwhile, and in reach of them.
const JUMP: Epoch = EPOCH_STEP / 2;

impl Agreement {
    /// Says what a takeover at this node risks, or why there cannot be one.
    pub(super) fn tell_risks(&mut self, order: OrderId, now: Instant) {
        let told = self.may_take_over().map(|n| self.risks(&self.masters[0], n, now));
        self.free.push(Output::Said(order, told));
    }

    /// An operator orders that the redis of this node takes writes, whatever the others say. He hears the end.
    pub(super) fn take_over(&mut self, order: OrderId, now: Instant) {
        let leads = self.masters.first().is_some_and(|master| master.leads().is_some());
        let busy = leads
            .then(|| Err("a failover is under way here: wait for its end, vigie why says how far it is".to_owned()));
        if let Err(reason) = busy.unwrap_or_else(|| self.may_take_over()) {
            return self.free.push(Output::Said(order, Err(reason)));
        }
        self.give_up(0, now, "the operator ordered a takeover");
        self.enter(0, Failover::Waiting { cause: Cause::Takeover(order), start_at: now });
    }

    /// Stands for itself alone.
    pub(super) fn step_takeover(&mut self, m: usize, order: OrderId, now: Instant) {
        let epoch = self.takeover_epoch(&self.masters[m]);
        self.stand_in(m, Cause::Takeover(order), epoch, now);
    }

    /// It needs nobody's vote. What was true when it was ordered still has to be.
    pub(super) fn begin_takeover(&mut self, m: usize, lead: Lead, now: Instant) {
        match self.may_take_over() {
            Ok(target) => self.begin_promoting(m, lead, target, None, now),
            Err(reason) => self.abort(m, "-failover-abort-no-good-slave", &reason, now),
        }
    }

    /// Whether a takeover at this node would be the way out, for people who look for one.
    pub(super) fn takeover_would_help(&self) -> bool {
        self.may_take_over().is_ok()
    }

    /// The place of this node's redis, if it may be given the writes without anybody's promise; else why not.
    fn may_take_over(&self) -> Result<usize, String> {
        let me = self.membership.me().ok_or("only the sentinel of a cluster file can take over")?;
        let master = self.masters.first().ok_or("there is no master to take over from")?;
        if self.has_majority(master) {
            let there =
                format!("a majority of the sentinels is there ({} of {})", self.reachable(master), self.voters(master));
            return Err(if master.place_of_node(me) == Some(master.at()) && master.decision.is_some() {
                format!(
                    "{there}, and {me} is their master already: vigie why says what keeps it from taking writes, if anything"
                )
            } else {
                format!(
                    "{there}: they find a master by themselves, vigie why says how far that is, and vigie failover --to {me} \
                     moves it here"
                )
            });
        }
        if self.amnesia.is_some() {
            return Err("this sentinel has no record of what it has voted: vigie bootstrap, first".to_owned());
        }
        if self.store_retry_at.is_some() {
            return Err("this sentinel cannot store its state".to_owned());
        }
        let n = master
            .place_of_node(me)
            .ok_or_else(|| format!("{me} has no redis: order it on the node that has the data"))?;
        let node = &master.nodes[n];
        let loading = || Err(format!("the redis of {me} still reads its data from disk: wait until it has"));
        match node.fresh_facts().map(|facts| facts.process) {
            None => return Err(format!("nothing is known of the redis of {me}: does its supervisor run?")),
            Some(Process::Dead) => return Err(format!("the redis of {me} is dead")),
            Some(Process::Starting | Process::Loading) => return loading(),
            Some(Process::Alive | Process::Busy) => {}
        }
        let Some(info) = node.info.as_ref().filter(|_| node.command.up().is_some()) else {
            return Err(format!("the redis of {me} does not answer its sentinel"));
        };
        if info.loading {
            return loading();
        }
        if info.master_sync_in_progress {
            return Err(format!(
                "the redis of {me} is in the middle of a full copy: it has neither its old data nor the new"
            ));
        }
        let own = master.decision.filter(|decision| decision.master == node.address && master.mode == Mode::TakenOver);
        if let Some(decision) = own.filter(|_| node.is_master()) {
            return Err(format!("{me} has taken over already, at epoch {}", decision.epoch));
        }
        Ok(n)
    }

    fn takeover_epoch(&self, master: &Master) -> Epoch {
        let own = self.membership.me().and_then(|me| master.place_of_node(me)).map(|n| &master.nodes[n]);
        // A node that has lost the record of its sentinel may still have that of its data.
        let history = own.and_then(|node| node.fresh_facts()?.history).map_or(0, |history| history.epoch);
        let again = master.mode == Mode::TakenOver && own.is_some_and(|node| node.address == master.monitored());
        // It has jumped before, and nobody else has decided since.
        self.current_epoch.max(history) + if again { 1 } else { JUMP }
    }

    /// What is said of a master that an operator has given the writes.
    pub(super) fn taken_over(&self, m: usize) -> String {
        let (epoch, who) = (self.masters[m].epoch(), self.masters[m].watched().label());
        format!(
            "taken over by the operator at epoch {epoch}: {who} takes writes without the promise of a majority, not fenced until every \
             sentinel is heard again; nodes that are cut off may have another master, whose writes will be lost"
        )
    }

    /// What an operator has to know before he orders it.
    fn risks(&self, master: &Master, n: usize, now: Instant) -> String {
        let (node, epoch) = (&master.nodes[n], self.takeover_epoch(master));
        let who = node.label();
        let silent = self.watchers(master).filter(|peer| !peer.looks_alive()).map(|peer| silence(peer, now));
        let (silent, heard, all) = (silent.collect::<Vec<_>>(), self.reachable(master), self.voters(master));
        format!(
            "{who} becomes the master of {}, at epoch {epoch}, by your word alone: {heard} of {all} sentinels are there, {} would be a \
             majority.\nNot heard: {}.\nIts data: {}.\nWhat it risks:\n\
             - What the lost nodes have acknowledged, and {who} has not got, is lost.\n\
             - If they are not dead but cut off, both sides take writes until they hear each other. Then all that the other side has \
             acknowledged meanwhile is lost: switch them off, or be sure that they are dead.\n",
            master.config.name,
            self.majority(master),
            silent.join(", "),
            data(master, n, node.info.as_ref()),
        )
    }
}

/// Who is not heard, and since when.
fn silence(peer: &Peer, now: Instant) -> String {
    if peer.facts.is_none() && !peer.spoke {
        return format!("{} (never, since this sentinel was started)", peer.label());
    }
    let since = now.since(peer.pulse.silent_since.unwrap_or(peer.pulse.last_ok));
    format!("{} (for {})", peer.label(), humantime::format_duration(Duration::from_secs(since.as_secs())))
}

/// How old the data of a redis are, by all that is known here.
fn data(master: &Master, n: usize, info: Option<&Info>) -> String {
    let node = &master.nodes[n];
    let facts = node.fresh_facts();
    let offset = info.and_then(|info| match info.role {
        Some(Role::Replica) => info.slave_repl_offset,
        Some(Role::Master | Role::Sentinel) | None => info.master_repl_offset,
    });
    let link = info.filter(|info| info.role == Some(Role::Replica) && info.master_host.is_some()).map(|info| {
        match info.master_link_down {
            // It notices a host that is gone after a minute only.
            None if info.master_link_up => "its redis still takes the link to the master to be up".to_owned(),
            None => "its link to the master is down".to_owned(),
            Some(LinkDown::Never) => "it has never been in sync since it was started".to_owned(),
            Some(LinkDown::For(time)) => {
                format!("its link to the master has been down for {}", humantime::format_duration(time))
            }
        }
    });
    let history = match facts.and_then(|facts| facts.history) {
        None => "nothing is on record of where they came from".to_owned(),
        Some(history) if history.in_sync => {
            format!("in sync with the master of epoch {} when last seen so", history.epoch)
        }
        Some(history) => format!("they fell behind the master of epoch {}", history.epoch),
    };
    let known = master.decision.map(|decision| {
        let itself = if decision.master == node.address { ", which is this one itself" } else { "" };
        format!("the last master known here is that of epoch {}{itself}", decision.epoch)
    });
    let empty = facts.is_some_and(|facts| !facts.has_data).then(|| "IT HOLDS NO KEY AT ALL".to_owned());
    let offset = offset.map(|offset| format!("offset {offset}"));
    [empty, Some(history), link, offset, known].into_iter().flatten().collect::<Vec<_>>().join("; ")
}
