//! Who may do what: one decision for every command, before anything is done.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::base::secret::CONTROL_USER;
use crate::wire::resp::{Reply, Rich};

use super::acl::{self, Acl, Channels, Denied};
use super::sabotage::Rule;
use super::session::{Client, bulk, words};
use super::table::{self, Spec};
use super::{ClientId, Logins, Renewal, Sentinel};

/// The same refusal within this time is counted, not kept again.
const LOG_GROUP: Duration = Duration::from_secs(60);
/// What a description of all commands counts for.
const LINES_OF_THE_TABLE: usize = 200;
/// Longest name or object that is kept of a refusal, bytes.
const OBJECT_MAX: usize = 256;

/// What decides whether a client may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody may read. What changes something needs a login, wherever it comes from: an address is nobody's word. None:
    /// everybody may do everything.
    Cluster(Option<Logins>),
    /// As redis-sentinel: users and their rules.
    Acl(Acl),
}

/// What the port for clients keeps beside the clients themselves.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) access: Access,
    /// Whether clients from elsewhere are refused while the user `default` has no password.
    pub(super) protected: bool,
    /// A client that says nothing for so long, and listens to nothing, is dropped; none: never.
    idle_limit: Option<Duration>,
    idle_due: Instant,
    pub(super) log: VecDeque<Refusal>,
    /// Commands that wait for a fact.
    pub(super) asked: BTreeMap<ClientId, Asked>,
    /// The client whose command of this turn is not answered.
    pub(super) skipping: Option<ClientId>,
    /// Channels and patterns of all clients.
    pub(super) subscriptions: usize,
    pub(super) commands: u64,
    pub(super) errors: u64,
    /// What `instantaneous_ops_per_sec` tells.
    pub(super) pace: Pace,
    effort: Effort,
}

/// Lines of long answers that may be made in one second. A crowd that asks for long lists must not keep the sentinel from
/// its judgement: what the servers say waits behind what clients ask.
const LINES_PER_SECOND: usize = 20_000;

#[derive(Debug, Default)]
struct Effort {
    since: Instant,
    lines: usize,
}

/// How many commands there were in the last whole second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    since: Instant,
    count: u64,
    last: u64,
}

impl Pace {
    pub(super) fn count(&mut self, now: Instant, commands: u64) -> u64 {
        let passed = now.since(self.since);
        if passed >= Duration::from_secs(1) {
            self.last = if passed < Duration::from_secs(2) { self.count } else { 0 };
            (self.since, self.count) = (now, 0);
        }
        self.count += commands;
        self.last
    }
}

/// What a command waits for.
#[derive(Debug)]
pub(super) enum Asked {
    /// INFO of these sections.
    Info(Vec<String>),
    /// So many bits of a password.
    Password(usize),
    /// ACL LOAD or ACL SAVE.
    Users,
}

/// Something that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    reason: &'static str,
    object: String,
    user: String,
    count: i64,
    at: Instant,
    client: String,
}

impl Desk {
    pub(super) fn new(access: Access) -> Self {
        Self {
            access,
            protected: false,
            idle_limit: None,
            idle_due: Instant::START,
            log: VecDeque::new(),
            asked: BTreeMap::new(),
            skipping: None,
            subscriptions: 0,
            commands: 0,
            errors: 0,
            pace: Pace::default(),
            effort: Effort::default(),
        }
    }

    /// Whether so many more lines may be looked through in this second. One answer may always be, however long.
    pub(super) fn affords(&mut self, lines: usize, now: Instant) -> bool {
        let effort = &mut self.effort;
        if now.since(effort.since) >= Duration::from_secs(1) {
            *effort = Effort { since: now, lines: 0 };
        }
        let affords = effort.lines == 0 || effort.lines + lines <= LINES_PER_SECOND;
        if affords {
            effort.lines += lines;
        }
        affords
    }

    /// Whether a client is, at its start, who it says without saying anything.
    pub(super) fn is_open(&self) -> bool {
        match &self.access {
            Access::Cluster(_) => false,
            Access::Acl(acl) => acl.is_open(),
        }
    }

