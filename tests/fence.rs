//! The fence of redis with a real redis-server, and the second fence with a real guard.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop where it stands")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use vigie::base::secret::LOCAL_USER;
use vigie::base::{Instant, Secret};
use vigie::cores::redis::fence::{Answer, By, Cause, MAX_LAG, OUT_OF_REACH, Phase, Refusal, Setting, Status, Term};
use vigie::runtime::clock;
use vigie::runtime::fence::{self, Begun, Guarded, Process, Renewals, Wish};
use vigie::runtime::guard::{GuardSpec, guard, is_worker};
use vigie::runtime::pidfd::PidFd;
use vigie::runtime::redis::LOCAL_RIGHTS;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);
/// Of all leases here.
const LEASE: Duration = Duration::from_secs(1);
const RENEW_EVERY: Duration = Duration::from_millis(100);
const PORT: u16 = 16_381;
const INCARNATION: u64 = 7;
const PASSWORD: &str = "of this start";

/// Counts what one thread has of the heap, and what it gives back.
struct Counting;

/// The thread that is counted; 0: none.
static COUNTED: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);

fn count() {
    let counted = COUNTED.load(Ordering::Relaxed);
    if counted != 0 && nix::unistd::gettid().as_raw() == counted {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: it does what that of the system does.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of a lease that was asked for at `from`.
fn term(from: Instant) -> Term {
    let after = |percent: u32| from + LEASE * percent / 100;
    Term { incarnation: INCARNATION, epoch: 1, fence_at: after(70), kill_at: after(86), ends_at: after(90) }
}

/// A closed redis, which ends with the test.
struct Server {
    child: Child,
    held: PidFd,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(more: &str) -> Self {
        static NODES: AtomicU8 = AtomicU8::new(10);
        let node = NODES.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, node, high, low)), PORT);
        let dir = tempfile::tempdir().unwrap();
        let conf = format!(
            "bind {}\nport {PORT}\ndir {}\nsave \"\"\nlogfile \"\"\nuser default on nopass ~* &* +@all\n\
             user {LOCAL_USER} on >{} {LOCAL_RIGHTS}\nreplicaof 127.0.0.1 1\n{more}\n\
             min-replicas-to-write {OUT_OF_REACH}\nmin-replicas-max-lag {MAX_LAG}\n",
            address.ip(),
            dir.path().display(),
            PASSWORD.replace(' ', "-"),
        );
        let server = std::env::var("VIGIE_TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(server);
        command.arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        // SAFETY: the closure makes one system call; it neither allocates nor takes a lock.
        #[expect(unsafe_code, reason = "a test that fails is to leave no redis behind")]
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        let mut child = command.spawn().unwrap();
        let held = PidFd::open(child.id()).unwrap();
        child.stdin.take().unwrap().write_all(conf.as_bytes()).unwrap();
        let server = Self { child, held, address, _dir: dir };
        eventually("redis listens", || TcpStream::connect(address).is_ok());
        server
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn client(&self) -> Client {
        Client::open(self.address)
    }

    fn role(&self) -> String {
        self.client().say_all("ROLE", 2).pop().unwrap()
    }

    fn process(&self, fence: &fence::Fence) {
        let password = Secret::new(PASSWORD.replace(' ', "-"));
        let process =
            Process { incarnation: INCARNATION, held: &self.held, address: self.address, password: &password };
        fence.process(&process).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.held.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// When the process had ended, by `limit` at the latest.
fn ended_by(held: &PidFd, limit: Instant) -> Option<Instant> {
    let left = limit.since(clock::now()) + MS;
    let mut waited = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut waited, PollTimeout::try_from(left).unwrap()).unwrap() == 1;
    ended.then(clock::now)
}

fn eventually(what: &str, mut wanted: impl FnMut() -> bool) {
    let end = clock::now() + PATIENCE;
    while !wanted() {
        assert!(clock::now() < end, "never: {what}");
        std::thread::sleep(MS);
    }
}

/// A client that sends inline commands and reads one line of each answer.
struct Client(BufReader<TcpStream>);

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, command: &str) {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn say(&mut self, command: &str) -> String {
        self.send(command);
        self.line()
    }

    /// So many bulk strings or numbers of an array, the last one last.
    fn say_all(&mut self, command: &str, lines: usize) -> Vec<String> {
        self.send(command);
        (0..=lines).map(|_| self.line()).collect()
    }
}

/// A fence, and what became of the orders that it is given.
struct Fence {
    fence: fence::Fence,
    order: u64,
}

impl std::ops::Deref for Fence {
    type Target = fence::Fence;

    fn deref(&self) -> &fence::Fence {
        &self.fence
    }
}

impl Fence {
    fn new(fence: fence::Fence) -> Self {
        Self { fence, order: 0 }
    }

    async fn open(&mut self, setting: Setting) -> Result<Instant, Refusal> {
        self.wish(Wish::Open { by: By::Lease, epoch: 1, setting }).await
    }

    async fn close(&mut self) -> Result<Instant, Refusal> {
        self.wish(Wish::Close).await
    }

    /// When that was done by.
    async fn wish(&mut self, wish: Wish) -> Result<Instant, Refusal> {
        self.order += 1;
        self.fence.order(self.order, wish);
        let order = self.order;
        let status = until(&self.fence, "an answer", |status| status.answered.0 == order).await;
        match status.answered.1 {
            Answer::Opened | Answer::Closed => Ok(status.since),
            Answer::Refused(refusal) => Err(refusal),
        }
    }
}

/// A fence around a redis, ready to be opened.
async fn fenced(server: &Server) -> (Fence, Renewals) {
    let Begun { fence, renewals, handicaps } = fence::start(None).unwrap();
    println!("{handicaps:?}");
    server.process(&fence);
    until(&fence, "it is ready", |status| status.ready).await;
    (Fence::new(fence), renewals)
}

async fn until(fence: &fence::Fence, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    let mut watched = fence.watch();
    let found = tokio::time::timeout(PATIENCE, watched.wait_for(|status| wanted(status))).await;
    *found.unwrap_or_else(|_| panic!("never: {what}; {:?}", fence.status())).unwrap()
}

/// Renews until told to stop; returns the last term then.
fn keep_renewing(mut renewals: Renewals) -> (mpsc::Sender<()>, std::thread::JoinHandle<(Renewals, Term)>) {
    let (stop, stopped) = mpsc::channel();
    let mut last = term(clock::now());
    renewals.renew(Some(last));
    let renewing = std::thread::spawn(move || {
        while stopped.recv_timeout(RENEW_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            last = term(clock::now());
            renewals.renew(Some(last));
        }
        (renewals, last)
    });
    (stop, renewing)
}

/// What a client saw of its writes.
#[derive(Default)]
struct Seen {
    acknowledged: u32,
    last_acknowledged: Option<Instant>,
    refused: u32,
    first_refused: Option<Instant>,
}

/// Writes over one connection, one after the other, until told to stop.
fn keep_writing(address: SocketAddr, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Seen> {
    std::thread::spawn(move || {
        let (mut client, mut seen) = (Client::open(address), Seen::default());
        while !stop.load(Ordering::Relaxed) {
            let said = client.say("SET key value");
            let now = clock::now();
            if said == "+OK" {
                seen.acknowledged += 1;
                seen.last_acknowledged = Some(now);
            } else {
                assert!(said.starts_with("-NOREPLICAS"), "{said:?}");
                seen.refused += 1;
                seen.first_refused.get_or_insert(now);
            }
        }
        seen
    })
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends_the_writes_in_time_and_a_new_one_goes_on_with_them() {
    let server = Server::start("");
    assert_eq!(server.client().say("SET a 1").split(' ').next(), Some("-READONLY"));
    let (mut fence, renewals) = fenced(&server).await;
    let leased = async {
        tokio::time::sleep(RENEW_EVERY).await;
        assert_eq!(server.role(), "slave", "told to open, it waits for a lease");
        (clock::now(), keep_renewing(renewals))
    };
    let (opened, (begun, (stop, renewing))) = tokio::join!(fence.open(Setting::default()), leased);
    println!("opened in {:?}", opened.unwrap().since(begun));
    assert_eq!(server.role(), "master");

    let done = Arc::new(AtomicBool::new(false));
    let writing = keep_writing(server.address, Arc::clone(&done));
    tokio::time::sleep(3 * RENEW_EVERY).await;
    drop(stop);
    let (mut renewals, last) = renewing.join().unwrap();
    let closed = until(&fence, "it closes", |status| status.phase == Phase::Closed).await;
    tokio::time::sleep(2 * RENEW_EVERY).await;
    done.store(true, Ordering::Relaxed);
    let seen = writing.join().unwrap();
    println!(
        "{} writes acknowledged, the last one {:?} before the end of the lease; {} refused; confirmed {:?} after it was due",
        seen.acknowledged,
        last.ends_at.since(seen.last_acknowledged.unwrap()),
        seen.refused,
        closed.since.since(last.fence_at),
    );
    assert!(closed.since >= last.fence_at && closed.killed.is_none());
    assert!(seen.last_acknowledged < Some(last.ends_at));
    assert!(seen.last_acknowledged < seen.first_refused, "on one connection, which stayed");
    assert!(seen.acknowledged > 0 && seen.refused > 0);
    let mut client = server.client();
    for refused in ["SET a 1", "EVAL \"return redis.call('SET','a','1')\" 0"] {
        assert!(client.say(refused).contains("NOREPLICAS"), "{refused}");
    }

    // The same process goes on.
    renewals.renew(Some(term(clock::now())));
    fence.open(Setting::default()).await.unwrap();
    assert_eq!(client.say("SET a 1"), "+OK");
    let before = clock::now();
    let at = fence.close().await.unwrap();
    assert!(at >= before && at <= clock::now());
    assert!(client.say("SET a 1").starts_with("-NOREPLICAS"));
    assert_eq!(client.say("GET a"), "$1");
}

#[tokio::test]
async fn what_its_operator_wants_of_replicas_holds_while_it_is_open_and_keeps_no_fence_open() {
    let server = Server::start("");
    let (mut fence, mut renewals) = fenced(&server).await;
    let mut client = server.client();
    for (setting, said) in [(Setting::new(1, 5), "-NOREPLICAS"), (Setting::new(3, 0), "+OK")] {
        renewals.renew(Some(term(clock::now())));
        fence.open(setting).await.unwrap();
        let wanted = [setting.min_replicas(), setting.max_lag()].map(|number| number.to_string());
        for (name, value) in ["min-replicas-to-write", "min-replicas-max-lag"].into_iter().zip(wanted) {
            assert_eq!(client.say_all(&format!("CONFIG GET {name}"), 4).pop(), Some(value));
        }
        assert!(client.say("SET a 1").starts_with(said));
        fence.close().await.unwrap();
        assert!(client.say("SET a 1").starts_with("-NOREPLICAS"));
    }
    // Somebody switches the check off, which would keep the fence from closing.
    renewals.renew(Some(term(clock::now())));
    fence.open(Setting::default()).await.unwrap();
    assert_eq!(client.say("CONFIG SET min-replicas-max-lag 0"), "+OK");
    fence.close().await.unwrap();
    assert!(client.say("SET a 1").starts_with("-NOREPLICAS"));
}

#[tokio::test]
async fn a_connection_that_is_killed_is_made_again() {
    let server = Server::start("");
    let (mut fence, renewals) = fenced(&server).await;
    let (_stop, _renewing) = keep_renewing(renewals);
    let mut client = server.client();
    let kill = format!("CLIENT KILL USER {LOCAL_USER}");
    assert_eq!(client.say(&kill), ":1");
    let (begun, mut tries) = (clock::now(), 0);
    while fence.open(Setting::default()).await.is_err() {
        tries += 1;
        assert!(clock::now() < begun + PATIENCE);
        tokio::task::yield_now().await;
    }
    println!("opened {:?} after its connection was killed, {tries} times refused", clock::now().since(begun));
    assert_eq!(client.say(&kill), ":1");
    fence.close().await.unwrap();
    assert!(client.say("SET a 1").starts_with("-NOREPLICAS"));
    assert!(fence.status().killed.is_none());
}

/// Opens, does something to redis that keeps it from closing, and sees it dead in time.
async fn dies_in_time(more: &str, harm: impl Fn(&Server, Term), cause: Cause) {
    let server = Server::start(more);
    let (mut fence, mut renewals) = fenced(&server).await;
    let last = term(clock::now());
    renewals.renew(Some(last));
    fence.open(Setting::default()).await.unwrap();
    harm(&server, last);
    let ended = ended_by(&server.held, last.ends_at + PATIENCE).unwrap();
    println!(
        "{cause:?}: dead {:?} after the fence began, {:?} before the end of the lease",
        ended.since(last.fence_at),
        last.ends_at.since(ended)
    );
    assert!(ended >= last.fence_at && ended < last.ends_at);
    let status = until(&fence, "it is closed", |status| status.phase == Phase::Closed).await;
    assert_eq!(status.killed.map(|(_, cause)| cause), Some(cause));
    assert_eq!(fence.open(Setting::default()).await, Err(Refusal::NoProcess));
    fence.close().await.unwrap();
}

const ENDLESS: &str = "EVAL \"while true do redis.call('INCR','n') end\" 0";

#[tokio::test]
async fn a_redis_that_is_busy_and_says_so_is_dead_in_time() {
    let busy = |server: &Server, _: Term| {
        server.client().send(ENDLESS);
        eventually("it is busy", || server.client().say("PING").starts_with("-BUSY"));
    };
    dies_in_time("lua-time-limit 20", busy, Cause::Refused).await;
}

#[tokio::test]
async fn a_redis_that_is_busy_and_silent_is_dead_in_time() {
    dies_in_time("", |server, _| server.client().send(ENDLESS), Cause::Silent).await;
}

#[tokio::test]
async fn a_redis_that_is_stopped_is_dead_in_time() {
    let stop = |server: &Server, last: Term| {
        let left = last.fence_at.since(clock::now() + 10 * MS);
        std::thread::sleep(left);
        kill(server.pid(), Signal::SIGSTOP).unwrap();
    };
    dies_in_time("", stop, Cause::Silent).await;
}

#[tokio::test]
async fn a_busy_redis_whose_close_is_asked_for_stays_open_while_its_lease_lasts() {
    let server = Server::start("lua-time-limit 20");
    let (mut fence, renewals) = fenced(&server).await;
    let (_stop, _renewing) = keep_renewing(renewals);
    fence.open(Setting::default()).await.unwrap();
    server.client().send("EVAL \"while true do end\" 0");
    eventually("it is busy", || server.client().say("PING").starts_with("-BUSY"));
    assert_eq!(fence.close().await, Err(Refusal::Refused));
    assert_eq!(server.client().say("SCRIPT KILL"), "+OK");
    eventually("it takes writes again", || server.client().say("SET a 1") == "+OK");
    fence.close().await.unwrap();
}

#[tokio::test]
async fn a_redis_that_ends_is_closed_and_the_next_one_is_fenced() {
    let first = Server::start("");
    let (mut fence, mut renewals) = fenced(&first).await;
    renewals.renew(Some(term(clock::now())));
    fence.open(Setting::default()).await.unwrap();
    first.held.signal(Signal::SIGKILL).unwrap();
    until(&fence, "it has ended", |status| status.incarnation.is_none()).await;
    assert_eq!(fence.status().phase, Phase::Closed);
    let second = Server::start("");
    second.process(&fence);
    until(&fence, "it is ready", |status| status.ready).await;
    fence.open(Setting::default()).await.unwrap();
    assert_eq!(second.client().say("SET a 1"), "+OK");
    fence.close().await.unwrap();
}

#[tokio::test]
async fn a_fence_that_is_let_go_of_closes_what_is_open() {
    let server = Server::start("");
    let (mut fence, mut renewals) = fenced(&server).await;
    let last = term(clock::now());
    renewals.renew(Some(last));
    fence.open(Setting::default()).await.unwrap();
    drop((fence, renewals));
    let mut client = server.client();
    assert_eq!(client.say("SET a 1"), "+OK");
    eventually("it refuses writes", || client.say("SET a 1").starts_with("-NOREPLICAS"));
    let now = clock::now();
    assert!(now >= last.fence_at && now < last.ends_at);
}

/// p50 and the like, and the largest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("p50 {:?}, p90 {:?}, p99 {:?}, max {:?} of {}", at(50), at(90), at(99), at(100), times.len())
}

/// Keeps every core busy.
fn spin(done: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
    let cores = std::thread::available_parallelism().unwrap().get();
    let spinner = |done: Arc<AtomicBool>| move || while !done.load(Ordering::Relaxed) {};
    (0..cores).map(|_| std::thread::spawn(spinner(Arc::clone(done)))).collect()
}

#[tokio::test]
async fn no_load_at_normal_priority_makes_a_close_too_late() {
    const CLOSES: usize = 200;
    let server = Server::start("");
    let (mut fence, mut renewals) = fenced(&server).await;
    let done = Arc::new(AtomicBool::new(false));
    let spinning = spin(&done);
    let mut lateness = Vec::new();
    for _ in 0..CLOSES {
        // Old enough to begin soon.
        let last = term(clock::now() - LEASE * 65 / 100);
        renewals.renew(Some(last));
        if fence.open(Setting::default()).await.is_err() {
            continue;
        }
        let closed = until(&fence, "it closes", |status| matches!(status.phase, Phase::Closed)).await;
        assert!(closed.since < last.ends_at, "{closed:?} {last:?}");
        assert_eq!(closed.killed, None);
        lateness.push(closed.since.since(last.fence_at));
    }
    done.store(true, Ordering::Relaxed);
    println!("confirmed after it was due, {} cores busy: {}", spinning.len(), spread(lateness));
    spinning.into_iter().for_each(|spinner| spinner.join().unwrap());
}

/// Which part of a test a process plays.
const PART: &str = "VIGIE_TEST_PART";
const DIR: &str = "VIGIE_TEST_DIR";

/// Not a test of its own: processes that tests of this file start.
#[tokio::test]
#[ignore = "not a test: a process that tests of this file start"]
async fn a_part() {
    match std::env::var(PART).as_deref() {
        Ok("unprivileged") => unprivileged().await,
        Ok("idle") => idle().await,
        Ok("guarded") if is_worker() => worker().await,
        Ok("guarded") => the_guard(),
        Ok(other) => panic!("{other}"),
        Err(_) => {}
    }
}

fn part(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_part", "--ignored", "--nocapture"]).env(PART, name).stdout(Stdio::piped());
    command
}

/// What a process says until it ends, which it does well.
fn said(mut command: Command) -> Vec<String> {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let lines: Vec<_> = lines.inspect(|line| println!("  {line}")).collect();
    assert!(child.wait().unwrap().success());
    lines
}

async fn unprivileged() {
    let server = Server::start("");
    let Begun { fence, mut renewals, handicaps } = fence::start(None).unwrap();
    println!("handicaps: {}", handicaps.join(" | "));
    let mut fence = Fence::new(fence);
    server.process(&fence);
    until(&fence, "it is ready", |status| status.ready).await;
    let last = term(clock::now());
    renewals.renew(Some(last));
    fence.open(Setting::default()).await.unwrap();
    assert_eq!(server.client().say("SET a 1"), "+OK");
    let closed = until(&fence, "it closes", |status| status.phase == Phase::Closed).await;
    println!("closed {:?} after it was due", closed.since.since(last.fence_at));
    assert!(closed.since < last.ends_at && closed.killed.is_none());
}

#[test]
fn without_rights_it_works_and_says_what_it_lacks() {
    let mut command = part("unprivileged");
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let lines = said(command);
    let handicaps = lines.iter().find_map(|line| line.split_once("handicaps: ")).unwrap().1;
    for handicap in ["not real-time", "not locked in memory", "no second fence"] {
        assert!(handicaps.contains(handicap), "{handicaps}");
    }
    assert!(lines.iter().any(|line| line.contains("after it was due")));
}

/// A number of a file in /proc.
fn number(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn memory(when: &str) {
    let [size, resident, locked] = ["VmSize:", "VmRSS:", "VmLck:"].map(|name| number("/proc/self/status", name));
    println!("{when}: {size} KiB mapped, {resident} KiB resident, {locked} KiB of mappings locked");
}

/// The task of this process with that name.
fn task(name: &str) -> i32 {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let named = |task: &Path| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let task = tasks.find(|task| named(task)).unwrap();
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// By which a process is scheduled; 0: as most are.
fn policy(pid: Pid) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The 41st field; the second one, in parentheses, may have spaces.
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(41 - 3).unwrap().to_owned()
}

/// How often all tasks of a process have waited so far.
fn waits_of(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path().join("status"));
    tasks.map(|status| number(status.to_str().unwrap(), "voluntary_ctxt_switches:")).sum()
}

async fn idle() {
    const SECONDS: u64 = 12;
    let server = Server::start("");
    memory("before the fence");
    let (mut fence, renewals) = fenced(&server).await;
    memory("with it");
    let thread = task("vigie-fence");
    COUNTED.store(thread, Ordering::Relaxed);
    let status = format!("/proc/self/task/{thread}/status");
    let wakes = || number(&status, "voluntary_ctxt_switches:");
    let closed = wakes();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    println!("closed: {:.2} wake-ups a second", (wakes() - closed) as f64 / SECONDS as f64);
    let (stop, _renewing) = keep_renewing(renewals);
    fence.open(Setting::default()).await.unwrap();
    let open = wakes();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    println!("open, renewed each {RENEW_EVERY:?}: {:.2} wake-ups a second", (wakes() - open) as f64 / SECONDS as f64);
    fence.close().await.unwrap();
    memory("after an open and a close");
    fence.open(Setting::default()).await.unwrap();
    drop(stop);
    kill(server.pid(), Signal::SIGSTOP).unwrap();
    until(&fence, "it is killed", |status| status.killed.is_some() && status.incarnation.is_none()).await;
    println!("of the heap: {} times", COUNT.load(Ordering::Relaxed));
}

#[test]
fn an_idle_fence_hardly_wakes_and_takes_little_memory_and_nothing_of_the_heap() {
    let lines = said(part("idle"));
    let wakes = lines.iter().filter_map(|line| line.split_once(": ")?.1.strip_suffix(" wake-ups a second"));
    let wakes: Vec<f64> = wakes.map(|number| number.parse().unwrap()).collect();
    assert!(wakes.len() == 2 && wakes[0] < 1.0 && wakes[1] < 4.0, "{wakes:?}");
    assert!(lines.iter().any(|line| line.ends_with("of the heap: 0 times")), "{lines:?}");
}

fn the_guard() {
    tracing_subscriber::fmt().with_writer(std::io::stdout).with_ansi(false).init();
    let dir = std::env::var_os(DIR).unwrap();
    let mut spec = GuardSpec::again(Path::new(&dir).to_owned(), Box::new(|| println!("on_death")), None);
    spec.args = ["guarded", "--exact", "a_part", "--ignored", "--nocapture"].map(Into::into).to_vec();
    println!("guard left: {:?}", guard(&spec));
}

async fn worker() {
    println!("worker {}", std::process::id());
    let server = Server::start("");
    let guarded = Guarded::inherited().unwrap();
    assert!(guarded.is_some());
    let Begun { fence, mut renewals, handicaps } = fence::start(guarded).unwrap();
    let mut fence = Fence::new(fence);
    assert!(!handicaps.iter().any(|handicap| handicap.contains("no second fence")), "{handicaps:?}");
    server.process(&fence);
    until(&fence, "it is ready", |status| status.ready).await;
    let (leased, has_lease) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            let last = term(clock::now());
            // Before it holds: nothing is open for longer than was said.
            println!("ends_at {}", last.ends_at.as_micros());
            renewals.renew(Some(last));
            let _ = leased.send(());
            std::thread::sleep(RENEW_EVERY);
        }
    });
    has_lease.recv().unwrap();
    fence.open(Setting::default()).await.unwrap();
    println!("redis {} {}", server.child.id(), server.address);
    let status = until(&fence, "redis has ended", |status| status.incarnation.is_none()).await;
    assert_eq!(status.killed, None, "not by this one");
    println!("seen");
    std::future::pending::<()>().await;
}

