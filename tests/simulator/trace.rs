//! What a replay shows: everything but what goes on all the time.

use bytes::Bytes;
use vigie::cores::sentinel::{Answer, Input, NodeFacts, Output, Record, Tag};
use vigie::wire::resp::Reply;

/// The lines of a run.
#[derive(Debug, Default)]
pub struct Trace {
    /// Whether lines are kept.
    pub on: bool,
    pub lines: Vec<String>,
}

fn spoken(words: &[Bytes]) -> String {
    words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether an answer names no leader.
fn names_nobody(reply: &Reply) -> bool {
    matches!(reply.array(), Some([Reply::Integer(_), leader, Reply::Integer(_)]) if leader.text() == Some("*"))
}

fn facts(facts: &NodeFacts) -> String {
    let redis = facts.redis.as_ref().map(|redis| format!("{:?} {:?} {:?}", redis.process, redis.role, redis.history));
    let sentinel = facts.sentinel.as_ref().map(|sentinel| {
        let masters = sentinel.masters.iter().map(|one| {
            let decision = one.decision.map(|decision| format!("{}@{}", decision.master, decision.epoch));
            format!("{decision:?} down={} leads={:?} vote={:?}", one.sees_down, one.leads, one.vote)
        });
        format!("epoch {} {}", sentinel.current_epoch, masters.collect::<Vec<_>>().join("; "))
    });
    let fresh = if facts.fresh { "" } else { " (not fresh)" };
    format!("{}{fresh}: {} | {}", facts.node, redis.unwrap_or_default(), sentinel.unwrap_or_default())
}

/// A line for an input, unless it is of every moment.
pub fn input(input: &Input) -> Option<String> {
    match input {
        Input::Tick
        | Input::LinkUp(..)
        | Input::ScriptChecked(..)
        | Input::Script(_)
        | Input::Resolved(_)
        | Input::Told(..)
        | Input::Why(_)
        | Input::Bootstrap(_)
        | Input::Risks(_)
        | Input::Takeover(_)
        | Input::Renew(_)
        | Input::Message(..)
        | Input::ClientCame(..)
        | Input::ClientGone(_)
        | Input::Stored(Ok(())) => None,
        Input::Reply(link, tag, reply) => match tag {
            Tag::Auth | Tag::Ignored | Tag::Ping | Tag::Info | Tag::Subscribe | Tag::Follow(..) => None,
            // Whether a master is down is asked all the time; votes are not.
            Tag::Ask(..) if names_nobody(reply) => None,
            Tag::Ask(..) | Tag::Promote(_) | Tag::Role(_) | Tag::Pause(_) | Tag::PausedInfo(_) => {
                Some(format!("{link:?} {tag:?} {reply:?}"))
            }
        },
        Input::LinkDown(link, why) => Some(format!("{link:?} down: {why}")),
        Input::Garbage(_, why) => Some(format!("garbage: {why}")),
        Input::Command(client, words) => {
            let words = spoken(words);
            let usual =
                ["PING", "CLIENT", "PUBLISH"].iter().any(|word| words.starts_with(word)) || words.ends_with(" *");
            (!usual).then(|| format!("{client:?} {words}"))
        }
        Input::Facts(said) => Some(format!("facts {}", facts(said))),
        Input::Stored(Err(why)) => Some(format!("not stored: {why}")),
        Input::Order(order, to) => Some(format!("{order:?} to {to:?}")),
        Input::Stop => Some("stop".to_owned()),
    }
}

/// A line for what a supervisor is told, unless it is of every moment.
pub fn supervisor_input(input: &vigie::cores::redis::Input) -> Option<String> {
    use vigie::cores::redis::{Answer, Input};
    match input {
        Input::Tick | Input::Answer { answer: Answer::Info(_) | Answer::Unreachable(_), .. } => None,
        Input::Answer { .. }
        | Input::RecordFailed(_)
        | Input::Spawned { .. }
        | Input::SpawnFailed(_)
        | Input::Exited(_)
        | Input::LastWords(_)
        | Input::Cluster { .. }
        | Input::Lease(_)
        | Input::Fence(_)
        | Input::Secrets(_)
        | Input::Stop => Some(format!("{input:?}")),
    }
}

/// A line for an output, unless it is of every moment.
pub fn output(output: &Output) -> Option<String> {
    match output {
        Output::Connect { .. } | Output::Hangup(_) | Output::Dismiss(_) | Output::Post(_) => None,
        Output::Protocol(..)
        | Output::WrongPassword(_)
        | Output::Kill(_)
        | Output::Ask(..)
        | Output::Why(..)
        | Output::LogLevel(_) => None,
        Output::Script(request) => Some(format!("{request:?}")),
        Output::Resolve(request) => Some(format!("{request:?}")),
        Output::CheckScript(path) => Some(format!("look at {path}")),
        Output::Exit(code) => Some(format!("exit {code}")),
        Output::Query { link, tag, args } => {
            let words = spoken(args);
            let usual = ["PING", "INFO", "CLIENT SETNAME", "SUBSCRIBE", "PUBLISH", "AUTH"];
            let shown = !usual.iter().any(|word| words.starts_with(word)) && !words.ends_with(" *");
            (shown || matches!(tag, Tag::PausedInfo(_))).then(|| format!("{link:?} {tag:?} {words}"))
        }
        Output::Store(Record::Everything(state)) => Some(format!("store {state:?}")),
        Output::Store(Record::Votes(durable)) => {
            let masters = durable.masters.iter().map(|one| format!("{:?} {:?}", one.decision, one.vote));
            Some(format!("store epoch {} {}", durable.current_epoch, masters.collect::<Vec<_>>().join("; ")))
        }
        Output::Respond(client, answer) => {
            let no_vote = matches!(answer, Answer::Reply(reply) if names_nobody(reply));
            let answer = format!("{answer:?}");
            let usual =
                no_vote || answer.contains("PONG") || answer.contains("\"OK\"") || answer == "Reply(Integer(1))";
            (!usual).then(|| format!("{client:?} {answer}"))
        }
        Output::Fault(fault) => Some(format!("fault {fault:?}")),
        Output::Publish(event) => Some(format!("{} {}", event.name, event.payload)),
        Output::Said(order, result) => Some(format!("{order:?} {result:?}")),
        Output::OrderDone(order, result) => Some(format!("{order:?} {result:?}")),
        Output::Stopped => Some("stopped".to_owned()),
    }
}

/// A line for what a virtual router is told, unless it is of every moment.
pub fn router_input(input: &vigie::cores::vrrp::Input) -> Option<String> {
    use vigie::cores::vrrp::Input;
    match input {
        Input::Tick | Input::Vip(Ok(())) => None,
        Input::Advert(received) if received.advert.priority() > 0 => None,
        Input::Advert(received) => Some(format!("farewell of {}", received.from)),
        Input::Malformed(_)
        | Input::Proxies(_)
        | Input::Claim { .. }
        | Input::Link(_)
        | Input::Usable(_)
        | Input::Vip(Err(_))
        | Input::Stop => Some(format!("{input:?}")),
    }
}
