//! What the server keeps, and what every command of it may do: answer, promise, ask the process, close a connection.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::{Answer, ClientId, Logins, Output, Record};
use crate::wire::resp::{Reply, Rich};

use super::access::Access;
use super::acl::Acl;
use super::ask::Question;
use super::client::{Client, Replies};
use super::clients::Clients;
use super::load::{Effort, Stats};
use super::refusals::Refusals;
use super::reply::{error, nothing};

/// Commands that wait for what a host name stands for, at most.
const UNRESOLVED_MAX: usize = 64;

/// The command server.
#[derive(Debug)]
pub(in crate::cores::sentinel) struct Server {
    pub(super) access: Access,
    /// Whether clients from elsewhere are refused while the user `default` has no password.
    protected: bool,
    pub(super) clients: Clients,
    /// A client that says nothing for so long, and listens to nothing, is dropped; none: never.
    idle_limit: Option<Duration>,
    idle_due: Instant,
    pub(super) refusals: Refusals,
    /// Commands that wait for a fact.
    asked: BTreeMap<ClientId, Asked>,
    /// Commands that wait for what a host name stands for.
    unresolved: Vec<(String, ClientId, Vec<Bytes>)>,
    /// Those of them that can be given again.
    resolved: VecDeque<(ClientId, Vec<Bytes>)>,
    /// The client whose command of this turn is not answered.
    skipping: Option<ClientId>,
    /// Clients whose answers stand behind the fence.
    promised: Vec<ClientId>,
    pub(super) stats: Stats,
    pub(super) effort: Effort,
    /// Outputs of this turn that promise nothing.
    pub(in crate::cores::sentinel) free: Vec<Output>,
    /// Outputs of this turn that must not happen unless what must survive is on disk.
    pub(in crate::cores::sentinel) fenced: Vec<Output>,
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

impl Server {
    pub(in crate::cores::sentinel) fn new(access: Access) -> Self {
        Self {
            access,
            protected: false,
            clients: Clients::default(),
            idle_limit: None,
            idle_due: Instant::START,
            refusals: Refusals::default(),
            asked: BTreeMap::new(),
            unresolved: Vec::new(),
            resolved: VecDeque::new(),
            skipping: None,
            promised: Vec::new(),
            stats: Stats::default(),
            effort: Effort::default(),
            free: Vec::new(),
            fenced: Vec::new(),
        }
    }

    pub(in crate::cores::sentinel) fn limit_idle(&mut self, limit: Option<Duration>) {
        self.idle_limit = limit;
    }

    pub(in crate::cores::sentinel) fn set_access(&mut self, access: Access, protected: bool) {
        (self.access, self.protected) = (access, protected);
    }

    /// Takes over secrets that were changed. Who has logged in stays so.
    pub(in crate::cores::sentinel) fn renew(&mut self, logins: Logins) {
        if let Access::Cluster(known) = &mut self.access {
            *known = Some(logins);
        }
    }

    /// The users, if users decide.
    pub(in crate::cores::sentinel) fn acl(&self) -> Option<&Acl> {
        match &self.access {
            Access::Cluster(_) => None,
            Access::Acl(acl) => Some(acl),
        }
    }

    /// What is to be on disk, with the users where they are a part of it. Those of an ACL file are not.
    pub(in crate::cores::sentinel) fn with_users(&self, mut record: Record) -> Record {
        if let (Record::Everything(state), Some(acl)) = (&mut record, self.acl()) {
            state.settings.users = if acl.has_file { Vec::new() } else { acl.lines() };
        }
        record
    }

    /// Whether a connection from there is refused as a whole.
    pub(super) fn shuts_out(&self, client: &Client) -> bool {
        self.protected && self.access.is_unprotected() && !client.sockets.peer.ip().is_loopback()
    }

    /// As redis does it: looked at once a second, and who has subscribed to something only listens. Returns when to look again.
    pub(in crate::cores::sentinel) fn drop_idle(&mut self, now: Instant) -> Option<Instant> {
        let limit = self.idle_limit.filter(|_| self.clients.len() > 0)?;
        if now >= self.idle_due {
            self.idle_due = now + Duration::from_secs(1);
            let idle = self.clients.which(|_, client| !client.is_subscribed() && now.since(client.last_at) > limit);
            idle.into_iter().for_each(|client| self.kill(client));
        }
        Some(self.idle_due)
    }

