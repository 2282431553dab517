//! What is wrong with a configuration, and where: every fault at once, in the words of the person who wrote the file.

use std::fmt;
use std::path::{Path, PathBuf};

/// More than this many faults of one file are counted, not listed.
const LISTED: usize = 60;
/// Characters of a wrong value that are repeated in its fault.
const VALUE_SHOWN: usize = 60;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it was read.
    pub file: PathBuf,
    /// Line in that file, from 1; none where a line says nothing.
    pub line: Option<usize>,
    /// Path of the key, like `cluster.quorum`; empty for a fault of the syntax.
    pub key: String,
    /// What stands there, as it was written; none if nothing does, or if it is a secret.
    pub value: Option<String>,
    /// What is wrong with it, and what is allowed.
    pub expected: String,
}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

/// Something legal and unwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it was read.
    pub file: PathBuf,
    /// Line in that file, from 1; none where a line says nothing.
    pub line: Option<usize>,
    /// Path of the key.
    pub key: String,
    /// What it leads to.
    pub text: String,
}

impl Fault {
    /// A fault of `file` as a whole.
    pub fn of_file(file: &Path, expected: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, key: String::new(), value: None, expected: expected.into() }
    }
}

impl Faults {
    /// Sorts the faults by line, and counts what exceeds a screen or two.
    pub(super) fn sorted(mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.line.unwrap_or(0));
        if let Some(beyond) = faults.len().checked_sub(LISTED).filter(|beyond| *beyond > 0) {
            let last = Fault::of_file(&faults[0].file, format!("{beyond} more faults are not listed"));
            faults.truncate(LISTED);
            faults.push(last);
        }
        Self(faults)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.file, self.line)?;
        match (&self.value, self.key.as_str()) {
            (_, "") => write!(f, "{}", self.expected),
            (None, key) => write!(f, "{key}: {}", self.expected),
            (Some(value), key) => write!(f, "{key} = {value}: {}", self.expected),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.file, self.line)?;
        write!(f, "{}: {}", self.key, self.text)
    }
}

fn place(f: &mut fmt::Formatter<'_>, file: &Path, line: Option<usize>) -> fmt::Result {
    match line {
        Some(line) => write!(f, "{}:{line}: ", file.display()),
        None => write!(f, "{}: ", file.display()),
    }
}

/// `text` as it may be shown on a terminal: on one line, short, without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(VALUE_SHOWN).flat_map(printable).collect();
    if text.chars().nth(VALUE_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

fn printable(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_debug());
    let plain = escaped.is_none().then_some(character);
    plain.into_iter().chain(escaped.into_iter().flatten())
}

/// The one of `known` that `typed` most likely meant.
pub(super) fn meant<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let most = 1 + typed.chars().count() / 4;
    known.map(|name| (distance(typed, name), name)).filter(|(far, _)| *far <= most).min().map(|(_, name)| name)
}

/// Insertions, deletions and replacements that lead from `typed` to `known` (Levenshtein). Of a long text only the beginning is
/// compared: what somebody mistyped is short.
pub(super) fn distance(typed: &str, known: &str) -> usize {
    let end = typed.char_indices().nth(64).map_or(typed.len(), |(end, _)| end);
    strsim::levenshtein(&typed[..end], known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_meant() {
        let known = ["node", "role", "address", "down_after"];
        for (typed, expected) in
            [("nod", Some("node")), ("adress", Some("address")), ("downafter", Some("down_after")), ("xyzzy", None)]
        {
            assert_eq!(meant(typed, known.into_iter()), expected, "{typed}");
        }
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("é", "e")), (3, 3, 1));
    }

    #[test]
    fn values_are_shown_short_and_without_control_characters() {
        assert_eq!(shown("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(shown(&"é".repeat(61)), "é".repeat(60) + "…");
    }

    #[test]
    fn a_fault_names_what_there_is_to_name() {
        let fault = |line, key: &str, value: Option<&str>| {
            let (key, value) = (key.to_owned(), value.map(str::to_owned));
            Fault { file: "f".into(), line, key, value, expected: "no".to_owned() }.to_string()
        };
        assert_eq!(fault(Some(3), "a.b", Some("1")), "f:3: a.b = 1: no");
        assert_eq!(fault(Some(3), "a.b", None), "f:3: a.b: no");
        assert_eq!(fault(None, "", None), "f: no");
    }
}
