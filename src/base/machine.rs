//! The one shape of every core.

use super::Instant;

/// A deterministic state machine: the same start and the same inputs give the same outputs.
///
/// How one is driven is [`Drive`](super::drive::Drive)'s: the clock is read for every input, and never shows a time older than
/// what was waited for last; every input that already waits is fed before a deadline is believed (a host that was starved must
/// read the packets in its sockets before it declares a peer dead); outputs run in their order; [`Machine::TICK`] is fed when
/// [`Machine::deadline`] has passed.
pub trait Machine {
    /// A fact from outside: bytes, a reply, an exit, an order.
    type Input;
    /// A request to the outside or an event.
    type Output;
    /// The input that says "only time has passed". A spurious one is harmless.
    const TICK: Self::Input;

    /// Takes in one fact. `now` never goes back between calls. Appends to `out`, whose order is part of the contract.
    fn handle(&mut self, now: Instant, input: Self::Input, out: &mut Vec<Self::Output>);

    /// When to feed [`Machine::TICK`] if nothing else happens. After a tick at `t` this is later than `t`, or none.
    fn deadline(&self) -> Option<Instant>;
}
