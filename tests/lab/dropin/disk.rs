//! The disk of a sentinel is full, or cannot be written: it promises nothing that it could forget, says so, and goes on by
//! itself once there is space. A file that is damaged at the start is refused, or harmless.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use vigie::config::sentinel::{Additions, Document, ThisHost};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::wire::resp::Reply;

use super::super::whole::{text, wait_ok};
use super::super::{Outcome, note};
use super::record::keeps_promises;
use super::world::{HOSTS, Kind, Plan, World};

/// Of the file system of one sentinel, bytes.
const DISK: usize = 256 << 10;
const WHOLE_TIME: Duration = Duration::from_secs(40);
const STABLE_TIME: Duration = Duration::from_secs(1);
/// Without a promotion for so long, there is none.
const NOTHING_TIME: Duration = Duration::from_secs(4);
const SAID_TIME: Duration = Duration::from_secs(10);

/// A file system of its own, in memory, of `size` bytes.
pub(super) fn mount(directory: &Path, size: usize) -> Outcome {
    let options = format!("size={size}");
    nix::mount::mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).map_err(text)
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// ENOSPC
    Full,
    /// EROFS
    ReadOnly,
}

impl Fault {
    fn set(self, world: &World, n: usize) -> Outcome {
        let directory = &world.hosts[n].directory;
        match self {
            Self::Full => {
                let mut filler = OpenOptions::new().create(true).append(true).open(filler(directory)).map_err(text)?;
                // Until not one page more goes in.
                while filler.write_all(&[0; 4096]).is_ok() {}
                Ok(())
            }
            Self::ReadOnly => remount(directory, MsFlags::MS_RDONLY),
        }
    }

    fn clear(self, world: &World, n: usize) -> Outcome {
        let directory = &world.hosts[n].directory;
        match self {
            Self::Full => fs::remove_file(filler(directory)).map_err(text),
            Self::ReadOnly => remount(directory, MsFlags::empty()),
        }
    }
}

fn filler(directory: &Path) -> std::path::PathBuf {
    directory.join("filler")
}

fn remount(directory: &Path, flags: MsFlags) -> Outcome {
    let none: Option<&str> = None;
    nix::mount::mount(none, directory, none, MsFlags::MS_REMOUNT | flags, none).map_err(text)
}

pub(super) fn full(sandbox: &Sandbox) -> Outcome {
    faults(sandbox, &[Fault::Full])
}

pub(super) fn full_and_read_only(sandbox: &Sandbox) -> Outcome {
    faults(sandbox, &[Fault::Full, Fault::ReadOnly])
}

fn faults(sandbox: &Sandbox, faults: &[Fault]) -> Outcome {
    let mut plan = Plan::of([Kind::Vigie; 3]);
    plan.disk = Some(DISK);
    let mut world = World::start(sandbox, &plan)?;
    let played = faults.iter().try_for_each(|fault| {
        let fault = *fault;
        let fails = |title: &str, why: String| format!("{fault:?}, {title}: {why}");
        one_cannot_store(&mut world, fault).map_err(|why| fails("one before a failover", why))?;
        nobody_can_store(&mut world, fault).map_err(|why| fails("all", why))?;
        leader_loses_its_disk(&mut world, fault).map_err(|why| fails("the leader during a failover", why))
    });
    if std::env::var_os("VIGIE_LAB_LOGS").is_some() {
        println!("\n{}", world.told());
    }
    played.map_err(|why| format!("{why}\n{}", world.told()))
}

/// One of three: it refuses its vote with an error and says why, and the other two fail over.
fn one_cannot_store(world: &mut World, fault: Fault) -> Outcome {
    let old = settled(world)?;
    let broken = (old + 1) % HOSTS.len();
    fault.set(world, broken)?;
    // It is asked for a vote of an epoch far beyond all others, as a candidate would.
    let (address, epoch) = (world.redis(old), epoch_of(world)? + 1);
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let candidate = "e".repeat(40);
    let began = Instant::now();
    let ask = ["SENTINEL", "IS-MASTER-DOWN-BY-ADDR", &ip, &port, &epoch.to_string(), &candidate];
    match world.ask_sentinel(broken, &ask)? {
        Reply::Error(why) if why.contains("cannot be stored") => {}
        other => return Err(format!("a vote that cannot be stored is answered with {other:?}")),
    }
    said(world, broken, began, "store-failed")?;
    world.kill_redis(old)?;
    let not = Some(old);
    let (agreed, _) = wait_ok("two of three do not fail over", began, WHOLE_TIME, || world.agreed(Some(broken), not))?;
    fault.clear(world, broken)?;
    said(world, broken, began, "store-works")?;
    world.start_redis(old)?;
    let (whole, _) = world.wait_whole(Instant::now(), WHOLE_TIME, STABLE_TIME)?;
    row(world, fault, "one, before", agreed, whole)
}

