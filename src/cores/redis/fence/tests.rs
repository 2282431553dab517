use super::*;
use crate::base::Rng;

const MS: Duration = Duration::from_millis(1);
/// Of all leases here.
const LENGTH: Duration = Duration::from_secs(1);

fn at(ms: u32) -> Instant {
    Instant::START + ms * MS
}

/// Of a lease that was asked for at `from`.
fn term(incarnation: u64, from: Instant) -> Term {
    let after = |percent: u32| from + LENGTH * percent / 100;
    Term { incarnation, epoch: 1, fence_at: after(70), kill_at: after(86), ends_at: after(90) }
}

const OPEN: Command = Command::Open { by: By::Lease, setting: Setting::new(1, 10) };

/// A fence with what it has put out last.
struct Bench {
    fence: Fence,
    now: Instant,
}

impl Bench {
    /// Process 1 runs, is connected, and has shown that it can be closed.
    fn ready() -> Self {
        let mut bench = Self { fence: Fence::default(), now: at(0) };
        assert_eq!(bench.feed(Input::Process(1)), []);
        assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
        bench.proves();
        bench
    }

    fn proves(&mut self) {
        let number = sent(&self.feed(Input::Connected), Command::Close);
        assert!(!self.fence.status().ready);
        assert_eq!(self.reply(number, Outcome::Done), []);
        assert!(self.fence.status().ready);
    }

    /// Leased from now on, and open.
    fn open() -> Self {
        let mut bench = Self::ready();
        let number = bench.opening();
        assert_eq!(bench.reply(number, Outcome::Done), []);
        bench.is(Phase::Open, at(0));
        assert_eq!(bench.fence.status().answered, (1, Answer::Opened));
        bench
    }

    /// Leased from now on, and told to open: the number of that command.
    fn opening(&mut self) -> u32 {
        self.feed(Input::Lease(Some(term(1, self.now))));
        let out = self.orders_open(1);
        assert_eq!(out[0], Output::Doors(Doors::Open(term(1, self.now))), "before it leaves");
        sent(&out[1..], OPEN)
    }

    fn orders_open(&mut self, order: u64) -> Vec<Output> {
        self.feed(Input::Open { order, by: By::Lease, epoch: 1, setting: Setting::new(1, 10) })
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.fence.handle(self.now, input, &mut out);
        assert!(out.len() <= OUTPUTS_MAX);
        if input == Input::Tick {
            assert!(self.fence.deadline().is_none_or(|deadline| deadline > self.now));
        }
        out
    }

    fn reply(&mut self, number: u32, outcome: Outcome) -> Vec<Output> {
        self.feed(Input::Reply { number, outcome })
    }

    /// Time passes until `ms`.
    fn tick(&mut self, ms: u32) -> Vec<Output> {
        self.now = at(ms);
        self.feed(Input::Tick)
    }

    fn is(&self, phase: Phase, since: Instant) {
        let status = self.fence.status();
        assert_eq!((status.phase, status.since), (phase, since));
    }

    fn answered(&self) -> (u64, Answer) {
        self.fence.status().answered
    }
}

/// The number of the one command that was sent.
#[track_caller]
fn sent(out: &[Output], command: Command) -> u32 {
    match out {
        [Output::Send { number, command: sent }] if *sent == command => *number,
        other => panic!("{other:?} and not {command:?}"),
    }
}

const CLOSED: Output = Output::Doors(Doors::Closed);

#[test]
fn without_a_renewal_it_closes_in_time_and_with_one_it_waits() {
    let mut bench = Bench::open();
    assert_eq!(bench.fence.deadline(), Some(at(700)));
    bench.now = at(699);
    assert_eq!(bench.feed(Input::Lease(Some(term(1, at(600))))), [Output::Doors(Doors::Open(term(1, at(600))))]);
    assert_eq!(bench.tick(700), []);
    assert_eq!(bench.fence.deadline(), Some(at(1_300)));
    let number = sent(&bench.tick(1_300), Command::Close);
    assert_eq!(bench.fence.deadline(), Some(at(1_460)));
    bench.now = at(1_301);
    assert_eq!(bench.reply(number, Outcome::Done), [CLOSED]);
    bench.is(Phase::Closed, at(1_301));
    // And opened again, without another process.
    bench.feed(Input::Lease(Some(term(1, at(1_300)))));
    let out = bench.orders_open(2);
    let number = sent(&out[1..], OPEN);
    bench.reply(number, Outcome::Done);
    bench.is(Phase::Open, at(1_301));
}

