//! What `vigie why` says when sentinels are cut off, on the nodes that have one and on those that have not.

use std::path::Path;
use std::time::Duration;

use vigie::operate::lab::cluster::{Cluster, Layout};
use vigie::operate::lab::sandbox::Sandbox;

use super::whole::{HEALTHY_TIME, text};
use super::{Case, Outcome, wait_for};

const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");
/// A node has noticed what was done within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
const PROXY: &str = "haproxy-01";

pub(crate) const CASES: &[Case] =
    &[Case { name: "sentinels_that_are_cut_off_are_named_as_what_blocks", needs: &["redis-server"], run: cut_off }];

/// The exit code of `vigie why` on a node, and what it prints.
fn why(cluster: &Cluster, node: &str, options: &[&str]) -> Result<(Option<i32>, String), String> {
    let output = cluster.vigie(node).arg("why").args(options).output().map_err(text)?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.code(), said.concat()))
}

/// Waits until a node answers with that exit code and all of the words.
fn says(cluster: &Cluster, node: &str, code: i32, words: &[&str]) -> Outcome {
    let mut last = Ok((None, String::new()));
    wait_for(&format!("{node} says {words:?}"), LIMIT, || {
        last = why(cluster, node, &[]);
        last.as_ref().is_ok_and(|(ended, said)| *ended == Some(code) && words.iter().all(|word| said.contains(word)))
    })
    .map_err(|error| format!("{error}; it says {last:?}"))
}

fn cut_off(sandbox: &Sandbox) -> Outcome {
    let cluster = Cluster::start(sandbox, Layout::classic(), Path::new(VIGIE)).map_err(text)?;
    let healthy = cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    let master = healthy.master.and_then(|master| master.node).ok_or("a healthy cluster has a master")?;
    for node in cluster.names() {
        says(&cluster, node, 0, &["mymaster: no failover is needed"])?;
    }
    let others: Vec<&str> = cluster.sentinels().filter(|name| *name != master).collect();
    for node in &others {
        cluster.lab().cut(node).map_err(text)?;
    }
    cluster.kill_redis(&master).map_err(text)?;
    let lost = others.iter().map(|node| format!("sentinel {node} unreachable for"));
    let lost = lost.collect::<Vec<_>>();
    let mut words =
        vec!["; no failover: 1 of 2 votes that it is down", "BLOCKS  lease", "BLOCKS  quorum", "BLOCKS  majority"];
    words.push("1 of 3 sentinels are there, 2 have to be");
    words.extend(lost.iter().map(String::as_str));
    says(&cluster, &master, 1, &words)?;
    let (code, json) = why(&cluster, &master, &["--json"])?;
    let json: serde_json::Value = serde_json::from_str(&json).map_err(text)?;
    assert_eq!((code, &json["masters"][0]["outcome"]), (Some(1), &"blocked".into()), "{json}");
    // Alone on the wrong side of the cut, each of the others misses the same.
    says(&cluster, others[0], 1, &["no failover: 1 of 2 votes", "1 of 3 sentinels are there"])?;
    let ask = format!("has no sentinel; for every gate, ask on {master}: vigie why");
    says(&cluster, PROXY, 1, &["no failover: 1 of 3 sentinels are heard, 2 have to be", &ask])?;
    for node in &others {
        cluster.lab().heal(node).map_err(text)?;
    }
    cluster.wait_healthy(HEALTHY_TIME).map_err(text)?;
    for node in cluster.names() {
        says(&cluster, node, 0, &["mymaster: no failover is needed"])?;
    }
    Ok(())
}
