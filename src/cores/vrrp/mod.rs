//! A virtual router: decides which node of a segment holds the virtual addresses (RFC 9568 §6, RFC 3768 §6).
//!
//! ```text
//!              link and proxy good              master silent, or it left
//!  Initialize ────────────────────▶ Backup ───────────────────────────────▶ Master
//!      ▲                              │ ▲                                     │ │
//!      │ link down, proxy unable,     │ │ advert of higher priority           │ │
//!      └──────────────────────────────┘ └─────────────────────────────────────┘ │
//!      └─ the same, or the kernel refuses the addresses; says priority 0 ◀──────┘
//! ```
//! Health is not priority: a router that cannot serve leaves the election at once, whatever `preempt` says. It never
//! opens a socket and never trusts that an address is set before the kernel has said so.
//!
//! # Whose adverts count
//!
//! Those of the proxies of the cluster file and of the routers in `vip.peers`, and no other: anybody on the segment can send
//! one, and one alone would take the addresses from the router that serves them. An advert in a proxy's name is held against what
//! the proxy says over the peer link, which proves who speaks:
//!
//! | the link says of that proxy | its advert | its farewell |
//! |---|---|---|
//! | nothing of late ([`Word::Silent`]) | counts | counts; if another proxy says that it holds the addresses, it is asked first |
//! | it does not hold the addresses, or it is lost ([`Word::Idle`]) | counts for 700 ms in a backup, not at all in a master | counts unless another holds them |
//! | it holds them ([`Word::Holds`]) | counts | it is asked first |
//!
//! To ask is to send a farewell: a master answers it at once (RFC 9568 §6.4.3), and nobody else does. The link never makes a
//! backup wait: it takes over from a silent master whatever is said. And it counts its own interval: one that is learnt from
//! a packet could be 40.95 s, or too short for the master that lives.

mod event;
mod router;
mod sabotage;
mod trust;

use std::net::IpAddr;
use std::time::Duration;

pub use event::{Event, Refusal, Why};
pub use router::Router;
pub use sabotage::Rule;
pub use trust::Word;

use crate::base::Instant;
use crate::wire::arp::Mac;
use crate::wire::vrrp::{Advert, ChecksumForm, Interval, Malformed, Received};

/// What a virtual router is told by the cluster file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// 1–255, one per segment.
    pub virtual_router_id: u8,
    /// 1–254. The highest that can serve holds the addresses.
    pub priority: u8,
    /// Between own adverts; its unit says the version of the protocol.
    pub interval: Interval,
    /// Whether to take over from a working master of lower priority.
    pub preempt: bool,
    /// The virtual addresses, at least one, all of one family.
    pub addresses: Vec<IpAddr>,
    /// This node's address in the file.
    pub own_address: IpAddr,
    /// Those of the other proxies of the file.
    pub proxies: Vec<IpAddr>,
    /// Other routers whose adverts count. The peer link knows nothing of them.
    pub peers: Vec<IpAddr>,
}

/// Where a router stands. Each state owns its clocks, so no stray timer can exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes no part.
    Initialize {
        /// When to try again after the kernel refused the addresses; none: waits for link, proxy or nothing at all.
        retry_at: Option<Instant>,
    },
    /// Listens to the master.
    Backup {
        /// When its silence has lasted too long.
        master_down_at: Instant,
        /// The master that said that it gives up, if it did.
        left: Option<IpAddr>,
    },
    /// Holds the addresses.
    Master {
        /// When the next advert is due.
        advert_at: Instant,
        /// When one last answered somebody.
        answered_at: Option<Instant>,
        /// When the addresses must be renewed.
        renew_at: Instant,
        /// When the kernel last said that they are set; on entry, the entry.
        held_at: Instant,
        /// When they are announced to the segment.
        announce: Announce,
    },
}

/// When to announce the addresses. Frames get lost, and after a split the loser's may have come last: so several
/// rounds, and a slow refresh for as long as the router is master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Not before the kernel says that the addresses are set.
    Waiting,
    /// The next of the rounds, by its number.
    Due {
        /// When.
        at: Instant,
        /// Which pause of the plan comes after it.
        round: usize,
        /// When the last one was.
        last: Instant,
    },
}

/// What a router is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Only time has passed.
    Tick,
    /// An advert came.
    Advert(Received),
    /// Something came that is none.
    Malformed(Malformed),
    /// What the peer link says of the other proxies now. Those left out are silent.
    Proxies(Vec<(IpAddr, Word)>),
    /// Somebody else has told the segment that this virtual address is at its Ethernet address.
    Claim {
        /// The virtual address.
        address: IpAddr,
        /// Where it is said to be.
        mac: Mac,
    },
    /// The interface is up and this is its primary address; or why it cannot be used.
    Link(Result<IpAddr, String>),
    /// Whether clients could be served here, and if not, why.
    Usable(Result<(), String>),
    /// The kernel's answer to the last [`Output::Hold`].
    Vip(Result<(), String>),
    /// Leave for good.
    Stop,
}

/// What a router asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this advert from the primary address.
    Advertise(Advert, ChecksumForm),
    /// What the addresses should be from now on; said again while it stays so, and answered by [`Input::Vip`].
    Hold(Hold),
    /// Announce all addresses to the segment, once.
    Announce,
    /// Tell people.
    Publish(Event),
}

/// Desired state of the virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// On the interface, for [`HOLD_LIFETIME`] from now.
    Held,
    /// Not on the interface.
    Released,
}

/// The kernel drops an address that was not renewed for so long.
pub const HOLD_LIFETIME: Duration = Duration::from_secs(3);
/// How often a master renews its addresses: two renewals may be lost.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
