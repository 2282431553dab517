//! Starts redis from a thread that lives as long as the supervisor.
//!
//! `PR_SET_PDEATHSIG` follows the thread that forked, not the process: started from a thread of a pool, redis would be
//! killed whenever that thread ends. From this one it is killed exactly when its supervisor is gone, however that
//! happened.

use std::fs::DirBuilder;
use std::io::{self, PipeReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getpid, getppid};

use super::conf::{Conf, ConfError, Start};
use super::disk;
use super::server::{self, ServerError, Version};
use crate::runtime::pidfd::PidFd;
use crate::runtime::store;

/// Enough for redis's own `maxclients` of 10,000 and its files.
const FILES_WANTED: u64 = 65_536;
/// The mode of its configuration, which holds the password.
const CONF_MODE: u32 = 0o600;

/// Why redis was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No usable program.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// No usable configuration.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// The system refused.
    #[error("cannot start {server:?}: {source}")]
    System {
        /// As configured.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that starts it is gone.
    #[error("the thread that starts redis could not be started or has ended")]
    Thread,
}

/// A process that was started.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) held: PidFd,
    /// What it writes to its standard output and error.
    pub(super) log: PipeReader,
    pub(super) start: Start,
}

/// How to start it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) server: String,
    pub(super) conf: Conf,
    pub(super) state_dir: PathBuf,
}

/// Starts the thread. Each order starts one process and calls `done` with it. The thread ends when the orders' sender
/// is dropped, and takes a process that still lives with it.
pub(super) fn start(
    plan: Plan,
    done: impl Fn(Result<Spawned, SpawnError>) + Send + 'static,
) -> io::Result<mpsc::Sender<()>> {
    let (orders, received) = mpsc::channel();
    let thread = std::thread::Builder::new().name("redis-keeper".to_owned()).stack_size(256 * 1024);
    thread.spawn(move || {
        // Asked before it is needed: the first order comes when a record is on disk. What goes wrong is told at the order.
        let mut version = server::check(&plan.server).ok();
        while received.recv().is_ok() {
            done(spawn(&plan, &mut version));
        }
    })?;
    Ok(orders)
}

/// The program is asked for its version once: a restart after a crash must not wait for it.
fn spawn(plan: &Plan, version: &mut Option<Version>) -> Result<Spawned, SpawnError> {
    let known = match *version {
        Some(known) => known,
        None => server::check(&plan.server)?,
    };
    plan.conf.check()?;
    let (path, start) = write(plan, &known)?;
    let spawned = exec(plan, &path, start).map_err(|source| SpawnError::System { server: plan.server.clone(), source });
    *version = spawned.is_ok().then_some(known);
    spawned
}

fn write(plan: &Plan, version: &Version) -> Result<(PathBuf, Start), ConfError> {
    for directory in [&plan.state_dir, &plan.conf.data_dir] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| ConfError::Write { path: directory.clone(), source })?;
    }
    let unreadable = |source| ConfError::Read { path: plan.conf.data_dir.clone(), source };
    let found = disk::look(&plan.conf.data_dir).map_err(unreadable)?;
    for (path, zeros) in disk::trim(&plan.conf.data_dir).map_err(unreadable)? {
        tracing::warn!("{}: took {zeros} bytes of zeros off its end, left by a power cut", path.display());
    }
    let start = plan.conf.start(found)?;
    let path = plan.state_dir.join("redis.conf");
    let text = plan.conf.text(version, start);
    // A disk takes its time to write the same again.
    let ours = |about: std::fs::Metadata| about.permissions().mode() & 0o777 == CONF_MODE;
    if std::fs::metadata(&path).is_ok_and(ours) && std::fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok((path, start));
    }
    match store::replace(&path, text.as_bytes(), CONF_MODE) {
        Ok(()) => Ok((path, start)),
        Err(source) => Err(ConfError::Write { path, source }),
    }
}

fn exec(plan: &Plan, conf: &Path, start: Start) -> io::Result<Spawned> {
    let (log, writer) = io::pipe()?;
    // Redis writes its log synchronously: with a full pipe it shall lose a line, not stop.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut command = Command::new(&plan.server);
    command.arg(conf).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    prepare(&mut command, getpid());
    let mut child = command.spawn()?;
    match PidFd::open(child.id()) {
        Ok(held) => Ok(Spawned { child, held, log, start }),
        Err(error) => {
            // Without the hold its death would not be seen.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

#[expect(unsafe_code, reason = "what the child must do between fork and exec can be said in no other way")]
fn prepare(command: &mut Command, parent: Pid) {
    let in_child = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was set; then nobody would send it.
        if getppid() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // A fork of redis copies page by page: with huge ones a write during a save costs 2 MiB instead of 4 KiB.
        // Kernels without huge pages refuse, and need it not.
        let _ = prctl::set_thp_disable(true);
        // Its files hold data, and its configuration, which it may rewrite, the password.
        umask(Mode::from_bits_truncate(0o077));
        // Redis lowers its `maxclients` if it cannot have more.
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(FILES_WANTED)), hard);
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(in_child) };
}
