//! Links, PING, INFO and hello; what the answers say; and when an instance is found down.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::node::{Decision, Mode};
use crate::base::{Instant, Place, Secret};
use crate::wire::hello::{self, Hello};
use crate::wire::info::{Info, Role};
use crate::wire::resp::Reply;

use super::config::MasterConfig;
use super::event::{Event, Severity};
use super::ids::LinkId;
use super::instance::{Answered, INFO_PERIOD_FAILOVER};
use super::link::Link;
use super::master::Judgement;
use super::moment::Moment;
use super::peer::Peer;
use super::ports::{NodeFacts, Output};
use super::query::{Tag, words};
use super::refused::Refused;
use super::sabotage::Rule;
use super::settings::Settings;
use super::{Agreement, Owner};

/// Longest time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Who is at the other end of a link.
enum Far {
    Command(usize, usize),
    PubSub(usize, usize),
    Peer(usize),
}

impl Agreement {
    pub(super) fn query(&mut self, link: LinkId, tag: Tag, args: &[&str]) {
        self.free.push(Output::Query { link, tag, args: words(args) });
    }

    fn far(&self, link: LinkId) -> Option<Far> {
        let place = |master, instance| {
            let m = self.place_of(master)?;
            Some((m, self.masters[m].place_of_id(instance)?))
        };
        match self.links.get(&link)?.0 {
            Owner::Command(master, instance) => place(master, instance).map(|(m, n)| Far::Command(m, n)),
            Owner::PubSub(master, instance) => place(master, instance).map(|(m, n)| Far::PubSub(m, n)),
            Owner::Peer(key) => self.peers.iter().position(|peer| peer.key == key).map(Far::Peer),
        }
    }

    fn fresh_link(&mut self) -> LinkId {
        self.links_made = self.links_made.wrapping_add(1);
        LinkId(self.links_made)
    }

    fn greet(&mut self, link: LinkId, user: Option<&str>, password: Option<&Secret>, kind: &str) {
        match (user, password) {
            (Some(user), Some(password)) => self.query(link, Tag::Auth, &["AUTH", user, password.reveal()]),
            (None, Some(password)) => self.query(link, Tag::Auth, &["AUTH", password.reveal()]),
            (_, None) => {}
        }
        let id = self.me().to_string();
        self.query(link, Tag::Ignored, &["CLIENT", "SETNAME", &format!("sentinel-{}-{kind}", &id[..8])]);
    }

    fn greet_redis(&mut self, m: usize, link: LinkId, kind: &str) {
        let MasterConfig { auth_user, auth_pass, .. } = &self.masters[m].config;
        let (user, password) = (auth_user.clone(), auth_pass.clone());
        self.greet(link, user.as_deref(), password.as_ref(), kind);
    }

    fn greet_peer(&mut self, link: LinkId) {
        let Settings { sentinel_user, sentinel_pass, require_pass, .. } = &self.settings;
        let (user, password) = (sentinel_user.clone(), sentinel_pass.clone().or_else(|| require_pass.clone()));
        self.greet(link, user.as_deref(), password.as_ref(), "cmd");
    }

    pub(super) fn link_up(&mut self, link: LinkId, local: IpAddr, now: Instant) {
        self.links.get_mut(&link).into_iter().for_each(|(_, own)| *own = Some(local));
        match self.far(link) {
            None => {}
            Some(Far::Command(m, n)) => {
                self.greet_redis(m, link, "cmd");
                let node = &mut self.masters[m].nodes[n];
                node.command.connected(now);
                (node.pulse.due, node.info_due) = (now, now);
            }
            Some(Far::PubSub(m, n)) => {
                self.greet_redis(m, link, "pubsub");
                self.query(link, Tag::Subscribe, &["SUBSCRIBE", hello::CHANNEL]);
                self.masters[m].nodes[n].pubsub.connected(now);
            }
            Some(Far::Peer(p)) => {
                self.greet_peer(link);
                let peer = &mut self.peers[p];
                peer.link.connected(now);
                peer.pulse.due = now;
                self.say_hello_to_peer(p, now);
            }
        }
    }

