//! The page that the worker and its guard share: how long the lease lasts, and whether redis may be open.
//!
//! The link writes the one, the fence the other, and each of the three threads reads what it must know without waiting for the
//! other two. The guard counts on the later of the two terms: each was promised.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::latch::Latch;
use crate::base::Instant;
use crate::cores::redis::fence::{Doors, Term};

/// Bytes. All that is shared fits into one page of every machine.
const SIZE: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// What the memory is called, as `/proc` shows it.
pub(super) const NAME: &str = "vigie-fence";

/// What lies in it. Zeros are: no lease, and closed.
#[derive(Debug)]
#[repr(C)]
struct Layout {
    /// Some or none, the term.
    lease: Latch<6>,
    /// Open or closed, the term.
    doors: Latch<6>,
}

/// The page, mapped. Its memory stays that of the descriptor, which another process maps too.
#[derive(Debug)]
pub(super) struct Page {
    at: NonNull<Layout>,
    memory: OwnedFd,
}

// SAFETY: all that it points to is atomic, and stays mapped until it is dropped.
#[expect(unsafe_code, reason = "a pointer is not sent by itself")]
unsafe impl Send for Page {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer is not shared by itself")]
unsafe impl Sync for Page {}

impl Page {
    /// A new one.
    pub(super) fn new() -> io::Result<Self> {
        let memory = memfd_create(NAME, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&memory, SIZE.get() as libc::off_t)?;
        // To read beyond its end would kill whoever does.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
        Self::of(memory)
    }

    /// The one behind a descriptor.
    #[expect(unsafe_code, reason = "memory that processes share is had by a mapping alone")]
    pub(super) fn of(memory: OwnedFd) -> io::Result<Self> {
        if usize::try_from(fstat(&memory)?.st_size) != Ok(SIZE.get()) {
            return Err(io::Error::other("the descriptor is not that of the page of the fence"));
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe { mmap(None, SIZE, protection, MapFlags::MAP_SHARED, &memory, 0) }?;
        Ok(Self { at: at.cast(), memory })
    }

    /// What another process maps.
    pub(super) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    #[expect(unsafe_code, reason = "the memory is that of a mapping")]
    fn layout(&self) -> &Layout {
        const { assert!(size_of::<Layout>() <= SIZE.get()) };
        // SAFETY: the mapping is of that size, aligned to a page, lasts as long as `self`, and began as zeros; all of it is
        // atomic, whatever other processes do to it.
        unsafe { self.at.as_ref() }
    }

    /// Says how long the lease lasts. The link alone does.
    pub(super) fn set_lease(&self, lease: Option<Term>) {
        self.layout().lease.write(lease.map_or([0; 6], said));
    }

    /// How long the lease lasts.
    pub(super) fn lease(&self) -> Option<Term> {
        let [some, words @ ..] = self.layout().lease.read();
        (some != 0).then(|| term(words))
    }

    /// Says whether redis may be open. The fence alone does.
    pub(super) fn set_doors(&self, doors: Doors) {
        self.layout().doors.write(match doors {
            Doors::Closed => [0; 6],
            Doors::Open(term) => said(term),
        });
    }

    /// Whether redis may be open, and until when at the latest.
    pub(super) fn doors(&self) -> Doors {
        let [open, words @ ..] = self.layout().doors.read();
        if open == 0 {
            return Doors::Closed;
        }
        let opened = term(words);
        let renewed =
            self.lease().filter(|term| term.incarnation == opened.incarnation && term.ends_at > opened.ends_at);
        Doors::Open(renewed.unwrap_or(opened))
    }
}

impl Drop for Page {
    #[expect(unsafe_code, reason = "a mapping is taken back by a call alone")]
    fn drop(&mut self) {
        // SAFETY: the mapping is of that size, and nothing borrows from it any more.
        if let Err(error) = unsafe { munmap(self.at.cast(), SIZE.get()) } {
            tracing::debug!("the page of the fence stays mapped: {error}");
        }
    }
}

/// A term that there is.
fn said(term: Term) -> [u64; 6] {
    let Term { incarnation, epoch, fence_at, kill_at, ends_at } = term;
    [1, incarnation, epoch, fence_at.as_micros(), kill_at.as_micros(), ends_at.as_micros()]
}

fn term([incarnation, epoch, fence_at, kill_at, ends_at]: [u64; 5]) -> Term {
    let [fence_at, kill_at, ends_at] = [fence_at, kill_at, ends_at].map(Instant::from_micros);
    Term { incarnation, epoch, fence_at, kill_at, ends_at }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant as Clock};

    use super::*;

    fn term(incarnation: u64, from: u64) -> Term {
        let [fence_at, kill_at, ends_at] = [700, 860, 900].map(|after| Instant::from_millis(from + after));
        Term { incarnation, epoch: 7, fence_at, kill_at, ends_at }
    }

    #[test]
    fn what_one_writes_the_other_reads_by_its_own_mapping() {
        let page = Page::new().unwrap();
        let other = Page::of(page.memory().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!((other.lease(), other.doors()), (None, Doors::Closed));
        page.set_lease(Some(term(1, 100)));
        assert_eq!((other.lease(), other.doors()), (Some(term(1, 100)), Doors::Closed));
        page.set_doors(Doors::Open(term(1, 0)));
        assert_eq!(other.doors(), Doors::Open(term(1, 100)), "the later one counts");
        page.set_doors(Doors::Open(term(1, 200)));
        assert_eq!(other.doors(), Doors::Open(term(1, 200)));
        page.set_doors(Doors::Open(term(2, 0)));
        assert_eq!(other.doors(), Doors::Open(term(2, 0)), "the lease is another one's");
        page.set_lease(None);
        assert_eq!((other.lease(), other.doors()), (None, Doors::Open(term(2, 0))));
        page.set_doors(Doors::Closed);
        assert_eq!(other.doors(), Doors::Closed);
    }

    /// Two write as fast as they can, as the link and the fence do, and the guard reads by a mapping of its own.
    #[test]
    fn whoever_reads_while_others_write_sees_whole_terms_that_never_go_back() {
        let page = Arc::new(Page::new().unwrap());
        let guard = Page::of(page.memory().try_clone_to_owned().unwrap()).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let writing = [false, true].map(|doors| {
            let (page, done) = (Arc::clone(&page), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut from = 0;
                while !done.load(Ordering::Relaxed) {
                    from += 1;
                    if doors {
                        page.set_doors(Doors::Open(term(1, from)));
                    } else {
                        page.set_lease(Some(term(1, from)));
                    }
                }
                from
            })
        });
        let (mut last, mut reads) = (0, 0);
        let end = Clock::now() + Duration::from_millis(300);
        while Clock::now() < end {
            if let Some(leased) = guard.lease() {
                assert_eq!(leased, term(1, leased.ends_at.as_micros() / 1_000 - 900));
            }
            if let Doors::Open(open) = guard.doors() {
                let from = open.ends_at.as_micros() / 1_000 - 900;
                assert_eq!(open, term(1, from));
                assert!(from >= last);
                last = from;
            }
            reads += 1;
        }
        done.store(true, Ordering::Relaxed);
        println!("{reads} reads beside {:?} writes", writing.map(|writer| writer.join().unwrap()));
    }

    #[test]
    fn nobody_can_cut_it_short() {
        let page = Page::new().unwrap();
        assert!(ftruncate(page.memory(), 0).is_err());
        let short = memfd_create(c"short", MFdFlags::MFD_CLOEXEC).unwrap();
        assert!(Page::of(short).is_err());
    }
}
