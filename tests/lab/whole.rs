//! A cluster of real processes, and whether it is whole by the word of those who must know: each redis itself, the kernels
//! about the virtual IP, and a client that writes through it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vigie::cores::redis::Durable;
use vigie::operate::lab::client::Client;
use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout, NodeSpec};
use vigie::operate::lab::hosts::Lab;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::runtime::connection::Connection;
use vigie::runtime::redis::record;
use vigie::wire::info::{Info, Role};
use vigie::wire::resp::Reply;

use super::Outcome;

/// The nodes of the classic layout that hold data.
pub(crate) const DATA: [&str; 3] = ["redis-01", "redis-02", "redis-03"];
/// Its proxies.
pub(crate) const PROXIES: [&str; 2] = ["haproxy-01", "haproxy-02"];
/// Port of redis, and of the proxy on the virtual IP.
const REDIS: u16 = 6379;
/// A machine whose cores are shared brings a cluster up in so long.
pub(crate) const START_TIME: Duration = Duration::from_secs(30);
/// All of it is well within this time, also after a failure.
pub(crate) const HEALTHY_TIME: Duration = Duration::from_secs(60);
/// Who does not answer within this time does not serve.
const ANSWER_TIME: Duration = Duration::from_secs(1);

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Asks whoever listens at `address`, seen from `host`, one thing after the other; first gives the password, if there is one.
/// Each answer, and a refusal too, comes within `limit`.
pub(crate) fn ask(
    lab: &Lab,
    host: &str,
    address: SocketAddr,
    password: Option<&str>,
    limit: Duration,
    commands: &[Vec<&str>],
) -> Result<Vec<Reply>, String> {
    let asked = lab.exec(host, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        runtime.block_on(async {
            let mut connection = Connection::open(address, limit).await.map_err(text)?;
            let mut replies = Vec::new();
            for command in password.map(|password| vec!["AUTH", password]).iter().chain(commands) {
                let reply = connection.ask(command, limit).await.map_err(text)?;
                if let Reply::Error(error) = reply {
                    return Err(format!("{address} answers {} with {error}", command[0]));
                }
                replies.push(reply);
            }
            Ok(replies.split_off(replies.len() - commands.len()))
        })
    });
    asked.map_err(text)?
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("VIGIE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_vigie").into(), PathBuf::from)
}

/// The cluster under test, and the writes that it must not lose.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// Keys that were acknowledged through the virtual IP and replicated: `marker:1` up to this number.
    markers: Cell<u32>,
    probes: Cell<u32>,
}

/// The classic hosts, whoever looks after their redis.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) layout: &'a Layout,
}

/// What one redis says of itself.
struct Spoken {
    node: &'static str,
    address: SocketAddr,
    role: Vec<String>,
    info: Info,
}