    pub(super) fn link_down(&mut self, link: LinkId, reason: &str, now: Instant) {
        let far = self.far(link);
        self.links.remove(&link);
        match far {
            None => {}
            Some(Far::Command(m, n)) => {
                let node = &mut self.masters[m].nodes[n];
                node.command.ended(now);
                node.command_lost(now);
                self.link_lost(m, n, reason, now);
            }
            Some(Far::PubSub(m, n)) => self.masters[m].nodes[n].pubsub.ended(now),
            Some(Far::Peer(p)) => self.peers[p].lost(now),
        }
    }

    /// Opens a link that should be open.
    fn open(&mut self, link: &Link, owner: Owner, address: SocketAddr, limit: Duration, now: Instant) -> Option<Link> {
        let Link::Down { retry_at, backoff } = *link else { return None };
        if address.ip().is_unspecified() {
            // Its name is not known yet; the answer brings a turn.
            return None;
        }
        if now < retry_at {
            self.wake_at(retry_at);
            return None;
        }
        let id = self.fresh_link();
        self.links.insert(id, (owner, None));
        self.free.push(Output::Connect { link: id, address, limit: limit.min(CONNECT_MAX) });
        Some(Link::Connecting { id, backoff })
    }

    /// Keeps the links of one redis, its pings and its INFO going.
    pub(super) fn tend_node(&mut self, m: usize, n: usize, now: Instant) {
        let master = &self.masters[m];
        let (node, down_after) = (&master.nodes[n], master.config.down_after);
        let (command, pubsub) = (Owner::Command(master.id, node.id), Owner::PubSub(master.id, node.id));
        let (address, links) = (node.address, (node.command.clone(), node.pubsub.clone()));
        let timers = &self.timers;
        // The own host is lost together with this sentinel, and its supervisor says at once if redis is dead.
        let watched = n == master.at() && !self.membership.is_own(node.node.as_ref());
        let promoted = master.failover().lead().is_some_and(|lead| lead.phase.target() == Some(n));
        let shortest = timers.ping_period(down_after);
        let heard = node.fresh && !node.overdue;
        let period = match (watched, heard) {
            _ if promoted => shortest,
            // One that asks for its lease says something more often than any other.
            (true, true) if master.mode == Mode::Fenced => timers.lease_ping_period(down_after),
            (true, _) => shortest,
            (false, true) => timers.heard_ping_period(down_after),
            (false, false) => timers.slow_ping_period(down_after),
        };
        // Together with a ping of the master, rather than to wake for it alone.
        let early = (period - shortest) / 4;
        let may_open = self.membership.trusts(node.fresh) || !self.rules.holds(Rule::OwnVoices);
        // The second link follows the first: what cannot be reached need not be tried twice.
        let listens = node.command.up().is_some() && self.membership.hears_greetings();
        let command = if may_open { self.open(&links.0, command, address, down_after, now) } else { None };
        let pubsub = if listens { self.open(&links.1, pubsub, address, down_after, now) } else { None };
        let node = &mut self.masters[m].nodes[n];
        command.into_iter().for_each(|link| node.command = link);
        pubsub.into_iter().for_each(|link| node.pubsub = link);
        let Some(link) = node.command.up() else { return };
        let (asked, info_due) = (node.info_sent.is_some(), node.info_due);
        match node.pulse.sent {
            None if now + early >= node.pulse.due => {
                node.pulse.pinged(now, period);
                self.query(link, Tag::Ping, &["PING"]);
            }
            None => {
                let due = node.pulse.due;
                self.wake_at(due);
            }
            Some(sent) => {
                let young = node.command.since().map_or(sent, |since| since + self.timers.min_link_reconnect);
                // A connection through a network that was cut would come back only when TCP tries again, seconds later.
                let given_up_at = (sent + down_after).max(young);
                if now >= given_up_at {
                    self.hang_up_node(m, n, now);
                    self.wake_at(now);
                    return;
                }
                self.wake_at(given_up_at);
            }
        }
        if !asked && now >= info_due {
            self.ask_info(m, n, now);
        } else if !asked {
            self.wake_at(info_due);
        }
    }

