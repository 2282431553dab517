//! Every way in which a boot can go: what the box is told, what it does, what it says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use vigie::operate::lab::sandbox::Sandbox;

use super::super::whole::{text, wait_ok};
use super::super::{Outcome, note};
use super::{BOOT_TIME, Guest, Machine, SERVES, SHELL, cluster_file, disk, put, scribble, segment, tail, whole_disk};

/// What a boot leads to.
struct BootPath {
    what: &'static str,
    words: &'static str,
    /// What is said, all of it.
    says: &'static [&'static str],
    /// Whether it serves.
    serves: bool,
}

pub(super) fn all(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 2)?;
    let one = disk(sandbox, "one", 1)?;
    let start = |number, disk: &Path, words: &str| Guest::start(&lab, Machine::X86, number, disk, words);
    let boot = |path: &BootPath, disk: &Path| -> Result<Guest, String> {
        // What serves is switched off by a command.
        let words = if path.serves { format!("{} {SHELL}", path.words) } else { path.words.to_owned() };
        let guest = start(1, disk, &words)?;
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
    let safe = |what, words, says| BootPath { what, words, says, serves: false };
    let serves = |what, words, says| BootPath { what, words, says, serves: true };
    let named = "vigie.node=box-1";
    let reset = "vigie.node=box-1 vigie.reset=1";
    for (path, disk) in [
        (safe("no name", "", &["nothing says which node of the file this box is", "box-1 (192.168.0.11)"]), &one),
        (safe("a typo", "vigie.nod=box-1", &["did you mean vigie.node=?"]), &one),
        (safe("a wrong name", "vigie.node=box-9", &["names the node \"box-9\", which the file does not have"]), &one),
        (
            safe("an address of nobody", "vigie.node=box-1 vigie.address=192.168.0.9/24", &["but vigie.address= says"]),
            &one,
        ),
        (serves("blank data", named, &["formats /dev/vda5: it is blank", SERVES]), &one),
        (serves("data from before", named, &[SERVES]), &one),
        (serves("an address by DHCP", "vigie.node=box-1 vigie.address=dhcp", &[SERVES]), &one),
        (serves("reset", reset, &["formats /dev/vda5: vigie.reset=1", SERVES]), &one),
        (serves("reset, again", reset, &["obeyed by an earlier boot and is ignored now", SERVES]), &one),
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
    scribble(&one, 2_048, &[0xa5; 8_192])?;
    boot(&safe("damaged data", named, &["is damaged", "say vigie.reset=1 to format it"]), &one)?;
    scribble(&one, 0, &[0x5a; 1 << 20])?;
    boot(&safe("data of somebody else", named, &["is neither blank nor holds an ext4 file system"]), &one)?;
    // The boot loader of a whole disk is on the partition that is missing here.
    if whole_disk().is_none() {
        let empty = sandbox.scratch.join("empty.img");
        fs::File::create(&empty).and_then(|file| file.set_len(8 << 20)).map_err(text)?;
        boot(&safe("no FAT partition", named, &["No FAT partition called VIGIE is on any disk"]), &empty)?;
    }
    let unable = disk(sandbox, "unable", 1)?;
    put(&unable, "vigie.toml", &format!("{}[redis]\nserver = \"no-such-server\"\n", cluster_file(1)))?;
    boot(
        &BootPath { what: "a role that cannot start", words: named, says: &["no-such-server"], serves: true },
        &unable,
    )?;

    let whole = disk(sandbox, "two", 1)?;
    let other = disk(sandbox, "three", 1)?;
    let first = boot(&serves("one of two with a name", named, &[SERVES]), &whole)?;
    let second = start(2, &other, named)?;
    let says = "ADDRESS TAKEN: 192.168.0.11 is used by another box";
    second.wait_said(says)?;
    if second.said().contains(SERVES) {
        return Err(format!("the other of two with a name serves:\n{}", tail(&second.said())));
    }
    drop(first);
    second.wait_said(SERVES)?;
    note(format!("| the other of two with a name | `{named}` | waits, and serves once the first is gone | {says} |"));
    drop(second);
    // The probes of both pass each other, so that both believe to be alone at first.
    let pair = [start(1, &whole, named)?, start(2, &other, named)?];
    // Who sets the address a moment earlier has it; if it is the same moment, both give way, and who asks again first has it.
    let one_serves = || {
        std::thread::sleep(Duration::from_millis(100));
        let screens = pair.each_ref().map(Guest::screen);
        let shown = |n: usize, what: &str| screens[n].contains(what) && !screens[1 - n].contains(what);
        let decided = (0..2).any(|n| shown(n, SERVES) && shown(1 - n, "ADDRESS TAKEN"));
        if decided { Ok(()) } else { Err(screens.join("\n--\n")) }
    };
    wait_ok("one of two gives way", Instant::now(), BOOT_TIME, one_serves)?;
    note(format!("| two with a name, at once | `{named}` | one serves, the other waits | {says} |"));
    drop(pair);

    let large = disk(sandbox, "large", 1)?;
    fs::OpenOptions::new().write(true).open(&large).and_then(|file| file.set_len(400 << 20)).map_err(text)?;
    let grown =
        serves("a disk larger than the image", named, &["/dev/vda5 takes the rest of its disk: 319 MiB", SERVES]);
    let mut guest = boot(&grown, &large)?;
    guest.leaves("poweroff")?;
    guest.wait_off()?;
    let table = Command::new("sfdisk").arg("--verify").arg(&large).output().map_err(text)?;
    if !table.status.success() {
        return Err(format!("a disk larger than the image: {}", String::from_utf8_lossy(&table.stderr)));
    }

    let bare = disk(sandbox, "bare", 1)?;
    let cut = Command::new("sfdisk").args(["--quiet", "--delete"]).arg(&bare).arg("5").status().map_err(text)?;
    if !cut.success() {
        return Err("sfdisk --delete".to_owned());
    }
    let says: &[&str] = &["NO DATA PARTITION", "This box never votes", "box-1 192.168.0.11 | proxy redis |"];
    boot(&serves("no data partition", named, says), &bare).map(drop)
}
