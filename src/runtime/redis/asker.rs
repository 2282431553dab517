//! The supervisor's own connection to its redis: asks go out at once, answers come back in their order, however late.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::keeper::Numbered;
use super::users;
use crate::base::Secret;
use crate::base::secret::LOCAL_USER;
use crate::cores::redis::{Answer, Ask, Info, Input, Token};
use crate::runtime::connection::{Commands, Connection, ConnectionError, Replies};
use crate::wire::resp::Reply;

/// To connect on the same machine takes no time; only a full backlog makes it wait.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Carries asks to the redis at `address` and answers to `inputs`, until either side is gone. It logs in with what the last
/// process was given.
pub(super) async fn run(
    address: SocketAddr,
    password: watch::Receiver<Secret>,
    secrets: watch::Receiver<Numbered>,
    mut asks: mpsc::Receiver<(Token, Ask)>,
    inputs: mpsc::Sender<Input>,
) {
    let mut link: Option<Link> = None;
    loop {
        let happened = match &mut link {
            None => Happened::Ask(asks.recv().await),
            Some(link) => tokio::select! {
                ask = asks.recv() => Happened::Ask(ask),
                reply = link.replies.next() => Happened::Reply(reply),
            },
        };
        let result = match happened {
            Happened::Ask(None) => return,
            Happened::Ask(Some((token, ask))) => {
                if link.is_none() {
                    let password = password.borrow().clone();
                    match Link::open(address, &password).await {
                        Ok(opened) => link = Some(opened),
                        Err(error) => {
                            let answer = Answer::Unreachable(error.to_string());
                            if inputs.send(Input::Answer { token, answer }).await.is_err() {
                                return;
                            }
                        }
                    }
                }
                match &mut link {
                    Some(link) => link.ask(token, ask, &secrets).await,
                    None => Ok(()),
                }
            }
            Happened::Reply(Ok(reply)) => {
                let answered = link.as_mut().and_then(|link| link.take(reply));
                if let Some((token, answer)) = answered
                    && inputs.send(Input::Answer { token, answer }).await.is_err()
                {
                    return;
                }
                Ok(())
            }
            Happened::Reply(Err(error)) => Err(error),
        };
        if let Err(error) = result {
            for owed in link.take().into_iter().flat_map(|link| link.owed) {
                let answer = Answer::Unreachable(error.to_string());
                if let Some(token) = owed.token
                    && inputs.send(Input::Answer { token, answer }).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

enum Happened {
    Ask(Option<(Token, Ask)>),
    Reply(Result<Reply, ConnectionError>),
}

struct Link {
    commands: Commands,
    replies: Replies,
    owed: VecDeque<Owed>,
    /// Why it was not let in, if so. Whatever it answers then is meant for somebody else.
    shut_out: Option<String>,
}

/// What was asked, and the replies to it so far.
struct Owed {
    /// None: the log-in, which nobody waits for; if it fails, all that follows do.
    token: Option<Token>,
    kind: Kind,
    commands: usize,
    replies: Vec<Reply>,
}

#[derive(Clone, Copy)]
enum Kind {
    LogIn,
    Probe,
    Order,
    /// Each of them counts.
    Orders,
}

impl Link {
    async fn open(address: SocketAddr, password: &Secret) -> Result<Self, ConnectionError> {
        let Connection { commands, replies } = Connection::open(address, CONNECT_MAX).await?;
        let mut link = Self { commands, replies, owed: VecDeque::new(), shut_out: None };
        link.send(None, Kind::LogIn, &[&["AUTH", LOCAL_USER, password.reveal()], &["CLIENT", "SETNAME", "vigie"]])
            .await?;
        Ok(link)
    }

    async fn ask(
        &mut self,
        token: Token,
        ask: Ask,
        secrets: &watch::Receiver<Numbered>,
    ) -> Result<(), ConnectionError> {
        let token = Some(token);
        match ask {
            Ask::Probe { identity } => {
                let all: [&[&str]; 5] = [
                    &["PING"],
                    &["INFO", "replication"],
                    &["INFO", "persistence"],
                    &["INFO", "keyspace"],
                    &["INFO", "server"],
                ];
                self.send(token, Kind::Probe, if identity { &all } else { &all[..4] }).await
            }
            Ask::Secrets => {
                let (_, newest) = secrets.borrow().clone();
                let changes = users::changes(&newest);
                let changes: Vec<Vec<&str>> =
                    changes.iter().map(|words| words.iter().map(String::as_str).collect()).collect();
                let changes: Vec<&[&str]> = changes.iter().map(Vec::as_slice).collect();
                self.send(token, Kind::Orders, &changes).await
            }
            Ask::LogWrites => self.send(token, Kind::Order, &[&["CONFIG", "SET", "appendonly", "yes"]]).await,
            Ask::Follow { master, demote } => {
                let (host, port) = (master.ip().to_string(), master.port().to_string());
                let replicaof: &[&str] = &["REPLICAOF", &host, &port];
                let kill = |kind: &'static str| ["CLIENT", "KILL", "TYPE", kind];
                if demote {
                    let (normal, pubsub) = (kill("normal"), kill("pubsub"));
                    // Whoever held writes for a switchover may lose its connection here before it has released them; a
                    // replica that holds writes holds its master's, too.
                    let release: &[&str] = &["CLIENT", "UNPAUSE"];
                    self.send(token, Kind::Order, &[&["MULTI"], replicaof, &normal, &pubsub, release, &["EXEC"]]).await
                } else {
                    self.send(token, Kind::Order, &[replicaof]).await
                }
            }
        }
    }

    async fn send(&mut self, token: Option<Token>, kind: Kind, commands: &[&[&str]]) -> Result<(), ConnectionError> {
        self.owed.push_back(Owed { token, kind, commands: commands.len(), replies: Vec::new() });
        for command in commands {
            self.commands.send(command).await?;
        }
        Ok(())
    }

    /// The answer that `reply` completes, if it completes one. What was not asked for is dropped.
    fn take(&mut self, reply: Reply) -> Option<(Token, Answer)> {
        let owed = self.owed.front_mut()?;
        owed.replies.push(reply);
        if owed.replies.len() < owed.commands {
            return None;
        }
        let owed = self.owed.pop_front()?;
        if matches!(owed.kind, Kind::LogIn) {
            self.shut_out = owed.replies.iter().find_map(shut_out);
            return None;
        }
        let answer = match (self.shut_out.clone().or_else(|| owed.replies.iter().find_map(shut_out)), owed.kind) {
            (Some(reason), _) => Answer::ShutOut(reason),
            (None, Kind::LogIn) => return None,
            (None, Kind::Probe) => looked(&owed.replies),
            (None, Kind::Order) => carried_out(&owed.replies),
            (None, Kind::Orders) => match owed.replies.iter().find_map(error) {
                None => Answer::Done,
                Some(reason) if reason.starts_with("BUSY ") || reason.starts_with("LOADING ") => Answer::Busy,
                Some(reason) => Answer::Refused(reason.to_owned()),
            },
        };
        Some((owed.token?, answer))
    }
}

fn error(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Error(text) => Some(text),
        Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => None,
    }
}

/// What redis says to somebody whom it does not know, or who may not do what he does.
fn shut_out(reply: &Reply) -> Option<String> {
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
    let sections: Vec<&str> = replies[1..].iter().filter_map(Reply::text).collect();
    match Info::read(ping.starts_with("LOADING "), &sections.join("\r\n")) {
        Some(info) => Answer::Info(Box::new(info)),
        None => Answer::Refused(replies.iter().find_map(error).unwrap_or("INFO names no role").to_owned()),
    }
}

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
