//! Clients that do not care who is master: each writes on and on to one address, through a fault and after it, and notes what
//! became of every single write. A refusal counts and changes nothing; a connection that is cut is made again at once.
//!
//! They send at their pace whether or not replies come, so that a redis that stands still finds on waking what clients have
//! queued meanwhile. A write is a unique number appended to a list of its writer: what is left of all of them is read back by
//! a few commands, and who acknowledged one is known from the redis behind the connection, which is asked for its directory
//! first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;
use vigie::base::{Instant, Secret};
use vigie::operate::lab::hosts::{HostSpec, Lab, signal};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::runtime::connection::{Commands, Connection, Replies};
use vigie::wire::resp::Reply;

use super::ledger::{Id, Write};
use super::whole::{DATA, ask, text, wait_ok};
use super::{Case, Outcome, wait_for};

/// Connections of each writer.
const CONNECTIONS: u16 = 2;
/// A failed connection is tried again so long after its last try.
const RETRY_EVERY: Duration = Duration::from_millis(5);
/// Longest time to connect.
const CONNECT_TIME: Duration = Duration::from_millis(20);
/// Who is so late with its next write leaves out what it has missed: a pause of a writer is no burst afterwards.
const BEHIND_MAX: Duration = Duration::from_millis(20);
/// Writes without a reply on one connection: more than any freeze of these cases brings, and few enough for the kernel's buffers.
const WAITING_MAX: usize = 4_000;
/// Numbers that are read back at once.
const READ_BATCH: i64 = 5_000;
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Writes flow if there was an acknowledgement in each of the last parts of this length.
const STEADY_PART: Duration = Duration::from_millis(200);
const STEADY_PARTS: u32 = 5;

pub(crate) const CASES: &[Case] =
    &[Case { name: "writers_see_what_a_redis_does", needs: &["redis-server"], run: plain_redis }];

/// A writer to be.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// For people, and part of its list's name.
    pub(crate) name: String,
    /// Where it runs.
    pub(crate) host: String,
    pub(crate) target: SocketAddr,
    /// Writes a second, of its connections together.
    pub(crate) rate: u32,
    /// A connection is given up if a reply takes longer.
    pub(crate) patience: Duration,
}

