//! What decides whether a client may do something.

use bytes::Bytes;

use crate::base::secret::CONTROL_USER;
use crate::cores::sentinel::Logins;

use super::acl::{self, Acl, Channels, Denied};
use super::reply::words;
use super::table::Spec;

/// What decides whether a client may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody may read. What changes something needs a login, wherever it comes from: an address is nobody's word. None:
    /// everybody may do everything.
    Cluster(Option<Logins>),
    /// As redis-sentinel: users and their rules.
    Acl(Acl),
}

impl Access {
    /// Whether a client is, at its start, who it says without saying anything.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Cluster(_) => false,
            Self::Acl(acl) => acl.is_open(),
        }
    }

    /// Whether anybody may come in from anywhere.
    pub(super) fn is_unprotected(&self) -> bool {
        match self {
            Self::Cluster(_) => false,
            Self::Acl(acl) => acl.is_unprotected(),
        }
    }

    /// Whether that is who the client says it is.
    pub(super) fn is_right(&self, user: &str, password: &[u8]) -> bool {
        match self {
            Self::Cluster(None) => user == acl::DEFAULT,
            Self::Cluster(Some(logins)) => match user {
                acl::DEFAULT => logins.applications.accept(password),
                CONTROL_USER => logins.cluster.accept(password),
                _ => false,
            },
            Self::Acl(acl) => acl.authenticates(user, password),
        }
    }

    /// Whether there is such a user.
    pub(super) fn knows(&self, user: &str) -> bool {
        match self {
            Self::Cluster(_) => [acl::DEFAULT, CONTROL_USER].contains(&user),
            Self::Acl(acl) => acl.user(user).is_some(),
        }
    }

    /// Refusals that are remembered.
    pub(super) fn log_max(&self) -> usize {
        match self {
            Self::Cluster(_) => 0,
            Self::Acl(acl) => acl.log_max,
        }
    }
}

/// Whether a user may give that command; one that is gone may do nothing.
pub(super) fn permitted(acl: &Acl, user: &str, spec: &Spec, args: &[Bytes]) -> Result<(), Denied> {
    let args = words(args);
    let names = match spec.name {
        "subscribe" | "psubscribe" => &args[1..],
        "publish" => &args[1..2],
        _ => &[],
    };
    let channels = Channels { names, patterns: spec.name == "psubscribe" };
    acl.user(user).map_or(Err(Denied::Command), |user| user.may(spec, &args, &channels))
}
