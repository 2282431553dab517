//! What a rule is told beside what it judges.

use crate::base::Instant;

use super::sabotage::Rules;
use super::timers::Timers;

/// What time it is, and by which limits and rules is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub(super) now: Instant,
    pub(super) timers: &'a Timers,
    pub(super) rules: Rules,
}
