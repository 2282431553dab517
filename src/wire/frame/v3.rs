//! Version 3: the highest version that the sender reads, and the frame of version 2. What stands behind is not looked at, so that
//! builds to come may say more there without another version.

use serde::{Deserialize, Serialize};

use super::content::{self, Unreadable};
use super::v2;

pub(super) const VERSION: u8 = 3;

#[derive(Serialize, Deserialize)]
struct Frame {
    reads: u8,
    frame: v2::Frame,
}

pub(super) fn encode<'a>(frame: &content::Frame, to: &'a mut [u8]) -> Option<&'a [u8]> {
    let frame = Frame { reads: frame.reads, frame: frame.clone().into() };
    postcard::to_slice(&frame, to).ok().map(|bytes| &*bytes)
}

pub(super) fn decode(body: &[u8]) -> Result<content::Frame, Unreadable> {
    let (Frame { reads, frame }, _) = postcard::take_from_bytes(body).map_err(Unreadable::Layout)?;
    frame.of_sender(VERSION.max(reads))
}
