//! The machine of the peer link.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::promises::Promises;
use super::{Config, NodeView, Part, View};
use crate::base::lease::Held;
use crate::base::node::{Health, NodeState, clipped};
use crate::base::time::earliest;
use crate::base::{Instant, Machine, NodeName, Rng};
use crate::wire::frame::{self, FRAME_MAX, Frame, Keys, Malformed, NEWEST, OLDEST};

/// Between two frames of a node while nothing changes.
const FRAME_INTERVAL: Duration = Duration::from_millis(100);
/// Nothing may come from a node for so long before its frames are overdue: one was lost, and the next one is late.
const OVERDUE_AFTER: Duration = FRAME_INTERVAL.saturating_mul(2);
/// What a node said is acted upon for so long: four lost frames in a row, or a sender that was starved for a while.
const FRESH_FOR: Duration = Duration::from_millis(500);
/// A view is published at least so often, so that ages shown to people are right.
const VIEW_INTERVAL: Duration = Duration::from_secs(1);
/// The same complaint about the same sender is published at most so often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// At most so many challenges are sent to one node per [`FRAME_INTERVAL`], so that replayed frames cannot make a storm.
const CHALLENGES_MAX: u8 = 4;
/// A frame whose sender has last heard this node longer ago than this is refused: it was held back on its way, or nothing of
/// this node arrives there. Longer than a starved host may be silent without being lost.
const AGE_MAX: Duration = Duration::from_secs(2);

/// What is wrong with a node that was heard before.
const SILENT: &str = "not heard any more";
/// What is wrong with this node's secret.
const SECRET: &str = "secret";

/// What the link is told.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A datagram came in.
    Datagram {
        /// Its source.
        from: SocketAddr,
        /// When it came, which may be long before it was read.
        at: Instant,
        /// Its payload.
        bytes: Box<[u8]>,
    },
    /// A role of this node speaks.
    Part(Part),
    /// The secret was changed: these keys from now on.
    Keys(Keys),
    /// The node of this place is to show that it hears this one now: it is asked at once.
    Prove(usize),
}

/// What the link asks for.
#[derive(Debug)]
pub enum Output {
    /// Send this datagram.
    Send {
        /// To whom.
        to: SocketAddr,
        /// Its payload.
        bytes: heapless::Vec<u8, FRAME_MAX>,
    },
    /// What this node knows has changed, or was not said for a while.
    View(Box<View>),
    /// A node has heard what this one sent at that time: it is reached at its address, and nobody in its place.
    Reached {
        /// Its place in the file.
        node: usize,
        /// When what it heard was sent.
        sent: Instant,
    },
    /// The lease that the redis of this node has, or had last; none: it was promised none, or has given it back.
    Lease(Option<Held>),
    /// Tell people.
    Publish(Event),
}

/// What people may want to know of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node is heard.
    PeerUp(NodeName),
    /// A node is not heard any more.
    PeerDown(NodeName),
    /// A node's worker was restarted.
    PeerRestarted(NodeName),
    /// A node says that something is wrong with it, or that it is well again.
    PeerHealth(NodeName, Health),
    /// Frames of a node, or from an address of none, are refused.
    Refused {
        /// Where they come from.
        from: SocketAddr,
        /// Why.
        reason: String,
    },
    /// What this node says of itself does not fit in a frame: that node does not hear it.
    Unsent(NodeName),
}

impl Event {
    /// Stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PeerUp(_) => "peer-up",
            Self::PeerDown(_) => "peer-down",
            Self::PeerRestarted(_) => "peer-restarted",
            Self::PeerHealth(..) => "peer-health",
            Self::Refused { .. } => "frame-refused",
            Self::Unsent(_) => "frame-unsent",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerUp(name) => write!(f, "{name} is heard"),
            Self::PeerDown(name) => write!(f, "{name} is not heard any more"),
            Self::PeerRestarted(name) => write!(f, "the worker of {name} was restarted"),
            Self::PeerHealth(name, Health::Good) => write!(f, "{name} is well"),
            Self::PeerHealth(name, Health::Bad(why)) => write!(f, "{name}: {why}"),
            Self::Refused { from, reason } => write!(f, "frames from {from} are refused: {reason}"),
            Self::Unsent(name) => write!(
                f,
                "{name} does not hear this node, whose state does not fit in a frame of {FRAME_MAX} bytes: \
                 fewer [[vip]] or shorter names in the cluster file help"
            ),
        }
    }
}

