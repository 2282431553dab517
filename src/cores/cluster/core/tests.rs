use std::net::IpAddr;

use super::*;
use crate::base::Secret;
use crate::base::lease::{Tenure, Writes};
use crate::base::node::{
    self, Decision, MasterFacts, ProxyFacts, RedisFacts, Roles, SentinelFacts, VipFacts, VipState,
};
use crate::base::{Epoch, RunId};
use crate::cores::cluster::Peer;

/// Nodes of one cluster on a network that delivers at once, unless told otherwise.
struct Net {
    now: Instant,
    nodes: Vec<Option<Cluster>>,
    boots: u64,
    /// Directed pairs that lose everything.
    cut: Vec<(usize, usize)>,
    /// Everything ever sent: from, to, bytes.
    sent: Vec<(usize, usize, Vec<u8>)>,
    events: Vec<(usize, Event)>,
    /// Who has shown to whom that it hears what was sent at that time: hearer, asker, when.
    reached: Vec<(usize, usize, Instant)>,
    /// Nodes with the build before, which reads and says version 2 alone.
    before: Vec<usize>,
    /// Frames of a version that their receiver does not read.
    unread: Vec<(usize, usize)>,
    /// What the sentinels promise at a time.
    lease: Option<Duration>,
    /// The lease of each node, as it was told last.
    leases: Vec<Option<Held>>,
}

fn address(place: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(place).unwrap() + 1])
}

fn config(me: usize, count: usize, boot: u64, password: &str) -> Config {
    let peers = (0..count).map(|place| Peer {
        name: format!("node-{place}").parse().unwrap(),
        address: address(place),
        roles: Roles { sentinel: true, ..Roles::default() },
    });
    Config {
        cluster: "mymaster".to_owned(),
        keys: Keys::new(&Secret::new(password).into()),
        me,
        roles: Roles { sentinel: true, ..Roles::default() },
        peers: peers.collect(),
        port: 26_380,
        lease: None,
        promised: Duration::ZERO,
        fencing: false,
        boot,
        seed: boot,
    }
}

/// A frame for a node as the build before says and reads it: in version 2, with nothing behind it. None if it is in another one.
fn as_before(bytes: &[u8], to: usize) -> Option<Vec<u8>> {
    let (keys, to) = (config(to, to + 1, 0, "secret").keys, format!("node-{to}").parse().unwrap());
    let frame = frame::parse(bytes, &keys, &to).unwrap();
    let said = frame::emit(&Frame { reads: 2, ..frame }, 2, &keys, &to).unwrap();
    (bytes[0] == 2).then(|| said.to_vec())
}

impl Net {
    fn new(count: usize) -> Self {
        Self::fenced(count, None)
    }

    fn fenced(count: usize, lease: Option<Duration>) -> Self {
        let mut net = Self {
            now: Instant::from_millis(1_000),
            nodes: (0..count).map(|_| None).collect(),
            boots: 0,
            cut: vec![],
            sent: vec![],
            events: vec![],
            reached: vec![],
            before: vec![],
            unread: vec![],
            lease,
            leases: vec![None; count],
        };
        (0..count).for_each(|place| net.start(place));
        net
    }

    fn start(&mut self, place: usize) {
        self.boots += 1;
        let lease = self.lease;
        let config = Config { lease, ..config(place, self.nodes.len(), self.boots, "secret") };
        self.nodes[place] = Some(Cluster::new(config, "0.1.0", self.now));
    }

    fn feed(&mut self, place: usize, input: Input) {
        let mut waiting = vec![(place, input)];
        while let Some((place, input)) = waiting.pop() {
            let Some(node) = &mut self.nodes[place] else { continue };
            let mut out = vec![];
            node.handle(self.now, input, &mut out);
            for output in out {
                match output {
                    Output::Send { to, bytes } => {
                        let target = (0..self.nodes.len()).find(|target| address(*target) == to.ip()).unwrap();
                        let mut bytes = bytes.to_vec();
                        if self.before.contains(&place) {
                            bytes = as_before(&bytes, target).expect("it says what it reads itself");
                        }
                        self.sent.push((place, target, bytes.clone()));
                        if self.before.contains(&target) {
                            let Some(read) = as_before(&bytes, target) else {
                                self.unread.push((place, target));
                                continue;
                            };
                            bytes = read;
                        }
                        if !self.cut.contains(&(place, target)) {
                            let from = SocketAddr::new(address(place), 26_380);
                            waiting.insert(0, (target, Input::Datagram { from, at: self.now, bytes: bytes.into() }));
                        }
                    }
                    Output::View(_) => {}
                    Output::Lease(held) => self.leases[place] = held,
                    Output::Reached { node, sent } => self.reached.push((node, place, sent)),
                    Output::Publish(event) => self.events.push((place, event)),
                }
            }
        }
    }

