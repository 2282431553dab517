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
#[cfg(feature = "demo")]
mod window;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::page::Page;
pub use self::second::Guarded;
pub use self::shared::Wish;
use self::shared::{Bell, Fenced, Shared};
#[cfg(feature = "demo")]
pub use self::window::Window;
use super::pidfd::PidFd;
use crate::base::Secret;
use crate::cores::redis::fence::{Status, Term};

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
    teller: AbortHandle,
}

/// Says how long the lease lasts. For the thread of the link: it waits for nobody and allocates nothing.
#[derive(Debug)]
pub struct Renewals {
    shared: Arc<Shared>,
    last: Option<Term>,
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
    Ok(Begun { fence: Fence { shared, guarded, status, teller }, renewals, handicaps })
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
    pub fn process(&self, process: &Process<'_>) -> io::Result<()> {
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

    /// What is wanted of the redis that runs, under a number higher than the one before: [`Status::answered`] tells what became of
    /// it. One that has not been taken yet is replaced. A close takes as long as redis takes for it, or until the lease has run
    /// out and redis is killed; if it is refused, redis takes writes as before.
    pub fn order(&self, number: u64, wish: Wish) {
        self.shared.order(|orders| orders.wish = Some((number, wish)));
    }

    /// Where it stands, as it last said.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The same, for others.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.teller.abort();
        self.shared.order(|orders| orders.stop = true);
    }
}

impl Renewals {
    /// The lease lasts until then. None: there is none any more, or it was given back.
    pub fn renew(&mut self, lease: Option<Term>) {
        if lease == self.last {
            return;
        }
        // Else the thread looks when the last one it knows of is about to run out. One of an epoch before the decision by which redis
        // takes writes without a lease it does not go by: so it may be waiting for nothing.
        let goes_on = |last: Term, lease: Term| {
            (lease.incarnation, lease.epoch) == (last.incarnation, last.epoch) && lease.fence_at >= last.fence_at
        };
        let looks = self.last.zip(lease).is_some_and(|(last, lease)| goes_on(last, lease));
        self.last = lease;
        self.shared.page.set_lease(lease);
        if !looks {
            self.shared.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::base::Instant;

    #[test]
    fn the_thread_is_rung_for_what_it_would_not_look_for() {
        let shared = Arc::new(Shared::new(Arc::new(Page::new().unwrap())).unwrap());
        let mut renewals = Renewals { shared: Arc::clone(&shared), last: None };
        let mut rung = |incarnation, epoch, fence_at: u64| {
            let [fence_at, kill_at, ends_at] = [0, 40, 50].map(|after| Instant::from_millis(fence_at + after));
            let term = Term { incarnation, epoch, fence_at, kill_at, ends_at };
            renewals.renew(Some(term));
            assert_eq!(shared.page.lease(), Some(term));
            let rung = poll(&mut [PollFd::new(shared.bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap();
            shared.bell.hush();
            rung == 1
        };
        assert!(rung(1, 7, 1_000), "the first one");
        assert!(!rung(1, 7, 1_100), "it looks when the one before is about to run out");
        assert!(rung(1, 8, 1_200), "it may not go by the one before");
        assert!(!rung(1, 8, 1_300));
        assert!(rung(1, 8, 1_250), "it is shorter");
        assert!(rung(2, 8, 1_400), "of another process");
        renewals.renew(None);
        assert_eq!(poll(&mut [PollFd::new(shared.bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap(), 1);
    }
}
