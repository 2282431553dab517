//! A core in virtual time, among surroundings that answer it.

use std::collections::VecDeque;
use std::time::Duration;

use vigie::base::{Instant, Machine};

/// When every core starts. Not zero, because no machine has just been switched on when
/// a core starts.
pub(crate) const BEGIN: Instant = Instant::from_millis(1_000_000);

/// Whether something answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Up,
    /// Connected, and says nothing; who speaks again answers first what it owes.
    Silent,
    /// Its connections are closed, and it cannot be connected to.
    Down,
}

impl Line {
    /// By its name.
    pub(crate) fn of(word: &str) -> Option<Self> {
        match word {
            "up" => Some(Self::Up),
            "silent" => Some(Self::Silent),
            "down" => Some(Self::Down),
            _ => None,
        }
    }
}

/// What a core stands among.
pub(crate) trait Surroundings {
    /// The core.
    type Core: Machine;

    /// How the transcript calls an output; none: it is not shown.
    fn render(&self, output: &<Self::Core as Machine>::Output) -> Option<String>;

    /// What comes back at once.
    fn answer(&mut self, output: <Self::Core as Machine>::Output) -> Option<<Self::Core as Machine>::Input>;
}

/// A core and its surroundings.
pub(crate) struct Stage<S: Surroundings> {
    /// The core.
    pub(crate) core: S::Core,
    /// What it stands among.
    pub(crate) around: S,
    now: Instant,
    /// Where the transcript counts from.
    zero: Instant,
}

impl<S: Surroundings> Stage<S> {
    /// At [`BEGIN`].
    pub(crate) fn new(core: S::Core, around: S) -> Self {
        Self { core, around, now: BEGIN, zero: BEGIN }
    }

    /// Feeds one input and what the surroundings answer; returns the transcript.
    pub(crate) fn give(&mut self, input: <S::Core as Machine>::Input) -> Vec<String> {
        let mut lines = Vec::new();
        let mut waiting = VecDeque::from([input]);
        while let Some(input) = waiting.pop_front() {
            let mut out = Vec::new();
            self.core.handle(self.now, input, &mut out);
            for output in out {
                lines.extend(self.around.render(&output).map(|text| line(self.now, self.zero, &text)));
                waiting.extend(self.around.answer(output));
            }
        }
        lines
    }

    /// The story begins now: what was done so far set the scene.
    pub(crate) fn begin(&mut self) {
        self.zero = self.now;
    }

    /// Lets time pass until the next deadline, if there is one.
    pub(crate) fn wait(&mut self) {
        let time = self.core.deadline().map_or(Duration::ZERO, |due| due.since(self.now));
        self.pass(time);
    }

    /// When the next deadline is.
    pub(crate) fn deadline(&self) -> String {
        let time = |due: Instant| (Instant::START + due.since(self.zero)).to_string();
        self.core.deadline().map_or_else(|| "none".to_owned(), time)
    }

    /// Lets time pass, with a tick at each deadline on the way.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        let mut lines = Vec::new();
        while let Some(due) = self.core.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            lines.extend(self.give(S::Core::TICK));
            assert!(self.core.deadline().is_none_or(|next| next > self.now), "the tick did not move the deadline");
        }
        self.now = end;
        lines
    }
}

/// A line of a transcript that counts from `zero`.
pub(crate) fn line(now: Instant, zero: Instant, text: &str) -> String {
    format!("{} {text}", Instant::START + now.since(zero))
}
