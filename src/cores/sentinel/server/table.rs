//! The one table of all commands: what may be called how, what it is filed under, and what is said of it.
//!
//! Names, numbers of arguments, flags and categories are those of redis-sentinel 7.0, so that clients and rules of ACLs
//! written for it mean the same here. What is listed is what is really offered.

use std::sync::LazyLock;

use bytes::Bytes;

use super::reply::wrong_arity;

/// One command, or one subcommand.
#[derive(Debug)]
pub(super) struct Spec {
    /// In lower case; of a subcommand `command|subcommand`.
    pub(super) name: &'static str,
    /// Words of a call, the name itself (of a subcommand: both) among them; negative: at least so many.
    pub(super) arity: i64,
    flags: u16,
    categories: u32,
    pub(super) since: &'static str,
    pub(super) group: &'static str,
    /// What stands behind the name.
    pub(super) arguments: &'static str,
    pub(super) summary: &'static str,
    /// Hints for proxies.
    pub(super) tips: &'static [&'static str],
    /// Since when something else should be used, and what.
    pub(super) deprecated: Option<(&'static str, &'static str)>,
    /// The subcommand of redis-sentinel that this is another name of.
    pub(super) alias_of: Option<&'static str>,
    changes: bool,
}

const ADMIN: u16 = 1 << 0;
const PUBSUB: u16 = 1 << 1;
const NOSCRIPT: u16 = 1 << 2;
const LOADING: u16 = 1 << 3;
const STALE: u16 = 1 << 4;
const FAST: u16 = 1 << 5;
const NO_AUTH: u16 = 1 << 6;
const NO_MULTI: u16 = 1 << 7;
const ALLOW_BUSY: u16 = 1 << 8;
/// In the order of their bits.
const FLAGS: [&str; 9] =
    ["admin", "pubsub", "noscript", "loading", "stale", "fast", "no_auth", "no_multi", "allow_busy"];

/// Both of the commands that never wait for data.
const ANY_TIME: u16 = LOADING | STALE;
/// Those that a script may not call.
const PERSONAL: u16 = NOSCRIPT | ANY_TIME;
const MANAGING: u16 = ADMIN | PERSONAL;

/// All categories of ACLs, in the order of their bits. Those of data are known and empty here.
pub(super) const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];
const IN_PUBSUB: u32 = 1 << 12;
const IN_ADMIN: u32 = 1 << 13;
const IN_FAST: u32 = 1 << 14;
const IN_SLOW: u32 = 1 << 15;
const IN_DANGEROUS: u32 = 1 << 17;
const IN_CONNECTION: u32 = 1 << 18;

impl Spec {
    const fn changing(mut self) -> Self {
        self.changes = true;
        self
    }

    const fn filed(mut self, categories: u32) -> Self {
        self.categories |= categories;
        self
    }

    const fn hinted(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    const fn alias(mut self, of: &'static str) -> Self {
        self.alias_of = Some(of);
        self
    }

    const fn deprecated(mut self, since: &'static str, instead: &'static str) -> Self {
        self.deprecated = Some((since, instead));
        self
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Its flags, by name.
    pub(super) fn flags(&self) -> impl Iterator<Item = &'static str> {
        FLAGS.iter().enumerate().filter(|(bit, _)| self.flags & (1 << bit) != 0).map(|(_, name)| *name)
    }

    /// The categories it is filed under, by name.
    pub(super) fn categories(&self) -> impl Iterator<Item = &'static str> {
        CATEGORIES.iter().enumerate().filter(|(bit, _)| self.categories & (1 << bit) != 0).map(|(_, name)| *name)
    }

    /// Whether it is filed under the category with that place in [`CATEGORIES`].
    pub(super) fn is_in(&self, category: usize) -> bool {
        self.categories & (1 << category) != 0
    }

    /// Whether it may be called before AUTH.
    pub(super) fn needs_no_auth(&self) -> bool {
        self.has(NO_AUTH)
    }

