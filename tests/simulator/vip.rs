//! The virtual routers of the proxies: the real machine in each process, and what it is told there.

use std::net::IpAddr;
use std::time::Duration;

use vigie::base::node::{VipFacts, VipState};
use vigie::base::{Instant, Machine};
use vigie::cores::cluster::{Part, View};
use vigie::cores::vrrp::{Config, Event, Hold, Input, Output, Router, Word};
use vigie::runtime::drive::Flow;
use vigie::runtime::vip::words;

use crate::drive::{Driver, Kind, Lane, Lives};
#[cfg(feature = "sabotage")]
use crate::sabotage::Broken;
use crate::segment::virtual_address;
use crate::world::{Happening, World, ms, redis_at};

/// Frames that wait for a process that does not run; what comes then is lost.
const WAITING_MAX: usize = 256;
/// A view that is older says nothing.
const VIEW_AGE_MAX: Duration = ms(1_500);

/// What the runtime has for one virtual router.
pub struct Seat {
    driver: Driver<Router>,
    /// What the link was last found to say of the other proxies.
    words: Vec<(IpAddr, Word)>,
    /// What the kernel is to be asked for next.
    pub wish: Option<Hold>,
    /// Whether it is being asked.
    pub wishing: bool,
    /// Whether clients can be served here, by the word of the proxy.
    pub usable: bool,
    /// Whether it was told to stop.
    pub leaves: bool,
}

impl Seat {
    pub fn has_room(&self) -> bool {
        self.driver.waiting() < WAITING_MAX
    }

    /// Whether something is left to be done, by it or for it.
    pub fn is_busy(&self) -> bool {
        self.wishing || self.driver.waiting() > 0
    }

    pub fn router(&self) -> &Router {
        &self.driver.machine
    }
}

/// The id of the virtual router of a group.
fn id(group: usize) -> u8 {
    51 + u8::try_from(group).expect("few groups")
}

impl World {
    /// The proxies that share the virtual address of a group.
    pub fn proxies_of(&self, group: usize) -> impl Iterator<Item = usize> + use<> {
        (self.data_hosts + group..self.workers.len()).step_by(self.groups.len())
    }

    fn other_proxies(&self, host: usize) -> Vec<IpAddr> {
        self.proxies_of(self.led_to(host)).filter(|other| *other != host).map(|other| redis_at(other).ip()).collect()
    }

    pub fn new_seat(&self, host: usize) -> Seat {
        let group = self.led_to(host);
        let config = Config {
            virtual_router_id: id(group),
            priority: self.plan.priorities[host - self.data_hosts],
            interval: self.plan.interval,
            preempt: self.plan.preempt,
            addresses: vec![virtual_address(group)],
            own_address: redis_at(host).ip(),
            proxies: self.other_proxies(host),
            peers: Vec::new(),
        };
        let machine = Router::new(config).expect("a good plan");
        #[cfg(feature = "sabotage")]
        let machine = match self.sabotage {
            Some(Broken::Router(rule)) => machine.without(rule),
            Some(Broken::Sentinel(_) | Broken::Lease(_) | Broken::Promise(_)) | None => machine,
        };
        Seat {
            driver: Driver::new(machine),
            words: Vec::new(),
            wish: None,
            wishing: false,
            usable: false,
            leaves: false,
        }
    }

    /// A process with a virtual router begins: the state is posted, and the interface looked at.
    pub fn take_seat(&mut self, host: usize) {
        let Some(seat) = self.workers[host].seat.as_ref() else { return };
        let facts = facts(id(self.led_to(host)), seat.router(), seat.router().vip_state());
        self.post(host, Part::Vip(facts));
        let takes = self.dice.upto(ms(20));
        self.later(takes, Happening::Plugged(host, self.workers[host].boot));
    }

    /// Tells a router whether its interface can be used.
    pub fn plugged(&mut self, host: usize) {
        let link = if self.ports[host].unplugged { Err("no carrier".to_owned()) } else { Ok(redis_at(host).ip()) };
        self.feed::<Router>(host, Lane::First, Input::Link(link));
    }

    /// Tells a router what is news to it in the view of its node.
    pub fn router_news(&mut self, host: usize, view: &View) {
        if self.workers[host].seat.is_some() {
            let said = words(view, &self.other_proxies(host), id(self.led_to(host)));
            self.tell_words(host, said);
        }
    }

    /// The other proxies and their words; none, if the thread of the link has shown nothing for too long.
    pub fn tell_words(&mut self, host: usize, said: Vec<(IpAddr, Word)>) {
        let Some(seat) = self.workers[host].seat.as_mut() else { return };
        if seat.words != said {
            seat.words.clone_from(&said);
            self.feed::<Router>(host, Lane::First, Input::Proxies(said));
        }
    }

    /// Its process runs again. Whether its thread or that of the link is the first, is chance: if it is, and finds the view too
    /// old, the link says nothing until it has shown a new one.
    pub fn router_thaws(&mut self, host: usize) {
        let Some(age) = self.view_age(host).filter(|_| self.workers[host].seat.is_some()) else { return };
        if self.dice.chance(500) {
            if age >= VIEW_AGE_MAX {
                self.tell_words(host, Vec::new());
            }
            self.drive::<Router>(host);
        }
    }

    /// The proxy says whether clients can be served here.
    pub fn router_usable(&mut self, host: usize, usable: Result<(), String>) {
        let Some(seat) = self.workers[host].seat.as_mut() else { return };
        seat.usable = usable.is_ok();
        self.feed::<Router>(host, Lane::First, Input::Usable(usable));
        self.watch_addresses();
    }

    /// A router tells people; the other nodes hear of its state.
    fn told_by_router(&mut self, host: usize, event: &Event) {
        self.note(|| format!("v{host} {event}"));
        let Event::Became { to, .. } = event else { return };
        let Some(seat) = self.workers[host].seat.as_ref() else { return };
        let facts = facts(id(self.led_to(host)), seat.router(), *to);
        if *to == VipState::Master {
            self.stats.takeovers += 1;
            self.takes_over(host);
        }
        self.post(host, Part::Vip(facts));
        self.watch_addresses();
    }
}

fn facts(virtual_router_id: u8, router: &Router, state: VipState) -> VipFacts {
    VipFacts { virtual_router_id, state, priority: router.priority() }
}

impl Lives<Router> for World {
    const KIND: Kind = Kind::Router;

    fn driver(&mut self, host: usize) -> Option<&mut Driver<Router>> {
        self.workers[host].seat.as_mut().map(|seat| &mut seat.driver)
    }

    fn hears(&mut self, host: usize, _: Instant, input: &<Router as Machine>::Input) {
        if self.trace.on
            && let Some(line) = crate::trace::router_input(input)
        {
            self.note(|| format!("v{host} < {line}"));
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) -> Option<Flow<Input>> {
        match output {
            Output::Advertise(advert, form) => self.advertise(host, &advert, form),
            Output::Hold(wish) => self.wish(host, wish),
            Output::Announce => self.announce(host),
            Output::Publish(event) => self.told_by_router(host, &event),
        }
        Some(Flow::Done)
    }
}
