//! The body of a request to Mailgun's form API: `POST /v3/{domain}/messages`.

use bytes::Bytes;

use super::compose::{Parts, free_boundary};
use super::escape::Escape;
use super::generate::{self, SUBJECT, author};
use super::message_id::MessageId;
use super::template::COPY_BYTES_MAX;
use super::variables::ByRecipient;
use super::{DateCache, MESSAGE_BYTES_MAX, MessageError, RecipientVariables, Recipients, ReversePath, Sizes};
use crate::outgoing::Outgoing;
use crate::time::WallTime;

/// What a form is made from.
#[derive(Clone, Copy, Debug)]
pub struct FormSpec<'a> {
    /// What it says.
    pub content: FormContent<'a>,
    /// The author; the null path becomes `MAILER-DAEMON` at `host`.
    pub from: &'a ReversePath,
    /// Who gets which message.
    pub recipients: &'a Recipients,
    /// What differs from recipient to recipient, for the server to replace.
    pub variables: Option<&'a RecipientVariables>,
    /// Further fields by their names: `o:testmode`, `h:Reply-To`, `v:my-var`, …. Neither has control characters but those of
    /// text.
    pub options: &'a [(String, String)],
    /// Repeats the text of a generated message.
    pub seed: u64,
    /// A fresh number for each run, so that no two runs share a Message-ID.
    pub run_id: u64,
    /// The right side of the Message-ID.
    pub host: &'a str,
}

/// What a form says.
#[derive(Clone, Copy, Debug)]
pub enum FormContent<'a> {
    /// Made-up text, as much as makes the whole body exactly as large as asked for, in octets.
    Generated {
        /// Of the whole body of a request.
        sizes: &'a Sizes,
        /// The subject; `None` for one that says what the message is.
        subject: Option<&'a str>,
    },
    /// Given parts.
    Parts(&'a Parts),
}

/// Bodies of requests to Mailgun's form API: urlencoded, or with attachments `multipart/form-data`. Each has a unique
/// `h:Message-Id`, by which a message can be traced; the server dates it.
#[derive(Debug)]
pub struct Form {
    content_type: String,
    begin: Box<[u8]>,
    to: RecipientFields,
    id: MessageId,
    /// The field of the Message-ID up to the identifier, and what follows that; `None` where an option gives it.
    id_field: Option<Around>,
    /// The fields that are the same in all requests.
    content: Bytes,
    /// Sizes of generated bodies, and where their text begins in `content`, which is longer than needed.
    generated: Option<(Sizes, usize)>,
}

/// What stands before a value, and behind it.
type Around = (Box<[u8]>, Box<[u8]>);

/// How a form is written.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    Urlencoded,
    Multipart(String),
}

impl Layout {
    fn escape(&self) -> Escape {
        match self {
            Layout::Urlencoded => Escape::Form,
            Layout::Multipart(_) => Escape::None,
        }
    }

    pub(super) fn content_type(&self) -> String {
        match self {
            Layout::Urlencoded => "application/x-www-form-urlencoded".to_owned(),
            Layout::Multipart(boundary) => format!("multipart/form-data; boundary=\"{boundary}\""),
        }
    }

    /// What stands before the value of a field that is not the first one, and behind it.
    pub(super) fn field(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        match self {
            Layout::Urlencoded => ([b"&", &Escape::Form.text(name.as_bytes())[..], b"="].concat(), Vec::new()),
            Layout::Multipart(boundary) => {
                let name = parameter(name);
                let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
                (head.into_bytes(), b"\r\n".to_vec())
            }
        }
    }

    fn push_field(&self, name: &str, value: &str, out: &mut Vec<u8>) {
        let (before, after) = self.field(name);
        out.extend_from_slice(&before);
        self.escape().push(value.as_bytes(), out);
        out.extend_from_slice(&after);
    }

    /// What stands before the content of a file in a multipart form.
    pub(super) fn file(boundary: &str, name: &str, file_name: &str, content_type: &str) -> Vec<u8> {
        let (name, file_name) = (parameter(name), parameter(file_name));
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
             Content-Type: {content_type}\r\n\r\n"
        )
        .into_bytes()
    }

    /// The last octets of a multipart form.
    pub(super) fn end(boundary: &str) -> Vec<u8> {
        format!("--{boundary}--\r\n").into_bytes()
    }
}

/// A name inside of quotes, as browsers write it (WHATWG HTML, "multipart/form-data encoding algorithm"), but for a
/// backslash, behind which some readers take the quote at the end for a part of the name.
fn parameter(name: &str) -> String {
    name.replace('"', "%22").replace('\\', "%5C").replace('\r', "%0D").replace('\n', "%0A")
}

/// The fields that differ by the recipients: `to` for each of them, and `recipient-variables`.
#[derive(Debug)]
pub(super) struct RecipientFields {
    recipients: Recipients,
    escape: Escape,
    to: Around,
    variables: Option<VariablesField>,
}

