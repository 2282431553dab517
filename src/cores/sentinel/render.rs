//! What clients read of instances: field names and order are those of redis-sentinel, since programs read them by place.

use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::wire::info::Role;
use crate::wire::resp::Reply;

use super::instance::{Instance, Reconf};
use super::peer::Peer;
use super::{Answer, Sentinel};

/// The version whose protocol is spoken; clients decide by it what they may ask.
pub(super) const REDIS_VERSION: &str = "7.0.15";

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn age(now: Instant, at: Option<Instant>) -> String {
    at.map_or_else(|| "0".to_owned(), |at| ms(now.since(at)))
}

/// Fields and their values.
struct Map(Vec<(&'static str, Reply)>);

impl Map {
    fn put(&mut self, field: &'static str, value: impl Into<String>) {
        self.0.push((field, Reply::Bulk(value.into().into())));
    }
}

impl Sentinel {
    fn node_head(&self, map: &mut Map, m: usize, n: usize, flags: &str, now: Instant) {
        let node = &self.masters[m].nodes[n];
        let at_master = n == self.master_at(m);
        let name = if at_master { self.masters[m].config.name.clone() } else { node.address.to_string() };
        map.put("name", name);
        map.put("ip", self.told_host(node.host.as_deref(), node.address));
        map.put("port", node.address.port().to_string());
        let run_id = node.info.as_ref().and_then(|info| info.run_id);
        map.put("runid", run_id.map_or(String::new(), |id| id.to_string()));
        map.put("flags", flags);
        let pending = usize::from(node.ping_sent.is_some()) + usize::from(node.info_sent.is_some());
        map.put("link-pending-commands", pending.to_string());
        map.put("link-refcount", "1");
        if let Some(state) = self.masters[m].failover().stock_name().filter(|_| at_master) {
            map.put("failover-state", state);
        }
        map.put("last-ping-sent", age(now, node.ping_sent));
        map.put("last-ok-ping-reply", ms(now.since(node.last_ok)));
        map.put("last-ping-reply", ms(now.since(node.last_reply)));
        if let Some(since) = node.down_since {
            map.put("s-down-time", ms(now.since(since)));
        }
        if let Some(since) = self.masters[m].odown_since.filter(|_| at_master) {
            map.put("o-down-time", ms(now.since(since)));
        }
        map.put("down-after-milliseconds", ms(self.masters[m].config.down_after));
        map.put("info-refresh", age(now, node.info_at));
        let role = node.info.as_ref().and_then(|info| info.role);
        let expected = if at_master { "master" } else { "slave" };
        map.put("role-reported", role.map_or(expected, role_name));
        map.put("role-reported-time", ms(now.since(node.role_since)));
    }

    pub(super) fn master_map(&self, m: usize, now: Instant) -> Reply {
        let (n, master) = (self.master_at(m), &self.masters[m]);
        let mut map = Map(Vec::with_capacity(24));
        let mut flags = vec![];
        if master.nodes[n].down_since.is_some() {
            flags.push("s_down");
        }
        if master.odown_since.is_some() {
            flags.push("o_down");
        }
        flags.push("master");
        flags.extend(disconnected(&master.nodes[n]));
        if master.leads().is_some() {
            flags.push("failover_in_progress");
        }
        if master.is_ordered() {
            flags.push("force_failover");
        }
        if !master.config.reboot_down_after.is_zero() && master.nodes[n].rebooted_at.is_some() {
            flags.push("master_reboot");
        }
        self.node_head(&mut map, m, n, &flags.join(","), now);
        map.put("config-epoch", self.decision(m).map_or(0, |decision| decision.epoch).to_string());
        map.put("num-slaves", self.replicas(m).count().to_string());
        map.put("num-other-sentinels", self.known_peers(m).count().to_string());
        map.put("quorum", master.config.quorum.to_string());
        map.put("failover-timeout", ms(master.config.failover_timeout));
        map.put("parallel-syncs", master.config.parallel_syncs.to_string());
        for (field, script) in [
            ("notification-script", &master.config.notification_script),
            ("client-reconfig-script", &master.config.client_reconfig_script),
        ] {
            script.iter().for_each(|path| map.put(field, path.clone()));
        }
        Reply::map(map.0)
    }

    /// Replicas that want to be listed.
    fn replicas(&self, m: usize) -> impl Iterator<Item = usize> + '_ {
        let at = self.master_at(m);
        let nodes = &self.masters[m].nodes;
        let announced = |node: &Instance| node.info.as_ref().is_none_or(|info| info.replica_announced);
        (0..nodes.len()).filter(move |n| *n != at && announced(&nodes[*n]))
    }

    fn known_peers(&self, m: usize) -> impl Iterator<Item = &Peer> {
        self.peers_of(m).map(|p| &self.peers[p]).filter(|peer| peer.id.is_some())
    }

    pub(super) fn replica_maps(&self, m: usize, now: Instant) -> Reply {
        Reply::Array(self.replicas(m).map(|n| self.replica_map(m, n, now)).collect())
    }

    fn replica_map(&self, m: usize, n: usize, now: Instant) -> Reply {
        let master = &self.masters[m];
        let node = &master.nodes[n];
        let mut flags = vec![];
        if node.down_since.is_some() {
            flags.push("s_down");
        }
        flags.push("slave");
        flags.extend(disconnected(node));
        if master.awaits_promotion_of(n) {
            flags.push("promoted");
        }
        match node.reconf {
            Reconf::None => {}
            Reconf::Sent(_) => flags.push("reconf_sent"),
            Reconf::InProgress(_) => flags.push("reconf_inprog"),
            Reconf::Done => flags.push("reconf_done"),
        }
        let mut map = Map(Vec::with_capacity(24));
        self.node_head(&mut map, m, n, &flags.join(","), now);
        let info = node.info.as_ref();
        let down = master.candidate(n, self.moment(now)).link_down;
        map.put("master-link-down-time", ms(down));
        map.put("master-link-status", if info.is_some_and(|info| info.master_link_up) { "ok" } else { "err" });
        map.put("master-host", info.and_then(|info| info.master_host.clone()).unwrap_or_else(|| "?".to_owned()));
        map.put("master-port", info.and_then(|info| info.master_port).unwrap_or(0).to_string());
        map.put("slave-priority", info.and_then(|info| info.slave_priority).unwrap_or(100).to_string());
        map.put("slave-repl-offset", info.and_then(|info| info.slave_repl_offset).unwrap_or(0).to_string());
        map.put("replica-announced", if info.is_none_or(|info| info.replica_announced) { "1" } else { "0" });
        Reply::map(map.0)
    }

    pub(super) fn sentinel_maps(&self, m: usize, now: Instant) -> Reply {
        Reply::Array(self.known_peers(m).map(|peer| self.sentinel_map(m, peer, now)).collect())
    }

    fn sentinel_map(&self, m: usize, peer: &Peer, now: Instant) -> Reply {
        let id = peer.id.map_or(String::new(), |id| id.to_string());
        let opinion = peer.opinion(self.masters[m].id);
        let mut flags = vec![];
        if peer.down_since.is_some() {
            flags.push("s_down");
        }
        flags.push("sentinel");
        if if peer.stock { peer.link.up().is_none() } else { !peer.fresh } {
            flags.push("disconnected");
        }
        if opinion.down.is_some_and(|(_, down)| down) {
            flags.push("master_down");
        }
        let mut map = Map(Vec::with_capacity(16));
        map.put("name", id.clone());
        map.put("ip", self.told_host(peer.host.as_deref(), peer.address));
        map.put("port", peer.address.port().to_string());
        map.put("runid", id);
        map.put("flags", flags.join(","));
        map.put("link-pending-commands", usize::from(peer.ping_sent.is_some()).to_string());
        map.put("link-refcount", peer.opinions.len().to_string());
        map.put("last-ping-sent", age(now, peer.ping_sent));
        map.put("last-ok-ping-reply", ms(now.since(peer.last_ok)));
        map.put("last-ping-reply", ms(now.since(peer.last_reply)));
        if let Some(since) = peer.down_since {
            map.put("s-down-time", ms(now.since(since)));
        }
        map.put("down-after-milliseconds", ms(self.masters[m].config.down_after));
        map.put("last-hello-message", ms(now.since(peer.last_hello)));
        let name = self.masters[m].config.name.as_str();
        let facts = peer.fresh_facts().and_then(|facts| facts.masters.iter().find(|one| one.name.as_str() == name));
        let vote = facts.and_then(|facts| facts.vote).or(opinion.vote);
        map.put("voted-leader", vote.map_or_else(|| "?".to_owned(), |(leader, _)| leader.to_string()));
        map.put("voted-leader-epoch", vote.map_or(0, |(_, epoch)| epoch).to_string());
        Reply::map(map.0)
    }

    /// `SENTINEL INFO-CACHE name …`: of each such master, what it and its replicas last said, and how long ago.
    pub(super) fn info_cache(&self, names: &[Bytes], now: Instant) -> Answer {
        let cached = |node: &Instance| {
            let age = node.info_at.map_or(0, |at| i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX));
            Reply::Array(vec![Reply::Integer(age), node.info_text.clone().map_or(Reply::Null, Reply::Bulk)])
        };
        let mut found = Vec::new();
        let wanted = |name: &str| names.iter().any(|wanted| wanted.as_ref() == name.as_bytes());
        for m in (0..self.masters.len()).filter(|m| wanted(&self.masters[*m].config.name)) {
            let nodes = std::iter::once(self.master_at(m)).chain(self.replicas(m));
            let name = Bytes::copy_from_slice(self.masters[m].config.name.as_bytes());
            found.push(Reply::Bulk(name));
            found.push(Reply::Array(nodes.map(|n| cached(&self.masters[m].nodes[n])).collect()));
        }
        Answer::Reply(Reply::Array(found))
    }

    pub(super) fn info_sentinel(&self) -> String {
        format!(
            "# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:0\r\nsentinel_tilt_since_seconds:-1\r\n\
             sentinel_running_scripts:{}\r\nsentinel_scripts_queue_length:{}\r\nsentinel_simulate_failure_flags:{}\r\n{}",
            self.masters.len(),
            self.scripts.running(),
            self.scripts.queue_length(),
            u8::from(self.simulated.after_election) | u8::from(self.simulated.after_promotion) << 1,
            (0..self.masters.len()).map(|m| self.info_master(m)).collect::<String>(),
        )
    }

    fn info_master(&self, m: usize) -> String {
        let (master, n) = (&self.masters[m], self.master_at(m));
        let status = match (master.odown_since, master.nodes[n].down_since) {
            (Some(_), _) => "odown",
            (None, Some(_)) => "sdown",
            (None, None) => "ok",
        };
        let (name, address) = (&master.config.name, self.monitored(m));
        let (slaves, sentinels) = (self.replicas(m).count(), 1 + self.known_peers(m).count());
        format!("master{m}:name={name},status={status},address={address},slaves={slaves},sentinels={sentinels}\r\n")
    }
}

fn disconnected(node: &Instance) -> Option<&'static str> {
    (node.command.up().is_none() || node.auth_failed).then_some("disconnected")
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Master => "master",
        Role::Replica => "slave",
        Role::Sentinel => "sentinel",
    }
}
