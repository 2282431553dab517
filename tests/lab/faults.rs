//! Wrong input of every kind to real nodes: each fault is said where it is, by the node and by the others; what the others
//! do goes on; and what was wrong heals by itself once it is mended.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use vigie::operate::client;
use vigie::operate::lab::hosts::{HostSpec, Lab, signal};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::status::{NodeStatus, Status};

use super::whole::text;
use super::{Case, Outcome, wait_for};

const NEEDS: &[&str] = &["redis-server", "ip"];
const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");
const PASSWORD: &str = "only-the-lab-knows-this";
const BOXES: [&str; 3] = ["box-1", "box-2", "box-3"];
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
const CLIENT: &str = "client";
/// A node has said or done what it will within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const CASES: &[Case] = &[
    Case { name: "ports_in_use_are_named_and_taken_when_free", needs: NEEDS, run: ports },
    Case { name: "a_missing_interface_is_named_and_waited_for", needs: NEEDS, run: interface },
    Case { name: "servers_that_are_none_are_named", needs: NEEDS, run: servers },
    Case { name: "another_password_shuts_a_node_out_and_disturbs_nobody", needs: NEEDS, run: password },
    Case { name: "garbage_disturbs_nobody", needs: NEEDS, run: garbage },
    Case { name: "broken_state_stops_its_role_only", needs: NEEDS, run: state },
    Case { name: "a_node_is_never_two", needs: NEEDS, run: identity },
    Case { name: "wrong_orders_are_refused_with_the_reason", needs: NEEDS, run: orders },
];