#[derive(Debug)]
struct VariablesField {
    begin: Box<[u8]>,
    comma: Box<[u8]>,
    end: Box<[u8]>,
    members: ByRecipient<Box<[u8]>>,
}

impl RecipientFields {
    pub(super) fn new(
        layout: &Layout,
        recipients: &Recipients,
        variables: Option<&RecipientVariables>,
    ) -> RecipientFields {
        let escape = layout.escape();
        let (before, after) = layout.field("to");
        let variables = variables.map(|variables| {
            let (mut begin, after) = layout.field("recipient-variables");
            escape.push(b"{", &mut begin);
            let end = [escape.text(b"}"), after].concat().into();
            let comma = escape.text(b",").into();
            VariablesField { begin: begin.into(), comma, end, members: variables.members(escape) }
        });
        RecipientFields { recipients: recipients.clone(), escape, to: (before.into(), after.into()), variables }
    }

    /// Appends those of message `sequence`.
    #[inline]
    pub(super) fn write(&self, sequence: u64, out: &mut Vec<u8>) {
        let mut buffer = super::AddressBuffer::new();
        for j in 0..self.recipients.per_message() {
            out.extend_from_slice(&self.to.0);
            self.escape.push(self.recipients.of(sequence, j, &mut buffer), out);
            out.extend_from_slice(&self.to.1);
        }
        if let Some(field) = &self.variables {
            field.each_part(&self.recipients, sequence, |part| out.extend_from_slice(part));
        }
    }

    /// Octets of what [`RecipientFields::write`] appends.
    #[inline]
    pub(super) fn bytes(&self, sequence: u64) -> usize {
        let mut buffer = super::AddressBuffer::new();
        let count = self.recipients.per_message();
        let mut bytes = count as usize * (self.to.0.len() + self.to.1.len());
        for j in 0..count {
            bytes += self.escape.len(self.recipients.of(sequence, j, &mut buffer));
        }
        if let Some(field) = &self.variables {
            field.each_part(&self.recipients, sequence, |part| bytes += part.len());
        }
        bytes
    }

    /// Octets that no message's `to` fields are fewer than, and that none are more than.
    fn to_bytes(&self) -> (usize, usize) {
        let (shortest, longest) = self.recipients.address_bytes(self.escape);
        let around = self.to.0.len() + self.to.1.len();
        let count = self.recipients.per_message() as usize;
        (count * (around + shortest), count * (around + longest))
    }
}

impl VariablesField {
    #[inline]
    fn each_part(&self, recipients: &Recipients, sequence: u64, mut push: impl FnMut(&[u8])) {
        push(&self.begin);
        recipients.each_member(sequence, &self.members, &self.comma, &mut push);
        push(&self.end);
    }
}

impl Form {
    /// Builds what is the same in all requests.
    ///
    /// # Errors
    ///
    /// When a size is too small for the fields or above [`MESSAGE_BYTES_MAX`], or the host name does not fit into a
    /// Message-ID.
    pub fn new(spec: &FormSpec<'_>) -> Result<Form, MessageError> {
        let id = MessageId::new(spec.run_id, spec.host)?;
        let layout = layout(spec);
        let from = author(spec.from, spec.host);
        let mut begin = Vec::new();
        layout.push_field("from", &from, &mut begin);
        if let Layout::Urlencoded = layout {
            begin.remove(0);
        }
        let mut content = Vec::new();
        let subject = match spec.content {
            FormContent::Generated { subject, .. } => subject,
            FormContent::Parts(parts) => parts.subject.as_deref(),
        };
        layout.push_field("subject", subject.unwrap_or(SUBJECT), &mut content);
        for (name, value) in spec.options {
            layout.push_field(name, value, &mut content);
        }
        let gives_id = spec.options.iter().any(|(name, _)| name.eq_ignore_ascii_case("h:message-id"));
        let id_field = (!gives_id).then(|| {
            let (before, after) = layout.field("h:Message-Id");
            let [open, close] = [&b"<"[..], b">"].map(|bracket| layout.escape().text(bracket));
            ([before, open].concat().into(), [close, after].concat().into())
        });
        let to = RecipientFields::new(&layout, spec.recipients, spec.variables);
        let mut form = Form {
            content_type: layout.content_type(),
            begin: begin.into(),
            to,
            id,
            id_field,
            content: Bytes::new(),
            generated: None,
        };
        match spec.content {
            FormContent::Parts(parts) => push_parts(parts, &layout, &mut content),
            FormContent::Generated { sizes, .. } => {
                content.extend_from_slice(&layout.field("text").0);
                form.generate(sizes, spec.seed, &mut content)?;
            }
        }
        if content.len() as u64 > MESSAGE_BYTES_MAX + COPY_BYTES_MAX as u64 {
            return Err(MessageError::TooLarge { bytes: content.len() as u64 });
        }
        form.content = content.into();
        Ok(form)
    }

