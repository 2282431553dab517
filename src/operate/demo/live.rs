//! The live view: a cluster, a client that never stops writing, and keys that break things.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};

use super::DemoError;
use super::draw::{ClientNumbers, Node, Screen, draw};
use super::events::{Event, Events};
use crate::base::Instant;
use crate::base::time::millis;
use crate::operate::lab::client::{Ack, Client, Plan, longest_gap, read_back};
use crate::operate::lab::cluster::{CLIENT, Cluster, ClusterError, Layout};
use crate::operate::lab::hosts::Network;
use crate::operate::lab::sandbox::Sandbox;
use crate::runtime::clock;
use crate::runtime::exit::Exit;
use crate::runtime::status::{NodeStatus, Status};

/// Enough to see every dip, not so much that the data grows.
const WRITES_PER_SECOND: u32 = 500;
/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// Time between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(150);
/// Acknowledgements are kept for the picture for so long.
const HISTORY: Duration = Duration::from_secs(60);
/// One column of the picture of the writes.
const COLUMN: Duration = Duration::from_millis(250);
/// A write is read back this long after it was acknowledged: time for a failover to happen.
const CHECK_AFTER: Duration = Duration::from_secs(3);
/// Writes are read back in portions of so much time.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What the threads share.
struct Shared {
    cluster: Cluster,
    seen: Mutex<Seen>,
    events: Events,
    checked: AtomicU64,
    lost: AtomicU64,
    quit: AtomicBool,
}

