//! One directive of the state: its words to a value, and the value to its words.

use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use super::fault::Refused;
use crate::base::{Epoch, RunId, Secret};
use crate::cores::sentinel::{KnownSentinel, Place};
use crate::wire::words::{plain, quoted};

/// Levels of `loglevel`, most first.
pub const LOG_LEVELS: [&str; 5] = ["debug", "verbose", "notice", "warning", "nothing"];
/// What stock says of a `sentinel` line it does not know.
const UNRECOGNIZED: &str = "Unrecognized sentinel configuration statement.";
/// Longest accepted time: what the same file may say to redis-sentinel.
const MILLISECONDS_MAX: u64 = i32::MAX as u64;

/// A line that says something of the [`State`](crate::cores::sentinel::State). An empty text and a zero stand for
/// "none". Two are equal if, and only if, their texts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    MyId(RunId),
    CurrentEpoch(Epoch),
    AnnounceIp(String),
    AnnouncePort(u16),
    ResolveHostnames(bool),
    AnnounceHostnames(bool),
    DenyScriptsReconfig(bool),
    SentinelUser(String),
    SentinelPass(Secret),
    RequirePass(Secret),
    /// Name and rules.
    User(String),
    LogLevel(String),
    /// As written: absolute or not.
    Dir(String),
    Monitor {
        name: String,
        place: Place,
        quorum: u32,
    },
    Of(String, Part),
    /// `known-sentinel` of before Redis 3: without an id it says nothing.
    Obsolete,
}

/// What a line says of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    DownAfter(Duration),
    FailoverTimeout(Duration),
    ParallelSyncs(u32),
    NotificationScript(String),
    ClientReconfigScript(String),
    AuthPass(Secret),
    AuthUser(String),
    RebootDownAfter(Duration),
    ConfigEpoch(Epoch),
    LeaderEpoch(Epoch),
    KnownReplica(Place),
    KnownSentinel(KnownSentinel),
    RenameCommand(String, String),
}

/// Lines that can take each other's place: of one kind, and of one master.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot<'a>(Discriminant<Directive>, Option<(Discriminant<Part>, &'a str)>);

/// When a directive is read, whatever its place in the file: names must be known before what is said of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    BeforeMonitor,
    Monitor,
    AfterMonitor,
}

impl Directive {
    /// The directive that `words` say; none if they say nothing of the state.
    pub(super) fn parse(words: &[String]) -> Result<Option<Self>, Refused> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let [name, arguments @ ..] = words.as_slice() else { return Ok(None) };
        let directive = match (name.to_ascii_lowercase().as_str(), arguments) {
            ("requirepass", [password]) => Self::RequirePass(Secret::new(*password)),
            ("loglevel", [level]) => Self::LogLevel(one_of(level, &LOG_LEVELS)?.to_owned()),
            ("dir", [path]) => Self::Dir((*path).to_owned()),
            ("requirepass" | "loglevel" | "dir", _) => return Err(Refused::arguments("one value is expected")),
            ("user", [_, ..]) => Self::User(arguments.iter().map(|word| plain(word)).collect::<Vec<_>>().join(" ")),
            ("user", []) => return Err(Refused::bad_directive("the name of a user is expected")),
            // Alone it stands for the program name `redis-sentinel`.
            ("sentinel", []) => return Ok(None),
            ("sentinel", [option, arguments @ ..]) => return Self::sentinel(option, arguments).map(Some),
            _ => return Ok(None),
        };
        Ok(Some(directive))
    }

    fn sentinel(option: &str, arguments: &[&str]) -> Result<Self, Refused> {
        Ok(match (option.to_ascii_lowercase().as_str(), arguments) {
            ("myid", [id]) => Self::MyId(id.parse().map_err(|error: crate::base::names::NameError| {
                Refused::new("Malformed Sentinel id in myid option.", error.to_string())
            })?),
            ("current-epoch", [epoch]) => Self::CurrentEpoch(number(epoch, 0, u64::MAX, "")?),
            ("announce-ip", [ip]) => Self::AnnounceIp((*ip).to_owned()),
            ("announce-port", [port]) => Self::AnnouncePort(number(port, 0, u16::MAX, "Invalid port number.")?),
            ("resolve-hostnames", [yes]) => Self::ResolveHostnames(yes_no(yes, "resolve-hostnames option.")?),
            ("announce-hostnames", [yes]) => Self::AnnounceHostnames(yes_no(yes, "announce-hostnames option.")?),
            ("deny-scripts-reconfig", [yes]) => {
                Self::DenyScriptsReconfig(yes_no(yes, "deny-scripts-reconfig options.")?)
            }
            ("sentinel-user", [user]) => Self::SentinelUser((*user).to_owned()),
            ("sentinel-pass", [password]) => Self::SentinelPass(Secret::new(*password)),
            ("monitor", [name, host, port, quorum]) => Self::Monitor {
                name: master_name(name)?,
                place: place(host, port)?,
                quorum: number(quorum, 1, i32::MAX.unsigned_abs(), "Quorum must be 1 or greater.")?,
            },
            ("known-sentinel", [_, _, _]) => Self::Obsolete,
            (option, [name, arguments @ ..]) => Self::Of((*name).to_owned(), Part::parse(option, arguments)?),
            (option, []) => return Err(unrecognized(option, 0)),
        })
    }

    /// See [`Group`].
    pub(super) fn group(&self) -> Group {
        match self {
            Self::Monitor { .. } => Group::Monitor,
            Self::Of(..) | Self::Obsolete => Group::AfterMonitor,
            Self::MyId(_)
            | Self::CurrentEpoch(_)
            | Self::AnnounceIp(_)
            | Self::AnnouncePort(_)
            | Self::ResolveHostnames(_)
            | Self::AnnounceHostnames(_)
            | Self::DenyScriptsReconfig(_)
            | Self::SentinelUser(_)
            | Self::SentinelPass(_)
            | Self::RequirePass(_)
            | Self::User(_)
            | Self::LogLevel(_)
            | Self::Dir(_) => Group::BeforeMonitor,
        }
    }

    /// Whether the line belongs to the words of `sentinel`.
    pub(super) fn is_sentinel(&self) -> bool {
        !matches!(self, Self::RequirePass(_) | Self::User(_) | Self::LogLevel(_) | Self::Dir(_))
    }

    /// See [`Slot`].
    pub(super) fn slot(&self) -> Slot<'_> {
        let of = if let Self::Of(name, part) = self { Some((discriminant(part), name.as_str())) } else { None };
        Slot(discriminant(self), of)
    }
}

