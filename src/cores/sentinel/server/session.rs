//! A client's session: how it comes and goes, who it is, what it hears, and the commands that concern only itself.

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::{Answer, ClientId, Output};
use crate::wire::resp::{Protocol, Reply};

use super::access::Access;
use super::acl::DEFAULT;
use super::ask::Sockets;
use super::client::Client;
use super::reply::{arity, bulk, error, integer, lower, nothing, simple, syntax, text};
use super::state::Server;

/// The version whose protocol is spoken; clients decide by it what they may ask.
pub(super) const REDIS_VERSION: &str = "7.0.15";
/// Longest name of a client, bytes.
const NAME_MAX: usize = 256;

impl Server {
    pub(in crate::cores::sentinel) fn client_came(&mut self, client: ClientId, sockets: Sockets, now: Instant) {
        let session = Client::new(sockets, self.access.is_open(), now);
        if self.shuts_out(&session) {
            return self.dismiss_with(client, error(PROTECTED));
        }
        self.clients.insert(client, session);
    }

    pub(in crate::cores::sentinel) fn client_gone(&mut self, client: ClientId) {
        self.forget_client(client);
        // Behind all answers it still gets.
        self.in_order(client, Output::Dismiss(client));
    }

    /// A client has sent what is no command.
    pub(in crate::cores::sentinel) fn garbage(&mut self, client: ClientId, why: &str) {
        // Behind the answers to what came before it.
        self.respond(client, error(format!("ERR Protocol error: {why}")));
    }

    pub(super) fn ping(&self, client: ClientId, args: &[Bytes]) -> Answer {
        let confined = self.clients.get(client).is_some_and(Client::is_confined);
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

    pub(super) fn quit(&mut self, client: ClientId) {
        self.dismiss_with(client, simple("OK"));
    }

    pub(super) fn reset(&mut self, client: ClientId, now: Instant) -> Answer {
        if self.clients.reset(client, self.access.is_open(), now) {
            self.in_order(client, Output::Protocol(client, Protocol::Two));
        }
        simple("RESET")
    }

    /// Whether it was that user with that password; a wrong one is remembered.
    fn sign_in(&mut self, client: ClientId, user: &[u8], password: &[u8], now: Instant) -> bool {
        let user = String::from_utf8_lossy(user).into_owned();
        if !self.access.is_right(&user, password) {
            let command = self.clients.get(client).map_or(String::new(), |session| session.last.to_ascii_uppercase());
            self.refuse(client, "auth", command, user, now);
            self.free.push(Output::WrongPassword(client));
            return false;
        }
        if let Some(session) = self.clients.get_mut(client) {
            session.authenticated = true;
            session.user = user;
        }
        true
    }

    pub(super) fn auth(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
        let (user, password) = match args {
            [password] => (None, password),
            [user, password] => (Some(user), password),
            _ => return syntax(),
        };
        let no_password = match &self.access {
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
        let asks_who = matches!(self.access, Access::Acl(_)) && !self.access.is_open();
        let Some(session) = self.clients.get_mut(client) else { return nothing() };
        if asks_who && !session.authenticated {
            return error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
                 option can be used to authenticate the client and select the RESP protocol version at the same time",
            );
        }
        if let Some(protocol) = protocol {
            session.protocol = protocol;
        }
        let spoken = session.protocol;
        if let Some(protocol) = protocol {
            self.in_order(client, Output::Protocol(client, protocol));
        }
        Answer::Reply(Reply::map([
            ("server", bulk("redis")),
            ("version", bulk(REDIS_VERSION)),
            ("proto", Reply::Integer(spoken.number())),
            ("id", integer(client.0)),
            ("mode", bulk("sentinel")),
            ("modules", Reply::Array(vec![])),
        ]))
    }

    pub(super) fn set_name(&mut self, client: ClientId, name: &[u8]) -> Answer {
        if !is_name(name) {
            return error(BAD_NAME);
        }
        if let Some(session) = self.clients.get_mut(client) {
            text(name).clone_into(&mut session.name);
        }
        simple("OK")
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
