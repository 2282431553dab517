//! The supervisor with real servers, on loopback addresses of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop where it stands")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use vigie::base::node::{Decision, MasterFacts, NodeState, Process, RedisFacts, RedisRole, Roles, SentinelFacts};
use vigie::base::secret::{CHECK_USER, CONTROL_USER, REPLICA_USER};
use vigie::base::{Credentials, NodeName, Purpose, RunId, Secret, Secrets};
use vigie::config::{self, Persistence};
use vigie::cores::cluster::{NodeView, Part, View};
use vigie::runtime::clock;
use vigie::runtime::fence;
use vigie::runtime::journal::Journal;
use vigie::runtime::redis::{self, RedisError, Setup};

const PASSWORD: &str = "a \"strange\\ password";
const SECRET: &str = "the secret of the cluster itself";
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node under test: what it posts, and what it is told.
struct Node {
    address: SocketAddr,
    view: watch::Sender<Arc<View>>,
    stop: watch::Sender<bool>,
    posts: mpsc::Receiver<Part>,
    faults: Vec<Option<String>>,
    task: tokio::task::JoinHandle<Result<(), RedisError>>,
}

const PORT: u16 = 16_379;

/// Every node has a loopback address of its own, so that tests may run at once.
fn address(node: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, node, high, low))
}

fn own_address() -> IpAddr {
    static NODES: AtomicU8 = AtomicU8::new(10);
    address(NODES.fetch_add(1, Ordering::Relaxed))
}

fn credentials() -> Credentials {
    Credentials::new("mymaster", Secret::new(PASSWORD).into(), Some(Secret::new(SECRET).into()))
}

fn setup(dir: &Path) -> Setup {
    Setup {
        config: config::Redis {
            port: PORT,
            server: std::env::var("VIGIE_TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned()),
            data_dir: None,
            user: None,
            persistence: Persistence::Aof,
            include: vec![],
            tune_host: false,
        },
        cluster: "mymaster".to_owned(),
        address: own_address(),
        node: "redis-01".parse().unwrap(),
        credentials: watch::channel(Arc::new(credentials())).1,
        nodes: (10..200).map(|node| SocketAddr::new(address(node), PORT)).collect(),
        state_dir: dir.to_owned(),
        priority: 100,
        life: 0,
        lease: watch::channel(None).1,
        fencing: false,
        fence: Arc::new(fence::start(None).unwrap().fence),
    }
}

/// A cluster in which one sentinel speaks.
fn view(decision: Option<Decision>) -> Arc<View> {
    let name: NodeName = "redis-01".parse().unwrap();
    let roles = Roles { redis: true, sentinel: true, proxy: false };
    let master = MasterFacts { name: "mymaster".try_into().unwrap(), decision, ..MasterFacts::default() };
    let masters = heapless::Vec::from_slice(&[master]).unwrap();
    let sentinel = Some(SentinelFacts { id: RunId([7; 20]), current_epoch: 1, masters });
    let state = NodeState { sentinel, ..NodeState::new(name.clone(), "0".try_into().unwrap(), roles) };
    let (address, at) = (IpAddr::V4(Ipv4Addr::LOCALHOST), clock::now());
    let node = NodeView { state: Some(state), fresh: true, ..NodeView::new(name, address, roles) };
    Arc::new(View { at, me: 0, nodes: vec![node] })
}

impl Node {
    fn start(setup: Setup) -> Self {
        let (view, view_rx) = watch::channel(view(None));
        let (stop, stop_rx) = watch::channel(false);
        let (post, posts) = mpsc::channel(64);
        let address = SocketAddr::new(setup.address, setup.config.port);
        let task = tokio::spawn(redis::run(setup, view_rx, post, Journal::new(), stop_rx));
        Self { address, view, stop, posts, faults: vec![], task }
    }

    fn decide(&self, master: SocketAddr, epoch: u64) {
        self.view.send_replace(view(Some(Decision { master, epoch })));
    }

    /// The first facts posted that are as they should be.
    async fn facts(&mut self, wanted: impl Fn(&RedisFacts) -> bool) -> RedisFacts {
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.posts.recv().await {
                    Some(Part::Redis(facts)) if wanted(&facts) => return facts,
                    Some(Part::Redis(facts)) => last = Some(facts),
                    Some(Part::Fault { reason, .. }) => self.faults.push(reason),
                    Some(other) => panic!("{other:?}"),
                    None => panic!("the supervisor has left"),
                }
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("never posted; last: {last:?}, faults: {:?}", self.faults))
    }

    async fn alive(&mut self) -> RedisFacts {
        self.facts(|facts| facts.process == Process::Alive && facts.role != RedisRole::Unknown).await
    }

    async fn fault(&mut self, part: &str) -> String {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.posts.recv().await {
                    Some(Part::Fault { reason: Some(reason), .. }) if reason.contains(part) => return reason,
                    Some(Part::Fault { reason, .. }) => self.faults.push(reason),
                    Some(_) => {}
                    None => panic!("the supervisor has left"),
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("no fault with {part:?}, but {:?}", self.faults))
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        self.facts(|facts| facts.process == Process::Dead).await;
        self.task.await.unwrap().unwrap();
        assert!(TcpStream::connect(self.address).is_err(), "redis has ended");
    }

    fn client(&self) -> Client {
        Client::open(self.address)
    }

    /// What an elected sentinel does.
    fn promote(&self) {
        assert_eq!(self.control().say("REPLICAOF NO ONE"), "+OK");
    }

    /// A sentinel's connection.
    fn control(&self) -> Client {
        Client::of(self.address, CONTROL_USER, credentials().own(Purpose::Control).current().reveal())
    }
}

