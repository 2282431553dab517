//! The cluster file: TOML to a [`Config`], or every fault of it at once.

use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, Error};

use super::draft::{Draft, DraftNode, DraftVip};
use super::faults::{Fault, Faults, Warning, shown};
use super::reader::{Placed, Reader, Table, path};
use super::{Config, Fencing, Persistence, Proxy, Redis, include, keys, rules};
use crate::base::node::Roles;
use crate::base::{NodeName, Secret, Secrets};

/// A cluster file is never larger, bytes.
const FILE_MAX: u64 = 1 << 20;
/// A password is never longer, bytes.
const PASSWORD_MAX: usize = 512;
/// Lines of a password file.
const LINES_MAX: usize = 2;
/// So many lines that are no TOML are told one by one.
const SYNTAX_FAULTS_MAX: usize = 5;
/// Permission bits that let others than the owner at a file.
const OTHERS: u32 = 0o077;
/// Those that let them change it.
const OTHERS_WRITE: u32 = 0o022;
const WORLD_WRITES: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// A file as [`parse`] gets it: its text and its permission bits.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<(String, u32)>;

/// Finds the files that match a pattern of `redis.include`.
type Expand<'a> = &'a dyn Fn(&str) -> Vec<String>;

/// Reads and judges the cluster file at `path`, with the password file that it names and the includes that exist now.
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), Faults> {
    let (text, mode) = read_file(path).map_err(|error| Faults(vec![Fault::of_file(path, cannot_read(&error))]))?;
    let mut result = read(&text, path, mode, &read_file, &include::expand);
    let mut faults: Vec<_> = changeable(path, mode).map(|said| Fault::of_file(path, said)).into_iter().collect();
    for include in result.iter().flat_map(|(config, _)| &config.redis.include) {
        let mode = std::fs::metadata(include).map_or(0, |about| about.permissions().mode() & 0o7777);
        faults.extend(changeable(Path::new(include), mode).map(|said| Fault::of_file(Path::new(include), said)));
    }
    if !faults.is_empty() {
        faults.extend(result.err().into_iter().flat_map(|faults| faults.0));
        result = Err(Faults(faults));
    }
    result
}

/// Judges `text` as the cluster file `file`. `read` gives the password file and its permission bits. Patterns of
/// `redis.include` stay as they are.
pub fn parse(text: &str, file: &Path, read_other: Read<'_>) -> Result<(Config, Vec<Warning>), Faults> {
    read(text, file, 0o600, read_other, &|pattern| vec![pattern.to_owned()])
}

