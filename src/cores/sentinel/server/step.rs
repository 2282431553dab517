//! What a command comes to.

use crate::cores::sentinel::Answer;
use crate::cores::sentinel::order::Order;

use super::reply::{nothing, simple};

/// What a command comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// This answer.
    Answer(Answer),
    /// The agreement has to carry it out.
    Call(Call),
}

/// What the agreement has to carry out for a command.
#[derive(Debug)]
pub(in crate::cores::sentinel) struct Call {
    pub(in crate::cores::sentinel) order: Order,
    /// What is answered as soon as that is done or has begun.
    pub(in crate::cores::sentinel) answer: Answer,
}

impl Step {
    pub(super) fn order(order: Order, answer: Answer) -> Self {
        Self::Call(Call { order, answer })
    }

    /// Answered by OK at once.
    pub(super) fn ok(order: Order) -> Self {
        Self::order(order, simple("OK"))
    }

    /// Not answered before its end is told.
    pub(super) fn awaited(order: Order) -> Self {
        Self::order(order, nothing())
    }
}

impl From<Answer> for Step {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl From<Result<Self, Answer>> for Step {
    fn from(step: Result<Self, Answer>) -> Self {
        step.unwrap_or_else(Self::Answer)
    }
}
