//! What `why` says in the course of whole failovers.

use super::super::why::{Checked, DownBy, Gate, MasterWhy, Outcome, Verdict};
use super::super::*;
use super::world::{World, ms, name, redis_at};

fn why(world: &World, n: usize) -> MasterWhy {
    let mut all = world.sentinels[n].as_ref().expect("it runs").why(world.now);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The gates that block, and those that wait.
fn shut(why: &MasterWhy) -> (Vec<&Gate>, Vec<&Gate>) {
    let those = |verdict| {
        let gates = why.gates.iter().filter(move |checked: &&Checked| checked.verdict == verdict);
        gates.map(|checked| &checked.gate).collect::<Vec<_>>()
    };
    (those(Verdict::Blocks), those(Verdict::Waits))
}

#[test]
fn a_master_that_is_well_needs_no_failover() {
    let world = World::settled();
    for n in 0..3 {
        let why = why(&world, n);
        assert_eq!((why.outcome, shut(&why)), (Outcome::NotNeeded, (vec![], vec![])), "{why:#?}");
        let master = why.master.expect("there is a decision");
        assert_eq!((master.node, master.address), (Some(name(0)), redis_at(0)));
        assert!(why.sentinels.iter().all(|sentinel| sentinel.unreachable_ms.is_none() && !sentinel.finds_down));
        let best = |checked: &Checked| matches!(&checked.gate, Gate::Candidate { best: Some(_), rejected, .. } if rejected.is_empty());
        assert!(why.gates.iter().any(best), "who would take over is known: {:#?}", why.gates);
    }
}

#[test]
fn without_the_other_sentinels_quorum_and_majority_block() {
    let mut world = World::settled();
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.run(ms(2_000));
    let before = why(&world, 0);
    assert_eq!(before.outcome, Outcome::NotNeeded, "nothing is needed yet");
    assert_eq!(shut(&before).0, [&Gate::Majority { reachable: 1, needed: 2, of: 3, takeover: true }]);
    world.kill_redis(0);
    world.run(ms(12_000));
    let why = why(&world, 0);
    assert_eq!(why.outcome, Outcome::Blocked);
    let (blocks, _) = shut(&why);
    let (quorum, majority) = (
        Gate::Quorum { agree: 1, needed: 2, of: 3 },
        Gate::Majority { reachable: 1, needed: 2, of: 3, takeover: false },
    );
    assert_eq!(blocks, [&quorum, &majority], "{why:#?}");
    assert!(matches!(why.gates[1].gate, Gate::Down { by: Some(DownBy::Proof), down_ms: Some(11_900..=12_000), .. }));
    for sentinel in &why.sentinels {
        assert!(sentinel.unreachable_ms.is_some_and(|millis| (13_000..=14_000).contains(&millis)), "{sentinel:?}");
    }
}

#[test]
fn a_silence_is_told_before_it_counts() {
    let mut world = World::settled();
    world.cut(0, true);
    world.run(ms(400));
    let why = why(&world, 1);
    assert_eq!(why.outcome, Outcome::Awaited);
    let (blocks, waits) = shut(&why);
    let [Gate::Down { by: None, silent_ms: Some(silent), limit_ms: 500, .. }] = waits[..] else { panic!("{why:#?}") };
    assert!((320..=400).contains(silent) && blocks.is_empty(), "{why:#?}");
}

#[test]
fn a_disk_that_fails_and_replicas_that_are_unfit_are_named() {
    let mut world = World::settled();
    world.broken = vec![true; 3];
    world.kill_redis(1);
    world.run(ms(1_500));
    world.redis[2].priority = 0;
    world.run(ms(1_500));
    world.kill_redis(0);
    world.run(ms(3_000));
    let why = why(&world, 1);
    assert_eq!(why.outcome, Outcome::Blocked);
    let (blocks, _) = shut(&why);
    let Some(Gate::Candidate { best: None, rejected, master: Some(Rejection::Down) }) = blocks.last() else {
        panic!("{why:#?}")
    };
    let told: Vec<_> = rejected.iter().map(|one| (one.who.node.clone(), one.reason)).collect();
    assert_eq!(told, [(Some(name(1)), Rejection::Down), (Some(name(2)), Rejection::PriorityZero)]);
    world.redis[2].priority = 100;
    world.run(ms(3_000));
    let why = super::why::why(&world, 1);
    assert!(matches!(shut(&why).0[..], [Gate::Store { retry_ms: Some(_) }]), "{why:#?}");
    assert_eq!(why.outcome, Outcome::Blocked);
}

#[test]
fn nobody_stands_for_an_election_that_cannot_be_won() {
    let mut world = World::settled();
    // A quorum of one finds the master down without the others.
    world.sentinels[0].as_mut().unwrap().agreement.masters[0].config.quorum = 1;
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.run(ms(2_000));
    world.kill_redis(0);
    world.run_until(ms(2_000), "it is down", |world| world.said("+odown") > 0);
    for _ in 0..200 {
        world.run(ms(7));
        let why = why(&world, 0);
        assert_eq!(why.outcome, Outcome::Blocked, "{why:#?}");
        assert_eq!(shut(&why).0, [&Gate::Majority { reachable: 1, needed: 2, of: 3, takeover: false }]);
    }
    // Each attempt would take an epoch.
    assert_eq!((world.said("+try-failover"), world.epoch_seen(0)), (0, 1));
}

#[test]
fn a_failover_is_never_called_blocked_while_it_goes_through() {
    let mut world = World::settled();
    world.kill_redis(0);
    let mut seen = vec![vec![]; 3];
    for _ in 0..6_000 {
        world.run(Duration::from_micros(500));
        for (n, seen) in seen.iter_mut().enumerate() {
            let why = why(&world, n);
            assert_ne!(why.outcome, Outcome::Blocked, "at {}: {why:#?}", world.now);
            if seen.last() != Some(&why.outcome) {
                seen.push(why.outcome);
            }
        }
    }
    for seen in &seen {
        assert!(seen.contains(&Outcome::UnderWay), "{seen:?}");
        assert_eq!(seen.last(), Some(&Outcome::NotNeeded), "{seen:?}");
    }
}

#[test]
fn before_the_first_master_a_majority_has_to_agree() {
    let mut world = World::new();
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.run(ms(5_000));
    let why = why(&world, 0);
    assert_eq!((why.outcome, &why.master), (Outcome::Blocked, &None));
    let (blocks, _) = shut(&why);
    assert_eq!(
        blocks[0],
        &Gate::Decision {
            epoch: None,
            without_record: 1,
            needed: 2,
            waits_for: vec!["n-1".into(), "n-2".into()],
            taken_over: false
        },
        "{why:#?}"
    );
}

#[test]
fn a_switchover_by_order_is_under_way() {
    let mut world = World::settled();
    world.redis[2].stuck = true;
    world.redis[0].write(500);
    world.run(ms(50));
    world.feed(0, Input::Order(OrderId(1), Some(name(2))));
    world.run(ms(100));
    let why = why(&world, 0);
    assert_eq!(why.outcome, Outcome::UnderWay);
    let target = |checked: &Checked| matches!(&checked.gate, Gate::Promotion { target: Some(who), told: false, .. } if who.node == Some(name(2)));
    assert!(why.gates.iter().any(target), "{why:#?}");
}

#[test]
fn a_node_with_another_password_knows_that_it_cannot_lead() {
    let mut world = World::settled();
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.redis.iter_mut().for_each(|redis| redis.password = Some("other".into()));
    world.run(ms(3_000));
    let why = why(&world, 0);
    let (blocks, _) = shut(&why);
    assert!(blocks.contains(&&Gate::Password { refused_by: 3, of: 3 }), "{why:#?}");
    assert_eq!(why.outcome, Outcome::NotNeeded, "who refuses a password is alive");
}
