use super::*;
use crate::cores::sentinel::{Config, Durable, MasterConfig, Voter};

fn node(last: u8) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([192, 168, 0, last], 6379))
}

fn sentinel(now: Instant) -> Sentinel {
    let voter = |last: u8| Voter { name: format!("redis-{last}").parse().unwrap(), address: node(last) };
    let master = MasterConfig {
        name: "mymaster".to_owned(),
        quorum: 2,
        down_after: Duration::from_millis(500),
        busy_grace: Duration::from_secs(5),
        failover_timeout: Duration::from_secs(10),
        parallel_syncs: 1,
        nodes: Vec::new(),
    };
    let config = Config {
        me: "redis-4".parse().unwrap(),
        voters: [4, 5, 6].map(voter).to_vec(),
        masters: vec![master],
        password: None,
        trusted: Vec::new(),
        seed: 1,
    };
    Sentinel::new(config, Durable::new(RunId([7; 20])), now)
}

#[test]
fn an_answer_about_a_replaced_master_is_none_about_the_new_one() {
    let now = Instant::from_millis(1_000_000);
    let mut sentinel = sentinel(now);
    sentinel.switch(0, Decision { master: node(4), epoch: 1 }, now);
    sentinel.switch(0, Decision { master: node(5), epoch: 2 }, now);
    let down = Reply::Array(vec![Reply::Integer(1), Reply::Bulk("*".into()), Reply::Integer(0)]);
    sentinel.opinion(0, 0, node(4), &down, now);
    assert!(!sentinel.peer_sees_down(0, 0, now), "it was asked before the switch");
    sentinel.opinion(0, 0, node(5), &down, now);
    assert!(sentinel.peer_sees_down(0, 0, now));
}
