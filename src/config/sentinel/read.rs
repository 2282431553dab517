//! Reading: lines in their order, the directives of masters in theirs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::directive::{Directive, Group, Part};
use super::fault::{FileError, LineFault, Origin, Refused, censored, said};
use super::host::Host;
use super::process::Process;
use crate::base::Secret;
use crate::cores::sentinel::{MasterConfig, MasterState, State};
use crate::wire::words::{self, plain};

/// Files that include files that include files: a circle ends here.
const DEPTH_MAX: usize = 16;

/// What is read besides the file, as if it stood at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// Lines of standard input.
    pub stdin: Vec<u8>,
    /// Lines made of the options of the command line.
    pub options: Vec<u8>,
}

/// A directive that waits for its turn, and where it stands.
struct Waiting {
    directive: Directive,
    at: At,
}

/// A place in what is read.
#[derive(Clone)]
struct At {
    origin: Origin,
    line: usize,
    text: Vec<u8>,
}

struct Reader<'a> {
    host: &'a dyn Host,
    process: Process,
    state: State,
    users: BTreeSet<String>,
    waiting: Vec<Waiting>,
}

/// Everything that the file, what it includes, and what is added say.
pub(super) fn read(
    path: &Path,
    text: &[u8],
    additions: &Additions,
    cwd: &Path,
    host: &dyn Host,
) -> Result<(Process, State), FileError> {
    let process = Process::new(cwd.to_owned());
    let mut reader = Reader { host, process, state: State::default(), users: BTreeSet::new(), waiting: Vec::new() };
    let file = Origin::File(path.to_owned());
    let mut line = reader.lines(&file, text, 0, 0)?;
    if !additions.stdin.is_empty() {
        line = reader.lines(&Origin::Stdin, &additions.stdin, line, 0)?;
    }
    reader.lines(&Origin::Options, &additions.options, line, 0)?;
    reader.finish()
}

/// Words as text.
pub(super) fn texts(words: Vec<Vec<u8>>) -> Result<Vec<String>, Refused> {
    let text = |word: Vec<u8>| {
        String::from_utf8(word).map_err(|error| {
            let shown = words::quoted(error.as_bytes());
            Refused::new("Invalid characters in configuration line", format!("{shown}: UTF-8 text is expected"))
        })
    };
    words.into_iter().map(text).collect()
}

impl At {
    fn fault(&self, refused: Refused) -> FileError {
        let Self { origin, line, text } = self.clone();
        FileError::Line(Box::new(LineFault { origin, line, text: censored(&text), refused }))
    }
}

