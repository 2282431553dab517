//! What goes wrong, and how it ends.

use std::time::Duration;

use vigie::base::RunId;
use vigie::cores::redis::Exit;
use vigie::cores::sentinel::{Input, OrderId, Record};

use crate::dropin::id_on;
use crate::net::Owner;
use crate::plan::{Fault, STORM_DELAY, STORM_JITTER};
use crate::world::{Happening, Heal, World, group_name, host_of, ms, redis_at, sentinel_at};

impl World {
    /// Sets the first of each kind of fault.
    pub fn plan_faults(&mut self, calm: Duration) {
        for (fault, every) in self.plan.faults.clone() {
            let wait = calm + self.fault_dice.upto(every * 2);
            self.later(wait, Happening::Fault(fault));
        }
        if self.plan.loss > 0 {
            self.later(calm, Happening::Heal(Heal::Storm));
        }
    }

    pub fn pause_time(&mut self) -> Duration {
        self.fault_dice.time(ms(5), ms(8_000))
    }

    fn any_redis(&mut self) -> usize {
        // Masters are where it hurts.
        let masters: Vec<usize> = (0..self.redis.len()).filter(|r| self.redis[*r].is_master()).collect();
        if !masters.is_empty() && self.fault_dice.chance(600) {
            self.fault_dice.pick(&masters)
        } else {
            self.fault_dice.below(self.redis.len())
        }
    }

    /// Each node is told to leave, and comes back with its new file: all of them, or some.
    fn edit_files(&mut self) {
        let fencing = self.fault_dice.chance(500);
        let mut after = Duration::ZERO;
        for host in 0..self.workers.len() {
            after += self.fault_dice.upto(ms(1_500));
            if self.fault_dice.chance(850) {
                self.later(after, Happening::Edited(host, fencing));
            }
        }
    }

    pub fn edited(&mut self, host: usize, fencing: bool) {
        if self.quiet_at.is_some() {
            return;
        }
        self.note(|| format!("the file of n{host} has fencing = {fencing}"));
        if std::mem::replace(&mut self.disks[host].fencing, fencing) != fencing {
            self.stop_worker(host);
        }
    }

    fn lose_the_majority(&mut self) {
        let here = self.plan.sentinels.min(self.redis.len());
        let left = self.checks.taker().unwrap_or_else(|| self.fault_dice.below(here));
        if !self.workers[left].lives {
            return;
        }
        for host in (0..self.data_hosts).filter(|host| *host != left) {
            let time = self.fault_dice.time(ms(1_500), ms(8_000));
            self.power_off(host);
            self.later(time, Happening::Heal(Heal::Power(host)));
        }
        self.checks.takes_over(left);
        let (wait, boot) = (self.fault_dice.time(ms(100), ms(3_000)), self.workers[left].boot);
        let order = OrderId(self.stats.faults);
        self.later(wait, Happening::Told(left, boot, Box::new(Input::Takeover(order))));
    }

