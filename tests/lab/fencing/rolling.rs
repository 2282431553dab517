//! A cluster is changed node by node while writers go on: the version before, which has no leases, is exchanged for this one, and
//! `fencing` is edited in the files. At no step two nodes acknowledge, nothing is lost, nobody waits for longer than at a planned
//! switchover, and `status` says for whom a change waits.
//!
//! `BEFORE`: the binary of a version without leases. `RUNS`: how often the files are edited there and back.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant as Clock};

use nix::sys::signal::Signal;
use vigie::base::Instant;
use vigie::config::Fencing;
use vigie::operate::client::events;
use vigie::operate::lab::cluster::Layout;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::runtime::status::fencing::{FENCED, NOT_FENCED};

use super::super::ledger::{GRACE, Write};
use super::super::whole::{DATA, PROXIES, START_TIME, binary, text, wait_ok};
use super::super::{BEFORE, Case, Outcome, VERSION_BEFORE, note};
use super::restarts::{By, restart};
use super::{FAR, Field, NEAR, NEEDS, Run, Table, runs, spread};

pub(crate) const CASES: &[Case] = &[
    Case { name: "rolling_fencing", needs: NEEDS, run: edits },
    Case {
        name: "rolling_upgrade_the_master_last",
        needs: UPGRADE,
        run: |sandbox| upgrade(sandbox, Order::MasterLast),
    },
    Case {
        name: "rolling_upgrade_the_master_first",
        needs: UPGRADE,
        run: |sandbox| upgrade(sandbox, Order::MasterFirst),
    },
];

const UPGRADE: &[&str] = &["redis-server", "ip", VERSION_BEFORE];
/// Planned switchovers in each mode, which everything else is held against.
const SWITCHOVERS: usize = 4;

/// Who is restarted when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Proxies, replicas, master.
    MasterLast,
    /// Master, replicas, proxies: the master moves each time.
    MasterFirst,
}

/// `off`, `lease`, `off`, on nodes that all run this version.
fn edits(sandbox: &Sandbox) -> Outcome {
    let layout = Layout::classic().with_fencing(Fencing::Off);
    let mut rolling = Rolling::new(Field::of(sandbox, layout, Fencing::Off, &binary())?, "files edited");
    let outcome = (0..runs(1)).try_for_each(|number| {
        let order = if number % 2 == 0 { Order::MasterLast } else { Order::MasterFirst };
        rolling.switchovers("off")?;
        rolling.edit(Fencing::Lease, order)?;
        rolling.switchovers("lease")?;
        rolling.edit(Fencing::Off, order)?;
        // Who was restarted last is master here, too.
        rolling.switchovers("off")
    });
    rolling.end(outcome)
}

/// The version before, this one, and then the files: they say nothing of fencing at first, which is `lease` for this version.
fn upgrade(sandbox: &Sandbox, order: Order) -> Outcome {
    let before = std::env::var_os(BEFORE).map(PathBuf::from).ok_or("no version before")?;
    let field = Field::of(sandbox, Layout::classic(), Fencing::Off, &before)?;
    let mut rolling = Rolling::new(field, format!("upgraded, {order:?}"));
    let outcome = rolling.switchovers("version before").and_then(|()| {
        rolling.exchange(order)?;
        rolling.switchovers("lease")?;
        rolling.edit(Fencing::Off, order)?;
        rolling.switchovers("off")?;
        rolling.edit(Fencing::Lease, order)
    });
    rolling.end(outcome)
}

/// Writes that the old master has acknowledged though they were sent after somebody else had acknowledged one. A reply that was read
/// later than that is none: what is acknowledged behind the back of a new master is lost, too.
fn both(run: &Run, old: &str, at: Instant) -> usize {
    let Some(taken) = run.verdict.takeover.map(|takeover| at + takeover) else { return 0 };
    let late = |write: &&Write| write.node == old && write.sent_at > taken && write.acked_at.is_some();
    run.seen.writes.iter().filter(late).count()
}