/// Epoch and address of the master, the sentinels' epochs, who holds the VIP.
type Standing = (u64, String, Vec<u64>, Vec<&'static str>);
/// What is done to a state file.
type Damage = fn(&mut Vec<u8>);

/// Three hosts with every role, and a client.
struct World {
    lab: Lab,
    guards: Vec<(&'static str, Child)>,
}

fn address(node: &str) -> IpAddr {
    let place = BOXES.iter().position(|name| *name == node).and_then(|place| u8::try_from(place).ok());
    IpAddr::from([192, 168, 0, place.map_or(100, |place| 4 + place)])
}

impl Drop for World {
    /// Nobody else's processes are touched, and the log of a case that fails is shown.
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("VIGIE_LAB_LOGS").is_some() {
            for node in BOXES {
                let log = fs::read_to_string(self.lab.scratch().join(format!("{node}.log"))).unwrap_or_default();
                eprintln!("--- {node}\n{log}");
            }
        }
    }
}

impl World {
    fn new(sandbox: &Sandbox) -> Result<Self, String> {
        let host = |name: &&str| HostSpec { name: (*name).to_owned(), address: address(name), prefix: 24 };
        let hosts: Vec<_> = BOXES.iter().chain([&CLIENT]).map(host).collect();
        let world = Self { lab: Lab::new(&sandbox.scratch, &hosts).map_err(text)?, guards: Vec::new() };
        for node in BOXES {
            fs::create_dir_all(world.directory(node)).map_err(text)?;
            world.write_password(node, PASSWORD)?;
            world.configure(node, "", "eth0")?;
        }
        Ok(world)
    }

    fn directory(&self, node: &str) -> PathBuf {
        self.lab.scratch().join(node)
    }

    fn runtime_dir(&self, node: &str) -> PathBuf {
        self.directory(node).join("run")
    }

    fn write_password(&self, node: &str, password: &str) -> Outcome {
        let path = self.directory(node).join("password");
        let mut file = fs::OpenOptions::new();
        let opened = file.write(true).create(true).truncate(true).mode(0o600).open(path);
        opened.and_then(|mut file| writeln!(file, "{password}")).map_err(text)
    }

    /// Writes the file of one node, with `[redis]` keys and the interface of the VIP of its own.
    fn configure(&self, node: &str, redis: &str, interface: &str) -> Outcome {
        let directory = self.directory(node);
        let mut file = format!(
            "[cluster]\nquorum = 2\npassword_file = \"{}/password\"\n[redis]\n{redis}\n\
             [[vip]]\naddresses = [\"{VIP}/24\"]\ninterface = \"{interface}\"\nvirtual_router_id = 51\n",
            directory.display()
        );
        for (place, name) in BOXES.iter().enumerate() {
            // The last one is no proxy: what a proxy raises for itself, such as the limit of open files, is not there.
            let roles = if place == 2 { "" } else { "\"proxy\", " };
            let first = if place == 0 { "bootstrap_master = true\n" } else { "" };
            file += &format!(
                "[[node]]\nname = \"{name}\"\naddress = \"{}\"\nroles = [{roles}\"redis\", \"sentinel\"]\n{first}",
                address(name)
            );
        }
        fs::write(directory.join("vigie.toml"), file).map_err(text)
    }

    fn arguments(&self, node: &str, command: &[&str]) -> Vec<String> {
        let directory = self.directory(node);
        let path = |name: &str| directory.join(name).display().to_string();
        let mut all: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        for (option, value) in
            [("--config", path("vigie.toml")), ("--state-dir", path("state")), ("--runtime-dir", path("run"))]
        {
            all.extend([option.to_owned(), value]);
        }
        all
    }

    fn start(&mut self, node: &'static str) -> Outcome {
        let arguments = self.arguments(node, &["run", "--node", node]);
        // With the number of open files that an ordinary process is allowed.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\"", VIGIE]).args(arguments);
        let guard = self.lab.spawn(node, &mut command, node).map_err(text)?;
        self.guards.push((node, guard));
        Ok(())
    }

    fn start_all(&mut self) -> Outcome {
        BOXES.into_iter().try_for_each(|node| self.start(node))
    }

    fn stop(&mut self, node: &str) -> Outcome {
        let place = self.guards.iter().position(|(name, _)| *name == node).ok_or("it does not run")?;
        let (_, mut guard) = self.guards.remove(place);
        signal(i32::try_from(guard.id()).map_err(text)?, Signal::SIGTERM).map_err(text)?;
        let code = guard.wait().map_err(text)?.code();
        if code == Some(0) { Ok(()) } else { Err(format!("{node} left with {code:?}")) }
    }

    /// A command on a node's host, to its end.
    fn run(&self, host: &str, program: &str, arguments: &[String]) -> Result<Output, String> {
        self.lab.exec(host, || Command::new(program).args(arguments).output()).map_err(text)?.map_err(text)
    }

    /// A vigie command on a node; its exit code, and all it printed.
    fn vigie(&self, node: &str, command: &[&str]) -> Result<(Option<i32>, String), String> {
        let output = self.run(node, VIGIE, &self.arguments(node, command))?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok((output.status.code(), said.concat()))
    }

    fn status(&self, node: &str) -> Result<Status, String> {
        client::status(&self.runtime_dir(node)).map_err(text)
    }

    fn node(&self, seen_from: &str, node: &str) -> Option<NodeStatus> {
        self.status(seen_from).ok()?.nodes.into_iter().find(|found| found.name == node)
    }

    /// Waits until each of the nodes says of `node` all of the words.
    fn said(&self, seen_from: &[&str], node: &str, words: &[&str]) -> Outcome {
        for seer in seen_from {
            let mut last = None;
            let all = |why: &str| words.iter().all(|word| why.contains(word));
            wait_for(&format!("{seer} says {words:?} of {node}"), LIMIT, || {
                last = self.node(seer, node);
                last.as_ref().is_some_and(|node| node.health != "good" && all(&node.why))
            })
            .map_err(|error| format!("{error}; it says {:?}", last.map(|node| (node.health, node.why))))?;
        }
        Ok(())
    }

    /// What is missing until all nodes find all nodes good, one master, and every other redis in sync with it.
    fn missing(&self) -> Result<(), String> {
        for seer in BOXES {
            let status = self.status(seer)?;
            let master = status.master.ok_or_else(|| format!("{seer} knows no master"))?;
            for node in status.nodes {
                let redis = node.redis.ok_or_else(|| format!("{seer} knows nothing of the redis of {}", node.name))?;
                let role = if master.node.as_ref() == Some(&node.name) { "master" } else { "replica" };
                if node.health != "good" || !redis.in_sync || redis.role != role {
                    return Err(format!(
                        "{seer} finds {} {} ({}), {} {}",
                        node.name, node.health, node.why, redis.process, redis.role
                    ));
                }
                if node.proxy.is_some_and(|proxy| proxy.route.as_ref() != Some(&master.address)) {
                    return Err(format!("{seer}: the proxy of {} has no route", node.name));
                }
            }
        }
        Ok(())
    }

    fn healthy(&self) -> Outcome {
        let mut missing = Ok(());
        wait_for("the cluster is well", LIMIT, || {
            missing = self.missing();
            missing.is_ok()
        })
        .map_err(|error| format!("{error}: {}", missing.err().unwrap_or_default()))?;
        wait_for("a client writes through the VIP", LIMIT, || self.set("k"))
    }

    /// Whether a client writes through the VIP.
    fn set(&self, key: &str) -> bool {
        let command = format!("AUTH {PASSWORD}\r\nSET {key} 1\r\n");
        self.ask(CLIENT, SocketAddr::from((VIP, 6379)), command.as_bytes(), 10)
            .is_ok_and(|said| said == "+OK\r\n+OK\r\n")
    }

    /// Sends bytes from a host and reads at most so many back.
    fn ask(&self, host: &str, to: SocketAddr, bytes: &[u8], length: usize) -> Result<String, String> {
        let asked = self.lab.exec(host, || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(bytes)?;
            let mut said = vec![0; length];
            let mut read = 0;
            while read < length {
                match stream.read(&mut said[read..])? {
                    0 => break,
                    more => read += more,
                }
            }
            said.truncate(read);
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&said).into_owned())
        });
        asked.map_err(text)?.map_err(text)
    }

    /// Epoch and master, and who holds the VIP: what must stand still.
    fn standing(&self) -> Result<Standing, String> {
        let status = self.status("box-1")?;
        let master = status.master.ok_or("no master")?;
        let epochs = status.nodes.iter().filter_map(|node| Some(node.sentinel.as_ref()?.current_epoch)).collect();
        let holds = |node: &&str| {
            let addresses = self.lab.addresses(node).unwrap_or_default();
            addresses.iter().any(|(address, _)| *address == IpAddr::V4(VIP))
        };
        Ok((master.epoch, master.address, epochs, BOXES.into_iter().filter(holds).collect()))
    }

    /// The worker of a node: its memory in KiB.
    fn worker_memory(&self, node: &str) -> Result<u64, String> {
        let guard = self.guards.iter().find(|(name, _)| *name == node).ok_or("it does not run")?;
        let guard = i32::try_from(guard.1.id()).map_err(text)?;
        let processes = self.lab.processes(node).map_err(text)?;
        let worker = processes.iter().find(|process| process.parent == guard).ok_or("no worker")?;
        let status = fs::read_to_string(format!("/proc/{}/status", worker.pid)).map_err(text)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        line.trim().trim_end_matches(" kB").parse().map_err(text)
    }

    /// Holds a TCP port of a host, also on an address that it does not have.
    fn squat(&self, host: &str, address: SocketAddr) -> Result<TcpListener, String> {
        let bound = self.lab.exec(host, || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_freebind_v4(true)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(8)?;
            Ok::<_, std::io::Error>(socket.into())
        });
        bound.map_err(text)?.map_err(|error| format!("{address}: {error}"))
    }
}