/// What is wrong with a file that others than its owner can change, or put another one in the place of: they could have vigie
/// do what they like, or redis.
fn changeable(path: &Path, mode: u32) -> Option<String> {
    if mode & OTHERS_WRITE != 0 {
        return Some(format!("others can change it (mode {mode:04o}); run: chmod go-w {}", path.display()));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mode = std::fs::metadata(directory).ok()?.permissions().mode() & 0o7777;
    // Where the sticky bit is set, everybody replaces only what is their own.
    (mode & WORLD_WRITES != 0 && mode & STICKY == 0).then(|| {
        let directory = directory.display();
        format!("anybody can replace it ({directory} has mode {mode:04o}); run: chmod o-w {directory}")
    })
}

/// The text of a file and its permission bits. It must be one of the user that runs vigie, or of root, and so must the link
/// that leads to it, if it is one.
fn read_file(path: &Path) -> io::Result<(String, u32)> {
    // What is no file must not be waited for, such as a pipe.
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if about.len() > FILE_MAX {
        return Err(io::Error::other(format!("it has {} bytes, {FILE_MAX} are allowed", about.len())));
    }
    let own = nix::unistd::geteuid().as_raw();
    let link = std::fs::symlink_metadata(path)?;
    let link = link.is_symlink().then_some(("the link to it", link.uid()));
    for (what, owner) in link.into_iter().chain([("it", about.uid())]) {
        if owner != own && owner != 0 {
            let expected = if own == 0 { String::new() } else { format!(" or user {own}, that runs vigie") };
            let said = format!("{what} belongs to user {owner}; root{expected} is expected");
            return Err(io::Error::other(said));
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, about.permissions().mode() & 0o7777))
}

fn cannot_read(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => "it cannot be read: UTF-8 text is expected".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

fn read(
    text: &str,
    file: &Path,
    mode: u32,
    read_other: Read<'_>,
    expand: Expand<'_>,
) -> Result<(Config, Vec<Warning>), Faults> {
    let mut reader = Reader::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What is left of a broken file would only give faults that are none. The parser finds several in one line, and
        // something in every line of what was never meant to be TOML.
        errors.iter().for_each(|error| syntax(&mut reader, error));
        reader.faults.sort_by_key(|fault| fault.line);
        reader.faults.dedup_by_key(|fault| fault.line);
        if let Some(next) = reader.faults.get(SYNTAX_FAULTS_MAX).map(|fault| fault.line) {
            let more = reader.faults.len() - SYNTAX_FAULTS_MAX;
            reader.faults.truncate(SYNTAX_FAULTS_MAX);
            reader.fault(next, "", None, format!("not TOML, as {more} lines from here on; is it the right file?"));
        }
        return Err(Faults::sorted(reader.faults));
    }
    let root = root.get_ref();
    reader.check_sections(root);
    let cluster = reader.table(root, "cluster");
    let proxy = reader.table(root, "proxy");
    let redis = reader.table(root, "redis");
    let sentinel = reader.table(root, "sentinel");
    reader.word(&cluster, &keys::DURABILITY);
    let password = password(&mut reader, &cluster, mode, read_other);
    let draft = Draft {
        name: reader.text(&cluster, &keys::CLUSTER_NAME, cluster_name).map(|name| name.value),
        quorum: required_number(&mut reader, &cluster, &keys::QUORUM),
        secret: secret(&mut reader, &cluster, password.as_ref(), read_other),
        password,
        down_after: reader.time(&cluster, &keys::DOWN_AFTER),
        busy_grace: time(&mut reader, &cluster, &keys::BUSY_GRACE),
        fencing: reader.placed_word(&cluster, &keys::FENCING).map(fencing),
        lease: reader.time(&cluster, &keys::LEASE),
        failover_timeout: time(&mut reader, &cluster, &keys::FAILOVER_TIMEOUT).value,
        vips: reader.tables(root, "vip").iter().map(|table| vip(&mut reader, table)).collect(),
        proxy: read_proxy(&mut reader, &proxy),
        redis: read_redis(&mut reader, &redis, expand),
        sentinel: number(&mut reader, &sentinel, &keys::SENTINEL_PORT),
        stock: reader
            .texts(&sentinel, &keys::SENTINEL_STOCK, rules::node_address)
            .map(|stock| stock.value)
            .unwrap_or_default(),
        nodes: reader.tables(root, "node").iter().map(|table| node(&mut reader, table)).collect(),
    };
    rules::judge(&mut reader, &draft);
    let Reader { faults, mut warnings, .. } = reader;
    match (faults.is_empty(), draft.finish()) {
        (true, Some(config)) => {
            warnings.sort_by_key(|warning| warning.line.unwrap_or(usize::MAX));
            Ok((config, warnings))
        }
        _ => Err(Faults::sorted(faults)),
    }
}

fn syntax(reader: &mut Reader<'_>, error: &Error) {
    let line = error.span().map(|span| reader.line_at(span.start));
    // The parser's own rendering repeats the line, which may hold the password.
    reader.fault(line, "", None, format!("not TOML: {}", error.message().replace('\n', " ")));
}

/// A number with a default, which also stands in after a fault.
fn number<'t, T: TryFrom<u32> + Default>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
    key: &keys::Key<u32>,
) -> Placed<T> {
    let default = || key.default.and_then(|value| T::try_from(value).ok()).unwrap_or_default();
    reader.number(table, key).unwrap_or_else(|| Placed { value: default(), line: None })
}

/// A duration, or its default after a fault, so that the search for faults goes on.
fn time<'t>(reader: &mut Reader<'t>, table: &Table<'t>, key: &keys::Key<Duration>) -> Placed<Duration> {
    reader.time(table, key).unwrap_or_else(|| Placed { value: key.default.unwrap_or_default(), line: None })
}

