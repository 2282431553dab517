//! The classic cluster with the real binary, hurt in every way that the demo offers, as a client sees it.

use std::process::{Command, Stdio};
use std::time::Duration;

use vigie::base::Instant;
use vigie::operate::lab::client::{Ack, Client, read_back};
use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::operate::{client, commands};
use vigie::runtime::clock;

use super::whole::{HEALTHY_TIME, flows, text, written};
use super::{Case, Outcome, program_path, wait_for};

const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");
const REDIS: &[&str] = &["redis-server"];
/// A cluster is whole again after so long, on a machine that does much else.
const RECOVERY_TIME: Duration = Duration::from_secs(30);

pub(crate) const CASES: &[Case] = &[
    Case { name: "a_killed_redis_is_replaced_and_no_write_lost", needs: REDIS, run: killed_redis },
    Case { name: "valkey_is_served_alike", needs: &["redis-server", "valkey-server"], run: killed_valkey },
    Case { name: "a_killed_replica_is_not_noticed", needs: REDIS, run: killed_replica },
    Case { name: "the_masters_host_is_lost_and_returns_as_replica", needs: REDIS, run: lost_master_host },
    Case { name: "the_vip_leaves_a_lost_host_and_is_held_once_after_its_return", needs: REDIS, run: lost_vip_host },
    Case { name: "a_killed_vigie_at_the_vip_is_survived", needs: REDIS, run: killed_vigie },
    Case { name: "a_switchover_goes_where_it_is_told", needs: REDIS, run: switchover },
    Case { name: "without_vigie_there_is_no_redis", needs: REDIS, run: no_vigie_no_redis },
    Case { name: "the_demo_measures_for_scripts", needs: REDIS, run: demo_for_scripts },
    Case { name: "the_demo_without_a_terminal_is_text", needs: REDIS, run: demo_without_terminal },
    Case { name: "the_demo_ends_when_nobody_reads_it", needs: REDIS, run: demo_without_reader },
];

/// A healthy cluster with a client that writes.
struct World {
    cluster: Cluster,
    client: Client,
}

impl World {
    fn new(sandbox: &Sandbox) -> Result<Self, String> {
        Self::of(sandbox, Layout::classic())
    }

    fn of(sandbox: &Sandbox, layout: Layout) -> Result<Self, String> {
        let (cluster, client) = written(sandbox, layout, "case", RECOVERY_TIME)?;
        Ok(Self { cluster, client })
    }

    fn master(&self) -> Result<String, String> {
        let master = self.cluster.healthy()?.master.and_then(|master| master.node);
        master.ok_or_else(|| "a healthy cluster has a master".to_owned())
    }

    /// Waits until writes flow steadily.
    fn flows_since(&self, since: Instant) -> Outcome {
        flows(&self.client, since, RECOVERY_TIME)
    }

    /// Stops the client and returns how many acknowledged writes are missing.
    fn lost(self) -> Result<usize, String> {
        let plan = self.client.plan().clone();
        let acks = self.client.stop().acks;
        assert!(!acks.is_empty());
        let network = self.cluster.lab().network(CLIENT).map_err(text)?;
        let lost = read_back(&network, &plan, &acks, false).map_err(text)?.len();
        if lost > 0 {
            tell_events(&self.cluster);
        }
        Ok(lost)
    }

    /// The same, but for what replication cannot promise of a redis that is killed: in the very turn of its event loop it may
    /// have written to clients and not to its replicas yet. Those are at most the last of each connection before the outage.
    fn lost_but_the_last(self, fault: Instant) -> Result<usize, String> {
        let plan = self.client.plan().clone();
        let acks = self.client.stop().acks;
        let gap = |pair: &[Ack]| pair[1].at.since(pair[0].at);
        let outage =
            acks.windows(2).enumerate().filter(|(_, pair)| pair[1].at > fault).max_by_key(|(_, pair)| gap(pair));
        let (last, _) = outage.ok_or("nothing was written after the fault")?;
        let turn = &acks[(last + 1).saturating_sub(usize::from(plan.connections))..=last];
        let network = self.cluster.lab().network(CLIENT).map_err(text)?;
        let mut lost = read_back(&network, &plan, &acks, false).map_err(text)?;
        if !lost.is_empty() {
            tell_events(&self.cluster);
            lost.iter().for_each(|ack| println!("lost: {ack:?}, the last before the outage: {}", turn.contains(ack)));
        }
        lost.retain(|ack| !turn.contains(ack));
        Ok(lost.len())
    }
}

