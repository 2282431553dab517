//! Holds the direction of dependencies: `main, args → operate → runtime → config → cores → wire → base`, each may use
//! what stands to its right; cores never use each other; cores, wire and base touch neither sockets nor clocks, files,
//! processes or threads. Files use each other in no circle. And nothing in the build needs a C compiler. Each detector is
//! proved on a snippet that it must refuse.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// From left to right.
const LAYERS: [&str; 7] = ["main", "operate", "runtime", "config", "cores", "wire", "base"];
/// In these directories a file uses only files that `mod.rs` names before it: none of them go round in a circle.
const ORDERED: [&str; 1] = ["cores/sentinel/server"];
/// What decides must be told everything: these layers reach for nothing themselves.
const PURE: [&str; 3] = ["cores", "wire", "base"];
const CRATES_OF_THE_OUTSIDE: [&str; 8] =
    ["tokio", "nix", "rtnetlink", "socket2", "libc", "sd_notify", "netlink_packet_route", "ratatui"];
const NEEDS_C: [&str; 7] = ["cc", "cmake", "pkg-config", "bindgen", "clang-sys", "autotools", "vcpkg"];

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for (file, source) in sources() {
        wrong.extend(faults(&file, &source).into_iter().map(|fault| format!("src/{}: {fault}", file.display())));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_of_an_ordered_directory_use_only_what_stands_above_them() {
    let mut wrong = Vec::new();
    for directory in ORDERED.map(Path::new) {
        let (own, sources): (Vec<_>, Vec<_>) = sources()
            .into_iter()
            .filter(|(file, _)| file.parent() == Some(directory))
            .partition(|(file, _)| file.ends_with("mod.rs"));
        let order = modules(&own[0].1);
        assert_eq!(order.len(), sources.len(), "{}: {order:?}", directory.display());
        for (file, source) in sources {
            wrong.extend(out_of_order(&file, &source, &order).into_iter().map(|name| format!("{file:?} uses {name}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let order = modules("mod a;\n#[cfg(test)]\nmod tests;\npub mod b;\nmod c { }\nuse b::B;");
    assert_eq!(order, ["a", "b"]);
    for (file, source, expected) in [
        ("x/b.rs", "use super::a::A; use super::b; use crate::x::a; use super::super::y::Z;", &[][..]),
        ("x/a.rs", "use super::{a, b::B};", &["b"]),
        ("x/a.rs", "fn f() { crate::x::b::g() }", &["b"]),
        ("x/b.rs", "use super::B;", &["B"]),
        ("x/b.rs", "use super::*;", &["*"]),
    ] {
        assert_eq!(out_of_order(Path::new(file), source, &order), expected, "{file}: {source}");
    }
}

#[test]
fn files_use_each_other_in_no_circle() {
    let wrong: Vec<_> = circles(&sources()).iter().map(|circle| circle.join(", ")).collect();
    assert!(wrong.is_empty(), "files that use each other in a circle:\n{}", wrong.join("\n"));
}

#[test]
fn the_detector_of_circles_detects() {
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(file, text)| (PathBuf::from(file), (*text).to_owned())).collect();
        circles(&sources)
    };
    let pair = vec![vec!["a/x.rs".to_owned(), "a/y.rs".to_owned()]];
    for (x, y) in [
        ("use super::y::Y; pub struct X;", "use super::x::X; pub struct Y;"),
        ("pub struct X(crate::a::y::Y);", "use crate::a::{x::{X}}; pub struct Y;"),
        ("use super::y; pub fn f() { y::g() }", "pub fn g() { super::x::f() }"),
        // By the door of the directory.
        ("use super::Y; pub struct X;", "use super::x::X; pub struct Y;"),
        ("use super::Y; pub struct X;", "use crate::a::X; pub struct Y;"),
        ("use super::{self, Y}; pub struct X;", "fn f() { crate::a::x::X::new() } pub struct Y;"),
    ] {
        let door = "mod x; mod y; pub use x::X; pub(crate) use y::{Y, Z};";
        assert_eq!(found(&[("a/mod.rs", door), ("a/x.rs", x), ("a/y.rs", y)]), pair, "{x} {y}");
    }
    let three = [
        ("a.rs", "pub mod x; pub mod y;"),
        ("a/x.rs", "use crate::b::B; pub struct X;"),
        ("a/y.rs", "use super::x::X; pub struct Y;"),
        ("b.rs", "use crate::a::y::Y; pub struct B;"),
    ];
    assert_eq!(found(&three), [["a/x.rs", "a/y.rs", "b.rs"].map(str::to_owned)], "over directories");
    // A parent that uses its child, which uses what the parent defines.
    for parent in [
        "mod x; use x::X; pub struct P;",
        "mod x; pub struct P; fn f() { x::f() }",
        "mod x; pub use x::X; pub struct P(X);",
    ] {
        let circle = found(&[("a/mod.rs", parent), ("a/x.rs", "use super::P; pub struct X;")]);
        assert_eq!(circle, [["a/mod.rs", "a/x.rs"].map(str::to_owned)], "{parent}");
    }
    for (parent, child) in [
        // Declared and handed on, not used.
        ("mod x; pub use x::X; pub struct P;", "use super::P; pub struct X;"),
        ("mod x; use x::X; pub struct P(X);", "use crate::b::B; pub struct X;"),
        ("mod x; pub struct P; #[cfg(test)] mod tests { use super::x::X; }", "use super::P; pub struct X;"),
        ("mod x; pub struct P; // x::X", "use super::P; pub struct X; const T: &str = \"super::x\";"),
    ] {
        let files =
            [("a/mod.rs", parent), ("a/x.rs", child), ("b.rs", "pub struct B;"), ("a/x/tests.rs", "use super::X;")];
        assert_eq!(found(&files), Vec::<Vec<String>>::new(), "{parent} {child}");
    }
}

#[test]
fn nothing_in_the_build_needs_c() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
        let mut tree = Command::new(&cargo);
        tree.args(["tree", "--offline", "--locked", "-e", "normal,build", "--prefix", "none", "--format", "{p}"]);
        let tree = tree.args(["--target", target]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let tree = String::from_utf8(tree.stdout).unwrap();
        assert!(tree.lines().any(|line| line.starts_with("tokio v")), "this is no tree of ours:\n{tree}");
        assert_eq!(c_in(&tree), Vec::<&str>::new(), "{target}");
    }
}

#[test]
fn the_detectors_detect() {
    for (file, source, part) in [
        ("base/x.rs", "use crate::wire::frame::Roles;", "base uses wire"),
        ("wire/x.rs", "fn f() { crate::cores::cluster::f() }", "wire uses cores"),
        ("cores/vrrp/x.rs", "use crate::config::Config;", "cores uses config"),
        ("config/x.rs", "use crate::{base::Secret, runtime::{clock, store}};", "config uses runtime"),
        ("config/file.rs", "use super::super::operate::check;", "config uses operate"),
        ("runtime/mod.rs", "use super::operate;", "runtime uses operate"),
        ("operate/x.rs", "type A = crate::args::Arguments;", "operate uses main"),
        ("runtime/x.rs", "use vigie::operate::check;", "runtime uses operate"),
        ("runtime/x.rs", "use crate::*;", "uses all of the crate"),
        ("cores/vrrp/mod.rs", "use crate::cores::sentinel::Event;", "core vrrp uses core sentinel"),
        ("cores/vrrp/mod.rs", "use super::sentinel::Event;", "core vrrp uses core sentinel"),
        ("cores/vrrp/state.rs", "use super::super::{sentinel, vrrp};", "core vrrp uses core sentinel"),
        ("cores/vrrp/state.rs", "use crate::cores;", "core vrrp uses all cores"),
        ("base/x.rs", "use tokio::sync::mpsc;", "tokio"),
        ("base/x.rs", "use tokio;", "tokio"),
        ("base/x.rs", "fn f() { ::nix::unistd::getpid(); }", "nix"),
        ("wire/x.rs", "use std::{fmt, net::{IpAddr, TcpStream}};", "std::net::TcpStream"),
        ("wire/x.rs", "use std::net::*;", "std::net::*"),
        ("wire/x.rs", "use std::{net::{self, IpAddr}};", "std::net"),
        ("wire/x.rs", "fn f() { let _ = std::net::UdpSocket::bind(a); }", "std::net::UdpSocket"),
        ("cores/proxy/x.rs", "use std::fs;", "std::fs"),
        ("cores/proxy/x.rs", "use std::{env, process::Command, thread};", "std::thread"),
        ("cores/proxy/x.rs", "fn f() { Instant::now(); }", "Instant::now"),
        ("cores/proxy/x.rs", "use std::time::{Duration, SystemTime};", "SystemTime"),
        ("cores/proxy/x.rs", "use std as s;", "std"),
        ("cores/proxy/x.rs", "fn f<'a>(c: char) -> bool { c == '\"' } use std::fs; // \"", "std::fs"),
        ("cores/proxy/x.rs", "#[cfg(test)]\nmod tests { use tokio::x; }\nuse std::fs;", "std::fs"),
        ("cores/proxy/x.rs", "#[cfg(test)]\nmod tests;\nuse std::fs;", "std::fs"),
    ] {
        let found = faults(Path::new(file), source);
        assert!(found.iter().any(|fault| fault.contains(part)), "{file}: {source}: {found:?}");
    }
    assert_eq!(
        c_in("vigie v0.1.0 (/x)\ncc v1.2.3\ncc-traits v1.0.0\nzstd-sys v2\npkg-config v0.3 (*)"),
        ["cc", "pkg-config"]
    );
}

#[test]
fn the_detectors_let_pass_what_is_right() {
    for (file, source) in [
        ("main.rs", "use vigie::operate::check; use vigie::args::Arguments;"),
        ("args.rs", "use crate::base::NodeName;"),
        ("operate/x.rs", "use crate::{base, wire, cores, config, runtime}; use std::fs;"),
        ("runtime/x.rs", "use super::clock; use tokio::net::TcpStream; fn f() { std::time::Instant::now(); }"),
        ("config/file.rs", "use super::keys; use crate::wire::frame::Roles; use std::fs;"),
        ("cores/vrrp/state.rs", "use super::{Event, Input}; use crate::cores::vrrp::Router; use crate::base::Instant;"),
        ("cores/vrrp/state.rs", "use super::super::vrrp::Router; use std::net::{IpAddr, SocketAddr};"),
        (
            "cores/vrrp/mod.rs",
            "// use tokio::net;\n/* std::fs /* */ std::fs */ const X: &str = \"std::fs\"; mod tokio_like {}",
        ),
        (
            "cores/vrrp/mod.rs",
            "const X: &str = r#\"use \"tokio::x\" \"#; const Y: u8 = b'\"'; use std::time::Duration;",
        ),
        ("cores/vrrp/mod.rs", "#[cfg(test)]\n#[allow(x)]\nmod tests { use tokio::x; fn f() { {} } }"),
        ("cores/vrrp/tests.rs", "use std::fs; use crate::cores::sentinel;"),
        ("wire/x.rs", "fn f<'a>(x: &'a str) -> &'a str { x } pub(crate) struct S; pub(super) const fn g() {}"),
    ] {
        assert_eq!(faults(Path::new(file), source), Vec::<String>::new(), "{file}: {source}");
    }
}

/// All files below `src/`, relative to it.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut waiting = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push((path.strip_prefix(&root).unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 20, "the sources are elsewhere");
    sources.sort();
    sources
}

/// What a file uses and must not. `file` is relative to `src/`.
fn faults(file: &Path, source: &str) -> Vec<String> {
    let module = module_of(file);
    let is_test = module.last().is_some_and(|name| name == "tests") || module.iter().any(|name| name == "tests");
    if file == Path::new("lib.rs") || is_test {
        return Vec::new();
    }
    let layer = layer_of(&module[0]);
    let rank = LAYERS.iter().position(|known| *known == layer).unwrap_or_else(|| panic!("{layer}: an unknown layer"));
    let mut faults = Vec::new();
    for path in paths(&tokens(source)) {
        match absolute(&path, &module) {
            Some(inner) => faults.extend(inner_fault(&inner, &module, layer, rank)),
            None if PURE.contains(&layer) && reaches_out(&path) => {
                faults.push(format!("{layer} reaches outside: {}", path.join("::")));
            }
            None => {}
        }
    }
    faults
}

/// The modules that lead to a file: `cores/vrrp/mod.rs` is `cores::vrrp`.
fn module_of(file: &Path) -> Vec<String> {
    let names = file.with_extension("");
    let mut names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

fn layer_of(module: &str) -> &str {
    if module == "args" { "main" } else { module }
}

/// A path inside of this crate, from its root; none if it leads to another crate or to a local name.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    match path[0].as_str() {
        "crate" | "vigie" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|name| *name == "super").count();
            let kept = module.len().checked_sub(ups)?;
            Some(module[..kept].iter().chain(&path[ups..]).cloned().collect())
        }
        _ => None,
    }
}