impl Reader<'_> {
    /// Takes the lines of `text` in, which follow `before` others. Returns how many there were with them.
    fn lines(&mut self, origin: &Origin, text: &[u8], before: usize, depth: usize) -> Result<usize, FileError> {
        let mut line = before;
        for raw in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n') {
            line += 1;
            let text = raw.trim_ascii();
            if text.is_empty() || text[0] == b'#' {
                continue;
            }
            let at = At { origin: origin.clone(), line, text: text.to_owned() };
            let words = words::split(text).map_err(|_| {
                let expected = "every quote closed, and a blank behind it, is expected";
                at.fault(Refused::new("Unbalanced quotes in configuration line", expected))
            })?;
            let words = texts(words).map_err(|refused| at.fault(refused))?;
            if words.first().is_some_and(|name| name.eq_ignore_ascii_case("include")) {
                self.include(&words, &at, depth)?;
            } else {
                self.line(&words, &at, depth).map_err(|refused| at.fault(refused))?;
            }
        }
        Ok(line)
    }

    fn include(&mut self, words: &[String], at: &At, depth: usize) -> Result<(), FileError> {
        let [_, pattern] = words else {
            return Err(at.fault(Refused::bad_directive("the path of one file, or a pattern, is expected")));
        };
        if depth == DEPTH_MAX {
            let expected = format!("{DEPTH_MAX} files that include each other are the most");
            return Err(at.fault(Refused::bad_directive(expected)));
        }
        let pattern = self.process.dir.join(pattern);
        let files: Vec<PathBuf> = match pattern.to_str().filter(|pattern| pattern.contains('*')) {
            Some(pattern) => self.host.expand(pattern).into_iter().map(PathBuf::from).collect(),
            None => vec![pattern],
        };
        for path in files {
            let text = self.host.read(&path).map_err(|source| FileError::Open { path: path.clone(), source })?;
            self.lines(&Origin::File(path), &text, 0, depth + 1)?;
        }
        Ok(())
    }

    fn line(&mut self, words: &[String], at: &At, depth: usize) -> Result<(), Refused> {
        let Some(directive) = Directive::parse(words)? else { return self.process.set(words) };
        if depth > 0 && (directive.is_sentinel() || matches!(directive, Directive::User(_))) {
            // It would be saved in the file itself, and stand in both at the next start.
            let expected = "an included file is never rewritten; what a Sentinel changes must stand in the file itself";
            return Err(Refused::bad_directive(expected));
        }
        if directive.is_sentinel() {
            self.waiting.push(Waiting { directive, at: at.clone() });
            return Ok(());
        }
        self.global(directive)
    }

    /// Takes a directive that belongs to no master.
    fn global(&mut self, directive: Directive) -> Result<(), Refused> {
        let settings = &mut self.state.settings;
        match directive {
            Directive::MyId(id) => self.state.id = Some(id),
            Directive::CurrentEpoch(epoch) => self.state.current_epoch = self.state.current_epoch.max(epoch),
            // An empty one leaves the one before, as redis-sentinel has it.
            Directive::AnnounceIp(ip) => settings.announce_ip = filled(ip).or_else(|| settings.announce_ip.take()),
            Directive::AnnouncePort(port) => settings.announce_port = Some(port).filter(|port| *port != 0),
            Directive::ResolveHostnames(on) => settings.resolve_hostnames = on,
            Directive::AnnounceHostnames(on) => settings.announce_hostnames = on,
            Directive::DenyScriptsReconfig(on) => settings.deny_scripts_reconfig = on,
            Directive::SentinelUser(user) => {
                settings.sentinel_user = filled(user).or_else(|| settings.sentinel_user.take())
            }
            Directive::SentinelPass(password) => {
                settings.sentinel_pass = set(password).or_else(|| settings.sentinel_pass.take());
            }
            Directive::RequirePass(password) => settings.require_pass = set(password),
            Directive::LogLevel(level) => settings.log_level = Some(level),
            Directive::User(user) => {
                let name = user.split(' ').next().unwrap_or_default().to_owned();
                if !self.users.insert(name.clone()) {
                    let said = format!(
                        "Error in user declaration '{name}': Duplicate user found. A user can only be defined once \
                         in config files"
                    );
                    return Err(Refused::new(said, "one line for each user is expected"));
                }
                settings.users.push(user);
            }
            Directive::Dir(path) => {
                let dir = self.process.dir.join(&path);
                self.host.directory(&dir).map_err(|error| {
                    let expected = format!("{}: a directory to work in is expected", dir.display());
                    Refused::new(said(&error), expected)
                })?;
                self.process.dir = dir;
            }
            Directive::Monitor { .. } | Directive::Of(..) | Directive::Obsolete => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Process, State), FileError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        // Stable: within a group, lines keep their order.
        waiting.sort_by_key(|waiting| waiting.directive.group());
        for Waiting { directive, at } in waiting {
            let taken = match directive.group() {
                Group::BeforeMonitor => self.global(directive),
                Group::Monitor | Group::AfterMonitor => self.of_master(directive),
            };
            taken.map_err(|refused| at.fault(refused))?;
        }
        if self.process.acl_file.is_some() && !self.state.settings.users.is_empty() {
            let said = "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is \
                        invalid. Define either an ACL file or users in the configuration file, but not both.";
            return Err(FileError::Whole { said: said.to_owned() });
        }
        Ok((self.process, self.state))
    }

    fn of_master(&mut self, directive: Directive) -> Result<(), Refused> {
        match directive {
            Directive::Monitor { name, place, quorum } => {
                if self.state.masters.iter().any(|master| master.config.name == name) {
                    let expected = format!("{name} is monitored by a line before; one for each name is expected");
                    return Err(Refused::new("Duplicate master name.", expected));
                }
                self.check_host(&place.host)?;
                self.state.masters.push(MasterState::new(MasterConfig::new(name, quorum), place));
                Ok(())
            }
            Directive::Of(name, part) => {
                self.check_part(&part)?;
                let Some(master) = self.state.masters.iter_mut().find(|master| master.config.name == name) else {
                    let expected = format!("no line `sentinel monitor {} ...` names it", plain(&name));
                    return Err(Refused::new("No such master with specified name.", expected));
                };
                let current = &mut self.state.current_epoch;
                // Whoever voted in an epoch, or knows a master of one, has seen it.
                if let Part::ConfigEpoch(epoch) | Part::LeaderEpoch(epoch) = part {
                    *current = epoch.max(*current);
                }
                take(master, part)
            }
            // A line that says nothing. What belongs to no master is not waiting for this turn.
            Directive::Obsolete
            | Directive::MyId(_)
            | Directive::CurrentEpoch(_)
            | Directive::AnnounceIp(_)
            | Directive::AnnouncePort(_)
            | Directive::ResolveHostnames(_)
            | Directive::AnnounceHostnames(_)
            | Directive::DenyScriptsReconfig(_)
            | Directive::SentinelUser(_)
            | Directive::SentinelPass(_)
            | Directive::RequirePass(_)
            | Directive::User(_)
            | Directive::LogLevel(_)
            | Directive::Dir(_) => Ok(()),
        }
    }

    fn check_host(&self, host: &str) -> Result<(), Refused> {
        if self.state.settings.resolve_hostnames || host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        let expected = format!("{host}: an address is expected; names need `sentinel resolve-hostnames yes`");
        Err(Refused::new("Can't resolve instance hostname.", expected))
    }

    fn check_part(&self, part: &Part) -> Result<(), Refused> {
        let script = |path: &str, what: &str| {
            let path = self.process.dir.join(path);
            if self.host.is_executable(&path) {
                return Ok(());
            }
            let expected = format!("{}: a file that may be run is expected", path.display());
            Err(Refused::new(format!("{what} script seems non existing or non executable."), expected))
        };
        match part {
            Part::NotificationScript(path) => script(path, "Notification"),
            Part::ClientReconfigScript(path) => script(path, "Client reconfiguration"),
            Part::KnownReplica(place) => self.check_host(&place.host),
            Part::KnownSentinel(known) => self.check_host(&known.place.host),
            Part::DownAfter(_)
            | Part::FailoverTimeout(_)
            | Part::ParallelSyncs(_)
            | Part::AuthPass(_)
            | Part::AuthUser(_)
            | Part::RebootDownAfter(_)
            | Part::ConfigEpoch(_)
            | Part::LeaderEpoch(_)
            | Part::RenameCommand(..) => Ok(()),
        }
    }
}

