//! Hosts as network namespaces, joined by a switch in a namespace of its own.
//!
//! ```text
//!   host ── eth0 ╌╌ port ┐
//!   host ── eth0 ╌╌ port ┼ bridge "switch"      ╌╌ a veth pair; the port has the name of its host
//!   host ── eth0 ╌╌ port ┘
//! ```
//! Some hosts may be moved to a second switch, joined to the first one by a trunk ([`Lab::island`]): pulled, it parts the network
//! in one act, and no host sees its own cable go.
//!
//! Only to be used inside a [`sandbox`](super::sandbox): namespaces and processes are not cleaned up one by one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{BridgeStpState, InfoData, InfoKind, InfoVeth, LinkAttribute};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

/// The second switch, and the two ends of the trunk to it: no host has such a name.
const ISLAND: &str = "ISLAND";
const TRUNK: &str = "TRUNK";
const LANDING: &str = "LANDING";

/// A host to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// 1–15 characters: it is also the name of an interface.
    pub name: String,
    /// The address of `eth0`.
    pub address: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
}

/// Why the network, or something in it, could not be made or asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No such host.
    #[error("there is no host {0:?} in this lab")]
    UnknownHost(String),
    /// A name that cannot be that of an interface or a file.
    #[error("{0:?} cannot be the name of a host: 1 to 15 characters of a-z, 0-9 and '-' are expected")]
    Name(String),
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried, and where.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel's network refused.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried, and where.
        what: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// The network.
#[derive(Debug)]
pub struct Lab {
    switch: File,
    hosts: Vec<Host>,
    scratch: PathBuf,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    spec: HostSpec,
    namespace: File,
    /// Number of the namespace, by which its processes are known.
    inode: u64,
}

/// A process of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id inside the private world.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its command, at most 15 characters.
    pub command: String,
}

/// The failure of `what`, from whatever the system said.
pub(super) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> LabError {
    let what = what.into();
    move |source| LabError::System { what, source: source.into() }
}

impl Lab {
    /// Builds the switch and all hosts. Files of the hosts' processes go to `scratch`.
    pub fn new(scratch: &Path, specs: &[HostSpec]) -> Result<Self, LabError> {
        for HostSpec { name, .. } in specs {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || name.len() > 15 || !name.bytes().all(allowed) {
                return Err(LabError::Name(name.clone()));
            }
        }
        let switch = namespace("switch")?;
        netlink(&switch, "make the switch", async |handle| bridge(&handle, "switch").await)?;
        let hosts = specs.iter().map(|spec| host(&switch, spec)).collect::<Result<_, _>>()?;
        Ok(Self { switch, hosts, scratch: scratch.to_owned() })
    }

    /// The directory for files of the hosts' processes.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// All hosts, in the order given.
    pub fn hosts(&self) -> impl Iterator<Item = &HostSpec> {
        self.hosts.iter().map(|host| &host.spec)
    }

    fn host(&self, name: &str) -> Result<&Host, LabError> {
        let found = self.hosts.iter().find(|host| host.spec.name == name);
        found.ok_or_else(|| LabError::UnknownHost(name.to_owned()))
    }

    /// Starts `command` on a host, in a session of its own; what it prints is appended to `<scratch>/<log>.log`.
    pub fn spawn(&self, host: &str, command: &mut Command, log: &str) -> Result<Child, LabError> {
        self.start(&self.host(host)?.namespace, host, command, log)
    }

    /// The same at the switch itself, where virtual machines are plugged in.
    pub fn spawn_at_switch(&self, command: &mut Command, log: &str) -> Result<Child, LabError> {
        self.start(&self.switch, "the switch", command, log)
    }

    /// A port of the switch for a virtual machine: a tap device of that name, 1 to 15 characters.
    pub fn tap(&self, name: &str) -> Result<(), LabError> {
        let words = format!("tuntap add dev {name} mode tap;link set {name} master switch up");
        for words in words.split(';') {
            let status = self.spawn_at_switch(Command::new("ip").args(words.split(' ')), "ip")?.wait();
            let status = status.map_err(system(format!("ip {words}")))?;
            if !status.success() {
                return Err(system(format!("ip {words}"))(io::Error::other(status.to_string())));
            }
        }
        Ok(())
    }

    fn start(&self, namespace: &File, place: &str, command: &mut Command, log: &str) -> Result<Child, LabError> {
        let path = self.scratch.join(format!("{log}.log"));
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let out = opened.map_err(system(path.display().to_string()))?;
        let errors = out.try_clone().map_err(system(path.display().to_string()))?;
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        enter_before_exec(command, namespace.as_raw_fd());
        command.spawn().map_err(system(format!("start {} on {place}", command.get_program().display())))
    }

