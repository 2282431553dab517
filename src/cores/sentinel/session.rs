//! A client's session: who it is, what it has subscribed to, and the commands that concern only itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bytes::Bytes;

use crate::base::Instant;
use crate::wire::hello;
use crate::wire::resp::Reply;

use super::{Answer, ClientId, Output, Sentinel, render};

/// Most channels and patterns of one client.
const SUBSCRIPTIONS_MAX: usize = 256;
/// Longest channel, pattern or name of a client, bytes.
const NAME_MAX: usize = 256;

/// What is known of one client's connection.
#[derive(Debug)]
pub(super) struct Client {
    address: IpAddr,
    authenticated: bool,
    name: String,
    /// Channels it has subscribed to.
    pub(super) channels: BTreeSet<Bytes>,
    /// Patterns it has subscribed to.
    pub(super) patterns: BTreeSet<Bytes>,
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
    error(format!("ERR wrong number of arguments for '{command}' command"))
}

pub(super) fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(64)]).to_ascii_lowercase()
}

pub(super) fn text(word: &[u8]) -> &str {
    std::str::from_utf8(word).unwrap_or("")
}

impl Sentinel {
    pub(super) fn client_came(&mut self, client: ClientId, address: IpAddr) {
        let (channels, patterns) = (BTreeSet::new(), BTreeSet::new());
        let address = address.to_canonical();
        self.clients.insert(client, Client { address, authenticated: false, name: String::new(), channels, patterns });
    }

    pub(super) fn client_gone(&mut self, client: ClientId) {
        self.clients.remove(&client);
        // Behind all answers it still gets.
        self.free.push(Output::Dismiss(client));
    }

    /// Whether a client may change state.
    pub(super) fn trusted(&self, client: ClientId) -> bool {
        let Some(client) = self.clients.get(&client) else { return false };
        self.config.password.is_none() || client.authenticated || self.config.trusted.contains(&client.address)
    }

    pub(super) fn ping(subscribed: bool, args: &[Bytes]) -> Answer {
        match (subscribed, args.first()) {
            (true, said) => {
                let said = said.cloned().unwrap_or_default();
                Answer::Reply(Reply::Array(vec![bulk("pong"), Reply::Bulk(said)]))
            }
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

    pub(super) fn reset(&mut self, client: ClientId) -> Answer {
        if let Some(session) = self.clients.get_mut(&client) {
            session.channels.clear();
            session.patterns.clear();
            session.authenticated = false;
            session.name.clear();
        }
        simple("RESET")
    }

    pub(super) fn auth(&mut self, client: ClientId, args: &[Bytes]) -> Answer {
        let (user, password) = match args {
            [password] => (None, password),
            [user, password] => (Some(user), password),
            _ => return arity("auth"),
        };
        let Some(expected) = &self.config.password else {
            return error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            );
        };
        let right = same(password, expected.reveal().as_bytes());
        if !right || user.is_some_and(|user| user.as_ref() != b"default") {
            return error("WRONGPASS invalid username-password pair or user is disabled.");
        }
        if let Some(session) = self.clients.get_mut(&client) {
            session.authenticated = true;
        }
        simple("OK")
    }

    pub(super) fn hello_command(&mut self, client: ClientId, args: &[Bytes]) -> Answer {
        let mut rest = args.iter();
        match rest.next().map(|version| text(version)) {
            None | Some("2") => {}
            Some(_) => return error("NOPROTO unsupported protocol version: RESP2 is spoken here"),
        }
        while let Some(option) = rest.next() {
            match (lower(option).as_str(), rest.next(), rest.as_slice()) {
                ("auth", Some(user), [password, ..]) => {
                    let credentials = [user.clone(), password.clone()];
                    rest.next();
                    let answer = self.auth(client, &credentials);
                    if answer != simple("OK") {
                        return answer;
                    }
                }
                ("setname", Some(name), _) => {
                    let answer = self.set_name(client, name);
                    if answer != simple("OK") {
                        return answer;
                    }
                }
                _ => return error(format!("ERR Syntax error in HELLO option '{}'", text(option))),
            }
        }
        let id = i64::try_from(client.0).unwrap_or(i64::MAX);
        let pairs = [
            ("server", bulk("redis")),
            ("version", bulk(render::REDIS_VERSION)),
            ("proto", Reply::Integer(2)),
            ("id", Reply::Integer(id)),
            ("mode", bulk("sentinel")),
            ("modules", Reply::Array(vec![])),
        ];
        Answer::Reply(Reply::Array(pairs.into_iter().flat_map(|(key, value)| [bulk(key), value]).collect()))
    }

    fn set_name(&mut self, client: ClientId, name: &[u8]) -> Answer {
        if name.len() > NAME_MAX || !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
            return error("ERR Client names cannot contain spaces, newlines or special characters.");
        }
        if let Some(session) = self.clients.get_mut(&client) {
            text(name).clone_into(&mut session.name);
        }
        simple("OK")
    }

