//! What is there when a story of the sentinel begins.

use std::net::SocketAddr;
use std::time::Duration;

use vigie::base::RunId;
use vigie::base::node::{Decision, Mode};
use vigie::cores::sentinel::{
    Config, DataNode, Durable, DurableMaster, KnownSentinel, MasterConfig, MasterState, Membership, Sentinel, Settings,
    State, Voter,
};
use vigie::wire::info::CLOSED;

use super::others::Other;
use super::redis::Redis;
use super::{Line, MASTER};
use crate::stage::BEGIN;
use crate::words::{Words, unexpected};

const DOWN_AFTER: Duration = Duration::from_millis(500);

/// What the first command says.
pub(super) struct Scene {
    pub(super) drop_in: bool,
    stock: bool,
    fresh: bool,
    /// The number of the one under test.
    me: u8,
    sentinels: u8,
    redis: u8,
    epoch: u64,
    config: MasterConfig,
}

impl Scene {
    /// `cluster|drop-in [stock] [fresh] [as sN] [sentinels N] [redis N] [quorum N] [epoch N] [failover-timeout D]
    /// [parallel-syncs N]`
    pub(super) fn of(words: &mut Words) -> Result<Self, String> {
        let drop_in = match words.next("cluster or drop-in")?.as_str() {
            "cluster" => false,
            "drop-in" => true,
            other => return Err(unexpected(other, "cluster or drop-in")),
        };
        let config = MasterConfig {
            down_after: DOWN_AFTER,
            busy_grace: Duration::from_secs(5),
            failover_timeout: Duration::from_secs(10),
            ..MasterConfig::new(MASTER, 2)
        };
        let mut scene = Self { drop_in, stock: drop_in, fresh: false, me: 1, sentinels: 3, redis: 3, epoch: 1, config };
        scene.stock |= words.optional("stock");
        scene.fresh = words.optional("fresh");
        if words.optional("as") {
            let name = words.next("the name of a sentinel")?;
            let number = name.strip_prefix('s').and_then(|number| number.parse().ok());
            scene.me = number.ok_or_else(|| unexpected(&name, "the name of a sentinel"))?;
        }
        scene.sentinels = words.value_or("sentinels", scene.sentinels)?;
        scene.redis = words.value_or("redis", scene.redis)?;
        scene.config.quorum = words.value_or("quorum", scene.config.quorum)?;
        scene.epoch = words.value_or("epoch", scene.epoch)?;
        if words.optional("failover-timeout") {
            scene.config.failover_timeout = words.duration()?;
        }
        scene.config.parallel_syncs = words.value_or("parallel-syncs", scene.config.parallel_syncs)?;
        let few = (1..=9).contains(&scene.redis) && (1..=9).contains(&scene.sentinels);
        let possible = few && (1..=scene.sentinels).contains(&scene.me);
        let told_so = !(scene.drop_in && scene.fresh);
        if possible && told_so { Ok(scene) } else { Err("there is no such scene".to_owned()) }
    }

    fn redis_at(n: u8) -> (String, SocketAddr) {
        (char::from(b'A' + n).to_string(), SocketAddr::from(([10, 0, 0, n + 1], 6379)))
    }

    fn sentinel_at(n: u8) -> (String, RunId, SocketAddr) {
        (format!("s{n}"), RunId([n; 20]), SocketAddr::from(([10, 0, 0, n + 10], 26379)))
    }

    fn all_redis(&self) -> Vec<(String, SocketAddr)> {
        (0..self.redis).map(Self::redis_at).collect()
    }

    fn all_sentinels(&self) -> Vec<(String, RunId, SocketAddr)> {
        (1..=self.sentinels).map(Self::sentinel_at).collect()
    }

    /// The first one is the master, and the others follow it; in a fresh cluster all are closed.
    pub(super) fn redis(&self) -> Vec<Redis> {
        let (_, first) = Self::redis_at(0);
        let role = |at| if self.fresh { Some(CLOSED) } else { Some(first).filter(|first| at != *first) };
        self.all_redis().into_iter().map(|(name, at)| Redis::new(name, at, role(at))).collect()
    }

    pub(super) fn others(&self) -> Vec<Other> {
        let (me, master) = (Self::sentinel_at(self.me).1, Self::redis_at(0).1);
        let others = self.all_sentinels().into_iter().filter(|(_, id, _)| *id != me);
        let others = others.map(|(name, id, at)| {
            let mut other = Other::new(name, id, at, !self.stock);
            if self.fresh {
                // Whoever is heard agrees that there never was a master: the story begins with that.
                other.line = Line::Down;
            } else {
                (other.epoch, other.decision) = (self.epoch, Some(Decision { master, epoch: 1 }));
            }
            other
        });
        others.collect()
    }

    /// What the transcript calls addresses and ids.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let sentinels = self.all_sentinels();
        let places = self.all_redis().into_iter().chain(sentinels.iter().map(|(name, _, at)| (name.clone(), *at)));
        let places = places
            .flat_map(|(name, at)| [(at.to_string(), name.clone()), (format!("{} {}", at.ip(), at.port()), name)]);
        places.chain(sentinels.iter().map(|(name, id, _)| (id.to_string(), name.clone()))).collect()
    }

    pub(super) fn core(mut self) -> Sentinel {
        let (redis, sentinels) = (self.all_redis(), self.all_sentinels());
        let (me, id, _) = Self::sentinel_at(self.me);
        let name = |name: &str| name.parse().expect("names of nodes are letters and numbers");
        let config =
            |membership, masters| Config { membership, masters, settings: Settings::default(), logins: None, seed: 1 };
        let others = sentinels.iter().filter(|(other, _, _)| *other != me);
        if self.drop_in {
            let watched = MasterConfig {
                down_after: self.config.down_after,
                failover_timeout: self.config.failover_timeout,
                parallel_syncs: self.config.parallel_syncs,
                ..MasterConfig::new(MASTER, self.config.quorum)
            };
            let master = MasterState {
                config_epoch: 1,
                replicas: redis[1..].iter().map(|(_, address)| (*address).into()).collect(),
                sentinels: others.map(|(_, id, at)| KnownSentinel { place: (*at).into(), id: *id }).collect(),
                ..MasterState::new(watched, redis[0].1.into())
            };
            let state = State { id: Some(id), current_epoch: self.epoch, masters: vec![master], ..State::default() };
            return Sentinel::alone(&config(Membership::Discovered { port: 26379 }, Vec::new()), state, id, BEGIN);
        }
        let nodes = redis.iter().map(|(node, address)| (name(node), *address));
        let nodes = nodes.enumerate().map(|(n, (name, address))| DataNode { name, address, bootstrap: n == 0 });
        self.config.nodes = nodes.collect();
        let decision = Some(Decision { master: redis[0].1, epoch: 1 });
        let known = others.map(|(other, id, _)| (name(other), *id)).collect();
        let record = DurableMaster { name: MASTER.to_owned(), decision, vote: None, mode: Mode::Unfenced };
        let durable = Durable { id, current_epoch: self.epoch, masters: vec![record], sentinels: known };
        let durable = if self.fresh { Durable::new(id) } else { durable };
        let voters =
            sentinels.iter().map(|(node, _, address)| Voter { name: name(node), address: *address, stock: self.stock });
        let membership = Membership::Voters { me: name(&me), all: voters.collect() };
        Sentinel::new(config(membership, vec![self.config]), durable, BEGIN)
    }
}
