//! Threads that come before all others of the host, so that load does not delay what other nodes wait for.

use std::fmt;
use std::io;

/// What such a thread is for. All of them come before the data path, and after the kernel's own threads (50).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The adverts of VRRP: late by some milliseconds, they move an address.
    Election,
    /// What the election wants of the addresses.
    Addresses,
    /// The peer link, which has more to do and more time for it.
    Link,
}

impl Rank {
    /// Of `SCHED_FIFO`.
    const fn priority(self) -> libc::c_int {
        match self {
            Self::Election => 40,
            Self::Addresses => 39,
            Self::Link => 38,
        }
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Election => "adverts",
            Self::Addresses => "changes of the virtual addresses",
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

/// Makes the calling thread real-time. Those that it starts afterwards are, too.
#[expect(unsafe_code, reason = "no safe binding of pthread_setschedparam exists; musl's sched_setscheduler is a stub")]
pub fn raise(rank: Rank) -> Result<(), NotRealtime> {
    // SAFETY: sched_param is plain numbers (musl has reserved ones besides the priority), for which zero is valid.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = rank.priority();
    // SAFETY: the thread is the calling one, and `parameters` outlives the call, which only reads it.
    let error = unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &raw const parameters) };
    if error == 0 { Ok(()) } else { Err(NotRealtime { rank, source: io::Error::from_raw_os_error(error) }) }
}
