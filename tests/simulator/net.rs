//! The network: directed ways between hosts that can be cut, and connections that lose nothing, keep their order, stall
//! and break.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use vigie::base::Instant;
use vigie::cores::sentinel::{ClientId, Input, LinkId, Tag};
use vigie::wire::resp::Reply;

use crate::dice::Dice;
use crate::model::{Session, Words};
use crate::redis::Work;
use crate::world::{Happening, SENTINEL_PORT, World, host_of, ms};

/// The ways from host to host.
pub struct Net {
    dice: Dice,
    /// From, to.
    cut: BTreeSet<(usize, usize)>,
    /// Hosts whose cable is out.
    unplugged: BTreeSet<usize>,
    pub delay: Duration,
    pub jitter: Duration,
    /// Losses, of 1,000.
    pub loss: usize,
}

impl Net {
    pub fn new(seed: u64, delay: Duration, jitter: Duration, loss: usize) -> Self {
        Self { dice: Dice::new(seed, 1), cut: BTreeSet::new(), unplugged: BTreeSet::new(), delay, jitter, loss }
    }

    /// Whether what `from` sends reaches `to`.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to)) && ![from, to].iter().any(|host| self.unplugged.contains(host))
    }

    pub fn unplug(&mut self, host: usize, out: bool) {
        if out {
            self.unplugged.insert(host);
        } else {
            self.unplugged.remove(&host);
        }
    }

    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// How long something takes on its way.
    pub fn takes(&mut self, from: usize, to: usize) -> Duration {
        if from == to { Duration::from_micros(20) } else { self.delay + self.dice.upto(self.jitter) }
    }

    /// The same for what is sent again when it is lost.
    pub fn takes_surely(&mut self, from: usize, to: usize) -> Duration {
        let mut time = self.takes(from, to);
        let mut again = ms(200);
        while from != to && self.dice.chance(self.loss) && again < ms(5_000) {
            time += again;
            again *= 2;
        }
        time
    }

    /// Whether a datagram is lost.
    pub fn loses(&mut self, from: usize, to: usize) -> bool {
        from != to && self.dice.chance(self.loss)
    }

    /// Whether a datagram comes twice.
    pub fn doubles(&mut self) -> bool {
        self.dice.chance(self.loss / 2)
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To whoever was connected to.
    Far,
    /// To the sentinel that opened it.
    Near,
}

/// What travels on a connection.
#[derive(Clone, Debug)]
pub enum Packet {
    /// A command.
    Command(Words),
    /// Commands that are sent together.
    Commands(Vec<Words>),
    /// The replies to them.
    Replies(Vec<Reply>),
    /// A reply; none: one that the other end does not take for one (several messages, a null array).
    Reply(Option<Reply>),
    /// A message of a subscription.
    Message(Bytes),
    /// The end of the connection.
    End(&'static str),
}

/// Who has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The sentinel of the host, by the name that it has there.
    Sentinel(LinkId),
    /// The supervisor of the host.
    Supervisor,
    /// The fence of the redis on that host.
    Fence,
    /// The proxy of the host, for its check of that serial.
    Check(u64),
}

/// A connection to a redis, or of a sentinel to another one.
#[derive(Debug)]
pub struct Wire {
    /// The host of who opened it.
    pub from: usize,
    pub owner: Owner,
    /// The host it leads to.
    pub to: usize,
    /// Whether it leads to a sentinel.
    pub to_sentinel: bool,
    /// Its name at the other sentinel.
    pub client: ClientId,
    /// Whether the process that opened it still has it.
    pub near: bool,
    /// Whether that process was told that it stands.
    pub up: bool,
    /// How long it may take until then.
    limit: Duration,
    /// Whether the process it leads to still has it.
    pub far: bool,
    /// What the replies to come answer.
    pub tags: VecDeque<Tag>,
    /// What a redis at its far end knows of it.
    pub session: Session,
    /// Replies that leave together.
    pub gathered: Option<Vec<Reply>>,
    last: [Instant; 2],
    stalled: [VecDeque<Packet>; 2],
}