fn expect(what: &str, said: &str, words: &[&str]) -> Outcome {
    match words.iter().find(|word| !said.contains(**word)) {
        Some(missing) => Err(format!("{what}: {missing:?} is missing in {said:?}")),
        None => Ok(()),
    }
}

fn ports(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    // The peer link first: without it a node is none, and says so at once.
    let link = SocketAddr::new(address("box-1"), 26380);
    let taken = world.lab.exec("box-1", || UdpSocket::bind(link)).map_err(text)?.map_err(text)?;
    let (code, said) = world.vigie("box-1", &["run", "--node", "box-1"])?;
    assert_eq!(code, Some(1), "{said}");
    expect("peer link", &said, &["UDP 192.168.0.4:26380", "Address already in use"])?;
    assert_eq!(world.lab.processes("box-1").map_err(text)?, []);
    drop(taken);

    let sentinel = world.squat("box-1", SocketAddr::from((Ipv4Addr::UNSPECIFIED, 26379)))?;
    let proxy = world.squat("box-2", SocketAddr::from((VIP, 6379)))?;
    let redis = world.squat("box-3", SocketAddr::new(address("box-3"), 6379))?;
    world.start_all()?;
    world.said(&BOXES, "box-1", &["192.168.0.4:26379", "in use"])?;
    world.said(&BOXES, "box-2", &["192.168.0.1:6379", "in use"])?;
    world.said(&BOXES, "box-3", &["192.168.0.6:6379", "in use"])?;
    // It stays said while it is tried again.
    for _ in 0..40 {
        let why = world.node("box-1", "box-3").map(|node| node.why).unwrap_or_default();
        expect("while redis is tried again", &why, &["192.168.0.6:6379"])?;
        std::thread::sleep(Duration::from_millis(25));
    }
    let (code, said) = world.vigie("box-2", &["status"])?;
    assert_eq!(code, Some(1), "{said}");
    // A first start needs every sentinel.
    let waits = |node: &str| world.vigie(node, &["why"]).map(|(_, said)| said.contains("until it has heard box-1"));
    wait_for("the others say what they wait for", LIMIT, || waits("box-2") == Ok(true) && waits("box-3") == Ok(true))?;
    drop(sentinel);
    wait_for("the rest works", LIMIT, || world.set("while"))?;
    drop((proxy, redis));
    world.healthy()?;
    let (code, said) = world.vigie("box-2", &["status"])?;
    assert_eq!(code, Some(0), "{said}");

    // The sentinel is on the addresses of the file and on loopback, and on no other that the host has.
    let more: Vec<_> = "addr add 192.168.0.77/24 dev eth0".split(' ').map(str::to_owned).collect();
    assert!(world.run("box-1", "ip", &more)?.status.success());
    let ping = |from: &str, to: IpAddr| world.ask(from, SocketAddr::new(to, 26379), b"PING\r\n", 7);
    for (from, to) in [(CLIENT, address("box-1")), (CLIENT, VIP.into()), ("box-1", Ipv4Addr::LOCALHOST.into())] {
        assert_eq!(ping(from, to).as_deref(), Ok("+PONG\r\n"), "{to}");
    }
    let refused = ping(CLIENT, IpAddr::from([192, 168, 0, 77])).expect_err("an address that no file names is served");
    expect("another address", &refused, &["refused"])
}

