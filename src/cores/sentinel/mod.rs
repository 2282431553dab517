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
//! It is two things. The agreement, in the files of this directory, watches, votes, decides and promotes, and knows clients by
//! their names only. The command server in front of it (`server/`) has the clients, their users and rights; it reads the
//! agreement through a view (`view.rs`) and changes it by orders (`order.rs`), and puts into words what the agreement says
//! (`effect.rs`). `machine.rs` feeds both.
//!
//! What promises something to others (votes, questions for votes, decisions, posted facts) is said only when what it promises is
//! on disk: it waits for the answer to an [`Output::Store`], and is lost with it if that fails. Nothing else waits: a slow disk
//! delays votes, never judgement.
//!
//! In a cluster only the sentinels of its file vote: who they are is configuration, their run ids are learned. They hear each
//! other on the peer link and nowhere else: votes, epochs and decisions stand in its frames, and what is greeted or published
//! changes nothing (`trust.rs`). A stock sentinel among them has to be listed, and is heard and asked at its port. A sentinel
//! [alone](Sentinel::alone) has its masters from its own file and from commands, and the voters on a master are all that were
//! ever heard on its hello channel and not forgotten by order, as with redis-sentinel.

mod alone;
mod amnesia;
mod change;
mod choice;
mod config;
mod durable;
mod effect;
mod event;
mod failover;
mod gates;
mod heal;
mod ids;
mod instance;
mod lead;
mod link;
mod machine;
mod master;
mod membership;
mod mode;
mod moment;
mod monitor;
pub mod names;
mod order;
mod peer;
mod pending;
mod ports;
mod promote;
mod publish;
mod pulse;
mod query;
mod quorum;
mod record;
mod refused;
mod sabotage;
pub mod scripts;
mod select;
mod server;
mod settings;
mod state;
mod switchover;
mod takeover;
mod timers;
mod trust;
mod view;
pub mod why;

pub use crate::base::Place;
pub use config::{Config, DataNode, Logins, MasterConfig, Renewal};
pub use durable::{Durable, DurableMaster};
pub use event::{Event, Severity};
pub use ids::{LinkId, MasterId};
pub use machine::Sentinel;
pub use membership::{Membership, Voter};
pub use ports::{Answer, ClientId, FailoverReport, Input, NodeFacts, OrderId, Output, Record};
pub use query::Tag;
pub use sabotage::Rule;
pub use select::Rejection;
pub use server::{Access, Acl, AclError, Fact, Fault, Question, Sockets, Usage};
pub use settings::{DOWN_AFTER, FAILOVER_TIMEOUT, Settings};
pub use state::{KnownSentinel, MasterState, State};
pub use timers::Timers;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::node::{Decision, SentinelFacts};
use crate::base::{Epoch, Instant, NodeName, Rng, RunId, Secret};

use effect::{Effects, Gate};
use ids::{InstanceId, NOBODY, PeerId};
use instance::Instance;
use master::Master;
use moment::Moment;
use names::Names;
use peer::{Opinion, Peer};
use pending::Pending;
use refused::Reports;
use sabotage::Rules;
use scripts::Scripts;

/// How soon a failed store is tried again.
const STORE_RETRY: Duration = Duration::from_millis(250);

/// What the sentinels agree on, and what this one knows, does and promises for it. Of clients it knows only the names of those
/// that wait for what they have ordered.
#[derive(Debug)]
struct Agreement {
    membership: Membership,
    settings: Settings,
    id: RunId,
    /// The highest epoch seen.
    current_epoch: Epoch,
    /// Records of masters that are not watched any more: their votes stay given.
    retired: Vec<DurableMaster>,
    /// Whether what must survive a crash has changed since it was last given to the store.
    dirty: bool,
    /// Whether a store is under way.
    storing: bool,
    /// Set while the store fails: when to try again.
    store_retry_at: Option<Instant>,
    rng: Rng,
    started_at: Instant,
    timers: Timers,
    /// A change that waits for the disk.
    pending: Option<Pending>,
    simulated: Simulated,
    names: Names,
    scripts: Scripts,
    masters: Vec<Master>,
    /// All sentinels known but this one.
    peers: Vec<Peer>,
    /// Set while it has no record and has not heard enough of the others.
    amnesia: Option<Amnesia>,
    /// Whose each link is, and the own address on it, once it is up.
    links: BTreeMap<LinkId, (Owner, Option<IpAddr>)>,
    links_made: u32,
    ids_made: u32,
    posted: Option<SentinelFacts>,
    fault: Option<String>,
    /// Events of this turn.
    saying: Vec<Event>,
    /// Events behind a fence of which it is not known whether it held.
    unsaid: Vec<Event>,
    /// What was said in this turn and promises nothing.
    free: Effects,
    /// What was said in this turn and must not happen unless what must survive is on disk.
    fenced: Effects,
    /// What whoever ordered a failover is told when its decision is on disk, however long that takes.
    owed: Effects,
    /// The same, with its decision in what is being stored, or in what could not be stored.
    owing: Effects,
    /// When to wake, gathered during a turn.
    wake: Option<Instant>,
    rules: Rules,
    reports: Reports,
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

/// What a sentinel without a record waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Amnesia {
    /// Since when enough of the others have been heard.
    enough_since: Option<Instant>,
    /// Whether the operator was told which sentinels it waits for.
    told: bool,
}

