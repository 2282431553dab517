//! Boxes: the system of `image/` in virtual machines on the lab's switch, emulated, so that no time here says anything of a
//! real one. `image/quick` must have built it.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use vigie::base::Secret;
use vigie::operate::lab::client::{Client, Plan, read_back};
use vigie::operate::lab::hosts::{HostSpec, Lab};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::connection::Connection;
use vigie::wire::resp::Reply;

use super::whole::{text, wait_ok};
use super::{Case, Outcome, note};

const NEEDS: &[&str] = &["qemu-system-x86_64", "box-image", "sfdisk", "mcopy"];

pub(crate) const CASES: &[Case] = &[
    Case { name: "every_boot_path", needs: NEEDS, run: boot_paths },
    Case { name: "a_cluster_of_three", needs: NEEDS, run: cluster },
];

/// Where `image/quick` leaves kernel and initramfs for the tests.
pub(crate) const IMAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/image/x86_64");
const DISK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/image/disk");
const CLIENT: &str = "client";
const PASSWORD: &str = "secret-of-the-boxes";
/// An emulated box on a machine that does much else is up, or has said why not, after so long.
const BOOT_TIME: Duration = Duration::from_secs(90);
/// A cluster of them agrees after so long.
const AGREE_TIME: Duration = Duration::from_secs(90);
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Where the data partition of `image/partitions.sfdisk` begins.
const DATA_BEGINS: u64 = 80 << 20;

fn address(n: usize) -> IpAddr {
    IpAddr::from([192, 168, 0, 10 + u8::try_from(n).expect("there are few boxes")])
}

/// The file of a cluster of that many boxes, each with every role.
fn cluster_file(boxes: usize) -> String {
    let mut file = format!(
        "[cluster]\nname = \"mymaster\"\nquorum = {}\npassword_file = \"/etc/vigie/password\"\nfencing = \"off\"\n\
         down_after = \"2s\"\n[[vip]]\naddresses = [\"192.168.0.1/24\"]\ninterface = \"eth0\"\nvirtual_router_id = 51\n",
        boxes / 2 + 1
    );
    for n in 1..=boxes {
        file += &format!(
            "[[node]]\nname = \"box-{n}\"\naddress = \"{}\"\nroles = [\"proxy\", \"redis\", \"sentinel\"]\n\
             bootstrap_master = {}\n",
            address(n),
            n == 1
        );
    }
    file
}

/// A box that runs.
struct Guest {
    qemu: Child,
    name: String,
    /// Everything that was ever said on its serial line.
    log: PathBuf,
    console: PathBuf,
    /// Where in the log this boot begins.
    from: usize,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Guest {
    /// Switches a box on. `words` are its kernel's.
    fn start(lab: &Lab, name: &str, number: u8, disk: &Path, words: &str) -> Result<Self, String> {
        let log = lab.scratch().join(format!("{name}.serial"));
        let console = lab.scratch().join(format!("{name}.console"));
        let from = fs::read(&log).map_or(0, |log| log.len());
        // Under load an emulated clock is sometimes calibrated several times too fast.
        let words = format!("console=ttyS0,115200 panic=-1 tsc=unstable {words}");
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args("-M q35 -accel tcg -cpu max -m 192 -nodefaults -display none".split(' '))
            .args(["-kernel", &format!("{IMAGE}/vmlinuz"), "-initrd", &format!("{IMAGE}/initramfs"), "-append", &words])
            .args(["-drive", &format!("file={},format=raw,if=virtio", disk.display())])
            .args(["-netdev", &format!("tap,id=n0,ifname={name},script=no,downscript=no")])
            .args(["-device", &format!("virtio-net-pci,netdev=n0,mac=52:54:00:00:00:{number:02x}")])
            .args(["-device", "virtio-rng-pci", "-serial", "chardev:line", "-chardev"])
            .arg(format!(
                "socket,id=line,path={},server=on,wait=off,logfile={},logappend=on",
                console.display(),
                log.display()
            ));
        let qemu = lab.spawn_at_switch(&mut qemu, name).map_err(text)?;
        Ok(Self { qemu, name: name.to_owned(), log, console, from })
    }

    /// What was said on the serial line since it was switched on, without the sequences that move the cursor.
    fn said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(log.get(self.from..).unwrap_or_default()).into_owned();
        let mut plain = String::new();
        for (n, part) in text.split('\x1b').enumerate() {
            // A control sequence ends with a letter, another one is a single character.
            let end = match (n, part.strip_prefix('[')) {
                (0, _) => 0,
                (_, Some(rest)) => 2 + rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0),
                (_, None) => 1,
            };
            if n > 0 && part.get(..end).is_some_and(|sequence| sequence.ends_with('H')) {
                plain.push('\n');
            }
            plain += part.get(end..).unwrap_or_default();
        }
        plain
    }

    fn wait_said(&self, what: &str) -> Result<Duration, String> {
        let begun = Instant::now();
        let said = || if self.said().contains(what) { Ok(()) } else { Err("it was not said".to_owned()) };
        let waited = wait_ok(&format!("{} says {what:?}", self.name), begun, BOOT_TIME, said);
        waited.map(|(took, ())| took).map_err(|why| format!("{why}\n{}", tail(&self.said())))
    }

    /// Types at its console.
    fn types(&self, keys: &str) -> Outcome {
        let mut line = UnixStream::connect(&self.console).map_err(text)?;
        line.write_all(keys.as_bytes()).map_err(text)
    }

    /// Has the box leave, by a command in the shell behind the status screen.
    fn leaves(&self, command: &str) -> Outcome {
        self.types("s")?;
        // The shell has asked the terminal where its cursor stands; until then it would take what is typed for the answer.
        self.wait_said(":~# ")?;
        self.types(command)?;
        let leaves = || {
            if self.said().contains("hands over and stops") {
                return Ok(());
            }
            // A line's end that came too early was taken for part of the terminal's answer.
            self.types("\r")?;
            std::thread::sleep(Duration::from_millis(500));
            Err("it does not leave".to_owned())
        };
        let waited = wait_ok(command, Instant::now(), BOOT_TIME, leaves);
        waited.map(drop).map_err(|why| format!("{why}\n{}", tail(&self.said())))
    }

    fn wait_off(&mut self) -> Outcome {
        let begun = Instant::now();
        let off = || match self.qemu.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        wait_ok("a box is switched off", begun, BOOT_TIME, off)
            .map(drop)
            .map_err(|why| format!("{why}\n{}", tail(&self.said())))
    }
}

