//! Starts redis from a thread that lives as long as the supervisor.
//!
//! `PR_SET_PDEATHSIG` follows the thread that forked, not the process: started from a thread of a pool, redis would be
//! killed whenever that thread ends. From this one it is killed exactly when its supervisor is gone, however that
//! happened.

use std::fs::{self, DirBuilder, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::account::Account;
use super::child;
use super::conf::{Conf, ConfError, Start};
use super::disk::Data;
use super::server::{self, Server, ServerError};
use super::users;
use crate::base::{Credentials, Secret};
use crate::cores::redis::fence::Setting;
use crate::runtime::pidfd::PidFd;

/// A server reads its configuration in no time; one that does not is none.
const READ_MAX: Duration = Duration::from_secs(5);
/// What earlier versions of vigie wrote at the head of a configuration in the state directory.
const OLD_HEAD: &[u8] = b"# Written by vigie";

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

/// To start one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// It is to refuse writes until its fence is opened. Said at each start: by the decision that holds then, the cluster is
    /// fenced or is not, whatever it was at the start before.
    pub(super) closed: bool,
}

/// A process that was started.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) held: PidFd,
    /// What it writes to its standard output and error.
    pub(super) log: PipeReader,
    pub(super) start: Start,
    /// Which secrets it was given.
    pub(super) secrets: u64,
    /// What its operator wants of replicas in sync while it takes writes, by the files that it was started with.
    pub(super) setting: Setting,
}

/// The secrets that are valid now, and how often they have changed.
pub(super) type Numbered = (u64, Arc<Credentials>);

/// How to start it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) server: String,
    pub(super) conf: Conf,
    pub(super) state_dir: PathBuf,
    /// Whom it runs as; none: as this process.
    pub(super) account: Option<Account>,
    pub(super) secrets: watch::Receiver<Numbered>,
    /// What the supervisor logs in with.
    pub(super) local: watch::Sender<Secret>,
}

/// Starts the thread. Each order starts one process and calls `done` with it. The thread ends when the orders' sender
/// is dropped, and takes a process that still lives with it.
pub(super) fn start(
    plan: Plan,
    done: impl Fn(Result<Spawned, SpawnError>) + Send + 'static,
) -> io::Result<mpsc::Sender<Order>> {
    let (orders, received) = mpsc::channel();
    let thread = std::thread::Builder::new().name("redis-keeper".to_owned()).stack_size(256 * 1024);
    thread.spawn(move || {
        // Asked before it is needed: the first order comes when a record is on disk. What goes wrong is told at the order.
        let mut server = server::check(&plan.server, plan.account.as_ref()).ok();
        while let Ok(order) = received.recv() {
            done(spawn(&plan, order, &mut server));
        }
    })?;
    Ok(orders)
}

/// The program is asked for its version once: a restart after a crash must not wait for it.
fn spawn(plan: &Plan, Order { closed }: Order, server: &mut Option<Server>) -> Result<Spawned, SpawnError> {
    let known = match server.take() {
        Some(known) => known,
        None => server::check(&plan.server, plan.account.as_ref())?,
    };
    if closed {
        known.fenceable(&plan.server)?;
    }
    let includes = plan.conf.includes()?;
    let (data, start) = open_data(plan)?;
    let local = users::password().map_err(ConfError::Random)?;
    let (secrets, credentials) = plan.secrets.borrow().clone();
    let text = plan.conf.text(known.version, start, closed, &includes, &credentials, &local);
    plan.local.send_replace(local);
    let spawned = exec(plan, &known.program, &data, &text)
        .map_err(|source| SpawnError::System { server: plan.server.clone(), source });
    *server = spawned.is_ok().then_some(known);
    let (child, held, log) = spawned?;
    Ok(Spawned { child, held, log, start, secrets, setting: includes.setting })
}

/// The data directory, made, judged, and that of the user that redis runs as.
fn open_data(plan: &Plan) -> Result<(Data, Start), ConfError> {
    for directory in [&plan.state_dir, &plan.conf.data_dir] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| ConfError::Write { path: directory.clone(), source })?;
    }
    let path = || plan.conf.data_dir.clone();
    remove_old(&plan.state_dir.join("redis.conf"))?;
    let data = Data::open(&plan.conf.data_dir, plan.account.as_ref())
        .map_err(|source| ConfError::Read { path: path(), source })?;
    if let Some(account) = &plan.account {
        if holds(&plan.conf.data_dir, &plan.state_dir) {
            return Err(ConfError::State { path: path() });
        }
        let user = account.name.clone();
        match data.hand_over(account).map_err(|source| ConfError::HandOver { path: path(), user, source })? {
            0 => {}
            count => tracing::info!("{}: now belongs to {}, {count} files", plan.conf.data_dir.display(), account.name),
        }
    }
    let unreadable = |source| ConfError::Read { path: path(), source };
    let found = data.look().map_err(unreadable)?;
    for (path, zeros) in data.trim().map_err(unreadable)? {
        tracing::warn!("{}: took {zeros} bytes of zeros off its end, left by a power cut", path.display());
    }
    let start = plan.conf.start(found)?;
    Ok((data, start))
}

/// Whether `inner` is `outer` or below it. What cannot be resolved is not.
fn holds(outer: &Path, inner: &Path) -> bool {
    matches!((outer.canonicalize(), inner.canonicalize()), (Ok(outer), Ok(inner)) if inner.starts_with(&outer))
}

/// The configuration used to be a file here, with the password in it.
fn remove_old(path: &Path) -> Result<(), ConfError> {
    let mut head = [0; OLD_HEAD.len()];
    if File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == OLD_HEAD {
        fs::remove_file(path).map_err(|source| ConfError::Write { path: path.to_owned(), source })?;
    }
    Ok(())
}

fn exec(plan: &Plan, program: &Path, data: &Data, text: &[u8]) -> io::Result<(Child, PidFd, PipeReader)> {
    let (log, writer) = io::pipe()?;
    let (stdin, conf) = io::pipe()?;
    // Redis writes its log synchronously: with a full pipe it shall lose a line, not stop.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&conf, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut command = Command::new(program);
    // It reads its configuration from its standard input.
    command.arg("-").stdin(stdin).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    child::confine(&mut command, plan.account.as_ref(), Some(data.descriptor().try_clone()?));
    let mut child = command.spawn()?;
    // The command has the reading end, and this process must not: else nobody would see that redis has ended.
    drop(command);
    let held = PidFd::open(child.id()).and_then(|held| write_all(conf, text).map(|()| held));
    match held {
        Ok(held) => Ok((child, held, log)),
        Err(error) => {
            // Without the hold its death would not be seen, and without a configuration it is nothing.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Writes the whole configuration, and closes its end. One that ends before it has read all has said why in its log.
fn write_all(mut pipe: PipeWriter, mut text: &[u8]) -> io::Result<()> {
    let limit = Instant::now() + READ_MAX;
    while !text.is_empty() {
        match pipe.write(text) {
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = limit.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::other(format!("it has not read its configuration within {READ_MAX:?}")));
                }
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                // Whatever it says, the next try to write decides.
                let _ = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)], timeout);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
