//! The sentinel with real redis-server processes, real redis-cli and, where installed, redis-py and stock sentinels.
//!
//! Everything listens on 127.0.0.1 and on ports that were free a moment before.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use vigie::base::node::{NodeState, Process, RedisFacts, RedisRole, Roles, SentinelFacts};
use vigie::base::{Credentials, Instant, NodeName, Secret};
use vigie::cores::cluster::{NodeView, Part, View};
use vigie::cores::sentinel::{Config, DataNode, FailoverReport, Logins, MasterConfig, Membership, Settings, Voter};
use vigie::runtime::connection::Connection;
use vigie::runtime::journal::Journal;
use vigie::runtime::sentinel::{Door, Order, SentinelError, Setup, run};
use vigie::runtime::store::Store;
use vigie::wire::info::Info;
use vigie::wire::resp::Reply;

const PASSWORD: &str = "hush";
const DOWN_AFTER: Duration = Duration::from_millis(500);

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn redis(directory: &Path, port: u16, master: Option<u16>, password: bool) -> Server {
    let home = directory.join(port.to_string());
    std::fs::create_dir_all(&home).unwrap();
    let mut config = format!("port {port}\nbind 127.0.0.1\nsave \"\"\nrepl-diskless-sync-delay 0\n");
    if password {
        config += &format!("requirepass {PASSWORD}\nmasterauth {PASSWORD}\n");
    }
    if let Some(master) = master {
        config += &format!("replicaof 127.0.0.1 {master}\n");
    }
    std::fs::write(home.join("redis.conf"), config).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(home.join("redis.conf")).arg("--dir").arg(&home);
    Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is installed"))
}

async fn ask(port: u16, args: &[&str], password: bool) -> Option<Reply> {
    let mut connection = Connection::open(at(port), Duration::from_millis(500)).await.ok()?;
    if password {
        connection.ask(&["AUTH", PASSWORD], Duration::from_millis(500)).await.ok()?;
    }
    connection.ask(args, Duration::from_millis(500)).await.ok()
}

/// Waits for a condition; how long it took.
async fn until<F: Future<Output = bool>>(limit: Duration, what: &str, mut holds: impl FnMut() -> F) -> Duration {
    let start = Clock::now();
    while !holds().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

struct Running {
    port: u16,
    orders: mpsc::Sender<Order>,
    journal: Journal,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), SentinelError>>,
}

impl Running {
    async fn leave(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap().unwrap();
    }

    async fn order(&self, to: Option<&str>) -> Result<FailoverReport, String> {
        let (done, result) = oneshot::channel();
        let to = to.map(|name| name.parse().unwrap());
        self.orders.send(Order::Switch { to, done }).await.unwrap();
        result.await.unwrap()
    }
}

struct World {
    directory: tempfile::TempDir,
    redis: Vec<u16>,
    sentinels: Vec<u16>,
    password: bool,
    /// The first of the sentinels that are stock ones.
    stock: usize,
    link: Arc<PeerLink>,
}

/// A peer link within the process: nodes `s-N` with a sentinel, nodes `r-N` with a redis.
#[derive(Default)]
struct PeerLink {
    nodes: Mutex<Vec<NodeView>>,
    views: Mutex<Vec<watch::Sender<Arc<View>>>>,
}

impl PeerLink {
    fn say(&self, name: &str, redis: Option<RedisFacts>, sentinel: Option<SentinelFacts>) {
        let name: NodeName = name.parse().unwrap();
        let (address, roles) = (at(1).ip(), Roles::default());
        let heard = NodeState::new(name.clone(), "0".try_into().unwrap(), roles);
        let state = NodeState { redis, sentinel, ..heard };
        let node = NodeView { state: Some(state), fresh: true, ..NodeView::new(name.clone(), address, roles) };
        let mut nodes = self.nodes.lock().unwrap();
        nodes.retain(|known| known.name != name);
        nodes.push(node);
        let view = Arc::new(View { at: Instant::START, me: 0, nodes: nodes.clone() });
        self.views.lock().unwrap().iter().for_each(|to| drop(to.send(view.clone())));
    }

    fn view(&self) -> Arc<View> {
        Arc::new(View { at: Instant::START, me: 0, nodes: self.nodes.lock().unwrap().clone() })
    }

