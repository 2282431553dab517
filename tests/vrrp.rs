//! The virtual router against itself, keepalived and FRR, in network namespaces of its own.
//!
//! Needs root, `ip`, and for some cases `keepalived` or FRR; what is missing is said and skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod segment;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segment::{Daemon, Host, Ours, Segment, wait};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use vigie::base::node::VipState;
use vigie::runtime::journal::Journal;
use vigie::runtime::vip::{VipSpec, abandon, remove_leftovers, spawn};
use vigie::wire::vrrp::{Advert, ChecksumForm, GROUP_V4, Interval, PROTOCOL, emit};

const VIP: &str = "10.99.0.1";
/// The first two hosts of a segment are proxies of one file.
const FIRST_HOSTS: [&str; 2] = ["10.99.0.11", "10.99.0.12"];
const LONG: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v3(host: &Host, priority: u8) -> VipSpec {
    spec_of(host.address(), priority)
}

fn spec_of(own_address: IpAddr, priority: u8) -> VipSpec {
    VipSpec {
        addresses: vec![(ip(VIP), 24)],
        interface: "eth0".to_owned(),
        virtual_router_id: 51,
        interval: Interval::Centiseconds(10),
        preempt: true,
        priority,
        own_address,
        proxies: FIRST_HOSTS.map(ip).into_iter().filter(|address| *address != own_address).collect(),
        peers: vec![],
    }
}

#[test]
fn two_of_ours_elect_the_higher_and_stopping_it_moves_the_address_at_once() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, b) = (segment.host(), segment.host());
    let mut low = a.ours(v3(&a, 100));
    low.becomes(VipState::Master, LONG);
    wait("the address is set", LONG, || a.has(VIP));
    let mut high = b.ours(v3(&b, 150));
    high.becomes(VipState::Master, LONG);
    low.becomes(VipState::Backup, LONG);
    wait("the address has moved", LONG, || b.has(VIP) && !a.has(VIP));
    assert!(high.stop());
    assert!(!b.has(VIP), "taken off before the stop returns");
    low.becomes(VipState::Master, LONG);
    wait("the address is back", LONG, || a.has(VIP));
    assert!(low.records().iter().any(|record| record.text.contains("gave up being master")), "{:#?}", low.records());
    assert!(low.stop());
    assert!(!a.has(VIP));
}

/// With another router that is no proxy of the file.
fn beside(other: &Host, spec: VipSpec) -> VipSpec {
    VipSpec { proxies: vec![], peers: vec![other.address(), other.address_v6(), other.address_eui64()], ..spec }
}

/// Sees it through with keepalived in one version: silent death, return, farewell, and preemption in both directions.
fn trades_places_with_keepalived(version: &str, ours_of: impl Fn(&Host, u8) -> VipSpec, address: &str) {
    let Some(mut segment) = Segment::new() else { return };
    let (here, there) = (segment.host(), segment.host());
    let body = |priority: u8| {
        format!("state BACKUP\npriority {priority}\n{version}\nvirtual_ipaddress {{ {address} }}\ngarp_master_delay 1")
    };
    let address = address.split(['/', '\n']).next().unwrap();
    let Some(theirs) = Daemon::keepalived(&there, &body(150)) else { return };
    wait("keepalived is master", LONG, || there.has(address));

    let ours_of = |host: &Host, priority| beside(&there, ours_of(host, priority));
    let mut ours = here.ours(ours_of(&here, 100));
    ours.becomes(VipState::Backup, LONG);
    drop(theirs);
    ours.becomes(VipState::Master, LONG);
    wait("we hold the address of a dead keepalived", LONG, || here.has(address));
    there.ip(&format!("addr flush dev eth0 to {address}"));

    let Some(theirs) = Daemon::keepalived(&there, &body(150)) else { return };
    ours.becomes(VipState::Backup, LONG);
    wait("a higher keepalived took over", LONG, || there.has(address) && !here.has(address));
    theirs.terminate();
    ours.becomes(VipState::Master, LONG);
    wait("we hold the address of a keepalived that left", LONG, || here.has(address));
    let left = ours.records().iter().any(|record| record.text.contains("gave up being master"));
    assert!(left, "by its farewell and not by its silence: {:#?}", ours.records());

    let Some(theirs) = Daemon::keepalived(&there, &body(50)) else { return };
    assert!(ours.stop());
    wait("a lower keepalived took over from us", LONG, || there.has(address) && !here.has(address));
    let mut ours = here.ours(ours_of(&here, 100));
    ours.becomes(VipState::Master, LONG);
    wait("we took over from a lower keepalived", LONG, || here.has(address) && !there.has(address));
    assert!(!ours.records().iter().any(|record| record.name == "packet-refused"), "{:#?}", ours.records());
    theirs.terminate();
}

