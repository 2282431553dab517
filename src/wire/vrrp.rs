//! VRRP advertisements: version 2 (RFC 3768) and version 3 (RFC 9568, which replaces RFC 5798), IPv4 and IPv6.
//!
//! ```text
//!  byte 0       1     2         3      4                   6         8                     8+n·4 or 8+n·16
//!  v2  0x21     VRID  priority  count  auth type, seconds  checksum  count IPv4 addresses  8 bytes of auth data
//!  v3  0x31     VRID  priority  count  4+12 bits, 1/100 s  checksum  count addresses
//! ```
//! The checksum of version 3 over IPv4 exists in two forms: without a pseudo-header (RFC 9568 §5.2.8, Cisco, Juniper)
//! and with one (keepalived and FRR by default). Both are taken, and which one it was is told.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, Ipv4HeaderSlice};

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// Where adverts go over IPv4 (RFC 9568 §5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where adverts go over IPv6 (RFC 9568 §5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The only TTL or hop limit of an advert: no router forwarded it (RFC 9568 §5.1.1.3).
pub const HOP_LIMIT: u8 = 255;
/// The largest message: 255 IPv6 addresses.
pub const MESSAGE_MAX: usize = HEADER_LEN + 255 * 16;

const HEADER_LEN: usize = 8;
const AUTH_LEN: usize = 8;
const AUTH_NONE: u8 = 0;
const AUTH_SIMPLE: u8 = 1;
const ADVERTISEMENT: u8 = 1;
/// The 12 bits of version 3's interval, 40.95 s.
const CENTISECONDS_MAX: u16 = 0x0fff;

/// The time between adverts, in the unit of its version: one can never be taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interval {
    /// Version 2: 1–255 s.
    Seconds(u8),
    /// Version 3: 1–4095 hundredths of a second.
    Centiseconds(u16),
}

impl Interval {
    /// The interval of `version` (2 or 3) that is exactly `duration`.
    pub fn new(version: u8, duration: Duration) -> Result<Self, Malformed> {
        let wrong = || Malformed::Duration { version, duration };
        let micros = duration.as_micros();
        match version {
            2 if micros.is_multiple_of(1_000_000) => {
                let seconds = u8::try_from(micros / 1_000_000).map_err(|_| wrong())?;
                Self::Seconds(seconds).check().map_err(|_| wrong())
            }
            3 if micros.is_multiple_of(10_000) => {
                let centiseconds = u16::try_from(micros / 10_000).map_err(|_| wrong())?;
                Self::Centiseconds(centiseconds).check().map_err(|_| wrong())
            }
            2 | 3 => Err(wrong()),
            other => Err(Malformed::Version(other)),
        }
    }

    /// It as a duration.
    pub fn duration(self) -> Duration {
        match self {
            Self::Seconds(seconds) => Duration::from_secs(u64::from(seconds)),
            Self::Centiseconds(centiseconds) => Duration::from_millis(u64::from(centiseconds) * 10),
        }
    }

    /// The protocol version that counts in this unit.
    pub fn version(self) -> u8 {
        match self {
            Self::Seconds(_) => 2,
            Self::Centiseconds(_) => 3,
        }
    }

    fn check(self) -> Result<Self, Malformed> {
        match self {
            Self::Seconds(1..) | Self::Centiseconds(1..=CENTISECONDS_MAX) => Ok(self),
            Self::Seconds(0) | Self::Centiseconds(_) => Err(Malformed::Interval(self)),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds} s"),
            Self::Centiseconds(centiseconds) => write!(f, "{} ms", u32::from(*centiseconds) * 10),
        }
    }
}

/// What an advert of version 2 carries against mistakes; it stops nobody who can read the segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Auth {
    /// Type 0, and every advert of version 3.
    None,
    /// Type 1 (RFC 2338): eight characters in clear.
    Simple([u8; AUTH_LEN]),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Simple(_) => "Simple(***)",
        })
    }
}

