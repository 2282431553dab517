//! The port for clients and other sentinels.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::SentinelError;
use crate::cores::sentinel::{Answer, ClientId, Input, Sockets};
use crate::runtime::connection::read_more;
use crate::runtime::host;
use crate::runtime::journal::{Journal, Level};
use crate::wire::resp::{self, Decoder, Protocol, Reply};
use crate::wire::scan::Limits;

/// Clients at once, as redis-sentinel.
const CLIENTS_MAX: usize = 10_000;
/// So many more if they are nodes of the cluster: a crowd of others must not keep the sentinels from each other.
const NODES_EXTRA: usize = 64;
/// Files that a sentinel wants to be allowed.
const FILES_WANTED: u64 = 65_536;
/// Of the files of a process with other roles, clients get one of so many: the rest is for what matters more.
const FILES_SHARE: u64 = 6;
/// Of those of a process that is nothing but a sentinel, so many are for masters, replicas and other sentinels.
const FILES_OWN: u64 = 2_048;
/// What a command may be at most.
const COMMANDS: Limits = Limits { bulk_max: 16 * 1024, elements_max: 1_024 };
/// Longest inline command, bytes.
const INLINE_MAX: usize = 16 * 1024;
/// Answers to one client of so many bytes are sent before others are added.
const WRITE_TOGETHER: usize = 16 * 1024;
/// Answers and messages that may wait for a client to read them; one that is further behind is dropped.
const ANSWERS_MAX: usize = 1_024;
/// Bytes of answers that may wait for one client, beyond the last answer.
const UNREAD_MAX: u64 = 1024 * 1024;
/// Bytes of answers that may wait for all of them: beyond it, whoever has not read its last answer is dropped.
const ALL_UNREAD_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of incomplete requests of all clients: beyond it, whoever has sent more than [`INCOMPLETE_MAX`] of one is dropped.
const ALL_INCOMPLETE_MAX: u64 = 32 * 1024 * 1024;
const INCOMPLETE_MAX: u64 = 1024;
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
    let socket = Socket::new(domain, Type::STREAM, Some(socket2::Protocol::TCP))?;
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

/// What all clients together have done and take.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) connections: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) clients_max: AtomicU64,
    /// Bytes of requests that are not complete.
    incomplete: AtomicU64,
    /// Bytes of answers that are not read.
    unread: AtomicU64,
}

/// Who is let in, and how long a connection may be silent.
pub(super) struct Admission {
    max: usize,
    nodes: Vec<IpAddr>,
    keepalive: Option<Duration>,
}

impl Admission {
    /// For a sentinel among other roles: as many as there are descriptors for; a few more if they come from `nodes`.
    pub(super) fn among_others(nodes: Vec<IpAddr>, journal: &Journal) -> Self {
        let files = host::raise_file_limit(FILES_WANTED);
        Self { max: allowed(CLIENTS_MAX, files, files / FILES_SHARE, journal), nodes, keepalive: Some(KEEPALIVE) }
    }

    /// For a process that is nothing but a sentinel: `wanted` clients, if there are descriptors for so many.
    pub(super) fn alone(wanted: usize, keepalive: Option<Duration>, journal: &Journal) -> Self {
        let files = host::raise_file_limit(FILES_WANTED.max(FILES_OWN + wanted as u64));
        let share = files.saturating_sub(FILES_OWN).max(files / 2);
        Self { max: allowed(wanted, files, share, journal), nodes: Vec::new(), keepalive }
    }

    /// Clients of all kinds that are let in.
    pub(super) fn max(&self) -> u64 {
        self.max as u64
    }

    fn admits(&self, address: IpAddr, present: usize) -> bool {
        let extra = if self.nodes.contains(&address.to_canonical()) { NODES_EXTRA } else { 0 };
        present < self.max + extra
    }
}