/// How the mode is called.
const fn mode(fencing: Fencing) -> &'static str {
    match fencing {
        Fencing::Lease => FENCED,
        Fencing::Off => NOT_FENCED,
    }
}

struct Rolling {
    field: Field,
    table: Table,
    /// Of writers through the virtual IP, by what was done: the longest that each time had no acknowledgement.
    stalls: Vec<(String, Vec<Duration>)>,
    /// The longest of planned switchovers.
    planned: Duration,
    /// What is not as it has to be, told at the end: the steps after it are of interest, too.
    faults: Vec<String>,
}

impl Rolling {
    fn new(field: Field, name: impl Into<String>) -> Self {
        Self { field, table: Table::new(name), stalls: Vec::new(), planned: Duration::ZERO, faults: Vec::new() }
    }

    fn end(mut self, outcome: Outcome) -> Outcome {
        let sum = self.table.sum();
        for (what, times) in &mut self.stalls {
            let count = times.len();
            if let Some(spread) = spread(times) {
                note(format!("  {}: {what}, {count} times: no acknowledgement for {spread}", self.table.name));
            }
        }
        outcome?;
        if sum.lost > 0 {
            self.faults.push(format!("{} acknowledged writes are lost", sum.lost));
        }
        if self.faults.is_empty() { Ok(()) } else { Err(self.field.told(self.faults.join("\n"))) }
    }

    fn stalled(&mut self, what: String, stall: Duration) {
        match self.stalls.iter_mut().find(|(known, _)| *known == what) {
            Some((_, times)) => times.push(stall),
            None => self.stalls.push((what, vec![stall])),
        }
    }

    /// Planned switchovers, there and back.
    fn switchovers(&mut self, at_mode: &str) -> Outcome {
        for _ in 0..SWITCHOVERS {
            let load = self.field.load()?;
            let master = load.master;
            let to = DATA.into_iter().find(|node| *node != master).ok_or("there are replicas")?;
            let at = clock::now();
            let switched = self.field.world.cluster.failover(master, Some(to));
            switched.map_err(|error| self.field.told(text(error)))?;
            let run = self.field.settle(load, at, None)?;
            let stall = run.stall(&[NEAR, FAR], at);
            self.planned = self.planned.max(stall);
            if both(&run, master, at) > 0 {
                self.faults.push(format!("two nodes acknowledged at a planned switchover, {at_mode}"));
            }
            self.stalled(format!("planned switchover, {at_mode}"), stall);
            self.table.row(&format!("switchover, {master} to {}", run.master), run);
            println!("      no acknowledgement for {} ms", stall.as_millis());
        }
        Ok(())
    }

