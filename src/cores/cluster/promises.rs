//! Asks and grants in the frames of the link: what this node's sentinel promises, and what this node's redis was promised.

use std::time::Duration;

use super::lease::{Ask, Ballot, Claim, Grantor, Holder, Process, Rules, ask_every};
use super::{Config, NodeView, View};
use crate::base::lease::{Grant, Held, Tenure, Terms, Writes};
use crate::base::node::{self, Decision, NodeState};
use crate::base::time::millis;
use crate::base::{Epoch, Instant};

/// Who asks and has no majority of answers asks again so soon.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What is kept of the lease of the master.
#[derive(Debug)]
pub(super) struct Promises {
    /// Of which master all of this is.
    cluster: String,
    terms: Terms,
    /// The length of leases; none: there are none, whatever is decided.
    lease: Option<Duration>,
    rules: Rules,
    /// The places of the sentinels in the file, in the order of their names: files need not list them alike.
    voters: Vec<usize>,
    /// What this node's sentinel is bound by, if it has one and the cluster is fenced.
    grantor: Option<Grantor>,
    /// What it has promised last, by the place of the node: it goes with every frame there.
    given: Vec<Option<Grant>>,
    /// What the redis of this node was promised, while it is a living process.
    holder: Option<Holder>,
    /// What its supervisor says that it does with writes.
    writes: Writes,
    /// The epoch of the lease that was given back last.
    given_back: Option<Epoch>,
    /// When all sentinels were asked last.
    asked_at: Instant,
    /// When those who have not answered are asked again.
    again_at: Option<Instant>,
    told: Option<Held>,
    /// The shortest time that was left before a fence, since the lease was taken.
    slack: Option<Duration>,
}

impl Promises {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let voters = config.peers.iter().enumerate().filter(|(_, peer)| peer.roles.sentinel);
        let mut voters: Vec<usize> = voters.map(|(place, _)| place).collect();
        voters.sort_unstable_by_key(|place| &config.peers[*place].name);
        let lease = config.lease;
        let terms = Terms { voters: checksum(config, &voters), lease: lease.filter(|_| config.fencing) };
        let grantor = lease.filter(|_| config.roles.sentinel);
        Self {
            cluster: config.cluster.clone(),
            terms,
            lease,
            rules: Rules::default(),
            grantor: grantor.map(|lease| Grantor::new(lease, config.promised, now, Rules::default())),
            given: vec![None; config.peers.len()],
            voters,
            holder: None,
            writes: Writes::Refused,
            given_back: None,
            asked_at: now,
            again_at: None,
            told: None,
            slack: None,
        }
    }

    /// The same, just made, without one rule.
    #[cfg(feature = "sabotage")]
    pub(super) fn without(self, rule: super::lease::Rule, before: Duration, now: Instant) -> Self {
        let rules = Rules::without(rule);
        let lease = self.lease.filter(|_| self.grantor.is_some());
        Self { rules, grantor: lease.map(|lease| Grantor::new(lease, before, now, rules)), ..self }
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms
    }

    /// What it has promised the node of that place last.
    pub(super) fn given_to(&self, place: usize) -> Option<Grant> {
        self.given[place]
    }

    /// What is left of the lease that this node holds.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let open = self.writes == Writes::Taken;
        self.told.filter(|_| open).map_or(Duration::ZERO, |held| held.lease.ends_at().since(now))
    }

    /// Whether this node asks for grants.
    fn asks(&self) -> Option<Epoch> {
        self.holder.as_ref().and_then(Holder::wants)
    }

    /// Between two frames of this node.
    pub(super) fn frame_every(&self, usual: Duration) -> Duration {
        self.frames(self.asks().is_some(), usual)
    }

    /// Between two frames of another node, which asks for its lease with them if its redis is to hold one.
    pub(super) fn frames_of(&self, node: &NodeView, usual: Duration) -> Duration {
        let tenure = node.state.as_ref().map(|state| &state.tenure);
        let asks = tenure.is_some_and(|tenure| matches!(tenure, Tenure::Asks { .. }));
        self.frames(asks, usual)
    }

    fn frames(&self, asks: bool, usual: Duration) -> Duration {
        self.lease.filter(|_| asks).map_or(usual, |lease| usual.min(ask_every(lease)))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at.filter(|_| self.asks().is_some() && !self.is_answered())
    }

    /// Whether a majority has answered what was asked last.
    fn is_answered(&self) -> bool {
        self.told.is_some_and(|held| held.lease.from >= self.asked_at)
    }

    /// Everybody was sent a frame, which asks if anything does.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_at = now;
        self.again_at = Some(now + ASK_AGAIN);
    }

    fn tenure(&self, now: Instant) -> Tenure {
        match (self.asks(), self.writes) {
            (Some(epoch), Writes::Refused | Writes::Taken | Writes::Unleased) => {
                let held = self.told.filter(|held| self.writes == Writes::Taken && now < held.lease.ends_at());
                // Without the lease, whose grants it has is what people ask.
                let length = held.map_or(self.lease, |held| Some(held.lease.length)).unwrap_or_default();
                let holder = self.holder.as_ref();
                let grants = holder.map_or(0, |holder| holder.newer_than(now - length));
                let slack = Duration::from_millis(millis(held.and(self.slack).unwrap_or_default()));
                Tenure::Asks { epoch, open: held.map(|held| held.epoch), grants, slack }
            }
            (_, Writes::Returned { at }) => match self.given_back {
                Some(epoch) => Tenure::Released { epoch, at },
                None => Tenure::None,
            },
            (None, Writes::Refused | Writes::Taken | Writes::Unleased) => Tenure::None,
        }
    }
}

