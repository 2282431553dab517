//! A RESP connection to a redis or a sentinel, for control traffic: the proxy's clients never come here.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::wire::resp::{self, Decoder, Reply};
use crate::wire::scan::{Limits, Malformed};

/// Why a control connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No answer in time.
    #[error("no answer from {address} within {limit:?}")]
    Timeout {
        /// Who did not answer.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// The socket failed.
    #[error("connection to {address}: {source}")]
    Io {
        /// The other end.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// What came is not RESP.
    #[error("{address} does not speak RESP: {source}")]
    Malformed {
        /// The other end.
        address: SocketAddr,
        /// What is wrong.
        source: Malformed,
    },
}

/// Bytes that are read at once at most.
const READ_MAX: usize = 16 * 1024;

/// Appends what there is to read to `data`; zero: the end of the stream. Waits if there is nothing yet; cancel safe.
///
/// What is read goes by way of the stack, so that a connection takes memory for what it holds only, and one call to the
/// system brings all of it.
pub async fn read_more(stream: &mut (impl AsyncRead + Unpin), data: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        let mut space = [const { MaybeUninit::uninit() }; READ_MAX];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
        data.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

/// The reading half: replies in their order.
#[derive(Debug)]
pub struct Replies {
    address: SocketAddr,
    stream: OwnedReadHalf,
    data: BytesMut,
    decoder: Decoder,
}

/// The writing half: commands, pipelined as the caller likes.
#[derive(Debug)]
pub struct Commands {
    address: SocketAddr,
    stream: OwnedWriteHalf,
    data: BytesMut,
}

/// Both halves, for callers that ask and wait.
#[derive(Debug)]
pub struct Connection {
    /// The writing half.
    pub commands: Commands,
    /// The reading half.
    pub replies: Replies,
}

impl Connection {
    /// The own address on it, unspecified if the system does not say.
    pub fn local(&self) -> IpAddr {
        self.replies.stream.local_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
    }

    /// Connects within `limit`.
    pub async fn open(address: SocketAddr, limit: Duration) -> Result<Self, ConnectionError> {
        let stream = timeout(limit, TcpStream::connect(address))
            .await
            .map_err(|_| ConnectionError::Timeout { address, limit })?
            .map_err(|source| ConnectionError::Io { address, source })?;
        stream.set_nodelay(true).map_err(|source| ConnectionError::Io { address, source })?;
        Ok(Self::over(stream, address))
    }

    /// Over a stream that is connected to `address`.
    pub fn over(stream: TcpStream, address: SocketAddr) -> Self {
        let (read, write) = stream.into_split();
        Self {
            commands: Commands { address, stream: write, data: BytesMut::new() },
            replies: Replies { address, stream: read, data: BytesMut::new(), decoder: Decoder::new(Limits::CONTROL) },
        }
    }

    /// Sends one command and waits for its reply. After an error the connection is of no more use.
    pub async fn ask<A: AsRef<[u8]>>(&mut self, args: &[A], limit: Duration) -> Result<Reply, ConnectionError> {
        let address = self.commands.address;
        timeout(limit, async {
            self.commands.send(args).await?;
            self.replies.next().await
        })
        .await
        .map_err(|_| ConnectionError::Timeout { address, limit })?
    }
}

impl Commands {
    /// Sends one command.
    pub async fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), ConnectionError> {
        self.push(args);
        self.flush().await
    }

    /// Adds one to those that are sent together by [`Self::flush`].
    pub fn push<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        resp::command(args, &mut self.data);
    }

    /// Sends what was added.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        let sent = self.stream.write_all(&self.data).await;
        self.data.clear();
        sent.map_err(|source| ConnectionError::Io { address: self.address, source })
    }

    /// This end's address, which is what the other end sees if no translation stands between.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }
}

impl Replies {
    /// The next reply. Cancel safe: nothing read is lost.
    pub async fn next(&mut self) -> Result<Reply, ConnectionError> {
        let address = self.address;
        loop {
            let decoded = self.decoder.next(&mut self.data);
            if let Some(reply) = decoded.map_err(|source| ConnectionError::Malformed { address, source })? {
                return Ok(reply);
            }
            let read = read_more(&mut self.stream, &mut self.data).await;
            if read.map_err(|source| ConnectionError::Io { address, source })? == 0 {
                return Err(ConnectionError::Io { address, source: io::ErrorKind::UnexpectedEof.into() });
            }
        }
    }
}
