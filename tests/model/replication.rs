//! How the data of a redis-server become another's: what its lineage is, when a replica goes on where it stopped, and what a
//! full copy brings. How long that takes, and what comes in between, is up to whoever surrounds the two.

use std::net::SocketAddr;

use vigie::base::{Instant, RunId};

use super::server::{Link, Server};

/// A replica as its master lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub address: SocketAddr,
    /// Whether it takes the stream; a full copy is under way else.
    pub online: bool,
    pub offset: i64,
}

/// What a full copy brings.
#[derive(Clone, Debug)]
pub struct Copy {
    data: Vec<u32>,
    base: i64,
    replid: RunId,
}

impl Server {
    /// REPLICAOF NO ONE, said to a replica. `id`: its lineage from now on.
    pub fn promote(&mut self, now: Instant, id: RunId) {
        self.replid2 = Some((self.replid, self.offset() + 1));
        self.replid = id;
        self.master = None;
        self.master_since = now;
        self.conf = None;
        self.link = Link::None;
        self.generation += 1;
        // What is still in the socket of the old master is lost.
        self.undrained = 0;
    }

    /// REPLICAOF host port. False: it follows that one already.
    pub fn follow(&mut self, master: SocketAddr) -> bool {
        let news = self.master != Some(master);
        if news {
            self.master = Some(master);
            self.conf = Some(master);
            self.link = Link::Down(None);
            self.generation += 1;
        }
        news
    }

    /// Whether it takes a stream from `master`, which is there, or a copy. A process knows nothing of the replicas of the one
    /// before, who may not have noticed yet.
    pub fn is_attached_to(&self, master: &Self, there: SocketAddr) -> bool {
        let linked = matches!(self.link, Link::Up | Link::Copying(_)) && self.fed_by == master.incarnation;
        self.alive && self.master == Some(there) && linked
    }

    /// As its master lists it. `address`: its own.
    pub fn attached(&self, address: SocketAddr) -> Attached {
        Attached { address, online: self.link == Link::Up, offset: self.offset().max(0) }
    }

    /// Whether replicas can synchronise with it.
    pub fn serves_replicas(&self) -> bool {
        self.alive && !self.loading && matches!(self.link, Link::None | Link::Up)
    }

    /// A replica comes for the first time: what it is sent is remembered from now on. What a master has counted before, it
    /// counts anew by `id`.
    pub fn begin_backlog(&mut self, id: RunId) {
        self.backlog = true;
        if self.master.is_none() {
            (self.replid, self.replid2) = (id, None);
        }
    }

    /// Whether what it has is the beginning of what `source` has, and `source` remembers the rest, up to `backlog`.
    pub fn can_go_on(&self, source: &Self, backlog: usize) -> bool {
        let (has, offset) = (self.offset(), source.offset());
        let shared = self.replid == source.replid && has <= offset
            || source.replid2.is_some_and(|(id, end)| id == self.replid && has < end);
        let most = backlog.min(source.data.len());
        shared && usize::try_from(offset - has).is_ok_and(|missing| missing <= most)
    }

    /// Goes on where it stopped; what it lacks of what `source` has.
    pub fn go_on(&mut self, source: &Self) -> Vec<u32> {
        let missing = usize::try_from(source.offset() - self.offset()).unwrap_or(0);
        if self.replid != source.replid {
            self.replid2 = Some((self.replid, self.offset() + 1));
            self.replid = source.replid;
        }
        (self.link, self.fed_by) = (Link::Up, source.incarnation);
        self.backlog = true;
        source.data[source.data.len() - missing..].to_vec()
    }

    /// Asks for a full copy of what `source` has.
    pub fn begin_copy(&mut self, source: &Self) -> Copy {
        self.link = match self.link {
            Link::Down(since) => Link::Copying(since),
            Link::None | Link::Copying(_) | Link::Up => Link::Copying(None),
        };
        self.fed_by = source.incarnation;
        Copy { data: source.data.clone(), base: source.base, replid: source.replid }
    }

    /// Has a full copy in the place of what it had.
    pub fn take_copy(&mut self, copy: Copy) {
        (self.data, self.base, self.replid, self.replid2) = (copy.data, copy.base, copy.replid, None);
        self.link = Link::Up;
        self.backlog = true;
        self.rewriting = true;
    }

    /// Its link to its master has ended.
    pub fn link_ended(&mut self, now: Instant) {
        self.generation += 1;
        self.link = Link::Down(match self.link {
            Link::Up => Some(now),
            Link::Copying(since) | Link::Down(since) => since,
            Link::None => None,
        });
    }

    /// Where replication takes no time: it is in sync with its master at once, but for what holds that up.
    pub fn feed_from(&mut self, source: &mut Self, id: &mut dyn FnMut() -> RunId) {
        if self.link != Link::Up || self.replid != source.replid {
            if !source.backlog {
                source.begin_backlog(id());
            }
            if self.can_go_on(source, usize::MAX) {
                // What it lacks comes with the stream.
                self.go_on(source);
            } else {
                let copy = self.begin_copy(source);
                self.take_copy(copy);
                self.rewriting = false;
            }
        }
        if !self.stuck {
            let read = source.data.len().saturating_sub(self.undrained);
            if self.data.len() != read {
                self.data = source.data[..read].to_vec();
            }
            self.base = source.base;
        }
    }
}
