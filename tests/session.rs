//! A client's session beside that of a real redis-sentinel: the same commands to both, the same replies but for what is
//! named here. And what a crowd of clients may not do.
//!
//! Everything listens on 127.0.0.1 and on ports that were free a moment before.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use tokio::sync::{mpsc, watch};
use vigie::base::node::{NodeState, Roles};
use vigie::base::{Credentials, Instant, NodeName, Secret};
use vigie::cores::cluster::{NodeView, View};
use vigie::cores::sentinel::{Acl, Config, DataNode, MasterConfig, Membership, Settings, Voter};
use vigie::runtime::journal::Journal;
use vigie::runtime::sentinel::{Door, SentinelError, Setup, run};
use vigie::runtime::store::Store;

const LIMIT: Duration = Duration::from_secs(20);

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

/// A reply with the types that are on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(String),
    Null(u8),
    Array(Vec<Self>),
    Set(Vec<Self>),
    Push(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Text(String),
    Double(String),
    End,
}

impl Value {
    fn text(&self) -> &str {
        match self {
            Self::Simple(text) | Self::Error(text) | Self::Bulk(text) | Self::Text(text) | Self::Double(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    fn list(&self) -> &[Self] {
        match self {
            Self::Array(list) | Self::Set(list) | Self::Push(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }

    /// With lists whose order means nothing in one order.
    fn sorted(self) -> Self {
        let sort = |list: Vec<Self>| {
            let mut list: Vec<_> = list.into_iter().map(Self::sorted).collect();
            list.sort();
            list
        };
        match self {
            Self::Array(list) => Self::Array(sort(list)),
            Self::Set(list) => Self::Set(sort(list)),
            other => other,
        }
    }
}

/// A client that sees every byte.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(port: u16) -> Self {
        let stream = TcpStream::connect(at(port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, words: &[&str]) {
        let mut out = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| out += &format!("${}\r\n{word}\r\n", word.len()));
        // One that was closed says so when it is read.
        let _ = self.0.get_mut().write_all(out.as_bytes());
    }

    fn ask(&mut self, words: &[&str]) -> Value {
        self.send(words);
        self.read()
    }

    /// A line as a shell has it: words with blanks stand in double quotes.
    fn say(&mut self, line: &str) -> Value {
        let words = vigie::wire::words::split(line.as_bytes()).unwrap();
        let words: Vec<&str> = words.iter().map(|word| std::str::from_utf8(word).unwrap()).collect();
        self.ask(&words)
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => return Value::End,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Value::End,
            Err(error) => panic!("{error}"),
        }
        let line = line.trim_end_matches("\r\n");
        let (kind, rest) = line.split_at(1);
        let count = || rest.parse::<i64>().unwrap();
        let mut list = |count: i64| (0..count).map(|_| self.read()).collect::<Vec<_>>();
        match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(count()),
            "," => Value::Double(rest.to_owned()),
            "_" => Value::Null(b'_'),
            "$" | "*" if rest == "-1" => Value::Null(kind.as_bytes()[0]),
            "$" | "=" => {
                let mut text = vec![0; usize::try_from(count()).unwrap() + 2];
                self.0.read_exact(&mut text).unwrap();
                let text = String::from_utf8(text[..text.len() - 2].to_vec()).unwrap();
                if kind == "$" { Value::Bulk(text) } else { Value::Text(text) }
            }
            "*" => Value::Array(list(count())),
            "~" => Value::Set(list(count())),
            ">" => Value::Push(list(count())),
            "%" => Value::Map((0..count()).map(|_| (self.read(), self.read())).collect()),
            other => panic!("a reply of type {other:?}: {line:?}"),
        }
    }
}

/// Until a port answers.
fn until_it_answers(port: u16) {
    let start = Clock::now();
    while !TcpStream::connect(at(port)).is_ok_and(|stream| {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client(BufReader::new(stream)).ask(&["PING"]) != Value::End
    }) {
        assert!(start.elapsed() < LIMIT, "nobody answers on port {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stock(directory: &Path, port: u16, config: &str) -> Server {
    let file = directory.join(format!("stock-{port}.conf"));
    let log = directory.join(format!("stock-{port}.log"));
    std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\nlogfile \"{}\"\n{config}", log.display())).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(command.spawn().expect("redis-server is installed"));
    until_it_answers(port);
    server
}

fn redis(directory: &Path, port: u16, master: Option<u16>) -> Server {
    let home = directory.join(port.to_string());
    std::fs::create_dir_all(&home).unwrap();
    let mut config = format!("port {port}\nbind 127.0.0.1\nsave \"\"\nrepl-diskless-sync-delay 0\n");
    if let Some(master) = master {
        config += &format!("replicaof 127.0.0.1 {master}\n");
    }
    std::fs::write(home.join("redis.conf"), config).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(home.join("redis.conf")).arg("--dir").arg(&home);
    Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is installed"))
}

/// A node that says over the peer link that it lives, and no more.
fn heard(name: NodeName) -> NodeView {
    let (address, roles) = (at(1).ip(), Roles::default());
    let state = NodeState::new(name.clone(), "0".try_into().unwrap(), roles);
    NodeView { state: Some(state), fresh: true, ..NodeView::new(name, address, roles) }
}

/// One of ours, in a thread of its own.
struct Ours {
    port: u16,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<Result<(), SentinelError>>>,
}

impl Ours {
    fn new(directory: &Path, redis: &[u16], door: Door) -> Self {
        let port = free_port();
        let (stop, stop_rx) = watch::channel(false);
        let node = |at: usize| format!("r-{at}").parse::<NodeName>().unwrap();
        let config = Config {
            membership: Membership::Voters {
                me: "s-0".parse().unwrap(),
                all: vec![Voter { name: "s-0".parse().unwrap(), address: at(port), stock: false }],
            },
            settings: Settings::default(),
            masters: vec![MasterConfig {
                down_after: Duration::from_secs(2),
                busy_grace: Duration::from_secs(5),
                failover_timeout: Duration::from_secs(10),
                nodes: redis
                    .iter()
                    .enumerate()
                    .map(|(n, port)| DataNode { name: node(n), address: at(*port), bootstrap: n == 0 })
                    .collect(),
                ..MasterConfig::new("mymaster", 1)
            }],
            logins: None,
            seed: 1,
        };
        // A redis is connected to only where its node is heard.
        let nodes = (0..redis.len()).map(|n| heard(node(n))).collect();
        let store = Store::new(directory.join("ours"));
        let (_, credentials) = watch::channel(Arc::new(Credentials::new("mymaster", Secret::new("hush").into(), None)));
        let (addresses, presence) = (vec![at(1).ip()], None);
        let setup = Setup { config, store, port, addresses, nodes: Vec::new(), credentials, presence, door };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (_view, view) = watch::channel(Arc::new(View { at: Instant::START, me: 0, nodes }));
                let (_orders, orders) = mpsc::channel(1);
                let (post, mut posted) = mpsc::channel(64);
                tokio::spawn(async move { while posted.recv().await.is_some() {} });
                run(setup, view, orders, post, Journal::new(), stop_rx).await
            })
        });
        until_it_answers(port);
        Self { port, stop, thread: Some(thread) }
    }

    /// With users instead of a cluster's password.
    fn with_users(directory: &Path, lines: &[&str], require_pass: Option<&str>) -> Self {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let acl = Acl::from_lines(&lines, require_pass.map(Secret::new).as_ref()).unwrap();
        Self::new(directory, &[free_port()], Door { acl: Some(acl), ..Door::default() })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap().unwrap();
        }
    }
}

