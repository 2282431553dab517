//! The users of the supervised redis, and what each may do there.
//!
//! Applications are the user `default`: everything but what changes the topology, stops the server or changes what vigie set.
//! The cluster's own users may do what they are for and see no key. An operator adds others by a file of `redis.include`.
//!
//! A fence is worth what its users may do. Of those who come over the network, none may open one: it takes `CONFIG SET`, or the rights
//! to give oneself that. Only `vigie-local` has it, whose password is of one start and in no file. `default` may not point a master
//! elsewhere either, which would have it take the data of somebody who is behind it. `vigie`, the user of sentinels, may, because it is
//! they who point replicas at their master and step a stale one down: but whoever promotes a redis that rests closed has a master
//! that refuses writes. All of this holds with and without a fence, for a running redis may come to be fenced.
//! GAP(§5): an operator's own user with `+@all` may open a fence by hand. Its rights are not cut, for it is there to do what `default` may
//! not, and whoever defines it can change the cluster file as well; `config/vigie.toml` says what it must not be let to do.

use std::fmt::Write;
use std::io;

use super::server::Version;
use crate::base::secret::{CHECK_USER, CONTROL_USER, LOCAL_USER, REPLICA_USER, hex};
use crate::base::{Credentials, Purpose, Secret, Secrets};
use crate::runtime::random;

/// The user of those who log in with a password alone.
const DEFAULT_USER: &str = "default";

/// Everything that applications use; `SCRIPT DEBUG SYNC` and `CLIENT PAUSE` would stop the server for all others.
const APPLICATIONS: &str = "~* &* +@all -replicaof -slaveof -failover -psync -sync -replconf -shutdown -debug \
     -module +module|list -acl +acl|whoami +acl|cat +acl|genpass -config +config|get +config|resetstat";
const WITHOUT_SUBCOMMANDS: &str = "-client|pause -client|unpause -script|debug";
/// Redis 6.2 can allow a subcommand and forbid none: all others of it.
const WITH_SUBCOMMANDS: &str = "-client +client|caching +client|getname +client|getredir +client|id +client|info \
     +client|kill +client|list +client|reply +client|setname +client|tracking +client|trackinginfo +client|unblock \
     -script +script|exists +script|flush +script|kill +script|load";
/// What a sentinel does, one of vigie or of redis: look, greet, promote, point replicas, hold writes.
const CONTROL: &str = "resetchannels &__sentinel__:hello -@all +ping +info +role +replicaof +slaveof +multi +exec \
     +publish +subscribe +client|setname +client|kill +client|pause +client|unpause +script|kill +config|rewrite";
const REPLICATION: &str = "resetchannels -@all +ping +psync +sync +replconf";
const CHECK: &str = "resetchannels -@all +ping +role";
/// What the supervisor itself does, its fence included.
pub const LOCAL_RIGHTS: &str = "resetchannels -@all +ping +info +replicaof +multi +exec +client|setname +client|kill \
     +client|unpause +config|set +acl|setuser";

/// Names that only vigie defines.
pub(super) const OWN: [&str; 5] = [DEFAULT_USER, CONTROL_USER, REPLICA_USER, CHECK_USER, LOCAL_USER];

/// Random, for the supervisor's own connection to one process: 256 bits.
pub(super) fn password() -> io::Result<Secret> {
    Ok(Secret::new(hex(&random::bytes::<32>()?)))
}

/// The lines of the configuration that define all of them.
pub(super) fn lines(credentials: &Credentials, local: &Secret, version: Version) -> String {
    let subcommands = if version.denies_subcommands() { WITHOUT_SUBCOMMANDS } else { WITH_SUBCOMMANDS };
    let applications = format!("{APPLICATIONS} {subcommands}");
    let rules = [applications.as_str(), CONTROL, REPLICATION, CHECK];
    let shared = shared(credentials);
    let shared = shared.iter().zip(rules).map(|((name, secrets), rules)| (*name, hashes(secrets), rules));
    let own = (LOCAL_USER, hashes(&local.clone().into()), LOCAL_RIGHTS);
    let mut text = String::new();
    for (name, hashes, rules) in shared.chain([own]) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "user {name} on {} {rules}", hashes.join(" "));
    }
    text
}

