//! The body of a request to any API: a given text in which variables are replaced.

use bytes::Bytes;

use super::date::{DATE_BYTES, DATE_FIRST};
use super::escape::Escape;
use super::expansion::{EXPANSION_BYTES_MAX, Expansion, Values, Vocabulary};
use super::message_id::MessageId;
use super::{
    AddressBuffer, DateCache, MAILBOX_BYTES_MAX, MESSAGE_BYTES_MAX, MessageError, RecipientVariables, Recipients,
    ReversePath,
};
use crate::outgoing::Outgoing;
use crate::time::WallTime;

/// What such a body is made from.
#[derive(Clone, Debug)]
pub struct RawBodySpec<'a> {
    /// The text, in which `%recipient%`, `%recipient.NAME%`, `%from%`, `%message_id%` (without angle brackets), `%date%`
    /// and `%sequence%` are replaced. What else stands between percent signs stays.
    pub data: Bytes,
    /// The Content-Type of the request, which says how values are written: in JSON as inside of quotes, in a form
    /// urlencoded, else as they are.
    pub content_type: String,
    /// The sender; empty for the null path.
    pub from: &'a ReversePath,
    /// Who gets which message; of several, the first one is the recipient.
    pub recipients: &'a Recipients,
    /// What differs from recipient to recipient.
    pub variables: Option<&'a RecipientVariables>,
    /// A fresh number for each run, so that no two runs share a Message-ID.
    pub run_id: u64,
    /// The right side of the Message-ID.
    pub host: &'a str,
}

/// Bodies of requests to any API.
#[derive(Debug)]
pub struct RawBody {
    content_type: String,
    from: Box<[u8]>,
    id: MessageId,
    recipients: Recipients,
    expansion: Expansion,
    expanded_bytes_max: u64,
}

impl RawBody {
    /// Compiles the text.
    ///
    /// # Errors
    ///
    /// When it is larger than [`MESSAGE_BYTES_MAX`] once variables are replaced, has too many of them, or the host name
    /// does not fit into a Message-ID.
    pub fn new(spec: RawBodySpec<'_>) -> Result<RawBody, MessageError> {
        let id = MessageId::new(spec.run_id, spec.host)?;
        let escape = Escape::of(&spec.content_type);
        let expansion = Expansion::new(&spec.data, Vocabulary::All, spec.variables, escape)
            .map_err(|_| MessageError::TooManyPlaces)?;
        let recipient = spec.recipients.address_bytes(escape).1;
        let (bytes, _) = expansion.longest(recipient, 3 * MAILBOX_BYTES_MAX, id.len());
        if bytes - expansion.text_bytes() > EXPANSION_BYTES_MAX {
            return Err(MessageError::ExpansionTooLarge { bytes: bytes - expansion.text_bytes() });
        }
        if bytes > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge { bytes });
        }
        Ok(RawBody {
            content_type: spec.content_type,
            from: spec.from.as_bytes().into(),
            id,
            recipients: spec.recipients.clone(),
            expansion,
            expanded_bytes_max: bytes,
        })
    }

    /// Octets that no body has more of once its variables are replaced.
    pub fn expanded_bytes_max(&self) -> u64 {
        self.expanded_bytes_max
    }

    /// The Content-Type of the request.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Octets of the body of message `sequence`.
    #[inline]
    pub fn bytes(&self, sequence: u64) -> u64 {
        let mut buffer = AddressBuffer::new();
        self.expansion.bytes(&self.values(sequence, DATE_FIRST, &mut buffer))
    }

    /// Appends the body of message `sequence`, which is dated `wall`. A long text is referred to and not copied. Allocates
    /// nothing but room in `out`.
    #[inline]
    pub fn write(&self, sequence: u64, wall: WallTime, dates: &mut DateCache, out: &mut Outgoing) {
        let mut buffer = AddressBuffer::new();
        self.expansion.write(&self.values(sequence, dates.text(wall), &mut buffer), out);
    }

    #[inline]
    fn values<'a>(&'a self, sequence: u64, date: &'a [u8; DATE_BYTES], buffer: &'a mut AddressBuffer) -> Values<'a> {
        Values { sequence, recipient: self.recipients.of(sequence, 0, buffer), from: &self.from, id: &self.id, date }
    }
}

#[cfg(test)]
mod tests;
