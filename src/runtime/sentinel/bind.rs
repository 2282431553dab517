//! The listening sockets of a Sentinel that has its addresses from a `sentinel.conf`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::sentinel::Process;

/// No socket to listen on, in the words of redis-sentinel.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address that must be there cannot be had.
    #[error(
        "Could not create server TCP listening socket {address}:{port}: {action}: {source}. \
         Failed listening on port {port} (TCP), aborting."
    )]
    Address {
        /// As the file has it.
        address: String,
        /// The port.
        port: u16,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is no address at all.
    #[error("Configured to not listen anywhere, exiting.")]
    Nowhere,
}

/// Listens on all addresses of `bind`. Those with a leading `-` may be missing on this host; a family that the kernel
/// does not have is left out. The sockets do not block.
pub fn listen(process: &Process) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    for word in &process.bind {
        let optional = word.strip_prefix('-');
        let address = optional.unwrap_or(word);
        match bound(address, process.port, process.backlog) {
            Ok(listener) => listeners.push(listener),
            Err((_, error)) if no_such_family(&error) => {}
            Err((_, error)) if optional.is_some() && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
            Err((action, source)) => {
                let (address, port) = (address.to_owned(), process.port);
                return Err(ListenError::Address { address, port, action, source });
            }
        }
    }
    if listeners.is_empty() { Err(ListenError::Nowhere) } else { Ok(listeners) }
}

fn no_such_family(error: &io::Error) -> bool {
    let families =
        [libc::EAFNOSUPPORT, libc::EPFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT, libc::ENOPROTOOPT];
    error.raw_os_error().is_some_and(|errno| families.contains(&errno))
}

fn bound(address: &str, port: u16, backlog: u32) -> Result<TcpListener, (&'static str, io::Error)> {
    let step = |action| move |error: io::Error| (action, error);
    let at: SocketAddr = match address {
        "*" => (Ipv4Addr::UNSPECIFIED, port).into(),
        "::*" => (Ipv6Addr::UNSPECIFIED, port).into(),
        name => {
            let mut found = (name, port).to_socket_addrs().map_err(step("resolve"))?;
            found.next().ok_or_else(|| ("resolve", io::Error::other("no address")))?
        }
    };
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).map_err(step("socket"))?;
    if at.is_ipv6() {
        // The other family has a socket of its own.
        socket.set_only_v6(true).map_err(step("setsockopt"))?;
    }
    // A Sentinel that is started again gets its port at once.
    socket.set_reuse_address(true).map_err(step("setsockopt"))?;
    socket.set_nonblocking(true).map_err(step("fcntl"))?;
    socket.bind(&at.into()).map_err(step("bind"))?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(step("listen"))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::sentinel::{Additions, Document, ThisHost};

    fn process(text: &str) -> Process {
        let parsed =
            Document::parse(Path::new("/x"), text.as_bytes(), &Additions::default(), Path::new("/"), &ThisHost);
        parsed.unwrap().1
    }

    #[test]
    fn a_missing_address_matters_unless_it_may_be_missing() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listeners = listen(&process(&format!("port {free}\nbind 127.0.0.1 -203.0.113.77"))).unwrap();
        assert_eq!(listeners.len(), 1);
        let error = listen(&process(&format!("port {free}\nbind 203.0.113.77"))).unwrap_err().to_string();
        assert!(error.contains("socket 203.0.113.77:") && error.contains("bind: Cannot assign"), "{error}");
        let error = listen(&process(&format!("port {free}\nbind 127.0.0.1"))).unwrap_err().to_string();
        assert!(error.contains("bind: Address already in use"), "{error}");
        assert!(matches!(listen(&process("bind \"\"")), Err(ListenError::Nowhere)));
    }
}
