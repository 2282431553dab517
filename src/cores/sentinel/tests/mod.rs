//! Whole failovers in virtual time.

mod alone;
mod amnesia;
mod commands;
#[path = "../../../../tests/model/mod.rs"]
mod model;
mod redis;
mod session;
mod takeover;
mod why;
mod world;

use crate::base::Machine;
use crate::base::node::{History, Mode, incarnation};
use crate::wire::resp::Reply;

use super::*;
use model::Link;
use world::{DOWN_AFTER, World, ms, name, redis_at};

#[test]
fn a_new_cluster_elects_its_first_master_and_opens_the_replicas() {
    let mut world = World::new();
    let took = world.run_until(ms(1_000), "a first master", |world| world.master() == Some(0));
    assert!(took < ms(200), "{took:?}");
    assert_eq!((world.epoch(0), world.said("+elected-leader")), (1, 1));
    let open = |world: &World| world.redis[1..].iter().all(|redis| redis.is_in_sync_with(redis_at(0)));
    world.run_until(ms(2_000), "replicas follow", open);
}

#[test]
fn nobody_becomes_the_first_master_without_a_majority() {
    let mut world = World::new();
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.run(ms(10_000));
    assert_eq!(world.master(), None);
    assert_eq!(world.epoch(0), 0);
    assert!(world.redis[0].log.is_empty());
    // Their disks are empty as well: the first start needs all of them.
    world.start(1);
    world.start(2);
    world.run_until(ms(3_000), "with a majority", |world| world.redis[0].master.is_none());
}