    pub(super) fn respond(&mut self, client: ClientId, answer: Answer) {
        self.free.push(Output::Respond(client, answer));
    }

    /// Answers, and closes the connection behind that.
    pub(super) fn dismiss_with(&mut self, client: ClientId, answer: Answer) {
        self.respond(client, answer);
        self.free.push(Output::Dismiss(client));
    }

    /// Ends a client's connection at once; what it was answered and has not read is lost.
    pub(super) fn kill(&mut self, client: ClientId) {
        if self.forget_client(client) {
            self.free.push(Output::Kill(client));
        }
    }

    /// Whether there was such a client.
    pub(super) fn forget_client(&mut self, client: ClientId) -> bool {
        self.asked.remove(&client);
        self.unresolved.retain(|(_, waiting, _)| *waiting != client);
        self.resolved.retain(|(waiting, _)| *waiting != client);
        self.clients.remove(client)
    }

    /// The answer to this command of the client is not wanted.
    pub(super) fn skip(&mut self, client: ClientId) {
        self.skipping = Some(client);
    }

    /// Remembers a refusal for `ACL LOG`.
    pub(super) fn refuse(
        &mut self,
        client: ClientId,
        reason: &'static str,
        object: String,
        user: String,
        now: Instant,
    ) {
        let line = self.clients.get(client).map_or(String::new(), |session| session.line(client, now));
        self.refusals.add(reason, (object, user), line, self.access.log_max(), now);
    }

    /// Lets a command wait for a fact.
    pub(super) fn ask(&mut self, client: ClientId, asked: Asked, question: Question) -> Answer {
        self.asked.insert(client, asked);
        self.free.push(Output::Ask(client, question));
        nothing()
    }

    /// What a client's command waited for, unless the client has gone.
    pub(super) fn take_asked(&mut self, client: ClientId) -> Option<Asked> {
        self.asked.remove(&client)
    }

    /// Lets a command wait for what a host name stands for. Whether there is room for one more.
    pub(super) fn wait_for(&mut self, host: String, client: ClientId, args: &[Bytes]) -> bool {
        let has_room = self.unresolved.len() < UNRESOLVED_MAX;
        if has_room {
            self.unresolved.push((host, client, args.to_vec()));
        }
        has_room
    }

    /// It is known what that host name stands for, or that nobody knows.
    pub(in crate::cores::sentinel) fn host_resolved(&mut self, host: &str) {
        let waiting = self.unresolved.extract_if(.., |(wanted, _, _)| wanted.eq_ignore_ascii_case(host));
        self.resolved.extend(waiting.map(|(_, client, args)| (client, args)));
    }

    /// Takes out a command that no longer waits for a host name.
    pub(in crate::cores::sentinel) fn take_resolved(&mut self) -> Option<(ClientId, Vec<Bytes>)> {
        self.resolved.pop_front()
    }

    /// Puts an answer behind the fence.
    pub(super) fn promise(&mut self, client: ClientId, answer: Answer) {
        self.promised.push(client);
        self.fenced.push(Output::Respond(client, answer));
    }

    /// The disk has nothing to do with what was answered in this turn.
    pub(in crate::cores::sentinel) fn keep_promises(&mut self) {
        self.promised.clear();
    }

    /// What was promised could not be stored, and was thrown away with the answers.
    pub(in crate::cores::sentinel) fn break_promises(&mut self) {
        for client in std::mem::take(&mut self.promised) {
            self.respond(client, error("ERR refused: what is promised cannot be stored"));
        }
    }

    /// Takes out what clients do not want to be answered. Messages to subscribers are no answers.
    pub(in crate::cores::sentinel) fn hold_tongue(&mut self) {
        let clients = &self.clients;
        let message = |reply: &Reply| matches!(reply, Reply::Rich(Rich::Push(_)));
        let wanted = |output: &Output| {
            let Output::Respond(client, answer) = output else { return true };
            !clients.get(*client).is_some_and(Client::is_silent)
                || match answer {
                    Answer::Reply(reply) => message(reply),
                    Answer::Many(replies) => replies.iter().all(message),
                }
        };
        self.free.retain(wanted);
        self.fenced.retain(wanted);
        if let Some(session) = self.skipping.take().and_then(|client| self.clients.get_mut(client)) {
            session.replies = Replies::On;
        }
    }
}
