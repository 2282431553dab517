//! The sentinel: `cores::sentinel`. One core is under test; all redis and the other sentinels are said by the script.

#[path = "sentinel/others.rs"]
mod others;
#[path = "sentinel/redis.rs"]
mod redis;
#[path = "sentinel/scene.rs"]
mod scene;
#[path = "sentinel/show.rs"]
mod show;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use vigie::base::{Epoch, Instant, Machine, RunId};
use vigie::cores::sentinel::{Answer, ClientId, Input, LinkId, NodeFacts, OrderId, Output, Sentinel, Sockets, Tag};

use crate::form::World;
use crate::model::Words as Said;
use crate::stage::{BEGIN, Line, line};
use crate::words::{Words, unexpected};
use others::Other;
use redis::Redis;
use scene::Scene;
use show::Shown;

/// The name that clients ask for.
const MASTER: &str = "mymaster";
/// Until then all links are open, and everybody has said what it is.
const SETTLED: Duration = Duration::from_secs(3);
/// Nothing that is answered at once goes on for longer.
const TURNS_MAX: usize = 1_000;
/// Asks for the state; no other order or client has this number.
const OBSERVER: u64 = 0;

/// Who is at the other end of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Far {
    Redis(usize),
    Other(usize),
}

/// A sentinel, its disk, and all that it talks to.
pub(crate) struct Site {
    core: Sentinel,
    /// Whether it has no cluster file.
    drop_in: bool,
    now: Instant,
    /// Where the transcript counts from.
    zero: Instant,
    redis: Vec<Redis>,
    others: Vec<Other>,
    links: BTreeMap<LinkId, Far>,
    /// What silent ones have been asked.
    owed: Vec<(LinkId, Tag, Said)>,
    disk: Result<(), String>,
    shown: Shown,
    /// Orders and clients so far.
    count: u64,
    /// What the observer was told.
    observed: Vec<Output>,
}

impl World for Site {
    fn open(words: &mut Words) -> Result<Self, String> {
        let scene = Scene::of(words)?;
        let (redis, others, names) = (scene.redis(), scene.others(), scene.names());
        let mut site = Self {
            drop_in: scene.drop_in,
            others,
            core: scene.core(),
            now: BEGIN,
            zero: BEGIN,
            redis,
            links: BTreeMap::new(),
            owed: Vec::new(),
            disk: Ok(()),
            shown: Shown::new(names),
            count: OBSERVER,
            observed: Vec::new(),
        };
        site.give(Input::ClientCame(ClientId(OBSERVER), sockets(BEGIN_IP)));
        site.speak();
        if !site.drop_in {
            // The nodes of all redis are heard on the peer link, where their supervisors have nothing to say yet.
            for n in 0..site.redis.len() {
                let node = site.redis[n].name.parse().map_err(|error| format!("{error}"))?;
                let facts = NodeFacts::unfenced(node, None, None, true);
                site.give(Input::Facts(Box::new(facts)));
            }
        }
        site.pass(SETTLED);
        site.zero = site.now;
        Ok(site)
    }

