//! The HTTP/1.1 server session (RFC 9110, RFC 9112), without I/O: bytes and time in, responses and a verdict on the
//! connection out. It is driven as the one of SMTP is, see [`crate::wire::smtp::server`].
//!
//! Requests are answered one after the other, pipelined ones in their order. What is answered to a request whose head and
//! framing are right is up to a [`Policy`], which gets the content piece by piece as it arrives: nothing of it is kept
//! here. Everything else is settled here, strictly: where two readers could disagree about where a request ends, the
//! connection ends.

mod head;
mod policy;
mod response;
mod session;

pub use head::{HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX};
pub use policy::{Answer, Decision, Event, Intake, Policy, RequestHead, SessionError};
pub use response::reason;
pub use session::{BODY_BYTES_A_SECOND_MIN, LINGER_BYTES_MAX, ServerConfig, Session};
