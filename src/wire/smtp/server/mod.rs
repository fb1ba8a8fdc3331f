//! The SMTP server session (RFC 5321), without I/O: bytes and time in, replies and a verdict on the connection out.
//!
//! The driver of a connection calls [`Session::connected`] once, [`Session::handle`] with all that arrives,
//! [`Session::handle_timeout`] when [`Session::deadline`] has come, and [`Session::end_of_stream`] when the peer closed.
//! After each call it writes what is in `out`, obeys the [`Flow`] and asks for the deadline again.
//!
//! What the session answers to a well-formed command in its place is up to a [`Policy`]. Everything else is settled here.

mod capability;
mod config;
mod login;
mod policy;
mod session;

pub use capability::{Capabilities, Capability};
pub use config::ServerConfig;
pub use login::AUTH_FAILURES_MAX;
pub use policy::{Answer, Decision, Event, Policy, Question, Refusal, SessionError};
pub use session::{DATA_BYTES_A_SECOND_MIN, LINE_BYTES_MAX, Session};

pub use crate::wire::flow::Flow;
pub use crate::wire::held::HELD_BYTES_MAX;
