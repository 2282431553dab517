//! `vigie why`: why there is, or is not, a failover, in one sentence and then gate by gate.

use std::fmt::Write;

use super::status::{age, lease_faults, lease_words};
use crate::cores::sentinel::why::{Checked, DownBy, Gate, MasterWhy, Outcome, Verdict, Who};
use crate::runtime::status::fencing::{Fencing, REFUSED};
use crate::runtime::why::{Frames, Why};

/// Whether no failover is needed, or one is on its way, and nothing keeps the master from taking writes.
pub fn fine(why: &Why) -> bool {
    if why.fencing.refuses_writes() {
        return false;
    }
    let outcomes = why.masters.iter().map(|master| master.outcome);
    let mut all = outcomes.chain(why.frames.as_ref().map(|frames| frames.outcome));
    all.all(|outcome| outcome != Outcome::Blocked)
}

/// The answer as a page for a terminal; no line ends in blanks.
pub fn page(why: &Why) -> String {
    let mut page = String::new();
    for master in &why.masters {
        if !page.is_empty() {
            page.push('\n');
        }
        let _ = writeln!(page, "{}: {}{}\n", master.name, refusal(&why.fencing), headline(master));
        for checked in &master.gates {
            let (mark, name, words) = (mark(checked.verdict), name(&checked.gate), words(&checked.gate, master));
            let _ = writeln!(page, "  {mark:<7} {name:<15} {words}");
        }
        lease_gate(&why.fencing, &mut page);
        for absence in absences(master) {
            let _ = writeln!(page, "  {absence}");
        }
    }
    match &why.frames {
        Some(frames) => frames_page(why, frames, &mut page),
        None => {
            let _ = writeln!(page, "\nseen by the sentinel of {}; each of the others has a view of its own", why.node);
        }
    }
    page
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Open => "open",
        Verdict::Idle => "well",
        Verdict::Waits => "waits",
        Verdict::Blocks => "BLOCKS",
        Verdict::Ahead => "-",
    }
}

fn name(gate: &Gate) -> &'static str {
    match gate {
        Gate::Decision { .. } => "decision",
        Gate::Down { .. } => "master down",
        Gate::Quorum { .. } => "quorum",
        Gate::Password { .. } => "password",
        Gate::Majority { .. } => "majority",
        Gate::Store { .. } => "store",
        Gate::Leader { .. } => "other leader",
        Gate::Pause { .. } => "pause",
        Gate::Candidate { .. } => "candidate",
        Gate::Election { .. } => "election",
        Gate::Promotion { .. } => "promotion",
        Gate::Reconfiguration { .. } => "reconfiguration",
    }
}

/// All in one sentence.
fn headline(master: &MasterWhy) -> String {
    let those = |verdict| master.gates.iter().filter(move |checked: &&Checked| checked.verdict == verdict);
    let said = |checked: &Checked| words(&checked.gate, master);
    match master.outcome {
        Outcome::NotNeeded => {
            let who = master.master.as_ref().map_or_else(|| "the master".to_owned(), label);
            let blocks = those(Verdict::Blocks).map(said).collect::<Vec<_>>().join("; ");
            let but = if blocks.is_empty() { blocks } else { format!("; and none would be possible: {blocks}") };
            format!("no failover is needed: {who} is well{but}")
        }
        Outcome::Awaited => {
            let waits = those(Verdict::Waits).next().map_or_else(|| "it is about to".to_owned(), said);
            format!("a failover begins by itself if nothing changes: {waits}")
        }
        Outcome::UnderWay => {
            let waits = those(Verdict::Waits).next_back().map_or_else(|| "it has just begun".to_owned(), said);
            format!("a failover is under way: {waits}")
        }
        Outcome::Blocked => {
            let all = those(Verdict::Blocks).map(said).chain(absences(master));
            format!("no failover: {}", all.collect::<Vec<_>>().join("; "))
        }
    }
}

fn absences(master: &MasterWhy) -> impl Iterator<Item = String> {
    let absent = master.sentinels.iter().filter_map(|sentinel| Some((&sentinel.node, sentinel.unreachable_ms?)));
    absent.map(|(node, millis)| format!("sentinel {node} unreachable for {}", age(millis)))
}

