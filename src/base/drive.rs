//! The rules by which every machine is driven, without the waiting: what is carried out next, what is fed next, and when a
//! deadline may be believed. The runtime waits around it, a simulator lets virtual time pass around it.

use std::collections::VecDeque;

use super::{Instant, Machine};

/// So many inputs are taken in before a deadline is believed although more are waiting: a flood must not keep time from
/// passing. More than any queue or socket holds after seconds of starvation.
const READ_MAX: usize = 2_048;

/// What became of one output.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow<I> {
    /// Done, or handed to somebody who will do it: go on with the next.
    Done,
    /// Done; feed this input when the batch is through.
    Feed(I),
    /// Failed, and what follows promised something that is now untrue: drop the rest of the batch and feed this input.
    /// This fences what must be on disk before: no process is started that is not recorded.
    Abort(I),
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<O> {
    /// Carry this out, and say by [`Drive::done`] what became of it.
    Run(O),
    /// A deadline has passed. Before it is believed, [`Drive::take`] in what waits, sockets included; once nothing does, say so
    /// by [`Drive::all_read`].
    Read,
    /// Wait for an input, or for that moment.
    Wait(Option<Instant>),
}

/// Drives one machine. Its time is what the caller reads from the clock for each call: a machine is never shown a time older
/// than the last thing that was waited for.
#[derive(Debug)]
pub struct Drive<M: Machine> {
    /// What is left of the batch, in its order.
    outputs: VecDeque<M::Output>,
    /// Where a machine appends to, kept for its capacity.
    fresh: Vec<M::Output>,
    /// Brought about by the batch, to be fed once it is through.
    fed: Vec<M::Input>,
    reading: Reading,
    /// What the machine was shown last.
    shown: Instant,
}

/// Whether what waits is being taken in because a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    No,
    /// So many more may be.
    Left(usize),
    Done,
}

impl<M: Machine> Default for Drive<M> {
    fn default() -> Self {
        Self {
            outputs: VecDeque::new(),
            fresh: Vec::new(),
            fed: Vec::new(),
            reading: Reading::No,
            shown: Instant::START,
        }
    }
}

