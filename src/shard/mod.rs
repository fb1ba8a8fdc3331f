//! Shards: pinned threads, each with an io_uring of its own and one loop that mutates all of its state.
//!
//! - [`ring`]: the io_uring, and all of the project's unsafe code;
//! - [`connections`]: what the ring's file slots are used for;
//! - [`timers`]: their deadlines;
//! - [`pump`]: the one loop;
//! - [`tls`]: what stands between bytes and machines where connections are secured;
//! - [`sink_service`]: incoming connections, of SMTP and of HTTP; [`http_service`]: what those of HTTP share;
//! - [`mailbox`]: commands in, measurements out;
//! - [`machine`]: whether this machine can run shards, and at full speed;
//! - [`placement`], [`pool`]: which CPUs, start and stop;
//! - [`listen`]: sockets that many shards listen on;
//! - [`clock`]: the only reader of the clock.

pub mod clock;
pub mod connections;
pub mod http_service;
pub mod listen;
pub mod machine;
pub mod mailbox;
pub mod placement;
pub mod pool;
pub mod pump;
pub mod ring;
pub mod sink_service;
pub mod timers;
pub mod tls;
