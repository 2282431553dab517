//! The rules of the election that a test may switch off: see [`crate::base::sabotage`].

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

/// Which of them hold.
pub(super) type Rules = crate::base::sabotage::Rules<Rule>;

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