/// The last lines of a long text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The segment: a client, and a port for each box.
fn segment(sandbox: &Sandbox, boxes: usize) -> Result<Lab, String> {
    let address = IpAddr::from([192, 168, 0, 100]);
    let lab = Lab::new(&sandbox.scratch, &[HostSpec { name: CLIENT.to_owned(), address, prefix: 24 }]).map_err(text)?;
    (1..=boxes).try_for_each(|n| lab.tap(&format!("box-{n}"))).map_err(text)?;
    Ok(lab)
}

/// A new disk, with the files for a cluster of that many boxes.
fn disk(sandbox: &Sandbox, name: &str, boxes: usize) -> Result<PathBuf, String> {
    let (disk, files) = (sandbox.scratch.join(format!("{name}.img")), sandbox.scratch.join(format!("{name}.files")));
    fs::create_dir_all(&files).map_err(text)?;
    fs::write(files.join("vigie.toml"), cluster_file(boxes)).map_err(text)?;
    fs::write(files.join("password"), format!("{PASSWORD}\n")).map_err(text)?;
    let made = Command::new(DISK).arg(&disk).arg(&files).output().map_err(text)?;
    if made.status.success() { Ok(disk) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

/// Writes over the data partition.
fn scribble(disk: &Path, at: u64, bytes: &[u8]) -> Outcome {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(disk).map_err(text)?;
    file.write_all_at(bytes, DATA_BEGINS + at).map_err(text)
}

/// What a boot leads to.
struct Path_ {
    what: &'static str,
    words: &'static str,
    /// What is said, all of it.
    says: &'static [&'static str],
    /// Whether it serves.
    serves: bool,
}

const SERVES: &str = "master, 0 replicas";

fn boot_paths(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 2)?;
    let disk_1 = disk(sandbox, "one", 1)?;
    let boot = |path: &Path_, disk: &Path| -> Result<Guest, String> {
        let guest = Guest::start(&lab, "box-1", 1, disk, path.words)?;
        let judged = path.says.iter().try_for_each(|said| guest.wait_said(said).map(drop));
        judged.map_err(|why| format!("{}: {why}", path.what))?;
        let safe = guest.said().contains("SAFE MODE");
        if safe == path.serves {
            return Err(format!("{}: safe mode is {safe}\n{}", path.what, tail(&guest.said())));
        }
        let did = if path.serves { "serves" } else { "safe mode" };
        note(format!("| {} | `{}` | {did} | {} |", path.what, path.words, path.says.join(" … ")));
        Ok(guest)
    };
    let safe = |what, words, says| Path_ { what, words, says, serves: false };
    let serves = |what, words, says| Path_ { what, words, says, serves: true };
    let named = "vigie.node=box-1";
    let reset = "vigie.node=box-1 vigie.reset=1";
    for (path, disk) in [
        (safe("no name", "", &["nothing says which node of the file this box is", "box-1 (192.168.0.11)"]), &disk_1),
        (safe("a typo", "vigie.nod=box-1", &["did you mean vigie.node=?"]), &disk_1),
        (
            safe("a wrong name", "vigie.node=box-9", &["names the node \"box-9\", which the file does not have"]),
            &disk_1,
        ),
        (
            safe("an address of nobody", "vigie.node=box-1 vigie.address=192.168.0.9/24", &["but vigie.address= says"]),
            &disk_1,
        ),
        (serves("blank data", named, &["formats /dev/vda5: it is blank", SERVES]), &disk_1),
        (serves("data from before", named, &[SERVES]), &disk_1),
        (serves("reset", reset, &["formats /dev/vda5: vigie.reset=1", SERVES]), &disk_1),
        (serves("reset, again", reset, &["obeyed by an earlier boot and is ignored now", SERVES]), &disk_1),
    ] {
        let mut guest = boot(&path, disk)?;
        if path.what == "data from before" && guest.said().contains("formats") {
            return Err("data from before: they were formatted".to_owned());
        }
        if path.serves {
            guest.leaves("poweroff")?;
            guest.wait_off()?;
        }
    }
    // The group descriptors behind the superblock.
    scribble(&disk_1, 2_048, &[0xa5; 8_192])?;
    boot(&safe("damaged data", named, &["is damaged", "say vigie.reset=1 to format it"]), &disk_1)?;
    scribble(&disk_1, 0, &[0x5a; 1 << 20])?;
    boot(&safe("data of somebody else", named, &["is neither blank nor holds an ext4 file system"]), &disk_1)?;
    let empty = sandbox.scratch.join("empty.img");
    fs::File::create(&empty).and_then(|file| file.set_len(8 << 20)).map_err(text)?;
    boot(&safe("no FAT partition", named, &["No FAT partition called VIGIE is on any disk"]), &empty)?;

    let whole = disk(sandbox, "two", 1)?;
    let first = boot(&serves("one of two with a name", named, &[SERVES]), &whole)?;
    let other = disk(sandbox, "three", 1)?;
    let second = Guest::start(&lab, "box-2", 2, &other, named)?;
    let says = "The address 192.168.0.11 is used by another box";
    second.wait_said(says)?;
    note(format!("| the other of two with a name | `{named}` | safe mode | {says} |"));
    drop(second);
    drop(first);

    let bare = disk(sandbox, "bare", 1)?;
    let cut = Command::new("sfdisk").args(["--quiet", "--delete"]).arg(&bare).arg("5").status().map_err(text)?;
    if !cut.success() {
        return Err("sfdisk --delete".to_owned());
    }
    let says: &[&str] = &["NO DATA PARTITION", "This box never votes", "box-1 192.168.0.11 | proxy redis |"];
    boot(&serves("no data partition", named, says), &bare).map(drop)
}

