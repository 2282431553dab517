//! Periods and limits, as `SENTINEL DEBUG` shows and changes them.

use std::time::Duration;

use super::settings::{DOWN_AFTER, FAILOVER_TIMEOUT};

/// All of them. Those that are none follow from `down-after-milliseconds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// INFO of each redis.
    pub info: Option<Duration>,
    /// PING of each redis and sentinel.
    pub ping: Option<Duration>,
    /// The question to other sentinels whether they find a master down, while this one does.
    pub ask: Duration,
    /// The greeting.
    pub publish: Duration,
    /// `down-after-milliseconds` of a new master.
    pub default_down_after: Duration,
    /// `failover-timeout` of a new master.
    pub default_failover_timeout: Duration,
    /// A turn that comes so much later than it should means that this process was not running: all silence it measured
    /// is its own. The clock is a monotonic one: the time of day has no part in this.
    pub tilt_trigger: Duration,
    /// After such a turn no failover is begun for so long.
    pub tilt_period: Duration,
    /// A replica that was told and does not follow for so long counts as done.
    pub slave_reconf: Duration,
    /// A link is not given up for a missing answer before this age.
    pub min_link_reconnect: Duration,
    /// Not elected for so long: another attempt at another epoch.
    pub election: Duration,
    /// A script that runs for longer is killed.
    pub script_max_runtime: Duration,
    /// A script that failed is tried again after this, then after twice this, and so on.
    pub script_retry_delay: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            info: None,
            ping: None,
            ask: Duration::from_millis(100),
            publish: Duration::from_secs(2),
            default_down_after: DOWN_AFTER,
            default_failover_timeout: FAILOVER_TIMEOUT,
            tilt_trigger: Duration::from_secs(1),
            tilt_period: Duration::ZERO,
            slave_reconf: Duration::from_secs(10),
            min_link_reconnect: Duration::ZERO,
            election: Duration::from_secs(1),
            script_max_runtime: Duration::from_secs(60),
            script_retry_delay: Duration::from_secs(30),
        }
    }
}

impl Timers {
    /// How often a redis is asked for INFO. It costs a server some 100 µs; what it tells is asked for again before it decides.
    pub(super) fn info_period(&self, down_after: Duration) -> Duration {
        self.info.unwrap_or_else(|| (down_after * 2).clamp(Duration::from_secs(1), Duration::from_secs(10)))
    }

    /// How often to ping the master on another host, and a replica that is to become it: often enough that its death is noticed
    /// soon after `down_after` has passed. The clock of silence starts with a ping that is not answered, or with a frame that does
    /// not come, so that `down_after` is never undercut.
    pub(super) fn ping_period(&self, down_after: Duration) -> Duration {
        self.ping_each(down_after / 10)
    }

    /// How often to ping any other redis. Nobody waits for this sentinel to notice its death, and each ping wakes two processes.
    pub(super) fn slow_ping_period(&self, down_after: Duration) -> Duration {
        self.ping_each(down_after * 3 / 10)
    }

    /// How often to ping any other redis whose node is heard on the peer link, which says several times a second how it is, and is
    /// missed soon: only whether it can be reached at its own port a ping has to show.
    pub(super) fn heard_ping_period(&self, down_after: Duration) -> Duration {
        self.ping_each(down_after / 2)
    }

    /// How often to ping the master on another host while that asks for its lease: together with its frames, of which the next one
    /// starts the clock as well, that is as often as without.
    pub(super) fn lease_ping_period(&self, down_after: Duration) -> Duration {
        self.ping_each(down_after / 7)
    }

    fn ping_each(&self, period: Duration) -> Duration {
        self.ping.unwrap_or_else(|| period.clamp(Duration::from_millis(10), Duration::from_secs(1)))
    }

    /// The names by which `SENTINEL DEBUG` knows them, and their values.
    pub(super) fn named(&self) -> [(&'static str, Duration); 13] {
        let Self {
            info,
            ping,
            ask,
            publish,
            default_down_after,
            default_failover_timeout,
            tilt_trigger,
            tilt_period,
            slave_reconf,
            min_link_reconnect,
            election,
            script_max_runtime,
            script_retry_delay,
        } = self.clone();
        [
            ("INFO-PERIOD", info.unwrap_or_else(|| self.info_period(default_down_after))),
            ("PING-PERIOD", ping.unwrap_or_else(|| self.ping_period(default_down_after))),
            ("ASK-PERIOD", ask),
            ("PUBLISH-PERIOD", publish),
            ("DEFAULT-DOWN-AFTER", default_down_after),
            ("DEFAULT-FAILOVER-TIMEOUT", default_failover_timeout),
            ("TILT-TRIGGER", tilt_trigger),
            ("TILT-PERIOD", tilt_period),
            ("SLAVE-RECONF-TIMEOUT", slave_reconf),
            ("MIN-LINK-RECONNECT-PERIOD", min_link_reconnect),
            ("ELECTION-TIMEOUT", election),
            ("SCRIPT-MAX-RUNTIME", script_max_runtime),
            ("SCRIPT-RETRY-DELAY", script_retry_delay),
        ]
    }

    /// Changes one; false if there is none of that name.
    pub(super) fn set(&mut self, name: &str, value: Duration) -> bool {
        match name.to_ascii_lowercase().as_str() {
            "info-period" => self.info = Some(value),
            "ping-period" => self.ping = Some(value),
            "ask-period" => self.ask = value,
            "publish-period" => self.publish = value,
            "default-down-after" => self.default_down_after = value,
            "default-failover-timeout" => self.default_failover_timeout = value,
            "tilt-trigger" => self.tilt_trigger = value,
            "tilt-period" => self.tilt_period = value,
            "slave-reconf-timeout" => self.slave_reconf = value,
            "min-link-reconnect-period" => self.min_link_reconnect = value,
            "election-timeout" => self.election = value,
            "script-max-runtime" => self.script_max_runtime = value,
            "script-retry-delay" => self.script_retry_delay = value,
            _ => return false,
        }
        true
    }
}
