use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::base::lease::{Tenure, Terms};
use crate::base::node::{
    Decision, MasterFacts, Mode, NodeState, Process, RedisFacts, RedisRole, Roles, SentinelFacts, clipped,
};
use crate::base::{Instant, NodeName, RunId};
use crate::config::{self, Config};
use crate::cores::cluster::{NodeView, View};
use crate::runtime::status::fencing::Reason;

/// A cluster of a proxy and three redis with sentinels, as redis-01 sees it: fenced, all well, the lease held.
pub(in crate::operate) struct Town {
    pub(in crate::operate) config: Config,
    pub(in crate::operate) view: View,
}

const DECISION: u64 = 3;

fn address(place: usize) -> SocketAddr {
    format!("192.168.0.{}:6379", 3 + place).parse().unwrap()
}

fn terms(voters: u32, lease: u64) -> Terms {
    Terms { voters, lease: (lease > 0).then(|| Duration::from_millis(lease)) }
}

fn asks(open: Option<u64>, grants: u32) -> Tenure {
    Tenure::Asks { epoch: DECISION, open, grants, slack: Duration::from_millis(153) }
}

impl Town {
    pub(in crate::operate) fn new(fencing: &str) -> Self {
        let mut text = format!(
            "[cluster]\nname = \"mymaster\"\nquorum = 2\nfencing = \"{fencing}\"\n\
             password = \"a-long-enough-password\"\n\
             [[node]]\nname = \"haproxy-01\"\naddress = \"192.168.0.3\"\nroles = [\"proxy\"]\n"
        );
        for n in 1..=3 {
            let first = if n == 1 { "bootstrap_master = true\n" } else { "" };
            text += &format!(
                "[[node]]\nname = \"redis-0{n}\"\naddress = \"192.168.0.{}\"\nroles = [\"redis\", \"sentinel\"]\n{first}",
                3 + n
            );
        }
        let (config, _) = config::parse(&text, Path::new("v.toml"), &|_| unreachable!()).unwrap();
        let wished = if fencing == "lease" { 250 } else { 0 };
        let node = |place: usize| {
            let name: NodeName =
                if place == 0 { "haproxy-01".to_owned() } else { format!("redis-0{place}") }.parse().unwrap();
            let roles = Roles { proxy: place == 0, redis: place > 0, sentinel: place > 0 };
            let mut state = NodeState::new(name.clone(), clipped("0.1.0"), roles);
            (state.terms, state.hears_majority) = (terms(7, wished), true);
            if place > 0 {
                let role = if place == 1 {
                    RedisRole::Master { replicas: 2 }
                } else {
                    RedisRole::Replica { of: address(1), link_up: true }
                };
                let redis = RedisFacts::new(address(place), place as u64);
                state.redis = Some(RedisFacts { process: Process::Alive, role, ..redis });
                let decision = Some(Decision { master: address(1), epoch: DECISION });
                let mode = if fencing == "lease" { Mode::Fenced } else { Mode::Unfenced };
                let facts =
                    MasterFacts { name: clipped("mymaster"), decision, mode: Some(mode), ..MasterFacts::default() };
                let masters = [facts].into_iter().collect();
                state.sentinel = Some(SentinelFacts { id: RunId([1; 20]), current_epoch: DECISION, masters });
            }
            NodeView {
                state: Some(state),
                fresh: true,
                heard_at: Some(Instant::START),
                ..NodeView::new(name, address(place).ip(), roles)
            }
        };
        let view = View { at: Instant::START, me: 1, nodes: (0..4).map(node).collect() };
        let mut town = Self { config, view };
        if fencing == "lease" {
            town.state(1).tenure = asks(Some(DECISION), 0b111);
            town.view.nodes[1].lease_left = Duration::from_millis(205);
        }
        town
    }

    pub(in crate::operate) fn state(&mut self, place: usize) -> &mut NodeState {
        self.view.nodes[place].state.as_mut().unwrap()
    }

    /// What all sentinels say of the latest decision.
    fn decided(&mut self, fenced: bool) {
        let mode = if fenced { Mode::Fenced } else { Mode::Unfenced };
        for place in 1..4 {
            self.state(place).sentinel.as_mut().unwrap().masters[0].mode = Some(mode);
        }
    }

    /// Nothing is heard of that node any more.
    pub(in crate::operate) fn lose(&mut self, place: usize) {
        let node = &mut self.view.nodes[place];
        (node.fresh, node.fault) = (false, "not heard any more".to_owned());
    }

    /// Seen from redis-01: no frame arrives anywhere.
    pub(in crate::operate) fn cut(&mut self) {
        [0, 2, 3].into_iter().for_each(|place| self.lose(place));
        self.state(1).hears_majority = false;
        self.state(1).tenure = asks(None, 0b001);
    }

    pub(in crate::operate) fn status(&self) -> Status {
        Status::new(&self.config, &self.view, Instant::START, Instant::START)
    }

