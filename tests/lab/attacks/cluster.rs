//! Taking over a cluster: by greetings, votes and epochs, by the address of a node, by a local user, by frames.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout};
use vigie::operate::lab::hosts::Network;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::connection::Connection;
use vigie::wire::resp::Reply;

use crate::whole::{self, DATA, START_TIME, text, wait_ok};
use crate::{Case, Outcome, note};

const NEEDS: &[&str] = &["redis-server", "ip", "setpriv", "redis-cli", "python3"];
const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");
/// An address of the stranger that is in no file.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 66);
const REDIS: u16 = 6379;
const SENTINEL: u16 = 26379;
const LINK: u16 = 26380;
/// An application with an account of its own at redis, which may nothing that is dangerous.
const APP: (&str, &str) = ("app", "the-password-of-one-application");
/// An answer comes within this time.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// So many recorded frames are said again in a second.
const RECORDED_RATE: u32 = 5_000;
/// What an attack brings about, if anything, shows within this time: with greetings it took 0.1 s.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// A gratuitous ARP request for an address.
const ANNOUNCE: &str = "\
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('eth0', 0))
mac, ip = wire.getsockname()[4], socket.inet_aton(sys.argv[1])
everybody = b'\\xff' * 6
wire.send(everybody + mac + b'\\x08\\x06\\x00\\x01\\x08\\x00\\x06\\x04\\x00\\x01' + mac + ip + bytes(6) + ip)
";

/// Holds back what one host sends to another on the peer link, and goes to this interface by mistake: each packet is passed on
/// to where it belongs after the time in seconds.
const HOLD_BACK: &str = "\
import collections, select, socket, sys, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('eth0', 0x0800))
own, held = wire.getsockname()[4], collections.deque()
source, target = (socket.inet_aton(address) for address in sys.argv[1:3])
mac, delay = bytes.fromhex(sys.argv[3].replace(':', '')), float(sys.argv[4])
while True:
    wait = max(0, held[0][0] - time.monotonic()) if held else 1
    if select.select([wire], [], [], wait)[0]:
        packet = wire.recv(2048)
        if packet[:6] == own and packet[23] == 17 and packet[26:30] == source and packet[30:34] == target:
            # The checksum of UDP was left to an interface that computes none: zero is none.
            held.append((time.monotonic() + delay, mac + own + packet[12:40] + bytes(2) + packet[42:]))
    while held and held[0][0] <= time.monotonic():
        wire.send(held.popleft()[1])
";

pub(crate) const CASES: &[Case] = &[
    Case { name: "what_is_greeted_published_or_voted_by_others_changes_nothing", needs: NEEDS, run: greetings },
    Case { name: "the_address_of_a_node_opens_nothing_and_is_told_no_password", needs: NEEDS, run: addresses },
    Case { name: "frames_of_others_change_nothing", needs: NEEDS, run: frames },
    Case { name: "frames_of_nodes_said_again_change_nothing", needs: NEEDS, run: recorded },
    Case { name: "frames_held_back_on_their_way_count_for_nothing", needs: NEEDS, run: held_back },
    Case { name: "both_secrets_are_changed_under_load_without_an_error", needs: NEEDS, run: rotation },
];

struct World {
    cluster: Cluster,
}

/// What an attack wants to change: master and epoch as every node tells them, the epochs of the sentinels, their ids.
type Standing = Vec<String>;

impl World {
    fn start(sandbox: &Sandbox) -> Result<Self, String> {
        let app = sandbox.scratch.join("app.conf");
        let (user, password) = APP;
        fs::write(&app, format!("user {user} on >{password} ~* &* +@all -@dangerous -@admin\n")).map_err(text)?;
        let mut layout = Layout::classic();
        layout.settings.push_str(&format!("[redis]\ninclude = [{:?}]\n", app.display().to_string()));
        let cluster = Cluster::start(sandbox, layout, Path::new(VIGIE)).map_err(text)?;
        let world = Self { cluster };
        world.healthy()?;
        world.run(CLIENT, &format!("ip addr add {STRANGER}/24 dev eth0"))?;
        Ok(world)
    }

