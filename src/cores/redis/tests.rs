use std::time::Duration;

use super::*;
use crate::base::node::Process;
use crate::base::{Instant, Machine, RunId};

const OWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 4)), 6379);
const PID: u32 = 77;

fn node(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 0, last], 6379))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A supervisor in virtual time, and what it wanted since the last look.
struct Scene {
    machine: Supervisor,
    now: Instant,
    out: Vec<Output>,
}

impl Scene {
    fn new() -> Self {
        Self::with(Durable::default())
    }

    fn with(durable: Durable) -> Self {
        let machine = Supervisor::new(
            Config { address: OWN, priority: 100, nodes: (0..=255).map(node).collect(), fenced: false, life: 0 },
            durable,
        );
        Self { machine, now: Instant::from_millis(1_000_000), out: Vec::new() }
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input, &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// Lets time pass with a tick at every deadline; returns what came out of them.
    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        while let Some(deadline) = self.machine.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.machine.handle(self.now, Input::Tick, &mut self.out);
            assert!(self.machine.deadline().is_none_or(|next| next > self.now), "the tick must move the deadline");
        }
        self.now = end;
        std::mem::take(&mut self.out)
    }

    /// A redis that was started and answered its first probe.
    fn up(role: RedisRole) -> Self {
        let mut scene = Self::new();
        scene.start();
        scene.look(role);
        scene
    }

    fn start(&mut self) -> Vec<Output> {
        self.give(Input::Tick);
        self.give(Input::Spawned { pid: PID, log_later: false, secrets: 0 })
    }

    /// Answers the probe that is owed, or the next one.
    fn look(&mut self, role: RedisRole) -> Vec<Output> {
        self.look_at(Info { role, ..info() })
    }

    fn look_at(&mut self, info: Info) -> Vec<Output> {
        let token = self.probe();
        self.give(Input::Answer { token, answer: Answer::Info(Box::new(info)) })
    }

    fn probe(&mut self) -> Token {
        // Tokens count up, and only probes are asked while nothing is decided: the last one is the one that is owed.
        if self.machine.deadline().is_some() {
            for output in self.pass(ms(200)) {
                if let Output::Ask { token, ask: Ask::Probe { .. } } = output {
                    return token;
                }
            }
        }
        self.machine.owed().expect("a probe is owed")
    }

    fn cluster(&mut self, master: SocketAddr, epoch: Epoch, leading: Option<Epoch>) -> Vec<Output> {
        self.give(Input::Cluster { decision: Some(Decision { master, epoch }), leading, named: None })
    }
}

fn info() -> Info {
    Info {
        loading: false,
        identity: Some((RunId([1; 20]), PID)),
        role: RedisRole::Closed,
        replication_id: Some(RunId([2; 20])),
        offset: 100,
        has_data: true,
        rewriting: false,
    }
}

fn replica(of: SocketAddr) -> RedisRole {
    RedisRole::Replica { of, link_up: true }
}

const MASTER: RedisRole = RedisRole::Master { replicas: 1 };

fn posted(out: &[Output]) -> Option<&RedisFacts> {
    out.iter().rev().find_map(|output| match output {
        Output::Post(facts) => Some(facts),
        _ => None,
    })
}

fn order(out: &[Output]) -> Option<(SocketAddr, bool)> {
    out.iter().find_map(|output| match output {
        Output::Ask { ask: Ask::Follow { master, demote }, .. } => Some((*master, *demote)),
        _ => None,
    })
}

fn order_token(out: &[Output]) -> Token {
    let token = out.iter().find_map(|output| match output {
        Output::Ask { token, ask: Ask::Follow { .. } } => Some(*token),
        _ => None,
    });
    token.expect("an order")
}

