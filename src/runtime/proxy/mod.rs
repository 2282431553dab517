//! Carries out what the proxy's cores decide.
//!
//! ```text
//! control plane                            │ worker threads, one per core, at most four
//!   view, checks, listeners ─► Route       │   accept (on the first) ─► Session ─► relay
//!                                └─ Target ┼─► generation: an atomic; sessions of another one end
//! ```
//! The two sides share `Shared` only. The control plane never touches a client's bytes, and a worker never decides where
//! writes go.

mod check;
mod listen;
mod pool;
mod relay;
mod shared;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{MissedTickBehavior, interval};

use super::drive::{Execute, Flow, drive};
use super::journal::{Journal, Level};
use super::view::facts;
use crate::base::{Purpose, Secrets};
use crate::cores::cluster::{Part, View};
use crate::cores::proxy::route::{self, Event, Facts, Input, Output, Route};
use shared::Shared;
pub use shared::{Counters, Setup, Totals};

/// A check longer than this counts as unanswered.
const CHECK_LIMIT: Duration = Duration::from_millis(250);
/// How often the number of clients is looked at, to be posted if it changed.
const CLIENTS_INTERVAL: Duration = Duration::from_secs(1);
const INPUTS_MAX: usize = 64;

/// Why a proxy could not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No thread for the data path.
    #[error("cannot start a thread for the proxy's data path: {0}")]
    Thread(std::io::Error),
    /// A thread of the data path ended by itself.
    #[error("a thread of the proxy's data path died")]
    Died,
}

/// Runs the proxy until `stop` says so (or its sender is gone): no clients are accepted any more, all sessions are closed and
/// all threads joined when this returns. Give it a task of its own.
///
/// `usable` says whether this node may hold the VIP, `post` what other nodes are to know.
pub async fn run(
    setup: Setup,
    view: watch::Receiver<Arc<View>>,
    usable: watch::Sender<Result<(), String>>,
    post: mpsc::Sender<Part>,
    journal: Journal,
    stop: watch::Receiver<bool>,
) -> Result<(), ProxyError> {
    let limit = setup.config.connect_timeout.min(CHECK_LIMIT);
    let (check_interval, masters) = (setup.config.check_interval, setup.masters.clone());
    let mut route = Route::new(&route::Config { check_interval, masters });
    let shared = Arc::new(Shared::new(setup, journal.clone()));
    let (listeners, threads) = worker::start(&shared).map_err(ProxyError::Thread)?;
    let (inputs, received) = mpsc::channel(INPUTS_MAX);
    let mut executor =
        Executor { shared: Arc::clone(&shared), inputs: inputs.downgrade(), check: None, limit, usable, post, journal };
    let listening = Owned(tokio::spawn(listen::keep(Arc::clone(&shared), listeners, inputs.clone())));
    let feeding = Owned(tokio::spawn(feed(Arc::clone(&shared), view, stop, inputs, listening)));
    drive(&mut route, received, &mut executor).await;
    drop(feeding);
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(std::thread::JoinHandle::join));
    joined.await.map_err(|_| ProxyError::Died)?.map_err(|_| ProxyError::Died)
}

/// A task that ends with its owner.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Brings the route what changes around it, until the stop. Its end ends the driver.
async fn feed(
    shared: Arc<Shared>,
    mut view: watch::Receiver<Arc<View>>,
    mut stop: watch::Receiver<bool>,
    inputs: mpsc::Sender<Input>,
    listening: Owned,
) {
    let mut second = interval(CLIENTS_INTERVAL);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut clients, mut viewed) = (Facts::default(), 0, true);
    view.mark_changed();
    loop {
        let input = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            changed = view.changed(), if viewed => {
                viewed = changed.is_ok();
                let newest = view.borrow_and_update().clone();
                let facts = facts(&newest, &shared.setup.master_name);
                if facts == known {
                    continue;
                }
                known.clone_from(&facts);
                Input::View(facts)
            }
            () = shared.suspect.notified() => Input::Suspect,
            _ = second.tick() => {
                let now = shared.setup.counters.clients.load(Ordering::Relaxed);
                if std::mem::replace(&mut clients, now) == now {
                    continue;
                }
                Input::Clients(now)
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
    // No client is accepted from here on; the sessions are cut by the switch that follows.
    drop(listening);
    let _ = inputs.send(Input::Stop).await;
}

/// Carries out what the route asks for.
struct Executor {
    shared: Arc<Shared>,
    /// Weak, so that the driver ends with the feeder.
    inputs: mpsc::WeakSender<Input>,
    check: Option<AbortHandle>,
    limit: Duration,
    usable: watch::Sender<Result<(), String>>,
    post: mpsc::Sender<Part>,
    journal: Journal,
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(check) = self.check.take() {
            check.abort();
        }
    }
}

impl Execute<Route> for Executor {
    async fn execute(&mut self, output: Output) -> Flow<Input> {
        match output {
            Output::Check { serial, decision, login } => {
                let (shared, inputs, limit) = (Arc::clone(&self.shared), self.inputs.clone(), self.limit);
                let check = tokio::spawn(async move {
                    let own = login.then(|| shared.setup.credentials.borrow().own(Purpose::Check));
                    let password = own.as_ref().map(Secrets::current);
                    let present = shared.setup.presence.clone();
                    let result = check::check(decision.master, password, present, limit).await;
                    if let Some(inputs) = inputs.upgrade() {
                        let _ = inputs.send(Input::Checked { serial, result }).await;
                    }
                });
                if let Some(obsolete) = self.check.replace(check.abort_handle()) {
                    obsolete.abort();
                }
            }
            Output::Switch(target) => self.shared.switch(target.map(|decision| decision.master)),
            Output::Usable(usable) => {
                let _ = self.usable.send_replace(usable);
            }
            Output::Post(facts) => self.post(Part::Proxy(facts)).await,
            Output::Fault(reason) => self.post(Part::Fault { source: "proxy", reason }).await,
            Output::Publish(event) => {
                let (level, name) = label(&event);
                self.journal.record("proxy", level, name, event.to_string());
            }
        }
        Flow::Done
    }
}

impl Executor {
    /// Nobody to post to: the worker is on its way out.
    async fn post(&self, part: Part) {
        let _ = self.post.send(part).await;
    }
}

fn label(event: &Event) -> (Level, &'static str) {
    match event {
        Event::Routed(_) => (Level::Info, "route-up"),
        Event::Renewed(_) => (Level::Info, "route-renewed"),
        Event::Lost { .. } => (Level::Warn, "route-down"),
        Event::Unproved { .. } => (Level::Warn, "route-unproved"),
        Event::Conflict(_) => (Level::Error, "decision-conflict"),
        Event::Foreign(_) => (Level::Warn, "master-refused"),
        Event::HistoryReset(_) => (Level::Warn, "history-reset"),
        Event::Usable(Ok(())) => (Level::Info, "vip-fit"),
        Event::Usable(Err(_)) => (Level::Warn, "vip-unfit"),
    }
}

#[cfg(test)]
mod tests;
