//! Everything that reads what others have written, fed with mutations of what is real: nothing panics, what was understood is
//! said alike again, and it makes no difference in how many pieces a stream comes.
//!
//! `VIGIE_FUZZ_EXECUTIONS` says how many inputs each target gets, `VIGIE_FUZZ_SEED` which ones. An input that breaks something
//! is left in `target/fuzz-crashes`. `tests/fuzz/run` puts the compiler's counters in: inputs that reach new code are kept
//! then, and mutated further.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

#[path = "fuzz/core.rs"]
mod core;
#[path = "fuzz/engine.rs"]
mod engine;

use std::io;
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Mutex;

use bytes::BytesMut;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use vigie::base::{NodeName, Secret};
use vigie::config::sentinel::{Additions, Document, Host};
use vigie::wire::frame::{self, Frame, Keys};
use vigie::wire::hello::Hello;
use vigie::wire::info::Info;
use vigie::wire::resp::{Decoder, Protocol, Reply, emit, inline};
use vigie::wire::scan::{Limits, Malformed};
use vigie::wire::vrrp::{self, Advert, ChecksumForm, Interval};

/// The counters count for everybody: one target at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Runs one target alone.
fn fuzz(name: &str, seeds: &[Vec<u8>], dictionary: &[&str], target: impl Fn(&[u8])) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = engine::fuzz(name, seeds, dictionary, target);
    assert!(report.executions > 0, "nothing was executed");
    assert_eq!(report.crashes, 0, "inputs that break {name} are in target/fuzz-crashes");
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn a_planted_fault_is_found() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = engine::fuzz("planted", &bytes(HELLOS), &["::"], |input| {
        if input.windows(4).any(|four| four == b"::::") {
            // Without the hook: who looks for a failure in the output of all tests is not to find this one.
            resume_unwind(Box::new("planted"));
        }
    });
    assert!(report.crashes > 0, "it is not found");
}

/// Greetings of redis-sentinel 7.0.15.
const HELLOS: &[&str] = &[
    "127.0.0.1,27601,667b3f5e0023927b7df1451b8b35011e3d8ac71f,0,mymaster,127.0.0.1,17601,0",
    "fd00::1,26379,667b3f5e0023927b7df1451b8b35011e3d8ac71f,12,mymaster,fd00::2,6379,11",
];

#[test]
fn hello() {
    fuzz("hello", &bytes(HELLOS), &[",", "::", "mymaster", "00", "0.0.0.0", "-"], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(hello) = text.parse::<Hello>() {
            assert_eq!(hello.to_string().parse::<Hello>().as_ref(), Ok(&hello), "{text:?} is said otherwise again");
        }
    });
}

#[test]
fn segment() {
    use vigie::wire::arp;

    let announced = arp::gratuitous([2, 0, 0, 0, 0, 1], [192, 168, 0, 1].into());
    let from = IpAddr::from([192, 168, 0, 2]);
    let addresses = vec![IpAddr::from([192, 168, 0, 1])];
    let advert = Advert::new(51, 100, Interval::Centiseconds(10), addresses).unwrap();
    let message = vrrp::emit(&advert, from, vrrp::GROUP_V4.into(), ChecksumForm::PseudoHeader);
    let header = [0x45, 0, 0, 32, 0, 0, 0, 0, 255, 112, 0, 0, 192, 168, 0, 2, 224, 0, 0, 18];
    let packet = [&header[..], &message].concat();
    fuzz("segment", &[announced, packet, message], &[], |input| {
        if let Some((mac, address)) = arp::sender(input) {
            assert_eq!(arp::sender(&arp::gratuitous(mac, address)), Some((mac, address)));
        }
        let _ = vrrp::parse_packet(input);
        for from in [from, "fe80::1".parse().unwrap()] {
            if let Ok((advert, form)) = vrrp::parse(input, from, from) {
                let again = vrrp::parse(&vrrp::emit(&advert, from, from, form), from, from);
                assert_eq!(again.map(|(advert, _)| advert).as_ref(), Ok(&advert));
            }
        }
    });
}

#[test]
fn connections_as_the_kernel_lists_them() {
    use vigie::wire::inet_diag::{self, Family, Message};

    // Length, type, flags, and of what it is about enough.
    let message = |length: u32, kind: u16| {
        let mut bytes = vec![0; length.next_multiple_of(4) as usize];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes
    };
    let list = [message(88, 20), message(93, 20), message(20, 3)].concat();
    fuzz("inet_diag", &[list, message(36, 2), inet_diag::list(Family::V4, 6379).to_vec()], &[], |input| {
        for message in inet_diag::messages(input) {
            if let Message::Connection(connection) = message {
                let order = inet_diag::end(&connection);
                assert_eq!(order[..4], 72_u32.to_ne_bytes());
            }
        }
    });
}

