//! The threads of the data path, the acceptor, and the way of one client through its session.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, LocalSet, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use super::listen;
use super::pool::Pool;
use super::relay::{End, relay};
use super::shared::{Shared, Target, Worker};
use crate::cores::proxy::session::{self, Input, Session, Step};
use crate::runtime::clock;
use crate::runtime::crowd::{Over, Silent};
use crate::runtime::journal::Level;

/// More threads than this bring nothing: redis itself has one.
const THREADS_MAX: usize = 4;
/// Accepted clients on their way to a thread.
const HANDOVER_MAX: usize = 1_024;
/// How long a client that was sent an error may take to read it. A socket closed with unread bytes resets the connection,
/// and the error would be lost with it.
const LINGER: Duration = Duration::from_secs(1);
/// So many clients beyond `max_clients` are given that time at once; more are closed without.
const LINGERING_MAX: u32 = 256;
/// The pause of the acceptor when the system has no descriptor or memory for a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An accepted client, counted until it is dropped.
#[derive(Debug)]
struct Client {
    stream: std::net::TcpStream,
    silent: Silent,
    counted: Counted,
}

#[derive(Debug)]
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.setup.counters.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the threads. They end, and close all sessions, when the returned sender of listeners is dropped.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<(mpsc::Sender<TcpListener>, Vec<JoinHandle<()>>)> {
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let (listeners, opened) = mpsc::channel(shared.setup.listen.len().max(1));
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(HANDOVER_MAX)).unzip();
    let mut acceptor = Some((opened, senders));
    let mut threads = Vec::new();
    for (index, clients) in receivers.into_iter().enumerate() {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (shared, acceptor) = (Arc::clone(shared), acceptor.take());
        let thread = std::thread::Builder::new().name(format!("vigie-proxy-{index}")).spawn(move || {
            let tasks = LocalSet::new();
            if let Some((opened, senders)) = acceptor {
                tasks.spawn_local(accept_all(Arc::clone(&shared), opened, senders));
            }
            tasks.block_on(&runtime, serve_all(shared, clients));
        })?;
        threads.push(thread);
    }
    Ok((listeners, threads))
}

/// One thread: takes clients, and wakes the relays when the target changes. Sessions end with it.
async fn serve_all(shared: Arc<Shared>, mut clients: mpsc::Receiver<Client>) {
    let mut target = shared.target.subscribe();
    let worker = Rc::new(Worker { shared, pool: Pool::default(), cut: Notify::new() });
    loop {
        tokio::select! {
            biased;
            // The sender lives in what this thread shares, so that it cannot be gone.
            _ = target.changed() => worker.cut.notify_waiters(),
            client = clients.recv() => match client {
                Some(client) => drop(spawn_local(serve(Rc::clone(&worker), client, target.clone()))),
                None => return,
            },
        }
    }
}

