//! How near the fence comes to a master that is well, on a machine and a network that are not: every processor busy at normal
//! priority, data that are saved and rewritten all the time, frames lost and late, disks of sentinels full of fsync. The shorter
//! the lease, the nearer.
//!
//! `MINUTES` (3), `LEASE` in ms (250; `down_after` is twice that), `MIB` of data (1024), `LOST` of a thousand frames (10),
//! `JITTER` in ms (20).

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::Duration;

use nix::mount::MsFlags;
use vigie::base::Instant;
use vigie::config::Fencing;
use vigie::cores::redis::fence::{Doors, Term};
use vigie::operate::lab::client::longest_gap;
use vigie::operate::lab::cluster::{Cluster, Layout, Part};
use vigie::operate::lab::hosts::{HostSpec, Lab};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::runtime::fence::Window;
use vigie::runtime::realtime::{self, Rank};
use vigie::wire::resp::Reply;

use super::super::rough::{Rough, Weather};
use super::super::whole::{DATA, START_TIME, World, ask, text, wait_ok};
use super::super::writers::{Spec, Writers};
use super::super::{Case, Outcome, note};
use super::{FLOW_TIME, NEAR, NEEDS, PATIENT};

pub(crate) const CASES: &[Case] = &[Case { name: "slack", needs: NEEDS, run: slack }];

/// Less than that is too near.
const LEAST: Duration = Duration::from_millis(25);
/// Of a bar of the histogram.
const BAR: Duration = Duration::from_millis(25);
/// Between two looks at the lease: a renewal is seen so late at most, and looks nearer to the fence by that.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A value.
const VALUE: usize = 4 << 10;
/// Values of one command.
const VALUES: usize = 256;
/// Written through the virtual IP, per second.
const RATE: u32 = 200;
/// What is written to the disk of a sentinel before each fsync, and the size of the file.
const STORM: usize = 256 << 10;
const STORM_FILE: u64 = 64 << 20;
/// A redis that forks, or whose disk is busy, answers within this time, and has saved within that one.
const ANSWER_TIME: Duration = Duration::from_secs(20);
const SAVE_TIME: Duration = Duration::from_secs(300);
const LOAD_TIME: Duration = Duration::from_secs(180);
const LEAVE_TIME: Duration = Duration::from_secs(20);

/// What is asked for.
struct Terms {
    span: Duration,
    lease: Duration,
    mebibytes: usize,
    weather: Weather,
}

impl Terms {
    fn asked() -> Result<Self, String> {
        let asked = |name: &str, default: u64| match std::env::var(name) {
            Ok(given) => given.parse().map_err(|_| format!("{name} is {given:?}; a whole number is expected")),
            Err(_) => Ok(default),
        };
        Ok(Self {
            span: Duration::from_secs(60 * asked("MINUTES", 3)?),
            lease: Duration::from_millis(asked("LEASE", 250)?),
            mebibytes: usize::try_from(asked("MIB", 1024)?).map_err(text)?,
            weather: Weather {
                lost_per_mille: u32::try_from(asked("LOST", 10)?).map_err(text)?,
                jitter: Duration::from_millis(asked("JITTER", 20)?),
            },
        })
    }

    fn layout(&self) -> Layout {
        let mut layout = Layout::classic().with_fencing(Fencing::Lease);
        let (lease, down_after) = (self.lease.as_millis(), (self.lease * 2).as_millis());
        layout.settings.push_str(&format!("lease = \"{lease}ms\"\ndown_after = \"{down_after}ms\"\n"));
        let address = IpAddr::from([192, 168, 0, 101]);
        layout.guests = vec![HostSpec { name: NEAR.to_owned(), address, prefix: layout.prefix }];
        layout
    }
}

/// What came of it.
#[derive(Default)]
struct Found {
    /// What was left before the fence, at each renewal of a lease by which a redis took writes, and when.
    left: Vec<(Instant, Duration)>,
    /// How often redis has been closed.
    closed: usize,
    /// The longest time between two looks.
    blind: Duration,
}

/// Processes that do nothing but take time of a processor, as applications do.
struct Spinners(Vec<Child>);

impl Spinners {
    fn start(lab: &Lab) -> Result<Self, String> {
        let mut all = Self(Vec::new());
        for _ in 0..std::thread::available_parallelism().map_err(text)?.get() {
            let mut command = Command::new("sh");
            all.0.push(lab.spawn(NEAR, command.args(["-c", "while :; do :; done"]), "spinner").map_err(text)?);
        }
        Ok(all)
    }

