//! A cluster of vigie nodes of whose three sentinels some are stock ones, and what each of all these says.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vigie::base::secret::CONTROL_USER;
use vigie::base::{Credentials, Purpose, Secrets};
use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout, NodeSpec};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::connection::Connection;
use vigie::wire::info::{Info, Role};
use vigie::wire::resp::Reply;

use super::whole::{START_TIME, text, wait_ok};
use super::{Outcome, program_path};

/// The first master.
pub(crate) const MASTER: &str = REDIS[0];
/// All redis.
pub(crate) const REDIS: [&str; 3] = ["redis-01", "redis-02", "redis-03"];
/// The hosts of stock sentinels.
const STOCK: [&str; 2] = ["stock-1", "stock-2"];
/// The hosts of our sentinels where they have some of their own.
const OWN: [&str; 2] = ["vigie-1", "vigie-2"];
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Silence before a master is suspected, by everybody. A stock sentinel connects to an address at most once a second, and to
/// a new master as late as that: with less it finds a master down that was promoted at once.
const DOWN_AFTER_MS: u32 = 2_000;
/// Whoever does not answer within this time does not serve.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// How often the role of every redis is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// Which sentinel is the stock one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// redis-sentinel of Redis 7.0.
    Redis7,
    /// valkey-sentinel of Valkey 9.
    Valkey9,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Redis7 => "redis-server",
            Self::Valkey9 => "valkey-server",
        }
    }
}

/// One of the three sentinels.
struct Voter {
    /// Its host, which is its node, too.
    host: &'static str,
    address: SocketAddr,
    /// None: ours.
    stock: Option<Child>,
    is_stock: bool,
}

/// What a sentinel published.
#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    voter: &'static str,
    channel: String,
    payload: String,
}

type Record = Arc<Mutex<Vec<Heard>>>;

/// The cluster, its sentinels, and all that they publish.
pub(crate) struct Voters {
    pub(crate) cluster: Cluster,
    kind: Kind,
    voters: Vec<Voter>,
    heard: Record,
    ended: Arc<AtomicBool>,
}

impl Drop for Voters {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two proxies, three redis, three sentinels of which the last `stock` will be stock ones on hosts of their own. Ours are on
/// the hosts of the first redis if `together`.
fn layout(stock: usize, together: bool) -> Layout {
    let mut layout = Layout::classic();
    let ours = 3 - stock;
    for (n, node) in layout.nodes.iter_mut().filter(|node| node.roles.contains(&"redis")).enumerate() {
        node.roles = if together && n < ours { &["redis", "sentinel"] } else { &["redis"] };
    }
    let mut add = |name, last: u8| {
        let address = IpAddr::from([192, 168, 0, last]);
        layout.nodes.push(NodeSpec { name, address, roles: &["sentinel"], keys: "" });
    };
    if !together {
        OWN.iter().zip(11..).take(ours).for_each(|(name, last)| add(name, last));
    }
    STOCK.iter().zip(21..).take(stock).for_each(|(name, last)| add(name, last));
    layout.settings.push_str(&format!("fencing = \"off\"\ndown_after = \"{DOWN_AFTER_MS}ms\"\n"));
    layout
}

impl Voters {
    /// Starts the cluster. Stock sentinels take the places of ours, or come where there was none yet, once there is a master:
    /// as whoever exchanges one kind for the other does it, one after the other.
    pub(crate) fn start(sandbox: &Sandbox, kind: Kind, stock: usize, together: bool) -> Result<Self, String> {
        let binary = std::env::var_os("VIGIE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_vigie").into(), PathBuf::from);
        let cluster = Cluster::start(sandbox, layout(stock, together), &binary).map_err(text)?;
        let specs = cluster.layout().nodes.iter().filter(|node| node.roles.contains(&"sentinel"));
        let voters = specs.map(|node| Voter {
            host: node.name,
            address: SocketAddr::new(node.address, SENTINEL_PORT),
            stock: None,
            is_stock: STOCK.contains(&node.name),
        });
        let voters = voters.collect();
        let (heard, ended) = (Record::default(), Arc::new(AtomicBool::new(false)));
        let mut world = Self { cluster, kind, voters, heard, ended };
        wait_ok("no first master", Instant::now(), START_TIME, || world.follow(MASTER))
            .map_err(|why| format!("{why}\n{}", world.told()))?;
        for n in 0..world.voters.len() {
            if world.voters[n].is_stock {
                world.exchange(n)?;
            }
        }
        for voter in &world.voters {
            world.listen(voter)?;
        }
        Ok(world)
    }

