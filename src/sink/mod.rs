//! The sink: an SMTP server that accepts what it is told to, keeps nothing, counts everything, and misbehaves on
//! request, since a load generator has to be tested against faults.
//!
//! - [`policy`]: what the sink answers;
//! - [`capacity`]: how much it takes at most;
//! - [`fault`]: what goes wrong on request, and how that is written;
//! - [`stall`]: a time of silence;
//! - [`counts`]: what arrived;
//! - [`mailgun`]: the same for HTTP: a stub of Mailgun's messages API.

pub mod capacity;
pub mod counts;
pub mod fault;
pub mod mailgun;
pub mod policy;
pub mod stall;

pub use capacity::{Capacity, CapacityError, RateLimit};
pub use counts::{Counts, SinkCounts};
pub use fault::{FaultCount, FaultCounters, FaultError, Faults, Rule, Striker};
pub use mailgun::{HttpCounts, Stub, StubSettings};
pub use policy::{SinkPolicy, SinkSettings};
pub use stall::Stall;
