//! How long this node's sentinel has promised leases for: one that is started with a shorter lease is bound by the longer promises of
//! before for as long as those last.

use std::path::Path;
use std::time::Duration;

use super::clock;
use super::journal::{Journal, Level};
use super::store::{Record, Store, StoreError, Unreadable};
use crate::config::Cluster;

/// The longest promise that may not have ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promised(Duration);

impl Record for Promised {
    const KIND: [u8; 2] = *b"le";
    const VERSION: u8 = 1;
    const WITHOUT: &'static str = "without it this sentinel may forget how long it has promised a master that nobody else takes writes: \
         move the file away only after that time";

    fn encode(&self) -> Result<(u8, Vec<u8>), postcard::Error> {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        Ok((1, postcard::to_allocvec(&micros)?))
    }

    fn decode(version: u8, body: &[u8]) -> Result<Self, Unreadable> {
        match version {
            1 => Ok(Self(Duration::from_micros(Unreadable::unless_whole(body)?))),
            _ => Err(Unreadable::version(version)),
        }
    }
}

/// The longest promise that this sentinel may be bound by when it starts with the leases of that file; and sees to it that it is
/// forgotten once it has ended. What cannot be read is taken for the longest one that the file allows. Needs a tokio runtime with
/// local tasks.
pub fn longest(state_dir: &Path, cluster: &Cluster, journal: &Journal) -> Duration {
    let told = |error: StoreError| journal.record("cluster", Level::Error, "lease-record", error.to_string());
    let (store, lease) = (Store::<Promised>::new(state_dir.join("lease.record")), cluster.lease);
    let before = match store.load() {
        Ok(before) => before,
        Err(error) => {
            told(error);
            return lease.max(cluster.down_after / 2);
        }
    };
    let longest = before.map_or(lease, |Promised(before)| before.max(lease));
    if before != Some(Promised(longest))
        && let Err(error) = store.save(&Promised(longest))
    {
        told(error);
    }
    if longest > lease {
        let journal = journal.clone();
        tokio::task::spawn_local(async move {
            // A tenth more: the promises were dated by another life of this clock.
            clock::sleep_until(Some(clock::now() + longest * 11 / 10)).await;
            if let Err(error) = store.save(&Promised(lease)) {
                journal.record("cluster", Level::Error, "lease-record", error.to_string());
            }
        });
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Credentials, Secret};
    use crate::config::Fencing;

    #[tokio::test]
    async fn a_longer_promise_of_before_is_kept_until_it_has_ended() {
        let ms = Duration::from_millis;
        let dir = tempfile::tempdir().unwrap();
        let (journal, local) = (Journal::new(), tokio::task::LocalSet::new());
        let cluster = |lease| Cluster {
            name: "mymaster".to_owned(),
            quorum: 1,
            credentials: Credentials::new("mymaster", Secret::new("password").into(), None),
            down_after: ms(1_000),
            busy_grace: ms(5_000),
            fencing: Fencing::Lease,
            fencing_said: true,
            lease,
            failover_timeout: ms(10_000),
        };
        let longest = |lease| longest(dir.path(), &cluster(lease), &journal);
        local
            .run_until(async {
                assert_eq!(longest(ms(100)), ms(100));
                assert_eq!(longest(ms(50)), ms(100));
                // Restarted again before that has ended.
                assert_eq!(longest(ms(20)), ms(100));
                let end = clock::now() + Duration::from_secs(20);
                while longest(ms(20)) != ms(20) {
                    assert!(clock::now() < end);
                    tokio::time::sleep(ms(5)).await;
                }
                assert_eq!(longest(ms(250)), ms(250));
                std::fs::write(dir.path().join("lease.record"), "nothing of ours").unwrap();
                assert_eq!(longest(ms(20)), ms(500), "the longest one that there may be");
            })
            .await;
    }

    #[test]
    fn the_layout_stays() {
        crate::runtime::store::tests::assert_layout(1, &[FIRST], &[Promised(Duration::from_millis(250))]);
    }

    /// What the first build with this layout has written.
    const FIRST: &str = "7669676965006c650103000000dbf1f12590a10f";
}
