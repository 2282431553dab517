//! The peer links of a whole cluster, on a network without delay: `cores::cluster`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use vigie::base::node::{ProxyFacts, Roles};
use vigie::base::{Instant, Machine, Secret};
use vigie::cores::cluster::{Cluster, Config, Input, Output, Part, Peer};
use vigie::wire::frame::Keys;

use crate::form::World;
use crate::stage::{BEGIN, line};
use crate::words::{Words, unexpected};

const PORT: u16 = 26_380;
const CLUSTER: &str = "mymaster";

/// All nodes, the cables between them, and an ear on the wire.
pub(crate) struct Network {
    now: Instant,
    names: Vec<String>,
    /// By place in the file; none: its worker does not run.
    nodes: Vec<Option<Cluster>>,
    /// Starts so far: boot ids and seeds come from it.
    boots: u64,
    /// Directed pairs that lose everything.
    cut: Vec<(usize, usize)>,
    /// Everything ever sent: from, to, bytes.
    recorded: Vec<(usize, usize, Box<[u8]>)>,
    show_frames: bool,
}

impl World for Network {
    /// `nodes A B C`: all of them are in the cluster file, none runs. Addresses count from 10.0.0.1.
    fn open(words: &mut Words) -> Result<Self, String> {
        words.keyword("nodes")?;
        let mut names = Vec::new();
        while !words.is_empty() {
            names.push(words.next("a name")?);
        }
        let nodes = names.iter().map(|_| None).collect();
        let (cut, recorded) = (Vec::new(), Vec::new());
        Ok(Self { now: BEGIN, names, nodes, boots: 0, cut, recorded, show_frames: false })
    }

    fn command(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        match words.next("a command")?.as_str() {
            "advance" => Ok(self.pass(words.duration()?)),
            "start" => {
                let place = self.place(words)?;
                let secret = words.value_or("secret", "hush".to_owned())?;
                self.start(place, &secret)?;
                Ok(self.give(place, Input::Tick))
            }
            "stop" => {
                let place = self.place(words)?;
                self.nodes[place] = None;
                Ok(Vec::new())
            }
            "cut" => {
                self.cut.push(self.direction(words)?);
                Ok(Vec::new())
            }
            "mend" => {
                let mended = self.direction(words)?;
                self.cut.retain(|cut| *cut != mended);
                Ok(Vec::new())
            }
            "replay" => self.replay(words),
            "fault" => {
                let place = self.place(words)?;
                let reason = Some(words.next("a reason in quotes")?);
                Ok(self.give(place, Input::Part(Part::Fault { source: "redis", reason })))
            }
            "mended" => {
                let place = self.place(words)?;
                Ok(self.give(place, Input::Part(Part::Fault { source: "redis", reason: None })))
            }
            "clients" => {
                let place = self.place(words)?;
                let clients = words.value("a number")?;
                let facts = ProxyFacts { listening: true, route: None, clients, held: None };
                Ok(self.give(place, Input::Part(Part::Proxy(facts))))
            }
            "view" => self.view(words),
            "show" => {
                words.keyword("frames")?;
                self.show_frames = true;
                Ok(Vec::new())
            }
            other => {
                let commands = "advance, clients, cut, fault, mend, mended, replay, show, start, stop or view";
                Err(unexpected(other, commands))
            }
        }
    }
}

impl Network {
    fn place(&self, words: &mut Words) -> Result<usize, String> {
        let name = words.next("the name of a node")?;
        self.names.iter().position(|known| *known == name).ok_or_else(|| unexpected(&name, "the name of a node"))
    }

    /// `A to B`
    fn direction(&self, words: &mut Words) -> Result<(usize, usize), String> {
        let from = self.place(words)?;
        words.keyword("to")?;
        Ok((from, self.place(words)?))
    }

    fn address(place: usize) -> IpAddr {
        IpAddr::from([10, 0, 0, u8::try_from(place + 1).expect("a scenario has a few nodes")])
    }

