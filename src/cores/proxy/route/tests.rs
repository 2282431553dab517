use super::*;

const INTERVAL: Duration = Duration::from_secs(1);

fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 6379))
}

fn decision(node: u8, epoch: Epoch) -> Decision {
    Decision { master: address(node), epoch }
}

fn server(node: u8, incarnation: u64, process: Process, master: Option<bool>) -> Server {
    Server { address: address(node), incarnation, process, master, lease: None }
}

/// The supervisors of nodes 4, 5 and 6 are heard, and have not asked for any role yet.
fn supervised() -> Vec<Server> {
    [4, 5, 6].map(|node| server(node, 1, Process::Alive, None)).into()
}

/// A route in virtual time, and all that it has put out.
struct Bench {
    route: Route,
    now: Instant,
    facts: Facts,
    out: Vec<Output>,
}

impl Bench {
    /// Three sentinels, a listener that works, nothing decided.
    fn new() -> Self {
        let route = Route::new(&Config { check_interval: INTERVAL, masters: (1..=9).map(address).collect() });
        let mut bench = Self {
            route,
            now: Instant::from_millis(1_000),
            facts: Facts { voters: 3, servers: supervised(), ..Facts::default() },
            out: vec![],
        };
        bench.feed(Input::Listener(Ok(())));
        bench
    }

    /// One with a route to node 4, decided in epoch 5, by the word of sentinels and a supervisor.
    fn routed() -> Self {
        let mut bench = Self::new();
        bench.facts.servers[0] = server(4, 1, Process::Alive, Some(true));
        bench.decide(4, 5);
        bench.checked(Ok(()));
        assert_eq!(bench.route.target(), Some(decision(4, 5)));
        bench.out.clear();
        bench
    }

    fn feed(&mut self, input: Input) {
        self.route.handle(self.now, input, &mut self.out);
    }

    /// Runs to `ms` later with all deadlines on the way; checks asked meanwhile stay unanswered.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.route.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.feed(Input::Tick);
            assert!(self.route.deadline().is_none_or(|next| next > self.now), "a tick moves the deadline");
        }
        self.now = end;
    }

    fn view(&mut self) {
        self.feed(Input::View(self.facts.clone()));
    }

    /// All sentinels come to name `node`.
    fn decide(&mut self, node: u8, epoch: Epoch) {
        self.facts.sentinels =
            vec![Voice { current_epoch: epoch, decision: Some(decision(node, epoch)), fenced: false }; 3];
        self.view();
    }

    fn set_server(&mut self, server: Server) {
        self.facts.servers.retain(|other| other.address != server.address);
        self.facts.servers.push(server);
        self.view();
    }

    /// Answers the latest check.
    fn checked(&mut self, result: Result<(), CheckFault>) {
        let serial = self.route.serial;
        self.feed(Input::Checked { serial, result });
    }

    /// Lets time pass until a check is asked, answers it, and returns how long that took, ms.
    fn check(&mut self, result: Result<(), CheckFault>) -> u64 {
        let (start, serial) = (self.now, self.route.serial);
        while self.route.serial == serial {
            self.pass(1);
        }
        self.checked(result);
        u64::try_from(self.now.since(start).as_millis()).unwrap()
    }

    /// What was put out since the last call, without events.
    fn acts(&mut self) -> Vec<Output> {
        self.out.drain(..).filter(|output| !matches!(output, Output::Publish(_))).collect()
    }

    fn switches(&mut self) -> Vec<Option<Decision>> {
        let switch = |output| if let Output::Switch(target) = output { Some(target) } else { None };
        self.acts().into_iter().filter_map(switch).collect()
    }

    fn usable(&mut self) -> Vec<Result<(), String>> {
        let usable = |output| if let Output::Usable(usable) = output { Some(usable) } else { None };
        self.acts().into_iter().filter_map(usable).collect()
    }
}

fn unclear() -> Result<(), CheckFault> {
    Err(CheckFault::Unclear("no answer".into()))
}

