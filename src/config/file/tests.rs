use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const BASE: &str = include_str!("base.toml");

const PASSWORD: &str = "not-the-real-password-1\n";
const SECRET: &str = "not-the-real-secret-22\n";

fn judged_with(text: &str, password: &str, mode: u32) -> Result<(Config, Vec<Warning>), Faults> {
    parse(text, Path::new("v.toml"), &|path| match path.to_str() {
        Some("/secret") => Ok((password.to_owned(), mode)),
        Some("/own-secret") => Ok((SECRET.to_owned(), 0o600)),
        other => panic!("{other:?} is read"),
    })
}

fn judged(text: &str) -> Result<(Config, Vec<Warning>), Faults> {
    judged_with(text, PASSWORD, 0o600)
}

fn edited(from: &str, to: &str) -> String {
    assert!(from.is_empty() || BASE.contains(from), "the edit fits nowhere: {from:?}");
    if from.is_empty() { format!("{BASE}{to}") } else { BASE.replacen(from, to, 1) }
}

/// The edit must give a fault whose line begins with `begin`, and which holds every one of `parts`; and no other fault.
#[track_caller]
fn refuses(from: &str, to: &str, begin: &str, parts: &[&str]) {
    let said = judged(&edited(from, to)).map(|_| ()).expect_err(&format!("{to:?} is accepted")).to_string();
    let holds = |line: &str| line.starts_with(begin) && parts.iter().all(|part| line.contains(part));
    assert!(said.lines().count() == 1 && holds(&said), "{to:?} gives\n{said}\nexpected: {begin} … {parts:?}");
}

/// The edit must be accepted with a warning that holds every one of `parts`, and no other.
#[track_caller]
fn warns(from: &str, to: &str, begin: &str, parts: &[&str]) {
    let warnings = judged(&edited(from, to)).map(|(_, warnings)| warnings);
    let warnings = warnings.unwrap_or_else(|faults| panic!("{to:?} is refused:\n{faults}"));
    let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let holds = |line: &String| line.starts_with(begin) && parts.iter().all(|part| line.contains(part));
    assert!(said.len() == 1 && holds(&said[0]), "{to:?} gives {said:#?}\nexpected: {begin} … {parts:?}");
}

/// The cases of `refused.txt` or `warned.txt`: what stands there, what is written instead, how the answer begins, and
/// what it holds.
fn cases(text: &str) -> impl Iterator<Item = (String, String, String, Vec<&str>)> {
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("# ") && !line.starts_with("## ") && !line.is_empty()).collect();
    assert!(lines.len() >= 2 && lines.len().is_multiple_of(2), "an edit without an answer");
    (0..lines.len() / 2).map(move |n| {
        let (from, to) = lines[2 * n].split_once("=>").expect("an edit has =>");
        let answer = lines[2 * n + 1].strip_prefix("    ").expect("an answer is indented");
        let mut parts = answer.split(" … ");
        let begin = format!("v.toml:{}", parts.next().unwrap_or_default());
        (from.trim().replace('⏎', "\n"), to.trim().replace('⏎', "\n"), begin, parts.collect())
    })
}

#[test]
fn wrong_files_are_refused_with_place_value_and_what_is_allowed() {
    for (from, to, begin, parts) in cases(include_str!("refused.txt")) {
        refuses(&from, &to, &begin, &parts);
    }
}

#[test]
fn what_is_legal_and_unwise_is_warned_of() {
    for (from, to, begin, parts) in cases(include_str!("warned.txt")) {
        warns(&from, &to, &begin, &parts);
    }
}

