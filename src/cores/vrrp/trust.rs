//! Whose adverts count, and what the peer link has to say against them.
//!
//! VRRP proves nothing: a packet says where it comes from, and anybody on the segment can say so. The peer link proves who
//! speaks. So the link is asked whether a proxy in whose name an advert came holds the addresses. It only ever takes
//! weight from an advert and never adds any: a master that is silent is replaced whatever the link says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Refusal;
use crate::base::Instant;

/// For this long adverts count that the link contradicts: a router that has just become master is heard before its word over
/// the link. Longer than a frame of the link is acted upon (500 ms): by then either a new one has come, or nothing is known.
pub(super) const GRACE: Duration = Duration::from_millis(700);

/// What the peer link says of another proxy and this virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Not heard of late: nothing is known.
    Silent,
    /// It says that it does not hold the addresses; or it has been silent for long, though most nodes are heard.
    Idle,
    /// It says that it holds them.
    Holds,
}

/// Who has sent an advert, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// The proxy of the file; none: named in `vip.peers`, or one of the proxies and nobody knows which.
    pub(super) proxy: Option<IpAddr>,
    /// Whether it is named in `vip.peers`: of those the link knows nothing.
    pub(super) named: bool,
    /// What the link says of it.
    pub(super) word: Word,
}

/// Adverts that the link contradicts, in a run without longer pauses than a master's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Where the last one came from.
    pub(super) from: IpAddr,
    /// Its priority.
    pub(super) priority: u8,
    since: Instant,
    last: Instant,
    /// When people are told, if nobody was yet and they are to be.
    tell_at: Option<Instant>,
}

/// The senders that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trust {
    own_address: IpAddr,
    peers: Vec<IpAddr>,
    words: BTreeMap<IpAddr, Word>,
    /// By proxy; at none, of all whose place is not known. So there are never many.
    doubts: BTreeMap<Option<IpAddr>, Doubt>,
}

impl Trust {
    pub(super) fn new(own_address: IpAddr, proxies: &[IpAddr], peers: Vec<IpAddr>) -> Self {
        let words = proxies.iter().map(|proxy| (*proxy, Word::Silent)).collect();
        Self { own_address, peers, words, doubts: BTreeMap::new() }
    }

    /// Who sends from an address; `primary` is where this router's own adverts come from.
    pub(super) fn sender(&self, from: IpAddr, primary: Option<IpAddr>) -> Result<Sender, Refusal> {
        if self.peers.contains(&from) {
            // Nothing is ever said of those.
            return Ok(Sender { proxy: None, named: true, word: Word::Silent });
        }
        if let Some(word) = self.words.get(&from) {
            return Ok(Sender { proxy: Some(from), named: false, word: *word });
        }
        // Over IPv6 adverts come from link-local addresses, and so from addresses that are not in the file; likewise where
        // the interface does not carry the node's own. If nobody has named them, all that is known is whether the proxies
        // taken together contradict.
        if self.peers.is_empty() && !self.words.is_empty() && primary != Some(self.own_address) {
            let says = |wanted| self.words.values().any(|word| *word == wanted);
            let unless_idle = [Word::Holds, Word::Silent].into_iter().find(|word| says(*word));
            return Ok(Sender { proxy: None, named: false, word: unless_idle.unwrap_or(Word::Idle) });
        }
        Err(Refusal::Stranger)
    }

    /// Takes in what the link says now. Proxies that it does not mention are silent.
    pub(super) fn hear(&mut self, said: &[(IpAddr, Word)]) {
        for (proxy, word) in &mut self.words {
            let now = said.iter().find(|(of, _)| of == proxy);
            *word = now.map_or(Word::Silent, |(_, word)| *word);
        }
    }

    /// Whether any proxy says that it holds the addresses.
    pub(super) fn held(&self) -> bool {
        self.words.values().any(|word| *word == Word::Holds)
    }

    /// Notes an advert that the link contradicts; returns how long that has been going on. A run ends with a pause of
    /// `patience`. With `tell`, people are told after [`GRACE`] even if it stays the only one.
    pub(super) fn doubt(
        &mut self,
        sender: Sender,
        (from, priority): (IpAddr, u8),
        tell: bool,
        patience: Duration,
        now: Instant,
    ) -> Duration {
        let before = self.doubts.get(&sender.proxy).filter(|doubt| now.since(doubt.last) < patience);
        let first = || (now, tell.then(|| now + GRACE));
        let (since, tell_at) = before.map_or_else(first, |doubt| (doubt.since, doubt.tell_at));
        self.doubts.insert(sender.proxy, Doubt { from, priority, since, last: now, tell_at });
        now.since(since)
    }

    /// The link does not contradict this sender.
    pub(super) fn clear(&mut self, sender: Sender) {
        if !sender.named {
            self.doubts.remove(&sender.proxy);
        }
    }

    /// The same for all senders.
    pub(super) fn clear_all(&mut self) {
        self.doubts.clear();
    }

    /// Ends the doubts that the link has cleared up, and returns those of masters that are heard.
    pub(super) fn confirmed(&mut self, patience: Duration, primary: Option<IpAddr>, now: Instant) -> Vec<Doubt> {
        let words: Vec<_> = self.doubts.values().map(|doubt| self.sender(doubt.from, primary)).collect();
        let mut confirmed = Vec::new();
        let mut words = words.into_iter();
        self.doubts.retain(|_, doubt| {
            let word = words.next().and_then(Result::ok).map(|sender| sender.word);
            if word == Some(Word::Holds) && now.since(doubt.last) < patience {
                confirmed.push(*doubt);
            }
            word == Some(Word::Idle)
        });
        confirmed
    }

    /// In whose name adverts come that the link contradicts.
    pub(super) fn claimant(&self, patience: Duration, now: Instant) -> Option<IpAddr> {
        self.doubts.values().find(|doubt| now.since(doubt.last) < patience).map(|doubt| doubt.from)
    }

    /// The doubts that people are to be told of by now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let due = self.doubts.values_mut().filter(|doubt| doubt.tell_at.is_some_and(|at| at <= now));
        due.map(|doubt| {
            doubt.tell_at = None;
            doubt.from
        })
        .collect()
    }

    /// When they are to be told next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.doubts.values().filter_map(|doubt| doubt.tell_at).min()
    }
}