fn post(route: Option<Decision>, listening: bool, clients: u32) -> Output {
    Output::Post(ProxyFacts { listening, route, clients, held: None })
}

#[test]
fn nothing_is_routed_before_the_first_proof() {
    let mut bench = Bench::new();
    let waiting = Output::Fault(Some("no sentinel has named a master yet".into()));
    assert_eq!(bench.acts(), [Output::Usable(Ok(())), post(None, true, 0), waiting]);
    bench.decide(4, 5);
    assert_eq!(bench.acts(), [Output::Check { serial: 1, decision: decision(4, 5), login: true }, Output::Fault(None)]);
    bench.checked(Err(CheckFault::NotMaster("slave".into())));
    assert_eq!(bench.acts(), []);
    assert_eq!(bench.check(Ok(())), 20);
    let check = Output::Check { serial: 2, decision: decision(4, 5), login: true };
    assert_eq!(bench.acts(), [check, Output::Switch(Some(decision(4, 5))), post(Some(decision(4, 5)), true, 0)]);
}

#[test]
fn a_role_text_alone_makes_no_route() {
    let mut bench = Bench::new();
    bench.set_server(server(4, 1, Process::Alive, Some(true)));
    bench.pass(60_000);
    assert!(!bench.acts().iter().any(|output| matches!(output, Output::Check { .. } | Output::Switch(_))));
}

#[test]
fn a_newer_decision_cuts_at_once_and_is_proved_at_once() {
    let mut bench = Bench::routed();
    bench.decide(6, 7);
    let check = Output::Check { serial: 2, decision: decision(6, 7), login: true };
    assert_eq!(bench.acts(), [Output::Switch(None), check, post(None, true, 0)]);
    // The answer to a check of the old master proves nothing about the new one.
    bench.feed(Input::Checked { serial: 1, result: Ok(()) });
    assert_eq!(bench.acts(), []);
    bench.checked(Ok(()));
    assert_eq!(bench.switches(), [Some(decision(6, 7))]);
}

#[test]
fn the_highest_epoch_wins_and_an_older_one_is_never_believed() {
    let mut bench = Bench::new();
    let voice = |node, epoch| Voice { current_epoch: 9, decision: Some(decision(node, epoch)), fenced: false };
    bench.facts.sentinels = vec![voice(4, 5), voice(6, 7), voice(5, 6)];
    bench.view();
    bench.checked(Ok(()));
    assert_eq!(bench.switches(), [Some(decision(6, 7))]);
    bench.facts.sentinels = vec![voice(4, 5)];
    bench.view();
    bench.facts.sentinels = vec![];
    bench.view();
    assert_eq!((bench.switches(), bench.route.target()), (vec![], Some(decision(6, 7))));
}

#[test]
fn a_new_epoch_of_the_same_master_cuts_nobody() {
    let mut bench = Bench::routed();
    bench.decide(4, 8);
    let check = Output::Check { serial: 2, decision: decision(4, 8), login: true };
    assert_eq!(bench.acts(), [check, post(Some(decision(4, 8)), true, 0)]);
}

#[test]
fn two_masters_in_one_epoch_are_not_believed() {
    let mut bench = Bench::new();
    let voice = |node| Voice { current_epoch: 5, decision: Some(decision(node, 5)), fenced: false };
    bench.facts.sentinels = vec![voice(4), voice(6)];
    bench.view();
    bench.view();
    let told = bench.out.iter().filter(|output| **output == Output::Publish(Event::Conflict(5))).count();
    assert_eq!((told, bench.route.target(), bench.route.serial), (1, None, 0));
}

#[test]
fn a_check_answered_after_a_second_name_for_its_epoch_proves_nothing() {
    let mut bench = Bench::new();
    let voice = |node| Voice { current_epoch: 5, decision: Some(decision(node, 5)), fenced: false };
    bench.facts.sentinels = vec![voice(4)];
    bench.view();
    bench.facts.sentinels = vec![voice(4), voice(6)];
    bench.view();
    bench.checked(Ok(()));
    bench.pass(10_000);
    assert_eq!((bench.route.target(), bench.route.serial), (None, 1));
    bench.decide(4, 5);
    bench.checked(Ok(()));
    assert_eq!(bench.route.target(), Some(decision(4, 5)));
}