/// The latest look at the cluster.
#[derive(Default)]
struct Seen {
    views: Vec<Status>,
    holders: Vec<&'static str>,
    cut: BTreeSet<&'static str>,
    /// When the last fault was injected.
    fault: Option<Instant>,
    notice: String,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    KillMaster,
    KillRedis(&'static str),
    KillVipOwner,
    KillVigie(&'static str),
    Cut(&'static str),
    Heal,
    Switch,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the live view until `q`. Returns the exit code: 1 if a write was lost.
pub(super) fn run(clients: u16, sandbox: &Sandbox, binary: &Path) -> Result<u8, DemoError> {
    println!("starting five hosts, three redis and two proxies");
    let cluster = Cluster::start(sandbox, Layout::classic(), binary)?;
    cluster.wait_healthy(Duration::from_secs(60))?;
    let plan = Plan { rate: WRITES_PER_SECOND, connections: clients, ..cluster.plan("demo") };
    let client = Client::start(cluster.lab(), CLIENT, plan.clone())?;
    let network = cluster.lab().network(CLIENT)?;
    let shared = Arc::new(Shared {
        cluster,
        seen: Mutex::default(),
        events: Events::new(|_| {}),
        checked: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        quit: AtomicBool::new(false),
    });
    let (actions, orders) = mpsc::channel();
    let (written, to_check) = mpsc::channel();
    let spawn = |work: Box<dyn FnOnce(&Shared) + Send>| {
        let shared = Arc::clone(&shared);
        // Every thread ends with the private world at the latest.
        thread::spawn(move || work(&shared))
    };
    spawn(Box::new(look));
    spawn(Box::new(move |shared| orders.into_iter().for_each(|action| perform(shared, action))));
    let checker = spawn(Box::new(move |shared| check(shared, &network, &plan, &to_check)));
    for name in shared.cluster.names() {
        let directory = shared.cluster.runtime_dir(name);
        spawn(Box::new(move |shared| shared.events.follow(name, &directory, &shared.quit)));
    }
    let hint = hint(sandbox, shared.cluster.layout());
    let (history, unsent) = (VecDeque::new(), Vec::new());
    let mut view = View {
        shared: &shared,
        client,
        actions,
        written,
        history,
        unsent,
        sent_at: clock::now(),
        worst: None,
        selected: 0,
    };
    let mut numbers = ClientNumbers::default();
    let mut terminal = ratatui::try_init()?;
    let shown = view.show(&mut terminal, &hint, &mut numbers);
    ratatui::try_restore()?;
    shown?;
    numbers.acked += view.finish();
    shared.quit.store(true, Ordering::Relaxed);
    println!("reading the last writes back");
    // Its panic has been printed.
    let _ = checker.join();
    let (checked, lost) = (shared.checked.load(Ordering::Relaxed), shared.lost.load(Ordering::Relaxed));
    println!("{} writes acknowledged, {checked} read back, {lost} lost, {} errors", numbers.acked, numbers.errors);
    Ok(Exit::answer(lost == 0).code())
}

fn hint(sandbox: &Sandbox, layout: &Layout) -> String {
    let user = if sandbox.user_namespace { "-U --preserve-credentials " } else { "" };
    let host = layout.nodes.last().map_or(CLIENT, |node| node.name);
    format!("from another terminal: nsenter -t {} {user}-m -p -n ip netns exec {host} sh", sandbox.outside_pid)
}

/// The part of the view that only the drawing thread touches.
struct View<'a> {
    shared: &'a Shared,
    client: Client,
    actions: mpsc::Sender<Action>,
    /// To the checker.
    written: mpsc::Sender<(Instant, Vec<Ack>)>,
    history: VecDeque<Ack>,
    /// What the checker has not got yet.
    unsent: Vec<Ack>,
    sent_at: Instant,
    /// The last fault, and its outage so far.
    worst: Option<(Instant, Duration)>,
    selected: usize,
}

impl View<'_> {
    fn show(
        &mut self,
        terminal: &mut ratatui::DefaultTerminal,
        hint: &str,
        numbers: &mut ClientNumbers,
    ) -> io::Result<()> {
        loop {
            let screen = self.screen(hint, numbers);
            terminal.draw(|frame| draw(frame, &screen))?;
            let until = clock::now() + FRAME;
            loop {
                let left = until.since(clock::now());
                if left.is_zero() || !event::poll(left)? {
                    break;
                }
                if let Input::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                {
                    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                    if interrupt || self.press(key.code) {
                        self.collect(numbers);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reacts to a key. True: leave.
    fn press(&mut self, key: KeyCode) -> bool {
        let names: Vec<_> = self.shared.cluster.names().collect();
        let name = names[self.selected.min(names.len() - 1)];
        let action = match key {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Up => {
                self.selected = self.selected.saturating_sub(1);
                return false;
            }
            KeyCode::Down => {
                self.selected = (self.selected + 1).min(names.len() - 1);
                return false;
            }
            KeyCode::Char('m') => Action::KillMaster,
            KeyCode::Char('r') => Action::KillRedis(name),
            KeyCode::Char('v') => Action::KillVipOwner,
            KeyCode::Char('k') => Action::KillVigie(name),
            KeyCode::Char('c') => Action::Cut(name),
            KeyCode::Char('h') => Action::Heal,
            KeyCode::Char('s') => Action::Switch,
            _ => return false,
        };
        // The thread that takes them lives as long as this one.
        let _ = self.actions.send(action);
        false
    }

    /// Takes over what the client has seen since the last picture.
    fn collect(&mut self, numbers: &mut ClientNumbers) {
        let now = clock::now();
        let acks = {
            let mut tally = self.client.tally();
            numbers.errors = tally.errors;
            std::mem::take(&mut tally.acks)
        };
        numbers.acked += acks.len() as u64;
        self.history.extend(&acks);
        while self.history.front().is_some_and(|ack| now.since(ack.at) > HISTORY) {
            self.history.pop_front();
        }
        self.unsent.extend(acks);
        if now.since(self.sent_at) > CHECK_EVERY {
            self.sent_at = now;
            // Without a reader nothing is checked, and the numbers say so.
            let _ = self.written.send((now, std::mem::take(&mut self.unsent)));
        }
    }

    /// Ends the client and gives the rest of its writes to the checker. Returns how many were new.
    fn finish(mut self) -> u64 {
        let rest = self.client.stop().acks;
        self.unsent.extend(&rest);
        let _ = self.written.send((clock::now(), self.unsent));
        rest.len() as u64
    }

    fn screen(&mut self, hint: &str, numbers: &mut ClientNumbers) -> Screen {
        self.collect(numbers);
        let now = clock::now();
        let seen = lock(&self.shared.seen);
        let times = || self.history.iter().map(|ack| ack.at);
        let silent = now.since(times().next_back().unwrap_or(now));
        numbers.silent_ms = millis(silent);
        if let Some(fault) = seen.fault
            && let Some(outage) = longest_gap(times(), fault)
        {
            // The history forgets, the worst stays.
            let before = self.worst.filter(|(of, _)| *of == fault).map_or(Duration::ZERO, |(_, worst)| worst);
            self.worst = Some((fault, outage.max(before)));
        }
        numbers.outage = self.worst.and_then(|(_, worst)| u64::try_from(worst.as_micros() / 100).ok());
        numbers.checked = self.shared.checked.load(Ordering::Relaxed);
        numbers.lost = self.shared.lost.load(Ordering::Relaxed);
        let best = best(&seen);
        let master = best.and_then(|status| status.master.as_ref());
        let (master, nodes) = (master.and_then(|master| master.node.clone()), best.map(|status| rows(status, &seen)));
        let route = best.and_then(|status| route(status, &seen.holders));
        Screen {
            nodes: nodes.unwrap_or_default(),
            selected: self.selected,
            master,
            vip_holders: seen.holders.iter().map(|name| (*name).to_owned()).collect(),
            route,
            writes: columns(times(), now),
            rate: times().rev().take_while(|at| now.since(*at) < Duration::from_secs(1)).count() as u64,
            client: *numbers,
            events: self.shared.events.list(),
            notice: seen.notice.clone(),
            hint: hint.to_owned(),
        }
    }
}

/// The view of the node that hears most of the others: with a cable pulled the two sides see different things.
fn best(seen: &Seen) -> Option<&Status> {
    let heard = |status: &&Status| status.nodes.iter().filter(|node| node.health != "unreachable").count();
    // Of equals the first one, so that the picture does not flicker.
    seen.views.iter().rev().max_by_key(heard)
}

fn rows(status: &Status, seen: &Seen) -> Vec<Node> {
    let row = |node: &NodeStatus| Node {
        status: node.clone(),
        cut: seen.cut.contains(node.name.as_str()),
        has_vip: seen.holders.contains(&node.name.as_str()),
    };
    status.nodes.iter().map(row).collect()
}

/// Where the holder of the VIP sends writes, as a name if it has one.
fn route(status: &Status, holders: &[&str]) -> Option<String> {
    let holder = status.nodes.iter().find(|node| holders.contains(&node.name.as_str()))?;
    let route = holder.proxy.as_ref()?.route.clone()?;
    let address = route.parse::<SocketAddr>().ok().map(|address| address.ip().to_string());
    let node = status.nodes.iter().find(|node| Some(&node.address) == address.as_ref());
    Some(node.map_or(route, |node| node.name.clone()))
}

/// Counts per column, oldest first, the column under way left out.
fn columns(times: impl DoubleEndedIterator<Item = Instant>, now: Instant) -> Vec<u64> {
    let width = COLUMN.as_micros();
    let current = u128::from(now.as_micros()) / width;
    let mut counts = vec![0; usize::try_from(HISTORY.as_micros() / width).unwrap_or(0)];
    for at in times.rev() {
        let age = current.saturating_sub(u128::from(at.as_micros()) / width);
        let place = usize::try_from(age).ok().and_then(|age| counts.len().checked_sub(age));
        if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
            *count += 1;
        }
    }
    counts
}

/// Looks at the cluster again and again.
fn look(shared: &Shared) {
    while !shared.quit.load(Ordering::Relaxed) {
        let views = shared.cluster.names().filter_map(|name| shared.cluster.status(name).ok()).collect();
        // A look that fails shows nobody.
        let holders = shared.cluster.vip_holders().unwrap_or_default();
        let mut seen = lock(&shared.seen);
        seen.views = views;
        seen.holders = holders;
        if let Err(error) = shared.cluster.alive() {
            seen.notice = error.to_string();
        }
        drop(seen);
        thread::sleep(LOOK);
    }
}

/// Does what a key asks for, and says what became of it.
fn perform(shared: &Shared, action: Action) {
    let (said, began) = (describe(shared, action), clock::now());
    shared.events.tell(Event::own("you", said.clone()));
    if action != Action::Heal {
        lock(&shared.seen).fault = Some(began);
    }
    let notice = match act(shared, action) {
        Ok(()) => format!("done: {said}"),
        Err(error) => format!("not done: {said}: {error}"),
    };
    lock(&shared.seen).notice = notice;
}

fn describe(shared: &Shared, action: Action) -> String {
    match action {
        Action::KillMaster => "kill -9 of the master's redis-server".to_owned(),
        Action::KillRedis(name) => format!("kill -9 of the redis-server of {name}"),
        Action::KillVipOwner => "kill -9 of vigie where the VIP is".to_owned(),
        Action::KillVigie(name) => format!("kill -9 of vigie on {name}"),
        Action::Cut(name) if lock(&shared.seen).cut.contains(name) => format!("plug the cable of {name} in"),
        Action::Cut(name) => format!("pull the cable of {name}"),
        Action::Heal => "plug all cables in".to_owned(),
        Action::Switch => "planned switchover".to_owned(),
    }
}

fn act(shared: &Shared, action: Action) -> Result<(), ClusterError> {
    let cluster = &shared.cluster;
    let missing = |what| ClusterError::NoProcess { node: "any node".to_owned(), what };
    match action {
        Action::KillMaster => {
            let master = best(&lock(&shared.seen)).and_then(|status| status.master.as_ref()?.node.clone());
            cluster.kill_redis(&master.ok_or_else(|| missing("a master"))?)
        }
        Action::KillRedis(name) => cluster.kill_redis(name),
        Action::KillVipOwner => {
            let holders = cluster.vip_holders()?;
            cluster.kill_worker(holders.first().ok_or_else(|| missing("a holder of the VIP"))?)
        }
        Action::KillVigie(name) => cluster.kill_worker(name),
        Action::Cut(name) => {
            let healed = lock(&shared.seen).cut.remove(name);
            if healed {
                return Ok(cluster.lab().heal(name)?);
            }
            cluster.lab().cut(name)?;
            lock(&shared.seen).cut.insert(name);
            Ok(())
        }
        Action::Heal => {
            for name in cluster.names() {
                cluster.lab().heal(name)?;
            }
            lock(&shared.seen).cut.clear();
            Ok(())
        }
        Action::Switch => {
            let asked = {
                let seen = lock(&shared.seen);
                cluster.sentinels().find(|name| !seen.cut.contains(name))
            };
            cluster.failover(asked.ok_or_else(|| missing("a sentinel that can be heard"))?, None).map(drop)
        }
    }
}

/// Reads every acknowledged write back, some time after it was acknowledged, and removes it.
fn check(shared: &Shared, network: &Network, plan: &Plan, written: &mpsc::Receiver<(Instant, Vec<Ack>)>) {
    for (at, acks) in written {
        while clock::now().since(at) < CHECK_AFTER && !shared.quit.load(Ordering::Relaxed) {
            thread::sleep(FRAME);
        }
        loop {
            match read_back(network, plan, &acks, true) {
                Ok(lost) => {
                    shared.checked.fetch_add(acks.len() as u64, Ordering::Relaxed);
                    shared.lost.fetch_add(lost.len() as u64, Ordering::Relaxed);
                    break;
                }
                // As long as nobody answers, nothing is known.
                Err(_) if !shared.quit.load(Ordering::Relaxed) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_what_is_in_them() {
        let at = |millis: u64| Instant::from_millis(1_000_000 + millis);
        let counts = columns([0, 10, 260, 500, 749, 760].map(at).into_iter(), at(800));
        assert_eq!(counts.len(), 240);
        assert_eq!(&counts[237..], [2, 1, 2], "the column under way is left out");
    }
}
