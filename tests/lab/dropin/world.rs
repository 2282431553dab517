//! Three hosts with a plain redis and a sentinel each, as a setup without vigie has them, and a fourth for a client. Which
//! program each sentinel is may differ.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vigie::config::sentinel::{Additions, Document};
use vigie::cores::sentinel::MasterState;
use vigie::operate::lab::hosts::{HostSpec, Lab, signal};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::connection::Connection;
use vigie::wire::info::{Info, Role};
use vigie::wire::resp::Reply;

use super::super::Outcome;
use super::super::program_path;
use super::super::whole::{text, wait_ok};
use super::record::{Ears, Sampler};

/// The hosts; the first master is on the first.
pub(super) const HOSTS: [&str; 3] = ["one", "two", "three"];
pub(super) const CLIENT: &str = "client";
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Silence before a master is suspected, by everybody.
const DOWN_AFTER_MS: u32 = 500;
/// A stock sentinel tries again after twice that.
const FAILOVER_TIMEOUT_MS: u32 = 6_000;
/// Whoever does not answer within this time does not serve.
pub(super) const ANSWER_TIME: Duration = Duration::from_millis(500);
/// Everybody has found everybody, at the latest.
pub(super) const START_TIME: Duration = Duration::from_secs(20);

/// Which program a sentinel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Vigie,
    Redis7,
    Valkey9,
}

impl Kind {
    /// The program that serves data where sentinels of this kind are.
    fn server(self) -> &'static str {
        match self {
            Self::Vigie | Self::Redis7 => "redis-server",
            Self::Valkey9 => "valkey-server",
        }
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    ip: IpAddr,
    /// Where the sentinel's file is.
    pub(super) directory: PathBuf,
    redis: Option<Child>,
    sentinel: Option<Child>,
}

/// The hosts, and all that their sentinels publish.
pub(super) struct World {
    pub(super) lab: Lab,
    pub(super) hosts: Vec<Host>,
    pub(super) ears: Arc<Ears>,
    /// For the sentinels that are started from now on.
    pub(super) environment: Vec<(String, String)>,
    server: &'static str,
}

/// What a test wants of its world.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// One for each host.
    pub(super) sentinels: [Kind; 3],
    /// Size of a file system of its own for each sentinel's directory, bytes.
    pub(super) disk: Option<usize>,
    /// For the sentinels.
    pub(super) environment: Vec<(String, String)>,
}

impl Plan {
    pub(super) fn of(sentinels: [Kind; 3]) -> Self {
        Self { sentinels, disk: None, environment: Vec::new() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ears.end();
    }
}

fn address(n: usize) -> IpAddr {
    IpAddr::from([10, 9, 0, u8::try_from(n + 1).unwrap_or(u8::MAX)])
}

impl World {
    /// Starts all of it, and waits until every sentinel knows all others.
    pub(super) fn start(sandbox: &Sandbox, plan: &Plan) -> Result<Self, String> {
        let names = HOSTS.iter().chain([&CLIENT]).enumerate();
        let specs: Vec<_> =
            names.map(|(n, name)| HostSpec { name: (*name).to_owned(), address: address(n), prefix: 24 }).collect();
        let lab = Lab::new(&sandbox.scratch, &specs).map_err(text)?;
        let hosts = HOSTS.iter().zip(plan.sentinels).enumerate().map(|(n, (name, kind))| {
            let directory = sandbox.scratch.join(name).join("sentinel");
            Host { name, kind, ip: address(n), directory, redis: None, sentinel: None }
        });
        let server =
            plan.sentinels.iter().find(|kind| **kind != Kind::Vigie).map_or("redis-server", |kind| kind.server());
        let (hosts, ears) = (hosts.collect::<Vec<_>>(), Arc::default());
        let mut world = Self { lab, hosts, ears, environment: plan.environment.clone(), server };
        for n in 0..HOSTS.len() {
            world.furnish(n, plan.disk)?;
            world.start_redis(n)?;
        }
        wait_ok("the replicas do not follow", Instant::now(), START_TIME, || world.follow(0))?;
        for n in 0..HOSTS.len() {
            world.start_sentinel(n)?;
            world.listen(n)?;
        }
        world.wait_settled(0)?;
        Ok(world)
    }

