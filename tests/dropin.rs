//! vigie in the place of redis-sentinel: the process as a shell, a service manager and an operator see it, and files that
//! go back and forth between it and the real ones.
//!
//! Everything listens on 127.0.0.1 and on ports that were free a moment before.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;
use vigie::base::{RunId, Secret};
use vigie::config::sentinel::{Additions, Document};
use vigie::cores::sentinel::{KnownSentinel, MasterConfig, MasterState, Place, State};
use vigie::runtime::sentinel::file;

const LIMIT: Duration = Duration::from_secs(10);
/// Somebody who is not root.
const NOBODY: u32 = 65_534;

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A directory with a link to vigie that is called redis-sentinel.
struct Bench {
    home: TempDir,
}

/// A process that ends with the test. What it says is in `out.txt` and `err.txt`.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        // Others than root come here too.
        fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
        symlink(env!("CARGO_BIN_EXE_vigie"), home.path().join("redis-sentinel")).unwrap();
        Self { home }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.at("redis-sentinel"));
        command.args(arguments).current_dir(self.home.path()).stdin(Stdio::null());
        command.env_remove("NOTIFY_SOCKET").env_remove("UPSTART_JOB");
        command.stdout(fs::File::create(self.at("out.txt")).unwrap());
        command.stderr(fs::File::create(self.at("err.txt")).unwrap());
        command
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running { child: self.command(arguments).spawn().unwrap() }
    }

    /// Runs until it gives up, which it must do with exit code 1. What it said is returned.
    #[track_caller]
    fn refused(&self, command: &mut Command) -> String {
        let mut running = Running { child: command.spawn().unwrap() };
        assert_eq!(running.ended().code(), Some(1), "{}", self.said());
        self.said()
    }

    fn said(&self) -> String {
        self.read("out.txt") + &self.read("err.txt")
    }
}

#[test]
fn it_starts_logs_and_stops_as_redis_sentinel_does() {
    let place = Bench::new();
    let port = free_port();
    fs::create_dir(place.at("sub")).unwrap();
    let text = format!(
        "# mine\nsentinel down-after-milliseconds m 20000\nsentinel monitor m 127.0.0.1 1 2\n\nport {port}\n\
         bind 127.0.0.1\ndir ./sub\nlogfile log.txt\n"
    );
    place.write("s.conf", &text);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut running = place.start(&["s.conf"]);
        until("the port is open", || is_open(port));
        // Whoever closes a terminal does not mean a Sentinel.
        running.signal(Signal::SIGHUP);
        let log = place.at("sub/log.txt");
        let moved = place.at("sub/log.old");
        until("its start is logged", || fs::read_to_string(&log).unwrap_or_default().contains("Sentinel ID is "));
        let first = fs::read_to_string(&log).unwrap();
        assert!(first.lines().all(|line| line.starts_with(&format!("{}:X ", running.pid()))), "{first}");
        fs::rename(&log, &moved).unwrap();
        assert!(is_open(port));
        running.signal(if ids.is_empty() { Signal::SIGTERM } else { Signal::SIGINT });
        assert_eq!(running.ended().code(), Some(0));
        assert!(!is_open(port));
        let last = fs::read_to_string(&log).unwrap();
        assert!(last.trim_end().ends_with("# Sentinel is now ready to exit, bye bye..."), "{last}");
        assert_eq!((place.read("out.txt"), place.read("err.txt")), (String::new(), String::new()));
        let now = place.read("s.conf");
        let dir = fs::canonicalize(place.at("sub")).unwrap();
        assert!(now.starts_with(&text.replace("dir ./sub", &format!("dir \"{}\"", dir.display()))), "{now}");
        fs::remove_file(&log).unwrap();
        ids.extend(now.lines().find(|line| line.starts_with("sentinel myid ")).map(str::to_owned));
    }
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[test]
fn a_port_in_use_ends_it_before_it_touches_anything() {
    let place = Bench::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = format!("port {port}\nbind 127.0.0.1\nlogfile log.txt\npidfile s.pid\n");
    place.write("s.conf", &text);
    assert_eq!(place.refused(&mut place.command(&["s.conf"])), "");
    let log = place.read("log.txt");
    let said = format!("Could not create server TCP listening socket 127.0.0.1:{port}: bind: Address already in use");
    assert!(log.contains(&said) && log.contains(&format!("Failed listening on port {port} (TCP), aborting.")), "{log}");
    assert_eq!(place.read("s.conf"), text);
    assert!(!place.at("s.pid").exists());
}

