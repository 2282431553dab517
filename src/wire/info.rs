//! The text that `INFO` answers, reduced to what decisions are made of.
//!
//! Fields that are missing (older servers, a part of the sections) are none or their neutral value; fields that are there
//! and make no sense count as missing: what a peer says is judged, never trusted.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::{Place, RunId};

/// Most replicas taken from one text; the rest is left out.
pub const REPLICAS_MAX: usize = 128;

/// What a redis, valkey or sentinel says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// `redis_version`
    pub redis_version: Option<String>,
    /// `run_id`: changes with every start of the process.
    pub run_id: Option<RunId>,
    /// `role`
    pub role: Option<Role>,
    /// `master_host`, as text: it may be a name.
    pub master_host: Option<String>,
    /// `master_port`
    pub master_port: Option<u16>,
    /// `master_link_status`: true if `up`.
    pub master_link_up: bool,
    /// `master_sync_in_progress`: a full synchronisation is being received.
    pub master_sync_in_progress: bool,
    /// `master_link_down_since_seconds`: only while the link is down.
    pub master_link_down: Option<LinkDown>,
    /// `slave_priority`: 0 is never to be promoted. Servers start with 100.
    pub slave_priority: Option<u32>,
    /// `slave_repl_offset`: what a replica has applied, bytes.
    pub slave_repl_offset: Option<u64>,
    /// `master_repl_offset`, bytes.
    pub master_repl_offset: Option<u64>,
    /// `master_replid`: the lineage of the data.
    pub master_replid: Option<RunId>,
    /// `master_replid2`: the lineage before the last promotion; none if there was none.
    pub master_replid2: Option<RunId>,
    /// `replica_announced`: whether it wants to be listed. Servers before 6.2 do not say and are.
    pub replica_announced: bool,
    /// `connected_slaves`
    pub connected_slaves: u32,
    /// `slaveN`, at most [`REPLICAS_MAX`].
    pub replicas: Vec<AttachedReplica>,
    /// `loading`: still reads its data from disk.
    pub loading: bool,
    /// Whether any database holds a key; none if the text has no keyspace section.
    pub has_keys: Option<bool>,
}

/// Replication role by INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `role:master`
    Master,
    /// `role:slave`
    Replica,
    /// `role:sentinel`
    Sentinel,
}

/// For how long the link of a replica to its master is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkDown {
    /// It was never up since the process started or was pointed at this master.
    Never,
    /// It was up before; whole seconds on the wire.
    For(Duration),
}

/// One `slaveN` line of a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedReplica {
    /// Where it is reached by its own announcement.
    pub place: Place,
    /// `state=online`: it takes the stream.
    pub online: bool,
    /// What it last acknowledged, bytes; absent in the format before 2.8.
    pub offset: Option<u64>,
    /// Seconds since it last acknowledged anything; absent in the format before 2.8.
    pub lag: Option<u64>,
}

impl Info {
    /// Reads the text. Never fails: lines that mean nothing here are passed over.
    pub fn parse(text: &str) -> Self {
        let mut info = Self { replica_announced: true, ..Self::default() };
        for line in text.lines() {
            let line = line.trim_end_matches('\r');
            if line == "# Keyspace" {
                info.has_keys.get_or_insert(false);
            } else if let Some((key, value)) = line.split_once(':') {
                info.take(key, value);
            }
        }
        info
    }

    fn take(&mut self, key: &str, value: &str) {
        match key {
            "redis_version" => self.redis_version = Some(value.chars().take(32).collect()),
            "run_id" => self.run_id = value.parse().ok(),
            "role" => {
                self.role = match value {
                    "master" => Some(Role::Master),
                    "slave" => Some(Role::Replica),
                    "sentinel" => Some(Role::Sentinel),
                    _ => None,
                }
            }
            "master_host" => self.master_host = Some(value.chars().take(255).collect()),
            "master_port" => self.master_port = value.parse().ok(),
            "master_link_status" => self.master_link_up = value == "up",
            "master_sync_in_progress" => self.master_sync_in_progress = value == "1",
            "master_link_down_since_seconds" => {
                self.master_link_down = match value.parse::<i64>() {
                    Ok(seconds) => Some(u64::try_from(seconds).map_or(LinkDown::Never, |s| LinkDown::For(secs(s)))),
                    Err(_) => None,
                }
            }
            "slave_priority" => self.slave_priority = value.parse().ok(),
            "slave_repl_offset" => self.slave_repl_offset = value.parse().ok(),
            "master_repl_offset" => self.master_repl_offset = value.parse().ok(),
            "master_replid" => self.master_replid = lineage(value),
            "master_replid2" => self.master_replid2 = lineage(value),
            "replica_announced" => self.replica_announced = value != "0",
            "connected_slaves" => self.connected_slaves = value.parse().unwrap_or(0),
            "loading" => self.loading = value == "1",
            _ if numbered(key, "slave") && self.replicas.len() < REPLICAS_MAX => self.replicas.extend(attached(value)),
            _ if numbered(key, "db") => {
                let keys = value.split(',').find_map(|field| field.strip_prefix("keys="));
                let some = keys.is_some_and(|keys| keys.parse::<u64>().is_ok_and(|keys| keys > 0));
                self.has_keys = Some(self.has_keys.unwrap_or(false) || some);
            }
            _ => {}
        }
    }

    /// The master of a replica.
    pub fn master_place(&self) -> Option<Place> {
        Place::new(self.master_host.as_deref()?, self.master_port?)
    }

    /// The master of a replica, if it is written as an address.
    pub fn master(&self) -> Option<SocketAddr> {
        self.master_place()?.address()
    }

    /// Whether it is a replica of `127.0.0.1:1`, where nobody answers: so a supervised server starts, refusing writers and
    /// replicas until the cluster says what it is.
    pub fn is_closed(&self) -> bool {
        self.role == Some(Role::Replica) && self.master() == Some(CLOSED)
    }
}

/// The master of a closed redis. Port 1 of loopback: nobody answers there.
pub const CLOSED: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A replication id; the all-zero one stands for none.
fn lineage(value: &str) -> Option<RunId> {
    value.parse().ok().filter(|id| *id != RunId([0; 20]))
}

/// `slave0`, `db15`: the prefix and then digits only.
fn numbered(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `ip=…,port=…,state=…,offset=…,lag=…`, or `ip,port,state` as before 2.8.
fn attached(value: &str) -> Option<AttachedReplica> {
    if !value.contains('=') {
        let mut fields = value.split(',');
        let (host, port, state) = (fields.next()?, fields.next()?, fields.next()?);
        let place = Place::new(host, port.parse().ok()?)?;
        return Some(AttachedReplica { place, online: state == "online", offset: None, lag: None });
    }
    let field = |name: &str| value.split(',').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    let text = |name: &str| field(name).map(|(_, value)| value);
    Some(AttachedReplica {
        place: Place::new(text("ip")?, text("port")?.parse().ok()?)?,
        online: text("state") == Some("online"),
        offset: text("offset").and_then(|offset| offset.parse().ok()),
        lag: text("lag").and_then(|lag| lag.parse().ok()),
    })
}

#[cfg(test)]
mod tests;
