//! What somebody who is near a cluster can try, with what anybody near it has: an address on the segment, the applications'
//! password, a user without rights on a node. Nothing may come of it, and it is reported.

pub(crate) mod address;
pub(crate) mod child;
pub(crate) mod cluster;
pub(crate) mod crowd;
