//! The commands of clients and of other sentinels.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::base::{Epoch, Instant, RunId};
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

fn simple(text: &str) -> Answer {
    Answer::Reply(Reply::Simple(text.to_owned()))
}

fn error(text: impl Into<String>) -> Answer {
    Answer::Reply(Reply::Error(text.into()))
}

fn bulk(text: impl Into<Bytes>) -> Reply {
    Reply::Bulk(text.into())
}

fn arity(command: &str) -> Answer {
    error(format!("ERR wrong number of arguments for '{command}' command"))
}

fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(64)]).to_ascii_lowercase()
}

fn text(word: &[u8]) -> &str {
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
    fn trusted(&self, client: ClientId) -> bool {
        let Some(client) = self.clients.get(&client) else { return false };
        self.password.is_none() || client.authenticated || self.trusted.contains(&client.address)
    }

    pub(super) fn command(&mut self, client: ClientId, args: &[Bytes], now: Instant) {
        let Some((word, rest)) = args.split_first() else { return };
        let Some(session) = self.clients.get(&client) else { return };
        let name = lower(word);
        let subscribed = !session.channels.is_empty() || !session.patterns.is_empty();
        let any_time = ["ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "quit", "reset"];
        if subscribed && !any_time.contains(&name.as_str()) {
            let shown = text(word);
            let refusal = format!(
                "ERR Can't execute '{shown}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                 this context"
            );
            self.free.push(Output::Respond(client, error(refusal)));
            return;
        }
        if name == "sentinel" && rest.first().is_some_and(|word| word.eq_ignore_ascii_case(b"is-master-down-by-addr")) {
            return self.answer_is_master_down(client, rest, now);
        }
        let answer = match name.as_str() {
            "ping" => match (subscribed, rest.first()) {
                (true, said) => {
                    let said = said.cloned().unwrap_or_default();
                    Answer::Reply(Reply::Array(vec![bulk("pong"), Reply::Bulk(said)]))
                }
                (false, None) => simple("PONG"),
                (false, Some(said)) => Answer::Reply(Reply::Bulk(said.clone())),
            },
            "auth" => self.auth(client, rest),
            "hello" => self.hello_command(client, rest),
            "info" => self.info_command(rest, now),
            "role" => {
                let names = self.masters.iter().map(|master| bulk(master.config.name.clone())).collect();
                Answer::Reply(Reply::Array(vec![bulk("sentinel"), Reply::Array(names)]))
            }
            "subscribe" | "psubscribe" | "unsubscribe" | "punsubscribe" => self.subscribe(client, &name, rest),
            "publish" => self.publish_command(client, rest, now),
            "client" => self.client_command(client, rest),
            "command" => Self::command_command(rest),
            "quit" => {
                self.free.push(Output::Respond(client, simple("OK")));
                self.free.push(Output::Dismiss(client));
                return;
            }
            "reset" => {
                if let Some(session) = self.clients.get_mut(&client) {
                    session.channels.clear();
                    session.patterns.clear();
                    session.authenticated = false;
                    session.name.clear();
                }
                simple("RESET")
            }
            "shutdown" => error("ERR SHUTDOWN is not supported: vigie itself starts and stops its sentinel"),
            "sentinel" => self.sentinel_command(client, rest, now),
            _ => {
                let shown: Vec<String> =
                    rest.iter().take(4).map(|arg| format!("'{}' ", text(&arg[..arg.len().min(64)]))).collect();
                let word = text(&word[..word.len().min(64)]);
                error(format!("ERR unknown command '{word}', with args beginning with: {}", shown.concat()))
            }
        };
        self.free.push(Output::Respond(client, answer));
    }

    fn auth(&mut self, client: ClientId, args: &[Bytes]) -> Answer {
        let (user, password) = match args {
            [password] => (None, password),
            [user, password] => (Some(user), password),
            _ => return arity("auth"),
        };
        let Some(expected) = &self.password else {
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

    fn hello_command(&mut self, client: ClientId, args: &[Bytes]) -> Answer {
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

    fn client_command(&mut self, client: ClientId, args: &[Bytes]) -> Answer {
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

    fn command_command(args: &[Bytes]) -> Answer {
        match args.first().map(|word| lower(word)).as_deref() {
            Some("count") => Answer::Reply(Reply::Integer(render::COMMANDS.len().try_into().unwrap_or(0))),
            Some("list") => Answer::Reply(Reply::Array(render::COMMANDS.iter().map(|name| bulk(*name)).collect())),
            None | Some(_) => Answer::Reply(Reply::Array(vec![])),
        }
    }

    fn subscribe(&mut self, client: ClientId, command: &str, args: &[Bytes]) -> Answer {
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

    fn publish_command(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
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

    fn sentinel_command(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
        let Some((word, rest)) = args.split_first() else { return arity("sentinel") };
        let name = lower(word);
        let named = |sentinel: &Self| {
            let [master] = rest else { return Err(arity(&format!("sentinel|{name}"))) };
            let found = sentinel.masters.iter().position(|one| one.config.name.as_bytes() == master.as_ref());
            found.ok_or_else(|| error("ERR No such master with that name"))
        };
        let per_master = |sentinel: &Self, show: fn(&Self, usize, Instant) -> Reply| match named(sentinel) {
            Ok(m) => Answer::Reply(show(sentinel, m, now)),
            Err(refusal) => refusal,
        };
        match name.as_str() {
            "masters" => {
                let masters = (0..self.masters.len()).map(|m| self.master_map(m, now)).collect();
                Answer::Reply(Reply::Array(masters))
            }
            "master" => per_master(self, Self::master_map),
            "replicas" | "slaves" => per_master(self, Self::replica_maps),
            "sentinels" => per_master(self, Self::sentinel_maps),
            "get-master-addr-by-name" => {
                let [master] = rest else { return arity("sentinel|get-master-addr-by-name") };
                let found = self.masters.iter().position(|one| one.config.name.as_bytes() == master.as_ref());
                match found.and_then(|m| self.decision(m)) {
                    Some(decision) => {
                        let (ip, port) = (decision.master.ip().to_string(), decision.master.port().to_string());
                        Answer::Reply(Reply::Array(vec![bulk(ip), bulk(port)]))
                    }
                    None => Answer::NullArray,
                }
            }
            "ckquorum" => match named(self) {
                Ok(m) => self.ckquorum(m),
                Err(refusal) => refusal,
            },
            "myid" if rest.is_empty() => Answer::Reply(bulk(self.me().to_string())),
            "failover" => match named(self) {
                Ok(_) if !self.trusted(client) => error("NOAUTH Authentication required."),
                Ok(m) => self.failover_command(m, now),
                Err(refusal) => refusal,
            },
            "switchover" => match rest {
                [master] | [master, _] => {
                    let found = self.masters.iter().position(|one| one.config.name.as_bytes() == master.as_ref());
                    match found {
                        None => error("ERR No such master with that name"),
                        Some(_) if !self.trusted(client) => error("NOAUTH Authentication required."),
                        Some(m) => {
                            self.switchover_command(m, client, rest.get(1).map(AsRef::as_ref), now);
                            Answer::Many(vec![])
                        }
                    }
                }
                _ => arity("sentinel|switchover"),
            },
            "help" => {
                let lines = render::HELP.iter().map(|line| Reply::Simple((*line).to_owned())).collect();
                Answer::Reply(Reply::Array(lines))
            }
            "myid" => arity("sentinel|myid"),
            "monitor" | "remove" | "set" | "reset" | "config" | "debug" | "flushconfig" | "info-cache"
            | "pending-scripts" | "simulate-failure" => error(format!(
                "ERR SENTINEL {} is not supported yet: what is watched, and how, is in the cluster file",
                name.to_ascii_uppercase()
            )),
            _ => error(format!("ERR unknown subcommand '{}'. Try SENTINEL HELP.", text(word))),
        }
    }

    /// `SENTINEL IS-MASTER-DOWN-BY-ADDR ip port epoch runid|*`: a vote stands behind the fence.
    fn answer_is_master_down(&mut self, client: ClientId, args: &[Bytes], now: Instant) {
        let answer = match args {
            [_, ip, port, epoch, candidate] => {
                let about = text(ip).parse().ok().zip(text(port).parse().ok());
                let epoch = text(epoch).parse::<Epoch>().ok();
                let candidate = (candidate.as_ref() != b"*").then(|| text(candidate).parse::<RunId>());
                match (about, epoch, candidate.transpose()) {
                    (None, _, _) => error("ERR Invalid IP address or port specified"),
                    (_, None, _) => error("ERR value is not an integer or out of range"),
                    (_, _, Err(why)) => error(format!("ERR {why}")),
                    (_, _, Ok(Some(_))) if !self.trusted(client) => error("NOAUTH Authentication required."),
                    (Some((ip, port)), Some(epoch), Ok(candidate)) => {
                        let about = SocketAddr::new(ip, port);
                        Answer::Reply(self.is_master_down(about, epoch, candidate, now))
                    }
                }
            }
            _ => arity("sentinel|is-master-down-by-addr"),
        };
        self.promised.push(client);
        self.fenced.push(Output::Respond(client, answer));
    }

    fn ckquorum(&self, m: usize) -> Answer {
        let peers = self.peers_of(m).map(|p| &self.peers[p]);
        let usable = 1 + peers.filter(|peer| peer.id.is_some() && peer.down_since.is_none()).count();
        let quorum = usize::try_from(self.masters[m].config.quorum).unwrap_or(usize::MAX);
        let mut faults = Vec::new();
        if usable < quorum {
            faults.push("Not enough available Sentinels to reach the specified quorum for this master");
        }
        if usable < self.majority(m) {
            faults.push("Not enough available Sentinels to reach the majority and authorize a failover");
        }
        if faults.is_empty() {
            simple(&format!("OK {usable} usable Sentinels. Quorum and failover authorization can be reached"))
        } else {
            error(format!("NOQUORUM {usable} usable Sentinels. {}", faults.join(". ")))
        }
    }
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

impl Sentinel {
    fn info_command(&self, sections: &[Bytes], now: Instant) -> Answer {
        let wanted: Vec<String> = sections.iter().map(|section| lower(section)).collect();
        let all =
            wanted.is_empty() || wanted.iter().any(|name| matches!(name.as_str(), "all" | "default" | "everything"));
        let parts = render::SECTIONS.iter().filter(|name| all || wanted.iter().any(|one| one == *name));
        let parts: Vec<String> = parts.map(|name| self.info_section(name, now)).collect();
        Answer::Reply(bulk(parts.join("\r\n")))
    }
}
