//! Client libraries that ask the sentinels for the master, follow a crash of it while they write, and read from replicas. Each
//! is a program of its own under `tests/clients`, got ready by `tests/install-tools`; all of them say the same things.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use vigie::operate::lab::cluster::CLIENT;
use vigie::operate::lab::sandbox::Sandbox;

use super::whole::{DATA, START_TIME, World, text, wait_ok};
use super::{Case, Outcome, note};

pub(crate) const CASES: &[Case] = &[
    Case { name: "redis_rs_follows_a_failover", needs: &["redis-server", "redis-rs-client"], run: redis_rs },
    Case { name: "ioredis_follows_a_failover", needs: &["redis-server", "node", "node-ioredis"], run: ioredis },
    Case { name: "node_redis_follows_a_failover", needs: &["redis-server", "node", "node-redis"], run: node_redis },
];

/// Where `tests/install-tools` puts what is needed.
pub(crate) const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools");
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
/// A client has found a new master within this time.
const FOLLOW_TIME: Duration = Duration::from_secs(20);
/// What goes well for so long is going well.
const CALM_TIME: Duration = Duration::from_secs(2);

fn redis_rs(sandbox: &Sandbox) -> Outcome {
    follow(sandbox, "redis-rs", Command::new(Path::new(TOOLS).join("redis-rs/debug/redis-rs-client")))
}

fn ioredis(sandbox: &Sandbox) -> Outcome {
    follow(sandbox, "ioredis", script(sandbox, "ioredis.mjs")?)
}

fn node_redis(sandbox: &Sandbox) -> Outcome {
    follow(sandbox, "node-redis", script(sandbox, "node-redis.mjs")?)
}

/// A script beside a copy of its modules: node looks for those where the script is.
fn script(sandbox: &Sandbox, name: &str) -> Result<Command, String> {
    let directory = sandbox.scratch.join("node");
    fs::create_dir_all(&directory).map_err(text)?;
    for file in fs::read_dir(Path::new(CLIENTS).join("node")).map_err(text)?.flatten() {
        fs::copy(file.path(), directory.join(file.file_name())).map_err(text)?;
    }
    symlink(Path::new(TOOLS).join("node/node_modules"), directory.join("node_modules")).map_err(text)?;
    let mut command = Command::new("node");
    command.arg(directory.join(name));
    Ok(command)
}

/// A client at work, and the lines that it says.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    faults: PathBuf,
}

impl Running {
    fn start(world: &World, mut command: Command) -> Result<Self, String> {
        let faults = world.cluster.lab().scratch().join("client.errors");
        command.arg(world.cluster.layout().password.reveal());
        command.args(DATA.map(|node| world.address(node).ip().to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&faults).map_err(text)?);
        let mut child = world.cluster.lab().exec(CLIENT, || command.spawn()).map_err(text)?.map_err(text)?;
        let stdout = child.stdout.take().ok_or("it is a pipe")?;
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        Ok(Self { child, lines, faults })
    }

    fn next(&self, limit: Duration) -> Result<String, String> {
        self.lines.recv_timeout(limit).map_err(|_| {
            let mut said = String::new();
            let _ = fs::File::open(&self.faults).and_then(|mut file| file.read_to_string(&mut said));
            format!("the client has not said what it should within {limit:?}; its errors:\n{said}")
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(sandbox: &Sandbox, library: &str, command: Command) -> Outcome {
    let world = World::start(sandbox)?;
    let (_, before) = world.wait_whole(Instant::now(), START_TIME)?;
    let mut client = Running::start(&world, command)?;
    let ready = client.next(FOLLOW_TIME)?;
    assert_eq!(ready, format!("ready {}", world.address(before).ip()), "{library} finds the master and a replica");
    std::thread::sleep(CALM_TIME);
    world.wait_recorded(before)?;
    world.cluster.kill_redis(before).map_err(text)?;
    let killed = Instant::now();
    let changed = || world.whole().and_then(|now| if now == before { Err("no failover".to_owned()) } else { Ok(now) });
    let (_, after) = wait_ok("no failover", killed, START_TIME, changed).map_err(|why| world.told(why))?;
    world.wait_healthy()?;
    std::thread::sleep(CALM_TIME);
    // The end of its input is the end of its writing.
    drop(client.child.stdin.take());
    let said = client.next(FOLLOW_TIME)?;
    let fields: BTreeMap<&str, &str> = said.split(' ').filter_map(|field| field.split_once('=')).collect();
    let number = |name| fields.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(u64::MAX);
    note(format!("{library}: {said}"));
    assert_eq!(fields.get("master").copied(), Some(world.address(after).ip().to_string().as_str()), "{said}");
    assert_eq!(number("lost"), 0, "{said}");
    let calm = u64::try_from(CALM_TIME.as_millis()).unwrap_or(0);
    assert!((1..u64::MAX).contains(&number("reads")) && (100..u64::MAX).contains(&number("acked")), "{said}");
    let replicas: Vec<_> = fields.get("replicas").copied().unwrap_or_default().split(',').collect();
    let known = |ip: &&str| DATA.iter().any(|node| world.address(node).ip().to_string() == **ip);
    assert!(replicas.iter().all(known), "{said}");
    // Its longest wait ended before the calm that followed: it writes again.
    assert!(number("gap_ms") < calm + 10_000, "{said}");
    Ok(())
}
