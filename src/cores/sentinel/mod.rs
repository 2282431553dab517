//! The sentinel: finds out whether a master is down, agrees with the other sentinels on it, and replaces it.
//!
//! Speaks the protocol of redis-sentinel (hello, votes by `SENTINEL IS-MASTER-DOWN-BY-ADDR`, events, commands), so that
//! stock sentinels can be among the voters. Where the peers are vigie it is faster, because facts travel by the peer link:
//! the word of a supervisor that its process is dead is proof, everything else is silence and has to last `down_after`.
//!
//! ```text
//!             down by quorum, nobody leads                 majority and quorum of votes
//!  Idle ────────────────► Waiting ──► Electing ───────────────────┬─────────────────────┐
//!   ▲ ▲                      │            │ not elected           │ crash, bootstrap    │ ordered, master lives
//!   │ └──────────────────────┴────────────┘                       ▼                     ▼
//!   │  a vote for another: Following ─► Idle                  Selecting             Pausing ─► Catching
//!   │                                                             └─────► Promoting ◄─────────────┘
//!   └──────────────────────── Reconfiguring ◄─────────────────────────────────┘ decision stored, posted, published
//! ```
//! What promises something to others (votes, questions for votes, decisions, posted facts) stands behind a
//! [`Output::Store`] in the same batch whenever durable state has changed, and is lost with it if that fails.
//!
//! In a cluster only the sentinels of its file vote: who they are is configuration, their run ids are learned. They hear each
//! other on the peer link and nowhere else: votes, epochs and decisions stand in its frames, and what is greeted or published
//! changes nothing (`trust.rs`). A stock sentinel among them has to be listed, and is heard and asked at its port. A sentinel
//! [alone](Sentinel::alone) has its masters from its own file and from commands, and the voters on a master are all that were
//! ever heard on its hello channel and not forgotten by order, as with redis-sentinel.

mod access;
mod acl;
mod admin;
mod alone;
mod ask;
mod clients;
mod command;
mod config;
mod describe;
mod durable;
mod event;
mod failover;
mod glob;
mod heal;
mod info;
mod instance;
mod lead;
mod monitor;
pub mod names;
mod ports;
mod promote;
mod quorum;
mod render;
mod sabotage;
pub mod scripts;
mod select;
mod session;
mod state;
mod switchover;
mod table;
mod timers;
mod trust;
mod users;
pub mod why;

pub use crate::base::Place;
pub use access::Access;
pub use acl::{Acl, AclError, Fault};
pub use ask::{Fact, Question, Sockets, Usage};
pub use config::{Config, DataNode, Logins, MasterConfig, Membership, Renewal, Voter};
pub use durable::{Durable, DurableMaster};
pub use event::{Event, Severity};
pub use instance::LinkId;
pub use monitor::Tag;
pub use ports::{Answer, ClientId, FailoverReport, Input, NodeFacts, OrderId, Output, Record};
pub use sabotage::Rule;
pub use select::Rejection;
pub use state::{DOWN_AFTER, FAILOVER_TIMEOUT, KnownSentinel, MasterState, Settings, State};
pub use timers::Timers;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::node::{Decision, SentinelFacts};
use crate::base::{Epoch, Instant, Machine, NodeName, Rng, RunId};
use crate::wire::resp::Reply;

use access::Desk;
use instance::{Instance, InstanceId, Opinion, Peer, PeerId, Reconf};
use lead::{Cause, Failover};
use names::Names;
use sabotage::Rules;
use scripts::Scripts;

/// Whom a vote was for that is only remembered by its epoch.
const NOBODY: RunId = RunId([0; 20]);
/// Most data nodes of one master beyond those of the file: whoever may attach replicas must not fill the memory.
const EXTRA_NODES_MAX: usize = 64;
/// How soon a failed store is tried again.
const STORE_RETRY: Duration = Duration::from_millis(250);

