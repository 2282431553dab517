//! Whole clusters in virtual time: the real machines of every node among models of redis and of the network, faults drawn from a seed, and
//! checkers that look at every step.
//!
//! ```text
//! cargo test --test simulator                                  the usual number of worlds
//! VIGIE_SEEDS=10000 cargo test --release --test simulator      more of them
//! VIGIE_SEED=17 cargo test --test simulator -- replay          one world, with everything that happens in it
//! cargo test --features sabotage --test simulator -- sabotage  the loss of each rule of the core must be found
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]
#![allow(unreachable_pub, reason = "in a program everything public is")]

mod check;
mod clock;
mod dice;
mod drive;
mod dropin;
mod faults;
mod fence;
mod lease;
mod link;
#[path = "../model/mod.rs"]
mod model;
mod net;
mod plan;
mod proxy;
mod redis;
mod replication;
#[cfg(feature = "sabotage")]
mod sabotage;
mod segment;
mod sentinel;
mod supervisor;
mod trace;
mod vip;
mod worker;
mod world;
mod writes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use libtest_mimic::{Arguments, Trial};
use plan::Plan;
use vigie::cores::cluster::lease::Rules;
use world::{Stats, World};

/// Worlds of a usual run.
const SEEDS: u64 = 200;
/// So many worlds of leases for each of those.
const LEASES: u64 = 3;
/// A run with so many violations is over: more would say nothing new.
const VIOLATIONS_MAX: usize = 10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let number = |name: &str| match std::env::var(name) {
        Ok(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{name}={text:?}: a number is expected")),
        Err(_) => Ok(None),
    };
    let numbers = number("VIGIE_SEED").and_then(|seed| Ok((seed, number("VIGIE_SEEDS")?)));
    let (seed, seeds) = match numbers {
        Ok(numbers) => numbers,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    if words.iter().any(|word| word == "lease") {
        let mut world = lease::World::new(seed.unwrap_or(1), Rules::default());
        world.tracing = true;
        world.run();
        world.trace.iter().for_each(|line| println!("{line}"));
        println!("{}", world.violation.as_deref().unwrap_or("nothing is wrong"));
        return ExitCode::from(u8::from(world.violation.is_some()));
    }
    if words.iter().any(|word| word == "replay") {
        return replay(seed.unwrap_or(0));
    }
    #[cfg(feature = "sabotage")]
    if let Some(at) = words.iter().position(|word| word == "sabotage") {
        return sabotage::table(&words[at + 1..]);
    }
    let first = seed.unwrap_or(1);
    let count = if seed.is_some() { seeds.unwrap_or(1) } else { seeds.unwrap_or(SEEDS) };
    let worlds = Trial::test(format!("{count}_worlds_keep_the_rules"), move || {
        let (stats, violations) = run(first, count);
        println!("\n{}", summary(&stats));
        if violations.is_empty() {
            return Ok(());
        }
        let told = violations.iter().map(|(seed, what)| {
            format!("seed {seed}: {what}\n    VIGIE_SEED={seed} cargo test --test simulator -- replay")
        });
        Err(told.collect::<Vec<_>>().join("\n").into())
    });
    let leases = Trial::test("worlds_of_leases_keep_the_rules", move || {
        let (worlds, opened, violation) = lease::run(first..first + count * LEASES, Rules::default());
        println!("\n{worlds} worlds of leases, in which a redis was given writes {opened} times");
        match violation {
            None => Ok(()),
            Some((seed, what)) => {
                Err(format!("seed {seed}: {what}\n    VIGIE_SEED={seed} cargo test --test simulator -- lease").into())
            }
        }
    });
    libtest_mimic::run(&Arguments::from_args(), vec![worlds, leases]).exit_code()
}

fn summary(stats: &Stats) -> String {
    format!(
        "{} worlds, {:.1} virtual hours, {} events, {} turns of sentinels, {} frames, {} faults\n\
         {} votes, {} elections, {} promotions, {} stores; {} of {} orders carried out\n\
         {} full and {} partial synchronisations; well again within {:.1?}; {} worlds wait for an operator\n\
         {} worlds of drop-ins: {} orders without a majority, {} elections by what was known after a reset, {} epochs with two masters by them\n\
         {} acknowledged writes, {} lost by failovers, {} of them although a replica had them\n\
         {} ms of two acknowledging masters in {} worlds; {} writes acknowledged by the older one\n\
         {} worlds with leases: opened {} times, fenced {} times, killed by their fence {} times, by the guard {} times\n\
         {} virtual addresses, taken {} times, held by two for {:.1?} in {} worlds; {} connections by address, {} tries found nobody",
        stats.worlds,
        stats.virtual_time.as_secs_f64() / 3_600.0,
        stats.events,
        stats.turns,
        stats.frames,
        stats.faults,
        stats.votes,
        stats.elections,
        stats.promotions,
        stats.stores,
        stats.orders_done,
        stats.orders,
        stats.full_syncs,
        stats.partial_syncs,
        stats.healed_max,
        stats.undecided,
        stats.drop_ins,
        stats.forced,
        stats.thin,
        stats.split,
        stats.acked,
        stats.lost,
        stats.lost_copied,
        stats.two_masters.as_millis(),
        stats.two_masters_in,
        stats.acked_by_older,
        stats.fenced,
        stats.opened,
        stats.closed,
        stats.fence_kills,
        stats.guard_kills,
        stats.addresses,
        stats.takeovers,
        stats.two_holders,
        stats.two_holders_in,
        stats.by_address,
        stats.astray,
    )
}

/// Runs a world to its end; a panic of the core is a violation too.
fn run_one(world: &mut World) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        world.checks.violated(format!("panic: {text}"));
    }
}

/// Runs worlds on all processors; what they count, and the violations by seed.
fn run(first: u64, count: u64) -> (Stats, Vec<(u64, String)>) {
    let next = AtomicU64::new(first);
    let found = Mutex::new((Stats::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || found.lock().unwrap().1.len() >= VIOLATIONS_MAX {
                        return;
                    }
                    let mut world = World::new(Plan::draw(seed));
                    run_one(&mut world);
                    let mut found = found.lock().unwrap();
                    if world.stats.undecided > 0 {
                        println!("seed {seed} ends with a question to the operator");
                    }
                    found.0.add(&world.stats);
                    found.1.extend(world.checks.violation.map(|what| (seed, what)));
                }
            });
        }
    });
    let (stats, mut violations) = found.into_inner().unwrap();
    violations.sort();
    (stats, violations)
}

/// Shows everything that happens in one world.
fn replay(seed: u64) -> ExitCode {
    let plan = Plan::draw(seed);
    println!("{plan:#?}");
    let mut world = World::new(plan);
    world.trace.on = true;
    run_one(&mut world);
    for line in &world.trace.lines {
        println!("{line}");
    }
    println!("{}", summary(&world.stats));
    match &world.checks.violation {
        Some(what) => {
            println!("{} seed {seed}: {what}", world.now);
            ExitCode::FAILURE
        }
        None => {
            println!("{} seed {seed}: nothing is wrong", world.now);
            ExitCode::SUCCESS
        }
    }
}
