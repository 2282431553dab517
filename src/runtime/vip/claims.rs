//! Hears who else tells the segment that a virtual address is his.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::clerk::Reports;
use super::segment::link_address;
use crate::cores::vrrp::Input;
use crate::runtime::journal::Level;
use crate::wire::arp::{self, ARP_FRAME_LEN, ETHERTYPE_AT, Mac, SENDER_IP_AT, SENDER_MAC_AT};

/// Frames that are looked at before others have their turn; each is the same news.
const BATCH: usize = 16;
/// Pause after them: who floods the segment fills a socket, not this thread.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of the socket's buffer; what does not fit is dropped.
const BUFFER: usize = 32 << 10;
/// The number of ARP in a packet socket's protocol, in the order of the network.
const ETH_P_ARP: u16 = (libc::ETH_P_ARP as u16).to_be();

/// Passes on, until the router is gone, each ARP frame on the interface in which another Ethernet address than `mac` claims
/// one of the addresses. Of IPv6 nothing is read: the kernel itself defends no address either, and a frame that only one
/// host gets is not seen by others.
pub(super) async fn watch(
    (interface, index): (String, u32),
    mac: Mac,
    addresses: Vec<Ipv4Addr>,
    inputs: mpsc::Sender<Input>,
    reports: Reports,
) {
    let opened = open(index, mac, &addresses).and_then(register);
    let socket = match opened {
        Ok(socket) => socket,
        Err(error) => {
            let said = format!("{interface}: other announcements of the addresses cannot be heard: {error}");
            return reports.line(Level::Warn, "no-arp", said);
        }
    };
    let mut buffer = [0; ARP_FRAME_LEN];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        for _ in 0..BATCH {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let Some((claimed, address)) = arp::sender(&buffer[..length]) else { continue };
                    if claimed == mac || !addresses.contains(&address) {
                        continue;
                    }
                    let claim = Input::Claim { address: IpAddr::V4(address), mac: claimed };
                    if inputs.send(claim).await.is_err() {
                        return;
                    }
                }
                // An interface that goes down says so here; the link is watched elsewhere.
                Err(_nothing_waits_or_down) => {
                    ready.clear_ready();
                    break;
                }
            }
        }
        drop(ready);
        tokio::time::sleep(PAUSE).await;
    }
}

#[expect(unsafe_code, reason = "a custom type can be watched for readiness in no other way")]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, and nobody replaces or closes it while it is watched.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

fn open(index: u32, mac: Mac, addresses: &[Ipv4Addr]) -> io::Result<Socket> {
    // Protocol 0 until the filter is there: nothing else gets in before.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    let program = filter(mac, addresses).into_iter().map(|step| SockFilter::new(step.code, step.jt, step.jf, step.k));
    socket.attach_filter(&program.collect::<Vec<_>>())?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&link_address(index, ETH_P_ARP))?;
    Ok(socket)
}

/// A program for the kernel: ARP of a sender that says it has one of the addresses, at another Ethernet address than `mac`.
/// There are at most 16 addresses, so no jump is too far.
fn filter(mac: Mac, addresses: &[Ipv4Addr]) -> Vec<libc::sock_filter> {
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let load = |code, offset| step(code, 0, 0, at(offset));
    let [a, b, c, d, e, f] = mac;
    let count = u8::try_from(addresses.len()).unwrap_or(u8::MAX);
    // Behind the comparisons: [refuse] [word] [equal?] [half] [equal?] [accept] [refuse]
    let mut program = vec![
        load(LOAD_HALF, ETHERTYPE_AT),
        step(IF_EQUAL, 0, count + 1, u32::from(u16::from_be(ETH_P_ARP))),
        load(LOAD_WORD, SENDER_IP_AT),
    ];
    for (place, address) in (0..count).zip(addresses) {
        program.push(step(IF_EQUAL, count - place, 0, address.to_bits()));
    }
    program.extend([
        step(RETURN, 0, 0, 0),
        load(LOAD_WORD, SENDER_MAC_AT),
        step(IF_EQUAL, 0, 2, u32::from_be_bytes([a, b, c, d])),
        load(LOAD_HALF, SENDER_MAC_AT + 4),
        step(IF_EQUAL, 1, 0, u32::from(u16::from_be_bytes([e, f]))),
        step(RETURN, 0, 0, at(ARP_FRAME_LEN)),
        step(RETURN, 0, 0, 0),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];

    /// Runs a program of the four instructions used here, as the kernel does.
    fn accepts(program: &[libc::sock_filter], frame: &[u8]) -> bool {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let code = program[at];
            at += 1;
            let offset = code.k as usize;
            match u32::from(code.code) {
                0x28 => loaded = u32::from(u16::from_be_bytes(frame[offset..offset + 2].try_into().unwrap())),
                0x20 => loaded = u32::from_be_bytes(frame[offset..offset + 4].try_into().unwrap()),
                0x15 => at += usize::from(if loaded == code.k { code.jt } else { code.jf }),
                0x06 => return code.k > 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_kernel_passes_only_claims_of_others() {
        for count in [1, 2, 16] {
            let addresses: Vec<_> = (1..=count).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect();
            let program = filter(OWN, &addresses);
            for address in &addresses {
                for other in [[2, 0, 0, 0, 0, 2], [2, 0, 0, 9, 0, 1], [3, 0, 0, 0, 0, 1]] {
                    assert!(accepts(&program, &arp::gratuitous(other, *address)), "{address} of {count}");
                }
                assert!(!accepts(&program, &arp::gratuitous(OWN, *address)));
            }
            assert!(!accepts(&program, &arp::gratuitous([2; 6], Ipv4Addr::new(10, 0, 0, 99))));
            let mut other = arp::gratuitous([2; 6], addresses[0]);
            other[13] = 0;
            assert!(!accepts(&program, &other));
        }
    }
}
