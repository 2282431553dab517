//! Who holds the virtual addresses: at most one of those that hear each other, nobody only where nobody could, and nobody takes one
//! from a master that it hears.

use std::collections::BTreeMap;
use std::time::Duration;

use vigie::base::Instant;
use vigie::base::node::VipState;
use vigie::cores::vrrp::State;

use crate::plan::{STORM_DELAY, STORM_JITTER};
use crate::segment::KERNEL_MAX;
use crate::world::{Happening, World, ms};

/// A node speaks over the peer link at least so often.
const FRAME_EVERY: Duration = ms(100);
/// So many frames in a row make two nodes known to each other again: one to ask, one to answer, and one that says who holds.
const FRAMES: u32 = 3;
/// Where one of 20 is lost, so many in a row are not lost all; in a million worlds, perhaps.
const LOST_MAX: u32 = 6;

/// What is counted of the virtual addresses.
#[derive(Debug, Default)]
pub struct Watch {
    /// Two that hold one address and hear each other, since when.
    together: BTreeMap<(usize, usize), Instant>,
    /// Those that could hold the address, and hear nobody that does, since when.
    alone: BTreeMap<usize, Instant>,
    /// Those that hold the address although clients cannot be served there, since when.
    unfit: BTreeMap<usize, Instant>,
    /// Those that hear each other, of which the second is master, since when.
    heard: BTreeMap<(usize, usize), Instant>,
    /// Groups of which two hold the address, wherever they are, since when.
    two: BTreeMap<usize, Instant>,
}

/// Notes since when something is so; true if it is so from now on.
fn begins<K: Ord>(since: &mut BTreeMap<K, Instant>, of: K, is: bool, now: Instant) -> bool {
    if !is {
        since.remove(&of);
        return false;
    }
    let before = since.len();
    since.entry(of).or_insert(now);
    since.len() > before
}

impl World {
    /// So long may two hold an address although they hear each other. The lower one hears an advert of the higher within one
    /// interval, and gives up at once, unless the link still says what was so before the two heard each other, or before the
    /// higher one was master: then with the frame that says better. Where frames get lost, a few times that.
    fn together_max(&self) -> Duration {
        let way = self.plan.delay + self.plan.jitter;
        let round = self.plan.interval.duration() + FRAME_EVERY * FRAMES + way * (FRAMES + 1);
        round * if self.plan.loss > 0 { LOST_MAX } else { 1 } + KERNEL_MAX
    }

    /// So long may one that could hold the address go without hearing a holder: three intervals and the skew, which is less than a
    /// fourth, after the last advert that was on its way.
    fn alone_max(&self) -> Duration {
        self.plan.interval.duration() * 4 + STORM_DELAY + STORM_JITTER + KERNEL_MAX
    }

    /// So long may one that is not fit any more hold it: until its kernel has done what it is asked to at once, behind what it was
    /// asked before.
    fn unfit_max(&self) -> Duration {
        KERNEL_MAX * 2
    }

    /// Whether a proxy's process runs and is not about to leave.
    fn acts(&self, host: usize) -> bool {
        let worker = &self.workers[host];
        self.hosts[host].powered && worker.lives && !worker.frozen && worker.seat.is_some()
    }

    fn is_router_master(&self, host: usize) -> bool {
        self.workers[host].seat.as_ref().is_some_and(|seat| seat.router().vip_state() == VipState::Master)
    }

    fn hear_each_other(&self, a: usize, b: usize) -> bool {
        let hear = self.net.passes(a, b) && self.net.passes(b, a) && !self.storms();
        hear && self.acts(a) && self.acts(b)
    }

    fn are_together(&self, a: usize, b: usize) -> bool {
        self.hear_each_other(a, b) && self.holds(a) && self.holds(b)
    }

    fn is_unfit(&self, host: usize) -> bool {
        let unfit = |seat: &crate::vip::Seat| !seat.usable || seat.leaves;
        let unfit = self.ports[host].unplugged || self.workers[host].seat.as_ref().is_some_and(unfit);
        unfit && self.acts(host) && self.holds(host)
    }

