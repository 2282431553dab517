//! The peer link: the real machine on each node, its frames as datagrams on the network, and what its view tells the roles.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use vigie::base::node::Roles;
use vigie::base::{Instant, Secret};
use vigie::cores::cluster::{Cluster, Config, Input, Output, Part, Peer, View};
use vigie::cores::redis::{Input as SupervisorInput, Supervisor};
use vigie::cores::sentinel::Input as SentinelInput;
use vigie::runtime::drive::Flow;
use vigie::runtime::view::{News, Steering, heard};
use vigie::wire::frame::Keys;

use crate::drive::{Driver, Kind, Lane, Lives};
#[cfg(feature = "sabotage")]
use crate::sabotage::Broken;
use crate::world::{Happening, World, group_name, host_of, ms, node_name, redis_at};

/// Where it listens.
const PORT: u16 = 26380;
/// Datagrams that wait for a process that does not run; what comes then is lost.
const WAITING_MAX: usize = 256;

/// The end of the link in one process, and what the roles there have been told.
pub struct Link {
    driver: Driver<Cluster>,
    view: Rc<View>,
    news: News,
    /// What the supervisor steers by.
    steered: Option<Steering>,
    /// Connections that wait until the node at their far end has shown that it is there: which, where, since when.
    shows: Vec<(u64, usize, Instant)>,
}

fn keys() -> Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys::new(&Secret::new("of the link").into())).clone()
}

fn ip(host: usize) -> IpAddr {
    redis_at(host).ip()
}

impl World {
    fn roles(&self, host: usize) -> Roles {
        Roles { proxy: self.is_proxy(host), redis: host < self.redis.len(), sentinel: host < self.plan.sentinels }
    }

    pub fn new_link(&mut self, host: usize) -> Link {
        let peers = (0..self.workers.len()).map(|node| Peer {
            name: node_name(node),
            address: ip(node),
            roles: self.roles(node),
        });
        let (peers, roles) = (peers.collect(), self.roles(host));
        let mut random = || u64::from_le_bytes(self.dice.id().0[..8].try_into().expect("8 bytes"));
        let (boot, seed) = (random(), random());
        let (cluster, lease) = (group_name(0), self.plan.lease);
        let (fencing, promised) = (self.disks[host].fencing, lease.unwrap_or_default());
        let config =
            Config { cluster, keys: keys(), me: host, roles, peers, port: PORT, lease, promised, fencing, boot, seed };
        let machine = Cluster::new(config, "1", self.local(host));
        #[cfg(feature = "sabotage")]
        let machine = match self.sabotage {
            Some(Broken::Promise(rule)) => machine.without(rule, self.local(host)),
            Some(Broken::Sentinel(_) | Broken::Router(_) | Broken::Lease(_)) | None => machine,
        };
        let view = Rc::new(machine.view().clone());
        Link { driver: Driver::new(machine), view, news: News::default(), steered: None, shows: Vec::new() }
    }

    /// A role of a node says something of itself.
    pub fn post(&mut self, host: usize, part: Part) {
        self.feed::<Cluster>(host, Lane::First, Input::Part(part));
    }

    /// Sends a frame: lost, late, or twice, as every datagram.
    fn send_frame(&mut self, from: usize, to: SocketAddr, bytes: &[u8]) {
        let to = host_of(to);
        if self.net.loses(from, to) || !self.net.passes(from, to) {
            return;
        }
        let bytes: Rc<[u8]> = bytes.into();
        if self.net.doubles() {
            let again = self.net.takes(from, to) + ms(5);
            self.later(again, Happening::Datagram(to, from, bytes.clone()));
        }
        let takes = self.net.takes(from, to);
        self.later(takes, Happening::Datagram(to, from, bytes));
    }

    pub fn datagram(&mut self, to: usize, from: usize, bytes: &[u8]) {
        if !self.hosts[to].powered || !self.net.passes(from, to) {
            return;
        }
        self.stats.frames += 1;
        let room = self.workers[to].link.as_ref().is_some_and(|link| link.driver.waiting() < WAITING_MAX);
        if room {
            let from = SocketAddr::new(ip(from), PORT);
            // Dated as by the kernel: a process that does not run reads it later.
            let at = self.local(to);
            self.feed::<Cluster>(to, Lane::First, Input::Datagram { from, at, bytes: bytes.into() });
        }
    }

    /// Tells the roles of a node what is news to them in its view.
    pub fn view_changed(&mut self, host: usize) {
        let Some(link) = self.workers[host].link.as_mut() else { return };
        let view = link.view.clone();
        if host < self.plan.sentinels {
            for facts in link.news.of(&view) {
                self.give(host, SentinelInput::Facts(Box::new(facts)));
            }
        }
        if let (Some(redis), Some(link)) = (self.redis.get(host), self.workers[host].link.as_mut()) {
            let now = heard(&view, &group_name(redis.group));
            if link.steered.replace(now) != Some(now) {
                let Steering { decision, leading, named, mode } = now;
                let input = SupervisorInput::Cluster { decision, leading, named, mode };
                self.feed::<Supervisor>(host, Lane::First, input);
            }
        }
        self.route_news(host, &view);
        self.router_news(host, &view);
    }

    /// How old what the link has shown last is.
    pub fn view_age(&self, host: usize) -> Option<Duration> {
        self.workers[host].link.as_ref().map(|link| self.local(host).since(link.view.at))
    }

    /// A connection stands, and the node at its far end is to show that it is there before it is told a password.
    pub fn show(&mut self, host: usize, wire: u64, node: usize) {
        let since = self.local(host);
        if let Some(link) = self.workers[host].link.as_mut() {
            link.shows.push((wire, node, since));
            self.feed::<Cluster>(host, Lane::First, Input::Prove(node));
        }
    }

    fn reached(&mut self, host: usize, node: usize, sent: Instant) {
        let Some(link) = self.workers[host].link.as_mut() else { return };
        let shown = |show: &(u64, usize, Instant)| show.1 == node && sent >= show.2;
        let ready: Vec<u64> = link.shows.iter().filter(|show| shown(show)).map(|(wire, ..)| *wire).collect();
        link.shows.retain(|show| !shown(show));
        for wire in ready {
            self.link_up(wire);
        }
    }
}

impl Lives<Cluster> for World {
    const KIND: Kind = Kind::Link;

    fn driver(&mut self, host: usize) -> Option<&mut Driver<Cluster>> {
        self.workers[host].link.as_mut().map(|link| &mut link.driver)
    }

    fn hears(&mut self, _: usize, _: Instant, _: &Input) {}

    fn carry_out(&mut self, host: usize, output: Output) -> Option<Flow<Input>> {
        match output {
            Output::Send { to, bytes } => self.send_frame(host, to, &bytes),
            Output::Lease(held) => self.leased(host, held),
            Output::View(view) => {
                if let Some(link) = self.workers[host].link.as_mut() {
                    link.view = Rc::new(*view);
                }
                self.view_changed(host);
            }
            Output::Reached { node, sent } => self.reached(host, node, sent),
            Output::Publish(event) => self.note(|| format!("n{host} link: {event}")),
        }
        Some(Flow::Done)
    }
}