#[test]
fn a_short_file_is_filled_with_the_defaults() {
    let (config, warnings) = judged(&edited("max_clients = 10\n", "")).unwrap();
    assert_eq!(warnings, []);
    let Config { cluster, vips, proxy, redis, sentinel, nodes } = config;
    let ms = Duration::from_millis;
    assert_eq!(
        (cluster.name.as_str(), cluster.quorum, cluster.credentials.password().current().reveal()),
        ("mymaster", 2, PASSWORD.trim_end())
    );
    assert_eq!((cluster.down_after, cluster.busy_grace, cluster.failover_timeout), (ms(500), ms(5_000), ms(10_000)));
    assert_eq!((cluster.fencing, cluster.fencing_said, cluster.lease), (Fencing::Lease, false, ms(250)));
    assert_eq!((vips[0].version, vips[0].advert_interval, vips[0].preempt), (3, ms(100), false));
    assert_eq!((vips[0].addresses[0], vips[0].interface.as_str()), (("192.168.0.1".parse().unwrap(), 24), "eth0"));
    assert_eq!((proxy.port, proxy.max_clients), (6_379, 10_000));
    assert_eq!((proxy.connect_timeout, proxy.check_interval, proxy.hold_timeout), (ms(4_000), ms(1_000), ms(5_000)));
    assert_eq!((redis.port, redis.server.as_str(), redis.data_dir), (6_379, "redis-server", None));
    assert_eq!((redis.persistence, redis.include, redis.tune_host), (Persistence::Aof, vec![], false));
    assert_eq!((redis.user, sentinel.port), (None, 26_379));
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["haproxy-01", "haproxy-02", "redis-01", "redis-02", "redis-03"]);
    assert_eq!((nodes[0].priority, nodes[1].priority, nodes[2].replica_priority), (101, 100, 100));
    assert_eq!(nodes.iter().map(|node| node.bootstrap_master).collect::<Vec<_>>(), [false, false, true, false, false]);
    assert_eq!(nodes[2].roles, Roles { proxy: false, redis: true, sentinel: true });
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let (config, warnings) = judged(include_str!("full.toml")).unwrap();
    assert_eq!(warnings, []);
    let Config { cluster, vips, proxy, redis, sentinel, nodes } = config;
    let s = Duration::from_secs;
    let full = include_str!("full.toml");
    for key in keys::KEYS.iter().filter(|key| key.built && key.name != "password") {
        assert!(full.contains(&format!("\n{} = ", key.name)), "{key:?} is not tried");
    }
    assert_eq!((cluster.name.as_str(), cluster.quorum), ("logs", 3));
    assert_eq!(
        (cluster.down_after, cluster.busy_grace, cluster.failover_timeout),
        (Duration::from_millis(350), s(7), s(60))
    );
    assert_eq!((cluster.fencing, cluster.lease), (Fencing::Off, Duration::from_millis(150)));
    let vip = &vips[0];
    assert_eq!((vip.virtual_router_id, vip.version, vip.advert_interval, vip.preempt), (7, 2, s(2), true));
    assert_eq!(vip.peers, ["192.168.0.77", "192.168.0.78"].map(|peer| peer.parse::<IpAddr>().unwrap()));
    assert_eq!((proxy.port, proxy.connect_timeout, proxy.check_interval, proxy.hold_timeout), (1, s(1), s(2), s(0)));
    assert_eq!((redis.port, redis.server.as_str(), redis.data_dir), (2, "/opt/v", Some("/d".into())));
    assert_eq!((redis.persistence, redis.include), (Persistence::None, vec!["/i/*.conf".to_owned()]));
    assert!(redis.tune_host && redis.user.as_deref() == Some("r"));
    assert_eq!((proxy.max_clients, sentinel.port), (9, 3));
    assert_eq!((nodes[0].priority, nodes[0].replica_priority, nodes[0].bootstrap_master), (103, 1, true));
}

#[test]
fn a_quorum_nobody_can_reach_is_refused_in_these_words() {
    let said = judged(&edited("quorum = 2", "quorum = 9")).unwrap_err().to_string();
    assert_eq!(said, "v.toml:2: cluster.quorum = 9: at most 3 sentinels can agree; allowed: 1 to 3");
}

#[test]
fn a_lease_is_as_long_as_down_after_leaves_room_for() {
    let read = |edit: &str| {
        let (config, warnings) = judged(&edited("down_after = \"500ms\"", edit)).unwrap();
        assert_eq!(warnings, [], "{edit}");
        (config.cluster.fencing, config.cluster.lease)
    };
    let ms = Duration::from_millis;
    for (edit, expected) in [
        ("", (Fencing::Lease, ms(250))),
        ("down_after = \"2s\"", (Fencing::Lease, ms(250))),
        ("fencing = \"lease\"", (Fencing::Lease, ms(250))),
        ("down_after = \"300ms\"\nfencing = \"lease\"", (Fencing::Lease, ms(150))),
        ("down_after = \"400ms\"\nfencing = \"lease\"\nlease = \"150ms\"", (Fencing::Lease, ms(150))),
        ("down_after = \"4s\"\nfencing = \"lease\"", (Fencing::Lease, ms(250))),
        ("down_after = \"4s\"\nfencing = \"lease\"\nlease = \"2s\"", (Fencing::Lease, ms(2_000))),
        // What is promised while the file says "off" has a length too.
        ("fencing = \"off\"\nlease = \"200ms\"", (Fencing::Off, ms(200))),
        ("down_after = \"200ms\"", (Fencing::Off, ms(100))),
    ] {
        assert_eq!(read(edit), expected, "{edit}");
    }
}

