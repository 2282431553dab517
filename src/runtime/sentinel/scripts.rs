//! Runs scripts: each in a task of its own, from start to end, so that one that hangs delays nobody.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};

use crate::cores::sentinel::scripts::{Exit, Report, Request, ScriptId};
use crate::runtime::guard::{LOCK_ENV, WORKER_ENV};

/// What stock exits with in place of a script that cannot be executed.
const NOT_EXECUTABLE: i32 = 2;

/// All scripts that run.
#[derive(Debug)]
pub struct Runner<I> {
    reports: mpsc::Sender<I>,
    kills: HashMap<ScriptId, oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl<I: From<Report> + Send + 'static> Runner<I> {
    /// Tells `reports` what becomes of each script.
    pub fn new(reports: mpsc::Sender<I>) -> Self {
        Self { reports, kills: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Carries out a request. Never waits.
    pub fn request(&mut self, request: Request) {
        match request {
            Request::Start { id, argv } => self.start(id, argv),
            Request::Kill(id) => {
                // One that has ended meanwhile is past killing.
                if let Some(kill) = self.kills.remove(&id) {
                    let _ = kill.send(());
                }
            }
        }
    }

    fn start(&mut self, id: ScriptId, argv: Vec<String>) {
        // Tasks that have ended by themselves are forgotten here, so that neither set grows.
        while self.tasks.try_join_next().is_some() {}
        self.kills.retain(|_, kill| !kill.is_closed());
        let (kill, killed) = oneshot::channel();
        self.kills.insert(id, kill);
        self.tasks.spawn(run(id, argv, killed, self.reports.clone()));
    }
}

/// One run, from its start to its end.
async fn run<I: From<Report>>(
    id: ScriptId,
    argv: Vec<String>,
    killed: oneshot::Receiver<()>,
    reports: mpsc::Sender<I>,
) {
    // The file may lie where execve(2) hangs.
    let exit = match spawn_blocking(move || spawn(&argv)).await {
        Ok(Ok(child)) => {
            if let Some(pid) = child.id()
                && reports.send(Report::Started(id, pid).into()).await.is_err()
            {
                return;
            }
            end(child, killed).await
        }
        Ok(Err(error)) => unstarted(&error),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    // At the end of the process nobody listens.
    let _ = reports.send(Report::Ended(id, exit).into()).await;
}

/// Waits for the end; on the way it kills the script and all of its process group if it is told to.
async fn end(mut child: Child, killed: oneshot::Receiver<()>) -> Exit {
    tokio::select! {
        biased;
        ended = child.wait() => return ended.map_or(Exit::Unstarted, exit_of),
        // Who drops the sender leaves the script to itself.
        told = killed => if told.is_err() { return child.wait().await.map_or(Exit::Unstarted, exit_of) },
    }
    // Not waited for yet: its number, and that of its group, cannot be another's.
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
        && let Err(errno) = killpg(Pid::from_raw(pid), Signal::SIGKILL)
    {
        tracing::warn!("script {pid} cannot be killed: {errno}");
    }
    child.wait().await.map_or(Exit::Unstarted, exit_of)
}

/// Starts it with this process' environment, directory, output and errors. Nothing to read, since a process of the
/// background that reads from a terminal is stopped; a group of its own, since what it starts must be killed with it. The
/// standard library empties the signal mask, and every descriptor of this process but 0 to 2 closes by itself.
fn spawn(argv: &[String]) -> io::Result<Child> {
    let (path, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    // A name without a slash would be searched in $PATH; stock runs the file of the directory.
    let program = if path.contains('/') { PathBuf::from(path) } else { Path::new(".").join(path) };
    let mut command = Command::new(program);
    command.arg0(path).args(args).stdin(Stdio::null()).process_group(0);
    // These would make a worker of a vigie that the script starts.
    command.env_remove(WORKER_ENV).env_remove(LOCK_ENV);
    command.spawn()
}

/// Of a script that did not run: whether another try could help.
fn unstarted(error: &io::Error) -> Exit {
    // Busy: somebody writes the file right now.
    let passing =
        [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ETXTBSY].map(|errno| errno as i32);
    if error.raw_os_error().is_some_and(|errno| passing.contains(&errno)) {
        Exit::Unstarted
    } else {
        Exit::Code(NOT_EXECUTABLE)
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unstarted,
    }
}

#[cfg(test)]
mod tests;
