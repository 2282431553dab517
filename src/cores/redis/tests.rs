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
            Config { address: OWN, priority: 100, nodes: (0..=255).map(node).collect(), fencing: false, life: 0 },
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
        self.give(Input::Cluster { decision: Some(Decision { master, epoch }), leading, named: None, mode: None })
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
    let mut scene = Scene::with(Durable { incarnation: 6, ..Durable::default() });
    let out = scene.give(Input::Tick);
    let durable = Durable { incarnation: 7, ..Durable::default() };
    assert_eq!(out[..2], [Output::Record(durable), Output::Spawn { closed: false }]);
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
    assert!(matches!(out[3..], [Output::Record(_), Output::Spawn { .. }]), "{out:?}");
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
    assert!(out.contains(&Output::Spawn { closed: false }), "{out:?}");
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
    assert_eq!(order(&scene.give(Input::Cluster { decision: None, leading: None, named: None, mode: None })), None);
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
    let mut scene = Scene::with(Durable { incarnation: 4, history, fenced: None });
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
                    Input::Cluster { decision, leading, named: None, mode: None }
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
            let spawns = out.iter().filter(|output| **output == Output::Spawn { closed: false }).count();
            assert!(spawns == 0 || living == 0, "seed {seed}: a second process");
            assert!(order(&out).is_none_or(|(master, _)| master != stranger), "seed {seed}: follows a stranger");
            if out.contains(&Output::Left) {
                assert_eq!((living, scene.machine.deadline()), (0, None), "seed {seed}");
            }
        }
    }
}

mod fenced {
    use super::super::fence::{self, By, Command, Doors, Fence, Outcome};
    use super::*;
    use crate::base::lease::Lease;

    const LENGTH: Duration = Duration::from_millis(250);

    fn closed(order: &Command) -> bool {
        *order == Command::Close
    }

    /// A supervisor with the fence of its redis, and what redis answers to that.
    struct Pair {
        scene: Scene,
        fence: Fence,
        told: fence::Status,
        /// None: nothing.
        answers: Option<Outcome>,
        /// What redis was told since it was last asked.
        sent: Vec<Command>,
        doors: Doors,
        killed: bool,
        /// What the supervisor wanted since it was last asked.
        out: Vec<Output>,
    }

    impl Pair {
        /// A closed redis of a node whose file asks for leases.
        fn new(role: RedisRole) -> Self {
            let mut pair = Self::starting(true, Durable::default());
            pair.started(role);
            assert_eq!(pair.sent(), [Command::Close], "it is shown that it can be closed");
            pair
        }

        /// A redis that is being started, closed.
        fn starting(fencing: bool, durable: Durable) -> Self {
            let mut scene = Scene::new();
            let nodes = (0..=255).map(node).collect();
            let config = Config { address: OWN, priority: 100, nodes, fencing, life: 0 };
            scene.machine = Supervisor::new(config, durable);
            let mut pair = Self {
                scene,
                fence: Fence::default(),
                told: fence::Status::default(),
                answers: Some(Outcome::Done),
                sent: Vec::new(),
                doors: Doors::Closed,
                killed: false,
                out: Vec::new(),
            };
            pair.give(Input::Tick);
            assert!(pair.out.contains(&Output::Spawn { closed: true }));
            pair
        }

        /// It runs, and answers.
        fn started(&mut self, role: RedisRole) {
            self.give(Input::Spawned { pid: PID, log_later: false, secrets: 0 });
            self.give_look(role);
        }

        /// One that takes writes by the lease of epoch 3.
        fn open() -> Self {
            let mut pair = Self::new(RedisRole::Closed);
            pair.lease(3);
            assert!(matches!(pair.sent()[..], [Command::Open { by: By::Lease, .. }]));
            assert_eq!(pair.writes(), [Writes::Taken]);
            pair.give_look(MASTER);
            pair
        }

