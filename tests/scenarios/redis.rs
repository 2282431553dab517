//! The supervisor of one redis-server: `cores::redis`.

use bytes::Bytes;
use vigie::base::RunId;
use vigie::base::node::{Decision, History, RedisFacts, RedisRole};
use vigie::cores::redis::{Answer, Ask, Config, Durable, Event, Exit, Input, Output, Supervisor, Token};
use vigie::wire::info::CLOSED;
use vigie::wire::resp::Reply;

use crate::form::World;
use crate::model::{Link, Moment, Server, Session};
use crate::stage::{BEGIN, Line, Stage, Surroundings};
use crate::words::{Words, unexpected};

/// The address of the supervised redis.
const OWN: &str = "192.168.0.4:6379";
/// How any command begins.
const EVERYTHING: &str = "";

/// A supervisor, its host and its redis-server.
pub(crate) struct Host(Stage<Machine>);

/// What a supervisor works with.
struct Machine {
    disk: Result<(), String>,
    spawning: Result<(), String>,
    server: Server,
    /// Its supervisor's connection to it.
    session: Session,
    line: Line,
    spawned: u32,
    /// What a silent server still owes.
    owed: Vec<(Token, Ask)>,
    /// How often the secrets of the cluster have changed.
    secrets: u64,
    show_probes: bool,
}

impl Machine {
    /// What redis answers now; none: it stays silent.
    fn reply(&mut self, token: Token, ask: Ask) -> Option<Input> {
        let answer = match self.line {
            Line::Silent => {
                self.owed.push((token, ask));
                return None;
            }
            Line::Down => Answer::Unreachable("connection refused".to_owned()),
            Line::Up => {
                let secrets = || vec![["CONFIG", "SET", "requirepass", "secret"].map(str::to_owned).to_vec()];
                let replies: Vec<_> = ask.commands(secrets).into_iter().filter_map(|words| self.hears(words)).collect();
                ask.answer(&replies)
            }
        };
        Some(Input::Answer { token, answer })
    }

    fn hears(&mut self, words: Vec<String>) -> Option<Reply> {
        let moment = Moment { now: BEGIN, replicas: &[], id: &mut || RunId([3; 20]) };
        self.server.command(&mut self.session, words.into_iter().map(Bytes::from).collect(), moment).reply
    }

    fn behaves(&mut self, line: Line, loading: bool, busy: bool) {
        self.line = line;
        (self.server.loading, self.server.busy) = (loading, busy);
        self.server.refuses.retain(|(command, _)| command != EVERYTHING);
    }

    fn obeys(&mut self) {
        self.server.refuses.retain(|(command, _)| command == EVERYTHING);
    }
}

impl Surroundings for Machine {
    type Core = Supervisor;

    fn render(&self, output: &Output) -> Option<String> {
        Some(match output {
            Output::Record(durable) => format!("record before going on: {}", durable_text(durable)),
            Output::Remember(durable) => format!("record some time: {}", durable_text(durable)),
            Output::Spawn { closed: false } => "spawn".to_owned(),
            Output::Spawn { closed: true } => "spawn closed".to_owned(),
            Output::Terminate => "terminate".to_owned(),
            Output::Kill => "kill".to_owned(),
            Output::Ask { ask: Ask::Probe { .. }, .. } if !self.show_probes => return None,
            Output::Ask { ask: Ask::Probe { .. }, .. } => "probe".to_owned(),
            Output::Ask { ask: Ask::Secrets, .. } => "order: take the new secrets".to_owned(),
            Output::Ask { ask: Ask::LogWrites, .. } => "order: log writes".to_owned(),
            Output::Enclose { .. } => "enclose".to_owned(),
            Output::Open { .. } => "order: take writes".to_owned(),
            Output::Close { .. } => "order: refuse writes".to_owned(),
            Output::Ask { ask: Ask::Follow { master, demote: false }, .. } => format!("order: follow {master}"),
            Output::Ask { ask: Ask::Follow { master, demote: true }, .. } => {
                format!("order: cut all clients and follow {master}")
            }
            Output::Post(facts) => facts_text(facts),
            Output::Writes(writes) => format!("writes: {writes:?}"),
            Output::Fault(Some(why)) => format!("fault: {why}"),
            Output::Fault(None) => "fault: none".to_owned(),
            Output::Publish(event) => format!("event: {}", event_text(event)),
            Output::Left => "left".to_owned(),
        })
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Record(_) => self.disk.clone().err().map(Input::RecordFailed),
            Output::Spawn { .. } if self.disk.is_err() => None,
            Output::Spawn { .. } => Some(match &self.spawning {
                Ok(()) => {
                    self.spawned += 1;
                    let loading = self.server.loading;
                    self.server.start(RunId([1; 20]), RunId([2; 20]), Some(CLOSED));
                    (self.server.pid, self.server.loading) = (self.spawned, loading);
                    self.session = Session::default();
                    self.owed.clear();
                    Input::Spawned { pid: self.spawned, log_later: false, secrets: self.secrets }
                }
                Err(why) => Input::SpawnFailed(why.clone()),
            }),
            Output::Ask { token, ask } => self.reply(token, ask),
            // Here no file asks for leases.
            Output::Enclose { .. } | Output::Open { .. } | Output::Close { .. } => None,
            Output::Remember(_)
            | Output::Terminate
            | Output::Kill
            | Output::Post(_)
            | Output::Writes(_)
            | Output::Fault(_)
            | Output::Publish(_)
            | Output::Left => None,
        }
    }
}