    fn furnish(&self, n: usize, disk: Option<usize>) -> Outcome {
        let host = &self.hosts[n];
        let data = self.data(n);
        for directory in [&host.directory, &data] {
            fs::create_dir_all(directory).map_err(text)?;
        }
        if let Some(size) = disk {
            super::disk::mount(&host.directory, size)?;
        }
        let master = address(0);
        let replica = if n == 0 { String::new() } else { format!("replicaof {master} {REDIS_PORT}\n") };
        let conf = format!(
            "port {REDIS_PORT}\nbind {ip}\nprotected-mode no\ndir {dir}\nsave \"\"\nrepl-diskless-sync-delay 0\n{replica}",
            ip = host.ip,
            dir = data.display(),
        );
        fs::write(data.join("redis.conf"), conf).map_err(text)?;
        let conf = format!(
            "port {SENTINEL_PORT}\nbind {ip}\ndir {dir}\nsentinel monitor mymaster {master} {REDIS_PORT} 2\n\
             sentinel down-after-milliseconds mymaster {DOWN_AFTER_MS}\n\
             sentinel failover-timeout mymaster {FAILOVER_TIMEOUT_MS}\n",
            ip = host.ip,
            dir = host.directory.display(),
        );
        fs::write(self.conf(n), conf).map_err(text)
    }

    fn data(&self, n: usize) -> PathBuf {
        self.lab.scratch().join(self.hosts[n].name).join("data")
    }

    /// The configuration file of a sentinel.
    pub(super) fn conf(&self, n: usize) -> PathBuf {
        self.hosts[n].directory.join("sentinel.conf")
    }

    /// Starts a redis, or starts it again with the file that it has rewritten.
    pub(super) fn start_redis(&mut self, n: usize) -> Outcome {
        let mut command = Command::new(program_path(self.server).ok_or("it was there a moment ago")?);
        command.arg(self.data(n).join("redis.conf"));
        let name = self.hosts[n].name;
        self.hosts[n].redis = Some(self.lab.spawn(name, &mut command, &format!("{name}-redis")).map_err(text)?);
        Ok(())
    }

    pub(super) fn kill_redis(&mut self, n: usize) -> Outcome {
        let mut child = self.hosts[n].redis.take().ok_or("the redis runs")?;
        child.kill().and_then(|()| child.wait()).map(drop).map_err(text)
    }

    pub(super) fn redis_runs(&self, n: usize) -> bool {
        self.hosts[n].redis.is_some()
    }

    /// Starts a sentinel, or starts it again with the file that it has rewritten.
    pub(super) fn start_sentinel(&mut self, n: usize) -> Outcome {
        let conf = self.conf(n);
        let mut command = match self.hosts[n].kind {
            Kind::Vigie => {
                let ours =
                    std::env::var_os("VIGIE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_vigie").into(), PathBuf::from);
                let mut command = Command::new(ours);
                command.arg("sentinel").arg(conf);
                command
            }
            kind @ (Kind::Redis7 | Kind::Valkey9) => {
                let mut command = Command::new(program_path(kind.server()).ok_or("it was there a moment ago")?);
                command.arg(conf).arg("--sentinel");
                command
            }
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let name = self.hosts[n].name;
        let child = self.lab.spawn(name, &mut command, &format!("{name}-sentinel")).map_err(text)?;
        self.ears.runs_as(n, i32::try_from(child.id()).ok());
        self.hosts[n].sentinel = Some(child);
        Ok(())
    }

    /// SIGKILL to a sentinel.
    pub(super) fn kill_sentinel(&mut self, n: usize) -> Outcome {
        let child = self.hosts[n].sentinel.as_ref().ok_or("the sentinel runs")?;
        signal(i32::try_from(child.id()).map_err(text)?, Signal::SIGKILL).map_err(text)?;
        self.sentinel_ended(n, Duration::from_secs(5))
    }

    /// Whether a sentinel has ended by itself, or by a signal from elsewhere.
    pub(super) fn has_ended(&mut self, n: usize) -> bool {
        let ended = self.hosts[n].sentinel.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.ears.runs_as(n, None);
            self.hosts[n].sentinel = None;
        }
        ended
    }

    pub(super) fn sentinel_ended(&mut self, n: usize, limit: Duration) -> Outcome {
        let ended = || if self.has_ended(n) { Ok(()) } else { Err("it runs".to_owned()) };
        wait_ok("the sentinel does not end", Instant::now(), limit, ended).map(drop)
    }

    pub(super) fn redis(&self, n: usize) -> SocketAddr {
        SocketAddr::new(self.hosts[n].ip, REDIS_PORT)
    }