#[test]
fn the_incarnation_is_recorded_before_the_start() {
    let mut scene = Scene::with(Durable { incarnation: 6, history: None });
    let out = scene.give(Input::Tick);
    let durable = Durable { incarnation: 7, history: None };
    assert_eq!(out[..2], [Output::Record(durable), Output::Spawn]);
    assert_eq!(posted(&out).map(|facts| (facts.incarnation, facts.process)), Some((6, Process::Dead)));
    let out = scene.give(Input::Spawned { pid: PID, log_later: false, secrets: 0 });
    assert_eq!(posted(&out).map(|facts| (facts.incarnation, facts.process)), Some((7, Process::Starting)));
    assert!(matches!(out[1], Output::Ask { ask: Ask::Probe { identity: true }, .. }), "{out:?}");
}

#[test]
fn a_record_that_fails_is_a_start_that_failed() {
    let mut scene = Scene::new();
    scene.give(Input::Tick);
    let out = scene.give(Input::RecordFailed("disk full".into()));
    assert!(out.contains(&Output::Fault(Some("disk full".into()))), "{out:?}");
    assert_eq!(scene.machine.deadline(), Some(scene.now + ms(100)));
}

#[test]
fn first_answers_say_what_it_is() {
    let mut scene = Scene::new();
    scene.start();
    let out = scene.look_at(Info { loading: true, ..info() });
    assert_eq!(posted(&out).map(|facts| facts.process), Some(Process::Loading));
    let out = scene.look(RedisRole::Closed);
    let facts = posted(&out).expect("a post");
    assert_eq!((facts.process, facts.role, facts.run_id), (Process::Alive, RedisRole::Closed, Some(RunId([1; 20]))));
    assert_eq!((facts.offset, facts.has_data, facts.history), (100, true, None));
}

#[test]
fn a_foreign_redis_on_the_port_is_not_believed() {
    let mut scene = Scene::new();
    scene.start();
    let out = scene.look_at(Info { identity: Some((RunId([9; 20]), PID + 1)), ..info() });
    assert_eq!(out, []);
    assert_eq!(scene.machine.facts().process, Process::Starting);
}

#[test]
fn death_is_posted_before_anything_else() {
    let mut scene = Scene::up(MASTER);
    scene.pass(ms(20_000));
    let out = scene.give(Input::Exited(Exit::Signal(9)));
    let Output::Post(facts) = &out[0] else { panic!("{out:?}") };
    assert_eq!((facts.process, facts.incarnation, facts.role), (Process::Dead, 1, RedisRole::Unknown));
    // After a long run the next start does not wait.
    assert!(matches!(out[3..], [Output::Record(_), Output::Spawn]), "{out:?}");
}

#[test]
fn a_redis_that_served_is_started_again_soon_however_often_it_is_killed() {
    let mut scene = Scene::new();
    for _ in 0..8 {
        scene.start();
        scene.look(RedisRole::Replica { of: node(5), link_up: true });
        scene.pass(ms(400));
        scene.give(Input::Exited(Exit::Signal(9)));
        assert_eq!(scene.machine.deadline(), Some(scene.now + ms(100)));
        scene.now = scene.now + ms(100);
    }
}

#[test]
fn starts_that_come_to_nothing_are_paused_longer_and_longer() {
    let mut scene = Scene::new();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        scene.start();
        scene.give(Input::Exited(Exit::Code(1)));
        let until = scene.machine.deadline().expect("a restart");
        pauses.push(until.since(scene.now));
        scene.now = until;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(ms));
    scene.start();
    scene.pass(ms(10_000));
    let out = scene.give(Input::Exited(Exit::Code(1)));
    assert!(out.contains(&Output::Spawn), "{out:?}");
    scene.give(Input::SpawnFailed("no".into()));
    assert_eq!(scene.machine.deadline(), Some(scene.now + ms(100)));
}

#[test]
fn last_words_explain_the_fault_until_it_answers_again() {
    let mut scene = Scene::new();
    scene.start();
    scene.give(Input::Exited(Exit::Code(1)));
    let out = scene.give(Input::LastWords("port in use".into()));
    assert_eq!(out, [Output::Fault(Some("redis exited with code 1: port in use".into()))]);
    scene.pass(ms(100));
    scene.give(Input::Spawned { pid: PID, log_later: false, secrets: 0 });
    let out = scene.look(RedisRole::Closed);
    assert!(out.contains(&Output::Fault(None)), "{out:?}");
    assert_eq!(scene.give(Input::LastWords("late".into())), []);
}

