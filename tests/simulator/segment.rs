//! The segment of the virtual addresses: adverts and announcements as frames of the network, what the kernel of each proxy holds,
//! and where the clients are led by what was announced last.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use vigie::base::Instant;
use vigie::cores::vrrp::{HOLD_LIFETIME, Hold, Input, Router};
use vigie::wire::arp::Mac;
use vigie::wire::vrrp::{Advert, ChecksumForm, GROUP_V4, HOP_LIMIT, Received, emit, parse};

use crate::drive::Lane;
use crate::world::{Happening, World, ms, redis_at};

/// The kernel does what it is asked to within so long.
pub const KERNEL_MAX: Duration = ms(100);
/// Between two looks of a process that does not run whether it runs again.
const AGAIN: Duration = ms(5);

/// What a frame to everybody on the segment says.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A message of VRRP.
    Advert(Rc<[u8]>),
    /// The virtual address of a group is at the sender (ARP).
    Claim(usize),
}

/// The interface of a proxy, as its kernel has it: it outlives the process.
#[derive(Clone, Debug, Default)]
pub struct Port {
    /// The kernel drops the virtual address then, by the clock of the host.
    held_until: Option<Instant>,
    /// Its cable is out.
    pub unplugged: bool,
    /// The kernel refuses addresses.
    pub refuses: bool,
}

/// The virtual address of a group.
pub fn virtual_address(group: usize) -> IpAddr {
    IpAddr::from([10, 0, 1, u8::try_from(group + 1).expect("few groups")])
}

fn mac(host: usize) -> Mac {
    [2, 0, 0, 0, 0, u8::try_from(host).expect("few hosts")]
}

impl World {
    /// Whether the kernel of a proxy has the virtual address.
    pub fn holds(&self, host: usize) -> bool {
        let until = self.ports[host].held_until;
        self.hosts[host].powered && until.is_some_and(|at| self.local(host) < at)
    }

    /// Those of a group's proxies that hold its virtual address.
    pub fn holders(&self, group: usize) -> Vec<usize> {
        self.proxies_of(group).filter(|host| self.holds(*host)).collect()
    }

    /// Sends a frame to everybody on the segment: the other proxies, and, if they are to know, the clients.
    fn broadcast(&mut self, from: usize, frame: &Frame) {
        let nodes = self.workers.len();
        let last = match frame {
            Frame::Advert(_) => nodes,
            Frame::Claim(_) => self.hosts.len(),
        };
        for to in (self.data_hosts..last).filter(|to| *to != from) {
            if self.net.passes(from, to) && !self.net.loses(from, to) {
                let takes = self.net.takes(from, to);
                self.later(takes, Happening::Frame(to, from, frame.clone()));
            }
        }
    }

    pub fn advertise(&mut self, from: usize, advert: &Advert, form: ChecksumForm) {
        let bytes = emit(advert, redis_at(from).ip(), GROUP_V4.into(), form);
        self.broadcast(from, &Frame::Advert(bytes.into()));
    }

    /// Tells the segment that the virtual address is here.
    pub fn announce(&mut self, from: usize) {
        let group = self.led_to(from);
        self.broadcast(from, &Frame::Claim(group));
    }

    pub fn frame(&mut self, to: usize, from: usize, frame: &Frame) {
        if !self.hosts[to].powered || !self.net.passes(from, to) {
            return;
        }
        if let Some(writer) = to.checked_sub(self.workers.len()) {
            if let Frame::Claim(group) = frame {
                self.writers[writer].learns(*group, from);
            }
            return;
        }
        if !self.workers[to].seat.as_ref().is_some_and(|seat| seat.has_room()) {
            return;
        }
        let input = match frame {
            Frame::Advert(bytes) => {
                let from = redis_at(from).ip();
                match parse(bytes, from, GROUP_V4.into()) {
                    Ok((advert, checksum)) => Input::Advert(Received { from, hop_limit: HOP_LIMIT, checksum, advert }),
                    Err(error) => Input::Malformed(error),
                }
            }
            Frame::Claim(group) if *group == self.led_to(to) => {
                Input::Claim { address: virtual_address(*group), mac: mac(from) }
            }
            Frame::Claim(_) => return,
        };
        self.feed::<Router>(to, Lane::First, input);
    }

    /// Asks the kernel for what the router wishes. One wish is carried out after the other, and only the last one counts.
    pub fn wish(&mut self, host: usize, wish: Hold) {
        let Some(seat) = self.workers[host].seat.as_mut() else { return };
        seat.wish = Some(wish);
        if !std::mem::replace(&mut seat.wishing, true) {
            self.ask_kernel(host);
        }
    }

    fn ask_kernel(&mut self, host: usize) {
        // Who changes addresses waits for the one lock of all network interfaces.
        let longest = if self.dice.chance(10) { KERNEL_MAX } else { ms(1) };
        let takes = self.dice.upto(longest);
        self.later(takes, Happening::Kernel(host, self.workers[host].boot));
    }

    /// The kernel has done what it was asked to, or refuses.
    pub fn kernel(&mut self, host: usize) {
        if self.workers[host].frozen {
            return self.later(AGAIN, Happening::Kernel(host, self.workers[host].boot));
        }
        let Some(seat) = self.workers[host].seat.as_mut() else { return };
        seat.wishing = false;
        match seat.wish.take() {
            Some(Hold::Held) if self.ports[host].refuses => {
                self.feed::<Router>(host, Lane::First, Input::Vip(Err("operation not permitted".to_owned())));
            }
            Some(Hold::Held) => {
                self.set_address(host, true);
                self.feed::<Router>(host, Lane::First, Input::Vip(Ok(())));
            }
            Some(Hold::Released) => self.set_address(host, false),
            None => {}
        }
    }

    /// Sets the virtual address of a host, or renews it, or takes it off.
    pub fn set_address(&mut self, host: usize, held: bool) {
        let before = self.holds(host);
        self.ports[host].held_until = held.then(|| self.local(host) + HOLD_LIFETIME);
        if before != held {
            self.note(|| format!("v{host} {}", if held { "has the address" } else { "has the address no more" }));
        }
        self.watch_addresses();
    }

    /// The guard finds its worker dead: it takes the address off, and says so to the segment. Which form of checksum the others
    /// take it does not know.
    pub fn abandon(&mut self, host: usize, resignation: &Advert) {
        if self.holds(host) {
            self.set_address(host, false);
            for form in [ChecksumForm::PseudoHeader, ChecksumForm::Plain] {
                self.advertise(host, resignation, form);
            }
        }
    }

    /// A client asks the segment where its address is: of those that have it and hear the question, the one whose answer comes first.
    pub fn find_address(&mut self, w: usize) -> Option<usize> {
        let (group, client) = (self.writers[w].group, self.writers[w].host);
        let reached = |host: &usize| self.net.passes(client, *host) && self.net.passes(*host, client);
        let reached: Vec<usize> = self.holders(group).into_iter().filter(reached).collect();
        reached.into_iter().min_by_key(|host| self.net.takes(client, *host))
    }
}
