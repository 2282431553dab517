use super::world::*;
use super::*;
use crate::base::node::Mode;

fn answer(world: &mut World, n: usize, args: &[&str]) -> Reply {
    let answers = world.ask(n, redis_at(n).ip(), args);
    match answers.into_iter().next() {
        Some(Answer::Reply(reply)) => reply,
        other => panic!("{args:?} is answered with {other:?}"),
    }
}

fn ok() -> Reply {
    Reply::Simple("OK".into())
}

#[test]
fn sentinels_find_each_other_and_the_replicas() {
    let mut world = World::alone();
    world.run(ms(5_000));
    for n in 0..3 {
        assert_eq!(world.states.as_ref().unwrap()[n].masters[0].replicas.len(), 2, "{:#?}", world.told_events());
        assert_eq!(world.states.as_ref().unwrap()[n].masters[0].sentinels.len(), 2, "{:#?}", world.told_events());
        let Reply::Simple(text) = answer(&mut world, n, &["SENTINEL", "CKQUORUM", "mymaster"]) else { panic!() };
        assert!(text.starts_with("OK 3 usable"), "{text}");
    }
}

#[test]
fn a_silent_master_is_replaced_after_down_after_and_not_before() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.kill_redis(0);
    let took = world.run_until(ms(5_000), "a new master", |world| world.master().is_some());
    assert!((ms(500)..ms(900)).contains(&took), "{took:?}");
    world.run(ms(5_000));
    let master = world.master().unwrap();
    let states = world.states.clone().unwrap();
    for state in &states {
        assert_eq!(state.masters[0].place.host, redis_at(master).ip().to_string());
        assert!(state.masters[0].config_epoch > 0);
    }
    let other = 3 - master;
    assert_eq!(world.redis[other].master, Some(redis_at(master)));
    // It comes back as the master that it was.
    world.restart_redis_as(0, None);
    world.run_until(ms(5_000), "the old master follows", |world| world.redis[0].master == Some(redis_at(master)));
}

#[test]
fn what_a_restart_finds_in_its_file_is_what_it_knew() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.kill_redis(0);
    world.run_until(ms(5_000), "a new master", |world| world.master().is_some());
    world.run(ms(5_000));
    let before = world.states.clone().unwrap();
    for n in 0..3 {
        world.crash_sentinel(n);
    }
    world.events.clear();
    (0..3).for_each(|n| world.start(n));
    world.run(ms(5_000));
    assert_eq!(world.states.as_ref().unwrap(), &before);
    assert_eq!(world.said("+switch-master") + world.said("+sentinel-invalid-addr"), 0, "{:#?}", world.told_events());
}

#[test]
fn a_change_that_cannot_be_saved_changes_nothing() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.broken[0] = true;
    let orders: [&[&str]; 4] = [
        &["SENTINEL", "SET", "mymaster", "quorum", "3"],
        &["SENTINEL", "MONITOR", "other", "10.0.0.2", "6379", "1"],
        &["SENTINEL", "REMOVE", "mymaster"],
        &["SENTINEL", "CONFIG", "SET", "announce-port", "7"],
    ];
    for order in orders {
        let Reply::Error(text) = answer(&mut world, 0, order) else { panic!("{order:?} is not refused") };
        assert!(text.starts_with("ERR Failed to save config file"), "{text}");
    }
    let sentinel = &world.sentinels[0].as_ref().unwrap().agreement;
    assert_eq!(sentinel.masters.len(), 1);
    assert_eq!((sentinel.masters[0].config.quorum, sentinel.settings.announce_port), (2, None));
    world.broken[0] = false;
    for order in orders {
        assert_eq!(answer(&mut world, 0, order), ok(), "{order:?}");
    }
    let state = &world.states.as_ref().unwrap()[0];
    assert_eq!(state.masters.len(), 1);
    assert_eq!((state.masters[0].config.name.as_str(), state.settings.announce_port), ("other", Some(7)));
}

