//! What sentinels publish, who takes writes, and what the logs say of votes and leaders.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vigie::operate::lab::hosts::{Network, signal};
use vigie::runtime::connection::Connection;
use vigie::wire::resp::Reply;

use super::super::Outcome;
use super::super::whole::text;
use super::world::{ANSWER_TIME, HOSTS};

/// How often who takes writes is looked at, and a sentinel that is not there is called again.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// What a sentinel published.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) host: usize,
    pub(super) channel: String,
    pub(super) payload: String,
}

/// Subscribers to everything, one per sentinel, over its restarts.
#[derive(Debug, Default)]
pub(super) struct Ears {
    heard: Mutex<Vec<Heard>>,
    /// The processes of the sentinels.
    pids: Mutex<[Option<i32>; 3]>,
    /// The next one that says this is killed at once.
    trap: Mutex<Option<&'static str>>,
    /// Who was, and when.
    caught: Mutex<Option<(usize, Instant)>>,
    ended: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ears {
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn runs_as(&self, host: usize, pid: Option<i32>) {
        lock(&self.pids)[host] = pid;
    }

    /// The first sentinel that says this from now on is killed, with SIGKILL, as soon as it was heard.
    pub(super) fn set_trap(&self, channel: &'static str) {
        *lock(&self.caught) = None;
        *lock(&self.trap) = Some(channel);
    }

    /// Takes the trap away. Who was caught, and when.
    pub(super) fn spring(&self) -> Option<(usize, Instant)> {
        *lock(&self.trap) = None;
        *lock(&self.caught)
    }

    pub(super) fn caught(&self) -> Option<(usize, Instant)> {
        *lock(&self.caught)
    }

    pub(super) fn listen(self: &Arc<Self>, host: usize, network: Network, address: SocketAddr) {
        let ears = Arc::clone(self);
        std::thread::spawn(move || {
            network.enter().map_err(text)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            while !ears.ended.load(Ordering::Relaxed) {
                // A sentinel that is not there yet, or no more, is tried again.
                let _: Result<(), String> = runtime.block_on(ears.hear(host, address));
                std::thread::sleep(SAMPLE_EVERY);
            }
            Ok::<(), String>(())
        });
    }

    async fn hear(&self, host: usize, address: SocketAddr) -> Result<(), String> {
        let mut connection = Connection::open(address, ANSWER_TIME).await.map_err(text)?;
        connection.ask(&["PSUBSCRIBE", "*"], ANSWER_TIME).await.map_err(text)?;
        loop {
            let message = connection.replies.next().await.map_err(text)?;
            let words: Vec<_> = message.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
            let ["pmessage", _, channel, payload] = words[..] else { continue };
            let at = Instant::now();
            if lock(&self.trap).take_if(|trap| *trap == channel).is_some() {
                if let Some(pid) = lock(&self.pids)[host] {
                    signal(pid, Signal::SIGKILL).map_err(text)?;
                }
                *lock(&self.caught) = Some((host, at));
            }
            let (channel, payload) = (channel.to_owned(), payload.to_owned());
            lock(&self.heard).push(Heard { at, host, channel, payload });
        }
    }

    /// The first to say that since.
    pub(super) fn first(&self, since: Instant, channel: &str) -> Option<Heard> {
        lock(&self.heard).iter().find(|heard| heard.at >= since && heard.channel == channel).cloned()
    }

    pub(super) fn has_said(&self, host: usize, since: Instant, channel: &str) -> bool {
        let said = |heard: &Heard| heard.host == host && heard.at >= since && heard.channel == channel;
        lock(&self.heard).iter().any(said)
    }

    /// How often that was said since, by all together.
    pub(super) fn count(&self, since: Instant, channel: &str) -> usize {
        lock(&self.heard).iter().filter(|heard| heard.at >= since && heard.channel == channel).count()
    }

    /// When each sentinel said first that about the master, in milliseconds since.
    pub(super) fn times(&self, since: Instant, channel: &str) -> String {
        let heard = lock(&self.heard);
        let of = |host: usize| {
            let about = |heard: &&Heard| {
                let master = heard.payload.starts_with("master ") || channel == "+switch-master";
                heard.at >= since && heard.host == host && heard.channel == channel && master
            };
            heard.iter().find(about).map_or_else(|| "-".to_owned(), |heard| (heard.at - since).as_millis().to_string())
        };
        (0..HOSTS.len()).map(of).collect::<Vec<_>>().join(" / ")
    }

    /// Who was elected since, in order.
    pub(super) fn elected(&self, since: Instant) -> Vec<usize> {
        let heard = lock(&self.heard);
        let elected = heard.iter().filter(|heard| heard.at >= since && heard.channel == "+elected-leader");
        elected.map(|heard| heard.host).collect()
    }

    /// The same in words.
    pub(super) fn leaders(&self, since: Instant) -> String {
        let names: Vec<_> = self.elected(since).iter().map(|n| HOSTS[*n]).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
    }

    pub(super) fn told(&self) -> Vec<String> {
        let heard = lock(&self.heard);
        let began = heard.first().map(|heard| heard.at);
        let line = |heard: &Heard| {
            let at = began.map_or(0, |began| (heard.at - began).as_millis());
            format!("{at:>7} ms {:<6} {} {}", HOSTS[heard.host], heard.channel, heard.payload)
        };
        heard.iter().map(line).collect()
    }
}

/// Writes to every redis all the time, from a host of its own.
#[derive(Debug)]
pub(super) struct Sampler {
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Taken>>>,
    thread: JoinHandle<Result<(), String>>,
}

/// Which redis took a write, and when.
type Taken = (Instant, usize);

/// What became of the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writes {
    /// The longest time since the fault in which neither the old master nor the one in the end took any.
    pub(super) blocked: Duration,
    /// For how long more than one redis took them.
    pub(super) doubled: Duration,
    /// Who took the last one.
    pub(super) last: Option<usize>,
}

