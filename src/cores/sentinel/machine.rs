//! The sentinel as a whole: what comes in goes to the server or to the agreement, then everything takes its turn, and what was
//! said goes out in its order.

use std::time::Duration;

use bytes::Bytes;

use crate::base::{Instant, Machine, RunId, time::earliest};

use super::sabotage::Rule;
use super::server::{Deferred, Server};
use super::why::MasterWhy;
use super::{Access, Acl, Agreement, ClientId, Config, Durable, Input, Output, Renewal, State};

/// The machine.
#[derive(Debug)]
pub struct Sentinel {
    /// What the sentinels agree on. It says what it has to say, and knows no client.
    pub(super) agreement: Agreement,
    /// The clients. It reads the agreement, and orders changes.
    pub(super) server: Server,
    pub(super) deadline: Option<Instant>,
}

impl Sentinel {
    /// A sentinel of a cluster file at its start. `durable` is what was stored last, or [`Durable::new`] with a new random id.
    pub fn new(config: Config, durable: Durable, now: Instant) -> Self {
        let server = Server::new(Access::Cluster(config.logins.clone()));
        Self { agreement: Agreement::new(config, durable, now), server, deadline: Some(now) }
    }

    /// A sentinel without a cluster file at its start. `state` is what its file says, and `id` its own if that says none.
    pub fn alone(config: &Config, state: State, id: RunId, now: Instant) -> Self {
        let server = Server::new(Access::Cluster(config.logins.clone()));
        Self { agreement: Agreement::alone(config, state, id, now), server, deadline: Some(now) }
    }

    /// Drops clients that say nothing for so long (`timeout`).
    #[must_use]
    pub fn with_idle_limit(mut self, limit: Option<Duration>) -> Self {
        self.server.limit_idle(limit);
        self
    }

    /// Puts other rules of access in the place of those of the cluster file.
    #[must_use]
    pub fn with_access(mut self, access: Access, protected: bool) -> Self {
        self.server.set_access(access, protected);
        self
    }

    /// The users, if users decide: to be written to a file.
    pub fn acl(&self) -> Option<&Acl> {
        self.server.acl()
    }

    /// Every gate of every master, as it stands now.
    pub fn why(&self, now: Instant) -> Vec<MasterWhy> {
        self.agreement.why(now)
    }

    /// This sentinel, just made, without one rule.
    #[cfg(feature = "sabotage")]
    #[must_use]
    pub fn without(mut self, rule: Rule) -> Self {
        self.agreement.break_rule(rule);
        self
    }

    fn take_in(&mut self, now: Instant, input: Input) {
        self.agreement.notice(&input);
        let Self { agreement, server, .. } = self;
        match input {
            Input::Tick => {}
            Input::LinkUp(link, local) => agreement.link_up(link, local, now),
            Input::LinkDown(link, reason) => agreement.link_down(link, &reason, now),
            Input::Reply(link, tag, reply) => agreement.reply(link, tag, &reply, now),
            Input::Message(link, payload) => agreement.hello_heard(link, &payload, now),
            Input::ClientCame(client, sockets) => server.client_came(client, sockets, now),
            Input::ClientGone(client) => server.client_gone(client),
            Input::Garbage(client, why) => self.sent(client, Deferred::Garbage(why), now),
            Input::Command(client, args) => self.sent(client, Deferred::Command(args), now),
            Input::Told(client, fact) => server.told(agreement.view(), client, fact, now),
            Input::Facts(facts) => agreement.facts(*facts, now),
            Input::Stored(Ok(())) => {
                server.stored(true);
                agreement.stored(now);
                self.pass_on();
                self.go_on(now);
            }
            Input::ScriptChecked(path, executable) => {
                agreement.script_checked(&path, executable);
                self.pass_on();
                self.go_on(now);
            }
            Input::Stored(Err(reason)) => {
                agreement.store_failed(&reason, now);
                self.pass_on();
                self.server.stored(false);
                self.agreement.abort_elections(now);
                self.pass_on();
                self.go_on(now);
            }
            Input::Resolved(answer) => {
                let waited = server.take_resolved(&answer.name);
                agreement.resolved(answer, now);
                self.pass_on();
                waited.into_iter().for_each(|(client, args)| self.command(client, &args, now));
            }
            Input::Script(report) => agreement.scripts.report(report, now),
            Input::Order(order, to) => agreement.order(order, to.as_ref(), now),
            Input::Bootstrap(order) => agreement.bootstrap(order, now),
            Input::Risks(order) => agreement.tell_risks(order, now),
            Input::Takeover(order) => agreement.take_over(order, now),
            Input::Renew(renewal) => {
                let Renewal { logins, auth_pass } = *renewal;
                agreement.renew(logins.cluster.current().clone(), &auth_pass);
                server.renew(logins);
            }
            Input::Why(order) => {
                let why = agreement.why(now);
                agreement.free.push(Output::Why(order, why));
            }
            Input::Stop => agreement.stop(now),
        }
        self.pass_on();
    }