#[test]
fn a_cluster_is_fenced_if_its_file_says_so_and_by_itself_if_the_loss_of_a_sentinel_can_be_borne() {
    let mut nodes = BASE[..BASE.find("[[vip]]").unwrap()].to_owned();
    for sentinels in 1..=7 {
        nodes += &format!(
            "[[node]]\nname = \"n{sentinels}\"\naddress = \"192.168.0.{sentinels}\"\nroles = [\"redis\", \"sentinel\"]\n"
        );
        let text = nodes.replace("quorum = 2", "quorum = 1");
        let fencing = |text: &str| judged(text).unwrap().0.cluster.fencing;
        let default = if sentinels >= 3 { Fencing::Lease } else { Fencing::Off };
        assert_eq!(fencing(&text), default, "{sentinels}");
        let short = text.replace("down_after = \"500ms\"", "down_after = \"299ms\"");
        assert_eq!(fencing(&short), Fencing::Off, "there is no room for a lease");
        let stock = format!("{text}[sentinel]\nstock = [\"192.168.0.1\"]\n");
        assert_eq!(fencing(&stock), Fencing::Off, "who promises nothing");
        for (word, expected) in [("lease", Fencing::Lease), ("off", Fencing::Off)] {
            let text = text.replace("quorum = 1", &format!("quorum = 1\nfencing = \"{word}\""));
            assert_eq!(fencing(&text), expected, "{sentinels}");
        }
    }
}

#[test]
fn stock_sentinels_promise_nothing() {
    let fenced = edited("quorum = 2", "quorum = 2\nfencing = \"lease\"");
    let said = judged(&format!("{fenced}[sentinel]\nstock = [\"192.168.0.4\"]\n")).unwrap_err().to_string();
    assert_eq!(
        said,
        "v.toml:3: cluster.fencing = \"lease\": sentinel.stock names a redis-sentinel or valkey-sentinel (line 45), and \
         those promise a master nothing; allowed beside it: \"off\""
    );
    assert!(judged(&format!("{fenced}[sentinel]\nstock = []\n")).is_ok());
}

#[test]
fn a_lease_is_not_judged_by_a_down_after_that_is_wrong_itself() {
    let said = judged(&edited("\"500ms\"", "\"5 s\"\nlease = \"2s\"")).unwrap_err().to_string();
    assert!(said.starts_with("v.toml:4: cluster.down_after") && said.lines().count() == 1, "{said}");
}

#[test]
fn sections_of_the_wrong_kind_are_refused() {
    let no_redis = BASE.replace("[redis]\npersistence = \"aof\"\n", "");
    for (text, begin, part) in [
        (edited("[proxy]", "[[proxy]]"), "v.toml:11: proxy: ", "write [proxy]"),
        (edited("[[vip]]", "[vip]"), "v.toml:6: vip: ", "write [[vip]]"),
        (format!("redis = 1\n{no_redis}"), "v.toml:1: redis: ", "write [redis]"),
        ("vip = [1]\n[cluster]\n".to_owned(), "v.toml:1: vip = 1: ", "write [[vip]]"),
    ] {
        let said = judged(&text).unwrap_err().to_string();
        assert!(said.lines().any(|line| line.starts_with(begin) && line.contains(part)), "{text}: {said}");
    }
}