#[test]
fn what_does_not_confirm_is_killed() {
    // Silence.
    let mut bench = Bench::open();
    let number = sent(&bench.tick(700), Command::Close);
    assert_eq!(bench.tick(859), []);
    assert_eq!(bench.tick(860), [Output::Kill, Output::Disconnect]);
    assert_eq!(bench.fence.status().killed, Some((at(860), Cause::Silent)));
    assert_eq!(bench.fence.deadline(), None);
    // A confirmation that comes after that changes nothing; its end does.
    assert_eq!(bench.reply(number, Outcome::Done), []);
    bench.is(Phase::Killed, at(860));
    bench.now = at(861);
    assert_eq!(bench.feed(Input::Ended), [CLOSED]);
    bench.is(Phase::Closed, at(861));
    // A refusal.
    for outcome in [Outcome::Nothing, Outcome::Unknown] {
        let mut bench = Bench::open();
        let number = sent(&bench.tick(700), Command::Close);
        assert_eq!(bench.reply(number, outcome), [Output::Kill, Output::Disconnect]);
        assert_eq!(bench.fence.status().killed, Some((at(700), Cause::Refused)));
    }
    // Nothing ran for so long that there is no time to ask.
    let mut bench = Bench::open();
    assert_eq!(bench.tick(2_000), [Output::Kill, Output::Disconnect]);
}

#[test]
fn what_waits_is_believed_before_time_that_has_passed() {
    let mut bench = Bench::open();
    let number = sent(&bench.tick(700), Command::Close);
    bench.now = at(2_000);
    assert_eq!(bench.reply(number, Outcome::Done), [CLOSED]);
    assert_eq!(bench.feed(Input::Tick), []);
    // A renewal that was late to be seen.
    let mut bench = Bench::open();
    bench.now = at(2_000);
    bench.feed(Input::Lease(Some(term(1, at(1_900)))));
    assert_eq!(bench.feed(Input::Tick), []);
    bench.is(Phase::Open, at(0));
}

#[test]
fn a_lease_that_is_renewed_while_it_closes_gives_more_time_and_does_not_open() {
    let mut bench = Bench::open();
    let number = sent(&bench.tick(700), Command::Close);
    let renewed = term(1, at(650));
    assert_eq!(bench.feed(Input::Lease(Some(renewed))), [Output::Doors(Doors::Open(renewed))]);
    assert_eq!(bench.tick(860), []);
    assert_eq!(bench.fence.deadline(), Some(renewed.kill_at));
    assert_eq!(bench.reply(number, Outcome::Done), [CLOSED]);
    bench.is(Phase::Closed, at(860));
    // A refusal, while there is a lease again: it stays open, until that one runs out.
    let mut bench = Bench::open();
    let number = sent(&bench.tick(700), Command::Close);
    bench.feed(Input::Lease(Some(renewed)));
    assert_eq!(bench.reply(number, Outcome::Nothing), []);
    bench.is(Phase::Open, at(700));
    sent(&bench.tick(1_350), Command::Close);
}

#[test]
fn a_close_follows_an_open_that_is_in_flight() {
    let mut bench = Bench::ready();
    let open = bench.opening();
    let close = sent(&bench.feed(Input::Close { order: 2 }), Command::Close);
    assert_eq!(bench.answered(), (1, Answer::Refused(Refusal::Overtaken)));
    assert_eq!(bench.reply(open, Outcome::Done), [], "it is open, and the guard knows");
    bench.is(Phase::Closing, at(0));
    assert_eq!(bench.reply(close, Outcome::Done), [CLOSED]);
    assert_eq!(bench.answered(), (2, Answer::Closed));
    // By time.
    let mut bench = Bench::ready();
    let open = bench.opening();
    let close = sent(&bench.tick(700), Command::Close);
    bench.reply(open, Outcome::Unknown);
    bench.reply(close, Outcome::Done);
    bench.is(Phase::Closed, at(700));
}

