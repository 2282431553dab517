//! Changes of what is watched, and how: nothing is changed before it is on disk.

use std::net::{IpAddr, SocketAddr};

use crate::base::{Instant, Place};

use super::effect::{Script, Settled};
use super::instance::Instance;
use super::names::Lookup;
use super::pending::{Change, Pending};
use super::{Agreement, ClientId, MasterConfig, MasterId, NOBODY, Output, Settings, Timers};

/// Masters of one sentinel at most.
const MASTERS_MAX: usize = 1_024;
/// Longest name of a master, bytes.
const NAME_MAX: usize = 128;

/// Why a master cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MonitorRefused {
    /// There is one of that name.
    #[error("Duplicate master name.")]
    Duplicate,
    /// Its name would break a line of the configuration file or a greeting.
    #[error("Invalid master name: 1 to {NAME_MAX} letters, digits, '.', '-' and '_' are allowed")]
    Name,
    /// There are enough.
    #[error("at most {MASTERS_MAX} masters are watched by one sentinel")]
    TooMany,
    /// Nobody knows where it is.
    #[error("Invalid IP address or hostname specified")]
    Host,
}

/// Letters, digits, `.`, `-` and `_`: everything else would break a line of the configuration file or a greeting.
fn is_master_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(allowed)
}

impl Agreement {
    /// Takes up a change: what becomes of it is told when it is on disk. False: not before the one that is under way, for each
    /// is made from what is true.
    pub(super) fn begin_change(&mut self, client: ClientId, change: Change, scripts: Vec<(Script, String)>) -> bool {
        if self.pending.is_some() {
            return false;
        }
        self.free.extend(scripts.first().map(|(_, path)| Output::CheckScript(path.clone())));
        self.pending = Some(Pending { client, change, scripts, storing: false });
        true
    }

    /// The change that watches one more master. None: it is not known yet where it is.
    pub(super) fn monitor(
        &mut self,
        name: &str,
        host: &str,
        port: u16,
        quorum: u32,
        now: Instant,
    ) -> Result<Option<Change>, MonitorRefused> {
        if self.masters.iter().any(|master| master.config.name == name) {
            return Err(MonitorRefused::Duplicate);
        }
        if !is_master_name(name) {
            return Err(MonitorRefused::Name);
        }
        if self.masters.len() >= MASTERS_MAX {
            return Err(MonitorRefused::TooMany);
        }
        if host.parse::<IpAddr>().is_err() && !self.settings.resolve_hostnames {
            return Err(MonitorRefused::Host);
        }
        let address = match self.names.lookup(host, now) {
            Lookup::Known(ip) => SocketAddr::new(ip, port),
            Lookup::Pending => return Ok(None),
            Lookup::Failed(_) | Lookup::Invalid | Lookup::Full => return Err(MonitorRefused::Host),
        };
        let config = MasterConfig {
            down_after: self.timers.default_down_after,
            failover_timeout: self.timers.default_failover_timeout,
            ..MasterConfig::new(name, quorum)
        };
        let place = Place { host: host.to_owned(), port };
        Ok(Some(Change::Monitor { config: Box::new(config), place, address }))
    }

    /// The runtime has looked whether a script could be run.
    pub(super) fn script_checked(&mut self, path: &str, executable: bool) {
        let Some(pending) = &mut self.pending else { return };
        let Some(at) = pending.scripts.iter().position(|(_, wanted)| wanted == path) else { return };
        let (script, _) = pending.scripts.remove(at);
        let (client, next) = (pending.client, pending.scripts.first().map(|(_, path)| path.clone()));
        if executable {
            self.free.extend(next.map(Output::CheckScript));
        } else {
            self.pending = None;
            self.free.push((client, Settled::NotExecutable(script)));
        }
    }

