//! What the server asks of the agreement on behalf of a client, and what it hears at once. There is no other way for a command
//! to change anything that the sentinels agree on or that decides about it.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::{Epoch, Instant, NodeName, RunId};

use super::change::MonitorRefused;
use super::effect::Script;
use super::pending::Change;
use super::switchover::Refused;
use super::{Agreement, ClientId, MasterId, Simulated, Timers};

/// One order.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Another sentinel asks whether the master at that address is down, and for a vote if it names a candidate.
    IsMasterDown { about: SocketAddr, epoch: Epoch, candidate: Option<RunId> },
    /// Another sentinel greets, with this payload.
    Greeting(Bytes),
    /// A failover that is answered as soon as it has begun.
    Failover { master: MasterId, coordinated: bool },
    /// A switchover to that node, or to the best replica, that is answered when it has ended.
    Switchover { master: MasterId, to: Option<NodeName> },
    /// Forgets what was found out about these masters.
    Reset(Vec<MasterId>),
    /// Watches one more master.
    Monitor { name: String, host: String, port: u16, quorum: u32 },
    /// Any other change of what is watched and how, and the scripts that have to be executable files first.
    Change(Change, Vec<(Script, String)>),
    /// Periods and limits, until the process ends.
    Timers(Box<Timers>),
    /// Where the process is to end, in place of what was asked for before.
    SimulateFailure(Simulated),
    /// The process is about to leave.
    Stop,
}

/// What comes of an order at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done.
    Done,
    /// It has begun; its end is told later, if at all.
    Begun,
    /// Whether the master is down, and the vote. What it promises is true once it is on disk.
    Opinion { down: bool, vote: Option<(RunId, Epoch)> },
    /// Another change is not on disk yet: to be ordered again then.
    Deferred,
    /// The host name in it is being resolved: to be ordered again then.
    Unresolved(String),
    /// A failover or a switchover cannot begin.
    NoFailover(Refused),
    /// A master cannot be watched.
    NotMonitored(MonitorRefused),
}

impl Agreement {
    /// Carries out what a client has ordered. Whether it may order that is not asked here.
    pub(super) fn obey(&mut self, client: ClientId, order: Order, now: Instant) -> Outcome {
        match order {
            Order::IsMasterDown { about, epoch, candidate } => {
                let (down, vote) = self.is_master_down(about, epoch, candidate, now);
                Outcome::Opinion { down, vote }
            }
            Order::Greeting(payload) => {
                self.greeted(&payload, now);
                Outcome::Done
            }
            Order::Failover { master, coordinated } => match self.failover_order(master, coordinated, now) {
                Ok(()) => Outcome::Begun,
                Err(refused) => Outcome::NoFailover(refused),
            },
            Order::Switchover { master, to } => {
                self.switchover_order(master, client, to.as_ref(), now);
                Outcome::Begun
            }
            Order::Reset(masters) => {
                self.reset(&masters, now);
                Outcome::Done
            }
            Order::Monitor { name, host, port, quorum } => match self.monitor(&name, &host, port, quorum, now) {
                Ok(Some(change)) => self.change(client, change, Vec::new()),
                Ok(None) => Outcome::Unresolved(host),
                Err(refused) => Outcome::NotMonitored(refused),
            },
            Order::Change(change, scripts) => self.change(client, change, scripts),
            Order::Timers(timers) => {
                self.set_timers(*timers);
                Outcome::Done
            }
            Order::SimulateFailure(simulated) => {
                self.simulated = simulated;
                Outcome::Done
            }
            Order::Stop => {
                self.stop(now);
                Outcome::Begun
            }
        }
    }

    fn change(&mut self, client: ClientId, change: Change, scripts: Vec<(Script, String)>) -> Outcome {
        if self.begin_change(client, change, scripts) { Outcome::Begun } else { Outcome::Deferred }
    }
}
