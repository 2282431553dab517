//! The lab itself: hosts, cables, and that nothing is ever left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use vigie::operate::lab::hosts::{HostSpec, Lab};
use vigie::operate::lab::sandbox::{self, Sandbox};

use super::{Case, Outcome, wait_for};

/// The argument by which this program becomes the one that is killed.
pub(crate) const VICTIM: &str = "--victim";

pub(crate) const CASES: &[Case] = &[
    Case { name: "hosts_reach_each_other", needs: &[], run: hosts_reach_each_other },
    Case { name: "a_pulled_cable_cuts_and_a_healed_one_joins", needs: &[], run: cut_and_heal },
    Case { name: "processes_belong_to_their_host", needs: &["sleep"], run: processes_belong_to_their_host },
    Case { name: "ip_netns_finds_the_hosts", needs: &["ip"], run: ip_netns_finds_the_hosts },
    Case { name: "exit_codes_pass_through", needs: &[], run: exit_codes_pass_through },
    Case { name: "a_panic_inside_is_an_exit_code", needs: &[], run: a_panic_inside },
    Case { name: "nothing_is_left_after_kill_9_of_the_outer_process", needs: &["sleep"], run: after_kill },
    Case { name: "nothing_is_left_after_a_signal", needs: &["sleep"], run: after_signals },
];

fn specs(count: u8) -> Vec<HostSpec> {
    let spec = |n| HostSpec { name: format!("host-{n}"), address: IpAddr::from([10, 0, 0, n]), prefix: 24 };
    (1..=count).map(spec).collect()
}

fn lab(sandbox: &Sandbox, count: u8) -> Result<Lab, String> {
    Lab::new(&sandbox.scratch, &specs(count)).map_err(|error| error.to_string())
}

/// Listens on a host and answers every connection with a byte, until the private world ends.
fn serve(lab: &Lab, host: &str, address: SocketAddr) -> Outcome {
    let listener = lab.exec(host, || TcpListener::bind(address)).map_err(|error| error.to_string())?;
    let listener = listener.map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"!"));
        }
    });
    Ok(())
}

fn reaches(lab: &Lab, host: &str, address: SocketAddr) -> bool {
    let tried = lab.exec(host, || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(300))?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.read_exact(&mut [0])
    });
    matches!(tried, Ok(Ok(())))
}

fn hosts_reach_each_other(sandbox: &Sandbox) -> Outcome {
    let lab = lab(sandbox, 3)?;
    for server in 1..=3u8 {
        let address = SocketAddr::from(([10, 0, 0, server], 7));
        serve(&lab, &format!("host-{server}"), address)?;
        for client in 1..=3u8 {
            let host = format!("host-{client}");
            wait_for(&format!("{host} reaches {address}"), Duration::from_secs(5), || reaches(&lab, &host, address))?;
        }
        let addresses = lab.addresses(&format!("host-{server}")).map_err(|error| error.to_string())?;
        assert_eq!(addresses, [(address.ip(), 24)]);
    }
    assert!(lab.addresses("host-4").is_err() && lab.cut("host-4").is_err());
    Ok(())
}

fn cut_and_heal(sandbox: &Sandbox) -> Outcome {
    let lab = lab(sandbox, 3)?;
    let address = SocketAddr::from(([10, 0, 0, 1], 7));
    serve(&lab, "host-1", address)?;
    let other = SocketAddr::from(([10, 0, 0, 3], 7));
    serve(&lab, "host-3", other)?;
    let joined = || reaches(&lab, "host-2", address);
    wait_for("host-2 reaches host-1", Duration::from_secs(5), joined)?;
    for _ in 0..3 {
        lab.cut("host-1").map_err(|error| error.to_string())?;
        assert!(!joined(), "still reached through a pulled cable");
        assert!(reaches(&lab, "host-1", address), "a host always reaches itself");
        assert!(reaches(&lab, "host-2", other), "the others are not concerned");
        lab.heal("host-1").map_err(|error| error.to_string())?;
        wait_for("the healed host is reached", Duration::from_secs(5), joined)?;
    }
    Ok(())
}

fn processes_belong_to_their_host(sandbox: &Sandbox) -> Outcome {
    let lab = lab(sandbox, 2)?;
    let mut child =
        lab.spawn("host-1", Command::new("sleep").arg("1000"), "sleep").map_err(|error| error.to_string())?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let found = lab.processes("host-1").map_err(|error| error.to_string())?;
    assert_eq!(
        found.iter().map(|process| (process.pid, process.command.as_str())).collect::<Vec<_>>(),
        [(pid, "sleep")]
    );
    assert_eq!(lab.processes("host-2").map_err(|error| error.to_string())?, []);
    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
    assert_eq!(lab.processes("host-1").map_err(|error| error.to_string())?, []);
    assert!(lab.spawn("host-1", &mut Command::new("/no/such/program"), "none").is_err());
    Ok(())
}