fn label(who: &Who) -> String {
    match &who.node {
        Some(node) => format!("{node} ({})", who.address),
        None => who.address.to_string(),
    }
}

/// `; given up in 3 s`
fn limit(what: &str, left_ms: Option<u64>) -> String {
    left_ms.map_or_else(String::new, |left| format!("; {what} in {}", age(left)))
}

/// The gate and its values, in words.
fn words(gate: &Gate, master: &MasterWhy) -> String {
    let who = || master.master.as_ref().map_or_else(|| "the first master".to_owned(), label);
    match gate {
        Gate::Decision { epoch: Some(epoch), taken_over, .. } => {
            let by =
                if *taken_over { ", taken over by the operator: not fenced until every sentinel is heard" } else { "" };
            format!("{} is the master of epoch {epoch}{by}", who())
        }
        Gate::Decision { epoch: None, waits_for, .. } if !waits_for.is_empty() => format!(
            "this sentinel has no record and gives no vote until it has heard {} (if they are lost for good: vigie bootstrap)",
            waits_for.join(" and ")
        ),
        Gate::Decision { epoch: None, without_record, needed, .. } => {
            format!(
                "there is no master yet: {without_record} of {needed} sentinels say so, and one node has to be ready"
            )
        }
        Gate::Down { by, down_ms, silent_ms, limit_ms, busy } => down(*by, *down_ms, *silent_ms, *limit_ms, *busy),
        Gate::Quorum { agree, needed, of } => {
            format!("{agree} of {needed} votes that it is down ({of} sentinels)")
        }
        Gate::Password { refused_by: 0, .. } => "this node's password is taken".to_owned(),
        Gate::Password { refused_by, of } => format!("this node's password is refused by {refused_by} of {of} redis"),
        Gate::Majority { reachable, needed, of, takeover } => {
            let out = if *takeover { " (if the others are lost for good: vigie takeover)" } else { "" };
            format!("{reachable} of {of} sentinels are there, {needed} have to be{out}")
        }
        Gate::Store { retry_ms: None } => "votes can be stored".to_owned(),
        Gate::Store { retry_ms: Some(retry) } => format!("votes cannot be stored; tried again in {}", age(*retry)),
        Gate::Leader { epoch: None, .. } => "nobody else leads".to_owned(),
        Gate::Leader { other, epoch: Some(epoch), left_ms } => {
            let other = other.as_ref().map_or_else(|| "another sentinel".to_owned(), ToString::to_string);
            format!("{other} leads at epoch {epoch}{}", limit("not waited for any longer", *left_ms))
        }
        Gate::Pause { left_ms: 0 } => "over".to_owned(),
        Gate::Pause { left_ms } => format!("{} until this sentinel may begin", age(*left_ms)),
        Gate::Candidate { best, rejected, master } => {
            let passed = rejected.iter().map(|rejected| format!("{}: {}", label(&rejected.who), rejected.reason));
            let own = master.map(|reason| format!("the master itself: {reason}"));
            let passed = passed.chain(own).collect::<Vec<_>>().join("; ");
            match best {
                Some(best) if passed.is_empty() => format!("{} is fit", label(best)),
                Some(best) => format!("{} is fit ({passed})", label(best)),
                None if passed.is_empty() => "nobody can be master: there is no other redis".to_owned(),
                None => format!("nobody can be master: {passed}"),
            }
        }
        Gate::Election { epoch: None, needed, .. } => format!("{needed} votes are needed"),
        Gate::Election { epoch: Some(epoch), votes, needed, open, left_ms } => {
            let end = limit("it ends", *left_ms);
            format!("{votes} of {needed} votes at epoch {epoch}, {open} may still come{end}")
        }
        Gate::Promotion { target: None, left_ms: None, .. } => "nobody is chosen yet".to_owned(),
        Gate::Promotion { target: None, left_ms, .. } => {
            format!("the replicas are asked what they have{}", limit("decided", *left_ms))
        }
        Gate::Promotion { target: Some(target), told, left_ms } => {
            let told = if *told { "is told to be master" } else { "is made ready to be master" };
            format!("{} {told}{}", label(target), limit("given up", *left_ms))
        }
        Gate::Reconfiguration { pending: None, .. } => "the others follow the new master then".to_owned(),
        Gate::Reconfiguration { pending: Some(pending), left_ms } => {
            format!("{} is master; {pending} others do not follow it yet{}", who(), limit("given up", *left_ms))
        }
    }
}

