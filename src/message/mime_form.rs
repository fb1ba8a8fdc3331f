//! The body of a request to Mailgun's MIME API: `POST /v3/{domain}/messages.mime`.

use super::compose::free_boundary;
use super::form::{Layout, RecipientFields};
use super::{DateCache, RecipientVariables, Recipients, Template};
use crate::outgoing::Outgoing;
use crate::time::WallTime;

/// What such a body is made from.
#[derive(Debug)]
pub struct MimeFormSpec<'a> {
    /// Writes the messages. Not dot-stuffed.
    pub template: Template,
    /// Who gets which message.
    pub recipients: &'a Recipients,
    /// What differs from recipient to recipient, for the server to replace.
    pub variables: Option<&'a RecipientVariables>,
    /// Further fields by their names: `o:testmode`, ….
    pub options: &'a [(String, String)],
    /// Chooses the boundary.
    pub run_id: u64,
}

/// Bodies of requests to Mailgun's MIME API: `multipart/form-data` with a `to` field for each recipient, and the message as
/// the file `message`.
#[derive(Debug)]
pub struct MimeForm {
    content_type: String,
    to: RecipientFields,
    /// The other fields, and what stands before the message.
    before: Box<[u8]>,
    template: Template,
    end: Box<[u8]>,
}

impl MimeForm {
    /// Builds what is the same in all requests.
    pub fn new(spec: MimeFormSpec<'_>) -> MimeForm {
        let occurs = |boundary: &str| {
            spec.template.contains(boundary.as_bytes())
                || spec.options.iter().any(|(_, value)| value.contains(boundary))
        };
        let boundary = free_boundary(spec.run_id, occurs);
        let layout = Layout::Multipart(boundary.clone());
        let mut before = Vec::new();
        for (name, value) in spec.options {
            let (head, end) = layout.field(name);
            before.extend_from_slice(&[&head[..], value.as_bytes(), &end].concat());
        }
        before.extend_from_slice(&Layout::file(&boundary, "message", "message.mime", "message/rfc822"));
        MimeForm {
            content_type: layout.content_type(),
            to: RecipientFields::new(&layout, spec.recipients, spec.variables),
            before: before.into(),
            template: spec.template,
            end: [b"\r\n", &Layout::end(&boundary)[..]].concat().into(),
        }
    }

    /// The Content-Type of the request.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The message in it.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Octets of the body of message `sequence`.
    #[inline]
    pub fn bytes(&self, sequence: u64) -> u64 {
        let around = self.to.bytes(sequence) + self.before.len() + self.end.len();
        around as u64 + self.template.bytes(sequence)
    }

    /// Appends the body of message `sequence`, which is dated `wall`. A large message is referred to and not copied.
    /// Allocates nothing but room in `out`.
    #[inline]
    pub fn write(&self, sequence: u64, wall: WallTime, dates: &mut DateCache, out: &mut Outgoing) {
        self.to.write(sequence, &mut out.bytes);
        out.push(&self.before);
        self.template.write(sequence, wall, dates, out);
        out.push(&self.end);
    }
}