#[test]
fn a_dead_process_is_replaced_at_once_and_loses_nothing_acknowledged() {
    let mut world = World::settled();
    world.redis[1].undrained = 10;
    world.redis[2].undrained = 300;
    world.run(ms(5));
    world.kill_redis(0);
    let took = world.run_until(ms(1_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
    assert!(took < ms(60), "{took:?}");
    let master = world.master().unwrap();
    assert_eq!(world.redis[master].offset(), 1_000, "it has taken what the dead master had sent");
    assert_eq!(world.said("+try-failover"), 1, "{:#?}", world.told_events());
    // Every sentinel tells its clients at once.
    assert_eq!(world.said("+switch-master"), 3);
    world.restart_redis(0);
    let follows = |world: &World| world.redis[0].is_in_sync_with(redis_at(master));
    world.run_until(ms(2_000), "the old master follows", follows);
}

#[test]
fn a_lost_host_is_replaced_after_down_after_and_not_before() {
    let mut world = World::settled();
    world.run(ms(17));
    world.cut(0, true);
    let start = world.now;
    let took = world.run_until(ms(2_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
    let first = world.events.iter().find(|(_, n, event)| *n != 0 && event.name == "+sdown").unwrap().0.since(start);
    // Its next frame would have come after 75 ms.
    assert!((DOWN_AFTER - ms(1)..DOWN_AFTER + ms(80)).contains(&first), "{first:?}");
    assert!(took < DOWN_AFTER + ms(150), "{took:?}");
    // When the host is back its master is made a replica.
    world.run(ms(5_000));
    assert!(world.redis[0].master.is_none());
    world.cut(0, false);
    let one = |world: &World| world.redis.iter().filter(|redis| redis.master.is_none()).count() == 1;
    world.run_until(ms(2_500), "the old master is converted", one);
    assert!(world.said("+convert-to-slave") >= 1);
    world.run_until(ms(2_000), "all agree", |world| world.master().is_some());
}

#[test]
fn who_is_heard_is_seldom_pinged_and_who_is_missed_at_once() {
    let pings = |world: &World, n: usize| world.pings[n];
    let mut world = World::fenced();
    let before = [0, 1, 2].map(|n| pings(&world, n));
    world.run(ms(10_000));
    // Three sentinels ping each of them twice in down-after, and the two that would be left their master seven times.
    for (n, expected) in [(0, 290..=340), (1, 100..=135), (2, 100..=135)] {
        let pinged = pings(&world, n) - before[n];
        assert!(expected.contains(&pinged), "{n}: {pinged}");
    }
    // Its frames are held up, and it answers.
    let before = pings(&world, 0);
    world.misses(0, 1);
    world.run(ms(1_000));
    assert!(pings(&world, 0) - before > 20, "{}", pings(&world, 0) - before);
    assert_eq!(world.said("+sdown"), 0, "{:#?}", world.told_events());
}

#[test]
fn without_a_peer_link_nothing_is_connected_to_and_nothing_decided() {
    let mut world = World::new();
    world.supervised = false;
    world.redis[0].promote(world.now, world::id(9, 0, 1));
    (1..3).for_each(|n| assert!(world.redis[n].follow(redis_at(0))));
    (0..3).for_each(|n| world.crash_sentinel(n));
    (0..3).for_each(|n| world.start(n));
    world.run(ms(3_000));
    assert!(world.wires.is_empty(), "no address is told a password whose node is not heard");
    assert_eq!((world.master(), world.said("+try-failover")), (None, 0), "{:#?}", world.told_events());
}

#[test]
fn a_busy_redis_is_left_alone_for_its_grace() {
    let mut world = World::settled();
    world.redis[0].hung = true;
    world.run(ms(4_000));
    assert_eq!(world.said("+sdown"), 0, "{:#?}", world.told_events());
    world.redis[0].hung = false;
    world.run(ms(3_000));
    assert_eq!((world.said("+sdown"), world.master()), (0, Some(0)), "{:#?}", world.told_events());
    world.redis[0].hung = true;
    world.run_until(ms(6_000), "busy for too long", |world| world.master().is_some_and(|n| n != 0));
}

#[test]
fn a_split_vote_ends_in_one_leader() {
    let mut world = World::settled();
    // All three stand at the very same moment.
    world.kill_redis(0);
    for n in 0..3 {
        let now = world.now;
        let sentinel = &mut world.sentinels[n].as_mut().unwrap().agreement;
        sentinel.enter(0, lead::Failover::Waiting { cause: lead::Cause::Down, start_at: now });
        let master = sentinel.master_at(0);
        sentinel.masters[0].nodes[master].down_since = Some(now);
        sentinel.masters[0].odown_since = Some(now);
        sentinel.stand(0, lead::Cause::Down, now);
        world.feed(n, Input::Tick);
    }
    let took = world.run_until(ms(5_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
    assert!(world.said("-failover-abort-not-elected") > 0, "the first election must fail: {took:?}");
    assert!(took < ms(500), "nobody waits for votes that cannot come: {took:?}");
    world.run(ms(3_000));
    assert_eq!(world.redis.iter().filter(|redis| redis.alive && redis.master.is_none()).count(), 1);
}

#[test]
fn a_leader_that_dies_is_followed_by_another_one() {
    let mut world = World::settled();
    world.kill_redis(0);
    world.run_until(ms(1_000), "a leader", |world| world.said("+elected-leader") == 1);
    let leader = world.events.iter().find(|(_, _, event)| event.name == "+elected-leader").unwrap().1;
    world.crash_sentinel(leader);
    let took = world.run_until(ms(5_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
    assert!(took < ms(2_000), "{took:?}");
    assert!(world.epoch((leader + 1) % 3) >= 3);
}

#[test]
fn a_switchover_holds_writes_until_the_target_has_everything() {
    let mut world = World::settled();
    world.feed(1, Input::Order(OrderId(1), Some(name(2))));
    let took = world.run_until(ms(1_000), "done", |world| !world.done.is_empty());
    let report = world.done[0].clone().expect("works");
    assert_eq!((report.from, report.to, report.epoch), (redis_at(0), redis_at(2), 2));
    assert!(report.pause.is_some_and(|pause| pause < ms(10)), "{report:?} {took:?}");
    let log = &world.redis[0].log;
    assert_eq!(log[..2], ["PAUSE", "PAUSE"], "held again before the promotion: {log:?}");
    world.run(ms(1_000));
    assert_eq!(world.master(), Some(2));
    assert_eq!(world.redis[0].pause, None);
    assert_eq!(world.redis[0].master, Some(redis_at(2)));
    assert_eq!(world.redis[1].master, Some(redis_at(2)));
    assert_eq!(world.said("+try-failover"), 1, "nobody else begins one: {:#?}", world.told_events());
}

#[test]
fn a_switchover_to_a_lagging_replica_is_undone() {
    let mut world = World::settled();
    world.redis[2].stuck = true;
    world.redis[0].write(500);
    world.run(ms(50));
    world.feed(0, Input::Order(OrderId(1), Some(name(2))));
    let took = world.run_until(ms(5_000), "undone", |world| !world.done.is_empty());
    let why = world.done[0].clone().unwrap_err();
    assert!(why.contains("did not catch up") && why.contains("1000 of 1500"), "{why}");
    assert!(took < ms(2_100), "{took:?}");
    world.run(ms(500));
    assert_eq!((world.master(), world.redis[0].pause), (Some(0), None));
    assert_eq!(world.redis[0].log.last().map(String::as_str), Some("UNPAUSE"));
    assert!(world.redis[2].log.iter().all(|said| said != "REPLICAOF NO ONE"));
    assert_eq!(world.said("+sdown"), 0);
}

#[test]
fn a_master_that_dies_while_it_holds_writes_is_failed_over() {
    let mut world = World::settled();
    world.redis[2].stuck = true;
    world.redis[0].write(500);
    world.run(ms(50));
    world.feed(0, Input::Order(OrderId(1), Some(name(2))));
    world.run(ms(100));
    world.kill_redis(0);
    world.run_until(ms(3_000), "a new master", |world| world.master() == Some(1));
    assert!(world.done[0].is_err());
}

#[test]
fn an_order_does_not_wait_for_what_is_left_of_the_failover_before() {
    let mut world = World::settled();
    // It never gets in sync with the new master, so that the first one does not end.
    world.redis[1].shut_out = true;
    world.feed(0, Input::Order(OrderId(1), Some(name(2))));
    world.run_until(ms(1_000), "done", |world| world.done.len() == 1);
    world.run_until(ms(1_000), "the old master is in sync", |world| world.redis[0].link == Link::Up);
    world.run(ms(1_200));
    let client = &["SENTINEL", "FAILOVER", "mymaster"];
    let refused = Answer::Reply(Reply::Error("INPROG Failover already in progress".into()));
    assert_eq!(world.ask(0, IpAddr::from([127, 0, 0, 1]), client), [refused], "as a client of stock's expects");
    world.feed(0, Input::Order(OrderId(2), Some(name(0))));
    world.run_until(ms(2_000), "back", |world| world.done.len() == 2);
    assert_eq!(world.done[1].as_ref().map(|report| report.to), Ok(redis_at(0)));
    world.redis[1].shut_out = false;
    world.run_until(ms(5_000), "all follow", |world| {
        world.redis[1..].iter().all(|redis| redis.is_in_sync_with(redis_at(0)))
    });
}

#[test]
fn a_vote_asked_for_after_its_decision_was_heard_holds_nothing_up() {
    let mut world = World::settled();
    world.crash_sentinel(2);
    world.kill_redis(0);
    world.run_until(ms(3_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
    world.start(2);
    world.run_until(ms(500), "it knows", |world| world.epoch(2) == world.epoch(1));
    world.restart_redis(0);
    world.run_until(ms(3_000), "the old one follows", |world| world.redis[0].link == Link::Up);
    world.run(ms(1_500));
    let (epoch, before) = (world.epoch(2), world.vote_of(2));
    world.stands(1, epoch, 2);
    assert_eq!(world.vote_of(2), before, "of an epoch that is decided there is nothing to vote on");
    world.feed(2, Input::Order(OrderId(1), Some(name(0))));
    world.run_until(ms(500), "done", |world| !world.done.is_empty());
    assert_eq!(world.done[0].as_ref().map(|report| report.to), Ok(redis_at(0)));
}

#[test]
fn orders_that_cannot_be_met_are_refused_with_the_reason() {
    let mut world = World::settled();
    let mut refused = |to: Option<&str>| {
        world.done.clear();
        world.feed(0, Input::Order(OrderId(1), to.map(|name| name.parse().unwrap())));
        world.done[0].clone().unwrap_err()
    };
    assert!(refused(Some("n-0")).contains("is the master already"));
    assert!(refused(Some("n-9")).contains("has no redis"));
    world.kill_redis(1);
    world.kill_redis(2);
    world.run(ms(1_500));
    world.done.clear();
    world.feed(0, Input::Order(OrderId(2), None));
    assert!(world.done[0].clone().unwrap_err().contains("no replica can take over"), "{:?}", world.done);
}

#[test]
fn a_restarted_cluster_goes_on_with_its_recorded_master() {
    let mut world = World::settled();
    (0..3).for_each(|n| world.crash_sentinel(n));
    (0..3).for_each(|n| world.restart_redis(n));
    world.redis[0].loading = true;
    world.run(ms(500));
    (0..3).for_each(|n| world.start(n));
    // Longer than an unreachable master would be waited for, and others have good histories.
    world.histories[0] = Some(History { epoch: 1, in_sync: true, offset: 1_000 });
    world.histories[1] = Some(History { epoch: 1, in_sync: true, offset: 900 });
    world.run(ms(12_000));
    assert_eq!(world.master(), None, "not before its data is loaded");
    world.redis[0].loading = false;
    world.run_until(ms(3_000), "the recorded master", |world| world.master() == Some(0));
    let synced = |world: &World| world.redis[1..].iter().all(|redis| redis.link == Link::Up && !redis.data.is_empty());
    world.run_until(ms(3_000), "replicas follow", synced);
    assert!(world.epoch(0) > 1);
}

/// Everything stopped before the new master had on disk what it had received: its file is from before.
fn stopped_before_the_master_had_its_data_on_disk() -> World {
    let mut world = World::settled();
    (0..3).for_each(|n| world.crash_sentinel(n));
    (0..3).for_each(|n| world.restart_redis(n));
    (0..3).for_each(|n| world.start(n));
    world
}

#[test]
fn a_recorded_master_whose_disk_is_behind_yields_to_a_better_history() {
    let mut world = stopped_before_the_master_had_its_data_on_disk();
    world.histories[2] = Some(History { epoch: 1, in_sync: true, offset: 900 });
    world.run_until(ms(3_000), "the better history", |world| world.master() == Some(2));
}

#[test]
fn a_recorded_master_whose_disk_is_behind_goes_on_if_nobody_has_better_data() {
    let mut world = stopped_before_the_master_had_its_data_on_disk();
    world.run(ms(4_000));
    assert_eq!(world.master(), None, "others are waited for");
    world.run_until(ms(4_000), "what is left", |world| world.master() == Some(0));
}

#[test]
fn a_master_that_restarts_faster_than_anybody_looks_is_replaced() {
    restarts_empty_before_anybody_looks(World::settled());
}

#[test]
fn a_master_whose_disk_was_replaced_is_another_process() {
    let mut world = World::new();
    world.redis[0].incarnation = incarnation(9, 4);
    world.settle();
    // Its starts are counted from one again, by a supervisor with a smaller number.
    world.redis[0].incarnation = incarnation(3, 0);
    restarts_empty_before_anybody_looks(world);
}

fn restarts_empty_before_anybody_looks(mut world: World) {
    world.restart_redis(0);
    world.redis[0].wipe();
    world.run_until(ms(1_000), "a replica takes over", |world| world.master().is_some_and(|n| n != 0));
    world.run(ms(2_000));
    assert!(world.redis.iter().all(|redis| !redis.data.is_empty()), "the empty one has synchronised");
}

#[test]
fn an_empty_recorded_master_does_not_win_over_data() {
    let mut world = World::settled();
    (0..3).for_each(|n| world.crash_sentinel(n));
    (0..3).for_each(|n| world.restart_redis(n));
    world.redis[0].wipe();
    world.histories[1] = Some(History { epoch: 1, in_sync: true, offset: 900 });
    world.histories[2] = Some(History { epoch: 1, in_sync: true, offset: 1_000 });
    world.run(ms(10));
    (0..3).for_each(|n| world.start(n));
    world.run_until(ms(5_000), "the best history", |world| world.master() == Some(2));
    world.run(ms(2_000));
    assert!(world.redis.iter().all(|redis| !redis.data.is_empty()));
}

#[test]
fn a_recorded_master_that_stays_away_is_given_up_for_the_best_history() {
    let mut world = World::settled();
    (0..3).for_each(|n| world.crash_sentinel(n));
    (0..3).for_each(|n| world.restart_redis(n));
    world.histories[1] = Some(History { epoch: 1, in_sync: true, offset: 1_000 });
    world.histories[2] = Some(History { epoch: 1, in_sync: false, offset: 2_000 });
    world.cut(0, true);
    world.run(ms(10));
    world.start(1);
    world.start(2);
    world.run(ms(5_000));
    assert_eq!(world.master(), None, "it is waited for");
    assert!(world.said("no-candidate") >= 1);
    world.run_until(ms(4_000), "the best history", |world| world.master() == Some(1));
}

#[test]
fn without_any_history_an_operator_has_to_decide() {
    let mut world = World::settled();
    (0..3).for_each(|n| world.crash_sentinel(n));
    (0..3).for_each(|n| world.restart_redis(n));
    world.cut(0, true);
    world.run(ms(10));
    world.start(1);
    world.start(2);
    world.run(ms(20_000));
    assert_eq!(world.master(), None);
    let says = |(_, _, event): &(Instant, usize, Event)| event.payload.contains("an operator must decide");
    assert!(world.events.iter().any(says), "{:#?}", world.told_events());
    assert_eq!(world.said("+try-failover"), 0, "epochs are not burnt");
}

#[test]
fn a_vote_that_cannot_be_stored_is_refused() {
    let mut world = World::settled();
    world.broken = vec![true, true, true];
    let before = world.vote_of(2);
    world.stands(1, 7, 2);
    assert_eq!(world.vote_of(2), before);
    assert!(world.faults[2].is_some());
    // Nobody leads without a disk either.
    world.kill_redis(0);
    world.run(ms(3_000));
    assert!(world.redis[1..].iter().all(|redis| redis.master.is_some()));
    world.broken = vec![false; 3];
    world.run_until(ms(3_000), "with disks again", |world| world.master().is_some_and(|n| n != 0));
    assert_eq!(world.faults[2], None);
}

#[test]
fn a_role_that_waits_for_the_disk_is_not_ordered_once_another_master_is_decided() {
    let ordered = |overtaken: bool| {
        let mut world = World::settled();
        let now = world.now;
        let sentinel = world.sentinels[0].as_mut().unwrap();
        let agreement = &mut sentinel.agreement;
        // A store is under way, and another one is due.
        (agreement.storing, agreement.dirty) = (true, true);
        agreement.tell(0, 2, false);
        if overtaken {
            let decision = Decision { master: redis_at(1), epoch: agreement.masters[0].epoch() + 1 };
            agreement.switch(0, decision, Mode::Unfenced, now);
        }
        let mut out = Vec::new();
        sentinel.handle(now, Input::Stored(Ok(())), &mut out);
        assert!(out.iter().any(|output| matches!(output, Output::Store(_))), "{out:?}");
        sentinel.handle(now, Input::Stored(Ok(())), &mut out);
        let is_order = |output: &&Output| matches!(output, Output::Query { args, .. } if args[0] == "REPLICAOF");
        out.iter().filter(is_order).count()
    };
    assert_eq!((ordered(false), ordered(true)), (1, 0));
}

#[test]
fn a_vote_is_on_disk_before_it_is_given_and_never_given_twice() {
    let mut world = World::settled();
    let [one, other] = [0, 1].map(|n| world.facts[n].1.as_ref().unwrap().id);
    world.stands(0, 7, 2);
    assert_eq!(world.vote_of(2), Some((one, 7)));
    assert_eq!(world.disks[2].as_ref().unwrap().masters[0].vote, Some((one, 7)));
    for epoch in [7, 6] {
        world.stands(1, epoch, 2);
        assert_eq!(world.vote_of(2), Some((one, 7)));
    }
    world.crash_sentinel(2);
    world.start(2);
    world.stands(1, 7, 2);
    assert_eq!(world.vote_of(2), Some((one, 7)), "also after a crash");
    world.stands(1, 8, 2);
    assert_eq!(world.vote_of(2), Some((other, 8)));
}

#[test]
fn nobody_is_given_a_vote_but_the_sentinels_of_the_file() {
    let mut world = World::settled();
    let before = (world.vote_of(2), world.disks.clone());
    let peer = world.facts[1].1.as_ref().unwrap().id.to_string();
    // By an invented id, and in the name of a sentinel that speaks on the peer link, from its own address.
    for candidate in ["00112233445566778899aabbccddeeff00112233", &peer] {
        let ask = ["SENTINEL", "is-master-down-by-addr", "10.0.0.1", "6379", "7", candidate];
        let answers = world.ask(2, redis_at(1).ip(), &ask);
        let [Answer::Reply(Reply::Array(reply))] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((reply[1].text(), reply[2].integer()), (Some("*"), Some(0)));
    }
    world.run(ms(3_000));
    assert_eq!((world.vote_of(2), world.disks.clone()), before);
    assert_eq!(world.said("candidate-refused"), 1, "{:#?}", world.told_events());
}

#[test]
fn a_sentinel_with_the_disk_of_another_life_finds_its_way_back_by_order() {
    let mut world = World::settled();
    let bootstrap = |world: &mut World, n: usize| {
        world.said_to_operator.clear();
        world.feed(n, Input::Bootstrap(OrderId(9)));
        world.said_to_operator.pop().unwrap()
    };
    assert!(bootstrap(&mut world, 2).unwrap_err().contains("in step: its epoch is 1"));
    world.crash_sentinel(2);
    world.disks[2].as_mut().unwrap().current_epoch = 1 << 50;
    world.start(2);
    world.run(ms(500));
    let fault = world.faults[2].clone().expect("it tells what is wrong");
    assert!(fault.contains("a majority of the others has got to 1 ") && fault.ends_with("vigie bootstrap"), "{fault}");
    world.crash_sentinel(1);
    world.run(ms(1_000));
    assert_eq!(bootstrap(&mut world, 2), Err("every sentinel must be heard; not heard: n-1".to_owned()));
    world.start(1);
    world.run(ms(500));
    assert!(bootstrap(&mut world, 2).unwrap().contains("goes on from epoch 1"));
    world.run(ms(100));
    assert_eq!(world.faults, [None, None, None]);
    let voted =
        |world: &World| world.disks[2].as_ref().map(|disk| (disk.current_epoch, disk.masters[0].vote.unwrap().1));
    assert_eq!(voted(&world), Some((1, 1)), "all of what the others have got to counts as voted");
    // Its vote counts again: with another one gone there is no majority without it.
    world.crash_sentinel(1);
    world.kill_redis(0);
    world.run_until(ms(3_000), "a new master", |world| world.redis[1..].iter().any(|redis| redis.master.is_none()));
    assert_eq!(world.epoch_seen(2), 2);
}

#[test]
fn an_epoch_out_of_reach_is_taken_over_from_a_majority_only() {
    let mut world = World::settled();
    let far = 1 << 40;
    world.stands(1, far, 2);
    assert_eq!((world.epoch_seen(2), world.said("epoch-refused")), (1, 1), "{:#?}", world.told_events());
    world.stands(0, far, 2);
    assert_eq!(world.epoch_seen(2), far);
    world.stands(0, far + 1_000, 2);
    assert_eq!(world.epoch_seen(2), far + 1_000, "a step");
}

#[test]
fn a_wrong_password_is_no_reason_for_a_failover() {
    let mut world = World::settled();
    world.redis[0].password = Some("other".into());
    world.run(ms(5_000));
    assert!(world.said("+auth-failed") >= 3, "{:#?}", world.told_events());
    assert_eq!((world.said("+sdown"), world.said("+try-failover")), (0, 0));
    assert!(world.faults.iter().all(|fault| fault.as_deref().is_some_and(|text| text.contains("password"))));
    world.redis[0].password = None;
    world.run(ms(2_000));
    assert_eq!(world.faults, [None, None, None]);
}

#[test]
fn hello_garbage_changes_nothing() {
    let mut world = World::settled();
    let before: Vec<Option<Durable>> = world.disks.clone();
    let evil = "33".repeat(20);
    for payload in [
        String::new(),
        "a,b,c,d,e,f,g,h".to_owned(),
        format!("10.0.0.2,26379,{evil},18446744073709551615,mymaster,10.0.0.3,6379,18446744073709551615"),
        format!("10.0.0.2,26379,{evil},9,other,10.0.0.3,6379,9"),
        format!("10.9.9.9,26379,{evil},9,mymaster,10.0.0.3,6379,9"),
        // What would be a good one of a stock sentinel, if the file listed any.
        format!("10.0.0.2,26379,{evil},9,mymaster,10.0.0.3,6379,9"),
        format!("10.0.0.2,26379,{evil},9007199254740992,mymaster,10.0.0.3,6379,9007199254740992"),
        "x".repeat(10_000),
    ] {
        world.ask(0, redis_at(1).ip(), &["PUBLISH", "__sentinel__:hello", &payload]);
    }
    world.run(ms(3_000));
    assert_eq!(world.disks, before);
    assert_eq!(world.master(), Some(0));
    assert_eq!(world.said("greeting-refused"), 1, "{:#?}", world.told_events());
}

#[test]
fn a_decision_outside_of_the_file_changes_nothing() {
    let mut world = World::settled();
    let before = world.disks.clone();
    let (redis, sentinel) = world.facts[1].clone();
    let mut facts = sentinel.unwrap();
    facts.current_epoch = 2;
    facts.masters[0].decision = Some(Decision { master: "10.6.6.6:6379".parse().unwrap(), epoch: 2 });
    let facts = NodeFacts::unfenced(name(1), Some(redis), Some(facts), true);
    world.feed(2, Input::Facts(Box::new(facts)));
    assert_eq!(world.said("master-refused"), 1, "{:#?}", world.told_events());
    assert_eq!(world.disks[2].as_ref().unwrap().masters, before[2].as_ref().unwrap().masters);
    assert!(world.wires.values().all(|wire| wire.address.ip() != "10.6.6.6".parse::<IpAddr>().unwrap()));
}

#[test]
fn a_paused_machine_does_not_take_its_own_silence_for_that_of_others() {
    let mut world = World::settled();
    // Nothing ran for ten seconds: all deadlines are long over.
    world.now = world.now + ms(10_000);
    world.run(ms(3_000));
    assert_eq!((world.said("+sdown"), world.master()), (0, Some(0)), "{:#?}", world.told_events());
    assert!(world.said("paused") >= 3);
}

#[test]
fn a_sentinel_that_was_away_learns_the_decision() {
    let mut world = World::settled();
    world.crash_sentinel(2);
    world.kill_redis(0);
    world.run_until(ms(3_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
    world.start(2);
    world.run_until(ms(500), "it knows", |world| world.epoch(2) == world.epoch(1));
    assert!(world.said("+config-update-from") >= 1);
}

#[test]
fn a_minority_replaces_nobody() {
    let mut world = World::settled();
    world.cut(2, true);
    world.run(ms(10_000));
    assert_eq!(world.epoch(2), 1);
    assert!(world.redis[2].master.is_some());
    let alone: Vec<_> = world.events.iter().filter(|(_, n, event)| *n == 2 && event.name == "+odown").collect();
    assert!(alone.is_empty(), "{alone:?}");
    world.cut(2, false);
    world.run(ms(3_000));
    assert_eq!(world.master(), Some(0));
    assert_eq!(world.said("+switch-master"), 0);
}

mod fenced {
    use super::*;

    /// Whom a redis was ordered by a sentinel to be the master of, or anything like it.
    fn ordered(world: &World, n: usize) -> Vec<String> {
        let orders = world.redis[n].log.iter().filter(|order| order.contains("REPLICAOF"));
        orders.cloned().collect()
    }

    #[test]
    fn the_first_master_takes_its_lease_and_no_sentinel_orders_it() {
        let mut world = World::fenced();
        assert_eq!((world.master(), world.leases.clone()), (Some(0), vec![Some(1), None, None]));
        // A lost process and a lost host are replaced as ever; what is waited for is the lease.
        world.kill_redis(0);
        world.leases[0] = None;
        let took = world.run_until(ms(1_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
        assert!(took < ms(60), "{took:?}");
        let master = world.master().unwrap();
        assert!(ordered(&world, master).is_empty(), "{:?}", world.redis[master].log);
        assert_eq!(world.said("+switch-master"), 3);
        assert_eq!(world.leases[master], Some(world.epoch(0)));
    }

    #[test]
    fn who_gets_no_lease_is_passed_over_in_a_new_epoch() {
        let mut world = World::fenced();
        world.run(ms(17));
        // It is lost, and its lease has not ended.
        world.cut(0, true);
        world.run_until(ms(2_000), "one gives up", |world| world.said("-failover-abort-slave-timeout") == 1);
        let (epoch, events) = (world.epoch_seen(1).max(world.epoch_seen(2)), world.told_events());
        assert!(world.master() == Some(0) || world.master().is_none(), "{events:#?}");
        world.leases[0] = None;
        world.grant();
        world.run_until(ms(5_000), "a new master", |world| world.leases[1].max(world.leases[2]) > Some(epoch));
        assert_eq!(world.leases.iter().flatten().count(), 1, "{:?}", world.leases);
    }

    #[test]
    fn one_that_is_granted_the_lease_and_does_not_open_goes_last() {
        let mut world = World::fenced();
        world.refuses[1] = true;
        world.kill_redis(0);
        world.leases[0] = None;
        world.run_until(ms(5_000), "another master", |world| world.leases[2].is_some());
        assert!(world.said("-failover-abort-slave-timeout") >= 2, "{:#?}", world.told_events());
        // Better than nobody, once it has recovered.
        world.refuses[1] = false;
        world.kill_redis(2);
        world.leases[2] = None;
        world.run_until(ms(5_000), "the only one", |world| world.leases[1].is_some());
    }

    #[test]
    fn sentinels_that_hear_each_other_again_wait_for_their_master() {
        let mut world = World::fenced();
        let epoch = world.epoch(0);
        // A switch that is restarted: nobody hears anybody, and nobody is granted anything.
        (0..3).for_each(|n| world.cut(n, true));
        world.run(ms(300));
        world.leases[0] = None;
        world.tell(0, 0, true);
        world.run(ms(4_700));
        (0..3).for_each(|n| world.cut(n, false));
        world.run(ms(100));
        // It asks, and is granted the lease again.
        world.leases[0] = Some(epoch);
        (0..3).for_each(|to| world.tell(0, to, true));
        world.run(ms(3_000));
        assert_eq!((world.master(), world.epoch(1)), (Some(0), epoch), "{:#?}", world.told_events());
        assert_eq!(world.said("+try-failover"), 0, "{:#?}", world.told_events());
        // One that is gone is replaced then.
        (0..3).for_each(|n| world.cut(n, true));
        world.run(ms(5_000));
        world.leases[0] = None;
        world.cut(1, false);
        world.cut(2, false);
        let took = world.run_until(ms(2_000), "a new master", |world| world.leases[1].or(world.leases[2]).is_some());
        assert!(took < DOWN_AFTER + ms(300), "{took:?}");
    }

    #[test]
    fn nobody_is_elected_below_what_the_records_of_the_data_have_got_to() {
        let record = |epoch| Some(History { epoch, in_sync: true, offset: 0 });
        for (recorded, next) in [(503, 504), (751, 752), (9_000, 2)] {
            let mut world = World::fenced();
            assert_eq!(world.epoch(0), 1);
            world.histories[1] = record(recorded);
            world.announce(1);
            world.run(ms(100));
            world.kill_redis(0);
            world.leases[0] = None;
            world.run_until(ms(1_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
            assert_eq!(world.epoch(1), next, "{:#?}", world.told_events());
        }
    }

    #[test]
    fn a_leader_that_dies_before_it_hears_of_its_success_changes_nothing() {
        let mut world = World::fenced();
        world.kill_redis(0);
        world.leases[0] = None;
        let taken = |world: &World| world.leases[1].or(world.leases[2]).is_some();
        world.run_until(ms(1_000), "a lease", taken);
        let leader = (0..3).find(|n| world.facts[*n].1.as_ref().is_some_and(|facts| facts.masters[0].target.is_some()));
        world.crash_sentinel(leader.expect("somebody has named it"));
        let master = if world.leases[1].is_some() { 1 } else { 2 };
        let epoch = world.leases[master].unwrap();
        world.run(ms(3_000));
        let others = (0..3).filter(|n| Some(*n) != leader);
        others.for_each(|n| assert_eq!(world.epoch(n), epoch, "sentinel {n}"));
        assert_eq!(world.leases.iter().flatten().count(), 1);
    }

    #[test]
    fn a_master_that_answers_and_holds_no_lease_is_down_and_replaced() {
        let mut world = World::fenced();
        let epoch = world.epoch(0);
        world.leases[0] = None;
        (0..3).for_each(|to| world.tell(0, to, true));
        world.run(DOWN_AFTER - ms(50));
        assert_eq!(world.master(), Some(0), "its lease may return");
        let took =
            world.run_until(ms(2_000), "a new master", |world| world.leases[1].max(world.leases[2]) > Some(epoch));
        assert!(took < ms(500), "{took:?}");
        assert!(world.redis[0].alive);
    }

    #[test]
    fn nobody_is_chosen_whose_node_hears_no_majority() {
        let mut world = World::fenced();
        // Nodes 1 and 2 do not hear their supervisors say that they hear one another.
        world.supervised = false;
        for n in [1, 2] {
            for to in 0..3 {
                let (redis, sentinel) = world.facts[n].clone();
                let facts = NodeFacts::unfenced(name(n), Some(redis), sentinel, true);
                world.feed(to, Input::Facts(Box::new(facts)));
            }
        }
        world.give(0, Input::Order(OrderId(1), Some(name(1))));
        world.run(ms(1_500));
        let [Err(why)] = &world.done[..] else { panic!("{:?}", world.done) };
        assert!(why.contains("cut off from the majority"), "{why}");
    }
}
