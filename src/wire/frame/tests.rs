use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::base::lease::{Grant, Tenure, Terms};
use crate::base::node::{
    Decision, Health, History, MasterFacts, Mode, NodeState, Process, ProxyFacts, RedisFacts, RedisRole, Roles,
    SentinelFacts, VipFacts, VipState, clipped,
};
use crate::base::{Credentials, Instant, Purpose, RunId, Secret};

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
        target: Some(u64::MAX),
        mode: Some(Mode::Fenced),
    };
    let longest = Duration::from_micros(u32::MAX.into());
    let vip = VipFacts { virtual_router_id: 255, state: VipState::Master, priority: 255 };
    Frame {
        cluster: clipped(&"c".repeat(32)),
        boot: u64::MAX,
        sequence: u64::MAX,
        nonce: u64::MAX,
        echo: u64::MAX,
        stamp: u64::MAX,
        heard: u64::MAX,
        grant: Some(Grant {
            incarnation: u64::MAX,
            epoch: u64::MAX,
            stamp: Instant::from_micros(u64::MAX),
            lease: longest,
        }),
        left: longest,
        reads: u8::MAX,
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
            proxy: Some(ProxyFacts { listening: true, route: Some(decision), clients: u32::MAX, held: Some(u64::MAX) }),
            vips: Vec::from_slice(&[vip; 4]).unwrap(),
            tenure: Tenure::Asks { epoch: u64::MAX, open: Some(u64::MAX), grants: u32::MAX, slack: longest },
            terms: Terms { voters: u32::MAX, lease: Some(longest) },
            hears_majority: true,
            draining: true,
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

fn hexadecimal(text: &str) -> std::vec::Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// Frames in which every field and every variant occurs, said by a node that reads no more than version 2.
fn samples() -> std::vec::Vec<Frame> {
    let (v4, v6): (SocketAddr, SocketAddr) = ("10.0.0.1:6379".parse().unwrap(), "[fd00::2]:6380".parse().unwrap());
    let (id, other) = (RunId([5; 20]), RunId([0xa0; 20]));
    let decision = Decision { master: v4, epoch: 300 };
    let (leads, vote) = (Some(301), Some((other, 301)));
    let (target, mode) = (None, Some(Mode::Unfenced));
    let (name, decided) = (clipped("mymaster"), Some(decision));
    let mymaster = MasterFacts { name, decision: decided, sees_down: true, leads, vote, target, mode };
    let name = clipped("other");
    let unknown = MasterFacts { name, decision: None, sees_down: false, leads: None, vote: None, target, mode };
    let vips = [(51, VipState::Initialize), (52, VipState::Backup), (53, VipState::Master)];
    let vips = vips.map(|(virtual_router_id, state)| VipFacts { virtual_router_id, state, priority: 101 });
    let sentinel = SentinelFacts { id, current_epoch: 301, masters: [mymaster, unknown].into_iter().collect() };
    let bare = NodeState::new("redis-01".parse().unwrap(), clipped("0.1.0"), Roles::default());
    let with = |roles, bad: bool, address, process, role| NodeState {
        roles,
        health: if bad { Health::bad("no route to the master") } else { Health::Good },
        redis: Some(RedisFacts {
            address,
            incarnation: 2,
            process,
            role,
            run_id: None,
            replication_id: None,
            offset: 12_345,
            priority: 100,
            has_data: false,
            history: None,
        }),
        ..bare.clone()
    };
    let full = |bad, process, role, route| {
        let all = Roles { proxy: true, redis: true, sentinel: true };
        let mut state = with(all, bad, v4, process, role);
        if let Some(redis) = &mut state.redis {
            (redis.run_id, redis.replication_id, redis.has_data) = (Some(id), Some(other), true);
            redis.history = Some(History { epoch: 299, in_sync: true, offset: 12_000 });
        }
        state.sentinel = Some(sentinel.clone());
        state.proxy = Some(ProxyFacts { listening: true, route, clients: 17, held: None });
        state.vips = vips.into_iter().collect();
        state
    };
    let (only_redis, all) =
        (Roles { redis: true, ..Roles::default() }, Roles { proxy: true, redis: true, sentinel: true });
    let states = [
        bare.clone(),
        with(only_redis, false, v6, Process::Starting, RedisRole::Unknown),
        full(false, Process::Loading, RedisRole::Closed, None),
        full(true, Process::Alive, RedisRole::Replica { of: v6, link_up: true }, Some(decision)),
        full(true, Process::Busy, RedisRole::Master { replicas: 2 }, None),
        with(all, true, v6, Process::Dead, RedisRole::Replica { of: v4, link_up: false }),
    ];
    let said = |state| Frame {
        cluster: clipped("mymaster"),
        boot: 1,
        sequence: 1_000,
        nonce: u64::MAX,
        echo: 4,
        stamp: 5_000_000,
        heard: 0,
        grant: None,
        left: Duration::ZERO,
        reads: 2,
        state,
    };
    states.into_iter().map(said).collect()
}

/// The same with all that version 4 says.
fn richer() -> impl Iterator<Item = Frame> {
    let (ms, at) = (Duration::from_millis, Instant::from_micros(4_000_300));
    let asks = |open, grants, slack| Tenure::Asks { epoch: 301, open, grants, slack: ms(slack) };
    let tenures = [
        (Tenure::None, 0),
        (asks(None, 0, 0), 0),
        (asks(Some(301), 0b1_1010, 142), 219),
        (Tenure::Released { epoch: 301, at }, 0),
        (Tenure::None, 0),
        (asks(Some(300), 1 << 31, 0), 1),
    ];
    samples().into_iter().zip(tenures).enumerate().map(move |(n, (mut frame, (tenure, left)))| {
        (frame.reads, frame.left) = (4, ms(left));
        frame.grant = (n % 2 == 1).then_some(Grant { incarnation: 1 << 40, epoch: 301, stamp: at, lease: ms(250) });
        let state = &mut frame.state;
        (state.tenure, state.hears_majority, state.draining) = (tenure, n % 2 == 0, n == 3);
        state.terms = Terms { voters: 0xdead_beef, lease: (n != 1).then_some(ms(250)) };
        for master in state.sentinel.iter_mut().flat_map(|sentinel| &mut sentinel.masters) {
            let decided = master.decision.is_some();
            (master.target, master.mode) = (master.leads.map(|_| 1 << 40), Some(Mode::asked(decided)));
        }
        state.proxy.iter_mut().for_each(|proxy| proxy.held = (n == 4).then_some(302));
        frame
    })
}

/// What remains of a frame in an older version.
fn in_version(version: u8, mut frame: Frame) -> Frame {
    if version < 4 {
        (frame.grant, frame.left) = (None, Duration::ZERO);
        let state = &mut frame.state;
        (state.tenure, state.terms) = (Tenure::None, Terms::default());
        (state.hears_majority, state.draining) = (false, false);
        for master in state.sentinel.iter_mut().flat_map(|sentinel| &mut sentinel.masters) {
            (master.target, master.mode) = (None, (frame.reads < 4).then_some(Mode::Unfenced));
        }
        state.proxy.iter_mut().for_each(|proxy| proxy.held = None);
    }
    frame
}

/// What builds that were released have said, signed for `redis-02`. A line that does not fit any more is a layout that has drifted:
/// nodes of these builds would not be understood.
#[test]
fn the_layout_of_each_version_is_the_one_that_was_released() {
    let (keys, me) = (Keys::new(&Secret::new("a-secret").into()), "redis-02".parse().unwrap());
    // Written by the last build that knew no other version.
    let second = include_str!("v2.hex").lines().zip(samples().into_iter().map(|frame| (2, frame)));
    let third = samples().into_iter().map(|frame| (3, Frame { reads: 3, ..frame }));
    let third = include_str!("v3.hex").lines().zip(third);
    let fourth = include_str!("v4.hex").lines().zip(richer().map(|frame| (4, frame)));
    let mut count = 0;
    for (line, (version, frame)) in second.chain(third).chain(fourth) {
        let bytes = hexadecimal(line);
        assert_eq!(bytes[0], version);
        assert_eq!(parse(&bytes, &keys, &me).as_ref(), Ok(&frame));
        let again = emit(&frame, version, &keys, &me).unwrap();
        assert_eq!(again.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), line);
        count += 1;
    }
    assert_eq!(count, 18, "a line is missing");
}