/// How the checksum was, or is to be, computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumForm {
    /// Over the message alone. Always so in version 2.
    Plain,
    /// Over a pseudo-header of the IP addresses and the message. Always so over IPv6.
    PseudoHeader,
}

/// One advertisement. What exists is valid: it can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    virtual_router_id: u8,
    priority: u8,
    interval: Interval,
    auth: Auth,
    addresses: Vec<IpAddr>,
}

impl Advert {
    /// An advert without authentication. `virtual_router_id` 1–255, 1–255 `addresses` of one family, and that IPv4 if
    /// the interval is version 2's. Over IPv6 the first address should be link-local (RFC 9568 §5.2.9).
    pub fn new(
        virtual_router_id: u8,
        priority: u8,
        interval: Interval,
        addresses: Vec<IpAddr>,
    ) -> Result<Self, Malformed> {
        if virtual_router_id == 0 {
            return Err(Malformed::VirtualRouterId);
        }
        interval.check()?;
        let first = addresses.first().ok_or(Malformed::NoAddress)?;
        if addresses.len() > usize::from(u8::MAX) {
            return Err(Malformed::TooManyAddresses(addresses.len()));
        }
        let version = interval.version();
        let v4_only = matches!(interval, Interval::Seconds(_));
        if addresses.iter().any(|a| a.is_ipv4() != first.is_ipv4()) || v4_only && first.is_ipv6() {
            return Err(Malformed::Family { version });
        }
        Ok(Self { virtual_router_id, priority, interval, auth: Auth::None, addresses })
    }

    /// The same with another priority; 0: the sender gives up.
    #[must_use]
    pub fn with_priority(&self, priority: u8) -> Self {
        Self { priority, ..self.clone() }
    }

    /// The same with authentication, which only version 2 has.
    pub fn with_auth(self, auth: Auth) -> Result<Self, Malformed> {
        match (self.interval, auth) {
            (Interval::Seconds(_), Auth::None | Auth::Simple(_)) | (Interval::Centiseconds(_), Auth::None) => {
                Ok(Self { auth, ..self })
            }
            (Interval::Centiseconds(_), Auth::Simple(_)) => Err(Malformed::AuthType(AUTH_SIMPLE)),
        }
    }

    /// Which virtual router it is about, 1–255.
    pub fn virtual_router_id(&self) -> u8 {
        self.virtual_router_id
    }

    /// 255: owner of the addresses; 1–254; 0: gives up.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// The sender's interval, whose unit is that of the version.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// What it carries as authentication.
    pub fn auth(&self) -> Auth {
        self.auth
    }

    /// The virtual addresses, at least one, all of one family.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether it goes over IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.addresses.first().is_some_and(IpAddr::is_ipv6)
    }

    /// The multicast group that it goes to.
    pub fn group(&self) -> IpAddr {
        if self.is_ipv6() { GROUP_V6.into() } else { GROUP_V4.into() }
    }
}

/// An advert as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Source address of its packet.
    pub from: IpAddr,
    /// TTL or hop limit of its packet.
    pub hop_limit: u8,
    /// The form of its checksum.
    pub checksum: ChecksumForm,
    /// What it says.
    pub advert: Advert,
}

