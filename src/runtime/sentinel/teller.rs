//! Facts that only the process can tell, for commands of clients that ask for them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::task::spawn_blocking;

use super::server::Totals;
use crate::cores::sentinel::{Fact, Question, Usage};
use crate::runtime::replace::{Rights, replace};
use crate::runtime::{clock, random};

/// Largest ACL file, bytes.
const ACL_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Tells them.
pub(super) struct Teller {
    /// What does not change.
    fixed: Usage,
    acl_file: Option<PathBuf>,
}

impl Teller {
    pub(super) fn new(port: u16, config_file: Option<&Path>, acl_file: Option<PathBuf>) -> Self {
        let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let (name, release) = (line("/proc/sys/kernel/ostype"), line("/proc/sys/kernel/osrelease"));
        let fixed = Usage {
            os: format!("{name} {release} {}", std::env::consts::ARCH),
            pid: std::process::id(),
            executable: std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default(),
            config_file: config_file.map(|path| path.display().to_string()).unwrap_or_default(),
            port,
            ..Usage::default()
        };
        Self { fixed, acl_file }
    }

    pub(super) async fn tell(&self, question: Question, totals: &Totals) -> Fact {
        match question {
            Question::Usage => Fact::Usage(Box::new(self.usage(totals))),
            Question::Random(count) => Fact::Random(random_bytes(count).unwrap_or_default()),
            Question::LoadUsers => Fact::Users(self.with_file(load).await),
            Question::SaveUsers(text) => Fact::Saved(self.with_file(move |path| save(path, &text)).await),
        }
    }

    fn usage(&self, totals: &Totals) -> Usage {
        let of = |who| {
            let time = |time: nix::sys::time::TimeVal| {
                Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
            };
            getrusage(who).map(|usage| (time(usage.system_time()), time(usage.user_time()))).unwrap_or_default()
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            wall: clock::wall(),
            cpu: of(UsageWho::RUSAGE_SELF),
            cpu_children: of(UsageWho::RUSAGE_CHILDREN),
            cpu_thread: of(UsageWho::RUSAGE_THREAD),
            clients_max: count(&totals.clients_max),
            connections: count(&totals.connections),
            rejected: count(&totals.rejected),
            bytes_in: count(&totals.bytes_in),
            bytes_out: count(&totals.bytes_out),
            ..self.fixed.clone()
        }
    }

    async fn with_file<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let Some(path) = self.acl_file.clone() else { return Err("no ACL file is configured".to_owned()) };
        let done = spawn_blocking(move || act(&path).map_err(|error| format!("{}: {error}", path.display()))).await;
        // A panic of the blocking task can only be one of `act`, and is passed on.
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

fn random_bytes(count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    random::fill(&mut bytes)?;
    Ok(bytes)
}

fn load(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(ACL_FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > ACL_FILE_MAX {
        return Err(io::Error::other(format!("more than {ACL_FILE_MAX} bytes")));
    }
    Ok(text)
}

/// The old file stays whole until the new one is on disk. It holds hashes of passwords: others may not read it.
fn save(path: &Path, text: &str) -> io::Result<()> {
    let replaced = replace(path, text.as_bytes(), Rights::Mode(0o600));
    replaced.map_err(|error| io::Error::new(error.source.kind(), error.to_string()))
}
