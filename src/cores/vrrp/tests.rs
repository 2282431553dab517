use proptest::prelude::*;

use super::*;
use crate::base::Machine;
use crate::base::node::VipState;
use crate::wire::vrrp::Auth;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config() -> Config {
    Config {
        virtual_router_id: 51,
        priority: 100,
        interval: Interval::Centiseconds(10),
        preempt: true,
        addresses: vec![ip("192.168.0.1")],
        own_address: ip(OWN),
        proxies: vec![ip(PEER), ip("192.168.0.1"), ip("10.0.0.1")],
        peers: vec![ip(NAMED)],
    }
}

const NAMED: &str = "192.168.0.77";
const OWN: &str = "192.168.0.2";
const PEER: &str = "192.168.0.3";
/// 3 × 100 ms + 100 ms × (256 − 100) / 256.
const PATIENCE: Duration = Duration::from_nanos(360_937_500);

fn at(millis: u64) -> Instant {
    Instant::from_millis(1_000_000 + millis)
}

fn heard(from: &str, priority: u8) -> Received {
    let advert = Advert::new(51, priority, Interval::Centiseconds(10), config().addresses).unwrap();
    Received { from: ip(from), hop_limit: 255, checksum: ChecksumForm::PseudoHeader, advert }
}

fn said(proxy: &str, word: Word) -> Input {
    Input::Proxies(vec![(ip(proxy), word)])
}

fn claim() -> Input {
    Input::Claim { address: ip("192.168.0.1"), mac: [2, 0, 0, 0, 0, 9] }
}

/// A router, what it said last, and the invariants that hold after every input.
struct Bench {
    router: Router,
    held: Hold,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self { router: Router::new(config).unwrap(), held: Hold::Released }
    }

    fn backup(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.feed(0, Input::Link(Ok(ip(OWN))));
        bench.feed(0, Input::Usable(Ok(())));
        assert_eq!(bench.router.vip_state(), VipState::Backup);
        bench
    }

    /// A master whose addresses are set, since 1000 ms.
    fn master(config: Config) -> Self {
        let mut bench = Self::backup(config);
        bench.feed(1_000, Input::Tick);
        bench.feed(1_000, Input::Vip(Ok(())));
        assert_eq!(bench.router.vip_state(), VipState::Master);
        bench
    }

    fn feed(&mut self, millis: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let ticked = input == Input::Tick;
        self.router.handle(at(millis), input, &mut out);
        for output in &out {
            if let Output::Hold(hold) = output {
                self.held = *hold;
            }
        }
        assert_eq!(self.held, self.router.hold(), "the last wish is what the state says");
        assert!(!ticked || self.router.deadline().is_none_or(|next| next > at(millis)), "a tick moves the deadline");
        out
    }

    fn advert(&self, priority: u8) -> Output {
        let advert = Advert::new(51, priority, config().interval, config().addresses).unwrap();
        Output::Advertise(advert, ChecksumForm::PseudoHeader)
    }
}

fn became(from: VipState, to: VipState, why: Why) -> Output {
    Output::Publish(Event::Became { from, to, why })
}

#[test]
fn takes_part_only_with_link_and_proxy() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.feed(0, Input::Usable(Ok(()))), []);
    let out = bench.feed(0, Input::Link(Err("down".to_owned())));
    assert!(matches!(&out[..], [Output::Publish(Event::Waiting { why: Why::Link(_) })]), "{out:?}");
    let out = bench.feed(0, Input::Link(Ok(ip(OWN))));
    assert_eq!(out, [became(VipState::Initialize, VipState::Backup, Why::Ready)]);
    assert_eq!(bench.router.deadline(), Some(at(0) + PATIENCE));
}