fn down(by: Option<DownBy>, down_ms: Option<u64>, silent_ms: Option<u64>, limit_ms: u64, busy: bool) -> String {
    let silence = || silent_ms.map(|silent| format!("silent for {} ({} allowed)", age(silent), age(limit_ms)));
    let since = down_ms.map_or_else(String::new, |down| format!("down for {}: ", age(down)));
    let mut words = match by {
        Some(DownBy::Proof) => format!("{since}its supervisor says that it is dead or was restarted"),
        Some(DownBy::Silence) => since + &silence().unwrap_or_default(),
        Some(DownBy::Role) => format!("{since}it says that it is a replica"),
        Some(DownBy::Lease) => format!("{since}it is not heard on the peer link to hold a lease, and refuses writes"),
        None => silence().unwrap_or_else(|| "it answers".to_owned()),
    };
    if busy {
        words.push_str("; it is busy");
    }
    words
}

/// What stands before all else when nothing can be written.
fn refusal(fencing: &Fencing) -> &'static str {
    if fencing.refuses_writes() { "writes are refused, since no redis holds the lease; " } else { "" }
}

/// The gate before every write, which is not one of those before a failover.
fn lease_gate(fencing: &Fencing, page: &mut String) {
    let (verdict, words) = match &fencing.lease {
        Some(lease) if lease.holder.is_some() => (Verdict::Open, lease_words(lease)),
        Some(lease) if lease.writes == REFUSED => (Verdict::Blocks, lease_words(lease)),
        Some(lease) => (Verdict::Ahead, lease_words(lease)),
        None if fencing.as_wanted() => (Verdict::Ahead, fencing.why.clone()),
        None => (Verdict::Waits, fencing.why.clone()),
    };
    let _ = writeln!(page, "  {:<7} {:<15} {words}", mark(verdict), "lease");
    for fault in fencing.lease.iter().flat_map(lease_faults) {
        let _ = writeln!(page, "  {:<7} {:<15} {}", "", "", fault.trim_start());
    }
}

/// On a node without a sentinel.
fn frames_page(why: &Why, frames: &Frames, page: &mut String) {
    let node = &why.node;
    let fresh: Vec<&str> =
        frames.sentinels.iter().filter(|heard| heard.fresh).map(|heard| heard.node.as_str()).collect();
    let down = frames.sentinels.iter().filter(|heard| heard.fresh && heard.finds_down).count();
    let (all, quorum, majority) = (frames.sentinels.len(), frames.quorum, frames.majority);
    let master = frames.master.as_deref().unwrap_or("none yet");
    let sentence = match frames.outcome {
        Outcome::NotNeeded => {
            format!("no failover is needed: no sentinel that is heard finds the master {master} down")
        }
        Outcome::Awaited => {
            format!("a failover should begin: the master is {master}, {down} of {quorum} votes that it is down")
        }
        Outcome::UnderWay => "a failover is under way".to_owned(),
        Outcome::Blocked if fresh.len() < majority => {
            format!("no failover: {} of {all} sentinels are heard, {majority} have to be", fresh.len())
        }
        Outcome::Blocked => format!("no failover: {down} of {quorum} votes that it is down"),
    };
    let _ = writeln!(page, "{}: {}{sentence}\n", frames.name, refusal(&why.fencing));
    for heard in &frames.sentinels {
        let words = match (heard.fresh, heard.finds_down, heard.leads) {
            (false, ..) => "is not heard".to_owned(),
            (true, _, Some(epoch)) => format!("leads a failover at epoch {epoch}"),
            (true, true, None) => "finds the master down".to_owned(),
            (true, false, None) => "finds the master well".to_owned(),
        };
        let _ = writeln!(page, "  sentinel {} {words}", heard.node);
    }
    lease_gate(&why.fencing, page);
    let ask = if fresh.is_empty() { "a sentinel".to_owned() } else { fresh.join(" or ") };
    let _ = writeln!(page, "\n{node} has no sentinel; for every gate, ask on {ask}: vigie why");
}

#[cfg(test)]
mod tests;
