//! What is known of one redis and of one other sentinel, and the links to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::node::{RedisFacts, SentinelFacts};
use crate::base::{Epoch, Instant, NodeName, RunId};
use crate::wire::info::Info;

use super::MasterId;

/// The name of one connection, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// A link that lived this long is tried again at once, as if it had never failed.
const STABLE: Duration = Duration::from_secs(1);
/// Longest wait between two attempts to connect.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// One connection, as it is wanted: always open.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// Closed; to be opened at `retry_at`.
    Down { retry_at: Instant, backoff: Duration },
    /// Being opened.
    Connecting { id: LinkId, backoff: Duration },
    /// Open.
    Up { id: LinkId, since: Instant, backoff: Duration },
}

impl Link {
    pub(super) fn id(&self) -> Option<LinkId> {
        match self {
            Self::Down { .. } => None,
            Self::Connecting { id, .. } | Self::Up { id, .. } => Some(*id),
        }
    }

    pub(super) fn up(&self) -> Option<LinkId> {
        match self {
            Self::Up { id, .. } => Some(*id),
            Self::Down { .. } | Self::Connecting { .. } => None,
        }
    }

    /// Since when it is open.
    pub(super) fn since(&self) -> Option<Instant> {
        match self {
            Self::Up { since, .. } => Some(*since),
            Self::Down { .. } | Self::Connecting { .. } => None,
        }
    }

    pub(super) fn connected(&mut self, now: Instant) {
        if let Self::Connecting { id, backoff } = *self {
            *self = Self::Up { id, since: now, backoff };
        }
    }

    /// The link has ended: again at once if it was a good one, else after a while that doubles.
    pub(super) fn ended(&mut self, now: Instant) {
        let backoff = match *self {
            Self::Up { since, .. } if now.since(since) >= STABLE => Duration::ZERO,
            Self::Up { backoff, .. } | Self::Connecting { backoff, .. } | Self::Down { backoff, .. } => backoff,
        };
        let next = (backoff * 2).clamp(Duration::from_millis(10), BACKOFF_MAX);
        *self = Self::Down { retry_at: now + backoff, backoff: next };
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::Down { retry_at: Instant::START, backoff: Duration::ZERO }
    }
}

/// How far the re-pointing of a replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reconf {
    /// Not begun.
    None,
    /// Told at that time.
    Sent(Instant),
    /// It says that it follows the new master.
    InProgress(Instant),
    /// In sync, or given up.
    Done,
}

/// Names an instance as long as this process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InstanceId(pub(super) u32);

/// Names another sentinel as long as this process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerId(pub(super) u32);

/// One redis.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) address: SocketAddr,
    /// Its host name, if it is known by one.
    pub(super) host: Option<String>,
    /// Its node; none if it is not in the file.
    pub(super) node: Option<NodeName>,
    pub(super) command: Link,
    pub(super) pubsub: Link,
    pub(super) ping_due: Instant,
    /// When the ping was sent that is not answered yet.
    pub(super) ping_sent: Option<Instant>,
    /// Whether its last answer to a ping was a refusal: that it tells of itself proves no longer that it works.
    pub(super) refused: bool,
    /// Since when nothing valid has come although something was asked, or could not be for want of a link.
    pub(super) silent_since: Option<Instant>,
    pub(super) last_ok: Instant,
    pub(super) last_reply: Instant,
    /// Since when this sentinel finds it down.
    pub(super) down_since: Option<Instant>,
    pub(super) info: Option<Info>,
    /// The text of that, for SENTINEL INFO-CACHE.
    pub(super) info_text: Option<bytes::Bytes>,
    pub(super) info_at: Option<Instant>,
    /// When the INFO was sent that is not answered yet.
    pub(super) info_sent: Option<Instant>,
    /// When it last answered that, even if by an error.
    pub(super) info_answered: Option<Instant>,
    pub(super) info_due: Instant,
    /// Since when it reports the role it reports.
    pub(super) role_since: Instant,
    /// When its run id was seen to change; none once it has answered PONG again.
    pub(super) rebooted_at: Option<Instant>,
    /// Its supervisor's word.
    pub(super) facts: Option<RedisFacts>,
    pub(super) fresh: bool,
    /// The incarnation that serves or served as the master this sentinel knows of.
    pub(super) served: Option<u64>,
    /// Since when it answers that it is busy with a script.
    pub(super) busy_since: Option<Instant>,
    pub(super) script_kill_sent: bool,
    pub(super) auth_failed: bool,
    pub(super) reconf: Reconf,
    /// It was the master by an earlier decision and has not been seen as a replica since.
    pub(super) was_master: bool,
    /// When healing may touch it again.
    pub(super) heal_at: Option<Instant>,
}

impl Instance {
    pub(super) fn new(id: InstanceId, address: SocketAddr, node: Option<NodeName>, now: Instant) -> Self {
        Self {
            id,
            address,
            host: None,
            node,
            command: Link::default(),
            pubsub: Link::default(),
            ping_due: now,
            ping_sent: None,
            refused: false,
            silent_since: Some(now),
            last_ok: now,
            last_reply: now,
            down_since: None,
            info: None,
            info_text: None,
            info_at: None,
            info_sent: None,
            info_answered: None,
            info_due: now,
            role_since: now,
            rebooted_at: None,
            facts: None,
            fresh: false,
            served: None,
            busy_since: None,
            script_kill_sent: false,
            auth_failed: false,
            reconf: Reconf::None,
            was_master: false,
            heal_at: None,
        }
    }