/// Two sentinels, ours and stock.
struct Both {
    ours: Ours,
    stock_port: u16,
    _stock: Server,
    _directory: tempfile::TempDir,
}

fn both() -> Both {
    let directory = tempfile::tempdir().unwrap();
    let stock_port = free_port();
    let stock = stock(directory.path(), stock_port, "sentinel monitor mymaster 127.0.0.1 9 1\n");
    Both { ours: Ours::with_users(directory.path(), &[], None), stock_port, _stock: stock, _directory: directory }
}

impl Both {
    fn clients(&self) -> [Client; 2] {
        [Client::new(self.ours.port), Client::new(self.stock_port)]
    }

    /// Asks both, on the same connections, line by line.
    fn same(&self, lines: &str) {
        let mut clients = self.clients();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let [ours, stock] = clients.each_mut().map(|client| client.say(line).sorted());
            assert_eq!(ours, stock, "{line}");
        }
    }
}

/// What both answer alike whatever happened before.
const QUESTIONS: &str = r#"
    PING
    PING x
    ping a b
    FOO bar "b a z"
    FOO
    CONFIG GET x
    MONITOR
    COMMAND FOO
    COMMAND COUNT x
    COMMAND INFO nosuch ping
    COMMAND LIST FILTERBY ACLCAT pubsub
    COMMAND LIST FILTERBY ACLCAT nosuch
    COMMAND LIST FILTERBY PATTERN p*
    COMMAND LIST FILTERBY MODULE x
    COMMAND LIST FILTERBY nosuch x
    COMMAND LIST FILTERBY
    COMMAND LIST x y z
    COMMAND GETKEYS ping x
    COMMAND GETKEYS nosuch x
    COMMAND GETKEYSANDFLAGS ping x
    ACL
    ACL nosuch
    ACL CAT
    ACL CAT pubsub
    ACL CAT keyspace
    ACL CAT nosuch
    ACL CAT a b
    ACL LIST
    ACL USERS
    ACL WHOAMI
    ACL GETUSER default
    ACL GETUSER nosuch
    ACL GENPASS 0
    ACL GENPASS x
    ACL GENPASS 4097
    ACL LOG RESET
    ACL LOG
    ACL LOG x
    ACL LOG 1 2
    ACL LOAD
    ACL SAVE
    ACL DELUSER default
    ACL DELUSER a b
    CLIENT
    CLIENT FOO
    CLIENT LIST TYPE foo
    CLIENT LIST TYPE replica
    CLIENT LIST ID x
    CLIENT LIST ID
    CLIENT LIST FOO
    CLIENT LIST TYPE normal x
    CLIENT GETNAME
    CLIENT SETNAME "a b"
    CLIENT SETNAME abc
    CLIENT GETNAME
    CLIENT SETNAME ""
    CLIENT GETNAME
    CLIENT KILL 1.2.3.4:5
    CLIENT KILL ID 999999
    CLIENT KILL ID x
    CLIENT KILL ID 0
    CLIENT KILL TYPE foo
    CLIENT KILL TYPE pubsub
    CLIENT KILL USER nosuch
    CLIENT KILL USER
    CLIENT KILL ADDR 1.2.3.4:5
    CLIENT KILL LADDR 1.2.3.4:5
    CLIENT KILL SKIPME maybe
    CLIENT KILL FOO bar
    CLIENT KILL ID 999999 TYPE
    CLIENT KILL ID 999999 ADDR 1.2.3.4:5
    CLIENT UNPAUSE
    CLIENT UNBLOCK 999999
    CLIENT UNBLOCK x
    CLIENT UNBLOCK 999999 FOO
    CLIENT UNBLOCK 999999 TIMEOUT
    CLIENT NO-EVICT on
    CLIENT NO-EVICT x
    CLIENT NO-EVICT off
    CLIENT REPLY x
    CLIENT REPLY ON
    CLIENT CACHING yes
    CLIENT GETREDIR
    CLIENT TRACKINGINFO
    CLIENT TRACKING x
    CLIENT TRACKING on
    CLIENT TRACKINGINFO
    CLIENT TRACKING on FOO
    CLIENT TRACKING off
    HELLO x
    HELLO 4
    HELLO 2 AUTH default
    HELLO 2 SETNAME "a b"
    HELLO 2 SETNAME bob FOO
    AUTH x
    AUTH default x
    AUTH a b
    AUTH a b c
    INFO nosuch
    ROLE
    ROLE x
    PUBLISH a b
    PUBLISH a
    PUBLISH __sentinel__:hello garbage
    SHUTDOWN ABORT
    SHUTDOWN foo
    SHUTDOWN NOSAVE SAVE
    SENTINEL
    SENTINEL foo
    SENTINEL foo bar
    SENTINEL MASTER
    SENTINEL MASTER nobody
    SENTINEL MYID x
    SENTINEL GET-MASTER-ADDR-BY-NAME nobody
    SUBSCRIBE
    UNSUBSCRIBE
    UNSUBSCRIBE a
    PUNSUBSCRIBE
    SUBSCRIBE +a
    ROLE
    PING
    PING x
    foo
    sentinel foo
    PUNSUBSCRIBE
    UNSUBSCRIBE
    PSUBSCRIBE +*
    CLIENT GETNAME
    PUNSUBSCRIBE +*
    ROLE
