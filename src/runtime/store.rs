//! State that survives a restart: postcard behind a header, replaced as a whole or not at all.
//!
//! ```text
//! "vigie\0" | kind, 2 bytes | version, 1 byte | length, u32 LE | CRC-32 (IEEE) of the body, u32 LE | body, postcard
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};

use super::private;

const MAGIC: &[u8; 6] = b"vigie\0";
const HEADER: usize = 17;
/// A directory in use is tried again for so long.
pub const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// What kind of state a file holds, and in which version of its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Two letters that tell the kinds apart.
    pub name: [u8; 2],
    /// Grows when the layout of the body changes.
    pub version: u8,
}

/// A place for one piece of state.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    kind: Kind,
}

/// Why state could not be read or written. Nothing is ever half-read or half-written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: cannot {action} the state file: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not what this build wrote.
    #[error("{path}: {fault}; move the file away to start without this state")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        fault: String,
    },
}

/// A state directory belongs to somebody else.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Two nodes with one record of votes would vote twice, and two redis with one directory destroy its data.
    #[error("another vigie uses the state directory {dir}; give this one another --state-dir", dir = dir.display())]
    Taken {
        /// The directory.
        dir: PathBuf,
    },
    /// The lock cannot be made.
    #[error("{path}: cannot make the lock: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Takes `dir` for this process alone, as long as the returned lock lives. Blocks for at most [`LOCK_WAIT`]: what a worker
/// that was killed had just forked may hold it for a moment longer.
pub fn lock(dir: &Path) -> Result<Flock<File>, LockError> {
    let path = dir.join("lock");
    let mut file = private::file(&path, 0o600).map_err(|source| LockError::Io { path: path.clone(), source })?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file,
            Err((_, Errno::EWOULDBLOCK)) => return Err(LockError::Taken { dir: dir.to_owned() }),
            Err((_, errno)) => return Err(LockError::Io { path, source: errno.into() }),
        };
        std::thread::sleep(LOCK_RETRY);
    }
}

impl Store {
    /// State of `kind` at `path`.
    pub fn new(path: impl Into<PathBuf>, kind: Kind) -> Self {
        Self { path: path.into(), kind }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the state; none if there is no file yet.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io("read", source)),
        };
        self.decode(&bytes).map(Some).map_err(|fault| StoreError::Content { path: self.path.clone(), fault })
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String> {
        if bytes.len() < HEADER || &bytes[..6] != MAGIC {
            return Err("not a state file of vigie, or torn at its start".to_owned());
        }
        let Kind { name, version } = self.kind;
        if bytes[6..8] != name {
            return Err(format!(
                "holds state of kind {:?}, kind {:?} is expected",
                String::from_utf8_lossy(&bytes[6..8]),
                String::from_utf8_lossy(&name)
            ));
        }
        if bytes[8] != version {
            return Err(format!("written in version {} of its layout, version {version} is expected", bytes[8]));
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let body = &bytes[HEADER..];
        if u32::try_from(body.len()) != Ok(number(9)) {
            return Err(format!("torn: {} bytes of {}", body.len(), number(9)));
        }
        if crc32(body) != number(13) {
            return Err("damaged: its checksum does not match".to_owned());
        }
        postcard::from_bytes(body).map_err(|error| format!("cannot be decoded: {error}"))
    }

    /// Replaces the state: temporary file beside it, fsync, rename, fsync of the directory. Returns when it is on disk.
    pub fn save<T: Serialize>(&self, state: &T) -> Result<(), StoreError> {
        let body = postcard::to_allocvec(state)
            .map_err(|error| StoreError::Content { path: self.path.clone(), fault: error.to_string() })?;
        let length = u32::try_from(body.len())
            .map_err(|_| StoreError::Content { path: self.path.clone(), fault: "state exceeds 4 GiB".to_owned() })?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.kind.name);
        bytes.push(self.kind.version);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        replace(&self.path, &bytes, 0o600).map_err(|source| self.io("write", source))
    }

    fn io(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), action, source }
    }
}

/// Replaces the file at `path` durably and as a whole.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left behind would only confuse: the error itself is what matters.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory)?.sync_all()
}

/// CRC-32 as in IEEE 802.3, bit by bit: state files are small.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { name: *b"xx", version: 3 };

    fn stored(directory: &tempfile::TempDir) -> Store {
        let store = Store::new(directory.path().join("state"), KIND);
        store.save(&(7u32, "seven".to_owned())).unwrap();
        store
    }

    #[test]
    fn crc_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn state_round_trips_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let store = stored(&directory);
        assert_eq!(store.load::<(u32, String)>().unwrap(), Some((7, "seven".to_owned())));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(Store::new(directory.path().join("none"), KIND).load::<u32>().unwrap(), None);
    }

    #[test]
    fn torn_damaged_and_foreign_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = stored(&directory);
        let whole = fs::read(store.path()).unwrap();
        for length in 0..whole.len() {
            fs::write(store.path(), &whole[..length]).unwrap();
            assert!(store.load::<(u32, String)>().is_err(), "torn at {length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            fs::write(store.path(), &damaged).unwrap();
            assert!(store.load::<(u32, String)>().is_err(), "damaged at {at}");
        }
        fs::write(store.path(), &whole).unwrap();
        let newer = Store::new(store.path(), Kind { version: 4, ..KIND });
        let said = newer.load::<(u32, String)>().unwrap_err().to_string();
        assert!(said.contains("version 3") && said.contains("version 4 is expected"), "{said}");
    }

    #[test]
    fn a_failing_save_leaves_the_old_state() {
        let directory = tempfile::tempdir().unwrap();
        let store = stored(&directory);
        fs::create_dir(directory.path().join("state.new")).unwrap();
        assert!(store.save(&(8u32, "eight".to_owned())).is_err());
        assert_eq!(store.load::<(u32, String)>().unwrap(), Some((7, "seven".to_owned())));
    }
}
