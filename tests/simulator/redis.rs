//! A model of redis-server: what it answers, what it does when it is told, and how it lives and dies.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use vigie::base::{Instant, RunId};
use vigie::cores::redis::Exit;
use vigie::wire::hello;
use vigie::wire::info::CLOSED;
use vigie::wire::resp::Reply;

use crate::net::{Packet, Way, Words};
use crate::world::{Happening, World, host_of, ms, redis_at};
use crate::writes::Write;

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

/// Writes are held.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Ends by itself.
    pub until: Instant,
    /// The sentinel that asked for it.
    pub by: usize,
    /// Counts pauses.
    pub serial: u64,
}

/// What waits for a process that does not run.
#[derive(Clone, Debug)]
pub enum Work {
    /// A command on a connection.
    Command(u64, Words),
    /// Commands that came together.
    Commands(u64, Vec<Words>),
    /// A write of a client.
    Write(Write),
    /// A piece of the stream of the master, by the link of that number.
    Stream(u64, Vec<u32>),
    /// The master has closed that link.
    Eof(u64),
}

/// One redis-server.
#[derive(Debug)]
pub struct Redis {
    /// Its place among the groups.
    pub group: usize,
    pub alive: bool,
    /// Counts the processes.
    pub incarnation: u64,
    pub run_id: RunId,
    pub pid: u32,
    /// It has read its configuration, and listens.
    listening: bool,
    /// It does not run.
    pub hung: bool,
    /// Answers late by at most this.
    pub slow: Option<Duration>,
    /// Reads its data from disk, or from the copy it received.
    pub loading: bool,
    /// None: it is a master.
    pub master: Option<SocketAddr>,
    pub link: Link,
    /// Counts the links to masters.
    pub generation: u64,
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
    pub flush_due: bool,
    /// It writes its file again, after a full copy: until that ends the file is the one from before.
    pub rewriting: bool,
    /// It was told to end while it did not run.
    terminated: bool,
    /// The master that its configuration file names, if it has no supervisor. The file is rewritten whenever its role
    /// changes, as an order of CONFIG REWRITE with each change does.
    pub conf: Option<SocketAddr>,
    pub priority: u32,
    /// When it became a master, if it is one.
    pub master_since: Instant,
    /// A person has made it one.
    pub by_hand: bool,
    pub pause: Option<Pause>,
    /// Writes that a pause holds.
    pub held: Vec<Write>,
    pub waiting: VecDeque<Work>,
    /// Pieces of the stream that wait for a way that is cut.
    pub stalled: VecDeque<Work>,
    pub stream_last: Instant,
    /// When the last command that came while it was slow is carried out.
    pub command_last: Instant,
}

impl Redis {
    /// One that never ran.
    pub fn new(group: usize, conf: Option<SocketAddr>, id: RunId) -> Self {
        Self {
            group,
            alive: false,
            incarnation: 0,
            run_id: id,
            pid: 0,
            listening: false,
            hung: false,
            slow: None,
            loading: false,
            master: conf,
            link: Link::Down(None),
            generation: 0,
            data: Vec::new(),
            base: 0,
            replid: id,
            replid2: None,
            backlog: false,
            disk: Vec::new(),
            flush_due: false,
            rewriting: false,
            terminated: false,
            conf,
            priority: 100,
            master_since: Instant::START,
            by_hand: false,
            pause: None,
            held: Vec::new(),
            waiting: VecDeque::new(),
            stalled: VecDeque::new(),
            stream_last: Instant::START,
            command_last: Instant::START,
        }
    }

    /// What it has applied.
    pub fn offset(&self) -> i64 {
        self.base + i64::try_from(self.data.len()).expect("small")
    }

    pub fn is_closed(&self) -> bool {
        self.master == Some(CLOSED)
    }

    pub fn listens(&self) -> bool {
        self.alive && self.listening
    }

