//! The redis of a node in the hands of somebody else: what it could reach, what applications may do with it, and what of the
//! cluster's secrets is where it can be found.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vigie::base::{Credentials, Purpose, Secret, Secrets};
use vigie::operate::lab::cluster::{CLIENT, Cluster, Layout};
use vigie::operate::lab::hosts::{Process, signal};
use vigie::operate::lab::sandbox::Sandbox;
use vigie::runtime::connection::Connection;
use vigie::wire::resp::Reply;

use super::super::whole::{DATA, START_TIME, text, wait_ok};
use super::super::{Case, Outcome, note, program_path};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "redis_7_has_nothing_of_root",
        needs: &["redis-server"],
        run: |sandbox| confined(sandbox, "redis-server"),
    },
    Case {
        name: "valkey_has_nothing_of_root",
        needs: &["valkey-server"],
        run: |sandbox| confined(sandbox, "valkey-server"),
    },
    Case { name: "another_server_has_nothing_of_root", needs: &[OTHER], run: |sandbox| confined(sandbox, OTHER) },
    Case { name: "changed_users_come_back", needs: &["redis-server"], run: changed_users },
    Case { name: "no_secret_lies_about", needs: &["redis-server"], run: secrets },
    Case { name: "an_upgrade_hands_the_data_over", needs: &["redis-server"], run: upgrade },
];

/// A name under which a machine may have another version, such as 6.2.
const OTHER: &str = "redis-server-other";
/// Who serves through the virtual address answers within this time.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// A redis that somebody shut its supervisor out of is back within this time.
const BACK_TIME: Duration = Duration::from_secs(5);
/// The capabilities of `config/systemd/vigie.service`, and `CAP_SETPCAP`.
const RIGHTS: u64 = 0x0180_75eb;
const ADMIN: &str = "the-operator";

/// One node with all roles, whose redis is `server`, with an operator's user.
fn layout(sandbox: &Sandbox, server: &Path) -> Result<Layout, String> {
    let include = sandbox.scratch.join("users.conf");
    // Nobody but root reads it, and redis runs as somebody else.
    fs::write(&include, format!("user admin on >{ADMIN} ~* &* +@all\n")).map_err(text)?;
    fs::set_permissions(&include, fs::Permissions::from_mode(0o600)).map_err(text)?;
    let mut layout = Layout::classic();
    layout.settings += &format!("[redis]\nserver = {server:?}\ninclude = [{:?}]\n", include.display().to_string());
    Ok(layout)
}

/// A copy of it in a place that every user may go to, and that place: the sandbox has directories of its own.
fn reachable(server: &str) -> Result<(tempfile::TempDir, PathBuf), String> {
    let found = program_path(server).ok_or_else(|| format!("{server} is not installed"))?;
    let place = tempfile::Builder::new().prefix("vigie-lab-").tempdir_in("/tmp").map_err(text)?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).map_err(text)?;
    let name = if server.starts_with("valkey") { "valkey-server" } else { "redis-server" };
    let copy = place.path().join(name);
    fs::copy(&found, &copy).map_err(|error| format!("{}: {error}", found.display()))?;
    Ok((place, copy))
}

fn binary() -> PathBuf {
    std::env::var_os("VIGIE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_vigie").into(), PathBuf::from)
}

fn start(sandbox: &Sandbox, layout: Layout) -> Result<Cluster, String> {
    start_as(sandbox, layout, &binary())
}

fn start_as(sandbox: &Sandbox, layout: Layout, binary: &Path) -> Result<Cluster, String> {
    let cluster = Cluster::start(sandbox, layout, binary).map_err(text)?;
    cluster.wait_healthy(START_TIME).map_err(text)?;
    Ok(cluster)
}

fn is_redis(process: &Process) -> bool {
    process.command.starts_with("redis-server") || process.command.starts_with("valkey-server")
}

fn redis_of(cluster: &Cluster, node: &str) -> Result<Process, String> {
    let mut found = cluster.lab().processes(node).map_err(text)?.into_iter().filter(is_redis);
    found.next().ok_or_else(|| format!("no redis on {node}"))
}

fn address(cluster: &Cluster, node: &str) -> SocketAddr {
    let found = cluster.layout().nodes.iter().find(|spec| spec.name == node);
    SocketAddr::new(found.expect("a node of the layout").address, 6379)
}

