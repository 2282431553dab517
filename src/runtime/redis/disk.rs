//! What the data directory holds already, and whose it is. Redis reads either the append-only file or the snapshot, by its
//! setting, and ignores the other: after a change of the setting it would start empty, and as a master hand its emptiness on.
//!
//! The directory belongs to redis, and this process may be root: nothing in it is trusted. Names are opened from the directory
//! itself and never by way of a link, and no file is touched that may have a second name elsewhere.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, fchownat, geteuid};

use super::account::Account;

/// A data directory of redis has a handful of entries. One with more is something else.
const ENTRIES_MAX: usize = 65_536;
/// What a file system has of its own at its root.
const LOST: &CStr = c"lost+found";

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

/// A data directory, opened: whatever its name stands for later, this one is meant.
#[derive(Debug)]
pub(super) struct Data {
    directory: OwnedFd,
    path: PathBuf,
}

/// One of its entries, not opened yet.
struct Entry {
    name: CString,
    about: FileStat,
}

impl Entry {
    fn is(&self, kind: SFlag) -> bool {
        SFlag::from_bits_truncate(self.about.st_mode & SFlag::S_IFMT.bits()) == kind
    }

    fn ends_with(&self, end: &str) -> bool {
        self.name.to_bytes().ends_with(end.as_bytes())
    }
}

impl Data {
    /// Opens the directory. A link in its place counts if it was made by root or by whom this process runs as, and leads to
    /// what is theirs or `account`'s.
    pub(super) fn open(path: &Path, account: Option<&Account>) -> io::Result<Self> {
        let link = fs::symlink_metadata(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(path, flags, Mode::empty())?;
        if link.is_symlink() {
            let known = |uid: u32| uid == 0 || uid == geteuid().as_raw();
            if !known(link.uid()) {
                return Err(io::Error::other(format!("it is a link made by the user with number {}", link.uid())));
            }
            let owner = fstat(&directory)?.st_uid;
            if !known(owner) && account.is_none_or(|account| account.uid != owner) {
                return Err(io::Error::other(format!("it is a link to what belongs to the user with number {owner}")));
            }
        }
        Ok(Self { directory, path: path.to_owned() })
    }

    /// For the process that shall work in it.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.directory
    }

