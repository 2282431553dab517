//! Boxes: the system of `image/` in virtual machines on the lab's switch. They are emulated, so that no time here says
//! anything of a real one. `image/quick` must have built it; or `VIGIE_BOX_DISK` names the disk image of a box, unpacked,
//! which then starts by its own boot loader.

mod address;
mod alone;
mod cluster;
mod paths;

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use vigie::base::Secret;
use vigie::operate::lab::client::{Ack, Plan, read_back};
use vigie::operate::lab::hosts::{HostSpec, Lab, Network};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::wire::resp::Reply;

use super::whole::{self, text, wait_ok};
use super::{Case, Outcome};

const NEEDS: &[&str] = &["qemu-system-x86_64", "box-image-x86_64", "sfdisk", "mcopy", "net-tun"];

pub(crate) const CASES: &[Case] = &[
    Case { name: "every_boot_path", needs: NEEDS, run: paths::all },
    Case { name: "who_answers_for_its_address", needs: NEEDS, run: address::all },
    Case { name: "what_a_stranger_finds", needs: NEEDS, run: alone::hardened },
    Case { name: "a_cluster_of_three", needs: NEEDS, run: cluster::three },
    Case {
        name: "logins_with_keys_only",
        needs: &["qemu-system-x86_64", "box-image-x86_64", "sfdisk", "mcopy", "net-tun", "ssh", "ssh-keygen"],
        run: alone::logins,
    },
    Case { name: "power_cuts", needs: NEEDS, run: alone::power_cuts },
    Case {
        name: "a_box_of_aarch64",
        needs: &["qemu-system-aarch64", "box-image-aarch64", "sfdisk", "mcopy", "net-tun"],
        run: alone::aarch64,
    },
];
pub(crate) const BENCH: &[Case] = &[
    Case { name: "boot_of_a_box", needs: NEEDS, run: alone::boot_times },
    Case { name: "boot_of_a_cluster", needs: NEEDS, run: alone::cold_cluster },
    Case { name: "power_cuts_of_three", needs: NEEDS, run: cluster::power_cuts },
];

/// Where `image/quick` leaves kernel and initramfs for the tests, by architecture.
pub(crate) const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/image");
const DISK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/image/disk");
const CLIENT: &str = "client";
const STRANGER: &str = "stranger";
const PASSWORD: &str = "secret-of-the-boxes";
/// Where the proxy is.
const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 1)), 6379);
/// An emulated box on a machine that does much else is up, or has said why not, after so long.
const BOOT_TIME: Duration = Duration::from_secs(120);
/// A cluster of them agrees after so long.
const AGREE_TIME: Duration = Duration::from_secs(120);
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Where the FAT partition and the data partition of `image/partitions.sfdisk` begin.
const BOOT_BEGINS: &str = "@@2M";
const DATA_BEGINS: u64 = 80 << 20;
/// What a box is told that is to have a shell at its console. Without it there is none.
const SHELL: &str = "vigie.shell=on";
/// What a box alone shows when it serves.
const SERVES: &str = "master, 0 replicas";

fn address(n: usize) -> IpAddr {
    IpAddr::from([192, 168, 0, 10 + u8::try_from(n).expect("there are few boxes")])
}

