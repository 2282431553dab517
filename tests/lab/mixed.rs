//! Clusters in which one or two of the three sentinels are stock ones: whoever of them leads, and whatever breaks, all of
//! them agree on one new master, every replica follows it, and no replicated write is lost.
//!
//! Each case is one cell of the table that is printed at the end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vigie::operate::lab::client::{Client, read_back};
use vigie::operate::lab::cluster::CLIENT;
use vigie::operate::lab::hosts::signal;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::voters::{Kind, MASTER, REDIS, Sampler, Voters, masters_at_once};
use super::whole::{text, wait_ok};
use super::{Case, Outcome, note};

const REDIS_7: &[&str] = &["redis-server"];
const VALKEY: &[&str] = &["redis-server", "valkey-server"];

/// A switch is over, at the latest, when a stock sentinel has tried twice.
const SWITCH_TIME: Duration = Duration::from_secs(60);
/// What is agreed stays agreed: looked at again after so long.
const STABLE_TIME: Duration = Duration::from_secs(3);
/// Writes that both replicas had before the fault.
const MARKS: usize = 100;
/// A process that was killed is started again after so long.
const RESTART_TIME: Duration = Duration::from_millis(500);

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL to the master's redis.
    ProcessKilled,
    /// The cable of the master's host, where a sentinel of ours is, too.
    HostCut,
    /// SENTINEL FAILOVER to a sentinel of ours.
    OrderedAtVigie,
    /// SENTINEL FAILOVER to a stock sentinel.
    OrderedAtStock,
    /// SIGKILL to the master's redis, and then to the first sentinel that says that it fails over.
    SentinelKilled,
}

macro_rules! cell {
    ($name:literal, $needs:ident, $kind:ident, $stock:literal, $fault:ident) => {
        Case { name: $name, needs: $needs, run: |sandbox| cell(sandbox, Kind::$kind, $stock, Fault::$fault) }
    };
}

pub(crate) const CASES: &[Case] = &[
    cell!("redis_7_one_stock_redis_killed", REDIS_7, Redis7, 1, ProcessKilled),
    cell!("redis_7_one_stock_host_cut", REDIS_7, Redis7, 1, HostCut),
    cell!("redis_7_one_stock_ordered_at_vigie", REDIS_7, Redis7, 1, OrderedAtVigie),
    cell!("redis_7_one_stock_ordered_at_stock", REDIS_7, Redis7, 1, OrderedAtStock),
    cell!("redis_7_one_stock_sentinel_killed", REDIS_7, Redis7, 1, SentinelKilled),
    cell!("redis_7_two_stock_redis_killed", REDIS_7, Redis7, 2, ProcessKilled),
    cell!("redis_7_two_stock_host_cut", REDIS_7, Redis7, 2, HostCut),
    cell!("redis_7_two_stock_ordered_at_vigie", REDIS_7, Redis7, 2, OrderedAtVigie),
    cell!("redis_7_two_stock_ordered_at_stock", REDIS_7, Redis7, 2, OrderedAtStock),
    cell!("redis_7_two_stock_sentinel_killed", REDIS_7, Redis7, 2, SentinelKilled),
    cell!("valkey_9_one_stock_redis_killed", VALKEY, Valkey9, 1, ProcessKilled),
    cell!("valkey_9_one_stock_host_cut", VALKEY, Valkey9, 1, HostCut),
    cell!("valkey_9_one_stock_ordered_at_vigie", VALKEY, Valkey9, 1, OrderedAtVigie),
    cell!("valkey_9_one_stock_ordered_at_stock", VALKEY, Valkey9, 1, OrderedAtStock),
    cell!("valkey_9_one_stock_sentinel_killed", VALKEY, Valkey9, 1, SentinelKilled),
    cell!("valkey_9_two_stock_redis_killed", VALKEY, Valkey9, 2, ProcessKilled),
    cell!("valkey_9_two_stock_host_cut", VALKEY, Valkey9, 2, HostCut),
    cell!("valkey_9_two_stock_ordered_at_vigie", VALKEY, Valkey9, 2, OrderedAtVigie),
    cell!("valkey_9_two_stock_ordered_at_stock", VALKEY, Valkey9, 2, OrderedAtStock),
    cell!("valkey_9_two_stock_sentinel_killed", VALKEY, Valkey9, 2, SentinelKilled),
];

