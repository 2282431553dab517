//! What clients read of instances: field names and order are those of redis-sentinel, since programs read them by place.

use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::Answer;
use crate::cores::sentinel::instance::{Instance, Reconf};
use crate::cores::sentinel::peer::Peer;
use crate::cores::sentinel::pulse::Pulse;
use crate::cores::sentinel::view::{MasterView, NodeView, View};
use crate::wire::info::Role;
use crate::wire::resp::Reply;

use super::reply::{bulk, error, simple};

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

    fn pulse(&mut self, pulse: &Pulse, now: Instant) {
        self.put("last-ping-sent", age(now, pulse.sent));
        self.put("last-ok-ping-reply", ms(now.since(pulse.last_ok)));
        self.put("last-ping-reply", ms(now.since(pulse.last_reply)));
    }

    fn node_head(&mut self, node: NodeView<'_>, flags: &str, now: Instant) {
        let (master, at_master, redis) = (node.of(), node.is_master(), node.redis());
        let name = if at_master { master.name().to_owned() } else { redis.address.to_string() };
        self.put("name", name);
        self.put("ip", master.all().told_host(redis.host.as_deref(), redis.address));
        self.put("port", redis.address.port().to_string());
        let run_id = redis.info.as_ref().and_then(|info| info.run_id);
        self.put("runid", run_id.map_or(String::new(), |id| id.to_string()));
        self.put("flags", flags);
        let pending = usize::from(redis.pulse.sent.is_some()) + usize::from(redis.info_sent.is_some());
        self.put("link-pending-commands", pending.to_string());
        self.put("link-refcount", "1");
        if let Some(state) = master.failover_state().filter(|_| at_master) {
            self.put("failover-state", state);
        }
        self.pulse(&redis.pulse, now);
        if let Some(since) = redis.down_since {
            self.put("s-down-time", ms(now.since(since)));
        }
        if let Some(since) = master.odown_since().filter(|_| at_master) {
            self.put("o-down-time", ms(now.since(since)));
        }
        self.put("down-after-milliseconds", ms(master.config().down_after));
        self.put("info-refresh", age(now, redis.info_at));
        let role = redis.info.as_ref().and_then(|info| info.role);
        let expected = if at_master { "master" } else { "slave" };
        self.put("role-reported", role.map_or(expected, role_name));
        self.put("role-reported-time", ms(now.since(redis.role_since)));
    }
}

/// `ROLE`
pub(super) fn role(view: View<'_>) -> Answer {
    let names = view.masters().map(|master| bulk(master.name().to_owned())).collect();
    Answer::Reply(Reply::Array(vec![bulk("sentinel"), Reply::Array(names)]))
}

/// `SENTINEL MASTERS`
pub(super) fn masters(view: View<'_>, now: Instant) -> Answer {
    Answer::Reply(Reply::Array(view.masters().map(|one| master(one, now)).collect()))
}

/// `SENTINEL MASTER name`
pub(super) fn master(master: MasterView<'_>, now: Instant) -> Reply {
    let (config, node) = (master.config(), master.node());
    let redis = node.redis();
    let mut map = Map(Vec::with_capacity(24));
    let mut flags = vec![];
    if redis.down_since.is_some() {
        flags.push("s_down");
    }
    if master.odown_since().is_some() {
        flags.push("o_down");
    }
    flags.push("master");
    flags.extend(disconnected(redis));
    if master.is_led() {
        flags.push("failover_in_progress");
    }
    if master.is_ordered() {
        flags.push("force_failover");
    }
    if !config.reboot_down_after.is_zero() && redis.rebooted_at.is_some() {
        flags.push("master_reboot");
    }
    map.node_head(node, &flags.join(","), now);
    map.put("config-epoch", master.decision().map_or(0, |decision| decision.epoch).to_string());
    map.put("num-slaves", master.replicas().count().to_string());
    map.put("num-other-sentinels", master.sentinels().count().to_string());
    map.put("quorum", config.quorum.to_string());
    map.put("failover-timeout", ms(config.failover_timeout));
    map.put("parallel-syncs", config.parallel_syncs.to_string());
    for (field, script) in [
        ("notification-script", &config.notification_script),
        ("client-reconfig-script", &config.client_reconfig_script),
    ] {
        script.iter().for_each(|path| map.put(field, path.clone()));
    }
    Reply::map(map.0)
}

/// `SENTINEL REPLICAS name`
pub(super) fn replicas(master: MasterView<'_>, now: Instant) -> Answer {
    Answer::Reply(Reply::Array(master.replicas().map(|node| replica(node, now)).collect()))
}