/// All of them: nothing is promoted, each says why, and with space they go on by themselves.
fn nobody_can_store(world: &mut World, fault: Fault) -> Outcome {
    let old = settled(world)?;
    (0..HOSTS.len()).try_for_each(|n| fault.set(world, n))?;
    let began = Instant::now();
    world.kill_redis(old)?;
    for n in 0..HOSTS.len() {
        said(world, n, began, "store-failed")?;
    }
    let until = Instant::now() + NOTHING_TIME;
    while Instant::now() < until {
        for n in (0..HOSTS.len()).filter(|n| *n != old) {
            if world.info(n)?.role == Some(vigie::wire::info::Role::Master) {
                return Err(format!("{} was promoted, and no sentinel can store a vote", HOSTS[n]));
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for (n, name) in HOSTS.iter().enumerate() {
        if world.named(n)? != old {
            return Err(format!("{name} calls another one the master"));
        }
    }
    (0..HOSTS.len()).try_for_each(|n| fault.clear(world, n))?;
    let space = Instant::now();
    let (agreed, _) = wait_ok("with space they do not go on", space, WHOLE_TIME, || world.agreed(None, Some(old)))?;
    for n in 0..HOSTS.len() {
        said(world, n, began, "store-works")?;
    }
    world.start_redis(old)?;
    let (whole, _) = world.wait_whole(Instant::now(), WHOLE_TIME, STABLE_TIME)?;
    row(world, fault, "all", agreed, whole)
}

/// The disk of the leader fails once it has its votes: the failover goes through, by it or by another one.
fn leader_loses_its_disk(world: &mut World, fault: Fault) -> Outcome {
    let old = settled(world)?;
    let began = Instant::now();
    world.kill_redis(old)?;
    let elected = || world.ears.first(began, "+try-failover").ok_or_else(|| "nobody tries".to_owned());
    let (_, heard) = wait_ok("no failover begins", began, SAID_TIME, elected)?;
    fault.set(world, heard.host)?;
    let (agreed, _) =
        wait_ok("the others do not fail over", began, WHOLE_TIME, || world.agreed(Some(heard.host), Some(old)))?;
    fault.clear(world, heard.host)?;
    world.start_redis(old)?;
    let (whole, _) = world.wait_whole(Instant::now(), WHOLE_TIME, STABLE_TIME)?;
    row(world, fault, "the leader, during", agreed, whole)
}

fn settled(world: &World) -> Result<usize, String> {
    let (_, old) = wait_ok("no agreement before the fault", Instant::now(), WHOLE_TIME, || world.agreed(None, None))?;
    world.wait_settled(old)?;
    Ok(old)
}

fn row(world: &World, fault: Fault, title: &str, agreed: Duration, whole: Duration) -> Outcome {
    let logs: Vec<_> = (0..HOSTS.len()).map(|n| world.log(n)).collect();
    let promises = keeps_promises(&logs)?;
    note("| disk | of whom | agreed after | all well since it is back | promises so far");
    let (agreed, whole) = (agreed.as_millis(), whole.as_millis());
    note(format!("| {fault:?} | {title} | {agreed} ms | {whole} ms | {promises}"));
    Ok(())
}

fn epoch_of(world: &World) -> Result<u64, String> {
    let epochs = (0..HOSTS.len()).map(|n| Ok(world.file(n)?.leader_epoch.max(world.file(n)?.config_epoch)));
    epochs.collect::<Result<Vec<_>, String>>().map(|epochs| epochs.into_iter().max().unwrap_or(0))
}

/// Waits until a sentinel has said that since, to its subscribers.
fn said(world: &World, n: usize, since: Instant, channel: &str) -> Outcome {
    let heard = || if world.ears.has_said(n, since, channel) { Ok(()) } else { Err(String::new()) };
    wait_ok(&format!("{} does not say {channel}", HOSTS[n]), Instant::now(), SAID_TIME, heard).map(drop)
}

/// The file of a sentinel that has voted, cut off or with garbage in it. Nobody panics; whoever refuses it names the line, and
/// leaves the file alone; whoever takes it knows nothing but what was written.
pub(super) fn damaged_files(sandbox: &Sandbox) -> Outcome {
    let mut world = World::start(sandbox, &Plan::of([Kind::Vigie; 3]))?;
    world.kill_redis(0)?;
    let began = Instant::now();
    wait_ok("no failover", began, WHOLE_TIME, || world.agreed(None, Some(0)))?;
    world.start_redis(0)?;
    world.wait_whole(Instant::now(), WHOLE_TIME, STABLE_TIME)?;
    world.kill_sentinel(0)?;
    let whole = fs::read(world.conf(0)).map_err(text)?;
    let counts = read_all_cuts(&world, &whole)?;
    note(format!("a file cut off at each of {} bytes: {counts}", whole.len()));
    // The same with processes, where a line is cut in the middle; and bytes that never were a file.
    let mut damaged: Vec<Vec<u8>> = Vec::new();
    let mut start = 0;
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        damaged.push(whole[..start + line.len() / 2].to_vec());
        start += line.len();
    }
    damaged.extend([Vec::new(), vec![0; 4096], vec![0xff; 100], b"\"".to_vec()]);
    let mut rubbish = whole.clone();
    rubbish.iter_mut().skip(whole.len() / 2).step_by(7).for_each(|byte| *byte ^= 0x5a);
    damaged.push(rubbish);
    let (mut refused, mut taken) = (0, 0);
    for text in &damaged {
        let is_taken = begin(&mut world, text);
        let is_taken = is_taken.map_err(|why| format!("{why}; the file: {:?}", String::from_utf8_lossy(text)))?;
        if is_taken { taken += 1 } else { refused += 1 }
    }
    note(format!("started with {} damaged files: {refused} refused with their line, {taken} taken", damaged.len()));
    // Back with what it had.
    fs::write(world.conf(0), &whole).map_err(text)?;
    world.start_sentinel(0)?;
    world.wait_whole(Instant::now(), WHOLE_TIME, STABLE_TIME).map(drop)
}

/// Reads every beginning of a file. How many were refused, and what became of the others.
fn read_all_cuts(world: &World, whole: &[u8]) -> Result<String, String> {
    let read = |text: &[u8]| {
        let directory = &world.hosts[0].directory;
        let read = Document::parse(&world.conf(0), text, &Additions::default(), directory, &ThisHost);
        read.map(|(_, _, state)| state).map_err(|error| error.to_string())
    };
    let original = read(whole)?;
    let (mut refused, mut less, mut shorter) = (0, 0, 0);
    for cut in 0..whole.len() {
        let state = match read(&whole[..cut]) {
            Ok(state) => state,
            Err(said) if said.contains("at line ") || said.contains("FATAL CONFIG FILE ERROR") => {
                refused += 1;
                continue;
            }
            Err(said) => return Err(format!("cut off at byte {cut}: no line is named: {said}")),
        };
        // Without the line that is cut itself, which may be a shorter number, all is as it was or not there.
        let last = whole[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if read(&whole[..last]).ok().as_ref() == Some(&state) {
            less += 1
        } else {
            shorter += 1
        }
        let id = state.id.is_none_or(|id| Some(id) == original.id);
        let epochs = state.current_epoch <= original.current_epoch
            && state.masters.iter().zip(&original.masters).all(|(now, then)| {
                now.config_epoch <= then.config_epoch
                    && now.leader_epoch <= then.leader_epoch
                    && now.config.name == then.config.name
            });
        if !id || !epochs {
            return Err(format!("cut off at byte {cut}: {state:?}, of {original:?}"));
        }
    }
    Ok(format!(
        "{refused} refused, {less} read as the lines before the cut, {shorter} with a last line that is shorter"
    ))
}

/// Starts the first sentinel with that file. Whether it takes it.
fn begin(world: &mut World, file: &[u8]) -> Result<bool, String> {
    fs::write(world.conf(0), file).map_err(text)?;
    let before = world.log(0).len();
    world.start_sentinel(0)?;
    let since = Instant::now();
    let judge = || {
        if world.has_ended(0) {
            return Ok(false);
        }
        world.ask_sentinel(0, &["PING"]).map(|_| true)
    };
    let (_, taken) = wait_ok("it neither ends nor answers", since, SAID_TIME, judge)?;
    let said = world.log(0).split_off(before);
    if said.contains("panicked") {
        return Err(said);
    }
    if taken {
        world.kill_sentinel(0)?;
    }
    // An address that is cut off cannot be listened on, and is no fault of the file's form; rules of users are read last.
    let explained =
        ["FATAL CONFIG FILE ERROR", "Could not create server TCP listening socket", "of its 'user' lines, line"];
    let unexplained = !explained.iter().any(|words| said.contains(words));
    if !taken && (unexplained || fs::read(world.conf(0)).map_err(text)? != file) {
        return Err(format!("no line says what is wrong, or the file was changed: {said}"));
    }
    Ok(taken)
}