#[test]
fn options_are_set_all_or_none() {
    let mut world = World::alone();
    world.run(ms(3_000));
    let set = |world: &mut World, args: &[&str]| answer(world, 0, &[&["SENTINEL", "SET", "mymaster"], args].concat());
    let refused = |world: &mut World, args: &[&str], text: &str| {
        let Reply::Error(said) = set(world, args) else { panic!("{args:?} is not refused") };
        assert!(said.contains(text), "{said}");
        assert_eq!(world.sentinels[0].as_ref().unwrap().agreement.masters[0].config.quorum, 2);
    };
    refused(&mut world, &["quorum", "1", "down-after-milliseconds", "-20"], "Invalid argument '-20'");
    refused(&mut world, &["quorum", "1", "fakeoption", "1"], "Unknown option or number of arguments");
    refused(&mut world, &["quorum", "1", "rename-command", "PING"], "Unknown option or number of arguments");
    refused(&mut world, &["quorum", "1", "notification-script", "/bin/true"], "denied for security reasons");
    world.sentinels[0].as_mut().unwrap().agreement.settings.deny_scripts_reconfig = false;
    refused(&mut world, &["quorum", "1", "notification-script", "/none"], "Notification script seems non existing");
    assert_eq!(set(&mut world, &["notification-script", "/bin/true", "client-reconfig-script", "/bin/x"]), ok());
    assert_eq!(set(&mut world, &["rename-command", "ping", "PONG", "auth-pass", "secret", "quorum", "1"]), ok());
    let state = &world.states.as_ref().unwrap()[0].masters[0];
    assert_eq!(state.config.renames, [("ping".to_owned(), "PONG".to_owned())]);
    assert!(world.events.iter().all(|(_, _, event)| !event.payload.contains("secret")));
    assert_eq!(set(&mut world, &["rename-command", "PING", "PING"]), ok());
    assert!(world.states.as_ref().unwrap()[0].masters[0].config.renames.is_empty());
}

#[test]
fn a_simulated_failure_ends_the_leader_where_it_was_asked_for() {
    for (flag, promoted) in [("crash-after-election", false), ("crash-after-promotion", true)] {
        let mut world = World::alone();
        world.run(ms(5_000));
        for n in 0..3 {
            assert_eq!(answer(&mut world, n, &["SENTINEL", "SIMULATE-FAILURE", flag]), ok());
        }
        world.kill_redis(0);
        world.run_until(ms(5_000), "the leader ends", |world| !world.exits.is_empty());
        assert_eq!(world.exits[0].1, 99);
        let states = world.states.as_ref().unwrap();
        assert_eq!(states.iter().any(|state| state.masters[0].config_epoch > 0), promoted, "{flag}");
    }
}

#[test]
fn each_simulate_failure_replaces_the_one_before() {
    let mut world = World::alone();
    world.run(ms(5_000));
    for n in 0..3 {
        assert_eq!(answer(&mut world, n, &["SENTINEL", "SIMULATE-FAILURE", "crash-after-election"]), ok());
        assert!(matches!(answer(&mut world, n, &["SENTINEL", "SIMULATE-FAILURE", "help"]), Reply::Array(_)));
    }
    world.kill_redis(0);
    world.run_until(ms(5_000), "a new master", |world| world.master().is_some());
    assert_eq!(world.exits, []);
}

#[test]
fn a_replica_promoted_by_a_leader_that_died_is_taken_where_there_is_no_other() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.kill_redis(2);
    world.run(ms(2_000));
    world.kill_redis(0);
    world.run_until(ms(5_000), "the replica becomes a master", |world| world.redis[1].master.is_none());
    let leader = world.events.iter().find(|(_, _, event)| event.name == "+elected-leader").unwrap().1;
    world.crash_sentinel(leader);
    world.run_until(ms(5_000), "the others agree on it", |world| world.master() == Some(1));
    assert_eq!(world.redis[1].log, ["REPLICAOF NO ONE", "REPLICAOF NO ONE"]);
}

