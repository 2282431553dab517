use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::config::sentinel::{Host, ThisHost};

/// Far more than a script of a few commands takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory with scripts, and who runs them.
struct Stage {
    directory: tempfile::TempDir,
    runner: Runner<Report>,
    reports: mpsc::Receiver<Report>,
}

impl Stage {
    fn new() -> Self {
        let (sender, reports) = mpsc::channel(64);
        Self { directory: tempfile::tempdir().unwrap(), runner: Runner::new(sender), reports }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a script of the shell; its path.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        // Written by another process: a fork of another test would hold a file open that this one writes, and a file that
        // is open for writing cannot be executed.
        let write = ["-c", "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 755 \"$0\"", &path, text];
        assert!(std::process::Command::new("sh").args(write).status().unwrap().success());
        path
    }

    fn start(&mut self, id: u64, argv: &[&str]) {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        self.runner.request(Request::Start { id: ScriptId(id), argv });
    }

    async fn next(&mut self) -> Report {
        timeout(LIMIT, self.reports.recv()).await.expect("a report in time").expect("the runner lives")
    }

    /// Runs one script to its end.
    async fn exit(&mut self, argv: &[&str]) -> Exit {
        self.start(1, argv);
        loop {
            if let Report::Ended(_, exit) = self.next().await {
                return exit;
            }
        }
    }
}

#[tokio::test]
async fn a_script_gets_its_arguments_and_its_exit_is_told() {
    let mut stage = Stage::new();
    let out = stage.path("out");
    let script = stage.script("tell", "echo \"$0 $1 $2 $#\" > \"$3\"; exit 7");
    stage.start(4, &[&script, "+sdown", "master m 10.0.0.1 6379", &out]);
    assert!(matches!(stage.next().await, Report::Started(ScriptId(4), 1..)));
    assert_eq!(stage.next().await, Report::Ended(ScriptId(4), Exit::Code(7)));
    assert_eq!(fs::read_to_string(out).unwrap(), format!("{script} +sdown master m 10.0.0.1 6379 3\n"));
}