    fn alive(&mut self) -> Result<usize, String> {
        for spinner in &mut self.0 {
            if let Some(status) = spinner.try_wait().map_err(text)? {
                return Err(format!("what keeps a processor busy has ended: {status}"));
            }
        }
        Ok(self.0.len())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            // One that has ended is what is wanted.
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}

fn slack(sandbox: &Sandbox) -> Outcome {
    let terms = Terms::asked()?;
    // What belongs to nodes would else lie in memory, where fsync costs nothing.
    let disk = tempfile::Builder::new().prefix("lab-slack-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(text)?;
    for node in DATA {
        let (source, target) = (disk.path().join(node), sandbox.scratch.join(node));
        for directory in [&source, &target] {
            fs::create_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        let none: Option<&str> = None;
        nix::mount::mount(Some(&source), &target, none, MsFlags::MS_BIND, none).map_err(text)?;
    }
    let world = World::of(sandbox, terms.layout())?;
    let outcome = measured(&world, &terms);
    // Nobody writes any more into what is removed.
    let cluster = &world.cluster;
    cluster.kill_vigies(cluster.names()).map_err(text)?;
    cluster.names().try_for_each(|node| cluster.wait_ended(node, LEAVE_TIME).map(drop)).map_err(text)?;
    outcome
}

fn measured(world: &World, terms: &Terms) -> Outcome {
    let cluster = &world.cluster;
    let (_, master) = world.wait_whole(std::time::Instant::now(), START_TIME)?;
    fill(world, master, terms.mebibytes)?;
    world.wait_whole(std::time::Instant::now(), LOAD_TIME).map_err(|why| world.told(why))?;
    world.wait_healthy()?;
    let windows = DATA.map(|node| Window::of(cluster.pid(node, Part::Worker).map_err(text)?).map_err(text));
    let windows = windows.into_iter().collect::<Result<Vec<_>, String>>()?;
    let nodes: Vec<_> = cluster.names().collect();
    let rough = Rough::start(cluster.lab(), &nodes, terms.weather)?;
    let spec =
        Spec { name: NEAR.to_owned(), host: NEAR.to_owned(), target: world.vip(), rate: RATE, patience: PATIENT };
    let writers = Writers::start(cluster.lab(), &cluster.layout().password, "run", vec![spec])?;
    writers.wait_steady(&[NEAR], FLOW_TIME).map_err(|why| world.told(why))?;
    // The nodes were cut off for as long as their cables were changed.
    world.wait_whole(std::time::Instant::now(), FLOW_TIME).map_err(|why| world.told(why))?;
    world.wait_healthy()?;
    let (epoch_before, before) = (epoch(world)?, Told::read(world));
    let mut spinners = Spinners::start(cluster.lab())?;
    let (stop, since) = (AtomicBool::new(false), clock::now());
    let (found, saves, storms) = scope(|scope| {
        let looking = scope.spawn(|| look(&windows, &stop));
        let stop = &stop;
        let saving = DATA.map(|node| {
            let address = world.address(node);
            scope.spawn(move || saved(cluster, node, address, stop))
        });
        let storming = DATA.map(|node| scope.spawn(move || storm(cluster, node, stop)));
        while clock::now().since(since) < terms.span && !looking.is_finished() {
            sleep(BAR.min(terms.span));
        }
        stop.store(true, Ordering::Relaxed);
        let saves = saving.into_iter().map(joined).collect::<Result<Vec<_>, _>>();
        let storms = storming.into_iter().map(joined).collect::<Result<Vec<_>, _>>();
        (joined(looking), saves, storms)
    });
    let busy = spinners.alive()?;
    drop(spinners);
    let seen = writers.stop();
    let (found, storms) = (found?, storms?);
    let told = Told::read(world).since(&before);
    let failovers = epoch(world)?.saturating_sub(epoch_before);
    // From now on all nodes are cut off.
    let carried = rough.stop()?;
    let acked = seen.acked(&[NEAR]);
    let gap = longest_gap(acked.iter().copied(), since).unwrap_or_default();
    let least = found.left.iter().map(|(_, left)| *left).min().unwrap_or_default();
    note(format!(
        "lease {} ms, down_after {} ms, {} min, {busy} processors busy, {} MiB: smallest slack {:.1} ms, fences {}, killed {}, \
         failovers {failovers}, suspected by one sentinel {}; through the VIP {} acknowledged, longest gap {} ms",
        terms.lease.as_millis(),
        (terms.lease * 2).as_millis(),
        terms.span.as_secs() / 60,
        terms.mebibytes,
        millis(least),
        told.fenced,
        told.killed,
        told.suspected,
        acked.len(),
        gap.as_millis()
    ));
    note(format!(
        "  frames of the nodes {}, lost {}, the others late by up to {} ms; saves and rewrites {saves:?}; fsyncs {}, the longest {} ms",
        carried.sent,
        carried.lost,
        terms.weather.jitter.as_millis(),
        storms.iter().map(|(times, _)| times).sum::<usize>(),
        storms.iter().map(|(_, longest)| longest.as_millis()).max().unwrap_or_default(),
    ));
    for line in histogram(&found, since) {
        note(line);
    }
    if !seen.failures[NEAR].is_empty() {
        note(format!("  through the VIP, refused or cut: {}", super::listed(&seen.failures[NEAR])));
    }
    // Where little was seen, nothing is proved.
    let saves = saves?;
    let expected = terms.span.as_millis() / 200;
    if found.left.len() < usize::try_from(expected).map_err(text)? || carried.lost == 0 || saves.contains(&0) {
        return Err(format!("{} renewals were seen, {expected} at least are expected", found.left.len()));
    }
    if (told.fenced, told.killed, found.closed, failovers) != (0, 0, 0, 0) || least < LEAST {
        let (fenced, killed, closed) = (told.fenced, told.killed, found.closed);
        let sum = format!("fences {fenced} ({closed} seen), killed {killed}, failovers {failovers}, slack {least:?}");
        return Err(world.told(sum));
    }
    Ok(())
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of the latest decision that any sentinel knows of.
fn epoch(world: &World) -> Result<u64, String> {
    let epochs = DATA.map(|node| world.epoch(node)).into_iter().collect::<Result<Vec<_>, _>>()?;
    epochs.into_iter().flatten().max().ok_or_else(|| "there is no master".to_owned())
}

/// What the nodes have said of their fences.
struct Told {
    fenced: usize,
    killed: usize,
    suspected: usize,
}

impl Told {
    fn since(&self, before: &Self) -> Self {
        Self {
            fenced: self.fenced - before.fenced,
            killed: self.killed - before.killed,
            suspected: self.suspected - before.suspected,
        }
    }

    fn read(world: &World) -> Self {
        let scratch = world.cluster.lab().scratch();
        let logs = DATA.map(|node| fs::read_to_string(scratch.join(format!("{node}.log"))).unwrap_or_default());
        let suspects = |line: &&str| line.contains(" master mymaster ") && line.contains("name=\"+sdown\"");
        let count = |words: &str| logs.iter().map(|log| log.matches(words).count()).sum();
        Self {
            fenced: count("its lease was not renewed by a majority"),
            killed: count("is killed before its lease ends"),
            suspected: logs.iter().flat_map(|log| log.lines()).filter(suspects).count(),
        }
    }
}

/// Has the master hold so many MiB, which do not become smaller on a disk, and the replicas with it.
fn fill(world: &World, mut master: &'static str, mebibytes: usize) -> Outcome {
    // Different everywhere, and without a pattern that a short window could see.
    let mut rng = vigie::base::Rng::new(7);
    let mut noise = String::with_capacity(2 << 20);
    while noise.len() < 2 << 20 {
        noise.extend((0..5).scan(rng.next_u32(), |bits, _| {
            let letter = char::from(b'0' + u8::try_from(*bits % 64).unwrap_or_default());
            *bits >>= 6;
            Some(letter)
        }));
    }
    for batch in 0..mebibytes * (1 << 20) / (VALUE * VALUES) {
        let keys: Vec<_> = (0..VALUES).map(|value| format!("ballast:{batch}:{value}")).collect();
        let mut command = vec!["MSET"];
        for (value, key) in keys.iter().enumerate() {
            let from = (value * VALUE + batch * 977) % (noise.len() - VALUE);
            command.extend([key.as_str(), &noise[from..from + VALUE]]);
        }
        // The disk may be so slow that another one becomes the master meanwhile.
        let written = || {
            let (cluster, address) = (&world.cluster, world.address(master));
            said(cluster, master, address, std::slice::from_ref(&command)).inspect_err(|_| {
                master = world.wait_whole(std::time::Instant::now(), LOAD_TIME).map_or(master, |(_, master)| master);
            })
        };
        wait_ok("not written", std::time::Instant::now(), LOAD_TIME, written).map_err(|why| world.told(why))?;
    }
    Ok(())
}

/// Asks a redis on its own host, which no frame has to leave for that.
fn said(cluster: &Cluster, node: &str, address: SocketAddr, commands: &[Vec<&str>]) -> Result<Vec<Reply>, String> {
    ask(cluster.lab(), node, address, Some(cluster.layout().password.reveal()), ANSWER_TIME, commands)
}

/// Saves and rewrites, one after the other and again, until it is stopped. How often.
fn saved(cluster: &Cluster, node: &str, address: SocketAddr, stop: &AtomicBool) -> Result<usize, String> {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let order = if times % 2 == 0 { "BGSAVE" } else { "BGREWRITEAOF" };
        // It may be at it already, of itself.
        let _ = said(cluster, node, address, &[vec![order]]);
        let done = || {
            let replies = said(cluster, node, address, &[vec!["INFO", "persistence"]])?;
            let info = replies.first().and_then(Reply::text).unwrap_or_default();
            let working = ["rdb_bgsave_in_progress:1", "aof_rewrite_in_progress:1", "aof_rewrite_scheduled:1"];
            match working.iter().find(|busy| info.contains(**busy)) {
                Some(busy) if !stop.load(Ordering::Relaxed) => Err((*busy).to_owned()),
                Some(_) | None => Ok(()),
            }
        };
        wait_ok("not saved", std::time::Instant::now(), SAVE_TIME, done).map_err(|why| format!("{node}: {why}"))?;
        times += 1;
    }
    Ok(times)
}

/// Has the disk of a sentinel make lasting what it was just given, and again, until it is stopped. How often, and the longest time.
fn storm(cluster: &Cluster, node: &str, stop: &AtomicBool) -> Result<(usize, Duration), String> {
    let path = cluster.state_dir(node).join("storm");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(text)?;
    let (block, mut at, mut times, mut longest) = (vec![0x5a; STORM], 0, 0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        file.write_all_at(&block, at).map_err(text)?;
        let began = clock::now();
        file.sync_all().map_err(text)?;
        longest = longest.max(clock::now().since(began));
        at = (at + STORM as u64) % STORM_FILE;
        times += 1;
    }
    fs::remove_file(&path).map_err(text)?;
    Ok((times, longest))
}

/// Looks at the leases of all nodes until it is stopped.
fn look(windows: &[Window], stop: &AtomicBool) -> Result<Found, String> {
    // Above the link that renews them, or it would see them late.
    realtime::raise(Rank::Election).map_err(text)?;
    let (mut found, mut last) = (Found::default(), clock::now());
    let mut known: Vec<(Option<Term>, bool)> = windows.iter().map(|window| (window.lease(), is_open(window))).collect();
    while !stop.load(Ordering::Relaxed) {
        sleep(LOOK_EVERY);
        for (window, (lease, was_open)) in windows.iter().zip(&mut known) {
            let (term, open) = (window.lease(), is_open(window));
            let now = clock::now();
            found.blind = found.blind.max(now.since(last));
            last = now;
            if let Some((before, after)) = lease.zip(term).filter(|(before, after)| before != after && *was_open)
                && (before.incarnation, before.epoch) == (after.incarnation, after.epoch)
            {
                found.left.push((now, before.fence_at.since(now)));
            }
            found.closed += usize::from(*was_open && !open);
            (*lease, *was_open) = (term, open);
        }
    }
    Ok(found)
}

fn is_open(window: &Window) -> bool {
    match window.doors() {
        Doors::Open(_) => true,
        Doors::Closed => false,
    }
}

/// How often how much was left, and the nearest ones.
fn histogram(found: &Found, since: Instant) -> Vec<String> {
    let bar = |left: Duration| left.as_micros() / BAR.as_micros();
    let mut bars: BTreeMap<u128, usize> = BTreeMap::new();
    for (_, left) in &found.left {
        *bars.entry(bar(*left)).or_default() += 1;
    }
    let all = found.left.len();
    let mut lines =
        vec![format!("  slack at {all} renewals (longest time between two looks {:.1} ms):", millis(found.blind))];
    for at in 0..=bars.keys().copied().max().unwrap_or_default() {
        let (from, times) = (at * BAR.as_millis(), bars.get(&at).copied().unwrap_or_default());
        lines.push(format!("  {from:>4} to {:>4} ms {times:>8}", from + BAR.as_millis()));
    }
    let mut nearest: Vec<_> = found.left.iter().map(|(at, left)| (*left, at.since(since))).collect();
    nearest.sort_unstable();
    let nearest =
        nearest.iter().take(5).map(|(left, at)| format!("{:.1} ms after {:.1} s", millis(*left), at.as_secs_f64()));
    lines.push(format!("  the nearest: {}", nearest.collect::<Vec<_>>().join(", ")));
    lines
}