impl Part {
    fn parse(option: &str, arguments: &[&str]) -> Result<Self, Refused> {
        const TIME: &str = "negative or zero time parameter.";
        Ok(match (option, arguments) {
            ("down-after-milliseconds", [ms]) => Self::DownAfter(milliseconds(ms, 1, TIME)?),
            ("failover-timeout", [ms]) => Self::FailoverTimeout(milliseconds(ms, 1, TIME)?),
            ("parallel-syncs", [count]) => Self::ParallelSyncs(number(count, 1, i32::MAX.unsigned_abs(), "")?),
            ("notification-script", [path]) => Self::NotificationScript((*path).to_owned()),
            ("client-reconfig-script", [path]) => Self::ClientReconfigScript((*path).to_owned()),
            ("auth-pass", [password]) => Self::AuthPass(Secret::new(*password)),
            ("auth-user", [user]) => Self::AuthUser((*user).to_owned()),
            ("master-reboot-down-after-period" | "primary-reboot-down-after-period", [ms]) => {
                Self::RebootDownAfter(milliseconds(ms, 0, "negative time parameter.")?)
            }
            ("config-epoch", [epoch]) => Self::ConfigEpoch(number(epoch, 0, u64::MAX, "")?),
            ("leader-epoch", [epoch]) => Self::LeaderEpoch(number(epoch, 0, u64::MAX, "")?),
            ("known-replica" | "known-slave", [host, port]) => Self::KnownReplica(place(host, port)?),
            ("known-sentinel", [host, port, id]) => {
                let id = id.parse().map_err(|error: crate::base::names::NameError| {
                    Refused::new("Malformed Sentinel id in known-sentinel option.", error.to_string())
                })?;
                Self::KnownSentinel(KnownSentinel { place: place(host, port)?, id })
            }
            ("rename-command", [from, to]) => Self::RenameCommand((*from).to_owned(), (*to).to_owned()),
            (option, arguments) => return Err(unrecognized(option, arguments.len() + 1)),
        })
    }
}

fn unrecognized(option: &str, count: usize) -> Refused {
    let options = "monitor, down-after-milliseconds, failover-timeout, parallel-syncs, notification-script, \
                   client-reconfig-script, auth-pass, auth-user, master-reboot-down-after-period, config-epoch, \
                   leader-epoch, known-replica, known-sentinel, rename-command, myid, current-epoch, announce-ip, \
                   announce-port, resolve-hostnames, announce-hostnames, deny-scripts-reconfig, sentinel-user, \
                   sentinel-pass";
    let known = options.split(", ").find(|known| *known == option);
    Refused::new(
        UNRECOGNIZED,
        match known.or_else(|| crate::config::faults::meant(option, options.split(", "))) {
            Some(same) if same == option => format!("sentinel {option} does not take {count} arguments"),
            Some(meant) => format!("there is no sentinel {option}; is {meant} meant?"),
            None => format!("there is no sentinel {option}; there are {options}"),
        },
    )
}

/// A number from `min` to `max`; else stock's word for it, if it has one.
pub(super) fn number<N>(text: &str, min: N, max: N, said: &'static str) -> Result<N, Refused>
where
    N: std::str::FromStr + PartialOrd + fmt::Display,
{
    match text.parse::<N>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        Ok(_) | Err(_) => {
            let said = if said.is_empty() { "argument must be a number" } else { said };
            Err(Refused::new(said, format!("{text:?}: a number from {min} to {max} is expected")))
        }
    }
}