/// What every node says of what has happened, for whoever has to find out why.
fn tell_events(cluster: &Cluster) {
    let records = cluster.names().flat_map(|name| {
        let records = client::events(&cluster.runtime_dir(name), false).into_iter().flatten().flatten();
        records.map(move |record| (record.at_ms, name, commands::line(&record))).collect::<Vec<_>>()
    });
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|(at_ms, ..)| *at_ms);
    records.iter().for_each(|(_, name, line)| println!("{name:<10} {line}"));
}

fn killed_redis(sandbox: &Sandbox) -> Outcome {
    killed_server(World::new(sandbox)?)
}

fn killed_valkey(sandbox: &Sandbox) -> Outcome {
    let server = program_path("valkey-server").ok_or("it was there a moment ago")?;
    let mut layout = Layout::classic();
    layout.settings.push_str(&format!("\n[redis]\nserver = {:?}\n", server.display().to_string()));
    killed_server(World::of(sandbox, layout)?)
}

fn killed_server(world: World) -> Outcome {
    let before = world.master()?;
    let fault = clock::now();
    world.cluster.kill_redis(&before).map_err(text)?;
    world.flows_since(fault)?;
    world.cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    assert!(world.client.tally().outage(fault).is_some());
    assert_ne!(world.master()?, before, "a replica has taken over");
    assert_eq!(world.lost_but_the_last(fault)?, 0);
    Ok(())
}

fn killed_replica(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox)?;
    let master = world.master()?;
    let replica = world.cluster.sentinels().find(|name| *name != master).ok_or("there are replicas")?;
    let fault = clock::now();
    world.cluster.kill_redis(replica).map_err(text)?;
    world.flows_since(fault)?;
    world.cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    assert_eq!(world.master()?, master, "the master stays");
    assert_eq!(world.client.tally().errors, 0, "{:?}", world.client.tally().kinds);
    assert_eq!(world.lost()?, 0);
    Ok(())
}

fn lost_master_host(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox)?;
    let before = world.master()?;
    let fault = clock::now();
    world.cluster.lab().cut(&before).map_err(text)?;
    world.flows_since(fault)?;
    world.cluster.lab().heal(&before).map_err(text)?;
    let healed = clock::now();
    world.cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    world.flows_since(healed)?;
    assert_ne!(world.master()?, before, "who returns does not take the mastership back");
    // Replication is asynchronous: what was under way to the replicas when the cable was pulled may be lost, no more.
    let lost = world.lost()?;
    assert!(lost <= 50, "{lost} acknowledged writes are lost");
    Ok(())
}

fn lost_vip_host(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox)?;
    let holders = world.cluster.vip_holders().map_err(text)?;
    let [holder] = holders.as_slice() else { return Err(format!("the VIP is on {holders:?}")) };
    let fault = clock::now();
    world.cluster.lab().cut(holder).map_err(text)?;
    world.flows_since(fault)?;
    world.cluster.lab().heal(holder).map_err(text)?;
    // Healthy means that exactly one kernel has the address.
    world.cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    world.flows_since(clock::now())?;
    assert_eq!(world.lost()?, 0);
    Ok(())
}

