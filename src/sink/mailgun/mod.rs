//! A stub of Mailgun's messages API (<https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages>):
//! it reads what it is sent as Mailgun does, answers with Mailgun's answers and errors, and keeps nothing.
//!
//! - `POST /v3/{domain}/messages`: a form with `from`, `to`, `text` and so on;
//! - `POST /v3/{domain}/messages.mime`: a form with `to` and the file `message`.

mod addresses;
mod counts;
mod message;
mod stub;

pub use counts::HttpCounts;
pub use message::{MESSAGE_BYTES_MAX, OPTIONS_BYTES_MAX, RECIPIENTS_MAX};
pub use stub::{REQUEST_BYTES_MAX, Stub, StubSettings};
