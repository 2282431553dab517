//! What the data directory holds already. Redis reads either the append-only file or the snapshot, by its setting, and
//! ignores the other: after a change of the setting it would start empty, and as a master hand its emptiness on.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

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

/// Takes the zeros off the ends of the incremental append-only files; returns each such file, and how many bytes of zeros.
///
/// A file system may have noted that a file has grown before what it grew by was on disk: after a power cut the end of the
/// last block reads as zeros. Redis accepts a file that ends in the middle of a command, but refuses to start with that. No
/// whole command ends with a zero (it ends with a line's end), so nothing is lost that had been synced.
pub(super) fn trim(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut trimmed = Vec::new();
    let directories = fs::read_dir(directory)?.filter_map(Result::ok).map(|entry| entry.path());
    for path in directories.filter(|path| path.is_dir() && has_manifest(path)) {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".incr.aof") {
                let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
                let len = file.metadata()?.len();
                let zeros = zeros_at_end(&file, len)?;
                if zeros > 0 {
                    file.set_len(len - zeros)?;
                    file.sync_all()?;
                    trimmed.push((path, zeros));
                }
            }
        }
    }
    Ok(trimmed)
}

fn zeros_at_end(file: &fs::File, len: u64) -> io::Result<u64> {
    let mut block = [0; 4_096];
    let mut end = len;
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        // At most the length of the block.
        let block = &mut block[..(end - begin) as usize];
        file.read_exact_at(block, begin)?;
        if let Some(last) = block.iter().rposition(|byte| *byte != 0) {
            return Ok(len - begin - last as u64 - 1);
        }
        end = begin;
    }
    Ok(len)
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

    #[test]
    fn only_zeros_at_the_end_of_an_incremental_file_are_taken_off() {
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join("appendonlydir");
        let (incr, base) = (part.join("appendonly.aof.2.incr.aof"), part.join("appendonly.aof.2.base.rdb"));
        fs::create_dir(&part).unwrap();
        fs::write(part.join("appendonly.aof.manifest"), "x").unwrap();
        // The checksum of a snapshot may be zeros.
        fs::write(&base, [0; 8]).unwrap();
        let whole = b"*2\r\n$6\r\nLPUSHX\r\n$2\r\n\0\0\r\n";
        for zeros in [0, 1, 4_096, 10_000] {
            fs::write(&incr, [whole.as_slice(), &vec![0; zeros]].concat()).unwrap();
            let expected = if zeros == 0 { vec![] } else { vec![(incr.clone(), zeros as u64)] };
            assert_eq!(trim(directory.path()).unwrap(), expected);
            assert_eq!(fs::read(&incr).unwrap(), whole);
        }
        fs::write(&incr, [0; 5_000]).unwrap();
        assert_eq!(trim(directory.path()).unwrap(), [(incr.clone(), 5_000)]);
        assert_eq!((fs::read(&incr).unwrap().len(), fs::read(&base).unwrap().len()), (0, 8));
        fs::remove_dir_all(part).unwrap();
        assert_eq!(trim(directory.path()).unwrap(), []);
    }
}
