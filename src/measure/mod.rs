//! What happened: latencies, outcomes, replies and errors, counted on each shard and merged exactly.

pub mod abort;
pub mod audit;
pub mod compare;
pub mod confidence;
pub mod effort;
pub mod generator;
pub mod histogram;
pub mod merge;
pub mod recorder;
pub mod report;
#[cfg(test)]
pub(crate) mod samples;
pub mod stamps;
pub mod threshold;
pub mod totals;
pub mod verdict;
pub mod waiting;
pub mod words;
