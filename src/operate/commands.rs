//! The commands that ask a running node: `status`, `why`, `events`, `failover`, `bootstrap`, `takeover`.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::client::{self, ClientError};
use super::status::page;
use super::why;
use crate::runtime::exit::Exit;
use crate::runtime::journal::{Level, Record};
use crate::runtime::status::Status;

/// Between two pages of `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// A planned switchover ends by itself long before this.
const FAILOVER_LIMIT: Duration = Duration::from_secs(60);

/// What a command ends with when it could not be carried out; how, is in [`CommandError::exit`].
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The node did not answer, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output is closed or full.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// How the process ends; well when only the reader of the output has gone.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) => Exit::Internal,
        }
    }
}

/// `vigie status`. Returns whether all is well: there is a master, nothing keeps it from taking writes, and every
/// node is good.
pub fn status(runtime_dir: &Path, json: bool, watch: bool, out: &mut impl Write) -> Result<bool, CommandError> {
    loop {
        let status = client::status(runtime_dir)?;
        if watch && !json {
            // Home, and clear to the end: a page drawn over the last one does not flicker.
            write!(out, "\x1b[H\x1b[J")?;
        }
        if json {
            serde_json::to_writer(&mut *out, &status).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            write!(out, "{}", page(&status))?;
        }
        out.flush()?;
        if !watch {
            return Ok(healthy(&status));
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// Whether there is a master that is not known to refuse writes, and every node is good.
pub fn healthy(status: &Status) -> bool {
    status.master.is_some() && !status.fencing.refuses_writes() && status.nodes.iter().all(|node| node.health == "good")
}

/// `vigie why`. Returns whether no failover is needed, or one is on its way.
pub fn why(runtime_dir: &Path, json: bool, out: &mut impl Write) -> Result<bool, CommandError> {
    let why = client::why(runtime_dir)?;
    if json {
        serde_json::to_writer(&mut *out, &why).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", why::page(&why))?;
    }
    out.flush()?;
    Ok(why::fine(&why))
}

/// `vigie events`: what happened on this node, oldest first.
pub fn events(runtime_dir: &Path, follow: bool, out: &mut impl Write) -> Result<(), CommandError> {
    for record in client::events(runtime_dir, follow)? {
        writeln!(out, "{}", line(&record?))?;
        out.flush()?;
    }
    Ok(())
}

/// `vigie failover`: waits until it is done or aborted.
pub fn failover(runtime_dir: &Path, to: Option<&str>, out: &mut impl Write) -> Result<(), CommandError> {
    let done = client::failover(runtime_dir, to, FAILOVER_LIMIT)?;
    let pause = match done.pause_us {
        Some(micros) => format!("writes were held back for {:.1?}", Duration::from_micros(micros)),
        None => "the old master could not be asked to hold writes back".to_owned(),
    };
    writeln!(out, "{} is master instead of {} (epoch {}); {pause}", done.to, done.from, done.epoch)?;
    Ok(())
}

/// What an order to bootstrap risks, as it is told before it is given.
const BOOTSTRAP: &str = "\
The sentinel of this node forgets its own record and goes on from what the other sentinels have. That is the way back for
one whose disk was restored from elsewhere, and whose epoch is far above that of all others. Every sentinel has to be heard.
What it risks: had this sentinel's record been the right one, a decision that only it knows of would be forgotten.
A sentinel that has no record at all waits until it has heard the others; with this it waits no longer. What that risks: if it
voted before its disk was lost, for a leader that is not heard now, a second master could be elected in the same epoch.
";

/// `vigie bootstrap`: tells what it risks and, without `yes`, asks.
pub fn bootstrap(
    runtime_dir: &Path,
    yes: bool,
    answer: impl BufRead,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    if !yes {
        confirmed(BOOTSTRAP, answer, out)?;
    }
    writeln!(out, "{}", client::bootstrap(runtime_dir)?)?;
    Ok(())
}

/// `vigie takeover`: tells what it risks, by what the node knows, and, without `yes`, asks.
pub fn takeover(runtime_dir: &Path, yes: bool, answer: impl BufRead, out: &mut impl Write) -> Result<(), CommandError> {
    if !yes {
        let risks = client::takeover(runtime_dir, true, FAILOVER_LIMIT)?;
        confirmed(&risks, answer, out)?;
    }
    writeln!(out, "{}", client::takeover(runtime_dir, false, FAILOVER_LIMIT)?)?;
    Ok(())
}

/// Goes on only if somebody types that it may.
fn confirmed(risks: &str, mut answer: impl BufRead, out: &mut impl Write) -> Result<(), CommandError> {
    write!(out, "{risks}Type yes to go on: ")?;
    out.flush()?;
    let mut line = String::new();
    answer.read_line(&mut line)?;
    if line.trim() == "yes" {
        return Ok(());
    }
    writeln!(out)?;
    let said = "nothing was done: \"yes\" was not typed (scripts give --yes)".to_owned();
    Err(ClientError::Refused(said).into())
}

/// One event on one line: time of day in UTC, source, name, text.
pub fn line(record: &Record) -> String {
    let mark = match record.level {
        Level::Info => ' ',
        Level::Warn => '!',
        Level::Error => 'E',
    };
    format!("{} {mark} {:<8} {:<20} {}", timestamp(record.at_ms), record.source, record.name, record.text)
}

/// Milliseconds since 1970 as `2026-11-22T20:30:00.123Z`; as they are beyond the year 9999.
pub fn timestamp(at_ms: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(at_ms));
    let mut text = String::new();
    match moment.map(|moment| write!(text, "{}", humantime::format_rfc3339_millis(moment))) {
        Some(Ok(())) => text,
        Some(Err(fmt::Error)) | None => format!("{at_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_unless_yes_is_typed() {
        for (typed, goes_on) in [("yes\n", true), (" yes \n", true), ("y\n", false), ("", false), ("no\n", false)] {
            let mut out = Vec::new();
            let confirmed = confirmed("It risks this.\n", typed.as_bytes(), &mut out);
            assert_eq!(confirmed.is_ok(), goes_on, "{typed:?}");
            assert!(String::from_utf8(out).unwrap().starts_with("It risks this.\nType yes to go on: "));
        }
    }

    #[test]
    fn timestamps_are_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(1_795_379_400_123), "2026-11-22T20:30:00.123Z");
        // What a socket says need not be true.
        assert_eq!(timestamp(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        for beyond in [253_402_300_800_000, u64::MAX] {
            assert_eq!(timestamp(beyond), format!("{beyond} ms"));
        }
    }
}
