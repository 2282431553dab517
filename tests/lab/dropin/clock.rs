//! The wall clock of all sentinels is set, an hour ahead and back, before and during a failover. Nobody freezes, and nothing
//! happens twice. No clock of this machine is touched: libfaketime stands before the sentinels' own, and changes the wall clock
//! alone, as whoever sets a clock does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vigie::operate::lab::sandbox::Sandbox;

use super::super::whole::{text, wait_ok};
use super::super::{Outcome, note};
use super::record::keeps_promises;
use super::world::{HOSTS, Kind, Plan, World};

/// Where distributions put the library, behind `/usr/lib/`; the first one is for processes with threads.
const LIBRARIES: [&str; 3] = [
    "x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "faketime/libfaketimeMT.so.1",
];
const HOUR: i64 = 3_600;
/// A stock sentinel does nothing for 30 s once its clock was set. What it has not done after twice that it never does: the
/// replicas have been without their master for longer then than it has thought the master down.
const SWITCH_TIME: Duration = Duration::from_secs(60);
/// What would freeze as a stock sentinel does is not back within this time.
const UNFROZEN_TIME: Duration = Duration::from_secs(20);
/// What is agreed stays agreed: looked at again after so long.
const STABLE_TIME: Duration = Duration::from_secs(3);

/// When the clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// While all is well.
    Idle,
    /// Between the death of the master and `+sdown`.
    Silence,
    /// As soon as somebody tries to fail over.
    Trying,
    /// As soon as a replica was chosen.
    Selected,
}

pub(crate) fn library() -> Option<PathBuf> {
    LIBRARIES.iter().map(|name| Path::new("/usr/lib").join(name)).find(|path| path.is_file())
}

pub(super) fn a_few(sandbox: &Sandbox) -> Outcome {
    steps(sandbox, Kind::Vigie, &ahead_and_back(&[When::Trying]))
}

pub(super) fn each(sandbox: &Sandbox) -> Outcome {
    steps(sandbox, Kind::Vigie, &ahead_and_back(&[When::Idle, When::Silence, When::Trying, When::Selected]))
}

fn ahead_and_back(moments: &[When]) -> Vec<(When, i64)> {
    moments.iter().flat_map(|when| [(*when, HOUR), (*when, -HOUR)]).collect()
}

/// The same with redis-sentinel alone: what the library does is seen by whoever looks at the wall clock.
pub(super) fn stock(sandbox: &Sandbox) -> Outcome {
    // Set back, it waits for the hour to pass before it tries again: nothing can come behind that.
    steps(sandbox, Kind::Redis7, &[(When::Trying, HOUR), (When::Idle, -HOUR)])
}

fn steps(sandbox: &Sandbox, kind: Kind, moments: &[(When, i64)]) -> Outcome {
    let clock = sandbox.scratch.join("clock");
    set(&clock, 0)?;
    let library = library().ok_or("it was there a moment ago")?;
    let mut plan = Plan::of([kind; 3]);
    for (name, value) in [
        // The library asks for memory before jemalloc, which redis brings, is able to give any: libc is asked first.
        ("LD_PRELOAD", format!("{}:libc.so.6", library.display())),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ] {
        plan.environment.push((name.to_owned(), value));
    }
    let mut world = World::start(sandbox, &plan)?;
    let mut offset = 0;
    let played = moments.iter().try_for_each(|(when, step)| {
        offset += step;
        let played = round(&mut world, kind, &clock, *when, *step, offset);
        played.map_err(|why| format!("{kind:?}, {step} s, {when:?}: {why}"))
    });
    let played = played.and_then(|()| (0..HOSTS.len()).try_for_each(|n| saw_steps(&world.log(n))));
    if std::env::var_os("VIGIE_LAB_LOGS").is_some() {
        println!("\n{}", world.told());
    }
    played.map_err(|why| format!("{why}\n{}", world.told()))
}