"#;

#[test]
fn the_same_questions_get_the_same_answers() {
    let both = both();
    both.same(QUESTIONS);
    // In RESP3 subscribers may ask anything.
    let mut clients = both.clients();
    let [ours, stock] = clients.each_mut().map(|client| client.say("HELLO 3"));
    let (Value::Map(ours), Value::Map(stock)) = (ours, stock) else { panic!() };
    let but_id =
        |pairs: Vec<(Value, Value)>| pairs.into_iter().filter(|(key, _)| key.text() != "id").collect::<Vec<_>>();
    assert_eq!(but_id(ours), but_id(stock));
    for line in QUESTIONS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let [ours, stock] = clients.each_mut().map(|client| client.say(line).sorted());
        assert_eq!(ours, stock, "RESP3: {line}");
        if line.starts_with("PSUBSCRIBE") || line.starts_with("SUBSCRIBE +") {
            assert!(matches!(ours, Value::Push(_)));
        }
    }
}

/// Fields of a description by their place, subcommands by their names.
type Described = BTreeMap<String, (Vec<Value>, Vec<Value>)>;

fn described(all: &Value, into: &mut Described) {
    for one in all.list() {
        let fields = one.clone().sorted_fields();
        let subcommands = one.list()[9].clone();
        described(&subcommands, into);
        let names = subcommands.list().iter().map(|one| one.list()[0].clone()).collect();
        into.insert(one.list()[0].text().to_owned(), (fields, names));
    }
}

