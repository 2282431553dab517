//! `ACL`: users as clients ask for them and change them.

use bytes::Bytes;

use crate::base::Instant;
use crate::base::secret::hex;
use crate::cores::sentinel::{Answer, ClientId};
use crate::wire::resp::Reply;

use super::access::{Access, permitted};
use super::acl::{Acl, DEFAULT, Denied};
use super::ask::Question;
use super::reply::{bulk, error, integer, lower, nothing, simple, syntax, text, words, wrong_arity};
use super::state::{Asked, Server};
use super::{describe, table};

/// Bits of a password that `ACL GENPASS` may be asked for.
const PASSWORD_BITS: std::ops::RangeInclusive<usize> = 1..=4_096;
/// Refusals that `ACL LOG` shows unless more are asked for.
const LOG_SHOWN: usize = 10;

const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the \
     ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to \
     store users in the Redis configuration.";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

impl Server {
    /// The words behind `ACL`, of which `name` is the first.
    pub(super) fn acl_command(&mut self, client: ClientId, name: &str, args: &[Bytes], now: Instant) -> Answer {
        match name {
            "cat" => describe::categories(args),
            "whoami" => {
                let user = self.clients.get(client).map_or(DEFAULT, |session| session.user.as_str());
                Answer::Reply(bulk(user.to_owned()))
            }
            "genpass" => self.gen_pass(client, args),
            "log" => self.acl_log(args, now),
            _ => match &self.access {
                Access::Cluster(_) => error(
                    "ERR there are no users here: the password of the cluster file is the only one, of the user default",
                ),
                Access::Acl(_) => self.acl_users(client, name, args),
            },
        }
    }

    fn acl_users(&mut self, client: ClientId, name: &str, args: &[Bytes]) -> Answer {
        let Access::Acl(acl) = &self.access else { return nothing() };
        let list = |lines: &mut dyn Iterator<Item = String>| Answer::Reply(Reply::Array(lines.map(bulk).collect()));
        match (name, args) {
            ("list", _) => list(&mut acl.lines().into_iter().map(|line| format!("user {line}"))),
            ("users", _) => list(&mut acl.names().map(str::to_owned)),
            ("getuser", [user]) => Answer::Reply(get_user(acl, text(user))),
            ("dryrun", [user, call @ ..]) => dry_run(acl, user, call),
            ("setuser", [user, rules @ ..]) => self.set_user(user, rules, client),
            ("deluser", users) => self.del_users(client, users),
            ("load" | "save", _) if !acl.has_file => error(NO_FILE),
            ("load", _) => self.ask(client, Asked::Users, Question::LoadUsers),
            ("save", _) => {
                let text = acl.to_file_text();
                self.ask(client, Asked::Users, Question::SaveUsers(text))
            }
            _ => syntax(),
        }
    }

    fn set_user(&mut self, user: &[u8], rules: &[Bytes], client: ClientId) -> Answer {
        let Access::Acl(acl) = &mut self.access else { return nothing() };
        let Ok(user) = std::str::from_utf8(user) else { return error("ERR Usernames must be UTF-8") };
        let before = acl.user(user).cloned();
        if let Err(refusal) = acl.set_user(user, &rules.iter().map(rule).collect::<Vec<_>>()) {
            return error(refusal);
        }
        if before.is_some() {
            self.kill_deaf(client, |name| name == user);
        }
        simple("OK")
    }

    fn del_users(&mut self, client: ClientId, users: &[Bytes]) -> Answer {
        let users = words(users);
        if users.iter().any(|user| user == DEFAULT) {
            return error("ERR The 'default' user cannot be removed");
        }
        let Access::Acl(acl) = &mut self.access else { return nothing() };
        let removed = users.iter().filter(|user| acl.remove(user)).count();
        let answer = Answer::Reply(integer(removed));
        if self.kill_users(client, |name| users.iter().any(|user| user == name)) {
            self.dismiss_with(client, answer);
            return nothing();
        }
        answer
    }

    /// Closes the connections of these users; whether the one that asks is among them, which is left to its answer.
    fn kill_users(&mut self, client: ClientId, meant: impl Fn(&str) -> bool) -> bool {
        let theirs = self.clients.which(|_, session| meant(&session.user));
        theirs.iter().filter(|id| **id != client).for_each(|id| self.kill(*id));
        theirs.contains(&client)
    }

    /// Closes connections of these users that hear what they may hear no more.
    fn kill_deaf(&mut self, client: ClientId, meant: impl Fn(&str) -> bool) {
        let Access::Acl(acl) = &self.access else { return };
        let deaf = self.clients.which(|id, session| {
            id != client
                && meant(&session.user)
                && acl.user(&session.user).is_none_or(|user| {
                    let hears = |name: &Bytes, pattern| user.may_hear(&String::from_utf8_lossy(name), pattern);
                    !session.channels.iter().all(|name| hears(name, false))
                        || !session.patterns.iter().all(|name| hears(name, true))
                })
        });
        deaf.into_iter().for_each(|id| self.kill(id));
    }