impl World for Host {
    /// `supervisor [incarnation N] [history epoch N offset N] [running [as master epoch N]]`: what the last one left on
    /// disk, and whether its first process runs already, closed or as the master that was decided for.
    fn open(words: &mut Words) -> Result<Self, String> {
        words.keyword("supervisor")?;
        let incarnation = words.value_or("incarnation", 0)?;
        let mut history = None;
        if words.optional("history") {
            words.keyword("epoch")?;
            let epoch = words.value("an epoch")?;
            words.keyword("offset")?;
            history = Some(History { epoch, in_sync: true, offset: words.value("an offset")? });
        }
        let nodes = (4..=6).map(|last| ([192, 168, 0, last], 6379).into()).collect();
        let config =
            Config { address: OWN.parse().expect("an address"), priority: 100, nodes, fencing: false, life: 0 };
        let mut server = Server::new(Some(CLOSED), RunId([2; 20]));
        server.write(1);
        server.save();
        let machine = Machine {
            disk: Ok(()),
            spawning: Ok(()),
            server,
            session: Session::default(),
            line: Line::Up,
            spawned: 100,
            owed: Vec::new(),
            secrets: 0,
            show_probes: false,
        };
        let mut stage = Stage::new(Supervisor::new(config, Durable { incarnation, history, fenced: None }), machine);
        if words.optional("running") {
            stage.give(Input::Tick);
            if words.optional("as") {
                words.keyword("master")?;
                words.keyword("epoch")?;
                let decision = Decision { master: OWN.parse().expect("an address"), epoch: words.value("an epoch")? };
                stage.give(Input::Cluster { decision: Some(decision), leading: None, named: None, mode: None });
                (stage.around.server.master, stage.around.server.link) = (None, Link::None);
                stage.wait();
            }
            stage.begin();
        }
        Ok(Self(stage))
    }

    fn command(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        let stage = &mut self.0;
        match words.next("a command")?.as_str() {
            "start" => Ok(stage.give(Input::Tick)),
            "advance" => Ok(stage.pass(words.duration()?)),
            "stop" => Ok(stage.give(Input::Stop)),
            "show" => {
                words.keyword("probes")?;
                stage.around.show_probes = true;
                Ok(Vec::new())
            }
            "disk" => {
                stage.around.disk = words.outcome("works", "fails")?;
                Ok(Vec::new())
            }
            "spawning" => {
                stage.around.spawning = words.outcome("works", "fails")?;
                Ok(Vec::new())
            }
            "server" => self.server(words),
            "exited" => {
                let exit = match words.next("code or signal")?.as_str() {
                    "code" => Exit::Code(words.value("a number")?),
                    "signal" => Exit::Signal(words.value("a number")?),
                    other => return Err(unexpected(other, "code or signal")),
                };
                Ok(stage.give(Input::Exited(exit)))
            }
            "secrets" => {
                words.keyword("change")?;
                stage.around.secrets += 1;
                let count = stage.around.secrets;
                Ok(stage.give(Input::Secrets(count)))
            }
            "wrote" => Ok(stage.give(Input::LastWords(words.next("a line of the log")?))),
            "cluster" => {
                words.keyword("names")?;
                let master = words.redis()?;
                words.keyword("epoch")?;
                let decision = Some(Decision { master, epoch: words.value("an epoch")? });
                let leading = if words.optional("failover") { Some(words.value("an epoch")?) } else { None };
                Ok(stage.give(Input::Cluster { decision, leading, named: None, mode: None }))
            }
            other => {
                let commands = "advance, cluster, disk, exited, secrets, server, show, spawning, start, stop or wrote";
                Err(unexpected(other, commands))
            }
        }
    }
}

