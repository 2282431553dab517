//! What existing clients and people see of the real cluster: redis-cli and redis-py at the sentinels, redis-benchmark at the
//! virtual IP, and vigie's own commands, before and after a failover.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use vigie::operate::lab::cluster::CLIENT;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::connection::Connection;
use vigie::runtime::status::Status;
use vigie::wire::resp::Reply;

use super::whole::{DATA, PROXIES, World, text, wait_ok};
use super::{Case, Outcome};

const CLI: &[&str] = &["redis-server", "redis-cli"];

pub(crate) const CASES: &[Case] = &[
    Case { name: "redis_cli_asks_a_sentinel", needs: CLI, run: redis_cli },
    Case { name: "redis_py_follows_a_failover", needs: &["redis-server", "python3-redis"], run: redis_py },
    Case { name: "a_switch_is_said_once_to_subscribers", needs: &["redis-server"], run: subscribers },
    Case { name: "redis_benchmark_works", needs: &["redis-server", "redis-benchmark"], run: benchmark },
    Case { name: "all_nodes_tell_the_same", needs: &["redis-server"], run: commands },
];

/// Port of the sentinels.
const SENTINEL: u16 = 26379;
/// The cluster is whole again after so long.
const WHOLE_TIME: Duration = Duration::from_secs(10);
/// Whatever was said twice has been said twice by then.
const QUIET_TIME: Duration = Duration::from_millis(500);

/// Kills the master's redis and waits until all is well again. Returns the master before and the one after.
fn crash(world: &World) -> Result<(&'static str, &'static str), String> {
    let (_, before) = world.wait_whole(Instant::now(), WHOLE_TIME)?;
    let killed = Instant::now();
    world.cluster.kill_redis(before).map_err(text)?;
    let changed = || world.whole().and_then(|now| if now == before { Err("no failover".to_owned()) } else { Ok(now) });
    let (_, after) = wait_ok("no failover", killed, WHOLE_TIME, changed).map_err(|why| world.told(why))?;
    world.wait_healthy()?;
    Ok((before, after))
}

/// Runs a command on a host, to its end.
fn run(world: &World, host: &str, command: &mut Command) -> Result<Output, String> {
    world.cluster.lab().exec(host, || command.stdin(Stdio::null()).output()).map_err(text)?.map_err(text)
}

/// What redis-cli prints for a command to the sentinel of its own host, by lines.
fn cli(world: &World, host: &str, words: &[&str]) -> Result<Vec<String>, String> {
    let port = SENTINEL.to_string();
    let output = run(world, host, Command::new("redis-cli").args(["-p", &port, "sentinel"]).args(words))?;
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if output.status.success() { Ok(lines) } else { Err(format!("redis-cli {words:?}: {output:?}")) }
}

/// Field and value, line by line, of one instance or of several, each of which begins with its name.
fn instances(lines: &[String]) -> Vec<BTreeMap<&str, &str>> {
    let mut found: Vec<BTreeMap<&str, &str>> = Vec::new();
    let lines: Vec<_> = lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
    for pair in lines.chunks(2) {
        let [field, value] = pair else { continue };
        if *field == "name" {
            found.push(BTreeMap::new());
        }
        if let Some(last) = found.last_mut() {
            last.insert(field, value);
        }
    }
    found
}

fn redis_cli(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let (_, master) = world.wait_whole(Instant::now(), WHOLE_TIME)?;
    DATA.iter().try_for_each(|host| sentinel_tells(&world, host, master))?;
    let (_, master) = crash(&world)?;
    // A stock sentinel looks at replicas each second; nobody needs to know a link's state sooner than that.
    DATA.iter().try_for_each(|host| {
        let told = || sentinel_tells(&world, host, master);
        wait_ok("after the failover", Instant::now(), WHOLE_TIME, told).map(drop).map_err(|why| world.told(why))
    })
}

