//! State that survives a restart: postcard behind a header, replaced as a whole or not at all. What an older build wrote is read;
//! what a newer one wrote is refused, and left as it is.
//!
//! ```text
//! "vigie\0" | kind, 2 bytes | version, 1 byte | length, u32 LE | CRC-32 (IEEE), u32 LE | body, postcard
//! ```

use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;

use super::private;
use super::replace::{ReplaceError, Rights, replace};

const MAGIC: &[u8; 6] = b"vigie\0";
const HEADER: usize = 17;
/// A directory in use is tried again for so long.
pub const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// State that can be stored, and the layouts in which it ever was.
pub trait Record: Sized {
    /// Two letters that tell the kinds of files apart.
    const KIND: [u8; 2];
    /// The newest version of the layout. This one and all before it, from 1, are read.
    const VERSION: u8;
    /// What it means to go on without an unreadable file, and how: for a person.
    const WITHOUT: &'static str;

    /// The body, in the oldest layout that has a place for all that it says, and the version of that: an older build, which has no use
    /// for the rest, can go on with it.
    fn encode(&self) -> Result<(u8, Vec<u8>), postcard::Error>;

    /// What a body in that version says, 1 to [`Self::VERSION`].
    fn decode(version: u8, body: &[u8]) -> Result<Self, Unreadable>;
}

/// Why a body is not what its header says, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be decoded: {0}")]
pub struct Unreadable(String);

impl Unreadable {
    /// For this reason.
    pub fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }

    /// There is no such version.
    pub fn version(version: u8) -> Self {
        Self(format!("there is no version {version} of its layout"))
    }

    /// A body in the layout `L`, of which nothing may be left over.
    pub fn unless_whole<L: DeserializeOwned>(body: &[u8]) -> Result<L, Self> {
        match postcard::take_from_bytes(body) {
            Ok((layout, [])) => Ok(layout),
            Ok((_, behind)) => Err(Self(format!("{} bytes too many", behind.len()))),
            Err(error) => Err(Self::new(error)),
        }
    }
}

/// A place for one piece of state.
#[derive(Clone, Debug)]
pub struct Store<T> {
    path: PathBuf,
    holds: PhantomData<T>,
}

/// Why state could not be read or written. Nothing is ever half-read or half-written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("state file {path}: cannot {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not what this build, or one before it, wrote.
    #[error("{path}: {fault}; {without}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        fault: String,
        /// What it means to go on without the file, and how.
        without: &'static str,
    },
    /// The state cannot be encoded.
    #[error("{path}: cannot encode the state: {fault}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why not.
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

impl<T: Record> Store<T> {
    /// State at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), holds: PhantomData }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the state; none if there is no file yet.
    pub fn load(&self) -> Result<Option<T>, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io("read it", source)),
        };
        let fault = |fault| StoreError::Content { path: self.path.clone(), fault, without: T::WITHOUT };
        decode(&bytes).map(Some).map_err(fault)
    }

    /// Replaces the state as a whole or not at all. Returns when it is on disk.
    pub fn save(&self, state: &T) -> Result<(), StoreError> {
        let fault = |fault| StoreError::Encode { path: self.path.clone(), fault };
        let (version, body) = state.encode().map_err(|error| fault(error.to_string()))?;
        let length = u32::try_from(body.len()).map_err(|_| fault("it exceeds 4 GiB".to_owned()))?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&T::KIND);
        bytes.push(version);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&checksum(version, &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        replace(&self.path, &bytes, Rights::Mode(0o600))
            .map_err(|ReplaceError { action, source }| self.io(action, source))
    }

    fn io(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), action, source }
    }
}

fn decode<T: Record>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() < HEADER || &bytes[..6] != MAGIC {
        return Err("not a state file of vigie, or torn at its start".to_owned());
    }
    if bytes[6..8] != T::KIND {
        return Err(format!(
            "holds state of kind {:?}, kind {:?} is expected",
            String::from_utf8_lossy(&bytes[6..8]),
            String::from_utf8_lossy(&T::KIND)
        ));
    }
    let version = bytes[8];
    if version > T::VERSION {
        return Err(format!(
            "version {version} of its layout was written by a newer vigie, and this one reads no more than version {}: start that \
             one again",
            T::VERSION
        ));
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let body = &bytes[HEADER..];
    if u32::try_from(body.len()) != Ok(number(9)) {
        return Err(format!("torn: {} bytes of {}", body.len(), number(9)));
    }
    if checksum(version, body) != number(13) {
        return Err("damaged: its checksum does not match".to_owned());
    }
    T::decode(version, body).map_err(|error| error.to_string())
}

