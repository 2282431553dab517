//! Events are published: to the journal, to clients, to scripts.

use std::net::SocketAddr;

use crate::base::{Epoch, Instant, Place, RunId};

use super::event::{Event, severity};
use super::master::Master;
use super::ports::Output;
use super::{Agreement, scripts};

/// Events kept while nothing can be stored, the latest ones: those of a few failovers.
const UNSAID_MAX: usize = 256;

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

    /// Says what happened to a master, in those words; what its operator should hear of, the notification script is told.
    fn say(&mut self, name: &'static str, m: usize, words: impl FnOnce(&Master) -> String) {
        let master = &self.masters[m];
        let payload = words(master);
        let script = master.config.notification_script.as_ref();
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
        self.say(name, m, |master| format!("{}{extra}", master.called()));
    }

    /// `slave <name> <ip> <port> @ <master>`, or the master's form if it is the master.
    pub(super) fn node_event(&mut self, name: &'static str, m: usize, n: usize, extra: &str) {
        self.say(name, m, |master| format!("{}{extra}", master.called_node(n)));
    }

    /// `sentinel <id> <ip> <port> @ <master>`.
    pub(super) fn sentinel_event(&mut self, name: &'static str, m: usize, id: RunId, address: SocketAddr) {
        let (ip, port) = (address.ip(), address.port());
        self.say(name, m, |master| format!("sentinel {id} {ip} {port} {}", master.called_behind()));
    }

    pub(super) fn publish_monitor(&mut self, m: usize) {
        self.say("+monitor", m, |master| format!("{} quorum {}", master.called(), master.config.quorum));
    }

    pub(super) fn publish_new_epoch(&mut self, epoch: Epoch) {
        self.publish(Event::new("+new-epoch", severity("+new-epoch"), epoch.to_string()));
    }

    pub(super) fn publish_vote(&mut self, m: usize, leader: RunId, epoch: Epoch) {
        self.say("+vote-for-leader", m, |_| format!("{leader} {epoch}"));
    }

    pub(super) fn publish_switch(&mut self, m: usize, from: SocketAddr, to: SocketAddr) {
        let places = format!("{} {} {} {}", from.ip(), from.port(), to.ip(), to.port());
        self.say("+switch-master", m, |master| format!("{} {places}", master.config.name));
    }
}
