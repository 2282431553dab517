//! `vigie status`: one table, every node, and why each is as it is.

use std::fmt::Write;

use crate::runtime::status::fencing::{Fencing, LeaseStatus, NOT_FENCED, REFUSED, UNKNOWN, together};
use crate::runtime::status::{NodeStatus, RedisStatus, Status};

/// The status as a page for a terminal; no line ends in blanks.
pub fn page(status: &Status) -> String {
    let mut page = format!("cluster {}", status.cluster);
    match (&status.master, status.conflict) {
        (Some(master), _) => {
            let node = master.node.as_deref().unwrap_or("a node that is not in the file");
            let _ = write!(page, " · master {node} {} (epoch {})", master.address, master.epoch);
        }
        (None, Some(epoch)) => {
            let _ = write!(page, " · no master: sentinels name different ones in epoch {epoch}");
        }
        (None, None) => {
            let _ = write!(page, " · {}", no_master(&status.fencing));
        }
    }
    let _ = writeln!(page, " · {} · seen from {}", in_short(&status.fencing), status.node);
    for line in fence(&status.fencing) {
        let _ = writeln!(page, "{line}");
    }
    page.push('\n');
    let header = ["NODE", "ADDRESS", "ROLES", "HEALTH", "REDIS", "OFFSET", "LAG", "SENTINEL", "PROXY", "VIP"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(status.nodes.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        page.push_str(line.trim_end());
        page.push('\n');
    }
    let faults = status.nodes.iter().filter(|node| !node.why.is_empty());
    for (n, node) in faults.enumerate() {
        if n == 0 {
            page.push('\n');
        }
        let _ = writeln!(page, "{}: {}", node.name, why(node));
    }
    for (n, warning) in status.fencing.warnings.iter().enumerate() {
        let _ = writeln!(page, "{}warning: {warning}", if n == 0 { "\n" } else { "" });
    }
    page
}

/// Why none is shown, if nothing is decided.
pub(super) fn no_master(fencing: &Fencing) -> &'static str {
    if fencing.mode == UNKNOWN { "the master is not known here" } else { "no master yet" }
}

/// Whether the cluster is fenced, in the few words that stand beside the master.
pub(super) fn in_short(fencing: &Fencing) -> &str {
    match (&fencing.lease, fencing.mode.as_str()) {
        (Some(lease), _) if lease.writes == REFUSED => "no lease: writes are refused",
        (Some(lease), _) if lease.holder.is_none() => "fenced, the lease is not known here",
        (Some(_), _) => "fenced",
        (None, NOT_FENCED) => "not fenced",
        (None, _) => "not known whether fenced",
    }
}

/// What is to be said of the fence beside that.
fn fence(fencing: &Fencing) -> Vec<String> {
    let why = Some(fencing.why.clone()).filter(|why| !why.is_empty());
    let Some(lease) = &fencing.lease else { return why.into_iter().collect() };
    why.into_iter().chain([format!("lease: {}", lease_words(lease))]).chain(lease_faults(lease)).collect()
}

/// Who holds the lease, and how well.
pub(super) fn lease_words(lease: &LeaseStatus) -> String {
    let needed = lease.needed;
    match &lease.holder {
        Some(holder) => {
            let number = |millis: Option<u64>| millis.map_or_else(|| "?".to_owned(), |millis| format!("{millis} ms"));
            let epoch = lease.epoch.unwrap_or_default();
            let (left, slack) = (number(lease.left_ms), number(lease.slack_ms));
            let missing = together(&lease.missing);
            let missing = if missing.is_empty() { missing } else { format!(", not by {missing}") };
            let grants = lease.grants.join(", ");
            format!(
                "{holder} (epoch {epoch}), {left} left, slack {slack}, granted by {grants}{missing}; {needed} needed"
            )
        }
        None if lease.writes == REFUSED => "nobody holds it, and every redis refuses writes".to_owned(),
        None => "it is not known here who holds it".to_owned(),
    }
}

/// Why nobody holds it, as far as that is known, and why this node may not know.
pub(super) fn lease_faults(lease: &LeaseStatus) -> impl Iterator<Item = String> {
    let without = lease.without.iter().map(|reason| format!("  {} {}", reason.node, reason.why));
    let unheard = Some(&lease.unheard).filter(|unheard| !unheard.is_empty()).map(|unheard| format!("  {unheard}"));
    // A master that is not heard may hear a majority where it is.
    let refused = unheard.is_some() && lease.writes == REFUSED;
    let until = refused.then(|| "  the master refuses writes until a majority of the sentinels is heard".to_owned());
    without.chain(unheard).chain(until)
}

fn why(node: &NodeStatus) -> String {
    match node.heard_ms_ago {
        Some(ago) if node.health == "unreachable" => format!("{} (last heard {} ago)", node.why, age(ago)),
        Some(_) | None => node.why.clone(),
    }
}

/// An age in the largest unit that leaves a number of at least one.
pub(super) fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000.. => format!("{} h", millis / 3_600_000),
    }
}

fn row(node: &NodeStatus) -> [String; 10] {
    let none = || "-".to_owned();
    let redis = node.redis.as_ref();
    let sentinel = node.sentinel.as_ref().map(|sentinel| {
        let mut text = format!("epoch {}", sentinel.current_epoch);
        if sentinel.sees_down {
            text.push_str(", master down");
        }
        if sentinel.leads.is_some() {
            text.push_str(", leads");
        }
        text
    });
    let proxy = node.proxy.as_ref().map(|proxy| match (&proxy.route, proxy.listening) {
        (_, false) => "not listening".to_owned(),
        (None, true) => format!("no route, {} clients", proxy.clients),
        (Some(route), true) => format!("to {route}, {} clients", proxy.clients),
    });
    let vips = node.vips.iter().map(|vip| format!("{} ({})", vip.state, vip.addresses.join(" ")));
    let vips = vips.collect::<Vec<_>>().join(", ");
    [
        node.name.clone(),
        node.address.clone(),
        node.roles.join("+"),
        node.health.clone(),
        redis.map_or_else(none, redis_cell),
        redis.map_or_else(none, |redis| redis.offset.to_string()),
        redis.and_then(|redis| redis.lag_bytes).map_or_else(none, |lag| lag.to_string()),
        sentinel.unwrap_or_else(none),
        proxy.unwrap_or_else(none),
        if vips.is_empty() { none() } else { vips },
    ]
}

pub(super) fn redis_cell(redis: &RedisStatus) -> String {
    match (redis.process.as_str(), redis.role.as_str()) {
        ("alive", "replica") if redis.in_sync => "replica in sync".to_owned(),
        ("alive", "replica") => "replica, not in sync".to_owned(),
        ("alive", "master") if redis.takes_writes == Some(false) => "master, refuses writes".to_owned(),
        ("alive", "closed") if redis.decided => "master, refuses writes".to_owned(),
        ("alive", "master") => match redis.replicas.unwrap_or(0) {
            1 => "master, 1 replica".to_owned(),
            n => format!("master, {n} replicas"),
        },
        ("alive", role) => role.to_owned(),
        (process, "unknown") => process.to_owned(),
        (process, role) => format!("{process} ({role})"),
    }
}

#[cfg(test)]
pub(in crate::operate) mod tests;
