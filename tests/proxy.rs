//! The proxy on 127.0.0.1, with real redis-servers behind it and a view of the cluster that the test writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use vigie::base::node::{
    Decision, MasterFacts, NodeState, Process, ProxyFacts, RedisFacts, Roles, SentinelFacts, clipped,
};
use vigie::base::{Credentials, Purpose, RunId, Secret};
use vigie::config;
use vigie::cores::cluster::{NodeView, Part, View};
use vigie::runtime::journal::Journal;
use vigie::runtime::proxy::{Counters, ProxyError, Setup, run};

const PASSWORD: &str = "open sesame";
const LONG: Duration = Duration::from_secs(20);

/// An address that nothing else on the machine uses, not even as the near end of a connection: a port of 127.0.0.1 that was
/// free a moment ago may be that.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    numbered(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn numbered(number: u8) -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, high | 1, low, number], 7_000))
}

/// Asks until it is so, or fails with `what`.
fn wait_for<T>(what: &str, mut so: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = so() {
            return found;
        }
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A redis-server of the test's own.
struct Redis {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let (dir, address) = (tempfile::tempdir().unwrap(), own_address());
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", &address.ip().to_string()])
            .args(["--save", "", "--requirepass", PASSWORD])
            .args(["--proto-max-bulk-len", "512mb", "--maxclients", "20000", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let redis = Self { child, address, _dir: dir };
        wait_for("redis-server answers", || TcpStream::connect(redis.address).ok());
        let check = credentials().own(Purpose::Check);
        let user = format!("ACL SETUSER vigie-check on >{} +ping +role", check.current().reveal());
        assert_eq!(redis.client().ask(&user), "+OK");
        redis
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Keys it holds.
    fn size(&self) -> String {
        self.client().ask("DBSIZE")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A blocking client that has authenticated.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let mut client = Self::bare(address);
        assert_eq!(client.ask(&format!("AUTH \"{PASSWORD}\"")), "+OK");
        client
    }

    fn bare(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends an inline command and returns the first line of the reply.
    fn ask(&mut self, command: &str) -> String {
        self.say(&format!("{command}\r\n"));
        self.line()
    }

    /// Whether the other side has closed; waits for it.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// A running proxy.
struct Proxy {
    address: SocketAddr,
    view: watch::Sender<Arc<View>>,
    usable: watch::Receiver<Result<(), String>>,
    posted: mpsc::Receiver<Part>,
    facts: Option<ProxyFacts>,
    fault: Option<String>,
    journal: Journal,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<(), ProxyError>>>,
    epoch: u64,
}

fn config(port: u16) -> config::Proxy {
    config::Proxy {
        port,
        connect_timeout: Duration::from_secs(4),
        check_interval: Duration::from_millis(200),
        hold_timeout: Duration::from_secs(15),
        max_clients: 12_000,
    }
}

fn credentials() -> Credentials {
    Credentials::new("mymaster", Secret::new(PASSWORD).into(), None)
}

fn view(decision: Option<Decision>) -> Arc<View> {
    let roles = |proxy| Roles { proxy, redis: false, sentinel: !proxy };
    let node = |name: &str, roles: Roles, sentinel| NodeView {
        state: Some(NodeState { sentinel, ..NodeState::new(name.parse().unwrap(), clipped("test"), roles) }),
        fresh: true,
        ..NodeView::new(name.parse().unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST), roles)
    };
    let master = MasterFacts { name: clipped("mymaster"), decision, ..MasterFacts::default() };
    let current_epoch = decision.map_or(0, |decision| decision.epoch);
    let sentinel = SentinelFacts { id: RunId([1; 20]), current_epoch, masters: [master].into_iter().collect() };
    let mut nodes = vec![node("proxy-01", roles(true), None), node("redis-01", roles(false), Some(sentinel))];
    // Its supervisor is heard, and has not asked it for its role yet.
    if let (Some(decision), Some(state)) = (decision, &mut nodes[1].state) {
        state.redis = Some(RedisFacts { process: Process::Alive, ..RedisFacts::new(decision.master, 1) });
    }
    Arc::new(View { at: vigie::base::Instant::START, me: 0, nodes })
}

impl Proxy {
    fn start(change: impl FnOnce(&mut config::Proxy)) -> Self {
        Self::start_on(own_address(), change)
    }

    fn start_on(address: SocketAddr, change: impl FnOnce(&mut config::Proxy)) -> Self {
        let mut config = config(address.port());
        change(&mut config);
        let setup = Setup {
            config,
            listen: vec![address],
            master_name: "mymaster".into(),
            // Whatever address a redis of these tests gets.
            masters: (0..=u8::MAX).map(numbered).collect(),
            credentials: watch::channel(Arc::new(credentials())).1,
            presence: None,
            node: "proxy-01".parse().unwrap(),
            counters: Arc::default(),
        };
        let counters = Arc::clone(&setup.counters);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (view, viewed) = watch::channel(view(None));
        let (usable_tx, usable) = watch::channel(Err("not started".into()));
        let (post, posted) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(false);
        let journal = Journal::new();
        let running = run(setup, viewed, usable_tx, post, journal.clone(), stopped);
        let thread = Some(std::thread::spawn(move || runtime.block_on(running)));
        let (facts, fault, epoch) = (None, None, 0);
        Self { address, view, usable, posted, facts, fault, journal, counters, stop, thread, epoch }
    }

    /// Started, and it accepts clients.
    fn listening(change: impl FnOnce(&mut config::Proxy)) -> Self {
        let mut proxy = Self::start(change);
        proxy.until("it listens", |facts| facts.listening);
        proxy
    }

    /// Listening, with a route to `redis`.
    fn to(redis: &Redis, change: impl FnOnce(&mut config::Proxy)) -> Self {
        let mut proxy = Self::listening(change);
        proxy.route(redis);
        proxy
    }

    /// The sentinels name `address`.
    fn decide(&mut self, address: SocketAddr) -> Decision {
        self.epoch += 1;
        let decision = Decision { master: address, epoch: self.epoch };
        self.view.send_replace(view(Some(decision)));
        decision
    }

    fn route(&mut self, redis: &Redis) {
        let decision = self.decide(redis.address);
        self.until("it has the route", |facts| facts.route == Some(decision));
    }

    fn drain_posts(&mut self) {
        while let Ok(part) = self.posted.try_recv() {
            match part {
                Part::Proxy(facts) => self.facts = Some(facts),
                Part::Fault { source: "proxy", reason } => self.fault = reason,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn until(&mut self, what: &str, so: impl Fn(&ProxyFacts) -> bool) {
        wait_for(what, || {
            self.drain_posts();
            self.facts.filter(&so)
        });
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    fn stop(&mut self) {
        self.stop.send_replace(true);
        let Some(thread) = self.thread.take() else { return };
        // Posts that nobody takes would keep it from stopping.
        wait_for("it stops", || {
            self.drain_posts();
            thread.is_finished().then_some(())
        });
        thread.join().expect("without a panic").expect("without an error");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

#[test]
fn relays_requests_and_pipelines() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |_| {});
    let mut client = proxy.client();
    assert_eq!(client.ask("SET k v"), "+OK");
    assert_eq!((client.ask("GET k"), client.line()), ("$1".into(), "v".into()));
    let writer = {
        let mut stream = client.0.get_ref().try_clone().unwrap();
        std::thread::spawn(move || stream.write_all("INCR n\r\n".repeat(10_000).as_bytes()).unwrap())
    };
    for n in 1..=10_000 {
        assert_eq!(client.line(), format!(":{n}"));
    }
    writer.join().unwrap();
    let totals = proxy.counters.totals();
    assert_eq!((totals.clients, totals.accepted, totals.refused, totals.cut), (1, 1, 0, 0));
    assert!(totals.bytes_in >= 80_000 && totals.bytes_out >= 58_000, "{totals:?}");
}

#[test]
fn large_values_pass_both_ways() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |_| {});
    let value: Vec<u8> = (0..32 * 1024 * 1024_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut client = proxy.client();
    client.say(&format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()));
    client.0.get_mut().write_all(&value).unwrap();
    client.say("\r\n");
    assert_eq!(client.line(), "+OK");
    assert_eq!(client.ask("GET k"), format!("${}", value.len()));
    let mut got = vec![0; value.len()];
    client.0.read_exact(&mut got).unwrap();
    assert!(got == value, "the value came back changed");
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[test]
fn a_slow_reader_stops_its_sender_and_costs_no_memory() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |_| {});
    assert_eq!(redis.client().ask("SETRANGE k 1048575 x"), ":1048576");
    let mut client = proxy.client();
    let before = (resident(), proxy.counters.totals().bytes_out);
    // 128 MiB of replies are asked for and not read; redis keeps them, for the proxy takes only what TCP buffers.
    client.say(&"GET k\r\n".repeat(128));
    let mut held = 0;
    wait_for("the flow stands still", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = proxy.counters.totals().bytes_out;
        let still = now > 0 && now == held;
        held = now;
        still.then_some(())
    });
    assert!(held - before.1 < 64 << 20, "{held} bytes were taken from redis for a client that does not read");
    // Other tests run in this process at the same time; what would grow here is all of the 128 MiB.
    assert!(resident() < before.0 + (100 << 20));
    for _ in 0..128 {
        assert_eq!(client.line(), "$1048576");
        let mut value = vec![0; 1_048_578];
        client.0.read_exact(&mut value).unwrap();
    }
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn blocking_commands_and_subscriptions_pass() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |_| {});
    let (mut blocked, mut subscriber, mut other) = (proxy.client(), proxy.client(), proxy.client());
    blocked.say("BLPOP list 0\r\n");
    assert_eq!(subscriber.ask("SUBSCRIBE news"), "*3");
    for expected in ["$9", "subscribe", "$4", "news", ":1"] {
        assert_eq!(subscriber.line(), expected);
    }
    wait_for("the client is blocked", || {
        other.say("INFO clients\r\n");
        let (mut blocked, mut length) = (false, other.line()[1..].parse::<usize>().unwrap() + 2);
        while length > 0 {
            let line = other.line();
            blocked |= line == "blocked_clients:1";
            length -= line.len() + 2;
        }
        blocked.then_some(())
    });
    assert_eq!(other.ask("RPUSH list x"), ":1");
    assert_eq!([(); 5].map(|()| blocked.line()), ["*2", "$4", "list", "$1", "x"]);
    assert_eq!(other.ask("PUBLISH news hot"), ":1");
    assert_eq!([(); 7].map(|()| subscriber.line()), ["*3", "$7", "message", "$4", "news", "$3", "hot"]);
}

#[test]
fn a_switch_cuts_all_sessions_and_writes_reach_the_target_only() {
    let (old, new) = (Redis::start(), Redis::start());
    let mut proxy = Proxy::to(&old, |_| {});
    let mut idle: Vec<_> = (0..500).map(|_| proxy.client()).collect();
    let active: Vec<_> = (0..8)
        .map(|n| {
            let mut client = proxy.client();
            std::thread::spawn(move || {
                let mut written = 0;
                loop {
                    let sent = client.0.get_mut().write_all(format!("SET {n}-{written} x\r\n").as_bytes());
                    let mut line = String::new();
                    if sent.is_err() || client.0.read_line(&mut line).is_err() || line != "+OK\r\n" {
                        // Nothing is inserted into a stream that is cut.
                        assert!(line.is_empty(), "{line:?}");
                        return written;
                    }
                    written += 1;
                }
            })
        })
        .collect();
    wait_for("writes flow", || (old.size() != ":0").then_some(()));
    proxy.route(&new);
    for client in &mut idle {
        assert!(client.is_closed());
    }
    let written: u32 = active.into_iter().map(|client| client.join().unwrap()).sum();
    wait_for("all are counted", || (proxy.counters.totals().cut == 508).then_some(()));
    let size: u32 = old.size()[1..].parse().unwrap();
    assert!((written..=written + 8).contains(&size), "{written} acknowledged, {size} held");
    assert_eq!(new.size(), ":0");
    let before = old.size();
    for n in 0..50 {
        assert_eq!(proxy.client().ask(&format!("SET new-{n} x")), "+OK");
    }
    assert_eq!((old.size(), new.size()), (before, ":50".into()));
}

#[test]
fn a_redis_that_is_no_master_gets_no_client() {
    let (master, replica) = (Redis::start(), Redis::start());
    assert_eq!(replica.client().ask(&format!("REPLICAOF {} {}", master.address.ip(), master.address.port())), "+OK");
    let mut proxy = Proxy::listening(|config| config.hold_timeout = Duration::from_millis(300));
    proxy.decide(replica.address);
    let error = Client::bare(proxy.address).ask("PING");
    assert!(error.starts_with("-MASTERDOWN "), "{error}");
    // It is promoted: now it proves itself without a new decision.
    assert_eq!(replica.client().ask("REPLICAOF NO ONE"), "+OK");
    proxy.until("the promoted one is the route", |facts| facts.route.is_some());
    assert_eq!(proxy.client().ask("SET a b"), "+OK");
    // And demoted: found by the check.
    assert_eq!(replica.client().ask(&format!("REPLICAOF {} {}", master.address.ip(), master.address.port())), "+OK");
    proxy.until("the demoted one is no route", |facts| facts.route.is_none());
}

#[test]
fn requests_are_held_until_a_master_appears() {
    let redis = Redis::start();
    let mut proxy = Proxy::listening(|_| {});
    let mut held: Vec<_> = (0..50).map(|_| Client::bare(proxy.address)).collect();
    for client in &mut held {
        client.say(&format!("AUTH \"{PASSWORD}\"\r\nINCR n\r\n"));
    }
    // One gives up meanwhile: what it asked must not be done.
    drop(held.pop());
    wait_for("the one that left is gone", || (proxy.counters.totals().clients == 49).then_some(()));
    proxy.route(&redis);
    let mut replies: Vec<u32> = held
        .iter_mut()
        .map(|client| {
            assert_eq!(client.line(), "+OK");
            client.line()[1..].parse().unwrap()
        })
        .collect();
    replies.sort_unstable();
    assert_eq!(replies, (1..=49).collect::<Vec<_>>());
}

#[test]
fn a_request_that_waited_too_long_gets_an_error_and_is_closed() {
    let proxy = Proxy::listening(|config| config.hold_timeout = Duration::from_millis(100));
    let mut client = Client::bare(proxy.address);
    client.say(&"PING\r\n".repeat(1_000));
    let error = client.line();
    let start = "-MASTERDOWN proxy proxy-01 cannot reach the master of mymaster: there is no master; waited 1";
    assert!(error.starts_with(start) && error.ends_with(" ms"), "{error}");
    assert!(client.is_closed());
    assert_eq!(proxy.counters.totals().refused, 1);
}

#[test]
fn a_master_that_cannot_be_connected_to_is_named_in_the_error() {
    // Says that it is a master to the first connection, then refuses.
    let address = own_address();
    let listener = TcpListener::bind(address).unwrap();
    let once = std::thread::spawn(move || {
        let mut check = listener.accept().unwrap().0;
        drop(listener);
        check.write_all(b"+OK\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n").unwrap();
        let _ = check.read_to_end(&mut Vec::new());
    });
    let mut proxy = Proxy::listening(|config| {
        config.hold_timeout = Duration::ZERO;
        config.check_interval = Duration::from_secs(60);
    });
    let decision = proxy.decide(address);
    proxy.until("the route stands", |facts| facts.route == Some(decision));
    let error = Client::bare(proxy.address).ask("PING");
    assert!(error.starts_with("-MASTERDOWN ") && error.contains(&format!("{address}: Connection refused")), "{error}");
    // Which is a reason to check at once.
    proxy.until("the route is gone", |facts| facts.route.is_none());
    once.join().unwrap();
}

#[test]
fn what_was_not_yet_sent_to_an_old_master_is_never_sent() {
    // Says that it is a master, then takes nothing more from its client.
    let address = own_address();
    let listener = TcpListener::bind(address).unwrap();
    let stuck = std::thread::spawn(move || {
        loop {
            let mut stream = listener.accept().unwrap().0;
            let mut first = [0; 4];
            stream.read_exact(&mut first).unwrap();
            if first != *b"*3\r\n" {
                return stream;
            }
            stream.write_all(b"+OK\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let new = Redis::start();
    let mut proxy = Proxy::listening(|config| config.check_interval = Duration::from_secs(60));
    let decision = proxy.decide(address);
    proxy.until("the route stands", |facts| facts.route == Some(decision));
    let mut client = Client::bare(proxy.address).0.into_inner();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.write_all(&[b'x'; 1 << 16]).is_ok() {}
    let mut old = stuck.join().unwrap();
    proxy.route(&new);
    wait_for("the session is cut", || (proxy.counters.totals().clients == 0).then_some(()));
    // It gets what had arrived there before, and then a reset instead of the rest and an end.
    let rest = old.read_to_end(&mut Vec::new());
    assert_eq!(rest.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

#[test]
fn a_client_too_many_gets_the_words_of_redis() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |config| config.max_clients = 2);
    let clients = [proxy.client(), proxy.client()];
    let mut third = Client::bare(proxy.address);
    assert_eq!(third.ask("PING"), "-ERR max number of clients reached");
    assert!(third.is_closed());
    drop(clients);
    wait_for("there is room again", || (proxy.counters.totals().clients == 0).then_some(()));
    assert_eq!(proxy.client().ask("PING"), "+PONG");
}

/// A connection from that address, which says nothing.
fn silent_from(source: [u8; 4], to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    Client(BufReader::new(socket.into()))
}

#[test]
fn a_silent_crowd_gives_way_and_those_who_have_spoken_do_not() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |config| config.max_clients = 40);
    let mut speaking: Vec<_> = (0..10).map(|_| proxy.client()).collect();
    let mut lonely = silent_from([127, 9, 9, 9], proxy.address);
    let crowd: Vec<_> = (0..300_u16).map(|n| silent_from([127, 8, 8, 1 + (n % 2) as u8], proxy.address)).collect();
    // None of them was turned away, and at no time are there more than are allowed.
    wait_for("the rest of the crowd is gone", || {
        let totals = proxy.counters.totals();
        (totals.accepted == 311 && totals.clients == 40).then_some(())
    });
    assert_eq!(proxy.counters.totals().refused, 0);
    for client in &mut speaking {
        assert_eq!(client.ask("PING"), "+PONG");
    }
    let mut late: Vec<_> = (0..5).map(|_| proxy.client()).collect();
    late.iter_mut().for_each(|client| assert_eq!(client.ask("PING"), "+PONG"));
    // The one from elsewhere, older than all of the crowd, is still there.
    assert_eq!(lonely.ask(&format!("AUTH \"{PASSWORD}\"")), "+OK");
    drop(crowd);
    let (records, _) = proxy.journal.follow();
    let told: Vec<_> = records.into_iter().filter(|record| record.name == "crowd").map(|record| record.text).collect();
    assert!(told.len() == 1 && told[0].contains("127.8.8."), "{told:?}");
}

#[test]
fn one_source_has_half_of_the_places_for_its_silent_ones() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |config| config.max_clients = 40);
    let crowd: Vec<_> = (0..30).map(|_| silent_from([127, 8, 8, 8], proxy.address)).collect();
    // All have come: there are 20 on the way up, too.
    wait_for("half of the places are taken", || {
        let totals = proxy.counters.totals();
        (totals.accepted == 30 && totals.clients == 20).then_some(())
    });
    assert_eq!(proxy.counters.totals().silent, 10);
    drop(crowd);
}

#[test]
fn a_client_that_says_nothing_is_closed_after_a_while() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |_| {});
    let start = Instant::now();
    let (mut silent, mut idle) = (Client::bare(proxy.address), proxy.client());
    assert!(silent.is_closed());
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
    assert_eq!((proxy.counters.totals().silent, idle.ask("PING")), (1, "+PONG".into()));
}

#[test]
fn a_client_that_closes_one_side_gets_its_replies() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |_| {});
    let mut client = proxy.client();
    client.say("PING\r\nECHO bye\r\n");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    client.0.read_to_string(&mut all).unwrap();
    assert_eq!(all, "+PONG\r\n$3\r\nbye\r\n");
    wait_for("the session is over", || (proxy.counters.totals().clients == 0).then_some(()));
}

