//! A network that loses, delays and reorders what some hosts send. The kernel has such a queue (`netem`), but not every kernel was
//! built with it; so each of those hosts is plugged into a thread, and the thread into the switch.
//!
//! ```text
//!   host ── eth0 ╌╌ port     thread     outer ╌╌ inner ── bridge "switch"
//!                      └──▶ late, lost ──▶┘
//!                      └◀──── at once ◀───┘
//! ```
//! The thread is real-time, as the kernel's queue would be: load on the machine makes nothing later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};
use vigie::base::{Instant, Rng};
use vigie::operate::lab::hosts::Lab;
use vigie::runtime::clock;
use vigie::runtime::realtime::{self, Rank};

use super::Outcome;
use super::whole::text;

/// The longest frame with what goes before it, of a kernel that leaves the cutting of segments to the device.
const FRAME_MAX: usize = 72 << 10;
/// A burst waits in the kernel, and is not lost there.
const BUFFER: usize = 8 << 20;
/// Without anything to carry, whether to stop is looked at so often.
const IDLE: Duration = Duration::from_millis(100);
/// Of Linux, and not in the `libc` crate for every target.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// What becomes of a frame that a host sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Of a thousand frames so many are lost, each for itself.
    pub(crate) lost_per_mille: u32,
    /// The others are late by anything up to this, each for itself, so that they overtake each other.
    pub(crate) jitter: Duration,
}

/// Frames that hosts have sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
}

/// The thread at work. When it is dropped, these hosts are cut off.
#[derive(Debug)]
pub(crate) struct Rough {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Carried, String>>>,
}

impl Rough {
    pub(crate) fn start(lab: &Lab, hosts: &[&str], weather: Weather) -> Result<Self, String> {
        for host in hosts {
            let (inner, outer) = (format!("{host}-in"), outer(host));
            ip(lab, &format!("link add {inner} type veth peer name {outer}"))?;
            ip(lab, &format!("link set {outer} up"))?;
            ip(lab, &format!("link set {inner} master switch up"))?;
            ip(lab, &format!("link set {host} nomaster"))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, hosts) = (Arc::clone(&stop), hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>());
        let (ready, begun) = std::sync::mpsc::channel();
        let work = move || {
            let opened = realtime::raise(Rank::Election).map_err(text).and_then(|()| cables(&hosts));
            let _ = ready.send(opened.as_ref().map(drop).map_err(Clone::clone));
            carry(&opened?, weather, &stopped).map_err(text)
        };
        let thread = std::thread::Builder::new().name("rough".to_owned()).spawn(work).map_err(text)?;
        let rough = Self { stop, thread: Some(thread) };
        begun.recv().map_err(text)??;
        Ok(rough)
    }

    /// Ends it. Returns what was carried.
    pub(crate) fn stop(mut self) -> Result<Carried, String> {
        self.end().unwrap_or_else(|| Err("it was not there".to_owned()))
    }

    fn end(&mut self) -> Option<Result<Carried, String>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or_else(|_| Err("the thread panicked".to_owned())))
    }
}

impl Drop for Rough {
    fn drop(&mut self) {
        self.end();
    }
}

fn outer(host: &str) -> String {
    format!("{host}-out")
}

fn ip(lab: &Lab, words: &str) -> Outcome {
    let status = lab.spawn_at_switch(Command::new("ip").args(words.split(' ')), "ip").map_err(text)?.wait();
    if status.map_err(text)?.success() { Ok(()) } else { Err(format!("ip {words} failed at the switch")) }
}

/// The two ends of a host's cable: towards the host, and towards the switch.
struct Cable([Socket; 2]);

fn cables(hosts: &[String]) -> Result<Vec<Cable>, String> {
    // The thread stays there; its sockets would do without.
    let switch = File::open("/run/netns/switch").map_err(text)?;
    setns(&switch, CloneFlags::CLONE_NEWNET).map_err(text)?;
    let cable = |host: &String| Ok(Cable([packets(host)?, packets(&outer(host))?]));
    hosts.iter().map(cable).collect::<io::Result<_>>().map_err(text)
}

/// All frames of one interface, but for those that are sent by this socket or another one there. What the kernel leaves to
/// devices, of check sums and of segments, goes before each frame and is left to the next one.
fn packets(interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
    option(&socket, libc::PACKET_VNET_HDR)?;
    option(&socket, PACKET_IGNORE_OUTGOING)?;
    socket.bind(&address(if_nametoindex(interface)?))?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "neither nix nor socket2 knows the options of packet sockets")]
fn option(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` outlives the call, which reads so many bytes of it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "no safe constructor of a packet socket's address exists")]
fn address(interface: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the platform's socket addresses, and all of its fields are plain numbers.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    link.sll_ifindex = interface.cast_signed();
    // SAFETY: the storage holds a sockaddr_ll, family and all, of exactly that length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// A frame under way, with the cable it came by. The number keeps what is due at once in order.
type Late = Reverse<(Instant, u64, usize, Vec<u8>)>;

fn carry(cables: &[Cable], weather: Weather, stop: &AtomicBool) -> io::Result<Carried> {
    let mut rng = Rng::new(clock::now().as_micros());
    let (mut carried, mut late, mut buffer) = (Carried::default(), BinaryHeap::<Late>::new(), vec![0; FRAME_MAX]);
    let sockets: Vec<&Socket> = cables.iter().flat_map(|Cable(ends)| ends).collect();
    while !stop.load(Ordering::Relaxed) {
        let wait = late.peek().map_or(IDLE, |Reverse((due, ..))| due.since(clock::now()).min(IDLE));
        let mut waited: Vec<_> = sockets.iter().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)).collect();
        ppoll(&mut waited, Some(wait.into()), None)?;
        for (place, Cable([host, switch])) in cables.iter().enumerate() {
            while let Some(length) = received(host, &mut buffer)? {
                carried.sent += 1;
                if rng.next_u32() % 1_000 < weather.lost_per_mille {
                    carried.lost += 1;
                } else {
                    let due = clock::now() + rng.below(weather.jitter);
                    late.push(Reverse((due, carried.sent, place, buffer[..length].to_vec())));
                }
            }
            while let Some(length) = received(switch, &mut buffer)? {
                handed_on(host, &buffer[..length]);
            }
        }
        let now = clock::now();
        while late.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, place, frame))) = late.pop() else { break };
            let Cable([_, switch]) = &cables[place];
            handed_on(switch, &frame);
        }
    }
    Ok(carried)
}

/// None: nothing waits.
fn received(mut end: &Socket, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match end.read(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a device does not take is lost, as on any cable.
fn handed_on(mut end: &Socket, frame: &[u8]) {
    let _ = end.write(frame);
}