#[test]
fn it_refuses_to_start_without_a_file_that_it_can_write() {
    let place = Bench::new();
    let needs = "# Sentinel needs config file on disk to save state. Exiting...\n";
    for arguments in [&[] as &[&str], &["-"], &["--sentinel"], &["--port", "1"]] {
        assert!(place.refused(&mut place.command(arguments)).ends_with(needs), "{arguments:?}: {}", place.said());
    }
    let said = place.refused(&mut place.command(&["none.conf"]));
    let missing = format!("can't open config file '{}': No such file or directory\n", place.at("none.conf").display());
    assert!(said.contains("# Fatal error, ") && said.ends_with(&missing), "{said}");
    fs::create_dir(place.at("d.conf")).unwrap();
    assert!(place.refused(&mut place.command(&["d.conf"])).contains("it is not a regular file"));
    place.write("s.conf", "port 1\nfoo bar\n");
    let said = place.refused(&mut place.command(&["s.conf"]));
    assert_eq!(place.read("out.txt"), "");
    let parts =
        ["*** FATAL CONFIG FILE ERROR (vigie ", "configuration file, at line 2\n>>> 'foo bar'\nBad directive or"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    place.write("s.conf", "logfile /nowhere/at/all\n");
    assert!(place.refused(&mut place.command(&["s.conf"])).contains("Can't open the log file: No such file or dir"));
}

#[test]
fn somebody_else_than_root_is_told_what_cannot_be_written() {
    if !geteuid().is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    let place = Bench::new();
    // The program may lie where only root goes.
    fs::remove_file(place.at("redis-sentinel")).unwrap();
    // By another process: a program that this one holds open for writing while it forks could not be started.
    let copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_vigie")).arg(place.at("redis-sentinel")).status();
    assert!(copy.unwrap().success());
    fs::set_permissions(place.at("redis-sentinel"), PermissionsExt::from_mode(0o755)).unwrap();
    let text = format!("port {}\nbind 127.0.0.1\n", free_port());
    let file = place.write("s.conf", &text);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let said = place.refused(place.command(&["s.conf"]).uid(NOBODY).gid(NOBODY));
    let expected =
        format!("# Sentinel config file {} is not writable: Permission denied. Exiting...\n", file.display());
    assert!(said.ends_with(&expected), "{said}");
    // The file may be written, but not its directory: nothing can be replaced in there.
    std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    let said = place.refused(place.command(&["s.conf"]).uid(NOBODY).gid(NOBODY));
    let parts = ["# WARNING: Sentinel was not able to save the new configuration on disk!!!: ", "Permission denied"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    assert_eq!(place.read("s.conf"), text);
    assert_eq!(fs::read_dir(place.home.path()).unwrap().count(), 4, "nothing is left behind");
}

#[test]
fn in_the_background_it_has_a_pid_file_and_a_session_of_its_own() {
    let place = Bench::new();
    let port = free_port();
    place.write("s.conf", &format!("port {port}\nbind 127.0.0.1\ndaemonize yes\npidfile s.pid\nlogfile log.txt\n"));
    let mut parent = place.start(&["s.conf"]);
    assert_eq!(parent.ended().code(), Some(0));
    until("the pid file is written", || place.read("s.pid").ends_with('\n'));
    let pid = Pid::from_raw(place.read("s.pid").trim().parse().unwrap());
    assert_ne!(pid, parent.pid());
    assert!(is_open(port));
    assert_ne!(nix::unistd::getsid(Some(pid)), nix::unistd::getsid(None));
    for fd in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap(), Path::new("/dev/null"));
    }
    kill(pid, Signal::SIGTERM).unwrap();
    until("it is gone", || !is_open(port) && !place.at("s.pid").exists());
    until("its end is logged", || place.read("log.txt").trim_end().ends_with("bye bye..."));
    assert!(place.read("log.txt").contains(" * Removing the pid file.\n"));
    assert_eq!(place.said(), "");
}

