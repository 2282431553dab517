//! This host: what it says of itself (its kernel's command line, its name, its addresses), and its kernel tuned for Redis.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

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

/// What redis asks of the kernel of its host (redis.io, "Administration", and what it warns of when it starts): the file,
/// the value, and whether what is there already is right.
type Tuned = (&'static str, &'static str, fn(&str) -> bool);
const TUNED: [Tuned; 3] = [
    ("proc/sys/vm/overcommit_memory", "1", |now| now == "1"),
    ("proc/sys/net/core/somaxconn", "4096", |now| now.parse::<u32>().is_ok_and(|now| now >= 4_096)),
    // The chosen one of several words is in brackets.
    ("sys/kernel/mm/transparent_hugepage/enabled", "never", |now| now.contains("[never]")),
];

/// Tunes the kernel for redis, for the whole host. `root` is the directory that `proc` and `sys` are in. Returns what could
/// not be set, one line each; what this kernel does not have needs no setting.
pub fn tune(root: &Path) -> Vec<String> {
    let tuned = |(file, wanted, right): Tuned| {
        let path = root.join(file);
        let before = fs::read_to_string(&path).ok()?;
        let before = before.trim();
        if right(before) {
            return None;
        }
        fs::write(&path, wanted).err().map(|error| format!("{} stays {before}: {error}", path.display()))
    };
    TUNED.into_iter().filter_map(tuned).collect()
}

/// Lets this process have up to `wanted` files open at once, if the system does; `beyond` what it was given at most, if it may
/// raise that. Returns how many it may have. The usual 1,024 of a process are less than a crowd of clients takes, and then there
/// is none for what matters. Makes system calls only, so that it can be called between fork and exec.
pub fn raise_file_limit(wanted: u64, beyond: bool) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    if soft >= wanted {
        // A service whose limit is right may be forbidden even to set it again.
        return soft;
    }
    if beyond && wanted > hard && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return wanted;
    }
    let most = soft.max(wanted.min(hard));
    match setrlimit(Resource::RLIMIT_NOFILE, most, hard) {
        Ok(()) => most,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_tuned_where_it_is_not_yet_right() {
        let root = tempfile::tempdir().unwrap();
        let (overcommit, backlog) = ("proc/sys/vm/overcommit_memory", "proc/sys/net/core/somaxconn");
        let pages = "sys/kernel/mm/transparent_hugepage/enabled";
        let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
        for (file, before) in [(overcommit, "0\n"), (backlog, "128\n"), (pages, "always [madvise] never\n")] {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), before).unwrap();
        }
        assert_eq!(tune(root.path()), Vec::<String>::new());
        assert_eq!([read(overcommit), read(backlog), read(pages)], ["1", "4096", "never"]);

        // More than enough is left, and so is what this kernel does not have.
        fs::write(root.path().join(backlog), "65535\n").unwrap();
        fs::remove_file(root.path().join(pages)).unwrap();
        assert_eq!(tune(root.path()), Vec::<String>::new());
        assert_eq!(read(backlog), "65535\n");
    }

    #[test]
    fn what_cannot_be_set_is_said() {
        // Of a kernel's files none can be written that is no setting.
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("proc/sys/vm/overcommit_memory");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/proc/version", &file).unwrap();
        let said = tune(root.path());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("overcommit_memory stays Linux version"), "{said:?}");
    }
}
