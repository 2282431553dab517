//! What is said once, for all masters, and what a master is given that does not say otherwise.

use std::time::Duration;

use crate::base::Secret;

/// `down-after-milliseconds` of a master that does not say otherwise.
pub const DOWN_AFTER: Duration = Duration::from_secs(30);
/// `failover-timeout` of a master that does not say otherwise.
pub const FAILOVER_TIMEOUT: Duration = Duration::from_secs(180);

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