fn killed_vigie(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox)?;
    let holders = world.cluster.vip_holders().map_err(text)?;
    let [holder] = holders.as_slice() else { return Err(format!("the VIP is on {holders:?}")) };
    let fault = clock::now();
    world.cluster.kill_worker(holder).map_err(text)?;
    world.flows_since(fault)?;
    world.cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    assert_eq!(world.lost()?, 0);
    Ok(())
}

fn switchover(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox)?;
    let before = world.master()?;
    let to = world.cluster.sentinels().filter(|name| *name != before).last().ok_or("there are replicas")?;
    let fault = clock::now();
    let switched = world.cluster.failover(to, Some(to)).map_err(text)?;
    assert_eq!(switched.to, to, "{switched:?}");
    world.flows_since(fault)?;
    world.cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    assert_eq!(world.master()?, to);
    let nowhere = world.cluster.failover(to, Some("no-such-node")).map_err(|error| error.to_string());
    assert!(nowhere.is_err(), "{nowhere:?}");
    assert_eq!(world.lost()?, 0);
    Ok(())
}

fn no_vigie_no_redis(sandbox: &Sandbox) -> Outcome {
    let world = World::new(sandbox)?;
    let master = world.master()?;
    let lab = world.cluster.lab();
    let vigies = lab.processes(&master).map_err(text)?;
    let (redis, vigies): (Vec<_>, Vec<_>) = vigies.into_iter().partition(|process| process.command == "redis-server");
    assert!(redis.len() == 1 && vigies.len() >= 2, "{redis:?} {vigies:?}");
    let fault = clock::now();
    for process in &vigies {
        vigie::operate::lab::hosts::signal(process.pid, nix::sys::signal::Signal::SIGKILL).map_err(text)?;
    }
    wait_for("its redis ends with vigie", Duration::from_secs(5), || {
        lab.processes(&master).is_ok_and(|left| left.iter().all(|process| process.command != "redis-server"))
    })?;
    world.flows_since(fault)?;
    assert_eq!(world.lost_but_the_last(fault)?, 0);
    Ok(())
}

fn demo_for_scripts(_: &Sandbox) -> Outcome {
    let mut demo = Command::new(VIGIE);
    let output = demo.args(["demo", "--scenario", "crash", "--runs", "2", "--json"]).output().map_err(text)?;
    let (said, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [first, second, summary] = lines.as_slice() else { return Err(format!("{said}{faults}")) };
    for (n, run) in [(1, first), (2, second)] {
        assert_eq!((&run["scenario"], &run["run"], &run["lost"]), (&"crash".into(), &n.into(), &0.into()), "{said}");
        assert!(run["outage_ms"].as_f64().is_some_and(|outage| outage > 0.0), "{said}");
    }
    assert_eq!((&summary["runs"], &summary["recovered"]), (&2.into(), &2.into()), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}{faults}");
    Ok(())
}

fn demo_without_terminal(_: &Sandbox) -> Outcome {
    let output = Command::new(VIGIE).arg("demo").stdin(Stdio::null()).output().map_err(text)?;
    let (said, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{faults}");
    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
    // In this order.
    let mut rest = said.as_ref();
    for part in [
        "starting 5 hosts",
        "the cluster is whole:\ncluster mymaster",
        "redis-03",
        "through the virtual IP 192.168.0.1",
        "kill -9 of the redis-server of redis-01, the master",
        "+switch-master",
        "writes flow again after ",
        "the cluster is whole:\ncluster mymaster",
        "outage: ",
        "lost writes: 0 of ",
    ] {
        let at = rest.find(part).ok_or_else(|| format!("{part:?} is missing, or at another place:\n{said}"))?;
        rest = &rest[at + part.len()..];
    }
    Ok(())
}

fn demo_without_reader(_: &Sandbox) -> Outcome {
    let mut demo = Command::new(VIGIE);
    demo.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = demo.spawn().map_err(text)?;
    drop(demo.stdout.take());
    let output = demo.wait_with_output().map_err(text)?;
    let faults = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), faults.as_ref()), (Some(1), ""), "no yes, no words");
    Ok(())
}
