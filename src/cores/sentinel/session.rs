//! A client's session: who it is, what it has subscribed to, and the commands that concern only itself.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::base::Instant;
use crate::wire::hello;
use crate::wire::resp::{Protocol, Reply, Rich};

use super::access::Access;
use super::acl::DEFAULT;
use super::ask::Sockets;
use super::{Answer, ClientId, Output, Sentinel, render};

/// Most channels and patterns of one client.
const SUBSCRIPTIONS_MAX: usize = 256;
/// Most channels and patterns of all clients: each event is compared with each of them.
const ALL_SUBSCRIPTIONS_MAX: usize = 65_536;
/// Longest channel, pattern or name of a client, bytes.
const NAME_MAX: usize = 256;

/// What is known of one client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) sockets: Sockets,
    /// Whether it has said who it is, or need not.
    pub(super) authenticated: bool,
    pub(super) user: String,
    pub(super) name: String,
    /// The library it says it uses, and its version.
    pub(super) library: [String; 2],
    pub(super) protocol: Protocol,
    pub(super) replies: Replies,
    /// Asked for by `CLIENT TRACKING`; nothing follows from it.
    pub(super) tracking: bool,
    pub(super) no_evict: bool,
    pub(super) came_at: Instant,
    /// When it gave its last command, and which.
    pub(super) last_at: Instant,
    pub(super) last: &'static str,
    /// Channels it has subscribed to.
    pub(super) channels: BTreeSet<Bytes>,
    /// Patterns it has subscribed to.
    pub(super) patterns: BTreeSet<Bytes>,
}

/// Whether its commands are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// All but the next one.
    SkipNext,
    /// This one is not.
    Skipping,
}

impl Client {
    fn new(sockets: Sockets, open: bool, now: Instant) -> Self {
        Self {
            sockets: sockets.canonical(),
            authenticated: open,
            user: DEFAULT.to_owned(),
            name: String::new(),
            library: [String::new(), String::new()],
            protocol: Protocol::Two,
            replies: Replies::On,
            tracking: false,
            no_evict: false,
            came_at: now,
            last_at: now,
            last: "NULL",
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
        }
    }

    /// How many channels and patterns it has subscribed to.
    pub(super) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Whether it has subscribed to anything.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscriptions() > 0
    }

    /// Whether it may give only the commands of subscribers: RESP2 cannot tell answers from messages.
    pub(super) fn is_confined(&self) -> bool {
        self.is_subscribed() && self.protocol == Protocol::Two
    }
}

pub(super) fn simple(text: &str) -> Answer {
    Answer::Reply(Reply::Simple(text.to_owned()))
}

pub(super) fn error(text: impl Into<String>) -> Answer {
    Answer::Reply(Reply::Error(text.into()))
}

pub(super) fn bulk(text: impl Into<Bytes>) -> Reply {
    Reply::Bulk(text.into())
}

pub(super) fn arity(command: &str) -> Answer {
    error(super::table::wrong_arity(command))
}

/// No answer, or one that was given already.
pub(super) fn nothing() -> Answer {
    Answer::Many(vec![])
}

pub(super) fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(64)]).to_ascii_lowercase()
}

pub(super) fn text(word: &[u8]) -> &str {
    std::str::from_utf8(word).unwrap_or("")
}