    pub(super) fn hang_up(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.free.push(Output::Hangup(link));
    }

    pub(super) fn hang_up_node(&mut self, m: usize, n: usize, now: Instant) {
        let links = self.masters[m].nodes[n].hang_up(now);
        links.for_each(|link| self.hang_up(link));
    }

    /// Ends the link to another sentinel, if there is one: it is to be connected to again.
    pub(super) fn hang_up_peer(&mut self, p: usize, now: Instant) {
        if let Some(link) = self.peers[p].link.id() {
            self.peers[p].lost(now);
            self.hang_up(link);
        }
    }

    /// Keeps the link to one other sentinel and its pings going.
    pub(super) fn tend_peer(&mut self, p: usize, now: Instant) {
        let peer = &self.peers[p];
        let first = self.masters.iter().find(|master| peer.watches(master));
        let down_after = first.map_or(CONNECT_MAX, |master| master.config.down_after);
        if peer.stock {
            let (link, address, owner) = (peer.link.clone(), peer.address, Owner::Peer(peer.key));
            let link = self.open(&link, owner, address, down_after, now);
            link.into_iter().for_each(|link| self.peers[p].link = link);
        }
        self.judge_peer(p, down_after, now);
        let peer = &mut self.peers[p];
        let Some(link) = peer.link.up().filter(|_| peer.stock) else { return };
        match peer.pulse.sent {
            None if now >= peer.pulse.due => {
                let period = self.timers.ping.unwrap_or_else(|| (down_after / 2).min(Duration::from_secs(1)));
                peer.pulse.pinged(now, period);
                self.query(link, Tag::Ping, &["PING"]);
            }
            None => {
                let due = peer.pulse.due;
                self.wake_at(due);
            }
            Some(sent) if now >= sent + down_after => {
                self.hang_up_peer(p, now);
                self.wake_at(now);
            }
            Some(sent) => self.wake_at(sent + down_after),
        }
    }

    /// The masters that a peer is known to watch.
    pub(super) fn watched_by(&self, p: usize) -> Vec<usize> {
        let peer = &self.peers[p];
        let watched = self.masters.iter().enumerate().filter(|(_, master)| peer.watches(master));
        watched.map(|(m, _)| m).collect()
    }

    fn judge_peer(&mut self, p: usize, down_after: Duration, now: Instant) {
        let peer = &mut self.peers[p];
        let silent_at = peer.pulse.silent_since.map(|since| since + down_after);
        let down = silent_at.is_some_and(|at| now >= at);
        let (id, address, was_down) = (peer.id, peer.address, peer.down_since.is_some());
        if down != was_down {
            peer.down_since = down.then_some(now);
        }
        if let Some(at) = silent_at.filter(|_| !down) {
            self.wake_at(at);
        }
        if down == was_down {
            return;
        }
        self.touch_all();
        if let Some(id) = id {
            for m in self.watched_by(p) {
                self.sentinel_event(if down { "+sdown" } else { "-sdown" }, m, id, address);
            }
        }
    }

    pub(super) fn reply(&mut self, link: LinkId, tag: Tag, reply: &Reply, now: Instant) {
        match self.far(link) {
            // The link was given up in the meantime.
            None => {}
            Some(Far::PubSub(m, n)) if tag == Tag::Auth => self.auth_answered(m, n, reply),
            Some(Far::PubSub(..)) => {}
            Some(Far::Command(m, n)) => self.node_reply(m, n, tag, reply, now),
            Some(Far::Peer(p)) => self.peer_reply(p, tag, reply, now),
        }
    }

