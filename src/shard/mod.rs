//! Shards: pinned threads, each with an io_uring of its own and one loop that mutates all of its state.
//!
//! - [`ring`]: the io_uring, and all of the project's unsafe code;
//! - [`connections`]: what the ring's file slots are used for;
//! - [`timers`]: their deadlines;
//! - [`pump`]: the one loop;
//! - [`tls`]: what stands between bytes and machines where connections are secured;
//! - [`service`]: incoming connections: [`sink_service`], those of a sink, by SMTP and by HTTP ([`http_service`]), and
//!   [`probe_service`], those of our own port 25;
//! - `slack`: whether a shard has time to spare;
//! - [`mailbox`]: commands in, measurements out;
//! - [`machine`]: whether this machine can run shards, and at full speed;
//! - [`placement`], [`pool`]: which CPUs, start and stop;
//! - [`listen`]: sockets that many shards listen on, and `listeners`: how a service accepts from them;
//! - [`clock`]: the only reader of the clock, and `calendar`: the kernel's stamps by that clock.

mod calendar;
pub mod clock;
pub mod connections;
pub mod http_service;
pub mod listen;
mod listeners;
pub mod machine;
pub mod mailbox;
pub mod placement;
pub mod pool;
pub mod probe_service;
pub mod pump;
pub mod ring;
pub mod service;
pub mod sink_service;
mod slack;
pub mod timers;
pub mod tls;