#[test]
fn reset_sentinels_are_believed_when_a_majority_has_forgotten() {
    let mut bench = Bench::routed();
    let young = Voice { current_epoch: 1, decision: Some(decision(6, 1)), fenced: false };
    bench.facts.sentinels = vec![young];
    bench.view();
    assert_eq!(bench.route.target(), Some(decision(4, 5)), "one of three is no majority");
    bench.facts.sentinels =
        vec![young, young, Voice { current_epoch: 5, decision: Some(decision(4, 5)), fenced: false }];
    bench.view();
    assert_eq!(bench.route.target(), Some(decision(4, 5)), "one still knows");
    bench.facts.sentinels = vec![young, young];
    bench.view();
    bench.checked(Ok(()));
    assert_eq!(bench.switches(), [None, Some(decision(6, 1))]);
}

#[test]
fn a_route_stays_while_neither_sentinels_nor_supervisor_are_heard() {
    let mut bench = Bench::routed();
    bench.facts = Facts { voters: 3, ..Facts::default() };
    bench.view();
    for _ in 0..100 {
        bench.check(Ok(()));
    }
    let logins = bench.out.iter().filter(|output| matches!(output, Output::Check { login: true, .. })).count();
    // A stranger at the address of a node that is not heard is told no password.
    assert_eq!((logins, bench.switches()), (0, vec![]));
}

#[test]
fn a_master_outside_of_the_file_is_refused_and_told_once() {
    let mut bench = Bench::routed();
    let foreign = Voice { current_epoch: 9, decision: Some(decision(66, 9)), fenced: false };
    for _ in 0..2 {
        bench.facts.sentinels = vec![foreign; 3];
        bench.view();
        bench.check(Ok(()));
    }
    let told = bench.out.iter().filter(|output| **output == Output::Publish(Event::Foreign(decision(66, 9)))).count();
    let asked = |output: &Output| matches!(output, Output::Check { decision, .. } if decision.master == address(66));
    assert!(!bench.out.iter().any(asked));
    assert_eq!((told, bench.route.target()), (1, Some(decision(4, 5))));
}

#[test]
fn a_master_whose_node_is_not_heard_proves_nothing() {
    let mut bench = Bench::new();
    bench.facts.servers.clear();
    bench.decide(4, 5);
    bench.pass(10_000);
    assert!(!bench.out.iter().any(|output| matches!(output, Output::Check { .. } | Output::Switch(Some(_)))));
    bench.set_server(server(4, 1, Process::Alive, Some(true)));
    bench.checked(Ok(()));
    assert_eq!(bench.route.target(), Some(decision(4, 5)));
}

#[test]
fn the_supervisors_word_ends_a_route_at_once() {
    for (word, why) in [
        (server(4, 1, Process::Dead, Some(true)), Loss::Dead),
        (server(4, 2, Process::Starting, None), Loss::Restarted),
        (server(4, 2, Process::Alive, Some(true)), Loss::Restarted),
        (server(4, 1, Process::Alive, Some(false)), Loss::Demoted),
    ] {
        let mut bench = Bench::routed();
        bench.set_server(word);
        assert_eq!(bench.out[0], Output::Switch(None), "{word:?}");
        let lost = Event::Lost { was: decision(4, 5), why };
        assert!(bench.out.contains(&Output::Publish(lost)), "{:?}", bench.out);
    }
}

#[test]
fn a_dead_process_is_not_asked_and_its_last_words_prove_nothing() {
    let mut bench = Bench::routed();
    bench.pass(1_000);
    let asked = bench.route.serial;
    bench.set_server(server(4, 1, Process::Dead, Some(true)));
    bench.feed(Input::Checked { serial: asked, result: Ok(()) });
    bench.pass(10_000);
    assert_eq!((bench.switches(), bench.route.serial), (vec![None], asked));
    let fault = bench.route.said.fault.clone().flatten().unwrap();
    assert_eq!(fault, "no route to the master 10.0.0.4:6379: its process is dead");
    // A new process that proves itself is the same master again.
    bench.set_server(server(4, 2, Process::Alive, Some(true)));
    bench.checked(Ok(()));
    assert_eq!(bench.switches(), [Some(decision(4, 5))]);
}

