//! The same splits of the stack that vigie replaces: redis-server, redis-sentinel, HAProxy and keepalived on the same hosts, with
//! the same writers, judged by the same ledger. What it loses is measured and not asserted, only that it was measured.
//!
//! It is set up as in the article of the classic setup, or as strictly as it can be: then a master without replicas refuses
//! writes. There is no lease in either case: what is called late is late by the lease of [the other table](super::split).

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use vigie::base::Instant;
use vigie::operate::lab::cluster::Layout;
use vigie::operate::lab::hosts::Lab;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::wire::resp::Reply;

use super::super::whole::{DATA, PROXIES, Site, text, wait_ok};
use super::super::{Case, Outcome, note, program_path};
use super::split::{island, served};
use super::{FLOW_TIME, Load, RATE, Run, Table, guests, let_pass, repeat, runs};

const NEEDS: &[&str] = &["redis-server", "haproxy", "keepalived"];

pub(crate) const CASES: &[Case] = &[
    Case { name: "split_of_the_stock_stack", needs: NEEDS, run: |sandbox| splits(sandbox, &ARTICLE, runs(3)) },
    Case {
        name: "split_of_the_strictest_stock_stack",
        needs: NEEDS,
        run: |sandbox| splits(sandbox, &STRICTEST, runs(3)),
    },
];

const SENTINEL: u16 = 26379;
/// A sentinel begins no second failover of a master before twice this has passed.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// What it adds to the beginning by chance, at most.
const DESYNC: Duration = Duration::from_secs(1);
/// A failover and a second try at it, once the master is found down.
const FAILOVER: Duration = Duration::from_secs(6);

/// How the stack is set up.
pub(crate) struct Setup {
    name: &'static str,
    /// Of a sentinel.
    down_after: Duration,
    /// Between two adverts of keepalived.
    advert: Duration,
    /// Further lines of redis.conf.
    redis: &'static str,
    /// Further words for each server of HAProxy.
    server: &'static str,
}

pub(crate) const ARTICLE: Setup = Setup {
    name: "split of the stock stack",
    down_after: Duration::from_secs(5),
    advert: Duration::from_secs(5),
    redis: "",
    server: "",
};

/// Lags are counted in whole seconds, and 0 means any. With two replicas asked for, the larger side could not write either.
const STRICTEST: Setup = Setup {
    name: "split of the strictest stock stack",
    down_after: Duration::from_secs(1),
    advert: Duration::from_secs(1),
    redis: "min-replicas-to-write 1\nmin-replicas-max-lag 1\n",
    server: " on-marked-down shutdown-sessions",
};

/// The stack at work. Its processes end with the sandbox, as everything in it does.
pub(crate) struct Stock {
    setup: &'static Setup,
    layout: Layout,
    lab: Lab,
    /// By what they are and where.
    children: Vec<(String, Child)>,
    /// When the sides of the last split have joined.
    joined: Option<Instant>,
    runs: u32,
}

/// What an old master has acknowledged since its split began.
#[derive(Clone, Copy, Default)]
struct Share {
    acked: usize,
    /// Of it, what came when the sides were one network again.
    joined: usize,
    lost: usize,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, joined, lost } = self;
        let permille = 1_000 * lost / (*acked).max(1);
        write!(
            f,
            "acknowledged by the old master since the split: {acked}, of that after the sides have joined {joined}; lost {lost} \
             ({}.{} %)",
            permille / 10,
            permille % 10
        )
    }
}

fn splits(sandbox: &Sandbox, setup: &'static Setup, runs: usize) -> Outcome {
    let mut stock = Stock::start(sandbox, setup)?;
    let mut table = Table::new(setup.name);
    let mut sum = Share::default();
    let outcome = repeat(runs, |number| stock.once(number - 1, &mut table, &mut sum));
    table.sum();
    let (span, down_after) = (setup.span(), setup.down_after);
    note(format!("  {sum}"));
    note(format!("  each split lasted {span:?}, with a down-after of {down_after:?}; {}", versions()?));
    outcome
}

/// Of what is measured.
fn versions() -> Result<String, String> {
    let first_line = |(program, option)| {
        let output = Command::new(found(program)?).arg(option).output().map_err(text)?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
    };
    let programs = [("redis-server", "--version"), ("haproxy", "-v"), ("keepalived", "--version")];
    programs.into_iter().map(first_line).collect::<Result<Vec<_>, String>>().map(|lines| lines.join("; "))
}

fn found(program: &str) -> Result<PathBuf, String> {
    program_path(program).ok_or_else(|| format!("{program} was there a moment ago"))
}

impl Setup {
    /// Both sides go on for so long: the takeover has to be a part of it.
    const fn span(&self) -> Duration {
        self.down_after.saturating_add(FAILOVER)
    }
}