/// The machine.
#[derive(Debug)]
pub struct Sentinel {
    membership: Membership,
    settings: Settings,
    id: RunId,
    /// The highest epoch seen.
    current_epoch: Epoch,
    /// Records of masters that are not watched any more: their votes stay given.
    retired: Vec<DurableMaster>,
    /// Whether what must survive a crash has changed since it was last given to the store.
    dirty: bool,
    /// Set while the store fails: when to try again.
    store_retry_at: Option<Instant>,
    rng: Rng,
    started_at: Instant,
    timers: Timers,
    /// A change that waits for the disk.
    pending: Option<admin::Pending>,
    simulated: Simulated,
    names: Names,
    /// Commands that wait for what a host name stands for.
    unresolved: Vec<(String, ClientId, Vec<Bytes>)>,
    scripts: Scripts,
    masters: Vec<Master>,
    /// All sentinels known but this one.
    peers: Vec<Peer>,
    clients: BTreeMap<ClientId, session::Client>,
    desk: Desk,
    /// Whose each link is, and the own address on it, once it is up.
    links: BTreeMap<LinkId, (Owner, Option<IpAddr>)>,
    links_made: u32,
    ids_made: u32,
    posted: Option<SentinelFacts>,
    fault: Option<String>,
    /// Clients whose answers stand behind the fence of this turn.
    promised: Vec<ClientId>,
    /// Events of this turn.
    saying: Vec<Event>,
    /// Events behind a fence of which it is not known whether it held.
    unsaid: Vec<Event>,
    /// Outputs of this turn that promise nothing.
    free: Vec<Output>,
    /// Outputs of this turn that must not happen unless what must survive is on disk.
    fenced: Vec<Output>,
    /// What whoever ordered a failover is told when its decision is on disk, however long that takes.
    owed: Vec<Output>,
    /// When to wake, gathered during a turn.
    wake: Option<Instant>,
    deadline: Option<Instant>,
    rules: Rules,
    reports: trust::Reports,
}

/// Where SENTINEL SIMULATE-FAILURE wants the process to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Simulated {
    after_election: bool,
    after_promotion: bool,
}

/// Whose link it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Command(MasterId, InstanceId),
    PubSub(MasterId, InstanceId),
    Peer(PeerId),
}

/// Names a watched master as long as this process lives; its place among the others may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MasterId(u32);

/// One watched master and its replicas.
#[derive(Debug)]
struct Master {
    id: MasterId,
    config: MasterConfig,
    /// Who is master since which epoch; none: there is no record of any.
    decision: Option<Decision>,
    /// Whether the decision is not on disk yet.
    unstored: bool,
    /// Whether the last vote is not on disk yet.
    vote_unstored: bool,
    /// The last vote: for whom, in which epoch.
    vote: Option<(RunId, Epoch)>,
    /// Those of the file, in its order, and behind them those found out.
    nodes: Vec<Instance>,
    failover: Failover,
    /// Since when a quorum finds it down.
    odown_since: Option<Instant>,
    /// When the decision became known to this process.
    decided_at: Instant,
    /// When it was last asked of the peers whether it is down.
    asked_at: Option<Instant>,
    hello_due: Instant,
    /// Lineage of the data of the master at that address, as it last said while it was master.
    lineage: Option<(SocketAddr, RunId)>,
    /// What the master was started anew with, while no replica is known to share it.
    claimed: Option<(SocketAddr, RunId)>,
    /// Why nobody can be promoted, as last published.
    no_candidate: Option<String>,
    /// What keeps it from being watched as it should be, as of its last turn.
    fault: Option<String>,
    /// When it next needs a turn; now, if something was heard of it.
    due: Option<Instant>,
    touched: bool,
}

impl Sentinel {
    /// A sentinel of a cluster file at its start. `durable` is what was stored last, or [`Durable::new`] with a new random id.
    pub fn new(config: Config, durable: Durable, now: Instant) -> Self {
        let Durable { id, current_epoch, masters: records, sentinels } = durable;
        let mut sentinel = Self::empty(&config, id, current_epoch, now);
        sentinel.retired = records;
        if let Membership::Voters { me, all } = &config.membership {
            for voter in all.iter().filter(|voter| voter.name != *me) {
                let known = sentinels.iter().find(|(name, _)| *name == voter.name);
                let p = sentinel.add_peer(Some(voter.name.clone()), voter.address, known.map(|(_, id)| *id), now);
                sentinel.peers[p].stock = voter.stock;
            }
        }
        for master in config.masters {
            let m = sentinel.watch(master, None, now);
            let id = sentinel.masters[m].id;
            for peer in &mut sentinel.peers {
                peer.opinions.insert(id, Opinion::default());
            }
        }
        sentinel
    }

