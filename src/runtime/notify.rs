//! Words to the service manager (`sd_notify(3)`). Without one they go nowhere.
//!
//! The worker speaks, the guard is the unit's main process: the unit needs `Type=notify`, `NotifyAccess=all`, and
//! `KillMode=mixed`, so that only the guard is asked to end and ends the others in their order.

use std::env;
use std::time::Duration;

use nix::unistd::{getpid, getppid};
use sd_notify::NotifyState;

/// The node does its work.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The node reads its configuration again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("no monotonic clock: {error}"),
    }
}

/// The node leaves.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    // A line end would begin another assignment.
    let line = text.replace(['\n', '\r'], " ");
    send(&[NotifyState::Status(&line)]);
}

/// The node still lives.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] must be said: half of what the unit's `WatchdogSec=` allows. None: the unit has none.
pub fn watchdog_interval() -> Option<Duration> {
    let meant_for = env::var("WATCHDOG_PID").ok().and_then(|pid| pid.parse().ok());
    if meant_for.is_some_and(|pid: i32| pid != getpid().as_raw() && pid != getppid().as_raw()) {
        return None;
    }
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros / 2)).filter(|interval| !interval.is_zero())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager was not told: {error}");
    }
}
