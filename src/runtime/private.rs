//! Directories and files that nobody else may have made or may change: a lock that somebody put there as a link would have
//! vigie write into what it points to, and a directory that others can write is theirs.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::unistd::geteuid;

/// Nobody else may list it or write there; a server under another user may pass through to what it is given.
const DIRECTORY_MODE: u32 = 0o711;
/// Permission bits that let others than the owner change something.
const OTHERS_WRITE: u32 = 0o022;

/// Makes a directory, if it is not there, and makes sure that only its owner can put something into it.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    let about = fs::metadata(path)?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        let said = format!("others can write there (mode {mode:04o}); run: chmod go-w {}", path.display());
        return Err(io::Error::other(said));
    }
    owned(&about)
}

/// Opens a file for reading and writing, made if it is not there. What is no file of this user's own, or has another name
/// too, is left alone.
pub fn file(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(mode);
    // What is no file must not be waited for either, such as a pipe.
    let opened = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a symbolic link; a regular file is expected"),
        _ => error,
    })?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if about.nlink() != 1 {
        return Err(io::Error::other(format!("it has {} names (hard links); 1 is expected", about.nlink())));
    }
    owned(&about)?;
    Ok(file)
}

fn owned(about: &Metadata) -> io::Result<()> {
    let own = geteuid().as_raw();
    if about.uid() == own {
        return Ok(());
    }
    Err(io::Error::other(format!("it belongs to user {}; user {own}, that runs vigie, is expected", about.uid())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn said<T: std::fmt::Debug>(result: io::Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_made_and_opened_again_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for _ in 0..2 {
            file(&at("lock"), 0o600).unwrap();
        }
        assert_eq!(fs::metadata(at("lock")).unwrap().mode() & 0o7777, 0o600);
        fs::write(at("precious"), "data").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        assert!(said(file(&at("link"), 0o600)).contains("symbolic link"));
        symlink(at("none"), at("dangling")).unwrap();
        assert!(said(file(&at("dangling"), 0o600)).contains("symbolic link"));
        assert!(!at("none").exists());
        fs::hard_link(at("precious"), at("second")).unwrap();
        assert!(said(file(&at("second"), 0o600)).contains("2 names"));
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        assert!(said(file(&at("pipe"), 0o600)).contains("not a regular file"));
        assert_eq!(fs::read_to_string(at("precious")).unwrap(), "data");
    }

    #[test]
    fn a_directory_of_others_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o711);
        for (mode, right) in [(0o755, true), (0o775, false), (0o1777, false), (0o700, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(directory(&path).is_ok(), right, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o757)).unwrap();
        assert!(said(directory(&path)).starts_with("others can write there (mode 0757); run: chmod go-w /"));
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        file(&at("lock"), 0o600).unwrap();
        fs::create_dir(at("dir")).unwrap();
        for name in ["lock", "dir"] {
            std::os::unix::fs::chown(at(name), Some(65_534), None).unwrap();
        }
        for said in [said(file(&at("lock"), 0o600)), said(super::directory(&at("dir")))] {
            assert_eq!(said, "it belongs to user 65534; user 0, that runs vigie, is expected");
        }
    }
}
