//! What the process needs to know, and never changes: its port, its log, who supervises it.

use std::net::IpAddr;
use std::path::PathBuf;

use super::directive::{number, one_of, yes_no};
use super::fault::Refused;
use super::kept;
use crate::config::faults::meant;

/// The process, by its directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `port` of clients and sentinels, 1 to 65535.
    pub port: u16,
    /// `bind`: addresses; `*` and `::*` stand for all of a family, a leading `-` for "if there is such an address".
    pub bind: Vec<String>,
    /// `bind-source-addr`: the own address of connections to others.
    pub bind_source: Option<IpAddr>,
    /// `protected-mode`: whether only this host is served while nobody needs a password. A Sentinel's default is no.
    pub protected_mode: bool,
    /// `daemonize`: whether it goes to the background.
    pub daemonize: bool,
    /// `pidfile`; none: `/var/run/redis.pid` of a process in the background, else none is written.
    pub pid_file: Option<PathBuf>,
    /// `logfile`, relative to [`dir`](Self::dir); none: standard output.
    pub log_file: Option<PathBuf>,
    /// `syslog-enabled`
    pub syslog: bool,
    /// `syslog-ident`
    pub syslog_ident: String,
    /// `syslog-facility`, as syslog counts them: 1 for user, 16 to 23 for local0 to local7.
    pub syslog_facility: u8,
    /// `dir`: where it works. Absolute.
    pub dir: PathBuf,
    /// `supervised`
    pub supervised: Supervised,
    /// `maxclients`, at least 1.
    pub max_clients: u32,
    /// `tcp-backlog`
    pub backlog: u32,
    /// `timeout` of idle clients in seconds; zero: never.
    pub timeout: u32,
    /// `tcp-keepalive` in seconds; zero: off.
    pub keepalive: u32,
    /// `aclfile`, relative to [`dir`](Self::dir).
    pub acl_file: Option<PathBuf>,
    /// `acllog-max-len`
    pub acl_log_max: u64,
    /// `acl-pubsub-default`: whether new users may use all channels.
    pub all_channels: bool,
    /// `enable-debug-command`
    pub debug_command: Enabled,
    /// `enable-protected-configs`
    pub protected_configs: Enabled,
}

/// Who started the process and wants to hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervised {
    /// Nobody.
    No,
    /// systemd: it is told when the process is ready.
    Systemd,
    /// upstart: the process stops itself when it is ready.
    Upstart,
    /// Whoever left a sign in the environment.
    Auto,
}

/// For whom something is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// Nobody.
    No,
    /// Everybody.
    Yes,
    /// Clients of this host.
    Local,
}

/// Port of a Sentinel that does not say otherwise.
pub const PORT: u16 = 26_379;
/// Facilities of syslog that redis knows.
const FACILITIES: [(&str, u8); 9] = [
    ("user", 1),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];
/// Largest number of the C type of most settings.
const INT_MAX: u32 = i32::MAX.unsigned_abs();
/// Everything that [`Process::set`] takes, to guess what was meant.
const NAMES: [&str; 31] = [
    "sentinel",
    "requirepass",
    "user",
    "loglevel",
    "dir",
    "include",
    "port",
    "bind",
    "bind-source-addr",
    "protected-mode",
    "daemonize",
    "pidfile",
    "logfile",
    "syslog-enabled",
    "syslog-ident",
    "syslog-facility",
    "supervised",
    "maxclients",
    "tcp-backlog",
    "timeout",
    "tcp-keepalive",
    "aclfile",
    "acllog-max-len",
    "acl-pubsub-default",
    "enable-debug-command",
    "enable-protected-configs",
    "unixsocket",
    "unixsocketperm",
    "tls-port",
    "tls-replication",
    "rdma-port",
];

