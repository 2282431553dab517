//! The listening sockets, one per virtual address, also while the address is on another node.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::cores::proxy::route::Input;
use crate::runtime::journal::Level;
use crate::runtime::listen::listen;

const RETRY: Duration = Duration::from_secs(1);
/// A peer that is silent for so long is asked for a sign of life, then every ten seconds.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
/// What was sent and not acknowledged for so long ends a connection. Longer than a redis may be busy without reading.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("proxy: cannot listen on {address}: {source}")]
pub(super) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Opens all listeners and hands them to the acceptor; what fails is tried again each second. Keeps `listeners` open, whose
/// end stops the acceptor.
pub(super) async fn keep(shared: Arc<Shared>, listeners: mpsc::Sender<TcpListener>, inputs: mpsc::Sender<Input>) {
    let mut missing = shared.setup.listen.clone();
    loop {
        let (mut open, mut faults) = (Vec::new(), Vec::new());
        missing.retain(|address| match bind(*address) {
            Ok(listener) => {
                open.push(listener);
                shared.journal.record("proxy", Level::Info, "listening", format!("accepting clients on {address}"));
                false
            }
            Err(error) => {
                faults.push(error.to_string());
                true
            }
        });
        for listener in open {
            // The acceptor ends with this task only.
            let _ = listeners.send(listener).await;
        }
        let state = if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) };
        if inputs.send(Input::Listener(state)).await.is_err() {
            return;
        }
        if missing.is_empty() {
            return listeners.closed().await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A listener that may be opened before its address exists. What is set here, accepted sockets inherit.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    listen(address, tune).map_err(|source| ListenError { address, source })
}

/// Small requests leave at once, and a peer that vanished is noticed.
pub(super) fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_what_the_listener_has() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[test]
    fn an_address_of_another_node_can_be_listened_on() {
        for absent in ["192.0.2.7:0", "[2001:db8::7]:0"] {
            bind(absent.parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
        let _holder = bind(taken).unwrap();
        let text = bind(taken).unwrap_err().to_string();
        assert!(text.starts_with(&format!("proxy: cannot listen on {taken}: Address already in use")), "{text}");
    }
}