#[test]
fn the_highest_version_that_both_read_is_spoken() {
    for (reads, version) in [(0, 2), (2, 2), (3, 3), (4, 4), (5, 4), (u8::MAX, 4)] {
        assert_eq!(emit(&largest(), reads, &key(), &me()).unwrap()[0], version, "to one that reads {reads}");
    }
}

#[test]
fn every_version_says_what_its_sender_reads() {
    for version in OLDEST..=NEWEST {
        for reads in [0, 2, 3, 4, 5, u8::MAX] {
            let said = emit(&Frame { reads, ..largest() }, version, &key(), &me()).unwrap();
            assert_eq!(parse(&said, &key(), &me()).unwrap().reads, reads.max(version), "{reads} in version {version}");
        }
    }
}

#[test]
fn the_largest_frame_fits_and_round_trips() {
    for version in OLDEST..=NEWEST {
        let bytes = emit(&largest(), version, &key(), &me()).expect("fits");
        assert_eq!(bytes[0], version);
        assert_eq!(parse(&bytes, &key(), &me()), Ok(in_version(version, largest())));
        assert!(version > 3 || bytes.len() <= 1_200, "builds that speak it take no more");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for version in OLDEST..=NEWEST {
        let bytes = emit(&largest(), version, &key(), &me()).expect("fits");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(parse(&changed, &key(), &me()).is_err(), "byte {at}");
        }
    }
}

