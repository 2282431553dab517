//! Links, PING, INFO and hello; what the answers say; and when an instance is found down.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::node::{Decision, Process, RedisFacts, RedisRole};
use crate::base::{Epoch, Instant, Place, Secret};
use crate::wire::hello::{self, Hello};
use crate::wire::info::{Info, Role};
use crate::wire::resp::Reply;

use super::instance::{Instance, Link, LinkId, Peer};
use super::sabotage::Rule;
use super::trust::Refused;
use super::{
    Agreement, EXTRA_NODES_MAX, Event, MasterConfig, MasterId, Membership, NodeFacts, Output, Owner, Settings, Severity,
};

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// AUTH
    Auth,
    /// What is only sent for its effect.
    Ignored,
    /// PING
    Ping,
    /// INFO
    Info,
    /// SUBSCRIBE
    Subscribe,
    /// SENTINEL IS-MASTER-DOWN-BY-ADDR about that master, by the address it had when that was asked.
    Ask(MasterId, SocketAddr),
    /// The EXEC that makes a replica the master, in the failover of that epoch.
    Promote(Epoch),
    /// ROLE of the replica to promote.
    Role(Epoch),
    /// CLIENT PAUSE before an ordered switchover.
    Pause(Epoch),
    /// The master's INFO after the pause.
    PausedInfo(Epoch),
}