    fn run(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        loop {
            let due = |node: &Option<Cluster>| node.as_ref().and_then(Machine::deadline);
            let next = (0..self.nodes.len()).filter_map(|place| Some((due(&self.nodes[place])?, place))).min();
            match next {
                Some((at, place)) if at <= until => {
                    self.now = self.now.max(at);
                    self.feed(place, Input::Tick);
                    assert!(due(&self.nodes[place]) > Some(self.now), "a tick moves the deadline");
                }
                Some(_) | None => break,
            }
        }
        self.now = until;
    }

    /// The versions of what went from one node to another since so many frames had been sent.
    fn versions(&self, since: usize, from: usize, to: usize) -> Vec<u8> {
        let frames = self.sent[since..].iter().filter(|(sender, target, _)| (*sender, *target) == (from, to));
        frames.map(|(.., bytes)| bytes[0]).collect()
    }

    /// Asserts that everybody hears everybody, each in the version that fits, and that nobody complains.
    fn assert_hears(&self, since: usize) {
        for (from, to) in (0..self.nodes.len()).flat_map(|from| (0..self.nodes.len()).map(move |to| (from, to))) {
            assert!(self.sees(to, from).fresh && self.sees(to, from).fault.is_empty(), "{to} hears {from}");
            if from != to {
                let old = self.before.contains(&from) || self.before.contains(&to);
                let versions = self.versions(since, from, to);
                assert!(versions.len() > 1, "{from} is silent");
                assert!(
                    versions.iter().all(|version| *version == if old { 2 } else { NEWEST }),
                    "{from} to {to}: {versions:?}"
                );
            }
        }
        let refused: Vec<_> = self.events.iter().filter(|(_, event)| event.name() == "frame-refused").collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    fn sees(&self, place: usize, other: usize) -> &NodeView {
        &self.nodes[place].as_ref().unwrap().view().nodes[other]
    }
}

fn proxy(clients: u32) -> Part {
    Part::Proxy(ProxyFacts { listening: true, route: None, clients, held: None })
}

#[test]
fn everybody_hears_everybody_within_one_interval() {
    let mut net = Net::new(5);
    net.run(110);
    for place in 0..5 {
        for other in 0..5 {
            assert!(net.sees(place, other).fresh, "{place} hears {other}");
        }
    }
}

#[test]
fn a_change_is_known_everywhere_at_once() {
    let mut net = Net::new(3);
    net.run(250);
    net.feed(0, Input::Part(proxy(7)));
    for place in 0..3 {
        assert_eq!(net.sees(place, 0).state.as_ref().unwrap().proxy.map(|proxy| proxy.clients), Some(7));
    }
    let sent = net.sent.len();
    net.feed(0, Input::Part(proxy(7)));
    assert_eq!(net.sent.len(), sent, "the same again is no change");
}

#[test]
fn a_node_shows_at_once_that_it_is_reached() {
    let mut net = Net::new(3);
    net.run(250);
    for _ in 0..2 {
        net.now = net.now + Duration::from_millis(3);
        net.reached.clear();
        net.feed(0, Input::Prove(1));
        assert_eq!(net.reached.iter().filter(|shown| **shown == (1, 0, net.now)).count(), 1, "{:?}", net.reached);
    }
    // Nonsense asks for nothing.
    let sent = net.sent.len();
    net.feed(0, Input::Prove(0));
    net.feed(0, Input::Prove(3));
    assert_eq!(net.sent.len(), sent);
}

#[test]
fn what_is_heard_of_a_node_does_not_show_that_it_is_reached() {
    let mut net = Net::new(3);
    net.run(250);
    // Somebody else has its address: what is sent there goes to him.
    net.cut = vec![(0, 1)];
    let since = net.now;
    net.reached.clear();
    net.feed(0, Input::Prove(1));
    net.run(1_000);
    assert!(net.sees(0, 1).fresh, "it is still heard");
    assert!(net.reached.iter().any(|(node, asker, _)| (*node, *asker) == (1, 0)));
    assert!(net.reached.iter().all(|(node, asker, sent)| (*node, *asker) != (1, 0) || *sent < since));
    // Recorded frames show nothing either.
    net.nodes[1] = None;
    net.reached.clear();
    net.feed(0, Input::Prove(1));
    for (_, _, bytes) in net.sent.clone().into_iter().filter(|(from, to, _)| (*from, *to) == (1, 0)) {
        net.feed(0, Input::Datagram { from: SocketAddr::new(address(1), 26_380), at: net.now, bytes: bytes.into() });
    }
    assert_eq!(net.reached, []);
}

#[test]
fn silence_makes_stale_and_frames_make_fresh_again() {
    let mut net = Net::new(3);
    net.run(250);
    net.cut = vec![(0, 1), (0, 2)];
    net.run(700);
    assert!(!net.sees(1, 0).fresh && net.sees(1, 0).state.is_some());
    assert!(net.sees(0, 1).fresh, "the other direction works");
    assert!(net.events.contains(&(1, Event::PeerDown("node-0".parse().unwrap()))));
    net.cut.clear();
    net.run(110);
    assert!(net.sees(1, 0).fresh);
}

#[test]
fn frames_that_do_not_come_are_missed_soon() {
    // One that asks for its lease speaks more often.
    for (mut net, every) in [(Net::new(3), 100), (Net::with_master(1), 75)] {
        for _ in 0..100 {
            net.run(10);
            assert_eq!(net.sees(0, 1).overdue_since, None);
        }
        net.cut = vec![(1, 0)];
        let last = net.sees(0, 1).heard_at.unwrap();
        let seen = |net: &Net| (net.sees(0, 1).overdue_since, net.sees(0, 1).fresh);
        let until = |net: &mut Net, ms| {
            net.run(Duration::from_millis(ms).saturating_sub(net.now.since(last)).as_millis() as u64)
        };
        until(&mut net, 199);
        assert_eq!(seen(&net), (None, true));
        until(&mut net, 201);
        let due = last + Duration::from_millis(every);
        assert_eq!(seen(&net), (Some(due), true));
        until(&mut net, 501);
        assert_eq!(seen(&net), (Some(due), false));
        net.cut.clear();
        net.run(110);
        assert_eq!(seen(&net), (None, true));
    }
}

#[test]
fn a_frame_that_lay_unread_does_not_make_its_sender_look_alive() {
    let from = SocketAddr::new(address(0), 26_380);
    let last = |net: &Net| net.sent.iter().rev().find(|(from, to, _)| (*from, *to) == (0, 1)).unwrap().2.clone();
    let downs =
        |net: &Net| net.events.iter().filter(|(place, event)| (*place, event.name()) == (1, "peer-down")).count();
    let mut net = Net::new(2);
    net.run(300);
    // Node 0 says one more thing, and dies; node 1 is starved and reads that 600 ms later, before it believes any deadline.
    net.cut = vec![(0, 1)];
    net.feed(0, Input::Part(proxy(7)));
    let (bytes, came) = (last(&net), net.now);
    net.nodes[0] = None;
    net.now = net.now + Duration::from_millis(600);
    net.feed(1, Input::Datagram { from, at: came, bytes: bytes.into() });
    assert_eq!(net.sees(1, 0).heard_at, Some(came));
    net.feed(1, Input::Tick);
    assert!(!net.sees(1, 0).fresh, "it has been silent for 600 ms");
    assert_eq!(downs(&net), 1);

    // Nor is a lost one heard again by it: only what it was is known.
    let mut net = Net::new(2);
    net.run(300);
    net.cut = vec![(0, 1)];
    net.run(700);
    net.feed(0, Input::Part(proxy(7)));
    let (bytes, came) = (last(&net), net.now);
    net.nodes[0] = None;
    net.events.clear();
    net.now = net.now + Duration::from_millis(500);
    net.feed(1, Input::Datagram { from, at: came, bytes: bytes.into() });
    let seen = net.sees(1, 0);
    assert_eq!((seen.fresh, seen.heard_at, seen.fault.as_str()), (false, Some(came), SILENT));
    assert_eq!(seen.state.as_ref().unwrap().proxy.map(|proxy| proxy.clients), Some(7));
    assert_eq!(net.events, []);
}

#[test]
fn a_frame_that_does_not_fit_is_complained_about_once_in_a_while() {
    let mut net = Net::new(3);
    let mut node = net.nodes[0].take().unwrap();
    let mut said = |place, now| {
        let mut out = vec![];
        node.unsent(place, now, &mut out);
        out
    };
    let [complaint] = &said(1, net.now)[..] else { panic!("nobody is told") };
    let Output::Publish(event) = complaint else { panic!("{complaint:?}") };
    assert!(
        event.to_string().starts_with("node-1 does not hear this node")
            && event.to_string().contains(&format!("{FRAME_MAX} bytes"))
    );
    assert!(said(2, net.now).is_empty());
    assert!(said(1, net.now + COMPLAINT_INTERVAL - Duration::from_millis(1)).is_empty());
    assert_eq!(said(1, net.now + COMPLAINT_INTERVAL).len(), 1);
}

#[test]
fn when_a_node_was_heard_never_goes_back() {
    let mut net = Net::new(2);
    net.run(300);
    let heard_at = net.sees(1, 0).heard_at.unwrap();
    net.cut = vec![(0, 1)];
    net.feed(0, Input::Part(proxy(7)));
    let bytes = net.sent.iter().rev().find(|(from, ..)| *from == 0).unwrap().2.clone();
    // By a wall clock that was set, the kernel has dated it before the one that came before it.
    let (from, at) = (SocketAddr::new(address(0), 26_380), heard_at - Duration::from_millis(50));
    net.feed(1, Input::Datagram { from, at, bytes: bytes.into() });
    assert_eq!(net.sees(1, 0).heard_at, Some(heard_at));
    assert_eq!(net.sees(1, 0).state.as_ref().unwrap().proxy.map(|proxy| proxy.clients), Some(7));
}

#[test]
fn a_restarted_peer_is_believed_at_once_and_its_old_frames_never_again() {
    let mut net = Net::new(2);
    net.run(500);
    net.feed(0, Input::Part(proxy(1)));
    let recorded: Vec<_> = net.sent.iter().filter(|(from, ..)| *from == 0).map(|(.., bytes)| bytes.clone()).collect();
    net.start(0);
    net.run(20);
    assert!(net.sees(1, 0).fresh);
    assert_eq!(net.sees(1, 0).state.as_ref().unwrap().proxy, None, "the new start has no proxy yet");
    assert!(net.events.contains(&(1, Event::PeerRestarted("node-0".parse().unwrap()))));
    for bytes in recorded {
        let from = SocketAddr::new(address(0), 26_380);
        net.feed(1, Input::Datagram { from, at: net.now, bytes: bytes.into() });
        assert_eq!(net.sees(1, 0).state.as_ref().unwrap().proxy, None, "a recorded frame was believed");
    }
    net.run(1_000);
    assert!(net.sees(1, 0).fresh && net.sees(0, 1).fresh, "and the link still works");
}

#[test]
fn replayed_and_reordered_frames_of_the_same_start_are_ignored() {
    let mut net = Net::new(2);
    net.run(300);
    net.feed(0, Input::Part(proxy(1)));
    let old = net.sent.iter().rev().find(|(from, ..)| *from == 0).unwrap().2.clone();
    net.feed(0, Input::Part(proxy(2)));
    let from = SocketAddr::new(address(0), 26_380);
    net.feed(1, Input::Datagram { from, at: net.now, bytes: old.into() });
    assert_eq!(net.sees(1, 0).state.as_ref().unwrap().proxy.map(|proxy| proxy.clients), Some(2));
}

#[test]
fn another_secret_is_named_as_such() {
    let mut net = Net::new(2);
    net.nodes[0] = Some(Cluster::new(config(0, 2, 99, "wrong"), "0.1.0", net.now));
    net.run(300);
    assert!(!net.sees(1, 0).fresh);
    assert!(net.sees(1, 0).fault.contains("another secret"), "{}", net.sees(1, 0).fault);
    let complaints = net.events.iter().filter(|(place, event)| *place == 1 && event.name() == "frame-refused");
    assert_eq!(complaints.count(), 1, "said once, not with each frame");
    let own = |net: &Net, place: usize| net.sees(place, place).fault.clone();
    assert!(own(&net, 0).starts_with("the secret of this node is not that of node-1"), "{}", own(&net, 0));
    // Of three, the one that hears nobody is the one at fault.
    let mut net = Net::new(3);
    net.nodes[0] = Some(Cluster::new(config(0, 3, 99, "wrong"), "0.1.0", net.now));
    net.run(300);
    assert!(own(&net, 0).contains("node-1, node-2"), "{}", own(&net, 0));
    assert_eq!((own(&net, 1), own(&net, 2)), (String::new(), String::new()));
    net.feed(0, Input::Keys(Keys::new(&Secret::new("secret").into())));
    net.run(300);
    assert_eq!(own(&net, 0), "");
}

#[test]
fn a_secret_is_changed_without_a_frame_lost() {
    let keys = |current: &str, other: Option<&str>| {
        Input::Keys(Keys::new(&crate::base::Secrets::new(Secret::new(current), other.map(Secret::new))))
    };
    let mut net = Net::new(3);
    net.run(300);
    for (current, other) in [("secret", Some("new")), ("new", Some("secret")), ("new", None)] {
        for place in 0..3 {
            net.feed(place, keys(current, other));
            net.run(700);
            for (other, node) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
                assert!(net.sees(other, node).fresh, "{other} hears {node}");
            }
        }
    }
    assert!(
        !net.events.iter().any(|(_, event)| matches!(event.name(), "peer-down" | "frame-refused")),
        "{:?}",
        net.events
    );
}

