use super::*;

/// Captured from redis 7.0.15: a master with one replica, that replica, and a closed one (`replicaof 127.0.0.1 1`).
const MASTER: &str = include_str!("master-7.0.15.txt");
const REPLICA: &str = include_str!("replica-7.0.15.txt");
const CLOSED_ONE: &str = include_str!("closed-7.0.15.txt");

fn id(text: &str) -> Option<RunId> {
    Some(text.parse().unwrap())
}

#[test]
fn a_real_master_is_read() {
    let info = Info::parse(MASTER);
    assert_eq!(info.redis_version.as_deref(), Some("7.0.15"));
    assert_eq!(info.run_id, id("5f3bc19c5df1d7a8a76fae76d815d104f24122d2"));
    assert_eq!(info.role, Some(Role::Master));
    assert_eq!(info.master_replid, id("855dd2b819a571eb41be0734eec5c4519a5049c3"));
    assert_eq!(info.master_replid2, None);
    assert_eq!((info.master_repl_offset, info.connected_slaves), (Some(50), 1));
    let address = Place::new("127.0.0.1", 17602).unwrap();
    assert_eq!(info.replicas, [AttachedReplica { place: address, online: true, offset: Some(0), lag: Some(1) }]);
    assert_eq!((info.loading, info.has_keys, info.replica_announced), (false, Some(true), true));
    assert!(!info.is_closed());
}

#[test]
fn a_real_replica_is_read() {
    let info = Info::parse(REPLICA);
    assert_eq!(info.role, Some(Role::Replica));
    assert_eq!(info.master(), Some("127.0.0.1:17601".parse().unwrap()));
    assert!(info.master_link_up && !info.master_sync_in_progress && info.master_link_down.is_none());
    assert_eq!((info.slave_priority, info.slave_repl_offset), (Some(100), Some(50)));
    assert_eq!(info.master_replid, Info::parse(MASTER).master_replid);
    assert!(!info.is_closed());
}

#[test]
fn a_real_closed_redis_is_told_from_a_replica() {
    let info = Info::parse(CLOSED_ONE);
    assert!(info.is_closed());
    assert_eq!((info.master_link_up, info.master_link_down), (false, Some(LinkDown::Never)));
    assert_eq!(info.has_keys, Some(false));
}

#[test]
fn replica_lines_of_both_formats_are_read() {
    let info =
        Info::parse("role:master\r\nslave0:10.0.0.1,6379,online\r\nslave1:ip=::1,port=7,state=wait_bgsave,lag=2\r\n");
    let [old, new] = &info.replicas[..] else { panic!("{info:?}") };
    assert_eq!((old.place.address().unwrap(), old.online, old.offset), ("10.0.0.1:6379".parse().unwrap(), true, None));
    assert_eq!((new.place.address().unwrap(), new.online, new.lag), ("[::1]:7".parse().unwrap(), false, Some(2)));
}

#[test]
fn nonsense_counts_as_missing() {
    let text =
        "run_id:zz\nrole:king\nmaster_port:70000\nslave0:ip=x y,port=1\nslave:1\nslave_priority:-1\nmaster_replid:00\n";
    assert_eq!(Info::parse(text), Info { replica_announced: true, ..Info::default() });
}

#[test]
fn the_number_of_replicas_is_bounded() {
    let text: String = (0..500).map(|n| format!("slave{n}:ip=10.0.0.1,port={n},state=online\n")).collect();
    assert_eq!(Info::parse(&text).replicas.len(), REPLICAS_MAX);
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics(text in "\\PC{0,400}") {
        let _ = Info::parse(&text);
    }
}
