//! The machine.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::sabotage::{Rule, Rules};
use super::trust::{GRACE, Sender, Trust};
use super::{Announce, Config, Event, HOLD_LIFETIME, Hold, Input, Output, RENEW_EVERY, Refusal, State, Why, Word};
use crate::base::node::VipState;
use crate::base::time::earliest;
use crate::base::{Instant, Machine};
use crate::wire::arp::Mac;
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
/// Somebody else who announces an address must not either.
const CLAIM_PAUSE: Duration = Duration::from_millis(100);
/// Between two adverts that answer somebody, so that packets cannot make a storm. Shorter than any interval.
const ANSWER_PAUSE: Duration = Duration::from_millis(5);
/// Between two questions whether a master has really left, likewise.
const ASK_PAUSE: Duration = Duration::from_millis(10);
/// Its answer is waited for at least this long: the thread of a master is real-time, and its segment is not far.
const ANSWER_TIME: Duration = Duration::from_millis(20);
/// What goes on is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// If it comes from somebody else, after this time.
const TELL_OTHER: Duration = Duration::from_secs(10);
/// The priority of a router to which the addresses belong (RFC 9568 §5.2.4).
const OWNER: u8 = 255;
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
    /// When what differs between configurations was last told.
    differs: BTreeMap<&'static str, Instant>,
    refused: BTreeMap<&'static str, Teller<Option<IpAddr>>>,
    claims: Teller<Option<Mac>>,
    trust: Trust,
    /// When a master was last asked whether it has left.
    asked_at: Option<Instant>,
    rules: Rules,
}

/// Counts what strangers may bring about as often as they like, and says when people are told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Teller<T> {
    count: u64,
    /// When it was told last, and of whom.
    told: Option<(Instant, T)>,
}

impl<T: PartialEq> Teller<T> {
    /// One more; the count, if it is to be told.
    fn count(&mut self, whose: T, now: Instant) -> Option<u64> {
        self.count = self.count.saturating_add(1);
        let again = self.told.as_ref().is_some_and(|(at, last)| {
            let pause = if *last == whose { TELL_AGAIN } else { TELL_OTHER };
            now.since(*at) >= pause
        });
        let due = again || is_power_of_ten(self.count);
        if due {
            self.told = Some((now, whose));
        }
        due.then_some(self.count)
    }
}

