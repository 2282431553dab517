//! The page of another process, looked into from outside: a lab sees each renewal there, of which people are told the worst one only.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::page::{self, Page};
use crate::cores::redis::fence::{Doors, Term};

/// What the link and the fence of a worker write for its guard.
#[derive(Debug)]
pub struct Window(Page);

impl Window {
    /// That of a worker, or of its guard. Who may trace the process may do this.
    pub fn of(process: i32) -> io::Result<Self> {
        for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
            if let Some(window) = Self::at(&entry?.path())? {
                return Ok(window);
            }
        }
        Err(io::Error::other(format!("process {process} has no page of a fence")))
    }

    /// None: the descriptor is of something else, or was closed meanwhile.
    fn at(descriptor: &Path) -> io::Result<Option<Self>> {
        if !fs::read_link(descriptor).is_ok_and(|target| target.to_string_lossy().contains(page::NAME)) {
            return Ok(None);
        }
        // It is mapped in the one way in which those who write it do.
        let file = OpenOptions::new().read(true).write(true).open(descriptor)?;
        Page::of(file.into()).map(|page| Some(Self(page)))
    }

    /// How long the lease lasts.
    pub fn lease(&self) -> Option<Term> {
        self.0.lease()
    }

    /// Whether redis may be open, and until when at the latest.
    pub fn doors(&self) -> Doors {
        self.0.doors()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::base::Instant;

    #[test]
    fn what_a_process_writes_is_seen_by_its_descriptor() {
        let page = Page::new().unwrap();
        let at = |number: i32| Window::at(Path::new(&format!("/proc/self/fd/{number}")));
        let window = at(page.memory().as_raw_fd()).unwrap().unwrap();
        assert_eq!((window.lease(), window.doors()), (None, Doors::Closed));
        let [fence_at, kill_at, ends_at] = [700, 860, 900].map(Instant::from_millis);
        let term = Term { incarnation: 1, epoch: 7, fence_at, kill_at, ends_at };
        page.set_lease(Some(term));
        assert_eq!((window.lease(), window.doors()), (Some(term), Doors::Closed));
        page.set_doors(Doors::Open(term));
        assert_eq!(window.doors(), Doors::Open(term));
        let other = fs::File::open("/dev/null").unwrap();
        assert!(at(other.as_raw_fd()).unwrap().is_none());
        assert!(Window::of(i32::try_from(std::process::id()).unwrap()).is_ok());
        assert!(Window::of(i32::MAX).is_err());
    }
}