    /// How people call it.
    pub(super) fn label(&self) -> String {
        match &self.node {
            Some(node) => format!("{node} ({})", self.address),
            None => self.address.to_string(),
        }
    }

    /// Facts that may be acted upon.
    pub(super) fn fresh_facts(&self) -> Option<&RedisFacts> {
        self.facts.as_ref().filter(|_| self.fresh)
    }

    /// Whether it answers, or has only just been asked.
    pub(super) fn answers(&self, now: Instant, down_after: Duration) -> bool {
        self.silent_since.is_none_or(|since| now.since(since) < down_after)
    }

    pub(super) fn restart_silence(&mut self, now: Instant) {
        if self.silent_since.is_some() {
            self.silent_since = Some(now);
        }
        if self.ping_sent.is_some() {
            self.ping_sent = Some(now);
        }
    }

    /// It has answered something that proves it works.
    pub(super) fn alive(&mut self, now: Instant) {
        self.last_ok = now;
        self.last_reply = now;
        self.busy_since = None;
        self.script_kill_sent = false;
        // Replies come in order: a ping that is still open was sent after what is answered now, and its clock runs on.
        self.silent_since = self.ping_sent;
    }

    /// The command link has ended: what was asked on it is lost.
    pub(super) fn command_lost(&mut self, now: Instant) {
        self.ping_sent = None;
        self.info_sent = None;
        self.ping_due = now;
        self.info_due = now;
        self.silent_since.get_or_insert(now);
    }
}

/// What another sentinel has answered about one master.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opinion {
    /// When it last answered, and whether it finds the master down.
    pub(super) down: Option<(Instant, bool)>,
    /// Its vote as it last said.
    pub(super) vote: Option<(RunId, Epoch)>,
    /// When it was asked what is not answered yet.
    pub(super) asked: Option<Instant>,
}

/// One other sentinel.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: PeerId,
    /// Its node; none if it is not in the file.
    pub(super) name: Option<NodeName>,
    pub(super) address: SocketAddr,
    /// Its host name, if it is known by one.
    pub(super) host: Option<String>,
    /// Its run id, once heard.
    pub(super) id: Option<RunId>,
    pub(super) link: Link,
    pub(super) ping_due: Instant,
    pub(super) ping_sent: Option<Instant>,
    pub(super) silent_since: Option<Instant>,
    pub(super) last_ok: Instant,
    pub(super) last_reply: Instant,
    /// The first reply over the link that is open.
    pub(super) first_reply: Option<Instant>,
    pub(super) last_hello: Instant,
    pub(super) down_since: Option<Instant>,
    /// One per master that it is known to watch.
    pub(super) opinions: BTreeMap<MasterId, Opinion>,
    pub(super) facts: Option<SentinelFacts>,
    pub(super) fresh: bool,
    /// Whether it has ever spoken over the peer link: a stock sentinel does not.
    pub(super) spoke: bool,
    /// Whether it may be a stock sentinel: then it is connected to, asked and heard at its port, too.
    pub(super) stock: bool,
}

impl Peer {
    pub(super) fn new(
        key: PeerId,
        name: Option<NodeName>,
        address: SocketAddr,
        id: Option<RunId>,
        now: Instant,
    ) -> Self {
        Self {
            key,
            name,
            address,
            host: None,
            id,
            link: Link::default(),
            ping_due: now,
            ping_sent: None,
            silent_since: Some(now),
            last_ok: now,
            last_reply: now,
            first_reply: None,
            last_hello: now,
            down_since: None,
            opinions: BTreeMap::new(),
            facts: None,
            fresh: false,
            spoke: false,
            stock: true,
        }
    }

    /// How people call it.
    pub(super) fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.address.to_string(), ToString::to_string)
    }

    pub(super) fn fresh_facts(&self) -> Option<&SentinelFacts> {
        self.facts.as_ref().filter(|_| self.fresh)
    }

    /// What it said of a master; nothing if it does not watch it.
    pub(super) fn opinion(&self, master: MasterId) -> Opinion {
        self.opinions.get(&master).copied().unwrap_or_default()
    }

    /// It was heard, or is not heard any more, on the peer link. Who has no other way to be heard lives by that.
    pub(super) fn heard_on_link(&mut self, now: Instant) {
        if self.stock {
            return;
        }
        if self.fresh {
            (self.last_ok, self.last_reply, self.silent_since) = (now, now, None);
        } else {
            self.silent_since.get_or_insert(now);
        }
    }

    /// Whether it can be counted on to answer.
    pub(super) fn looks_alive(&self) -> bool {
        self.fresh_facts().is_some() || (self.link.up().is_some() && self.down_since.is_none())
    }

    pub(super) fn restart_silence(&mut self, now: Instant) {
        if self.silent_since.is_some() {
            self.silent_since = Some(now);
        }
        if self.ping_sent.is_some() {
            self.ping_sent = Some(now);
        }
        // What it has said over the peer link since then may still wait to be heard.
        self.first_reply = None;
    }
}