impl Sampler {
    pub(super) fn start(network: Network, redis: Vec<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (stopped, takes) = (Arc::clone(&stop), Arc::clone(&taken));
        let thread = std::thread::spawn(move || {
            network.enter().map_err(text)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            runtime.block_on(async {
                let each = redis.into_iter().enumerate().map(|(n, at)| write_all_the_time(n, at, &stopped, &takes));
                futures_util::future::join_all(each).await;
                Ok(())
            })
        });
        Self { stop, taken, thread }
    }

    /// Whether one of its writes was taken since then by `n`. Behind a hold, somebody else's may be sooner.
    pub(super) fn took(&self, n: usize, since: Instant) -> Outcome {
        if lock(&self.taken).iter().any(|(at, by)| *at >= since && *by == n) {
            return Ok(());
        }
        Err(format!("{} took none since {} ms", HOSTS[n], since.elapsed().as_millis()))
    }

    /// Ends it. What it has seen since `began`, with `masters` before and after.
    pub(super) fn stop(self, began: Instant, masters: [usize; 2]) -> Writes {
        self.stop.store(true, Ordering::Relaxed);
        // What it could not do is missing from what was taken.
        let _ = self.thread.join();
        let mut taken = lock(&self.taken).clone();
        taken.sort_unstable();
        judge(&taken, began, Instant::now(), masters)
    }
}

fn judge(taken: &[Taken], began: Instant, now: Instant, masters: [usize; 2]) -> Writes {
    let before = taken.iter().rev().find(|(at, _)| *at < began).map(|(at, _)| *at);
    let since: Vec<_> = taken.iter().filter(|(at, _)| *at >= began).collect();
    let mut moments = vec![before.unwrap_or(began)];
    let by_masters = since.iter().filter(|(_, n)| masters.contains(n));
    moments.extend(by_masters.map(|(at, _)| *at).chain([now]));
    let blocked = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    // Two that take writes in turn, each within the time of a few samples.
    let close = SAMPLE_EVERY * 4;
    let doubles = since.windows(2).filter(|pair| pair[0].1 != pair[1].1 && pair[1].0 - pair[0].0 < close);
    let doubled = doubles.map(|pair| pair[1].0 - pair[0].0).sum();
    Writes { blocked, doubled, last: since.last().map(|(_, n)| *n) }
}

async fn write_all_the_time(n: usize, address: SocketAddr, stopped: &AtomicBool, taken: &Mutex<Vec<Taken>>) {
    let limit = Duration::from_millis(100);
    let mut open = None;
    while !stopped.load(Ordering::Relaxed) {
        if open.is_none() {
            open = Connection::open(address, limit).await.ok();
        }
        if let Some(connection) = &mut open {
            match connection.ask(&["SET", "sample", "1"], limit).await {
                Ok(reply) if reply.is_ok() => lock(taken).push((Instant::now(), n)),
                // A replica refuses.
                Ok(_) => {}
                Err(_) => open = None,
            }
        }
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}

/// What a log says of votes and elections.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Votes given, by epoch.
    pub(super) votes: BTreeMap<u64, Vec<String>>,
    /// Epochs of elections won.
    pub(super) led: Vec<u64>,
}

impl Promises {
    /// Reads the log of one sentinel, over all its lives.
    pub(super) fn of(log: &str) -> Self {
        let mut found = Self::default();
        let mut epoch = 0;
        for line in log.lines() {
            // `pid:X date # event payload`
            let words: Vec<_> =
                line.split_whitespace().skip_while(|word| !["#", "*", "-"].contains(word)).skip(1).collect();
            match words[..] {
                ["+new-epoch", number] => epoch = number.parse().unwrap_or(epoch),
                ["+vote-for-leader", leader, number] => {
                    let votes = found.votes.entry(number.parse().unwrap_or(0)).or_default();
                    votes.push(leader.to_owned());
                }
                ["+elected-leader", ..] => found.led.push(epoch),
                _ => {}
            }
        }
        found
    }
}

/// That no sentinel has given two votes in an epoch, and no epoch has had two leaders, by all logs. How many of each there
/// were, in words.
pub(super) fn keeps_promises(logs: &[String]) -> Result<String, String> {
    let all: Vec<_> = logs.iter().map(|log| Promises::of(log)).collect();
    for (promises, name) in all.iter().zip(HOSTS) {
        if let Some((epoch, votes)) = promises.votes.iter().find(|(_, votes)| votes.len() > 1) {
            return Err(format!("{name} gave {} votes in epoch {epoch}: {votes:?}", votes.len()));
        }
    }
    let mut led: Vec<u64> = all.iter().flat_map(|promises| promises.led.clone()).collect();
    led.sort_unstable();
    if let Some(pair) = led.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two leaders in epoch {}", pair[0]));
    }
    let votes: usize = all.iter().map(|promises| promises.votes.len()).sum();
    Ok(format!("{votes} votes, {} leaders", led.len()))
}
