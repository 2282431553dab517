//! The commands of clients and of other sentinels.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::{Epoch, Instant, Place, RunId};
use crate::wire::resp::Reply;

pub(super) use super::session::arity;
use super::session::{Replies, bulk, error, lower, nothing, simple, text};
use super::table::Spec;
use super::{Answer, ClientId, Output, Sentinel};

impl Sentinel {
    pub(super) fn command(&mut self, client: ClientId, args: &[Bytes], now: Instant) {
        let Some(session) = self.clients.get_mut(&client) else { return };
        session.last_at = now;
        if session.replies == Replies::SkipNext {
            session.replies = Replies::Skipping;
            self.desk.skipping = Some(client);
        }
        self.desk.commands += 1;
        self.desk.pace.count(now, 1);
        // A browser that was made to talk to this port: what follows are words of others in its user's name.
        if args.first().is_some_and(|word| word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:")) {
            return self.kill(client);
        }
        let answer = match self.admit(client, args, now) {
            Ok(spec) => self.give(client, spec, args, now),
            Err(refusal) => error(refusal),
        };
        self.desk.errors += u64::from(matches!(answer, Answer::Reply(Reply::Error(_))));
        if answer != nothing() {
            self.free.push(Output::Respond(client, answer));
        }
    }

    /// Carries out a command that may be given.
    fn give(&mut self, client: ClientId, spec: &Spec, args: &[Bytes], now: Instant) -> Answer {
        let rest = args.get(1..).unwrap_or_default();
        let behind = rest.get(1..).unwrap_or_default();
        let (name, sub) = spec.meaning().split_once('|').unwrap_or((spec.name, ""));
        match (name, sub) {
            ("acl" | "client" | "command" | "sentinel", "help") => Self::help(name),
            ("acl", _) => self.acl_command(client, sub, behind, now),
            ("client", _) => self.client_command(client, sub, behind, now),
            ("command", "") => Self::command_all(),
            ("command", _) => Self::command_command(sub, behind),
            ("sentinel", "is-master-down-by-addr") => {
                self.answer_is_master_down(client, rest, now);
                nothing()
            }
            ("sentinel", _) => {
                let words: Vec<Bytes> = std::iter::once(Bytes::from(sub)).chain(behind.iter().cloned()).collect();
                self.sentinel_command(client, &words, now).unwrap_or_else(nothing)
            }
            ("ping", _) => self.ping(client, rest),
            ("auth", _) => self.auth(client, rest, now),
            ("hello", _) => self.hello_command(client, rest, now),
            ("info", _) => self.info_command(client, rest),
            ("role", _) => self.role_command(),
            ("subscribe" | "psubscribe" | "unsubscribe" | "punsubscribe", _) => self.subscribe(client, name, rest),
            ("publish", _) => self.publish_command(rest, now),
            ("quit", _) => {
                self.quit(client);
                nothing()
            }
            ("reset", _) => self.reset(client, now),
            ("shutdown", _) => self.shutdown(rest, now),
            _ => error(format!("ERR '{}' is not offered", spec.name)),
        }
    }

    /// None: it is answered later.
    fn sentinel_command(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Option<Answer> {
        let Some((word, rest)) = args.split_first() else { return Some(arity("sentinel")) };
        let name = lower(word);
        match name.as_str() {
            "monitor" => return self.monitor_command(client, rest, now),
            "remove" => return self.remove_command(client, rest),
            "set" => return self.set_command(client, rest),
            "config" => return self.config_command(client, rest),
            "flushconfig" if rest.is_empty() => {
                self.flush_command(client);
                return None;
            }
            _ => {}
        }
        Some(self.answer_at_once(client, &name, word, rest, now)).filter(|answer| *answer != Answer::Many(vec![]))
    }

    fn answer_at_once(&mut self, client: ClientId, name: &str, word: &[u8], rest: &[Bytes], now: Instant) -> Answer {
        let named = |sentinel: &Self| {
            let [master] = rest else { return Err(arity(&format!("sentinel|{name}"))) };
            let found = sentinel.masters.iter().position(|one| one.config.name.as_bytes() == master.as_ref());
            found.ok_or_else(|| error("ERR No such master with that name"))
        };
        let per_master = |sentinel: &Self, show: fn(&Self, usize, Instant) -> Reply| match named(sentinel) {
            Ok(m) => Answer::Reply(show(sentinel, m, now)),
            Err(refusal) => refusal,
        };
        match name {
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
                match found.filter(|m| self.decision(*m).is_some()) {
                    Some(m) => {
                        let Place { host, port } = self.told_place(m);
                        let answer = Answer::Reply(Reply::Array(vec![bulk(host), bulk(port.to_string())]));
                        if !self.masters[m].unstored {
                            return answer;
                        }
                        // Nobody hears of a decision that a crash could undo.
                        self.promised.push(client);
                        self.fenced.push(Output::Respond(client, answer));
                        nothing()
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
                Ok(m) => self.failover_command(m, now),
                Err(refusal) => refusal,
            },
            "reset" => match rest {
                [pattern] => self.reset_command(pattern, now),
                _ => arity("sentinel|reset"),
            },
            "debug" => self.debug_command(rest),
            "simulate-failure" if !rest.is_empty() => self.simulate_command(rest),
            "simulate-failure" => arity("sentinel|simulate-failure"),
            "flushconfig" => arity("sentinel|flushconfig"),
            "info-cache" if !rest.is_empty() => self.info_cache(rest, now),
            "info-cache" => arity("sentinel|info-cache"),
            "pending-scripts" if rest.is_empty() => Answer::Reply(self.scripts.pending(now)),
            "pending-scripts" => arity("sentinel|pending-scripts"),
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
            "myid" => arity("sentinel|myid"),
            _ => error(format!("ERR unknown subcommand '{}'. Try SENTINEL HELP.", text(word))),
        }
    }

    /// `SENTINEL IS-MASTER-DOWN-BY-ADDR ip port epoch runid|*`: a vote stands behind the fence.
    fn answer_is_master_down(&mut self, client: ClientId, args: &[Bytes], now: Instant) {
        let answer = match args {
            [_, ip, port, epoch, candidate] => {
                let place = text(port).parse().ok().and_then(|port| Place::new(text(ip), port));
                let epoch = text(epoch).parse::<Epoch>().ok();
                let candidate = (candidate.as_ref() != b"*").then(|| text(candidate).parse::<RunId>());
                match (place, epoch, candidate.transpose()) {
                    (None, _, _) => error("ERR Invalid IP address or port specified"),
                    (_, None, _) => error("ERR value is not an integer or out of range"),
                    (_, _, Err(why)) => error(format!("ERR {why}")),
                    (_, _, Ok(Some(_))) if !self.trusted(client) => error("NOAUTH Authentication required."),
                    (Some(place), Some(epoch), Ok(candidate)) => {
                        // A name that is not known is no master of this sentinel.
                        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                        let about = self.address_of(&place).unwrap_or(nowhere);
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
