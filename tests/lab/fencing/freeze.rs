//! Parts of the master's node stand still for some seconds and wake: what clients have queued meanwhile is not to be
//! acknowledged behind the back of a new master.

use std::time::Duration;

use vigie::config::Fencing;
use vigie::operate::lab::cluster::Part;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::super::{Case, Outcome};
use super::{Field, NEEDS, Table, let_pass, repeat, runs};

pub(crate) const CASES: &[Case] = &[
    Case { name: "freeze_redis", needs: NEEDS, run: |sandbox| freezes(sandbox, Victim::Redis, runs(3)) },
    Case {
        name: "freeze_redis_for_long",
        needs: NEEDS,
        run: |sandbox| freezes(sandbox, Victim::RedisForLong, runs(3)),
    },
    Case { name: "freeze_worker", needs: NEEDS, run: |sandbox| freezes(sandbox, Victim::Worker, runs(3)) },
    Case { name: "freeze_vigie", needs: NEEDS, run: |sandbox| freezes(sandbox, Victim::Vigie, runs(3)) },
    Case { name: "freeze_node", needs: NEEDS, run: |sandbox| freezes(sandbox, Victim::Node, runs(3)) },
];

const SPAN: Duration = Duration::from_secs(5);
/// Longer than a supervisor speaks up for a redis that may be busy: then it is replaced.
const LONG: Duration = Duration::from_secs(8);

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Redis,
    RedisForLong,
    Worker,
    /// Guard and worker.
    Vigie,
    /// Redis too.
    Node,
}

impl Victim {
    const fn parts(self) -> &'static [Part] {
        match self {
            Self::Redis | Self::RedisForLong => &[Part::Redis],
            Self::Worker => &[Part::Worker],
            Self::Vigie => &[Part::Guard, Part::Worker],
            Self::Node => &[Part::Guard, Part::Worker, Part::Redis],
        }
    }

    /// Whether nobody is awake who can ask for a promise.
    const fn asks_no_more(self) -> bool {
        matches!(self, Self::Worker | Self::Vigie | Self::Node)
    }

    const fn span(self) -> Duration {
        match self {
            Self::RedisForLong => LONG,
            Self::Redis | Self::Worker | Self::Vigie | Self::Node => SPAN,
        }
    }

    /// Whether somebody of vigie is awake who can end redis in time.
    const fn is_guarded(self) -> bool {
        matches!(self, Self::Redis | Self::RedisForLong | Self::Worker)
    }
}

pub(crate) fn quick_redis(sandbox: &Sandbox) -> Outcome {
    freezes(sandbox, Victim::RedisForLong, 1)
}

pub(crate) fn quick_worker(sandbox: &Sandbox) -> Outcome {
    freezes(sandbox, Victim::Worker, 1)
}

fn freezes(sandbox: &Sandbox, victim: Victim, runs: usize) -> Outcome {
    let field = Field::start(sandbox)?;
    let mut table = Table::new(format!("freeze of {victim:?} ({:?})", field.fencing));
    let outcome = repeat(runs, |_| once(&field, victim, &mut table));
    let sum = table.sum();
    outcome?;
    // Where nobody is awake, what is late is counted and not promised.
    if victim.is_guarded() {
        table.demand(field.fencing)?;
    }
    if (field.fencing, victim) == (Fencing::Off, Victim::RedisForLong) && sum.after_takeover == 0 {
        return Err("without a lease nothing is late: whoever measures so sees nothing".to_owned());
    }
    Ok(())
}

fn once(field: &Field, victim: Victim, table: &mut Table) -> Outcome {
    let load = field.load()?;
    let master = load.master;
    // Before anybody stands still: what is late by this is late.
    let frozen = clock::now();
    let asleep = field.freeze(master, victim.parts())?;
    let_pass(victim.span(), frozen);
    let woken = clock::now();
    Field::wake(&asleep)?;
    let run = field.settle(load, frozen, victim.asks_no_more().then_some((frozen, woken)))?;
    if run.verdict.takeover.is_some() && run.master == master {
        return Err(field.world.told(format!("{master} was replaced and is master again: {}", run.verdict)));
    }
    table.row_of(master, run);
    Ok(())
}
