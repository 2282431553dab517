//! Two of three machines are lost, and an operator gives the third one the writes.

use super::world::*;
use super::*;
use crate::base::EPOCH_STEP;
use crate::base::node::Mode;

/// A cluster whose master and one other node do not answer any more.
fn survivor(mut world: World) -> World {
    world.cut(0, true);
    world.cut(1, true);
    // Its own node has closed it.
    world.leases[0] = None;
    world.run(ms(2_500));
    assert_eq!((world.epoch(2), world.said("+switch-master")), (1, 0), "{:#?}", world.told_events());
    world
}

fn order(world: &mut World, n: usize, input: Input) -> Option<Result<String, String>> {
    world.said_to_operator.clear();
    world.feed(n, input);
    world.run(ms(200));
    world.said_to_operator.pop()
}

fn take_over(world: &mut World, n: usize) -> Option<Result<String, String>> {
    order(world, n, Input::Takeover(OrderId(3)))
}

fn mode(world: &World, n: usize) -> Mode {
    world.disks[n].as_ref().unwrap().masters[0].mode
}

#[test]
fn the_one_that_is_left_takes_over_and_the_others_follow_it_when_they_return() {
    let mut world = survivor(World::fenced());
    let risks = order(&mut world, 2, Input::Risks(OrderId(2))).unwrap().unwrap();
    for said in
        ["1 of 3 sentinels are there, 2 would be", "n-0 (for 2s), n-1 (for 2s)", "n-2 (10.0.0.3:6379)", "offset "]
    {
        assert!(risks.contains(said), "{said}: {risks}");
    }
    assert_eq!(world.epoch(2), 1, "nothing is done by a question");
    let said = take_over(&mut world, 2).unwrap().unwrap();
    assert!(said.contains("taken over by the operator at epoch"), "{said}");
    let epoch = world.epoch(2);
    assert!(epoch > EPOCH_STEP / 2 && epoch < EPOCH_STEP, "{epoch}");
    assert_eq!((world.redis[2].master, mode(&world, 2)), (None, Mode::TakenOver));
    assert!(world.events.iter().any(|(_, n, event)| *n == 2 && event.name == "mode" && event.payload == said));
    let again = take_over(&mut world, 2).unwrap().unwrap_err();
    assert!(again.contains("has taken over already"), "{again}");
    // What comes back follows, though its cluster was fenced, by the word of this one.
    world.cut(1, false);
    world.run(ms(3_000));
    assert_eq!((world.epoch(1), mode(&world, 1)), (epoch, Mode::TakenOver), "{:#?}", world.told_events());
    assert_eq!(world.redis[1].master, Some(redis_at(2)));
    // With all of them the cluster is fenced again, and the master stays.
    world.cut(0, false);
    world.run(ms(8_000));
    assert_eq!(world.master(), Some(2), "{:#?}", world.told_events());
    assert_eq!(world.leases, [None, None, Some(world.epoch(2))], "{:#?}", world.told_events());
    assert!(world.epoch(2) > epoch);
    (0..3).for_each(|n| assert_eq!(mode(&world, n), Mode::Fenced, "{n}"));
    assert!(world.redis[..2].iter().all(|redis| redis.is_in_sync_with(redis_at(2))));
}

#[test]
fn a_majority_that_hears_it_late_gives_it_the_time_to_answer() {
    let mut world = survivor(World::fenced());
    take_over(&mut world, 2).unwrap().unwrap();
    let epoch = world.epoch(2);
    // The others hear each other again, and go on with their master.
    world.cut(2, true);
    world.cut(0, false);
    world.cut(1, false);
    world.leases[0] = Some(1);
    (0..2).for_each(|to| world.tell(0, to, true));
    world.run(ms(3_000));
    assert_eq!([world.epoch(0), world.epoch(1), world.epoch(2)], [1, 1, epoch], "{:#?}", world.told_events());
    world.cut(2, false);
    world.run(ms(100));
    assert_eq!([world.epoch(0), world.epoch(1)], [epoch, epoch], "{:#?}", world.told_events());
    // Its node has given up its lease.
    world.leases[0] = None;
    world.grant();
    world.run(ms(8_000));
    assert_eq!((world.master(), mode(&world, 0)), (Some(2), Mode::Fenced), "{:#?}", world.told_events());
    assert_eq!(world.said("+odown"), 0, "{:#?}", world.told_events());
}

