//! How the record of a sentinel lies on disk. Each version has a layout of its own, which never changes once it was released.

use crate::base::node::Mode;
use crate::cores::sentinel::Durable;
use crate::runtime::store::{Record, Unreadable};

impl Record for Durable {
    const KIND: [u8; 2] = *b"se";
    const VERSION: u8 = 2;
    const WITHOUT: &'static str = "without it this sentinel forgets its votes and could vote twice in an epoch: move the file away \
         only while the other sentinels are up and no failover is under way";

    fn encode(&self) -> Result<(u8, Vec<u8>), postcard::Error> {
        let votes = v1::Votes::from(self.clone());
        if self.masters.iter().all(|master| master.mode == Mode::Unfenced) {
            return Ok((1, postcard::to_allocvec(&votes)?));
        }
        let modes = self.masters.iter().map(|master| master.mode.into()).collect();
        Ok((2, postcard::to_allocvec(&v2::Votes { votes, modes })?))
    }

    fn decode(version: u8, body: &[u8]) -> Result<Self, Unreadable> {
        match version {
            1 => Unreadable::unless_whole::<v1::Votes>(body)?.try_into().map_err(Unreadable::new),
            2 => Unreadable::unless_whole::<v2::Votes>(body)?.try_into().map_err(Unreadable::new),
            _ => Err(Unreadable::version(version)),
        }
    }
}

/// The first one.
mod v1 {
    use std::net::SocketAddr;

    use serde::{Deserialize, Serialize};

    use crate::base::node::{Decision, Mode};
    use crate::base::{NameError, RunId};
    use crate::cores::sentinel::{Durable, DurableMaster};

    #[derive(Serialize, Deserialize)]
    pub(super) struct Votes {
        id: [u8; 20],
        current_epoch: u64,
        masters: Vec<Master>,
        sentinels: Vec<(heapless::String<32>, [u8; 20])>,
    }

    #[derive(Serialize, Deserialize)]
    struct Master {
        name: String,
        decision: Option<(SocketAddr, u64)>,
        vote: Option<([u8; 20], u64)>,
    }

    impl From<Durable> for Votes {
        fn from(Durable { id, current_epoch, masters, sentinels }: Durable) -> Self {
            let sentinels = sentinels.into_iter().map(|(name, id)| (name.into(), id.0));
            let masters = masters.into_iter().map(Master::from);
            Self { id: id.0, current_epoch, masters: masters.collect(), sentinels: sentinels.collect() }
        }
    }

    impl TryFrom<Votes> for Durable {
        type Error = NameError;

        fn try_from(Votes { id, current_epoch, masters, sentinels }: Votes) -> Result<Self, NameError> {
            let sentinels = sentinels.into_iter().map(|(name, id)| Ok((name.try_into()?, RunId(id))));
            let masters = masters.into_iter().map(DurableMaster::from);
            let (masters, sentinels) = (masters.collect(), sentinels.collect::<Result<_, NameError>>()?);
            Ok(Self { id: RunId(id), current_epoch, masters, sentinels })
        }
    }

    impl From<DurableMaster> for Master {
        fn from(DurableMaster { name, decision, vote, mode: _ }: DurableMaster) -> Self {
            let decision = decision.map(|Decision { master, epoch }| (master, epoch));
            Self { name, decision, vote: vote.map(|(id, epoch)| (id.0, epoch)) }
        }
    }

    impl From<Master> for DurableMaster {
        fn from(Master { name, decision, vote }: Master) -> Self {
            let decision = decision.map(|(master, epoch)| Decision { master, epoch });
            Self { name, decision, vote: vote.map(|(id, epoch)| (RunId(id), epoch)), mode: Mode::Unfenced }
        }
    }
}

/// It also knows by what right the masters take writes.
mod v2 {
    use serde::{Deserialize, Serialize};

    use super::v1;
    use crate::base::{NameError, node};
    use crate::cores::sentinel::Durable;

    #[derive(Serialize, Deserialize)]
    pub(super) struct Votes {
        pub(super) votes: v1::Votes,
        /// By place among the masters.
        pub(super) modes: Vec<Mode>,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) enum Mode {
        Unfenced,
        Fenced,
        TakenOver,
    }

