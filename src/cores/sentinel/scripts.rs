//! Scripts of the operator: what is to be run, how often, and what becomes of it. Nothing is run here.
//!
//! ```text
//!              a place is free            exit 0, 2 and above; the last try
//!  Scheduled ───────────────► Running ──────────────────────────────────────► gone
//!      ▲      after a delay      │ exit 1, a signal
//!      └─────────────────────────┘
//! ```
//! Numbers, order and payloads are those of redis-sentinel.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Instant, time::earliest};
use crate::wire::resp::Reply;

use super::{Event, Place, Severity, Timers};

/// Scripts that wait or run; beyond it the oldest that waits is dropped.
pub const QUEUE_MAX: usize = 256;
/// Scripts that run at once.
pub const RUNNING_MAX: usize = 16;
/// Times that one script is run.
pub const RUNS_MAX: u32 = 10;
/// The signal by which a script that could not even be forked is reported.
const UNSTARTED: i32 = 99;

/// One script of the queue, over all its runs. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptId(pub u64);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code. A file that cannot be executed counts as 2.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// The system could not make a process, or lost sight of it.
    Unstarted,
}

/// What the runtime says of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It runs, as that process.
    Started(ScriptId, u32),
    /// It has ended. Said once per [`Request::Start`], also of one that never started.
    Ended(ScriptId, Exit),
}

/// What the runtime is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run a program; answered by [`Report::Started`] and [`Report::Ended`].
    Start {
        /// Its name.
        id: ScriptId,
        /// The path of the program, which is its name too, and its arguments.
        argv: Vec<String>,
    },
    /// Kill it, and whatever it has started.
    Kill(ScriptId),
}

/// Whose word the client reconfiguration script is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This sentinel leads the failover.
    Leader,
    /// It has heard of it.
    Observer,
}

/// How loud an event is, by stock's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the log only: it is not published.
    Debug,
    /// Published.
    Verbose,
    /// Published.
    Notice,
    /// Published, and told to the notification script of the master that it is about.
    Warning,
}

/// The level of an event of stock Sentinel; none: the event is vigie's own.
pub fn level(event: &str) -> Option<Level> {
    match event {
        "+script-child" | "-script-child" | "-cmd-link-reconnection" | "-pubsub-link-reconnection" => {
            Some(Level::Debug)
        }
        "+role-change" | "-role-change" => Some(Level::Verbose),
        "+slave"
        | "+sentinel"
        | "+sentinel-address-switch"
        | "+sentinel-address-update"
        | "+sentinel-invalid-addr"
        | "+reboot"
        | "+convert-to-slave"
        | "+fix-slave-config"
        | "+failover-state-send-slaveof-noone"
        | "+failover-state-wait-promotion"
        | "+slave-reconf-sent"
        | "+slave-reconf-inprog"
        | "+slave-reconf-done"
        | "+slave-reconf-sent-be"
        | "-slave-reconf-sent-timeout" => Some(Level::Notice),
        "+monitor"
        | "-monitor"
        | "+reset-master"
        | "+sdown"
        | "-sdown"
        | "+odown"
        | "-odown"
        | "+new-epoch"
        | "+try-failover"
        | "+vote-for-leader"
        | "+elected-leader"
        | "+failover-state-select-slave"
        | "+selected-slave"
        | "+promoted-slave"
        | "+failover-state-reconf-slaves"
        | "+failover-end"
        | "+failover-end-for-timeout"
        | "-failover-abort-not-elected"
        | "-failover-abort-no-good-slave"
        | "-failover-abort-slave-timeout"
        | "-failover-abort-master-timeout"
        | "+switch-master"
        | "+config-update-from"
        | "+set"
        | "+tilt"
        | "-tilt"
        | "-script-error"
        | "-script-timeout" => Some(Level::Warning),
        _ => None,
    }
}

/// What a notification script is given: `<event> <payload>`.
pub fn notification(path: &str, event: &str, payload: &str) -> Vec<String> {
    [path, event, payload].map(str::to_owned).to_vec()
}

/// What a client reconfiguration script is given: `<master> <role> start <from ip> <from port> <to ip> <to port>`. Stock
/// names the state `start` at every failover and knows no other.
pub fn client_reconfig(path: &str, master: &str, role: Role, from: &Place, to: &Place) -> Vec<String> {
    let role = match role {
        Role::Leader => "leader",
        Role::Observer => "observer",
    };
    let (from_port, to_port) = (from.port.to_string(), to.port.to_string());
    [path, master, role, "start", &from.host, &from_port, &to.host, &to_port].map(str::to_owned).to_vec()
}

/// One script of the queue.
#[derive(Clone, Debug)]
struct Job {
    id: ScriptId,
    argv: Vec<String>,
    /// Times that it was begun.
    runs: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be run as soon as there is a place, not before that time.
    Scheduled { not_before: Option<Instant> },
    /// Handed to the runtime; without a pid it has not said yet that it runs.
    Running { pid: Option<u32>, since: Instant, killed: bool },
    /// It has ended; what follows is decided at the next turn.
    Ended { pid: Option<u32>, exit: Exit, at: Instant },
}

impl State {
    fn has_place(self) -> bool {
        match self {
            Self::Scheduled { .. } => false,
            Self::Running { .. } | Self::Ended { .. } => true,
        }
    }
}

/// The queue, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    jobs: VecDeque<Job>,
    made: u64,
    /// What is to be said at the next turn.
    said: Vec<Event>,
}