/// Who the sentinel of a box says is master.
fn master_by(lab: &Lab, n: usize) -> Result<IpAddr, String> {
    let at = SocketAddr::new(address(n), 26379);
    let asked = lab.exec(CLIENT, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        runtime.block_on(async {
            let mut connection = Connection::open(at, ANSWER_TIME).await.map_err(text)?;
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
            connection.ask(&words, ANSWER_TIME).await.map_err(text)
        })
    });
    match asked.map_err(text)?? {
        Reply::Array(parts) => {
            let host = parts.first().and_then(Reply::text).unwrap_or_default();
            host.parse().map_err(|_| format!("{host:?} is no address"))
        }
        other => Err(format!("{other:?}")),
    }
}

/// Which box has the virtual address, by what the client's neighbour table says.
fn vip_holder(lab: &Lab) -> Result<usize, String> {
    let table = lab.exec(CLIENT, || fs::read_to_string("/proc/thread-self/net/arp")).map_err(text)?.map_err(text)?;
    let line = table.lines().find(|line| line.starts_with("192.168.0.1 ")).ok_or("nobody has the virtual address")?;
    let mac = line.split_whitespace().nth(3).unwrap_or_default();
    mac.rsplit(':').next().and_then(|last| last.parse().ok()).ok_or_else(|| format!("{mac} is no box"))
}