    /// Appends text enough for the largest body to the fields in `content`.
    fn generate(&mut self, sizes: &Sizes, seed: u64, content: &mut Vec<u8>) -> Result<(), MessageError> {
        if sizes.greatest() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge { bytes: sizes.greatest() });
        }
        let fields = content.len();
        let around = self.begin.len() + self.id_bytes() + fields;
        let (shortest, longest) = self.to.to_bytes();
        let least = (around + longest + LINE_END.len()) as u64;
        if sizes.least() < least {
            return Err(MessageError::TooSmall { bytes: sizes.least(), least });
        }
        let room = sizes.greatest() as usize - around - shortest;
        let mut text = Vec::new();
        generate::push_text(&mut text, room, seed);
        // Writing it in a form makes it longer.
        Escape::Form.push(&text, content);
        content.truncate(fields + room + LINE_END.len());
        self.generated = Some((sizes.clone(), fields));
        Ok(())
    }

    fn id_bytes(&self) -> usize {
        self.id_field.as_ref().map_or(0, |(before, after)| before.len() + self.id.len() + after.len())
    }

    /// The Content-Type of the request.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Octets of the body of message `sequence`.
    #[inline]
    pub fn bytes(&self, sequence: u64) -> u64 {
        match &self.generated {
            Some((sizes, _)) => sizes.of(sequence),
            None => (self.begin.len() + self.to.bytes(sequence) + self.id_bytes() + self.content.len()) as u64,
        }
    }

    /// The sizes of generated bodies.
    pub fn sizes(&self) -> Option<&Sizes> {
        self.generated.as_ref().map(|(sizes, _)| sizes)
    }

    /// Appends the body of message `sequence`. A content above [`COPY_BYTES_MAX`] is referred to and not copied.
    /// Allocates nothing but room in `out`.
    #[inline]
    pub fn write(&self, sequence: u64, _wall: WallTime, _dates: &mut DateCache, out: &mut Outgoing) {
        let before = out.len();
        out.push(&self.begin);
        self.to.write(sequence, &mut out.bytes);
        if let Some((before, after)) = &self.id_field {
            out.push(before);
            self.id.push(sequence, &mut out.bytes);
            out.push(after);
        }
        let (end, tail) = match &self.generated {
            None => (self.content.len(), &b""[..]),
            Some((sizes, _)) => {
                let room = sizes.of(sequence) as usize - (out.len() - before);
                cut(&self.content, room)
            }
        };
        match end > COPY_BYTES_MAX {
            true => out.push_shared(self.content.slice(..end)),
            false => out.push(&self.content[..end]),
        }
        out.push(tail);
    }
}

/// A line end as a form has it.
const LINE_END: &[u8] = b"%0D%0A";

/// How a form's text is cut so that it fills `room` octets: how much of it is taken, and what follows it. Never parts a line
/// end.
#[inline]
fn cut(content: &[u8], room: usize) -> (usize, &'static [u8]) {
    const TAIL: &[u8] = b".....";
    // The longest first: a percent sign begins both halves of a line end.
    let is_parted = |octets: &usize| content[..room].ends_with(&LINE_END[..*octets]);
    let octets = (1..LINE_END.len()).rev().find(is_parted).unwrap_or_default();
    (room - octets, &TAIL[..octets])
}

fn layout(spec: &FormSpec<'_>) -> Layout {
    let parts = match spec.content {
        FormContent::Parts(parts) if !parts.attachments.is_empty() => parts,
        _ => return Layout::Urlencoded,
    };
    let texts = [&parts.subject, &parts.text, &parts.html].into_iter().flatten();
    let texts = texts.chain(spec.options.iter().map(|(_, value)| value)).map(String::as_bytes);
    let contents: Vec<&[u8]> =
        texts.chain(parts.attachments.iter().map(|attachment| &attachment.content[..])).collect();
    let occurs = |boundary: &str| {
        let finder = memchr::memmem::Finder::new(boundary);
        contents.iter().any(|content| finder.find(content).is_some())
    };
    Layout::Multipart(free_boundary(spec.run_id, occurs))
}

fn push_parts(parts: &Parts, layout: &Layout, content: &mut Vec<u8>) {
    for (name, text) in [("text", &parts.text), ("html", &parts.html)] {
        if let Some(text) = text {
            layout.push_field(name, text, content);
        }
    }
    if let Layout::Multipart(boundary) = layout {
        for attachment in &parts.attachments {
            let (file_name, content_type) = (&attachment.name, attachment.content_type());
            content.extend_from_slice(&Layout::file(boundary, "attachment", file_name, content_type));
            content.extend_from_slice(&attachment.content);
            content.extend_from_slice(b"\r\n");
        }
        content.extend_from_slice(&Layout::end(boundary));
    }
}

#[cfg(test)]
mod tests;