    /// Ends vigie on a sentinel's host, and starts a stock sentinel there.
    fn exchange(&mut self, n: usize) -> Outcome {
        let (host, address) = (self.voters[n].host, self.voters[n].address);
        self.cluster.signal_guard(host, nix::sys::signal::Signal::SIGTERM).map_err(text)?;
        self.cluster.wait_ended(host, START_TIME).map_err(text)?;
        let directory = self.directory(host);
        fs::create_dir_all(&directory).map_err(text)?;
        let master = self.address(MASTER).ip();
        let password = self.cluster.layout().password.reveal();
        // What a sentinel does at a redis, applications may not do.
        let secret = self.cluster.layout().secret.clone().map(Secrets::from);
        let credentials = Credentials::new("mymaster", self.cluster.layout().password.clone().into(), secret);
        let control = credentials.own(Purpose::Control);
        let (user, control) = (CONTROL_USER, control.current().reveal());
        let conf = format!(
            "port {SENTINEL_PORT}\nbind {ip}\ndir {directory}\nsentinel announce-ip {ip}\nsentinel sentinel-pass {password}\n\
             sentinel monitor mymaster {master} {REDIS_PORT} 2\nsentinel auth-user mymaster {user}\n\
             sentinel auth-pass mymaster {control}\n\
             sentinel down-after-milliseconds mymaster {DOWN_AFTER_MS}\nsentinel failover-timeout mymaster 10000\n",
            ip = address.ip(),
            directory = directory.display(),
        );
        fs::write(directory.join("sentinel.conf"), conf).map_err(text)?;
        self.start_stock(n)
    }

    fn directory(&self, host: &str) -> PathBuf {
        self.cluster.lab().scratch().join(host).join("stock")
    }

    fn start_stock(&mut self, n: usize) -> Outcome {
        let host = self.voters[n].host;
        let program = program_path(self.kind.program()).ok_or("it was there a moment ago")?;
        let mut command = Command::new(program);
        command.arg(self.directory(host).join("sentinel.conf")).arg("--sentinel");
        let child = self.cluster.lab().spawn(host, &mut command, &format!("{host}-sentinel")).map_err(text)?;
        self.voters[n].stock = Some(child);
        Ok(())
    }

    /// The processes of a sentinel.
    pub(crate) fn pids(&self, host: &str) -> Result<Vec<i32>, String> {
        Ok(self.cluster.lab().processes(host).map_err(text)?.iter().map(|process| process.pid).collect())
    }

    /// Starts a sentinel again that was killed.
    pub(crate) fn restart(&mut self, host: &str) -> Outcome {
        let n = self.voters.iter().position(|voter| voter.host == host).ok_or("a sentinel of this cluster")?;
        match self.voters[n].stock.take() {
            Some(mut killed) => {
                killed.wait().map_err(text)?;
                self.start_stock(n)
            }
            None => {
                self.cluster.wait_ended(host, START_TIME).map_err(text)?;
                self.cluster.start_node(host).map_err(text)
            }
        }
    }

    /// The redis of a node.
    pub(crate) fn address(&self, node: &str) -> SocketAddr {
        let node = self.cluster.layout().nodes.iter().find(|spec| spec.name == node);
        SocketAddr::new(node.expect("a node of the layout").address, REDIS_PORT)
    }