fn side(way: Way) -> usize {
    match way {
        Way::Far => 0,
        Way::Near => 1,
    }
}

impl Wire {
    fn ends(&self, way: Way) -> (usize, usize) {
        match way {
            Way::Far => (self.from, self.to),
            Way::Near => (self.to, self.from),
        }
    }
}

impl World {
    /// Opens a connection for the sentinel of host `from`.
    pub fn connect(&mut self, from: usize, link: LinkId, address: std::net::SocketAddr, limit: Duration) {
        let (to, to_sentinel) = (host_of(address), address.port() == SENTINEL_PORT);
        let id = self.open_far(from, Owner::Sentinel(link), address, limit);
        self.sentinels[from].links.insert(link, id);
        self.sentinels[from].ends.insert(link, (to, to_sentinel));
    }

    /// Opens a connection for somebody on host `from`.
    pub fn open_far(&mut self, from: usize, owner: Owner, address: std::net::SocketAddr, limit: Duration) -> u64 {
        let (to, to_sentinel) = (host_of(address), address.port() == SENTINEL_PORT);
        let id = self.new_wire(from, owner, to, to_sentinel, limit);
        if to >= self.hosts.len() {
            // It would be told a password.
            self.checks.violated(format!("s{from} connects to {address}, which is in no file"));
            self.later(limit, Happening::ConnectFailed(id, "timed out"));
            return id;
        }
        let there = self.now_at(to, address.port()).ip() == address.ip();
        if there && self.net.passes(from, to) && self.hosts[to].powered {
            let at = self.net.takes_surely(from, to);
            if at < limit {
                self.later(at, Happening::Syn(id, self.now + limit));
                return id;
            }
        }
        self.later(limit, Happening::ConnectFailed(id, "timed out"));
        id
    }

    fn new_wire(&mut self, from: usize, owner: Owner, to: usize, to_sentinel: bool, limit: Duration) -> u64 {
        let id = self.count();
        let wire = Wire {
            from,
            owner,
            to,
            to_sentinel,
            client: ClientId(id),
            near: true,
            up: false,
            limit,
            far: false,
            tags: VecDeque::new(),
            session: Session::default(),
            gathered: None,
            last: [self.now; 2],
            stalled: [VecDeque::new(), VecDeque::new()],
        };
        self.wires.insert(id, wire);
        id
    }

    /// Opens a connection to the redis of the own host, which listens: that takes no time.
    pub fn open_near(&mut self, host: usize, owner: Owner) -> u64 {
        let id = self.new_wire(host, owner, host, false, Duration::ZERO);
        if let Some(wire) = self.wires.get_mut(&id) {
            (wire.up, wire.far) = (true, true);
        }
        id
    }

