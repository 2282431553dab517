//! The proxy: which node takes the writes, and what becomes of each client meanwhile.
//!
//! [`route::Route`] is the one place that decides the write target. [`session::Session`] decides for one client: hold,
//! dial, relay, refuse, close. The bytes themselves are moved by the runtime; whoever teaches sessions the boundaries of
//! requests and replies (so that they survive a switchover) extends `session` and leaves `route` as it is.

pub mod route;
pub mod session;

pub use route::Route;
pub use session::Session;
