//! Interfaces and addresses of this host, by rtnetlink.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;

use crate::wire::arp::Mac;

/// Names of interfaces told to a person who misspelt one.
const NAMES_TOLD_MAX: usize = 20;

/// A connection to the kernel; clones share it, and it ends with the last of them.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
    _connection: Arc<Connection>,
}

struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Netlink")
    }
}

/// What changed on this host, without details: whoever cares looks again.
pub struct Changes(Pin<Box<dyn Stream<Item = Change> + Send>>);

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

impl Changes {
    /// The next change; none when the connection has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Change> {
        self.0.next().await
    }
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface came, went, or changed; or changes were lost, so that anything may be.
    Link,
    /// This address came, went, or was renewed.
    Address(IpAddr),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number; another one when it was deleted and made again.
    pub index: u32,
    /// Whether it is switched on and has a carrier.
    pub running: bool,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// It.
    pub ip: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// Whether another address of its subnet goes before it.
    pub secondary: bool,
    /// Whether it can be a source by now (IPv6: duplicate detection has passed).
    pub usable: bool,
}

/// Why the kernel did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No interface of that name.
    #[error("there is no interface {name:?} on this host; there are: {existing}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        existing: String,
    },
    /// The kernel refused.
    #[error("{doing}: {source}")]
    Kernel {
        /// What was asked.
        doing: String,
        /// What it answered.
        source: io::Error,
    },
}

impl NetlinkError {
    fn new(doing: impl Into<String>, error: rtnetlink::Error) -> Self {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            rtnetlink::Error::UnexpectedMessage(_)
            | rtnetlink::Error::RequestFailed
            | rtnetlink::Error::NamespaceError(_)
            | rtnetlink::Error::InvalidHardwareAddress(_)
            | rtnetlink::Error::InvalidIp(_)
            | rtnetlink::Error::InvalidAddress(_, _)
            | rtnetlink::Error::InvalidNla(_) => io::Error::other(error.to_string()),
        };
        Self::Kernel { doing: doing.into(), source }
    }

    fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::NoInterface { .. } => None,
            Self::Kernel { source, .. } => source.raw_os_error(),
        }
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> Self {
        let kind = match &error {
            NetlinkError::NoInterface { .. } => io::ErrorKind::NotFound,
            NetlinkError::Kernel { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

impl Netlink {
    /// Connects to the kernel of the caller's network namespace. To be called inside of a tokio runtime, which carries
    /// the connection.
    pub fn open() -> io::Result<(Self, Changes)> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, messages) = new_multicast_connection(&groups)?;
        let connection = Arc::new(Connection(tokio::spawn(connection)));
        let changes = messages.filter_map(|(message, _)| std::future::ready(change(&message.payload)));
        Ok((Self { handle, _connection: connection }, Changes(Box::pin(changes))))
    }

    /// The interface of that name.
    pub async fn interface(&self, name: &str) -> Result<Interface, NetlinkError> {
        let found = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        match found.map_err(|error| NetlinkError::new(format!("looking for interface {name:?}"), error)) {
            Ok(Some(link)) => Ok(interface(&link)),
            Ok(None) => Err(self.no_interface(name).await),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(self.no_interface(name).await),
            Err(error) => Err(error),
        }
    }

    async fn no_interface(&self, name: &str) -> NetlinkError {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.unwrap_or_default();
        let names = links.iter().flat_map(|link| &link.attributes).filter_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        });
        let existing = names.take(NAMES_TOLD_MAX).collect::<Vec<_>>().join(", ");
        NetlinkError::NoInterface { name: name.to_owned(), existing }
    }

    /// The addresses of an interface, in the kernel's order.
    pub async fn addresses(&self, index: u32) -> Result<Vec<Address>, NetlinkError> {
        let found = self.handle.address().get().set_link_index_filter(index).execute();
        let messages: Vec<AddressMessage> =
            found.try_collect().await.map_err(|error| NetlinkError::new("listing addresses", error))?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// Sets an address for `lifetime` (whole seconds), or renews it. The kernel itself takes it away afterwards.
    pub async fn hold(&self, index: u32, ip: IpAddr, prefix: u8, lifetime: Duration) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, ip, prefix).replace();
        let mut cache = CacheInfo::default();
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        (cache.ifa_preferred, cache.ifa_valid) = (seconds, seconds);
        let message = request.message_mut();
        message.attributes.push(AddressAttribute::CacheInfo(cache));
        if ip.is_ipv6() {
            // The election has decided whose address it is; duplicate detection would keep it unusable for a second.
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(|error| NetlinkError::new(format!("setting address {ip}/{prefix}"), error))
    }

    /// Takes an address away; false if it was not there.
    pub async fn release(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<bool, NetlinkError> {
        // The message that would add it says also which one to delete.
        let message = self.handle.address().add(index, ip, prefix).message_mut().clone();
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(true),
            Err(error) => match NetlinkError::new(format!("deleting address {ip}/{prefix}"), error) {
                error if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(false),
                error => Err(error),
            },
        }
    }
}

fn change(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message),
        ) => Some(address(message).map_or(Change::Link, |address| Change::Address(address.ip))),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_))
        | NetlinkPayload::Overrun(_) => Some(Change::Link),
        _ => None,
    }
}

fn interface(link: &LinkMessage) -> Interface {
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let running = link.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
    Interface { index: link.header.index, running, mac }
}

fn address(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL the own one; IPv6 has only the first otherwise.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let ip = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    let flags = message.header.flags;
    Some(Address {
        ip,
        prefix: message.header.prefix_len,
        secondary: flags.contains(AddressHeaderFlags::Secondary),
        usable: !flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed),
    })
}
