//! `CLIENT`: the connections of clients, as they are listed, chosen and closed.

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::{Answer, ClientId};
use crate::wire::resp::Reply;

use super::client::{Kind, Replies};
use super::clients::Filter;
use super::reply::{bulk, error, integer, lower, nothing, simple, syntax, text};
use super::state::Server;

impl Server {
    /// The words behind `CLIENT`, of which `name` is the first.
    pub(super) fn client_command(&mut self, client: ClientId, name: &str, args: &[Bytes], now: Instant) -> Answer {
        let Some(session) = self.clients.get_mut(client) else { return nothing() };
        match (name, args) {
            ("setname", [name]) => self.set_name(client, name),
            ("getname", _) => {
                let name = Some(session.name.clone()).filter(|name| !name.is_empty());
                Answer::Reply(name.map_or(Reply::Null, bulk))
            }
            ("id", _) => Answer::Reply(integer(client.0)),
            ("setinfo", [what, value]) => session.set_library(what, value),
            ("info", _) => Answer::Reply(Reply::prose(session.line(client, now) + "\n")),
            ("list", _) => self.client_list(args, now),
            ("kill", [address]) => self.kill_old(client, text(address), now),
            ("kill", _) => match self.kill_filter(args) {
                Ok(filter) => self.kill_all(client, &filter, now),
                Err(refusal) => refusal,
            },
            ("reply", [mode]) => {
                session.replies = match (lower(mode).as_str(), session.replies) {
                    ("on", _) => Replies::On,
                    ("off", _) | ("skip", Replies::Off) => Replies::Off,
                    ("skip", _) => Replies::SkipNext,
                    _ => return syntax(),
                };
                if session.replies == Replies::On { simple("OK") } else { nothing() }
            }
            ("no-evict", [mode]) => match lower(mode).as_str() {
                mode @ ("on" | "off") => {
                    session.no_evict = mode == "on";
                    simple("OK")
                }
                _ => syntax(),
            },
            ("unpause", _) => simple("OK"),
            ("unblock", [id, how @ ..]) => unblock(id, how),
            ("caching", _) => error(
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
                 enabled",
            ),
            ("getredir", _) => Answer::Reply(Reply::Integer(if session.tracking { 0 } else { -1 })),
            ("tracking", [mode, options @ ..]) => session.track(&lower(mode), options),
            ("trackinginfo", _) => {
                let flag = if session.tracking { "on" } else { "off" };
                Answer::Reply(Reply::map([
                    ("flags", Reply::set(vec![bulk(flag)])),
                    ("redirect", Reply::Integer(if session.tracking { 0 } else { -1 })),
                    ("prefixes", Reply::Array(vec![])),
                ]))
            }
            _ => syntax(),
        }
    }

    fn client_list(&self, args: &[Bytes], now: Instant) -> Answer {
        let mut ids: Option<Vec<u64>> = None;
        let mut filter = Filter { own: true, ..Filter::default() };
        match args {
            [] => {}
            [option, kind] if lower(option) == "type" => match Kind::parse(kind) {
                Ok(kind) => filter.kind = Some(kind),
                Err(refusal) => return refusal,
            },
            [option, numbers @ ..] if lower(option) == "id" && !numbers.is_empty() => {
                match numbers.iter().map(|number| text(number).parse().ok()).collect::<Option<Vec<u64>>>() {
                    Some(numbers) => ids = Some(numbers),
                    None => return error("ERR Invalid client ID"),
                }
            }
            _ => return syntax(),
        }
        let lines = self.clients.iter().filter(|(id, _)| ids.as_ref().is_none_or(|ids| ids.contains(&id.0)));
        let lines = lines.filter(|(id, client)| filter.fits(*id, client, ClientId(0), now));
        Answer::Reply(Reply::prose(lines.map(|(id, client)| client.line(id, now) + "\n").collect::<String>()))
    }

    fn kill_filter(&self, args: &[Bytes]) -> Result<Filter, Answer> {
        let mut filter = Filter::default();
        if !args.len().is_multiple_of(2) {
            return Err(syntax());
        }
        for pair in args.chunks_exact(2) {
            let value = text(&pair[1]);
            match lower(&pair[0]).as_str() {
                "id" => match value.parse().ok().filter(|id| *id > 0) {
                    Some(id) => filter.id = Some(id),
                    None => return Err(error("ERR client-id should be greater than 0")),
                },
                "type" => filter.kind = Some(Kind::parse(&pair[1])?),
                "user" => {
                    if !self.access.knows(value) {
                        return Err(error(format!("ERR No such user '{value}'")));
                    }
                    filter.user = Some(value.to_owned());
                }
                "addr" => filter.peer = Some(value.to_owned()),
                "laddr" => filter.local = Some(value.to_owned()),
                "maxage" => match value.parse() {
                    Ok(age) => filter.age = Some(age),
                    Err(_) => return Err(error("ERR maxage is not an integer or out of range")),
                },
                "skipme" => match value.to_ascii_lowercase().as_str() {
                    "yes" => filter.own = false,
                    "no" => filter.own = true,
                    _ => return Err(syntax()),
                },
                _ => return Err(syntax()),
            }
        }
        Ok(filter)
    }

    /// `CLIENT KILL ip:port`: one connection, or an error.
    fn kill_old(&mut self, client: ClientId, address: &str, now: Instant) -> Answer {
        let filter = Filter { peer: Some(address.to_owned()), own: true, ..Filter::default() };
        let killed = self.kill_some(client, &filter, now);
        let answer = if killed == 0 { error("ERR No such client") } else { simple("OK") };
        self.answer_and_go(client, answer, &filter, now)
    }

    fn kill_all(&mut self, client: ClientId, filter: &Filter, now: Instant) -> Answer {
        let killed = self.kill_some(client, filter, now);
        self.answer_and_go(client, Answer::Reply(integer(killed)), filter, now)
    }

    /// Closes all that fit but the one that asks; how many fit, that one among them.
    fn kill_some(&mut self, client: ClientId, filter: &Filter, now: Instant) -> usize {
        let chosen = self.clients.which(|id, session| filter.fits(id, session, client, now));
        for other in chosen.iter().filter(|id| **id != client) {
            self.kill(*other);
        }
        chosen.len()
    }

    /// The one that asks has its answer before it goes itself.
    fn answer_and_go(&mut self, client: ClientId, answer: Answer, filter: &Filter, now: Instant) -> Answer {
        let goes = self.clients.get(client).is_some_and(|session| filter.fits(client, session, client, now));
        if !goes {
            return answer;
        }
        self.dismiss_with(client, answer);
        nothing()
    }
}

fn unblock(id: &[u8], how: &[Bytes]) -> Answer {
    match how {
        [] => {}
        [how] if matches!(lower(how).as_str(), "timeout" | "error") => {}
        _ => return error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
    }
    match text(id).parse::<i64>() {
        // Nobody ever blocks.
        Ok(_) => Answer::Reply(Reply::Integer(0)),
        Err(_) => error("ERR value is not an integer or out of range"),
    }
}
