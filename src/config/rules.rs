//! What holds between the keys of a file: rules that refuse it, and advice that does not.

use std::net::IpAddr;
use std::time::Duration;

use super::Fencing;
use super::draft::{Draft, DraftNode, DraftVip};
use super::faults::shown;
use super::keys;
use super::reader::{Placed, Reader, path};
use crate::base::node::Roles;

/// A shorter password is warned of, characters.
pub(super) const PASSWORD_ADVISED: usize = 16;
/// A shorter secret of the cluster is refused, characters: nobody has to remember it.
pub(super) const SECRET_LEAST: usize = 16;
/// A faster heartbeat is warned of: a starved host misses it.
const ADVERT_ADVISED: Duration = Duration::from_millis(50);
/// What the frame of the peer link has room for.
const VIPS_MAX: usize = 4;
const NODES_MAX: usize = 32;
const ADDRESSES_MAX: usize = 16;
const PEERS_MAX: usize = 16;

/// Judges everything that takes more than one key.
pub(super) fn judge(reader: &mut Reader<'_>, draft: &Draft) {
    duplicate_nodes(reader, &draft.nodes);
    masters(reader, &draft.nodes);
    voters(reader, draft);
    vips(reader, draft);
    ports(reader, draft);
    stock(reader, draft);
    fencing(reader, draft);
    advice(reader, draft);
}

/// A stock sentinel is a voter like any other: the file has to name its node.
fn stock(reader: &mut Reader<'_>, draft: &Draft) {
    let voters = || draft.nodes.iter().filter(|node| node.roles.as_ref().is_some_and(|roles| roles.value.sentinel));
    for (n, address) in draft.stock.iter().enumerate() {
        let written = format!("\"{}\"", address.value);
        let is_voter = voters().any(|node| node.address.as_ref().is_some_and(|own| own.value == address.value));
        if !is_voter && complete(&draft.nodes) {
            let said = "no node of the file with the role \"sentinel\" has this address; add a [[node]] for it";
            reader.fault(address.line, path(&keys::SENTINEL_STOCK), Some(&written), said);
        }
        if draft.stock[..n].iter().any(|other| other.value == address.value) {
            reader.fault(
                address.line,
                path(&keys::SENTINEL_STOCK),
                Some(&written),
                "the same address twice; remove one",
            );
        }
    }
}

/// A lease takes sentinels that promise something, and room beside `down_after`.
fn fencing(reader: &mut Reader<'_>, draft: &Draft) {
    let fencing = draft.fencing();
    let fenced = fencing.value == Fencing::Lease;
    if let Some(first) = draft.stock.first().filter(|_| fenced) {
        let said = format!(
            "sentinel.stock names a redis-sentinel or valkey-sentinel (line {}), and those promise a master nothing; allowed \
             beside it: \"off\"",
            first.line.unwrap_or(0)
        );
        reader.fault(fencing.line, path(&keys::FENCING), Some(LEASE_WRITTEN), said);
    }
    // After a fault of its own nothing can be said of what it leaves room for.
    let Some(down_after) = &draft.down_after else { return };
    let beside = match down_after.line {
        Some(line) => format!("down_after = \"{}\" (line {line})", keys::duration(down_after.value)),
        None => format!("down_after = \"{}\", its default", keys::duration(down_after.value)),
    };
    let (least, most) = (keys::LEASE_LEAST, keys::longest_lease(down_after.value));
    let needed = keys::duration(least * 2);
    match &draft.lease {
        Some(lease) if most < least => {
            let said = format!(
                "no lease fits beside {beside}: \"{}\" is the shortest, half of down_after the longest; remove it, or \
                 write down_after = \"{needed}\" or more",
                keys::duration(least)
            );
            reader.fault(lease.line, path(&keys::LEASE), Some(&written(lease.value)), said);
        }
        Some(lease) if lease.value < least || lease.value > most => {
            let said = format!(
                "out of range; allowed: \"{}\" to \"{}\", half of {beside}",
                keys::duration(least),
                keys::duration(most)
            );
            reader.fault(lease.line, path(&keys::LEASE), Some(&written(lease.value)), said);
        }
        None if fenced && most < least => {
            let said = format!(
                "no lease fits beside {beside}: \"{}\" is the shortest, half of down_after the longest; write \
                 down_after = \"{needed}\" or more, or fencing = \"off\"",
                keys::duration(least)
            );
            reader.fault(fencing.line, path(&keys::FENCING), Some(LEASE_WRITTEN), said);
        }
        Some(_) | None => {}
    }
}

