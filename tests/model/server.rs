//! What a redis-server is: its process, its data, and what is left of them when it dies.

use std::net::{IpAddr, SocketAddr};

use vigie::base::{Instant, RunId};
use vigie::wire::info::CLOSED;

/// The link of a replica to its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A master has none.
    None,
    /// Not connected; since when, if it ever was since it was pointed there.
    Down(Option<Instant>),
    /// Receives a full copy; since when it was not connected, if it ever was.
    Copying(Option<Instant>),
    /// Takes the stream.
    Up,
}

/// What hosts are called.
#[derive(Clone, Copy, Debug)]
pub struct Hosts {
    /// What a redis says where it tells of the host of an address.
    pub told: fn(SocketAddr) -> String,
    /// Where the host and the port lead that it is told to follow.
    pub found: fn(&str, &str) -> Option<SocketAddr>,
}

impl Hosts {
    /// By their addresses.
    pub const BY_ADDRESS: Self = Self {
        told: |address| address.ip().to_string(),
        found: |host, port| Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port.parse().ok()?)),
    };
}

/// One redis-server.
#[derive(Clone, Debug)]
pub struct Server {
    pub hosts: Hosts,
    pub alive: bool,
    /// Counts the processes.
    pub incarnation: u64,
    pub run_id: RunId,
    pub pid: u32,
    /// It has read its configuration, and listens.
    pub listening: bool,
    /// It does not run. Whoever surrounds it keeps what it is asked meanwhile, or loses it.
    pub hung: bool,
    /// A script does not end.
    pub busy: bool,
    /// Reads its data from disk, or from the copy it received.
    pub loading: bool,
    /// None: it is a master.
    pub master: Option<SocketAddr>,
    pub link: Link,
    /// Counts the links to masters.
    pub generation: u64,
    /// Which process of its master the last link led to.
    pub fed_by: u64,
    /// The writes it holds.
    pub data: Vec<u32>,
    /// Its offset less the number of writes.
    pub base: i64,
    pub replid: RunId,
    /// The lineage before, and up to which offset it is the same.
    pub replid2: Option<(RunId, i64)>,
    /// Whether it remembers what it sends to replicas.
    pub backlog: bool,
    /// What survives its death.
    pub disk: Vec<u32>,
    /// It writes its file anew, after a full copy: until that ends the file is the one from before.
    pub rewriting: bool,
    /// The master that its configuration file names. The file is rewritten whenever its role changes, as an order of CONFIG
    /// REWRITE with each change does.
    pub conf: Option<SocketAddr>,
    pub priority: u32,
    /// When it became a master, if it is one.
    pub master_since: Instant,
    /// Writes are held; ends by itself then, if whoever surrounds it sees to that.
    pub pause: Option<Instant>,
    /// What clients log in with.
    pub password: Option<String>,
    /// It wants more replicas than there are, and refuses writes until that is changed.
    pub fenced: bool,
    /// Commands that it answers by an error, by how they begin.
    pub refuses: Vec<(String, String)>,
    /// Commands that it answers and does not carry out, by how they begin.
    pub ignores: Vec<String>,
    /// Its INFO does not say its offset.
    pub without_offset: bool,
    /// Where replication takes no time: it cannot synchronise with any master.
    pub shut_out: bool,
    /// There, too: it does not take what its master sends.
    pub stuck: bool,
    /// There, too: so many of the writes that its master has sent are still in its socket.
    pub undrained: usize,
    /// The orders it has carried out.
    pub log: Vec<String>,
}

impl Server {
    /// One that never ran. `conf`: the master that its file names. `id`: of a lineage that is nobody's.
    pub fn new(conf: Option<SocketAddr>, id: RunId) -> Self {
        Self {
            hosts: Hosts::BY_ADDRESS,
            alive: false,
            incarnation: 0,
            run_id: id,
            pid: 0,
            listening: false,
            hung: false,
            busy: false,
            loading: false,
            master: conf,
            link: Link::Down(None),
            generation: 0,
            fed_by: 0,
            data: Vec::new(),
            base: 0,
            replid: id,
            replid2: None,
            backlog: false,
            disk: Vec::new(),
            rewriting: false,
            conf,
            priority: 100,
            master_since: Instant::START,
            pause: None,
            password: None,
            fenced: false,
            refuses: Vec::new(),
            ignores: Vec::new(),
            without_offset: false,
            shut_out: false,
            stuck: false,
            undrained: 0,
            log: Vec::new(),
        }
    }

    /// A new process begins, with what is on the disk. `lineage`: what it counts its writes by until it knows better.
    pub fn start(&mut self, run_id: RunId, lineage: RunId, master: Option<SocketAddr>) {
        self.alive = true;
        self.listening = true;
        self.incarnation += 1;
        self.run_id = run_id;
        self.pid = u32::try_from(1_000 + self.incarnation).unwrap_or(u32::MAX);
        self.master = master;
        self.link = if master.is_some() { Link::Down(None) } else { Link::None };
        self.generation += 1;
        self.data.clone_from(&self.disk);
        self.set_offset(0);
        self.replid = lineage;
        self.replid2 = None;
        self.backlog = false;
        self.loading = !self.data.is_empty();
        self.rewriting = false;
    }

    /// The process ends.
    pub fn die(&mut self) {
        self.alive = false;
        self.hung = false;
        self.busy = false;
        self.loading = false;
        self.pause = None;
        self.generation += 1;
        self.link = Link::Down(None);
    }

    /// What it holds is on the disk.
    pub fn save(&mut self) {
        self.rewriting = false;
        self.disk.clone_from(&self.data);
    }

    pub fn is_closed(&self) -> bool {
        self.master == Some(CLOSED)
    }

    pub fn listens(&self) -> bool {
        self.alive && self.listening
    }

    pub fn is_master(&self) -> bool {
        self.alive && self.master.is_none()
    }

    /// Whether a client that reaches it is told that its write is done.
    pub fn takes_writes(&self) -> bool {
        self.is_master() && !self.fenced && !self.hung && !self.loading && self.pause.is_none()
    }

    /// Whether it takes the stream of the master at that address.
    pub fn is_in_sync_with(&self, master: SocketAddr) -> bool {
        self.master == Some(master) && self.link == Link::Up
    }

    /// What it has applied.
    pub fn offset(&self) -> i64 {
        self.base + self.held()
    }

    /// Counts from elsewhere.
    pub fn set_offset(&mut self, offset: i64) {
        self.base = offset - self.held();
    }

    fn held(&self) -> i64 {
        i64::try_from(self.data.len()).expect("small")
    }

    /// Nothing is left of its data.
    pub fn wipe(&mut self) {
        self.data.clear();
        self.disk.clear();
        self.base = 0;
    }

    /// Holds so many writes of the same offset.
    pub fn holds(&mut self, count: usize) {
        let offset = self.offset();
        self.data = vec![0; count];
        self.set_offset(offset);
    }

    /// Takes so many writes, of which nobody wants to know what they are.
    pub fn write(&mut self, count: usize) {
        self.data.extend(std::iter::repeat_n(0, count));
    }
}
