//! The lease of the master: what a redis asks for and what sentinels promise, as the frames of the peer link carry it.
//!
//! The holder is one process of a redis: the incarnation names it, and the node with it. All of this speaks of the one master of
//! the cluster.

use std::time::Duration;

use super::{Epoch, Instant};

/// A sentinel's promise to one process: "until `lease` after I received your stamp I grant nobody else".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Of whom: see [`crate::base::node::incarnation`].
    pub incarnation: u64,
    /// The epoch in which it was elected.
    pub epoch: Epoch,
    /// The stamp of its frame that this answers, by its own clock.
    pub stamp: Instant,
    /// The length of the promise, by the sentinel's clock.
    pub lease: Duration,
}

/// What a node says of the lease of its redis. A frame either asks for it or gives it back, never both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tenure {
    /// Neither: its redis is no master, or its cluster is not fenced.
    #[default]
    None,
    /// Its redis is the master of that epoch, or is about to be: whoever granted it does so again.
    Asks {
        /// The epoch in which it was elected.
        epoch: Epoch,
        /// The epoch of the lease that it holds, if its redis takes writes: that one, or the one before while grants of it are
        /// still missing.
        open: Option<Epoch>,
        /// The sentinels whose grants it has, in the order of their names: bit 0 is the first one.
        grants: u32,
        /// The shortest time that was left before the fence would have begun, since it took the lease.
        slack: Duration,
    },
    /// Its redis has refused writes since `at`, by its own clock, and every grant for a stamp up to then is given back.
    Released {
        /// The epoch in which it was elected.
        epoch: Epoch,
        /// When its redis had confirmed that.
        at: Instant,
    },
}

impl Tenure {
    /// The epoch of the lease by which the redis takes writes.
    pub fn open(self) -> Option<Epoch> {
        match self {
            Self::Asks { open, .. } => open,
            Self::None | Self::Released { .. } => None,
        }
    }

    /// The epoch of the lease that has got at least so many grants, while the redis does not take writes.
    pub fn waits(self, majority: usize) -> Option<Epoch> {
        match self {
            Self::Asks { epoch, open: None, grants, .. } if grants.count_ones() as usize >= majority => Some(epoch),
            Self::Asks { .. } | Self::None | Self::Released { .. } => None,
        }
    }
}

/// What a majority has promised, as its holder counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The stamp that was answered by the promise of the majority that ends first.
    pub from: Instant,
    /// The length of that promise.
    pub length: Duration,
}

impl Lease {
    /// When it begins to refuse writes, unless it was renewed.
    pub fn fence_at(self) -> Instant {
        self.after(70)
    }

    /// When a redis that has not confirmed by then that it refuses writes is killed.
    pub fn kill_at(self) -> Instant {
        self.after(86)
    }

    /// When nothing may be acknowledged any more. A tenth is left for clocks of different rates.
    pub fn ends_at(self) -> Instant {
        self.after(90)
    }

    fn after(self, percent: u32) -> Instant {
        self.from + self.length * percent / 100
    }
}

/// What a majority has promised to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of whom: see [`crate::base::node::incarnation`].
    pub incarnation: u64,
    /// The epoch in which it was elected.
    pub epoch: Epoch,
    /// For how long.
    pub lease: Lease,
}

/// What the redis of this node does with writes, by its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It refuses them.
    Refused,
    /// It takes them, for as long as its lease lasts.
    Taken,
    /// It takes them without a lease: its cluster is not fenced.
    Unleased,
    /// It refuses them since `at`, to make room for another one: what it was promised until then is given back.
    Returned {
        /// When it had confirmed that.
        at: Instant,
    },
}

/// What the file of a node says of the voters. Between nodes of which it is not the same there is no vote and no grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// A checksum of the names and addresses of the sentinels.
    pub voters: u32,
    /// The lease; none: `fencing = "off"`.
    pub lease: Option<Duration>,
}

/// What the file of a node says of the voters and of leases, beside the one here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileTerms {
    /// It has not said so: it may be of an older build, which knows of no leases.
    #[default]
    Unknown,
    /// Other voters: no vote of either counts for the other.
    OtherVoters,
    /// The same voters.
    Same {
        /// Whether it asks for leases.
        fencing: bool,
    },
}

impl Terms {
    /// What they say beside those of the file here.
    pub fn beside(self, own: Self) -> FileTerms {
        if self == Self::default() {
            FileTerms::Unknown
        } else if self.voters == own.voters {
            FileTerms::Same { fencing: self.lease.is_some() }
        } else {
            FileTerms::OtherVoters
        }
    }
}
