//! Writes the journal for the link.

use std::io;

use tokio::sync::oneshot;

use crate::runtime::journal::Journal;
use crate::runtime::lines::{self, Lines};

/// Starts the clerk, who ends with the lines. Then the receiver is told so, by being closed.
pub(super) fn start(journal: Journal) -> io::Result<(Lines, oneshot::Receiver<()>)> {
    let (lines, mut put) = lines::channel();
    let (here, gone) = oneshot::channel();
    let write = move || {
        while let Some(line) = put.blocking_recv() {
            line.write("cluster", &journal);
        }
        drop(here);
    };
    std::thread::Builder::new().name("vigie-clerk".to_owned()).spawn(write)?;
    Ok((lines, gone))
}
