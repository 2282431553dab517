//! The guard: the small process that starts the worker, notices its death from the kernel, cleans up what a dead worker
//! cannot, and starts a new one.
//!
//! ```text
//!             spawned               exited, 1 or 2 at its start
//!  Waiting ───────────▶ Running ──────────────────────────────────▶ leave with that code
//!     ▲                    │  │
//!     └────────────────────┘  └─▶ Stopping ──▶ leave with the worker's code
//!        exited: on_death         SIGTERM, SIGINT
//! ```
//! It has one thread, no allocation to speak of while it waits, and no state but its worker, whose redis it
//! [fences](super::fence) once more.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid, getppid};
use tokio::sync::watch;

use super::exit::Exit;
use super::fence::second::{self, Second, Verdict};
use super::pidfd::{Ending, PidFd};
use super::realtime::{self, Rank};
use super::watchdog::Watchdog;
use super::{clock, notify, private};
use crate::base::Instant;

/// Process id of the guard, in the environment of its worker.
pub(super) const WORKER_ENV: &str = "VIGIE_WORKER";
/// Descriptor of the lock, which the worker shares: no other vigie starts before both are gone.
pub(super) const LOCK_ENV: &str = "VIGIE_LOCK";
/// A worker that lived for so long has started; one that refuses its configuration says so sooner.
const RUN_MIN: Duration = Duration::from_secs(10);
/// The shortest pause after the first restart that did not last; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A worker that was asked to leave hands over its master and stops its redis in at most so long.
const STOP_MAX: Duration = Duration::from_secs(20);
/// A worker that has a watchdog and says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// It speaks for the first time at the latest so long after its start.
const START_MAX: Duration = Duration::from_secs(10);
/// Between two tries for a lock that is about to be released: flock(2) knows no time-out.
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// By these a worker refuses to start at all.
const REFUSALS: [u8; 2] = [Exit::No.code(), Exit::Usage.code()];

/// What a guard guards.
pub struct GuardSpec {
    /// The program of the worker; of the product `/proc/self/exe`, which is the same even if the file was replaced.
    pub program: PathBuf,
    /// Its arguments, the name of the program first.
    pub args: Vec<OsString>,
    /// What its environment has more than the guard's.
    pub env: Vec<(OsString, OsString)>,
    /// Where the lock lies. One vigie runs per runtime directory.
    pub runtime_dir: PathBuf,
    /// Called at every death of a worker, before anything else: takes the VIP off and says so to the segment. Must not
    /// block.
    pub on_death: Box<dyn Fn()>,
    /// Restarts the machine when no worker says any more that it lives; one that is silent is killed before.
    pub watchdog: Option<Watchdog>,
}

impl std::fmt::Debug for GuardSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardSpec").field("program", &self.program).field("args", &self.args).finish_non_exhaustive()
    }
}

impl GuardSpec {
    /// The worker is this program again, with the same arguments.
    pub fn again(runtime_dir: PathBuf, on_death: Box<dyn Fn()>, watchdog: Option<Watchdog>) -> Self {
        let (program, args) = (PathBuf::from("/proc/self/exe"), env::args_os().collect());
        Self { program, args, env: Vec::new(), runtime_dir, on_death, watchdog }
    }
}

