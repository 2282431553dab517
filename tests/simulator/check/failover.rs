//! How a failover may go: by a quorum, led by one that was elected, to a redis that may take over.

use std::time::Duration;

use vigie::base::node::Process;
use vigie::base::{Epoch, RunId};
use vigie::cores::sentinel::Event;
use vigie::wire::info::{Info, LinkDown, Role};

use super::Hold;
use crate::dropin::id_on;
use crate::world::{CALM, World, group_name, ms, redis_at};

/// Nobody is chosen by older words of its own.
const INFO_AGE_MAX: Duration = Duration::from_secs(5);
/// Writes are held for so long.
const HOLD: Duration = ms(3_000);

impl World {
    /// The group an event is about, and the redis it names, if it names one.
    fn subject(&self, event: &Event) -> Option<(usize, usize)> {
        let words: Vec<&str> = event.payload.split(' ').collect();
        let (name, ip, port) = match words[..] {
            ["master", name, ip, port, ..] => (name, ip, port),
            ["slave", _, ip, port, "@", name, ..] => (name, ip, port),
            _ => return None,
        };
        let group = (0..self.groups.len()).find(|group| group_name(*group) == name)?;
        port.parse::<u16>().ok()?;
        let redis = self.redis_of(crate::dropin::first_address(ip)?)?;
        Some((group, redis))
    }

    pub fn check_event(&mut self, host: usize, event: &Event) {
        if event.name == "no-candidate" && event.payload.contains("an operator must decide") {
            self.checks.undecided.insert(host);
        }
        let Some((group, redis)) = self.subject(event) else { return };
        match event.name {
            // What it was told of the replicas it was told to forget.
            "+reset-master" => {
                let forgotten = self.groups[group].iter().filter(|other| **other != redis);
                forgotten.for_each(|other| drop(self.checks.memories[host].infos.remove(other)));
            }
            "+odown" => {
                let seen = 1 + self.checks.memories[host].see_down(host, group, redis_at(redis), self.plan.sentinels);
                let quorum = self.quorum(host, group);
                self.checks.must(seen >= quorum, || {
                    format!("s{host} finds group {group} down by quorum: {seen} of {quorum} have said so")
                });
            }
            "+elected-leader" => {
                self.stats.elections += 1;
                let needed = self.needed_as_known(host, group);
                self.checks.elected.insert((host, group), needed);
                if !self.plan.drop_in {
                    let vote = self.known(host, group).and_then(|known| known.vote);
                    self.check_leader(host, group, vote.map_or(0, |(_, epoch)| epoch));
                }
            }
            "+try-failover" => drop(self.checks.elected.remove(&(host, group))),
            "+selected-slave" => match self.behind(host, group, redis) {
                Some(behind) => drop(self.checks.behind.insert((host, group), behind)),
                None => drop(self.checks.behind.remove(&(host, group))),
            },
            _ => {}
        }
    }

    /// One leader in an epoch, and elected: by votes that really left their voters.
    fn check_leader(&mut self, host: usize, group: usize, epoch: Epoch) {
        let Some(me) = self.sentinels[host].disk.as_ref().and_then(id_on) else { return };
        let given = |s: &usize| self.checks.votes.get(&(*s, group, epoch)) == Some(&me);
        let votes = (0..self.plan.sentinels).filter(given).count();
        let quorum = self.quorum(host, group);
        if self.plan.drop_in && self.may_lead_alone(host, group, epoch, votes) {
            return;
        }
        let first = *self.checks.leaders.entry((group, epoch)).or_insert(host);
        self.checks.must(first == host, || format!("s{first} and s{host} both lead group {group} in epoch {epoch}"));
        let majority = self.plan.sentinels / 2 + 1;
        let needed = if self.plan.drop_in { majority } else { majority.max(quorum) };
        if votes < needed && self.checks.taker == Some(host) && self.by_order(epoch) {
            return;
        }
        self.checks.must(votes >= needed, || {
            format!("s{host} leads group {group} in epoch {epoch} by {votes} votes, {needed} are needed")
        });
    }

    /// Whether an order to take over is what one leads by in that epoch: each order is good for one.
    fn by_order(&mut self, epoch: Epoch) -> bool {
        if !self.checks.taken.contains(&epoch) && self.checks.takeovers.pop_first().is_some() {
            self.checks.taken.insert(epoch);
        }
        self.checks.taken.contains(&epoch)
    }

    fn quorum(&self, host: usize, group: usize) -> usize {
        let in_file = self.known(host, group).and_then(|known| known.quorum);
        in_file.unwrap_or(self.plan.quorums[group]) as usize
    }

    /// Votes that a leader needs by what is in its file.
    fn needed_as_known(&self, host: usize, group: usize) -> usize {
        let known = 1 + self.known(host, group).and_then(|known| known.sentinels).unwrap_or(0);
        (known / 2 + 1).max(self.quorum(host, group))
    }

