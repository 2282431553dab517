//! What `vigie why --json` prints: the gates of the sentinel of this node; on a node without one, what the sentinels say of
//! themselves in their frames, and whom to ask.

use serde::{Deserialize, Serialize};

use super::status::fencing::Fencing;
use crate::base::census;
use crate::config::Config;
use crate::cores::cluster::View;
use crate::cores::sentinel::why::{MasterWhy, Outcome};

/// Why there is, or is not, a failover, as one node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The node that answers.
    pub node: String,
    /// Whether the master of the cluster takes writes, and by which lease. Its fields stand here.
    #[serde(flatten)]
    pub fencing: Fencing,
    /// Every master, by its sentinel; empty without one.
    pub masters: Vec<MasterWhy>,
    /// Without a sentinel: what is heard of the others.
    pub frames: Option<Frames>,
}

/// What a node without a sentinel hears of those of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// The name of the master.
    pub name: String,
    /// Address of the master by the latest decision heard; none: no decision.
    pub master: Option<String>,
    /// What the frames come to; some gates are known to the sentinels only.
    pub outcome: Outcome,
    /// Sentinels that have to find it down.
    pub quorum: u32,
    /// Sentinels that have to be there for an election.
    pub majority: usize,
    /// All sentinels of the file.
    pub sentinels: Vec<Heard>,
}

/// What is heard of one sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its node.
    pub node: String,
    /// Whether it was heard of late. Without that the rest is what it said last, if anything.
    pub fresh: bool,
    /// Whether it finds the master down.
    pub finds_down: bool,
    /// The epoch of the failover it leads.
    pub leads: Option<u64>,
}

impl Frames {
    /// What `view` has of the sentinels of the cluster of `config`.
    pub fn new(config: &Config, view: &View) -> Self {
        let name = config.cluster.name.as_str();
        let voters = config.nodes.iter().filter(|node| node.roles.sentinel);
        let heard = |node: &crate::config::Node| {
            let seen = view.nodes.iter().find(|seen| seen.name == node.name);
            let facts = seen.and_then(|seen| seen.state.as_ref()?.sentinel.as_ref());
            let master = facts.and_then(|facts| facts.master(name));
            Heard {
                node: node.name.to_string(),
                fresh: seen.is_some_and(|seen| seen.fresh) && facts.is_some(),
                finds_down: master.is_some_and(|master| master.sees_down),
                leads: master.and_then(|master| master.leads),
            }
        };
        let sentinels: Vec<Heard> = voters.map(heard).collect();
        let decision = view.newest_decision(name);
        let (quorum, majority) = (config.cluster.quorum, census::majority(sentinels.len()));
        let outcome = outcome(decision.is_some(), quorum, view.hears_majority(), &sentinels);
        let master = decision.map(|decision| decision.master.to_string());
        Self { name: name.to_owned(), master, outcome, quorum, majority, sentinels }
    }
}

fn outcome(decided: bool, quorum: u32, enough: bool, sentinels: &[Heard]) -> Outcome {
    let fresh = || sentinels.iter().filter(|heard| heard.fresh);
    let down = fresh().filter(|heard| heard.finds_down).count();
    if fresh().any(|heard| heard.leads.is_some()) {
        Outcome::UnderWay
    } else if decided && down == 0 {
        Outcome::NotNeeded
    } else if !enough || (decided && u32::try_from(down).is_ok_and(|down| down < quorum)) {
        Outcome::Blocked
    } else {
        Outcome::Awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(fresh: bool, finds_down: bool, leads: Option<u64>) -> Heard {
        Heard { node: "a".to_owned(), fresh, finds_down, leads }
    }

    #[test]
    fn frames_tell_the_outcome() {
        let (up, down, gone) = (heard(true, false, None), heard(true, true, None), heard(false, true, Some(7)));
        let of = |decided, sentinels: [&Heard; 3]| {
            let enough = sentinels.iter().filter(|heard| heard.fresh).count() >= census::majority(3);
            outcome(decided, 2, enough, &sentinels.map(Clone::clone))
        };
        assert_eq!(of(true, [&up, &up, &gone]), Outcome::NotNeeded);
        assert_eq!(of(true, [&up, &down, &gone]), Outcome::Blocked, "one finds it down, two have to");
        assert_eq!(of(true, [&down, &gone, &gone]), Outcome::Blocked);
        assert_eq!(of(true, [&down, &down, &gone]), Outcome::Awaited);
        assert_eq!(of(true, [&down, &heard(true, true, Some(8)), &up]), Outcome::UnderWay);
        assert_eq!(of(false, [&up, &gone, &gone]), Outcome::Blocked, "nobody to elect the first master");
        assert_eq!(of(false, [&up, &up, &gone]), Outcome::Awaited);
    }
}