fn ip_netns_finds_the_hosts(sandbox: &Sandbox) -> Outcome {
    let _lab = lab(sandbox, 2)?;
    let run = |arguments: &[&str]| {
        let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let names: BTreeSet<_> = run(&["netns", "list"])?.split_whitespace().map(str::to_owned).collect();
    assert!(["host-1", "host-2", "switch"].iter().all(|name| names.contains(*name)), "{names:?}");
    let seen = run(&["netns", "exec", "host-1", "ip", "-brief", "address", "show", "dev", "eth0"])?;
    assert!(seen.contains("10.0.0.1/24"), "{seen}");
    Ok(())
}

fn exit_codes_pass_through(_: &Sandbox) -> Outcome {
    for code in [0, 1, 7, 255] {
        let got = sandbox::enter(|_| code).map_err(|error| error.to_string())?;
        assert_eq!(got, code);
    }
    Ok(())
}

fn a_panic_inside(_: &Sandbox) -> Outcome {
    let got = sandbox::enter(|_| {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("on purpose")
    });
    assert_eq!(got.map_err(|error| error.to_string())?, 70);
    Ok(())
}

/// What this program does as the victim: a lab with a process and a file, then it waits.
pub(crate) fn victim(arguments: &[String]) -> ExitCode {
    let marker = arguments.first().cloned().unwrap_or_default();
    let entered = sandbox::enter(|sandbox| {
        let Ok(lab) = lab(sandbox, 2) else { return 1 };
        // An orphan, in a session of its own, that ignores what can be ignored.
        let script = format!("trap '' INT TERM HUP; (sleep 1000; : {marker}) & sleep 1000; : {marker}");
        let Ok(_child) = lab.spawn("host-1", Command::new("sh").args(["-c", &script]), "sh") else { return 1 };
        if fs::write(sandbox.scratch.join(&marker), "x").is_err() {
            return 1;
        }
        println!("ready");
        std::thread::sleep(Duration::from_secs(1_000));
        0
    });
    ExitCode::from(entered.unwrap_or(1))
}

/// Everything of the machine that a lab could leave something in.
fn traces() -> Vec<String> {
    let names = |directory: &str| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().map(str::to_owned);
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let interfaces = interfaces.lines().filter_map(|line| line.split(':').next().map(str::to_owned));
    let all = names("/run").into_iter().chain(names("/run/netns")).chain(mounts).chain(interfaces);
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Processes with the marker in their command lines, but for the one given.
fn marked(marker: &str, but: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != but);
    let line = |pid| {
        let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).replace('\0', " ");
        line.contains(marker).then_some(line)
    };
    pids.filter_map(line).collect()
}

/// Starts the victim, ends it with `signal`, and compares the machine before and after. Returns how it ended.
fn kill_victim(marker: &str, signal: nix::sys::signal::Signal) -> Result<std::process::ExitStatus, String> {
    let before = traces();
    let fault = |error: std::io::Error| error.to_string();
    let program = std::env::current_exe().map_err(fault)?;
    let mut victim = Command::new(program).args([VICTIM, marker]).stdout(Stdio::piped()).spawn().map_err(fault)?;
    let mut said = [0; 6];
    let ready = victim.stdout.take().map(|mut stdout| stdout.read_exact(&mut said));
    if !matches!(ready, Some(Ok(()))) {
        let _ = victim.kill().and_then(|()| victim.wait());
        return Err("the victim did not become ready".to_owned());
    }
    let running = marked(marker, victim.id());
    assert!(running.len() >= 3, "the lab's processes should be seen from outside: {running:?}");
    assert_eq!(traces(), before, "the lab can be seen from outside while it runs");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(victim.id()).unwrap_or(0));
    nix::sys::signal::kill(pid, signal).map_err(|error| error.to_string())?;
    let mut status = None;
    let ended = wait_for(&format!("it ends by {signal}"), Duration::from_secs(10), || {
        status = victim.try_wait().ok().flatten();
        status.is_some()
    });
    if ended.is_err() {
        let _ = victim.kill().and_then(|()| victim.wait());
    }
    ended?;
    let status = status.ok_or("it ended without a status")?;
    wait_for("every process of the lab ends", Duration::from_secs(10), || marked(marker, 0).is_empty())?;
    assert_eq!(traces(), before, "something is left");
    Ok(status)
}

fn after_kill(_: &Sandbox) -> Outcome {
    let status = kill_victim("victim-of-kill-9", nix::sys::signal::Signal::SIGKILL)?;
    assert_eq!(status.signal(), Some(9));
    Ok(())
}

fn after_signals(_: &Sandbox) -> Outcome {
    use nix::sys::signal::Signal;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let marker = format!("victim-of-{signal}");
        let status = kill_victim(&marker, signal)?;
        assert_eq!(status.code(), Some(128 + signal as i32), "{status:?}");
        assert!(marked(&marker, 0).is_empty(), "everything is gone when the outer process is");
    }
    Ok(())
}
