//! Writes the journal for the link: a log may keep its writer waiting.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::runtime::journal::{Journal, Level};

/// Lines that wait for the journal; further ones are lost.
const LINES_MAX: usize = 256;

#[derive(Debug)]
struct Line {
    level: Level,
    name: &'static str,
    text: String,
}

/// Where the link puts what the journal is to be told. That never waits.
#[derive(Debug)]
pub(super) struct Lines(SyncSender<Line>);

impl Lines {
    pub(super) fn put(&self, level: Level, name: &'static str, text: String) {
        // A journal that is so far behind has worse things to tell.
        let _ = self.0.try_send(Line { level, name, text });
    }
}

/// Starts the clerk, who ends with the lines. Then the receiver is told so, by being closed.
pub(super) fn start(journal: Journal) -> io::Result<(Lines, oneshot::Receiver<()>)> {
    let (lines, put) = sync_channel::<Line>(LINES_MAX);
    let (here, gone) = oneshot::channel();
    let write = move || {
        for Line { level, name, text } in put {
            journal.record("cluster", level, name, text);
        }
        drop(here);
    };
    std::thread::Builder::new().name("vigie-clerk".to_owned()).spawn(write)?;
    Ok((Lines(lines), gone))
}
