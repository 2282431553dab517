//! The server program: whether it is one that vigie can supervise.

use std::env;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::account::Account;
use super::child;
use crate::runtime::pidfd::PidFd;

/// A program that says its version takes no longer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// More than any of them prints.
const OUTPUT_MAX: u64 = 4_096;
/// The first one with `CLIENT PAUSE … WRITE`, which a switchover without lost writes needs.
const REDIS_MIN: (u32, u32) = (6, 2);

/// A version number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// First number.
    pub(super) major: u32,
    /// Second number.
    pub(super) minor: u32,
}

impl Version {
    /// Redis 7.0 and Valkey know `shutdown-timeout`.
    pub(super) fn has_shutdown_timeout(self) -> bool {
        self.major >= 7
    }

    /// They know `enable-debug-command` and the like.
    pub(super) fn has_guarded_commands(self) -> bool {
        self.major >= 7
    }

    /// What closes a fence for commands closes it for scripts too.
    pub(super) fn fences_scripts(self) -> bool {
        self.major >= 7
    }

    /// They can forbid a user one subcommand.
    pub(super) fn denies_subcommands(self) -> bool {
        self.major >= 7
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split('.').map(|number| number.parse().map_err(|_| ()));
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) => Ok(Self { major: major?, minor: minor? }),
            _ => Err(()),
        }
    }
}

/// Why a program is no server for vigie.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It is not there.
    #[error("redis.server = {server:?}: there is no such program; install redis or valkey, or name its path")]
    Missing {
        /// As configured.
        server: String,
    },
    /// It cannot be run.
    #[error("redis.server = {server:?}: cannot be run: {source}")]
    Run {
        /// As configured.
        server: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The user that redis runs as may not run it.
    #[error("redis.server = {server:?}: cannot be run by {user}, the user that redis runs as: {source}")]
    Forbidden {
        /// As configured.
        server: String,
        /// Whom.
        user: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It said nothing within a few seconds.
    #[error("redis.server = {server:?}: does not answer to --version within {ANSWER_MAX:?}")]
    Silent {
        /// As configured.
        server: String,
    },
    /// What it says is not understood.
    #[error("redis.server = {server:?}: neither redis nor valkey; to --version it says {said:?}")]
    Foreign {
        /// As configured.
        server: String,
        /// The start of what it said.
        said: String,
    },
    /// Too old to be fenced.
    #[error(
        "redis.server = {server:?}: its version {version} lets scripts write when they must not; cluster.fencing = \"lease\" needs \
         redis 7.0 or any valkey, or else write cluster.fencing = \"off\" on every node"
    )]
    Unfenced {
        /// As configured.
        server: String,
        /// What it is.
        version: Version,
    },
    /// Too old.
    #[error("redis.server = {server:?}: its version {version} is too old; redis 6.2 or any valkey is needed")]
    Old {
        /// As configured.
        server: String,
        /// What it is.
        version: String,
    },
}

/// A program that vigie can supervise.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Where it is.
    pub(super) program: PathBuf,
    /// What it said of itself.
    pub(super) version: Version,
}

impl Server {
    /// Refuses one that a fence does not close: `server` is its name in the cluster file.
    pub(super) fn fenceable(&self, server: &str) -> Result<(), ServerError> {
        let version = self.version;
        let unfenced = || ServerError::Unfenced { server: server.to_owned(), version };
        version.fences_scripts().then_some(()).ok_or_else(unfenced)
    }
}

/// Finds the program `server`, asks it for its version, as the user that it shall run as, and judges it. Blocks for some
/// milliseconds, at most a few seconds.
pub(super) fn check(server: &str, account: Option<&Account>) -> Result<Server, ServerError> {
    let program = find(server).ok_or_else(|| ServerError::Missing { server: server.to_owned() })?;
    let version = judge(server, &ask(server, &program, account)?)?;
    Ok(Server { program, version })
}

