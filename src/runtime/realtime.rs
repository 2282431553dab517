//! Threads that come before all others of the host, so that load does not delay what other nodes wait for.

use std::fmt;
use std::io;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// What such a thread is for. All of them come before the data path, and after the kernel's own threads (50).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The adverts of VRRP: late by some milliseconds, they move an address.
    Election,
    /// What the election wants of the addresses.
    Addresses,
    /// The fence of redis. It goes before the link, on which its renewals come: a flood there must not keep it from closing.
    Fence,
    /// The peer link, which has more to do and more time for it.
    Link,
}

impl Rank {
    /// Of `SCHED_FIFO`.
    const fn priority(self) -> libc::c_int {
        match self {
            Self::Election => 40,
            Self::Addresses => 39,
            Self::Fence => 38,
            Self::Link => 37,
        }
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Election => "adverts",
            Self::Addresses => "changes of the virtual addresses",
            Self::Fence => "the fence of redis",
            Self::Link => "the peer link",
        })
    }
}

/// The thread goes on at normal priority.
#[derive(Debug, thiserror::Error)]
#[error("not real-time: {source}; load on this host may delay {rank} (CAP_SYS_NICE is needed)")]
pub struct NotRealtime {
    rank: Rank,
    source: io::Error,
}

/// The memory of this process may go to a disk.
#[derive(Debug, thiserror::Error)]
#[error(
    "not locked in memory: {0}; a host that is short of memory may delay the fence of redis (CAP_IPC_LOCK is needed, or no \
     limit on locked memory)"
)]
pub struct NotLocked(Errno);

/// Keeps in memory what this process has in memory now, and what it comes to have of its mappings of now: the program, the
/// stacks, the heap. It takes no more memory for that, and what is mapped later stays free to go, the buffers of clients too.
///
/// To lock only what one thread touches would leave out the program itself, whose pages go first when memory is short, and come
/// back from a disk that may hang.
pub fn lock_memory() -> Result<(), NotLocked> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(NotLocked)?;
    // Beyond a limit, a stack that is locked cannot grow: the process would die of it, some time later. So either there is none,
    // or it is zero for a moment: then the kernel lets only those lock anything for whom no limit holds.
    let limit = if hard == RLIM_INFINITY { hard } else { 0 };
    setrlimit(Resource::RLIMIT_MEMLOCK, limit, hard).map_err(NotLocked)?;
    let locked = mlockall(MlockAllFlags::MCL_CURRENT | on_fault);
    if limit == 0 {
        setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard).map_err(NotLocked)?;
    }
    locked.map_err(NotLocked)
}

/// Makes the calling thread real-time. Those that it starts afterwards are, too.
pub fn raise(rank: Rank) -> Result<(), NotRealtime> {
    schedule(rank, 0)
}

/// The same for what has no other thread, and starts processes that are not to be.
pub fn raise_alone(rank: Rank) -> Result<(), NotRealtime> {
    schedule(rank, libc::SCHED_RESET_ON_FORK)
}

#[expect(unsafe_code, reason = "neither std nor nix has sched_setscheduler, and that of musl is a stub")]
fn schedule(rank: Rank, flags: libc::c_int) -> Result<(), NotRealtime> {
    let this_thread: libc::pid_t = 0;
    // To the kernel it is nothing but the priority.
    let parameters: [libc::c_int; 1] = [rank.priority()];
    let policy = libc::SCHED_FIFO | flags;
    // SAFETY: `parameters` outlives the call, which only reads one integer of it.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, this_thread, policy, (&raw const parameters).cast::<libc::c_int>())
    };
    if result == 0 { Ok(()) } else { Err(NotRealtime { rank, source: io::Error::last_os_error() }) }
}