    /// The command it is a subcommand of.
    pub(super) fn container(&self) -> Option<&'static str> {
        self.name.split_once('|').map(|(container, _)| container)
    }

    /// Its subcommands.
    pub(super) fn subcommands(&self) -> impl Iterator<Item = &'static Self> {
        let name = self.name;
        TABLE.iter().filter(move |spec| spec.container() == Some(name))
    }

    /// Whether so many words may be a call of it.
    pub(super) fn takes(&self, words: usize) -> bool {
        let words = i64::try_from(words).unwrap_or(i64::MAX);
        if self.arity < 0 { words >= -self.arity } else { words == self.arity }
    }

    /// Whether this call of it changes what others see, so that it needs the password of the cluster.
    pub(super) fn changes(&self, words: &[Bytes]) -> bool {
        let third = words.get(2);
        match self.meaning() {
            "sentinel|config" => third.is_none_or(|word| !word.eq_ignore_ascii_case(b"get")),
            "sentinel|debug" => third.is_some(),
            // Without a candidate it is a question; with one, it may become a vote.
            "sentinel|is-master-down-by-addr" => words.get(5).is_some_and(|candidate| candidate.as_ref() != b"*"),
            _ => self.changes,
        }
    }

    /// Whether this call of it asks for what a cluster believes from nobody but itself: a vote, a greeting; or ends the
    /// process, or changes its clocks.
    pub(super) fn commands_the_cluster(&self, words: &[Bytes]) -> bool {
        let itself = ["publish", "sentinel|is-master-down-by-addr", "sentinel|debug", "sentinel|simulate-failure"];
        itself.contains(&self.meaning()) && self.changes(words)
    }

    /// What the call of it is: of an alias that of the name it stands for.
    pub(super) fn meaning(&self) -> &'static str {
        self.alias_of.unwrap_or(self.name)
    }
}

const fn row(
    name: &'static str,
    arity: i64,
    flags: u16,
    since: &'static str,
    group: &'static str,
    arguments: &'static str,
    summary: &'static str,
) -> Spec {
    // What follows from the flags, as in Redis.
    let mut categories = if flags & FAST != 0 { IN_FAST } else { IN_SLOW };
    if flags & ADMIN != 0 {
        categories |= IN_ADMIN | IN_DANGEROUS;
    }
    if flags & PUBSUB != 0 {
        categories |= IN_PUBSUB;
    }
    Spec {
        name,
        arity,
        flags,
        categories,
        since,
        group,
        arguments,
        summary,
        tips: &[],
        deprecated: None,
        alias_of: None,
        changes: false,
    }
}

const fn acl(name: &'static str, arity: i64, flags: u16, arguments: &'static str, summary: &'static str) -> Spec {
    row(name, arity, flags, "6.0.0", "server", arguments, summary)
}

const fn client(
    name: &'static str,
    arity: i64,
    flags: u16,
    since: &'static str,
    arguments: &'static str,
    summary: &'static str,
) -> Spec {
    row(name, arity, flags, since, "connection", arguments, summary).filed(IN_CONNECTION)
}

const fn command(
    name: &'static str,
    arity: i64,
    since: &'static str,
    args: &'static str,
    summary: &'static str,
) -> Spec {
    row(name, arity, ANY_TIME, since, "server", args, summary).filed(IN_CONNECTION)
}

const fn sentinel(
    name: &'static str,
    arity: i64,
    since: &'static str,
    args: &'static str,
    summary: &'static str,
) -> Spec {
    row(name, arity, ADMIN, since, "sentinel", args, summary)
}

const UNORDERED: &[&str] = &["nondeterministic_output_order"];
const CHANGING: &[&str] = &["nondeterministic_output"];