    /// By the rules of redis-sentinel: an order counts without a majority, and a majority is one of those that are known.
    fn may_lead_alone(&mut self, host: usize, group: usize, epoch: Epoch, votes: usize) -> bool {
        let majority = self.plan.sentinels / 2 + 1;
        // What was set since then does not undo it.
        let elected = self.checks.elected.get(&(host, group)).copied();
        let needed = elected.unwrap_or_else(|| self.needed_as_known(host, group));
        let ordered = self.checks.ordered.contains(&(host, group));
        if votes >= majority && votes >= needed {
            return false;
        }
        if elected.is_some() {
            self.checks.must(votes >= needed, || {
                format!("s{host} leads group {group} in epoch {epoch} by {votes} votes, and {needed} were needed")
            });
            self.checks.thin += 1;
        } else {
            self.checks.must(ordered, || {
                format!("s{host} leads group {group} in epoch {epoch} by {votes} votes, and nobody has ordered it")
            });
            self.checks.forced += 1;
        }
        self.checks.loose.insert((group, epoch));
        true
    }

    /// What the redis that a sentinel chooses lacks of what another one had that was as fit, by what that sentinel has just heard
    /// of both: writes that were acknowledged.
    fn behind(&self, host: usize, group: usize, chosen: usize) -> Option<String> {
        let memory = &self.checks.memories[host];
        let fit = |info: &Info| {
            let linked =
                info.master_link_up || matches!(info.master_link_down, Some(LinkDown::For(time)) if time <= ms(1_000));
            info.role == Some(Role::Replica)
                && !info.is_closed()
                && !info.loading
                && !info.master_sync_in_progress
                && linked
        };
        let offset = |info: &Info| info.slave_repl_offset.or(info.master_repl_offset).unwrap_or(0);
        let (_, its) = memory.infos.get(&chosen).filter(|(_, info)| fit(info))?;
        let told = |r: usize| {
            let leads_there =
                |wire: &u64| self.wires.get(wire).is_some_and(|wire| wire.up && !wire.to_sentinel && wire.to == r);
            let facts = memory.facts.get(&r).and_then(|facts| facts.redis.as_ref());
            let dead = facts.is_some_and(|facts| facts.process == Process::Dead);
            let answers =
                self.redis[r].alive && !self.redis[r].hung && self.net.passes(host, r) && self.net.passes(r, host);
            answers && !dead && self.sentinels[host].links.values().any(leads_there)
        };
        self.groups[group].iter().filter(|other| **other != chosen).find_map(|other| {
            let (at, info) = memory.infos.get(other)?;
            let same = info.slave_priority == its.slave_priority && info.master_replid == its.master_replid;
            let news = memory.now.since(*at) <= ms(200) && told(*other);
            if !fit(info) || !same || !news || offset(info) <= offset(its) {
                return None;
            }
            let (there, here) = (&self.redis[*other], &self.redis[chosen]);
            let heard = i64::try_from(offset(info)).unwrap_or(i64::MAX).saturating_sub(there.base);
            let had = there.data.iter().take(usize::try_from(heard).unwrap_or(0));
            let lacks = had.filter(|write| self.writes.acked.contains_key(write) && !here.data.contains(write)).count();
            let (more, less) = (offset(info), offset(its));
            (lacks > 0)
                .then(|| format!("r{other} is as fit and at {more}, r{chosen} at {less}: {lacks} acknowledged writes"))
        })
    }

