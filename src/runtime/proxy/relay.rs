//! The byte path of one session: both directions in one task, with back-pressure and without allocation.
//!
//! A direction reads only when what it read before is written, so that a slow reader stops its sender by TCP alone and a
//! session never holds more than one buffer per direction. Per wake-up and direction that is one read and one write, unless
//! a read filled the whole buffer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::pool::{Buffer, Pool};
use super::shared::Worker;

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The write target has changed.
    Cut,
    /// The master closed, and all that it said was handed on.
    ServerClosed,
    /// The client's connection broke.
    ClientBroken,
    /// The master's connection broke.
    ServerBroken,
}

/// Which end of a flow broke, or that bytes must not flow any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Sender,
    Receiver,
    Cut,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// Held only while bytes wait in it.
    buffer: Option<Buffer>,
    /// The bytes that wait: from here …
    start: usize,
    /// … to here.
    end: usize,
    /// The sender has closed.
    ended: bool,
    /// Nothing is to be done in this direction any more.
    over: bool,
    /// Bytes written since they were last counted.
    written: u64,
}

/// Moves bytes until an end. `generation` is that of the target that `server` is connected to.
pub(super) async fn relay(worker: &Worker, client: &mut TcpStream, server: &mut TcpStream, generation: u64) -> End {
    let (mut up, mut down) = (Flow::default(), Flow::default());
    let mut cut = pin!(worker.cut.notified());
    let mut armed = false;
    let end = poll_fn(|cx| {
        // The waker of a task is always the same: it is left with the notifier once, before the first look at the
        // generation. Whatever wakes this task later, the generation says whether it was a cut.
        if !armed {
            armed = true;
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Cut);
            }
        }
        let current = || worker.shared.is_current(generation);
        let rising = up.poll(cx, client, server, &worker.pool, current);
        let falling = down.poll(cx, server, client, &worker.pool, current);
        count(&worker.shared.setup.counters.bytes_in, &mut up);
        count(&worker.shared.setup.counters.bytes_out, &mut down);
        match (rising, falling) {
            (Poll::Ready(Err(Broken::Cut)), _) | (_, Poll::Ready(Err(Broken::Cut))) => Poll::Ready(End::Cut),
            (Poll::Ready(Err(Broken::Sender)), _) | (_, Poll::Ready(Err(Broken::Receiver))) => {
                Poll::Ready(End::ClientBroken)
            }
            (_, Poll::Ready(Err(Broken::Sender))) => Poll::Ready(End::ServerBroken),
            // A redis never closes one direction only: what the client still sends would not be read.
            (_, Poll::Ready(Ok(()))) => Poll::Ready(End::ServerClosed),
            // A master that takes nothing more may still have something to say, which ends with its own close.
            (Poll::Ready(Ok(()) | Err(Broken::Receiver)) | Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    up.give_back(&worker.pool);
    down.give_back(&worker.pool);
    end
}

fn count(counter: &AtomicU64, flow: &mut Flow) {
    if flow.written > 0 {
        counter.fetch_add(std::mem::take(&mut flow.written), Ordering::Relaxed);
    }
}

impl Flow {
    /// Moves what can be moved. Ready: this direction is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        pool: &Pool,
        current: impl Fn() -> bool,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if !current() {
                return Poll::Ready(Err(Broken::Cut));
            }
            if self.over {
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = ready!(self.write(cx, to)) {
                self.over = true;
                debug_assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "a poll says pending instead");
                return Poll::Ready(Err(Broken::Receiver));
            }
            if self.ended {
                self.over = true;
                self.give_back(pool);
                // A receiver that has closed as well needs not be told.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                return Poll::Ready(Ok(()));
            }
            match self.read(cx, from, pool) {
                Poll::Pending => {
                    self.give_back(pool);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Sender)),
            }
        }
    }

    /// Writes what waits.
    fn write(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Poll<io::Result<()>> {
        while let Some(waiting) = self.buffer.as_ref().map(|buffer| &buffer[self.start..self.end])
            && !waiting.is_empty()
        {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += written;
            self.written += written as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, with a buffer of the pool if there is something to read.
    fn read(&mut self, cx: &mut Context<'_>, from: &mut TcpStream, pool: &Pool) -> Poll<io::Result<usize>> {
        ready!(from.poll_read_ready(cx))?;
        let mut buffer = ReadBuf::new(self.buffer.get_or_insert_with(|| pool.take()));
        // A read that does not fill the buffer also notes that the socket is drained, which saves asking it again.
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        (self.start, self.end) = (0, buffer.filled().len());
        Poll::Ready(Ok(self.end))
    }

    fn give_back(&mut self, pool: &Pool) {
        (self.start, self.end) = (0, 0);
        if let Some(buffer) = self.buffer.take() {
            pool.give(buffer);
        }
    }
}
