//! A private world: own processes, network, mounts and host name, which vanish as one when its first process ends.
//!
//! ```text
//! caller ── keeper ──┤ init (process 1) ── world: what the caller wanted to run
//!                    │                     └─ whatever that starts
//!   outside          │ inside
//! ```
//! The keeper makes the namespaces, so that the caller stays where it was; init reaps orphans, so that the world's own
//! `wait` calls are its own. Each dies with its parent by the kernel's hand, and with init everything inside dies.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getegid, geteuid, getppid, pipe2};

use crate::runtime::exit::Exit;

/// The directory inside for files of every kind, in memory.
const SCRATCH: &str = "/run/lab";
/// The exit code of a world that could not be made or that panicked.
const FAULT: u8 = Exit::Internal.code();
/// What ends a private world if the caller gets it.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
/// Switches that keep ordinary users from making namespaces, and the value that allows it.
const SWITCHES: [(&str, &str); 3] = [
    ("kernel/unprivileged_userns_clone", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "0"),
    ("user/max_user_namespaces", "10000"),
];

/// Why there is no private world.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A fork would copy one thread and the locks of all.
    #[error("a private world can only be made by a process with one thread; this one has {0}")]
    Threads(usize),
    /// The kernel's rules forbid it.
    #[error("this machine does not allow user {uid} to make a private network ({step}: {errno}): {remedy}")]
    Forbidden {
        /// Who tried.
        uid: u32,
        /// What was refused.
        step: String,
        /// How.
        errno: Errno,
        /// What would allow it.
        remedy: String,
    },
    /// Anything else.
    #[error("cannot make a private world: {step}: {errno}")]
    System {
        /// What failed.
        step: String,
        /// How.
        errno: Errno,
    },
}

/// The world as seen from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its first process, as others on the machine see it: what to give to `nsenter -t`.
    pub outside_pid: i32,
    /// Whether an ordinary user made it, so that `nsenter` needs `-U` too.
    pub user_namespace: bool,
    /// A directory in memory that is gone with the world.
    pub scratch: PathBuf,
}