/// Why bytes are no advert, or values cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The IP header in front of it.
    #[error("not a whole IPv4 packet: {0}")]
    Packet(String),
    /// Another protocol than VRRP.
    #[error("IP protocol {0} is not VRRP: {PROTOCOL} is expected")]
    Protocol(u8),
    /// Not the length that its address count asks for.
    #[error("a message of {have} bytes, {expected} are expected")]
    Length {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// A version other than 2 and 3.
    #[error("VRRP version {0} is not spoken here: 2 or 3 is expected")]
    Version(u8),
    /// A type other than 1.
    #[error("message type {0} is not an advertisement: 1 is expected")]
    Type(u8),
    /// Virtual router id 0.
    #[error("virtual router id 0: 1 to 255 is expected")]
    VirtualRouterId,
    /// A priority that a router of this software cannot have.
    #[error("priority {0}: 1 to 254 is expected")]
    Priority(u8),
    /// No address.
    #[error("no virtual address: at least one is expected")]
    NoAddress,
    /// More addresses than fit.
    #[error("{0} virtual addresses: at most 255 are expected")]
    TooManyAddresses(usize),
    /// Addresses of two families, or version 2 with IPv6.
    #[error("virtual addresses must be of one family, and IPv4 in version 2; this is version {version}")]
    Family {
        /// Version of the advert.
        version: u8,
    },
    /// An interval that is zero or does not fit.
    #[error("interval {0}: 1 to 255 s in version 2, 10 to 40950 ms in version 3 are expected")]
    Interval(Interval),
    /// A duration that the version cannot express.
    #[error(
        "interval {duration:?} cannot be said in version {version}: whole seconds up to 255 in version 2, \
         multiples of 10 ms up to 40.95 s in version 3 are expected"
    )]
    Duration {
        /// Version asked for.
        version: u8,
        /// Duration asked for.
        duration: Duration,
    },
    /// An authentication that is not known.
    #[error("authentication type {0}: 0 (none) or, in version 2, 1 (simple text) is expected")]
    AuthType(u8),
    /// Neither form of the checksum fits.
    #[error("wrong checksum {0:#06x}")]
    Checksum(u16),
}

impl Malformed {
    /// A stable name for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Packet(_) => "packet",
            Self::Protocol(_) => "protocol",
            Self::Length { .. } => "length",
            Self::Version(_) => "version",
            Self::Type(_) => "type",
            Self::VirtualRouterId => "virtual-router-id",
            Self::Priority(_) => "priority",
            Self::NoAddress | Self::TooManyAddresses(_) => "address-count",
            Self::Family { .. } => "family",
            Self::Interval(_) | Self::Duration { .. } => "interval",
            Self::AuthType(_) => "auth-type",
            Self::Checksum(_) => "checksum",
        }
    }
}

/// Reads a whole IPv4 packet, as a raw socket gives it.
pub fn parse_packet(packet: &[u8]) -> Result<Received, Malformed> {
    // Checks the version, that the header length is at least 20 bytes and that all of the header is there.
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| Malformed::Packet(error.to_string()))?;
    if header.protocol() != IpNumber(PROTOCOL) {
        return Err(Malformed::Protocol(header.protocol().0));
    }
    let message = packet.get(header.slice().len()..usize::from(header.total_len()));
    let message = message
        .ok_or_else(|| Malformed::Packet(format!("it says {} bytes and has {}", header.total_len(), packet.len())))?;
    let (from, to) = (header.source_addr().into(), header.destination_addr().into());
    let (advert, checksum) = parse(message, from, to)?;
    Ok(Received { from, hop_limit: header.ttl(), checksum, advert })
}

/// Reads a message that came from `source` to `destination`, both of one family, which is the family of its addresses.
pub fn parse(message: &[u8], source: IpAddr, destination: IpAddr) -> Result<(Advert, ChecksumForm), Malformed> {
    let Some((header, rest)) = message.split_first_chunk::<HEADER_LEN>() else {
        return Err(Malformed::Length { have: message.len(), expected: HEADER_LEN });
    };
    let [version_type, virtual_router_id, priority, count, fourth, fifth, check_high, check_low] = *header;
    let interval = match version_type >> 4 {
        2 => Interval::Seconds(fifth),
        // The four bits above the interval are reserved and not looked at (RFC 9568 §5.2.6).
        3 => Interval::Centiseconds(u16::from_be_bytes([fourth, fifth]) & CENTISECONDS_MAX),
        other => return Err(Malformed::Version(other)),
    };
    if version_type & 0x0f != ADVERTISEMENT {
        return Err(Malformed::Type(version_type & 0x0f));
    }
    let v2 = matches!(interval, Interval::Seconds(_));
    if v2 && source.is_ipv6() {
        return Err(Malformed::Family { version: 2 });
    }
    let address_len = if source.is_ipv6() { 16 } else { 4 };
    let addresses_len = usize::from(count) * address_len;
    let expected = HEADER_LEN + addresses_len + if v2 { AUTH_LEN } else { 0 };
    if message.len() != expected {
        return Err(Malformed::Length { have: message.len(), expected });
    }
    let checksum = checked(message, source, destination, v2)
        .ok_or_else(|| Malformed::Checksum(u16::from_be_bytes([check_high, check_low])))?;
    let (addresses, tail) = rest.split_at(addresses_len);
    let advert = Advert::new(virtual_router_id, priority, interval, read_addresses(addresses, source.is_ipv6()))?;
    let auth = match (fourth, <[u8; AUTH_LEN]>::try_from(tail)) {
        (AUTH_SIMPLE, Ok(text)) => Auth::Simple(text),
        (AUTH_NONE, Ok(_)) | (_, Err(_)) => Auth::None,
        (other, Ok(_)) => return Err(Malformed::AuthType(other)),
    };
    Ok((advert.with_auth(auth)?, checksum))
}

