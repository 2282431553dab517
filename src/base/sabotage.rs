//! Rules of a machine that a test may switch off, one at a time, to prove that their loss would be noticed.
//!
//! Without the feature `sabotage`, which nothing that is shipped has, every rule holds and the compiler knows it.

#[cfg(not(feature = "sabotage"))]
use std::marker::PhantomData;

/// Which of the rules `R` hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules<R> {
    #[cfg(feature = "sabotage")]
    broken: Option<R>,
    #[cfg(not(feature = "sabotage"))]
    all: PhantomData<R>,
}

impl<R> Default for Rules<R> {
    /// All of them.
    fn default() -> Self {
        Self {
            #[cfg(feature = "sabotage")]
            broken: None,
            #[cfg(not(feature = "sabotage"))]
            all: PhantomData,
        }
    }
}

#[cfg(not(feature = "sabotage"))]
impl<R: Copy> Rules<R> {
    /// Whether that one holds.
    pub const fn holds(self, _: R) -> bool {
        true
    }
}

#[cfg(feature = "sabotage")]
impl<R: Copy + PartialEq> Rules<R> {
    /// Whether that one holds.
    pub fn holds(self, rule: R) -> bool {
        self.broken != Some(rule)
    }

    /// All but one.
    pub fn without(rule: R) -> Self {
        Self { broken: Some(rule) }
    }
}
