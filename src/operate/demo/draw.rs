//! The picture of the live view: plain data in, widgets out.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table};

use super::events::Event;
use crate::runtime::status::{NodeStatus, RedisStatus};

/// Everything that is shown, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Screen {
    /// One row per node.
    pub(super) nodes: Vec<Node>,
    /// The row that the keys for one host mean.
    pub(super) selected: usize,
    /// The master by the latest decision.
    pub(super) master: Option<String>,
    /// Hosts that have the VIP on their interface.
    pub(super) vip_holders: Vec<String>,
    /// Where the holder's proxy sends writes.
    pub(super) route: Option<String>,
    /// Acknowledged writes per quarter of a second, oldest first.
    pub(super) writes: Vec<u64>,
    /// Acknowledged writes of the last full second.
    pub(super) rate: u64,
    /// What the client saw.
    pub(super) client: ClientNumbers,
    /// What happened, newest last.
    pub(super) events: Vec<Event>,
    /// What is being done, or what became of it.
    pub(super) notice: String,
    /// How to look around from another terminal.
    pub(super) hint: String,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// What the cluster says of it.
    pub(super) status: NodeStatus,
    /// Whether its cable has been pulled here.
    pub(super) cut: bool,
    /// Whether its kernel has the VIP.
    pub(super) has_vip: bool,
}

/// Numbers of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClientNumbers {
    /// Since the last acknowledged write, milliseconds.
    pub(super) silent_ms: u64,
    /// The outage of the last fault, tenths of a millisecond.
    pub(super) outage: Option<u64>,
    /// Failed writes.
    pub(super) errors: u64,
    /// Acknowledged writes.
    pub(super) acked: u64,
    /// Those that were read back.
    pub(super) checked: u64,
    /// Those that were missing or wrong then.
    pub(super) lost: u64,
}

/// A silence longer than this is shown as an outage.
const SILENT_MS: u64 = 100;
const KEYS: &str = " m kill the master's redis · v kill vigie at the VIP · s switch over · h heal all · q quit\n \
                    ↑↓ choose a host, then: k kill its vigie · r kill its redis · c cut it off";

/// Draws the whole picture.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let rows = u16::try_from(screen.nodes.len()).unwrap_or(u16::MAX).saturating_add(3);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows),
        Constraint::Length(6),
        Constraint::Min(3),
        Constraint::Length(4),
    ]);
    let [head, nodes, client, events, foot] = areas.areas(frame.area());
    frame.render_widget(headline(screen), head);
    frame.render_widget(table(screen), nodes);
    draw_client(frame, client, screen);
    draw_events(frame, events, screen);
    let foot_text = format!("{KEYS}\n {}\n {}", screen.hint, screen.notice);
    frame.render_widget(Paragraph::new(foot_text), foot);
}

fn headline(screen: &Screen) -> Line<'_> {
    let none = "nobody".to_owned();
    let holder = if screen.vip_holders.is_empty() { none.clone() } else { screen.vip_holders.join(" AND ") };
    let vip_style = if screen.vip_holders.len() == 1 { Style::new().green() } else { Style::new().red() };
    let name = |name: &Option<String>| Span::from(name.clone().unwrap_or_else(|| none.clone())).bold();
    Line::from(vec![
        " vigie demo   ".bold(),
        "VIP on ".into(),
        Span::styled(holder, vip_style.add_modifier(Modifier::BOLD)),
        "   writes go to ".into(),
        name(&screen.route),
        "   master ".into(),
        name(&screen.master),
    ])
}

fn table(screen: &Screen) -> Table<'_> {
    let header = ["", "NODE", "ADDRESS", "ROLES", "HEALTH", "REDIS", "OFFSET", "LAG", "PROXY", "VIP"];
    let rows = screen.nodes.iter().enumerate().map(|(n, node)| row(node, n == screen.selected));
    let widths = [1, 11, 12, 15, 26, 14, 10, 6, 18, 9].map(Constraint::Length);
    Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::new().borders(Borders::TOP | Borders::BOTTOM))
}

