//! Connections that say nothing, in numbers, and guesses at the password: others are served meanwhile.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use vigie::operate::client;
use vigie::operate::lab::client::Client;
use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use crate::whole::text;
use crate::{Case, Outcome, note, wait_for};

const NEEDS: &[&str] = &["redis-server", "ip"];
const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");
const LIMIT: Duration = Duration::from_secs(60);
/// A client that comes while a crowd is there is served within this time, also on a busy machine.
const SERVED: Duration = Duration::from_secs(5);
/// More than the 10,000 clients that a proxy serves by default.
const ON_THE_VIP: usize = 12_000;
const ON_A_SENTINEL: usize = 4_000;
/// Where a crowd comes from, beside the address of the client's host: no one source may have all places.
const STRANGERS: [[u8; 4]; 3] = [[192, 168, 0, 101], [192, 168, 0, 102], [192, 168, 0, 103]];

pub(crate) const CASES: &[Case] = &[
    Case { name: "a_silent_crowd_on_the_vip_keeps_nobody_out", needs: NEEDS, run: on_the_vip },
    Case { name: "a_silent_crowd_on_a_sentinel_keeps_nobody_out", needs: NEEDS, run: on_a_sentinel },
    Case { name: "guesses_at_the_password_are_told_of_and_slow", needs: NEEDS, run: guesses },
];

/// A healthy cluster; the client's host has the addresses of the strangers too.
fn cluster(sandbox: &Sandbox) -> Result<Cluster, String> {
    let cluster = Cluster::start(sandbox, Layout::classic(), Path::new(VIGIE)).map_err(text)?;
    cluster.wait_healthy(LIMIT).map_err(text)?;
    for address in STRANGERS {
        let address = format!("{}/24", IpAddr::from(address));
        let add = || Command::new("ip").args(["addr", "add", &address, "dev", "eth0"]).status();
        let status = cluster.lab().exec(CLIENT, add).map_err(text)?.map_err(text)?;
        assert!(status.success(), "ip addr add {address}: {status}");
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(text)?;
    let wanted = soft.max(16_384);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).map_err(text)?;
    Ok(cluster)
}

fn connect(source: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}

/// Runs `act` while so many connections that say nothing are kept open to `to`; what is closed is opened again.
fn besieged(cluster: &Cluster, to: SocketAddr, size: usize, act: impl FnOnce() -> Outcome) -> Outcome {
    let (over, open, made) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let siege = || {
            let mut crowd = VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                let before = made.fetch_add(1, Ordering::Relaxed);
                if let Ok(stream) = connect(STRANGERS[before % STRANGERS.len()], to) {
                    crowd.push_back(stream);
                }
                if crowd.len() > size {
                    crowd.pop_front();
                    // The pressure stays: some two thousand new ones in a second.
                    std::thread::sleep(Duration::from_micros(400));
                }
                open.store(crowd.len(), Ordering::Relaxed);
            }
        };
        let siege = scope.spawn(move || cluster.lab().exec(CLIENT, siege));
        let there = wait_for("the crowd is there", LIMIT * 2, || open.load(Ordering::Relaxed) >= size)
            .map_err(|error| format!("{error}: {} of {size}", open.load(Ordering::Relaxed)));
        // Also if the act panics, or the siege would never end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| there.and_then(|()| act())));
        over.store(true, Ordering::Relaxed);
        siege.join().map_err(|_| "the siege panicked")?.map_err(text)?;
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What a new client from `source` is answered, and how long that took, the connection included.
fn ask(
    cluster: &Cluster,
    source: [u8; 4],
    to: SocketAddr,
    words: &str,
    lines: usize,
) -> Result<(String, Duration), String> {
    let asked = cluster.lab().exec(CLIENT, || {
        let start = Instant::now();
        let mut stream = connect(source, to)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(words.as_bytes())?;
        let (mut said, mut more) = (String::new(), [0; 1_024]);
        while said.matches("\r\n").count() < lines {
            match stream.read(&mut more)? {
                0 => break,
                length => said += &String::from_utf8_lossy(&more[..length]),
            }
        }
        Ok::<_, std::io::Error>((said, start.elapsed()))
    });
    asked.map_err(text)?.map_err(text)
}

/// The longest that any of so many new clients waited for `expected`.
fn slowest(
    cluster: &Cluster,
    source: [u8; 4],
    to: SocketAddr,
    words: &str,
    expected: &str,
    count: usize,
) -> Result<Duration, String> {
    let mut slowest = Duration::ZERO;
    for n in 0..count {
        let lines = expected.matches("\r\n").count();
        let (said, took) = ask(cluster, source, to, words, lines).map_err(|error| format!("client {n}: {error}"))?;
        if said != expected || took > SERVED {
            return Err(format!("client {n} from {}: {said:?} after {took:?}", IpAddr::from(source)));
        }
        slowest = slowest.max(took);
    }
    Ok(slowest)
}

/// What a node has recorded under that name.
fn events(cluster: &Cluster, node: &str, name: &str) -> Vec<String> {
    let records = client::events(&cluster.runtime_dir(node), false).into_iter().flatten().flatten();
    records.filter(|record| record.name == name).map(|record| record.text).collect()
}

