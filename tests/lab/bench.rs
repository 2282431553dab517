//! What a node costs while nothing happens. Not a check: it prints, and runs only when it is asked for by name (`bench`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use vigie::operate::lab::cluster::{Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;

use super::{Case, Outcome};

/// What was just started settles before it is looked at, and is then looked at for so long.
const SETTLE: Duration = Duration::from_secs(5);
const SPAN: Duration = Duration::from_secs(30);
/// Clock ticks a second in `/proc`, the same on every Linux that this runs on.
const TICKS: f64 = 100.0;

pub(crate) const CASES: &[Case] = &[Case { name: "an_idle_cluster", needs: &["redis-server"], run: idle }];

/// CPU ticks, resident KiB, and wake-ups of all threads.
struct Sample {
    ticks: f64,
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

fn idle(sandbox: &Sandbox) -> Outcome {
    let binary =
        std::env::var_os("VIGIE_BIN").map_or_else(|| Path::new(env!("CARGO_BIN_EXE_vigie")).into(), PathBuf::from);
    let layout = Layout::classic().with_fencing(super::fencing::asked()?);
    let cluster = Cluster::start(sandbox, layout, &binary).map_err(|error| error.to_string())?;
    cluster.wait_healthy(Duration::from_secs(60)).map_err(|error| error.to_string())?;
    sleep(SETTLE);
    let mut processes = BTreeMap::new();
    for node in cluster.names() {
        for process in cluster.lab().processes(node).map_err(|error| error.to_string())? {
            processes.insert(process.pid, (node.to_owned(), process));
        }
    }
    let before: BTreeMap<_, _> = processes.keys().filter_map(|pid| Some((*pid, sample(*pid)?))).collect();
    sleep(SPAN);
    println!("\n{:<12} {:<14} {:>10} {:>10} {:>12}", "NODE", "PROCESS", "CPU %", "RSS KiB", "WAKE-UPS/s");
    for (pid, (node, process)) in &processes {
        let (Some(old), Some(new)) = (before.get(pid), sample(*pid)) else { continue };
        let is_guard = !processes.contains_key(&process.parent);
        let name = match (process.command.as_str(), is_guard) {
            ("redis-server", _) => "redis-server",
            (_, true) => "vigie guard",
            (_, false) => "vigie worker",
        };
        let cpu = (new.ticks - old.ticks) / TICKS / SPAN.as_secs_f64() * 100.0;
        let wakeups = (new.wakeups - old.wakeups) / SPAN.as_secs();
        println!("{node:<12} {name:<14} {cpu:>10.2} {:>10} {wakeups:>12}", new.resident);
    }
    Ok(())
}