    fn command(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        match words.next("a command")?.as_str() {
            "advance" => Ok(self.pass(words.duration()?)),
            "stall" => {
                self.now = self.now + words.duration()?;
                Ok(self.give(Input::Tick))
            }
            "stop" => Ok(self.give(Input::Stop)),
            "state" => self.state(),
            "show" => {
                let command = words.next("a command in quotes")?;
                if !show::ROUTINE.contains(&command.as_str()) {
                    return Err(unexpected(&command, &format!("one of {:?}", show::ROUTINE)));
                }
                self.shown.asked_for.push(command);
                Ok(Vec::new())
            }
            "disk" => {
                self.disk = words.outcome("works", "fails")?;
                Ok(Vec::new())
            }
            "order" => {
                let to = if words.optional("to") { Some(words.value("a node")?) } else { None };
                self.count += 1;
                Ok(self.give(Input::Order(OrderId(self.count), to)))
            }
            "client" => {
                let said = words.next("a command in quotes")?;
                Ok(self.ask(BEGIN_IP, &said))
            }
            "redis" => self.redis(words),
            "info" => {
                let (n, place) = (self.place(words)?, self.places());
                redis::info(&mut self.redis[n], self.now, words, place)?;
                Ok(Vec::new())
            }
            "supervisor" => {
                let (n, place) = (self.place(words)?, self.places());
                let facts = redis::supervisor(&self.redis[n], words, place)?;
                Ok(self.give(Input::Facts(Box::new(facts))))
            }
            "sentinel" => {
                let name = words.next("the name of a sentinel")?;
                let found = self.others.iter().position(|other| other.name == name);
                self.other(found.ok_or_else(|| unexpected(&name, "the name of another sentinel"))?, words)
            }
            "sentinels" => {
                let all = words.clone();
                let mut lines = Vec::new();
                for p in 0..self.others.len() {
                    *words = all.clone();
                    lines.extend(self.other(p, words)?);
                }
                Ok(lines)
            }
            other => {
                let commands = "advance, client, disk, info, order, redis, sentinel, sentinels, show, stall, state, stop \
                                or supervisor";
                Err(unexpected(other, commands))
            }
        }
    }
}

/// Where the sentinel under test, and whoever is not named, is.
const BEGIN_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 10));

fn sockets(from: IpAddr) -> Sockets {
    Sockets { peer: SocketAddr::new(from, 50_000), local: SocketAddr::new(BEGIN_IP, 26379), fd: 9 }
}

impl Site {
    /// `A`: which redis.
    fn place(&self, words: &mut Words) -> Result<usize, String> {
        let name = words.next("the name of a redis")?;
        let found = self.redis.iter().position(|redis| redis.name == name);
        found.ok_or_else(|| unexpected(&name, "the name of a redis"))
    }

    /// Finds the address of a redis by its name.
    fn places(&self) -> impl Fn(&mut Words) -> Result<SocketAddr, String> + use<> {
        let known: Vec<_> = self.redis.iter().map(|redis| (redis.name.clone(), redis.address)).collect();
        move |words| {
            let name = words.next("the name of a redis")?;
            let found = known.iter().find(|(known, _)| *known == name).map(|(_, address)| *address);
            found.ok_or_else(|| unexpected(&name, "the name of a redis"))
        }
    }

    /// `redis A up|silent|down|…`
    fn redis(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        let n = self.place(words)?;
        let word = words.next("what the redis does")?;
        match Line::of(&word) {
            Some(line) => {
                self.redis[n].line = line;
                Ok(self.line_changed(Far::Redis(n), line))
            }
            None => self.redis[n].manners(&word, words).map(|()| Vec::new()),
        }
    }

    /// `sentinel s2 …`
    fn other(&mut self, p: usize, words: &mut Words) -> Result<Vec<String>, String> {
        let (place, names) = (self.places(), self.shown.names.clone());
        let id = |name: &str| {
            let mut named = names.iter().filter(|(_, known)| known == name);
            named.find_map(|(id, _)| id.parse().ok())
        };
        let act = self.others[p].act(words, place, id)?;
        let mut lines = Vec::new();
        if let Some(line) = act.line {
            self.others[p].line = line;
            lines.extend(self.line_changed(Far::Other(p), line));
        }
        lines.extend(self.speak());
        let greeting = self.others[p].greeting().filter(|_| act.greets);
        let heard_on = self.links.iter().find(|(_, far)| matches!(far, Far::Redis(_))).map(|(link, _)| *link);
        match (greeting, heard_on) {
            (Some(greeting), Some(link)) if self.drop_in => {
                lines.extend(self.give(Input::Message(link, greeting.into())));
            }
            // In a cluster it greets at the port of the sentinel.
            (Some(greeting), _) if !self.drop_in => {
                let words = ["PUBLISH".to_owned(), "__sentinel__:hello".to_owned(), greeting].map(Bytes::from);
                lines.extend(self.give(Input::Command(ClientId(OBSERVER), words.to_vec())));
            }
            _ => {}
        }
        if let Some(epoch) = act.asks.filter(|_| !self.others[p].speaks) {
            let other = &self.others[p];
            let about = other.decision.ok_or("it knows of no master to ask for")?.master;
            let (ip, port, id, from) = (about.ip(), about.port(), other.id, other.address.ip());
            let said = format!("SENTINEL is-master-down-by-addr {ip} {port} {epoch} {id}");
            lines.extend(self.ask(from, &said));
        }
        Ok(lines)
    }