/// As many clients as are wanted, or as there are descriptors for.
fn allowed(wanted: usize, files: u64, share: u64, journal: &Journal) -> usize {
    let max = usize::try_from(share).unwrap_or(usize::MAX).min(wanted);
    if max < wanted {
        let text = format!("{files} open files are allowed: at most {max} clients of the sentinel are served");
        journal.record("sentinel", Level::Warn, "file-limit", text);
    }
    max
}

/// The clients connected now.
#[derive(Clone, Default)]
pub(super) struct Clients {
    open: Arc<Mutex<HashMap<ClientId, Open>>>,
    pub(super) totals: Arc<Totals>,
}

/// One of them.
struct Open {
    answers: mpsc::Sender<ToClient>,
    /// Bytes of answers that wait for it.
    unread: Arc<AtomicU64>,
    protocol: Protocol,
    killed: Arc<Notify>,
}

impl Clients {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ClientId, Open>) -> T) -> T {
        act(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn respond(&self, client: ClientId, answer: &Answer) {
        let mut out = BytesMut::new();
        let Some(protocol) = self.with(|clients| clients.get(&client).map(|open| open.protocol)) else { return };
        match answer {
            Answer::Reply(reply) => resp::emit(reply, protocol, &mut out),
            Answer::Many(replies) => replies.iter().for_each(|reply| resp::emit(reply, protocol, &mut out)),
        }
        if !out.is_empty() {
            self.send(client, ToClient::Bytes(out.freeze()));
        }
    }

    /// From here on answers to it are in that protocol.
    pub(super) fn speak(&self, client: ClientId, protocol: Protocol) {
        self.with(|clients| {
            if let Some(open) = clients.get_mut(&client) {
                open.protocol = protocol;
            }
        });
    }

    pub(super) fn dismiss(&self, client: ClientId) {
        self.send(client, ToClient::Close);
    }

    /// Ends a connection whatever it still waits for.
    pub(super) fn kill(&self, client: ClientId) {
        if let Some(open) = self.with(|clients| clients.remove(&client)) {
            open.killed.notify_one();
        }
    }

    /// A client that does not read is dropped: its writer ends when the sending end is gone.
    fn send(&self, client: ClientId, what: ToClient) {
        let size = match &what {
            ToClient::Bytes(bytes) => bytes.len() as u64,
            ToClient::Close => 0,
        };
        let all = &self.totals.unread;
        self.with(|clients| {
            let Some(open) = clients.get(&client) else { return };
            let unread = open.unread.load(Ordering::Relaxed);
            let too_much = unread > UNREAD_MAX || unread > 0 && all.load(Ordering::Relaxed) > ALL_UNREAD_MAX;
            open.unread.fetch_add(size, Ordering::Relaxed);
            all.fetch_add(size, Ordering::Relaxed);
            if too_much && size > 0 || open.answers.try_send(what).is_err() {
                let open = clients.remove(&client);
                open.inspect(|open| open.killed.notify_one());
            }
        });
    }
}

/// Part of a sum over all clients, taken off it when its client is gone.
struct Share<'a> {
    all: &'a AtomicU64,
    own: u64,
}

