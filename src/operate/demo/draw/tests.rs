use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::runtime::status::{ProxyStatus, VipStatus};

fn node(name: &str, redis: Option<(&str, &str)>) -> Node {
    let redis = redis.map(|(process, role)| RedisStatus {
        process: process.to_owned(),
        role: role.to_owned(),
        decided: false,
        takes_writes: None,
        master: None,
        in_sync: true,
        offset: 1_234,
        lag_bytes: (role == "replica").then_some(56),
        replicas: None,
        incarnation: 1,
    });
    let proxy = redis.is_none().then(|| ProxyStatus { listening: true, route: Some("x".to_owned()), clients: 8 });
    let vip = VipStatus { addresses: vec![], virtual_router_id: 51, state: "master".to_owned(), priority: 100 };
    let vips = if redis.is_none() { vec![vip] } else { vec![] };
    let status = NodeStatus {
        name: name.to_owned(),
        address: "192.168.0.4".to_owned(),
        roles: vec!["redis".to_owned(), "sentinel".to_owned()],
        health: "good".to_owned(),
        why: String::new(),
        heard_ms_ago: None,
        version: None,
        redis,
        sentinel: None,
        proxy,
        vips,
    };
    Node { has_vip: !status.vips.is_empty(), status, cut: false }
}

fn picture(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, screen)).unwrap();
    terminal.backend().to_string()
}

fn screen() -> Screen {
    let mut gone = node("redis-03", Some(("dead", "replica")));
    gone.cut = true;
    Screen {
        nodes: vec![
            node("haproxy-01", None),
            node("redis-01", Some(("alive", "master"))),
            node("redis-02", Some(("alive", "replica"))),
            gone,
        ],
        selected: 1,
        master: Some("redis-01".to_owned()),
        vip_holders: vec!["haproxy-01".to_owned()],
        route: Some("redis-01".to_owned()),
        writes: (0..240).collect(),
        rate: 500,
        client: ClientNumbers { silent_ms: 350, outage: Some(432), errors: 3, acked: 9_000, checked: 8_000, lost: 0 },
        events: vec![Event {
            at_ms: 45_296_789,
            node: "redis-02".to_owned(),
            text: "sentinel +switch-master: now redis-02".to_owned(),
            own: false,
        }],
        notice: "done: pull the cable of redis-03".to_owned(),
        hint: "nsenter -t 7".to_owned(),
    }
}

#[test]
fn the_picture_shows_what_matters() {
    let shown = picture(&screen(), 130, 26);
    for expected in [
        "VIP on haproxy-01",
        "writes go to redis-01",
        "▶ redis-01",
        "cable pulled",
        "8 clients",
        "◉ master",
        "500 writes/s",
        "43.2 ms",
        "no write for 350 ms",
        "12:34:56.789 redis-02",
        "+switch-master",
        "m kill the master's redis",
        "k kill its vigie",
        "nsenter -t 7",
        "done: pull the cable",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
    }
}

#[test]
fn two_holders_and_none_are_said() {
    let both = Screen { vip_holders: vec!["a".to_owned(), "b".to_owned()], ..screen() };
    assert!(picture(&both, 130, 26).contains("VIP on a AND b"));
    assert!(picture(&Screen::default(), 130, 26).contains("VIP on nobody"));
}

#[test]
fn any_size_can_be_drawn() {
    for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 80)] {
        picture(&screen(), width, height);
        picture(&Screen::default(), width, height);
    }
}
