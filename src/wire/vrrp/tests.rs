use proptest::prelude::*;

use super::*;

/// First adverts of real routers, from the IP header on: keepalived 2.2.7 and FRR 8.4.4 in a namespace, caught by
/// tcpdump.
const KEEPALIVED_V2: &str = "45c0002800010000ff70d0440a4d0001e0000012213365010001b920c0a800010000000000000000";
const KEEPALIVED_V2_AUTH: &str = "45c0002800010000ff70d0440a4d0001e00000122133650101014aa2c0a800017365637265743132";
const KEEPALIVED_V2_LEAVING: &str = "45c0002800020000ff70d0430a4d0001e00000122133000100011e21c0a800010000000000000000";
const KEEPALIVED_V3: &str = "45c0002400010000ff70d0480a4d0001e000001231336502000afd83c0a80001c0a80009";
/// As RFC 9568 has it; summed by hand, since neither of the two routers sends it so.
const RFC_V3: &str = "45c0002000010000ff70d04c0a4d0001e000001231336501000aa917c0a80001";
const FRR_V3: &str = "45c0002076794000ff7019d40a4d0001e000001231336e01000a6b8e0a4d0009";
/// Without its IPv6 header: from fe80::77:1 to ff02::12.
const KEEPALIVED_V3_IPV6: &str = "3133650200323eb5fe80000000000000000000000001000120010db8000000000000000000000001";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn received(hex: &str) -> Received {
    parse_packet(&bytes(hex)).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What is emitted for a received advert must be the message that came, byte for byte.
fn emits_what_came(hex: &str) {
    let came = received(hex);
    let emitted = emit(&came.advert, came.from, GROUP_V4.into(), came.checksum);
    assert_eq!(emitted, bytes(hex)[20..], "{hex}");
}

#[test]
fn adverts_of_real_routers_are_read() {
    let v2 = received(KEEPALIVED_V2);
    assert_eq!((v2.from, v2.hop_limit, v2.checksum), (ip("10.77.0.1"), 255, ChecksumForm::Plain));
    let expected = Advert::new(51, 101, Interval::Seconds(1), vec![ip("192.168.0.1")]).unwrap();
    assert_eq!(v2.advert, expected);
    assert_eq!(received(KEEPALIVED_V2_LEAVING).advert, expected.with_priority(0));
    assert_eq!(received(KEEPALIVED_V2_AUTH).advert, expected.with_auth(Auth::Simple(*b"secret12")).unwrap());

    let v3 = received(KEEPALIVED_V3);
    assert_eq!(v3.checksum, ChecksumForm::PseudoHeader);
    let both = vec![ip("192.168.0.1"), ip("192.168.0.9")];
    assert_eq!(v3.advert, Advert::new(51, 101, Interval::Centiseconds(10), both).unwrap());
    assert_eq!(received(RFC_V3).checksum, ChecksumForm::Plain);

    let frr = received(FRR_V3);
    assert_eq!((frr.checksum, frr.advert.priority()), (ChecksumForm::PseudoHeader, 110));
}

#[test]
fn adverts_of_real_routers_are_emitted_alike() {
    let all = [KEEPALIVED_V2, KEEPALIVED_V2_AUTH, KEEPALIVED_V2_LEAVING, KEEPALIVED_V3, RFC_V3, FRR_V3];
    all.into_iter().for_each(emits_what_came);
}

#[test]
fn ipv6_always_has_a_pseudo_header() {
    let (from, to) = (ip("fe80::77:1"), GROUP_V6.into());
    let (advert, form) = parse(&bytes(KEEPALIVED_V3_IPV6), from, to).unwrap();
    assert_eq!(form, ChecksumForm::PseudoHeader);
    assert_eq!(advert.addresses(), [ip("fe80::1:1"), ip("2001:db8::1")]);
    assert_eq!(advert.interval(), Interval::Centiseconds(50));
    assert_eq!(emit(&advert, from, to, ChecksumForm::Plain), bytes(KEEPALIVED_V3_IPV6));
    assert!(matches!(parse(&bytes(KEEPALIVED_V3_IPV6), ip("fe80::77:2"), to), Err(Malformed::Checksum(_))));
}

#[test]
fn seconds_and_centiseconds_are_never_confused() {
    assert_eq!(Interval::new(2, Duration::from_secs(1)), Ok(Interval::Seconds(1)));
    assert_eq!(Interval::new(3, Duration::from_secs(1)), Ok(Interval::Centiseconds(100)));
    assert_eq!(Interval::Seconds(1).duration(), Interval::Centiseconds(100).duration());
    for (version, millis) in [(2, 0), (2, 100), (2, 256_000), (3, 0), (3, 5), (3, 40_960), (4, 1_000)] {
        assert!(Interval::new(version, Duration::from_millis(millis)).is_err(), "{version} {millis}");
    }
}

/// `hex` with one byte of the message replaced and the checksum made right again.
fn changed(hex: &str, at: usize, value: u8) -> Result<Received, Malformed> {
    let mut packet = bytes(hex);
    packet[20 + at] = value;
    packet[26..28].fill(0);
    let sum = Sum16BitWords::new().add_slice(&packet[20..]).ones_complement().to_ne_bytes();
    packet[26..28].copy_from_slice(&sum);
    parse_packet(&packet)
}

#[test]
fn every_fault_has_its_reason() {
    let v3 = RFC_V3;
    assert_eq!(changed(v3, 0, 0x41), Err(Malformed::Version(4)));
    assert_eq!(changed(v3, 0, 0x32), Err(Malformed::Type(2)));
    assert_eq!(changed(v3, 1, 0), Err(Malformed::VirtualRouterId));
    assert_eq!(changed(v3, 3, 0), Err(Malformed::Length { have: 12, expected: 8 }));
    assert_eq!(changed(v3, 3, 2), Err(Malformed::Length { have: 12, expected: 16 }));
    assert_eq!(changed(v3, 5, 0), Err(Malformed::Interval(Interval::Centiseconds(0))));
    assert_eq!(changed(KEEPALIVED_V2, 5, 0), Err(Malformed::Interval(Interval::Seconds(0))));
    assert_eq!(changed(KEEPALIVED_V2, 4, 2), Err(Malformed::AuthType(2)));
    // The reserved bits above the interval are not looked at.
    assert_eq!(changed(v3, 4, 0xf0).map(|r| r.advert.interval()), Ok(Interval::Centiseconds(10)));

    let mut packet = bytes(v3);
    packet[9] = 6;
    assert_eq!(parse_packet(&packet), Err(Malformed::Protocol(6)));
    packet = bytes(v3);
    packet[26] ^= 1;
    assert!(matches!(parse_packet(&packet), Err(Malformed::Checksum(_))));
    packet = bytes(v3);
    packet[0] = 0x4f;
    assert!(matches!(parse_packet(&packet), Err(Malformed::Packet(_))));
    for length in 0..bytes(v3).len() {
        assert!(parse_packet(&bytes(v3)[..length]).is_err(), "{length} bytes");
    }
    let empty = Advert::new(1, 1, Interval::Seconds(1), vec![]);
    assert_eq!(empty, Err(Malformed::NoAddress));
    let mixed = Advert::new(1, 1, Interval::Centiseconds(1), vec![ip("1.2.3.4"), ip("::1")]);
    assert_eq!(mixed, Err(Malformed::Family { version: 3 }));
    let old = Advert::new(1, 1, Interval::Seconds(1), vec![ip("::1")]);
    assert_eq!(old, Err(Malformed::Family { version: 2 }));
}

#[test]
fn passwords_do_not_print() {
    assert!(!format!("{:?}", received(KEEPALIVED_V2_AUTH)).contains("115"), "the letter s");
}

fn adverts() -> impl Strategy<Value = (Advert, IpAddr)> {
    let v4 = || any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits)));
    let v6 = || any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits)));
    let many = 1..20usize;
    let timed = prop_oneof![
        (1u8.., proptest::collection::vec(v4(), many.clone()), v4()).prop_map(|(n, a, f)| (Interval::Seconds(n), a, f)),
        (1u16..4096, proptest::collection::vec(v4(), many.clone()), v4()).prop_map(|(n, a, f)| (
            Interval::Centiseconds(n),
            a,
            f
        )),
        (1u16..4096, proptest::collection::vec(v6(), many), v6()).prop_map(|(n, a, f)| (
            Interval::Centiseconds(n),
            a,
            f
        )),
    ];
    (1u8.., any::<u8>(), timed, any::<Option<[u8; 8]>>()).prop_map(
        |(vrid, priority, (interval, addresses, from), auth)| {
            let advert = Advert::new(vrid, priority, interval, addresses).unwrap();
            let auth = auth.map_or(Auth::None, Auth::Simple);
            (advert.clone().with_auth(auth).unwrap_or(advert), from)
        },
    )
}

proptest! {
    #[test]
    fn adverts_round_trip((advert, from) in adverts(), pseudo: bool) {
        let form = if pseudo { ChecksumForm::PseudoHeader } else { ChecksumForm::Plain };
        let message = emit(&advert, from, advert.group(), form);
        let (back, _) = parse(&message, from, advert.group()).unwrap();
        prop_assert_eq!(back, advert);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool) {
        let _ = parse_packet(&bytes);
        let from = if v6 { ip("fe80::1") } else { ip("10.0.0.1") };
        let _ = parse(&bytes, from, from);
    }

    #[test]
    fn damaged_adverts_never_panic(at in 0usize..36, value: u8) {
        let mut packet = bytes(KEEPALIVED_V3);
        packet[at] = value;
        let _ = parse_packet(&packet);
    }
}