/// INFO of replicas whose state is awaited.
const INFO_PERIOD_FAILOVER: Duration = Duration::from_millis(100);
/// Longest time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// A command of text words.
pub(super) fn words(args: &[&str]) -> Vec<Bytes> {
    args.iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect()
}

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
            Some((m, self.masters[m].nodes.iter().position(|node| node.id == instance)?))
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
                (node.ping_due, node.info_due) = (now, now);
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
                peer.ping_due = now;
                self.say_hello_to_peer(p);
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
            Some(Far::Peer(p)) => self.peer_lost(p, now),
        }
    }

    pub(super) fn peer_lost(&mut self, p: usize, now: Instant) {
        let peer = &mut self.peers[p];
        peer.link.ended(now);
        peer.ping_sent = None;
        peer.first_reply = None;
        peer.ping_due = now;
        peer.silent_since.get_or_insert(now);
        peer.opinions.values_mut().for_each(|opinion| opinion.asked = None);
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
        let down_after = self.masters[m].config.down_after;
        let period = self.timers.ping_period(down_after);
        let node = &self.masters[m].nodes[n];
        let (address, command, pubsub) = (node.address, node.command.clone(), node.pubsub.clone());
        let (master, instance) = (self.masters[m].id, node.id);
        // A redis of a cluster lives only beside its vigie: where that is not heard, somebody else may have its address, and must
        // not be told a password.
        let may_open = !self.of_cluster() || node.fresh || !self.rules.holds(Rule::OwnVoices);
        if may_open && let Some(link) = self.open(&command, Owner::Command(master, instance), address, down_after, now)
        {
            self.masters[m].nodes[n].command = link;
        }
        // The second link follows the first: what cannot be reached need not be tried twice. In a cluster nothing that is
        // greeted there counts.
        if command.up().is_some()
            && !self.of_cluster()
            && let Some(link) = self.open(&pubsub, Owner::PubSub(master, instance), address, down_after, now)
        {
            self.masters[m].nodes[n].pubsub = link;
        }
        let Some(link) = self.masters[m].nodes[n].command.up() else { return };
        match self.masters[m].nodes[n].ping_sent {
            None => {
                if now >= self.masters[m].nodes[n].ping_due {
                    self.query(link, Tag::Ping, &["PING"]);
                    let node = &mut self.masters[m].nodes[n];
                    node.ping_sent = Some(now);
                    node.silent_since.get_or_insert(now);
                    node.ping_due = now + period;
                } else {
                    self.wake_at(self.masters[m].nodes[n].ping_due);
                }
            }
            // A connection through a network that was cut would come back only when TCP tries again, seconds later.
            Some(sent) if now >= self.given_up_at(sent, &self.masters[m].nodes[n].command, down_after) => {
                self.hang_up_node(m, n, now);
                self.wake_at(now);
                return;
            }
            Some(sent) => self.wake_at(self.given_up_at(sent, &self.masters[m].nodes[n].command, down_after)),
        }
        if self.masters[m].nodes[n].info_sent.is_none() {
            let due = self.masters[m].nodes[n].info_due;
            if now >= due { self.ask_info(m, n, now) } else { self.wake_at(due) }
        }
    }

    pub(super) fn hang_up(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.free.push(Output::Hangup(link));
    }

    pub(super) fn hang_up_node(&mut self, m: usize, n: usize, now: Instant) {
        let node = &mut self.masters[m].nodes[n];
        let (command, pubsub) = (node.command.id(), node.pubsub.id());
        if command.is_some() {
            node.command.ended(now);
            node.command_lost(now);
        }
        if pubsub.is_some() {
            node.pubsub.ended(now);
        }
        command.into_iter().chain(pubsub).for_each(|link| self.hang_up(link));
    }

    /// When a link is given up on which a ping has been sent that is not answered.
    fn given_up_at(&self, sent: Instant, link: &Link, down_after: Duration) -> Instant {
        let young = link.since().map_or(sent, |since| since + self.timers.min_link_reconnect);
        (sent + down_after).max(young)
    }

    /// Asks for INFO at once, unless an answer is already on its way.
    pub(super) fn ask_info(&mut self, m: usize, n: usize, now: Instant) {
        let master_down = self.masters[m].nodes[self.master_at(m)].down_since.is_some();
        let awaited = master_down || self.masters[m].failover.leads().is_some() || self.out_of_sync(m, n);
        let period = self.timers.info_period(self.masters[m].config.down_after);
        let period = if awaited { period.min(INFO_PERIOD_FAILOVER) } else { period };
        let node = &mut self.masters[m].nodes[n];
        let Some(link) = node.command.up() else { return };
        if node.info_sent.is_none() {
            node.info_sent = Some(now);
            node.info_due = now + period;
            self.query(link, Tag::Info, &["INFO"]);
        }
    }

    /// Whether it says that it is a replica without a working link: it may have one any moment.
    fn out_of_sync(&self, m: usize, n: usize) -> bool {
        let info = self.masters[m].nodes[n].info.as_ref();
        info.is_some_and(|info| info.role == Some(Role::Replica) && !info.master_link_up)
    }

    /// Keeps the link to one other sentinel and its pings going.
    pub(super) fn tend_peer(&mut self, p: usize, now: Instant) {
        let first = self.watched_by(p).next();
        let down_after = first.map_or(CONNECT_MAX, |m| self.masters[m].config.down_after);
        if !self.peers[p].stock {
            return self.judge_peer(p, down_after, now);
        }
        let (link, address) = (self.peers[p].link.clone(), self.peers[p].address);
        if let Some(link) = self.open(&link, Owner::Peer(self.peers[p].key), address, down_after, now) {
            self.peers[p].link = link;
        }
        self.judge_peer(p, down_after, now);
        let Some(link) = self.peers[p].link.up() else { return };
        let period = self.timers.ping.unwrap_or_else(|| (down_after / 2).min(Duration::from_secs(1)));
        match self.peers[p].ping_sent {
            None if now >= self.peers[p].ping_due => {
                self.query(link, Tag::Ping, &["PING"]);
                let peer = &mut self.peers[p];
                peer.ping_sent = Some(now);
                peer.silent_since.get_or_insert(now);
                peer.ping_due = now + period;
            }
            None => self.wake_at(self.peers[p].ping_due),
            Some(sent) if now >= sent + down_after => {
                self.hang_up(link);
                self.peer_lost(p, now);
                self.wake_at(now);
            }
            Some(sent) => self.wake_at(sent + down_after),
        }
    }

    /// The masters that a peer is known to watch.
    pub(super) fn watched_by(&self, p: usize) -> impl Iterator<Item = usize> {
        let peer = &self.peers[p];
        (0..self.masters.len()).filter(move |m| peer.opinions.contains_key(&self.masters[*m].id))
    }

    fn judge_peer(&mut self, p: usize, down_after: Duration, now: Instant) {
        let peer = &self.peers[p];
        let down = peer.silent_since.is_some_and(|since| now >= since + down_after);
        if let Some(since) = peer.silent_since.filter(|_| !down) {
            self.wake_at(since + down_after);
        }
        let peer = &mut self.peers[p];
        if down == peer.down_since.is_some() {
            return;
        }
        peer.down_since = down.then_some(now);
        let (id, address) = (peer.id, peer.address);
        self.touch_all();
        if let Some(id) = id {
            for m in self.watched_by(p).collect::<Vec<_>>() {
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
                let node = &mut self.masters[m].nodes[n];
                (node.info_sent, node.info_answered) = (None, Some(now));
                if let Some(text) = reply.text() {
                    let node = &mut self.masters[m].nodes[n];
                    if node.refused {
                        node.last_reply = now;
                    } else {
                        node.alive(now);
                    }
                    // A copy: what came in may be a slice of a large buffer.
                    self.masters[m].nodes[n].info_text = Some(Bytes::copy_from_slice(text.as_bytes()));
                    self.info(m, n, Info::parse(text), now);
                }
            }
            Tag::Promote(epoch) => self.promote_answered(m, n, epoch, reply, now),
            Tag::Role(epoch) => self.role_answered(m, n, epoch, reply, now),
            Tag::Pause(epoch) => self.pause_answered(m, epoch, reply, now),
            Tag::PausedInfo(epoch) => self.paused_info(m, n, epoch, reply, now),
            Tag::Ignored | Tag::Subscribe | Tag::Ask(..) => {}
        }
    }

    fn peer_reply(&mut self, p: usize, tag: Tag, reply: &Reply, now: Instant) {
        let peer = &mut self.peers[p];
        peer.last_reply = now;
        peer.first_reply.get_or_insert(now);
        match tag {
            Tag::Ping => {
                peer.ping_sent = None;
                // A sentinel that refuses this one's password cannot be asked for votes: as good as down.
                let valid = match reply {
                    Reply::Error(text) => text.starts_with("LOADING") || text.starts_with("MASTERDOWN"),
                    other => other.text() == Some("PONG"),
                };
                if valid {
                    peer.last_ok = now;
                    peer.silent_since = None;
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
            | Tag::PausedInfo(_) => {}
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
        if self.masters[m].nodes[n].auth_failed != refused {
            self.masters[m].nodes[n].auth_failed = refused;
            self.node_event(if refused { "+auth-failed" } else { "-auth-failed" }, m, n, "");
        }
    }

    fn pong(&mut self, m: usize, n: usize, reply: &Reply, now: Instant) {
        // Of a node that is not heard on the peer link the others can do without.
        let file = self.of_cluster();
        let node = &mut self.masters[m].nodes[n];
        let excused = file && (node.fresh || node.node.is_none());
        let sent = node.ping_sent.take();
        node.last_reply = now;
        node.refused = false;
        let error = match reply {
            Reply::Error(text) => text.split(' ').next().unwrap_or(""),
            Reply::Simple(text) if text == "PONG" => "",
            Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => {
                "no PONG"
            }
        };
        match error {
            "" | "LOADING" | "MASTERDOWN" => {
                if error.is_empty() {
                    node.rebooted_at = None;
                }
                node.alive(now);
                self.set_auth_failed(m, n, false);
            }
            "NOAUTH" | "WRONGPASS" | "NOPERM" => {
                if excused {
                    node.alive(now);
                } else {
                    node.refused = true;
                    node.silent_since = node.silent_since.or(sent);
                }
                self.set_auth_failed(m, n, true);
            }
            "BUSY" => {
                node.busy_since.get_or_insert(now);
                if node.down_since.is_some() && !node.script_kill_sent {
                    node.script_kill_sent = true;
                    if let Some(link) = node.command.up() {
                        self.query(link, Tag::Ignored, &["SCRIPT", "KILL"]);
                    }
                }
            }
            // It answers, but nothing that proves that it works: the silence goes on.
            _ => {
                node.refused = true;
                node.silent_since = node.silent_since.or(sent);
            }
        }
    }

    pub(super) fn info(&mut self, m: usize, n: usize, mut info: Info, now: Instant) {
        let (is_master, address) = (n == self.master_at(m), self.monitored(m));
        let master = info.master_place().and_then(|place| self.look_up(&place, now));
        let node = &mut self.masters[m].nodes[n];
        let old = node.info.take();
        let rebooted =
            matches!((&old, info.run_id), (Some(old), Some(new)) if old.run_id.is_some_and(|old| old != new));
        if info.run_id.is_none() {
            // A part of the sections leaves out what another has said.
            info.run_id = old.as_ref().and_then(|old| old.run_id);
        }
        let role_changed = old.as_ref().map(|old| old.role) != Some(info.role);
        if role_changed {
            node.role_since = now;
        }
        if info.role == Some(Role::Replica) {
            node.was_master = false;
        }
        node.info_at = Some(now);
        let role = info.role;
        let attached = info.replicas.iter().any(|replica| replica.online);
        let replicas = std::mem::take(&mut info.replicas);
        let lineage = info.master_replid;
        let follows = info.master_link_up && !info.master_sync_in_progress && master == Some(address);
        let whole = role == Some(Role::Replica) && !info.master_sync_in_progress;
        let linked = if is_master { role == Some(Role::Master) } else { role == Some(Role::Replica) && follows };
        node.info = Some(info);
        if rebooted {
            self.masters[m].nodes[n].rebooted_at = Some(now);
            self.node_event("+reboot", m, n, "");
        }
        if role_changed && old.is_some() {
            let master_says_so = is_master == (role == Some(Role::Master));
            self.node_event(if master_says_so { "+role-change" } else { "-role-change" }, m, n, "");
        }
        // The master gets a new id with its first replica: whoever last spoke, of the master and those linked to it, knows. One
        // that was started anew has a lineage that nobody shares until a replica has synchronised.
        let shared = !is_master || attached || self.masters[m].lineage.is_none_or(|(known, _)| known != address);
        if shared
            && linked
            && let Some(lineage) = lineage
        {
            (self.masters[m].lineage, self.masters[m].claimed) = (Some((address, lineage)), None);
        } else if is_master && linked {
            self.masters[m].claimed = lineage.map(|lineage| (address, lineage));
        } else if whole && lineage.is_some_and(|lineage| self.masters[m].claimed == Some((address, lineage))) {
            // It has synchronised, even if the master is gone by now: others hold what was before.
            self.masters[m].lineage = self.masters[m].claimed.take();
        }
        if is_master && role == Some(Role::Master) {
            for replica in replicas {
                self.found(m, &replica.place, now);
            }
        }
        if self.out_of_sync(m, n) {
            let node = &mut self.masters[m].nodes[n];
            node.info_due = node.info_due.min(now + INFO_PERIOD_FAILOVER);
        }
        self.info_for_failover(m, n, now);
    }

    /// A replica that the master knows of.
    fn found(&mut self, m: usize, place: &Place, now: Instant) {
        let Some(address) = self.look_up(place, now) else { return };
        if !self.may_be_master(m, address) {
            let text = || format!("{address} replicates from the master and is no data node of the cluster file");
            return self.refuse(Refused::Replica, text, now);
        }
        let master = &self.masters[m];
        let known = master.nodes.iter().any(|node| node.address == address);
        if !known && master.nodes.len() < master.config.nodes.len() + EXTRA_NODES_MAX {
            let n = self.index_of(m, address, now);
            self.masters[m].nodes[n].host = place.address().is_none().then(|| place.host.clone());
            self.dirty = true;
            self.node_event("+slave", m, n, "");
        }
    }

    /// Decides whether this sentinel, by itself, finds the redis down.
    pub(super) fn judge(&mut self, m: usize, n: usize, now: Instant) {
        let is_master = n == self.master_at(m) && self.decision(m).is_some();
        let config = &self.masters[m].config;
        let node = &self.masters[m].nodes[n];
        let busy = busy(node);
        let limit = if busy { config.busy_grace.max(config.down_after) } else { config.down_after };
        let silent_at = node.silent_since.map(|since| since + limit);
        // A master that says for long that it is none is of no use as one, whatever the reason.
        let strayed = is_master && node.info.as_ref().is_some_and(|info| info.role == Some(Role::Replica));
        let strayed_at =
            strayed.then(|| node.role_since + config.down_after + 2 * self.timers.info_period(config.down_after));
        // It may take long to read its data from disk, and answers PING meanwhile.
        let reboot = node.rebooted_at.filter(|_| is_master && !config.reboot_down_after.is_zero());
        let reboot_at = reboot.map(|at| at + config.reboot_down_after);
        let proof = proof(node, is_master);
        let limits = [silent_at, strayed_at, reboot_at];
        let down = proof.is_some() || limits.into_iter().flatten().any(|at| now >= at);
        let was_down = node.down_since.is_some();
        for at in limits.into_iter().flatten().filter(|at| *at > now) {
            self.wake_at(at);
        }
        if down == was_down {
            return;
        }
        let node = &mut self.masters[m].nodes[n];
        node.down_since = down.then_some(now);
        if down && is_master {
            self.masters[m].asked_at = None;
            // What the replicas have decides who takes over.
            self.masters[m].nodes.iter_mut().for_each(|node| node.info_due = now);
            self.touch(m);
        }
        self.node_event(if down { "+sdown" } else { "-sdown" }, m, n, "");
        if let Some(proof) = proof.filter(|_| down) {
            let address = self.masters[m].nodes[n].address;
            self.publish(Event::new("proof", Severity::Info, format!("{address} is down by proof: {proof}")));
        }
    }

    /// Whether what makes the master count as down is proof, not silence.
    pub(super) fn proved_down(&self, m: usize) -> bool {
        proof(&self.masters[m].nodes[self.master_at(m)], true).is_some()
    }

    /// Takes in what the peer link says of a node.
    pub(super) fn facts(&mut self, facts: NodeFacts, now: Instant) {
        let NodeFacts { node: name, redis, sentinel, fresh } = facts;
        for m in 0..self.masters.len() {
            let Some(n) = self.masters[m].nodes.iter().position(|node| node.node.as_ref() == Some(&name)) else {
                continue;
            };
            let node = &mut self.masters[m].nodes[n];
            let changed = |facts: &RedisFacts| (facts.incarnation, facts.process, facts.role);
            let news = node.facts.as_ref().map(changed) != redis.as_ref().map(changed);
            let busy_ended = node.fresh_facts().is_some_and(|old| is_busy(old, node.served))
                && redis.as_ref().is_some_and(|new| fresh && !is_busy(new, node.served));
            if busy_ended {
                // What was silent while busy gets the whole time again.
                node.restart_silence(now);
            }
            if let Some(facts) = redis.as_ref().filter(|facts| fresh && serves(facts)) {
                node.served = Some(facts.incarnation);
            }
            (node.facts, node.fresh) = (redis.clone(), fresh);
            if news && fresh {
                self.ask_info(m, n, now);
            }
        }
        if let Some(p) = self.peers.iter().position(|peer| peer.name.as_ref() == Some(&name)) {
            self.peer_facts(p, sentinel, fresh, now);
        }
    }

    /// The address under which this sentinel is reached by whoever is at the other end of a link.
    pub(super) fn announced(&self, link: LinkId) -> Option<Place> {
        match &self.membership {
            Membership::Voters { me, all } => {
                all.iter().find(|voter| voter.name == *me).map(|voter| voter.address.into())
            }
            Membership::Discovered { port } => {
                let own = || self.links.get(&link).and_then(|(_, own)| own.map(|ip| ip.to_canonical().to_string()));
                let host = self.settings.announce_ip.clone().or_else(own)?;
                Some(Place { host, port: self.settings.announce_port.unwrap_or(*port) })
            }
        }
    }

    /// The greeting as this sentinel publishes it now.
    fn hello(&self, m: usize, link: LinkId) -> Option<Hello> {
        Some(Hello {
            place: self.announced(link)?,
            id: self.me(),
            current_epoch: self.current_epoch,
            master_name: self.masters[m].config.name.clone(),
            master: self.told_place(m),
            config_epoch: self.decision(m).map_or(0, |decision| decision.epoch),
        })
    }

    pub(super) fn say_hello_if_due(&mut self, m: usize, now: Instant) {
        if self.storing {
            // What a greeting tells could be out of date by the time it may be said: the turn after the store greets.
            return;
        }
        if now >= self.masters[m].hello_due {
            self.say_hello(m, now);
        }
        self.wake_at(self.masters[m].hello_due);
    }

    /// Publishes the greeting everywhere. Behind the fence: it tells of the decision.
    pub(super) fn say_hello(&mut self, m: usize, now: Instant) {
        if self.storing {
            self.masters[m].hello_due = now;
            return;
        }
        self.masters[m].hello_due = now + self.timers.publish;
        // PUBLISH is held by CLIENT PAUSE … WRITE, and with it everything behind it on the same link.
        let paused = if self.somebody_leads(m) { Some(self.master_at(m)) } else { None };
        let nodes = self.masters[m].nodes.iter().enumerate().filter(|(n, _)| paused != Some(*n));
        let nodes = nodes.filter_map(|(_, node)| node.command.up());
        let links: Vec<_> = nodes.chain(self.peers_of(m).filter_map(|p| self.peers[p].link.up())).collect();
        links.into_iter().for_each(|link| self.publish_hello(m, link));
    }

    fn publish_hello(&mut self, m: usize, link: LinkId) {
        let Some(hello) = self.hello(m, link) else { return };
        let args = words(&["PUBLISH", hello::CHANNEL, &hello.to_string()]);
        self.fenced.push(Output::Query { link, tag: Tag::Ignored, args });
    }

    fn say_hello_to_peer(&mut self, p: usize) {
        let Some(link) = self.peers[p].link.up() else { return };
        self.watched_by(p).collect::<Vec<_>>().into_iter().for_each(|m| self.publish_hello(m, link));
    }

    pub(super) fn hello_heard(&mut self, link: LinkId, payload: &[u8], now: Instant) {
        if self.far(link).is_some() && !(self.of_cluster() && self.rules.holds(Rule::OwnVoices)) {
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
        let peer = match self.membership {
            // Only those that the file lists are listened to.
            Membership::Voters { .. } => {
                let listed = |peer: &Peer| peer.stock || !self.rules.holds(Rule::OwnVoices);
                let greets = |peer: &Peer| listed(peer) && Some(peer.address) == hello.place.address();
                self.peers.iter().position(greets)
            }
            Membership::Discovered { .. } => self.discover(m, &hello, now),
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
            self.adopt(m, p, Decision { master, epoch: hello.config_epoch }, now);
        }
    }
}

/// Whether the process is up and serves as a master.
fn serves(facts: &RedisFacts) -> bool {
    matches!(facts.role, RedisRole::Master { .. }) && facts.process != Process::Dead
}

/// Whether its supervisor, or itself, says that it is busy.
pub(super) fn busy(node: &Instance) -> bool {
    node.busy_since.is_some() || node.fresh_facts().is_some_and(|facts| is_busy(facts, node.served))
}

/// Whether the incarnation that serves is alive by its supervisor's word, and only cannot answer.
fn is_busy(facts: &RedisFacts, served: Option<u64>) -> bool {
    matches!(facts.process, Process::Busy | Process::Loading) && served.is_none_or(|served| served == facts.incarnation)
}

/// Why a redis is down beyond doubt, by its supervisor's word.
fn proof(node: &Instance, is_master: bool) -> Option<&'static str> {
    // A death stays true when the frames end: what may have been started since, unseen, is another incarnation.
    let dead = node.facts.as_ref().is_some_and(|facts| facts.process == Process::Dead);
    if dead && node.silent_since.is_some() {
        return Some("its process is dead");
    }
    let facts = node.fresh_facts()?;
    let newer = node.served.is_some_and(|served| facts.incarnation > served);
    let closed_by_info = node.info.as_ref().is_none_or(Info::is_closed);
    match facts.process {
        Process::Dead => Some("its process is dead"),
        Process::Starting if is_master && newer => Some("its process was started anew"),
        Process::Starting => None,
        Process::Loading | Process::Alive | Process::Busy => match facts.role {
            RedisRole::Closed | RedisRole::Unknown if is_master && newer => Some("its process was started anew"),
            // Nothing was seen of it as a master, and it says itself, twice, that it is none.
            RedisRole::Closed if is_master && node.served.is_none() && closed_by_info => Some("it came back closed"),
            RedisRole::Closed | RedisRole::Unknown | RedisRole::Replica { .. } | RedisRole::Master { .. } => None,
        },
    }
}