/// The names and addresses of the sentinels in these places, which are in the order of their names.
fn checksum(config: &Config, voters: &[usize]) -> u32 {
    let voters = voters.iter().map(|place| &config.peers[*place]);
    let lines: String = voters.map(|peer| format!("{} {}\n", peer.name, peer.address)).collect();
    crc32fast::hash(lines.as_bytes())
}

/// The living process of a node, by its supervisor.
fn process(node: usize, state: &NodeState) -> Option<Process> {
    let redis = state.redis.as_ref().filter(|redis| redis.process != node::Process::Dead)?;
    Some(Process { node, incarnation: redis.incarnation })
}

fn own_process(view: &View) -> Option<Process> {
    view.own().state.as_ref().and_then(|state| process(view.me, state))
}

/// What the sentinel of this node has on disk: it posts nothing before.
fn ballot(view: &View, cluster: &str) -> Option<Ballot> {
    let sentinel = view.own().state.as_ref()?.sentinel.as_ref()?;
    let master = sentinel.masters.iter().find(|master| master.name.as_str() == cluster)?;
    let voted = master.vote.map_or(0, |(_, epoch)| epoch);
    let place = |decision: Decision| view.nodes.iter().position(|node| node.address == decision.master.ip());
    Some(Ballot {
        stored: master.decision.map_or(0, |decision| decision.epoch).max(voted),
        decided: master.decision.and_then(|decision| Some((place(decision)?, decision.epoch))),
        suspects: master.sees_down,
    })
}

/// The epoch in which a leader that is heard wants that process.
fn named(view: &View, cluster: &str, process: Process) -> Option<Epoch> {
    view.masters(cluster)
        .filter(|master| master.target == Some(process.incarnation))
        .filter_map(|master| master.leads)
        .max()
}

impl Promises {
    /// The redis of this node is another process, or none any more; or what it does with writes has changed.
    pub(super) fn redis_changed(&mut self, view: &View) {
        let process = own_process(view);
        let known = self.holder.as_ref().map(Holder::incarnation);
        if known != process.map(|process| process.incarnation) {
            let holder = |process: Process| Holder::new(process.incarnation, self.voters.len(), self.rules);
            self.holder = process.filter(|_| self.lease.is_some()).map(holder);
            (self.writes, self.given_back) = (Writes::Refused, None);
        }
    }

    /// Its supervisor says what the redis of this node does with writes.
    pub(super) fn writes(&mut self, writes: Writes) {
        let Some(holder) = self.holder.as_mut() else { return };
        if let Writes::Returned { at } = writes {
            self.given_back = self.given_back.max(holder.wants());
            holder.release(at);
        }
        // It goes on without a lease: nothing is asked for any more. One that refused writes may have been elected meanwhile, for a
        // lease that it has not had yet; what it has lost is over.
        let over = match self.writes {
            Writes::Taken => true,
            Writes::Refused => holder.held().is_some_and(|held| holder.wants() == Some(held.epoch)),
            Writes::Unleased | Writes::Returned { .. } => false,
        };
        if over && writes == Writes::Unleased {
            self.given_back = self.given_back.max(holder.wants());
            holder.release(Instant::START);
        }
        self.writes = writes;
    }