    fn healthy(&self) -> Outcome {
        self.cluster.wait_healthy(Duration::from_secs(60)).map(drop).map_err(|error| self.told(text(error)))
    }

    fn told(&self, failure: String) -> String {
        whole::told(&self.cluster, failure)
    }

    fn run(&self, host: &str, line: &str) -> Outcome {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        let status = self.cluster.lab().spawn(host, command.args(words), "attack").map_err(text)?.wait();
        if status.map_err(text)?.success() { Ok(()) } else { Err(format!("{host}: {line} failed")) }
    }

    /// Says to the whole segment that `address` is at a host's interface.
    fn announce(&self, host: &str, address: IpAddr) -> Outcome {
        let mut python = Command::new("python3");
        python.args(["-c", ANNOUNCE, &address.to_string()]);
        let status = self.cluster.lab().spawn(host, &mut python, "attack").map_err(text)?.wait().map_err(text)?;
        if status.success() { Ok(()) } else { Err("no ARP was sent".to_owned()) }
    }

    fn address(&self, node: &str) -> IpAddr {
        let known = self.cluster.layout().nodes.iter().find(|spec| spec.name == node);
        known.expect("a node of the layout").address
    }

    fn at(&self, node: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(node), port)
    }

    fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.cluster.layout().vip, REDIS)
    }

    /// Says this to `to`, from a host and, if given, an address of it; the replies, errors too.
    fn say(
        &self,
        host: &str,
        from: Option<IpAddr>,
        to: SocketAddr,
        commands: &[Vec<&str>],
    ) -> Result<Vec<Reply>, String> {
        let said = self.cluster.lab().exec(host, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            if let Some(from) = from {
                socket.bind(&SocketAddr::new(from, 0).into())?;
            }
            socket.set_read_timeout(Some(ANSWER_TIME))?;
            socket.connect_timeout(&to.into(), ANSWER_TIME)?;
            socket.set_nonblocking(true)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let stream = tokio::net::TcpStream::from_std(socket.into())?;
                let mut connection = Connection::over(stream, to);
                let mut replies = Vec::new();
                for command in commands {
                    replies.push(connection.ask(command, ANSWER_TIME).await.map_err(std::io::Error::other)?);
                }
                Ok::<_, std::io::Error>(replies)
            })
        });
        said.map_err(text)?.map_err(|error| format!("{to}: {error}"))
    }

    fn standing(&self) -> Result<Standing, String> {
        let mut standing = Vec::new();
        for node in self.cluster.names() {
            let master = self.cluster.status(node).map_err(text)?.master;
            standing.push(format!("{node}: {:?}", master.map(|master| (master.address, master.epoch))));
        }
        for node in DATA {
            let said = self.say(
                node,
                None,
                self.at(node, SENTINEL),
                &[
                    vec!["SENTINEL", "MYID"],
                    vec!["SENTINEL", "MASTER", "mymaster"],
                    vec!["SENTINEL", "SENTINELS", "mymaster"],
                ],
            )?;
            let words = |reply: &Reply| -> Vec<String> {
                reply.array().unwrap_or_default().iter().filter_map(Reply::text).map(str::to_owned).collect()
            };
            let of = |words: &[String], name: &str| {
                words.chunks(2).find(|pair| pair[0] == name).map_or(String::new(), |pair| pair[1].clone())
            };
            let master = words(&said[1]);
            let ids: Vec<_> = said[2].array().unwrap_or_default().iter().map(|one| of(&words(one), "runid")).collect();
            let epochs =
                ["config-epoch", "ip", "port", "num-slaves", "num-other-sentinels"].map(|name| of(&master, name));
            standing.push(format!("{node}: {:?} {epochs:?} {ids:?} {}", said[0].text(), self.epoch_seen(node)?));
        }
        Ok(standing)
    }

    /// The highest epoch that the sentinel of a node has seen.
    fn epoch_seen(&self, node: &str) -> Result<String, String> {
        let status = self.cluster.status(node).map_err(text)?;
        let own = status.nodes.iter().find(|one| one.name == node).and_then(|one| one.sentinel.as_ref());
        let own = own.ok_or("a sentinel is in its own status")?;
        Ok(format!("{} at epoch {}, leads {:?}", own.id, own.current_epoch, own.leads))
    }

    /// Nothing has changed, all is well, and a failover is possible all the same.
    fn unmoved(&self, before: &Standing, keys: usize) -> Outcome {
        let until = Instant::now() + SETTLE_TIME;
        while Instant::now() < until {
            let after = self.standing()?;
            if after != *before {
                return Err(self.told(format!("moved: {after:#?}\nbefore: {before:#?}")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.kept(keys)
    }

    fn kept(&self, keys: usize) -> Outcome {
        let said = self.say(CLIENT, None, self.vip(), &[self.login(), vec!["DBSIZE"]])?;
        match said[1].integer() {
            Some(found) if usize::try_from(found).is_ok_and(|found| found >= keys) => Ok(()),
            found => Err(self.told(format!("{found:?} keys, {keys} before"))),
        }
    }

    fn login(&self) -> Vec<&str> {
        vec!["AUTH", self.cluster.layout().password.reveal()]
    }

    /// A killed master is replaced.
    fn fails_over(&self) -> Outcome {
        let master = self.master()?;
        self.cluster.kill_redis(&master).map_err(text)?;
        let replaced = || match self.master() {
            Ok(now) if now != master => Ok(()),
            now => Err(format!("the master is {now:?}, {master} before")),
        };
        wait_ok("no failover", Instant::now(), START_TIME, replaced).map(drop).map_err(|why| self.told(why))?;
        self.healthy()
    }

    fn master(&self) -> Result<String, String> {
        let master = self.cluster.status("haproxy-01").map_err(text)?.master.and_then(|master| master.node);
        master.ok_or_else(|| "no master".to_owned())
    }

    /// The frames that come in at a node for a while, and where from.
    fn record(&self, node: &str) -> Result<Vec<(IpAddr, Vec<u8>)>, String> {
        let recorded = self.cluster.lab().exec(node, || {
            let mut raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
            raw.set_read_timeout(Some(ANSWER_TIME))?;
            let (until, mut frames) = (Instant::now() + ANSWER_TIME, Vec::new());
            let mut packet = [0; 2048];
            while Instant::now() < until {
                let length = raw.read(&mut packet)?;
                let Some(([header @ .., _, _, _, _], body)) = packet[..length].split_at_checked(28) else { continue };
                let &[.., a, b, c, d, _, _, _, _, from, to, port, at] = header else { continue };
                if [from, to] == LINK.to_be_bytes() && [port, at] == LINK.to_be_bytes() {
                    frames.push((IpAddr::from([a, b, c, d]), body.to_vec()));
                }
            }
            Ok::<_, std::io::Error>(frames)
        });
        recorded.map_err(text)?.map_err(text)
    }

    fn fill(&self) -> Result<usize, String> {
        let keys: Vec<_> = (0..100).map(|n| format!("key:{n}")).collect();
        let mut commands = vec![self.login()];
        commands.extend(keys.iter().map(|key| vec!["SET", key.as_str(), "kept"]));
        commands.push(vec!["WAIT", "2", "1500"]);
        let said = self.say(CLIENT, None, self.vip(), &commands)?;
        if said.last().and_then(Reply::integer) == Some(2) { Ok(keys.len()) } else { Err(format!("{:?}", said.last())) }
    }

    /// Whether a node has published that.
    fn reported(&self, node: &str, words: &[&str]) -> Outcome {
        let said = || {
            let mut command = self.cluster.vigie(node);
            let output = command.arg("events").output().map_err(text)?;
            let events = String::from_utf8_lossy(&output.stdout).into_owned();
            let found = events.lines().any(|line| words.iter().all(|word| line.contains(word)));
            if found { Ok(()) } else { Err(format!("{words:?} is not among the events of {node}:\n{events}")) }
        };
        wait_ok("not reported", Instant::now(), START_TIME, said).map(drop)
    }
}

/// Whatever comes in at an address, as long as it lives.
struct Ear(Arc<Mutex<Vec<u8>>>);

impl Ear {
    /// Accepts everybody at `address`, says nothing, and notes what is said to it.
    fn open(network: Network, address: SocketAddr) -> Result<Self, String> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heard);
        let (ready, opened) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let listener = network.enter().map_err(text).and_then(|()| TcpListener::bind(address).map_err(text));
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => return drop(ready.send(Err(format!("{address}: {error}")))),
            };
            let _ = ready.send(Ok(()));
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || {
                    let mut bytes = [0; 4_096];
                    while let Ok(1..) = stream.read(&mut bytes).inspect(|length| {
                        noted.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..*length]);
                    }) {}
                });
            }
        });
        opened.recv().map_err(text)??;
        Ok(Self(heard))
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn heard_no_password(&self) -> Outcome {
        let heard = self.heard();
        if heard.to_ascii_uppercase().contains("AUTH") { Err(format!("was told {heard:?}")) } else { Ok(()) }
    }
}

