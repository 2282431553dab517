//! Lines of log as redis-sentinel writes them: what watches its log goes on working.
//!
//! ```text
//! 4711:X 22 Nov 2026 20:15:01.337 # +sdown master mymaster 203.0.113.4 6379
//! pid:X  local time               mark, text
//! ```

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::clock;
use crate::config::sentinel::{LOG_LEVELS, Process};

/// Where the system's log listens.
const SYSLOG: &str = "/dev/log";
/// A line is never longer, bytes.
const LINE_MAX: usize = 1_024;
/// Events that redis-sentinel marks `*`. All others of its events it marks `#`.
const NOTICES: [&str; 14] = [
    "+slave",
    "+sentinel",
    "+sentinel-address-switch",
    "+sentinel-address-update",
    "+sentinel-invalid-addr",
    "+reboot",
    "+convert-to-slave",
    "+fix-slave-config",
    "+failover-state-send-slaveof-noone",
    "+failover-state-wait-promotion",
    "+slave-reconf-sent",
    "+slave-reconf-inprog",
    "+slave-reconf-done",
    "+slave-reconf-sent-be",
];

/// How much is logged: the number of the first of [`LOG_LEVELS`] that is.
static LEAST: AtomicU8 = AtomicU8::new(2);

/// What a line begins with, by how much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// `.`
    Debug,
    /// `-`
    Verbose,
    /// `*`
    Notice,
    /// `#`
    Warning,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Opened again for every line, so that it can be moved away at any time; none: standard output.
    file: Option<PathBuf>,
    syslog: Option<Syslog>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Syslog {
    /// Where it listens.
    socket: PathBuf,
    /// Name of the program.
    ident: String,
    facility: u8,
}

impl Log {
    /// The log that `process` asks for.
    pub fn of(process: &Process) -> Self {
        Self {
            file: process.log_file.as_ref().map(|file| process.dir.join(file)),
            syslog: process.syslog.then(|| Syslog {
                socket: SYSLOG.into(),
                ident: process.syslog_ident.clone(),
                facility: process.syslog_facility,
            }),
        }
    }

    /// Whether lines can be written: afterwards, nobody would hear of it.
    pub fn check(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| open(file).map(|_| ()))
    }

    /// Takes in all that is traced from now on. To be called once.
    pub fn install(self) {
        let subscriber = tracing_subscriber::registry().with(self);
        // A second one changes nothing.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }

    /// Writes a line, whatever the level is set to. A log that fails has nobody to tell.
    pub fn write(&self, mark: Mark, text: &str) {
        let text = line(text);
        let now = Local::now();
        let sign = match mark {
            Mark::Debug => '.',
            Mark::Verbose => '-',
            Mark::Notice => '*',
            Mark::Warning => '#',
        };
        let pid = std::process::id();
        let whole = format!("{pid}:X {now} {sign} {text}\n");
        let _ = match &self.file {
            Some(file) => open(file).and_then(|mut file| file.write_all(whole.as_bytes())),
            None => io::stdout().lock().write_all(whole.as_bytes()),
        };
        if let Some(syslog) = &self.syslog {
            let _ = syslog.send(mark, now, &text);
        }
    }
}

impl Syslog {
    /// As RFC 3164 wants it. What it cannot take at once is lost: a log never stops a Sentinel.
    fn send(&self, mark: Mark, now: Local, text: &str) -> io::Result<usize> {
        let severity = match mark {
            Mark::Debug => 7,
            Mark::Verbose => 6,
            Mark::Notice => 5,
            Mark::Warning => 4,
        };
        let priority = self.facility * 8 + severity;
        let message = format!("<{priority}>{} {}[{}]: {text}", now.syslog(), self.ident, std::process::id());
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(message.as_bytes(), &self.socket)
    }
}

/// Sets how much is logged: one of [`LOG_LEVELS`]. Returns whether it is one.
pub fn set_level(level: &str) -> bool {
    let found = LOG_LEVELS.iter().position(|known| *known == level).and_then(|at| u8::try_from(at).ok());
    if let Some(least) = found {
        LEAST.store(least, Ordering::Relaxed);
    }
    found.is_some()
}

fn open(file: &std::path::Path) -> io::Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(file)
}

/// `text` on one line, and not too long.
fn line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > LINE_MAX {
        let end = (0..=LINE_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
    }
    line
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Most of what is traced is for nobody's eyes: it is not even put into words.
        let least = LEAST.load(Ordering::Relaxed);
        if *event.metadata().level() > Level::INFO && least > Mark::Verbose as u8 {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let mark = mark(*event.metadata().level(), &said.name);
        if mark as u8 >= least {
            self.write(mark, &said.text());
        }
    }
}

