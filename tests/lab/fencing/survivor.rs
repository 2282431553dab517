//! Two of three machines with data are lost, and one lives: it refuses every write until an operator gives it the writes. When the
//! others return they are its replicas, and the cluster is fenced again.
//!
//! `TRANSCRIPT=1` (with `--nocapture`) prints what the operator types and reads.

use std::time::Instant;

use vigie::config::Fencing;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::runtime::status::fencing::FENCED;

use super::super::whole::{DATA, PROXIES, START_TIME, text, wait_ok};
use super::super::{Case, Outcome, note};
use super::operator::Operator;
use super::{FAR, FLOW_TIME, Field, NEAR, NEEDS, repeat, runs};

pub(crate) const CASES: &[Case] =
    &[Case { name: "survivor", needs: NEEDS, run: |sandbox| survivors(sandbox, runs(2)) }];

pub(crate) fn quick(sandbox: &Sandbox) -> Outcome {
    survivors(sandbox, 2)
}

fn survivors(sandbox: &Sandbox, runs: usize) -> Outcome {
    let field = Field::start(sandbox)?;
    if field.fencing == Fencing::Off {
        // A master that was cut off went on writing all the time.
        return Ok(());
    }
    repeat(runs, |number| once(&field, number - 1))
}

fn once(field: &Field, number: usize) -> Outcome {
    let cluster = &field.world.cluster;
    let load = field.load()?;
    let master = load.master;
    // A replica, or the master itself.
    let survivor = DATA.into_iter().find(|node| (*node == master) == (number % 2 == 1)).ok_or("there are both")?;
    let lost: Vec<_> = DATA.into_iter().filter(|node| *node != survivor).collect();
    println!("\n{master} is master; {} lost, {survivor} left", lost.join(" and "));
    let mut operator = Operator::new(field);
    let at = clock::now();
    lost.iter().try_for_each(|node| cluster.lab().cut(node)).map_err(text)?;
    field.kill(&lost)?;

    // What clients see, and what the operator finds out.
    let address = field.world.address(survivor);
    let refused = || match field.world.ask(survivor, address, &[vec!["SET", "probe", "0"]]) {
        Ok(_) => Err(format!("{survivor} takes writes, and nobody has told it to")),
        Err(why) if why.contains("NOREPLICAS") || why.contains("READONLY") => Ok(why),
        Err(why) => Err(why),
    };
    let (_, direct) = wait_ok("not refused", Instant::now(), START_TIME, refused).map_err(|why| field.told(why))?;
    let closed = clock::now();
    operator.wait(survivor, "why", 1, &["(if the others are lost for good: vigie takeover)"])?;
    operator.reads(&format!("a client of {survivor}: {direct}"));
    let through = field.world.ask_vip(&[vec!["SET", "probe", "0"]]);
    operator.reads(&format!("a client of the virtual address: {through:?}"));
    // A replica cannot know whether the old master still has its lease.
    let lease = if survivor == master { "writes are refused" } else { "not known here who holds it" };
    operator.types(survivor, &["status"], None, 1, &[lease])?;
    operator.types(survivor, &["why"], None, 1, &["vigie takeover"])?;
    // A proxy finds the lost ones silent a little earlier or later.
    let only = format!("ask on {survivor}: vigie why");
    operator.wait(PROXIES[0], "why", 1, &[&only])?;
    operator.types(PROXIES[0], &["why"], None, 1, &[&only])?;

    // Orders that do nothing.
    let risks = ["What it risks", "Type yes to go on: ", "nothing was done", lost[0], lost[1]];
    operator.types(survivor, &["takeover"], None, 1, &risks)?;
    operator.types(survivor, &["takeover"], Some("y\n"), 1, &risks)?;
    operator.types(PROXIES[0], &["takeover", "--yes"], None, 1, &["give the order on the node that is left"])?;
    operator.types(survivor, &["bootstrap", "--yes"], None, 1, &[lost[0], lost[1]])?;
    refused()?;

    let ordered = clock::now();
    operator.types(survivor, &["takeover", "--yes"], None, 0, &["taken over by the operator at epoch"])?;
    let answered = clock::now();
    load.writers.wait_steady(&[survivor, NEAR, FAR], FLOW_TIME).map_err(|why| field.told(why))?;
    operator.types(survivor, &["status"], None, 1, &["taken over by the operator", "not fenced"])?;
    operator.types(survivor, &["why"], None, 0, &["taken over by the operator"])?;
    operator.types(survivor, &["takeover", "--yes"], None, 1, &["has taken over already"])?;
    operator.types(survivor, &["events"], None, 0, &["taken over by the operator"])?;

    // The others return, one after the other: the first one makes a majority.
    for node in &lost {
        cluster.lab().heal(node).map_err(text)?;
        cluster.start_node(node).map_err(text)?;
    }
    let run = field.settle(load, at, None)?;
    if run.master != survivor {
        return Err(field.told(format!("{} is master instead of {survivor}", run.master)));
    }
    let fenced = || {
        let modes = cluster.names().map(|node| cluster.status(node).map(|status| status.fencing.mode));
        let modes = modes.collect::<Result<Vec<_>, _>>().map_err(text)?;
        if modes.iter().all(|mode| mode == FENCED) { Ok(()) } else { Err(format!("{modes:?}")) }
    };
    let (again, ()) = wait_ok("not fenced again", Instant::now(), START_TIME, fenced).map_err(|why| field.told(why))?;
    field.well()?;
    operator.types(lost[0], &["status"], None, 0, &["fenced"])?;
    operator.types(survivor, &["takeover"], None, 1, &["is there (3 of 3)", "is their master already"])?;
    let elsewhere = format!("vigie failover --to {} moves it here", lost[0]);
    operator.types(lost[0], &["takeover", "--yes"], None, 1, &["is there (3 of 3)", &elsewhere])?;
    operator.types(survivor, &["bootstrap"], None, 1, &["Type yes to go on: ", "nothing was done"])?;

    let first = |names: &[&str]| {
        let first = run.seen.acked(names).into_iter().find(|at| *at >= ordered);
        first.map_or_else(|| "never".to_owned(), |at| at.since(ordered).as_millis().to_string())
    };
    let acked = run.seen.writes.iter().filter(|write| write.acked_at.is_some_and(|at| at >= ordered)).count();
    let missing = if survivor == master { run.verdict.lost } else { run.verdict.lost_of_others };
    note(format!(
        "{master} was master, {survivor} was left: the command took {} ms, first acknowledgement {} ms after it was typed, through \
         the VIP {} ms; fenced again at most {} ms after all was well; acknowledged since {acked}, of that lost {missing}; of the old \
         master's, acknowledged as it lost its cable and before, lost {}",
        answered.since(ordered).as_millis(),
        first(&[survivor]),
        first(&[NEAR, FAR]),
        again.as_millis(),
        run.verdict.lost - missing,
    ));
    operator.prints();
    // A writer may read late what was acknowledged while it was open.
    let early =
        run.seen.writes.iter().filter(|write| write.sent_at >= closed && write.acked_at.is_some_and(|at| at < ordered));
    let early = early.count();
    if early > 0 || missing > 0 {
        return Err(format!(
            "sent after it was closed, and acknowledged before the order: {early}; acknowledged by {survivor} and lost: {missing}"
        ));
    }
    Ok(())
}
