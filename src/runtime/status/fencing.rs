//! What people are told of the fence: whether a master needs a lease to take writes, who holds it, and what is missing. All of it
//! is read from the [`View`] of one node, for every command that tells of it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::base::census::majority;
use crate::base::lease::{FileTerms, Tenure, Terms};
use crate::base::node::{Decision, Mode, NodeState, Process};
use crate::base::time::millis;
use crate::config::{Config, Fencing as Wish, PEER_PORT, keys};
use crate::cores::cluster::{NodeView, View};

/// `mode` of a cluster whose master takes writes only while it holds the lease.
pub const FENCED: &str = "fenced";
/// `mode` of a cluster whose master goes on taking writes when it is cut off.
pub const NOT_FENCED: &str = "not fenced";
/// `mode` on a node that hears no sentinel, and `writes` of a lease whose holder may be one that is not heard.
pub const UNKNOWN: &str = "unknown";
/// `writes` of a lease that a redis holds.
pub const TAKEN: &str = "taken";
/// `writes` when no redis holds the lease.
pub const REFUSED: &str = "refused";

/// Whether a master that is cut off goes on taking writes, and what keeps it from that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fencing {
    /// `fencing`: `fenced` or `not fenced`, by the latest decision; `unknown` where no sentinel is heard.
    #[serde(rename = "fencing")]
    pub mode: String,
    /// `fencing_wanted`: what the file of the node that answers asks for, `lease` or `off`.
    #[serde(rename = "fencing_wanted")]
    pub wanted: String,
    /// `fencing_why`: why it is not fenced, or not what that file asks for, in words; empty if it is fenced and asked for.
    #[serde(rename = "fencing_why")]
    pub why: String,
    /// The lease; none unless `fencing` is `fenced`.
    pub lease: Option<LeaseStatus>,
    /// What is wrong with the files or the versions of the nodes, and works all the same, in words.
    pub warnings: Vec<String>,
}

impl Fencing {
    /// Whether it is what the file of the node that answers asks for.
    pub fn as_wanted(&self) -> bool {
        (self.mode == FENCED) == (self.wanted == "lease")
    }

    /// Whether it is known that no redis takes writes since none holds the lease.
    pub fn refuses_writes(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.writes == REFUSED)
    }
}

/// The lease by which a redis takes writes. Times are of the moment when its holder last spoke.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseStatus {
    /// `taken` by the holder; `refused` if nobody holds it; `unknown` if whoever may hold it is not heard.
    pub writes: String,
    /// The node whose redis holds it.
    pub holder: Option<String>,
    /// The epoch in which the holder was elected.
    pub epoch: Option<u64>,
    /// What was left of it, milliseconds.
    pub left_ms: Option<u64>,
    /// The shortest time that was left before the fence would have begun, since it was taken, milliseconds.
    pub slack_ms: Option<u64>,
    /// The sentinels that have granted it.
    pub grants: Vec<String>,
    /// The sentinels that have not, and why as far as that is known.
    pub missing: Vec<Reason>,
    /// As many grants are needed.
    pub needed: usize,
    /// Without a holder: what keeps each node from the lease.
    pub without: Vec<Reason>,
    /// What keeps the node that answers from hearing a majority of the sentinels; empty if it hears one.
    pub unheard: String,
}

/// A node, and what is the matter with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its name.
    pub node: String,
    /// In words; empty if it is not known.
    pub why: String,
}

impl Fencing {
    /// How it stands in the cluster of `config`, as `view` has it.
    pub fn new(config: &Config, view: &View) -> Self {
        let told = Told { config, view, name: config.cluster.name.as_str(), wish: config.cluster.fencing };
        let mode = told.mode();
        let why = match mode {
            None => told.unheard(),
            Some(mode) => told.why(mode),
        };
        let named = |mode| match mode {
            Mode::Fenced => FENCED,
            Mode::Unfenced | Mode::TakenOver => NOT_FENCED,
        };
        Self {
            mode: mode.map_or(UNKNOWN, named).to_owned(),
            wanted: told.wish.to_string(),
            why,
            lease: (mode == Some(Mode::Fenced)).then(|| told.lease()),
            warnings: told.warnings(),
        }
    }
}

/// Whether the redis of that node takes writes; none: it was not heard of late, or it is not known whether it needs a lease.
pub(super) fn takes_writes(view: &View, node: &NodeView, name: &str) -> Option<bool> {
    use crate::base::node::RedisRole::{Closed, Master, Replica, Unknown};
    let state = node.state.as_ref().filter(|_| node.fresh)?;
    let redis = state.redis.as_ref()?;
    match (redis.process, redis.role) {
        (Process::Dead | Process::Starting | Process::Loading, _) | (_, Closed | Replica { .. }) => Some(false),
        (_, Unknown) => None,
        (Process::Alive | Process::Busy, Master { .. }) => match view.mode(name)? {
            Mode::Fenced => Some(state.tenure.open().is_some()),
            Mode::Unfenced | Mode::TakenOver => Some(true),
        },
    }
}

