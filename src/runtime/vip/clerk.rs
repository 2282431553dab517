//! Tells the journal and the rest of the node what the virtual routers do, on a thread that may wait.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::VipSpec;
use crate::base::node::{VipFacts, VipState};
use crate::cores::cluster::Part;
use crate::cores::vrrp::{Event, Router, Why};
use crate::runtime::journal::{Journal, Level};
use crate::runtime::lines::{self, Line, Lines};
use crate::runtime::realtime::Rank;

/// What the clerk is told; clones tell the same one. Telling never waits.
#[derive(Clone, Debug)]
pub(super) struct Reports {
    snapshot: Arc<watch::Sender<Snapshot>>,
    lines: Lines,
}

/// The clerk's ends.
#[derive(Debug)]
pub(super) struct Reported {
    snapshot: watch::Receiver<Snapshot>,
    lines: mpsc::Receiver<Line>,
}

/// The state of every router, always whole, so that the last one is never lost.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snapshot(Vec<(VipFacts, Option<String>)>);

/// A way to the clerk, with the routers at their start.
pub(super) fn channel(vips: &[VipSpec], routers: &[Router]) -> (Reports, Reported) {
    let facts = vips.iter().zip(routers).map(|(vip, router)| {
        let virtual_router_id = vip.virtual_router_id;
        (VipFacts { virtual_router_id, state: router.vip_state(), priority: router.priority() }, None)
    });
    let (snapshot_tx, snapshot) = watch::channel(Snapshot(facts.collect()));
    let (lines, put) = lines::channel();
    (Reports { snapshot: Arc::new(snapshot_tx), lines }, Reported { snapshot, lines: put })
}

impl Reports {
    /// A line for the journal.
    pub(super) fn line(&self, level: Level, name: &'static str, text: impl Into<String>) {
        self.lines.put(level, name, text);
    }

    /// Makes the calling thread real-time. Without the right to, it says so and goes on.
    pub(super) fn raise(&self, rank: Rank) {
        self.lines.raise(rank);
    }

    /// An event of the router at `place` in the list.
    pub(super) fn event(&self, place: usize, virtual_router_id: u8, event: &Event) {
        self.snapshot.send_if_modified(|snapshot| {
            snapshot.0.get_mut(place).is_some_and(|(facts, fault)| {
                let before = (facts.state, fault.clone());
                match event {
                    Event::Became { to, why, .. } => (facts.state, *fault) = (*to, fault_of(*to, why)),
                    Event::Waiting { why } => *fault = fault_of(facts.state, why),
                    Event::Refused { .. }
                    | Event::Conflict { .. }
                    | Event::AddressesDiffer { .. }
                    | Event::IntervalDiffers { .. }
                    | Event::Claimed { .. } => {}
                }
                before != (facts.state, fault.clone())
            })
        });
        let (level, name) = heading(event);
        self.line(level, name, format!("virtual router {virtual_router_id}: {event}"));
    }
}

/// What of it is a fault of this node. That clients cannot be served is the proxy's to tell.
fn fault_of(state: VipState, why: &Why) -> Option<String> {
    match (state, why) {
        (VipState::Initialize, Why::Link(_) | Why::Vip(_)) => Some(why.to_string()),
        (VipState::Initialize | VipState::Backup | VipState::Master, _) => None,
    }
}

fn heading(event: &Event) -> (Level, &'static str) {
    match event {
        Event::Became { to: VipState::Master, why: Why::NotHeld { .. }, .. } => (Level::Warn, "became-master"),
        Event::Became { to: VipState::Master, .. } => (Level::Info, "became-master"),
        Event::Became { to: VipState::Backup, .. } => (Level::Info, "became-backup"),
        Event::Became { to: VipState::Initialize, why: Why::Stopped, .. } => (Level::Info, "stopped"),
        Event::Became { to: VipState::Initialize, .. } => (Level::Warn, "left-election"),
        Event::Waiting { why: Why::Unusable(_) } => (Level::Info, "waiting"),
        Event::Waiting { .. } => (Level::Warn, "waiting"),
        Event::Refused { .. } => (Level::Warn, "packet-refused"),
        Event::Conflict { .. } => (Level::Warn, "second-master"),
        Event::AddressesDiffer { .. } => (Level::Error, "addresses-differ"),
        Event::IntervalDiffers { .. } => (Level::Error, "interval-differs"),
        Event::Claimed { .. } => (Level::Warn, "address-claimed"),
    }
}

/// Runs until nobody reports any more.
pub(super) fn run(mut reported: Reported, post: &mpsc::Sender<Part>, journal: &Journal) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
        return journal.record("vrrp", Level::Error, "clerk", "no runtime for the reports of the virtual routers");
    };
    let tell = async {
        let mut told = Snapshot(Vec::new());
        reported.snapshot.mark_changed();
        loop {
            tokio::select! {
                biased;
                // First, since the other proxies hold adverts against it.
                Ok(()) = reported.snapshot.changed() => {
                    let now = reported.snapshot.borrow_and_update().clone();
                    tell_news(&told, &now, post).await;
                    told = now;
                }
                line = reported.lines.recv() => match line {
                    Some(line) => line.write("vrrp", journal),
                    None => return,
                },
            }
        }
    };
    runtime.block_on(tell);
}

async fn tell_news(told: &Snapshot, now: &Snapshot, post: &mpsc::Sender<Part>) {
    for (place, (facts, _)) in now.0.iter().enumerate() {
        if told.0.get(place).is_none_or(|(before, _)| before != facts) {
            // Whoever listens has gone: the node is being stopped.
            let _ = post.send(Part::Vip(*facts)).await;
        }
    }
    let fault = |snapshot: &Snapshot| {
        let reasons: Vec<&str> = snapshot.0.iter().filter_map(|(_, fault)| fault.as_deref()).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    };
    if fault(told) != fault(now) {
        let _ = post.send(Part::Fault { source: "vrrp", reason: fault(now) }).await;
    }
}
