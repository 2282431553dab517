//! The configuration file of the supervised redis: vigie's defaults, then the operator's files, then what vigie owns.
//!
//! A later directive wins, so that an operator may change any default and nothing that the cluster's safety rests on.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::disk::Found;
use super::server::Version;
use crate::base::Secret;
use crate::config::Persistence;
use crate::wire::info::CLOSED;

/// An include file larger than this is no configuration.
const INCLUDE_MAX: u64 = 1024 * 1024;

/// Directives that only vigie sets. Each with the reason a person is told.
const OWNED: &[(&str, &str)] = &[
    ("bind", "the node's address in the cluster file"),
    ("port", "redis.port of the cluster file"),
    ("tls-port", "peers and proxies speak plain RESP to it"),
    ("protected-mode", "it is always on"),
    ("requirepass", "the password of the cluster file"),
    ("masterauth", "the password of the cluster file"),
    ("masteruser", "replicas log in with the password of the cluster file"),
    ("aclfile", "the user `default` must keep the password of the cluster file"),
    ("dir", "redis.data_dir of the cluster file"),
    ("appendonly", "redis.persistence of the cluster file"),
    ("replicaof", "every start is a closed one, until the cluster says who is master"),
    ("slaveof", "every start is a closed one, until the cluster says who is master"),
    ("replica-read-only", "a replica that takes writes diverges from its master"),
    ("slave-read-only", "a replica that takes writes diverges from its master"),
    ("replica-priority", "replica_priority of the node in the cluster file"),
    ("slave-priority", "replica_priority of the node in the cluster file"),
    ("replica-announce-ip", "the node's address in the cluster file"),
    ("slave-announce-ip", "the node's address in the cluster file"),
    ("replica-announce-port", "redis.port of the cluster file"),
    ("slave-announce-port", "redis.port of the cluster file"),
    ("repl-diskless-sync", "a replica that says it is in sync must already be sent every write"),
    ("rdb-del-sync-files", "what a synchronisation leaves on disk must not be read at a later start"),
    ("repl-ping-replica-period", "a broken link must be noticed in time"),
    ("repl-ping-slave-period", "a broken link must be noticed in time"),
    ("daemonize", "its supervisor is its parent"),
    ("supervised", "its supervisor is vigie"),
    ("logfile", "its supervisor reads its log and keeps it in <state-dir>/redis.log"),
    ("cluster-enabled", "one master with replicas is what vigie supervises"),
    ("sentinel", "it belongs to a sentinel"),
    ("include", "name the file in redis.include of the cluster file instead"),
];

/// Owned too unless persistence is `rdb`, whose save points an operator may choose.
const OWNED_SAVE: &[(&str, &str)] =
    &[("save", "redis.persistence of the cluster file"), ("appendfsync", "redis.persistence of the cluster file")];

/// Commands that the supervisor, the sentinels and the proxy send: renamed, they would not be found.
const NEEDED: &[&str] = &[
    "auth",
    "client",
    "config",
    "exec",
    "hello",
    "info",
    "multi",
    "ping",
    "psync",
    "publish",
    "replconf",
    "replicaof",
    "role",
    "select",
    "slaveof",
    "subscribe",
];

/// Why no configuration could be written.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// An included file sets what vigie owns.
    #[error("{file}:{line}: {directive:?} may not be set here: {reason}", file = file.display())]
    Owned {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What it sets.
        directive: String,
        /// What sets it instead.
        reason: String,
    },
    /// An included file cannot be read.
    #[error("{file}: cannot read this file of redis.include: {reason}", file = file.display())]
    Include {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The data on disk are of the kind that the setting makes redis ignore.
    #[error(
        "{directory}: holds an append-only file, which redis.persistence of the cluster file makes redis ignore: \
         set it to \"aof\", or move the file away to start without these data",
        directory = directory.display()
    )]
    Ignored {
        /// The data directory.
        directory: PathBuf,
    },
    /// The data directory cannot be looked into.
    #[error("{path}: cannot read: {source}", path = path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file system refused the file or a directory.
    #[error("{path}: cannot write: {source}", path = path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How redis gets at the data on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// By its own setting.
    Plain,
    /// Reads the snapshot, and writes its append-only file only once it has.
    FromSnapshot,
}

/// What the file is made from.
#[derive(Clone, Debug)]
pub(super) struct Conf {
    /// The node's own address.
    pub(super) address: IpAddr,
    /// Port on it and on loopback.
    pub(super) port: u16,
    /// The cluster's.
    pub(super) password: Secret,
    /// Where data are kept.
    pub(super) data_dir: PathBuf,
    /// How.
    pub(super) persistence: Persistence,
    /// The operator's files.
    pub(super) include: Vec<PathBuf>,
    /// 0–1000000.
    pub(super) priority: u32,
}

