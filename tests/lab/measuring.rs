//! The measuring client against one plain redis-server: its numbers must be right before they are believed of a
//! cluster.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;
use vigie::base::Secret;
use vigie::operate::lab::client::{Client, Plan, read_back};
use vigie::operate::lab::hosts::{HostSpec, Lab, signal};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::clock;

use super::whole::text;
use super::{Case, Outcome, wait_for};

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 6379);

pub(crate) const CASES: &[Case] = &[
    Case { name: "a_steady_server_has_no_outage", needs: &["redis-server"], run: steady },
    Case { name: "a_killed_server_is_an_outage_of_the_gap", needs: &["redis-server"], run: killed },
    Case { name: "a_pulled_cable_is_an_outage_of_the_gap", needs: &["redis-server"], run: cut },
    Case { name: "wiped_data_is_counted_as_lost", needs: &["redis-server"], run: wiped },
];

struct World {
    lab: Lab,
    plan: Plan,
}

impl World {
    fn new(sandbox: &Sandbox) -> Result<(Self, Child), String> {
        let host = |name: &str, last| HostSpec { name: name.to_owned(), address: [10, 0, 0, last].into(), prefix: 24 };
        let lab = Lab::new(&sandbox.scratch, &[host("server", 1), host("client", 2)]).map_err(text)?;
        let world = Self { lab, plan: Plan::new(SERVER, Secret::new("secret"), "run-1") };
        let redis = world.redis()?;
        Ok((world, redis))
    }

    /// A redis-server that fsyncs every write, so that a kill loses nothing.
    fn redis(&self) -> Result<Child, String> {
        let mut command = Command::new("redis-server");
        command.current_dir(self.lab.scratch());
        command.args(["--bind", "10.0.0.1", "--requirepass", "secret", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always"]);
        self.lab.spawn("server", &mut command, "redis").map_err(text)
    }

    fn client(&self) -> Result<Client, String> {
        let started = clock::now();
        let client = Client::start(&self.lab, "client", self.plan.clone()).map_err(text)?;
        if !client.wait_steady(started, Duration::from_millis(300), Duration::from_secs(10)) {
            return Err(format!("no steady writes: {:?}", client.tally().kinds));
        }
        Ok(client)
    }

    fn lost(&self, client: Client) -> Result<usize, String> {
        let acks = client.stop().acks;
        assert!(!acks.is_empty());
        let network = self.lab.network("client").map_err(text)?;
        let lost = read_back(&network, &self.plan, &acks, false).map_err(text)?.len();
        assert_eq!(read_back(&network, &self.plan, &acks, true).map_err(text)?.len(), lost);
        // Now that the found ones are removed, all of them are missing: the checker is able to see it.
        assert_eq!(read_back(&network, &self.plan, &acks, true).map_err(text)?.len(), acks.len());
        Ok(lost)
    }
}

fn steady(sandbox: &Sandbox) -> Outcome {
    let (world, mut redis) = World::new(sandbox)?;
    let client = world.client()?;
    let middle = clock::now();
    if !client.wait_steady(middle, Duration::from_millis(500), Duration::from_secs(20)) {
        return Err(format!("no steady writes: {:?}", client.tally().kinds));
    }
    let outage = client.tally().outage(middle);
    assert!(outage.is_some_and(|outage| outage < Duration::from_millis(500)), "{outage:?}");
    assert_eq!(client.tally().errors, 0);
    assert_eq!(world.lost(client)?, 0);
    redis.kill().and_then(|()| redis.wait()).map_err(text)?;
    Ok(())
}

/// The outage that the client saw, against the time that was really without service.
fn right(client: &Client, fault: vigie::base::Instant, back: vigie::base::Instant, at_least: Duration) -> Outcome {
    let settled = client.wait_steady(back, Duration::from_millis(300), Duration::from_secs(20));
    let tally = client.tally();
    let (outage, stall) = (tally.outage(fault).unwrap_or_default(), tally.max_stall(fault).unwrap_or_default());
    assert!(settled, "writes do not flow again: {:?}", tally.kinds);
    assert!(outage >= at_least, "{outage:?} where {at_least:?} passed: {:?}", tally.kinds);
    let first = tally.acks.iter().find(|ack| ack.at > back).map(|ack| ack.at);
    let at_most = first.map(|first| first.since(fault) + Duration::from_millis(100));
    assert!(at_most.is_some_and(|at_most| outage <= at_most), "{outage:?}, at most {at_most:?} is possible");
    assert!(stall >= outage, "a connection waits at least as long as all of them together");
    Ok(())
}

fn killed(sandbox: &Sandbox) -> Outcome {
    let (world, mut redis) = World::new(sandbox)?;
    let client = world.client()?;
    let fault = clock::now();
    signal(i32::try_from(redis.id()).unwrap_or(0), Signal::SIGKILL).map_err(text)?;
    redis.wait().map_err(text)?;
    std::thread::sleep(Duration::from_millis(600));
    let back = clock::now();
    let mut redis = world.redis()?;
    right(&client, fault, back, Duration::from_millis(600))?;
    assert!(client.tally().connect_errors > 0, "refused connections are seen");
    // With every write on disk before its reply, a kill loses nothing.
    assert_eq!(world.lost(client)?, 0);
    redis.kill().and_then(|()| redis.wait()).map_err(text)?;
    Ok(())
}

fn cut(sandbox: &Sandbox) -> Outcome {
    let (world, mut redis) = World::new(sandbox)?;
    let client = world.client()?;
    let fault = clock::now();
    world.lab.cut("server").map_err(text)?;
    std::thread::sleep(Duration::from_millis(700));
    let back = clock::now();
    world.lab.heal("server").map_err(text)?;
    right(&client, fault, back, Duration::from_millis(700))?;
    assert!(client.tally().errors >= 1, "requests without a reply are errors: {:?}", client.tally().kinds);
    assert_eq!(world.lost(client)?, 0);
    redis.kill().and_then(|()| redis.wait()).map_err(text)?;
    Ok(())
}

fn wiped(sandbox: &Sandbox) -> Outcome {
    let (world, mut redis) = World::new(sandbox)?;
    let client = world.client()?;
    let before = client.tally().acks.len();
    let said = world.lab.exec("client", || {
        let mut stream = TcpStream::connect_timeout(&SERVER, Duration::from_secs(1))?;
        stream.write_all(b"AUTH secret\r\nFLUSHALL\r\n")?;
        let mut replies = [0; 10];
        stream.read_exact(&mut replies).map(|()| String::from_utf8_lossy(&replies).into_owned())
    });
    assert_eq!(said.map_err(text)?.map_err(text)?, "+OK\r\n+OK\r\n");
    let after = client.tally().acks.len();
    wait_for("more writes", Duration::from_secs(10), || client.tally().acks.len() > after + 50)?;
    let lost = world.lost(client)?;
    assert!((before..=after + 8).contains(&lost), "{lost} lost; {before} to {after} were there when all was wiped");
    redis.kill().and_then(|()| redis.wait()).map_err(text)?;
    Ok(())
}
