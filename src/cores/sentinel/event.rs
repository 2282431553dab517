//! Events: their names and payloads are those of redis-sentinel, to the byte, since programs read them.

/// How much a person should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Degraded; the sentinels act by themselves.
    Warn,
    /// A person must act.
    Error,
}

/// One event: also a message on the channel of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name and channel, such as `+switch-master`.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The payload of the message.
    pub payload: String,
}

impl Event {
    pub(super) fn new(name: &'static str, severity: Severity, payload: String) -> Self {
        Self { name, severity, payload }
    }

    /// Whether it tells only of what others do, or of the disk itself: nothing of that has to be on disk before.
    pub(super) fn is_observation(&self) -> bool {
        matches!(
            self.name,
            "+sdown"
                | "-sdown"
                | "+odown"
                | "-odown"
                | "+reboot"
                | "+role-change"
                | "-role-change"
                | "no-candidate"
                | "paused"
                | "store-failed"
        )
    }
}

/// How much an event of stock Sentinel matters.
pub(super) fn severity(name: &str) -> Severity {
    match name {
        "+sdown"
        | "+odown"
        | "+try-failover"
        | "+new-epoch"
        | "-failover-abort-not-elected"
        | "+reboot"
        | "-failover-abort-slave-timeout"
        | "-failover-abort-master-timeout"
        | "+failover-end-for-timeout"
        | "-slave-reconf-sent-timeout"
        | "+switch-master"
        | "+convert-to-slave" => Severity::Warn,
        "-failover-abort-no-good-slave" | "+auth-failed" => Severity::Error,
        _ => Severity::Info,
    }
}