fn greetings(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let keys = world.fill()?;
    let before = world.standing()?;
    let network = || world.cluster.lab().network(CLIENT).map_err(text);
    let ears = [REDIS, SENTINEL].map(|port| Ear::open(network()?, SocketAddr::new(STRANGER.into(), port)));
    let [redis, sentinel] = ears;
    let (redis, sentinel) = (redis?, sentinel?);
    let ids: Vec<String> = DATA
        .iter()
        .map(|node| {
            let said = world.say(node, None, world.at(node, SENTINEL), &[vec!["SENTINEL", "MYID"]])?;
            said[0].text().map(str::to_owned).ok_or_else(|| format!("{said:?}"))
        })
        .collect::<Result<_, String>>()?;
    let invented = "00112233445566778899aabbccddeeff00112233".to_owned();
    // In the name of each sentinel, of an invented one at its address, and of the stranger; for the next epoch and the last.
    let mut greetings = Vec::new();
    for epoch in [2_u64, 3, 1_000, 1 << 53] {
        for (node, id) in DATA.iter().zip(&ids) {
            for id in [id, &invented] {
                for master in [IpAddr::from(STRANGER), world.address("redis-02"), world.address("redis-01")] {
                    let from = world.address(node);
                    greetings.push(format!("{from},{SENTINEL},{id},{epoch},mymaster,{master},{REDIS},{epoch}"));
                }
            }
        }
        greetings.push(format!("{STRANGER},{SENTINEL},{invented},{epoch},mymaster,{STRANGER},{REDIS},{epoch}"));
    }
    let publish: Vec<Vec<&str>> =
        greetings.iter().map(|hello| vec!["PUBLISH", "__sentinel__:hello", hello.as_str()]).collect();
    let with = |login: Vec<&'static str>| [vec![login], publish.clone()].concat();
    let password = world.cluster.layout().password.reveal().to_owned();
    let password: &'static str = Box::leak(password.into_boxed_str());
    // Through the virtual address and directly, by an application of few rights and by the password of all.
    let mut places = vec![world.vip()];
    places.extend(DATA.iter().map(|node| world.at(node, REDIS)));
    for place in places {
        for login in [vec!["AUTH", APP.0, APP.1], vec!["AUTH", password]] {
            let said = world.say(CLIENT, Some(STRANGER.into()), place, &with(login))?;
            assert!(said[0].is_ok(), "{place}: {:?}", said[0]);
        }
    }
    world.unmoved(&before, keys)?;
    // At the sentinels themselves: without any password, with that of the applications, and as a local user of a node.
    for node in DATA {
        let vote: Vec<&str> = vec!["SENTINEL", "IS-MASTER-DOWN-BY-ADDR", "192.168.0.4", "6379", "2", &invented];
        let ours =
            vec!["SENTINEL", "IS-MASTER-DOWN-BY-ADDR", "192.168.0.4", "6379", "9007199254740992", ids[0].as_str()];
        for (login, refusal) in [(vec!["PING"], "NOAUTH"), (vec!["AUTH", password], "NOPERM")] {
            let commands = [with(login), vec![vote.clone(), ours.clone()]].concat();
            for (host, from) in [(CLIENT, Some(STRANGER.into())), (node, None)] {
                let said = world.say(host, from, world.at(node, SENTINEL), &commands)?;
                let refused = |reply: &Reply| matches!(reply, Reply::Error(text) if text.starts_with(refusal));
                assert!(said[1..].iter().all(refused), "{node} answers {:?}", &said[1..]);
            }
        }
        // redis-cli of a user without rights, on the node.
        let mut cli = Command::new("setpriv");
        cli.args(["--reuid=65534", "--regid=65534", "--clear-groups", "redis-cli", "-h"]);
        cli.args([&world.address(node).to_string(), "-p", &SENTINEL.to_string()]).args(&vote).arg0("setpriv");
        world.cluster.lab().spawn(node, &mut cli, &format!("{node}-local")).map_err(text)?.wait().map_err(text)?;
        let log = world.cluster.lab().scratch().join(format!("{node}-local.log"));
        let said = fs::read_to_string(log).map_err(text)?;
        assert!(said.contains("NOAUTH"), "{node} answers a local user {said:?}");
    }
    world.unmoved(&before, keys)?;
    for ear in [redis, sentinel] {
        assert_eq!(ear.heard(), "", "nobody connects to a stranger");
    }
    world.healthy()?;
    world.fails_over()?;
    world.kept(keys)
}

