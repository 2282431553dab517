//! Replication: full copies, partial ones, the stream and its lag.

use std::net::SocketAddr;
use std::time::Duration;

use crate::model::{self, Link};
use crate::redis::{Redis, Work};
use crate::world::{Happening, World, ms, redis_at};

/// A full copy on its way.
#[derive(Clone, Debug)]
pub struct Copy {
    data: model::Copy,
    from: usize,
}

impl World {
    /// The replicas that take a stream from `r`, or a copy.
    pub fn attached(&self, r: usize) -> Vec<usize> {
        let address = redis_at(r);
        let group = &self.groups[self.redis[r].group];
        let takes = |replica: &usize| *replica != r && self.redis[*replica].is_attached_to(&self.redis[r], address);
        group.iter().copied().filter(takes).collect()
    }

    /// A person makes it a master.
    pub fn promote(&mut self, r: usize) {
        if self.redis[r].master.is_some() {
            let id = self.dice.id();
            self.redis[r].promote(self.now, id);
            self.promoted(r);
        }
    }

    /// It has become a master.
    pub fn promoted(&mut self, r: usize) {
        self.note(|| format!("r{r} becomes a master"));
        self.check_promoted(r);
        let redis = &mut self.redis[r];
        redis.by_hand = false;
        redis.stalled.clear();
        self.drop_replicas(r);
        self.masters_changed(r);
    }

    /// A person makes it a replica.
    pub fn follow(&mut self, r: usize, master: SocketAddr) {
        if self.redis[r].follow(master) {
            self.follows(r, master);
        }
    }

    /// It was pointed at another master.
    pub fn follows(&mut self, r: usize, master: SocketAddr) {
        self.redis[r].stalled.clear();
        self.note(|| format!("r{r} follows {master}"));
        self.drop_replicas(r);
        self.masters_changed(r);
        self.try_soon(r, ms(2));
    }

    /// Closes the links of all replicas of `r`, behind what was sent on them; a copy that is not through is none.
    pub fn drop_replicas(&mut self, r: usize) {
        for replica in self.attached(r) {
            let end = Work::Eof(self.redis[replica].generation);
            if matches!(self.redis[replica].link, Link::Copying(_)) {
                let takes = self.net.takes_surely(r, replica);
                self.later(takes, Happening::Stream(r, replica, end));
            } else {
                self.stream(r, replica, end);
            }
        }
    }

    /// Tries to reach the master a little later.
    pub fn try_soon(&mut self, r: usize, limit: Duration) {
        let wait = self.dice.upto(limit) + Duration::from_micros(100);
        self.later(wait, Happening::TryMaster(r, self.redis[r].generation));
    }

    pub fn try_master(&mut self, r: usize, generation: u64) {
        let redis = &self.redis[r];
        let Some(address) = redis.master.filter(|_| redis.alive && redis.generation == generation) else { return };
        let Some(m) = self.redis_of(address).filter(|m| *m != r) else { return };
        if !matches!(redis.link, Link::Down(_)) {
            return;
        }
        let source = &self.redis[m];
        let serves = source.serves_replicas() && !source.hung;
        if redis.hung || redis.loading || !serves || !self.net.passes(r, m) || !self.net.passes(m, r) {
            // Its cron, once a second.
            return self.later(ms(1_000), Happening::TryMaster(r, generation));
        }
        if !self.redis[m].backlog {
            let id = self.dice.id();
            self.redis[m].begin_backlog(id);
        }
        if self.redis[r].can_go_on(&self.redis[m], self.plan.backlog) { self.go_on(r, m) } else { self.copy(r, m) }
    }

    /// A replica and its master.
    fn pair(&mut self, r: usize, m: usize) -> (&mut Redis, &Redis) {
        let [replica, master] = self.redis.get_disjoint_mut([r, m]).expect("nobody follows itself");
        (replica, master)
    }

    fn go_on(&mut self, r: usize, m: usize) {
        let (replica, source) = self.pair(r, m);
        let tail = replica.go_on(source);
        let generation = replica.generation;
        self.stats.partial_syncs += 1;
        if !tail.is_empty() {
            self.stream(m, r, Work::Stream(generation, tail));
        }
    }

    fn copy(&mut self, r: usize, m: usize) {
        let (replica, source) = self.pair(r, m);
        let copy = Copy { data: replica.begin_copy(source), from: m };
        self.stats.full_syncs += 1;
        let takes = self.dice.time(ms(5), self.plan.copy);
        let at = (self.now + takes).max(self.redis[r].stream_last);
        // What is written meanwhile comes behind it.
        self.redis[r].stream_last = at;
        self.at(at, Happening::Copied(r, self.redis[r].generation, Box::new(copy)));
    }

