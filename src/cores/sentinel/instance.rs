//! What is known of one redis, what it answers, and what that proves.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::lease::FileTerms;
use crate::base::node::{Process, RedisFacts, RedisRole};
use crate::base::{Epoch, Instant, NodeName};
use crate::wire::info::{Info, Role};
use crate::wire::resp::Reply;

use super::ids::{InstanceId, LinkId};
use super::link::Link;
use super::pulse::Pulse;

/// INFO of replicas whose state is awaited.
pub(super) const INFO_PERIOD_FAILOVER: Duration = Duration::from_millis(100);

/// One that was named so often in a row and did not open goes last in the choice,
const UNOPENED_MAX: u32 = 2;
/// and after so long it is tried like any other again.
const UNOPENED_FOR: Duration = Duration::from_secs(30);

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
    pub(super) pulse: Pulse,
    /// Whether its last answer to a ping was a refusal: that it tells of itself proves no longer that it works.
    pub(super) refused: bool,
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
    /// Whether its node says that it hears a majority of the sentinels.
    pub(super) hears_majority: bool,
    /// What the file of its node asks for.
    pub(super) terms: FileTerms,
    /// Since when it is not heard on the peer link that it takes writes by a lease.
    pub(super) unleased_since: Option<Instant>,
    /// The epoch of a lease that it was granted, while it does not take writes.
    pub(super) granted: Option<Epoch>,
    /// How often in a row it was named as the next master and did not open, and when last.
    pub(super) unopened: (u32, Instant),
    pub(super) fresh: bool,
    /// Whether nothing is heard of its node for longer than there should be.
    pub(super) overdue: bool,
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
            pulse: Pulse::new(now),
            refused: false,
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
            hears_majority: false,
            terms: FileTerms::Unknown,
            unleased_since: Some(now),
            granted: None,
            unopened: (0, now),
            fresh: false,
            overdue: false,
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
        self.pulse.silent_since.is_none_or(|since| now.since(since) < down_after)
    }

    /// It has answered something that proves it works.
    pub(super) fn alive(&mut self, now: Instant) {
        self.pulse.last_ok = now;
        self.pulse.last_reply = now;
        self.busy_since = None;
        self.script_kill_sent = false;
        // Replies come in order: a ping that is still open was sent after what is answered now, and its clock runs on.
        self.pulse.silent_since = self.pulse.sent;
    }

    /// The command link has ended: what was asked on it is lost.
    pub(super) fn command_lost(&mut self, now: Instant) {
        self.pulse.lost(now);
        self.info_sent = None;
        self.info_due = now;
    }

    /// Whether it says that it is a master.
    pub(super) fn is_master(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.role == Some(Role::Master))
    }

    /// Whether it says that it is a replica.
    pub(super) fn is_replica(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.role == Some(Role::Replica))
    }

    /// Whether it says that it is a replica without a working link: it may have one any moment.
    pub(super) fn is_out_of_sync(&self) -> bool {
        self.is_replica() && self.info.as_ref().is_some_and(|info| !info.master_link_up)
    }

    /// Whether its supervisor, or itself, says that it is busy.
    pub(super) fn is_busy(&self) -> bool {
        self.busy_since.is_some() || self.fresh_facts().is_some_and(|facts| is_busy(facts, self.served))
    }

    /// Why it is down beyond doubt, by its supervisor's word.
    pub(super) fn proof(&self, is_master: bool) -> Option<&'static str> {
        // A death stays true when the frames end: what may have been started since, unseen, is another incarnation.
        let dead = self.facts.as_ref().is_some_and(|facts| facts.process == Process::Dead);
        if dead && self.pulse.silent_since.is_some() {
            return Some("its process is dead");
        }
        let facts = self.fresh_facts()?;
        let another = self.served.is_some_and(|served| facts.incarnation != served);
        let closed_by_info = self.info.as_ref().is_none_or(Info::is_closed);
        match facts.process {
            Process::Dead => Some("its process is dead"),
            Process::Starting if is_master && another => Some("its process was restarted"),
            Process::Starting => None,
            Process::Loading | Process::Alive | Process::Busy => match facts.role {
                RedisRole::Closed | RedisRole::Unknown if is_master && another => Some("its process was restarted"),
                // Nothing was seen of it as a master, and it says itself, twice, that it is none.
                RedisRole::Closed if is_master && self.served.is_none() && closed_by_info => {
                    Some("it came back closed")
                }
                RedisRole::Closed | RedisRole::Unknown | RedisRole::Replica { .. } | RedisRole::Master { .. } => None,
            },
        }
    }

    /// It has answered a ping. `excused`: a refusal proves no less than a PONG that it works.
    pub(super) fn answered(&mut self, reply: &Reply, excused: bool, now: Instant) -> Answered {
        let sent = self.pulse.sent.take();
        self.pulse.last_reply = now;
        self.refused = false;
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
                    self.rebooted_at = None;
                }
                self.alive(now);
                Answered::Works
            }
            "NOAUTH" | "WRONGPASS" | "NOPERM" => {
                if excused {
                    self.alive(now);
                } else {
                    self.useless(sent);
                }
                Answered::Refuses
            }
            "BUSY" => {
                self.busy_since.get_or_insert(now);
                let kill = self.down_since.is_some() && !self.script_kill_sent;
                self.script_kill_sent |= kill;
                if kill { Answered::Hangs } else { Answered::Nothing }
            }
            _ => {
                self.useless(sent);
                Answered::Nothing
            }
        }
    }

    /// It answers, but nothing that proves that it works: the silence goes on.
    fn useless(&mut self, sent: Option<Instant>) {
        self.refused = true;
        self.pulse.silent_since = self.pulse.silent_since.or(sent);
    }

    /// It has answered an INFO, be it by an error.
    pub(super) fn answered_info(&mut self, text: Option<&str>, now: Instant) {
        (self.info_sent, self.info_answered) = (None, Some(now));
        let Some(text) = text else { return };
        if self.refused {
            self.pulse.last_reply = now;
        } else {
            self.alive(now);
        }
        // A copy: what came in may be a slice of a large buffer.
        self.info_text = Some(bytes::Bytes::copy_from_slice(text.as_bytes()));
    }

    /// It has said something of itself.
    pub(super) fn said(&mut self, mut info: Info, now: Instant) -> Said {
        let old = self.info.take();
        let rebooted =
            matches!((&old, info.run_id), (Some(old), Some(new)) if old.run_id.is_some_and(|old| old != new));
        if info.run_id.is_none() {
            // A part of the sections leaves out what another has said.
            info.run_id = old.as_ref().and_then(|old| old.run_id);
        }
        let role_changed = old.as_ref().map(|old| old.role) != Some(info.role);
        if role_changed {
            self.role_since = now;
        }
        if info.role == Some(Role::Replica) {
            self.was_master = false;
        }
        if rebooted {
            self.rebooted_at = Some(now);
        }
        self.info_at = Some(now);
        self.info = Some(info);
        Said { rebooted, role_changed: role_changed && old.is_some() }
    }

    /// It has said that it is the master it was told to be.
    pub(super) fn promoted(&mut self) {
        if let Some(info) = &mut self.info {
            info.role = Some(Role::Master);
            info.master_host = None;
        }
        // The facts that still call it closed or a replica are of this incarnation: no proof against it.
        self.served = self.facts.as_ref().map(|facts| facts.incarnation);
        self.down_since = None;
        self.unopened.0 = 0;
    }

    /// It was named as the next master and granted the lease, had all the time that this takes, and did not open.
    pub(super) fn not_opened(&mut self, now: Instant) {
        self.unopened = (self.unopened.0 + 1, now);
    }

    /// Whether another one is to be named, if there is one. The lease may have come late once.
    pub(super) fn does_not_open(&self, now: Instant) -> bool {
        let (times, last) = self.unopened;
        times >= UNOPENED_MAX && now.since(last) < UNOPENED_FOR
    }

    /// Takes in what the peer link says of it; whether that is news of its process.
    pub(super) fn told(&mut self, redis: Option<&RedisFacts>, fresh: bool, now: Instant) -> bool {
        let changed = |facts: &RedisFacts| (facts.incarnation, facts.process, facts.role);
        let news = self.facts.as_ref().map(changed) != redis.map(changed);
        let busy_ended = self.fresh_facts().is_some_and(|old| is_busy(old, self.served))
            && redis.is_some_and(|new| fresh && !is_busy(new, self.served));
        if busy_ended {
            // What was silent while busy gets the whole time again.
            self.pulse.restart_silence(now);
        }
        if let Some(facts) = redis.filter(|facts| fresh && serves(facts)) {
            self.served = Some(facts.incarnation);
        }
        (self.facts, self.fresh) = (redis.cloned(), fresh);
        news && fresh
    }

    /// The links that end with this: it is to be connected to again.
    pub(super) fn hang_up(&mut self, now: Instant) -> impl Iterator<Item = LinkId> + use<> {
        let (command, pubsub) = (self.command.id(), self.pubsub.id());
        if command.is_some() {
            self.command.ended(now);
            self.command_lost(now);
        }
        if pubsub.is_some() {
            self.pubsub.ended(now);
        }
        command.into_iter().chain(pubsub)
    }
}

/// What the answer to a ping says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// It works.
    Works,
    /// It refuses this sentinel's password.
    Refuses,
    /// It is busy with a script that should be killed.
    Hangs,
    /// Nothing that is new.
    Nothing,
}

/// What is new in what a redis says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// It is another process than before.
    pub(super) rebooted: bool,
    /// It reports another role than before.
    pub(super) role_changed: bool,
}

/// Whether the process is up and serves as a master.
fn serves(facts: &RedisFacts) -> bool {
    matches!(facts.role, RedisRole::Master { .. }) && facts.process != Process::Dead
}

/// Whether the incarnation that serves is alive by its supervisor's word, and only cannot answer.
fn is_busy(facts: &RedisFacts, served: Option<u64>) -> bool {
    matches!(facts.process, Process::Busy | Process::Loading) && served.is_none_or(|served| served == facts.incarnation)
}