/// Runs `world` in a private world and waits until all of it is gone. Returns the exit code of `world`, or 128 + n
/// after signal n. SIGINT, SIGTERM, SIGHUP and SIGQUIT to the caller end the world. `world` runs in a process of its
/// own: what it changes in memory is not seen by the caller.
pub fn enter(world: impl FnOnce(&Sandbox) -> u8) -> Result<u8, SandboxError> {
    let system = |step: &str| {
        let step = step.to_owned();
        move |errno| SandboxError::System { step, errno }
    };
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(SandboxError::Threads(threads));
    }
    // What is buffered now would be written by every copy of this process.
    let flushed = io::stdout().flush().and_then(|()| io::stderr().flush());
    flushed.map_err(|error| system("flush output")(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    let (report, reporter) = pipe2(OFlag::O_CLOEXEC).map_err(system("pipe"))?;
    let mut waited: SigSet = ENDING.into_iter().collect();
    waited.add(Signal::SIGCHLD);
    let before = waited.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(system("block signals"))?;
    let caller = Pid::this();
    match fork().map_err(system("fork"))? {
        ForkResult::Child => {
            drop(report);
            std::process::exit(i32::from(keep(caller, reporter, &waited, &before, world)));
        }
        ForkResult::Parent { child } => {
            drop(reporter);
            let mut said = String::new();
            let heard = fs::File::from(report).read_to_string(&mut said);
            let code = watch(child, &waited, |signal| signal);
            before.thread_set_mask().map_err(system("restore signals"))?;
            match (heard, said.is_empty()) {
                (Ok(_), true) => Ok(code),
                (Ok(_), false) => Err(fault(&said)),
                (Err(error), _) => Err(system("read")(Errno::from_raw(error.raw_os_error().unwrap_or(0)))),
            }
        }
    }
}

/// A step of the making that failed, as the children report it: `errno step`.
fn fault(said: &str) -> SandboxError {
    let (number, step) = said.split_once(' ').unwrap_or(("0", said));
    let (errno, step) = (Errno::from_raw(number.parse().unwrap_or(0)), step.to_owned());
    if matches!(errno, Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::EUSERS) {
        let uid = geteuid().as_raw();
        return SandboxError::Forbidden { uid, step, errno, remedy: remedy(uid, Path::new("/proc/sys")) };
    }
    SandboxError::System { step, errno }
}

/// What a person can do about it: the switch of this machine that is in the way is named, if there is one.
fn remedy(uid: u32, root: &Path) -> String {
    let closed = |(name, open): &(&str, &str)| {
        let value = fs::read_to_string(root.join(name)).ok()?;
        let shut = if *open == "0" { value.trim() != "0" } else { value.trim() == "0" };
        shut.then(|| format!(", or allow it with `sysctl {}={open}`", name.replace('/', ".")))
    };
    // A root who may not is one in a container.
    let first = if uid == 0 { "start the container with --privileged" } else { "run it as root" };
    format!("{first}{}", SWITCHES.iter().find_map(closed).unwrap_or_default())
}

#[expect(unsafe_code, reason = "fork has no safe form")]
fn fork() -> nix::Result<ForkResult> {
    // SAFETY: `enter` has made sure that there is one thread, and the other callers are its single-threaded children,
    // so the child inherits no lock that a vanished thread holds.
    unsafe { nix::unistd::fork() }
}

/// The parent of process 1: makes the namespaces and hands on ends and exit codes.
fn keep(caller: Pid, reporter: OwnedFd, waited: &SigSet, before: &SigSet, world: impl FnOnce(&Sandbox) -> u8) -> u8 {
    let report = Reporter(fs::File::from(reporter));
    let made = die_with(caller).and_then(|()| {
        let user_namespace = detach()?;
        let lifeline = pipe2(OFlag::O_CLOEXEC).map_err(|errno| Failed("pipe", errno))?;
        Ok((user_namespace, lifeline, fork().map_err(|errno| Failed("fork", errno))?))
    });
    match made {
        Err(failed) => report.say(failed),
        Ok((user_namespace, (lifeline, keeper_end), ForkResult::Child)) => {
            drop(keeper_end);
            init(user_namespace, lifeline, report, before, world)
        }
        Ok((_, (lifeline, keeper_end), ForkResult::Parent { child })) => {
            drop((report, lifeline));
            let mut keeper_end = fs::File::from(keeper_end);
            // If init has gone already, its exit says so.
            let _ = keeper_end.write_all(&child.as_raw().to_ne_bytes());
            // Process 1 takes no other signal from outside, and needs none: its end is the end of everything inside.
            watch(child, waited, |_| Signal::SIGKILL)
        }
    }
}

/// One failed step of the making.
struct Failed(&'static str, Errno);

/// The way to tell the caller why there is no world. Closed without a word: there is one.
struct Reporter(fs::File);

impl Reporter {
    fn say(mut self, Failed(step, errno): Failed) -> u8 {
        // Nobody left to tell: the exit code says it too.
        let _ = write!(self.0, "{} {step}", errno as i32);
        FAULT
    }
}

/// From now on this process dies with its parent, which is `parent`.
fn die_with(parent: Pid) -> Result<(), Failed> {
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| Failed("prctl", errno))?;
    // It may have died just before.
    if getppid() == parent { Ok(()) } else { Err(Failed("parent", Errno::ESRCH)) }
}

/// Leaves the namespaces of the machine. Whether a user namespace was needed for that.
fn detach() -> Result<bool, Failed> {
    let spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    match unshare(spaces) {
        Ok(()) => return Ok(false),
        // Also for a root that has lost its capabilities, as in most containers.
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(Failed("unshare", errno)),
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(spaces | CloneFlags::CLONE_NEWUSER).map_err(|errno| Failed("unshare with a user namespace", errno))?;
    let maps = [
        // Without it the kernel refuses a group map of an ordinary user (user_namespaces(7)).
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    for (path, content) in maps {
        let written = fs::write(path, content);
        written.map_err(|error| Failed(path, Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    }
    Ok(true)
}

/// Process 1: mounts, starts the world, reaps until the world has ended.
fn init(
    user_namespace: bool,
    lifeline: OwnedFd,
    report: Reporter,
    before: &SigSet,
    world: impl FnOnce(&Sandbox) -> u8,
) -> u8 {
    let made = furnish(&lifeline).and_then(|pid| Ok((pid, fork().map_err(|errno| Failed("fork", errno))?)));
    match made {
        Err(failed) => report.say(failed),
        Ok((outside_pid, ForkResult::Child)) => {
            drop((report, lifeline));
            if before.thread_set_mask().is_err() {
                return FAULT;
            }
            let sandbox = Sandbox { outside_pid, user_namespace, scratch: PathBuf::from(SCRATCH) };
            // A panic must not unwind into the caller's copy of the stack.
            catch_unwind(AssertUnwindSafe(|| world(&sandbox))).unwrap_or(FAULT)
        }
        Ok((_, ForkResult::Parent { child })) => {
            drop(report);
            reap(child)
        }
    }
}

/// Fresh `/proc`, private `/run` and scratch directory. Returns the process id of process 1 as seen from outside.
fn furnish(lifeline: &OwnedFd) -> Result<i32, Failed> {
    let failed = |step| move |errno| Failed(step, errno);
    set_pdeathsig(Signal::SIGKILL).map_err(failed("prctl"))?;
    let mut pid = [0; 4];
    let mut polled = [PollFd::new(std::os::fd::AsFd::as_fd(lifeline), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::NONE).map_err(failed("poll"))?;
    // An end without the number: the keeper died before the kernel was told to end this process with it.
    if nix::unistd::read(lifeline, &mut pid).map_err(failed("read"))? != pid.len() {
        return Err(Failed("parent", Errno::ESRCH));
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("make mounts private"))?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("proc"), "/proc", Some("proc"), quiet | MsFlags::MS_NOEXEC, none).map_err(failed("mount /proc"))?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), quiet, Some("mode=755")).map_err(failed("mount /run"))?;
    for directory in [SCRATCH, "/run/netns"] {
        let made = fs::create_dir(directory);
        made.map_err(|error| Failed("mkdir in /run", Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    }
    Ok(i32::from_ne_bytes(pid))
}

/// Collects whoever ends, orphans too, until the world has.
fn reap(world: Pid) -> u8 {
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(status) if status.pid() == Some(world) => {
                if let Some(code) = ended(status) {
                    return code;
                }
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return FAULT,
        }
    }
}

/// Waits for the end of `child`; a signal that ends the world is handed on to it as `relay` says.
fn watch(child: Pid, waited: &SigSet, relay: impl Fn(Signal) -> Signal) -> u8 {
    let mut by_signal = None;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).map(ended) {
            Ok(Some(code)) => return by_signal.unwrap_or(code),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(_) => return FAULT,
        }
        match waited.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                by_signal = by_signal.or_else(|| u8::try_from(128 + signal as i32).ok());
                // It may have ended just now: the next turn sees that.
                let _ = kill(child, relay(signal));
            }
        }
    }
}

/// The exit code that stands for an end; none if the process goes on.
fn ended(status: WaitStatus) -> Option<u8> {
    match status {
        WaitStatus::Exited(_, code) => Some(u8::try_from(code & 0xff).unwrap_or(FAULT)),
        WaitStatus::Signaled(_, signal, _) => Some(u8::try_from(128 + signal as i32).unwrap_or(FAULT)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_switch_that_is_in_the_way() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(remedy(1_000, root.path()), "run it as root");
        assert_eq!(remedy(0, root.path()), "start the container with --privileged");
        fs::create_dir(root.path().join("kernel")).unwrap();
        fs::write(root.path().join("kernel/apparmor_restrict_unprivileged_userns"), "1\n").unwrap();
        assert!(remedy(1_000, root.path()).contains("`sysctl kernel.apparmor_restrict_unprivileged_userns=0`"));
        fs::write(root.path().join("kernel/unprivileged_userns_clone"), "0\n").unwrap();
        assert!(remedy(1_000, root.path()).contains("`sysctl kernel.unprivileged_userns_clone=1`"));
    }

    #[test]
    fn a_process_with_threads_is_refused() {
        // The test harness itself has several.
        assert!(matches!(enter(|_| 0), Err(SandboxError::Threads(_))));
    }
}