    /// Runs `f` on a thread inside a host's network: sockets it opens belong to the host, also after it has returned.
    pub fn exec<T: Send>(&self, host: &str, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        inside(&self.host(host)?.namespace, host, f)
    }

    /// A handle on a host's network, for threads that live longer than a borrow of this lab.
    pub fn network(&self, host: &str) -> Result<Network, LabError> {
        let namespace = self.host(host)?.namespace.try_clone().map_err(system(format!("network of {host}")))?;
        Ok(Network { namespace, host: host.to_owned() })
    }

    /// Pulls the cable of a host: its port on the switch goes down. Nothing on the host is touched.
    pub fn cut(&self, host: &str) -> Result<(), LabError> {
        self.port(host, false)
    }

    /// Plugs the cable in again.
    pub fn heal(&self, host: &str) -> Result<(), LabError> {
        self.port(host, true)
    }

    fn port(&self, host: &str, up: bool) -> Result<(), LabError> {
        self.set(&self.host(host)?.spec.name, up)
    }

    fn set(&self, port: &str, up: bool) -> Result<(), LabError> {
        netlink(&self.switch, &format!("set the switch port {port}"), async |handle| {
            let index = index_of(&handle, port).await?;
            let port = LinkMessageBuilder::<LinkUnspec>::new().index(index);
            handle.link().change(if up { port.up() } else { port.down() }.build()).execute().await
        })
    }

    /// Plugs these hosts, and no others, into the second switch. Their cables are out for a moment.
    pub fn island(&self, hosts: &[&str]) -> Result<(), LabError> {
        hosts.iter().try_for_each(|host| self.host(host).map(drop))?;
        netlink(&self.switch, "make an island", async |handle| {
            if index_of(&handle, TRUNK).await.is_err() {
                bridge(&handle, ISLAND).await?;
                let landing = LinkMessageBuilder::<LinkUnspec>::new().name(LANDING).build();
                let trunk = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
                    .name(TRUNK)
                    .set_info_data(InfoData::Veth(InfoVeth::Peer(landing)))
                    .controller(index_of(&handle, "switch").await?)
                    .up();
                handle.link().add(trunk.build()).execute().await?;
                plug(&handle, LANDING, ISLAND).await?;
            }
            for host in &self.hosts {
                let name = host.spec.name.as_str();
                plug(&handle, name, if hosts.contains(&name) { ISLAND } else { "switch" }).await?;
            }
            Ok(())
        })
    }

    /// Pulls the trunk: whoever is on the island reaches the others no more.
    pub fn part(&self) -> Result<(), LabError> {
        self.set(TRUNK, false)
    }

    /// Plugs the trunk in again.
    pub fn rejoin(&self) -> Result<(), LabError> {
        self.set(TRUNK, true)
    }

    /// The addresses of a host's `eth0` with their prefix lengths, link-local ones left out.
    pub fn addresses(&self, host: &str) -> Result<Vec<(IpAddr, u8)>, LabError> {
        let namespace = &self.host(host)?.namespace;
        netlink(namespace, &format!("addresses of {host}"), async |handle| {
            let index = index_of(&handle, "eth0").await?;
            let mut found = Vec::new();
            let mut addresses = handle.address().get().set_link_index_filter(index).execute();
            while let Some(message) = addresses.try_next().await? {
                let own = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    // Of an IPv6 address there is no other attribute.
                    AddressAttribute::Address(address) if message.header.family == AddressFamily::Inet6 => {
                        Some(*address)
                    }
                    _ => None,
                });
                let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
                found.extend(own.filter(|ip| !link_local(ip)).map(|ip| (ip, message.header.prefix_len)));
            }
            Ok(found)
        })
    }

    /// The processes that run in a host's network.
    pub fn processes(&self, host: &str) -> Result<Vec<Process>, LabError> {
        let inode = self.host(host)?.inode;
        let entries = fs::read_dir("/proc").map_err(system("read /proc"))?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        // Who ends meanwhile is not one of them.
        Ok(pids.filter_map(|pid| process(pid, inode)).collect())
    }
}

/// Sends a signal to a process of the lab. One that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) -> Result<(), LabError> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(system(format!("{signal} to process {pid}"))(errno)),
    }
}

/// The network of one host.
#[derive(Debug)]
pub struct Network {
    namespace: File,
    host: String,
}

impl Network {
    /// Moves the calling thread there for good.
    pub fn enter(&self) -> Result<(), LabError> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).map_err(system(format!("enter the network of {}", self.host)))
    }
}

