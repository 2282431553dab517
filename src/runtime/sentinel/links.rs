//! One task per link: connects, sends queries in their order, passes replies on with the tag of their query.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cores::sentinel::{Input, LinkId, Tag};
use crate::runtime::connection::Connection;
use crate::runtime::peers::Presence;
use crate::wire::resp::Reply;

/// Queries that may wait on one link; a link with more is dead.
const QUERIES_MAX: usize = 128;

type Query = (Tag, Vec<Bytes>);

/// All links.
pub(super) struct Links {
    inputs: mpsc::Sender<Input>,
    /// None: there is no link between nodes, whose word is asked.
    presence: Option<Presence>,
    open: HashMap<LinkId, (mpsc::Sender<Query>, tokio::task::AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Links {
    pub(super) fn new(inputs: mpsc::Sender<Input>, presence: Option<Presence>) -> Self {
        Self { inputs, presence, open: HashMap::new(), tasks: JoinSet::new() }
    }

    pub(super) fn connect(&mut self, link: LinkId, address: SocketAddr, limit: Duration) {
        // Tasks that have ended by themselves are forgotten here, so that the set does not grow.
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|_, (queries, _)| !queries.is_closed());
        let (queries, received) = mpsc::channel(QUERIES_MAX);
        let task =
            self.tasks.spawn(serve(link, (address, limit), self.presence.clone(), received, self.inputs.clone()));
        self.open.insert(link, (queries, task));
    }

    pub(super) fn hang_up(&mut self, link: LinkId) {
        if let Some((_, task)) = self.open.remove(&link) {
            task.abort();
        }
    }

    /// Sends a query; a reason if the link can take no more and was given up.
    pub(super) fn query(&mut self, link: LinkId, tag: Tag, args: Vec<Bytes>) -> Option<String> {
        // A link that has ended says so itself.
        let (queries, _) = self.open.get(&link)?;
        match queries.try_send((tag, args)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.hang_up(link);
                Some(format!("{QUERIES_MAX} queries wait already"))
            }
        }
    }

    /// Lets what was sent last leave, and ends all links.
    pub(super) async fn leave(&mut self, limit: Duration) {
        self.open.clear();
        let _ = timeout(limit, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.abort_all();
    }
}

async fn serve(
    link: LinkId,
    (address, limit): (SocketAddr, Duration),
    presence: Option<Presence>,
    queries: mpsc::Receiver<Query>,
    inputs: mpsc::Sender<Input>,
) {
    let reason = match open(address, limit, presence).await {
        Ok(connection) => {
            if inputs.send(Input::LinkUp(link, connection.local())).await.is_err() {
                return;
            }
            match exchange(link, connection, queries, &inputs).await {
                Some(reason) => reason,
                // Nobody asks any more: the link was given up on purpose.
                None => return,
            }
        }
        Err(reason) => reason,
    };
    // At the end of the process nobody listens.
    let _ = inputs.send(Input::LinkDown(link, reason)).await;
}

/// A connection to where the node is that belongs there: what is said first is a password.
async fn open(address: SocketAddr, limit: Duration, presence: Option<Presence>) -> Result<Connection, String> {
    let connection = Connection::open(address, limit).await.map_err(|error| error.to_string())?;
    if let Some(mut presence) = presence {
        presence.show(address, limit).await.map_err(|error| error.to_string())?;
    }
    Ok(connection)
}

/// Until the link fails, with the reason, or is not wanted any more.
async fn exchange(
    link: LinkId,
    mut connection: Connection,
    mut queries: mpsc::Receiver<Query>,
    inputs: &mpsc::Sender<Input>,
) -> Option<String> {
    let mut tags: VecDeque<Tag> = VecDeque::new();
    loop {
        tokio::select! {
            query = queries.recv() => {
                let mut next = Some(query?);
                while let Some((tag, args)) = next {
                    connection.commands.push(&args);
                    tags.push_back(tag);
                    next = queries.try_recv().ok();
                }
                if let Err(error) = connection.commands.flush().await {
                    return Some(error.to_string());
                }
            }
            reply = connection.replies.next() => {
                let reply = match reply {
                    Ok(reply) => reply,
                    Err(error) => return Some(error.to_string()),
                };
                let input = match message(&reply) {
                    Some(payload) => Input::Message(link, payload),
                    None => match tags.pop_front() {
                        Some(tag) => Input::Reply(link, tag, reply),
                        None => return Some(format!("{reply:?} answers nothing").chars().take(200).collect()),
                    },
                };
                inputs.send(input).await.ok()?;
            }
        }
    }
}

/// The payload of a message to a subscriber.
fn message(reply: &Reply) -> Option<Bytes> {
    match reply.array()? {
        [kind, _, Reply::Bulk(payload)] if kind.text() == Some("message") => Some(payload.clone()),
        _ => None,
    }
}
