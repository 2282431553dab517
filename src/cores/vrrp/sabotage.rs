//! Rules that a test may switch off, one at a time, to prove that their loss would be noticed.
//!
//! Without the feature `sabotage`, which nothing that is shipped has, every rule holds and the compiler knows it.

/// A rule of the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A backup waits for as long as it hears a master.
    HearMaster,
    /// A master that is silent is replaced.
    TakeOver,
    /// Of two masters the lower one gives up.
    Yield,
    /// Of two with the same priority one goes before the other.
    BreakTie,
    /// Who gives up takes the addresses off.
    Release,
    /// Addresses that are held are renewed.
    Renew,
    /// What the kernel has refused is tried again.
    Retry,
    /// Who cannot serve clients leaves the election.
    LeaveUnfit,
    /// What the link says of the others is what it said last.
    BelieveLink,
}

/// Which rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    #[cfg(feature = "sabotage")]
    broken: Option<Rule>,
}

#[cfg(not(feature = "sabotage"))]
impl Rules {
    #[expect(clippy::unused_self, reason = "with the feature it depends")]
    pub(super) const fn holds(self, _: Rule) -> bool {
        true
    }
}

#[cfg(feature = "sabotage")]
impl Rules {
    pub(super) fn holds(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// All but one.
    pub(super) fn without(rule: Rule) -> Self {
        Self { broken: Some(rule) }
    }
}

#[cfg(feature = "sabotage")]
impl Rule {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::HearMaster,
        Self::TakeOver,
        Self::Yield,
        Self::BreakTie,
        Self::Release,
        Self::Renew,
        Self::Retry,
        Self::LeaveUnfit,
        Self::BelieveLink,
    ];
}
