//! The virtual address against a host of the segment that belongs to nobody: it sends adverts in its own name and in those of
//! the proxies, and says by ARP that the address is its own. The address stays with one proxy, clients do not notice, and
//! people are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, sendto};
use socket2::{Domain, Protocol, Socket, Type};
use vigie::operate::client;
use vigie::operate::lab::client::Client;
use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::wire::arp;
use vigie::wire::vrrp::{Advert, ChecksumForm, GROUP_V4, Interval, PROTOCOL, emit};

use super::super::whole::{HEALTHY_TIME, flows, text, written};
use super::super::{Case, Outcome, note, wait_for};

const NEEDS: &[&str] = &["redis-server", "ip"];
/// What must happen has happened within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// How long each kind of packet is sent, and how often.
const ATTACK: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);
/// A client waits no longer for a reply, also on a busy machine.
const STALL_MAX: Duration = Duration::from_secs(2);
/// An address claimed by somebody else is announced again at once; by itself that happens once in a minute.
const CLAIMED_BACK: Duration = Duration::from_secs(2);
/// Where clients and the stranger are.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 100);
const STRANGER_MAC: arp::Mac = [2, 0x66, 0x66, 0x66, 0x66, 0x66];

pub(crate) const CASES: &[Case] = &[
    Case { name: "adverts_of_a_stranger_move_nothing", needs: NEEDS, run: stranger },
    Case { name: "adverts_in_the_proxies_names_move_nothing", needs: NEEDS, run: names },
    Case {
        name: "a_dead_holder_is_replaced_whatever_a_stranger_sends",
        needs: NEEDS,
        run: |sandbox| dead_holder(sandbox, false),
    },
    Case {
        name: "a_dead_holder_is_replaced_while_a_stranger_speaks_for_it",
        needs: NEEDS,
        run: |sandbox| dead_holder(sandbox, true),
    },
    Case { name: "an_address_claimed_by_arp_is_claimed_back", needs: NEEDS, run: claimed },
];

/// A healthy cluster with a client that writes.
struct World {
    cluster: Cluster,
    client: Client,
    /// Who holds the address, and the other proxies.
    holder: &'static str,
    others: Vec<&'static str>,
}

impl World {
    fn new(sandbox: &Sandbox, layout: Layout) -> Result<Self, String> {
        let (cluster, client) = written(sandbox, layout, "attack", LIMIT)?;
        let proxies = cluster.layout().nodes.iter().filter(|node| node.roles.contains(&"proxy")).map(|node| node.name);
        let mut proxies: Vec<_> = proxies.collect();
        let holders = cluster.vip_holders().map_err(text)?;
        let [holder] = holders[..] else { return Err(format!("the address is on {holders:?}")) };
        proxies.retain(|name| *name != holder);
        Ok(Self { cluster, client, holder, others: proxies })
    }

    fn address(&self, name: &str) -> Ipv4Addr {
        let node = self.cluster.layout().nodes.iter().find(|node| node.name == name);
        match node.map(|node| node.address) {
            Some(IpAddr::V4(address)) => address,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Who has the address on the interface, of the proxies.
    fn holders(&self) -> Result<Vec<&'static str>, String> {
        let mut holders = Vec::new();
        for name in [self.holder].iter().chain(&self.others) {
            let addresses = self.cluster.lab().addresses(name).map_err(text)?;
            if addresses.iter().any(|(address, _)| *address == self.cluster.layout().vip) {
                holders.push(*name);
            }
        }
        Ok(holders)
    }

    /// A socket of the stranger that sends whatever it is given.
    fn raw(&self) -> Result<Socket, String> {
        let opened = self.cluster.lab().exec(CLIENT, || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            socket.set_header_included_v4(true)?;
            socket.set_multicast_if_v4(&STRANGER)?;
            Ok::<_, std::io::Error>(socket)
        });
        opened.map_err(text)?.map_err(text)
    }

    /// Sends what `packets` says for a while, and looks all the time where the address is.
    fn attack(&self, packets: &[Vec<u8>]) -> Outcome {
        let socket = self.raw()?;
        let group = SocketAddr::from((GROUP_V4, 0)).into();
        let begin = Instant::now();
        let (mut looked, mut next) = (0u32, begin);
        while begin.elapsed() < ATTACK {
            if next <= Instant::now() {
                for packet in packets {
                    socket.send_to(packet, &group).map_err(text)?;
                }
                next = Instant::now() + PAUSE;
            }
            let holders = self.holders()?;
            if holders != [self.holder] {
                return Err(format!("after {:?} the address is on {holders:?}", begin.elapsed()));
            }
            looked += 1;
        }
        assert!(looked > 20, "looked {looked} times only");
        Ok(())
    }

