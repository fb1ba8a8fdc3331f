//! Real workers against real server sessions in virtual time, over a network that a seed makes up.
//!
//! - `network`: the world: connections, what delays, tears and breaks them, and the turns of the client's side;
//! - `server`: the target, by SMTP or HTTP, good or hostile;
//! - `job`: what is run where no seed says it;
//! - `scenario`: from a seed to a run, what follows it as control does, and what must be true of every run;
//! - `seeds`: many of them;
//! - `sessions`: the tests by seeds;
//! - `omission`: coordinated omission, against arithmetic;
//! - `truth`: reported percentiles, against the times that they stand for;
//! - `behaviours`: what a worker does, one thing at a time;
//! - `http`: answers that no server of ours gives;
//! - `warmup`: that it changes nothing of the run;
//! - `probe`: the round trip, without its shard.

mod behaviours;
mod http;
mod job;
mod network;
mod omission;
mod probe;
mod ramp;
mod scenario;
mod seeds;
mod server;
mod sessions;
mod truth;
mod warmup;
