//! What is sent: envelope addresses, who gets which message, and the message itself.
//!
//! - [`Mailbox`], [`ReversePath`]: addresses that have been checked, so that nothing in them can break out of a command
//!   or a header field.
//! - [`Recipients`]: which addresses message number i goes to.
//! - [`Template`]: built once a job and shared by all shards; writes message number i, of which only a short head is
//!   its own.

mod address;
mod date;
mod error;
mod generate;
mod given;
mod recipients;
mod template;

pub use address::{AddressError, DOMAIN_BYTES_MAX, LOCAL_BYTES_MAX, MAILBOX_BYTES_MAX, Mailbox, ReversePath};
pub use date::DateCache;
pub use error::MessageError;
pub use generate::GeneratedSpec;
pub use given::Conversion;
pub use recipients::{RECIPIENTS_MAX, RECIPIENTS_PER_MESSAGE_MAX, Recipients, RecipientsError};
pub use template::{COPY_BYTES_MAX, LINE_BYTES_MAX, MESSAGE_BYTES_MAX, Template};
