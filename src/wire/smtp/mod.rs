//! SMTP (RFC 5321) as client and as server.
//!
//! - [`command`]: command lines, parsed and written;
//! - [`reply`]: reply lines, and what a server offers;
//! - [`data`]: dot-stuffing, and where a message ends;
//! - [`auth`]: SASL, on either side;
//! - [`client`]: the client session;
//! - [`server`]: the server session.

pub mod auth;
pub mod client;
pub mod command;
pub mod data;
pub mod reply;
pub mod server;
