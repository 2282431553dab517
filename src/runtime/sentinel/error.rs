//! Why a sentinel does not run.

use std::io;
use std::net::SocketAddr;

use crate::runtime::store::StoreError;

/// Why the sentinel does not run.
#[derive(Debug, thiserror::Error)]
pub enum SentinelError {
    /// Somebody listens there already.
    #[error("sentinel: cannot listen on {address}: in use by another process; a redis-sentinel?")]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The port cannot be listened on.
    #[error("sentinel: cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its state cannot be read. To go on without it could mean a second vote in an epoch.
    #[error(transparent)]
    State(#[from] StoreError),
    /// No random id could be made.
    #[error("cannot make a random id: {0}")]
    Random(io::Error),
}