/// `fencing = "lease"`, as it stands in the file.
const LEASE_WRITTEN: &str = "\"lease\"";

fn written(time: Duration) -> String {
    format!("\"{}\"", keys::duration(time))
}

/// The roles that are known, of all nodes.
fn roles(nodes: &[DraftNode]) -> impl Iterator<Item = Roles> {
    nodes.iter().filter_map(|node| node.roles.as_ref()).map(|roles| roles.value)
}

/// Whether the roles of every node could be read: without them nothing can be said of their number.
fn complete(nodes: &[DraftNode]) -> bool {
    nodes.iter().all(|node| node.roles.is_some())
}

fn duplicate_nodes(reader: &mut Reader<'_>, nodes: &[DraftNode]) {
    for (n, node) in nodes.iter().enumerate() {
        let before = &nodes[..n];
        if let Some(name) = &node.name
            && let Some(line) = before.iter().filter_map(|other| other.name.as_ref()).find(|o| o.value == name.value)
        {
            let said = format!("another node has this name (line {}); each needs its own", line.line.unwrap_or(0));
            reader.fault(name.line, path(&keys::NODE_NAME), Some(&format!("{:?}", name.value)), said);
        }
        if let Some(address) = &node.address
            && let Some(line) =
                before.iter().filter_map(|other| other.address.as_ref()).find(|o| o.value == address.value)
        {
            let said = format!("another node has this address (line {}); each needs its own", line.line.unwrap_or(0));
            reader.fault(address.line, path(&keys::ADDRESS), Some(&format!("\"{}\"", address.value)), said);
        }
    }
    if nodes.len() > NODES_MAX {
        let said = format!("{} nodes; allowed: 1 to {NODES_MAX}", nodes.len());
        reader.fault(nodes[NODES_MAX].line, "node", None, said);
    }
    if nodes.is_empty() {
        reader.fault(
            None,
            "node",
            None,
            "no [[node]] at all; at least one with the roles redis and sentinel is needed",
        );
    }
}

fn masters(reader: &mut Reader<'_>, nodes: &[DraftNode]) {
    let mut first: Option<&DraftNode> = None;
    for node in nodes.iter().filter(|node| node.bootstrap_master.value) {
        let line = node.bootstrap_master.line;
        if let Some(first) = first {
            let said = format!(
                "another node is the first master already (line {}); allowed: one",
                first.bootstrap_master.line.unwrap_or(0)
            );
            reader.fault(line, path(&keys::BOOTSTRAP_MASTER), Some("true"), said);
        }
        first = first.or(Some(node));
        if node.roles.as_ref().is_some_and(|roles| !roles.value.redis) {
            let said = "this node has no redis; allowed: on a node with the role \"redis\"";
            reader.fault(line, path(&keys::BOOTSTRAP_MASTER), Some("true"), said);
        }
        if node.replica_priority.value == 0 {
            let said = "replica_priority = 0 says that this node never becomes a master; remove one of the two";
            reader.fault(line, path(&keys::BOOTSTRAP_MASTER), Some("true"), said);
        }
    }
    if !nodes.is_empty() && complete(nodes) && !roles(nodes).any(|roles| roles.redis) {
        reader.fault(nodes[0].line, path(&keys::ROLES), None, "no node has the role \"redis\"; at least one must");
    }
}

