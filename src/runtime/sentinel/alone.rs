//! A Sentinel without a cluster file: what `sentinel.conf` says is all it knows, and all it remembers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::bind::{self, ListenError};
use super::file::{self, SaveError};
use super::server::Admission;
use super::teller::Teller;
use super::{Door, Keep, Port};
use crate::config::sentinel::{Document, Process};
use crate::cores::cluster::View;
use crate::cores::sentinel::{Acl, Config, Membership, Sentinel, State};
use crate::runtime::clock;
use crate::runtime::journal::Journal;
use crate::runtime::random;

/// All that was read.
#[derive(Debug)]
pub struct Alone {
    /// How the process is to be.
    pub process: Process,
    /// Where the state is saved.
    pub document: Document,
    /// What is known at the start.
    pub state: State,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// It cannot be reached.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its state cannot be saved. Without that it could vote twice in an epoch.
    #[error("WARNING: Sentinel was not able to save the new configuration on disk!!!: {0}. Exiting...")]
    Save(#[from] SaveError),
    /// The users of its file cannot be read.
    #[error("{path}: {fault}", path = path.display())]
    Users {
        /// The configuration file, or the ACL file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The system gave it no socket, or no random number.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Runs until `stop` is true. `ready` is called when it listens and has saved its id. One that cannot have its port
/// does not touch the file.
pub async fn run_alone(
    alone: Alone,
    ready: impl FnOnce(),
    journal: Journal,
    stop: watch::Receiver<bool>,
) -> Result<(), AloneError> {
    let Alone { process, document, mut state } = alone;
    let door = door(&process, &document, &state)?;
    let listeners: Vec<TcpListener> =
        bind::listen(&process)?.into_iter().map(TcpListener::from_std).collect::<Result<_, _>>()?;
    tracing::info!("Running mode=sentinel, port={}.", process.port);
    let id = match state.id {
        Some(id) => id,
        None => super::random_id()?,
    };
    state.id = Some(id);
    let document = Arc::new(document);
    let (saving, first) = (document.clone(), state.clone());
    let saved = spawn_blocking(move || file::save(&saving, &first)).await;
    saved.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    tracing::warn!("Sentinel ID is {id}");
    let config = Config {
        membership: Membership::Discovered { port: process.port },
        masters: Vec::new(),
        settings: state.settings.clone(),
        logins: None,
        seed: random::number()?,
    };
    let machine = Sentinel::alone(&config, state, id, clock::now());
    ready();
    // Nobody speaks over a peer link, and nobody orders but by commands.
    let (_, view) = watch::channel(Arc::new(View { at: clock::now(), me: 0, nodes: Vec::new() }));
    let (_, orders) = mpsc::channel(1);
    let (post, _) = mpsc::channel(1);
    let teller = Teller::new(process.port, door.config_file.as_deref(), door.acl_file.clone());
    let machine = super::let_in(machine, door);
    let seconds = |time: u32| (time > 0).then(|| Duration::from_secs(time.into()));
    let machine = machine.with_idle_limit(seconds(process.timeout));
    let wanted = usize::try_from(process.max_clients).unwrap_or(usize::MAX);
    let admission = Admission::alone(wanted, seconds(process.keepalive), &journal);
    let port = Port { listeners, admission, teller };
    super::operate(machine, port, Keep::File(document), (view, orders, post), None, journal, stop).await;
    Ok(())
}

/// Most refusals that are remembered, whatever the file says: each takes about half a KiB.
const ACL_LOG_MAX: usize = 10_000;

/// Who is let in: the users of the ACL file, if there is one, else those of the configuration file.
fn door(process: &Process, document: &Document, state: &State) -> Result<Door, AloneError> {
    let log_max = usize::try_from(process.acl_log_max).unwrap_or(usize::MAX).min(ACL_LOG_MAX);
    let mut empty = Acl::empty().with_all_channels(process.all_channels);
    empty.log_max = log_max;
    let (path, acl) = match &process.acl_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let acl = text.map_err(|error| error.to_string());
            (path.as_path(), acl.and_then(|text| empty.with_file_text(&text).map_err(|error| error.to_string())))
        }
        None => {
            let settings = &state.settings;
            let acl = empty.with_lines(&settings.users, settings.require_pass.as_ref());
            (document.path(), acl.map_err(|error| format!("of its 'user' lines, {error}")))
        }
    };
    Ok(Door {
        acl: Some(acl.map_err(|fault| AloneError::Users { path: path.to_owned(), fault })?),
        acl_file: process.acl_file.clone(),
        protected: process.protected_mode,
        config_file: Some(document.path().to_owned()),
    })
}