#[test]
fn what_was_sent_to_one_node_convinces_no_other_and_nobody_by_coming_back() {
    let mut net = Net::new(3);
    net.run(300);
    let frame = net.sent.iter().rev().find(|(from, to, _)| (*from, *to) == (0, 1)).unwrap().2.clone();
    for (receiver, source) in [(2, 0), (0, 1)] {
        let from = SocketAddr::new(address(source), 26_380);
        net.feed(receiver, Input::Datagram { from, at: net.now, bytes: frame.clone().into() });
        let refused = |(place, event): &(usize, Event)| *place == receiver && event.name() == "frame-refused";
        assert!(net.events.iter().any(refused), "{receiver}");
    }
}

#[test]
fn frames_that_are_held_back_are_refused_once_they_are_old() {
    let mut net = Net::new(2);
    net.run(300);
    net.cut = vec![(0, 1)];
    net.feed(0, Input::Part(proxy(7)));
    let held = net.sent.iter().rev().find(|(from, ..)| *from == 0).unwrap().2.clone();
    net.run(3_000);
    let from = SocketAddr::new(address(0), 26_380);
    net.feed(1, Input::Datagram { from, at: net.now, bytes: held.into() });
    assert!(!net.sees(1, 0).fresh);
    assert!(net.sees(1, 0).fault.contains("held back"), "{}", net.sees(1, 0).fault);
    net.cut.clear();
    net.run(300);
    assert!(net.sees(1, 0).fresh && net.sees(0, 1).fresh);
}

