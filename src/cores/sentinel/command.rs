//! The commands of clients and of other sentinels.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::{Epoch, Instant, RunId};
use crate::wire::resp::Reply;

use super::session::{arity, bulk, error, lower, simple, text};
use super::{Answer, ClientId, Output, Sentinel, render};

impl Sentinel {
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
            "ping" => Self::ping(subscribed, rest),
            "auth" => self.auth(client, rest),
            "hello" => self.hello_command(client, rest),
            "info" => self.info_command(rest, now),
            "role" => self.role_command(),
            "subscribe" | "psubscribe" | "unsubscribe" | "punsubscribe" => self.subscribe(client, &name, rest),
            "publish" => self.publish_command(client, rest, now),
            "client" => self.client_command(client, rest),
            "command" => Self::command_command(rest),
            "quit" => return self.quit(client),
            "reset" => self.reset(client),
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
                match found.and_then(|m| self.durable.decision(m)) {
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
        let usable = 1 + self.peers.iter().filter(|peer| peer.id.is_some() && peer.down_since.is_none()).count();
        let quorum = usize::try_from(self.masters[m].config.quorum).unwrap_or(usize::MAX);
        let mut faults = Vec::new();
        if usable < quorum {
            faults.push("Not enough available Sentinels to reach the specified quorum for this master");
        }
        if usable < self.majority() {
            faults.push("Not enough available Sentinels to reach the majority and authorize a failover");
        }
        if faults.is_empty() {
            simple(&format!("OK {usable} usable Sentinels. Quorum and failover authorization can be reached"))
        } else {
            error(format!("NOQUORUM {usable} usable Sentinels. {}", faults.join(". ")))
        }
    }
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