/// The commands that make a running redis take the secrets of `credentials`, and no others. Connections stay.
pub(super) fn changes(credentials: &Credentials) -> Vec<Vec<String>> {
    let users = shared(credentials).into_iter().map(|(name, secrets)| {
        let head = ["ACL", "SETUSER", name, "resetpass"].map(str::to_owned);
        head.into_iter().chain(hashes(&secrets)).collect()
    });
    let replication = replication(credentials);
    let masterauth = ["CONFIG", "SET", "masterauth", replication.reveal()].map(str::to_owned).to_vec();
    users.chain([masterauth]).collect()
}

/// What a replica shows its master.
pub(super) fn replication(credentials: &Credentials) -> Secret {
    credentials.own(Purpose::Replication).current().clone()
}

/// Those whose passwords come from the cluster's secrets, in the order of their rules.
fn shared(credentials: &Credentials) -> [(&'static str, Secrets); 4] {
    [
        (DEFAULT_USER, credentials.password().clone()),
        (CONTROL_USER, credentials.own(Purpose::Control)),
        (REPLICA_USER, credentials.own(Purpose::Replication)),
        (CHECK_USER, credentials.own(Purpose::Check)),
    ]
}

/// Redis keeps no more than that of a password, and neither does its configuration.
fn hashes(secrets: &Secrets) -> Vec<String> {
    secrets.accepted().map(|secret| format!("#{}", secret.sha256())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let password = Secrets::new(Secret::new("new-password"), Some(Secret::new("old-password")));
        Credentials::new("mymaster", password, Some(Secret::new("the-secret").into()))
    }

    #[test]
    fn every_user_is_defined_once_and_no_password_is_written() {
        for version in ["6.2.14", "7.0.15", "9.0.1"] {
            let text = lines(&credentials(), &Secret::new("of this start"), version.parse().unwrap());
            let names: Vec<_> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
            assert_eq!(names, OWN);
            let default = text.lines().next().unwrap_or_default();
            for password in ["new-password", "old-password"] {
                assert!(default.contains(&format!("#{}", Secret::new(password).sha256())), "{default}");
                assert!(!text.contains(password) && !text.contains('>'), "{text}");
            }
            assert_eq!(default.contains("-client|pause"), version != "6.2.14");
        }
    }

    #[test]
    fn a_change_leaves_the_rights_and_the_users_of_this_start_alone() {
        let changes = changes(&credentials());
        let heads: Vec<_> = changes.iter().map(|words| words[..3].join(" ")).collect();
        let expected = ["default", "vigie", "vigie-replica", "vigie-check"].map(|name| format!("ACL SETUSER {name}"));
        assert_eq!(heads[..4], expected);
        assert_eq!(heads[4], "CONFIG SET masterauth");
        assert!(changes[..4].iter().all(|words| words[3] == "resetpass" && words[4].starts_with('#')));
        assert_eq!(changes[0].len(), 6, "both passwords are accepted");
        assert_eq!(changes[4][3], replication(&credentials()).reveal());
    }

    #[test]
    fn nobody_but_the_supervisor_may_open_a_fence() {
        let text = lines(&credentials(), &Secret::new("of this start"), "7.0.15".parse().unwrap());
        for line in text.lines() {
            let (name, rights) = line.strip_prefix("user ").and_then(|line| line.split_once(" on ")).unwrap();
            // A rule takes what rules before it gave.
            let may = |right: &str, all: &str| {
                rights
                    .split(' ')
                    .rfind(|rule| [right, all].contains(&&rule[1..]))
                    .is_some_and(|rule| rule.starts_with('+'))
            };
            let local = name == LOCAL_USER;
            assert!(!may("config", "@all") && !may("acl", "@all"), "{line}");
            assert_eq!((rights.contains("+config|set"), rights.contains("+acl|setuser")), (local, local), "{line}");
            let points = local || name == CONTROL_USER;
            assert_eq!((may("replicaof", "@all"), may("failover", "@all")), (points, false), "{line}");
            assert_eq!(may("slaveof", "@all"), name == CONTROL_USER, "{line}");
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert!(one != other && one.reveal().len() == 64);
    }
}
