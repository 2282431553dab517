//! What the words of several nodes come to: one answer for every role that asks.

use super::Epoch;
use super::node::Decision;

/// How many of so many voters are a majority of them, whoever asks included: more than half, so that there are never two.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Who is master, by the decisions that several sentinels know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nobody was ever decided for.
    Nobody,
    /// The master of the highest epoch.
    One(Decision),
    /// Different masters are named in the highest epoch, which must not happen: none of them is to be believed, nor one of an epoch
    /// before.
    Several(Epoch),
}

impl Named {
    /// What these decisions come to, in whatever order.
    pub fn by(decisions: impl IntoIterator<Item = Decision>) -> Self {
        decisions.into_iter().fold(Self::Nobody, |named, next| match named {
            Self::One(best) if next.epoch == best.epoch && next.master != best.master => Self::Several(best.epoch),
            Self::One(Decision { epoch, .. }) | Self::Several(epoch) if next.epoch <= epoch => named,
            Self::Nobody | Self::One(_) | Self::Several(_) => Self::One(next),
        })
    }

    /// The decision that counts.
    pub fn decision(self) -> Option<Decision> {
        match self {
            Self::One(decision) => Some(decision),
            Self::Nobody | Self::Several(_) => None,
        }
    }

    /// The epoch in which different masters are named.
    pub fn conflict(self) -> Option<Epoch> {
        match self {
            Self::Several(epoch) => Some(epoch),
            Self::Nobody | Self::One(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn decision(node: u8, epoch: Epoch) -> Decision {
        Decision { master: SocketAddr::from(([10, 0, 0, node], 6379)), epoch }
    }

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(majority), [1, 2, 2, 3, 3, 4, 4]);
        for voters in 1..100 {
            assert!(majority(voters) * 2 > voters && (majority(voters) - 1) * 2 <= voters, "of {voters}");
        }
    }

    #[test]
    fn the_highest_epoch_names_the_master_in_whatever_order() {
        let (old, newer, other) = (decision(1, 3), decision(2, 4), decision(1, 4));
        for (said, named) in [
            (vec![], Named::Nobody),
            (vec![old, old], Named::One(old)),
            (vec![old, newer, newer], Named::One(newer)),
            (vec![old, newer, other, newer], Named::Several(4)),
            (vec![other, newer, decision(3, 5)], Named::One(decision(3, 5))),
            (vec![decision(3, 2), decision(2, 2), newer], Named::One(newer)),
        ] {
            let mut backwards = said.clone();
            backwards.reverse();
            assert_eq!((Named::by(said), Named::by(backwards)), (named, named));
            assert!(named.decision().is_none() || named.conflict().is_none());
        }
    }
}