#[test]
fn an_open_that_is_refused_leaves_nothing_open() {
    let mut bench = Bench::ready();
    let open = bench.opening();
    assert_eq!(bench.reply(open, Outcome::Nothing), [CLOSED]);
    assert_eq!(bench.answered(), (1, Answer::Refused(Refusal::Refused)));
    let mut bench = Bench::ready();
    let open = bench.opening();
    let close = sent(&bench.reply(open, Outcome::Unknown), Command::Close);
    assert_eq!(bench.answered(), (1, Answer::Refused(Refusal::InPart)));
    assert_eq!(bench.reply(close, Outcome::Done), [CLOSED]);
    // Not one byte of it left.
    let mut bench = Bench::ready();
    bench.opening();
    assert_eq!(bench.feed(Input::Unsent), [CLOSED]);
    bench.is(Phase::Closed, at(0));
    assert_eq!(bench.tick(0), [Output::Connect]);
}

#[test]
fn the_proof_of_a_closed_redis_is_not_the_close_of_an_open_one() {
    let mut bench = Bench::ready();
    let proof = sent(&bench.tick(10_000), Command::Close);
    let open = bench.opening();
    let close = sent(&bench.feed(Input::Close { order: 2 }), Command::Close);
    assert_eq!(bench.reply(proof, Outcome::Done), [], "sent before the open");
    bench.is(Phase::Closing, at(10_000));
    bench.reply(open, Outcome::Done);
    assert_eq!(bench.reply(close, Outcome::Done), [CLOSED]);
}

#[test]
fn a_fence_that_could_not_close_is_not_opened() {
    let refused = |bench: &mut Bench, order, refusal| {
        assert_eq!(bench.orders_open(order), []);
        assert_eq!(bench.answered(), (order, Answer::Refused(refusal)));
    };
    let mut bench = Bench { fence: Fence::default(), now: at(0) };
    refused(&mut bench, 1, Refusal::NoProcess);
    bench.feed(Input::Process(1));
    bench.feed(Input::Lease(Some(term(1, at(0)))));
    refused(&mut bench, 2, Refusal::NotReady);
    bench.feed(Input::Tick);
    let number = sent(&bench.feed(Input::Connected), Command::Close);
    refused(&mut bench, 3, Refusal::NotReady);
    bench.reply(number, Outcome::Unknown);
    refused(&mut bench, 4, Refusal::NotReady);
    let number = sent(&bench.tick(1_000), Command::Close);
    bench.reply(number, Outcome::Done);
    bench.feed(Input::Lease(Some(term(1, at(1_000)))));
    assert_eq!(bench.orders_open(5).len(), 2);
    refused(&mut bench, 6, Refusal::NotClosed);
}

#[test]
fn an_order_waits_for_its_lease_and_opens_by_it_at_once() {
    let mut bench = Bench::ready();
    // Of before.
    let of = |epoch, from| Some(Term { epoch, ..term(1, from) });
    bench.feed(Input::Lease(of(3, at(0))));
    let order = |order| Input::Open { order, by: By::Lease, epoch: 4, setting: Setting::new(1, 10) };
    assert_eq!(bench.feed(order(1)), []);
    bench.is(Phase::Closed, at(0));
    // Neither by one of another process, nor by one that has run out, nor over a connection that has not shown anything.
    assert_eq!(bench.feed(Input::Lease(Some(Term { epoch: 4, ..term(2, at(0)) }))), []);
    bench.now = at(800);
    assert_eq!(bench.feed(Input::Lease(of(4, at(100)))), []);
    bench.feed(Input::Broken);
    assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
    let proof = sent(&bench.feed(Input::Connected), Command::Close);
    assert_eq!(bench.feed(Input::Lease(of(5, at(790)))), []);
    assert_eq!(bench.answered(), (0, Answer::Closed), "it waits");
    let out = bench.reply(proof, Outcome::Done);
    assert_eq!(out[0], Output::Doors(Doors::Open(of(5, at(790)).unwrap())));
    let number = sent(&out[1..], OPEN);
    bench.reply(number, Outcome::Done);
    assert_eq!(bench.answered(), (1, Answer::Opened));

    // One that was told to stay closed, or that has ended, waits for none.
    let mut bench = Bench::ready();
    bench.feed(order(1));
    assert_eq!(bench.feed(Input::Close { order: 2 }), []);
    assert_eq!(bench.answered(), (2, Answer::Closed));
    assert_eq!(bench.feed(Input::Lease(of(4, at(0)))), []);
    bench.feed(Input::Lease(None));
    bench.feed(order(3));
    bench.feed(Input::Ended);
    assert_eq!(bench.answered(), (3, Answer::Refused(Refusal::Ended)));
    bench.feed(Input::Process(2));
    bench.feed(Input::Tick);
    bench.proves();
    assert_eq!(bench.feed(Input::Lease(Some(Term { epoch: 4, ..term(2, at(0)) }))), []);
}