    fn empty(config: &Config, id: RunId, current_epoch: Epoch, now: Instant) -> Self {
        Self {
            membership: config.membership.clone(),
            settings: config.settings.clone(),
            id,
            current_epoch,
            retired: Vec::new(),
            // The id itself has to be on disk before anybody hears of it.
            dirty: true,
            store_retry_at: None,
            rng: Rng::new(config.seed),
            started_at: now,
            timers: Timers::default(),
            pending: None,
            simulated: Simulated::default(),
            names: Names::default(),
            unresolved: Vec::new(),
            scripts: Scripts::default(),
            saying: Vec::new(),
            unsaid: Vec::new(),
            masters: Vec::new(),
            peers: Vec::new(),
            clients: BTreeMap::new(),
            desk: Desk::new(Access::Cluster(config.logins.clone())),
            links: BTreeMap::new(),
            links_made: 0,
            ids_made: 0,
            posted: None,
            fault: None,
            promised: Vec::new(),
            free: Vec::new(),
            fenced: Vec::new(),
            owed: Vec::new(),
            wake: None,
            deadline: Some(now),
            rules: Rules::default(),
            reports: trust::Reports::default(),
        }
    }

    /// Watches one more master, with the record that there is of one of that name; `at`: where it is, since which epoch.
    fn watch(&mut self, config: MasterConfig, at: Option<(SocketAddr, &Place, Epoch)>, now: Instant) -> usize {
        let record = self.retired.iter().position(|record| record.name == config.name);
        let record = record.map(|at| self.retired.swap_remove(at));
        let id = MasterId(self.fresh_id());
        let nodes = config.nodes.iter().map(|node| (node.address, Some(node.name.clone()))).collect::<Vec<_>>();
        let nodes =
            nodes.into_iter().map(|(address, name)| Instance::new(InstanceId(self.fresh_id()), address, name, now));
        let nodes = nodes.collect();
        self.masters.push(Master {
            id,
            config,
            decision: record.as_ref().and_then(|record| record.decision),
            unstored: false,
            vote_unstored: false,
            vote: record.as_ref().and_then(|record| record.vote),
            nodes,
            failover: Failover::Idle { not_before: now },
            odown_since: None,
            decided_at: now,
            asked_at: None,
            hello_due: now,
            lineage: None,
            claimed: None,
            no_candidate: None,
            fault: None,
            due: None,
            touched: true,
        });
        let m = self.masters.len() - 1;
        match at {
            Some((address, place, epoch)) => self.place_master(m, address, place, epoch, now),
            None => drop(self.index_of(m, self.monitored(m), now)),
        }
        self.publish_monitor(m);
        m
    }

    fn add_peer(&mut self, name: Option<NodeName>, address: SocketAddr, id: Option<RunId>, now: Instant) -> usize {
        let key = PeerId(self.fresh_id());
        self.peers.push(Peer::new(key, name, address, id, now));
        self.peers.len() - 1
    }

    fn fresh_id(&mut self) -> u32 {
        self.ids_made = self.ids_made.wrapping_add(1);
        self.ids_made
    }

    /// The place of a master, if it is still watched.
    fn place_of(&self, id: MasterId) -> Option<usize> {
        self.masters.iter().position(|master| master.id == id)
    }

    /// Sentinels known to watch a master beside this one.
    fn peers_of(&self, m: usize) -> impl Iterator<Item = usize> {
        let id = self.masters[m].id;
        (0..self.peers.len()).filter(move |p| self.peers[*p].opinions.contains_key(&id))
    }

    /// Sentinels that have a vote on a master, this one included.
    fn voters(&self, m: usize) -> usize {
        match &self.membership {
            Membership::Voters { all, .. } => all.len(),
            Membership::Discovered { .. } => 1 + self.peers_of(m).count(),
        }
    }

    /// Sentinels that make a majority of them.
    fn majority(&self, m: usize) -> usize {
        self.voters(m) / 2 + 1
    }

    /// Whether so many sentinels are there, this one included, as make a majority of the voters.
    fn reaches_majority(&self, m: usize) -> bool {
        1 + self.peers_of(m).filter(|p| self.peers[*p].looks_alive()).count() >= self.majority(m)
    }

    /// Whether most redis refuse this node's password, although they are those of the cluster.
    fn is_refused(&self, m: usize) -> bool {
        let nodes = &self.masters[m].nodes;
        let refusing = nodes.iter().filter(|node| node.auth_failed).count();
        self.of_cluster() && refusing > 0 && refusing * 2 >= nodes.len()
    }

