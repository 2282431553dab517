//! Sessions of clients: who may do what, who is closed, what long answers cost.

use super::*;
use crate::base::Secret;
use crate::wire::resp::Protocol;

const CLIENT: ClientId = ClientId(7_000_000);

fn outside() -> IpAddr {
    "203.0.113.9".parse().unwrap()
}

/// One sentinel without any world.
fn alone(access: Option<Access>, protected: bool) -> Sentinel {
    let mut config = World::new().config(0);
    config.logins = Some(Logins { applications: Secret::new("hush").into(), cluster: Secret::new("own").into() });
    let sentinel = Sentinel::new(config, Durable::new(world::id(5, 0, 1)), Instant::from_millis(1_000));
    match access {
        Some(access) => sentinel.with_access(access, protected),
        None => sentinel,
    }
}

fn users(lines: &[&str]) -> Option<Access> {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    Some(Access::Acl(Acl::from_lines(&lines, None).unwrap()))
}

/// What comes out for clients.
fn give(sentinel: &mut Sentinel, at: u64, input: Input) -> Vec<Output> {
    let mut out = to_a_slow_disk(sentinel, at, input);
    while let Some(Output::Store(_)) = out.last() {
        out.extend(to_a_slow_disk(sentinel, at, Input::Stored(Ok(()))));
    }
    out.retain(is_of_clients);
    out
}

/// The same while a store, if it comes to one, has not ended.
fn to_a_slow_disk(sentinel: &mut Sentinel, at: u64, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    sentinel.handle(Instant::from_millis(at), input, &mut out);
    out
}

fn is_of_clients(output: &Output) -> bool {
    matches!(
        output,
        Output::Respond(..)
            | Output::Dismiss(_)
            | Output::Kill(_)
            | Output::Protocol(..)
            | Output::WrongPassword(_)
            | Output::Ask(..)
    )
}

fn come(sentinel: &mut Sentinel, client: u64, from: IpAddr) -> Vec<Output> {
    give(sentinel, 1_000, Input::ClientCame(ClientId(client), world::sockets(from)))
}

fn say(sentinel: &mut Sentinel, client: ClientId, at: u64, line: &str) -> Vec<Output> {
    let words = line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
    give(sentinel, at, Input::Command(client, words))
}

/// The error, or nothing if it is none.
fn refusal(outputs: &[Output]) -> &str {
    match outputs {
        [Output::Respond(_, Answer::Reply(Reply::Error(text)))] => text,
        _ => "",
    }
}

#[test]
fn strangers_of_a_cluster_may_read_and_not_act() {
    let mut sentinel = alone(None, true);
    assert!(come(&mut sentinel, CLIENT.0, outside()).is_empty(), "protected mode is not for clusters");
    for line in ["CLIENT KILL TYPE normal", "SENTINEL REMOVE mymaster", "SENTINEL RESET *", "SHUTDOWN", "ACL DELUSER x"]
    {
        assert_eq!(refusal(&say(&mut sentinel, CLIENT, 1_000, line)), "NOAUTH Authentication required.", "{line}");
    }
    for line in ["SENTINEL MASTERS", "CLIENT LIST", "ROLE", "SENTINEL CKQUORUM nobody", "ACL WHOAMI", "COMMAND COUNT"] {
        assert!(!refusal(&say(&mut sentinel, CLIENT, 1_000, line)).starts_with("NOAUTH"), "{line}");
    }
    assert!(refusal(&say(&mut sentinel, CLIENT, 1_000, "ACL LIST")).contains("there are no users here"));
    assert!(matches!(say(&mut sentinel, CLIENT, 1_000, "AUTH default hush")[..], [Output::Respond(..)]));
    assert!(refusal(&say(&mut sentinel, CLIENT, 1_000, "SHUTDOWN")).contains("vigie itself"));
    assert!(refusal(&say(&mut sentinel, CLIENT, 1_000, "ACL SETUSER x on")).contains("there are no users here"));
    // The address of a node of the file is nobody's word.
    come(&mut sentinel, 1, redis_at(1).ip());
    let killing = say(&mut sentinel, ClientId(1), 1_000, "CLIENT KILL ID 99");
    assert_eq!(refusal(&killing), "NOAUTH Authentication required.");
}

