//! Connections that have said nothing yet: each for a limited time, each source a limited number, and the oldest go first
//! when there is no room.
//!
//! Looked at when a connection is accepted, says its first word or ends; never on the way of a request.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::base::crowd::{self, Source};

/// So many that were told to go may be on their way at once: their descriptors are not free yet.
pub const LEAVING_MAX: usize = 256;
/// They are waited for this long at a time.
const LEAVING_WAIT: Duration = Duration::from_millis(50);
/// A crowd is told of so often.
const TELL_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(60) };

/// All who have said nothing yet, on one port.
#[derive(Debug)]
pub struct Crowd {
    inner: Mutex<Inner>,
    /// Most of one source.
    share: usize,
    silence: Duration,
    leaving: AtomicUsize,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    silent: crowd::Crowd<Arc<Notify>>,
    /// Told to go since it was last said.
    ousted: u64,
    told_at: Option<Instant>,
}

impl Crowd {
    /// For a port of that many clients, each of which may be silent for that time. One source may have half of them silent.
    pub fn new(clients_max: usize, silence: Duration) -> Arc<Self> {
        let (inner, leaving, left) = (Mutex::default(), AtomicUsize::new(0), Notify::new());
        Arc::new(Self { inner, share: (clients_max / 2).max(1), silence, leaving, left })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that were told to go and are not gone yet.
    pub fn leaving(&self) -> usize {
        self.leaving.load(Ordering::Acquire)
    }

    /// Waits while too many are on their way out.
    pub async fn settle(&self) {
        while self.leaving() >= LEAVING_MAX {
            // Without a limit, one that left between the look and the wait would be waited for.
            let _ = timeout(LEAVING_WAIT, self.left.notified()).await;
        }
    }

    /// Takes a newcomer in; if there is `full`y no room, at the cost of one that has said nothing. None: there is no such
    /// one.
    pub fn enter(self: &Arc<Self>, address: IpAddr, full: bool) -> Option<Silent> {
        let (source, ousted) = (Source::from(address), Arc::new(Notify::new()));
        let mut inner = self.inner();
        if full {
            let (.., gone) = inner.silent.oust()?;
            self.send_off(&mut inner, &gone);
        }
        if inner.silent.of(source) >= self.share
            && let Some(gone) = inner.silent.oust_from(source)
        {
            self.send_off(&mut inner, &gone);
        }
        let number = inner.silent.enter(source, Arc::clone(&ousted));
        drop(inner);
        let until = Instant::now() + self.silence;
        Some(Silent { crowd: Arc::clone(self), source, number, until, ousted, over: false })
    }

    fn send_off(&self, inner: &mut Inner, gone: &Notify) {
        inner.ousted += 1;
        self.leaving.fetch_add(1, Ordering::AcqRel);
        gone.notify_one();
    }

    /// What a person should know of now and then: how many had to go, and since when; none if that was said of late.
    pub fn news(&self) -> Option<String> {
        let mut inner = self.inner();
        let due = inner.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if inner.ousted == 0 || !due {
            return None;
        }
        let (source, has) = inner.silent.largest()?;
        let since = inner.told_at.replace(Instant::now());
        let ousted = std::mem::take(&mut inner.ousted);
        let when = since.map_or_else(String::new, |since| format!(" in the last {} s", since.elapsed().as_secs()));
        Some(format!(
            "{ousted} connections that had said nothing were closed{when}, to make room; {source} has the most such ones \
             now, {has}"
        ))
    }
}

/// A connection that has said nothing yet; counted until it is dropped.
#[derive(Debug)]
pub struct Silent {
    crowd: Arc<Crowd>,
    source: Source,
    number: u64,
    until: Instant,
    ousted: Arc<Notify>,
    /// It is not counted any more.
    over: bool,
}

/// Why a connection that has said nothing is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It was silent for too long.
    Late,
    /// Somebody else needs its place.
    Ousted,
}

