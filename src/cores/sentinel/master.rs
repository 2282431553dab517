//! One watched master: what is known of it and of its replicas, and all that follows from that alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::node::{Decision, Mode};
use crate::base::{Epoch, Instant, NodeName, RunId};
use crate::wire::info::{Info, Role};

use super::config::MasterConfig;
use super::durable::{DurableMaster, OnDisk};
use super::ids::{InstanceId, LinkId, MasterId};
use super::instance::{INFO_PERIOD_FAILOVER, Instance, Reconf};
use super::lead::{Cause, Failover, Lead, Phase, Promotion};
use super::moment::Moment;

/// Most data nodes beyond those of the file: whoever may attach replicas must not fill the memory.
const EXTRA_NODES_MAX: usize = 64;

/// One watched master and its replicas.
#[derive(Debug)]
pub(super) struct Master {
    pub(super) id: MasterId,
    pub(super) config: MasterConfig,
    /// Who is master since which epoch; none: there is no record of any.
    pub(super) decision: Option<Decision>,
    /// By what right it takes writes.
    pub(super) mode: Mode,
    /// Whether the decision is on disk.
    pub(super) decision_disk: OnDisk,
    /// Whether the last vote is on disk.
    pub(super) vote_disk: OnDisk,
    /// The last vote: for whom, in which epoch.
    pub(super) vote: Option<(RunId, Epoch)>,
    /// Those of the file, in its order, and behind them those found out.
    pub(super) nodes: Vec<Instance>,
    failover: Failover,
    /// Since when a quorum finds it down.
    pub(super) odown_since: Option<Instant>,
    /// Since when this sentinel hears a majority of its voters.
    majority_since: Option<Instant>,
    /// When the decision became known to this process.
    decided_at: Instant,
    /// When it was last asked of the peers whether it is down.
    pub(super) asked_at: Option<Instant>,
    pub(super) hello_due: Instant,
    /// Lineage of the data of the master at that address, as it last said while it was master.
    lineage: Option<(SocketAddr, RunId)>,
    /// What the master was restarted with, while no replica is known to share it.
    claimed: Option<(SocketAddr, RunId)>,
    /// Why nobody can be promoted, as last published.
    pub(super) no_candidate: Option<String>,
    /// What keeps it from being watched as it should be, as of its last turn.
    pub(super) fault: Option<String>,
    /// When it next needs a turn; now, if something was heard of it.
    pub(super) due: Option<Instant>,
    pub(super) touched: bool,
}

/// That a redis is found down by this sentinel, or is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) down: bool,
    /// Why it is down beyond doubt.
    pub(super) proof: Option<&'static str>,
}