#[test]
fn names_must_fit_their_addresses() {
    let mut net = Net::new(3);
    net.run(300);
    let frame = net.sent.iter().rev().find(|(from, to, _)| (*from, *to) == (0, 1)).unwrap().2.clone();
    net.nodes[1] = Some(Cluster::new(config(1, 3, 77, "secret"), "0.1.0", net.now));
    for from in [address(2), address(1), IpAddr::from([10, 9, 9, 9])] {
        net.feed(1, Input::Datagram { from: SocketAddr::new(from, 26_380), at: net.now, bytes: frame.clone().into() });
    }
    assert!(!net.sees(1, 0).fresh && !net.sees(1, 2).fresh);
    assert!(net.sees(1, 2).fault.contains("node-2's"), "{}", net.sees(1, 2).fault);
    assert!(net.sees(1, 1).fault.is_empty(), "strangers cannot spoil the node's own state");
}

#[test]
fn faults_of_several_parts_are_joined_and_mended_apart() {
    let mut net = Net::new(2);
    net.run(300);
    let fault = |source, reason: Option<&str>| Input::Part(Part::Fault { source, reason: reason.map(str::to_owned) });
    net.feed(0, fault("redis", Some("no server")));
    net.feed(0, fault("vrrp", Some("no interface")));
    assert_eq!(net.sees(1, 0).fault, "no server; no interface");
    net.feed(0, fault("redis", None));
    assert_eq!(net.sees(1, 0).fault, "no interface");
    net.feed(0, fault("vrrp", None));
    assert_eq!(net.sees(1, 0).fault, "");
}

