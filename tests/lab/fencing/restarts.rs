//! Vigie is restarted on one node after the other, by its operator or since its worker was killed. A master that is not restarted
//! keeps its lease meanwhile, as long as a majority of the sentinels is left; and has it again as soon as that is so again.

use std::time::{Duration, Instant as Clock};

use nix::sys::signal::Signal;
use vigie::base::Instant;
use vigie::config::Fencing;
use vigie::operate::lab::client::longest_gap;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::super::whole::{DATA, START_TIME, text, wait_ok};
use super::super::{Case, Outcome, note};
use super::{FAR, FLOW_TIME, Field, LEASE, NEAR, NEEDS, Table, let_pass, repeat, runs, spread};

pub(crate) const CASES: &[Case] = &[
    Case { name: "restart_each_by_its_operator", needs: NEEDS, run: |sandbox| each(sandbox, By::Operator) },
    Case { name: "restart_each_by_a_reboot", needs: NEEDS, run: |sandbox| each(sandbox, By::Reboot) },
    Case { name: "restart_each_by_a_killed_worker", needs: NEEDS, run: |sandbox| each(sandbox, By::Kill) },
    Case {
        name: "restart_the_second_of_two_sentinels_by_its_operator",
        needs: NEEDS,
        run: |sandbox| second(sandbox, By::Operator),
    },
    Case {
        name: "restart_the_second_of_two_sentinels_by_a_reboot",
        needs: NEEDS,
        run: |sandbox| second(sandbox, By::Reboot),
    },
    Case {
        name: "restart_the_second_of_two_sentinels_by_a_killed_worker",
        needs: NEEDS,
        run: |sandbox| second(sandbox, By::Kill),
    },
];

/// Longer than a lease lasts.
const AWAY: Duration = Duration::from_secs(1);
/// A master whose majority is back takes writes again within this.
const RETURN: Duration = Duration::from_millis(200);
/// What is asked to leave has left within this time.
const LEAVE_TIME: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Told to stop, and started when it has.
    Operator,
    /// The same, but started some time later, as after a reboot of its host.
    Reboot,
    /// The worker is killed, and the guard starts another one.
    Kill,
}

/// Restarts vigie on a node. Returns how long that took, until the new one answers.
pub(super) fn restart(field: &Field, node: &'static str, by: By) -> Result<Duration, String> {
    let (cluster, began) = (&field.world.cluster, Clock::now());
    match by {
        By::Operator | By::Reboot => {
            cluster.signal_guard(node, Signal::SIGTERM).map_err(text)?;
            cluster.wait_ended(node, LEAVE_TIME).map_err(text)?;
            let_pass(if by == By::Reboot { AWAY } else { Duration::ZERO }, clock::now());
            cluster.start_node(node).map_err(text)?;
        }
        By::Kill => cluster.kill_worker(node).map_err(text)?,
    }
    let answers = || {
        let uptime = Duration::from_millis(cluster.status(node).map_err(text)?.uptime_ms);
        if uptime < began.elapsed() { Ok(()) } else { Err("the old worker answers".to_owned()) }
    };
    wait_ok("the restarted vigie does not answer", began, START_TIME, answers).map(|(took, ())| took)
}

fn each(sandbox: &Sandbox, by: By) -> Outcome {
    let field = Field::start(sandbox)?;
    let mut table = Table::new(format!("restart by {by:?} ({:?})", field.fencing));
    let mut times = Times::default();
    let outcome = repeat(runs(1), |_| {
        field.world.cluster.names().try_for_each(|node| once(&field, node, by, &mut table, &mut times))
    });
    let sum = table.sum();
    times.note(by);
    outcome?;
    // Nothing is handed over by a worker that was killed: what its redis had not sent on is gone.
    if by != By::Kill && sum.lost > 0 {
        return Err(format!("{} acknowledged writes are lost", sum.lost));
    }
    table.demand(field.fencing)
}

#[derive(Default)]
struct Times {
    restarts: Vec<Duration>,
    /// Of clients of the virtual IP, and of those of a master that was not restarted.
    stalls: Vec<Duration>,
    stalls_of_masters: Vec<Duration>,
    /// Of masters that were not restarted, and of other nodes that were not.
    fences: usize,
    watched: usize,
}

impl Times {
    fn note(&mut self, by: By) {
        let Self { restarts, stalls, stalls_of_masters, fences, watched } = self;
        note(format!("  {by:?}: nodes that were not restarted: {watched}, fenced {fences} times"));
        for (what, times) in [
            ("a restart takes", restarts),
            ("without an acknowledgement through the virtual IP", stalls),
            ("without one at a master that is not restarted", stalls_of_masters),
        ] {
            if let Some(spread) = spread(times) {
                note(format!("  {by:?}: {what}: {spread}"));
            }
        }
    }
}