fn interface(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    for node in BOXES {
        world.configure(node, "", "vip0")?;
    }
    world.start_all()?;
    world.said(&BOXES, "box-1", &["vip0"])?;
    world.said(&BOXES, "box-2", &["vip0"])?;
    let ip = |words: &str| {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let output = world.run("box-2", "ip", &words)?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    ip("link add vip0 type bridge")?;
    world.said(&["box-1"], "box-2", &["vip0", "down"])?;
    ip("link set vip0 up")?;
    world.said(&["box-1"], "box-2", &["vip0", "no IPv4 address"])?;
    ip("address add 192.168.7.5/24 dev vip0")?;
    wait_for("box-2 takes part", LIMIT, || {
        world.node("box-1", "box-2").is_some_and(|node| node.health == "good" && node.vips[0].state == "master")
    })?;
    ip("link delete vip0")?;
    world.said(&["box-1", "box-2"], "box-2", &["vip0"])
}

fn servers(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    let real = PathBuf::from("/usr/bin/redis-server");
    let script = |node: &str| world.directory(node).join("server");
    let (missing, old) = (script("box-2"), script("box-3"));
    let says = |path: &Path, said: &str| {
        fs::write(path, format!("#!/bin/sh\necho '{said}'\n")).map_err(text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(text)
    };
    says(&old, "Redis server v=5.0.3 sha=00000000:0 malloc=libc bits=64 build=0")?;
    for (node, server) in [("box-2", &missing), ("box-3", &old)] {
        world.configure(node, &format!("server = \"{}\"\n", server.display()), "eth0")?;
    }
    world.start_all()?;
    world.said(&BOXES, "box-2", &["redis.server = \"/run/lab/box-2/server\"", "no such program"])?;
    world.said(&BOXES, "box-3", &["redis.server = \"/run/lab/box-3/server\"", "5.0.3", "redis 6.2"])?;
    wait_for("the rest works", LIMIT, || world.set("while"))?;
    fs::write(&missing, "no program").map_err(text)?;
    world.said(&["box-1"], "box-2", &["box-2/server", "Permission denied"])?;
    says(&old, "KeyDB server v=6.3.4")?;
    world.said(&["box-1"], "box-3", &["box-3/server", "neither redis nor valkey"])?;
    for server in [&missing, &old] {
        fs::remove_file(server).map_err(text)?;
        symlink(&real, server).map_err(text)?;
    }
    world.healthy()
}

fn password(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    world.start_all()?;
    world.healthy()?;
    let before = world.standing()?;
    world.stop("box-3")?;
    world.write_password("box-3", "quite-another-password")?;
    world.start("box-3")?;
    world.said(&["box-1", "box-2"], "box-3", &["another secret"])?;
    world.said(&["box-3"], "box-1", &["another secret"])?;
    world.said(&["box-3"], "box-3", &["secret of this node is not that of box-1, box-2"])?;
    // Longer than any suspicion or election takes.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let after = world.standing()?;
        assert_eq!((&after.0, &after.1, &after.3), (&before.0, &before.1, &before.3));
        assert!(after.2.iter().all(|epoch| before.2.contains(epoch)), "{after:?} after {before:?}");
        let redis = world.node("box-3", "box-3").and_then(|node| node.redis);
        assert!(redis.as_ref().is_none_or(|redis| redis.role != "master"), "{redis:?}");
        let blamed = world.node("box-1", "box-2").filter(|node| node.health != "good");
        assert!(blamed.is_none(), "{blamed:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(world.set("while"));
    world.stop("box-3")?;
    world.write_password("box-3", PASSWORD)?;
    world.start("box-3")?;
    world.healthy()?;
    let after = world.standing()?;
    assert_eq!((after.0, after.1), (before.0, before.1));

    // The power fails everywhere, and the last master comes back with it.
    for node in BOXES {
        for process in world.lab.processes(node).map_err(text)? {
            signal(process.pid, Signal::SIGKILL).map_err(text)?;
        }
    }
    for (_, mut guard) in world.guards.drain(..) {
        guard.wait().map_err(text)?;
    }
    world.write_password("box-1", "quite-another-password")?;
    world.start_all()?;
    world.said(&["box-2", "box-3"], "box-1", &["another secret"])?;
    wait_for("the others go on without it", LIMIT, || world.set("without"))?;
    world.stop("box-1")?;
    world.write_password("box-1", PASSWORD)?;
    world.start("box-1")?;
    world.healthy()
}

/// Bytes that are the same in each run.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            u8::try_from(self.0 >> 56).unwrap_or(0)
        };
        (0..length).map(|_| next()).collect()
    }
}

