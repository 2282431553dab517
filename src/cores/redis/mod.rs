//! The supervisor of one redis-server: keeps the process alive, tells the cluster what it is, and keeps its
//! replication in line with the cluster's decision. It never makes a master: that is the act of who was elected to it.
//!
//! ```text
//!            due                 spawned               first answer
//!  ┌──────┐ ─────▶ ┌──────────┐ ────────▶ ┌───────────────────────────────────────┐
//!  │ Down │        │ Spawning │           │ Up: Starting ▶ Loading ▶ Alive ◀▶ Busy │
//!  └──────┘ ◀───── └──────────┘           └───────────────────────────────────────┘
//!      ▲     failed                                  │ exited           │ stop
//!      └─────────────────────────────────────────────┘                  ▼
//!                                                            Stopping ──▶ Left
//! ```
//! A redis that no longer knows its supervisor is stopped, too, and goes from there to Down: it is started from its own
//! configuration again.
//!
//! Every start is a *closed* one: a replica of nobody, which refuses writers and replicas until told whom to follow.

mod ask;
pub mod fence;
mod gate;
mod info;
mod supervisor;

pub use ask::shut_out;
pub use info::Info;
pub use supervisor::Supervisor;

use std::fmt;
use std::net::SocketAddr;

use crate::base::Epoch;
use crate::base::lease::{Held, Writes};
use crate::base::node::{Decision, History, Mode, RedisFacts, RedisRole};

/// What a supervisor must know from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data nodes of the cluster. Whatever the cluster says, nobody else is followed.
    pub nodes: Vec<SocketAddr>,
    /// Where clients and replicas reach its redis.
    pub address: SocketAddr,
    /// Replica priority, 0–1000000; 0: never a master.
    pub priority: u32,
    /// Whether the file asks for leases: its redis rests closed then, whatever the cluster has decided yet.
    pub fencing: bool,
    /// A number that no other supervisor of this redis has, on whatever disk: see [`crate::base::node::incarnation`].
    pub life: u32,
}

/// What must survive a restart, kept beside the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The last incarnation that was, or was about to be, started.
    pub incarnation: u64,
    /// Where the data came from.
    pub history: Option<History>,
    /// Whether the last decision that was known was one of a fenced cluster; none: no decision was ever known.
    pub fenced: Option<bool>,
}

/// Why a redis that took writes refuses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// To make room for another master.
    Returned,
    /// Its lease was not renewed in time.
    Lapsed,
    /// It took them without a lease, and needs one from now on.
    NeedsLease,
}

/// Whom a leader wants as the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// In which epoch.
    pub epoch: Epoch,
    /// Which process.
    pub incarnation: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended itself, with this exit code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// The system could not say.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Unknown => f.write_str("ended in an unknown way"),
        }
    }
}

/// Matches an [`Answer`] to what was asked; never used twice.
pub type Token = u64;

/// What redis is asked over the supervisor's own connection. Asks are sent at once, also while earlier ones wait for
/// their answer, and carried out in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Whether it answers, and its replication state; with `identity` also who it is (`INFO server`).
    Probe {
        /// Whether to ask for run id and process id too.
        identity: bool,
    },
    /// To take the secrets that are valid now, and no others.
    Secrets,
    /// To begin its append-only file, from the data it has read.
    LogWrites,
    /// To replicate `master`.
    Follow {
        /// Whom.
        master: SocketAddr,
        /// It is a master now: its clients must be cut off in the same transaction, so that none of them goes on as if
        /// it still were.
        demote: bool,
    },
}

/// The answer to an [`Ask`]. There is no time limit on it: the machine itself judges silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a probe.
    Info(Box<Info>),
    /// It says that it is busy with a script.
    Busy,
    /// To an order: done.
    Done,
    /// It answered with an error.
    Refused(String),
    /// It does not know its own supervisor any more, or does not let it do its work.
    ShutOut(String),
    /// There was no connection, or it broke before the answer came.
    Unreachable(String),
}

