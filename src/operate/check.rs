//! `vigie check`: the judgement on a cluster file, for a person.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::base::secret::CONTROL_USER;
use crate::base::{Credentials, Purpose};
use crate::config::boot::Boot;
use crate::config::{self, Config, Fencing, Kernel, Node, Vip, Warning, keys};
use crate::runtime::redis;

/// Judges the file at `path`. Faults go to `err`; of a valid file a summary and what is unwise about it go to `out`. If it wants a
/// fenced cluster, the server program of this host is asked for its version, if there is one: a file is no less valid for that it
/// is too old, since it may be judged anywhere.
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
            if config.cluster.fencing == Fencing::Lease
                && let Some(reason) = redis::too_old_to_fence(&config.redis)
            {
                writeln!(out, "\nredis would not be started on this host:\n  {reason}")?;
            }
            Ok(true)
        }
    }
}

/// Judges the file at `path` together with what the kernel command line says of this box. What is wrong goes to `err`; what
/// the box is to be, as assignments for a shell, goes to `out`. Returns whether it can be. An error is one of the writers'.
pub fn check_boot(path: &Path, kernel: &Kernel, out: &mut impl Write, err: &mut impl Write) -> io::Result<bool> {
    let (config, warnings) = match config::load(path) {
        Ok(loaded) => loaded,
        Err(faults) => {
            writeln!(err, "{faults}")?;
            return Ok(false);
        }
    };
    for warning in warnings {
        writeln!(err, "{warning}")?;
    }
    match Boot::of(&config, path.to_owned(), kernel) {
        Ok(boot) => write!(out, "{boot}")?,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Prints what a stock sentinel among the voters of the file at `path` needs in its `sentinel.conf`. Returns whether there can
/// be one. An error is one of the writers'.
pub fn check_stock(path: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<bool> {
    let config = match config::load(path) {
        Ok((config, _)) => config,
        Err(faults) => {
            writeln!(err, "{faults}")?;
            return Ok(false);
        }
    };
    if config.sentinel.stock.is_empty() {
        let said =
            "sentinel.stock lists no voter: name the address of each redis-sentinel or valkey-sentinel there first";
        writeln!(err, "{}: {said}", path.display())?;
        return Ok(false);
    }
    write!(out, "{}", stock_logins(&config.cluster.credentials, &config.cluster.name))?;
    Ok(true)
}

/// How a stock sentinel logs in at the redis of a cluster, and at its sentinels: lines of a `sentinel.conf`, to stand behind
/// `sentinel monitor`.
pub fn stock_logins(credentials: &Credentials, master: &str) -> String {
    let (redis, sentinel) = (credentials.own(Purpose::Control), credentials.own(Purpose::Sentinel));
    let (redis, sentinel) = (redis.current().reveal(), sentinel.current().reveal());
    format!(
        "sentinel auth-user {master} {CONTROL_USER}\nsentinel auth-pass {master} {redis}\n\
         sentinel sentinel-user {CONTROL_USER}\nsentinel sentinel-pass {sentinel}\n"
    )
}

fn summary(path: &Path, config: &Config, warnings: &[Warning]) -> String {
    let mut lines = Vec::new();
    let sentinels = config.nodes.iter().filter(|node| node.roles.sentinel).count();
    let Config { cluster, .. } = config;
    lines.push(format!("{}: valid", path.display()));
    lines.push(String::new());
    lines.push(format!("cluster  {}, quorum {} of {sentinels} sentinels", cluster.name, cluster.quorum));
    lines.push(format!("fencing  {}", fencing_line(cluster.fencing, cluster.lease, sentinels)));
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

/// What keeps a master that is cut off from taking writes, and what that costs.
fn fencing_line(fencing: Fencing, lease: Duration, sentinels: usize) -> String {
    match fencing {
        Fencing::Off => {
            "off: a master that is cut off goes on taking writes, which are lost once another one was chosen".to_owned()
        }
        Fencing::Lease => format!("lease of {}: {}", keys::duration(lease), price(sentinels)),
    }
}

/// When a healthy master of a fenced cluster refuses writes. With stock sentinels it would not.
fn price(sentinels: usize) -> String {
    let borne = sentinels.saturating_sub(1) / 2;
    let refuses = match (borne, sentinels) {
        (0, 1) => "the master refuses writes when its one sentinel cannot be reached".to_owned(),
        (0, _) => format!("the master refuses writes when one of the {sentinels} sentinels cannot be reached"),
        (_, _) => {
            format!("the master refuses writes when {} of the {sentinels} sentinels cannot be reached", borne + 1)
        }
    };
    match sentinels {
        1 => format!("{refuses}; three sentinels bear the loss of one"),
        2 => format!("{refuses}: no more may be lost than with 1; three sentinels bear the loss of one"),
        even if even % 2 == 0 => format!("{refuses}: no more may be lost than with {}", even - 1),
        _ => refuses,
    }
}

fn vip_line(vip: &Vip) -> String {
    let addresses: Vec<String> = vip.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect();
    let preempt = if vip.preempt { ", preempting" } else { "" };
    let peers: String = vip.peers.iter().map(|peer| format!(" {peer}")).collect();
    let beside = if peers.is_empty() { "" } else { ", beside" };
    format!(
        "{} on {}, VRRP {} id {}, every {:?}{preempt}{beside}{peers}",
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
    [node.name.to_string(), node.address.to_string(), node.roles.joined(" "), notes.join(", ")]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FILE: &str = r#"
[cluster]
quorum = 2
password = "a-long-enough-password"
[[vip]]
addresses = ["192.168.0.1/24", "192.168.0.9/24"]
interface = "eth0"
virtual_router_id = 51
preempt = true
peers = ["192.168.0.8"]
[[node]]
name = "proxy-1"
address = "192.168.0.2"
roles = ["proxy"]
[[node]]
name = "a-rather-long-name"
address = "192.168.0.4"
roles = ["redis", "sentinel"]
bootstrap_master = true
[[node]]
name = "redis-2"
address = "192.168.0.5"
roles = ["redis", "sentinel"]
replica_priority = 0
"#;

    fn checked(text: &str) -> (bool, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v.toml");
        fs::write(&path, text).unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, permissions).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let valid = check(&path, &mut out, &mut err).unwrap();
        let tidy = |bytes| String::from_utf8(bytes).unwrap().replace(&path.display().to_string(), "v.toml");
        (valid, tidy(out), tidy(err))
    }

    #[test]
    fn a_valid_file_is_summed_up_with_what_is_unwise() {
        let expected = "\
v.toml: valid

cluster  mymaster, quorum 2 of 2 sentinels
fencing  off: a master that is cut off goes on taking writes, which are lost once another one was chosen
vip      192.168.0.1/24 192.168.0.9/24 on eth0, VRRP 3 id 51, every 100ms, preempting, beside 192.168.0.8
ports    proxy 6379, redis 6379, sentinel 26379, peer link 26380/udp

node                address      roles           notes
proxy-1             192.168.0.2  proxy           VRRP priority 100
a-rather-long-name  192.168.0.4  redis sentinel  first master
redis-2             192.168.0.5  redis sentinel  never a master

legal, and unwise:
  v.toml:2: cluster.secret_file: missing: the cluster's own secret is derived from the password, so that every \
application that knows the password could command the cluster; write 32 random characters or more into a file that only \
root can read, the same on every node, and its path here
  v.toml:3: cluster.quorum: two sentinels: nothing fails over once one of them is gone, because one is no majority of \
two; three are advised
  v.toml:5: vip: one proxy: nobody takes the address over once its host is gone
";
        assert_eq!(checked(FILE), (true, expected.to_owned(), String::new()));
    }

    #[test]
    fn the_price_of_a_lease_is_told_by_the_number_of_sentinels() {
        let expected = [
            "the master refuses writes when its one sentinel cannot be reached; three sentinels bear the loss of one",
            "the master refuses writes when one of the 2 sentinels cannot be reached: no more may be lost than with 1; \
             three sentinels bear the loss of one",
            "the master refuses writes when 2 of the 3 sentinels cannot be reached",
            "the master refuses writes when 2 of the 4 sentinels cannot be reached: no more may be lost than with 3",
            "the master refuses writes when 3 of the 5 sentinels cannot be reached",
            "the master refuses writes when 3 of the 6 sentinels cannot be reached: no more may be lost than with 5",
            "the master refuses writes when 4 of the 7 sentinels cannot be reached",
        ];
        for (sentinels, expected) in (1..).zip(expected) {
            assert_eq!(price(sentinels), expected);
        }
        assert_eq!(
            price(32),
            "the master refuses writes when 16 of the 32 sentinels cannot be reached: no more may be lost than with 31"
        );
        let fenced = FILE.replace("quorum = 2", "quorum = 2\ndown_after = \"400ms\"\nfencing = \"lease\"");
        let (valid, said, _) = checked(&fenced);
        let line = said.lines().find(|line| line.starts_with("fencing")).unwrap_or_default();
        assert!(
            valid && line.starts_with("fencing  lease of 200ms: the master refuses writes when one of the 2"),
            "{said}"
        );
    }

    #[test]
    fn a_server_that_is_too_old_to_be_fenced_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("server");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let says = |version: &str| {
            fs::write(&program, format!("#!/bin/sh\necho '{version} sha=00000000:0'\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let said = |fencing: &str| {
            let cluster = format!("quorum = 2\nfencing = \"{fencing}\"");
            let text = FILE.replace("quorum = 2", &cluster) + &format!("[redis]\nserver = {program:?}\n");
            let (valid, said, _) = checked(&text);
            assert!(valid, "{said}");
            said.split_once("not be started on this host:\n  ").map(|(_, said)| said.to_owned())
        };
        assert_eq!(said("lease"), None, "where there is none, none is too old");
        says("Redis server v=6.2.14");
        let told = said("lease").unwrap();
        assert!(told.starts_with("redis.server = ") && told.contains("its version 6.2 lets scripts write"), "{told}");
        assert_eq!(said("off"), None);
        says("Redis server v=7.0.15");
        assert_eq!(said("lease"), None);
    }

    #[test]
    fn faults_go_to_the_other_stream() {
        let expected = "\
v.toml:3: cluster.quorum = 5: at most 2 sentinels can agree; allowed: 1 to 2
v.toml: 1 fault; it would be refused
";
        let wrong = FILE.replace("quorum = 2", "quorum = 5");
        assert_eq!(checked(&wrong), (false, String::new(), expected.to_owned()));
    }
}
