//! What the thread of the fence shares with those that give orders to it and those that watch it. The thread itself never waits
//! for one of them: where somebody is in the middle of an order it goes on, and is rung for once the order is there.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::latch::Latch;
use super::page::Page;
use crate::base::{Epoch, Instant};
use crate::cores::redis::fence::{Answer, By, Cause, Phase, Refusal, Setting, Status};
use crate::runtime::pidfd::PidFd;

/// Bytes of the longest password of the supervisor at its redis.
pub(super) const PASSWORD_MAX: usize = 128;

/// A bell that never keeps anybody: to ring it twice is as good as once.
#[derive(Debug)]
pub(super) struct Bell(EventFd);

impl Bell {
    pub(super) fn new() -> nix::Result<Self> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Self)
    }

    /// One that another process has handed over.
    #[expect(unsafe_code, reason = "nix cannot know what a descriptor is of")]
    pub(super) fn of(descriptor: OwnedFd) -> Self {
        // SAFETY: any other descriptor refuses what is done to it here, or takes eight bytes of it.
        Self(unsafe { EventFd::from_owned_fd(descriptor) })
    }

    pub(super) fn ring(&self) {
        // It fails only if it has been rung all of a lifetime without being heard.
        let _ = self.0.write(1);
    }

    /// Until it is rung again, it is quiet.
    pub(super) fn hush(&self) {
        // It may be quiet already.
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A process to be fenced. Nothing of it lies on the heap, which belongs to all threads.
#[derive(Debug)]
pub(super) struct Fenced {
    pub(super) incarnation: u64,
    pub(super) held: PidFd,
    pub(super) address: SocketAddr,
    pub(super) password: heapless::String<PASSWORD_MAX>,
}

/// What is wanted of the redis that runs.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// To take writes.
    Open {
        /// By what right.
        by: By,
        /// The epoch of that.
        epoch: Epoch,
        /// What its operator wants.
        setting: Setting,
    },
    /// To refuse writes.
    Close,
}

/// What the thread has not taken yet. Of each the newest counts.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) process: Option<Fenced>,
    /// With the number of the order.
    pub(super) wish: Option<(u64, Wish)>,
    /// To end, once nothing is open.
    pub(super) stop: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) page: Arc<Page>,
    pub(super) orders: Mutex<Orders>,
    /// Rung for the thread.
    pub(super) bell: Bell,
    /// Rung by the thread.
    pub(super) news: Bell,
    status: Latch<10>,
}

impl Shared {
    pub(super) fn new(page: Arc<Page>) -> nix::Result<Self> {
        let (bell, news) = (Bell::new()?, Bell::new()?);
        Ok(Self { page, orders: Mutex::default(), bell, news, status: Latch::default() })
    }

    /// Gives an order.
    pub(super) fn order(&self, order: impl FnOnce(&mut Orders)) {
        // Whoever panicked with it in hand has left it whole: it is assigned to, no more.
        order(&mut self.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.bell.ring();
    }

    /// The thread alone does.
    pub(super) fn tell(&self, status: Status) {
        self.status.write(to_words(status));
        self.news.ring();
    }

    pub(super) fn status(&self) -> Status {
        from_words(self.status.read())
    }
}

const PHASES: [Phase; 5] = [Phase::Closed, Phase::Opening, Phase::Open, Phase::Closing, Phase::Killed];
const RIGHTS: [By; 2] = [By::Lease, By::Decision];
const CAUSES: [Cause; 2] = [Cause::Refused, Cause::Silent];
const ANSWERS: [Answer; 10] = [
    Answer::Closed,
    Answer::Opened,
    Answer::Refused(Refusal::NoProcess),
    Answer::Refused(Refusal::NotReady),
    Answer::Refused(Refusal::NotClosed),
    Answer::Refused(Refusal::Overtaken),
    Answer::Refused(Refusal::Refused),
    Answer::Refused(Refusal::InPart),
    Answer::Refused(Refusal::Broken),
    Answer::Refused(Refusal::Ended),
];

/// The place of one in the list of all, from 1 on: zero is none.
fn number<T: PartialEq>(all: &[T], one: Option<T>) -> u64 {
    one.and_then(|one| all.iter().position(|other| *other == one)).map_or(0, |place| place as u64 + 1)
}

fn named<T: Copy>(all: &[T], number: u64) -> Option<T> {
    all.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

fn to_words(status: Status) -> [u64; 10] {
    let Status { incarnation, phase, since, by, ready, killed, answered: (order, answer) } = status;
    let (killed_at, cause) = killed.unzip();
    [
        u64::from(incarnation.is_some()),
        incarnation.unwrap_or(0),
        number(&PHASES, Some(phase)),
        since.as_micros(),
        number(&RIGHTS, Some(by)),
        u64::from(ready),
        killed_at.map_or(0, Instant::as_micros),
        number(&CAUSES, cause),
        order,
        number(&ANSWERS, Some(answer)),
    ]
}

fn from_words(words: [u64; 10]) -> Status {
    let [lives, incarnation, phase, since, by, ready, killed_at, cause, order, answer] = words;
    let unsaid = Status::default();
    Status {
        incarnation: (lives != 0).then_some(incarnation),
        phase: named(&PHASES, phase).unwrap_or(unsaid.phase),
        since: Instant::from_micros(since),
        by: named(&RIGHTS, by).unwrap_or(unsaid.by),
        ready: ready != 0,
        killed: named(&CAUSES, cause).map(|cause| (Instant::from_micros(killed_at), cause)),
        answered: (order, named(&ANSWERS, answer).unwrap_or(unsaid.answered.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_as_it_is() {
        assert_eq!(from_words([0; 10]), Status::default());
        for phase in PHASES {
            for (answer, cause) in ANSWERS.into_iter().zip(CAUSES.map(Some).into_iter().chain([None]).cycle()) {
                let at = Instant::from_millis(77);
                let status = Status {
                    incarnation: cause.map(|_| 0),
                    phase,
                    since: Instant::from_millis(7),
                    by: RIGHTS[usize::from(cause.is_none())],
                    ready: cause.is_none(),
                    killed: cause.map(|cause| (at, cause)),
                    answered: (9, answer),
                };
                assert_eq!(from_words(to_words(status)), status);
            }
        }
    }
}