        fn give(&mut self, input: Input) {
            let out = self.scene.give(input);
            for output in &out {
                match *output {
                    Output::Enclose { incarnation } => self.feed(fence::Input::Process(incarnation)),
                    Output::Open { order, by, epoch } => {
                        self.feed(fence::Input::Open { order, by, epoch, setting: fence::Setting::default() });
                    }
                    Output::Close { order } => self.feed(fence::Input::Close { order }),
                    _ => {}
                }
            }
            self.out.extend(out);
            self.hear();
        }

        fn hear(&mut self) {
            let status = self.fence.status();
            if std::mem::replace(&mut self.told, status) != status {
                self.give(Input::Fence(status));
            }
        }

        fn feed(&mut self, input: fence::Input) {
            let mut out = Vec::new();
            self.fence.handle(self.scene.now, input, &mut out);
            for output in out {
                match output {
                    fence::Output::Connect => self.feed(fence::Input::Connected),
                    fence::Output::Disconnect => {}
                    fence::Output::Send { number, command } => {
                        self.sent.push(command);
                        if let Some(outcome) = self.answers {
                            self.feed(fence::Input::Reply { number, outcome });
                        }
                    }
                    fence::Output::Doors(doors) => self.doors = doors,
                    fence::Output::Kill => self.killed = true,
                }
            }
        }

        fn give_look(&mut self, role: RedisRole) {
            while self.scene.machine.owed().is_none() {
                let due = self.scene.machine.deadline().expect("the next probe");
                self.scene.now = self.scene.now.max(due);
                self.give(Input::Tick);
            }
            let token = self.scene.machine.owed().expect("a probe");
            self.give(Input::Answer { token, answer: Answer::Info(Box::new(Info { role, ..info() })) });
            self.pass(ms(0));
        }

        /// It is granted the lease of that epoch, for a stamp of now.
        fn lease(&mut self, epoch: Epoch) {
            let incarnation = self.scene.machine.facts().incarnation;
            let held = Held { incarnation, epoch, lease: Lease { from: self.scene.now, length: LENGTH } };
            self.feed(fence::Input::Lease(Some(held.into())));
            self.hear();
            self.give(Input::Lease(Some(held)));
        }

        fn named(&mut self, epoch: Epoch, incarnation: u64) {
            let named = Some(Named { epoch, incarnation });
            self.give(Input::Cluster { decision: None, leading: Some(epoch), named, mode: None });
        }

        fn decided(&mut self, master: SocketAddr, epoch: Epoch, mode: Mode) {
            let decision = Some(Decision { master, epoch });
            self.give(Input::Cluster { decision, leading: None, named: None, mode: Some(mode) });
        }

        fn pass(&mut self, time: Duration) {
            let end = self.scene.now + time;
            while let Some(at) = self.fence.deadline().filter(|at| *at <= end) {
                self.scene.now = self.scene.now.max(at);
                self.feed(fence::Input::Tick);
                self.hear();
            }
            let left = end.since(self.scene.now);
            let out = self.scene.pass(left);
            for output in &out {
                match *output {
                    Output::Open { .. } | Output::Close { .. } => panic!("by time alone: {out:?}"),
                    _ => {}
                }
            }
            self.out.extend(out);
        }

        fn sent(&mut self) -> Vec<Command> {
            let mut sent = std::mem::take(&mut self.sent);
            sent.retain(|command| *command != Command::Ping);
            sent
        }

        fn writes(&mut self) -> Vec<Writes> {
            let out = std::mem::take(&mut self.out);
            let writes = out.iter().filter_map(|output| match output {
                Output::Writes(writes) => Some(*writes),
                _ => None,
            });
            writes.collect()
        }
    }