/// Whether the times in a log jump: else the library has done nothing, and the test has shown nothing.
fn saw_steps(log: &str) -> Outcome {
    // `pid:X 23 Nov 2026 01:28:37.670 # text`
    let hour = |line: &str| line.split_whitespace().nth(4).and_then(|time| time.get(..2)?.parse::<i64>().ok());
    let hours: Vec<_> = log.lines().filter_map(hour).collect();
    let jumps = |by: i64| hours.windows(2).any(|pair| (pair[1] - pair[0]).rem_euclid(24) == by.rem_euclid(24));
    if jumps(1) && jumps(-1) { Ok(()) } else { Err("the wall clock of a sentinel was not set".to_owned()) }
}

/// Says by how much the wall clock of the sentinels is wrong from now on, seconds.
fn set(clock: &Path, offset: i64) -> Outcome {
    let new = clock.with_extension("new");
    fs::write(&new, format!("{offset:+}\n")).and_then(|()| fs::rename(&new, clock)).map_err(text)
}

fn round(world: &mut World, kind: Kind, clock: &Path, when: When, step: i64, offset: i64) -> Outcome {
    let (_, old) = wait_ok("no agreement before", Instant::now(), SWITCH_TIME, || world.agreed(None, None))?;
    world.wait_settled(old)?;
    let sampler = world.sample()?;
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    if when == When::Idle {
        set(clock, offset)?;
        // Longer than everybody's patience with a master.
        std::thread::sleep(Duration::from_secs(2));
        let seen = ["+sdown", "+odown", "+try-failover"].map(|channel| world.ears.count(began, channel));
        if kind == Kind::Vigie && seen != [0; 3] {
            return Err(format!("the step alone makes somebody suspicious: {seen:?}"));
        }
    }
    let killed = Instant::now();
    world.kill_redis(old)?;
    if when == When::Silence {
        std::thread::sleep(Duration::from_millis(250));
    }
    let event = match when {
        When::Idle | When::Silence => None,
        When::Trying => Some("+try-failover"),
        When::Selected => Some("+selected-slave"),
    };
    if let Some(event) = event {
        let said = || world.ears.first(killed, event).ok_or_else(|| format!("nobody says {event}"));
        wait_ok("no failover", killed, SWITCH_TIME, said)?;
    }
    set(clock, offset)?;
    let limit = if kind == Kind::Vigie { UNFROZEN_TIME } else { SWITCH_TIME };
    let agreed = wait_ok("no agreement on a new master", killed, limit, || world.agreed(None, Some(old)));
    let agreed = match agreed {
        Ok((agreed, _)) => format!("{} ms", agreed.as_millis()),
        Err(why) if kind == Kind::Vigie => return Err(why),
        Err(_) => format!("not within {limit:?}"),
    };
    world.start_redis(old)?;
    let (whole, master) = world.wait_whole(Instant::now(), SWITCH_TIME, STABLE_TIME)?;
    let writes = sampler.stop(killed, [old, master]);
    let logs: Vec<_> = (0..HOSTS.len()).map(|n| world.log(n)).collect();
    keeps_promises(&logs)?;
    let [led, switched, tilts] =
        ["+elected-leader", "+switch-master", "+tilt"].map(|channel| world.ears.count(began, channel));
    note(
        "| kind   | step    | when     | agreed | all well since it is back | writes blocked | elected | +switch-master | +tilt \
         | +switch-master, ms",
    );
    note(format!(
        "| {:<6} | {step:+} s | {:<8} | {agreed} | {} ms | {} ms | {led} | {switched} | {tilts} | {}",
        format!("{kind:?}"),
        format!("{when:?}"),
        whole.as_millis(),
        writes.blocked.as_millis(),
        world.ears.times(killed, "+switch-master"),
    ));
    // One more leader may be needed where two stood at once; a second switch is one too many.
    if kind == Kind::Vigie && (switched, tilts) != (HOSTS.len(), 0) {
        return Err(format!("{switched} times +switch-master of three sentinels, {tilts} times +tilt"));
    }
    Ok(())
}
