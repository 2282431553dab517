//! What this host says of itself: its kernel's command line, its name, its addresses.

use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::SockaddrLike;
use nix::unistd::gethostname;

/// The kernel command line; empty if it cannot be read.
pub fn kernel_command_line() -> String {
    fs::read_to_string("/proc/cmdline").unwrap_or_default()
}

/// The host name; empty if it has none.
pub fn name() -> String {
    gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// All addresses of all interfaces but the loopback's.
pub fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| interface.address);
    let addresses = addresses.filter_map(|address| match address.family()? {
        nix::sys::socket::AddressFamily::Inet => Some(IpAddr::V4(address.as_sockaddr_in()?.ip())),
        nix::sys::socket::AddressFamily::Inet6 => Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())),
        _ => None,
    });
    addresses.filter(|address| !address.is_loopback()).collect()
}

/// Lets this process have up to `wanted` files open at once, if the system does. Returns how many it may have. The usual
/// 1,024 of a process are less than a crowd of clients takes, and then there is none for what matters.
pub fn raise_file_limit(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let raised = soft.max(wanted.min(hard));
    if raised == soft {
        // A service whose limit is right may be forbidden even to set it again.
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    }
}