fn cluster(sandbox: &Sandbox) -> Outcome {
    const BOXES: usize = 3;
    let lab = segment(sandbox, BOXES)?;
    let disks = (1..=BOXES).map(|n| disk(sandbox, &format!("disk-{n}"), BOXES)).collect::<Result<Vec<_>, _>>()?;
    let start = |n: usize| {
        let number = u8::try_from(n).map_err(text)?;
        Guest::start(&lab, &format!("box-{n}"), number, &disks[n - 1], &format!("vigie.node=box-{n}"))
    };
    let begun = Instant::now();
    let mut guests = (1..=BOXES).map(start).collect::<Result<Vec<_>, _>>()?;
    let target = SocketAddr::from(([192, 168, 0, 1], 6379));
    let plan = Plan {
        connections: 4,
        rate: 100,
        connect_timeout: Duration::from_millis(500),
        reply_timeout: Duration::from_secs(2),
        ..Plan::new(target, Secret::new(PASSWORD), "boxes")
    };
    let client = Client::start(&lab, CLIENT, plan.clone()).map_err(text)?;
    let flows = |what: &str, since: Instant| {
        let before = client.tally().acks.len();
        let more = || {
            let now = client.tally().acks.len();
            if now >= before + 50 {
                Ok(())
            } else {
                Err(format!("{} writes, {:?}", now - before, client.tally().kinds))
            }
        };
        wait_ok(what, since, AGREE_TIME, more).map(|(took, ())| took)
    };
    let agreed = |others: &[usize], not: Option<usize>| {
        let agree = || {
            let said = others.iter().map(|n| master_by(&lab, *n)).collect::<Result<Vec<_>, _>>()?;
            let master = said[0];
            let right = said.iter().all(|one| *one == master) && not.is_none_or(|not| master != address(not));
            let found = (1..=BOXES).find(|n| address(*n) == master);
            found.filter(|_| right).ok_or_else(|| format!("they say {said:?}"))
        };
        wait_ok("the sentinels agree", Instant::now(), AGREE_TIME, agree).map(|(_, master)| master)
    };
    let dump = |why: String, guests: &[Guest]| {
        let consoles = guests.iter().map(|guest| format!("-- {}\n{}", guest.name, tail(&guest.said())));
        format!("{why}\n{}", consoles.collect::<Vec<_>>().join("\n"))
    };
    let whole = |guests: &[Guest]| {
        let good = || {
            let page = |guest: &Guest| {
                let said = guest.said();
                let last = said.rfind("NODE ").map(|at| said[at..].to_owned()).unwrap_or_default();
                last.matches("replica in sync").count() == BOXES - 1 && last.matches(" good ").count() == BOXES
            };
            if guests.iter().all(page) { Ok(()) } else { Err("not all is well on every console".to_owned()) }
        };
        wait_ok("a whole cluster", Instant::now(), AGREE_TIME, good).map(drop).map_err(|why| dump(why, guests))
    };
    let cold = flows("a client outside writes", begun).map_err(|why| dump(why, &guests))?;
    note(format!("three boxes switched on → 50 writes through the virtual address: {} ms", cold.as_millis()));
    whole(&guests)?;

    // Each time the box comes back by itself or is switched on again.
    for fault in ["poweroff of the master", "plug of the virtual address pulled", "reboot of the master"] {
        let master = agreed(&[1, 2, 3], None)?;
        let holder = vip_holder(&lab)?;
        let hit = if fault.starts_with("plug") { holder } else { master };
        let began = vigie::runtime::clock::now();
        let since = Instant::now();
        match fault {
            "poweroff of the master" => {
                guests[hit - 1].leaves("poweroff")?;
                guests[hit - 1].wait_off()?;
            }
            "reboot of the master" => guests[hit - 1].leaves("reboot")?,
            _ => {
                guests[hit - 1].qemu.kill().map_err(text)?;
                guests[hit - 1].wait_off()?;
            }
        }
        let others: Vec<usize> = (1..=BOXES).filter(|n| *n != hit).collect();
        let new = agreed(&others, (hit == master).then_some(master)).map_err(|why| dump(why, &guests))?;
        flows("writes flow again", since).map_err(|why| dump(why, &guests))?;
        let outage = client.tally().outage(began).unwrap_or_default();
        note(format!(
            "{fault}: box-{hit} (master box-{master} → box-{new}, virtual address at box-{holder}); longest time without \
             a write {} ms",
            outage.as_millis()
        ));
        if fault != "reboot of the master" {
            guests[hit - 1] = start(hit)?;
        }
        whole(&guests)?;
    }
    let tally = client.stop();
    let network = lab.network(CLIENT).map_err(text)?;
    let lost = read_back(&network, &plan, &tally.acks, false).map_err(text)?.len();
    note(format!("{} writes acknowledged, {lost} lost, {} errors", tally.acks.len(), tally.errors));
    if lost > 0 {
        return Err(format!("{lost} of {} acknowledged writes are lost", tally.acks.len()));
    }
    Ok(())
}
