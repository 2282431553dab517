//! `vigie status`: one table, every node, and why each is as it is.

use std::fmt::Write;

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
        (None, None) => page.push_str(" · no master yet"),
    }
    let _ = writeln!(page, " · {} · seen from {}", status.fencing, status.node);
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
    page
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
mod tests {
    use super::*;

    #[test]
    fn ages_read_well() {
        assert_eq!([5, 1_500, 119_999, 120_000, 7_200_000].map(age), ["5 ms", "1 s", "119 s", "2 min", "2 h"]);
    }

    #[test]
    fn a_page_lines_up_and_says_why() {
        let node = |name: &str, health: &str, why: &str| NodeStatus {
            name: name.to_owned(),
            address: "192.168.0.4".to_owned(),
            roles: vec!["redis".to_owned(), "sentinel".to_owned()],
            health: health.to_owned(),
            why: why.to_owned(),
            heard_ms_ago: Some(12_000),
            version: None,
            redis: None,
            sentinel: None,
            proxy: None,
            vips: vec![],
        };
        let mut status = Status {
            cluster: "mymaster".to_owned(),
            node: "redis-01".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_ms: 1,
            fencing: "not fenced".to_owned(),
            master: None,
            conflict: None,
            nodes: vec![node("redis-01", "good", ""), node("r2", "unreachable", "not heard any more")],
        };
        assert_eq!(
            page(&status),
            "cluster mymaster · no master yet · not fenced · seen from redis-01\n\n\
             NODE      ADDRESS      ROLES           HEALTH       REDIS  OFFSET  LAG  SENTINEL  PROXY  VIP\n\
             redis-01  192.168.0.4  redis+sentinel  good         -      -       -    -         -      -\n\
             r2        192.168.0.4  redis+sentinel  unreachable  -      -       -    -         -      -\n\n\
             r2: not heard any more (last heard 12 s ago)\n"
        );
        status.conflict = Some(7);
        let told = "cluster mymaster · no master: sentinels name different ones in epoch 7 · not fenced";
        assert!(page(&status).starts_with(told), "{}", page(&status));
    }
}