impl Router {
    /// A router that waits for its interface and its proxy. Its addresses are taken to be released.
    pub fn new(config: Config) -> Result<Self, Malformed> {
        let Config { virtual_router_id, priority, interval, preempt, addresses, own_address, proxies, peers } = config;
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
            differs: BTreeMap::new(),
            refused: BTreeMap::new(),
            claims: Teller::default(),
            trust: Trust::new(own_address, &proxies, peers),
            asked_at: None,
            rules: Rules::default(),
        })
    }

    /// This router, just made, without one rule.
    #[cfg(feature = "sabotage")]
    #[must_use]
    pub fn without(mut self, rule: Rule) -> Self {
        self.rules = Rules::without(rule);
        self
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

    /// How many packets were refused for the reason of that name.
    pub fn refused(&self, reason: &str) -> u64 {
        self.refused.get(reason).map_or(0, |teller| teller.count)
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
                self.become_(self.backup(now), Why::Ready, now, out);
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
            (State::Master { .. }, State::Backup { .. }) => {
                if self.rules.holds(Rule::Release) {
                    out.push(Output::Hold(Hold::Released));
                }
            }
            (State::Initialize { .. } | State::Backup { .. }, State::Initialize { .. } | State::Backup { .. }) => {}
            (State::Initialize { .. } | State::Backup { .. } | State::Master { .. }, State::Master { .. }) => {
                // First the advert, so that no other becomes master meanwhile; the announcement waits for the kernel.
                out.push(Output::Advertise(self.advert.clone(), self.checksum));
                out.push(Output::Hold(Hold::Held));
            }
        }
        self.conflicts = 0;
        self.claims = Teller::default();
        if !matches!(next, State::Master { .. }) {
            self.trust.clear_all();
        }
        self.state = next;
        tracing::debug!(vrid = self.advert.virtual_router_id(), ?from, to = ?name(&self.state), %why, at = %now);
        out.push(Output::Publish(Event::Became { from, to: name(&self.state), why }));
    }

    /// A backup that has just heard a master, or counts on one.
    fn backup(&self, now: Instant) -> State {
        State::Backup { master_down_at: now + self.patience(), left: None }
    }

    /// How long a master may be silent: by the configured interval, and not by one that is learnt from its adverts (RFC 9568
    /// §6.1), for those can say what they like.
    fn patience(&self) -> Duration {
        self.advert.interval().duration() * 3 + self.skew()
    }

    /// So much earlier does a router of higher priority act (RFC 3768 §6.1, RFC 9568 §6.1).
    fn skew(&self) -> Duration {
        let share = 256 - u32::from(self.advert.priority());
        match self.advert.interval() {
            Interval::Seconds(_) => Duration::from_secs(1) * share / 256,
            Interval::Centiseconds(_) => self.advert.interval().duration() * share / 256,
        }
    }

    /// Where its own adverts come from.
    fn primary(&self) -> Option<IpAddr> {
        self.link.as_ref().ok().copied()
    }

    fn master(&self, now: Instant) -> State {
        State::Master {
            advert_at: now + self.advert.interval().duration(),
            answered_at: None,
            renew_at: now + RENEW_EVERY,
            held_at: now,
            announce: Announce::Waiting,
        }
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        let patience = self.patience();
        match &mut self.state {
            State::Initialize { retry_at } => {
                if retry_at.is_some_and(|at| at <= now) {
                    *retry_at = None;
                    if self.rules.holds(Rule::Retry) {
                        self.review(now, out);
                    }
                }
            }
            State::Backup { master_down_at, left } => {
                if *master_down_at <= now {
                    if !self.rules.holds(Rule::TakeOver) {
                        self.state = self.backup(now);
                        return;
                    }
                    let claimant = self.trust.claimant(patience, now);
                    let why = match (*left, claimant) {
                        (Some(peer), _) => Why::MasterLeft { peer },
                        (None, Some(peer)) => Why::NotHeld { peer },
                        (None, None) => Why::MasterSilent { for_: patience },
                    };
                    self.become_(self.master(now), why, now, out);
                }
            }
            State::Master { held_at, .. } => {
                if now.since(*held_at) >= HOLD_LIFETIME {
                    let silent = format!("no answer of the kernel for {HOLD_LIFETIME:?}");
                    return self.on_vip(Err(silent), now, out);
                }
                self.advertise(now, out);
                self.renew(now, out);
                for from in self.trust.due(now) {
                    self.refuse(Some(from), Refusal::NotHolding, now, out);
                }
            }
        }
    }

    /// Renews the addresses and announces them, if that is due.
    fn renew(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let State::Master { renew_at, announce, .. } = &mut self.state {
            if *renew_at <= now {
                *renew_at = now + RENEW_EVERY;
                if self.rules.holds(Rule::Renew) {
                    out.push(Output::Hold(Hold::Held));
                }
            }
            announce.on_tick(now, out);
        }
    }

    /// Sends an advert if one is due.
    fn advertise(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let State::Master { advert_at, .. } = &mut self.state
            && *advert_at <= now
        {
            *advert_at = now + self.advert.interval().duration();
            out.push(Output::Advertise(self.advert.clone(), self.checksum));
        }
    }

    /// Sends an advert at once, or [`ANSWER_PAUSE`] after the last answer.
    fn answer(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let State::Master { advert_at, answered_at, .. } = &mut self.state {
            // One that is yet to come answers this too.
            let next = |last: Instant| if last > now { last } else { now.max(last + ANSWER_PAUSE) };
            let at = answered_at.map_or(now, next);
            *answered_at = Some(at);
            *advert_at = (*advert_at).min(at);
        }
        self.advertise(now, out);
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
        let sender = match self.judge(&received) {
            Ok(sender) => sender,
            Err(reason) => return self.refuse(Some(received.from), reason, now, out),
        };
        let Received { from, checksum, advert, .. } = received;
        // From what counts little, if at all, nothing is learnt.
        if sender.word != Word::Idle {
            self.trust.clear(sender);
            self.checksum = checksum;
            self.compare(from, &advert, now, out);
        }
        let priority = advert.priority();
        match &self.state {
            State::Initialize { .. } => {}
            State::Backup { .. } if priority == 0 => self.on_farewell(from, sender, now, out),
            State::Backup { .. } => self.on_master(from, sender, priority, now, out),
            State::Master { .. } => self.on_rival(from, sender, priority, now, out),
        }
    }

    /// A backup hears a master.
    fn on_master(&mut self, from: IpAddr, sender: Sender, priority: u8, now: Instant, out: &mut Vec<Output>) {
        let lower = self.preempt && priority < self.advert.priority();
        if lower || !self.rules.holds(Rule::HearMaster) {
            return;
        }
        if sender.word == Word::Idle && self.trust.doubt(sender, (from, priority), false, self.patience(), now) >= GRACE
        {
            return self.refuse(Some(from), Refusal::NotHolding, now, out);
        }
        self.state = self.backup(now);
    }

    /// A backup hears that a master gives up.
    fn on_farewell(&mut self, from: IpAddr, sender: Sender, now: Instant, out: &mut Vec<Output>) {
        let State::Backup { master_down_at, left } = &self.state else { return };
        let (master_down_at, asked) = (*master_down_at, self.asked_at.is_some_and(|at| now.since(at) < ASK_PAUSE));
        let wait = match (self.trust.held(), sender.word) {
            (false, Word::Silent | Word::Idle | Word::Holds) => self.skew(),
            // It has nothing to give up; or it is another backup's question.
            (true, Word::Idle) => return,
            // The master has answered just now.
            (true, Word::Silent | Word::Holds) if asked && left.is_none() => return,
            (true, Word::Silent | Word::Holds) => {
                if !asked {
                    // A master that has not left answers, as to any farewell.
                    self.asked_at = Some(now);
                    out.push(Output::Advertise(self.resignation(), self.checksum));
                }
                self.skew().max(ANSWER_TIME)
            }
        };
        // Farewells said again and again do not move the time away.
        self.state = State::Backup { master_down_at: master_down_at.min(now + wait), left: Some(from) };
    }

    /// A master hears another, or a farewell.
    fn on_rival(&mut self, from: IpAddr, sender: Sender, priority: u8, now: Instant, out: &mut Vec<Output>) {
        let doubted = sender.word == Word::Idle;
        let outranked = priority != 0 && self.rank(from, priority) == Ordering::Greater;
        if outranked && !doubted && self.rules.holds(Rule::Yield) {
            // Once more, so that the other one hears that there were two, and announces the addresses again: else hosts that have heard
            // them announced here send to this one until they look for themselves.
            self.answer(now, out);
            let why = Why::Outranked { peer: from, priority };
            return self.become_(self.backup(now), why, now, out);
        }
        // The other one hears at once that it is not alone (RFC 9568 §6.4.3; older routers waited).
        self.answer(now, out);
        if doubted {
            let contradicted =
                priority != 0 && self.trust.doubt(sender, (from, priority), outranked, self.patience(), now) >= GRACE;
            if contradicted {
                self.refuse(Some(from), Refusal::NotHolding, now, out);
            }
            return;
        }
        if let State::Master { announce, .. } = &mut self.state {
            announce.again(now, out);
        }
        if priority != 0 {
            self.conflicts += 1;
            if is_power_of_ten(self.conflicts) {
                out.push(Output::Publish(Event::Conflict { peer: from, priority }));
            }
        }
    }

    /// The peer link has something new to say of the other proxies.
    fn on_proxies(&mut self, said: &[(IpAddr, Word)], now: Instant, out: &mut Vec<Output>) {
        if self.rules.holds(Rule::BelieveLink) {
            self.trust.hear(said);
        } else {
            self.trust.hear(&said.iter().map(|(proxy, _)| (*proxy, Word::Idle)).collect::<Vec<_>>());
        }
        let confirmed = self.trust.confirmed(self.patience(), self.primary(), now);
        match &self.state {
            State::Initialize { .. } => {}
            State::Backup { master_down_at, left: Some(peer) } if !self.trust.held() => {
                // The one that left has said so here too, and need not be asked any more.
                let master_down_at = (*master_down_at).min(now + self.skew());
                self.state = State::Backup { master_down_at, left: Some(*peer) };
            }
            // Its adverts were refused for too long, perhaps.
            State::Backup { left: None, .. } if !confirmed.is_empty() => self.state = self.backup(now),
            State::Backup { .. } => {}
            State::Master { .. } => {
                let higher = |peer, priority| self.rank(peer, priority) == Ordering::Greater;
                if let Some(doubt) = confirmed.into_iter().find(|doubt| higher(doubt.from, doubt.priority)) {
                    let why = Why::Outranked { peer: doubt.from, priority: doubt.priority };
                    self.become_(self.backup(now), why, now, out);
                }
            }
        }
    }

    /// Somebody else announces an address that is held here.
    fn on_claim(&mut self, address: IpAddr, mac: Mac, now: Instant, out: &mut Vec<Output>) {
        let State::Master { announce, .. } = &mut self.state else { return };
        if *announce == Announce::Waiting {
            return;
        }
        announce.defend(now, out);
        if let Some(count) = self.claims.count(Some(mac), now) {
            out.push(Output::Publish(Event::Claimed { address, mac, count }));
        }
    }

    /// Whether a master at `from` goes before this one.
    fn rank(&self, from: IpAddr, priority: u8) -> Ordering {
        let own = self.link.as_ref().ok();
        let tie = || if self.rules.holds(Rule::BreakTie) { Some(&from).cmp(&own) } else { Ordering::Less };
        priority.cmp(&self.advert.priority()).then_with(tie)
    }

    /// Who has sent an advert; or why it does not count (RFC 9568 §7.1, RFC 3768 §7.1).
    fn judge(&self, received: &Received) -> Result<Sender, Refusal> {
        let Received { from, hop_limit, advert, .. } = received;
        if *hop_limit != HOP_LIMIT {
            return Err(Refusal::HopLimit(*hop_limit));
        }
        if advert.virtual_router_id() != self.advert.virtual_router_id() {
            return Err(Refusal::VirtualRouterId(advert.virtual_router_id()));
        }
        if self.link.as_ref() == Ok(from) {
            return Err(Refusal::Own);
        }
        let sender = self.trust.sender(*from, self.primary())?;
        match (advert.interval(), self.advert.interval()) {
            (Interval::Seconds(theirs), Interval::Seconds(ours)) if theirs != ours => {
                return Err(Refusal::Interval(advert.interval()));
            }
            (Interval::Seconds(_), Interval::Seconds(_)) | (Interval::Centiseconds(_), Interval::Centiseconds(_)) => {}
            (Interval::Seconds(_), Interval::Centiseconds(_)) | (Interval::Centiseconds(_), Interval::Seconds(_)) => {
                return Err(Refusal::Version(advert.interval().version()));
            }
        }
        if advert.priority() == OWNER && !sender.named {
            return Err(Refusal::Owner);
        }
        match advert.auth() {
            Auth::None => Ok(sender),
            Auth::Simple(_) => Err(Refusal::Authentication),
        }
    }

    /// Differing address lists are told, and the advert counts all the same: RFC 3768 §7.1 would drop it, and two
    /// masters would hold what their lists share. Likewise intervals.
    fn compare(&mut self, from: IpAddr, advert: &Advert, now: Instant, out: &mut Vec<Output>) {
        let known = |address| self.advert.addresses().contains(address);
        let same = advert.addresses().len() == self.advert.addresses().len() && advert.addresses().iter().all(known);
        if same {
            self.differing = self.differing.filter(|peer| *peer != from);
        } else if self.differing != Some(from) {
            self.differing = Some(from);
            let theirs = advert.addresses().to_vec();
            self.differs("addresses", Event::AddressesDiffer { peer: from, theirs }, now, out);
        }
        let (theirs, ours) = (advert.interval(), self.advert.interval());
        if theirs != ours {
            self.differs("interval", Event::IntervalDiffers { peer: from, theirs, ours }, now, out);
        }
    }

    fn differs(&mut self, what: &'static str, event: Event, now: Instant, out: &mut Vec<Output>) {
        if self.differs.get(what).is_none_or(|at| now.since(*at) >= TELL_AGAIN) {
            self.differs.insert(what, now);
            out.push(Output::Publish(event));
        }
    }

    fn refuse(&mut self, from: Option<IpAddr>, reason: Refusal, now: Instant, out: &mut Vec<Output>) {
        let due = self.refused.entry(reason.name()).or_default().count(from, now);
        // Other virtual routers on the segment are no news.
        if let Some(count) = due.filter(|_| !matches!(reason, Refusal::VirtualRouterId(_))) {
            out.push(Output::Publish(Event::Refused { from, reason, count }));
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
                self.refuse(None, Refusal::Malformed(error.name(), error.to_string()), now, out);
            }
            Input::Proxies(said) => self.on_proxies(&said, now, out),
            Input::Claim { address, mac } => self.on_claim(address, mac, now, out),
            Input::Link(link) => {
                let link = link.map_err(Why::Link);
                if self.link != link {
                    self.link = link;
                    self.review(now, out);
                }
            }
            Input::Usable(usable) => {
                let usable = usable.map_err(Why::Unusable);
                let counts = usable.is_ok() || self.usable.is_err() || self.rules.holds(Rule::LeaveUnfit);
                if self.usable != usable && counts {
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
                let due = earliest(Some(*advert_at.min(renew_at)), announce.deadline());
                earliest(due, self.trust.deadline())
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

    /// Begins the plan again, for a second master may have announced the addresses; not more often than each
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

    /// One round at once, or [`CLAIM_PAUSE`] after the last one.
    fn defend(&mut self, now: Instant, out: &mut Vec<Output>) {
        match self {
            Self::Waiting => {}
            Self::Due { at, last, .. } => {
                *at = (*at).min(now.max(*last + CLAIM_PAUSE));
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