impl Silent {
    /// Waits until it has to go.
    pub async fn over(&self) -> Over {
        tokio::select! {
            () = self.ousted.notified() => Over::Ousted,
            () = sleep_until(self.until) => Over::Late,
        }
    }

    /// It has spoken and is silent no more; false if its place was given to somebody else before.
    pub fn spoke(mut self) -> bool {
        self.leave()
    }

    /// Whether it was still among the silent.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.over, true) {
            return true;
        }
        let here = self.crowd.inner().silent.leave(self.source, self.number).is_some();
        if !here {
            self.crowd.leaving.fetch_sub(1, Ordering::AcqRel);
            self.crowd.left.notify_one();
        }
        here
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(30);

    fn from(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    #[tokio::test]
    async fn one_that_says_nothing_is_late_and_one_that_speaks_stays() {
        let silence = Duration::from_millis(30);
        let crowd = Crowd::new(4, silence);
        let (silent, speaks) = (crowd.enter(from(1), false).unwrap(), crowd.enter(from(1), false).unwrap());
        assert!(speaks.spoke());
        let start = Instant::now();
        assert_eq!(silent.over().await, Over::Late);
        assert!(start.elapsed() >= silence - Duration::from_millis(1));
        drop(silent);
        assert_eq!((crowd.leaving(), crowd.inner().silent.of(from(1).into())), (0, 0));
    }

    #[tokio::test]
    async fn the_oldest_gives_way_and_those_who_have_spoken_do_not() {
        let crowd = Crowd::new(100, SILENCE);
        assert!(crowd.enter(from(1), false).unwrap().spoke());
        // All others have spoken: there is no room to be made.
        assert!(crowd.enter(from(2), true).is_none());
        let (first, second) = (crowd.enter(from(1), false).unwrap(), crowd.enter(from(1), false).unwrap());
        let third = crowd.enter(from(2), true).unwrap();
        assert_eq!(first.over().await, Over::Ousted);
        assert_eq!(crowd.leaving(), 1);
        // What it says now comes too late: its place is taken.
        assert!(!first.spoke());
        assert_eq!(crowd.leaving(), 0);
        assert!(second.spoke() && third.spoke());
    }

    #[tokio::test]
    async fn a_source_has_half_of_the_places_at_most() {
        let crowd = Crowd::new(8, SILENCE);
        let all: Vec<_> = (0..10).map(|_| crowd.enter(from(1), false).unwrap()).collect();
        assert_eq!((crowd.inner().silent.of(from(1).into()), crowd.leaving()), (4, 6));
        for (n, silent) in all.into_iter().enumerate() {
            assert_eq!(silent.spoke(), n >= 6, "{n}");
        }
        assert_eq!(crowd.leaving(), 0);
    }

    #[tokio::test]
    async fn a_crowd_is_told_of_now_and_then() {
        let crowd = Crowd::new(4, SILENCE);
        assert_eq!(crowd.news(), None);
        let mut all: Vec<_> = (0..5).map(|_| crowd.enter(from(1), false).unwrap()).collect();
        let said = crowd.news().unwrap();
        assert!(
            said.starts_with("3 connections") && said.contains("192.168.0.1 has the most such ones now, 2"),
            "{said}"
        );
        all.push(crowd.enter(from(1), false).unwrap());
        tokio::time::sleep(TELL_EVERY).await;
        assert!(crowd.news().unwrap().starts_with("1 connections that had said nothing were closed in the last"));
        assert_eq!(crowd.news(), None);
    }

    #[tokio::test]
    async fn those_on_their_way_out_are_waited_for() {
        let crowd = Crowd::new(2, SILENCE);
        let mut all: Vec<_> = (0..=LEAVING_MAX).map(|_| crowd.enter(from(1), false).unwrap()).collect();
        assert_eq!(crowd.leaving(), LEAVING_MAX);
        assert!(timeout(2 * LEAVING_WAIT, crowd.settle()).await.is_err());
        all.remove(0);
        crowd.settle().await;
    }
}