#[test]
fn virtual_addresses_are_bounded_in_number() {
    let addresses = "addresses = [\"192.168.0.1/24\"]";
    let id = "virtual_router_id = 51";
    let second = "\n[[vip]]\naddresses = [\"192.168.0.9/24\"]\ninterface = \"eth1\"\nvirtual_router_id = ";
    let many: Vec<String> = (20..37).map(|n| format!("\"192.168.0.{n}/24\"")).collect();
    refuses(
        addresses,
        &format!("addresses = [{}]", many.join(",")),
        "v.toml:7: vip.addresses: 17 addresses",
        &["1 to 16"],
    );
    let five: String = (52..56).map(|n| second.replace(".9/", &format!(".{n}/")) + &n.to_string()).collect();
    refuses(id, &format!("{id}{five}"), "v.toml:22: vip: 5 of [[vip]]", &["at most 4"]);
}

#[test]
fn a_peer_is_another_router_from_which_adverts_can_come() {
    let id = "virtual_router_id = 51";
    let list = |peers: &str| format!("{id}\npeers = [{peers}]");
    let seventeen: Vec<String> = (20..37).map(|n| format!("\"192.168.0.{n}\"")).collect();
    for (peers, begin, word) in [
        (seventeen.join(","), "v.toml:10: vip.peers: 17 addresses", "up to 16"),
        ("\"192.168.0.9/24\"".to_owned(), "v.toml:10: vip.peers = \"192.168.0.9/24\"", "prefix"),
        ("\"127.0.0.1\"".to_owned(), "v.toml:10: vip.peers = \"127.0.0.1\"", "loopback"),
        ("\"x\"".to_owned(), "v.toml:10: vip.peers = \"x\"", "not an IPv4 or IPv6 address"),
        ("\"192.168.0.9\",\n\"192.168.0.9\"".to_owned(), "v.toml:11: vip.peers = \"192.168.0.9\"", "twice"),
        ("\"192.168.0.1\"".to_owned(), "v.toml:10: vip.peers = \"192.168.0.1\"", "virtual address (line 7)"),
        ("\"192.168.0.2\"".to_owned(), "v.toml:10: vip.peers = \"192.168.0.2\"", "a node has this address (line "),
        ("\"fe80::9\"".to_owned(), "v.toml:10: vip.peers = \"fe80::9\"", "IPv4"),
    ] {
        refuses(id, &list(&peers), begin, &[word]);
    }
    let v6 = edited("addresses = [\"192.168.0.1/24\"]", "addresses = [\"fd00::1/64\"]");
    let said = judged(&v6.replace(id, &list("\"fd00::9\""))).unwrap_err().to_string();
    assert!(said.starts_with("v.toml:10: vip.peers = \"fd00::9\": adverts over IPv6 come from link-local"), "{said}");
    assert!(judged(&v6.replace(id, &list("\"fe80::9\""))).is_ok());
}

#[test]
fn a_virtual_router_has_one_family_and_version_2_has_no_ipv6() {
    let from = "addresses = [\"192.168.0.1/24\"]";
    let said = judged(&edited(from, "addresses = [\"192.168.0.1/24\",\n\"fd00::1/64\"]")).unwrap_err().to_string();
    assert!(said.starts_with("v.toml:8: vip.addresses = \"fd00::1/64\": IPv4 and IPv6 together"), "{said}");
    let to = "addresses = [\"fd00::1/64\"]\nversion = 2\nadvert_interval = \"1s\"";
    let said = judged(&edited(from, to)).unwrap_err().to_string();
    assert!(said.starts_with("v.toml:7: vip.addresses = \"fd00::1/64\": VRRP version 2 is for IPv4 only"), "{said}");
}

#[test]
fn intervals_at_the_limits_are_accepted() {
    for interval in [
        "version = 2\nadvert_interval = \"1s\"",
        "version = 2\nadvert_interval = \"255s\"",
        "advert_interval = \"40950ms\"",
        "advert_interval = \"10ms\"",
    ] {
        let text = edited("virtual_router_id = 51", &format!("virtual_router_id = 255\n{interval}"));
        assert!(judged(&text).is_ok(), "{interval}");
    }
}

#[test]
fn a_sentinel_and_a_proxy_of_one_node_need_different_ports() {
    let text = BASE.replacen("roles = [\"proxy\"]", "roles = [\"proxy\", \"sentinel\"]", 1);
    let text = text.replace("max_clients = 10", "port = 26379");
    let said = judged(&text).unwrap_err().to_string();
    assert_eq!(
        said.split(';').next(),
        Some(
            "v.toml: sentinel.port = 26379: proxy.port is the same, and a sentinel listens \
        on the virtual addresses too"
        )
    );
}

