//! The demo without a terminal: one fault, again and again, and the numbers of a client.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::{DemoError, Options};
use crate::base::Instant;
use crate::operate::lab::client::{Client, Plan, Tally, read_back};
use crate::operate::lab::cluster::{CLIENT, Cluster, ClusterError, Layout};
use crate::operate::lab::sandbox::Sandbox;
use crate::runtime::clock;

/// A cluster is whole again after so long, or it is broken.
const HEALTHY_TIME: Duration = Duration::from_secs(60);
/// Writes flow again after so long, or the fault was not survived.
const RECOVERY_TIME: Duration = Duration::from_secs(30);
/// Writes flow for so long before the fault, and again after it.
const STEADY_TIME: Duration = Duration::from_secs(1);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// The master's redis-server is killed
    Crash,
    /// The master's host is cut off from the network
    #[value(name = "hostloss")]
    HostLoss,
    /// The host that holds the virtual IP is cut off from the network
    #[value(name = "viploss")]
    VipLoss,
    /// vigie is killed on the host that holds the virtual IP
    #[value(name = "proxycrash")]
    ProxyCrash,
    /// A planned switchover to another node
    Planned,
}

impl Scenario {
    /// All names, as they are typed.
    pub(super) const NAMES: &str = "crash|hostloss|viploss|proxycrash|planned";

    /// Whether writes that were acknowledged and not yet replicated may be lost: the master's host takes them with it.
    const fn may_lose(self) -> bool {
        match self {
            Self::HostLoss => true,
            Self::Crash | Self::VipLoss | Self::ProxyCrash | Self::Planned => false,
        }
    }

    /// Injects the fault. Returns when it began.
    fn inject(self, cluster: &Cluster) -> Result<Instant, ClusterError> {
        let unknown = |what| move || ClusterError::NoProcess { node: "any node".to_owned(), what };
        let holder = || cluster.vip_holders()?.first().copied().ok_or_else(unknown("the holder of the VIP"));
        let any = cluster.names().next().unwrap_or_default();
        let master = || {
            let master = cluster.status(any)?.master.and_then(|master| master.node);
            master.ok_or_else(unknown("the master"))
        };
        match self {
            Self::Crash => {
                let node = master()?;
                at(|| cluster.kill_redis(&node))
            }
            Self::HostLoss => {
                let node = master()?;
                at(|| Ok(cluster.lab().cut(&node)?))
            }
            Self::VipLoss => {
                let node = holder()?;
                at(|| Ok(cluster.lab().cut(node)?))
            }
            Self::ProxyCrash => {
                let node = holder()?;
                at(|| cluster.kill_worker(node))
            }
            Self::Planned => {
                let node = cluster.sentinels().next().ok_or_else(unknown("a sentinel"))?;
                at(|| cluster.failover(node, None).map(drop))
            }
        }
    }
}

fn at(fault: impl FnOnce() -> Result<(), ClusterError>) -> Result<Instant, ClusterError> {
    let began = clock::now();
    fault().map(|()| began)
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Crash => "crash",
            Self::HostLoss => "hostloss",
            Self::VipLoss => "viploss",
            Self::ProxyCrash => "proxycrash",
            Self::Planned => "planned",
        })
    }
}

/// What the client saw of one fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Run {
    scenario: Scenario,
    run: u32,
    /// Longest time between two acknowledged writes, of whatever connections, that ends after the fault, milliseconds;
    /// none: writes did not flow again.
    outage_ms: Option<f64>,
    /// Writes sent that ended in an error, a close or a time-out.
    errors: u64,
    /// Connections that could not be made.
    connect_errors: u64,
    /// Longest time that one connection waited between two of its acknowledgements, milliseconds.
    stall_ms: Option<f64>,
    /// Acknowledged writes.
    acked: usize,
    /// Those of them that are missing or wrong afterwards.
    lost: usize,
    /// How often the client saw which failure.
    failures: BTreeMap<String, u64>,
}