#[test]
fn a_disk_that_is_full_is_said_at_once_and_what_waits_for_it_later() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.broken[2] = true;
    world.events.clear();
    world.kill_redis(0);
    world.run(ms(5_000));
    let said =
        |world: &World, name: &str| world.events.iter().filter(|(_, n, event)| *n == 2 && event.name == name).count();
    assert_eq!(said(&world, "store-failed"), 1, "{:#?}", world.told_events());
    assert!(said(&world, "+sdown") > 0, "{:#?}", world.told_events());
    assert_eq!(said(&world, "+switch-master") + said(&world, "+vote-for-leader"), 0, "{:#?}", world.told_events());
    let master = world.sentinels[0].as_ref().unwrap().agreement.decision(0).unwrap();
    assert!(master.epoch > 0, "the other two are a majority");
    world.broken[2] = false;
    world.run(ms(2_000));
    assert_eq!((said(&world, "store-works"), said(&world, "+switch-master")), (1, 1), "{:#?}", world.told_events());
    assert_eq!(world.states.as_ref().unwrap()[2].masters[0].config_epoch, master.epoch);
}

#[test]
fn nobody_is_promoted_while_no_sentinel_can_store_its_vote() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.broken = vec![true; 3];
    world.events.clear();
    world.kill_redis(0);
    world.run(ms(10_000));
    assert_eq!(world.said("store-failed"), 3, "{:#?}", world.told_events());
    assert_eq!(world.said("+vote-for-leader") + world.said("+elected-leader"), 0, "{:#?}", world.told_events());
    assert!(world.redis[1..].iter().all(|redis| redis.master.is_some()));
    world.broken = vec![false; 3];
    world.run_until(ms(5_000), "they go on by themselves", |world| world.master().is_some());
}

#[test]
fn an_order_counts_where_most_sentinels_are_lost() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.run(ms(2_000));
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster"]), ok());
    world.run_until(ms(3_000), "the order is carried out", |world| world.master().is_some_and(|master| master != 0));
    world.run(ms(100));
    assert_eq!(world.redis[0].pause, None, "the hold is released");
}

#[test]
fn an_order_that_needs_nobody_else_needs_the_own_vote_on_disk() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.run(ms(2_000));
    world.broken[0] = true;
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster"]), ok());
    world.run(ms(12_000));
    assert_eq!(world.master(), Some(0));
    let log: Vec<_> = world.redis.iter().flat_map(|redis| &redis.log).collect();
    assert!(log.is_empty(), "nobody is told anything: {log:?}");
    world.broken[0] = false;
    world.run(ms(1_000));
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster"]), ok());
    world.run_until(ms(3_000), "the order is carried out", |world| world.master().is_some_and(|master| master != 0));
}

#[test]
fn a_coordinated_order_asks_the_others_and_goes_ahead_with_them_only() {
    let order = ["SENTINEL", "FAILOVER", "mymaster", "Coordinated"];
    let mut world = World::alone();
    world.run(ms(5_000));
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.run(ms(2_000));
    world.events.clear();
    assert_eq!(answer(&mut world, 0, &order), ok());
    world.run_until(ms(15_000), "given up", |world| world.said("-failover-abort-not-elected") == 1);
    assert_eq!((world.master(), world.redis[0].log.len()), (Some(0), 0), "{:?}", world.redis[0].log);
    (1..3).for_each(|n| world.start(n));
    world.run(ms(5_000));
    assert_eq!(answer(&mut world, 0, &order), ok());
    assert_eq!(answer(&mut world, 0, &order), Reply::Error("INPROG Failover already in progress".into()));
    world.run_until(ms(3_000), "the order is carried out", |world| world.master().is_some_and(|master| master != 0));
    world.run(ms(100));
    assert_eq!(world.redis[0].log[0], "PAUSE");
    assert_eq!(world.redis[0].pause, None, "the hold is released");
}

#[test]
fn only_a_plain_order_goes_ahead_where_the_master_cannot_hold_its_writes() {
    let mut world = World::alone();
    let denied = "NOPERM this user has no permissions to run the 'client|pause' command";
    world.redis[0].refuses.push(("CLIENT PAUSE".into(), denied.into()));
    world.run(ms(5_000));
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster", "COORDINATED"]), ok());
    world.run_until(ms(3_000), "given up", |world| world.said("-failover-abort-master-timeout") == 1);
    world.run(ms(1_000));
    assert_eq!((world.master(), world.said("unheld")), (Some(0), 0));
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster"]), ok());
    world.run_until(ms(3_000), "carried out", |world| world.master().is_some_and(|master| master != 0));
    assert_eq!(world.said("unheld"), 1, "and what it risks is said");
}