#[test]
fn silence_of_a_living_process_is_busy_and_an_answer_ends_it() {
    let mut scene = Scene::up(MASTER);
    let token = scene.probe();
    assert_eq!(posted(&scene.pass(ms(299))), None);
    let out = scene.pass(ms(1));
    assert_eq!(posted(&out).map(|facts| facts.process), Some(Process::Busy));
    assert_eq!(scene.pass(ms(60_000)), [], "one probe is owed, no other is asked");
    let info = Info { role: MASTER, ..info() };
    let out = scene.give(Input::Answer { token, answer: Answer::Info(Box::new(info)) });
    assert_eq!(posted(&out).map(|facts| facts.process), Some(Process::Alive));
}

#[test]
fn a_broken_connection_counts_from_the_first_unanswered_probe() {
    let mut scene = Scene::up(MASTER);
    let mut token = scene.probe();
    let since = scene.now;
    while scene.machine.facts().process == Process::Alive {
        scene.give(Input::Answer { token, answer: Answer::Unreachable("refused".into()) });
        scene.pass(ms(50));
        token = scene.machine.owed().expect("it is asked again");
        assert!(scene.now.since(since) < ms(400), "still alive");
    }
    assert_eq!(scene.now.since(since), ms(300));
}

#[test]
fn a_slow_script_is_busy_at_once() {
    let mut scene = Scene::up(MASTER);
    let token = scene.probe();
    let out = scene.give(Input::Answer { token, answer: Answer::Busy });
    assert_eq!(posted(&out).map(|facts| facts.process), Some(Process::Busy));
}

#[test]
fn a_start_without_any_answer_is_said() {
    let mut scene = Scene::new();
    scene.start();
    let out = scene.pass(ms(10_000));
    assert!(matches!(&out[..], [Output::Fault(Some(reason))] if reason.contains("does not answer yet")), "{out:?}");
}

/// Who is told to follow, by role, decision and floor: the whole table.
#[test]
fn the_decision_is_followed() {
    let (master, other) = (node(5), node(6));
    for (role, expected) in [
        (RedisRole::Closed, Some((master, false))),
        (replica(other), Some((master, false))),
        (replica(master), None),
        (MASTER, Some((master, true))),
    ] {
        let mut scene = Scene::up(role);
        assert_eq!(order(&scene.cluster(master, 3, None)), expected, "{role:?} when the decision comes");
        let mut scene = Scene::new();
        scene.start();
        assert_eq!(order(&scene.cluster(master, 3, None)), None, "{role:?} not known yet");
        // A master seen after a decision that was known before its start was promoted later.
        let expected = expected.filter(|_| role != MASTER);
        let mut scene = Scene::new();
        scene.cluster(master, 3, None);
        scene.pass(ms(0));
        scene.give(Input::Spawned { pid: PID, log_later: false, secrets: 0 });
        assert_eq!(order(&scene.look(role)), expected, "{role:?} when it is seen");
    }
}

#[test]
fn nobody_promotes_itself() {
    for role in [RedisRole::Closed, replica(node(5)), MASTER] {
        let mut scene = Scene::up(role);
        assert_eq!(order(&scene.cluster(OWN, 3, None)), None, "{role:?}");
        assert_eq!(order(&scene.look(role)), None, "{role:?}");
    }
}

#[test]
fn a_redis_that_loads_is_told_when_it_has_loaded() {
    let mut scene = Scene::new();
    scene.start();
    scene.look_at(Info { loading: true, ..info() });
    assert_eq!(order(&scene.cluster(node(5), 3, None)), None);
    assert_eq!(order(&scene.look(RedisRole::Closed)), Some((node(5), false)));
}