/// Least, middle and most of something.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

/// All runs together.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Summary {
    scenario: Scenario,
    runs: usize,
    recovered: usize,
    outage_ms: Option<Spread>,
    errors: u64,
    acked: usize,
    lost: usize,
}

impl Summary {
    fn new(scenario: Scenario, runs: &[Run]) -> Self {
        let mut outages: Vec<_> = runs.iter().filter_map(|run| run.outage_ms).collect();
        outages.sort_by(f64::total_cmp);
        let middle = outages.len() / 2;
        let median = |outages: &[f64]| match outages.len() % 2 {
            0 => round((outages[middle - 1] + outages[middle]) / 2.0),
            _ => outages[middle],
        };
        let spread =
            |outages: &[f64]| Some(Spread { min: *outages.first()?, median: median(outages), max: *outages.last()? });
        Self {
            scenario,
            runs: runs.len(),
            recovered: outages.len(),
            outage_ms: spread(&outages),
            errors: runs.iter().map(|run| run.errors).sum(),
            acked: runs.iter().map(|run| run.acked).sum(),
            lost: runs.iter().map(|run| run.lost).sum(),
        }
    }

    /// Whether every fault was survived as promised.
    fn passed(&self, wanted: u32) -> bool {
        self.recovered == wanted as usize && (self.lost == 0 || self.scenario.may_lose())
    }
}

/// Milliseconds with one decimal.
fn millis(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1_000.0)
}

fn round(millis: f64) -> f64 {
    (millis * 10.0).round() / 10.0
}

