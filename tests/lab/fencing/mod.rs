//! Who may acknowledge a write: whatever is done to the network, to processes or by strangers, the old master of a cluster has
//! to stop before a new one begins. Writers stand at every redis, on the same side of every cut as it does, and two more write
//! through the virtual IP; each acknowledgement is held against what is left when all is well again.
//!
//! `FENCING`: `lease` (the default) or `off`, the key of the cluster file. With `off` the same cases have to show what a lease is
//! for, or else they could not see it. `RUNS`: how often each fault happens.

pub(crate) mod bootstrap;
pub(crate) mod freeze;
pub(crate) mod link;
mod operator;
pub(crate) mod orders;
pub(crate) mod recovery;
pub(crate) mod restarts;
pub(crate) mod rolling;
pub(crate) mod slack;
pub(crate) mod split;
pub(crate) mod stock;
pub(crate) mod survivor;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vigie::base::Instant;
use vigie::config::{Fencing, PEER_PORT};
use vigie::operate::client::events;
use vigie::operate::lab::client::longest_gap;
use vigie::operate::lab::cluster::{Layout, Part};
use vigie::operate::lab::hosts::{HostSpec, signal};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::wire::resp::Reply;

use super::ledger::{Fault, Verdict, judge, median_and_max, total};
use super::whole::{DATA, START_TIME, Site, World, binary, text, wait_ok};
use super::writers::{Seen, Spec, Writers, left};
use super::{Case, Outcome, note};

/// One run of each fault that a lease is there for.
pub(crate) const QUICK: &[Case] = &[
    Case { name: "a_master_on_the_smaller_side_stops_in_time", needs: NEEDS, run: split::quick },
    Case { name: "and_so_it_does_when_its_worker_stands_still", needs: NEEDS, run: split::quick_without_worker },
    Case { name: "a_redis_that_wakes_acknowledges_nothing", needs: NEEDS, run: freeze::quick_redis },
    Case { name: "a_redis_whose_worker_stands_still_stops_in_time", needs: NEEDS, run: freeze::quick_worker },
    Case { name: "strangers_make_no_second_master", needs: NEEDS, run: orders::quick },
    Case { name: "one_that_is_left_writes_by_the_word_of_an_operator", needs: NEEDS, run: survivor::quick },
    Case {
        name: "sentinels_without_their_record_go_on_by_the_word_of_an_operator",
        needs: NEEDS,
        run: bootstrap::quick,
    },
];

pub(crate) const NEEDS: &[&str] = &["redis-server", "ip"];

/// The lease that is set; lateness is judged by it with `fencing = "off"`, too. Half of `down_after` by default.
const LEASE: Duration = Duration::from_millis(250);
/// By default a master that is not heard is suspected after so long.
const DOWN_AFTER: Duration = Duration::from_millis(500);
/// Writes flow again so long after a fault is mended, also for who takes a former owner of the virtual IP for the present one: such
/// a neighbour is believed for up to a minute, and asked for again after that.
const FLOW_TIME: Duration = Duration::from_secs(90);
/// What is killed is gone within this time.
const DEATH_TIME: Duration = Duration::from_secs(5);
/// Events of a redis whose lease was not renewed in time.
const FENCED: [&str; 2] = ["fenced", "fence-killed"];
/// What each writer offers, per second.
const RATE: u32 = 500;
/// Who writes straight to a redis waits through every freeze; who writes through the virtual IP has an application's patience.
const PATIENT: Duration = Duration::from_secs(20);
const IMPATIENT: Duration = Duration::from_millis(250);
/// Writers through the virtual IP: one that goes with the old master if the network is parted, and one that stays.
const NEAR: &str = "vip-near";
const FAR: &str = "vip-far";

/// The mode that is asked for.
pub(crate) fn asked() -> Result<Fencing, String> {
    match std::env::var("FENCING").as_deref() {
        Ok("off") => Ok(Fencing::Off),
        Ok("lease") | Err(_) => Ok(Fencing::Lease),
        Ok(other) => Err(format!("FENCING is {other:?}; \"off\" or \"lease\" is expected")),
    }
}

/// How often each fault happens.
fn runs(default: usize) -> usize {
    std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(default)
}