    fn node_reply(&mut self, m: usize, n: usize, tag: Tag, reply: &Reply, now: Instant) {
        match tag {
            Tag::Auth => self.auth_answered(m, n, reply),
            Tag::Ping => self.pong(m, n, reply, now),
            Tag::Info => {
                self.masters[m].nodes[n].answered_info(reply.text(), now);
                if let Some(text) = reply.text() {
                    self.info(m, n, Info::parse(text), now);
                }
            }
            Tag::Promote(epoch) => self.promote_answered(m, n, epoch, reply, now),
            Tag::Role(epoch) => self.role_answered(m, n, epoch, reply, now),
            Tag::Pause(epoch) => self.pause_answered(m, epoch, reply, now),
            Tag::PausedInfo(epoch) => self.paused_info(m, n, epoch, reply, now),
            Tag::Ignored | Tag::Subscribe | Tag::Ask(..) | Tag::Follow(..) => {}
        }
    }

    fn peer_reply(&mut self, p: usize, tag: Tag, reply: &Reply, now: Instant) {
        let peer = &mut self.peers[p];
        peer.pulse.last_reply = now;
        peer.first_reply.get_or_insert(now);
        match tag {
            Tag::Ping => {
                peer.pulse.sent = None;
                // A sentinel that refuses this one's password cannot be asked for votes: as good as down.
                let valid = match reply {
                    Reply::Error(text) => text.starts_with("LOADING") || text.starts_with("MASTERDOWN"),
                    other => other.text() == Some("PONG"),
                };
                if valid {
                    peer.pulse.last_ok = now;
                    peer.pulse.silent_since = None;
                }
            }
            Tag::Ask(m, about) => self.opinion(p, m, about, reply, now),
            Tag::Auth
            | Tag::Ignored
            | Tag::Info
            | Tag::Subscribe
            | Tag::Promote(_)
            | Tag::Role(_)
            | Tag::Pause(_)
            | Tag::PausedInfo(_)
            | Tag::Follow(..) => {}
        }
    }

    /// A wrong password is a fault of its own: whoever refuses it is alive.
    fn auth_answered(&mut self, m: usize, n: usize, reply: &Reply) {
        let refused = match reply {
            // A server without any password takes everybody.
            Reply::Error(text) => !text.contains("without any password"),
            Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => {
                false
            }
        };
        self.set_auth_failed(m, n, refused);
    }

    fn set_auth_failed(&mut self, m: usize, n: usize, refused: bool) {
        let node = &mut self.masters[m].nodes[n];
        if std::mem::replace(&mut node.auth_failed, refused) != refused {
            self.node_event(if refused { "+auth-failed" } else { "-auth-failed" }, m, n, "");
        }
    }

    fn pong(&mut self, m: usize, n: usize, reply: &Reply, now: Instant) {
        let node = &mut self.masters[m].nodes[n];
        let excused = self.membership.excuses_refusal(node.fresh, node.node.is_some());
        let link = node.command.up();
        match (node.answered(reply, excused, now), link) {
            (Answered::Works, _) => self.set_auth_failed(m, n, false),
            (Answered::Refuses, _) => self.set_auth_failed(m, n, true),
            (Answered::Hangs, Some(link)) => self.query(link, Tag::Ignored, &["SCRIPT", "KILL"]),
            (Answered::Hangs, None) | (Answered::Nothing, _) => {}
        }
    }