fn on_the_vip(sandbox: &Sandbox) -> Outcome {
    let cluster = cluster(sandbox)?;
    let vip = SocketAddr::new(cluster.layout().vip, 6379);
    let password = cluster.layout().password.reveal().to_owned();
    let own = match cluster.layout().client {
        IpAddr::V4(own) => own.octets(),
        IpAddr::V6(own) => return Err(format!("{own} is no IPv4 address")),
    };
    let holder = *cluster.vip_holders().map_err(text)?.first().ok_or("nobody holds the address")?;
    let started = clock::now();
    let writer = Client::start(cluster.lab(), CLIENT, cluster.plan("besieged")).map_err(text)?;
    let flows = |since| match writer.wait_steady(since, Duration::from_millis(500), LIMIT) {
        true => Ok(()),
        false => Err(format!("writes do not flow: {:?}", writer.tally().kinds)),
    };
    flows(started)?;
    besieged(&cluster, vip, ON_THE_VIP, || {
        let words = format!("AUTH {password}\r\nSET k 1\r\n");
        let apart = slowest(&cluster, own, vip, &words, "+OK\r\n+OK\r\n", 50)?;
        let among = slowest(&cluster, STRANGERS[0], vip, &words, "+OK\r\n+OK\r\n", 50)?;
        // Those who had spoken before were not cut for it.
        let cut = writer.tally().errors;
        assert_eq!(cut, 0, "{:?}", writer.tally().kinds);
        let old = cluster.status(holder).map_err(text)?.master.and_then(|master| master.node).ok_or("no master")?;
        flows(clock::now())?;
        let fault = clock::now();
        cluster.kill_redis(&old).map_err(text)?;
        flows(fault)?;
        let outage = writer.tally().outage(fault).ok_or("nothing was written after the fault")?;
        note(format!(
            "{ON_THE_VIP} silent connections on the address: a new client is served within {} ms, from among them within \
             {} ms; outage of a killed redis {} ms",
            apart.as_millis(),
            among.as_millis(),
            outage.as_millis()
        ));
        let told = events(&cluster, holder, "crowd");
        assert!(told.first().is_some_and(|text| text.contains("192.168.0.10")), "{told:?}");
        Ok(())
    })?;
    cluster.wait_healthy(LIMIT).map(drop).map_err(text)
}

fn on_a_sentinel(sandbox: &Sandbox) -> Outcome {
    let cluster = cluster(sandbox)?;
    let sentinel = SocketAddr::from(([192, 168, 0, 5], 26379));
    besieged(&cluster, sentinel, ON_A_SENTINEL, || {
        let apart = slowest(&cluster, [192, 168, 0, 100], sentinel, "PING\r\n", "+PONG\r\n", 50)?;
        let among = slowest(&cluster, STRANGERS[0], sentinel, "PING\r\n", "+PONG\r\n", 50)?;
        note(format!(
            "{ON_A_SENTINEL} silent connections on a sentinel: PONG within {} ms, from among them within {} ms",
            apart.as_millis(),
            among.as_millis()
        ));
        // And it goes on judging, voting and leading.
        let master = |cluster: &Cluster| cluster.status("redis-02").ok().and_then(|status| status.master?.node);
        let before = master(&cluster).ok_or("a healthy cluster has a master")?;
        cluster.kill_redis(&before).map_err(text)?;
        let replaced = || master(&cluster).is_some_and(|now| now != before);
        wait_for("the master is replaced while a sentinel is besieged", LIMIT, replaced)?;
        cluster.wait_healthy(LIMIT).map(drop).map_err(text)
    })
}

fn guesses(sandbox: &Sandbox) -> Outcome {
    const GUESSES: usize = 8;
    let cluster = cluster(sandbox)?;
    let sentinel = SocketAddr::from(([192, 168, 0, 5], 26379));
    let password = cluster.layout().password.reveal();
    let words = "AUTH wrong\r\n".repeat(GUESSES);
    let (said, took) = ask(&cluster, STRANGERS[0], sentinel, &words, GUESSES)?;
    assert_eq!(said.matches("-WRONGPASS").count(), GUESSES, "{said:?}");
    // 0, 100, 200 … ms.
    assert!(took >= Duration::from_millis(2_800), "{GUESSES} guesses took {took:?}");
    // The same from a connection each.
    let (said, took) = ask(&cluster, STRANGERS[0], sentinel, "AUTH wrong\r\n", 1)?;
    assert!(
        said.starts_with("-WRONGPASS") && took >= Duration::from_millis(GUESSES as u64 * 100),
        "{said:?}: {took:?}"
    );
    let words = format!("AUTH {password}\r\nPING\r\n");
    slowest(&cluster, STRANGERS[0], sentinel, &words, "+OK\r\n+PONG\r\n", 5)?;
    let told = || events(&cluster, "redis-02", "auth-failed");
    let counted =
        |line: &String| -> Option<usize> { line.split_once("from 192.168.0.101 (")?.1.split(' ').next()?.parse().ok() };
    wait_for("all guesses are told of", LIMIT, || told().iter().filter_map(counted).sum::<usize>() == GUESSES + 1)
        .map_err(|error| format!("{error}: {:?}", told()))?;
    assert_eq!(events(&cluster, "redis-01", "auth-failed"), Vec::<String>::new());
    cluster.wait_healthy(LIMIT).map(drop).map_err(text)
}