    /// Looks at what a client has sent, unless what was sent before has to be on disk first.
    fn sent(&mut self, client: ClientId, sent: Deferred, now: Instant) {
        if self.agreement.changing() == Some(client) || self.server.is_deferred(client) {
            return self.server.defer(client, sent);
        }
        match sent {
            Deferred::Command(args) => self.command(client, &args, now),
            Deferred::Garbage(why) => self.server.garbage(client, &why),
        }
    }

    /// A change may have ended: looks at what has waited for that.
    fn go_on(&mut self, now: Instant) {
        for (client, sent) in self.server.take_deferred() {
            self.sent(client, sent, now);
            self.pass_on();
        }
    }

    /// Lets the server answer a client's command, or the agreement carry it out.
    fn command(&mut self, client: ClientId, args: &[Bytes], now: Instant) {
        if let Some(call) = self.server.command(self.agreement.view(), client, args, now) {
            let outcome = self.agreement.obey(client, call.order, now);
            self.pass_on();
            self.server.conclude(client, args, outcome, call.answer);
        }
    }

    /// Lets the server pass on what the agreement has said, and tell clients of it: after each thing that the agreement does, so
    /// that everything goes out in the order in which it happened.
    fn pass_on(&mut self) {
        let Agreement { free, fenced, .. } = &mut self.agreement;
        self.server.pass_on(free, fenced);
    }

    /// Everything that follows from what is known and what time it is. Returns when to wake at the latest.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        self.agreement.turn(now);
        self.pass_on();
        let idle = self.server.drop_idle(now);
        self.agreement.report(now);
        self.pass_on();
        earliest(self.agreement.wake.take(), idle)
    }

    /// Puts the outputs of the turn in their order.
    fn flush(&mut self, out: &mut Vec<Output>) {
        let Self { agreement, server, .. } = self;
        let store_first = agreement.rules.holds(Rule::StoreFirst);
        server.flush(out, store_first, |promises| agreement.fence(promises));
        agreement.drop_overtaken(out);
        agreement.rename(out);
    }
}

impl Machine for Sentinel {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        if self.deadline.is_some_and(|deadline| now > deadline + self.agreement.timers.tilt_trigger) {
            self.agreement.was_paused(now);
            self.deadline = Some(now);
        }
        self.pass_on();
        let overdue = self.deadline.is_some_and(|deadline| deadline <= now);
        if overdue && input != Input::Tick {
            // What else waits may be the answer for want of which somebody would be judged: the tick comes behind all of it.
            self.take_in(now, input);
            return self.flush(out);
        }
        self.take_in(now, input);
        let wake = self.turn(now);
        self.flush(out);
        // A rule that asks for this very moment again has to wait a little: a tick must move the deadline.
        let soonest = now + Duration::from_millis(1);
        self.deadline = wake.map(|wake| wake.max(soonest));
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
