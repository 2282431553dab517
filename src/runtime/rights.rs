//! What a process of vigie gives up at its start: to leave its memory on a disk, and every right of root that it has no use
//! for. An intruder has no more than that.

use std::io;

use libc::c_long;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Numbers of capabilities, as in `linux/capability.h`; the same ones as in `config/systemd/vigie.service`, and the one that
/// takes them from redis.
const KEPT: [u32; 13] = [
    0,  // CHOWN: data that are handed over to the user of redis
    1,  // DAC_OVERRIDE: a look at them
    3,  // FOWNER
    5,  // KILL: redis, of another user
    6,  // SETGID
    7,  // SETUID: to become that user
    8,  // SETPCAP
    10, // NET_BIND_SERVICE: ports below 1024
    12, // NET_ADMIN: addresses and routes
    13, // NET_RAW: VRRP, ARP
    14, // IPC_LOCK: locked memory
    23, // SYS_NICE: real-time priority
    24, // SYS_RESOURCE: limits of redis
];
/// More than any kernel has.
const CAPABILITIES: u32 = 64;
/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

/// Capabilities: effective, permitted, inheritable; of each the numbers below 32, then the others.
pub(super) type Sets = [[u32; 3]; 2];

/// No core is written of this process and what it starts, and nobody of the same user reads its memory: there are passwords in
/// it.
pub fn keep_memory() -> io::Result<()> {
    no_core()?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// No core is written, whatever becomes of this process. A limit of 1 and not of 0, which a program that takes cores from the
/// kernel by a pipe would not be kept from (core(5)).
pub(super) fn no_core() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    // Only root could raise a limit of 0.
    let limit = hard.min(1);
    Ok(setrlimit(Resource::RLIMIT_CORE, limit, limit)?)
}

/// Gives up all capabilities that `vigie run` has no use for, for this process and what it starts.
#[expect(unsafe_code, reason = "neither std nor nix has capabilities")]
pub fn keep_needed_capabilities() -> io::Result<()> {
    bound_to(&KEPT);
    let mut header: [u32; 2] = [VERSION, 0];
    let mut sets: Sets = [[0; 3]; 2];
    // SAFETY: both point to what the call reads and writes: a version with a process (0: this one), and two times three sets.
    done(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) })?;
    let kept = KEPT.iter().fold(0_u64, |kept, number| kept | 1 << number);
    for (half, sets) in [kept as u32, (kept >> 32) as u32].into_iter().zip(&mut sets) {
        sets.iter_mut().for_each(|set| *set &= half);
    }
    set_capabilities(&sets)
}

/// Gives up the way to all capabilities but `kept`, for this thread and what it starts. System calls and nothing else, also
/// between fork and exec.
#[expect(unsafe_code, reason = "nix has the bounding set only by way of the C library, or not at all")]
pub(super) fn bound_to(kept: &[u32]) {
    let none: c_long = 0;
    for capability in (0..CAPABILITIES).filter(|capability| !kept.contains(capability)) {
        // SAFETY: the call takes integers and touches no memory of this process.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, c_long::from(capability), none, none, none) };
        // The kernel has no more of them, or this process is not to drop any: then a service manager has done that, or the next
        // programs are run by a user that gains nothing by them.
        if dropped != 0 {
            break;
        }
    }
}

/// Makes these the capabilities of the calling thread. A system call and nothing else, also between fork and exec.
#[expect(unsafe_code, reason = "neither std nor nix has capabilities")]
pub(super) fn set_capabilities(sets: &Sets) -> io::Result<()> {
    let header: [u32; 2] = [VERSION, 0];
    // SAFETY: both point to what the call reads: a version with a process (0: this one), and two times three sets.
    done(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })
}

/// What a system call has come to.
pub(super) fn done(result: c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(Errno::last().into()) }
}
