//! The demo as text, for a pipe, a file or a log: one killed master, and a line for everything that happens.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::DemoError;
use super::events::{Event, Events};
use super::scenario::{Run, Scenario, Step, Summary, once};
use crate::operate::lab::cluster::{Cluster, Layout};
use crate::operate::lab::sandbox::Sandbox;
use crate::operate::status::page;
use crate::runtime::exit::Exit;

/// Who speaks where no node does.
const OWN: &str = "demo";

/// Starts the cluster, kills the master's redis under a client that writes, and tells all of it. Returns the exit code: 1 if a
/// write was lost or writes did not flow again.
pub(super) fn run(clients: u16, sandbox: &Sandbox, binary: &Path) -> Result<u8, DemoError> {
    let paper = Paper::new(io::stdout());
    let layout = Layout::classic();
    let vip = layout.vip;
    paper.say(&format!("starting {}", hosts(&layout)))?;
    let cluster = Arc::new(Cluster::start(sandbox, layout, binary)?);
    let pen = paper.clone();
    // Where nobody reads any more, the next line of this thread's own ends the demo.
    let events = Arc::new(Events::new(move |event| drop(pen.event(event))));
    for name in cluster.names() {
        let (events, directory) = (Arc::clone(&events), cluster.runtime_dir(name));
        // It ends with the private world.
        thread::spawn(move || events.follow(name, &directory, &AtomicBool::new(false)));
    }
    let run = once(&cluster, Scenario::Crash, 1, clients, &mut |step| match step {
        Step::Whole(status) => {
            paper.say("the cluster is whole:")?;
            paper.page(&page(status))
        }
        Step::Writing(plan) => paper.say(&format!(
            "{} connections write through the virtual IP {vip}, {} times per second",
            plan.connections, plan.rate
        )),
        Step::Fault(what) => paper.say(what),
        Step::Flowing(outage) => {
            paper.say(&format!("writes flow again after {:.1} ms", outage.as_secs_f64() * 1_000.0))
        }
        Step::Stuck(limit) => paper.say(&format!("writes do not flow again within {limit:?}")),
    })?;
    paper.result(&run)?;
    Ok(Exit::answer(Summary::new(Scenario::Crash, &[run]).passed(1)).code())
}

/// How many hosts there are, and what for.
fn hosts(layout: &Layout) -> String {
    let with = |role| layout.nodes.iter().filter(|node| node.roles.contains(&role)).count();
    let (all, proxies, redis, sentinels) = (layout.nodes.len(), with("proxy"), with("redis"), with("sentinel"));
    format!("{all} hosts: {proxies} proxies, {redis} redis, {sentinels} sentinels")
}

/// Where the lines go: whole ones, each handed on at once, from any thread.
struct Paper<W>(Arc<Mutex<W>>);

impl<W> Clone for Paper<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: Write> Paper<W> {
    fn new(out: W) -> Self {
        Self(Arc::new(Mutex::new(out)))
    }

    fn say(&self, text: &str) -> io::Result<()> {
        self.event(&Event::own(OWN, text))
    }

    fn event(&self, event: &Event) -> io::Result<()> {
        self.page(&format!("{} {:<11} {}", event.time(), event.node, one_line(&event.text)))
    }

    fn page(&self, page: &str) -> io::Result<()> {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in page.lines() {
            writeln!(out, "{}", one_line(line))?;
        }
        out.flush()
    }

    fn result(&self, run: &Run) -> io::Result<()> {
        let outage = run.outage_ms.map_or_else(|| "no recovery".to_owned(), |millis| format!("{millis:.1} ms"));
        let (lost, acked, errors) = (run.lost, run.acked, run.errors);
        self.page(&format!(
            "\noutage: {outage}\nlost writes: {lost} of {acked} acknowledged\nerrors that the client saw: {errors}"
        ))
    }
}

/// Without what a terminal or a reader of lines would take for more than text.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Keeps what has been flushed apart from what has not.
    #[derive(Default)]
    struct Buffered {
        waiting: Vec<u8>,
        out: Vec<u8>,
    }

    impl Write for Buffered {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.waiting.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.out.append(&mut self.waiting);
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn out(paper: &Paper<Buffered>) -> String {
        String::from_utf8(paper.0.lock().unwrap().out.clone()).unwrap()
    }

    fn run(outage_ms: Option<f64>) -> Run {
        let (scenario, failures) = (Scenario::Crash, BTreeMap::new());
        Run { scenario, run: 1, outage_ms, errors: 3, connect_errors: 0, stall_ms: None, acked: 900, lost: 2, failures }
    }

    #[test]
    fn an_event_is_a_line_with_time_node_and_text_and_is_out_at_once() {
        let paper = Paper::new(Buffered::default());
        let text = "sentinel +switch-master: now\x1b[2J redis-02\r\nx".to_owned();
        paper.event(&Event { at_ms: 45_296_789, node: "redis-02".to_owned(), text, own: false }).unwrap();
        assert_eq!(
            out(&paper),
            "12:34:56.789 redis-02    sentinel +switch-master: now\u{fffd}[2J redis-02\u{fffd}\u{fffd}x\n"
        );
    }

    #[test]
    fn the_result_has_the_outage_and_the_lost_writes() {
        let paper = Paper::new(Buffered::default());
        paper.result(&run(Some(43.2))).unwrap();
        paper.result(&run(None)).unwrap();
        let expected = "\noutage: 43.2 ms\nlost writes: 2 of 900 acknowledged\nerrors that the client saw: 3\n";
        assert_eq!(out(&paper), format!("{expected}{}", expected.replace("43.2 ms", "no recovery")));
    }

    #[test]
    fn a_page_keeps_its_lines_and_nothing_else_that_moves_a_cursor() {
        let paper = Paper::new(Buffered::default());
        paper.page("a\tb\n\nc\n").unwrap();
        assert_eq!(out(&paper), "a\u{fffd}b\n\nc\n");
    }

    #[test]
    fn a_closed_output_is_an_error() {
        assert_eq!(Paper::new(Closed).say("x").map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn the_hosts_are_counted() {
        assert_eq!(hosts(&Layout::classic()), "5 hosts: 2 proxies, 3 redis, 3 sentinels");
    }
}