/// What is kept of the link to one other node.
#[derive(Debug)]
struct Link {
    /// The start of the peer that is believed, with its highest sequence number.
    believed: Option<(u64, u64)>,
    /// What the peer must echo before another start of it is believed. Renewed each time one is, so that frames recorded
    /// from an earlier start can never be played back.
    nonce: u64,
    /// The peer's nonce and stamp, as last heard from a believed start.
    echo: u64,
    heard: u64,
    /// The highest version of the frame that the peer reads, by its believed start while that is heard. Else the oldest one: in
    /// the peer's place another build may have been started, and an older one hears nothing newer.
    reads: u8,
    /// Challenges sent since the last regular frame.
    challenges: u8,
    /// When a frame was last sent to it.
    sent_at: Option<Instant>,
    /// Whether what last came from its address was signed with another secret.
    foreign: bool,
    /// When its frames were last complained about.
    complained_at: Option<Instant>,
}

/// The peer link of one node.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    rng: Rng,
    view: View,
    /// By place in the file; this node's own entry is unused.
    links: Vec<Link>,
    promises: Promises,
    own_faults: BTreeMap<&'static str, String>,
    sequence: u64,
    next_frame_at: Instant,
    next_view_at: Instant,
    /// When frames from an address of no node were last complained about.
    stranger_at: Option<Instant>,
    /// When a frame that does not fit was last complained about.
    unsent_at: Option<Instant>,
}

impl Cluster {
    /// A link that has heard nobody yet. The first frames go out at the first tick.
    pub fn new(config: Config, version: &str, now: Instant) -> Self {
        assert!(config.me < config.peers.len(), "a node is part of its cluster");
        let mut rng = Rng::new(config.seed);
        let promises = Promises::new(&config, now);
        let mut own = NodeState::new(config.peers[config.me].name.clone(), clipped(version), config.roles);
        own.terms = promises.terms();
        let nodes = config.peers.iter().enumerate().map(|(place, peer)| NodeView {
            state: (place == config.me).then(|| own.clone()),
            fresh: place == config.me,
            heard_at: (place == config.me).then_some(now),
            fault: if place == config.me { String::new() } else { "never heard".to_owned() },
            ..NodeView::new(peer.name.clone(), peer.address, peer.roles)
        });
        let view = View { at: now, me: config.me, nodes: nodes.collect() };
        let links = config.peers.iter().map(|_| Link {
            believed: None,
            nonce: rng.next_u64(),
            echo: 0,
            heard: 0,
            reads: OLDEST,
            challenges: 0,
            sent_at: None,
            foreign: false,
            complained_at: None,
        });
        let links = links.collect();
        Self {
            config,
            rng,
            view,
            links,
            promises,
            own_faults: BTreeMap::new(),
            sequence: 0,
            next_frame_at: now,
            next_view_at: now,
            stranger_at: None,
            unsent_at: None,
        }
    }

    /// This link, made at `now`, without one rule of the lease.
    #[cfg(feature = "sabotage")]
    #[must_use]
    pub fn without(mut self, rule: super::lease::Rule, now: Instant) -> Self {
        self.promises = self.promises.without(rule, self.config.promised, now);
        self
    }