fn row(node: &Node, selected: bool) -> Row<'static> {
    let Node { status, cut, has_vip } = node;
    let health = match (cut, status.health.as_str(), status.why.as_str()) {
        (true, ..) => Cell::from("cable pulled").red(),
        (false, "good", _) => Cell::from("good").green(),
        (false, health, "") => Cell::from(health.to_owned()).yellow(),
        (false, _, why) => Cell::from(why.to_owned()).yellow(),
    };
    let redis = status.redis.as_ref();
    let style = match redis.map(|redis| redis.role.as_str()) {
        Some("master") => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
        _ => Style::new(),
    };
    let proxy = status.proxy.as_ref().map(|proxy| match (&proxy.route, proxy.listening) {
        (_, false) => "not listening".to_owned(),
        (None, true) => "no route".to_owned(),
        (Some(_), true) => format!("{} clients", proxy.clients),
    });
    let vip = status.vips.first().map(|vip| vip.state.clone()).unwrap_or_default();
    let cells = [
        Cell::from(if selected { "▶" } else { " " }),
        Cell::from(status.name.clone()),
        Cell::from(status.address.clone()),
        Cell::from(status.roles.join(" ")),
        health,
        Cell::from(redis.map(redis_text).unwrap_or_default()).style(style),
        Cell::from(redis.map(|redis| redis.offset.to_string()).unwrap_or_default()),
        Cell::from(redis.and_then(|redis| redis.lag_bytes).map(|lag| lag.to_string()).unwrap_or_default()),
        Cell::from(proxy.unwrap_or_default()),
        if *has_vip { Cell::from(format!("◉ {vip}")).green() } else { Cell::from(vip) },
    ];
    Row::new(cells)
}

fn redis_text(redis: &RedisStatus) -> String {
    match (redis.process.as_str(), redis.role.as_str()) {
        ("alive", "replica") if !redis.in_sync => "replica, syncs".to_owned(),
        ("alive", role) => role.to_owned(),
        (process, _) => process.to_owned(),
    }
}

fn draw_client(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let ClientNumbers { silent_ms, outage, errors, acked, checked, lost } = screen.client;
    let silent = silent_ms > SILENT_MS;
    let title = format!(" client: {} writes/s through the VIP ", screen.rate);
    let [left, right] = Layout::horizontal([Constraint::Min(20), Constraint::Length(44)]).areas(area);
    let style = if silent { Style::new().red() } else { Style::new().green() };
    let spark = Sparkline::default().data(tail(&screen.writes, left.width)).style(style);
    frame.render_widget(spark.block(Block::new().title(title)), left);
    let outage = outage.map_or_else(|| "none yet".to_owned(), |tenths| format!("{}.{} ms", tenths / 10, tenths % 10));
    let now = if silent { Line::from(format!("no write for {silent_ms} ms")).red().bold() } else { Line::from("") };
    let lost_style = if lost == 0 { Style::new().green() } else { Style::new().red().add_modifier(Modifier::BOLD) };
    let numbers = vec![
        Line::from(vec!["outage of the last fault  ".into(), Span::from(outage).bold()]),
        Line::from(vec!["acknowledged writes lost  ".into(), Span::styled(lost.to_string(), lost_style)]),
        Line::from(format!("acknowledged {acked}, read back {checked}")).dim(),
        Line::from(format!("errors that the client saw {errors}")).dim(),
        now,
    ];
    frame.render_widget(Paragraph::new(numbers).block(Block::new().borders(Borders::LEFT)), right);
}

/// The newest values that fit.
fn tail(values: &[u64], width: u16) -> &[u64] {
    &values[values.len().saturating_sub(usize::from(width))..]
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let height = usize::from(area.height.saturating_sub(1));
    let newest = &screen.events[screen.events.len().saturating_sub(height)..];
    let line = |event: &Event| {
        let when = format!(" {} ", event.time());
        let text = Span::from(event.text.clone());
        let text = if event.own { text.bold().yellow() } else { text };
        Line::from(vec![when.dim(), format!("{:<11} ", event.node).cyan(), text])
    };
    let lines = newest.iter().map(line).collect::<Vec<_>>();
    let block = Block::new().borders(Borders::TOP).title(" events (UTC) ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests;
