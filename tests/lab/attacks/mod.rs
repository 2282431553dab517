//! What somebody near a cluster can try against it.

pub(crate) mod address;
