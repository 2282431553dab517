//! A segment of hosts: a bridge in a namespace of its own, and one namespace per host, all removed at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};
use vigie::base::node::{VipFacts, VipState};
use vigie::cores::cluster::Part;
use vigie::runtime::journal::{Journal, Record};
use vigie::runtime::vip::{VipHandle, VipSpec, spawn};

const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; `what` and `details` are told if it does not within `limit`.
pub(crate) fn wait(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Runs a program and returns what it says, or what it complains of.
fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let done = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr)))
    }
}

fn ip(args: &str) -> String {
    output("ip", &args.split_whitespace().collect::<Vec<_>>()).unwrap()
}

/// A bridge with hosts.
pub(crate) struct Segment {
    switch: String,
    hosts: u8,
}

/// A host with an `eth0` in 10.99.0.0/24.
pub(crate) struct Host {
    namespace: String,
    switch: String,
    number: u8,
}

impl Segment {
    /// An empty segment; or none, with the reason printed, where namespaces cannot be made.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let switch = format!("vip-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        if let Err(error) = output("ip", &["netns", "add", &switch]) {
            println!("skipped: no network namespace: {error}");
            return None;
        }
        let segment = Self { switch, hosts: 0 };
        // Snooping would need a querier, and spanning tree would delay the ports.
        ip(&format!("-n {} link add br0 type bridge mcast_snooping 0 stp_state 0", segment.switch));
        ip(&format!("-n {} link set br0 up", segment.switch));
        Some(segment)
    }

    /// One more host.
    pub(crate) fn host(&mut self) -> Host {
        self.hosts += 1;
        let number = self.hosts;
        let host = Host { namespace: format!("{}h{number}", self.switch), switch: self.switch.clone(), number };
        ip(&format!("netns add {}", host.namespace));
        host.plug_in();
        host
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = output("ip", &["netns", "del", &self.switch]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = output("ip", &["netns", "del", &self.namespace]);
    }
}

impl Host {
    /// 10.99.0.11 and so on.
    pub(crate) fn address(&self) -> IpAddr {
        IpAddr::from([10, 99, 0, 10 + self.number])
    }

    /// Link-local.
    pub(crate) fn address_v6(&self) -> IpAddr {
        format!("fe80::99:{}", self.number).parse().unwrap()
    }

    /// The link-local address that the kernel makes of the Ethernet address.
    pub(crate) fn address_eui64(&self) -> IpAddr {
        format!("fe80::99:ff:fe00:{}", self.number).parse().unwrap()
    }

    pub(crate) fn mac(&self) -> String {
        format!("02:99:00:00:00:{:02x}", self.number)
    }

    /// Makes `eth0`.
    pub(crate) fn plug_in(&self) {
        let Self { namespace, switch, number } = self;
        ip(&format!("-n {switch} link add p{number} type veth peer name eth0 netns {namespace}"));
        ip(&format!("-n {namespace} link set eth0 address {}", self.mac()));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {namespace} addr add {}/24 dev eth0", self.address()));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} addr add {}/64 dev eth0 nodad", self.address_v6()));
        ip(&format!("-n {switch} link set p{number} master br0 up"));
    }

    /// Removes `eth0`.
    pub(crate) fn unplug(&self) {
        ip(&format!("-n {} link del p{}", self.switch, self.number));
    }

    /// Cuts the host off without it noticing; or heals that.
    pub(crate) fn cut(&self, cut: bool) {
        let master = if cut { "nomaster" } else { "master br0" };
        ip(&format!("-n {} link set p{} {master}", self.switch, self.number));
    }

    pub(crate) fn ip(&self, args: &str) -> String {
        ip(&format!("-n {} {args}", self.namespace))
    }

    /// Whether `eth0` has this address.
    pub(crate) fn has(&self, address: &str) -> bool {
        let shown = output("ip", &["-n", &self.namespace, "-o", "addr", "show", "dev", "eth0"]).unwrap_or_default();
        shown.contains(&format!(" {address}/"))
    }

    /// Runs `work` on a thread inside of the host.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// A command that runs inside of the host.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Starts our routers.
    pub(crate) fn ours(&self, spec: VipSpec) -> Ours {
        let (usable, usable_rx) = watch::channel(Ok(()));
        let (post, posted) = mpsc::channel(64);
        let journal = Journal::new();
        let told = journal.clone();
        let handle = self.enter(move || spawn(vec![spec], usable_rx, None, post, told)).unwrap();
        Ours { handle: Some(handle), usable, posted, facts: None, faults: BTreeMap::new(), journal }
    }
}

/// Our virtual router on a host.
pub(crate) struct Ours {
    handle: Option<VipHandle>,
    usable: watch::Sender<Result<(), String>>,
    posted: mpsc::Receiver<Part>,
    facts: Option<VipFacts>,
    faults: BTreeMap<&'static str, Option<String>>,
    pub(crate) journal: Journal,
}

