//! A sentinel without a cluster file: its masters come from its own configuration file and from commands, and the other
//! sentinels are whoever greets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::base::node::Decision;
use crate::base::{Instant, Place, RunId};
use crate::wire::hello::Hello;

use super::Agreement;
use super::config::Config;
use super::ids::{InstanceId, NOBODY};
use super::instance::Instance;
use super::master::Master;
use super::names::{self, Lookup};
use super::pending::Change;
use super::ports::Output;
use super::state::{KnownSentinel, MasterState, State};

/// Sentinels known at most: a hello channel is open to everybody who may publish.
const PEERS_MAX: usize = 256;

impl Agreement {
    /// As [`Sentinel::alone`](super::Sentinel::alone).
    pub(super) fn alone(config: &Config, state: State, id: RunId, now: Instant) -> Self {
        let mut sentinel = Self::empty(config, state.id.unwrap_or(id), state.current_epoch, now);
        sentinel.settings = state.settings.clone();
        for master in state.masters {
            sentinel.load(master, now);
        }
        sentinel
    }

    fn load(&mut self, state: MasterState, now: Instant) {
        let address = self.first_address(&state.place, now);
        let epoch = state.config_epoch;
        let m = self.watch(state.config.clone(), Some((address, &state.place, epoch)), now);
        for place in &state.replicas {
            let address = self.first_address(place, now);
            let id = InstanceId(self.fresh_id());
            let master = &mut self.masters[m];
            if address.ip().is_unspecified() || master.place_of(address).is_none() {
                master.nodes.push(Instance { host: name_in(place), ..Instance::new(id, address, None, now) });
                let n = master.nodes.len() - 1;
                self.node_event("+slave", m, n, "");
            }
        }
        let master = &mut self.masters[m];
        master.vote = (state.leader_epoch > 0).then_some((NOBODY, state.leader_epoch));
        let master = master.id;
        for known in &state.sentinels {
            let address = self.first_address(&known.place, now);
            if known.id != self.id && self.peers.len() < PEERS_MAX {
                let found = self.peers.iter().position(|peer| peer.id == Some(known.id));
                let p = found.unwrap_or_else(|| self.add_peer(None, address, Some(known.id), now));
                self.peers[p].host = name_in(&known.place);
                self.peers[p].opinions.entry(master).or_default();
                self.sentinel_event("+sentinel", m, known.id, address);
            }
        }
    }