fn once(field: &Field, node: &'static str, by: By, table: &mut Table, times: &mut Times) -> Outcome {
    let load = field.load()?;
    let master = load.master;
    let (at, at_ms) = (clock::now(), clock::wall_ms());
    let took = restart(field, node, by).map_err(|why| field.told(why))?;
    let run = field.settle(load, at, None)?;
    let others = || DATA.into_iter().filter(|other| *other != node);
    let fences = others().map(|other| field.fences(other, at_ms)).sum::<Result<usize, _>>()?;
    let vip = run.stall(&[NEAR, FAR], at);
    times.restarts.push(took);
    times.stalls.push(vip);
    times.fences += fences;
    times.watched += others().count();
    let mut facts = format!(
        "{node} restarted in {} ms, others fenced {fences} times; without an acknowledgement through the virtual IP {} ms",
        took.as_millis(),
        vip.as_millis()
    );
    if node != master {
        let stall = run.stall(&[master], at);
        times.stalls_of_masters.push(stall);
        facts.push_str(&format!(", at the master {} ms", stall.as_millis()));
    }
    let moved = node != master && run.master != master;
    table.row_of(master, run);
    println!("      {facts}");
    if fences > 0 || moved {
        return Err(field.told(format!("a master that was not restarted: {facts}")));
    }
    Ok(())
}

/// Two of three sentinels are up, that of the master and another one, which is restarted.
fn second(sandbox: &Sandbox, by: By) -> Outcome {
    let field = Field::start(sandbox)?;
    let mut table = Table::new(format!("second of two, by {by:?} ({:?})", field.fencing));
    let mut figures = Vec::new();
    let outcome = repeat(runs(3), |number| pair(&field, number, by, &mut table, &mut figures));
    table.sum();
    note("  run; ms: restart, without an acknowledgement at the master, more than the restart; fences".to_owned());
    for (number, Figures { restart, stall, fences }) in (1..).zip(&figures) {
        let more = stall.saturating_sub(*restart);
        let [restart, stall, more] = [*restart, *stall, more].map(|time| time.as_millis());
        note(format!("  {by:?} {number:>3} {restart:>7} {stall:>7} {more:>7} {fences:>7}"));
    }
    outcome?;
    table.demand(field.fencing)
}

struct Figures {
    restart: Duration,
    stall: Duration,
    fences: usize,
}

fn pair(field: &Field, number: usize, by: By, table: &mut Table, figures: &mut Vec<Figures>) -> Outcome {
    let (world, load) = (&field.world, field.load()?);
    let (cluster, master) = (&world.cluster, load.master);
    let replicas: Vec<_> = DATA.into_iter().filter(|node| *node != master).collect();
    let (third, second) = (replicas[number % 2], replicas[(number + 1) % 2]);
    let elected = world.epoch(master)?;
    let begun = clock::now();
    field.kill(&[third])?;
    // The others have noticed, and go on.
    let alone = || {
        let view = cluster.status(second).map_err(text)?;
        let node = view.nodes.iter().find(|node| node.name == third).ok_or("a node of the file")?;
        if node.health == "unreachable" { world.whole_among(&[master, second]) } else { Err(node.health.clone()) }
    };
    wait_ok("not whole without the third", Clock::now(), START_TIME, alone).map_err(|why| field.told(why))?;
    load.writers.wait_steady(&[master, NEAR, FAR], FLOW_TIME).map_err(|why| field.told(why))?;

    let (at, at_ms) = (clock::now(), clock::wall_ms());
    let restart = restart(field, second, by).map_err(|why| field.told(why))?;
    load.writers.wait_steady(&[master, NEAR, FAR], FLOW_TIME).map_err(|why| field.told(why))?;
    let until = clock::now();
    let fences = field.fences(master, at_ms)?;
    let left = world.whole_among(&[master, second]).map_err(|why| field.told(why));
    let decided = world.epoch(master)?;

    cluster.start_node(third).map_err(text)?;
    let run = field.settle(load, begun, None)?;
    let stall = stall_between(&run.seen.acked(&[master]), at, until);
    let (took, stood) = (restart.as_millis(), stall.as_millis());
    let facts = format!(
        "{third} down, {second} restarted in {took} ms: at {master} no acknowledgement for {stood} ms, {fences} fences; master \
         {left:?} of epoch {decided:?}, was {elected:?}"
    );
    figures.push(Figures { restart, stall, fences });
    let stayed = left.as_ref() == Ok(&master) && decided == elected && run.verdict.takeover.is_none();
    table.row_of(master, run);
    println!("      {facts}");
    if !stayed {
        return Err(field.told(format!("a failover: {facts}")));
    }
    // A case that does not see this fence would see none elsewhere.
    let seen = match (field.fencing, by) {
        (Fencing::Lease, By::Reboot) => fences == 1 && stall > AWAY - LEASE,
        (Fencing::Lease, By::Operator | By::Kill) => true,
        (Fencing::Off, _) => fences == 0 && stall < AWAY - LEASE,
    };
    if !seen {
        return Err(field.told(format!("not what the node tells of itself: {facts}")));
    }
    if stall > restart + RETURN {
        return Err(field.told(format!("for too long: {facts}")));
    }
    Ok(())
}

/// The longest time without an acknowledgement in a part of a run.
fn stall_between(acked: &[Instant], from: Instant, until: Instant) -> Duration {
    longest_gap(acked.iter().copied().filter(|at| *at <= until), from).unwrap_or_default()
}