fn addresses(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let keys = world.fill()?;
    let vote = vec![
        "SENTINEL",
        "IS-MASTER-DOWN-BY-ADDR",
        "192.168.0.4",
        "6379",
        "2",
        "00112233445566778899aabbccddeeff00112233",
    ];
    // The standby proxy, living or not.
    let proxy = world.address("haproxy-02");
    let before = world.standing()?;
    world.cluster.lab().cut("haproxy-02").map_err(text)?;
    world.run(CLIENT, &format!("ip addr add {proxy}/24 dev eth0"))?;
    for node in DATA {
        let said = world.say(
            CLIENT,
            Some(proxy),
            world.at(node, SENTINEL),
            &[vote.clone(), vec!["SENTINEL", "FAILOVER", "mymaster"]],
        )?;
        let refused = |reply: &Reply| matches!(reply, Reply::Error(text) if text.starts_with("NOAUTH"));
        assert!(said.iter().all(refused), "{node} answers {said:?}");
    }
    world.run(CLIENT, &format!("ip addr del {proxy}/24 dev eth0"))?;
    world.cluster.lab().heal("haproxy-02").map_err(text)?;
    // Otherwise the neighbours send to the stranger's interface until their caches have found out, in up to a minute.
    world.announce("haproxy-02", proxy)?;
    let back = || {
        let after = world.standing()?;
        if after == before { Ok(()) } else { Err(format!("{after:#?}, and before {before:#?}")) }
    };
    wait_ok("haproxy-02 is not back", Instant::now(), Duration::from_secs(60), back).map_err(|why| world.told(why))?;
    world.healthy()?;
    world.unmoved(&before, keys)?;

    // A replica that lives on, one that is gone, and then the master: a stranger at their address is told nothing that opens
    // anything.
    for (place, node, lost) in
        [("living replica", "redis-02", false), ("replica", "redis-03", true), ("master", "redis-01", true)]
    {
        let address = world.address(node);
        let network = || world.cluster.lab().network(CLIENT).map_err(text);
        if lost {
            world.cluster.lab().cut(node).map_err(text)?;
        }
        world.run(CLIENT, &format!("ip addr add {address}/24 dev eth0"))?;
        let redis = Ear::open(network()?, SocketAddr::new(address, REDIS))?;
        let sentinel = Ear::open(network()?, SocketAddr::new(address, SENTINEL))?;
        let until = Instant::now() + SETTLE_TIME;
        while Instant::now() < until {
            world.announce(CLIENT, address)?;
        }
        sentinel.heard_no_password()?;
        // A replica of a master that is gone connects to its address by itself: what it says there only lets replicate.
        let others: Vec<_> = redis.heard().lines().map(str::to_owned).collect();
        let logins: Vec<_> =
            others.iter().filter(|line| line.starts_with("vigie") || line.starts_with("default")).collect();
        let harmless = |line: &&&String| line.as_str() == "vigie-replica" && place == "master";
        assert!(logins.iter().all(|line| harmless(&line)), "{place}: was told {others:?}");
        if logins.is_empty() {
            redis.heard_no_password()?;
        }
        world.run(CLIENT, &format!("ip addr del {address}/24 dev eth0"))?;
        drop((redis, sentinel));
        if lost {
            world.cluster.lab().heal(node).map_err(text)?;
        }
        world.announce(node, address)?;
        world.healthy()?;
        world.kept(keys)?;
    }
    Ok(())
}

