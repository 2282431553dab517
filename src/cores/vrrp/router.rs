//! The machine.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Announce, Config, Event, HOLD_LIFETIME, Hold, Input, Output, RENEW_EVERY, Refusal, State, Why};
use crate::base::time::earliest;
use crate::base::{Instant, Machine};
use crate::wire::frame::VipState;
use crate::wire::vrrp::{Advert, Auth, ChecksumForm, HOP_LIMIT, Interval, Malformed, Received};

/// Pauses between the rounds of announcements: a burst, and one more when a slow port has come up or the loser of a
/// split has fallen silent.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(880),
    Duration::from_secs(4),
    Duration::from_secs(1),
];
/// Afterwards one round each.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// A peer that insists on being master too must not make this one flood the segment.
const CONFLICT_PAUSE: Duration = Duration::from_secs(1);
/// First and longest pause after the kernel refused the addresses; doubled from one to the next.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// One virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// What this router says while it is master.
    advert: Advert,
    preempt: bool,
    state: State,
    link: Result<IpAddr, Why>,
    usable: Result<(), Why>,
    stopped: bool,
    /// The form of checksum heard last from a peer.
    checksum: ChecksumForm,
    /// Refusals of the kernel in a row.
    refusals: u32,
    /// Adverts of lower masters heard since this one became master.
    conflicts: u64,
    /// The peer whose differing addresses were told last.
    differing: Option<IpAddr>,
    refused: BTreeMap<&'static str, u64>,
}