impl<M: Machine> Drive<M> {
    /// What is to be done at `now`, as the clock says after whatever was waited for last.
    pub fn next(&mut self, machine: &mut M, now: Instant) -> Step<M::Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Step::Run(output);
            }
            if !self.fed.is_empty() {
                for input in std::mem::take(&mut self.fed) {
                    self.handle(machine, now, input);
                }
                continue;
            }
            let deadline = machine.deadline();
            if deadline.is_none_or(|deadline| deadline > now) {
                self.reading = Reading::No;
                return Step::Wait(deadline);
            }
            match self.reading {
                Reading::No => self.reading = Reading::Left(READ_MAX),
                Reading::Left(1..) => return Step::Read,
                Reading::Left(0) | Reading::Done => {
                    self.reading = Reading::No;
                    self.handle(machine, now, M::TICK);
                    debug_assert!(machine.deadline().is_none_or(|next| next > now), "a tick must move the deadline");
                }
            }
        }
    }

    /// Takes in an input. Only when [`Self::next`] has said to wait or to read.
    pub fn take(&mut self, machine: &mut M, now: Instant, input: M::Input) {
        debug_assert!(
            self.outputs.is_empty() && self.fed.is_empty(),
            "an input waits until the batch before it is through"
        );
        if let Reading::Left(left) = &mut self.reading {
            *left = left.saturating_sub(1);
        }
        self.handle(machine, now, input);
    }

    /// Nothing waits any more: a deadline that has passed may be believed.
    pub fn all_read(&mut self) {
        self.reading = Reading::Done;
    }

    /// What became of the output that [`Self::next`] gave last.
    pub fn done(&mut self, flow: Flow<M::Input>) {
        match flow {
            Flow::Done => {}
            Flow::Feed(input) => self.fed.push(input),
            Flow::Abort(input) => {
                self.outputs.clear();
                self.fed.push(input);
            }
        }
    }

    fn handle(&mut self, machine: &mut M, now: Instant, input: M::Input) {
        debug_assert!(now >= self.shown, "time never goes back");
        self.shown = now;
        machine.handle(now, input, &mut self.fresh);
        self.outputs.extend(self.fresh.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Notes what it is shown; wants a tick 5 ms after the last input, which it repeats.
    #[derive(Default)]
    struct Note {
        shown: Vec<(&'static str, Instant)>,
        due: Option<Instant>,
    }

    impl Machine for Note {
        type Input = &'static str;
        type Output = &'static str;
        const TICK: &'static str = "tick";

        fn handle(&mut self, now: Instant, input: &'static str, out: &mut Vec<&'static str>) {
            self.shown.push((input, now));
            self.due = (input != "tick").then(|| now + 5 * MS);
            match input {
                "vote" => out.extend(["store", "reply"]),
                "tick" | "refused" | "stored" => {}
                other => out.push(other),
            }
        }

        fn deadline(&self) -> Option<Instant> {
            self.due
        }
    }

    fn at(ms: u32) -> Instant {
        Instant::START + ms * MS
    }

    #[test]
    fn what_waits_goes_before_a_deadline_that_has_passed() {
        let (mut note, mut drive) = (Note::default(), Drive::default());
        drive.take(&mut note, at(0), "a");
        assert_eq!(drive.next(&mut note, at(0)), Step::Run("a"));
        drive.done(Flow::Done);
        assert_eq!(drive.next(&mut note, at(1)), Step::Wait(Some(at(5))));
        // Starved: the deadline has long passed, and an input that moves it waits.
        assert_eq!(drive.next(&mut note, at(400)), Step::Read);
        drive.take(&mut note, at(400), "b");
        assert_eq!(drive.next(&mut note, at(400)), Step::Run("b"));
        drive.done(Flow::Done);
        assert_eq!(drive.next(&mut note, at(401)), Step::Wait(Some(at(405))));
        assert_eq!(drive.next(&mut note, at(405)), Step::Read);
        drive.all_read();
        assert_eq!(drive.next(&mut note, at(406)), Step::Wait(None));
        assert_eq!(note.shown, [("a", at(0)), ("b", at(400)), ("tick", at(406))]);
    }

    #[test]
    fn no_time_is_shown_that_is_older_than_what_was_waited_for() {
        let (mut note, mut drive) = (Note::default(), Drive::default());
        drive.take(&mut note, at(0), "vote");
        assert_eq!(drive.next(&mut note, at(0)), Step::Run("store"));
        drive.done(Flow::Feed("stored"));
        assert_eq!(drive.next(&mut note, at(400)), Step::Run("reply"));
        drive.done(Flow::Done);
        assert_eq!(drive.next(&mut note, at(400)), Step::Wait(Some(at(405))));
        assert_eq!(note.shown, [("vote", at(0)), ("stored", at(400))]);
    }

    #[test]
    fn a_failed_store_fences_what_follows_it() {
        let (mut note, mut drive) = (Note::default(), Drive::default());
        drive.take(&mut note, at(0), "vote");
        assert_eq!(drive.next(&mut note, at(0)), Step::Run("store"));
        drive.done(Flow::Abort("refused"));
        assert_eq!(drive.next(&mut note, at(9)), Step::Wait(Some(at(14))));
        assert_eq!(note.shown.last(), Some(&("refused", at(9))));
    }

    #[test]
    fn a_flood_does_not_keep_time_from_passing() {
        /// Its deadline is not moved by what it hears.
        #[derive(Default)]
        struct Deaf(Option<usize>, usize);
        impl Machine for Deaf {
            type Input = bool;
            type Output = ();
            const TICK: bool = true;
            fn handle(&mut self, _: Instant, tick: bool, _: &mut Vec<()>) {
                if tick { self.0 = Some(self.1) } else { self.1 += 1 }
            }
            fn deadline(&self) -> Option<Instant> {
                self.0.is_none().then(|| at(1))
            }
        }
        let (mut deaf, mut drive) = (Deaf::default(), Drive::default());
        while drive.next(&mut deaf, at(2)) == Step::Read {
            drive.take(&mut deaf, at(2), false);
        }
        assert_eq!(deaf.0, Some(READ_MAX));
    }
}