/// A client that sends inline commands and reads one line of each answer.
struct Client(BufReader<TcpStream>);

impl Client {
    fn open(address: SocketAddr) -> Self {
        let mut client = Self::stranger(address);
        assert_eq!(client.say(r#"AUTH "a \"strange\\ password""#), "+OK");
        client
    }

    fn of(address: SocketAddr, user: &str, password: &str) -> Self {
        let mut client = Self::stranger(address);
        assert_eq!(client.say(&format!("AUTH {user} {password}")), "+OK");
        client
    }

    fn stranger(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The whole of a bulk answer.
    fn ask(&mut self, command: &str) -> String {
        let head = self.say(command);
        let length: usize =
            head.strip_prefix('$').and_then(|length| length.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        let mut body = vec![0; length + 2];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap().trim_end().to_owned()
    }

    fn pid(&mut self) -> i32 {
        let info = self.ask("INFO server");
        let line = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        line.unwrap().trim().parse().unwrap()
    }
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

async fn eventually(what: &str, mut wanted: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !wanted() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn redis_starts_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(setup(dir.path()));
    let facts = node.alive().await;
    assert_eq!((facts.role, facts.incarnation, facts.has_data), (RedisRole::Closed, 1, false));
    assert!(facts.run_id.is_some() && facts.replication_id.is_some());
    let mut client = node.client();
    let refused = client.say("SET a 1");
    assert!(refused.starts_with("-READONLY"), "{refused}");
    let replication = credentials().own(Purpose::Replication);
    let refused = Client::of(node.address, REPLICA_USER, replication.current().reveal()).say("PSYNC ? -1");
    assert!(refused.starts_with("-NOMASTERLINK"), "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn redis_has_nothing_of_vigie() {
    let dir = tempfile::tempdir().unwrap();
    // What a version before wrote, and what is not vigie's.
    fs::write(dir.path().join("redis.conf"), "# Written by vigie at every start of redis\nrequirepass x\n").unwrap();
    let mut node = Node::start(setup(dir.path()));
    node.alive().await;
    assert!(!dir.path().join("redis.conf").exists());
    let pid = node.client().pid();
    let proc = |name: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap()).into_owned();
    let status = proc("status");
    assert!(status.contains("NoNewPrivs:\t1") && !status.contains("THP_enabled:\t1"), "{status}");
    let limits = proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..], ["1", "1", "bytes"]);
    if nix::unistd::geteuid().is_root() && fs::read_to_string("/etc/passwd").unwrap().contains("\nredis:") {
        for ids in ["Uid:\t0", "Gid:\t0"] {
            assert!(!status.contains(ids), "{status}");
        }
        for line in ["Groups:\t \n", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
            assert!(status.contains(line), "{status}");
        }
        let data = fs::metadata(dir.path().join("redis")).unwrap();
        assert_ne!(std::os::unix::fs::MetadataExt::uid(&data), 0);
    }
    // Most of it is under the name that redis gives itself there.
    let environment = proc("environ");
    let mut variables = environment.split('\0').filter(|pair| pair.contains('='));
    assert!(variables.all(|pair| pair.starts_with("PATH=") || pair == "LANG=C"), "{environment}");
    let secrets = [Purpose::Control, Purpose::Replication, Purpose::Check, Purpose::Link, Purpose::Sentinel]
        .map(|purpose| credentials().own(purpose).current().reveal().to_owned());
    for secret in secrets.iter().map(String::as_str).chain([PASSWORD, SECRET]) {
        let visible = proc("cmdline") + &proc("environ");
        assert!(!visible.contains(secret));
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read(&path).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(secret), "{}", path.display());
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn applications_may_not_do_what_is_of_vigie() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(setup(dir.path()));
    node.alive().await;
    node.promote();
    let mut client = node.client();
    for refused in [
        "CONFIG SET dir /tmp",
        "CONFIG SET requirepass x",
        "CONFIG SET masterauth x",
        "CONFIG REWRITE",
        "MODULE LOAD /tmp/x.so",
        "DEBUG SLEEP 0",
        "SHUTDOWN NOSAVE",
        "REPLICAOF 127.0.0.1 2",
        "SLAVEOF NO ONE",
        "ACL SETUSER default nopass",
        "ACL LIST",
        "CLIENT PAUSE 1",
        "CLIENT UNPAUSE",
        "SCRIPT DEBUG SYNC",
        "PSYNC ? -1",
        "SYNC",
        "REPLCONF listening-port 1",
    ] {
        let said = client.say(refused);
        // Redis 7.0 asks first whether the command is there at all.
        assert!(said.starts_with("-NOPERM ") || said.contains("command not allowed"), "{refused}: {said}");
        let words: Vec<_> = refused.split(' ').map(|word| format!("'{word}'")).collect();
        let said = client.say(&format!("EVAL \"return redis.call({})\" 0", words.join(",")));
        assert!(said.starts_with('-'), "{refused}: {said}");
    }
    for (allowed, said) in [
        ("SET a 1", "+OK"),
        ("EVAL \"return redis.call('INCR','a')\" 0", ":2"),
        ("CLIENT SETNAME app", "+OK"),
        ("BGREWRITEAOF", "+Background append only file rewriting started"),
        ("PUBLISH news x", ":0"),
        ("CONFIG RESETSTAT", "+OK"),
        ("SCRIPT FLUSH", "+OK"),
        ("SWAPDB 0 1", "+OK"),
        ("FLUSHALL", "+OK"),
    ] {
        assert_eq!(client.say(allowed), said, "{allowed}");
    }
    node.stop().await;
}

#[tokio::test]
async fn secrets_change_while_everybody_stays_connected() {
    let dir = tempfile::tempdir().unwrap();
    let (secrets, changing) = watch::channel(Arc::new(credentials()));
    let mut node = Node::start(Setup { credentials: changing, ..setup(dir.path()) });
    node.alive().await;
    let (mut client, mut control) = (node.client(), node.control());
    let log_in = |user: &str, password: &str| Client::stranger(node.address).say(&format!("AUTH {user} {password}"));
    let both = |new: &str, old: &str| Secrets::new(Secret::new(new), Some(Secret::new(old)));
    let new = Credentials::new("mymaster", both("new", PASSWORD), Some(both("new-secret", SECRET)));
    secrets.send_replace(Arc::new(new.clone()));
    eventually("the new password is taken", || log_in("default", "new") == "+OK").await;
    let own = |credentials: &Credentials| credentials.own(Purpose::Control).current().reveal().to_owned();
    eventually("so is the new one of the sentinels", || log_in(CONTROL_USER, &own(&new)) == "+OK").await;
    assert_eq!(log_in(CONTROL_USER, &own(&credentials())), "+OK");
    let masterauth = new.own(Purpose::Replication).current().reveal().to_owned();
    eventually("replication goes over", || {
        client.say("CONFIG GET masterauth");
        let mut lines = [(); 4].map(|()| String::new());
        lines.iter_mut().for_each(|line| drop(client.0.read_line(line)));
        lines[3].trim_end() == masterauth
    })
    .await;
    let new = Credentials::new("mymaster", Secret::new("new").into(), Some(Secret::new("new-secret").into()));
    secrets.send_replace(Arc::new(new.clone()));
    eventually("the old one is not taken", || log_in(CONTROL_USER, &own(&credentials())).starts_with("-WRONGPASS"))
        .await;
    assert_eq!((client.say("PING"), control.say("PING")), ("+PONG".to_owned(), "+PONG".to_owned()));
    // The next start knows the newest only, and its supervisor stays with it.
    kill(client.pid());
    node.facts(|facts| facts.incarnation == 2 && facts.role == RedisRole::Closed).await;
    assert_eq!(Client::stranger(node.address).say("AUTH new"), "+OK");
    node.stop().await;
}

#[tokio::test]
async fn a_redis_whose_users_were_changed_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("users.conf");
    fs::write(&include, "user admin on >hush ~* &* +@all\n").unwrap();
    let mut setup = setup(dir.path());
    setup.config.include = vec![include.to_str().unwrap().to_owned()];
    let mut node = Node::start(setup);
    node.alive().await;
    let changes = [
        "ACL DELUSER vigie-local",
        "ACL SETUSER vigie-local off",
        "ACL SETUSER vigie-local -info",
        "ACL SETUSER vigie-local resetpass",
    ];
    for (incarnation, change) in (2..).zip(changes) {
        let changed = Instant::now();
        let mut admin = Client::of(node.address, "admin", "hush");
        // To be let in without a password is not to be let in as the supervisor.
        assert_eq!(admin.say("ACL SETUSER default nopass"), "+OK");
        let said = admin.say(change);
        assert!(["+OK", ":1", ""].contains(&said.as_str()), "{change}: {said}");
        // A password that was changed is noticed when it is needed: at the next connection.
        admin.say("CLIENT KILL USER vigie-local");
        node.facts(|facts| facts.incarnation == incarnation && facts.role == RedisRole::Closed).await;
        assert!(changed.elapsed() < Duration::from_secs(5), "{change}: {:?}", changed.elapsed());
        let said = node.faults.iter().flatten().any(|fault| fault.contains("refuses its own supervisor"));
        assert!(said, "{change}: {:?}", node.faults);
        node.faults.clear();
    }
    node.stop().await;
}

#[tokio::test]
async fn a_master_that_is_no_node_of_the_file_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut node = Node::start(setup(dir.path()));
    node.alive().await;
    node.decide(stranger.local_addr().unwrap(), 7);
    node.fault("which is no data node of the file").await;
    stranger.set_nonblocking(true).unwrap();
    let second = SocketAddr::new(address(199), PORT);
    node.decide(second, 8);
    node.facts(|facts| matches!(facts.role, RedisRole::Replica { of, .. } if of == second)).await;
    assert!(stranger.accept().is_err(), "nobody came to it");
    node.stop().await;
}

#[tokio::test]
async fn data_of_a_version_that_ran_as_root_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(setup(dir.path()));
    node.alive().await;
    node.promote();
    assert_eq!(node.client().say("SET a 1"), "+OK");
    node.stop().await;
    let chown = |user: &str| Command::new("chown").args(["-R", user]).arg(dir.path()).status().unwrap().success();
    if !chown("0:0") {
        println!("skipped: only root can make what belongs to root");
        return;
    }
    let mut node = Node::start(setup(dir.path()));
    assert!(node.alive().await.has_data);
    node.promote();
    assert_eq!(node.client().say("GET a"), "$1");
    assert_eq!(node.client().say("BGREWRITEAOF"), "+Background append only file rewriting started");
    assert_eq!(node.client().say("SET b 2"), "+OK");
    node.stop().await;
}

