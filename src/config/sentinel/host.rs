//! The machine that a file is read on.

use std::io;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

/// A file is never larger, bytes.
const FILE_MAX: u64 = 16 << 20;

/// What a file can be asked of the machine it is read on.
pub trait Host {
    /// Whether a process can work there; else why not.
    fn directory(&self, path: &Path) -> io::Result<()>;
    /// Whether it is a program that this process may run. Blocks as long as the file system does.
    fn is_executable(&self, path: &Path) -> bool;
    /// Files that `pattern`, a path whose last component may hold `*`, stands for.
    fn expand(&self, pattern: &str) -> Vec<String>;
    /// The content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct ThisHost;

impl Host for ThisHost {
    fn directory(&self, path: &Path) -> io::Result<()> {
        // The dot asks whether it can be entered, as `chdir` will.
        std::fs::metadata(path.join(".")).map(|_| ())
    }

    fn is_executable(&self, path: &Path) -> bool {
        // A directory may be "executed" too.
        std::fs::metadata(path).is_ok_and(|about| !about.is_dir()) && access(path, AccessFlags::X_OK).is_ok()
    }

    fn expand(&self, pattern: &str) -> Vec<String> {
        crate::config::include::expand(pattern)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let about = std::fs::metadata(path)?;
        if !about.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if about.len() > FILE_MAX {
            return Err(io::Error::other(format!("it has {} bytes, {FILE_MAX} are allowed", about.len())));
        }
        std::fs::read(path)
    }
}
