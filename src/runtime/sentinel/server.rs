//! The port for clients and other sentinels.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::SentinelError;
use crate::cores::sentinel::{Answer, ClientId, Input};
use crate::runtime::host;
use crate::runtime::journal::{Journal, Level};
use crate::wire::resp::{self, Decoder, Reply};
use crate::wire::scan::Limits;

/// Clients at once, as redis-sentinel.
const CLIENTS_MAX: usize = 10_000;
/// So many more if they are nodes of the cluster: a crowd of others must not keep the sentinels from each other.
const NODES_EXTRA: usize = 64;
/// Files that a sentinel wants to be allowed; clients get one of [`FILES_SHARE`] of them, the rest is for what matters more.
const FILES_WANTED: u64 = 65_536;
const FILES_SHARE: u64 = 6;
/// What a command may be at most.
const COMMANDS: Limits = Limits { bulk_max: 16 * 1024, elements_max: 1_024 };
/// Longest inline command, bytes.
const INLINE_MAX: usize = 16 * 1024;
/// Answers and messages that may wait for a client to read them; one that is further behind is dropped.
const ANSWERS_MAX: usize = 1_024;
/// A client that takes nothing for so long is dropped.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// A client whose host vanished is noticed after about twice this.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Listens on all addresses of both families, or of the one there is.
pub(super) fn listen(port: u16) -> Result<TcpListener, SentinelError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => SentinelError::PortInUse { port },
        _ => SentinelError::Listen { port, source },
    };
    let both = bound(Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let listener = match both {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            bound(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        both => both,
    };
    listener.and_then(|socket| TcpListener::from_std(socket.into())).map_err(failed)
}

fn bound(domain: Domain, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(511)?;
    Ok(socket)
}

enum ToClient {
    Bytes(Bytes),
    Close,
}

/// How many clients are let in.
pub(super) struct Admission {
    max: usize,
    nodes: Vec<IpAddr>,
}

impl Admission {
    /// As many as there are descriptors for; a few more if they come from `nodes`.
    pub(super) fn new(nodes: Vec<IpAddr>, journal: &Journal) -> Self {
        let files = host::raise_file_limit(FILES_WANTED);
        let max = usize::try_from(files / FILES_SHARE).unwrap_or(CLIENTS_MAX).min(CLIENTS_MAX);
        if max < CLIENTS_MAX {
            let text = format!("{files} open files are allowed: at most {max} clients of the sentinel are served");
            journal.record("sentinel", Level::Warn, "file-limit", text);
        }
        Self { max, nodes }
    }

    fn admits(&self, address: IpAddr, present: usize) -> bool {
        let extra = if self.nodes.contains(&address.to_canonical()) { NODES_EXTRA } else { 0 };
        present < self.max + extra
    }
}

/// The clients connected now.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Mutex<HashMap<ClientId, mpsc::Sender<ToClient>>>>);

impl Clients {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ClientId, mpsc::Sender<ToClient>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn respond(&self, client: ClientId, answer: &Answer) {
        let mut out = BytesMut::new();
        match answer {
            Answer::Reply(reply) => resp::emit(reply, &mut out),
            Answer::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Answer::Many(replies) => replies.iter().for_each(|reply| resp::emit(reply, &mut out)),
        }
        self.send(client, ToClient::Bytes(out.freeze()));
    }

    pub(super) fn dismiss(&self, client: ClientId) {
        self.send(client, ToClient::Close);
    }

    /// A client that does not read is dropped: its writer ends when the sending end is gone.
    fn send(&self, client: ClientId, what: ToClient) {
        self.with(|clients| {
            if clients.get(&client).is_some_and(|answers| answers.try_send(what).is_err()) {
                clients.remove(&client);
            }
        });
    }
}

/// Accepts clients for ever.
pub(super) async fn accept(
    listener: TcpListener,
    admission: Arc<Admission>,
    clients: Clients,
    inputs: mpsc::Sender<Input>,
    journal: Journal,
) {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut sessions = tokio::task::JoinSet::new();
    loop {
        while sessions.try_join_next().is_some() {}
        let (mut stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: it would fail again at once.
                journal.record("sentinel", Level::Error, "accept-failed", error.to_string());
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !admission.admits(address.ip(), clients.with(|clients| clients.len())) {
            // Best effort: it will be closed anyway.
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            let _ = timeout(Duration::from_millis(1), stream.shutdown()).await;
            continue;
        }
        let client = ClientId(COUNT.fetch_add(1, Ordering::Relaxed));
        sessions.spawn(session(client, stream, address, clients.clone(), inputs.clone()));
    }
}

async fn session(
    client: ClientId,
    stream: TcpStream,
    address: SocketAddr,
    clients: Clients,
    inputs: mpsc::Sender<Input>,
) {
    // Either failing costs speed or the notice of a vanished host, not the session.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    let (read, write) = stream.into_split();
    let (answers, waiting) = mpsc::channel(ANSWERS_MAX);
    // The map holds the only sender: whoever is taken out of it, for not reading, is closed.
    clients.with(|clients| clients.insert(client, answers));
    if inputs.send(Input::ClientCame(client, address.ip())).await.is_ok() {
        let writing = speak(write, waiting);
        tokio::pin!(writing);
        let heard = tokio::select! {
            () = &mut writing => None,
            fault = hear(client, read, &inputs) => Some(fault),
        };
        if let Some(Some(fault)) = &heard {
            let _ = inputs.send(Input::Garbage(client, fault.clone())).await;
        }
        let _ = inputs.send(Input::ClientGone(client)).await;
        if heard.is_some() {
            // Whoever asks and closes its half still wants the answers; the core dismisses it behind the last one.
            let _ = timeout(WRITE_MAX, writing).await;
        }
    }
    clients.with(|clients| clients.remove(&client));
}

/// Writes answers until there are no more, the client does not read, or it is to be closed.
async fn speak(mut write: OwnedWriteHalf, mut waiting: mpsc::Receiver<ToClient>) {
    while let Some(ToClient::Bytes(bytes)) = waiting.recv().await {
        if !matches!(timeout(WRITE_MAX, write.write_all(&bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(WRITE_MAX, write.shutdown()).await;
}

/// Reads commands until the client leaves (none) or says what is no command (why).
async fn hear(client: ClientId, mut read: OwnedReadHalf, inputs: &mpsc::Sender<Input>) -> Option<String> {
    let (mut data, mut decoder) = (BytesMut::new(), Decoder::new(COMMANDS));
    // Whether the decoder is in the middle of a command.
    let mut inside = false;
    loop {
        while inside || !data.is_empty() {
            let args = if inside || data.first() == Some(&b'*') {
                match decoder.next(&mut data) {
                    Ok(Some(reply)) => {
                        inside = false;
                        match words(reply) {
                            Some(args) => args,
                            None => return Some("expected an array of bulk strings".to_owned()),
                        }
                    }
                    Ok(None) => {
                        inside = true;
                        break;
                    }
                    Err(error) => return Some(error.to_string()),
                }
            } else {
                match resp::inline(&mut data) {
                    Some(args) => args,
                    None if data.len() > INLINE_MAX => return Some("too big inline request".to_owned()),
                    None => break,
                }
            };
            if !args.is_empty() && inputs.send(Input::Command(client, args)).await.is_err() {
                return None;
            }
        }
        match read.read_buf(&mut data).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn words(reply: Reply) -> Option<Vec<Bytes>> {
    let Reply::Array(elements) = reply else { return None };
    let word = |element| match element {
        Reply::Bulk(bytes) => Some(bytes),
        Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Null | Reply::Array(_) => None,
    };
    elements.into_iter().map(word).collect()
}
