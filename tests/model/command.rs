//! What a redis-server answers, and what it does when it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use vigie::base::{Instant, RunId};
use vigie::wire::hello;
use vigie::wire::resp::Reply;

use super::replication::Attached;
use super::server::Server;

/// The words of a command.
pub type Words = Vec<Bytes>;

const LOADING: &str = "LOADING Redis is loading the dataset in memory";
const BUSY: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

/// What a server knows of a connection to it.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Commands behind MULTI; none of them if one was rejected.
    multi: Option<Result<Vec<Words>, Rejected>>,
    /// Whether it hears the hello channel.
    pub subscribed: bool,
    /// Whether it has said the password.
    authenticated: bool,
    /// Commands that wait behind one that a pause holds.
    pub blocked: VecDeque<Words>,
}

/// A command behind MULTI was.
#[derive(Clone, Copy, Debug)]
struct Rejected;

/// What a server is told when it is to carry out a command.
pub struct Moment<'a> {
    pub now: Instant,
    /// Who takes its stream, or a copy.
    pub replicas: &'a [Attached],
    /// Makes an id that nobody has.
    pub id: &'a mut dyn FnMut() -> RunId,
}

/// What whoever surrounds a server has to do when it has carried out a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was a replica and is a master: its replicas are disconnected.
    Promoted,
    /// It follows another master than before: its replicas are disconnected, and it tries to reach that one.
    Follows(SocketAddr),
    /// Whoever has subscribed gets this.
    Published(Bytes),
    /// It refuses writes, or takes them again.
    Fenced,
    /// It holds writes.
    Paused,
    /// It holds writes no more: what waited goes on.
    Released,
    /// All connections but this one are closed: those that have subscribed, or the others.
    Killed { subscribed: bool },
}

/// What comes of a command.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// None: it waits in [`Session::blocked`].
    pub reply: Option<Reply>,
    /// To be done in this order, before the reply leaves.
    pub effects: Vec<Effect>,
}

fn word(words: &Words, at: usize) -> String {
    words.get(at).map_or_else(String::new, |word| String::from_utf8_lossy(word).to_ascii_uppercase())
}

fn text(words: &Words, at: usize) -> &str {
    words.get(at).and_then(|word| std::str::from_utf8(word).ok()).unwrap_or_default()
}

fn points_elsewhere(words: &Words) -> bool {
    matches!(word(words, 0).as_str(), "REPLICAOF" | "SLAVEOF")
}

/// Whether redis answers so before it looks at what a command is about.
fn rejects(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if !text.starts_with("ERR ") || text.starts_with("ERR unknown command"))
}

