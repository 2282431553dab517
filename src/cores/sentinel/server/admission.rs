//! Who may do what: one decision for every command, before anything is done.

use bytes::Bytes;

use crate::base::Instant;
use crate::base::secret::CONTROL_USER;
use crate::cores::sentinel::ClientId;
use crate::cores::sentinel::sabotage::Rule;
use crate::cores::sentinel::view::View;

use super::access::{Access, permitted};
use super::acl::Denied;
use super::state::Server;
use super::table::{self, Spec};

/// What a description of all commands counts for.
const LINES_OF_THE_TABLE: usize = 200;

impl Server {
    /// Whether a client may change state.
    fn trusted(&self, client: ClientId) -> bool {
        let Some(client) = self.clients.get(client) else { return false };
        match &self.access {
            Access::Cluster(logins) => logins.is_none() || client.authenticated,
            // Its rules were looked at before the command began.
            Access::Acl(_) => true,
        }
    }

    /// Whether a client is the cluster itself: a node of it, or a stock sentinel that knows what the file lists it for.
    fn is_own(&self, client: ClientId) -> bool {
        let Some(client) = self.clients.get(client) else { return false };
        match &self.access {
            Access::Cluster(None) => true,
            Access::Cluster(Some(_)) => client.authenticated && client.user == CONTROL_USER,
            // Its rules were looked at before the command began.
            Access::Acl(_) => true,
        }
    }

    /// The command these words call, if the client may give it now; else the error.
    pub(super) fn admit(
        &mut self,
        view: View<'_>,
        client: ClientId,
        args: &[Bytes],
        now: Instant,
    ) -> Result<&'static Spec, String> {
        let spec = table::resolve(args)?;
        let Some(session) = self.clients.get_mut(client) else { return Err("ERR the client is gone".to_owned()) };
        session.last = spec.name;
        let (confined, authenticated) = (session.is_confined(), session.authenticated);
        let session = &*session;
        match &self.access {
            Access::Cluster(_) => {
                if spec.changes(args) && !self.trusted(client) {
                    return Err("NOAUTH Authentication required.".to_owned());
                }
                if spec.commands_the_cluster(args) && !self.is_own(client) && view.holds(Rule::OwnVoices) {
                    return Err(format!(
                        "NOPERM only the user {CONTROL_USER} of the cluster itself may run the '{}' command",
                        spec.name
                    ));
                }
            }
            Access::Acl(acl) => {
                if !authenticated && !acl.is_open() && !spec.needs_no_auth() {
                    return Err("NOAUTH Authentication required.".to_owned());
                }
                if let Err(denied) = permitted(acl, &session.user, spec, args) {
                    return Err(self.deny(client, spec, denied, now));
                }
            }
        }
        let any_time = ["ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "quit", "reset"];
        if confined && !any_time.contains(&spec.name) {
            return Err(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
                 context",
                spec.name
            ));
        }
        let lines = match spec.name {
            "client|list" | "client|kill" => self.clients.len(),
            "info" => 10 + self.clients.len() / 10,
            "command" | "command|info" | "command|docs" | "command|list" => LINES_OF_THE_TABLE,
            _ => 0,
        };
        if lines > 0 && !self.effort.affords(lines, now) {
            return Err(format!("ERR too many long answers in one second: try '{}' again later", spec.name));
        }
        Ok(spec)
    }

    fn deny(&mut self, client: ClientId, spec: &Spec, denied: Denied, now: Instant) -> String {
        let (reason, object, text) = match denied {
            Denied::Command => (
                "command",
                spec.name.to_owned(),
                format!("NOPERM this user has no permissions to run the '{}' command", spec.name),
            ),
            Denied::Channel(channel) => (
                "channel",
                channel,
                "NOPERM this user has no permissions to access one of the channels used as arguments".to_owned(),
            ),
        };
        let user = self.clients.get(client).map_or(String::new(), |session| session.user.clone());
        self.refuse(client, reason, object, user, now);
        text
    }
}