#[test]
fn a_proof_given_by_a_process_that_was_replaced_meanwhile_is_void() {
    let mut bench = Bench::new();
    bench.facts.servers = vec![server(4, 1, Process::Alive, Some(true))];
    bench.decide(4, 5);
    let asked = bench.route.serial;
    bench.set_server(server(4, 2, Process::Starting, None));
    bench.feed(Input::Checked { serial: asked, result: Ok(()) });
    assert_eq!((bench.route.target(), bench.route.serial), (None, asked + 1));
}

#[test]
fn a_supervisors_word_older_than_the_proof_does_not_undo_it() {
    let mut bench = Bench::new();
    bench.facts.servers = vec![server(6, 3, Process::Alive, Some(false))];
    bench.decide(6, 7);
    bench.checked(Ok(()));
    bench.view();
    assert_eq!(bench.switches(), [Some(decision(6, 7))]);
    // Still the old role in news about the process: a reason to ask, not to cut.
    bench.set_server(server(6, 3, Process::Busy, Some(false)));
    assert_eq!((bench.route.serial, bench.switches()), (2, vec![]));
    bench.checked(Ok(()));
    bench.set_server(server(6, 3, Process::Alive, Some(true)));
    bench.set_server(server(6, 3, Process::Alive, Some(false)));
    assert_eq!(bench.switches(), [None]);
}

#[test]
fn refusal_and_another_role_end_a_route_at_once() {
    for fault in [CheckFault::Refused, CheckFault::NotMaster("slave".into())] {
        let mut bench = Bench::routed();
        assert_eq!(bench.check(Err(fault)), 1_000);
        assert_eq!(bench.switches(), [None]);
        assert_eq!(bench.check(Ok(())), 20);
        assert_eq!(bench.switches(), [Some(decision(4, 5))]);
    }
}

#[test]
fn three_unclear_checks_in_a_row_end_a_route() {
    let mut bench = Bench::routed();
    assert_eq!([bench.check(unclear()), bench.check(unclear())], [1_000, 200]);
    assert_eq!(bench.check(Ok(())), 200);
    bench.check(unclear());
    bench.check(unclear());
    assert_eq!(bench.switches(), []);
    bench.check(unclear());
    assert_eq!(bench.switches(), [None]);
}

#[test]
fn a_check_whose_answer_is_lost_counts_as_unclear() {
    let mut bench = Bench::routed();
    bench.pass(20_000);
    assert_eq!(bench.switches(), [None]);
}

#[test]
fn a_busy_master_keeps_its_route() {
    let mut bench = Bench::routed();
    bench.set_server(server(4, 1, Process::Busy, Some(true)));
    for _ in 0..20 {
        bench.check(unclear());
    }
    bench.set_server(server(4, 1, Process::Alive, Some(true)));
    for _ in 0..20 {
        bench.check(Err(CheckFault::Busy("BUSY a script runs".into())));
    }
    assert_eq!(bench.switches(), []);
}

#[test]
fn suspicion_brings_a_check_forward_but_not_too_often() {
    let mut bench = Bench::routed();
    for _ in 0..1_000 {
        bench.feed(Input::Suspect);
    }
    assert_eq!(bench.check(Ok(())), 20);
    assert_eq!(bench.check(Ok(())), 1_000);
}