#[test]
fn systemd_is_told_and_keeps_it_in_the_foreground() {
    let place = Bench::new();
    let port = free_port();
    place.write("s.conf", &format!("port {port}\nbind 127.0.0.1\ndaemonize yes\nlogfile log.txt\n"));
    let socket = UnixDatagram::bind(place.at("notify")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = place.command(&["s.conf", "--supervised", "systemd"]);
    let mut running = Running { child: command.env("NOTIFY_SOCKET", place.at("notify")).spawn().unwrap() };
    let heard = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut words = heard();
    while !words.contains("READY=1") {
        words += &heard();
    }
    assert!(is_open(port) && words.contains("STATUS=Ready to accept connections"), "{words}");
    assert!(running.child.try_wait().unwrap().is_none());
    running.signal(Signal::SIGTERM);
    assert!(heard().contains("STOPPING=1"));
    assert_eq!(running.ended().code(), Some(0));
    // Asked for, but not there.
    let mut running = place.start(&["s.conf", "--supervised", "systemd", "--daemonize", "no"]);
    until("the port is open", || is_open(port));
    assert!(place.read("log.txt").contains("NOTIFY_SOCKET not found!"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn options_are_the_last_word_and_are_not_saved() {
    let place = Bench::new();
    let port = free_port();
    place.write("s.conf", "port 1\nlogfile /nowhere/log\n");
    let options = ["s.conf", "--port", &port.to_string(), "--bind", "127.0.0.1", "--logfile", "", "--sentinel", "-"];
    let mut command = place.command(&options);
    let mut running = Running { child: command.stdin(Stdio::piped()).spawn().unwrap() };
    running.child.stdin.take().unwrap().write_all(b"sentinel monitor m 127.0.0.1 1 1\nport 2\n").unwrap();
    until("the port is open", || is_open(port));
    until("it says that on its output", || place.read("out.txt").contains(&format!("mode=sentinel, port={port}.")));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    let now = place.read("s.conf");
    assert!(now.starts_with("port 1\nlogfile /nowhere/log\n") && now.contains("sentinel monitor m 127.0.0.1 1 1\n"));
    assert!(!now.contains(&port.to_string()), "{now}");
}

#[test]
fn children_inherit_nothing_that_was_inherited() {
    let place = Bench::new();
    let port = free_port();
    place.write("s.conf", &format!("port {port}\nbind 127.0.0.1\n"));
    let open = fs::File::open("/dev/zero").unwrap();
    nix::fcntl::fcntl(&open, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let running = place.start(&["s.conf"]);
    until("the port is open", || is_open(port));
    let mut seen = 0;
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", running.pid())).unwrap() {
        let path = entry.unwrap().path();
        let number: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let about = match fs::read_to_string(&path) {
            // The connection that showed that the port is open ends in the meantime.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.unwrap(),
        };
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
        let closes = i32::from_str_radix(&flags, 8).unwrap() & libc::O_CLOEXEC != 0;
        assert_eq!(closes, number > 2, "{number}: {about}");
        seen += i32::from(number == open.as_raw_fd());
    }
    assert_eq!(seen, 1, "the descriptor was inherited");
}

#[test]
fn versions_and_help_are_told_by_either_name() {
    let place = Bench::new();
    for arguments in [["-v"], ["--version"]] {
        let output = Command::new(place.at("redis-sentinel")).args(arguments).output().unwrap();
        assert!(output.status.success() && output.stdout.starts_with(b"vigie sentinel v="));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_vigie")).args(["sentinel", "--help"]).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"Usage: vigie sentinel "));
    let output = Command::new(env!("CARGO_BIN_EXE_vigie")).args(["sentinel"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

/// A real Sentinel that loads `file`, says by a command that it works, and rewrites the file.
fn flushed_by(program: &Path, file: &Path, port: u16, password: &str) -> Option<()> {
    let mut command = Command::new(program);
    command.arg(file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running { child: command.spawn().ok()? };
    let mut link = None;
    until("the real Sentinel listens", || {
        assert!(running.child.try_wait().unwrap().is_none(), "{}: refused {}", program.display(), file.display());
        link = TcpStream::connect(("127.0.0.1", port)).ok();
        link.is_some()
    });
    let mut link = link.unwrap();
    link.set_read_timeout(Some(LIMIT)).unwrap();
    link.write_all(format!("AUTH {password}\r\nSENTINEL FLUSHCONFIG\r\n").as_bytes()).unwrap();
    let mut answer = [0; 10];
    link.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"+OK\r\n+OK\r\n");
    running.signal(Signal::SIGTERM);
    running.ended();
    Some(())
}

/// Every directive, but what makes the real ones act within the life of a test.
fn everything(port: u16) -> State {
    let place = |host: &str| Place { host: host.to_owned(), port: 1 };
    let mut state = State { id: Some(RunId([0x5a; 20])), current_epoch: 9, ..State::default() };
    state.settings.announce_ip = Some("127.0.0.1".to_owned());
    state.settings.announce_port = Some(port);
    state.settings.announce_hostnames = true;
    state.settings.deny_scripts_reconfig = false;
    state.settings.sentinel_user = Some("bob".to_owned());
    state.settings.sentinel_pass = Some(Secret::new("hush"));
    state.settings.require_pass = Some(Secret::new("pass"));
    for (name, at) in [("one", "127.0.0.11"), ("two.2", "127.0.0.12")] {
        let mut master = MasterState::new(MasterConfig::new(name, 2), place(at));
        master.config.down_after = Duration::from_secs(600);
        master.config.failover_timeout = Duration::from_secs(500);
        master.config.parallel_syncs = 3;
        master.config.auth_user = Some("carol".to_owned());
        master.config.auth_pass = Some(Secret::new("a\\b#c"));
        master.config.notification_script = Some("/bin/true".to_owned());
        master.config.client_reconfig_script = Some("/bin/true".to_owned());
        master.config.renames = vec![("CONFIG".to_owned(), "hidden".to_owned())];
        master.config.reboot_down_after = Duration::from_secs(7);
        master.config_epoch = 8;
        master.leader_epoch = 9;
        master.replicas = vec![place("127.0.0.13"), place("127.0.0.14")];
        master.sentinels =
            vec![KnownSentinel { place: place(&at.replace(".1", ".2")), id: RunId([at.len() as u8; 20]) }];
        state.masters.push(master);
    }
    // One of another master is the same to the real ones.
    state.masters[1].sentinels[0].id = RunId([3; 20]);
    state
}

fn comparable(mut state: State) -> State {
    // The real ones write the rules of all users again, in words of their version.
    state.settings.users.retain(|user| !user.starts_with("default "));
    for user in &mut state.settings.users {
        user.truncate(user.find(' ').unwrap_or(user.len()));
    }
    state.masters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    for master in &mut state.masters {
        master.replicas.sort();
    }
    state
}

fn read(file: &Path) -> (Document, State) {
    let (document, _, state) = Document::read(file, &Additions::default(), Path::new("/")).unwrap();
    (document, state)
}

fn goes_back_and_forth(program: &Path) {
    let place = Bench::new();
    let port = free_port();
    let text = format!("# mine\nport {port}\nbind 127.0.0.1\ndir {}\n", place.home.path().display());
    let file = place.write("s.conf", &text);
    let (document, _) = read(&file);
    let mut state = everything(port);
    state.settings.users = vec!["bob on >secret ~* +@all".to_owned()];
    file::save(&document, &state).unwrap();
    if flushed_by(program, &file, port, "pass").is_none() {
        println!("skipped: {} is not installed", program.display());
        return;
    }
    let theirs = place.read("s.conf");
    assert!(theirs.starts_with("# mine\n"), "{theirs}");
    let (document, mut read_back) = read(&file);
    assert_eq!(comparable(read_back.clone()), comparable(state), "{theirs}");
    // Ours over theirs: only what has changed does.
    read_back.masters[0].config.down_after = Duration::from_secs(700);
    file::save(&document, &read_back).unwrap();
    let ours = place.read("s.conf");
    // Valkey leaves the line of the old spelling where it is and adds one of the new: ours is content with one.
    let theirs: Vec<&str> = theirs.lines().filter(|line| !line.starts_with("sentinel primary-reboot")).collect();
    let changed = theirs.iter().zip(ours.lines()).filter(|(theirs, ours)| *theirs != ours).count();
    assert_eq!((theirs.len(), changed), (ours.lines().count(), 1), "{theirs:#?}\n{ours}");
    flushed_by(program, &file, port, "pass").unwrap();
    assert_eq!(comparable(read(&file).1), comparable(read_back));
}

#[test]
fn files_go_back_and_forth_between_vigie_and_redis() {
    goes_back_and_forth(Path::new("redis-server"));
}

#[test]
fn files_go_back_and_forth_between_vigie_and_valkey() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let found = Command::new("find").args(["-L"]).arg(&tools).args(["-name", "valkey-server", "-type", "f"]).output();
    let found = found.map(|found| String::from_utf8_lossy(&found.stdout).lines().next().map(PathBuf::from));
    goes_back_and_forth(&found.ok().flatten().unwrap_or_else(|| "valkey-server".into()));
}

/// Runs redis-sentinel's place with a disk on which each fsync takes 400 ms.
fn start_on_a_slow_disk(place: &Bench, arguments: &[&str]) -> Running {
    let direct = place.command(arguments);
    let mut slow = Command::new("strace");
    // With -D the process is the sentinel itself, and who kills it ends both.
    slow.args(["-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    slow.args(["-e", "inject=fsync,fdatasync:delay_enter=400000"]).arg(direct.get_program()).args(direct.get_args());
    slow.current_dir(place.home.path()).stdin(Stdio::null());
    slow.stdout(fs::File::create(place.at("out.txt")).unwrap());
    slow.stderr(fs::File::create(place.at("err.txt")).unwrap());
    Running { child: slow.spawn().unwrap() }
}

/// Three of them store something all the time while the master is healthy. `VIGIE_SLOW_DISK` says for how many seconds.
#[test]
fn a_slow_disk_makes_nobody_look_silent() {
    if !Path::new("/usr/bin/strace").exists() {
        return println!("skipped: strace is not installed");
    }
    let seconds = std::env::var("VIGIE_SLOW_DISK").map_or(15, |text| text.parse().expect("a number of seconds"));
    let redis = Bench::new();
    let master = free_port();
    let server = Running {
        child: Command::new("redis-server")
            .args(["--port", &master.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(redis.home.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    };
    until("redis-server answers", || is_open(master));
    let text = |port: u16| {
        format!(
            "port {port}\nbind 127.0.0.1\nprotected-mode no\nsentinel monitor m 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds m 500\n"
        )
    };
    let sentinels = [(); 3].map(|()| {
        let (place, port) = (Bench::new(), free_port());
        place.write("s.conf", &text(port));
        let running = start_on_a_slow_disk(&place, &["s.conf"]);
        (place, port, running)
    });
    for (_, port, _) in &sentinels {
        until("the port is open", || is_open(*port));
    }
    let mut clients = sentinels.each_ref().map(|(_, port, _)| TcpStream::connect(("127.0.0.1", *port)).unwrap());
    let start = Instant::now();
    let mut stores = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        for client in &mut clients {
            client.write_all(b"SENTINEL FLUSHCONFIG\r\n").unwrap();
        }
        for client in &mut clients {
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"+OK\r\n");
            stores += 1;
        }
    }
    assert!(start.elapsed() > Duration::from_millis(400) * (stores / 3), "the disk is not slow");
    let said: Vec<String> = sentinels.iter().map(|(place, ..)| place.said()).collect();
    let suspicions: usize = said.iter().map(|said| said.matches("+sdown").count()).sum();
    println!("{stores} stores of 400 ms in {seconds} s: {suspicions} false suspicions");
    assert_eq!(suspicions, 0, "{}", said.join("\n---\n"));
    // A master that is really gone is found all the same.
    drop(server);
    until("the master is found down", || sentinels.iter().any(|(place, ..)| place.said().contains("+sdown master")));
}
