//! What a sentinel has to know before it starts.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::{NodeName, Secret, Secrets};

use super::membership::Membership;
use super::settings::{DOWN_AFTER, FAILOVER_TIMEOUT, Settings};

/// What a sentinel has to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who the other sentinels are.
    pub membership: Membership,
    /// The masters of the cluster file, 1 to 4; none where masters come and go by command.
    pub masters: Vec<MasterConfig>,
    /// What belongs to no master.
    pub settings: Settings,
    /// What clients and other sentinels say to be who they are; none: everybody may do everything.
    pub logins: Option<Logins>,
    /// Where jitter comes from.
    pub seed: u64,
}

/// Who may do what at the port of a sentinel of a cluster file. Reading needs no login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logins {
    /// Of the user `default`, for applications and people: commands that change state.
    pub applications: Secrets,
    /// Of the user [`CONTROL_USER`](crate::base::secret::CONTROL_USER), for the cluster itself: votes and greetings, too.
    pub cluster: Secrets,
}

/// Everything that a sentinel says to others, or wants to hear from them, to be believed: as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// At its own port.
    pub logins: Logins,
    /// Password of its user at every redis.
    pub auth_pass: Secret,
}

/// One watched master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterConfig {
    /// The name that clients ask for, at most 32 bytes in a cluster file.
    pub name: String,
    /// Sentinels that must agree that it is down, at least 1.
    pub quorum: u32,
    /// Silence before it is suspected.
    pub down_after: Duration,
    /// Silence before it is suspected while its own supervisor says that it is alive and busy.
    pub busy_grace: Duration,
    /// Longest duration of each phase of a failover.
    pub failover_timeout: Duration,
    /// Replicas re-pointed at once after a failover, at least 1.
    pub parallel_syncs: u32,
    /// The data nodes of the file.
    pub nodes: Vec<DataNode>,
    /// The length of the leases by which its redis takes writes while its decision is one of a fenced cluster; none: there is no
    /// peer link that could tell of them.
    pub lease: Option<Duration>,
    /// Whether the file asks for leases. What is done is up to the decision, which follows once all files ask for the same.
    pub fencing: bool,
    /// User at the redis.
    pub auth_user: Option<String>,
    /// Password at the redis.
    pub auth_pass: Option<Secret>,
    /// Told of every event of severity warning.
    pub notification_script: Option<String>,
    /// Told of every change of address.
    pub client_reconfig_script: Option<String>,
    /// Commands that the redis call otherwise.
    pub renames: Vec<(String, String)>,
    /// A master that was restarted counts as down after this time; zero: never.
    pub reboot_down_after: Duration,
}

impl MasterConfig {
    /// A master of that name without any data node, with the defaults of redis-sentinel.
    pub fn new(name: impl Into<String>, quorum: u32) -> Self {
        Self {
            name: name.into(),
            quorum,
            down_after: DOWN_AFTER,
            busy_grace: Duration::ZERO,
            failover_timeout: FAILOVER_TIMEOUT,
            parallel_syncs: 1,
            nodes: Vec::new(),
            lease: None,
            fencing: false,
            auth_user: None,
            auth_pass: None,
            notification_script: None,
            client_reconfig_script: None,
            renames: Vec::new(),
            reboot_down_after: Duration::ZERO,
        }
    }
}

/// One redis of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataNode {
    /// Its node.
    pub name: NodeName,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Whether it becomes the first master of a cluster without any record of one.
    pub bootstrap: bool,
}