    /// The other sentinels say over the peer link what has changed.
    fn speak(&mut self) -> Vec<String> {
        let frames: Vec<_> = self.others.iter_mut().filter_map(Other::frame).collect();
        frames.into_iter().flat_map(|frame| self.give(Input::Facts(Box::new(frame)))).collect()
    }

    /// A client comes, says one thing and stays.
    fn ask(&mut self, from: IpAddr, said: &str) -> Vec<String> {
        self.count += 1;
        let client = ClientId(self.count);
        let mut lines = self.give(Input::ClientCame(client, sockets(from)));
        let words = said.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        lines.extend(self.give(Input::Command(client, words)));
        lines
    }

    fn line_changed(&mut self, whose: Far, line: Line) -> Vec<String> {
        let links: Vec<_> = self.links.iter().filter(|(_, far)| **far == whose).map(|(link, _)| *link).collect();
        let mut lines = Vec::new();
        match line {
            Line::Silent => {}
            Line::Up => {
                let (due, still): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.owed).into_iter().partition(|(link, ..)| links.contains(link));
                self.owed = still;
                for (link, tag, words) in due {
                    let replies = self.hear(link, tag, words);
                    lines.extend(replies.into_iter().flat_map(|reply| self.give(reply)));
                }
            }
            Line::Down => {
                for link in links {
                    self.forget(link);
                    lines.extend(self.give(Input::LinkDown(link, "connection reset".to_owned())));
                }
            }
        }
        lines
    }

    fn forget(&mut self, link: LinkId) {
        if let Some(Far::Redis(n)) = self.links.remove(&link) {
            self.redis[n].forget(link);
        }
        self.owed.retain(|(owing, ..)| *owing != link);
    }

    /// Feeds one input and what comes back at once; returns the transcript.
    fn give(&mut self, input: Input) -> Vec<String> {
        let mut lines = Vec::new();
        let mut waiting = VecDeque::from([input]);
        let mut turns = 0;
        while let Some(input) = waiting.pop_front() {
            turns += 1;
            assert!(turns < TURNS_MAX, "it asks without end at {}: {lines:#?}", line(self.now, self.zero, ""));
            let mut out = Vec::new();
            self.core.handle(self.now, input, &mut out);
            for output in out {
                if self.is_observed(&output) {
                    self.observed.push(output);
                    continue;
                }
                let (links, redis, others) = (&self.links, &self.redis, &self.others);
                let far = |link: LinkId| match links.get(&link) {
                    Some(Far::Redis(n)) => redis[*n].name.clone(),
                    Some(Far::Other(p)) => others[*p].name.clone(),
                    None => "nobody".to_owned(),
                };
                let text = self.shown.output(&output, far);
                lines.extend(text.map(|text| line(self.now, self.zero, &text)));
                if let Output::Store(_) = output {
                    // A fast disk: what became of it is heard first.
                    waiting.push_front(Input::Stored(self.disk.clone()));
                    if let Err(reason) = &self.disk {
                        lines.push(line(self.now, self.zero, &format!("not stored: {reason}")));
                    }
                } else if let Output::Post(facts) = &output {
                    let stands = facts.masters.first().and_then(|facts| facts.vote.filter(|_| facts.leads.is_some()));
                    let stands = stands.filter(|(id, _)| *id == facts.id);
                    waiting.extend(stands.into_iter().flat_map(|(id, epoch)| self.hear_candidate(id, epoch)));
                } else {
                    waiting.extend(self.carry_out(output));
                }
            }
        }
        lines
    }

    /// The others read in the frames of the sentinel under test that it asks for their votes, and say in theirs what they give.
    fn hear_candidate(&mut self, id: RunId, epoch: Epoch) -> Vec<Input> {
        for other in self.others.iter_mut().filter(|other| other.speaks && other.line == Line::Up) {
            other.vote(id, epoch);
        }
        self.others.iter_mut().filter_map(Other::frame).map(|facts| Input::Facts(Box::new(facts))).collect()
    }

    fn is_observed(&self, output: &Output) -> bool {
        matches!(output, Output::Respond(ClientId(OBSERVER), _) | Output::Why(OrderId(OBSERVER), _))
    }

    fn carry_out(&mut self, output: Output) -> Vec<Input> {
        match output {
            Output::Connect { link, address, .. } => {
                let redis = self.redis.iter().position(|redis| redis.address == address);
                let other = self.others.iter().position(|other| other.address == address);
                let found = redis.map(|n| (Far::Redis(n), self.redis[n].line));
                let found = found.or_else(|| other.map(|p| (Far::Other(p), self.others[p].line)));
                vec![match found.filter(|(_, line)| *line != Line::Down) {
                    Some((far, _)) => {
                        self.links.insert(link, far);
                        Input::LinkUp(link, BEGIN_IP)
                    }
                    None => Input::LinkDown(link, "connection refused".to_owned()),
                }]
            }
            Output::Hangup(link) => {
                self.forget(link);
                Vec::new()
            }
            Output::Query { link, tag, args } => self.hear(link, tag, args),
            _ => Vec::new(),
        }
    }

    /// What comes back when a command is sent on a link; nothing from who is silent.
    fn hear(&mut self, link: LinkId, tag: Tag, words: Said) -> Vec<Input> {
        let Some(far) = self.links.get(&link).copied() else { return Vec::new() };
        let line = match far {
            Far::Redis(n) => self.redis[n].line,
            Far::Other(p) => self.others[p].line,
        };
        if line == Line::Silent {
            self.owed.push((link, tag, words));
            return Vec::new();
        }
        match far {
            Far::Redis(n) => redis::hears(&mut self.redis, n, self.now, (link, tag), words),
            Far::Other(p) => {
                let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
                vec![Input::Reply(link, tag, self.others[p].answer(&words))]
            }
        }
    }

    /// Lets time pass, with a tick at each deadline on the way.
    fn pass(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        let mut lines = Vec::new();
        while let Some(due) = self.core.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            for n in 0..self.redis.len() {
                let freed = redis::pause_over(&mut self.redis, n, self.now);
                lines.extend(freed.into_iter().flat_map(|reply| self.give(reply)));
            }
            lines.extend(self.give(Input::Tick));
            assert!(self.core.deadline().is_none_or(|next| next > self.now), "the tick did not move the deadline");
        }
        self.now = end;
        lines
    }

    fn state(&mut self) -> Result<Vec<String>, String> {
        self.observed.clear();
        let words = ["SENTINEL", "MASTER", MASTER].map(|word| Bytes::from_static(word.as_bytes()));
        let mut lines = self.give(Input::Command(ClientId(OBSERVER), words.to_vec()));
        lines.extend(self.give(Input::Why(OrderId(OBSERVER))));
        let mut observed = self.observed.drain(..);
        let (Some(Output::Respond(_, Answer::Reply(map))), Some(Output::Why(_, why))) =
            (observed.next(), observed.next())
        else {
            return Err("it does not say its state".to_owned());
        };
        let why = why.first().ok_or("it watches no master")?;
        lines.extend(show::state(&map, why).iter().map(|line| self.shown.named(line)));
        Ok(lines)
    }
}