    pub(in crate::operate) fn fencing(&self) -> Fencing {
        self.status().fencing
    }

    /// What stands above the table.
    fn top(&self) -> String {
        page(&self.status()).split("\n\n").next().unwrap().to_owned()
    }

    /// Whether it says that in the line below the first one.
    #[track_caller]
    fn says(&self, said: &str) {
        assert_eq!(self.top().lines().nth(1), Some(said));
    }

    #[track_caller]
    fn warns(&self, said: &[&str]) {
        let warnings = page(&self.status());
        let warnings: Vec<_> = warnings.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
        assert_eq!(warnings, said);
    }

    fn cell(&self, place: usize) -> String {
        redis_cell(self.status().nodes[place].redis.as_ref().unwrap())
    }
}

#[test]
fn a_fenced_cluster_says_who_holds_the_lease_and_how_well() {
    let mut town = Town::new("lease");
    assert_eq!(
        town.top(),
        "cluster mymaster · master redis-01 192.168.0.4:6379 (epoch 3) · fenced · seen from redis-01\n\
         lease: redis-01 (epoch 3), 205 ms left, slack 153 ms, granted by redis-01, redis-02, redis-03; 2 needed"
    );
    assert_eq!([1, 2].map(|place| town.cell(place)), ["master, 2 replicas", "replica in sync"]);
    assert!(super::super::commands::healthy(&town.status()));
    town.warns(&[]);
    town.lose(3);
    town.state(1).tenure = asks(Some(DECISION), 0b011);
    town.says(
        "lease: redis-01 (epoch 3), 205 ms left, slack 153 ms, granted by redis-01, redis-02, \
         not by redis-03 (not heard here); 2 needed",
    );
    town.view.nodes[3].fresh = true;
    town.state(3).sentinel.as_mut().unwrap().masters[0].sees_down = true;
    assert!(town.top().contains("not by redis-03 (finds the master down)"), "{}", town.top());
}

#[test]
fn without_a_lease_every_page_says_that_writes_are_refused_and_why() {
    let mut town = Town::new("lease");
    town.cut();
    assert_eq!(
        town.top(),
        "cluster mymaster · master redis-01 192.168.0.4:6379 (epoch 3) · no lease: writes are refused · seen from redis-01\n\
         lease: nobody holds it, and every redis refuses writes\n\
         \x20 redis-01 asks in epoch 3, has 1 of 3 grants (2 needed), missing redis-02, redis-03 (not heard here); \
         it hears no majority\n\
         \x20 this node hears 1 of 3 sentinels on UDP port 26380 (2 needed), not redis-02, redis-03: check that they run, and the firewall\n\
         \x20 the master refuses writes until a majority of the sentinels is heard"
    );
    assert_eq!(town.cell(1), "master, refuses writes");
    assert!(!super::super::commands::healthy(&town.status()));

    // As another node sees the same: the master may have what this node has not.
    town.view.me = 2;
    (town.view.nodes[1].fresh, town.view.nodes[2].fresh) = (false, true);
    assert_eq!(
        town.top(),
        "cluster mymaster · master redis-01 192.168.0.4:6379 (epoch 3) · fenced, the lease is not known here · seen from redis-02\n\
         lease: it is not known here who holds it\n\
         \x20 redis-01 is not heard: it may hold the lease, if it hears a majority of the sentinels\n\
         \x20 this node hears 1 of 3 sentinels on UDP port 26380 (2 needed), not redis-01, redis-03: check that they run, and the firewall"
    );

    // And one without a sentinel.
    town.view.me = 0;
    (town.view.nodes[0].fresh, town.view.nodes[2].fresh) = (true, false);
    assert_eq!(
        town.top(),
        "cluster mymaster · the master is not known here · not known whether fenced · seen from haproxy-01\n\
         this node hears 0 of 3 sentinels on UDP port 26380 (2 needed), not redis-01, redis-02, redis-03: check that they run, and the firewall"
    );
}

#[test]
fn what_keeps_a_master_that_is_heard_from_the_lease_is_told() {
    let mut town = Town::new("lease");
    let without = |town: &Town| town.fencing().lease.unwrap().without;
    let reason = |node: &str, why: &str| Reason { node: node.to_owned(), why: why.to_owned() };
    town.state(1).tenure = Tenure::Released { epoch: 3, at: Instant::START };
    assert_eq!(without(&town), [reason("redis-01", "gave the lease of epoch 3 back, for another master")]);
    town.state(1).tenure = Tenure::None;
    assert_eq!(without(&town), [reason("redis-01", "does not ask: its redis has to be elected first")]);
    town.state(1).redis.as_mut().unwrap().process = Process::Loading;
    assert_eq!(without(&town), [reason("redis-01", "its redis was started again, and has to be elected first")]);
    town.state(1).redis.as_mut().unwrap().process = Process::Dead;
    town.state(2).tenure = asks(None, 0b110);
    assert_eq!(
        without(&town),
        [
            reason("redis-01", "its redis is dead"),
            reason("redis-02", "asks in epoch 3, has 2 of 3 grants (2 needed), missing redis-01")
        ]
    );
    assert!(town.fencing().refuses_writes());
    town.state(1).redis.as_mut().unwrap().process = Process::Alive;
    town.state(1).redis.as_mut().unwrap().role = RedisRole::Closed;
    assert_eq!(town.cell(1), "master, refuses writes", "closed, and the master by the decision");
}

