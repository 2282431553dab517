//! The guard and its worker as real processes: this program again, with its part in the environment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop where it stands")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vigie::runtime::guard::{GuardSpec, guard, is_worker, watch_guard};
use vigie::runtime::notify;
use vigie::runtime::watchdog::Watchdog;

const PATIENCE: Duration = Duration::from_secs(20);
const DIR: &str = "VIGIE_TEST_DIR";
/// How the worker behaves.
const BEHAVIOUR: &str = "VIGIE_TEST_WORKER";
/// What takes the place of a hardware watchdog, if it exists in the directory: it keeps what is written to it.
const DEVICE: &str = "device";

/// Not a test of its own: the guard.
#[test]
#[ignore = "not a test: a process that tests of this file start"]
fn the_guard() {
    let Ok(dir) = std::env::var(DIR) else { return };
    if is_worker() {
        return;
    }
    let dir = Path::new(&dir);
    let device = dir.join(DEVICE);
    let watchdog = device.exists().then(|| Watchdog::open(&device, dir).unwrap());
    let mut spec = GuardSpec::again(dir.to_owned(), Box::new(|| println!("on_death")), watchdog);
    spec.args = ["guarded", "--exact", "the_worker", "--ignored", "--nocapture"].map(Into::into).to_vec();
    let code = guard(&spec).unwrap_or_else(|error| {
        println!("refused: {error}");
        std::process::ExitCode::from(1)
    });
    println!("left");
    code.exit_process_of_a_test();
}

/// `ExitCode` cannot be turned into a number; its debug form tells the tests' codes apart.
trait ExitProcess {
    fn exit_process_of_a_test(self);
}

impl ExitProcess for std::process::ExitCode {
    fn exit_process_of_a_test(self) {
        let code = (0..=u8::MAX).find(|code| format!("{:?}", Self::from(*code)) == format!("{self:?}"));
        std::process::exit(code.map_or(99, i32::from));
    }
}

/// Not a test of its own: the worker.
#[test]
#[ignore = "not a test: a process that tests of this file start"]
fn the_worker() {
    let Ok(behaviour) = std::env::var(BEHAVIOUR) else { return };
    if !is_worker() {
        return;
    }
    println!("worker {}", std::process::id());
    match behaviour.as_str() {
        "obeys" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let code = runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let (stop, mut stopped) = tokio::sync::watch::channel(false);
                tokio::spawn(watch_guard(stop));
                let mut terminate = signal(SignalKind::terminate()).unwrap();
                let mut hangup = signal(SignalKind::hangup()).unwrap();
                println!("ready");
                let mut speak = tokio::time::interval(Duration::from_millis(100));
                loop {
                    tokio::select! {
                        _ = speak.tick() => notify::watchdog(),
                        _ = stopped.wait_for(|stop| *stop) => { println!("guard gone"); return 0 }
                        // The death of the guard is also told by SIGTERM: both ways lead out.
                        _ = terminate.recv() => { println!("terminated"); return 7 }
                        _ = hangup.recv() => println!("hangup"),
                    }
                }
            });
            std::process::exit(code);
        }
        "refuses" => std::process::exit(2),
        other => panic!("{other}"),
    }
}

/// A guard under test, and the lines that it and its workers say.
struct Guarded {
    guard: Child,
    lines: mpsc::Receiver<String>,
}

impl Guarded {
    fn start(dir: &Path, behaviour: &str) -> Self {
        // The guard takes its signals from a descriptor; the harness's other threads must not take them first, so they
        // are blocked from the start.
        let mut command = Command::new("env");
        command.args(["--block-signal=TERM", "--block-signal=INT", "--block-signal=HUP"]);
        command.arg(std::env::current_exe().unwrap()).args(["--exact", "the_guard", "--ignored", "--nocapture"]);
        let mut guard = command.env(DIR, dir).env(BEHAVIOUR, behaviour).stdout(Stdio::piped()).spawn().unwrap();
        let (said, lines) = mpsc::channel();
        let out = BufReader::new(guard.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { guard, lines }
    }

    fn hears(&self, wanted: &str) -> String {
        let (end, mut heard) = (Instant::now() + PATIENCE, Vec::new());
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            // The harness itself writes "test the_worker ... " without a line end.
            if let Some((_, line)) = line.split_once(wanted) {
                return line.trim().to_owned();
            }
            heard.push(line);
        }
        panic!("never heard {wanted:?}, but {heard:?}");
    }