    /// Whether there is no use in standing for election: nobody would be left to vote, or to be promoted. Each attempt takes an
    /// epoch, and a sentinel that is cut off must not run ahead of the others.
    fn shut_out(&self, m: usize) -> bool {
        self.of_cluster() && !self.reaches_majority(m) || self.is_refused(m)
    }

    fn me(&self) -> RunId {
        self.id
    }

    fn decision(&self, m: usize) -> Option<Decision> {
        self.masters.get(m).and_then(|master| master.decision)
    }

    fn voted(&self, m: usize) -> Option<(RunId, Epoch)> {
        self.masters.get(m).and_then(|master| master.vote)
    }

    /// The address under which master `m` is watched: that of the decision, else where the first one will be.
    fn monitored(&self, m: usize) -> SocketAddr {
        let nodes = &self.masters[m].config.nodes;
        let first = nodes.iter().find(|node| node.bootstrap).or_else(|| nodes.first()).map(|node| node.address);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        self.decision(m).map_or_else(|| first.unwrap_or(unknown), |decision| decision.master)
    }

    /// The place of the instance at `address`, made if there is none and room for it; else of the watched master.
    fn index_of(&mut self, m: usize, address: SocketAddr, now: Instant) -> usize {
        if let Some(at) = self.masters[m].nodes.iter().position(|node| node.address == address) {
            return at;
        }
        let id = InstanceId(self.fresh_id());
        self.masters[m].nodes.push(Instance::new(id, address, None, now));
        self.masters[m].nodes.len() - 1
    }

    /// The place of the watched master.
    fn master_at(&self, m: usize) -> usize {
        let address = self.monitored(m);
        self.masters[m].nodes.iter().position(|node| node.address == address).unwrap_or(0)
    }

    /// Asks for a turn at `at`.
    fn wake_at(&mut self, at: Instant) {
        self.wake = crate::base::time::earliest(self.wake, Some(at));
    }

    /// Something was heard of a master: it needs a turn now.
    fn touch(&mut self, m: usize) {
        self.masters[m].touched = true;
    }

    fn touch_all(&mut self) {
        self.masters.iter_mut().for_each(|master| master.touched = true);
    }

    fn take_in(&mut self, now: Instant, input: Input) {
        match &input {
            Input::Tick | Input::ClientCame(..) | Input::ClientGone(_) | Input::Garbage(..) | Input::Told(..) => {}
            Input::LinkUp(link, _) | Input::LinkDown(link, _) | Input::Reply(link, ..) | Input::Message(link, _) => {
                match self.links.get(link).map(|(owner, _)| *owner) {
                    Some(Owner::Command(id, _) | Owner::PubSub(id, _)) => {
                        self.place_of(id).into_iter().for_each(|m| self.touch(m));
                    }
                    Some(Owner::Peer(_)) => self.touch_all(),
                    None => {}
                }
            }
            Input::Stored(Ok(())) | Input::ScriptChecked(..) | Input::Script(_) | Input::Renew(_) => {}
            Input::Command(..)
            | Input::Facts(_)
            | Input::Stored(Err(_))
            | Input::Resolved(_)
            | Input::Order(..)
            | Input::Bootstrap(_)
            | Input::Why(_)
            | Input::Stop => {
                self.touch_all();
            }
        }
        match input {
            Input::Tick => {}
            Input::LinkUp(link, local) => self.link_up(link, local, now),
            Input::LinkDown(link, reason) => self.link_down(link, &reason, now),
            Input::Reply(link, tag, reply) => self.reply(link, tag, &reply, now),
            Input::Message(link, payload) => self.hello_heard(link, &payload, now),
            Input::ClientCame(client, sockets) => self.client_came(client, sockets, now),
            Input::ClientGone(client) => self.client_gone(client),
            Input::Garbage(client, why) => {
                // Behind the answers to what came before it.
                let error = Reply::Error(format!("ERR Protocol error: {why}"));
                self.free.push(Output::Respond(client, Answer::Reply(error)));
            }
            Input::Command(client, args) => self.command(client, &args, now),
            Input::Told(client, fact) => self.told(client, fact, now),
            Input::Facts(facts) => self.facts(*facts, now),
            Input::Stored(Ok(())) => self.stored(now),
            Input::ScriptChecked(path, executable) => self.script_checked(&path, executable),
            Input::Stored(Err(reason)) => self.store_failed(&reason, now),
            Input::Resolved(answer) => self.resolved(answer, now),
            Input::Script(report) => self.scripts.report(report, now),
            Input::Order(order, to) => self.order(order, to.as_ref(), now),
            Input::Bootstrap(order) => self.bootstrap(order, now),
            Input::Renew(renewal) => self.renew(*renewal),
            Input::Why(order) => self.free.push(Output::Why(order, self.why(now))),
            Input::Stop => self.stop(now),
        }
    }