#[test]
fn a_failing_proof_is_asked_eagerly_and_then_less() {
    let mut bench = Bench::new();
    bench.decide(4, 5);
    bench.checked(Err(CheckFault::Refused));
    let mut waits = vec![];
    for _ in 0..200 {
        waits.push(bench.check(Err(CheckFault::Refused)));
    }
    assert_eq!((waits[0], waits[98], waits[199]), (20, 20, 1_000));
    assert!(waits.is_sorted(), "{waits:?}");
    let unproved = |output: &&Output| matches!(output, Output::Publish(Event::Unproved { .. }));
    assert_eq!(bench.out.iter().filter(unproved).count(), 1, "said once");
    let fault = Some("no route to the master 10.0.0.4:6379: connection refused".to_owned());
    assert_eq!(bench.route.said.fault, Some(fault));
    // News from its supervisor make it eager again.
    bench.set_server(server(4, 1, Process::Alive, Some(false)));
    bench.checked(Err(CheckFault::Refused));
    assert_eq!(bench.check(Ok(())), 20);
    assert_eq!(bench.route.said.fault, Some(None));
}

#[test]
fn a_listener_that_fails_gives_the_vip_up_at_once() {
    let mut bench = Bench::routed();
    bench.feed(Input::Listener(Err("port 6379 is taken".into())));
    let why = "port 6379 is taken".to_owned();
    assert_eq!(
        bench.acts(),
        [Output::Usable(Err(why.clone())), post(Some(decision(4, 5)), false, 0), Output::Fault(Some(why))]
    );
    bench.feed(Input::Listener(Ok(())));
    assert_eq!(bench.acts(), [Output::Usable(Ok(())), post(Some(decision(4, 5)), true, 0), Output::Fault(None)]);
}

fn peer(route: Option<Decision>) -> Vec<Peer> {
    vec![Peer { name: "proxy-02".parse().unwrap(), listening: true, route }]
}

#[test]
fn a_failover_moves_no_vip() {
    let mut bench = Bench::routed();
    bench.facts.peers = peer(Some(decision(4, 5)));
    bench.view();
    bench.decide(6, 7);
    // Nobody has a route for long, then the peer is a little faster.
    bench.checked(Err(CheckFault::NotMaster("slave".into())));
    for _ in 0..200 {
        bench.check(Err(CheckFault::NotMaster("slave".into())));
    }
    bench.facts.peers = peer(Some(decision(6, 7)));
    bench.view();
    bench.pass(250);
    bench.checked(Ok(()));
    bench.pass(900);
    assert_eq!(bench.usable(), []);
}

#[test]
fn the_vip_is_given_up_while_only_the_peer_has_a_route() {
    let mut bench = Bench::routed();
    bench.facts.peers = peer(Some(decision(4, 5)));
    bench.view();
    for _ in 0..3 {
        bench.check(unclear());
    }
    bench.out.clear();
    bench.pass(499);
    assert_eq!(bench.usable(), []);
    bench.pass(1);
    assert_eq!(bench.usable(), [Err("no route to the master, and proxy-02 has one".to_owned())]);
    bench.facts.peers = peer(None);
    bench.view();
    assert_eq!(bench.usable(), [Ok(())], "the peer is no better");
}

#[test]
fn the_vip_is_given_up_without_a_route_and_a_majority_of_the_sentinels() {
    for (voters, heard, usable) in
        [(1, 1, true), (2, 1, false), (3, 2, true), (3, 1, false), (4, 3, true), (4, 2, false)]
    {
        let mut bench = Bench::new();
        let voice = Voice { current_epoch: 0, decision: None, fenced: false };
        bench.facts = Facts { voters, sentinels: vec![voice; heard], ..Facts::default() };
        bench.view();
        bench.out.clear();
        bench.pass(5_000);
        let told = Err("no route to the master, and most sentinels are not heard".to_owned());
        let expected = if usable { vec![] } else { vec![told] };
        assert_eq!(bench.usable(), expected, "{heard} of {voters}");
    }
}

#[test]
fn reset_sentinels_are_believed_of_a_majority_of_an_even_number_only() {
    let mut bench = Bench::routed();
    bench.facts.voters = 4;
    let young = Voice { current_epoch: 1, decision: Some(decision(6, 1)), fenced: false };
    bench.facts.sentinels = vec![young; 2];
    bench.view();
    assert_eq!(bench.route.target(), Some(decision(4, 5)), "two of four are no majority");
    bench.facts.sentinels = vec![young; 3];
    bench.view();
    bench.checked(Ok(()));
    assert_eq!(bench.switches(), [None, Some(decision(6, 1))]);
}