    fn refused(&mut self, entry: Refusal) {
        let alike = |known: &Refusal| {
            (known.reason, &known.object, &known.user) == (entry.reason, &entry.object, &entry.user)
                && entry.at.since(known.at) <= LOG_GROUP
        };
        let count = match self.log.iter().position(alike) {
            Some(at) => self.log.remove(at).map_or(0, |known| known.count),
            None => 0,
        };
        self.log.push_front(Refusal { count: count + 1, ..entry });
        self.log.truncate(match &self.access {
            Access::Cluster(_) => 0,
            Access::Acl(acl) => acl.log_max,
        });
    }
}

impl Refusal {
    pub(super) fn show(&self, now: Instant) -> Reply {
        let age = now.since(self.at).as_millis();
        Reply::map([
            ("count", Reply::Integer(self.count)),
            ("reason", bulk(self.reason)),
            ("context", bulk("toplevel")),
            ("object", bulk(self.object.clone())),
            ("username", bulk(self.user.clone())),
            ("age-seconds", Reply::Rich(Rich::Double(format!("{}.{:03}", age / 1_000, age % 1_000)))),
            ("client-info", bulk(self.client.clone())),
        ])
    }
}

impl Sentinel {
    /// Drops clients that say nothing for so long (`timeout`).
    #[must_use]
    pub fn with_idle_limit(mut self, limit: Option<Duration>) -> Self {
        self.desk.idle_limit = limit;
        self
    }

    /// As redis does it: looked at once a second, and who has subscribed to something only listens.
    pub(super) fn drop_idle(&mut self, now: Instant) {
        let Some(limit) = self.desk.idle_limit.filter(|_| !self.clients.is_empty()) else { return };
        if now >= self.desk.idle_due {
            self.desk.idle_due = now + Duration::from_secs(1);
            let idle = |client: &Client| !client.is_subscribed() && now.since(client.last_at) > limit;
            let idle: Vec<_> = self.clients.iter().filter(|(_, client)| idle(client)).map(|(id, _)| *id).collect();
            idle.into_iter().for_each(|client| self.kill(client));
        }
        self.wake_at(self.desk.idle_due);
    }

    /// Puts other rules of access in the place of those of the cluster file.
    #[must_use]
    pub fn with_access(mut self, access: Access, protected: bool) -> Self {
        self.desk.access = access;
        self.desk.protected = protected;
        self
    }

    /// The users, if users decide: to be written to a file.
    pub fn acl(&self) -> Option<&Acl> {
        match &self.desk.access {
            Access::Cluster(_) => None,
            Access::Acl(acl) => Some(acl),
        }
    }

    /// Whether a client may change state.
    pub(super) fn trusted(&self, client: ClientId) -> bool {
        let Some(client) = self.clients.get(&client) else { return false };
        match &self.desk.access {
            Access::Cluster(logins) => logins.is_none() || client.authenticated,
            // Its rules were looked at before the command began.
            Access::Acl(_) => true,
        }
    }

    /// Whether a client is the cluster itself: a node of it, or a stock sentinel that knows what the file lists it for.
    pub(super) fn is_own(&self, client: ClientId) -> bool {
        let Some(client) = self.clients.get(&client) else { return false };
        match &self.desk.access {
            Access::Cluster(None) => true,
            Access::Cluster(Some(_)) => client.authenticated && client.user == CONTROL_USER,
            // Its rules were looked at before the command began.
            Access::Acl(_) => true,
        }
    }

    /// Takes over a secret that was changed. Who has logged in stays so.
    pub(super) fn renew(&mut self, renewal: Renewal) {
        let Renewal { logins, auth_pass } = renewal;
        self.settings.sentinel_pass = Some(logins.cluster.current().clone());
        if let Access::Cluster(known) = &mut self.desk.access {
            *known = Some(logins);
        }
        self.masters.iter_mut().for_each(|master| master.config.auth_pass = Some(auth_pass.clone()));
    }