impl Conf {
    /// Refuses include files that cannot be read or set what vigie owns.
    pub(super) fn check(&self) -> Result<(), ConfError> {
        self.include.iter().try_for_each(|file| {
            let include = |reason: String| ConfError::Include { file: file.clone(), reason };
            let facts = fs::metadata(file).map_err(|error| include(error.to_string()))?;
            if !facts.is_file() || facts.len() > INCLUDE_MAX {
                return Err(include(format!("not a file of at most {INCLUDE_MAX} bytes")));
            }
            let bytes = fs::read(file).map_err(|error| include(error.to_string()))?;
            self.check_text(file, &String::from_utf8_lossy(&bytes))
        })
    }

    /// Checks the text of one include file.
    pub(super) fn check_text(&self, file: &Path, text: &str) -> Result<(), ConfError> {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace().map(unquoted);
            let Some(directive) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            if let Some(reason) = self.owned(&directive, words.next().as_deref()) {
                let (file, line) = (file.to_owned(), number + 1);
                return Err(ConfError::Owned { file, line, directive, reason });
            }
        }
        Ok(())
    }

    fn owned(&self, directive: &str, argument: Option<&str>) -> Option<String> {
        let save = match self.persistence {
            Persistence::Aof | Persistence::None => OWNED_SAVE,
            Persistence::Rdb => &[],
        };
        if let Some((_, reason)) = OWNED.iter().chain(save).find(|(name, _)| *name == directive) {
            return Some(format!("vigie owns it ({reason})"));
        }
        let argument = argument.unwrap_or_default();
        match directive {
            "rename-command" if NEEDED.contains(&argument.to_ascii_lowercase().as_str()) => {
                Some(format!("vigie needs the command {argument} under its own name"))
            }
            "user" if argument == "default" => {
                Some("the user `default` must keep the password of the cluster file".to_owned())
            }
            _ => None,
        }
    }

    /// How to start on top of what the data directory holds.
    pub(super) fn start(&self, found: Found) -> Result<Start, ConfError> {
        match (self.persistence, found) {
            (Persistence::Aof, Found::Snapshot) => Ok(Start::FromSnapshot),
            (Persistence::Rdb | Persistence::None, Found::AppendOnly) => {
                Err(ConfError::Ignored { directory: self.data_dir.clone() })
            }
            (Persistence::Aof, Found::Nothing | Found::AppendOnly)
            | (Persistence::Rdb | Persistence::None, Found::Nothing | Found::Snapshot) => Ok(Start::Plain),
        }
    }

    /// The whole text, for a server of `version`.
    pub(super) fn text(&self, version: &Version, start: Start) -> String {
        let mut text = String::from("# Written by vigie at every start of redis; changes made here are lost.\n\n");
        text.push_str(DEFAULTS);
        if version.has_shutdown_timeout() {
            // Less than the time after which the supervisor kills it, so that it still saves.
            text.push_str("shutdown-timeout 5\n");
        }
        text.push_str("\n# The operator's files (redis.include).\n");
        for file in &self.include {
            line(&mut text, "include", &quoted(file.to_string_lossy().as_bytes()));
        }
        text.push_str("\n# Owned by vigie.\n");
        line(&mut text, "bind", &self.binds());
        line(&mut text, "port", &self.port);
        line(&mut text, "requirepass", &quoted(self.password.reveal().as_bytes()));
        line(&mut text, "masterauth", &quoted(self.password.reveal().as_bytes()));
        line(&mut text, "dir", &quoted(self.data_dir.to_string_lossy().as_bytes()));
        line(&mut text, "replica-priority", &self.priority);
        line(&mut text, "replica-announce-ip", &self.address);
        line(&mut text, "replica-announce-port", &self.port);
        line(&mut text, "replicaof", &format_args!("{} {}", CLOSED.ip(), CLOSED.port()));
        text.push_str(match self.persistence {
            Persistence::Aof if start == Start::FromSnapshot => "appendonly no\nappendfsync everysec\nsave \"\"\n",
            Persistence::Aof => "appendonly yes\nappendfsync everysec\nsave \"\"\n",
            Persistence::Rdb => "appendonly no\n",
            Persistence::None => "appendonly no\nsave \"\"\n",
        });
        text.push_str(FIXED);
        text
    }

    /// The own address first: older servers connect to their master from the first one.
    fn binds(&self) -> String {
        if self.address.is_loopback() { self.address.to_string() } else { format!("{} 127.0.0.1", self.address) }
    }

    /// Where the supervisor itself reaches it: health of the process must not hang on the network.
    pub(super) fn own_ip(&self) -> IpAddr {
        if self.address.is_loopback() { self.address } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }
}