/// Writes an advert that goes from `source` to `destination`, both of the family of its addresses. `form` counts only
/// where there is a choice: in version 3 over IPv4.
pub fn emit(advert: &Advert, source: IpAddr, destination: IpAddr, form: ChecksumForm) -> Vec<u8> {
    let version_type = advert.interval.version() << 4 | ADVERTISEMENT;
    let [fourth, fifth] = match advert.interval {
        Interval::Seconds(seconds) => [auth_type(advert.auth), seconds],
        Interval::Centiseconds(centiseconds) => centiseconds.to_be_bytes(),
    };
    let count = u8::try_from(advert.addresses.len()).expect("an advert has at most 255 addresses");
    let mut message = vec![version_type, advert.virtual_router_id, advert.priority, count, fourth, fifth, 0, 0];
    for address in &advert.addresses {
        match address {
            IpAddr::V4(address) => message.extend(address.octets()),
            IpAddr::V6(address) => message.extend(address.octets()),
        }
    }
    let v2 = matches!(advert.interval, Interval::Seconds(_));
    if v2 {
        message.extend(match advert.auth {
            Auth::None => [0; AUTH_LEN],
            Auth::Simple(text) => text,
        });
    }
    let pseudo = !v2 && (advert.is_ipv6() || form == ChecksumForm::PseudoHeader);
    let sum = if pseudo { pseudo_header(source, destination, message.len()) } else { Sum16BitWords::new() };
    let checksum = sum.add_slice(&message).ones_complement();
    // The sum is kept in the order of the machine's memory, and so goes back into memory as it is.
    message[6..8].copy_from_slice(&checksum.to_ne_bytes());
    message
}

fn auth_type(auth: Auth) -> u8 {
    match auth {
        Auth::None => AUTH_NONE,
        Auth::Simple(_) => AUTH_SIMPLE,
    }
}

/// The form in which the checksum of `message` is right, if any.
fn checked(message: &[u8], source: IpAddr, destination: IpAddr, v2: bool) -> Option<ChecksumForm> {
    let right = |sum: Sum16BitWords| sum.add_slice(message).ones_complement() == 0;
    if !v2 && right(pseudo_header(source, destination, message.len())) {
        return Some(ChecksumForm::PseudoHeader);
    }
    let plain = (v2 || source.is_ipv4()) && right(Sum16BitWords::new());
    plain.then_some(ChecksumForm::Plain)
}

/// The sum of the pseudo-header of RFC 793 or RFC 8200 §8.1. That one has wider fields changes nothing in the sum.
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Sum16BitWords {
    let mut sum = Sum16BitWords::new();
    for address in [source, destination] {
        sum = match address {
            IpAddr::V4(address) => sum.add_4bytes(address.octets()),
            IpAddr::V6(address) => sum.add_16bytes(address.octets()),
        };
    }
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    sum.add_2bytes([0, PROTOCOL]).add_2bytes(length.to_be_bytes())
}

fn read_addresses(bytes: &[u8], v6: bool) -> Vec<IpAddr> {
    if v6 {
        bytes.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets).into()).collect()
    } else {
        bytes.as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets).into()).collect()
    }
}

#[cfg(test)]
mod tests;
