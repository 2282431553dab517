//! The redis that a sentinel under test watches: each says and does what the [model](crate::model) does, unless the script has
//! said otherwise.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use vigie::base::node::{History, Process, RedisFacts, RedisRole};
use vigie::base::{Instant, RunId};
use vigie::cores::sentinel::{Input, LinkId, NodeFacts, Tag};
use vigie::wire::info::CLOSED;

use super::Line;
use crate::model::{Effect, Link, Moment, Server, Session, Words as Said};
use crate::words::{Words, unexpected};

/// One redis-server.
pub(super) struct Redis {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) line: Line,
    server: Server,
    sessions: BTreeMap<LinkId, Session>,
    /// What a pause holds: what its replies will answer.
    held: Vec<(LinkId, Tag)>,
}

/// The run of that number of a redis.
fn run(name: &str, number: u8) -> RunId {
    let mut id = [name.bytes().next().unwrap_or_default(); 20];
    id[1] = number;
    RunId(id)
}

/// The lineage of that number, which any redis may have.
fn lineage(number: u8) -> RunId {
    let mut id = [0xee; 20];
    id[1] = number;
    RunId(id)
}

impl Redis {
    /// A redis that holds data, closed or following `of`; none: a master.
    pub(super) fn new(name: String, address: SocketAddr, of: Option<SocketAddr>) -> Self {
        let mut server = Server::new(of, lineage(1));
        server.start(run(&name, 1), lineage(1), of);
        server.write(1);
        server.set_offset(1_000);
        (server.backlog, server.fed_by) = (true, server.incarnation);
        if of.is_some_and(|of| of != CLOSED) {
            server.link = Link::Up;
        }
        Self { name, address, line: Line::Up, server, sessions: BTreeMap::new(), held: Vec::new() }
    }

    /// `obeys`, `late`, `refuses "COMMAND" "error"`, `ignores "COMMAND"`
    pub(super) fn manners(&mut self, word: &str, words: &mut Words) -> Result<(), String> {
        let server = &mut self.server;
        match word {
            "obeys" => (server.refuses, server.ignores, server.shut_out) = (Vec::new(), Vec::new(), false),
            "late" => server.shut_out = true,
            "refuses" => server.refuses.push((words.next("a command")?, words.next("an error in quotes")?)),
            "ignores" => server.ignores.push(words.next("a command")?),
            other => return Err(unexpected(other, "up, silent, down, obeys, late, refuses or ignores")),
        }
        Ok(())
    }

    /// A connection has ended.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.sessions.remove(&link);
        self.held.retain(|(held, _)| *held != link);
    }
}

/// `info A …`: changes what it says of itself. `place`: the address of a redis by its name.
pub(super) fn info(
    redis: &mut Redis,
    now: Instant,
    words: &mut Words,
    place: impl Fn(&mut Words) -> Result<SocketAddr, String>,
) -> Result<(), String> {
    let (name, server) = (&redis.name, &mut redis.server);
    while !words.is_empty() {
        match words.next("a word of INFO")?.as_str() {
            "master" => (server.master, server.link) = (None, Link::None),
            "replica" => {
                words.keyword("of")?;
                server.master = Some(place(words)?);
                if server.link == Link::None {
                    server.link = Link::Up;
                }
            }
            "closed" => (server.master, server.link) = (Some(CLOSED), Link::Down(None)),
            "up" => server.link = Link::Up,
            "down" => server.link = Link::Down(Some(now - words.duration()?)),
            "never" => {
                words.keyword("linked")?;
                server.link = Link::Down(None);
            }
            "offset" => {
                server.without_offset = words.optional("none");
                if !server.without_offset {
                    server.set_offset(words.value("an offset")?);
                }
            }
            "priority" => server.priority = words.value("a priority")?,
            "lineage" => server.replid = lineage(words.value("a number")?),
            "run" => server.run_id = run(name, words.value("a number")?),
            "loading" => server.loading = true,
            "loaded" => server.loading = false,
            "syncing" => server.link = Link::Copying(None),
            "whole" => server.link = Link::Up,
            "empty" => server.holds(0),
            "keys" => server.holds(1),
            other => {
                let known = "master, replica, closed, up, down, never, offset, priority, lineage, run, loading, loaded, \
                             syncing, whole, empty or keys";
                return Err(unexpected(other, known));
            }
        }
    }
    Ok(())
}

