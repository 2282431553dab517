//! What a process gets that vigie starts.

use std::fs;
use std::path::{Path, PathBuf};

use vigie::operate::lab::cluster::{Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;

use super::whole::{HEALTHY_TIME, text};
use super::{Case, Outcome};

const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");
/// `O_CLOEXEC` in `/proc/<pid>/fdinfo`.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

pub(crate) const CASES: &[Case] =
    &[Case { name: "no_descriptor_of_vigie_is_passed_on", needs: &["redis-server"], run: descriptors }];

/// Whether a descriptor stays open in what its process starts.
fn is_passed_on(info: &Path) -> bool {
    let info = fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

/// What the descriptors of a process lead to that stay open in what it starts.
fn passed_on(pid: &str) -> Result<Vec<PathBuf>, String> {
    let directory = Path::new("/proc").join(pid);
    let all: Vec<_> = fs::read_dir(directory.join("fd")).map_err(text)?.flatten().collect();
    let kept = all.iter().filter(|entry| is_passed_on(&directory.join("fdinfo").join(entry.file_name())));
    Ok(kept.filter_map(|entry| fs::read_link(entry.path()).ok()).collect())
}

/// All roles are there, and with them every kind of descriptor that a node opens.
fn descriptors(sandbox: &Sandbox) -> Outcome {
    // What the tests were started with goes from hand to hand.
    let mut own = passed_on("self")?;
    own.push("/dev/null".into());
    let cluster = Cluster::start(sandbox, Layout::classic(), Path::new(VIGIE)).map_err(text)?;
    cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    let (mut seen, mut wrong) = (0, Vec::new());
    for node in cluster.names() {
        let log = sandbox.scratch.join(format!("{node}.log"));
        let processes = cluster.lab().processes(node).map_err(text)?;
        for process in processes.iter().filter(|process| process.command == "vigie") {
            seen += 1;
            let passed_on = passed_on(&process.pid.to_string())?;
            assert!(passed_on.contains(&log), "the log is its output, and passed on: {passed_on:?}");
            let new = passed_on.iter().filter(|link| !own.contains(link) && **link != log);
            wrong.extend(new.map(|link| format!("{node} {}: {}", process.pid, link.display())));
        }
    }
    assert_eq!(seen, 10, "five nodes, of two processes each");
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
