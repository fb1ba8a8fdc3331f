//! Control: starts and stops shards, follows jobs, and merges what the shards measured.

pub mod hammer;
pub mod layout;
pub mod resolve;
pub mod running;
pub mod search;
pub mod signals;
pub mod sink;
pub mod targets;
