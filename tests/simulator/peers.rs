//! The peer link and the supervisors: what each node says of itself, and who hears it when.

use std::rc::Rc;
use std::time::Duration;

use vigie::base::node::{Decision, History, Process, RedisFacts, RedisRole, SentinelFacts};
use vigie::base::{Epoch, Instant};
use vigie::cores::sentinel::{Input, NodeFacts};

use crate::redis::Link;
use crate::world::{Happening, World, ms, node_name, redis_at};

/// Between two frames of a node.
const FRAME_INTERVAL: Duration = ms(100);
/// What a node said is acted upon for so long.
const FRESH_FOR: Duration = ms(500);

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Says {
    pub redis: Option<RedisFacts>,
    pub sentinel: Option<SentinelFacts>,
}

/// What a node has heard of another one.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Boot and version of what it heard last: an older frame changes nothing.
    key: (u64, u64),
    at: Instant,
    fresh: bool,
    says: Option<Rc<Says>>,
}

/// One node of the peer link.
#[derive(Debug, Default)]
pub struct Node {
    key: (u64, u64),
    says: Rc<Says>,
    heard: Vec<Heard>,
}

impl Node {
    pub fn new(nodes: usize) -> Self {
        Self { heard: vec![Heard::default(); nodes], ..Self::default() }
    }
}

/// The supervisor of one redis, as far as others hear of it.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Its record beside the data.
    pub history: Option<History>,
    in_sync: bool,
    /// What redis has on disk is older than its record would be.
    pub rewriting: bool,
    /// Since when the process owes an answer.
    silent_since: Option<Instant>,
    /// The incarnation it has seen answer.
    answered: u64,
    look_at: Option<Instant>,
}

impl World {
    /// Whether the process that sends and hears frames runs on a host.
    fn worker_runs(&self, host: usize) -> bool {
        let sentinel = self.sentinels.get(host);
        self.hosts[host].powered && sentinel.is_none_or(|actor| actor.core.is_some() && !actor.frozen)
    }

    /// A new worker has heard nobody, and is a new boot.
    pub fn view_forgotten(&mut self, host: usize) {
        let nodes = self.nodes.len();
        let node = &mut self.nodes[host];
        node.heard = vec![Heard::default(); nodes];
        node.key = (node.key.0 + 1, 0);
        if self.plan.linked {
            self.say(host);
        }
    }

    pub fn sentinel_says(&mut self, host: usize, facts: Option<SentinelFacts>) {
        let says = Says { sentinel: facts, ..(*self.nodes[host].says).clone() };
        self.says(host, says);
    }

    fn says(&mut self, host: usize, says: Says) {
        if *self.nodes[host].says != says {
            self.nodes[host].says = Rc::new(says);
            self.nodes[host].key.1 += 1;
            if self.plan.linked {
                self.say(host);
            }
        }
    }

    /// What a sentinel says now, if it runs: what a client would hear that asks it.
    pub fn said(&self, host: usize) -> Option<&SentinelFacts> {
        self.nodes[host].says.sentinel.as_ref()
    }

    /// Sends a frame to everybody.
    fn say(&mut self, host: usize) {
        if !self.worker_runs(host) {
            return;
        }
        let (key, says) = (self.nodes[host].key, self.nodes[host].says.clone());
        for to in 0..self.nodes.len() {
            if self.net.loses(host, to) || !self.net.passes(host, to) {
                continue;
            }
            let takes = self.net.takes(host, to);
            let heard = &mut self.nodes[to].heard[host];
            if heard.key == key && heard.fresh && heard.says.is_some() {
                heard.at = heard.at.max(self.now + takes);
                continue;
            }
            self.later(takes, Happening::Frame(to, host, key, says.clone()));
            if self.net.doubles() {
                let again = self.net.takes(host, to) + ms(5);
                self.later(again, Happening::Frame(to, host, key, says.clone()));
            }
        }
    }

    pub fn frame_comes(&mut self, to: usize, from: usize, key: (u64, u64), says: Rc<Says>) {
        if !self.worker_runs(to) || !self.net.passes(from, to) {
            return;
        }
        let heard = &mut self.nodes[to].heard[from];
        if key < heard.key {
            return;
        }
        heard.at = heard.at.max(self.now);
        if key == heard.key && heard.fresh && heard.says.is_some() {
            return;
        }
        (heard.key, heard.fresh, heard.says) = (key, true, Some(says));
        self.tell(to, from);
    }

    /// Tells the sentinel of a host what is heard of a node.
    fn tell(&mut self, host: usize, node: usize) {
        let heard = &self.nodes[host].heard[node];
        let (Some(says), fresh) = (heard.says.clone(), heard.fresh) else { return };
        if host >= self.plan.sentinels {
            return;
        }
        // As the runtime: without what changes with every write.
        let redis = says.redis.clone().map(|facts| RedisFacts { offset: 0, ..facts });
        let facts = NodeFacts { node: node_name(node), redis, sentinel: says.sentinel.clone(), fresh };
        self.give(host, Input::Facts(Box::new(facts)));
    }

    /// Each [`FRAME_INTERVAL`]: a frame, a look at the own redis, and at who has fallen silent.
    pub fn heartbeat(&mut self, host: usize) {
        self.later(FRAME_INTERVAL, Happening::Heartbeat(host));
        if !self.worker_runs(host) {
            return;
        }
        if host < self.redis.len() {
            self.keeper_look(host);
        }
        self.say(host);
        for node in (0..self.nodes.len()).filter(|node| *node != host) {
            let heard = &mut self.nodes[host].heard[node];
            if heard.fresh && self.now.since(heard.at) > FRESH_FOR {
                heard.fresh = false;
                self.tell(host, node);
            }
        }
    }

