//! The write target of one proxy: `cores::proxy::Route`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use vigie::base::node::{Decision, Process};
use vigie::cores::proxy::Route;
use vigie::cores::proxy::route::{CheckFault, Config, Facts, Input, Output, Peer, Server, Voice};

use crate::form::World;
use crate::stage::{Stage, Surroundings};
use crate::words::{Words, unexpected};

/// A proxy, the redis servers that it checks, and what it hears of the cluster.
pub(crate) struct Proxy {
    stage: Stage<Servers>,
    voters: usize,
    /// The sentinels that are heard, by number.
    sentinels: BTreeMap<usize, Voice>,
    supervisors: BTreeMap<SocketAddr, Server>,
    peers: BTreeMap<String, Peer>,
}

/// How each server answers a check; one that is not here does not.
struct Servers(BTreeMap<SocketAddr, Result<(), CheckFault>>);

impl Surroundings for Servers {
    type Core = Route;

    fn render(&self, output: &Output) -> Option<String> {
        Some(match output {
            Output::Check { decision, login, .. } => {
                let how = if *login { "" } else { " without a login" };
                format!("check {} (epoch {}){how}", decision.master, decision.epoch)
            }
            Output::Switch(Some(to)) => format!("switch to {} (epoch {})", to.master, to.epoch),
            Output::Switch(None) => "switch to nobody".to_owned(),
            Output::Usable(Ok(())) => "usable for the VIP: yes".to_owned(),
            Output::Usable(Err(why)) => format!("usable for the VIP: no, {why}"),
            Output::Post(facts) => {
                let listening = if facts.listening { "listening" } else { "not listening" };
                let route =
                    facts.route.map_or_else(|| "none".to_owned(), |to| format!("{} (epoch {})", to.master, to.epoch));
                format!("post: {listening}, route {route}, {} clients", facts.clients)
            }
            Output::Fault(Some(why)) => format!("fault: {why}"),
            Output::Fault(None) => "fault: none".to_owned(),
            Output::Publish(event) => format!("event: {event}"),
        })
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Check { serial, decision, login: _ } => {
                self.0.get(&decision.master).map(|result| Input::Checked { serial, result: result.clone() })
            }
            Output::Switch(_) | Output::Usable(_) | Output::Post(_) | Output::Fault(_) | Output::Publish(_) => None,
        }
    }
}

impl World for Proxy {
    /// `proxy sentinels N [routed to ADDRESS epoch N]`: how many the cluster file names. If routed, its listener works, all
    /// sentinels name that master, whose supervisor calls its first process alive and a master, and it passes its checks.
    /// Checks are due each second.
    fn open(words: &mut Words) -> Result<Self, String> {
        words.keyword("proxy")?;
        words.keyword("sentinels")?;
        let masters = (1..=254).map(|last| SocketAddr::from(([192, 168, 0, last], 6379))).collect();
        let route = Route::new(&Config { check_interval: Duration::from_secs(1), masters });
        let mut proxy = Self {
            stage: Stage::new(route, Servers(BTreeMap::new())),
            voters: words.value("a number")?,
            sentinels: BTreeMap::new(),
            supervisors: BTreeMap::new(),
            peers: BTreeMap::new(),
        };
        if words.optional("routed") {
            words.keyword("to")?;
            let address = words.redis()?;
            words.keyword("epoch")?;
            let current_epoch = words.value("an epoch")?;
            let decision = Some(Decision { master: address, epoch: current_epoch });
            proxy.sentinels =
                (1..=proxy.voters).map(|number| (number, Voice { current_epoch, decision, fenced: false })).collect();
            let server = Server { address, incarnation: 1, process: Process::Alive, master: Some(true), lease: None };
            proxy.supervisors.insert(address, server);
            proxy.stage.around.0.insert(address, Ok(()));
            proxy.stage.give(Input::Listener(Ok(())));
            proxy.hear();
        }
        Ok(proxy)
    }

    fn command(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        match words.next("a command")?.as_str() {
            "advance" => return Ok(self.stage.pass(words.duration()?)),
            "listener" => return Ok(self.stage.give(Input::Listener(words.outcome("works", "fails")?))),
            "suspect" => return Ok(self.stage.give(Input::Suspect)),
            "clients" => return Ok(self.stage.give(Input::Clients(words.value("a number")?))),
            "stop" => return Ok(self.stage.give(Input::Stop)),
            "checks" => return self.checks(words).map(|()| Vec::new()),
            "sentinels" => self.sentinels(1..=self.voters, words)?,
            "sentinel" => {
                let number = words.value("the number of a sentinel")?;
                self.sentinels(number..=number, words)?;
            }
            "supervisor" => self.supervisor(words)?,
            "peer" => self.peer(words)?,
            other => {
                let commands =
                    "advance, checks, clients, listener, peer, sentinel, sentinels, stop, supervisor or suspect";
                return Err(unexpected(other, commands));
            }
        }
        Ok(self.hear())
    }
}