impl Site<'_> {
    pub(crate) fn address(self, node: &str) -> SocketAddr {
        let node = self.layout.nodes.iter().find(|spec| spec.name == node);
        SocketAddr::new(node.expect("a node of the layout").address, REDIS)
    }

    pub(crate) fn vip(self) -> SocketAddr {
        SocketAddr::new(self.layout.vip, REDIS)
    }

    /// Asks whoever listens at `address`, seen from `host`, with the password of the layout.
    pub(crate) fn ask(self, host: &str, address: SocketAddr, commands: &[Vec<&str>]) -> Result<Vec<Reply>, String> {
        ask(self.lab, host, address, Some(self.layout.password.reveal()), ANSWER_TIME, commands)
    }

    /// The redis of a node, asked on its own host.
    fn spoken(self, node: &'static str) -> Result<Spoken, String> {
        let address = self.address(node);
        let replies = self.ask(node, address, &[vec!["ROLE"], vec!["INFO"]])?;
        let word = |reply: &Reply| reply.text().map(str::to_owned).or_else(|| Some(reply.integer()?.to_string()));
        let role = replies[0].array().unwrap_or_default().iter().map(|reply| word(reply).unwrap_or_default());
        let info = Info::parse(replies[1].text().unwrap_or_default());
        Ok(Spoken { node, address, role: role.collect(), info })
    }

    /// The node of the only master among `nodes`, all others being in sync with it, by their own words.
    pub(crate) fn only_master(self, nodes: &[&'static str]) -> Result<&'static str, String> {
        let spoken = nodes.iter().map(|node| self.spoken(node)).collect::<Result<Vec<_>, _>>()?;
        let masters: Vec<_> =
            spoken.iter().filter(|one| one.role.first().is_some_and(|role| role == "master")).collect();
        let [master] = masters.as_slice() else {
            return Err(format!("masters: {:?}", masters.iter().map(|one| one.node).collect::<Vec<_>>()));
        };
        for one in spoken.iter().filter(|one| one.node != master.node) {
            let follows = [master.address.ip().to_string(), master.address.port().to_string(), "connected".to_owned()];
            let says = one.info.role == Some(Role::Replica) && one.info.master() == Some(master.address);
            if one.role.get(1..4) != Some(&follows) || !says || !one.info.master_link_up {
                return Err(format!("{} is not in sync with {}: {:?}", one.node, master.node, one.role));
            }
        }
        Ok(master.node)
    }

    /// A failure, with what every node has to say of the time before it.
    pub(crate) fn told(self, failure: String) -> String {
        let log = |node: &NodeSpec| {
            let log = std::fs::read_to_string(self.lab.scratch().join(format!("{}.log", node.name)));
            let log = log.unwrap_or_else(text);
            let lines: Vec<_> = log.lines().collect();
            format!("-- {}\n{}", node.name, lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        let logs: Vec<_> = self.layout.nodes.iter().map(log).collect();
        format!("{failure}\n{}", logs.join("\n"))
    }
}

impl World {
    /// The classic five hosts, up and whole.
    pub(crate) fn start(sandbox: &Sandbox) -> Result<Self, String> {
        Self::of(sandbox, Layout::classic())
    }

    /// Hosts that are laid out in another way, with the classic nodes among them.
    pub(crate) fn of(sandbox: &Sandbox, layout: Layout) -> Result<Self, String> {
        Self::with(sandbox, layout, &binary())
    }

    /// The same, with another binary on all of them.
    pub(crate) fn with(sandbox: &Sandbox, layout: Layout, binary: &Path) -> Result<Self, String> {
        let cluster = Cluster::start(sandbox, layout, binary).map_err(text)?;
        let world = Self { cluster, markers: Cell::new(0), probes: Cell::new(0) };
        world.wait_whole(Instant::now(), START_TIME)?;
        world.wait_healthy()?;
        Ok(world)
    }

    pub(crate) const fn site(&self) -> Site<'_> {
        Site { lab: self.cluster.lab(), layout: self.cluster.layout() }
    }

    pub(crate) fn address(&self, node: &str) -> SocketAddr {
        self.site().address(node)
    }

    pub(crate) fn vip(&self) -> SocketAddr {
        self.site().vip()
    }

    /// Asks whoever listens at `address`, seen from `host`, with the password of the cluster.
    pub(crate) fn ask(&self, host: &str, address: SocketAddr, commands: &[Vec<&str>]) -> Result<Vec<Reply>, String> {
        self.site().ask(host, address, commands)
    }

    /// The same through the virtual IP, from the client's host.
    pub(crate) fn ask_vip(&self, commands: &[Vec<&str>]) -> Result<Vec<Reply>, String> {
        self.ask(CLIENT, self.vip(), commands)
    }

    /// One master among `nodes`, the others in sync with it, one holder of the virtual IP, and a write through that which
    /// arrives at that master. Returns the master.
    pub(crate) fn whole_among(&self, nodes: &[&'static str]) -> Result<&'static str, String> {
        let master = self.site().only_master(nodes)?;
        let holders = self.cluster.vip_holders().map_err(text)?;
        if holders.len() != 1 {
            return Err(format!("the virtual IP is on {holders:?}"));
        }
        let number = self.probes.get() + 1;
        self.probes.set(number);
        let value = number.to_string();
        let written = self.ask_vip(&[vec!["SET", "probe", &value]])?;
        let found = self.ask(master, self.address(master), &[vec!["GET", "probe"]])?;
        if !written[0].is_ok() || found[0].text() != Some(&value) {
            return Err(format!("a write through the virtual IP ({written:?}) is on {master} as {found:?}"));
        }
        Ok(master)
    }

    /// Every host has its processes, and everything is whole. Returns the master.
    pub(crate) fn whole(&self) -> Result<&'static str, String> {
        self.cluster.alive().map_err(text)?;
        for node in self.cluster.names() {
            self.processes_complete(node)?;
        }
        self.whole_among(&DATA)
    }

    /// Guard and worker, and a redis where one belongs; nothing else.
    pub(crate) fn processes_complete(&self, node: &str) -> Result<(), String> {
        let expected = if DATA.contains(&node) { 3 } else { 2 };
        let found = self.cluster.lab().processes(node).map_err(text)?;
        if found.len() == expected { Ok(()) } else { Err(format!("{node} runs {found:?}")) }
    }

    /// Waits until everything is whole, at most `limit` since `since`. Returns how long that was, and the master.
    pub(crate) fn wait_whole(&self, since: Instant, limit: Duration) -> Result<(Duration, &'static str), String> {
        wait_ok("the cluster is not whole", since, limit, || self.whole())
    }

    /// Waits until every node finds every node good, which ends later than being whole.
    pub(crate) fn wait_healthy(&self) -> Outcome {
        self.cluster.wait_healthy(START_TIME).map(drop).map_err(|error| self.told(text(error)))
    }

    /// The holder of the virtual IP.
    pub(crate) fn vip_holder(&self) -> Result<&'static str, String> {
        let holders = self.cluster.vip_holders().map_err(text)?;
        holders.first().copied().ok_or_else(|| "nobody holds the virtual IP".to_owned())
    }

    /// Of the latest decision that a node knows of.
    pub(crate) fn epoch(&self, node: &str) -> Result<Option<u64>, String> {
        Ok(self.cluster.status(node).map_err(text)?.master.map(|master| master.epoch))
    }

    /// Waits until the redis of `node` has on disk that it is the master of the decision. Who dies before that is passed over
    /// for one that has: its disk proves nothing of what it had as master.
    pub(crate) fn wait_recorded(&self, node: &str) -> Outcome {
        let recorded = || {
            let epoch = self.epoch(node)?;
            let durable: Option<Durable> = record(&self.cluster.state_dir(node)).load().map_err(text)?;
            let history = durable.and_then(|durable| durable.history).filter(|history| history.in_sync);
            match history {
                Some(history) if Some(history.epoch) == epoch => Ok(()),
                _ => Err(format!("{node}, master of epoch {epoch:?}, recorded {history:?}")),
            }
        };
        wait_ok("the master is not recorded", Instant::now(), START_TIME, recorded).map(drop)
    }

    /// Writes one more key that must never be lost: acknowledged through the virtual IP, and on a replica.
    pub(crate) fn mark(&self) -> Outcome {
        let number = self.markers.get() + 1;
        let (key, value) = (format!("marker:{number}"), number.to_string());
        let replies = self.ask_vip(&[vec!["SET", &key, &value], vec!["WAIT", "1", "1000"]])?;
        if !replies[0].is_ok() || replies[1].integer().is_none_or(|replicas| replicas < 1) {
            return Err(format!("{key} is not written and replicated: {replies:?}"));
        }
        self.markers.set(number);
        Ok(())
    }

    /// All of those keys are still there.
    pub(crate) fn marks_kept(&self) -> Outcome {
        let keys: Vec<_> = (1..=self.markers.get()).map(|number| format!("marker:{number}")).collect();
        let mut command = vec!["MGET"];
        command.extend(keys.iter().map(String::as_str));
        let found = self.ask_vip(&[command])?;
        let found = found[0].array().unwrap_or_default();
        let lost = |(at, key): (usize, &String)| {
            let kept = found.get(at).and_then(Reply::integer) == i64::try_from(at + 1).ok();
            (!kept).then(|| key.clone())
        };
        let lost: Vec<_> = keys.iter().enumerate().filter_map(lost).collect();
        if lost.is_empty() { Ok(()) } else { Err(self.told(format!("lost: {lost:?}"))) }
    }

    /// A failure, with what every node has to say of the time before it.
    pub(crate) fn told(&self, failure: String) -> String {
        self.site().told(failure)
    }
}

/// A failure, with what every node of a cluster has to say of the time before it.
pub(crate) fn told(cluster: &Cluster, failure: String) -> String {
    Site { lab: cluster.lab(), layout: cluster.layout() }.told(failure)
}

/// A healthy cluster with a client that writes steadily within `limit`.
pub(crate) fn written(
    sandbox: &Sandbox,
    layout: Layout,
    plan: &str,
    limit: Duration,
) -> Result<(Cluster, Client), String> {
    let cluster = Cluster::start(sandbox, layout, Path::new(env!("CARGO_BIN_EXE_vigie"))).map_err(text)?;
    cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    let started = clock::now();
    let client = Client::start(cluster.lab(), CLIENT, cluster.plan(plan)).map_err(text)?;
    flows(&client, started, limit)?;
    Ok((cluster, client))
}

/// Waits until writes flow steadily.
pub(crate) fn flows(client: &Client, since: vigie::base::Instant, limit: Duration) -> Outcome {
    if client.wait_steady(since, Duration::from_millis(500), limit) {
        return Ok(());
    }
    Err(format!("writes do not flow: {:?}", client.tally().kinds))
}

/// Waits until `condition` says yes, at most `limit` since `since`. Returns how long that was; in vain, its last no.
pub(crate) fn wait_ok<T>(
    what: &str,
    since: Instant,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> Result<(Duration, T), String> {
    loop {
        let why = match condition() {
            Ok(value) => return Ok((since.elapsed(), value)),
            Err(why) => why,
        };
        if since.elapsed() > limit {
            return Err(format!("{what} after {limit:?}: {why}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
