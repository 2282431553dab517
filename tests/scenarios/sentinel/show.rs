//! How the transcript calls what a sentinel does: redis and sentinels by their names, and nothing that goes on all the time.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use vigie::base::node::Decision;
use vigie::cores::sentinel::why::{MasterWhy, Verdict};
use vigie::cores::sentinel::{Answer, LinkId, Output, Record};
use vigie::wire::resp::{Reply, Rich};

/// Commands that go on all the time.
pub(super) const ROUTINE: [&str; 8] =
    ["AUTH", "CLIENT SETNAME", "INFO", "PING", "PUBLISH", "ROLE", "SENTINEL is-master-down-by-addr", "SUBSCRIBE"];

/// Names things, and puts the commands of a transaction into one line.
pub(super) struct Shown {
    /// What stands for what: addresses and ids.
    pub(super) names: Vec<(String, String)>,
    /// Commands that are shown although they are of every moment.
    pub(super) asked_for: Vec<String>,
    transactions: BTreeMap<LinkId, Vec<String>>,
}

impl Shown {
    pub(super) fn new(names: Vec<(String, String)>) -> Self {
        Self { names, asked_for: Vec::new(), transactions: BTreeMap::new() }
    }

    /// With names for addresses and ids.
    pub(super) fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (long, name)| text.replace(long.as_str(), name))
    }

    /// A line for an output; none: it is not shown. `far` is the name of who is at the other end of a link.
    pub(super) fn output(&mut self, output: &Output, far: impl Fn(LinkId) -> String) -> Option<String> {
        let text = match output {
            Output::Query { link, args, .. } => self.query(*link, args, &far(*link))?,
            Output::Store(Record::Votes(durable)) => {
                let one = durable.masters.first();
                let vote = one.and_then(|one| one.vote).map(|(id, epoch)| format!("{id} epoch {epoch}"));
                let decision = decision_text(one.and_then(|one| one.decision));
                let vote = vote.unwrap_or_else(|| "none".to_owned());
                format!("store: epoch {}, vote {vote}, master {decision}", durable.current_epoch)
            }
            Output::Store(Record::Everything(state)) => {
                let one = state.masters.first()?;
                let (place, since) = (format!("{} {}", one.place.host, one.place.port), one.config_epoch);
                let (epoch, vote) = (state.current_epoch, one.leader_epoch);
                format!("store: epoch {epoch}, vote epoch {vote}, master {place} epoch {since}")
            }
            Output::Post(facts) => {
                let one = facts.masters.first()?;
                let seen = if one.sees_down { "down" } else { "up" };
                let vote = one.vote.map_or_else(|| "none".to_owned(), |(id, epoch)| format!("{id} epoch {epoch}"));
                let leads = one.leads.map_or_else(|| "nothing".to_owned(), |epoch| format!("epoch {epoch}"));
                let decision = decision_text(one.decision);
                format!("post: master {decision}, sees it {seen}, leads {leads}, vote {vote}")
            }
            Output::Respond(_, Answer::Reply(reply)) => format!("answer: {}", reply_text(reply)),
            Output::Fault(fault) => format!("fault: {}", fault.as_deref().unwrap_or("none")),
            Output::Publish(event) => format!("event: {} {}", event.name, event.payload),
            Output::OrderDone(_, Ok(report)) => {
                let pause = report.pause.map_or_else(
                    || "writes were not held".to_owned(),
                    |time| format!("writes were held for {} ms", time.as_millis()),
                );
                format!("order done: from {} to {}, epoch {}, {pause}", report.from, report.to, report.epoch)
            }
            Output::Said(_, Ok(text)) => format!("done: {text}"),
            Output::Said(_, Err(reason)) => format!("refused: {reason}"),
            Output::OrderDone(_, Err(reason)) => format!("order failed: {reason}"),
            Output::Stopped => "stopped".to_owned(),
            Output::Exit(code) => format!("exit {code}"),
            Output::Connect { .. }
            | Output::Hangup(_)
            | Output::Respond(_, Answer::Many(_))
            | Output::Protocol(..)
            | Output::WrongPassword(_)
            | Output::Dismiss(_)
            | Output::Kill(_)
            | Output::Ask(..)
            | Output::Why(..)
            | Output::Script(_)
            | Output::Resolve(_)
            | Output::CheckScript(_)
            | Output::LogLevel(_) => return None,
        };
        Some(self.named(&text))
    }

    fn query(&mut self, link: LinkId, args: &[Bytes], far: &str) -> Option<String> {
        let words: Vec<_> = args.iter().map(|word| String::from_utf8_lossy(word)).collect();
        let line = words.join(" ");
        if line == "MULTI" {
            self.transactions.insert(link, vec![line]);
            return None;
        }
        if let Some(mut begun) = self.transactions.remove(&link) {
            let ends = line == "EXEC";
            begun.push(line);
            if ends {
                return Some(format!("to {far}: {}", begun.join("; ")));
            }
            self.transactions.insert(link, begun);
            return None;
        }
        // A question for a vote, and one for the offset of a master that stands still, are steps of a failover.
        let step = line == "INFO replication" || line.starts_with("SENTINEL") && !line.ends_with(" *");
        let begins = |with: &&str| line.starts_with(*with);
        let asked_for = self.asked_for.iter().map(String::as_str).any(|with| begins(&with));
        let hidden = ROUTINE.iter().any(begins) && !step && !asked_for;
        (!hidden).then(|| format!("to {far}: {line}"))
    }
}