impl Proxy {
    /// Tells the route all that is known now.
    fn hear(&mut self) -> Vec<String> {
        self.stage.give(Input::View(Facts {
            voters: self.voters,
            sentinels: self.sentinels.values().copied().collect(),
            servers: self.supervisors.values().copied().collect(),
            peers: self.peers.values().cloned().collect(),
        }))
    }

    /// `checks of ADDRESS pass | refused | unanswered | role TEXT | busy TEXT | unclear TEXT`
    fn checks(&mut self, words: &mut Words) -> Result<(), String> {
        words.keyword("of")?;
        let server = words.redis()?;
        let result = match words.next("a result")?.as_str() {
            "pass" => Ok(()),
            "refused" => Err(CheckFault::Refused),
            "role" => Err(CheckFault::NotMaster(words.next("a role")?)),
            "busy" => Err(CheckFault::Busy(words.next("a text")?)),
            "unclear" => Err(CheckFault::Unclear(words.next("a text")?)),
            "unanswered" => {
                self.stage.around.0.remove(&server);
                return Ok(());
            }
            other => return Err(unexpected(other, "pass, refused, unanswered, role, busy or unclear")),
        };
        self.stage.around.0.insert(server, result);
        Ok(())
    }

    /// `sentinels name ADDRESS epoch N | know nothing epoch N | silent`, and the same of one, by number.
    fn sentinels(&mut self, numbers: std::ops::RangeInclusive<usize>, words: &mut Words) -> Result<(), String> {
        let voice = match words.next("what is heard")?.as_str() {
            "name" | "names" => {
                let master = words.redis()?;
                words.keyword("epoch")?;
                let epoch = words.value("an epoch")?;
                Some(Voice { current_epoch: epoch, decision: Some(Decision { master, epoch }), fenced: false })
            }
            "know" | "knows" => {
                words.keyword("nothing")?;
                words.keyword("epoch")?;
                Some(Voice { current_epoch: words.value("an epoch")?, decision: None, fenced: false })
            }
            "silent" => None,
            other => return Err(unexpected(other, "name, know nothing or silent")),
        };
        for number in numbers {
            match voice {
                Some(voice) => self.sentinels.insert(number, voice),
                None => self.sentinels.remove(&number),
            };
        }
        Ok(())
    }

    /// `supervisor ADDRESS alive|busy|loading|starting|dead incarnation N [master|replica]` or `supervisor ADDRESS silent`
    fn supervisor(&mut self, words: &mut Words) -> Result<(), String> {
        let address = words.redis()?;
        let process = match words.next("a state of the process")?.as_str() {
            "alive" => Process::Alive,
            "busy" => Process::Busy,
            "loading" => Process::Loading,
            "starting" => Process::Starting,
            "dead" => Process::Dead,
            "silent" => {
                self.supervisors.remove(&address);
                return Ok(());
            }
            other => return Err(unexpected(other, "alive, busy, loading, starting, dead or silent")),
        };
        words.keyword("incarnation")?;
        let incarnation = words.value("a number")?;
        let master = if words.optional("master") {
            Some(true)
        } else if words.optional("replica") {
            Some(false)
        } else {
            None
        };
        self.supervisors.insert(address, Server { address, incarnation, process, master, lease: None });
        Ok(())
    }

    /// `peer NAME routes to ADDRESS epoch N | routes nowhere | silent`
    fn peer(&mut self, words: &mut Words) -> Result<(), String> {
        let name = words.next("a name")?;
        if words.optional("silent") {
            self.peers.remove(&name);
            return Ok(());
        }
        words.keyword("routes")?;
        let route = if words.optional("nowhere") {
            None
        } else {
            words.keyword("to")?;
            let master = words.redis()?;
            words.keyword("epoch")?;
            Some(Decision { master, epoch: words.value("an epoch")? })
        };
        let peer = Peer { name: name.parse().map_err(|error| format!("{error}"))?, listening: true, route };
        self.peers.insert(name, peer);
        Ok(())
    }
}
