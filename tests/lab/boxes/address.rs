//! Somebody else answers for a box's address: while it boots, while it serves, and a twin.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use vigie::operate::lab::client::Client;
use vigie::operate::lab::hosts::Lab;
use vigie::operate::lab::sandbox::Sandbox;

use super::super::whole::{text, wait_ok};
use super::super::{Outcome, note};
use super::{
    BOOT_TIME, CLIENT, Guest, Machine, PASSWORD, SERVES, STRANGER, TARGET, address, ask, disk, segment, tail, writer,
};

const NAMED: &str = "vigie.node=box-1";
const TAKEN: &str = "ADDRESS TAKEN: 192.168.0.11 is used by another box";
const DISPUTED: &str = "ADDRESS DISPUTED: another host answers for 192.168.0.11";
/// Said once a box that has just come up may call the address its own.
const SETTLED: &str = "nobody else answers for 192.168.0.11";
/// The longest time between two of its questions, and what an emulated box takes for one.
const ASKS_TIME: Duration = Duration::from_secs(90);

/// Has the stranger answer, or no longer answer, those who ask for the address of the box: by the hand of its kernel.
fn forge(lab: &Lab, verb: &str) -> Outcome {
    let mut ip = Command::new("ip");
    ip.args(["addr", verb, &format!("{}/32", address(1)), "dev", "eth0"]);
    let done = lab.spawn(STRANGER, &mut ip, "forge").map_err(text)?.wait().map_err(text)?;
    if done.success() { Ok(()) } else { Err(format!("ip addr {verb}: {done}")) }
}

/// Waits until a person at the box sees that line, or no longer.
fn wait_screen(guest: &Guest, line: &str, there: bool) -> Outcome {
    let seen = || {
        std::thread::sleep(Duration::from_millis(100));
        let screen = guest.screen();
        if screen.contains(line) == there { Ok(()) } else { Err(screen) }
    };
    let what = format!("{line:?} is {} the screen", if there { "on" } else { "off" });
    wait_ok(&what, Instant::now(), BOOT_TIME, seen).map(drop)
}

pub(super) fn all(sandbox: &Sandbox) -> Outcome {
    let lab = segment(sandbox, 1)?;
    let box_1 = disk(sandbox, "one", 1)?;
    forge(&lab, "add")?;
    let guest = Guest::start(&lab, Machine::X86, 1, &box_1, NAMED)?;
    let outcome = while_booting(&lab, &guest).and_then(|()| while_serving(&lab, &guest));
    outcome.map_err(|why| format!("{why}\n{}", tail(&guest.said())))
}

/// It waits, says for whom, and comes up by itself.
fn while_booting(lab: &Lab, guest: &Guest) -> Outcome {
    guest.wait_said(TAKEN)?;
    wait_screen(guest, TAKEN, true)?;
    let own = SocketAddr::new(address(1), TARGET.port());
    for at in [own, TARGET] {
        if let Ok(reply) = ask(lab, at, Some(PASSWORD), &["PING"]) {
            return Err(format!("while somebody else has its address, {at} answers {reply:?}"));
        }
    }
    if guest.said().contains("SAFE MODE") {
        return Err("it went into safe mode".to_owned());
    }
    forge(lab, "del")?;
    let since = Instant::now();
    guest.wait_said("nobody else uses 192.168.0.11 any more: this box takes it")?;
    guest.wait_said(SERVES)?;
    note(format!(
        "forged replies while a box boots: it waits; it serves {} ms after the last one",
        since.elapsed().as_millis()
    ));
    wait_screen(guest, TAKEN, false)?;
    guest.wait_said(SETTLED).map(drop)
}

/// It goes on, and tells the segment who has the address.
fn while_serving(lab: &Lab, guest: &Guest) -> Outcome {
    let client = Client::start(lab, CLIENT, writer("disputed")).map_err(text)?;
    let few = || if client.tally().acks.len() < 50 { Err(format!("{:?}", client.tally().kinds)) } else { Ok(()) };
    wait_ok("writes flow", Instant::now(), BOOT_TIME, few)?;
    let before = client.tally().acks.len();
    forge(lab, "add")?;
    let since = Instant::now();
    guest.wait_said(DISPUTED)?;
    wait_screen(guest, DISPUTED, true)?;
    let own = SocketAddr::new(address(1), TARGET.port());
    // Two answer the client's question; what the box then announces is what the client's cache ends with.
    let defended = || {
        // Only makes the client's kernel ask who has the address.
        let _ = ask(lab, own, Some(PASSWORD), &["PING"]);
        let table =
            lab.exec(CLIENT, || fs::read_to_string("/proc/thread-self/net/arp")).map_err(text)?.map_err(text)?;
        let line = table.lines().find(|line| line.starts_with("192.168.0.11 ")).unwrap_or_default();
        if line.contains("52:54:00:00:00:01") { Ok(()) } else { Err(format!("the client's cache: {table}")) }
    };
    wait_ok("the address leads to the box", since, ASKS_TIME, defended)?;
    forge(lab, "del")?;
    guest.wait_said(&format!("{SETTLED} any more"))?;
    wait_screen(guest, DISPUTED, false)?;
    let tally = client.stop();
    let answered = || match ask(lab, own, Some(PASSWORD), &["PING"])?.text() {
        Some("PONG") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_ok("the box answers under its own address", Instant::now(), BOOT_TIME, answered)?;
    let during = tally.acks.len() - before;
    note(format!(
        "forged replies while it serves, for {} s: reported, defended; {during} writes, {} errors",
        since.elapsed().as_secs(),
        tally.errors
    ));
    for no in ["vigie run ended", "SAFE MODE"] {
        if guest.said().contains(no) {
            return Err(format!("it said {no:?}"));
        }
    }
    if tally.errors > 0 || during < 50 { Err(format!("{during} writes, errors: {:?}", tally.kinds)) } else { Ok(()) }
}
