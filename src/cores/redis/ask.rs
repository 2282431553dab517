//! How an [`Ask`] is said to redis, and what its replies mean.

use super::{Answer, Ask, Info};
use crate::wire::resp::Reply;

impl Ask {
    /// The commands to send, each with its words. `secrets`: those that give redis the secrets that are valid now.
    pub fn commands(self, secrets: impl FnOnce() -> Vec<Vec<String>>) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Probe { identity } => {
                let all: [&[&str]; 5] = [
                    &["PING"],
                    &["INFO", "replication"],
                    &["INFO", "persistence"],
                    &["INFO", "keyspace"],
                    &["INFO", "server"],
                ];
                let asked = if identity { &all[..] } else { &all[..4] };
                asked.iter().copied().map(words).collect()
            }
            Self::Secrets => secrets(),
            Self::LogWrites => vec![words(&["CONFIG", "SET", "appendonly", "yes"])],
            Self::Follow { master, demote } => {
                let (host, port) = (master.ip().to_string(), master.port().to_string());
                let replicaof = words(&["REPLICAOF", &host, &port]);
                if !demote {
                    return vec![replicaof];
                }
                let kill = |kind: &str| words(&["CLIENT", "KILL", "TYPE", kind]);
                // Whoever held writes for a switchover may lose its connection here before it has released them; a replica
                // that holds writes holds its master's, too.
                let release = words(&["CLIENT", "UNPAUSE"]);
                vec![words(&["MULTI"]), replicaof, kill("normal"), kill("pubsub"), release, words(&["EXEC"])]
            }
        }
    }

    /// What the replies to its commands say, one to each.
    pub fn answer(self, replies: &[Reply]) -> Answer {
        if let Some(reason) = replies.iter().find_map(shut_out) {
            return Answer::ShutOut(reason);
        }
        match self {
            Self::Probe { .. } => looked(replies),
            Self::Secrets => all_done(replies),
            Self::LogWrites | Self::Follow { .. } => carried_out(replies),
        }
    }
}

fn error(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Error(text) => Some(text),
        Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => None,
    }
}

/// What redis says to somebody whom it does not know, or who may not do what he does; none: it lets him in.
pub fn shut_out(reply: &Reply) -> Option<String> {
    let text = error(reply)?;
    let refused = ["NOAUTH ", "WRONGPASS ", "NOPERM "].iter().any(|start| text.starts_with(start));
    refused.then(|| text.to_owned())
}

/// A redis that loads answers INFO all the same, one that is busy with a script answers nothing but that.
fn looked(replies: &[Reply]) -> Answer {
    let ping = replies.first().and_then(error).unwrap_or_default();
    if ping.starts_with("BUSY ") {
        return Answer::Busy;
    }
    let sections: Vec<&str> = replies.iter().skip(1).filter_map(Reply::text).collect();
    match Info::read(ping.starts_with("LOADING "), &sections.join("\r\n")) {
        Some(info) => Answer::Info(Box::new(info)),
        None => Answer::Refused(replies.iter().find_map(error).unwrap_or("INFO names no role").to_owned()),
    }
}

/// Each command counts.
fn all_done(replies: &[Reply]) -> Answer {
    match replies.iter().find_map(error) {
        None => Answer::Done,
        Some(reason) if reason.starts_with("BUSY ") || reason.starts_with("LOADING ") => Answer::Busy,
        Some(reason) => Answer::Refused(reason.to_owned()),
    }
}

/// The last command counts.
fn carried_out(replies: &[Reply]) -> Answer {
    match replies.last() {
        Some(Reply::Array(results)) => results.iter().find_map(error),
        last => last.and_then(error),
    }
    .map_or(Answer::Done, |error| {
        // EXEC only says that it was given up; what came before says why.
        let reason = replies.iter().find_map(self::error).unwrap_or(error);
        if reason.starts_with("BUSY ") { Answer::Busy } else { Answer::Refused(reason.to_owned()) }
    })
}
