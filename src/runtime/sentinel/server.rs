//! The port for clients and other sentinels.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::SentinelError;
use super::wrong::Failures;
use crate::cores::sentinel::{Answer, ClientId, Input, Sockets};
use crate::runtime::clock;
use crate::runtime::connection::read_more;
use crate::runtime::crowd::{Crowd, Over, Silent};
use crate::runtime::drive::Said;
use crate::runtime::host;
use crate::runtime::journal::{Journal, Level};
use crate::runtime::listen;
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
/// A client that has given no command for this time is closed. Only until its first one.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Clients of sources that have given a wrong password that give one, or wait for the answer, at once; more are closed
/// without a look at theirs. So many guesses in two seconds are what a stranger with many connections gets.
const WRONG_WAITING_MAX: usize = 256;
/// Wrong passwords are told so often.
const WRONG_TELL_EVERY: Duration = Duration::from_secs(10);

/// Listens on that address.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, SentinelError> {
    let listener = listen::listen(address, |_| Ok(())).and_then(TcpListener::from_std);
    listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => SentinelError::PortInUse { address },
        _ => SentinelError::Listen { address, source },
    })
}

enum ToClient {
    Bytes(Bytes),
    /// What follows waits for this time.
    Pause(Duration),
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
    /// Those who have given no command yet, and give way to others; none: those who came first stay, as with redis-sentinel.
    crowd: Option<Arc<Crowd>>,
}

impl Admission {
    /// For a sentinel among other roles: as many as there are descriptors for; a few more if they come from `nodes`.
    pub(super) fn among_others(nodes: Vec<IpAddr>, journal: &Journal) -> Self {
        let files = host::raise_file_limit(FILES_WANTED, false);
        let max = allowed(CLIENTS_MAX, files, files / FILES_SHARE, journal);
        Self { max, nodes, keepalive: Some(KEEPALIVE), crowd: Some(Crowd::new(max, SILENCE_MAX)) }
    }

    /// For a process that is nothing but a sentinel: `wanted` clients, if there are descriptors for so many.
    pub(super) fn alone(wanted: usize, keepalive: Option<Duration>, journal: &Journal) -> Self {
        let files = host::raise_file_limit(FILES_WANTED.max(FILES_OWN + wanted as u64), false);
        let share = files.saturating_sub(FILES_OWN).max(files / 2);
        Self { max: allowed(wanted, files, share, journal), nodes: Vec::new(), keepalive, crowd: None }
    }

    /// Clients of all kinds that are let in.
    pub(super) fn max(&self) -> u64 {
        self.max as u64
    }

    /// Lets a client in if there is room, or can be made; none: it is refused.
    async fn admit(&self, address: IpAddr, clients: &Clients) -> Option<Option<Silent>> {
        let extra = if self.is_node(address) { NODES_EXTRA } else { 0 };
        let Some(crowd) = &self.crowd else {
            return (clients.with(|clients| clients.len()) < self.max + extra).then_some(None);
        };
        crowd.settle().await;
        let present = clients.with(|clients| clients.len()).saturating_sub(crowd.leaving());
        crowd.enter(address, present >= self.max + extra).map(Some)
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.nodes.contains(&address.to_canonical())
    }

    /// Whether wrong passwords are told of and slow their source down. A sentinel alone does with them what redis-sentinel
    /// does, which has its ACL LOG.
    fn slows(&self) -> bool {
        self.crowd.is_some()
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
    wrong: Arc<Wrong>,
}

/// What is known of wrong passwords.
#[derive(Default)]
struct Wrong {
    failures: Mutex<Failures>,
    /// Clients that try, or wait for their answer, now.
    waiting: AtomicUsize,
    happened: Notify,
}

/// One of them.
struct Open {
    answers: mpsc::Sender<ToClient>,
    /// Bytes of answers that wait for it.
    unread: Arc<AtomicU64>,
    protocol: Protocol,
    killed: Arc<Notify>,
    peer: IpAddr,
    /// How long it is not listened to from now on: it has given a wrong password.
    pause: Duration,
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

