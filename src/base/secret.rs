//! The two secrets of a cluster, and what is derived from them.
//!
//! Applications know the password. The cluster's own secret is known to its nodes only: from it comes one key or password for
//! each purpose, so that what is seen in one place (a redis, a network) opens no other.

use std::fmt;
use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A password or key. Printed as `***` whatever the format.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The password itself, for the wire only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `given` is this one, in a time that does not tell how much of it is.
    pub fn is(&self, given: &[u8]) -> bool {
        // Hashes are compared: lengths tell nothing.
        same(&Sha256::digest(self.0.as_bytes()), &Sha256::digest(given))
    }

    /// SHA-256 of it in hexadecimal: how redis keeps the passwords of its users (`ACL SETUSER … #hash`).
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes()))
    }

    fn derive(&self, label: &str, cluster: &str) -> Self {
        let mut derivation =
            <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.as_bytes()).expect("HMAC takes keys of every length");
        derivation.update(label.as_bytes());
        derivation.update(b"\0");
        derivation.update(cluster.as_bytes());
        Self(hex(&derivation.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Compares in a time that does not depend on where the two differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A secret that can be changed while it is in use: the first is used towards others, both are accepted from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    current: Secret,
    other: Option<Secret>,
}

impl Secrets {
    /// The one that is used, and another one that is accepted while one of the two takes the other's place.
    pub fn new(current: Secret, other: Option<Secret>) -> Self {
        Self { current, other }
    }

    /// The one that is used towards others.
    pub fn current(&self) -> &Secret {
        &self.current
    }

    /// All that are accepted, the current one first.
    pub fn accepted(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current).chain(&self.other)
    }

    /// Whether `given` is one of them.
    pub fn accept(&self, given: &[u8]) -> bool {
        // Both are compared in any case: the time tells nothing.
        self.accepted().fold(false, |right, secret| right | secret.is(given))
    }

    fn each(&self, change: impl Fn(&Secret) -> Secret) -> Self {
        Self { current: change(&self.current), other: self.other.as_ref().map(change) }
    }
}

impl From<Secret> for Secrets {
    fn from(current: Secret) -> Self {
        Self { current, other: None }
    }
}

/// What a password or key is for. Each has its own, so that none opens what another protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The frames of the peer link.
    Link,
    /// What the sentinels do at a redis: user [`CONTROL_USER`] there.
    Control,
    /// A replica at its master: user [`REPLICA_USER`] there.
    Replication,
    /// The proof of a master by a proxy: user [`CHECK_USER`] there.
    Check,
    /// A node of the cluster, or a listed stock sentinel, at a sentinel: user [`CONTROL_USER`] there.
    Sentinel,
}

/// User of the sentinels at a redis, and of the nodes at a sentinel.
pub const CONTROL_USER: &str = "vigie";
/// User of a replica at its master.
pub const REPLICA_USER: &str = "vigie-replica";
/// User of a proxy that asks a redis for its role.
pub const CHECK_USER: &str = "vigie-check";
/// User of a supervisor at its own redis; its password is random at each start and leaves the host never.
pub const LOCAL_USER: &str = "vigie-local";

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Link => "vigie peer link 2",
            Self::Control => "vigie redis control 1",
            Self::Replication => "vigie redis replication 1",
            Self::Check => "vigie redis check 1",
            Self::Sentinel => "vigie sentinel 1",
        }
    }
}

/// Both secrets of a cluster, as its files have them now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    cluster: String,
    password: Secrets,
    secret: Secrets,
    derived: bool,
}

impl Credentials {
    /// Of the cluster of that name. Without a secret of its own it is derived from the password: whatever knows that may
    /// command the cluster then.
    pub fn new(cluster: &str, password: Secrets, secret: Option<Secrets>) -> Self {
        let derived = secret.is_none();
        let secret =
            secret.unwrap_or_else(|| password.each(|password| password.derive("vigie cluster secret 1", cluster)));
        Self { cluster: cluster.to_owned(), password, secret, derived }
    }

    /// What applications use.
    pub fn password(&self) -> &Secrets {
        &self.password
    }

    /// What the cluster itself uses for a purpose.
    pub fn own(&self, purpose: Purpose) -> Secrets {
        self.secret.each(|secret| secret.derive(purpose.label(), &self.cluster))
    }

    /// Whether there is no secret but the password.
    pub fn are_derived(&self) -> bool {
        self.derived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let credentials = Credentials::new("a", Secret::new("hush").into(), Some(Secret::new("hush").into()));
        assert!(!format!("{credentials:?} {:?}", Secret::new("hush")).contains("hush"));
    }

    #[test]
    fn both_of_two_are_accepted_and_nothing_else() {
        let both = Secrets::new(Secret::new("new"), Some(Secret::new("old")));
        assert_eq!(both.current().reveal(), "new");
        assert!(both.accept(b"new") && both.accept(b"old"));
        for wrong in ["", "ne", "news", "OLD"] {
            assert!(!both.accept(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn each_purpose_and_each_cluster_has_its_own() {
        let all = [Purpose::Link, Purpose::Control, Purpose::Replication, Purpose::Check, Purpose::Sentinel];
        let of = |cluster: &str, secret: &str| {
            let secret = Some(Secret::new(secret).into());
            let credentials = Credentials::new(cluster, Secret::new("password").into(), secret);
            all.map(|purpose| credentials.own(purpose).current().reveal().to_owned())
        };
        let mut seen: Vec<_> = [of("a", "x"), of("b", "x"), of("a", "y")].concat();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 15);
        assert_eq!(of("a", "x"), of("a", "x"));
    }

    #[test]
    fn without_a_secret_both_passwords_lead_to_one_each() {
        let passwords = Secrets::new(Secret::new("new"), Some(Secret::new("old")));
        let changing = Credentials::new("a", passwords, None);
        let before = Credentials::new("a", Secret::new("old").into(), None);
        assert!(changing.are_derived());
        let old = before.own(Purpose::Link);
        assert!(changing.own(Purpose::Link).accept(old.current().reveal().as_bytes()));
    }

    #[test]
    fn hashes_are_those_of_redis() {
        let known = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
        assert_eq!(Secret::new("password").sha256(), known);
    }
}