struct Told<'v> {
    config: &'v Config,
    view: &'v View,
    name: &'v str,
    wish: Wish,
}

impl Told<'_> {
    /// None: no sentinel is heard.
    fn mode(&self) -> Option<Mode> {
        let heard = self.view.fresh().any(|(_, state)| state.sentinel.is_some());
        heard.then(|| self.view.mode(self.name).unwrap_or(Mode::Unfenced))
    }

    fn voters(&self) -> impl Iterator<Item = &NodeView> {
        self.view.nodes.iter().filter(|node| node.roles.sentinel)
    }

    fn own_terms(&self) -> Terms {
        self.view.own().state.as_ref().map(|state| state.terms).unwrap_or_default()
    }

    /// How a node is called.
    fn called(&self, node: &NodeView) -> String {
        let here = node.name == self.view.own().name;
        if here { format!("{} (this node)", node.name) } else { node.name.to_string() }
    }

    fn why(&self, mode: Mode) -> String {
        match (mode, self.wish) {
            (Mode::Fenced, Wish::Lease) => String::new(),
            (Mode::Fenced, Wish::Off) => format!("still fenced: {}", self.waits(true)),
            (Mode::Unfenced, Wish::Off) => format!("not fenced: fencing = off in {}", self.off()),
            (Mode::Unfenced, Wish::Lease) => format!("not fenced yet: {}", self.waits(false)),
            (Mode::TakenOver, _) => {
                let epoch = self.view.newest_decision(self.name).map_or(0, |decision| decision.epoch);
                format!("not fenced: taken over by the operator at epoch {epoch}, {}", self.waits(false))
            }
        }
    }

    /// In whose files it is off.
    fn off(&self) -> String {
        let heard = |node: &&NodeView| node.fresh && node.state.is_some();
        let says_off = |node: &&NodeView| {
            node.state.as_ref().is_some_and(|state| state.terms.lease.is_none() && state.terms != Terms::default())
        };
        let own = || std::iter::once(self.view.own());
        let off: Vec<&NodeView> = self.voters().filter(heard).filter(says_off).collect();
        match off.len() {
            0 => format!("the file of {}", listed(own().map(|node| self.called(node)))),
            1 => format!("the file of {}", listed(off.iter().map(|node| self.called(node)))),
            n if n == self.view.voters() => "the files of all sentinels".to_owned(),
            _ => format!("the files of {}", listed(off.iter().map(|node| self.called(node)))),
        }
    }

    /// For whom a change of the mode waits.
    fn waits(&self, fenced: bool) -> String {
        // A redis that was started without leases cannot take writes by one; any can go on without.
        let asked = self.view.nodes.iter().filter(|node| node.roles.sentinel || !fenced && node.roles.redis);
        let waited = asked.filter_map(|node| {
            let (one, more) = self.waited_for(node, !fenced)?;
            Some((self.called(node), one, more))
        });
        let waited: Vec<(String, &str, &str)> = waited.collect();
        let mut reasons: Vec<(&str, &str)> = Vec::new();
        for (_, one, more) in &waited {
            if !reasons.contains(&(*one, *more)) {
                reasons.push((*one, *more));
            }
        }
        let mut said: Vec<String> = Vec::new();
        for (one, more) in reasons {
            let those = waited.iter().filter(|(_, why, _)| *why == one).map(|(name, ..)| name.clone());
            let those: Vec<String> = those.collect();
            let words = if those.len() == 1 { one } else { more };
            let and = if said.is_empty() { "waiting for " } else { "and for " };
            said.push(format!("{and}{}, {words}", listed(those)));
        }
        if said.is_empty() { self.due().to_owned() } else { said.join(", ") }
    }

    /// What keeps a node from going along: of one, and of several.
    fn waited_for(&self, node: &NodeView, fenced: bool) -> Option<(&'static str, &'static str)> {
        let Some(state) = node.state.as_ref().filter(|_| node.fresh) else {
            return Some(("which is not heard", "which are not heard"));
        };
        match state.terms.beside(self.own_terms()) {
            FileTerms::Unknown => Some(("which runs an older vigie", "which run an older vigie")),
            FileTerms::OtherVoters => Some(("whose file lists other sentinels", "whose files list other sentinels")),
            FileTerms::Same { fencing } if fencing == fenced => None,
            FileTerms::Same { fencing: false } => Some(("whose file says off", "whose files say off")),
            FileTerms::Same { fencing: true } => Some(("whose file says lease", "whose files say lease")),
        }
    }

    /// All ask for the same, and it is not so.
    fn due(&self) -> &'static str {
        let Some(decision) = self.view.newest_decision(self.name) else { return "there is no master yet" };
        let master = self.decided(decision).filter(|node| node.fresh).and_then(|node| node.state.as_ref());
        let master = master.filter(|state| state.redis.as_ref().is_some_and(|redis| redis.process != Process::Dead));
        match master {
            None => "the master has to be well for that",
            Some(state) if !state.hears_majority => "the master has to hear a majority of the sentinels for that",
            Some(_) => "all ask for it, a sentinel is about to decide it",
        }
    }

    fn decided(&self, decision: Decision) -> Option<&NodeView> {
        let port = self.config.redis.port;
        self.view.nodes.iter().find(|node| decision.master == SocketAddr::new(node.address, port))
    }

    fn lease(&self) -> LeaseStatus {
        let needed = majority(self.view.voters());
        let holds = |(node, state): (_, &NodeState)| Some((state.tenure.open()?, node, state.tenure));
        let holder = self.view.fresh().filter_map(holds).max_by_key(|(epoch, ..)| *epoch);
        let unheard = if self.view.hears_majority() { String::new() } else { self.unheard() };
        let lease = LeaseStatus { needed, unheard, ..LeaseStatus::default() };
        let Some((epoch, node, tenure)) = holder else {
            let (known, without) = self.without(needed);
            return LeaseStatus { writes: if known { REFUSED } else { UNKNOWN }.to_owned(), without, ..lease };
        };
        let (grants, missing, slack_ms) = match tenure {
            Tenure::Asks { grants, slack, .. } => (self.granted(grants), self.missing(grants), Some(millis(slack))),
            Tenure::None | Tenure::Released { .. } => (vec![], vec![], None),
        };
        LeaseStatus {
            writes: TAKEN.to_owned(),
            holder: Some(node.name.to_string()),
            epoch: Some(epoch),
            left_ms: Some(millis(node.lease_left)),
            slack_ms,
            grants,
            missing,
            ..lease
        }
    }

    /// The sentinels whose bits are set, and the others, in the order of their names.
    fn by_grant(&self, grants: u32) -> (Vec<&NodeView>, Vec<&NodeView>) {
        let mut voters: Vec<&NodeView> = self.voters().collect();
        voters.sort_unstable_by_key(|node| &node.name);
        let granted = |voter: usize| u32::try_from(voter).is_ok_and(|voter| grants & 1_u32.unbounded_shl(voter) != 0);
        let (has, lacks): (Vec<_>, Vec<_>) = voters.into_iter().enumerate().partition(|(voter, _)| granted(*voter));
        let nodes = |those: Vec<(usize, _)>| those.into_iter().map(|(_, node)| node).collect();
        (nodes(has), nodes(lacks))
    }

    fn granted(&self, grants: u32) -> Vec<String> {
        self.by_grant(grants).0.iter().map(|node| node.name.to_string()).collect()
    }

    fn missing(&self, grants: u32) -> Vec<Reason> {
        let why = |node: &NodeView| {
            let Some(state) = node.state.as_ref().filter(|_| node.fresh) else { return "not heard here" };
            let master = state.sentinel.as_ref().and_then(|sentinel| sentinel.master(self.name));
            match state.terms.beside(self.own_terms()) {
                FileTerms::Unknown => "an older vigie",
                FileTerms::OtherVoters => "its file lists other sentinels",
                FileTerms::Same { .. } if state.sentinel.is_none() => "its sentinel does not run",
                FileTerms::Same { .. } if master.is_some_and(|master| master.sees_down) => "finds the master down",
                FileTerms::Same { .. } => "",
            }
        };
        let missing = self.by_grant(grants).1.into_iter();
        missing.map(|node| Reason { node: node.name.to_string(), why: why(node).to_owned() }).collect()
    }

    /// What keeps each node from the lease, and whether it is known that nobody holds it: else it may be one that is not heard.
    fn without(&self, needed: usize) -> (bool, Vec<Reason>) {
        let master = self.view.newest_decision(self.name).and_then(|decision| self.decided(decision));
        let mut known = true;
        let mut reasons = Vec::new();
        for node in self.view.nodes.iter().filter(|node| node.roles.redis) {
            let decided = master.is_some_and(|master| master.name == node.name);
            let why = match node.state.as_ref().filter(|_| node.fresh) {
                None if decided => {
                    known = false;
                    Some("is not heard: it may hold the lease, if it hears a majority of the sentinels".to_owned())
                }
                None => None,
                Some(state) => self.not_held(state, decided, needed),
            };
            reasons.extend(why.map(|why| Reason { node: node.name.to_string(), why }));
        }
        (known, reasons)
    }

    fn not_held(&self, state: &NodeState, decided: bool, needed: usize) -> Option<String> {
        let redis = state.redis.as_ref().map(|redis| redis.process);
        let why = match (state.tenure, redis) {
            (Tenure::Asks { epoch, grants, .. }, _) => {
                let missing = together(&self.missing(grants));
                let missing = if missing.is_empty() { missing } else { format!(", missing {missing}") };
                let (has, of) = (self.granted(grants).len(), self.view.voters());
                format!("asks in epoch {epoch}, has {has} of {of} grants ({needed} needed){missing}")
            }
            (Tenure::Released { epoch, .. }, _) => format!("gave the lease of epoch {epoch} back, for another master"),
            (Tenure::None, _) if !decided => return None,
            (Tenure::None, None | Some(Process::Dead)) => "its redis is dead".to_owned(),
            (Tenure::None, Some(Process::Starting | Process::Loading)) => {
                "its redis was started again, and has to be elected first".to_owned()
            }
            (Tenure::None, Some(Process::Alive | Process::Busy)) => {
                "does not ask: its redis has to be elected first".to_owned()
            }
        };
        let unheard = if state.hears_majority { "" } else { "; it hears no majority" };
        Some(why + unheard)
    }

    /// What keeps this node from hearing a majority.
    fn unheard(&self) -> String {
        let speaks = |node: &&NodeView| node.fresh && node.state.as_ref().is_some_and(|state| state.sentinel.is_some());
        let lost: Vec<String> = self.voters().filter(|node| !speaks(node)).map(|node| node.name.to_string()).collect();
        let of = self.view.voters();
        let (hears, needed) = (of - lost.len(), majority(of));
        let lost = listed(lost);
        format!(
            "this node hears {hears} of {of} sentinels on UDP port {PEER_PORT} ({needed} needed), not {lost}: \
             check that they run, and the firewall"
        )
    }

    /// What the files and builds of the nodes heard do not agree on.
    fn warnings(&self) -> Vec<String> {
        let heard: Vec<(&NodeView, Terms)> = self.view.fresh().map(|(node, state)| (node, state.terms)).collect();
        let those = |which: &dyn Fn(Terms) -> bool| {
            let those = heard.iter().filter(|(_, terms)| which(*terms));
            those.map(|(node, _)| self.called(node)).collect::<Vec<_>>()
        };
        let (known, own) = (|terms: Terms| terms != Terms::default(), self.own_terms());
        let mut warnings = Vec::new();
        let old = those(&|terms| !known(terms));
        if !old.is_empty() {
            warnings.push(format!("an older vigie, which knows of no leases, runs on {}: update it", listed(old)));
        }
        let other = those(&|terms| known(terms) && terms.voters != own.voters);
        if !other.is_empty() {
            let same = listed(those(&|terms| known(terms) && terms.voters == own.voters));
            let other = listed(other);
            warnings.push(format!(
                "the files list different sentinels, or other addresses of them: that of {other}, and that of {same}; \
                 there are no votes and no grants between these nodes: make the files the same"
            ));
        }
        let off = those(&|terms| known(terms) && terms.lease.is_none());
        let lease = those(&|terms| terms.lease.is_some());
        if !off.is_empty() && !lease.is_empty() {
            let (off, lease) = (listed(off), listed(lease));
            warnings.push(format!("fencing differs: lease in the file of {lease}; off in that of {off}"));
        }
        let mut lengths: Vec<_> = heard.iter().filter_map(|(_, terms)| terms.lease).collect();
        lengths.sort_unstable();
        lengths.dedup();
        if lengths.len() > 1 {
            let each = lengths.iter().map(|length| {
                format!(
                    "{} in the file of {}",
                    keys::duration(*length),
                    listed(those(&|terms| terms.lease == Some(*length)))
                )
            });
            let each = each.collect::<Vec<_>>().join("; ");
            warnings.push(format!("the lease differs: {each}; make the files the same"));
        }
        warnings
    }
}

/// Nodes, each group of them with what is the matter with it.
pub fn together(reasons: &[Reason]) -> String {
    let groups = reasons.chunk_by(|one, next| one.why == next.why).map(|group| {
        let names = listed(group.iter().map(|reason| reason.node.clone()));
        let why = &group[0].why;
        if why.is_empty() { names } else { format!("{names} ({why})") }
    });
    listed(groups)
}

fn listed(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