/// Has a fault happen that often, counted from 1, until a run fails: what was measured before is still worth to be seen.
fn repeat(runs: usize, mut once: impl FnMut(usize) -> Outcome) -> Outcome {
    (1..=runs).try_for_each(|number| once(number).map_err(|why| format!("run {number}: {why}")))
}

/// Of times, in words.
fn spread(times: &mut [Duration]) -> Option<String> {
    let (median, max) = median_and_max(times)?;
    Some(format!("median {} ms, max {} ms", median.as_millis(), max.as_millis()))
}

/// The hosts of all writers.
fn guests() -> Vec<HostSpec> {
    let hosts = DATA.into_iter().map(beside).chain([NEAR.to_owned(), FAR.to_owned()]);
    let host = |(last, name)| HostSpec { name, address: IpAddr::from([192, 168, 0, last]), prefix: 24 };
    (101..).zip(hosts).map(host).collect()
}

/// The host of the writer at a node.
fn beside(node: &str) -> String {
    format!("at-{node}")
}

/// A cluster with hosts for all writers.
struct Field {
    world: World,
    fencing: Fencing,
    /// Runs so far.
    runs: Cell<u32>,
}

/// Writers at work around a master.
struct Load {
    writers: Writers,
    master: &'static str,
}

/// What came of a run.
struct Run {
    verdict: Verdict,
    seen: Seen,
    /// Who is master when all is well again.
    master: &'static str,
}

impl Run {
    /// The longest time since `at` in which one of these writers had no acknowledgement.
    fn stall(&self, names: &[&str], at: Instant) -> Duration {
        let gaps = names.iter().filter_map(|name| longest_gap(self.seen.acked(&[name]).into_iter(), at));
        gaps.max().unwrap_or_default()
    }
}

impl Load {
    /// Starts to write as the cluster's `number`th run. Returns when writes flow.
    fn start(site: Site<'_>, master: &'static str, number: u32) -> Result<Self, String> {
        let direct = DATA.map(|node| (node.to_owned(), beside(node), site.address(node), PATIENT));
        let vip = [NEAR, FAR].map(|name| (name.to_owned(), name.to_owned(), site.vip(), IMPATIENT));
        let specs = direct.into_iter().chain(vip).map(|(name, host, target, patience)| Spec {
            name,
            host,
            target,
            rate: RATE,
            patience,
        });
        let writers = Writers::start(site.lab, &site.layout.password, &format!("run-{number}"), specs.collect())?;
        writers.wait_steady(&[master, NEAR, FAR], FLOW_TIME)?;
        Ok(Self { writers, master })
    }

    /// Waits until writes flow again with this master, stops writing, and judges what was written by what is left of it.
    fn end(
        self,
        site: Site<'_>,
        master: &'static str,
        at: Instant,
        deprived: Option<(Instant, Instant)>,
    ) -> Result<Run, String> {
        let Self { writers, master: old } = self;
        writers.wait_steady(&[master, NEAR, FAR], FLOW_TIME)?;
        let lists = writers.lists();
        let seen = writers.stop();
        let ask = |node: &'static str, commands: &[Vec<&str>]| site.ask(node, site.address(node), commands);
        // What was under way has either arrived by then or never will: nobody writes any more, and all have the same.
        let lengths = |node| {
            let commands: Vec<_> = lists.iter().map(|list| vec!["LLEN", list.as_str()]).collect();
            ask(node, &commands).map(|replies| replies.iter().map(Reply::integer).collect::<Vec<_>>())
        };
        let alike = || {
            let all = DATA.into_iter().map(lengths).collect::<Result<Vec<_>, _>>()?;
            if all.iter().all(|lengths| *lengths == all[0]) { Ok(()) } else { Err(format!("{all:?}")) }
        };
        wait_ok("not the same on every node", std::time::Instant::now(), START_TIME, alike)?;
        let kept = left(&lists, |commands| ask(master, commands))?;
        let verdict = judge(&seen.writes, &kept, Fault { old, at, lease: LEASE, deprived });
        for list in &lists {
            ask(master, &[vec!["UNLINK", list]])?;
        }
        Ok(Run { verdict, seen, master })
    }
}