fn voters(reader: &mut Reader<'_>, draft: &Draft) {
    let nodes = &draft.nodes;
    if nodes.is_empty() || !complete(nodes) {
        return;
    }
    let sentinels = draft.sentinels();
    if sentinels == 0 {
        let said = "no node has the role \"sentinel\": nobody could decide on a failover; at least one must, three are \
                    advised";
        reader.fault(nodes[0].line, path(&keys::ROLES), None, said);
        return;
    }
    let Some(quorum) = &draft.quorum else { return };
    let written = quorum.value.to_string();
    let quorum_usize = usize::try_from(quorum.value).unwrap_or(usize::MAX);
    if quorum_usize > sentinels {
        let said = match sentinels {
            1 => "at most 1 sentinel can agree; allowed: 1".to_owned(),
            _ => format!("at most {sentinels} sentinels can agree; allowed: 1 to {sentinels}"),
        };
        reader.fault(quorum.line, path(&keys::QUORUM), Some(&written), said);
    } else if quorum_usize < sentinels / 2 + 1 {
        let said = format!(
            "{written} of {sentinels} sentinels is less than a majority: a few that are cut off may take a healthy \
             master for dead; {} is advised",
            sentinels / 2 + 1
        );
        reader.warn(quorum.line, path(&keys::QUORUM), said);
    }
    match sentinels {
        1 => reader.warn(
            quorum.line,
            path(&keys::QUORUM),
            "one sentinel: nothing fails over once its host is gone; three are advised",
        ),
        2 => reader.warn(
            quorum.line,
            path(&keys::QUORUM),
            "two sentinels: nothing fails over once one of them is gone, because one is no majority of two; three are \
             advised",
        ),
        even if even % 2 == 0 => {
            let said = format!(
                "{even} sentinels, an even number: they survive no more losses than {} would, and may split in halves",
                even - 1
            );
            reader.warn(quorum.line, path(&keys::QUORUM), said);
        }
        _ => {}
    }
}

fn vips(reader: &mut Reader<'_>, draft: &Draft) {
    if let Some(beyond) = draft.vips.get(VIPS_MAX) {
        let said = format!("{} of [[vip]]; allowed: at most {VIPS_MAX}", draft.vips.len());
        reader.fault(beyond.line, "vip", None, said);
    }
    for (n, vip) in draft.vips.iter().enumerate() {
        let before = &draft.vips[..n];
        version(reader, vip);
        let same_id = |other: &&DraftVip| other.id.as_ref().map(|id| id.value) == vip.id.as_ref().map(|id| id.value);
        if let (Some(id), Some(other)) = (&vip.id, before.iter().find(same_id)) {
            let said = format!(
                "another [[vip]] has this id (line {}); each needs its own, 1 to 255",
                other.id.as_ref().and_then(|id| id.line).unwrap_or(0)
            );
            reader.fault(id.line, path(&keys::VIRTUAL_ROUTER_ID), Some(&id.value.to_string()), said);
        }
        for (m, address) in vip.addresses.iter().enumerate() {
            let earlier = before.iter().flat_map(|other| &other.addresses).chain(&vip.addresses[..m]);
            vip_address(reader, draft, address, earlier);
        }
        for (m, peer) in vip.peers.iter().enumerate() {
            vip_peer(reader, draft, vip, peer, &vip.peers[..m]);
        }
    }
    let proxies = roles(&draft.nodes).filter(|roles| roles.proxy).count();
    if let Some(first) = draft.vips.first().filter(|_| complete(&draft.nodes)) {
        match proxies {
            0 => {
                let said =
                    "no node has the role \"proxy\": nobody would hold this address; give it to one, or remove it";
                reader.fault(first.line, "vip", None, said);
            }
            1 => reader.warn(first.line, "vip", "one proxy: nobody takes the address over once its host is gone"),
            _ => {}
        }
    } else if draft.vips.is_empty() && proxies > 0 {
        let proxy = draft.nodes.iter().find(|node| node.roles.as_ref().is_some_and(|roles| roles.value.proxy));
        let said = "no [[vip]]: proxies serve clients on virtual addresses, and there is none";
        reader.warn(proxy.and_then(|node| node.line), path(&keys::ROLES), said);
    }
}

