//! Events: their names and payloads are those of redis-sentinel, to the byte, since programs read them.

use std::net::SocketAddr;

use crate::base::{Epoch, Instant, RunId};

use super::{Agreement, Output, Place, scripts};

/// Events kept while nothing can be stored, the latest ones: those of a few failovers.
const UNSAID_MAX: usize = 256;

/// How much a person should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Degraded; the sentinels act by themselves.
    Warn,
    /// A person must act.
    Error,
}

/// One event: also a message on the channel of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name and channel, such as `+switch-master`.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The payload of the message.
    pub payload: String,
}

impl Event {
    pub(super) fn new(name: &'static str, severity: Severity, payload: String) -> Self {
        Self { name, severity, payload }
    }

    /// Whether it tells only of what others do, or of the disk itself: nothing of that has to be on disk before.
    fn is_observation(&self) -> bool {
        matches!(
            self.name,
            "+sdown"
                | "-sdown"
                | "+odown"
                | "-odown"
                | "+reboot"
                | "+role-change"
                | "-role-change"
                | "no-candidate"
                | "paused"
                | "store-failed"
        )
    }
}

/// How much an event of stock Sentinel matters.
fn severity(name: &str) -> Severity {
    match name {
        "+sdown"
        | "+odown"
        | "+try-failover"
        | "+new-epoch"
        | "-failover-abort-not-elected"
        | "+reboot"
        | "-failover-abort-slave-timeout"
        | "-failover-abort-master-timeout"
        | "+failover-end-for-timeout"
        | "-slave-reconf-sent-timeout"
        | "+switch-master"
        | "+convert-to-slave" => Severity::Warn,
        "-failover-abort-no-good-slave" | "+auth-failed" => Severity::Error,
        _ => Severity::Info,
    }
}

impl Agreement {
    /// Publishes an event: to the journal, and to every client that has subscribed to its name. What only tells of others is said
    /// at once. Anything else may tell of what must be on disk first, and stands behind the fence; while nothing can be stored it
    /// waits until it is true.
    pub(super) fn publish(&mut self, event: Event) {
        if event.is_observation() {
            return self.free.push(event);
        }
        match self.store_retry_at {
            None => {
                self.fenced.push(event.clone());
                self.saying.push(event);
            }
            Some(_) => {
                if self.unsaid.len() >= UNSAID_MAX {
                    self.unsaid.remove(0);
                }
                self.unsaid.push(event);
            }
        }
    }

    /// Says what happened to master `m`; what its operator should hear of, the notification script is told.
    fn say(&mut self, name: &'static str, m: Option<usize>, payload: String) {
        let script = m.and_then(|m| self.masters[m].config.notification_script.as_ref());
        if let Some(script) = script.filter(|_| scripts::level(name) == Some(scripts::Level::Warning)) {
            self.scripts.schedule(scripts::notification(script, name, &payload));
        }
        self.publish(Event::new(name, severity(name), payload));
    }

    pub(super) fn run_scripts(&mut self, now: Instant) {
        let (mut requests, mut events) = (Vec::new(), Vec::new());
        let wake = self.scripts.turn(now, &self.timers, &mut requests, &mut events);
        wake.into_iter().for_each(|at| self.wake_at(at));
        for event in events {
            // Those of level debug are for the log alone.
            if scripts::level(event.name) == Some(scripts::Level::Debug) {
                self.fenced.push(Output::Publish(event));
            } else {
                self.publish(event);
            }
        }
        // What they tell is true only once it is on disk.
        self.fenced.extend(requests.into_iter().map(Output::Script));
    }

    /// Tells the client reconfiguration script that the master has moved.
    pub(super) fn reconfigure_clients(&mut self, m: usize, role: scripts::Role, from: &Place, to: &Place) {
        let config = &self.masters[m].config;
        if let Some(script) = &config.client_reconfig_script {
            self.scripts.schedule(scripts::client_reconfig(script, &config.name, role, from, to));
        }
    }

    /// `master <name> <ip> <port>`, and `extra` behind it.
    pub(super) fn master_event(&mut self, name: &'static str, m: usize, extra: &str) {
        let payload = format!("{}{extra}", self.master_words(m));
        self.say(name, Some(m), payload);
    }

    fn master_words(&self, m: usize) -> String {
        let address = self.monitored(m);
        format!("master {} {} {}", self.masters[m].config.name, address.ip(), address.port())
    }

    fn at_master(&self, m: usize) -> String {
        let address = self.monitored(m);
        format!("@ {} {} {}", self.masters[m].config.name, address.ip(), address.port())
    }

    /// `slave <name> <ip> <port> @ <master>`, or the master's form if it is the master.
    pub(super) fn node_event(&mut self, name: &'static str, m: usize, n: usize, extra: &str) {
        let address = self.masters[m].nodes[n].address;
        let payload = if address == self.monitored(m) {
            format!("{}{extra}", self.master_words(m))
        } else {
            format!("slave {address} {} {} {}{extra}", address.ip(), address.port(), self.at_master(m))
        };
        self.say(name, Some(m), payload);
    }

    /// `sentinel <id> <ip> <port> @ <master>`.
    pub(super) fn sentinel_event(&mut self, name: &'static str, m: usize, id: RunId, address: SocketAddr) {
        let payload = format!("sentinel {id} {} {} {}", address.ip(), address.port(), self.at_master(m));
        self.say(name, Some(m), payload);
    }

    pub(super) fn publish_monitor(&mut self, m: usize) {
        let extra = format!(" quorum {}", self.masters[m].config.quorum);
        self.master_event("+monitor", m, &extra);
    }

    pub(super) fn publish_new_epoch(&mut self, epoch: Epoch) {
        self.say("+new-epoch", None, epoch.to_string());
    }

    pub(super) fn publish_vote(&mut self, m: usize, leader: RunId, epoch: Epoch) {
        self.say("+vote-for-leader", Some(m), format!("{leader} {epoch}"));
    }

    pub(super) fn publish_switch(&mut self, m: usize, from: SocketAddr, to: SocketAddr) {
        let name = &self.masters[m].config.name;
        let payload = format!("{name} {} {} {} {}", from.ip(), from.port(), to.ip(), to.port());
        self.say("+switch-master", Some(m), payload);
    }
}