    fn gen_pass(&mut self, client: ClientId, args: &[Bytes]) -> Answer {
        let bits = match args {
            [] => Some(256),
            [bits] => match text(bits).parse::<i64>() {
                Ok(bits) => usize::try_from(bits).ok().filter(|bits| PASSWORD_BITS.contains(bits)),
                Err(_) => return error(NOT_AN_INTEGER),
            },
            _ => return error("ERR unknown subcommand or wrong number of arguments for 'GENPASS'. Try ACL HELP."),
        };
        match bits {
            Some(bits) => self.ask(client, Asked::Password(bits), Question::Random(bits.div_ceil(8))),
            None => error(
                "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
            ),
        }
    }

    fn acl_log(&mut self, args: &[Bytes], now: Instant) -> Answer {
        let count = match args {
            [] => LOG_SHOWN,
            [word] if lower(word) == "reset" => {
                if matches!(self.access, Access::Acl(_)) {
                    self.refusals.clear();
                }
                return simple("OK");
            }
            [count] => match text(count).parse::<i64>() {
                Ok(count) => usize::try_from(count).unwrap_or(0),
                Err(_) => return error(NOT_AN_INTEGER),
            },
            _ => return error("ERR unknown subcommand or wrong number of arguments for 'LOG'. Try ACL HELP."),
        };
        Answer::Reply(self.refusals.show(count, now))
    }

    /// The random bytes for `ACL GENPASS` are there.
    pub(super) fn pass_made(bits: usize, bytes: &[u8]) -> Answer {
        // As many hexadecimal digits as hold so many bits.
        let mut digits = hex(bytes);
        digits.truncate(bits.div_ceil(4));
        Answer::Reply(bulk(digits))
    }

    /// The ACL file has been written, or not.
    pub(super) fn users_saved(saved: Result<(), String>) -> Answer {
        match saved {
            Ok(()) => simple("OK"),
            Err(why) => error(format!("ERR There was an error trying to save the ACLs: {why}")),
        }
    }

    /// The ACL file has been read, or not.
    pub(super) fn users_loaded(&mut self, client: ClientId, text: Result<String, String>) -> Answer {
        let Access::Acl(acl) = &self.access else { return nothing() };
        let loaded = text.and_then(|text| acl.emptied().with_file_text(&text).map_err(|error| error.to_string()));
        let new = match loaded {
            Ok(new) => new,
            Err(why) => {
                return error(format!(
                    "ERR {why}. WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
                ));
            }
        };
        let Access::Acl(acl) = &mut self.access else { return nothing() };
        let old = std::mem::replace(acl, new);
        let changed: Vec<String> = {
            let Access::Acl(acl) = &self.access else { return nothing() };
            old.names().filter(|name| *name != DEFAULT && acl.user(name) != old.user(name)).map(str::to_owned).collect()
        };
        if self.kill_users(client, |name| changed.iter().any(|user| user == name)) {
            self.dismiss_with(client, simple("OK"));
            return nothing();
        }
        simple("OK")
    }
}

/// A rule as text. A password that is no UTF-8 is taken in by its hash.
fn rule(word: &Bytes) -> String {
    use sha2::{Digest, Sha256};
    match (std::str::from_utf8(word), word.first()) {
        (Ok(text), _) => text.to_owned(),
        (Err(_), Some(b'>')) => format!("#{}", hex(&Sha256::digest(&word[1..]))),
        (Err(_), Some(b'<')) => format!("!{}", hex(&Sha256::digest(&word[1..]))),
        (Err(_), _) => String::from_utf8_lossy(word).into_owned(),
    }
}

fn get_user(acl: &Acl, name: &str) -> Reply {
    let Some(user) = acl.user(name) else { return Reply::Null };
    let mut permissions = user.permissions();
    let shown = |[commands, keys, channels]: [String; 3]| {
        vec![("commands", bulk(commands)), ("keys", bulk(keys)), ("channels", bulk(channels))]
    };
    let mut pairs = vec![
        ("flags", Reply::set(user.flags().into_iter().map(bulk).collect())),
        ("passwords", Reply::Array(user.hashes().map(bulk).collect())),
    ];
    pairs.extend(permissions.next().map(shown).unwrap_or_default());
    pairs.push(("selectors", Reply::Array(permissions.map(|one| Reply::map(shown(one))).collect())));
    Reply::map(pairs)
}

fn dry_run(acl: &Acl, user: &[u8], call: &[Bytes]) -> Answer {
    let user = text(user);
    if acl.user(user).is_none() {
        return error(format!("ERR User '{user}' not found"));
    }
    let Some(spec) = table::called(call) else {
        let name = call.first().map_or("", |word| text(word));
        return error(format!("ERR Command '{name}' not found"));
    };
    if !spec.takes(call.len()) {
        return error(wrong_arity(spec.name));
    }
    match permitted(acl, user, spec, call) {
        Ok(()) => simple("OK"),
        Err(Denied::Command) => {
            Answer::Reply(bulk(format!("This user has no permissions to run the '{}' command", spec.name)))
        }
        Err(Denied::Channel(channel)) => {
            Answer::Reply(bulk(format!("This user has no permissions to access the '{channel}' channel")))
        }
    }
}