/// Each command, its subcommands behind it.
pub(super) static TABLE: &[Spec] = &[
    row("acl", -2, 0, "6.0.0", "server", "", "Users and what they may do"),
    acl("acl|cat", -2, PERSONAL, "[<category>]", "The categories, or the commands of one"),
    acl("acl|deluser", -3, MANAGING, "<user> [<user> ...]", "Remove users, and close their connections").changing(),
    row(
        "acl|dryrun",
        -4,
        MANAGING,
        "7.0.0",
        "server",
        "<user> <command> [<arg> ...]",
        "Whether a user may run a command",
    ),
    acl("acl|genpass", -2, PERSONAL, "[<bits>]", "A random password, of 256 bits or as many as asked for"),
    acl("acl|getuser", 3, MANAGING, "<user>", "The rules of a user"),
    acl("acl|help", 2, ANY_TIME, "", "What can be called here"),
    acl("acl|list", 2, MANAGING, "", "All users with their rules, as lines of a file"),
    acl("acl|load", 2, MANAGING, "", "Read the users from the ACL file again").changing(),
    acl("acl|log", -2, MANAGING, "[<count> | RESET]", "What was refused lately").changing(),
    acl("acl|save", 2, MANAGING, "", "Write the users to the ACL file").changing(),
    acl("acl|setuser", -3, MANAGING, "<user> [<rule> ...]", "Make a user, or change its rules").changing(),
    acl("acl|users", 2, MANAGING, "", "The names of all users"),
    acl("acl|whoami", 2, PERSONAL, "", "The user of this connection"),
    row(
        "auth",
        -2,
        PERSONAL | FAST | NO_AUTH | ALLOW_BUSY,
        "1.0.0",
        "connection",
        "[<user>] <password>",
        "Say who is asking",
    )
    .filed(IN_CONNECTION),
    row("client", -2, 0, "2.4.0", "connection", "", "Connections of clients"),
    client("client|caching", 3, PERSONAL, "6.0.0", "(YES|NO)", "Whether keys of the next command are tracked"),
    client("client|getname", 2, PERSONAL, "2.6.9", "", "The name of this connection"),
    client("client|getredir", 2, PERSONAL, "6.0.0", "", "Where notices of tracking go"),
    client("client|help", 2, ANY_TIME, "5.0.0", "", "What can be called here"),
    client("client|id", 2, PERSONAL, "5.0.0", "", "The id of this connection"),
    client("client|info", 2, PERSONAL, "6.2.0", "", "This connection, in one line").hinted(CHANGING),
    client(
        "client|kill",
        -3,
        MANAGING,
        "2.4.0",
        "<ip:port> | <option> <value> ...",
        "Close connections: by ID, TYPE, USER, ADDR, LADDR; SKIPME yes|no; MAXAGE seconds",
    )
    .changing(),
    client("client|list", -2, MANAGING, "2.4.0", "[TYPE <type> | ID <id> ...]", "All connections, one per line")
        .hinted(CHANGING),
    client(
        "client|no-evict",
        3,
        MANAGING,
        "7.0.0",
        "(ON|OFF)",
        "Taken and without effect: no connection is closed for memory",
    ),
    client("client|reply", 3, PERSONAL, "3.2.0", "(ON|OFF|SKIP)", "Whether commands of this connection are answered"),
    client("client|setinfo", 4, PERSONAL, "7.2.0", "(LIB-NAME|LIB-VER) <value>", "The library of this client"),
    client("client|setname", 3, PERSONAL, "2.6.9", "<name>", "Name this connection"),
    client(
        "client|tracking",
        -3,
        PERSONAL,
        "6.0.0",
        "(ON|OFF)",
        "Taken and without effect: there are no keys to track",
    ),
    client("client|trackinginfo", 2, PERSONAL, "6.2.0", "", "What is tracked for this connection"),
    client("client|unblock", -3, MANAGING, "5.0.0", "<id> [TIMEOUT|ERROR]", "Nobody ever blocks here: 0"),
    client("client|unpause", 2, MANAGING, "6.2.0", "", "Nobody is ever paused here"),
    row("command", -1, ANY_TIME, "2.8.13", "server", "", "All commands").filed(IN_CONNECTION).hinted(UNORDERED),
    command("command|count", 2, "2.8.13", "", "How many commands there are"),
    command("command|docs", -2, "7.0.0", "[<command> ...]", "What commands do, in words").hinted(UNORDERED),
    command("command|getkeys", -4, "2.8.13", "<command> [<arg> ...]", "No command here has keys: an error"),
    command("command|getkeysandflags", -4, "7.0.0", "<command> [<arg> ...]", "No command here has keys: an error"),
    command("command|help", 2, "5.0.0", "", "What can be called here"),
    command("command|info", -2, "2.8.13", "[<command> ...]", "How commands are called").hinted(UNORDERED),
    command("command|list", -2, "7.0.0", "[FILTERBY (MODULE|ACLCAT|PATTERN) <value>]", "The names of commands")
        .hinted(UNORDERED),
    row(
        "hello",
        -1,
        PERSONAL | FAST | NO_AUTH | ALLOW_BUSY,
        "6.0.0",
        "connection",
        "[<protocol> [AUTH <user> <password>] [SETNAME <name>]]",
        "Choose the protocol",
    )
    .filed(IN_CONNECTION),
    row("info", -1, ANY_TIME, "1.0.0", "server", "[<section> ...]", "Facts and counters of this process")
        .filed(IN_DANGEROUS)
        .hinted(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
    row("ping", -1, FAST, "1.0.0", "connection", "[<message>]", "Whether somebody is there")
        .filed(IN_CONNECTION)
        .hinted(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    row("psubscribe", -2, PUBSUB | PERSONAL, "2.0.0", "pubsub", "<pattern> [<pattern> ...]", "Hear events by pattern"),
    row("publish", 3, PUBSUB | ANY_TIME | FAST, "2.0.0", "pubsub", "<channel> <message>", "Greet, as sentinels do")
        .changing(),
    row("punsubscribe", -1, PUBSUB | PERSONAL, "2.0.0", "pubsub", "[<pattern> ...]", "Hear no more by pattern"),
    row("quit", -1, PERSONAL | FAST | NO_AUTH | ALLOW_BUSY, "1.0.0", "connection", "", "Close this connection")
        .filed(IN_CONNECTION),
    row(
        "reset",
        1,
        PERSONAL | FAST | NO_AUTH | ALLOW_BUSY,
        "6.2.0",
        "connection",
        "",
        "Make this connection as if it were new",
    )
    .filed(IN_CONNECTION),
    row("role", 1, PERSONAL | FAST, "2.8.12", "server", "", "That this is a sentinel, and its masters")
        .filed(IN_ADMIN | IN_DANGEROUS),
    row("sentinel", -2, ADMIN, "2.8.4", "sentinel", "", "Masters, replicas and sentinels"),
    sentinel("sentinel|ckquorum", 3, "2.8.4", "<master>", "Whether quorum and majority can be reached"),
    sentinel("sentinel|config", -3, "6.2.0", "GET <pattern> | SET <name> <value>", "Settings of this sentinel")
        .changing(),
    sentinel("sentinel|debug", -2, "7.0.0", "[<name> <value> ...]", "Periods and limits, in milliseconds").changing(),
    sentinel("sentinel|failover", -3, "2.8.4", "<master> [COORDINATED]", "Hand over to the best replica").changing(),
    sentinel("sentinel|flushconfig", 2, "2.8.4", "", "Write the configuration file").changing(),
    sentinel("sentinel|get-master-addr-by-name", 3, "2.8.4", "<master>", "IP address and port of the master"),
    sentinel("sentinel|get-primary-addr-by-name", 3, "2.8.4", "<master>", "IP address and port of the master")
        .alias("sentinel|get-master-addr-by-name"),
    row("sentinel|help", 2, ANY_TIME, "6.2.0", "sentinel", "", "What can be called here"),
    sentinel("sentinel|info-cache", -3, "3.2.0", "<master> ...", "What a master and its replicas said last"),
    sentinel(
        "sentinel|is-master-down-by-addr",
        6,
        "2.8.4",
        "<ip> <port> <epoch> (<runid>|*)",
        "Whether this sentinel finds it down, and its vote",
    ),
    sentinel(
        "sentinel|is-primary-down-by-addr",
        6,
        "2.8.4",
        "<ip> <port> <epoch> (<runid>|*)",
        "Whether this sentinel finds it down, and its vote",
    )
    .alias("sentinel|is-master-down-by-addr"),
    sentinel("sentinel|master", 3, "2.8.4", "<master>", "State of a master"),
    sentinel("sentinel|masters", 2, "2.8.4", "", "State of all masters"),
    sentinel("sentinel|monitor", 6, "2.8.4", "<name> <ip> <port> <quorum>", "Watch one more master").changing(),
    sentinel("sentinel|myid", 2, "6.2.0", "", "The id of this sentinel"),
    sentinel("sentinel|pending-scripts", 2, "2.8.4", "", "Scripts that run or wait"),
    sentinel("sentinel|primaries", 2, "2.8.4", "", "State of all masters").alias("sentinel|masters"),
    sentinel("sentinel|primary", 3, "2.8.4", "<master>", "State of a master").alias("sentinel|master"),
    sentinel("sentinel|remove", 3, "2.8.4", "<master>", "Watch a master no more").changing(),
    sentinel("sentinel|replicas", 3, "5.0.0", "<master>", "State of the replicas"),
    sentinel("sentinel|reset", 3, "2.8.4", "<pattern>", "Forget what was found out about masters").changing(),
    sentinel("sentinel|sentinels", 3, "2.8.4", "<master>", "State of the other sentinels"),
    sentinel("sentinel|set", -5, "2.8.4", "<master> <option> <value> ...", "Change how a master is watched").changing(),
    sentinel("sentinel|simulate-failure", -3, "3.2.0", "<moment> ...", "End this process at a moment of a failover")
        .changing(),
    sentinel("sentinel|slaves", 3, "2.8.0", "<master>", "State of the replicas")
        .deprecated("5.0.0", "`SENTINEL REPLICAS`"),
    sentinel(
        "sentinel|switchover",
        -3,
        "7.0.0",
        "<master> [<node>]",
        "Hand over to that node or the best replica, and answer when it is done: from, to, epoch, pause in us",
    )
    .changing(),
    row(
        "shutdown",
        -1,
        MANAGING | NO_MULTI | ALLOW_BUSY,
        "1.0.0",
        "server",
        "[NOSAVE|SAVE] [NOW] [FORCE] [ABORT]",
        "End this process",
    )
    .changing(),
    row("subscribe", -2, PUBSUB | PERSONAL, "2.0.0", "pubsub", "<channel> [<channel> ...]", "Hear events by name"),
    row("unsubscribe", -1, PUBSUB | PERSONAL, "2.0.0", "pubsub", "[<channel> ...]", "Hear no more by name"),
];

/// Commands without those of others.
pub(super) fn commands() -> impl Iterator<Item = &'static Spec> {
    TABLE.iter().filter(|spec| spec.container().is_none())
}

/// Name and arity of whatever can be called.
#[cfg(test)]
pub(in crate::cores::sentinel) fn callable() -> impl Iterator<Item = (&'static str, i64)> {
    TABLE.iter().filter(|spec| spec.subcommands().next().is_none()).map(|spec| (spec.name, spec.arity))
}

/// The row of that name, in any case of letters.
pub(super) fn find(name: &[u8]) -> Option<&'static Spec> {
    // Sorted once, as every command of every client is looked up here.
    static BY_NAME: LazyLock<Vec<&'static Spec>> = LazyLock::new(|| {
        let mut rows: Vec<_> = TABLE.iter().collect();
        rows.sort_by_key(|spec| spec.name);
        rows
    });
    if name.len() > NAME_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let at = BY_NAME.binary_search_by(|spec| spec.name.as_bytes().cmp(&name)).ok()?;
    Some(BY_NAME[at])
}

