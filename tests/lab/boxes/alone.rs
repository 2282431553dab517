//! One box: who may log in, what a pulled plug costs it, how long it takes to come up.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use vigie::base::Rng;
use vigie::operate::lab::client::{Ack, Client, Plan};
use vigie::operate::lab::hosts::Lab;
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;
use vigie::wire::resp::Reply;

use super::super::whole::{self, text, wait_ok};
use super::super::{Outcome, note};
use super::{
    BOOT_TIME, CLIENT, Guest, Machine, PASSWORD, SERVES, SHELL, TARGET, address, all_there, ask, cluster_file, cuts,
    disk, put, segment, tail, writer,
};

const NAMED: &str = "vigie.node=box-1";

/// What `ssh` did: whether it succeeded, and all that it printed.
fn ssh(lab: &Lab, keys: &Path, options: &[&str], command: &str) -> Result<(bool, String), String> {
    let log = lab.scratch().join("ssh.log");
    // Nobody has read what an earlier one said; there may be none.
    let _ = fs::remove_file(&log);
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "IdentitiesOnly=yes"]);
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", keys.join("known").display())).args(options);
    let status = lab.spawn(CLIENT, ssh.arg(format!("root@{}", address(1))).arg(command), "ssh").map_err(text)?.wait();
    Ok((status.map_err(text)?.success(), fs::read_to_string(&log).map_err(text)?))
}

pub(super) fn logins(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 1)?;
    let box_1 = disk(sandbox, "one", 1)?;
    let keys = sandbox.scratch.join("keys");
    fs::create_dir_all(&keys).map_err(text)?;
    for name in ["mine", "foreign"] {
        let mut made = Command::new("ssh-keygen");
        let made = made.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(keys.join(name)).status().map_err(text)?;
        if !made.success() {
            return Err(format!("ssh-keygen: {made}"));
        }
    }
    // As an editor on another system leaves it.
    let allowed = fs::read_to_string(keys.join("mine.pub")).map_err(text)?.replace('\n', "\r\n");
    put(&box_1, "authorized_keys", &allowed)?;
    let mine = format!("IdentityFile={}", keys.join("mine").display());
    let foreign = format!("IdentityFile={}", keys.join("foreign").display());
    let unknown = "StrictHostKeyChecking=accept-new";
    let known = "StrictHostKeyChecking=yes";
    let enters = |checking: &str| {
        let tried = || match ssh(&lab, &keys, &["-o", checking, "-o", &mine], "hostname && vigie status")? {
            (true, said) if said.contains("box-1") => Ok(said),
            (_, said) => Err(said),
        };
        wait_ok("a login with the key", Instant::now(), BOOT_TIME, tried).map(|(_, said)| said)
    };

    let mut guest = Guest::start(&lab, Machine::X86, 1, &box_1, NAMED)?;
    let outcome = (|| {
        guest.wait_said(SERVES)?;
        enters(unknown)?;
        let host_key = fs::read_to_string(keys.join("known")).map_err(text)?;
        for (what, options) in [
            (
                "a password",
                ["-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive"],
            ),
            ("a key that is not listed", ["-o", known, "-o", &foreign]),
        ] {
            let (entered, said) = ssh(&lab, &keys, &options, "true")?;
            // What the box offers is in the parentheses.
            if entered || !said.contains("Permission denied (publickey)") {
                return Err(format!("{what} was answered with: {said}"));
            }
            note(format!("a login with {what}: {}", said.trim()));
        }
        for how in ["reboot", "switched off and on"] {
            if how == "reboot" {
                ssh(&lab, &keys, &["-o", known, "-o", &mine], "reboot")?;
                guest.wait_rebooting()?;
            } else {
                ssh(&lab, &keys, &["-o", known, "-o", &mine], "poweroff")?;
                guest.wait_off()?;
                guest = Guest::start(&lab, Machine::X86, 1, &box_1, NAMED)?;
            }
            guest.wait_said(SERVES)?;
            enters(known)?;
            note(format!("after it was {how}: the same host key, and the key still opens"));
        }
        let after = fs::read_to_string(keys.join("known")).map_err(text)?;
        if after == host_key { Ok(()) } else { Err(format!("another host key: {host_key} and {after}")) }
    })();
    outcome.map_err(|why| format!("{why}\n{}", tail(&guest.said())))
}