    /// The redis that is to be promoted must be fit, by what the sentinel was told.
    fn check_selected(&mut self, host: usize, group: usize, redis: usize) {
        let memory = &self.checks.memories[host];
        let decision = memory.decisions[group];
        let of_old = decision.map(|decision| decision.master);
        let returned = of_old == Some(redis_at(redis));
        let Some((at, info)) = memory.infos.get(&redis) else {
            return self.checks.violated(format!("s{host} chooses r{redis}, which it has never heard"));
        };
        let facts = memory.facts.get(&redis).filter(|facts| facts.fresh).and_then(|facts| facts.redis.as_ref());
        let filled = |other: &&usize| {
            let counts = **other != redis && (returned || of_old != Some(redis_at(**other)));
            counts && memory.infos.get(*other).is_some_and(|(_, info)| info.has_keys == Some(true))
        };
        let others_filled = self.groups[group].iter().filter(filled).count();
        let lineage = memory.lineages[group].filter(|(of, _)| Some(*of) == of_old).map(|(_, lineage)| lineage);
        let history = facts.and_then(|facts| facts.history).filter(|history| history.in_sync);
        let priority = info.slave_priority.unwrap_or(100);
        let untouched = info.is_closed();
        // Of a master that lives and is empty the replicas are too, whatever others were heard to hold before.
        let ordered = self.checks.holds.contains_key(&(host, group));
        // Made a master in the place of the one that is gone by a leader that has told nobody.
        // What the old master itself said counts, too, from before the decision for it could be stored.
        let old = of_old.and_then(|of| memory.infos.get(&self.redis_of(of)?)).map(|(_, info)| info);
        let its = old.filter(|info| info.role == Some(Role::Master)).and_then(|info| info.master_replid);
        let heir = |of: Option<RunId>| of.is_some() && info.master_replid2 == of;
        let promoted = info.role == Some(Role::Master) && (heir(lineage) || heir(its));
        let wrong = if memory.now.since(*at) > INFO_AGE_MAX {
            Some("it has not been heard for long".to_owned())
        } else if info.role != Some(Role::Replica) && !promoted {
            Some(format!("its role is {:?}", info.role))
        } else if info.loading {
            Some("it reads its data".to_owned())
        } else if info.master_sync_in_progress {
            Some("it is in the middle of a copy".to_owned())
        } else if priority == 0 && !returned && !promoted && decision.is_some() {
            Some("its priority is 0".to_owned())
        } else if info.has_keys == Some(false) && others_filled > 0 && !ordered {
            Some(format!("it is empty, and {others_filled} others are not"))
        } else if !untouched
            && !returned
            && !promoted
            && lineage.is_some_and(|known| info.master_replid.is_some_and(|own| own != known))
        {
            // What came back with a good record may be of any lineage: it got a new one at its start.
            history.is_none().then(|| format!("its lineage is {:?}, the master's {lineage:?}", info.master_replid))
        } else if untouched
            && !returned
            && decision.is_some_and(|known| history.is_none_or(|own| own.epoch < known.epoch))
        {
            Some(format!("it came back closed, and its history is {history:?}"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.checks.violated(format!("s{host} chooses r{redis} for group {group}: {wrong}"));
        }
    }

    /// The order to become master leaves a sentinel.
    pub fn check_promotion(&mut self, host: usize, wire: u64, epoch: Epoch) {
        self.stats.promotions += 1;
        let Some(target) = self.wires.get(&wire).map(|wire| wire.to) else { return };
        let group = self.redis[target].group;
        self.check_leader(host, group, epoch);
        if !self.checks.taken.contains(&epoch) {
            self.check_selected(host, group, target);
        }
        let voted = self.known(host, group).and_then(|known| known.vote).map_or(0, |(_, epoch)| epoch);
        self.checks.must(self.removed(host, group) || voted >= epoch, || {
            format!("s{host} promotes r{target} in epoch {epoch}, and its last vote on disk is of epoch {voted}")
        });
        let started = self.now.since(vigie::base::Instant::START) < CALM;
        self.checks
            .must(started || !self.plan.calm(), || format!("s{host} promotes r{target} although nothing went wrong"));
        let facts = self.checks.memories[host].facts.get(&target).filter(|facts| facts.fresh);
        let process = facts.and_then(|facts| facts.redis.as_ref()).map(|facts| facts.process);
        self.checks.must(process != Some(Process::Dead), || {
            format!("s{host} promotes r{target}, whose process is dead by its supervisor's word")
        });
        // Writes were held for it: are they still? The sentinel's own clock must tell it.
        self.checks.handovers.remove(&target);
        let hold = self.checks.holds.get(&(host, group)).copied().filter(|hold| hold.epoch == epoch);
        // Whoever is given writes to wait for has them all in the end, whatever it had when it was chosen.
        let behind = self.checks.behind.remove(&(host, group)).filter(|_| hold.is_none());
        if let Some(behind) = behind {
            self.checks.violated(format!("s{host} chooses the one that has less for group {group}: {behind}"));
        }
        let Some(Hold { redis: old, incarnation, since, .. }) = hold else { return };
        let held = self.checks.memories[host].now.since(since);
        self.checks.must(held < HOLD, || {
            format!("s{host} promotes r{target} by order {held:?} after it asked r{old} to hold writes for {HOLD:?}")
        });
        if self.redis[old].incarnation == incarnation && self.redis[old].is_master() && self.redis[old].pause.is_some()
        {
            self.checks.handovers.insert(target, (host, old));
        }
    }

    /// A redis becomes a master: if the old one stands still for it, it must have everything.
    pub fn check_promoted(&mut self, target: usize) {
        let Some((host, old)) = self.checks.handovers.remove(&target) else { return };
        let still = self.redis[old].paused_by() == Some(host) && self.redis[old].is_master();
        if still && !self.redis[target].data.starts_with(&self.redis[old].data) {
            let (has, had) = (self.redis[target].data.len(), self.redis[old].data.len());
            self.checks.violated(format!("an ordered switchover loses writes: r{target} has {has} of {had} of r{old}"));
        }
    }

    /// Whoever does not lead any more holds no writes: it has released them if it could.
    pub fn check_released(&mut self, host: usize, group: usize, leads: Option<Epoch>) {
        let Some(hold) = self.checks.holds.get(&(host, group)).filter(|hold| leads != Some(hold.epoch)) else { return };
        if self.sentinels[host].links.values().any(|wire| *wire == hold.wire) {
            let (epoch, redis) = (hold.epoch, hold.redis);
            self.checks.violated(format!(
                "s{host} gave its failover of epoch {epoch} up and left the writes of r{redis} held"
            ));
        }
        self.checks.holds.remove(&(host, group));
    }
}
