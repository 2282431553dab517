//! The redis of the small cluster, with their supervisors: how they live and die, and how data get from one to another. What
//! each answers is in the [model](super::model).

use crate::base::node::{Process, RedisFacts, RedisRole};
use crate::wire::info::CLOSED;

use super::super::*;
use super::model::{Effect, Link, Moment, Server, Words};
use super::world::{World, id, ms, redis_at};

/// One that runs, and follows nobody yet; none: a master.
pub(super) fn started(n: usize, master: Option<SocketAddr>) -> Server {
    let mut server = Server::new(None, id(9, n, 0));
    server.start(id(7, n, 1), id(9, n, 0), master);
    server
}

impl World {
    pub(super) fn kill_redis(&mut self, n: usize) {
        for replica in 0..3 {
            let redis = &self.redis[replica];
            if redis.master == Some(redis_at(n)) && redis.alive {
                let sent = &self.redis[n].data;
                let unread = sent[sent.len() - redis.undrained..].to_vec();
                self.drains[replica] = Some((self.now + ms(20), unread));
            }
        }
        self.redis[n].die();
        self.drop_links(redis_at(n));
        self.replicate();
    }

    /// As its supervisor does: closed.
    pub(super) fn restart_redis(&mut self, n: usize) {
        self.restart_redis_as(n, Some(CLOSED));
    }

    /// None: as a master.
    pub(super) fn restart_redis_as(&mut self, n: usize, master: Option<SocketAddr>) {
        if self.redis[n].alive {
            self.kill_redis(n);
        }
        self.count += 1;
        let redis = &mut self.redis[n];
        redis.save();
        redis.start(id(7, n, redis.incarnation + 1), id(9, n, self.count), master);
        redis.loading = false;
        self.replicate();
    }

    pub(super) fn facts_of(&self, n: usize) -> RedisFacts {
        let redis = &self.redis[n];
        let process = match (redis.alive, redis.hung, redis.loading) {
            (false, _, _) => Process::Dead,
            (true, true, _) => Process::Busy,
            (true, false, true) => Process::Loading,
            (true, false, false) => Process::Alive,
        };
        let role = match redis.master {
            None => RedisRole::Master { replicas: 0 },
            Some(CLOSED) => RedisRole::Closed,
            Some(of) => RedisRole::Replica { of, link_up: redis.link == Link::Up },
        };
        RedisFacts {
            address: redis_at(n),
            // No two of a cluster have the same.
            incarnation: redis.incarnation.wrapping_add((n as u64 + 1) << 48),
            process,
            role,
            run_id: Some(redis.run_id),
            replication_id: Some(redis.replid),
            offset: 0,
            priority: redis.priority,
            has_data: !redis.data.is_empty(),
            history: self.histories[n],
        }
    }

    /// Moves the data, and tells everybody what has changed.
    pub(super) fn replicate(&mut self) {
        for n in 0..3 {
            if let Some((_, unread)) = self.drains[n].take_if(|(at, _)| self.now >= *at) {
                self.redis[n].data.extend(unread);
                self.redis[n].undrained = 0;
            }
            self.feed_redis(n);
        }
        for n in 0..3 {
            let facts = self.facts_of(n);
            if self.facts[n].0 != facts {
                self.facts[n].0 = facts;
                self.announce(n);
            }
        }
    }

    fn feed_redis(&mut self, n: usize) {
        let Some(master) = self.redis[n].master.filter(|master| *master != CLOSED) else { return };
        let from = Self::host(master);
        let reach = self.reach(n, from);
        let [redis, source] = self.redis.get_disjoint_mut([n, from]).expect("nobody follows itself");
        if reach && redis.alive && !redis.shut_out && source.is_master() && source.serves_replicas() {
            let count = &mut self.count;
            redis.feed_from(source, &mut || {
                *count += 1;
                id(9, from, *count)
            });
        } else if redis.link == Link::Up && self.drains[n].is_none() {
            redis.link_ended(self.now);
        }
    }

    /// A command reaches a redis. What is asked of one that does not run is lost here.
    pub(super) fn ask_redis(&mut self, n: usize, key: (usize, LinkId), words: Words) {
        let its = |other: &usize| self.redis[*other].is_attached_to(&self.redis[n], redis_at(n));
        let replicas: Vec<_> = (0..3).filter(its).map(|other| self.redis[other].attached(redis_at(other))).collect();
        let Some(wire) = self.wires.get_mut(&key).filter(|_| !self.redis[n].hung) else { return };
        let count = &mut self.count;
        let mut lineage = || {
            *count += 1;
            id(9, n, *count)
        };
        let moment = Moment { now: self.now, replicas: &replicas, id: &mut lineage };
        let heard = self.redis[n].command(&mut wire.session, words, moment);
        for effect in heard.effects {
            self.follow_up(n, key, effect);
        }
        let tag = self.wires.get_mut(&key).filter(|_| heard.reply.is_some()).and_then(|wire| wire.tags.pop_front());
        if let (Some(tag), Some(reply)) = (tag, heard.reply) {
            self.give(key.0, Input::Reply(key.1, tag, reply));
        }
    }

    /// What a command of a redis has done to others.
    fn follow_up(&mut self, n: usize, own: (usize, LinkId), effect: Effect) {
        let its = self.wires.iter().filter(|(_, wire)| wire.address == redis_at(n));
        match effect {
            Effect::Promoted => self.drains[n] = None,
            Effect::Published(payload) => {
                let hear = its.filter(|((sentinel, _), wire)| wire.session.subscribed && self.reach(*sentinel, n));
                for (sentinel, link) in hear.map(|(key, _)| *key).collect::<Vec<_>>() {
                    self.give(sentinel, Input::Message(link, payload.clone()));
                }
            }
            Effect::Released => {
                for key in its.map(|(key, _)| *key).collect::<Vec<_>>() {
                    let blocked = self.wires.get_mut(&key).map(|wire| std::mem::take(&mut wire.session.blocked));
                    for words in blocked.unwrap_or_default() {
                        self.ask_redis(n, key, words);
                    }
                }
            }
            Effect::Killed { subscribed } => {
                let hit = its.filter(|(key, wire)| **key != own && wire.session.subscribed == subscribed);
                for (sentinel, link) in hit.map(|(key, _)| *key).collect::<Vec<_>>() {
                    self.wires.remove(&(sentinel, link));
                    self.give(sentinel, Input::LinkDown(link, "killed".into()));
                }
            }
            // A hold has no end here but the one that whoever asked for it makes. Where the data come from is looked at in each
            // moment.
            Effect::Fenced | Effect::Paused | Effect::Follows(_) => {}
        }
    }
}
