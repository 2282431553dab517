//! The hardware watchdog of a box: a timer that restarts the machine unless it is petted. The guard pets it, and only on the
//! word of its worker: the worker speaks to the guard as it would to a service manager (`sd_notify(3)`), and says
//! `WATCHDOG=1` only while its event loop, the threads of VRRP and of the peer link, and its own control socket answer.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::private;

/// Without a pet for so long the machine is restarted, seconds. Longer than a worker takes to be killed and started.
const TIMEOUT: libc::c_int = 20;
/// How often the worker has to speak, at least; told to it in `WATCHDOG_USEC`.
pub(super) const SPEAK_WITHIN: Duration = Duration::from_secs(4);
/// Name of the socket in the runtime directory.
const SOCKET_NAME: &str = "notify.sock";
/// More than one of the worker's datagrams is never long.
const DATAGRAM_MAX: usize = 512;

mod ioctl {
    // <linux/watchdog.h>
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
}

/// A hardware watchdog that runs, and the socket on which a worker says that it lives.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    socket: UnixDatagram,
    path: PathBuf,
}

impl Watchdog {
    /// Starts the watchdog at `device` (`watchdog(4)`: opening it does) and listens in `runtime_dir`.
    #[expect(unsafe_code, reason = "the time-out of a watchdog is set by an ioctl")]
    pub fn open(device: &Path, runtime_dir: &Path) -> io::Result<Self> {
        let named =
            |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if env::var_os("NOTIFY_SOCKET").is_some() {
            return Err(io::Error::other("the service manager is told already (NOTIFY_SOCKET): it keeps the watchdog"));
        }
        private::directory(runtime_dir).map_err(|error| named(runtime_dir, error))?;
        let path = runtime_dir.join(SOCKET_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&path, error)),
            Ok(()) | Err(_) => {}
        }
        let socket = UnixDatagram::bind(&path).map_err(|error| named(&path, error))?;
        socket.set_nonblocking(true)?;
        let opened = OpenOptions::new().write(true).open(device).map_err(|error| named(device, error))?;
        let mut timeout = TIMEOUT;
        // SAFETY: the descriptor is open, and the kernel writes one integer to the integer that is handed over.
        if let Err(errno) = unsafe { ioctl::set_timeout(opened.as_raw_fd(), &raw mut timeout) } {
            tracing::warn!("{}: its time-out cannot be set to {TIMEOUT} s: {errno}", device.display());
        }
        Ok(Self { device: opened, socket, path })
    }

    /// What a worker needs to know, in its environment.
    pub(super) fn environment(&self) -> [(OsString, OsString); 2] {
        let within = SPEAK_WITHIN.as_micros().to_string();
        [("NOTIFY_SOCKET".into(), self.path.clone().into()), ("WATCHDOG_USEC".into(), within.into())]
    }

    /// Becomes readable when the worker speaks.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes in what the worker has said. Whether it said that it lives: then the watchdog is petted.
    pub(super) fn listen(&self) -> bool {
        let mut lives = false;
        let mut datagram = [0; DATAGRAM_MAX];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            lives |= datagram[..length].split(|byte| *byte == b'\n').any(|line| line == b"WATCHDOG=1");
        }
        if lives {
            self.write(b"\0");
        }
        lives
    }

    /// Stops the watchdog, where the driver lets itself be stopped: the node leaves because it was told to.
    pub(super) fn disarm(&self) {
        self.write(b"V");
    }

    fn write(&self, word: &[u8]) {
        if let Err(error) = (&self.device).write_all(word) {
            tracing::warn!("the hardware watchdog takes nothing: {error}");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Somebody may have tidied up already.
        let _ = std::fs::remove_file(&self.path);
    }
}
