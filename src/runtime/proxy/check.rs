//! The proof of a master: connect, authenticate, ask for its role.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::base::Secret;
use crate::base::secret::CHECK_USER;
use crate::cores::proxy::route::CheckFault;
use crate::runtime::connection::{Connection, ConnectionError};
use crate::runtime::peers::Presence;
use crate::wire::resp::Reply;

/// Proves, within `limit`, that the redis at `address` calls itself a master; without a password only that somebody is there.
/// The password is told only where the node is `present`.
pub(super) async fn check(
    address: SocketAddr,
    password: Option<&Secret>,
    present: Option<Presence>,
    limit: Duration,
) -> Result<(), CheckFault> {
    let asked = timeout(limit, ask(address, password, present, limit)).await;
    asked.unwrap_or_else(|_| Err(CheckFault::Unclear(format!("no answer from {address} within {limit:?}"))))
}

async fn ask(
    address: SocketAddr,
    password: Option<&Secret>,
    present: Option<Presence>,
    limit: Duration,
) -> Result<(), CheckFault> {
    let mut connection = Connection::open(address, limit).await.map_err(fault)?;
    let Some(password) = password else { return Ok(()) };
    if let Some(mut present) = present {
        present.show(address, limit).await.map_err(|error| CheckFault::Unclear(error.to_string()))?;
    }
    let reply = connection.ask(&["AUTH", CHECK_USER, password.reveal()], limit).await.map_err(fault)?;
    if !reply.is_ok() {
        return Err(unfit("AUTH", &reply));
    }
    let reply = connection.ask(&["ROLE"], limit).await.map_err(fault)?;
    match reply.array().and_then(<[Reply]>::first).and_then(Reply::text) {
        Some("master") => Ok(()),
        Some(role) => Err(CheckFault::NotMaster(role.chars().take(32).collect())),
        None => Err(unfit("ROLE", &reply)),
    }
}

fn fault(error: ConnectionError) -> CheckFault {
    match error {
        ConnectionError::Io { source, .. } if source.kind() == ErrorKind::ConnectionRefused => CheckFault::Refused,
        ConnectionError::Io { source, .. } if is_our_lack(&source) => CheckFault::Busy(format!("cannot ask: {source}")),
        other @ (ConnectionError::Io { .. } | ConnectionError::Timeout { .. } | ConnectionError::Malformed { .. }) => {
            CheckFault::Unclear(other.to_string())
        }
    }
}

/// Whether this node lacks something to ask with.
fn is_our_lack(error: &io::Error) -> bool {
    use libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// A reply that is not the expected one. A redis that is busy with a script, or has no room for one more client, says so
/// and works all the same for those that it has.
fn unfit(asked: &str, reply: &Reply) -> CheckFault {
    let Reply::Error(text) = reply else { return CheckFault::Unclear(format!("an unexpected reply to {asked}")) };
    let text: String = text.chars().take(120).collect();
    if text.starts_with("BUSY ") || text.starts_with("ERR max number of clients") {
        CheckFault::Busy(text)
    } else {
        CheckFault::Unclear(format!("{asked}: {text}"))
    }
}
