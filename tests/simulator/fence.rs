//! The fence of a redis: the real machine, its own connection, and the page by which the guard sees what it does.

use std::collections::VecDeque;

use bytes::Bytes;
use vigie::base::Instant;
use vigie::cores::redis::fence::{
    By, Command, Doors, Fence, Input, OUT_OF_REACH, Outcome, Output, Phase, Status, Term,
};
use vigie::cores::redis::{self, Exit, Supervisor};
use vigie::runtime::drive::Flow;
use vigie::wire::resp::Reply;

use crate::drive::{Driver, Kind, Lane, Lives};
use crate::model::Words;
use crate::net::{Owner, Packet, Way};
use crate::world::{Happening, World};

/// What the runtime has for one fence.
#[derive(Default)]
pub struct Fenced {
    driver: Driver<Fence>,
    /// Its connection, and what it has asked there.
    wire: Option<u64>,
    owed: VecDeque<(u32, Command)>,
    /// What the guard sees: the fence writes the one, the link the other.
    doors: Option<Term>,
    lease: Option<Term>,
    /// What the supervisor was told last.
    told: Status,
    /// By what right it takes writes, or took them until now: one that closes says already by what it could open next.
    right: By,
}

impl Default for Driver<Fence> {
    fn default() -> Self {
        Self::new(Fence::default())
    }
}

impl World {
    fn fenced(&mut self, host: usize) -> Option<&mut Fenced> {
        self.workers[host].fenced.as_mut()
    }

    /// Whether a redis takes writes by a lease.
    pub fn is_leased(&self, host: usize) -> bool {
        let fenced = self.workers.get(host).and_then(|worker| worker.fenced.as_ref());
        fenced.is_some_and(|fenced| fenced.told.phase != Phase::Closed && fenced.right == By::Lease)
    }

    /// Something happens to the fence of a redis.
    pub fn fence(&mut self, host: usize, input: Input) {
        self.feed::<Fence>(host, Lane::First, input);
    }

    /// The link tells how long the lease lasts.
    pub fn renewed(&mut self, host: usize, lease: Option<Term>) {
        let Some(fenced) = self.fenced(host) else { return };
        fenced.lease = lease;
        let open = fenced.doors.is_some();
        if open {
            self.watch_doors(host);
        }
        self.fence(host, Input::Lease(lease));
    }

    /// Until when a redis may be open: the guard counts on the later of what it sees.
    fn may_be_open_until(&self, host: usize) -> Option<Term> {
        let fenced = self.workers[host].fenced.as_ref()?;
        let doors = fenced.doors?;
        let later = |lease: &Term| lease.incarnation == doors.incarnation && lease.ends_at > doors.ends_at;
        Some(fenced.lease.filter(later).unwrap_or(doors))
    }

    /// The guard looks again when what it sees has ended.
    fn watch_doors(&mut self, host: usize) {
        let Some(term) = self.may_be_open_until(host) else { return };
        let at = self.hosts[host].clock.when(term.guard_at()).max(self.now);
        self.at(at, Happening::LeaseEnds(host, self.workers[host].boot));
    }

    /// The guard kills a redis that may take writes although its lease has ended, whatever its worker does.
    pub fn lease_ends(&mut self, host: usize) {
        let now = self.local(host);
        let over = self.may_be_open_until(host).is_some_and(|term| now >= term.guard_at());
        if over && self.redis[host].alive {
            self.note(|| format!("the guard of n{host} kills its redis"));
            self.stats.guard_kills += 1;
            if let Some(fenced) = self.fenced(host) {
                fenced.doors = None;
            }
            self.kill_redis(host, true, Exit::Signal(9));
        }
    }

    fn connect_fence(&mut self, host: usize) {
        if !self.redis[host].listens() {
            return self.fence(host, Input::Broken);
        }
        let wire = self.open_near(host, Owner::Fence);
        if let Some(fenced) = self.fenced(host) {
            (fenced.wire, fenced.owed) = (Some(wire), VecDeque::new());
        }
        self.fence(host, Input::Connected);
    }

    fn disconnect_fence(&mut self, host: usize) {
        let wire = self.fenced(host).and_then(|fenced| fenced.wire.take());
        if let Some(wire) = wire {
            self.send(wire, Way::Far, Packet::End("closed"));
        }
    }

