//! `vigie demo`: five hosts, a virtual IP, a real Redis and a client, alive on one machine and gone afterwards.

mod draw;
mod error;
mod events;
mod live;
mod scenario;
mod transcript;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::config::Fencing;
use crate::operate::lab::cluster;
use crate::operate::lab::sandbox::{self, Sandbox};
use crate::runtime::exit::Exit;

pub use error::DemoError;
pub use scenario::Scenario;
use scenario::Series;

/// What to show.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// Inject this fault and print what the client saw, instead of the live view, or of its text where there is no terminal
    #[arg(long, value_enum, value_name = "FAULT")]
    pub scenario: Option<Scenario>,
    /// How often to inject it
    #[arg(long, value_name = "N", requires = "scenario", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Print one JSON object per run and one for all of them
    #[arg(long, requires = "scenario")]
    pub json: bool,
    /// Clients that write at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub clients: u16,
    /// `fencing` of the cluster file, instead of its default
    #[arg(long, value_enum, value_name = "MODE", requires = "scenario")]
    pub fencing: Option<Fencing>,
}

/// Shows the demo and returns its exit code: 0 if every fault was survived and no acknowledged write was lost. Has to
/// be called before the process starts threads; an error inside the private world has been printed when this returns.
pub fn run(options: &Options) -> Result<u8, DemoError> {
    let live = options.scenario.is_none() && io::stdout().is_terminal() && io::stdin().is_terminal();
    if !installed("redis-server") {
        return Err(DemoError::NoRedis);
    }
    let binary = cluster::binary()?;
    let terminal = live.then(Terminal::save);
    let code = sandbox::enter(|sandbox| inside(options, live, sandbox, &binary));
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    Ok(code?)
}

fn inside(options: &Options, live: bool, sandbox: &Sandbox, binary: &Path) -> u8 {
    let Options { scenario, runs, json, clients, fencing } = *options;
    let shown = match scenario {
        Some(scenario) => scenario::run(&Series { scenario, runs, json, clients, fencing }, sandbox, binary),
        None if live => live::run(clients, sandbox, binary),
        None => transcript::run(clients, sandbox, binary),
    };
    shown.unwrap_or_else(|error| {
        // A reader that has gone needs no message, and has not been told yes.
        if !matches!(&error, DemoError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            eprintln!("vigie demo: {error}");
        }
        Exit::No.code()
    })
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The terminal as it was. The live view restores it itself; this is for the case that it was killed.
struct Terminal(Option<Termios>);

impl Terminal {
    fn save() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    fn restore(self) {
        let Some(before) = self.0 else { return };
        let changed = tcgetattr(io::stdin()).is_ok_and(|now| now.local_flags != before.local_flags);
        if changed {
            // Leave the alternate screen, show the cursor.
            let _ = io::stdout().write_all(b"\x1b[?1049l\x1b[?25h");
            let _ = io::stdout().flush();
            // A terminal that has gone needs no mode.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
        }
    }
}
