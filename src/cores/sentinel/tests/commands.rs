//! What clients are answered.

use crate::wire::resp::Rich;

use super::*;

fn outside() -> IpAddr {
    "192.0.2.9".parse().unwrap()
}

fn error(answers: &[Answer]) -> &str {
    let [Answer::Reply(Reply::Error(text))] = answers else { panic!("{answers:?}") };
    text
}

/// The words of a reply as RESP2 has them.
fn flat(answers: &[Answer]) -> Vec<Reply> {
    let [Answer::Reply(reply)] = answers else { panic!("{answers:?}") };
    let Reply::Array(words) = reply.clone().flat() else { panic!("{answers:?}") };
    words
}

fn fields(answers: &[Answer]) -> Vec<String> {
    let words = flat(answers);
    words.iter().step_by(2).map(|word| word.text().unwrap().to_owned()).collect()
}

#[test]
fn maps_have_the_fields_of_redis_sentinel_in_their_order() {
    let mut world = World::settled();
    let head = "name ip port runid flags link-pending-commands link-refcount last-ping-sent last-ok-ping-reply \
                last-ping-reply down-after-milliseconds";
    let role = "info-refresh role-reported role-reported-time";
    let master = world.ask(0, outside(), &["SENTINEL", "MASTER", "mymaster"]);
    let expected =
        format!("{head} {role} config-epoch num-slaves num-other-sentinels quorum failover-timeout parallel-syncs");
    assert_eq!(fields(&master), expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(flat(&master)[33].text(), Some("2"), "num-other-sentinels is read by its place");
    let first = |answers: Vec<Answer>| {
        let list = flat(&answers);
        assert_eq!(list.len(), 2);
        fields(&[Answer::Reply(list[0].clone())])
    };
    let expected = format!(
        "{head} {role} master-link-down-time master-link-status master-host master-port slave-priority slave-repl-offset \
         replica-announced"
    );
    let replicas = world.ask(0, outside(), &["sentinel", "replicas", "mymaster"]);
    assert_eq!(first(replicas), expected.split_whitespace().collect::<Vec<_>>());
    let expected = format!("{head} last-hello-message voted-leader voted-leader-epoch");
    let sentinels = world.ask(0, outside(), &["SENTINEL", "SENTINELS", "mymaster"]);
    assert_eq!(first(sentinels), expected.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn unknown_names_and_commands_get_the_known_errors() {
    let mut world = World::settled();
    for subcommand in ["MASTER", "SLAVES", "REPLICAS", "SENTINELS", "CKQUORUM", "FAILOVER"] {
        let answers = world.ask(0, outside(), &["SENTINEL", subcommand, "nobody"]);
        assert_eq!(error(&answers), "ERR No such master with that name");
    }
    let said = |world: &mut World, args: &[&str]| error(&world.ask(0, outside(), args)).to_owned();
    assert_eq!(
        said(&mut world, &["SENTINEL", "MASTER"]),
        "ERR wrong number of arguments for 'sentinel|master' command"
    );
    assert_eq!(said(&mut world, &["SENTINEL", "foo"]), "ERR unknown subcommand 'foo'. Try SENTINEL HELP.");
    assert_eq!(said(&mut world, &["get", "a"]), "ERR unknown command 'get', with args beginning with: 'a' ");
    assert_eq!(said(&mut world, &["publish", "x", "y"]), "ERR Only HELLO messages are accepted by Sentinel instances.");
    assert!(said(&mut world, &["SENTINEL", "SET", "mymaster", "quorum", "1"]).contains("is in the cluster file"));
    assert!(said(&mut world, &["SHUTDOWN"]).contains("not supported"));
    assert!(said(&mut world, &["HELLO", "4"]).starts_with("NOPROTO"));
    let unknown = world.ask(0, outside(), &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "nobody"]);
    assert_eq!(unknown, [Answer::Reply(Reply::Rich(Rich::NullArray))]);
}

#[test]
fn before_any_decision_there_is_no_address() {
    let mut world = World::new();
    let answers = world.ask(0, outside(), &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
    assert_eq!(answers, [Answer::Reply(Reply::Rich(Rich::NullArray))]);
}

#[test]
fn strangers_may_read_and_not_change() {
    let mut world = World::new();
    world.password = Some("hush".into());
    (0..3).for_each(|n| world.redis[n].password = world.password.clone());
    (0..3).for_each(|n| world.crash_sentinel(n));
    (0..3).for_each(|n| world.start(n));
    world.run(ms(4_000));
    assert_eq!(world.master(), Some(0), "{:#?}", world.told_events());
    let hello = format!("10.0.0.2,26379,{},9,mymaster,10.0.0.3,6379,9", "33".repeat(20));
    let candidate = "11".repeat(20);
    let changes: [&[&str]; 3] = [
        &["SENTINEL", "FAILOVER", "mymaster"],
        &["PUBLISH", "__sentinel__:hello", &hello],
        &["SENTINEL", "IS-MASTER-DOWN-BY-ADDR", "10.0.0.1", "6379", "99", &candidate],
    ];
    for args in changes {
        assert!(error(&world.ask(0, outside(), args)).starts_with("NOAUTH"), "{args:?}");
    }
    let client = ClientId(7_000_000);
    world.feed(0, Input::ClientCame(client, world::sockets(outside())));
    assert!(error(&world.ask_again(0, client, &["AUTH", "wrong"])).starts_with("WRONGPASS"));
    assert_eq!(world.ask_again(0, client, &["AUTH", "hush"]), [Answer::Reply(Reply::Simple("OK".into()))]);
    assert_eq!(
        world.ask_again(0, client, &["SENTINEL", "FAILOVER", "mymaster"]),
        [Answer::Reply(Reply::Simple("OK".into()))]
    );
    world.run_until(ms(3_000), "handed over", |world| world.master().is_some_and(|n| n != 0));
}

#[test]
fn subscribers_hear_events_and_are_limited_to_their_commands() {
    let mut world = World::settled();
    let client = ClientId(7_000_000);
    world.feed(0, Input::ClientCame(client, world::sockets(outside())));
    let bulk = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
    assert_eq!(
        world.ask_again(0, client, &["SUBSCRIBE", "+switch-master"]),
        [Answer::Many(vec![Reply::push(vec![bulk("subscribe"), bulk("+switch-master"), Reply::Integer(1)])])]
    );
    world.ask_again(0, client, &["PSUBSCRIBE", "+s?own"]);
    assert!(error(&world.ask_again(0, client, &["SENTINEL", "MASTERS"])).contains("only (P|S)SUBSCRIBE"));
    world.kill_redis(0);
    world.run_until(ms(1_000), "a new master", |world| world.master().is_some_and(|n| n != 0));
    let heard = world.answers.remove(&client).unwrap();
    let sdown = "master mymaster 10.0.0.1 6379";
    let message = ["pmessage", "+s?own", "+sdown", sdown].map(bulk).to_vec();
    assert_eq!(heard[0], Answer::Reply(Reply::push(message)));
    let last = flat(&heard[heard.len() - 1..]);
    assert_eq!(last[1], bulk("+switch-master"));
    assert!(last[2].text().unwrap().starts_with("mymaster 10.0.0.1 6379 10.0.0."));
    let Answer::Many(left) = &world.ask_again(0, client, &["UNSUBSCRIBE"])[0] else { panic!() };
    assert_eq!(left.len(), 1);
}

#[test]
fn the_usual_questions_of_clients_are_answered() {
    let mut world = World::settled();
    let mut one = |args: &[&str]| world.ask(0, outside(), args).remove(0);
    assert_eq!(one(&["PING"]), Answer::Reply(Reply::Simple("PONG".into())));
    assert_eq!(one(&["QUIT"]), Answer::Reply(Reply::Simple("OK".into())));
    assert_eq!(one(&["CLIENT", "SETINFO", "LIB-NAME", "x"]), Answer::Reply(Reply::Simple("OK".into())));
    let Answer::Reply(Reply::Bulk(info)) = one(&["INFO"]) else { panic!() };
    let info = String::from_utf8(info.to_vec()).unwrap();
    assert!(info.contains("redis_mode:sentinel") && info.contains("sentinel_masters:1"), "{info}");
    assert!(info.contains("master0:name=mymaster,status=ok,address=10.0.0.1:6379,slaves=2,sentinels=3"), "{info}");
    let Answer::Reply(Reply::Bulk(info)) = one(&["INFO", "sentinel"]) else { panic!() };
    assert!(!String::from_utf8(info.to_vec()).unwrap().contains("redis_version"));
    let usable = "OK 3 usable Sentinels. Quorum and failover authorization can be reached";
    assert_eq!(one(&["SENTINEL", "CKQUORUM", "mymaster"]), Answer::Reply(Reply::Simple(usable.into())));
    assert!(matches!(one(&["ROLE"]), Answer::Reply(Reply::Array(words)) if words[0].text() == Some("sentinel")));
}