    /// What the supervisor of redis `n` says.
    fn redis(&self, n: usize, port: u16, process: Process, role: RedisRole) {
        let facts = RedisFacts { process, role, ..RedisFacts::new(at(port), 1) };
        self.say(&format!("r-{n}"), Some(facts), None);
    }
}

impl World {
    fn new(sentinels: usize, password: bool) -> Self {
        let ports = |count: usize| (0..count).map(|_| free_port()).collect();
        let link = Arc::<PeerLink>::default();
        // A redis is connected to only where its node is heard.
        (0..3).for_each(|n| link.say(&format!("r-{n}"), None, None));
        Self {
            directory: tempfile::tempdir().unwrap(),
            redis: ports(3),
            sentinels: ports(sentinels),
            password,
            stock: sentinels,
            link,
        }
    }

    fn servers(&self) -> Vec<Option<Server>> {
        let master = |n| (n > 0).then_some(self.redis[0]);
        (0..3).map(|n| Some(redis(self.directory.path(), self.redis[n], master(n), self.password))).collect()
    }

    fn config(&self, n: usize) -> Config {
        let name = |kind: &str, n: usize| format!("{kind}-{n}").parse::<NodeName>().unwrap();
        let voters = self.sentinels.iter().enumerate();
        let nodes = self.redis.iter().enumerate();
        let password = self.password.then(|| Secret::new(PASSWORD));
        Config {
            membership: Membership::Voters {
                me: name("s", n),
                all: voters
                    .map(|(n, port)| Voter { name: name("s", n), address: at(*port), stock: n >= self.stock })
                    .collect(),
            },
            masters: vec![MasterConfig {
                down_after: DOWN_AFTER,
                busy_grace: Duration::from_secs(5),
                failover_timeout: Duration::from_secs(10),
                nodes: nodes
                    .map(|(n, port)| DataNode { name: name("r", n), address: at(*port), bootstrap: n == 0 })
                    .collect(),
                auth_pass: password.clone(),
                ..MasterConfig::new("mymaster", 2)
            }],
            settings: Settings { sentinel_pass: password.clone(), ..Settings::default() },
            logins: password.map(|password| Logins { applications: password.clone().into(), cluster: password.into() }),
            seed: n as u64,
        }
    }

    fn sentinel(&self, n: usize) -> Running {
        let (orders, orders_rx) = mpsc::channel(4);
        let (view, view_rx) = watch::channel(self.link.view());
        let (post, posted) = mpsc::channel(64);
        let (stop, stop_rx) = watch::channel(false);
        let journal = Journal::new();
        let store = Store::new(self.directory.path().join(format!("s-{n}")));
        let (_, credentials) =
            watch::channel(Arc::new(Credentials::new("mymaster", Secret::new(PASSWORD).into(), None)));
        let (addresses, nodes) = (vec![at(1).ip()], vec![at(1).ip()]);
        let (config, port, door) = (self.config(n), self.sentinels[n], Door::default());
        let setup = Setup { config, store, port, addresses, nodes, credentials, presence: None, door };
        let task = tokio::spawn(run(setup, view_rx, orders_rx, post, journal.clone(), stop_rx));
        let (link, mut posted) = (self.link.clone(), posted);
        link.views.lock().unwrap().push(view);
        // With every sentinel's end the sending end is dropped.
        tokio::spawn(async move {
            while let Some(part) = posted.recv().await {
                if let Part::Sentinel(facts) = part {
                    link.say(&format!("s-{n}"), None, Some(facts));
                }
            }
        });
        Running { port: self.sentinels[n], orders, journal, stop, task }
    }

