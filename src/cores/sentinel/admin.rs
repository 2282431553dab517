//! The commands that change what is watched, and how: nothing is changed before it is on disk.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Instant, Place, Secret};
use crate::wire::resp::Reply;

use super::names::Lookup;
use super::session::{arity, error, nothing, simple};
use super::{Answer, ClientId, MasterConfig, MasterId, Output, Sentinel, Settings, Simulated, glob};

/// Masters of one sentinel at most.
pub(super) const MASTERS_MAX: usize = 1_024;
/// Commands that wait for what a host name stands for, at most.
const UNRESOLVED_MAX: usize = 64;
/// Longest name of a master, bytes.
const NAME_MAX: usize = 128;
/// Longest value of an option, bytes.
const VALUE_MAX: usize = 1_024;

/// Paths that must be those of executable files, and how each is called.
type Checks = Vec<(&'static str, String)>;

/// What a client has ordered, and what waits for the disk.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    client: ClientId,
    pub(super) change: Change,
    checks: Checks,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// SENTINEL MONITOR
    Monitor { config: Box<MasterConfig>, place: Place, address: SocketAddr },
    /// SENTINEL REMOVE
    Remove(MasterId),
    /// SENTINEL SET: the configuration afterwards, and what each option says in its event.
    Set { master: MasterId, config: Box<MasterConfig>, said: Vec<String> },
    /// SENTINEL CONFIG SET
    Settings(Box<Settings>),
    /// SENTINEL FLUSHCONFIG
    Nothing,
}

fn word(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(VALUE_MAX)]).into_owned()
}

fn lower(bytes: &[u8]) -> String {
    word(bytes).to_ascii_lowercase()
}

fn positive(value: &str) -> Option<u64> {
    value.parse().ok().filter(|value| (1..=i64::MAX.unsigned_abs()).contains(value))
}

fn millis(value: &str) -> Option<Duration> {
    positive(value).map(Duration::from_millis)
}

fn yes_no(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// What can stand in a line of a configuration file.
fn is_line_text(value: &str) -> bool {
    !value.contains(['\n', '\r', '\0'])
}

/// Letters, digits, `.`, `-` and `_`: everything else would break a line of the configuration file or a greeting.
pub(super) fn is_master_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(allowed)
}

impl Sentinel {
    fn refused_by_file(&self, what: &str) -> Option<Answer> {
        let text = format!("ERR SENTINEL {what} is not possible: what is watched, and how, is in the cluster file");
        self.of_cluster().then(|| error(text))
    }

    /// Takes up a change: its answer comes when it is on disk. None of the inputs of others come in between.
    fn order_change(&mut self, client: ClientId, change: Change, checks: Checks) -> Answer {
        debug_assert!(self.pending.is_none(), "the answer of the disk comes before any other input");
        self.free.extend(checks.first().map(|(_, path)| Output::CheckScript(path.clone())));
        self.pending = Some(Pending { client, change, checks });
        nothing()
    }

    /// `SENTINEL MONITOR name ip port quorum`.
    pub(super) fn monitor_command(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
        if let Some(refusal) = self.refused_by_file("MONITOR") {
            return refusal;
        }
        let [name, host, port, quorum] = args else { return arity("sentinel|monitor") };
        match self.monitored_by(&word(name), &word(host), &word(port), &word(quorum), now) {
            Ok(Some(change)) => self.order_change(client, change, Vec::new()),
            Ok(None) => {
                let words = [b"SENTINEL".as_slice(), b"MONITOR"].map(Bytes::from_static);
                self.unresolved.push((word(host), client, words.iter().chain(args).cloned().collect()));
                nothing()
            }
            Err(text) => error(text),
        }
    }