    pub(super) fn info(&mut self, m: usize, n: usize, mut info: Info, now: Instant) {
        let follows = info.master_place().and_then(|place| self.look_up(&place, now));
        let (role, replicas) = (info.role, std::mem::take(&mut info.replicas));
        let master = &mut self.masters[m];
        let is_master = n == master.at();
        let said = master.nodes[n].said(info, now);
        master.learn_lineage(n, replicas.iter().any(|replica| replica.online), follows);
        if said.rebooted {
            self.node_event("+reboot", m, n, "");
        }
        if said.role_changed {
            let master_says_so = is_master == (role == Some(Role::Master));
            self.node_event(if master_says_so { "+role-change" } else { "-role-change" }, m, n, "");
        }
        if is_master && role == Some(Role::Master) {
            for replica in replicas {
                self.found(m, &replica.place, now);
            }
        }
        let node = &mut self.masters[m].nodes[n];
        if node.is_out_of_sync() {
            node.info_due = node.info_due.min(now + INFO_PERIOD_FAILOVER);
        }
        self.info_for_failover(m, n, now);
    }

    /// A replica that the master knows of.
    fn found(&mut self, m: usize, place: &Place, now: Instant) {
        let Some(address) = self.look_up(place, now) else { return };
        let master = &self.masters[m];
        if !self.may_be_master(master, address) {
            let text = || format!("{address} replicates from the master and is no data node of the cluster file");
            return self.refuse(Refused::Replica, text, now);
        }
        if master.place_of(address).is_none() && master.has_room() {
            let n = self.index_of(m, address, now);
            self.masters[m].nodes[n].host = place.address().is_none().then(|| place.host.clone());
            self.dirty = true;
            self.node_event("+slave", m, n, "");
        }
    }

    /// Decides whether this sentinel, by itself, finds the redis down.
    pub(super) fn judge(&mut self, m: usize, n: usize, now: Instant) {
        let Self { masters, timers, rules, .. } = self;
        let (judgement, again) = masters[m].judge(n, Moment { now, timers, rules: *rules });
        again.into_iter().for_each(|at| self.wake_at(at));
        let Some(Judgement { down, proof }) = judgement else { return };
        self.node_event(if down { "+sdown" } else { "-sdown" }, m, n, "");
        if let Some(proof) = proof {
            let address = self.masters[m].nodes[n].address;
            self.publish(Event::new("proof", Severity::Info, format!("{address} is down by proof: {proof}")));
        }
    }

    /// Takes in what the peer link says of a node.
    pub(super) fn facts(&mut self, facts: NodeFacts, now: Instant) {
        let NodeFacts { node: name, redis, sentinel, lease, granted, hears_majority, terms, fresh, overdue_since } =
            facts;
        for m in 0..self.masters.len() {
            let master = &mut self.masters[m];
            let Some(n) = master.place_of_node(&name) else { continue };
            (master.nodes[n].hears_majority, master.nodes[n].terms) = (hears_majority, terms);
            master.nodes[n].granted = granted.filter(|_| fresh);
            let missed = overdue_since.filter(|_| !master.nodes[n].overdue);
            master.nodes[n].overdue = overdue_since.is_some();
            missed.into_iter().for_each(|since| master.nodes[n].pulse.missed(since, now));
            let leased = fresh && lease.is_some();
            master.nodes[n].unleased_since = master.nodes[n].unleased_since.or(Some(now)).filter(|_| !leased);
            if master.nodes[n].told(redis.as_ref(), fresh, now) {
                self.ask_info(m, n, now);
            }
            if let Some(epoch) = lease.filter(|_| fresh) {
                self.lease_seen(m, n, epoch, now);
            }
        }
        if let Some(p) = self.peers.iter().position(|peer| peer.name.as_ref() == Some(&name)) {
            self.peers[p].terms = terms;
            self.peer_facts(p, sentinel, fresh, now);
        }
    }

    /// The address under which this sentinel is reached by whoever is at the other end of a link.
    pub(super) fn announced(&self, link: LinkId) -> Option<Place> {
        let own = self.links.get(&link).and_then(|(_, own)| *own);
        self.membership.announced(&self.settings, own)
    }

    /// The greeting as this sentinel publishes it now.
    fn hello(&self, m: usize, link: LinkId) -> Option<Hello> {
        let master = &self.masters[m];
        Some(Hello {
            place: self.announced(link)?,
            id: self.me(),
            current_epoch: self.current_epoch,
            master_name: master.config.name.clone(),
            master: self.told_place(m),
            config_epoch: master.epoch(),
        })
    }