#[test]
fn virtual_routers_are_told_apart() {
    let mut net = Net::new(2);
    let vip = |virtual_router_id, state| Part::Vip(VipFacts { virtual_router_id, state, priority: 100 });
    net.feed(0, Input::Part(vip(51, VipState::Backup)));
    net.feed(0, Input::Part(vip(52, VipState::Backup)));
    net.feed(0, Input::Part(vip(51, VipState::Master)));
    let states: Vec<_> =
        net.sees(0, 0).state.as_ref().unwrap().vips.iter().map(|vip| (vip.virtual_router_id, vip.state)).collect();
    assert_eq!(states, [(51, VipState::Master), (52, VipState::Backup)]);
}

#[test]
fn garbage_moves_nothing_and_makes_no_storm() {
    let mut net = Net::new(2);
    net.run(300);
    let mut rng = Rng::new(1);
    let sent = net.sent.len();
    for _ in 0..1_000 {
        let bytes: Vec<u8> = (0..rng.next_u32() % 1_400).map(|_| rng.next_u32().to_le_bytes()[0]).collect();
        net.feed(1, Input::Datagram { from: SocketAddr::new(address(0), 9), at: net.now, bytes: bytes.into() });
    }
    assert!(net.sees(1, 0).fresh && net.sees(1, 0).fault.is_empty());
    assert_eq!(net.sent.len(), sent, "garbage is not answered");
}

#[test]
fn two_of_this_build_begin_with_the_version_before_and_go_on_with_their_own() {
    let mut net = Net::new(2);
    net.feed(0, Input::Tick);
    assert_eq!(net.versions(0, 0, 1)[0], 2, "it has not been heard");
    net.run(300);
    let since = net.sent.len();
    net.run(300);
    net.assert_hears(since);
}

