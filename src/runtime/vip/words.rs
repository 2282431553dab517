//! What the peer link says of the other proxies, for the routers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::VipSpec;
use crate::base::node::VipState;
use crate::cores::cluster::{NodeView, View};
use crate::cores::vrrp::{Input, Word};

/// A view is published each second. One that is older says nothing: the thread of the link is stuck.
const VIEW_AGE_MAX: Duration = Duration::from_millis(1_500);

/// A proxy that was heard, and has said nothing for this long though most nodes are heard, does not hold the addresses: who
/// sends adverts in its name may be anybody. Long enough for a link that loses frames, or a node that is busy.
const LOST: Duration = Duration::from_secs(3);

/// Tells a router each time the words change; ends with the router or the link.
pub(super) async fn follow(spec: VipSpec, mut view: watch::Receiver<Arc<View>>, inputs: mpsc::Sender<Input>) {
    let mut told = Vec::new();
    loop {
        let said = words(&view.borrow_and_update(), &spec.proxies, spec.virtual_router_id);
        if !tell(&mut told, said, &inputs).await {
            return;
        }
        match tokio::time::timeout(VIEW_AGE_MAX, view.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => {
                tell(&mut told, Vec::new(), &inputs).await;
                return;
            }
            Err(_stuck) => {
                if !tell(&mut told, Vec::new(), &inputs).await || view.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// False: the router is gone.
async fn tell(told: &mut Vec<(IpAddr, Word)>, said: Vec<(IpAddr, Word)>, inputs: &mpsc::Sender<Input>) -> bool {
    if *told == said {
        return true;
    }
    told.clone_from(&said);
    inputs.send(Input::Proxies(said)).await.is_ok()
}

/// What a view says of the other `proxies` and a virtual router, by their addresses in the file.
pub fn words(view: &View, proxies: &[IpAddr], virtual_router_id: u8) -> Vec<(IpAddr, Word)> {
    let proxies = view.nodes.iter().filter(|node| proxies.contains(&node.address));
    let most = view.nodes.iter().filter(|node| node.fresh).count() * 2 > view.nodes.len();
    let lost = |node: &NodeView| most && node.heard_at.is_some_and(|at| view.at.since(at) >= LOST);
    proxies.map(|node| (node.address, word(node, lost(node), virtual_router_id))).collect()
}

fn word(node: &NodeView, lost: bool, virtual_router_id: u8) -> Word {
    let Some(state) = node.state.as_ref().filter(|_| node.fresh) else {
        return if lost { Word::Idle } else { Word::Silent };
    };
    let holds = |state| match state {
        VipState::Master => true,
        VipState::Initialize | VipState::Backup => false,
    };
    let mut routers = state.vips.iter().filter(|vip| vip.virtual_router_id == virtual_router_id);
    if routers.any(|vip| holds(vip.state)) { Word::Holds } else { Word::Idle }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::node::{NodeState, Roles, VipFacts};
    use crate::base::{Instant, NodeName};

    fn node(last: u8, fresh: bool, vips: &[(u8, VipState)]) -> NodeView {
        let name = format!("n{last}").parse::<NodeName>().unwrap();
        let facts = |(virtual_router_id, state): &(u8, VipState)| VipFacts {
            virtual_router_id: *virtual_router_id,
            state: *state,
            priority: 100,
        };
        let heard = NodeState::new(name.clone(), heapless::String::new(), Roles::default());
        let state = NodeState { vips: vips.iter().map(facts).collect(), ..heard };
        let address = IpAddr::from([10, 0, 0, last]);
        let roles = Roles::default();
        NodeView { state: Some(state), fresh, ..NodeView::new(name, address, roles) }
    }

    fn spec() -> VipSpec {
        VipSpec {
            addresses: vec![(IpAddr::from([10, 0, 0, 1]), 24)],
            interface: "eth0".to_owned(),
            virtual_router_id: 51,
            interval: crate::wire::vrrp::Interval::Centiseconds(10),
            preempt: false,
            priority: 100,
            own_address: IpAddr::from([10, 0, 0, 2]),
            proxies: (3..=6).map(|last| IpAddr::from([10, 0, 0, last])).collect(),
            peers: vec![],
        }
    }

    fn view() -> View {
        let nodes = vec![
            node(2, true, &[(51, VipState::Master)]),
            node(3, true, &[(52, VipState::Master), (51, VipState::Backup)]),
            node(4, true, &[(51, VipState::Master)]),
            node(5, false, &[(51, VipState::Master)]),
            node(6, true, &[]),
            node(7, true, &[(51, VipState::Master)]),
        ];
        View { at: Instant::START, me: 0, nodes }
    }

    fn expected() -> Vec<(IpAddr, Word)> {
        let words = [(3, Word::Idle), (4, Word::Holds), (5, Word::Silent), (6, Word::Idle)];
        words.map(|(last, word)| (IpAddr::from([10, 0, 0, last]), word)).to_vec()
    }

    fn words_of(view: &View) -> Vec<(IpAddr, Word)> {
        words(view, &spec().proxies, spec().virtual_router_id)
    }

    #[test]
    fn only_the_fresh_word_of_another_proxy_on_this_router_counts() {
        assert_eq!(words_of(&view()), expected());
    }

    #[test]
    fn a_proxy_that_is_lost_does_not_hold_the_addresses() {
        let mut view = view();
        let of_the_lost = |view: &View| words_of(view)[2].1;
        assert!(view.nodes.iter().any(|node| node.address == IpAddr::from([10, 0, 0, 5]) && !node.fresh));
        // Never heard: the link may be blocked, and it the master.
        view.at = Instant::START + Duration::from_secs(60);
        assert_eq!(of_the_lost(&view), Word::Silent);
        view.nodes[3].heard_at = Some(view.at);
        view.at = view.at + (LOST - Duration::from_millis(1));
        assert_eq!(of_the_lost(&view), Word::Silent);
        view.at = view.at + Duration::from_millis(1);
        assert_eq!(of_the_lost(&view), Word::Idle);
        // It may be this node that is cut off.
        for node in &mut view.nodes[..3] {
            node.fresh = false;
        }
        assert_eq!(of_the_lost(&view), Word::Silent);
    }

    #[tokio::test]
    async fn a_link_that_is_stuck_says_nothing() {
        let (published, seen) = watch::channel(Arc::new(view()));
        let (inputs, mut told) = mpsc::channel(8);
        tokio::spawn(follow(spec(), seen, inputs));
        assert_eq!(told.recv().await, Some(Input::Proxies(expected())));
        // What was said is taken back when nothing is published for longer than it ever is.
        assert_eq!(told.recv().await, Some(Input::Proxies(vec![])));
        published.send_replace(Arc::new(view()));
        assert_eq!(told.recv().await, Some(Input::Proxies(expected())));
        drop(published);
        assert_eq!(told.recv().await, Some(Input::Proxies(vec![])));
        assert_eq!(told.recv().await, None);
    }
}