#[test]
fn a_lease_that_is_gone_closes_at_once() {
    let mut bench = Bench::open();
    bench.now = at(100);
    bench.feed(Input::Lease(None));
    assert!(bench.fence.deadline() <= Some(at(100)));
    sent(&bench.feed(Input::Tick), Command::Close);
    // What was promised is promised until it ends.
    assert_eq!(bench.fence.deadline(), Some(at(860)));
    assert_eq!(bench.tick(860), [Output::Kill, Output::Disconnect]);
}

#[test]
fn a_close_that_is_asked_for_may_be_refused_while_the_lease_lasts() {
    let mut bench = Bench::open();
    bench.now = at(100);
    let number = sent(&bench.feed(Input::Close { order: 2 }), Command::Close);
    assert_eq!(bench.reply(number, Outcome::Nothing), []);
    assert_eq!(bench.answered(), (2, Answer::Refused(Refusal::Refused)));
    bench.is(Phase::Open, at(100));
    // Silent, it is killed when it is due.
    sent(&bench.feed(Input::Close { order: 3 }), Command::Close);
    assert_eq!(bench.tick(700), []);
    assert_eq!(bench.tick(860), [Output::Kill, Output::Disconnect]);
    assert_eq!(bench.answered(), (2, Answer::Refused(Refusal::Refused)), "not before it has ended");
    assert_eq!(bench.feed(Input::Close { order: 4 }), []);
    bench.feed(Input::Ended);
    assert_eq!(bench.answered(), (4, Answer::Closed));
    // What is closed needs no more.
    assert_eq!(bench.feed(Input::Close { order: 5 }), []);
    assert_eq!(bench.answered(), (5, Answer::Closed));
}

#[test]
fn a_connection_that_breaks_is_made_again_and_closes_what_must_be_closed() {
    let mut bench = Bench::open();
    bench.now = at(100);
    assert_eq!(bench.feed(Input::Broken), []);
    assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
    // Refused: again some time, while nothing is due, and then at once and soon.
    bench.feed(Input::Broken);
    assert_eq!(bench.tick(199), []);
    assert_eq!(bench.tick(200), [Output::Connect]);
    bench.now = at(650);
    bench.feed(Input::Broken);
    assert_eq!(bench.tick(700), [Output::Connect]);
    bench.is(Phase::Closing, at(700));
    bench.feed(Input::Broken);
    assert_eq!(bench.tick(705), [Output::Connect]);
    let number = sent(&bench.feed(Input::Connected), Command::Close);
    // And once more.
    bench.feed(Input::Broken);
    assert_eq!(bench.reply(number, Outcome::Done), [], "of a connection that is no more");
    assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
    let number = sent(&bench.feed(Input::Connected), Command::Close);
    assert_eq!(bench.reply(number, Outcome::Done), [CLOSED]);
    assert!(bench.fence.status().ready);
    // In the middle of an open.
    let mut bench = Bench::ready();
    bench.opening();
    assert_eq!(bench.feed(Input::Broken), []);
    assert_eq!(bench.answered(), (1, Answer::Refused(Refusal::Broken)));
    bench.is(Phase::Closing, at(0));
    assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
    sent(&bench.feed(Input::Connected), Command::Close);
    // A closed one has time.
    let mut bench = Bench::ready();
    bench.feed(Input::Broken);
    assert!(!bench.fence.status().ready);
    assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
    bench.feed(Input::Broken);
    assert_eq!(bench.tick(99), []);
    assert_eq!(bench.tick(100), [Output::Connect]);
    bench.proves();
}

