//! Reads the command line and hands over.

use std::ffi::OsString;
use std::io::{stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use vigie::args::{Arguments, Check, Command, Global, LogLevel, Run, cluster_file};
use vigie::config::file;
use vigie::config::kernel::{Kernel, identify};
use vigie::operate::commands::{self, CommandError};
use vigie::operate::console::{self, Left};
#[cfg(feature = "demo")]
use vigie::operate::demo;
use vigie::operate::{check, sentinel};
use vigie::runtime::exit::Exit;
use vigie::runtime::guard::{self, GuardSpec};
use vigie::runtime::setup::Spec;
use vigie::runtime::watchdog::Watchdog;
use vigie::runtime::{host, rights, vip, worker};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // What follows is of redis-sentinel's language, not of clap's.
    match words.as_slice() {
        [program, rest @ ..] if sentinel::is_name_of_sentinel(program) => return run_sentinel(rest),
        [_, command, rest @ ..] if command == "sentinel" => return run_sentinel(rest),
        _ => {}
    }
    let Arguments { global, command } = Arguments::parse();
    let exit = match command {
        Command::Run(arguments) => {
            return match rights::keep_memory().and_then(|()| rights::keep_needed_capabilities()) {
                Ok(()) => run(&global, &arguments),
                Err(error) => {
                    eprintln!("vigie: cannot give up what it does not need: {error}");
                    Exit::Internal.into()
                }
            };
        }
        #[cfg(feature = "demo")]
        Command::Demo(options) => {
            // After a signal it is none of ours.
            return demo::run(&options).map_or_else(|error| said(&error, Exit::No).into(), ExitCode::from);
        }
        #[cfg(not(feature = "demo"))]
        Command::Demo(none) => {
            eprintln!("vigie: {none}");
            Exit::Usage
        }
        Command::Status(arguments) if arguments.console => {
            match console::run(&global.runtime_dir, arguments.notice.as_deref(), !arguments.no_shell) {
                Ok(Left::Shell) => Exit::Ok,
                Ok(Left::Ended) => Exit::No,
                Err(error) => said(&error, Exit::Internal),
            }
        }
        Command::Status(arguments) => {
            asked(commands::status(&global.runtime_dir, arguments.json, arguments.watch, &mut stdout()))
        }
        Command::Why(arguments) => asked(commands::why(&global.runtime_dir, arguments.json, &mut stdout())),
        Command::Events(arguments) => {
            asked(commands::events(&global.runtime_dir, arguments.follow, &mut stdout()).map(|()| true))
        }
        Command::Failover(arguments) => {
            let to = arguments.to.as_ref().map(|name| name.as_str());
            asked(commands::failover(&global.runtime_dir, to, &mut stdout()).map(|()| true))
        }
        Command::Bootstrap(arguments) => {
            let answer = std::io::stdin().lock();
            asked(commands::bootstrap(&global.runtime_dir, arguments.yes, answer, &mut stdout()).map(|()| true))
        }
        Command::Takeover(arguments) => {
            let answer = std::io::stdin().lock();
            asked(commands::takeover(&global.runtime_dir, arguments.yes, answer, &mut stdout()).map(|()| true))
        }
        Command::Check(arguments) => judged(&arguments, &global),
        Command::Sentinel(arguments) => return run_sentinel(&arguments.words),
        Command::Version => {
            println!("vigie {} ({}-{})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
            Exit::Ok
        }
    };
    exit.into()
}

fn judged(arguments: &Check, global: &Global) -> Exit {
    let given = arguments.given(global);
    let path = cluster_file(given, None);
    let judged = if arguments.boot {
        match kernel(global) {
            Ok(kernel) => {
                check::check_boot(cluster_file(given, kernel.config.as_deref()), &kernel, &mut stdout(), &mut stderr())
            }
            Err(reason) => {
                eprintln!("{reason}");
                return Exit::No;
            }
        }
    } else if arguments.stock {
        check::check_stock(path, &mut stdout(), &mut stderr())
    } else {
        check::check(path, &mut stdout(), &mut stderr())
    };
    match judged {
        Ok(yes) => Exit::answer(yes),
        // Whoever no longer listens has not heard a yes.
        Err(_) => Exit::No,
    }
}

fn said(error: &dyn std::error::Error, exit: Exit) -> Exit {
    eprintln!("vigie: {error}");
    exit
}

fn asked(answer: Result<bool, CommandError>) -> Exit {
    match answer {
        Ok(yes) => Exit::answer(yes),
        Err(error) if error.exit() == Exit::Ok => Exit::Ok,
        Err(error) => said(&error, error.exit()),
    }
}

fn run_sentinel(words: &[OsString]) -> ExitCode {
    match rights::keep_memory() {
        Ok(()) => sentinel::main(words),
        Err(error) => said(&error, Exit::Internal).into(),
    }
}

/// `vigie run`: the guard, or its worker.
fn run(global: &Global, arguments: &Run) -> ExitCode {
    log(global.log);
    let spec = match spec(global, arguments) {
        Ok(spec) => spec,
        Err(reason) => {
            eprintln!("{reason}");
            return Exit::No.into();
        }
    };
    if guard::is_worker() {
        return match worker::run(&spec) {
            Ok(()) => Exit::Ok.into(),
            Err(error) => said(&error, error.exit()).into(),
        };
    }
    let vips = match spec.vips() {
        Ok(vips) => vips,
        Err(error) => return said(&error, Exit::No).into(),
    };
    let on_death = Box::new(move || {
        if let Err(error) = vip::abandon(&vips) {
            tracing::warn!("the virtual address may be left behind: {error}");
        }
    });
    let watchdog = match arguments.watchdog.as_deref().map(|device| Watchdog::open(device, &global.runtime_dir)) {
        None => None,
        Some(Ok(watchdog)) => Some(watchdog),
        Some(Err(error)) => {
            eprintln!("vigie: --watchdog: {error}");
            return Exit::No.into();
        }
    };
    guard::guard(&GuardSpec::again(global.runtime_dir.clone(), on_death, watchdog))
        .unwrap_or_else(|error| said(&error, Exit::No).into())
}

/// The cluster file, and which node of it this one is; else what is wrong, in words for a person.
fn spec(global: &Global, arguments: &Run) -> Result<Spec, String> {
    let kernel = kernel(global)?;
    let config_path = cluster_file(global.config.as_deref(), kernel.config.as_deref()).to_owned();
    let (config, warnings) = file::load(&config_path).map_err(|faults| faults.to_string())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let node = global.node.as_ref().map(|name| name.as_str());
    let identity = identify(&config, node, &kernel, &host::name(), &host::addresses());
    let identity = identity.map_err(|error| format!("vigie: {error}"))?;
    let mut roles = identity.roles;
    if arguments.volatile && std::mem::take(&mut roles.sentinel) {
        tracing::warn!("the state of this node does not survive a restart (--volatile): it does not vote");
    }
    Ok(Spec {
        config,
        me: identity.node,
        roles,
        config_path,
        // Redis changes its directory: what is relative would be another place for it.
        state_dir: std::path::absolute(&global.state_dir).map_err(|error| format!("vigie: --state-dir: {error}"))?,
        runtime_dir: global.runtime_dir.clone(),
    })
}

/// The kernel command line, with the words of a file beside it.
fn kernel(global: &Global) -> Result<Kernel, String> {
    let line = host::kernel_command_line();
    let Some(path) = &global.cmdline else { return Kernel::parse(&line).map_err(|faults| faults.to_string()) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("vigie: {}: {error}", path.display()))?;
    Kernel::parse_with(&line, path, &text).map_err(|faults| faults.to_string())
}

/// Lines on standard error, which the service manager stamps and keeps.
fn log(level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false).with_writer(stderr).init();
}