#[test]
fn the_first_master_needs_a_redis() {
    let moved = BASE.replace("bootstrap_master = true\n", "").replace("priority = 101", "bootstrap_master = true");
    let said = judged(&moved).unwrap_err().to_string();
    assert!(said.starts_with("v.toml:21: node.bootstrap_master = true: this node has no redis"), "{said}");
}

#[test]
fn a_cluster_needs_nodes_sentinels_redis_and_a_holder_of_its_address() {
    let some = |roles: &str| BASE.replace("[\"redis\", \"sentinel\"]", roles).replace("bootstrap_master = true\n", "");
    for (text, begin) in [
        (some("[\"redis\"]"), "v.toml:17: node.roles: no node has the role \"sentinel\""),
        (some("[\"sentinel\"]"), "v.toml:17: node.roles: no node has the role \"redis\""),
        (BASE.replace("\"proxy\"", "\"redis\""), "v.toml:6: vip: no node has the role \"proxy\""),
        (BASE[..BASE.find("[[node]]").unwrap()].to_owned(), "v.toml: node: no [[node]] at all"),
        (String::new(), "v.toml: cluster.quorum: missing, with its whole section [cluster]"),
    ] {
        let said = judged(&text).unwrap_err().to_string();
        assert!(said.lines().any(|line| line.starts_with(begin)), "expected {begin}, got\n{said}");
    }
    let crowd: String = (10..39)
        .map(|n| format!("[[node]]\nname = \"n{n}\"\naddress = \"10.0.0.{n}\"\nroles = [\"redis\"]\n"))
        .collect();
    refuses("", &crowd, "v.toml:151: node: 34 nodes", &["1 to 32"]);
}

#[test]
fn the_password_is_judged_and_never_shown() {
    let file = "password_file = \"/secret\"";
    for (to, begin, part) in [
        ("", "v.toml:1: cluster.password_file: missing", "a file that only root can read"),
        ("password_file = \"secret\"", "v.toml:3: cluster.password_file = \"secret\": ", "not an absolute path"),
        ("password = \"\"", "v.toml:3: cluster.password: ", "empty"),
        ("password = \"hush hush\"", "v.toml:3: cluster.password: ", "a space or a control character"),
        ("password = \"hush\\u0007\"", "v.toml:3: cluster.password: ", "a space or a control character"),
        ("password = 12345678", "v.toml:3: cluster.password: ", "a text in quotes is expected"),
        ("password = [\"hush\"]", "v.toml:3: cluster.password: ", "a text in quotes is expected"),
        ("password = \"hush\npassword_file = \"/secret\"", "v.toml:3: not TOML", ""),
    ] {
        let said = judged(&edited(file, to)).unwrap_err().to_string();
        assert!(said.starts_with(begin) && said.contains(part), "{to:?}: {said}");
        assert!(!said.contains("hush") && !said.contains("12345678"), "the password is shown: {said}");
    }
    let long = judged(&edited(file, &format!("password = \"{}\"", "x".repeat(513)))).unwrap_err().to_string();
    assert!(long.contains("513 bytes; allowed: 1 to 512 characters"), "{long}");
    let (config, _) = judged(&edited(file, "password = \"hush-hush-hush-hush\"")).unwrap();
    assert_eq!(config.cluster.credentials.password().current().reveal(), "hush-hush-hush-hush");
}

#[test]
fn a_password_file_must_be_private_and_hold_one_line() {
    for (content, mode, part) in [
        (PASSWORD, 0o644, "others can get at it (mode 0644); run: chmod 600 /secret"),
        (PASSWORD, 0o640, "(mode 0640)"),
        (PASSWORD, 0o602, "(mode 0602)"),
        ("", 0o600, "the password is empty"),
        ("\n", 0o600, "the password is empty"),
        ("hush hush\n", 0o600, "a space or a control character"),
        ("hush\nhush\nhush\n", 0o600, "it has 3 lines; one line is expected, or two"),
        ("hush\n\n", 0o600, "the password is empty"),
    ] {
        let said = judged_with(BASE, content, mode).unwrap_err().to_string();
        assert!(said.starts_with("v.toml:3: cluster.password_file = \"/secret\": ") && said.contains(part), "{said}");
        assert!(!said.contains("hush"), "the password is shown: {said}");
    }
    for (content, mode) in [("sixteen-letters-", 0o600), ("sixteen-letters-\n", 0o400), ("sixteen-letters-\r\n", 0o600)]
    {
        let (config, warnings) = judged_with(BASE, content, mode).unwrap();
        assert_eq!((config.cluster.credentials.password().current().reveal(), warnings.len()), ("sixteen-letters-", 0));
    }
    let (config, _) = judged_with(BASE, "the-new-password-1\nthe-old-password-1\n", 0o600).unwrap();
    let password = config.cluster.credentials.password();
    assert_eq!(password.current().reveal(), "the-new-password-1");
    assert!(password.accept(b"the-old-password-1"));
    for kind in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied, io::ErrorKind::InvalidData] {
        let said = parse(BASE, Path::new("v.toml"), &|_| Err(kind.into())).unwrap_err().to_string();
        assert!(said.starts_with("v.toml:3: cluster.password_file = \"/secret\": it cannot be read: "), "{said}");
    }
}