#[test]
fn a_redis_started_from_a_snapshot_is_told_to_log_once_it_has_read_it() {
    let mut scene = Scene::new();
    scene.give(Input::Tick);
    scene.give(Input::Spawned { pid: PID, log_later: true, secrets: 0 });
    let told = |out: &[Output]| {
        let token = |output: &Output| match output {
            Output::Ask { token, ask: Ask::LogWrites } => Some(*token),
            _ => None,
        };
        out.iter().find_map(token)
    };
    assert_eq!(told(&scene.look_at(Info { loading: true, ..info() })), None);
    let token = told(&scene.look(RedisRole::Closed)).expect("the order");
    assert_eq!(told(&scene.look(RedisRole::Closed)), None, "it waits for the answer");
    scene.give(Input::Answer { token, answer: Answer::Refused("ERR disk".into()) });
    let token = told(&scene.look(RedisRole::Closed)).expect("the order again");
    let out = scene.give(Input::Answer { token, answer: Answer::Done });
    assert_eq!(out, [Output::Publish(Event::Logs)]);
    assert_eq!(told(&scene.look(RedisRole::Closed)), None);
}

#[test]
fn an_order_is_given_once_and_again_if_it_was_in_vain() {
    let mut scene = Scene::up(RedisRole::Closed);
    let token = order_token(&scene.cluster(node(5), 3, None));
    assert_eq!(order(&scene.look(RedisRole::Closed)), None, "it waits for the answer");
    let out = scene.give(Input::Answer { token, answer: Answer::Refused("ERR no".into()) });
    assert_eq!(out, [Output::Publish(Event::NotFollowed("ERR no".into()))]);
    let again = order_token(&scene.look(RedisRole::Closed));
    let out = scene.give(Input::Answer { token: again, answer: Answer::Refused("ERR no".into()) });
    assert_eq!(out, [], "said once");
    let again = order_token(&scene.look(RedisRole::Closed));
    let out = scene.give(Input::Answer { token: again, answer: Answer::Done });
    assert!(matches!(out[..], [Output::Publish(Event::Follows(_)), Output::Ask { .. }]), "looks at once: {out:?}");
}

#[test]
fn a_later_decision_overtakes_an_order_that_is_not_answered() {
    let mut scene = Scene::up(RedisRole::Closed);
    assert_eq!(order(&scene.cluster(node(5), 3, None)), Some((node(5), false)));
    assert_eq!(order(&scene.cluster(node(6), 4, None)), Some((node(6), false)));
    assert_eq!(order(&scene.cluster(node(5), 3, None)), None, "an older one is not believed");
    assert_eq!(order(&scene.give(Input::Cluster { decision: None, leading: None, named: None })), None);
}

#[test]
fn a_fresh_promotion_is_not_undone_by_the_decision_before_it() {
    let mut scene = Scene::up(RedisRole::Closed);
    let token = order_token(&scene.cluster(node(5), 3, None));
    scene.give(Input::Answer { token, answer: Answer::Done });
    scene.look(replica(node(5)));
    // A failover is on, and its leader promotes this one before it says so.
    scene.cluster(node(5), 3, Some(4));
    assert_eq!(order(&scene.look(MASTER)), None);
    // The leader died: still nothing is known that is later than this promotion.
    assert_eq!(order(&scene.cluster(node(5), 3, None)), None);
    assert_eq!(order(&scene.look(MASTER)), None);
    assert_eq!(order(&scene.cluster(OWN, 4, None)), None);
    assert_eq!(order(&scene.cluster(node(6), 5, None)), Some((node(6), true)), "a later one is");
}

#[test]
fn during_a_failover_its_leader_points_the_replicas() {
    let mut scene = Scene::up(RedisRole::Closed);
    assert_eq!(order(&scene.cluster(node(5), 3, Some(4))), None);
    assert_eq!(order(&scene.cluster(node(6), 4, Some(4))), Some((node(6), false)));
}

#[test]
fn probes_are_frequent_during_a_failover_and_offsets_posted_each_time() {
    let mut scene = Scene::up(replica(node(5)));
    scene.cluster(node(5), 3, Some(4));
    for offset in 101..110 {
        let out = scene.look_at(Info { role: replica(node(5)), offset, ..info() });
        assert_eq!(posted(&out).map(|facts| facts.offset), Some(offset));
        assert!(scene.machine.deadline() <= Some(scene.now + ms(20)));
    }
}