impl Value {
    /// All fields of a description but the last, each sorted.
    fn sorted_fields(self) -> Vec<Self> {
        self.list()[..9].iter().map(|field| field.clone().sorted()).collect()
    }
}

/// Offered here and unknown to redis-sentinel 7.0.
const MORE: [&str; 8] = [
    "client|setinfo",
    "quit",
    "reset",
    "sentinel|get-primary-addr-by-name",
    "sentinel|is-primary-down-by-addr",
    "sentinel|primaries",
    "sentinel|primary",
    "sentinel|switchover",
];
/// The other way round: it would hold up the questions of other sentinels.
const LESS: [&str; 1] = ["client|pause"];
/// Taken with more words than by redis-sentinel 7.0, which has the arity at the right: `COORDINATED`, as Valkey has it.
const LONGER: [(&str, Value, Value); 1] = [("sentinel|failover", Value::Integer(-3), Value::Integer(3))];

#[test]
fn commands_are_described_field_by_field_as_redis_does() {
    let both = both();
    for protocol in ["2", "3"] {
        let [ours, stock] = both.clients().each_mut().map(|client| {
            client.ask(&["HELLO", protocol]);
            let mut all = Described::new();
            described(&client.ask(&["COMMAND"]), &mut all);
            all
        });
        for (name, (mut fields, _)) in stock.clone() {
            if let Some((_, here, there)) = LONGER.iter().find(|(longer, ..)| *longer == name) {
                assert_eq!(fields[1], *there);
                fields[1] = here.clone();
            }
            match ours.get(&name) {
                Some((here, _)) => assert_eq!(*here, fields, "{name}"),
                None => assert!(LESS.contains(&name.as_str()), "{name} is not offered"),
            }
        }
        for name in ours.keys().filter(|name| !stock.contains_key(*name)) {
            assert!(MORE.contains(&name.as_str()), "{name} is not known to redis");
        }
        assert_eq!(ours.len() + 1, stock.len() + MORE.len(), "72 names of stock, one less, eight more");
    }
    // Where a command comes from and where it belongs; what it does is said in other words.
    let docs = |client: &mut Client, name: &str| match client.ask(&["COMMAND", "DOCS", name]) {
        Value::Map(mut found) if found.len() == 1 => match found.remove(0).1 {
            Value::Map(pairs) => pairs.into_iter().map(|(key, value)| (key.text().to_owned(), value)).collect(),
            other => panic!("{other:?}"),
        },
        other => panic!("{name}: {other:?}"),
    };
    let mut clients = both.clients();
    clients.iter_mut().for_each(|client| drop(client.ask(&["HELLO", "3"])));
    let names = clients[1].ask(&["COMMAND", "LIST"]);
    for name in names.list().iter().map(Value::text).filter(|name| !LESS.contains(name)) {
        let [ours, stock]: [BTreeMap<String, Value>; 2] = clients.each_mut().map(|client| docs(client, name));
        for field in ["since", "group", "doc_flags", "deprecated_since", "replaced_by"] {
            assert_eq!(ours.get(field), stock.get(field), "{name}: {field}");
        }
        assert!(!ours["summary"].text().is_empty());
        assert_eq!(ours.contains_key("subcommands"), stock.contains_key("subcommands"));
    }
    // Every container helps, and every subcommand is named there.
    for container in ["ACL", "CLIENT", "COMMAND", "SENTINEL"] {
        let help = clients[0].ask(&[container, "HELP"]);
        let first = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        assert_eq!(help.list()[0], Value::Simple(first));
        assert!(help.list().iter().any(|line| line.text() == "HELP"));
    }
}

/// Names of fields, of a map or of a flat list.
fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Map(pairs) => pairs.iter().map(|(key, _)| key.text().to_owned()).collect(),
        flat => flat.list().iter().step_by(2).map(|key| key.text().to_owned()).collect(),
    }
}