#[test]
fn a_cluster_is_updated_node_by_node_and_back_again() {
    let mut net = Net::new(3);
    net.before = vec![0, 1, 2];
    (0..3).for_each(|place| net.start(place));
    net.run(300);
    net.assert_hears(0);
    for (place, old) in [(0, false), (1, false), (2, false), (1, true), (2, true), (0, true)] {
        net.nodes[place] = None;
        net.run(700);
        net.before.retain(|other| *other != place);
        net.before.extend(old.then_some(place));
        net.start(place);
        let began = net.sent.len();
        net.run(300);
        let since = net.sent.len();
        net.run(300);
        net.assert_hears(since);
        assert_eq!(net.versions(began, place, (place + 1) % 3)[0], 2);
        // The other side of the exchange, too, has heard nothing yet of what is there now.
        assert_eq!(net.unread, []);
    }
}

#[test]
fn an_older_build_that_takes_the_place_of_a_newer_one_at_once_is_heard() {
    let mut net = Net::new(3);
    net.run(500);
    // The others have not missed it, and still speak to it in what it does not read.
    net.before.push(0);
    net.start(0);
    net.run(120);
    assert!(net.sees(0, 1).fresh && net.sees(1, 0).fresh && net.sees(2, 0).fresh);
    assert!(net.unread.len() <= 2, "{:?}", net.unread);
    net.unread.clear();
    let since = net.sent.len();
    net.run(1_000);
    net.assert_hears(since);
    assert_eq!(net.unread, []);
}

#[test]
fn nothing_recorded_or_forged_changes_the_version_that_is_spoken() {
    let mut net = Net::new(2);
    net.run(300);
    let from = SocketAddr::new(address(0), 26_380);
    let of_first = |net: &Net, version: u8| -> Vec<Vec<u8>> {
        let frames = net.sent.iter().filter(|(from, to, bytes)| (*from, *to, bytes[0]) == (0, 1, version));
        frames.map(|(.., bytes)| bytes.clone()).collect()
    };
    let play = |net: &mut Net, frames: &[Vec<u8>]| {
        for bytes in frames {
            net.feed(1, Input::Datagram { from, at: net.now, bytes: bytes.as_slice().into() });
            net.run(30);
        }
    };
    let (second, newest) = (of_first(&net, 2), of_first(&net, NEWEST));
    assert!(!second.is_empty() && !newest.is_empty());
    // Of the same start: its sequence is past.
    let since = net.sent.len();
    play(&mut net, &second);
    assert!(net.versions(since, 1, 0).iter().all(|version| *version == NEWEST), "a recorded frame was believed");
    // Of the one before, and with another version written on it.
    let forged: Vec<_> = newest.iter().map(|bytes| [&[2][..], &bytes[1..]].concat()).collect();
    net.start(0);
    net.run(300);
    for frames in [&second, &newest, &forged] {
        play(&mut net, frames);
        net.run(110);
        let since = net.sent.len();
        net.run(1_000);
        assert!(net.versions(since, 1, 0).iter().all(|version| *version == NEWEST), "what is not believed counts");
        assert!(net.sees(1, 0).fresh && net.sees(0, 1).fresh);
    }
    // An older build is there now: what was recorded of the newer one does not make it deaf.
    net.before.push(0);
    net.start(0);
    net.run(120);
    for frames in [&newest, &forged] {
        net.unread.clear();
        play(&mut net, frames);
        assert_eq!(net.unread, [], "not even a challenge");
        assert!(net.sees(1, 0).fresh && net.sees(0, 1).fresh);
    }
}

const LEASE: Duration = Duration::from_millis(250);

/// The redis of a node, in that incarnation.
fn redis(place: usize, incarnation: u64, process: node::Process) -> Part {
    let address = SocketAddr::new(address(place), 6379);
    Part::Redis(RedisFacts { process, has_data: true, ..RedisFacts::new(address, incarnation) })
}

/// What a sentinel says: its last vote, the decision that it knows, and whom it wants in the epoch in which it leads.
fn sentinel(vote: Epoch, decision: Option<(usize, Epoch)>, leads: Option<(Epoch, u64)>) -> Part {
    let decided = |(place, epoch)| Decision { master: SocketAddr::new(address(place), 6379), epoch };
    let master = MasterFacts {
        name: clipped("mymaster"),
        decision: decision.map(decided),
        vote: Some((RunId([1; 20]), vote)),
        leads: leads.map(|(epoch, _)| epoch),
        target: leads.map(|(_, target)| target),
        ..MasterFacts::default()
    };
    Part::Sentinel(SentinelFacts { id: RunId([1; 20]), current_epoch: vote, masters: [master].into_iter().collect() })
}