/// The modules that a file declares, in their order.
fn modules(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let declared = tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";");
    declared.map(|three| three[1].clone()).collect()
}

/// What a file uses of its own directory that does not stand above it there.
fn out_of_order(file: &Path, source: &str, order: &[String]) -> Vec<String> {
    let module = module_of(file);
    let (name, directory) = module.split_last().unwrap();
    let place = |name: &String| order.iter().position(|known| known == name).unwrap_or(order.len());
    let used = paths(&tokens(source)).into_iter().filter_map(|path| absolute(&path, &module));
    let inside = used.filter_map(|path| path.strip_prefix(directory)?.first().cloned());
    inside.filter(|used| used != name && place(used) >= place(name)).collect()
}

fn inner_fault(path: &[String], module: &[String], layer: &str, rank: usize) -> Option<String> {
    let target = match path.first() {
        None => return Some(format!("{layer} uses all of the crate")),
        Some(all) if all == "*" => return Some(format!("{layer} uses all of the crate")),
        Some(first) => layer_of(first),
    };
    let to = LAYERS.iter().position(|known| *known == target)?;
    if to < rank {
        return Some(format!("{layer} uses {target}: {}", path.join("::")));
    }
    let own = module.get(1).filter(|_| layer == "cores" && target == "cores")?;
    match path.get(1) {
        Some(other) if other == own => None,
        Some(other) if other != "*" => Some(format!("core {own} uses core {other}")),
        _ => Some(format!("core {own} uses all cores")),
    }
}