/// Asks a redis with a log-in, one thing after the other; a refusal is an answer.
fn say(cluster: &Cluster, at: SocketAddr, login: &[&str], commands: &[Vec<&str>]) -> Result<Vec<Reply>, String> {
    let asked = cluster.lab().exec(CLIENT, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        runtime.block_on(async {
            let mut connection = Connection::open(at, ANSWER_TIME).await.map_err(text)?;
            let auth: Vec<_> = ["AUTH"].iter().chain(login).copied().collect();
            let mut replies = Vec::new();
            for command in std::iter::once(&auth).chain(commands) {
                replies.push(connection.ask(command, ANSWER_TIME).await.map_err(text)?);
            }
            Ok(replies.split_off(1))
        })
    });
    asked.map_err(text)?
}

fn proc(pid: i32, name: &str) -> Result<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/{name}")).map_err(|error| format!("/proc/{pid}/{name}: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a process that was taken over would have.
fn confined(sandbox: &Sandbox, server: &str) -> Outcome {
    let (_place, program) = reachable(server)?;
    let cluster = start(sandbox, layout(sandbox, &program)?)?;
    for node in DATA {
        let redis = redis_of(&cluster, node)?;
        let status = proc(redis.pid, "status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
            line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        for ids in ["Uid", "Gid"] {
            if field(ids).split(' ').any(|id| id == "0") {
                return Err(format!("{ids}: {}", field(ids)));
            }
        }
        for none in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if field(none) != "0000000000000000" {
                return Err(format!("{none}: {}", field(none)));
            }
        }
        if !field("Groups").is_empty() || field("NoNewPrivs") != "1" {
            return Err(format!("groups {:?}, no new privileges {}", field("Groups"), field("NoNewPrivs")));
        }
        let environment = proc(redis.pid, "environ")?;
        if environment.contains("NOTIFY_SOCKET") || environment.contains("VIGIE") {
            return Err(environment);
        }
        // Its standard streams, its epoll, its listeners and links, its data; nothing that leads to a file of vigie.
        for entry in fs::read_dir(format!("/proc/{}/fd", redis.pid)).map_err(text)? {
            let descriptor = entry.map_err(text)?;
            let target = fs::read_link(descriptor.path()).map_err(text)?;
            let data = cluster.state_dir(node).join("redis");
            let target = target.display().to_string();
            let own = ["socket:", "pipe:", "anon_inode:", "/dev/null", "/dev/urandom"];
            if !own.iter().any(|own| target.starts_with(own)) && !target.starts_with(&*data.to_string_lossy()) {
                return Err(format!("{:?} of redis is {target}", descriptor.file_name()));
            }
        }
        // Who takes over the parent has what vigie needs, and no more.
        for vigie in cluster.lab().processes(node).map_err(text)?.iter().filter(|process| !is_redis(process)) {
            let status = proc(vigie.pid, "status")?;
            let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim();
            // What the kernel gave to the lab at all.
            let effective = u64::from_str_radix(effective, 16).map_err(text)?;
            if effective & !RIGHTS != 0 || effective == 0 {
                return Err(format!("CapEff of {} is {effective:016x}", vigie.command));
            }
        }
    }
    applications(&cluster)?;
    let version = Command::new(&program).arg("--version").output().map_err(text)?;
    let version = String::from_utf8_lossy(&version.stdout).split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    note(format!("{version}: redis has no id 0, no capability, no way to one; applications may not command it"));
    Ok(())
}

/// Whether a reply is as it should be.
type Right = fn(&Reply) -> bool;

