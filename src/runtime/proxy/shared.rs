//! What the control plane and the threads of the data path have in common.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::pool::Pool;
use crate::base::{Credentials, NodeName};
use crate::config;
use crate::runtime::crowd::{Crowd, LEAVING_MAX};
use crate::runtime::host;
use crate::runtime::journal::{Journal, Level};
use crate::runtime::peers::Presence;

/// File descriptors beside those of clients and their connections to the master: of the rest of the process, and of clients
/// that have given way to others and are not gone yet.
const FILES_RESERVED: u64 = 256 + LEAVING_MAX as u64;
/// A client that has said nothing for this time is closed. Only until its first byte: a session may be idle for ever.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a proxy is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `[proxy]` of the file.
    pub config: config::Proxy,
    /// The virtual addresses with the proxy's port.
    pub listen: Vec<SocketAddr>,
    /// The name of the master among the sentinels' (`cluster.name`).
    pub master_name: String,
    /// The redis of the cluster file.
    pub masters: Vec<SocketAddr>,
    /// What the checks log in with; clients bring their own password.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// Asked before a node is told a password.
    pub presence: Option<Presence>,
    /// This node, as errors to clients name it.
    pub node: NodeName,
    /// Counted while the proxy runs, for whoever wants to show it.
    pub counters: Arc<Counters>,
}

/// Running totals of the data path.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) clients: AtomicU32,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

/// The totals at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Clients connected now.
    pub clients: u32,
    /// Clients accepted since the start.
    pub accepted: u64,
    /// Clients that got an error of the proxy's own: no master in time, or one client too many.
    pub refused: u64,
    /// Sessions closed because the write target changed.
    pub cut: u64,
    /// Clients closed before they had said anything: for their silence, or to make room for others.
    pub silent: u64,
    /// Bytes from clients to masters.
    pub bytes_in: u64,
    /// Bytes from masters to clients.
    pub bytes_out: u64,
}

impl Counters {
    /// Reads all of them; each is exact, their relation is not.
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            clients: self.clients.load(Ordering::Relaxed),
            accepted: load(&self.accepted),
            refused: load(&self.refused),
            cut: load(&self.cut),
            silent: load(&self.silent),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
        }
    }
}

/// Where sessions go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// Grows with every switch: a session of another generation is to end.
    pub(super) generation: u64,
    pub(super) address: Option<SocketAddr>,
}

/// What the control plane and the workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) setup: Setup,
    /// Clients at once: what the file says, or less if the system has not enough descriptors.
    pub(super) clients_max: u32,
    /// Those of them that have said nothing yet.
    pub(super) crowd: Arc<Crowd>,
    /// Written before `target`, so that no session forwards another byte from that moment on.
    generation: AtomicU64,
    pub(super) target: watch::Sender<Target>,
    /// A session could not reach the target.
    pub(super) suspect: Notify,
    pub(super) journal: Journal,
}

impl Shared {
    pub(super) fn new(setup: Setup, journal: Journal) -> Self {
        let clients_max = clients_max(setup.config.max_clients, &journal);
        let target = watch::Sender::new(Target { generation: 0, address: None });
        let crowd = Crowd::new(usize::try_from(clients_max).unwrap_or(usize::MAX), SILENCE_MAX);
        Self { setup, clients_max, crowd, generation: AtomicU64::new(0), target, suspect: Notify::new(), journal }
    }

    pub(super) fn switch(&self, address: Option<SocketAddr>) {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.target.send_replace(Target { generation, address });
    }

    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }
}

/// What the sessions of one thread share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Pool,
    /// Wakes all relays of this thread to look at the generation.
    pub(super) cut: Notify,
}

/// Every client needs two descriptors. Returns how many clients there are enough for, `wanted` at most: without a reserve,
/// clients would take the descriptors that checks need, and lose the route for everybody.
fn clients_max(wanted: u32, journal: &Journal) -> u32 {
    let limit = host::raise_file_limit(u64::from(wanted) * 2 + FILES_RESERVED, true);
    let served = u32::try_from(limit.saturating_sub(FILES_RESERVED) / 2).unwrap_or(wanted).clamp(1, wanted.max(1));
    if served < wanted {
        let text = format!("{limit} open files are allowed, enough for {served} clients; max_clients is {wanted}");
        journal.record("proxy", Level::Warn, "file-limit", text);
    }
    served
}
