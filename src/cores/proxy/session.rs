//! One client, from its first request on: held until there is a master, then relayed to it, closed when that changes.
//!
//! ```text
//! Silent ──request──► Held ◄──► Dialing ──connected──► Relaying ──route moved──► Over
//!                      └───────────┴── hold_timeout: an error ──────────────────► Over
//! ```
//! A client that has not asked anything yet has no connection to the master, so that a switchover costs it nothing. Nothing
//! of a request has left this node before `Relaying`: until then it may be held, and dialled again, safely. From then on
//! its fate is unknown here, and it is never sent again.

use std::time::Duration;

use crate::base::Instant;
use crate::base::time::earliest;

/// After a failed connection to a master that stays the target, so long until the next try.
const DIAL_AGAIN: Duration = Duration::from_millis(100);

/// What a client beyond `max_clients` gets, in the words of Redis, before it is closed.
pub const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Only time has passed.
    Tick,
    /// The client's first bytes have arrived; they wait in its socket.
    Request,
    /// The write target has changed; whether there is one now.
    Moved(bool),
    /// The connection to the target stands, or why not.
    Dialed(Result<(), String>),
    /// The client has closed.
    Gone,
}

/// What is to be done now. A plain value: nothing here allocates on the way of a healthy session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for an input or the deadline.
    Wait,
    /// Connect to the target. A connection on its way elsewhere is obsolete.
    Dial,
    /// Move bytes both ways until one side closes or the target changes.
    Relay,
    /// Say this error to the client and close.
    Refuse(String),
    /// Close both sides at once.
    Close,
}

/// The decisions of one client's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    hold_timeout: Duration,
    /// Whether there is a write target.
    target: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Silent,
    /// `dial_at`: when to try the present target again; none: there is no target.
    Held {
        since: Instant,
        dial_at: Option<Instant>,
        /// Why the last connection failed.
        fault: Option<String>,
    },
    Dialing {
        since: Instant,
    },
    Relaying,
    Over,
}

impl Session {
    /// A client that has just been accepted. `target`: whether there is a write target now.
    pub fn new(hold_timeout: Duration, target: bool) -> Self {
        Self { hold_timeout, target, state: State::Silent }
    }

    /// Takes in one fact. `now` never goes back.
    pub fn handle(&mut self, now: Instant, input: Input) -> Step {
        if let Input::Moved(target) = input {
            self.target = target;
        }
        let state = std::mem::replace(&mut self.state, State::Over);
        let (next, step) = match state {
            State::Silent => match input {
                Input::Request => self.proceed(now),
                Input::Gone => (State::Over, Step::Close),
                Input::Tick | Input::Moved(_) | Input::Dialed(_) => (State::Silent, Step::Wait),
            },
            State::Held { since, dial_at, fault } => match input {
                Input::Moved(true) => (State::Dialing { since }, Step::Dial),
                Input::Moved(false) => self.hold(now, since, None, fault),
                Input::Gone => (State::Over, Step::Close),
                Input::Tick if dial_at.is_some_and(|at| at <= now) => (State::Dialing { since }, Step::Dial),
                Input::Tick | Input::Request | Input::Dialed(_) => self.hold(now, since, dial_at, fault),
            },
            State::Dialing { since } => match input {
                Input::Dialed(Ok(())) => (State::Relaying, Step::Relay),
                Input::Dialed(Err(fault)) => self.hold(now, since, Some(now + DIAL_AGAIN), Some(fault)),
                Input::Moved(true) => (State::Dialing { since }, Step::Dial),
                Input::Moved(false) => self.hold(now, since, None, None),
                Input::Gone => (State::Over, Step::Close),
                Input::Tick | Input::Request => (State::Dialing { since }, Step::Wait),
            },
            State::Relaying => match input {
                Input::Moved(_) | Input::Gone => (State::Over, Step::Close),
                Input::Tick | Input::Request | Input::Dialed(_) => (State::Relaying, Step::Wait),
            },
            State::Over => (State::Over, Step::Close),
        };
        self.state = next;
        step
    }

    /// When to feed [`Input::Tick`] if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Held { since, dial_at, .. } => earliest(Some(*since + self.hold_timeout), *dial_at),
            State::Silent | State::Dialing { .. } | State::Relaying | State::Over => None,
        }
    }

    fn proceed(&self, now: Instant) -> (State, Step) {
        if self.target { (State::Dialing { since: now }, Step::Dial) } else { self.hold(now, now, None, None) }
    }

    /// Waits on, or gives up if the client has waited for long enough.
    fn hold(&self, now: Instant, since: Instant, dial_at: Option<Instant>, fault: Option<String>) -> (State, Step) {
        if now.since(since) < self.hold_timeout {
            return (State::Held { since, dial_at, fault }, Step::Wait);
        }
        let why = fault.filter(|_| self.target).unwrap_or_else(|| "there is no master".to_owned());
        let waited = now.since(since).as_millis();
        (State::Over, Step::Refuse(format!("{why}; waited {waited} ms")))
    }
}

/// The error for a client that cannot be served, as RESP: which proxy says so, and why. `MASTERDOWN` is the code that
/// clients know for it.
pub fn refusal(node: &str, master: &str, why: &str) -> String {
    // A line end inside would start a second reply.
    let line = |text: &str| text.replace(['\r', '\n'], " ");
    format!("-MASTERDOWN proxy {} cannot reach the master of {}: {}\r\n", line(node), line(master), line(why))
}

#[cfg(test)]
mod tests;
