//! Sentinels without their own record. One has lost its disk while another one is lost for good: it waits for that, gives no vote, and
//! the master is promised nothing. And one has the disk of another life, to whose epoch nobody follows it. The operator's way out of
//! both is `vigie bootstrap`.
//!
//! `TRANSCRIPT=1` (with `--nocapture`) prints what the operator types and reads.

use std::fs;
use std::time::Instant;

use vigie::config::Fencing;
use vigie::cores::sentinel::Durable;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::runtime::store::Store;

use super::super::ledger::Write;
use super::super::whole::{DATA, START_TIME, text, wait_ok};
use super::super::{Outcome, note};
use super::operator::Operator;
use super::{FAR, FLOW_TIME, Field, NEAR};

/// Further than sentinels follow each other.
const ELSEWHERE: u64 = 1_000_000;

pub(crate) fn quick(sandbox: &Sandbox) -> Outcome {
    let field = Field::start(sandbox)?;
    if field.fencing == Fencing::Off {
        return Ok(());
    }
    without_record(&field)?;
    of_another_life(&field)
}

fn others(master: &'static str) -> [&'static str; 2] {
    let mut others = DATA.into_iter().filter(|node| *node != master);
    [others.next(), others.next()].map(|node| node.expect("there are three"))
}

fn without_record(field: &Field) -> Outcome {
    let cluster = &field.world.cluster;
    let load = field.load()?;
    let master = load.master;
    let [lost, wiped] = others(master);
    println!("\n{master} is master, {lost} is lost, and so is the disk of {wiped}");
    let mut operator = Operator::new(field);
    let at = clock::now();
    cluster.lab().cut(lost).map_err(text)?;
    field.kill(&[lost, wiped])?;
    fs::remove_dir_all(cluster.state_dir(wiped)).map_err(text)?;
    cluster.start_node(wiped).map_err(text)?;

    let refused = || match field.world.ask(master, field.world.address(master), &[vec!["SET", "probe", "0"]]) {
        Ok(_) => Err(format!("{master} takes writes, and nobody has promised it anything")),
        Err(why) if why.contains("NOREPLICAS") => Ok(why),
        Err(why) => Err(why),
    };
    let (_, direct) = wait_ok("not refused", Instant::now(), START_TIME, refused).map_err(|why| field.told(why))?;
    let closed = clock::now();
    operator.reads(&format!("a client of {master}: {direct}"));
    operator.wait(wiped, "why", 1, &["no record", lost, "vigie bootstrap"])?;
    // At the start of a cluster it would be told of every node.
    operator.wait(wiped, "status", 1, &["no record", lost])?;
    operator.types(wiped, &["why"], None, 1, &["no record", lost, "vigie bootstrap"])?;
    operator.types(wiped, &["status"], None, 1, &["no record", lost])?;
    operator.types(master, &["why"], None, 1, &[])?;
    operator.types(wiped, &["bootstrap"], None, 1, &["What it risks", "Type yes to go on: ", "nothing was done"])?;
    operator.types(wiped, &["bootstrap"], Some("no\n"), 1, &["nothing was done"])?;
    refused()?;
    let ordered = clock::now();
    operator.types(wiped, &["bootstrap", "--yes"], None, 0, &["gives votes from now on", "not heard: ", lost])?;
    load.writers.wait_steady(&[master, NEAR, FAR], FLOW_TIME).map_err(|why| field.told(why))?;
    operator.types(wiped, &["bootstrap", "--yes"], None, 1, &["every sentinel must be heard", lost])?;
    operator.types(wiped, &["events"], None, 0, &["gives votes from now on"])?;

    cluster.lab().heal(lost).map_err(text)?;
    cluster.start_node(lost).map_err(text)?;
    let run = field.settle(load, at, None)?;
    if run.master != master {
        return Err(field.told(format!("{} is master instead of {master}", run.master)));
    }
    field.well()?;
    operator.types(wiped, &["status"], None, 0, &["fenced"])?;
    operator.types(wiped, &["bootstrap", "--yes"], None, 1, &["this sentinel is in step"])?;
    operator.prints();
    let first = run.seen.acked(&[master]).into_iter().find(|acked| *acked >= ordered);
    note(format!(
        "without a record: first acknowledgement {} ms after vigie bootstrap was typed; lost {}",
        first.map_or_else(|| "never".to_owned(), |first| first.since(ordered).as_millis().to_string()),
        run.verdict.lost
    ));
    let early = |write: &&Write| write.sent_at >= closed && write.acked_at.is_some_and(|acked| acked < ordered);
    let early = run.seen.writes.iter().filter(early).count();
    if early + run.verdict.lost > 0 {
        return Err(format!("sent while it was closed, and acknowledged: {early}; lost: {}", run.verdict.lost));
    }
    Ok(())
}

fn of_another_life(field: &Field) -> Outcome {
    let cluster = &field.world.cluster;
    let load = field.load()?;
    let master = load.master;
    let [restored, _] = others(master);
    println!("\n{master} is master, and {restored} has the disk of another life");
    let mut operator = Operator::new(field);
    let at = clock::now();
    field.kill(&[restored])?;
    let store: Store<Durable> = Store::new(cluster.state_dir(restored).join("sentinel.state"));
    let mut record = store.load().map_err(text)?.ok_or("it has a record")?;
    record.current_epoch += ELSEWHERE;
    store.save(&record).map_err(text)?;
    cluster.start_node(restored).map_err(text)?;
    let epoch = record.current_epoch.to_string();
    operator.wait(restored, "status", 1, &["vigie bootstrap", &epoch])?;
    operator.types(restored, &["status"], None, 1, &["vigie bootstrap", &epoch])?;
    // It says so everywhere.
    operator.types(master, &["status"], None, 1, &["vigie bootstrap", &epoch])?;
    operator.types(restored, &["bootstrap", "--yes"], None, 0, &["goes on from epoch ", &epoch])?;
    let run = field.settle(load, at, None)?;
    operator.types(restored, &["status"], None, 0, &["fenced"])?;
    operator.prints();
    if (run.master, run.verdict.lost) != (master, 0) {
        return Err(field.told(format!("{} is master, of {master}; lost {}", run.master, run.verdict.lost)));
    }
    Ok(())
}
