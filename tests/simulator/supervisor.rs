//! The supervisor of a redis: the real machine, its record on the disk, and its own connection to the process.

use std::collections::VecDeque;

use bytes::Bytes;
use vigie::base::Instant;
use vigie::base::lease::{Held, Writes};
use vigie::cores::cluster::Part;
use vigie::cores::redis::fence::{self, Setting, Term};
use vigie::cores::redis::{Answer, Ask, Config, Durable, Exit, Input, Output, Supervisor, Token};
use vigie::runtime::drive::Flow;
use vigie::wire::resp::Reply;

use crate::drive::{Driver, Kind, Lane, Lives};
use crate::model::Words;
use crate::net::{Owner, Packet, Way};
use crate::world::{Happening, World, ms, redis_at};

/// What the runtime has for one supervisor.
pub struct Keeper {
    driver: Driver<Supervisor>,
    /// Its connection, and what it was asked there.
    wire: Option<u64>,
    owed: VecDeque<(Token, Ask)>,
    /// How the process is started.
    closed: bool,
    /// Records to be written, one after the other, and whether that is waited for; the first is being written.
    records: VecDeque<(Durable, bool)>,
}

impl World {
    pub fn new_keeper(&mut self, host: usize) -> Keeper {
        let group = &self.groups[self.redis[host].group];
        let nodes = group.iter().map(|r| redis_at(*r)).collect();
        // Random in the product: nobody's is another's.
        let life = u32::try_from(self.workers[host].boot << 8 | host as u64).expect("not so many starts");
        let config = Config {
            nodes,
            address: redis_at(host),
            priority: self.redis[host].priority,
            fencing: self.disks[host].fencing,
            life,
        };
        let machine = Supervisor::new(config, self.disks[host].record);
        Keeper {
            driver: Driver::new(machine),
            wire: None,
            owed: VecDeque::new(),
            closed: false,
            records: VecDeque::new(),
        }
    }

    fn supervise(&mut self, host: usize, input: Input) {
        self.feed::<Supervisor>(host, Lane::First, input);
    }

    /// Its process dies. What was being written is on the disk or not.
    pub fn keeper_dies(&mut self, host: usize, mut keeper: Keeper) {
        if let Some((record, _)) = keeper.records.pop_front()
            && !self.disks[host].broken
            && self.dice.chance(500)
        {
            self.disks[host].record = record;
        }
    }

    /// The link tells what has become of the lease: the fence first.
    pub fn leased(&mut self, host: usize, held: Option<Held>) {
        self.renewed(host, held.map(Term::from));
        self.supervise(host, Input::Lease(held));
    }

    fn write_record(&mut self, host: usize) {
        let takes = self.store_takes(host);
        self.later(takes, Happening::Recorded(host, self.workers[host].boot));
    }

    /// A record is written, or could not be.
    pub fn recorded(&mut self, host: usize) {
        let Some(keeper) = self.workers[host].keeper.as_mut() else { return };
        let Some((record, awaited)) = keeper.records.pop_front() else { return };
        if !keeper.records.is_empty() {
            self.write_record(host);
        }
        let broken = self.disks[host].broken;
        if !broken {
            self.disks[host].record = record;
        }
        if awaited {
            let error = || Flow::Abort(Input::RecordFailed("input/output error".to_owned()));
            self.became::<Supervisor>(host, if broken { error() } else { Flow::Done });
        }
    }

    /// The process was started, or could not be.
    pub fn spawned(&mut self, host: usize) {
        if self.disks[host].broken && self.dice.chance(300) {
            return self.supervise(host, Input::SpawnFailed("input/output error".to_owned()));
        }
        let closed = self.workers[host].keeper.as_ref().is_some_and(|keeper| keeper.closed);
        self.start_redis(host, closed);
        let pid = self.redis[host].pid;
        self.supervise(host, Input::Spawned { pid, log_later: false, secrets: 0 });
    }

    /// The process is dead by the word of the kernel.
    pub fn redis_exited(&mut self, host: usize, exit: Exit) {
        self.fence(host, fence::Input::Ended);
        self.supervise(host, Input::Exited(exit));
    }

