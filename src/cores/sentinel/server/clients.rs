//! All clients, and what they have subscribed to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::{Answer, ClientId, Event, Output};
use crate::wire::resp::Reply;

use super::client::{Client, Kind};
use super::glob;
use super::reply::{bulk, error, integer, nothing};

/// Most channels and patterns of one client.
const SUBSCRIPTIONS_MAX: usize = 256;
/// Most channels and patterns of all clients: each event is compared with each of them.
const ALL_SUBSCRIPTIONS_MAX: usize = 65_536;
/// Longest channel or pattern, bytes.
const NAME_MAX: usize = 256;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: BTreeMap<ClientId, Client>,
    /// Channels and patterns of all of them.
    subscriptions: usize,
}

/// Which connections are meant.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) id: Option<u64>,
    pub(super) kind: Option<Kind>,
    pub(super) user: Option<String>,
    pub(super) peer: Option<String>,
    pub(super) local: Option<String>,
    /// At least so old, seconds.
    pub(super) age: Option<u64>,
    /// Whether the connection that asks is meant too.
    pub(super) own: bool,
}

impl Filter {
    pub(super) fn fits(&self, id: ClientId, client: &Client, asking: ClientId, now: Instant) -> bool {
        (self.own || id != asking)
            && self.id.is_none_or(|wanted| wanted == id.0)
            && self.kind.is_none_or(|kind| kind == client.kind())
            && self.user.as_ref().is_none_or(|user| *user == client.user)
            && self.peer.as_ref().is_none_or(|peer| *peer == client.sockets.peer.to_string())
            && self.local.as_ref().is_none_or(|local| *local == client.sockets.local.to_string())
            && self.age.is_none_or(|age| now.since(client.came_at).as_secs() >= age)
    }
}

impl Clients {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.all.iter().map(|(id, client)| (*id, client))
    }

    /// Those of which this is true.
    pub(super) fn which(&self, fits: impl Fn(ClientId, &Client) -> bool) -> Vec<ClientId> {
        self.iter().filter(|(id, client)| fits(*id, client)).map(|(id, _)| id).collect()
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.all.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: ClientId, client: Client) {
        self.all.insert(id, client);
    }

    /// Whether there was such a client.
    pub(super) fn remove(&mut self, id: ClientId) -> bool {
        let gone = self.all.remove(&id);
        self.subscriptions -= gone.as_ref().map_or(0, Client::subscriptions);
        gone.is_some()
    }

    /// Makes a client's connection as if it were new. Whether there is such a client.
    pub(super) fn reset(&mut self, id: ClientId, open: bool, now: Instant) -> bool {
        let Some(client) = self.all.get_mut(&id) else { return false };
        self.subscriptions -= client.subscriptions();
        *client = Client { came_at: client.came_at, last: "reset", ..Client::new(client.sockets, open, now) };
        true
    }

    /// `SUBSCRIBE`, `PSUBSCRIBE` and their ends.
    pub(super) fn subscribe(&mut self, id: ClientId, command: &str, args: &[Bytes]) -> Answer {
        let Some(client) = self.all.get_mut(&id) else { return nothing() };
        let by_pattern = command.starts_with('p');
        let opening = !command.contains("un");
        let set = if by_pattern { &mut client.patterns } else { &mut client.channels };
        let names: Vec<Bytes> = if args.is_empty() { set.iter().cloned().collect() } else { args.to_vec() };
        if opening && (set.len() + names.len() > SUBSCRIPTIONS_MAX || names.iter().any(|name| name.len() > NAME_MAX)) {
            return error(format!("ERR at most {SUBSCRIPTIONS_MAX} subscriptions of {NAME_MAX} bytes are allowed"));
        }
        if opening && self.subscriptions + names.len() > ALL_SUBSCRIPTIONS_MAX {
            return error(format!("ERR at most {ALL_SUBSCRIPTIONS_MAX} subscriptions of all clients are allowed"));
        }
        let before = client.subscriptions();
        let mut replies = Vec::new();
        for name in names.iter().map(Some).chain(names.is_empty().then_some(None)) {
            let set = if by_pattern { &mut client.patterns } else { &mut client.channels };
            match (name, opening) {
                // A copy: what came in may be a slice of a large buffer.
                (Some(name), true) => drop(set.insert(Bytes::copy_from_slice(name))),
                (Some(name), false) => drop(set.remove(name)),
                (None, _) => {}
            }
            let count = client.subscriptions();
            let name = name.map_or(Reply::Null, |name| Reply::Bulk(name.clone()));
            replies.push(Reply::push(vec![bulk(command.to_owned()), name, integer(count)]));
        }
        self.subscriptions = self.subscriptions + client.subscriptions() - before;
        Answer::Many(replies)
    }

    /// How many different channels, and how many different patterns, are subscribed to.
    pub(super) fn subscribed(&self) -> [usize; 2] {
        let different = |all: &mut dyn Iterator<Item = &Bytes>| all.collect::<BTreeSet<_>>().len();
        let channels = different(&mut self.all.values().flat_map(|client| &client.channels));
        [channels, different(&mut self.all.values().flat_map(|client| &client.patterns))]
    }

    /// What subscribers hear of an event.
    pub(super) fn messages(&self, event: &Event) -> Vec<Output> {
        let mut messages = Vec::new();
        let (channel, payload) = (event.name.as_bytes(), Bytes::from(event.payload.clone()));
        let message = |words: Vec<Bytes>| Answer::Reply(Reply::push(words.into_iter().map(Reply::Bulk).collect()));
        let name = Bytes::from_static(event.name.as_bytes());
        for (id, client) in self.iter() {
            if client.channels.contains(channel) {
                let words = vec![Bytes::from_static(b"message"), name.clone(), payload.clone()];
                messages.push(Output::Respond(id, message(words)));
            }
            for pattern in client.patterns.iter().filter(|pattern| glob::matches(pattern, channel)) {
                let words = vec![Bytes::from_static(b"pmessage"), pattern.clone(), name.clone(), payload.clone()];
                messages.push(Output::Respond(id, message(words)));
            }
        }
        messages
    }
}
