//! The node as a service: what the service manager hears of it, and what a reload takes over.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::control::{self, Node as _};
use super::journal::{Journal, Level};
use super::orders::ThisNode;
use super::setup::Spec;
use super::status::Status;
use super::{clock, notify, vip};
use crate::base::Credentials;
use crate::config::file;
use crate::cores::cluster::View;

/// Everything that a self-check asks answers within this time, or hangs.
const SELF_CHECK_TIME: Duration = Duration::from_secs(2);
/// A view is published each second. One that is older says that the link is stuck.
const VIEW_AGE_MAX: Duration = Duration::from_millis(1_500);
/// The line for people is not written more often.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Tells the service manager that the node is ready, what it is, and that its control plane turns.
pub(super) async fn keep_notified(node: ThisNode, mut view: watch::Receiver<Arc<View>>, vrrp: Option<vip::Pulse>) {
    notify::ready();
    let mut said = String::new();
    // The pause below is not longer: no two pets are further apart than the interval.
    let pet = notify::watchdog_interval().map(|interval| interval / 2);
    let every = pet.unwrap_or(STATUS_EVERY);
    let mut due = tokio::time::Instant::now();
    loop {
        let status = status_line(&node.status());
        if status != said {
            notify::status(&status);
            said = status;
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(due) => {}
        }
        if due <= tokio::time::Instant::now() {
            if pet.is_some() {
                match tokio::time::timeout(SELF_CHECK_TIME, self_check(&node, vrrp.as_ref())).await {
                    Ok(Ok(())) => notify::watchdog(),
                    Ok(Err(what)) => tracing::error!("self-check: {what}"),
                    Err(_) => tracing::error!("self-check: no answer within {SELF_CHECK_TIME:?}"),
                }
            }
            due = tokio::time::Instant::now() + every;
        }
        // Views change with every offset: once in a while is enough for a line that people read.
        tokio::time::sleep(every.min(STATUS_EVERY)).await;
    }
}

/// Whether everything answers that this node stands on. Must not be called without a limit: what hangs does not return.
async fn self_check(node: &ThisNode, vrrp: Option<&vip::Pulse>) -> Result<(), String> {
    if let Some(vrrp) = vrrp
        && !vrrp.beats().await
    {
        return Err("the thread of VRRP has ended".to_owned());
    }
    let now = clock::now();
    let turns = |view: &Arc<View>| now.since(view.at) <= VIEW_AGE_MAX;
    node.view.clone().wait_for(turns).await.map_err(|_| "the thread of the peer link has ended".to_owned())?;
    control::ask_status(&node.spec.runtime_dir).await.map_err(|error| format!("the control socket: {error}"))
}

fn status_line(status: &Status) -> String {
    let bad = status.nodes.iter().filter(|node| node.health != "good").map(|node| node.name.as_str());
    let bad = bad.collect::<Vec<_>>().join(", ");
    let master = status.master.as_ref().map_or_else(
        || "no master yet".to_owned(),
        |master| format!("master {}", master.node.as_deref().unwrap_or(&master.address)),
    );
    if bad.is_empty() { format!("{master}; all nodes are well") } else { format!("{master}; not well: {bad}") }
}

/// SIGHUP: reads the file again and says what it finds. Password and secret are taken over at once, so that they can be
/// changed while the cluster runs; anything else that has changed takes effect at the next start only, as a whole.
pub(super) async fn reload_on_hangup(spec: Spec, renew: watch::Sender<Arc<Credentials>>, journal: Journal) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        notify::reloading();
        match file::load(&spec.config_path) {
            Ok((mut config, _)) => {
                let credentials =
                    std::mem::replace(&mut config.cluster.credentials, spec.config.cluster.credentials.clone());
                let renewed = **renew.borrow() != credentials;
                if renewed {
                    renew.send_replace(Arc::new(credentials));
                    let text = "password and secret were read again and are in use";
                    journal.record("worker", Level::Info, "credentials-renewed", text);
                }
                if config != spec.config {
                    let text = "the file is valid and differs from what runs: it takes effect when vigie is restarted";
                    journal.record("worker", Level::Warn, "config-changed", text);
                } else if !renewed {
                    journal.record("worker", Level::Info, "config-unchanged", "the file says what runs already");
                }
            }
            Err(faults) => journal.record("worker", Level::Error, "config-invalid", faults.to_string()),
        }
        notify::ready();
    }
}