/// Words as text; what is no UTF-8 is made so.
pub(super) fn words(args: &[Bytes]) -> Vec<String> {
    args.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Number of a client or of bytes as Redis has it.
pub(super) fn integer(number: impl TryInto<i64>) -> Reply {
    Reply::Integer(number.try_into().unwrap_or(i64::MAX))
}

impl Sentinel {
    pub(super) fn client_came(&mut self, client: ClientId, sockets: Sockets, now: Instant) {
        let session = Client::new(sockets, self.desk.is_open(), now);
        if self.shuts_out(&session) {
            self.free.push(Output::Respond(client, error(PROTECTED)));
            self.free.push(Output::Dismiss(client));
            return;
        }
        self.clients.insert(client, session);
    }

    pub(super) fn client_gone(&mut self, client: ClientId) {
        self.forget_client(client);
        // Behind all answers it still gets.
        self.free.push(Output::Dismiss(client));
    }

    /// Ends a client's connection at once; what it was answered and has not read is lost.
    pub(super) fn kill(&mut self, client: ClientId) {
        if self.forget_client(client) {
            self.free.push(Output::Kill(client));
        }
    }

    /// Whether there was such a client.
    fn forget_client(&mut self, client: ClientId) -> bool {
        self.desk.asked.remove(&client);
        self.unresolved.retain(|(_, waiting, _)| *waiting != client);
        let gone = self.clients.remove(&client);
        self.desk.subscriptions -= gone.as_ref().map_or(0, Client::subscriptions);
        gone.is_some()
    }

    /// Takes out what clients do not want to be answered. Messages to subscribers are no answers.
    pub(super) fn hold_tongue(&mut self) {
        let clients = &self.clients;
        let silent = |session: &Client| matches!(session.replies, Replies::Off | Replies::Skipping);
        let message = |reply: &Reply| matches!(reply, Reply::Rich(Rich::Push(_)));
        let wanted = |output: &Output| {
            let Output::Respond(client, answer) = output else { return true };
            !clients.get(client).is_some_and(silent)
                || match answer {
                    Answer::Reply(reply) => message(reply),
                    Answer::Many(replies) => replies.iter().all(message),
                }
        };
        self.free.retain(wanted);
        self.fenced.retain(wanted);
        if let Some(session) = self.desk.skipping.take().and_then(|client| self.clients.get_mut(&client)) {
            session.replies = Replies::On;
        }
    }

    pub(super) fn ping(&self, client: ClientId, args: &[Bytes]) -> Answer {
        let confined = self.clients.get(&client).is_some_and(Client::is_confined);
        match (confined, args.first()) {
            (true, said) => {
                let said = said.cloned().unwrap_or_default();
                Answer::Reply(Reply::Array(vec![bulk("pong"), Reply::Bulk(said)]))
            }
            _ if args.len() > 1 => arity("ping"),
            (false, None) => simple("PONG"),
            (false, Some(said)) => Answer::Reply(Reply::Bulk(said.clone())),
        }
    }

    pub(super) fn role_command(&self) -> Answer {
        let names = self.masters.iter().map(|master| bulk(master.config.name.clone())).collect();
        Answer::Reply(Reply::Array(vec![bulk("sentinel"), Reply::Array(names)]))
    }

    pub(super) fn quit(&mut self, client: ClientId) {
        self.free.push(Output::Respond(client, simple("OK")));
        self.free.push(Output::Dismiss(client));
    }

    pub(super) fn reset(&mut self, client: ClientId, now: Instant) -> Answer {
        let open = self.desk.is_open();
        if let Some(session) = self.clients.get_mut(&client) {
            self.desk.subscriptions -= session.subscriptions();
            *session = Client { came_at: session.came_at, last: "reset", ..Client::new(session.sockets, open, now) };
            self.free.push(Output::Protocol(client, Protocol::Two));
        }
        simple("RESET")
    }

    /// Whether it was that user with that password; a wrong one is remembered.
    fn sign_in(&mut self, client: ClientId, user: &[u8], password: &[u8], now: Instant) -> bool {
        let user = String::from_utf8_lossy(user).into_owned();
        if !self.is_right(&user, password) {
            let command = self.clients.get(&client).map_or(String::new(), |session| session.last.to_ascii_uppercase());
            self.refusal(client, "auth", command, user, now);
            self.free.push(Output::WrongPassword(client));
            return false;
        }
        if let Some(session) = self.clients.get_mut(&client) {
            session.authenticated = true;
            session.user = user;
        }
        true
    }

    pub(super) fn auth(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
        let (user, password) = match args {
            [password] => (None, password),
            [user, password] => (Some(user), password),
            _ => return error("ERR syntax error"),
        };
        let no_password = match &self.desk.access {
            Access::Cluster(logins) => logins.is_none(),
            Access::Acl(acl) => user.is_none() && acl.is_unprotected(),
        };
        if no_password {
            return error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            );
        }
        let user = user.map_or(DEFAULT.as_bytes(), |user| user);
        if self.sign_in(client, user, password, now) { simple("OK") } else { error(WRONGPASS) }
    }

    pub(super) fn hello_command(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
        let mut protocol = None;
        if let Some(version) = args.first() {
            protocol = match text(version).parse::<i64>() {
                Ok(2) => Some(Protocol::Two),
                Ok(3) => Some(Protocol::Three),
                Ok(_) => return error("NOPROTO unsupported protocol version"),
                Err(_) => return error("ERR Protocol version is not an integer or out of range"),
            };
        }
        let mut rest = args.get(1..).unwrap_or_default();
        while let [option, more @ ..] = rest {
            rest = match (lower(option).as_str(), more) {
                ("auth", [user, password, more @ ..]) => {
                    if !self.sign_in(client, user, password, now) {
                        return error(WRONGPASS);
                    }
                    more
                }
                ("setname", [name, more @ ..]) => match self.set_name(client, name) {
                    Answer::Reply(Reply::Simple(_)) => more,
                    refusal => return refusal,
                },
                _ => return error(format!("ERR Syntax error in HELLO option '{}'", text(option))),
            };
        }
        let asks_who = matches!(self.desk.access, Access::Acl(_)) && !self.desk.is_open();
        let Some(session) = self.clients.get_mut(&client) else { return nothing() };
        if asks_who && !session.authenticated {
            return error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
                 option can be used to authenticate the client and select the RESP protocol version at the same time",
            );
        }
        if let Some(protocol) = protocol {
            session.protocol = protocol;
            self.free.push(Output::Protocol(client, protocol));
        }
        Answer::Reply(Reply::map([
            ("server", bulk("redis")),
            ("version", bulk(render::REDIS_VERSION)),
            ("proto", Reply::Integer(session.protocol.number())),
            ("id", integer(client.0)),
            ("mode", bulk("sentinel")),
            ("modules", Reply::Array(vec![])),
        ]))
    }

    pub(super) fn set_name(&mut self, client: ClientId, name: &[u8]) -> Answer {
        if !is_name(name) {
            return error(BAD_NAME);
        }
        if let Some(session) = self.clients.get_mut(&client) {
            text(name).clone_into(&mut session.name);
        }
        simple("OK")
    }

    pub(super) fn subscribe(&mut self, client: ClientId, command: &str, args: &[Bytes]) -> Answer {
        let Some(session) = self.clients.get_mut(&client) else { return nothing() };
        let by_pattern = command.starts_with('p');
        let opening = !command.contains("un");
        let set = if by_pattern { &mut session.patterns } else { &mut session.channels };
        let names: Vec<Bytes> = if args.is_empty() { set.iter().cloned().collect() } else { args.to_vec() };
        if opening && (set.len() + names.len() > SUBSCRIPTIONS_MAX || names.iter().any(|name| name.len() > NAME_MAX)) {
            return error(format!("ERR at most {SUBSCRIPTIONS_MAX} subscriptions of {NAME_MAX} bytes are allowed"));
        }
        if opening && self.desk.subscriptions + names.len() > ALL_SUBSCRIPTIONS_MAX {
            return error(format!("ERR at most {ALL_SUBSCRIPTIONS_MAX} subscriptions of all clients are allowed"));
        }
        let before = session.subscriptions();
        let mut replies = Vec::new();
        for name in names.iter().map(Some).chain(names.is_empty().then_some(None)) {
            let set = if by_pattern { &mut session.patterns } else { &mut session.channels };
            match (name, opening) {
                // A copy: what came in may be a slice of a large buffer.
                (Some(name), true) => drop(set.insert(Bytes::copy_from_slice(name))),
                (Some(name), false) => drop(set.remove(name)),
                (None, _) => {}
            }
            let count = session.subscriptions();
            let name = name.map_or(Reply::Null, |name| Reply::Bulk(name.clone()));
            replies.push(Reply::push(vec![bulk(command.to_owned()), name, integer(count)]));
        }
        self.desk.subscriptions = self.desk.subscriptions + session.subscriptions() - before;
        Answer::Many(replies)
    }

    /// The greeting of another sentinel. In a cluster only the listed stock sentinels greet, at this port and logged in.
    pub(super) fn publish_command(&mut self, args: &[Bytes], now: Instant) -> Answer {
        let [channel, payload] = args else { return arity("publish") };
        if channel.as_ref() != hello::CHANNEL.as_bytes() {
            return error("ERR Only HELLO messages are accepted by Sentinel instances.");
        }
        self.greeted(payload, now);
        Answer::Reply(Reply::Integer(1))
    }

    /// `SHUTDOWN`: only of a sentinel that nobody supervises.
    pub(super) fn shutdown(&mut self, args: &[Bytes], now: Instant) -> Answer {
        let options: Vec<String> = args.iter().map(|word| lower(word)).collect();
        let has = |name: &str| options.iter().any(|option| option == name);
        let known = options.iter().all(|option| ["nosave", "save", "now", "force", "abort"].contains(&option.as_str()));
        if !known || has("nosave") && has("save") || has("abort") && options.len() > 1 {
            return error("ERR syntax error");
        }
        match self.desk.access {
            Access::Cluster(_) => error("ERR SHUTDOWN is not supported: vigie itself starts and stops its sentinel"),
            Access::Acl(_) if has("abort") => error("ERR No shutdown in progress."),
            Access::Acl(_) => {
                self.stop(now);
                nothing()
            }
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= NAME_MAX && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
/// What Redis begins this refusal with is what clients look for; the rest is advice.
const PROTECTED: &str = "DENIED Redis is running in protected mode because protected mode is enabled and no password is \
     set for the default user. In this mode connections are only accepted from the loopback interface. If you want to \
     connect from external computers, either set 'protected-mode no' in the configuration file and start the Sentinel \
     again, or set a password for the default user with 'requirepass' or a 'user default' line there.";
