//! The rules of the sentinel that a test may switch off: see [`crate::base::sabotage`].

/// A rule of the sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One vote in an epoch.
    VoteOnce,
    /// A vote survives a restart.
    KeepVote,
    /// What is promised is on disk before.
    StoreFirst,
    /// A leader needs a majority of the voters.
    Majority,
    /// A master is down when a quorum finds it down.
    Quorum,
    /// The own vote counts once.
    OwnVoteOnce,
    /// Only a higher decision replaces one.
    HigherDecision,
    /// Epochs that others have seen are taken over.
    RaiseEpoch,
    /// A decision makes an end of what was begun before it.
    ReleaseWrites,
    /// An ordered switchover waits until the replica has everything.
    CatchUp,
    /// Nobody who is empty is promoted while others hold data.
    NotEmpty,
    /// Nobody whose data comes from somewhere else is promoted.
    SameLineage,
    /// Nobody is promoted in the middle of a full copy.
    NotSyncing,
    /// Nobody with priority 0 is promoted.
    NotPriorityZero,
    /// The others are made to follow.
    Heal,
    /// Nobody is believed, voted for or connected to but who the file names, and by the way that it names.
    OwnVoices,
    /// An epoch far above the own one is only taken over from a majority.
    EpochStep,
    /// A sentinel without a record hears the others before it gives a vote.
    Amnesia,
    /// The mode changes only once every sentinel asks for the other one.
    ModeOfAll,
    /// The mode changes only with the master staying.
    ModeStays,
}

/// Which of them hold.
pub(super) type Rules = crate::base::sabotage::Rules<Rule>;

#[cfg(feature = "sabotage")]
impl Rule {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::VoteOnce,
        Self::KeepVote,
        Self::StoreFirst,
        Self::Majority,
        Self::Quorum,
        Self::OwnVoteOnce,
        Self::HigherDecision,
        Self::RaiseEpoch,
        Self::ReleaseWrites,
        Self::CatchUp,
        Self::NotEmpty,
        Self::SameLineage,
        Self::NotSyncing,
        Self::NotPriorityZero,
        Self::Heal,
        Self::OwnVoices,
        Self::EpochStep,
        Self::Amnesia,
        Self::ModeOfAll,
        Self::ModeStays,
    ];
}