    /// Asks whoever listens at `address`, seen from `host`; whoever wants a password gets it.
    fn ask(&self, host: &str, address: SocketAddr, commands: &[&[&str]]) -> Result<Vec<Reply>, String> {
        let password = self.cluster.layout().password.reveal();
        let asked = self.cluster.lab().exec(host, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            runtime.block_on(async {
                let mut connection = Connection::open(address, ANSWER_TIME).await.map_err(text)?;
                connection.ask(&["AUTH", password], ANSWER_TIME).await.map_err(text)?;
                let mut replies = Vec::new();
                for command in commands {
                    let reply = connection.ask(command, 4 * ANSWER_TIME).await.map_err(text)?;
                    if let Reply::Error(error) = reply {
                        return Err(format!("{address} answers {command:?} with {error}"));
                    }
                    replies.push(reply);
                }
                Ok(replies)
            })
        });
        asked.map_err(text)?
    }

    /// One answer of a sentinel, asked on its own host.
    fn sentinel(&self, voter: &Voter, words: &[&str]) -> Result<Reply, String> {
        let command: Vec<&str> = ["SENTINEL"].iter().chain(words).copied().collect();
        let replies = self.ask(voter.host, voter.address, &[&command]);
        replies.map(|mut replies| replies.remove(0)).map_err(|why| format!("{}: {why}", voter.host))
    }

    /// The node that a sentinel calls the master.
    fn named(&self, voter: &Voter) -> Result<&'static str, String> {
        let reply = self.sentinel(voter, &["GET-MASTER-ADDR-BY-NAME", "mymaster"])?;
        let words: Vec<_> = reply.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
        let found = REDIS.into_iter().find(|node| {
            let address = self.address(node);
            words == [address.ip().to_string(), address.port().to_string()]
        });
        found.ok_or_else(|| format!("{} names {words:?} as the master", voter.host))
    }

    /// The new master, by the word of every sentinel but the one at `cut`.
    pub(crate) fn agreed(&self, cut: Option<&str>) -> Result<&'static str, String> {
        let asked = self.voters.iter().filter(|voter| Some(voter.host) != cut);
        let named = asked.map(|voter| Ok((voter.host, self.named(voter)?))).collect::<Result<Vec<_>, String>>()?;
        let first = named.first().map(|(_, master)| *master).filter(|master| *master != MASTER);
        first.filter(|first| named.iter().all(|(_, master)| master == first)).ok_or_else(|| format!("{named:?}"))
    }

    /// Whether `master` says that it is the master, and every other redis that it is in sync with it.
    pub(crate) fn follow(&self, master: &'static str) -> Result<&'static str, String> {
        for node in REDIS {
            let replies = self.ask(node, self.address(node), &[&["INFO", "replication"]])?;
            let info = Info::parse(replies[0].text().unwrap_or_default());
            let right = if node == master {
                info.role == Some(Role::Master)
            } else {
                info.role == Some(Role::Replica) && info.master() == Some(self.address(master)) && info.master_link_up
            };
            if !right {
                let (role, of, up) = (info.role, info.master(), info.master_link_up);
                return Err(format!("{node} is {role:?} of {of:?}, link up: {up}, where the master is {master}"));
            }
        }
        Ok(master)
    }

    /// Waits until every sentinel sees the others, the master and both replicas, all of them well.
    pub(crate) fn wait_settled(&self) -> Outcome {
        let settled = || self.voters.iter().try_for_each(|voter| self.settled(voter));
        wait_ok("the sentinels do not see each other", Instant::now(), START_TIME, settled).map(drop)
    }

    fn settled(&self, voter: &Voter) -> Outcome {
        let name = self.named(voter)?;
        if name != MASTER {
            return Err(format!("{} names {name} as the master", voter.host));
        }
        let others = self.voters.iter().filter(|other| other.host != voter.host).map(|other| other.address);
        let replicas = REDIS.iter().filter(|node| **node != MASTER).map(|node| self.address(node));
        let lists: [(&str, &str, Vec<SocketAddr>); 2] =
            [("SENTINELS", "sentinel", others.collect()), ("SLAVES", "slave", replicas.collect())];
        for (command, flags, mut expected) in lists {
            let reply = self.sentinel(voter, &[command, "mymaster"])?;
            let mut found = Vec::new();
            for instance in reply.array().unwrap_or_default() {
                let words: Vec<_> = instance.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
                let field = |name| words.chunks(2).find(|pair| pair[0] == name).map_or("", |pair| pair[1]);
                if field("flags") != flags {
                    return Err(format!("{}: {command}: {} is {}", voter.host, field("name"), field("flags")));
                }
                found.extend(format!("{}:{}", field("ip"), field("port")).parse::<SocketAddr>());
            }
            expected.sort_unstable();
            found.sort_unstable();
            if found != expected {
                return Err(format!("{}: {command}: {found:?} instead of {expected:?}", voter.host));
            }
        }
        let quorum = self.sentinel(voter, &["CKQUORUM", "mymaster"])?;
        if quorum.text().is_some_and(|text| text.starts_with("OK 3 usable")) {
            return Ok(());
        }
        Err(format!("{}: {quorum:?}", voter.host))
    }

    /// Writes `count` keys that both replicas have.
    pub(crate) fn mark(&self, count: usize) -> Outcome {
        let keys: Vec<_> = (0..count).map(|n| format!("mark:{n}")).collect();
        let mut commands: Vec<&[&str]> = Vec::new();
        let sets: Vec<_> = keys.iter().map(|key| ["SET", key.as_str(), "kept"]).collect();
        commands.extend(sets.iter().map(<[&str; 3]>::as_slice));
        commands.push(&["WAIT", "2", "1500"]);
        let replies = self.ask(CLIENT, self.address(MASTER), &commands)?;
        match replies.last().and_then(Reply::integer) {
            Some(2) => Ok(()),
            other => Err(format!("the marks are on {other:?} replicas")),
        }
    }

    /// How many of those keys a redis does not have.
    pub(crate) fn unmarked(&self, node: &str) -> Result<usize, String> {
        let reply = self.ask(node, self.address(node), &[&["EVAL", COUNT, "0"]])?.remove(0);
        let found = reply.integer().and_then(|count| usize::try_from(count).ok());
        found.map(|found| 100_usize.saturating_sub(found)).ok_or_else(|| format!("{node} counts {reply:?}"))
    }

    /// Orders a failover of a sentinel: a stock one, or one of ours.
    pub(crate) fn order(&self, at_stock: bool) -> Outcome {
        let voter = self.voters.iter().find(|voter| voter.is_stock == at_stock).ok_or("there is one of each kind")?;
        let reply = self.sentinel(voter, &["FAILOVER", "mymaster"])?;
        if reply.is_ok() { Ok(()) } else { Err(format!("{} answers {reply:?}", voter.host)) }
    }

    /// Notes all that a sentinel publishes, over its restarts.
    fn listen(&self, voter: &Voter) -> Outcome {
        let network = self.cluster.lab().network(voter.host).map_err(text)?;
        let (host, address) = (voter.host, voter.address);
        let (heard, ended) = (Arc::clone(&self.heard), Arc::clone(&self.ended));
        let password = self.cluster.layout().password.clone();
        std::thread::spawn(move || {
            network.enter().map_err(text)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            while !ended.load(Ordering::Relaxed) {
                // A sentinel that is not there yet, or no more, is tried again.
                let _ = runtime.block_on(async {
                    let mut connection = Connection::open(address, ANSWER_TIME).await.map_err(text)?;
                    connection.ask(&["AUTH", password.reveal()], ANSWER_TIME).await.map_err(text)?;
                    connection.ask(&["PSUBSCRIBE", "*"], ANSWER_TIME).await.map_err(text)?;
                    loop {
                        let message = connection.replies.next().await.map_err(text)?;
                        let words: Vec<_> =
                            message.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
                        if let ["pmessage", _, channel, payload] = words[..] {
                            let (channel, payload) = (channel.to_owned(), payload.to_owned());
                            lock(&heard).push(Heard { at: Instant::now(), voter: host, channel, payload });
                        }
                    }
                    #[expect(unreachable_code, reason = "it says of what type the errors are")]
                    Ok::<(), String>(())
                });
                std::thread::sleep(SAMPLE_EVERY);
            }
            Ok::<(), String>(())
        });
        Ok(())
    }

    /// The first sentinel that said that since.
    pub(crate) fn first(&self, since: Instant, channel: &str) -> Option<&'static str> {
        let heard = lock(&self.heard);
        heard.iter().find(|heard| heard.at >= since && heard.channel == channel).map(|heard| heard.voter)
    }

    /// When each sentinel said that `master` is the new one, in words.
    pub(crate) fn switches(&self, since: Instant, master: &str) -> Vec<String> {
        let address = self.address(master);
        let new = format!(" {} {}", address.ip(), address.port());
        let heard = lock(&self.heard);
        let when = |voter: &Voter| {
            let said = heard.iter().find(|heard| {
                heard.at >= since
                    && heard.voter == voter.host
                    && heard.channel == "+switch-master"
                    && heard.payload.ends_with(&new)
            });
            let at = said.map_or_else(|| "-".to_owned(), |heard| (heard.at - since).as_millis().to_string());
            format!("{} {at}", voter.host)
        };
        self.voters.iter().map(when).collect()
    }

    /// Who tried to fail over, or was elected to.
    pub(crate) fn leaders(&self, since: Instant) -> String {
        let heard = lock(&self.heard);
        let mut leaders: Vec<&str> = Vec::new();
        for event in heard.iter().filter(|heard| heard.at >= since && heard.channel == "+elected-leader") {
            if leaders.last() != Some(&event.voter) {
                leaders.push(event.voter);
            }
        }
        if leaders.is_empty() { "nobody".to_owned() } else { leaders.join(", then ") }
    }

    /// All that was published, and the ends of all logs.
    pub(crate) fn told(&self) -> String {
        let heard = lock(&self.heard).clone();
        let began = heard.first().map(|heard| heard.at);
        let line = |heard: &Heard| {
            let at = began.map_or(0, |began| (heard.at - began).as_millis());
            format!("{at:>7} ms {:<9} {} {}", heard.voter, heard.channel, heard.payload)
        };
        let mut lines: Vec<_> = heard.iter().map(line).collect();
        let log = |path: &Path| {
            let log = fs::read_to_string(path).unwrap_or_else(text);
            let lines: Vec<_> = log.lines().collect();
            format!("-- {}\n{}", path.display(), lines[lines.len().saturating_sub(25)..].join("\n"))
        };
        let scratch = self.cluster.lab().scratch();
        lines.extend(self.cluster.names().map(|name| log(&scratch.join(format!("{name}.log")))));
        lines.extend(STOCK.iter().map(|name| log(&scratch.join(format!("{name}-sentinel.log")))));
        lines.join("\n")
    }
}

