//! The sink: an SMTP server that accepts what it is told to, keeps nothing, counts everything, and misbehaves on
//! request, since a load generator has to be tested against faults.
//!
//! - [`policy`]: what the sink answers;
//! - [`capacity`]: how much it takes at most;
//! - [`fault`]: delays, replies, drops and stalls, and how they are written on the command line;
//! - [`counts`]: what arrived;
//! - [`mailgun`]: the same for HTTP: a stub of Mailgun's messages API.

pub mod capacity;
pub mod counts;
pub mod fault;
pub mod mailgun;
pub mod policy;

pub use capacity::{Capacity, CapacityError, RateLimit};
pub use counts::{Counts, SinkCounts};
pub use fault::{FaultError, Faults, PhaseDelay, PhaseDrop, PhaseReply, Stall};
pub use mailgun::{HttpCounts, Stub, StubSettings};
pub use policy::{SinkPolicy, SinkSettings};
