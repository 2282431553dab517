//! The redis that a sentinel under test watches: each says of itself what the script has said, and does what it is told
//! unless the script has said otherwise.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use vigie::base::RunId;
use vigie::base::node::{History, Process, RedisFacts, RedisRole};
use vigie::cores::sentinel::{LinkId, NodeFacts};
use vigie::wire::info::CLOSED;
use vigie::wire::resp::Reply;

use super::Line;
use crate::words::{Words, unexpected};

/// One redis-server.
pub(super) struct Redis {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) line: Line,
    said: Said,
    /// Commands that are answered by an error, by how they begin.
    refuses: Vec<(String, String)>,
    /// Commands that are answered and have no effect, by how they begin.
    ignores: Vec<String>,
    /// Whether it is not in sync at once with whom it is pointed at.
    late: bool,
    /// What was queued since MULTI.
    queued: BTreeMap<LinkId, Vec<Vec<String>>>,
}

/// What it says of itself.
struct Said {
    /// None: a master.
    of: Option<SocketAddr>,
    link: Link,
    offset: Option<u64>,
    priority: u32,
    lineage: u8,
    /// Its lineage before it was made a master.
    earlier: u8,
    run: u8,
    loading: bool,
    syncing: bool,
    keys: bool,
}

/// Its link to its master.
enum Link {
    Up,
    DownFor(Duration),
    Never,
}

impl Redis {
    /// A redis that holds data, closed or following `of`; none: a master.
    pub(super) fn new(name: String, address: SocketAddr, of: Option<SocketAddr>) -> Self {
        let link = if of == Some(CLOSED) { Link::Never } else { Link::Up };
        Self {
            name,
            address,
            line: Line::Up,
            said: Said {
                of,
                link,
                offset: Some(1000),
                priority: 100,
                lineage: 1,
                earlier: 0,
                run: 1,
                loading: false,
                syncing: false,
                keys: true,
            },
            refuses: Vec::new(),
            ignores: Vec::new(),
            late: false,
            queued: BTreeMap::new(),
        }
    }

    /// `obeys`, `late`, `refuses "COMMAND" "error"`, `ignores "COMMAND"`
    pub(super) fn manners(&mut self, word: &str, words: &mut Words) -> Result<(), String> {
        match word {
            "obeys" => (self.refuses, self.ignores, self.late) = (Vec::new(), Vec::new(), false),
            "late" => self.late = true,
            "refuses" => self.refuses.push((words.next("a command")?, words.next("an error in quotes")?)),
            "ignores" => self.ignores.push(words.next("a command")?),
            other => return Err(unexpected(other, "up, silent, down, obeys, late, refuses or ignores")),
        }
        Ok(())
    }

    fn text(&self, attached: &[SocketAddr]) -> String {
        let id = |kind: u8, number: u8| {
            let mut id = [kind; 20];
            (id[0], id[1]) = (self.address.port().to_be_bytes()[0], number);
            RunId(id)
        };
        let Said { of, link, offset, priority, lineage, earlier, run, loading, syncing, keys } = &self.said;
        let own = self.name.bytes().next().unwrap_or_default();
        let mut text = format!("run_id:{}\r\nloading:{}\r\n", id(own, *run), u8::from(*loading));
        let _ = write!(text, "master_replid:{}\r\n", id(0xee, *lineage));
        if *earlier > 0 {
            let _ = write!(text, "master_replid2:{}\r\n", id(0xee, *earlier));
        }
        if let Some(offset) = offset {
            let key = if of.is_some() { "slave" } else { "master" };
            let _ = write!(text, "{key}_repl_offset:{offset}\r\n");
        }
        if let Some(of) = of {
            let _ = write!(text, "role:slave\r\nmaster_host:{}\r\nmaster_port:{}\r\n", of.ip(), of.port());
            let _ = write!(text, "slave_priority:{priority}\r\nmaster_sync_in_progress:{}\r\n", u8::from(*syncing));
            text += &match link {
                Link::Up => "master_link_status:up\r\n".to_owned(),
                Link::DownFor(time) => {
                    format!("master_link_status:down\r\nmaster_link_down_since_seconds:{}\r\n", time.as_secs())
                }
                Link::Never => "master_link_status:down\r\nmaster_link_down_since_seconds:-1\r\n".to_owned(),
            };
        } else {
            text += "role:master\r\n";
            for (place, address) in attached.iter().enumerate() {
                let (ip, port) = (address.ip(), address.port());
                let _ = write!(text, "slave{place}:ip={ip},port={port},state=online,offset=1,lag=0\r\n");
            }
        }
        text + "# Keyspace\r\n" + if *keys { "db0:keys=1,expires=0,avg_ttl=0\r\n" } else { "" }
    }
}