fn cell(sandbox: &Sandbox, kind: Kind, stock: usize, fault: Fault) -> Outcome {
    // A sentinel that is killed must not take a redis with it: it has a host of its own then.
    let mut voters = Voters::start(sandbox, kind, stock, fault == Fault::HostCut)?;
    let outcome = play(&mut voters, kind, stock, fault);
    if std::env::var_os("VIGIE_LAB_LOGS").is_some() {
        println!("\n{}", voters.told());
    }
    outcome.map_err(|why| format!("{why}\n{}", voters.told()))
}

fn play(voters: &mut Voters, kind: Kind, stock: usize, fault: Fault) -> Outcome {
    voters.wait_settled()?;
    voters.mark(MARKS)?;
    let mut plan = voters.cluster.plan("cell");
    plan.rate = 200;
    let client = Client::start(voters.cluster.lab(), CLIENT, plan.clone()).map_err(text)?;
    let sampler = Sampler::start(voters)?;
    if !client.wait_steady(clock::now(), Duration::from_millis(500), SWITCH_TIME) {
        return Err(format!("writes do not flow before the fault: {:?}", client.tally().kinds));
    }
    let began = Instant::now();
    let cut = strike(voters, fault, began)?;
    let limit =
        |what: &str, condition: &dyn Fn() -> Result<&'static str, String>| wait_ok(what, began, SWITCH_TIME, condition);
    let (agreed, master) = limit("the sentinels do not agree on a new master", &|| voters.agreed(cut))?;
    if let Some(host) = cut {
        voters.cluster.lab().heal(host).map_err(text)?;
        limit("the sentinel that was cut off does not agree", &|| voters.agreed(None))?;
    }
    let (whole, _) = limit("not every redis follows the new master", &|| voters.follow(master))?;
    std::thread::sleep(STABLE_TIME);
    let still = voters.agreed(None).and_then(|now| voters.follow(now));
    if still != Ok(master) {
        return Err(format!("{master} was agreed upon, and {STABLE_TIME:?} later: {still:?}"));
    }
    let missing = voters.unmarked(master)?;
    let acks = client.stop().acks;
    let network = voters.cluster.lab().network(CLIENT).map_err(text)?;
    let lost = read_back(&network, &plan, &acks, false).map_err(text)?.len();
    let (doubles, switches) = (masters_at_once(&sampler.stop()), voters.switches(began, master));
    let row = [
        format!("{kind:?}"),
        format!("{stock} stock"),
        format!("{fault:?}"),
        voters.leaders(began),
        switches.join("  "),
        format!("{} ms", agreed.as_millis()),
        format!("{} ms", whole.as_millis()),
        format!("{} ms", doubles.as_millis()),
        format!("{missing} of {MARKS}"),
        format!("{lost} of {}", acks.len()),
    ];
    note(format!(
        "| {:<7} | {:<7} | {:<14} | led by | +switch-master, ms since the fault | agreed | all follow | two masters | lost: \
         replicated | all |",
        "stock", "voters", "fault"
    ));
    note(format!(
        "| {:<7} | {:<7} | {:<14} | {} | {} | {} | {} | {} | {} | {} |",
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9]
    ));
    if missing > 0 {
        return Err(format!("{missing} of {MARKS} writes that both replicas had are lost"));
    }
    Ok(())
}

/// Does it. Returns the host that is cut off from all others now.
fn strike(voters: &mut Voters, fault: Fault, began: Instant) -> Result<Option<&'static str>, String> {
    match fault {
        Fault::ProcessKilled => voters.cluster.kill_redis(MASTER).map_err(text)?,
        Fault::HostCut => {
            voters.cluster.lab().cut(MASTER).map_err(text)?;
            return Ok(Some(MASTER));
        }
        Fault::OrderedAtVigie => voters.order(false)?,
        Fault::OrderedAtStock => voters.order(true)?,
        Fault::SentinelKilled => {
            voters.cluster.kill_redis(MASTER).map_err(text)?;
            let tries = || voters.first(began, "+try-failover").ok_or_else(|| "nobody fails over".to_owned());
            let (_, name) = wait_ok("no failover begins", began, SWITCH_TIME, tries)?;
            for pid in voters.pids(name)? {
                signal(pid, Signal::SIGKILL).map_err(text)?;
            }
            std::thread::sleep(RESTART_TIME);
            voters.restart(name)?;
        }
    }
    Ok(None)
}

/// The three redis of these clusters are those of the layout.
const _: () = assert!(REDIS.len() == 3);
