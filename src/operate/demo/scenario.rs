//! One fault under a client that writes, once or again and again, and the numbers of that client.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::DemoError;
use crate::base::Instant;
use crate::config::Fencing;
use crate::operate::lab::client::{Client, Plan, Tally, read_back};
use crate::operate::lab::cluster::{CLIENT, Cluster, ClusterError, Layout};
use crate::operate::lab::sandbox::Sandbox;
use crate::runtime::clock;
use crate::runtime::exit::Exit;
use crate::runtime::status::Status;

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
    /// Whether writes that were acknowledged and not yet replicated may be lost: the master's host takes them with it.
    const fn may_lose(self) -> bool {
        match self {
            Self::HostLoss => true,
            Self::Crash | Self::VipLoss | Self::ProxyCrash | Self::Planned => false,
        }
    }

    /// The node that the fault hits, or that is asked for it.
    fn target(self, cluster: &Cluster) -> Result<String, ClusterError> {
        let unknown = |what| move || ClusterError::NoProcess { node: "any node".to_owned(), what };
        match self {
            Self::Crash | Self::HostLoss => {
                let any = cluster.names().next().unwrap_or_default();
                let master = cluster.status(any)?.master.and_then(|master| master.node);
                master.ok_or_else(unknown("the master"))
            }
            Self::VipLoss | Self::ProxyCrash => {
                let holder = cluster.vip_holders()?.first().map(|name| (*name).to_owned());
                holder.ok_or_else(unknown("the holder of the VIP"))
            }
            Self::Planned => cluster.sentinels().next().map(str::to_owned).ok_or_else(unknown("a sentinel")),
        }
    }

    /// What is done to the node, for a person.
    fn deed(self, node: &str) -> String {
        match self {
            Self::Crash => format!("kill -9 of the redis-server of {node}, the master"),
            Self::HostLoss => format!("pull the cable of {node}, the master's host"),
            Self::VipLoss => format!("pull the cable of {node}, where the virtual IP is"),
            Self::ProxyCrash => format!("kill -9 of vigie on {node}, where the virtual IP is"),
            Self::Planned => format!("planned switchover, asked of {node}"),
        }
    }

    /// Injects the fault. Returns when it began.
    fn inject(self, cluster: &Cluster, node: &str) -> Result<Instant, ClusterError> {
        let began = clock::now();
        match self {
            Self::Crash => cluster.kill_redis(node),
            Self::HostLoss | Self::VipLoss => Ok(cluster.lab().cut(node)?),
            Self::ProxyCrash => cluster.kill_worker(node),
            Self::Planned => cluster.failover(node, None).map(drop),
        }?;
        Ok(began)
    }
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
pub(super) struct Run {
    pub(super) scenario: Scenario,
    pub(super) run: u32,
    /// Longest time between two acknowledged writes, of whatever connections, that ends after the fault, milliseconds;
    /// none: writes did not flow again.
    pub(super) outage_ms: Option<f64>,
    /// Writes sent that ended in an error, a close or a time-out.
    pub(super) errors: u64,
    /// Connections that could not be made.
    pub(super) connect_errors: u64,
    /// Longest time that one connection waited between two of its acknowledgements, milliseconds.
    pub(super) stall_ms: Option<f64>,
    /// Acknowledged writes.
    pub(super) acked: usize,
    /// Those of them that are missing or wrong afterwards.
    pub(super) lost: usize,
    /// How often the client saw which failure.
    pub(super) failures: BTreeMap<String, u64>,
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
pub(super) struct Summary {
    scenario: Scenario,
    runs: usize,
    recovered: usize,
    outage_ms: Option<Spread>,
    errors: u64,
    acked: usize,
    lost: usize,
}

impl Summary {
    pub(super) fn new(scenario: Scenario, runs: &[Run]) -> Self {
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
    pub(super) fn passed(&self, wanted: u32) -> bool {
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

/// Which fault, how often, and how it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    /// The fault.
    pub(super) scenario: Scenario,
    /// How often.
    pub(super) runs: u32,
    /// As JSON instead of a table.
    pub(super) json: bool,
    /// Connections that write.
    pub(super) clients: u16,
    /// With or without leases; none: as by default.
    pub(super) fencing: Option<Fencing>,
}

/// Brings the cluster up, injects the fault as often as wanted, prints the numbers. Returns the exit code.
pub(super) fn run(series: &Series, sandbox: &Sandbox, binary: &Path) -> Result<u8, DemoError> {
    let Series { scenario, runs, json, clients, fencing } = *series;
    let layout = Layout::classic();
    let layout = match fencing {
        Some(fencing) => layout.with_fencing(fencing),
        None => layout,
    };
    let cluster = Cluster::start(sandbox, layout, binary)?;
    let mut out = Printer { json, out: io::stdout().lock() };
    out.header()?;
    let mut done = Vec::new();
    let mut broken = None;
    for number in 1..=runs {
        match once(&cluster, scenario, number, clients, &mut |_| Ok(())) {
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
        None => Ok(Exit::answer(summary.passed(runs)).code()),
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// All nodes are well and agree: before the fault, and after it.
    Whole(&'a Status),
    /// The client writes steadily, by this plan.
    Writing(&'a Plan),
    /// The fault that is injected now.
    Fault(&'a str),
    /// Writes flow again, after an outage of this length.
    Flowing(Duration),
    /// They do not, within this time.
    Stuck(Duration),
}

/// One run on a cluster that is up; `told` hears of every step of it, and ends it by an error.
pub(super) fn once(
    cluster: &Cluster,
    scenario: Scenario,
    number: u32,
    clients: u16,
    told: &mut dyn FnMut(Step<'_>) -> io::Result<()>,
) -> Result<Run, DemoError> {
    told(Step::Whole(&cluster.wait_healthy(HEALTHY_TIME)?))?;
    let plan = Plan { connections: clients, ..cluster.plan(format!("{scenario}-{number}")) };
    let started = clock::now();
    let client = Client::start(cluster.lab(), CLIENT, plan.clone())?;
    if !client.wait_steady(started, STEADY_TIME, RECOVERY_TIME) {
        let why = format!("the client cannot write steadily: {:?}", client.tally().kinds);
        return Err(ClusterError::Unhealthy { limit: RECOVERY_TIME, why }.into());
    }
    told(Step::Writing(&plan))?;
    let target = scenario.target(cluster)?;
    told(Step::Fault(&scenario.deed(&target)))?;
    let fault = scenario.inject(cluster, &target)?;
    let recovered = client.wait_steady(clock::now(), STEADY_TIME, RECOVERY_TIME);
    let tally = client.stop();
    let outage = tally.outage(fault).filter(|_| recovered);
    told(outage.map_or(Step::Stuck(RECOVERY_TIME), Step::Flowing))?;
    for host in cluster.names() {
        cluster.lab().heal(host)?;
    }
    told(Step::Whole(&cluster.wait_healthy(HEALTHY_TIME)?))?;
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
        assert_eq!(names, ["crash", "hostloss", "viploss", "proxycrash", "planned"]);
        for name in names {
            assert_eq!(Scenario::from_str(&name, false).map(|scenario| scenario.to_string()), Ok(name));
        }
    }
}
