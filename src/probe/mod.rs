//! The round trip: mail that timecop sends to itself through the outside world, and what came of it.
//!
//! - [`header`]: the line in a probe by which it is known again, and which nobody else can write;
//! - [`hops`]: the Received headers of what arrived;
//! - [`policy`]: what our own port 25 answers;
//! - [`table`]: every probe from its start to its one outcome;
//! - [`schedule`]: when each route fires;
//! - [`view`]: routes and probes as the API shows them.

pub mod header;
pub mod hops;
pub mod policy;
pub mod schedule;
pub mod table;
pub mod view;