/// What the shell of a box is asked: each line is one answer, `name=value`.
const LOOK: &str = r#"
for name in ipv4/conf/all/accept_redirects ipv4/conf/eth0/accept_redirects ipv4/conf/eth0/send_redirects \
    ipv4/conf/eth0/secure_redirects ipv4/conf/eth0/arp_ignore ipv6/conf/eth0/accept_ra ipv6/conf/eth0/accept_redirects; do
    echo "$name=$(cat /proc/sys/net/$name)"
done
for name in dmesg_restrict kptr_restrict; do echo "$name=$(cat /proc/sys/kernel/$name)"; done
for name in mem kmem port; do [ -e /dev/$name ] || echo "$name=none"; done
echo "redis=$(id -u redis):$(id -g redis)"
echo "data=$(ls -ldn /data/vigie | awk '{ print $1 ":" $3 ":" $4 }')"
echo "the look is over"
"#;

/// No shell by default, one where it is asked for, and what a box is like inside.
pub(super) fn hardened(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 1)?;
    let box_1 = disk(sandbox, "one", 1)?;
    put(&box_1, "look.sh", LOOK)?;
    for (what, words, there, shell) in [
        ("by default", NAMED, SERVES, false),
        ("in safe mode", "vigie.nod=box-1", "SAFE MODE", false),
        ("where it is asked for", "vigie.node=box-1 vigie.shell=on", SERVES, true),
        ("where it is asked for in safe mode", "vigie.nod=box-1 vigie.shell=on", "SAFE MODE", true),
    ] {
        let guest = Guest::start(&lab, Machine::X86, 1, &box_1, words)?;
        let outcome = (|| {
            guest.wait_said(there)?;
            let foot = if shell { " s: a shell" } else { " no shell at this console" };
            guest.wait_said(foot)?;
            let drawn = guest.said().matches(foot).count();
            guest.types("s\r")?;
            if shell {
                return guest.wait_said(":~# ").map(drop);
            }
            // Any other key has the whole screen drawn once more: what was typed has been read.
            let again = || {
                if guest.said().matches(foot).count() > drawn + 1 { Ok(()) } else { Err("it is not drawn".to_owned()) }
            };
            wait_ok("the screen is drawn once more", Instant::now(), BOOT_TIME, again)?;
            if guest.said().contains(":~# ") { Err("a shell was opened".to_owned()) } else { Ok(()) }
        })();
        outcome.map_err(|why| format!("{what}: {why}\n{}", tail(&guest.said())))?;
        note(format!("a shell {what} (`{words}`): {}", if shell { "yes" } else { "no" }));
        if shell && there == SERVES {
            let looked = || {
                if guest.said().contains("the look is over") {
                    return Ok(());
                }
                guest.types("\x15sh /boot/look.sh\r")?;
                std::thread::sleep(Duration::from_secs(1));
                Err("no answer".to_owned())
            };
            wait_ok("a look inside", Instant::now(), BOOT_TIME, looked)
                .map_err(|why| format!("{why}\n{}", tail(&guest.said())))?;
            let said = guest.said();
            for line in [
                "ipv4/conf/all/accept_redirects=0",
                "ipv4/conf/eth0/accept_redirects=0",
                "ipv4/conf/eth0/send_redirects=0",
                "ipv4/conf/eth0/secure_redirects=0",
                "ipv4/conf/eth0/arp_ignore=1",
                "ipv6/conf/eth0/accept_ra=0",
                "ipv6/conf/eth0/accept_redirects=0",
                "dmesg_restrict=1",
                "kptr_restrict=2",
                "mem=none",
                "kmem=none",
                "port=none",
                "redis=100:100",
                "data=drwx--x---:0:100",
            ] {
                if !said.lines().any(|said| said.trim_end().ends_with(line)) {
                    return Err(format!("the box does not say {line:?}:\n{}", tail(&said)));
                }
            }
            note(
                "inside: redirects and router advertisements refused, no /dev/mem, redis has a user of its own"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// Boots a box, has a client write to it, and takes its power away at some moment, again and again. Redis syncs each write
/// before it acknowledges it here, so that every acknowledged one must be there again.
pub(super) fn power_cuts(sandbox: &Sandbox) -> Outcome {
    let cuts = cuts();
    let lab = segment(sandbox, 1)?;
    let box_1 = disk(sandbox, "one", 1)?;
    put(&box_1, "vigie.toml", &format!("{}[redis]\ninclude = [\"/etc/vigie/users.conf\"]\n", cluster_file(1)))?;
    put(&box_1, "users.conf", &format!("user operator on >{PASSWORD} +config|set\n"))?;
    let network = lab.network(CLIENT).map_err(text)?;
    let (mut moments, mut in_boot) = (Rng::new(1), 0);
    let mut synced: Vec<(Plan, Vec<Ack>)> = Vec::new();
    for round in 0..=cuts {
        if round > 0 && round % 3 == 0 {
            // Also while it comes up: where it mounts, looks after its file systems, loads its data.
            let guest = Guest::start(&lab, Machine::X86, 1, &box_1, NAMED)?;
            std::thread::sleep(moments.below(Duration::from_secs(6)));
            guest.cut()?;
            in_boot += 1;
        }
        let guest = Guest::start(&lab, Machine::X86, 1, &box_1, NAMED)?;
        guest.wait_said(SERVES)?;
        if round > 0 && !guest.kept_its_data() {
            return Err(format!("after cut {round}:\n{}", tail(&guest.said())));
        }
        all_there(&network, &synced, round)?;
        if round == cuts {
            break;
        }
        let redis = SocketAddr::new(address(1), TARGET.port());
        // Applications may not do that: an operator's user does.
        let always = [vec!["AUTH", "operator", PASSWORD], vec!["CONFIG", "SET", "appendfsync", "always"]];
        whole::ask(&lab, CLIENT, redis, None, BOOT_TIME, &always)?;
        let plan = Plan { rate: 200, ..writer(&format!("cuts-{round}")) };
        let since = clock::now();
        let client = Client::start(&lab, CLIENT, plan.clone()).map_err(text)?;
        let few = || if client.tally().acks.len() < 20 { Err(format!("{:?}", client.tally().kinds)) } else { Ok(()) };
        wait_ok("writes flow", Instant::now(), BOOT_TIME, few)?;
        std::thread::sleep(moments.below(Duration::from_secs(3)));
        guest.cut()?;
        let tally = client.stop();
        synced.push((plan, tally.acks.into_iter().filter(|ack| ack.sent_at >= since).collect()));
    }
    let writes: usize = synced.iter().map(|(_, acks)| acks.len()).sum();
    note(format!(
        "{cuts} power cuts while writing and {in_boot} while booting: each boot clean, 0 of {writes} writes lost"
    ));
    Ok(())
}

pub(super) fn aarch64(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 1)?;
    let box_1 = disk(sandbox, "one", 1)?;
    for data in ["blank data", "data from before"] {
        let mut guest = Guest::start(&lab, Machine::Arm, 1, &box_1, &format!("{NAMED} {SHELL}"))?;
        guest.wait_said(SERVES)?;
        let written = || match ask(&lab, TARGET, Some(PASSWORD), &["INCR", "boots"])? {
            Reply::Integer(boots) => Ok(boots),
            other => Err(format!("{other:?}")),
        };
        let (_, boots) = wait_ok("a write through the virtual address", Instant::now(), BOOT_TIME, written)?;
        if boots != if data == "blank data" { 1 } else { 2 } {
            return Err(format!("{data}: {boots} boots"));
        }
        note(format!("aarch64, {data}: serves, takes a write through the virtual address"));
        guest.leaves("poweroff")?;
        guest.wait_off()?;
    }
    Ok(())
}

/// A moment by the clock of the kernel of a box: when it said this line.
fn kernel_time(said: &str, line: &str) -> Option<Duration> {
    let found = said.lines().find(|said| said.contains(line))?;
    let stamp = found.split_once('[')?.1.split_once(']')?.0;
    Some(Duration::from_secs_f64(stamp.trim().parse().ok()?))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How often a boot is timed, after the first one, which formats its data.
const RUNS: usize = 5;

/// Waits until a server answers these words with that one.
fn answers(lab: &Lab, at: SocketAddr, words: &[&str], what: &str) -> Outcome {
    let answered = || match ask(lab, at, Some(PASSWORD), words)? {
        reply if reply.text().is_some_and(|said| said.contains(what)) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_ok("an answer", Instant::now(), BOOT_TIME, answered).map(drop)
}

/// How long a box takes, by the clock of its kernel.
pub(super) fn boot_times(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 1)?;
    let alone = disk(sandbox, "one", 1)?;
    let (mut init, mut known, mut ready, mut address_up) = (vec![], vec![], vec![], vec![]);
    for run in 0..=RUNS {
        let mut guest = Guest::start(&lab, Machine::X86, 1, &alone, &format!("{NAMED} {SHELL}"))?;
        guest.wait_said("vigie: this box is")?;
        let seen = Instant::now();
        let named = kernel_time(&guest.said(), "vigie: this box is").ok_or("the kernel prints no times")?;
        let by_kernel = || named + seen.elapsed();
        answers(&lab, SocketAddr::new(address(1), TARGET.port()), &["INFO", "replication"], "role:master")?;
        let role = by_kernel();
        answers(&lab, TARGET, &["SET", "a", "b"], "OK")?;
        let vip = by_kernel();
        let started = kernel_time(&guest.said(), "vigie: the kernel is up").ok_or("the boot does not say its begin")?;
        note(format!("run {run}: init {started:?}, who it is {named:?}, role {role:?}, virtual address {vip:?}"));
        if run > 0 {
            init.push(started);
            known.push(named);
            ready.push(role);
            address_up.push(vip);
        }
        guest.leaves("poweroff")?;
        guest.wait_off()?;
    }
    note(format!(
        "a box alone, from the start of its kernel, median of {RUNS}: init {:?}, knows who it is {:?}, role ready {:?}, \
         takes a write at the virtual address {:?}",
        median(init),
        median(known),
        median(ready),
        median(address_up)
    ));
    Ok(())
}

/// How long a cluster takes, by the clock of who switched it on.
pub(super) fn cold_cluster(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 3)?;
    let disks = (1..=3).map(|n| disk(sandbox, &format!("disk-{n}"), 3)).collect::<Result<Vec<_>, _>>()?;
    let mut cold = vec![];
    for run in 0..=RUNS {
        let begun = Instant::now();
        let start =
            |n: usize| Guest::start(&lab, Machine::X86, n, &disks[n - 1], &format!("vigie.node=box-{n} {SHELL}"));
        let mut guests = (1..=3).map(start).collect::<Result<Vec<_>, _>>()?;
        answers(&lab, TARGET, &["SET", "a", "b"], "OK")?;
        note(format!("run {run}: three boxes switched on → a write at the virtual address {:?}", begun.elapsed()));
        if run > 0 {
            cold.push(begun.elapsed());
        }
        for guest in &mut guests {
            guest.leaves("poweroff")?;
        }
        guests.iter_mut().try_for_each(Guest::wait_off)?;
    }
    note(format!("a cluster, median of {RUNS}: switched on → a write at the virtual address {:?}", median(cold)));
    Ok(())
}
