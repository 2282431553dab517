use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

/// Whom a turn at that time asks for, and when the next one is due.
fn asks(names: &mut Names, seconds: u64) -> (Vec<String>, Option<Instant>) {
    let mut requests = vec![];
    let wake = names.turn(at(seconds), &mut requests);
    assert!(wake.is_none_or(|wake| wake > at(seconds)), "a turn must move its deadline");
    (requests.into_iter().map(|Request::Resolve(name)| name).collect(), wake)
}

fn answer(names: &mut Names, seconds: u64, name: &str, found: Result<&[&str], &str>) -> Option<Moved> {
    let found = found.map(|all| all.iter().map(|one| ip(one)).collect()).map_err(str::to_owned);
    names.answered(Answer { name: name.into(), found }, at(seconds))
}

#[test]
fn addresses_need_no_answer_and_nonsense_gets_none() {
    let mut names = Names::default();
    assert_eq!(names.lookup("10.0.0.1", at(0)), Lookup::Known(ip("10.0.0.1")));
    assert_eq!(names.lookup("::1", at(0)), Lookup::Known(ip("::1")));
    for wrong in
        ["", "a b", "10.0.0.300", "127.1", "-a", "a-.b", "a..b", ".", "é", "a/b", &"x".repeat(64), &"x.".repeat(128)]
    {
        assert_eq!(names.lookup(wrong, at(0)), Lookup::Invalid, "{wrong:?}");
    }
    assert_eq!(asks(&mut names, 0), (vec![], None));
    for right in ["localhost", "redis-01.example.", "a_b", "1and1.example", "x"] {
        assert!(is_host_name(right), "{right}");
    }
}

#[test]
fn a_name_is_asked_once_until_it_is_answered_and_again_later() {
    let mut names = Names::default();
    assert_eq!(names.lookup("Redis.Example.", at(0)), Lookup::Pending);
    assert_eq!(asks(&mut names, 0).0, ["redis.example"]);
    assert_eq!(asks(&mut names, 5).0, [""; 0]);
    let moved = answer(&mut names, 6, "redis.example", Ok(&["10.0.0.1", "10.0.0.2"])).unwrap();
    assert_eq!((moved.from, moved.to), (None, ip("10.0.0.1")));
    assert_eq!(names.lookup("redis.example", at(6)), Lookup::Known(ip("10.0.0.1")));
    assert_eq!(asks(&mut names, 15), (vec![], Some(at(16))));
    assert_eq!(asks(&mut names, 16).0, ["redis.example"]);
}

#[test]
fn an_address_stays_while_it_is_among_the_answers_and_moves_when_it_is_not() {
    let mut names = Names::default();
    names.lookup("a", at(0));
    answer(&mut names, 0, "a", Ok(&["10.0.0.1"]));
    assert_eq!(answer(&mut names, 10, "a", Ok(&["10.0.0.2", "10.0.0.1"])), None);
    let moved = answer(&mut names, 20, "a", Ok(&["10.0.0.2"])).unwrap();
    assert_eq!((moved.from, moved.to), (Some(ip("10.0.0.1")), ip("10.0.0.2")));
    assert_eq!(names.known("A."), Some(ip("10.0.0.2")));
}

#[test]
fn what_was_known_is_believed_while_the_name_server_fails() {
    let mut names = Names::default();
    names.lookup("a", at(0));
    answer(&mut names, 0, "a", Ok(&["10.0.0.1"]));
    assert_eq!(answer(&mut names, 10, "a", Err("try again")), None);
    assert_eq!(names.lookup("a", at(10)), Lookup::Known(ip("10.0.0.1")));
    assert_eq!(names.fault("a"), Some("try again"));
    assert_eq!(asks(&mut names, 11).0, ["a"]);
    answer(&mut names, 12, "a", Ok(&["10.0.0.1"]));
    assert_eq!(names.fault("a"), None);
}

#[test]
fn failures_are_told_and_tried_again_ever_more_slowly() {
    let mut names = Names::default();
    names.lookup("a", at(0));
    let mut now = 0;
    for wait in [1, 2, 4, 8, 10, 10] {
        assert_eq!(asks(&mut names, now).0, ["a"]);
        answer(&mut names, now, "a", Err("unknown"));
        assert_eq!(asks(&mut names, now).1, Some(at(now + wait)));
        now += wait;
    }
    assert_eq!(names.lookup("a", at(now)), Lookup::Failed("unknown".into()));
    answer(&mut names, now, "a", Ok(&[]));
    assert_eq!(names.lookup("a", at(now)), Lookup::Failed("it has no address".into()));
}

#[test]
fn an_answer_that_never_comes_is_asked_for_again() {
    let mut names = Names::default();
    names.lookup("a", at(0));
    assert_eq!(asks(&mut names, 0), (vec!["a".to_owned()], Some(at(60))));
    assert_eq!(asks(&mut names, 60).0, ["a"]);
}

#[test]
fn names_are_bounded_and_forgotten_when_nobody_needs_them() {
    let mut names = Names::default();
    for n in 0..NAMES_MAX {
        assert_eq!(names.lookup(&format!("n{n}"), at(0)), Lookup::Pending);
    }
    assert_eq!(names.lookup("one-more", at(0)), Lookup::Full);
    names.retain(|name| name == "n7");
    assert_eq!(asks(&mut names, 0).0, ["n7"]);
    assert_eq!(answer(&mut names, 1, "n8", Ok(&["10.0.0.1"])), None, "nobody asked");
    assert_eq!(names.lookup("one-more", at(0)), Lookup::Pending);
}
