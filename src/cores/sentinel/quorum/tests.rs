use super::*;
use crate::cores::sentinel::{Config, Durable, MasterConfig, Settings, Voter};

fn node(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 0, last], 6379))
}

fn sentinel(now: Instant) -> Sentinel {
    let voter = |last: u8| Voter { name: format!("redis-{last}").parse().unwrap(), address: node(last) };
    let config = Config {
        membership: Membership::Voters { me: "redis-4".parse().unwrap(), all: [4, 5, 6].map(voter).to_vec() },
        masters: vec![MasterConfig::new("mymaster", 2)],
        settings: Settings::default(),
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
    let master = sentinel.masters[0].id;
    let down = Reply::Array(vec![Reply::Integer(1), Reply::Bulk("*".into()), Reply::Integer(0)]);
    sentinel.opinion(0, master, node(4), &down, now);
    assert!(!sentinel.peer_sees_down(0, 0, now), "it was asked before the switch");
    sentinel.opinion(0, master, node(5), &down, now);
    assert!(sentinel.peer_sees_down(0, 0, now));
}
