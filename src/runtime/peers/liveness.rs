//! Whether the roles of this node still run: the link repeats their last words, which must not outlive them for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::Instant;
use crate::runtime::clock;

/// The link is silent for roles that have not shown themselves for so long. As long as others wait for a redis that is alive and busy by
/// default: a host under load is not a lost one.
const SPEAKS_FOR: Duration = Duration::from_secs(5);
/// Between two signs.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// Nobody has promised to show itself.
const NOBODY: u64 = u64::MAX;

/// Shared by the link and the thread of the roles.
#[derive(Clone, Debug)]
pub struct Liveness(Arc<AtomicU64>);

impl Liveness {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(NOBODY)))
    }

    /// Shows again and again that the thread that drives this future runs. Once it has begun, the link is silent soon after the thread
    /// stands still.
    pub async fn show(self) {
        loop {
            self.0.store(clock::now().as_micros(), Ordering::Relaxed);
            tokio::time::sleep(SIGN_EVERY).await;
        }
    }

    /// Whether the link may speak for the roles.
    pub(super) fn lasts(&self) -> bool {
        let shown = self.0.load(Ordering::Relaxed);
        shown == NOBODY || clock::now().since(Instant::from_micros(shown)) < SPEAKS_FOR
    }
}
