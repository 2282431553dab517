//! What lies under `config/` is true: every file there is accepted, and the reference says what the code does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use vigie::config::keys::{KEYS, Known, allowed};
use vigie::config::{Config, parse};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn reference() -> String {
    fs::read_to_string(folder().join("vigie.toml")).unwrap()
}

/// The configuration in `text`, which must be without fault and without anything unwise.
#[track_caller]
fn accepted(text: &str, name: &str) -> Config {
    // The password and the secret, which must differ, each in a file of its own.
    let password = |path: &Path| Ok((format!("not-the-real-{}\n", path.display()), 0o600));
    let (config, warnings) = parse(text, Path::new(name), &password).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(warnings, []);
    config
}

/// The lines of a file that set a key, right now or behind a `#`: section, name, number of the line.
fn set_in(text: &str) -> Vec<(String, String, usize)> {
    let mut section = String::new();
    let mut set = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let key = line.strip_prefix('#').unwrap_or(line);
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((name, _)) = key.split_once(" = ")
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            set.push((section.clone(), name.to_owned(), n));
        }
    }
    set
}

#[test]
fn every_file_is_accepted_without_a_warning() {
    let mut seen = 0;
    for directory in [folder(), folder().join("examples")] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                accepted(&fs::read_to_string(&path).unwrap(), &path.display().to_string());
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "{seen} files");
}

#[test]
fn the_reference_names_every_key_that_works_and_no_other() {
    let set = set_in(&reference());
    for Known { section, name, built } in KEYS {
        let named = set.iter().any(|(s, n, _)| s == section && n == name);
        assert_eq!(named, *built, "{section}.{name}: named in the reference: {named}, built: {built}");
    }
    for (section, name, line) in &set {
        let known = KEYS.iter().any(|key| key.section == section && key.name == name);
        assert!(known, "line {}: {section}.{name} is unknown", line + 1);
    }
}

#[test]
fn the_reference_gives_every_key_a_reason_and_its_range() {
    let text = reference();
    let lines: Vec<&str> = text.lines().collect();
    let set = set_in(&text);
    for (Known { section, name, .. }, allowed) in allowed() {
        let line = set.iter().find(|(s, n, _)| s == section && n == name).map(|(_, _, line)| *line).unwrap();
        let is_comment = |line: &&&str| line.starts_with("# ");
        let above: Vec<&str> = lines[..line].iter().rev().take_while(is_comment).copied().collect();
        let alternative = section == "cluster" && name == "password";
        assert!(!above.is_empty() || alternative, "line {}: {section}.{name} has no reason", line + 1);
        let range = allowed.replace('"', "");
        let bounds = range.split_once(" to ").filter(|(least, most)| [least, most].iter().all(|end| is_bound(end)));
        if let Some((least, most)) = bounds
            && least != most
        {
            assert!(above.join(" ").contains(&range), "line {}: {section}.{name} is {range}: {above:?}", line + 1);
        }
    }
}

/// A number, with or without a unit of time.
fn is_bound(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn the_values_of_the_reference_are_the_defaults() {
    let text = reference();
    let second_node = text.match_indices("[[node]]").nth(1).unwrap().0;
    let (shown, rest) = text.split_at(second_node);
    let is_default = |line: &&str| !line.starts_with('#') && line.contains(" = ") && !line.contains("# example");
    let without: Vec<&str> = shown.lines().filter(|line| !is_default(line)).collect();
    let removed = shown.lines().filter(is_default).count();
    assert!(removed >= 20, "{removed} defaults are shown");
    let mut short = accepted(&format!("{}\n{rest}", without.join("\n")), "without");
    assert!(!std::mem::replace(&mut short.cluster.fencing_said, true), "it is said by the reference alone");
    assert_eq!(accepted(&text, "vigie.toml"), short);
}

#[test]
fn every_kernel_setting_exists() {
    let text = fs::read_to_string(folder().join("sysctl/90-vigie.conf")).unwrap();
    let set: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert!(!set.is_empty());
    for line in set {
        let (name, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
        assert!(Path::new("/proc/sys").join(name.replace('.', "/")).exists(), "{name} is none of this kernel");
        assert!(value.parse::<u32>().is_ok(), "{line}");
    }
}