#[test]
fn info() {
    let seeds = [
        include_str!("../src/wire/info/master-7.0.15.txt"),
        include_str!("../src/wire/info/replica-7.0.15.txt"),
        include_str!("../src/wire/info/closed-7.0.15.txt"),
    ];
    let dictionary =
        ["\r\n", ":", "=", ",", "slave0:", "ip=", "role:", "master", "slave", "master_link_status:up", "db0:keys="];
    fuzz("info", &bytes(&seeds), &dictionary, |input| {
        let info = Info::parse(&String::from_utf8_lossy(input));
        let _ = (info.master(), info.is_closed());
    });
}

#[test]
fn cluster_file() {
    let seeds = [
        include_str!("../src/config/file/base.toml"),
        include_str!("../src/config/file/full.toml"),
        include_str!("../config/vigie.toml"),
        include_str!("../config/examples/article.toml"),
    ];
    let dictionary = [
        "[",
        "]",
        "[[node]]",
        "[[vip]]",
        "[cluster]",
        "=",
        "\"",
        "\n",
        "'",
        "\"\"\"",
        "{",
        "}",
        "\u{fffd}",
        "ms",
        "s",
        "/24",
        "roles = [\"redis\"]",
        "true",
        "nan",
        "1979-05-27",
        "::1",
        "address",
    ];
    fuzz("cluster-file", &bytes(&seeds), &dictionary, |input| {
        let text = String::from_utf8_lossy(input);
        let password = |path: &Path| Ok((format!("{}-that-is-long-enough\n", path.display()), 0o600));
        if let Err(faults) = vigie::config::parse(&text, Path::new("vigie.toml"), &password) {
            assert!(!faults.to_string().is_empty(), "a refusal has a reason");
        }
    });
}

/// Everything that comes out of a stream, until its end or its fault.
fn decoded(pieces: &[&[u8]]) -> (Vec<Reply>, Option<Malformed>) {
    let (mut data, mut decoder, mut values) = (BytesMut::new(), Decoder::new(Limits::CONTROL), Vec::new());
    for piece in pieces {
        data.extend_from_slice(piece);
        loop {
            match decoder.next(&mut data) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(fault) => return (values, Some(fault)),
            }
        }
    }
    (values, None)
}

#[test]
fn resp() {
    let seeds = [
        "+OK\r\n:-3\r\n$-1\r\n*-1\r\n_\r\n",
        "*2\r\n$1\r\na\r\n*1\r\n$-1\r\n-ERR no\r\n",
        "%1\r\n+k\r\n#t\r\n~1\r\n,1.5\r\n(123\r\n=5\r\ntxt:x\r\n",
        "*3\r\n$8\r\nSENTINEL\r\n$6\r\nMASTER\r\n$8\r\nmymaster\r\n",
        ">3\r\n+message\r\n+c\r\n+p\r\n|1\r\n+a\r\n+b\r\n:1\r\n",
    ];
    let dictionary = [
        "\r\n", "*", "$", "%", "~", ">", "|", ",inf\r\n", "?", "$?\r\n", ";", ".\r\n", "!", "=", "(", "_\r\n", "*9\r\n",
    ];
    fuzz("resp", &bytes(&seeds), &dictionary, |input| {
        let whole = decoded(&[input]);
        let pieces: Vec<&[u8]> = input.chunks(1).collect();
        let (values, fault) = decoded(&pieces);
        assert_eq!((whole.0.len(), &whole.1), (values.len(), &fault), "pieces make a difference");
        // The decoder puts sets and maps of RESP3 into hash tables: in what order they come, and which of two equal keys
        // stays, is left to chance.
        if !input.iter().any(|byte| b"%~".contains(byte)) {
            assert_eq!(whole.0, values, "pieces make a difference");
        }
        for value in &whole.0 {
            let mut out = BytesMut::new();
            emit(value, Protocol::Three, &mut out);
            let again = decoded(&[&out]);
            assert_eq!((again.0.len(), again.1), (1, None), "{value:?} is said otherwise again");
        }
        let mut data = BytesMut::from(input);
        while inline(&mut data).is_some() {}
    });
}

