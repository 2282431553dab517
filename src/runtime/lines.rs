//! What real-time threads have to tell the journal: a log may keep its writer waiting, so that others write for them.

use tokio::sync::mpsc;

use super::journal::{Journal, Level};
use super::realtime::{self, Rank};

/// Lines that wait for the journal; further ones are lost.
const LINES_MAX: usize = 256;

/// A line for the journal.
#[derive(Debug)]
pub(super) struct Line {
    level: Level,
    name: &'static str,
    text: String,
}

impl Line {
    /// Writes it, for the part that speaks.
    pub(super) fn write(self, source: &'static str, journal: &Journal) {
        journal.record(source, self.level, self.name, self.text);
    }
}

/// Where lines are put; clones lead to the same place. To put one never waits.
#[derive(Clone, Debug)]
pub(super) struct Lines(mpsc::Sender<Line>);

/// A place for lines, and where they come out.
pub(super) fn channel() -> (Lines, mpsc::Receiver<Line>) {
    let (lines, put) = mpsc::channel(LINES_MAX);
    (Lines(lines), put)
}

impl Lines {
    /// Puts one there.
    pub(super) fn put(&self, level: Level, name: &'static str, text: impl Into<String>) {
        // A journal that is so far behind has worse things to tell.
        let _ = self.0.try_send(Line { level, name, text: text.into() });
    }

    /// Makes the calling thread real-time. Without the right to, it says so and goes on.
    pub(super) fn raise(&self, rank: Rank) {
        if let Err(error) = realtime::raise(rank) {
            self.put(Level::Warn, "not-realtime", error.to_string());
        }
    }
}
