//! The commands of clients and of other sentinels.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::{Epoch, Instant, Place, RunId};
use crate::wire::resp::{Reply, Rich};

use super::session::{Replies, arity, bulk, error, nothing, simple, text};
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
            ("sentinel", "is-master-down-by-addr") => self.answer_is_master_down(client, behind, now),
            ("sentinel", _) => self.sentinel_command(client, sub, behind, now),
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

    /// Carries out a SENTINEL command; the table has judged its arity, and whether this client may give it.
    fn sentinel_command(&mut self, client: ClientId, name: &str, args: &[Bytes], now: Instant) -> Answer {
        match (name, args) {
            ("masters", _) => {
                Answer::Reply(Reply::Array((0..self.masters.len()).map(|m| self.master_map(m, now)).collect()))
            }
            ("myid", _) => Answer::Reply(bulk(self.me().to_string())),
            ("pending-scripts", _) => Answer::Reply(self.scripts.pending(now)),
            ("info-cache", names) => self.info_cache(names, now),
            ("debug", pairs) => self.debug_command(pairs),
            ("simulate-failure", flags) => self.simulate_command(flags),
            ("reset", [pattern]) => self.reset_command(pattern, now),
            ("monitor", _) => self.monitor_command(client, args, now),
            ("remove", [master]) => self.remove_command(client, master),
            ("set", [master, options @ ..]) => self.set_command(client, master, options),
            ("config", [verb, words @ ..]) => self.config_command(client, verb, words),
            ("flushconfig", _) => self.flush_command(client),
            ("get-master-addr-by-name", [master]) => self.address_command(client, master),
            (_, [master, rest @ ..]) => match self.find(master) {
                Ok(m) => self.master_command(client, name, m, rest, now),
                Err(refusal) => refusal,
            },
            (_, []) => arity(&format!("sentinel|{name}")),
        }
    }

    /// One that is about a master.
    fn master_command(&mut self, client: ClientId, name: &str, m: usize, rest: &[Bytes], now: Instant) -> Answer {
        match (name, rest) {
            ("master", _) => Answer::Reply(self.master_map(m, now)),
            ("replicas" | "slaves", _) => Answer::Reply(self.replica_maps(m, now)),
            ("sentinels", _) => Answer::Reply(self.sentinel_maps(m, now)),
            ("ckquorum", _) => self.ckquorum(m),
            ("failover", []) => self.failover_command(m, false, now),
            ("failover", [option]) if option.eq_ignore_ascii_case(b"coordinated") => {
                self.failover_command(m, true, now)
            }
            ("failover", [_]) => error("ERR Unknown failover option specified"),
            ("switchover", [] | [_]) => {
                self.switchover_command(m, client, rest.first().map(AsRef::as_ref), now);
                nothing()
            }
            _ => arity(&format!("sentinel|{name}")),
        }
    }

    /// The place of a master of that name.
    pub(super) fn find(&self, name: &[u8]) -> Result<usize, Answer> {
        let found = self.masters.iter().position(|master| master.config.name.as_bytes() == name);
        found.ok_or_else(|| error("ERR No such master with that name"))
    }

    /// `SENTINEL GET-MASTER-ADDR-BY-NAME name`.
    fn address_command(&mut self, client: ClientId, name: &[u8]) -> Answer {
        let found = self.find(name).ok().filter(|m| self.decision(*m).is_some());
        let Some(m) = found else { return Answer::Reply(Reply::Rich(Rich::NullArray)) };
        let Place { host, port } = self.told_place(m);
        let answer = Answer::Reply(Reply::Array(vec![bulk(host), bulk(port.to_string())]));
        // Nobody hears of a decision that a crash could undo.
        if self.masters[m].unstored { self.promise(client, answer) } else { answer }
    }

    /// Puts an answer behind the fence.
    fn promise(&mut self, client: ClientId, answer: Answer) -> Answer {
        self.promised.push(client);
        self.fenced.push(Output::Respond(client, answer));
        nothing()
    }

    /// `SENTINEL IS-MASTER-DOWN-BY-ADDR ip port epoch runid|*`: a vote stands behind the fence.
    fn answer_is_master_down(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Answer {
        let [ip, port, epoch, candidate] = args else { return arity("sentinel|is-master-down-by-addr") };
        let place = text(port).parse().ok().and_then(|port| Place::new(text(ip), port));
        let epoch = text(epoch).parse::<Epoch>().ok();
        let candidate = (candidate.as_ref() != b"*").then(|| text(candidate).parse::<RunId>());
        let answer = match (place, epoch, candidate.transpose()) {
            (None, _, _) => error("ERR Invalid IP address or port specified"),
            (_, None, _) => error("ERR value is not an integer or out of range"),
            (_, _, Err(why)) => error(format!("ERR {why}")),
            (Some(place), Some(epoch), Ok(candidate)) => {
                // A name that is not known is no master of this sentinel.
                let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                let about = self.address_of(&place).unwrap_or(nowhere);
                Answer::Reply(self.is_master_down(about, epoch, candidate, now))
            }
        };
        self.promise(client, answer)
    }

    fn ckquorum(&self, m: usize) -> Answer {
        let peers = self.peers_of(m).map(|p| &self.peers[p]);
        let usable = 1 + peers.filter(|peer| peer.id.is_some() && peer.down_since.is_none()).count();
        let quorum = usize::try_from(self.masters[m].config.quorum).unwrap_or(usize::MAX);
        let mut faults = Vec::new();
        if usable < quorum {
            faults.push("Not enough available Sentinels to reach the specified quorum for this master");
        }
        if usable < self.majority(&self.masters[m]) {
            faults.push("Not enough available Sentinels to reach the majority and authorize a failover");
        }
        if faults.is_empty() {
            simple(&format!("OK {usable} usable Sentinels. Quorum and failover authorization can be reached"))
        } else {
            error(format!("NOQUORUM {usable} usable Sentinels. {}", faults.join(". ")))
        }
    }
}
