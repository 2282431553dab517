//! Orders that change the topology, given behind the cluster's back by somebody who knows a password of it: a replica that is
//! told to be a master must not acknowledge anything, and a master that is told to follow its replica must not lose anything.

use std::time::Duration;

use vigie::base::secret::CONTROL_USER;
use vigie::base::{Credentials, Purpose};
use vigie::config::Fencing;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::super::whole::DATA;
use super::super::{Case, Outcome};
use super::{Field, NEEDS, Table, let_pass, repeat, runs};

pub(crate) const CASES: &[Case] =
    &[Case { name: "stray_orders", needs: NEEDS, run: |sandbox| orders(sandbox, runs(3)) }];

/// The cluster is left alone with an order for so long.
const SPAN: Duration = Duration::from_secs(2);
/// The name of the cluster in the classic layout.
const CLUSTER: &str = "mymaster";

/// Who gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Who knows what applications know.
    Application,
    /// Who knows what sentinels know.
    Sentinel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// To a replica: follow nobody.
    Lead,
    /// To the master: follow your replica.
    Follow,
}

pub(crate) fn quick(sandbox: &Sandbox) -> Outcome {
    orders(sandbox, 1)
}

fn orders(sandbox: &Sandbox, runs: usize) -> Outcome {
    let field = Field::start(sandbox)?;
    let mut lost = Ok(());
    for order in [Order::Lead, Order::Follow] {
        for by in [By::Application, By::Sentinel] {
            let mut table = Table::new(format!("order to {order:?} by {by:?} ({:?})", field.fencing));
            let outcome = repeat(runs, |_| once(&field, order, by, &mut table));
            let sum = table.sum();
            outcome?;
            if field.fencing == Fencing::Lease && sum.lost > 0 {
                lost = Err(format!("{}: {} acknowledged writes are lost", table.name, sum.lost));
            }
            if (field.fencing, order, by) == (Fencing::Off, Order::Lead, By::Sentinel) && sum.lost == 0 {
                lost = Err(format!("{}: nothing is lost: whoever measures so sees nothing", table.name));
            }
        }
    }
    lost
}

fn once(field: &Field, order: Order, by: By, table: &mut Table) -> Outcome {
    let load = field.load()?;
    let master = load.master;
    let replica = DATA.into_iter().find(|node| *node != master).ok_or("there are replicas")?;
    let (to, follow) = match order {
        Order::Lead => (replica, None),
        Order::Follow => (master, Some(field.world.address(replica))),
    };
    let words = follow.map_or_else(
        || ["REPLICAOF", "NO", "ONE"].map(str::to_owned),
        |address| ["REPLICAOF".to_owned(), address.ip().to_string(), address.port().to_string()],
    );
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let layout = field.world.cluster.layout();
    let secret = layout.secret.clone().map(Into::into);
    let password = Credentials::new(CLUSTER, layout.password.clone().into(), secret).own(Purpose::Control);
    let login = vec!["AUTH", CONTROL_USER, password.current().reveal()];
    let commands = match by {
        By::Application => vec![words],
        By::Sentinel => vec![login, words],
    };
    let at = clock::now();
    let answer = field.world.ask(to, field.world.address(to), &commands);
    let answer = answer.map_or_else(|refusal| refusal, |_| "taken".to_owned());
    let_pass(SPAN, at);
    let run = field.settle(load, at, None)?;
    // By a node that nobody has elected.
    let elected = run.master == replica;
    let strange = run.verdict.shares.get(replica).filter(|_| !elected).map_or(0, |share| share.acked);
    let facts = format!("{to} answered: {answer}; acknowledged by {replica}, a replica not elected: {strange}");
    table.row_of(master, run);
    println!("      {facts}");
    if by == By::Application && answer == "taken" {
        return Err(field.world.told(format!("an application may do that: {facts}")));
    }
    if field.fencing == Fencing::Lease && strange > 0 {
        return Err(field.world.told(facts));
    }
    Ok(())
}
