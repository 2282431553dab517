//! The br2-external tree and what it shares with every other way of building a box: whatever is named exists, whatever
//! exists is used, and what is said in two places is the same. With `BUILDROOT=DIR`, an unpacked Buildroot, also that no line of a
//! defconfig is dropped by it. Each detector is proved on something that it must refuse.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const EXTERNAL: &str = "BR2_EXTERNAL_VIGIE_PATH";
/// Made by `make box`, not kept.
const MADE: [&str; 1] = ["../target/box"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(PROJECT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a directory, relative to the project.
fn files(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(PROJECT).join(below)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(PROJECT).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing below {below}");
    found
}

/// The paths in a text that begin with `$(BR2_EXTERNAL_VIGIE_PATH)` in any way of writing it.
fn paths_in(text: &str) -> Vec<String> {
    let after =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(|line| line.split(EXTERNAL).skip(1));
    let path = |rest: &str| {
        let rest = rest.trim_start_matches([')', '}']).strip_prefix('/')?.to_owned();
        let end = rest.find(|c: char| c.is_whitespace() || "\"')".contains(c)).unwrap_or(rest.len());
        Some(rest[..end].trim_end_matches("/.").to_owned())
    };
    after.filter_map(path).collect()
}

/// Settings of a configuration, by name: the value, `n` for what is not set. A second line for one name is a fault.
fn settings(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut settings = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let unset = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"));
        let (name, value) = match (unset, line.split_once('=')) {
            (Some(name), _) => (name, "n"),
            (None, _) if line.is_empty() || line.starts_with('#') => continue,
            (None, Some(setting)) => setting,
            (None, None) => return Err(format!("line {}: {line:?} is no setting", number + 1)),
        };
        let named = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && name.contains('_');
        let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
        let plain = ["y", "n"].contains(&value) || value.parse::<u64>().is_ok();
        if !named || !(quoted || plain) {
            return Err(format!("line {}: {line:?} is no setting", number + 1));
        }
        if settings.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("line {}: {name} is set twice", number + 1));
        }
    }
    Ok(settings)
}

#[test]
fn every_path_of_the_tree_exists() {
    assert_eq!(read("buildroot/external.desc").lines().next(), Some("name: VIGIE"));
    let mut paths = 0;
    for file in files("buildroot") {
        for path in paths_in(&read(&file)) {
            paths += 1;
            // A pattern is as good as the directory it begins in.
            let whole = path.split('*').next().unwrap().trim_end_matches('/').to_owned();
            let exists = Path::new(PROJECT).join("buildroot").join(&whole).exists();
            assert!(exists || MADE.contains(&whole.as_str()), "{file} names {path}, which does not exist");
        }
    }
    assert!(paths > 20, "only {paths} paths were found");
    let found = paths_in(
        "A=\"$(BR2_EXTERNAL_VIGIE_PATH)/a/b\"\ncp \"$BR2_EXTERNAL_VIGIE_PATH/../c/.\" d\n# ${BR2_EXTERNAL_VIGIE_PATH}/e",
    );
    assert_eq!(found, ["a/b", "../c"]);
}

#[test]
fn every_file_of_the_board_is_used() {
    let texts: Vec<String> = files("buildroot").iter().map(|file| read(file)).collect();
    for file in files("buildroot/board") {
        let name = file.rsplit('/').next().unwrap();
        assert!(texts.iter().any(|text| text.contains(name)), "nothing names {file}");
    }
}

#[test]
fn every_package_is_offered_and_made() {
    let offered = read("buildroot/Config.in");
    for package in ["valkey", "vigie"] {
        let upper = package.to_uppercase();
        let (menu, rules) = (
            read(&format!("buildroot/package/{package}/Config.in")),
            read(&format!("buildroot/package/{package}/{package}.mk")),
        );
        assert!(offered.contains(&format!("package/{package}/Config.in")), "{package} is not offered");
        assert!(menu.contains(&format!("config BR2_PACKAGE_{upper}\n")), "{package}: no symbol of its own");
        assert!(rules.contains("$(eval $(generic-package))"), "{package} is no package");
        for line in rules.lines().filter(|line| line.contains(" = ") && !line.starts_with(['#', '\t'])) {
            assert!(line.starts_with(&format!("{upper}_")), "{package}.mk sets a variable of somebody else: {line}");
        }
    }
    let packages = fs::read_dir(Path::new(PROJECT).join("buildroot/package")).unwrap().count();
    assert_eq!(packages, 2, "a package that this test does not know");
}

#[test]
fn every_symbol_of_ours_is_defined() {
    let menus: String =
        files("buildroot").iter().filter(|file| file.ends_with("Config.in")).map(|file| read(file)).collect();
    let defined: Vec<&str> = menus.lines().filter_map(|line| line.strip_prefix("config ")).collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for file in files("buildroot") {
        for word in read(&file).split(|c| !is_word(c)) {
            if word.starts_with("BR2_PACKAGE_VIGIE") || word.starts_with("BR2_PACKAGE_VALKEY") {
                assert!(defined.contains(&word), "{file} names {word}, which nothing defines");
            }
        }
    }
}