fn frames(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let keys = world.fill()?;
    let before = world.standing()?;
    let flood = Flood::start(&world)?;
    world.unmoved(&before, keys)?;
    let master = world.master()?;
    let died = Instant::now();
    world.cluster.kill_redis(&master).map_err(text)?;
    let password = world.login();
    let written = || {
        let said = world.say(CLIENT, None, world.vip(), &[password.clone(), vec!["SET", "while", "1"]])?;
        if said[1].is_ok() { Ok(()) } else { Err(format!("{said:?}")) }
    };
    let (took, ()) = wait_ok("no write", died, START_TIME, written)?;
    let (sent, rate) = flood.stop();
    note(format!(
        "bad frames: {sent} at {rate:.0}/s; redis killed meanwhile: first write after {} ms",
        took.as_millis()
    ));
    assert!(sent > 10_000, "{sent} frames are no flood");
    world.healthy()?;
    world.reported("redis-01", &["frame-refused"])?;
    world.kept(keys)
}

/// Genuine frames, recorded where they came in: repeated to whom they were for, sent to everybody else, and back to where they
/// came from. Then their master is lost, and they are all that is heard of it.
fn recorded(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let keys = world.fill()?;
    let before = world.standing()?;
    let nodes: Vec<_> = world.cluster.layout().nodes.iter().map(|node| node.address).collect();
    let mut packets = Vec::new();
    let mut replay = Vec::new();
    for receiver in ["redis-02", "haproxy-01"] {
        let to = world.address(receiver);
        for (from, body) in world.record(receiver)? {
            for node in &nodes {
                packets.push((from, *node, body.clone()));
            }
            packets.push((to, from, body.clone()));
            replay.push((from, to, body));
        }
    }
    let senders = |packets: &[(IpAddr, IpAddr, Vec<u8>)]| {
        packets.iter().map(|(from, ..)| *from).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(senders(&replay), nodes.len(), "not everybody was heard");
    let flood = Flood::of(&world, packets, RECORDED_RATE)?;
    world.unmoved(&before, keys)?;
    flood.stop();
    world.healthy()?;
    world.reported("redis-03", &["frame-refused", &world.address("redis-01").to_string()])?;

    let master = world.master()?;
    let flood = Flood::of(&world, replay, RECORDED_RATE)?;
    world.cluster.lab().cut(&master).map_err(text)?;
    let lost = Instant::now();
    let password = world.login();
    let written = || {
        let said = world.say(CLIENT, None, world.vip(), &[password.clone(), vec!["SET", "while", "1"]])?;
        if said[1].is_ok() && world.master()? != master { Ok(()) } else { Err(format!("{said:?}")) }
    };
    let (took, ()) = wait_ok("no write", lost, START_TIME, written).map_err(|why| world.told(why))?;
    let (sent, rate) = flood.stop();
    note(format!(
        "recorded frames: {sent} at {rate:.0}/s; host of the master lost meanwhile: first write after {} ms",
        took.as_millis()
    ));
    world.cluster.lab().heal(&master).map_err(text)?;
    world.healthy()?;
    world.kept(keys)
}

/// Somebody between two nodes delivers what one says to the other, signed and in order, but late.
fn held_back(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let keys = world.fill()?;
    let before = world.standing()?;
    let (from, to) = ("redis-03", "redis-02");
    let mac = |host: &str| {
        let read = world.cluster.lab().exec(host, || {
            let output = Command::new("ip").args(["-br", "link", "show", "dev", "eth0"]).output()?;
            let line = String::from_utf8_lossy(&output.stdout).into_owned();
            line.split_whitespace().nth(2).map(str::to_owned).ok_or_else(|| std::io::Error::other(line.clone()))
        });
        read.map_err(text)?.map_err(text)
    };
    let (source, target) = (world.address(from).to_string(), world.address(to).to_string());
    let mut python = Command::new("python3");
    python.args(["-c", HOLD_BACK, &source, &target, &mac(to)?, "3"]);
    let mut python = world.cluster.lab().spawn(CLIENT, &mut python, "held-back").map_err(text)?;
    world.run(from, &format!("ip neigh replace {target} lladdr {} dev eth0 nud permanent", mac(CLIENT)?))?;
    let seen = || {
        let status = world.cluster.status(to).map_err(text)?;
        let node = status.nodes.into_iter().find(|node| node.name == from).ok_or("every node is in the status")?;
        if node.health == "unreachable" && node.why.contains("held back on their way") {
            Ok(node.why)
        } else {
            Err(format!("{} {}", node.health, node.why))
        }
    };
    let (_, why) = wait_ok("not seen", Instant::now(), START_TIME, seen).map_err(|why| world.told(why))?;
    note(format!("frames held back for 3 s: {to} says of {from} that {why}"));
    world.run(from, &format!("ip neigh del {target} dev eth0"))?;
    world.healthy()?;
    python.kill().map_err(text)?;
    python.wait().map_err(text)?;
    world.unmoved(&before, keys)
}

/// Frames that nobody signed, in the name of every node and of the stranger, to every node.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u64, f64)>,
}

