//! The peer link on 127.0.0.0/8: real sockets, real time, and threads that do not get their share of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc as sync;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use vigie::base::node::{Health, Roles};
use vigie::base::{Credentials, Purpose, Secret};
use vigie::cores::cluster::{Config, NodeView, Part, Peer, View};
use vigie::runtime::clock;
use vigie::runtime::journal::Journal;
use vigie::runtime::peers::{Peers, Presence};
use vigie::wire::frame::Keys;

const NODES: u8 = 3;
const PORT: u16 = 26_380;
const LONG: Duration = Duration::from_secs(20);
/// How often the thread is starved.
const STARVED: usize = 20;
/// How long the thread that started a link stands still: several times what is taken for silence.
const STANDSTILL: Duration = Duration::from_secs(3);

fn credentials() -> Arc<Credentials> {
    Arc::new(Credentials::new("mymaster", Secret::new("open sesame").into(), None))
}

/// An address of the node that nothing else on the machine uses, nor another cluster of this test.
fn address(cluster: u8, node: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 1, low, cluster * 10 + node + 1).into()
}

fn config(cluster: u8, me: usize) -> Config {
    let peers = (0..NODES).map(|node| Peer {
        name: format!("node-{node}").parse().unwrap(),
        address: address(cluster, node),
        roles: Roles { sentinel: true, ..Roles::default() },
    });
    let keys = Keys::new(&credentials().own(Purpose::Link));
    let (boot, roles) = (u64::try_from(me).unwrap() + 1, Roles { sentinel: true, ..Roles::default() });
    let cluster = "mymaster".to_owned();
    Config {
        cluster,
        keys,
        me,
        roles,
        peers: peers.collect(),
        port: PORT,
        lease: None,
        promised: Duration::ZERO,
        fencing: false,
        boot,
        seed: boot,
    }
}

/// Where a link runs.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a thread of its own, as in a worker.
    Apart,
    /// In the thread that started it, together with what else that does: what happens to this thread happens to the link.
    Within,
}

/// A node: its link, and a thread that starts it and does something `beside`.
struct Node {
    view: watch::Receiver<Arc<View>>,
    post: mpsc::Sender<Part>,
    presence: Presence,
    journal: Journal,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Node {
    fn start<F: Future<Output = ()>>(
        config: Config,
        place: Place,
        beside: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let (journal, (stop, stopped)) = (Journal::new(), watch::channel(false));
        let (tell, told) = sync::channel();
        let its = journal.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let link = Peers::open(config).unwrap();
                let shows = tokio::task::spawn(link.liveness.clone().show());
                tell.send((link.view.clone(), link.post.clone(), link.presence.clone())).unwrap();
                let (_keep, secrets) = watch::channel(credentials());
                match place {
                    Place::Apart => {
                        let link = link.spawn(secrets, its, stopped).unwrap();
                        beside().await;
                        link.ended().await;
                    }
                    Place::Within => tokio::join!(link.run(secrets, its, stopped), beside()).0.unwrap(),
                }
                shows.abort();
            });
        });
        let (view, post, presence) = told.recv().unwrap();
        Self { view, post, presence, journal, stop, thread }
    }

    /// One that nothing happens to.
    fn calm(config: Config) -> Self {
        Self::start(config, Place::Apart, || std::future::ready(()))
    }

    fn sees(&self, node: usize) -> NodeView {
        self.view.borrow().nodes[node].clone()
    }

    fn hears_all(&self) -> bool {
        self.view.borrow().nodes.iter().all(|node| node.fresh)
    }

    /// Whether it has heard a node at that time or later.
    fn heard(&self, node: usize, since: vigie::base::Instant) -> bool {
        self.sees(node).heard_at >= Some(since)
    }

    /// What it has said to people, once it has ended.
    fn stop(self) -> Journal {
        self.stop.send_replace(true);
        self.thread.join().unwrap();
        self.journal
    }
}

/// How often another node was lost, by what one has said.
fn lost(journal: &Journal) -> usize {
    journal.follow().0.iter().filter(|record| record.name == "peer-down").count()
}

