//! The sockets of one virtual router on its segment.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, recv, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::cores::vrrp::Input;
use crate::wire::arp::{self, Mac};
use crate::wire::vrrp::{self, Advert, ChecksumForm, GROUP_V4, GROUP_V6, HOP_LIMIT, MESSAGE_MAX, Received};

/// The longest IPv4 header.
const IPV4_HEADER_MAX: usize = 60;
/// Class of service 6, internetwork control, which switches serve first.
const TOS_CONTROL: u32 = 0xc0;

/// An interface with its sockets: adverts in and out, announcements out.
#[derive(Debug)]
pub(super) struct Segment {
    index: u32,
    mac: Option<Mac>,
    primary: IpAddr,
    adverts: Socket,
    frames: Socket,
}

impl AsRawFd for Segment {
    fn as_raw_fd(&self) -> RawFd {
        self.adverts.as_raw_fd()
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.adverts.as_fd()
    }
}

impl Segment {
    /// Opens the sockets on an interface, whose `primary` address adverts will carry as their source.
    pub(super) fn open(name: &str, index: u32, mac: Option<Mac>, primary: IpAddr) -> io::Result<Self> {
        let adverts = match primary {
            IpAddr::V4(_) => adverts_v4(name, index)?,
            IpAddr::V6(_) => adverts_v6(name, index)?,
        };
        // Protocol 0: it receives nothing.
        let frames = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        frames.set_nonblocking(true)?;
        Ok(Self { index, mac, primary, adverts, frames })
    }

    /// Whether it is the same place.
    pub(super) fn is(&self, index: u32, mac: Option<Mac>, primary: IpAddr) -> bool {
        (self.index, self.mac, self.primary) == (index, mac, primary)
    }

    /// Sends an advert to the group.
    pub(super) fn advertise(&self, advert: &Advert, form: ChecksumForm) -> io::Result<()> {
        let message = vrrp::emit(advert, self.primary, advert.group(), form);
        let iov = [IoSlice::new(&message)];
        // The source is chosen here: once the virtual address is set, the kernel could take that.
        match self.primary {
            IpAddr::V4(primary) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: libc::c_int::try_from(self.index).unwrap_or(0),
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(primary.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(SocketAddrV4::new(GROUP_V4, 0));
                self.send(&iov, &ControlMessage::Ipv4PacketInfo(&info), &to)
            }
            IpAddr::V6(primary) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: primary.octets() },
                    ipi6_ifindex: self.index,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(GROUP_V6, 0, 0, self.index));
                self.send(&iov, &ControlMessage::Ipv6PacketInfo(&info), &to)
            }
        }
    }

    fn send<A: SockaddrLike>(&self, iov: &[IoSlice<'_>], source: &ControlMessage<'_>, to: &A) -> io::Result<()> {
        sendmsg(self.adverts.as_raw_fd(), iov, &[*source], MsgFlags::MSG_DONTWAIT, Some(to))?;
        Ok(())
    }

    /// The next packet that waits, as what the router is told of it; [`io::ErrorKind::WouldBlock`] if none does.
    pub(super) fn receive(&self) -> io::Result<Input> {
        let mut buffer = [0; IPV4_HEADER_MAX + MESSAGE_MAX];
        let parsed = match self.primary {
            IpAddr::V4(_) => {
                let length = recv(self.adverts.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
                vrrp::parse_packet(&buffer[..length])
            }
            IpAddr::V6(_) => {
                let (length, from, to, hop_limit) = self.receive_v6(&mut buffer)?;
                vrrp::parse(&buffer[..length], from.into(), to.into()).map(|(advert, checksum)| Received {
                    from: from.into(),
                    hop_limit,
                    checksum,
                    advert,
                })
            }
        };
        Ok(parsed.map_or_else(Input::Malformed, Input::Advert))
    }

    /// A raw IPv6 socket gives no header: source, destination and hop limit come beside the message. What does not come
    /// is given as zero, which no check lets pass.
    fn receive_v6(&self, buffer: &mut [u8]) -> io::Result<(usize, Ipv6Addr, Ipv6Addr, u8)> {
        let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let mut iov = [IoSliceMut::new(buffer)];
        let fd = self.adverts.as_raw_fd();
        let message = recvmsg::<SockaddrIn6>(fd, &mut iov, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        let from = message.address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip());
        let (mut to, mut hop_limit) = (Ipv6Addr::UNSPECIFIED, 0);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => to = info.ipi6_addr.s6_addr.into(),
                ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).unwrap_or(0),
                _ => {}
            }
        }
        Ok((message.bytes, from, to, hop_limit))
    }

    /// Announces an address at this interface.
    pub(super) fn announce(&self, address: IpAddr) -> io::Result<()> {
        // Without Ethernet there are no caches to update.
        let Some(mac) = self.mac else { return Ok(()) };
        let frame = arp::announcement(mac, address);
        self.frames.send_to(&frame, &link_address(self.index, 0)).map(drop)
    }
}

