//! What is sent: envelope addresses, who gets which message, and the message itself.
//!
//! - [`Mailbox`], [`ReversePath`]: addresses that have been checked, so that nothing in them can break out of a command
//!   or a header field.
//! - [`Recipients`]: which addresses message number i goes to.
//! - [`Sizes`], [`Parts`], [`RecipientVariables`]: how large generated messages are, what one is put together from, what
//!   differs in it from recipient to recipient.
//! - [`Template`]: built once a job and shared by all shards; writes message number i, of which only a short head is
//!   its own.
//! - [`Form`], [`MimeForm`], [`RawBody`]: the same as bodies of HTTP requests.

mod address;
mod compose;
mod date;
mod draw;
mod error;
mod escape;
mod expansion;
mod form;
mod generate;
mod given;
mod message_id;
mod mime_form;
mod raw_body;
mod recipients;
mod sizes;
mod stamping;
mod template;
mod variables;

pub use address::{AddressError, DOMAIN_BYTES_MAX, LOCAL_BYTES_MAX, MAILBOX_BYTES_MAX, Mailbox, ReversePath};
pub use compose::{ATTACHMENTS_MAX, Attachment, Parts};
pub use date::DateCache;
pub use error::MessageError;
pub use expansion::{EXPANSION_BYTES_MAX, PLACES_MAX};
pub use form::{Form, FormContent, FormSpec};
pub use generate::GeneratedSpec;
pub use given::Conversion;
pub use mime_form::{MimeForm, MimeFormSpec};
pub use raw_body::{RawBody, RawBodySpec};
pub use recipients::{
    ADDRESSES_MAX, AddressBuffer, Entry, RECIPIENTS_MAX, RECIPIENTS_PER_MESSAGE_MAX, RecipientOrder, Recipients,
    RecipientsError,
};
pub use sizes::{SIZE_WEIGHT_MAX, SIZES_MAX, Sizes, SizesError, WeightedSize};
pub use template::{COPY_BYTES_MAX, ComposedSpec, GivenSpec, LINE_BYTES_MAX, MESSAGE_BYTES_MAX, Template};
pub use variables::{RecipientVariables, VARIABLES_BYTES_MAX, VariablesError};