/// What a supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Only time has passed.
    Tick,
    /// The record before a start is not on disk: the start was not tried.
    RecordFailed(String),
    /// The process runs.
    Spawned {
        /// Its process id.
        pid: u32,
        /// It reads a snapshot, and must be told to log its writes once it has.
        log_later: bool,
        /// The secrets that it was given, as [`Input::Secrets`] counts them.
        secrets: u64,
    },
    /// The process could not be started.
    SpawnFailed(String),
    /// The process is dead by the kernel's word.
    Exited(Exit),
    /// What the last process wrote to its log before it ended, if that explains why.
    LastWords(String),
    /// To an [`Ask`].
    Answer {
        /// Which.
        token: Token,
        /// What redis said.
        answer: Answer,
    },
    /// What the cluster says now.
    Cluster {
        /// The latest decision known; none: no node that knows one is heard.
        decision: Option<Decision>,
        /// The highest epoch in which a sentinel leads a failover at this moment.
        leading: Option<Epoch>,
        /// The process that the leader of the highest epoch wants as the master, and that epoch.
        named: Option<Named>,
        /// By what right its master takes writes; none: nobody knows for sure.
        mode: Option<Mode>,
    },
    /// The lease that it has, or had last.
    Lease(Option<Held>),
    /// Where its fence stands.
    Fence(fence::Status),
    /// The secrets have changed so often by now.
    Secrets(u64),
    /// End the process and leave.
    Stop,
}

/// What a supervisor wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Store it; what follows may only happen when it is on disk.
    Record(Durable),
    /// Store it some time soon; nothing depends on it.
    Remember(Durable),
    /// Start the process; `closed`: so that it refuses writes until its fence opens it.
    Spawn {
        /// Whether.
        closed: bool,
    },
    /// Ask it to end.
    Terminate,
    /// Kill it.
    Kill,
    /// Ask redis.
    Ask {
        /// Comes back with the answer.
        token: Token,
        /// What.
        ask: Ask,
    },
    /// Put the process that runs behind the fence, which closes it if it is open. If that fails it is killed: nothing else could
    /// close it.
    Enclose {
        /// Its incarnation.
        incarnation: u64,
    },
    /// Tell the fence to let redis take writes.
    Open {
        /// Names the order in [`fence::Status::answered`].
        order: u64,
        /// By what right.
        by: fence::By,
        /// The epoch of that.
        epoch: Epoch,
    },
    /// Tell the fence to have redis refuse writes.
    Close {
        /// As above.
        order: u64,
    },
    /// Tell the cluster.
    Post(RedisFacts),
    /// Tell it what redis does with writes.
    Writes(Writes),
    /// What keeps redis from its work, for a person; none: mended.
    Fault(Option<String>),
    /// Tell people.
    Publish(Event),
    /// The process is gone and so is the supervisor's work. Always the last output.
    Left,
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process was started.
    Started {
        /// Its process id.
        pid: u32,
        /// Counts the starts.
        incarnation: u64,
    },
    /// It could not be started.
    NotStarted(String),
    /// The process died without having been asked to.
    Died(Exit),
    /// The process ended as asked.
    Stopped(Exit),
    /// It did not end in time and is killed.
    Killed,
    /// It reads its data from disk.
    Loading,
    /// It answers.
    Answers,
    /// It does not answer, and is alive.
    Busy,
    /// It was told to follow the master of a decision.
    Follows(Decision),
    /// It did not carry out that order.
    NotFollowed(String),
    /// The cluster named a master that is none of its data nodes.
    Stranger(Decision),
    /// It no longer knows its supervisor: it is stopped and started again.
    ShutOut(String),
    /// It takes the secrets that are valid now.
    Secrets,
    /// It does not, as it was told to.
    NotSecrets(String),
    /// It logs its writes from now on.
    Logs,
    /// It does not, as it was told to.
    NotLogged(String),
    /// It takes writes, by the lease of that epoch.
    Opened(Epoch),
    /// It does not, as it was told to.
    NotOpened(String),
    /// It refuses writes from now on.
    Closed(Closing),
    /// It has not confirmed that it refuses writes, and is killed before its lease ends.
    Unconfirmed,
    /// Its role changed.
    Role {
        /// What it was.
        from: RedisRole,
        /// What it is.
        to: RedisRole,
    },
}

#[cfg(test)]
mod tests;