fn garbage(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    world.start_all()?;
    world.healthy()?;
    let before = world.standing()?;
    let memory: Vec<_> = BOXES.iter().map(|node| world.worker_memory(node)).collect::<Result<_, _>>()?;
    flood(&world)?;
    let slow = crowd(&world)?;
    let unmoved = |when: &str| {
        let after = world.standing()?;
        if after == before { Ok(()) } else { Err(format!("{when}: {after:?} after {before:?}")) }
    };
    unmoved("with a crowd on the sentinels")?;
    for (node, before) in BOXES.iter().zip(memory) {
        let after = world.worker_memory(node)?;
        assert!(after <= before + 10 * 1024, "{node}: {after} KiB, {before} KiB before");
    }
    world.healthy()?;
    drop(slow);
    world.healthy()?;
    unmoved("afterwards")
}

/// Datagrams for the peer link and packets for the election, none of which is true.
fn flood(world: &World) -> Outcome {
    let mut noise = Noise(7);
    let sent = world.lab.exec(CLIENT, || {
        let udp = UdpSocket::bind("0.0.0.0:0")?;
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112)))?;
        raw.set_multicast_if_v4(&Ipv4Addr::new(192, 168, 0, 100))?;
        let group = SocketAddr::from((Ipv4Addr::new(224, 0, 0, 18), 0)).into();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            for node in BOXES {
                let length = usize::from(noise.bytes(1)[0]) * 6;
                let mut bytes = noise.bytes(length);
                if let Some(version) = bytes.first_mut().filter(|_| length % 2 == 0) {
                    *version = 1;
                }
                // A queue that is full is no matter: there is more.
                let _ = udp.send_to(&bytes, (address(node), 26380));
            }
            let length = usize::from(noise.bytes(1)[0]);
            raw.set_multicast_ttl_v4(255)?;
            let _ = raw.send_to(&noise.bytes(length), &group);
            // One that would win, but for the hop limit: it could come from another network.
            raw.set_multicast_ttl_v4(64)?;
            let _ = raw.send_to(&advert(), &group);
        }
        Ok::<_, std::io::Error>(())
    });
    sent.map_err(text)?.map_err(text)
}

