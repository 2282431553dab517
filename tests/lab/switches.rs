//! How long from a fault to `+switch-master`, as clients hear it that have subscribed: three sentinels of ours, and beside them
//! three of redis-sentinel with redis of their own, on the same hosts in the same run. And how often a machine with nothing to
//! spare makes them fail over for nothing. Not checks: they print, and run only when they are asked for by name (`bench`).
//!
//! `RUNS`: how often each fault happens (20). `BUSY_SECONDS`: how long all cores are kept busy (60).

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::connection::Connection;
use vigie::wire::info::{Info, Role};
use vigie::wire::resp::Reply;

use super::whole::{DATA, START_TIME, text, wait_ok};
use super::{Case, Outcome, note};

pub(crate) const CASES: &[Case] = &[
    Case { name: "fault_to_switch_master", needs: &["redis-server"], run: switches },
    Case { name: "false_failovers_under_load", needs: &["redis-server"], run: busy },
];

/// Ports of our redis and sentinels, and of the stock ones.
const OURS: Ports = Ports { redis: 6379, sentinel: 26379 };
const STOCK: Ports = Ports { redis: 7379, sentinel: 27379 };
/// A sentinel that has not said it by then will not.
const SWITCH_TIME: Duration = Duration::from_secs(15);
const SETTLE_TIME: Duration = Duration::from_secs(60);
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// A stock sentinel begins no failover within twice its time-out after the last one: here 4 s.
const STOCK_REST: Duration = Duration::from_millis(5_000);

#[derive(Clone, Copy)]
struct Ports {
    redis: u16,
    sentinel: u16,
}

/// Both systems on three hosts.
struct World {
    cluster: Cluster,
    /// The stock redis, by host.
    redis: [Option<Child>; 3],
    /// Runs until the world ends.
    _sentinels: Vec<Child>,
    switched_at: Instant,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

impl World {
    fn start(sandbox: &Sandbox) -> Result<Self, String> {
        let mut layout = Layout::classic();
        layout.settings.push_str("down_after = \"500ms\"\n");
        let binary = std::env::var_os("VIGIE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_vigie").into(), PathBuf::from);
        let cluster = Cluster::start(sandbox, layout, &binary).map_err(text)?;
        let mut world =
            Self { cluster, redis: [None, None, None], _sentinels: Vec::new(), switched_at: Instant::now() };
        for n in 0..DATA.len() {
            world.start_stock(n, (n > 0).then_some(0))?;
        }
        for host in DATA {
            let directory = world.cluster.lab().scratch().join(host).join("stock");
            let (ip, first) = (world.ip(host), world.ip(DATA[0]));
            let Ports { redis, sentinel } = STOCK;
            let conf = format!(
                "port {sentinel}\nbind {ip}\ndir {}\nsentinel monitor mymaster {first} {redis} 2\n\
                 sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n\
                 sentinel parallel-syncs mymaster 2\n",
                directory.display()
            );
            let path = directory.join("sentinel.conf");
            fs::write(&path, conf).map_err(text)?;
            let mut command = Command::new("redis-server");
            let command = command.arg(path).arg("--sentinel");
            let child = world.cluster.lab().spawn(host, command, &format!("{host}-sentinel")).map_err(text)?;
            world._sentinels.push(child);
        }
        Ok(world)
    }

    fn ip(&self, host: &str) -> IpAddr {
        let node = self.cluster.layout().nodes.iter().find(|spec| spec.name == host);
        node.expect("a node of the layout").address
    }