impl Scripts {
    /// Puts a script into the queue, to be run at the next turn if there is a place. `argv` begins with its path; an empty
    /// one is nothing to run.
    pub fn schedule(&mut self, argv: Vec<String>) {
        if argv.is_empty() {
            return;
        }
        self.made += 1;
        let state = State::Scheduled { not_before: None };
        self.jobs.push_back(Job { id: ScriptId(self.made), argv, runs: 0, state });
        if self.jobs.len() > QUEUE_MAX
            && let Some(oldest) = self.jobs.iter().position(|job| !job.state.has_place())
            && let Some(job) = self.jobs.remove(oldest)
        {
            let text = format!("{QUEUE_MAX} scripts wait already, one is not run: {}", job.argv.join(" "));
            self.said.push(Event::new("script-dropped", Severity::Warn, text));
        }
    }

    /// Takes in what the runtime says. To be followed by a [`turn`](Self::turn).
    pub fn report(&mut self, report: Report, now: Instant) {
        match report {
            Report::Started(id, pid) => self.started(id, pid),
            Report::Ended(id, exit) => self.ended(id, exit, now),
        }
    }

    /// The script runs, as that process.
    pub fn started(&mut self, id: ScriptId, pid: u32) {
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else { return };
        if let State::Running { pid: known @ None, .. } = &mut job.state {
            *known = Some(pid);
            self.said.push(Event::new("+script-child", Severity::Info, pid.to_string()));
        }
    }

    /// The script has ended.
    pub fn ended(&mut self, id: ScriptId, exit: Exit, now: Instant) {
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else { return };
        if let State::Running { pid, .. } = job.state {
            job.state = State::Ended { pid, exit, at: now };
        }
    }

    /// Everything that follows from what is known and what time it is. Returns when to call again at the latest.
    pub fn turn(
        &mut self,
        now: Instant,
        timers: &Timers,
        requests: &mut Vec<Request>,
        events: &mut Vec<Event>,
    ) -> Option<Instant> {
        events.append(&mut self.said);
        self.jobs.retain_mut(|job| match job.state {
            State::Scheduled { .. } | State::Running { .. } => true,
            State::Ended { pid, exit, at } => job.survives(pid, exit, at, timers, events),
        });
        let mut wake = None;
        let mut running = self.running();
        for job in &mut self.jobs {
            match job.state {
                State::Running { killed: true, .. } | State::Ended { .. } => {}
                State::Running { since, .. } if now < since + timers.script_max_runtime => {
                    wake = earliest(wake, Some(since + timers.script_max_runtime));
                }
                State::Running { pid, since, .. } => {
                    job.state = State::Running { pid, since, killed: true };
                    let text = format!("{} {}", job.path(), pid.unwrap_or(0));
                    events.push(Event::new("-script-timeout", Severity::Warn, text));
                    requests.push(Request::Kill(job.id));
                }
                State::Scheduled { not_before: Some(due) } if now < due => wake = earliest(wake, Some(due)),
                // The end of one that runs is the next moment to look.
                State::Scheduled { .. } if running >= RUNNING_MAX => {}
                State::Scheduled { .. } => {
                    running += 1;
                    job.runs += 1;
                    job.state = State::Running { pid: None, since: now, killed: false };
                    wake = earliest(wake, Some(now + timers.script_max_runtime));
                    requests.push(Request::Start { id: job.id, argv: job.argv.clone() });
                }
            }
        }
        wake
    }

    /// `sentinel_running_scripts`
    pub fn running(&self) -> usize {
        self.jobs.iter().filter(|job| job.state.has_place()).count()
    }

    /// `sentinel_scripts_queue_length`: those that run among them.
    pub fn queue_length(&self) -> usize {
        self.jobs.len()
    }

    /// The answer to `SENTINEL PENDING-SCRIPTS`.
    pub fn pending(&self, now: Instant) -> Reply {
        Reply::Array(self.jobs.iter().map(|job| job.pending(now)).collect())
    }
}

impl Job {
    fn path(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// It has ended: whether it stays in the queue, to be run again.
    fn survives(
        &mut self,
        pid: Option<u32>,
        exit: Exit,
        at: Instant,
        timers: &Timers,
        events: &mut Vec<Event>,
    ) -> bool {
        let (code, signal) = match exit {
            Exit::Code(code) => (code, 0),
            Exit::Signal(signal) => (0, signal),
            Exit::Unstarted => (0, UNSTARTED),
        };
        if let Some(pid) = pid {
            events.push(Event::new("-script-child", Severity::Info, format!("{pid} {code} {signal}")));
        }
        let failed = (code, signal) != (0, 0);
        let again = (code == 1 || signal != 0) && self.runs < RUNS_MAX;
        // A process that cannot be made is said each time: it is not the script's fault, and a person must know.
        if failed && (!again || exit == Exit::Unstarted) {
            let text = format!("{} {signal} {code}", self.path());
            events.push(Event::new("-script-error", Severity::Warn, text));
        }
        let delay = timers.script_retry_delay.saturating_mul(1 << self.runs.saturating_sub(1).min(RUNS_MAX));
        self.state = State::Scheduled { not_before: Some(at + delay) };
        again
    }

    fn pending(&self, now: Instant) -> Reply {
        let text = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        let (flags, pid, time, millis) = match self.state {
            State::Scheduled { not_before } => {
                ("scheduled", None, "run-delay", not_before.map_or(Duration::ZERO, |at| at.since(now)))
            }
            State::Running { pid, since, .. } => ("running", pid, "run-time", now.since(since)),
            // It is over within this very turn.
            State::Ended { pid, at, .. } => ("running", pid, "run-time", now.since(at)),
        };
        let argv = Reply::Array(self.argv.iter().map(|arg| text(arg)).collect());
        Reply::map([
            ("argv", argv),
            ("flags", text(flags)),
            ("pid", text(&pid.unwrap_or(0).to_string())),
            (time, text(&millis.as_millis().to_string())),
            ("retry-num", text(&self.runs.to_string())),
        ])
    }
}

#[cfg(test)]
mod tests;
