//! The measuring client: writes at a steady pace, notes when each write was acknowledged, and reads all of them back.
//!
//! It behaves like an impatient application: several connections, one request at a time on each, short time-outs, and a
//! new connection at once after any failure. A write whose reply did not come has an unknown outcome and is not
//! repeated.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::hosts::{Lab, LabError, Network, system};
use crate::base::{Instant, Secret};
use crate::runtime::clock;
use crate::runtime::connection::{Connection, ConnectionError};
use crate::wire::resp::Reply;

/// A failed connection is tried again this long after its last try began.
const RETRY_EVERY: Duration = Duration::from_millis(5);
/// Keys per round trip when reading back.
const READ_BATCH: usize = 500;
/// Connections that fail while reading back are tried again for so long.
const READ_BACK_TIME: Duration = Duration::from_secs(20);

/// What to write, how fast, how patiently.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to write: the VIP.
    pub target: SocketAddr,
    /// The password of redis.
    pub password: Secret,
    /// First part of every key, so that runs do not mix.
    pub run: String,
    /// Connections, 1–1,000.
    pub connections: u16,
    /// Writes per second of all connections together; never exceeded, also not to catch up.
    pub rate: u32,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time to wait for a reply.
    pub reply_timeout: Duration,
}

impl Plan {
    /// Eight connections, 1,500 writes per second, 20 ms to connect, 250 ms for a reply.
    pub fn new(target: SocketAddr, password: Secret, run: impl Into<String>) -> Self {
        Self {
            target,
            password,
            run: run.into(),
            connections: 8,
            rate: 1_500,
            connect_timeout: Duration::from_millis(20),
            reply_timeout: Duration::from_millis(250),
        }
    }

    /// The key of a write, whose value is its number.
    fn key(&self, ack: &Ack) -> String {
        format!("{}:{}:{}", self.run, ack.connection, ack.number)
    }
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The connection that wrote, from 0.
    pub connection: u16,
    /// Its number on that connection, from 1; also its value.
    pub number: u32,
    /// When the request was sent.
    pub sent_at: Instant,
    /// When the reply was read.
    pub at: Instant,
}

/// What the client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged writes, in the order of their acknowledgements.
    pub acks: Vec<Ack>,
    /// Writes sent that ended in an error, a close or a time-out.
    pub errors: u64,
    /// Connections that could not be made or not authenticated.
    pub connect_errors: u64,
    /// How often each kind of failure was seen, of both sorts.
    pub kinds: BTreeMap<String, u64>,
}

impl Tally {
    /// How long nobody was served because of a fault at `fault`: the longest time between two consecutive
    /// acknowledgements, of whatever connections, that ends after it. None if there was no acknowledgement since.
    pub fn outage(&self, fault: Instant) -> Option<Duration> {
        longest_gap(self.acks.iter().map(|ack| ack.at), fault)
    }

    /// The longest time that any one connection waited between two of its acknowledgements, ending after `fault`.
    pub fn max_stall(&self, fault: Instant) -> Option<Duration> {
        let connections = self.acks.iter().map(|ack| ack.connection).max().map_or(0, |highest| highest + 1);
        let stall = |connection| {
            longest_gap(self.acks.iter().filter(|ack| ack.connection == connection).map(|ack| ack.at), fault)
        };
        (0..connections).filter_map(stall).max()
    }

    /// Whether writes have flowed without a gap of `gap` in all of the time from `from` to `to`, on every connection at
    /// least one.
    pub fn steady(&self, connections: u16, gap: Duration, from: Instant, to: Instant) -> bool {
        let start = self.acks.partition_point(|ack| ack.at < from);
        let during = &self.acks[start..];
        let mut last = from;
        let close = during.iter().all(|ack| {
            let near = ack.at.since(last) < gap;
            last = ack.at;
            near
        });
        let served = (0..connections).all(|connection| during.iter().any(|ack| ack.connection == connection));
        close && to.since(last) < gap && served
    }

    fn failed(&mut self, kind: String) {
        *self.kinds.entry(kind).or_default() += 1;
    }
}

