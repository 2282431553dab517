//! A cluster of vigie nodes on the hosts of a lab: its file, its processes, its health, its faults.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client::Plan;
use super::hosts::{HostSpec, Lab, LabError, Process, signal, system};
use super::sandbox::Sandbox;
use crate::base::Secret;
use crate::config::Fencing;
use crate::operate::client::{self, ClientError};
use crate::runtime::clock;
use crate::runtime::control::Switched;
use crate::runtime::status::Status;

/// The host that the measuring client runs on.
pub const CLIENT: &str = "client";
/// The port of the VIP.
const PORT: u16 = 6379;
/// Name of the cluster file in the directory of each node.
const FILE: &str = "vigie.toml";
/// A switchover has either happened or been aborted after so long.
const SWITCHOVER_TIME: Duration = Duration::from_secs(30);

/// A node of a cluster to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name of the node and of its host.
    pub name: &'static str,
    /// Address of its host.
    pub address: IpAddr,
    /// `proxy`, `redis`, `sentinel`.
    pub roles: &'static [&'static str],
    /// Further keys of its table in the cluster file, a line each.
    pub keys: &'static str,
}

/// A cluster to be.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its nodes.
    pub nodes: Vec<NodeSpec>,
    /// Where clients connect.
    pub vip: IpAddr,
    /// Prefix length of all addresses.
    pub prefix: u8,
    /// Address of the client's host.
    pub client: IpAddr,
    /// Further hosts, on which no vigie runs.
    pub guests: Vec<HostSpec>,
    /// What applications use.
    pub password: Secret,
    /// The cluster's own; none: derived from the password.
    pub secret: Option<Secret>,
    /// Tables of the cluster file other than `[[vip]]` and `[[node]]`, as TOML; the files of the secrets are in the
    /// scratch directory, and their keys are added to `[cluster]`, which must come first.
    pub settings: String,
    /// Keys of the `[[vip]]` table, as TOML, besides addresses and interface.
    pub vip_keys: String,
}

impl Layout {
    /// Two proxies and three redis with sentinels, as in the classic setup that vigie replaces, with vigie's defaults.
    pub fn classic() -> Self {
        let node = |name, last, roles, keys| NodeSpec { name, address: IpAddr::from([192, 168, 0, last]), roles, keys };
        let data: &[&str] = &["redis", "sentinel"];
        Self {
            nodes: vec![
                node("haproxy-01", 2, &["proxy"], "priority = 101\n"),
                node("haproxy-02", 3, &["proxy"], "priority = 100\n"),
                node("redis-01", 4, data, "bootstrap_master = true\n"),
                node("redis-02", 5, data, ""),
                node("redis-03", 6, data, ""),
            ],
            vip: IpAddr::from([192, 168, 0, 1]),
            prefix: 24,
            client: IpAddr::from([192, 168, 0, 100]),
            guests: Vec::new(),
            password: Secret::new("only-the-lab-knows-this"),
            secret: Some(Secret::new("only-the-nodes-know-this")),
            settings: "[cluster]\nname = \"mymaster\"\nquorum = 2\n".to_owned(),
            vip_keys: "virtual_router_id = 51\n".to_owned(),
        }
    }

    /// The same, with or without leases, whatever the default is.
    #[must_use]
    pub fn with_fencing(mut self, fencing: Fencing) -> Self {
        self.settings = self.settings.replacen("[cluster]\n", &format!("[cluster]\nfencing = \"{fencing}\"\n"), 1);
        self
    }

    /// The hosts it needs: its nodes, the client and the guests.
    pub fn hosts(&self) -> Vec<HostSpec> {
        let host = |name: &str, address| HostSpec { name: name.to_owned(), address, prefix: self.prefix };
        let nodes = self.nodes.iter().map(|node| host(node.name, node.address));
        nodes.chain([host(CLIENT, self.client)]).chain(self.guests.iter().cloned()).collect()
    }

