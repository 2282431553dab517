//! Users, their rules, and what they may do: the ACLs of Redis 7.0, for the commands of a Sentinel.
//!
//! Rules on commands are kept as they were given, the last one that fits decides; so a user is shown, and written to a
//! file, in words that its author knows. Patterns of keys are kept and shown, and have nothing to protect here.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::base::Secret;
use crate::base::secret::{hex, same};
use crate::wire::words;

use super::glob;
use super::table::{self, CATEGORIES, Spec};

/// The user of every connection that did not say otherwise.
pub(super) const DEFAULT: &str = "default";
/// Most users.
const USERS_MAX: usize = 1_024;
/// Most passwords, patterns, rules or selectors of one user.
const LIST_MAX: usize = 1_024;
/// Longest name of a user, pattern or rule, bytes.
const WORD_MAX: usize = 1_024;

/// Why users cannot be made from what a file or a command says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// A line of a file that does not begin with `user` and a name.
    #[error("line {line}: should start with the keyword 'user' and a name")]
    NotAUser {
        /// Counted from 1.
        line: usize,
    },
    /// A user that was there before in the same file.
    #[error("line {line}: duplicate user '{user}' found")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// Its name.
        user: String,
    },
    /// A rule that cannot be taken in.
    #[error("line {line}: user '{user}': error in the rule '{rule}': {fault}")]
    Rule {
        /// Counted from 1.
        line: usize,
        /// Whose.
        user: String,
        /// The rule.
        rule: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Too many users, or a name too long.
    #[error("line {line}: at most {USERS_MAX} users with names of at most {WORD_MAX} bytes are kept")]
    TooMany {
        /// Counted from 1.
        line: usize,
    },
}

/// What is wrong with a rule; the texts are those of Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No rule at all.
    #[error("Syntax error")]
    Syntax,
    /// A command, subcommand or category nobody knows.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// `+command|first-argument` for a subcommand.
    #[error("Allowing first-arg of a subcommand is not supported")]
    DeepFirstArgument,
    /// A pattern of keys behind the one for all.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try \
         'resetkeys' to start with an empty list of patterns"
    )]
    AllKeys,
    /// A pattern of channels behind the one for all.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try \
         'resetchannels' to start with an empty list of channels"
    )]
    AllChannels,
    /// A password to remove that is not there.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// A hash that is none.
    #[error("The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters")]
    Hash,
    /// More than is kept.
    #[error("at most {LIST_MAX} entries of at most {WORD_MAX} bytes are kept of each kind")]
    TooMany,
}

/// A SHA-256, by which passwords are kept.
type Hash = [u8; 32];

/// All users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    users: BTreeMap<String, User>,
    /// Whether the users are those of an ACL file, which `ACL LOAD` and `ACL SAVE` are about.
    pub has_file: bool,
    /// `acl-pubsub-default allchannels`: whether new users may hear all channels.
    all_channels: bool,
    /// `acllog-max-len`: refusals that are remembered.
    pub log_max: usize,
}

/// Refusals that are remembered unless the configuration says otherwise.
const LOG_MAX: usize = 128;

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) enabled: bool,
    pub(super) nopass: bool,
    /// `sanitize-payload`, `skip-sanitize-payload` or neither: kept and shown.
    sanitize: Option<bool>,
    passwords: Vec<Hash>,
    root: Selector,
    selectors: Vec<Selector>,
}

/// One set of permissions. A user may do what any of its selectors allows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selector {
    /// Whether everything is allowed that no rule is about.
    all: bool,
    /// What was given behind that, in its order.
    rules: Vec<Rule>,
    /// As shown: `~a`, `%R~a`, `%W~a`.
    keys: Vec<String>,
    channels: Vec<String>,
}