fn process(pid: i32, inode: u64) -> Option<Process> {
    if fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino() != inode {
        return None;
    }
    // `pid (command) state parent …`, where the command may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (start, rest) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat.get(rest + 1..)?.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // A zombie runs no more.
    (state != "Z").then(|| Process { pid, parent, command: stat.get(start + 1..rest).unwrap_or_default().to_owned() })
}

/// A new network, kept alive by the returned file and visible to `ip netns` inside the private world.
fn namespace(name: &str) -> Result<File, LabError> {
    let fault = |source: io::Error| system::<io::Error>(format!("make the network of {name}"))(source);
    let made = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    });
    let namespace = made.map_err(fault)?;
    let path = format!("/run/netns/{name}");
    File::create(&path).map_err(fault)?;
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    let none: Option<&str> = None;
    mount(Some(source.as_str()), path.as_str(), none, MsFlags::MS_BIND, none).map_err(|errno| fault(errno.into()))?;
    netlink(&namespace, &format!("bring up lo of {name}"), async |handle| {
        let loopback = LinkMessageBuilder::<LinkUnspec>::new().index(index_of(&handle, "lo").await?).up();
        handle.link().change(loopback.build()).execute().await
    })?;
    Ok(namespace)
}

/// A new host on the switch.
fn host(switch: &File, spec: &HostSpec) -> Result<Host, LabError> {
    let namespace = namespace(&spec.name)?;
    let inode = namespace.metadata().map_err(system(format!("network of {}", spec.name)))?.ino();
    netlink(switch, &format!("plug {} in", spec.name), async |handle| {
        let eth0 = LinkMessageBuilder::<LinkUnspec>::new().name("eth0").setns_by_fd(namespace.as_raw_fd()).build();
        let port = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(&spec.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(eth0)))
            .controller(index_of(&handle, "switch").await?)
            .up()
            .build();
        handle.link().add(port).execute().await
    })?;
    netlink(&namespace, &format!("give {} its address", spec.name), async |handle| {
        let index = index_of(&handle, "eth0").await?;
        handle.address().add(index, spec.address, spec.prefix).execute().await?;
        handle.link().change(LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build()).execute().await
    })?;
    Ok(Host { spec: spec.clone(), namespace, inode })
}

/// A new switch.
async fn bridge(handle: &Handle, name: &str) -> Result<(), rtnetlink::Error> {
    // Snooping would swallow multicast until somebody asks for it; a learning port would swallow everything.
    let bridge =
        LinkBridge::new(name).mcast_snooping(false).stp_state(BridgeStpState::Disabled).forward_delay(0).up().build();
    handle.link().add(bridge).execute().await
}

/// Moves a port to a switch.
async fn plug(handle: &Handle, port: &str, switch: &str) -> Result<(), rtnetlink::Error> {
    let found = handle.link().get().match_name(port).execute().try_next().await?;
    let port = found.ok_or(rtnetlink::Error::RequestFailed)?;
    let switch = index_of(handle, switch).await?;
    // Who is there already stays, without a moment of silence.
    if port.attributes.contains(&LinkAttribute::Controller(switch)) {
        return Ok(());
    }
    let moved = LinkMessageBuilder::<LinkUnspec>::new().index(port.header.index).controller(switch).up();
    handle.link().change(moved.build()).execute().await
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let found = handle.link().get().match_name(name).execute().try_next().await?;
    found.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
}

/// Runs `f` with a netlink socket of the given network.
fn netlink<T: Send>(
    namespace: &File,
    what: &str,
    f: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
) -> Result<T, LabError> {
    inside(namespace, what, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system(what))?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(system(what))?;
            // Ends with the runtime.
            tokio::spawn(connection);
            f(handle).await.map_err(|source| LabError::Netlink { what: what.to_owned(), source })
        })
    })?
}

/// Runs `f` on a thread of its own in the given network.
fn inside<T: Send>(namespace: &File, what: &str, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(system(format!("{what}: enter the network")))?;
            Ok(f())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[expect(unsafe_code, reason = "what runs between fork and exec is the caller's promise")]
fn enter_before_exec(command: &mut Command, namespace: RawFd) {
    let enter = move || {
        // A session of its own: a Ctrl-C at the terminal is for the lab, not for each of its processes.
        nix::unistd::setsid()?;
        // SAFETY: a system call on a number; whatever the number is, no memory of ours is touched.
        Errno::result(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })?;
        Ok(())
    };
    // SAFETY: `enter` only makes system calls; the error path allocates nothing.
    unsafe { command.pre_exec(enter) };
}