#[test]
fn broken_toml_is_refused_with_its_line() {
    for (to, begin) in [
        ("quorum = ", "v.toml:2: not TOML: "),
        ("quorum = 2\nquorum = 3", "v.toml:3: not TOML: duplicate key"),
        ("quorum 2", "v.toml:2: not TOML: "),
        ("[cluster", "v.toml:2: not TOML: "),
    ] {
        let said = judged(&edited("quorum = 2", to)).unwrap_err().to_string();
        assert!(said.starts_with(begin), "{to:?}: {said}");
    }
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = BASE
        .replace("quorum = 2", "quorum = 9")
        .replace("\"500ms\"", "500")
        .replace("eth0", "")
        .replace("max_clients = 10", "max_client = 10")
        .replace("\"192.168.0.6\"", "\"192.168.0.4\"");
    let faults = judged(&text).unwrap_err();
    let lines: Vec<_> = faults.0.iter().map(|fault| fault.line.unwrap()).collect();
    assert_eq!(lines, [2, 4, 8, 12, 41], "{faults}");
    let crowd: String = (0..500).map(|n| format!("k{n}zzzzzz = 1\n")).collect();
    let faults = judged(&format!("{BASE}[sentinel]\n{crowd}")).unwrap_err();
    assert_eq!((faults.0.len(), faults.0[60].expected.as_str()), (61, "440 more faults are not listed"));
}

