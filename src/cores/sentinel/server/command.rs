//! Commands: who may give them is decided by admission, what they do in the file of their kind.

use bytes::Bytes;

use crate::base::{Instant, Place};
use crate::cores::sentinel::change::MonitorRefused;
use crate::cores::sentinel::order::Outcome;
use crate::cores::sentinel::view::{MasterView, View};
use crate::cores::sentinel::{Answer, ClientId};
use crate::wire::resp::{Reply, Rich};

use super::ask::Fact;
use super::client::Replies;
use super::reply::{arity, bulk, error, nothing};
use super::state::{Asked, Deferred, Server};
use super::step::{Call, Step};
use super::table::Spec;
use super::{describe, orders, render, wording};

impl Server {
    /// Takes a client's command and answers it, unless the agreement has to carry it out: to be followed by
    /// [`conclude`](Self::conclude).
    pub(in crate::cores::sentinel) fn command(
        &mut self,
        view: View<'_>,
        client: ClientId,
        args: &[Bytes],
        now: Instant,
    ) -> Option<Call> {
        let session = self.clients.get_mut(client)?;
        session.last_at = now;
        if session.replies == Replies::SkipNext {
            session.replies = Replies::Skipping;
            self.skip(client);
        }
        self.stats.commands += 1;
        self.stats.pace.count(now, 1);
        // A browser that was made to talk to this port: what follows are words of others in its user's name.
        if args.first().is_some_and(|word| word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:")) {
            self.kill(client);
            return None;
        }
        let step = match self.admit(view, client, args, now) {
            Ok(spec) => self.give(view, client, spec, args, now),
            Err(refusal) => error(refusal).into(),
        };
        match step {
            Step::Answer(answer) => {
                self.answer(client, answer);
                None
            }
            Step::Call(call) => Some(call),
        }
    }

    /// The agreement has carried out a client's command, whose words `args` are. `answer`: if it simply did.
    pub(in crate::cores::sentinel) fn conclude(
        &mut self,
        client: ClientId,
        args: &[Bytes],
        outcome: Outcome,
        answer: Answer,
    ) {
        let answer = match outcome {
            Outcome::Done | Outcome::Begun => answer,
            Outcome::Opinion { down, vote } => return self.promise(client, wording::opinion(down, vote)),
            Outcome::Deferred => return self.defer(client, Deferred::Command(args.to_vec())),
            Outcome::Unresolved(host) => match self.wait_for(host, client, args) {
                true => nothing(),
                false => wording::not_monitored(MonitorRefused::Host),
            },
            Outcome::NoFailover(refused) => wording::no_failover(&refused),
            Outcome::NotMonitored(refused) => wording::not_monitored(refused),
        };
        self.answer(client, answer);
    }

    fn answer(&mut self, client: ClientId, answer: Answer) {
        self.stats.errors += u64::from(matches!(answer, Answer::Reply(Reply::Error(_))));
        if answer != nothing() {
            self.respond(client, answer);
        }
    }

    /// A fact that a command waited for.
    pub(in crate::cores::sentinel) fn told(&mut self, view: View<'_>, client: ClientId, fact: Fact, now: Instant) {
        // The client may have gone.
        let Some(asked) = self.take_asked(client) else { return };
        let answer = match (asked, fact) {
            (Asked::Info(sections), Fact::Usage(usage)) => self.info_answer(view, &sections, &usage, now),
            (Asked::Password(bits), Fact::Random(bytes)) => Self::pass_made(bits, &bytes),
            (Asked::Users, Fact::Users(text)) => self.users_loaded(client, text),
            (Asked::Users, Fact::Saved(saved)) => Self::users_saved(saved),
            (
                Asked::Info(_) | Asked::Password(_) | Asked::Users,
                Fact::Usage(_) | Fact::Random(_) | Fact::Users(_) | Fact::Saved(_),
            ) => error("ERR the process did not tell what was asked"),
        };
        self.respond(client, answer);
    }