/// The events of a Sentinel have marks of their own.
fn mark(level: Level, name: &str) -> Mark {
    match level {
        Level::ERROR | Level::WARN => Mark::Warning,
        Level::INFO if NOTICES.contains(&name) => Mark::Notice,
        Level::INFO if name.starts_with(['+', '-']) => Mark::Warning,
        Level::INFO => Mark::Notice,
        Level::DEBUG => Mark::Verbose,
        _ => Mark::Debug,
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    name: String,
    fields: String,
}

impl Said {
    fn text(self) -> String {
        let Self { message, name, fields } = self;
        // Only the events of a Sentinel are known by their names.
        let name = if name.starts_with(['+', '-']) { name + " " } else { String::new() };
        format!("{name}{message}{fields}")
    }

    fn take(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            "name" => write!(self.name, "{value}"),
            "source" => Ok(()),
            other => write!(self.fields, " {other}={value}"),
        };
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format_args!("{value:?}"));
    }
}

/// A moment on the clock on the wall.
struct Local {
    time: libc::tm,
    millis: u32,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Local {
    #[expect(unsafe_code, reason = "only the C library knows the time zone of the host")]
    fn now() -> Self {
        let since = clock::wall();
        let seconds = since.as_secs().try_into().unwrap_or_default();
        // SAFETY: a `tm` is numbers and a pointer that nobody follows; zeros are values of both.
        let mut time: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both point to values that live here. On failure `time` stays as it is.
        unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
        Self { time, millis: since.subsec_millis() }
    }

    fn month(&self) -> &'static str {
        usize::try_from(self.time.tm_mon).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"???")
    }

    /// As RFC 3164 wants it.
    fn syslog(&self) -> String {
        let libc::tm { tm_mday, tm_hour, tm_min, tm_sec, .. } = self.time;
        format!("{} {tm_mday:2} {tm_hour:02}:{tm_min:02}:{tm_sec:02}", self.month())
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let libc::tm { tm_mday, tm_year, tm_hour, tm_min, tm_sec, .. } = self.time;
        let (month, year) = (self.month(), tm_year + 1900);
        write!(f, "{tm_mday:02} {month} {year} {tm_hour:02}:{tm_min:02}:{tm_sec:02}.{:03}", self.millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_sentinel_are_marked_as_redis_marks_them() {
        for (level, name, expected) in [
            (Level::INFO, "+monitor", Mark::Warning),
            (Level::INFO, "+slave", Mark::Notice),
            (Level::INFO, "", Mark::Notice),
            (Level::WARN, "file-limit", Mark::Warning),
            (Level::DEBUG, "", Mark::Verbose),
            (Level::TRACE, "", Mark::Debug),
        ] {
            assert_eq!(mark(level, name), expected, "{level} {name}");
        }
    }

    #[test]
    fn lines_are_appended_in_the_form_of_redis_also_after_the_file_was_moved() {
        let directory = tempfile::tempdir().unwrap();
        let (file, moved) = (directory.path().join("a.log"), directory.path().join("b.log"));
        let log = Log { file: Some(file.clone()), syslog: None };
        log.write(Mark::Warning, "+sdown master m 203.0.113.4 6379");
        std::fs::rename(&file, &moved).unwrap();
        log.write(Mark::Notice, "two\nlines");
        let (first, second) = (std::fs::read_to_string(moved).unwrap(), std::fs::read_to_string(file).unwrap());
        assert!(first.starts_with(&format!("{}:X ", std::process::id())), "{first}");
        assert!(first.ends_with(" # +sdown master m 203.0.113.4 6379\n"), "{first}");
        let words: Vec<&str> = first.split(' ').collect();
        assert!(MONTHS.contains(&words[2]) && words[3].len() == 4 && words[4].len() == 12, "{first}");
        assert!(second.ends_with(" * two lines\n") && second.lines().count() == 1, "{second}");
    }

    #[test]
    fn the_log_of_the_system_gets_facility_severity_and_name() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("log");
        let heard = UnixDatagram::bind(&socket).unwrap();
        let syslog = Syslog { socket, ident: "redis".to_owned(), facility: 16 };
        let log = Log { file: Some(directory.path().join("a.log")), syslog: Some(syslog) };
        log.write(Mark::Warning, "+sdown");
        let mut buffer = [0; 256];
        let length = heard.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(text.starts_with("<132>"), "{text}");
        assert!(text.ends_with(&format!(" redis[{}]: +sdown", std::process::id())), "{text}");
    }
}
