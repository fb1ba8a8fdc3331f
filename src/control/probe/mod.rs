//! The round trip: the shard that sends probes and takes them in.

pub mod certificate;
pub mod driver;
pub mod mail;
