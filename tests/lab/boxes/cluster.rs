//! Three boxes on one segment, each with every role, and a client outside that writes through the virtual address.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use vigie::base::Rng;
use vigie::operate::lab::client::{Ack, Client, Plan, read_back};
use vigie::operate::lab::hosts::Lab;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::wire::resp::Reply;

use super::super::whole::{text, wait_ok};
use super::super::{Outcome, note};
use super::{
    AGREE_TIME, CLIENT, Guest, Machine, PASSWORD, SHELL, address, all_there, ask, cuts, disk, segment, with_consoles,
    writer,
};

const BOXES: usize = 3;

/// What happens to a box.
#[derive(Clone, Copy)]
enum Fault {
    Poweroff,
    /// Its power is taken away.
    Plug,
    Reboot,
}

impl Fault {
    fn what(self) -> &'static str {
        match self {
            Self::Poweroff => "poweroff of the master",
            Self::Plug => "plug of the virtual address pulled",
            Self::Reboot => "reboot of the master",
        }
    }
}

/// Who the sentinel of a box says is master.
fn master_by(lab: &Lab, n: usize) -> Result<IpAddr, String> {
    let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
    match ask(lab, SocketAddr::new(address(n), 26379), None, &words)? {
        Reply::Array(parts) => {
            let host = parts.first().and_then(Reply::text).unwrap_or_default();
            host.parse().map_err(|_| format!("{host:?} is no address"))
        }
        other => Err(format!("{other:?}")),
    }
}

/// Which box has the virtual address, by what the client's neighbour table says.
fn vip_holder(lab: &Lab) -> Result<usize, String> {
    let table = lab.exec(CLIENT, || fs::read_to_string("/proc/thread-self/net/arp")).map_err(text)?.map_err(text)?;
    let line = table.lines().find(|line| line.starts_with("192.168.0.1 ")).ok_or("nobody has the virtual address")?;
    let mac = line.split_whitespace().nth(3).unwrap_or_default();
    mac.rsplit(':').next().and_then(|last| last.parse().ok()).ok_or_else(|| format!("{mac} is no box"))
}

/// The box that every one of these sentinels says is master, and that is not `not`.
fn agreed(lab: &Lab, by: &[usize], not: Option<usize>) -> Result<usize, String> {
    let agree = || {
        let said = by.iter().map(|n| master_by(lab, *n)).collect::<Result<Vec<_>, _>>()?;
        let same = said.iter().all(|one| *one == said[0]);
        let found = (1..=BOXES).find(|n| address(*n) == said[0]);
        found.filter(|found| same && Some(*found) != not).ok_or_else(|| format!("they say {said:?}"))
    };
    wait_ok("the sentinels agree", Instant::now(), AGREE_TIME, agree).map(|(_, master)| master)
}

/// Waits until every screen shows a cluster without a fault.
fn wait_whole(guests: &[Guest]) -> Outcome {
    let good = || {
        let screens = || guests.iter().map(Guest::screen);
        let whole = |screen: String| {
            screen.matches("replica in sync").count() == BOXES - 1 && screen.matches(" good ").count() == BOXES
        };
        let faulty = screens().find(|screen| !whole(screen.clone()));
        // Drawing a screen from its beginning costs something.
        std::thread::sleep(Duration::from_millis(100));
        faulty.map_or(Ok(()), |screen| Err(format!("not all is well on every console:\n{screen}")))
    };
    wait_ok("a whole cluster", Instant::now(), AGREE_TIME, good).map(drop)
}

pub(super) fn three(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, BOXES)?;
    let disks = (1..=BOXES).map(|n| disk(sandbox, &format!("disk-{n}"), BOXES)).collect::<Result<Vec<_>, _>>()?;
    let start = |n: usize| Guest::start(&lab, Machine::X86, n, &disks[n - 1], &format!("vigie.node=box-{n} {SHELL}"));
    let begun = Instant::now();
    let mut guests = (1..=BOXES).map(start).collect::<Result<Vec<_>, _>>()?;
    let plan = writer("boxes");
    let client = Client::start(&lab, CLIENT, plan.clone()).map_err(text)?;
    let outcome = faults(&lab, &mut guests, &client, begun, &start);
    outcome.map_err(|why| with_consoles(&why, &guests))?;
    let tally = client.stop();
    let network = lab.network(CLIENT).map_err(text)?;
    let lost = read_back(&network, &plan, &tally.acks, false).map_err(text)?.len();
    note(format!("{} writes acknowledged, {lost} lost, {} errors", tally.acks.len(), tally.errors));
    if lost > 0 {
        return Err(format!("{lost} of {} acknowledged writes are lost", tally.acks.len()));
    }
    Ok(())
}

/// Redis syncs its log about once a second, and begins no other sync before one has ended: what is older than this is on the disk.
const SYNCED_AFTER: Duration = Duration::from_secs(2);
/// Boxes that are switched on together are so within this time, in any order.
const STAGGER: Duration = Duration::from_secs(3);
/// A cut comes at most so long after writes have begun to flow.
const WRITE_TIME: Duration = Duration::from_secs(8);

