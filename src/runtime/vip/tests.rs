use std::net::IpAddr;

use super::*;
use crate::config;
use crate::runtime::netlink::Address;
use crate::wire::vrrp::Interval;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vip() -> config::Vip {
    config::Vip {
        addresses: vec![(ip("192.168.0.1"), 24)],
        interface: "eth0".to_owned(),
        virtual_router_id: 51,
        version: 3,
        advert_interval: Duration::from_millis(100),
        preempt: false,
        peers: vec![],
    }
}

fn refused(vip: &config::Vip, priority: u8, own: &str) -> String {
    VipSpec::new(vip, priority, ip(own), vec![]).unwrap_err().to_string()
}

#[test]
fn specs_take_over_what_the_file_says() {
    let spec = VipSpec::new(&vip(), 101, ip("192.168.0.2"), vec![ip("192.168.0.3")]).unwrap();
    assert_eq!((spec.interval, spec.priority, spec.preempt), (Interval::Centiseconds(10), 101, false));
}

#[test]
fn what_cannot_be_a_virtual_router_is_refused_with_its_reason() {
    let own = "192.168.0.2";
    let old = config::Vip { version: 2, ..vip() };
    assert!(refused(&old, 1, own).contains("whole seconds up to 255 in version 2"));
    assert!(refused(&config::Vip { version: 4, ..vip() }, 1, own).contains("version 4"));
    assert!(refused(&config::Vip { virtual_router_id: 0, ..vip() }, 1, own).contains("1 to 255"));
    assert!(refused(&config::Vip { addresses: vec![], ..vip() }, 1, own).contains("at least one"));
    let mixed = vec![(ip("192.168.0.1"), 24), (ip("fe80::1"), 64)];
    assert!(refused(&config::Vip { addresses: mixed, ..vip() }, 1, own).contains("one family"));
    assert!(refused(&vip(), 255, own).contains("1 to 254"));
    assert!(refused(&vip(), 0, own).contains("1 to 254"));
    assert!(refused(&vip(), 1, "192.168.0.1").contains("own address"));
}

fn on_interface(addresses: &[(&str, bool)]) -> Vec<Address> {
    addresses
        .iter()
        .map(|(text, secondary)| Address { ip: ip(text), prefix: 24, secondary: *secondary, usable: true })
        .collect()
}

#[test]
fn adverts_come_from_the_node_s_own_address_or_the_first_and_never_from_a_virtual_one() {
    let all = on_interface(&[("192.168.0.1", false), ("10.0.0.9", true), ("10.0.0.5", false), ("fe80::5", false)]);
    let virtual_addresses = [(ip("192.168.0.1"), 24)];
    assert_eq!(primary(&all, ip("10.0.0.9"), &virtual_addresses), Some(ip("10.0.0.9")));
    assert_eq!(primary(&all, ip("172.16.0.1"), &virtual_addresses), Some(ip("10.0.0.5")));
    assert_eq!(primary(&all, ip("192.168.0.1"), &virtual_addresses), Some(ip("10.0.0.5")));
    assert_eq!(primary(&all[..1], ip("10.0.0.9"), &virtual_addresses), None);
}

#[test]
fn adverts_over_ipv6_come_from_a_usable_link_local_address() {
    let mut all =
        on_interface(&[("fe80::1:1", false), ("2001:db8::5", false), ("fe80::5", false), ("10.0.0.5", false)]);
    let virtual_addresses = [(ip("fe80::1:1"), 64), (ip("2001:db8::1"), 64)];
    assert_eq!(primary(&all, ip("2001:db8::5"), &virtual_addresses), Some(ip("fe80::5")));
    all[2].usable = false;
    assert_eq!(primary(&all, ip("2001:db8::5"), &virtual_addresses), None);
}

#[test]
fn the_link_local_address_comes_first() {
    let spec = VipSpec {
        addresses: vec![(ip("2001:db8::1"), 64), (ip("fe80::1:1"), 64)],
        ..VipSpec::new(&vip(), 101, ip("fe80::5"), vec![]).unwrap()
    };
    assert_eq!(spec.router().unwrap().resignation().addresses(), [ip("fe80::1:1"), ip("2001:db8::1")]);
}