impl Host {
    /// `server answers|loading|busy|silent|down`, `server shuts out "…"`, `server offset N`, `server obeys`, `server refuses "…"`,
    /// `server is master | closed | replica of ADDRESS [in sync]`
    fn server(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        let machine = &mut self.0.around;
        match words.next("what the server does")?.as_str() {
            "answers" => machine.behaves(Line::Up, false, false),
            "loading" => machine.behaves(Line::Up, true, false),
            "busy" => machine.behaves(Line::Up, false, true),
            "silent" => machine.behaves(Line::Silent, false, false),
            "down" => machine.behaves(Line::Down, false, false),
            "shuts" => {
                words.keyword("out")?;
                machine.behaves(Line::Up, false, false);
                machine.server.refuses.insert(0, (EVERYTHING.to_owned(), words.next("an error in quotes")?));
            }
            "offset" => machine.server.set_offset(words.value("an offset")?),
            "obeys" => machine.obeys(),
            "refuses" => {
                machine.obeys();
                let why = words.next("an error in quotes")?;
                let refused = ["REPLICAOF", "CONFIG"].map(|order| (order.to_owned(), why.clone()));
                machine.server.refuses.extend(refused);
            }
            "is" => {
                let role = match words.next("a role")?.as_str() {
                    "master" => (None, Link::None),
                    "closed" => (Some(CLOSED), Link::Down(None)),
                    "replica" => {
                        words.keyword("of")?;
                        let of = words.redis()?;
                        let in_sync = words.optional("in");
                        if in_sync {
                            words.keyword("sync")?;
                        }
                        (Some(of), if in_sync { Link::Up } else { Link::Down(None) })
                    }
                    other => return Err(unexpected(other, "master, closed or replica")),
                };
                (machine.server.master, machine.server.link) = role;
            }
            other => {
                return Err(unexpected(
                    other,
                    "answers, loading, busy, silent, down, shuts, offset, obeys, refuses or is",
                ));
            }
        }
        // Whoever speaks again answers first what it owes.
        let mut lines = Vec::new();
        for (token, ask) in std::mem::take(&mut machine.owed) {
            if let Some(input) = self.0.around.reply(token, ask) {
                lines.extend(self.0.give(input));
            }
        }
        Ok(lines)
    }
}

fn durable_text(durable: &Durable) -> String {
    format!("incarnation {}, {}", durable.incarnation, history_text(durable.history))
}

fn history_text(history: Option<History>) -> String {
    history.map_or_else(
        || "no history".to_owned(),
        |history| {
            let sync = if history.in_sync { "in sync" } else { "behind" };
            format!("history epoch {} {sync} offset {}", history.epoch, history.offset)
        },
    )
}

fn role_text(role: RedisRole) -> String {
    match role {
        RedisRole::Unknown => "role unknown".to_owned(),
        RedisRole::Closed => "closed".to_owned(),
        RedisRole::Replica { of, link_up: true } => format!("replica of {of} in sync"),
        RedisRole::Replica { of, link_up: false } => format!("replica of {of} not in sync"),
        RedisRole::Master { .. } => "master".to_owned(),
    }
}

fn facts_text(facts: &RedisFacts) -> String {
    let RedisFacts { incarnation, process, role, offset, .. } = facts;
    format!("post: incarnation {incarnation}, {process:?}, {}, offset {offset}", role_text(*role))
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Started { pid, incarnation } => format!("started, pid {pid}, incarnation {incarnation}"),
        Event::NotStarted(why) => format!("not started: {why}"),
        Event::Died(exit) => format!("died: {exit}"),
        Event::Stopped(exit) => format!("stopped: {exit}"),
        Event::Killed => "did not end in time, is killed".to_owned(),
        Event::Loading => "reads its data".to_owned(),
        Event::Answers => "answers".to_owned(),
        Event::Busy => "does not answer, and is alive".to_owned(),
        Event::Follows(to) => format!("follows {} (epoch {})", to.master, to.epoch),
        Event::NotFollowed(why) => format!("does not follow: {why}"),
        Event::Stranger(of) => format!("no node of the file: {} (epoch {})", of.master, of.epoch),
        Event::ShutOut(why) => format!("shuts its supervisor out: {why}"),
        Event::Secrets => "takes the new secrets".to_owned(),
        Event::NotSecrets(why) => format!("does not take the new secrets: {why}"),
        Event::Logs => "logs its writes".to_owned(),
        Event::NotLogged(why) => format!("does not log its writes: {why}"),
        Event::Opened(epoch) => format!("takes writes (epoch {epoch})"),
        Event::NotOpened(why) => format!("does not take writes: {why}"),
        Event::Closed(why) => format!("refuses writes: {why:?}"),
        Event::Unconfirmed => "has not confirmed its fence".to_owned(),
        Event::Role { from, to } => format!("was {}, is {}", role_text(*from), role_text(*to)),
    }
}
