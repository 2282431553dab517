//! Clients that write, and the account of what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vigie::base::Instant;

use crate::redis::Work;
use crate::world::{Happening, World, ms};

/// A session of a client with a proxy, in a process of that boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    pub host: usize,
    pub boot: u64,
    pub session: u64,
}

/// A write on its way.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub writer: usize,
    pub id: u32,
    /// None: the client speaks with the redis itself.
    pub via: Option<Via>,
}

/// One client, on a host of its own.
#[derive(Debug)]
pub struct Writer {
    pub group: usize,
    pub host: usize,
    /// Proxies that it may go through; none: it asks a sentinel, and goes to the redis itself.
    pub proxies: Vec<usize>,
    /// Whether it knows their virtual address only.
    pub by_address: bool,
    /// Where the virtual address is, by what it was told last.
    learnt: Option<usize>,
    /// The proxy that it goes through, of those it knows.
    at: usize,
    via: Option<Via>,
    target: Option<usize>,
    heard_at: Instant,
}

impl Writer {
    pub fn new(group: usize, host: usize, proxies: Vec<usize>, by_address: bool) -> Self {
        let (learnt, via, target) = (None, None, None);
        Self { group, host, proxies, by_address, learnt, at: 0, via, target, heard_at: Instant::START }
    }

    /// Somebody announces the virtual address of a group. A host that has never asked for it takes no note.
    pub fn learns(&mut self, group: usize, host: usize) {
        if self.by_address && self.group == group && self.learnt.is_some() {
            self.learnt = Some(host);
        }
    }
}

/// All writes of a world.
#[derive(Debug, Default)]
pub struct Writes {
    issued: u32,
    /// Group of each that was acknowledged to its client, and whether a replica had it by then.
    pub acked: BTreeMap<u32, (usize, bool)>,
    copied: BTreeSet<u32>,
    /// Since when two redis of a group take writes.
    two_since: BTreeMap<usize, Instant>,
}

impl Writes {
    /// A replica has these.
    pub fn copied(&mut self, writes: &[u32]) {
        self.copied.extend(writes);
    }
}

impl World {
    /// A redis has begun or ceased to take writes, or may have: for how long there were two of a group is counted. What a person
    /// has made a master by hand is not.
    pub fn masters_changed(&mut self, r: usize) {
        let (group, now) = (self.redis[r].group, self.now);
        let takes = |r: &&usize| self.redis[**r].takes_writes();
        let since = self.writes.two_since.remove(&group);
        let open: Vec<usize> = self.groups[group].iter().filter(takes).copied().collect();
        let two = open.len() > 1;
        // Who writes by the word of an operator may be cut off from the others: that was his risk.
        let risked = |r: &usize| self.checks.taker() == Some(*r) && !self.is_leased(*r);
        if two && open.iter().any(|r| self.is_leased(*r)) && !open.iter().any(risked) {
            self.checks.violated(format!("two acknowledge writes at once: {open:?}"));
        }
        if two {
            self.writes.two_since.insert(group, now);
        }
        self.stats.two_masters += since.map_or(Duration::ZERO, |since| now.since(since));
    }

    pub fn write_due(&mut self, w: usize) {
        if self.quiet_at.is_some_and(|at| self.now > at + ms(5_000)) {
            return;
        }
        self.later(self.plan.write_every, Happening::WriteDue(w));
        self.writes.issued += 1;
        let id = self.writes.issued;
        let silent = self.now.since(self.writers[w].heard_at) > ms(500);
        if self.writers[w].proxies.is_empty() {
            self.write_near(w, id, silent)
        } else {
            self.write_through(w, id, silent)
        }
    }

    /// A client that asks a sentinel where the master is.
    fn write_near(&mut self, w: usize, id: u32, silent: bool) {
        let (group, host) = (self.writers[w].group, self.writers[w].host);
        if silent {
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
            let write = Write { writer: w, id, via: None };
            self.later(takes, Happening::Works(r, self.redis[r].incarnation, Work::Write(write)));
        }
    }

    /// A client that goes through a proxy. When that is silent it tries the next one, or asks the segment again where the virtual
    /// address is.
    fn write_through(&mut self, w: usize, id: u32, silent: bool) {
        let session = self.count();
        let writer = &mut self.writers[w];
        if silent && writer.via.take().is_some() {
            writer.at = (writer.at + 1) % writer.proxies.len();
            writer.learnt = None;
        }
        let Some(host) = self.leads_to(w) else { return };
        let writer = &mut self.writers[w];
        let client = writer.host;
        if let Some(via) = writer.via.filter(|via| via.host != host) {
            // Who has the address now knows nothing of the connection.
            if self.holds(host) && self.net.passes(client, host) && self.net.passes(host, client) {
                let takes = self.net.takes_surely(client, host) + self.net.takes_surely(host, client);
                self.later(takes, Happening::Closed(w, via.session));
            }
            return;
        }
        self.stats.by_address += u64::from(writer.by_address && writer.via.is_none());
        let via = match writer.via {
            Some(via) => via,
            None => {
                writer.heard_at = self.now;
                let via = Via { host, boot: self.workers[host].boot, session };
                *writer.via.insert(via)
            }
        };
        if self.net.passes(client, host) {
            let takes = self.net.takes_surely(client, host);
            self.later(takes, Happening::Asked(via, w, id));
        }
    }

    /// The proxy that a client's packets go to.
    fn leads_to(&mut self, w: usize) -> Option<usize> {
        let writer = &self.writers[w];
        if !writer.by_address {
            return Some(writer.proxies[writer.at]);
        }
        if writer.learnt.is_none() {
            self.writers[w].learnt = self.find_address(w);
            self.stats.astray += u64::from(self.writers[w].learnt.is_none());
        }
        self.writers[w].learnt
    }

    /// A proxy has closed a session.
    pub fn session_closed(&mut self, w: usize, session: u64) {
        self.writers[w].via.take_if(|via| via.session == session);
    }

    pub fn write_arrives(&mut self, r: usize, write: Write) {
        let Write { writer, id, via } = write;
        let redis = &self.redis[r];
        let back = via.map_or(self.writers[writer].host, |via| via.host);
        if !redis.is_master() || redis.fenced || redis.loading {
            match via {
                Some(via) if self.net.passes(r, back) => {
                    let takes = self.net.takes_surely(r, back);
                    self.later(takes, Happening::Answered(via, writer, id, false));
                }
                Some(_) => {}
                None => self.writers[writer].target = None,
            }
            return;
        }
        if redis.pause.is_some() {
            return self.redis[r].held.push(write);
        }
        self.append(r, &[id]);
        if self.net.passes(r, back) {
            let since = self.redis[r].master_since;
            let newer = |other: &usize| self.redis[*other].takes_writes() && self.redis[*other].master_since > since;
            let group = &self.groups[self.redis[r].group];
            self.stats.acked_by_older += u64::from(group.iter().any(newer));
            let takes = self.net.takes_surely(r, back);
            self.later(
                takes,
                via.map_or(Happening::Acked(writer, id), |via| Happening::Answered(via, writer, id, true)),
            );
        }
    }

    pub fn acked(&mut self, w: usize, id: u32) {
        self.writers[w].heard_at = self.now;
        let copied = self.writes.copied.contains(&id);
        self.writes.acked.insert(id, (self.writers[w].group, copied));
    }

    /// The answer is an error.
    pub fn refused(&mut self, w: usize) {
        self.writers[w].heard_at = self.now;
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