#[test]
fn counts_of_nodes_are_warned_of() {
    let warnings = |text: String| {
        let (_, warnings) = judged(&text).unwrap_or_else(|faults| panic!("{faults}"));
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let four = edited("quorum = 2", "quorum = 3")
        + "[[node]]\nname = \"x\"\naddress = \"192.168.0.7\"\nroles = [\"sentinel\"]\n";
    assert!(warnings(four).starts_with("v.toml:2: cluster.quorum: 4 sentinels, an even number"));
    let alone = BASE[..BASE.find("[[node]]\nname = \"redis-02\"").unwrap()].replace("quorum = 2", "quorum = 1");
    let said = warnings(alone);
    assert!(said.contains("one sentinel: ") && said.contains("v.toml:28: node.roles: one data node"), "{said}");
    let one_proxy = BASE
        .replacen("roles = [\"proxy\"]\n\n", "roles = [\"sentinel\", \"redis\"]\n\n", 1)
        .replace("quorum = 2", "quorum = 3");
    assert!(warnings(one_proxy).contains("v.toml:6: vip: one proxy"));
    let no_vip =
        BASE.replace("[[vip]]\naddresses = [\"192.168.0.1/24\"]\ninterface = \"eth0\"\nvirtual_router_id = 51\n", "");
    assert!(warnings(no_vip).starts_with("v.toml:13: node.roles: no [[vip]]"));
    let never = BASE
        .replace("\"sentinel\"]\n", "\"sentinel\"]\nreplica_priority = 0\n")
        .replace("bootstrap_master = true\n", "");
    assert!(warnings(never).contains("0 on every data node"));
}

#[test]
fn the_secret_is_another_one_than_the_password_and_long() {
    let with = |secret: &str, mode: u32| {
        parse(BASE, Path::new("v.toml"), &|path| match path.to_str() {
            Some("/secret") => Ok((PASSWORD.to_owned(), 0o600)),
            _ => Ok((secret.to_owned(), mode)),
        })
    };
    for (secret, mode, part) in [
        (PASSWORD, 0o600, "it holds the password, which applications know"),
        ("another-secret-0\nnot-the-real-password-1\n", 0o600, "it holds the password"),
        ("fifteen-letters", 0o600, "15 characters; allowed: 16 or more"),
        ("sixteen-letters-", 0o604, "others can get at it (mode 0604)"),
        ("", 0o600, "empty"),
    ] {
        let said = with(secret, mode).unwrap_err().to_string();
        assert!(said.starts_with("v.toml:5: cluster.secret_file") && said.contains(part), "{said}");
        assert!(secret.is_empty() || !said.contains(secret.trim()), "the secret is shown: {said}");
    }
    assert!(!with("sixteen-letters-\n", 0o600).unwrap().0.cluster.credentials.are_derived());
    warns(
        "secret_file = \"/own-secret\"",
        "",
        "v.toml:1: cluster.secret_file: missing",
        &["derived from the password"],
    );
    let derived = judged(&edited("secret_file = \"/own-secret\"", "")).unwrap().0;
    assert!(derived.cluster.credentials.are_derived());
}

#[test]
fn a_file_is_loaded_with_its_password_and_its_includes() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(at(name), text).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("b.conf", "", 0o644);
    write("a.conf", "", 0o644);
    write("password", PASSWORD, 0o600);
    let folder = directory.path().display().to_string();
    let includes = format!("persistence = \"rdb\"\ninclude = [\"{folder}/*.conf\", \"{folder}/*.none\"]");
    write("own", SECRET, 0o600);
    let text = edited("/secret", &format!("{folder}/password"));
    let text = text.replace("/own-secret", &format!("{folder}/own")).replace("persistence = \"aof\"", &includes);
    write("vigie.toml", &text, 0o644);
    let (config, warnings) = load(&at("vigie.toml")).unwrap();
    assert_eq!(config.redis.include, [format!("{folder}/a.conf"), format!("{folder}/b.conf")]);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .to_string()
            .ends_with(&format!("vigie.toml:16: redis.include: \"{folder}/*.none\" matches no file here"))
    );

    write("password", PASSWORD, 0o644);
    let said = load(&at("vigie.toml")).unwrap_err().to_string();
    assert!(said.contains("(mode 0644); run: chmod 600 "), "{said}");

    let inline = edited("password_file = \"/secret\"", "password = \"a-long-enough-password\"");
    write("inline.toml", &inline.replace("/own-secret", &format!("{folder}/own")), 0o644);
    let (_, warnings) = load(&at("inline.toml")).unwrap();
    assert!(warnings[0].to_string().contains("others can read it (mode 0644)"), "{warnings:?}");
    fs::set_permissions(at("inline.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load(&at("inline.toml")).unwrap().1, []);
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let said = || load(&at("vigie.toml")).map(|_| ()).map_err(|faults| faults.to_string());
    let private = || {
        let inline = edited("password_file = \"/secret\"", "password = \"a-long-enough-password\"");
        inline.replace("secret_file = \"/own-secret\"\n", "\n")
    };
    fs::write(at("vigie.toml"), private()).unwrap();
    for (mode, right) in [(0o664, false), (0o602, false), (0o644, true), (0o600, true)] {
        set(&at("vigie.toml"), mode);
        assert_eq!(said().is_ok(), right, "{mode:o}");
    }
    set(&at("vigie.toml"), 0o666);
    let path = at("vigie.toml").display().to_string();
    assert_eq!(said(), Err(format!("{path}: others can change it (mode 0666); run: chmod go-w {path}")));
    // Beside what is wrong inside of it.
    fs::write(at("vigie.toml"), "[claster]\n").unwrap();
    let both = said().unwrap_err();
    assert!(both.contains("others can change it") && both.contains("claster"), "{both}");

    fs::write(at("vigie.toml"), private()).unwrap();
    set(&at("vigie.toml"), 0o600);
    set(directory.path(), 0o777);
    let replaceable = said().unwrap_err();
    assert!(replaceable.contains("anybody can replace it (") && replaceable.contains("has mode 0777); run: chmod o-w"));
    set(directory.path(), 0o1777);
    assert_eq!(said(), Ok(()));

    let include = at("more.conf").display().to_string();
    let includes = format!("persistence = \"rdb\"\ninclude = [\"{include}\"]");
    fs::write(at("vigie.toml"), private().replace("persistence = \"aof\"", &includes)).unwrap();
    fs::write(&include, "").unwrap();
    set(Path::new(&include), 0o644);
    assert_eq!(said(), Ok(()));
    set(Path::new(&include), 0o646);
    assert_eq!(said(), Err(format!("{include}: others can change it (mode 0646); run: chmod go-w {include}")));
}

#[test]
fn files_of_other_users_are_not_read() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let give = |name: &str| std::os::unix::fs::lchown(at(name), Some(65_534), None).unwrap();
    let folder = directory.path().display().to_string();
    let text = edited("/secret", &format!("{folder}/password")).replace("secret_file = \"/own-secret\"\n", "\n");
    fs::write(at("vigie.toml"), text).unwrap();
    fs::write(at("real"), PASSWORD).unwrap();
    fs::set_permissions(at("real"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(at("real"), at("password")).unwrap();
    load(&at("vigie.toml")).unwrap();
    give("password");
    let said = load(&at("vigie.toml")).unwrap_err().to_string();
    assert!(said.contains("the link to it belongs to user 65534; root is expected"), "{said}");
    give("real");
    fs::remove_file(at("password")).unwrap();
    fs::rename(at("real"), at("password")).unwrap();
    let said = load(&at("vigie.toml")).unwrap_err().to_string();
    assert!(said.contains("password") && said.contains("it belongs to user 65534; root is expected"), "{said}");
    give("vigie.toml");
    let said = load(&at("vigie.toml")).unwrap_err().to_string();
    assert!(said.ends_with("vigie.toml: it cannot be read: it belongs to user 65534; root is expected"), "{said}");
}

#[test]
fn what_is_no_readable_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let latin = directory.path().join("latin.toml");
    fs::write(&latin, b"# caf\xe9\n").unwrap();
    let large = directory.path().join("large.toml");
    fs::File::create(&large).unwrap().set_len(FILE_MAX + 1).unwrap();
    for (path, part) in [
        (directory.path().join("none.toml"), "No such file"),
        (directory.path().to_owned(), "not a regular file"),
        (latin, "UTF-8 text is expected"),
        (large, "1048577 bytes, 1048576 are allowed"),
    ] {
        let said = load(&path).unwrap_err().to_string();
        assert!(said.starts_with(&format!("{}: it cannot be read: ", path.display())) && said.contains(part), "{said}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "\\PC{0,400}") {
        let _ = parse(&text, Path::new("v.toml"), &|_| Ok((String::new(), 0)));
    }

    #[test]
    fn a_mangled_file_never_panics(
        at in 0..BASE.len(),
        length in 0usize..40,
        new in "[\\[\\]{}\"'=.,#\\\\ \\n0-9a-z\\PC]{0,20}",
    ) {
        let end = (at + length).min(BASE.len());
        let text = format!("{}{new}{}", &BASE[..at], &BASE[end..]);
        if let Err(faults) = parse(&text, Path::new("v.toml"), &|_| Ok((PASSWORD.to_owned(), 0o600))) {
            prop_assert!(!faults.0.is_empty(), "refused without a reason:\n{}", text);
            prop_assert_eq!(faults.to_string().lines().count(), faults.0.len(), "{}", faults);
        }
    }

    #[test]
    fn every_value_of_every_key_gets_an_answer(
        key in 0..keys::KEYS.len(),
        value in prop_oneof![
            "-?[0-9]{1,25}", "\"\\PC{0,20}\"", "'[^']{0,20}'", "\\[\"[a-z/*0-9.:]{0,20}\"\\]",
            "true|1\\.5|inf|1979-05-27|\\{ a = 1 \\}", "0x[0-9a-f]{1,20}", "\"[0-9]{1,20}(us|ms|s|m|h|d)?\"",
        ],
    ) {
        let key = keys::KEYS[key];
        let (open, close) = if matches!(key.section, "vip" | "node") { ("[[", "]]") } else { ("[", "]") };
        let header = format!("{open}{}{close}", key.section);
        let text = format!("{header}\n{} = {value}\n", key.name);
        prop_assert!(parse(&text, Path::new("v.toml"), &|_| Ok((PASSWORD.to_owned(), 0o600))).is_err());
    }
}