    /// The cluster file.
    fn file(&self, scratch: &Path) -> String {
        let kept = |name: &str| format!("{name}_file = {:?}\n", scratch.join(name).display().to_string());
        let secret = self.secret.as_ref().map_or_else(String::new, |_| kept("secret"));
        let mut file = self.settings.replacen("[cluster]\n", &format!("[cluster]\n{}{secret}", kept("password")), 1);
        let (vip, prefix, keys) = (self.vip, self.prefix, &self.vip_keys);
        let _ = write!(file, "\n[[vip]]\naddresses = [\"{vip}/{prefix}\"]\ninterface = \"eth0\"\n{keys}");
        for NodeSpec { name, address, roles, keys } in &self.nodes {
            let _ = write!(file, "\n[[node]]\nname = {name:?}\naddress = \"{address}\"\nroles = {roles:?}\n{keys}");
        }
        file
    }
}

/// A process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The guard of vigie.
    Guard,
    /// Its worker.
    Worker,
    /// The redis-server or valkey-server.
    Redis,
}

/// Why the cluster could not be started, asked or hurt.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file could not be written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A node's vigie ended by itself.
    #[error("vigie on {node} ended ({status}); the end of its log:\n{log}")]
    Ended {
        /// The node.
        node: String,
        /// How.
        status: ExitStatus,
        /// Its last words.
        log: String,
    },
    /// It does not become healthy.
    #[error("the cluster is not healthy after {limit:?}: {why}")]
    Unhealthy {
        /// How long was waited.
        limit: Duration,
        /// What was still missing.
        why: String,
    },
    /// A process that should be there is not.
    #[error("{what} does not run on {node}")]
    NoProcess {
        /// The host.
        node: String,
        /// Which process.
        what: &'static str,
    },
    /// Processes that should have ended did not.
    #[error("still on {node} after {limit:?}: {what}")]
    Left {
        /// The host.
        node: String,
        /// How long was waited.
        limit: Duration,
        /// Which processes.
        what: String,
    },
    /// A node could not be asked, or refused.
    #[error("{node}: {source}")]
    Control {
        /// The node.
        node: String,
        /// What it said.
        source: ClientError,
    },
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    lab: Lab,
    layout: Layout,
    binary: PathBuf,
    /// By node, where it is another one.
    exchanged: Mutex<BTreeMap<String, PathBuf>>,
    /// By node; none where vigie was ended on purpose.
    guards: Mutex<Vec<(&'static str, Option<Child>)>>,
}

impl Cluster {
    /// Builds the network, writes the cluster file of every node and starts `vigie run`, which is `binary`, there.
    pub fn start(sandbox: &Sandbox, layout: Layout, binary: &Path) -> Result<Self, ClusterError> {
        let lab = Lab::new(&sandbox.scratch, &layout.hosts())?;
        for (name, secret) in [("password", Some(&layout.password)), ("secret", layout.secret.as_ref())] {
            if let Some(secret) = secret {
                write(&sandbox.scratch.join(name), &format!("{}\n", secret.reveal()), 0o600)?;
            }
        }
        let guards = layout.nodes.iter().map(|node| (node.name, None)).collect();
        let (binary, exchanged) = (binary.to_owned(), Mutex::default());
        let cluster = Self { lab, layout, binary, exchanged, guards: Mutex::new(guards) };
        for node in cluster.names() {
            for path in [cluster.state_dir(node), cluster.runtime_dir(node)] {
                fs::create_dir_all(&path).map_err(|source| ClusterError::File { path: path.clone(), source })?;
            }
            write(&cluster.file(node), &cluster.layout.file(&sandbox.scratch), 0o644)?;
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// Starts `vigie run` on a node where it was ended, as a service manager does.
    pub fn start_node(&self, node: &str) -> Result<(), ClusterError> {
        let mut guards = self.guards();
        let known = guards.iter_mut().find(|(name, _)| *name == node);
        let (name, guard) = known.ok_or_else(|| LabError::UnknownHost(node.to_owned()))?;
        let mut command = self.vigie(node);
        command.arg("run");
        *guard = Some(self.lab.spawn(name, &mut command, name)?);
        Ok(())
    }

    /// The binary with the options by which it is, or asks, the vigie of a node.
    pub fn vigie(&self, node: &str) -> Command {
        let exchanged = self.exchanged();
        let mut command = Command::new(exchanged.get(node).unwrap_or(&self.binary));
        command.arg("--config").arg(self.file(node)).args(["--node", node]);
        command.arg("--state-dir").arg(self.state_dir(node)).arg("--runtime-dir").arg(self.runtime_dir(node));
        command
    }

    /// Exchanges the binary of a node: it runs when vigie is started there the next time.
    pub fn exchange(&self, node: &str, binary: &Path) {
        self.exchanged().insert(node.to_owned(), binary.to_owned());
    }

    fn exchanged(&self) -> MutexGuard<'_, BTreeMap<String, PathBuf>> {
        self.exchanged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster file of a node.
    pub fn file(&self, node: &str) -> PathBuf {
        self.lab.scratch().join(node).join(FILE)
    }

    fn guards(&self) -> MutexGuard<'_, Vec<(&'static str, Option<Child>)>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network below.
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What was started.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The names of all nodes.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.layout.nodes.iter().map(|node| node.name)
    }

