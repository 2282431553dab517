use super::*;

const GROUND: Ground =
    Ground { info_age_max: Duration::from_secs(5), link_down_max: Duration::from_secs(10), lineage: None, epoch: 3 };

/// A redis that came back with data that was in sync with the last master up to `offset`, and was pointed at that master,
/// which is not there.
fn returned(last: u8, offset: u64) -> Candidate {
    Candidate {
        address: SocketAddr::from(([192, 168, 0, last], 6379)),
        connected: true,
        cut_off: false,
        down: false,
        info_age: Some(Duration::ZERO),
        does_not_open: false,
        priority: 100,
        offset: 0,
        run_id: Some(RunId([last; 20])),
        lineage: None,
        replica: true,
        promoted_from: None,
        closed: false,
        loading: false,
        syncing: false,
        ever_linked: false,
        link_down: Duration::ZERO,
        has_data: Some(true),
        in_sync: Some((3, offset)),
    }
}

fn rejection(one: Candidate) -> Option<Rejection> {
    let address = one.address;
    let Err(reasons) = by_history(&[one], &GROUND) else { return None };
    reasons.iter().find(|(of, _)| *of == address).map(|(_, why)| *why)
}

#[test]
fn a_redis_that_waits_for_a_master_that_is_gone_still_has_its_history() {
    let all = [returned(5, 100), returned(6, 200)];
    assert_eq!(replica(&all, &GROUND).map_err(|reasons| reasons[0].1), Err(Rejection::NeverLinked));
    assert_eq!(by_history(&all, &GROUND), Ok(1), "the one with more of it");
    let closed = Candidate { closed: true, ..returned(5, 300) };
    assert_eq!(by_history(&[closed, returned(6, 200)], &GROUND), Ok(0), "closed or pointed makes no difference");
}

#[test]
fn data_of_an_earlier_master_is_never_preferred_to_asking_a_person() {
    let stale = Candidate { in_sync: Some((2, 900)), ..returned(4, 0) };
    assert_eq!(rejection(stale.clone()), Some(Rejection::EarlierMaster));
    assert_eq!(by_history(&[stale, returned(6, 1)], &GROUND), Ok(1));
}

#[test]
fn what_is_not_as_it_was_on_disk_has_no_history() {
    assert_eq!(rejection(Candidate { in_sync: None, ..returned(5, 0) }), Some(Rejection::NoHistory));
    assert_eq!(rejection(Candidate { ever_linked: true, ..returned(5, 0) }), Some(Rejection::Changed));
    assert_eq!(rejection(Candidate { syncing: true, ..returned(5, 0) }), Some(Rejection::Syncing));
    assert_eq!(rejection(Candidate { loading: true, ..returned(5, 0) }), Some(Rejection::Loading));
    assert_eq!(rejection(Candidate { replica: false, ..returned(5, 0) }), Some(Rejection::NoReplica));
    assert_eq!(rejection(Candidate { priority: 0, ..returned(5, 0) }), Some(Rejection::PriorityZero));
}

#[test]
fn who_was_promoted_from_the_lost_lineage_can_be_taken_and_nobody_else_that_is_a_master() {
    let (lost, other) = (RunId([1; 20]), RunId([2; 20]));
    let ground = Ground { lineage: Some(lost), ..GROUND };
    let master = Candidate { replica: false, ..returned(5, 0) };
    let from = |lineage| Candidate { promoted_from: Some(lineage), ..master.clone() };
    let judged = |one: Candidate, ground: &Ground| promoted(&[one], ground).map_err(|reasons| reasons[0].1);
    assert_eq!(judged(from(lost), &ground), Ok(0));
    assert_eq!(judged(from(other), &GROUND), Err(Rejection::OtherLineage), "nothing is known of the one that is lost");
    assert_eq!(judged(from(other), &ground), Err(Rejection::OtherLineage));
    assert_eq!(judged(master.clone(), &ground), Err(Rejection::NoReplica));
    assert_eq!(judged(Candidate { down: true, ..from(lost) }, &ground), Err(Rejection::Down));
}
