//! The lease alone: the machines of holders and sentinels among clocks of different rates, frames that are lost, late or doubled,
//! restarts, and leaders that come and go. Small, so that there can be many of these worlds. A node acknowledges for as long
//! as its rules let it.

use std::collections::BTreeMap;
use std::time::Duration;

use vigie::base::lease::{Grant, Held};
use vigie::base::{Epoch, Instant};
use vigie::cores::cluster::lease::{Ask, Ballot, Claim, Grantor, Holder, Process, Rules, ask_every};

use crate::dice::Dice;

/// A node that has asked asks again so soon, if it has no majority.
const ASK_AGAIN: Duration = ms(20);
/// Silence after which a sentinel finds a node down.
const DOWN_AFTER: Duration = ms(500);
/// The longest promise that there is here.
const LEASE_MAX: Duration = ms(250);
/// A target without a lease after so long is passed over.
const TARGET_WAIT: Duration = ms(500);
/// How long things go wrong.
const TROUBLE: Duration = ms(15_000);
/// After that one node acknowledges within this time.
const LIVENESS: Duration = ms(8_000);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a node says of itself, to everybody.
#[derive(Clone, Debug)]
struct Frame {
    stamp: Instant,
    process: Process,
    asks: Option<Epoch>,
    open: Option<Epoch>,
    /// The epoch of what it gives back, and since when it refuses writes.
    released: Option<Instant>,
    /// In which epoch it leads, whom it wants, and whether in the place of a master that lives.
    leads: Option<(Epoch, Process, bool)>,
}

#[derive(Clone, Debug)]
enum Message {
    Frame(Frame),
    Grant(Grant),
    Vote { epoch: Epoch },
    Voted { epoch: Epoch },
}

#[derive(Clone, Debug)]
enum Event {
    /// A message arrives.
    Arrives {
        from: usize,
        to: usize,
        message: Message,
    },
    /// A node sends its frame, in its present life.
    Speak {
        node: usize,
        life: u32,
    },
    /// It looks at the lease of its redis, whatever becomes of the sentinel beside it.
    Look {
        node: usize,
        incarnation: u64,
    },
    /// What was to be stored is on disk.
    Stored {
        node: usize,
        life: u32,
        epoch: Epoch,
        decided: Option<(usize, Epoch)>,
        vote_for: Option<usize>,
    },
    /// The command that opens the redis is carried out.
    Opened {
        node: usize,
        incarnation: u64,
        epoch: Epoch,
    },
    /// So is the one that closes it.
    Closed {
        node: usize,
        incarnation: u64,
        hand_over: bool,
    },
    /// Somebody may want to lead.
    Candidate,
    Fault,
    Heal {
        from: usize,
        to: usize,
    },
    /// A sentinel is restarted, without the redis beside it.
    Restart {
        node: usize,
    },
    Start {
        node: usize,
    },
}

/// A data node, which has a sentinel too.
struct Node {
    /// Local time is real time times so many millionths.
    rate: u64,
    offset: u64,
    life: u32,
    up: bool,
    lease: Duration,
    /// On disk.
    disk: Ballot,
    grantor: Grantor,
    holder: Holder,
    /// The epoch in which its redis takes writes.
    open: Option<Epoch>,
    opening: bool,
    closing: bool,
    /// Its redis refuses writes since then, and it has given its lease back.
    released: Option<Instant>,
    leads: Option<Leads>,
    candidate: Option<(Epoch, u32)>,
    heard: Vec<Option<(Frame, Instant)>>,
    /// When each node last said that it takes writes, or this one began to listen.
    open_at: Vec<Instant>,
    asked_at: Instant,
}

#[derive(Clone, Copy)]
struct Leads {
    epoch: Epoch,
    target: Process,
    planned: bool,
    until: Instant,
}

pub struct World {
    now: u64,
    /// By their time, and those of one moment in their order.
    queue: BTreeMap<(u64, u64), Event>,
    count: u64,
    nodes: Vec<Node>,
    dice: Dice,
    rules: Rules,
    cut: Vec<Vec<bool>>,
    calm: bool,
    incarnations: u64,
    /// Who stores everything late.
    slow_disk: Option<usize>,
    /// Whether sentinels are restarted just after they have promised something.
    nervous: bool,
    /// Longest time between two who want to lead.
    elections: Duration,
    delay: Duration,
    loss: usize,
    /// Messages that take long, of 1,000.
    late: usize,
    /// The highest epoch in which anybody has acknowledged, and who.
    highest: Option<(Epoch, Process)>,
    closed: u64,
    pub opened: u64,
    pub violation: Option<String>,
    pub trace: Vec<String>,
    pub tracing: bool,
}