/// Why a guard does not guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Another one does.
    #[error(
        "another vigie{by} runs with the runtime directory {dir}; give this one another --runtime-dir",
        dir = dir.display()
    )]
    Running {
        /// ` (process 123)`, if the lock says so.
        by: String,
        /// The directory.
        dir: PathBuf,
    },
    /// The lock cannot be made.
    #[error("{path}: cannot make the lock: {source}", path = path.display())]
    Lock {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused what the guard itself needs.
    #[error("the guard cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

enum State {
    /// The next start is due.
    Waiting { until: Instant },
    /// A worker lives. With a watchdog it must speak before `silent_at`.
    Running { worker: Worker, since: Instant, silent_at: Option<Instant> },
    /// It was asked to leave; without `kill_at` it was killed.
    Stopping { worker: Worker, kill_at: Option<Instant> },
}

struct Worker {
    child: Child,
    held: PidFd,
    /// Around its redis; none: the system has refused it.
    fence: Option<Second>,
}

/// Guards a worker until it is told to leave (SIGTERM, SIGINT) or the worker refuses to start. SIGHUP is passed on.
/// Must be called on the main thread, before any other is started: the signals are blocked in this thread only, and the
/// worker is told of the death of the thread that started it.
pub fn guard(spec: &GuardSpec) -> Result<ExitCode, GuardError> {
    let lock = lock(&spec.runtime_dir)?;
    let system = |action| move |errno: Errno| GuardError::System { action, source: errno.into() };
    let mask: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).map_err(system("block signals"))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&mask, flags).map_err(system("take signals"))?;
    // It is to wake up in time where the worker does not. Without the right to, the worker says so for both.
    if let Err(error) = realtime::raise_alone(Rank::Fence) {
        tracing::debug!("the guard: {error}");
    }
    if let Err(error) = realtime::lock_memory() {
        tracing::debug!("the guard: {error}");
    }
    let disarm = |code| {
        spec.watchdog.iter().for_each(Watchdog::disarm);
        Ok(code)
    };
    let mut guard = Guard { spec, lock, state: State::Waiting { until: Instant::START }, short_runs: 0 };
    loop {
        guard.wait(signals.as_fd()).map_err(system("wait"))?;
        // Signals first: a worker that left because the whole group was told to must not be started again.
        while let Ok(Some(signal)) = signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if let Some(code) = Signal::try_from(number).ok().and_then(|signal| guard.on_signal(signal)) {
                return disarm(code);
            }
        }
        if let Some(code) = guard.turn(clock::now()) {
            return disarm(code);
        }
    }
}

struct Guard<'a> {
    spec: &'a GuardSpec,
    lock: Flock<File>,
    state: State,
    /// Workers in a row that lived shorter than [`RUN_MIN`].
    short_runs: u32,
}