    pub(super) fn sentinel(&self, n: usize) -> SocketAddr {
        SocketAddr::new(self.hosts[n].ip, SENTINEL_PORT)
    }

    fn listen(&self, n: usize) -> Outcome {
        let network = self.lab.network(self.hosts[n].name).map_err(text)?;
        self.ears.listen(n, network, self.sentinel(n));
        Ok(())
    }

    /// Looks at who takes writes, all the time.
    pub(super) fn sample(&self) -> Result<Sampler, String> {
        let network = self.lab.network(CLIENT).map_err(text)?;
        Ok(Sampler::start(network, (0..HOSTS.len()).map(|n| self.redis(n)).collect()))
    }

    fn ask(&self, n: usize, address: SocketAddr, command: &[&str]) -> Result<Reply, String> {
        let asked = self.lab.exec(self.hosts[n].name, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            runtime.block_on(async {
                let mut connection = Connection::open(address, ANSWER_TIME).await.map_err(text)?;
                connection.ask(command, ANSWER_TIME).await.map_err(text)
            })
        });
        asked.map_err(text)?
    }

    /// What a sentinel answers, asked on its own host.
    pub(super) fn ask_sentinel(&self, n: usize, command: &[&str]) -> Result<Reply, String> {
        self.ask(n, self.sentinel(n), command).map_err(|why| format!("{}: {why}", self.hosts[n].name))
    }

    /// `SENTINEL …` that must be answered with OK.
    pub(super) fn order(&self, n: usize, words: &[&str]) -> Outcome {
        let command: Vec<&str> = ["SENTINEL"].iter().chain(words).copied().collect();
        let reply = self.ask_sentinel(n, &command)?;
        if reply.is_ok() { Ok(()) } else { Err(format!("{} answers {words:?} with {reply:?}", self.hosts[n].name)) }
    }

    pub(super) fn info(&self, n: usize) -> Result<Info, String> {
        let reply = self.ask(n, self.redis(n), &["INFO"])?;
        Ok(Info::parse(reply.text().unwrap_or_default()))
    }

    /// The host that a sentinel calls the master.
    pub(super) fn named(&self, n: usize) -> Result<usize, String> {
        let reply = self.ask_sentinel(n, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"])?;
        let words: Vec<_> = reply.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
        let found = (0..HOSTS.len()).find(|host| {
            let address = self.redis(*host);
            words == [address.ip().to_string(), address.port().to_string()]
        });
        found.ok_or_else(|| format!("{} names {words:?} as the master", self.hosts[n].name))
    }

    /// The master, by the word of all sentinels but that at `without`, and another one than `not`.
    pub(super) fn agreed(&self, without: Option<usize>, not: Option<usize>) -> Result<usize, String> {
        let asked = (0..HOSTS.len()).filter(|n| Some(*n) != without);
        let named = asked.map(|n| Ok((n, self.named(n)?))).collect::<Result<Vec<_>, String>>()?;
        let first = named.first().map(|(_, master)| *master).filter(|master| Some(*master) != not);
        first.filter(|first| named.iter().all(|(_, master)| master == first)).ok_or_else(|| format!("{named:?}"))
    }

    /// Whether `master` says that it is the master, and every other redis that runs that it is in sync with it.
    pub(super) fn follow(&self, master: usize) -> Outcome {
        for n in (0..HOSTS.len()).filter(|n| self.redis_runs(*n)) {
            let info = self.info(n)?;
            let right = if n == master {
                info.role == Some(Role::Master)
            } else {
                info.role == Some(Role::Replica) && info.master() == Some(self.redis(master)) && info.master_link_up
            };
            if !right {
                let (name, role, of, up) = (HOSTS[n], info.role, info.master(), info.master_link_up);
                return Err(format!("{name} is {role:?} of {of:?}, link up: {up}; the master is {}", HOSTS[master]));
            }
        }
        Ok(())
    }

    /// Waits until every sentinel sees the others, the master and both replicas, all of them well.
    pub(super) fn wait_settled(&self, master: usize) -> Outcome {
        let settled = || (0..HOSTS.len()).try_for_each(|n| self.settled(n, master));
        wait_ok("the sentinels do not see each other", Instant::now(), START_TIME, settled)
            .map(drop)
            .map_err(|why| format!("{why}\n{}", self.told()))
    }

    fn settled(&self, n: usize, master: usize) -> Outcome {
        let named = self.named(n)?;
        if named != master {
            return Err(format!("{} names {} as the master", HOSTS[n], HOSTS[named]));
        }
        let others = (0..HOSTS.len()).filter(|other| *other != n).map(|other| self.sentinel(other));
        let replicas = (0..HOSTS.len()).filter(|host| *host != master).map(|host| self.redis(host));
        let lists: [(&str, &str, Vec<SocketAddr>); 3] = [
            ("SENTINELS", "sentinel", others.collect()),
            ("SLAVES", "slave", replicas.collect()),
            ("MASTER", "master", vec![self.redis(master)]),
        ];
        for (command, flags, mut expected) in lists {
            let reply = self.ask_sentinel(n, &["SENTINEL", command, "mymaster"])?;
            let instances = if command == "MASTER" { vec![reply] } else { reply.array().unwrap_or_default().to_vec() };
            let mut found = Vec::new();
            for instance in instances {
                let words: Vec<_> = instance.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
                let field = |name| words.chunks(2).find(|pair| pair[0] == name).map_or("", |pair| pair[1]);
                // A stock sentinel keeps what others said of an earlier master until it has a reason to ask again.
                let said = field("flags").strip_suffix(",master_down").unwrap_or_else(|| field("flags"));
                if said != flags {
                    return Err(format!("{}: {command}: {} is {}", HOSTS[n], field("name"), field("flags")));
                }
                found.extend(format!("{}:{}", field("ip"), field("port")).parse::<SocketAddr>());
            }
            expected.sort_unstable();
            found.sort_unstable();
            if found != expected {
                return Err(format!("{}: {command}: {found:?} instead of {expected:?}", HOSTS[n]));
            }
        }
        let quorum = self.ask_sentinel(n, &["SENTINEL", "CKQUORUM", "mymaster"])?;
        if quorum.text().is_some_and(|text| text.starts_with("OK 3 usable")) {
            return Ok(());
        }
        Err(format!("{}: {quorum:?}", HOSTS[n]))
    }

    /// What the file of a sentinel says of the master.
    pub(super) fn file(&self, n: usize) -> Result<MasterState, String> {
        let (_, _, mut state) =
            Document::read(&self.conf(n), &Additions::default(), &self.hosts[n].directory).map_err(text)?;
        state.masters.pop().ok_or_else(|| format!("the file of {} knows no master", HOSTS[n]))
    }

    /// Whether the files of all sentinels call `master` so, since the same epoch.
    pub(super) fn files_agree(&self, master: usize) -> Outcome {
        let mut said = Vec::new();
        for n in 0..HOSTS.len() {
            let state = self.file(n)?;
            let place = state.place.address().ok_or("an address")?;
            said.push((place, state.config_epoch));
        }
        let right = said.iter().all(|(place, epoch)| *place == self.redis(master) && *epoch == said[0].1);
        if right { Ok(()) } else { Err(format!("the files say {said:?} where the master is {}", HOSTS[master])) }
    }

    /// Waits until sentinels, redis and files agree on one master, and looks again after `stable`. When it was so.
    pub(super) fn wait_whole(
        &self,
        since: Instant,
        limit: Duration,
        stable: Duration,
    ) -> Result<(Duration, usize), String> {
        let whole = || {
            let master = self.agreed(None, None)?;
            self.follow(master)?;
            self.files_agree(master)?;
            Ok(master)
        };
        let (took, master) = wait_ok("no agreement of all", since, limit, whole)?;
        std::thread::sleep(stable);
        match whole() {
            Ok(now) if now == master => Ok((took, master)),
            other => Err(format!("{} was agreed upon, and {stable:?} later: {other:?}", HOSTS[master])),
        }
    }

    /// The log of a sentinel.
    pub(super) fn log(&self, n: usize) -> String {
        let path = self.lab.scratch().join(format!("{}-sentinel.log", HOSTS[n]));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// All that was published, and the ends of all logs.
    pub(super) fn told(&self) -> String {
        let mut lines = self.ears.told();
        for name in HOSTS.iter().flat_map(|name| [format!("{name}-sentinel"), format!("{name}-redis")]) {
            let path = self.lab.scratch().join(format!("{name}.log"));
            let log = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            let all: Vec<_> = log.lines().collect();
            lines.push(format!("-- {name}\n{}", all[all.len().saturating_sub(60)..].join("\n")));
        }
        lines.join("\n")
    }
}
