//! `vigie sentinel`, and vigie under the name of redis-sentinel: the same arguments, the same file, the same signs of
//! life.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use nix::unistd::{AccessFlags, access};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::sentinel::{Additions, Document, FileError, Process, ThisHost};
use crate::cores::sentinel::State;
use crate::runtime::daemon::{self, PidFile, Supervisor};
use crate::runtime::journal::Journal;
use crate::runtime::log::{self, Log, Mark};
use crate::runtime::sentinel::alone::{Alone, AloneError, run_alone};
use crate::wire::words;

/// Standard input is never longer, bytes.
const STDIN_MAX: u64 = 16 << 20;
/// What a Sentinel without a file hears.
const NEEDS_FILE: &str = "Sentinel needs config file on disk to save state. Exiting...";
const USAGE: &str = "\
Usage: vigie sentinel /path/to/sentinel.conf [OPTIONS] [-]
       redis-sentinel /path/to/sentinel.conf [OPTIONS] [-]    if that name is a link to vigie
       vigie sentinel -v | --version
       vigie sentinel -h | --help

Every --NAME VALUE... is read as if the line NAME VALUE... stood at the end of the file; the last one counts.
With - as the last word, lines of standard input come before them. The state is saved in the file.

Examples:
  vigie sentinel /etc/redis/sentinel.conf
  vigie sentinel /etc/redis/sentinel.conf --port 26380 --logfile \"\" --daemonize no
  vigie sentinel /etc/redis/sentinel.conf --supervised systemd";

/// Names under which vigie is a Sentinel. As redis does it, they count wherever they stand in a file's name: there are
/// `redis-sentinel-7.0` and the like.
const NAMES: [&str; 2] = ["redis-sentinel", "valkey-sentinel"];

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Version,
    Help,
    Run { file: Option<PathBuf>, options: Vec<u8>, stdin: bool },
}

/// Whether a program of that name (`argv[0]`) is a Sentinel.
pub fn is_name_of_sentinel(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    NAMES.iter().any(|known| name.contains(known))
}

/// Runs a Sentinel with the arguments of redis-sentinel, the name of the program not among them. Must be called before
/// there is a second thread: it may go to the background.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match asked(arguments) {
        Asked::Version => {
            println!("vigie sentinel v={} bits={}", env!("CARGO_PKG_VERSION"), usize::BITS);
            ExitCode::SUCCESS
        }
        Asked::Help => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Asked::Run { file, options, stdin } => match start(file.as_deref(), options, stdin) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Refusal::Said) => ExitCode::FAILURE,
            Err(Refusal::Line(text)) => {
                Log::default().write(Mark::Warning, &text);
                ExitCode::FAILURE
            }
            Err(Refusal::File(error)) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Why it does not run.
enum Refusal {
    /// The log says it already.
    Said,
    /// A line for standard output, where redis-sentinel says it.
    Line(String),
    /// For standard error.
    File(FileError),
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Open { .. } => Self::Line(error.to_string()),
            FileError::Line(_) | FileError::Whole { .. } => Self::File(error),
        }
    }
}

fn asked(arguments: &[OsString]) -> Asked {
    let mut words = arguments;
    match words.first().and_then(|first| first.to_str()) {
        Some("-v" | "--version") => return Asked::Version,
        Some("-h" | "--help") => return Asked::Help,
        _ => {}
    }
    let stdin = words.last().is_some_and(|last| last == "-");
    if stdin {
        words = &words[..words.len() - 1];
    }
    let file = words.first().filter(|first| !first.as_bytes().starts_with(b"--")).map(PathBuf::from);
    let options = &words[usize::from(file.is_some())..];
    Asked::Run { file, options: lines(options), stdin }
}

/// The lines that the options stand for.
fn lines(options: &[OsString]) -> Vec<u8> {
    let mut lines = Vec::new();
    for word in options {
        match word.as_bytes().strip_prefix(b"--") {
            Some(name) => {
                if !lines.is_empty() {
                    lines.push(b'\n');
                }
                lines.extend_from_slice(name);
            }
            None => {
                if !lines.is_empty() {
                    lines.push(b' ');
                }
                lines.extend_from_slice(words::quoted(word.as_bytes()).as_bytes());
            }
        }
    }
    lines
}

fn start(file: Option<&Path>, options: Vec<u8>, stdin: bool) -> Result<(), Refusal> {
    let here = std::env::current_dir()
        .map_err(|error| Refusal::Line(format!("Fatal error, can't find the working directory: {error}")))?;
    let additions = Additions { stdin: if stdin { read_stdin()? } else { Vec::new() }, options };
    let Some(file) = file else {
        // What is wrong with the options is said first.
        Document::parse(&here, b"", &additions, &here, &ThisHost)?;
        return Err(Refusal::Line(NEEDS_FILE.to_owned()));
    };
    // The directory is about to change: what is relative would be another place then.
    let path = here.join(file);
    let (mut document, mut process, state) = Document::read(&path, &additions, &here)?;
    enter(&mut process)?;
    document.set_dir(&process.dir);
    let log = Log::of(&process);
    log.check().map_err(|error| FileError::Whole {
        said: format!("Can't open the log file: {}", nix::errno::Errno::try_from(error).map_or("", |e| e.desc())),
    })?;
    log::set_level(state.settings.log_level.as_deref().unwrap_or("notice"));
    log.install();
    if let Err(errno) = access(&path, AccessFlags::W_OK) {
        tracing::error!("Sentinel config file {} is not writable: {}. Exiting...", path.display(), errno.desc());
        return Err(Refusal::Said);
    }
    daemon::keep_descriptors_from_children();
    let supervisor = supervisor(&process);
    let background = process.daemonize && supervisor == Supervisor::Nobody;
    if background {
        daemon::daemonize().map_err(|error| {
            tracing::error!("Can't go to the background: {error}");
            Refusal::Said
        })?;
    }
    live(process, document, state, supervisor, background)
}