#[test]
fn a_new_master_advertises_then_holds_then_announces() {
    let mut bench = Bench::backup(config());
    assert_eq!(bench.feed(360, Input::Tick), []);
    let why = Why::MasterSilent { for_: PATIENCE };
    let out = bench.feed(361, Input::Tick);
    assert_eq!(out, [bench.advert(100), Output::Hold(Hold::Held), became(VipState::Backup, VipState::Master, why)]);
    assert_eq!(bench.feed(362, Input::Vip(Ok(()))), [Output::Announce]);
    assert_eq!(bench.feed(363, Input::Vip(Ok(()))), [], "only once");
    assert_eq!(bench.feed(382, Input::Tick), [Output::Announce]);
    assert_eq!(bench.feed(461, Input::Tick), [bench.advert(100)]);
}

#[test]
fn a_master_announces_in_a_burst_after_five_seconds_and_each_minute() {
    let mut bench = Bench::master(config());
    let mut announced = vec![];
    for millis in 1_001..140_000 {
        if bench.router.deadline().is_some_and(|due| due <= at(millis)) {
            let out = bench.feed(millis, Input::Tick);
            if out.contains(&Output::Hold(Hold::Held)) {
                bench.feed(millis, Input::Vip(Ok(())));
            }
            if out.contains(&Output::Announce) {
                announced.push(millis - 1_000);
            }
        }
    }
    assert_eq!(announced, [20, 120, 1_000, 5_000, 6_000, 66_000, 126_000]);
}

#[test]
fn a_master_renews_each_second_and_gives_up_without_an_answer() {
    let mut bench = Bench::master(config());
    let mut renewed = 0;
    for millis in 1_001..3_999 {
        renewed += bench.feed(millis, Input::Tick).iter().filter(|o| **o == Output::Hold(Hold::Held)).count();
    }
    assert_eq!(renewed, 2);
    let out = bench.feed(4_000, Input::Tick);
    assert_eq!(&out[..2], [bench.advert(0), Output::Hold(Hold::Released)]);
    assert_eq!(bench.router.state(), &State::Initialize { retry_at: Some(at(5_000)) });
}

