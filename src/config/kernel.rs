//! The kernel command line of a box, and which node of the file this one is.
//!
//! A contradiction or a typo is a fault: a box that misreads who it is does more harm than one that serves nothing. The same
//! words may stand in a file beside it (`cmdline.txt`), for people who cannot change what the boot loader says.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::faults::{Fault, Faults, distance, meant, shown};
use super::{Config, Node, file, rules};
use crate::base::node::Roles;
use crate::base::{NodeName, Place};

/// What the faults call their source.
const PLACE: &str = "kernel command line";
const PREFIX: &str = "vigie.";
const NAMES: [&str; 10] = ["node", "role", "address", "gateway", "dns", "ntp", "console", "shell", "config", "reset"];
const ROLES: &str = "one or more of proxy, redis and sentinel, separated by commas";

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// It is said, with the length of its prefix.
    Static(IpAddr, u8),
    /// A DHCP server tells it, and the gateway and name servers.
    Dhcp,
}

impl Address {
    /// The address that is said.
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Static(ip, _) => Some(ip),
            Self::Dhcp => None,
        }
    }
}

/// What the kernel command line says to vigie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// `vigie.node=`
    pub node: Option<NodeName>,
    /// `vigie.role=a,b`: instead of the roles in the file.
    pub role: Option<Roles>,
    /// `vigie.address=192.168.0.4/24`, or `dhcp`.
    pub address: Option<Address>,
    /// `vigie.gateway=`, in the subnet of the address.
    pub gateway: Option<IpAddr>,
    /// `vigie.dns=a,b`: name servers.
    pub dns: Vec<IpAddr>,
    /// `vigie.ntp=a,b`: time servers, addresses or host names.
    pub ntp: Vec<String>,
    /// `vigie.console=ttyS0`: the terminal that shows the status, below `/dev`; without it that of the kernel.
    pub console: Option<String>,
    /// `vigie.shell=on`: a shell of root for who types at the console.
    pub shell: bool,
    /// `vigie.config=`: path of the cluster file.
    pub config: Option<PathBuf>,
    /// `vigie.reset=1`: forget all state.
    pub reset: bool,
}

/// Which node this is, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its place in [`Config::nodes`].
    pub node: usize,
    /// Its roles: those of the file, or those of `vigie.role=`.
    pub roles: Roles,
}

/// Why it cannot be told which node this is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A node was named that the file does not have.
    #[error("{by} names the node {name:?}, which the file does not have; its nodes: {nodes}")]
    NotInFile {
        /// Who named it: `--node` or `vigie.node=`.
        by: &'static str,
        /// The name.
        name: String,
        /// The nodes of the file.
        nodes: String,
    },
    /// Nothing fits.
    #[error("no node of the file is this one; tried {tried}; its nodes: {nodes}; name one with --node or vigie.node=")]
    NoneFits {
        /// What was tried, in order.
        tried: String,
        /// The nodes of the file.
        nodes: String,
    },
    /// Two facts name different nodes.
    #[error("{first}, but {second}; name the right node with --node or vigie.node=, or mend the wrong one")]
    Contradiction {
        /// What one says.
        first: String,
        /// What the other says.
        second: String,
    },
    /// `vigie.role=` would change the set of voters.
    #[error(
        "vigie.role= gives the role sentinel to {node}, which is none in the file: the voters are those of the file, \
         on every node alike"
    )]
    NewVoter {
        /// The node.
        node: NodeName,
    },
}

impl Kernel {
    /// Reads a kernel command line (`/proc/cmdline`). What does not begin with `vigie.`, or nearly so, is not ours.
    pub fn parse(line: &str) -> Result<Self, Faults> {
        Self::of(words(line).into_iter().map(|word| (Path::new(PLACE), word)))
    }

