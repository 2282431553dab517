//! Version 4: the frame of version 3, and what the lease of the master needs. What stands behind is not looked at.

use std::time::Duration;

use heapless::Vec;
use serde::{Deserialize, Serialize};

use super::content::{self, Unreadable};
use super::v2;
use crate::base::{Instant, lease, node};

pub(super) const VERSION: u8 = 4;

#[derive(Serialize, Deserialize)]
struct Frame {
    reads: u8,
    frame: v2::Frame,
    grant: Option<Grant>,
    /// µs
    left: u32,
    tenure: Tenure,
    terms: Terms,
    hears_majority: bool,
    draining: bool,
    /// In the order of the masters of the sentinel.
    masters: Vec<Master, 4>,
    /// Of the proxy.
    held: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Grant {
    incarnation: u64,
    epoch: u64,
    stamp: u64,
    /// µs
    lease: u32,
}

#[derive(Serialize, Deserialize)]
enum Tenure {
    None,
    /// The slack in µs.
    Asks {
        epoch: u64,
        open: Option<u64>,
        grants: u32,
        slack: u32,
    },
    Released {
        epoch: u64,
        at: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Terms {
    voters: u32,
    /// µs
    lease: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct Master {
    target: Option<u64>,
    mode: Mode,
}

#[derive(Serialize, Deserialize)]
enum Mode {
    Unfenced,
    Fenced,
    TakenOver,
    Unsaid,
}

pub(super) fn encode<'a>(frame: &content::Frame, to: &'a mut [u8]) -> Option<&'a [u8]> {
    let state = &frame.state;
    let masters = state.sentinel.iter().flat_map(|sentinel| &sentinel.masters);
    let frame = Frame {
        reads: frame.reads,
        frame: frame.clone().into(),
        grant: frame.grant.map(Into::into),
        left: micros(frame.left),
        tenure: state.tenure.into(),
        terms: state.terms.into(),
        hears_majority: state.hears_majority,
        draining: state.draining,
        masters: masters.map(|master| Master { target: master.target, mode: master.mode.into() }).collect(),
        held: state.proxy.and_then(|proxy| proxy.held),
    };
    postcard::to_slice(&frame, to).ok().map(|bytes| &*bytes)
}

pub(super) fn decode(body: &[u8]) -> Result<content::Frame, Unreadable> {
    let (said, _) = postcard::take_from_bytes::<Frame>(body).map_err(Unreadable::Layout)?;
    let mut frame = said.frame.of_sender(VERSION.max(said.reads))?;
    frame.grant = said.grant.map(Into::into);
    frame.left = duration(said.left);
    let state = &mut frame.state;
    (state.tenure, state.terms) = (said.tenure.into(), said.terms.into());
    (state.hears_majority, state.draining) = (said.hears_majority, said.draining);
    let masters = state.sentinel.iter_mut().flat_map(|sentinel| &mut sentinel.masters);
    for (master, more) in masters.zip(said.masters) {
        (master.target, master.mode) = (more.target, more.mode.into());
    }
    if let Some(proxy) = &mut state.proxy {
        proxy.held = said.held;
    }
    Ok(frame)
}

/// The longest that fits is over an hour, which no lease is.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn duration(micros: u32) -> Duration {
    Duration::from_micros(micros.into())
}

impl From<lease::Grant> for Grant {
    fn from(lease::Grant { incarnation, epoch, stamp, lease }: lease::Grant) -> Self {
        Self { incarnation, epoch, stamp: stamp.as_micros(), lease: micros(lease) }
    }
}

impl From<Grant> for lease::Grant {
    fn from(Grant { incarnation, epoch, stamp, lease }: Grant) -> Self {
        Self { incarnation, epoch, stamp: Instant::from_micros(stamp), lease: duration(lease) }
    }
}

impl From<lease::Tenure> for Tenure {
    fn from(tenure: lease::Tenure) -> Self {
        match tenure {
            lease::Tenure::None => Self::None,
            lease::Tenure::Asks { epoch, open, grants, slack } => {
                Self::Asks { epoch, open, grants, slack: micros(slack) }
            }
            lease::Tenure::Released { epoch, at } => Self::Released { epoch, at: at.as_micros() },
        }
    }
}

impl From<Tenure> for lease::Tenure {
    fn from(tenure: Tenure) -> Self {
        match tenure {
            Tenure::None => Self::None,
            Tenure::Asks { epoch, open, grants, slack } => Self::Asks { epoch, open, grants, slack: duration(slack) },
            Tenure::Released { epoch, at } => Self::Released { epoch, at: Instant::from_micros(at) },
        }
    }
}

impl From<Option<node::Mode>> for Mode {
    fn from(mode: Option<node::Mode>) -> Self {
        match mode {
            Some(node::Mode::Unfenced) => Self::Unfenced,
            Some(node::Mode::Fenced) => Self::Fenced,
            Some(node::Mode::TakenOver) => Self::TakenOver,
            None => Self::Unsaid,
        }
    }
}

impl From<Mode> for Option<node::Mode> {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Unfenced => Some(node::Mode::Unfenced),
            Mode::Fenced => Some(node::Mode::Fenced),
            Mode::TakenOver => Some(node::Mode::TakenOver),
            Mode::Unsaid => None,
        }
    }
}

impl From<lease::Terms> for Terms {
    fn from(lease::Terms { voters, lease }: lease::Terms) -> Self {
        Self { voters, lease: lease.map(micros) }
    }
}

impl From<Terms> for lease::Terms {
    fn from(Terms { voters, lease }: Terms) -> Self {
        Self { voters, lease: lease.map(duration) }
    }
}