fn decision_text(decision: Option<Decision>) -> String {
    decision.map_or_else(|| "none".to_owned(), |known| format!("{} epoch {}", known.master, known.epoch))
}

fn reply_text(reply: &Reply) -> String {
    let all = |replies: &[Reply]| format!("[{}]", replies.iter().map(reply_text).collect::<Vec<_>>().join(", "));
    match reply {
        Reply::Simple(text) | Reply::Error(text) => text.clone(),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Array(replies) => all(replies),
        Reply::Null | Reply::Rich(Rich::NullArray) => "nil".to_owned(),
        Reply::Rich(_) => reply_text(&reply.clone().flat()),
    }
}

/// The state of a failover as a user sees it: of `SENTINEL MASTER` its flags and `failover-state`, and the gates of `vigie
/// why` that are neither open nor far away.
pub(super) fn state(map: &Reply, why: &MasterWhy) -> Vec<String> {
    let flat = map.clone().flat();
    let fields = flat.array().unwrap_or_default();
    let field = |name: &str| fields.chunks(2).find(|pair| pair[0].text() == Some(name)).and_then(|pair| pair[1].text());
    let (flags, state) = (field("flags").unwrap_or("none"), field("failover-state").unwrap_or("none"));
    let outcome = value_text(&serde_json::to_value(why.outcome).expect("an outcome is a word"));
    let mut lines = vec![format!("  flags {flags}, failover-state {state}, outcome {outcome}")];
    for checked in &why.gates {
        let verdict = match checked.verdict {
            Verdict::Waits => "waits",
            Verdict::Blocks => "blocks",
            Verdict::Open | Verdict::Idle | Verdict::Ahead => continue,
        };
        let Value::Object(mut gate) = serde_json::to_value(&checked.gate).expect("a gate is a map") else { continue };
        let name = gate.remove("gate").map_or_else(String::new, |name| value_text(&name));
        lines.push(format!("  {verdict}: {name}: {}", value_text(&Value::Object(gate))));
    }
    lines
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(value_text).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => match (map.get("address"), map.get("reason")) {
            (Some(address), Some(reason)) => format!("{} {}", value_text(address), value_text(reason)),
            (Some(address), None) => value_text(address),
            (None, _) => {
                map.iter().map(|(key, value)| format!("{key} {}", value_text(value))).collect::<Vec<_>>().join(", ")
            }
        },
    }
}
