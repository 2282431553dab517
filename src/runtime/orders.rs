//! What can be asked of this node and what it can be ordered to do, by the control socket or by the node itself when it leaves.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::control::{self, Switched};
use super::journal::{Journal, Level};
use super::setup::Spec;
use super::status::Status;
use super::status::fencing::Fencing;
use super::why::{Frames, Why};
use super::{clock, forward, sentinel};
use crate::base::node::RedisRole;
use crate::base::{Credentials, Instant, NodeName, Purpose};
use crate::cores::cluster::View;
use crate::cores::sentinel::FailoverReport;

/// A master that stops hands over first; if nobody takes over within this time, it stops all the same.
const HANDOVER_TIME: Duration = Duration::from_secs(5);
/// Orders to the sentinel that may wait.
const ORDERS_MAX: usize = 4;

/// The way to the sentinel that runs now, if one does.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders(Rc<RefCell<Option<mpsc::Sender<sentinel::Order>>>>);

impl Orders {
    /// For a sentinel that is about to run: what it is ordered from now on.
    pub(super) fn renew(&self) -> mpsc::Receiver<sentinel::Order> {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        self.0.replace(Some(sender));
        receiver
    }
}

/// What the control socket sees of this node.
#[derive(Clone, Debug)]
pub(super) struct ThisNode {
    pub(super) spec: Rc<Spec>,
    pub(super) started: Instant,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    pub(super) orders: Orders,
}

impl control::Node for ThisNode {
    fn status(&self) -> Status {
        let view = self.view.borrow().clone();
        Status::new(&self.spec.config, &view, self.started, clock::now())
    }

    async fn failover(&self, to: Option<NodeName>) -> Result<Switched, String> {
        if let Some(name) = &to {
            let node = self.spec.config.node(name);
            let known = || self.spec.config.nodes.iter().filter(|node| node.roles.redis);
            let names = || known().map(|node| node.name.to_string()).collect::<Vec<_>>().join(", ");
            if !node.is_some_and(|node| node.roles.redis) {
                return Err(format!("{name} is no node with a redis; there are: {}", names()));
            }
        }
        if !self.spec.roles.sentinel {
            let sentinels = self.fresh_sentinels();
            let cluster = &self.spec.config.cluster;
            let own = self.credentials.borrow().own(Purpose::Sentinel);
            let done = forward::switchover(sentinels.into_iter(), own.current(), &cluster.name, to.as_ref());
            return done.await.map(|report| self.switched(&report));
        }
        let report = self.order(|done| sentinel::Order::Switch { to, done }).await??;
        Ok(self.switched(&report))
    }

    async fn bootstrap(&self) -> Result<String, String> {
        if !self.spec.roles.sentinel {
            return Err("this node has no sentinel: give the order on one that has".to_owned());
        }
        self.order(sentinel::Order::Bootstrap).await?
    }

    async fn takeover(&self, risks: bool) -> Result<String, String> {
        if !self.spec.roles.sentinel || !self.spec.roles.redis {
            let what = if self.spec.roles.redis { "sentinel" } else { "redis" };
            return Err(format!(
                "this node has no {what}: give the order on the node that is left with the data, which needs a redis and a sentinel"
            ));
        }
        self.order(|done| sentinel::Order::Takeover { risks, done }).await?
    }

    async fn why(&self) -> Result<Why, String> {
        let (node, config) = (self.spec.node().name.to_string(), &self.spec.config);
        if !self.spec.roles.sentinel {
            let view = self.view.borrow().clone();
            let (fencing, frames) = (Fencing::new(config, &view), Some(Frames::new(config, &view)));
            return Ok(Why { node, fencing, masters: Vec::new(), frames });
        }
        let masters = self.order(sentinel::Order::Why).await?;
        let fencing = Fencing::new(config, &self.view.borrow());
        Ok(Why { node, fencing, masters, frames: None })
    }
}

impl ThisNode {
    /// Gives the sentinel of this node an order, and waits for what it answers.
    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> sentinel::Order) -> Result<T, String> {
        let (done, answer) = oneshot::channel();
        let gone = || "the sentinel of this node does not run".to_owned();
        let orders = self.orders.0.borrow().clone().ok_or_else(gone)?;
        orders.send(order(done)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    fn switched(&self, report: &FailoverReport) -> Switched {
        Switched {
            from: self.name_of(report.from),
            to: self.name_of(report.to),
            epoch: report.epoch,
            pause_us: report.pause.map(|pause| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    /// Where the sentinels are that were heard of late.
    fn fresh_sentinels(&self) -> Vec<SocketAddr> {
        let view = self.view.borrow().clone();
        let heard = view.fresh().filter(|(_, state)| state.sentinel.is_some());
        heard.map(|(node, _)| SocketAddr::new(node.address, self.spec.config.sentinel.port)).collect()
    }

    /// The node whose redis has that address, or the address itself.
    fn name_of(&self, address: SocketAddr) -> String {
        let config = &self.spec.config;
        let node = config.nodes.iter().find(|node| node.roles.redis && config.redis_address(node) == address);
        node.map_or_else(|| address.to_string(), |node| node.name.to_string())
    }
}

/// Asks for a planned switchover if this node holds the master.
pub(super) async fn hand_over(node: &ThisNode, journal: &Journal) {
    let is_master = |view: &View| {
        let redis = view.own().state.as_ref().and_then(|state| state.redis.as_ref());
        redis.is_some_and(|redis| matches!(redis.role, RedisRole::Master { replicas: 1.. }))
    };
    if !is_master(&node.view.borrow()) {
        return;
    }
    match tokio::time::timeout(HANDOVER_TIME, control::Node::failover(node, None)).await {
        Ok(Ok(done)) => {
            journal.record(
                "worker",
                Level::Info,
                "handed-over",
                format!("{} is master instead of {}", done.to, done.from),
            );
        }
        Ok(Err(why)) => journal.record("worker", Level::Warn, "not-handed-over", why),
        Err(_) => {
            journal.record("worker", Level::Warn, "not-handed-over", format!("not done within {HANDOVER_TIME:?}"))
        }
    }
}