#[test]
fn offsets_alone_are_posted_now_and_then() {
    let mut scene = Scene::up(MASTER);
    let mut posts = 0;
    for step in 0..10 {
        let out = scene.look_at(Info { role: MASTER, offset: 200 + step, ..info() });
        posts += usize::from(posted(&out).is_some());
    }
    assert_eq!(posts, 10, "one per probe");
    assert_eq!(posted(&scene.look_at(Info { role: MASTER, offset: 209, ..info() })), None, "nothing changed");
}

fn remembered(out: &[Output]) -> Option<History> {
    out.iter().find_map(|output| match output {
        Output::Remember(durable) => durable.history,
        _ => None,
    })
}

#[test]
fn the_history_follows_what_the_data_are() {
    let mut scene = Scene::up(RedisRole::Closed);
    scene.cluster(node(5), 3, None);
    let look = |scene: &mut Scene, role, offset| remembered(&scene.look_at(Info { role, offset, ..info() }));
    let link_down = RedisRole::Replica { of: node(5), link_up: false };
    let history = |epoch, in_sync, offset| Some(History { epoch, in_sync, offset });
    assert_eq!(look(&mut scene, link_down, 0), None, "a copy that is not complete is no history");
    assert_eq!(look(&mut scene, replica(node(5)), 500), history(3, true, 500));
    assert_eq!(look(&mut scene, replica(node(5)), 501), None, "the offset alone is not written at once");
    scene.now = scene.now + ms(1_000);
    assert_eq!(look(&mut scene, replica(node(5)), 502), history(3, true, 502));
    assert_eq!(look(&mut scene, link_down, 502), history(3, false, 502));
    scene.cluster(OWN, 4, None);
    assert_eq!(look(&mut scene, MASTER, 503), history(4, true, 503));
    assert_eq!(scene.machine.facts().history, history(4, true, 503));
}

#[test]
fn a_restart_keeps_the_history_of_the_data_on_disk() {
    let history = Some(History { epoch: 3, in_sync: true, offset: 9 });
    let mut scene = Scene::with(Durable { incarnation: 4, history });
    let out = scene.give(Input::Tick);
    assert_eq!(posted(&out).and_then(|facts| facts.history), history);
    scene.give(Input::Spawned { pid: PID, log_later: false, secrets: 0 });
    scene.look(RedisRole::Closed);
    scene.cluster(node(5), 3, None);
    let out = scene.look(RedisRole::Replica { of: node(5), link_up: false });
    assert_eq!(remembered(&out), None, "a link that never was up says nothing new");
    assert_eq!(scene.machine.facts().history, history);
}

#[test]
fn a_clean_stop_terminates_then_kills_then_leaves() {
    let mut scene = Scene::up(MASTER);
    assert_eq!(scene.give(Input::Stop), [Output::Terminate]);
    assert_eq!(scene.pass(ms(9_999)), []);
    assert_eq!(scene.pass(ms(1)), [Output::Publish(Event::Killed), Output::Kill]);
    let out = scene.give(Input::Exited(Exit::Signal(9)));
    assert!(matches!(&out[..], [Output::Post(facts), _, Output::Left] if facts.process == Process::Dead), "{out:?}");
}

#[test]
fn a_stop_finds_every_state() {
    let mut scene = Scene::new();
    assert_eq!(scene.give(Input::Stop).last(), Some(&Output::Left));

    let mut scene = Scene::new();
    scene.give(Input::Tick);
    assert_eq!(scene.give(Input::Stop), []);
    let out = scene.give(Input::Spawned { pid: PID, log_later: false, secrets: 0 });
    assert!(out.contains(&Output::Terminate), "{out:?}");

    let mut scene = Scene::new();
    scene.give(Input::Tick);
    scene.give(Input::Stop);
    assert_eq!(scene.give(Input::SpawnFailed("no".into())).last(), Some(&Output::Left));
}