    fn send_command(&mut self, host: usize, number: u32, command: Command) {
        let Some(fenced) = self.fenced(host) else { return };
        let Some(wire) = fenced.wire else { return self.fence(host, Input::Unsent) };
        fenced.owed.push_back((number, command));
        self.note(|| format!("f{host} > {command:?}"));
        self.send(wire, Way::Far, Packet::Commands(said(command)));
    }

    /// Redis has answered the fence.
    pub fn fence_hears(&mut self, host: usize, wire: u64, replies: &[Reply]) {
        let Some(fenced) = self.fenced(host).filter(|fenced| fenced.wire == Some(wire)) else { return };
        let Some((number, command)) = fenced.owed.pop_front() else { return };
        self.fence(host, Input::Reply { number, outcome: outcome(command, replies) });
    }

    /// The connection of the fence has ended.
    pub fn fence_cut(&mut self, host: usize, wire: u64) {
        if let Some(fenced) = self.fenced(host).filter(|fenced| fenced.wire == Some(wire)) {
            fenced.wire = None;
            self.fence(host, Input::Broken);
        }
    }
}

fn said(command: Command) -> Vec<Words> {
    let words = |text: &str| text.split(' ').map(|word| Bytes::from(word.to_owned())).collect::<Words>();
    let set = |replicas: u32| words(&format!("CONFIG SET min-replicas-to-write {replicas}"));
    match command {
        Command::Open { by, setting } => {
            let promote = (by == By::Lease).then(|| words("REPLICAOF NO ONE"));
            let rest = [set(setting.min_replicas()), words("EXEC")];
            [words("MULTI")].into_iter().chain(promote).chain(rest).collect()
        }
        Command::Close => vec![set(OUT_OF_REACH)],
        Command::Ping => vec![words("PING")],
    }
}

fn outcome(command: Command, replies: &[Reply]) -> Outcome {
    let refused = |reply: &Reply| matches!(reply, Reply::Error(_));
    match (command, replies.last()) {
        (Command::Open { .. }, Some(Reply::Array(results))) if !results.iter().any(refused) => Outcome::Done,
        (Command::Open { .. }, Some(Reply::Error(error))) if error.starts_with("EXECABORT") => Outcome::Nothing,
        (Command::Open { .. }, _) => Outcome::Unknown,
        (Command::Close | Command::Ping, Some(reply)) if !refused(reply) => Outcome::Done,
        (Command::Close | Command::Ping, _) => Outcome::Nothing,
    }
}

impl Lives<Fence> for World {
    const KIND: Kind = Kind::Fence;

    fn driver(&mut self, host: usize) -> Option<&mut Driver<Fence>> {
        self.fenced(host).map(|fenced| &mut fenced.driver)
    }

    fn hears(&mut self, _: usize, _: Instant, _: &Input) {}

    fn carry_out(&mut self, host: usize, output: Output) -> Option<Flow<Input>> {
        match output {
            Output::Connect => self.connect_fence(host),
            Output::Disconnect => self.disconnect_fence(host),
            Output::Send { number, command } => self.send_command(host, number, command),
            Output::Doors(doors) => {
                if let Some(fenced) = self.fenced(host) {
                    fenced.doors = match doors {
                        Doors::Closed => None,
                        Doors::Open(term) => Some(term),
                    };
                }
                self.watch_doors(host);
            }
            Output::Kill => {
                self.note(|| format!("f{host} kills its redis"));
                self.stats.fence_kills += 1;
                self.kill_redis(host, true, Exit::Signal(9));
            }
        }
        Some(Flow::Done)
    }

    fn settled(&mut self, host: usize) {
        let Some(fenced) = self.fenced(host) else { return };
        let status = fenced.driver.machine.status();
        if matches!(status.phase, Phase::Opening | Phase::Open) {
            fenced.right = status.by;
        }
        if std::mem::replace(&mut fenced.told, status) != status {
            self.note(|| format!("f{host} is {:?} by {:?}", status.phase, status.by));
            self.feed::<Supervisor>(host, Lane::First, redis::Input::Fence(status));
        }
    }
}