/// One rule on commands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    on: On,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum On {
    /// Its bit in [`CATEGORIES`].
    Category(usize),
    /// A command with its subcommands, or one subcommand.
    Command(&'static str),
    /// A command without subcommands, with that first argument.
    FirstArgument(&'static str, String),
}

/// Why something is not permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The command.
    Command,
    /// That channel or pattern.
    Channel(String),
}

impl Acl {
    /// Users of a configuration file: `user` lines without the word `user`, and `requirepass`, which is the password of the
    /// user `default` unless a line says otherwise.
    pub fn from_lines(lines: &[String], require_pass: Option<&Secret>) -> Result<Self, AclError> {
        Self::empty().with_lines(lines, require_pass)
    }

    /// Nobody at all, not even `default`: what the other constructors begin with.
    pub fn empty() -> Self {
        Self { users: BTreeMap::new(), has_file: false, all_channels: false, log_max: LOG_MAX }
    }

    /// The same settings without any user.
    pub(super) fn emptied(&self) -> Self {
        Self { users: BTreeMap::new(), has_file: self.has_file, all_channels: self.all_channels, log_max: self.log_max }
    }

    /// `acl-pubsub-default allchannels`, for users still to come.
    #[must_use]
    pub fn with_all_channels(self, all_channels: bool) -> Self {
        Self { all_channels, ..self }
    }

    /// As [`Acl::from_lines`].
    pub fn with_lines(self, lines: &[String], require_pass: Option<&Secret>) -> Result<Self, AclError> {
        let mut acl = self;
        for (at, line) in lines.iter().enumerate() {
            acl.take_line(at + 1, line)?;
        }
        acl.users.entry(DEFAULT.to_owned()).or_insert_with(|| {
            let mut user = User::all_powerful();
            user.require(require_pass);
            user
        });
        Ok(acl)
    }

    /// Users of an ACL file: lines that start with the word `user`; empty ones and comments are passed over.
    pub fn from_file_text(text: &str) -> Result<Self, AclError> {
        Self::empty().with_file_text(text)
    }