/// The checksum of a body in that version. From the second on it is of the version, too: a flipped bit must not have it read as
/// another one.
fn checksum(version: u8, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if version > 1 {
        crc.update(&[version]);
    }
    crc.update(body);
    crc.finalize()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt;

    use super::*;

    /// Asserts that files with these contents, in hexadecimal digits, hold these records, and are written alike if they are written in
    /// that version.
    pub(crate) fn assert_layout<T: Record + PartialEq + fmt::Debug>(version: u8, files: &[&str], records: &[T]) {
        assert_eq!(files.len(), records.len());
        let directory = tempfile::tempdir().unwrap();
        for (file, record) in files.iter().zip(records) {
            let digits = |at: usize| u8::from_str_radix(&file[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..file.len()).step_by(2).map(digits).collect();
            assert_eq!(bytes[8], version);
            let store = Store::<T>::new(directory.path().join("record"));
            fs::write(store.path(), &bytes).unwrap();
            assert_eq!(store.load().unwrap().as_ref(), Some(record), "{file}");
            store.save(record).unwrap();
            assert_eq!(store.load().unwrap().as_ref(), Some(record));
            if record.encode().unwrap().0 == version {
                assert_eq!(fs::read(store.path()).unwrap(), bytes, "the layout has drifted");
            }
        }
    }

    /// A record whose layout has changed twice: a number, then a text with it, then the text as what it says.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Told {
        number: u32,
        text: Option<String>,
    }

    impl Record for Told {
        const KIND: [u8; 2] = *b"xx";
        const VERSION: u8 = 3;
        const WITHOUT: &'static str = "without it nothing is told: move the file away";

        fn encode(&self) -> Result<(u8, Vec<u8>), postcard::Error> {
            Ok((3, postcard::to_allocvec(&(&self.text, u64::from(self.number)))?))
        }

        fn decode(version: u8, body: &[u8]) -> Result<Self, Unreadable> {
            match version {
                1 => Ok(Self { number: Unreadable::unless_whole(body)?, text: None }),
                2 => {
                    let (number, text) = Unreadable::unless_whole::<(u32, String)>(body)?;
                    Ok(Self { number, text: Some(text) })
                }
                3 => {
                    let (text, number) = Unreadable::unless_whole::<(_, u64)>(body)?;
                    Ok(Self { number: u32::try_from(number).map_err(Unreadable::new)?, text })
                }
                _ => Err(Unreadable::version(version)),
            }
        }
    }

    fn told() -> Told {
        Told { number: 7, text: Some("seven".to_owned()) }
    }

    fn stored(directory: &tempfile::TempDir) -> Store<Told> {
        let store = Store::new(directory.path().join("state"));
        store.save(&told()).unwrap();
        store
    }

    /// A file of that version with that body, whole and undamaged.
    fn file(version: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        [&MAGIC[..], b"xx", &[version], &length, &checksum(version, body).to_le_bytes(), body].concat()
    }

    #[test]
    fn state_round_trips_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let store = stored(&directory);
        assert_eq!(store.load().unwrap(), Some(told()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(Store::<Told>::new(directory.path().join("none")).load().unwrap(), None);
    }

    #[test]
    fn what_older_builds_wrote_is_read_and_written_in_the_newest_version() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::<Told>::new(directory.path().join("state"));
        for (version, body, text) in [(1, &b"\x07"[..], None), (2, b"\x07\x05seven", Some("seven".to_owned()))] {
            fs::write(store.path(), file(version, body)).unwrap();
            let read = store.load().unwrap().unwrap();
            assert_eq!(read, Told { number: 7, text });
            store.save(&read).unwrap();
            assert_eq!(fs::read(store.path()).unwrap()[8], 3);
            assert_eq!(store.load().unwrap(), Some(read));
        }
    }

    #[test]
    fn what_a_newer_build_wrote_is_refused_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = stored(&directory);
        for version in [4, u8::MAX] {
            let bytes = file(version, b"\x07\x05seven");
            fs::write(store.path(), &bytes).unwrap();
            let said = store.load().unwrap_err().to_string();
            let why = format!(
                "version {version} of its layout was written by a newer vigie, and this one reads no more than version 3: \
                 start that one again; without it nothing is told: move the file away"
            );
            assert!(said.ends_with(&why), "{said}");
            assert_eq!(fs::read(store.path()).unwrap(), bytes);
        }
    }

    #[test]
    fn nothing_is_half_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::<Told>::new(directory.path().join("state"));
        let wrong: [(u8, &[u8]); 6] = [
            // No such version; too short; more than there should be; of another version; a number out of range.
            (0, b"\x07"),
            (1, b""),
            (1, b"\x07\x00"),
            (1, b"\x07\x05seven"),
            (2, b"\x07\x05sev"),
            (3, b"\x00\xff\xff\xff\xff\xff\x01"),
        ];
        for (version, body) in wrong {
            fs::write(store.path(), file(version, body)).unwrap();
            let said = store.load().unwrap_err().to_string();
            assert!(said.contains("cannot be decoded: "), "version {version}, {body:?}: {said}");
        }
    }

    #[test]
    fn torn_damaged_and_foreign_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = stored(&directory);
        let whole = fs::read(store.path()).unwrap();
        for length in 0..whole.len() {
            fs::write(store.path(), &whole[..length]).unwrap();
            assert!(store.load().is_err(), "torn at {length}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                fs::write(store.path(), &damaged).unwrap();
                assert!(store.load().is_err(), "damaged at {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_failing_save_leaves_the_old_state() {
        let directory = tempfile::tempdir().unwrap();
        // A name for which there is no longer one beside it.
        let store = Store::<Told>::new(directory.path().join("s".repeat(255)));
        fs::rename(stored(&directory).path(), store.path()).unwrap();
        let said = store.save(&Told { number: 8, text: None }).unwrap_err().to_string();
        assert!(said.contains("cannot create a temporary file beside it"), "{said}");
        assert_eq!(store.load().unwrap(), Some(told()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
