use std::net::Ipv4Addr;

use super::*;
use crate::base::node::{MasterFacts, Mode, NodeState, Roles, SentinelFacts};
use crate::base::{Epoch, Instant, RunId};
use crate::cores::cluster::NodeView;

fn decision(last: u8, epoch: Epoch) -> Option<Decision> {
    Some(Decision { master: SocketAddr::from(([192, 168, 0, last], 6379)), epoch })
}

/// A node whose sentinel watches one master.
fn sentinel(cluster: &str, decision: Option<Decision>, leads: Option<Epoch>, fresh: bool) -> NodeView {
    let name: NodeName = "redis-01".parse().unwrap();
    let roles = Roles { sentinel: true, ..Roles::default() };
    let name_of_master = cluster.try_into().unwrap();
    let master = MasterFacts { name: name_of_master, decision, leads, ..MasterFacts::default() };
    let masters = heapless::Vec::from_slice(&[master]).unwrap();
    let sentinel = Some(SentinelFacts { id: RunId([1; 20]), current_epoch: 9, masters });
    let state = NodeState { sentinel, ..NodeState::new(name.clone(), heapless::String::new(), roles) };
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    NodeView { state: Some(state), fresh, ..NodeView::new(name, address, roles) }
}

#[test]
fn an_operator_who_gave_a_master_the_writes_is_believed_by_one_word() {
    let said = |mode| {
        let mut node = sentinel("mymaster", decision(4, 3), None, true);
        let facts = node.state.as_mut().unwrap().sentinel.as_mut().unwrap();
        facts.masters[0].mode = Some(mode);
        node
    };
    let silent = || sentinel("mymaster", None, None, false);
    let heard = |nodes| heard(&View { at: Instant::START, me: 0, nodes }, "mymaster").mode;
    assert_eq!(heard(vec![said(Mode::TakenOver), silent(), silent()]), Some(Mode::TakenOver));
    assert_eq!(heard(vec![said(Mode::Unfenced), silent(), silent()]), None);
    assert_eq!(heard(vec![said(Mode::Unfenced), said(Mode::Unfenced), silent()]), Some(Mode::Unfenced));
    assert_eq!(heard(vec![said(Mode::Unfenced), said(Mode::Fenced), silent()]), Some(Mode::Fenced));
}

#[test]
fn the_latest_decision_of_the_sentinels_that_are_heard_counts() {
    let view = |nodes| View { at: Instant::START, me: 0, nodes };
    let nodes = vec![
        sentinel("mymaster", decision(4, 3), None, true),
        sentinel("mymaster", decision(5, 4), Some(5), true),
        sentinel("mymaster", None, Some(2), true),
        sentinel("mymaster", decision(6, 8), Some(8), false),
        sentinel("another", decision(6, 9), Some(9), true),
    ];
    let expected = Steering { decision: decision(5, 4), leading: Some(5), named: None, mode: None };
    assert_eq!(heard(&view(nodes), "mymaster"), expected);
    assert_eq!(heard(&view(vec![]), "mymaster"), Steering::default());
}