    /// Asks for the lease in the epoch in which a leader wants this node's redis.
    fn seek(&mut self, now: Instant, view: &View) {
        if let Some(epoch) = own_process(view).and_then(|own| named(view, &self.cluster, own)) {
            self.want(now, epoch);
        }
    }

    fn want(&mut self, now: Instant, epoch: Epoch) {
        let Some(holder) = self.holder.as_mut() else { return };
        // An abort takes a new epoch: one that was given back is over.
        if self.given_back < Some(epoch) && holder.wants() < Some(epoch) {
            if matches!(self.writes, Writes::Returned { .. }) {
                self.writes = Writes::Refused;
            }
            holder.ask(now, epoch);
        }
    }

    /// A sentinel has promised something to the redis of this node.
    pub(super) fn granted(&mut self, now: Instant, place: usize, grant: Grant) {
        let Some(voter) = self.voters.iter().position(|voter| *voter == place) else { return };
        let Some(holder) = self.holder.as_mut().filter(|own| own.incarnation() == grant.incarnation) else {
            return;
        };
        if holder.granted(now, voter, grant) {
            // The leader that named it may not be heard here.
            self.want(now, grant.epoch);
        }
    }

    /// Does as a sentinel what the state of a node asks for, which was heard last with that stamp; whether it is to be told at once
    /// what was promised.
    pub(super) fn serve(&mut self, now: Instant, place: usize, stamp: Instant, view: &View) -> bool {
        let Some(grant) = self.promise(now, place, stamp, view) else { return false };
        self.given[place] = Some(grant);
        if place == view.me {
            self.granted(now, place, grant);
        }
        place != view.me
    }

    fn promise(&mut self, now: Instant, place: usize, stamp: Instant, view: &View) -> Option<Grant> {
        let grantor = self.grantor.as_mut()?;
        let node = &view.nodes[place];
        let state = node.state.as_ref().filter(|_| node.fresh)?;
        let alive = process(place, state);
        let bound = grantor.bound(now).map(|claim| claim.process).filter(|process| process.node == place);
        if let Some(gone) = bound.filter(|bound| alive != Some(*bound)) {
            grantor.gone(now, gone);
        }
        let process = alive.filter(|_| state.terms.voters == self.terms.voters)?;
        let (asks, open, over) = match state.tenure {
            Tenure::None => (None, None, None),
            Tenure::Asks { epoch, open, .. } => (Some(epoch), open, None),
            Tenure::Released { epoch, at } => {
                grantor.released(now, process, at);
                (None, None, Some(epoch))
            }
        };
        let named = named(view, &self.cluster, process).filter(|named| over < Some(*named));
        let epoch = named.max(asks)?;
        let ask = Ask { claim: Claim { process, epoch }, stamp, open, named: named == Some(epoch) };
        grantor.ask(now, ask, &ballot(view, &self.cluster)?)
    }

    /// The nodes that have not answered, if it is time to ask them again: this one is among them if it is a sentinel.
    pub(super) fn silent(&mut self, now: Instant) -> Vec<usize> {
        if self.again_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.again_at = None;
        let Some(holder) = self.holder.as_ref().filter(|holder| holder.wants().is_some()) else { return Vec::new() };
        if self.is_answered() {
            return Vec::new();
        }
        self.again_at = Some(now + ASK_AGAIN);
        let answered = holder.newer_than(self.asked_at - Duration::from_micros(1));
        let silent = self.voters.iter().enumerate().filter(|(voter, _)| answered & 1 << voter == 0);
        silent.map(|(_, place)| *place).collect()
    }

    /// What has become of the lease, if that is news, and what this node says of it now.
    pub(super) fn settle(&mut self, now: Instant, view: &View) -> (Option<Option<Held>>, Tenure) {
        if self.lease.is_none() {
            return (None, Tenure::None);
        }
        self.seek(now, view);
        let held = self.holder.as_ref().and_then(|holder| holder.held().filter(|_| holder.wants().is_some()));
        let news = (held != self.told).then(|| {
            // One that had ended has begun again: it is as long as it is.
            let before = self.told.filter(|before| now < before.lease.ends_at());
            self.slack = held.map(|held| match (before, self.slack) {
                (Some(before), slack) => {
                    let left = before.lease.fence_at().since(now);
                    slack.map_or(left, |slack| slack.min(left))
                }
                (None, _) => held.lease.fence_at().since(now),
            });
            self.told = held;
            held
        });
        (news, self.tenure(now))
    }
}
