//! The virtual router against itself, keepalived and FRR, in network namespaces of its own.
//!
//! Needs root, `ip`, and for some cases `keepalived` or FRR; what is missing is said and skipped.

mod segment;

use std::net::IpAddr;
use std::time::Duration;

use segment::{Daemon, Host, Segment, wait};
use vigie::runtime::vip::VipSpec;
use vigie::wire::frame::VipState;
use vigie::wire::vrrp::Interval;

const VIP: &str = "10.99.0.1";
const LONG: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v3(host: &Host, priority: u8) -> VipSpec {
    VipSpec {
        addresses: vec![(ip(VIP), 24)],
        interface: "eth0".to_owned(),
        virtual_router_id: 51,
        interval: Interval::Centiseconds(10),
        preempt: true,
        priority,
        own_address: host.address(),
    }
}

#[test]
fn two_of_ours_elect_the_higher_and_stopping_it_moves_the_address_at_once() {
    let Some(mut segment) = Segment::new() else { return };
    let (a, b) = (segment.host(), segment.host());
    let mut low = a.ours(v3(&a, 100));
    low.becomes(VipState::Master, LONG);
    wait("the address is set", LONG, || a.has(VIP));
    let mut high = b.ours(v3(&b, 150));
    high.becomes(VipState::Master, LONG);
    low.becomes(VipState::Backup, LONG);
    wait("the address has moved", LONG, || b.has(VIP) && !a.has(VIP));
    assert!(high.stop());
    assert!(!b.has(VIP), "taken off before the stop returns");
    low.becomes(VipState::Master, LONG);
    wait("the address is back", LONG, || a.has(VIP));
    assert!(low.records().iter().any(|record| record.text.contains("gave up being master")), "{:#?}", low.records());
    assert!(low.stop());
    assert!(!a.has(VIP));
}