    fn any_sentinel(&mut self) -> usize {
        // Whoever leads is where it hurts.
        let leads =
            |s: &usize| self.said(*s).is_some_and(|facts| facts.masters.iter().any(|facts| facts.leads.is_some()));
        let leaders: Vec<usize> = (0..self.plan.sentinels).filter(leads).collect();
        if !leaders.is_empty() && self.fault_dice.chance(600) {
            self.fault_dice.pick(&leaders)
        } else {
            self.fault_dice.below(self.plan.sentinels)
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        if self.quiet_at.is_some() {
            return;
        }
        if let Some((_, every)) = self.plan.faults.iter().find(|(kind, _)| *kind == fault) {
            // Now and then two come at once.
            let every = *every;
            let wait = if self.fault_dice.chance(150) { ms(30) } else { every * 2 };
            let wait = self.fault_dice.upto(wait) + ms(1);
            self.later(wait, Happening::Fault(fault));
        }
        self.stats.faults += 1;
        self.note(|| format!("fault {fault:?}"));
        match fault {
            Fault::Edit => self.edit_files(),
            Fault::Takeover => self.lose_the_majority(),
            Fault::SentinelCrash => {
                let host = self.any_worker();
                self.crash_worker(host);
            }
            Fault::AllSentinelsCrash => (0..self.plan.sentinels).for_each(|s| self.crash_worker(s)),
            Fault::SentinelPause => {
                let (host, time) = (self.any_worker(), self.pause_time());
                self.freeze(host, time);
            }
            Fault::SentinelStop => {
                let host = self.any_worker();
                self.stop_worker(host);
            }
            Fault::DiskError => {
                let (host, time) = (self.any_worker(), self.pause_time());
                self.disks[host].broken = true;
                self.later(time, Happening::Heal(Heal::Disk(host)));
            }
            Fault::SlowDisk => {
                let (host, time) = (self.any_worker(), self.pause_time());
                self.disks[host].slow = Some(self.fault_dice.time(ms(20), ms(3_000)));
                self.later(time, Happening::Heal(Heal::Disk(host)));
            }
            Fault::PowerLoss => {
                let (host, time) = (self.fault_dice.below(self.workers.len()), self.pause_time());
                self.power_off(host);
                self.later(time, Happening::Heal(Heal::Power(host)));
            }
            Fault::Partition => self.partition(),
            Fault::OneWay => {
                let hosts = self.workers.len();
                let (from, to) = (self.fault_dice.below(hosts), self.fault_dice.below(hosts));
                self.cut(vec![(from, to)]);
            }
            Fault::Reset => {
                self.break_wires(true);
                // The links of replicas break too.
                let r = self.fault_dice.below(self.redis.len());
                if self.fault_dice.chance(400) && self.redis[r].alive {
                    self.link_ended(r, self.redis[r].generation);
                }
            }
            Fault::HalfOpen => self.break_wires(false),
            Fault::Storm => {
                self.net.delay = self.fault_dice.time(ms(1), STORM_DELAY);
                self.net.jitter = self.fault_dice.time(ms(1), STORM_JITTER);
                self.net.loss = self.fault_dice.pick(&[0, 10, 100, 300]);
                let time = self.pause_time();
                self.later(time, Happening::Heal(Heal::Storm));
                self.watch_addresses();
            }
            Fault::RedisCrash => {
                let r = self.any_redis();
                self.crash_redis(r);
            }
            Fault::RedisHang => self.hang_redis(),
            Fault::RedisSlow => {
                let (r, time) = (self.any_redis(), self.pause_time());
                self.redis[r].slow = Some(self.fault_dice.time(ms(5), ms(800)));
                self.later(time, Happening::Heal(Heal::Quick(r)));
            }
            Fault::ReplicasDropped => {
                let r = self.any_redis();
                self.drop_replicas(r);
            }
            Fault::RedisWipe => {
                let r = self.any_redis();
                // What its supervisor remembers goes with it: the disk of a host is replaced while nothing runs there.
                if self.plan.linked {
                    self.crash_worker(r);
                } else {
                    self.crash_redis(r);
                }
                if !self.redis[r].alive {
                    self.wipe(r);
                }
            }
            Fault::GroupCrash => {
                let group = self.any_group();
                self.groups[group].clone().into_iter().for_each(|r| self.crash_redis(r));
            }
            Fault::Order | Fault::Failover if self.plan.drop_in => {
                let (s, group) = (self.fault_dice.below(self.plan.sentinels), self.any_group());
                self.order_at(s, group);
            }
            Fault::Order => {
                // The order of an operator at a node is about the first master.
                let (s, to) = (self.fault_dice.below(self.plan.sentinels), self.fault_dice.chance(500));
                let to = to.then(|| self.fault_dice.pick(&self.groups[0]));
                self.order(s, to);
            }
            Fault::Failover => {
                let (s, group) = (self.fault_dice.below(self.plan.sentinels), self.any_group());
                self.client_says(s, &["SENTINEL", "FAILOVER", &group_name(group)]);
            }
            Fault::Stranger => self.stranger(),
            Fault::Restored => self.restore_another_disk(),
            Fault::SentinelWipe => self.wipe_sentinel(),
            Fault::Remove | Fault::Change | Fault::Forget | Fault::HostMoves => self.operator_fault(fault),
            Fault::ProxyCrash => {
                let host = self.any_proxy();
                self.crash_worker(host);
            }
            Fault::ProxyPause => {
                let (host, time) = (self.any_proxy(), self.pause_time());
                self.freeze(host, time);
            }
            Fault::Unplugged => {
                let (host, time) = (self.any_proxy(), self.pause_time());
                self.unplug(host, true);
                self.later(time, Happening::Heal(Heal::Plug(host)));
            }
            Fault::AddressRefused => {
                let (host, time) = (self.any_proxy(), self.pause_time());
                self.ports[host].refuses = true;
                self.later(time, Happening::Heal(Heal::Addresses(host)));
            }
            Fault::Meddling => {
                let group = self.any_group();
                let r = self.fault_dice.pick(&self.groups[group]);
                self.meddle(r);
            }
        }
    }

    /// In the name of a sentinel or of nobody, of a redis or of a host that is in no file, for an epoch close by or the last.
    fn stranger(&mut self) {
        let (s, group) = (self.any_sentinel(), self.any_group());
        let (by, to) = (self.fault_dice.below(self.plan.sentinels), self.fault_dice.pick(&self.groups[group]));
        let said = self.said(by).map(|facts| (facts.id, facts.current_epoch, facts.masters.get(group).cloned()));
        let (id, epoch) = said.as_ref().map_or((RunId([0x66; 20]), 1), |(id, epoch, _)| (*id, *epoch));
        let id = if self.fault_dice.chance(500) { id } else { RunId([0x66; 20]) };
        let epoch = self.fault_dice.pick(&[epoch + 1, epoch + 2, 1 << 45, 1 << 53]);
        let master = if self.fault_dice.chance(500) { redis_at(to) } else { redis_at(200) };
        let voter = sentinel_at(by);
        let hello = format!(
            "{},{},{id},{epoch},{},{},{},{epoch}",
            voter.ip(),
            voter.port(),
            group_name(group),
            master.ip(),
            master.port()
        );
        let about =
            said.and_then(|(_, _, facts)| facts?.decision).map_or_else(|| redis_at(to), |decision| decision.master);
        let (ip, port, epoch, id) =
            (about.ip().to_string(), about.port().to_string(), epoch.to_string(), id.to_string());
        let vote = ["SENTINEL", "IS-MASTER-DOWN-BY-ADDR", &ip, &port, &epoch, &id];
        self.client_says(s, &["PUBLISH", "__sentinel__:hello", &hello]);
        self.client_says(s, &vote);
        let links: Vec<_> = self.sentinels[s].links.keys().copied().collect();
        if !links.is_empty() {
            let link = self.fault_dice.pick(&links);
            self.give(s, Input::Message(link, hello.into()));
        }
    }

    fn restore_another_disk(&mut self) {
        let s = self.fault_dice.below(self.plan.sentinels);
        let once = (0..self.plan.sentinels).all(|s| !self.checks.is_restored(s));
        if !once || self.sentinels[s].core.is_none() {
            return;
        }
        self.crash_worker(s);
        if let Some(Record::Votes(durable)) = &mut self.sentinels[s].disk {
            durable.current_epoch += 1 << 45;
            self.checks.restored(s);
            if self.fault_dice.chance(500) {
                // An operator sees it, now or later.
                let (wait, boot) = (self.fault_dice.time(ms(2_000), ms(20_000)), self.workers[s].boot + 1);
                self.later(wait, Happening::Told(s, boot, Box::new(Input::Bootstrap(OrderId(0)))));
            }
        }
    }

    /// The disk of one sentinel is replaced; of one only, because nobody can know what a majority has forgotten. That does harm if it
    /// has voted in an epoch that some sentinels have not heard of and, back again, hears those and not the leader.
    fn wipe_sentinel(&mut self) {
        let Some((s, leader, behind)) = self.voter_of_few() else {
            let s = self.checks.wiped().unwrap_or_else(|| self.fault_dice.below(self.plan.sentinels));
            if self.fault_dice.chance(50) {
                self.lose_disk(s);
            }
            return;
        };
        self.lose_disk(s);
        let others = (0..self.hosts.len()).filter(|host| *host != leader);
        self.cut(others.flat_map(|host| [(host, leader), (leader, host)]).collect());
        self.heal(Heal::Ways(vec![(s, behind), (behind, s)]));
        let decision = self.said(behind).and_then(|facts| facts.masters.first()?.decision);
        if let Some(decision) = decision.filter(|_| self.fault_dice.chance(700)) {
            self.crash_redis(host_of(decision.master));
        }
    }

    /// A sentinel that has voted for another one, that one, and one that has not got to that epoch.
    fn voter_of_few(&self) -> Option<(usize, usize, usize)> {
        let all = || (0..self.plan.sentinels).filter_map(|s| Some((s, self.said(s)?)));
        let may = |s: usize| self.checks.wiped().is_none_or(|wiped| wiped == s);
        all().filter(|(s, _)| may(*s)).find_map(|(s, facts)| {
            let (leader, epoch) = facts.masters.first()?.vote?;
            let (leader, _) = all().find(|(other, facts)| *other != s && facts.id == leader)?;
            let mut others = all().filter(|(other, _)| *other != s && *other != leader);
            let (behind, _) = others.find(|(_, facts)| facts.current_epoch < epoch)?;
            Some((s, leader, behind))
        })
    }

    fn lose_disk(&mut self, s: usize) {
        if self.sentinels[s].core.is_none() || !self.workers[s].lives {
            return;
        }
        self.kill_worker(s, true);
        let lost = self.sentinels[s].disk.take();
        self.checks.wipes(s, lost.as_ref().and_then(id_on));
        self.note(|| format!("s{s} has lost its disk"));
        let wait = self.fault_dice.time(ms(10), ms(300));
        self.later(wait, Happening::StartWorker(s));
    }

    fn any_group(&mut self) -> usize {
        self.fault_dice.below(self.groups.len())
    }

    fn hang_redis(&mut self) {
        let (r, time) = (self.any_redis(), self.pause_time());
        if !self.redis[r].alive || self.redis[r].hung {
            return;
        }
        self.redis[r].hung = true;
        self.masters_changed(r);
        self.note(|| format!("r{r} does not run"));
        self.watch_links();
        self.later(time, Happening::Heal(Heal::Resume(r, self.redis[r].incarnation)));
    }

    /// Of a proxy that holds an address more often.
    fn any_proxy(&mut self) -> usize {
        let hosts = self.data_hosts..self.workers.len();
        let holders: Vec<usize> = hosts.clone().filter(|host| self.holds(*host)).collect();
        if !holders.is_empty() && self.fault_dice.chance(600) {
            self.fault_dice.pick(&holders)
        } else {
            hosts.start + self.fault_dice.below(hosts.len())
        }
    }

    /// The cable of a host is pulled out, or put in again; its process is told.
    fn unplug(&mut self, host: usize, out: bool) {
        if std::mem::replace(&mut self.ports[host].unplugged, out) != out {
            self.note(|| format!("the cable of host {host} is {}", if out { "out" } else { "in" }));
            self.net.unplug(host, out);
            self.plugged(host);
            self.watch_links();
            self.watch_addresses();
        }
    }

    /// The process of any host that has one; of a sentinel's more often.
    fn any_worker(&mut self) -> usize {
        if self.plan.linked && self.fault_dice.chance(200) {
            self.fault_dice.below(self.workers.len())
        } else {
            self.any_sentinel()
        }
    }

    fn crash_worker(&mut self, host: usize) {
        if !self.workers[host].lives {
            return;
        }
        self.kill_worker(host, true);
        let wait = self.fault_dice.time(ms(10), ms(5_000));
        self.later(wait, Happening::StartWorker(host));
    }

    fn crash_redis(&mut self, r: usize) {
        if !self.redis[r].alive {
            return;
        }
        self.kill_redis(r, true, Exit::Signal(11));
        if !self.plan.linked {
            let wait = self.fault_dice.upto(self.plan.restart) + ms(2);
            self.later(wait, Happening::StartRedis(r, self.redis[r].incarnation));
        }
    }

    fn power_off(&mut self, host: usize) {
        self.note(|| format!("host {host} has no power"));
        if host < self.redis.len() {
            self.watch_links();
        }
        self.kill_worker(host, false);
        self.hosts[host].powered = false;
        if host < self.redis.len() {
            self.kill_redis(host, false, Exit::Unknown);
        }
        self.set_address(host, false);
    }

    fn power_on(&mut self, host: usize) {
        if std::mem::replace(&mut self.hosts[host].powered, true) {
            return;
        }
        self.note(|| format!("host {host} has power"));
        self.start_worker(host);
        if host < self.redis.len() {
            // Its kernel answers for connections it does not know.
            self.drop_replicas(host);
            if !self.plan.linked {
                self.start_redis(host, false);
            }
        }
        self.flow_again();
    }

    fn partition(&mut self) {
        let hosts = self.hosts.len();
        let nodes = self.workers.len();
        let size = 1 + self.fault_dice.below(nodes / 2);
        let mut inside = vec![false; hosts];
        for _ in 0..size {
            inside[self.fault_dice.below(nodes)] = true;
        }
        // A client may be on either side.
        for client in inside.iter_mut().skip(nodes) {
            *client = self.fault_dice.chance(500);
        }
        let one_way = self.fault_dice.chance(200);
        let mut ways = Vec::new();
        for from in 0..hosts {
            for to in 0..hosts {
                if inside[from] && !inside[to] {
                    ways.push((from, to));
                    if !one_way {
                        ways.push((to, from));
                    }
                }
            }
        }
        self.cut(ways);
    }

    fn cut(&mut self, ways: Vec<(usize, usize)>) {
        let time = self.pause_time();
        self.note(|| format!("cut {ways:?}"));
        for (from, to) in &ways {
            self.net.set_cut(*from, *to, true);
        }
        self.watch_links();
        self.watch_addresses();
        self.later(time, Happening::Heal(Heal::Ways(ways)));
    }

    fn break_wires(&mut self, both: bool) {
        let ids: Vec<u64> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.near && wire.far && matches!(wire.owner, Owner::Sentinel(_)))
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return;
        }
        for _ in 0..1 + self.fault_dice.below(4) {
            let id = self.fault_dice.pick(&ids);
            if !self.wires.contains_key(&id) {
                continue;
            }
            if both {
                self.reset(id);
            } else {
                // The far end does not have it any more, and nobody is told.
                self.cut_off(id, false, "");
            }
        }
    }

    pub fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Thaw(host, boot) => {
                if self.workers[host].boot == boot {
                    self.thaw(host);
                }
            }
            Heal::Disk(host) => (self.disks[host].broken, self.disks[host].slow) = (false, None),
            Heal::Power(host) => self.power_on(host),
            Heal::Ways(ways) => {
                for (from, to) in &ways {
                    self.net.set_cut(*from, *to, false);
                }
                self.note(|| format!("healed {ways:?}"));
                self.ways_free();
            }
            Heal::Storm => {
                self.net.delay = self.plan.delay;
                self.net.jitter = self.plan.jitter;
                self.net.loss = if self.quiet_at.is_some() { 0 } else { self.plan.loss };
                self.watch_addresses();
            }
            Heal::Resume(r, incarnation) => {
                if self.redis[r].incarnation == incarnation {
                    self.resume_redis(r);
                }
            }
            Heal::Quick(r) => self.redis[r].slow = None,
            Heal::Plug(host) => {
                self.unplug(host, false);
                self.ways_free();
            }
            Heal::Addresses(host) => self.ports[host].refuses = false,
        }
    }

    /// Somewhere a way is free again.
    fn ways_free(&mut self) {
        self.flow_again();
        (0..self.redis.len()).for_each(|r| self.stream_again(r));
        self.watch_addresses();
    }

    /// Whether delays are longer than this world's usual ones.
    pub fn storms(&self) -> bool {
        (self.net.delay, self.net.jitter) != (self.plan.delay, self.plan.jitter)
    }

    /// Everything that is wrong ends.
    pub fn end_faults(&mut self) {
        self.heal(Heal::Storm);
        let hosts = self.hosts.len();
        let ways = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to))).collect();
        self.heal(Heal::Ways(ways));
        for host in 0..self.workers.len() {
            self.heal(Heal::Power(host));
        }
        for host in 0..self.workers.len() {
            self.heal(Heal::Disk(host));
            if self.ports[host].unplugged {
                self.heal(Heal::Plug(host));
            }
            self.heal(Heal::Addresses(host));
            self.heal(Heal::Thaw(host, self.workers[host].boot));
            self.later(ms(10), Happening::StartWorker(host));
        }
        for r in 0..self.redis.len() {
            self.heal(Heal::Quick(r));
            self.resume_redis(r);
            if !self.redis[r].alive && !self.plan.linked {
                self.start_redis(r, false);
            }
        }
    }

    /// A person makes a redis a master by hand.
    fn meddle(&mut self, r: usize) {
        let redis = &self.redis[r];
        if redis.alive && !redis.hung && !redis.loading && !redis.is_closed() {
            let before = redis.is_master();
            self.promote(r);
            self.redis[r].by_hand |= !before;
            self.masters_changed(r);
        }
    }
}
