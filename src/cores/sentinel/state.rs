//! What a sentinel without a cluster file has to remember: all that `sentinel.conf` says of it and of its masters.

use std::time::Duration;

use super::MasterConfig;
use crate::base::{Epoch, Place, RunId, Secret};

/// `down-after-milliseconds` of a master that does not say otherwise.
pub const DOWN_AFTER: Duration = Duration::from_secs(30);
/// `failover-timeout` of a master that does not say otherwise.
pub const FAILOVER_TIMEOUT: Duration = Duration::from_secs(180);

/// All of it. Stored as a whole: the file that holds it is rewritten, with its comments and its order, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `sentinel myid`; none before the first start.
    pub id: Option<RunId>,
    /// `sentinel current-epoch`: the highest epoch seen.
    pub current_epoch: Epoch,
    /// What is said once.
    pub settings: Settings,
    /// In the order of their `sentinel monitor` lines, later ones behind them.
    pub masters: Vec<MasterState>,
}

/// Directives that belong to no master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `sentinel announce-ip`: the address or name that is told to others instead of the own one.
    pub announce_ip: Option<String>,
    /// `sentinel announce-port`
    pub announce_port: Option<u16>,
    /// `sentinel resolve-hostnames`: whether names are taken where addresses are expected.
    pub resolve_hostnames: bool,
    /// `sentinel announce-hostnames`: whether clients and sentinels are told names where names are known.
    pub announce_hostnames: bool,
    /// `sentinel deny-scripts-reconfig`: whether scripts can be set by the file only.
    pub deny_scripts_reconfig: bool,
    /// `sentinel sentinel-user`: towards other sentinels.
    pub sentinel_user: Option<String>,
    /// `sentinel sentinel-pass`: towards other sentinels; none: `requirepass`.
    pub sentinel_pass: Option<Secret>,
    /// `requirepass`: password of the user `default`.
    pub require_pass: Option<Secret>,
    /// `user` lines, without the word `user`: name and rules. Empty while an `aclfile` holds them.
    pub users: Vec<String>,
    /// `loglevel`: `debug`, `verbose`, `notice`, `warning` or `nothing`.
    pub log_level: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            announce_ip: None,
            announce_port: None,
            resolve_hostnames: false,
            announce_hostnames: false,
            deny_scripts_reconfig: true,
            sentinel_user: None,
            sentinel_pass: None,
            require_pass: None,
            users: Vec::new(),
            log_level: None,
        }
    }
}

/// One master, by its directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterState {
    /// What is said of it. Its nodes are not of the file: they are found.
    pub config: MasterConfig,
    /// Where it is: of the promoted replica from the moment of its promotion.
    pub place: Place,
    /// `config-epoch`: of the decision that made it master.
    pub config_epoch: Epoch,
    /// `leader-epoch`: of the last vote.
    pub leader_epoch: Epoch,
    /// `known-replica`
    pub replicas: Vec<Place>,
    /// `known-sentinel`
    pub sentinels: Vec<KnownSentinel>,
}

impl MasterState {
    /// A master of which nothing is known yet but where it is.
    pub fn new(config: MasterConfig, place: Place) -> Self {
        Self { config, place, config_epoch: 0, leader_epoch: 0, replicas: Vec::new(), sentinels: Vec::new() }
    }
}

/// Another sentinel of a master, as last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSentinel {
    /// Where it is reached.
    pub place: Place,
    /// Its id.
    pub id: RunId,
}