impl Agreement {
    /// As [`Sentinel::new`].
    fn new(config: Config, durable: Durable, now: Instant) -> Self {
        let Durable { id, current_epoch, masters: records, sentinels } = durable;
        let mut sentinel = Self::empty(&config, id, current_epoch, now);
        // What it stores before it has heard the others names no master: a restart does not end the wait.
        let forgets = records.is_empty() && !config.membership.others().is_empty();
        sentinel.amnesia = forgets.then(Amnesia::default);
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
            storing: false,
            store_retry_at: None,
            rng: Rng::new(config.seed),
            started_at: now,
            timers: Timers::default(),
            pending: None,
            simulated: Simulated::default(),
            names: Names::default(),
            scripts: Scripts::default(),
            saying: Vec::new(),
            unsaid: Vec::new(),
            masters: Vec::new(),
            peers: Vec::new(),
            amnesia: None,
            links: BTreeMap::new(),
            links_made: 0,
            ids_made: 0,
            posted: None,
            fault: None,
            free: Effects::default(),
            fenced: Effects::default(),
            owed: Effects::default(),
            owing: Effects::default(),
            wake: None,
            rules: Rules::default(),
            reports: Reports::default(),
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
        if let Some(n) = self.masters[m].place_of(address) {
            return n;
        }
        let id = InstanceId(self.fresh_id());
        let nodes = &mut self.masters[m].nodes;
        nodes.push(Instance::new(id, address, None, now));
        nodes.len() - 1
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

    /// What an input is about needs a turn.
    fn notice(&mut self, input: &Input) {
        match input {
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
            | Input::Risks(_)
            | Input::Takeover(_)
            | Input::Why(_)
            | Input::Stop => {
                self.touch_all();
            }
        }
    }

    /// Everything that follows from what is known and what time it is.
    fn turn(&mut self, now: Instant) {
        for p in 0..self.peers.len() {
            self.tend_peer(p, now);
        }
        self.remember(now);
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
    }

    /// Tells the node and the others how it stands, at the end of a turn.
    fn report(&mut self, now: Instant) {
        self.tell_fault();
        self.post(now);
    }

    fn turn_of(&mut self, m: usize, now: Instant) {
        let heard = self.hears_majority_of(&self.masters[m]);
        self.masters[m].hears_majority(heard, now);
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

    /// How the fence stands. `promises`: whether anything stands behind it. Where something has to be stored, the store begins now.
    fn fence(&mut self, promises: bool) -> Gate {
        if self.storing {
            return Gate::Shut;
        }
        if !(self.change_is_ready() || self.dirty && promises) {
            self.saying.clear();
            return Gate::Open;
        }
        (self.dirty, self.storing) = (false, true);
        self.unsaid.append(&mut self.saying);
        self.owing.append(&mut self.owed);
        self.begin_to_store_change();
        for master in &mut self.masters {
            master.decision_disk.begin();
            master.vote_disk.begin();
        }
        Gate::Store(self.record())
    }

    /// Takes out the roles that follow from a decision in whose place another one has come while they waited for the disk: a
    /// redis would be pointed at the master before. Writes that are held there were released when that failover ended.
    fn drop_overtaken(&self, out: &mut Vec<Output>) {
        out.retain(|output| {
            let Output::Query { tag: Tag::Follow(id, epoch), .. } = output else { return true };
            self.place_of(*id).is_some_and(|m| self.masters[m].epoch() == *epoch)
        });
    }

    /// Calls commands as the redis at the other end calls them.
    fn rename(&self, out: &mut [Output]) {
        if self.masters.iter().all(|master| master.config.renames.is_empty()) {
            return;
        }
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
            master.nodes.iter_mut().for_each(|node| node.pulse.restart_silence(now));
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

    /// The store that was under way has ended well.
    fn stored(&mut self, now: Instant) {
        self.storing = false;
        // An election, or a greeting, may have waited for nothing else.
        self.touch_all();
        for master in &mut self.masters {
            master.decision_disk.end(true);
            master.vote_disk.end(true);
        }
        self.change_stored(now);
        self.free.append(&mut self.owing);
        let unsaid = std::mem::take(&mut self.unsaid);
        if self.store_retry_at.take().is_some() {
            self.masters.iter_mut().for_each(Master::tell_again);
            unsaid.into_iter().for_each(|event| self.publish(event));
            self.publish(Event::new("store-works", Severity::Info, "state can be stored again".to_owned()));
        }
    }

    /// Everything behind the fence was thrown away: nobody has heard of it.
    fn store_failed(&mut self, reason: &str, now: Instant) {
        (self.dirty, self.storing) = (true, false);
        self.touch_all();
        for master in &mut self.masters {
            master.decision_disk.end(false);
            master.vote_disk.end(false);
        }
        let first = self.store_retry_at.is_none();
        // From here on nothing that is said waits for the disk.
        self.store_retry_at = Some(now + STORE_RETRY);
        if first {
            let text = format!("no vote is given and no failover led: {reason}");
            self.publish(Event::new("store-failed", Severity::Error, text));
        }
        self.posted = None;
        self.change_failed(reason);
    }

    /// Nobody is elected by a vote that cannot be stored.
    fn abort_elections(&mut self, now: Instant) {
        for m in 0..self.masters.len() {
            self.abort_if_electing(m, now);
        }
    }

    /// Takes over secrets that were changed: what is said to other sentinels, and to every redis.
    fn renew(&mut self, cluster: Secret, auth_pass: &Secret) {
        self.settings.sentinel_pass = Some(cluster);
        self.masters.iter_mut().for_each(|master| master.config.auth_pass = Some(auth_pass.clone()));
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
            None => self
                .forgetfulness()
                .or_else(|| self.out_of_step())
                .or_else(|| self.masters.iter().find_map(|master| master.fault.clone())),
        };
        if fault != self.fault {
            self.fault.clone_from(&fault);
            self.free.push(Output::Fault(fault));
        }
    }
}

#[cfg(test)]
mod tests;