#[tokio::test]
async fn nobody_to_run_it_as_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    setup.config.user = Some("no-such-user".to_owned());
    let refused = Node::start(setup).task.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("no such user in /etc/passwd"), "{refused}");
}

#[tokio::test]
async fn the_decision_is_followed_and_a_stale_master_steps_down() {
    let (first_dir, second_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = Node::start(setup(first_dir.path()));
    let mut second = Node::start(setup(second_dir.path()));
    first.alive().await;
    second.alive().await;
    first.promote();
    let mut client = first.client();
    assert_eq!(client.say("SET a 1"), "+OK");
    for node in [&first, &second] {
        node.decide(first.address, 1);
    }
    first.facts(|facts| matches!(facts.role, RedisRole::Master { replicas: 1 })).await;
    let in_sync = RedisRole::Replica { of: first.address, link_up: true };
    let facts = second.facts(|facts| facts.role == in_sync && facts.history.is_some()).await;
    assert_eq!(facts.history.map(|history| (history.epoch, history.in_sync)), Some((1, true)));
    assert!(facts.has_data);
    assert_eq!(second.client().ask("GET a"), "1");

    // The other one is elected: the first steps down and cuts its clients off, also the one that made it hold writes.
    assert_eq!(first.control().say("CLIENT PAUSE 60000 WRITE"), "+OK");
    second.promote();
    for node in [&first, &second] {
        node.decide(second.address, 2);
    }
    let in_sync = RedisRole::Replica { of: second.address, link_up: true };
    let facts = first.facts(|facts| facts.role == in_sync).await;
    assert_eq!(facts.history.map(|history| history.epoch), Some(2));
    assert_eq!(client.say("PING"), "", "the connection was closed");
    assert_eq!(second.client().say("SET b 2"), "+OK");
    eventually("a replica holds nothing", || first.client().ask("GET b") == "2").await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_killed_redis_is_said_dead_and_started_again_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(setup(dir.path()));
    node.alive().await;
    node.promote();
    let mut client = node.client();
    assert_eq!(client.say("SET a 1"), "+OK");
    node.decide(node.address, 1);
    node.facts(|facts| facts.history.is_some()).await;
    kill(client.pid());
    let dead = node.facts(|facts| facts.process == Process::Dead).await;
    assert_eq!((dead.incarnation, dead.role), (1, RedisRole::Unknown));
    let again = node.alive().await;
    assert_eq!((again.incarnation, again.role), (2, RedisRole::Closed));
    node.stop().await;

    // A supervisor that starts later knows where the data came from, and what was started before.
    let mut node = Node::start(setup(dir.path()));
    let facts = node.facts(|facts| facts.process == Process::Dead).await;
    assert_eq!((facts.incarnation, facts.history.map(|history| history.epoch)), (2, Some(1)));
    let facts = node.alive().await;
    assert!(facts.incarnation == 3 && facts.has_data, "{facts:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_stopped_process_is_busy_and_not_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(setup(dir.path()));
    node.alive().await;
    let pid = nix::unistd::Pid::from_raw(node.client().pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    node.facts(|facts| facts.process == Process::Busy).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    let facts = node.alive().await;
    assert_eq!(facts.incarnation, 1);
    node.stop().await;
}

#[tokio::test]
async fn a_slow_script_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("more.conf");
    fs::write(&include, "lua-time-limit 50\n").unwrap();
    let mut setup = setup(dir.path());
    setup.config.include = vec![include.to_str().unwrap().to_owned()];
    let mut node = Node::start(setup);
    node.alive().await;
    let mut client = node.client();
    client.0.get_mut().write_all(b"EVAL 'while true do end' 0\r\n").unwrap();
    node.facts(|facts| facts.process == Process::Busy).await;
    let address = node.address;
    eventually("the script can be killed", || Client::open(address).say("SCRIPT KILL") == "+OK").await;
    node.alive().await;
    node.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_server_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("old-server");
    fs::write(&script, "#!/bin/sh\necho 'Redis server v=5.0.14 sha=00000000:0 malloc=libc bits=64'\n").unwrap();
    for path in [script.as_path(), dir.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (server, said) in [
        ("/nowhere/redis-server", "there is no such program"),
        ("no-such-redis-server", "there is no such program"),
        (script.to_str().unwrap(), "version 5.0.14 is too old"),
        ("true", "neither redis nor valkey"),
    ] {
        let mut setup = setup(dir.path());
        server.clone_into(&mut setup.config.server);
        let mut node = Node::start(setup);
        let fault = node.fault(said).await;
        assert!(fault.contains(server), "{fault}");
        node.stop.send_replace(true);
        node.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_and_taken_when_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    let address = SocketAddr::new(setup.address, PORT);
    let listener = TcpListener::bind(address).unwrap();
    let mut node = Node::start(setup);
    let fault = node.fault("in use").await;
    assert!(fault.contains(&format!("{address} is in use by another process")), "{fault}");
    drop(listener);
    node.alive().await;
    node.stop().await;
}

#[tokio::test]
async fn an_address_that_is_not_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    // Of a range for documentation (RFC 5737), which no host has.
    setup.address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let mut node = Node::start(setup);
    node.fault("192.0.2.1 is not an address of this host").await;
    node.stop.send_replace(true);
    node.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_include_is_read_unless_it_sets_what_vigie_owns() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("more.conf");
    let mut setup = setup(dir.path());
    setup.config.include = vec![include.to_str().unwrap().to_owned()];
    fs::write(&include, "# mine\nmaxmemory-policy allkeys-lru\nrepl-backlog-size 2mb\n").unwrap();
    let mut node = Node::start(setup.clone());
    node.alive().await;
    let info = node.client().ask("INFO");
    assert!(info.contains("maxmemory_policy:allkeys-lru"), "{info}");
    node.stop().await;

    fs::write(&include, "# mine\n\nport 7000\n").unwrap();
    let refused = Node::start(setup.clone()).task.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("more.conf:3: \"port\" may not be set here"), "{refused}");
    fs::remove_file(&include).unwrap();
    let refused = Node::start(setup).task.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("more.conf: cannot read"), "{refused}");
}

#[tokio::test]
async fn a_fenced_redis_refuses_writes_whoever_promotes_it() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("more.conf");
    let mut setup = Setup { fencing: true, ..setup(dir.path()) };
    setup.config.include = vec![include.to_str().unwrap().to_owned()];
    fs::write(&include, "min-replicas-to-write 0\nmin-slaves-max-lag 0\n").unwrap();
    let mut node = Node::start(setup.clone());
    node.alive().await;
    node.promote();
    assert!(node.client().ask("INFO replication").contains("role:master"));
    for refused in [
        "SET a 1",
        "EVAL \"return redis.call('SET','a','1')\" 0",
        "EVAL \"return redis.pcall('INCR','a')\" 0",
        "FLUSHALL",
        "FUNCTION FLUSH",
    ] {
        let said = node.client().say(refused);
        assert!(said.contains("NOREPLICAS"), "{refused}: {said}");
    }
    for (allowed, said) in
        [("GET a", "$-1"), ("PUBLISH news x", ":0"), ("EVAL \"return 1\" 0", ":1"), ("PING", "+PONG")]
    {
        assert_eq!(node.client().say(allowed), said, "{allowed}");
    }
    // Nor does it come out of the fence by another promotion, or by a start.
    assert_eq!(node.control().say("REPLICAOF 127.0.0.1 1"), "+OK");
    node.promote();
    assert!(node.client().say("SET a 1").starts_with("-NOREPLICAS"));
    kill(node.client().pid());
    node.facts(|facts| facts.incarnation == 2 && facts.role == RedisRole::Closed).await;
    node.promote();
    assert!(node.client().say("SET a 1").starts_with("-NOREPLICAS"));
    node.stop().await;

    fs::write(&include, "# mine\nmin-replicas-to-write many\n").unwrap();
    let refused = Node::start(setup.clone()).task.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("more.conf:2: \"min-replicas-to-write\" needs one whole number"), "{refused}");
    fs::remove_file(&include).unwrap();
    let script = dir.path().join("old-server");
    fs::write(&script, "#!/bin/sh\necho 'Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64'\n").unwrap();
    for path in [script.as_path(), dir.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    setup.config.include.clear();
    script.to_str().unwrap().clone_into(&mut setup.config.server);
    let mut node = Node::start(setup);
    node.fault("version 6.2 lets scripts write when they must not").await;
    node.stop.send_replace(true);
    node.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn only_its_supervisor_may_open_a_fenced_redis_and_no_client_points_it_elsewhere() {
    const CLOSED_TO_CLIENTS: [&str; 17] = [
        "REPLICAOF NO ONE",
        "REPLICAOF 127.0.0.1 2",
        "SLAVEOF NO ONE",
        "SLAVEOF 127.0.0.1 2",
        "FAILOVER",
        "FAILOVER ABORT",
        "FAILOVER TO 127.0.0.1 2 FORCE TIMEOUT 1",
        "CONFIG SET min-replicas-to-write 0",
        "CONFIG SET min-slaves-to-write 0",
        "CONFIG SET min-replicas-max-lag 0",
        "CONFIG SET maxmemory 0 min-slaves-max-lag 0",
        "ACL SETUSER default +replicaof +slaveof +failover",
        "ACL SETUSER default +config",
        "ACL SETUSER another on nopass ~* +@all",
        "ACL SETUSER vigie-local on nopass",
        "ACL DELUSER vigie-local",
        "ACL LOAD",
    ];
    let refused = |client: &mut Client| {
        for command in CLOSED_TO_CLIENTS {
            let said = client.say(command);
            assert!(said.starts_with("-NOPERM "), "{command}: {said}");
            assert_eq!(client.say("MULTI"), "+OK");
            let said = client.say(command);
            assert!(said.starts_with("-NOPERM "), "MULTI, {command}: {said}");
            let said = client.say("EXEC");
            assert!(said.starts_with("-EXECABORT "), "MULTI, {command}, EXEC: {said}");
            let words: Vec<_> = command.split(' ').map(|word| format!("'{word}'")).collect();
            for call in ["call", "pcall"] {
                let said = client.say(&format!("EVAL \"return redis.{call}({})\" 0", words.join(",")));
                let forbidden = said.contains("not allowed from script") || said.contains("can't run this command");
                assert!(forbidden && said.starts_with('-'), "redis.{call}, {command}: {said}");
            }
        }
        let said = client.say("SET a 1");
        assert!(said.starts_with("-NOREPLICAS "), "{said}");
    };
    let dir = tempfile::tempdir().unwrap();
    let (secrets, changing) = watch::channel(Arc::new(credentials()));
    let mut node = Node::start(Setup { fencing: true, credentials: changing, ..setup(dir.path()) });
    node.alive().await;
    node.promote();
    let mut client = node.client();
    refused(&mut client);
    assert!(client.ask("INFO replication").contains("role:master"));
    // Neither do the cluster's own users open it, and those of sentinels do what they are for.
    let own = |purpose| credentials().own(purpose).current().reveal().to_owned();
    for (user, purpose) in
        [(CONTROL_USER, Purpose::Control), (REPLICA_USER, Purpose::Replication), (CHECK_USER, Purpose::Check)]
    {
        let mut client = Client::of(node.address, user, &own(purpose));
        for command in ["CONFIG SET min-replicas-to-write 0", "ACL SETUSER default +config", "SET a 1"] {
            let said = client.say(command);
            assert!(said.starts_with("-NOPERM "), "{user}, {command}: {said}");
        }
    }
    let mut control = node.control();
    for (command, said) in
        [("MULTI", "+OK"), ("REPLICAOF 127.0.0.1 1", "+QUEUED"), ("CLIENT KILL TYPE normal", "+QUEUED"), ("EXEC", "*2")]
    {
        assert_eq!(control.say(command), said, "{command}");
    }
    let mut client = node.client();
    assert!(client.ask("INFO replication").contains("role:slave"));
    node.promote();

    // A new password leaves the rights as they are, of those who are connected and of those who come.
    let both = Secrets::new(Secret::new("new"), Some(Secret::new(PASSWORD)));
    let new = Credentials::new("mymaster", both, Some(Secret::new(SECRET).into()));
    secrets.send_replace(Arc::new(new));
    let log_in = || Client::stranger(node.address).say("AUTH default new");
    eventually("the new password is taken", || log_in() == "+OK").await;
    refused(&mut client);
    refused(&mut Client::of(node.address, "default", "new"));
    node.stop().await;
}

#[tokio::test]
async fn what_redis_refuses_is_said_in_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("more.conf");
    fs::write(&include, "maxmemory-policy no-such-policy\n").unwrap();
    let mut setup = setup(dir.path());
    setup.config.include = vec![include.to_str().unwrap().to_owned()];
    let mut node = Node::start(setup);
    node.fault("no-such-policy").await;
    node.stop.send_replace(true);
    node.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn data_survive_a_change_of_the_persistence() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    setup.config.persistence = Persistence::Rdb;
    let mut node = Node::start(setup.clone());
    node.alive().await;
    node.promote();
    assert_eq!(node.client().say("SET a 1"), "+OK");
    node.stop().await;

    setup.config.persistence = Persistence::Aof;
    let mut node = Node::start(setup.clone());
    assert!(node.alive().await.has_data, "the snapshot was read");
    let mut client = node.client();
    eventually("the append-only file is complete", || {
        let info = client.ask("INFO persistence");
        info.contains("aof_enabled:1") && info.contains("aof_rewrite_in_progress:0")
    })
    .await;
    node.stop().await;
    fs::remove_file(dir.path().join("redis/dump.rdb")).unwrap();
    let mut node = Node::start(setup.clone());
    assert!(node.alive().await.has_data, "the append-only file was read");
    node.stop().await;

    setup.config.persistence = Persistence::Rdb;
    let mut node = Node::start(setup);
    node.fault("holds an append-only file").await;
    node.stop.send_replace(true);
    node.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn zeros_that_a_power_cut_left_in_the_append_only_file_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    let mut node = Node::start(setup.clone());
    node.alive().await;
    node.promote();
    assert_eq!(node.client().say("SET a 1"), "+OK");
    node.stop().await;
    let parts = fs::read_dir(dir.path().join("redis/appendonlydir"));
    let Some(path) = parts
        .into_iter()
        .flatten()
        .map(|part| part.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
    else {
        println!("skipped: this redis-server has a single append-only file");
        return;
    };
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(&[0; 700]).unwrap();
    let mut node = Node::start(setup);
    assert!(node.alive().await.has_data, "it was read");
    assert_eq!(node.client().say("GET a"), "$1");
    node.stop().await;
}

const HELPER: &str = "VIGIE_TEST_DIR";

/// Not a test of its own: the process that hosts a supervisor and is killed.
#[tokio::test]
#[ignore = "not a test: a process that tests of this file start"]
async fn host_of_a_supervisor() {
    let Ok(dir) = std::env::var(HELPER) else { return };
    let mut node = Node::start(setup(Path::new(&dir)));
    node.alive().await;
    println!("redis {}", node.address);
    node.facts(|_| false).await;
}

#[tokio::test]
async fn redis_dies_with_the_process_of_its_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--exact", "host_of_a_supervisor", "--ignored", "--nocapture"]).stdout(Stdio::piped());
    let mut host = host.env(HELPER, dir.path()).spawn().unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| line.unwrap().strip_prefix("redis ").map(str::to_owned)).unwrap();
    let address: SocketAddr = said.parse().unwrap();
    assert!(Client::open(address).pid() > 0);
    host.kill().unwrap();
    host.wait().unwrap();
    eventually("redis is gone", || TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn redis_dies_with_the_task_of_its_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(setup(dir.path()));
    node.alive().await;
    let address = node.address;
    node.task.abort();
    eventually("redis is gone", || TcpStream::connect(address).is_err()).await;
}