/// The circles of files that use each other, each a set of files from every one of which a way leads to every other one
/// (a strongly connected component of two or more).
///
/// File A uses file B if a path in A, in a `use` or in the code, leads to an item of B, wherever the two are. A path leads to
/// the last module on it that is a file. If the name that follows there came into that file by a `use` of its own, the path goes
/// on to where that one leads: by whichever door an item is fetched, the file that defines it is used. So `super::X` is a use of
/// the parent where the parent defines `X`, and of a sibling where the parent only hands `X` on. `mod x;` uses nothing, and
/// neither does a `pub use` of a name that the file does not mention again; a private `use` is a use. Globs and names behind
/// `as` are used where they are fetched. The entry (`main.rs`, `lib.rs`) and what is compiled for tests alone are left out.
fn circles(sources: &[(PathBuf, String)]) -> Vec<Vec<String>> {
    let mut files = BTreeMap::new();
    for (file, source) in sources {
        let module = module_of(file);
        let entry = file == Path::new("lib.rs") || file == Path::new("main.rs");
        if !entry && !module.iter().any(|name| name == "tests") {
            files.insert(module, (file, tokens(source)));
        }
    }
    // What each file has fetched, by name, and what it uses, as it is written there.
    let mut fetched: BTreeMap<&[String], BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut written: BTreeMap<&[String], Vec<Vec<String>>> = BTreeMap::new();
    for (module, (_, tokens)) in &files {
        for Mention { path, import } in mentions(tokens) {
            let child = [module.as_slice(), &path[..1]].concat();
            let below = || files.contains_key(&child).then(|| [module.as_slice(), &path].concat());
            let Some(whole) = absolute(&path, module).or_else(below) else { continue };
            let name = &path[path.len() - 1];
            let handed_on = import == Import::Public && tokens.iter().filter(|token| *token == name).count() == 1;
            if import != Import::No {
                fetched.entry(module).or_default().insert(name.clone(), whole.clone());
            }
            if !handed_on {
                written.entry(module).or_default().push(whole);
            }
        }
    }
    let defined_in = |path: &[String]| {
        let mut path = path.to_vec();
        // A door may lead to another one, but not for ever.
        for _ in 0..8 {
            let file = (1..=path.len()).rev().find(|length| files.contains_key(&path[..*length]))?;
            let further = path.get(file).and_then(|name| fetched.get(&path[..file])?.get(name));
            match further {
                Some(further) if *further != path => path = [further.as_slice(), &path[file + 1..]].concat(),
                Some(_) | None => return Some(path[..file].to_vec()),
            }
        }
        None
    };
    let used_by = |module: &Vec<String>| -> BTreeSet<Vec<String>> {
        let paths = written.get(module.as_slice()).into_iter().flatten();
        paths.filter_map(|path| defined_in(path)).filter(|used| used != module).collect()
    };
    let used: BTreeMap<_, _> = files.keys().map(|module| (module, used_by(module))).collect();
    let mut reached: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = BTreeMap::new();
    for module in files.keys() {
        let (mut seen, mut open) = (BTreeSet::new(), vec![module]);
        while let Some(next) = open.pop() {
            open.extend(used[next].iter().filter(|used| seen.insert(*used)));
        }
        reached.insert(module, seen);
    }
    let mut circles = BTreeSet::new();
    for (module, far) in &reached {
        let circle = far.iter().filter(|other| reached[*other].contains(module));
        let circle: Vec<_> = circle.map(|other| files[*other].0.display().to_string()).collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// Whether a path leads to sockets, clocks, files, processes or threads.
fn reaches_out(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let named = match path.as_slice() {
        [first, ..] if CRATES_OF_THE_OUTSIDE.contains(first) => true,
        ["std"] | ["std", "*" | "fs" | "process" | "thread" | "env" | "os", ..] => true,
        ["std", "net" | "time"] | ["std", "net" | "time", "*", ..] => true,
        ["std", "net", name, ..] => name.starts_with("Tcp") || name.starts_with("Udp"),
        ["std", "time", "Instant" | "SystemTime", ..] => true,
        _ => false,
    };
    named || path.ends_with(&["Instant", "now"]) || path.contains(&"SystemTime")
}

/// The crates of a `cargo tree` that need a C compiler or look for C libraries.
fn c_in(tree: &str) -> Vec<&str> {
    tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| NEEDS_C.contains(name)).collect()
}

/// Identifiers and punctuation (`::` as one) without comments, literals and what is compiled for tests only.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '"' => text(rest, 1),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#") => raw_text(rest).unwrap_or(1),
            'b' if rest.starts_with("b\"") => text(rest, 2),
            '\'' => character(rest),
            _ if first.is_alphanumeric() || first == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                tokens.push(rest[..end].to_owned());
                end
            }
            ':' if rest.starts_with("::") => {
                tokens.push("::".to_owned());
                2
            }
            _ => {
                if !first.is_whitespace() {
                    tokens.push(first.to_string());
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    without_tests(tokens)
}

/// Length of a block comment; they nest.
fn comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let (change, step) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth += change;
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a text literal whose content begins at `start`.
fn text(rest: &str, start: usize) -> usize {
    let bytes = rest.as_bytes();
    let mut at = start;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `r"…"` or `r#"…"#`; none for a raw identifier.
fn raw_text(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let content = rest.get(1 + hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + content.find(&end)? + end.len())
}

/// Length of a character literal, or of the quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, _))) => rest[at + 1..].find('\'').map_or(1, |end| at + 1 + end + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Leaves out items under `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(marker.len()).eq(marker) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += marker.len();
        while at < tokens.len() {
            let token = tokens[at].as_str();
            at += 1;
            match token {
                "{" => depth += 1,
                "}" => depth -= 1,
                ";" => {}
                _ => continue,
            }
            if depth == 0 {
                break;
            }
        }
    }
    kept
}

