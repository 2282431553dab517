//! Can it fail? Each rule of the core is switched off in turn, and the checkers must notice.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use vigie::cores::cluster::lease as promises;
use vigie::cores::{sentinel, vrrp};

use crate::lease;
use crate::plan::Plan;
use crate::world::World;

/// Within so many worlds the loss of any rule must be found.
const SEEDS_MAX: u64 = 2_000;
/// And within so many small worlds that of a rule of the lease.
const LEASES_MAX: u64 = 60_000;

/// The rule that a world lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Of its sentinels.
    Sentinel(sentinel::Rule),
    /// Of its virtual routers.
    Router(vrrp::Rule),
    /// Of the lease, which has small worlds of its own.
    Lease(promises::Rule),
    /// Of the lease, in whole clusters.
    Promise(promises::Rule),
}

impl Broken {
    fn all() -> impl Iterator<Item = Self> {
        let routers = vrrp::Rule::ALL.into_iter().map(Self::Router);
        let leases = promises::Rule::ALL.into_iter().map(Self::Lease);
        let promises = promises::Rule::ALL.into_iter().map(Self::Promise);
        sentinel::Rule::ALL.into_iter().map(Self::Sentinel).chain(routers).chain(leases).chain(promises)
    }

    fn name(self) -> String {
        match self {
            Self::Sentinel(rule) => format!("{rule:?}"),
            Self::Router(rule) => format!("{rule:?}"),
            Self::Lease(rule) => format!("Lease{rule:?}"),
            Self::Promise(rule) => format!("Promise{rule:?}"),
        }
    }

    fn seeds_max(self) -> u64 {
        match self {
            Self::Lease(_) => LEASES_MAX,
            Self::Sentinel(_) | Self::Router(_) | Self::Promise(_) => SEEDS_MAX,
        }
    }

    /// What goes wrong in the world of that seed.
    fn violation(self, seed: u64) -> Option<String> {
        match self {
            Self::Lease(rule) => {
                let mut world = lease::World::new(seed, promises::Rules::without(rule));
                world.run();
                world.violation
            }
            Self::Sentinel(_) | Self::Router(_) | Self::Promise(_) => {
                let mut world = World::new(Plan::draw(seed));
                world.sabotage = Some(self);
                crate::run_one(&mut world);
                world.checks.violation
            }
        }
    }
}

/// Prints by which seed, and by which words, the loss of each rule was found; of all rules, or of those that are named.
pub fn table(names: &[String]) -> ExitCode {
    // Panics of the core are findings here.
    std::panic::set_hook(Box::new(|_| {}));
    // What the small worlds find is looked for in whole clusters only on request: most of it takes very many of them.
    let all = |rule: &Broken| names.is_empty() && !matches!(rule, Broken::Promise(_));
    let named = |rule: &Broken| all(rule) || names.contains(&rule.name());
    let missed = Broken::all().filter(named).filter(|rule| !show(*rule)).count();
    println!("{missed} not found");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(rule: Broken) -> bool {
    let rule_name = rule.name();
    let found = found(rule);
    match &found {
        Some((seed, what)) => println!("{rule_name:<16} seed {seed:>5}  {what}"),
        None => println!("{rule_name:<16} not found in {} worlds", rule.seeds_max()),
    }
    found.is_some()
}

/// The first seed in whose world something goes wrong without the rule, and what.
fn found(rule: Broken) -> Option<(u64, String)> {
    let next = AtomicU64::new(1);
    let first = std::sync::Mutex::new(None::<(u64, String)>);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let known = first.lock().unwrap().as_ref().map(|(seed, _)| *seed);
                    if seed > rule.seeds_max() || known.is_some_and(|known| known < seed) {
                        return;
                    }
                    if let Some(what) = rule.violation(seed) {
                        let mut first = first.lock().unwrap();
                        if first.as_ref().is_none_or(|(known, _)| seed < *known) {
                            *first = Some((seed, what));
                        }
                    }
                }
            });
        }
    });
    first.into_inner().unwrap()
}
