//! What a node costs while nothing happens. Not a check: it prints, and runs only when it is asked for by name (`bench`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use vigie::config::Fencing;
use vigie::operate::lab::cluster::{Cluster, Layout};
use vigie::operate::lab::hosts::Lab;
use vigie::operate::lab::sandbox::Sandbox;

use super::fencing::stock::{ARTICLE, Stock};
use super::{Case, Outcome};

/// What was just started settles before it is looked at, and is then looked at for so long.
const SETTLE: Duration = Duration::from_secs(5);
const SPAN: Duration = Duration::from_secs(30);
/// Clock ticks a second in `/proc`, the same on every Linux that this runs on.
const TICKS: f64 = 100.0;

const REDIS: &str = "redis-server";

pub(crate) const CASES: &[Case] = &[
    Case { name: "an_idle_cluster", needs: &[REDIS], run: |sandbox| vigie(sandbox, Fencing::Lease) },
    Case { name: "an_idle_cluster_without_leases", needs: &[REDIS], run: |sandbox| vigie(sandbox, Fencing::Off) },
    Case { name: "an_idle_stock_stack", needs: &[REDIS, "haproxy", "keepalived"], run: stock },
];

/// CPU ticks, resident KiB, and wake-ups of all threads.
struct Sample {
    ticks: f64,
    resident: u64,
    wakeups: u64,
}

/// Of one process, or of several: per cent of a core, KiB, wake-ups a second.
#[derive(Clone, Copy, Default)]
struct Cost {
    cpu: f64,
    resident: u64,
    wakeups: u64,
}

fn sample(pid: i32) -> Option<Sample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let resident = value(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")?;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let wakeups = status.filter_map(|status| value(&status, "voluntary_ctxt_switches:")).sum();
    Some(Sample { ticks, resident, wakeups })
}

fn vigie(sandbox: &Sandbox, fencing: Fencing) -> Outcome {
    let binary =
        std::env::var_os("VIGIE_BIN").map_or_else(|| Path::new(env!("CARGO_BIN_EXE_vigie")).into(), PathBuf::from);
    let layout = Layout::classic().with_fencing(fencing);
    let cluster = Cluster::start(sandbox, layout, &binary).map_err(|error| error.to_string())?;
    cluster.wait_healthy(Duration::from_secs(60)).map_err(|error| error.to_string())?;
    measure(&format!("vigie, fencing = {:?}", fencing.to_string()), cluster.lab())
}

/// The daemons that vigie replaces, as the article has them.
fn stock(sandbox: &Sandbox) -> Outcome {
    Stock::start(sandbox, &ARTICLE)?.when_well(|lab| measure("redis-sentinel, HAProxy, keepalived", lab))
}

/// Prints what each process of each host costs, and what a host costs without its redis.
fn measure(title: &str, lab: &Lab) -> Outcome {
    sleep(SETTLE);
    let mut processes = BTreeMap::new();
    for host in lab.hosts() {
        for process in lab.processes(&host.name).map_err(|error| error.to_string())? {
            processes.insert(process.pid, (host.name.clone(), process));
        }
    }
    let before: BTreeMap<_, _> = processes.keys().filter_map(|pid| Some((*pid, sample(*pid)?))).collect();
    sleep(SPAN);
    let row = |node: &str, name: &str, Cost { cpu, resident, wakeups }: Cost| {
        println!("{node:<12} {name:<20} {cpu:>10.2} {resident:>10} {wakeups:>12}");
    };
    println!("\n{title}\n{:<12} {:<20} {:>10} {:>10} {:>12}", "NODE", "PROCESS", "CPU %", "RSS KiB", "WAKE-UPS/s");
    let mut sums: BTreeMap<&str, Cost> = BTreeMap::new();
    for (pid, (node, process)) in &processes {
        let (Some(old), Some(new)) = (before.get(pid), sample(*pid)) else { continue };
        let name = name(*pid, &process.command, !processes.contains_key(&process.parent));
        let cost = Cost {
            cpu: (new.ticks - old.ticks) / TICKS / SPAN.as_secs_f64() * 100.0,
            resident: new.resident,
            wakeups: (new.wakeups - old.wakeups) / SPAN.as_secs(),
        };
        row(node, name, cost);
        if name != REDIS {
            let sum = sums.entry(node).or_default();
            *sum = Cost {
                cpu: sum.cpu + cost.cpu,
                resident: sum.resident + cost.resident,
                wakeups: sum.wakeups + cost.wakeups,
            };
        }
    }
    sums.into_iter().for_each(|(node, sum)| row(node, "all but redis-server", sum));
    Ok(())
}

fn name(pid: i32, command: &str, is_first: bool) -> &str {
    let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    match command {
        // The same program by either name.
        REDIS if title.contains("[sentinel]") => "redis-sentinel",
        // Whatever its file is called.
        other if other.starts_with("vigie") => {
            if is_first {
                "vigie guard"
            } else {
                "vigie worker"
            }
        }
        other => other,
    }
}