fn adverts_v4(name: &str, index: u32) -> io::Result<Socket> {
    let socket = raw(Domain::IPV4)?;
    socket.bind_device(Some(name.as_bytes()))?;
    let interface = socket2::InterfaceIndexOrAddress::Index(index);
    socket.join_multicast_v4_n(&GROUP_V4, &interface)?;
    socket.set_multicast_all_v4(false)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_multicast_ttl_v4(u32::from(HOP_LIMIT))?;
    socket.set_ttl_v4(u32::from(HOP_LIMIT))?;
    socket.set_tos_v4(TOS_CONTROL)?;
    Ok(socket)
}

fn adverts_v6(name: &str, index: u32) -> io::Result<Socket> {
    let socket = raw(Domain::IPV6)?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.join_multicast_v6(&GROUP_V6, index)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_hops_v6(u32::from(HOP_LIMIT))?;
    socket.set_unicast_hops_v6(u32::from(HOP_LIMIT))?;
    socket.set_tclass_v6(TOS_CONTROL)?;
    socket.set_recv_hoplimit_v6(true)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    Ok(socket)
}

/// A raw socket for VRRP, of either family. It needs CAP_NET_RAW.
pub(super) fn raw(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(vrrp::PROTOCOL))))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where frames go that carry their own Ethernet header: out of this interface. Or whence they come, of one `protocol`.
#[expect(unsafe_code, reason = "no safe constructor of a packet socket's address exists")]
pub(super) fn link_address(index: u32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the platform's socket addresses, and all of its fields are plain numbers.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = protocol;
    link.sll_ifindex = libc::c_int::try_from(index).unwrap_or(0);
    link.sll_halen = 6;
    // SAFETY: the storage holds a sockaddr_ll, family and all, of exactly that length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// The address that adverts of a virtual router on this interface carry as their source: the node's own if the
/// interface has it, else the interface's first; over IPv6 a link-local one (RFC 9568 §5.1.2.1). Never a virtual one.
pub(super) fn primary(
    addresses: &[crate::runtime::netlink::Address],
    own: IpAddr,
    virtual_addresses: &[(IpAddr, u8)],
) -> Option<IpAddr> {
    let v6 = virtual_addresses.first().is_some_and(|(ip, _)| ip.is_ipv6());
    let fits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !v6 && ip != Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(ip) => v6 && ip.is_unicast_link_local(),
    };
    let candidates = || {
        let mine = |ip: IpAddr| virtual_addresses.iter().all(|(other, _)| *other != ip);
        addresses.iter().filter(move |address| address.usable && fits(address.ip) && mine(address.ip))
    };
    let first = || candidates().find(|address| !address.secondary).or_else(|| candidates().next());
    candidates().find(|address| address.ip == own).or_else(first).map(|address| address.ip)
}