/// VRRP version 3, id 51, priority 254, each 100 ms, with the plain checksum.
fn advert() -> Vec<u8> {
    let mut bytes = vec![0x31, 51, 254, 1, 0, 10, 0, 0];
    bytes.extend(VIP.octets());
    let words = bytes.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Clients of the sentinels that speak nonsense, and two thousand on each that say nearly nothing and stay.
fn crowd(world: &World) -> Result<Vec<TcpStream>, String> {
    let mut noise = Noise(11);
    for node in BOXES {
        let sentinel = SocketAddr::new(address(node), 26379);
        let deep = [b"*1\r\n".repeat(5_000), b"$1\r\nx\r\n".to_vec()].concat();
        let mut wrong = vec![
            (b"*1\r\n$999999999\r\n".to_vec(), "-ERR"),
            (b"*999999999\r\n".to_vec(), "-ERR"),
            (b"*1\r\n$-5\r\n".to_vec(), "-ERR"),
            (b"*x\r\n".to_vec(), "-ERR"),
            (deep, "-ERR"),
            (vec![b'x'; 20_000], "-ERR"),
        ];
        wrong.extend((0..50).map(|_| ([noise.bytes(400), b"\r\n".to_vec()].concat(), "")));
        for (bytes, expected) in wrong {
            // A connection that is closed with bytes unread may lose the answer: only whole requests are judged by it.
            let said = world.ask(CLIENT, sentinel, &bytes, 4);
            let start = String::from_utf8_lossy(&bytes).chars().take(20).collect::<String>();
            let judged = said.as_ref().map_or(bytes.len() > 1_000, |said| said.starts_with(expected));
            assert!(judged || expected.is_empty(), "{node}: {start:?}: {said:?}");
        }
    }
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_err(text)?;
    let wanted = 8_192.max(soft);
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
        .map_err(text)?;
    let connected = world.lab.exec(CLIENT, || {
        let mut slow = Vec::new();
        for node in BOXES {
            for n in 0..2_000 {
                let to = SocketAddr::new(address(node), 26379);
                // One that is refused, or closed at once, is as good.
                let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) else { continue };
                let _ = stream.write_all(&b"*2\r\n$8\r\nSENTINEL\r\n$7\r\nmast"[..n % 26]);
                slow.push(stream);
            }
        }
        slow
    });
    connected.map_err(text)
}

fn state(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    world.start_all()?;
    world.healthy()?;
    world.stop("box-2")?;
    world.stop("box-3")?;
    let file = |node: &str, name: &str| world.directory(node).join("state").join(name);
    let (votes, record) = (file("box-2", "sentinel.state"), file("box-3", "redis.record"));
    let damages: [(&str, Damage); 4] = [
        ("torn", |bytes| bytes.truncate(bytes.len() - 1)),
        ("version 99", |bytes| bytes[8] = 99),
        ("kind \"zz\"", |bytes| bytes[6..8].copy_from_slice(b"zz")),
        ("not a state file of vigie", |bytes| *bytes = b"hello\n".to_vec()),
    ];
    let whole = [&votes, &record].map(fs::read);
    let [Ok(whole_votes), Ok(whole_record)] = whole else { return Err(format!("{whole:?}")) };
    for (n, (said, damage)) in damages.iter().enumerate() {
        for (path, whole) in [(&votes, &whole_votes), (&record, &whole_record)] {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            fs::write(path, bytes).map_err(text)?;
        }
        if n == 0 {
            world.start("box-2")?;
            world.start("box-3")?;
        }
        world.said(&BOXES, "box-2", &["sentinel.state", said])?;
        world.said(&BOXES, "box-3", &["redis.record", said])?;
    }
    world.said(&["box-2"], "box-2", &["move the file away"])?;
    let sentinel = SocketAddr::new(address("box-2"), 26379);
    assert!(world.ask(CLIENT, sentinel, b"PING\r\n", 7).is_err(), "a sentinel without its votes must not vote");
    let processes = world.lab.processes("box-3").map_err(text)?;
    assert!(processes.iter().all(|process| process.command != "redis-server"), "{processes:?}");
    assert!(world.set("while"));
    for path in [&votes, &record] {
        fs::rename(path, path.with_extension("away")).map_err(text)?;
    }
    world.healthy()
}