/// The tag that makes a frame authentic for its receiver, made here as the secret allows it.
fn signed(body: &[u8], secret: &str, to: &NodeName) -> Vec<u8> {
    let mac = |key: &[u8], parts: &[&[u8]]| {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()
    };
    [body, &mac(secret.as_bytes(), &[body, to.as_str().as_bytes()])].concat()
}

/// Bodies of one version of the frame, and what becomes of their mutations.
fn peer_link(name: &str, version: u8) {
    let secret = "a-secret";
    let (keys, me) = (Keys::new(&Secret::new(secret).into()), "redis-02".parse().unwrap());
    let emit = |frame: &Frame| frame::emit(frame, version, &keys, &me);
    let seeds: Vec<_> = core::frames().iter().map(|frame| emit(frame).unwrap().to_vec()).collect();
    let bodies: Vec<_> = seeds.iter().map(|seed| seed[..seed.len() - 32].to_vec()).collect();
    for (seed, body) in seeds.iter().zip(&bodies) {
        assert_eq!(seed[0], version, "another version is spoken");
        assert_eq!(*seed, signed(body, secret, &me), "the tag is not the one of the wire");
    }
    // What remains of a frame in a version, if it fits.
    let said = |frame: &Frame, version| {
        let bytes = frame::emit(frame, version, &keys, &me)?;
        Some(frame::parse(&bytes, &keys, &me).map(|again| Frame { reads: frame.reads, ..again }))
    };
    fuzz(name, &bodies, &["mymaster", "\u{1}", "\0", "redis-01"], |body| {
        // Without the secret nothing of it is believed; with it, whatever it is has to be judged.
        assert!(frame::parse(body, &keys, &me).is_err(), "an unsigned frame is believed");
        if let Ok(frame) = frame::parse(&signed(body, secret, &me), &keys, &me) {
            assert!((body[0]..).contains(&frame.reads), "{frame:?} is in a version that its sender does not read");
            for version in frame::OLDEST..=frame::NEWEST {
                let Some(again) = said(&frame, version) else { continue };
                let again = again.expect("what is said is read");
                // An older version has no room for what came later, and nothing else is lost in it.
                assert!(version < body[0] || again == frame, "{frame:?} is said otherwise in version {version}");
                assert!(said(&again, version).is_none_or(|twice| twice.as_ref() == Ok(&again)), "{again:?}");
            }
        }
    });
}

#[test]
fn peer_link_frame_2() {
    peer_link("frame-2", 2);
}

#[test]
fn peer_link_frame_3() {
    peer_link("frame-3", 3);
}

#[test]
fn peer_link_frame_4() {
    peer_link("frame-4", frame::NEWEST);
}

/// Client commands as they come over the wire, and as people type them.
const COMMANDS: &[&str] = &[
    "PING\r\nINFO\r\nROLE\r\nSENTINEL MASTERS\r\nSENTINEL MASTER mymaster\r\nSENTINEL REPLICAS mymaster\r\n",
    "AUTH a-password\r\nSENTINEL FAILOVER mymaster\r\nSENTINEL CKQUORUM mymaster\r\nSENTINEL GET-MASTER-ADDR-BY-NAME mymaster\r\n",
    "*6\r\n$8\r\nSENTINEL\r\n$22\r\nIS-MASTER-DOWN-BY-ADDR\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n$1\r\n1\r\n$1\r\n*\r\n",
    "SENTINEL IS-MASTER-DOWN-BY-ADDR 10.0.0.1 6379 7 667b3f5e0023927b7df1451b8b35011e3d8ac71f\r\n",
    "PUBLISH __sentinel__:hello 10.0.0.2,26379,667b3f5e0023927b7df1451b8b35011e3d8ac71f,3,mymaster,10.0.0.2,6379,3\r\n",
    "SUBSCRIBE +switch-master\r\nPSUBSCRIBE * +*\r\nPING\r\nUNSUBSCRIBE\r\nPUNSUBSCRIBE\r\n",
    "HELLO 2 AUTH default a-password SETNAME me\r\nCLIENT LIST\r\nCLIENT SETNAME x\r\nCOMMAND COUNT\r\nRESET\r\nQUIT\r\n",
    "SENTINEL SET mymaster quorum 3\r\nSENTINEL MONITOR other 10.0.0.9 6379 2\r\nSENTINEL RESET *\r\nSENTINEL REMOVE other\r\n",
    "SENTINEL SWITCHOVER mymaster redis-02\r\nSENTINEL MYID\r\nSENTINEL HELP\r\nSENTINEL CONFIG GET *\r\nSENTINEL PENDING-SCRIPTS\r\n",
];
const WORDS: &[&str] = &[
    "SENTINEL ",
    "mymaster",
    "\r\n",
    "*",
    "[a-",
    "?",
    "\\",
    "10.0.0.2",
    "26379",
    "__sentinel__:hello",
    "AUTH ",
    "HELLO 3",
    "ACL ",
    "CONFIG ",
    "DEBUG ",
    "SET ",
    "MONITOR ",
    "$0\r\n\r\n",
    "*0\r\n",
    "localhost",
    "::1",
    " ",
    "\"",
    "info-cache",
];

