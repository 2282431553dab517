//! How a machine is driven: by the rules of [`vigie::base::drive`], as the runtime does it.

use std::collections::VecDeque;
use std::time::Duration;

use vigie::base::drive::{Drive, Flow, Step};
use vigie::base::{Instant, Machine};

use crate::world::{Happening, World, ms};

/// The machines of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sentinel,
    Link,
    Supervisor,
    Fence,
    Route,
    Router,
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
    drive: Drive<M>,
    /// An output takes its time.
    waits: bool,
    /// What it does now may come back to itself: it waits its turn.
    running: bool,
    /// When it is woken next, and the deadline that this is for.
    wake: Option<(Instant, Instant)>,
}

/// What is to be done next.
enum Next<M: Machine> {
    Output(M::Output),
    Input(M::Input),
    Nothing,
}

impl<M: Machine> Driver<M> {
    pub fn new(machine: M) -> Self {
        let (first, crowd) = (VecDeque::new(), VecDeque::new());
        Self { machine, first, crowd, drive: Drive::default(), waits: false, running: false, wake: None }
    }

    /// Inputs that wait.
    pub fn waiting(&self) -> usize {
        self.first.len() + self.crowd.len()
    }

    /// `clock`: what the clock shows.
    fn next(&mut self, clock: Instant) -> Next<M> {
        if self.waits {
            return Next::Nothing;
        }
        loop {
            match self.drive.next(&mut self.machine, clock) {
                Step::Run(output) => return Next::Output(output),
                Step::Read => match self.first.pop_front() {
                    Some(input) => return Next::Input(input),
                    None => self.drive.all_read(),
                },
                Step::Wait(_) => {
                    let input = self.first.pop_front().or_else(|| self.crowd.pop_front());
                    return input.map_or(Next::Nothing, Next::Input);
                }
            }
        }
    }

    fn became(&mut self, flow: Flow<M::Input>) {
        self.waits = false;
        self.drive.done(flow);
    }
}

/// A world in which machines of that kind live, at most one on each host.
pub trait Lives<M: Machine> {
    const KIND: Kind;

    /// Its driver; none: no process has such a machine now.
    fn driver(&mut self, host: usize) -> Option<&mut Driver<M>>;

    /// It is about to take in an input.
    fn hears(&mut self, host: usize, now: Instant, input: &M::Input);

    /// It has done all that it can do now.
    fn settled(&mut self, _: usize) {}

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
                Next::Input(input) => {
                    <Self as Lives<M>>::hears(self, host, local, &input);
                    if let Some(driver) = <Self as Lives<M>>::driver(self, host) {
                        driver.drive.take(&mut driver.machine, local, input);
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
            <Self as Lives<M>>::settled(self, host);
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