    /// Carries out a command that may be given.
    fn give(&mut self, view: View<'_>, client: ClientId, spec: &Spec, args: &[Bytes], now: Instant) -> Step {
        let rest = args.get(1..).unwrap_or_default();
        let behind = rest.get(1..).unwrap_or_default();
        let (name, sub) = spec.meaning().split_once('|').unwrap_or((spec.name, ""));
        let answer = match (name, sub) {
            ("acl" | "client" | "command" | "sentinel", "help") => describe::help(name),
            ("acl", _) => self.acl_command(client, sub, behind, now),
            ("client", _) => self.client_command(client, sub, behind, now),
            ("command", "") => describe::command_all(),
            ("command", _) => describe::command_command(sub, behind),
            ("sentinel", _) => return self.sentinel_command(view, client, sub, behind, now),
            ("ping", _) => self.ping(client, rest),
            ("auth", _) => self.auth(client, rest, now),
            ("hello", _) => self.hello_command(client, rest, now),
            ("info", _) => self.info_command(client, rest),
            ("role", _) => render::role(view),
            ("subscribe" | "psubscribe" | "unsubscribe" | "punsubscribe", _) => {
                self.clients.subscribe(client, name, rest)
            }
            ("publish", _) => return orders::publish(rest).into(),
            ("quit", _) => {
                self.quit(client);
                nothing()
            }
            ("reset", _) => self.reset(client, now),
            ("shutdown", _) => return orders::shutdown(&self.access, rest).into(),
            _ => error(format!("ERR '{}' is not offered", spec.name)),
        };
        answer.into()
    }

    /// Carries out a SENTINEL command; the table has judged its arity, and whether this client may give it.
    fn sentinel_command(&mut self, view: View<'_>, client: ClientId, name: &str, args: &[Bytes], now: Instant) -> Step {
        match (name, args) {
            ("is-master-down-by-addr", _) => self.is_master_down(view, client, args),
            ("masters", _) => render::masters(view, now).into(),
            ("myid", _) => Answer::Reply(bulk(view.id().to_string())).into(),
            ("pending-scripts", _) => Answer::Reply(view.scripts().pending(now)).into(),
            ("info-cache", names) => render::info_cache(view, names, now).into(),
            ("debug", pairs) => orders::debug(view, pairs).into(),
            ("simulate-failure", flags) => orders::simulate(flags),
            ("reset", [pattern]) => orders::reset(view, pattern),
            ("monitor", _) => orders::monitor(view, args).into(),
            ("remove", [master]) => orders::remove(view, master).into(),
            ("set", [master, options @ ..]) => orders::set(view, master, options).into(),
            ("config", [verb, words @ ..]) => orders::config(view, verb, words).into(),
            ("flushconfig", _) => orders::flush(),
            ("get-master-addr-by-name", [master]) => self.address_command(view, client, master).into(),
            (_, [master, rest @ ..]) => match orders::find(view, master) {
                Ok(master) => self.master_command(client, name, master, rest, now),
                Err(refusal) => refusal.into(),
            },
            (_, []) => arity(&format!("sentinel|{name}")).into(),
        }
    }

    /// One that is about a master.
    fn master_command(
        &mut self,
        client: ClientId,
        name: &str,
        master: MasterView<'_>,
        rest: &[Bytes],
        now: Instant,
    ) -> Step {
        match (name, rest) {
            ("master", _) => Answer::Reply(render::master(master, now)).into(),
            ("replicas" | "slaves", _) => render::replicas(master, now).into(),
            ("sentinels", _) => render::sentinels(master, now).into(),
            ("ckquorum", _) => render::ckquorum(master).into(),
            ("failover", options) => orders::failover(master, options).into(),
            ("switchover", [] | [_]) => match orders::switchover(master, rest.first().map(AsRef::as_ref)) {
                Ok(step) => step,
                Err(reason) => {
                    self.not_switched(client, reason);
                    nothing().into()
                }
            },
            _ => arity(&format!("sentinel|{name}")).into(),
        }
    }

    /// `SENTINEL GET-MASTER-ADDR-BY-NAME name`.
    fn address_command(&mut self, view: View<'_>, client: ClientId, name: &[u8]) -> Answer {
        let found = view.master(name).filter(|master| master.decision().is_some());
        let Some(master) = found else { return Answer::Reply(Reply::Rich(Rich::NullArray)) };
        let Place { host, port } = master.told_place();
        let answer = Answer::Reply(Reply::Array(vec![bulk(host), bulk(port.to_string())]));
        if !master.is_unstored() {
            return answer;
        }
        // Nobody hears of a decision that a crash could undo.
        self.promise(client, answer);
        nothing()
    }

    /// `SENTINEL IS-MASTER-DOWN-BY-ADDR`: whatever is answered stands behind the fence, as a vote has to.
    fn is_master_down(&mut self, view: View<'_>, client: ClientId, args: &[Bytes]) -> Step {
        let [ip, port, epoch, candidate] = args else { return arity("sentinel|is-master-down-by-addr").into() };
        orders::is_master_down(view, [ip, port, epoch, candidate]).unwrap_or_else(|refusal| {
            self.promise(client, refusal);
            nothing().into()
        })
    }
}