#[test]
fn only_the_cluster_itself_is_given_votes_or_greets() {
    let mut sentinel = alone(None, false);
    let (vote, greeting) = (
        format!("SENTINEL IS-MASTER-DOWN-BY-ADDR 10.0.0.2 6379 1 {}", world::id(5, 1, 1)),
        format!("PUBLISH __sentinel__:hello 10.0.0.3,26379,{},9,mymaster,10.0.0.3,6379,9", world::id(5, 1, 1)),
    );
    let denied = "NOPERM only the user vigie of the cluster itself may run";
    for (client, login, begin) in [(1, "PING", "NOAUTH"), (2, "AUTH hush", denied), (3, "AUTH vigie own", "")] {
        come(&mut sentinel, client, redis_at(1).ip());
        say(&mut sentinel, ClientId(client), 1_000, login);
        let simulated = "SENTINEL SIMULATE-FAILURE crash-after-election".to_owned();
        for line in [&vote, &greeting, &simulated].into_iter().take(if begin.is_empty() { 2 } else { 3 }) {
            let said = say(&mut sentinel, ClientId(client), 1_000, line);
            assert!(
                refusal(&said).starts_with(begin) && refusal(&said).is_empty() == begin.is_empty(),
                "{line}: {said:?}"
            );
        }
    }
    // What was asked for by its own user is still judged: no such sentinel is listed, so nothing came of it.
    let agreed = &sentinel.agreement;
    assert!(agreed.masters[0].vote.is_none() && agreed.decision(0).is_none() && agreed.current_epoch == 0);
    for wrong in ["AUTH own", "AUTH vigie hush", "AUTH default own", "AUTH nobody own"] {
        let said = say(&mut sentinel, ClientId(1), 1_000, wrong);
        let refused = |output: &Output| refusal(std::slice::from_ref(output)).starts_with("WRONGPASS");
        assert!(said.iter().any(refused), "{wrong}: {said:?}");
    }
}

#[test]
fn protected_mode_lets_in_this_host_only_while_there_is_no_password() {
    let mut sentinel = alone(users(&[]), true);
    let out = come(&mut sentinel, 1, outside());
    let [Output::Respond(_, Answer::Reply(Reply::Error(text))), Output::Dismiss(ClientId(1))] = &out[..] else {
        panic!("{out:?}")
    };
    assert!(text.starts_with("DENIED Redis is running in protected mode because protected mode is enabled"), "{text}");
    assert!(say(&mut sentinel, ClientId(1), 1_000, "PING").is_empty(), "it is no client");
    assert!(come(&mut sentinel, 2, "::ffff:127.0.0.1".parse().unwrap()).is_empty());
    say(&mut sentinel, ClientId(2), 1_000, "ACL SETUSER default >pw");
    assert!(come(&mut sentinel, 3, outside()).is_empty());
    assert_eq!(refusal(&say(&mut sentinel, ClientId(3), 1_000, "PING")), "NOAUTH Authentication required.");
    assert!(come(&mut alone(users(&[]), false), 4, outside()).is_empty());
}

#[test]
fn connections_are_chosen_by_every_filter() {
    let killed = |line: &str| {
        let mut sentinel = alone(users(&["bob on nopass +@all"]), false);
        (1..=4).for_each(|client| drop(come(&mut sentinel, client, redis_at(usize::try_from(client).unwrap()).ip())));
        say(&mut sentinel, ClientId(2), 1_000, "AUTH bob x");
        say(&mut sentinel, ClientId(3), 1_000, "SUBSCRIBE x");
        let out = say(&mut sentinel, ClientId(1), 9_000, line);
        let ids = out.iter().filter_map(|output| match output {
            Output::Kill(client) | Output::Dismiss(client) => Some(client.0),
            _ => None,
        });
        let mut ids: Vec<u64> = ids.collect();
        ids.sort_unstable();
        // Who is killed is no client from that moment on.
        for id in ids.iter().filter(|id| **id != 1) {
            assert!(say(&mut sentinel, ClientId(*id), 9_000, "PING").is_empty());
        }
        ids
    };
    assert_eq!(killed("CLIENT KILL USER bob"), [2]);
    assert_eq!(killed("CLIENT KILL TYPE pubsub"), [3]);
    assert_eq!(killed("CLIENT KILL TYPE normal"), [2, 4]);
    assert_eq!(killed("CLIENT KILL TYPE normal SKIPME no"), [1, 2, 4]);
    assert_eq!(killed("CLIENT KILL ID 4"), [4]);
    assert_eq!(killed("CLIENT KILL ADDR 10.0.0.5:40000"), [4]);
    assert_eq!(killed("CLIENT KILL LADDR 10.0.0.1:26379 USER default"), [3, 4]);
    assert_eq!(killed("CLIENT KILL MAXAGE 8"), [2, 3, 4]);
    assert!(killed("CLIENT KILL MAXAGE 9").is_empty());
    assert_eq!(killed("CLIENT KILL 10.0.0.2:40000"), [1]);
    assert_eq!(killed("ACL DELUSER bob"), [2]);
}

