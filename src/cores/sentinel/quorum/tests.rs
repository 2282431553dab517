use super::*;
use crate::base::node::{Mode, Process};
use crate::cores::sentinel::{Config, Durable, LinkId, MasterConfig, Membership, Settings, Voter};

fn node(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 0, last], 6379))
}

fn sentinel(now: Instant) -> Agreement {
    let voter = |last: u8| Voter { name: format!("redis-{last}").parse().unwrap(), address: node(last), stock: false };
    let config = Config {
        membership: Membership::Voters { me: "redis-4".parse().unwrap(), all: [4, 5, 6].map(voter).to_vec() },
        masters: vec![MasterConfig::new("mymaster", 2)],
        settings: Settings::default(),
        logins: None,
        seed: 1,
    };
    let mut agreement = Agreement::new(config, Durable::new(RunId([7; 20])), now);
    // It has heard the others.
    agreement.amnesia = None;
    agreement
}

fn sees_down(sentinel: &Agreement, now: Instant) -> bool {
    sentinel.peers[0].sees_down(&sentinel.masters[0], now)
}

#[test]
fn an_answer_about_a_replaced_master_is_none_about_the_new_one() {
    let now = Instant::from_millis(1_000_000);
    let mut sentinel = sentinel(now);
    sentinel.switch(0, Decision { master: node(4), epoch: 1 }, Mode::Unfenced, now);
    sentinel.switch(0, Decision { master: node(5), epoch: 2 }, Mode::Unfenced, now);
    let master = sentinel.masters[0].id;
    let down = Reply::Array(vec![Reply::Integer(1), Reply::Bulk("*".into()), Reply::Integer(0)]);
    sentinel.opinion(0, master, node(4), &down, now);
    assert!(!sees_down(&sentinel, now), "it was asked before the switch");
    sentinel.opinion(0, master, node(5), &down, now);
    assert!(sees_down(&sentinel, now));
}

/// A vote for the sentinel at `.5`, of that id; whether it is still waited for a second and a half later.
fn waits_for(sentinel: &mut Agreement, leader: RunId, now: Instant) -> bool {
    let decision = Decision { master: node(6), epoch: 1 };
    sentinel.switch(0, decision, Mode::Unfenced, now);
    sentinel.vote(0, leader, 2, now);
    sentinel.failover(0, now + Duration::from_millis(1_500));
    matches!(sentinel.masters[0].failover(), crate::cores::sentinel::lead::Failover::Following(_))
}

#[test]
fn a_stock_sentinel_in_the_place_of_one_of_ours_is_given_its_time() {
    let now = Instant::from_millis(1_000_000);
    let (ours, stock) = (RunId([5; 20]), RunId([6; 20]));
    let facts = SentinelFacts { id: ours, current_epoch: 1, masters: heapless::Vec::new() };
    let mut sentinel_of_ours = sentinel(now);
    sentinel_of_ours.peer_facts(0, Some(facts.clone()), true, now);
    sentinel_of_ours.peer_facts(0, Some(facts.clone()), false, now);
    assert!(!waits_for(&mut sentinel_of_ours, ours, now), "one of ours that leads says so");

    let mut sentinel = sentinel(now);
    sentinel.peer_facts(0, Some(facts.clone()), true, now);
    sentinel.peer_facts(0, Some(facts.clone()), false, now);
    sentinel.know_peer(0, stock);
    assert!(waits_for(&mut sentinel, stock, now), "a stock sentinel is known by what it decides only");
}

#[test]
fn the_proof_of_a_death_needs_the_votes_of_stock_sentinels_and_not_their_eyes() {
    let now = Instant::from_millis(1_000_000);
    let facts = |process| crate::base::node::RedisFacts {
        process,
        role: crate::base::node::RedisRole::Master { replicas: 2 },
        has_data: true,
        ..crate::base::node::RedisFacts::new(node(4), 1)
    };
    for (process, sentinel_is_there, node_speaks, was_paused, down) in [
        (Process::Dead, true, false, false, true),
        (Process::Dead, true, true, false, false),
        (Process::Dead, true, false, true, false),
        (Process::Dead, false, false, false, false),
        (Process::Busy, true, false, false, false),
    ] {
        let case = format!("{process:?}, {sentinel_is_there}, {node_speaks}, {was_paused}");
        let mut sentinel = sentinel(now);
        sentinel.peers[0].stock = true;
        sentinel.switch(0, Decision { master: node(4), epoch: 1 }, Mode::Unfenced, now);
        let n = sentinel.master_at(0);
        let master = &mut sentinel.masters[0].nodes[n];
        (master.facts, master.fresh, master.down_since) = (Some(facts(process)), true, Some(now));
        if sentinel_is_there {
            let link = &mut sentinel.peers[0].link;
            *link = crate::cores::sentinel::link::Link::Connecting { id: LinkId(1), backoff: Duration::ZERO };
            // It has been there for a while.
            link.connected(Instant::from_millis(900_000));
            sentinel.peers[0].first_reply = Some(Instant::from_millis(900_000));
        }
        if node_speaks {
            // What its sentinel would say is not on its disk yet.
            sentinel.peer_facts(0, None, true, now);
        }
        if was_paused {
            // It may have spoken, and nobody has read it.
            sentinel.peers[0].restart_silence(now);
        }
        sentinel.judge_quorum(0, now);
        assert_eq!(sentinel.masters[0].odown_since.is_some(), down, "{case}");
    }
}