/// What the versions of VRRP carry: whole seconds in 8 bits (RFC 3768 §5.3.7), centiseconds in 12 (RFC 9568 §5.2.7).
fn version(reader: &mut Reader<'_>, vip: &DraftVip) {
    let (Some(version), Some(advert_interval)) = (&vip.version, &vip.advert_interval) else { return };
    let interval = advert_interval.value;
    let written = format!("\"{}\"", keys::duration(interval));
    let micros = interval.as_micros();
    match version.value {
        2 => {
            if micros % 1_000_000 != 0 || micros == 0 {
                let said = "VRRP version 2 counts whole seconds; allowed: \"1s\" to \"255s\", or version = 3";
                let line = advert_interval.line.or(version.line);
                reader.fault(line, path(&keys::ADVERT_INTERVAL), Some(&written), said);
            }
            if let Some(address) = vip.addresses.iter().find(|address| address.value.0.is_ipv6()) {
                let said = "VRRP version 2 is for IPv4 only; allowed: version = 3";
                reader.fault(address.line, path(&keys::VIP_ADDRESSES), Some(&with_prefix_text(address)), said);
            }
        }
        _ => {
            if micros % 10_000 != 0 || micros > 40_950_000 {
                let said =
                    "VRRP version 3 counts hundredths of a second; allowed: \"10ms\" to \"40950ms\" in steps of 10 ms";
                reader.fault(advert_interval.line, path(&keys::ADVERT_INTERVAL), Some(&written), said);
            } else if interval < ADVERT_ADVISED {
                let said = format!(
                    "{written} is faster than {}: a host that is starved for a moment loses the address",
                    keys::duration(ADVERT_ADVISED)
                );
                reader.warn(advert_interval.line, path(&keys::ADVERT_INTERVAL), said);
            }
        }
    }
}

fn vip_address<'d>(
    reader: &mut Reader<'_>,
    draft: &Draft,
    address: &Placed<(IpAddr, u8)>,
    mut earlier: impl Iterator<Item = &'d Placed<(IpAddr, u8)>>,
) {
    let (ip, prefix) = address.value;
    let text = with_prefix_text(address);
    if earlier.any(|other| other.value.0 == ip) {
        reader.fault(address.line, path(&keys::VIP_ADDRESSES), Some(&text), "the same virtual address twice");
    }
    let known = || draft.nodes.iter().filter_map(|node| node.address.as_ref());
    if let Some(node) = known().find(|node| node.value == ip) {
        let said = format!(
            "a node has this address for its own (line {}); a virtual address belongs to no node",
            node.line.unwrap_or(0)
        );
        reader.fault(address.line, path(&keys::VIP_ADDRESSES), Some(&text), said);
    } else if !link_local(ip) && !known().any(|node| in_subnet(node.value, ip, prefix)) {
        let said = format!("{text}: no node has an address in this subnet; the clients' answers may take another way");
        reader.warn(address.line, path(&keys::VIP_ADDRESSES), said);
    }
}

/// A router beside the proxies: nobody else of the file, and somebody from whom adverts of this virtual router can come.
fn vip_peer(reader: &mut Reader<'_>, draft: &Draft, vip: &DraftVip, peer: &Placed<IpAddr>, earlier: &[Placed<IpAddr>]) {
    let ip = peer.value;
    let mut fault = |said: String| reader.fault(peer.line, path(&keys::VIP_PEERS), Some(&format!("\"{ip}\"")), said);
    if earlier.iter().any(|other| other.value == ip) {
        fault("the same peer twice".to_owned());
    }
    let mut virtuals = draft.vips.iter().flat_map(|vip| &vip.addresses);
    if let Some(other) = virtuals.find(|other| other.value.0 == ip) {
        let line = other.line.unwrap_or(0);
        fault(format!("this is a virtual address (line {line}); a peer has one of its own"));
    }
    let mut nodes = draft.nodes.iter().filter_map(|node| node.address.as_ref());
    if let Some(node) = nodes.find(|node| node.value == ip) {
        let line = node.line.unwrap_or(0);
        fault(format!("a node has this address (line {line}); the adverts of its proxies count anyway"));
    }
    match vip.addresses.first().map(|address| address.value.0.is_ipv6()) {
        Some(true) if !link_local(ip) => {
            fault("adverts over IPv6 come from link-local addresses; allowed: fe80::/10".to_owned());
        }
        Some(false) if ip.is_ipv6() => {
            fault("the virtual addresses are IPv4, and so is where their adverts come from".to_owned());
        }
        Some(true | false) | None => {}
    }
}