#[test]
fn trades_places_with_keepalived_version_2() {
    let ours = |host: &Host, priority| VipSpec { interval: Interval::Seconds(1), ..v3(host, priority) };
    trades_places_with_keepalived("version 2\nadvert_int 1", ours, &format!("{VIP}/24"));
}

#[test]
fn trades_places_with_keepalived_version_3() {
    trades_places_with_keepalived("version 3\nadvert_int 0.1", v3, &format!("{VIP}/24"));
}

#[test]
fn trades_places_with_keepalived_version_3_over_ipv6() {
    let addresses = vec![(ip("2001:db8:99::1"), 64), (ip("fe80::99:fe"), 64)];
    let ours = |host: &Host, priority| VipSpec {
        addresses: addresses.clone(),
        own_address: host.address_v6(),
        ..v3(host, priority)
    };
    trades_places_with_keepalived("version 3\nadvert_int 0.1", ours, "fe80::99:fe/64\n2001:db8:99::1/64");
}

/// The variable that makes [`router_of_another_process`] run one: the host's address and the priority.
const CHILD: &str = "VIGIE_TEST_ROUTER";

/// Not a test of its own: the process that others kill.
#[test]
#[ignore = "not a test: a process that tests of this file start"]
fn router_of_another_process() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (address, priority) = told.split_once(' ').unwrap();
    let spec = spec_of(ip(address), priority.parse().unwrap());
    let (_usable, usable) = watch::channel(Ok(()));
    let (post, _posted) = mpsc::channel(64);
    let _running = spawn(vec![spec], usable, None, post, Journal::new()).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// A router in a process of its own, which ends with its handle, without a word.
struct Process(Child);

impl Process {
    fn start(host: &Host, priority: u8) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command: Command = host.command(program.to_str().unwrap());
        command
            .args(["--exact", "router_of_another_process", "--ignored"])
            .env(CHILD, format!("{} {priority}", host.address()));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_address_of_a_killed_process_moves_and_the_kernel_takes_it_off() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, b) = (segment.host(), segment.host());
    let process = Process::start(&a, 150);
    wait("the process holds the address", LONG, || a.has(VIP));
    let mut ours = b.ours(v3(&b, 100));
    ours.becomes(VipState::Backup, LONG);
    drop(process);
    ours.becomes(VipState::Master, LONG);
    wait("the address has moved", LONG, || b.has(VIP));
    wait("nobody renews the dead one's address", LONG, || !a.has(VIP));
    assert!(ours.records().iter().any(|record| record.text.contains("no advert of a master")), "{:#?}", ours.records());
}

#[test]
fn a_guard_abandons_the_address_of_its_dead_worker_and_no_other() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, b) = (segment.host(), segment.host());
    let process = Process::start(&a, 150);
    wait("the process holds the address", LONG, || a.has(VIP));
    let mut ours = b.ours(v3(&b, 100));
    ours.becomes(VipState::Backup, LONG);
    assert!(!b.enter(|| abandon(&[v3(&b, 100)])).unwrap(), "a backup has nothing to abandon");
    assert_eq!(a.enter(|| remove_leftovers(&[])).unwrap(), 0);
    drop(process);
    assert!(a.enter(|| abandon(&[v3(&a, 150)])).unwrap());
    assert!(!a.has(VIP));
    ours.becomes(VipState::Master, LONG);
    let left = ours.records().iter().any(|record| record.text.contains("gave up being master"));
    assert!(left, "by the guard's word: {:#?}", ours.records());
}

#[test]
fn leftovers_are_removed_whatever_their_prefix() {
    let Some(mut segment) = Segment::new() else { return };
    let a = segment.host();
    a.ip(&format!("addr add {VIP}/32 dev eth0"));
    assert_eq!(a.enter(|| remove_leftovers(&[v3(&a, 100)])).unwrap(), 1);
    assert!(!a.has(VIP) && a.has(&a.address().to_string()));
    assert_eq!(a.enter(|| remove_leftovers(&[v3(&a, 100)])).unwrap(), 0);
    let missing = VipSpec { interface: "eth7".to_owned(), ..v3(&a, 100) };
    assert_eq!(a.enter(|| remove_leftovers(std::slice::from_ref(&missing))).unwrap(), 0);
    assert!(!a.enter(|| abandon(&[missing])).unwrap());
}

