//! What the data directory holds already. Redis reads either the append-only file or the snapshot, by its setting, and
//! ignores the other: after a change of the setting it would start empty, and as a master hand its emptiness on.

use std::fs;
use std::io;
use std::path::Path;

/// The kind of data found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// None.
    Nothing,
    /// A snapshot, and no append-only file.
    Snapshot,
    /// An append-only file.
    AppendOnly,
}

/// Looks into the data directory. Redis 7 and Valkey keep the append-only file as several ones that a manifest names,
/// in a directory of their own; older servers as one file, which is empty until its first rewrite.
pub(super) fn look(directory: &Path) -> io::Result<Found> {
    let mut found = Found::Nothing;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, facts) = (entry.file_name(), entry.metadata()?);
        let name = name.to_string_lossy();
        let manifest = facts.is_dir() && has_manifest(&entry.path());
        if manifest || facts.is_file() && name.ends_with(".aof") && facts.len() > 0 {
            return Ok(Found::AppendOnly);
        }
        if facts.is_file() && name.ends_with(".rdb") && !name.starts_with("temp-") {
            found = Found::Snapshot;
        }
    }
    Ok(found)
}

/// A directory that cannot be read is not one of redis.
fn has_manifest(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().ends_with(".manifest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let look = || look(directory.path()).unwrap();
        assert_eq!(look(), Found::Nothing);
        fs::write(at("temp-12.rdb"), "x").unwrap();
        fs::create_dir(at("appendonlydir")).unwrap();
        fs::write(at("appendonly.aof"), "").unwrap();
        assert_eq!(look(), Found::Nothing);
        fs::write(at("dump.rdb"), "x").unwrap();
        assert_eq!(look(), Found::Snapshot);
        fs::write(at("appendonlydir/appendonly.aof.manifest"), "x").unwrap();
        assert_eq!(look(), Found::AppendOnly);
        fs::remove_dir_all(at("appendonlydir")).unwrap();
        fs::write(at("appendonly.aof"), "x").unwrap();
        assert_eq!(look(), Found::AppendOnly);
    }
}