    /// As [`Acl::from_file_text`].
    pub fn with_file_text(self, text: &str) -> Result<Self, AclError> {
        let mut acl = Self { has_file: true, ..self };
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(char::is_whitespace) {
                Some((keyword, rest)) if keyword.eq_ignore_ascii_case("user") => acl.take_line(at + 1, rest)?,
                _ => return Err(AclError::NotAUser { line: at + 1 }),
            }
        }
        acl.users.entry(DEFAULT.to_owned()).or_insert_with(User::all_powerful);
        Ok(acl)
    }

    /// One line for each user, without the word `user`, as a configuration file holds them.
    pub fn lines(&self) -> Vec<String> {
        self.users.iter().map(|(name, user)| format!("{name} {}", user.describe())).collect()
    }

    /// The whole text of an ACL file.
    pub fn to_file_text(&self) -> String {
        self.lines().iter().fold(String::new(), |text, line| text + "user " + line + "\n")
    }

    fn take_line(&mut self, line: usize, text: &str) -> Result<(), AclError> {
        let words = words::split(text.as_bytes()).unwrap_or_default();
        let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let Some((name, rules)) = words.split_first() else { return Err(AclError::NotAUser { line }) };
        if self.users.contains_key(name) {
            return Err(AclError::Twice { line, user: name.clone() });
        }
        if self.users.len() >= USERS_MAX || name.len() > WORD_MAX {
            return Err(AclError::TooMany { line });
        }
        let mut user = User::new(self.all_channels);
        let wrong = |rule: &str, fault| AclError::Rule { line, user: name.clone(), rule: rule.to_owned(), fault };
        let rules = join_selectors(rules).map_err(|open| wrong(&open, Fault::Syntax))?;
        for rule in rules {
            user.set(&rule, self.all_channels).map_err(|fault| wrong(&rule, fault))?;
        }
        self.users.insert(name.clone(), user);
        Ok(())
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Changes a user, made if there is none of that name: all rules or none. The error as Redis answers it.
    pub(super) fn set_user(&mut self, name: &str, rules: &[String]) -> Result<(), String> {
        if name.contains(['"', '\'', '\r', '\n', '\t']) {
            return Err("ERR Usernames can't contain quotes or line ends".to_owned());
        }
        if name.contains([' ', '\0']) || name.is_empty() {
            return Err("ERR Usernames can't contain spaces or null characters".to_owned());
        }
        if name.len() > WORD_MAX || !self.users.contains_key(name) && self.users.len() >= USERS_MAX {
            return Err(format!("ERR at most {USERS_MAX} users with names of at most {WORD_MAX} bytes are kept"));
        }
        let rules = join_selectors(rules)
            .map_err(|open| format!("ERR Unmatched parenthesis in acl selector starting at '{open}'."))?;
        let mut user = self.users.get(name).cloned().unwrap_or_else(|| User::new(self.all_channels));
        for rule in rules {
            user.set(&rule, self.all_channels)
                .map_err(|fault| format!("ERR Error in ACL SETUSER modifier '{rule}': {fault}"))?;
        }
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    /// Whether there was such a user.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.users.remove(name).is_some()
    }

    /// `requirepass` has changed: the password of the user `default`.
    pub fn require_pass(&mut self, password: Option<&Secret>) {
        self.users.entry(DEFAULT.to_owned()).or_insert_with(User::all_powerful).require(password);
    }

    /// Whether nobody has to say who it is.
    pub(super) fn is_open(&self) -> bool {
        self.user(DEFAULT).is_some_and(|user| user.nopass && user.enabled)
    }

    /// Whether the user `default` has no password.
    pub(super) fn is_unprotected(&self) -> bool {
        self.user(DEFAULT).is_some_and(|user| user.nopass)
    }

    /// Whether that is an enabled user with that password.
    pub(super) fn authenticates(&self, name: &str, password: &[u8]) -> bool {
        // Hashed whether the user exists or not: the time must not tell.
        let hash: Hash = Sha256::digest(password).into();
        self.user(name).is_some_and(|user| {
            let right = user.passwords.iter().fold(false, |found, known| found | same(known, &hash));
            user.enabled && (user.nopass || right)
        })
    }
}

/// Puts the words of `(… …)` together again; the start of one that is not closed.
fn join_selectors(words: &[String]) -> Result<Vec<String>, String> {
    let mut joined: Vec<String> = Vec::new();
    let mut open: Option<String> = None;
    for word in words {
        let whole = match open.take() {
            Some(begun) => format!("{begun} {word}"),
            None => word.clone(),
        };
        if whole.starts_with('(') && !whole.ends_with(')') {
            open = Some(whole);
        } else {
            joined.push(whole);
        }
    }
    match open {
        Some(begun) => Err(begun.split(' ').next().unwrap_or_default().to_owned()),
        None => Ok(joined),
    }
}

fn parse_hash(text: &str) -> Result<Hash, Fault> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Fault::Hash);
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(Fault::Hash)?;
    }
    Ok(hash)
}

fn push<T: PartialEq>(list: &mut Vec<T>, entry: T) -> Result<(), Fault> {
    if list.contains(&entry) {
        return Ok(());
    }
    if list.len() >= LIST_MAX {
        return Err(Fault::TooMany);
    }
    list.push(entry);
    Ok(())
}

impl User {
    /// A user as `ACL SETUSER name` makes it: off, without passwords, nothing allowed but perhaps all channels.
    fn new(all_channels: bool) -> Self {
        Self {
            enabled: false,
            nopass: false,
            sanitize: None,
            passwords: Vec::new(),
            root: Selector::new(all_channels),
            selectors: Vec::new(),
        }
    }

    /// The user `default` of a server without any configuration.
    fn all_powerful() -> Self {
        let root =
            Selector { all: true, rules: Vec::new(), keys: vec!["~*".to_owned()], channels: vec!["*".to_owned()] };
        Self { enabled: true, nopass: true, root, ..Self::new(true) }
    }

