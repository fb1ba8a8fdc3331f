//! What happened: latencies, outcomes, replies and errors, counted on each shard and merged exactly.

pub mod histogram;
pub mod recorder;
pub mod report;
pub mod totals;