impl Share<'_> {
    fn set(&mut self, own: u64) {
        self.all.fetch_add(own, Ordering::Relaxed);
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        self.own = own;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.set(0);
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
    clients.totals.clients_max.store(admission.max(), Ordering::Relaxed);
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
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        if !admission.admits(address.ip(), clients.with(|clients| clients.len())) {
            count(&clients.totals.rejected);
            // Best effort: it will be closed anyway.
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            let _ = timeout(Duration::from_millis(1), stream.shutdown()).await;
            continue;
        }
        count(&clients.totals.connections);
        let client = ClientId(count(&COUNT));
        if let Some(time) = admission.keepalive {
            // Failing costs the notice of a vanished host, not the session.
            let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(time));
        }
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
    // Failing costs speed, not the session.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let sockets = Sockets { peer: address, local, fd: stream.as_raw_fd() };
    let (read, write) = stream.into_split();
    let (answers, waiting) = mpsc::channel(ANSWERS_MAX);
    let (unread, killed) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let open = Open { answers, unread: unread.clone(), protocol: Protocol::Two, killed: killed.clone() };
    // The map holds the only sender: whoever is taken out of it, for not reading, is closed.
    clients.with(|clients| clients.insert(client, open));
    if inputs.send(Input::ClientCame(client, sockets)).await.is_ok() {
        let writing = speak(write, waiting, &unread, &clients.totals);
        tokio::pin!(writing);
        let heard = tokio::select! {
            () = &mut writing => None,
            () = killed.notified() => None,
            fault = hear(client, read, &inputs, &clients.totals) => Some(fault),
        };
        if let Some(Some(fault)) = &heard {
            let _ = inputs.send(Input::Garbage(client, fault.clone())).await;
        }
        let _ = inputs.send(Input::ClientGone(client)).await;
        if heard.is_some() {
            // Whoever asks and closes its half still wants the answers; the core dismisses it behind the last one.
            tokio::select! {
                _ = timeout(WRITE_MAX, writing) => {}
                () = killed.notified() => {}
            }
        }
    }
    clients.with(|clients| clients.remove(&client));
    clients.totals.unread.fetch_sub(unread.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Writes answers until there are no more, the client does not read, or it is to be closed.
async fn speak(mut write: OwnedWriteHalf, mut waiting: mpsc::Receiver<ToClient>, unread: &AtomicU64, totals: &Totals) {
    let mut out = BytesMut::new();
    let mut next = waiting.recv().await;
    while let Some(ToClient::Bytes(bytes)) = next {
        out.extend_from_slice(&bytes);
        next = waiting.try_recv().ok();
        if matches!(next, Some(ToClient::Bytes(_))) && out.len() < WRITE_TOGETHER {
            continue;
        }
        let written = timeout(WRITE_MAX, write.write_all(&out)).await;
        let size = out.len() as u64;
        unread.fetch_sub(size, Ordering::Relaxed);
        totals.unread.fetch_sub(size, Ordering::Relaxed);
        totals.bytes_out.fetch_add(size, Ordering::Relaxed);
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
        // A client that is not answered holds no memory.
        out = BytesMut::new();
        next = match next {
            None => waiting.recv().await,
            waits => waits,
        };
    }
    let _ = timeout(WRITE_MAX, write.shutdown()).await;
}

/// Reads commands until the client leaves (none) or says what is no command (why).
async fn hear(
    client: ClientId,
    mut read: OwnedReadHalf,
    inputs: &mpsc::Sender<Input>,
    totals: &Totals,
) -> Option<String> {
    let mut share = Share { all: &totals.incomplete, own: 0 };
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
                    Some(Ok(args)) => args,
                    Some(Err(unbalanced)) => return Some(unbalanced.to_string()),
                    None if data.len() > INLINE_MAX => return Some("too big inline request".to_owned()),
                    None => break,
                }
            };
            if !args.is_empty() && inputs.send(Input::Command(client, args)).await.is_err() {
                return None;
            }
        }
        share.set(data.len() as u64);
        if share.own > INCOMPLETE_MAX && totals.incomplete.load(Ordering::Relaxed) > ALL_INCOMPLETE_MAX {
            return Some("too many requests are incomplete".to_owned());
        }
        match read_more(&mut read, &mut data).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => totals.bytes_in.fetch_add(read as u64, Ordering::Relaxed),
        };
    }
}

fn words(reply: Reply) -> Option<Vec<Bytes>> {
    let elements = match reply {
        Reply::Array(elements) => elements,
        // The null array is no command, as the empty one.
        Reply::Null => Vec::new(),
        Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Rich(_) => return None,
    };
    let word = |element| match element {
        Reply::Bulk(bytes) => Some(bytes),
        Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Null | Reply::Array(_) | Reply::Rich(_) => None,
    };
    elements.into_iter().map(word).collect()
}