/// Counts the marks.
const COUNT: &str = "#!lua flags=no-writes\nlocal found = 0 for n = 0, 99 do if redis.call('GET', 'mark:' .. n) == 'kept' \
                     then found = found + 1 end end return found";

/// Who said at that time, to a client, that it is master.
pub(crate) type Sample = (Instant, Vec<&'static str>);

/// Looks at the role of every redis all the time, from the host of the client.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Sample>, String>>,
}

impl Sampler {
    pub(crate) fn start(voters: &Voters) -> Result<Self, String> {
        let network = voters.cluster.lab().network(CLIENT).map_err(text)?;
        let addresses = REDIS.map(|node| (node, voters.address(node)));
        let password = voters.cluster.layout().password.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            network.enter().map_err(text)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
            runtime.block_on(async {
                let mut open: [Option<Connection>; 3] = [None, None, None];
                let mut samples = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let mut masters = Vec::new();
                    for ((node, address), open) in addresses.iter().zip(&mut open) {
                        let is_master = is_master(*address, open, password.reveal()).await;
                        if is_master == Some(true) {
                            masters.push(*node);
                        }
                        if is_master.is_none() {
                            *open = None;
                        }
                    }
                    samples.push((Instant::now(), masters));
                    tokio::time::sleep(SAMPLE_EVERY).await;
                }
                Ok(samples)
            })
        });
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().and_then(Result::ok).unwrap_or_default()
    }
}

async fn is_master(address: SocketAddr, open: &mut Option<Connection>, password: &str) -> Option<bool> {
    let limit = Duration::from_millis(50);
    if open.is_none() {
        let mut connection = Connection::open(address, limit).await.ok()?;
        connection.ask(&["AUTH", password], limit).await.ok()?;
        *open = Some(connection);
    }
    let reply = open.as_mut()?.ask(&["ROLE"], limit).await.ok()?;
    Some(reply.array()?.first()?.text()? == "master")
}

/// For how long a client could reach more than one master.
pub(crate) fn masters_at_once(samples: &[Sample]) -> Duration {
    let doubles = samples.windows(2).filter(|pair| pair[0].1.len() > 1);
    doubles.map(|pair| pair[1].0 - pair[0].0).sum()
}