#[test]
fn a_node_that_cannot_serve_gives_way_without_preemption_too() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, b) = (segment.host(), segment.host());
    let patient = |host: &Host, priority| VipSpec { preempt: false, ..v3(host, priority) };
    let mut high = a.ours(patient(&a, 150));
    high.becomes(VipState::Master, LONG);
    let mut low = b.ours(patient(&b, 100));
    low.becomes(VipState::Backup, LONG);
    high.usable(Err("the listener has failed"));
    high.becomes(VipState::Initialize, LONG);
    low.becomes(VipState::Master, LONG);
    wait("the address has moved", LONG, || b.has(VIP) && !a.has(VIP));
    assert_eq!(high.fault(), None, "it is the proxy that has a fault to tell");
    high.usable(Ok(()));
    high.becomes(VipState::Backup, LONG);
    low.usable(Err("for a change"));
    high.becomes(VipState::Master, LONG);
}

#[test]
fn a_missing_interface_is_told_and_waited_for() {
    let Some(mut segment) = Segment::new() else { return };
    let a = segment.host();
    a.unplug();
    let mut ours = a.ours(v3(&a, 100));
    wait("the missing interface is told", LONG, || ours.fault().is_some());
    let fault = ours.fault().unwrap();
    assert!(fault.contains("no interface \"eth0\"") && fault.contains("lo"), "{fault}");
    a.plug_in();
    ours.becomes(VipState::Master, LONG);
    wait("the address is set", LONG, || a.has(VIP));
    wait("the fault is taken back", LONG, || ours.fault().is_none());
    a.ip("link set eth0 down");
    ours.becomes(VipState::Initialize, LONG);
    wait("the link is told", LONG, || ours.fault().is_some_and(|fault| fault.contains("down")));
    assert!(!a.has(VIP));
    a.ip("link set eth0 up");
    ours.becomes(VipState::Master, LONG);
    // A new interface of the same name.
    a.unplug();
    ours.becomes(VipState::Initialize, LONG);
    a.plug_in();
    ours.becomes(VipState::Master, LONG);
    wait("the address is set again", LONG, || a.has(VIP));
    // Somebody deletes the address by hand.
    a.ip(&format!("addr del {VIP}/24 dev eth0"));
    wait("the address is renewed", LONG, || a.has(VIP));
}

/// The Ethernet address that a client has in its cache for the virtual one.
fn cached(client: &Host) -> String {
    client.ip(&format!("neigh show {VIP}"))
}

/// Makes the client look the address up. That nothing listens there is an answer.
fn look_up(client: &Host) {
    let address = SocketAddr::new(ip(VIP), 9);
    client.enter(|| drop(TcpStream::connect_timeout(&address, Duration::from_millis(500))));
}

#[test]
fn a_healed_split_has_one_master_and_clients_follow_it() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, b, client) = (segment.host(), segment.host(), segment.host());
    let mut high = a.ours(v3(&a, 150));
    high.becomes(VipState::Master, LONG);
    let mut low = b.ours(v3(&b, 100));
    low.becomes(VipState::Backup, LONG);
    wait("the client knows the master", LONG, || {
        look_up(&client);
        cached(&client).contains(&a.mac())
    });
    a.cut(true);
    low.becomes(VipState::Master, LONG);
    wait("the client is told of the new master", LONG, || cached(&client).contains(&b.mac()));
    assert_eq!(high.state(), Some(VipState::Master), "it does not notice");
    a.cut(false);
    low.becomes(VipState::Backup, LONG);
    wait("the client is told of the old master", LONG, || cached(&client).contains(&a.mac()));
    wait("one holder", LONG, || a.has(VIP) && !b.has(VIP));
    assert_eq!(high.state(), Some(VipState::Master));
}

/// Sends messages as a router of no good repute would.
fn sender(client: &Host, ttl: u32) -> Socket {
    let IpAddr::V4(own) = client.address() else { panic!("IPv4") };
    client.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL)))).unwrap();
        socket.bind(&SocketAddr::new(own.into(), 0).into()).unwrap();
        socket.join_multicast_v4_n(&Ipv4Addr::new(224, 0, 0, 99), &InterfaceIndexOrAddress::Address(own)).unwrap();
        socket.set_multicast_if_v4(&own).unwrap();
        socket.set_multicast_ttl_v4(ttl).unwrap();
        socket
    })
}