#[test]
fn long_answers_are_made_only_so_often_in_a_second() {
    let mut sentinel = alone(users(&[]), false);
    (1..=10_000).for_each(|client| drop(come(&mut sentinel, client, outside())));
    let refused = |sentinel: &mut Sentinel, at| {
        let asked = (1..=20).map(|client| say(sentinel, ClientId(client), at, "CLIENT LIST"));
        asked.filter(|out| refusal(out).starts_with("ERR too many long answers in one second")).count()
    };
    assert_eq!(refused(&mut sentinel, 2_000), 18);
    assert_eq!(refused(&mut sentinel, 3_100), 18);
    assert_eq!(refusal(&say(&mut sentinel, ClientId(1), 3_100, "PING")), "");
    assert_eq!(refusal(&say(&mut sentinel, ClientId(1), 3_100, "SENTINEL MASTERS")), "");
}

#[test]
fn passwords_have_the_length_asked_for() {
    let mut world = World::new();
    for (bits, digits) in [("", 64), ("5", 2), ("1", 1), ("128", 32), ("4096", 1_024)] {
        let args: Vec<&str> = ["ACL", "GENPASS", bits].into_iter().filter(|word| !word.is_empty()).collect();
        let [Answer::Reply(Reply::Bulk(password))] = &world.ask(0, outside(), &args)[..] else { panic!() };
        assert_eq!(password.len(), digits);
    }
}

#[test]
fn names_of_valkey_mean_the_same() {
    let mut world = World::settled();
    for (valkey, redis) in [
        (&["SENTINEL", "PRIMARY", "mymaster"][..], &["SENTINEL", "MASTER", "mymaster"][..]),
        (&["SENTINEL", "primaries"], &["SENTINEL", "MASTERS"]),
        (&["SENTINEL", "GET-PRIMARY-ADDR-BY-NAME", "mymaster"], &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]),
        (
            &["SENTINEL", "IS-PRIMARY-DOWN-BY-ADDR", "10.0.0.1", "6379", "0", "*"],
            &["SENTINEL", "IS-MASTER-DOWN-BY-ADDR", "10.0.0.1", "6379", "0", "*"],
        ),
    ] {
        // A ping that may as well be sent now is sent before both.
        world.ask(0, outside(), &["PING"]);
        assert_eq!(world.ask(0, outside(), valkey), world.ask(0, outside(), redis), "{valkey:?}");
    }
}

#[test]
fn a_user_may_not_do_what_its_rules_deny() {
    let mut sentinel = alone(users(&["bob on nopass +@all -sentinel|master &+s*"]), false);
    come(&mut sentinel, 1, outside());
    say(&mut sentinel, ClientId(1), 1_000, "AUTH bob x");
    let denied = "NOPERM this user has no permissions to run the 'sentinel|master' command";
    assert_eq!(refusal(&say(&mut sentinel, ClientId(1), 1_000, "SENTINEL MASTER mymaster")), denied);
    let denied = "NOPERM this user has no permissions to run the 'sentinel|primary' command";
    assert_eq!(refusal(&say(&mut sentinel, ClientId(1), 1_000, "SENTINEL PRIMARY mymaster")), denied);
    assert!(refusal(&say(&mut sentinel, ClientId(1), 1_000, "PUBLISH __sentinel__:hello x")).contains("channels"));
    assert_eq!(sentinel.acl().map(|acl| acl.lines().len()), Some(2));
}

#[test]
fn hello_changes_the_protocol_of_its_own_answer() {
    let mut sentinel = alone(users(&[]), false);
    come(&mut sentinel, 1, outside());
    let out = say(&mut sentinel, ClientId(1), 1_000, "HELLO 3");
    assert!(matches!(out[..], [Output::Protocol(_, Protocol::Three), Output::Respond(..)]), "{out:?}");
    say(&mut sentinel, ClientId(1), 1_000, "SUBSCRIBE x");
    assert_eq!(refusal(&say(&mut sentinel, ClientId(1), 1_000, "ROLE")), "", "subscribers of RESP3 may ask anything");
    let out = say(&mut sentinel, ClientId(1), 1_000, "RESET");
    assert!(matches!(out[..], [Output::Protocol(_, Protocol::Two), Output::Respond(..)]), "{out:?}");
}