#[test]
fn info_is_read_from_captured_texts() {
    let closed = include_str!("../../wire/info/closed-7.0.15.txt");
    let read = Info::read(false, closed).expect("a role");
    assert_eq!(read.role, RedisRole::Closed);
    let read = Info::read(true, include_str!("../../wire/info/replica-7.0.15.txt")).expect("a role");
    assert!(matches!(read.role, RedisRole::Replica { link_up: true, .. }) && read.loading, "{read:?}");
    let read = Info::read(false, include_str!("../../wire/info/master-7.0.15.txt")).expect("a role");
    assert!(matches!(read.role, RedisRole::Master { .. }), "{read:?}");
    assert!(read.identity.is_some_and(|(_, pid)| pid > 0), "{read:?}");
    assert_eq!(Info::read(false, "role:sentinel"), None);
    assert_eq!(Info::read(false, ""), None);
}

/// Whatever comes in whatever order: no panic, no deadline that a tick does not move, one process at a time, and after
/// a stop and the end of the process nothing more is wanted.
#[test]
fn any_order_of_inputs_is_survived() {
    for seed in 0..400 {
        let mut rng = crate::base::Rng::new(seed);
        let mut scene = Scene::new();
        let mut living = 0;
        for _ in 0..200 {
            let roles =
                [RedisRole::Closed, replica(node(5)), MASTER, RedisRole::Replica { of: node(6), link_up: false }];
            let role = roles[rng.next_u32() as usize % roles.len()];
            let token = u64::from(rng.next_u32() % 4);
            let token = scene.machine.owed().unwrap_or(1).saturating_sub(token);
            let answer = match rng.next_u32() % 6 {
                0 if rng.next_u32().is_multiple_of(4) => Answer::ShutOut("x".into()),
                0 => Answer::Busy,
                1 => Answer::Refused("x".into()),
                2 => Answer::Unreachable("x".into()),
                3 => Answer::Done,
                _ => Answer::Info(Box::new(Info { role, loading: rng.next_u32().is_multiple_of(5), ..info() })),
            };
            let stranger = SocketAddr::from(([203, 0, 113, 9], 6379));
            let master = if rng.next_u32().is_multiple_of(4) { stranger } else { node(4 + (seed % 3) as u8) };
            let decision = Some(Decision { master, epoch: u64::from(rng.next_u32() % 9) });
            let input = match rng.next_u32() % 13 {
                8 => Input::Secrets(token),
                0 if living == 1 => Input::Exited(Exit::Code(0)),
                1 => Input::SpawnFailed("x".into()),
                2 | 3 => Input::Spawned { pid: PID, log_later: false, secrets: token },
                4 | 5 => {
                    let leading = (rng.next_u32().is_multiple_of(3)).then_some(token);
                    Input::Cluster { decision, leading, named: None }
                }
                6 if rng.next_u32().is_multiple_of(20) => Input::Stop,
                7 => Input::Tick,
                _ => Input::Answer { token, answer },
            };
            // The runtime says that one was spawned only after it was asked to.
            let spawned = matches!(input, Input::Spawned { .. });
            if spawned && !scene.machine.is_spawning() {
                continue;
            }
            living += i32::from(spawned) - i32::from(matches!(input, Input::Exited(_)));
            let mut out = scene.give(input);
            out.extend(scene.pass(rng.below(ms(400))));
            let spawns = out.iter().filter(|output| **output == Output::Spawn).count();
            assert!(spawns == 0 || living == 0, "seed {seed}: a second process");
            assert!(order(&out).is_none_or(|(master, _)| master != stranger), "seed {seed}: follows a stranger");
            if out.contains(&Output::Left) {
                assert_eq!((living, scene.machine.deadline()), (0, None), "seed {seed}");
            }
        }
    }
}

mod fenced {
    use super::*;
    use crate::base::lease::Lease;

    const LENGTH: Duration = Duration::from_millis(250);