    /// The same, with the words of `file` as if they stood there too. In it lines may end anywhere between words, and what
    /// follows a `#` is for people. Both may say the same; different things are a contradiction.
    pub fn parse_with(line: &str, file: &Path, text: &str) -> Result<Self, Faults> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let more = lines.flat_map(words).map(|word| (file, word));
        Self::of(words(line).into_iter().map(|word| (Path::new(PLACE), word)).chain(more))
    }

    fn of<'a>(words: impl Iterator<Item = (&'a Path, String)>) -> Result<Self, Faults> {
        let mut kernel = Self::default();
        let mut faults = Vec::new();
        let mut seen: Vec<(&str, String, &Path)> = Vec::new();
        for (place, word) in words {
            let Some(name) = ours(&word) else { continue };
            let fault = |key: &str, value: Option<&str>, said: String| fault(place, key, value, said);
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word.as_str(), None),
            };
            let known = NAMES.iter().copied().find(|known| key.strip_prefix(PREFIX) == Some(*known));
            let Some(known) = known else {
                let hint = match meant(name, NAMES.iter().copied()) {
                    Some(name) => format!("did you mean {PREFIX}{name}=?"),
                    None => format!("known are {}", NAMES.map(|name| format!("{PREFIX}{name}=")).join(" ")),
                };
                faults.push(fault(key, value, format!("unknown; {hint}")));
                continue;
            };
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                faults.push(fault(key, None, "a value is missing after '='".to_owned()));
                continue;
            };
            match seen.iter().find(|(before, ..)| *before == known) {
                Some((_, before, _)) if before == value => continue,
                Some((_, before, elsewhere)) => {
                    let by = if *elsewhere == place { String::new() } else { format!(" ({})", elsewhere.display()) };
                    let said = format!("it is also said to be {:?}{by}; say it once", shown(before));
                    faults.push(fault(key, Some(value), said));
                    continue;
                }
                None => seen.push((known, value.to_owned(), place)),
            }
            if let Err(said) = kernel.set(known, value) {
                faults.push(fault(key, Some(value), said));
            }
        }
        if faults.is_empty()
            && let Err(said) = kernel.reaches_gateway()
        {
            for (_, gateway, place) in seen.iter().filter(|(name, ..)| *name == "gateway") {
                faults.push(fault(place, "vigie.gateway", Some(gateway), said.clone()));
            }
        }
        if faults.is_empty() { Ok(kernel) } else { Err(Faults(faults)) }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "node" => {
                self.node = Some(value.parse().map_err(|error: crate::base::names::NameError| error.to_string())?)
            }
            "role" => self.role = Some(roles(value)?),
            "address" => {
                let example =
                    |said| format!("{said}; allowed: an address with prefix length, like 192.168.0.4/24, or dhcp");
                self.address = Some(match value {
                    "dhcp" => Address::Dhcp,
                    _ => rules::with_prefix(value).map(|(ip, prefix)| Address::Static(ip, prefix)).map_err(example)?,
                });
            }
            "gateway" => {
                let example = |said| format!("{said}; allowed: an address without prefix length, like 192.168.0.254");
                self.gateway = Some(rules::ip(value).map_err(example)?);
            }
            "dns" => {
                let example = |said| format!("{said}; allowed: addresses of name servers, separated by commas");
                self.dns = value.split(',').map(rules::ip).collect::<Result<_, _>>().map_err(example)?;
            }
            "ntp" => {
                if let Some(wrong) = value.split(',').find(|name| !Place::is_host(name)) {
                    return Err(format!(
                        "{:?} is no address and no host name; allowed: time servers, separated by commas",
                        shown(wrong)
                    ));
                }
                self.ntp = value.split(',').map(str::to_owned).collect();
            }
            "console" => {
                let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if !value.starts_with("tty") || !plain(value) {
                    return Err("allowed: a terminal, like ttyS0 or tty1".to_owned());
                }
                self.console = Some(value.to_owned());
            }
            "shell" => {
                self.shell = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err("allowed: on or off; without it there is no shell at the console".to_owned()),
                }
            }
            "config" if value.starts_with('/') => self.config = Some(PathBuf::from(value)),
            "config" => return Err("allowed: an absolute path".to_owned()),
            _ if value == "1" => self.reset = true,
            _ => return Err("allowed: 1; leave it out to keep the state".to_owned()),
        }
        Ok(())
    }

    fn reaches_gateway(&self) -> Result<(), String> {
        match (self.gateway, self.address) {
            (None, _) | (Some(_), None) => Ok(()),
            (Some(_), Some(Address::Dhcp)) => {
                Err("the DHCP server tells the gateway (vigie.address=dhcp); give one or the other".to_owned())
            }
            (Some(gateway), Some(Address::Static(address, prefix))) => reaches(address, prefix, gateway),
        }
    }
}

/// Whether a host at `address` reaches `gateway` without another router; else why not.
pub(super) fn reaches(address: IpAddr, prefix: u8, gateway: IpAddr) -> Result<(), String> {
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if address == gateway {
        return Err("this is the address of this node itself; allowed: another host".to_owned());
    }
    if rules::in_subnet(address, gateway, prefix) || (address.is_ipv6() && link_local) {
        return Ok(());
    }
    Err(format!("it cannot be reached from {address}/{prefix}; allowed: an address of that subnet"))
}

fn fault(place: &Path, key: &str, value: Option<&str>, expected: String) -> Fault {
    Fault { file: place.into(), line: None, key: shown(key), value: value.map(shown), expected }
}

