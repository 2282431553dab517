//! What vigie says to a service manager, heard on the socket that systemd would listen on.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vigie::operate::lab::cluster::{Cluster, Layout};
use vigie::operate::lab::hosts::signal;
use vigie::operate::lab::sandbox::Sandbox;

use super::{Case, Outcome};

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const CASES: &[Case] = &[Case { name: "a_service_manager_is_told", needs: &["redis-server"], run: told }];

/// Waits for a message with that line; what else is said meanwhile is skipped.
fn hears(socket: &UnixDatagram, wanted: &str) -> Outcome {
    let deadline = Instant::now() + LIMIT;
    let mut heard = Vec::new();
    let mut message = [0; 4_096];
    while Instant::now() < deadline {
        match socket.recv(&mut message) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if text.lines().any(|line| line.starts_with(wanted)) {
                    return Ok(());
                }
                heard.push(text);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("{wanted:?} was not said; heard: {heard:?}"))
}

fn told(sandbox: &Sandbox) -> Outcome {
    let text = |error: &dyn std::error::Error| error.to_string();
    let binary = Path::new(env!("CARGO_BIN_EXE_vigie"));
    let cluster = Cluster::start(sandbox, Layout::classic(), binary).map_err(|error| text(&error))?;
    cluster.wait_healthy(LIMIT * 3).map_err(|error| text(&error))?;
    cluster.signal_guard("redis-03", Signal::SIGTERM).map_err(|error| text(&error))?;
    cluster.wait_ended("redis-03", LIMIT).map_err(|error| text(&error))?;

    let path = sandbox.scratch.join("notify.sock");
    let socket = UnixDatagram::bind(&path).map_err(|error| text(&error))?;
    socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(|error| text(&error))?;
    let mut command = cluster.vigie("redis-03");
    command.arg("run").env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let mut guard = cluster.lab().spawn("redis-03", &mut command, "redis-03").map_err(|error| text(&error))?;
    let pid = i32::try_from(guard.id()).map_err(|error| text(&error))?;

    hears(&socket, "READY=1")?;
    hears(&socket, "STATUS=master redis-01; all nodes are well")?;
    hears(&socket, "WATCHDOG=1")?;
    hears(&socket, "WATCHDOG=1")?;
    signal(pid, Signal::SIGHUP).map_err(|error| text(&error))?;
    hears(&socket, "RELOADING=1")?;
    hears(&socket, "READY=1")?;
    signal(pid, Signal::SIGTERM).map_err(|error| text(&error))?;
    hears(&socket, "STOPPING=1")?;
    let status = guard.wait().map_err(|error| text(&error))?;
    if status.success() { Ok(()) } else { Err(format!("a told stop ended with {status}")) }
}