#[test]
fn masters_replicas_and_sentinels_are_maps_in_resp3_and_flat_lists_in_resp2() {
    let directory = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port()];
    let _servers = [redis(directory.path(), ports[0], None), redis(directory.path(), ports[1], Some(ports[0]))];
    ports.into_iter().for_each(until_it_answers);
    let ours = Ours::new(directory.path(), &ports, Door::default());
    let stock_port = free_port();
    let config = format!("sentinel monitor mymaster 127.0.0.1 {} 1\n", ports[0]);
    let _stock = stock(directory.path(), stock_port, &config);
    let start = Clock::now();
    for port in [ours.port, stock_port] {
        let mut client = Client::new(port);
        while client.say("SENTINEL REPLICAS mymaster").list().is_empty() {
            assert!(start.elapsed() < 2 * LIMIT, "the replica is not found");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    for protocol in ["2", "3"] {
        let mut clients = [Client::new(ours.port), Client::new(stock_port)];
        clients.iter_mut().for_each(|client| drop(client.ask(&["HELLO", protocol])));
        let mut both = |line: &str| clients.each_mut().map(|client| client.say(line));
        let shape = |value: &Value| matches!(value, Value::Map(_)) == (protocol == "3");
        let [ours, stock] = both("SENTINEL MASTER mymaster");
        assert!(shape(&ours) && shape(&stock), "{ours:?}");
        assert_eq!(names(&ours), names(&stock));
        for line in ["SENTINEL MASTERS", "SENTINEL REPLICAS mymaster", "SENTINEL SLAVES mymaster"] {
            let [ours, stock] = both(line);
            let ([ours], [stock]) = (ours.list(), stock.list()) else { panic!("{line}: {ours:?} {stock:?}") };
            assert!(shape(ours) && shape(stock), "{ours:?}");
            assert_eq!(names(ours), names(stock), "{line}");
        }
        for line in ["SENTINEL GET-MASTER-ADDR-BY-NAME mymaster", "ROLE"] {
            let [ours, stock] = both(line);
            assert_eq!(ours, stock, "{line}");
        }
    }
    for options in [&["-3"][..], &[]] {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &ours.port.to_string(), "--no-raw"]).args(options).args(["SENTINEL", "MASTER", "mymaster"]);
        let said = String::from_utf8(cli.output().unwrap().stdout).unwrap();
        let expected = if options.is_empty() { " 1) \"name\"\n 2) \"mymaster\"" } else { "\"name\" => \"mymaster\"" };
        assert!(said.contains(expected), "{said}");
    }
}

/// Names of the fields of an INFO, with its sections.
fn info_fields(text: &str) -> Vec<String> {
    let fields = text.lines().filter(|line| !line.is_empty());
    fields.map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn info_and_client_list_have_the_fields_of_redis() {
    let both = both();
    let ask = |words: &[&str]| both.clients().each_mut().map(|client| client.ask(words).text().to_owned());
    for sections in [
        &[][..],
        &["all"],
        &["default"],
        &["everything"],
        &["cpu"],
        &["server", "sentinel", "replication"],
        &["cpu", "all"],
        &["memory"],
        &["stats", "clients"],
    ] {
        let words: Vec<&str> = std::iter::once("INFO").chain(sections.iter().copied()).collect();
        let [mut ours, stock] = ask(&words).map(|text| info_fields(&text));
        ours.retain(|field| field != "vigie_version");
        assert_eq!(ours, stock, "{sections:?}");
    }
    // A kernel that counts by ticks has seen nothing of a process so young.
    let start = Clock::now();
    while ask(&["INFO", "cpu"])[0].contains("used_cpu_user:0.000000") {
        assert!(start.elapsed() < LIMIT, "no time of the processor is counted");
    }
    let [ours, _] = ask(&["INFO"]);
    let value = |field: &str| ours.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap().to_owned();
    assert_eq!(value("tcp_port"), both.ours.port.to_string());
    assert_eq!(value("process_id"), std::process::id().to_string());
    assert!(value("total_commands_processed").parse::<u64>().unwrap() > 10);
    assert!(value("total_net_output_bytes").parse::<u64>().unwrap() > 1_000);
    assert!(value("used_cpu_user").parse::<f64>().unwrap() > 0.0);
    assert!(value("redis_version") == "7.0.15" && value("redis_mode") == "sentinel");
    for words in [&["CLIENT", "INFO"][..], &["CLIENT", "LIST"], &["CLIENT", "LIST", "TYPE", "normal"]] {
        let names =
            |line: &str| line.split(' ').map(|field| field.split('=').next().unwrap().to_owned()).collect::<Vec<_>>();
        let [ours, stock] = ask(words);
        let [mut ours, stock] = [&ours, &stock].map(|text| names(text.lines().last().unwrap()));
        assert_eq!(ours.split_off(stock.len()), ["lib-name", "lib-ver"], "fields of 7.2 stand behind those of 7.0");
        assert_eq!(ours, stock);
    }
    let mut client = Client::new(both.ours.port);
    let own = client.0.get_ref().local_addr().unwrap();
    client.say("CLIENT SETNAME me");
    client.say("CLIENT SETINFO LIB-NAME mylib");
    client.say("PSUBSCRIBE x*");
    client.say("PUNSUBSCRIBE");
    let line = client.say("CLIENT INFO").text().to_owned();
    for field in [
        &format!("addr={own} laddr=127.0.0.1:{} fd=", both.ours.port),
        "name=me",
        "flags=N",
        "cmd=client|info",
        "user=default",
        "resp=2",
        "lib-name=mylib",
    ] {
        assert!(line.contains(field), "{field}: {line}");
    }
}

/// The same lines on connections that are named before them: `a: PING`.
fn script(port: u16, lines: &str) -> Vec<(String, Value)> {
    let mut clients: BTreeMap<&str, Client> = BTreeMap::new();
    let mut said = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (who, words) = line.split_once(": ").unwrap();
        let client = clients.entry(who).or_insert_with(|| Client::new(port));
        let value = match words {
            "(reads)" => client.read(),
            words => client.say(words),
        };
        said.push((line.to_owned(), value));
    }
    said
}

