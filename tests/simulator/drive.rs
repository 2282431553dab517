//! How a machine is driven: turn by turn, as [`vigie::runtime::drive`] does it. The one place in the simulator that knows its
//! rules.

use std::collections::VecDeque;
use std::time::Duration;

use vigie::base::{Instant, Machine};
use vigie::runtime::drive::Flow;

use crate::world::{Happening, World, ms};

/// So many inputs are taken in before deadlines are looked at again.
const INPUTS_PER_TURN: usize = 64;

/// The machines of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sentinel,
    Link,
    Supervisor,
    Route,
}

/// Which queue an input waits in: whatever waits in the first goes before all that waits in the second.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    First,
    Crowd,
}

/// One machine, and what waits for it.
pub struct Driver<M: Machine> {
    pub machine: M,
    first: VecDeque<M::Input>,
    crowd: VecDeque<M::Input>,
    turn: Option<Turn<M>>,
    /// An output takes its time.
    waits: bool,
    /// What it does now may come back to itself: it waits its turn.
    running: bool,
    /// When it is woken next, and the deadline that this is for.
    wake: Option<(Instant, Instant)>,
}

/// One turn: the clock is read once.
struct Turn<M: Machine> {
    now: Instant,
    left: usize,
    ticked: bool,
    out: VecDeque<M::Output>,
    fed: VecDeque<M::Input>,
}

/// What is to be done next.
enum Next<M: Machine> {
    Output(M::Output),
    Input(Instant, M::Input),
    Tick(Instant),
    Nothing,
}

impl<M: Machine> Driver<M> {
    pub fn new(machine: M) -> Self {
        let (first, crowd) = (VecDeque::new(), VecDeque::new());
        Self { machine, first, crowd, turn: None, waits: false, running: false, wake: None }
    }

    /// Inputs that wait.
    pub fn waiting(&self) -> usize {
        self.first.len() + self.crowd.len()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.machine.deadline().is_some_and(|deadline| deadline <= now)
    }

    fn waiting_input(&mut self) -> Option<M::Input> {
        self.first.pop_front().or_else(|| self.crowd.pop_front())
    }

    /// `clock`: what the clock shows.
    fn next(&mut self, clock: Instant) -> Next<M> {
        if self.waits {
            return Next::Nothing;
        }
        if self.turn.is_none() {
            if self.waiting() == 0 && !self.is_due(clock) {
                return Next::Nothing;
            }
            let (out, fed) = (VecDeque::new(), VecDeque::new());
            self.turn = Some(Turn { now: clock, left: INPUTS_PER_TURN, ticked: false, out, fed });
        }
        let Some(turn) = self.turn.as_mut() else { return Next::Nothing };
        let now = turn.now;
        if let Some(output) = turn.out.pop_front() {
            return Next::Output(output);
        }
        if let Some(input) = turn.fed.pop_front() {
            return Next::Input(now, input);
        }
        if turn.left > 0 {
            turn.left -= 1;
            if let Some(input) = self.waiting_input() {
                return Next::Input(now, input);
            }
        }
        let ticked = self.turn.as_mut().is_some_and(|turn| std::mem::replace(&mut turn.ticked, true));
        if !ticked && self.is_due(now) {
            return Next::Tick(now);
        }
        // The next turn reads the clock again.
        self.turn = None;
        if self.waiting() > 0 || self.is_due(clock) { self.next(clock) } else { Next::Nothing }
    }

    fn handle(&mut self, now: Instant, input: M::Input) {
        let mut out = Vec::new();
        self.machine.handle(now, input, &mut out);
        if let Some(turn) = self.turn.as_mut() {
            turn.out.extend(out);
        }
    }

    fn became(&mut self, flow: Flow<M::Input>) {
        self.waits = false;
        let Some(turn) = self.turn.as_mut() else { return };
        match flow {
            Flow::Done => {}
            Flow::Feed(input) => turn.fed.push_back(input),
            Flow::Abort(input) => {
                turn.out.clear();
                turn.fed.push_back(input);
            }
        }
    }
}