/// Every path of two or more names, and every name that is imported; groups are taken apart.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    mentions(tokens).into_iter().map(|mention| mention.path).collect()
}

/// A path as it stands in a file.
struct Mention {
    path: Vec<String>,
    import: Import,
}

/// Whether a path stands in a `use`, and for whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Import {
    No,
    Private,
    Public,
}

fn mentions(tokens: &[String]) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let imported = at > 0 && tokens[at - 1] == "use";
        let starts = is_name(&tokens[at]) && tokens.get(at + 1).is_some_and(|next| next == "::" || imported);
        // `use ::nix::…` and `use {a, b};`
        let group = imported && tokens[at] == "{";
        if !starts && !group {
            at += 1;
            continue;
        }
        let import = match at.checked_sub(2).map(|before| tokens[before].as_str()) {
            _ if !imported => Import::No,
            // `pub use` and `pub(super) use`
            Some("pub" | ")") => Import::Public,
            Some(_) | None => Import::Private,
        };
        let mut paths = Vec::new();
        at = tree(tokens, at, &[], &mut paths);
        mentions.extend(paths.into_iter().map(|path| Mention { path, import }));
    }
    mentions
}

fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
}

/// Reads the path at `at` below `prefix`; returns where it ends.
fn tree(tokens: &[String], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    let next = tree(tokens, at, &path, paths);
                    // A comma, `as`, or what a macro put there.
                    at = next.max(at + 1);
                    while at < tokens.len() && tokens[at] != "," && tokens[at] != "}" {
                        at += 1;
                    }
                    at += usize::from(at < tokens.len() && tokens[at] == ",");
                }
                return at + 1;
            }
            Some("self") if !path.is_empty() => at += 1,
            Some(name) if is_name(name) || name == "*" => {
                path.push(name.to_owned());
                at += 1;
            }
            _ => break,
        }
        if tokens.get(at).is_some_and(|next| next == "::") {
            at += 1;
        } else {
            break;
        }
    }
    if !path.is_empty() {
        paths.push(path);
    }
    at
}
