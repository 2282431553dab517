//! The kernel command line of a box, and which node of the file this one is.
//!
//! A contradiction or a typo is a fault: a box that misreads who it is does more harm than one that serves nothing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::faults::{Fault, Faults, distance, meant, shown};
use super::{Config, Node, file, rules};
use crate::base::NodeName;
use crate::wire::frame::Roles;

/// What the faults call their source.
const PLACE: &str = "kernel command line";
const PREFIX: &str = "vigie.";
const NAMES: [&str; 6] = ["node", "role", "address", "gateway", "config", "reset"];
const ROLES: &str = "one or more of proxy, redis and sentinel, separated by commas";

/// What the kernel command line says to vigie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// `vigie.node=`
    pub node: Option<NodeName>,
    /// `vigie.role=a,b`: instead of the roles in the file.
    pub role: Option<Roles>,
    /// `vigie.address=192.168.0.4/24`
    pub address: Option<(IpAddr, u8)>,
    /// `vigie.gateway=`, in the subnet of the address.
    pub gateway: Option<IpAddr>,
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
        let mut kernel = Self::default();
        let mut faults = Vec::new();
        let mut seen: Vec<(&str, String)> = Vec::new();
        for word in words(line) {
            let Some(name) = ours(&word) else { continue };
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
                faults.push(fault(key, None, "a value is missing after '='"));
                continue;
            };
            match seen.iter().find(|(before, _)| *before == known) {
                Some((_, before)) if before == value => continue,
                Some((_, before)) => {
                    let said = format!("it is also said to be {:?}; say it once", shown(before));
                    faults.push(fault(key, Some(value), said));
                    continue;
                }
                None => seen.push((known, value.to_owned())),
            }
            if let Err(said) = kernel.set(known, value) {
                faults.push(fault(key, Some(value), said));
            }
        }
        if faults.is_empty() {
            kernel.contradictions(&mut faults);
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
                let example = |said| format!("{said}; allowed: an address with prefix length, like 192.168.0.4/24");
                self.address = Some(rules::with_prefix(value).map_err(example)?);
            }
            "gateway" => {
                let example = |said| format!("{said}; allowed: an address without prefix length, like 192.168.0.254");
                self.gateway = Some(rules::ip(value).map_err(example)?);
            }
            "config" if value.starts_with('/') => self.config = Some(PathBuf::from(value)),
            "config" => return Err("allowed: an absolute path".to_owned()),
            _ if value == "1" => self.reset = true,
            _ => return Err("allowed: 1; leave it out to keep the state".to_owned()),
        }
        Ok(())
    }

    fn contradictions(&self, faults: &mut Vec<Fault>) {
        let Some(gateway) = self.gateway else { return };
        let said = match self.address {
            None => "a gateway without vigie.address= leads nowhere; give both or none".to_owned(),
            Some((address, _)) if address == gateway => {
                "this is vigie.address= itself; allowed: another host".to_owned()
            }
            Some((address, prefix)) if !reaches(address, gateway, prefix) => {
                format!(
                    "it cannot be reached from vigie.address={address}/{prefix}; allowed: an address of that subnet"
                )
            }
            Some(_) => return,
        };
        faults.push(fault("vigie.gateway", Some(&gateway.to_string()), said));
    }
}

/// Whether a host at `address` reaches `gateway` without another router.
fn reaches(address: IpAddr, gateway: IpAddr, prefix: u8) -> bool {
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    rules::in_subnet(address, gateway, prefix) || (address.is_ipv6() && link_local)
}

fn fault(key: &str, value: Option<&str>, expected: impl Into<String>) -> Fault {
    let value = value.map(shown);
    Fault { file: Path::new(PLACE).into(), line: None, key: shown(key), value, expected: expected.into() }
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
    let configured = kernel.address.map(|(address, _)| address);
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

fn nodes(config: &Config) -> String {
    let nodes: Vec<String> = config.nodes.iter().map(|node| format!("{} ({})", node.name, node.address)).collect();
    nodes.join(", ")
}

#[cfg(test)]
mod tests;