#[test]
fn a_peer_that_follows_an_old_decision_or_does_not_listen_is_not_ahead() {
    let mut bench = Bench::new();
    bench.decide(6, 7);
    bench.facts.peers = peer(Some(decision(4, 5)));
    bench.facts.peers.push(Peer { name: "deaf".parse().unwrap(), listening: false, route: Some(decision(6, 7)) });
    bench.view();
    bench.out.clear();
    bench.pass(5_000);
    assert_eq!(bench.usable(), []);
}

#[test]
fn clients_are_posted_when_they_change() {
    let mut bench = Bench::routed();
    bench.feed(Input::Clients(3));
    bench.feed(Input::Clients(3));
    assert_eq!(bench.acts(), [post(Some(decision(4, 5)), true, 3)]);
}

#[test]
fn a_stop_cuts_and_says_so_once() {
    let mut bench = Bench::routed();
    bench.feed(Input::Stop);
    let stopped = [Output::Switch(None), Output::Usable(Err("the proxy stops".into())), post(None, false, 0)];
    assert_eq!(bench.acts(), stopped);
    bench.decide(6, 9);
    bench.pass(10_000);
    assert_eq!((bench.acts(), bench.route.deadline()), (vec![], None));
}

proptest::proptest! {
    /// Whatever happens: a target is the master of the highest decision heard and was proved since the last switch to none;
    /// two targets in a row have a cut in between; ticks move the deadline.
    #[test]
    fn every_target_was_named_and_proved(script in proptest::collection::vec((0_u8..12, 0_u64..700, 4_u8..7, 1_u64..9), 1..120)) {
        let mut bench = Bench::new();
        let (mut proved, mut target) = (None, None);
        for (what, wait, node, epoch) in script {
            bench.pass(wait);
            let before = bench.route.known();
            match what {
                0 | 1 => bench.decide(node, epoch),
                2 => bench.set_server(server(node, epoch, Process::Dead, None)),
                3 => bench.set_server(server(node, epoch, Process::Alive, Some(epoch % 2 == 0))),
                4 => bench.checked(unclear()),
                5 => bench.checked(Err(CheckFault::Refused)),
                6 => bench.feed(Input::Checked { serial: epoch, result: Ok(()) }),
                7 => bench.feed(Input::Suspect),
                _ => {
                    proved = before.map(|known| known.master);
                    bench.checked(Ok(()));
                }
            }
            for next in bench.switches() {
                if let Some(next) = next {
                    assert_eq!(target, None, "a cut first");
                    assert_eq!(bench.route.known().map(|known| known.master), Some(next.master));
                    assert!(what == 6 || proved == Some(next.master));
                    assert!(!bench.route.is_dead(next.master));
                }
                target = next;
            }
            assert_eq!(target.map(|target| target.master), bench.route.target().map(|target| target.master));
        }
    }
}

