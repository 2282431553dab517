use super::*;

const HOLD: Duration = Duration::from_secs(5);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// Feeds `inputs` at their times (ms) and returns the steps.
fn steps(target: bool, inputs: &[(u64, Input)]) -> Vec<Step> {
    let mut session = Session::new(HOLD, target);
    inputs.iter().map(|(ms, input)| session.handle(at(*ms), input.clone())).collect()
}

fn refused(step: &Step, why: &str) -> bool {
    matches!(step, Step::Refuse(text) if text.contains(why))
}

#[test]
fn a_request_is_dialled_then_relayed() {
    assert_eq!(steps(true, &[(0, Input::Request), (1, Input::Dialed(Ok(())))]), [Step::Dial, Step::Relay]);
}

#[test]
fn a_silent_client_outlives_switchovers_and_never_times_out() {
    let mut session = Session::new(HOLD, true);
    for (ms, target) in [(0, false), (9_000, true), (20_000, false)] {
        assert_eq!(session.handle(at(ms), Input::Moved(target)), Step::Wait);
        assert_eq!(session.deadline(), None);
    }
    assert_eq!(session.handle(at(30_000), Input::Gone), Step::Close);
}

#[test]
fn a_request_without_a_master_is_held_until_there_is_one() {
    let mut session = Session::new(HOLD, false);
    assert_eq!(session.handle(at(1_000), Input::Request), Step::Wait);
    assert_eq!(session.deadline(), Some(at(6_000)));
    assert_eq!(session.handle(at(2_000), Input::Moved(false)), Step::Wait);
    assert_eq!(session.handle(at(5_999), Input::Moved(true)), Step::Dial);
    assert_eq!(session.deadline(), None);
    assert_eq!(session.handle(at(6_500), Input::Dialed(Ok(()))), Step::Relay);
}

#[test]
fn a_held_request_ends_in_an_error_at_the_hold_timeout() {
    let steps = steps(false, &[(0, Input::Request), (4_999, Input::Tick), (5_000, Input::Tick), (5_001, Input::Tick)]);
    assert_eq!(steps[..2], [Step::Wait, Step::Wait]);
    assert!(refused(&steps[2], "there is no master; waited 5000 ms"), "{steps:?}");
    assert_eq!(steps[3], Step::Close);
}

#[test]
fn a_held_request_whose_client_has_gone_is_thrown_away() {
    let gone = [(0, Input::Request), (1, Input::Gone), (2, Input::Moved(true))];
    assert_eq!(steps(false, &gone), [Step::Wait, Step::Close, Step::Close]);
}

#[test]
fn a_failed_connection_is_tried_again_and_named_at_the_end() {
    let mut session = Session::new(HOLD, true);
    session.handle(at(0), Input::Request);
    assert_eq!(session.handle(at(10), Input::Dialed(Err("refused".into()))), Step::Wait);
    assert_eq!(session.deadline(), Some(at(110)));
    assert_eq!(session.handle(at(110), Input::Tick), Step::Dial);
    // Without a target there is nothing to try until there is one again.
    assert_eq!(session.handle(at(115), Input::Moved(false)), Step::Wait);
    assert_eq!(session.deadline(), Some(at(5_000)));
    assert_eq!(session.handle(at(120), Input::Moved(true)), Step::Dial);
    assert!(refused(&session.handle(at(5_000), Input::Dialed(Err("no route".into()))), "no route; waited 5000 ms"));
}

#[test]
fn a_target_that_moves_while_dialling_is_dialled_anew() {
    let moved = [(0, Input::Request), (1, Input::Moved(false)), (2, Input::Moved(true)), (3, Input::Moved(true))];
    assert_eq!(steps(true, &moved), [Step::Dial, Step::Wait, Step::Dial, Step::Dial]);
}

#[test]
fn a_relayed_session_is_closed_when_the_target_moves() {
    for target in [false, true] {
        let moved = [(0, Input::Request), (1, Input::Dialed(Ok(()))), (2, Input::Moved(target))];
        assert_eq!(steps(true, &moved)[2], Step::Close);
    }
}

#[test]
fn without_a_hold_timeout_one_try_is_made() {
    let mut session = Session::new(Duration::ZERO, true);
    assert_eq!(session.handle(at(0), Input::Request), Step::Dial);
    assert!(refused(&session.handle(at(0), Input::Dialed(Err("refused".into()))), "refused"));
    assert!(refused(&Session::new(Duration::ZERO, false).handle(at(0), Input::Request), "there is no master"));
}

#[test]
fn a_refusal_is_one_line_of_resp() {
    let text = refusal("proxy-01", "mymaster", "connection\r\n+OK refused");
    let expected = "-MASTERDOWN proxy proxy-01 cannot reach the master of mymaster: connection  +OK refused\r\n";
    assert_eq!(text, expected);
}

proptest::proptest! {
    /// Whatever happens, a tick at the deadline moves it, and a session that is over stays over.
    #[test]
    fn ticks_move_the_deadline(script in proptest::collection::vec((0_u64..3_000, 0_u8..7), 1..40)) {
        let mut session = Session::new(HOLD, false);
        let (mut now, mut over) = (0, false);
        for (wait, what) in script {
            now += wait;
            let step = session.handle(at(now), match what {
                0 => Input::Tick,
                1 => Input::Request,
                2 => Input::Moved(true),
                3 => Input::Moved(false),
                4 => Input::Dialed(Ok(())),
                5 => Input::Dialed(Err("x".into())),
                _ => Input::Gone,
            });
            assert!(!over || step == Step::Close);
            over |= matches!(step, Step::Close | Step::Refuse(_));
            if let Some(deadline) = session.deadline().filter(|deadline| *deadline <= at(now)) {
                over |= matches!(session.handle(at(now), Input::Tick), Step::Close | Step::Refuse(_));
                assert!(session.deadline().is_none_or(|next| next > deadline));
            }
        }
    }
}