#[test]
fn a_cluster_that_is_not_fenced_says_by_whose_file() {
    let mut town = Town::new("off");
    assert_eq!(
        town.top(),
        "cluster mymaster · master redis-01 192.168.0.4:6379 (epoch 3) · not fenced · seen from redis-01\n\
         not fenced: fencing = off in the files of all sentinels"
    );
    assert_eq!(town.cell(1), "master, 2 replicas");
    town.warns(&[]);
    for place in [2, 3] {
        town.state(place).terms = terms(7, 250);
    }
    town.says("not fenced: fencing = off in the file of redis-01 (this node)");
    town.state(3).terms = terms(7, 0);
    town.says("not fenced: fencing = off in the files of redis-01 (this node), redis-03");
    town.warns(&[
        "fencing differs: lease in the file of redis-02; off in that of haproxy-01, redis-01 (this node), redis-03",
    ]);
}

#[test]
fn a_cluster_that_is_to_be_fenced_says_for_whom_it_waits() {
    let mut town = Town::new("lease");
    town.decided(false);
    town.state(1).tenure = Tenure::None;
    town.says("not fenced yet: all ask for it, a sentinel is about to decide it");
    assert_eq!(town.cell(1), "master, 2 replicas");
    town.state(1).hears_majority = false;
    town.says("not fenced yet: the master has to hear a majority of the sentinels for that");
    town.state(1).redis.as_mut().unwrap().process = Process::Dead;
    town.says("not fenced yet: the master has to be well for that");
    town.state(3).terms = terms(7, 0);
    town.says("not fenced yet: waiting for redis-03, whose file says off");
    town.state(2).terms = terms(7, 0);
    town.says("not fenced yet: waiting for redis-02, redis-03, whose files say off");
    town.state(2).terms = Terms::default();
    town.says("not fenced yet: waiting for redis-02, which runs an older vigie, and for redis-03, whose file says off");
    town.warns(&[
        "an older vigie, which knows of no leases, runs on redis-02: update it",
        "fencing differs: lease in the file of haproxy-01, redis-01 (this node); off in that of redis-03",
    ]);
    town.state(2).terms = terms(8, 250);
    town.lose(3);
    town.says(
        "not fenced yet: waiting for redis-02, whose file lists other sentinels, and for redis-03, which is not heard",
    );
    town.warns(&["the files list different sentinels, or other addresses of them: that of redis-02, and that of \
                  haproxy-01, redis-01 (this node); there are no votes and no grants between these nodes: \
                  make the files the same"]);
}

#[test]
fn a_cluster_that_is_to_be_fenced_no_more_says_so_too() {
    let mut town = Town::new("off");
    town.decided(true);
    town.state(1).tenure = asks(Some(DECISION), 0b111);
    town.state(2).terms = terms(7, 250);
    town.says("still fenced: waiting for redis-02, whose file says lease");
    assert!(town.top().lines().nth(2).is_some_and(|line| line.starts_with("lease: redis-01 (epoch 3)")));
}

#[test]
fn leases_of_different_lengths_are_warned_of() {
    let mut town = Town::new("lease");
    town.state(2).terms = terms(7, 200);
    town.warns(&[
        "the lease differs: 200ms in the file of redis-02; 250ms in the file of haproxy-01, redis-01 (this node), \
                  redis-03; make the files the same",
    ]);
}

#[test]
fn the_fields_of_the_fence_stand_beside_those_of_the_cluster() {
    let mut town = Town::new("lease");
    let status = town.status();
    let line = serde_json::to_string(&status).unwrap();
    for part in [
        r#""fencing":"fenced","fencing_wanted":"lease","fencing_why":"","lease":{"writes":"taken","holder":"redis-01""#,
        r#""epoch":3,"left_ms":205,"slack_ms":153,"grants":["redis-01","redis-02","redis-03"],"missing":[],"needed":2"#,
        r#""role":"master","decided":true,"takes_writes":true"#,
        r#""role":"replica","decided":false,"takes_writes":false"#,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), status);
    town.cut();
    let line = serde_json::to_string(&town.status()).unwrap();
    assert!(line.contains(r#""lease":{"writes":"refused","holder":null"#), "{line}");
    assert!(
        line.contains(r#""missing":[]"#) && line.contains(r#""without":[{"node":"redis-01","why":"asks"#),
        "{line}"
    );
}

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
        fencing: Fencing { mode: NOT_FENCED.to_owned(), ..Fencing::default() },
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