    #[test]
    fn it_opens_with_the_lease_and_is_closed_before_that_ends_and_opened_when_it_returns() {
        let mut pair = Pair::open();
        // Renewed in time it stays open.
        for _ in 0..20 {
            pair.pass(ms(100));
            pair.lease(3);
            assert_eq!(pair.sent(), []);
        }
        pair.pass(LENGTH * 71 / 100);
        assert!(matches!(pair.sent()[..], [Command::Close]));
        assert_eq!((pair.writes(), pair.killed), (vec![Writes::Refused], false));
        pair.pass(ms(3_000));
        pair.lease(3);
        assert!(matches!(pair.sent()[..], [Command::Open { by: By::Lease, .. }]), "without a restart");
        assert_eq!(pair.writes(), [Writes::Taken]);
    }

    #[test]
    fn one_that_is_named_opens_by_the_fence_alone_as_soon_as_it_has_the_lease() {
        let mut pair = Pair::new(RedisRole::Closed);
        let own = pair.scene.machine.facts().incarnation;
        pair.named(3, own);
        assert_eq!(pair.sent(), []);
        let held = Held { incarnation: own, epoch: 3, lease: Lease { from: pair.scene.now, length: LENGTH } };
        pair.feed(fence::Input::Lease(Some(held.into())));
        assert!(matches!(pair.sent()[..], [Command::Open { by: By::Lease, .. }]), "nobody else has heard of it");
        pair.hear();
        assert_eq!(pair.writes(), [Writes::Taken]);

        // One that is passed over does not wait for ever, and says nothing of writes that it never took.
        for other in [None, Some(own + 1)] {
            let mut pair = Pair::new(RedisRole::Closed);
            pair.named(3, own);
            match other {
                Some(other) => pair.named(4, other),
                None => pair.give(Input::Cluster { decision: None, leading: None, named: None, mode: None }),
            }
            pair.feed(fence::Input::Lease(Some(held.into())));
            assert_eq!(pair.sent(), []);
            assert!(!pair.out.iter().any(|output| matches!(output, Output::Publish(Event::Closed(_)))));
            let given_back = pair.writes().iter().any(|writes| matches!(writes, Writes::Returned { .. }));
            assert_eq!(given_back, other.is_some(), "what it may have been promised");
        }
    }

    #[test]
    fn what_is_not_confirmed_is_killed_and_said() {
        for answers in [None, Some(Outcome::Nothing)] {
            let mut pair = Pair::open();
            pair.answers = answers;
            pair.pass(LENGTH * 87 / 100);
            assert!(pair.killed);
            assert!(pair.out.contains(&Output::Publish(Event::Unconfirmed)));
            pair.feed(fence::Input::Ended);
            pair.hear();
            pair.give(Input::Exited(Exit::Signal(9)));
            assert!(
                pair.out.iter().any(|output| matches!(output, Output::Post(facts) if facts.process == Process::Dead))
            );
        }
    }

    #[test]
    fn what_refuses_to_open_is_tried_again_and_said_once() {
        let mut pair = Pair::new(RedisRole::Closed);
        pair.answers = Some(Outcome::Nothing);
        let mut tries = 0;
        for _ in 0..20 {
            pair.lease(3);
            let end = pair.scene.now + ms(50);
            while pair.scene.now < end {
                pair.scene.now = pair.scene.now + ms(10);
                pair.give(Input::Tick);
            }
            tries += pair.sent().iter().filter(|command| !closed(command)).count();
        }
        assert!((8..=11).contains(&tries), "{tries} tries in a second");
        let said = pair.out.iter().filter(|output| matches!(output, Output::Publish(Event::NotOpened(_)))).count();
        assert_eq!((said, pair.writes()), (1, vec![]));
    }