    async fn master(&self, sentinel: u16) -> Option<u16> {
        let reply = ask(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"], false).await?;
        reply.array()?.get(1)?.integer()?.try_into().ok()
    }

    async fn info(&self, port: u16) -> Option<Info> {
        ask(port, &["INFO"], self.password).await?.text().map(Info::parse)
    }

    /// All sentinels know the master, both replicas and each other.
    async fn settled(&self, master: u16) {
        until(Duration::from_secs(20), "the sentinels know everybody", || async {
            for port in &self.sentinels {
                let Some(reply) = ask(*port, &["SENTINEL", "MASTER", "mymaster"], false).await else { return false };
                let found = fields(&reply);
                let is = |field: &str, value: String| found.iter().any(|(f, v)| f == field && *v == value);
                let known = is("num-slaves", "2".into()) && is("num-other-sentinels", "2".into());
                let recorded = self.master(*port).await == Some(master);
                let Some(slaves) = ask(*port, &["SENTINEL", "SLAVES", "mymaster"], false).await else { return false };
                let linked = |(field, value): &(String, String)| field == "master-link-status" && value == "ok";
                let synced = slaves.array().unwrap_or(&[]).iter().filter(|one| fields(one).iter().any(linked)).count();
                if !(known && recorded && synced == 2 && is("flags", "master".into())) {
                    return false;
                }
            }
            self.in_sync(master).await
        })
        .await;
    }

    async fn in_sync(&self, master: u16) -> bool {
        let Some(info) = self.info(master).await else { return false };
        info.replicas.iter().filter(|replica| replica.online).count() == 2
    }
}

fn fields(map: &Reply) -> Vec<(String, String)> {
    let words: Vec<_> = map.array().unwrap_or(&[]).iter().map(|word| word.text().unwrap_or("").to_owned()).collect();
    words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// What redis-cli prints.
async fn cli(port: u16, args: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.arg("-p").arg(port.to_string()).args(args);
    // Elsewhere: the sentinels run on this very thread.
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    String::from_utf8(output.expect("redis-cli is installed").stdout).unwrap()
}

fn events(sentinel: &Running) -> Vec<String> {
    sentinel.journal.follow().0.into_iter().map(|record| format!("{} {}", record.name, record.text)).collect()
}

#[tokio::test]
async fn a_killed_master_is_replaced_and_a_returning_one_converted() {
    let world = World::new(3, true);
    let mut servers = world.servers();
    let sentinels: Vec<_> = (0..3).map(|n| world.sentinel(n)).collect();
    world.settled(world.redis[0]).await;
    assert!(ask(world.redis[0], &["SET", "a", "1"], true).await.unwrap().is_ok());
    until(Duration::from_secs(5), "the write is everywhere", || async {
        let mut all = true;
        for port in &world.redis[1..] {
            all &= ask(*port, &["GET", "a"], true).await.is_some_and(|reply| reply.text() == Some("1"));
        }
        all
    })
    .await;

    drop(servers[0].take());
    let took = until(DOWN_AFTER + Duration::from_millis(1_500), "a new master", || async {
        let Some(master) = world.master(sentinels[1].port).await else { return false };
        master != world.redis[0] && ask(master, &["SET", "b", "2"], true).await.is_some_and(|reply| reply.is_ok())
    })
    .await;
    println!("first write {took:?} after the kill");
    let master = world.master(sentinels[1].port).await.unwrap();
    for sentinel in &sentinels {
        until(Duration::from_secs(2), "all agree", || async { world.master(sentinel.port).await == Some(master) })
            .await;
    }
    assert!(ask(master, &["GET", "a"], true).await.is_some_and(|reply| reply.text() == Some("1")), "no write is lost");

    // The old master comes back as one, and is made a replica.
    servers[0] = Some(redis(world.directory.path(), world.redis[0], None, true));
    until(Duration::from_secs(10), "the old master follows", || async { world.in_sync(master).await }).await;
    let ended =
        || async { sentinels.iter().any(|s| events(s).iter().any(|event| event.starts_with("+failover-end "))) };
    until(Duration::from_secs(12), "the failover has ended", ended).await;
    for sentinel in sentinels {
        println!("{:#?}", events(&sentinel));
        sentinel.leave().await;
    }
}

#[tokio::test]
async fn closed_redis_are_opened_and_a_proved_death_needs_no_silence() {
    let world = World::new(3, true);
    let closed = |port: &u16| Some(redis(world.directory.path(), *port, Some(1), true));
    let mut servers: Vec<_> = world.redis.iter().map(closed).collect();
    for (n, port) in world.redis.iter().enumerate() {
        world.link.redis(n, *port, Process::Alive, RedisRole::Closed);
    }
    let sentinels: Vec<_> = (0..3).map(|n| world.sentinel(n)).collect();
    world.settled(world.redis[0]).await;
    for (n, port) in world.redis.iter().enumerate() {
        let replica = RedisRole::Replica { of: at(world.redis[0]), link_up: true };
        let role = if n == 0 { RedisRole::Master { replicas: 2 } } else { replica };
        world.link.redis(n, *port, Process::Alive, role);
    }
    assert!(ask(world.redis[0], &["SET", "a", "1"], true).await.unwrap().is_ok());
    drop(servers[0].take());
    world.link.redis(0, world.redis[0], Process::Dead, RedisRole::Master { replicas: 2 });
    let replaced = || async {
        let Some(master) = world.master(sentinels[1].port).await else { return false };
        master != world.redis[0] && ask(master, &["SET", "b", "2"], true).await.is_some_and(|reply| reply.is_ok())
    };
    let start = Clock::now();
    while !replaced().await {
        let events: Vec<_> = sentinels.iter().map(events).collect();
        assert!(start.elapsed() < Duration::from_secs(5), "no new master: {events:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("first write {:?} after the kill", start.elapsed());
    for sentinel in sentinels {
        sentinel.leave().await;
    }
}

#[tokio::test]
async fn an_ordered_switchover_loses_nothing() {
    let world = World::new(3, false);
    let _servers = world.servers();
    let sentinels: Vec<_> = (0..3).map(|n| world.sentinel(n)).collect();
    world.settled(world.redis[0]).await;
    let refused = sentinels[1].order(Some("r-0")).await.unwrap_err();
    assert!(refused.contains("is the master already"), "{refused}");
    let report = sentinels[1].order(Some("r-2")).await.expect("works");
    assert_eq!((report.from, report.to), (at(world.redis[0]), at(world.redis[2])));
    assert_eq!(report.to_node, Some("r-2".parse().unwrap()));
    println!("{report:?}");
    for sentinel in &sentinels {
        let agrees = || async { world.master(sentinel.port).await == Some(world.redis[2]) };
        until(Duration::from_secs(2), "all agree", agrees).await;
    }
    until(Duration::from_secs(10), "all follow", || async { world.in_sync(world.redis[2]).await }).await;
    // Nothing holds writes any more, and the stock command works too.
    assert!(ask(world.redis[2], &["SET", "a", "1"], false).await.unwrap().is_ok());
    world.settled(world.redis[2]).await;
    let begun = || async { cli(sentinels[0].port, &["SENTINEL", "FAILOVER", "mymaster"]).await == "OK\n" };
    until(Duration::from_secs(2), "SENTINEL FAILOVER begins", begun).await;
    let moved = || async { world.master(sentinels[0].port).await != Some(world.redis[2]) };
    until(Duration::from_secs(3), "SENTINEL FAILOVER hands over", moved).await;
    for sentinel in sentinels {
        sentinel.leave().await;
    }
}

#[tokio::test]
async fn unmodified_clients_understand_the_answers() {
    let world = World::new(3, true);
    let _servers = world.servers();
    let sentinels: Vec<_> = (0..3).map(|n| world.sentinel(n)).collect();
    world.settled(world.redis[0]).await;
    let port = sentinels[0].port;
    let address = format!("127.0.0.1\n{}\n", world.redis[0]);
    assert_eq!(cli(port, &["SENTINEL", "get-master-addr-by-name", "mymaster"]).await, address);
    assert_eq!(cli(port, &["SENTINEL", "get-master-addr-by-name", "other"]).await, "\n");
    assert_eq!(
        cli(port, &["SENTINEL", "masters"]).await.lines().take(4).collect::<Vec<_>>(),
        ["name", "mymaster", "ip", "127.0.0.1"]
    );
    assert_eq!(
        cli(port, &["SENTINEL", "slaves", "mymaster"])
            .await
            .lines()
            .filter(|line| *line == "slave-repl-offset")
            .count(),
        2
    );
    assert_eq!(
        cli(port, &["SENTINEL", "sentinels", "mymaster"]).await.lines().filter(|line| *line == "voted-leader").count(),
        2
    );
    assert!(cli(port, &["SENTINEL", "ckquorum", "mymaster"]).await.starts_with("OK 3 usable Sentinels."));
    assert_eq!(cli(port, &["PING"]).await, "PONG\n");
    assert!(cli(port, &["INFO", "sentinel"]).await.contains("master0:name=mymaster,status=ok,"));
    assert!(cli(port, &["SENTINEL", "master", "nobody"]).await.contains("ERR No such master with that name"));

    let script = format!(
        "from redis.sentinel import Sentinel\n\
         s = Sentinel([('127.0.0.1', {port})], socket_timeout=1)\n\
         m = s.master_for('mymaster', password='{PASSWORD}', socket_timeout=1)\n\
         assert m.set('x', 'y')\n\
         assert m.get('x') == b'y'\n\
         assert len(s.discover_slaves('mymaster')) == 2\n\
         print(s.discover_master('mymaster'))\n"
    );
    if Command::new("/usr/bin/python3")
        .args(["-c", "import redis"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
    {
        let python = move || Command::new("/usr/bin/python3").args(["-c", &script]).output().unwrap();
        let output = tokio::task::spawn_blocking(python).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        println!("skipped: /usr/bin/python3 has no redis module");
    }
    for sentinel in sentinels {
        sentinel.leave().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::new(1, false);
    let _taken = TcpListener::bind(("0.0.0.0", world.sentinels[0])).unwrap();
    let error = world.sentinel(0).task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains(&at(world.sentinels[0]).to_string()) && error.contains("in use"), "{error}");
}

/// What the sentinel says, to its end or until nothing comes any more, to a client of that address; how long it took.
fn converse(source: [u8; 4], port: u16, text: &str, wanted: usize) -> (String, Duration) {
    use std::io::{Read, Write};
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&at(port).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let start = Clock::now();
    stream.write_all(text.as_bytes()).unwrap();
    let (mut said, mut more) = (String::new(), [0; 1_024]);
    while said.lines().count() < wanted {
        match stream.read(&mut more) {
            Ok(0) | Err(_) => break,
            Ok(length) => said += std::str::from_utf8(&more[..length]).unwrap(),
        }
    }
    (said, start.elapsed())
}

#[tokio::test]
async fn wrong_passwords_are_told_of_and_answered_slowly() {
    const STRANGER: [u8; 4] = [127, 66, 66, 66];
    let world = World::new(1, true);
    let sentinel = world.sentinel(0);
    until(Duration::from_secs(5), "it answers", || async { ask(sentinel.port, &["PING"], false).await.is_some() })
        .await;
    let port = sentinel.port;
    let talk =
        move |source, text: String, wanted| tokio::task::spawn_blocking(move || converse(source, port, &text, wanted));
    // Guesses in one packet are looked at one after the other: what follows them waits for their answers.
    let guesses = "AUTH a\r\nAUTH default b\r\nHELLO 3 AUTH default c\r\nAUTH d\r\n";
    let guessing = talk(STRANGER, format!("{guesses}AUTH {PASSWORD}\r\n"), 5);
    // Nobody else waits meanwhile, from there or from elsewhere, as long as the password is right.
    for source in [STRANGER, [127, 0, 0, 1]] {
        let (said, took) = talk(source, format!("AUTH {PASSWORD}\r\nPING\r\n"), 2).await.unwrap();
        assert_eq!(said, "+OK\r\n+PONG\r\n");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let (said, took) = guessing.await.unwrap();
    let lines: Vec<_> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["-WRONGPASS", "-WRONGPASS", "-WRONGPASS", "-WRONGPASS", "+OK"]);
    assert!(took >= Duration::from_millis(600), "{took:?}: 0, 100, 200 and 300 ms are expected");
    // One that does not want to be answered is made to wait just the same.
    let (said, took) = talk(STRANGER, format!("CLIENT REPLY OFF\r\n{guesses}CLIENT REPLY ON\r\n"), 1).await.unwrap();
    assert_eq!(said, "+OK\r\n");
    assert!(took >= Duration::from_millis(2_200), "{took:?}");
    until(Duration::from_secs(20), "they are told of", || async {
        let told = events(&sentinel).into_iter().filter(|event| event.starts_with("auth-failed "));
        let counts =
            told.filter_map(|event| event.split_once("from 127.66.66.66 (")?.1.split(' ').next()?.parse::<u64>().ok());
        counts.sum::<u64>() == 8
    })
    .await;
    // Many connections at once bring no more guesses: the rest is closed unheard, and nobody from elsewhere waits for it.
    let guessing = tokio::task::spawn_blocking(move || {
        let all: Vec<_> =
            (0..600).map(|_| std::thread::spawn(move || converse(STRANGER, port, "AUTH e\r\n", 1).0)).collect();
        all.into_iter().map(|one| one.join().unwrap_or_default()).filter(|said| said.starts_with("-WRONGPASS")).count()
    });
    let (said, _) = talk([127, 0, 0, 1], format!("AUTH {PASSWORD}\r\nPING\r\n"), 2).await.unwrap();
    assert_eq!(said, "+OK\r\n+PONG\r\n");
    let heard = guessing.await.unwrap();
    assert!((1..600).contains(&heard), "{heard} of 600 guesses at once were looked at");
    println!("{heard} of 600 guesses at once were looked at");
    sentinel.leave().await;
}

#[tokio::test]
async fn a_client_that_gives_no_command_is_closed_after_a_while() {
    let world = World::new(1, false);
    let sentinel = world.sentinel(0);
    until(Duration::from_secs(5), "it answers", || async { ask(sentinel.port, &["PING"], false).await.is_some() })
        .await;
    let mut idle = Connection::open(at(sentinel.port), Duration::from_secs(5)).await.unwrap();
    idle.ask(&["PING"], Duration::from_secs(5)).await.unwrap();
    let port = sentinel.port;
    for text in ["", "*2\r\n$4\r\nPI"] {
        let silent = tokio::task::spawn_blocking(move || converse([127, 0, 0, 1], port, text, 1));
        let (said, took) = silent.await.unwrap();
        assert!(said.is_empty() && took >= Duration::from_secs(9), "{said:?} after {took:?}");
    }
    assert_eq!(idle.ask(&["PING"], Duration::from_secs(5)).await.unwrap().text(), Some("PONG"));
    sentinel.leave().await;
}

#[tokio::test]
async fn garbage_gets_an_error_and_a_close() {
    use std::io::{Read, Write};
    let world = World::new(1, false);
    let sentinel = world.sentinel(0);
    until(Duration::from_secs(5), "it answers", || async { ask(sentinel.port, &["PING"], false).await.is_some() })
        .await;
    let port = sentinel.port;
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at(port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"PING\r\n\n*1\r\n!nonsense\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    let said = said.await.unwrap();
    assert!(said.starts_with("+PONG\r\n-ERR Protocol error"), "{said:?}");
    sentinel.leave().await;
}

/// A stock sentinel: the same program as redis-server.
fn stock(directory: &Path, port: u16, master: u16) -> Server {
    let file = directory.join(format!("stock-{port}.conf"));
    let config = format!(
        "port {port}\nbind 127.0.0.1\nlogfile \"{}\"\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n",
        directory.join(format!("stock-{port}.log")).display()
    );
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
    Server(command.spawn().expect("redis-server is installed"))
}

/// The others are stock; with two of them ours may only vote, with one it mostly leads. Either way they elect together.
async fn elects_with_stock(ours: usize) {
    let mut world = World::new(3, false);
    world.stock = ours;
    let mut servers = world.servers();
    let sentinels: Vec<_> = (0..ours).map(|n| world.sentinel(n)).collect();
    let _stock: Vec<_> = (ours..3).map(|n| stock(world.directory.path(), world.sentinels[n], world.redis[0])).collect();
    world.settled(world.redis[0]).await;
    drop(servers[0].take());
    for port in &world.sentinels {
        let moved = || async { world.master(*port).await.is_some_and(|master| master != world.redis[0]) };
        let took = until(Duration::from_secs(20), "every sentinel knows a new master", moved).await;
        println!("{port} knew after {took:?}");
    }
    let master = world.master(world.sentinels[0]).await;
    for port in &world.sentinels {
        until(Duration::from_secs(10), "all agree", || async { world.master(*port).await == master }).await;
    }
    for sentinel in sentinels {
        println!("{:#?}", events(&sentinel));
        sentinel.leave().await;
    }
}

#[tokio::test]
async fn a_stock_sentinel_votes_with_two_of_ours() {
    elects_with_stock(2).await;
}

#[tokio::test]
async fn ours_votes_with_two_stock_sentinels() {
    elects_with_stock(1).await;
}