/// Accepts on every listener that is handed in, until their sender is gone; then all listeners are closed.
async fn accept_all(
    shared: Arc<Shared>,
    mut listeners: mpsc::Receiver<TcpListener>,
    workers: Vec<mpsc::Sender<Client>>,
) {
    let acceptor = Rc::new(Acceptor { shared, workers, next: Cell::new(0), lingering: Rc::default() });
    let mut tasks = JoinSet::new();
    while let Some(listener) = listeners.recv().await {
        let acceptor = Rc::clone(&acceptor);
        tasks.spawn_local(async move { acceptor.accept(listener).await });
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Client>>,
    next: Cell<usize>,
    /// Clients beyond the limit that read their error now.
    lingering: Rc<Cell<u32>>,
}

impl Acceptor {
    async fn accept(&self, listener: TcpListener) {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return self.shared.journal.record("proxy", Level::Error, "accept", error.to_string()),
        };
        let mut told = false;
        loop {
            // Taken from this thread's driver again: which thread serves it, `admit` decides.
            match listener.accept().await.and_then(|(stream, from)| Ok((stream.into_std()?, from.ip()))) {
                Ok((stream, from)) => {
                    told = false;
                    self.admit(stream, from).await;
                }
                // The client has given up while it waited.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        let text = format!("cannot accept clients: {error}");
                        self.shared.journal.record("proxy", Level::Error, "accept", text);
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Hands a client to the next thread. If there are too many, one that has said nothing yet gives way; if all have
    /// spoken, the newcomer is turned away.
    async fn admit(&self, stream: std::net::TcpStream, from: IpAddr) {
        let (counters, crowd) = (&self.shared.setup.counters, &self.shared.crowd);
        crowd.settle().await;
        let leaving = u32::try_from(crowd.leaving()).unwrap_or(u32::MAX);
        let full = counters.clients.load(Ordering::Relaxed).saturating_sub(leaving) >= self.shared.clients_max;
        let Some(silent) = crowd.enter(from, full) else {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            return self.turn_away(stream);
        };
        if let Some(news) = crowd.news() {
            self.shared.journal.record("proxy", Level::Warn, "crowd", news);
        }
        counters.clients.fetch_add(1, Ordering::Relaxed);
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        let client = Client { stream, silent, counted: Counted(Arc::clone(&self.shared)) };
        let worker = self.next.get() % self.workers.len();
        self.next.set(worker + 1);
        // Its thread lives as long as this sender.
        let _ = self.workers[worker].send(client).await;
    }

    fn turn_away(&self, mut stream: std::net::TcpStream) {
        // A fresh socket has room for one line; a client that has gone needs none.
        if stream.write_all(session::TOO_MANY).is_err() || self.lingering.get() >= LINGERING_MAX {
            return;
        }
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let lingering = Rc::clone(&self.lingering);
        lingering.set(lingering.get() + 1);
        spawn_local(async move {
            linger(stream).await;
            lingering.set(lingering.get() - 1);
        });
    }
}

/// One client, from its acceptance to its end.
async fn serve(worker: Rc<Worker>, client: Client, mut target: watch::Receiver<Target>) {
    let Client { stream, silent, counted: _counted } = client;
    let Ok(mut client) = TcpStream::from_std(stream) else { return };
    if !asks(&worker, &client, silent).await {
        return;
    }
    // Boxed, so that an idle session does not keep the room that connecting needed.
    let Some(mut server) = Box::pin(connect(&worker, &mut client, &mut target)).await else { return };
    drop(target);
    let generation = server.generation;
    match relay(&worker, &mut client, &mut server.stream, generation).await {
        End::Cut => {
            worker.shared.setup.counters.cut.fetch_add(1, Ordering::Relaxed);
            // First all clients of this thread learn of it, then the old master.
            drop(client);
            yield_now().await;
        }
        End::ServerClosed => {
            drop(server);
            Box::pin(linger(client)).await;
        }
        End::ServerBroken => worker.shared.suspect.notify_one(),
        End::ClientBroken => {}
    }
}

/// A connection to a target.
#[derive(Debug)]
struct Server {
    stream: TcpStream,
    generation: u64,
    shared: Arc<Shared>,
}

impl Drop for Server {
    /// What still waits in this kernel to be sent to a node that is no target any more must never arrive: a plain close would
    /// go on delivering it, for minutes if the node cannot be reached now.
    fn drop(&mut self) {
        if !self.shared.is_current(self.generation) {
            // A socket that is broken already has nothing to send.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Waits for the first byte of a client without taking it; false if it closes before, or has to go.
async fn asks(worker: &Worker, client: &TcpStream, silent: Silent) -> bool {
    let mut first = [0];
    let over = tokio::select! {
        biased;
        asked = client.peek(&mut first) => match asked {
            Ok(1..) if silent.spoke() => return true,
            Ok(1..) => Over::Ousted,
            Ok(0) | Err(_) => return false,
        },
        over = silent.over() => over,
    };
    worker.shared.setup.counters.silent.fetch_add(1, Ordering::Relaxed);
    match over {
        Over::Late => {}
        // A crowd must not leave the kernel a half-closed connection for each of its members.
        Over::Ousted => drop(SockRef::from(client).set_linger(Some(Duration::ZERO))),
    }
    false
}

/// Follows the session's decisions until it is connected to a target; none: it is over.
async fn connect(worker: &Worker, client: &mut TcpStream, target: &mut watch::Receiver<Target>) -> Option<Server> {
    let setup = &worker.shared.setup;
    let mut session = Session::new(setup.config.hold_timeout, target.borrow_and_update().address.is_some());
    let mut dialed = None;
    let mut input = Input::Request;
    loop {
        input = match session.handle(clock::now(), input) {
            Step::Wait => {
                tokio::select! {
                    biased;
                    _ = target.changed() => Input::Moved(target.borrow_and_update().address.is_some()),
                    () = closes(client) => Input::Gone,
                    () = clock::sleep_until(session.deadline()) => Input::Tick,
                }
            }
            Step::Dial => {
                let (input, connected) = dial(worker, target).await;
                dialed = connected;
                input
            }
            Step::Relay => return dialed,
            Step::Refuse(why) => {
                setup.counters.refused.fetch_add(1, Ordering::Relaxed);
                let text = session::refusal(setup.node.as_str(), &setup.master_name, &why);
                refuse(client, &text).await;
                return None;
            }
            Step::Close => return None,
        };
    }
}

/// Connects to the present target, unless it changes meanwhile.
async fn dial(worker: &Worker, target: &mut watch::Receiver<Target>) -> (Input, Option<Server>) {
    let Target { generation, address } = *target.borrow_and_update();
    let Some(address) = address else { return (Input::Moved(false), None) };
    let limit = worker.shared.setup.config.connect_timeout;
    let connected = tokio::select! {
        biased;
        _ = target.changed() => return (Input::Moved(target.borrow_and_update().address.is_some()), None),
        connected = timeout(limit, TcpStream::connect(address)) => connected,
    };
    let server =
        connected.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, format!("no answer in {limit:?}"))));
    match server.and_then(|server| listen::tune(&SockRef::from(&server)).map(|()| server)) {
        Ok(stream) => (Input::Dialed(Ok(())), Some(Server { stream, generation, shared: Arc::clone(&worker.shared) })),
        Err(error) => {
            worker.shared.suspect.notify_one();
            (Input::Dialed(Err(format!("{address}: {error}"))), None)
        }
    }
}

/// Waits until the client has closed its sending side, while what it sent before stays in the socket.
async fn closes(client: &TcpStream) {
    // The readiness that this interest stands for is the end of the stream and urgent data, which sockets of tokio do not
    // ask the kernel for.
    let _ = client.ready(Interest::PRIORITY).await;
}

async fn refuse(client: &mut TcpStream, text: &str) {
    if timeout(LINGER, client.write_all(text.as_bytes())).await.is_ok_and(|sent| sent.is_ok()) {
        drain(client).await;
    }
}

/// Closes the sending side, and the rest once the client has closed too or had time enough to read.
async fn linger(mut client: TcpStream) {
    drain(&mut client).await;
}

async fn drain(client: &mut TcpStream) {
    let drained = async {
        if client.shutdown().await.is_ok() {
            while client.readable().await.is_ok() && discard(client) {}
        }
    };
    let _ = timeout(LINGER, drained).await;
}

/// Throws away what waits in a socket; false at its end. Not async, so that sessions do not carry the array.
fn discard(client: &TcpStream) -> bool {
    let mut trash = [0; 4_096];
    match client.try_read(&mut trash) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
