//! Whom redis runs as: a user that owns its data and nothing else.

use std::fs;

use nix::unistd::geteuid;

/// The users without one in the cluster file: the first that there is. Packages of redis and of valkey make them.
const STANDARD: [&str; 2] = ["redis", "valkey"];
/// What is needed to start, watch and end a process of another user, and to look at its data: `CAP_CHOWN`,
/// `CAP_DAC_OVERRIDE`, `CAP_KILL`, `CAP_SETGID`, `CAP_SETUID`.
const NEEDED: u64 = 1 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Why the user of the cluster file is none for redis.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// It is not there.
    #[error("redis.user = {name:?}: there is no such user in /etc/passwd; make it, or name another one")]
    Unknown {
        /// As configured.
        name: String,
    },
    /// It may do everything.
    #[error("redis.user = {name:?}: it is root by another name; name a user with a number other than 0")]
    Root {
        /// As configured.
        name: String,
    },
}

/// What was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// None: whom this process runs as.
    pub(super) account: Option<Account>,
    /// What a person should know of it.
    pub(super) warning: Option<String>,
}

/// What this process runs as, and may do.
#[derive(Clone, Debug)]
struct Own {
    root: bool,
    capabilities: u64,
    uids: String,
    gids: String,
    groups_allowed: bool,
}

/// Chooses whom redis runs as; `wanted` is of the cluster file.
pub(super) fn choose(wanted: Option<&str>) -> Result<Choice, AccountError> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let own = Own {
        root: geteuid().is_root(),
        capabilities: effective(&read("/proc/self/status")),
        uids: read("/proc/self/uid_map"),
        gids: read("/proc/self/gid_map"),
        groups_allowed: read("/proc/self/setgroups").trim() != "deny",
    };
    judge(wanted, &read("/etc/passwd"), &own)
}

fn judge(wanted: Option<&str>, passwd: &str, own: &Own) -> Result<Choice, AccountError> {
    let found = match wanted {
        Some(name) => find(passwd, name),
        None => STANDARD.iter().find_map(|name| find(passwd, name)),
    };
    if let (Some(name), None) = (wanted, &found) {
        return Err(AccountError::Unknown { name: name.to_owned() });
    }
    if let (Some(name), Some(Account { uid: 0, .. })) = (wanted, &found) {
        return Err(AccountError::Root { name: name.to_owned() });
    }
    let itself = |warning| Ok(Choice { account: None, warning });
    let Some(account) = found.filter(|account| account.uid != 0) else {
        let said = "redis runs as root: there is no user redis in /etc/passwd; make it, or set redis.user";
        return itself(own.root.then(|| said.to_owned()));
    };
    if !own.root {
        let said = |name| format!("redis.user = {name:?} has no effect: vigie itself does not run as root");
        return itself(wanted.map(said));
    }
    if let Some(lack) = own.lack(&account) {
        return itself(Some(format!("redis runs as root and not as {}: {lack}", account.name)));
    }
    Ok(Choice { account: Some(account), warning: None })
}

impl Own {
    /// Why a process of that user cannot be started.
    fn lack(&self, account: &Account) -> Option<String> {
        if self.capabilities & NEEDED != NEEDED {
            return Some("vigie lacks the capabilities to change users".to_owned());
        }
        let mapped = covers(&self.uids, account.uid) && covers(&self.gids, account.gid) && self.groups_allowed;
        (!mapped).then(|| "this user namespace has no other users".to_owned())
    }
}

/// The effective capabilities, of what the kernel says of a process.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether a map of a user namespace (first inside, first outside, count) knows that number.
fn covers(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, count) = (numbers.next().unwrap_or(0), numbers.nth(1).unwrap_or(0));
        (first..first + count).contains(&u64::from(id))
    })
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next().filter(|found| *found == name)?;
        let mut ids = fields.skip(1).map(|id| id.parse().ok());
        Some(Account { name: found.to_owned(), uid: ids.next()??, gid: ids.next()?? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\nodd:x:y:z\n\
        redis:x:102:105::/var/lib/redis:/usr/sbin/nologin\nvalkey:x:103:106::/:/bin/false\n";

    fn own() -> Own {
        let all = "         0          0 4294967295\n".to_owned();
        Own { root: true, capabilities: u64::MAX, uids: all.clone(), gids: all, groups_allowed: true }
    }

    fn account(name: &str, uid: u32, gid: u32) -> Option<Account> {
        Some(Account { name: name.to_owned(), uid, gid })
    }

    #[test]
    fn the_named_user_or_redis_is_taken() {
        let chosen = |wanted| judge(wanted, PASSWD, &own()).unwrap();
        assert_eq!(chosen(None), Choice { account: account("redis", 102, 105), warning: None });
        assert_eq!(chosen(Some("valkey")), Choice { account: account("valkey", 103, 106), warning: None });
        let valkey = PASSWD.replace("\nredis:", "\nredit:");
        assert_eq!(judge(None, &valkey, &own()).unwrap().account, account("valkey", 103, 106));
        for (name, said) in [("nobody", "no such user"), ("toor", "root by another name"), ("odd", "no such user")] {
            let refused = judge(Some(name), PASSWD, &own()).unwrap_err().to_string();
            assert!(refused.contains(said) && refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn it_stays_who_it_is_where_it_must_and_says_so() {
        let chosen = |wanted, passwd, own: &Own| {
            let choice = judge(wanted, passwd, own).unwrap();
            assert_eq!(choice.account, None);
            choice.warning.unwrap_or_default()
        };
        assert!(chosen(None, "root:x:0:0::/:/bin/sh", &own()).contains("no user redis"));
        let user = Own { root: false, ..own() };
        assert_eq!(chosen(None, PASSWD, &user), "");
        assert!(chosen(Some("valkey"), PASSWD, &user).contains("no effect"));
        let poor = Own { capabilities: !(1 << 7), ..own() };
        assert!(chosen(None, PASSWD, &poor).contains("lacks the capabilities"));
        let alone = Own { uids: "0 1000 1\n".to_owned(), ..own() };
        assert!(chosen(None, PASSWD, &alone).contains("no other users"));
    }
}