fn required_number<'t, T: TryFrom<u32>>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
    key: &keys::Key<u32>,
) -> Option<Placed<T>> {
    if !reader.has(table, key) {
        reader.missing(table, key);
    }
    reader.number(table, key)
}

fn required<'t, T>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
    key: &keys::Key<&'static str>,
    judge: impl Fn(&str) -> Result<T, String>,
) -> Option<Placed<T>> {
    if !reader.has(table, key) {
        reader.missing(table, key);
    }
    reader.text(table, key, judge)
}

fn cluster_name(text: &str) -> Result<String, String> {
    let name = text.parse::<NodeName>().map_err(|_| "not a name that Sentinel clients can ask for".to_owned())?;
    Ok(name.as_str().to_owned())
}

fn fencing(word: Placed<&'static str>) -> Placed<Fencing> {
    let value = match word.value {
        "lease" => Fencing::Lease,
        _ => Fencing::Off,
    };
    Placed { value, line: word.line }
}

fn password<'t>(reader: &mut Reader<'t>, table: &Table<'t>, mode: u32, read_other: Read<'_>) -> Option<Secrets> {
    let inline = reader.has(table, &keys::PASSWORD);
    let by_file = reader.has(table, &keys::PASSWORD_FILE);
    if inline && by_file {
        let said = "password and password_file are both there; remove one of them";
        reader.fault(table.line, path(&keys::PASSWORD_FILE), None, said);
    }
    if !inline && !by_file {
        let said = "missing; write the password into a file that only root can read, and its path here";
        reader.fault(table.line, path(&keys::PASSWORD_FILE), None, said);
    }
    let from_text = reader.text(table, &keys::PASSWORD, judged_password);
    if let Some(Placed { line, .. }) = &from_text
        && mode & OTHERS != 0
    {
        let said = format!("others can read it (mode {mode:04o}): chmod 600, or use password_file");
        reader.warn(*line, path(&keys::PASSWORD), said);
    }
    let from_text = from_text.map(|text| Placed { value: vec![text.value], line: text.line });
    let password = from_text.or_else(|| kept_in_file(reader, table, &keys::PASSWORD_FILE, read_other))?;
    let key = if inline { &keys::PASSWORD } else { &keys::PASSWORD_FILE };
    // Of two, the shorter one is the weaker one.
    let length = password.value.iter().map(String::len).min().unwrap_or(0);
    if length < rules::PASSWORD_ADVISED {
        let said = format!(
            "{length} characters; with recorded traffic, short passwords can be tried until one fits: {} or more are \
             advised",
            rules::PASSWORD_ADVISED
        );
        reader.warn(password.line, path(key), said);
    }
    secrets(password.value)
}

/// The cluster's own secret. The outer none: there is no such key, and it is to be derived from the password.
fn secret<'t>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
    password: Option<&Secrets>,
    read_other: Read<'_>,
) -> Option<Option<Secrets>> {
    if !reader.has(table, &keys::SECRET_FILE) {
        let said = "missing: the cluster's own secret is derived from the password, so that every application that knows \
                    the password could command the cluster; write 32 random characters or more into a file that only \
                    root can read, the same on every node, and its path here";
        reader.warn(table.line, path(&keys::SECRET_FILE), said);
        return None;
    }
    let Some(secret) = kept_in_file(reader, table, &keys::SECRET_FILE, read_other) else { return Some(None) };
    if secret.value.iter().any(|secret| password.is_some_and(|password| password.accept(secret.as_bytes()))) {
        let said = "it holds the password, which applications know; the secret must be another one";
        reader.fault(secret.line, path(&keys::SECRET_FILE), None, said);
    }
    let length = secret.value.iter().map(String::len).min().unwrap_or(0);
    if length < rules::SECRET_LEAST {
        let said = format!("{length} characters; allowed: {} or more, random", rules::SECRET_LEAST);
        reader.fault(secret.line, path(&keys::SECRET_FILE), None, said);
    }
    Some(secrets(secret.value))
}

