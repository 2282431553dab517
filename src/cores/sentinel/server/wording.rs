//! What the agreement says, as clients hear it.

use crate::base::{Epoch, RunId};
use crate::cores::sentinel::change::MonitorRefused;
use crate::cores::sentinel::effect::{Effect, Effects, Script, Settled};
use crate::cores::sentinel::switchover::Refused;
use crate::cores::sentinel::{Answer, ClientId, FailoverReport, NOBODY, Output};
use crate::wire::resp::Reply;

use super::clients::Clients;
use super::fence::Fenced;
use super::reply::{bulk, error, simple};
use super::state::Server;

impl Server {
    /// Passes on what the agreement has said, and tells those clients of it that wait for it or have subscribed to it.
    pub(in crate::cores::sentinel) fn pass_on(&mut self, free: &mut Effects, fenced: &mut Effects) {
        let Self { clients, free: out, fenced: behind, .. } = self;
        free.drain().for_each(|effect| tell(clients, effect, out));
        let mut promised = Vec::new();
        fenced.drain().for_each(|effect| tell(clients, effect, &mut promised));
        behind.extend(promised.into_iter().map(Fenced::Promise));
    }

    /// The error in place of a switchover that could not be ordered. It is answered as its end would be.
    pub(super) fn not_switched(&mut self, client: ClientId, reason: String) {
        self.respond(client, switched(Err(reason)));
    }
}

fn tell(clients: &Clients, effect: Effect, out: &mut Vec<Output>) {
    match effect {
        Effect::Output(output) => out.push(output),
        Effect::Event(event) => {
            out.append(&mut clients.messages(&event));
            out.push(Output::Publish(event));
        }
        Effect::Settled(client, settled) => out.push(Output::Respond(client, end(settled))),
    }
}

/// What a client hears that has waited for the end of its order.
fn end(settled: Settled) -> Answer {
    match settled {
        Settled::Changed => simple("OK"),
        Settled::NotStored(reason) => error(format!("ERR Failed to save config file: {reason}")),
        Settled::NotExecutable(script) => {
            let called = match script {
                Script::Notification => "Notification script",
                Script::ClientReconfig => "Client reconfiguration script",
            };
            error(format!("ERR {called} seems non existing or non executable"))
        }
        Settled::Switchover(result) => switched(result),
    }
}

/// From, to, epoch, microseconds of pause (null: none); or the reason why not.
fn switched(result: Result<FailoverReport, String>) -> Answer {
    let integer = |number: u128| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    match result {
        Ok(report) => Answer::Reply(Reply::Array(vec![
            bulk(report.from.to_string()),
            bulk(report.to.to_string()),
            integer(report.epoch.into()),
            report.pause.map_or(Reply::Null, |pause| integer(pause.as_micros())),
        ])),
        Err(reason) => error(format!("ERR {reason}")),
    }
}

/// Why a failover that was ordered has not begun, as redis-sentinel says it.
pub(super) fn no_failover(refused: &Refused) -> Answer {
    match refused {
        Refused::InProgress => error("INPROG Failover already in progress"),
        Refused::NoGoodReplica(_) => error("NOGOODSLAVE No suitable replica to promote"),
        Refused::NoGoodMaster => error("NOGOODPRIMARY Primary is down and cannot hold its writes"),
        Refused::NoMaster => error("ERR there is no master yet"),
        Refused::NoAddress => error(format!("ERR {refused}")),
    }
}

/// Whether a master is down, and for whom the vote is in which epoch.
pub(super) fn opinion(down: bool, vote: Option<(RunId, Epoch)>) -> Answer {
    let (leader, epoch) = vote.map_or_else(
        || ("*".to_owned(), 0),
        |(leader, epoch)| {
            // After a restart nobody knows any more whom it was for: it was given, and is not given again.
            let leader = if leader == NOBODY { "*".to_owned() } else { leader.to_string() };
            (leader, i64::try_from(epoch).unwrap_or(0))
        },
    );
    Answer::Reply(Reply::Array(vec![Reply::Integer(i64::from(down)), bulk(leader), Reply::Integer(epoch)]))
}

/// Why a master cannot be watched.
pub(super) fn not_monitored(refused: MonitorRefused) -> Answer {
    error(format!("ERR {refused}"))
}