    #[test]
    fn it_makes_room_for_another_one_that_is_named_or_elected_in_a_later_epoch() {
        let own = Pair::open().scene.machine.facts().incarnation;
        for (epoch, incarnation, leaves) in [(3, 99, false), (4, own, false), (4, 99, true)] {
            let mut pair = Pair::open();
            pair.named(epoch, incarnation);
            assert_eq!(pair.sent().len(), usize::from(leaves), "{epoch} {incarnation}");
            if leaves {
                let at = pair.scene.now;
                assert_eq!(pair.writes(), [Writes::Returned { at }]);
                // What it still has of the lease opens nothing any more.
                pair.lease(3);
                assert_eq!(pair.sent(), []);
                // Named again, in an epoch of its own, it is opened again.
                pair.named(5, own);
                pair.lease(5);
                assert!(matches!(pair.sent()[..], [Command::Open { by: By::Lease, .. }]));
            }
        }
        // Elected: it refuses writes first, and follows then.
        let mut pair = Pair::open();
        pair.answers = None;
        pair.decided(node(9), 4, Mode::Fenced);
        assert_eq!((pair.sent(), order(&pair.out)), (vec![Command::Close], None));
        pair.answers = Some(Outcome::Done);
        pair.feed(fence::Input::Broken);
        pair.pass(ms(5));
        assert_eq!(order(&pair.out), Some((node(9), true)));
        assert!(matches!(pair.writes()[..], [Writes::Returned { .. }]));
    }

    #[test]
    fn elected_again_it_goes_on_without_a_pause() {
        let mut pair = Pair::open();
        pair.lease(7);
        // A decision between the two is not about it any more.
        pair.decided(node(9), 6, Mode::Fenced);
        assert_eq!(pair.sent(), []);
    }

    #[test]
    fn without_a_lease_it_is_never_opened() {
        let mut pair = Pair::new(RedisRole::Closed);
        pair.decided(OWN, 2, Mode::Fenced);
        pair.pass(ms(5_000));
        assert!(pair.sent().iter().all(closed) && pair.writes().is_empty());
    }

    #[test]
    fn who_was_made_a_master_without_a_lease_is_demoted() {
        let mut pair = Pair::new(replica(node(9)));
        pair.decided(node(9), 2, Mode::Fenced);
        pair.give_look(MASTER);
        assert_eq!(order(&pair.out), Some((node(9), true)), "by somebody who has nothing to say");
        assert!(pair.sent().iter().all(closed));
    }

    #[test]
    fn a_cluster_that_is_not_fenced_yet_needs_no_lease_and_becomes_one_without_a_pause() {
        let mut pair = Pair::new(MASTER);
        pair.decided(OWN, 2, Mode::Unfenced);
        assert!(matches!(pair.sent()[..], [Command::Open { by: By::Decision, .. }]));
        assert_eq!((pair.writes(), pair.doors), (vec![Writes::Unleased], Doors::Closed));
        pair.pass(ms(5_000));
        assert_eq!(pair.sent(), []);
        // Elected in a fenced epoch.
        let own = pair.scene.machine.facts().incarnation;
        pair.named(3, own);
        pair.lease(3);
        assert_eq!((pair.sent(), pair.writes()), (vec![], vec![Writes::Taken]));
        assert!(matches!(pair.doors, Doors::Open(_)), "the guard knows");
        pair.decided(OWN, 3, Mode::Fenced);
        pair.lease(3);
        assert_eq!((pair.sent(), pair.writes()), (vec![], vec![]));
        // And back.
        pair.decided(OWN, 4, Mode::Unfenced);
        pair.lease(3);
        assert_eq!((pair.sent(), pair.writes(), pair.doors), (vec![], vec![Writes::Unleased], Doors::Closed));
        pair.pass(ms(5_000));
        assert_eq!(pair.sent(), []);
    }