    /// None: it is not known yet where it is.
    fn monitored_by(
        &mut self,
        name: &str,
        host: &str,
        port: &str,
        quorum: &str,
        now: Instant,
    ) -> Result<Option<Change>, String> {
        let quorum: i64 = quorum.parse().map_err(|_| "ERR Invalid quorum".to_owned())?;
        let quorum = u32::try_from(quorum).ok().filter(|quorum| *quorum > 0);
        let port: i64 = port.parse().map_err(|_| "ERR Invalid port".to_owned())?;
        let quorum = quorum.ok_or("ERR Quorum must be 1 or greater.")?;
        let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or("ERR Invalid port number.")?;
        if self.masters.iter().any(|master| master.config.name == name) {
            return Err("ERR Duplicate master name.".to_owned());
        }
        if !is_master_name(name) {
            return Err(format!(
                "ERR Invalid master name: 1 to {NAME_MAX} letters, digits, '.', '-' and '_' are allowed"
            ));
        }
        if self.masters.len() >= MASTERS_MAX {
            return Err(format!("ERR at most {MASTERS_MAX} masters are watched by one sentinel"));
        }
        let unknown = || "ERR Invalid IP address or hostname specified".to_owned();
        if host.parse::<IpAddr>().is_err() && !self.settings.resolve_hostnames {
            return Err(unknown());
        }
        let address = match self.names.lookup(host, now) {
            Lookup::Known(ip) => SocketAddr::new(ip, port),
            Lookup::Pending if self.unresolved.len() < UNRESOLVED_MAX => return Ok(None),
            Lookup::Pending | Lookup::Failed(_) | Lookup::Invalid | Lookup::Full => return Err(unknown()),
        };
        let config = MasterConfig {
            down_after: self.timers.default_down_after,
            failover_timeout: self.timers.default_failover_timeout,
            ..MasterConfig::new(name, quorum)
        };
        let place = Place { host: host.to_owned(), port };
        Ok(Some(Change::Monitor { config: Box::new(config), place, address }))
    }

    /// `SENTINEL REMOVE name`.
    pub(super) fn remove_command(&mut self, client: ClientId, name: &[u8]) -> Answer {
        if let Some(refusal) = self.refused_by_file("REMOVE") {
            return refusal;
        }
        match self.find(name) {
            Ok(m) => self.order_change(client, Change::Remove(self.masters[m].id), Vec::new()),
            Err(refusal) => refusal,
        }
    }

    /// `SENTINEL SET name option value …`.
    pub(super) fn set_command(&mut self, client: ClientId, name: &[u8], options: &[Bytes]) -> Answer {
        if let Some(refusal) = self.refused_by_file("SET") {
            return refusal;
        }
        let m = match self.find(name) {
            Ok(m) => m,
            Err(refusal) => return refusal,
        };
        match self.options(m, options) {
            Ok((change, checks)) => self.order_change(client, change, checks),
            Err(text) => error(text),
        }
    }

    fn options(&self, m: usize, options: &[Bytes]) -> Result<(Change, Checks), String> {
        let mut config = Box::new(self.masters[m].config.clone());
        let (mut said, mut checks, mut rest) = (Vec::new(), Vec::new(), options);
        while let [option, after @ ..] = rest {
            let name = lower(option);
            let shown = word(option);
            let unknown = || format!("ERR Unknown option or number of arguments for SENTINEL SET '{shown}'");
            let [value, after @ ..] = after else { return Err(unknown()) };
            let value = word(value);
            let wrong = || format!("ERR Invalid argument '{value}' for SENTINEL SET '{shown}'");
            let given =
                || if is_line_text(&value) { Ok((!value.is_empty()).then(|| value.clone())) } else { Err(wrong()) };
            let mut telling = format!("{shown} {value}");
            rest = after;
            match name.as_str() {
                "down-after-milliseconds" => config.down_after = millis(&value).ok_or_else(wrong)?,
                "failover-timeout" => config.failover_timeout = millis(&value).ok_or_else(wrong)?,
                "parallel-syncs" => {
                    config.parallel_syncs = positive(&value).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?;
                }
                "quorum" => config.quorum = positive(&value).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?,
                "master-reboot-down-after-period" | "primary-reboot-down-after-period" => {
                    let period: u64 = value.parse().map_err(|_| wrong())?;
                    config.reboot_down_after = Duration::from_millis(period);
                }
                "auth-pass" => {
                    config.auth_pass = given()?.map(Secret::new);
                    telling = format!("{shown} ******");
                }
                "auth-user" => config.auth_user = given()?,
                "notification-script" | "client-reconfig-script" => {
                    let script = given()?;
                    self.script_allowed()?;
                    let (place, called) = if name == "notification-script" {
                        (&mut config.notification_script, "Notification script")
                    } else {
                        (&mut config.client_reconfig_script, "Client reconfiguration script")
                    };
                    checks.extend(script.clone().map(|path| (called, path)));
                    *place = script;
                }
                "rename-command" => {
                    let [new, after @ ..] = rest else { return Err(unknown()) };
                    let new = word(new);
                    rest = after;
                    if value.is_empty() || new.is_empty() || !is_line_text(&value) || !is_line_text(&new) {
                        return Err(format!("ERR Invalid argument '{value}' for SENTINEL SET '{shown}'"));
                    }
                    telling = format!("{shown} {value} {new}");
                    config.renames.retain(|(old, _)| !old.eq_ignore_ascii_case(&value));
                    if !value.eq_ignore_ascii_case(&new) {
                        config.renames.push((value.clone(), new));
                    }
                }
                _ => return Err(unknown()),
            }
            said.push(telling);
        }
        Ok((Change::Set { master: self.masters[m].id, config, said }, checks))
    }

