//! Who votes, and all that follows from it: who is believed, how a redis is told its role, what goes ahead without the others.
//!
//! There are two ways. In a cluster the file names the voters and the data nodes, and the peer link speaks for them. Without a
//! file it is as with redis-sentinel: whoever greets is a voter, and a redis has to remember by itself what it was told.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::base::{EPOCH_STEP, Epoch, NodeName, Place, RunId, census};
use crate::wire::hello::{EPOCH_MAX, GREETED_MAX};

use super::query::words;
use super::settings::Settings;

/// Who votes.
#[derive(Clone, Debug)]
pub enum Membership {
    /// The sentinels of the cluster file, in its order, this one among them. A majority is one of these.
    Voters {
        /// This node.
        me: NodeName,
        /// All of them.
        all: Vec<Voter>,
    },
    /// Whoever greets on a master's hello channel, as with redis-sentinel. A majority is one of all ever heard and not
    /// removed since.
    Discovered {
        /// The own port for clients and sentinels.
        port: u16,
    },
}

/// One sentinel of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its node.
    pub name: NodeName,
    /// Where its port for clients and sentinels is.
    pub address: SocketAddr,
    /// Whether it may be a redis-sentinel or valkey-sentinel, which is heard and asked at that port. All others are heard on
    /// the peer link only.
    pub stock: bool,
}

impl Membership {
    /// This node; none without a file.
    pub(super) fn me(&self) -> Option<&NodeName> {
        match self {
            Self::Voters { me, .. } => Some(me),
            Self::Discovered { .. } => None,
        }
    }

    /// Whether masters and voters are those of a cluster file.
    pub(super) fn is_of_file(&self) -> bool {
        self.listed().is_some()
    }

    /// How many sentinels the file lists, this one among them; none without a file.
    pub(super) fn listed(&self) -> Option<usize> {
        match self {
            Self::Voters { all, .. } => Some(all.len()),
            Self::Discovered { .. } => None,
        }
    }

    /// Whether that is the node of this sentinel, as far as a file tells.
    pub(super) fn is_own(&self, node: Option<&NodeName>) -> bool {
        match self {
            Self::Voters { me, .. } => node == Some(me),
            Self::Discovered { .. } => false,
        }
    }

    /// The sentinels of the file but this one.
    pub(super) fn others(&self) -> Vec<Voter> {
        match self {
            Self::Voters { me, all } => all.iter().filter(|voter| voter.name != *me).cloned().collect(),
            Self::Discovered { .. } => Vec::new(),
        }
    }

    /// Sentinels that have a vote on a master which `others` of them are known to watch beside this one.
    pub(super) fn voters(&self, others: usize) -> usize {
        self.listed().unwrap_or(1 + others)
    }

    /// Whether the sentinel of that node and id stands for election before this one, whose id is `own`: in the order of the
    /// file, else of the ids.
    pub(super) fn ranks_before(&self, node: Option<&NodeName>, id: Option<RunId>, own: RunId) -> bool {
        match self {
            Self::Voters { me, all } => {
                let place = |name: &NodeName| all.iter().position(|voter| voter.name == *name);
                let own = place(me);
                debug_assert!(own.is_some(), "{me} votes and is none of the voters");
                node.and_then(place) < own
            }
            Self::Discovered { .. } => id.is_some_and(|id| id < own),
        }
    }

    /// Whether an epoch may be taken over from `own`, when so many others, by their own word, have got to it: a step further,
    /// or what a majority has got to. Without a file there is nobody whose word could be told from that of a stranger.
    pub(super) fn is_in_reach(&self, epoch: Epoch, own: Epoch, there: usize) -> bool {
        let step = own.saturating_add(EPOCH_STEP);
        let near = match self {
            Self::Voters { all, .. } => epoch <= step || there >= census::majority(all.len()),
            Self::Discovered { .. } => epoch <= GREETED_MAX.max(step),
        };
        near && epoch <= EPOCH_MAX
    }

    /// Whether a redis at that address may be a master of a cluster with those data nodes; without a file, anybody may.
    pub(super) fn admits(&self, address: SocketAddr, mut nodes: impl Iterator<Item = SocketAddr>) -> bool {
        match self {
            Self::Voters { .. } => nodes.any(|node| node == address),
            Self::Discovered { .. } => true,
        }
    }