    /// What this node knows.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn own(&mut self) -> &mut NodeState {
        self.view.nodes[self.config.me].state.as_mut().expect("a node always knows itself")
    }

    fn publish_view(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.view.at = now;
        let own = &mut self.view.nodes[self.config.me];
        (own.heard_at, own.lease_left) = (Some(now), self.promises.left(now));
        self.next_view_at = now + VIEW_INTERVAL;
        out.push(Output::View(Box::new(self.view.clone())));
    }

    fn send(&mut self, place: usize, now: Instant, out: &mut Vec<Output>) {
        self.sequence += 1;
        let link = &mut self.links[place];
        link.sent_at = Some(now);
        let frame = Frame {
            cluster: clipped(&self.config.cluster),
            boot: self.config.boot,
            sequence: self.sequence,
            nonce: link.nonce,
            echo: link.echo,
            stamp: now.as_micros(),
            heard: link.heard,
            grant: self.promises.given_to(place),
            left: self.promises.left(now),
            reads: NEWEST,
            state: self.view.own().state.clone().expect("a node always knows itself"),
        };
        let receiver = &self.view.nodes[place];
        match frame::emit(&frame, link.reads, &self.config.keys, &receiver.name) {
            Some(bytes) => {
                out.push(Output::Send { to: SocketAddr::new(receiver.address, self.config.port), bytes });
            }
            None => self.unsent(place, now, out),
        }
    }

    /// A frame that does not fit is not sent: people are told why the others hear nothing.
    fn unsent(&mut self, place: usize, now: Instant, out: &mut Vec<Output>) {
        if self.unsent_at.is_none_or(|at| now.since(at) >= COMPLAINT_INTERVAL) {
            self.unsent_at = Some(now);
            out.push(Output::Publish(Event::Unsent(self.view.nodes[place].name.clone())));
        }
    }

    /// A nonce that the peer has not seen is answered at once.
    fn prove(&mut self, place: usize, now: Instant, out: &mut Vec<Output>) {
        if place != self.config.me && place < self.links.len() {
            self.links[place].nonce = self.rng.next_u64();
            self.send(place, now, out);
        }
    }

    fn send_all(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.send_those(now, |_| true, out);
    }

    /// Sends a frame to the others, of whom some may have heard enough.
    fn send_those(&mut self, now: Instant, whom: impl Fn(&Link) -> bool, out: &mut Vec<Output>) {
        let me = self.config.me;
        for place in (0..self.links.len()).filter(|place| *place != me) {
            self.links[place].challenges = 0;
            if whom(&self.links[place]) {
                self.send(place, now, out);
            }
        }
        self.promises.asked(now);
        let every = self.promises.frame_every(FRAME_INTERVAL);
        // Up to a tenth of jitter, so that nodes started together do not stay in step.
        self.next_frame_at = now + every - self.rng.below(every / 10);
        self.serve(me, now, out);
    }

    fn part(&mut self, now: Instant, part: Part, out: &mut Vec<Output>) {
        let before = self.own().clone();
        match part {
            Part::Redis(facts) => {
                self.own().redis = Some(facts);
                self.promises.redis_changed(&self.view);
            }
            Part::Writes(writes) => self.promises.writes(writes),
            Part::Sentinel(facts) => {
                self.own().sentinel = Some(facts);
                self.serve_all(self.config.me, now, out);
            }
            Part::Proxy(facts) => self.own().proxy = Some(facts),
            Part::Vip(facts) => {
                let vips = &mut self.own().vips;
                match vips.iter_mut().find(|vip| vip.virtual_router_id == facts.virtual_router_id) {
                    Some(vip) => *vip = facts,
                    // More than a frame holds work all the same; they are only not shown on other nodes.
                    None => drop(vips.push(facts)),
                }
            }
            Part::Fault { source, reason } => {
                match reason {
                    Some(reason) => drop(self.own_faults.insert(source, reason)),
                    None => drop(self.own_faults.remove(source)),
                }
                let reasons: Vec<_> = self.own_faults.values().map(String::as_str).collect();
                let reason = reasons.join("; ");
                self.own().health = if reason.is_empty() { Health::Good } else { Health::bad(&reason) };
                self.view.nodes[self.config.me].fault = reason;
            }
        }
        if *self.own() != before {
            self.send_all(now, out);
            self.publish_view(now, out);
        }
    }

    fn datagram(&mut self, now: Instant, (from, at): (SocketAddr, Instant), bytes: &[u8], out: &mut Vec<Output>) {
        debug_assert!(at <= now, "nothing is read before it came");
        let source = SocketAddr::new(from.ip().to_canonical(), from.port());
        let is_node = |node: &NodeView| SocketAddr::new(node.address, self.config.port) == source;
        let Some(place) = self.view.nodes.iter().position(is_node) else {
            return self.stranger(now, from, bytes, out);
        };
        let me = &self.config.peers[self.config.me].name;
        let parsed = frame::parse(bytes, &self.config.keys, me);
        self.links[place].foreign = parsed == Err(Malformed::Tag);
        let frame = parsed.map_err(|error| error.to_string()).and_then(|frame| self.checked(place, frame));
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => return self.refuse(now, from, Some(place), reason, out),
        };
        let link = &mut self.links[place];
        match link.believed {
            Some((boot, sequence)) if boot == frame.boot => {
                if frame.sequence > sequence {
                    self.accept_if_young(now, (place, from, at), frame, false, out);
                }
            }
            Some(_) | None if frame.echo == link.nonce => {
                let again = link.believed.is_some();
                link.nonce = self.rng.next_u64();
                self.accept_if_young(now, (place, from, at), frame, again, out);
            }
            Some(_) | None => self.challenge(now, place, &frame, out),
        }
    }

    /// A datagram from where no node is: never acted upon. Only the one that is complained about is looked into, so that a
    /// flood costs nothing.
    fn stranger(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        if self.stranger_at.is_some_and(|at| now.since(at) < COMPLAINT_INTERVAL) {
            return;
        }
        let reason = match frame::parse(bytes, &self.config.keys, &self.config.peers[self.config.me].name) {
            Ok(frame) => {
                format!("it says that it is {}, which has another address in the cluster file", frame.state.name)
            }
            Err(error) => error.to_string(),
        };
        self.refuse(now, from, None, reason, out);
    }

    /// An authentic frame, if it is of this cluster and by the node of that place; otherwise what is wrong.
    fn checked(&self, place: usize, frame: Frame) -> Result<Frame, String> {
        if frame.cluster.as_str() != self.config.cluster {
            return Err(format!(
                "its frames are of cluster {:?}, not {:?}",
                frame.cluster.as_str(),
                self.config.cluster
            ));
        }
        let (name, expected) = (&frame.state.name, &self.config.peers[place].name);
        if place == self.config.me || name != expected {
            return Err(format!(
                "its frames say that it is {name}, but this address is {expected}'s in the cluster file"
            ));
        }
        let own = self.view.nodes[place].address;
        if let Some(redis) = frame.state.redis.as_ref().filter(|redis| redis.address.ip() != own) {
            return Err(format!(
                "its frames say that its redis is at {}, where it is not by the cluster file",
                redis.address
            ));
        }
        Ok(frame)
    }

    /// Another start of a peer is not believed before it has shown that it hears us now.
    fn challenge(&mut self, now: Instant, place: usize, frame: &Frame, out: &mut Vec<Output>) {
        let link = &mut self.links[place];
        if link.challenges < CHALLENGES_MAX {
            link.challenges += 1;
            let (echo, heard, reads) = (link.echo, link.heard, link.reads);
            (link.echo, link.heard) = (frame.nonce, frame.stamp);
            // What both the believed start and this one read: nobody knows which of them is there.
            link.reads = reads.min(frame.reads);
            let believed = link.believed.is_some();
            self.send(place, now, out);
            let link = &mut self.links[place];
            link.reads = reads;
            if believed {
                // The frame may be a recorded one: what the believed start expects stays.
                (link.echo, link.heard) = (echo, heard);
            }
        }
    }

    fn accept_if_young(
        &mut self,
        now: Instant,
        (place, from, at): (usize, SocketAddr, Instant),
        frame: Frame,
        again: bool,
        out: &mut Vec<Output>,
    ) {
        match age(now, frame.heard) {
            Some(age) if age <= AGE_MAX => self.accept(now, (place, at), frame, again, out),
            age => {
                // It is of this start and newer than what was heard: its stamp is worth an echo, so that a peer that has
                // only just begun to hear this node again is heard again, too.
                let link = &mut self.links[place];
                link.believed = Some((frame.boot, frame.sequence));
                (link.echo, link.heard) = (frame.nonce, frame.stamp);
                let reason = match age {
                    Some(age) => format!(
                        "its frames are {:.1} s old: they are held back on their way, or it does not hear this node",
                        age.as_secs_f64()
                    ),
                    None => "it does not hear this node".to_owned(),
                };
                self.refuse(now, from, Some(place), reason, out);
            }
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        (place, at): (usize, Instant),
        frame: Frame,
        again: bool,
        out: &mut Vec<Output>,
    ) {
        out.push(Output::Reached { node: place, sent: Instant::from_micros(frame.heard) });
        let link = &mut self.links[place];
        link.believed = Some((frame.boot, frame.sequence));
        // A nonce not yet echoed: the peer may be waiting for it.
        let answer = link.echo != frame.nonce && link.challenges < CHALLENGES_MAX;
        (link.echo, link.heard, link.reads) = (frame.nonce, frame.stamp, frame.reads);
        if answer {
            link.challenges += 1;
            self.send(place, now, out);
        }
        let node = &mut self.view.nodes[place];
        // A wall clock that was set between two of them may have them dated the wrong way round.
        node.heard_at = node.heard_at.max(Some(at));
        if !node.fresh && is_stale(now, node.heard_at) {
            // It lay unread for too long: it tells what the node was, not that it is there.
            node.state = Some(frame.state);
            SILENT.clone_into(&mut node.fault);
            self.links[place].reads = OLDEST;
            return self.judge_secret(now, out);
        }
        if !node.fresh {
            out.push(Output::Publish(Event::PeerUp(node.name.clone())));
        } else if again {
            out.push(Output::Publish(Event::PeerRestarted(node.name.clone())));
        }
        let (grant, state) = (frame.grant, Some(frame.state));
        let fault = match state.as_ref().map(|state| &state.health) {
            Some(Health::Bad(reason)) => reason.as_str(),
            Some(Health::Good) | None => "",
        };
        if node.fault != fault {
            if let Some(state) = state.as_ref().filter(|_| node.fresh || !fault.is_empty()) {
                out.push(Output::Publish(Event::PeerHealth(node.name.clone(), state.health.clone())));
            }
            fault.clone_into(&mut node.fault);
        }
        let overdue = node.overdue_since.take();
        let changed = !node.fresh || overdue.is_some() || node.state != state;
        node.fresh = true;
        node.state = state;
        node.lease_left = frame.left;
        if let Some(grant) = grant {
            self.promises.granted(now, place, grant);
        }
        // What a leader says may be about another node.
        let leads = self.view.nodes[place].roles.sentinel && changed;
        if leads {
            self.serve_all(place, now, out)
        } else {
            self.serve(place, now, out)
        }
        if changed {
            self.publish_view(now, out);
        }
        self.judge_secret(now, out);
    }

    fn refuse(&mut self, now: Instant, from: SocketAddr, place: Option<usize>, reason: String, out: &mut Vec<Output>) {
        let due = |at: Option<Instant>| at.is_none_or(|at| now.since(at) >= COMPLAINT_INTERVAL);
        let complained_at = match place {
            Some(place) => &mut self.links[place].complained_at,
            None => &mut self.stranger_at,
        };
        if due(*complained_at) {
            *complained_at = Some(now);
            out.push(Output::Publish(Event::Refused { from, reason: reason.clone() }));
        }
        // Anybody can send from a peer's address: a peer that is heard well stays so.
        if let Some(node) = place.filter(|place| *place != self.config.me).map(|place| &mut self.view.nodes[place])
            && !node.fresh
            && node.fault != reason
        {
            node.fault = reason;
            self.publish_view(now, out);
        }
        self.judge_secret(now, out);
    }

    /// Whose secret is the wrong one: this node's, if it hears nobody and somebody's frames are signed with another one.
    fn judge_secret(&mut self, now: Instant, out: &mut Vec<Output>) {
        let me = self.config.me;
        let others = || self.view.nodes.iter().enumerate().filter(|(place, _)| *place != me);
        let foreign: Vec<_> =
            others().filter(|(place, _)| self.links[*place].foreign).map(|(_, node)| node.name.to_string()).collect();
        let alone = others().all(|(_, node)| !node.fresh);
        let reason = (alone && !foreign.is_empty()).then(|| {
            let who = foreign.join(", ");
            format!(
                "the secret of this node is not that of {who}: the same secret_file, or password, must be on every node"
            )
        });
        if self.own_faults.get(SECRET) != reason.as_ref() {
            self.part(now, Part::Fault { source: SECRET, reason }, out);
        }
    }

    /// Does as a sentinel what the state of every node asks for. `first`: whose state is news, and may free it for another one.
    fn serve_all(&mut self, first: usize, now: Instant, out: &mut Vec<Output>) {
        let others = (0..self.links.len()).filter(|place| *place != first);
        std::iter::once(first).chain(others).for_each(|place| self.serve(place, now, out));
    }

    /// The same for one of them.
    fn serve(&mut self, place: usize, now: Instant, out: &mut Vec<Output>) {
        let stamp = if place == self.config.me { now } else { Instant::from_micros(self.links[place].heard) };
        if self.promises.serve(now, place, stamp, &self.view) {
            self.send(place, now, out);
        }
    }

    /// Tells what has become of the lease, and of what this node says of it.
    fn settle(&mut self, now: Instant, out: &mut Vec<Output>) {
        let (news, tenure) = self.promises.settle(now, &self.view);
        if let Some(held) = news {
            out.push(Output::Lease(held));
        }
        let hears_majority = self.view.hears_majority();
        let own = self.own();
        if own.tenure != tenure || own.hears_majority != hears_majority {
            (own.tenure, own.hears_majority) = (tenure, hears_majority);
            self.send_all(now, out);
            self.serve_all(self.config.me, now, out);
            self.publish_view(now, out);
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        let mut changed = false;
        for (place, node) in self.view.nodes.iter_mut().enumerate().filter(|(place, _)| *place != self.config.me) {
            if node.fresh && overdue_at(node).is_some_and(|at| at <= now) {
                let every = self.promises.frames_of(node, FRAME_INTERVAL);
                node.overdue_since = node.heard_at.map(|at| at + every);
                changed = true;
            }
            if node.fresh && is_stale(now, node.heard_at) {
                node.fresh = false;
                self.links[place].reads = OLDEST;
                SILENT.clone_into(&mut node.fault);
                out.push(Output::Publish(Event::PeerDown(node.name.clone())));
                changed = true;
            }
        }
        if self.next_frame_at <= now {
            // Who was just answered knows all that there is to know; who asks is answered by everybody.
            let (asks, lately) = (self.promises.deadline().is_some(), now - FRAME_INTERVAL / 2);
            self.send_those(now, |link| asks || link.sent_at.is_none_or(|at| at <= lately), out);
        }
        for place in self.promises.silent(now) {
            if place == self.config.me { self.serve(place, now, out) } else { self.send(place, now, out) }
        }
        if changed || self.next_view_at <= now {
            self.publish_view(now, out);
        }
    }
}

/// When the frames of a node are overdue, if nothing comes until then.
fn overdue_at(node: &NodeView) -> Option<Instant> {
    node.heard_at.filter(|_| node.overdue_since.is_none()).map(|at| at + OVERDUE_AFTER)
}

/// Whether who was heard last at that time is not acted upon any more.
fn is_stale(now: Instant, heard_at: Option<Instant>) -> bool {
    heard_at.is_none_or(|at| now.since(at) >= FRESH_FOR)
}

/// How long ago this node sent what a peer had heard when it sent a frame; none: it has heard nothing of this start.
fn age(now: Instant, heard: u64) -> Option<Duration> {
    let sent = (heard > 0 && heard <= now.as_micros()).then(|| Instant::from_micros(heard))?;
    Some(now.since(sent))
}

impl Machine for Cluster {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Datagram { from, at, bytes } => self.datagram(now, (from, at), &bytes, out),
            Input::Part(part) => self.part(now, part, out),
            Input::Keys(keys) => self.config.keys = keys,
            Input::Prove(place) => self.prove(place, now, out),
        }
        self.settle(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        let others = self.view.nodes.iter().enumerate().filter(|(place, node)| *place != self.config.me && node.fresh);
        let silent_at = |node: &NodeView| earliest(overdue_at(node), node.heard_at.map(|at| at + FRESH_FOR));
        let silent_at = others.filter_map(|(_, node)| silent_at(node)).min();
        let due = earliest(self.promises.deadline(), Some(self.next_frame_at.min(self.next_view_at)));
        earliest(silent_at, due)
    }
}

#[cfg(test)]
mod tests;