    /// A router becomes master. Nobody who is heard, and not of lower priority, may have been one.
    pub fn takes_over(&mut self, host: usize) {
        // Where adverts get lost, a few in a row do now and then.
        if self.plan.loss > 0 {
            return;
        }
        let rank = |of: usize| self.plan.priorities[of - self.data_hosts];
        let long = self.together_max();
        let lasted = |other: &usize| self.watch.heard.get(&(host, *other)).is_some_and(|at| self.now.since(*at) > long);
        let goes_before = |other: &usize| self.plan.preempt && rank(host) > rank(*other);
        let over = self.proxies_of(self.led_to(host)).find(|other| lasted(other) && !goes_before(other));
        if let Some(other) = over {
            self.checks.violated(format!("v{host} takes the address although it hears v{other}, which is master"));
        }
    }

    fn is_alone(&self, host: usize) -> bool {
        // What the kernel has refused is tried again later.
        let waits = |state: &State| matches!(state, State::Initialize { retry_at: Some(_) });
        let fit = |seat: &crate::vip::Seat| seat.usable && !seat.leaves && !waits(seat.router().state());
        let fit = self.acts(host) && !self.ports[host].unplugged && self.workers[host].seat.as_ref().is_some_and(fit);
        let speaks = |other: usize| self.net.passes(other, host) && self.acts(other) && self.is_router_master(other);
        fit && !self.is_router_master(host) && !self.proxies_of(self.led_to(host)).any(speaks)
    }

    /// Something may have changed of what the watch looks at.
    pub fn watch_addresses(&mut self) {
        let now = self.now;
        for group in 0..self.groups.len() {
            let proxies: Vec<usize> = self.proxies_of(group).collect();
            let since = self.watch.two.remove(&group);
            self.stats.two_holders += since.map_or(Duration::ZERO, |since| now.since(since));
            if self.holders(group).len() > 1 {
                self.watch.two.insert(group, now);
            }
            for a in &proxies {
                for b in proxies.iter().filter(|b| *b != a) {
                    let heard = self.hear_each_other(*a, *b) && self.is_router_master(*b);
                    begins(&mut self.watch.heard, (*a, *b), heard, now);
                    let together = a < b && self.are_together(*a, *b);
                    if begins(&mut self.watch.together, (*a, *b), together, now) {
                        self.later(self.together_max(), Happening::Judge);
                    }
                }
                let (unfit, alone) = (self.is_unfit(*a), self.is_alone(*a));
                if begins(&mut self.watch.unfit, *a, unfit, now) {
                    self.later(self.unfit_max(), Happening::Judge);
                }
                if begins(&mut self.watch.alone, *a, alone, now) {
                    self.later(self.alone_max(), Happening::Judge);
                }
            }
        }
    }

    /// Whether anything of that has lasted too long.
    pub fn judge_addresses(&mut self) {
        self.watch_addresses();
        let (now, together, alone) = (self.now, self.together_max(), self.alone_max());
        let pair = self.watch.together.iter().find(|(_, since)| now.since(**since) >= together);
        if let Some(((a, b), since)) = pair {
            let what = format!("v{a} and v{b} hear each other and both hold the address since {since}");
            return self.checks.violated(what);
        }
        let unfit = self.unfit_max();
        if let Some((host, since)) = self.watch.unfit.iter().find(|(_, since)| now.since(**since) >= unfit) {
            let what = format!("v{host} keeps the address although no client can be served there since {since}");
            return self.checks.violated(what);
        }
        if let Some((host, since)) = self.watch.alone.iter().find(|(_, since)| now.since(**since) >= alone) {
            let what =
                format!("v{host} could hold the address, hears nobody who does, and does not take it since {since}");
            self.checks.violated(what);
        }
    }

    /// What is not as it should be of the virtual addresses once nothing goes wrong any more: exactly one proxy of each group holds
    /// the address, of those that are fit to.
    pub fn address_unwell(&self, group: usize) -> Option<String> {
        let proxies: Vec<usize> = self.proxies_of(group).collect();
        let fit =
            |host: &&usize| self.acts(**host) && self.workers[**host].seat.as_ref().is_some_and(|seat| seat.usable);
        let fit: Vec<usize> = proxies.iter().filter(fit).copied().collect();
        let masters: Vec<usize> = proxies.iter().copied().filter(|host| self.is_router_master(*host)).collect();
        let holders = self.holders(group);
        let one = usize::from(!fit.is_empty());
        let good = holders.len() == one && masters == holders && holders.iter().all(|host| fit.contains(host));
        (!good).then(|| {
            format!("the address of group {group}: of {proxies:?} {fit:?} are fit, {masters:?} are masters, {holders:?} hold it")
        })
    }
}
