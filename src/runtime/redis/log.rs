//! The log of the supervised redis: kept in a file of bounded size, and its last words when it dies.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file grows to this size and is then kept as `redis.log.1`, over the one before.
const FILE_MAX: u64 = 1024 * 1024;
/// A longer line is cut.
const LINE_MAX: u64 = 4_096;
/// So many last lines are searched for a reason.
const KEPT: usize = 16;

/// Copies what comes out of `pipe` to `<directory>/redis.log` until every writer is gone. Returns its last lines.
/// A file that cannot be written costs the lines, never the redis: the pipe is emptied all the same.
pub(super) fn keep(pipe: PipeReader, directory: &Path) -> Vec<String> {
    let path = directory.join("redis.log");
    let mut file = open(&path).ok();
    let mut size = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |facts| facts.len());
    let mut last = VecDeque::with_capacity(KEPT);
    let mut pipe = BufReader::with_capacity(4_096, pipe);
    let mut bytes = Vec::new();
    while (&mut pipe).take(LINE_MAX).read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
        if size + bytes.len() as u64 > FILE_MAX {
            let _ = fs::rename(&path, path.with_extension("log.1"));
            (file, size) = (open(&path).ok(), 0);
        }
        if let Some(file) = &mut file {
            let _ = file.write_all(&bytes);
            size += bytes.len() as u64;
        }
        let line = String::from_utf8_lossy(&bytes).trim().to_owned();
        tracing::debug!(source = "redis-server", "{line}");
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(line);
        bytes.clear();
    }
    last.into()
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// What the last lines say of why it died, if anything.
pub(super) fn reason(lines: &[String], address: SocketAddr) -> Option<String> {
    if let Some(line) = lines.iter().find(|line| line.contains("Address already in use")) {
        // The line names the address, which may be loopback.
        let words =
            line.split_whitespace().find_map(|word| word.trim_end_matches([':', ',']).parse::<SocketAddr>().ok());
        return Some(format!("{} is in use by another process", words.unwrap_or(address)));
    }
    if lines.iter().any(|line| line.contains("Cannot assign requested address")) {
        return Some(format!("{} is not an address of this host (yet)", address.ip()));
    }
    if let Some(at) = lines.iter().position(|line| line.contains("FATAL CONFIG FILE ERROR")) {
        return Some(lines[at + 1..].join(" "));
    }
    // `1234:M 22 Nov 2026 20:48:00.000 # What it says`: the mark is that of a warning. Advice about the host at its
    // start is one too, and begins with that word.
    let warnings = lines.iter().rev().filter_map(|line| line.split_once(" # "));
    warnings.map(|(_, text)| text).find(|text| !text.starts_with("WARNING")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Option<String> {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        reason(&lines, SocketAddr::from(([192, 168, 0, 4], 6379)))
    }

    #[test]
    fn last_words_are_understood() {
        let date = "12:M 22 Nov 2026 20:48:00.000 #";
        let bind = format!(
            "{date} Warning: Could not create server TCP listening socket 127.0.0.1:6379: bind: Address already in use"
        );
        let abort = format!("{date} Failed listening on port 6379 (TCP), aborting.");
        assert_eq!(said(&[&bind, &abort]).as_deref(), Some("127.0.0.1:6379 is in use by another process"));
        assert_eq!(said(&["x", &abort]).as_deref(), Some("Failed listening on port 6379 (TCP), aborting."));
        let fatal = ["*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***", "Reading the configuration file, at line 3"];
        assert_eq!(said(&fatal).as_deref(), Some("Reading the configuration file, at line 3"));
        assert_eq!(said(&["12:M 22 Nov 2026 20:48:00.000 * Ready to accept connections"]), None);
    }

    #[test]
    fn the_file_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = directory.path().to_owned();
        let keeper = std::thread::spawn(move || keep(reader, &path));
        let line = format!("{}\n", "x".repeat(1_023));
        for _ in 0..2_500 {
            writer.write_all(line.as_bytes()).unwrap();
        }
        writer.write_all(b"the end").unwrap();
        drop(writer);
        assert_eq!(keeper.join().unwrap().last().map(String::as_str), Some("the end"));
        for name in ["redis.log", "redis.log.1"] {
            assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= FILE_MAX, "{name}");
        }
    }
}
