//! What a stranger may try from near the cluster: each case is an attack, and what it must not bring about.

pub(crate) mod crowd;