#[test]
fn a_process_that_ends_is_closed_and_the_next_one_owes_nothing_to_it() {
    let mut bench = Bench::open();
    bench.now = at(100);
    assert_eq!(bench.feed(Input::Ended), [Output::Disconnect, CLOSED]);
    bench.is(Phase::Closed, at(100));
    assert_eq!(bench.tick(5_000), []);
    assert_eq!(bench.fence.deadline(), None);

    // In the middle of an open and of a close that was asked for.
    let mut bench = Bench::ready();
    let open = bench.opening();
    bench.feed(Input::Ended);
    assert_eq!(bench.answered(), (1, Answer::Refused(Refusal::Ended)));
    let mut second = Bench::open();
    let close = sent(&second.feed(Input::Close { order: 2 }), Command::Close);
    second.feed(Input::Ended);
    assert_eq!(second.answered(), (2, Answer::Closed));

    // A late reply, and a late lease, of the process before.
    for (bench, late) in [(&mut bench, open), (&mut second, close)] {
        bench.feed(Input::Process(2));
        assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
        bench.proves();
        assert_eq!(bench.reply(late, Outcome::Done), []);
        bench.is(Phase::Closed, at(0));
        bench.feed(Input::Lease(Some(term(1, at(0)))));
        assert_eq!(bench.orders_open(7), []);
        bench.is(Phase::Closed, at(0));
    }
}

#[test]
fn a_process_that_is_replaced_while_it_seems_to_live_is_killed() {
    let mut bench = Bench::open();
    assert_eq!(bench.feed(Input::Process(2)), [Output::Kill, Output::Disconnect, CLOSED]);
    assert_eq!(bench.feed(Input::Tick), [Output::Connect]);
    bench.proves();
    let mut bench = Bench::ready();
    assert_eq!(bench.feed(Input::Process(2)), [Output::Disconnect], "it was closed");
}

#[test]
fn a_ping_is_rare_and_waits_for_nothing() {
    let mut bench = Bench::open();
    for second in 1..10 {
        bench.now = at(second * 1_000);
        bench.feed(Input::Lease(Some(term(1, bench.now))));
        assert_eq!(bench.feed(Input::Tick), []);
    }
    bench.now = at(10_000);
    bench.feed(Input::Lease(Some(term(1, bench.now))));
    sent(&bench.feed(Input::Tick), Command::Ping);
    // No reply to it: the close goes out behind it.
    sent(&bench.tick(10_700), Command::Close);
}

#[test]
fn a_lag_of_zero_is_no_check_and_keeps_no_fence_open() {
    assert_eq!(Setting::new(2, 0), Setting::default());
    assert_eq!((Setting::new(2, 5).min_replicas(), Setting::new(2, 5).max_lag()), (2, 5));
}

/// A redis as it matters here: it reads what has come in the order of the connection, at some time or never.
#[derive(Default)]
struct Server {
    open: bool,
    alive: bool,
    /// Sent to it and not read yet.
    unread: Vec<(u32, Command)>,
    /// Said by it and not heard yet.
    unheard: Vec<(u32, Outcome)>,
}

impl Server {
    fn read(&mut self, busy: bool) {
        if self.unread.is_empty() {
            return;
        }
        let (number, command) = self.unread.remove(0);
        let outcome = if busy { Outcome::Nothing } else { Outcome::Done };
        match command {
            Command::Open { .. } if !busy => self.open = true,
            Command::Close if !busy => self.open = false,
            Command::Open { .. } | Command::Close | Command::Ping => {}
        }
        self.unheard.push((number, outcome));
    }
}