impl Flood {
    /// About 50,000 in a second.
    fn start(world: &World) -> Result<Self, String> {
        let mut body = vec![0x5a; 400];
        body[0] = 2;
        let nodes: Vec<_> = world.cluster.layout().nodes.iter().map(|node| node.address).collect();
        let mut packets = Vec::new();
        for from in &nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                packets.push((*from, *to, body.clone()));
                packets.push((STRANGER.into(), *to, body.clone()));
            }
        }
        Self::of(world, packets, 50_000)
    }

    /// These packets of the peer link (from, to, body), over and over, so many in a second.
    fn of(world: &World, packets: Vec<(IpAddr, IpAddr, Vec<u8>)>, rate: u32) -> Result<Self, String> {
        let network = world.cluster.lab().network(CLIENT).map_err(text)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let sent = network.enter().map_err(text).and_then(|()| repeat(&packets, rate, &stopped).map_err(text));
            sent.unwrap_or_else(|error| panic!("{error}"))
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> (u64, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or((0, 0.0))
    }
}

/// Sends with whatever source a packet has; how many were sent, and how many in a second.
fn repeat(packets: &[(IpAddr, IpAddr, Vec<u8>)], rate: u32, stop: &AtomicBool) -> std::io::Result<(u64, f64)> {
    /// Sleeping for less costs more than it is long.
    const SLEPT_LEAST: Duration = Duration::from_millis(1);
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    raw.set_header_included_v4(true)?;
    let (pause, started, mut sent) = (Duration::from_secs(1) / rate, Instant::now(), 0_u32);
    for (from, to, body) in packets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (IpAddr::V4(source), IpAddr::V4(target)) = (*from, *to) else { continue };
        let packet = datagram(source, target, body);
        // A queue that is full is no matter: there is more.
        sent += u32::from(raw.send_to(&packet, &SocketAddr::new(*to, 0).into()).is_ok());
        let early = (pause * sent).checked_sub(started.elapsed());
        // The sender leaves the machine to others.
        if let Some(early) = early.filter(|early| *early >= SLEPT_LEAST) {
            std::thread::sleep(early);
        }
    }
    Ok((sent.into(), f64::from(sent) / started.elapsed().as_secs_f64()))
}

