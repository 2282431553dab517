//! A master is killed, frozen, cut off or robbed of its data, and comes back; then all nodes at once. What was acknowledged is
//! there afterwards, on one master and its replicas, but for what the fault itself takes with it.

use std::fs;
use std::time::Duration;

use vigie::base::Rng;
use vigie::operate::lab::client::longest_gap;
use vigie::operate::lab::cluster::Part;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::{clock, random};

use super::super::whole::{DATA, text, wait_ok};
use super::super::{Case, Outcome, note};
use super::restarts::{By, restart};
use super::{DEATH_TIME, FAR, Field, NEAR, NEEDS, Table, let_pass, repeat, runs, spread};

pub(crate) const CASES: &[Case] = &[
    Case { name: "recovery_of_a_killed_redis", needs: NEEDS, run: |sandbox| recoveries(sandbox, Harm::Killed) },
    Case { name: "recovery_of_a_frozen_node", needs: NEEDS, run: |sandbox| recoveries(sandbox, Harm::Frozen) },
    Case { name: "recovery_of_a_node_cut_off", needs: NEEDS, run: |sandbox| recoveries(sandbox, Harm::CutOff) },
    Case { name: "recovery_of_a_wiped_node", needs: NEEDS, run: |sandbox| recoveries(sandbox, Harm::Wiped) },
    Case { name: "recovery_of_a_restarted_vigie", needs: NEEDS, run: |sandbox| recoveries(sandbox, Harm::Restarted) },
    Case { name: "recovery_of_all", needs: NEEDS, run: |sandbox| recoveries(sandbox, Harm::All) },
    Case {
        name: "recovery_of_all_the_master_late",
        needs: NEEDS,
        run: |sandbox| recoveries(sandbox, Harm::AllMasterLate),
    },
];

/// A node is frozen or cut off for so long.
const SPAN: Duration = Duration::from_secs(5);
/// A cluster waits at most so long for a master that everybody has a record of.
const COLD_TIME: Duration = Duration::from_secs(30);
/// A node that was wiped stays away for so long.
const AWAY: Duration = Duration::from_secs(3);
/// Nodes that start at once start within this time, in any order.
const STAGGER: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// The redis-server alone.
    Killed,
    /// Everything on the node.
    Frozen,
    CutOff,
    /// Everything on the node is killed, and its redis loses its data.
    Wiped,
    /// Its vigie is told to stop, and started.
    Restarted,
    /// Everything on every node is killed, and started in some order.
    All,
    /// The same, and the last master stays away until the others are whole without it.
    AllMasterLate,
}

impl Harm {
    /// Whether acknowledged writes may go with the fault: what replicas had not got yet, or what is acknowledged to those who
    /// share the fate of the old master.
    const fn may_lose(self) -> bool {
        !matches!(self, Self::Restarted | Self::All)
    }
}

fn recoveries(sandbox: &Sandbox, harm: Harm) -> Outcome {
    let field = Field::start(sandbox)?;
    let mut table = Table::new(format!("recovery, {harm:?} ({:?})", field.fencing));
    let mut outages = Vec::new();
    let outcome = repeat(runs(3), |_| once(&field, harm, &mut table, &mut outages));
    let sum = table.sum();
    if let Some(spread) = spread(&mut outages) {
        note(format!("  without an acknowledgement through the virtual IP: {spread}"));
    }
    outcome?;
    if !harm.may_lose() && sum.lost > 0 {
        return Err(format!("{} acknowledged writes are lost", sum.lost));
    }
    // A machine that stood still as a whole acknowledges on waking what was queued there: counted, not promised.
    if harm == Harm::Frozen { Ok(()) } else { table.demand(field.fencing) }
}

fn once(field: &Field, harm: Harm, table: &mut Table, outages: &mut Vec<Duration>) -> Outcome {
    let load = field.load()?;
    let master = load.master;
    if matches!(harm, Harm::All | Harm::AllMasterLate) {
        // What a node has not on its disk it cannot know when everybody has forgotten.
        field.world.cluster.sentinels().try_for_each(|node| field.world.wait_recorded(node))?;
    }
    let at = clock::now();
    hurt(field, harm, master).map_err(|why| field.world.told(why))?;
    let deprived = matches!(harm, Harm::Frozen | Harm::CutOff).then(|| (at, at + SPAN));
    let run = field.settle(load, at, deprived)?;
    let outage = longest_gap(run.seen.acked(&[NEAR, FAR]).into_iter(), at).unwrap_or_default();
    outages.push(outage);
    table.row_of(master, run);
    println!("      without an acknowledgement through the virtual IP for {} ms", outage.as_millis());
    Ok(())
}

/// Does the harm, and mends it. Returns when nothing is missing any more.
fn hurt(field: &Field, harm: Harm, master: &'static str) -> Outcome {
    let cluster = &field.world.cluster;
    let since = clock::now();
    match harm {
        Harm::Killed => {
            let redis = cluster.pid(master, Part::Redis).map_err(text)?;
            cluster.kill_redis(master).map_err(text)?;
            super::super::wait_for("the killed redis is gone", DEATH_TIME, || {
                let left = cluster.lab().processes(master).unwrap_or_default();
                left.iter().all(|process| process.pid != redis)
            })
        }
        Harm::Frozen => {
            let asleep = field.freeze(master, &[Part::Guard, Part::Worker, Part::Redis])?;
            let_pass(SPAN, since);
            Field::wake(&asleep)
        }
        Harm::CutOff => {
            cluster.lab().cut(master).map_err(text)?;
            let_pass(SPAN, since);
            cluster.lab().heal(master).map_err(text)
        }
        Harm::Wiped => {
            field.kill(&[master])?;
            let data = cluster.state_dir(master).join("redis");
            let entries = fs::read_dir(&data).map_err(|error| format!("{}: {error}", data.display()))?;
            for entry in entries {
                let path = entry.map_err(text)?.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let_pass(AWAY, since);
            cluster.start_node(master).map_err(text)
        }
        Harm::Restarted => restart(field, master, By::Operator).map(drop),
        Harm::All => {
            field.kill(&cluster.names().collect::<Vec<_>>())?;
            start(field, cluster.names().collect())
        }
        Harm::AllMasterLate => {
            field.kill(&cluster.names().collect::<Vec<_>>())?;
            start(field, cluster.names().filter(|node| *node != master).collect())?;
            let rest: Vec<_> = DATA.into_iter().filter(|node| *node != master).collect();
            let whole = || field.world.whole_among(&rest);
            let (took, heir) =
                wait_ok("not whole without the old master", std::time::Instant::now(), COLD_TIME, whole)?;
            println!("      whole without the old master after {} ms, with {heir}", took.as_millis());
            cluster.start_node(master).map_err(text)
        }
    }
}

/// Starts some nodes in an order and at moments that differ each time, and are printed.
fn start(field: &Field, nodes: Vec<&'static str>) -> Outcome {
    let bytes = random::bytes::<8>().map_err(text)?;
    let mut rng = Rng::new(u64::from_ne_bytes(bytes));
    let began = clock::now();
    let mut order: Vec<(Duration, _)> = nodes.into_iter().map(|node| (rng.below(STAGGER), node)).collect();
    order.sort_unstable();
    println!("      started: {order:?}");
    for (delay, node) in order {
        let_pass(delay, began);
        field.world.cluster.start_node(node).map_err(text)?;
    }
    Ok(())
}