/// Words as the kernel splits them: at white space outside of double quotes, which go away.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            space if space.is_whitespace() && !quoted => words.push(String::new()),
            other => words.last_mut().into_iter().for_each(|word| word.push(other)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The name after the prefix of a word that is ours, or that was most likely meant to be: `vigei.node=` too.
fn ours(word: &str) -> Option<&str> {
    let key = word.split_once('=').map_or(word, |(key, _)| key);
    let (prefix, name) = key.split_once(['.', '_', '-']).unwrap_or((key, ""));
    let exact = key.strip_prefix(PREFIX);
    let near = || {
        let near = distance(&prefix.to_lowercase(), "vigie") <= 2;
        (near && NAMES.contains(&name.to_lowercase().as_str())).then_some(name)
    };
    exact.or_else(near)
}

fn roles(text: &str) -> Result<Roles, String> {
    let mut roles = Roles::default();
    for word in text.split(',') {
        let field = file::role(word).map_err(|said| format!("{said}; allowed: {ROLES}"))?;
        if std::mem::replace(field(&mut roles), true) {
            return Err(format!("the role {word} twice; allowed: {ROLES}"));
        }
    }
    Ok(roles)
}

/// Finds this node in the file: by `--node`, else by `vigie.node=`, else by its host name, else by an address that it
/// owns. With `vigie.role=` and no name, by its address only. Never by guessing: facts that name different nodes are an
/// error.
pub fn identify(
    config: &Config,
    node_arg: Option<&str>,
    kernel: &Kernel,
    hostname: &str,
    own_addresses: &[IpAddr],
) -> Result<Identity, IdentityError> {
    let configured = kernel.address.and_then(Address::ip);
    let owned: Vec<IpAddr> = own_addresses.iter().copied().chain(configured).collect();
    let node = match (node_arg, &kernel.node) {
        (Some(name), _) => named(config, "--node", name)?,
        (None, Some(name)) => named(config, "vigie.node=", name.as_str())?,
        (None, None) => found(config, kernel, hostname, &owned)?,
    };
    let Node { name, address, roles, .. } = &config.nodes[node];
    if let Some(configured) = configured.filter(|configured| configured != address) {
        return Err(IdentityError::Contradiction {
            first: format!("this is {name}, whose address in the file is {address}"),
            second: format!("vigie.address= says {configured}"),
        });
    }
    match kernel.role {
        Some(role) if role.sentinel && !roles.sentinel => Err(IdentityError::NewVoter { node: name.clone() }),
        role => Ok(Identity { node, roles: role.unwrap_or(*roles) }),
    }
}

fn named(config: &Config, by: &'static str, name: &str) -> Result<usize, IdentityError> {
    let found = config.nodes.iter().position(|node| node.name.as_str() == name);
    found.ok_or_else(|| IdentityError::NotInFile { by, name: shown(name), nodes: nodes(config) })
}

fn found(config: &Config, kernel: &Kernel, hostname: &str, owned: &[IpAddr]) -> Result<usize, IdentityError> {
    let by_host = config.nodes.iter().position(|node| node.name.as_str() == hostname && kernel.role.is_none());
    let mut by_address = (0..config.nodes.len()).filter(|n| owned.contains(&config.nodes[*n].address));
    let says = |n: usize| {
        let node = &config.nodes[n];
        format!("the address {} of {} is on this host", node.address, node.name)
    };
    let (first, second) = (by_address.next(), by_address.next());
    let contradiction = |first, second| Err(IdentityError::Contradiction { first, second });
    match (by_host, first, second) {
        (Some(host), None, _) => Ok(host),
        (Some(host), Some(_), _) if owned.contains(&config.nodes[host].address) => Ok(host),
        (Some(_), Some(other), _) => contradiction(format!("the host name is {hostname:?}"), says(other)),
        (None, Some(first), Some(second)) => contradiction(says(first), says(second)),
        (None, Some(only), None) => Ok(only),
        (None, None, _) => {
            let addresses: Vec<String> = owned.iter().map(ToString::to_string).collect();
            let addresses = if addresses.is_empty() { "none".to_owned() } else { addresses.join(" ") };
            let host = match kernel.role {
                Some(_) => "not the host name, because of vigie.role=".to_owned(),
                None => format!("the host name {:?}", shown(hostname)),
            };
            let tried =
                format!("--node (absent), vigie.node= (absent), {host}, the addresses of this host ({addresses})");
            Err(IdentityError::NoneFits { tried, nodes: nodes(config) })
        }
    }
}

pub(super) fn nodes(config: &Config) -> String {
    let nodes: Vec<String> = config.nodes.iter().map(|node| format!("{} ({})", node.name, node.address)).collect();
    nodes.join(", ")
}

#[cfg(test)]
mod tests;
