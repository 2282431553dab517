//! The network parts: the old master with some of its clients on one side, everybody else on the other one. Both go on writing,
//! and the sides join again.

use std::time::Duration;

use vigie::base::Instant;
use vigie::config::Fencing;
use vigie::operate::lab::cluster::Part;
use vigie::operate::lab::hosts::Lab;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::super::whole::{PROXIES, text};
use super::super::{Case, Outcome};
use super::{FAR, Field, NEAR, NEEDS, Run, Table, beside, let_pass, repeat, runs};

pub(crate) const CASES: &[Case] = &[
    Case { name: "split", needs: NEEDS, run: |sandbox| splits(sandbox, false, runs(3)) },
    Case { name: "split_without_worker", needs: NEEDS, run: |sandbox| splits(sandbox, true, runs(3)) },
];

/// Both sides go on for so long.
const SPAN: Duration = Duration::from_secs(4);
/// What the old owner of the virtual IP answers after that long has come by a network that is one again.
const CABLE: Duration = Duration::from_millis(200);
/// The worker stands still for so long before the network parts.
const AHEAD: Duration = Duration::from_millis(100);

pub(crate) fn quick(sandbox: &Sandbox) -> Outcome {
    splits(sandbox, false, 1)
}

pub(crate) fn quick_without_worker(sandbox: &Sandbox) -> Outcome {
    splits(sandbox, true, 1)
}

fn splits(sandbox: &Sandbox, without_worker: bool, runs: usize) -> Outcome {
    let field = Field::start(sandbox)?;
    let name = if without_worker { "split, its worker stopped before" } else { "split" };
    let mut table = Table::new(format!("{name} ({:?})", field.fencing));
    let outcome = repeat(runs, |number| once(&field, number - 1, without_worker, &mut table));
    let sum = table.sum();
    outcome.and_then(|()| table.demand(field.fencing))?;
    if field.fencing == Fencing::Off && (sum.after_lease == 0 || sum.after_takeover == 0 || sum.lost <= sum.bound) {
        return Err("without a lease there is nothing late or lost: whoever measures so sees nothing".to_owned());
    }
    Ok(())
}

fn once(field: &Field, number: usize, without_worker: bool, table: &mut Table) -> Outcome {
    let owner = field.world.vip_holder()?;
    let master = field.well()?;
    let lab = field.world.cluster.lab();
    let proxy = island(lab, master, owner, number)?;
    let load = field.load()?;
    if load.master != master {
        return Err(field.world.told(format!("{} is master instead of {master}, of itself", load.master)));
    }
    let stopped = if without_worker { field.freeze(master, &[Part::Worker])? } else { Vec::new() };
    let_pass(if without_worker { AHEAD } else { Duration::ZERO }, clock::now());
    // Before it takes effect: what is late by this is late.
    let parted = clock::now();
    lab.part().map_err(text)?;
    let_pass(SPAN, parted);
    let rejoined = clock::now();
    lab.rejoin().map_err(text)?;
    Field::wake(&stopped)?;
    let run = field.settle(load, parted, Some((parted, rejoined)))?;
    if run.master == master {
        return Err(field.world.told(format!("{master} is master again, or still: {}", run.verdict)));
    }
    let served = served(&run, rejoined);
    table.row(&format!("{master} with {proxy}"), run);
    println!("      {served}");
    Ok(())
}

/// Prepares the `number`th split: the old master, its clients, and in turn the proxy that has the virtual IP, the other one, or
/// none of them. Returns in words which proxy that is.
pub(super) fn island(lab: &Lab, master: &str, owner: &str, number: usize) -> Result<&'static str, String> {
    let standby = PROXIES.into_iter().find(|proxy| *proxy != owner).ok_or("there are two proxies")?;
    let (with, words) = [(Some(owner), "the VIP"), (Some(standby), "a proxy"), (None, "no proxy")][number % 3];
    let at_master = beside(master);
    let side: Vec<_> = [master, at_master.as_str(), NEAR].into_iter().chain(with).collect();
    lab.island(&side).map_err(text)?;
    Ok(words)
}

/// When clients of the virtual IP were served again, in words.
pub(super) fn served(run: &Run, rejoined: Instant) -> String {
    let served = [NEAR, FAR].map(|name| {
        let first = run.seen.acked(&[name]).into_iter().find(|at| *at > rejoined + CABLE);
        format!(
            "{name} {}",
            first.map_or_else(|| "never".to_owned(), |first| first.since(rejoined).as_millis().to_string())
        )
    });
    format!("served after the sides have joined, ms: {}", served.join(", "))
}
