//! What was refused lately, as `ACL LOG` shows it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::Instant;
use crate::wire::resp::{Reply, Rich};

use super::reply::bulk;

/// The same refusal within this time is counted, not kept again.
const GROUP: Duration = Duration::from_secs(60);
/// Longest name or object that is kept of a refusal, bytes.
const OBJECT_MAX: usize = 256;

/// All that are remembered, the latest first.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Refusal>);

/// Something that was refused.
#[derive(Debug)]
struct Refusal {
    reason: &'static str,
    object: String,
    user: String,
    count: i64,
    at: Instant,
    client: String,
}

impl Refusals {
    /// Remembers one; at most `max` are kept. `client`: its line in `CLIENT LIST`.
    pub(super) fn add(
        &mut self,
        reason: &'static str,
        (mut object, mut user): (String, String),
        client: String,
        max: usize,
        now: Instant,
    ) {
        for text in [&mut object, &mut user] {
            text.truncate(text.floor_char_boundary(OBJECT_MAX));
        }
        let alike = |known: &Refusal| {
            (known.reason, &known.object, &known.user) == (reason, &object, &user) && now.since(known.at) <= GROUP
        };
        let count = match self.0.iter().position(alike) {
            Some(at) => self.0.remove(at).map_or(0, |known| known.count),
            None => 0,
        };
        self.0.push_front(Refusal { reason, object, user, count: count + 1, at: now, client });
        self.0.truncate(max);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The latest ones.
    pub(super) fn show(&self, count: usize, now: Instant) -> Reply {
        Reply::Array(self.0.iter().take(count).map(|entry| entry.show(now)).collect())
    }
}

impl Refusal {
    fn show(&self, now: Instant) -> Reply {
        let age = now.since(self.at).as_millis();
        Reply::map([
            ("count", Reply::Integer(self.count)),
            ("reason", bulk(self.reason)),
            ("context", bulk("toplevel")),
            ("object", bulk(self.object.clone())),
            ("username", bulk(self.user.clone())),
            ("age-seconds", Reply::Rich(Rich::Double(format!("{}.{:03}", age / 1_000, age % 1_000)))),
            ("client-info", bulk(self.client.clone())),
        ])
    }
}
