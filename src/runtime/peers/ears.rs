//! All that the link is told, by this node and by others, in the order of its weight. Nothing stands between the socket and the
//! machine: no datagram lies unread when a node is found silent.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendto, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use crate::base::{Credentials, Instant, Purpose};
use crate::cores::cluster::{Input, Part};
use crate::runtime::clock;
use crate::runtime::drive::Inputs;
use crate::wire::frame::{FRAME_MAX, Keys};

/// What waits in the socket of a thread that is starved, at most, bytes: the newest datagrams are those that no longer fit, and only
/// they tell that their senders are there. Of a hundred nodes, the frames of a second fit.
const SOCKET_BUFFER: usize = 2 << 20;
/// One byte more than the longest frame, so that a longer one is seen to be too long.
const DATAGRAM_MAX: usize = FRAME_MAX + 1;
/// After so many datagrams without an end, the others on this host get a turn: a flood must not keep a processor from all that is
/// not real-time. More than all nodes send within [`FLOOD_PAUSE`].
const FLOOD: usize = 256;
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

/// Opens the socket of the link, whose datagrams the kernel dates: those of the first moments only when they are read.
pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    // Without the right to, as much as anybody may have.
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER))?;
    Ok(socket)
}

/// Sends a datagram, or drops it: by the socket, not by what tokio last heard of it, which is nothing before it has waited once.
pub(super) fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
    sendto(socket.as_raw_fd(), bytes, &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// What the link is told.
#[derive(Debug)]
pub(super) struct Ears {
    posted: mpsc::Receiver<Part>,
    asked: mpsc::Receiver<usize>,
    credentials: watch::Receiver<Arc<Credentials>>,
    stop: watch::Receiver<bool>,
    socket: Arc<UdpSocket>,
    letters: Letters,
}

impl Ears {
    pub(super) fn new(
        (posted, asked): (mpsc::Receiver<Part>, mpsc::Receiver<usize>),
        credentials: watch::Receiver<Arc<Credentials>>,
        stop: watch::Receiver<bool>,
        (socket, bound_at): (Arc<UdpSocket>, Instant),
    ) -> Self {
        Self { posted, asked, credentials, stop, socket, letters: Letters::new(bound_at) }
    }
}

fn keys(credentials: &mut watch::Receiver<Arc<Credentials>>) -> Input {
    let credentials = credentials.borrow_and_update().clone();
    Input::Keys(Keys::new(&credentials.own(Purpose::Link)))
}

impl Inputs<Input> for Ears {
    /// Ends at the stop, after what was posted before it.
    async fn next(&mut self) -> Option<Input> {
        if self.letters.is_flooded() {
            tokio::time::sleep(FLOOD_PAUSE).await;
        }
        loop {
            tokio::select! {
                biased;
                Some(part) = self.posted.recv() => return Some(Input::Part(part)),
                Some(place) = self.asked.recv() => return Some(Input::Prove(place)),
                Ok(()) = self.credentials.changed() => return Some(keys(&mut self.credentials)),
                _ = self.stop.wait_for(|stop| *stop) => return None,
                _ = self.socket.readable() => {}
            }
            let Self { socket, letters, .. } = &mut *self;
            // An error is about an earlier datagram of ours that nobody took (ICMP): the next one may be taken.
            if let Ok(input) = socket.try_io(Interest::READABLE, || letters.receive(socket)) {
                return Some(input);
            }
        }
    }

    fn waiting(&mut self) -> Option<Input> {
        if let Ok(part) = self.posted.try_recv() {
            return Some(Input::Part(part));
        }
        if let Ok(place) = self.asked.try_recv() {
            return Some(Input::Prove(place));
        }
        if self.credentials.has_changed().unwrap_or(false) {
            return Some(keys(&mut self.credentials));
        }
        loop {
            match self.letters.receive(&self.socket) {
                Ok(input) => return Some(input),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // About an earlier datagram of ours, as above.
                Err(_) => {}
            }
        }
    }

    /// Nobody reads for it: all that waits is seen at once.
    async fn gather(&mut self) {}
}

/// Reads datagrams with their dates.
#[derive(Debug)]
struct Letters {
    data: Box<[u8; DATAGRAM_MAX]>,
    /// What the kernel says beside a datagram.
    beside: Vec<u8>,
    /// When the socket was last known to be empty.
    empty_at: Instant,
    /// So many were read since.
    since_empty: usize,
}

impl Letters {
    fn new(empty_at: Instant) -> Self {
        let beside = nix::cmsg_space!(libc::timespec);
        Self { data: Box::new([0; DATAGRAM_MAX]), beside, empty_at, since_empty: 0 }
    }

    /// The next datagram that waits, by the socket and not by what tokio last heard of it; [`io::ErrorKind::WouldBlock`] if none does.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<Input> {
        // Before the call: what comes during it came after the socket was empty.
        let now = clock::now();
        let mut data = [IoSliceMut::new(self.data.as_mut_slice())];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut data, Some(&mut self.beside), flags) {
            Ok(message) => message,
            Err(errno) => {
                if errno == Errno::EAGAIN {
                    (self.empty_at, self.since_empty) = (now, 0);
                }
                return Err(errno.into());
            }
        };
        self.since_empty += 1;
        let from = message.address.as_ref().and_then(sender).ok_or(io::ErrorKind::InvalidData)?;
        let mut dated = None;
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmTimestampns(date) = control {
                dated = Some(date.into());
            }
        }
        let at = clock::received(now, self.empty_at, dated);
        let length = message.bytes;
        Ok(Input::Datagram { from, at, bytes: self.data[..length].into() })
    }

    /// Whether datagrams come faster than they are read. Said once, then it is counted from the start.
    fn is_flooded(&mut self) -> bool {
        let flooded = self.since_empty >= FLOOD;
        if flooded {
            self.since_empty = 0;
        }
        flooded
    }
}

fn sender(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_are_dated_by_their_arrival_and_a_flood_is_seen() {
        const LAY: Duration = Duration::from_millis(100);
        let socket = UdpSocket::from_std(bind(([127, 0, 0, 1], 0).into()).unwrap()).unwrap();
        let mut letters = Letters::new(clock::now());
        assert_eq!(letters.receive(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let deadline = clock::now() + Duration::from_secs(10);
        // The kernel begins to date a moment after the first socket of the host has asked for it.
        loop {
            sender.send_to(&[], to).unwrap();
            let read = clock::now() + LAY / 10;
            clock::sleep_until(Some(read)).await;
            if matches!(letters.receive(&socket).unwrap(), Input::Datagram { at, .. } if at < read) {
                break;
            }
            assert!(clock::now() < deadline, "no datagram is dated before it is read");
        }
        assert_eq!(letters.receive(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let begun = clock::now();
        for n in 0..FLOOD {
            sender.send_to(&n.to_le_bytes(), to).unwrap();
        }
        let done = clock::now();
        clock::sleep_until(Some(done + LAY)).await;
        let mut last = Instant::START;
        for n in 0..FLOOD {
            assert!(!letters.is_flooded());
            let input = letters.receive(&socket).unwrap();
            let Input::Datagram { from, at, bytes } = input else { panic!("{input:?}") };
            assert_eq!((from, &bytes[..]), (sender.local_addr().unwrap(), &n.to_le_bytes()[..]));
            // Two clocks are not read in one moment.
            assert!(begun <= at + LAY / 2 && at <= done && last <= at + LAY / 2, "{begun} {last} {at} {done}");
            last = at;
        }
        assert!(letters.is_flooded());
        assert!(!letters.is_flooded());
        assert_eq!(letters.receive(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
