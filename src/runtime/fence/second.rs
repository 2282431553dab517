//! The second fence, in the guard: it kills a redis whose worker should have closed it and has not. That one may be stopped,
//! hang, or get no processor; the guard hears of nothing, it looks at a page.

use std::env;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use super::page::Page;
use super::shared::Bell;
use crate::base::Instant;
use crate::cores::redis::fence::Doors;
use crate::runtime::pidfd::PidFd;
use crate::runtime::timer::Timer;

/// Descriptors of the page, of the socket by which the guard is told of a redis, and of the guard's bell, in the environment of
/// a worker.
pub(crate) const FENCE_ENV: &str = "VIGIE_FENCE";
/// Bytes of what goes with a pidfd: its incarnation.
const LETTER: usize = 8;

/// What the guard keeps of the fence of one worker.
#[derive(Debug)]
pub(crate) struct Second {
    page: Page,
    /// None: the worker has closed its end.
    socket: Option<OwnedFd>,
    bell: Bell,
    timer: Timer,
    /// The redis that the worker has started last.
    held: Option<(u64, PidFd)>,
    /// The incarnation that was killed, and who needs no more looking after.
    done: Option<u64>,
}

/// What a worker is given of it.
#[derive(Debug)]
pub(crate) struct Given([OwnedFd; 3]);

/// What the guard finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is due.
    Good,
    /// Redis was killed: so much later than it should have been closed at the latest.
    Killed(Duration),
    /// Redis should be killed, and is not at hand: its worker has to be, which it ends with.
    NotAtHand,
}

impl Second {
    /// For a new worker.
    pub(crate) fn new() -> io::Result<(Self, Given)> {
        let page = Page::new()?;
        let bell = Bell::new()?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (socket, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let timer = Timer::new()?;
        let given = [page.memory().try_clone_to_owned()?, other, bell.as_fd().try_clone_to_owned()?];
        Ok((Self { page, socket: Some(socket), bell, timer, held: None, done: None }, Given(given)))
    }

    /// Each becomes readable when there may be something to look at.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.bell.as_fd(), self.timer.as_fd()].into_iter().chain(self.socket.as_ref().map(AsFd::as_fd))
    }

    /// Looks whether redis should have been closed by `now`, and kills it then. Sees to it that it is called again when that may
    /// have changed.
    pub(crate) fn turn(&mut self, now: Instant) -> Verdict {
        self.bell.hush();
        self.hear();
        let (verdict, next) = self.judge(now);
        self.timer.hush();
        if let Err(error) = self.timer.set(next) {
            tracing::error!("the second fence of redis has no timer: {error}");
        }
        verdict
    }

    fn judge(&mut self, now: Instant) -> (Verdict, Option<Instant>) {
        let term = match self.page.doors() {
            Doors::Closed => return (Verdict::Good, None),
            Doors::Open(term) if self.done == Some(term.incarnation) => return (Verdict::Good, None),
            Doors::Open(term) => term,
        };
        if now < term.guard_at() {
            return (Verdict::Good, Some(term.guard_at()));
        }
        self.done = Some(term.incarnation);
        let verdict = match &self.held {
            Some((incarnation, redis)) if *incarnation == term.incarnation => match redis.kill_group() {
                Ok(()) => Verdict::Killed(now.since(term.kill_at)),
                Err(_) if redis.ended() => Verdict::Good,
                Err(_) => Verdict::NotAtHand,
            },
            Some(_) | None => Verdict::NotAtHand,
        };
        (verdict, None)
    }

    /// Takes hold of what the worker has started.
    fn hear(&mut self) {
        let mut beside = nix::cmsg_space!(RawFd);
        while let Some(socket) = &self.socket {
            let mut letter = [0; LETTER];
            let mut parts = [IoSliceMut::new(&mut letter)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut beside), flags) else { return };
            let (ended, whole) = (message.bytes == 0, message.bytes == LETTER);
            let mut held = None;
            for control in message.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::ScmRights(descriptors) = control {
                    held = descriptors.into_iter().map(own).next_back();
                }
            }
            if ended {
                // It would be readable for ever.
                self.socket = None;
            } else if let Some(held) = held.filter(|_| whole) {
                self.held = Some((u64::from_le_bytes(letter), PidFd::from(held)));
            }
        }
    }
}

#[expect(unsafe_code, reason = "nix gives descriptors from a message as numbers")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just given it to this process, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

impl Given {
    /// For the environment of the worker.
    pub(crate) fn environment(&self) -> (&'static str, OsString) {
        let [page, socket, bell] = self.0.each_ref().map(AsRawFd::as_raw_fd);
        (FENCE_ENV, format!("{page},{socket},{bell}").into())
    }

    /// Lets what this process becomes by an exec have them. System calls and nothing else.
    pub(crate) fn inherit(&self) -> nix::Result<()> {
        self.0.iter().try_for_each(|given| fcntl(given, FcntlArg::F_SETFD(FdFlag::empty())).map(drop))
    }
}

/// A worker's ends of the second fence of its guard.
#[derive(Debug)]
pub struct Guarded {
    pub(super) page: Arc<Page>,
    pub(super) bell: Arc<Bell>,
    socket: OwnedFd,
}

/// What the environment names, as numbers.
fn inherited() -> Option<[RawFd; 3]> {
    let text = env::var(FENCE_ENV).ok()?;
    let mut numbers = text.split(',').map(|number| number.parse().ok().filter(|number| *number > 2));
    let numbers = [numbers.next()??, numbers.next()??, numbers.next()??];
    Some(numbers)
}

/// What the worker starts must not have them.
#[expect(unsafe_code, reason = "the descriptors come as numbers through the environment")]
pub(crate) fn keep_from_children() {
    for number in inherited().into_iter().flatten() {
        // SAFETY: the number is only handed to the kernel, which refuses one that is not open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if let Err(error) = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            tracing::debug!("the second fence given by the guard: {error}");
        }
    }
}

impl Guarded {
    /// The ones that the guard of this process has given to it; none: it has none, or not with such a fence.
    #[expect(unsafe_code, reason = "the descriptors come as numbers through the environment")]
    pub fn inherited() -> io::Result<Option<Self>> {
        let Some(numbers) = inherited() else { return Ok(None) };
        let copy = |number| {
            // SAFETY: the number is only handed to the kernel, which refuses one that is not open.
            unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
        };
        let [page, socket, bell] = numbers.map(copy);
        let (page, bell) = (Arc::new(Page::of(page?)?), Arc::new(Bell::of(bell?)));
        Ok(Some(Self { page, bell, socket: socket? }))
    }

    /// Hands a redis over to the guard.
    pub(super) fn hold(&self, incarnation: u64, redis: &PidFd) -> io::Result<()> {
        let letter = incarnation.to_le_bytes();
        let descriptors = [redis.as_raw_fd()];
        let beside = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&letter)], &beside, flags, None)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