    /// Whether it is of use to stand for election with fewer than a majority in sight: a sentinel that finds the others by
    /// their greetings counts for long who is gone for good.
    pub(super) fn stands_without_majority(&self) -> bool {
        !self.is_of_file()
    }

    /// Whether a failover that was ordered goes ahead although most sentinels are lost. Stock asks nobody.
    pub(super) fn obeys_without_majority(&self) -> bool {
        !self.is_of_file()
    }

    /// Whether a switchover goes on when the master cannot hold its writes, as it does with stock.
    pub(super) fn goes_on_unheld(&self) -> bool {
        !self.is_of_file()
    }

    /// Whether whoever is at the port of this sentinel may ask for a vote in any name.
    pub(super) fn votes_for_strangers(&self) -> bool {
        !self.is_of_file()
    }

    /// Whether what is greeted on the hello channel counts, and not only what listed stock sentinels bring to the port.
    pub(super) fn hears_greetings(&self) -> bool {
        !self.is_of_file()
    }

    /// Whether one password is that of all redis: if most refuse it, it is this node's that is wrong.
    pub(super) fn shares_password(&self) -> bool {
        self.is_of_file()
    }

    /// Whether a redis may be connected to, and told a password. One of a cluster lives only beside its vigie: where that is not
    /// `heard`, somebody else may have its address.
    pub(super) fn trusts(&self, heard: bool) -> bool {
        !self.is_of_file() || heard
    }

    /// Whether a redis that refuses the password counts as alive. Of a node that is not `heard` on the peer link the others can
    /// do without.
    pub(super) fn excuses_refusal(&self, heard: bool, listed: bool) -> bool {
        self.is_of_file() && (heard || !listed)
    }

    /// Whether writes may be released at whoever is demoted: where nobody but vigie holds writes, that is never wrong.
    pub(super) fn releases_at_demotion(&self) -> bool {
        self.is_of_file()
    }

    /// Where this sentinel is reached by whoever is at the other end of a link with `own` at this one.
    pub(super) fn announced(&self, settings: &Settings, own: Option<IpAddr>) -> Option<Place> {
        match self {
            Self::Voters { me, all } => all.iter().find(|voter| voter.name == *me).map(|voter| voter.address.into()),
            Self::Discovered { port } => {
                let own = || own.map(|ip| ip.to_canonical().to_string());
                let host = settings.announce_ip.clone().or_else(own)?;
                Some(Place { host, port: settings.announce_port.unwrap_or(*port) })
            }
        }
    }

    /// Changes the role of a redis in one step: no client may write in between, and no other sentinel's CLIENT KILL may cut
    /// this link before a hold has ended (`release`). To whom none is given, it becomes a master.
    pub(super) fn role_change(&self, to: Option<&Place>, release: bool) -> Vec<Vec<Bytes>> {
        let (host, port) = match to {
            Some(Place { host, port }) => (host.as_str(), port.to_string()),
            None => ("NO", "ONE".to_owned()),
        };
        let normal: &[&str] = &["CLIENT", "KILL", "TYPE", "normal"];
        let pubsub: &[&str] = &["CLIENT", "KILL", "TYPE", "pubsub"];
        let mut commands: Vec<&[&str]> = vec![&["MULTI"]];
        let (replicaof, slaveof) = (["REPLICAOF", host, &port], ["SLAVEOF", host, &port]);
        match self {
            Self::Voters { .. } => {
                commands.push(&replicaof);
                if to.is_some() {
                    commands.extend([normal, pubsub]);
                }
            }
            // A redis that nobody supervises has to remember it itself. The words are those that the access lists of
            // existing setups allow.
            Self::Discovered { .. } => commands.extend([&slaveof[..], &["CONFIG", "REWRITE"], normal, pubsub]),
        }
        if release {
            commands.push(&["CLIENT", "UNPAUSE"]);
        }
        commands.push(&["EXEC"]);
        commands.into_iter().map(words).collect()
    }

    /// Points a replica at its master. `held`: writes are held at it, and released where that is part of the way.
    pub(super) fn repointing(&self, to: &Place, held: bool) -> Vec<Vec<Bytes>> {
        match self {
            Self::Voters { .. } => vec![words(&["REPLICAOF", &to.host, &to.port.to_string()])],
            Self::Discovered { .. } => self.role_change(Some(to), held),
        }
    }
}