    fn start(&mut self, place: usize, secret: &str) -> Result<(), String> {
        let roles = Roles { sentinel: true, ..Roles::default() };
        let mut peers = Vec::new();
        for (place, name) in self.names.iter().enumerate() {
            let name = name.parse().map_err(|error| format!("{error}"))?;
            peers.push(Peer { name, address: Self::address(place), roles });
        }
        self.boots += 1;
        let config = Config {
            cluster: CLUSTER.to_owned(),
            keys: Keys::new(&Secret::new(secret).into()),
            me: place,
            roles,
            peers,
            port: PORT,
            lease: None,
            promised: Duration::ZERO,
            fencing: false,
            boot: self.boots,
            seed: self.boots,
        };
        self.nodes[place] = Some(Cluster::new(config, "0.1.0", self.now));
        Ok(())
    }

    /// Feeds one input to a node, and what follows from it to all others.
    fn give(&mut self, place: usize, input: Input) -> Vec<String> {
        let mut lines = Vec::new();
        let mut waiting = VecDeque::from([(place, input)]);
        while let Some((place, input)) = waiting.pop_front() {
            let Some(node) = &mut self.nodes[place] else { continue };
            let mut out = Vec::new();
            node.handle(self.now, input, &mut out);
            for output in out {
                match output {
                    Output::Send { to, bytes } => {
                        let Some(target) = (0..self.nodes.len()).find(|node| Self::address(*node) == to.ip()) else {
                            continue;
                        };
                        let bytes: Box<[u8]> = bytes.as_slice().into();
                        if self.show_frames {
                            let text = format!("{}: frame to {}", self.names[place], self.names[target]);
                            lines.push(line(self.now, BEGIN, &text));
                        }
                        self.recorded.push((place, target, bytes.clone()));
                        if !self.cut.contains(&(place, target)) {
                            waiting.push_back((target, self.datagram(place, bytes)));
                        }
                    }
                    Output::View(_) | Output::Lease(_) | Output::Reached { .. } => {}
                    Output::Publish(event) => {
                        lines.push(line(self.now, BEGIN, &format!("{}: {event}", self.names[place])));
                    }
                }
            }
        }
        lines
    }

    fn datagram(&self, from: usize, bytes: Box<[u8]>) -> Input {
        Input::Datagram { from: SocketAddr::new(Self::address(from), PORT), at: self.now, bytes }
    }

    /// `replay A to B`: somebody sends all that was ever recorded between them once more.
    fn replay(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
        let direction = self.direction(words)?;
        let recorded = self.recorded.iter().filter(|(from, to, _)| (*from, *to) == direction);
        let frames: Vec<Box<[u8]>> = recorded.map(|(_, _, bytes)| bytes.clone()).collect();
        if frames.is_empty() {
            return Err("nothing was recorded".to_owned());
        }
        let inputs: Vec<Input> = frames.into_iter().map(|bytes| self.datagram(direction.0, bytes)).collect();
        Ok(inputs.into_iter().flat_map(|input| self.give(direction.1, input)).collect())
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        let mut lines = Vec::new();
        let due = |node: &Option<Cluster>| node.as_ref().and_then(Machine::deadline);
        loop {
            let next = (0..self.nodes.len()).filter_map(|place| Some((due(&self.nodes[place])?, place))).min();
            let Some((at, place)) = next.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            lines.extend(self.give(place, Input::Tick));
            assert!(due(&self.nodes[place]) > Some(self.now), "the tick did not move the deadline");
        }
        self.now = end;
        lines
    }

    /// `view A`: what node A knows of all.
    fn view(&self, words: &mut Words) -> Result<Vec<String>, String> {
        let place = self.place(words)?;
        let node = self.nodes[place].as_ref().ok_or("this node does not run")?;
        let rows = node.view().nodes.iter().map(|node| {
            let fresh = if node.fresh { "fresh" } else { "not fresh" };
            let clients = node.state.as_ref().and_then(|state| state.proxy).map(|proxy| proxy.clients);
            let clients = clients.map_or(String::new(), |clients| format!(", clients {clients}"));
            let fault = if node.fault.is_empty() { String::new() } else { format!(", {}", node.fault) };
            format!("  {}: {fresh}{clients}{fault}", node.name)
        });
        Ok(rows.collect())
    }
}
