use super::*;
use crate::cores::sentinel::Rejection;
use crate::cores::sentinel::why::{Rejected, SentinelWhy};
use crate::operate::status::tests::Town;
use crate::runtime::why::Heard;

fn who(n: u8) -> Who {
    Who { node: Some(format!("redis-0{n}").parse().unwrap()), address: ([192, 168, 0, 3 + n], 6379).into() }
}

fn unfenced() -> Fencing {
    let why = "not fenced: fencing = off in the files of all sentinels".to_owned();
    Fencing { mode: "not fenced".to_owned(), wanted: "off".to_owned(), why, ..Fencing::default() }
}

fn gates() -> Vec<Checked> {
    let gates = [
        (
            Verdict::Open,
            Gate::Decision { epoch: Some(3), without_record: 0, needed: 2, waits_for: vec![], taken_over: false },
        ),
        (
            Verdict::Open,
            Gate::Down {
                by: Some(DownBy::Silence),
                down_ms: Some(11_500),
                silent_ms: Some(12_000),
                limit_ms: 500,
                busy: false,
            },
        ),
        (Verdict::Blocks, Gate::Quorum { agree: 1, needed: 2, of: 3 }),
        (Verdict::Open, Gate::Password { refused_by: 0, of: 3 }),
        (Verdict::Blocks, Gate::Majority { reachable: 1, needed: 2, of: 3, takeover: false }),
        (Verdict::Open, Gate::Store { retry_ms: None }),
        (Verdict::Open, Gate::Leader { other: None, epoch: None, left_ms: None }),
        (Verdict::Open, Gate::Pause { left_ms: 0 }),
        (
            Verdict::Blocks,
            Gate::Candidate {
                best: None,
                rejected: vec![Rejected { who: who(2), reason: Rejection::Down }],
                master: Some(Rejection::Down),
            },
        ),
        (Verdict::Ahead, Gate::Election { epoch: None, votes: 0, needed: 2, open: 0, left_ms: None }),
        (Verdict::Ahead, Gate::Promotion { target: None, told: false, left_ms: None }),
        (Verdict::Ahead, Gate::Reconfiguration { pending: None, left_ms: None }),
    ];
    gates.map(|(verdict, gate)| Checked { verdict, gate }).to_vec()
}

fn blocked() -> Why {
    let sentinel = |n: u8, unreachable_ms| SentinelWhy {
        node: format!("redis-0{n}").parse().unwrap(),
        unreachable_ms,
        finds_down: false,
    };
    let master = MasterWhy {
        name: "mymaster".to_owned(),
        master: Some(who(1)),
        outcome: Outcome::Blocked,
        gates: gates(),
        sentinels: vec![sentinel(2, None), sentinel(3, Some(12_000))],
    };
    Why { fencing: unfenced(), node: "redis-01".to_owned(), masters: vec![master], frames: None }
}

#[test]
fn a_page_names_what_blocks_and_then_every_gate() {
    let why = blocked();
    assert!(!fine(&why));
    assert_eq!(
        page(&why),
        "mymaster: no failover: 1 of 2 votes that it is down (3 sentinels); 1 of 3 sentinels are there, 2 have to be; \
         nobody can be master: redis-02 (192.168.0.5:6379): down; the master itself: down; \
         sentinel redis-03 unreachable for 12 s\n\n\
         \x20 open    decision        redis-01 (192.168.0.4:6379) is the master of epoch 3\n\
         \x20 open    master down     down for 11 s: silent for 12 s (500 ms allowed)\n\
         \x20 BLOCKS  quorum          1 of 2 votes that it is down (3 sentinels)\n\
         \x20 open    password        this node's password is taken\n\
         \x20 BLOCKS  majority        1 of 3 sentinels are there, 2 have to be\n\
         \x20 open    store           votes can be stored\n\
         \x20 open    other leader    nobody else leads\n\
         \x20 open    pause           over\n\
         \x20 BLOCKS  candidate       nobody can be master: redis-02 (192.168.0.5:6379): down; the master itself: down\n\
         \x20 -       election        2 votes are needed\n\
         \x20 -       promotion       nobody is chosen yet\n\
         \x20 -       reconfiguration the others follow the new master then\n\
         \x20 -       lease           not fenced: fencing = off in the files of all sentinels\n\
         \x20 sentinel redis-03 unreachable for 12 s\n\n\
         seen by the sentinel of redis-01; each of the others has a view of its own\n"
    );
}

#[test]
fn a_master_that_is_well_and_could_not_be_replaced_is_said_to_be_so() {
    let mut why = blocked();
    why.masters[0].outcome = Outcome::NotNeeded;
    why.masters[0].gates.truncate(5);
    why.masters[0].gates[2].verdict = Verdict::Ahead;
    assert!(fine(&why));
    let said = page(&why);
    let sentence = "mymaster: no failover is needed: redis-01 (192.168.0.4:6379) is well; and none would be possible: \
                    1 of 3 sentinels are there, 2 have to be\n";
    assert!(said.starts_with(sentence), "{said}");
    why.masters[0].gates[4].gate = Gate::Majority { reachable: 1, needed: 2, of: 3, takeover: true };
    let way_out = format!("{} (if the others are lost for good: vigie takeover)\n", sentence.trim_end());
    assert!(page(&why).starts_with(&way_out), "{}", page(&why));
    why.masters[0].gates[4].verdict = Verdict::Open;
    assert!(page(&why).starts_with("mymaster: no failover is needed: redis-01 (192.168.0.4:6379) is well\n"));
    why.masters[0].gates[0].gate =
        Gate::Decision { epoch: Some(503), without_record: 0, needed: 2, waits_for: vec![], taken_over: true };
    let said = "is the master of epoch 503, taken over by the operator: not fenced until every sentinel is heard\n";
    assert!(page(&why).contains(said), "{}", page(&why));
}