/// What the password of the applications opens, through the virtual address.
fn applications(cluster: &Cluster) -> Outcome {
    let vip = SocketAddr::new(cluster.layout().vip, 6379);
    let password = cluster.layout().password.reveal();
    let at_vip = |command: &[&str]| {
        let replies = say(cluster, vip, &[password], &[command.to_vec()])?;
        replies.into_iter().next().ok_or_else(|| "no reply".to_owned())
    };
    let refused: &[&[&str]] = &[
        &["CONFIG", "SET", "dir", "/etc"],
        &["CONFIG", "SET", "requirepass", "mine"],
        &["CONFIG", "SET", "masterauth", "mine"],
        &["CONFIG", "REWRITE"],
        &["MODULE", "LOAD", "/tmp/x.so"],
        &["DEBUG", "SEGFAULT"],
        &["SHUTDOWN", "NOSAVE"],
        &["REPLICAOF", "192.168.0.100", "6379"],
        &["SLAVEOF", "192.168.0.100", "6379"],
        &["FAILOVER"],
        &["ACL", "SETUSER", "default", "nopass"],
        &["ACL", "LIST"],
        &["ACL", "DELUSER", "vigie"],
        &["CLIENT", "PAUSE", "10000"],
        &["SCRIPT", "DEBUG", "SYNC"],
        &["PSYNC", "?", "-1"],
    ];
    for command in refused {
        let arguments: Vec<_> = command.iter().map(|word| format!("'{word}'")).collect();
        let script = format!("return redis.call({})", arguments.join(","));
        for tried in [command.to_vec(), vec!["EVAL", &script, "0"]] {
            match at_vip(&tried)? {
                Reply::Error(_) => {}
                other => return Err(format!("{tried:?}: {other:?}")),
            }
        }
    }
    let allowed: &[(&[&str], Right)] = &[
        (&["SET", "a", "1"], Reply::is_ok),
        (&["GET", "a"], |reply| reply.text() == Some("1")),
        (&["EVAL", "return redis.call('INCR','a')", "0"], |reply| reply.integer() == Some(2)),
        (&["PUBLISH", "news", "x"], |reply| reply.integer() == Some(0)),
        (&["SUBSCRIBE", "news"], |reply| reply.array().is_some()),
        (&["CONFIG", "GET", "maxmemory"], |reply| reply.array().is_some()),
        (&["CLIENT", "LIST"], |reply| reply.text().is_some()),
        (&["CLIENT", "SETNAME", "app"], Reply::is_ok),
        (&["ACL", "WHOAMI"], |reply| reply.text() == Some("default")),
        (&["LATENCY", "RESET"], |reply| reply.integer().is_some()),
        (&["BGSAVE"], |reply| !matches!(reply, Reply::Error(_))),
        (&["FLUSHALL"], Reply::is_ok),
    ];
    for (command, right) in allowed {
        let reply = at_vip(command)?;
        if !right(&reply) {
            return Err(format!("{command:?}: {reply:?}"));
        }
    }
    let function = "#!lua name=l\nredis.register_function('f', function() return 7 end)";
    match at_vip(&["FUNCTION", "LOAD", function])? {
        Reply::Error(old) if old.contains("unknown command") => {}
        Reply::Error(why) => return Err(format!("FUNCTION LOAD: {why}")),
        _ => match at_vip(&["FCALL", "f", "0"])? {
            Reply::Integer(7) => {}
            other => return Err(format!("FCALL: {other:?}")),
        },
    }
    Ok(())
}

