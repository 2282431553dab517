//! The fence of the node's redis at work: a thread of its own that opens and closes it by the lease, and a second fence in the
//! guard, should that thread not do so.
//!
//! ```text
//!   link ── renew ──▶ page ◀── doors ── thread ──▶ redis (one connection; SIGKILL)
//!                      │                 ▲  │
//!                      ▼                 │  └─ status ──▶ whoever watches
//!   guard: past the end of what      orders: process, open, close
//!   is open, SIGKILL
//! ```
//! The thread is real-time and above the link, on whose renewals it waits; [`crate::cores::redis::fence`] decides for it.
//!
//! Memory is locked by `mlockall(MCL_CURRENT | MCL_ONFAULT)`, for the whole process: what is needed when memory is short is
//! the program itself, and that is the same pages for all threads.

mod latch;
mod line;
mod page;
pub(super) mod second;
mod shared;
mod thread;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::page::{Leased, Page};
pub use self::second::Guarded;
use self::shared::{Bell, Fenced, Shared, Wish};
use super::pidfd::PidFd;
use crate::base::{Instant, Secret};
use crate::cores::redis::fence::{Answer, Refusal, Setting, Status, Term};

/// A process to be fenced, which was started closed.
#[derive(Debug)]
pub struct Process<'a> {
    /// See [`crate::base::node::incarnation`].
    pub incarnation: u64,
    /// The process itself. Of a group of its own, so that its children are killed with it.
    pub held: &'a PidFd,
    /// Where it listens on this host.
    pub address: SocketAddr,
    /// Of the user [`crate::base::secret::LOCAL_USER`]: at most 128 bytes.
    pub password: &'a Secret,
}

/// The fence of the redis of this node. Dropped, it ends as soon as that one is closed or has ended, and until then closes it by its
/// lease.
#[derive(Debug)]
pub struct Fence {
    shared: Arc<Shared>,
    guarded: Option<Guarded>,
    status: watch::Receiver<Status>,
    /// Of the last order.
    order: u64,
    teller: AbortHandle,
}

/// Says how long the lease lasts. For the thread of the link: it waits for nobody and allocates nothing.
#[derive(Debug)]
pub struct Renewals {
    shared: Arc<Shared>,
    last: Option<Leased>,
}

/// A fence that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Its handle.
    pub fence: Fence,
    /// For the link.
    pub renewals: Renewals,
    /// What it could not have, for a person: it works without.
    pub handicaps: Vec<String>,
}

/// Starts the thread; needs a tokio runtime. Without `guarded` there is no second fence.
pub fn start(guarded: Option<Guarded>) -> io::Result<Begun> {
    let page = match &guarded {
        Some(guarded) => Arc::clone(&guarded.page),
        None => Arc::new(Page::new()?),
    };
    let shared = Arc::new(Shared::new(page)?);
    let (told, status) = watch::channel(Status::default());
    let news = News::of(Arc::clone(&shared))?;
    let teller = tokio::spawn(async move { news.tell(&told).await }).abort_handle();
    let bell = guarded.as_ref().map(|guarded| Arc::clone(&guarded.bell));
    let mut handicaps = thread::start(Arc::clone(&shared), bell)?;
    if guarded.is_none() {
        handicaps.push("there is no second fence around redis: no guard has started this process".to_owned());
    }
    let renewals = Renewals { shared: Arc::clone(&shared), last: None };
    Ok(Begun { fence: Fence { shared, guarded, status, order: 0, teller }, renewals, handicaps })
}

/// What the thread rings for.
struct News {
    shared: Arc<Shared>,
    bell: AsyncFd<Ringing>,
}

struct Ringing(Arc<Shared>);

impl std::os::fd::AsRawFd for Ringing {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        let bell: &Bell = &self.0.news;
        bell.as_raw_fd()
    }
}

