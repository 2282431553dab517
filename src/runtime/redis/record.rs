//! How the record of a redis lies on disk. Each version has a layout of its own, which never changes once it was released.

use crate::cores::redis::Durable;
use crate::runtime::store::{Record, Unreadable};

impl Record for Durable {
    const KIND: [u8; 2] = *b"rd";
    const VERSION: u8 = 1;
    const WITHOUT: &'static str = "without it nothing is known of where the data of this redis came from, and it is not promoted \
         before it was in sync with a master: to accept that, move the file away";

    fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(&v1::Redis::from(*self))
    }

    fn decode(version: u8, body: &[u8]) -> Result<Self, Unreadable> {
        match version {
            1 => Ok(Unreadable::unless_whole::<v1::Redis>(body)?.into()),
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
    struct History {
        epoch: u64,
        in_sync: bool,
        offset: u64,
    }

    impl From<Durable> for Redis {
        fn from(Durable { incarnation, history }: Durable) -> Self {
            let history = history.map(|node::History { epoch, in_sync, offset }| History { epoch, in_sync, offset });
            Self { incarnation, history }
        }
    }

    impl From<Redis> for Durable {
        fn from(Redis { incarnation, history }: Redis) -> Self {
            let history = history.map(|History { epoch, in_sync, offset }| node::History { epoch, in_sync, offset });
            Self { incarnation, history }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::node::History;
    use crate::cores::redis::Durable;
    use crate::runtime::store;

    /// What the first build with this layout has written.
    const FIRST: [&str; 2] =
        ["766967696500726401020000003884980e0700", "76696769650072640108000000b83d9b23ac0201ab0201e05d"];

    #[test]
    fn files_of_the_first_build_are_read_and_written_alike() {
        let history = Some(History { epoch: 299, in_sync: true, offset: 12_000 });
        let records = [Durable { incarnation: 7, history: None }, Durable { incarnation: 300, history }];
        store::tests::assert_layout(1, &FIRST, &records);
    }
}