    /// Who is restarted, one after the other.
    fn order(&self, order: Order) -> Result<Vec<&'static str>, String> {
        let master = self.field.well()?;
        let owner = self.field.world.vip_holder()?;
        let mut nodes: Vec<_> = PROXIES.into_iter().filter(|proxy| *proxy != owner).collect();
        nodes.push(owner);
        nodes.extend(DATA.into_iter().filter(|node| *node != master));
        nodes.push(master);
        if order == Order::MasterFirst {
            nodes.reverse();
        }
        Ok(nodes)
    }

    /// Runs this version on all nodes.
    fn exchange(&mut self, order: Order) -> Outcome {
        let nodes = self.order(order)?;
        for (place, node) in nodes.iter().enumerate() {
            self.field.world.cluster.exchange(node, &binary());
            self.step("upgrade", node, &nodes[place + 1..], Fencing::Lease)?;
        }
        Ok(())
    }

    /// Has all files say so.
    fn edit(&mut self, wanted: Fencing, order: Order) -> Outcome {
        let nodes = self.order(order)?;
        for (place, node) in nodes.iter().enumerate() {
            let path = self.field.world.cluster.file(node);
            let file = fs::read_to_string(&path).map_err(text)?;
            let kept: Vec<_> = file.lines().filter(|line| !line.starts_with("fencing = ")).collect();
            let file = kept.join("\n").replacen("[cluster]", &format!("[cluster]\nfencing = \"{wanted}\""), 1);
            fs::write(&path, file + "\n").map_err(text)?;
            self.reload(node)?;
            self.step(&format!("to {wanted}"), node, &nodes[place + 1..], wanted)?;
        }
        Ok(())
    }

    /// An operator who takes a reload to be enough is told that it is not.
    fn reload(&self, node: &'static str) -> Outcome {
        let cluster = &self.field.world.cluster;
        let since_ms = clock::wall_ms();
        cluster.signal_guard(node, Signal::SIGHUP).map_err(text)?;
        let told = || {
            let mut records = events(&cluster.runtime_dir(node), false).map_err(text)?.filter_map(Result::ok);
            let told = records.any(|record| record.at_ms >= since_ms && record.name == "config-changed");
            if told { Ok(()) } else { Err(format!("{node} has said nothing")) }
        };
        wait_ok("a reload does not tell of the edit", Clock::now(), START_TIME, told).map(drop)
    }

    /// Restarts a node; `rest` are restarted after it.
    fn step(&mut self, what: &str, node: &'static str, rest: &[&'static str], wanted: Fencing) -> Outcome {
        let field = &self.field;
        let cluster = &field.world.cluster;
        let load = field.load()?;
        let master = load.master;
        let (at, at_ms) = (clock::now(), clock::wall_ms());
        restart(field, node, By::Operator).map_err(|why| field.told(why))?;
        let waited: Vec<_> = cluster.sentinels().filter(|voter| rest.contains(voter)).collect();
        // The change is a part of the step that completes it, and of what is measured.
        let expected = if waited.is_empty() { wanted } else { other(wanted) };
        let changed = || {
            let told = cluster.status(node).map_err(text)?.fencing;
            if told.mode == mode(expected) { Ok(told) } else { Err(format!("{node} says {told:?}")) }
        };
        let changed = wait_ok("not the mode that is due", Clock::now(), START_TIME, changed);
        changed.map_err(|why| field.told(why))?;
        let run = field.settle(load, at, None)?;

        let told = cluster.status(node).map_err(text)?.fencing;
        let others = DATA.into_iter().filter(|other| *other != node);
        let fences = others.map(|other| field.fences(other, at_ms)).sum::<Result<usize, _>>()?;
        let stall = run.stall(&[NEAR, FAR], at);
        let (bound, kind) = (self.planned + GRACE, if node == master { "of the master" } else { "of another node" });
        let kind = if PROXIES.contains(&node) { "of a proxy" } else { kind };
        let facts = format!(
            "{what}, {node} restarted: no acknowledgement for {} ms, others fenced {fences} times; status: {}; {}",
            stall.as_millis(),
            told.mode,
            if told.why.is_empty() { "-" } else { told.why.as_str() }
        );
        let names_all = waited.iter().all(|voter| told.why.contains(voter));
        let wrong = [
            (told.mode != mode(expected), "another mode than all say"),
            (!names_all, "not told for whom it waits"),
            (
                waited.is_empty() && wanted == Fencing::Lease && !told.why.is_empty(),
                "fenced, and yet something is missing",
            ),
            (fences > 0, "a node that was not restarted was fenced"),
            (node != master && run.master != master, "the master has moved"),
            (both(&run, master, at) > 0, "two nodes acknowledged"),
            (run.verdict.lost > 0, "acknowledged writes are lost"),
            (stall > bound, "longer than a planned switchover"),
        ];
        self.faults.extend(wrong.iter().filter(|(wrong, _)| *wrong).map(|(_, why)| format!("{why}: {facts}")));
        self.stalled(format!("{what}, restart {kind}"), stall);
        self.table.row(&format!("{what}: {master}, then {}", run.master), run);
        println!("      {facts}");
        Ok(())
    }
}

const fn other(fencing: Fencing) -> Fencing {
    match fencing {
        Fencing::Lease => Fencing::Off,
        Fencing::Off => Fencing::Lease,
    }
}
