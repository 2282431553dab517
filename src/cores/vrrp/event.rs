//! What a virtual router tells people.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::node::VipState;
use crate::wire::arp::{self, Mac};
use crate::wire::vrrp::Interval;

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It went from one state to another.
    Became {
        /// The state left.
        from: VipState,
        /// The state entered.
        to: VipState,
        /// What brought it about.
        why: Why,
    },
    /// Still in [`VipState::Initialize`], now for this reason.
    Waiting {
        /// What it waits for.
        why: Why,
    },
    /// A packet does not count. Told at the 1st, 10th, 100th… of its reason, and now and then while they come.
    Refused {
        /// Where it came from, if that is known.
        from: Option<IpAddr>,
        /// Why.
        reason: Refusal,
        /// How many of this reason there were.
        count: u64,
    },
    /// While master, another master of lower rank was heard: the segment was or is split. Told at the 1st, 10th, 100th…
    /// of its adverts since this router became master.
    Conflict {
        /// The other master.
        peer: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// A peer of the same virtual router has other addresses than this node: a mistake in a configuration.
    AddressesDiffer {
        /// The peer.
        peer: IpAddr,
        /// Its addresses.
        theirs: Vec<IpAddr>,
    },
    /// A router in version 3 has another interval: a mistake in a configuration, for each counts its own.
    IntervalDiffers {
        /// The peer.
        peer: IpAddr,
        /// Its interval.
        theirs: Interval,
        /// This router's.
        ours: Interval,
    },
    /// While master, somebody else was heard who tells the segment that a virtual address is his. Told like refusals.
    Claimed {
        /// The address.
        address: IpAddr,
        /// Where it is said to be.
        mac: Mac,
        /// How often that was said since this router became master.
        count: u64,
    },
}

/// Why a state was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Interface and proxy have not been heard of yet.
    Starting,
    /// Interface and proxy are good.
    Ready,
    /// No advert for so long.
    MasterSilent {
        /// Three intervals and the skew.
        for_: Duration,
    },
    /// Adverts come in the name of a proxy which does not say that it holds the addresses.
    NotHeld {
        /// In whose name.
        peer: IpAddr,
    },
    /// The master said that it gives up.
    MasterLeft {
        /// It.
        peer: IpAddr,
    },
    /// A router of higher priority, or of the same and a higher address, is master.
    Outranked {
        /// It.
        peer: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// The interface cannot be used.
    Link(String),
    /// No client could be served here.
    Unusable(String),
    /// The kernel does not set the addresses.
    Vip(String),
    /// Told to stop.
    Stopped,
}

/// Why a packet does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no advert; in words.
    Malformed(&'static str, String),
    /// Its TTL or hop limit is not 255: it was forwarded, or comes from somebody who is not on the segment.
    HopLimit(u8),
    /// It is about another virtual router, which is no fault.
    VirtualRouterId(u8),
    /// It is of another version of the protocol.
    Version(u8),
    /// Version 2: its interval differs (RFC 3768 §7.1).
    Interval(Interval),
    /// It carries a password and none is configured.
    Authentication,
    /// It carries this node's own address.
    Own,
    /// Its sender is nobody whose adverts count.
    Stranger,
    /// Its sender claims to own the addresses for good, which no proxy does.
    Owner,
    /// The proxy in whose name it came does not say over the peer link that it holds the addresses.
    NotHolding,
}

impl Refusal {
    /// A stable name for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(name, _) => name,
            Self::HopLimit(_) => "hop-limit",
            Self::VirtualRouterId(_) => "other-router",
            Self::Version(_) => "other-version",
            Self::Interval(_) => "other-interval",
            Self::Authentication => "authentication",
            Self::Own => "own",
            Self::Stranger => "stranger",
            Self::Owner => "owner",
            Self::NotHolding => "not-holding",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(_, text) => f.write_str(text),
            Self::HopLimit(limit) => write!(f, "its TTL is {limit} and not 255: it does not come from this segment"),
            Self::VirtualRouterId(id) => write!(f, "it is about virtual router {id}"),
            Self::Version(version) => write!(f, "it is of VRRP version {version}, which is not the configured one"),
            Self::Interval(interval) => {
                write!(f, "its interval is {interval}, which is not the configured one; version 2 requires the same")
            }
            Self::Authentication => f.write_str("it carries a password, and none is configured here"),
            Self::Own => f.write_str("it carries this node's own address as its source"),
            Self::Stranger => f.write_str("not a proxy of the cluster file nor in vip.peers"),
            Self::Owner => f.write_str("priority 255 is of a router that owns the address, which no proxy does"),
            Self::NotHolding => f.write_str(
                "that proxy does not say over the peer link that it holds the address; somebody sends in its name",
            ),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ready => f.write_str("interface and proxy are good"),
            Self::MasterSilent { for_ } => write!(f, "no advert of a master for {for_:?}"),
            Self::NotHeld { peer } => {
                write!(f, "nobody holds the address: adverts come from {peer}, but no proxy says that it is master")
            }
            Self::MasterLeft { peer } => write!(f, "{peer} gave up being master"),
            Self::Outranked { peer, priority } => write!(f, "{peer} is master with priority {priority}"),
            Self::Link(reason) => f.write_str(reason),
            Self::Unusable(reason) => write!(f, "clients cannot be served: {reason}"),
            Self::Vip(reason) => write!(f, "the addresses cannot be set: {reason}"),
            Self::Stopped => f.write_str("told to stop"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Became { from, to, why } => write!(f, "{from:?} to {to:?}: {why}"),
            Self::Waiting { why } => write!(f, "takes no part: {why}"),
            Self::Refused { from: Some(from), reason, count } => {
                write!(f, "advert from {from} refused: {reason} ({count} so far)")
            }
            Self::Refused { from: None, reason, count } => {
                write!(f, "a packet is refused: {reason} ({count} so far)")
            }
            Self::Conflict { peer, priority } => {
                write!(f, "{peer} is master too, with priority {priority}: the segment was split")
            }
            Self::AddressesDiffer { peer, theirs } => {
                write!(f, "{peer} has other addresses for this virtual router: {theirs:?}")
            }
            Self::IntervalDiffers { peer, theirs, ours } => write!(
                f,
                "{peer} sends an advert every {theirs}, and this node expects one every {ours}: give both the same"
            ),
            Self::Claimed { address, mac, count } => write!(
                f,
                "{} tells the segment that {address} is there; it was told again that it is here ({count} so far)",
                arp::text(*mac)
            ),
        }
    }
}
