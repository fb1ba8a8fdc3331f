//! A hammer job: from what was asked for to what each shard does, without touching a socket.
//!
//! [`spec`] turns raw input into a valid job, [`plan`] splits it exactly over the shards, and on each shard a
//! [`worker::Worker`] drives the shard's connections through it.

pub mod link;
pub mod plan;
pub mod spec;
pub mod worker;