fn secrets(lines: Vec<String>) -> Option<Secrets> {
    let mut lines = lines.into_iter().map(Secret::new);
    Some(Secrets::new(lines.next()?, lines.next()))
}

/// The one or two lines of a file that a key names.
fn kept_in_file<'t>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
    key: &keys::Key<&'static str>,
    read_other: Read<'_>,
) -> Option<Placed<Vec<String>>> {
    let place = reader.text(table, key, absolute)?;
    match lines_in(&place.value, read_other) {
        Ok(value) => Some(Placed { value, line: place.line }),
        Err(said) => {
            let written = format!("{:?}", place.value.display().to_string());
            reader.fault(place.line, path(key), Some(&written), said);
            None
        }
    }
}

fn lines_in(file: &Path, read_other: Read<'_>) -> Result<Vec<String>, String> {
    let (text, mode) = read_other(file).map_err(|error| cannot_read(&error))?;
    if mode & OTHERS != 0 {
        return Err(format!("others can get at it (mode {mode:04o}); run: chmod 600 {}", file.display()));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let lines: Vec<_> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    if lines.len() > LINES_MAX {
        let said =
            "one line is expected, or two while one takes the other's place: the first is used, both are accepted";
        return Err(format!("it has {} lines; {said}", lines.len()));
    }
    lines
        .into_iter()
        .map(judged_password)
        .collect::<Result<_, _>>()
        .map_err(|said| format!("{said}; each line of the file must hold {}", keys::PASSWORD.allowed))
}

fn judged_password(text: &str) -> Result<String, String> {
    let wrong = |character: char| character.is_whitespace() || character.is_control();
    match text {
        "" => Err("the password is empty".to_owned()),
        text if text.len() > PASSWORD_MAX => Err(format!("the password has {} bytes", text.len())),
        text if text.contains(wrong) => Err("the password holds a space or a control character".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    match text {
        text if !text.starts_with('/') => Err("not an absolute path".to_owned()),
        text if text.contains(char::is_control) => Err("a control character in a path".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

fn vip<'t>(reader: &mut Reader<'t>, table: &Table<'t>) -> DraftVip {
    let addresses = reader.texts(table, &keys::VIP_ADDRESSES, rules::with_prefix);
    if !reader.has(table, &keys::VIP_ADDRESSES) {
        reader.missing(table, &keys::VIP_ADDRESSES);
    }
    let peers = reader.texts(table, &keys::VIP_PEERS, rules::peer);
    DraftVip {
        line: table.line,
        addresses: addresses.map(|addresses| rules::address_list(reader, addresses)).unwrap_or_default(),
        interface: required(reader, table, &keys::VIP_INTERFACE, interface).map(|name| name.value),
        id: required_number(reader, table, &keys::VIRTUAL_ROUTER_ID),
        version: reader.number(table, &keys::VRRP_VERSION),
        advert_interval: reader.time(table, &keys::ADVERT_INTERVAL),
        preempt: reader.flag(table, &keys::PREEMPT).value,
        peers: peers.map(|peers| rules::peer_list(reader, peers)).unwrap_or_default(),
    }
}

/// What the kernel allows as the name of an interface (`dev_valid_name`), and no control characters.
fn interface(text: &str) -> Result<String, String> {
    let wrong = |character: char| character.is_whitespace() || character.is_control() || matches!(character, '/' | ':');
    match text {
        "" | "." | ".." => Err("not the name of an interface".to_owned()),
        text if text.len() > 15 => Err(format!("{} bytes are too long for an interface", text.len())),
        text if text.contains(wrong) => Err("not the name of an interface".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn read_proxy<'t>(reader: &mut Reader<'t>, table: &Table<'t>) -> Proxy {
    reader.time(table, &keys::CLIENT_TIMEOUT);
    Proxy {
        port: number(reader, table, &keys::PROXY_PORT).value,
        connect_timeout: time(reader, table, &keys::CONNECT_TIMEOUT).value,
        check_interval: time(reader, table, &keys::CHECK_INTERVAL).value,
        hold_timeout: time(reader, table, &keys::HOLD_TIMEOUT).value,
        max_clients: number(reader, table, &keys::MAX_CLIENTS).value,
    }
}

fn read_redis<'t>(reader: &mut Reader<'t>, table: &Table<'t>, expand: Expand<'_>) -> Redis {
    let patterns = reader.texts(table, &keys::INCLUDE, include::pattern);
    let mut files = Vec::new();
    for pattern in patterns.map(|patterns| patterns.value).unwrap_or_default() {
        let found = expand(&pattern.value);
        if found.is_empty() {
            reader.warn(pattern.line, path(&keys::INCLUDE), format!("{:?} matches no file here", pattern.value));
        }
        files.extend(found);
    }
    Redis {
        port: number(reader, table, &keys::REDIS_PORT).value,
        server: reader.text(table, &keys::SERVER, server).map(|server| server.value).unwrap_or_default(),
        data_dir: reader.text(table, &keys::DATA_DIR, absolute).map(|path| path.value),
        user: reader.text(table, &keys::USER, user).map(|user| user.value),
        persistence: match reader.word(table, &keys::PERSISTENCE) {
            "none" => Persistence::None,
            "rdb" => Persistence::Rdb,
            _ => Persistence::Aof,
        },
        include: files,
        tune_host: reader.flag(table, &keys::TUNE_HOST).value,
    }
}

fn user(text: &str) -> Result<String, String> {
    match text {
        "" => Err("empty".to_owned()),
        "root" => Err("redis never runs as root when it can run as somebody else".to_owned()),
        text if text.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/')) => {
            Err("a character that no name of a user has".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

fn server(text: &str) -> Result<String, String> {
    match text {
        "" => Err("empty".to_owned()),
        text if text.contains(|c: char| c.is_control() || c.is_whitespace()) => {
            Err("a space or a control character in the name of a program".to_owned())
        }
        text if text.contains('/') && !text.starts_with('/') => Err("a relative path".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn node<'t>(reader: &mut Reader<'t>, table: &Table<'t>) -> DraftNode {
    DraftNode {
        line: table.line,
        name: required(reader, table, &keys::NODE_NAME, |text| text.parse().map_err(|_| "not a node name".to_owned())),
        address: required(reader, table, &keys::ADDRESS, rules::node_address),
        roles: roles(reader, table),
        priority: number(reader, table, &keys::PRIORITY),
        replica_priority: number(reader, table, &keys::REPLICA_PRIORITY),
        bootstrap_master: reader.flag(table, &keys::BOOTSTRAP_MASTER),
    }
}

fn roles<'t>(reader: &mut Reader<'t>, table: &Table<'t>) -> Option<Placed<Roles>> {
    if !reader.has(table, &keys::ROLES) {
        reader.missing(table, &keys::ROLES);
    }
    let Placed { value: words, line } =
        reader.texts(table, &keys::ROLES, |text| role(text).map(|_| text.to_owned()))?;
    let faults_before = reader.faults.len();
    let mut roles = Roles::default();
    for word in &words {
        let Ok(field) = role(&word.value) else { continue };
        if std::mem::replace(field(&mut roles), true) {
            reader.fault(word.line, path(&keys::ROLES), Some(&word.value), "the same role twice; remove one");
        }
    }
    if words.is_empty() {
        let said = format!("a node without a role does nothing; allowed: {}", keys::ROLES.allowed);
        reader.fault(line, path(&keys::ROLES), None, said);
    }
    (reader.faults.len() == faults_before).then_some(Placed { value: roles, line })
}

/// The field of [`Roles`] that a word stands for.
pub(super) fn role(word: &str) -> Result<fn(&mut Roles) -> &mut bool, String> {
    match word {
        "proxy" => Ok(|roles| &mut roles.proxy),
        "redis" => Ok(|roles| &mut roles.redis),
        "sentinel" => Ok(|roles| &mut roles.sentinel),
        other => Err(match super::faults::meant(other, ["proxy", "redis", "sentinel"].into_iter()) {
            Some(role) => format!("unknown role {:?}; did you mean {role:?}?", shown(other)),
            None => format!("unknown role {:?}", shown(other)),
        }),
    }
}

#[cfg(test)]
mod tests;
