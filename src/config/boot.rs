//! What a box is to be, judged as a whole before anything of it is set up: the cluster file, the kernel command line and
//! what else they leave open. A box is named and gets its address from here; whatever does not fit together serves nothing.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::path::PathBuf;

use super::kernel::{self, Address, IdentityError, Kernel};
use super::{Config, rules};
use crate::base::NodeName;
use crate::base::node::Roles;

/// The interface of a box whose file has no virtual address.
const INTERFACE: &str = "eth0";

/// What a box is to set up. Shown as assignments for a shell, one a line, each value in single quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its node; none if its address is to tell, and is not known yet.
    pub node: Option<(NodeName, Roles)>,
    /// The interface that gets the address.
    pub interface: String,
    /// The address of the node: what the kernel command line says, else what follows from the file.
    pub address: Address,
    /// The cluster file that was judged.
    pub config: PathBuf,
    /// Everything else that was said.
    pub kernel: Kernel,
}

/// Why a box cannot be set up, in words that say what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Nobody says which node this is.
    #[error(
        "nothing says which node of the file this box is; say vigie.node=NAME on the kernel command line or in cmdline.txt; \
         nodes of the file: {nodes}"
    )]
    Nameless {
        /// The nodes of the file.
        nodes: String,
    },
    /// What is said does not fit the file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The file has the address and nothing tells the subnet.
    #[error(
        "the subnet of {node} is unknown: none of the virtual addresses is in one with {address}; say \
         vigie.address={address}/PREFIX or vigie.address=dhcp"
    )]
    NoPrefix {
        /// The node.
        node: NodeName,
        /// Its address in the file.
        address: IpAddr,
    },
    /// The gateway cannot be one.
    #[error("vigie.gateway = {gateway}: {why}")]
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// What is wrong with it.
        why: String,
    },
}

impl Boot {
    /// Judges a box by its file, which lies at `path`, and its kernel command line. Its host name and the addresses that it
    /// has already say nothing: both are set by what is found here.
    pub fn of(config: &Config, path: PathBuf, kernel: &Kernel) -> Result<Self, BootError> {
        let node = match (&kernel.node, kernel.address) {
            (Some(_), _) | (None, Some(Address::Static(..))) => Some(kernel::identify(config, None, kernel, "", &[])?),
            (None, Some(Address::Dhcp)) => None,
            (None, None) => return Err(BootError::Nameless { nodes: kernel::nodes(config) }),
        };
        let address = match (kernel.address, node) {
            (Some(address), _) => address,
            (None, Some(identity)) => of_file(config, identity.node)?,
            (None, None) => Address::Dhcp,
        };
        if let (Some(gateway), Address::Static(own, prefix)) = (kernel.gateway, address) {
            kernel::reaches(own, prefix, gateway).map_err(|why| BootError::Gateway { gateway, why })?;
        }
        Ok(Self {
            node: node.map(|identity| (config.nodes[identity.node].name.clone(), identity.roles)),
            interface: config.vips.first().map_or_else(|| INTERFACE.to_owned(), |vip| vip.interface.clone()),
            address,
            config: path,
            kernel: kernel.clone(),
        })
    }
}

/// The address of a node, in the subnet of a virtual address that clients reach it by.
fn of_file(config: &Config, node: usize) -> Result<Address, BootError> {
    let node = &config.nodes[node];
    let mut virtuals = config.vips.iter().flat_map(|vip| &vip.addresses);
    let beside = virtuals.find(|(ip, prefix)| rules::in_subnet(*ip, node.address, *prefix));
    let no_prefix = || BootError::NoPrefix { node: node.name.clone(), address: node.address };
    beside.map(|(_, prefix)| Address::Static(node.address, *prefix)).ok_or_else(no_prefix)
}

impl Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut put = |name: &str, value: &dyn Display| writeln!(f, "{name}={}", quoted(&value.to_string()));
        let joined = |list: &[String]| list.join(" ");
        let (name, roles) = match &self.node {
            Some((name, roles)) => (name.to_string(), roles.joined(",")),
            None => (String::new(), String::new()),
        };
        put("NODE", &name)?;
        put("ROLES", &roles)?;
        put("INTERFACE", &self.interface)?;
        match self.address {
            Address::Static(ip, prefix) => put("ADDRESS", &format_args!("{ip}/{prefix}"))?,
            Address::Dhcp => put("ADDRESS", &"dhcp")?,
        }
        let Kernel { gateway, dns, ntp, console, shell, reset, .. } = &self.kernel;
        put("GATEWAY", &gateway.map(|gateway| gateway.to_string()).unwrap_or_default())?;
        put("DNS", &joined(&dns.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
        put("NTP", &joined(ntp))?;
        put("CONSOLE", &console.as_deref().unwrap_or_default())?;
        put("CONSOLE_SHELL", &if *shell { "on" } else { "off" })?;
        put("RESET", &u8::from(*reset))?;
        put("CONFIG", &self.config.display())
    }
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
