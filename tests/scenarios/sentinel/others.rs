//! The other sentinels: each answers for its vote and says over the peer link what the script has said.

use std::net::SocketAddr;

use vigie::base::node::{Decision, MasterFacts, Mode, SentinelFacts, clipped};
use vigie::base::{Epoch, Place, RunId};
use vigie::cores::sentinel::NodeFacts;
use vigie::wire::hello::Hello;
use vigie::wire::resp::Reply;

use super::{Line, MASTER};
use crate::words::{Words, unexpected};

/// One other sentinel.
pub(super) struct Other {
    pub(super) name: String,
    pub(super) id: RunId,
    pub(super) address: SocketAddr,
    pub(super) line: Line,
    /// Whether it speaks over the peer link: a stock sentinel does not.
    pub(super) speaks: bool,
    pub(super) epoch: Epoch,
    pub(super) decision: Option<Decision>,
    sees_down: bool,
    leads: Option<Epoch>,
    vote: Option<(RunId, Epoch)>,
    /// Whether it votes for whoever asks first in an epoch.
    grants: bool,
    /// What it last said over the peer link.
    told: Option<NodeFacts>,
}

/// What a command has made it say or do.
#[derive(Default)]
pub(super) struct Act {
    /// Its connections change.
    pub(super) line: Option<Line>,
    /// It asks for a vote in this epoch.
    pub(super) asks: Option<Epoch>,
    /// Whether it greets, if it is one that does.
    pub(super) greets: bool,
}

impl Other {
    pub(super) fn new(name: String, id: RunId, address: SocketAddr, speaks: bool) -> Self {
        Self {
            name,
            id,
            address,
            line: Line::Up,
            speaks,
            epoch: 0,
            decision: None,
            sees_down: false,
            leads: None,
            vote: None,
            grants: true,
            told: None,
        }
    }

    /// `up|silent|down`, `sees down|up`, `votes for s1 epoch N`, `votes for anybody|nobody`, `leads epoch N`,
    /// `leads nothing`, `names A epoch N`, `epoch N`, `asks epoch N`
    pub(super) fn act(
        &mut self,
        words: &mut Words,
        place: impl Fn(&mut Words) -> Result<SocketAddr, String>,
        id: impl Fn(&str) -> Option<RunId>,
    ) -> Result<Act, String> {
        let epoch = |words: &mut Words| {
            words.keyword("epoch")?;
            words.value::<Epoch>("an epoch")
        };
        let mut act = Act::default();
        loop {
            let word = words.next("what the sentinel does")?;
            // Of several: `sentinels see down`.
            match word.strip_suffix('s').unwrap_or(&word) {
                "see" => {
                    self.sees_down = match words.next("down or up")?.as_str() {
                        "down" => true,
                        "up" => false,
                        other => return Err(unexpected(other, "down or up")),
                    }
                }
                "vote" => {
                    words.keyword("for")?;
                    match words.next("a sentinel")?.as_str() {
                        "anybody" => self.grants = true,
                        "nobody" => self.grants = false,
                        name => {
                            let leader = id(name).ok_or_else(|| unexpected(name, "a sentinel, anybody or nobody"))?;
                            self.vote = Some((leader, epoch(words)?));
                        }
                    }
                }
                "lead" if words.optional("nothing") => self.leads = None,
                "lead" => self.leads = Some(epoch(words)?),
                "name" => {
                    let master = place(words)?;
                    self.decision = Some(Decision { master, epoch: epoch(words)? });
                    (self.sees_down, act.greets) = (false, true);
                }
                "epoch" => (self.epoch, act.greets) = (words.value("an epoch")?, true),
                "ask" => {
                    let asked = epoch(words)?;
                    act.asks = Some(asked);
                    if self.speaks {
                        // Over the peer link: who stands for election has voted for itself.
                        (self.leads, self.vote) = (Some(asked), Some((self.id, asked)));
                    }
                }
                _ => act.line = Some(Line::of(&word).ok_or_else(|| unexpected(&word, ACTS))?),
            }
            let known = [self.vote.map(|(_, epoch)| epoch), self.leads, self.decision.map(|decision| decision.epoch)];
            self.epoch = known.into_iter().flatten().max().unwrap_or(0).max(self.epoch);
            if words.is_empty() {
                return Ok(act);
            }
        }
    }

    /// What it answers.
    pub(super) fn answer(&mut self, words: &[String]) -> Reply {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["PING"] => Reply::Simple("PONG".to_owned()),
            ["SENTINEL", "is-master-down-by-addr", ip, port, epoch, candidate] => {
                let about = format!("{ip}:{port}").parse().ok();
                let down = self.sees_down && about == self.decision.map(|decision| decision.master);
                let vote = candidate.parse().ok().zip(epoch.parse().ok()).map(|(id, epoch)| self.vote(id, epoch));
                let (leader, epoch) =
                    vote.flatten().map_or_else(|| ("*".to_owned(), 0), |(id, epoch)| (id.to_string(), epoch));
                let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
                Reply::Array(vec![Reply::Integer(i64::from(down)), Reply::Bulk(leader.into()), Reply::Integer(epoch)])
            }
            _ => Reply::Simple("OK".to_owned()),
        }
    }

    pub(super) fn vote(&mut self, candidate: RunId, epoch: Epoch) -> Option<(RunId, Epoch)> {
        let last = self.vote.map_or(0, |(_, epoch)| epoch);
        if self.grants && last < epoch && self.epoch <= epoch {
            (self.vote, self.epoch) = (Some((candidate, epoch)), epoch);
        }
        self.vote
    }

    /// What it says over the peer link, if that has changed.
    pub(super) fn frame(&mut self) -> Option<NodeFacts> {
        let facts = MasterFacts {
            name: clipped(MASTER),
            decision: self.decision,
            sees_down: self.sees_down,
            leads: self.leads,
            vote: self.vote,
            mode: Some(Mode::Unfenced),
            ..MasterFacts::default()
        };
        let sentinel = SentinelFacts { id: self.id, current_epoch: self.epoch, masters: [facts].into_iter().collect() };
        let fresh = matches!(self.line, Line::Up);
        let node = self.name.parse().expect("names of sentinels are s and a number");
        let facts = NodeFacts::unfenced(node, None, Some(sentinel), fresh);
        let news = self.speaks && self.told.as_ref() != Some(&facts) && (fresh || self.told.is_some());
        news.then(|| self.told.insert(facts).clone())
    }

    /// Its greeting on the hello channel; none if it knows of no master.
    pub(super) fn greeting(&self) -> Option<String> {
        let decision = self.decision.filter(|_| !self.speaks)?;
        let hello = Hello {
            place: Place::from(self.address),
            id: self.id,
            current_epoch: self.epoch,
            master_name: MASTER.to_owned(),
            master: Place::from(decision.master),
            config_epoch: decision.epoch,
        };
        Some(hello.to_string())
    }
}

const ACTS: &str = "up, silent, down, sees, votes, leads, names, epoch or asks";