/// Whether `a` and `b` share their first `prefix` bits, and the family.
pub(super) fn in_subnet(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let differ = (bits(a) ^ bits(b)).leading_zeros();
    a.is_ipv4() == b.is_ipv4() && differ >= u32::from(prefix)
}

/// A proxy listens on the virtual address, a redis on its node's own and on loopback, a sentinel on all of these.
fn ports(reader: &mut Reader<'_>, draft: &Draft) {
    let Placed { value: port, line } = draft.sentinel;
    let beside = |clash: fn(Roles) -> bool| roles(&draft.nodes).any(|roles| roles.sentinel && clash(roles));
    let others = [
        (draft.redis.port, "redis.port", "the address of its node", beside(|roles| roles.redis)),
        (draft.proxy.port, "proxy.port", "the virtual addresses", beside(|roles| roles.proxy)),
    ];
    for (other, name, place, clash) in others {
        if clash && other == port {
            let said = format!("{name} is the same, and a sentinel listens on {place} too; allowed: another");
            reader.fault(line, path(&keys::SENTINEL_PORT), Some(&port.to_string()), said);
        }
    }
}

fn advice(reader: &mut Reader<'_>, draft: &Draft) {
    let nodes = &draft.nodes;
    let data = || nodes.iter().filter(|node| node.roles.as_ref().is_some_and(|roles| roles.value.redis));
    if let (Some(only), 1) = (data().next(), data().count()) {
        reader.warn(only.line, path(&keys::ROLES), "one data node: nothing can take over from its redis");
    }
    if data().count() > 1 && data().all(|node| node.replica_priority.value == 0) {
        let line = data().next().and_then(|node| node.replica_priority.line);
        reader.warn(line, path(&keys::REPLICA_PRIORITY), "0 on every data node: none of them may ever take over");
    }
    if data().next().is_some() && !nodes.iter().any(|node| node.bootstrap_master.value) {
        let said = "on no node: a cluster without any record of a master has none to begin with";
        reader.warn(data().next().and_then(|node| node.line), path(&keys::BOOTSTRAP_MASTER), said);
    }
    let grace = &draft.busy_grace;
    if draft.down_after.as_ref().is_some_and(|silence| grace.value < silence.value) && !grace.value.is_zero() {
        let said = "shorter than down_after, so that it changes nothing";
        reader.warn(grace.line, path(&keys::BUSY_GRACE), said);
    }
    for node in nodes {
        without_effect(reader, node);
        if let Some(address) = node.address.as_ref().filter(|address| address.value.is_loopback() && nodes.len() > 1) {
            let said = format!("{}: the other nodes cannot reach a loopback address on another host", address.value);
            reader.warn(address.line, path(&keys::ADDRESS), said);
        }
    }
}

fn without_effect(reader: &mut Reader<'_>, node: &DraftNode) {
    let Some(roles) = &node.roles else { return };
    if !roles.value.proxy && node.priority.line.is_some() {
        reader.warn(node.priority.line, path(&keys::PRIORITY), "no effect on a node without the role \"proxy\"");
    }
    if !roles.value.redis && node.replica_priority.line.is_some() {
        let said = "no effect on a node without the role \"redis\"";
        reader.warn(node.replica_priority.line, path(&keys::REPLICA_PRIORITY), said);
    }
}

