//! The threads of VRRP come before all others of the host.

use std::io;

use super::clerk::Reports;
use crate::runtime::journal::Level;

/// SCHED_FIFO priorities: above the data path, below the kernel's own threads (50); the addresses follow the election.
pub(super) const ELECTION: libc::c_int = 40;
pub(super) const ADDRESSES: libc::c_int = 39;

/// Makes this thread real-time, so that load never delays an advert. Without the right to, it says so and goes on.
#[expect(unsafe_code, reason = "no safe binding of pthread_setschedparam exists; musl's sched_setscheduler is a stub")]
pub(super) fn raise(priority: libc::c_int, reports: &Reports) {
    // SAFETY: sched_param is plain numbers (musl has reserved ones besides the priority), for which zero is valid.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the thread is the calling one, and `parameters` outlives the call, which only reads it.
    let error = unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &raw const parameters) };
    if error != 0 {
        let error = io::Error::from_raw_os_error(error);
        let text = format!("not real-time: {error}; load on this host may delay adverts (CAP_SYS_NICE is needed)");
        reports.line(Level::Warn, "not-realtime", text);
    }
}
