//! The supervisor's own connection to its redis: asks go out at once, answers come back in their order, however late.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::keeper::Numbered;
use super::users;
use crate::base::Secret;
use crate::base::secret::LOCAL_USER;
use crate::cores::redis::{Answer, Ask, Input, Token, shut_out};
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
                if let Some((token, _)) = owed.asked
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
    asked: Option<(Token, Ask)>,
    commands: usize,
    replies: Vec<Reply>,
}

impl Link {
    async fn open(address: SocketAddr, password: &Secret) -> Result<Self, ConnectionError> {
        let Connection { commands, replies } = Connection::open(address, CONNECT_MAX).await?;
        let mut link = Self { commands, replies, owed: VecDeque::new(), shut_out: None };
        let login = [["AUTH", LOCAL_USER, password.reveal()], ["CLIENT", "SETNAME", "vigie"]];
        link.send(None, &login.map(|words| words.map(str::to_owned).to_vec())).await?;
        Ok(link)
    }

    async fn ask(
        &mut self,
        token: Token,
        ask: Ask,
        secrets: &watch::Receiver<Numbered>,
    ) -> Result<(), ConnectionError> {
        let commands = ask.commands(|| users::changes(&secrets.borrow().1));
        self.send(Some((token, ask)), &commands).await
    }

    async fn send(&mut self, asked: Option<(Token, Ask)>, commands: &[Vec<String>]) -> Result<(), ConnectionError> {
        self.owed.push_back(Owed { asked, commands: commands.len(), replies: Vec::new() });
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
        let Some((token, ask)) = owed.asked else {
            self.shut_out = owed.replies.iter().find_map(shut_out);
            return None;
        };
        let answer = match self.shut_out.clone() {
            Some(reason) => Answer::ShutOut(reason),
            None => ask.answer(&owed.replies),
        };
        Some((token, answer))
    }
}