/// The answers of the sentinel on `host` while all is well.
fn sentinel_tells(world: &World, host: &str, master: &str) -> Outcome {
    let address = world.address(master);
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let equal = |what: &str, found: Option<&str>, expected: &str| {
        let wrong = || Err(format!("{host}: {what} is {found:?} and not {expected:?}"));
        if found == Some(expected) { Ok(()) } else { wrong() }
    };
    for command in [&["masters"][..], &["master", "mymaster"]] {
        let lines = cli(world, host, command)?;
        let found = instances(&lines);
        equal("number of masters", Some(&found.len().to_string()), "1")?;
        let expected = [
            ("name", "mymaster"),
            ("ip", &ip),
            ("port", &port),
            ("flags", "master"),
            ("role-reported", "master"),
            ("num-slaves", "2"),
            ("num-other-sentinels", "2"),
            ("quorum", "2"),
            ("down-after-milliseconds", "500"),
        ];
        for (field, value) in expected {
            equal(field, found[0].get(field).copied(), value)?;
        }
        let run_id = found[0].get("runid").map_or(0, |id| id.len());
        equal("length of the run id", Some(&run_id.to_string()), "40")?;
    }
    let lines = cli(world, host, &["get-master-addr-by-name", "mymaster"])?;
    equal("address", Some(&lines.join(" ")), &format!("{ip} {port}"))?;
    let lines = cli(world, host, &["ckquorum", "mymaster"])?;
    equal("quorum", lines.first().map(|line| &line[..line.len().min(2)]), "OK")?;
    for command in ["slaves", "replicas"] {
        let lines = cli(world, host, &[command, "mymaster"])?;
        let found = instances(&lines);
        let mut ips: Vec<_> = found.iter().filter_map(|replica| replica.get("ip").copied()).collect();
        ips.sort_unstable();
        let others = DATA.iter().filter(|node| **node != master).map(|node| world.address(node).ip().to_string());
        equal(command, Some(&ips.join(" ")), &others.collect::<Vec<_>>().join(" "))?;
        for replica in &found {
            let expected =
                [("flags", "slave"), ("master-link-status", "ok"), ("master-host", &*ip), ("master-port", &*port)];
            for (field, value) in expected {
                equal(field, replica.get(field).copied(), value)?;
            }
        }
    }
    let lines = cli(world, host, &["sentinels", "mymaster"])?;
    let found = instances(&lines);
    let mut ips: Vec<_> = found.iter().filter_map(|sentinel| sentinel.get("ip").copied()).collect();
    ips.sort_unstable();
    let others = DATA.iter().filter(|node| **node != host).map(|node| world.address(node).ip().to_string());
    equal("sentinels", Some(&ips.join(" ")), &others.collect::<Vec<_>>().join(" "))?;
    for sentinel in &found {
        equal("flags", sentinel.get("flags").copied(), "sentinel")?;
        equal("port", sentinel.get("port").copied(), &SENTINEL.to_string())?;
    }
    Ok(())
}

/// A client of the kind that the applications use: one object for the master, asked again after an error, as they all do.
const PYTHON: &str = r#"
import sys, time, redis
from redis.sentinel import Sentinel
password, hosts = sys.argv[1], sys.argv[2:]
sentinel = Sentinel([(host, 26379) for host in hosts], socket_timeout=0.5)
master = sentinel.master_for("mymaster", password=password, socket_timeout=4)
replica = sentinel.slave_for("mymaster", password=password, socket_timeout=0.5)
for number, _ in enumerate(sys.stdin, 1):
    deadline = time.monotonic() + 5
    while True:
        try:
            master.set("py:%d" % number, number)
            break
        except redis.exceptions.RedisError as error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # A redis streams to a replica that is new to it only after that one's next word, which comes once a second.
    acked = master.wait(2, 3000)
    kept = [int(master.get("py:%d" % key) or 0) for key in range(1, number + 1)]
    read = int(replica.get("py:%d" % number) or 0)
    replicas = sorted(host for host, port in sentinel.discover_slaves("mymaster"))
    print(sentinel.discover_master("mymaster")[0], ",".join(replicas), kept == list(range(1, number + 1)), acked, read, flush=True)
"#;

