//! Reads the command line and hands over.

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use vigie::args::{Arguments, Command, exit};
use vigie::operate::check;

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    let code = match &command {
        Command::Check(arguments) => match check::check(arguments.path(&global), &mut stdout(), &mut stderr()) {
            Ok(true) => exit::OK,
            // Whoever no longer listens has not heard a yes.
            Ok(false) | Err(_) => exit::NO,
        },
        Command::Version => {
            let (version, arch, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
            // A closed pipe is no reason to panic, as println! does.
            writeln!(stdout(), "vigie {version} ({arch}-{os})").map_or(exit::NO, |()| exit::OK)
        }
        Command::Run | Command::Demo(_) | Command::Status(_) | Command::Events(_) | Command::Failover(_) => {
            // The exit code says the same.
            let _ = writeln!(stderr(), "vigie: this command is not part of this build");
            exit::INTERNAL
        }
    };
    ExitCode::from(code)
}
