//! Asks the system for the addresses of host names, on threads that may hang without harm.
//!
//! `getaddrinfo(3)` reads `/etc/hosts` and asks the name servers of `/etc/resolv.conf`, in the static musl build too (other
//! sources of `nsswitch.conf` are known to glibc only), and has no time limit of its own that could be set.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::cores::sentinel::names::{Answer, NAMES_MAX, Request};

/// Names asked for at once. As many threads may hang until the system gives up, with its defaults after some ten seconds.
const ASKED_MAX: usize = 16;
/// Who has no answer by then is told so.
const ANSWER_TIME: Duration = Duration::from_secs(10);

type Find = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The way to the addresses of names.
pub struct Resolver<I> {
    find: Arc<Find>,
    places: Arc<Semaphore>,
    answers: mpsc::Sender<I>,
    tasks: JoinSet<()>,
    limit: Duration,
}

impl<I> std::fmt::Debug for Resolver<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("places", &self.places).field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

impl<I: From<Answer> + Send + 'static> Resolver<I> {
    /// Asks the system, and tells `answers`.
    pub fn new(answers: mpsc::Sender<I>) -> Self {
        Self::with(answers, |name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    fn with(answers: mpsc::Sender<I>, find: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let places = Arc::new(Semaphore::new(ASKED_MAX));
        Self { find: Arc::new(find), places, answers, tasks: JoinSet::new(), limit: ANSWER_TIME }
    }

    /// Asks for a name. Never waits; the answer comes later, at the latest after 20 s, and always.
    pub fn ask(&mut self, request: Request) {
        let Request::Resolve(name) = request;
        // Tasks that have ended by themselves are forgotten here, so that the set does not grow.
        while self.tasks.try_join_next().is_some() {}
        // Twice: a name may be forgotten and asked for again while its first question is still open.
        let full = self.tasks.len() >= 2 * NAMES_MAX;
        let (find, places, answers) = (self.find.clone(), self.places.clone(), self.answers.clone());
        let limit = self.limit;
        self.tasks.spawn(async move {
            let asked = name.clone();
            let found =
                if full { Err("too many names wait".to_owned()) } else { found(asked, find, places, limit).await };
            // At the end of the process nobody listens.
            let _ = answers.send(Answer { name, found }.into()).await;
        });
    }
}

async fn found(name: String, find: Arc<Find>, places: Arc<Semaphore>, limit: Duration) -> Result<Vec<IpAddr>, String> {
    let late = |_| format!("no answer within {limit:?}");
    let place = timeout(limit, places.acquire_owned()).await.map_err(late)?.map_err(|error| error.to_string())?;
    let asked = spawn_blocking(move || {
        let found = find(&name);
        // Given back by the thread itself: one that hangs keeps it, whoever still waits for it or not.
        drop(place);
        found
    });
    match timeout(limit, asked).await.map_err(late)? {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests;
