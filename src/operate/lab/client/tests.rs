use super::*;

fn tally(acks: &[(u16, u64)]) -> Tally {
    let ack = |&(connection, at): &(u16, u64)| {
        let at = Instant::from_millis(at);
        Ack { connection, number: 1, sent_at: at, at }
    };
    Tally { acks: acks.iter().map(ack).collect(), ..Tally::default() }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_outage_is_the_longest_gap_of_all_connections_that_ends_after_the_fault() {
    let seen = tally(&[(0, 0), (1, 500), (0, 510), (1, 512), (0, 700), (1, 705), (0, 800)]);
    // An acknowledgement that was under way when the fault came does not hide the outage behind it.
    assert_eq!(seen.outage(Instant::from_millis(511)), Some(ms(188)));
    assert_eq!(seen.outage(Instant::from_millis(600)), Some(ms(188)));
    // The gap of 500 ms at the start has nothing to do with it.
    assert_eq!(seen.outage(Instant::from_millis(701)), Some(ms(95)));
    assert_eq!(seen.outage(Instant::from_millis(400)), Some(ms(500)));
}

#[test]
fn without_an_acknowledgement_after_the_fault_there_is_no_number() {
    assert_eq!(tally(&[(0, 0), (0, 5)]).outage(Instant::from_millis(5)), None);
    assert_eq!(Tally::default().outage(Instant::START), None);
}

#[test]
fn a_stall_is_counted_per_connection() {
    let seen = tally(&[(0, 0), (1, 10), (0, 20), (0, 30), (0, 200), (1, 310)]);
    assert_eq!(seen.outage(Instant::from_millis(15)), Some(ms(170)));
    assert_eq!(seen.max_stall(Instant::from_millis(15)), Some(ms(300)));
}

#[test]
fn steady_needs_every_connection_and_no_gap() {
    let at = Instant::from_millis;
    let seen = tally(&[(0, 0), (1, 40), (0, 80), (1, 120), (0, 160), (0, 200)]);
    assert!(seen.steady(2, ms(50), at(0), at(200)));
    assert!(!seen.steady(2, ms(40), at(0), at(200)), "a gap");
    assert!(!seen.steady(3, ms(50), at(0), at(200)), "a connection without any");
    assert!(!seen.steady(2, ms(50), at(130), at(200)), "only one connection in that time");
    assert!(!seen.steady(2, ms(50), at(0), at(260)), "nothing at the end");
}