/// A guard with a worker whose redis is open, and what they say.
struct Whole {
    guard: Child,
    lines: mpsc::Receiver<String>,
    /// Taken in, and not asked for yet.
    heard: VecDeque<String>,
    ends_at: Instant,
    _dir: tempfile::TempDir,
}

impl Whole {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The guard takes its signals from a descriptor: the harness's other threads must not take them first.
        let mut command = Command::new("env");
        command.args(["--block-signal=TERM", "--block-signal=INT", "--block-signal=HUP"]);
        command.arg(std::env::current_exe().unwrap()).args(["--exact", "a_part", "--ignored", "--nocapture"]);
        command.env(PART, "guarded").env(DIR, dir.path()).stdout(Stdio::piped());
        let mut guard = command.spawn().unwrap();
        let (say, lines) = mpsc::channel();
        let out = BufReader::new(guard.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        Self { guard, lines, heard: VecDeque::new(), ends_at: Instant::START, _dir: dir }
    }

    fn take(&mut self, line: String) {
        if let Some((_, ends_at)) = line.split_once("ends_at ") {
            self.ends_at = Instant::from_micros(ends_at.trim().parse().unwrap());
        } else {
            self.heard.push_back(line);
        }
    }

    fn take_what_waits(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.take(line);
        }
    }

    fn hears(&mut self, wanted: &str) -> String {
        let (end, mut passed) = (clock::now() + PATIENCE, Vec::new());
        loop {
            while let Some(line) = self.heard.pop_front() {
                // The harness itself writes "test a_part ... " without a line end.
                if let Some((_, rest)) = line.split_once(wanted) {
                    return rest.trim().to_owned();
                }
                passed.push(line);
            }
            let Ok(line) = self.lines.recv_timeout(end.since(clock::now())) else {
                panic!("never heard {wanted:?}, but {passed:?}");
            };
            self.take(line);
        }
    }

    fn pid(&mut self, name: &str) -> Pid {
        let rest = self.hears(name);
        Pid::from_raw(rest.split(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        // Its worker is told by the kernel.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

#[test]
fn a_worker_that_is_stopped_costs_its_redis_and_nothing_else() {
    stopped();
}

#[test]
fn a_guard_on_a_host_under_load_is_in_time_too() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root makes a guard real-time");
        return;
    }
    let done = Arc::new(AtomicBool::new(false));
    let spinning = spin(&done);
    stopped();
    done.store(true, Ordering::Relaxed);
    spinning.into_iter().for_each(|spinner| spinner.join().unwrap());
}

fn stopped() {
    let mut whole = Whole::start();
    let worker = whole.pid("worker ");
    assert_eq!(policy(worker), "0", "a guard that is real-time starts none that is");
    let rest = whole.hears("redis ");
    let (pid, address) = rest.split_once(' ').unwrap();
    let redis = PidFd::open(pid.parse().unwrap()).unwrap();
    let address = address.parse().unwrap();
    assert_eq!(Client::open(address).say("SET a 1"), "+OK");
    let waits = || waits_of(whole.guard.id());
    let before = waits();
    // It is renewed for longer than one lease.
    assert_eq!(ended_by(&redis, clock::now() + 4 * LEASE), None);
    println!("the guard wakes up {} times in {:?}", waits() - before, 4 * LEASE);
    assert_eq!(Client::open(address).say("SET a 1"), "+OK");
    kill(worker, Signal::SIGSTOP).unwrap();
    let stopped = clock::now();
    let ended = ended_by(&redis, clock::now() + PATIENCE).unwrap();
    whole.take_what_waits();
    println!(
        "redis dead {:?} after its worker was stopped, {:?} before the end of the lease",
        ended.since(stopped),
        whole.ends_at.since(ended)
    );
    assert!(ended < whole.ends_at && ended + LEASE * 3 / 100 > whole.ends_at, "{ended} {}", whole.ends_at);
    let late = whole.hears("the worker has not closed redis in time: it is killed");
    println!("the guard says: killed{late}");
    // The worker goes on where it was, and sees what has become of its redis.
    kill(worker, Signal::SIGCONT).unwrap();
    whole.hears("seen");
    kill(Pid::from_raw(whole.guard.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    whole.hears("on_death");
    whole.hears("guard left");
}
