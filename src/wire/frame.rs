//! The frame of the peer link: what a node says of itself to every other node.
//!
//! ```text
//!  0        1                                 n                    n+32
//!  +--------+---------------------------------+----------------------+
//!  | version| layout of that version, postcard| HMAC-SHA256 of 0..n  |
//!  +--------+---------------------------------+----------------------+
//! ```
//! A frame is whole state, never a delta, so that a lost one heals itself. The tag is of the bytes before it and of the name of
//! the receiver, under a key derived from the cluster's own secret: what was sent to one node convinces no other, and nobody by
//! being sent back. `heard` is what the age of a frame is known by: its sender had heard that stamp of the receiver.
//!
//! Each version has a layout of its own, which never changes once it was released. A node speaks to each other one the highest
//! version that both read, and the [`OLDEST`] until it has heard what that is: every frame says what its sender reads. So
//! version 2 has to be read as long as builds of version 3 are, which begin with it.

mod content;
mod v2;
mod v3;
mod v4;

use std::fmt;

use heapless::Vec;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub use content::{Frame, Unreadable};

use crate::base::{NodeName, Secrets};

/// The newest version that is read and spoken.
pub const NEWEST: u8 = v4::VERSION;
/// The oldest version that is read and spoken. Version 1 was signed with the applications' password, and is refused.
pub const OLDEST: u8 = v2::VERSION;
/// A frame never exceeds this many bytes, so that it goes unfragmented wherever IPv6 goes (RFC 8200 §5: 1,280 bytes with the
/// headers). What older versions can say is shorter than the 1,200 bytes that their builds take.
pub const FRAME_MAX: usize = 1_232;
const TAG_LEN: usize = 32;

/// Why a datagram is not a frame of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a version byte and a tag, or longer than [`FRAME_MAX`].
    #[error("{0} bytes are no frame: {min} to {FRAME_MAX} are expected", min = 1 + TAG_LEN)]
    Length(usize),
    /// A version of the frame that this build does not read.
    #[error("frame version {0} is not read here, only {OLDEST} to {NEWEST}: update vigie on {which}", which = behind(*.0))]
    Version(u8),
    /// The tag does not match: another secret, another receiver, or a changed frame.
    #[error("the frame is not authentic: its sender has another secret, or it was changed or redirected on its way")]
    Tag,
    /// Authentic and yet not readable.
    #[error("the frame is authentic but not readable: {0}")]
    Content(Unreadable),
}

/// Where vigie is too old for that version.
fn behind(version: u8) -> &'static str {
    if version < OLDEST { "the node that sent it" } else { "this node" }
}

/// The version to speak to a node that reads up to `reads`.
pub fn spoken_to(reads: u8) -> u8 {
    reads.clamp(OLDEST, NEWEST)
}

/// The keys of the link: frames are signed with the current one, and believed with either.
#[derive(Clone)]
pub struct Keys {
    current: Hmac<Sha256>,
    other: Option<Hmac<Sha256>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

impl Keys {
    /// From what the cluster's credentials have for [`Purpose::Link`](crate::base::Purpose::Link).
    pub fn new(secrets: &Secrets) -> Self {
        let mut keys = secrets.accepted().map(|secret| mac(secret.reveal().as_bytes()));
        let current = keys.next().unwrap_or_else(|| mac(secrets.current().reveal().as_bytes()));
        Self { current, other: keys.next() }
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// Encodes a frame in the layout of the version [`spoken_to`] a node that reads up to `reads`, and signs it for the node of that
/// name. None if it does not fit, which the bounded fields exclude.
pub fn emit(frame: &Frame, reads: u8, keys: &Keys, to: &NodeName) -> Option<Vec<u8, FRAME_MAX>> {
    let mut body = [0; FRAME_MAX];
    let version = spoken_to(reads);
    let body = match version {
        v2::VERSION => v2::encode(frame, &mut body),
        v3::VERSION => v3::encode(frame, &mut body),
        _ => v4::encode(frame, &mut body),
    }?;
    let mut bytes = Vec::new();
    bytes.push(version).ok()?;
    bytes.extend_from_slice(body).ok()?;
    let tag = signed(&keys.current, &bytes, to).finalize().into_bytes();
    bytes.extend_from_slice(&tag).ok()?;
    Some(bytes)
}

/// The name stands behind the frame, which says itself where it ends.
fn signed(key: &Hmac<Sha256>, bytes: &[u8], to: &NodeName) -> Hmac<Sha256> {
    let mut tag = key.clone();
    tag.update(bytes);
    tag.update(to.as_str().as_bytes());
    tag
}

/// Checks and decodes a datagram that came to the node of that name.
pub fn parse(bytes: &[u8], keys: &Keys, me: &NodeName) -> Result<Frame, Malformed> {
    if bytes.len() <= TAG_LEN || bytes.len() > FRAME_MAX {
        return Err(Malformed::Length(bytes.len()));
    }
    let decode = match bytes[0] {
        v2::VERSION => v2::decode,
        v3::VERSION => v3::decode,
        v4::VERSION => v4::decode,
        other => return Err(Malformed::Version(other)),
    };
    let (body, tag) = bytes.split_at(bytes.len() - TAG_LEN);
    let authentic = |key: &Hmac<Sha256>| signed(key, body, me).verify_slice(tag).is_ok();
    if !authentic(&keys.current) && !keys.other.as_ref().is_some_and(authentic) {
        return Err(Malformed::Tag);
    }
    decode(&body[1..]).map_err(Malformed::Content)
}

#[cfg(test)]
mod tests;
