use super::*;

/// A queue, and all that came out of it.
#[derive(Default)]
struct Queue {
    scripts: Scripts,
    now: Instant,
    wake: Option<Instant>,
    started: Vec<ScriptId>,
    killed: Vec<ScriptId>,
    events: Vec<String>,
}

impl Queue {
    fn of(count: usize) -> Self {
        let mut queue = Self::default();
        for n in 0..count {
            queue.scripts.schedule(vec!["/bin/tell".into(), n.to_string()]);
        }
        queue.turn();
        queue
    }

    fn turn(&mut self) {
        let (mut requests, mut events) = (vec![], vec![]);
        self.wake = self.scripts.turn(self.now, &Timers::default(), &mut requests, &mut events);
        assert!(self.wake.is_none_or(|wake| wake > self.now), "a turn must move its deadline");
        for request in requests {
            match request {
                Request::Start { id, .. } => self.started.push(id),
                Request::Kill(id) => self.killed.push(id),
            }
        }
        self.events.extend(events.into_iter().map(|event| format!("{} {}", event.name, event.payload)));
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.turn();
    }

    fn report(&mut self, report: Report) {
        self.scripts.report(report, self.now);
        self.turn();
    }

    /// Runs the last one that was started.
    fn runs(&mut self, exit: Exit) {
        let id = *self.started.last().expect("something was started");
        self.report(Report::Started(id, 77));
        self.report(Report::Ended(id, exit));
    }
}

#[test]
fn a_script_that_works_is_run_once() {
    let mut queue = Queue::of(1);
    assert_eq!((queue.scripts.running(), queue.scripts.queue_length()), (1, 1));
    queue.runs(Exit::Code(0));
    assert_eq!(queue.events, ["+script-child 77", "-script-child 77 0 0"]);
    assert_eq!((queue.scripts.running(), queue.scripts.queue_length(), queue.wake), (0, 0, None));
}

#[test]
fn exit_codes_above_one_are_final_and_said() {
    let mut queue = Queue::of(1);
    queue.runs(Exit::Code(2));
    assert_eq!(queue.events, ["+script-child 77", "-script-child 77 2 0", "-script-error /bin/tell 0 2"]);
    assert_eq!(queue.scripts.queue_length(), 0);
}

#[test]
fn exit_one_and_signals_are_tried_again_after_a_delay_that_doubles_ten_times_in_all() {
    for exit in [Exit::Code(1), Exit::Signal(9)] {
        let mut queue = Queue::of(1);
        let mut delay = 30;
        for run in 1..10 {
            queue.runs(exit);
            assert_eq!(queue.wake, Some(queue.now + Duration::from_secs(delay)), "after run {run}");
            assert_eq!((queue.scripts.running(), queue.scripts.queue_length()), (0, 1));
            queue.pass(delay - 1);
            assert_eq!(queue.started.len(), run, "not before its time");
            queue.pass(1);
            assert_eq!(queue.started.len(), run + 1);
            delay *= 2;
        }
        assert!(queue.events.iter().all(|event| !event.starts_with("-script-error")), "{:?}", queue.events);
        queue.runs(exit);
        let last = if exit == Exit::Code(1) { "-script-error /bin/tell 0 1" } else { "-script-error /bin/tell 9 0" };
        assert_eq!(queue.events.last().map(String::as_str), Some(last));
        assert_eq!((queue.scripts.queue_length(), queue.wake), (0, None));
    }
}

#[test]
fn a_process_that_cannot_be_made_is_said_and_tried_again() {
    let mut queue = Queue::of(1);
    queue.report(Report::Ended(queue.started[0], Exit::Unstarted));
    assert_eq!(queue.events, ["-script-error /bin/tell 99 0"]);
    queue.pass(30);
    assert_eq!(queue.started.len(), 2);
}