/// The file of a cluster of that many boxes, each with every role.
fn cluster_file(boxes: usize) -> String {
    let mut file = format!(
        "[cluster]\nname = \"mymaster\"\nquorum = {}\npassword_file = \"/etc/vigie/password\"\n\
         down_after = \"2s\"\nlease = \"1s\"\n[[vip]]\naddresses = [\"192.168.0.1/24\"]\ninterface = \"eth0\"\nvirtual_router_id = 51\n",
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

/// The disk image that boxes start from by themselves, if that is what is tried.
fn whole_disk() -> Option<PathBuf> {
    std::env::var_os("VIGIE_BOX_DISK").map(PathBuf::from)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Machine {
    X86,
    Arm,
}

impl Machine {
    /// The emulator, what it emulates, the directory of its image, its serial line.
    fn parts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            // Without the six empty ports of SATA that a kernel would wait for.
            Self::X86 => ("qemu-system-x86_64", "-M q35,sata=off -cpu max", "x86_64", "ttyS0"),
            Self::Arm => ("qemu-system-aarch64", "-M virt -cpu cortex-a72", "aarch64", "ttyAMA0"),
        }
    }
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
    /// Switches a box on, plugged in as `box-NUMBER`. `words` are what its kernel is told.
    fn start(lab: &Lab, machine: Machine, number: usize, disk: &Path, words: &str) -> Result<Self, String> {
        let name = format!("box-{number}");
        let log = lab.scratch().join(format!("{name}.serial"));
        let console = lab.scratch().join(format!("{name}.console"));
        let from = fs::read(&log).map_or(0, |log| log.len());
        let (emulator, emulated, architecture, serial) = machine.parts();
        // Under load an emulated clock is sometimes calibrated several times too fast.
        let kernel = "panic=-1 tsc=unstable printk.time=1";
        // The emulator has a DHCP server, for a box that is plugged into nothing else.
        let network = if words.contains("vigie.address=dhcp") {
            format!("user,id=n0,net=192.168.0.0/24,host=192.168.0.2,dhcpstart={}", address(number))
        } else {
            format!("tap,id=n0,ifname={name},script=no,downscript=no")
        };
        let mut qemu = Command::new(emulator);
        qemu.args(emulated.split(' ')).args("-accel tcg -m 192 -nodefaults -display none".split(' '));
        if whole_disk().is_some() {
            // What a person would do to the FAT partition.
            put(disk, "cmdline.txt", words)?;
            let grub = Command::new("mtype").args(fat(disk)).arg("::grub/grub.cfg").output().map_err(text)?;
            let grub =
                String::from_utf8_lossy(&grub.stdout).replace("set words=\"\"", &format!("set words=\"{kernel}\""));
            put(disk, "grub/grub.cfg", &grub)?;
            if let Some(firmware) = std::env::var_os("VIGIE_BOX_FIRMWARE") {
                qemu.arg("-bios").arg(firmware);
            }
        } else {
            let image = Path::new(IMAGES).join(architecture);
            qemu.arg("-kernel").arg(image.join("vmlinuz")).arg("-initrd").arg(image.join("initramfs"));
            qemu.args(["-append", &format!("console={serial},115200 {kernel} {words}")]);
        }
        qemu.args(["-drive", &format!("file={},format=raw,if=virtio", disk.display())])
            .args(["-netdev", &network])
            .args(["-device", &format!("virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:00:00:{number:02x}")])
            .args(["-device", "virtio-rng-pci", "-serial", "chardev:line", "-chardev"])
            .arg(format!(
                "socket,id=line,path={},server=on,wait=off,logfile={},logappend=on",
                console.display(),
                log.display()
            ));
        let qemu = lab.spawn_at_switch(&mut qemu, &name).map_err(text)?;
        Ok(Self { qemu, name, log, console, from })
    }

    /// What came through the serial line since the box was switched on.
    fn line(&self) -> Vec<u8> {
        let log = fs::read(&self.log).unwrap_or_default();
        log.get(self.from..).unwrap_or_default().to_vec()
    }

    /// The same without the sequences that move the cursor.
    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.line()).into_owned();
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

    /// What a person sees now who looks at the terminal.
    fn screen(&self) -> String {
        let mut terminal = vt100::Parser::new(24, 80, 0);
        terminal.process(&self.line());
        terminal.screen().contents()
    }

    fn wait_said(&self, what: &str) -> Result<Duration, String> {
        let begun = Instant::now();
        let said = || if self.said().contains(what) { Ok(()) } else { Err("it was not said".to_owned()) };
        let waited = wait_ok(&format!("{} says {what:?}", self.name), begun, BOOT_TIME, said);
        waited.map(|(took, ())| took).map_err(|why| format!("{why}\n{}", tail(&self.said())))
    }

    /// Types at its console. The emulator takes a few characters at a time, and forgets the others if whoever typed them is
    /// gone: it is told that no more come, and hangs up when it has taken them all.
    fn types(&self, keys: &str) -> Outcome {
        let mut line = UnixStream::connect(&self.console).map_err(text)?;
        line.write_all(keys.as_bytes()).map_err(text)?;
        line.shutdown(Shutdown::Write).map_err(text)?;
        line.set_read_timeout(Some(BOOT_TIME)).map_err(text)?;
        std::io::copy(&mut line, &mut std::io::sink()).map(drop).map_err(text)
    }

    /// Has the box leave, by a command in the shell behind the status screen, which it must have been told to offer ([`SHELL`]).
    fn leaves(&self, command: &str) -> Outcome {
        self.types("s")?;
        self.wait_said(":~# ")?;
        let leaves = || {
            if self.said().contains("hands over and stops") {
                return Ok(());
            }
            // The shell asks the terminal where its cursor stands, and takes what is typed until then for the answer: the line
            // is begun again (^U) until it has been read whole.
            self.types(&format!("\x15{command}\r"))?;
            std::thread::sleep(Duration::from_secs(1));
            Err("it does not leave".to_owned())
        };
        let waited = wait_ok(command, Instant::now(), BOOT_TIME, leaves);
        waited.map(drop).map_err(|why| format!("{why}\n{}", tail(&self.said())))
    }

    /// Waits for the last words before a reboot. What is read from then on is of the next boot.
    fn wait_rebooting(&mut self) -> Outcome {
        self.wait_said("stopped")?;
        self.from += self.line().len();
        Ok(())
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

    /// Whether it came up with the data that it had.
    fn kept_its_data(&self) -> bool {
        let said = self.said();
        !said.contains("formats") && !said.contains("SAFE MODE")
    }

    /// Takes its power away, and waits until it is gone.
    fn cut(mut self) -> Outcome {
        self.qemu.kill().map_err(text)?;
        self.qemu.wait().map(drop).map_err(text)
    }
}

/// How often the power is cut: `VIGIE_BOX_CUTS`.
fn cuts() -> u32 {
    std::env::var("VIGIE_BOX_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(3)
}

/// Whether all that was written before is there, after so many cuts.
fn all_there(network: &Network, synced: &[(Plan, Vec<Ack>)], cuts: u32) -> Outcome {
    for (plan, acks) in synced {
        let lost = read_back(network, plan, acks, false).map_err(text)?.len();
        if lost > 0 {
            return Err(format!("{lost} of {} synced writes are lost after cut {cuts}", acks.len()));
        }
    }
    Ok(())
}

/// What the consoles of boxes said last, behind why something failed.
fn with_consoles(why: &str, guests: &[Guest]) -> String {
    let consoles = guests.iter().map(|guest| format!("-- {}\n{}", guest.name, tail(&guest.said())));
    format!("{why}\n{}", consoles.collect::<Vec<_>>().join("\n"))
}

/// The last lines of a long text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The segment: a client, somebody who has no business there, and a port for each box.
fn segment(sandbox: &Sandbox, boxes: usize) -> Result<Lab, String> {
    let host = |name: &str, last| HostSpec { name: name.to_owned(), address: [192, 168, 0, last].into(), prefix: 24 };
    let lab = Lab::new(&sandbox.scratch, &[host(CLIENT, 100), host(STRANGER, 101)]).map_err(text)?;
    (1..=boxes).try_for_each(|n| lab.tap(&format!("box-{n}"))).map_err(text)?;
    Ok(lab)
}

/// A new disk, with the files for a cluster of that many boxes.
fn disk(sandbox: &Sandbox, name: &str, boxes: usize) -> Result<PathBuf, String> {
    let disk = sandbox.scratch.join(format!("{name}.img"));
    match whole_disk() {
        Some(image) => drop(fs::copy(image, &disk).map_err(text)?),
        None => {
            let made = Command::new(DISK).arg(&disk).output().map_err(text)?;
            if !made.status.success() {
                return Err(String::from_utf8_lossy(&made.stderr).into_owned());
            }
        }
    }
    put(&disk, "vigie.toml", &cluster_file(boxes))?;
    put(&disk, "password", &format!("{PASSWORD}\n"))?;
    Ok(disk)
}

/// How the tools for FAT find the partition of a disk.
fn fat(disk: &Path) -> [String; 2] {
    ["-i".to_owned(), format!("{}{BOOT_BEGINS}", disk.display())]
}

/// Writes a file of the FAT partition, as a person does on a PC.
fn put(disk: &Path, name: &str, content: &str) -> Outcome {
    let file = disk.with_extension("file");
    fs::write(&file, content).map_err(text)?;
    let mut copy = Command::new("mcopy");
    copy.env("MTOOLS_SKIP_CHECK", "1").arg("-o").args(fat(disk)).arg(&file).arg(format!("::{name}"));
    let copied = copy.output().map_err(text)?;
    if copied.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&copied.stderr).into_owned()) }
}

/// Writes over the data partition.
fn scribble(disk: &Path, at: u64, bytes: &[u8]) -> Outcome {
    let file = fs::OpenOptions::new().write(true).open(disk).map_err(text)?;
    file.write_all_at(bytes, DATA_BEGINS + at).map_err(text)
}

/// Asks a server, seen from the client, with a password if it is to know one.
fn ask(lab: &Lab, at: SocketAddr, password: Option<&str>, words: &[&str]) -> Result<Reply, String> {
    let mut replies = whole::ask(lab, CLIENT, at, password, ANSWER_TIME, &[words.to_vec()])?;
    replies.pop().ok_or_else(|| format!("{at} says nothing"))
}

/// A client that writes through the virtual address, slowly enough for what is emulated.
fn writer(run: &str) -> Plan {
    Plan {
        connections: 4,
        rate: 100,
        connect_timeout: Duration::from_millis(500),
        reply_timeout: Duration::from_secs(2),
        ..Plan::new(TARGET, Secret::new(PASSWORD), run)
    }
}
