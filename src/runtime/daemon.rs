//! How a process stands among others: in the background, with a file that names it, under a supervisor.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, raise};

use super::notify;
use crate::config::sentinel::Supervised;

/// Where a process in the background says its number if its file does not say where.
pub const PID_FILE: &str = "/var/run/redis.pid";

/// Who waits for the process to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervisor {
    /// Nobody.
    Nobody,
    /// systemd, or what speaks like it.
    Systemd,
    /// upstart.
    Upstart,
}

impl Supervisor {
    /// Who it is, by what was asked for and by what is in the environment; or why nobody can be told.
    pub fn find(asked: Supervised) -> Result<Self, &'static str> {
        let (systemd, upstart) = (env::var_os("NOTIFY_SOCKET").is_some(), env::var_os("UPSTART_JOB").is_some());
        match asked {
            Supervised::No => Ok(Self::Nobody),
            Supervised::Upstart | Supervised::Auto if upstart => Ok(Self::Upstart),
            Supervised::Systemd | Supervised::Auto if systemd => Ok(Self::Systemd),
            Supervised::Auto => Ok(Self::Nobody),
            Supervised::Upstart => Err("upstart supervision requested, but UPSTART_JOB not found!"),
            Supervised::Systemd => Err("systemd supervision requested, but NOTIFY_SOCKET not found!"),
        }
    }

    /// Tells it that the process is ready.
    pub fn ready(self) {
        match self {
            Self::Nobody => {}
            Self::Systemd => {
                notify::status("Ready to accept connections");
                notify::ready();
            }
            // upstart sees the stop, and lets the process go on.
            Self::Upstart => drop(raise(Signal::SIGSTOP)),
        }
    }

    /// Tells it that the process is about to end.
    pub fn stopping(self) {
        match self {
            Self::Systemd => notify::stopping(),
            Self::Nobody | Self::Upstart => {}
        }
    }
}

/// Goes to the background: a new session, nothing on standard input, output and error. The caller's process ends here,
/// its child returns. There must be no other thread: it would be gone.
pub fn daemonize() -> io::Result<()> {
    Ok(nix::unistd::daemon(true, false)?)
}

/// Lets no child of this process inherit what was inherited, but for standard input, output and error.
#[expect(unsafe_code, reason = "what was inherited is known by its number only")]
pub fn keep_descriptors_from_children() {
    let listed = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        // SAFETY: the number is only handed to the kernel, which refuses one that is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        // The one that listed the others is closed by now.
        let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
}

/// A file that holds the number of this process as long as it lives.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it. What a link leads to is left alone: the directory may be one that others can write.
    pub fn write(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
        writeln!(options.open(path)?, "{}", std::process::id())?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        tracing::info!("Removing the pid file.");
        // Somebody may have tidied up already.
        let _ = fs::remove_file(&self.0);
    }
}
