//! Faults that a sink injects, so that clients can be tested against them.
//!
//! - [`Rule`]: one fault, and the one grammar in which all of them are written, wherever they come from;
//! - [`Faults`]: the rules that are in force, with what the shards of a sink share of them: rates, greylists, connections;
//! - [`Striker`]: what a shard does by them. A sink without faults has none, and asks for it by one branch a question;
//! - [`Served`]: what a sink serves, by which rules are known that can never strike;
//! - [`FaultCounters`]: how often they have struck.

mod counters;
mod greylist;
mod phase;
mod rule;
mod served;
mod striker;

pub use counters::{FaultCount, FaultCounters};
pub use greylist::GREYLIST_TRIES_MAX;
pub use phase::{FaultPhase, TlsFault, phase_of};
pub use rule::{FaultError, PATTERN_BYTES_MAX, RULE_BYTES_MAX, Rule, SLOW_BYTES_PER_S_MAX, TEXT_BYTES_MAX, TIME_MAX};
pub use served::Served;
pub use striker::{Faults, RULES_MAX, Striker, Struck};