#[test]
fn an_order_that_cannot_be_coordinated_is_refused() {
    let mut world = World::alone();
    world.run(ms(5_000));
    let unknown = Reply::Error("ERR Unknown failover option specified".into());
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster", "FORCE"]), unknown);
    world.crash_sentinel(1);
    world.crash_sentinel(2);
    world.kill_redis(0);
    world.run_until(ms(5_000), "down", |world| world.said("+sdown") > 0);
    let down = Reply::Error("NOGOODPRIMARY Primary is down and cannot hold its writes".into());
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster", "COORDINATED"]), down);
}

#[test]
fn scripts_are_told_of_what_happens() {
    let mut world = World::alone();
    for state in world.states.as_mut().unwrap() {
        state.masters[0].config.notification_script = Some("/bin/notify".into());
        state.masters[0].config.client_reconfig_script = Some("/bin/reconfigure".into());
    }
    (0..3).for_each(|n| world.start(n));
    world.run(ms(5_000));
    world.kill_redis(0);
    world.run_until(ms(5_000), "a new master", |world| world.master().is_some());
    world.run(ms(2_000));
    let master = redis_at(world.master().unwrap()).ip().to_string();
    let old = redis_at(0).ip().to_string();
    let argv = |request: &scripts::Request| match request {
        scripts::Request::Start { argv, .. } => argv.clone(),
        scripts::Request::Kill(_) => vec![],
    };
    for n in 0..3 {
        let told: Vec<_> = world.scripts.iter().filter(|(by, _)| *by == n).map(|(_, request)| argv(request)).collect();
        let switch = format!("mymaster {old} 6379 {master} 6379");
        assert!(told.contains(&["/bin/notify", "+switch-master", &switch].map(str::to_owned).to_vec()), "{told:#?}");
        let role = if world.events.iter().any(|(_, by, event)| *by == n && event.name == "+elected-leader") {
            "leader"
        } else {
            "observer"
        };
        let call = ["/bin/reconfigure", "mymaster", role, "start", &old, "6379", &master, "6379"];
        let calls: Vec<_> = told.iter().filter(|argv| argv[0] == call[0]).collect();
        assert_eq!(calls, [&call.map(str::to_owned).to_vec()]);
        assert!(!told.iter().any(|argv| argv[1] == "+slave"), "notices are not told");
    }
}

