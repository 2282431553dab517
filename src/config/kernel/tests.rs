use std::path::Path;

use proptest::prelude::*;

use super::*;

const FILE: &str = r#"
cluster = { quorum = 1, password = "a-long-enough-password" }
[[node]]
name = "proxy-1"
address = "192.168.0.2"
roles = ["proxy"]
[[node]]
name = "redis-1"
address = "192.168.0.4"
roles = ["redis", "sentinel"]
[[node]]
name = "redis-2"
address = "192.168.0.5"
roles = ["redis", "sentinel"]
"#;

fn config() -> Config {
    let parsed = file::parse(FILE, Path::new("v.toml"), &|_| Err(std::io::ErrorKind::NotFound.into()));
    parsed.unwrap_or_else(|faults| panic!("{faults}")).0
}

fn kernel(line: &str) -> Kernel {
    Kernel::parse(line).unwrap_or_else(|faults| panic!("{faults}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const REDIS: Roles = Roles { proxy: false, redis: true, sentinel: true };

#[test]
fn a_whole_line_is_read() {
    let line = "BOOT_IMAGE=/vmlinuz root=/dev/vda1 console=ttyS0 vigie.node=redis-1 vigie.role=redis,sentinel \
                vigie.address=192.168.0.4/24 vigie.gateway=192.168.0.254 \
                vigie.dns=192.168.0.254,fd00::1 vigie.ntp=192.168.0.254,time.example.org vigie.console=ttyS0 \
                vigie.shell=on vigie.config=\"/mnt/my disk/v.toml\" vigie.reset=1 quiet\n";
    let expected = Kernel {
        node: Some("redis-1".parse().unwrap()),
        role: Some(REDIS),
        address: Some(Address::Static(ip("192.168.0.4"), 24)),
        gateway: Some(ip("192.168.0.254")),
        dns: vec![ip("192.168.0.254"), ip("fd00::1")],
        ntp: vec!["192.168.0.254".to_owned(), "time.example.org".to_owned()],
        console: Some("ttyS0".to_owned()),
        shell: true,
        config: Some("/mnt/my disk/v.toml".into()),
        reset: true,
    };
    assert_eq!(kernel(line), expected);
    assert_eq!(kernel("root=/dev/vda1 node=x role=y usbcore.role=z vga.node"), Kernel::default());
    assert_eq!(kernel("vigie.node=a vigie.node=a").node.unwrap().as_str(), "a");
    // Who says nothing has no shell; who says so has.
    let shells = ["", "vigie.shell=off", "vigie.shell=on"].map(|line| kernel(line).shell);
    assert_eq!(shells, [false, false, true]);
    assert_eq!(kernel("vigie.address=fd00::4/64 vigie.gateway=fe80::1").gateway, Some(ip("fe80::1")));
}

#[test]
fn typos_and_contradictions_are_faults() {
    for (line, key, part) in [
        ("vigie.nod=redis-1", "vigie.nod = redis-1", "did you mean vigie.node=?"),
        ("vigie.xyzzy=1", "vigie.xyzzy = 1", "known are vigie.node= vigie.role="),
        ("vigie.=1", "vigie. = 1", "unknown"),
        ("vigie.", "vigie.", "unknown"),
        ("vigei.node=a", "vigei.node = a", "did you mean vigie.node=?"),
        ("Vigie.Node=a", "Vigie.Node = a", "did you mean vigie.node=?"),
        ("vigie_node=a", "vigie_node = a", "did you mean vigie.node=?"),
        ("vigie.NODE=a", "vigie.NODE = a", "unknown"),
        ("vigie.node", "vigie.node", "a value is missing"),
        ("vigie.node=", "vigie.node", "a value is missing"),
        ("vigie.node=a/b", "vigie.node = a/b", "is not a node name"),
        ("vigie.node=a vigie.node=b", "vigie.node = b", "also said to be \"a\"; say it once"),
        ("vigie.role=", "vigie.role", "a value is missing"),
        ("vigie.role=redis,sentinle", "vigie.role = redis,sentinle", "did you mean \"sentinel\"?"),
        ("vigie.role=redis,", "vigie.role = redis,", "unknown role"),
        ("vigie.role=redis,redis", "vigie.role = redis,redis", "twice"),
        ("vigie.address=192.168.0.4", "vigie.address = 192.168.0.4", "prefix length is missing"),
        ("vigie.address=192.168.0.0/24", "vigie.address = 192.168.0.0/24", "name of its subnet"),
        ("vigie.address=here/24", "vigie.address = here/24", "not an IPv4 or IPv6 address"),
        ("vigie.gateway=10.0.0.1 vigie.address=dhcp", "vigie.gateway = 10.0.0.1", "one or the other"),
        ("vigie.address=dhpc", "vigie.address = dhpc", "or dhcp"),
        ("vigie.dns=10.0.0.1,", "vigie.dns = 10.0.0.1,", "separated by commas"),
        ("vigie.dns=ns.example.org", "vigie.dns = ns.example.org", "addresses of name servers"),
        ("vigie.ntp=time/org", "vigie.ntp = time/org", "no address and no host name"),
        ("vigie.console=/dev/ttyS0", "vigie.console = /dev/ttyS0", "like ttyS0"),
        ("vigie.console=ttyS0,115200", "vigie.console = ttyS0,115200", "like ttyS0"),
        ("vigie.shell=no", "vigie.shell = no", "allowed: on or off"),
        ("vigie.gateway=192.168.0.254/24", "vigie.gateway = 192.168.0.254/24", "without prefix length"),
        ("vigie.address=10.0.0.4/24 vigie.gateway=10.0.1.1", "vigie.gateway = 10.0.1.1", "cannot be reached from"),
        ("vigie.address=10.0.0.4/24 vigie.gateway=fd00::1", "vigie.gateway = fd00::1", "cannot be reached from"),
        ("vigie.address=10.0.0.4/24 vigie.gateway=10.0.0.4", "vigie.gateway = 10.0.0.4", "of this node itself"),
        ("vigie.config=v.toml", "vigie.config = v.toml", "an absolute path"),
        ("vigie.reset=yes", "vigie.reset = yes", "allowed: 1"),
        ("vigie.reset=0", "vigie.reset = 0", "leave it out"),
    ] {
        let said = Kernel::parse(line).expect_err(line).to_string();
        assert!(said.starts_with(&format!("kernel command line: {key}: ")) && said.contains(part), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(Kernel::parse("vigie.nod=a vigie.reset=2 vigie.role=x").unwrap_err().0.len(), 3);
}

#[test]
fn a_file_beside_the_line_says_more_and_contradicts_nothing() {
    let with = |line, text| Kernel::parse_with(line, Path::new("/boot/cmdline.txt"), text);
    let text = "\u{feff}# who this is\r\nvigie.node=redis-1 # not vigie.node=redis-2\r\n\r\nvigie.shell=on";
    let both = with("quiet vigie.node=redis-1 vigie.reset=1", text).unwrap();
    let expected = Kernel { node: Some("redis-1".parse().unwrap()), shell: true, reset: true, ..Kernel::default() };
    assert_eq!(both, expected);
    let said = with("vigie.node=redis-2", text).unwrap_err().to_string();
    let contradiction = "/boot/cmdline.txt: vigie.node = redis-1: it is also said to be \"redis-2\" (kernel command line); \
                         say it once";
    assert_eq!(said, contradiction);
    let said = with("vigie.address=10.0.0.4/24", "vigie.gateway=10.0.1.1").unwrap_err().to_string();
    assert!(said.starts_with("/boot/cmdline.txt: vigie.gateway = 10.0.1.1: it cannot be reached"), "{said}");
    assert!(with("", "vigie.nod=x").unwrap_err().to_string().starts_with("/boot/cmdline.txt: vigie.nod = x"));
}

#[test]
fn a_node_finds_itself_in_this_order() {
    let config = config();
    let owned = [ip("127.0.0.1"), ip("192.168.0.4")];
    let find = |arg, line, host, owned: &[IpAddr]| identify(&config, arg, &kernel(line), host, owned).map(|id| id.node);
    assert_eq!(find(Some("proxy-1"), "vigie.node=redis-1", "redis-2", &owned), Ok(0));
    assert_eq!(find(None, "vigie.node=redis-2", "redis-1", &owned), Ok(2));
    assert_eq!(find(None, "", "redis-2", &[]), Ok(2));
    assert_eq!(find(None, "", "redis-1", &owned), Ok(1));
    assert_eq!(find(None, "", "elsewhere", &owned), Ok(1));
    assert_eq!(find(None, "vigie.address=192.168.0.5/24", "elsewhere", &[]), Ok(2));
    let several = [ip("192.168.0.4"), ip("192.168.0.5")];
    assert_eq!(find(None, "", "redis-2", &several), Ok(2));
}

#[test]
fn a_node_is_never_guessed() {
    let config = config();
    let why =
        |arg, line, host, owned: &[IpAddr]| identify(&config, arg, &kernel(line), host, owned).unwrap_err().to_string();
    let nodes = "proxy-1 (192.168.0.2), redis-1 (192.168.0.4), redis-2 (192.168.0.5)";
    let said = why(Some("redis-9"), "", "redis-1", &[]);
    assert_eq!(said, format!("--node names the node \"redis-9\", which the file does not have; its nodes: {nodes}"));
    let said = why(None, "vigie.node=redis-9", "redis-1", &[]);
    assert!(said.starts_with("vigie.node= names the node \"redis-9\""), "{said}");
    let said = why(None, "", "redis-01.example.org", &[ip("10.0.0.1")]);
    for part in ["--node (absent)", "vigie.node= (absent)", "\"redis-01.example.org\"", "(10.0.0.1)", nodes] {
        assert!(said.contains(part), "{said}");
    }
    let said = why(None, "", "redis-1", &[ip("192.168.0.5")]);
    assert!(said.contains("the host name is \"redis-1\", but the address 192.168.0.5 of redis-2"), "{said}");
    let said = why(None, "", "box", &[ip("192.168.0.4"), ip("192.168.0.5")]);
    assert!(said.contains("of redis-1 is on this host, but the address 192.168.0.5 of redis-2"), "{said}");
    let said = why(None, "vigie.node=redis-1 vigie.address=192.168.0.9/24", "", &[]);
    assert!(said.contains("whose address in the file is 192.168.0.4, but vigie.address= says 192.168.0.9"), "{said}");
    assert!(why(None, "", "", &[]).contains("the addresses of this host (none)"));
}

#[test]
fn roles_of_the_kernel_replace_those_of_the_file_but_make_no_voter() {
    let config = config();
    let roles = |line, owned: &[IpAddr]| identify(&config, None, &kernel(line), "redis-2", owned);
    assert_eq!(roles("", &[]), Ok(Identity { node: 2, roles: REDIS }));
    let redis = Roles { redis: true, ..Roles::default() };
    assert_eq!(roles("vigie.node=proxy-1 vigie.role=redis", &[]), Ok(Identity { node: 0, roles: redis }));
    let said = roles("vigie.node=proxy-1 vigie.role=proxy,sentinel", &[]).unwrap_err();
    assert_eq!(said, IdentityError::NewVoter { node: "proxy-1".parse().unwrap() });
    // Alone, it says nothing of the name: the address decides, whatever the host is called.
    assert_eq!(roles("vigie.role=redis", &[ip("192.168.0.4")]), Ok(Identity { node: 1, roles: redis }));
    assert!(roles("vigie.role=redis", &[]).unwrap_err().to_string().contains("not the host name"));
}

proptest! {
    #[test]
    fn garbage_never_panics(line in "(vigie\\.[a-z]{0,8}=\\PC{0,12} ?|\\PC){0,12}") {
        let _ = Kernel::parse(&line);
    }
}
