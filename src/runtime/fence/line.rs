//! The fence's own connection to redis. It waits for nothing and allocates nothing: what is sent and what comes back has a
//! known size.

use std::fmt::Write;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::base::secret::LOCAL_USER;
use crate::cores::redis::fence::{By, Command, MAX_LAG, OUT_OF_REACH, Outcome};

/// Bytes of the longest command: the log-in, with its password.
const COMMAND_MAX: usize = 512;
/// Bytes of the longest line that redis answers with.
const LINE_MAX: usize = 1_024;
/// Commands without an answer, at most: a proof, an open, a close, a ping, and a few more closes that were asked for.
const OWED_MAX: usize = 8;

/// What is heard on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Redis knows who is there.
    Connected,
    /// The answer to a command.
    Reply {
        /// Its number.
        number: u32,
        /// What redis says.
        outcome: Outcome,
    },
    /// It is of no more use.
    Broken,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Whole,
    InPart,
    Nothing,
}

/// The connection, or none.
#[derive(Debug, Default)]
pub(super) struct Line(Option<Open>);

#[derive(Debug)]
struct Open {
    socket: Socket,
    /// Not connected yet; the log-in leaves then.
    login: Option<Text>,
    /// Read, and not a whole line yet.
    read: [u8; LINE_MAX],
    filled: usize,
    owed: heapless::Deque<Owed, OWED_MAX>,
}

type Text = heapless::Vec<u8, COMMAND_MAX>;

/// What is still to come for a command.
#[derive(Clone, Copy, Debug)]
enum Owed {
    /// So many `+OK`.
    Login(u8),
    Close(u32),
    Ping(u32),
    Open(u32, Transaction),
}

/// How far the answers to a transaction of `orders` commands have come.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    /// Lines before that of EXEC: of MULTI, and of each command.
    before: u8,
    orders: u8,
    /// MULTI was taken: what follows was not carried out on its own.
    begun: bool,
    /// All was as it should be so far.
    clean: bool,
    /// Lines that EXEC has told of.
    results: Option<u8>,
}

impl Line {
    /// Begins to connect, and logs in.
    pub(super) fn connect(&mut self, address: SocketAddr, password: &str) -> io::Result<()> {
        self.0 = None;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let mut login = Text::new();
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        words(&mut login, &["AUTH", LOCAL_USER, password]).map_err(too_long)?;
        words(&mut login, &["CLIENT", "SETNAME", "vigie-fence"]).map_err(too_long)?;
        let owed = heapless::Deque::new();
        self.0 = Some(Open { socket, login: Some(login), read: [0; LINE_MAX], filled: 0, owed });
        Ok(())
    }

    /// Ends the connection.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let open = self.0.as_ref()?;
        let flags = if open.login.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN };
        Some((open.socket.as_fd(), flags))
    }

    /// Sends a command. If that fails the line is of no more use.
    pub(super) fn send(&mut self, number: u32, command: Command) -> Sent {
        let Some(open) = &mut self.0 else { return Sent::Nothing };
        let mut text = Text::new();
        let (written, owed) = match command {
            Command::Open { by, setting } => {
                let promote = by == By::Lease;
                let orders = 1 + u8::from(promote);
                let transaction = Transaction { before: 1 + orders, orders, begun: false, clean: true, results: None };
                let written = words(&mut text, &["MULTI"])
                    .and_then(|()| if promote { words(&mut text, &["REPLICAOF", "NO", "ONE"]) } else { Ok(()) })
                    .and_then(|()| set(&mut text, setting.min_replicas(), setting.max_lag()))
                    .and_then(|()| words(&mut text, &["EXEC"]));
                (written, Owed::Open(number, transaction))
            }
            // Both: an operator's own lag is not to outlast the opening.
            Command::Close => (set(&mut text, OUT_OF_REACH, MAX_LAG), Owed::Close(number)),
            Command::Ping => (words(&mut text, &["PING"]), Owed::Ping(number)),
        };
        if written.is_err() || open.owed.push_back(owed).is_err() {
            return self.lose(Sent::Nothing);
        }
        match open.socket.send(&text) {
            Ok(sent) if sent == text.len() => Sent::Whole,
            Ok(_) => self.lose(Sent::InPart),
            Err(_) => self.lose(Sent::Nothing),
        }
    }

    fn lose(&mut self, sent: Sent) -> Sent {
        self.0 = None;
        sent
    }

    /// The next thing that can be heard, if there is one.
    pub(super) fn hear(&mut self) -> Option<Heard> {
        match self.0.as_mut()?.hear() {
            Ok(heard) => heard,
            Err(_) => {
                self.0 = None;
                Some(Heard::Broken)
            }
        }
    }
}