#[tokio::test]
async fn what_cannot_be_executed_ends_as_two_and_is_refused_beforehand() {
    let mut stage = Stage::new();
    let plain = stage.path("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    let directory = stage.directory.path().to_str().unwrap().to_owned();
    for wrong in [stage.path("none"), plain, directory] {
        assert!(!ThisHost.is_executable(Path::new(&wrong)), "{wrong}");
        assert_eq!(stage.exit(&[&wrong]).await, Exit::Code(2), "{wrong}");
    }
    assert_eq!(stage.exit(&["no-such-script-here"]).await, Exit::Code(2));
    assert!(ThisHost.is_executable(Path::new(&stage.script("fine", "exit 0"))));
}

#[tokio::test]
async fn a_signal_is_told_as_one() {
    let mut stage = Stage::new();
    let script = stage.script("dies", "kill -TERM $$");
    assert_eq!(stage.exit(&[&script]).await, Exit::Signal(15));
}

#[tokio::test]
async fn a_kill_reaches_what_the_script_has_started_and_others_go_on_meanwhile() {
    let mut stage = Stage::new();
    let (out, held) = (stage.path("out"), stage.path("held"));
    assert!(std::process::Command::new("mkfifo").arg(&held).status().unwrap().success());
    // The child of the script holds the pipe open for writing, until it is killed, and says so when it has opened it.
    let script = stage.script("hangs", "(trap '' TERM HUP; echo > \"$2\"; exec sleep 1000) > \"$1\" &\nwait");
    stage.start(1, &[&script, &held, &out]);
    let reader = spawn_blocking(move || fs::read(held));
    assert!(matches!(stage.next().await, Report::Started(ScriptId(1), _)));
    let quick = stage.script("quick", "exit 0");
    stage.start(2, &[&quick]);
    assert!(matches!(stage.next().await, Report::Started(ScriptId(2), _)));
    assert_eq!(stage.next().await, Report::Ended(ScriptId(2), Exit::Code(0)));
    let began = async {
        while !Path::new(&out).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    timeout(LIMIT, began).await.expect("the script has started its child");
    stage.runner.request(Request::Kill(ScriptId(1)));
    assert_eq!(stage.next().await, Report::Ended(ScriptId(1), Exit::Signal(9)));
    // The pipe ends only when the child of the script is gone too.
    timeout(LIMIT, reader).await.expect("the child is killed").unwrap().unwrap();
    stage.runner.request(Request::Kill(ScriptId(1)));
    assert_eq!(stage.exit(&[&quick]).await, Exit::Code(0));
}

/// Each descriptor of a script but its own file, as `/proc` names what is behind it.
fn behind(listing: &str, script: &str) -> Vec<String> {
    listing.lines().filter(|line| *line != script && line.contains([':', '/'])).map(str::to_owned).collect()
}

#[tokio::test]
async fn no_descriptor_signal_mask_or_mark_of_a_worker_leaks_into_a_script() {
    let mut stage = Stage::new();
    let out = stage.path("out");
    let script = stage.script(
        "looks",
        "{ for fd in /proc/self/fd/*; do readlink \"$fd\"; done; grep -E 'Sig(Blk|Ign)' /proc/self/status; env; pwd; } > \"$1\" 2>&1",
    );
    // What the test itself was started with, its output among it, is passed on.
    let inherited = inherited();
    // Of every kind that vigie opens.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let local = tokio::net::UnixListener::bind(stage.path("socket")).unwrap();
    let file = fs::File::create(stage.path("file")).unwrap();
    let pipe = io::pipe().unwrap();
    let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    let own = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let own: BTreeSet<_> = own.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(own.contains(Path::new(&stage.path("file"))));
    assert_eq!(stage.exit(&[&script, &out]).await, Exit::Code(0));
    drop((listener, stream, local, file, pipe, raw));
    let said = fs::read_to_string(&out).unwrap();
    assert!(said.contains("SigBlk:\t0000000000000000"), "{said}");
    assert!(said.contains(std::env::current_dir().unwrap().to_str().unwrap()), "{said}");
    assert!(said.contains("PATH=") && !said.contains("VIGIE_WORKER"), "{said}");
    let ignored = said.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let broken_pipe = 1 << (Signal::SIGPIPE as u32 - 1);
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & broken_pipe, 0, "{said}");
    let listing = said.split("SigBlk").next().unwrap();
    let behind = behind(listing, &script);
    assert!(behind.contains(&"/dev/null".to_owned()), "its input: {said}");
    for link in behind.iter().filter(|link| **link != out && *link != "/dev/null") {
        assert!(!own.contains(Path::new(link)) || inherited.contains(&PathBuf::from(link)), "{link} leaked: {said}");
    }
}

/// What the descriptors without close-on-exec lead to.
fn inherited() -> Vec<PathBuf> {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let kept = all.filter(|entry| {
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default().trim().to_owned();
        u32::from_str_radix(&flags, 8).is_ok_and(|flags| flags & 0o2_000_000 == 0)
    });
    kept.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// The queue of the core and the processes, together, as the sentinel drives them.
#[tokio::test]
async fn queue_and_processes_together_retry_kill_and_give_up() {
    use crate::cores::sentinel::Timers;
    use crate::cores::sentinel::scripts::Scripts;
    use crate::runtime::clock;

    let mut stage = Stage::new();
    let count = stage.path("count");
    let again = stage.script("again", "echo >> \"$1\"; [ $(wc -l < \"$1\") -ge 3 ] || exit 1");
    let hangs = stage.script("hangs", "exec sleep 1000");
    let timers = Timers {
        script_max_runtime: Duration::from_millis(500),
        script_retry_delay: Duration::from_millis(10),
        ..Timers::default()
    };
    let mut queue = Scripts::default();
    queue.schedule(vec![again.clone(), count.clone()]);
    queue.schedule(vec![hangs.clone()]);
    let mut said: Vec<String> = vec![];
    let deadline = clock::now() + LIMIT;
    // One that hangs is tried again too, ten times: two of them are enough to see.
    while said.iter().filter(|line| line.starts_with("-script-timeout")).count() < 2 {
        assert!(clock::now() < deadline, "{said:#?}");
        let (mut requests, mut events) = (vec![], vec![]);
        let wake = queue.turn(clock::now(), &timers, &mut requests, &mut events);
        requests.into_iter().for_each(|request| stage.runner.request(request));
        said.extend(events.into_iter().map(|event| format!("{} {}", event.name, event.payload)));
        tokio::select! {
            report = stage.reports.recv() => queue.report(report.expect("the runner lives"), clock::now()),
            () = clock::sleep_until(wake) => {}
        }
    }
    assert_eq!(fs::read_to_string(count).unwrap().lines().count(), 3, "{said:#?}");
    assert!(said.iter().any(|line| line.starts_with("-script-child") && line.ends_with(" 0 9")), "{said:#?}");
    assert!(!said.iter().any(|line| line.starts_with("-script-error")), "{said:#?}");
    assert_eq!(queue.queue_length(), 1, "what works in the end is gone: {said:#?}");
}