#[test]
fn garbage_is_for_redis_to_answer() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis, |_| {});
    let mut client = proxy.client();
    // More than redis reads before it closes: its last words must survive that.
    client.say(&format!("*1\r\n$x\r\n{}", "garbage ".repeat(1_000)));
    assert_eq!(client.line(), "-ERR Protocol error: invalid bulk length");
    assert!(client.is_closed());
}

#[test]
fn a_master_that_dies_ends_its_sessions_and_the_route() {
    let mut redis = Redis::start();
    let mut proxy = Proxy::to(&redis, |_| {});
    let mut client = proxy.client();
    redis.child.kill().unwrap();
    assert!(client.is_closed());
    proxy.until("the check finds out", |facts| facts.route.is_none());
}

#[test]
fn a_taken_port_is_said_and_tried_again() {
    let address = own_address();
    let taken = TcpListener::bind(address).unwrap();
    let mut proxy = Proxy::start_on(address, |_| {});
    let fault = wait_for("the fault is posted", || {
        proxy.drain_posts();
        proxy.fault.clone().filter(|fault| fault.contains("listen"))
    });
    assert!(fault.starts_with(&format!("proxy: cannot listen on {address}: Address already in use")), "{fault}");
    assert_eq!(*proxy.usable.borrow(), Err(fault));
    assert!(proxy.facts.is_none_or(|facts| !facts.listening));
    drop(taken);
    proxy.until("it listens", |facts| facts.listening);
    assert_eq!(*proxy.usable.borrow(), Ok(()));
    let names: Vec<_> = proxy.journal.follow().0.into_iter().map(|record| record.name).collect();
    assert!(names.contains(&"vip-unfit".into()) && names.contains(&"listening".into()), "{names:?}");
}

#[test]
fn clients_are_counted_in_what_is_posted() {
    let redis = Redis::start();
    let mut proxy = Proxy::to(&redis, |_| {});
    let clients = [proxy.client(), proxy.client(), proxy.client()];
    proxy.until("three are posted", |facts| facts.clients == 3);
    drop(clients);
    proxy.until("none is posted", |facts| facts.clients == 0);
}

#[test]
fn a_stop_closes_everything() {
    let redis = Redis::start();
    let mut proxy = Proxy::to(&redis, |_| {});
    let (mut relayed, mut silent) = (proxy.client(), Client::bare(proxy.address));
    proxy.stop();
    assert!(relayed.is_closed() && silent.is_closed());
    assert!(TcpStream::connect(proxy.address).is_err());
    assert_eq!(proxy.counters.totals().clients, 0);
    // The port is free at once.
    TcpListener::bind(proxy.address).unwrap();
}
