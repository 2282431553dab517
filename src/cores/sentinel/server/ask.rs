//! What a command has to know and only the process can tell.

use std::net::SocketAddr;
use std::time::Duration;

/// Both ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// Where the client is.
    pub peer: SocketAddr,
    /// Where it was accepted.
    pub local: SocketAddr,
    /// The descriptor, for `CLIENT LIST`.
    pub fd: i32,
}

impl Sockets {
    /// The same, with IPv4 addresses as such where the socket has them inside of IPv6.
    #[must_use]
    pub fn canonical(self) -> Self {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { peer: plain(self.peer), local: plain(self.local), fd: self.fd }
    }
}

/// Asked on behalf of a client's command, which waits for the fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What the process uses.
    Usage,
    /// So many random bytes, fit for a password, 1 to 512.
    Random(usize),
    /// The text of the ACL file.
    LoadUsers,
    /// Writes this text to the ACL file.
    SaveUsers(String),
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// To [`Question::Usage`].
    Usage(Box<Usage>),
    /// To [`Question::Random`].
    Random(Vec<u8>),
    /// To [`Question::LoadUsers`]; why not, in words.
    Users(Result<String, String>),
    /// To [`Question::SaveUsers`]; why not, in words.
    Saved(Result<(), String>),
}

/// What the process is and uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Name, release and machine of the system.
    pub os: String,
    /// Id of the process.
    pub pid: u32,
    /// Path of the program.
    pub executable: String,
    /// Path of the configuration file; empty: none.
    pub config_file: String,
    /// Time of the wall clock, since 1970.
    pub wall: Duration,
    /// CPU time in the kernel and outside of it.
    pub cpu: (Duration, Duration),
    /// The same of children that have ended.
    pub cpu_children: (Duration, Duration),
    /// The same of the thread that decides.
    pub cpu_thread: (Duration, Duration),
    /// The port for clients.
    pub port: u16,
    /// Clients that may be connected at once.
    pub clients_max: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused for their number.
    pub rejected: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
}
