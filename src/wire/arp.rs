//! Ethernet frames that tell a segment where a virtual address lives now: gratuitous ARP and unsolicited neighbour
//! advertisements. Who listens updates caches and switch tables by them.
//!
//! Of those that others send, only ARP is read: whose address they say is where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpEthIpv4Packet, ArpOperation, Icmpv6Type, PacketBuilder};

/// An Ethernet address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// All nodes of the link (RFC 4291 §2.7.1), and the Ethernet address of that group (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// Neighbour discovery takes no other (RFC 4861 §7.1.2).
const HOP_LIMIT: u8 = 255;
/// Option type 2, target link-layer address, of length 1 (in units of 8 bytes; RFC 4861 §4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// Ethernet type of ARP.
const ETHERTYPE: [u8; 2] = [0x08, 0x06];
/// Ethernet and IPv4, with addresses of 6 and 4 bytes (RFC 826).
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// An Ethernet header and an ARP packet for IPv4; frames are padded behind it.
pub const ARP_FRAME_LEN: usize = 42;
/// Where in such a frame its type and the two addresses of its sender are.
pub const ETHERTYPE_AT: usize = 12;
/// The Ethernet address that the sender says it has.
pub const SENDER_MAC_AT: usize = 22;
/// The IPv4 address that the sender says it has.
pub const SENDER_IP_AT: usize = 28;

/// Who an ARP frame, request or answer, says has which address; none if it is no such frame, or says nothing: a host that
/// asks whether an address is free has none yet.
pub fn sender(frame: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let frame = frame.first_chunk::<ARP_FRAME_LEN>()?;
    let arp = frame[ETHERTYPE_AT..][..2] == ETHERTYPE && frame[14..20] == ETHERNET_IPV4;
    let mac = <Mac>::try_from(&frame[SENDER_MAC_AT..SENDER_IP_AT]).ok()?;
    let ip = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[SENDER_IP_AT..SENDER_IP_AT + 4]).ok()?);
    let says = matches!(frame[20..22], [0, 1 | 2]) && !ip.is_unspecified();
    (arp && says).then_some((mac, ip))
}

/// As people write it.
pub fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The frame that announces `address` at `mac`, whatever its family.
pub fn announcement(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous(mac, address),
        IpAddr::V6(address) => unsolicited(mac, address),
    }
}

/// A gratuitous ARP: a broadcast request whose sender and target are both `address` (RFC 9568 §6.4.2). The form of
/// keepalived, which switches and hosts of the field are used to.
pub fn gratuitous(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac,
        sender_ipv4: address.octets(),
        target_mac: BROADCAST,
        target_ipv4: address.octets(),
    };
    let builder = PacketBuilder::ethernet2(mac, BROADCAST).arp(arp.into());
    let mut frame = Vec::with_capacity(builder.size());
    builder.write_to_vec(&mut frame).expect("an ARP packet always fits");
    frame
}

/// An unsolicited neighbour advertisement to all nodes, with the override flag, so that caches take `mac` for the one
/// they have (RFC 4861 §7.2.6).
pub fn unsolicited(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let builder = PacketBuilder::ethernet2(mac, ALL_NODES_MAC)
        .ipv6(address.octets(), ALL_NODES.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
    let mut body = address.octets().to_vec();
    body.extend(TARGET_LINK_LAYER_ADDRESS);
    body.extend(mac);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    builder.write_to_vec(&mut frame, &body).expect("24 bytes always fit");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn gratuitous_arp_is_what_keepalived_sends() {
        // keepalived 2.2.7, caught by tcpdump.
        let expected = "ffffffffffff02000000000108060001080006040001020000000001c0a80001ffffffffffffc0a80001";
        assert_eq!(hex(&announcement(MAC, IpAddr::from([192, 168, 0, 1]))), expected);
    }

    #[test]
    fn who_says_what_is_read_and_nothing_else() {
        let address = Ipv4Addr::new(192, 168, 0, 1);
        let frame = gratuitous(MAC, address);
        assert_eq!(frame.len(), ARP_FRAME_LEN);
        assert_eq!(sender(&frame), Some((MAC, address)));
        assert_eq!(sender(&[frame.clone(), vec![0; 18]].concat()), Some((MAC, address)), "padded");
        for length in 0..frame.len() {
            assert_eq!(sender(&frame[..length]), None, "{length} bytes");
        }
        let changed = |at: usize, byte: u8| {
            let mut frame = frame.clone();
            frame[at] = byte;
            sender(&frame)
        };
        for at in (12..=20).chain([21]) {
            assert_eq!(changed(at, 99), None, "byte {at}");
        }
        assert_eq!(changed(21, 2), Some((MAC, address)), "an answer");
        // A probe (RFC 5227 §2.1.1).
        assert_eq!(sender(&gratuitous(MAC, Ipv4Addr::UNSPECIFIED)), None);
        assert_eq!(text(MAC), "02:00:00:00:00:01");
    }

    #[test]
    fn neighbour_advertisement_is_what_keepalived_sends() {
        // keepalived 2.2.7, caught by tcpdump.
        let expected = "33330000000102000000000186dd6000000000203affff".replace("ffff", "ff")
            + "20010db8000000000000000000000001ff0200000000000000000000000000018800f92a20000000"
            + "20010db80000000000000000000000010201020000000001";
        assert_eq!(hex(&announcement(MAC, "2001:db8::1".parse().unwrap())), expected);
    }
}