#[test]
fn every_command_of_the_table_is_carried_out() {
    for (name, arity) in server::callable() {
        let mut sentinel = alone(users(&[]), false);
        come(&mut sentinel, 1, outside());
        let words = name.split('|').map(str::to_owned);
        let least = usize::try_from(arity.unsigned_abs()).unwrap();
        let words: Vec<String> = words.chain(std::iter::repeat("1".to_owned())).take(least.max(1)).collect();
        let out = say(&mut sentinel, ClientId(1), 1_000, &words.join(" "));
        assert!(!refusal(&out).contains("is not offered"), "{}: {out:?}", name);
        assert!(!refusal(&out).contains("wrong number"), "{}: {out:?}", name);
        let one_less = words[..least.max(1) - 1].join(" ");
        let out = say(&mut sentinel, ClientId(1), 1_000, &one_less);
        if least > words.len().min(2) && one_less.split(' ').count() >= name.split('|').count() && least > 2 {
            let expected = format!("ERR wrong number of arguments for '{name}' command");
            assert_eq!(refusal(&out), expected);
        }
    }
}

#[test]
fn commands_that_wait_for_the_same_name_are_carried_out_one_after_the_other() {
    let config =
        Config { membership: Membership::Discovered { port: 26379 }, masters: vec![], ..World::new().config(0) };
    let state = State { settings: Settings { resolve_hostnames: true, ..Settings::default() }, ..State::default() };
    let sentinel = Sentinel::alone(&config, state, world::id(5, 0, 1), Instant::from_millis(1_000));
    let mut sentinel = sentinel.with_access(users(&[]).unwrap(), false);
    for client in 1..=3 {
        come(&mut sentinel, client, outside());
        let line = format!("SENTINEL MONITOR m-{client} redis.example 6379 1");
        assert!(say(&mut sentinel, ClientId(client), 1_000, &line).is_empty(), "it waits for the name");
    }
    give(&mut sentinel, 1_000, Input::ClientGone(ClientId(2)));
    let answer = names::Answer { name: "redis.example".into(), found: Ok(vec![redis_at(0).ip()]) };
    let mut out = to_a_slow_disk(&mut sentinel, 1_000, answer.into());
    out.retain(is_of_clients);
    assert_eq!(out, [], "it waits for the disk");
    let ok = |client| Output::Respond(ClientId(client), Answer::Reply(Reply::Simple("OK".into())));
    assert_eq!(stored(&mut sentinel, Ok(())), [ok(1)]);
    assert_eq!(stored(&mut sentinel, Ok(())), [ok(3)]);
    let names: Vec<_> = sentinel.agreement.masters.iter().map(|master| master.config.name.as_str()).collect();
    assert_eq!(names, ["m-1", "m-3"]);
}

#[test]
fn subscriptions_are_limited_for_each_and_for_all() {
    let mut sentinel = alone(users(&[]), false);
    let many = (0..256).map(|n| format!("c{n}")).collect::<Vec<_>>().join(" ");
    (1..=257).for_each(|client| drop(come(&mut sentinel, client, outside())));
    let opened = |sentinel: &mut Sentinel, client| {
        refusal(&say(sentinel, ClientId(client), 1_000, &format!("SUBSCRIBE {many}"))).is_empty()
    };
    assert!((1..=256).all(|client| opened(&mut sentinel, client)));
    assert!(!opened(&mut sentinel, 257));
    give(&mut sentinel, 1_000, Input::ClientGone(ClientId(1)));
    say(&mut sentinel, ClientId(2), 1_000, "UNSUBSCRIBE c1");
    assert!(opened(&mut sentinel, 257));
    assert!(refusal(&say(&mut sentinel, ClientId(2), 1_000, "PSUBSCRIBE x*")).is_empty());
    assert!(!refusal(&say(&mut sentinel, ClientId(2), 1_000, "PSUBSCRIBE y*")).is_empty());
}

/// What clients get when a slow disk has done with its store.
fn stored(sentinel: &mut Sentinel, result: Result<(), String>) -> Vec<Output> {
    let mut out = to_a_slow_disk(sentinel, 2_000, Input::Stored(result));
    out.retain(is_of_clients);
    out
}

