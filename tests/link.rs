//! The peer link on 127.0.0.0/8: real sockets, real time, and a thread that does not get its share of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vigie::base::node::Roles;
use vigie::base::{Credentials, Purpose, Secret};
use vigie::cores::cluster::{Config, Peer, View};
use vigie::runtime::journal::Journal;
use vigie::runtime::peers::Peers;
use vigie::wire::frame::Keys;

const NODES: u8 = 3;
const PORT: u16 = 26_380;
const LONG: Duration = Duration::from_secs(20);
/// How often the thread is starved.
const STARVED: usize = 20;

fn credentials() -> Arc<Credentials> {
    Arc::new(Credentials::new("mymaster", Secret::new("open sesame").into(), None))
}

/// An address of the node that nothing else on the machine uses.
fn address(node: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 1, low, node + 1).into()
}

fn config(me: usize) -> Config {
    let peers = (0..NODES).map(|node| Peer {
        name: format!("node-{node}").parse().unwrap(),
        address: address(node),
        roles: Roles { sentinel: true, ..Roles::default() },
    });
    let keys = Keys::new(&credentials().own(Purpose::Link));
    let (boot, roles) = (u64::try_from(me).unwrap() + 1, Roles { sentinel: true, ..Roles::default() });
    let cluster = "mymaster".to_owned();
    Config { cluster, keys, me, roles, peers: peers.collect(), port: PORT, boot, seed: boot }
}

/// A node with a thread of its own, in which `beside` runs too.
struct Node {
    view: watch::Receiver<Arc<View>>,
    journal: Journal,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Node {
    fn start<F: Future<Output = ()>>(me: usize, beside: impl FnOnce() -> F + Send + 'static) -> Self {
        let (journal, (stop, stopped)) = (Journal::new(), watch::channel(false));
        let (tell, told) = std::sync::mpsc::channel();
        let its = journal.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let link = Peers::open(config(me)).unwrap();
                tell.send(link.view.clone()).unwrap();
                let (_keep, secrets) = watch::channel(credentials());
                tokio::join!(link.run(secrets, its, stopped), beside());
            });
        });
        Self { view: told.recv().unwrap(), journal, stop, thread }
    }

    fn hears_all(&self) -> bool {
        self.view.borrow().nodes.iter().all(|node| node.fresh)
    }

    fn stop(self) {
        self.stop.send_replace(true);
        self.thread.join().unwrap();
    }
}

/// How often the node has lost another one.
fn lost(node: &Node) -> usize {
    node.journal.follow().0.iter().filter(|record| record.name == "peer-down").count()
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
fn nobody_is_lost_by_a_thread_that_was_starved() {
    let (begin, begun) = tokio::sync::oneshot::channel::<()>();
    let (end, ended) = std::sync::mpsc::channel();
    let starved = Node::start(0, || async move {
        begun.await.unwrap();
        for _ in 0..STARVED {
            std::thread::sleep(Duration::from_millis(450));
            tokio::time::sleep(Duration::from_millis(130)).await;
        }
        end.send(()).unwrap();
    });
    let others = [1, 2].map(|me| Node::start(me, || std::future::ready(())));
    wait_for("everybody hears everybody", || starved.hears_all() && others.iter().all(Node::hears_all));
    assert_eq!(lost(&starved), 0);
    begin.send(()).unwrap();
    ended.recv().unwrap();
    println!("starved {STARVED} times for 450 ms with frames waiting: {} nodes lost", lost(&starved));
    assert_eq!(lost(&starved), 0, "{:?}", starved.journal.follow().0);
    // It is found all the same once a node really falls silent.
    let [first, second] = others;
    first.stop();
    wait_for("a silent node is lost", || lost(&starved) == 1);
    second.stop();
    starved.stop();
}
