//! A sentinel without a record. It may never have run before, or it has lost its disk, and with it the votes that it gave: a second
//! vote in the same epoch could make a second master. So it only listens until it has heard a majority of the *others*, where "no
//! record" counts as heard, and then takes the highest epoch that they have reached as voted. A leader elected with the lost vote
//! is among the others, or has not been heard yet: while any sentinel is missing, it listens for one election time-out more.
//!
//! So the first start of a cluster needs every sentinel once (of five or more: all but one or more). An operator who knows that the
//! missing ones are lost overrides it: `vigie bootstrap`.

use std::time::Duration;

use crate::base::{EPOCH_STEP, Epoch, Instant, census};

use super::event::{Event, Severity};
use super::ids::NOBODY;
use super::peer::Peer;
use super::{Agreement, Amnesia};

/// At the start of a cluster some are up before others: it is reported only after this time.
const GRACE: Duration = Duration::from_secs(5);

impl Agreement {
    /// Ends the wait once enough of the others have been heard.
    pub(super) fn remember(&mut self, now: Instant) {
        let Some(amnesia) = self.amnesia else { return };
        let (silent, all) = (self.unheard().count(), self.peers.len());
        let enough = all - silent >= census::majority(all);
        let enough_since = enough.then(|| amnesia.enough_since.unwrap_or(now));
        let told_at = self.started_at + GRACE;
        let told = amnesia.told || now >= told_at;
        self.amnesia = Some(Amnesia { enough_since, told });
        if told && !amnesia.told {
            let text = self.forgetful();
            self.publish(Event::new("no-record", Severity::Warn, text));
        } else if !told {
            self.wake_at(told_at);
        }
        match enough_since.map(|since| if silent == 0 { now } else { since + self.timers.election }) {
            Some(due) if due <= now => {
                self.go_on_from_others(now);
            }
            Some(due) => self.wake_at(due),
            None => {}
        }
    }

    /// The other sentinels that were not heard since the start.
    fn unheard(&self) -> impl Iterator<Item = &Peer> {
        let greeted = |peer: &Peer| peer.stock && peer.last_hello > self.started_at;
        self.peers.iter().filter(move |peer| peer.fresh_facts().is_none() && !greeted(peer))
    }

    /// The sentinels that it waits for.
    pub(super) fn waits_for(&self) -> Vec<String> {
        self.amnesia.map_or_else(Vec::new, |_| self.unheard().map(Peer::label).collect())
    }

    /// The fault that is shown while it still waits, after [`GRACE`].
    pub(super) fn forgetfulness(&self) -> Option<String> {
        self.amnesia.filter(|amnesia| amnesia.told).map(|_| self.forgetful())
    }

    fn forgetful(&self) -> String {
        format!(
            "this sentinel has no record (a first start, or a lost disk) and gives no vote until it has heard the others; not heard: \
             {}; if they are lost for good: vigie bootstrap",
            self.waits_for().join(", ")
        )
    }

    /// Takes the epoch that the others have reached as voted, and their decision as its own. Returns the epoch.
    pub(super) fn go_on_from_others(&mut self, now: Instant) -> Epoch {
        self.amnesia = None;
        let mut epochs: Vec<Epoch> =
            self.peers.iter().filter_map(Peer::fresh_facts).map(|facts| facts.current_epoch).collect();
        epochs.sort_unstable();
        // An epoch far above the lowest comes from a disk that was restored from elsewhere: see `EPOCH_STEP`.
        let common = epochs.first().copied().unwrap_or(0);
        let near = epochs.into_iter().filter(|epoch| *epoch <= common.saturating_add(EPOCH_STEP)).max();
        let highest = self.current_epoch.max(near.unwrap_or(0));
        self.current_epoch = highest;
        self.dirty = true;
        self.touch_all();
        for master in self.masters.iter_mut().filter(|_| highest > 0) {
            master.vote = Some((NOBODY, highest));
        }
        for (p, m) in
            (0..self.peers.len()).flat_map(|p| (0..self.masters.len()).map(move |m| (p, m))).collect::<Vec<_>>()
        {
            self.adopt_said(p, m, now);
        }
        if highest > 0 {
            let text =
                format!("this sentinel had no record: it goes on from epoch {highest}, which the others have reached");
            self.publish(Event::new("record-renewed", Severity::Warn, text));
        }
        highest
    }
}