/// `info A …`: changes what it says of itself. `place`: the address of a redis by its name.
pub(super) fn info(
    redis: &mut Redis,
    words: &mut Words,
    place: impl Fn(&mut Words) -> Result<SocketAddr, String>,
) -> Result<(), String> {
    let said = &mut redis.said;
    while !words.is_empty() {
        match words.next("a word of INFO")?.as_str() {
            "master" => said.of = None,
            "replica" => {
                words.keyword("of")?;
                said.of = Some(place(words)?);
            }
            "closed" => (said.of, said.link) = (Some(CLOSED), Link::Never),
            "up" => said.link = Link::Up,
            "down" => said.link = Link::DownFor(words.duration()?),
            "never" => {
                words.keyword("linked")?;
                said.link = Link::Never;
            }
            "offset" => said.offset = if words.optional("none") { None } else { Some(words.value("an offset")?) },
            "priority" => said.priority = words.value("a priority")?,
            "lineage" => said.lineage = words.value("a number")?,
            "run" => said.run = words.value("a number")?,
            "loading" => said.loading = true,
            "loaded" => said.loading = false,
            "syncing" => said.syncing = true,
            "whole" => said.syncing = false,
            "empty" => said.keys = false,
            "keys" => said.keys = true,
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
        "silent" => return Ok(NodeFacts { node, redis: None, sentinel: None, fresh: false }),
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
        priority: redis.said.priority,
        has_data: redis.said.keys,
        history,
    };
    Ok(NodeFacts { node, redis: Some(facts), sentinel: None, fresh: true })
}

/// What redis `n` answers on that link.
pub(super) fn answer(all: &mut [Redis], n: usize, link: LinkId, words: &[String]) -> Reply {
    let ok = || Reply::Simple("OK".to_owned());
    let line = words.join(" ").to_ascii_uppercase();
    let begins = |with: &str| line.starts_with(&with.to_ascii_uppercase());
    if let Some(queued) = all[n].queued.get_mut(&link).filter(|_| line != "EXEC") {
        queued.push(words.to_vec());
        return Reply::Simple("QUEUED".to_owned());
    }
    if let Some((_, error)) = all[n].refuses.iter().find(|(command, _)| begins(command)) {
        return Reply::Error(error.clone());
    }
    if all[n].ignores.iter().any(|command| begins(command)) {
        return ok();
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["PING"] => Reply::Simple("PONG".to_owned()),
        ["INFO", ..] => {
            let own = all[n].address;
            let follows = |one: &&Redis| one.said.of == Some(own) && matches!(one.said.link, Link::Up);
            let attached: Vec<_> = all.iter().filter(follows).map(|one| one.address).collect();
            Reply::Bulk(all[n].text(&attached).into())
        }
        ["ROLE"] => {
            let role = if all[n].said.of.is_none() { "master" } else { "slave" };
            Reply::Array(vec![Reply::Bulk(role.into())])
        }
        ["MULTI"] => {
            all[n].queued.insert(link, Vec::new());
            ok()
        }
        ["EXEC"] => {
            let queued = all[n].queued.remove(&link).unwrap_or_default();
            Reply::Array(queued.iter().map(|words| answer(all, n, link, words)).collect())
        }
        ["REPLICAOF" | "SLAVEOF", "NO", "ONE"] => {
            let said = &mut all[n].said;
            if said.of.take().is_some() {
                (said.earlier, said.lineage) = (said.lineage, said.lineage + 1);
            }
            ok()
        }
        ["REPLICAOF" | "SLAVEOF", host, port] => {
            if let Ok(to) = format!("{host}:{port}").parse() {
                follow(all, n, to);
            }
            ok()
        }
        _ => ok(),
    }
}

fn follow(all: &mut [Redis], n: usize, to: SocketAddr) {
    if all[n].said.of == Some(to) {
        return;
    }
    all[n].said.of = Some(to);
    all[n].said.link = Link::Never;
    let source = all.iter().find(|one| one.address == to && matches!(one.line, Line::Up));
    if let Some(lineage) = source.filter(|_| !all[n].late).map(|source| source.said.lineage) {
        (all[n].said.link, all[n].said.lineage) = (Link::Up, lineage);
    }
}