fn identity(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    world.start_all()?;
    world.healthy()?;
    let guard = world.guards[0].1.id();
    let (code, said) = world.vigie("box-1", &["run", "--node", "box-1"])?;
    assert_eq!(code, Some(1), "{said}");
    expect("a second one", &said, &[&format!("process {guard}"), "/run/lab/box-1/run"])?;
    let (code, said) = world.vigie("box-1", &["run", "--node", "box-9"])?;
    assert_eq!(code, Some(1), "{said}");
    expect("an unknown node", &said, &["--node", "box-9", "box-1 (192.168.0.4)"])?;
    let elsewhere = world.arguments("box-1", &["run"]);
    let output = world.run(CLIENT, VIGIE, &elsewhere)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    expect("a host that is none", &said, &["192.168.0.100", "host name", "box-1 (192.168.0.4)"])?;

    // A second one with the votes and the data of the first.
    let mut arguments = world.arguments("box-2", &["run", "--node", "box-2"]);
    let own = arguments.iter().position(|argument| argument == "--state-dir").ok_or("no --state-dir")?;
    arguments[own + 1] = world.directory("box-1").join("state").display().to_string();
    world.stop("box-2")?;
    let output = world.run("box-2", VIGIE, &arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    expect("the state of another", &said, &["/run/lab/box-1/state", "--state-dir"])?;
    world.start("box-2")?;
    world.healthy()?;

    // The same node on a host that does not have its address.
    let before = world.standing()?;
    let mut arguments = world.arguments("box-1", &["run", "--node", "box-1"]);
    for option in ["--runtime-dir", "--state-dir"] {
        let own = arguments.iter().position(|argument| argument == option).ok_or("no such option")?;
        arguments[own + 1] = format!("/run/lab/other{option}");
    }
    let output = world.run(CLIENT, VIGIE, &arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    expect("a node elsewhere", &said, &["box-1", "192.168.0.4"])?;

    // A second host that calls itself by the name and the address of the first.
    world.stop("box-3")?;
    let mut arguments = world.arguments("box-3", &["run", "--node", "box-1"]);
    let file = world.directory("box-3").join("vigie.toml");
    let written = fs::read_to_string(&file).map_err(text)?;
    let swapped = written.replace("192.168.0.4", "X").replace("192.168.0.6", "192.168.0.4").replace('X', "192.168.0.6");
    fs::write(&file, swapped).map_err(text)?;
    let child = world.lab.spawn("box-3", Command::new(VIGIE).args(&mut arguments), "box-3").map_err(text)?;
    world.guards.push(("box-3", child));
    // What it sends to box-1 is meant for box-3, which it takes it for.
    world.said(&["box-1"], "box-3", &["not authentic", "redirected"])?;
    world.said(&["box-2"], "box-3", &["say that it is box-1"])?;
    std::thread::sleep(Duration::from_secs(1));
    let after = world.standing()?;
    assert_eq!((&after.0, &after.1, &after.3), (&before.0, &before.1, &before.3));
    assert!(world.set("while"));
    Ok(())
}

fn orders(sandbox: &Sandbox) -> Outcome {
    let mut world = World::new(sandbox)?;
    for command in [&["status"][..], &["events"], &["failover"]] {
        let (code, said) = world.vigie("box-1", command)?;
        assert_eq!(code, Some(3), "{command:?}: {said}");
        expect("no daemon", &said, &["/run/lab/box-1/run/control.sock", "vigie run"])?;
    }
    world.start_all()?;
    world.healthy()?;
    let before = world.standing()?;
    for (to, words) in [("box-7", "box-1, box-2, box-3"), ("box-1", "box-1")] {
        let (code, said) = world.vigie("box-2", &["failover", "--to", to])?;
        assert_eq!(code, Some(1), "{said}");
        expect("failover", &said, &[to, words])?;
    }
    world.stop("box-3")?;
    let (code, said) = world.vigie("box-2", &["failover", "--to", "box-3"])?;
    assert_eq!(code, Some(1), "{said}");
    expect("failover to one that is down", &said, &["box-3"])?;
    assert_eq!(world.standing()?.1, before.1);
    world.said(&["box-1"], "box-3", &["not heard"])?;
    let (code, said) = world.vigie("box-1", &["status"])?;
    assert_eq!(code, Some(1));
    expect("status", &said, &["box-3: ", "last heard"])
}
