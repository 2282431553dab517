//! The configuration of the supervised redis: vigie's defaults, then the operator's files, then what vigie owns.
//!
//! A later directive wins, so that an operator may change any default and nothing that the cluster's safety rests on. Redis
//! reads all of it from its standard input: what replicas log in with is on no disk, and the operator's files need not be
//! readable for the user that redis runs as.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::disk::Found;
use super::server::Version;
use super::users;
use crate::base::secret::REPLICA_USER;
use crate::base::{Credentials, Secret};
use crate::config::Persistence;
use crate::cores::redis::fence::{MAX_LAG, OUT_OF_REACH, Setting};
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
    ("masterauth", "replicas log in as a user of vigie's own"),
    ("masteruser", "replicas log in as a user of vigie's own"),
    ("aclfile", "vigie defines users of its own; define others by lines that begin with `user`"),
    ("enable-protected-configs", "who may send commands must not come to write files"),
    ("enable-module-command", "who may send commands must not come to run programs"),
    ("enable-debug-command", "who may send commands must not come to stop the server"),
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

/// What closes redis, and what an operator's own value of it is kept for while redis is fenced: each under its old name too.
const MIN_REPLICAS: [&str; 2] = ["min-replicas-to-write", "min-slaves-to-write"];
const MIN_REPLICAS_LAG: [&str; 2] = ["min-replicas-max-lag", "min-slaves-max-lag"];

/// Commands that the supervisor, the sentinels and the proxy send: renamed, they would not be found.
const NEEDED: &[&str] = &[
    "acl",
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
    "script",
    "select",
    "slaveof",
    "subscribe",
    "sync",
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
    /// What an included file sets of the replicas that a write needs cannot be kept for later.
    #[error(
        "{file}:{line}: {directive:?} needs one whole number here, which redis is told when it is opened",
        file = file.display()
    )]
    Replicas {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What it sets.
        directive: String,
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
        source: io::Error,
    },
    /// The file system refused a directory, or to remove a file.
    #[error("{path}: cannot write: {source}", path = path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data do not become those of the user that redis runs as.
    #[error("{path}: cannot be handed over to {user}: {source}", path = path.display())]
    HandOver {
        /// The data directory.
        path: PathBuf,
        /// Whom redis runs as.
        user: String,
        /// What the system said, or what is wrong with it.
        source: io::Error,
    },
    /// Redis would own what vigie keeps.
    #[error("{path}: the state of vigie is in it; redis.data_dir needs a directory of its own", path = path.display())]
    State {
        /// The data directory.
        path: PathBuf,
    },
    /// The kernel has no random bytes.
    #[error("no random bytes from the kernel: {0}")]
    Random(#[source] io::Error),
}

/// How redis gets at the data on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// By its own setting.
    Plain,
    /// Reads the snapshot, and writes its append-only file only once it has.
    FromSnapshot,
}

/// The operator's files, as they were read and checked for one start.
#[derive(Debug, Default)]
pub(super) struct Includes {
    files: Vec<Include>,
    /// What they want of replicas in sync while redis takes writes. A fenced one is told so when it is opened, since it rests on
    /// what closes it; one that started open may be fenced later, and is then opened again by the same.
    pub(super) setting: Setting,
}

/// One of them.
#[derive(Debug)]
struct Include {
    file: PathBuf,
    text: Vec<u8>,
}

/// What the configuration is made from, beside the secrets.
#[derive(Clone, Debug)]
pub(super) struct Conf {
    /// The node's own address.
    pub(super) address: IpAddr,
    /// Port on it and on loopback.
    pub(super) port: u16,
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
    /// Reads the operator's files. Refuses those that cannot be read or set what vigie owns.
    pub(super) fn includes(&self) -> Result<Includes, ConfError> {
        let mut kept = Kept::default();
        let mut files = Vec::new();
        for file in &self.include {
            let text = read(file)?;
            let said = String::from_utf8_lossy(&text);
            self.check_text(file, &said)?;
            kept.keep(file, &said)?;
            files.push(Include { file: file.clone(), text });
        }
        Ok(Includes { files, setting: kept.setting() })
    }

