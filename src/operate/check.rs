//! `vigie check`: the judgement on a cluster file, for a person.

use std::io::{self, Write};
use std::path::Path;

use crate::config::{self, Config, Node, Vip, Warning};
use crate::wire::frame::Roles;

/// Judges the file at `path`. Faults go to `err`; of a valid file a summary and what is unwise about it go to `out`.
/// Returns whether it is valid. An error is one of the writers'.
pub fn check(path: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<bool> {
    match config::load(path) {
        Err(faults) => {
            writeln!(err, "{faults}")?;
            let (count, s) = (faults.0.len(), if faults.0.len() == 1 { "" } else { "s" });
            writeln!(err, "{}: {count} fault{s}; it would be refused", path.display())?;
            Ok(false)
        }
        Ok((config, warnings)) => {
            write!(out, "{}", summary(path, &config, &warnings))?;
            Ok(true)
        }
    }
}

fn summary(path: &Path, config: &Config, warnings: &[Warning]) -> String {
    let mut lines = Vec::new();
    let sentinels = config.nodes.iter().filter(|node| node.roles.sentinel).count();
    let Config { cluster, .. } = config;
    lines.push(format!("{}: valid", path.display()));
    lines.push(String::new());
    lines.push(format!("cluster  {}, quorum {} of {sentinels} sentinels", cluster.name, cluster.quorum));
    for vip in &config.vips {
        lines.push(format!("vip      {}", vip_line(vip)));
    }
    let (proxy, redis, sentinel) = (config.proxy.port, config.redis.port, config.sentinel.port);
    lines.push(format!(
        "ports    proxy {proxy}, redis {redis}, sentinel {sentinel}, peer link {}/udp",
        config::PEER_PORT
    ));
    lines.push(String::new());
    lines.extend(table(&config.nodes));
    if !warnings.is_empty() {
        lines.push(String::new());
        lines.push("legal, and unwise:".to_owned());
        lines.extend(warnings.iter().map(|warning| format!("  {warning}")));
    }
    lines.join("\n") + "\n"
}

fn vip_line(vip: &Vip) -> String {
    let addresses: Vec<String> = vip.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect();
    let preempt = if vip.preempt { ", preempting" } else { "" };
    format!(
        "{} on {}, VRRP {} id {}, every {:?}{preempt}",
        addresses.join(" "),
        vip.interface,
        vip.version,
        vip.virtual_router_id,
        vip.advert_interval
    )
}

fn table(nodes: &[Node]) -> Vec<String> {
    let header = ["node", "address", "roles", "notes"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(header).chain(nodes.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [name, address, roles, notes] = row;
        let line = format!("{name:0$}  {address:1$}  {roles:2$}  {notes}", widths[0], widths[1], widths[2]);
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(node: &Node) -> [String; 4] {
    let mut notes = Vec::new();
    if node.roles.proxy {
        notes.push(format!("VRRP priority {}", node.priority));
    }
    if node.roles.redis && node.replica_priority == 0 {
        notes.push("never a master".to_owned());
    }
    if node.bootstrap_master {
        notes.push("first master".to_owned());
    }
    [node.name.to_string(), node.address.to_string(), role_list(node.roles), notes.join(", ")]
}

fn role_list(roles: Roles) -> String {
    let named = [(roles.proxy, "proxy"), (roles.redis, "redis"), (roles.sentinel, "sentinel")];
    let held: Vec<&str> = named.iter().filter(|(held, _)| *held).map(|(_, name)| *name).collect();
    held.join(" ")
}
