//! How the record of a redis lies on disk. Each version has a layout of its own, which never changes once it was released.

use crate::cores::redis::Durable;
use crate::runtime::store::{Record, Unreadable};

impl Record for Durable {
    const KIND: [u8; 2] = *b"rd";
    const VERSION: u8 = 2;
    const WITHOUT: &'static str = "without it nothing is known of where the data of this redis came from, and it is not promoted \
         before it was in sync with a master: to accept that, move the file away";

    fn encode(&self) -> Result<(u8, Vec<u8>), postcard::Error> {
        match self.fenced {
            Some(true) => Ok((2, postcard::to_allocvec(&v2::Redis::from(*self))?)),
            Some(false) | None => Ok((1, postcard::to_allocvec(&v1::Redis::from(*self))?)),
        }
    }

    fn decode(version: u8, body: &[u8]) -> Result<Self, Unreadable> {
        match version {
            1 => Ok(Unreadable::unless_whole::<v1::Redis>(body)?.into()),
            2 => Ok(Unreadable::unless_whole::<v2::Redis>(body)?.into()),
            _ => Err(Unreadable::version(version)),
        }
    }
}

/// The first one.
mod v1 {
    use serde::{Deserialize, Serialize};

    use crate::base::node;
    use crate::cores::redis::Durable;

    #[derive(Serialize, Deserialize)]
    pub(super) struct Redis {
        incarnation: u64,
        history: Option<History>,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct History {
        epoch: u64,
        in_sync: bool,
        offset: u64,
    }

    impl From<node::History> for History {
        fn from(node::History { epoch, in_sync, offset }: node::History) -> Self {
            Self { epoch, in_sync, offset }
        }
    }

    impl From<History> for node::History {
        fn from(History { epoch, in_sync, offset }: History) -> Self {
            Self { epoch, in_sync, offset }
        }
    }

    impl From<Durable> for Redis {
        fn from(Durable { incarnation, history, fenced: _ }: Durable) -> Self {
            Self { incarnation, history: history.map(History::from) }
        }
    }

    impl From<Redis> for Durable {
        fn from(Redis { incarnation, history }: Redis) -> Self {
            Self { incarnation, history: history.map(History::into), fenced: None }
        }
    }
}

/// It also knows whether the cluster is fenced.
mod v2 {
    use serde::{Deserialize, Serialize};

    use super::v1::History;
    use crate::cores::redis::Durable;

    #[derive(Serialize, Deserialize)]
    pub(super) struct Redis {
        incarnation: u64,
        history: Option<History>,
        fenced: bool,
    }

    impl From<Durable> for Redis {
        fn from(Durable { incarnation, history, fenced }: Durable) -> Self {
            Self { incarnation, history: history.map(History::from), fenced: fenced.unwrap_or_default() }
        }
    }

    impl From<Redis> for Durable {
        fn from(Redis { incarnation, history, fenced }: Redis) -> Self {
            Self { incarnation, history: history.map(History::into), fenced: Some(fenced) }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::node::History;
    use crate::cores::redis::Durable;
    use crate::runtime::store::{self, Record};

    /// What the first build with this layout has written.
    const FIRST: [&str; 2] =
        ["766967696500726401020000003884980e0700", "76696769650072640108000000b83d9b23ac0201ab0201e05d"];

    #[test]
    fn files_of_the_first_build_are_read_and_written_alike() {
        let history = Some(History { epoch: 299, in_sync: true, offset: 12_000 });
        let record = |incarnation, history| Durable { incarnation, history, fenced: None };
        store::tests::assert_layout(1, &FIRST, &[record(7, None), record(300, history)]);
    }

    /// What the first build that knows of fenced clusters has written.
    const SECOND: [&str; 1] = ["766967696500726402090000007dd3ea61ac0201ab0201e05d01"];

    #[test]
    fn only_a_fenced_cluster_needs_the_second_layout() {
        let history = Some(History { epoch: 299, in_sync: true, offset: 12_000 });
        let record = |fenced| Durable { incarnation: 300, history, fenced };
        store::tests::assert_layout(2, &SECOND, &[record(Some(true))]);
        assert_eq!(record(Some(false)).encode().unwrap().0, 1);
    }
}