    /// Checks the text of one include file.
    pub(super) fn check_text(&self, file: &Path, text: &str) -> Result<(), ConfError> {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace().map(unquoted);
            let Some(directive) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            // Redis reads more than its letters from a quoted word: what is meant is not to be hidden from this check.
            let hidden = directive.contains('\\').then(|| "its name has a \\".to_owned());
            if let Some(reason) = hidden.or_else(|| self.owned(&directive, words.next().as_deref())) {
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
            "user" if users::OWN.contains(&argument) || argument.contains('\\') => {
                Some(format!("vigie owns the user {argument}; define one with another name"))
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

    /// The whole text, for a server of `version`: it is to take the secrets of `credentials`, and `local` from its supervisor;
    /// closed, it refuses writes until its fence is opened. Its directory is the one that it is started in, which it may reach by
    /// no name.
    pub(super) fn text(
        &self,
        version: Version,
        start: Start,
        closed: bool,
        includes: &Includes,
        credentials: &Credentials,
        local: &Secret,
    ) -> Vec<u8> {
        let mut text = String::from(DEFAULTS);
        if version.has_shutdown_timeout() {
            // Less than the time after which the supervisor kills it, so that it still saves.
            text.push_str("shutdown-timeout 5\n");
        }
        let mut text = text.into_bytes();
        for Include { file, text: included } in &includes.files {
            text.extend(format!("\n# {}\n", file.to_string_lossy().replace(char::is_control, "?")).into_bytes());
            text.extend(included);
        }
        text.extend(b"\n");
        text.extend(self.owned_text(version, start, credentials, local).into_bytes());
        if closed {
            // Last of all: what closes redis is not for any other line to undo.
            let mut last = String::from(CLOSED_HEAD);
            line(&mut last, MIN_REPLICAS[0], &OUT_OF_REACH);
            line(&mut last, MIN_REPLICAS_LAG[0], &MAX_LAG);
            text.extend(last.into_bytes());
        }
        text
    }

    fn owned_text(&self, version: Version, start: Start, credentials: &Credentials, local: &Secret) -> String {
        let mut text = String::from("# Owned by vigie.\n");
        line(&mut text, "bind", &self.binds());
        line(&mut text, "port", &self.port);
        line(&mut text, "masteruser", &REPLICA_USER);
        line(&mut text, "masterauth", &users::replication(credentials).reveal());
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
        if version.has_guarded_commands() {
            text.push_str(GUARDED);
        }
        text.push_str(&users::lines(credentials, local, version));
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

/// Before the lines by which redis rests closed.
const CLOSED_HEAD: &str = "# Closed, until it holds the lease. What other lines say of the same is set then.\n";

/// An operator's file. Refuses one that cannot be read or is no configuration.
fn read(file: &Path) -> Result<Vec<u8>, ConfError> {
    let include = |reason: String| ConfError::Include { file: file.to_owned(), reason };
    let facts = fs::metadata(file).map_err(|error| include(error.to_string()))?;
    if !facts.is_file() || facts.len() > INCLUDE_MAX {
        return Err(include(format!("not a file of at most {INCLUDE_MAX} bytes")));
    }
    let text = fs::read(file).map_err(|error| include(error.to_string()))?;
    if text.contains(&0) {
        return Err(include("a byte of zeros, which no configuration has".to_owned()));
    }
    Ok(text)
}

/// What was found so far of what the operator's files want of replicas. Of several lines the last one counts, as for redis itself.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    min_replicas: Option<u32>,
    max_lag: Option<u32>,
}

impl Kept {
    fn keep(&mut self, file: &Path, text: &str) -> Result<(), ConfError> {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace().map(unquoted);
            let Some(directive) = words.next() else { continue };
            let place = if MIN_REPLICAS.contains(&directive.as_str()) {
                &mut self.min_replicas
            } else if MIN_REPLICAS_LAG.contains(&directive.as_str()) {
                &mut self.max_lag
            } else {
                continue;
            };
            // Redis takes no more than that.
            let value =
                words.next().and_then(|word| word.parse().ok()).filter(|value| *value <= i32::MAX.unsigned_abs());
            match (value, words.next()) {
                (Some(value), None) => *place = Some(value),
                (Some(_) | None, _) => {
                    return Err(ConfError::Replicas { file: file.to_owned(), line: number + 1, directive });
                }
            }
        }
        Ok(())
    }

    fn setting(self) -> Setting {
        // Redis's own where nothing is set.
        Setting::new(self.min_replicas.unwrap_or(0), self.max_lag.unwrap_or(MAX_LAG))
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
dir .
protected-mode yes
replica-read-only yes
repl-diskless-sync no
rdb-del-sync-files yes
repl-ping-replica-period 1
daemonize no
supervised no
logfile \"\"
";

/// A client that may send `CONFIG SET dir`, `MODULE LOAD` or `DEBUG` has what redis itself has on its host.
const GUARDED: &str = "\
enable-protected-configs no
enable-module-command no
enable-debug-command no
";

fn line(text: &mut String, directive: &str, value: &dyn std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{directive} {value}");
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
            data_dir: PathBuf::from("/var/lib/vigie/redis"),
            persistence,
            include: vec![PathBuf::from("/etc/vigie/redis.d/a b.conf")],
            priority: 100,
        }
    }

    fn included(file: &str, text: &str) -> Includes {
        let files = vec![Include { file: PathBuf::from(file), text: text.as_bytes().to_vec() }];
        Includes { files, setting: Setting::default() }
    }

    fn text(persistence: Persistence, version: &str, start: Start) -> String {
        let credentials = Credentials::new("mymaster", Secret::new("password").into(), None);
        let include = included("/etc/a\nb.conf", "maxmemory 1gb\nuser app on");
        let version = version.parse().unwrap();
        let text = conf(persistence).text(version, start, false, &include, &credentials, &Secret::new("local"));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_vigie_owns_comes_after_the_includes() {
        let text7 = text(Persistence::Aof, "7.0.15", Start::Plain);
        let at = |needle: &str| text7.find(needle).unwrap_or_else(|| panic!("{needle} in\n{text7}"));
        let include = at("\n# /etc/a?b.conf\nmaxmemory 1gb\nuser app on\n");
        assert!(at("repl-backlog-size") < include);
        for owned in [
            "bind 192.168.0.4 127.0.0.1\n",
            "dir .\n",
            "masteruser vigie-replica\n",
            "replicaof 127.0.0.1 1\n",
            "appendonly yes\n",
            "enable-debug-command no\n",
            "user default on #",
        ] {
            assert!(include < at(owned), "{owned}");
        }
        assert!(text7.contains("shutdown-timeout"));
        assert!(!text7.contains("requirepass") && !text7.contains("local\n"), "{text7}");
        let older = text(Persistence::Aof, "6.2.7", Start::Plain);
        assert!(!older.contains("shutdown-timeout") && !older.contains("enable-"), "{older}");
    }

    #[test]
    fn every_directive_that_is_written_last_is_owned() {
        for persistence in [Persistence::Aof, Persistence::Rdb, Persistence::None] {
            let text = text(persistence, "7.0.0", Start::Plain);
            let owned = text.split("# Owned by vigie.\n").nth(1).unwrap();
            for line in owned.lines() {
                let mut words = line.split(' ');
                assert!(conf(persistence).owned(words.next().unwrap(), words.next()).is_some(), "{line}");
            }
        }
    }

    #[test]
    fn a_closed_one_rests_so_and_nothing_comes_after_that() {
        let made = |closed| {
            let credentials = Credentials::new("mymaster", Secret::new("password").into(), None);
            let include = included("a.conf", "min-replicas-to-write 1\nmin-slaves-max-lag 0");
            let (version, local) = ("7.0.15".parse().unwrap(), Secret::new("local"));
            let text = conf(Persistence::Aof).text(version, Start::Plain, closed, &include, &credentials, &local);
            String::from_utf8(text).unwrap()
        };
        let (closed, open) = (made(true), made(false));
        let added = closed.strip_prefix(&open).unwrap();
        assert_eq!(added, format!("{CLOSED_HEAD}min-replicas-to-write 1000000\nmin-replicas-max-lag 10\n"));
        assert!(!open.contains("1000000"));
    }

    #[test]
    fn what_is_kept_is_of_the_files_that_were_read() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a.conf", "b.conf"].map(|name| dir.path().join(name));
        let conf = Conf { include: files.to_vec(), ..conf(Persistence::Aof) };
        fs::write(&files[0], "min-replicas-to-write 2\n").unwrap();
        fs::write(&files[1], "maxmemory 1gb\nmin-replicas-max-lag 4\nmin-replicas-to-write 1\n").unwrap();
        let includes = conf.includes().unwrap();
        assert_eq!((includes.setting, includes.files.len()), (Setting::new(1, 4), 2));
        fs::write(&files[1], "maxmemory 1gb\n").unwrap();
        assert_eq!(conf.includes().unwrap().setting, Setting::new(2, MAX_LAG));
        fs::write(&files[0], "\nmin-replicas-to-write two\n").unwrap();
        let refused = conf.includes().unwrap_err().to_string();
        assert!(refused.contains("a.conf:2: \"min-replicas-to-write\" needs one whole number"), "{refused}");
    }

    #[test]
    fn what_an_operator_wants_of_replicas_is_kept() {
        let kept = |texts: &[&str]| {
            let mut kept = Kept::default();
            for text in texts {
                kept.keep(Path::new("x.conf"), text).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(kept.setting())
        };
        for (texts, setting) in [
            (&[][..], Setting::default()),
            (&["# min-replicas-to-write 4\nmaxmemory 1gb"], Setting::default()),
            (&["min-replicas-to-write 1\nmin-replicas-max-lag 5"], Setting::new(1, 5)),
            (&["  Min-Slaves-To-Write \"2\"", "min-replicas-to-write 1\nmin-slaves-max-lag 3\n"], Setting::new(1, 3)),
            (&["min-replicas-to-write 1\nmin-replicas-max-lag 0"], Setting::default()),
        ] {
            assert_eq!(kept(texts), Ok(setting), "{texts:?}");
        }
        for text in [
            "min-replicas-to-write",
            "min-replicas-to-write -1",
            "min-slaves-max-lag 4294967295",
            "min-replicas-max-lag 1 2",
        ] {
            let refused = kept(&["", &format!("\n{text}")]).unwrap_err();
            assert!(refused.starts_with("x.conf:2: \"min-") && refused.contains("whole number"), "{refused}");
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
        let text = text(Persistence::Aof, "7.0.15", Start::FromSnapshot);
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
            ("user default off", "vigie owns the user default"),
            ("USER \"vigie-local\" on nopass", "vigie owns the user vigie-local"),
            ("user vigie\\x2dlocal on", "define one with another name"),
            ("\"\\x62ind\" 0.0.0.0", "its name has a \\"),
            ("enable-debug-command yes", "stop the server"),
            ("include other.conf", "redis.include"),
            ("slaveof 1.2.3.4 6379", "who is master"),
        ] {
            let refused = check(Persistence::Aof, text).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
