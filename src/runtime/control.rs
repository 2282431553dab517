//! The control socket of a node: one request a line, answers as lines of JSON.
//!
//! `{"request":"status"}` · `{"request":"events","follow":true}` · `{"request":"failover","to":"redis-02"}` ·
//! `{"request":"why"}` · `{"request":"bootstrap"}` ·
//! `{"request":"takeover","risks":true}`

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, watch};

use super::journal::Journal;
use super::status::Status;
use super::why::Why;
use crate::base::NodeName;

/// Longest request, bytes.
const REQUEST_MAX: u64 = 4_096;
/// A caller has so long to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Name of the socket in the runtime directory.
pub const SOCKET_NAME: &str = "control.sock";

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The view of this node; answered by a [`Status`].
    Status,
    /// What has happened; answered by one line per record.
    Events {
        /// Whether to go on with what happens next.
        #[serde(default)]
        follow: bool,
    },
    /// A planned switchover; answered when it is done or aborted.
    Failover {
        /// The new master; none: the best replica.
        #[serde(default)]
        to: Option<String>,
    },
    /// Why there is, or is not, a failover; answered by a [`Why`].
    Why,
    /// The sentinel of this node takes over what all others have.
    Bootstrap,
    /// The redis of this node takes writes without a majority.
    Takeover {
        /// Only says what that risks.
        #[serde(default)]
        risks: bool,
    },
}

/// The last line of an answer that is not a status, a record or a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Done.
    Ok(Switched),
    /// Done; what was, in words.
    Said(String),
    /// Refused or aborted, and why.
    Error(String),
}

/// What a switchover did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// The master before.
    pub from: String,
    /// The master now.
    pub to: String,
    /// Configuration epoch of the new master.
    pub epoch: u64,
    /// How long writes were held back at the old master, microseconds; none if it could not be asked to.
    pub pause_us: Option<u64>,
}

/// What the control socket asks of the rest of the node.
pub trait Node: Clone + 'static {
    /// The current status.
    fn status(&self) -> Status;
    /// Carries out a planned switchover; returns when it is done or aborted.
    fn failover(&self, to: Option<NodeName>) -> impl Future<Output = Result<Switched, String>>;
    /// Why there is, or is not, a failover.
    fn why(&self) -> impl Future<Output = Result<Why, String>>;
    /// Has the sentinel of this node take over what all others have.
    fn bootstrap(&self) -> impl Future<Output = Result<String, String>>;
    /// Gives the redis of this node the writes without a majority, or says what that risks.
    fn takeover(&self, risks: bool) -> impl Future<Output = Result<String, String>>;
}

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("control socket {path}: {source}")]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

/// Opens the control socket in `runtime_dir`, which only root or the owner of the process may use. A socket left there is
/// replaced: the lock of the runtime directory is held by this process.
pub fn open(runtime_dir: &Path) -> Result<UnixListener, ControlError> {
    let path = runtime_dir.join(SOCKET_NAME);
    let fault = |source| ControlError { path: path.clone(), source };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(fault)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(fault)?;
    Ok(listener)
}

/// Asks the node of this runtime directory for its status, as any caller would; it is thrown away.
pub async fn ask_status(runtime_dir: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(runtime_dir.join(SOCKET_NAME)).await?;
    let mut line = serde_json::to_vec(&Request::Status)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    match BufReader::new(stream).read_until(b'\n', &mut answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Serves callers until `stop`. Must run inside a [`tokio::task::LocalSet`].
pub async fn serve(listener: UnixListener, node: impl Node, journal: Journal, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors, for one: other callers may leave.
                let Ok((stream, _)) = accepted else { tokio::time::sleep(Duration::from_millis(100)).await; continue };
                let (node, journal) = (node.clone(), journal.clone());
                // A caller that has gone is no concern of ours.
                tokio::task::spawn_local(async move { drop(answer(stream, &node, &journal).await) });
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn answer(mut stream: UnixStream, node: &impl Node, journal: &Journal) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(REQUEST_MAX));
    tokio::time::timeout(REQUEST_TIME, reader.read_line(&mut line)).await??;
    match serde_json::from_str(&line) {
        Ok(Request::Status) => say(&mut stream, &node.status()).await,
        Ok(Request::Events { follow }) => events(&mut stream, journal, follow).await,
        Ok(Request::Failover { to }) => {
            let to = to.map(|name| name.parse::<NodeName>()).transpose();
            let answer = match to {
                Err(error) => Answer::Error(error.to_string()),
                Ok(to) => node.failover(to).await.map_or_else(Answer::Error, Answer::Ok),
            };
            say(&mut stream, &answer).await
        }
        Ok(Request::Why) => match node.why().await {
            Ok(why) => say(&mut stream, &why).await,
            Err(reason) => say(&mut stream, &Answer::Error(reason)).await,
        },
        Ok(Request::Bootstrap) => {
            let answer = node.bootstrap().await.map_or_else(Answer::Error, Answer::Said);
            say(&mut stream, &answer).await
        }
        Ok(Request::Takeover { risks }) => {
            let answer = node.takeover(risks).await.map_or_else(Answer::Error, Answer::Said);
            say(&mut stream, &answer).await
        }
        Err(error) => say(&mut stream, &Answer::Error(format!("not a request: {error}"))).await,
    }
}

async fn events(stream: &mut UnixStream, journal: &Journal, follow: bool) -> io::Result<()> {
    let (kept, mut coming) = journal.follow();
    for record in kept {
        say(stream, &record).await?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        let mut gone = [0];
        let record = tokio::select! {
            record = coming.recv() => record,
            // A follower says nothing more; what comes is its end.
            _ = stream.read(&mut gone) => return Ok(()),
        };
        match record {
            Ok(record) => say(stream, &record).await?,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

async fn say(stream: &mut UnixStream, answer: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