impl Router {
    /// A router that waits for its interface and its proxy. Its addresses are taken to be released.
    pub fn new(config: Config) -> Result<Self, Malformed> {
        let Config { virtual_router_id, priority, interval, preempt, addresses } = config;
        // 0 says farewell, and 255 is of who has the addresses for good.
        if !(1..=254).contains(&priority) {
            return Err(Malformed::Priority(priority));
        }
        Ok(Self {
            advert: Advert::new(virtual_router_id, priority, interval, addresses)?,
            preempt,
            state: State::Initialize { retry_at: None },
            link: Err(Why::Starting),
            usable: Err(Why::Starting),
            stopped: false,
            checksum: ChecksumForm::PseudoHeader,
            refusals: 0,
            conflicts: 0,
            differing: None,
            refused: BTreeMap::new(),
        })
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where it stands, by name.
    pub fn vip_state(&self) -> VipState {
        name(&self.state)
    }

    /// The priority it advertises while it is master.
    pub fn priority(&self) -> u8 {
        self.advert.priority()
    }

    /// The advert by which it gives up being master.
    pub fn resignation(&self) -> Advert {
        self.advert.with_priority(0)
    }

    /// Packets not believed, by reason.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// The addresses' holder as last asked for.
    pub fn hold(&self) -> Hold {
        match self.state {
            State::Initialize { .. } | State::Backup { .. } => Hold::Released,
            State::Master { .. } => Hold::Held,
        }
    }

    /// What keeps it from taking part.
    fn obstacle(&self) -> Option<Why> {
        if self.stopped {
            return Some(Why::Stopped);
        }
        match (&self.link, &self.usable) {
            (Err(why), _) | (Ok(_), Err(why)) => Some(why.clone()),
            (Ok(_), Ok(())) => None,
        }
    }

    /// After link, proxy or stop: enters or leaves the election.
    fn review(&mut self, now: Instant, out: &mut Vec<Output>) {
        match (&self.state, self.obstacle()) {
            (State::Initialize { retry_at: None }, None) => {
                self.become_(self.backup(now, self.advert.interval().duration()), Why::Ready, now, out);
            }
            // The kernel's refusal outlasts a link that goes and comes.
            (State::Initialize { retry_at: Some(_) }, _) | (State::Backup { .. } | State::Master { .. }, None) => {}
            (State::Initialize { retry_at: None }, Some(Why::Starting)) => {}
            (State::Initialize { retry_at: None }, Some(why)) => out.push(Output::Publish(Event::Waiting { why })),
            (State::Backup { .. } | State::Master { .. }, Some(why)) => {
                self.become_(State::Initialize { retry_at: None }, why, now, out);
            }
        }
    }

    /// The only place where states are left and entered.
    fn become_(&mut self, next: State, why: Why, now: Instant, out: &mut Vec<Output>) {
        let from = name(&self.state);
        match (&self.state, &next) {
            (State::Master { .. }, State::Initialize { .. }) => {
                // Others take over at once instead of waiting for three intervals (RFC 9568 §6.4.3).
                out.push(Output::Advertise(self.resignation(), self.checksum));
                out.push(Output::Hold(Hold::Released));
            }
            (State::Master { .. }, State::Backup { .. }) => out.push(Output::Hold(Hold::Released)),
            (State::Initialize { .. } | State::Backup { .. }, State::Initialize { .. } | State::Backup { .. }) => {}
            (State::Initialize { .. } | State::Backup { .. } | State::Master { .. }, State::Master { .. }) => {
                // First the advert, so that no other becomes master meanwhile; the announcement waits for the kernel.
                out.push(Output::Advertise(self.advert.clone(), self.checksum));
                out.push(Output::Hold(Hold::Held));
            }
        }
        self.conflicts = 0;
        self.state = next;
        tracing::debug!(vrid = self.advert.virtual_router_id(), ?from, to = ?name(&self.state), %why, at = %now);
        out.push(Output::Publish(Event::Became { from, to: name(&self.state), why }));
    }

    /// A backup that has just heard a master of that interval, or counts on one.
    fn backup(&self, now: Instant, interval: Duration) -> State {
        State::Backup { master_down_at: now + self.patience(interval), interval, left: None }
    }

    /// How long a master may be silent.
    fn patience(&self, interval: Duration) -> Duration {
        interval * 3 + self.skew(interval)
    }

    /// So much earlier does a router of higher priority act (RFC 3768 §6.1, RFC 9568 §6.1).
    fn skew(&self, interval: Duration) -> Duration {
        let share = 256 - u32::from(self.advert.priority());
        match self.advert.interval() {
            Interval::Seconds(_) => Duration::from_secs(1) * share / 256,
            Interval::Centiseconds(_) => interval * share / 256,
        }
    }

    fn master(&self, now: Instant) -> State {
        State::Master {
            advert_at: now + self.advert.interval().duration(),
            renew_at: now + RENEW_EVERY,
            held_at: now,
            announce: Announce::Waiting,
        }
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        match &mut self.state {
            State::Initialize { retry_at } => {
                if retry_at.is_some_and(|at| at <= now) {
                    *retry_at = None;
                    self.review(now, out);
                }
            }
            State::Backup { master_down_at, interval, left } => {
                if *master_down_at <= now {
                    let (interval, left) = (*interval, *left);
                    let silent = || Why::MasterSilent { for_: self.patience(interval) };
                    let why = left.map_or_else(silent, |peer| Why::MasterLeft { peer });
                    self.become_(self.master(now), why, now, out);
                }
            }
            State::Master { advert_at, renew_at, held_at, announce } => {
                if now.since(*held_at) >= HOLD_LIFETIME {
                    let silent = format!("no answer of the kernel for {HOLD_LIFETIME:?}");
                    return self.on_vip(Err(silent), now, out);
                }
                if *advert_at <= now {
                    *advert_at = now + self.advert.interval().duration();
                    out.push(Output::Advertise(self.advert.clone(), self.checksum));
                }
                if *renew_at <= now {
                    *renew_at = now + RENEW_EVERY;
                    out.push(Output::Hold(Hold::Held));
                }
                announce.on_tick(now, out);
            }
        }
    }

    fn on_vip(&mut self, answer: Result<(), String>, now: Instant, out: &mut Vec<Output>) {
        let State::Master { held_at, announce, .. } = &mut self.state else { return };
        match answer {
            Ok(()) => {
                *held_at = now;
                self.refusals = 0;
                if *announce == Announce::Waiting {
                    *announce = Announce::Due { at: now, round: 0, last: now };
                    announce.on_tick(now, out);
                }
            }
            Err(reason) => {
                let pause = RETRY_MIN.saturating_mul(1 << self.refusals.min(6)).min(RETRY_MAX);
                self.refusals = self.refusals.saturating_add(1);
                self.become_(State::Initialize { retry_at: Some(now + pause) }, Why::Vip(reason), now, out);
            }
        }
    }

    fn on_advert(&mut self, received: Received, now: Instant, out: &mut Vec<Output>) {
        // A router in Initialize hears nothing (RFC 9568 §6.4.1).
        if matches!(self.state, State::Initialize { .. }) {
            return;
        }
        if let Some(reason) = self.judge(&received) {
            return self.refuse(Some(received.from), reason, out);
        }
        let Received { from, checksum, advert, .. } = received;
        self.checksum = checksum;
        self.compare_addresses(from, &advert, out);
        let (priority, interval) = (advert.priority(), advert.interval().duration());
        let rank = self.rank(from, priority);
        match &mut self.state {
            State::Initialize { .. } => {}
            State::Backup { interval: learnt, .. } => {
                if priority == 0 {
                    let interval = *learnt;
                    let master_down_at = now + self.skew(interval);
                    self.state = State::Backup { master_down_at, interval, left: Some(from) };
                } else if !self.preempt || priority >= self.advert.priority() {
                    self.state = self.backup(now, interval);
                }
            }
            State::Master { advert_at, announce, .. } => {
                if priority != 0 && rank == Ordering::Greater {
                    let why = Why::Outranked { peer: from, priority };
                    return self.become_(self.backup(now, interval), why, now, out);
                }
                // The other one hears at once that it is not alone (RFC 9568 §6.4.3; older routers waited).
                *advert_at = now + self.advert.interval().duration();
                out.push(Output::Advertise(self.advert.clone(), self.checksum));
                announce.again(now, out);
                if priority != 0 {
                    self.conflicts += 1;
                    if is_power_of_ten(self.conflicts) {
                        out.push(Output::Publish(Event::Conflict { peer: from, priority }));
                    }
                }
            }
        }
    }

    /// Whether a master at `from` goes before this one.
    fn rank(&self, from: IpAddr, priority: u8) -> Ordering {
        let own = self.link.as_ref().ok();
        priority.cmp(&self.advert.priority()).then_with(|| Some(&from).cmp(&own))
    }

    /// Why an advert is not to be believed, if so (RFC 9568 §7.1, RFC 3768 §7.1).
    fn judge(&self, received: &Received) -> Option<Refusal> {
        let Received { from, hop_limit, advert, .. } = received;
        if *hop_limit != HOP_LIMIT {
            return Some(Refusal::HopLimit(*hop_limit));
        }
        if advert.virtual_router_id() != self.advert.virtual_router_id() {
            return Some(Refusal::VirtualRouterId(advert.virtual_router_id()));
        }
        if self.link.as_ref() == Ok(from) {
            return Some(Refusal::Own);
        }
        match (advert.interval(), self.advert.interval()) {
            (Interval::Seconds(theirs), Interval::Seconds(ours)) if theirs != ours => {
                return Some(Refusal::Interval(advert.interval()));
            }
            (Interval::Seconds(_), Interval::Seconds(_)) | (Interval::Centiseconds(_), Interval::Centiseconds(_)) => {}
            (Interval::Seconds(_), Interval::Centiseconds(_)) | (Interval::Centiseconds(_), Interval::Seconds(_)) => {
                return Some(Refusal::Version(advert.interval().version()));
            }
        }
        match advert.auth() {
            Auth::None => None,
            Auth::Simple(_) => Some(Refusal::Authentication),
        }
    }

    /// Differing address lists are told, and the advert counts all the same: RFC 3768 §7.1 would drop it, and two
    /// masters would hold what their lists share.
    fn compare_addresses(&mut self, from: IpAddr, advert: &Advert, out: &mut Vec<Output>) {
        let known = |address| self.advert.addresses().contains(address);
        let same = advert.addresses().len() == self.advert.addresses().len() && advert.addresses().iter().all(known);
        if same {
            self.differing = self.differing.filter(|peer| *peer != from);
        } else if self.differing != Some(from) {
            self.differing = Some(from);
            let theirs = advert.addresses().to_vec();
            out.push(Output::Publish(Event::AddressesDiffer { peer: from, theirs }));
        }
    }

    fn refuse(&mut self, from: Option<IpAddr>, reason: Refusal, out: &mut Vec<Output>) {
        let count = self.refused.entry(reason.name()).or_default();
        *count = count.saturating_add(1);
        // Other virtual routers on the segment are no news.
        if is_power_of_ten(*count) && !matches!(reason, Refusal::VirtualRouterId(_)) {
            out.push(Output::Publish(Event::Refused { from, reason, count: *count }));
        }
    }
}

impl Machine for Router {
    type Input = Input;
    type Output = Output;
    const TICK: Input = Input::Tick;

    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        if self.stopped {
            return;
        }
        match input {
            Input::Tick => self.on_tick(now, out),
            Input::Advert(received) => self.on_advert(received, now, out),
            Input::Malformed(error) => {
                self.refuse(None, Refusal::Malformed(error.name(), error.to_string()), out);
            }
            Input::Link(link) => {
                let link = link.map_err(Why::Link);
                if self.link != link {
                    self.link = link;
                    self.review(now, out);
                }
            }
            Input::Usable(usable) => {
                let usable = usable.map_err(Why::Unusable);
                if self.usable != usable {
                    self.usable = usable;
                    self.review(now, out);
                }
            }
            Input::Vip(answer) => self.on_vip(answer, now, out),
            Input::Stop => {
                self.stopped = true;
                self.become_(State::Initialize { retry_at: None }, Why::Stopped, now, out);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Initialize { retry_at } => *retry_at,
            State::Backup { master_down_at, .. } => Some(*master_down_at),
            State::Master { advert_at, renew_at, announce, .. } => {
                earliest(Some(*advert_at.min(renew_at)), announce.deadline())
            }
        }
    }
}

impl Announce {
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Waiting => None,
            Self::Due { at, .. } => Some(*at),
        }
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        match self {
            Self::Waiting => {}
            Self::Due { at, round, last } => {
                if *at <= now {
                    *last = now;
                    *at = now + PAUSES.get(*round).copied().unwrap_or(REFRESH_EVERY);
                    *round = round.saturating_add(1);
                    out.push(Output::Announce);
                }
            }
        }
    }

    /// Begins the plan anew, for somebody else may have announced the addresses; not more often than each
    /// [`CONFLICT_PAUSE`].
    fn again(&mut self, now: Instant, out: &mut Vec<Output>) {
        match self {
            Self::Waiting => {}
            Self::Due { at, round, last } => {
                (*at, *round) = (now.max(*last + CONFLICT_PAUSE), 0);
                self.on_tick(now, out);
            }
        }
    }
}

fn name(state: &State) -> VipState {
    match state {
        State::Initialize { .. } => VipState::Initialize,
        State::Backup { .. } => VipState::Backup,
        State::Master { .. } => VipState::Master,
    }
}

fn is_power_of_ten(count: u64) -> bool {
    count > 0 && 10u64.checked_pow(count.ilog10()) == Some(count)
}