impl Open {
    fn hear(&mut self) -> io::Result<Option<Heard>> {
        if let Some(login) = &self.login {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            match self.socket.send(login) {
                Ok(sent) if sent == login.len() => {}
                // Not connected yet.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOTCONN)) => return Ok(None),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) => return Err(error),
            }
            self.login = None;
            let _ = self.owed.push_back(Owed::Login(2));
        }
        loop {
            while let Some(end) = self.read[..self.filled].iter().position(|byte| *byte == b'\n') {
                let heard = take(&mut self.owed, self.read[..end].trim_ascii_end())?;
                self.read.copy_within(end + 1..self.filled, 0);
                self.filled -= end + 1;
                if heard.is_some() {
                    return Ok(heard);
                }
            }
            match (&self.socket).read(&mut self.read[self.filled..]) {
                // Also a line that does not end.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a line comes to, if it completes an answer. Anything but what may be said at that place is an error.
fn take(owed: &mut heapless::Deque<Owed, OWED_MAX>, line: &[u8]) -> io::Result<Option<Heard>> {
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let outcome = match line {
        b"+OK" | b"+PONG" => Outcome::Done,
        _ => Outcome::Nothing,
    };
    let heard = match owed.front_mut().ok_or_else(strange)? {
        Owed::Login(_) if line != b"+OK" => return Err(io::ErrorKind::PermissionDenied.into()),
        Owed::Login(left) => {
            *left -= 1;
            (*left == 0).then_some(Heard::Connected)
        }
        Owed::Close(number) | Owed::Ping(number) => Some(Heard::Reply { number: *number, outcome }),
        Owed::Open(number, transaction) => {
            transaction.take(line).ok_or_else(strange)?.map(|outcome| Heard::Reply { number: *number, outcome })
        }
    };
    if heard.is_some() {
        owed.pop_front();
    }
    Ok(heard)
}

impl Transaction {
    /// Some(Some): it is through. None: no answer to a transaction.
    fn take(&mut self, line: &[u8]) -> Option<Option<Outcome>> {
        if let Some(left) = &mut self.results {
            self.clean &= line == b"+OK";
            *left -= 1;
            return Some((*left == 0).then(|| self.whole()));
        }
        if self.before > 0 {
            let first = self.before == 1 + self.orders;
            let taken = line == if first { b"+OK".as_slice() } else { b"+QUEUED" };
            self.begun |= first && taken;
            self.clean &= taken;
            self.before -= 1;
            return Some(None);
        }
        if line.starts_with(b"-") {
            // Of what was queued nothing was carried out. What was not queued may have been.
            let nothing = self.begun && line.starts_with(b"-EXECABORT");
            return Some(Some(if nothing { Outcome::Nothing } else { Outcome::Unknown }));
        }
        let results: u8 = std::str::from_utf8(line.strip_prefix(b"*")?).ok()?.parse().ok()?;
        self.clean &= results == self.orders;
        self.results = Some(results);
        Some((results == 0).then_some(Outcome::Unknown))
    }

    fn whole(&self) -> Outcome {
        if self.clean { Outcome::Done } else { Outcome::Unknown }
    }
}

/// In one command, so that none of the two holds without the other.
fn set(text: &mut Text, min_replicas: u32, max_lag: u32) -> std::fmt::Result {
    let mut numbers: [heapless::String<10>; 2] = Default::default();
    write!(numbers[0], "{min_replicas}")?;
    write!(numbers[1], "{max_lag}")?;
    words(text, &["CONFIG", "SET", "min-replicas-to-write", &numbers[0], "min-replicas-max-lag", &numbers[1]])
}

/// Appends a command in RESP.
fn words(text: &mut Text, words: &[&str]) -> std::fmt::Result {
    write!(text, "*{}\r\n", words.len())?;
    words.iter().try_for_each(|word| write!(text, "${}\r\n{word}\r\n", word.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: Transaction = Transaction { before: 3, orders: 2, begun: false, clean: true, results: None };

    /// What the lines of the answer to an open come to.
    fn opened(lines: &[&str]) -> io::Result<Option<Heard>> {
        let mut owed = heapless::Deque::new();
        owed.push_back(Owed::Open(7, TRANSACTION)).unwrap();
        let (last, before) = lines.split_last().unwrap();
        for line in before {
            assert_eq!(take(&mut owed, line.as_bytes()).unwrap(), None);
        }
        take(&mut owed, last.as_bytes())
    }

    #[test]
    fn what_redis_says_to_an_open_tells_whether_anything_of_it_was_carried_out() {
        let outcome = |lines: &[&str]| match opened(lines).unwrap() {
            Some(Heard::Reply { number: 7, outcome }) => outcome,
            other => panic!("{other:?}"),
        };
        assert_eq!(outcome(&["+OK", "+QUEUED", "+QUEUED", "*2", "+OK", "+OK"]), Outcome::Done);
        let aborted = "-EXECABORT Transaction discarded because of previous errors.";
        assert_eq!(outcome(&["+OK", "-BUSY", "-BUSY", aborted]), Outcome::Nothing);
        assert_eq!(outcome(&["+OK", "+QUEUED", "-NOPERM", aborted]), Outcome::Nothing);
        for part in [
            &["+OK", "+QUEUED", "+QUEUED", "*2", "+OK", "-ERR"][..],
            &["+OK", "+QUEUED", "+QUEUED", "*2", "-ERR", "+OK"],
            &["+OK", "+QUEUED", "+QUEUED", "*1", "+OK"],
            &["+OK", "+QUEUED", "+QUEUED", "*0"],
            &["+OK", "+OK", "+QUEUED", "*2", "+OK", "+OK"],
            // Without a transaction each is carried out on its own.
            &["-NOPERM", "+OK", "+OK", "-ERR EXEC without MULTI"],
            &["-NOPERM", "+OK", "+OK", aborted],
        ] {
            assert_eq!(outcome(part), Outcome::Unknown, "{part:?}");
        }
        for strange in ["+OK", "*-1", "*x", "*300", ""] {
            assert!(opened(&["+OK", "+QUEUED", "+QUEUED", strange]).is_err(), "{strange}");
        }
    }

    #[test]
    fn answers_belong_to_commands_in_their_order() {
        let mut owed = heapless::Deque::new();
        for one in [Owed::Login(2), Owed::Close(1), Owed::Ping(2), Owed::Close(3)] {
            owed.push_back(one).unwrap();
        }
        let mut heard = |line: &str| take(&mut owed, line.as_bytes());
        assert_eq!(heard("+OK").unwrap(), None);
        assert_eq!(heard("+OK").unwrap(), Some(Heard::Connected));
        assert_eq!(heard("-BUSY x").unwrap(), Some(Heard::Reply { number: 1, outcome: Outcome::Nothing }));
        assert_eq!(heard("+PONG").unwrap(), Some(Heard::Reply { number: 2, outcome: Outcome::Done }));
        assert_eq!(heard("+OK").unwrap(), Some(Heard::Reply { number: 3, outcome: Outcome::Done }));
        assert!(heard("+OK").is_err(), "nobody asked");
        owed.push_back(Owed::Login(2)).unwrap();
        assert!(take(&mut owed, b"-WRONGPASS").is_err());
    }

    #[test]
    fn every_command_fits() {
        let mut text = Text::new();
        words(&mut text, &["AUTH", LOCAL_USER, &"f".repeat(64)]).unwrap();
        words(&mut text, &["CLIENT", "SETNAME", "vigie-fence"]).unwrap();
        let mut text = Text::new();
        words(&mut text, &["MULTI"]).unwrap();
        words(&mut text, &["REPLICAOF", "NO", "ONE"]).unwrap();
        set(&mut text, u32::MAX, u32::MAX).unwrap();
        words(&mut text, &["EXEC"]).unwrap();
        let sent = String::from_utf8(text.to_vec()).unwrap();
        assert!(
            sent.contains("*6\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$21\r\nmin-replicas-to-write\r\n$10\r\n4294967295\r\n")
        );
    }
}