    pub fn copied(&mut self, r: usize, generation: u64, copy: Copy) {
        let redis = &self.redis[r];
        if redis.generation != generation || !redis.alive || !matches!(redis.link, Link::Copying(_)) {
            return;
        }
        if redis.hung {
            return self.later(ms(20), Happening::Copied(r, generation, Box::new(copy)));
        }
        if !self.net.passes(copy.from, r) || !self.hosts[copy.from].powered {
            self.redis[r].link_ended(self.now);
            return self.try_soon(r, ms(1_000));
        }
        self.note(|| format!("r{r} has a copy of r{}", copy.from));
        self.drop_replicas(r);
        self.redis[r].take_copy(copy.data);
        self.flush_soon(r);
        self.stream_again(r);
    }

    /// Adds writes to what `r` has, and sends them on.
    pub fn append(&mut self, r: usize, writes: &[u32]) {
        self.redis[r].data.extend_from_slice(writes);
        for replica in self.attached(r) {
            let generation = self.redis[replica].generation;
            self.stream(r, replica, Work::Stream(generation, writes.to_vec()));
        }
        self.flush_soon(r);
    }

    fn stream(&mut self, from: usize, to: usize, work: Work) {
        let takes = self.net.takes_surely(from, to);
        let at = (self.now + takes).max(self.redis[to].stream_last + Duration::from_micros(1));
        self.redis[to].stream_last = at;
        self.at(at, Happening::Stream(from, to, work));
    }

    pub fn stream_comes(&mut self, from: usize, to: usize, work: Work) {
        let generation = match &work {
            Work::Stream(generation, _) | Work::Eof(generation) => *generation,
            Work::Command(..) | Work::Commands(..) | Work::Write(..) => return,
        };
        let redis = &mut self.redis[to];
        if redis.generation != generation || !redis.alive {
            return;
        }
        if matches!((&work, redis.link), (Work::Eof(_), Link::Copying(_))) && self.net.passes(from, to) {
            return self.redis_works(to, work);
        }
        if !redis.stalled.is_empty() || !self.net.passes(from, to) || matches!(redis.link, Link::Copying(_)) {
            return redis.stalled.push_back(work);
        }
        self.redis_works(to, work);
    }

    /// What waited for the way from its master goes on.
    pub fn stream_again(&mut self, r: usize) {
        let redis = &self.redis[r];
        let Some(m) = redis.master.and_then(|master| self.redis_of(master)) else { return };
        if redis.stalled.is_empty() || !self.net.passes(m, r) || matches!(redis.link, Link::Copying(_)) {
            return;
        }
        for work in std::mem::take(&mut self.redis[r].stalled) {
            self.redis_works(r, work);
        }
    }

    pub fn stream_arrives(&mut self, r: usize, generation: u64, writes: &[u32]) {
        if self.redis[r].generation == generation && self.redis[r].link == Link::Up {
            self.writes.copied(writes);
            self.append(r, writes);
        }
    }

    /// The master's end of the link is closed.
    pub fn link_ended(&mut self, r: usize, generation: u64) {
        let redis = &mut self.redis[r];
        if redis.generation != generation || redis.master.is_none() {
            return;
        }
        redis.link_ended(self.now);
        redis.stalled.clear();
        self.try_soon(r, ms(1_000));
    }

    /// Gives up a link whose master has not been heard for too long.
    pub fn link_timed_out(&mut self, r: usize, generation: u64) {
        let redis = &self.redis[r];
        let master = redis.master.and_then(|master| self.redis_of(master));
        let silent = master.is_some_and(|m| {
            !self.net.passes(m, r) || !self.redis[m].alive || self.redis[m].hung || !self.hosts[m].powered
        });
        if redis.generation == generation && redis.alive && silent {
            self.link_ended(r, generation);
        }
    }

    /// Starts the clock of silence for all links that may be cut.
    pub fn watch_links(&mut self) {
        for r in 0..self.redis.len() {
            if matches!(self.redis[r].link, Link::Up | Link::Copying(_)) {
                self.later(self.plan.repl_timeout, Happening::LinkTimeout(r, self.redis[r].generation));
            }
        }
    }

    /// What it holds is on disk a little later.
    fn flush_soon(&mut self, r: usize) {
        if !std::mem::replace(&mut self.redis[r].flush_due, true) {
            let wait = self.dice.upto(ms(1_000)) + ms(1);
            self.later(wait, Happening::Flush(r, self.redis[r].incarnation));
        }
    }

    pub fn flush(&mut self, r: usize, incarnation: u64) {
        let redis = &mut self.redis[r];
        if redis.incarnation == incarnation && redis.alive {
            redis.flush_due = false;
            redis.save();
        }
    }
}
