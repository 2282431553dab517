//! The other end of the control socket: what `vigie status`, `why`, `events` and `failover` ask a running node.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::runtime::control::{Answer, Request, SOCKET_NAME, Switched};
use crate::runtime::exit::Exit;
use crate::runtime::journal::Record;
use crate::runtime::status::Status;
use crate::runtime::why::Why;

/// A node answers from memory: one that takes longer is stuck.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why a node could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot reach vigie at {socket}: {source}; {hint}")]
    Unreachable {
        /// The control socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to look at.
        hint: &'static str,
    },
    /// The connection broke, or nothing came in time.
    #[error("vigie at {socket} did not answer: {source}")]
    Silent {
        /// The control socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An answer this build does not understand.
    #[error("vigie at {socket} answered what this build does not understand ({source}); are both of the same version?")]
    Unreadable {
        /// The control socket.
        socket: PathBuf,
        /// Where the answer differs from what was expected.
        source: serde_json::Error,
    },
    /// The node understood and did not do it, in its own words.
    #[error("{0}")]
    Refused(String),
}

impl ClientError {
    /// How a command ends with this error: the answer was no, or there was none.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::No,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Unreadable { .. } => Exit::Unreachable,
        }
    }
}

/// The view of the node whose runtime directory this is.
pub fn status(runtime_dir: &Path) -> Result<Status, ClientError> {
    told(runtime_dir, &Request::Status)
}

/// Why there is, or is not, a failover, as the node whose runtime directory this is knows.
pub fn why(runtime_dir: &Path) -> Result<Why, ClientError> {
    told(runtime_dir, &Request::Why)
}

/// The one line that a request is answered by.
fn told<T: DeserializeOwned>(runtime_dir: &Path, request: &Request) -> Result<T, ClientError> {
    told_within(runtime_dir, request, ANSWER_TIME)
}

fn told_within<T: DeserializeOwned>(runtime_dir: &Path, request: &Request, limit: Duration) -> Result<T, ClientError> {
    let mut answers = ask(runtime_dir, request, Some(limit))?;
    let line = answers.line()?.ok_or_else(|| answers.silent(io::ErrorKind::UnexpectedEof.into()))?;
    // A refusal comes in place of the answer.
    match serde_json::from_str(&line) {
        Ok(Answer::Error(reason)) => Err(ClientError::Refused(reason)),
        Ok(Answer::Ok(_) | Answer::Said(_)) | Err(_) => answers.read(&line),
    }
}

/// A planned switchover, to the best replica or to a given node. Returns when it is done or aborted, at the latest
/// after `limit`.
pub fn failover(runtime_dir: &Path, to: Option<&str>, limit: Duration) -> Result<Switched, ClientError> {
    let mut answers = ask(runtime_dir, &Request::Failover { to: to.map(str::to_owned) }, Some(limit))?;
    let line = answers.line()?.ok_or_else(|| answers.silent(io::ErrorKind::UnexpectedEof.into()))?;
    match answers.read(&line)? {
        Answer::Ok(switched) => Ok(switched),
        Answer::Said(text) => Err(ClientError::Refused(text)),
        Answer::Error(reason) => Err(ClientError::Refused(reason)),
    }
}

/// Has the sentinel of the node take over what all others have; what was done, in words.
pub fn bootstrap(runtime_dir: &Path) -> Result<String, ClientError> {
    in_words(runtime_dir, &Request::Bootstrap, ANSWER_TIME)
}

/// Gives the redis of the node the writes without a majority; what was done, in words. With `risks` nothing is done: what it would
/// risk.
pub fn takeover(runtime_dir: &Path, risks: bool, limit: Duration) -> Result<String, ClientError> {
    in_words(runtime_dir, &Request::Takeover { risks }, limit)
}

fn in_words(runtime_dir: &Path, request: &Request, limit: Duration) -> Result<String, ClientError> {
    match told_within(runtime_dir, request, limit)? {
        Answer::Said(text) => Ok(text),
        Answer::Error(reason) => Err(ClientError::Refused(reason)),
        Answer::Ok(switched) => Ok(format!("{switched:?}")),
    }
}

/// What happened on the node, oldest first; with `follow` without an end, as it happens.
pub fn events(
    runtime_dir: &Path,
    follow: bool,
) -> Result<impl Iterator<Item = Result<Record, ClientError>> + use<>, ClientError> {
    let limit = (!follow).then_some(ANSWER_TIME);
    let mut answers = ask(runtime_dir, &Request::Events { follow }, limit)?;
    Ok(std::iter::from_fn(move || answers.line().transpose().map(|line| answers.read(&line?))))
}

/// Lines of one answer.
struct Answers {
    socket: PathBuf,
    reader: BufReader<UnixStream>,
}

fn ask(runtime_dir: &Path, request: &Request, limit: Option<Duration>) -> Result<Answers, ClientError> {
    let socket = runtime_dir.join(SOCKET_NAME);
    let unreachable = |source: io::Error| {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "no daemon has made this socket: does `vigie run` run, with this --runtime-dir?",
            io::ErrorKind::ConnectionRefused => "the daemon that made this socket is gone",
            io::ErrorKind::PermissionDenied => "only the user that runs vigie, or root, may ask it",
            _ => "does `vigie run` run, with this --runtime-dir?",
        };
        ClientError::Unreachable { socket: socket.clone(), source, hint }
    };
    let stream = UnixStream::connect(&socket).map_err(unreachable)?;
    let answers = Answers { socket, reader: BufReader::new(stream) };
    let mut line = serde_json::to_vec(request).map_err(|source| answers.unreadable(source))?;
    line.push(b'\n');
    let mut stream = answers.reader.get_ref();
    stream
        .set_read_timeout(limit)
        .and_then(|()| stream.set_write_timeout(Some(ANSWER_TIME)))
        .and_then(|()| stream.write_all(&line))
        .map_err(|source| answers.silent(source))?;
    Ok(answers)
}

impl Answers {
    fn line(&mut self) -> Result<Option<String>, ClientError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.silent(io::Error::new(io::ErrorKind::TimedOut, "nothing came in time")))
            }
            Err(source) => Err(self.silent(source)),
        }
    }

    fn read<T: DeserializeOwned>(&self, line: &str) -> Result<T, ClientError> {
        serde_json::from_str(line).map_err(|source| self.unreadable(source))
    }

    fn silent(&self, source: io::Error) -> ClientError {
        ClientError::Silent { socket: self.socket.clone(), source }
    }

    fn unreadable(&self, source: serde_json::Error) -> ClientError {
        ClientError::Unreadable { socket: self.socket.clone(), source }
    }
}

#[cfg(test)]
mod tests;
