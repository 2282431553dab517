//! The screen of a box: what a person sees who plugs a terminal into its serial port. 80 columns of ASCII and the control
//! sequences of a VT100, because that is what every terminal program at the other end understands.
//!
//! The upper part of the terminal is ours, the lower part is a scrolling region of its own (DECSTBM) where the cursor rests:
//! what the kernel prints appears there and disturbs nothing.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::client;
use super::status::{age, in_short, no_master};
use crate::runtime::status::fencing::Fencing;
use crate::runtime::status::{NodeStatus, Status};

/// A serial line does not tell its size: the size of a VT100.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// Rows at the bottom for the kernel.
const KERNEL_ROWS: usize = 5;
/// Rows of the screen.
const SCREEN_ROWS: usize = ROWS - KERNEL_ROWS;
/// Between two looks at the node.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Every so many looks everything is drawn again: somebody may have plugged in another terminal.
const REDRAW_LOOKS: u32 = 10;
/// Nodes listed at most; the others are counted.
const NODES_SHOWN: usize = 8;

/// What the screen shows.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// What the node says of the cluster, or why it says nothing.
    pub status: Result<&'f Status, &'f str>,
    /// What the box says of itself, above everything: why it serves nothing, what it lacks.
    pub notice: &'f str,
    /// Whether a key opens a shell.
    pub shell: bool,
}

/// How the screen was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The person wants a shell.
    Shell,
    /// The terminal is gone.
    Ended,
}

/// Shows the screen on standard output until a key asks for a shell, if it may, or the terminal goes. `notice` is a file
/// that may come, change and go. An error is one of the terminal's.
pub fn run(runtime_dir: &Path, notice: Option<&Path>, shell: bool) -> io::Result<Left> {
    let keys = Keys::new();
    let mut out = io::stdout().lock();
    let mut drawn: Vec<String> = Vec::new();
    let mut looks = 0;
    let left = loop {
        if looks % REDRAW_LOOKS == 0 {
            drawn.clear();
        }
        looks += 1;
        let told = client::status(runtime_dir).map_err(|error| error.to_string());
        let notice = notice.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = screen(&Facts { status: told.as_ref().map_err(String::as_str), notice: &notice, shell });
        out.write_all(&paint(&lines, &drawn))?;
        out.flush()?;
        drawn = lines;
        match keys.wait(LOOK_INTERVAL)? {
            Key::None => {}
            Key::End => break Left::Ended,
            Key::Typed(b's' | b'S' | b'\r' | b'\n') if shell => break Left::Shell,
            // Whatever else is typed: the whole screen, which is what people want who see a torn one.
            Key::Typed(_) => drawn.clear(),
        }
    };
    // The whole terminal scrolls again, and the cursor stands below what was shown.
    write!(out, "\x1b[r\x1b[{ROWS};1H\r\n")?;
    out.flush()?;
    Ok(left)
}

/// The bytes that turn what was `drawn` into `lines`.
fn paint(lines: &[String], drawn: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let all = drawn.is_empty();
    if all {
        // Firmware leaves terminals that cut long lines (DECAWM off). Setting the region puts the cursor home: into the region
        // with it, where the kernel goes on.
        bytes.extend_from_slice(format!("\x1b[?7h\x1b[{};{ROWS}r\x1b[{ROWS};1H", SCREEN_ROWS + 1).as_bytes());
    }
    bytes.extend_from_slice(b"\x1b7");
    for (row, line) in lines.iter().enumerate() {
        if all || drawn.get(row) != Some(line) {
            let (on, off) = if row == 0 || row + 1 == lines.len() { ("\x1b[7m", "\x1b[m") } else { ("", "") };
            bytes.extend_from_slice(format!("\x1b[{};1H{on}{line}{off}\x1b[K", row + 1).as_bytes());
        }
    }
    bytes.extend_from_slice(b"\x1b8");
    bytes
}

/// The lines of the screen, as many as it has, none longer than it is wide.
pub fn screen(facts: &Facts<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut wrong: Vec<String> = facts.notice.lines().map(str::to_owned).collect();
    let mut title = format!(" vigie {}", env!("CARGO_PKG_VERSION"));
    match facts.status {
        Ok(status) => {
            let own = status.nodes.iter().find(|node| node.name == status.node);
            if let Some(own) = own {
                title = format!("{title} | {} {} | {}", own.name, own.address, own.roles.join(" "));
            }
            title = format!("{title} | up {}", age(status.uptime_ms));
            lines.extend(cluster(status));
            wrong.extend(fence(&status.fencing));
            let faults = status.nodes.iter().filter(|node| !node.why.is_empty());
            wrong.extend(faults.map(|node| format!("{}: {}", node.name, node.why)));
            wrong.extend(status.fencing.warnings.iter().map(|warning| format!("warning: {warning}")));
        }
        Err(why) => {
            title.push_str(" | nothing is served");
            if wrong.is_empty() {
                wrong.push(why.to_owned());
            }
        }
    }
    let room = SCREEN_ROWS - 2 - lines.len();
    let mut wrong: Vec<String> = wrong.iter().flat_map(|line| wrapped(&ascii(line), COLUMNS - 1)).collect();
    if wrong.len() > room {
        let more = wrong.len() - (room - 1);
        wrong.truncate(room - 1);
        wrong.push(format!("... and {more} more lines: see `vigie status`"));
    }
    lines.extend(wrong);
    lines.resize(SCREEN_ROWS - 2, String::new());
    let keys = if facts.shell { " s: a shell" } else { " no shell at this console" };
    let foot = format!("{keys:<51}messages of the kernel below");
    let all = std::iter::once(title).chain(lines).chain([foot]);
    let full = |row: usize| row == 0 || row + 1 == SCREEN_ROWS;
    all.enumerate().map(|(row, line)| fitted(&ascii(&line), full(row))).collect()
}