/// An IPv4 packet with a UDP datagram of the peer link; the kernel fills the header's checksum in, and none is no error in UDP.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let udp = u16::try_from(8 + body.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(LINK.to_be_bytes());
    packet.extend(LINK.to_be_bytes());
    packet.extend(udp.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(body);
    packet
}

/// The sequence that the README gives, under load.
fn rotation(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let keys = world.fill()?;
    let before = world.standing()?;
    let client = vigie::operate::lab::client::Client::start(world.cluster.lab(), CLIENT, world.cluster.plan("change"));
    let client = client.map_err(text)?;
    let started = vigie::runtime::clock::now();
    if !client.wait_steady(started, Duration::from_millis(500), START_TIME) {
        return Err("writes do not flow".to_owned());
    }
    let Layout { password, secret, .. } = world.cluster.layout();
    let secret = secret.as_ref().ok_or("a layout with a secret")?;
    let (old_password, old_secret) = (password.reveal().to_owned(), secret.reveal().to_owned());
    let write = |name: &str, lines: &[&str]| {
        fs::write(world.cluster.lab().scratch().join(name), lines.join("\n") + "\n").map_err(text)
    };
    let reload = || {
        for node in world.cluster.names() {
            let count = || {
                let output = world.cluster.vigie(node).arg("events").output().map_err(text)?;
                Ok::<_, String>(String::from_utf8_lossy(&output.stdout).matches("credentials-renewed").count())
            };
            let seen = count()?;
            world.cluster.signal_guard(node, nix::sys::signal::Signal::SIGHUP).map_err(text)?;
            let renewed = || match count()? {
                now if now > seen => Ok(()),
                now => Err(format!("{node} has renewed {now} times")),
            };
            wait_ok("not renewed", Instant::now(), START_TIME, renewed)?;
        }
        Ok::<(), String>(())
    };
    let new_secret = "another-secret-of-the-nodes";
    let new_password = "another-password-of-applications";
    let knows = |password: &str| {
        let said = world.say(CLIENT, None, world.vip(), &[vec!["AUTH", password], vec!["PING"]])?;
        Ok::<_, String>(said[0].is_ok())
    };
    for lines in [[old_secret.as_str(), new_secret].as_slice(), &[new_secret, &old_secret], &[new_secret]] {
        write("secret", lines)?;
        reload()?;
    }
    write("password", &[&old_password, new_password])?;
    reload()?;
    wait_ok("the new password is not accepted", Instant::now(), START_TIME, || {
        if knows(new_password)? && knows(&old_password)? { Ok(()) } else { Err("not yet".to_owned()) }
    })?;
    write("password", &[new_password])?;
    reload()?;
    wait_ok("the old password is still accepted", Instant::now(), START_TIME, || {
        if knows(new_password)? && !knows(&old_password)? { Ok(()) } else { Err("not yet".to_owned()) }
    })?;
    let after = world.standing()?;
    assert_eq!(after, before);
    let tally = client.stop();
    let (errors, written) = (tally.errors + tally.connect_errors, tally.acks.len());
    note(format!("secret and password changed under load: {written} writes, {errors} errors"));
    assert_eq!(errors, 0, "{:?}", tally.kinds);
    // And nothing has come loose: another master is found, and everybody follows it.
    let master = world.master()?;
    world.cluster.kill_redis(&master).map_err(text)?;
    wait_ok("no failover", Instant::now(), START_TIME, || match world.master()? {
        now if now != master => Ok(()),
        now => Err(format!("the master is {now}")),
    })?;
    world.healthy()?;
    let said = world.say(CLIENT, None, world.vip(), &[vec!["AUTH", new_password], vec!["DBSIZE"]])?;
    assert!(said[1].integer().is_some_and(|found| usize::try_from(found).is_ok_and(|found| found >= keys)), "{said:?}");
    Ok(())
}