#[test]
fn a_script_that_hangs_is_killed_once_and_counts_as_ended_by_the_signal() {
    let mut queue = Queue::of(1);
    queue.report(Report::Started(queue.started[0], 77));
    assert_eq!(queue.wake, Some(Instant::from_millis(60_000)));
    queue.pass(60);
    queue.pass(1);
    assert_eq!((queue.killed.len(), queue.wake), (1, None));
    assert_eq!(queue.events.last().map(String::as_str), Some("-script-timeout /bin/tell 77"));
    queue.report(Report::Ended(queue.started[0], Exit::Signal(9)));
    assert_eq!(queue.events.last().map(String::as_str), Some("-script-child 77 0 9"));
    queue.pass(30);
    assert_eq!(queue.started.len(), 2);
}

#[test]
fn sixteen_run_at_once_and_the_oldest_first() {
    let mut queue = Queue::of(20);
    assert_eq!(queue.started, (1..=16).map(ScriptId).collect::<Vec<_>>());
    assert_eq!((queue.scripts.running(), queue.scripts.queue_length()), (16, 20));
    queue.report(Report::Ended(ScriptId(7), Exit::Code(0)));
    assert_eq!(queue.started.last(), Some(&ScriptId(17)));
}

#[test]
fn a_full_queue_drops_the_oldest_that_waits() {
    let mut queue = Queue::of(QUEUE_MAX);
    queue.scripts.schedule(vec!["/bin/last".into()]);
    queue.turn();
    assert_eq!((queue.scripts.running(), queue.scripts.queue_length()), (16, QUEUE_MAX));
    assert_eq!(queue.events, ["script-dropped 256 scripts wait already, one is not run: /bin/tell 16"]);
}

#[test]
fn what_nobody_asked_for_is_ignored() {
    let mut queue = Queue::of(1);
    queue.report(Report::Started(ScriptId(9), 1));
    queue.report(Report::Ended(ScriptId(9), Exit::Code(0)));
    queue.runs(Exit::Code(0));
    queue.report(Report::Ended(ScriptId(1), Exit::Code(1)));
    queue.scripts.schedule(vec![]);
    queue.turn();
    assert_eq!((queue.scripts.queue_length(), queue.events.len()), (0, 2));
}

#[test]
fn pending_scripts_are_told_as_stock_does() {
    let mut queue = Queue::of(1);
    queue.report(Report::Started(ScriptId(1), 4_711));
    queue.now = queue.now + Duration::from_millis(1_500);
    let words = |queue: &Queue| {
        let Reply::Array(jobs) = queue.scripts.pending(queue.now).flat() else { panic!("an array is expected") };
        let Reply::Array(fields) = &jobs[0] else { panic!("a map is expected") };
        assert_eq!(fields[1], Reply::Array(["/bin/tell", "0"].map(|arg| Reply::Bulk(arg.into())).to_vec()));
        let texts = fields.iter().enumerate().filter(|(n, _)| *n != 1);
        texts.map(|(_, field)| field.text().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(&queue), "argv flags running pid 4711 run-time 1500 retry-num 1");
    queue.report(Report::Ended(ScriptId(1), Exit::Code(1)));
    queue.pass(10);
    assert_eq!(words(&queue), "argv flags scheduled pid 0 run-delay 20000 retry-num 1");
}

#[test]
fn arguments_are_those_of_stock() {
    let place = |host: &str, port| Place { host: host.into(), port };
    let argv = client_reconfig("/x/y", "mymaster", Role::Leader, &place("10.0.0.1", 6379), &place("b", 6380));
    assert_eq!(argv, ["/x/y", "mymaster", "leader", "start", "10.0.0.1", "6379", "b", "6380"]);
    assert_eq!(notification("/n", "+sdown", "master m 10.0.0.1 6379"), ["/n", "+sdown", "master m 10.0.0.1 6379"]);
}

#[test]
fn warnings_alone_are_for_the_notification_script() {
    assert_eq!(level("+sdown"), Some(Level::Warning));
    assert_eq!(level("+slave"), Some(Level::Notice));
    assert_eq!(level("-role-change"), Some(Level::Verbose));
    assert_eq!(level("+script-child"), Some(Level::Debug));
    assert_eq!(level("proof"), None);
}