/// Somebody who may change users changes those of vigie: the supervisor brings its redis back, and says so.
fn changed_users(sandbox: &Sandbox) -> Outcome {
    let cluster = start(sandbox, layout(sandbox, Path::new("redis-server"))?)?;
    let status = cluster.status(DATA[0]).map_err(text)?;
    let master = status.master.and_then(|master| master.node).ok_or("no master")?;
    let replica = DATA.into_iter().find(|node| *node != master).ok_or("no replica")?;
    let mut slowest = Duration::ZERO;
    for change in [
        &["DELUSER", "vigie-local"][..],
        &["SETUSER", "vigie-local", "resetpass"],
        &["SETUSER", "vigie-local", "-info"],
    ] {
        let before = redis_of(&cluster, replica)?.pid;
        let command: Vec<_> = ["ACL"].iter().chain(change).copied().collect();
        // What was changed of a password is noticed at the next log-in.
        let out = vec!["CLIENT", "KILL", "USER", "vigie-local"];
        let changed = Instant::now();
        // Its connection may end with its redis.
        let _ = say(&cluster, address(&cluster, replica), &["admin", ADMIN], &[command, out]);
        let back = || {
            let now = redis_of(&cluster, replica)?.pid;
            if now == before {
                return Err("the same process".to_owned());
            }
            let password = cluster.layout().password.reveal();
            let replies = say(&cluster, address(&cluster, replica), &[password], &[vec!["ROLE"]])?;
            let role = replies.first().and_then(Reply::array).unwrap_or_default();
            match role.get(3).and_then(Reply::text) {
                Some("connected") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        let (took, ()) = wait_ok("redis is not back", changed, ANSWER_TIME, back)?;
        slowest = slowest.max(took);
        cluster.wait_healthy(START_TIME).map_err(text)?;
    }
    if slowest > BACK_TIME {
        return Err(format!("back only after {slowest:?}"));
    }
    let log = fs::read_to_string(cluster.lab().scratch().join(format!("{replica}.log"))).map_err(text)?;
    let said = log.lines().filter(|line| line.contains("since its users were changed")).count();
    if said != 3 {
        return Err(format!("said {said} times:\n{log}"));
    }
    note(format!("users of vigie changed by an operator: redis in sync again after at most {slowest:.1?}"));
    Ok(())
}

/// Every secret of the cluster, as it is and as it is used.
fn all_secrets(layout: &Layout) -> Vec<String> {
    let secret = layout.secret.clone().map(Secrets::from);
    let credentials = Credentials::new("mymaster", layout.password.clone().into(), secret);
    let purposes = [Purpose::Link, Purpose::Control, Purpose::Replication, Purpose::Check, Purpose::Sentinel];
    let own = purposes.map(|purpose| credentials.own(purpose));
    let reveal = |secret: &Secret| secret.reveal().to_owned();
    own.iter()
        .map(|own| reveal(own.current()))
        .chain([&layout.password].map(reveal))
        .chain(layout.secret.iter().map(reveal))
        .collect()
}

/// The files below a directory, whatever they are.
fn files(directory: &Path, found: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(directory).map_err(text)? {
        let entry = entry.map_err(text)?;
        let kind = entry.file_type().map_err(text)?;
        if kind.is_dir() {
            files(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// No secret is in a file, a log, an event, an argument or an environment; nor in a core, since none is written.
fn secrets(sandbox: &Sandbox) -> Outcome {
    let layout = layout(sandbox, Path::new("redis-server"))?;
    let secrets = all_secrets(&layout);
    let cluster = start(sandbox, layout)?;
    let mut looked = 0;
    look_for(&cluster, &secrets, &mut looked)?;
    // A failure that kills leaves no memory behind. One of somebody else does, or there is nothing to be seen here.
    let elsewhere = sandbox.scratch.join("elsewhere");
    fs::create_dir(&elsewhere).map_err(text)?;
    let died = Command::new("sh").args(["-c", "ulimit -c unlimited; kill -SEGV $$"]).current_dir(&elsewhere).status();
    died.map_err(text)?;
    let shown = if cores(&elsewhere)?.is_empty() { "cannot be seen here" } else { "one of somebody else is" };
    fs::remove_dir_all(&elsewhere).map_err(text)?;
    for node in [DATA[1], DATA[2]] {
        let redis = redis_of(&cluster, node)?;
        let worker = cluster.lab().processes(node).map_err(text)?;
        let worker = worker.iter().find(|process| process.pid == redis.parent).ok_or("no worker")?.pid;
        let doomed = if node == DATA[1] { redis.pid } else { worker };
        let directory = fs::read_link(format!("/proc/{doomed}/cwd")).map_err(text)?;
        let gone = || {
            // Again and again: what catches it once (a report, a look for the end of the stack) does not do so twice.
            signal(doomed, Signal::SIGSEGV).map_err(text)?;
            std::thread::sleep(Duration::from_millis(200));
            match redis_of(&cluster, node)?.pid {
                now if now == redis.pid => Err(format!("the same redis after SIGSEGV to {doomed}")),
                _ => Ok(()),
            }
        };
        wait_ok("it does not come back", Instant::now(), START_TIME, gone)?;
        cluster.wait_healthy(START_TIME).map_err(text)?;
        let written = cores(&directory)?;
        if !written.is_empty() {
            return Err(format!("cores: {written:?}"));
        }
    }
    look_for(&cluster, &secrets, &mut looked)?;
    note(format!(
        "{} secrets looked for in {looked} files, arguments and environments: none; no core written after SIGSEGV ({shown})",
        secrets.len()
    ));
    Ok(())
}

/// The cores in a directory.
fn cores(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory).map_err(text)?.filter_map(Result::ok);
    let core = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"));
    Ok(entries.filter(|entry| entry.path().is_file()).map(|entry| entry.path()).filter(core).collect())
}

fn look_for(cluster: &Cluster, secrets: &[String], looked: &mut usize) -> Outcome {
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    let mut found = Vec::new();
    let scratch = cluster.lab().scratch();
    files(scratch, &mut found)?;
    for file in found {
        // Where an operator keeps them.
        let kept = ["password", "secret"].iter().any(|name| file == scratch.join(name));
        // A file of redis may go while it is looked at.
        let bytes = fs::read(&file).unwrap_or_default();
        if !kept {
            places.push((file.display().to_string(), bytes));
        } else if !secrets.iter().any(|secret| holds(&bytes, secret)) {
            return Err(format!("{} holds no secret: this look sees nothing", file.display()));
        }
    }
    for node in cluster.names() {
        for process in cluster.lab().processes(node).map_err(text)? {
            for name in ["cmdline", "environ"] {
                let place = format!("/proc/{}/{name}", process.pid);
                let bytes = fs::read(&place).unwrap_or_default();
                places.push((place, bytes));
            }
        }
    }
    *looked += places.len();
    for (place, bytes) in places {
        for secret in secrets {
            if holds(&bytes, secret) {
                return Err(format!("{place} holds a secret ({}…)", &secret[..4]));
            }
        }
    }
    Ok(())
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// A node of the version before: redis ran as root, and its configuration lay in the state directory. With `$VIGIE_OLD_BIN` that
/// is a real one; without, what it left is made here.
fn upgrade(sandbox: &Sandbox) -> Outcome {
    let old = std::env::var_os("VIGIE_OLD_BIN").map(PathBuf::from);
    let (switch, version) = (sandbox.scratch.join("vigie"), sandbox.scratch.join("version"));
    let mut layout = Layout::classic();
    if old.is_some() {
        layout.secret = None;
    }
    let first = old.clone().unwrap_or_else(binary);
    fs::write(&version, first.as_os_str().as_bytes()).map_err(text)?;
    fs::write(&switch, format!("#!/bin/sh\nexec \"$(cat {})\" \"$@\"\n", version.display())).map_err(text)?;
    fs::set_permissions(&switch, fs::Permissions::from_mode(0o755)).map_err(text)?;
    let cluster = start_as(sandbox, layout, &switch)?;
    let password = cluster.layout().password.reveal();
    let vip = SocketAddr::new(cluster.layout().vip, 6379);
    let keys: Vec<String> = (0..500).map(|number| format!("key:{number}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| vec!["SET", key, key]).collect();
    say(&cluster, vip, &[password], &writes)?;
    let wait = say(&cluster, vip, &[password], &[vec!["SET", "last", "1"], vec!["WAIT", "2", "5000"]])?;
    if wait.get(1).and_then(Reply::integer) != Some(2) {
        return Err(format!("not on both replicas: {wait:?}"));
    }
    let names: Vec<_> = cluster.names().collect();
    cluster.kill_vigies(names.iter().copied()).map_err(text)?;
    for node in &names {
        cluster.wait_ended(node, START_TIME).map_err(text)?;
    }
    fs::write(&version, binary().as_os_str().as_bytes()).map_err(text)?;
    for node in DATA.iter().filter(|_| old.is_none()) {
        let state = cluster.state_dir(node);
        let done = Command::new("chown").args(["-R", "0:0"]).arg(&state).status().map_err(text)?;
        if !done.success() {
            return Err(format!("chown: {done}"));
        }
        let old = format!(
            "# Written by vigie at every start of redis; changes made here are lost.\nrequirepass {password}\n"
        );
        fs::write(state.join("redis.conf"), old).map_err(text)?;
    }
    for node in &names {
        cluster.start_node(node).map_err(text)?;
    }
    cluster.wait_healthy(START_TIME).map_err(text)?;
    let reads: Vec<_> = keys.iter().map(|key| vec!["GET", key]).collect();
    let read = say(&cluster, vip, &[password], &reads)?;
    let lost = read.iter().zip(&keys).filter(|(reply, key)| reply.text() != Some(key)).count();
    if lost > 0 || read.len() != keys.len() {
        return Err(format!("{lost} of {} keys are lost", keys.len()));
    }
    for node in DATA {
        let state = cluster.state_dir(node);
        if state.join("redis.conf").exists() {
            return Err(format!("{node} keeps its old redis.conf"));
        }
        let mut data = vec![state.join("redis")];
        files(&state.join("redis"), &mut data)?;
        if let Some(root) = data.iter().find(|path| path.metadata().is_ok_and(|about| about.uid() == 0)) {
            return Err(format!("{} still belongs to root", root.display()));
        }
    }
    let from = if old.is_some() { "the version before" } else { "redis as root" };
    note(format!("upgrade of three nodes from {from}: {} keys, 0 lost, all data handed over", keys.len()));
    Ok(())
}