impl Stock {
    pub(crate) fn start(sandbox: &Sandbox, setup: &'static Setup) -> Result<Self, String> {
        let layout = Layout { guests: guests(), ..Layout::classic() };
        let lab = Lab::new(&sandbox.scratch, &layout.hosts()).map_err(text)?;
        let mut stock = Self { setup, layout, lab, children: Vec::new(), joined: None, runs: 0 };
        for node in DATA {
            stock.start_redis(node)?;
        }
        for (node, priority) in PROXIES.into_iter().zip([101, 100]) {
            stock.start_haproxy(node)?;
            stock.start_keepalived(node, priority)?;
        }
        for node in DATA {
            stock.start_sentinel(node)?;
        }
        Ok(stock)
    }

    const fn site(&self) -> Site<'_> {
        Site { lab: &self.lab, layout: &self.layout }
    }

    fn start_redis(&mut self, node: &'static str) -> Outcome {
        let (site, password) = (self.site(), self.layout.password.reveal());
        let (own, first) = (site.address(node), site.address(DATA[0]));
        let of = if own == first { String::new() } else { format!("slaveof {} {}\n", first.ip(), first.port()) };
        let conf = format!(
            "bind {}\nport {}\nrequirepass {password}\nmasterauth {password}\n{of}{}",
            own.ip(),
            own.port(),
            self.setup.redis
        );
        let conf = self.write(node, "redis.conf", &conf)?;
        self.spawn(node, "redis-server", &[&conf])
    }

    fn start_sentinel(&mut self, node: &'static str) -> Outcome {
        let (site, password) = (self.site(), self.layout.password.reveal());
        let (own, first) = (site.address(node), site.address(DATA[0]));
        let conf = format!(
            "bind {}\nport {SENTINEL}\nrequirepass {password}\nsentinel sentinel-pass {password}\n\
             sentinel monitor mymaster {} {} 2\nsentinel auth-pass mymaster {password}\n\
             sentinel down-after-milliseconds mymaster {}\nsentinel failover-timeout mymaster {}\n",
            own.ip(),
            first.ip(),
            first.port(),
            self.setup.down_after.as_millis(),
            FAILOVER_TIMEOUT.as_millis()
        );
        let conf = self.write(node, "sentinel.conf", &conf)?;
        // The same program by either name.
        self.spawn(node, "redis-server", &[&conf, "--sentinel"])
    }

    fn start_haproxy(&mut self, node: &'static str) -> Outcome {
        // It listens on the address also where keepalived has not brought it.
        let allowed = self.lab.exec(node, || fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1"));
        allowed.map_err(text)?.map_err(|error| format!("ip_nonlocal_bind on {node}: {error}"))?;
        let (site, password) = (self.site(), self.layout.password.reveal());
        let server = |node| format!("server {node} {} check inter 1s{}\n", site.address(node), self.setup.server);
        let conf = format!(
            "defaults\nmode tcp\ntimeout connect 4s\ntimeout client 30s\ntimeout server 30s\n\
             listen redis\nbind {}\noption tcp-check\n\
             tcp-check send \"AUTH {password}\\r\\n\"\ntcp-check expect string +OK\n\
             tcp-check send PING\\r\\n\ntcp-check expect string +PONG\n\
             tcp-check send \"info replication\\r\\n\"\ntcp-check expect string role:master\n\
             tcp-check send QUIT\\r\\n\ntcp-check expect string +OK\n{}",
            site.vip(),
            DATA.map(server).concat()
        );
        let conf = self.write(node, "haproxy.cfg", &conf)?;
        self.spawn(node, "haproxy", &["-db", "-f", &conf])
    }

    fn start_keepalived(&mut self, node: &'static str, priority: u8) -> Outcome {
        // Nothing watches HAProxy: it never fails here.
        let conf = format!(
            "vrrp_instance redis {{\ninterface eth0\nnopreempt\nvirtual_router_id 51\npriority {priority}\nadvert_int {}\n\
             virtual_ipaddress {{\n{}/{} dev eth0\n}}\n}}\n",
            self.setup.advert.as_secs(),
            self.layout.vip,
            self.layout.prefix
        );
        let conf = self.write(node, "keepalived.conf", &conf)?;
        let [pid, vrrp] = ["pid", "vrrp"].map(|name| format!("{conf}.{name}"));
        self.spawn(node, "keepalived", &["-n", "-l", "-P", "-f", &conf, "-p", &pid, "-r", &vrrp])
    }

    /// Writes a file of a node, and returns where.
    fn write(&self, node: &str, name: &str, content: &str) -> Result<String, String> {
        let directory = self.lab.scratch().join(node);
        fs::create_dir_all(&directory).map_err(text)?;
        let path = directory.join(name);
        fs::write(&path, content).map_err(text)?;
        Ok(path.display().to_string())
    }

    /// Starts a program where it keeps its files: by that directory writers know whose redis it is.
    fn spawn(&mut self, node: &'static str, program: &str, words: &[&str]) -> Outcome {
        let mut command = Command::new(found(program)?);
        command.args(words).current_dir(self.lab.scratch().join(node));
        let child = self.lab.spawn(node, &mut command, node).map_err(text)?;
        self.children.push((format!("{program} on {node}"), child));
        Ok(())
    }

    /// Does something with its hosts once it works.
    pub(crate) fn when_well(mut self, act: impl FnOnce(&Lab) -> Outcome) -> Outcome {
        self.well()?;
        act(&self.lab)
    }

    /// Waits until there is one master with two replicas in sync, which all sentinels know, and one holder of the virtual IP.
    /// Returns both.
    fn well(&mut self) -> Result<(&'static str, &'static str), String> {
        let found = wait_ok("the stack is not well", std::time::Instant::now(), FLOW_TIME, || self.whole());
        found.map(|(_, found)| found).map_err(|why| self.site().told(why))
    }

    fn whole(&mut self) -> Result<(&'static str, &'static str), String> {
        for (what, child) in &mut self.children {
            if let Some(status) = child.try_wait().map_err(text)? {
                return Err(format!("{what} ended: {status}"));
            }
        }
        let site = self.site();
        let master = site.only_master(&DATA)?;
        let known = format!("status=ok,address={},slaves=2,sentinels=3", site.address(master));
        for node in DATA {
            let mut sentinel = site.address(node);
            sentinel.set_port(SENTINEL);
            let said = site.ask(node, sentinel, &[vec!["INFO", "sentinel"]])?;
            if !said.first().and_then(Reply::text).is_some_and(|said| said.contains(&known)) {
                return Err(format!("the sentinel of {node} says {said:?}"));
            }
        }
        let mut holders = Vec::new();
        for node in PROXIES {
            let addresses = self.lab.addresses(node).map_err(text)?;
            holders.extend(addresses.iter().any(|(address, _)| *address == self.layout.vip).then_some(node));
        }
        let [owner] = holders[..] else { return Err(format!("the virtual IP is on {holders:?}")) };
        Ok((master, owner))
    }

    fn once(&mut self, number: usize, table: &mut Table, sum: &mut Share) -> Outcome {
        if let Some(joined) = self.joined {
            let_pass(2 * FAILOVER_TIMEOUT + DESYNC, joined);
        }
        let (master, owner) = self.well()?;
        let proxy = island(&self.lab, master, owner, number)?;
        self.runs += 1;
        let load = Load::start(self.site(), master, self.runs).map_err(|why| self.site().told(why))?;
        let (still, _) = self.well()?;
        if still != master {
            return Err(self.site().told(format!("{still} is master instead of {master}, of itself")));
        }
        let parted = clock::now();
        self.lab.part().map_err(text)?;
        let_pass(self.setup.span(), parted);
        let rejoined = clock::now();
        self.lab.rejoin().map_err(text)?;
        self.joined = Some(rejoined);
        let (now, _) = self.well()?;
        let run = load.end(self.site(), now, parted, Some((parted, rejoined))).map_err(|why| self.site().told(why))?;
        let share = share(&run, master, rejoined);
        *sum = Share { acked: sum.acked + share.acked, joined: sum.joined + share.joined, lost: sum.lost + share.lost };
        let (served, measured) = (served(&run, rejoined), self.measured(&run, share));
        // A row that measures nothing is the one to be seen.
        table.row(&format!("{master} with {proxy}"), run);
        println!("      {served}\n      {share}");
        measured.map_err(|why| self.site().told(why))
    }

    /// Whether both sides had writers at work, as many as elsewhere, and the other side a master in time.
    fn measured(&self, run: &Run, share: Share) -> Outcome {
        let verdict = &run.verdict;
        let offered = usize::try_from(RATE).map_err(text)?;
        if verdict.takeover.is_none_or(|takeover| takeover > self.setup.span()) {
            return Err(format!("nobody took over while the network was parted: {verdict}"));
        }
        // One writer at the master and two through the virtual IP; half of it is what a busy machine leaves.
        if share.acked == 0 || verdict.offered < 3 * offered / 2 {
            return Err(format!("{} writes a second before the split, {share}: too few", verdict.offered));
        }
        Ok(())
    }
}

fn share(run: &Run, old: &str, rejoined: Instant) -> Share {
    let verdict = &run.verdict;
    let late = |at: Instant| at >= rejoined;
    let joined = run.seen.writes.iter().filter(|write| write.node == old && write.acked_at.is_some_and(late)).count();
    Share {
        acked: verdict.shares.get(old).map_or(0, |share| share.acked),
        joined,
        lost: verdict.lost - verdict.lost_before - verdict.lost_of_others,
    }
}