    fn script_allowed(&self) -> Result<(), String> {
        if self.settings.deny_scripts_reconfig {
            return Err("ERR Reconfiguration of scripts path is denied for security reasons. Check the \
                        deny-scripts-reconfig configuration directive in your Sentinel configuration"
                .to_owned());
        }
        Ok(())
    }

    /// The runtime has looked whether a script could be run.
    pub(super) fn script_checked(&mut self, path: &str, executable: bool) {
        let Some(pending) = &mut self.pending else { return };
        let Some(at) = pending.checks.iter().position(|(_, wanted)| wanted == path) else { return };
        let (called, _) = pending.checks.remove(at);
        let (client, next) = (pending.client, pending.checks.first().map(|(_, path)| path.clone()));
        if executable {
            self.free.extend(next.map(Output::CheckScript));
        } else {
            self.pending = None;
            let refusal = format!("ERR {called} seems non existing or non executable");
            self.free.push(Output::Respond(client, error(refusal)));
        }
    }

    /// Whether a change waits for nothing but the disk.
    pub(super) fn change_is_ready(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.checks.is_empty())
    }

    /// `SENTINEL CONFIG GET|SET …`.
    pub(super) fn config_command(&mut self, client: ClientId, verb: &[u8], words: &[Bytes]) -> Answer {
        if verb.eq_ignore_ascii_case(b"get") && !words.is_empty() {
            return self.config_get(words);
        }
        if !verb.eq_ignore_ascii_case(b"set") || words.is_empty() || !words.len().is_multiple_of(2) {
            return error("ERR Only SENTINEL CONFIG GET <option> / SET <option> <value> are supported.");
        }
        if let Some(refusal) = self.refused_by_file("CONFIG SET") {
            return refusal;
        }
        match self.settings_with(words) {
            Ok(settings) => self.order_change(client, Change::Settings(Box::new(settings)), Vec::new()),
            Err(text) => error(text),
        }
    }

    fn config_get(&self, patterns: &[Bytes]) -> Answer {
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let settings = &self.settings;
        let pass = settings.sentinel_pass.as_ref().map_or("", |pass| pass.reveal()).to_owned();
        let all = [
            ("resolve-hostnames", yes_no(settings.resolve_hostnames)),
            ("announce-hostnames", yes_no(settings.announce_hostnames)),
            ("announce-ip", settings.announce_ip.clone().unwrap_or_default()),
            ("announce-port", settings.announce_port.unwrap_or(0).to_string()),
            ("sentinel-user", settings.sentinel_user.clone().unwrap_or_default()),
            // The password of a cluster file is nobody's business.
            ("sentinel-pass", if self.of_cluster() { String::new() } else { pass }),
            ("loglevel", settings.log_level.clone().unwrap_or_else(|| "notice".to_owned())),
        ];
        let wanted =
            |name: &str| patterns.iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
        let found = all.into_iter().filter(|(name, _)| wanted(name));
        Answer::Reply(Reply::map(found.map(|(name, value)| (name, Reply::Bulk(value.into())))))
    }

    fn settings_with(&self, pairs: &[Bytes]) -> Result<Settings, String> {
        let mut settings = self.settings.clone();
        for pair in pairs.chunks_exact(2) {
            let (name, value) = (lower(&pair[0]), word(&pair[1]));
            let wrong = || format!("ERR Invalid value '{value}' to SENTINEL CONFIG SET '{}'", word(&pair[0]));
            let text =
                || if is_line_text(&value) { Ok((!value.is_empty()).then(|| value.clone())) } else { Err(wrong()) };
            match name.as_str() {
                "resolve-hostnames" => settings.resolve_hostnames = yes_no(&value).ok_or_else(wrong)?,
                "announce-hostnames" => settings.announce_hostnames = yes_no(&value).ok_or_else(wrong)?,
                "announce-ip" => settings.announce_ip = text()?,
                "announce-port" => {
                    let port: u16 = value.parse().map_err(|_| wrong())?;
                    settings.announce_port = (port > 0).then_some(port);
                }
                "sentinel-user" => settings.sentinel_user = text()?,
                "sentinel-pass" => settings.sentinel_pass = text()?.map(Secret::new),
                "loglevel" => {
                    let known = ["debug", "verbose", "notice", "warning", "nothing"];
                    let level = value.to_ascii_lowercase();
                    settings.log_level = Some(level.clone()).filter(|_| known.contains(&level.as_str()));
                    settings.log_level.as_ref().ok_or_else(wrong)?;
                }
                _ => return Err(format!("ERR Invalid argument '{}' to SENTINEL CONFIG SET", word(&pair[0]))),
            }
        }
        Ok(settings)
    }

    /// `SENTINEL FLUSHCONFIG`.
    pub(super) fn flush_command(&mut self, client: ClientId) -> Answer {
        self.order_change(client, Change::Nothing, Vec::new())
    }

    /// `SENTINEL DEBUG [timer milliseconds …]`: until the process ends.
    pub(super) fn debug_command(&mut self, args: &[Bytes]) -> Answer {
        let mut timers = self.timers.clone();
        if args.is_empty() {
            let fields = timers.named().into_iter();
            let fields = fields.map(|(name, value)| (name, Reply::Bulk(value.as_millis().to_string().into())));
            return Answer::Reply(Reply::map(fields));
        }
        for pair in args.chunks(2) {
            let name = word(&pair[0]);
            let unknown = || error(format!("ERR Unknown option or number of arguments for SENTINEL DEBUG '{name}'"));
            let Some(value) = pair.get(1).map(|value| word(value)) else { return unknown() };
            let Some(time) = millis(&value) else {
                return error(format!("ERR Invalid argument '{value}' for SENTINEL DEBUG '{name}'"));
            };
            if !timers.set(&name, time) {
                return unknown();
            }
        }
        self.timers = timers;
        // What was planned by the old periods is due now.
        for node in self.masters.iter_mut().flat_map(|master| &mut master.nodes) {
            (node.ping_due, node.info_due) = (Instant::START, Instant::START);
        }
        self.masters.iter_mut().for_each(|master| master.hello_due = Instant::START);
        simple("OK")
    }

    /// `SENTINEL SIMULATE-FAILURE flag …`: the process ends at that point of a failover it leads.
    pub(super) fn simulate_command(&mut self, args: &[Bytes]) -> Answer {
        // What was asked for before is over, whatever is asked for now.
        self.simulated = Simulated::default();
        for flag in args {
            match lower(flag).as_str() {
                "crash-after-election" => self.simulated.after_election = true,
                "crash-after-promotion" => self.simulated.after_promotion = true,
                "help" => {
                    let names = ["crash-after-election", "crash-after-promotion"];
                    let names = names.map(|name| Reply::Bulk(Bytes::from_static(name.as_bytes())));
                    return Answer::Reply(Reply::Array(names.to_vec()));
                }
                _ => return error("ERR Unknown failure simulation specified"),
            }
        }
        simple("OK")
    }

    /// `SENTINEL RESET pattern`: forgets the replicas and the other sentinels of each such master.
    pub(super) fn reset_command(&mut self, pattern: &[u8], now: Instant) -> Answer {
        let matching = |m: &usize| glob::matches(pattern, self.masters[*m].config.name.as_bytes());
        let found: Vec<usize> = (0..self.masters.len()).filter(matching).collect();
        for m in &found {
            self.forget(*m, now);
            self.master_event("+reset-master", *m, "");
        }
        self.dirty |= !found.is_empty();
        Answer::Reply(Reply::Integer(i64::try_from(found.len()).unwrap_or(i64::MAX)))
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
        let new = super::instance::Instance::new(id, address, name, now);
        *node = super::instance::Instance { host, facts, fresh, served, ..new };
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

    /// The change is on disk: now it is true.
    pub(super) fn apply(&mut self, pending: Pending, now: Instant) {
        match pending.change {
            Change::Monitor { config, place, address } => {
                // Whoever was removed and is watched again must not vote a second time in an epoch.
                let epoch = self.current_epoch;
                let m = self.watch(*config, Some((address, &place, 0)), now);
                self.masters[m].vote = (epoch > 0).then_some((super::NOBODY, epoch));
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
        self.free.push(Output::Respond(pending.client, simple("OK")));
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
            (node.ping_due, node.info_due) = (now, now);
            if new_access {
                self.hang_up_node(m, n, now);
            }
        }
    }

    fn reconnect_peers(&mut self, now: Instant) {
        for p in 0..self.peers.len() {
            if let Some(link) = self.peers[p].link.id() {
                self.hang_up(link);
                self.peer_lost(p, now);
            }
        }
    }

    /// The change could not be stored, and never was.
    pub(super) fn change_failed(&mut self, reason: &str) {
        if let Some(Pending { client, .. }) = self.pending.take() {
            let refusal = error(format!("ERR Failed to save config file: {reason}"));
            self.free.push(Output::Respond(client, refusal));
        }
    }
}
