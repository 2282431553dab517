//! What becomes of a process between fork and exec: another user without rights, without descriptors, without words of ours.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_long, c_uint};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{fchdir, getpid, getppid};

use super::account::Account;
use crate::runtime::host;
use crate::runtime::rights::{self, done};

/// Enough for redis's own `maxclients` of 10,000 and its files.
const FILES_WANTED: u64 = 65_536;

/// Where programs are, if nobody says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where to look for programs.
pub(super) fn path() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| PATH.into())
}

/// Makes what `command` starts a process of `account` in `directory`, with nothing of this one: not its environment (the
/// service manager's socket, where things are), not its descriptors, not its rights, nor a way to get any. It is killed when the
/// thread that starts it ends. Without an account it stays who this process is.
#[expect(unsafe_code, reason = "what the child must do between fork and exec can be said in no other way")]
pub(super) fn confine(command: &mut Command, account: Option<&Account>, directory: Option<OwnedFd>) {
    command.env_clear().env("PATH", path()).env("LANG", "C");
    let ids = account.map(|account| (account.uid, account.gid));
    let parent = getpid();
    let in_child = move || {
        // A fork of redis copies page by page: with huge ones a write during a save costs 2 MiB instead of 4 KiB.
        // Kernels without huge pages refuse, and need it not.
        let _ = prctl::set_thp_disable(true);
        // Its files hold data.
        umask(Mode::from_bits_truncate(0o077));
        // Redis lowers its `maxclients` if it cannot have more.
        host::raise_file_limit(FILES_WANTED, false);
        rights::no_core()?;
        // Before it is another user: the way there need not be open to that one.
        if let Some(directory) = &directory {
            fchdir(directory)?;
        }
        if let Some((uid, gid)) = ids {
            become_user(uid, gid)?;
        }
        prctl::set_no_new_privs()?;
        // Only now: a change of the user takes the signal back.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was set; then nobody would send it.
        if getppid() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        close_the_rest_at_exec();
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(in_child) };
}

/// Gives up everything that `root` may do. By the calls of the kernel: those of the C library speak to other threads, which
/// there are none of after a fork.
#[expect(unsafe_code, reason = "nix has these calls only by way of the C library, or not at all")]
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (none, no_groups): (c_long, *const libc::gid_t) = (0, std::ptr::null());
    rights::bound_to(&[]);
    // SAFETY: the call takes integers and touches no memory of this process. A kernel without ambient capabilities has none.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, c_long::from(libc::PR_CAP_AMBIENT_CLEAR_ALL), none, none, none) };
    // SAFETY: the call takes integers, and a list of no elements.
    done(unsafe { libc::syscall(libc::SYS_setgroups, none, no_groups) })?;
    // SAFETY: the call takes integers and touches no memory of this process.
    done(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: the call takes integers and touches no memory of this process.
    done(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    // The change took all but the inheritable ones.
    rights::set_capabilities(&[[0; 3]; 2])
}

/// Every descriptor of this process is made to close at an exec. This is for one that was forgotten, or came from what
/// started vigie.
#[expect(unsafe_code, reason = "neither std nor nix has close_range")]
fn close_the_rest_at_exec() {
    const FIRST: c_uint = 3;
    // SAFETY: the call takes integers; it changes a flag and closes nothing.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done != 0 {
        // Kernels before 5.11: one by one, as far as redis itself would look.
        for descriptor in FIRST..1_024 {
            // SAFETY: the call sets a flag of a descriptor, or fails.
            unsafe { libc::fcntl(descriptor as RawFd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}
