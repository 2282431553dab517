use std::net::SocketAddr;

use super::*;
use crate::base::node::{
    Decision, Health, History, MasterFacts, Process, ProxyFacts, RedisFacts, RedisRole, Roles, SentinelFacts, VipFacts,
    VipState, clipped,
};
use crate::base::{Credentials, Purpose, RunId, Secret};

/// The largest state there can be: every text full, every list full, every number at its longest.
fn largest() -> Frame {
    let id = RunId([0xff; 20]);
    let address = SocketAddr::from(([0xffff; 8], u16::MAX));
    let decision = Decision { master: address, epoch: u64::MAX };
    let master = MasterFacts {
        name: clipped(&"m".repeat(32)),
        decision: Some(decision),
        sees_down: true,
        leads: Some(u64::MAX),
        vote: Some((id, u64::MAX)),
    };
    let vip = VipFacts { virtual_router_id: 255, state: VipState::Master, priority: 255 };
    Frame {
        cluster: clipped(&"c".repeat(32)),
        boot: u64::MAX,
        sequence: u64::MAX,
        nonce: u64::MAX,
        echo: u64::MAX,
        stamp: u64::MAX,
        heard: u64::MAX,
        state: NodeState {
            name: "n".repeat(32).parse().unwrap(),
            version: clipped(&"v".repeat(16)),
            roles: Roles { proxy: true, redis: true, sentinel: true },
            health: Health::bad(&"h".repeat(500)),
            redis: Some(RedisFacts {
                address,
                incarnation: u64::MAX,
                process: Process::Dead,
                role: RedisRole::Replica { of: address, link_up: true },
                run_id: Some(id),
                replication_id: Some(id),
                offset: u64::MAX,
                priority: u32::MAX,
                has_data: true,
                history: Some(History { epoch: u64::MAX, in_sync: true, offset: u64::MAX }),
            }),
            sentinel: Some(SentinelFacts {
                id,
                current_epoch: u64::MAX,
                masters: Vec::from_slice(&[master.clone(), master.clone(), master.clone(), master]).unwrap(),
            }),
            proxy: Some(ProxyFacts { listening: true, route: Some(decision), clients: u32::MAX }),
            vips: Vec::from_slice(&[vip; 4]).unwrap(),
        },
    }
}

fn keys(secret: &str, cluster: &str) -> Keys {
    let credentials = Credentials::new(cluster, Secret::new("password").into(), Some(Secret::new(secret).into()));
    Keys::new(&credentials.own(Purpose::Link))
}

fn key() -> Keys {
    keys("correct horse", "mymaster")
}

fn me() -> NodeName {
    "receiver".parse().unwrap()
}

#[test]
fn the_largest_frame_fits_and_round_trips() {
    let bytes = emit(&largest(), &key(), &me()).expect("fits");
    assert_eq!(parse(&bytes, &key(), &me()), Ok(largest()));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = emit(&largest(), &key(), &me()).expect("fits");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(parse(&changed, &key(), &me()).is_err(), "byte {at}");
    }
}

#[test]
fn foreign_keys_receivers_and_lengths_are_refused() {
    let bytes = emit(&largest(), &key(), &me()).expect("fits");
    for other in [keys("wrong horse", "mymaster"), keys("correct horse", "other")] {
        assert_eq!(parse(&bytes, &other, &me()), Err(Malformed::Tag));
    }
    for other in ["n", "receive", "receiver-2"] {
        assert_eq!(parse(&bytes, &key(), &other.parse().unwrap()), Err(Malformed::Tag), "{other}");
    }
    assert_eq!(parse(&[], &key(), &me()), Err(Malformed::Length(0)));
    assert_eq!(parse(&[0; 1_500], &key(), &me()), Err(Malformed::Length(1_500)));
    assert_eq!(parse(&[1; 100], &key(), &me()), Err(Malformed::Version(1)));
}

#[test]
fn while_a_secret_is_changed_both_are_believed() {
    let both = Keys::new(&Secrets::new(Secret::new("new"), Some(Secret::new("old"))));
    let [old, new] = ["old", "new"].map(|secret| Keys::new(&Secret::new(secret).into()));
    for sender in [&old, &new, &both] {
        assert!(parse(&emit(&largest(), sender, &me()).unwrap(), &both, &me()).is_ok());
    }
    let by_both = emit(&largest(), &both, &me()).unwrap();
    assert!(parse(&by_both, &new, &me()).is_ok());
    assert_eq!(parse(&by_both, &old, &me()), Err(Malformed::Tag));
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1_500)) {
        let _ = parse(&bytes, &key(), &me());
    }
}