/// That client at work.
struct Python {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Python {
    fn start(world: &World) -> Result<Self, String> {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", PYTHON, world.cluster.layout().password.reveal()]);
        command.args(DATA.map(|node| world.address(node).ip().to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = world.cluster.lab().exec(CLIENT, || command.spawn()).map_err(text)?.map_err(text)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or("both are pipes")?;
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    /// One more write. Returns what it says.
    fn write(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.stdin.write_all(b"\n").and_then(|()| self.stdin.flush()).map_err(text)?;
        self.stdout.read_line(&mut line).map_err(text)?;
        Ok(line.trim().to_owned())
    }
}

fn redis_py(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let (_, master) = world.wait_whole(Instant::now(), WHOLE_TIME)?;
    let mut python = Python::start(&world)?;
    let expected = |master: &str, number: u32| {
        let replicas = DATA.iter().filter(|node| **node != master).map(|node| world.address(node).ip().to_string());
        format!("{} {} True 2 {number}", world.address(master).ip(), replicas.collect::<Vec<_>>().join(","))
    };
    assert_eq!(python.write()?, expected(master, 1));
    let (_, master) = crash(&world)?;
    assert_eq!(python.write()?, expected(master, 2));
    drop(python.stdin);
    let status = python.child.wait().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("the client ended: {status}")) }
}

/// Subscribes at the sentinel of every host, kills the master, and collects what is said.
fn subscribers(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let network = world.cluster.lab().network(CLIENT).map_err(text)?;
    let (subscribed, ready) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let addresses = DATA.map(|node| SocketAddr::new(world.address(node).ip(), SENTINEL));
    let listener = std::thread::spawn(move || {
        network.enter().map_err(text)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        runtime.block_on(async {
            let mut listening = Vec::new();
            for address in addresses {
                let mut connection = Connection::open(address, QUIET_TIME).await.map_err(text)?;
                let limit = Duration::from_secs(2);
                connection.ask(&["SUBSCRIBE", "+switch-master"], limit).await.map_err(text)?;
                listening.push(tokio::spawn(messages(connection, stopped.clone())));
            }
            subscribed.send(()).map_err(text)?;
            let mut said = Vec::new();
            for one in listening {
                said.push(one.await.map_err(text)??);
            }
            Ok::<_, String>(said)
        })
    });
    if ready.recv_timeout(WHOLE_TIME).is_err() {
        return listener.join().map_err(|_| "panicked".to_owned())?.map(drop);
    }
    let (before, after) = crash(&world)?;
    std::thread::sleep(QUIET_TIME);
    stop.send(true).map_err(text)?;
    let said = listener.join().map_err(|_| "panicked".to_owned())??;
    let (from, to) = (world.address(before), world.address(after));
    let expected = format!("mymaster {} {} {} {}", from.ip(), from.port(), to.ip(), to.port());
    if said.iter().all(|said| *said == [format!("message +switch-master {expected}")]) {
        return Ok(());
    }
    Err(world.told(format!("said: {said:?}, expected of each: {expected}")))
}

/// Everything that comes until `stop`, a line each.
async fn messages(
    mut connection: Connection,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> Result<Vec<String>, String> {
    let mut said = Vec::new();
    loop {
        tokio::select! {
            message = connection.replies.next() => {
                let message = message.map_err(text)?;
                let words = message.array().unwrap_or_default().iter().filter_map(Reply::text);
                said.push(words.collect::<Vec<_>>().join(" "));
            }
            _ = stop.wait_for(|stop| *stop) => return Ok(said),
        }
    }
}

fn benchmark(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let layout = world.cluster.layout();
    for pipeline in ["1", "16"] {
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", &layout.vip.to_string(), "-a", layout.password.reveal(), "-q", "-c", "50", "-d", "64"]);
        command.args(["-n", "10000", "-t", "set,get,incr,lpush,mset", "-P", pipeline]);
        let output = run(&world, CLIENT, &mut command)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let done = said.matches("requests per second").count();
        if !output.status.success() || done != 5 || said.contains("Error") {
            return Err(world.told(format!("redis-benchmark: {output:?}")));
        }
    }
    world.wait_whole(Instant::now(), WHOLE_TIME).map(drop)
}

/// Runs one of vigie's own commands on a node, which must succeed.
fn vigie(world: &World, node: &str, words: &[&str]) -> Result<String, String> {
    let output = run(world, node, world.cluster.vigie(node).args(words))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("vigie {words:?} on {node}: {output:?}")) }
}

/// The master and the epoch by `vigie status --json` of every node, which all tell the same.
fn agreed(world: &World) -> Result<(String, u64), String> {
    let mut told = Vec::new();
    for node in world.cluster.names() {
        let status: Status = serde_json::from_str(&vigie(world, node, &["status", "--json"])?).map_err(text)?;
        let master = status.master.ok_or_else(|| format!("{node} knows no master"))?;
        told.push((master.node.unwrap_or(master.address), master.epoch));
    }
    let all_same = told.windows(2).all(|pair| pair[0] == pair[1]);
    told.pop().filter(|_| all_same).ok_or_else(|| format!("they do not agree: {told:?}"))
}

fn commands(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let (first, epoch) = agreed(&world)?;
    let (before, after) = crash(&world)?;
    assert_eq!(first, before);
    let (master, later) = agreed(&world)?;
    assert_eq!(master, after);
    assert!(later > epoch, "epoch {later} after epoch {epoch}");
    for node in DATA {
        let events = vigie(&world, node, &["events"])?;
        let (from, to) = (world.address(before), world.address(after));
        let switch = format!("mymaster {} {} {} {}", from.ip(), from.port(), to.ip(), to.port());
        let count = events.lines().filter(|line| line.contains("+switch-master") && line.ends_with(&switch)).count();
        assert_eq!(count, 1, "{node}: {events}");
    }
    for node in PROXIES {
        let events = vigie(&world, node, &["events"])?;
        let route = format!("writes go to {}", world.address(after));
        assert!(events.contains(&route), "{node}: {events}");
    }
    // Asked of a node with a sentinel, and of one without.
    for asked in ["redis-02", "haproxy-01"] {
        let (now, epoch) = agreed(&world)?;
        let to = DATA.into_iter().rfind(|node| *node != now).unwrap_or(DATA[0]);
        let said = vigie(&world, asked, &["failover", "--to", to]).map_err(|why| world.told(why))?;
        assert!(said.contains(&format!("{to} is master instead of {now}")), "{said}");
        let (_, master) = world.wait_whole(Instant::now(), WHOLE_TIME).map_err(|why| world.told(why))?;
        assert_eq!(master, to);
        world.wait_healthy()?;
        let (master, later) = agreed(&world)?;
        assert!(master == to && later > epoch, "{master} in epoch {later} after {epoch}");
    }
    let output = run(&world, "redis-01", world.cluster.vigie("redis-01").args(["failover", "--to", "haproxy-01"]))?;
    assert_eq!(output.status.code(), Some(1), "a node without a redis: {output:?}");
    Ok(())
}