    /// Looks into it. Redis 7 and Valkey keep the append-only file as several ones that a manifest names, in a directory of
    /// their own; older servers as one file, which is empty until its first rewrite.
    pub(super) fn look(&self) -> io::Result<Found> {
        let mut found = Found::Nothing;
        for entry in entries(&self.directory)? {
            let manifest = entry.is(SFlag::S_IFDIR) && self.has_manifest(&entry);
            let file = entry.is(SFlag::S_IFREG);
            if manifest || file && entry.ends_with(".aof") && entry.about.st_size > 0 {
                return Ok(Found::AppendOnly);
            }
            if file && entry.ends_with(".rdb") && !entry.name.to_bytes().starts_with(b"temp-") {
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
    pub(super) fn trim(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut trimmed = Vec::new();
        for directory in entries(&self.directory)?.into_iter().filter(|entry| entry.is(SFlag::S_IFDIR)) {
            if !self.has_manifest(&directory) {
                continue;
            }
            let part = subdirectory(&self.directory, &directory.name)?;
            for entry in entries(&part)?.into_iter().filter(|entry| entry.ends_with(".incr.aof")) {
                // Whatever its name leads to now: only a plain file that has no other name is written to.
                let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
                let Ok(file) = openat(&part, entry.name.as_c_str(), flags, Mode::empty()) else { continue };
                let file = fs::File::from(file);
                let about = file.metadata()?;
                if !about.is_file() || about.nlink() != 1 {
                    continue;
                }
                let zeros = zeros_at_end(&file, about.len())?;
                if zeros > 0 {
                    file.set_len(about.len() - zeros)?;
                    file.sync_all()?;
                    trimmed.push((self.place(&directory, Some(&entry)), zeros));
                }
            }
        }
        Ok(trimmed)
    }

    /// Makes `account` the owner of the directory, of the files in it, and of the directories in it that hold nothing but
    /// files. Returns how many had another owner.
    pub(super) fn hand_over(&self, account: &Account) -> io::Result<usize> {
        let own = fstat(&self.directory)?;
        let all = entries(&self.directory)?;
        if own.st_uid != account.uid && !self.is_of_redis(&all) {
            let said =
                "it holds files, and none of them is of redis; name a directory of its own, or make it belong to";
            return Err(io::Error::other(format!("{said} {}", account.name)));
        }
        let mut changed = 0;
        for entry in &all {
            if entry.about.st_dev != own.st_dev {
                continue;
            }
            if entry.is(SFlag::S_IFREG) {
                changed += give(&self.directory, entry, account)?;
            } else if entry.is(SFlag::S_IFDIR) && entry.name.as_c_str() != LOST {
                let part = subdirectory(&self.directory, &entry.name)?;
                let inner = entries(&part)?;
                if inner.iter().all(|entry| entry.is(SFlag::S_IFREG)) {
                    for file in &inner {
                        changed += give(&part, file, account)?;
                    }
                    changed += give(&self.directory, entry, account)?;
                }
            }
        }
        // The last one: if this is interrupted, the next start goes on with it.
        if own.st_uid != account.uid {
            nix::unistd::fchown(&self.directory, Some(Uid::from_raw(account.uid)), Some(Gid::from_raw(account.gid)))?;
            changed += 1;
        }
        Ok(changed)
    }

    /// Nothing, or something that redis leaves: what belongs to others is not handed over by a slip of the pen.
    fn is_of_redis(&self, entries: &[Entry]) -> bool {
        let mut entries = entries.iter().filter(|entry| entry.name.as_c_str() != LOST).peekable();
        let trace = |entry: &Entry| {
            entry.ends_with(".rdb") || entry.ends_with(".aof") || entry.is(SFlag::S_IFDIR) && self.has_manifest(entry)
        };
        entries.peek().is_none() || entries.any(trace)
    }

    /// A directory that cannot be read is not one of redis.
    fn has_manifest(&self, directory: &Entry) -> bool {
        let inner = subdirectory(&self.directory, &directory.name).and_then(|inner| entries(&inner));
        inner.is_ok_and(|inner| inner.iter().any(|entry| entry.ends_with(".manifest")))
    }

    fn place(&self, directory: &Entry, file: Option<&Entry>) -> PathBuf {
        let mut path = self.path.join(&*directory.name.to_string_lossy());
        path.extend(file.map(|file| file.name.to_string_lossy().into_owned()));
        path
    }
}

fn subdirectory(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// What is in a directory now. Entries that go meanwhile are left out.
fn entries(directory: &OwnedFd) -> io::Result<Vec<Entry>> {
    // Opened for itself: a duplicate would share its place in the list with every other one.
    let mut list =
        Dir::openat(directory, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut found = Vec::new();
    for entry in list.iter() {
        let name = entry?.file_name().to_owned();
        if [c".", c".."].contains(&name.as_c_str()) {
            continue;
        }
        if found.len() == ENTRIES_MAX {
            return Err(io::Error::other(format!("it has more than {ENTRIES_MAX} entries")));
        }
        if let Ok(about) = nix::sys::stat::fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            found.push(Entry { name, about });
        }
    }
    Ok(found)
}

/// Makes `account` the owner of what that name stands for now, if that is a directory or a file without a second name. Returns
/// how many had another owner: one or none.
fn give(parent: &OwnedFd, entry: &Entry, account: &Account) -> io::Result<usize> {
    if entry.about.st_uid == account.uid {
        return Ok(0);
    }
    let flags = OFlag::from_bits_retain(libc::O_PATH) | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let held = openat(parent, entry.name.as_c_str(), flags, Mode::empty())?;
    let about = fstat(&held)?;
    let kind = SFlag::from_bits_truncate(about.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFDIR && !(kind == SFlag::S_IFREG && about.st_nlink == 1) {
        return Ok(0);
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    fchownat(held.as_fd(), c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
    Ok(1)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(directory: &Path) -> Data {
        Data::open(directory, None).unwrap()
    }

    #[test]
    fn data_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let look = || open(directory.path()).look().unwrap();
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
            assert_eq!(open(directory.path()).trim().unwrap(), expected);
            assert_eq!(fs::read(&incr).unwrap(), whole);
        }
        fs::write(&incr, [0; 5_000]).unwrap();
        assert_eq!(open(directory.path()).trim().unwrap(), [(incr.clone(), 5_000)]);
        assert_eq!((fs::read(&incr).unwrap().len(), fs::read(&base).unwrap().len()), (0, 8));
        fs::remove_dir_all(part).unwrap();
        assert_eq!(open(directory.path()).trim().unwrap(), []);
    }

    #[test]
    fn nothing_is_written_by_way_of_a_link() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let part = directory.path().join("appendonlydir");
        fs::create_dir(&part).unwrap();
        fs::write(part.join("appendonly.aof.manifest"), "x").unwrap();
        let theirs = elsewhere.path().join("theirs");
        fs::write(&theirs, [0; 9]).unwrap();
        symlink(&theirs, part.join("a.1.incr.aof")).unwrap();
        fs::hard_link(&theirs, part.join("a.2.incr.aof")).unwrap();
        nix::unistd::mkfifo(&part.join("a.3.incr.aof"), Mode::S_IRWXU).unwrap();
        assert_eq!(open(directory.path()).trim().unwrap(), []);
        // The whole part may be elsewhere, too.
        let other = elsewhere.path().join("part");
        fs::rename(&part, &other).unwrap();
        fs::write(other.join("a.4.incr.aof"), [0; 9]).unwrap();
        symlink(&other, &part).unwrap();
        let data = open(directory.path());
        assert_eq!((data.look().unwrap(), data.trim().unwrap()), (Found::Nothing, vec![]));
        assert_eq!(fs::read(&theirs).unwrap(), [0; 9]);
    }

    #[test]
    fn files_are_handed_over_and_nothing_beyond_them() {
        if !geteuid().is_root() {
            println!("skipped: only root can hand a file over");
            return;
        }
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| directory.path().join(name);
        let account = Account { name: "someone".to_owned(), uid: 4_321, gid: 4_322 };
        let hand_over = || open(directory.path()).hand_over(&account);
        let owner = |path: &Path| fs::symlink_metadata(path).map(|about| (about.uid(), about.gid())).unwrap();
        let theirs = elsewhere.path().join("theirs");
        fs::write(&theirs, "x").unwrap();

        fs::write(at("thesis.txt"), "x").unwrap();
        let refused = hand_over().unwrap_err().to_string();
        assert!(refused.contains("none of them is of redis"), "{refused}");
        assert_eq!(owner(directory.path()).0, 0);

        for part in ["appendonlydir", "lost+found", "deep/er"] {
            fs::create_dir_all(at(part)).unwrap();
        }
        for file in ["dump.rdb", "appendonlydir/appendonly.aof.manifest", "deep/x"] {
            fs::write(at(file), "x").unwrap();
        }
        symlink(&theirs, at("link.rdb")).unwrap();
        symlink(elsewhere.path(), at("part")).unwrap();
        fs::hard_link(&theirs, at("second.rdb")).unwrap();
        // The directory and what it holds, one part and what that holds.
        assert_eq!(hand_over().unwrap(), 5);
        for given in ["", "dump.rdb", "thesis.txt", "appendonlydir", "appendonlydir/appendonly.aof.manifest"] {
            assert_eq!(owner(&at(given)), (4_321, 4_322), "{given}");
        }
        for kept in ["link.rdb", "part", "second.rdb", "lost+found", "deep", "deep/x"] {
            assert_eq!(owner(&at(kept)).0, 0, "{kept}");
        }
        assert_eq!((owner(&theirs).0, owner(elsewhere.path()).0), (0, 0));
        assert_eq!(hand_over().unwrap(), 0, "once");
    }

    #[test]
    fn a_link_counts_by_who_made_it_and_where_it_leads() {
        if !geteuid().is_root() {
            println!("skipped: only root can make what belongs to others");
            return;
        }
        let (directory, real) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = directory.path().join("redis");
        symlink(real.path(), &link).unwrap();
        let account = |uid| Account { name: "someone".to_owned(), uid, gid: uid };
        let opened = |uid| Data::open(&link, Some(&account(uid))).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(opened(4_321), Ok(()));
        std::os::unix::fs::chown(real.path(), Some(4_321), None).unwrap();
        assert_eq!(opened(4_321), Ok(()));
        assert!(opened(4_322).unwrap_err().contains("belongs to the user with number 4321"));
        std::os::unix::fs::lchown(&link, Some(4_321), None).unwrap();
        assert!(opened(4_321).unwrap_err().contains("a link made by the user with number 4321"));
    }
}