/// What is not as it should be with the fence.
fn fence(fencing: &Fencing) -> Vec<String> {
    let why = Some(fencing.why.clone()).filter(|_| !fencing.as_wanted());
    let lease = fencing.lease.iter().flat_map(super::status::lease_faults).map(|fault| fault.trim_start().to_owned());
    why.into_iter().chain(lease).collect()
}

fn cluster(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    let master = match &status.master {
        Some(master) => {
            let node = master.node.as_deref().unwrap_or("a node that is not in the file");
            format!("master {node} {}, epoch {}", master.address, master.epoch)
        }
        None => no_master(&status.fencing).to_owned(),
    };
    let fenced = in_short(&status.fencing);
    // Long names are cut: what keeps everybody from writing stands before them.
    lines.push(match &status.fencing.lease {
        Some(lease) if lease.holder.is_none() => format!(" {}: {fenced}; {master}", status.cluster),
        Some(_) | None => format!(" {}: {master}, {fenced}", status.cluster),
    });
    let holder = status.nodes.iter().find(|node| node.vips.iter().any(|vip| vip.state == "master"));
    let vips = status.nodes.iter().flat_map(|node| &node.vips);
    let mut addresses: Vec<&str> = vips.flat_map(|vip| vip.addresses.iter().map(String::as_str)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if !addresses.is_empty() {
        let place = match holder {
            Some(holder) if holder.name == status.node => "here".to_owned(),
            Some(holder) => format!("at {}", holder.name),
            None => "nowhere".to_owned(),
        };
        lines.push(format!(" virtual IP {}: {place}", addresses.join(" ")));
    }
    lines.push(String::new());
    lines.push(row(["NODE", "ADDRESS", "ROLES", "HEALTH", "REDIS", "LAG"]));
    lines.extend(status.nodes.iter().take(NODES_SHOWN).map(node));
    if let Some(more) = status.nodes.len().checked_sub(NODES_SHOWN).filter(|more| *more > 0) {
        lines.push(format!(" ... and {more} more: see `vigie status`"));
    }
    lines.push(String::new());
    lines
}

fn row([name, address, roles, health, redis, lag]: [&str; 6]) -> String {
    format!(" {name:<14} {address:<15} {roles:<5} {health:<11} {redis:<20} {lag}")
}

fn node(node: &NodeStatus) -> String {
    let first = |role: &String| role.chars().take(1).collect::<String>().to_uppercase();
    let roles = node.roles.iter().map(first).collect::<Vec<_>>().concat();
    let redis = node.redis.as_ref();
    let cell = redis.map_or_else(|| "-".to_owned(), super::status::redis_cell);
    let lag = redis.and_then(|redis| redis.lag_bytes).map_or_else(|| "-".to_owned(), short);
    let held = if node.vips.iter().any(|vip| vip.state == "master") { " VIP" } else { "" };
    row([&node.name, &node.address, &roles, &node.health, &cell, &format!("{lag}{held}")])
}

/// Bytes in at most four characters, rounded down: what is behind it on the line has to fit, too.
fn short(bytes: u64) -> String {
    let mut scaled = (bytes, "");
    for unit in ["K", "M", "G", "T", "P", "E"] {
        if scaled.0 >= 1_000 {
            scaled = (scaled.0 / 1_000, unit);
        }
    }
    format!("{}{}", scaled.0, scaled.1)
}

/// What a terminal without any other character set can show.
fn ascii(text: &str) -> String {
    text.chars().map(|character| if matches!(character, ' '..='~') { character } else { '?' }).collect()
}

fn fitted(line: &str, full: bool) -> String {
    let mut line: String = line.chars().take(COLUMNS - 1).collect();
    if full {
        line = format!("{line:<0$}", COLUMNS - 1);
    }
    line
}

/// Lines of at most `width` characters, broken between words where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::from(" ")];
    for word in text.split(' ') {
        let mut word = word;
        while !word.is_empty() {
            let Some(last) = lines.last_mut() else { break };
            let blank = usize::from(last.len() > 1 && !last.ends_with("   "));
            if last.len() + blank + word.len() <= width {
                last.push_str(if blank == 1 { " " } else { "" });
                last.push_str(word);
                break;
            }
            if last.trim().is_empty() {
                let (head, tail) = word.split_at(word.len().min(width - last.len()));
                last.push_str(head);
                word = tail;
            }
            if !word.is_empty() {
                lines.push("   ".to_owned());
            }
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

enum Key {
    None,
    Typed(u8),
    End,
}

/// The keyboard, key by key and without an echo, as long as it lives.
struct Keys(Option<Termios>);

impl Keys {
    fn new() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            // One that stays as it was echoes what is typed: ugly, and all there is to lose.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
        }
        Self(before)
    }

    /// What is typed within that time.
    fn wait(&self, limit: Duration) -> io::Result<Key> {
        let stdin = io::stdin();
        let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if poll(&mut polled, timeout)? == 0 {
            return Ok(Key::None);
        }
        let mut byte = [0];
        Ok(match stdin.lock().read(&mut byte)? {
            0 => Key::End,
            _ => Key::Typed(byte[0]),
        })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests;
