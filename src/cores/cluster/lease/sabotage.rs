//! The rules of the lease that a test may switch off: see [`crate::base::sabotage`].

/// A rule of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A sentinel is bound to one process at a time.
    OneGrant,
    /// It is bound for the whole length of its promise.
    WholeLease,
    /// A grant to somebody new is of the epoch that is the highest on disk: not of a lower one.
    NotBelow,
    /// And not of a higher one.
    StoreFirst,
    /// After a start it grants nobody new before its earlier promises have ended.
    WaitAfterStart,
    /// Who was named, and never got the lease, is granted nothing once it is named no more.
    OfUse,
    /// Nor while it is named, by a leader that somebody stood against in a higher epoch.
    NewestLeader,
    /// What is given back is what was promised up to then, and not what was promised later.
    LateRelease,
    /// A lease takes the grants of a majority.
    Majority,
    /// It ends with the first promise without which there is no majority.
    FirstToEnd,
    /// A tenth of it is left for the clocks.
    Margin,
    /// What a sentinel granted before the lease was given back is worth nothing.
    AfterRelease,
    /// A lease is opened only by grants of the epoch in which its holder was elected.
    OwnEpoch,
}

/// Which of them hold.
pub type Rules = crate::base::sabotage::Rules<Rule>;

#[cfg(feature = "sabotage")]
impl Rule {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::OneGrant,
        Self::WholeLease,
        Self::NotBelow,
        Self::StoreFirst,
        Self::WaitAfterStart,
        Self::OfUse,
        Self::NewestLeader,
        Self::LateRelease,
        Self::Majority,
        Self::FirstToEnd,
        Self::Margin,
        Self::AfterRelease,
        Self::OwnEpoch,
    ];
}
