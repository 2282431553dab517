//! Frames of the peer link are lost, and nothing else: redis, sentinels and clients reach each other by TCP as before.

use std::time::Duration;

use vigie::config::Fencing;
use vigie::operate::lab::client::longest_gap;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::super::ledger::GRACE;
use super::super::{Case, Outcome};
use super::{DOWN_AFTER, FAR, Field, LEASE, NEAR, NEEDS, Run, Table, let_pass, repeat, runs};

pub(crate) const CASES: &[Case] = &[
    Case { name: "link_into_the_master", needs: NEEDS, run: |sandbox| cuts(sandbox, Cut::Into) },
    Case { name: "link_out_of_the_master", needs: NEEDS, run: |sandbox| cuts(sandbox, Cut::OutOf) },
    Case { name: "link_of_the_master", needs: NEEDS, run: |sandbox| cuts(sandbox, Cut::Both) },
    Case { name: "link_everywhere", needs: NEEDS, run: |sandbox| cuts(sandbox, Cut::Everywhere) },
    Case { name: "link_from_the_master_to_one_proxy", needs: NEEDS, run: |sandbox| cuts(sandbox, Cut::ToProxy) },
];

const SPAN: Duration = Duration::from_secs(5);
/// What clients see of a proxy is looked at in the last part of that.
const END: Duration = Duration::from_secs(1);
/// Another node acknowledges within this, of a master that is not heard or hears nothing.
const TAKEOVER: Duration = Duration::from_secs(1).saturating_add(DOWN_AFTER).saturating_add(LEASE);

/// Which frames are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Into,
    OutOf,
    Both,
    Everywhere,
    /// The one that has the virtual IP.
    ToProxy,
}

fn cuts(sandbox: &Sandbox, cut: Cut) -> Outcome {
    let field = Field::start(sandbox)?;
    let mut table = Table::new(format!("link cut {cut:?} ({:?})", field.fencing));
    let outcome = repeat(runs(3), |_| once(&field, cut, &mut table));
    table.sum();
    outcome?;
    table.demand(field.fencing)
}

fn once(field: &Field, cut: Cut, table: &mut Table) -> Outcome {
    let load = field.load()?;
    let (master, owner) = (load.master, field.world.vip_holder()?);
    let nodes = || field.world.cluster.names();
    let others = || nodes().filter(|node| *node != master);
    let at = clock::now();
    if matches!(cut, Cut::Into | Cut::Both) {
        field.deafen(master, None)?;
    }
    if matches!(cut, Cut::OutOf | Cut::Both) {
        others().try_for_each(|node| field.deafen(node, Some(master)))?;
    }
    match cut {
        Cut::Everywhere => nodes().try_for_each(|node| field.deafen(node, None))?,
        Cut::ToProxy => field.deafen(owner, Some(master))?,
        Cut::Into | Cut::OutOf | Cut::Both => {}
    }
    // One command after the other: nothing of it is complete before.
    let complete = clock::now();
    let_pass(SPAN, complete);
    let holder = field.world.vip_holder();
    let until = clock::now();
    field.hear()?;
    // A proxy promises nothing.
    let deprived = (cut != Cut::ToProxy).then_some((complete, until));
    let run = field.settle(load, at, deprived)?;
    let writes = &run.seen.writes;
    // Whoever acknowledged it.
    let late = writes.iter().filter(|write| {
        write.sent_at > complete + LEASE + GRACE && write.acked_at.is_some_and(|acked_at| acked_at < until)
    });
    let (late, vip) = (late.count(), run.seen.acked(&[NEAR, FAR]));
    let served = vip.iter().filter(|at| (until - END..until).contains(at)).count();
    let gap = longest_gap(vip.iter().copied(), at).unwrap_or_default();
    let facts = format!(
        "{cut:?}: acknowledged later than {:?} by anybody {late}, through the VIP in the last {END:?} {served}; longest time \
         without that {} ms; the VIP was on {owner}, then on {holder:?}",
        LEASE + GRACE,
        gap.as_millis()
    );
    let taken = run.verdict.takeover.is_some_and(|takeover| takeover <= TAKEOVER);
    let judged = judged(field, cut, &run, taken, late, served);
    // A row that breaks a promise is the one to be seen.
    table.row_of(master, run);
    println!("      {facts}");
    judged.map_err(|why| field.world.told(format!("{why}; {facts}")))
}

/// What has to be with a lease.
fn judged(field: &Field, cut: Cut, run: &Run, taken: bool, late: usize, served: usize) -> Outcome {
    let good = match (field.fencing, cut) {
        (Fencing::Off, _) => true,
        (Fencing::Lease, Cut::Into | Cut::OutOf | Cut::Both) => taken,
        (Fencing::Lease, Cut::Everywhere) => late == 0,
        // Most of what two writers offer.
        (Fencing::Lease, Cut::ToProxy) => served > 500,
    };
    if good { Ok(()) } else { Err(format!("not as promised: {}", run.verdict)) }
}