#[test]
fn users_are_made_checked_and_dropped_as_in_redis() {
    let lines = r#"
        a: ACL SETUSER u
        a: ACL LIST
        a: ACL GETUSER u
        a: ACL SETUSER u on >pw ~k* %R~r* &c* +@all -@admin
        a: ACL LIST
        a: ACL GETUSER u
        b: AUTH u wrong
        b: AUTH u pw
        b: ACL WHOAMI
        b: ROLE
        b: SENTINEL MASTERS
        b: SUBSCRIBE x
        b: SUBSCRIBE cx
        b: PSUBSCRIBE c*
        b: PSUBSCRIBE cx*
        a: ACL SETUSER u resetchannels
        b: (reads)
        a: ACL SETUSER u nopass -ping (+ping)
        c: AUTH u anything
        c: PING
        a: ACL DRYRUN u ping
        a: ACL DRYRUN u role
        a: ACL DRYRUN u subscribe x
        a: ACL DRYRUN nobody ping
        a: ACL DRYRUN u nosuch
        a: ACL DELUSER u
        c: (reads)
        a: ACL SETUSER default >secret
        a: PING
        d: PING
        d: foo
        d: HELLO 2
        d: HELLO 2 AUTH default nope
        d: AUTH nope
        d: AUTH secret
        d: PING
        a: ACL SETUSER default off
        a: PING
        e: AUTH secret
        e: PING
        a: ACL SETUSER default on nopass
        f: PING
        a: ACL SETUSER t on >s +@all
        t: AUTH t s
        t: CLIENT KILL USER default SKIPME no
        a: (reads)
        d: (reads)
        t: CLIENT KILL USER t SKIPME yes
        t: CLIENT KILL USER t SKIPME no
        t: (reads)
        g: AUTH t s
        g: ACL DELUSER t
        g: (reads)
    "#;
    let both = both();
    let (ours, stock) = (script(both.ours.port, lines), script(both.stock_port, lines));
    for ((line, ours), (_, stock)) in ours.into_iter().zip(stock) {
        assert_eq!(ours, stock, "{line}");
    }
}

#[test]
fn what_was_refused_can_be_read_in_the_log() {
    let lines = r#"
        a: ACL SETUSER u on >pw &c +subscribe
        b: AUTH u wrong
        b: AUTH u wrong
        b: HELLO 3 AUTH x y
        b: AUTH u pw
        b: PING
        b: SENTINEL MASTERS
        b: SUBSCRIBE c d
    "#;
    let both = both();
    let shown = |port: u16| {
        script(port, lines);
        let mut client = Client::new(port);
        client.say("HELLO 3");
        let log = client.say("ACL LOG");
        let entries = log.list().iter().map(|entry| {
            let Value::Map(pairs) = entry else { panic!("{entry:?}") };
            let fields = pairs.iter().map(|(key, value)| match (key.text(), value) {
                ("age-seconds", Value::Double(_)) => ("age-seconds".to_owned(), Value::End),
                ("client-info", Value::Bulk(line)) if line.contains("laddr=127.0.0.1:") => {
                    let command = line.split(' ').find(|field| field.starts_with("cmd=")).unwrap();
                    ("client-info".to_owned(), Value::Bulk(command.to_owned()))
                }
                (name, value) => (name.to_owned(), value.clone()),
            });
            fields.collect::<Vec<_>>()
        });
        entries.collect::<Vec<_>>()
    };
    assert_eq!(shown(both.ours.port), shown(both.stock_port));
}

