use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::cores::redis::fence::Term;
use crate::runtime::clock;

/// A worker's ends, without an environment.
fn worker(given: &Given) -> Guarded {
    let [page, socket, bell] = given.0.each_ref().map(|end| end.try_clone().unwrap());
    Guarded { page: Arc::new(Page::of(page).unwrap()), bell: Arc::new(Bell::of(bell)), socket }
}

fn process() -> (Child, PidFd) {
    let child = Command::new("cat").stdin(Stdio::piped()).process_group(0).spawn().unwrap();
    let held = PidFd::open(child.id()).unwrap();
    (child, held)
}

fn term(incarnation: u64, kill_at: Instant) -> Term {
    let ends_at = kill_at + Duration::from_millis(40);
    Term { incarnation, epoch: 1, fence_at: kill_at, kill_at, ends_at }
}

#[test]
fn what_is_open_for_too_long_is_killed_once() {
    let (mut second, given) = Second::new().unwrap();
    let worker = worker(&given);
    let ((mut first, first_held), (mut redis, held)) = (process(), process());
    worker.hold(6, &first_held).unwrap();
    worker.hold(7, &held).unwrap();
    let now = clock::now();
    assert_eq!(second.turn(now), Verdict::Good);
    worker.page.set_doors(Doors::Open(term(7, now)));
    assert_eq!(second.turn(now), Verdict::Good);
    assert_eq!(second.timer.due(), Some(now + Duration::from_millis(20)));
    // Closed in time.
    worker.page.set_doors(Doors::Closed);
    assert_eq!(second.turn(now + Duration::from_millis(20)), Verdict::Good);
    assert_eq!(second.timer.due(), None);
    worker.page.set_doors(Doors::Open(term(7, now)));
    let late = Duration::from_millis(25);
    assert_eq!(second.turn(now + late), Verdict::Killed(late));
    redis.wait().unwrap();
    assert!(!first_held.ended(), "the one before is none of its business");
    assert_eq!(second.turn(now + late), Verdict::Good);
    // Nobody has handed that one over.
    worker.page.set_doors(Doors::Open(term(8, now)));
    assert_eq!(second.turn(now + late), Verdict::NotAtHand);
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn one_that_has_ended_by_itself_is_no_news() {
    let (mut second, given) = Second::new().unwrap();
    let worker = worker(&given);
    let (mut redis, held) = process();
    worker.hold(7, &held).unwrap();
    redis.kill().unwrap();
    redis.wait().unwrap();
    worker.page.set_doors(Doors::Open(term(7, Instant::START)));
    assert_eq!(second.turn(clock::now()), Verdict::Good);
}

#[test]
fn it_is_rung_for_when_something_opens_and_by_its_own_timer() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let (mut second, given) = Second::new().unwrap();
    let worker = worker(&given);
    let ready = |second: &Second, limit: u16| {
        let mut waited: Vec<_> = second.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut waited, PollTimeout::from(limit)).unwrap();
        waited.iter().map(|fd| fd.any().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ready(&second, 0), [false; 3]);
    worker.bell.ring();
    assert_eq!(ready(&second, 0), [true, false, false]);
    worker.page.set_doors(Doors::Open(term(7, clock::now() + Duration::from_millis(10))));
    assert_eq!(second.turn(clock::now()), Verdict::Good);
    assert_eq!(ready(&second, 10_000), [false, true, false]);
    assert_eq!(second.turn(clock::now()), Verdict::NotAtHand);
    assert_eq!(ready(&second, 0), [false; 3]);
    // What will never say anything again wakes nobody.
    drop((worker, given));
    assert_eq!(ready(&second, 0), [false, false, true]);
    assert_eq!(second.turn(clock::now()), Verdict::Good);
    assert_eq!(ready(&second, 0), [false; 2]);
}