/// Brings the cluster up, injects the fault as often as wanted, prints the numbers. Returns the exit code.
pub(super) fn run(scenario: Scenario, options: &Options, sandbox: &Sandbox, binary: &Path) -> Result<u8, DemoError> {
    let cluster = Cluster::start(sandbox, Layout::classic(), binary)?;
    let mut out = Printer { json: options.json, out: io::stdout().lock() };
    out.header()?;
    let mut done = Vec::new();
    let mut broken = None;
    for number in 1..=options.runs {
        match once(&cluster, scenario, number, options.clients) {
            Ok(run) => {
                out.run(&run)?;
                done.push(run);
            }
            // What was measured before is still worth to be seen.
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    let summary = Summary::new(scenario, &done);
    out.summary(&summary)?;
    match broken {
        Some(error) => Err(error),
        None => Ok(u8::from(!summary.passed(options.runs))),
    }
}

fn once(cluster: &Cluster, scenario: Scenario, number: u32, clients: u16) -> Result<Run, DemoError> {
    cluster.wait_healthy(HEALTHY_TIME)?;
    let plan = Plan { connections: clients, ..cluster.plan(format!("{scenario}-{number}")) };
    let started = clock::now();
    let client = Client::start(cluster.lab(), CLIENT, plan.clone())?;
    if !client.wait_steady(started, STEADY_TIME, RECOVERY_TIME) {
        let why = format!("the client cannot write steadily: {:?}", client.tally().kinds);
        return Err(ClusterError::Unhealthy { limit: RECOVERY_TIME, why }.into());
    }
    let fault = scenario.inject(cluster)?;
    let recovered = client.wait_steady(clock::now(), STEADY_TIME, RECOVERY_TIME);
    let tally = client.stop();
    for host in cluster.names() {
        cluster.lab().heal(host)?;
    }
    cluster.wait_healthy(HEALTHY_TIME)?;
    let network = cluster.lab().network(CLIENT)?;
    let lost = read_back(&network, &plan, &tally.acks, true).map_err(io::Error::other)?;
    Ok(outcome(scenario, number, &tally, recovered.then_some(fault), lost.len()))
}

/// `fault`: when it began; none if it was not survived.
fn outcome(scenario: Scenario, run: u32, tally: &Tally, fault: Option<Instant>, lost: usize) -> Run {
    Run {
        scenario,
        run,
        outage_ms: fault.and_then(|fault| tally.outage(fault)).map(millis),
        errors: tally.errors,
        connect_errors: tally.connect_errors,
        stall_ms: fault.and_then(|fault| tally.max_stall(fault)).map(millis),
        acked: tally.acks.len(),
        lost,
        failures: tally.kinds.clone(),
    }
}

struct Printer<W> {
    json: bool,
    out: W,
}

impl<W: Write> Printer<W> {
    fn header(&mut self) -> io::Result<()> {
        if !self.json {
            writeln!(self.out, "scenario     run    outage ms  stall ms  errors  acked   lost")?;
        }
        self.out.flush()
    }

    fn run(&mut self, run: &Run) -> io::Result<()> {
        if self.json {
            return self.line(run);
        }
        let number = |number: Option<f64>| number.map_or_else(|| "never".to_owned(), |number| format!("{number:.1}"));
        let (outage, stall) = (number(run.outage_ms), number(run.stall_ms));
        let Run { scenario, run, errors, acked, lost, .. } = run;
        writeln!(self.out, "{scenario:<11} {run:>4}  {outage:>11}  {stall:>8}  {errors:>6}  {acked:<6}  {lost}")?;
        self.out.flush()
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        if self.json {
            return self.line(summary);
        }
        let Summary { runs, recovered, errors, acked, lost, .. } = summary;
        write!(self.out, "\n{recovered} of {runs} survived")?;
        if let Some(Spread { min, median, max }) = summary.outage_ms {
            write!(self.out, "; outage min {min:.1}, median {median:.1}, max {max:.1} ms")?;
        }
        writeln!(self.out, "; {errors} errors; {acked} writes acknowledged, {lost} of them lost")?;
        self.out.flush()
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(run: u32, outage_ms: Option<f64>, lost: usize) -> Run {
        let (scenario, failures) = (Scenario::Crash, BTreeMap::new());
        Run { scenario, run, outage_ms, errors: 2, connect_errors: 0, stall_ms: None, acked: 10, lost, failures }
    }

    #[test]
    fn the_summary_tells_recovered_and_lost_runs() {
        let summary = Summary::new(Scenario::Crash, &[run(1, Some(40.0), 0), run(2, Some(20.0), 0)]);
        assert_eq!(summary.outage_ms, Some(Spread { min: 20.0, median: 30.0, max: 40.0 }));
        assert!(summary.passed(2) && !summary.passed(3), "a run that did not happen has not passed");
        let never = Summary::new(Scenario::Crash, &[run(1, None, 0), run(2, Some(20.0), 0)]);
        assert!(!never.passed(2));
        let lossy = Summary::new(Scenario::Crash, &[run(1, Some(20.0), 1)]);
        assert!(!lossy.passed(1));
        assert!(Summary { scenario: Scenario::HostLoss, ..lossy }.passed(1));
        assert_eq!(Summary::new(Scenario::Planned, &[]).outage_ms, None);
    }

    #[test]
    fn json_has_one_object_a_line() {
        let mut printer = Printer { json: true, out: Vec::new() };
        printer.header().unwrap();
        printer.run(&run(1, Some(43.2), 0)).unwrap();
        printer.summary(&Summary::new(Scenario::Crash, &[run(1, Some(43.2), 0)])).unwrap();
        let lines = String::from_utf8(printer.out).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["outage_ms"], &lines[0]["lost"]), (2, &43.2.into(), &0.into()));
        assert_eq!((&lines[1]["outage_ms"]["max"], &lines[1]["scenario"]), (&43.2.into(), &"crash".into()));
    }

    #[test]
    fn names_are_those_that_are_typed() {
        use clap::ValueEnum;
        let names = Scenario::value_variants().iter().map(Scenario::to_string).collect::<Vec<_>>();
        assert_eq!(names.join("|"), Scenario::NAMES);
        for name in names {
            assert_eq!(Scenario::from_str(&name, false).map(|scenario| scenario.to_string()), Ok(name));
        }
    }
}
