//! Scenario files: each tells a short story of one core in virtual time, and holds it. `tests/scenarios/README.md` says
//! how they are written; `VIGIE_UPDATE=1 cargo test --test scenarios` writes the expectations again.

#[path = "scenarios/cluster.rs"]
mod cluster;
#[path = "scenarios/form.rs"]
mod form;
mod model;
#[path = "scenarios/proxy.rs"]
mod proxy;
#[path = "scenarios/redis.rs"]
mod redis;
#[path = "scenarios/sentinel.rs"]
mod sentinel;
#[path = "scenarios/stage.rs"]
mod stage;
#[path = "scenarios/vrrp.rs"]
mod vrrp;
#[path = "scenarios/words.rs"]
mod words;

#[test]
fn vrrp() {
    form::run_all::<vrrp::Segment>("vrrp");
}

#[test]
fn proxy() {
    form::run_all::<proxy::Proxy>("proxy");
}

#[test]
fn redis() {
    form::run_all::<redis::Host>("redis");
}

#[test]
fn cluster() {
    form::run_all::<cluster::Network>("cluster");
}

#[test]
fn sentinel() {
    form::run_all::<sentinel::Site>("sentinel");
}
