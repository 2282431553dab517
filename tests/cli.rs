//! The program as a shell sees it: what goes to which stream, and the exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::process::{Command, Output};

fn vigie(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vigie")).args(arguments).output().unwrap()
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
