//! Control: starts and stops shards, follows jobs, and merges what the shards measured.

pub mod alert;
pub mod api;
pub mod draft;
pub mod faults;
pub mod hammer;
pub mod jobs;
pub mod layout;
pub mod metrics;
pub mod probe;
mod reload;
pub mod resolve;
pub mod running;
pub mod search;
pub mod serve;
pub mod signals;
pub mod sink;
pub mod store;
pub mod targets;
mod trials;
