//! Connections that have said nothing yet, and which of them gives way to somebody else.
//!
//! A stranger can open connections faster than anybody could be served, and none of them costs it more than a packet. So
//! the oldest of the source that has the most goes first: a source that has few, and speaks soon, is never the one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Where a connection comes from, as far as it tells strangers apart: an IPv4 address, or the /64 that any IPv6 host may
/// choose its addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Those who have said nothing, in the order in which they came. `T` is what is known of each.
#[derive(Debug)]
pub struct Crowd<T> {
    came: u64,
    sources: BTreeMap<Source, BTreeMap<u64, T>>,
    /// The sources by how many they have; among equals the one whose oldest is the oldest comes last.
    order: BTreeSet<(usize, Reverse<u64>, Source)>,
}

impl<T> Default for Crowd<T> {
    fn default() -> Self {
        Self { came: 0, sources: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<T> Crowd<T> {
    /// One more; its number among those of its source.
    pub fn enter(&mut self, source: Source, known: T) -> u64 {
        self.came += 1;
        let number = self.came;
        self.change(source, |members| members.insert(number, known));
        number
    }

    /// That one has spoken or gone; none: it was not among them any more.
    pub fn leave(&mut self, source: Source, number: u64) -> Option<T> {
        self.change(source, |members| members.remove(&number))
    }

    /// How many a source has.
    pub fn of(&self, source: Source) -> usize {
        self.sources.get(&source).map_or(0, BTreeMap::len)
    }

    /// Takes out the oldest of that source.
    pub fn oust_from(&mut self, source: Source) -> Option<T> {
        self.change(source, BTreeMap::pop_first).map(|(_, known)| known)
    }

    /// Takes out the oldest of the source that has the most; says which that is, and how many it had.
    pub fn oust(&mut self) -> Option<(Source, usize, T)> {
        let (had, _, source) = *self.order.last()?;
        self.oust_from(source).map(|known| (source, had, known))
    }

    /// The source that has the most, and how many.
    pub fn largest(&self) -> Option<(Source, usize)> {
        self.order.last().map(|(has, _, source)| (*source, *has))
    }

    /// The one way in which what a source has is changed: keeps the order, and nothing of a source that has none.
    fn change<R>(&mut self, source: Source, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let place = |members: &BTreeMap<u64, T>| {
            members.first_key_value().map(|(oldest, _)| (members.len(), Reverse(*oldest), source))
        };
        let members = self.sources.entry(source).or_default();
        let before = place(members);
        let result = change(members);
        let after = place(members);
        if before != after {
            if let Some(before) = before {
                self.order.remove(&before);
            }
            if let Some(after) = after {
                self.order.insert(after);
            }
        }
        if after.is_none() {
            self.sources.remove(&source);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn source(last: u8) -> Source {
        IpAddr::from([192, 168, 0, last]).into()
    }

    #[test]
    fn the_oldest_of_the_most_numerous_goes_first() {
        let mut crowd = Crowd::default();
        for (from, name) in [(1, "a"), (2, "b"), (2, "c"), (3, "d"), (2, "e"), (3, "f")] {
            crowd.enter(source(from), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| crowd.oust()).collect();
        let named = |from, had, name| (source(from), had, name);
        // Among equals, the source whose oldest is the oldest.
        let expected = [
            named(2, 3, "b"),
            named(2, 2, "c"),
            named(3, 2, "d"),
            named(1, 1, "a"),
            named(2, 1, "e"),
            named(3, 1, "f"),
        ];
        assert_eq!(order, expected);
        assert!(crowd.sources.is_empty() && crowd.order.is_empty());
    }

    #[test]
    fn a_newcomer_from_elsewhere_outlives_any_crowd() {
        let mut crowd = Crowd::default();
        for n in 0..10_000 {
            crowd.enter(source(1), n);
        }
        let client = crowd.enter(source(2), 10_000);
        for n in 0..5_000 {
            crowd.enter(source(1), n);
            assert_eq!(crowd.oust().map(|(from, ..)| from), Some(source(1)));
        }
        assert_eq!(crowd.leave(source(2), client), Some(10_000));
        assert_eq!(crowd.leave(source(2), client), None);
    }

    #[test]
    fn addresses_that_one_host_may_have_are_one_source() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.168.0.7"), of("192.168.0.7"));
        assert_ne!(of("192.168.0.7"), of("192.168.0.8"));
        assert_eq!(
            (of("2001:db8::1").to_string(), of("10.0.0.1").to_string()),
            ("2001:db8::/64".into(), "10.0.0.1".into())
        );
    }

    #[test]
    fn the_order_is_that_of_a_plain_search() {
        let mut rng = Rng::new(7);
        let mut below = |limit: usize| rng.next_u32() as usize % limit;
        let mut crowd = Crowd::default();
        let mut plain: Vec<(Source, u64)> = Vec::new();
        for _ in 0..20_000 {
            let from = source(u8::try_from(below(5)).unwrap());
            match below(4) {
                0 | 1 => {
                    let number = crowd.enter(from, ());
                    plain.push((from, number));
                }
                2 if !plain.is_empty() => {
                    let (from, number) = plain.remove(below(plain.len()));
                    assert_eq!(crowd.leave(from, number), Some(()));
                }
                _ => {
                    let count = |from: Source| plain.iter().filter(|(other, _)| *other == from).count();
                    let oldest =
                        |from: Source| plain.iter().find(|(other, _)| *other == from).map(|(_, number)| *number);
                    let expected =
                        plain.iter().map(|(from, _)| *from).max_by_key(|from| (count(*from), Reverse(oldest(*from))));
                    let ousted = crowd.oust();
                    assert_eq!(
                        ousted.as_ref().map(|(from, had, ())| (*from, *had)),
                        expected.map(|from| (from, count(from)))
                    );
                    if let Some(from) = expected {
                        let place = plain.iter().position(|(other, _)| *other == from).unwrap();
                        plain.remove(place);
                    }
                }
            }
        }
        assert_eq!(plain.len(), crowd.sources.values().map(BTreeMap::len).sum::<usize>());
    }
}