    /// Everything that follows from what is known and what time it is.
    fn turn(&mut self, now: Instant) {
        for p in 0..self.peers.len() {
            self.tend_peer(p, now);
        }
        let mut wake = self.wake.take();
        for m in 0..self.masters.len() {
            // With a hundred masters, what was heard of one is no reason to look at all the others.
            if self.masters[m].touched || self.masters[m].due.is_some_and(|due| due <= now) {
                self.masters[m].touched = false;
                self.turn_of(m, now);
                self.masters[m].due = self.wake.take();
            }
            wake = crate::base::time::earliest(wake, self.masters[m].due);
        }
        self.wake = wake;
        self.run_scripts(now);
        self.ask_names(now);
        self.drop_idle(now);
        self.tell_fault();
        self.post(now);
    }

    fn turn_of(&mut self, m: usize, now: Instant) {
        for n in 0..self.masters[m].nodes.len() {
            self.tend_node(m, n, now);
            self.judge(m, n, now);
        }
        self.adopt_first(m, now);
        self.judge_quorum(m, now);
        self.say_hello_if_due(m, now);
        self.failover(m, now);
        self.ask_peers(m, now);
        self.heal(m, now);
        self.masters[m].fault = self.trouble(m);
        // What this turn has changed, another rule of it may have looked at before.
        if self.masters[m].touched {
            self.wake_at(now);
        }
    }

    /// Puts the outputs of the turn in their order: what promises nothing, the fence, what stands behind it.
    fn flush(&mut self, out: &mut Vec<Output>) {
        self.hold_tongue();
        let promises = !self.fenced.is_empty();
        out.append(&mut self.free);
        if !self.rules.holds(Rule::StoreFirst) {
            out.append(&mut self.fenced);
        }
        if self.change_is_ready() || self.dirty && promises {
            self.dirty = false;
            out.push(Output::Store(self.record()));
            self.unsaid.append(&mut self.saying);
        } else {
            self.promised.clear();
            self.saying.clear();
        }
        out.append(&mut self.fenced);
        if self.masters.iter().any(|master| !master.config.renames.is_empty()) {
            self.rename(out);
        }
    }

    /// Calls commands as the redis at the other end calls them.
    fn rename(&self, out: &mut [Output]) {
        for output in out {
            let Output::Query { link, args, .. } = output else { continue };
            let Some((Owner::Command(id, _) | Owner::PubSub(id, _), _)) = self.links.get(link) else { continue };
            let (Some(m), Some(word)) = (self.place_of(*id), args.first_mut()) else { continue };
            let mut renames = self.masters[m].config.renames.iter();
            if let Some((_, new)) = renames.find(|(old, _)| old.as_bytes().eq_ignore_ascii_case(word)) {
                *word = Bytes::copy_from_slice(new.as_bytes());
            }
        }
    }

    /// The process was not running: what looked like silence of others was its own.
    fn was_paused(&mut self, now: Instant) {
        for master in &mut self.masters {
            master.nodes.iter_mut().for_each(|node| node.restart_silence(now));
        }
        self.peers.iter_mut().for_each(|peer| peer.restart_silence(now));
        for m in 0..self.masters.len() {
            self.abort_if_early(m, now, "this sentinel was paused");
        }
        let text = format!("this process did not run for more than {:?}", self.timers.tilt_trigger);
        self.publish(Event::new("paused", Severity::Warn, text));
        for master in &mut self.masters {
            if let Failover::Idle { not_before } = &mut master.failover {
                *not_before = (*not_before).max(now + self.timers.tilt_period);
            }
        }
    }