    /// Waits until an event of a node holds all of the words.
    fn told(&self, node: &str, words: &[&str]) -> Outcome {
        let mut all = Vec::new();
        wait_for(&format!("{node} tells {words:?}"), LIMIT, || {
            let records = client::events(&self.cluster.runtime_dir(node), false);
            all = records
                .into_iter()
                .flatten()
                .flatten()
                .map(|record| format!("{} {}", record.name, record.text))
                .collect();
            all.iter().any(|line| words.iter().all(|word| line.contains(word)))
        })
        .map_err(|error| {
            let vrrp: Vec<_> = all.iter().filter(|line| line.contains("virtual router")).collect();
            format!("{error}; it told {vrrp:#?}")
        })
    }

    /// Ends the client: nothing failed, and nothing took long.
    fn undisturbed(self, since: vigie::base::Instant) -> Outcome {
        let tally = self.client.stop();
        let stall = tally.max_stall(since);
        if tally.errors > 0 || tally.connect_errors > 0 || stall.is_none_or(|stall| stall > STALL_MAX) {
            return Err(format!("clients noticed: {} errors, {:?}, a stall of {stall:?}", tally.errors, tally.kinds));
        }
        Ok(())
    }
}

/// An IPv4 packet with an advert for the virtual router of the cluster. The kernel fills in length and checksum.
fn advert(from: Ipv4Addr, priority: u8, centiseconds: u16, vip: IpAddr) -> Vec<u8> {
    let advert = Advert::new(51, priority, Interval::Centiseconds(centiseconds), vec![vip]).expect("an advert");
    let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, 255, PROTOCOL, 0, 0];
    packet.extend(from.octets());
    packet.extend(GROUP_V4.octets());
    packet.extend(emit(&advert, from.into(), GROUP_V4.into(), ChecksumForm::PseudoHeader));
    packet
}

fn stranger(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox, Layout::classic())?;
    let since = clock::now();
    for (priority, interval) in [(255, 4_095), (254, 1), (0, 10), (1, 10)] {
        let packet = advert(STRANGER, priority, interval, world.cluster.layout().vip);
        world.attack(&[packet]).map_err(|error| format!("priority {priority}, interval {interval}: {error}"))?;
    }
    for node in [world.holder, world.others[0]] {
        world.told(node, &["packet-refused", "192.168.0.100", "not a proxy of the cluster file nor in vip.peers"])?;
    }
    world.cluster.wait_healthy(LIMIT).map_err(text)?;
    world.undisturbed(since)
}

fn names(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox, Layout::classic())?;
    let since = clock::now();
    let (holder, other) = (world.address(world.holder), world.address(world.others[0]));
    let vip = world.cluster.layout().vip;
    for (priority, interval) in [(255, 4_095), (254, 10), (254, 1), (0, 10), (1, 4_095)] {
        for from in [other, holder] {
            let packet = advert(from, priority, interval, vip);
            world
                .attack(&[packet])
                .map_err(|error| format!("{from} priority {priority} interval {interval}: {error}"))?;
        }
    }
    let (holder, other) = (holder.to_string(), other.to_string());
    world
        .told(world.holder, &["packet-refused", &other, "does not say over the peer link that it holds the address"])?;
    world.told(world.holder, &["packet-refused", &other, "priority 255"])?;
    world.told(world.others[0], &["packet-refused", &holder, "priority 255"])?;
    world.cluster.wait_healthy(LIMIT).map_err(text)?;
    world.undisturbed(since)
}