#[test]
fn inline_commands_and_nonsense_are_taken_as_by_redis() {
    let both = both();
    for sent in [
        "PING\r\n\n",
        "PING \"a b\"\r\n",
        "PING 'a b'\n",
        "PING \"\\x41\\n\"\r\n",
        "\"ping\" x\n",
        "PING \"x\"y\r\n",
        "PING \"x\r\n",
        "\r\n\r\nPING\r\n",
        "*0\r\n*1\r\n$4\r\nPING\r\n",
        "*-1\r\n*1\r\n$4\r\nPING\r\n",
        "POST / HTTP/1.1\r\n",
        "Host: x\r\n",
    ] {
        let [ours, stock] = both.clients().each_mut().map(|client| {
            client.0.get_mut().write_all(sent.as_bytes()).unwrap();
            client.read()
        });
        assert_eq!(ours, stock, "{sent:?}");
    }
    for sent in ["*1\r\n:1\r\n", "*x\r\n", "*1\r\n$x\r\n", &"x".repeat(70_000)] {
        for client in &mut both.clients() {
            // It may close before it has read all of it.
            let _ = client.0.get_mut().write_all(sent.as_bytes());
            match client.read() {
                Value::Error(text) => assert!(text.starts_with("ERR Protocol error: "), "{text}"),
                Value::End => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn replies_can_be_switched_off() {
    let both = both();
    for port in [both.ours.port, both.stock_port] {
        let mut client = Client::new(port);
        for line in ["CLIENT REPLY SKIP", "PING first", "CLIENT REPLY OFF", "PING second", "nosuch"] {
            client.send(&line.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(client.say("CLIENT REPLY ON"), Value::Simple("OK".into()));
        assert_eq!(client.say("PING third"), Value::Bulk("third".into()));
    }
}

#[test]
fn users_come_from_and_go_to_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users.acl");
    std::fs::write(&file, "user default on nopass ~* &* +@all\nuser bob on >pw +ping\n").unwrap();
    let acl = Acl::from_file_text(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let door = Door { acl: Some(acl), acl_file: Some(file.clone()), ..Door::default() };
    let ours = Ours::new(directory.path(), &[free_port()], door);
    let (mut client, mut bob) = (Client::new(ours.port), Client::new(ours.port));
    assert_eq!(bob.say("AUTH bob pw"), Value::Simple("OK".into()));
    assert_eq!(client.say("ACL SETUSER carol on nopass +@all"), Value::Simple("OK".into()));
    assert_eq!(client.say("ACL SAVE"), Value::Simple("OK".into()));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("user carol on nopass resetchannels +@all\n"), "{text}");
    std::fs::write(&file, "user default on nopass ~* &* +@all\nuser dave on +nonsense\n").unwrap();
    let Value::Error(said) = client.say("ACL LOAD") else { panic!() };
    assert!(said.contains("line 2") && said.contains("'dave'") && said.contains("no change"), "{said}");
    assert_eq!(bob.say("PING"), Value::Simple("PONG".into()));
    std::fs::write(&file, "user default on nopass ~* &* +@all\n").unwrap();
    assert_eq!(client.say("ACL LOAD"), Value::Simple("OK".into()));
    assert_eq!(bob.read(), Value::End, "a user who is gone has no connections");
    assert_eq!(client.say("ACL USERS").list().len(), 1);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(matches!(client.say("ACL SAVE"), Value::Error(_)));
    assert!(matches!(client.say("ACL LOAD"), Value::Error(_)));
    assert_eq!(std::fs::read_dir(&file).unwrap().count(), 0);
}

#[test]
fn a_password_of_the_configuration_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Ours::with_users(directory.path(), &["bob on >pw +ping"], Some("hush"));
    let mut client = Client::new(ours.port);
    assert_eq!(client.say("PING"), Value::Error("NOAUTH Authentication required.".into()));
    assert!(matches!(client.say("HELLO 3 AUTH default hush SETNAME x"), Value::Map(_)));
    assert_eq!(client.say("CLIENT GETNAME"), Value::Bulk("x".into()));
    assert_eq!(client.say("RESET"), Value::Simple("RESET".into()));
    assert_eq!(client.say("PING"), Value::Error("NOAUTH Authentication required.".into()));
}

#[test]
fn shutdown_ends_a_sentinel_of_its_own_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut ours = Ours::with_users(directory.path(), &[], None);
    assert_eq!(Client::new(ours.port).say("SHUTDOWN NOSAVE"), Value::End);
    ours.thread.take().unwrap().join().unwrap().unwrap();
    let cluster = Ours::new(directory.path(), &[free_port()], Door::default());
    assert!(Client::new(cluster.port).say("SHUTDOWN").text().contains("vigie itself"));
    std::mem::forget(ours);
}

/// Resident memory of a process, KiB.
fn resident(process: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_crowd_of_clients_changes_no_judgement_and_takes_bounded_memory() {
    vigie::runtime::host::raise_file_limit(65_536, false);
    let directory = tempfile::tempdir().unwrap();
    let (port, ports) = (free_port(), [free_port(), free_port()]);
    let mut servers = vec![redis(directory.path(), ports[0], None), redis(directory.path(), ports[1], Some(ports[0]))];
    ports.into_iter().for_each(until_it_answers);
    let file = directory.path().join("sentinel.conf");
    let config = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds mymaster 2000\n",
        ports[0]
    );
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vigie"));
    command.arg("sentinel").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let ours = Server(command.spawn().unwrap());
    until_it_answers(port);
    let mut client = Client::new(port);
    // What is published while the crowd is there.
    let (events, heard) = std::sync::mpsc::channel();
    let mut subscriber = Client::new(port);
    subscriber.0.get_mut().set_read_timeout(None).unwrap();
    subscriber.say("PSUBSCRIBE *");
    let listening = std::thread::spawn(move || {
        while let Value::Array(message) = subscriber.read() {
            // The test may have ended.
            let _ = events.send(format!("{} {}", message[2].text(), message[3].text()));
        }
    });
    let until = |client: &mut Client, what: &str, holds: &dyn Fn(&mut Client) -> bool| {
        let start = Clock::now();
        while !holds(client) {
            assert!(start.elapsed() < 3 * LIMIT, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let field = |client: &mut Client, name: &str| {
        let fields = client.say("SENTINEL MASTER mymaster");
        let at = fields.list().iter().position(|field| field.text() == name).unwrap();
        fields.list()[at + 1].text().to_owned()
    };
    let known = |client: &mut Client| field(client, "num-slaves") == "1" && field(client, "flags") == "master";
    until(&mut client, "all is well", &known);
    heard.try_iter().for_each(drop);
    let info = client.say("INFO clients");
    let most = info.text().lines().find_map(|line| line.strip_prefix("maxclients:")).unwrap();
    // Without privileges there may be fewer; some are here already.
    let crowd = most.parse::<usize>().unwrap() - 8;
    let before = resident(&ours);
    // Idle ones, ones that say a byte at a time, ones whose request never ends, ones that ask and never read.
    let mut others: Vec<TcpStream> = Vec::new();
    for n in 0..crowd {
        let mut stream = TcpStream::connect(at(port)).unwrap();
        stream.set_nodelay(true).unwrap();
        match n % 4 {
            1 => stream.write_all(b"*2\r\n$4\r\nPI").unwrap(),
            2 => stream.write_all(&[b"*1\r\n$16000\r\n".to_vec(), vec![b'x'; 8_000]].concat()).unwrap(),
            3 if n < 400 => stream.write_all(&b"COMMAND DOCS\r\n".repeat(200)).unwrap(),
            _ => {}
        }
        others.push(stream);
    }
    for stream in others.iter_mut().skip(1).step_by(4) {
        for byte in b"NG\r\n" {
            // A byte in each packet.
            let _ = stream.write_all(&[*byte]);
        }
    }
    assert_eq!(field(&mut client, "flags"), "master");
    let listed = client.say("CLIENT LIST").text().lines().count();
    assert!(listed > crowd / 2, "{listed} of {crowd}");
    println!("{crowd} clients, {listed} of them stayed");
    let grown = resident(&ours).saturating_sub(before);
    println!("{grown} KiB for them");
    assert!(grown < 300 * 1_024, "{grown} KiB for {crowd} clients");
    let wrong: Vec<String> = heard.try_iter().filter(|event| event.contains("down")).collect();
    assert!(wrong.is_empty(), "a crowd makes nobody silent: {wrong:?}");
    drop(servers.remove(0));
    let start = Clock::now();
    while field(&mut client, "port") != ports[1].to_string() {
        let so_far = || heard.try_iter().collect::<Vec<_>>();
        assert!(start.elapsed() < 3 * LIMIT, "no new master in spite of the crowd: {:#?}", so_far());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((others, ours));
    listening.join().unwrap();
}
