use super::*;
use crate::operate::status::tests::Town;
use crate::runtime::status::{MasterStatus, RedisStatus, VipStatus};

fn status() -> Status {
    let node = |n: u8, role: &str| NodeStatus {
        name: format!("box-{n}"),
        address: format!("192.168.0.1{n}"),
        roles: ["proxy", "redis", "sentinel"].map(str::to_owned).to_vec(),
        health: "good".to_owned(),
        why: String::new(),
        heard_ms_ago: Some(20),
        version: None,
        redis: Some(RedisStatus {
            process: "alive".to_owned(),
            role: role.to_owned(),
            decided: role == "master",
            takes_writes: Some(role == "master"),
            master: None,
            in_sync: true,
            offset: 1_000,
            lag_bytes: (role == "replica").then_some(14),
            replicas: Some(2),
            incarnation: 1,
        }),
        sentinel: None,
        proxy: None,
        vips: vec![VipStatus {
            addresses: vec!["192.168.0.1/24".to_owned()],
            virtual_router_id: 51,
            state: if n == 2 { "master" } else { "backup" }.to_owned(),
            priority: 100,
        }],
    };
    let mut nodes = vec![node(1, "master"), node(2, "replica"), node(3, "replica")];
    nodes[2].health = "unreachable".to_owned();
    nodes[2].why = "not heard for 12 s".to_owned();
    Status {
        cluster: "mymaster".to_owned(),
        node: "box-1".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_ms: 180_000,
        fencing: Fencing { mode: "not fenced".to_owned(), wanted: "off".to_owned(), ..Fencing::default() },
        master: Some(MasterStatus {
            node: Some("box-1".to_owned()),
            address: "192.168.0.11:6379".to_owned(),
            epoch: 1,
        }),
        conflict: None,
        nodes,
    }
}

#[test]
fn a_cluster_fits_the_terminal() {
    let lines = screen(&Facts { status: Ok(&status()), notice: "", shell: true });
    let shown: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    let expected = format!(
        " vigie {} | box-1 192.168.0.11 | proxy redis sentinel | up 3 min\n \
         mymaster: master box-1 192.168.0.11:6379, epoch 1, not fenced\n \
         virtual IP 192.168.0.1/24: at box-2\n\n \
         NODE           ADDRESS         ROLES HEALTH      REDIS                LAG\n \
         box-1          192.168.0.11    PRS   good        master, 2 replicas   -\n \
         box-2          192.168.0.12    PRS   good        replica in sync      14 VIP\n \
         box-3          192.168.0.13    PRS   unreachable replica in sync      14\n\n \
         box-3: not heard for 12 s\n\n\n\n\n\n\n\n\n \
         s: a shell{:40}messages of the kernel below",
        env!("CARGO_PKG_VERSION"),
        ""
    );
    assert_eq!(shown.join("\n"), expected);
    assert!(lines.len() == SCREEN_ROWS && lines.iter().all(|line| line.len() < COLUMNS && line.is_ascii()));
}

#[test]
fn a_replica_far_behind_does_not_push_the_virtual_address_off_the_line() {
    assert_eq!(
        [0, 999, 1_000, 14_960, 999_999, 1_000_000, u64::MAX].map(short),
        ["0", "999", "1K", "14K", "999K", "1M", "18E"]
    );
    let mut status = status();
    let redis = status.nodes[1].redis.as_mut().unwrap();
    (redis.in_sync, redis.lag_bytes) = (false, Some(999_999_999));
    let lines = screen(&Facts { status: Ok(&status), notice: "", shell: true });
    assert!(lines.iter().any(|line| line.ends_with("replica, not in sync 999M VIP")), "{lines:#?}");
}

#[test]
fn what_is_wrong_stands_there_even_when_nothing_answers() {
    let notice = "SAFE MODE: nothing is served.\nvigie.toml:3: cluster.quorum = 9: …\n";
    let lines = screen(&Facts { status: Err("cannot reach vigie"), notice, shell: false });
    assert!(lines[0].contains("nothing is served"), "{lines:?}");
    assert_eq!(lines[1..3], [" SAFE MODE: nothing is served.", " vigie.toml:3: cluster.quorum = 9: ?"]);
    assert!(lines.last().unwrap().starts_with(" no shell at this console"));
    let lines = screen(&Facts { status: Err("cannot reach vigie"), notice: "", shell: true });
    assert_eq!(lines[1], " cannot reach vigie");
}

#[test]
fn a_crowd_of_nodes_and_faults_is_counted() {
    let mut status = status();
    let bad = NodeStatus { why: "word ".repeat(60), ..status.nodes[2].clone() };
    status.nodes = vec![bad; 32];
    let lines = screen(&Facts { status: Ok(&status), notice: "", shell: true });
    assert_eq!(lines.len(), SCREEN_ROWS);
    assert!(lines.iter().any(|line| line.contains("and 24 more")), "{lines:#?}");
    assert!(lines[SCREEN_ROWS - 2].contains("more lines: see `vigie status`"), "{lines:#?}");
    assert!(lines.iter().all(|line| line.len() < COLUMNS));
}

#[test]
fn only_what_changed_is_painted() {
    let lines = screen(&Facts { status: Ok(&status()), notice: "", shell: true });
    let first = String::from_utf8(paint(&lines, &[])).unwrap();
    assert!(first.starts_with("\x1b[?7h\x1b[20;24r\x1b[24;1H\x1b7\x1b[1;1H\x1b[7m vigie"), "{first:?}");
    assert!(first.ends_with("\x1b8"));
    let mut next = lines.clone();
    next[5] = "changed".to_owned();
    assert_eq!(paint(&next, &lines), b"\x1b7\x1b[6;1Hchanged\x1b[K\x1b8");
    assert_eq!(paint(&lines, &lines), b"\x1b7\x1b8");
}

#[test]
fn long_words_and_lines_are_broken() {
    assert_eq!(wrapped("a bb ccc", 6), [" a bb", "   ccc"]);
    assert_eq!(wrapped(&"x".repeat(12), 6), [" xxxxx", "   xxx", "   xxx", "   x"]);
    assert_eq!(wrapped("", 6), Vec::<String>::new());
}

#[test]
fn a_cluster_without_a_lease_says_so_in_its_first_line_and_why_below() {
    let mut town = Town::new("lease");
    let shown = |town: &Town| screen(&Facts { status: Ok(&town.status()), notice: "", shell: true });
    assert!(shown(&town)[1].ends_with("epoch 3, fenced"), "{:#?}", shown(&town));
    town.cut();
    let lines = shown(&town);
    assert_eq!(lines[1], " mymaster: no lease: writes are refused; master redis-01 192.168.0.4:6379, epoc");
    assert!(
        lines.iter().any(|line| line.starts_with(" this node hears 1 of 3 sentinels on UDP port 26380")),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.contains("master, refuses writes")), "{lines:#?}");
}
