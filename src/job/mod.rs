//! A hammer job: from what was asked for to what each shard does, without touching a socket.
//!
//! [`spec`] turns raw input into a valid job, [`content`] builds what it sends, [`plan`] splits it exactly over the shards, and on each shard a
//! [`worker::Worker`] drives the shard's connections through it. [`request`] is the raw input of the API, [`record`] what
//! the API shows of a job. A [`search`] is a job that is many runs.

pub mod content;
pub mod http;
pub mod link;
pub mod plan;
pub mod record;
pub mod request;
pub mod search;
pub mod spec;
pub mod time_limits;
mod trial;
pub mod worker;