    fn stored(&mut self, now: Instant) {
        for master in &mut self.masters {
            // An election may have waited for nothing else.
            master.touched |= master.vote_unstored;
            (master.unstored, master.vote_unstored) = (false, false);
        }
        if let Some(pending) = self.pending.take() {
            self.apply(pending, now);
        }
        self.free.append(&mut self.owed);
        let unsaid = std::mem::take(&mut self.unsaid);
        if self.store_retry_at.take().is_some() {
            self.tell_again();
            unsaid.into_iter().for_each(|event| self.publish(event));
            self.publish(Event::new("store-works", Severity::Info, "state can be stored again".to_owned()));
        }
    }

    /// What the others were told of the new master was thrown away: they are told at once, not when they would be again.
    fn tell_again(&mut self) {
        for master in self.masters.iter_mut().filter(|master| master.failover.is_reconfiguring()) {
            master.touched = true;
            for node in master.nodes.iter_mut().filter(|node| matches!(node.reconf, Reconf::Sent(_))) {
                node.reconf = Reconf::None;
            }
        }
    }

    /// Everything behind the fence was thrown away: nobody has heard of it.
    fn store_failed(&mut self, reason: &str, now: Instant) {
        self.dirty = true;
        let first = self.store_retry_at.is_none();
        // From here on nothing that is said waits for the disk.
        self.store_retry_at = Some(now + STORE_RETRY);
        self.hold_back();
        if first {
            let text = format!("no vote is given and no failover led: {reason}");
            self.publish(Event::new("store-failed", Severity::Error, text));
        }
        self.posted = None;
        self.change_failed(reason);
        for client in std::mem::take(&mut self.promised) {
            let refusal = "ERR refused: what is promised cannot be stored".to_owned();
            self.free.push(Output::Respond(client, Answer::Reply(Reply::Error(refusal))));
        }
        for m in 0..self.masters.len() {
            self.abort_if_electing(m, now);
        }
    }

    /// What a person has to mend.
    fn trouble(&self, m: usize) -> Option<String> {
        let refusing = self.masters[m].nodes.iter().filter(|node| node.auth_failed);
        let refusing: Vec<_> = refusing.map(Instance::label).collect();
        if !refusing.is_empty() {
            let who = refusing.join(", ");
            return Some(match &self.masters[m].config.auth_user {
                Some(user) => format!("redis does not let the user {user} of the cluster in: {who}"),
                None => format!("redis does not take the cluster's password: {who}"),
            });
        }
        (self.current_epoch >= crate::wire::hello::EPOCH_MAX)
            .then(|| "the epochs are used up: nobody can be elected any more".to_owned())
    }

    fn tell_fault(&mut self) {
        let fault = match self.store_retry_at {
            Some(_) => Some("the sentinel cannot store its state: it gives no votes".to_owned()),
            None => self.masters.iter().find_map(|master| master.fault.clone()),
        };
        if fault != self.fault {
            self.fault.clone_from(&fault);
            self.free.push(Output::Fault(fault));
        }
    }
}

/// How long a sentinel without a record listens to the others before it believes that there is none.
fn hello_wait(peers: usize) -> Duration {
    if peers == 0 { Duration::ZERO } else { Duration::from_secs(1) }
}

impl Machine for Sentinel {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        self.wake = None;
        if self.deadline.is_some_and(|deadline| now > deadline + self.timers.tilt_trigger) {
            self.was_paused(now);
        }
        self.take_in(now, input);
        self.turn(now);
        self.flush(out);
        // A rule that asks for this very moment again has to wait a little: a tick must move the deadline.
        let soonest = now + Duration::from_millis(1);
        self.deadline = self.wake.map(|wake| wake.max(soonest));
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Master {
    /// The voter's share of a failover it leads: its epoch.
    fn leads(&self) -> Option<Epoch> {
        self.failover.leads()
    }

    /// Why a new master is looked for, if one is.
    fn cause(&self) -> Option<Cause> {
        self.failover.cause()
    }

    /// Whether that is by order of a person.
    fn is_ordered(&self) -> bool {
        matches!(self.cause(), Some(Cause::Ordered(_)))
    }

    /// Whether that redis was told to be the master and has not said yet that it is.
    fn awaits_promotion_of(&self, n: usize) -> bool {
        self.failover.lead().is_some_and(|lead| lead.phase.is_told() && lead.phase.target() == Some(n))
    }
}

#[cfg(test)]
mod tests;