    /// Starts the stock redis of a host, as a replica of that of another one.
    fn start_stock(&mut self, n: usize, of: Option<usize>) -> Outcome {
        let host = DATA[n];
        let directory = self.cluster.lab().scratch().join(host).join("stock");
        fs::create_dir_all(&directory).map_err(text)?;
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            &self.ip(host).to_string(),
            "--port",
            &STOCK.redis.to_string(),
            "--save",
            "",
            "--protected-mode",
            "no",
        ]);
        command.args(["--repl-diskless-sync-delay", "0", "--dir"]).arg(directory);
        if let Some(of) = of {
            command.args(["--replicaof", &self.ip(DATA[of]).to_string(), &STOCK.redis.to_string()]);
        }
        let child = self.cluster.lab().spawn(host, &mut command, &format!("{host}-redis")).map_err(text)?;
        self.redis[n] = Some(child);
        Ok(())
    }

    fn ask(&self, host: &str, port: u16, command: &[&str]) -> Result<Reply, String> {
        let (address, password) = (SocketAddr::new(self.ip(host), port), self.cluster.layout().password.reveal());
        let asked = self.cluster.lab().exec(host, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            runtime.block_on(async {
                let mut connection = Connection::open(address, ANSWER_TIME).await.map_err(text)?;
                // Who has no password says so, and answers all the same.
                connection.ask(&["AUTH", password], ANSWER_TIME).await.map_err(text)?;
                connection.ask(command, ANSWER_TIME).await.map_err(text)
            })
        });
        asked.map_err(text)?
    }

    /// The place of the master, by one sentinel.
    fn named(&self, host: &str, ports: Ports) -> Result<usize, String> {
        let reply = self.ask(host, ports.sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"])?;
        let ip = reply.array().and_then(|words| words.first()?.text()?.parse::<IpAddr>().ok());
        let found = DATA.iter().position(|host| Some(self.ip(host)) == ip);
        found.ok_or_else(|| format!("{host} names {reply:?} as the master"))
    }

    /// The place of the master, by all sentinels and all redis of one kind.
    fn settled(&self, ports: Ports) -> Result<usize, String> {
        let mut named = Vec::new();
        for host in DATA {
            named.push(self.named(host, ports)?);
            let quorum = self.ask(host, ports.sentinel, &["SENTINEL", "CKQUORUM", "mymaster"])?;
            if !quorum.text().is_some_and(|text| text.starts_with("OK 3 usable")) {
                return Err(format!("{host}: {quorum:?}"));
            }
            let reply = self.ask(host, ports.sentinel, &["SENTINEL", "REPLICAS", "mymaster"])?;
            let replicas: Vec<Vec<&str>> = reply.array().unwrap_or_default().iter().map(words).collect();
            let well = replicas.iter().all(|words| words.chunks(2).any(|pair| pair == ["flags", "slave"]));
            if replicas.len() != 2 || !well {
                return Err(format!("{host} sees replicas {replicas:?}"));
            }
        }
        let at = named[0];
        if named.iter().any(|other| *other != at) {
            return Err(format!("they name {named:?}"));
        }
        for (n, host) in DATA.iter().enumerate() {
            let reply = self.ask(host, ports.redis, &["INFO", "replication"])?;
            let info = Info::parse(reply.text().unwrap_or_default());
            let follows = info.master() == Some(SocketAddr::new(self.ip(DATA[at]), ports.redis)) && info.master_link_up;
            let right = if n == at { info.role == Some(Role::Master) } else { follows };
            if !right {
                let (role, of, up) = (info.role, info.master(), info.master_link_up);
                return Err(format!("the redis of {host} is {role:?} of {of:?}, link up: {up}; master: {}", DATA[at]));
            }
        }
        Ok(at)
    }

    /// The end of what a stock sentinel logged.
    fn log(&self, host: &str) -> String {
        let log =
            fs::read_to_string(self.cluster.lab().scratch().join(format!("{host}-sentinel.log"))).unwrap_or_else(text);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn wait_settled(&self, ports: Ports) -> Result<usize, String> {
        let (_, at) = wait_ok("not settled", Instant::now(), SETTLE_TIME, || self.settled(ports))?;
        sleep(STOCK_REST.saturating_sub(self.switched_at.elapsed()));
        Ok(at)
    }

    /// Listens at all sentinels of one kind but the one at `deaf`, does `strike`, and returns how long each took to say
    /// `+switch-master`.
    fn heard(
        &mut self,
        ports: Ports,
        deaf: Option<usize>,
        strike: impl FnOnce(&mut Self) -> Outcome,
    ) -> Result<Vec<Duration>, String> {
        let network = self.cluster.lab().network(CLIENT).map_err(text)?;
        let hosts = DATA.iter().enumerate().filter(|(n, _)| Some(*n) != deaf);
        let addresses: Vec<_> = hosts.map(|(_, host)| SocketAddr::new(self.ip(host), ports.sentinel)).collect();
        let (ready, is_ready) = mpsc::channel();
        let listener = std::thread::spawn(move || {
            network.enter().map_err(text)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            runtime.block_on(async {
                let mut listening = Vec::new();
                for address in addresses {
                    let mut connection = Connection::open(address, ANSWER_TIME).await.map_err(text)?;
                    connection.ask(&["SUBSCRIBE", "+switch-master"], ANSWER_TIME).await.map_err(text)?;
                    listening.push(tokio::spawn(first_message(connection)));
                }
                ready.send(()).map_err(text)?;
                let mut said = Vec::new();
                for one in listening {
                    said.extend(one.await.map_err(text)?);
                }
                Ok::<_, String>(said)
            })
        });
        let listens = is_ready.recv_timeout(SWITCH_TIME).is_ok();
        let struck = Instant::now();
        if listens {
            strike(self)?;
        }
        let said = listener.join().map_err(|_| "panicked".to_owned())??;
        self.switched_at = Instant::now();
        Ok(said.into_iter().map(|at| at - struck).collect())
    }

    fn killed(&mut self, ports: Ports) -> Result<Vec<Duration>, String> {
        let at = self.wait_settled(ports)?;
        if ports.redis == OURS.redis {
            return self.heard(ports, None, |world| world.cluster.kill_ours(DATA[at]));
        }
        let heard = self.heard(ports, None, |world| {
            let child = world.redis[at].as_mut().ok_or("it runs")?;
            child.kill().and_then(|()| child.wait()).map(drop).map_err(text)
        })?;
        let switched = || match self.named(DATA[(at + 1) % DATA.len()], ports)? {
            same if same == at => Err(format!("still {}\n{}", DATA[at], self.log(DATA[at]))),
            other => Ok(other),
        };
        let (_, other) = wait_ok("no failover of the stock redis", Instant::now(), SETTLE_TIME, switched)?;
        self.start_stock(at, Some(other))?;
        Ok(heard)
    }

    fn cut(&mut self, ports: Ports) -> Result<Vec<Duration>, String> {
        let at = self.wait_settled(ports)?;
        let heard = self.heard(ports, Some(at), |world| world.cluster.lab().cut(DATA[at]).map_err(text));
        self.cluster.lab().heal(DATA[at]).map_err(text)?;
        heard
    }
}

/// When the first message came. The whole connection is needed: a closed half of it closes the other.
async fn first_message(mut connection: Connection) -> Option<Instant> {
    let said = tokio::time::timeout(SWITCH_TIME, connection.replies.next()).await;
    said.ok().and_then(Result::ok).map(|_| Instant::now())
}

/// Channels, and whether it was about a master, of all messages until `ended`; none at all from one that hangs up.
async fn messages(mut connection: Connection, ended: Arc<AtomicBool>) -> Result<Vec<(String, bool)>, String> {
    let mut said = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let Ok(next) = tokio::time::timeout(Duration::from_millis(100), connection.replies.next()).await else {
            continue;
        };
        let message = next.map_err(text)?;
        if let ["message", channel, payload] = words(&message)[..] {
            said.push((channel.to_owned(), payload.starts_with("master ")));
        }
    }
    Ok(said)
}