fn wait_for(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is heard for 500 ms is fresh: after 450 ms without its thread a node must first read what has come meanwhile.
#[test]
fn nobody_is_lost_by_a_link_whose_thread_was_starved() {
    let (begin, begun) = oneshot::channel::<()>();
    let (end, ended) = sync::channel();
    let starved = Node::start(config(0, 0), Place::Within, || async move {
        begun.await.unwrap();
        for _ in 0..STARVED {
            std::thread::sleep(Duration::from_millis(450));
            tokio::time::sleep(Duration::from_millis(130)).await;
        }
        end.send(()).unwrap();
    });
    let others = [1, 2].map(|me| Node::calm(config(0, me)));
    wait_for("everybody hears everybody", || starved.hears_all() && others.iter().all(Node::hears_all));
    begin.send(()).unwrap();
    ended.recv().unwrap();
    // It is found all the same once a node really falls silent.
    let [first, second] = others;
    first.stop();
    wait_for("a silent node is lost", || !starved.sees(1).fresh);
    let journal = starved.stop();
    println!("starved {STARVED} times for 450 ms with frames waiting, then one node stopped: {} lost", lost(&journal));
    assert_eq!(lost(&journal), 1, "{:?}", journal.follow().0);
    second.stop();
}

/// How often the others lose a node whose control thread stands still, until they do or it is over.
fn lost_by_others(cluster: u8, place: Place, time: Duration) -> usize {
    let (begin, begun) = oneshot::channel::<()>();
    let (stand, standing) = sync::channel();
    let (go_on, gone_on) = sync::channel::<()>();
    let node = Node::start(config(cluster, 0), place, || async move {
        begun.await.unwrap();
        stand.send(clock::now()).unwrap();
        gone_on.recv().unwrap();
    });
    let others = [1, 2].map(|me| Node::calm(config(cluster, me)));
    wait_for("everybody hears everybody", || node.hears_all() && others.iter().all(Node::hears_all));
    begin.send(()).unwrap();
    let until = standing.recv().unwrap() + time;
    let is_lost = || others.iter().any(|other| lost(&other.journal) > 0);
    let all_heard =
        || others.iter().all(|other| other.heard(0, until)) && [1, 2].iter().all(|other| node.heard(*other, until));
    wait_for("frames of a node that stands still, or their end", || is_lost() || all_heard());
    if !is_lost() {
        let asks = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut presence = others[0].presence.clone();
        let shown = asks.block_on(presence.show(SocketAddr::new(address(cluster, 0), PORT), LONG));
        assert!(shown.is_ok(), "asked to show that it is there, it does not answer");
    }
    go_on.send(()).unwrap();
    let lost = others.into_iter().map(|other| lost(&other.stop())).sum();
    node.stop();
    lost
}

#[test]
fn a_node_is_heard_while_its_control_thread_stands_still() {
    let within = lost_by_others(1, Place::Within, STANDSTILL);
    assert!(within > 0, "this could not be told from a link within the control thread");
    assert_eq!(lost_by_others(2, Place::Apart, STANDSTILL), 0);
    // The last words of roles that do not run are not repeated for ever.
    assert!(lost_by_others(5, Place::Apart, STANDSTILL * 3) > 0);
}

#[test]
fn frames_that_lay_unread_are_as_old_as_their_arrival() {
    let (begin, begun) = oneshot::channel::<()>();
    let (stand, standing) = sync::channel();
    let (go_on, gone_on) = sync::channel::<()>();
    let starved = Node::start(config(3, 0), Place::Within, || async move {
        begun.await.unwrap();
        stand.send(()).unwrap();
        gone_on.recv().unwrap();
    });
    let [first, second] = [1, 2].map(|me| Node::calm(config(3, me)));
    wait_for("everybody hears everybody", || starved.hears_all() && first.hears_all() && second.hears_all());
    begin.send(()).unwrap();
    standing.recv().unwrap();
    let stood = clock::now();
    // So it has frames to read of the one that ends.
    wait_for("frames of both", || second.heard(1, stood));
    first.stop();
    let silent = clock::now();
    wait_for("a silence that counts", || clock::now() >= silent + Duration::from_millis(600));
    go_on.send(()).unwrap();
    wait_for("the silent node is lost", || !starved.sees(1).fresh);
    let heard_at = starved.sees(1).heard_at;
    // The wall clock, by which the kernel dates, is read a little later than the other one.
    let about = stood - Duration::from_millis(20);
    assert!(Some(about) <= heard_at && heard_at <= Some(silent), "{stood}: {heard_at:?}, silent at {silent}");
    wait_for("the other one is heard", || starved.heard(2, silent + Duration::from_millis(600)));
    second.stop();
    let journal = starved.stop();
    assert!(!journal.follow().0.iter().any(|record| record.text.contains("node-2 is not")), "{:?}", journal.follow().0);
}

#[test]
fn what_was_posted_before_the_stop_is_still_said() {
    let [first, second] = [0, 1].map(|me| Node::calm(config(4, me)));
    wait_for("both hear each other", || first.sees(1).fresh && second.sees(0).fresh);
    let words = Part::Fault { source: "test", reason: Some("leaves".to_owned()) };
    first.post.try_send(words).unwrap();
    first.stop();
    let said = || second.sees(0).state.is_some_and(|state| state.health == Health::bad("leaves"));
    wait_for("its last words", said);
    second.stop();
}