impl Net {
    /// Three nodes, of which each has a redis and a sentinel that has voted in epoch 1, and none knows a master.
    fn with_redis() -> Self {
        let mut net = Self::fenced(3, Some(LEASE));
        for place in 0..3 {
            net.post(place, redis(place, 100 + u64::try_from(place).unwrap(), node::Process::Alive));
            net.post(place, sentinel(1, None, None));
        }
        // Longer than what they may have promised before they were started.
        net.run(500);
        net
    }

    /// The same with node 1 as the master of epoch 1, which takes writes. Every sentinel knows that, and has voted in epoch `vote`.
    fn with_master(vote: Epoch) -> Self {
        let mut net = Self::with_redis();
        net.post(0, sentinel(1, None, Some((1, 101))));
        net.post(1, Part::Writes(Writes::Taken));
        (0..3).for_each(|place| net.post(place, sentinel(vote, Some((1, 1)), None)));
        net
    }

    fn post(&mut self, place: usize, part: Part) {
        self.feed(place, Input::Part(part));
    }

    /// The lease of a node, if it has not ended.
    fn holds(&self, place: usize) -> Option<Epoch> {
        self.leases[place].filter(|held| self.now < held.lease.ends_at()).map(|held| held.epoch)
    }

    fn tenure(&self, place: usize, other: usize) -> Tenure {
        self.sees(place, other).state.as_ref().unwrap().tenure
    }
}

#[test]
fn whom_a_leader_names_gets_the_lease_at_once_and_keeps_it() {
    let mut net = Net::with_redis();
    assert_eq!(net.leases, [None; 3]);
    let since = net.sent.len();
    net.post(0, sentinel(1, None, Some((1, 101))));
    assert_eq!(net.holds(1), Some(1), "nobody waits for a frame that is due");
    assert!(net.sent.len() - since <= 12, "{} frames", net.sent.len() - since);
    net.post(1, Part::Writes(Writes::Taken));
    assert!(
        matches!(net.tenure(2, 1), Tenure::Asks { epoch: 1, open: Some(1), grants: 0b111, .. }),
        "{:?}",
        net.tenure(2, 1)
    );
    // The leader is content, and everybody has stored who is master.
    (0..3).for_each(|place| net.post(place, sentinel(1, Some((1, 1)), None)));
    for _ in 0..100 {
        net.run(37);
        assert_eq!(net.holds(1), Some(1));
        assert!(net.now < net.leases[1].unwrap().lease.fence_at());
    }
    assert_eq!((net.holds(0), net.holds(2)), (None, None));
    let Tenure::Asks { slack, .. } = net.tenure(0, 1) else { panic!("{:?}", net.tenure(0, 1)) };
    assert!((60..=100).contains(&slack.as_millis()), "{slack:?}");
    for place in 0..3 {
        let left = net.sees(place, 1).lease_left.as_millis();
        assert!((60..=225).contains(&left), "{place} shows {left} ms");
    }
    assert_eq!(net.sees(0, 2).lease_left, Duration::ZERO);
    // By the other sentinels alone.
    net.cut = vec![(1, 2), (2, 1)];
    net.run(1_000);
    assert_eq!(net.holds(1), Some(1));
    net.cut = vec![(1, 2), (1, 0)];
    let ends_at = net.leases[1].unwrap().lease.ends_at();
    net.run(300);
    assert_eq!((net.holds(1), net.leases[1].unwrap().lease.ends_at()), (None, ends_at), "heard by itself alone");
    let told = net.tenure(1, 1);
    assert!(matches!(told, Tenure::Asks { epoch: 1, open: None, grants: 0b010, .. }), "it has its own: {told:?}");
    net.cut.clear();
    net.run(100);
    assert_eq!(net.holds(1), Some(1), "nobody else was granted anything");
}

#[test]
fn who_goes_on_without_the_lease_that_it_has_lost_is_not_granted_it_again() {
    for lost in [false, true] {
        let mut net = Net::with_master(1);
        if lost {
            net.cut = (0..3).flat_map(|other| [(1, other), (other, 1)]).collect();
            net.run(400);
            assert_eq!(net.holds(1), None);
            net.post(1, Part::Writes(Writes::Refused));
        }
        net.post(1, Part::Writes(Writes::Unleased));
        net.cut.clear();
        net.run(300);
        // The others know of no other master, and would renew what they know.
        assert_eq!((net.tenure(0, 1), net.holds(1)), (Tenure::None, None), "lost {lost}");
        (1..3).for_each(|place| net.post(place, sentinel(2, Some((1, 1)), None)));
        net.post(0, sentinel(2, Some((1, 1)), Some((2, 101))));
        net.run(50);
        assert_eq!(net.holds(1), Some(2), "elected again, lost {lost}");
    }
    // Elected for one that it has not had yet.
    let mut net = Net::with_redis();
    net.cut = vec![(0, 1), (2, 1)];
    net.post(1, sentinel(1, None, Some((1, 101))));
    net.post(1, Part::Writes(Writes::Unleased));
    assert!(matches!(net.tenure(1, 1), Tenure::Asks { epoch: 1, open: None, .. }), "{:?}", net.tenure(1, 1));
}