/// `dead|alive|busy|loading|starting incarnation N [master|closed|replica of A] [synced epoch N offset N]`, `silent`: the
/// word of a supervisor.
pub(super) fn supervisor(
    redis: &Redis,
    words: &mut Words,
    place: impl Fn(&mut Words) -> Result<SocketAddr, String>,
) -> Result<NodeFacts, String> {
    let node = redis.name.parse().map_err(|error| format!("{error}"))?;
    let process = match words.next("the state of the process")?.as_str() {
        "silent" => return Ok(NodeFacts::unfenced(node, None, None, false)),
        "dead" => Process::Dead,
        "alive" => Process::Alive,
        "busy" => Process::Busy,
        "loading" => Process::Loading,
        "starting" => Process::Starting,
        other => return Err(unexpected(other, "dead, alive, busy, loading, starting or silent")),
    };
    words.keyword("incarnation")?;
    let incarnation = words.value("a number")?;
    let role = if words.optional("master") {
        RedisRole::Master { replicas: 0 }
    } else if words.optional("closed") {
        RedisRole::Closed
    } else if words.optional("replica") {
        words.keyword("of")?;
        RedisRole::Replica { of: place(words)?, link_up: true }
    } else {
        RedisRole::Unknown
    };
    let mut history = None;
    if words.optional("synced") {
        words.keyword("epoch")?;
        let epoch = words.value("an epoch")?;
        words.keyword("offset")?;
        history = Some(History { epoch, in_sync: true, offset: words.value("an offset")? });
    }
    let facts = RedisFacts {
        address: redis.address,
        incarnation,
        process,
        role,
        run_id: None,
        replication_id: None,
        offset: 0,
        priority: redis.server.priority,
        has_data: !redis.server.data.is_empty(),
        history,
    };
    Ok(NodeFacts::unfenced(node, Some(facts), None, true))
}

/// What comes back when a command reaches redis `n`.
pub(super) fn hears(all: &mut [Redis], n: usize, now: Instant, (link, tag): (LinkId, Tag), words: Said) -> Vec<Input> {
    let own = all[n].address;
    let attached = all.iter().filter(|one| one.server.is_attached_to(&all[n].server, own));
    let replicas: Vec<_> = attached.map(|one| one.server.attached(one.address)).collect();
    let redis = &mut all[n];
    let next = lineage(redis.server.replid.0[1] + 1);
    let moment = Moment { now, replicas: &replicas, id: &mut || next };
    let heard = redis.server.command(redis.sessions.entry(link).or_default(), words, moment);
    let mut inputs = Vec::new();
    for effect in heard.effects {
        match effect {
            Effect::Follows(master) => follows(all, n, master),
            Effect::Released => inputs.extend(released(all, n, now)),
            // Nobody but the sentinel under test is connected, and its connections end when the script says so.
            Effect::Promoted | Effect::Published(_) | Effect::Fenced | Effect::Paused | Effect::Killed { .. } => {}
        }
    }
    match heard.reply {
        Some(reply) => inputs.push(Input::Reply(link, tag, reply)),
        None => all[n].held.push((link, tag)),
    }
    inputs
}

/// What comes back from redis `n` as its pause has ended by itself, if it has.
pub(super) fn pause_over(all: &mut [Redis], n: usize, now: Instant) -> Vec<Input> {
    let redis = &mut all[n];
    let over = redis.line == Line::Up && redis.server.pause.take_if(|until| *until <= now).is_some();
    if over { released(all, n, now) } else { Vec::new() }
}

fn released(all: &mut [Redis], n: usize, now: Instant) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (link, tag) in std::mem::take(&mut all[n].held) {
        let blocked = all[n].sessions.get_mut(&link).and_then(|session| session.blocked.pop_front());
        inputs.extend(blocked.into_iter().flat_map(|words| hears(all, n, now, (link, tag), words)));
    }
    inputs
}

/// It is in sync with its new master at once, if that can be reached.
fn follows(all: &mut [Redis], n: usize, master: SocketAddr) {
    let source = all.iter().position(|one| one.address == master && matches!(one.line, Line::Up));
    let Some(source) = source.filter(|source| *source != n && !all[n].server.shut_out) else { return };
    let [redis, source] = all.get_disjoint_mut([n, source]).expect("two of them");
    redis.server.feed_from(&mut source.server, &mut || lineage(0));
}