/// A world in which machines of that kind live, at most one on each host.
pub trait Lives<M: Machine> {
    const KIND: Kind;

    /// Its driver; none: no process has such a machine now.
    fn driver(&mut self, host: usize) -> Option<&mut Driver<M>>;

    /// It is about to take in an input.
    fn hears(&mut self, host: usize, now: Instant, input: &M::Input);

    /// Carries out what it wants done; none: it takes its time, and [`World::became`] says what came of it.
    fn carry_out(&mut self, host: usize, output: M::Output) -> Option<Flow<M::Input>>;
}

impl World {
    /// Gives an input to a machine, if it is there.
    pub fn feed<M: Machine>(&mut self, host: usize, lane: Lane, input: M::Input)
    where
        Self: Lives<M>,
    {
        if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
            match lane {
                Lane::First => driver.first.push_back(input),
                Lane::Crowd => driver.crowd.push_back(input),
            }
            self.drive::<M>(host);
        }
    }

    /// What became of an output that took its time.
    pub fn became<M: Machine>(&mut self, host: usize, flow: Flow<M::Input>)
    where
        Self: Lives<M>,
    {
        if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
            driver.became(flow);
            self.drive::<M>(host);
        }
    }

    /// Drives a machine as far as it comes: until nothing waits, or something takes its time, or the process does not run.
    pub fn drive<M: Machine>(&mut self, host: usize)
    where
        Self: Lives<M>,
    {
        if self.workers[host].frozen {
            return;
        }
        let Some(driver) = <Self as Lives<M>>::driver(self, host) else { return };
        if std::mem::replace(&mut driver.running, true) {
            return;
        }
        let local = self.local(host);
        while let Some(driver) = <Self as Lives<M>>::driver(self, host) {
            match driver.next(local) {
                Next::Nothing => break,
                Next::Input(now, input) => {
                    <Self as Lives<M>>::hears(self, host, now, &input);
                    if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
                        driver.handle(now, input);
                    }
                }
                Next::Tick(now) => {
                    <Self as Lives<M>>::hears(self, host, now, &M::TICK);
                    let Some(driver) = <Self as Lives<M>>::driver(self, host) else { return };
                    driver.handle(now, M::TICK);
                    if driver.is_due(now) {
                        self.checks.violated("time stands still: a tick must move the deadline".to_owned());
                        break;
                    }
                }
                Next::Output(output) => match <Self as Lives<M>>::carry_out(self, host, output) {
                    Some(flow) => {
                        if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
                            driver.became(flow);
                        }
                    }
                    None => {
                        if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
                            driver.waits = true;
                        }
                    }
                },
            }
        }
        if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
            driver.running = false;
            self.wake::<M>(host);
        }
    }

    /// Lets the machine have a turn at its deadline, late as any process may be.
    fn wake<M: Machine>(&mut self, host: usize)
    where
        Self: Lives<M>,
    {
        let now = self.now;
        let Some(driver) = <Self as Lives<M>>::driver(self, host).filter(|driver| !driver.waits) else { return };
        let Some(deadline) = driver.machine.deadline() else { return };
        if driver.wake.is_some_and(|(at, of)| of == deadline && at >= now) {
            return;
        }
        let known = driver.wake.map(|(at, _)| at).filter(|at| *at >= now);
        let late = if self.dice.chance(20) { self.dice.upto(ms(3)) } else { self.dice.upto(Duration::from_micros(50)) };
        let at = self.hosts[host].clock.when(deadline).max(now) + late;
        if known.is_none_or(|known| at < known) {
            if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
                driver.wake = Some((at, deadline));
            }
            self.at(at, Happening::Wake(<Self as Lives<M>>::KIND, host, self.workers[host].boot));
        }
    }

    /// A machine is woken.
    pub fn woken<M: Machine>(&mut self, host: usize)
    where
        Self: Lives<M>,
    {
        let now = self.now;
        if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
            driver.wake.take_if(|(at, _)| *at <= now);
            self.drive::<M>(host);
        }
    }
}