    impl From<node::Mode> for Mode {
        fn from(mode: node::Mode) -> Self {
            match mode {
                node::Mode::Unfenced => Self::Unfenced,
                node::Mode::Fenced => Self::Fenced,
                node::Mode::TakenOver => Self::TakenOver,
            }
        }
    }

    impl From<Mode> for node::Mode {
        fn from(mode: Mode) -> Self {
            match mode {
                Mode::Unfenced => Self::Unfenced,
                Mode::Fenced => Self::Fenced,
                Mode::TakenOver => Self::TakenOver,
            }
        }
    }

    impl TryFrom<Votes> for Durable {
        type Error = NameError;

        fn try_from(Votes { votes, modes }: Votes) -> Result<Self, NameError> {
            let mut durable = Self::try_from(votes)?;
            durable.masters.iter_mut().zip(modes).for_each(|(master, mode)| master.mode = mode.into());
            Ok(durable)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::RunId;
    use crate::base::node::{Decision, Mode};
    use crate::cores::sentinel::{Durable, DurableMaster};
    use crate::runtime::store::{self, Record, Store};

    /// What the first build with this layout has written: a sentinel that was never asked for a vote, and one with a past.
    const FIRST: [&str; 2] = [
        "76696769650073650117000000a0eb420a0505050505050505050505050505050505050505000000",
        "766967696500736501a1000000ed88675f0505050505050505050505050505050505050505ad0203086d796d617374657201\
         000a000001eb31ac0201a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0ad02067365636f6e640101fd0000000000000000\
         00000000000002ec3101000574686972640000020872656469732d3032a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a008\
         72656469732d3033ffffffffffffffffffffffffffffffffffffffff",
    ];

    fn records() -> [Durable; 2] {
        let (id, other) = (RunId([5; 20]), RunId([0xa0; 20]));
        let master = |name: &str, decision: Option<(&str, u64)>, vote| DurableMaster {
            name: name.to_owned(),
            decision: decision.map(|(master, epoch)| Decision { master: master.parse().unwrap(), epoch }),
            vote,
            mode: Mode::Unfenced,
        };
        let masters = vec![
            master("mymaster", Some(("10.0.0.1:6379", 300)), Some((other, 301))),
            master("second", Some(("[fd00::2]:6380", 1)), None),
            master("third", None, None),
        ];
        let sentinels = vec![("redis-02".parse().unwrap(), other), ("redis-03".parse().unwrap(), RunId([0xff; 20]))];
        [Durable::new(id), Durable { id, current_epoch: 301, masters, sentinels }]
    }

    #[test]
    fn files_of_the_first_build_are_read_and_written_alike() {
        store::tests::assert_layout(1, &FIRST, &records());
    }

    /// What the first build that knows of fenced clusters has written.
    const SECOND: [&str; 1] =
        ["766967696500736502a5000000307acbf70505050505050505050505050505050505050505ad0203086d796d617374657201\
         000a000001eb31ac0201a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0ad02067365636f6e640101fd0000000000000000\
         00000000000002ec3101000574686972640000020872656469732d3032a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a008\
         72656469732d3033ffffffffffffffffffffffffffffffffffffffff03000100"];

    #[test]
    fn only_a_fenced_cluster_needs_the_second_layout() {
        let mut fenced = records()[1].clone();
        assert_eq!(fenced.encode().unwrap().0, 1);
        fenced.masters[1].mode = Mode::Fenced;
        store::tests::assert_layout(2, &SECOND, &[fenced.clone()]);
        fenced.masters[1].mode = Mode::TakenOver;
        let (version, body) = fenced.encode().unwrap();
        assert_eq!((version, Durable::decode(version, &body).unwrap()), (2, fenced));
    }

    #[test]
    fn what_the_votes_are_worth_is_said_before_they_are_given_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sentinel.state");
        let store = Store::<Durable>::new(&path);
        store.save(&records()[1]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for (at, value, why) in [
            (
                8,
                3,
                "version 3 of its layout was written by a newer vigie, and this one reads no more than version 2: start that one",
            ),
            (whole.len() - 1, 0, "damaged: its checksum does not match"),
        ] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            std::fs::write(&path, &bytes).unwrap();
            let said = store.load().unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("forgets its votes"), "{said}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "an unreadable file stays as it is");
        }
    }
}
