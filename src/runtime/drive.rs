//! The one loop that drives every core, by the rules of [`crate::base::drive`].

use tokio::sync::{mpsc, oneshot};

use super::alarm::Alarm;
use super::clock;
use crate::base::Machine;
pub use crate::base::drive::Flow;
use crate::base::drive::{Drive, Step};

/// Carries out the outputs of a machine.
pub trait Execute<M: Machine> {
    /// Carries out one output; the next one is not begun before this has returned.
    fn execute(&mut self, output: M::Output) -> impl Future<Output = Flow<M::Input>>;
}

/// Where inputs come from.
pub trait Inputs<I> {
    /// The next input; none: there will never be one again. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<I>>;

    /// The next input if one waits, of those without which no deadline is to be believed.
    fn waiting(&mut self) -> Option<I>;

    /// Lets what lies unread in sockets come to where [`Self::waiting`] finds it: by default, who reads them is a task of this
    /// thread, and gets its turn.
    fn gather(&mut self) -> impl Future<Output = ()> {
        tokio::task::yield_now()
    }
}

impl<I> Inputs<I> for mpsc::Receiver<I> {
    fn next(&mut self) -> impl Future<Output = Option<I>> {
        self.recv()
    }

    fn waiting(&mut self) -> Option<I> {
        self.try_recv().ok()
    }
}

/// Two queues: whatever waits in the first goes before all that waits in the second. Ends with the first.
#[derive(Debug)]
pub struct Lanes<I> {
    /// What must not wait for a crowd.
    pub first: mpsc::Receiver<I>,
    /// What the crowd says.
    pub second: mpsc::Receiver<Said<I>>,
}

/// What waits in the second lane.
#[derive(Debug)]
pub enum Said<I> {
    /// An input.
    Input(I),
    /// Nothing for the machine: the asker is told once all that came before it is carried out.
    Turn(oneshot::Sender<()>),
}

impl<I> Said<I> {
    /// The input, if it is one. Inputs are asked for only when those before them are carried out.
    fn input(self) -> Option<I> {
        match self {
            Self::Input(input) => Some(input),
            Self::Turn(done) => {
                // Who asked may have gone.
                let _ = done.send(());
                None
            }
        }
    }
}

impl<I> Inputs<I> for Lanes<I> {
    async fn next(&mut self) -> Option<I> {
        loop {
            tokio::select! {
                biased;
                input = self.first.recv() => return input,
                Some(said) = self.second.recv() => if let Some(input) = said.input() {
                    return Some(input);
                },
            }
        }
    }

    /// Only of the first: what a crowd asks is no word on whether anybody lives, and would make others look silent.
    fn waiting(&mut self) -> Option<I> {
        self.first.try_recv().ok()
    }
}

