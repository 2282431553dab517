//! What the agreement has to say, in the order in which it says it. What clients hear of it, the server puts into words.

use super::{ClientId, Event, FailoverReport, Output, Record};

/// One thing to say or to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Goes out as it is.
    Output(Output),
    /// To the journal, and to every client that has subscribed to its name.
    Event(Event),
    /// What has become of an order that a client waits for.
    Settled(ClientId, Settled),
}

/// What has become of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The change is on disk, and true.
    Changed,
    /// The change could not be stored and never was true; the reason in words.
    NotStored(String),
    /// The change names a script that cannot be run.
    NotExecutable(Script),
    /// The switchover has ended; if nothing came of it, the reason in words.
    Switchover(Result<FailoverReport, String>),
}

/// How the fence stands before what is promised.
#[derive(Debug)]
pub(super) enum Gate {
    /// Nothing has to be stored.
    Open,
    /// This has to be on disk first.
    Store(Record),
    /// A store is under way: what it does not cover waits for the next one.
    Shut,
}

impl From<Output> for Effect {
    fn from(output: Output) -> Self {
        Self::Output(output)
    }
}

impl From<(ClientId, Settled)> for Effect {
    fn from((client, settled): (ClientId, Settled)) -> Self {
        Self::Settled(client, settled)
    }
}

impl From<Event> for Effect {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// Whose script it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// `notification-script`
    Notification,
    /// `client-reconfig-script`
    ClientReconfig,
}

/// Effects that are not carried out yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Effects(Vec<Effect>);

impl Effects {
    pub(super) fn push(&mut self, effect: impl Into<Effect>) {
        self.0.push(effect.into());
    }

    pub(super) fn extend<E: Into<Effect>>(&mut self, effects: impl IntoIterator<Item = E>) {
        self.0.extend(effects.into_iter().map(Into::into));
    }

    pub(super) fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    /// Takes out all of them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Effect> {
        self.0.drain(..)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Effect> {
        self.0.iter()
    }
}