    /// The names of the nodes that can be asked for a switchover.
    pub fn sentinels(&self) -> impl Iterator<Item = &'static str> {
        self.layout.nodes.iter().filter(|node| node.roles.contains(&"sentinel")).map(|node| node.name)
    }

    /// A plan for the measuring client, to the VIP.
    pub fn plan(&self, run: impl Into<String>) -> Plan {
        Plan::new(SocketAddr::new(self.layout.vip, PORT), self.layout.password.clone(), run)
    }

    /// The state directory of a node.
    pub fn state_dir(&self, node: &str) -> PathBuf {
        self.lab.scratch().join(node).join("state")
    }

    /// The runtime directory of a node.
    pub fn runtime_dir(&self, node: &str) -> PathBuf {
        self.lab.scratch().join(node).join("run")
    }

    /// The cluster as `node` sees it.
    pub fn status(&self, node: &str) -> Result<Status, ClusterError> {
        let answer = client::status(&self.runtime_dir(node));
        answer.map_err(|source| ClusterError::Control { node: node.to_owned(), source })
    }

    /// Waits until every node finds every node good and all agree. Returns one of their views.
    pub fn wait_healthy(&self, limit: Duration) -> Result<Status, ClusterError> {
        let deadline = clock::now() + limit;
        loop {
            self.alive()?;
            match self.healthy() {
                Ok(status) => return Ok(status),
                Err(why) if clock::now() > deadline => return Err(ClusterError::Unhealthy { limit, why }),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Whether vigie still runs on every node where it was not ended on purpose.
    pub fn alive(&self) -> Result<(), ClusterError> {
        for (node, guard) in self.guards().iter_mut() {
            if let Some(Ok(Some(status))) = guard.as_mut().map(Child::try_wait) {
                let log = tail(&self.lab.scratch().join(format!("{node}.log")));
                return Err(ClusterError::Ended { node: (*node).to_owned(), status, log });
            }
        }
        Ok(())
    }

    /// The view of one node, if all nodes are well and agree; otherwise the first thing that is missing.
    pub fn healthy(&self) -> Result<Status, String> {
        let views = self.names().map(|name| self.status(name).map_err(|error| error.to_string()));
        let views = views.collect::<Result<Vec<_>, _>>()?;
        for view in &views {
            well(view).map_err(|why| format!("{why} (as {} sees it)", view.node))?;
        }
        let masters = views.iter().map(|view| view.master.as_ref().map(|master| &master.address));
        if !masters.clone().all(|master| Some(master) == masters.clone().next()) {
            return Err(format!("the nodes do not agree on the master: {:?}", masters.collect::<Vec<_>>()));
        }
        let holders = self.vip_holders().map_err(|error| error.to_string())?;
        let [holder] = holders.as_slice() else { return Err(format!("the VIP is on {holders:?}")) };
        let says = |status: &Status| {
            let node = status.nodes.iter().find(|node| node.name == *holder);
            node.is_some_and(|node| node.vips.iter().any(|vip| vip.state == "master"))
        };
        if !views.iter().all(says) {
            return Err(format!("the VIP is on {holder}, which does not say so everywhere yet"));
        }
        views.into_iter().next().ok_or_else(|| "there is no node".to_owned())
    }

    /// The hosts that have the VIP on their interface, by the word of their kernels.
    pub fn vip_holders(&self) -> Result<Vec<&'static str>, ClusterError> {
        let mut holders = Vec::new();
        for name in self.names() {
            if self.lab.addresses(name)?.iter().any(|(address, _)| *address == self.layout.vip) {
                holders.push(name);
            }
        }
        Ok(holders)
    }

    /// Kills the redis-server or valkey-server of a node.
    pub fn kill_redis(&self, node: &str) -> Result<(), ClusterError> {
        Ok(signal(self.pid(node, Part::Redis)?, Signal::SIGKILL)?)
    }

    /// Kills the worker of a node's vigie, not its guard.
    pub fn kill_worker(&self, node: &str) -> Result<(), ClusterError> {
        Ok(signal(self.pid(node, Part::Worker)?, Signal::SIGKILL)?)
    }

    /// Sends a signal to the guard of a node's vigie and to nobody else.
    pub fn signal_guard(&self, node: &str, number: Signal) -> Result<(), ClusterError> {
        Ok(signal(self.guard(node)?, number)?)
    }

    /// The process id of a part of a node.
    pub fn pid(&self, node: &str, part: Part) -> Result<i32, ClusterError> {
        let is_server = |process: &Process| matches!(process.command.as_str(), "redis-server" | "valkey-server");
        match part {
            Part::Guard => self.guard(node),
            Part::Worker => {
                let guard = self.guard(node)?;
                self.find(node, "a worker of vigie", |process| process.parent == guard)
            }
            Part::Redis => self.find(node, "a redis-server", is_server),
        }
    }

    /// Kills guards and workers of some nodes at the same time, as the end of a control group, or of the power of all of
    /// them, does: nobody is left to clean up or to hand over.
    pub fn kill_vigies<'n>(&self, nodes: impl IntoIterator<Item = &'n str>) -> Result<(), ClusterError> {
        let mut pids = vec![];
        for node in nodes {
            let guard = self.guard(node)?;
            let worker = self.lab.processes(node)?.into_iter().find(|process| process.parent == guard);
            pids.extend([Some(guard), worker.map(|worker| worker.pid)].into_iter().flatten());
        }
        // Signals come one after the other, and a worker hands over within milliseconds of its guard's death.
        for number in [Signal::SIGSTOP, Signal::SIGKILL] {
            pids.iter().try_for_each(|pid| signal(*pid, number))?;
        }
        Ok(())
    }

    /// Waits until nothing runs on a node, and returns how its guard ended. From then on nothing is expected to run there
    /// until [`start_node`](Self::start_node).
    pub fn wait_ended(&self, node: &str, limit: Duration) -> Result<ExitStatus, ClusterError> {
        let deadline = clock::now() + limit;
        let missing = || ClusterError::NoProcess { node: node.to_owned(), what: "vigie" };
        loop {
            let ended = {
                let mut guards = self.guards();
                let guard = guards.iter_mut().find(|(name, _)| *name == node).and_then(|(_, guard)| guard.as_mut());
                guard.ok_or_else(missing)?.try_wait().map_err(system(format!("wait for vigie on {node}")))?
            };
            let left = self.lab.processes(node)?;
            if let (Some(status), true) = (ended, left.is_empty()) {
                self.guards().iter_mut().filter(|(name, _)| *name == node).for_each(|(_, guard)| *guard = None);
                return Ok(status);
            }
            if clock::now() > deadline {
                let left: Vec<_> =
                    left.iter().map(|process| format!("{} ({})", process.command, process.pid)).collect();
                let what = if left.is_empty() { "vigie".to_owned() } else { left.join(", ") };
                return Err(ClusterError::Left { node: node.to_owned(), limit, what });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process id of a node's guard.
    fn guard(&self, node: &str) -> Result<i32, ClusterError> {
        let guards = self.guards();
        let guard = guards.iter().find(|(name, _)| *name == node).and_then(|(_, guard)| guard.as_ref());
        let pid = guard.and_then(|guard| i32::try_from(guard.id()).ok());
        pid.ok_or_else(|| ClusterError::NoProcess { node: node.to_owned(), what: "vigie" })
    }

    fn find(&self, node: &str, what: &'static str, wanted: impl Fn(&Process) -> bool) -> Result<i32, ClusterError> {
        let found = self.lab.processes(node)?.into_iter().find(wanted);
        Ok(found.ok_or_else(|| ClusterError::NoProcess { node: node.to_owned(), what })?.pid)
    }

    /// A planned switchover, asked of `node`, which must have a sentinel.
    pub fn failover(&self, node: &str, to: Option<&str>) -> Result<Switched, ClusterError> {
        let answer = client::failover(&self.runtime_dir(node), to, SWITCHOVER_TIME);
        answer.map_err(|source| ClusterError::Control { node: node.to_owned(), source })
    }
}

/// Whether a cluster is whole, as one node sees it.
fn well(status: &Status) -> Result<(), String> {
    let Some(master) = &status.master else { return Err("there is no master".to_owned()) };
    for node in &status.nodes {
        if node.health != "good" {
            return Err(format!("{} is {}: {}", node.name, node.health, node.why));
        }
        if node.roles.iter().any(|role| role == "redis") {
            let redis = node.redis.as_ref().ok_or_else(|| format!("nothing is known of the redis of {}", node.name))?;
            let expected = if Some(&node.name) == master.node.as_ref() { "master" } else { "replica" };
            let followed = redis.master.as_ref().is_none_or(|followed| *followed == master.address);
            if redis.role != expected || !redis.in_sync || redis.process != "alive" || !followed {
                let (process, role, in_sync) = (&redis.process, &redis.role, redis.in_sync);
                let name = &node.name;
                return Err(format!(
                    "the redis of {name} is {process}, {role}, in sync: {in_sync}; {expected} is expected"
                ));
            }
        }
        if node.roles.iter().any(|role| role == "proxy") {
            let proxy = node.proxy.as_ref().ok_or_else(|| format!("nothing is known of the proxy of {}", node.name))?;
            if !proxy.listening || proxy.route.as_ref() != Some(&master.address) {
                let (name, route, address) = (&node.name, &proxy.route, &master.address);
                return Err(format!("the proxy of {name} routes to {route:?} and not to {address}"));
            }
        }
    }
    Ok(())
}

fn write(path: &Path, content: &str, mode: u32) -> Result<(), ClusterError> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(content.as_bytes()));
    written.map_err(|source| ClusterError::File { path: path.to_owned(), source })
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// The program to run as vigie: `$VIGIE_BIN`, or this one.
pub fn binary() -> Result<PathBuf, LabError> {
    if let Some(path) = std::env::var_os("VIGIE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let path = std::env::current_exe().map_err(system("find this program"))?;
    // Built again meanwhile: the running one is still there under this name.
    Ok(if path.exists() { path } else { PathBuf::from("/proc/self/exe") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_toml_with_every_node() {
        let file = Layout::classic().file(Path::new("/run/lab"));
        let table: toml::Table = file.parse().unwrap();
        assert_eq!(table["cluster"]["password_file"].as_str(), Some("/run/lab/password"));
        assert_eq!(table["cluster"]["quorum"].as_integer(), Some(2));
        assert_eq!(table["vip"][0]["addresses"][0].as_str(), Some("192.168.0.1/24"));
        assert_eq!(table["node"].as_array().map(Vec::len), Some(5));
        assert_eq!(table["node"][2]["bootstrap_master"].as_bool(), Some(true));
    }
}
