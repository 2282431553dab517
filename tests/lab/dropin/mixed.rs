//! Stock sentinels and vigie beside each other, in front of plain redis: whatever breaks, all of them agree on one master.
//!
//! Each cell is one row of the table that is printed at the end.

use std::time::{Duration, Instant};

use vigie::operate::lab::sandbox::Sandbox;

use super::super::whole::{text, wait_ok};
use super::super::{Outcome, note};
use super::record::keeps_promises;
use super::world::{HOSTS, Kind, Plan, World};

/// A switch is over, at the latest, when a stock sentinel has tried twice.
const SWITCH_TIME: Duration = Duration::from_secs(60);
/// What is agreed stays agreed: looked at again after so long.
const STABLE_TIME: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL to the master; it comes back when there is a new one.
    RedisKilled,
    /// The cable of the master's host, where a sentinel is, too.
    HostCut,
    /// SENTINEL FAILOVER to a vigie.
    OrderedAtVigie,
    /// SENTINEL FAILOVER to a stock sentinel.
    OrderedAtStock,
    /// SIGKILL to the master, and then to the first sentinel that says that it fails over.
    SentinelKilled,
}

impl Fault {
    const ALL: [Self; 5] =
        [Self::RedisKilled, Self::HostCut, Self::OrderedAtVigie, Self::OrderedAtStock, Self::SentinelKilled];
}

/// The last `stock` sentinels are stock ones: the one at the master's host is of vigie, unless all are stock.
fn sentinels(kind: Kind, stock: usize) -> [Kind; 3] {
    std::array::from_fn(|n| if n < HOSTS.len() - stock { Kind::Vigie } else { kind })
}

/// One quick cell of each sort.
pub(super) fn a_few(sandbox: &Sandbox) -> Outcome {
    cells(sandbox, Kind::Redis7, 1, &[Fault::RedisKilled, Fault::OrderedAtStock, Fault::OrderedAtVigie])
}

/// All faults, one after the other, in one world.
pub(super) fn all(sandbox: &Sandbox, kind: Kind, stock: usize) -> Outcome {
    let rounds = std::env::var("VIGIE_LAB_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let possible = |fault: &Fault| match fault {
        Fault::OrderedAtVigie => stock < HOSTS.len(),
        Fault::OrderedAtStock => stock > 0,
        Fault::RedisKilled | Fault::HostCut | Fault::SentinelKilled => true,
    };
    let faults: Vec<_> = Fault::ALL.into_iter().filter(possible).collect();
    cells(sandbox, kind, stock, &faults.repeat(rounds))
}

fn cells(sandbox: &Sandbox, kind: Kind, stock: usize, faults: &[Fault]) -> Outcome {
    let mut world = World::start(sandbox, &Plan::of(sentinels(kind, stock)))?;
    let played = faults.iter().try_for_each(|fault| {
        let title = format!("{kind:?}, {stock} stock, {fault:?}");
        cell(&mut world, kind, stock, *fault).map_err(|why| format!("{title}: {why}"))
    });
    if std::env::var_os("VIGIE_LAB_LOGS").is_some() {
        println!("\n{}", world.told());
    }
    played.map_err(|why| format!("{why}\n{}", world.told()))
}

