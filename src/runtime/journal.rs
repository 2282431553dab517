//! The one stream of events of a node: kept in memory, shown by `vigie events`, written to the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::clock;

/// So many records are kept.
const KEPT: usize = 1_000;
/// A follower that falls further behind than this many records misses the oldest of them.
const FOLLOWER_LAG_MAX: usize = 256;

/// How much a person should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something changed as it should.
    Info,
    /// Something is degraded; vigie acts by itself.
    Warn,
    /// A person must act.
    Error,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Wall clock of the node, milliseconds since 1970.
    pub at_ms: u64,
    /// The part that speaks: `vrrp`, `sentinel`, `proxy`, `redis`, `cluster`, `guard`, `worker`.
    pub source: String,
    /// How much it matters.
    pub level: Level,
    /// Stable name of the event, such as `+switch-master` or `became-master`.
    pub name: String,
    /// What happened, for a person.
    pub text: String,
}

/// A handle on the stream; clones are the same stream.
#[derive(Clone, Debug)]
pub struct Journal {
    kept: Arc<Mutex<VecDeque<Record>>>,
    followers: broadcast::Sender<Record>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    /// An empty stream.
    pub fn new() -> Self {
        Self { kept: Arc::default(), followers: broadcast::channel(FOLLOWER_LAG_MAX).0 }
    }

    /// Appends an event and logs it.
    pub fn record(&self, source: &str, level: Level, name: &str, text: impl Into<String>) {
        let text = text.into();
        match level {
            Level::Info => tracing::info!(source, name, "{text}"),
            Level::Warn => tracing::warn!(source, name, "{text}"),
            Level::Error => tracing::error!(source, name, "{text}"),
        }
        let record = Record { at_ms: clock::wall_ms(), source: source.to_owned(), level, name: name.to_owned(), text };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(record.clone());
        // Nobody follows: nothing to do.
        let _ = self.followers.send(record);
    }

    /// What is kept, oldest first, and the stream of what follows it without a gap.
    pub fn follow(&self) -> (Vec<Record>, broadcast::Receiver<Record>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().cloned().collect(), self.followers.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_get_what_was_and_what_comes() {
        let journal = Journal::new();
        for n in 0..KEPT + 5 {
            journal.record("worker", Level::Info, "n", n.to_string());
        }
        let (kept, mut coming) = journal.follow();
        assert_eq!((kept.len(), kept[0].text.as_str()), (KEPT, "5"));
        journal.record("worker", Level::Warn, "late", "x");
        assert_eq!(coming.recv().await.map(|record| record.name), Ok("late".to_owned()));
    }
}