    fn worker(&self) -> Pid {
        let worker = Pid::from_raw(self.hears("worker ").parse().unwrap());
        self.hears("ready");
        worker
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.guard.id().try_into().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn ends(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.guard.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the guard does not leave");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // A guard that has left is not there to be killed; its worker leaves with it.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

#[test]
fn a_killed_worker_is_cleaned_up_after_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut guarded = Guarded::start(dir.path(), "obeys");
    for _ in 0..3 {
        let worker = guarded.worker();
        kill(worker, Signal::SIGKILL).unwrap();
        guarded.hears("on_death");
    }
    guarded.worker();
    guarded.signal(Signal::SIGTERM);
    guarded.hears("terminated");
    assert_eq!(guarded.ends().code(), Some(7), "the worker's own code");
}

#[test]
fn a_watchdog_is_petted_while_the_worker_speaks_and_a_silent_worker_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join(DEVICE);
    fs::write(&device, "").unwrap();
    let pets_more = |than: usize| {
        let end = Instant::now() + PATIENCE;
        while fs::read(&device).unwrap().len() <= than {
            assert!(Instant::now() < end, "no more than {than} pets");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mut guarded = Guarded::start(dir.path(), "obeys");
    let worker = guarded.worker();
    pets_more(2);
    kill(worker, Signal::SIGSTOP).unwrap();
    guarded.hears("on_death");
    let petted = fs::read(&device).unwrap().len();
    guarded.worker();
    pets_more(petted);
    guarded.signal(Signal::SIGTERM);
    guarded.hears("terminated");
    assert_eq!(guarded.ends().code(), Some(7));
    let written = fs::read(&device).unwrap();
    let (last, pets) = written.split_last().unwrap();
    assert!(*last == b'V' && pets.iter().all(|pet| *pet == 0), "stopped at the end, and only then: {written:?}");
}

#[test]
fn a_hangup_is_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut guarded = Guarded::start(dir.path(), "obeys");
    guarded.worker();
    guarded.signal(Signal::SIGHUP);
    guarded.hears("hangup");
    guarded.signal(Signal::SIGINT);
    guarded.hears("terminated");
    assert_eq!(guarded.ends().code(), Some(7));
}

#[test]
fn a_worker_that_refuses_to_start_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut guarded = Guarded::start(dir.path(), "refuses");
    assert_eq!(guarded.ends().code(), Some(2));
}

#[test]
fn a_second_guard_is_refused_and_waits_for_a_worker_that_only_has_to_leave() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Guarded::start(dir.path(), "obeys");
    let worker = first.worker();
    let mut second = Guarded::start(dir.path(), "obeys");
    let refused = second.hears("refused: ");
    let by = format!("another vigie (process {}) runs with the runtime directory", first.pid());
    assert!(refused.contains(&by), "{refused}");
    assert_eq!(second.ends().code(), Some(1));

    // The guard is gone, and its worker does not get around to leaving: two workers would fight for the same ports.
    kill(worker, Signal::SIGSTOP).unwrap();
    first.signal(Signal::SIGKILL);
    first.ends();
    let mut third = Guarded::start(dir.path(), "obeys");
    kill(worker, Signal::SIGCONT).unwrap();
    assert_ne!(third.worker(), worker);
    third.signal(Signal::SIGTERM);
    third.ends();
}

#[test]
fn a_worker_leaves_when_its_guard_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut guarded = Guarded::start(dir.path(), "obeys");
    let worker = guarded.worker();
    let mut stat = String::new();
    fs::File::open(format!("/proc/{worker}/stat")).unwrap().read_to_string(&mut stat).unwrap();
    assert!(stat.contains(&format!(" {} ", guarded.pid())), "its parent is the guard: {stat}");
    guarded.signal(Signal::SIGKILL);
    guarded.ends();
    // Either word leads out; the end of the stream says that the worker, its last writer, is gone.
    let said: Vec<String> = guarded.lines.iter().collect();
    assert!(said.iter().any(|line| line.contains("guard gone") || line.contains("terminated")), "{said:?}");
}
