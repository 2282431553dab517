//! The process of a node: its end of the peer link, its sentinel and its supervisor live and die together, and with them the
//! redis. A drop-in is a sentinel alone.

use std::time::Duration;

use vigie::cores::proxy::{Route, route};
use vigie::cores::redis;
use vigie::cores::sentinel::{Input, OrderId, Sentinel};
use vigie::cores::vrrp::{self, HOLD_LIFETIME, Router};

use crate::drive::Driver;
use crate::fence::Fenced;
use crate::link::Link;
use crate::proxy::Gate;
use crate::supervisor::Keeper;
use crate::vip::Seat;
use crate::world::{Happening, Heal, World, ms, redis_at};

/// A master that stops hands over first, and stops all the same when nobody has taken over by then.
const HANDOVER_TIME: Duration = ms(5_000);

/// One process. A sentinel is kept with its disk.
#[derive(Default)]
pub struct Worker {
    /// Whether there is one.
    pub lives: bool,
    /// Counts the processes.
    pub boot: u64,
    /// It does not run; its clock goes on.
    pub frozen: bool,
    pub link: Option<Link>,
    pub keeper: Option<Keeper>,
    /// The fence of the redis that it keeps.
    pub fenced: Option<Fenced>,
    pub gate: Option<Gate>,
    pub seat: Option<Seat>,
    /// It leaves: its roles are told to stop once this order is done.
    pub hands_over: Option<OrderId>,
    /// Roles that have to end before it does.
    pub stopping: Option<usize>,
}

/// The disk of a host. What sentinels have on it is kept with them.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Nothing can be stored.
    pub broken: bool,
    /// Stores take so long at most; none: as planned.
    pub slow: Option<Duration>,
    /// What the supervisor has recorded beside the data of its redis.
    pub record: redis::Durable,
    /// Whether the cluster file on it asks for leases.
    pub fencing: bool,
}

impl World {
    /// Hosts that have a process: nodes, or drop-ins.
    pub fn has_worker(&self, host: usize) -> bool {
        host < self.plan.sentinels || self.plan.linked && host < self.workers.len()
    }

    /// Starts the process of a host with what is on its disk.
    pub fn start_worker(&mut self, host: usize) {
        if !self.has_worker(host) || self.workers[host].lives || !self.hosts[host].powered {
            return;
        }
        let boot = self.workers[host].boot + 1;
        self.workers[host] = Worker { lives: true, boot, ..Worker::default() };
        self.note(|| format!("n{host} starts"));
        if self.plan.linked {
            self.workers[host].link = Some(self.new_link(host));
        }
        if host < self.plan.sentinels {
            self.sentinels[host].core = Some(Driver::new(self.new_sentinel(host)));
            self.checks.sentinel_started(host, self.local(host));
        }
        if self.plan.linked && host < self.redis.len() {
            self.workers[host].keeper = Some(self.new_keeper(host));
            self.workers[host].fenced = Some(Fenced::default());
        }
        if self.is_proxy(host) {
            self.workers[host].gate = Some(self.new_gate(host));
            self.workers[host].seat = Some(self.new_seat(host));
        }
        if self.plan.linked {
            self.view_changed(host);
            self.take_seat(host);
            self.route(host, route::Input::Listener(Ok(())));
            self.drive::<vigie::cores::cluster::Cluster>(host);
            self.drive::<redis::Supervisor>(host);
        }
        self.drive::<Sentinel>(host);
    }

    /// The process dies. `told`: the kernel closes its connections; else the host is gone with it.
    pub fn kill_worker(&mut self, host: usize, told: bool) {
        if !self.workers[host].lives {
            return;
        }
        self.note(|| format!("n{host} dies"));
        // First of all: nothing of what follows is heard by it.
        let boot = self.workers[host].boot;
        let old = std::mem::replace(&mut self.workers[host], Worker { boot, ..Worker::default() });
        if let Some(keeper) = old.keeper {
            self.keeper_dies(host, keeper);
        }
        if let Some(seat) = old.seat.filter(|_| told) {
            self.abandon(host, &seat.router().resignation());
        }
        if host < self.plan.sentinels {
            self.sentinel_dies(host, told);
        }
        self.drop_near(host, told);
        if self.plan.linked && host < self.redis.len() {
            // The kernel kills it with the thread that started it.
            self.kill_redis(host, told, redis::Exit::Signal(9));
        }
        self.watch_addresses();
    }