/// A master in a fenced cluster, which says that it holds the lease of that epoch.
fn leased(node: u8, lease: Option<Epoch>) -> Server {
    Server { lease, ..server(node, 1, Process::Alive, Some(true)) }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn fenced(bench: &mut Bench, node: u8, epoch: Epoch) {
    bench.facts.sentinels =
        vec![Voice { current_epoch: epoch, decision: Some(decision(node, epoch)), fenced: true }; 3];
}

#[test]
fn the_lease_of_a_redis_is_the_decision_before_any_sentinel_has_stored_it() {
    let mut bench = Bench::routed();
    fenced(&mut bench, 4, 5);
    bench.facts.servers = vec![leased(4, Some(5)), leased(5, None)];
    bench.view();
    assert_eq!(bench.route.target(), Some(decision(4, 5)));
    // Its sentinels have not told yet of the votes that it was elected by.
    let checks = bench.route.serial;
    bench.facts.servers = vec![leased(4, None), leased(5, Some(6))];
    bench.view();
    assert_eq!(bench.route.target(), Some(decision(5, 6)), "nobody else has that lease");
    assert_eq!(bench.route.serial, checks + 1, "and whether it is reached is asked at once");
    bench.checked(Err(CheckFault::Refused));
    bench.view();
    assert_eq!(bench.route.target(), None, "it is not");
    bench.check(Ok(()));
    assert_eq!(bench.route.target(), Some(decision(5, 6)));
    // Nobody is taken for the master who is none of the file.
    bench.facts.servers.push(leased(66, Some(9)));
    bench.view();
    assert_eq!(bench.route.target(), Some(decision(5, 6)));
}

#[test]
fn a_lease_is_no_proof_before_the_first_one_nor_of_a_process_that_is_not_well() {
    let mut bench = Bench::new();
    fenced(&mut bench, 4, 4);
    bench.facts.servers = vec![leased(4, Some(5))];
    bench.view();
    assert_eq!(bench.route.target(), None, "nothing is known of the way there");
    bench.checked(Ok(()));
    assert_eq!(bench.route.target(), Some(decision(4, 5)));
    for process in [Process::Busy, Process::Dead] {
        bench.facts.servers = vec![Server { process, ..leased(5, Some(6)) }];
        bench.view();
        assert_eq!(bench.route.target(), None, "{process:?}");
    }
}

#[test]
fn a_check_under_way_is_begun_again_only_for_what_takes_its_meaning_away() {
    for (word, again) in [
        (server(5, 1, Process::Alive, Some(true)), false),
        (server(5, 2, Process::Alive, None), true),
        (server(5, 1, Process::Busy, None), true),
        (server(5, 1, Process::Alive, Some(false)), true),
    ] {
        let mut bench = Bench::routed();
        bench.decide(5, 6);
        let checks = bench.route.serial;
        bench.pass(1);
        bench.set_server(word);
        assert_eq!(bench.route.serial - checks, u64::from(again), "{word:?}");
        // What was heard since it was asked may be what it lacked.
        if !again {
            bench.checked(unclear());
            assert_eq!(bench.route.serial, checks + 1);
            bench.checked(Ok(()));
            assert_eq!(bench.route.target(), Some(decision(5, 6)));
        }
    }
}

#[test]
fn who_is_not_heard_to_hold_a_lease_gets_no_writes() {
    let routed = || {
        let mut bench = Bench::routed();
        fenced(&mut bench, 4, 5);
        bench.facts.servers = vec![leased(4, Some(5))];
        bench.view();
        bench
    };
    // Not heard at all: it has been silent for long enough.
    let mut bench = routed();
    bench.facts.servers.clear();
    bench.view();
    assert_eq!(bench.route.target(), None);
    // Fenced for a moment.
    let mut bench = routed();
    bench.facts.servers = vec![leased(4, None)];
    bench.view();
    bench.pass(ms(LEASE_GRACE) / 2);
    assert_eq!(bench.route.target(), Some(decision(4, 5)), "a sentinel restarts");
    bench.facts.servers = vec![leased(4, Some(5))];
    bench.view();
    bench.pass(ms(LEASE_GRACE) * 2);
    assert_eq!(bench.route.target(), Some(decision(4, 5)));
    // And for longer.
    bench.facts.servers = vec![leased(4, None)];
    bench.view();
    bench.pass(ms(LEASE_GRACE));
    assert_eq!(bench.route.target(), None);
    // Proved to be a master, and not believed before it holds one.
    for lease in [None, Some(5)] {
        bench.facts.servers = vec![leased(4, lease)];
        bench.view();
        bench.pass(ms(RETRY));
        bench.checked(Ok(()));
        assert_eq!(bench.route.target(), lease.map(|_| decision(4, 5)));
    }
    // A cluster that is not fenced needs none.
    bench.facts.sentinels.iter_mut().for_each(|voice| voice.fenced = false);
    bench.facts.servers = vec![leased(4, None)];
    bench.view();
    bench.pass(ms(LEASE_GRACE) * 2);
    assert_eq!(bench.route.target(), Some(decision(4, 5)));
}