#[test]
fn hosts_are_known_by_name_where_that_is_wanted() {
    let mut world = World::alone();
    for state in world.states.as_mut().unwrap() {
        state.masters[0].place.host = "host-0".into();
        (state.settings.resolve_hostnames, state.settings.announce_hostnames) = (true, true);
    }
    (0..3).for_each(|n| world.start(n));
    world.run(ms(5_000));
    let address = |world: &mut World| answer(world, 1, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
    let said = |host: &str| {
        Reply::Array(vec![Reply::Bulk(Bytes::copy_from_slice(host.as_bytes())), Reply::Bulk("6379".into())])
    };
    assert_eq!(address(&mut world), said("host-0"));
    assert_eq!(world.states.as_ref().unwrap()[1].masters[0].place.host, "host-0");
    assert_eq!(world.states.as_ref().unwrap()[1].masters[0].replicas.len(), 2);
    assert_eq!(answer(&mut world, 1, &["SENTINEL", "CONFIG", "SET", "announce-hostnames", "no"]), ok());
    assert_eq!(address(&mut world), said(&redis_at(0).ip().to_string()));
    world.kill_redis(0);
    world.run_until(ms(5_000), "a new master", |world| world.master().is_some());
    // One that is not known is asked for first.
    let client = redis_at(0).ip();
    assert_eq!(world.ask(1, client, &["SENTINEL", "MONITOR", "other", "host-2", "6379", "1"]), []);
    world.run(ms(10));
    assert_eq!(world.states.as_ref().unwrap()[1].masters[1].place.host, "host-2");
    assert_eq!(world.ask(1, client, &["SENTINEL", "MONITOR", "third", "nowhere", "6379", "1"]), []);
    world.run(ms(10));
    let answers: Vec<_> = world.answers.values().flatten().cloned().collect();
    let refusal = Reply::Error("ERR Invalid IP address or hostname specified".into());
    assert_eq!(answers, [Answer::Reply(ok()), Answer::Reply(refusal)]);
}

#[test]
fn a_master_that_was_started_anew_and_reads_its_data_for_long_is_replaced() {
    let mut world = World::alone();
    world.run(ms(5_000));
    for n in 0..3 {
        let set = ["SENTINEL", "SET", "mymaster", "master-reboot-down-after-period", "2000"];
        assert_eq!(answer(&mut world, n, &set), ok());
    }
    world.kill_redis(0);
    world.redis[0].save();
    world.redis[0].start(id(7, 0, 2), id(9, 0, 99), None);
    assert!(world.redis[0].loading);
    for replica in &mut world.redis[1..] {
        replica.stuck = true;
    }
    let took = world.run_until(ms(9_000), "a new master", |world| world.master().is_some_and(|master| master != 0));
    assert!(took > ms(2_000), "{took:?}");
}

#[test]
fn nobody_hears_of_a_decision_that_is_not_on_disk() {
    let mut world = World::alone();
    world.run(ms(5_000));
    world.kill_redis(0);
    world.run_until(ms(5_000), "a vote", |world| world.said("+elected-leader") > 0);
    let leader = world.events.iter().find(|(_, _, event)| event.name == "+elected-leader").unwrap().1;
    world.broken[leader] = true;
    world.run(ms(1_000));
    let answer = answer(&mut world, leader, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
    let old = Reply::Array(vec![Reply::Bulk(redis_at(0).ip().to_string().into()), Reply::Bulk("6379".into())]);
    assert!(matches!(answer, Reply::Error(_)) || answer == old, "{answer:?}");
}

#[test]
fn clients_that_say_nothing_are_dropped_unless_they_listen() {
    let config = World::alone().config(0);
    let config = Config { membership: Membership::Discovered { port: 26379 }, masters: vec![], ..config };
    let start = Instant::from_millis(1_000);
    let sentinel = Sentinel::alone(&config, State::default(), id(5, 0, 1), start);
    let mut sentinel = sentinel.with_idle_limit(Some(ms(5_000)));
    let mut killed = |now: Instant, input: Input| {
        let mut out = vec![];
        sentinel.handle(now, input, &mut out);
        out.retain(|output| matches!(output, Output::Kill(_)));
        out
    };
    let sockets = Sockets { peer: "10.0.0.9:1000".parse().unwrap(), local: "10.0.0.1:26379".parse().unwrap(), fd: 9 };
    for client in [1, 2] {
        assert_eq!(killed(start, Input::ClientCame(ClientId(client), sockets)), []);
    }
    let subscribe = ["SUBSCRIBE", "+switch-master"].map(|word| Bytes::from_static(word.as_bytes())).to_vec();
    assert_eq!(killed(start, Input::Command(ClientId(2), subscribe)), []);
    assert_eq!(killed(start + ms(4_500), Input::Tick), []);
    assert_eq!(killed(start + ms(6_000), Input::Tick), [Output::Kill(ClientId(1))]);
    assert_eq!(killed(start + ms(60_000), Input::Tick), []);
}

#[test]
fn writes_are_released_even_if_the_decision_could_not_be_stored_at_first() {
    let mut world = World::alone();
    world.run(ms(5_000));
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster"]), ok());
    world.run_until(ms(3_000), "a promotion", |world| world.redis[1..].iter().any(|redis| redis.master.is_none()));
    world.broken[0] = true;
    world.run(ms(300));
    assert!(world.redis[0].pause.is_some() && world.redis[0].master.is_none(), "nothing is told");
    world.broken[0] = false;
    world.run_until(ms(2_000), "the old master follows", |world| world.redis[0].master.is_some());
    world.run(ms(100));
    assert_eq!(world.redis[0].pause, None, "{:?}", world.redis[0].log);
}

#[test]
fn writes_are_released_where_they_are_held_when_others_decide_meanwhile() {
    let mut world = World::alone();
    world.run(ms(5_000));
    let now = world.now;
    let sentinel = &mut world.sentinels[0].as_mut().unwrap().agreement;
    let old = sentinel.master_at(0);
    let hold = Some(lead::Hold { at: sentinel.masters[0].nodes[old].id, since: now });
    let (cause, until) = (lead::Cause::Down, now + ms(2_000));
    let stands = lead::Lead { epoch: 1, cause, hold: None, until, phase: lead::Phase::Electing };
    sentinel.enter(0, lead::Failover::Waiting { cause, start_at: now });
    sentinel.enter(0, lead::Failover::Leading(stands));
    sentinel.go_on(0, stands, hold, lead::Phase::Pausing { target: 1 }, until);
    sentinel.hold_writes(0, old);
    let link = sentinel.masters[0].nodes[old].command.up().unwrap();
    sentinel.adopt(0, 0, Decision { master: redis_at(2), epoch: 9 }, Mode::Unfenced, now);
    assert_ne!(sentinel.master_at(0), old);
    let released = |effect: &effect::Effect| matches!(effect, effect::Effect::Output(Output::Query { link: on, args, .. }) if *on == link && args.last().unwrap() == "UNPAUSE");
    assert!(sentinel.free.iter().chain(sentinel.fenced.iter()).any(released), "{:?}", sentinel.fenced);
}

#[test]
fn a_lineage_that_a_replica_shares_with_a_master_started_anew_is_the_masters() {
    use crate::wire::info::{Info, Role};
    let mut world = World::alone();
    world.run(ms(5_000));
    let now = world.now;
    let sentinel = &mut world.sentinels[0].as_mut().unwrap().agreement;
    let (at, before, new) = (sentinel.master_at(0), sentinel.masters[0].lineage(), Some(id(9, 0, 77)));
    let said = |role| Info { role: Some(role), master_replid: new, ..Info::default() };
    let replica = (0..3).find(|n| *n != at).unwrap();
    sentinel.info(0, at, said(Role::Master), now);
    assert_eq!(sentinel.masters[0].lineage(), before, "nobody has synchronised");
    sentinel.info(0, replica, Info { master_sync_in_progress: true, ..said(Role::Replica) }, now);
    assert_eq!(sentinel.masters[0].lineage(), before, "it has not got it yet");
    // The master is gone already: its link is down.
    sentinel.info(0, replica, said(Role::Replica), now);
    assert_eq!(sentinel.masters[0].lineage(), new);
    // What was claimed once does not come back.
    let newer = Info { master_replid: Some(id(9, 0, 78)), master_link_up: true, ..said(Role::Replica) };
    let newer = Info { master_host: Some(redis_at(0).ip().to_string()), master_port: Some(6379), ..newer };
    sentinel.info(0, replica, newer, now);
    let other = (0..3).find(|n| *n != at && *n != replica).unwrap();
    sentinel.info(0, other, said(Role::Replica), now);
    assert_eq!(sentinel.masters[0].lineage(), Some(id(9, 0, 78)));
}

#[test]
fn a_master_whose_name_is_not_known_yet_is_not_failed_over() {
    let mut world = World::alone();
    for state in world.states.as_mut().unwrap() {
        (state.masters[0].place.host, state.masters[0].config.quorum) = ("nowhere".into(), 1);
        state.settings.resolve_hostnames = true;
    }
    (0..3).for_each(|n| world.start(n));
    world.run(ms(5_000));
    let refused = Reply::Error("ERR the address of the master is not known yet".into());
    assert_eq!(answer(&mut world, 0, &["SENTINEL", "FAILOVER", "mymaster"]), refused);
    world.run(ms(1_000));
    assert_eq!(world.said("+try-failover") + world.said("+vote-for-leader"), 0, "{:#?}", world.told_events());
}