    /// The latest decision on a group that a node knows of, and the highest epoch in which somebody leads.
    fn known_decision(&self, host: usize, group: usize) -> (Option<Decision>, Option<Epoch>) {
        let heard = self.nodes[host].heard.iter().filter(|heard| heard.fresh);
        let facts = heard.filter_map(|heard| heard.says.as_ref()?.sentinel.as_ref()?.masters.get(group));
        let (mut decision, mut leads): (Option<Decision>, Option<Epoch>) = (None, None);
        for facts in facts {
            decision = decision.into_iter().chain(facts.decision).max_by_key(|decision| decision.epoch);
            leads = leads.max(facts.leads);
        }
        (decision, leads)
    }

    /// Something has happened to a redis: its supervisor sees it at its next probe, a birth or a death at once.
    pub fn keeper_looks(&mut self, r: usize) {
        if !self.plan.linked {
            return;
        }
        let (_, leads) = self.known_decision(r, self.redis[r].group);
        let alive = self.redis[r].alive;
        let unseen = self.keepers[r].answered != self.redis[r].incarnation;
        let wait = match (alive, leads) {
            (false, _) => Duration::ZERO,
            (true, _) if unseen => ms(10),
            (true, Some(_)) => self.dice.upto(ms(20)),
            (true, None) => self.dice.upto(ms(200)),
        };
        let at = self.now + wait;
        if self.keepers[r].look_at.is_none_or(|known| at < known || known < self.now) {
            self.keepers[r].look_at = Some(at);
            self.at(at, Happening::KeeperLooks(r));
        }
        if !alive || unseen {
            self.keeper_posts(r, if alive { Process::Starting } else { Process::Dead });
        }
    }

    pub fn keeper_look(&mut self, r: usize) {
        if !self.plan.linked || !self.worker_runs(r) {
            return;
        }
        if self.keepers[r].look_at.is_some_and(|at| at <= self.now) {
            self.keepers[r].look_at = None;
        }
        let (alive, hung, loading) = (self.redis[r].alive, self.redis[r].hung, self.redis[r].loading);
        let process = match (alive, hung, loading) {
            (false, _, _) => Process::Dead,
            (true, true, _) => {
                let since = *self.keepers[r].silent_since.get_or_insert(self.now);
                if self.now.since(since) < ms(300) {
                    return;
                }
                Process::Busy
            }
            (true, false, true) => Process::Loading,
            (true, false, false) => Process::Alive,
        };
        if alive && !hung {
            self.keepers[r].silent_since = None;
            self.keepers[r].answered = self.redis[r].incarnation;
            self.keeper_remembers(r);
        }
        self.keeper_posts(r, process);
    }

    fn keeper_posts(&mut self, r: usize, process: Process) {
        let redis = &self.redis[r];
        let before = self.nodes[r].says.redis.clone().filter(|before| before.incarnation == redis.incarnation);
        let role = match (process, redis.master, redis.link) {
            (Process::Dead | Process::Starting, _, _) => RedisRole::Unknown,
            (Process::Busy, _, _) => before.map_or(RedisRole::Unknown, |before| before.role),
            (Process::Loading | Process::Alive, None, _) => RedisRole::Master { replicas: 0 },
            (Process::Loading | Process::Alive, Some(_), _) if redis.is_closed() => RedisRole::Closed,
            (Process::Loading | Process::Alive, Some(of), link) => RedisRole::Replica { of, link_up: link == Link::Up },
        };
        let facts = RedisFacts {
            address: redis_at(r),
            incarnation: redis.incarnation,
            process,
            role,
            run_id: Some(redis.run_id),
            replication_id: Some(redis.replid),
            offset: 0,
            priority: redis.priority,
            has_data: !redis.data.is_empty(),
            history: self.keepers[r].history,
        };
        let says = Says { redis: Some(facts), ..(*self.nodes[r].says).clone() };
        self.says(r, says);
    }

    /// Keeps the record of where the data came from, by the rules of the supervisor.
    fn keeper_remembers(&mut self, r: usize) {
        let redis = &self.redis[r];
        let synced_with = match (redis.master, redis.link) {
            (None, _) => Some(redis_at(r)),
            (Some(of), Link::Up) => Some(of),
            (Some(_), Link::None | Link::Down(_) | Link::Copying(_)) => None,
        };
        let decision = self.known_decision(r, redis.group).0.filter(|known| Some(known.master) == synced_with);
        let keeper = &mut self.keepers[r];
        match (decision, keeper.history) {
            (Some(decision), _) if !redis.loading && !keeper.rewriting => {
                keeper.in_sync = true;
                let offset = u64::try_from(redis.offset()).unwrap_or(0);
                keeper.history = Some(History { epoch: decision.epoch, in_sync: true, offset });
            }
            (None, Some(history)) if keeper.in_sync && synced_with.is_none() => {
                keeper.in_sync = false;
                // A redis that was started anew has learned nothing: its record stays as it is.
                if !redis.is_closed() {
                    keeper.history = Some(History { in_sync: false, ..history });
                }
            }
            (None | Some(_), _) => {}
        }
    }

    /// Its redis has everything on disk.
    pub fn keeper_flushed(&mut self, r: usize) {
        self.keepers[r].rewriting = false;
    }

    /// Nothing is left on the disk of a node's redis.
    pub fn keeper_wiped(&mut self, r: usize) {
        self.keepers[r].history = None;
        self.keepers[r].in_sync = false;
    }
}