    /// Whether a change waits for nothing but the disk.
    pub(super) fn change_is_ready(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.scripts.is_empty() && !pending.storing)
    }

    /// The client that waits for a change.
    pub(super) fn changing(&self) -> Option<ClientId> {
        self.pending.as_ref().map(|pending| pending.client)
    }

    /// A store begins, of everything as it is now.
    pub(super) fn begin_to_store_change(&mut self) {
        let ready = self.change_is_ready();
        if let Some(pending) = self.pending.as_mut().filter(|_| ready) {
            pending.storing = true;
        }
    }

    /// The store that was under way has ended well.
    pub(super) fn change_stored(&mut self, now: Instant) {
        if let Some(pending) = self.pending.take_if(|pending| pending.storing) {
            self.apply(pending, now);
        }
    }

    /// The change is on disk: now it is true.
    fn apply(&mut self, pending: Pending, now: Instant) {
        match pending.change {
            Change::Monitor { config, place, address } => {
                // Whoever was removed and is watched again must not vote a second time in an epoch.
                let epoch = self.current_epoch;
                let m = self.watch(*config, Some((address, &place, 0)), now);
                self.masters[m].vote = (epoch > 0).then_some((NOBODY, epoch));
            }
            Change::Remove(id) => self.place_of(id).into_iter().for_each(|m| self.unwatch(m, now)),
            Change::Set { master, config, said } => {
                if let Some(m) = self.place_of(master) {
                    self.reconfigure(m, *config, now);
                    said.iter().for_each(|option| self.master_event("+set", m, &format!(" {option}")));
                }
            }
            Change::Settings(settings) => {
                let access = |settings: &Settings| (settings.sentinel_user.clone(), settings.sentinel_pass.clone());
                let new_access = access(&self.settings) != access(&settings);
                if settings.log_level != self.settings.log_level {
                    self.free.extend(settings.log_level.clone().map(Output::LogLevel));
                }
                self.settings = *settings;
                if new_access {
                    self.reconnect_peers(now);
                }
            }
            Change::Nothing => {}
        }
        self.free.push((pending.client, Settled::Changed));
    }

    /// The change could not be stored, and never was.
    pub(super) fn change_failed(&mut self, reason: &str) {
        if let Some(Pending { client, .. }) = self.pending.take_if(|pending| pending.storing) {
            self.free.push((client, Settled::NotStored(reason.to_owned())));
        }
    }

    fn unwatch(&mut self, m: usize, now: Instant) {
        self.give_up(m, now, "the master is watched no more");
        self.master_event("-monitor", m, "");
        for n in 0..self.masters[m].nodes.len() {
            self.hang_up_node(m, n, now);
        }
        self.forget_peers(m);
        self.masters.remove(m);
    }

    fn reconfigure(&mut self, m: usize, config: MasterConfig, now: Instant) {
        let access = |config: &MasterConfig| (config.auth_user.clone(), config.auth_pass.clone());
        let new_access = access(&self.masters[m].config) != access(&config);
        self.masters[m].config = config;
        for n in 0..self.masters[m].nodes.len() {
            let node = &mut self.masters[m].nodes[n];
            (node.pulse.due, node.info_due) = (now, now);
            if new_access {
                self.hang_up_node(m, n, now);
            }
        }
    }

    fn reconnect_peers(&mut self, now: Instant) {
        (0..self.peers.len()).for_each(|p| self.hang_up_peer(p, now));
    }

    /// Other periods and limits.
    pub(super) fn set_timers(&mut self, timers: Timers) {
        self.timers = timers;
        // What was planned by the old periods is due now.
        for node in self.masters.iter_mut().flat_map(|master| &mut master.nodes) {
            (node.pulse.due, node.info_due) = (Instant::START, Instant::START);
        }
        self.masters.iter_mut().for_each(|master| master.hello_due = Instant::START);
    }

    /// Forgets the replicas and the other sentinels of each of these masters.
    pub(super) fn reset(&mut self, masters: &[MasterId], now: Instant) {
        for m in masters.iter().filter_map(|id| self.place_of(*id)).collect::<Vec<_>>() {
            self.forget(m, now);
            self.master_event("+reset-master", m, "");
            self.dirty = true;
        }
    }

    fn forget(&mut self, m: usize, now: Instant) {
        self.give_up(m, now, "the master was reset");
        let (at, file) = (self.master_at(m), self.masters[m].config.nodes.len());
        for n in (file..self.masters[m].nodes.len()).rev().filter(|n| *n != at) {
            self.hang_up_node(m, n, now);
            self.masters[m].nodes.remove(n);
        }
        let at = self.master_at(m);
        self.hang_up_node(m, at, now);
        let node = &mut self.masters[m].nodes[at];
        let (id, address) = (node.id, node.address);
        let (host, name) = (node.host.take(), node.node.clone());
        // What the peer link says of it is of this moment, and comes again only when it changes.
        let (facts, fresh, served) = (node.facts.take(), node.fresh, node.served);
        let (hears_majority, terms, unleased_since) = (node.hears_majority, node.terms, node.unleased_since);
        let new = Instance::new(id, address, name, now);
        *node = Instance { host, facts, fresh, served, hears_majority, terms, unleased_since, ..new };
        self.masters[m].odown_since = None;
        if !self.of_cluster() {
            self.forget_peers(m);
        }
    }

    /// The other sentinels of a master are unknown again; those of no other master are gone.
    fn forget_peers(&mut self, m: usize) {
        let id = self.masters[m].id;
        for peer in &mut self.peers {
            peer.opinions.remove(&id);
        }
        for p in (0..self.peers.len()).rev().filter(|p| self.peers[*p].opinions.is_empty()).collect::<Vec<_>>() {
            self.drop_peer(p);
        }
    }

    pub(super) fn drop_peer(&mut self, p: usize) {
        let peer = self.peers.remove(p);
        peer.link.id().into_iter().for_each(|link| self.hang_up(link));
        self.dirty = true;
    }
}