/// By this process, not at the exec: the user that redis runs as may be kept out of directories in which it is not, and the
/// system would say that instead of that there is none.
fn find(server: &str) -> Option<PathBuf> {
    let runnable =
        |path: &PathBuf| path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
    if server.contains('/') {
        return Some(PathBuf::from(server)).filter(|path| path.exists());
    }
    let path = child::path();
    let mut directories = env::split_paths(&path).filter(|directory| directory.is_absolute());
    directories.find_map(|directory| Some(directory.join(server)).filter(runnable))
}

fn ask(server: &str, program: &Path, account: Option<&Account>) -> Result<String, ServerError> {
    let run = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => ServerError::Missing { server: server.to_owned() },
        std::io::ErrorKind::PermissionDenied if account.is_some() => {
            let (server, user) = (server.to_owned(), account.map_or_else(String::new, |account| account.name.clone()));
            ServerError::Forbidden { server, user, source }
        }
        _ => ServerError::Run { server: server.to_owned(), source },
    };
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    child::confine(&mut command, account, None);
    let mut child = command.spawn().map_err(run)?;
    let ended = PidFd::open(child.id()).and_then(|held| wait(&held, Instant::now() + ANSWER_MAX));
    if !matches!(ended, Ok(true)) {
        // Whether it can be killed or not, its answer came too late.
        let _ = child.kill();
    }
    let _ = child.wait();
    if !ended.map_err(run)? {
        return Err(ServerError::Silent { server: server.to_owned() });
    }
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_MAX).read_to_end(&mut said).map_err(run)?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Whether the process ends before `limit`.
fn wait(held: &PidFd, limit: Instant) -> std::io::Result<bool> {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(held.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(ended) => return Ok(ended > 0),
        }
    }
}

/// Reads lines such as `Redis server v=7.0.15 sha=00000000:0 …` and `Valkey server v=8.0.1 …`.
fn judge(server: &str, said: &str) -> Result<Version, ServerError> {
    let foreign = || ServerError::Foreign { server: server.to_owned(), said: said.trim().chars().take(80).collect() };
    let name = said.split_whitespace().next().unwrap_or_default();
    let number = said.split_whitespace().find_map(|word| word.strip_prefix("v=")).ok_or_else(foreign)?;
    let version: Version = number.parse().map_err(|()| foreign())?;
    match name {
        "Valkey" => Ok(version),
        "Redis" if (version.major, version.minor) >= REDIS_MIN => Ok(version),
        "Redis" => Err(ServerError::Old { server: server.to_owned(), version: number.to_owned() }),
        _ => Err(foreign()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_from_6_2_and_any_valkey_are_taken() {
        let judged = |said: &str| judge("x", said).map_err(|error| error.to_string());
        assert_eq!(judged("Redis server v=7.0.15 sha=0:0 malloc=jemalloc"), Ok(Version { major: 7, minor: 0 }));
        assert_eq!(judged("Redis server v=6.2.0 sha=0:0"), Ok(Version { major: 6, minor: 2 }));
        assert_eq!(judged("Valkey server v=8.1.0"), Ok(Version { major: 8, minor: 1 }));
        let old = judged("Redis server v=5.0.14 sha=0:0").unwrap_err();
        assert!(old.contains("version 5.0.14 is too old"), "{old}");
        for foreign in ["", "hello", "KeyDB server v=6.3.4", "Redis server v=x.y"] {
            assert!(judged(foreign).unwrap_err().contains("neither redis nor valkey"), "{foreign}");
        }
    }

    #[test]
    fn what_lets_scripts_through_a_fence_is_not_fenced() {
        let judged = |said: &str| {
            let server = Server { program: PathBuf::new(), version: judge("x", said).unwrap() };
            server.fenceable("x").map_err(|error| error.to_string())
        };
        for said in ["Redis server v=7.0.15 sha=0:0", "Redis server v=8.2.0", "Valkey server v=7.2.5"] {
            assert_eq!(judged(said), Ok(()), "{said}");
        }
        let refused = judged("Redis server v=6.2.14 sha=0:0").unwrap_err();
        for part in ["redis.server = \"x\"", "version 6.2 ", "redis 7.0 or any valkey", "cluster.fencing = \"off\""] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