    /// A client has given a wrong password: neither is it answered nor listened to for a while.
    pub(super) fn wrong_password(&self, client: ClientId, admission: &Admission) {
        let Some(peer) = self.with(|clients| clients.get(&client).map(|open| open.peer)) else { return };
        if !admission.slows() {
            return;
        }
        let mut failures = self.wrong.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = failures.count(peer, admission.is_node(peer), clock::now());
        drop(failures);
        self.wrong.happened.notify_one();
        if !pause.is_zero() {
            self.with(|clients| clients.get_mut(&client).map(|open| open.pause = pause));
            self.send(client, ToClient::Pause(pause));
        }
    }

    /// Tells of wrong passwords, for ever: of the first at once.
    pub(super) async fn tell_wrong_passwords(self, journal: Journal) {
        loop {
            self.wrong.happened.notified().await;
            let news = self.wrong.failures.lock().unwrap_or_else(PoisonError::into_inner).news();
            if let Some(news) = news {
                journal.record("sentinel", Level::Warn, "auth-failed", news);
            }
            sleep(WRONG_TELL_EVERY).await;
        }
    }

    /// The place of a client that is about to give a password, if its source has given a wrong one; an error: there is none
    /// left.
    fn line_up(&self, client: ClientId) -> Result<Option<Waits<'_>>, ()> {
        let peer = self.with(|clients| clients.get(&client).map(|open| open.peer));
        let failures = self.wrong.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let suspected = peer.is_some_and(|peer| failures.suspects(peer, clock::now()));
        drop(failures);
        if suspected { Waits::new(&self.wrong.waiting).map(Some) } else { Ok(None) }
    }

    /// Waits as long as a client is not listened to; an error: too many do.
    async fn sit_out(&self, client: ClientId, place: Option<Waits<'_>>) -> Result<(), ()> {
        let pause = self.with(|clients| clients.get_mut(&client).map(|open| std::mem::take(&mut open.pause)));
        let pause = pause.unwrap_or_default();
        if !pause.is_zero() {
            let _place = match place {
                Some(place) => place,
                None => Waits::new(&self.wrong.waiting)?,
            };
            sleep(pause).await;
        }
        Ok(())
    }

    /// A client that does not read is dropped: its writer ends when the sending end is gone.
    fn send(&self, client: ClientId, what: ToClient) {
        let size = match &what {
            ToClient::Bytes(bytes) => bytes.len() as u64,
            ToClient::Pause(_) | ToClient::Close => 0,
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

/// One of [`WRONG_WAITING_MAX`], until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(all: &'a AtomicUsize) -> Result<Self, ()> {
        let place = Self(all);
        if all.fetch_add(1, Ordering::Relaxed) < WRONG_WAITING_MAX { Ok(place) } else { Err(()) }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    inputs: mpsc::Sender<Said<Input>>,
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
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let Some(silent) = admission.admit(address.ip(), &clients).await else {
            count(&clients.totals.rejected);
            // Best effort: it will be closed anyway.
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            let _ = timeout(Duration::from_millis(1), stream.shutdown()).await;
            continue;
        };
        if let Some(news) = admission.crowd.as_ref().and_then(|crowd| crowd.news()) {
            journal.record("sentinel", Level::Warn, "crowd", news);
        }
        count(&clients.totals.connections);
        let client = ClientId(count(&COUNT));
        if let Some(time) = admission.keepalive {
            // Failing costs the notice of a vanished host, not the session.
            let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(time));
        }
        let (answers, waiting) = mpsc::channel(ANSWERS_MAX);
        let (unread, killed) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        // The map holds the only sender: a client that is taken out of it, for not reading, is closed.
        let open = Open {
            answers,
            unread: unread.clone(),
            protocol: Protocol::Two,
            killed: killed.clone(),
            peer: address.ip(),
            pause: Duration::ZERO,
        };
        clients.with(|clients| clients.insert(client, open));
        let ends = Ends { silent, waiting, unread, killed };
        sessions.spawn(session(client, stream, address, ends, clients.clone(), inputs.clone()));
    }
}