/// Longer than any name.
const NAME_MAX: usize = 64;

/// The command or subcommand that these words call; the container if the subcommand is missing. None: there is no such.
pub(super) fn called(words: &[Bytes]) -> Option<&'static Spec> {
    let command = words.first().filter(|word| !word.contains(&b'|')).and_then(|word| find(word))?;
    match words.get(1) {
        Some(second) if command.subcommands().next().is_some() => {
            find(&[command.name.as_bytes(), b"|", second].concat())
        }
        _ => Some(command),
    }
}

/// Commands of redis-sentinel that are refused here, and why.
const REFUSED: &[(&str, &str)] =
    &[("client|pause", "CLIENT PAUSE is not offered here: it would hold up the questions of other sentinels")];

/// What these words call, or the error that Redis answers if they call nothing.
pub(super) fn resolve(words: &[Bytes]) -> Result<&'static Spec, String> {
    match called(words) {
        Some(spec) if spec.takes(words.len()) => Ok(spec),
        Some(spec) => Err(wrong_arity(spec.name)),
        None => Err(unknown(words)),
    }
}

fn unknown(words: &[Bytes]) -> String {
    let first = words.first().map_or(&b""[..], |word| &word[..]);
    let container = find(first).filter(|spec| spec.container().is_none());
    if let (Some(container), Some(second)) = (container, words.get(1)) {
        let name = format!("{}|{}", container.name, String::from_utf8_lossy(second).to_ascii_lowercase());
        return match REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some((_, why)) => format!("ERR {why}"),
            None => {
                let (sub, command) = (shown(second, SHOWN_MAX), container.name.to_ascii_uppercase());
                format!("ERR unknown subcommand '{sub}'. Try {command} HELP.")
            }
        };
    }
    let mut said = String::new();
    for word in words.iter().skip(1) {
        if said.len() >= SHOWN_MAX {
            break;
        }
        said += &format!("'{}' ", shown(word, SHOWN_MAX - said.len()));
    }
    format!("ERR unknown command '{}', with args beginning with: {said}", shown(first, SHOWN_MAX))
}

/// How much of a command is repeated in an error, bytes.
const SHOWN_MAX: usize = 128;

fn shown(word: &[u8], max: usize) -> String {
    String::from_utf8_lossy(&word[..word.len().min(max)]).into_owned()
}