fn take(state: &mut MasterState, part: Part) -> Result<(), Refused> {
    let master = &mut state.config;
    match part {
        Part::DownAfter(time) => master.down_after = time,
        Part::FailoverTimeout(time) => master.failover_timeout = time,
        Part::ParallelSyncs(count) => master.parallel_syncs = count,
        Part::NotificationScript(path) => master.notification_script = filled(path),
        Part::ClientReconfigScript(path) => master.client_reconfig_script = filled(path),
        Part::AuthPass(password) => master.auth_pass = set(password),
        Part::AuthUser(user) => master.auth_user = filled(user),
        Part::RebootDownAfter(time) => master.reboot_down_after = time,
        Part::ConfigEpoch(epoch) => state.config_epoch = epoch,
        Part::LeaderEpoch(epoch) => state.leader_epoch = epoch,
        Part::KnownReplica(place) => {
            if state.replicas.contains(&place) {
                let expected = format!("{} {} stands in a line before", place.host, place.port);
                return Err(Refused::new("Duplicate hostname and port for replica.", expected));
            }
            state.replicas.push(place);
        }
        Part::KnownSentinel(known) => {
            if state.sentinels.iter().any(|other| other.id == known.id) {
                let expected = format!("{} stands in a line before", known.id);
                return Err(Refused::new("Duplicate runid for sentinel.", expected));
            }
            state.sentinels.push(known);
        }
        Part::RenameCommand(from, to) => {
            if master.renames.iter().any(|(other, _)| other.eq_ignore_ascii_case(&from)) {
                let expected = format!("{from} is renamed by a line before");
                return Err(Refused::new("Same command renamed multiple times with rename-command.", expected));
            }
            master.renames.push((from, to));
        }
    }
    Ok(())
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn set(password: Secret) -> Option<Secret> {
    (!password.reveal().is_empty()).then_some(password)
}