impl Process {
    /// A process of which nothing is said but where it was started.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            port: PORT,
            bind: vec!["*".to_owned(), "-::*".to_owned()],
            bind_source: None,
            protected_mode: false,
            daemonize: false,
            pid_file: None,
            log_file: None,
            syslog: false,
            syslog_ident: "redis".to_owned(),
            syslog_facility: 16,
            dir,
            supervised: Supervised::No,
            max_clients: 10_000,
            backlog: 511,
            timeout: 0,
            keepalive: 300,
            acl_file: None,
            acl_log_max: 128,
            all_channels: false,
            debug_command: Enabled::No,
            protected_configs: Enabled::No,
        }
    }

    /// Takes the words of a line that says nothing of the state.
    pub(super) fn set(&mut self, words: &[String]) -> Result<(), Refused> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let [name, values @ ..] = words.as_slice() else { return Ok(()) };
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            // Rules of `sentinel` alone, and of what is taken elsewhere.
            "sentinel" => {}
            "bind" => self.bind = several(values).into_iter().filter(|address| !address.is_empty()).collect(),
            "rename-command" => {
                return Err(Refused::bad_directive(
                    "vigie renames none of its own commands; rules of users can deny them",
                ));
            }
            "loadmodule" => return Err(Refused::bad_directive("vigie loads no modules")),
            name if kept::VALUES.contains(&name) => {
                if values.is_empty() {
                    return Err(Refused::arguments("at least one value is expected"));
                }
            }
            name if name.contains('.') => {
                return Err(Refused::bad_directive("vigie loads no modules, and knows none of their settings"));
            }
            name => {
                if !kept::YES_OR_NO.contains(&name)
                    && !kept::ONE_VALUE.contains(&name)
                    && !NAMES.contains(&name)
                    && !IGNORED.contains(&name)
                {
                    return Err(unknown(name));
                }
                let [value] = values else { return Err(Refused::arguments("one value is expected")) };
                self.set_one(name, value)?;
            }
        }
        Ok(())
    }

    fn set_one(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        match name {
            "port" => self.port = int(value, 0, u16::MAX).and_then(port)?,
            "bind-source-addr" => self.bind_source = address(value)?,
            "protected-mode" => self.protected_mode = yes_no(value, "")?,
            "daemonize" => self.daemonize = yes_no(value, "")?,
            "pidfile" => self.pid_file = path(value),
            "logfile" => self.log_file = path(value),
            "syslog-enabled" => self.syslog = yes_no(value, "")?,
            "syslog-ident" => self.syslog_ident = value.to_owned(),
            "syslog-facility" => {
                let known = one_of(value, &FACILITIES.map(|(name, _)| name))?;
                self.syslog_facility = FACILITIES.iter().find(|(name, _)| *name == known).map_or(16, |(_, code)| *code);
            }
            "supervised" => {
                self.supervised = match one_of(value, &["upstart", "systemd", "auto", "no"])? {
                    "upstart" => Supervised::Upstart,
                    "systemd" => Supervised::Systemd,
                    "auto" => Supervised::Auto,
                    _ => Supervised::No,
                }
            }
            "maxclients" => self.max_clients = int(value, 1, u32::MAX)?,
            "tcp-backlog" => self.backlog = int(value, 0, INT_MAX)?,
            "timeout" => self.timeout = int(value, 0, INT_MAX)?,
            "tcp-keepalive" => self.keepalive = int(value, 0, INT_MAX)?,
            "aclfile" => self.acl_file = path(value),
            "acllog-max-len" => self.acl_log_max = int(value, 0, i64::MAX.unsigned_abs())?,
            "acl-pubsub-default" => {
                self.all_channels = one_of(value, &["allchannels", "resetchannels"])? == "allchannels";
            }
            "enable-debug-command" => self.debug_command = enabled(value)?,
            "enable-protected-configs" => self.protected_configs = enabled(value)?,
            "tls-port" => only(int::<u16>(value, 0, u16::MAX)? == 0, || no_tls("tls-port 0, or none, is expected"))?,
            "tls-replication" => {
                only(!yes_no(value, "")?, || no_tls("tls-replication no, or none, is expected"))?;
            }
            "rdma-port" => only(int::<u16>(value, 0, u16::MAX)? == 0, || {
                Refused::bad_directive("vigie does not speak RDMA; rdma-port 0, or none, is expected")
            })?,
            "unixsocket" => only(value.is_empty(), || {
                Refused::bad_directive(
                    "vigie serves Sentinel clients by TCP only; unixsocket \"\", or none, is expected",
                )
            })?,
            name if kept::YES_OR_NO.contains(&name) => {
                yes_no(value, "")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Settings of a socket or a log that vigie does not have. They mean nothing without those, or only how a line looks.
const IGNORED: [&str; 7] = [
    "unixsocketgroup",
    "mptcp",
    "rdma-completion-vector",
    "rdma-rx-size",
    "log-format",
    "log-timestamp-format",
    "hide-user-data-from-log",
];

fn unknown(name: &str) -> Refused {
    let known = NAMES.into_iter().chain(kept::YES_OR_NO).chain(kept::ONE_VALUE).chain(kept::VALUES);
    Refused::bad_directive(match meant(name, known) {
        Some(meant) => format!("there is no directive {name}; is {meant} meant?"),
        None => format!("there is no directive {name}"),
    })
}

fn int<N: std::str::FromStr + PartialOrd + std::fmt::Display>(text: &str, min: N, max: N) -> Result<N, Refused> {
    let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    let said = match is_number && !text.is_empty() {
        true => format!("argument must be between {min} and {max} inclusive"),
        false => "argument couldn't be parsed into an integer".to_owned(),
    };
    number(text, min, max, "").map_err(|refused| Refused::new(said, refused.expected))
}

fn port(port: u16) -> Result<u16, Refused> {
    match port {
        0 => Err(Refused::new("Configured to not listen anywhere, exiting.", "a port from 1 to 65535 is expected")),
        port => Ok(port),
    }
}

/// What vigie does not have is taken where the line says that it is not wanted.
fn only(unwanted: bool, refused: impl FnOnce() -> Refused) -> Result<(), Refused> {
    if unwanted { Ok(()) } else { Err(refused()) }
}

fn no_tls(expected: &str) -> Refused {
    Refused::new("Failed to configure TLS.", format!("vigie does not speak TLS; {expected}"))
}

fn address(text: &str) -> Result<Option<IpAddr>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| Refused::new("Invalid bind-source-addr.", format!("{text:?}: an address is expected"));
    text.parse().map(Some).map_err(wrong)
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn enabled(text: &str) -> Result<Enabled, Refused> {
    Ok(match one_of(text, &["no", "yes", "local"])? {
        "yes" => Enabled::Yes,
        "local" => Enabled::Local,
        _ => Enabled::No,
    })
}

/// A single value may hold several, as an option of the command line does.
fn several(values: &[&str]) -> Vec<String> {
    match values {
        [one] => one.split_whitespace().map(str::to_owned).collect(),
        values => values.iter().map(|value| (*value).to_owned()).collect(),
    }
}
