//! Writes through a failover with redis-rs: `redis-rs-client PASSWORD SENTINEL…`, the sentinels as addresses.
//!
//! Says `ready MASTER` once a write is acknowledged and read from a replica, writes until its input ends, and then says, as the
//! other clients here do: `acked=… errors=… lost=… gap_ms=… reads=… master=… replicas=…`.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Commands, Connection, ConnectionAddr, RedisResult, TypedCommands};

static ENDED: AtomicBool = AtomicBool::new(false);
const LIMIT: Duration = Duration::from_secs(1);

fn client(password: &str, sentinels: &[String], kind: SentinelServerType) -> RedisResult<SentinelClient> {
    let addresses = sentinels.iter().map(|host| ConnectionAddr::Tcp(host.clone(), 26379));
    SentinelClientBuilder::new(addresses, "mymaster", kind)?.set_client_to_redis_password(password).build()
}

fn open(client: &mut SentinelClient) -> RedisResult<Connection> {
    let connection = client.get_connection()?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.set_write_timeout(Some(LIMIT))?;
    Ok(connection)
}

fn host(client: &mut SentinelClient) -> RedisResult<String> {
    Ok(match client.get_client()?.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, _) => host.clone(),
        other => format!("{other:?}"),
    })
}

fn main() -> RedisResult<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (password, sentinels) = arguments.split_first().expect("PASSWORD SENTINEL…");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ENDED.store(true, Ordering::Relaxed);
    });
    let mut master = client(password, sentinels, SentinelServerType::Master)?;
    let mut replica = client(password, sentinels, SentinelServerType::Replica)?;
    let (mut to_master, mut to_replica) = (None, None);
    let (mut acked, mut errors, mut reads, mut number) = (Vec::new(), 0, 0, 0_u32);
    let (mut last, mut gap, mut ready) = (Instant::now(), Duration::ZERO, false);
    while !ENDED.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("redis-rs:{number}");
        let written = match to_master.take() {
            Some(connection) => Ok(connection),
            None => open(&mut master),
        };
        match written.and_then(|mut connection| TypedCommands::set(&mut connection, &key, number).map(|()| connection))
        {
            Ok(connection) => {
                to_master = Some(connection);
                gap = if acked.is_empty() { gap } else { gap.max(last.elapsed()) };
                last = Instant::now();
                acked.push(number);
            }
            Err(error) => {
                errors += 1;
                if errors <= 3 {
                    eprintln!("write: {error}");
                }
            }
        }
        if number % 10 == 0 {
            let read = match to_replica.take() {
                Some(connection) => Ok(connection),
                None => open(&mut replica),
            };
            let first = format!("redis-rs:{}", acked.first().copied().unwrap_or(0));
            match read.and_then(|mut connection| {
                Commands::get(&mut connection, first).map(|found: Option<u32>| (connection, found))
            }) {
                Ok((connection, found)) => {
                    to_replica = Some(connection);
                    reads += u32::from(found.is_some());
                }
                Err(error) if reads == 0 => eprintln!("read: {error}"),
                Err(_) => {}
            }
        }
        if !ready && reads > 0 && !acked.is_empty() {
            ready = true;
            println!("ready {}", host(&mut master)?);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut connection = open(&mut master)?;
    let mut lost = 0;
    for number in &acked {
        let found: Option<u32> = Commands::get(&mut connection, format!("redis-rs:{number}"))?;
        lost += u32::from(found != Some(*number));
    }
    let (acked, gap) = (acked.len(), gap.as_millis());
    let (master, replica) = (host(&mut master)?, host(&mut replica)?);
    println!("acked={acked} errors={errors} lost={lost} gap_ms={gap} reads={reads} master={master} replicas={replica}");
    Ok(())
}
