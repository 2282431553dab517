//! A change that was ordered and is not true yet.

use std::net::SocketAddr;

use crate::base::Place;

use super::config::MasterConfig;
use super::effect::Script;
use super::ids::MasterId;
use super::ports::ClientId;
use super::settings::Settings;

/// What a client has ordered, and what waits for the disk.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) client: ClientId,
    pub(super) change: Change,
    /// Paths that must be those of executable files first.
    pub(super) scripts: Vec<(Script, String)>,
    /// Whether it is a part of what is being stored.
    pub(super) storing: bool,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// SENTINEL MONITOR
    Monitor { config: Box<MasterConfig>, place: Place, address: SocketAddr },
    /// SENTINEL REMOVE
    Remove(MasterId),
    /// SENTINEL SET: the configuration afterwards, and what each option says in its event.
    Set { master: MasterId, config: Box<MasterConfig>, said: Vec<String> },
    /// SENTINEL CONFIG SET
    Settings(Box<Settings>),
    /// SENTINEL FLUSHCONFIG
    Nothing,
}
