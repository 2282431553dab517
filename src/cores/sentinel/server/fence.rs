//! What stands behind the fence: what must not be said before it is on disk, and what must not overtake that.
//!
//! A store takes its time, and everything else goes on meanwhile: pings are answered, silence is judged. Only what promises
//! something waits for it.

use crate::cores::sentinel::{Answer, ClientId, Output};

use super::reply::error;

/// One output behind the fence.
#[derive(Debug)]
pub(super) enum Fenced {
    /// Untrue unless what must survive is on disk.
    Promise(Output),
    /// The same; it answers a client, who is told if it could not be stored.
    Answer(ClientId, Answer),
    /// Promises nothing, and yet must not come before an answer to the same client.
    InOrder(ClientId, Output),
}

impl Fenced {
    fn open(self) -> Output {
        match self {
            Self::Promise(output) | Self::InOrder(_, output) => output,
            Self::Answer(client, answer) => Output::Respond(client, answer),
        }
    }

    /// What is left of it when what it promises could not be stored.
    fn broken(self) -> Option<Output> {
        match self {
            Self::Promise(_) => None,
            Self::Answer(client, _) => {
                Some(Output::Respond(client, error("ERR refused: what is promised cannot be stored")))
            }
            Self::InOrder(_, output) => Some(output),
        }
    }

    /// Whether the client waits for it as an answer.
    pub(super) fn keeps_waiting(&self, client: ClientId) -> bool {
        match self {
            Self::Promise(_) => false,
            Self::Answer(waiting, _) | Self::InOrder(waiting, _) => *waiting == client,
        }
    }
}

/// What waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// Behind the store that is under way.
    behind: Vec<Fenced>,
    /// Behind the next one.
    next: Vec<Fenced>,
}

impl Fence {
    /// What was said in a turn. Facts that are posted are whole state: newer ones take the place of those that still wait.
    pub(super) fn add(&mut self, fenced: &mut Vec<Fenced>) {
        let is_post = |fenced: &Fenced| matches!(fenced, Fenced::Promise(Output::Post(_)));
        if fenced.iter().any(is_post) {
            self.next.retain(|waiting| !is_post(waiting));
        }
        self.next.append(fenced);
    }

    /// Whether anything is promised that no store has begun for.
    pub(super) fn is_wanted(&self) -> bool {
        self.next.iter().any(|fenced| !matches!(fenced, Fenced::InOrder(..)))
    }

    /// Whether a client waits for an answer behind the fence.
    pub(super) fn keeps_waiting(&self, client: ClientId) -> bool {
        self.behind.iter().chain(&self.next).any(|fenced| fenced.keeps_waiting(client))
    }

    /// A store begins, of everything that was promised so far.
    pub(super) fn close(&mut self) {
        debug_assert!(self.behind.is_empty(), "one store after the other");
        self.behind = std::mem::take(&mut self.next);
    }

    /// What need not wait for a store that has not begun.
    pub(super) fn pass(&mut self) -> impl Iterator<Item = Output> {
        self.next.drain(..).map(Fenced::open)
    }

    /// The store that was under way has ended: what may be said now.
    pub(super) fn open(&mut self, stored: bool) -> impl Iterator<Item = Output> {
        let behind = std::mem::take(&mut self.behind);
        behind.into_iter().filter_map(move |fenced| if stored { Some(fenced.open()) } else { fenced.broken() })
    }
}