    fn held(epoch: Epoch, from: Instant) -> Input {
        Input::Lease(Some(Held { epoch, lease: Lease { from, length: LENGTH } }))
    }

    fn named(epoch: Epoch, incarnation: u64) -> Input {
        Input::Cluster { decision: None, leading: Some(epoch), named: Some(Named { epoch, incarnation }) }
    }

    fn asks(out: &[Output]) -> Vec<(Token, Ask)> {
        let asks = out.iter().filter_map(|output| match output {
            Output::Ask { token, ask: ask @ (Ask::Open { .. } | Ask::Close) } => Some((*token, *ask)),
            _ => None,
        });
        asks.collect()
    }

    fn writes(out: &[Output]) -> Vec<Writes> {
        let writes = out.iter().filter_map(|output| match output {
            Output::Writes(writes) => Some(*writes),
            _ => None,
        });
        writes.collect()
    }

    impl Scene {
        /// A closed redis in a cluster with leases.
        fn fenced(role: RedisRole) -> Self {
            let mut scene = Self::new();
            let nodes = (0..=255).map(node).collect();
            let config = Config { address: OWN, priority: 100, nodes, fenced: true, life: 0 };
            scene.machine = Supervisor::new(config, Durable::default());
            scene.start();
            scene.look(role);
            scene
        }

        /// One that takes writes in epoch 3.
        fn open() -> Self {
            let mut scene = Self::fenced(RedisRole::Closed);
            let out = scene.give(held(3, scene.now));
            let [(token, Ask::Open { promote: true })] = asks(&out)[..] else { panic!("{out:?}") };
            let out = scene.give(Input::Answer { token, answer: Answer::Done });
            assert_eq!(writes(&out), [Writes::Taken]);
            // Its new role is looked at in the same moment.
            let token = scene.machine.owed().expect("a probe");
            scene.give(Input::Answer { token, answer: Answer::Info(Box::new(Info { role: MASTER, ..info() })) });
            scene
        }
    }

    #[test]
    fn it_opens_with_the_lease_and_closes_before_that_ends() {
        let mut scene = Scene::fenced(replica(node(9)));
        scene.cluster(node(9), 2, Some(3));
        // What has almost ended opens nothing.
        assert!(asks(&scene.give(held(3, scene.now - LENGTH * 70 / 100))).is_empty());
        let begun = scene.now;
        let out = scene.give(held(3, scene.now));
        let [(token, Ask::Open { promote: true })] = asks(&out)[..] else { panic!("{out:?}") };
        scene.give(Input::Answer { token, answer: Answer::Done });
        // Renewed in time it stays open.
        for _ in 0..20 {
            assert!(asks(&scene.pass(ms(100))).is_empty());
            assert!(asks(&scene.give(held(3, scene.now))).is_empty());
        }
        let renewed = scene.now;
        let out = scene.pass(LENGTH);
        let [(token, Ask::Close)] = asks(&out)[..] else { panic!("{out:?}") };
        assert!(begun < renewed);
        assert!(out.contains(&Output::Kill), "it has not confirmed that in time: {out:?}");
        assert!(writes(&scene.give(Input::Answer { token, answer: Answer::Done })).is_empty());
    }

    #[test]
    fn a_fence_that_is_confirmed_is_undone_without_a_restart() {
        let mut scene = Scene::open();
        let out = scene.pass(LENGTH * 71 / 100);
        let [(token, Ask::Close)] = asks(&out)[..] else { panic!("{out:?}") };
        let out = scene.give(Input::Answer { token, answer: Answer::Done });
        assert_eq!(writes(&out), [Writes::Refused]);
        assert!(!scene.pass(ms(3_000)).contains(&Output::Kill));
        let out = scene.give(held(3, scene.now));
        assert!(matches!(asks(&out)[..], [(_, Ask::Open { promote: false })]), "{out:?}");
    }