/// There are two redis on each host: ours is the child of vigie.
trait KillOurs {
    fn kill_ours(&self, host: &str) -> Outcome;
}

impl KillOurs for Cluster {
    fn kill_ours(&self, host: &str) -> Outcome {
        let processes = self.lab().processes(host).map_err(text)?;
        let vigies: Vec<_> = processes.iter().filter(|process| process.command == "vigie").map(|one| one.pid).collect();
        let ours = processes.iter().find(|one| one.command == "redis-server" && vigies.contains(&one.parent));
        let pid = ours.ok_or("there is a redis of ours")?.pid;
        vigie::operate::lab::hosts::signal(pid, nix::sys::signal::Signal::SIGKILL).map_err(text)
    }
}

fn words(reply: &Reply) -> Vec<&str> {
    reply.array().unwrap_or_default().iter().filter_map(Reply::text).collect()
}

/// Median and maximum, milliseconds.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| {
        time.map_or_else(|| "-".to_owned(), |time| format!("{:.0}", time.as_secs_f64() * 1e3))
    };
    format!("{:>7} {:>7}", ms(times.get(times.len() / 2)), ms(times.last()))
}

/// One fault, to one of the systems; how long each of its sentinels took to tell.
type Strike = fn(&mut World, Ports) -> Result<Vec<Duration>, String>;

