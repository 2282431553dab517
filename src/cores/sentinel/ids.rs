//! Names of what comes and goes: none is used twice as long as this process lives.

use crate::base::RunId;

/// Whom a vote was for that is only remembered by its epoch.
pub(super) const NOBODY: RunId = RunId([0; 20]);

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// One watched master; its place among the others may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MasterId(pub(super) u32);

/// One redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InstanceId(pub(super) u32);

/// One other sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerId(pub(super) u32);
