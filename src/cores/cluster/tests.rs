use std::net::SocketAddr;

use super::*;
use crate::base::RunId;
use crate::base::node::MasterFacts;

/// A cluster of so many sentinels, of which those of `heard` are heard, each with its decision; the first node is the own one.
fn view(voters: u8, heard: &[Option<Decision>]) -> View {
    let node = |place: u8| {
        let name: NodeName = format!("node-{place}").parse().unwrap();
        let roles = Roles { sentinel: place < voters, ..Roles::default() };
        let state = heard.get(usize::from(place)).map(|decision| {
            let name_of_master = "mymaster".try_into().unwrap();
            let facts = MasterFacts { name: name_of_master, decision: *decision, ..MasterFacts::default() };
            let masters = [facts].into_iter().collect();
            let sentinel = Some(SentinelFacts { id: RunId([place; 20]), current_epoch: 9, masters });
            NodeState { sentinel, ..NodeState::new(name.clone(), heapless::String::new(), roles) }
        });
        let (address, fresh) = (IpAddr::from([10, 0, 0, place]), state.is_some());
        NodeView { state, fresh, ..NodeView::new(name, address, roles) }
    };
    // One more, with another role.
    View { at: Instant::START, me: 0, nodes: (0..=voters).map(node).collect() }
}

fn decision(node: u8, epoch: Epoch) -> Option<Decision> {
    Some(Decision { master: SocketAddr::from(([10, 0, 0, node], 6379)), epoch })
}

#[test]
fn half_of_the_sentinels_are_no_majority() {
    for (voters, enough) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)] {
        for heard in 0..=voters {
            let view = view(voters, &vec![None; usize::from(heard)]);
            assert_eq!(view.voters(), usize::from(voters));
            assert_eq!(view.hears_majority(), heard >= enough, "{heard} of {voters}");
        }
    }
}

#[test]
fn only_voters_that_are_heard_and_speak_as_sentinels_count() {
    let mut view = view(3, &[None, None, None]);
    view.nodes[1].fresh = false;
    assert!(view.hears_majority());
    view.nodes[2].state.as_mut().unwrap().sentinel = None;
    assert!(!view.hears_majority());
    // A node that is no sentinel in the file and says that it is one.
    let state = view.nodes[0].state.clone();
    (view.nodes[3].fresh, view.nodes[3].state) = (true, state);
    assert!(!view.hears_majority());
}

#[test]
fn the_newest_decision_counts_unless_there_are_two() {
    let newest = |heard: &[Option<Decision>]| {
        let view = view(4, heard);
        (view.newest_decision("mymaster"), view.conflict("mymaster"))
    };
    assert_eq!(newest(&[None, None]), (None, None));
    assert_eq!(newest(&[decision(1, 3), None, decision(2, 4)]), (decision(2, 4), None));
    assert_eq!(newest(&[decision(1, 4), decision(1, 3), decision(2, 4)]), (None, Some(4)));
    assert_eq!(newest(&[decision(1, 4), decision(2, 4), decision(1, 5)]), (decision(1, 5), None));
    let mut silent = view(4, &[decision(1, 4), decision(2, 4)]);
    silent.nodes[1].fresh = false;
    assert_eq!(silent.newest_decision("mymaster"), decision(1, 4), "who is not heard names nobody");
    assert_eq!(silent.newest_decision("another"), None);
}