fn read_stdin() -> Result<Vec<u8>, Refusal> {
    Log::default().write(Mark::Warning, "Reading config from stdin");
    let mut text = Vec::new();
    let read = std::io::stdin().take(STDIN_MAX).read_to_end(&mut text);
    read.map_err(|error| Refusal::Line(format!("Fatal error, can't read config from stdin: {error}")))?;
    Ok(text)
}

/// Goes where the file says, and learns where that is.
fn enter(process: &mut Process) -> Result<(), Refusal> {
    let entered = std::env::set_current_dir(&process.dir).and_then(|()| std::env::current_dir());
    process.dir = entered.map_err(|error| {
        let dir = process.dir.display();
        Refusal::File(FileError::Whole { said: format!("Can't chdir to '{dir}': {error}") })
    })?;
    // The file will say it, and the file is read as text.
    if process.dir.to_str().is_none() {
        let said = format!("Can't work in {:?}: a path in UTF-8 is expected", process.dir);
        return Err(Refusal::File(FileError::Whole { said }));
    }
    Ok(())
}

fn supervisor(process: &Process) -> Supervisor {
    Supervisor::find(process.supervised).unwrap_or_else(|reason| {
        tracing::warn!("{reason}");
        Supervisor::Nobody
    })
}

fn live(
    process: Process,
    document: Document,
    state: State,
    supervisor: Supervisor,
    background: bool,
) -> Result<(), Refusal> {
    let pid = std::process::id();
    tracing::warn!("vigie version={}, bits={}, pid={pid}, just started", env!("CARGO_PKG_VERSION"), usize::BITS);
    tracing::warn!("Configuration loaded");
    let default = background.then(|| PathBuf::from(daemon::PID_FILE));
    let pid_path = process.pid_file.clone().or(default).map(|path| process.dir.join(path));
    let pid_file = Rc::new(RefCell::new(None));
    let written = pid_file.clone();
    let ready = move || {
        *written.borrow_mut() = pid_path.and_then(|path| {
            let written = PidFile::write(&path);
            written.inspect_err(|error| tracing::warn!("Can't write the pid file {}: {error}", path.display())).ok()
        });
        supervisor.ready();
    };
    let ended = run(Alone { process, document, state }, ready, supervisor);
    drop(pid_file.take());
    match ended {
        Ok(()) => {
            tracing::warn!("Sentinel is now ready to exit, bye bye...");
            Ok(())
        }
        Err(error) => {
            tracing::error!("{error}");
            Err(Refusal::Said)
        }
    }
}

fn run(alone: Alone, ready: impl FnOnce(), supervisor: Supervisor) -> Result<(), AloneError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Whoever closes a terminal does not mean a Sentinel.
        let _hangup = signal(SignalKind::hangup())?;
        let (stop, stopped) = watch::channel(false);
        let asked = async {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::warn!("Received {name} scheduling shutdown...");
            tracing::warn!("User requested shutdown...");
            supervisor.stopping();
            stop.send_replace(true);
            std::future::pending().await
        };
        tokio::select! {
            ended = run_alone(alone, ready, Journal::new(), stopped) => ended,
            never = asked => never,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(line: &[&str]) -> Asked {
        asked(&line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn run(file: Option<&str>, options: &str, stdin: bool) -> Asked {
        Asked::Run { file: file.map(PathBuf::from), options: options.into(), stdin }
    }

    #[test]
    fn a_sentinel_is_known_by_its_name() {
        for name in ["redis-sentinel", "/usr/bin/valkey-sentinel", "./redis-sentinel-7.0.15", "my-redis-sentinel"] {
            assert!(is_name_of_sentinel(OsStr::new(name)), "{name}");
        }
        for name in ["vigie", "redis-server", "/opt/redis-sentinel/vigie", ""] {
            assert!(!is_name_of_sentinel(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn options_are_lines_at_the_end_of_the_file() {
        assert_eq!(asked_by(&[]), run(None, "", false));
        assert_eq!(asked_by(&["-"]), run(None, "", true));
        assert_eq!(asked_by(&["c"]), run(Some("c"), "", false));
        assert_eq!(
            asked_by(&["c", "--port", "1", "--sentinel", "monitor", "m a", "--logfile", "", "-"]),
            run(Some("c"), "port \"1\"\nsentinel \"monitor\" \"m a\"\nlogfile \"\"", true)
        );
        assert_eq!(asked_by(&["--sentinel", "c"]), run(None, "sentinel \"c\"", false));
        assert_eq!(asked_by(&["c", "d"]), run(Some("c"), "\"d\"", false));
        assert_eq!((asked_by(&["-v"]), asked_by(&["--version", "x"])), (Asked::Version, Asked::Version));
        assert_eq!((asked_by(&["-h"]), asked_by(&["--help"])), (Asked::Help, Asked::Help));
    }
}
