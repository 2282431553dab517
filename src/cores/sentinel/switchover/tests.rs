use super::*;
use crate::base::node::{Decision, Mode, Process, RedisFacts, RedisRole};
use crate::base::{Machine, RunId};
use crate::cores::sentinel::{Config, DataNode, Durable, Input, MasterConfig, Membership, Sentinel, Settings, Voter};

fn node(last: u8) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([192, 168, 0, last], 6379))
}

fn name(last: u8) -> NodeName {
    format!("redis-{last}").parse().unwrap()
}

/// A sentinel that knows a master, and of a second redis only what its supervisor says.
fn sentinel(now: Instant, said: RedisRole) -> Sentinel {
    let data = |last| DataNode { name: name(last), address: node(last), bootstrap: false };
    let master = MasterConfig {
        down_after: Duration::from_secs(60),
        nodes: [4, 5].map(data).to_vec(),
        ..MasterConfig::new("mymaster", 1)
    };
    let config = Config {
        membership: Membership::Voters {
            me: name(4),
            all: vec![Voter { name: name(4), address: node(4), stock: false }],
        },
        masters: vec![master],
        settings: Settings::default(),
        logins: None,
        seed: 1,
    };
    let mut sentinel = Sentinel::new(config, Durable::new(RunId([7; 20])), now);
    sentinel.agreement.switch(0, Decision { master: node(4), epoch: 1 }, Mode::Unfenced, now);
    let replica = &mut sentinel.agreement.masters[0].nodes[1];
    replica.fresh = true;
    replica.facts =
        Some(RedisFacts { process: Process::Alive, role: said, has_data: true, ..RedisFacts::new(node(5), 1) });
    sentinel
}

fn ended(out: &[Output]) -> Option<&Result<FailoverReport, String>> {
    out.iter().find_map(|output| if let Output::OrderDone(_, result) = output { Some(result) } else { None })
}

#[test]
fn an_order_waits_a_second_for_what_a_supervisor_has_said_already() {
    let mut now = Instant::from_millis(1_000_000);
    let mut sentinel = sentinel(now, RedisRole::Replica { of: node(4), link_up: true });
    let mut out = Vec::new();
    sentinel.handle(now, Input::Order(OrderId(1), Some(name(5))), &mut out);
    assert_eq!(ended(&out), None, "its INFO is about to say so, too");
    now = now + INFO_WAIT;
    sentinel.handle(now, Input::Tick, &mut out);
    assert!(matches!(ended(&out), Some(Err(why)) if why.contains("not in sync")), "{:?}", ended(&out));
}

#[test]
fn an_order_is_refused_at_once_if_nobody_says_that_the_target_is_in_sync() {
    let now = Instant::from_millis(1_000_000);
    for said in [RedisRole::Replica { of: node(4), link_up: false }, RedisRole::Replica { of: node(6), link_up: true }]
    {
        let mut out = Vec::new();
        sentinel(now, said).handle(now, Input::Order(OrderId(1), Some(name(5))), &mut out);
        assert!(matches!(ended(&out), Some(Err(why)) if why.contains("not in sync")), "{:?}", ended(&out));
    }
}
