//! The redis of the hosts: how each lives and dies, what waits for one that does not run, and what its commands do to others.
//! What it answers is in the [model](crate::model).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytes::Bytes;
use vigie::base::{Instant, RunId};
use vigie::cores::redis::Exit;
use vigie::wire::info::CLOSED;
use vigie::wire::resp::Reply;

use crate::dropin::{first_address, host_name};
use crate::model::{Effect, Hosts, Moment, Server, Words};
use crate::net::{Packet, Way, Wire};
use crate::world::{Happening, World, host_of, ms, redis_at};
use crate::writes::Write;

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

/// A redis-server, and what is under way to it.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    /// Its place among the groups.
    pub group: usize,
    /// Answers late by at most this.
    pub slow: Option<Duration>,
    pub flush_due: bool,
    /// It was told to end while it did not run.
    terminated: bool,
    /// A person has made it a master.
    pub by_hand: bool,
    /// The host that asked for the last pause, and the number of that one.
    pauser: (usize, u64),
    /// Writes that a pause holds.
    pub held: Vec<Write>,
    pub waiting: VecDeque<Work>,
    /// Pieces of the stream that wait for a way that is cut.
    pub stalled: VecDeque<Work>,
    pub stream_last: Instant,
    /// When the last command that came while it was slow is carried out.
    pub command_last: Instant,
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Redis {
    /// One that never ran. `named`: hosts have names.
    pub fn new(group: usize, conf: Option<SocketAddr>, id: RunId, named: bool) -> Self {
        let by_name: fn(SocketAddr) -> String = |address| host_name(host_of(address));
        let told = if named { by_name } else { Hosts::BY_ADDRESS.told };
        // However it is told, it finds a host where that was at first.
        let hosts = Hosts { told, found: |host, _| first_address(host) };
        Self {
            server: Server { hosts, ..Server::new(conf, id) },
            group,
            slow: None,
            flush_due: false,
            terminated: false,
            by_hand: false,
            pauser: (0, 0),
            held: Vec::new(),
            waiting: VecDeque::new(),
            stalled: VecDeque::new(),
            stream_last: Instant::START,
            command_last: Instant::START,
        }
    }

    /// Whether a client that reaches it is told that its write is done, by the will of the cluster.
    pub fn takes_writes(&self) -> bool {
        self.server.takes_writes() && !self.by_hand
    }

    /// The host of the sentinel that holds writes there.
    pub fn paused_by(&self) -> Option<usize> {
        self.pause.map(|_| self.pauser.0)
    }
}

impl World {
    /// Starts the process: closed if it has a supervisor, else as its file says.
    pub fn start_redis(&mut self, r: usize, closed: bool) {
        if self.redis[r].alive || !self.hosts[r].powered {
            return;
        }
        let (id, lineage, linked) = (self.dice.id(), self.dice.id(), self.plan.linked);
        let redis = &mut self.redis[r];
        let master = if linked { Some(CLOSED) } else { redis.conf };
        redis.start(id, lineage, master);
        redis.fenced = closed;
        redis.listening = !linked;
        redis.flush_due = false;
        redis.terminated = false;
        let incarnation = redis.incarnation;
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
        redis.die();
        redis.slow = None;
        redis.held.clear();
        redis.waiting.clear();
        redis.stalled.clear();
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
        redis.save();
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
        let replicas = self.attached(r).into_iter().map(|other| self.redis[other].attached(redis_at(other)));
        let replicas: Vec<_> = replicas.collect();
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.far) else { return };
        let moment = Moment { now: self.now, replicas: &replicas, id: &mut || self.dice.id() };
        let heard = self.redis[r].command(&mut wire.session, words, moment);
        for effect in heard.effects {
            match effect {
                Effect::Promoted => self.promoted(r),
                Effect::Follows(master) => self.follows(r, master),
                Effect::Published(payload) => self.published(r, &payload),
                Effect::Fenced => self.masters_changed(r),
                Effect::Paused => self.paused(r, id),
                Effect::Released => self.released(r),
                Effect::Killed { subscribed } => self.killed(r, id, subscribed),
            }
        }
        if let Some(reply) = heard.reply {
            self.answer(id, reply);
        }
    }

    fn answer(&mut self, id: u64, reply: Reply) {
        if let Some(gathered) = self.wires.get_mut(&id).and_then(|wire| wire.gathered.as_mut()) {
            return gathered.push(reply);
        }
        // A connection that the command itself has killed gets its answer first.
        self.send(id, Way::Near, Packet::Reply(Some(reply)));
    }

    fn published(&mut self, r: usize, payload: &Bytes) {
        let hears = |wire: &Wire| wire.to == r && !wire.to_sentinel && wire.session.subscribed && wire.far;
        let ids: Vec<u64> = self.wires.iter().filter(|(_, wire)| hears(wire)).map(|(id, _)| *id).collect();
        for id in ids {
            self.send(id, Way::Near, Packet::Message(payload.clone()));
        }
    }

    fn killed(&mut self, r: usize, own: u64, subscribed: bool) {
        let hit = |wire: &Wire| wire.to == r && !wire.to_sentinel && wire.far && wire.session.subscribed == subscribed;
        let ids: Vec<u64> =
            self.wires.iter().filter(|(id, wire)| **id != own && hit(wire)).map(|(id, _)| *id).collect();
        for id in ids {
            self.cut_off(id, true, "killed");
        }
        if !subscribed {
            self.redis[r].held.clear();
            self.sessions_cut(r);
        }
    }

    fn paused(&mut self, r: usize, id: u64) {
        let (Some(wire), Some(until)) = (self.wires.get(&id), self.redis[r].pause) else { return };
        let by = wire.from;
        let serial = self.count();
        self.redis[r].pauser = (by, serial);
        self.masters_changed(r);
        self.at(until, Happening::PauseOver(r, serial));
    }

    pub fn pause_over(&mut self, r: usize, serial: u64) {
        let redis = &mut self.redis[r];
        if redis.pauser.1 == serial && redis.pause.take().is_some() {
            self.released(r);
        }
    }

    /// What a pause has held goes on.
    fn released(&mut self, r: usize) {
        self.masters_changed(r);
        for write in std::mem::take(&mut self.redis[r].held) {
            self.redis_works(r, Work::Write(write));
        }
        let blocked = |wire: &Wire| wire.to == r && !wire.to_sentinel && !wire.session.blocked.is_empty();
        let ids: Vec<u64> = self.wires.iter().filter(|(_, wire)| blocked(wire)).map(|(id, _)| *id).collect();
        for id in ids {
            let waiting =
                self.wires.get_mut(&id).map(|wire| std::mem::take(&mut wire.session.blocked)).unwrap_or_default();
            for words in waiting {
                self.redis_works(r, Work::Command(id, words));
            }
        }
    }

    /// The redis at an address.
    pub fn redis_of(&self, address: SocketAddr) -> Option<usize> {
        let host = (address != CLOSED).then(|| host_of(address))?;
        (host < self.redis.len()).then_some(host)
    }
}
