//! Clients that write, and the account of what they were told.

use std::collections::{BTreeMap, BTreeSet};

use vigie::base::Instant;

use crate::redis::Work;
use crate::world::{Happening, World, ms};

/// One client, on a host of its own.
#[derive(Debug)]
pub struct Writer {
    pub group: usize,
    pub host: usize,
    target: Option<usize>,
    heard_at: Instant,
}

impl Writer {
    pub fn new(group: usize, host: usize) -> Self {
        Self { group, host, target: None, heard_at: Instant::START }
    }
}

/// All writes of a world.
#[derive(Debug, Default)]
pub struct Writes {
    issued: u32,
    /// Group of each that was acknowledged to its client, and whether a replica had it by then.
    pub acked: BTreeMap<u32, (usize, bool)>,
    copied: BTreeSet<u32>,
}

impl Writes {
    /// A replica has these.
    pub fn copied(&mut self, writes: &[u32]) {
        self.copied.extend(writes);
    }
}

impl World {
    pub fn write_due(&mut self, w: usize) {
        if self.quiet_at.is_some_and(|at| self.now > at + ms(5_000)) {
            return;
        }
        self.later(self.plan.write_every, Happening::WriteDue(w));
        self.writes.issued += 1;
        let (id, group, host) = (self.writes.issued, self.writers[w].group, self.writers[w].host);
        if self.now.since(self.writers[w].heard_at) > ms(500) {
            self.writers[w].target = None;
        }
        if self.writers[w].target.is_none() {
            let s = self.dice.below(self.plan.sentinels);
            let reached = self.net.passes(host, s) && self.net.passes(s, host) && self.sentinels[s].core.is_some();
            let decision =
                self.said(s).filter(|_| reached).and_then(|facts| crate::dropin::about(facts, group)?.decision);
            self.writers[w].target = decision.and_then(|decision| self.redis_of(decision.master));
            self.writers[w].heard_at = self.now;
        }
        let Some(r) = self.writers[w].target else { return };
        if self.net.passes(host, r) && !self.net.loses(host, r) {
            let takes = self.net.takes(host, r);
            self.later(takes, Happening::Works(r, self.redis[r].incarnation, Work::Write(w, id)));
        }
    }

    pub fn write_arrives(&mut self, r: usize, w: usize, id: u32) {
        let (host, redis) = (self.writers[w].host, &self.redis[r]);
        if !redis.is_master() || redis.loading {
            self.writers[w].target = None;
            return;
        }
        if redis.pause.is_some() {
            return self.redis[r].held.push((w, id));
        }
        self.append(r, &[id]);
        if self.net.passes(r, host) {
            let takes = self.net.takes_surely(r, host);
            self.later(takes, Happening::Acked(w, id));
        }
    }

    pub fn acked(&mut self, w: usize, id: u32) {
        self.writers[w].heard_at = self.now;
        let copied = self.writes.copied.contains(&id);
        self.writes.acked.insert(id, (self.writers[w].group, copied));
    }

    /// At the end: acknowledged writes that are gone, and those among them that a replica had had.
    pub fn account(&mut self, group: usize, master: usize) {
        let kept: BTreeSet<u32> = self.redis[master].data.iter().copied().collect();
        for (id, (_, copied)) in self.writes.acked.iter().filter(|(_, (of, _))| *of == group) {
            self.stats.acked += 1;
            if !kept.contains(id) {
                self.stats.lost += 1;
                self.stats.lost_copied += u64::from(*copied);
            }
        }
    }
}