    /// The process of a host does not run, for so long.
    pub fn freeze(&mut self, host: usize, time: Duration) {
        if !self.workers[host].lives || self.workers[host].frozen {
            return;
        }
        self.workers[host].frozen = true;
        self.note(|| format!("n{host} does not run"));
        self.later(time, Happening::Heal(Heal::Thaw(host, self.workers[host].boot)));
        if self.is_proxy(host) {
            self.watch_addresses();
            // Then at the latest its kernel has dropped the address.
            self.later(HOLD_LIFETIME + ms(10), Happening::Judge);
        }
    }

    /// The process of a node, or of a drop-in, is told to leave.
    pub fn stop_worker(&mut self, host: usize) {
        if !self.workers[host].lives || self.workers[host].stopping.is_some() || self.workers[host].hands_over.is_some()
        {
            return;
        }
        self.note(|| format!("n{host} is told to leave"));
        let is_master = self.redis.get(host).is_some_and(|redis| redis.is_master() && !self.attached(host).is_empty());
        if self.plan.linked && is_master && host < self.plan.sentinels {
            let order = OrderId(self.count());
            self.workers[host].hands_over = Some(order);
            self.later(HANDOVER_TIME, Happening::StopRoles(host, self.workers[host].boot));
            self.give(host, Input::Order(order, None));
        } else if let Some(seat) = self.workers[host].seat.as_mut() {
            seat.leaves = true;
            self.feed::<Router>(host, crate::drive::Lane::First, vrrp::Input::Stop);
            self.later(ms(1), Happening::StopRoles(host, self.workers[host].boot));
        } else {
            self.stop_roles(host);
        }
    }

    /// It has handed over, or could not.
    pub fn handed_over(&mut self, host: usize, order: OrderId) {
        if self.workers[host].hands_over == Some(order) {
            self.later(Duration::ZERO, Happening::StopRoles(host, self.workers[host].boot));
        }
    }

    pub fn stop_roles(&mut self, host: usize) {
        let worker = &mut self.workers[host];
        if !worker.lives || worker.stopping.is_some() {
            return;
        }
        if worker.seat.is_some() && (worker.frozen || worker.seat.as_ref().is_some_and(Seat::is_busy)) {
            // The address goes first, while a peer can take it at once.
            let boot = worker.boot;
            return self.later(ms(1), Happening::StopRoles(host, boot));
        }
        let (supervises, votes) = (worker.keeper.is_some(), host < self.plan.sentinels);
        worker.stopping = Some(usize::from(supervises) + usize::from(votes));
        if !supervises && !votes {
            // A proxy alone closes all it has at once.
            self.later(Duration::ZERO, Happening::Left(host, self.workers[host].boot));
            return self.route(host, route::Input::Stop);
        }
        if votes {
            self.give(host, Input::Stop);
        }
        if supervises {
            self.feed::<redis::Supervisor>(host, crate::drive::Lane::First, redis::Input::Stop);
        }
    }

    /// One of its roles has done what it was told before it left; the process ends with the last of them.
    pub fn left(&mut self, host: usize, boot: u64) {
        let worker = &mut self.workers[host];
        if worker.boot != boot || !worker.lives {
            return;
        }
        let left = worker.stopping.map_or(0, |roles| roles.saturating_sub(1));
        worker.stopping = Some(left);
        if left == 0 {
            self.kill_worker(host, true);
            let wait = self.fault_dice.time(ms(10), ms(5_000));
            self.later(wait, Happening::StartWorker(host));
        }
    }

    /// Lets a process that did not run do what waits.
    pub fn thaw(&mut self, host: usize) {
        if std::mem::replace(&mut self.workers[host].frozen, false) {
            self.note(|| format!("n{host} runs again"));
            self.router_thaws(host);
            self.drive::<vigie::cores::cluster::Cluster>(host);
            self.drive::<redis::fence::Fence>(host);
            self.drive::<redis::Supervisor>(host);
            self.drive::<Sentinel>(host);
            self.drive::<Route>(host);
            self.drive::<Router>(host);
            self.watch_addresses();
        }
    }

    /// How long a store on the disk of a host takes.
    pub fn store_takes(&mut self, host: usize) -> Duration {
        let limit = self.disks[host].slow.unwrap_or(self.plan.store);
        self.dice.time(Duration::from_micros(50), limit)
    }

    /// Nothing is left of the data of a host's redis, nor of what its supervisor has recorded beside them.
    pub fn wipe(&mut self, host: usize) {
        self.redis[host].disk.clear();
        self.disks[host].record = redis::Durable::default();
        self.note(|| format!("the data of {} are gone", redis_at(host)));
    }
}