impl Field {
    fn start(sandbox: &Sandbox) -> Result<Self, String> {
        let fencing = asked()?;
        let mut layout = Layout::classic().with_fencing(fencing);
        if fencing == Fencing::Lease {
            layout.settings.push_str(&format!("lease = \"{}ms\"\n", LEASE.as_millis()));
        }
        Self::of(sandbox, layout, fencing, &binary())
    }

    /// Nodes with a cluster file and a binary of another kind.
    fn of(sandbox: &Sandbox, mut layout: Layout, fencing: Fencing, binary: &Path) -> Result<Self, String> {
        layout.guests = guests();
        Ok(Self { world: World::with(sandbox, layout, binary)?, fencing, runs: Cell::new(0) })
    }

    /// Waits until all is well, and starts to write. Returns when writes flow.
    fn load(&self) -> Result<Load, String> {
        let master = self.well()?;
        self.runs.set(self.runs.get() + 1);
        Load::start(self.world.site(), master, self.runs.get()).map_err(|why| self.told(why))
    }

    /// Waits until the cluster is whole and all nodes say so. Returns the master.
    fn well(&self) -> Result<&'static str, String> {
        let whole = || self.world.wait_whole(std::time::Instant::now(), START_TIME);
        whole().map_err(|why| self.world.told(why))?;
        self.world.wait_healthy()?;
        // Agreement of all may have taken long enough for another change.
        whole().map(|(_, master)| master).map_err(|why| self.world.told(why))
    }

    /// Waits until all is well and writes flow again, stops writing, and judges what was written by what is left of it.
    ///
    /// `at`: when the fault began; `deprived`: from when to when nobody could promise the old master anything, if it was so.
    fn settle(&self, load: Load, at: Instant, deprived: Option<(Instant, Instant)>) -> Result<Run, String> {
        let master = self.well()?;
        let run = load.end(self.world.site(), master, at, deprived).map_err(|why| self.told(why))?;
        if std::env::var_os("VIGIE_LAB_LOGS").is_some() {
            println!("{}", self.told(format!("run {}: {}", self.runs.get(), run.verdict)));
        }
        Ok(run)
    }

    /// A failure, with whom clients of the virtual IP take for its owner, and what every node has to say.
    fn told(&self, failure: String) -> String {
        let neighbours = |host: &str| {
            let output = self.world.cluster.lab().exec(host, || Command::new("ip").args(["neigh"]).output());
            let output = output.ok().and_then(Result::ok).map(|output| output.stdout).unwrap_or_default();
            format!("-- {host}\n{}", String::from_utf8_lossy(&output))
        };
        let neighbours = [NEAR, FAR].map(neighbours).concat();
        self.world.told(format!("{failure}\n{neighbours}"))
    }

    /// How often the redis of a node was fenced since then (milliseconds of the wall clock): it refused writes, or was killed, since
    /// its lease was not renewed. Asked of the node itself, whose vigie must not have been restarted since then.
    fn fences(&self, node: &str, since_ms: u64) -> Result<usize, String> {
        let mut fences = 0;
        for record in events(&self.world.cluster.runtime_dir(node), false).map_err(text)? {
            let record = record.map_err(text)?;
            fences += usize::from(record.at_ms >= since_ms && FENCED.contains(&record.name.as_str()));
        }
        Ok(fences)
    }

    /// Kills everything on some nodes at once.
    fn kill(&self, nodes: &[&'static str]) -> Outcome {
        let cluster = &self.world.cluster;
        cluster.kill_vigies(nodes.iter().copied()).map_err(text)?;
        nodes.iter().try_for_each(|node| cluster.wait_ended(node, DEATH_TIME).map(drop)).map_err(text)
    }

    /// Sends SIGSTOP to parts of a node. Returns whom to wake.
    fn freeze(&self, node: &str, parts: &[Part]) -> Result<Vec<i32>, String> {
        let pids = parts.iter().map(|part| self.world.cluster.pid(node, *part));
        let pids = pids.collect::<Result<Vec<_>, _>>().map_err(text)?;
        // The guard first: it would take its worker for hung.
        pids.iter().try_for_each(|pid| signal(*pid, nix::sys::signal::Signal::SIGSTOP)).map_err(text)?;
        Ok(pids)
    }

    /// Wakes those that have not been killed meanwhile; nobody else has got their numbers.
    fn wake(pids: &[i32]) -> Outcome {
        // Redis first, as it can be: what it does before anybody else wakes is what is asked.
        pids.iter().rev().try_for_each(|pid| signal(*pid, nix::sys::signal::Signal::SIGCONT)).map_err(text)
    }

    /// From now on a host hears no frame of the peer link, of another host or of all others. On the host itself nothing changes.
    fn deafen(&self, host: &str, from: Option<&str>) -> Outcome {
        let source = from.map_or_else(|| "0.0.0.0/0".to_owned(), |node| self.address(node).to_string());
        let port = PEER_PORT.to_string();
        let words =
            ["src", &source, "dst", "0.0.0.0/0", "proto", "udp", "dport", &port, "dir", "in", "action", "block"];
        self.policy(host, &[&["add"][..], &words[..]].concat())
    }

    /// All nodes hear all others again.
    fn hear(&self) -> Outcome {
        self.world.cluster.names().try_for_each(|node| self.policy(node, &["flush"]))
    }

    /// Policies of IPsec drop what they name, and need no program but `ip` and no module that a kernel may lack.
    fn policy(&self, host: &str, words: &[&str]) -> Outcome {
        let output =
            self.world.cluster.lab().exec(host, || Command::new("ip").args(["xfrm", "policy"]).args(words).output());
        let output = output.map_err(text)?.map_err(|error| format!("ip on {host}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("ip xfrm policy {words:?} on {host}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn address(&self, node: &str) -> IpAddr {
        self.world.address(node).ip()
    }
}

/// The rows of one table.
struct Table {
    name: String,
    verdicts: Vec<Verdict>,
}

impl Table {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), verdicts: Vec::new() }
    }

    fn row(&mut self, what: &str, run: Run) {
        if self.verdicts.is_empty() {
            println!("\n{:<34} {}", self.name, Verdict::HEADER);
        }
        println!("{:>3} {what:<30} {}", self.verdicts.len() + 1, run.verdict);
        let failures: Vec<_> =
            run.seen.failures.iter().map(|(name, kinds)| format!("{name} {}", listed(kinds))).collect();
        println!("      refused or cut: {}", failures.join("; "));
        self.verdicts.push(run.verdict);
    }

    /// The row of a master that may have been replaced.
    fn row_of(&mut self, master: &str, run: Run) {
        self.row(&format!("{master}, then {}", run.master), run);
    }

    /// Notes the sum for the end of the run.
    fn sum(&self) -> Verdict {
        let sum = total(&self.verdicts);
        let mut takeovers: Vec<_> = self.verdicts.iter().filter_map(|verdict| verdict.takeover).collect();
        let spread =
            spread(&mut takeovers).map_or_else(|| "no takeover".to_owned(), |spread| format!("takeover {spread}"));
        let (runs, taken) = (self.verdicts.len(), takeovers.len());
        note(format!("{}: {runs} runs, {taken} takeovers, {spread}", self.name));
        note(format!("{:<34} {}", "", Verdict::HEADER));
        note(format!("{:<34} {sum}", "  sum; of times, the longest"));
        sum
    }

    /// With a lease, each row has to keep to it.
    fn demand(&self, fencing: Fencing) -> Outcome {
        let broken: Vec<_> = self.verdicts.iter().filter(|verdict| !verdict.kept()).collect();
        match fencing {
            Fencing::Lease if !broken.is_empty() => {
                let rows: Vec<_> = broken.iter().map(|verdict| format!("  {verdict}")).collect();
                Err(format!(
                    "{}: {} of {} runs break the lease:\n{}",
                    self.name,
                    broken.len(),
                    self.verdicts.len(),
                    rows.join("\n")
                ))
            }
            Fencing::Lease | Fencing::Off => Ok(()),
        }
    }
}

fn listed(kinds: &BTreeMap<String, usize>) -> String {
    kinds.iter().map(|(kind, times)| format!("{kind} {times}")).collect::<Vec<_>>().join(", ")
}

/// Lets everything go on as it is, for a time that is part of what is measured.
fn let_pass(span: Duration, since: Instant) {
    std::thread::sleep(span.saturating_sub(clock::now().since(since)));
}