/// Whatever happens in whatever order: no redis takes a write after the end of its lease, none that may be open is unknown to the
/// guard, and what is said to be closed is.
#[test]
fn no_order_of_events_leaves_a_redis_open() {
    let (mut opened, mut closed, mut killed) = (0, 0, 0);
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let mut below = |limit: u32| rng.next_u32() % limit;
        let (mut fence, mut server) = (Fence::default(), Server::default());
        let (mut now, mut incarnation, mut order) = (at(0), 0, 0);
        let (mut doors, mut newest, mut connecting) = (Doors::Closed, None::<Term>, false);
        let mut killing = false;
        for _ in 0..200 {
            now = now + MS * below(60);
            let mut inputs = Vec::new();
            match below(14) {
                0 if !server.alive => {
                    incarnation += 1;
                    server = Server { alive: true, ..Server::default() };
                    killing = false;
                    inputs.push(Input::Process(incarnation));
                }
                1 if server.alive && below(20) == 0 => {
                    server = Server::default();
                    inputs.push(Input::Ended);
                }
                2..5 if server.alive && below(4) == 0 => {
                    let term = term(incarnation, now - MS * below(300));
                    newest = newest.filter(|newest| newest.fence_at >= term.fence_at).or(Some(term));
                    inputs.push(Input::Lease(newest));
                }
                5 | 6 => {
                    order += 1;
                    inputs.push(Input::Open { order, by: By::Lease, epoch: 1, setting: Setting::default() });
                }
                7 if below(4) == 0 => {
                    order += 1;
                    inputs.push(Input::Close { order });
                }
                8 if connecting && server.alive => {
                    connecting = false;
                    inputs.push(Input::Connected);
                }
                // It reads all that has come before it ends a connection.
                9 if server.alive && below(8) == 0 => {
                    connecting = false;
                    while !server.unread.is_empty() && below(2) == 0 {
                        server.read(false);
                    }
                    server.unread.clear();
                    server.unheard.clear();
                    inputs.push(Input::Broken);
                }
                // Of each third seed, one that hardly ever gets to reading.
                10.. if seed % 3 == 0 && below(10) > 0 => {}
                10 => server.read(below(5) == 0),
                _ => {
                    for _ in 0..below(3) {
                        server.read(false);
                    }
                }
            }
            if killing {
                server = Server::default();
                killing = false;
                inputs.push(Input::Ended);
            }
            if below(3) > 0 {
                for (number, outcome) in server.unheard.drain(..) {
                    inputs.push(Input::Reply { number, outcome });
                }
            }
            inputs.push(Input::Tick);
            for input in inputs {
                let mut out = Vec::new();
                fence.handle(now, input, &mut out);
                for output in out {
                    match output {
                        Output::Connect => connecting = true,
                        Output::Disconnect => {
                            connecting = false;
                            server.unread.clear();
                            server.unheard.clear();
                        }
                        Output::Send { number, command } => server.unread.push((number, command)),
                        Output::Doors(now) => doors = now,
                        Output::Kill => killing = true,
                    }
                }
            }
            let status = fence.status();
            let maybe_open =
                server.open || server.unread.iter().any(|(_, command)| matches!(command, Command::Open { .. }));
            match (status.phase, doors) {
                (Phase::Closed, Doors::Closed) => assert!(!maybe_open, "seed {seed} at {now}: {status:?}"),
                (Phase::Opening | Phase::Open | Phase::Closing | Phase::Killed, Doors::Open(term)) => {
                    assert_eq!(term.incarnation, incarnation);
                    // The driver is never late by more than its own step, after which all that is due has happened.
                    let in_time = now < term.ends_at || killing;
                    assert!(in_time, "seed {seed} at {now}: {status:?}");
                }
                (phase, doors) => panic!("seed {seed} at {now}: {phase:?}, and the guard is told {doors:?}"),
            }
            opened += u32::from(status.phase == Phase::Open && status.since == now);
            closed += u32::from(status.phase == Phase::Closed && status.since == now);
            killed += u32::from(status.killed.is_some_and(|(at, _)| at == now));
        }
    }
    println!("opened {opened} times, closed {closed} times, killed {killed} times");
    assert!(opened > 1_000 && closed > 1_000 && killed > 300);
}