#[test]
fn configurations_are_written_as_such_and_agree() {
    let both = ["x86_64", "aarch64"]
        .map(|arch| settings(&read(&format!("buildroot/configs/vigie_{arch}_defconfig"))).unwrap());
    for name in [
        "BR2_LINUX_KERNEL_CUSTOM_VERSION_VALUE",
        "BR2_ROOTFS_OVERLAY",
        "BR2_TARGET_ROOTFS_SQUASHFS",
        "BR2_PACKAGE_VIGIE",
    ] {
        assert!(
            both[0].contains_key(name) && both[0].get(name) == both[1].get(name),
            "{name}: {:?}",
            both.each_ref().map(|one| one.get(name))
        );
    }
    let common = settings(&read("buildroot/board/vigie/linux.config")).unwrap();
    let fragments = files("buildroot/board").into_iter().filter(|file| file.ends_with(".fragment"));
    for file in fragments {
        let own = settings(&read(&file)).unwrap_or_else(|why| panic!("{file}: {why}"));
        let repeated = own.iter().find(|(name, value)| file.contains("linux-") && common.get(*name) == Some(value));
        assert_eq!(repeated, None, "{file} repeats linux.config");
    }
    for (wrong, why) in [
        ("CONFIG_A=y\n# CONFIG_A is not set\n", "set twice"),
        ("CONFIG_A\n", "no setting"),
        ("CONFIG_A=yes\n", "no setting"),
        ("CONFIG A=y\n", "no setting"),
    ] {
        assert!(settings(wrong).unwrap_err().contains(why), "{wrong:?}");
    }
}

/// The SHA-256 sums of a `.hash` file, by the name of the archive.
fn hashes(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let hash = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, sum, name] = words[..] else { panic!("{line:?} is no hash") };
        assert!(kind == "sha256" && sum.len() == 64 && sum.chars().all(|c| c.is_ascii_hexdigit()), "{line:?}");
        (name.to_owned(), sum.to_owned())
    };
    lines.map(hash).collect()
}

