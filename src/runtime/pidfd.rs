//! A hold on a process that cannot be mistaken for another one, and that the kernel marks readable when it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file descriptor of a process (`pidfd_open(2)`). Readable once the process has ended, also before it is waited for.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Takes hold of process `pid`. Only a parent that has not waited for it, or the process itself, can be sure whom
    /// it gets.
    #[expect(unsafe_code, reason = "neither std nor nix has pidfd_open")]
    pub fn open(pid: u32) -> io::Result<Self> {
        let flags: libc::c_uint = 0;
        // SAFETY: the call takes two integers and touches no memory of this process.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this descriptor, with close-on-exec set, and nobody else knows of it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal, to this process and never to a later one of the same number.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal, 0)
    }

    /// Kills the process and the group of the same number. If the kernel is older than 6.9, only the process: its number may
    /// be that of another group by then. Who waits for it cleans up behind it.
    pub fn kill_group(&self) -> io::Result<()> {
        // <linux/pidfd.h>
        const PROCESS_GROUP: libc::c_uint = 1 << 2;
        match self.send(Signal::SIGKILL, PROCESS_GROUP) {
            // Also if it leads no group.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ESRCH)) => {
                self.signal(Signal::SIGKILL)
            }
            done => done,
        }
    }

    /// Another descriptor of the same process.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Whether the process has ended.
    pub fn ended(&self) -> bool {
        poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
    }

    #[expect(unsafe_code, reason = "neither std nor nix has pidfd_send_signal")]
    fn send(&self, signal: Signal, flags: libc::c_uint) -> io::Result<()> {
        let none: *const libc::siginfo_t = std::ptr::null();
        let number = signal as libc::c_int;
        // SAFETY: the descriptor is open as long as `self`, and without a siginfo the kernel reads no memory.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, none, flags) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Waits for the end of a process inside a runtime of tokio.
#[derive(Debug)]
pub struct Ending(AsyncFd<Arc<PidFd>>);

impl Ending {
    /// Registers the process with the runtime this is called in.
    #[expect(unsafe_code, reason = "the safe constructors of AsyncFd are deprecated")]
    pub fn of(process: Arc<PidFd>) -> io::Result<Self> {
        // SAFETY: a PidFd owns its descriptor and names the same one as long as it lives, which the AsyncFd keeps it.
        let registered = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Returns once the process has ended. Cancel safe.
    pub async fn wait(&self) {
        // An error means that the runtime is shutting down, and with it whoever waits here.
        let _ = self.0.readable().await;
    }
}

impl From<OwnedFd> for PidFd {
    /// Of one that another process has handed over.
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use std::os::unix::process::CommandExt;

    use super::*;

    #[test]
    fn a_signal_reaches_the_process_and_its_end_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let held = PidFd::open(child.id()).unwrap();
        let ended = |limit: u16| {
            let mut fds = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(limit)).unwrap() == 1
        };
        assert!(!ended(0));
        held.signal(Signal::SIGKILL).unwrap();
        assert!(ended(10_000));
        child.wait().unwrap();
        assert_eq!(held.signal(Signal::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_group_is_killed_with_its_leader_and_one_that_leads_none_alone() {
        for group in [Some(0), None] {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped());
            if let Some(group) = group {
                command.process_group(group);
            }
            let mut child = command.spawn().unwrap();
            let held = PidFd::open(child.id()).unwrap();
            assert!(!held.ended());
            held.kill_group().unwrap();
            child.wait().unwrap();
            assert!(held.ended());
        }
    }
}
