//! What somebody near a cluster tries, and what becomes of it.

pub(crate) mod child;
