use std::path::Path;

use super::*;

const FILE: &str = r#"
cluster = { quorum = 1, password = "a-long-enough-password" }
[[vip]]
addresses = ["192.168.0.1/24"]
interface = "lan0"
virtual_router_id = 51
[[node]]
name = "box-1"
address = "192.168.0.11"
roles = ["proxy", "redis", "sentinel"]
[[node]]
name = "far"
address = "10.1.0.12"
roles = ["redis", "sentinel"]
"#;

fn boot(line: &str) -> Result<Boot, String> {
    let parsed = crate::config::parse(FILE, Path::new("v.toml"), &|_| Err(std::io::ErrorKind::NotFound.into()));
    let (config, _) = parsed.unwrap_or_else(|faults| panic!("{faults}"));
    Boot::of(&config, "/boot/vigie.toml".into(), &Kernel::parse(line).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_name_is_enough_where_the_file_tells_the_rest() {
    let told = boot("quiet vigie.node=box-1").unwrap();
    assert_eq!(
        told.to_string(),
        "NODE='box-1'\nROLES='proxy,redis,sentinel'\nINTERFACE='lan0'\nADDRESS='192.168.0.11/24'\nGATEWAY=''\nDNS=''\n\
         NTP=''\nCONSOLE=''\nCONSOLE_SHELL='off'\nRESET='0'\nCONFIG='/boot/vigie.toml'\n"
    );
    assert_eq!(boot("vigie.address=192.168.0.11/16").unwrap().node, told.node);
    let far = boot("vigie.node=far vigie.address=10.1.0.12/8").unwrap().to_string();
    assert_eq!(far.lines().nth(3), Some("ADDRESS='10.1.0.12/8'"));
}

#[test]
fn everything_that_is_said_is_passed_on() {
    let line = "vigie.node=box-1 vigie.role=redis vigie.gateway=192.168.0.254 vigie.dns=192.168.0.254,fd00::1 \
                vigie.ntp=pool.example.org vigie.console=ttyS1 vigie.shell=on vigie.reset=1";
    let told = boot(line).unwrap().to_string();
    for part in [
        "ROLES='redis'",
        "GATEWAY='192.168.0.254'",
        "DNS='192.168.0.254 fd00::1'",
        "NTP='pool.example.org'",
        "CONSOLE='ttyS1'",
        "CONSOLE_SHELL='on'",
        "RESET='1'",
    ] {
        assert!(told.lines().any(|line| line == part), "{part}: {told}");
    }
    // Its address tells which node it is, once a server has told the address.
    let dhcp = boot("vigie.address=dhcp").unwrap();
    assert_eq!((dhcp.node.as_ref(), dhcp.address), (None, Address::Dhcp));
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_remedy() {
    for (line, said) in [
        ("", "nothing says which node of the file this box is; say vigie.node=NAME"),
        ("", "nodes of the file: box-1 (192.168.0.11), far (10.1.0.12)"),
        ("vigie.role=redis", "nothing says which node"),
        ("vigie.node=box-2", "vigie.node= names the node \"box-2\", which the file does not have; its nodes: box-1"),
        ("vigie.address=192.168.0.9/24", "no node of the file is this one"),
        ("vigie.node=box-1 vigie.address=192.168.0.9/24", "but vigie.address= says 192.168.0.9"),
        ("vigie.node=far", "say vigie.address=10.1.0.12/PREFIX or vigie.address=dhcp"),
        (
            "vigie.node=box-1 vigie.gateway=10.1.0.1",
            "vigie.gateway = 10.1.0.1: it cannot be reached from 192.168.0.11/24",
        ),
    ] {
        let why = boot(line).expect_err(line);
        assert!(why.contains(said), "{line}: {why}");
    }
}

#[test]
fn values_stay_one_word_of_a_shell() {
    assert_eq!(quoted("it's $(here)"), r"'it'\''s $(here)'");
}
