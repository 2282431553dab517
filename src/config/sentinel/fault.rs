//! What is wrong with a `sentinel.conf`, in the words of redis-sentinel and then in ours.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::faults::shown;

/// Why the words of a line are refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What redis-sentinel says: people search for it.
    pub(super) said: String,
    /// The value, and what is expected.
    pub(super) expected: String,
}

impl Refused {
    pub(super) fn new(said: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { said: said.into(), expected: expected.into() }
    }

    pub(super) fn arguments(expected: impl Into<String>) -> Self {
        Self::new("wrong number of arguments", expected)
    }

    pub(super) fn bad_directive(expected: impl Into<String>) -> Self {
        Self::new("Bad directive or wrong number of arguments", expected)
    }
}

/// Where a line was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file, or one that it includes.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// Options of the command line.
    Options,
}

/// Why a file is not loaded. Printed in the form of redis-sentinel.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It, or one that it includes, cannot be read.
    #[error("Fatal error, can't open config file '{}': {}", path.display(), said(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line cannot be taken.
    #[error("{0}")]
    Line(Box<LineFault>),
    /// No line alone is wrong.
    #[error("\n*** FATAL CONFIG FILE ERROR (vigie {version}) ***\n{said}", version = env!("CARGO_PKG_VERSION"))]
    Whole {
        /// What is wrong.
        said: String,
    },
}

/// A line that cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub struct LineFault {
    pub(super) origin: Origin,
    /// As redis counts: what comes from elsewhere follows the file.
    pub(super) line: usize,
    /// Without what is secret.
    pub(super) text: String,
    pub(super) refused: Refused,
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, line, text, refused } = self;
        writeln!(f, "\n*** FATAL CONFIG FILE ERROR (vigie {}) ***", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "Reading the configuration file, at line {line}")?;
        writeln!(f, ">>> '{text}'")?;
        writeln!(f, "{}", refused.said)?;
        match origin {
            Origin::File(path) => write!(f, "{}:{line}: {}", path.display(), refused.expected),
            Origin::Stdin => write!(f, "standard input: {}", refused.expected),
            Origin::Options => write!(f, "command line: {}", refused.expected),
        }
    }
}

/// `line` as it may be shown: short, without control characters and without passwords.
pub(super) fn censored(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.split_whitespace().collect();
    let lower: Vec<String> = words.iter().take(2).map(|word| word.to_ascii_lowercase()).collect();
    let open = match lower.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["requirepass" | "masterauth" | "primaryauth" | "tls-key-file-pass" | "tls-client-key-file-pass", ..] => 1,
        ["user", _] | ["sentinel", "sentinel-pass"] => 2,
        ["sentinel", "auth-pass"] => 3,
        _ => usize::MAX,
    };
    match words.get(..open) {
        Some(start) if open < words.len() => shown(&format!("{} ***", start.join(" "))),
        _ => shown(line.trim()),
    }
}

/// What the system said, without its number, as C programs print it.
pub(super) fn said(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
