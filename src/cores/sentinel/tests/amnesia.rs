//! A sentinel without a record hears the others before it promises anything.

use super::world::*;
use super::*;

/// A cluster in which sentinel 2 has lost its disk while node 1 was cut off.
fn wiped() -> World {
    let mut world = World::settled();
    world.cut(1, true);
    world.crash_sentinel(2);
    world.disks[2] = None;
    world.start(2);
    world.run(ms(3_000));
    world
}

fn voted(world: &World, n: usize) -> Option<(RunId, Epoch)> {
    world.disks[n].as_ref()?.masters.first()?.vote
}

#[test]
fn it_gives_no_vote_before_it_has_heard_both_others_and_none_up_to_their_epoch() {
    let mut world = wiped();
    world.stands(0, 2, 2);
    world.run(ms(100));
    assert_eq!((world.vote_of(2), world.epoch(2), world.faults[2].clone()), (None, 0, None));
    // A restart is no way out.
    world.crash_sentinel(2);
    world.start(2);
    world.stands(0, 2, 2);
    world.run(ms(6_000));
    assert_eq!((world.vote_of(2), world.epoch(2)), (None, 0));
    let fault = world.faults[2].clone().expect("it says for whom it waits");
    assert!(fault.contains("not heard: n-1; if they are lost for good: vigie bootstrap"), "{fault}");
    assert_eq!(world.said("no-record"), 1);
    world.cut(1, false);
    world.run(ms(500));
    assert_eq!((world.epoch(2), world.faults[2].clone()), (1, None), "{:#?}", world.told_events());
    let epoch = world.epoch_seen(2);
    assert_eq!(voted(&world, 2), Some((NOBODY, epoch)));
    let before = world.vote_of(2);
    world.stands(0, epoch, 2);
    assert_eq!(world.vote_of(2), before, "that epoch may be one in which it has voted");
    world.stands(0, epoch + 1, 2);
    assert_eq!(world.vote_of(2).map(|(_, epoch)| epoch), Some(epoch + 1));
}

#[test]
fn the_first_start_of_a_cluster_needs_every_sentinel_once() {
    let mut world = World::unstarted();
    world.start(0);
    world.start(1);
    world.run(ms(8_000));
    assert_eq!(world.said("+try-failover"), 0, "{:#?}", world.told_events());
    assert!(world.faults[..2].iter().flatten().all(|fault| fault.contains("not heard: n-2")), "{:?}", world.faults);
    world.start(2);
    world.run(ms(3_000));
    assert_eq!((world.master(), world.faults.clone()), (Some(0), vec![None; 3]), "{:#?}", world.told_events());
    // Later two of them suffice.
    world.crash_sentinel(2);
    world.kill_redis(0);
    world.run_until(ms(3_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
}

#[test]
fn an_operator_who_knows_that_the_others_are_lost_says_so() {
    let mut world = World::unstarted();
    world.start(0);
    world.start(1);
    world.run(ms(2_000));
    for n in [0, 1] {
        world.feed(n, Input::Bootstrap(OrderId(9)));
        world.run(ms(10));
        let said = world.said_to_operator.pop().unwrap().unwrap();
        assert!(said.contains("; not heard: n-2"), "{said}");
    }
    world.run(ms(2_000));
    assert_eq!(world.master(), Some(0), "{:#?}", world.told_events());
}

#[test]
fn a_master_that_got_no_lease_for_want_of_records_gets_it_when_there_are_some() {
    let mut world = World::fenced();
    world.cut(1, true);
    world.crash_sentinel(2);
    world.disks[2] = None;
    world.start(2);
    world.leases[0] = None;
    (0..3).for_each(|to| world.tell(0, to, to != 1));
    world.run(ms(3_000));
    // It is not down for want of a lease that nobody can grant it.
    let downs = world.told_events().into_iter().filter(|event| event.contains("s0 +sdown master"));
    assert_eq!((downs.count(), world.epoch(2)), (0, 0), "{:#?}", world.told_events());
    world.feed(2, Input::Bootstrap(OrderId(4)));
    assert!(matches!(world.said_to_operator[..], [Ok(_)]), "{:?}", world.said_to_operator);
    // It grants what the master asks for as soon as they have heard each other.
    world.run(ms(200));
    world.leases[0] = Some(1);
    [0, 2].into_iter().for_each(|to| world.tell(0, to, true));
    world.run(ms(3_000));
    assert_eq!(world.said("+try-failover"), 0, "{:#?}", world.told_events());
    assert_eq!([world.epoch(0), world.epoch(2)], [1, 1]);
    // One that is not granted it even then is replaced, as ever.
    world.leases[0] = None;
    [0, 2].into_iter().for_each(|to| world.tell(0, to, true));
    world.run_until(ms(2_000), "a new master", |world| world.leases[2].is_some());
}