#[test]
fn foreign_keys_receivers_and_lengths_are_refused() {
    let bytes = emit(&largest(), NEWEST, &key(), &me()).expect("fits");
    for other in [keys("wrong horse", "mymaster"), keys("correct horse", "other")] {
        assert_eq!(parse(&bytes, &other, &me()), Err(Malformed::Tag));
    }
    for other in ["n", "receive", "receiver-2"] {
        assert_eq!(parse(&bytes, &key(), &other.parse().unwrap()), Err(Malformed::Tag), "{other}");
    }
    assert_eq!(parse(&[], &key(), &me()), Err(Malformed::Length(0)));
    assert_eq!(parse(&[0; 1_500], &key(), &me()), Err(Malformed::Length(1_500)));
    for (version, node) in [(0, "the node that sent it"), (1, "the node that sent it"), (5, "this node")] {
        let said = parse(&[version; 100], &key(), &me()).unwrap_err();
        assert_eq!(said, Malformed::Version(version));
        assert!(said.to_string().ends_with(&format!("only 2 to 4: update vigie on {node}")), "{said}");
    }
}

#[test]
fn while_a_secret_is_changed_both_are_believed() {
    let both = Keys::new(&Secrets::new(Secret::new("new"), Some(Secret::new("old"))));
    let [old, new] = ["old", "new"].map(|secret| Keys::new(&Secret::new(secret).into()));
    for sender in [&old, &new, &both] {
        assert!(parse(&emit(&largest(), NEWEST, sender, &me()).unwrap(), &both, &me()).is_ok());
    }
    let by_both = emit(&largest(), NEWEST, &both, &me()).unwrap();
    assert!(parse(&by_both, &new, &me()).is_ok());
    assert_eq!(parse(&by_both, &old, &me()), Err(Malformed::Tag));
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1_500)) {
        let _ = parse(&bytes, &key(), &me());
    }
}
