//! Processes killed with signal 9, one, several and all, again and again: the cluster is whole afterwards and nothing that
//! it acknowledged and replicated is lost.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vigie::operate::lab::client::{Client, read_back};
use vigie::operate::lab::cluster::CLIENT;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::whole::{DATA, PROXIES, World, text, wait_ok};
use super::{Case, Outcome, wait_for};

pub(crate) const CASES: &[Case] = &[
    Case { name: "killed_workers", needs: &["redis-server"], run: |sandbox| kills(sandbox, Kind::Worker) },
    Case { name: "killed_guards", needs: &["redis-server"], run: |sandbox| kills(sandbox, Kind::Guard) },
    Case { name: "killed_guards_and_workers", needs: &["redis-server"], run: |sandbox| kills(sandbox, Kind::Both) },
    Case { name: "killed_redis", needs: &["redis-server"], run: |sandbox| kills(sandbox, Kind::Redis) },
    Case { name: "the_kernel_takes_the_vip_from_a_dead_owner", needs: &["redis-server"], run: dead_owner },
    Case { name: "everything_killed_comes_back", needs: &["redis-server"], run: everything },
    Case { name: "a_cold_start_without_the_old_master", needs: &["redis-server"], run: cold_start_without_master },
    Case { name: "a_stopped_master_hands_over", needs: &["redis-server"], run: stopped_master },
];

/// The cluster is whole again after so long, counted from the kill, or from the restart where one is needed.
const WHOLE_TIME: Duration = Duration::from_secs(5);
/// The same after everything was killed; as long as a cluster may wait for its old master to come back.
const COLD_TIME: Duration = Duration::from_secs(15);
/// A worker without a guard hands over its master and ends its redis in so long.
const LEAVE_TIME: Duration = Duration::from_secs(15);
/// The kernel ends what belongs to a dead worker at once.
const DEATH_TIME: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Worker,
    Guard,
    Both,
    Redis,
}

