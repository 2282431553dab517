use std::os::unix::net::UnixListener;
use std::thread;

use super::*;

/// A daemon that answers one caller with `answer`, and what the caller had said.
fn daemon(answer: &'static str) -> (tempfile::TempDir, thread::JoinHandle<String>) {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(SOCKET_NAME)).unwrap();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        asked
    });
    (directory, served)
}

#[test]
fn a_status_is_read_and_a_refusal_told_apart() {
    let whole = concat!(
        r#"{"cluster":"mymaster","node":"a","version":"0","uptime_ms":1,"#,
        r#""fencing":"not fenced","master":null,"nodes":[]}"#,
        "\n"
    );
    let (directory, served) = daemon(whole);
    assert_eq!(status(directory.path()).unwrap().cluster, "mymaster");
    assert_eq!(served.join().unwrap(), "{\"request\":\"status\"}\n");
    let (directory, _served) = daemon("{\"error\":\"not yet\"}\n");
    let error = status(directory.path()).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit()), ("not yet", Exit::No));
}

#[test]
fn a_reason_is_read_and_a_refusal_told_apart() {
    let (directory, served) = daemon("{\"node\":\"a\",\"masters\":[],\"frames\":null}\n");
    assert_eq!(why(directory.path()).unwrap().node, "a");
    assert_eq!(served.join().unwrap(), "{\"request\":\"why\"}\n");
    let (directory, _served) = daemon("{\"error\":\"the sentinel of this node does not run\"}\n");
    assert_eq!(why(directory.path()).unwrap_err().exit(), Exit::No);
}

#[test]
fn a_switchover_is_told_by_both_its_ends() {
    let (directory, served) = daemon("{\"ok\":{\"from\":\"a\",\"to\":\"b\",\"epoch\":7,\"pause_us\":900}}\n");
    let switched = failover(directory.path(), Some("b"), ANSWER_TIME).unwrap();
    assert_eq!((switched.to.as_str(), switched.epoch), ("b", 7));
    assert_eq!(served.join().unwrap(), "{\"request\":\"failover\",\"to\":\"b\"}\n");
    let (directory, _served) = daemon("");
    assert!(matches!(failover(directory.path(), None, ANSWER_TIME), Err(ClientError::Silent { .. })));
}

#[test]
fn a_takeover_is_ordered_apart_from_what_it_risks() {
    for (risks, asked) in
        [(true, "{\"request\":\"takeover\",\"risks\":true}\n"), (false, "{\"request\":\"takeover\",\"risks\":false}\n")]
    {
        let (directory, served) = daemon("{\"said\":\"in words\"}\n");
        assert_eq!(takeover(directory.path(), risks, ANSWER_TIME).unwrap(), "in words");
        assert_eq!(served.join().unwrap(), asked);
    }
    let (directory, _served) = daemon("{\"error\":\"a majority of the sentinels is there\"}\n");
    assert_eq!(takeover(directory.path(), false, ANSWER_TIME).unwrap_err().exit(), Exit::No);
}

#[test]
fn events_come_one_by_one_and_garbage_is_named() {
    let (directory, _served) =
        daemon(concat!(r#"{"at_ms":5,"source":"vrrp","level":"info","name":"became-master","text":"x"}"#, "\nwhat\n"));
    let mut all = events(directory.path(), true).unwrap();
    assert_eq!(all.next().unwrap().unwrap().name, "became-master");
    assert!(matches!(all.next(), Some(Err(ClientError::Unreadable { .. }))));
    assert!(all.next().is_none());
}

#[test]
fn an_absent_daemon_is_said_with_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let error = status(directory.path()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("control.sock") && said.contains("vigie run"), "{said}");
    assert_eq!(error.exit(), Exit::Unreachable);
    drop(UnixListener::bind(directory.path().join(SOCKET_NAME)).unwrap());
    assert!(status(directory.path()).unwrap_err().to_string().contains("is gone"));
}
