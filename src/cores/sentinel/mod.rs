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
mod choice;
mod clients;
mod command;
mod config;
mod describe;
mod durable;
mod event;
mod failover;
mod gates;
mod glob;
mod heal;
mod ids;
mod info;
mod instance;
mod lead;
mod link;
mod master;
mod membership;
mod moment;
mod monitor;
pub mod names;
mod peer;
mod ports;
mod promote;
mod publish;
mod query;
mod quorum;
mod record;
mod render;
mod sabotage;
pub mod scripts;
mod select;
mod session;
mod settings;
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
pub use config::{Config, DataNode, Logins, MasterConfig, Renewal};
pub use durable::{Durable, DurableMaster};
pub use event::{Event, Severity};
pub use ids::{LinkId, MasterId};
pub use membership::{Membership, Voter};
pub use ports::{Answer, ClientId, FailoverReport, Input, NodeFacts, OrderId, Output, Record};
pub use query::Tag;
pub use sabotage::Rule;
pub use select::Rejection;
pub use settings::{DOWN_AFTER, FAILOVER_TIMEOUT, Settings};
pub use state::{KnownSentinel, MasterState, State};
pub use timers::Timers;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::node::{Decision, SentinelFacts};
use crate::base::{Epoch, Instant, Machine, NodeName, Rng, RunId};
use crate::wire::resp::Reply;

use access::Desk;
use ids::{InstanceId, NOBODY, PeerId};
use instance::Instance;
use master::Master;
use moment::Moment;
use names::Names;
use peer::{Opinion, Peer};
use sabotage::Rules;
use scripts::Scripts;

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

impl Sentinel {
    /// A sentinel of a cluster file at its start. `durable` is what was stored last, or [`Durable::new`] with a new random id.
    pub fn new(config: Config, durable: Durable, now: Instant) -> Self {
        let Durable { id, current_epoch, masters: records, sentinels } = durable;
        let mut sentinel = Self::empty(&config, id, current_epoch, now);
        sentinel.retired = records;
        for voter in config.membership.others() {
            let known = sentinels.iter().find(|(name, _)| *name == voter.name);
            let p = sentinel.add_peer(Some(voter.name), voter.address, known.map(|(_, id)| *id), now);
            sentinel.peers[p].stock = voter.stock;
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
        self.masters.push(Master::new(id, config, record, nodes, now));
        let m = self.masters.len() - 1;
        match at {
            Some((address, place, epoch)) => self.place_master(m, address, place, epoch, now),
            None => {
                self.index_of(m, self.monitored(m), now);
            }
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

    fn me(&self) -> RunId {
        self.id
    }

    fn decision(&self, m: usize) -> Option<Decision> {
        self.masters.get(m).and_then(|master| master.decision)
    }

    /// The address under which master `m` is watched.
    fn monitored(&self, m: usize) -> SocketAddr {
        self.masters[m].monitored()
    }

    /// The place of the redis at `address`, which is taken in if it is not known.
    fn index_of(&mut self, m: usize, address: SocketAddr, now: Instant) -> usize {
        let id = InstanceId(self.fresh_id());
        let master = &mut self.masters[m];
        master.place_of(address).unwrap_or_else(|| {
            master.nodes.push(Instance::new(id, address, None, now));
            master.nodes.len() - 1
        })
    }

    /// The place of the watched master.
    fn master_at(&self, m: usize) -> usize {
        self.masters[m].at()
    }

    fn moment(&self, now: Instant) -> Moment<'_> {
        Moment { now, timers: &self.timers, rules: self.rules }
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
                        self.masters
                            .iter_mut()
                            .filter(|master| master.id == id)
                            .for_each(|master| master.touched = true);
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
            let master = &mut self.masters[m];
            // With a hundred masters, what was heard of one is no reason to look at all the others.
            if std::mem::take(&mut master.touched) || master.due.is_some_and(|due| due <= now) {
                self.turn_of(m, now);
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
        let (fault, me) = (self.trouble(m), self.me());
        let master = &mut self.masters[m];
        master.assert_sound(me);
        master.fault = fault;
        // What this turn has changed, another rule of it may have looked at before.
        let again = master.touched.then_some(now);
        master.due = crate::base::time::earliest(self.wake.take(), again);
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
        debug_assert!(!self.dirty || self.fenced.is_empty(), "what is promised is not given to the store");
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
        let not_before = now + self.timers.tilt_period;
        self.masters.iter_mut().for_each(|master| master.not_before(not_before));
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
            self.masters.iter_mut().for_each(Master::tell_again);
            unsaid.into_iter().for_each(|event| self.publish(event));
            self.publish(Event::new("store-works", Severity::Info, "state can be stored again".to_owned()));
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
        let used_up = self.current_epoch >= crate::wire::hello::EPOCH_MAX;
        let used_up = used_up.then(|| "the epochs are used up: nobody can be elected any more".to_owned());
        self.masters[m].refusal().or(used_up)
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

#[cfg(test)]
mod tests;
