//! What a redis has acknowledged by its lease must not arrive after the lease: another master may have taken over by then, without
//! these writes. Of an answer that a lost cable keeps back, the kernel tries again and again to deliver it. So a redis that is
//! fenced since its lease ran out loses the connections over which nothing arrives, and the answers with them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::runtime::clock;
use crate::runtime::journal::{Journal, Level};
use crate::wire::inet_diag::{self, Connection, Family, Message, REQUEST_LEN};

/// As in the journal: what becomes of the connections of redis is news of redis.
const SOURCE: &str = "redis";
/// What was sent last before the fence is sent again at the latest within this time, on most networks.
const NEW: Duration = Duration::from_secs(1);
/// Between two looks meanwhile, and after that.
const EARLY: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_secs(1);
/// The kernel answers at once.
const ANSWER_SECONDS: i64 = 1;
/// The kernel writes datagrams of no more than that.
const DATAGRAM_MAX: usize = 32 * 1024;

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    ended: usize,
    /// With something undelivered that the peer may still acknowledge.
    open: usize,
}

/// Looks, from some time after `lapsed` was set to true, after the connections to `port` until none has anything undelivered, or it is
/// set to false.
pub(super) async fn run(port: u16, mut lapsed: watch::Receiver<bool>, journal: Journal) {
    let mut refused = false;
    let mut since = clock::now();
    let mut looks = *lapsed.borrow_and_update();
    loop {
        let pause = if clock::now().since(since) < NEW { EARLY } else { LATER };
        let changed = tokio::select! {
            changed = lapsed.changed() => changed,
            // Never at once: the list takes the kernel a millisecond or more, in which a failover has better use for the processor,
            // and nothing is sent again that early.
            () = sleep(pause), if looks => {
                let looked = spawn_blocking(move || look(port)).await;
                let looked = looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                looks = looked.as_ref().is_ok_and(|look| look.open > 0);
                match looked {
                    Ok(look) => tell(look.ended, &journal),
                    Err(error) if !refused => {
                        refused = true;
                        let text = format!(
                            "this kernel does not end connections whose last answers were not delivered ({error}): a client that \
                             was cut off together with this node may be told of a write after another master has taken over \
                             without it"
                        );
                        journal.record(SOURCE, Level::Warn, "undelivered", text);
                    }
                    Err(_) => {}
                }
                continue;
            }
        };
        if changed.is_err() {
            // Everything that could say so has ended.
            return std::future::pending().await;
        }
        looks = *lapsed.borrow_and_update();
        since = clock::now();
    }
}

fn tell(ended: usize, journal: &Journal) {
    if ended > 0 {
        let text = format!(
            "connections ended, since answers of redis were not delivered over them and another master may have taken \
             over: {ended}"
        );
        journal.record(SOURCE, Level::Warn, "undelivered", text);
    }
}

/// Ends the connections to `port` over which nothing arrives. Blocks no longer than the kernel takes for its list.
fn look(port: u16) -> io::Result<Look> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
    let mut look = Look { ended: 0, open: 0 };
    for family in [Family::V4, Family::V6] {
        for connection in listed(&socket, family, port)? {
            if connection.retries == 0 {
                look.open += 1;
            } else if ended(&socket, &connection)? {
                look.ended += 1;
            }
        }
    }
    Ok(look)
}

/// The connections that have something undelivered.
fn listed(socket: &OwnedFd, family: Family, port: u16) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    ask(socket, &inet_diag::list(family, port), |message| match message {
        Message::Connection(connection) => {
            connections.extend(Some(connection).filter(|connection| connection.undelivered > 0));
            None
        }
        Message::Done => Some(Ok(())),
        // A kernel without IPv6 has no such connections.
        Message::Refused(libc::ENOENT) if family == Family::V6 => Some(Ok(())),
        Message::Refused(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
        Message::Acknowledged | Message::Other => None,
    })?;
    Ok(connections)
}

/// Whether it was there to be ended.
fn ended(socket: &OwnedFd, connection: &Connection) -> io::Result<bool> {
    ask(socket, &inet_diag::end(connection), |message| match message {
        Message::Acknowledged => Some(Ok(true)),
        Message::Refused(libc::ENOENT) => Some(Ok(false)),
        Message::Refused(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
        Message::Connection(_) | Message::Done | Message::Other => None,
    })
}

/// Sends a request and reads until the answer to it has come.
fn ask<T>(
    socket: &OwnedFd,
    request: &[u8; REQUEST_LEN],
    mut answer: impl FnMut(Message) -> Option<io::Result<T>>,
) -> io::Result<T> {
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        for message in inet_diag::messages(&datagram[..length]) {
            if let Some(answer) = answer(message) {
                return answer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    /// Writes to a peer that reads nothing until nothing more goes out.
    fn fill(stream: &mut TcpStream) -> usize {
        stream.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(bytes) = stream.write(&[7; 65_536]) {
            written += bytes;
        }
        written
    }

    #[test]
    fn a_connection_over_which_nothing_arrives_is_ended_and_another_one_is_not() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root can end a connection");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let [mut stuck, mut well] = [(); 2].map(|()| {
            let client = TcpStream::connect(address).unwrap();
            (client, listener.accept().unwrap().0)
        });
        let written = fill(&mut stuck.1);
        assert_eq!(well.1.write(b"here").unwrap(), 4);
        let began = Instant::now();
        let mut looks = Vec::new();
        loop {
            looks.push(look(address.port()).unwrap());
            if looks.last().is_some_and(|look| look.ended == 1) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{looks:?}");
            std::thread::sleep(EARLY);
        }
        assert_eq!(look(address.port()).unwrap(), Look { ended: 0, open: 0 });
        let mut got = [0; 4];
        well.0.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"here");
        let mut rest = Vec::new();
        assert_eq!(stuck.0.read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(rest.len() < written, "{} of {written} bytes have arrived", rest.len());
    }
}
