//! An order for a switchover, given on a node without a sentinel: carried to one that has one.

use std::net::SocketAddr;
use std::time::Duration;

use super::connection::{Connection, ConnectionError};
use crate::base::secret::CONTROL_USER;
use crate::base::{NodeName, Secret};
use crate::cores::sentinel::FailoverReport;
use crate::wire::resp::Reply;

const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// A switchover ends by itself long before this.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Orders the switchover of `master` at the first of `sentinels` that can be reached. Only a sentinel that was not given
/// the order is followed by another one.
pub async fn switchover(
    sentinels: impl Iterator<Item = SocketAddr>,
    secret: &Secret,
    master: &str,
    to: Option<&NodeName>,
) -> Result<FailoverReport, String> {
    let mut faults = Vec::new();
    for address in sentinels {
        match greeted(address, secret).await {
            Ok(connection) => {
                return ordered(connection, master, to).await.map_err(|fault| format!("{address}: {fault}"));
            }
            Err(fault) => faults.push(fault),
        }
    }
    Err(if faults.is_empty() { "no sentinel is heard".to_owned() } else { faults.join("; ") })
}

async fn greeted(address: SocketAddr, secret: &Secret) -> Result<Connection, String> {
    let said = |error: ConnectionError| error.to_string();
    let mut connection = Connection::open(address, CONNECT_LIMIT).await.map_err(said)?;
    match connection.ask(&["AUTH", CONTROL_USER, secret.reveal()], CONNECT_LIMIT).await.map_err(said)? {
        reply if reply.is_ok() => Ok(connection),
        other => Err(format!("{address} does not take the cluster's secret: {other:?}")),
    }
}

async fn ordered(mut connection: Connection, master: &str, to: Option<&NodeName>) -> Result<FailoverReport, String> {
    let mut args = vec!["SENTINEL", "SWITCHOVER", master];
    args.extend(to.map(NodeName::as_str));
    let reply = connection.ask(&args, ANSWER_LIMIT).await.map_err(|error| error.to_string())?;
    match &reply {
        Reply::Error(reason) => Err(reason.strip_prefix("ERR ").unwrap_or(reason).to_owned()),
        other => report(other).ok_or_else(|| format!("not understood: {other:?}")),
    }
}

fn report(reply: &Reply) -> Option<FailoverReport> {
    let [from, to, epoch, pause] = reply.array()? else { return None };
    let pause = pause.integer().and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros);
    Some(FailoverReport {
        from: from.text()?.parse().ok()?,
        from_node: None,
        to: to.text()?.parse().ok()?,
        to_node: None,
        epoch: u64::try_from(epoch.integer()?).ok()?,
        pause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_or_refused() {
        let text = |text: &'static str| Reply::Bulk(text.into());
        let whole = vec![text("10.0.0.1:6379"), text("10.0.0.2:6379"), Reply::Integer(7), Reply::Integer(1_500)];
        let read = report(&Reply::Array(whole.clone())).unwrap();
        assert_eq!((read.epoch, read.pause), (7, Some(Duration::from_micros(1_500))));
        for wrong in 0..3 {
            let mut changed = whole.clone();
            changed[wrong] = text("nonsense");
            assert_eq!(report(&Reply::Array(changed)), None, "{wrong}");
        }
        assert_eq!(report(&Reply::Array(whole[..3].to_vec())), None);
        assert_eq!(report(&Reply::Null), None);
    }
}