/// What a session has of its own.
struct Ends {
    silent: Option<Silent>,
    waiting: mpsc::Receiver<ToClient>,
    unread: Arc<AtomicU64>,
    killed: Arc<Notify>,
}

async fn session(
    client: ClientId,
    stream: TcpStream,
    address: SocketAddr,
    ends: Ends,
    clients: Clients,
    inputs: mpsc::Sender<Said<Input>>,
) {
    let Ends { mut silent, waiting, unread, killed } = ends;
    // Failing costs speed, not the session.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let sockets = Sockets { peer: address, local, fd: stream.as_raw_fd() };
    let (read, write) = stream.into_split();
    if inputs.send(Said::Input(Input::ClientCame(client, sockets))).await.is_ok() {
        let writing = speak(write, waiting, &unread, &clients.totals);
        tokio::pin!(writing);
        let heard = tokio::select! {
            () = &mut writing => None,
            () = killed.notified() => None,
            fault = hear(client, read, &inputs, &clients, &mut silent) => Some(fault),
        };
        if let Some(Some(fault)) = &heard {
            let _ = inputs.send(Said::Input(Input::Garbage(client, fault.clone()))).await;
        }
        let _ = inputs.send(Said::Input(Input::ClientGone(client))).await;
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
    loop {
        let bytes = match next {
            Some(ToClient::Bytes(bytes)) => bytes,
            Some(ToClient::Pause(pause)) => {
                sleep(pause).await;
                next = waiting.recv().await;
                continue;
            }
            Some(ToClient::Close) | None => break,
        };
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
    inputs: &mpsc::Sender<Said<Input>>,
    clients: &Clients,
    silent: &mut Option<Silent>,
) -> Option<String> {
    let totals = &clients.totals;
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
            let Some(command) = args.first() else { continue };
            if silent.take().is_some_and(|silent| !silent.spoke()) {
                return None;
            }
            let signs_in = [&b"auth"[..], b"hello"].iter().any(|word| command.eq_ignore_ascii_case(word));
            let said = Said::Input(Input::Command(client, args));
            if signs_in {
                sign_in(client, said, inputs, clients).await.ok()?;
            } else if inputs.send(said).await.is_err() {
                return None;
            }
        }
        share.set(data.len() as u64);
        if share.own > INCOMPLETE_MAX && totals.incomplete.load(Ordering::Relaxed) > ALL_INCOMPLETE_MAX {
            return Some("too many requests are incomplete".to_owned());
        }
        let more = match silent {
            None => read_more(&mut read, &mut data).await,
            Some(silent) => {
                let over = tokio::select! {
                    biased;
                    more = read_more(&mut read, &mut data) => Err(more),
                    over = silent.over() => Ok(over),
                };
                match over {
                    Err(more) => more,
                    Ok(Over::Late) => return None,
                    Ok(Over::Ousted) => {
                        // A crowd must not leave the kernel a half-closed connection for each of its members.
                        let _ = SockRef::from(read.as_ref()).set_linger(Some(Duration::ZERO));
                        return None;
                    }
                }
            }
        };
        match more {
            Ok(0) | Err(_) => return None,
            Ok(read) => totals.bytes_in.fetch_add(read as u64, Ordering::Relaxed),
        };
    }
}

/// Hands on a command that may give a password, and goes on when it was looked at, and after a wrong one later: many guesses
/// in one packet would not be slowed down by late answers alone. An error: the client is closed.
async fn sign_in(
    client: ClientId,
    said: Said<Input>,
    inputs: &mpsc::Sender<Said<Input>>,
    clients: &Clients,
) -> Result<(), ()> {
    let Ok(place) = clients.line_up(client) else {
        clients.kill(client);
        return Err(());
    };
    let (turn, turned) = oneshot::channel();
    for said in [said, Said::Turn(turn)] {
        inputs.send(said).await.map_err(drop)?;
    }
    turned.await.map_err(drop)?;
    clients.sit_out(client, place).await.inspect_err(|()| clients.kill(client))
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
