//! What happens in the cluster of the demo: the events of all nodes as one list.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::operate::client;
use crate::runtime::clock::wall_ms;

/// Between two tries to ask a node that did not answer.
const RETRY: Duration = Duration::from_millis(150);
/// What several nodes find of one node within so many milliseconds is one event.
const SAME_MS: u64 = 1_000;
/// So many events are kept.
const KEPT: usize = 200;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Wall clock, milliseconds since 1970.
    pub(super) at_ms: u64,
    /// Who says it.
    pub(super) node: String,
    /// What.
    pub(super) text: String,
    /// Whether it was done here, and not by the cluster.
    pub(super) own: bool,
}

impl Event {
    /// Something that is said or done here, now.
    pub(super) fn own(who: &str, text: impl Into<String>) -> Self {
        Self { at_ms: wall_ms(), node: who.to_owned(), text: text.into(), own: true }
    }

    /// The time of day, UTC.
    pub(super) fn time(&self) -> impl fmt::Display + use<> {
        let (seconds, millis) = (self.at_ms / 1_000 % 86_400, self.at_ms % 1_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        fmt::from_fn(move |f| write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{millis:03}"))
    }
}

/// The latest events, in the order of the nodes' clocks, which are one.
pub(super) struct Events {
    kept: Mutex<VecDeque<Event>>,
    heard: Box<dyn Fn(&Event) + Send + Sync>,
}

impl Events {
    /// No events yet. Each one to come is given to `heard`, one at a time.
    pub(super) fn new(heard: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { kept: Mutex::default(), heard: Box::new(heard) }
    }

    /// What is kept, oldest first.
    pub(super) fn list(&self) -> Vec<Event> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Adds what is done here, or what one node alone can know.
    pub(super) fn tell(&self, event: Event) {
        self.add(event, false);
    }

    fn add(&self, event: Event, once: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |other: &Event| other.text == event.text && other.at_ms.abs_diff(event.at_ms) < SAME_MS;
        if once && kept.iter().any(same) {
            return;
        }
        (self.heard)(&event);
        // Nodes speak at almost the same time.
        let place = kept.iter().rposition(|other| other.at_ms <= event.at_ms).map_or(0, |before| before + 1);
        kept.insert(place, event);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }

    /// Follows the events of one node, over restarts of its worker, until `quit` is set. Blocks.
    pub(super) fn follow(&self, node: &str, runtime_dir: &Path, quit: &AtomicBool) {
        let mut newest = 0;
        while !quit.load(Ordering::Relaxed) {
            if let Ok(records) = client::events(runtime_dir, true) {
                // The stream begins with what is kept: known records are skipped.
                for record in records.map_while(Result::ok).skip_while(|record| record.at_ms <= newest) {
                    let text = format!("{} {}: {}", record.source, record.name, record.text);
                    // Every node says what it finds of the others: here one of them is enough.
                    let once = record.source == "cluster";
                    self.add(Event { at_ms: record.at_ms, node: node.to_owned(), text, own: false }, once);
                }
                newest = wall_ms();
            }
            thread::sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn event(at_ms: u64, text: &str) -> Event {
        Event { at_ms, node: "redis-01".to_owned(), text: text.to_owned(), own: false }
    }

    #[test]
    fn events_are_heard_as_they_come_and_listed_by_their_clocks() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let events = Events::new(move |event| ear.lock().unwrap().push(event.text.clone()));
        events.add(event(2_000, "b"), true);
        events.add(event(1_500, "a"), true);
        events.add(event(2_900, "b"), true);
        events.add(event(2_900, "b"), false);
        events.add(event(9_000, "b"), true);
        assert_eq!(*heard.lock().unwrap(), ["b", "a", "b", "b"]);
        let listed: Vec<_> = events.list().iter().map(|event| event.at_ms).collect();
        assert_eq!(listed, [1_500, 2_000, 2_900, 9_000], "the second b within a second was said already");
    }

    #[test]
    fn only_the_latest_are_kept() {
        let events = Events::new(|_| {});
        (0..KEPT as u64 + 5).for_each(|at| events.tell(event(at, "x")));
        assert_eq!((events.list().len(), events.list()[0].at_ms), (KEPT, 5));
    }

    #[test]
    fn the_time_is_that_of_the_day() {
        assert_eq!(event(86_400_000 + 45_296_789, "x").time().to_string(), "12:34:56.789");
    }
}