fn replica(node: NodeView<'_>, now: Instant) -> Reply {
    let redis = node.redis();
    let mut flags = vec![];
    if redis.down_since.is_some() {
        flags.push("s_down");
    }
    flags.push("slave");
    flags.extend(disconnected(redis));
    if node.is_promoted() {
        flags.push("promoted");
    }
    match redis.reconf {
        Reconf::None => {}
        Reconf::Sent(_) => flags.push("reconf_sent"),
        Reconf::InProgress(_) => flags.push("reconf_inprog"),
        Reconf::Done => flags.push("reconf_done"),
    }
    let mut map = Map(Vec::with_capacity(24));
    map.node_head(node, &flags.join(","), now);
    let info = redis.info.as_ref();
    map.put("master-link-down-time", ms(node.link_down(now)));
    map.put("master-link-status", if info.is_some_and(|info| info.master_link_up) { "ok" } else { "err" });
    map.put("master-host", info.and_then(|info| info.master_host.clone()).unwrap_or_else(|| "?".to_owned()));
    map.put("master-port", info.and_then(|info| info.master_port).unwrap_or(0).to_string());
    map.put("slave-priority", info.and_then(|info| info.slave_priority).unwrap_or(100).to_string());
    map.put("slave-repl-offset", info.and_then(|info| info.slave_repl_offset).unwrap_or(0).to_string());
    map.put("replica-announced", if info.is_none_or(|info| info.replica_announced) { "1" } else { "0" });
    Reply::map(map.0)
}

/// `SENTINEL SENTINELS name`
pub(super) fn sentinels(master: MasterView<'_>, now: Instant) -> Answer {
    Answer::Reply(Reply::Array(master.sentinels().map(|peer| sentinel(master, peer, now)).collect()))
}

fn sentinel(master: MasterView<'_>, peer: &Peer, now: Instant) -> Reply {
    let id = peer.id.map_or(String::new(), |id| id.to_string());
    let opinion = peer.opinion(master.id());
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
    map.put("ip", master.all().told_host(peer.host.as_deref(), peer.address));
    map.put("port", peer.address.port().to_string());
    map.put("runid", id);
    map.put("flags", flags.join(","));
    map.put("link-pending-commands", usize::from(peer.pulse.sent.is_some()).to_string());
    map.put("link-refcount", peer.opinions.len().to_string());
    map.pulse(&peer.pulse, now);
    if let Some(since) = peer.down_since {
        map.put("s-down-time", ms(now.since(since)));
    }
    map.put("down-after-milliseconds", ms(master.config().down_after));
    map.put("last-hello-message", ms(now.since(peer.last_hello)));
    let facts = peer.fresh_facts().and_then(|facts| facts.master(master.name()));
    let vote = facts.and_then(|facts| facts.vote).or(opinion.vote);
    map.put("voted-leader", vote.map_or_else(|| "?".to_owned(), |(leader, _)| leader.to_string()));
    map.put("voted-leader-epoch", vote.map_or(0, |(_, epoch)| epoch).to_string());
    Reply::map(map.0)
}

/// `SENTINEL CKQUORUM name`
pub(super) fn ckquorum(master: MasterView<'_>) -> Answer {
    let usable = 1 + master.sentinels().filter(|peer| peer.down_since.is_none()).count();
    let quorum = usize::try_from(master.config().quorum).unwrap_or(usize::MAX);
    let mut faults = Vec::new();
    if usable < quorum {
        faults.push("Not enough available Sentinels to reach the specified quorum for this master");
    }
    if usable < master.majority() {
        faults.push("Not enough available Sentinels to reach the majority and authorize a failover");
    }
    if faults.is_empty() {
        simple(&format!("OK {usable} usable Sentinels. Quorum and failover authorization can be reached"))
    } else {
        error(format!("NOQUORUM {usable} usable Sentinels. {}", faults.join(". ")))
    }
}

/// `SENTINEL INFO-CACHE name …`: of each such master, what it and its replicas last said, and how long ago.
pub(super) fn info_cache(view: View<'_>, names: &[Bytes], now: Instant) -> Answer {
    let cached = |node: NodeView<'_>| {
        let redis = node.redis();
        let age = redis.info_at.map_or(0, |at| i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX));
        Reply::Array(vec![Reply::Integer(age), redis.info_text.clone().map_or(Reply::Null, Reply::Bulk)])
    };
    let mut found = Vec::new();
    let wanted = |name: &str| names.iter().any(|wanted| wanted.as_ref() == name.as_bytes());
    for master in view.masters().filter(|master| wanted(master.name())) {
        let nodes = std::iter::once(master.node()).chain(master.replicas());
        found.push(Reply::Bulk(Bytes::copy_from_slice(master.name().as_bytes())));
        found.push(Reply::Array(nodes.map(cached).collect()));
    }
    Answer::Reply(Reply::Array(found))
}

/// The section of `INFO` about what is watched.
pub(super) fn info_sentinel(view: View<'_>) -> String {
    let (scripts, simulated) = (view.scripts(), view.simulated());
    format!(
        "# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:0\r\nsentinel_tilt_since_seconds:-1\r\n\
         sentinel_running_scripts:{}\r\nsentinel_scripts_queue_length:{}\r\nsentinel_simulate_failure_flags:{}\r\n{}",
        view.masters().count(),
        scripts.running(),
        scripts.queue_length(),
        u8::from(simulated.after_election) | u8::from(simulated.after_promotion) << 1,
        view.masters().enumerate().map(|(at, master)| info_master(at, master)).collect::<String>(),
    )
}

fn info_master(at: usize, master: MasterView<'_>) -> String {
    let status = match (master.odown_since(), master.node().redis().down_since) {
        (Some(_), _) => "odown",
        (None, Some(_)) => "sdown",
        (None, None) => "ok",
    };
    let (name, address) = (master.name(), master.address());
    let (slaves, sentinels) = (master.replicas().count(), 1 + master.sentinels().count());
    format!("master{at}:name={name},status={status},address={address},slaves={slaves},sentinels={sentinels}\r\n")
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