fn answers(outputs: &[Output]) -> Vec<(u64, String)> {
    let answer = |output: &Output| match output {
        Output::Respond(client, Answer::Reply(Reply::Error(text))) => Some((client.0, text.clone())),
        Output::Respond(client, Answer::Reply(reply)) => {
            Some((client.0, reply.text().map_or_else(|| format!("{reply:?}"), str::to_owned)))
        }
        Output::Dismiss(client) => Some((client.0, "dismissed".to_owned())),
        _ => None,
    };
    outputs.iter().filter_map(answer).collect()
}

fn pairs(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(client, text)| (*client, (*text).to_owned())).collect()
}

/// Of a drop-in with two clients, while what the first has ordered is being stored.
fn while_it_stores(lines: &[(u64, &str)]) -> (Sentinel, Vec<(u64, String)>) {
    let place = Place { host: redis_at(0).ip().to_string(), port: 6379 };
    let masters = vec![MasterState::new(MasterConfig::new("mymaster", 2), place)];
    let config = World::alone().config(0);
    let config = Config { membership: Membership::Discovered { port: 26379 }, masters: vec![], ..config };
    let state = State { masters, ..State::default() };
    let sentinel = Sentinel::alone(&config, state, world::id(5, 0, 1), Instant::from_millis(1_000));
    let mut sentinel = sentinel.with_access(users(&[]).unwrap(), false);
    for client in [1, 2] {
        come(&mut sentinel, client, outside());
    }
    let mut said = Vec::new();
    for (client, line) in lines {
        let words = line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
        said.extend(to_a_slow_disk(&mut sentinel, 1_000, Input::Command(ClientId(*client), words)));
    }
    assert_eq!(said.iter().filter(|output| matches!(output, Output::Store(_))).count(), 1, "one store after the other");
    let said = answers(&said);
    (sentinel, said)
}

#[test]
fn a_slow_disk_keeps_nobody_waiting_who_wants_nothing_of_it() {
    let (mut sentinel, said) =
        while_it_stores(&[(1, "SENTINEL FLUSHCONFIG"), (1, "PING"), (2, "PING"), (1, "QUIT"), (2, "PING")]);
    assert_eq!(said, pairs(&[(2, "PONG"), (2, "PONG")]));
    let said = answers(&stored(&mut sentinel, Ok(())));
    assert_eq!(said, pairs(&[(1, "OK"), (1, "PONG"), (1, "OK"), (1, "dismissed")]), "each client in its order");
}

#[test]
fn what_is_promised_waits_and_nothing_of_the_same_client_overtakes_it() {
    let (master, candidate) = (redis_at(0).ip(), world::id(5, 1, 1));
    let vote = &format!("SENTINEL IS-MASTER-DOWN-BY-ADDR {master} 6379 7 {candidate}");
    let (mut sentinel, said) = while_it_stores(&[(1, vote), (1, "PING"), (2, "PING")]);
    assert_eq!(said, pairs(&[(2, "PONG")]));
    let said = answers(&stored(&mut sentinel, Ok(())));
    assert_eq!((said.len(), &said[1]), (2, &(1, "PONG".to_owned())), "{said:?}");
    let (mut sentinel, _) = while_it_stores(&[(1, vote), (1, "PING")]);
    let said = answers(&stored(&mut sentinel, Err("no space left".to_owned())));
    assert_eq!(said, pairs(&[(1, "ERR refused: what is promised cannot be stored"), (1, "PONG")]));
}

#[test]
fn changes_are_made_one_after_the_other() {
    let (set, other) = ("SENTINEL SET mymaster down-after-milliseconds 1234", "SENTINEL SET mymaster quorum 7");
    let (mut sentinel, said) = while_it_stores(&[(1, set), (2, other), (2, "PING")]);
    assert_eq!(said, []);
    let mut out = to_a_slow_disk(&mut sentinel, 2_000, Input::Stored(Ok(())));
    assert!(matches!(out.last(), Some(Output::Store(_))), "the second has to be on disk, too: {out:?}");
    assert_eq!(answers(&out), pairs(&[(1, "OK")]));
    out = to_a_slow_disk(&mut sentinel, 3_000, Input::Stored(Err("no space left".to_owned())));
    let said = answers(&out);
    assert_eq!(said, pairs(&[(2, "ERR Failed to save config file: no space left"), (2, "PONG")]));
    let shown = format!("{:?}", say(&mut sentinel, ClientId(1), 4_000, "SENTINEL MASTER mymaster"));
    assert!(
        shown.contains("1234") && !shown.contains("\"quorum\"), Bulk(b\"7\")"),
        "only what was stored is true: {shown}"
    );
}