    /// The command these words call, if the client may give it now; else the error.
    pub(super) fn admit(&mut self, client: ClientId, args: &[Bytes], now: Instant) -> Result<&'static Spec, String> {
        let spec = table::resolve(args)?;
        let Some(session) = self.clients.get_mut(&client) else { return Err("ERR the client is gone".to_owned()) };
        session.last = spec.name;
        let (confined, authenticated) = (session.is_confined(), session.authenticated);
        let session = &*session;
        match &self.desk.access {
            Access::Cluster(_) => {
                if spec.changes(args) && !self.trusted(client) {
                    return Err("NOAUTH Authentication required.".to_owned());
                }
                if spec.commands_the_cluster(args) && !self.is_own(client) && self.rules.holds(Rule::OwnVoices) {
                    return Err(format!(
                        "NOPERM only the user {CONTROL_USER} of the cluster itself may run the '{}' command",
                        spec.name
                    ));
                }
            }
            Access::Acl(acl) => {
                if !authenticated && !acl.is_open() && !spec.needs_no_auth() {
                    return Err("NOAUTH Authentication required.".to_owned());
                }
                if let Err(denied) = permitted(acl, &session.user, spec, args) {
                    return Err(self.deny(client, spec, denied, now));
                }
            }
        }
        let any_time = ["ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "quit", "reset"];
        if confined && !any_time.contains(&spec.name) {
            return Err(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
                 context",
                spec.name
            ));
        }
        let lines = match spec.name {
            "client|list" | "client|kill" => self.clients.len(),
            "info" => 10 + self.clients.len() / 10,
            "command" | "command|info" | "command|docs" | "command|list" => LINES_OF_THE_TABLE,
            _ => 0,
        };
        if lines > 0 && !self.desk.affords(lines, now) {
            return Err(format!("ERR too many long answers in one second: try '{}' again later", spec.name));
        }
        Ok(spec)
    }

    fn deny(&mut self, client: ClientId, spec: &Spec, denied: Denied, now: Instant) -> String {
        let (reason, object, text) = match denied {
            Denied::Command => (
                "command",
                spec.name.to_owned(),
                format!("NOPERM this user has no permissions to run the '{}' command", spec.name),
            ),
            Denied::Channel(channel) => (
                "channel",
                channel,
                "NOPERM this user has no permissions to access one of the channels used as arguments".to_owned(),
            ),
        };
        let user = self.clients.get(&client).map_or(String::new(), |session| session.user.clone());
        self.refusal(client, reason, object, user, now);
        text
    }

    /// Remembers a refusal for `ACL LOG`.
    pub(super) fn refusal(
        &mut self,
        client: ClientId,
        reason: &'static str,
        mut object: String,
        mut user: String,
        now: Instant,
    ) {
        for text in [&mut object, &mut user] {
            text.truncate(text.floor_char_boundary(OBJECT_MAX));
        }
        let client = self.clients.get(&client).map_or(String::new(), |session| session.line(client, now));
        self.desk.refused(Refusal { reason, object, user, count: 0, at: now, client });
    }

    /// Whether that is who the client says it is.
    pub(super) fn is_right(&self, user: &str, password: &[u8]) -> bool {
        match &self.desk.access {
            Access::Cluster(None) => user == acl::DEFAULT,
            Access::Cluster(Some(logins)) => match user {
                acl::DEFAULT => logins.applications.accept(password),
                CONTROL_USER => logins.cluster.accept(password),
                _ => false,
            },
            Access::Acl(acl) => acl.authenticates(user, password),
        }
    }

    /// Whether a connection from there is refused as a whole.
    pub(super) fn shuts_out(&self, client: &Client) -> bool {
        let unprotected = match &self.desk.access {
            Access::Cluster(_) => false,
            Access::Acl(acl) => acl.is_unprotected(),
        };
        self.desk.protected && unprotected && !client.sockets.peer.ip().is_loopback()
    }
}

/// Whether a user may give that command; one that is gone may do nothing.
pub(super) fn permitted(acl: &Acl, user: &str, spec: &Spec, args: &[Bytes]) -> Result<(), Denied> {
    let args = words(args);
    let names = match spec.name {
        "subscribe" | "psubscribe" => &args[1..],
        "publish" => &args[1..2],
        _ => &[],
    };
    let channels = Channels { names, patterns: spec.name == "psubscribe" };
    acl.user(user).map_or(Err(Denied::Command), |user| user.may(spec, &args, &channels))
}
