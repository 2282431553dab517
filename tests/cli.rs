//! The program as a shell sees it: what goes to which stream, and the exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::process::{Command, Output};

fn vigie(arguments: &[&str]) -> Output {
    // What should be refused and is not would run for ever.
    Command::new("timeout").args(["20", env!("CARGO_BIN_EXE_vigie")]).args(arguments).output().unwrap()
}

#[track_caller]
fn says(arguments: &[&str], code: i32, out: &str, err: &str) {
    let output = vigie(arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stdout}\n{stderr}");
    assert!(stdout.contains(out) && stderr.contains(err), "{arguments:?}\n{stdout}\n{stderr}");
    assert!(!out.is_empty() || stdout.is_empty(), "nothing is expected on stdout: {stdout}");
    assert!(!err.is_empty() || stderr.is_empty(), "nothing is expected on stderr: {stderr}");
}

#[test]
fn exit_codes_tell_yes_no_and_usage() {
    says(&["version"], 0, concat!("vigie ", env!("CARGO_PKG_VERSION")), "");
    says(&["--version"], 0, concat!("vigie ", env!("CARGO_PKG_VERSION")), "");
    says(&["--help"], 0, "vigie check cluster.toml", "");
    says(&["check", "--help"], 0, "exit 1 if it would be refused", "");
    says(&[], 2, "", "Usage: vigie");
    says(&["chekc"], 2, "", "check");
    says(&["check", "--confg", "x"], 2, "", "--config");
    says(&["check", "/nowhere.toml"], 1, "", "/nowhere.toml: it cannot be read: No such file");
    says(&["--config", "/nowhere.toml", "check"], 1, "", "/nowhere.toml: it cannot be read");
}

#[test]
fn a_file_is_judged() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("v.toml");
    let text = "[cluster]\nquorum = 1\npassword = \"a-long-enough-password\"\n[[node]]\nname = \"a\"\n\
                address = \"127.0.0.1\"\nroles = [\"redis\", \"sentinel\"]\nbootstrap_master = true\n";
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = file.to_str().unwrap();
    says(&["check", path], 0, "one data node", "");
    says(&["check", "--config", path], 0, "quorum 1 of 1 sentinels", "");
    std::fs::write(&file, text.replace("quorum = 1", "quorum = 2")).unwrap();
    says(&["check", path], 1, "", "v.toml:2: cluster.quorum = 2: at most 1 sentinel can agree; allowed: 1");
}