/// A machine on which every directory is there, every script can be run, and no other file is.
struct Machine;

impl Host for Machine {
    fn directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn is_executable(&self, _: &Path) -> bool {
        true
    }

    fn expand(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[test]
fn sentinel_file() {
    let seeds = [
        "port 26379\nsentinel monitor mymaster 127.0.0.1 6379 2\nsentinel auth-pass mymaster \"a b\\x41\"\n",
        "# mine\ndir /tmp\nsentinel resolve-hostnames yes\nsentinel monitor m host-1 1 1\nsentinel rename-command m CONFIG x\n",
        "sentinel myid 667b3f5e0023927b7df1451b8b35011e3d8ac71f\nsentinel current-epoch 3\nsentinel monitor m ::1 1 1\n\
         sentinel known-replica m 10.0.0.2 6379\nsentinel config-epoch m 3\nsentinel leader-epoch m 2\n\
         sentinel known-sentinel m 10.0.0.3 26379 667b3f5e0023927b7df1451b8b35011e3d8ac71a\n",
        "requirepass x\nuser alice on >p ~* &* +@all\nsentinel sentinel-user alice\nsentinel announce-ip 1.2.3.4\n\
         sentinel announce-port 7\nsentinel deny-scripts-reconfig no\nloglevel debug\nprotected-mode yes\n",
    ];
    let words =
        ["sentinel ", "\n", "\"", "'", "\\x", " ", "mymaster", "m ", "-1", "99999999999999999999", "# ", "\r", "\0"];
    let (path, cwd) = (Path::new("/etc/sentinel.conf"), Path::new("/"));
    fuzz("sentinel-file", &bytes(&seeds), &words, |input| {
        let none = Additions::default();
        match Document::parse(path, input, &none, cwd, &Machine) {
            Ok((document, _, state)) => {
                let text = document.rewritten(&state);
                let (again, _, same) = Document::parse(path, &text, &none, cwd, &Machine)
                    .unwrap_or_else(|fault| panic!("{fault}: {}", String::from_utf8_lossy(&text)));
                assert_eq!(same, state, "{}", String::from_utf8_lossy(&text));
                assert_eq!(again.rewritten(&state), text, "a second rewrite changes something");
            }
            Err(fault) => assert!(!fault.to_string().is_empty(), "a refusal has a reason"),
        }
    });
}

#[test]
fn commands_of_clients() {
    fuzz("commands", &bytes(COMMANDS), WORDS, core::commands);
}

#[test]
fn answers_to_the_core() {
    let infos =
        [include_str!("../src/wire/info/master-7.0.15.txt"), include_str!("../src/wire/info/replica-7.0.15.txt")];
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let vote = "*3\r\n:1\r\n$40\r\n667b3f5e0023927b7df1451b8b35011e3d8ac71f\r\n:2\r\n";
    let role = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    let seeds = [
        format!("+PONG\r\n{}{vote}+OK\r\n{role}", bulk(infos[0])),
        format!("+PONG\r\n{}+PONG\r\n-LOADING x\r\n-BUSY x\r\n{}", bulk(infos[1]), bulk(HELLOS[0])),
        format!(
            "{}{vote}{role}-NOAUTH x\r\n-READONLY x\r\n",
            bulk("# Replication\r\nrole:slave\r\nmaster_host:127.0.0.1\r\n")
        ),
        format!(
            "{}{}",
            bulk(HELLOS[1]),
            bulk("10.0.0.2,26379,667b3f5e0023927b7df1451b8b35011e3d8ac71f,9,mymaster,10.0.0.2,6379,9")
        ),
    ];
    let seeds: Vec<_> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let dictionary = [
        "+PONG\r\n",
        "-MASTERDOWN x\r\n",
        "role:master\r\n",
        "role:slave\r\n",
        "slave0:ip=10.0.0.7,port=1,state=online\r\n",
        ":1\r\n",
        "*3\r\n",
    ];
    fuzz("answers", &seeds, &dictionary, core::answers);
}
