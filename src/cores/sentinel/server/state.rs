//! What the server keeps, and what every command of it may do: answer, promise, ask the process, close a connection.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::cores::sentinel::effect::Gate;
use crate::cores::sentinel::{Answer, ClientId, Logins, Output, Record};
use crate::wire::resp::{Reply, Rich};

use super::access::Access;
use super::acl::Acl;
use super::ask::Question;
use super::client::{Client, Replies};
use super::clients::Clients;
use super::fence::{Fence, Fenced};
use super::load::{Effort, Stats};
use super::refusals::Refusals;
use super::reply::nothing;

/// Commands that wait for what a host name stands for, at most.
const UNRESOLVED_MAX: usize = 64;
/// Commands that wait for a change to be on disk, at most, and their bytes.
const DEFERRED_MAX: usize = 4_096;
const DEFERRED_LEN_MAX: usize = 4 << 20;

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
    /// The client whose command of this turn is not answered.
    skipping: Option<ClientId>,
    /// Commands that wait for a change that is not on disk yet, and what comes behind them from the same clients.
    deferred: VecDeque<(ClientId, Deferred)>,
    /// Bytes of them.
    deferred_len: usize,
    pub(super) stats: Stats,
    pub(super) effort: Effort,
    /// Outputs of this turn that promise nothing.
    pub(in crate::cores::sentinel) free: Vec<Output>,
    /// Outputs of this turn that must not happen unless what must survive is on disk.
    pub(super) fenced: Vec<Fenced>,
    fence: Fence,
}

/// What a client has sent that is to be looked at later.
#[derive(Debug)]
pub(in crate::cores::sentinel) enum Deferred {
    Command(Vec<Bytes>),
    /// No command; why in words.
    Garbage(String),
}

impl Deferred {
    fn len(&self) -> usize {
        match self {
            Self::Command(args) => args.iter().map(Bytes::len).sum(),
            Self::Garbage(why) => why.len(),
        }
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
            skipping: None,
            deferred: VecDeque::new(),
            deferred_len: 0,
            stats: Stats::default(),
            effort: Effort::default(),
            free: Vec::new(),
            fenced: Vec::new(),
            fence: Fence::default(),
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
        if self.keeps_waiting(client) {
            self.fenced.push(Fenced::InOrder(client, Output::Respond(client, answer)));
        } else {
            self.free.push(Output::Respond(client, answer));
        }
    }

    /// Something about a client that must not overtake what it is to be answered.
    pub(super) fn in_order(&mut self, client: ClientId, output: Output) {
        if self.keeps_waiting(client) {
            self.fenced.push(Fenced::InOrder(client, output));
        } else {
            self.free.push(output);
        }
    }

    fn keeps_waiting(&self, client: ClientId) -> bool {
        self.fenced.iter().any(|fenced| fenced.keeps_waiting(client)) || self.fence.keeps_waiting(client)
    }

    /// Answers, and closes the connection behind that.
    pub(super) fn dismiss_with(&mut self, client: ClientId, answer: Answer) {
        self.respond(client, answer);
        self.in_order(client, Output::Dismiss(client));
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
        self.deferred.retain(|(waiting, _)| *waiting != client);
        self.deferred_len = self.deferred.iter().map(|(_, deferred)| deferred.len()).sum();
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

    /// Takes out the commands that wait for that host name.
    pub(in crate::cores::sentinel) fn take_resolved(&mut self, host: &str) -> Vec<(ClientId, Vec<Bytes>)> {
        let waiting = self.unresolved.extract_if(.., |(wanted, _, _)| wanted.eq_ignore_ascii_case(host));
        waiting.map(|(_, client, args)| (client, args)).collect()
    }

    /// Whether what this client sends has to wait for what it, or somebody else, has sent before.
    pub(in crate::cores::sentinel) fn is_deferred(&self, client: ClientId) -> bool {
        self.deferred.iter().any(|(waiting, _)| *waiting == client)
    }

    /// Lets what a client has sent wait until the change before it is on disk. One that sends too much meanwhile is dropped.
    pub(in crate::cores::sentinel) fn defer(&mut self, client: ClientId, deferred: Deferred) {
        self.deferred_len += deferred.len();
        self.deferred.push_back((client, deferred));
        if self.deferred.len() > DEFERRED_MAX || self.deferred_len > DEFERRED_LEN_MAX {
            self.kill(client);
        }
    }

    /// Takes out what has waited.
    pub(in crate::cores::sentinel) fn take_deferred(&mut self) -> VecDeque<(ClientId, Deferred)> {
        self.deferred_len = 0;
        std::mem::take(&mut self.deferred)
    }

    /// Puts an answer behind the fence.
    pub(super) fn promise(&mut self, client: ClientId, answer: Answer) {
        self.fenced.push(Fenced::Answer(client, answer));
    }

    /// The store that was under way has ended: says what was promised with it, or that it could not be stored.
    pub(in crate::cores::sentinel) fn stored(&mut self, well: bool) {
        self.free.extend(self.fence.open(well));
    }

    /// Puts the outputs of a turn in their order: what promises nothing, what has to be stored, and what stands behind that once
    /// it is. `gate` says how the fence stands; it is told whether anything is promised behind it.
    pub(in crate::cores::sentinel) fn flush(
        &mut self,
        out: &mut Vec<Output>,
        store_first: bool,
        gate: impl FnOnce(bool) -> Gate,
    ) {
        self.hold_tongue();
        out.append(&mut self.free);
        self.fence.add(&mut self.fenced);
        if !store_first {
            out.extend(self.fence.pass());
        }
        match gate(self.fence.is_wanted()) {
            Gate::Shut => {}
            Gate::Store(record) => {
                self.fence.close();
                out.push(Output::Store(self.with_users(record)));
            }
            Gate::Open => out.extend(self.fence.pass()),
        }
    }

    /// Takes out what clients do not want to be answered. Messages to subscribers are no answers.
    fn hold_tongue(&mut self) {
        let clients = &self.clients;
        let message = |reply: &Reply| matches!(reply, Reply::Rich(Rich::Push(_)));
        let is_wanted = |client: &ClientId, answer: &Answer| {
            !clients.get(*client).is_some_and(Client::is_silent)
                || match answer {
                    Answer::Reply(reply) => message(reply),
                    Answer::Many(replies) => replies.iter().all(message),
                }
        };
        let wanted = |output: &Output| match output {
            Output::Respond(client, answer) => is_wanted(client, answer),
            _ => true,
        };
        self.free.retain(wanted);
        self.fenced.retain(|fenced| match fenced {
            Fenced::Promise(output) | Fenced::InOrder(_, output) => wanted(output),
            Fenced::Answer(client, answer) => is_wanted(client, answer),
        });
        if let Some(session) = self.skipping.take().and_then(|client| self.clients.get_mut(client)) {
            session.replies = Replies::On;
        }
    }
}