/// Drives `machine` until the senders of `inputs` are gone. Cancel safe between turns only: give it a task of its own and
/// end it by dropping the senders.
pub async fn drive<M: Machine>(machine: &mut M, mut inputs: impl Inputs<M::Input>, executor: &mut impl Execute<M>) {
    let (mut drive, mut alarm) = (Drive::default(), Alarm::new());
    loop {
        match drive.next(machine, clock::now()) {
            Step::Run(output) => {
                let flow = executor.execute(output).await;
                drive.done(flow);
            }
            Step::Read => {
                let mut waiting = inputs.waiting();
                if waiting.is_none() {
                    inputs.gather().await;
                    waiting = inputs.waiting();
                }
                match waiting {
                    Some(input) => drive.take(machine, clock::now(), input),
                    None => drive.all_read(),
                }
            }
            Step::Wait(deadline) => tokio::select! {
                biased;
                input = inputs.next() => match input {
                    Some(input) => drive.take(machine, clock::now(), input),
                    None => return,
                },
                () = alarm.until(deadline) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Instant;

    /// Repeats inputs as outputs; says "tick" once, 5 ms after the first input.
    #[derive(Default)]
    struct Echo {
        tick_at: Option<Instant>,
        ticked: bool,
    }

    impl Machine for Echo {
        type Input = &'static str;
        type Output = &'static str;
        const TICK: &'static str = "tick";

        fn handle(&mut self, now: Instant, input: &'static str, out: &mut Vec<&'static str>) {
            if input == "tick" {
                self.tick_at = None;
                self.ticked = true;
            } else if self.tick_at.is_none() && !self.ticked {
                self.tick_at = Some(now + Duration::from_millis(5));
            }
            match input {
                "vote" => out.extend(["store", "reply"]),
                other => out.push(other),
            }
        }

        fn deadline(&self) -> Option<Instant> {
            self.tick_at
        }
    }

    struct Disk {
        broken: bool,
        done: Vec<&'static str>,
    }

    impl Execute<Echo> for Disk {
        async fn execute(&mut self, output: &'static str) -> Flow<&'static str> {
            if output == "store" && self.broken {
                return Flow::Abort("refused");
            }
            self.done.push(output);
            Flow::Done
        }
    }

    async fn done(broken: bool, given: &[&'static str]) -> Vec<&'static str> {
        let (inputs, receiver) = mpsc::channel(9);
        let mut disk = Disk { broken, done: vec![] };
        for input in given {
            inputs.send(*input).await.unwrap();
        }
        let mut machine = Echo::default();
        let driven = drive(&mut machine, receiver, &mut disk);
        let _ = tokio::time::timeout(Duration::from_millis(50), driven).await;
        disk.done
    }

    #[tokio::test]
    async fn outputs_run_in_order_and_ticks_come_last() {
        assert_eq!(done(false, &["a", "vote", "b"]).await, ["a", "store", "reply", "b", "tick"]);
    }

    #[tokio::test]
    async fn what_must_not_wait_goes_before_the_crowd() {
        let (first, first_rx) = mpsc::channel(9);
        let (second, second_rx) = mpsc::channel(9);
        for input in ["a", "b", "c"] {
            second.send(Said::Input(input)).await.unwrap();
        }
        first.send("first").await.unwrap();
        let mut disk = Disk { broken: false, done: vec![] };
        let mut machine = Echo::default();
        let driven = drive(&mut machine, Lanes { first: first_rx, second: second_rx }, &mut disk);
        let _ = tokio::time::timeout(Duration::from_millis(50), driven).await;
        assert_eq!(disk.done, ["first", "a", "b", "c", "tick"]);
    }

    #[tokio::test]
    async fn a_turn_is_told_when_all_before_it_is_carried_out() {
        let ((first, first_rx), (second, second_rx)) = (mpsc::channel(9), mpsc::channel(9));
        let (turn, mut turned) = oneshot::channel();
        for said in [Said::Input("a"), Said::Input("vote"), Said::Turn(turn), Said::Input("b")] {
            second.send(said).await.unwrap();
        }
        /// Notes before which output the turn was told.
        struct Watch<'a>(&'a mut oneshot::Receiver<()>, Vec<(&'static str, bool)>);
        impl Execute<Echo> for Watch<'_> {
            async fn execute(&mut self, output: &'static str) -> Flow<&'static str> {
                let told = self.0.try_recv().is_ok() || self.1.last().is_some_and(|(_, told)| *told);
                self.1.push((output, told));
                Flow::Done
            }
        }
        let (mut machine, mut watch) = (Echo::default(), Watch(&mut turned, vec![]));
        let driven = drive(&mut machine, Lanes { first: first_rx, second: second_rx }, &mut watch);
        let _ = tokio::time::timeout(Duration::from_millis(50), driven).await;
        assert_eq!(watch.1[..4], [("a", false), ("store", false), ("reply", false), ("b", true)]);
        drop(first);
    }

    #[tokio::test]
    async fn a_failed_store_fences_what_follows_it() {
        assert_eq!(done(true, &["vote", "b"]).await, ["refused", "b", "tick"]);
    }
}