impl Master {
    /// A master that is watched from now on, with the record that there is of it.
    pub(super) fn new(
        id: MasterId,
        config: MasterConfig,
        record: Option<DurableMaster>,
        nodes: Vec<Instance>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            config,
            decision: record.as_ref().and_then(|record| record.decision),
            mode: record.as_ref().map_or_else(Mode::default, |record| record.mode),
            decision_disk: OnDisk::Yes,
            vote_disk: OnDisk::Yes,
            vote: record.as_ref().and_then(|record| record.vote),
            nodes,
            failover: Failover::Idle { not_before: now },
            odown_since: None,
            majority_since: None,
            decided_at: now,
            asked_at: None,
            hello_due: now,
            lineage: None,
            claimed: None,
            no_candidate: None,
            fault: None,
            due: None,
            touched: true,
        }
    }

    /// The address under which it is watched: that of the decision, else where the first one will be.
    pub(super) fn monitored(&self) -> SocketAddr {
        let nodes = &self.config.nodes;
        let first = nodes.iter().find(|node| node.bootstrap).or_else(|| nodes.first()).map(|node| node.address);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        self.decision.map_or_else(|| first.unwrap_or(unknown), |decision| decision.master)
    }

    /// Whether it is known where it is: that of a host name may not have been found out yet.
    pub(super) fn is_located(&self) -> bool {
        !self.monitored().ip().is_unspecified()
    }

    /// The epoch since which it is the master; 0 before the first decision.
    pub(super) fn epoch(&self) -> Epoch {
        self.decision.map_or(0, |decision| decision.epoch)
    }

    /// Whether that epoch has come to a decision, or is overtaken by one.
    pub(super) fn has_decided(&self, epoch: Epoch) -> bool {
        self.decision.is_some_and(|decision| decision.epoch >= epoch)
    }

    /// Sentinels that have to find it down.
    pub(super) fn quorum(&self) -> usize {
        usize::try_from(self.config.quorum).unwrap_or(usize::MAX)
    }

    /// The place of the watched master among the nodes.
    pub(super) fn at(&self) -> usize {
        self.place_of(self.monitored()).unwrap_or(0)
    }

    /// The watched master itself.
    pub(super) fn watched(&self) -> &Instance {
        &self.nodes[self.at()]
    }

    /// The places of all others.
    pub(super) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let at = self.at();
        (0..self.nodes.len()).filter(move |n| *n != at)
    }

    /// The place of the redis at that address.
    pub(super) fn place_of(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }

    /// The place of the redis of that node.
    pub(super) fn place_of_node(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.node.as_ref() == Some(name))
    }

    /// The place of a redis, if it is still known.
    pub(super) fn place_of_id(&self, id: InstanceId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Whether one more redis may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.nodes.len() < self.config.nodes.len() + EXTRA_NODES_MAX
    }

    /// Whether this sentinel, by itself, finds it down. Where there never was a master, none is.
    pub(super) fn sees_down(&self) -> bool {
        self.decision.is_some() && self.watched().down_since.is_some()
    }

    /// Whether what makes it count as down is proof, not silence.
    pub(super) fn proved_down(&self) -> bool {
        self.watched().proof(true).is_some()
    }

    /// Whether most of its redis refuse this node's password.
    pub(super) fn is_refused_by_most(&self) -> bool {
        let refusing = self.nodes.iter().filter(|node| node.auth_failed).count();
        refusing > 0 && refusing * 2 >= self.nodes.len()
    }

    /// Which redis do not let this sentinel in, for a person who has to mend that.
    pub(super) fn refusal(&self) -> Option<String> {
        let refusing: Vec<_> = self.nodes.iter().filter(|node| node.auth_failed).map(Instance::label).collect();
        let who = refusing.join(", ");
        match &self.config.auth_user {
            _ if refusing.is_empty() => None,
            Some(user) => Some(format!("redis does not let the user {user} of the cluster in: {who}")),
            None => Some(format!("redis does not take the cluster's password: {who}")),
        }
    }

    /// `<name> <ip> <port>`
    fn words(&self) -> String {
        let address = self.monitored();
        format!("{} {} {}", self.config.name, address.ip(), address.port())
    }

    /// `master <name> <ip> <port>`, as events call it.
    pub(super) fn called(&self) -> String {
        format!("master {}", self.words())
    }

    /// `@ <name> <ip> <port>`: whose replica or sentinel an event is about.
    pub(super) fn called_behind(&self) -> String {
        format!("@ {}", self.words())
    }

    /// `slave <name> <ip> <port> @ <master>`, or the master's form if it is the master.
    pub(super) fn called_node(&self, n: usize) -> String {
        let address = self.nodes[n].address;
        if address == self.monitored() {
            self.called()
        } else {
            format!("slave {address} {} {} {}", address.ip(), address.port(), self.called_behind())
        }
    }

    /// How far a failover of it is.
    pub(super) fn failover(&self) -> &Failover {
        &self.failover
    }

    /// The epoch in which this sentinel leads a failover of it, or stands to lead it.
    pub(super) fn leads(&self) -> Option<Epoch> {
        self.failover.leads()
    }

    /// Why a new master is looked for, if one is.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.failover.cause()
    }

    /// Whether that is by order of a person.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(self.cause(), Some(Cause::Ordered(_)))
    }

    /// Whether that redis was told to be the master and has not said yet that it is.
    pub(super) fn awaits_promotion_of(&self, n: usize) -> bool {
        self.failover.lead().is_some_and(|lead| lead.phase.is_told() && lead.phase.target() == Some(n))
    }

    /// The promotion of that redis that is under way in that epoch.
    pub(super) fn promoting(&self, n: usize, epoch: Epoch) -> Option<Lead> {
        let of_it = |phase| matches!(phase, Phase::Promoting { target, .. } if target == n);
        self.failover.lead().filter(|lead| lead.epoch == epoch && of_it(lead.phase)).copied()
    }

    /// The promotion by a lease, led here, that has come to pass if that is the decision; and of whom.
    pub(super) fn promotion_of(&self, decision: Decision) -> Option<(Lead, usize)> {
        let n = self.place_of(decision.master)?;
        let lead = self.promoting(n, decision.epoch).filter(|lead| lead.phase.named().is_some())?;
        Some((lead, n))
    }

    /// The pause that is under way in that epoch, and for whom.
    pub(super) fn pausing(&self, epoch: Epoch) -> Option<(Lead, usize)> {
        let lead = self.failover.lead().filter(|lead| lead.epoch == epoch)?;
        if let Phase::Pausing { target } = lead.phase { Some((*lead, target)) } else { None }
    }

    /// The only place where a failover changes its state. Leaving a state that holds writes for anything but what follows
    /// from it releases them: at the redis in that place.
    pub(super) fn enter(&mut self, next: Failover) -> Option<usize> {
        debug_assert!(self.failover.leads_to(&next), "{next:?} does not follow from {:?}", self.failover);
        debug_assert!(next.lead().is_none_or(Lead::holds_rightly), "writes are held in the wrong phase: {next:?}");
        let left = std::mem::replace(&mut self.failover, next);
        let hold = left.hold().filter(|_| next.hold().is_none())?;
        let n = self.place_of_id(hold.at)?;
        // Its demotion, which would have released it, was lost if it could not be stored.
        (!left.is_reconfiguring() || self.nodes[n].is_master()).then_some(n)
    }

    /// No failover begins before.
    pub(super) fn not_before(&mut self, at: Instant) {
        if let Failover::Idle { not_before } = &mut self.failover {
            *not_before = at.max(*not_before);
        }
    }

    /// The target of the promotion has been told, and is asked for its role at `role_at`.
    pub(super) fn told_target(&mut self, role_at: Instant) {
        debug_assert!(
            matches!(self.failover.lead(), Some(Lead { phase: Phase::Promoting { .. }, .. })),
            "nobody is being promoted: {:?}",
            self.failover
        );
        if let Failover::Leading(Lead { phase: Phase::Promoting { step, .. }, .. }) = &mut self.failover {
            *step = Promotion::Sent { role_at };
        }
    }

    /// Whether writes are held at that redis, or were until the decision.
    pub(super) fn holds(&self, n: usize) -> bool {
        self.failover.hold().is_some_and(|hold| hold.at == self.nodes[n].id)
    }

    /// Takes down whether this sentinel hears a majority of its voters, who could grant the master its lease.
    pub(super) fn hears_majority(&mut self, heard: bool, now: Instant) {
        self.majority_since = heard.then(|| self.majority_since.unwrap_or(now));
    }

    /// Until when the silence of the master proves nothing: sentinels that hear each other again may hear it again, too, and it
    /// has what they have missed.
    pub(super) fn silence_counts_at(&self) -> Option<Instant> {
        self.majority_since.filter(|_| !self.proved_down()).map(|since| since + self.config.down_after)
    }

    /// Decides whether this sentinel, by itself, finds a redis down: what is new, and when to look again.
    pub(super) fn judge(&mut self, n: usize, moment: Moment<'_>) -> (Option<Judgement>, Option<Instant>) {
        let (now, config) = (moment.now, &self.config);
        let is_master = n == self.at() && self.decision.is_some();
        let node = &self.nodes[n];
        let silent_at = node.pulse.silent_since.map(|since| since + self.silence_allowed(node));
        // A master that says for long that it is none is of no use as one, whatever the reason.
        let period = moment.timers.info_period(config.down_after);
        let strayed = is_master && node.is_replica();
        let strayed_at = strayed.then(|| node.role_since + config.down_after + 2 * period);
        // It may take long to read its data from disk, and answers PING meanwhile.
        let reboot = node.rebooted_at.filter(|_| is_master && !config.reboot_down_after.is_zero());
        let reboot_at = reboot.map(|at| at + config.reboot_down_after);
        // One that takes no writes, or is not heard where leases are asked for and granted, is no master, even if it answers. Where
        // no majority is heard nobody is granted one.
        let unleased = node.unleased_since.filter(|_| is_master && self.mode == Mode::Fenced);
        let unleased_at = unleased.and_then(|since| Some(since.max(self.majority_since?) + config.down_after));
        let limits = [silent_at, strayed_at, reboot_at, unleased_at].into_iter().flatten();
        let proof = node.proof(is_master);
        let down = proof.is_some() || limits.clone().any(|at| now >= at);
        let again = limits.filter(|at| *at > now).min();
        if down == node.down_since.is_some() {
            return (None, again);
        }
        self.nodes[n].down_since = down.then_some(now);
        if down && is_master {
            self.asked_at = None;
            // What the replicas have decides who takes over.
            self.nodes.iter_mut().for_each(|node| node.info_due = now);
            self.touched = true;
        }
        (Some(Judgement { down, proof: proof.filter(|_| down) }), again)
    }

    /// For how long nothing valid may come from a redis before it is found down.
    pub(super) fn silence_allowed(&self, node: &Instance) -> Duration {
        let config = &self.config;
        if node.is_busy() { config.busy_grace.max(config.down_after) } else { config.down_after }
    }

    /// The link on which a redis is to be asked for INFO, unless an answer is already on its way.
    pub(super) fn asks_info(&mut self, n: usize, moment: Moment<'_>) -> Option<LinkId> {
        let awaited = self.watched().down_since.is_some() || self.leads().is_some() || self.nodes[n].is_out_of_sync();
        let period = moment.timers.info_period(self.config.down_after);
        let period = if awaited { period.min(INFO_PERIOD_FAILOVER) } else { period };
        let node = &mut self.nodes[n];
        let link = node.command.up().filter(|_| node.info_sent.is_none())?;
        node.info_sent = Some(moment.now);
        node.info_due = moment.now + period;
        Some(link)
    }

    /// Learns the lineage of the master's data from what a redis has just said. `attached`: it has replicas, who share it;
    /// `follows`: whom it follows, by its own word.
    pub(super) fn learn_lineage(&mut self, n: usize, attached: bool, follows: Option<SocketAddr>) {
        let (is_master, address) = (n == self.at(), self.monitored());
        let Some(Info { role, master_link_up, master_sync_in_progress, master_replid: lineage, .. }) =
            self.nodes[n].info
        else {
            return;
        };
        let whole = role == Some(Role::Replica) && !master_sync_in_progress;
        let follows = whole && master_link_up && follows == Some(address);
        let linked = if is_master { role == Some(Role::Master) } else { follows };
        // The master gets a new id with its first replica: whoever last spoke, of the master and those linked to it, knows. One
        // that was restarted has a lineage that nobody shares until a replica has synchronised.
        let shared = !is_master || attached || self.lineage.is_none_or(|(known, _)| known != address);
        if shared
            && linked
            && let Some(lineage) = lineage
        {
            (self.lineage, self.claimed) = (Some((address, lineage)), None);
        } else if is_master && linked {
            self.claimed = lineage.map(|lineage| (address, lineage));
        } else if whole && lineage.is_some_and(|lineage| self.claimed == Some((address, lineage))) {
            // It has synchronised, even if the master is gone by now: others hold what was before.
            self.lineage = self.claimed.take();
        }
    }

    /// Lineage of the data of the master of the decision, if it is known.
    pub(super) fn lineage(&self) -> Option<RunId> {
        let monitored = self.monitored();
        self.lineage.filter(|(address, _)| *address == monitored).map(|(_, lineage)| lineage)
    }

    /// Whatever of it is known by that host name is somewhere else now: the links that end with that.
    pub(super) fn moved(&mut self, host: &str, to: IpAddr, now: Instant) -> Vec<LinkId> {
        let at = self.at();
        let mut links = Vec::new();
        for (n, node) in self.nodes.iter_mut().enumerate() {
            let named = node.host.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(host));
            if !named || node.address.ip() == to {
                continue;
            }
            node.address.set_ip(to);
            if n == at
                && let Some(decision) = &mut self.decision
            {
                decision.master = node.address;
            }
            links.extend(node.hang_up(now));
            node.pulse.restart_silence(now);
        }
        links
    }

    /// What was true of the `old` master is forgotten: the one in the place `new` is the master by the decision.
    pub(super) fn switched(&mut self, old: usize, new: usize, now: Instant) {
        debug_assert_eq!(self.at(), new, "the watched master is not that of the decision");
        self.odown_since = None;
        self.decided_at = now;
        self.no_candidate = None;
        self.forget_reconfiguration();
        self.nodes.iter_mut().for_each(|node| node.heal_at = None);
        if old != new {
            self.nodes[old].was_master = true;
        }
        let node = &mut self.nodes[new];
        node.was_master = false;
        if old != new {
            // Those who decided know it to be alive. It may not have been heard here yet, after a cut.
            node.pulse.restart_silence(now);
        }
        // What it reported before it was master is no straying.
        node.role_since = now;
        node.unleased_since = node.unleased_since.map(|_| now);
        node.served = node.fresh_facts().map(|facts| facts.incarnation);
    }

    /// From here on each is a replica like any other, as clients read in its flags.
    pub(super) fn forget_reconfiguration(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.reconf = Reconf::None);
    }

    /// What the others were told of the new master was thrown away: they are told at once, not when they would be again.
    pub(super) fn tell_again(&mut self) {
        if self.failover.is_reconfiguring() {
            self.touched = true;
            for node in self.nodes.iter_mut().filter(|node| matches!(node.reconf, Reconf::Sent(_))) {
                node.reconf = Reconf::None;
            }
        }
    }

    /// What a redis has said of itself, if that was after the decision: before it, it is no disagreement with that.
    pub(super) fn said_since(&self, n: usize) -> Option<&Info> {
        let node = &self.nodes[n];
        let current = node.info_at.is_some_and(|at| at > self.decided_at) && node.down_since.is_none();
        node.info.as_ref().filter(|_| current && node.command.up().is_some())
    }

    /// Re-pointings that are under way.
    pub(super) fn repointed(&self) -> usize {
        let open = |reconf| matches!(reconf, Reconf::Sent(_) | Reconf::InProgress(_));
        self.nodes.iter().filter(|node| open(node.reconf)).count()
    }

    /// Replicas that have not said since then what they have, or may still get more from a master that is dead.
    pub(super) fn awaited(&self, since: Instant) -> Vec<usize> {
        let proved = self.proved_down();
        let awaited = |n: &usize| {
            let node = &self.nodes[*n];
            let said = node.info_at.is_some_and(|at| at >= since && node.info_sent.is_none_or(|sent| sent >= since));
            // What a dead master's kernel still delivers was acknowledged to clients: REPLICAOF NO ONE would drop it.
            let drained = node.info.as_ref().is_some_and(|info| !info.master_link_up);
            node.down_since.is_none() && node.command.up().is_some() && !(said && (drained || !proved))
        };
        self.others().filter(awaited).collect()
    }

    /// What holds at the end of every turn, whatever has been heard. `me`: this sentinel.
    pub(super) fn assert_sound(&self, me: RunId) {
        let voted = self.vote.map(|(_, epoch)| epoch);
        match &self.failover {
            Failover::Idle { .. } | Failover::Waiting { .. } => {}
            Failover::Following(following) => {
                debug_assert_ne!(following.leader, me, "this sentinel waits for itself");
                debug_assert!(voted >= Some(following.epoch), "it waits for {following:?}, and has voted in {voted:?}");
            }
            Failover::Leading(lead) => {
                debug_assert!(voted >= Some(lead.epoch), "it leads by {lead:?} without its own vote: {voted:?}");
                let decided = self.decision.map(|decision| decision.epoch);
                if lead.phase == Phase::Reconfiguring {
                    debug_assert_eq!(decided, Some(lead.epoch), "the decision is not that of the failover");
                } else {
                    debug_assert!(decided < Some(lead.epoch), "it still leads in {}: {decided:?}", lead.epoch);
                }
                let target = lead.phase.target();
                debug_assert!(target.is_none_or(|n| n < self.nodes.len()), "nobody is in the place of {lead:?}");
            }
        }
        debug_assert!(self.odown_since.is_none() || self.decision.is_some(), "nobody was master, and is down");
        debug_assert!(
            self.vote_disk == OnDisk::Yes || self.vote.is_some(),
            "a vote that was not given is to be stored"
        );
    }
}