fn refused(ours: &Ours, text: &str) -> bool {
    ours.records().iter().any(|record| record.name == "packet-refused" && record.text.contains(text))
}

#[test]
fn garbage_changes_nothing_and_is_told() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, client, stranger) = (segment.host(), segment.host(), segment.host());
    let mut ours = a.ours(beside(&client, v3(&a, 100)));
    ours.becomes(VipState::Master, LONG);
    let from = client.address();
    let to = SocketAddr::new(GROUP_V4.into(), 0).into();
    let advert = |vrid, interval| Advert::new(vrid, 255, interval, vec![ip(VIP)]).unwrap();
    let message = |advert: &Advert| emit(advert, from, GROUP_V4.into(), ChecksumForm::PseudoHeader);
    let good = message(&advert(51, Interval::Centiseconds(10)));
    let mut damaged = good.clone();
    damaged[2] ^= 1;
    let near = sender(&client, 255);
    let cases: [(&str, &Socket, Vec<u8>); 5] = [
        ("wrong checksum", &near, damaged),
        ("TTL is 1", &sender(&client, 1), good.clone()),
        ("a message of 5 bytes", &near, good[..5].to_vec()),
        ("version 2", &near, message(&advert(51, Interval::Seconds(1)))),
        ("version 15", &near, vec![0xff; 40]),
    ];
    for (told, socket, bytes) in &cases {
        wait(told, LONG, || {
            socket.send_to(bytes, &to).unwrap();
            refused(&ours, told)
        });
    }
    for _ in 0..200 {
        near.send_to(&message(&advert(52, Interval::Centiseconds(10))), &to).unwrap();
    }
    let good_of_stranger =
        emit(&advert(51, Interval::Centiseconds(10)), stranger.address(), GROUP_V4.into(), ChecksumForm::PseudoHeader);
    let far = sender(&stranger, 255);
    wait("a stranger is told", LONG, || {
        far.send_to(&good_of_stranger, &to).unwrap();
        refused(&ours, "advert from 10.99.0.13 refused: not a proxy of the cluster file nor in vip.peers")
    });
    assert_eq!(ours.state(), Some(VipState::Master));
    assert!(!ours.records().iter().any(|record| record.name == "became-backup" && record.text.contains("master with")));
    // The same from the same place, but good: what came before was seen and did not count.
    near.send_to(&good, &to).unwrap();
    wait("a good advert counts", LONG, || {
        ours.records().iter().any(|record| record.text.contains("is master with priority 255"))
    });
}

#[test]
fn trades_places_with_frr() {
    let Some(mut segment) = Segment::new() else { return };
    let (here, there) = (segment.host(), segment.host());
    let mut ours = here.ours(beside(&there, v3(&here, 100)));
    ours.becomes(VipState::Master, LONG);
    let Some([theirs, zebra]) = Daemon::frr(&there, VIP) else { return };
    ours.becomes(VipState::Backup, LONG);
    wait("a higher FRR took over", LONG, || !here.has(VIP));
    drop(theirs);
    ours.becomes(VipState::Master, LONG);
    wait("we hold the address of a dead FRR", LONG, || here.has(VIP));
    drop(zebra);
    let Some([theirs, _zebra]) = Daemon::frr(&there, VIP) else { return };
    ours.becomes(VipState::Backup, LONG);
    theirs.terminate();
    ours.becomes(VipState::Master, LONG);
    assert!(!ours.records().iter().any(|record| record.name == "packet-refused"), "{:#?}", ours.records());
}

#[test]
fn a_starved_backup_reads_its_socket_before_it_believes_the_master_dead() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, b) = (segment.host(), segment.host());
    let process = Process::start(&a, 100);
    wait("the process holds the address", LONG, || a.has(VIP));
    let mut ours = b.ours(v3(&b, 150));
    ours.becomes(VipState::Master, LONG);
    wait("the process has given way", LONG, || !a.has(VIP));
    let conflicts = |ours: &Ours| ours.records().iter().filter(|record| record.name == "second-master").count();
    let before = conflicts(&ours);
    for _ in 0..5 {
        process.signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(700));
        process.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(conflicts(&ours), before, "{:#?}", ours.records());
    assert!(ours.stop());
    wait("it was alive and listening all the same", LONG, || a.has(VIP));
}