/// The longest time between two consecutive instants that ends after `after`.
pub fn longest_gap(instants: impl Iterator<Item = Instant>, after: Instant) -> Option<Duration> {
    let mut last = None;
    let gaps = instants.filter_map(|at| {
        let gap = last.map(|last| at.since(last));
        last = Some(at);
        gap.filter(|_| at > after)
    });
    gaps.max()
}

/// A client at work.
#[derive(Debug)]
pub struct Client {
    plan: Plan,
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts writing from `host`.
    pub fn start(lab: &Lab, host: &str, plan: Plan) -> Result<Self, LabError> {
        let network = lab.network(host)?;
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, stopped) = watch::channel(false);
        let fault = || system(format!("start the client on {host}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fault())?;
        let (work, notes) = (plan.clone(), Arc::clone(&tally));
        let thread = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
            if let Err(error) = network.enter() {
                lock(&notes).failed(error.to_string());
                return;
            }
            runtime.block_on(async {
                let started = clock::now();
                let writers = (0..work.connections).map(|connection| {
                    let writer = Writer { plan: work.clone(), connection, tally: Arc::clone(&notes) };
                    tokio::spawn(writer.run(started, stopped.clone()))
                });
                for writer in writers.collect::<Vec<_>>() {
                    // One that panicked has stopped writing, which the numbers show.
                    let _ = writer.await;
                }
            });
        });
        Ok(Self { plan, tally, stop, thread: Some(thread.map_err(fault())?) })
    }

    /// What it writes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What it has seen so far. Writers wait while this is held.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// Waits until writes have flowed for `period` without a gap of 100 ms, beginning not before `since`. False: they
    /// have not within `limit`.
    pub fn wait_steady(&self, since: Instant, period: Duration, limit: Duration) -> bool {
        let deadline = clock::now() + limit;
        loop {
            let now = clock::now();
            let from = (now - period).max(since);
            if now.since(from) >= period
                && self.tally().steady(self.plan.connections, Duration::from_millis(100), from, now)
            {
                return true;
            }
            if now > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops writing; requests under way are waited for.
    pub fn stop(mut self) -> Tally {
        self.end();
        std::mem::take(&mut *self.tally())
    }

    fn end(&mut self) {
        // Without a receiver the writers have ended.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed, and its numbers are what they are.
            let _ = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection of the client.
struct Writer {
    plan: Plan,
    connection: u16,
    tally: Arc<Mutex<Tally>>,
}

impl Writer {
    async fn run(self, started: Instant, mut stop: watch::Receiver<bool>) {
        let connections = u32::from(self.plan.connections.max(1));
        let every = Duration::from_secs(1) * connections / self.plan.rate.max(1);
        // Each connection has its slots between those of the others.
        let first = started + every * u32::from(self.connection) / connections;
        let (mut slot, mut open, mut number) = (first, None, 0);
        loop {
            tokio::select! {
                () = clock::sleep_until(Some(slot)) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let now = clock::now();
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => match connect(&self.plan).await {
                    Ok(connection) => connection,
                    Err(kind) => {
                        let mut tally = lock(&self.tally);
                        tally.connect_errors += 1;
                        tally.failed(kind);
                        slot = now + RETRY_EVERY;
                        continue;
                    }
                },
            };
            number += 1;
            if self.write(&mut connection, number).await {
                open = Some(connection);
                let passed = clock::now().since(first).as_micros() / every.as_micros().max(1);
                slot = first + every * u32::try_from(passed).unwrap_or(u32::MAX).saturating_add(1);
            } else {
                slot = clock::now();
            }
        }
    }

    /// Writes once. False: the connection is of no more use.
    async fn write(&self, connection: &mut Connection, number: u32) -> bool {
        let sent_at = clock::now();
        let mut ack = Ack { connection: self.connection, number, sent_at, at: sent_at };
        let (key, value) = (self.plan.key(&ack), number.to_string());
        let reply = connection.ask(&["SET", key.as_str(), value.as_str()], self.plan.reply_timeout).await;
        ack.at = clock::now();
        let mut tally = lock(&self.tally);
        match reply {
            Ok(reply) if reply.is_ok() => {
                tally.acks.push(ack);
                return true;
            }
            Ok(reply) => tally.failed(refusal(&reply)),
            Err(error) => tally.failed(failure(&error, "reply")),
        }
        tally.errors += 1;
        false
    }
}

/// A connection that has authenticated, or the kind of its failure.
async fn connect(plan: &Plan) -> Result<Connection, String> {
    let opened = Connection::open(plan.target, plan.connect_timeout).await;
    let mut connection = opened.map_err(|error| failure(&error, "connect"))?;
    match connection.ask(&["AUTH", plan.password.reveal()], plan.reply_timeout).await {
        Ok(reply) if reply.is_ok() => Ok(connection),
        Ok(reply) => Err(refusal(&reply)),
        Err(error) => Err(failure(&error, "AUTH")),
    }
}

fn refusal(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) => text.clone(),
        Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => {
            format!("unexpected reply {reply:?}")
        }
    }
}

/// The kind of a failure, without what differs each time.
fn failure(error: &ConnectionError, step: &str) -> String {
    match error {
        ConnectionError::Timeout { .. } => format!("{step}: time-out"),
        ConnectionError::Io { source, .. } => format!("{step}: {}", source.kind()),
        ConnectionError::Malformed { source, .. } => format!("{step}: {source}"),
    }
}

/// Why the acknowledged writes could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The VIP did not answer for too long.
    #[error("acknowledged writes could not be read back within {READ_BACK_TIME:?}: {0}")]
    Unreadable(String),
}