/// The addresses of one `[[vip]]`: some, not too many, of one family, because a virtual router has one (RFC 9568 §1).
pub(super) fn address_list(
    reader: &mut Reader<'_>,
    addresses: Placed<Vec<Placed<(IpAddr, u8)>>>,
) -> Vec<Placed<(IpAddr, u8)>> {
    let Placed { value: addresses, line } = addresses;
    if addresses.is_empty() {
        reader.fault(
            line,
            path(&keys::VIP_ADDRESSES),
            Some("[]"),
            format!("empty; allowed: {}", keys::VIP_ADDRESSES.allowed),
        );
    }
    if addresses.len() > ADDRESSES_MAX {
        let said = format!("{} addresses; allowed: {}", addresses.len(), keys::VIP_ADDRESSES.allowed);
        reader.fault(line, path(&keys::VIP_ADDRESSES), None, said);
    }
    if let Some(first) = addresses.first()
        && let Some(other) = addresses.iter().find(|other| other.value.0.is_ipv4() != first.value.0.is_ipv4())
    {
        let said = "IPv4 and IPv6 together; allowed: one family in each [[vip]], so write two of them";
        reader.fault(other.line, path(&keys::VIP_ADDRESSES), Some(&with_prefix_text(other)), said);
    }
    addresses
}

fn with_prefix_text(address: &Placed<(IpAddr, u8)>) -> String {
    format!("\"{}/{}\"", address.value.0, address.value.1)
}

/// The `peers` of one `[[vip]]`: not too many.
pub(super) fn peer_list(reader: &mut Reader<'_>, peers: Placed<Vec<Placed<IpAddr>>>) -> Vec<Placed<IpAddr>> {
    let Placed { value: peers, line } = peers;
    if peers.len() > PEERS_MAX {
        let said = format!("{} addresses; allowed: {}", peers.len(), keys::VIP_PEERS.allowed);
        reader.fault(line, path(&keys::VIP_PEERS), None, said);
    }
    peers
}

/// Reads the address of a router beside the proxies.
pub(super) fn peer(text: &str) -> Result<IpAddr, String> {
    if text.contains('/') {
        return Err("a prefix length has no place here".to_owned());
    }
    match ip(text)? {
        address if address.is_loopback() => Err("a loopback address is no other router's".to_owned()),
        address => Ok(address),
    }
}

/// Reads `192.168.0.1/24`.
pub(super) fn with_prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err("the prefix length is missing".to_owned());
    };
    let address = ip(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let length = prefix.parse::<u8>().ok().filter(|length| digits && (1..=most).contains(length));
    let length = length.ok_or_else(|| format!("prefix length {:?} is none of 1 to {most}", shown(prefix)))?;
    if address.is_loopback() {
        return Err("a loopback address cannot move between hosts".to_owned());
    }
    end_of_subnet(address, length)?;
    Ok((address, length))
}

/// Refuses the first and the last address of an IPv4 subnet, which no host may have (RFC 1122 §3.2.1.3).
pub(super) fn end_of_subnet(address: IpAddr, prefix: u8) -> Result<(), String> {
    let IpAddr::V4(v4) = address else { return Ok(()) };
    let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    match v4.to_bits() & host {
        _ if prefix >= 31 => Ok(()),
        0 => Err(format!("{v4} is the name of its subnet /{prefix}, not an address in it")),
        bits if bits == host => Err(format!("{v4} is the broadcast address of its subnet /{prefix}")),
        _ => Ok(()),
    }
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Reads the own address of a node.
pub(super) fn node_address(text: &str) -> Result<IpAddr, String> {
    if text.contains('/') {
        return Err("a prefix length has no place here".to_owned());
    }
    match ip(text)? {
        address if link_local(address) => Err("a link-local address says nothing without its interface".to_owned()),
        address => Ok(address),
    }
}

/// An address that a host can have.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "not an IPv4 or IPv6 address".to_owned())?;
    match address {
        address if address.is_unspecified() => Err("the unspecified address is no host's".to_owned()),
        address if address.is_multicast() => Err("a multicast address is no host's".to_owned()),
        IpAddr::V4(v4) if v4.is_broadcast() => Err("the broadcast address is no host's".to_owned()),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err("an IPv4 address in IPv6 form; write it as IPv4".to_owned())
        }
        address => Ok(address),
    }
}