impl World {
    pub fn new(seed: u64, rules: Rules) -> Self {
        let mut dice = Dice::new(seed, 64);
        let count = dice.pick(&[3, 3, 3, 5, 4]);
        let even = dice.chance(700);
        let nodes = (0..count).map(|node| {
            let lease = if even { LEASE_MAX } else { dice.pick(&[ms(150), ms(200), LEASE_MAX]) };
            // Two that differ by a tenth.
            let rate = dice.pick(&[950_000, 1_000_000, 1_045_000]);
            Node {
                rate,
                offset: 1_000_000 + dice.upto(ms(10_000)).as_micros() as u64,
                life: 0,
                up: true,
                lease,
                disk: Ballot { stored: 1, decided: Some((0, 1)), suspects: false },
                grantor: Grantor::new(lease, LEASE_MAX, Instant::START, rules),
                holder: Holder::new(node as u64 + 1, count, rules),
                open: None,
                opening: false,
                closing: false,
                released: None,
                leads: None,
                candidate: None,
                heard: vec![None; count],
                open_at: vec![Instant::START; count],
                asked_at: Instant::START,
            }
        });
        let nodes: Vec<_> = nodes.collect();
        let calm = dice.chance(60);
        let delay = dice.pick(&[ms(0), ms(1), ms(5), ms(20)]);
        let slow_disk = (!calm && dice.chance(300)).then(|| dice.below(count));
        let nervous = !calm && dice.chance(300);
        let elections = dice.pick(&[ms(300), ms(1_000), ms(3_000)]);
        let loss = if calm { 0 } else { dice.pick(&[0, 10, 100]) };
        let late = if calm { 0 } else { dice.pick(&[15, 15, 200]) };
        let mut world = Self {
            now: 1,
            queue: BTreeMap::new(),
            count: 0,
            cut: vec![vec![false; count]; count],
            nodes,
            dice,
            rules,
            calm,
            incarnations: count as u64,
            slow_disk,
            nervous,
            elections,
            delay,
            loss,
            late,
            highest: None,
            closed: 0,
            opened: 0,
            violation: None,
            trace: Vec::new(),
            tracing: false,
        };
        // The master of the decision that everybody knows.
        let now = world.local(0);
        world.nodes[0].holder.ask(now, 1);
        for node in 0..count {
            world.begin(node);
        }
        if !calm {
            world.later(ms(300), Event::Fault);
            world.later(ms(500), Event::Candidate);
        }
        world
    }

    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.tracing {
            let line = format!("{:>9.3} ms  {}", self.now as f64 / 1_000.0, text(self));
            self.trace.push(line);
        }
    }

    fn later(&mut self, wait: Duration, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + wait.as_micros() as u64, self.count), event);
    }

    fn local(&self, node: usize) -> Instant {
        let it = &self.nodes[node];
        Instant::from_micros(self.now * it.rate / 1_000_000 + it.offset)
    }

    /// How long until it is that late there.
    fn until(&self, node: usize, local: Instant) -> Duration {
        let left = local.since(self.local(node)).as_micros() as u64;
        Duration::from_micros(left * 1_000_000 / self.nodes[node].rate + 1)
    }

    fn begin(&mut self, node: usize) {
        let now = self.local(node);
        let it = &mut self.nodes[node];
        it.up = true;
        it.life += 1;
        it.grantor = Grantor::new(it.lease, LEASE_MAX, now, self.rules);
        it.disk.suspects = false;
        (it.leads, it.candidate) = (None, None);
        it.heard.fill(None);
        it.open_at.fill(now);
        let life = it.life;
        let first = self.dice.upto(ms(100));
        self.later(first, Event::Speak { node, life });
    }

    fn process(&self, node: usize) -> Process {
        Process { node, incarnation: self.nodes[node].holder.incarnation() }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if from == to || self.cut[from][to] || !self.nodes[from].up || self.dice.chance(self.loss) {
            return;
        }
        let mut wait = Duration::from_micros(50) + self.dice.upto(self.delay.max(ms(1)));
        if self.dice.chance(self.late) {
            wait += self.dice.upto(ms(400));
        }
        if !self.calm && self.dice.chance(10) {
            let again = wait + self.dice.upto(ms(300));
            self.later(again, Event::Arrives { from, to, message: message.clone() });
        }
        self.later(wait, Event::Arrives { from, to, message });
    }

    fn frame(&self, node: usize) -> Frame {
        let it = &self.nodes[node];
        Frame {
            stamp: self.local(node),
            process: self.process(node),
            asks: it.holder.wants().filter(|_| it.released.is_none()),
            open: it.open,
            released: it.released,
            leads: it.leads.map(|leads| (leads.epoch, leads.target, leads.planned)),
        }
    }

    fn speak(&mut self, node: usize) {
        let frame = self.frame(node);
        let now = self.local(node);
        self.nodes[node].asked_at = now;
        for to in 0..self.nodes.len() {
            self.send(node, to, Message::Frame(frame.clone()));
        }
        // Its own sentinel.
        self.hear(node, node, frame);
        let incarnation = self.nodes[node].holder.incarnation();
        self.later(ASK_AGAIN, Event::Look { node, incarnation });
    }

    /// What a sentinel makes of a frame, its own node's included.
    fn hear(&mut self, at: usize, from: usize, frame: Frame) {
        let now = self.local(at);
        let fresh = self.nodes[at].heard[from].as_ref().is_none_or(|(known, _)| known.stamp < frame.stamp);
        if !fresh {
            return;
        }
        self.nodes[at].heard[from] = Some((frame.clone(), now));
        if frame.open.is_some() {
            self.nodes[at].open_at[from] = now;
        }
        let it = &mut self.nodes[at];
        if let Some(bound) = it.grantor.bound(now).filter(|bound| bound.process.node == from)
            && frame.process != bound.process
        {
            it.grantor.gone(now, bound.process);
        }
        if let Some(released) = frame.released {
            it.grantor.released(now, frame.process, released);
        }
        if let Some(epoch) = frame.open
            && it.disk.decided.is_none_or(|(_, known)| known < epoch)
        {
            self.store(at, epoch, Some((from, epoch)), None);
        }
        if let Some((epoch, target, planned)) = frame.leads {
            if self.nodes[at].disk.stored < epoch {
                self.store(at, epoch, None, None);
            }
            let own = self.process(at);
            if target == own && self.nodes[at].disk.stored <= epoch {
                self.nodes[at].released = None;
                self.nodes[at].holder.ask(now, epoch);
            } else if planned && target != own && self.nodes[at].open.is_some_and(|open| open < epoch) {
                self.close(at, true);
            }
        }
        self.consider(at);
    }

    /// Grants what can be granted by what was heard last.
    fn consider(&mut self, at: usize) {
        for from in 0..self.nodes.len() {
            let Some((frame, _)) = self.nodes[at].heard[from].clone() else { continue };
            let process = frame.process;
            let now = self.local(at);
            let named = self.nodes[at].heard.iter().flatten();
            let named = named.filter(|(_, at)| now.since(*at) < DOWN_AFTER).filter_map(|(frame, _)| frame.leads);
            let named = named.filter(|(_, target, _)| *target == process).map(|(epoch, ..)| epoch).max();
            if frame.released.is_some() && named.is_none_or(|named| frame.open.is_some_and(|open| open >= named)) {
                continue;
            }
            let Some(epoch) = named.max(frame.asks) else { continue };
            let (claim, open) = (Claim { process, epoch }, frame.open);
            let ask = Ask { claim, stamp: frame.stamp, open, named: named == Some(epoch) };
            let it = &mut self.nodes[at];
            // A master that takes no writes is as good as one that is not heard.
            it.disk.suspects = it.disk.decided.is_some_and(|(node, _)| now.since(it.open_at[node]) > DOWN_AFTER);
            let ballot = it.disk;
            let before = it.grantor.bound(now);
            if let Some(grant) = it.grantor.ask(now, ask, &ballot) {
                if before.is_none_or(|bound| bound.process != process) && self.nervous && self.dice.chance(200) {
                    let soon = self.dice.upto(ms(40));
                    self.later(soon, Event::Restart { node: at });
                }
                self.note(|_| format!("s{at} grants n{from} {grant:?}"));
                if from == at { self.granted(at, at, grant) } else { self.send(at, from, Message::Grant(grant)) }
            }
        }
    }

    fn granted(&mut self, node: usize, voter: usize, grant: Grant) {
        let now = self.local(node);
        if self.nodes[node].holder.granted(now, voter, grant) {
            self.look(node);
        }
    }

    fn held(&self, node: usize) -> Option<Held> {
        self.nodes[node].holder.held()
    }

    /// Opens, keeps or closes the redis of a node by its lease.
    fn look(&mut self, node: usize) {
        let now = self.local(node);
        let Some(held) = self.held(node) else { return };
        let incarnation = self.nodes[node].holder.incarnation();
        if now < held.lease.fence_at() {
            if self.nodes[node].open.is_some_and(|open| open < held.epoch) {
                self.nodes[node].open = Some(held.epoch);
                self.note(|_| format!("n{node} goes on in epoch {}", held.epoch));
            } else if self.nodes[node].open.is_none() && !self.nodes[node].opening && !self.nodes[node].closing {
                self.nodes[node].opening = true;
                let takes = self.dice.time(Duration::from_micros(200), ms(5));
                self.later(takes, Event::Opened { node, incarnation, epoch: held.epoch });
            }
            let wait = self.until(node, held.lease.fence_at());
            self.later(wait, Event::Look { node, incarnation });
        } else if self.nodes[node].open.is_some() && !self.nodes[node].closing {
            self.close(node, false);
        }
    }

    /// Fences the redis of a node: at the latest when its lease ends.
    fn close(&mut self, node: usize, hand_over: bool) {
        if self.nodes[node].closing {
            return;
        }
        self.nodes[node].closing = true;
        let incarnation = self.nodes[node].holder.incarnation();
        let ends = self.held(node).map(|held| held.lease.ends_at()).unwrap_or(Instant::START);
        let left = self.until(node, ends).saturating_sub(Duration::from_micros(2));
        let takes = if hand_over {
            self.dice.upto(left.min(ms(5)) + Duration::from_micros(1))
        } else {
            self.dice.upto(left + Duration::from_micros(1))
        };
        self.later(takes, Event::Closed { node, incarnation, hand_over });
    }

    fn store(&mut self, node: usize, epoch: Epoch, decided: Option<(usize, Epoch)>, vote_for: Option<usize>) {
        let slow = self.slow_disk == Some(node) || !self.calm && self.dice.chance(50);
        let takes = self.dice.time(Duration::from_micros(300), if slow { ms(3_000) } else { ms(30) });
        let life = self.nodes[node].life;
        self.later(takes, Event::Stored { node, life, epoch, decided, vote_for });
    }

    /// Somebody acknowledges, or goes on in another epoch: is anybody else, or was anybody since?
    fn check(&mut self) {
        let open = (0..self.nodes.len()).filter_map(|node| Some((self.nodes[node].open?, self.process(node))));
        let open: Vec<_> = open.collect();
        if open.len() > 1 && self.violation.is_none() {
            self.violation = Some(format!("two nodes acknowledge: {open:?}"));
        }
        for (epoch, process) in open {
            match self.highest {
                Some((highest, by)) if epoch < highest || epoch == highest && by != process => {
                    let what = format!("{process:?} acknowledges in epoch {epoch} after {by:?} did in {highest}");
                    self.violation.get_or_insert(what);
                }
                Some(_) | None => self.highest = Some((epoch, process)),
            }
        }
    }

    pub fn run(&mut self) {
        let trouble = TROUBLE.as_micros() as u64;
        let end = trouble + LIVENESS.as_micros() as u64;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if self.violation.is_some() || at > end {
                break;
            }
            self.now = at;
            self.happens(event, at < trouble);
            self.check();
        }
        if self.violation.is_none() {
            if self.calm && self.closed > 0 {
                self.violation = Some(format!("fenced {} times although nothing went wrong", self.closed));
            } else if !self.nodes.iter().any(|node| node.open.is_some()) {
                self.violation = Some("nobody takes writes in the end".to_owned());
            }
        }
    }

    fn happens(&mut self, event: Event, trouble: bool) {
        match event {
            Event::Arrives { from, to, message } if self.nodes[to].up => self.arrives(from, to, message),
            Event::Arrives { .. } => {}
            Event::Speak { node, life } => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    let now = self.local(node);
                    if self.nodes[node].leads.is_some_and(|leads| now >= leads.until) {
                        self.nodes[node].leads = None;
                    }
                    self.speak(node);
                    let lease = self.held(node).map_or(self.nodes[node].lease, |held| held.lease.length);
                    let every = ask_every(lease);
                    let wait = every - self.dice.upto(every / 10);
                    self.later(wait, Event::Speak { node, life });
                }
            }
            Event::Look { node, incarnation } => {
                if self.nodes[node].holder.incarnation() == incarnation {
                    self.look(node);
                    let now = self.local(node);
                    let asked = self.nodes[node].asked_at;
                    let stale = self.nodes[node].up
                        && self.nodes[node].holder.wants().is_some()
                        && self.nodes[node].released.is_none()
                        && self.held(node).is_none_or(|held| held.lease.from < asked);
                    if stale && now.since(asked) >= ms(15) && now.since(asked) < ms(90) {
                        self.speak(node);
                    }
                }
            }
            Event::Stored { node, life, epoch, decided, vote_for } => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    let disk = &mut self.nodes[node].disk;
                    // One vote in an epoch: who was overtaken by another store gives none.
                    let first = disk.stored < epoch;
                    disk.stored = disk.stored.max(epoch);
                    if decided.is_some_and(|(_, epoch)| disk.decided.is_none_or(|(_, known)| known < epoch)) {
                        disk.decided = decided;
                    }
                    if let Some(candidate) = vote_for.filter(|_| first) {
                        if candidate == node {
                            self.voted(node, epoch)
                        } else {
                            self.send(node, candidate, Message::Voted { epoch })
                        }
                    }
                    self.consider(node);
                }
            }
            Event::Opened { node, incarnation, epoch } => {
                if self.nodes[node].holder.incarnation() == incarnation && self.nodes[node].opening {
                    self.nodes[node].opening = false;
                    let now = self.local(node);
                    // Opened too late it must be closed before anybody notices: the lease is looked at again.
                    if self.held(node).is_some_and(|held| held.epoch >= epoch && now < held.lease.ends_at())
                        && self.nodes[node].released.is_none()
                    {
                        self.nodes[node].open = Some(epoch);
                        self.opened += 1;
                        self.note(|_| format!("n{node} takes writes in epoch {epoch}"));
                        // Elected: whoever wanted it has got it.
                        self.speak(node);
                        self.look(node);
                    }
                }
            }
            Event::Closed { node, incarnation, hand_over } => {
                if self.nodes[node].holder.incarnation() == incarnation {
                    let now = self.local(node);
                    let it = &mut self.nodes[node];
                    (it.open, it.closing) = (None, false);
                    self.closed += 1;
                    if hand_over {
                        it.holder.release(now);
                        it.released = Some(now);
                    }
                    self.note(|_| format!("n{node} refuses writes (handed over: {hand_over})"));
                    if hand_over {
                        self.speak(node);
                    } else {
                        self.look(node);
                    }
                }
            }
            Event::Candidate => {
                let node = self.dice.below(self.nodes.len());
                self.stand(node, trouble);
                let wait = if trouble { self.dice.upto(self.elections) } else { ms(700) };
                self.later(wait, Event::Candidate);
            }
            Event::Fault if trouble => {
                self.fault();
                let wait = self.dice.upto(ms(1_200));
                self.later(wait, Event::Fault);
            }
            Event::Fault => {
                self.cut.iter_mut().for_each(|from| from.fill(false));
                (self.loss, self.late) = (0, 0);
            }
            Event::Heal { from, to } => self.cut[from][to] = false,
            Event::Restart { node } => {
                if self.nodes[node].up {
                    self.nodes[node].up = false;
                    self.later(ms(5), Event::Start { node });
                }
            }
            Event::Start { node } => {
                if !self.nodes[node].up {
                    self.begin(node);
                }
            }
        }
    }

    fn arrives(&mut self, from: usize, to: usize, message: Message) {
        match message {
            Message::Frame(frame) => {
                self.hear(to, from, frame);
            }
            Message::Grant(grant) => {
                // By whom it was named it may never hear.
                let (now, it) = (self.local(to), &mut self.nodes[to]);
                if grant.incarnation == it.holder.incarnation()
                    && it.holder.wants() < Some(grant.epoch)
                    && it.disk.stored <= grant.epoch
                {
                    it.released = None;
                    it.holder.ask(now, grant.epoch);
                }
                self.granted(to, from, grant);
            }
            Message::Vote { epoch } => {
                if self.nodes[to].disk.stored < epoch {
                    self.store(to, epoch, None, Some(from));
                }
            }
            Message::Voted { epoch } => self.voted(to, epoch),
        }
    }

    /// It wants to lead: for somebody else, or for the master that lives.
    fn stand(&mut self, node: usize, trouble: bool) {
        let someone = self.nodes.iter().any(|node| node.open.is_some());
        if !self.nodes[node].up || !trouble && someone {
            return;
        }
        let epoch = self.nodes[node].disk.stored + 1;
        self.nodes[node].candidate = Some((epoch, 0));
        self.note(|_| format!("s{node} wants to lead in epoch {epoch}"));
        for to in 0..self.nodes.len() {
            self.send(node, to, Message::Vote { epoch });
        }
        self.store(node, epoch, None, Some(node));
    }

    fn voted(&mut self, node: usize, epoch: Epoch) {
        let majority = self.nodes.len() / 2 + 1;
        let Some((of, votes)) = &mut self.nodes[node].candidate else { return };
        if *of != epoch {
            return;
        }
        *votes += 1;
        if *votes as usize == majority {
            let heard = self.nodes[node].heard.iter().flatten().map(|(frame, _)| frame.process);
            let heard: Vec<_> = heard.collect();
            if heard.is_empty() {
                return;
            }
            // One that has just given its lease back is as good as any other.
            let handed = self.nodes[node].heard.iter().flatten().filter(|(frame, _)| frame.released.is_some());
            let handed = handed.map(|(frame, _)| frame.process).next().filter(|_| self.dice.chance(500));
            let target = handed.unwrap_or_else(|| heard[self.dice.below(heard.len())]);
            // Some go on for long, some give up before anybody can have done anything.
            let until =
                self.local(node) + self.dice.pick(&[TARGET_WAIT, TARGET_WAIT, TARGET_WAIT * 10, TARGET_WAIT / 20]);
            let planned = self.dice.chance(500);
            self.nodes[node].leads = Some(Leads { epoch, target, planned, until });
            self.note(|_| format!("s{node} leads in epoch {epoch} and wants {target:?} (planned: {planned})"));
            self.speak(node);
        }
    }

    fn fault(&mut self) {
        let count = self.nodes.len();
        let (a, b) = (self.dice.below(count), self.dice.below(count));
        let time = self.dice.time(ms(50), ms(3_000));
        match self.dice.below(5) {
            0 => {
                for other in 0..count {
                    for (from, to) in [(a, other), (other, a)] {
                        self.cut[from][to] = true;
                        self.later(time, Event::Heal { from, to });
                    }
                }
            }
            1 => {
                self.cut[a][b] = true;
                self.later(time, Event::Heal { from: a, to: b });
            }
            2 => {
                // The worker, and with it the redis.
                self.restart_redis(a);
                self.nodes[a].up = false;
                let time = self.dice.time(ms(5), ms(2_000));
                self.later(time, Event::Start { node: a });
            }
            3 => self.restart_redis(a),
            _ => self.later(ms(0), Event::Restart { node: a }),
        }
    }

    fn restart_redis(&mut self, node: usize) {
        self.incarnations += 1;
        let count = self.nodes.len();
        let it = &mut self.nodes[node];
        it.holder = Holder::new(self.incarnations, count, self.rules);
        (it.open, it.opening, it.closing, it.released) = (None, false, false, None);
        self.note(|world| format!("n{node} has redis {}", world.incarnations));
    }
}

/// Runs the worlds of these seeds; how many, how often somebody was given writes, and the first that broke the rules.
pub fn run(seeds: std::ops::Range<u64>, rules: Rules) -> (u64, u64, Option<(u64, String)>) {
    let (mut worlds, mut opened) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed, rules);
        world.run();
        worlds += 1;
        opened += world.opened;
        if let Some(what) = world.violation {
            return (worlds, opened, Some((seed, what)));
        }
    }
    (worlds, opened, None)
}
