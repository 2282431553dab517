//! The leader of a failover ends at each of its steps: somebody else brings it to an end, and no promise is broken.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use vigie::operate::lab::sandbox::Sandbox;

use super::super::whole::{text, wait_ok};
use super::super::{Outcome, note};
use super::record::keeps_promises;
use super::world::{HOSTS, Kind, Plan, World};

/// The leader dies within that time, or the step did not come.
const STEP_TIME: Duration = Duration::from_secs(15);
/// All agree again, at the latest.
const WHOLE_TIME: Duration = Duration::from_secs(60);
/// What is agreed stays agreed: looked at again after so long.
const STABLE_TIME: Duration = Duration::from_secs(2);

/// Why there is a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// SIGKILL to the master.
    Killed,
    /// The same while one replica is down, so that there is only one to promote.
    KilledLast,
    /// SENTINEL FAILOVER while the master is well.
    Ordered,
}

/// How the leader ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// SENTINEL SIMULATE-FAILURE.
    Simulated,
    /// SIGKILL as soon as a subscriber has heard the event: a little behind the step.
    Signal,
    /// SIGKILL by its own hand, between the event and whatever comes behind it. Only builds with sabotage can.
    Itself,
}

type Step = (Cause, How, &'static str);

/// A few, from outside.
const FEW: &[Step] = &[
    (Cause::Killed, How::Signal, "+try-failover"),
    (Cause::KilledLast, How::Simulated, "crash-after-promotion"),
    (Cause::Ordered, How::Signal, "+failover-state-send-slaveof-noone"),
];

const EVENTS: [&str; 8] = [
    "+try-failover",
    "+vote-for-leader",
    "+elected-leader",
    "+selected-slave",
    "+failover-state-send-slaveof-noone",
    "+promoted-slave",
    "+switch-master",
    "+slave-reconf-sent",
];

pub(super) fn a_few(sandbox: &Sandbox) -> Outcome {
    play(sandbox, FEW)
}

/// All of them, and twice: from outside, and in builds that can, from inside.
pub(super) fn each(sandbox: &Sandbox) -> Outcome {
    let mut steps: Vec<Step> = Vec::new();
    for how in [How::Signal, How::Itself] {
        if how == How::Itself && !cfg!(feature = "sabotage") {
            note("steps that are too quick to hit from outside are left out: build with --features sabotage");
            continue;
        }
        for cause in [Cause::Killed, Cause::Ordered] {
            steps.extend(EVENTS.map(|event| (cause, how, event)));
        }
    }
    for flag in ["crash-after-election", "crash-after-promotion"] {
        steps.extend([Cause::Killed, Cause::Ordered].map(|cause| (cause, How::Simulated, flag)));
    }
    // The promotion is under way and nobody knows of it; it is done and nobody knows of it.
    steps.push((Cause::KilledLast, How::Signal, "+failover-state-wait-promotion"));
    steps.push((Cause::KilledLast, How::Simulated, "crash-after-promotion"));
    play(sandbox, &steps)
}

fn play(sandbox: &Sandbox, steps: &[Step]) -> Outcome {
    let traps = sandbox.scratch.join("traps");
    fs::create_dir_all(&traps).map_err(text)?;
    let mut plan = Plan::of([Kind::Vigie; 3]);
    plan.environment.push(("VIGIE_END_AT".to_owned(), traps.display().to_string()));
    let mut world = World::start(sandbox, &plan)?;
    let mut failed = Vec::new();
    // Those whose names hold this, if it is set: such as `Ordered Signal`.
    let wanted = std::env::var("VIGIE_LAB_STEPS").unwrap_or_default();
    for step in steps {
        let (cause, how, event) = step;
        if !format!("{cause:?} {how:?} {event}").contains(&wanted) {
            continue;
        }
        if let Err(why) = round(&mut world, *step, &traps) {
            failed.push(format!("{cause:?}, {how:?}, {event}: {why}\n{}", world.told()));
            break;
        }
    }
    if std::env::var_os("VIGIE_LAB_LOGS").is_some() {
        println!("\n{}", world.told());
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn round(world: &mut World, (cause, how, event): Step, traps: &Path) -> Outcome {
    let old = world.agreed(None, None)?;
    world.wait_settled(old)?;
    let spare = (0..HOSTS.len()).find(|n| *n != old).filter(|_| cause == Cause::KilledLast);
    if let Some(spare) = spare {
        let since = Instant::now();
        world.kill_redis(spare)?;
        let seen = || if world.ears.count(since, "+sdown") >= HOSTS.len() { Ok(()) } else { Err(String::new()) };
        wait_ok("the sentinels do not see that a replica is down", since, STEP_TIME, seen)?;
    }
    let sampler = world.sample()?;
    std::thread::sleep(Duration::from_millis(200));
    match how {
        How::Simulated => (0..HOSTS.len()).try_for_each(|n| world.order(n, &["SIMULATE-FAILURE", event]))?,
        How::Signal => world.ears.set_trap(event),
        How::Itself => fs::write(traps.join(event), "").map_err(text)?,
    }
    let began = Instant::now();
    // Whoever is ordered to lead may be dead before it has answered.
    let answered = match cause {
        Cause::Killed | Cause::KilledLast => {
            world.kill_redis(old)?;
            Ok(())
        }
        Cause::Ordered => world.order((old + 1) % HOSTS.len(), &["FAILOVER", "mymaster"]),
    };
    let ended = || {
        if how == How::Signal {
            return world.ears.caught().map(|(n, _)| n).ok_or_else(|| "nobody says it".to_owned());
        }
        (0..HOSTS.len()).find(|n| world.has_ended(*n)).ok_or_else(|| "all of them run".to_owned())
    };
    let (died, leader) = wait_ok("no leader was ended", began, STEP_TIME, ended)
        .map_err(|error| format!("{error}; the order was answered: {answered:?}"))?;
    world.sentinel_ended(leader, STEP_TIME)?;
    world.ears.spring();
    if how == How::Simulated {
        // The next leader is to live.
        for n in (0..HOSTS.len()).filter(|n| *n != leader) {
            world.ask_sentinel(n, &["SENTINEL", "SIMULATE-FAILURE", "help"])?;
        }
    }
    let not = (cause != Cause::Ordered).then_some(old);
    let rest = || {
        let master = world.agreed(Some(leader), not)?;
        world.follow(master).map(|()| master)
    };
    let (agreed, without) = wait_ok("the others do not agree", began, WHOLE_TIME, rest)?;
    // A decision that is stored and told to nobody is told when its leader is back, as by redis-sentinel.
    let told_late = world.file(leader)?.config_epoch > world.file((leader + 1) % HOSTS.len())?.config_epoch;
    world.start_sentinel(leader)?;
    for n in 0..HOSTS.len() {
        if !world.redis_runs(n) {
            world.start_redis(n)?;
        }
    }
    let back = Instant::now();
    let (whole, master) = world.wait_whole(back, WHOLE_TIME, STABLE_TIME)?;
    // A hold that is left behind by a dead leader ends by itself.
    wait_ok("writes do not flow", back, WHOLE_TIME, || sampler.took(master, back))?;
    let writes = sampler.stop(began, [old, master]);
    let logs: Vec<_> = (0..HOSTS.len()).map(|n| world.log(n)).collect();
    let promises = keeps_promises(&logs)?;
    note(format!(
        "| {:<10} | {:<9} | {:<34} | leader | ended at | master before → with two sentinels → with three | writes blocked | \
         two take writes | two agree | all agree since the restart | so far",
        "cause", "ended by", "at"
    ));
    note(format!(
        "| {:<10} | {:<9} | {event:<34} | {:<5} | {} ms | {} → {} → {} | {} ms | {} ms | {} ms | {} ms | {promises}",
        format!("{cause:?}"),
        format!("{how:?}"),
        HOSTS[leader],
        died.as_millis(),
        HOSTS[old],
        HOSTS[without],
        HOSTS[master],
        writes.blocked.as_millis(),
        writes.doubled.as_millis(),
        agreed.as_millis(),
        whole.as_millis(),
    ));
    if (master != without && !told_late) || writes.last != Some(master) {
        return Err(format!(
            "{} was master, now {} is; the last write went to {:?}",
            HOSTS[without], HOSTS[master], writes.last
        ));
    }
    Ok(())
}
