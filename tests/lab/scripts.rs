//! What a process gets that vigie starts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vigie::operate::lab::cluster::{Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;

use super::{Case, Outcome};

const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");
const HEALTHY_TIME: Duration = Duration::from_secs(60);
/// `O_CLOEXEC` in `/proc/<pid>/fdinfo`.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

pub(crate) const CASES: &[Case] =
    &[Case { name: "no_descriptor_of_vigie_is_passed_on", needs: &["redis-server"], run: descriptors }];

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Whether a descriptor stays open in what its process starts.
fn is_passed_on(info: &Path) -> bool {
    let info = fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

/// Every kind of descriptor that a node opens is there: of all roles, with clients of every sort.
fn descriptors(sandbox: &Sandbox) -> Outcome {
    let cluster = Cluster::start(sandbox, Layout::classic(), Path::new(VIGIE)).map_err(text)?;
    cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    let (mut seen, mut wrong) = (0, Vec::new());
    for node in cluster.names() {
        let processes = cluster.lab().processes(node).map_err(text)?;
        for process in processes.iter().filter(|process| process.command == "vigie") {
            let directory = format!("/proc/{}", process.pid);
            for entry in fs::read_dir(format!("{directory}/fd")).map_err(text)?.flatten() {
                let number = entry.file_name();
                seen += 1;
                let standard = ["0", "1", "2"].iter().any(|one| number == *one);
                if !standard && is_passed_on(&Path::new(&directory).join("fdinfo").join(&number)) {
                    let what = fs::read_link(entry.path()).unwrap_or_default();
                    wrong.push(format!("{node} {}: {} {}", process.pid, number.display(), what.display()));
                }
            }
        }
    }
    assert!(seen > 60, "five nodes, of two processes each, have more than {seen} descriptors");
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
