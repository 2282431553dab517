//! One client's connection: who it is, how it wants its answers, and what it has subscribed to.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::{Answer, ClientId};
use crate::wire::resp::Protocol;

use super::acl::DEFAULT;
use super::ask::Sockets;
use super::reply::{error, lower, simple, syntax, text};

/// Longest name or version of a library, bytes.
const LIBRARY_MAX: usize = 64;

/// What is known of one client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) sockets: Sockets,
    /// Whether it has said who it is, or need not.
    pub(super) authenticated: bool,
    pub(super) user: String,
    pub(super) name: String,
    /// The library it says it uses, and its version.
    pub(super) library: [String; 2],
    pub(super) protocol: Protocol,
    pub(super) replies: Replies,
    /// Asked for by `CLIENT TRACKING`; nothing follows from it.
    pub(super) tracking: bool,
    pub(super) no_evict: bool,
    pub(super) came_at: Instant,
    /// When it gave its last command, and which.
    pub(super) last_at: Instant,
    pub(super) last: &'static str,
    /// Channels it has subscribed to.
    pub(super) channels: BTreeSet<Bytes>,
    /// Patterns it has subscribed to.
    pub(super) patterns: BTreeSet<Bytes>,
}

/// Whether its commands are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// All but the next one.
    SkipNext,
    /// This one is not.
    Skipping,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Subscriber,
    /// Links of replication: there are none.
    Replication,
}

impl Kind {
    pub(super) fn parse(name: &[u8]) -> Result<Self, Answer> {
        match lower(name).as_str() {
            "normal" => Ok(Self::Normal),
            "pubsub" => Ok(Self::Subscriber),
            "master" | "replica" | "slave" => Ok(Self::Replication),
            _ => Err(error(format!("ERR Unknown client type '{}'", text(name)))),
        }
    }
}

impl Client {
    pub(super) fn new(sockets: Sockets, open: bool, now: Instant) -> Self {
        Self {
            sockets: sockets.canonical(),
            authenticated: open,
            user: DEFAULT.to_owned(),
            name: String::new(),
            library: [String::new(), String::new()],
            protocol: Protocol::Two,
            replies: Replies::On,
            tracking: false,
            no_evict: false,
            came_at: now,
            last_at: now,
            last: "NULL",
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
        }
    }

    /// How many channels and patterns it has subscribed to.
    pub(super) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Whether it has subscribed to anything.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscriptions() > 0
    }

    /// Whether it may give only the commands of subscribers: RESP2 cannot tell answers from messages.
    pub(super) fn is_confined(&self) -> bool {
        self.is_subscribed() && self.protocol == Protocol::Two
    }

    /// Whether what it asks is not to be answered.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.replies, Replies::Off | Replies::Skipping)
    }

    pub(super) fn kind(&self) -> Kind {
        if self.is_subscribed() { Kind::Subscriber } else { Kind::Normal }
    }

    /// Its line in `CLIENT LIST`, without the end. What only a data server has is zero.
    pub(super) fn line(&self, id: ClientId, now: Instant) -> String {
        let (subs, patterns) = (self.channels.len(), self.patterns.len());
        let mut flags = if self.is_subscribed() { "P" } else { "N" }.to_owned();
        if self.tracking {
            flags = flags.replace('N', "") + "t";
        }
        if self.no_evict {
            flags = flags.replace('N', "") + "e";
        }
        format!(
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db=0 sub={subs} psub={patterns} ssub=0 \
             multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem={} events=r \
             cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}",
            id.0,
            self.sockets.peer,
            self.sockets.local,
            self.sockets.fd,
            self.name,
            now.since(self.came_at).as_secs(),
            now.since(self.last_at).as_secs(),
            size_of::<Self>(),
            self.last,
            self.user,
            self.protocol.number(),
            self.library[0],
            self.library[1],
        )
    }

    pub(super) fn set_library(&mut self, what: &[u8], value: &[u8]) -> Answer {
        let place = match lower(what).as_str() {
            "lib-name" => 0,
            "lib-ver" => 1,
            _ => return error(format!("ERR Unrecognized option '{}'", text(what))),
        };
        if value.len() > LIBRARY_MAX || !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
            let what = text(what).to_ascii_lowercase();
            return error(format!("ERR {what} cannot contain spaces, newlines or special characters."));
        }
        text(value).clone_into(&mut self.library[place]);
        simple("OK")
    }

    pub(super) fn track(&mut self, mode: &str, options: &[Bytes]) -> Answer {
        if !options.is_empty() {
            let known = ["redirect", "bcast", "prefix", "optin", "optout", "noloop"];
            return match known.contains(&lower(&options[0]).as_str()) {
                true => error("ERR CLIENT TRACKING takes no options here: a Sentinel has no keys to track"),
                false => syntax(),
            };
        }
        self.tracking = match mode {
            "on" => true,
            "off" => false,
            _ => return syntax(),
        };
        simple("OK")
    }
}