    fn require(&mut self, password: Option<&Secret>) {
        self.passwords.clear();
        self.nopass = password.is_none();
        self.passwords.extend(password.map(|password| Hash::from(Sha256::digest(password.reveal()))));
    }

    /// Takes in one rule.
    fn set(&mut self, rule: &str, all_channels: bool) -> Result<(), Fault> {
        if rule.len() > WORD_MAX * 4 {
            return Err(Fault::TooMany);
        }
        let word = rule.to_ascii_lowercase();
        match word.as_str() {
            "on" => self.enabled = true,
            "off" => self.enabled = false,
            "nopass" => (self.nopass, self.passwords) = (true, Vec::new()),
            "resetpass" => (self.nopass, self.passwords) = (false, Vec::new()),
            "sanitize-payload" => self.sanitize = Some(true),
            "skip-sanitize-payload" => self.sanitize = Some(false),
            "reset" => *self = Self { sanitize: Some(true), ..Self::new(all_channels) },
            "clearselectors" => self.selectors.clear(),
            _ => return self.set_other(rule, all_channels),
        }
        Ok(())
    }

    fn set_other(&mut self, rule: &str, all_channels: bool) -> Result<(), Fault> {
        let mut characters = rule.chars();
        match characters.next() {
            Some('>') => self.add_password(Sha256::digest(characters.as_str()).into()),
            Some('#') => parse_hash(characters.as_str()).and_then(|hash| self.add_password(hash)),
            Some('<') => self.remove_password(Sha256::digest(characters.as_str()).into()),
            Some('!') => parse_hash(characters.as_str()).and_then(|hash| self.remove_password(hash)),
            Some('(') => {
                let inner = rule.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or(Fault::Syntax)?;
                let mut selector = Selector::new(all_channels);
                inner.split_ascii_whitespace().try_for_each(|rule| selector.set(rule))?;
                if self.selectors.len() >= LIST_MAX {
                    return Err(Fault::TooMany);
                }
                self.selectors.push(selector);
                Ok(())
            }
            _ => self.root.set(rule),
        }
    }

    fn add_password(&mut self, hash: Hash) -> Result<(), Fault> {
        push(&mut self.passwords, hash)?;
        self.nopass = false;
        Ok(())
    }

    fn remove_password(&mut self, hash: Hash) -> Result<(), Fault> {
        let at = self.passwords.iter().position(|known| *known == hash).ok_or(Fault::NoSuchPassword)?;
        self.passwords.remove(at);
        Ok(())
    }

    fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Whether it may give this command, whose words `args` are, with these channels (patterns: literally).
    pub(super) fn may(&self, spec: &Spec, args: &[String], channels: &Channels<'_>) -> Result<(), Denied> {
        let mut denied = Denied::Command;
        for selector in self.all_selectors() {
            if !spec.needs_no_auth() && !selector.allows(spec, args) {
                continue;
            }
            match channels.refused_by(selector) {
                None => return Ok(()),
                Some(channel) => denied = Denied::Channel(channel.to_owned()),
            }
        }
        Err(denied)
    }

    /// Whether it may hear that channel, or channels by that pattern.
    pub(super) fn may_hear(&self, channel: &str, pattern: bool) -> bool {
        self.all_selectors().any(|selector| selector.hears(channel, pattern))
    }