/// How often each kind is tried: `$VIGIE_LAB_ROUNDS`, else 5.
fn rounds() -> usize {
    std::env::var("VIGIE_LAB_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

/// The victim of a round: over the rounds every place of the cluster has its turn.
fn victim(world: &World, kind: Kind, round: usize, master: &'static str) -> Result<&'static str, String> {
    let replicas: Vec<_> = DATA.into_iter().filter(|node| *node != master).collect();
    let owner = world.vip_holder()?;
    let standby = PROXIES.into_iter().find(|node| *node != owner).unwrap_or(owner);
    let places = match kind {
        Kind::Redis => vec![master, replicas[0], master, replicas[1], master],
        Kind::Worker | Kind::Guard | Kind::Both => vec![master, owner, replicas[0], standby, replicas[1]],
    };
    Ok(places[round % places.len()])
}

fn kills(sandbox: &Sandbox, kind: Kind) -> Outcome {
    let world = World::start(sandbox)?;
    let mut times = Vec::new();
    for round in 0..rounds() {
        let (_, master) = world.wait_whole(Instant::now(), WHOLE_TIME).map_err(|why| world.told(why))?;
        let victim = victim(&world, kind, round, master)?;
        world.mark()?;
        let place =
            format!("round {round}, {kind:?} of {victim} (master {master}, virtual IP on {:?})", world.vip_holder());
        let once = once(&world, kind, victim, master).map_err(|why| world.told(format!("{place}: {why}")))?;
        times.push(once);
        world.wait_healthy().map_err(|why| format!("{place}: {why}"))?;
    }
    times.sort();
    let (median, max) = (times.get(times.len() / 2), times.last());
    let millis = |time: Option<&Duration>| time.map_or(0, Duration::as_millis);
    print!("({} rounds, whole after median {} ms, max {} ms) ", times.len(), millis(median), millis(max));
    Ok(())
}

/// Kills, restarts what nobody else would, and waits. Returns how long it took until everything was whole.
fn once(world: &World, kind: Kind, victim: &'static str, master: &'static str) -> Result<Duration, String> {
    let cluster = &world.cluster;
    let owned_vip = world.vip_holder()? == victim;
    let old = cluster.lab().processes(victim).map_err(text)?;
    let killed = Instant::now();
    let since = match kind {
        Kind::Redis => cluster.kill_redis(victim).map(|()| killed),
        Kind::Worker => cluster.kill_worker(victim).map(|()| killed),
        Kind::Guard => {
            cluster.signal_guard(victim, Signal::SIGKILL).map_err(text)?;
            cluster.wait_ended(victim, LEAVE_TIME).map_err(text)?;
            left_cleanly(world, victim, master, owned_vip)?;
            restart(world, victim)
        }
        Kind::Both => {
            cluster.kill_vigies([victim]).map_err(text)?;
            // No vigie, no redis: the kernel sees to it.
            cluster.wait_ended(victim, DEATH_TIME).map_err(text)?;
            restart(world, victim)
        }
    };
    let since = since.map_err(text)?;
    // Who looked at once would see the cluster as it was before the kill.
    let doomed = old.iter().filter(|process| match kind {
        Kind::Redis => process.command == "redis-server",
        // All but the guard, which is nobody's child here.
        Kind::Worker => old.iter().any(|other| other.pid == process.parent),
        // Waited for above.
        Kind::Guard | Kind::Both => false,
    });
    let doomed: Vec<_> = doomed.map(|process| process.pid).collect();
    wait_for("what was killed is gone", DEATH_TIME, || {
        let left = cluster.lab().processes(victim).unwrap_or_default();
        left.iter().all(|process| !doomed.contains(&process.pid))
    })?;
    let (took, _) = world.wait_whole(since, WHOLE_TIME)?;
    world.marks_kept()?;
    Ok(took)
}

fn restart(world: &World, node: &str) -> Result<Instant, vigie::operate::lab::cluster::ClusterError> {
    let since = Instant::now();
    world.cluster.start_node(node).map(|()| since)
}

/// What a worker whose guard died leaves behind: nothing on its host, its offices with somebody else.
fn left_cleanly(world: &World, victim: &'static str, master: &'static str, owned_vip: bool) -> Outcome {
    let addresses = world.cluster.lab().addresses(victim).map_err(text)?;
    assert_eq!(addresses.len(), 1, "{victim} left alone with {addresses:?}");
    let rest: Vec<_> = DATA.into_iter().filter(|node| *node != victim).collect();
    let (_, now) = wait_ok("the rest is not whole", Instant::now(), WHOLE_TIME, || world.whole_among(&rest))?;
    assert_eq!(now == master, victim != master, "{now} is master instead of {master} after {victim} left");
    let log = std::fs::read_to_string(world.cluster.lab().scratch().join(format!("{victim}.log"))).map_err(text)?;
    // It hears of the death from the kernel in two ways: whichever is first is its reason.
    let last_words = log.rsplit_once("leaves: ").map_or("", |(_, words)| words);
    if victim == master && !last_words.contains("is master instead of") {
        return Err(format!("no handing over: {last_words}"));
    }
    if owned_vip {
        let heir = world.vip_holder()?;
        let path = world.cluster.lab().scratch().join(format!("{heir}.log"));
        let log = std::fs::read_to_string(path).map_err(text)?;
        let became = log.lines().rev().find(|line| line.contains("to Master") || line.contains("to master"));
        if !became.is_some_and(|line| line.contains("gave up being master")) {
            return Err(format!("{victim} did not say that it leaves: {heir} says {became:?}"));
        }
    }
    Ok(())
}

/// Nobody is left on the owner's host to take the address off, and nobody starts anything there.
fn dead_owner(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let owner = world.vip_holder()?;
    world.mark()?;
    let killed = Instant::now();
    world.cluster.kill_vigies([owner]).map_err(text)?;
    world.cluster.wait_ended(owner, DEATH_TIME).map_err(text)?;
    let moved = || {
        let addresses = world.cluster.lab().addresses(owner).map_err(text)?;
        let left = Err(format!("{owner} still has {addresses:?}"));
        if addresses.len() == 1 { world.whole_among(&DATA) } else { left }
    };
    let (took, _) =
        wait_ok("the virtual IP has not moved", killed, WHOLE_TIME, moved).map_err(|why| world.told(why))?;
    print!("(moved after {} ms) ", took.as_millis());
    world.marks_kept()?;
    world.cluster.start_node(owner).map_err(text)?;
    world.wait_healthy()?;
    if world.vip_holder()? == owner { Err("who comes back does not preempt".to_owned()) } else { Ok(()) }
}

/// Ends everything on every node at once, without a word.
fn kill_all(world: &World) -> Outcome {
    world.cluster.kill_vigies(world.cluster.names()).map_err(text)?;
    world.cluster.names().try_for_each(|node| world.cluster.wait_ended(node, DEATH_TIME).map(drop)).map_err(text)
}

fn everything(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    // Once as it began, and once with a master that is not the first one of the file.
    for to in [None, Some("redis-02")] {
        if to.is_some() {
            // Its replicas serve before each sentinel knows that they are in sync.
            world.wait_healthy()?;
            world.cluster.failover("redis-03", to).map_err(text)?;
            world.wait_healthy()?;
        }
        let (_, master) = world.wait_whole(Instant::now(), WHOLE_TIME)?;
        world.wait_recorded(master)?;
        world.mark()?;
        kill_all(&world)?;
        let since = Instant::now();
        world.cluster.names().try_for_each(|node| world.cluster.start_node(node)).map_err(text)?;
        let (took, now) = world.wait_whole(since, COLD_TIME).map_err(|why| world.told(why))?;
        print!("(whole after {} ms) ", took.as_millis());
        if now != master {
            return Err(world.told(format!("{now} is master, and everybody had a record of {master}")));
        }
        world.marks_kept()?;
    }
    Ok(())
}

fn cold_start_without_master(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let (_, master) = world.wait_whole(Instant::now(), WHOLE_TIME)?;
    world.mark()?;
    let rest: Vec<_> = DATA.into_iter().filter(|node| *node != master).collect();
    // What comes before that is not on the disk of a replica, and for a person to decide.
    rest.iter().try_for_each(|node| world.wait_recorded(node))?;
    kill_all(&world)?;
    let since = Instant::now();
    let but_master = || world.cluster.names().filter(|node| *node != master);
    but_master().try_for_each(|node| world.cluster.start_node(node)).map_err(text)?;
    let (took, now) = wait_ok("not whole without the old master", since, COLD_TIME, || world.whole_among(&rest))
        .map_err(|why| world.told(why))?;
    print!("(whole after {} ms) ", took.as_millis());
    assert_ne!(now, master);
    world.marks_kept()?;
    world.mark()?;
    world.cluster.start_node(master).map_err(text)?;
    let (_, after) = world.wait_whole(Instant::now(), COLD_TIME).map_err(|why| world.told(why))?;
    assert_eq!(after, now, "who comes back does not take over");
    world.marks_kept()
}

fn stopped_master(sandbox: &Sandbox) -> Outcome {
    let world = World::start(sandbox)?;
    let (_, master) = world.wait_whole(Instant::now(), WHOLE_TIME)?;
    let plan = world.cluster.plan("stopped");
    let started = clock::now();
    let client = Client::start(world.cluster.lab(), CLIENT, plan.clone()).map_err(text)?;
    let steady = Duration::from_millis(500);
    if !client.wait_steady(started, steady, COLD_TIME) {
        return Err(world.told(format!("no steady writes: {:?}", client.tally().kinds)));
    }
    let stopped = clock::now();
    world.cluster.signal_guard(master, Signal::SIGTERM).map_err(text)?;
    let status = world.cluster.wait_ended(master, LEAVE_TIME).map_err(text)?;
    let ended = clock::now();
    if !client.wait_steady(ended, steady, COLD_TIME) {
        return Err(world.told(format!("no steady writes after the stop: {:?}", client.tally().kinds)));
    }
    let tally = client.stop();
    let outage = tally.outage(stopped).unwrap_or_default();
    print!("({} ms without service, ended after {} ms) ", outage.as_millis(), ended.since(stopped).as_millis());
    assert!(status.success(), "{status}");
    let network = world.cluster.lab().network(CLIENT).map_err(text)?;
    let lost = read_back(&network, &plan, &tally.acks, false).map_err(text)?;
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost", lost.len(), tally.acks.len());
    let rest: Vec<_> = DATA.into_iter().filter(|node| *node != master).collect();
    world.whole_among(&rest)?;
    let since = restart(&world, master).map_err(text)?;
    let (_, now) = world.wait_whole(since, WHOLE_TIME).map_err(|why| world.told(why))?;
    assert_ne!(now, master, "who comes back does not take over");
    world.wait_healthy()
}