/// Reads acknowledged writes back from where they were written to, and returns those that are missing or wrong. With
/// `remove` the found ones are deleted, so that data does not grow from run to run.
pub fn read_back(network: &Network, plan: &Plan, acks: &[Ack], remove: bool) -> Result<Vec<Ack>, ReadBackError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            network.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(system("read back"))?.block_on(read_all(plan, acks, remove))
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn read_all(plan: &Plan, acks: &[Ack], remove: bool) -> Result<Vec<Ack>, ReadBackError> {
    let deadline = clock::now() + READ_BACK_TIME;
    let (mut lost, mut open) = (Vec::new(), None);
    for batch in acks.chunks(READ_BATCH) {
        loop {
            let attempt = async {
                let mut connection = match open.take() {
                    Some(connection) => connection,
                    None => connect(plan).await?,
                };
                let missing = read_batch(plan, &mut connection, batch).await?;
                Ok::<_, String>((connection, missing))
            };
            match attempt.await {
                Ok((mut connection, missing)) => {
                    if remove {
                        let keys = batch.iter().map(|ack| plan.key(ack));
                        let command = ["UNLINK".to_owned()].into_iter().chain(keys).collect::<Vec<_>>();
                        // What is not deleted is only in the way.
                        let _ = connection.ask(&command, plan.reply_timeout).await;
                    }
                    lost.extend(missing);
                    open = Some(connection);
                    break;
                }
                Err(kind) if clock::now() > deadline => return Err(ReadBackError::Unreadable(kind)),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    Ok(lost)
}

/// One pipelined round trip. A reply that is an error is no proof that a write is lost: the whole batch is read again.
async fn read_batch(plan: &Plan, connection: &mut Connection, batch: &[Ack]) -> Result<Vec<Ack>, String> {
    let limit = Duration::from_secs(2);
    let exchange = async {
        for ack in batch {
            connection.commands.send(&["GET", &plan.key(ack)]).await.map_err(|error| failure(&error, "GET"))?;
        }
        let mut missing = Vec::new();
        for ack in batch {
            match connection.replies.next().await.map_err(|error| failure(&error, "GET"))? {
                Reply::Error(text) => return Err(text),
                reply if reply.text() == Some(ack.number.to_string().as_str()) => {}
                Reply::Simple(_)
                | Reply::Integer(_)
                | Reply::Bulk(_)
                | Reply::Null
                | Reply::Array(_)
                | Reply::Rich(_) => {
                    missing.push(*ack);
                }
            }
        }
        Ok(missing)
    };
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(format!("GET: nothing within {limit:?}")))
}

#[cfg(test)]
mod tests;