    /// Flags as shown.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        flags.extend(self.nopass.then_some("nopass"));
        flags.extend(self.sanitize.map(|sanitize| if sanitize { "sanitize-payload" } else { "skip-sanitize-payload" }));
        flags
    }

    /// Hashes of its passwords.
    pub(super) fn hashes(&self) -> impl Iterator<Item = String> {
        self.passwords.iter().map(|hash| hex(hash))
    }

    /// Rules on commands, patterns of keys and of channels: of the user itself, then of its selectors.
    pub(super) fn permissions(&self) -> impl Iterator<Item = [String; 3]> {
        self.all_selectors().map(|one| [one.commands(), one.keys.join(" "), one.channels("&")])
    }

    fn describe(&self) -> String {
        let words = self.flags().into_iter().map(str::to_owned);
        let words = words.chain(self.hashes().map(|hash| format!("#{hash}"))).chain([self.root.describe()]);
        words.chain(self.selectors.iter().map(|one| format!("({})", one.describe()))).collect::<Vec<_>>().join(" ")
    }
}

/// Channels that a command is about.
#[derive(Debug)]
pub(super) struct Channels<'a> {
    pub(super) names: &'a [String],
    /// Whether they are patterns: one is allowed only by the very same.
    pub(super) patterns: bool,
}

impl<'a> Channels<'a> {
    fn refused_by(&self, selector: &Selector) -> Option<&'a str> {
        self.names.iter().map(String::as_str).find(|name| !selector.hears(name, self.patterns))
    }
}

impl Selector {
    fn new(all_channels: bool) -> Self {
        let channels = if all_channels { vec!["*".to_owned()] } else { Vec::new() };
        Self { all: false, rules: Vec::new(), keys: Vec::new(), channels }
    }

    fn set(&mut self, rule: &str) -> Result<(), Fault> {
        if rule.len() > WORD_MAX {
            return Err(Fault::TooMany);
        }
        match rule.to_ascii_lowercase().as_str() {
            "allkeys" => return self.add_key("~*"),
            "resetkeys" => self.keys.clear(),
            "allchannels" => return self.add_channel("*"),
            "resetchannels" => self.channels.clear(),
            "allcommands" | "+@all" => (self.all, self.rules) = (true, Vec::new()),
            "nocommands" | "-@all" => (self.all, self.rules) = (false, Vec::new()),
            _ => return self.set_other(rule),
        }
        Ok(())
    }

    fn set_other(&mut self, rule: &str) -> Result<(), Fault> {
        // Quotes would not survive in the lines of a file.
        if rule.starts_with(['~', '%', '&']) && rule.contains([' ', '\0', '\r', '\n', '\t', '"', '\'']) {
            return Err(Fault::Syntax);
        }
        match rule.as_bytes() {
            [b'~', ..] => self.add_key(rule),
            [b'%', ..] => {
                let (rights, pattern) = rule[1..].split_once('~').ok_or(Fault::Syntax)?;
                match rights.to_ascii_uppercase().as_str() {
                    "R" => self.add_key(&format!("%R~{pattern}")),
                    "W" => self.add_key(&format!("%W~{pattern}")),
                    "RW" | "WR" => self.add_key(&format!("~{pattern}")),
                    _ => Err(Fault::Syntax),
                }
            }
            [b'&', ..] => self.add_channel(&rule[1..]),
            [b'+', ..] => self.add_rule(true, &rule[1..]),
            [b'-', ..] => self.add_rule(false, &rule[1..]),
            _ => Err(Fault::Syntax),
        }
    }

    fn add_key(&mut self, pattern: &str) -> Result<(), Fault> {
        let all = |pattern: &str| pattern == "~*";
        if all(pattern) {
            self.keys = vec!["~*".to_owned()];
            return Ok(());
        }
        if self.keys.iter().any(|known| all(known)) {
            return Err(Fault::AllKeys);
        }
        push(&mut self.keys, pattern.to_owned())
    }

    fn add_channel(&mut self, pattern: &str) -> Result<(), Fault> {
        if pattern == "*" {
            self.channels = vec!["*".to_owned()];
            return Ok(());
        }
        if self.channels.iter().any(|known| known == "*") {
            return Err(Fault::AllChannels);
        }
        push(&mut self.channels, pattern.to_owned())
    }

