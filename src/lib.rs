//! timecop tells a mail team how much their system can take, and how long their mail takes to arrive.
//!
//! # The map of the house
//!
//! The *pure half* has no sockets, threads, clocks or global randomness. It builds with `--no-default-features`, is
//! fuzzed and simulated:
//!
//! - [`time`], [`phase`], [`outgoing`]: what everybody needs: an instant, a phase's name, bytes to be written;
//! - [`wire`]: bytes and their meaning: codecs and the protocol machines;
//! - [`audit`]: whether what was accepted has arrived: stamps, what arrived, and the account of both;
//! - [`message`]: what is sent: envelope addresses, and the template that writes one message after another;
//! - [`load`]: when it is sent: closed loop and open loop, handing out one ticket a message;
//! - [`measure`]: what happened: histograms, outcomes, replies and errors, merged exactly; the report;
//! - [`job`]: a hammer job, from what was asked for to what each shard does;
//! - [`sink`]: what the SMTP server answers;
//! - [`probe`]: the round trip: probes, their headers and their outcomes;
//! - [`alert`]: when to call somebody, and what PagerDuty is told.
//!
//! The *engine half* (feature `engine`, on by default) is the only part that touches io_uring, threads and the clock:
//!
//! - [`config`]: the configuration file of the service, from text to values that are known to be valid;
//! - [`shard`]: pinned threads, each with a ring of its own and one loop that mutates all of its state;
//! - [`control`]: starts and stops shards, follows jobs, merges what they measured;
//! - [`cli`]: the command line.
//!
//! Imports go downwards only; `tests/architecture.rs` holds the sources to it.

pub mod alert;
pub mod audit;
pub mod job;
pub mod load;
pub mod measure;
pub mod message;
pub mod outgoing;
pub mod phase;
pub mod probe;
pub mod sink;
pub mod time;
pub mod wire;

#[cfg(feature = "engine")]
pub mod cli;
#[cfg(feature = "engine")]
pub mod config;
#[cfg(feature = "engine")]
pub mod control;
#[cfg(feature = "engine")]
pub mod shard;