#[test]
fn every_archive_has_a_hash() {
    for arch in ["x86_64", "aarch64"] {
        let config = settings(&read(&format!("buildroot/configs/vigie_{arch}_defconfig"))).unwrap();
        assert_eq!(config.get("BR2_DOWNLOAD_FORCE_CHECK_HASHES").map(String::as_str), Some("y"), "{arch}");
        let directory = &config["BR2_GLOBAL_PATCH_DIR"];
        assert!(directory.contains("board/vigie/patches"), "{directory}");
        let kernel = config["BR2_LINUX_KERNEL_CUSTOM_VERSION_VALUE"].trim_matches('"');
        // The headers are another package of the same archive.
        for package in ["linux", "linux-headers"] {
            let known = hashes(&read(&format!("buildroot/board/vigie/patches/{package}/{package}.hash")));
            assert!(known.contains_key(&format!("linux-{kernel}.tar.xz")), "{package}: {kernel} is none of {known:?}");
        }
    }
    for file in files("buildroot/package").iter().filter(|file| file.ends_with(".mk")) {
        let rules = read(file);
        let value = |what: &str| rules.lines().find_map(|line| line.split_once(what)).map(|(_, value)| value.trim());
        if value("_SITE_METHOD =") == Some("local") {
            continue;
        }
        let name = Path::new(file).file_stem().unwrap().to_str().unwrap();
        let archive = format!("{name}-{}.tar.gz", value("_VERSION =").unwrap());
        let known = hashes(&read(&file.replace(".mk", ".hash")));
        assert!(known.contains_key(&archive), "{archive} is none of {known:?}");
    }
    for wrong in ["sha1  0123  a.tar", "sha256  0123  a.tar", "sha256  a.tar"] {
        assert!(std::panic::catch_unwind(|| hashes(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn redis_has_a_user_and_root_is_the_only_one_who_may_log_in() {
    let lines = |path: &str| -> Vec<Vec<String>> {
        read(path).lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    };
    let (users, groups) = (lines("image/rootfs/etc/passwd"), lines("image/rootfs/etc/group"));
    let redis = users.iter().find(|user| user[0] == "redis").unwrap();
    assert!(redis[2] != "0" && groups.iter().any(|group| group[0] == "redis" && group[2] == redis[3]), "{redis:?}");
    for user in &users {
        assert_eq!(user.len(), 7, "{user:?}");
        assert!(user[1] == "*" && (user[0] == "root" || user[6] == "/bin/false"), "{user:?}");
    }
}

#[test]
fn scripts_are_scripts() {
    let with_line = |file: &String| read(file).starts_with("#!");
    let scripts: Vec<String> = files("buildroot").into_iter().chain(files("image")).filter(with_line).collect();
    assert!(scripts.len() > 12, "{scripts:?}");
    for file in scripts {
        let path = Path::new(PROJECT).join(&file);
        assert!(fs::metadata(&path).unwrap().permissions().mode() & 0o111 != 0, "{file} cannot be executed");
        let shell = if read(&file).lines().next().unwrap().contains("bash") { "bash" } else { "sh" };
        let read_only = Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert!(read_only.status.success(), "{file}: {}", String::from_utf8_lossy(&read_only.stderr));
    }
}

#[test]
fn every_script_that_the_overlay_names_is_in_it() {
    let mut named = 0;
    for file in files("image/rootfs").into_iter().chain(["buildroot/board/vigie/post-build.sh".to_owned()]) {
        for rest in read(&file).split("/usr/lib/vigie/").skip(1) {
            named += 1;
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            let path = format!("image/rootfs/usr/lib/vigie/{name}");
            assert!(Path::new(PROJECT).join(&path).is_file(), "{file} names {path}");
        }
    }
    assert!(named > 10, "{named}");
    // Each is named by another one, or by init.
    let texts: String = files("image/rootfs").iter().map(|file| read(file)).collect();
    for file in files("image/rootfs/usr/lib/vigie") {
        let name = format!("/usr/lib/vigie/{}", file.rsplit('/').next().unwrap());
        assert!(texts.contains(&name), "nothing names {name}");
    }
}

/// Name, size in MiB and type of each partition, as genimage is told. A size of 0: what is left.
fn genimage_partitions(text: &str) -> Vec<(String, u64, String)> {
    let mut found = Vec::new();
    let boot_size = text.split("image boot.vfat").nth(1).and_then(|rest| value(rest, "size")).unwrap();
    for part in text.split("\tpartition ").skip(1) {
        let name = part.split_whitespace().next().unwrap().to_owned();
        let body = part.split('}').next().unwrap();
        let size = value(body, "size").unwrap_or_else(|| boot_size.clone());
        let kind = value(body, "partition-type-uuid").unwrap().trim_matches('"').to_uppercase();
        found.push((name, size.trim_end_matches('M').parse().unwrap(), kind));
    }
    found
}

fn value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{key} =")))?;
    Some(line.split_once('=')?.1.trim().to_owned())
}

/// The same from sfdisk's script.
fn sfdisk_partitions(text: &str) -> Vec<(String, u64, String)> {
    let partition = |line: &str| {
        let field = |key: &str| line.split(',').find_map(|field| field.trim().strip_prefix(key)).map(str::to_owned);
        let size = field("size=").map_or(0, |size| size.trim_end_matches("MiB").parse().unwrap());
        (field("name=").unwrap().trim_matches('"').to_owned(), size, field("type=").unwrap())
    };
    text.lines().filter(|line| line.starts_with("start=")).map(partition).collect()
}

#[test]
fn both_ways_of_building_make_the_same_disk() {
    let table = sfdisk_partitions(&read("image/partitions.sfdisk"));
    let genimage = genimage_partitions(&read("buildroot/board/vigie/genimage.cfg"));
    assert_eq!(table.len(), 5);
    let (last, others) = table.split_last().unwrap();
    let (grows, fixed) = genimage.split_last().unwrap();
    assert_eq!(others, fixed);
    // The last one takes what is left.
    assert_eq!((&last.0, &last.2), (&grows.0, &grows.2));
    let root = table.iter().find(|partition| partition.0 == "vigie-root-a").unwrap();
    assert!(read("buildroot/board/vigie/grub.cfg").contains(&format!("PARTLABEL={}", root.0)));
    // The scripts of the box look for these names.
    for name in ["vigie-boot", "vigie-data"] {
        assert!(table.iter().any(|partition| partition.0 == name));
        assert!(files("image/rootfs").iter().any(|file| read(file).contains(&format!("partition {name} "))), "{name}");
    }
}

#[test]
fn both_ways_of_building_make_the_same_links() {
    let links = |text: &str| {
        let lines =
            text.lines().flat_map(|line| line.split("&&")).map(str::trim).filter(|line| line.starts_with("ln -s"));
        let mut links: Vec<(String, String)> = lines
            .filter_map(|line| {
                let mut words = line.split_whitespace().skip(2);
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            })
            .filter(|(target, _)| ["/boot", "/run"].iter().any(|begin| target.starts_with(begin)))
            .collect();
        links.sort();
        links
    };
    let quick = links(&read("image/quick"));
    assert_eq!(quick.len(), 4, "{quick:?}");
    assert_eq!(quick, links(&read("buildroot/board/vigie/post-build.sh")));
}

#[test]
fn no_line_of_a_defconfig_is_dropped() {
    let Some(buildroot) = std::env::var_os("BUILDROOT") else {
        println!("skipped: BUILDROOT names no Buildroot to judge the defconfigs with");
        return;
    };
    for arch in ["x86_64", "aarch64"] {
        let output = tempfile::tempdir().unwrap();
        let name = format!("vigie_{arch}_defconfig");
        let mut make = Command::new("make");
        make.arg("-C").arg(&buildroot).arg(format!("O={}", output.path().display()));
        let made = make.arg(format!("BR2_EXTERNAL={PROJECT}/buildroot")).arg(&name).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = settings(&fs::read_to_string(output.path().join(".config")).unwrap()).unwrap();
        for (symbol, value) in settings(&read(&format!("buildroot/configs/{name}"))).unwrap() {
            assert_eq!(config.get(&symbol).map_or("n", String::as_str), value, "{name}: {symbol}");
        }
    }
}