#[test]
fn what_is_under_way_is_told_by_its_last_gate() {
    let mut why = blocked();
    let master = &mut why.masters[0];
    (master.outcome, master.sentinels) = (Outcome::UnderWay, vec![]);
    master.gates.iter_mut().for_each(|checked| checked.verdict = Verdict::Open);
    let election = Gate::Election { epoch: Some(7), votes: 1, needed: 2, open: 2, left_ms: Some(900) };
    let promotion = Gate::Promotion { target: Some(who(2)), told: true, left_ms: Some(3_000) };
    let end = Gate::Reconfiguration { pending: Some(2), left_ms: None };
    let leader = Gate::Leader { other: Some("redis-03".parse().unwrap()), epoch: Some(8), left_ms: None };
    for (place, gate, words) in [
        (6, leader, "redis-03 leads at epoch 8"),
        (9, election, "1 of 2 votes at epoch 7, 2 may still come; it ends in 900 ms"),
        (10, promotion, "redis-02 (192.168.0.5:6379) is told to be master; given up in 3 s"),
        (11, end, "redis-01 (192.168.0.4:6379) is master; 2 others do not follow it yet"),
    ] {
        why.masters[0].gates[place] = Checked { verdict: Verdict::Waits, gate };
        let said = page(&why);
        assert!(said.starts_with(&format!("mymaster: a failover is under way: {words}\n")), "{said}");
    }
    assert!(fine(&why));
}

#[test]
fn the_answer_survives_its_way_over_the_socket() {
    let why = blocked();
    let line = serde_json::to_string(&why).unwrap();
    for part in [
        r#""outcome":"blocked""#,
        r#"{"verdict":"blocks","gate":"quorum","agree":1,"needed":2,"of":3}"#,
        r#"{"node":"redis-02","address":"192.168.0.5:6379","reason":"down"}"#,
        r#""unreachable_ms":12000"#,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(serde_json::from_str::<Why>(&line).unwrap(), why);
}

#[test]
fn a_node_without_a_sentinel_says_whom_to_ask() {
    let heard = |node: &str, fresh, finds_down| Heard { node: node.to_owned(), fresh, finds_down, leads: None };
    let frames = Frames {
        name: "mymaster".to_owned(),
        master: Some("192.168.0.4:6379".to_owned()),
        outcome: Outcome::Blocked,
        quorum: 2,
        majority: 2,
        sentinels: vec![heard("redis-01", true, true), heard("redis-02", true, false), heard("redis-03", false, true)],
    };
    let why = Why { fencing: unfenced(), node: "haproxy-01".to_owned(), masters: vec![], frames: Some(frames) };
    assert!(!fine(&why));
    assert_eq!(
        page(&why),
        "mymaster: no failover: 1 of 2 votes that it is down\n\n\
         \x20 sentinel redis-01 finds the master down\n\
         \x20 sentinel redis-02 finds the master well\n\
         \x20 sentinel redis-03 is not heard\n\
         \x20 -       lease           not fenced: fencing = off in the files of all sentinels\n\n\
         haproxy-01 has no sentinel; for every gate, ask on redis-01 or redis-02: vigie why\n"
    );
}

#[test]
fn the_lease_is_a_gate_of_its_own() {
    let mut town = Town::new("lease");
    let mut why = blocked();
    (why.masters[0].outcome, why.fencing) = (Outcome::NotNeeded, town.fencing());
    why.masters[0].gates.truncate(2);
    let held = "  open    lease           redis-01 (epoch 3), 205 ms left, slack 153 ms, \
                granted by redis-01, redis-02, redis-03; 2 needed\n";
    assert!(fine(&why) && page(&why).contains(held), "{}", page(&why));
    town.cut();
    why.fencing = town.fencing();
    let said = page(&why);
    let refused = "mymaster: writes are refused, since no redis holds the lease; no failover is needed: redis-01";
    assert!(!fine(&why) && said.starts_with(refused), "{said}");
    let gate = "  BLOCKS  lease           nobody holds it, and every redis refuses writes\n\
                \x20                         redis-01 asks in epoch 3, has 1 of 3 grants (2 needed), ";
    assert!(said.contains(gate), "{said}");
    let firewall = "                          this node hears 1 of 3 sentinels on UDP port 26380 (2 needed), \
                    not redis-02, redis-03: check that they run, and the firewall\n\
                    \x20                         the master refuses writes until a majority of the sentinels is heard\n";
    assert!(said.contains(firewall), "{said}");
}

#[test]
fn a_fence_that_is_waited_for_says_so() {
    let mut why = blocked();
    let gate = "  -       lease           not fenced: fencing = off in the files of all sentinels\n";
    assert!(page(&why).contains(gate));
    why.fencing.wanted = "lease".to_owned();
    why.fencing.why = "not fenced yet: waiting for redis-03, which is not heard".to_owned();
    assert!(
        page(&why).contains("  waits   lease           not fenced yet: waiting for redis-03, which is not heard\n")
    );
}