    /// The address of a place that is to be watched in any case: unspecified until its name is resolved.
    fn first_address(&mut self, place: &Place, now: Instant) -> SocketAddr {
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, place.port));
        self.look_up(place, now).unwrap_or(unknown)
    }

    /// All that the file has to say but its users, with a change that is to be made once it is stored.
    pub(super) fn state(&self) -> State {
        let mut state = State {
            id: Some(self.id),
            current_epoch: self.current_epoch,
            settings: self.settings.clone(),
            masters: self.masters.iter().map(|master| self.master_state(master)).collect(),
        };
        let place = |id| self.place_of(id);
        match self.pending.as_ref().filter(|pending| pending.storing).map(|pending| &pending.change) {
            Some(Change::Monitor { config, place, .. }) => {
                state.masters.push(MasterState {
                    leader_epoch: self.current_epoch,
                    ..MasterState::new((**config).clone(), place.clone())
                });
            }
            Some(Change::Remove(id)) => {
                if let Some(m) = place(*id) {
                    state.masters.remove(m);
                }
            }
            Some(Change::Set { master, config, .. }) => {
                if let Some(m) = place(*master) {
                    state.masters[m].config = (**config).clone();
                }
            }
            Some(Change::Settings(settings)) => state.settings = (**settings).clone(),
            Some(Change::Nothing) | None => {}
        }
        state
    }

    fn master_state(&self, master: &Master) -> MasterState {
        let place = |host: &Option<String>, address: SocketAddr| Place {
            host: host.clone().unwrap_or_else(|| address.ip().to_string()),
            port: address.port(),
        };
        let replicas = master.others().map(|n| &master.nodes[n]);
        MasterState {
            config: master.config.clone(),
            place: place(&master.watched().host, master.monitored()),
            config_epoch: master.epoch(),
            leader_epoch: master.vote.map_or(0, |(_, epoch)| epoch),
            replicas: replicas.map(|node| place(&node.host, node.address)).collect(),
            sentinels: self
                .watchers(master)
                .filter_map(|peer| Some(KnownSentinel { place: place(&peer.host, peer.address), id: peer.id? }))
                .collect(),
        }
    }

    /// Makes a master's place its first decision.
    pub(super) fn place_master(&mut self, m: usize, address: SocketAddr, place: &Place, epoch: u64, now: Instant) {
        self.masters[m].decision = Some(Decision { master: address, epoch });
        let n = self.index_of(m, address, now);
        self.masters[m].nodes[n].host = name_in(place);
    }

    /// Takes in a greeting from whoever it is. The place of the peer that sent it, if it is one to listen to.
    pub(super) fn discover(&mut self, m: usize, hello: &Hello, now: Instant) -> Option<usize> {
        let address = self.look_up(&hello.place, now)?;
        let found = self.peers.iter().position(|peer| peer.id == Some(hello.id));
        if let Some(p) = found
            && self.peers[p].address != address
        {
            self.moved(p, address, now);
        }
        if found.is_none() {
            // Whoever was at this address before is gone: it has another id now.
            if let Some(old) = self.peers.iter().position(|peer| peer.address == address) {
                self.invalid(old);
            }
            if self.peers.len() >= PEERS_MAX {
                return None;
            }
            self.add_peer(None, address, Some(hello.id), now);
        }
        let p = found.unwrap_or(self.peers.len() - 1);
        let (peer, master) = (&mut self.peers[p], &mut self.masters[m]);
        peer.host = name_in(&hello.place);
        if !peer.watches(master) {
            peer.opinions.entry(master.id).or_default();
            // It may have been started this moment: the sooner it knows this one, the sooner both can agree.
            master.hello_due = master.hello_due.min(now + HELLO_BACK);
            self.dirty = true;
            self.sentinel_event("+sentinel", m, hello.id, address);
        }
        Some(p)
    }

    fn moved(&mut self, p: usize, address: SocketAddr, now: Instant) {
        let watched = self.watched_by(p);
        self.peers[p].address = address;
        self.dirty = true;
        self.hang_up_peer(p, now);
        if let Some(id) = self.peers[p].id {
            let text = format!(" for {id}");
            watched.into_iter().for_each(|m| self.switched_address(m, address, &text));
        }
    }

    fn switched_address(&mut self, m: usize, address: SocketAddr, text: &str) {
        let extra = format!(" {} {}{text}", address.ip(), address.port());
        self.master_event("+sentinel-address-switch", m, &extra);
    }

    fn invalid(&mut self, p: usize) {
        let (id, address) = (self.peers[p].id, self.peers[p].address);
        for m in self.watched_by(p) {
            if let Some(id) = id {
                self.sentinel_event("+sentinel-invalid-addr", m, id, address);
            }
        }
        self.drop_peer(p);
    }

    /// The address of a place, if it is one or its name is known.
    pub(super) fn address_of(&self, place: &Place) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.names.known(&place.host)?, place.port))
    }

    /// The same; a name that is not known is asked for, if names are to be resolved at all.
    pub(super) fn look_up(&mut self, place: &Place, now: Instant) -> Option<SocketAddr> {
        if place.address().is_none() && !self.settings.resolve_hostnames {
            return None;
        }
        match self.names.lookup(&place.host, now) {
            Lookup::Known(ip) => Some(SocketAddr::new(ip, place.port)),
            Lookup::Pending | Lookup::Failed(_) | Lookup::Invalid | Lookup::Full => None,
        }
    }

    pub(super) fn ask_names(&mut self, now: Instant) {
        let mut requests = Vec::new();
        let wake = self.names.turn(now, &mut requests);
        wake.into_iter().for_each(|at| self.wake_at(at));
        self.free.extend(requests.into_iter().map(Output::Resolve));
    }

    /// A name was resolved, or could not be.
    pub(super) fn resolved(&mut self, answer: names::Answer, now: Instant) {
        if let Some(moved) = self.names.answered(answer, now) {
            self.moved_host(&moved.name, moved.to, now);
        }
    }

    /// Whatever is known by that name is somewhere else now.
    fn moved_host(&mut self, name: &str, to: IpAddr, now: Instant) {
        let named = |host: &Option<String>| host.as_ref().is_some_and(|host| host.eq_ignore_ascii_case(name));
        let links: Vec<_> = self.masters.iter_mut().flat_map(|master| master.moved(name, to, now)).collect();
        links.into_iter().for_each(|link| self.hang_up(link));
        for p in 0..self.peers.len() {
            if named(&self.peers[p].host) && self.peers[p].address.ip() != to {
                self.peers[p].address.set_ip(to);
                self.hang_up_peer(p, now);
            }
        }
    }
}

/// A new sentinel is greeted back within this time.
const HELLO_BACK: std::time::Duration = std::time::Duration::from_millis(200);

/// The host of a place if it is a name.
fn name_in(place: &Place) -> Option<String> {
    place.host.parse::<IpAddr>().is_err().then(|| place.host.clone())
}