    fn ask(&mut self, host: usize, token: Token, ask: Ask) {
        let open = self.workers[host].keeper.as_ref().and_then(|keeper| keeper.wire);
        let wire = match open {
            Some(wire) => wire,
            None if self.redis[host].listens() => self.open_near(host, Owner::Supervisor),
            None => {
                let answer = Answer::Unreachable("connection refused".to_owned());
                return self.supervise(host, Input::Answer { token, answer });
            }
        };
        let Some(keeper) = self.workers[host].keeper.as_mut() else { return };
        keeper.wire = Some(wire);
        keeper.owed.push_back((token, ask));
        let commands = ask.commands(Vec::new).into_iter();
        let commands: Vec<Words> = commands.map(|words| words.into_iter().map(Bytes::from).collect()).collect();
        self.send(wire, Way::Far, Packet::Commands(commands));
    }

    /// Redis has answered its supervisor.
    pub fn keeper_hears(&mut self, host: usize, replies: &[Reply]) {
        let Some(keeper) = self.workers[host].keeper.as_mut() else { return };
        let Some((token, ask)) = keeper.owed.pop_front() else { return };
        self.supervise(host, Input::Answer { token, answer: ask.answer(replies) });
    }

    /// The connection of the supervisor has ended.
    pub fn keeper_cut(&mut self, host: usize, wire: u64, why: &str) {
        let Some(keeper) = self.workers[host].keeper.as_mut().filter(|keeper| keeper.wire == Some(wire)) else {
            return;
        };
        keeper.wire = None;
        for (token, _) in std::mem::take(&mut keeper.owed) {
            self.supervise(host, Input::Answer { token, answer: Answer::Unreachable(why.to_owned()) });
        }
    }

    /// SIGTERM: it saves what it has, unless it does not run.
    fn terminate(&mut self, host: usize) {
        let takes = self.dice.time(ms(1), ms(200));
        self.later(takes, Happening::Terminated(host, self.redis[host].incarnation));
    }
}

impl Lives<Supervisor> for World {
    const KIND: Kind = Kind::Supervisor;

    fn driver(&mut self, host: usize) -> Option<&mut Driver<Supervisor>> {
        self.workers[host].keeper.as_mut().map(|keeper| &mut keeper.driver)
    }

    fn hears(&mut self, host: usize, _: Instant, input: &Input) {
        if self.trace.on
            && let Some(line) = crate::trace::supervisor_input(input)
        {
            self.note(|| format!("k{host} < {line}"));
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) -> Option<Flow<Input>> {
        match output {
            Output::Record(record) | Output::Remember(record) => {
                let awaited = matches!(output, Output::Record(_));
                let keeper = self.workers[host].keeper.as_mut()?;
                let waiting = keeper.records.len();
                // One is written, one waits: the next one says more.
                if awaited || waiting < 2 {
                    keeper.records.push_back((record, awaited));
                    if waiting == 0 {
                        self.write_record(host);
                    }
                }
                if awaited {
                    return None;
                }
            }
            Output::Spawn { closed } => {
                if let Some(keeper) = self.workers[host].keeper.as_mut() {
                    keeper.closed = closed;
                }
                let takes = self.dice.time(ms(1), ms(20));
                self.later(takes, Happening::Spawned(host, self.workers[host].boot));
            }
            Output::Terminate => self.terminate(host),
            Output::Kill => self.kill_redis(host, true, Exit::Signal(9)),
            Output::Ask { token, ask } => {
                if !matches!(ask, Ask::Probe { .. }) {
                    self.note(|| format!("k{host} > {ask:?}"));
                }
                self.ask(host, token, ask);
            }
            Output::Enclose { incarnation } => self.fence(host, fence::Input::Process(incarnation)),
            Output::Open { order, by, epoch } => {
                self.fence(host, fence::Input::Open { order, by, epoch, setting: Setting::default() });
            }
            Output::Close { order } => self.fence(host, fence::Input::Close { order }),
            Output::Post(facts) => self.post(host, Part::Redis(facts)),
            Output::Writes(writes) => {
                self.stats.opened += u64::from(writes == Writes::Taken);
                self.stats.closed += u64::from(writes == Writes::Refused);
                self.post(host, Part::Writes(writes));
            }
            Output::Fault(reason) => self.post(host, Part::Fault { source: "redis", reason }),
            Output::Publish(event) => self.note(|| format!("k{host} > {event:?}")),
            Output::Left => self.later(std::time::Duration::ZERO, Happening::Left(host, self.workers[host].boot)),
        }
        Some(Flow::Done)
    }
}