    /// The first packet of a connection arrives.
    pub fn syn(&mut self, id: u64, limit: Instant) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let (from, to, client) = (wire.from, wire.to, wire.client);
        if !self.hosts[to].powered {
            return self.at(limit, Happening::ConnectFailed(id, "timed out"));
        }
        let listens = if wire.to_sentinel { self.sentinels[to].core.is_some() } else { self.redis[to].listens() };
        let back = self.net.takes_surely(to, from);
        let heard = self.net.passes(to, from) && self.now + back < limit;
        if listens {
            wire.far = true;
            if wire.to_sentinel {
                self.sentinels[to].clients.insert(client, id);
                self.give_later(to, Input::ClientCame(client, crate::sentinel::sockets(from, to)));
            }
        }
        match (heard, listens) {
            (true, true) => self.later(back, Happening::Connected(id)),
            (true, false) => self.later(back, Happening::ConnectFailed(id, "connection refused")),
            (false, _) => self.at(limit, Happening::ConnectFailed(id, "timed out")),
        }
    }

    pub fn connected(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.near) else { return };
        let (from, to, limit) = (wire.from, wire.to, wire.limit);
        let tells = match wire.owner {
            Owner::Sentinel(_) => true,
            Owner::Supervisor | Owner::Fence => false,
            Owner::Check(serial) => self.asks_for_role(from, serial),
        };
        if self.plan.linked && from != to && tells {
            self.later(limit, Happening::ConnectFailed(id, "the node does not show that it is there"));
            self.show(from, id, to);
        } else {
            self.link_up(id);
        }
    }

    /// A connection stands, and whoever is at its far end belongs there.
    pub fn link_up(&mut self, id: u64) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.near && !wire.up) else { return };
        wire.up = true;
        let (from, owner) = (wire.from, wire.owner);
        match owner {
            Owner::Sentinel(link) => self.give(from, Input::LinkUp(link, crate::world::redis_at(from).ip())),
            Owner::Supervisor | Owner::Fence => {}
            Owner::Check(serial) => self.check_connected(from, serial, id),
        }
    }

    pub fn connect_failed(&mut self, id: u64, why: &'static str) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.near && !wire.up) else { return };
        let far = wire.far;
        if far {
            self.send(id, Way::Far, Packet::End("given up"));
        }
        self.ended_near(id, why);
    }

    /// A connection has ended for who opened it.
    fn ended_near(&mut self, id: u64, why: &'static str) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.near = false;
        let (from, owner) = (wire.from, wire.owner);
        match owner {
            Owner::Sentinel(link) => {
                self.sentinels[from].links.remove(&link);
                self.give(from, Input::LinkDown(link, why.to_owned()));
            }
            Owner::Supervisor => self.keeper_cut(from, id, why),
            Owner::Fence => self.fence_cut(from, id),
            Owner::Check(serial) => self.check_cut(from, serial, why),
        }
        self.forget(id);
    }

    /// Sends on a connection.
    pub fn send(&mut self, id: u64, way: Way, packet: Packet) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let (from, to) = wire.ends(way);
        let soonest = wire.last[side(way)] + Duration::from_micros(1);
        let at = soonest.max(self.now + self.net.takes_surely(from, to));
        wire.last[side(way)] = at;
        self.at(at, Happening::Deliver(id, way, packet));
    }

    /// Something arrives, unless the way is cut now: then it stays where it is until the way is free again.
    pub fn deliver(&mut self, id: u64, way: Way, packet: Packet) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let (from, to) = wire.ends(way);
        if !wire.stalled[side(way)].is_empty() || !self.net.passes(from, to) || !self.hosts[to].powered {
            wire.stalled[side(way)].push_back(packet);
            return;
        }
        match way {
            Way::Far => self.deliver_far(id, packet),
            Way::Near => self.deliver_near(id, packet),
        }
    }

    fn deliver_far(&mut self, id: u64, packet: Packet) {
        let wire = &self.wires[&id];
        let (to, client, to_sentinel) = (wire.to, wire.client, wire.to_sentinel);
        match packet {
            Packet::Command(_) | Packet::Commands(_) if !wire.far => {
                self.send(id, Way::Near, Packet::End("connection reset by peer"))
            }
            Packet::Command(words) if to_sentinel => self.give_later(to, Input::Command(client, words)),
            Packet::Command(words) => self.redis_hears(to, Work::Command(id, words)),
            Packet::Commands(all) => self.redis_hears(to, Work::Commands(id, all)),
            Packet::End(_) => {
                self.close_far(id);
                self.forget(id);
            }
            Packet::Reply(_) | Packet::Replies(_) | Packet::Message(_) => {}
        }
    }

    fn deliver_near(&mut self, id: u64, packet: Packet) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.near) else { return self.forget(id) };
        let (from, owner) = (wire.from, wire.owner);
        match (packet, owner) {
            (Packet::Reply(reply), Owner::Sentinel(link)) => {
                let Some(tag) = wire.tags.pop_front() else { return };
                if let Some(reply) = reply {
                    self.give(from, Input::Reply(link, tag, reply));
                }
            }
            (Packet::Message(payload), Owner::Sentinel(link)) => self.give(from, Input::Message(link, payload)),
            (Packet::Replies(replies), Owner::Supervisor) => self.keeper_hears(from, &replies),
            (Packet::Replies(replies), Owner::Fence) => self.fence_hears(from, id, &replies),
            (Packet::Replies(replies), Owner::Check(serial)) => self.check_hears(from, serial, &replies),
            (Packet::End(why), Owner::Sentinel(_) | Owner::Supervisor | Owner::Fence | Owner::Check(_)) => {
                self.ended_near(id, why);
            }
            (Packet::Command(_) | Packet::Commands(_), _)
            | (Packet::Reply(_) | Packet::Message(_), Owner::Supervisor | Owner::Fence | Owner::Check(_))
            | (Packet::Replies(_), Owner::Sentinel(_)) => {}
        }
    }

    /// The process at the far end has the connection no more.
    fn close_far(&mut self, id: u64) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.far) else { return };
        wire.far = false;
        let (to, client) = (wire.to, wire.client);
        if wire.to_sentinel && self.sentinels[to].clients.remove(&client).is_some() {
            self.give_later(to, Input::ClientGone(client));
        }
    }

    fn forget(&mut self, id: u64) {
        if self.wires.get(&id).is_some_and(|wire| !wire.near && !wire.far) {
            self.wires.remove(&id);
        }
    }

    /// The sentinel gives a connection up.
    pub fn hang_up(&mut self, from: usize, link: LinkId) {
        if let Some(id) = self.sentinels[from].links.remove(&link) {
            self.close_near(id);
        }
    }

    /// Who opened a connection closes it.
    pub fn close_near(&mut self, id: u64) {
        if let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.near) {
            wire.near = false;
            self.send(id, Way::Far, Packet::End("closed"));
        }
        self.forget(id);
    }

    /// The far end closes a connection: its process dies, or it does not want it any more. `told`: the near end hears of it.
    pub fn cut_off(&mut self, id: u64, told: bool, why: &'static str) {
        self.close_far(id);
        if told {
            self.send(id, Way::Near, Packet::End(why));
        }
        self.forget(id);
    }

    /// A connection breaks at both ends at once.
    pub fn reset(&mut self, id: u64) {
        self.close_far(id);
        self.deliver_near(id, Packet::End("connection reset by peer"));
    }

    /// All connections that the process of a host has opened end with it; `told`: the far ends hear of it.
    pub fn drop_near(&mut self, from: usize, told: bool) {
        let opened: Vec<u64> =
            self.wires.iter().filter(|(_, wire)| wire.from == from && wire.near).map(|(id, _)| *id).collect();
        for id in opened {
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.near = false;
            }
            if told {
                self.send(id, Way::Far, Packet::End("closed"));
            }
            self.forget(id);
        }
    }

    /// All connections to a redis, or to the sentinel of a host, end with its process.
    pub fn drop_far(&mut self, to: usize, to_sentinel: bool, told: bool) {
        let lost = |wire: &Wire| wire.to == to && wire.to_sentinel == to_sentinel && wire.far;
        let lost: Vec<u64> = self.wires.iter().filter(|(_, wire)| lost(wire)).map(|(id, _)| *id).collect();
        for id in lost {
            self.cut_off(id, told, "connection closed");
        }
    }

    /// What waited for a way that is free now goes on, in its order.
    pub fn flow_again(&mut self) {
        let ids: Vec<u64> = self.wires.keys().copied().collect();
        for id in ids {
            for way in [Way::Far, Way::Near] {
                let Some(wire) = self.wires.get_mut(&id) else { continue };
                let (from, to) = wire.ends(way);
                if wire.stalled[side(way)].is_empty() || !self.net.passes(from, to) || !self.hosts[to].powered {
                    continue;
                }
                let waiting = std::mem::take(&mut wire.stalled[side(way)]);
                // TCP tries again after a while that has grown with the stall.
                let pause = self.net.dice.time(ms(1), ms(400));
                let mut at = wire.last[side(way)].max(self.now + pause);
                for packet in waiting {
                    at = at + Duration::from_micros(1);
                    self.at(at, Happening::Deliver(id, way, packet));
                }
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.last[side(way)] = at;
                }
            }
        }
    }
}