    #[test]
    fn what_is_not_confirmed_is_told_again_and_killed_in_the_end() {
        for answer in [Answer::Busy, Answer::Refused("OOM".into()), Answer::Unreachable("reset".into())] {
            let mut scene = Scene::open();
            let mut out = scene.pass(LENGTH * 70 / 100);
            let (fenced, mut tries) = (scene.now, 0);
            while !out.contains(&Output::Kill) {
                tries += asks(&out).len();
                if let [(token, Ask::Close)] = asks(&out)[..] {
                    scene.give(Input::Answer { token, answer: answer.clone() });
                }
                out = scene.pass(ms(1));
                assert!(scene.now.since(fenced) <= LENGTH * 17 / 100, "it lives on: {answer:?}");
            }
            assert!(tries > 2, "{answer:?}: {tries} tries");
        }
    }

    #[test]
    fn an_order_to_open_whose_fate_is_unknown_is_taken_back() {
        let mut scene = Scene::fenced(RedisRole::Closed);
        let out = scene.give(held(3, scene.now));
        let [(token, Ask::Open { .. })] = asks(&out)[..] else { panic!("{out:?}") };
        scene.give(Input::Answer { token, answer: Answer::Unreachable("reset".into()) });
        let out = scene.pass(ms(20));
        let [(token, Ask::Close)] = asks(&out)[..] else { panic!("{out:?}") };
        let out = scene.give(Input::Answer { token, answer: Answer::Done });
        assert_eq!(writes(&out), [Writes::Refused]);
        assert!(matches!(asks(&out)[..], [(_, Ask::Open { .. })]), "the lease lasts: {out:?}");
        // One that ends while the order is on its way is followed by its end.
        let out = scene.pass(LENGTH * 75 / 100);
        assert!(matches!(asks(&out)[..], [(_, Ask::Close)]), "{out:?}");
    }

    #[test]
    fn it_makes_room_for_another_one_that_is_named_or_elected_in_a_later_epoch() {
        let own = Scene::open().machine.facts().incarnation;
        for (epoch, incarnation, leaves) in [(3, 99, false), (4, own, false), (4, 99, true)] {
            let mut scene = Scene::open();
            let out = scene.give(named(epoch, incarnation));
            assert_eq!(asks(&out).len(), usize::from(leaves), "{epoch} {incarnation}: {out:?}");
            if let [(token, Ask::Close)] = asks(&out)[..] {
                scene.now = scene.now + ms(1);
                let out = scene.give(Input::Answer { token, answer: Answer::Done });
                assert_eq!(writes(&out), [Writes::Returned { at: scene.now }]);
                // What it still has of the lease opens nothing any more.
                assert!(asks(&scene.give(held(3, scene.now))).is_empty());
                // Named again, in an epoch of its own, it is opened again.
                scene.give(named(5, own));
                assert!(matches!(asks(&scene.give(held(5, scene.now)))[..], [(_, Ask::Open { .. })]));
            }
        }
        // Elected: it refuses writes first, and follows then.
        let mut scene = Scene::open();
        let out = scene.cluster(node(9), 4, None);
        let [(token, Ask::Close)] = asks(&out)[..] else { panic!("{out:?}") };
        assert_eq!(order(&out), None);
        let out = scene.give(Input::Answer { token, answer: Answer::Done });
        assert_eq!((writes(&out), order(&out)), (vec![Writes::Returned { at: scene.now }], Some((node(9), true))));
    }

    #[test]
    fn elected_again_it_goes_on_without_a_pause() {
        let mut scene = Scene::open();
        assert!(asks(&scene.give(held(7, scene.now))).is_empty());
        // A decision between the two is not about it any more.
        assert!(asks(&scene.cluster(node(9), 6, None)).is_empty());
    }

    #[test]
    fn without_a_lease_it_is_never_opened_nor_in_a_cluster_without_leases_closed() {
        let mut scene = Scene::fenced(RedisRole::Closed);
        assert!(asks(&scene.pass(ms(5_000))).is_empty());
        let mut scene = Scene::up(MASTER);
        assert!(asks(&scene.give(held(3, scene.now))).is_empty());
        assert!(asks(&scene.pass(ms(5_000))).is_empty());
    }
}