impl Ours {
    /// The state last posted.
    pub(crate) fn state(&mut self) -> Option<VipState> {
        while let Ok(part) = self.posted.try_recv() {
            match part {
                Part::Vip(facts) => self.facts = Some(facts),
                Part::Fault { source, reason } => drop(self.faults.insert(source, reason)),
                Part::Redis(_) | Part::Writes(_) | Part::Sentinel(_) | Part::Proxy(_) => panic!("not ours: {part:?}"),
            }
        }
        self.facts.map(|facts| facts.state)
    }

    /// Says whether clients can be served here.
    pub(crate) fn usable(&self, word: Result<(), &str>) {
        let _ = self.usable.send_replace(word.map_err(str::to_owned));
    }

    pub(crate) fn fault(&mut self) -> Option<String> {
        self.state();
        self.faults.get("vrrp").cloned().flatten()
    }

    pub(crate) fn becomes(&mut self, state: VipState, limit: Duration) {
        let begin = Instant::now();
        while self.state() != Some(state) {
            let told = self.records();
            assert!(begin.elapsed() < limit, "not {state:?} within {limit:?}, but {:?}: {told:#?}", self.facts);
            std::thread::sleep(POLL);
        }
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.journal.follow().0
    }

    /// Stops it; true if that was done in time.
    pub(crate) fn stop(mut self) -> bool {
        self.handle.take().unwrap().stop()
    }
}

/// A foreign daemon, killed at the end by the ids of its own processes.
pub(crate) struct Daemon {
    child: Child,
    _directory: Option<tempfile::TempDir>,
    further: Vec<std::path::PathBuf>,
}

impl Daemon {
    /// keepalived with this `vrrp_instance` body; none, with the reason printed, if there is no keepalived.
    pub(crate) fn keepalived(host: &Host, body: &str) -> Option<Self> {
        if let Err(error) = output("keepalived", &["--version"]) {
            println!("skipped: no keepalived: {error}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("conf"), format!("vrrp_instance A {{\ninterface eth0\nvirtual_router_id 51\n{body}\n}}\n"))
            .unwrap();
        let mut command = host.command("keepalived");
        command.args(["-n", "-l", "-P"]);
        command.arg("-f").arg(at("conf")).arg("-p").arg(at("pid")).arg("-r").arg(at("vrrp.pid"));
        let log = File::create(at("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let further = vec![at("vrrp.pid")];
        Some(Self { child, _directory: Some(directory), further })
    }

    /// FRR's vrrpd with its zebra, of priority 150, on a macvlan of `eth0`; none, with the reason printed, if there is
    /// none.
    pub(crate) fn frr(host: &Host, address: &str) -> Option<[Self; 2]> {
        if !std::path::Path::new("/usr/lib/frr/vrrpd").exists() {
            println!("skipped: no FRR");
            return None;
        }
        if host.ip("-o link").contains("vrrp4") {
            host.ip("link del vrrp4");
        }
        host.ip("link add vrrp4 link eth0 type macvlan mode bridge");
        host.ip("link set vrrp4 address 00:00:5e:00:01:33");
        host.ip(&format!("addr add {address}/24 dev vrrp4"));
        host.ip("link set vrrp4 up");
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let router = "vrrp 51 version 3\n vrrp 51 priority 150\n vrrp 51 advertisement-interval 100";
        let config = format!("interface eth0\n {router}\n vrrp 51 ip {address}\n");
        std::fs::write(directory.path().join("vrrpd.conf"), config).unwrap();
        std::fs::write(directory.path().join("zebra.conf"), "hostname z\n").unwrap();
        // The daemons leave root for a user of their own.
        let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let path = directory.path().to_owned();
        let mut directory = Some(directory);
        let mut start = |name: &str| {
            let mut command = host.command(&format!("/usr/lib/frr/{name}"));
            command.arg("-f").arg(path.join(format!("{name}.conf"))).arg("-z").arg(path.join("zserv"));
            command.arg("-i").arg(path.join(format!("{name}.pid"))).arg("--vty_socket").arg(&path);
            command.args(["-A", "127.0.0.1", "-u", "frr", "-g", "frr"]);
            let log = File::create(path.join(format!("{name}.log"))).unwrap();
            let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            Self { child, _directory: directory.take(), further: vec![] }
        };
        let zebra = start("zebra");
        wait("zebra listens", Duration::from_secs(20), || path.join("zserv").exists());
        Some([start("vrrpd"), zebra])
    }

    /// SIGTERM to the first process, which tells the others.
    pub(crate) fn terminate(mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        let _ = self.child.wait();
        self.further.clear();
    }
}

impl Drop for Daemon {
    /// SIGKILL, without a word.
    fn drop(&mut self) {
        let others: Vec<i32> =
            self.further.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).collect();
        for other in others {
            let _ = kill(Pid::from_raw(other), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