#[test]
fn another_process_waits_for_the_end_of_the_lease_or_for_its_return() {
    // Of a leader beside the next master, beside the holder, and of another one; before the holder in the file and behind it.
    for (leader, next, returned) in
        [(0, 2, false), (0, 2, true), (1, 2, true), (2, 2, true), (0, 0, true), (1, 0, true), (2, 0, true)]
    {
        let mut net = Net::with_master(2);
        net.run(200);
        assert_eq!(net.holds(1), Some(1), "votes alone take nothing away");
        let begun = net.now;
        net.post(leader, sentinel(2, Some((1, 1)), Some((2, 100 + u64::try_from(next).unwrap()))));
        assert_eq!((net.holds(1), net.holds(next)), (Some(1), None));
        if returned {
            net.post(1, Part::Writes(Writes::Returned { at: net.now }));
            let told = format!("at once: {leader} leads, {next} is next");
            assert_eq!((net.holds(1), net.holds(next)), (None, Some(2)), "{told}");
            assert!(matches!(net.tenure(0, 1), Tenure::Released { epoch: 1, .. }));
            let granted = net.tenure(next, next);
            assert!(matches!(granted, Tenure::Asks { epoch: 2, grants: 0b111, .. }), "{told}: {granted:?}");
            continue;
        }
        // The link of the holder is cut.
        net.cut = (0..3).flat_map(|other| [(1, other), (other, 1)]).collect();
        while net.holds(2).is_none() {
            net.run(5);
            assert!(net.holds(1).is_none() || net.holds(2).is_none(), "two at {}", net.now);
        }
        let took = net.now.since(begun).as_millis();
        // A whole lease from the last ask, which came at most one period of 75 ms before.
        assert!((175..=280).contains(&took), "{took} ms");
    }
}

#[test]
fn a_dead_process_is_waited_for_by_nobody_and_its_successor_has_nothing_of_it() {
    let mut net = Net::with_master(2);
    net.post(1, redis(1, 101, node::Process::Dead));
    assert_eq!(net.leases[1], None);
    assert_eq!(net.tenure(0, 1), Tenure::None);
    net.post(1, redis(1, 201, node::Process::Alive));
    net.run(300);
    assert_eq!(net.leases[1], None, "elected was the one before");
    net.post(0, sentinel(2, Some((1, 1)), Some((2, 102))));
    assert_eq!(net.holds(2), Some(2), "at once");
}

#[test]
fn nothing_is_promised_in_an_epoch_that_is_not_on_disk_nor_to_a_node_with_other_voters() {
    let mut net = Net::with_redis();
    // Only the leader has stored its epoch.
    net.post(0, sentinel(2, None, Some((2, 101))));
    net.run(300);
    assert_eq!(net.holds(1), None);
    net.post(2, sentinel(2, None, None));
    assert_eq!(net.holds(1), Some(2), "at once when it is");
    net.post(1, Part::Writes(Writes::Returned { at: net.now }));
    // A node with another file.
    let mut peers = config(1, 3, 9, "secret").peers;
    peers[2].roles.sentinel = false;
    let lease = Some(LEASE);
    net.boots += 1;
    net.nodes[1] = Some(Cluster::new(Config { peers, lease, ..config(1, 3, net.boots, "secret") }, "0.1.0", net.now));
    net.leases[1] = None;
    net.post(1, redis(1, 301, node::Process::Alive));
    net.post(1, sentinel(3, None, None));
    net.post(2, sentinel(3, None, None));
    net.post(0, sentinel(3, None, Some((3, 301))));
    net.run(600);
    assert_eq!(net.holds(1), None);
}

#[test]
fn a_sentinel_that_was_restarted_renews_the_master_that_it_knows_and_nobody_else_for_a_while() {
    for other in [false, true] {
        let mut net = Net::with_master(1);
        // Without the third one, the lease hangs on the one that is restarted.
        net.nodes[2] = None;
        net.run(100);
        net.start(0);
        if other {
            net.post(0, sentinel(2, Some((1, 1)), None));
            net.run(20);
            assert_eq!(net.holds(1), Some(1), "what was promised lasts");
            net.run(250);
            assert_eq!(net.holds(1), None, "it may have promised another one since");
        } else {
            net.post(0, sentinel(1, Some((1, 1)), None));
            for _ in 0..40 {
                net.run(13);
                assert_eq!(net.holds(1), Some(1));
            }
        }
    }
}