    pub(super) fn say_hello_if_due(&mut self, m: usize, now: Instant) {
        let due = self.masters[m].hello_due;
        if now < due {
            return self.wake_at(due);
        }
        self.say_hello(m, now);
        self.wake_at(now + self.timers.publish);
    }

    /// Publishes the greeting everywhere. Behind the fence: it tells of the decision.
    pub(super) fn say_hello(&mut self, m: usize, now: Instant) {
        if self.greets_later(m, now) {
            return;
        }
        self.masters[m].hello_due = now + self.timers.publish;
        let master = &self.masters[m];
        // PUBLISH is held by CLIENT PAUSE … WRITE, and with it everything behind it on the same link.
        let leads = self.somebody_leads(master);
        let own = |n: usize| master.holds(n) && !master.failover().is_reconfiguring();
        let nodes = master.nodes.iter().enumerate().filter(|(n, _)| !(leads && *n == master.at() || own(*n)));
        let nodes = nodes.filter_map(|(_, node)| node.command.up());
        let links: Vec<_> = nodes.chain(self.watchers(master).filter_map(|peer| peer.link.up())).collect();
        links.into_iter().for_each(|link| self.publish_hello(m, link));
    }

    fn publish_hello(&mut self, m: usize, link: LinkId) {
        let Some(hello) = self.hello(m, link) else { return };
        let args = words(&["PUBLISH", hello::CHANNEL, &hello.to_string()]);
        self.fenced.push(Output::Query { link, tag: Tag::Ignored, args });
    }

    fn say_hello_to_peer(&mut self, p: usize, now: Instant) {
        let Some(link) = self.peers[p].link.up() else { return };
        for m in self.watched_by(p) {
            if !self.greets_later(m, now) {
                self.publish_hello(m, link);
            }
        }
    }

    /// While something is being stored nobody is greeted: what is told could be out of date by the time it may be said. The turn
    /// after the store does it.
    fn greets_later(&mut self, m: usize, now: Instant) -> bool {
        if self.storing {
            self.masters[m].hello_due = now;
        }
        self.storing
    }

    pub(super) fn hello_heard(&mut self, link: LinkId, payload: &[u8], now: Instant) {
        let counts = self.membership.hears_greetings() || !self.rules.holds(Rule::OwnVoices);
        if counts && self.far(link).is_some() {
            self.greeted(payload, now);
        }
    }

    /// Takes in a greeting.
    pub(super) fn greeted(&mut self, payload: &[u8], now: Instant) {
        let Some(hello) = std::str::from_utf8(payload).ok().and_then(|text| text.parse::<Hello>().ok()) else { return };
        if hello.id == self.me() {
            return;
        }
        let Some(m) = self.masters.iter().position(|master| master.config.name == hello.master_name) else { return };
        let peer = if self.membership.hears_greetings() {
            self.discover(m, &hello, now)
        } else {
            // Only those that the file lists are listened to.
            let listed = |peer: &Peer| peer.stock || !self.rules.holds(Rule::OwnVoices);
            let greets = |peer: &Peer| listed(peer) && Some(peer.address) == hello.place.address();
            self.peers.iter().position(greets)
        };
        let Some(p) = peer else {
            let text = || format!("a greeting of {}, which is not in sentinel.stock of the cluster file", hello.place);
            return self.refuse(Refused::Greeting, text, now);
        };
        self.touch(m);
        self.peers[p].last_hello = now;
        self.know_peer(p, hello.id);
        self.raise_epoch(hello.current_epoch, now);
        if hello.config_epoch > 0
            && let Some(master) = self.look_up(&hello.master, now)
        {
            self.adopt(m, p, Decision { master, epoch: hello.config_epoch }, Mode::Unfenced, now);
        }
    }
}