fn ok() -> Reply {
    Reply::Simple("OK".to_owned())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

impl Server {
    /// A command comes on a connection.
    pub fn command(&mut self, session: &mut Session, words: Words, mut moment: Moment<'_>) -> Heard {
        let held = self.pause.is_some() && word(&words, 0) == "PUBLISH";
        if held || !session.blocked.is_empty() {
            session.blocked.push_back(words);
            return Heard::default();
        }
        let mut effects = Vec::new();
        let reply = match session.multi.take() {
            Some(queued) if word(&words, 0) == "EXEC" => self.transaction(session, queued, &mut moment, &mut effects),
            Some(queued) => {
                // What it may not do, or cannot do now, it says at once.
                let rejection = self.refusal(session, &words).filter(rejects);
                session.multi = Some(match (queued, &rejection) {
                    (Ok(mut queued), None) => {
                        queued.push(words);
                        Ok(queued)
                    }
                    (Err(Rejected), _) | (_, Some(_)) => Err(Rejected),
                });
                rejection.unwrap_or_else(|| Reply::Simple("QUEUED".to_owned()))
            }
            None => self.execute(session, &words, &mut moment, &mut effects),
        };
        Heard { reply: Some(reply), effects }
    }

    fn transaction(
        &mut self,
        session: &mut Session,
        queued: Result<Vec<Words>, Rejected>,
        moment: &mut Moment<'_>,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        match queued {
            Err(Rejected) => error("EXECABORT Transaction discarded because of previous errors."),
            Ok(queued) if self.loading && queued.iter().any(points_elsewhere) => {
                Reply::Error(format!("EXECABORT Transaction discarded because of: {LOADING}"))
            }
            Ok(queued) => {
                Reply::Array(queued.iter().map(|words| self.execute(session, words, moment, effects)).collect())
            }
        }
    }

    /// Why it does not carry out a command, if it does not.
    fn refusal(&self, session: &Session, words: &Words) -> Option<Reply> {
        if !self.refuses.is_empty() || !self.ignores.is_empty() {
            let line = (0..words.len()).map(|at| word(words, at)).collect::<Vec<_>>().join(" ");
            let begins = |with: &str| line.starts_with(&with.to_ascii_uppercase());
            if let Some((_, refusal)) = self.refuses.iter().find(|(command, _)| begins(command)) {
                return Some(error(refusal));
            }
            if self.ignores.iter().any(|command| begins(command)) {
                return Some(ok());
            }
        }
        let name = word(words, 0);
        if self.password.is_some() && !session.authenticated && name != "AUTH" {
            return Some(error("NOAUTH Authentication required."));
        }
        if self.busy && !matches!(name.as_str(), "AUTH" | "SCRIPT") {
            return Some(error(BUSY));
        }
        let loads = self.loading && (name == "PING" || points_elsewhere(words));
        loads.then(|| error(LOADING))
    }

    fn execute(
        &mut self,
        session: &mut Session,
        words: &Words,
        moment: &mut Moment<'_>,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        if let Some(refusal) = self.refusal(session, words) {
            return refusal;
        }
        match (word(words, 0).as_str(), word(words, 1).as_str()) {
            ("PING", _) => Reply::Simple("PONG".to_owned()),
            ("AUTH", _) => self.log_in(session, text(words, words.len() - 1)),
            ("INFO", section) => Reply::Bulk(self.info(section, moment.now, moment.replicas).into()),
            ("ROLE", _) => {
                let role = if self.master.is_none() { "master" } else { "slave" };
                Reply::Array(vec![Reply::Bulk(Bytes::from_static(role.as_bytes()))])
            }
            ("MULTI", _) => {
                session.multi = Some(Ok(Vec::new()));
                ok()
            }
            ("EXEC", _) => error("ERR EXEC without MULTI"),
            ("SUBSCRIBE", _) => {
                session.subscribed = true;
                Reply::Array(vec![])
            }
            ("PUBLISH", _) => {
                if text(words, 1) == hello::CHANNEL {
                    effects.push(Effect::Published(words.get(2).cloned().unwrap_or_default()));
                }
                Reply::Integer(1)
            }
            ("REPLICAOF" | "SLAVEOF", "NO") => {
                self.log.push("REPLICAOF NO ONE".to_owned());
                if self.master.is_some() {
                    self.promote(moment.now, (moment.id)());
                    effects.push(Effect::Promoted);
                }
                ok()
            }
            ("REPLICAOF" | "SLAVEOF", _) => {
                if let Some(master) = (self.hosts.found)(text(words, 1), text(words, 2)) {
                    self.log.push(format!("REPLICAOF {master}"));
                    if self.follow(master) {
                        effects.push(Effect::Follows(master));
                    }
                }
                ok()
            }
            ("CLIENT", "PAUSE") => {
                self.log.push("PAUSE".to_owned());
                let until = moment.now + Duration::from_millis(text(words, 2).parse().unwrap_or(0));
                // A longer pause that is in force stays in force.
                self.pause = Some(self.pause.map_or(until, |other| other.max(until)));
                effects.push(Effect::Paused);
                ok()
            }
            ("CLIENT", "UNPAUSE") => {
                self.log.push("UNPAUSE".to_owned());
                self.pause = None;
                effects.push(Effect::Released);
                ok()
            }
            ("CLIENT", "KILL") => {
                effects.push(Effect::Killed { subscribed: word(words, 3) == "PUBSUB" });
                Reply::Integer(1)
            }
            ("SCRIPT", "KILL") => {
                self.busy = false;
                ok()
            }
            ("CONFIG", "SET") if word(words, 2) == "MIN-REPLICAS-TO-WRITE" => {
                self.fenced = text(words, 3) != "0";
                effects.push(Effect::Fenced);
                ok()
            }
            ("CLIENT" | "CONFIG" | "SCRIPT", _) => ok(),
            (name, _) => Reply::Error(format!("ERR unknown command '{name}'")),
        }
    }

    fn log_in(&self, session: &mut Session, password: &str) -> Reply {
        match &self.password {
            None => error("ERR AUTH <password> called without any password configured for the default user."),
            Some(known) if known == password => {
                session.authenticated = true;
                ok()
            }
            Some(_) => error("WRONGPASS invalid username-password pair or user is disabled."),
        }
    }
}