impl Guard<'_> {
    /// Sleeps until there is a signal, a death or a deadline.
    fn wait(&self, signals: BorrowedFd<'_>) -> nix::Result<()> {
        let (worker, deadline) = match &self.state {
            State::Waiting { until } => (None, Some(*until)),
            State::Running { worker, silent_at, .. } => (Some(worker), *silent_at),
            State::Stopping { worker, kill_at } => (Some(worker), *kill_at),
        };
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            // Rounded up: a wake-up before the deadline would spin.
            let left = deadline.since(clock::now()) + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let held = worker.map(|worker| worker.held.as_fd());
        let word = self.spec.watchdog.as_ref().map(Watchdog::socket);
        let fence = worker.and_then(|worker| worker.fence.as_ref()).map(Second::descriptors);
        let waited = [Some(signals), held, word].into_iter().flatten().chain(fence.into_iter().flatten());
        let mut waited: heapless::Vec<PollFd<'_>, 6> = waited.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut waited, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Some: leave with this code.
    fn on_signal(&mut self, signal: Signal) -> Option<ExitCode> {
        match std::mem::replace(&mut self.state, State::Waiting { until: Instant::START }) {
            State::Waiting { .. } if signal != Signal::SIGHUP => return Some(ExitCode::SUCCESS),
            State::Running { worker, .. } if signal != Signal::SIGHUP => {
                notify::stopping();
                worker.signal(Signal::SIGTERM);
                self.state = State::Stopping { worker, kill_at: Some(clock::now() + STOP_MAX) };
            }
            State::Running { worker, since, silent_at } => {
                worker.signal(signal);
                self.state = State::Running { worker, since, silent_at };
            }
            same @ (State::Waiting { .. } | State::Stopping { .. }) => self.state = same,
        }
        None
    }

    /// Looks at deaths and deadlines. Some: leave with this code.
    fn turn(&mut self, now: Instant) -> Option<ExitCode> {
        match &mut self.state {
            State::Running { worker, .. } | State::Stopping { worker, .. } => worker.fence_redis(now),
            State::Waiting { .. } => {}
        }
        let spoke = self.spec.watchdog.as_ref().is_some_and(Watchdog::listen);
        match &mut self.state {
            State::Waiting { until } if *until <= now => self.start(now),
            State::Stopping { worker, kill_at } if kill_at.is_some_and(|at| at <= now) => {
                tracing::warn!("the worker does not leave within {STOP_MAX:?} and is killed");
                worker.signal(Signal::SIGKILL);
                *kill_at = None;
            }
            State::Running { worker, since, silent_at } => {
                if spoke {
                    *silent_at = Some(now + SILENCE_MAX);
                } else if silent_at.is_some_and(|at| at <= now) {
                    tracing::error!("the worker lives and does not answer: it is killed");
                    worker.signal(Signal::SIGKILL);
                    *silent_at = None;
                }
                let since = *since;
                let status = worker.ended(self.spec)?;
                return self.on_death(now, now.since(since), status);
            }
            State::Stopping { worker, .. } => {
                let status = worker.ended(self.spec)?;
                // One that did not leave by itself has none.
                return Some(ExitCode::from(code(status).unwrap_or_else(|| Exit::Internal.code())));
            }
            State::Waiting { .. } => {}
        }
        None
    }

    fn start(&mut self, now: Instant) {
        match self.spawn() {
            Ok(worker) => {
                let silent_at = self.spec.watchdog.as_ref().map(|_| now + START_MAX);
                self.state = State::Running { worker, since: now, silent_at };
            }
            Err(error) => {
                tracing::error!("the worker cannot be started: {error}");
                self.pause(now, Duration::ZERO);
            }
        }
    }

    fn on_death(&mut self, now: Instant, lived: Duration, status: ExitStatus) -> Option<ExitCode> {
        let refused = code(status).filter(|code| lived < RUN_MIN && REFUSALS.contains(code));
        if let Some(code) = refused {
            return Some(ExitCode::from(code));
        }
        self.pause(now, lived);
        tracing::error!("the worker ended after {lived:?} ({status}) and is started again");
        notify::status("the worker died and is started again");
        None
    }

    fn pause(&mut self, now: Instant, lived: Duration) {
        self.short_runs = if lived >= RUN_MIN { 0 } else { self.short_runs.saturating_add(1) };
        // The first restart never waits: most deaths are not the start's fault.
        let pause = match self.short_runs {
            0 | 1 => Duration::ZERO,
            n => PAUSE_MIN.saturating_mul(1 << (n - 2).min(16)).min(PAUSE_MAX),
        };
        self.state = State::Waiting { until: now + pause };
    }

    #[expect(unsafe_code, reason = "what the worker must do between fork and exec can be said in no other way")]
    fn spawn(&self) -> io::Result<Worker> {
        let (guard, lock) = (getpid(), self.lock.try_clone()?);
        let mut command = Command::new(&self.spec.program);
        if let Some((name, args)) = self.spec.args.split_first() {
            command.arg0(name).args(args);
        }
        command.envs(self.spec.env.iter().map(|(name, value)| (name, value)));
        command.envs(self.spec.watchdog.iter().flat_map(Watchdog::environment));
        command.env(WORKER_ENV, guard.to_string()).env(LOCK_ENV, lock.as_raw_fd().to_string());
        let (fence, given) = match Second::new() {
            Ok((fence, given)) => {
                command.envs([given.environment()]);
                (Some(fence), Some(given))
            }
            Err(error) => {
                tracing::warn!("there is no second fence around redis: {error}");
                command.env_remove(second::FENCE_ENV);
                (None, None)
            }
        };
        let in_child = move || {
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            // The guard may have died before the signal was set; then nobody would send it.
            if getppid() != guard {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
            given.as_ref().map_or(Ok(()), second::Given::inherit)?;
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            Ok(())
        };
        // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(in_child) };
        let mut child = command.spawn()?;
        match PidFd::open(child.id()) {
            Ok(held) => Ok(Worker { child, held, fence }),
            Err(error) => {
                // Without the hold its death would not be seen.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

impl Worker {
    /// Kills its redis, should that one be open for longer than its lease lasts: the worker is stopped then, hangs, or gets no
    /// processor.
    fn fence_redis(&mut self, now: Instant) {
        match self.fence.as_mut().map_or(Verdict::Good, |fence| fence.turn(now)) {
            Verdict::Good => {}
            Verdict::Killed(late) => {
                tracing::error!("the worker has not closed redis in time: it is killed, {late:?} late");
            }
            Verdict::NotAtHand => {
                tracing::error!("the worker has not closed redis in time, and both are killed");
                self.signal(Signal::SIGKILL);
            }
        }
    }

    /// A worker that has just ended needs none.
    fn signal(&self, signal: Signal) {
        if let Err(error) = self.held.signal(signal) {
            tracing::debug!("{signal} to the worker: {error}");
        }
    }

    /// How it ended, if it did; what it could not clean up is cleaned up then.
    fn ended(&mut self, spec: &GuardSpec) -> Option<ExitStatus> {
        let ended = poll(&mut [PollFd::new(self.held.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
        if !matches!(ended, Ok(1)) {
            return None;
        }
        // Before anything else: the segment waits for it.
        (spec.on_death)();
        match self.child.wait() {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::error!("the worker's exit status is lost: {error}");
                Some(std::os::unix::process::ExitStatusExt::from_raw(i32::from(Exit::Internal.code()) << 8))
            }
        }
    }
}

/// The exit code of what left by itself.
fn code(status: ExitStatus) -> Option<u8> {
    status.code().and_then(|code| u8::try_from(code).ok())
}

/// Takes the lock. A guard that was killed leaves it to its worker, which is about to leave too: that one is waited for,
/// since a service manager that starts the node again at once would be refused otherwise.
fn lock(dir: &Path) -> Result<Flock<File>, GuardError> {
    let path = dir.join("lock");
    let fault = |source: io::Error| GuardError::Lock { path: path.clone(), source };
    private::directory(dir).map_err(|source| GuardError::Lock { path: dir.to_owned(), source })?;
    let mut file = private::file(&path, 0o600).map_err(fault)?;
    let deadline = clock::now() + STOP_MAX;
    loop {
        let (held, errno) = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0).and_then(|()| lock.rewind()).map_err(fault)?;
                writeln!(lock, "{}", getpid()).map_err(fault)?;
                return Ok(lock);
            }
            Err(refused) => refused,
        };
        if errno != Errno::EWOULDBLOCK {
            return Err(fault(errno.into()));
        }
        file = held;
        let by = guard_of(&mut file);
        if !by.is_some_and(is_gone) || clock::now() >= deadline {
            let by = by.map_or_else(String::new, |pid| format!(" (process {pid})"));
            return Err(GuardError::Running { by, dir: dir.to_owned() });
        }
        std::thread::sleep(LOCK_RETRY);
    }
}

/// The guard that took the lock, if the file says so: it is being written at the very moment when it is taken.
fn guard_of(file: &mut File) -> Option<Pid> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.take(16).read_to_string(&mut text)).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// Whether a guard of that number is no more. One of this process' own number was in another life of the machine.
fn is_gone(guard: Pid) -> bool {
    guard == getpid() || kill(guard, None) == Err(Errno::ESRCH)
}

/// Whether this process was started by a guard, as its worker.
pub fn is_worker() -> bool {
    guard_pid().is_some_and(|guard| guard == getppid())
}

fn guard_pid() -> Option<Pid> {
    env::var(WORKER_ENV).ok()?.parse().ok().map(Pid::from_raw)
}

/// In a worker: says `stop` when its guard dies, and returns. In any other process: returns at once.
pub async fn watch_guard(stop: watch::Sender<bool>) {
    let Some(guard) = guard_pid() else { return };
    keep_lock_from_children();
    second::keep_from_children();
    let held = u32::try_from(guard.as_raw()).map_err(io::Error::other).and_then(PidFd::open);
    match held.and_then(|held| Ending::of(Arc::new(held))) {
        // Looked at after it was opened: a number that was given to somebody else meanwhile is not the parent's.
        Ok(ending) if guard == getppid() => ending.wait().await,
        Ok(_) => {}
        Err(error) => tracing::debug!("the guard cannot be watched: {error}"),
    }
    tracing::error!("the guard is gone: the worker leaves");
    stop.send_replace(true);
}

/// What the worker starts must not hold the lock longer than the worker lives.
#[expect(unsafe_code, reason = "the descriptor comes as a number through the environment")]
fn keep_lock_from_children() {
    let Some(fd) = env::var(LOCK_ENV).ok().and_then(|fd| fd.parse::<RawFd>().ok()).filter(|fd| *fd > 2) else { return };
    // SAFETY: the number is only handed to the kernel, which refuses one that is not open.
    let lock = unsafe { BorrowedFd::borrow_raw(fd) };
    if let Err(error) = fcntl(lock, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        tracing::debug!("the lock given by the guard: {error}");
    }
}