    /// Whether a client that reaches it is told that its write is done, by the will of the cluster.
    pub fn takes_writes(&self) -> bool {
        self.is_master() && !self.by_hand && !self.hung && !self.loading && self.pause.is_none()
    }

    /// Whether it is a master.
    pub fn is_master(&self) -> bool {
        self.alive && self.master.is_none()
    }
}

fn word(words: &Words, at: usize) -> String {
    words.get(at).map_or_else(String::new, |word| String::from_utf8_lossy(word).to_ascii_uppercase())
}

fn ok() -> Reply {
    Reply::Simple("OK".to_owned())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

impl World {
    /// Starts the process: closed if it has a supervisor, else as its file says.
    pub fn start_redis(&mut self, r: usize) {
        if self.redis[r].alive || !self.hosts[r].powered {
            return;
        }
        let (id, lineage, linked) = (self.dice.id(), self.dice.id(), self.plan.linked);
        let redis = &mut self.redis[r];
        redis.alive = true;
        redis.incarnation += 1;
        redis.run_id = id;
        redis.master = if linked { Some(CLOSED) } else { redis.conf };
        redis.link = if redis.master.is_some() { Link::Down(None) } else { Link::None };
        redis.generation += 1;
        redis.data = redis.disk.clone();
        redis.base = -i64::try_from(redis.data.len()).expect("small");
        redis.replid = lineage;
        redis.replid2 = None;
        redis.backlog = false;
        redis.loading = !redis.data.is_empty();
        redis.flush_due = false;
        redis.rewriting = false;
        redis.terminated = false;
        redis.listening = !linked;
        let incarnation = redis.incarnation;
        redis.pid = u32::try_from(1_000 + incarnation).unwrap_or(u32::MAX);
        self.note(|| format!("r{r} starts"));
        let takes = self.dice.time(ms(1), self.plan.copy / 2 + ms(2));
        self.later(takes, Happening::Loaded(r, incarnation));
        if linked {
            let takes = self.dice.time(ms(1), ms(15));
            self.later(takes, Happening::Listens(r, incarnation));
        }
        self.try_soon(r, ms(10));
    }

    pub fn loaded(&mut self, r: usize, incarnation: u64) {
        let redis = &mut self.redis[r];
        if redis.incarnation == incarnation && redis.alive {
            redis.loading = false;
            self.masters_changed(r);
        }
    }

    pub fn begins_to_listen(&mut self, r: usize, incarnation: u64) {
        let redis = &mut self.redis[r];
        redis.listening |= redis.incarnation == incarnation;
    }

    /// The process dies. `told`: its host lives and closes its connections.
    pub fn kill_redis(&mut self, r: usize, told: bool, exit: Exit) {
        if !self.redis[r].alive {
            return;
        }
        self.note(|| format!("r{r} {exit}"));
        self.drop_far(r, false, told);
        if told {
            self.drop_replicas(r);
            self.sessions_cut(r);
        }
        let redis = &mut self.redis[r];
        redis.alive = false;
        redis.hung = false;
        redis.slow = None;
        redis.loading = false;
        redis.pause = None;
        redis.held.clear();
        redis.waiting.clear();
        redis.stalled.clear();
        redis.generation += 1;
        redis.link = Link::Down(None);
        self.masters_changed(r);
        self.redis_exited(r, exit);
    }

    /// It was told to end, and saves what it has.
    pub fn terminated(&mut self, r: usize, incarnation: u64) {
        let redis = &mut self.redis[r];
        if redis.incarnation != incarnation || !redis.alive {
            return;
        }
        if redis.hung {
            redis.terminated = true;
            return;
        }
        redis.disk.clone_from(&redis.data);
        self.kill_redis(r, true, Exit::Code(0));
    }

    /// Lets a process that did not run do what waits.
    pub fn resume_redis(&mut self, r: usize) {
        if !std::mem::replace(&mut self.redis[r].hung, false) {
            return;
        }
        self.note(|| format!("r{r} runs again"));
        self.masters_changed(r);
        for work in std::mem::take(&mut self.redis[r].waiting) {
            self.redis_works(r, work);
        }
        if self.redis[r].terminated {
            self.terminated(r, self.redis[r].incarnation);
        }
    }

    /// Commands arrive.
    pub fn redis_hears(&mut self, r: usize, work: Work) {
        let late = self.redis[r].slow.map_or(Duration::ZERO, |limit| self.dice.upto(limit));
        let last = self.redis[r].command_last;
        if late.is_zero() && last <= self.now {
            return self.redis_works(r, work);
        }
        // One after the other, as one thread serves them all; what came while it was slow goes first.
        let at = last.max(self.redis[r].stream_last).max(self.now + late) + Duration::from_micros(1);
        (self.redis[r].command_last, self.redis[r].stream_last) = (at, at);
        self.at(at, Happening::Works(r, self.redis[r].incarnation, work));
    }

    pub fn redis_works(&mut self, r: usize, work: Work) {
        if !self.redis[r].alive {
            return;
        }
        if self.redis[r].hung {
            return self.redis[r].waiting.push_back(work);
        }
        match work {
            Work::Command(wire, words) => self.command(r, wire, words),
            Work::Commands(wire, all) => self.commands(r, wire, all),
            Work::Write(write) => self.write_arrives(r, write),
            Work::Stream(generation, writes) => self.stream_arrives(r, generation, &writes),
            Work::Eof(generation) => self.link_ended(r, generation),
        }
    }

    /// Carries out what came together, and answers together.
    fn commands(&mut self, r: usize, id: u64, all: Vec<Words>) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.gathered = Some(Vec::new());
        for words in all {
            self.command(r, id, words);
        }
        let replies = self.wires.get_mut(&id).and_then(|wire| wire.gathered.take());
        if let Some(replies) = replies {
            self.send(id, Way::Near, Packet::Replies(replies));
        }
    }

    fn command(&mut self, r: usize, id: u64, words: Words) {
        let paused = self.redis[r].pause.is_some() && word(&words, 0) == "PUBLISH";
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.far) else { return };
        if paused || !wire.blocked.is_empty() {
            return wire.blocked.push_back(words);
        }
        if word(&words, 0) == "EXEC" {
            let Some(queued) = wire.multi.take() else { return self.answer(id, error("ERR EXEC without MULTI")) };
            if self.redis[r].loading
                && queued.iter().any(|words| matches!(word(words, 0).as_str(), "REPLICAOF" | "SLAVEOF"))
            {
                return self.answer(id, error("EXECABORT Transaction discarded because of previous errors."));
            }
            let replies = queued.iter().map(|words| self.execute(r, id, words)).collect();
            return self.answer(id, Reply::Array(replies));
        }
        if let Some(queued) = wire.multi.as_mut() {
            queued.push(words);
            return self.answer(id, Reply::Simple("QUEUED".to_owned()));
        }
        let reply = self.execute(r, id, &words);
        self.answer(id, reply);
    }

    fn answer(&mut self, id: u64, reply: Reply) {
        if let Some(gathered) = self.wires.get_mut(&id).and_then(|wire| wire.gathered.as_mut()) {
            return gathered.push(reply);
        }
        // A connection that the command itself has killed gets its answer first.
        self.send(id, Way::Near, Packet::Reply(Some(reply)));
    }

    fn execute(&mut self, r: usize, id: u64, words: &Words) -> Reply {
        let loading = self.redis[r].loading;
        match (word(words, 0).as_str(), word(words, 1).as_str()) {
            ("PING", _) if loading => error("LOADING Redis is loading the dataset in memory"),
            ("PING", _) => Reply::Simple("PONG".to_owned()),
            ("INFO", section) => Reply::Bulk(self.info(r, section).into()),
            ("ROLE", _) => {
                let role = if self.redis[r].master.is_none() { "master" } else { "slave" };
                Reply::Array(vec![Reply::Bulk(Bytes::from_static(role.as_bytes()))])
            }
            ("MULTI", _) => {
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.multi = Some(Vec::new());
                }
                ok()
            }
            ("SUBSCRIBE", _) => {
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.subscribed = true;
                }
                Reply::Array(vec![])
            }
            ("PUBLISH", _) => {
                let payload = words.get(2).cloned().unwrap_or_default();
                self.publish(r, &word(words, 1), &payload);
                Reply::Integer(1)
            }
            ("REPLICAOF" | "SLAVEOF", _) if loading => error("LOADING Redis is loading the dataset in memory"),
            ("REPLICAOF" | "SLAVEOF", "NO") => {
                self.promote(r);
                ok()
            }
            ("REPLICAOF" | "SLAVEOF", host) => {
                if let Some(master) = crate::dropin::first_address(&host.to_ascii_lowercase()) {
                    self.follow(r, master);
                }
                ok()
            }
            ("CLIENT", "PAUSE") => {
                let time = word(words, 2).parse().unwrap_or(0);
                self.pause(r, id, ms(time));
                ok()
            }
            ("CLIENT", "UNPAUSE") => {
                self.unpause(r);
                ok()
            }
            ("CLIENT", "KILL") => {
                self.client_kill(r, id, &word(words, 3));
                Reply::Integer(1)
            }
            ("CLIENT" | "CONFIG" | "AUTH" | "SCRIPT", _) => ok(),
            (name, _) => Reply::Error(format!("ERR unknown command '{name}'")),
        }
    }

    fn publish(&mut self, r: usize, channel: &str, payload: &Bytes) {
        if channel != hello::CHANNEL.to_ascii_uppercase() {
            return;
        }
        let hears = |wire: &crate::net::Wire| wire.to == r && !wire.to_sentinel && wire.subscribed && wire.far;
        let ids: Vec<u64> = self.wires.iter().filter(|(_, wire)| hears(wire)).map(|(id, _)| *id).collect();
        for id in ids {
            self.send(id, Way::Near, Packet::Message(payload.clone()));
        }
    }

    fn client_kill(&mut self, r: usize, own: u64, kind: &str) {
        let pubsub = kind == "PUBSUB";
        let hit = |wire: &crate::net::Wire| wire.to == r && !wire.to_sentinel && wire.far && wire.subscribed == pubsub;
        let ids: Vec<u64> =
            self.wires.iter().filter(|(id, wire)| **id != own && hit(wire)).map(|(id, _)| *id).collect();
        for id in ids {
            self.cut_off(id, true, "killed");
        }
        if !pubsub {
            self.redis[r].held.clear();
            self.sessions_cut(r);
        }
    }

    fn pause(&mut self, r: usize, id: u64, time: Duration) {
        let Some(by) = self.wires.get(&id).map(|wire| wire.from) else { return };
        let (serial, until) = (self.count(), self.now + time);
        // A longer pause that is in force stays in force.
        let until = self.redis[r].pause.map_or(until, |pause| pause.until.max(until));
        self.redis[r].pause = Some(Pause { until, by, serial });
        self.masters_changed(r);
        self.at(until, Happening::PauseOver(r, serial));
    }

    pub fn pause_over(&mut self, r: usize, serial: u64) {
        if self.redis[r].pause.is_some_and(|pause| pause.serial == serial) {
            self.unpause(r);
        }
    }

    fn unpause(&mut self, r: usize) {
        self.redis[r].pause = None;
        self.masters_changed(r);
        for write in std::mem::take(&mut self.redis[r].held) {
            self.redis_works(r, Work::Write(write));
        }
        let blocked = |wire: &crate::net::Wire| wire.to == r && !wire.to_sentinel && !wire.blocked.is_empty();
        let ids: Vec<u64> = self.wires.iter().filter(|(_, wire)| blocked(wire)).map(|(id, _)| *id).collect();
        for id in ids {
            let waiting = self.wires.get_mut(&id).map(|wire| std::mem::take(&mut wire.blocked)).unwrap_or_default();
            for words in waiting {
                self.redis_works(r, Work::Command(id, words));
            }
        }
    }

    /// The section of that name, in capitals; all of them if there is none.
    fn info(&self, r: usize, section: &str) -> String {
        use std::fmt::Write;
        let redis = &self.redis[r];
        let has = |name: &str| section.is_empty() || section == name;
        let mut text = String::new();
        if has("SERVER") {
            let _ = write!(text, "run_id:{}\r\nprocess_id:{}\r\n", redis.run_id, redis.pid);
        }
        if has("PERSISTENCE") {
            let (loading, rewriting) = (u8::from(redis.loading), u8::from(redis.rewriting));
            let _ = write!(text, "loading:{loading}\r\naof_rewrite_in_progress:{rewriting}\r\n");
        }
        if has("REPLICATION") {
            self.info_replication(r, &mut text);
        }
        if has("KEYSPACE") {
            text += "# Keyspace\r\n";
            if !redis.data.is_empty() {
                let _ = write!(text, "db0:keys={},expires=0,avg_ttl=0\r\n", redis.data.len());
            }
        }
        text
    }

    fn info_replication(&self, r: usize, text: &mut String) {
        use std::fmt::Write;
        let redis = &self.redis[r];
        match redis.master {
            None => {
                let _ = write!(text, "role:master\r\nmaster_repl_offset:{}\r\n", redis.offset().max(0));
                for (place, replica) in self.attached(r).into_iter().enumerate() {
                    let (at, replica) = (redis_at(replica), &self.redis[replica]);
                    let state = if replica.link == Link::Up { "online" } else { "wait_bgsave" };
                    let (ip, port, offset) = (self.told_host(at), at.port(), replica.offset().max(0));
                    let _ = write!(text, "slave{place}:ip={ip},port={port},state={state},offset={offset},lag=0\r\n");
                }
            }
            Some(master) => {
                let (ip, port, offset) = (self.told_host(master), master.port(), redis.offset().max(0));
                let _ = write!(text, "role:slave\r\nmaster_host:{ip}\r\nmaster_port:{port}\r\n");
                let _ = write!(text, "slave_repl_offset:{offset}\r\nslave_priority:{}\r\n", redis.priority);
                let copying = u8::from(matches!(redis.link, Link::Copying(_)));
                let _ = write!(text, "master_sync_in_progress:{copying}\r\n");
                match redis.link {
                    Link::Up => text.push_str("master_link_status:up\r\n"),
                    Link::Down(Some(since)) | Link::Copying(Some(since)) => {
                        let seconds = self.now.since(since).as_secs();
                        let _ = write!(text, "master_link_status:down\r\nmaster_link_down_since_seconds:{seconds}\r\n");
                    }
                    Link::None | Link::Down(None) | Link::Copying(None) => {
                        text.push_str("master_link_status:down\r\nmaster_link_down_since_seconds:-1\r\n");
                    }
                }
            }
        }
        let earlier = redis.replid2.map_or(RunId([0; 20]), |(earlier, _)| earlier);
        let _ = write!(text, "master_replid:{}\r\nmaster_replid2:{earlier}\r\n", redis.replid);
    }

    /// A host as a redis tells of it.
    fn told_host(&self, address: SocketAddr) -> String {
        if self.plan.named { crate::dropin::host_name(host_of(address)) } else { address.ip().to_string() }
    }

    /// The redis at an address.
    pub fn redis_of(&self, address: SocketAddr) -> Option<usize> {
        let host = (address != CLOSED).then(|| host_of(address))?;
        (host < self.redis.len()).then_some(host)
    }
}