/// The power fails for all three boxes at once while a client writes, again and again. What redis had synced has to be there
/// again, on one master; what it had acknowledged and not synced yet may be gone.
pub(super) fn power_cuts(sandbox: &Sandbox) -> Outcome {
    let cuts = cuts();
    let lab = segment(sandbox, BOXES)?;
    let disks = (1..=BOXES).map(|n| disk(sandbox, &format!("disk-{n}"), BOXES)).collect::<Result<Vec<_>, _>>()?;
    let start = |n: usize| Guest::start(&lab, Machine::X86, n, &disks[n - 1], &format!("vigie.node=box-{n} {SHELL}"));
    let network = lab.network(CLIENT).map_err(text)?;
    let mut moments = Rng::new(2);
    let mut kept: Vec<(Plan, Vec<Ack>)> = Vec::new();
    let (mut written, mut unsynced) = (0, 0);
    for round in 0..=cuts {
        let mut order: Vec<(Duration, usize)> = (1..=BOXES).map(|n| (moments.below(STAGGER), n)).collect();
        order.sort_unstable();
        let begun = Instant::now();
        let mut guests = Vec::new();
        for (after, n) in order {
            std::thread::sleep(after.saturating_sub(begun.elapsed()));
            guests.push(start(n)?);
        }
        let outcome = after_a_cut(&lab, &guests, round).and_then(|()| all_there(&network, &kept, round));
        outcome.map_err(|why| with_consoles(&why, &guests))?;
        if round == cuts {
            break;
        }
        let plan = Plan { rate: 200, ..writer(&format!("cuts-{round}")) };
        let client = Client::start(&lab, CLIENT, plan.clone()).map_err(text)?;
        let few = || if client.tally().acks.len() < 20 { Err(format!("{:?}", client.tally().kinds)) } else { Ok(()) };
        wait_ok("writes flow", Instant::now(), AGREE_TIME, few)?;
        std::thread::sleep(SYNCED_AFTER + moments.below(WRITE_TIME));
        let cut_at = clock::now();
        guests.iter_mut().try_for_each(|guest| guest.qemu.kill()).map_err(text)?;
        guests.into_iter().try_for_each(Guest::cut)?;
        let acks = client.stop().acks;
        let (synced, young): (Vec<Ack>, Vec<Ack>) =
            acks.into_iter().partition(|ack| cut_at.since(ack.at) >= SYNCED_AFTER);
        (written, unsynced) = (written + synced.len(), unsynced + young.len());
        kept.push((plan, synced));
    }
    note(format!(
        "{cuts} power cuts of three boxes at once: one master each time, 0 of {written} writes lost that were \
         acknowledged {SYNCED_AFTER:?} before or earlier; {unsynced} were younger"
    ));
    Ok(())
}

/// Waits until boxes that were switched on are a whole cluster, none of which had to format its disk again.
fn after_a_cut(lab: &Lab, guests: &[Guest], round: u32) -> Outcome {
    wait_whole(guests)?;
    agreed(lab, &[1, 2, 3], None)?;
    let broken = guests.iter().find(|guest| round > 0 && !guest.kept_its_data());
    broken.map_or(Ok(()), |guest| Err(format!("{} has lost its file system after cut {round}", guest.name)))
}

/// Each time the box comes back by itself or is switched on again.
fn faults(
    lab: &Lab,
    guests: &mut [Guest],
    client: &Client,
    begun: Instant,
    start: &impl Fn(usize) -> Result<Guest, String>,
) -> Outcome {
    let flows = |what: &str, since: Instant| {
        let before = client.tally().acks.len();
        let more = || {
            let now = client.tally().acks.len();
            let few = || format!("{} writes, {:?}", now - before, client.tally().kinds);
            if now >= before + 50 { Ok(()) } else { Err(few()) }
        };
        wait_ok(what, since, AGREE_TIME, more).map(|(took, ())| took)
    };
    let cold = flows("a client outside writes", begun)?;
    note(format!("three boxes switched on → 50 writes through the virtual address: {} ms", cold.as_millis()));
    wait_whole(guests)?;
    for fault in [Fault::Poweroff, Fault::Plug, Fault::Reboot] {
        let mut master = agreed(lab, &[1, 2, 3], None)?;
        if matches!(fault, Fault::Plug) && vip_holder(lab)? == master {
            // Replication is asynchronous: a master whose power is gone takes along what was under way to its replicas.
            let (sentinel, order) = (SocketAddr::new(address(master), 26379), ["SENTINEL", "FAILOVER", "mymaster"]);
            let order = ask(lab, sentinel, Some(PASSWORD), &order)?;
            if !order.is_ok() {
                return Err(format!("SENTINEL FAILOVER: {order:?}"));
            }
            master = agreed(lab, &[1, 2, 3], Some(master))?;
            wait_whole(guests)?;
        }
        let holder = vip_holder(lab)?;
        let hit = if matches!(fault, Fault::Plug) { holder } else { master };
        let guest = &mut guests[hit - 1];
        let (began, since) = (clock::now(), Instant::now());
        match fault {
            Fault::Poweroff => {
                guest.leaves("poweroff")?;
                guest.wait_off()?;
            }
            Fault::Reboot => guest.leaves("reboot")?,
            Fault::Plug => {
                guest.qemu.kill().map_err(text)?;
                guest.wait_off()?;
            }
        }
        let others: Vec<usize> = (1..=BOXES).filter(|n| *n != hit).collect();
        let new = agreed(lab, &others, (hit == master).then_some(master))?;
        flows("writes flow again", since)?;
        let outage = client.tally().outage(began).unwrap_or_default();
        note(format!(
            "{}: box-{hit} (master box-{master} → box-{new}, virtual address at box-{holder}); longest time without \
             a write {} ms",
            fault.what(),
            outage.as_millis()
        ));
        match fault {
            Fault::Poweroff | Fault::Plug => guests[hit - 1] = start(hit)?,
            Fault::Reboot => guests[hit - 1].wait_rebooting()?,
        }
        wait_whole(guests)?;
    }
    note(format!("the status screen of {}:\n{}", guests[0].name, guests[0].screen()));
    Ok(())
}