/// What an operator may change. The backlog lets a replica that was away for a while catch up without a full copy; the
/// buffer lets one that is slow for a while keep its link, without a bound that a small machine could not pay.
const DEFAULTS: &str = "\
tcp-keepalive 60
repl-timeout 10
repl-backlog-size 64mb
client-output-buffer-limit replica 512mb 256mb 60
always-show-logo no
";

/// Without `repl-diskless-sync no` a master sends nothing to a new replica before that one's next acknowledgement, which may
/// take a second, while the replica already says that its link is up: writes acknowledged meanwhile die with the master.
const FIXED: &str = "\
protected-mode yes
replica-read-only yes
repl-diskless-sync no
rdb-del-sync-files yes
repl-ping-replica-period 1
daemonize no
supervised no
logfile \"\"
";

fn line(text: &mut String, directive: &str, value: &dyn std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{directive} {value}");
}

/// As redis reads a quoted word of its configuration.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text.push('"');
    text
}

/// A word without quotes around it, in lower case: redis takes `"BIND"` for `bind`.
fn unquoted(word: &str) -> String {
    word.trim_matches(['"', '\'']).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(persistence: Persistence) -> Conf {
        Conf {
            address: IpAddr::from([192, 168, 0, 4]),
            port: 6379,
            password: Secret::new("a \"b\\\n"),
            data_dir: PathBuf::from("/var/lib/vigie/redis"),
            persistence,
            include: vec![PathBuf::from("/etc/vigie/redis.d/a b.conf")],
            priority: 100,
        }
    }

    #[test]
    fn what_vigie_owns_comes_after_the_includes() {
        let text = conf(Persistence::Aof).text(&"7.0.15".parse().unwrap(), Start::Plain);
        let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{needle} in\n{text}"));
        let include = at("include \"/etc/vigie/redis.d/a b.conf\"\n");
        assert!(at("repl-backlog-size") < include);
        for owned in [
            "bind 192.168.0.4 127.0.0.1\n",
            "requirepass \"a \\\"b\\\\\\x0a\"\n",
            "replicaof 127.0.0.1 1\n",
            "appendonly yes\n",
        ] {
            assert!(include < at(owned), "{owned}");
        }
        assert!(text.contains("shutdown-timeout"));
        let older = conf(Persistence::Aof).text(&"6.2.7".parse().unwrap(), Start::Plain);
        assert!(!older.contains("shutdown-timeout"));
    }

    #[test]
    fn every_directive_that_is_written_last_is_owned() {
        for persistence in [Persistence::Aof, Persistence::Rdb, Persistence::None] {
            let conf = conf(persistence);
            let text = conf.text(&"7.0.0".parse().unwrap(), Start::Plain);
            let owned = text.split("# Owned by vigie.\n").nth(1).unwrap();
            for directive in owned.lines().filter_map(|line| line.split(' ').next()) {
                assert!(conf.owned(directive, None).is_some(), "{directive}");
            }
        }
    }

    #[test]
    fn data_on_disk_are_never_ignored() {
        let start = |persistence, found| conf(persistence).start(found).ok();
        assert_eq!(start(Persistence::Aof, Found::Snapshot), Some(Start::FromSnapshot));
        assert_eq!(start(Persistence::Aof, Found::AppendOnly), Some(Start::Plain));
        assert_eq!(start(Persistence::Rdb, Found::Snapshot), Some(Start::Plain));
        assert_eq!(start(Persistence::Rdb, Found::AppendOnly), None);
        assert_eq!(start(Persistence::None, Found::AppendOnly), None);
        let text = conf(Persistence::Aof).text(&"7.0.15".parse().unwrap(), Start::FromSnapshot);
        assert!(text.contains("appendonly no\n") && !text.contains("appendonly yes"), "{text}");
    }

    #[test]
    fn owned_directives_are_refused_with_their_place() {
        let check = |persistence, text| {
            let checked = conf(persistence).check_text(Path::new("x.conf"), text);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(Persistence::Aof, "# port 1\n\nmaxmemory 1gb\nuser app on >x ~* +@all\n"), Ok(()));
        assert_eq!(check(Persistence::Rdb, "save 60 1\nrename-command FLUSHALL \"\"\n"), Ok(()));
        for (text, said) in [
            ("maxmemory 1gb\n  \"Port\" 7000", "x.conf:2: \"port\""),
            ("save 60 1", "x.conf:1: \"save\""),
            ("rename-command CONFIG x", "vigie needs the command config"),
            ("user default off", "must keep the password"),
            ("include other.conf", "redis.include"),
            ("slaveof 1.2.3.4 6379", "who is master"),
        ] {
            let refused = check(Persistence::Aof, text).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