fn switches(sandbox: &Sandbox) -> Outcome {
    let mut world = World::start(sandbox)?;
    let runs = setting("RUNS", 20);
    wait_ok("no start", Instant::now(), START_TIME, || world.settled(OURS))?;
    note(
        "fault to +switch-master, as subscribers hear it, down_after 500 ms: ms until the first sentinel says it, until all",
    );
    note(format!(
        "{:<14} {:<22} {:>4} {:>7} {:>7} {:>7} {:>7} {:>5}",
        "fault", "sentinels", "runs", "median", "max", "median", "max", "late"
    ));
    let faults: [(&str, Strike); 2] = [("redis killed", World::killed), ("host cut", World::cut)];
    for (fault, strike) in faults {
        let expected = if fault == "host cut" { 2 } else { 3 };
        let mut results = [(OURS, "vigie", vec![], vec![], 0), (STOCK, "redis-sentinel 7.0", vec![], vec![], 0)];
        for _ in 0..runs {
            for (ports, _, first, all, late) in &mut results {
                let heard = strike(&mut world, *ports)?;
                first.extend(heard.iter().min());
                // Who has not said it within the limit is no number.
                if heard.len() == expected { all.extend(heard.iter().max()) } else { *late += 1 }
            }
        }
        for (_, name, first, all, late) in results {
            let (runs, first, all) = (first.len(), summary(first), summary(all));
            note(format!("{fault:<14} {name:<22} {runs:>4} {first} {all} {late:>5}"));
        }
    }
    Ok(())
}

fn busy(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let before = [world.wait_settled(OURS)?, world.wait_settled(STOCK)?];
    let (span, cores) =
        (Duration::from_secs(setting("BUSY_SECONDS", 60)), std::thread::available_parallelism().map_err(text)?);
    let idle = Arc::new(AtomicBool::new(false));
    let network = world.cluster.lab().network(CLIENT).map_err(text)?;
    let addresses: Vec<_> =
        [OURS, STOCK].map(|ports| DATA.map(|host| SocketAddr::new(world.ip(host), ports.sentinel))).concat();
    let ended = Arc::clone(&idle);
    let listener = std::thread::spawn(move || {
        network.enter().map_err(text)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        runtime.block_on(async {
            let mut listening = Vec::new();
            for address in addresses {
                let mut connection = Connection::open(address, ANSWER_TIME).await.map_err(text)?;
                for channel in ["+sdown", "+odown", "+try-failover", "+switch-master"] {
                    connection.ask(&["SUBSCRIBE", channel], ANSWER_TIME).await.map_err(text)?;
                }
                let ended = Arc::clone(&ended);
                listening.push(tokio::spawn(messages(connection, Arc::clone(&ended))));
            }
            let mut said = Vec::new();
            for one in listening {
                said.push(one.await.map_err(text)??);
            }
            Ok::<_, String>(said)
        })
    });
    let spinners = (0..cores.get()).map(|_| {
        let idle = Arc::clone(&idle);
        std::thread::spawn(move || {
            let mut count = 0_u64;
            while !idle.load(Ordering::Relaxed) {
                count = std::hint::black_box(count.wrapping_add(1));
            }
        })
    });
    let spinners: Vec<_> = spinners.collect();
    sleep(span);
    idle.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(|spinner| drop(spinner.join()));
    let said = listener.join().map_err(|_| "panicked".to_owned())??;
    let after = [world.wait_settled(OURS)?, world.wait_settled(STOCK)?];
    note(format!(
        "all {cores} cores busy for {} s, down_after 500 ms: what was said of a master that was well",
        span.as_secs()
    ));
    for (n, name) in ["vigie", "redis-sentinel 7.0"].iter().enumerate() {
        let said: Vec<_> = said[n * 3..n * 3 + 3].concat();
        let count = |channel: &str| {
            said.iter()
                .filter(|(said, of_master)| said == channel && (*of_master || channel == "+switch-master"))
                .count()
        };
        let (sdown, odown, tries, switches) =
            (count("+sdown"), count("+odown"), count("+try-failover"), count("+switch-master"));
        let moved = if before[n] == after[n] { "same" } else { "another" };
        note(format!(
            "{name:<22} +sdown {sdown}, +odown {odown}, +try-failover {tries}, +switch-master {switches}; {moved} master"
        ));
    }
    Ok(())
}
