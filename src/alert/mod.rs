//! When to call somebody, and how PagerDuty is told.
//!
//! - [`policy`]: from the outcomes of a route's probes to alerts that are raised and resolved;
//! - [`event`]: an event as PagerDuty's Events API v2 takes it;
//! - [`queue`]: events that were not delivered yet.

pub mod event;
pub mod policy;
pub mod queue;