    pub(super) fn client_command(&mut self, client: ClientId, args: &[Bytes]) -> Answer {
        let Some((word, rest)) = args.split_first() else { return arity("client") };
        let line = |id: &ClientId, client: &Client| {
            let subscribed = (client.channels.len(), client.patterns.len());
            format!(
                "id={} addr={}:0 name={} sub={} psub={}\n",
                id.0, client.address, client.name, subscribed.0, subscribed.1
            )
        };
        match (lower(word).as_str(), rest) {
            ("setname", [name]) => self.set_name(client, name),
            ("getname", []) => {
                let name = self.clients.get(&client).map(|client| client.name.clone()).filter(|name| !name.is_empty());
                Answer::Reply(name.map_or(Reply::Null, bulk))
            }
            ("id", []) => Answer::Reply(Reply::Integer(i64::try_from(client.0).unwrap_or(i64::MAX))),
            ("setinfo", [_, _]) => simple("OK"),
            ("info", []) => {
                let line = self.clients.get(&client).map(|session| line(&client, session)).unwrap_or_default();
                Answer::Reply(bulk(line))
            }
            ("list", _) => {
                let lines: String = self.clients.iter().take(1_000).map(|(id, client)| line(id, client)).collect();
                Answer::Reply(bulk(lines))
            }
            _ => error(format!("ERR CLIENT {} is not supported yet", text(word).to_ascii_uppercase())),
        }
    }

    pub(super) fn command_command(args: &[Bytes]) -> Answer {
        match args.first().map(|word| lower(word)).as_deref() {
            Some("count") => Answer::Reply(Reply::Integer(render::COMMANDS.len().try_into().unwrap_or(0))),
            Some("list") => Answer::Reply(Reply::Array(render::COMMANDS.iter().map(|name| bulk(*name)).collect())),
            None | Some(_) => Answer::Reply(Reply::Array(vec![])),
        }
    }

    pub(super) fn subscribe(&mut self, client: ClientId, command: &str, args: &[Bytes]) -> Answer {
        let Some(session) = self.clients.get_mut(&client) else { return simple("OK") };
        let by_pattern = command.starts_with('p');
        let opening = !command.contains("un");
        if opening && args.is_empty() {
            return arity(command);
        }
        let set = if by_pattern { &mut session.patterns } else { &mut session.channels };
        let names: Vec<Bytes> = if args.is_empty() { set.iter().cloned().collect() } else { args.to_vec() };
        if opening && (set.len() + names.len() > SUBSCRIPTIONS_MAX || names.iter().any(|name| name.len() > NAME_MAX)) {
            return error(format!("ERR at most {SUBSCRIPTIONS_MAX} subscriptions of {NAME_MAX} bytes are allowed"));
        }
        let mut replies = Vec::new();
        for name in names.iter().map(Some).chain(names.is_empty().then_some(None)) {
            let set = if by_pattern { &mut session.patterns } else { &mut session.channels };
            match (name, opening) {
                // A copy: what came in may be a slice of a large buffer.
                (Some(name), true) => drop(set.insert(Bytes::copy_from_slice(name))),
                (Some(name), false) => drop(set.remove(name)),
                (None, _) => {}
            }
            let count = i64::try_from(session.channels.len() + session.patterns.len()).unwrap_or(0);
            let name = name.map_or(Reply::Null, |name| Reply::Bulk(name.clone()));
            replies.push(Reply::Array(vec![bulk(command.to_owned()), name, Reply::Integer(count)]));
        }
        Answer::Many(replies)
    }

    pub(super) fn publish_command(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
        let [channel, payload] = args else { return arity("publish") };
        if channel.as_ref() != hello::CHANNEL.as_bytes() {
            return error("ERR Only HELLO messages are accepted by Sentinel instances.");
        }
        if !self.trusted(client) {
            return error("NOAUTH Authentication required.");
        }
        self.greeted(payload, now);
        Answer::Reply(Reply::Integer(1))
    }
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