    #[test]
    fn who_is_given_the_writes_by_an_operator_needs_no_lease_and_who_had_one_is_closed() {
        let mut pair = Pair::open();
        pair.pass(LENGTH);
        assert_eq!((pair.sent(), pair.writes()), (vec![Command::Close], vec![Writes::Refused]), "nobody renews it");
        pair.decided(OWN, 503, Mode::TakenOver);
        assert!(matches!(pair.sent()[..], [Command::Open { by: By::Decision, .. }]));
        pair.pass(ms(5_000));
        assert_eq!((pair.sent(), pair.writes(), pair.killed), (vec![], vec![Writes::Unleased], false));
        // With everybody back it holds a lease again.
        let own = pair.scene.machine.facts().incarnation;
        pair.named(504, own);
        pair.lease(504);
        assert_eq!((pair.sent(), pair.writes()), (vec![], vec![Writes::Taken]));
        // The one on the other side of the cut closes, gives its lease back and follows.
        let mut other = Pair::open();
        other.decided(node(9), 503, Mode::TakenOver);
        assert_eq!(other.sent(), [Command::Close]);
        assert_eq!(order(&other.out), Some((node(9), true)));
        assert!(matches!(other.writes()[..], [.., Writes::Returned { .. }]));
    }

    #[test]
    fn a_lease_of_before_a_takeover_that_lasts_is_not_taken_for_the_first_one_after_it() {
        let mut pair = Pair::open();
        pair.pass(LENGTH);
        pair.decided(OWN, 503, Mode::TakenOver);
        assert_eq!((pair.writes(), pair.sent().len()), (vec![Writes::Refused, Writes::Unleased], 2));
        // By sentinels that have not heard of the takeover yet.
        pair.lease(3);
        assert_eq!((pair.sent(), pair.writes()), (vec![], vec![]));
        let own = pair.scene.machine.facts().incarnation;
        pair.named(504, own);
        // The fence hears of it first.
        pair.lease(504);
        assert!(pair.out.contains(&Output::Publish(Event::Opened(504))), "{:?}", pair.out);
        assert!(!pair.out.contains(&Output::Publish(Event::Opened(3))), "{:?}", pair.out);
        assert_eq!((pair.sent(), pair.writes()), (vec![], vec![Writes::Taken]));
        pair.decided(OWN, 504, Mode::Fenced);
        pair.lease(504);
        assert_eq!((pair.sent(), pair.writes()), (vec![], vec![]));
    }

    #[test]
    fn who_was_the_master_while_the_cluster_was_not_fenced_is_closed_by_the_first_decision_of_a_fenced_one() {
        let mut pair = Pair::new(MASTER);
        pair.decided(OWN, 2, Mode::Unfenced);
        pair.sent();
        pair.decided(node(9), 4, Mode::Fenced);
        assert_eq!(pair.sent(), [Command::Close]);
        // Nobody has refused it a lease: that would be told as a warning.
        let told = |why| pair.out.contains(&Output::Publish(Event::Closed(why)));
        assert!(told(Closing::NeedsLease) && !told(Closing::Lapsed));
        assert_eq!(pair.writes(), [Writes::Unleased, Writes::Refused]);
    }

    #[test]
    fn who_was_started_closed_is_opened_where_the_cluster_is_not_fenced_any_more_once_it_runs() {
        // Its record says that the cluster is fenced. That it is not any more is heard while the process is being started.
        let mut pair = Pair::starting(false, Durable { fenced: Some(true), ..Durable::default() });
        pair.decided(OWN, 3, Mode::Unfenced);
        pair.started(MASTER);
        assert!(matches!(pair.sent()[..], [Command::Close, Command::Open { by: By::Decision, .. }]));
        assert_eq!(pair.writes(), [Writes::Unleased]);
    }

    #[test]
    fn a_process_of_a_cluster_without_leases_has_no_fence_until_the_cluster_has() {
        let mut scene = Scene::up(MASTER);
        assert!(!scene.pass(ms(1_000)).iter().any(|output| matches!(output, Output::Enclose { .. })));
        let decision = Some(Decision { master: node(9), epoch: 4 });
        let fenced = Input::Cluster { decision, leading: None, named: None, mode: Some(Mode::Fenced) };
        let out = scene.give(fenced);
        assert!(out.iter().any(|output| matches!(output, Output::Enclose { .. })), "{out:?}");
    }
}
