//! What a sentinel without a cluster file has to remember: all that `sentinel.conf` says of it and of its masters.

use crate::base::{Epoch, Place, RunId};

use super::config::MasterConfig;
use super::settings::Settings;

/// All of it. Stored as a whole: the file that holds it is rewritten, with its comments and its order, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `sentinel myid`; none before the first start.
    pub id: Option<RunId>,
    /// `sentinel current-epoch`: the highest epoch seen.
    pub current_epoch: Epoch,
    /// What is said once.
    pub settings: Settings,
    /// In the order of their `sentinel monitor` lines, later ones behind them.
    pub masters: Vec<MasterState>,
}

/// One master, by its directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterState {
    /// What is said of it. Its nodes are not of the file: they are found.
    pub config: MasterConfig,
    /// Where it is: of the promoted replica from the moment of its promotion.
    pub place: Place,
    /// `config-epoch`: of the decision that made it master.
    pub config_epoch: Epoch,
    /// `leader-epoch`: of the last vote.
    pub leader_epoch: Epoch,
    /// `known-replica`
    pub replicas: Vec<Place>,
    /// `known-sentinel`
    pub sentinels: Vec<KnownSentinel>,
}

impl MasterState {
    /// A master of which nothing is known yet but where it is.
    pub fn new(config: MasterConfig, place: Place) -> Self {
        Self { config, place, config_epoch: 0, leader_epoch: 0, replicas: Vec::new(), sentinels: Vec::new() }
    }
}

/// Another sentinel of a master, as last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSentinel {
    /// Where it is reached.
    pub place: Place,
    /// Its id.
    pub id: RunId,
}