impl News {
    #[expect(unsafe_code, reason = "the safe constructors of AsyncFd are deprecated")]
    fn of(shared: Arc<Shared>) -> io::Result<Self> {
        let ringing = Ringing(Arc::clone(&shared));
        // SAFETY: the bell owns its descriptor and names the same one as long as it lives, which the AsyncFd keeps it.
        let bell = unsafe { AsyncFd::register_with_interest(ringing, Interest::READABLE) }?;
        Ok(Self { shared, bell })
    }

    async fn tell(&self, told: &watch::Sender<Status>) {
        while let Ok(mut rung) = self.bell.readable().await {
            self.shared.news.hush();
            rung.clear_ready();
            told.send_replace(self.shared.status());
        }
    }
}

impl Fence {
    /// A new process runs; the one before has ended. From now on the guard knows it, too.
    pub fn process(&mut self, process: &Process<'_>) -> io::Result<()> {
        let password = process.password.reveal().try_into();
        let password = password.map_err(|_| io::Error::other("the password of the fence is too long"))?;
        let Process { incarnation, address, .. } = *process;
        let held = process.held.try_clone()?;
        // Before it can be opened.
        if let Some(guarded) = &self.guarded {
            guarded.hold(incarnation, process.held)?;
        }
        self.shared.order(|orders| {
            orders.process = Some(Fenced { incarnation, held, address, password });
            // It was meant for the one before.
            orders.wish = None;
        });
        Ok(())
    }

    /// Lets redis take writes until its lease ends; with `promote` it becomes a master in the same moment. Returns when redis had
    /// confirmed that by.
    pub async fn open(&mut self, promote: bool, setting: Setting) -> Result<Instant, Refusal> {
        self.wish(Wish::Open { promote, setting }).await
    }

    /// Makes redis refuse writes. Returns when it had confirmed that by, or had ended: what it acknowledged, it did before. It waits
    /// as long as redis takes for it, or until the lease has run out and redis is killed. After an error redis takes writes as before.
    pub async fn close(&mut self) -> Result<Instant, Refusal> {
        self.wish(Wish::Close).await
    }

    async fn wish(&mut self, wish: Wish) -> Result<Instant, Refusal> {
        self.order += 1;
        let order = self.order;
        self.shared.order(|orders| orders.wish = Some((order, wish)));
        let status = self.status.wait_for(|status| status.answered.0 == order).await;
        // The teller ends with this handle, or with the runtime of whoever waits here.
        let status = *status.map_err(|_| Refusal::Ended)?;
        match status.answered.1 {
            Answer::Opened | Answer::Closed => Ok(status.since),
            Answer::Refused(refusal) => Err(refusal),
        }
    }

    /// Where it stands, as it last said.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The same, for others.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The shortest time that was left before the fence would have begun, at a renewal since the lease began. None: no lease.
    pub fn slack(&self) -> Option<Duration> {
        Some(self.shared.page.lease()?.slack)
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.teller.abort();
        self.shared.order(|orders| orders.stop = true);
    }
}

impl Renewals {
    /// The lease lasts until then, as is known at `now`. None: there is none any more, or it was given back.
    pub fn renew(&mut self, now: Instant, term: Option<Term>) {
        let lease = term.map(|term| {
            let left = term.fence_at.since(now);
            // One that had run out has begun again.
            let last = self.last.filter(|last| last.term.incarnation == term.incarnation && now < last.term.ends_at);
            let slack = last.map_or(left, |last| last.slack.min(last.term.fence_at.since(now)));
            Leased { term, slack }
        });
        if lease == self.last {
            return;
        }
        let sooner = self.last.is_some_and(|last| {
            lease.is_none_or(|lease| {
                lease.term.incarnation != last.term.incarnation || lease.term.fence_at < last.term.fence_at
            })
        });
        self.last = lease;
        self.shared.page.set_lease(lease);
        // Else the thread looks when the last one it knows of is about to run out.
        if sooner {
            self.shared.bell.ring();
        }
    }
}