fn milliseconds(text: &str, min: u64, said: &'static str) -> Result<Duration, Refused> {
    number(text, min, MILLISECONDS_MAX, said).map(Duration::from_millis)
}

/// `yes` or `no`, in any case.
pub(super) fn yes_no(text: &str, option: &str) -> Result<bool, Refused> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ if option.is_empty() => {
            Err(Refused::new("argument must be 'yes' or 'no'", format!("{text:?}: yes or no is expected")))
        }
        _ => Err(Refused::new(
            format!("Please specify yes or no for the {option}"),
            format!("{text:?}: yes or no is expected"),
        )),
    }
}

/// The one of `known` that `text` is, in any case.
pub(super) fn one_of<'k>(text: &str, known: &[&'k str]) -> Result<&'k str, Refused> {
    let found = known.iter().find(|known| known.eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| {
        let known = known.join(", ");
        let expected = format!("{text:?}: one of {known} is expected");
        Refused::new(format!("argument(s) must be one of the following: {known}"), expected)
    })
}

/// What stands between commas in hello messages, and between blanks in events.
fn master_name(text: &str) -> Result<String, Refused> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') {
        let expected = format!("{text:?}: a name without blanks and commas is expected");
        return Err(Refused::new("Invalid master name.", expected));
    }
    Ok(text.to_owned())
}

fn place(host: &str, port: &str) -> Result<Place, Refused> {
    if host.is_empty() || host.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') {
        let expected = format!("{host:?}: an address or a name is expected");
        return Err(Refused::new("Can't resolve instance hostname.", expected));
    }
    Ok(Place { host: host.to_owned(), port: number(port, 1, u16::MAX, "Invalid port number.")? })
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |yes: &bool| if *yes { "yes" } else { "no" };
        match self {
            Self::MyId(id) => write!(f, "sentinel myid {id}"),
            Self::CurrentEpoch(epoch) => write!(f, "sentinel current-epoch {epoch}"),
            Self::AnnounceIp(ip) => write!(f, "sentinel announce-ip {}", quoted(ip.as_bytes())),
            Self::AnnouncePort(port) => write!(f, "sentinel announce-port {port}"),
            Self::ResolveHostnames(on) => write!(f, "sentinel resolve-hostnames {}", yes(on)),
            Self::AnnounceHostnames(on) => write!(f, "sentinel announce-hostnames {}", yes(on)),
            Self::DenyScriptsReconfig(on) => write!(f, "sentinel deny-scripts-reconfig {}", yes(on)),
            Self::SentinelUser(user) => write!(f, "sentinel sentinel-user {}", plain(user)),
            Self::SentinelPass(password) => write!(f, "sentinel sentinel-pass {}", plain(password.reveal())),
            Self::RequirePass(password) => write!(f, "requirepass {}", quoted(password.reveal().as_bytes())),
            Self::User(user) => write!(f, "user {user}"),
            Self::LogLevel(level) => write!(f, "loglevel {level}"),
            Self::Dir(path) => write!(f, "dir {}", quoted(path.as_bytes())),
            Self::Monitor { name, place, quorum } => {
                write!(f, "sentinel monitor {} {} {} {quorum}", plain(name), plain(&place.host), place.port)
            }
            Self::Of(name, part) => part.write(&plain(name), f),
            Self::Obsolete => Ok(()),
        }
    }
}

impl Part {
    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DownAfter(time) => write!(f, "sentinel down-after-milliseconds {name} {}", time.as_millis()),
            Self::FailoverTimeout(time) => write!(f, "sentinel failover-timeout {name} {}", time.as_millis()),
            Self::ParallelSyncs(count) => write!(f, "sentinel parallel-syncs {name} {count}"),
            Self::NotificationScript(path) => write!(f, "sentinel notification-script {name} {}", plain(path)),
            Self::ClientReconfigScript(path) => write!(f, "sentinel client-reconfig-script {name} {}", plain(path)),
            Self::AuthPass(password) => write!(f, "sentinel auth-pass {name} {}", plain(password.reveal())),
            Self::AuthUser(user) => write!(f, "sentinel auth-user {name} {}", plain(user)),
            // Redis knows this spelling only, Valkey both.
            Self::RebootDownAfter(time) => {
                write!(f, "sentinel master-reboot-down-after-period {name} {}", time.as_millis())
            }
            Self::ConfigEpoch(epoch) => write!(f, "sentinel config-epoch {name} {epoch}"),
            Self::LeaderEpoch(epoch) => write!(f, "sentinel leader-epoch {name} {epoch}"),
            Self::KnownReplica(place) => {
                write!(f, "sentinel known-replica {name} {} {}", plain(&place.host), place.port)
            }
            Self::KnownSentinel(KnownSentinel { place, id }) => {
                write!(f, "sentinel known-sentinel {name} {} {} {id}", plain(&place.host), place.port)
            }
            Self::RenameCommand(from, to) => {
                write!(f, "sentinel rename-command {name} {} {}", plain(from), plain(to))
            }
        }
    }
}