    fn add_rule(&mut self, allow: bool, what: &str) -> Result<(), Fault> {
        let what = what.to_ascii_lowercase();
        let on = match what.strip_prefix('@') {
            Some(category) => {
                On::Category(CATEGORIES.iter().position(|known| *known == category).ok_or(Fault::Unknown)?)
            }
            None => match (table::find(what.as_bytes()), what.split_once('|')) {
                (Some(spec), _) => On::Command(spec.name),
                (None, Some((command, argument))) if allow => first_argument(command, argument)?,
                (None, _) => return Err(Fault::Unknown),
            },
        };
        // What this rule decides again is forgotten.
        self.rules.retain(|rule| !on.covers(&rule.on));
        push(&mut self.rules, Rule { allow, on })
    }

    fn allows(&self, spec: &Spec, args: &[String]) -> bool {
        let last = self.rules.iter().rev().find(|rule| rule.on.fits(spec, args));
        last.map_or(self.all, |rule| rule.allow)
    }

    fn hears(&self, channel: &str, pattern: bool) -> bool {
        self.channels.iter().any(|allowed| {
            allowed == "*"
                || if pattern { allowed == channel } else { glob::matches(allowed.as_bytes(), channel.as_bytes()) }
        })
    }

    fn commands(&self) -> String {
        let base = if self.all { "+@all" } else { "-@all" }.to_owned();
        self.rules.iter().fold(base, |text, rule| {
            let sign = if rule.allow { '+' } else { '-' };
            match &rule.on {
                On::Category(bit) => format!("{text} {sign}@{}", CATEGORIES[*bit]),
                On::Command(name) => format!("{text} {sign}{name}"),
                On::FirstArgument(name, argument) => format!("{text} {sign}{name}|{argument}"),
            }
        })
    }

    fn channels(&self, prefix: &str) -> String {
        self.channels.iter().map(|pattern| format!("{prefix}{pattern}")).collect::<Vec<_>>().join(" ")
    }

    fn describe(&self) -> String {
        let mut words = self.keys.clone();
        if !self.channels.iter().any(|pattern| pattern == "*") {
            words.push("resetchannels".to_owned());
        }
        words.extend((!self.channels.is_empty()).then(|| self.channels("&")));
        words.push(self.commands());
        words.join(" ")
    }
}

/// `+command|argument`: for commands that have no subcommands.
fn first_argument(command: &str, argument: &str) -> Result<On, Fault> {
    let spec = table::find(command.as_bytes()).ok_or(Fault::Unknown)?;
    if let Some((subcommand, _)) = argument.split_once('|') {
        let known = table::find(format!("{command}|{subcommand}").as_bytes()).is_some();
        return Err(if known { Fault::DeepFirstArgument } else { Fault::Unknown });
    }
    if spec.subcommands().next().is_some() {
        return Err(Fault::Unknown);
    }
    if argument.is_empty() {
        return Err(Fault::Syntax);
    }
    Ok(On::FirstArgument(spec.name, argument.to_owned()))
}

impl On {
    fn fits(&self, spec: &Spec, args: &[String]) -> bool {
        match self {
            Self::Category(bit) => spec.is_in(*bit),
            // Another name of a command is no way around a rule on it.
            Self::Command(name) => [Some(spec.name), spec.alias_of, spec.container()].contains(&Some(name)),
            Self::FirstArgument(name, argument) => {
                spec.name == *name && args.get(1).is_some_and(|said| said.eq_ignore_ascii_case(argument))
            }
        }
    }

    /// Whether whatever `other` is about, this is about too.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Category(_), _) | (_, Self::Category(_)) => self == other,
            (Self::Command(name), Self::Command(inner) | Self::FirstArgument(inner, _)) => {
                name == inner || inner.split_once('|').is_some_and(|(container, _)| container == *name)
            }
            (Self::FirstArgument(..), _) => self == other,
        }
    }
}

#[cfg(test)]
mod tests;