#[test]
fn a_refusal_of_the_kernel_gives_the_election_up_for_a_growing_while() {
    let mut bench = Bench::backup(config());
    let mut millis = 1_000;
    let mut pauses = vec![];
    for _ in 0..8 {
        bench.feed(millis, Input::Tick);
        let out = bench.feed(millis, Input::Vip(Err("no".to_owned())));
        assert_eq!(&out[..2], [bench.advert(0), Output::Hold(Hold::Released)]);
        let pause = bench.router.deadline().unwrap().since(at(millis)).as_millis();
        pauses.push(pause);
        // A link that goes and comes does not shorten the pause.
        bench.feed(millis, Input::Link(Err("gone".to_owned())));
        bench.feed(millis, Input::Link(Ok(ip(OWN))));
        assert_eq!(bench.router.vip_state(), VipState::Initialize);
        millis += u64::try_from(pause).unwrap();
        bench.feed(millis, Input::Tick);
        assert_eq!(bench.router.vip_state(), VipState::Backup);
        millis += 1_000;
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
}

#[test]
fn a_sick_master_leaves_at_once_without_preemption_too() {
    let mut bench = Bench::master(Config { preempt: false, ..config() });
    let why = Why::Unusable("no listener".to_owned());
    let out = bench.feed(1_050, Input::Usable(Err("no listener".to_owned())));
    let left = became(VipState::Master, VipState::Initialize, why);
    assert_eq!(out, [bench.advert(0), Output::Hold(Hold::Released), left]);
    assert_eq!(bench.router.deadline(), None);
    let mut other = Bench::backup(Config { preempt: false, ..config() });
    other.feed(0, Input::Advert(heard(PEER, 200)));
    other.feed(50, Input::Advert(heard(PEER, 0)));
    // The skew alone: 100 ms × 156 / 256.
    assert_eq!(other.router.deadline(), Some(at(50) + Duration::from_micros(60_937)));
    let out = other.feed(111, Input::Tick);
    assert_eq!(out.last(), Some(&became(VipState::Backup, VipState::Master, Why::MasterLeft { peer: ip(PEER) })));
}

#[test]
fn preemption_ignores_lower_adverts_and_its_absence_obeys_them() {
    for (preempt, expected) in [(true, VipState::Master), (false, VipState::Backup)] {
        let mut bench = Bench::backup(Config { preempt, ..config() });
        bench.feed(300, Input::Advert(heard(PEER, 50)));
        bench.feed(400, Input::Tick);
        assert_eq!(bench.router.vip_state(), expected);
    }
}

#[test]
fn a_master_yields_to_higher_rank_only() {
    for (from, priority, expected) in [
        (PEER, 101, VipState::Backup),
        (PEER, 100, VipState::Backup),
        ("192.168.0.1", 100, VipState::Master),
        (PEER, 99, VipState::Master),
        (PEER, 0, VipState::Master),
        (PEER, 255, VipState::Master),
        (NAMED, 255, VipState::Backup),
    ] {
        for preempt in [true, false] {
            let mut bench = Bench::master(Config { preempt, ..config() });
            let out = bench.feed(2_500, Input::Advert(heard(from, priority)));
            assert_eq!(bench.router.vip_state(), expected, "{from} {priority}");
            if (expected, priority) == (VipState::Master, 255) {
                assert!(
                    matches!(&out[..], [Output::Publish(Event::Refused { reason: Refusal::Owner, .. })]),
                    "{out:?}"
                );
            } else if expected == VipState::Master {
                assert_eq!(&out[..2], [bench.advert(100), Output::Announce], "{from} {priority}");
            } else {
                let last = [bench.advert(100), Output::Hold(Hold::Released)];
                assert_eq!(out[..2], last, "the other one hears that there were two: {from} {priority}");
            }
        }
    }
}

#[test]
fn a_lasting_conflict_does_not_flood_the_segment() {
    let mut bench = Bench::master(config());
    let (mut announced, mut told) = (0, 0);
    for millis in (2_000..12_000).step_by(10) {
        for input in [Input::Advert(heard(PEER, 99)), Input::Tick, Input::Vip(Ok(()))] {
            let out = bench.feed(millis, input);
            announced += out.iter().filter(|o| **o == Output::Announce).count();
            told += out.iter().filter(|o| matches!(o, Output::Publish(Event::Conflict { .. }))).count();
        }
    }
    assert!((8..=24).contains(&announced), "{announced} rounds in 10 s");
    assert_eq!(told, 4, "the 1st, 10th, 100th and 1000th");
}

#[test]
fn backup_counts_its_own_interval_whatever_a_master_says() {
    for centiseconds in [1, 4_095] {
        let mut bench = Bench::backup(config());
        let interval = Interval::Centiseconds(centiseconds);
        let advert = Advert::new(51, 200, interval, config().addresses).unwrap();
        let received = Received { advert, ..heard(PEER, 200) };
        let told = Event::IntervalDiffers { peer: ip(PEER), theirs: interval, ours: config().interval };
        assert_eq!(bench.feed(300, Input::Advert(received.clone())), [Output::Publish(told)]);
        assert_eq!(bench.router.deadline(), Some(at(300) + PATIENCE));
        assert_eq!(bench.feed(400, Input::Advert(received)), []);
        assert_eq!(bench.router.deadline(), Some(at(400) + PATIENCE));
    }
}

#[test]
fn version_2_has_a_skew_of_its_own_and_insists_on_the_interval() {
    let old = Config { interval: Interval::Seconds(2), ..config() };
    let mut bench = Bench::backup(old);
    // 3 × 2 s and 156 / 256 s.
    assert_eq!(bench.router.deadline(), Some(at(0) + Duration::from_micros(6_609_375)));
    for (interval, refused) in
        [(Interval::Seconds(1), "other-interval"), (Interval::Centiseconds(200), "other-version")]
    {
        let advert = Advert::new(51, 200, interval, config().addresses).unwrap();
        bench.feed(5_000, Input::Advert(Received { advert, ..heard(PEER, 200) }));
        assert_eq!(bench.router.refused(refused), 1);
    }
    assert_eq!(bench.router.deadline(), Some(at(0) + Duration::from_micros(6_609_375)));
}

#[test]
fn the_form_of_checksum_follows_the_peer() {
    let mut bench = Bench::backup(config());
    bench.feed(0, Input::Advert(Received { checksum: ChecksumForm::Plain, ..heard(PEER, 200) }));
    let out = bench.feed(1_000, Input::Tick);
    assert!(matches!(out[0], Output::Advertise(_, ChecksumForm::Plain)));
}

#[test]
fn what_is_not_believed_changes_nothing_and_is_counted() {
    for start in [Bench::backup(config()), Bench::master(config())] {
        let before = start.router.state().clone();
        let mut bench = start;
        let good = heard(PEER, 200);
        let other = Advert::new(52, 200, Interval::Centiseconds(10), config().addresses).unwrap();
        let old = Advert::new(51, 200, Interval::Seconds(1), config().addresses).unwrap();
        let secret = old.clone().with_auth(Auth::Simple(*b"password")).unwrap();
        let wrong = [
            ("hop-limit", Received { hop_limit: 254, ..good.clone() }),
            ("other-router", Received { advert: other, ..good.clone() }),
            ("other-version", Received { advert: old, ..good.clone() }),
            ("other-version", Received { advert: secret, ..good.clone() }),
            ("own", Received { from: ip(OWN), ..good }),
            ("owner", heard(PEER, 255)),
            ("stranger", heard("192.168.0.9", 254)),
            ("stranger", heard("192.168.0.9", 0)),
            ("stranger", heard("192.168.0.9", 255)),
        ];
        for (name, received) in wrong {
            let counted = bench.router.refused(name);
            bench.feed(1_001, Input::Advert(received));
            assert_eq!(bench.router.refused(name), counted + 1, "{name}");
        }
        bench.feed(1_001, Input::Malformed(Malformed::NoAddress));
        assert_eq!(bench.router.refused("address-count"), 1);
        assert_eq!(bench.router.state(), &before);
    }
}

#[test]
fn a_password_is_refused_where_none_is_configured() {
    let mut bench = Bench::backup(Config { interval: Interval::Seconds(1), ..config() });
    let advert = Advert::new(51, 200, Interval::Seconds(1), config().addresses).unwrap();
    let advert = advert.with_auth(Auth::Simple(*b"password")).unwrap();
    let out = bench.feed(0, Input::Advert(Received { advert, ..heard(PEER, 200) }));
    let reason = Refusal::Authentication;
    assert_eq!(out, [Output::Publish(Event::Refused { from: Some(ip(PEER)), reason, count: 1 })]);
}

#[test]
fn other_addresses_are_told_once_and_the_advert_counts() {
    let mut bench = Bench::backup(config());
    let theirs = vec![ip("192.168.0.77")];
    let advert = Advert::new(51, 200, Interval::Centiseconds(10), theirs.clone()).unwrap();
    let received = Received { advert, ..heard(PEER, 200) };
    let told = Output::Publish(Event::AddressesDiffer { peer: ip(PEER), theirs });
    assert_eq!(bench.feed(200, Input::Advert(received.clone())), [told]);
    assert_eq!(bench.feed(300, Input::Advert(received)), []);
    assert_eq!(bench.router.deadline(), Some(at(300) + PATIENCE));
}

#[test]
fn a_stopped_router_says_no_more() {
    let mut bench = Bench::master(config());
    let out = bench.feed(1_001, Input::Stop);
    assert_eq!(&out[..2], [bench.advert(0), Output::Hold(Hold::Released)]);
    for input in [Input::Tick, Input::Usable(Ok(())), Input::Link(Ok(ip(PEER))), Input::Advert(heard(PEER, 1))] {
        assert_eq!(bench.feed(9_000, input), []);
    }
    assert_eq!(bench.router.deadline(), None);
}

/// Every state with every event: the state that follows.
#[test]
fn transition_table() {
    use VipState::{Backup, Initialize, Master};
    let bad = || "broken".to_owned();
    #[rustfmt::skip]
    let table: Vec<(Input, VipState, VipState, VipState)> = vec![
        //                                       Initialize  Backup      Master
        (Input::Tick,                            Initialize, Master,     Master),
        (Input::Advert(heard(PEER, 200)),        Initialize, Backup,     Backup),
        (Input::Advert(heard(PEER, 100)),        Initialize, Backup,     Backup),
        (Input::Advert(heard("10.0.0.1", 100)),  Initialize, Backup,     Master),
        (Input::Advert(heard(PEER, 99)),         Initialize, Backup,     Master),
        (Input::Advert(heard(PEER, 0)),          Initialize, Backup,     Master),
        (Input::Advert(heard(PEER, 255)),        Initialize, Backup,     Master),
        (Input::Advert(heard(NAMED, 255)),       Initialize, Backup,     Backup),
        (Input::Advert(heard("10.9.9.9", 254)),  Initialize, Backup,     Master),
        (Input::Proxies(vec![]),                 Initialize, Backup,     Master),
        (said(PEER, Word::Holds),                Initialize, Backup,     Master),
        (said(PEER, Word::Idle),                 Initialize, Backup,     Master),
        (claim(),                                Initialize, Backup,     Master),
        (Input::Malformed(Malformed::NoAddress), Initialize, Backup,     Master),
        (Input::Link(Ok(ip(OWN))),               Initialize, Backup,     Master),
        (Input::Link(Ok(ip("192.168.0.9"))),     Initialize, Backup,     Master),
        (Input::Link(Err(bad())),                Initialize, Initialize, Initialize),
        (Input::Usable(Ok(())),                  Backup,     Backup,     Master),
        (Input::Usable(Err(bad())),              Initialize, Initialize, Initialize),
        (Input::Vip(Ok(())),                     Initialize, Backup,     Master),
        (Input::Vip(Err(bad())),                 Initialize, Backup,     Initialize),
        (Input::Stop,                            Initialize, Initialize, Initialize),
    ];
    for (input, from_initialize, from_backup, from_master) in table {
        let mut idle = Bench::backup(config());
        idle.feed(10, Input::Usable(Err("not yet".to_owned())));
        let starts =
            [(idle, from_initialize), (Bench::backup(config()), from_backup), (Bench::master(config()), from_master)];
        for (mut bench, expected) in starts {
            let from = bench.router.vip_state();
            bench.feed(1_001, input.clone());
            assert_eq!(bench.router.vip_state(), expected, "{from:?} and {input:?}");
        }
    }
    // A router whose pause after a refusal has ended takes part again.
    let mut bench = Bench::master(config());
    bench.feed(1_001, Input::Vip(Err(bad())));
    assert_eq!(bench.router.vip_state(), Initialize);
    bench.feed(2_001, Input::Tick);
    assert_eq!(bench.router.vip_state(), Backup);
}

fn inputs() -> impl Strategy<Value = Input> {
    let peers = prop_oneof![Just(OWN), Just(PEER), Just("192.168.0.1"), Just(NAMED), Just("192.168.0.9")];
    let words = proptest::collection::vec(prop_oneof![Just(Word::Silent), Just(Word::Idle), Just(Word::Holds)], 3)
        .prop_map(|words| Input::Proxies(config().proxies.into_iter().zip(words).collect()));
    let intervals = prop_oneof![Just(Interval::Seconds(1)), (1u16..300).prop_map(Interval::Centiseconds)];
    let adverts =
        (peers, any::<u8>(), intervals, 50u8..53, prop_oneof![9 => Just(255u8), 1 => any::<u8>()], any::<bool>())
            .prop_map(|(from, priority, interval, vrid, hop_limit, plain)| {
                let advert = Advert::new(vrid, priority, interval, config().addresses).unwrap();
                let checksum = if plain { ChecksumForm::Plain } else { ChecksumForm::PseudoHeader };
                Input::Advert(Received { from: ip(from), hop_limit, checksum, advert })
            });
    let answer = || prop_oneof![4 => Just(Ok(())), 1 => "[a-c]".prop_map(Err)];
    prop_oneof![
        20 => Just(Input::Tick),
        10 => adverts,
        3 => words,
        1 => Just(claim()),
        1 => Just(Input::Malformed(Malformed::VirtualRouterId)),
        2 => prop_oneof![3 => Just(Ok(ip(OWN))), 1 => Just(Ok(ip(PEER))), 1 => "[a-c]".prop_map(Err)].prop_map(Input::Link),
        3 => answer().prop_map(Input::Usable),
        5 => answer().prop_map(Input::Vip),
    ]
}

proptest! {
    /// The invariants are in [`Bench::feed`]; here also: nothing is announced and no priority but 0 is said while the
    /// addresses are not wanted, and whoever was told to stop holds nothing.
    #[test]
    fn invariants_hold_under_any_inputs(
        v3: bool, preempt: bool, priority in 1u8..255,
        steps in proptest::collection::vec((0u64..700, inputs()), 0..200),
    ) {
        let interval = if v3 { Interval::Centiseconds(10) } else { Interval::Seconds(1) };
        let mut bench = Bench::new(Config { interval, preempt, priority, ..config() });
        let mut millis = 0;
        for (pause, input) in steps {
            millis += pause;
            let out = bench.feed(millis, input);
            // Who yields says once more that there were two.
            let yields = out.contains(&Output::Hold(Hold::Released));
            for output in out {
                match output {
                    Output::Advertise(advert, _) if yields => prop_assert!([0, priority].contains(&advert.priority())),
                    Output::Advertise(advert, _) => {
                        // A backup only ever asks whether a master has left.
                        let master = bench.router.vip_state() == VipState::Master;
                        prop_assert_eq!(advert.priority(), if master { priority } else { 0 });
                    }
                    Output::Announce => prop_assert_eq!(bench.router.vip_state(), VipState::Master),
                    Output::Hold(_) | Output::Publish(_) => {}
                }
            }
        }
        bench.feed(millis, Input::Stop);
        prop_assert_eq!((bench.held, bench.router.deadline()), (Hold::Released, None));
    }

    /// Two routers that hear each other settle on one master, whatever their priorities and however they started.
    #[test]
    fn two_routers_settle_on_one_master(a in 1u8..255, b in 1u8..255, preempt: bool, offset in 0u64..2_000) {
        let mut benches = [
            Bench::new(Config { priority: a, preempt, ..config() }),
            Bench::new(Config { priority: b, preempt, own_address: ip(PEER), proxies: vec![ip(OWN)], ..config() }),
        ];
        let own = [ip(OWN), ip(PEER)];
        for millis in 0..6_000u64 {
            for me in 0..2 {
                if millis == offset * me as u64 {
                    benches[me].feed(millis, Input::Link(Ok(own[me])));
                    benches[me].feed(millis, Input::Usable(Ok(())));
                }
                if benches[me].router.deadline().is_none_or(|due| due > at(millis)) {
                    continue;
                }
                let mut waiting: Vec<_> = benches[me].feed(millis, Input::Tick).into_iter().map(|o| (me, o)).collect();
                while let Some((from, output)) = waiting.pop() {
                    let (to, input) = match output {
                        Output::Advertise(advert, checksum) => {
                            (1 - from, Input::Advert(Received { from: own[from], hop_limit: 255, checksum, advert }))
                        }
                        Output::Hold(Hold::Held) => (from, Input::Vip(Ok(()))),
                        Output::Hold(Hold::Released) | Output::Announce | Output::Publish(_) => continue,
                    };
                    waiting.extend(benches[to].feed(millis, input).into_iter().map(|o| (to, o)));
                }
            }
        }
        let masters = benches.iter().filter(|bench| bench.router.vip_state() == VipState::Master).count();
        prop_assert_eq!(masters, 1);
        if preempt && a != b {
            prop_assert_eq!(benches[usize::from(b > a)].router.vip_state(), VipState::Master);
        }
    }

    /// Two routers with a peer link that lags behind, and somebody on the segment who sends what he likes, in his own name and
    /// in theirs: the one that is master stays the only one.
    #[test]
    fn nobody_else_moves_the_address(
        a in 1u8..255, b in 1u8..255, preempt: bool, lag in 0u64..80,
        forged in proptest::collection::vec(
            (2_000u64..6_000, 0usize..3, prop_oneof![3 => Just(0u8), 1 => Just(255), 6 => any::<u8>()], 1u16..4_096), 0..300),
    ) {
        let own = [ip(OWN), ip(PEER)];
        let spec = |me: usize, priority| Config {
            priority, preempt, own_address: own[me], proxies: vec![own[1 - me]], ..config()
        };
        let mut benches = [Bench::new(spec(0, a)), Bench::new(spec(1, b))];
        for (me, bench) in benches.iter_mut().enumerate() {
            bench.feed(0, Input::Link(Ok(own[me])));
            bench.feed(0, Input::Usable(Ok(())));
        }
        let mut words = [[Word::Silent; 2]; 2];
        let mut states: Vec<[VipState; 2]> = Vec::new();
        let mut first = None;
        for millis in 0..7_000u64 {
            states.push([benches[0].router.vip_state(), benches[1].router.vip_state()]);
            let mut waiting: Vec<(usize, Input)> = Vec::new();
            for me in 0..2 {
                // What the other said a while ago.
                let seen = states[usize::try_from(millis.saturating_sub(lag)).unwrap()][1 - me];
                let word = if seen == VipState::Master { Word::Holds } else { Word::Idle };
                if std::mem::replace(&mut words[me][1 - me], word) != word {
                    waiting.push((me, Input::Proxies(vec![(own[1 - me], word)])));
                }
                if benches[me].router.deadline().is_some_and(|due| due <= at(millis)) {
                    waiting.push((me, Input::Tick));
                }
            }
            for (_, sender, priority, interval) in forged.iter().filter(|(when, ..)| *when == millis) {
                let interval = Interval::Centiseconds(*interval);
                let advert = Advert::new(51, *priority, interval, config().addresses).unwrap();
                let from = [own[0], own[1], ip("192.168.0.9")][*sender];
                let packet = Received { advert, ..heard(&from.to_string(), *priority) };
                // The kernel of a node drops what carries its own address.
                waiting.extend((0..2).filter(|me| own[*me] != from).map(|me| (me, Input::Advert(packet.clone()))));
            }
            while let Some((me, input)) = waiting.pop() {
                for output in benches[me].feed(millis, input) {
                    match output {
                        Output::Advertise(advert, checksum) => {
                            let received = Received { from: own[me], hop_limit: 255, checksum, advert };
                            waiting.push((1 - me, Input::Advert(received)));
                        }
                        Output::Hold(Hold::Held) => {
                            // Not even for the moment in which the two find out.
                            prop_assert!(first.is_none_or(|first| first == me), "taken at {millis} ms");
                            waiting.push((me, Input::Vip(Ok(()))));
                        }
                        Output::Hold(Hold::Released) => prop_assert!(first.is_none(), "given up at {millis} ms"),
                        Output::Announce | Output::Publish(_) => {}
                    }
                }
            }
            if millis == 1_999 {
                let masters = (0..2).filter(|me| benches[*me].router.vip_state() == VipState::Master);
                let masters: Vec<_> = masters.collect();
                prop_assert_eq!(masters.len(), 1);
                first = masters.first().copied();
            }
        }
    }
}
