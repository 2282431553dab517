use super::*;
use crate::base::node::{
    Decision, MasterFacts, NodeState, Process, ProxyFacts, RedisFacts, RedisRole, Roles, SentinelFacts, clipped,
};
use crate::base::{Instant, RunId};
use crate::cores::cluster::NodeView;
use crate::cores::proxy::route::{Peer, Server, Voice};

fn decision(epoch: u64) -> Decision {
    Decision { master: "10.0.0.4:6379".parse().unwrap(), epoch }
}

fn node(name: &str, fresh: bool) -> NodeView {
    let roles = Roles { proxy: true, redis: true, sentinel: true };
    let masters = [("other", 9), ("mymaster", 3)].map(|(name, epoch)| MasterFacts {
        name: clipped(name),
        decision: Some(decision(epoch)),
        ..MasterFacts::default()
    });
    let state = NodeState {
        redis: Some(RedisFacts {
            process: Process::Alive,
            role: RedisRole::Closed,
            offset: 77,
            ..RedisFacts::new(decision(0).master, 2)
        }),
        sentinel: Some(SentinelFacts { id: RunId([1; 20]), current_epoch: 4, masters: masters.into_iter().collect() }),
        proxy: Some(ProxyFacts { listening: true, route: Some(decision(3)), clients: 7, held: None }),
        ..NodeState::new(name.parse().unwrap(), clipped("1"), roles)
    };
    NodeView { state: Some(state), fresh, ..NodeView::new(name.parse().unwrap(), "10.0.0.4".parse().unwrap(), roles) }
}

#[test]
fn facts_are_the_fresh_words_on_our_master_and_the_peers_but_not_oneself() {
    let nodes = vec![node("me", true), node("peer", true), node("silent", false)];
    let facts = facts(&View { at: Instant::START, me: 0, nodes }, "mymaster");
    let voice = Voice { current_epoch: 4, decision: Some(decision(3)), fenced: false };
    let server = Server {
        address: decision(0).master,
        incarnation: 2,
        process: Process::Alive,
        master: Some(false),
        lease: None,
    };
    let peer = Peer { name: "peer".parse().unwrap(), listening: true, route: Some(decision(3)) };
    let expected = Facts { voters: 3, sentinels: vec![voice; 2], servers: vec![server; 2], peers: vec![peer] };
    assert_eq!(facts, expected);
}