/// What is noted of a writer.
#[derive(Debug, Default)]
struct Notes {
    writes: Vec<Write>,
    /// How often it was refused or cut, by reason.
    failures: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Writer {
    spec: Spec,
    notes: Arc<Mutex<Notes>>,
    thread: Option<JoinHandle<()>>,
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Writers {
    run: String,
    writers: Vec<Writer>,
    stop: watch::Sender<bool>,
}

/// What all of them have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// In no particular order.
    pub(crate) writes: Vec<Write>,
    /// The names of the writers, by their numbers.
    names: Vec<String>,
    /// By writer and reason.
    pub(crate) failures: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Writers {
    /// Starts them; `run` parts what they write from that of others.
    pub(crate) fn start(lab: &Lab, password: &Secret, run: &str, specs: Vec<Spec>) -> Result<Self, String> {
        let (stop, stopped) = watch::channel(false);
        let mut all = Self { run: run.to_owned(), writers: Vec::new(), stop };
        for (place, spec) in specs.into_iter().enumerate() {
            let network = lab.network(&spec.host).map_err(text)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            let notes = Arc::new(Mutex::new(Notes::default()));
            let task = Task {
                place: u16::try_from(place).map_err(text)?,
                list: list(run, &spec),
                spec: spec.clone(),
                password: password.clone(),
                last: Arc::new(AtomicU32::new(0)),
                notes: Arc::clone(&notes),
            };
            let stopped = stopped.clone();
            let work = move || {
                if let Err(error) = network.enter() {
                    return task.failed(text(error));
                }
                runtime.block_on(async {
                    let started = clock::now();
                    let connections = (0..CONNECTIONS).map(|at| {
                        tokio::spawn(task.clone().run(started + task.every() * u32::from(at) / 2, stopped.clone()))
                    });
                    for connection in connections.collect::<Vec<_>>() {
                        if connection.await.is_err() {
                            task.failed("panicked".to_owned());
                        }
                    }
                });
            };
            let thread = std::thread::Builder::new().name(spec.name.clone()).spawn(work).map_err(text)?;
            all.writers.push(Writer { spec, notes, thread: Some(thread) });
        }
        Ok(all)
    }

    /// Waits until those of these names are acknowledged steadily, beginning now.
    pub(crate) fn wait_steady(&self, names: &[&str], limit: Duration) -> Outcome {
        let since = clock::now();
        let flows = || {
            let now = clock::now();
            let from = now - STEADY_PART * STEADY_PARTS;
            if from < since {
                return Err("no time has passed".to_owned());
            }
            for writer in self.writers.iter().filter(|writer| names.contains(&writer.spec.name.as_str())) {
                let notes = lock(&writer.notes);
                let times = notes.writes.iter().rev().take_while(|write| write.sent_at + ANSWER_TIME > from);
                let times: Vec<_> = times.filter_map(|write| write.acked_at).collect();
                let served = |part: u32| {
                    let begin = from + STEADY_PART * part;
                    times.iter().any(|at| (begin..begin + STEADY_PART).contains(at))
                };
                if !(0..STEADY_PARTS).all(served) {
                    return Err(format!("{} does not write steadily: {:?}", writer.spec.name, notes.failures));
                }
            }
            Ok(())
        };
        wait_ok("writes do not flow", std::time::Instant::now(), limit, flows).map(drop)
    }

    /// Stops all of them, without waiting for what is under way, and returns what they have seen.
    pub(crate) fn stop(mut self) -> Seen {
        self.end();
        let mut seen = Seen::default();
        for writer in &self.writers {
            let notes = std::mem::take(&mut *lock(&writer.notes));
            seen.writes.extend(notes.writes);
            seen.names.push(writer.spec.name.clone());
            seen.failures.insert(writer.spec.name.clone(), notes.failures);
        }
        seen
    }

    fn end(&mut self) {
        // Without a receiver they have ended.
        let _ = self.stop.send(true);
        for thread in self.writers.iter_mut().filter_map(|writer| writer.thread.take()) {
            // Its panic has been printed, and its numbers are what they are.
            let _ = thread.join();
        }
    }

    /// The lists they write.
    pub(crate) fn lists(&self) -> Vec<String> {
        self.writers.iter().map(|writer| list(&self.run, &writer.spec)).collect()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Seen {
    /// When writes of these writers were acknowledged, in that order.
    pub(crate) fn acked(&self, names: &[&str]) -> Vec<Instant> {
        let by = |write: &&Write| {
            let name = self.names.get(usize::from(write.id.0));
            name.is_some_and(|name| names.contains(&name.as_str()))
        };
        let mut times: Vec<_> = self.writes.iter().filter(by).filter_map(|write| write.acked_at).collect();
        times.sort_unstable();
        times
    }
}

fn list(run: &str, spec: &Spec) -> String {
    format!("{run}:{}", spec.name)
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What each connection of a writer does.
#[derive(Clone)]
struct Task {
    /// The writer's number.
    place: u16,
    list: String,
    spec: Spec,
    password: Secret,
    /// The last number given to a write.
    last: Arc<AtomicU32>,
    notes: Arc<Mutex<Notes>>,
}

impl Task {
    fn every(&self) -> Duration {
        Duration::from_secs(1) * u32::from(CONNECTIONS) / self.spec.rate.max(1)
    }

    fn failed(&self, why: String) {
        *lock(&self.notes).failures.entry(why).or_default() += 1;
    }

    async fn run(self, mut slot: Instant, mut stop: watch::Receiver<bool>) {
        loop {
            let tried = clock::now();
            let why = tokio::select! {
                why = self.session(&mut slot) => why,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            self.failed(why);
            clock::sleep_until(Some(tried + RETRY_EVERY)).await;
        }
    }

    /// One connection, to its end. Returns why it ended.
    async fn session(&self, slot: &mut Instant) -> String {
        let opened = Connection::open(self.spec.target, CONNECT_TIME).await;
        let Ok(mut connection) = opened else { return "no connection".to_owned() };
        let node = match self.greet(&mut connection).await {
            Ok(node) => node,
            Err(why) => return why,
        };
        let Connection { mut commands, mut replies } = connection;
        // Where each write without a reply is noted, oldest first, and when it was sent.
        let mut waiting = VecDeque::new();
        loop {
            let overdue = waiting.front().map(|(_, sent_at)| *sent_at + self.spec.patience);
            let done = tokio::select! {
                biased;
                reply = replies.next() => match reply {
                    Ok(reply) => { self.note(waiting.pop_front(), &reply); Ok(()) }
                    Err(_) => Err("cut".to_owned()),
                },
                () = clock::sleep_until(overdue), if overdue.is_some() => Err("no reply".to_owned()),
                () = clock::sleep_until(Some(*slot)), if waiting.len() < WAITING_MAX => {
                    self.write(node, &mut commands, &mut replies, &mut waiting, slot).await
                }
            };
            if let Err(why) = done {
                return why;
            }
        }
    }

    /// Gives the password and asks who is there: each redis of the lab has a directory below one of the name of its node.
    async fn greet(&self, connection: &mut Connection) -> Result<&'static str, String> {
        let given = connection.ask(&["AUTH", self.password.reveal()], self.spec.patience).await;
        match given {
            Ok(reply) if reply.is_ok() => {}
            Ok(Reply::Error(why)) => return Err(kind(&why)),
            Ok(_) | Err(_) => return Err("no answer to AUTH".to_owned()),
        }
        let asked = connection.ask(&["CONFIG", "GET", "dir"], self.spec.patience).await;
        let reply = asked.map_err(|_| "no answer to CONFIG GET".to_owned())?;
        let directory = reply.array().and_then(|pair| pair.get(1)?.text()).unwrap_or_default();
        let names = |node: &&str| Path::new(directory).components().any(|part| part.as_os_str() == *node);
        DATA.into_iter().find(names).ok_or_else(|| format!("nobody's directory: {reply:?}"))
    }

    async fn write(
        &self,
        node: &'static str,
        commands: &mut Commands,
        replies: &mut Replies,
        waiting: &mut VecDeque<(usize, Instant)>,
        slot: &mut Instant,
    ) -> Result<(), String> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        commands.push(&["RPUSH", &self.list, &number.to_string()]);
        let sent_at = clock::now();
        *slot = (*slot + self.every()).max(sent_at - BEHIND_MAX);
        let at = {
            let mut notes = lock(&self.notes);
            notes.writes.push(Write { id: (self.place, number), node, sent_at, acked_at: None });
            notes.writes.len() - 1
        };
        waiting.push_back((at, sent_at));
        // The kernel takes nothing more from who is not read: replies that come meanwhile are read, or neither would go on.
        let flush = commands.flush();
        tokio::pin!(flush);
        let limit = clock::sleep_until(Some(sent_at + self.spec.patience));
        tokio::pin!(limit);
        loop {
            tokio::select! {
                biased;
                flushed = &mut flush => return flushed.map_err(|_| "cut".to_owned()),
                reply = replies.next() => match reply {
                    Ok(reply) => self.note(waiting.pop_front(), &reply),
                    Err(_) => return Err("cut".to_owned()),
                },
                () = &mut limit => return Err("no reply".to_owned()),
            }
        }
    }

    /// Notes the reply to a write.
    fn note(&self, write: Option<(usize, Instant)>, reply: &Reply) {
        let now = clock::now();
        let Some((at, _)) = write else { return self.failed(format!("a reply to nothing: {reply:?}")) };
        match reply {
            Reply::Integer(_) => {
                if let Some(write) = lock(&self.notes).writes.get_mut(at) {
                    write.acked_at = Some(now);
                }
            }
            Reply::Error(why) => self.failed(kind(why)),
            Reply::Simple(_) | Reply::Bulk(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => {
                self.failed(format!("unexpected: {reply:?}"));
            }
        }
    }
}

/// The first word of a refusal, which says its kind.
fn kind(why: &str) -> String {
    why.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Reads back from a redis what is left of the lists. One that refuses to answer, or says nothing, is no empty one.
pub(crate) fn left(
    lists: &[String],
    mut ask: impl FnMut(&[Vec<&str>]) -> Result<Vec<Reply>, String>,
) -> Result<BTreeSet<Id>, String> {
    let mut found = BTreeSet::new();
    for (place, list) in lists.iter().enumerate() {
        let place = u16::try_from(place).map_err(text)?;
        for batch in 0.. {
            let range = [batch * READ_BATCH, (batch + 1) * READ_BATCH - 1].map(|at| at.to_string());
            let replies = ask(&[vec!["LRANGE", list, &range[0], &range[1]]])?;
            let numbers = replies.first().and_then(Reply::array).ok_or_else(|| format!("no list: {replies:?}"))?;
            for number in numbers {
                let number = number.integer().and_then(|number| u32::try_from(number).ok());
                found.insert((place, number.ok_or_else(|| format!("{list} holds something else"))?));
            }
            if numbers.is_empty() {
                break;
            }
        }
    }
    Ok(found)
}

/// One plain redis in the place of a node: what is said of it must be right before it is believed of a cluster.
fn plain_redis(sandbox: &Sandbox) -> Outcome {
    const NODE: &str = DATA[0];
    const RATE: u32 = 500;
    let limit = Duration::from_secs(20);
    let password = Secret::new("secret");
    let host = |name: &str, last| HostSpec { name: name.to_owned(), address: [10, 0, 0, last].into(), prefix: 24 };
    let lab = Lab::new(&sandbox.scratch, &[host(NODE, 1), host("client", 2)]).map_err(text)?;
    let directory = sandbox.scratch.join(NODE);
    std::fs::create_dir(&directory).map_err(text)?;
    let mut command = Command::new("redis-server");
    command.args(["--bind", "10.0.0.1", "--requirepass", password.reveal(), "--save", "", "--dir"]).arg(&directory);
    let mut redis = lab.spawn(NODE, &mut command, "redis").map_err(text)?;
    let pid = i32::try_from(redis.id()).map_err(text)?;
    let target = SocketAddr::from(([10, 0, 0, 1], 6379));
    let spec = Spec { name: "writer".to_owned(), host: "client".to_owned(), target, rate: RATE, patience: limit };
    let writers = Writers::start(&lab, &password, "run", vec![spec])?;
    writers.wait_steady(&["writer"], limit)?;
    let steady_until = clock::now();

    // It stands still, and has acknowledged on waking what was sent meanwhile: nobody waited for it.
    signal(pid, Signal::SIGSTOP).map_err(text)?;
    let frozen = clock::now();
    std::thread::sleep(Duration::from_secs(1));
    signal(pid, Signal::SIGCONT).map_err(text)?;
    let woken = clock::now();
    writers.wait_steady(&["writer"], limit)?;

    // It refuses everything, and then nothing any more.
    let say = |words: &[&str]| ask(&lab, "client", target, Some(password.reveal()), limit, &[words.to_vec()]);
    say(&["CONFIG", "SET", "min-replicas-to-write", "1"])?;
    let closed = clock::now();
    let refused = || lock(&writers.writers[0].notes).failures.get("NOREPLICAS").copied().unwrap_or_default();
    wait_for("refusals", limit, || refused() > 100)?;
    let opening = clock::now();
    say(&["CONFIG", "SET", "min-replicas-to-write", "0"])?;
    writers.wait_steady(&["writer"], limit)?;

    // What was there is gone.
    let lists = writers.lists();
    let wiping = clock::now();
    say(&["DEL", &lists[0]])?;
    let wiped = clock::now();
    writers.wait_steady(&["writer"], limit)?;
    let seen = writers.stop();
    let kept = left(&lists, |commands| ask(&lab, "client", target, Some(password.reveal()), limit, commands))?;

    let sent = |from, until| seen.writes.iter().filter(move |write| (from..until).contains(&write.sent_at));
    let second = Duration::from_secs(1);
    let offered = sent(steady_until - second, steady_until).count();
    assert!((450..=510).contains(&offered), "{offered} in a second");
    assert!(sent(steady_until - second, steady_until).all(|write| write.acked_at.is_some() && write.node == NODE));
    let asleep: Vec<_> = sent(frozen, woken).collect();
    assert!(asleep.len() >= 400, "{} while it stood still", asleep.len());
    assert!(asleep.iter().all(|write| write.acked_at.is_some_and(|acked_at| acked_at >= woken)), "{asleep:?}");
    let open = |write: &&Write| write.acked_at.is_some_and(|acked_at| acked_at < opening);
    assert_eq!(sent(closed, opening).filter(open).count(), 0, "acknowledged while it refused ({closed} to {opening})");
    let acked = seen.writes.iter().filter_map(|write| Some((write, write.acked_at?)));
    for (write, acked_at) in acked {
        let there = kept.contains(&write.id);
        assert!(there || write.sent_at < wiped, "{write:?} is lost, wiped at {wiped}");
        assert!(!there || acked_at >= wiping, "{write:?} is there, wiped at {wiping}");
    }
    let failures = &seen.failures["writer"];
    assert!(failures.keys().all(|kind| ["NOREPLICAS", "no connection"].contains(&kind.as_str())), "{failures:?}");
    redis.kill().and_then(|()| redis.wait()).map(drop).map_err(text)
}