fn cell(world: &mut World, kind: Kind, stock: usize, fault: Fault) -> Outcome {
    let old = world.agreed(None, None)?;
    world.wait_settled(old)?;
    let sampler = world.sample()?;
    // Refuses nobody: a stock sentinel remembers for twice the failover timeout that it has just tried.
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    let cut = strike(world, fault, old, began)?;
    let (agreed, new) = wait_ok("no agreement on a new master", began, SWITCH_TIME, || world.agreed(cut, Some(old)))?;
    let back = Instant::now();
    match fault {
        Fault::HostCut => world.lab.heal(HOSTS[old]).map_err(text)?,
        Fault::RedisKilled | Fault::SentinelKilled => world.start_redis(old)?,
        Fault::OrderedAtVigie | Fault::OrderedAtStock => {}
    }
    // A stock sentinel connects to an address at most once a second: with a short down-after it finds a master down that was
    // promoted at once, counts what the others said of the old one, and fails over again. Ours must not.
    let mut whole = world.wait_whole(back, SWITCH_TIME, STABLE_TIME);
    while whole.is_err() && stock > 0 && back.elapsed() < SWITCH_TIME {
        whole = world.wait_whole(back, SWITCH_TIME, STABLE_TIME);
    }
    let (whole, master) = whole?;
    let mut leaders = world.ears.elected(began);
    // The one that was killed may have been elected before it died; it is back, and may lead again.
    let victim = world.ears.caught().map(|(n, _)| n).filter(|_| fault == Fault::SentinelKilled);
    if let Some(first) = victim.and_then(|victim| leaders.iter().position(|n| *n == victim)) {
        leaders.remove(first);
    }
    let by_vigie = leaders.iter().filter(|n| world.hosts[**n].kind == Kind::Vigie).count();
    let writes = sampler.stop(began, [old, master]);
    let logs: Vec<_> = (0..HOSTS.len()).map(|n| world.log(n)).collect();
    let promises = if stock == 0 || fault != Fault::OrderedAtStock { keeps_promises(&logs) } else { Ok(String::new()) };
    let elected = world.ears.leaders(began);
    note(format!(
        "| {:<7} | {:<5} | {:<14} | elected | {:<18} | {:<18} | {:<18} | agreed | all well since it is back | writes blocked | \
         two take writes",
        "kind", "stock", "fault", "+sdown, ms", "+odown, ms", "+switch-master, ms"
    ));
    note(format!(
        "| {:<7} | {stock:<5} | {:<14} | {elected:<7} | {:<18} | {:<18} | {:<18} | {} ms | {} ms | {} ms | {} ms",
        format!("{kind:?}"),
        format!("{fault:?}"),
        world.ears.times(began, "+sdown"),
        world.ears.times(began, "+odown"),
        world.ears.times(began, "+switch-master"),
        agreed.as_millis(),
        whole.as_millis(),
        writes.blocked.as_millis(),
        writes.doubled.as_millis(),
    ));
    if by_vigie > 1 {
        return Err(format!("elected were {elected}: one of vigie more than once"));
    }
    if (master != new && stock == 0) || writes.last != Some(master) {
        let last = writes.last.map(|n| HOSTS[n]);
        return Err(format!(
            "{} was agreed upon, now it is {}; the last write went to {last:?}",
            HOSTS[new], HOSTS[master]
        ));
    }
    promises.map(drop)
}

/// Does it. Returns the host that cannot be asked now.
fn strike(world: &mut World, fault: Fault, old: usize, began: Instant) -> Result<Option<usize>, String> {
    let one_of = |world: &World, stock: bool| {
        let found = world.hosts.iter().position(|host| (host.kind != Kind::Vigie) == stock);
        found.ok_or_else(|| "there is one of each".to_owned())
    };
    // A stock sentinel refuses an order while it remembers a failover of its own, or does not know its replicas well.
    let order = |n: usize| {
        let accepted = || world.order(n, &["FAILOVER", "mymaster"]);
        wait_ok("the order is refused", began, SWITCH_TIME, accepted).map(|_| None)
    };
    match fault {
        Fault::RedisKilled => world.kill_redis(old)?,
        Fault::HostCut => {
            world.lab.cut(HOSTS[old]).map_err(text)?;
            return Ok(Some(old));
        }
        Fault::OrderedAtVigie => return order(one_of(world, false)?),
        Fault::OrderedAtStock => return order(one_of(world, true)?),
        Fault::SentinelKilled => {
            world.ears.set_trap("+try-failover");
            world.kill_redis(old)?;
            let caught = || world.ears.caught().ok_or_else(|| "nobody says so".to_owned());
            let (_, (leader, _)) = wait_ok("no failover begins", began, SWITCH_TIME, caught)?;
            world.sentinel_ended(leader, SWITCH_TIME)?;
            world.start_sentinel(leader)?;
        }
    }
    Ok(None)
}