/// Three proxies. The host of the holder is lost, and the others are kept from noticing by adverts in each other's names, and
/// in the `holder`'s.
fn dead_holder(sandbox: &Sandbox, holder: bool) -> Outcome {
    let mut layout = Layout::classic();
    for node in layout.nodes.iter_mut().filter(|node| node.name == "redis-03") {
        (node.roles, node.keys) = (&["proxy", "redis", "sentinel"], "priority = 90\n");
    }
    let world = World::new(sandbox, layout)?;
    let vip = world.cluster.layout().vip;
    let mut packets = vec![advert(STRANGER, 255, 4_095, vip)];
    packets.extend(world.others.iter().map(|name| advert(world.address(name), 200, 4_095, vip)));
    if holder {
        packets.push(advert(world.address(world.holder), 200, 4_095, vip));
    }
    let (socket, group) = (world.raw()?, SocketAddr::from((GROUP_V4, 0)).into());
    let send = || packets.iter().try_for_each(|packet| socket.send_to(packet, &group).map(drop)).map_err(text);
    send()?;
    world.cluster.lab().cut(world.holder).map_err(text)?;
    let lost = Instant::now();
    let mut held = None;
    while held.is_none() && lost.elapsed() < LIMIT {
        send()?;
        held = world.holders()?.into_iter().find(|name| *name != world.holder);
        std::thread::sleep(PAUSE);
    }
    let Some(heir) = held else { return Err(format!("nobody holds the address after {:?}", lost.elapsed())) };
    let whose = if holder { "adverts in its own name" } else { "adverts in the others' names" };
    note(format!("attacks: a dead holder is replaced after {} ms of {whose}", lost.elapsed().as_millis()));
    world.told(heir, &["became-master", "nobody holds the address: adverts come from"])?;
    // It stays with one of them while that goes on, and clients are served.
    let begin = Instant::now();
    let settled = begin + Duration::from_secs(1);
    while begin.elapsed() < ATTACK {
        send()?;
        let mut holders = world.holders()?;
        holders.retain(|name| *name != world.holder);
        if holders.len() != 1 && Instant::now() > settled {
            return Err(format!("{:?} later the address is on {holders:?}", begin.elapsed()));
        }
        std::thread::sleep(PAUSE);
    }
    flows(&world.client, clock::now(), LIMIT)?;
    world.cluster.lab().heal(world.holder).map_err(text)?;
    world.cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    Ok(())
}

/// Where the host `name` takes the virtual address to be.
fn neighbour(world: &World, name: &str) -> Result<String, String> {
    let vip = world.cluster.layout().vip.to_string();
    let asked = world.cluster.lab().exec(name, || Command::new("ip").args(["neigh", "show", &vip]).output());
    asked.map_err(text)?.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).map_err(text)
}

fn claimed(sandbox: &Sandbox) -> Outcome {
    const WITNESS: &str = "redis-01";
    let world = World::new(sandbox, Layout::classic())?;
    let since = clock::now();
    let vip = SocketAddr::new(world.cluster.layout().vip, 6379);
    let look_up = || {
        let connected = world.cluster.lab().exec(WITNESS, || std::net::TcpStream::connect_timeout(&vip, STALL_MAX));
        connected.map_err(text)?.map(drop).map_err(text)
    };
    look_up()?;
    let before = neighbour(&world, WITNESS)?;
    let mac =
        before.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).ok_or_else(|| before.clone())?.to_owned();
    let IpAddr::V4(address) = vip.ip() else { return Err("IPv4".to_owned()) };
    let frame = arp::gratuitous(STRANGER_MAC, address);
    let (begin, mut longest) = (Instant::now(), Duration::ZERO);
    while begin.elapsed() < ATTACK {
        announce(&world, &frame)?;
        let sent = Instant::now();
        wait_for("the witness finds the holder again", CLAIMED_BACK, || {
            neighbour(&world, WITNESS).is_ok_and(|found| found.contains(&mac))
        })?;
        longest = longest.max(sent.elapsed());
        std::thread::sleep(Duration::from_millis(150));
    }
    note(format!("attacks: an address claimed by ARP is back after {} ms at most", longest.as_millis()));
    look_up()?;
    world.told(world.holder, &["address-claimed", "02:66:66:66:66:66", "192.168.0.1"])?;
    if world.holders()? != [world.holder] {
        return Err(format!("the address is on {:?}", world.holders()));
    }
    world.undisturbed(since)
}

/// Sends a frame from the stranger's interface.
fn announce(world: &World, frame: &[u8]) -> Outcome {
    let sent = world.cluster.lab().exec(CLIENT, || {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        let mut interfaces = nix::ifaddrs::getifaddrs()?.filter(|interface| interface.interface_name == "eth0");
        let place = interfaces.find_map(|interface| interface.address?.as_link_addr().copied());
        let place = place.ok_or_else(|| std::io::Error::other("no eth0"))?;
        sendto(socket.as_raw_fd(), frame, &place, MsgFlags::empty())?;
        Ok::<_, std::io::Error>(())
    });
    sent.map_err(text)?.map_err(text)
}