#[test]
fn without_leases_it_is_the_same_and_ends_with_every_sentinel_heard() {
    let mut world = survivor(World::settled());
    take_over(&mut world, 2).unwrap().unwrap();
    assert_eq!((world.redis[2].master, mode(&world, 2)), (None, Mode::TakenOver));
    world.cut(0, false);
    world.cut(1, false);
    world.run(ms(8_000));
    assert_eq!(world.master(), Some(2), "{:#?}", world.told_events());
}

#[test]
fn a_master_that_nobody_hears_goes_on_by_the_word_of_its_operator() {
    let mut world = World::fenced();
    world.cut(1, true);
    world.cut(2, true);
    world.leases[0] = None;
    world.run(ms(2_000));
    take_over(&mut world, 0).unwrap().unwrap();
    assert_eq!((world.redis[0].master, mode(&world, 0)), (None, Mode::TakenOver));
    world.cut(1, false);
    world.cut(2, false);
    world.run(ms(8_000));
    assert_eq!((world.master(), world.leases[0]), (Some(0), Some(world.epoch(1))), "{:#?}", world.told_events());
}

#[test]
fn it_is_refused_where_it_is_not_the_way_out() {
    let refused = |world: &mut World, n: usize, why: &str| {
        let before = world.disks.clone();
        let said = take_over(world, n).unwrap().unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
        let risks = order(world, n, Input::Risks(OrderId(2))).unwrap().unwrap_err();
        assert_eq!(risks, said);
        assert_eq!(world.disks, before, "{why}");
    };
    let mut world = World::fenced();
    refused(&mut world, 2, "a majority of the sentinels is there (3 of 3)");
    let mut world = survivor(World::fenced());
    world.redis[2].loading = true;
    world.run(ms(11_000));
    refused(&mut world, 2, "reads its data from disk");
    let mut world = survivor(World::fenced());
    world.kill_redis(2);
    world.run(ms(1_000));
    refused(&mut world, 2, "the redis of n-2 is dead");
    let mut world = World::alone();
    world.run(ms(3_000));
    refused(&mut world, 0, "only the sentinel of a cluster file");
}

#[test]
fn nothing_is_done_that_cannot_be_stored() {
    // Not even begun.
    let mut world = survivor(World::fenced());
    world.broken[2] = true;
    let refused = take_over(&mut world, 2).unwrap().unwrap_err();
    assert!(refused.contains("cannot store"), "{refused}");
    let promoted = |world: &World| world.redis[2].log.iter().any(|order| order.contains("NO ONE"));
    assert!(!promoted(&world), "{:?}", world.redis[2].log);
    assert_eq!((world.epoch(2), mode(&world, 2)), (1, Mode::Fenced));
    // The decision: nobody hears of it before it is there.
    let mut world = survivor(World::fenced());
    world.said_to_operator.clear();
    world.feed(2, Input::Takeover(OrderId(3)));
    world.broken[2] = true;
    world.run(ms(600));
    assert!(promoted(&world));
    assert!(world.said_to_operator.is_empty(), "{:?}", world.said_to_operator);
    let told = |world: &World| world.facts[2].1.as_ref().unwrap().masters[0].decision.map(|decision| decision.epoch);
    assert_eq!((told(&world), mode(&world, 2)), (Some(1), Mode::Fenced));
    world.broken[2] = false;
    world.run(ms(600));
    assert!(matches!(world.said_to_operator[..], [Ok(_)]), "{:?}", world.said_to_operator);
    assert_eq!((told(&world), mode(&world, 2)), (Some(world.epoch(2)), Mode::TakenOver));
}