/// A file of one node on loopback, with a password of its own; `edit` makes it wrong.
fn written(directory: &std::path::Path, edit: impl Fn(String) -> String) -> String {
    use std::os::unix::fs::PermissionsExt;
    let password = directory.join("password");
    std::fs::write(&password, "a-long-enough-password\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[cluster]\nquorum = 1\npassword_file = \"{}\"\n\
         [[node]]\nname = \"a\"\naddress = \"127.0.0.1\"\nroles = [\"redis\", \"sentinel\"]\nbootstrap_master = true\n\
         [[node]]\nname = \"b\"\naddress = \"127.0.0.2\"\nroles = [\"redis\"]\n",
        password.display()
    );
    let file = directory.join("v.toml");
    std::fs::write(&file, edit(text)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn run_and_check_refuse_the_same_files_in_the_same_words_and_nothing_is_started() {
    use std::os::unix::fs::PermissionsExt;
    let second = |text: String| text + "bootstrap_master = true\n";
    let wrong: [(&str, &dyn Fn(String) -> String); 9] = [
        ("v.toml:2: cluster.qourum", &|text| text.replace("quorum", "qourum")),
        ("v.toml:2: cluster.quorum = \"two\"", &|text| text.replace("quorum = 1", "quorum = \"two\"")),
        ("v.toml:2: cluster.quorum = 7: at most 1 sentinel can agree", &|text| {
            text.replace("quorum = 1", "quorum = 7")
        }),
        ("v.toml:13: node.bootstrap_master = true: another node is the first master", &second),
        ("v.toml:6: node.address = \"127.0.0.300\"", &|text| text.replace("127.0.0.1", "127.0.0.300")),
        ("v.toml:11: node.address = \"127.0.0.1\": another node has this address", &|text| {
            text.replace("127.0.0.2", "127.0.0.1")
        }),
        ("v.toml:7: node.roles = \"reddis\"", &|text| text.replacen("\"redis\"", "\"reddis\"", 1)),
        ("password_file", &|text| text.replace("/password\"", "/nowhere\"")),
        ("v.toml:6: not TOML, as 10 lines from here on; is it", &|_| "root:x:0:0\n".repeat(15)),
    ];
    let directory = tempfile::tempdir().unwrap();
    let sub = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (state, run) = (sub("state"), sub("run"));
    let both = |said: &str, path: &str| {
        let refused = vigie(&["run", "--config", path, "--node", "a", "--state-dir", &state, "--runtime-dir", &run]);
        let judged = vigie(&["check", path]);
        let [ran, checked] = [&refused, &judged].map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        assert_eq!((refused.status.code(), judged.status.code()), (Some(1), Some(1)), "{said}:\n{ran}\n{checked}");
        assert!(ran.contains(said), "{said}:\n{ran}");
        let words = checked.trim_end().rsplit_once('\n').unwrap().0;
        assert_eq!(ran.trim_end(), words, "check says in the end that it would be refused, and else the same");
        assert!(!directory.path().join("state").exists() && !directory.path().join("run").exists(), "{said}");
    };
    for (said, edit) in wrong {
        both(said, &written(directory.path(), edit));
    }
    let path = written(directory.path(), |text| text);
    let others = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(directory.path().join("password"), others).unwrap();
    both("others can get at it (mode 0640); run: chmod 600", &path);
    let path = written(directory.path(), |text| text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    both(&format!("{path}: others can change it (mode 0666); run: chmod go-w {path}"), &path);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    // A state directory in which anybody could put what vigie takes for its own.
    let open = sub("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    for [state, run] in [[&open, &run], [&state, &open]] {
        let output = vigie(&["run", "--config", &path, "--node", "a", "--state-dir", state, "--runtime-dir", run]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("others can write there (mode 0777); run: chmod go-w {open}")), "{said}");
    }
}

#[test]
fn a_node_that_is_none_is_not_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), |text| text.replace("127.0.0.", "203.0.113."));
    let said = "--node";
    says(&["run", "--config", &path, "--node", "c"], 1, "", "a (203.0.113.1), b (203.0.113.2)");
    says(&["run", "--config", &path, "--node", "c"], 1, "", said);
    says(&["run", "--config", &path], 1, "", "the addresses of this host");
}

#[test]
fn without_a_daemon_the_socket_that_was_tried_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().to_str().unwrap();
    let socket = format!("{run}/control.sock: No such file or directory");
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["why"],
        &["why", "--json"],
        &["events"],
        &["events", "-f"],
        &["failover", "--to", "b"],
        &["bootstrap", "--yes"],
        &["takeover"],
        &["takeover", "--yes"],
    ] {
        says(&[command, &["--runtime-dir", run]].concat(), 3, "", &socket);
    }
    // One that died leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("control.sock")).unwrap());
    says(&["status", "--runtime-dir", run], 3, "", "the daemon that made this socket is gone");
}

#[test]
fn wrong_usage_of_every_command_says_what_is_wrong() {
    for (wrong, said) in [
        (&["run", "now"][..], "'now'"),
        (&["run", "--node", ""], "is not a node name"),
        (&["run", "--log", "loud"], "possible values"),
        (&["status", "--jsn"], "'--json'"),
        (&["events", "5"], "'5'"),
        (&["why", "not"], "'not'"),
        (&["failover", "--to"], "--to <NODE>"),
        (&["failover", "--to", "a b"], "is not a node name"),
        (&["failover", "b"], "'b'"),
        (&["takeover", "b"], "'b'"),
        (&["check", "a", "b"], "'b'"),
        (&["demo", "--runs", "3"], if cfg!(feature = "demo") { "--scenario" } else { "this build has no demo" }),
        (&["version", "1"], "'1'"),
        (&["stats"], "'status'"),
    ] {
        says(wrong, 2, "", said);
    }
}
