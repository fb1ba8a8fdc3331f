//! The message of a job: what is common to all its messages built once, what is each message's own written in front.

use bytes::Bytes;

use super::compose::{self, Parts, Replaced};
use super::date::{DATE_BYTES, DATE_FIRST};
use super::escape::Escape;
use super::expansion::{EXPANSION_BYTES_MAX, Expansion, Values, Vocabulary};
use super::generate::{self, author};
use super::given;
use super::message_id::MessageId;
use super::stamping::Stamping;
use super::variables::{ByRecipient, FIELD_BEGIN};
use super::{
    AddressBuffer, Conversion, DateCache, GeneratedSpec, MAILBOX_BYTES_MAX, MessageError, RecipientVariables,
    Recipients, ReversePath, Sizes,
};
use crate::audit::stamp::{FIELD_BYTES, NAME, Signer};
use crate::outgoing::Outgoing;
use crate::time::WallTime;

/// Largest message, in octets: 256 MiB. Servers seldom take a tenth of it.
pub const MESSAGE_BYTES_MAX: u64 = 256 << 20;
/// Longest line of a message, in octets without its CRLF (RFC 5322, 2.1.1).
pub const LINE_BYTES_MAX: usize = 998;
/// What a line should not pass, in octets without its CRLF (RFC 5322, 2.1.1).
pub(super) const LINE_BYTES_GOOD: usize = 78;
/// Longest content, in octets, that is copied behind the head. Copying less than this costs less than a second segment
/// in the write; a larger content is referred to.
pub const COPY_BYTES_MAX: usize = 8 << 10;

/// What a job sends. Built once, shared by all shards in an `Arc`.
///
/// Message number i consists of a head of its own (Message-ID, Date and, when it is made up, To) and of the content that
/// all messages share, in which variables may be replaced. Two runs never use the same Message-ID, provided that they have
/// different run ids.
#[derive(Debug)]
pub struct Template {
    id: MessageId,
    /// The Message-ID field up to the identifier.
    id_begin: &'static [u8],
    head: Head,
    from: Box<[u8]>,
    recipients: Recipients,
    body: Body,
    stamp: Option<Box<Stamping>>,
    is_8bit: bool,
    is_8bit_header: bool,
    /// Most octets of a content once its variables are replaced; 0 without variables.
    expanded_bytes_max: u64,
}

/// From the Message-ID to the date.
const DATE_BEGIN: &[u8] = b">\r\nDate: ";
/// What stands for the recipient in a message that the server makes one for each recipient of.
const TO_RECIPIENT: &[u8] = b"To: %recipient%\r\n";

/// The fields that are each message's own.
#[derive(Debug)]
enum Head {
    /// None: the message is sent as it was given.
    Nothing,
    /// Message-ID and Date.
    Fresh,
    /// Those, and the recipients.
    WithTo,
    /// Those, and what the server is to make of it for each recipient, by the recipient.
    WithVariables(ByRecipient<Box<[u8]>>),
    /// Message-ID, Date, and a placeholder for the recipient: the server is told beside the message what stands for it.
    WithPlaceholder,
}

#[derive(Debug)]
pub(super) enum Body {
    /// Header fields that are the same in all messages, the empty line, and text that is longer than needed: it is cut so
    /// that each message has exactly its size.
    Generated { sizes: Sizes, header_bytes: usize, content: Bytes },
    /// Contents that take turns, each sent whole.
    Given(Box<[Expansion]>),
}

/// Given messages, and what is done with them.
#[derive(Clone, Copy, Debug)]
pub struct GivenSpec<'a> {
    /// At least one; they take turns.
    pub messages: &'a [Bytes],
    /// They are sent as they are, octet for octet, with neither Message-ID nor Date of their own.
    pub verbatim: bool,
    /// What differs from recipient to recipient.
    pub variables: Option<&'a RecipientVariables>,
    /// Variables are replaced here. Else they go along in a header field (`X-Mailgun-Recipient-Variables`), with
    /// `To: %recipient%` in place of the To field, for the server to replace.
    pub expand: bool,
    /// Variables that are not replaced here go beside the message, in a form, and not in a header field of it.
    pub beside: bool,
    /// Who gets which message.
    pub recipients: &'a Recipients,
    /// A fresh number for each run.
    pub run_id: u64,
    /// The right side of the Message-ID.
    pub host: &'a str,
}

/// A message that is made up of a subject, texts and attachments.
#[derive(Clone, Copy, Debug)]
pub struct ComposedSpec<'a> {
    /// What it is made up of.
    pub parts: &'a Parts,
    /// The author.
    pub from: &'a ReversePath,
    /// What differs from recipient to recipient.
    pub variables: Option<&'a RecipientVariables>,
    /// As in [`GivenSpec`].
    pub expand: bool,
    /// As in [`GivenSpec`].
    pub beside: bool,
    /// Who gets which message.
    pub recipients: &'a Recipients,
    /// A fresh number for each run.
    pub run_id: u64,
    /// The right side of the Message-ID.
    pub host: &'a str,
}

impl Template {
    /// A message made up to be exactly as large as asked for, whichever recipients it goes to.
    ///
    /// It is valid RFC 5322, in lines of 76 characters that never begin with a dot. The To field names as many of the
    /// message's recipients as fit into one line, the others are blind copies.
    ///
    /// # Errors
    ///
    /// When a size is too small for the header or above [`MESSAGE_BYTES_MAX`], or the host name does not fit into a
    /// Message-ID.
    pub fn generated(spec: GeneratedSpec) -> Result<Template, MessageError> {
        let id = MessageId::new(spec.run_id, &spec.host)?;
        let (sizes, recipients) = (spec.sizes.clone(), spec.recipients.clone());
        if sizes.greatest() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge { bytes: sizes.greatest() });
        }
        let mut content = generate::header(&spec);
        let header_bytes = content.len();
        let is_8bit = !spec.from.is_ascii() || !recipients.is_ascii();
        let mut template = Template {
            id_begin: id_begin(&id),
            id,
            head: Head::WithTo,
            from: spec.from.as_bytes().into(),
            recipients,
            body: Body::Given([].into()),
            stamp: None,
            is_8bit,
            is_8bit_header: is_8bit,
            expanded_bytes_max: 0,
        };
        // The body ends in CRLF at least, so that what is cut off is never the empty line.
        let (shortest, longest) = template.head_bytes();
        let least = longest + header_bytes as u64 + generate::TAIL.len() as u64;
        if sizes.least() < least {
            return Err(MessageError::TooSmall { bytes: sizes.least(), least });
        }
        // At most MESSAGE_BYTES_MAX, so the cast is exact.
        generate::push_text(&mut content, (sizes.greatest() - shortest) as usize, spec.seed);
        template.body = Body::Generated { sizes, header_bytes, content: content.into() };
        Ok(template)
    }

    /// A message from a file (.eml), with a Message-ID and a Date of its own in place of those in the file. Everything
    /// else stays, but for line ends: a bare LF becomes CRLF, and the last line gets one if it has none.
    ///
    /// `run_id` is a fresh number for each run; `host` is the right side of the Message-ID.
    ///
    /// # Errors
    ///
    /// Those of [`Template::of_messages`].
    pub fn given(file: &[u8], run_id: u64, host: &str) -> Result<(Template, Conversion), MessageError> {
        // Without variables nothing depends on the recipients.
        let nobody = generate::nobody();
        let messages = [Bytes::copy_from_slice(file)];
        Template::of_messages(&GivenSpec {
            messages: &messages,
            verbatim: false,
            variables: None,
            expand: false,
            beside: false,
            recipients: &nobody,
            run_id,
            host,
        })
    }

    /// The same of several messages, which may have variables.
    ///
    /// # Errors
    ///
    /// When a file has no header, or has a bare CR, a NUL or a line longer than [`LINE_BYTES_MAX`], also once its variables
    /// are replaced; when it is to stay as it is and a line does not end in CRLF; when a message is larger than
    /// [`MESSAGE_BYTES_MAX`]; when the host name does not fit into a Message-ID, or a variable into a header.
    pub fn of_messages(spec: &GivenSpec<'_>) -> Result<(Template, Conversion), MessageError> {
        let head = match spec.variables {
            _ if spec.verbatim => Head::Nothing,
            Some(variables) if !spec.expand => Head::of_variables(variables, spec.beside)?,
            _ => Head::Fresh,
        };
        let mut conversion = Conversion::default();
        let mut contents = Vec::with_capacity(spec.messages.len());
        for message in spec.messages {
            let given = match &head {
                Head::Nothing => given::verbatim(message.clone())?,
                Head::WithVariables(_) | Head::WithPlaceholder => {
                    given::convert(message, &[b"Date", b"Message-ID", NAME.as_bytes(), b"To"])?
                }
                _ => given::convert(message, &[b"Date", b"Message-ID", NAME.as_bytes()])?,
            };
            conversion.add(given.conversion);
            contents.push((given.content, given.header_bytes));
        }
        let id = MessageId::new(spec.run_id, spec.host)?;
        let expand = spec.expand && !spec.verbatim;
        let template = Template::of_contents(id, head, &contents, expand.then_some(spec.variables), spec.recipients)?;
        Ok((template, conversion))
    }

    /// A message that is put together from its parts once, with a fresh head for each copy.
    ///
    /// # Errors
    ///
    /// When it is larger than [`MESSAGE_BYTES_MAX`], a line is too long once variables are replaced, a part with variables
    /// had to be encoded, or the host name does not fit into a Message-ID.
    pub fn composed(spec: &ComposedSpec<'_>) -> Result<Template, MessageError> {
        let id = MessageId::new(spec.run_id, spec.host)?;
        let head = match spec.variables {
            Some(variables) if !spec.expand => Head::of_variables(variables, spec.beside)?,
            _ => Head::WithTo,
        };
        let values = match (spec.variables, spec.expand) {
            (None, false) => Replaced::Nothing,
            (variables, _) if variables.is_none_or(RecipientVariables::is_ascii) && spec.recipients.is_ascii() => {
                Replaced::ByAscii
            }
            _ => Replaced::ByAnything,
        };
        let (content, header_bytes) = compose::message(spec.parts, &author(spec.from, spec.host), values)?;
        let replaced = spec.expand.then_some(spec.variables);
        let mut template =
            Template::of_contents(id, head, &[(content.into(), header_bytes)], replaced, spec.recipients)?;
        if matches!(template.head, Head::WithTo) && !spec.recipients.is_ascii() {
            (template.is_8bit, template.is_8bit_header) = (true, true);
        }
        Ok(template)
    }

    /// With contents as they are sent, and the octets of their headers. Variables are replaced in them if `replaced`.
    fn of_contents(
        id: MessageId,
        head: Head,
        contents: &[(Bytes, usize)],
        replaced: Option<Option<&RecipientVariables>>,
        recipients: &Recipients,
    ) -> Result<Template, MessageError> {
        let vocabulary = if replaced.is_some() { Vocabulary::Recipient } else { Vocabulary::Nothing };
        let (mut is_8bit, mut is_8bit_header, mut expanded_bytes_max) = (false, false, 0);
        let mut expansions = Vec::with_capacity(contents.len());
        for (content, header_bytes) in contents {
            let (header, body) = content.split_at(*header_bytes);
            let expansion = Expansion::new(content, vocabulary, replaced.flatten(), Escape::None)
                .map_err(|_| MessageError::TooManyPlaces)?;
            let has_8bit_values =
                expansion.has_8bit_values() || (expansion.needs_recipient() && !recipients.is_ascii());
            let is_in_header = memchr::memmem::find(header, b"%recipient").is_some();
            is_8bit_header |= !header.is_ascii() || (has_8bit_values && is_in_header);
            is_8bit |= is_8bit_header || !body.is_ascii() || has_8bit_values;
            if expansion.has_variables() {
                let longest_recipient = recipients.address_bytes(Escape::None).1;
                let (bytes, line) = expansion.longest(longest_recipient, MAILBOX_BYTES_MAX, id.len());
                if bytes - expansion.text_bytes() > EXPANSION_BYTES_MAX {
                    return Err(MessageError::ExpansionTooLarge { bytes: bytes - expansion.text_bytes() });
                }
                // Of a line, its CR was counted, too.
                let line = line.saturating_sub(1);
                if line > LINE_BYTES_MAX as u64 {
                    return Err(MessageError::ExpandedLineTooLong { bytes: line });
                }
                if bytes > MESSAGE_BYTES_MAX {
                    return Err(MessageError::TooLarge { bytes });
                }
                expanded_bytes_max = bytes.max(expanded_bytes_max);
            }
            expansions.push(expansion);
        }
        let template = Template {
            id_begin: id_begin(&id),
            id,
            head,
            from: [].into(),
            recipients: recipients.clone(),
            body: Body::Given(expansions.into()),
            stamp: None,
            is_8bit,
            is_8bit_header,
            expanded_bytes_max,
        };
        let longest = contents.iter().map(|(content, _)| content.len() as u64).max().unwrap_or_default();
        let bytes = template.head_bytes().1 + longest;
        if bytes > MESSAGE_BYTES_MAX { Err(MessageError::TooLarge { bytes }) } else { Ok(template) }
    }

    /// Lets each message begin with a stamp (`X-Timecop-Audit`) that names `run` and is signed by `signer`. To be called
    /// before dot-stuffing.
    ///
    /// # Errors
    ///
    /// When the least size of generated messages has no room for it, or it makes a message larger than
    /// [`MESSAGE_BYTES_MAX`].
    pub fn stamped(mut self, run: u64, signer: Signer) -> Result<Template, MessageError> {
        let (shortest, longest) = self.head_bytes();
        let (shortest, longest) = (shortest + FIELD_BYTES as u64, longest + FIELD_BYTES as u64);
        match &self.body {
            Body::Generated { sizes, header_bytes, .. } => {
                let least = longest + *header_bytes as u64 + generate::TAIL.len() as u64;
                if sizes.least() < least {
                    return Err(MessageError::TooSmall { bytes: sizes.least(), least });
                }
            }
            Body::Given(contents) => {
                let bytes = longest + contents.iter().map(Expansion::text_bytes).max().unwrap_or_default();
                if bytes > MESSAGE_BYTES_MAX {
                    return Err(MessageError::TooLarge { bytes });
                }
            }
        }
        self.stamp = Some(Box::new(Stamping::new(run, signer, &self.body, (shortest, longest))));
        Ok(self)
    }

    /// Replaces the content by what `stuff` makes of it, once and for all messages: for SMTP, dot-stuffing. The content
    /// begins at the beginning of a line, and no line of a head begins with a dot. Where a variable begins a line, it is
    /// seen to when the message is written.
    ///
    /// Generated content has no line that begins with a dot and is left as it is: it is yet to be cut.
    pub fn map_content(mut self, stuff: impl Fn(&[u8]) -> Vec<u8>) -> Template {
        match &mut self.body {
            Body::Given(contents) => contents.iter_mut().for_each(|content| content.stuff(&stuff)),
            Body::Generated { content, .. } => {
                debug_assert!(memchr::memmem::find(content, b"\n.").is_none(), "a line begins with a dot");
            }
        }
        self
    }

    /// Octets of message `sequence` with its header and final CRLF, before dot-stuffing: what the SIZE parameter of
    /// `MAIL FROM` declares.
    #[inline]
    pub fn bytes(&self, sequence: u64) -> u64 {
        match &self.body {
            Body::Generated { sizes, .. } => sizes.of(sequence),
            Body::Given(contents) => {
                let content = &contents[(sequence % contents.len() as u64) as usize];
                let mut head = self.stamp_bytes();
                self.each_head_part(sequence, DATE_FIRST, |part| head += part.len() as u64);
                if !content.has_variables() {
                    return head + content.text_bytes();
                }
                let mut buffer = AddressBuffer::new();
                head + content.bytes(&self.values(sequence, DATE_FIRST, &mut buffer))
            }
        }
    }

    /// The sizes of generated messages.
    pub fn sizes(&self) -> Option<&Sizes> {
        match &self.body {
            Body::Generated { sizes, .. } => Some(sizes),
            Body::Given(_) => None,
        }
    }

    /// Octets that no message's content has more of once its variables are replaced; `None` without variables.
    pub fn expanded_bytes_max(&self) -> Option<u64> {
        Some(self.expanded_bytes_max).filter(|bytes| *bytes > 0)
    }

    /// Whether it has octets above 127 anywhere: it needs 8BITMIME (RFC 6152).
    pub fn is_8bit(&self) -> bool {
        self.is_8bit
    }

    /// Whether it has octets above 127 in its header: it needs SMTPUTF8 (RFC 6531).
    pub fn is_8bit_header(&self) -> bool {
        self.is_8bit_header
    }

    /// Whether `text` stands anywhere in what all messages share.
    pub(super) fn contains(&self, text: &[u8]) -> bool {
        let finder = memchr::memmem::Finder::new(text);
        match &self.body {
            Body::Generated { content, .. } => finder.find(content).is_some(),
            Body::Given(contents) => contents.iter().flat_map(Expansion::texts).any(|text| finder.find(text).is_some()),
        }
    }

    /// Appends message `sequence`, dated `wall`, to `out`. A content above [`COPY_BYTES_MAX`] is referred to and not
    /// copied. Allocates nothing but room in `out`.
    #[inline]
    pub fn write(&self, sequence: u64, wall: WallTime, dates: &mut DateCache, out: &mut Outgoing) {
        let before = out.len();
        let stamp_at = self.stamp.as_ref().map(|_| Stamping::leave_room(out));
        let date = dates.text(wall);
        self.each_head_part(sequence, date, |part| out.push(part));
        let room = match &self.body {
            Body::Given(contents) => {
                let content = &contents[(sequence % contents.len() as u64) as usize];
                let mut buffer = AddressBuffer::new();
                content.write(&self.values(sequence, date, &mut buffer), out);
                0
            }
            Body::Generated { sizes, header_bytes, content } => {
                let room = sizes.of(sequence) as usize - (out.len() - before);
                let (text, tail) = generate::cut(room - header_bytes);
                let end = header_bytes + text;
                if end > COPY_BYTES_MAX {
                    out.push_shared(content.slice(..end));
                } else {
                    out.push(&content[..end]);
                }
                out.push(tail);
                room - header_bytes
            }
        };
        if let (Some(stamp), Some(at)) = (&self.stamp, stamp_at) {
            stamp.write(&self.body, sequence, room, wall, out, at);
        }
    }

    #[inline]
    fn stamp_bytes(&self) -> u64 {
        self.stamp.as_ref().map_or(0, |_| FIELD_BYTES as u64)
    }

    #[inline]
    fn values<'a>(&'a self, sequence: u64, date: &'a [u8; DATE_BYTES], buffer: &'a mut AddressBuffer) -> Values<'a> {
        Values { sequence, recipient: self.recipients.of(sequence, 0, buffer), from: &self.from, id: &self.id, date }
    }

    /// Gives the parts of message `sequence`'s head, one after another.
    #[inline]
    fn each_head_part(&self, sequence: u64, date: &[u8; DATE_BYTES], mut push: impl FnMut(&[u8])) {
        if let Head::Nothing = self.head {
            return;
        }
        push(self.id_begin);
        self.id.each_part(sequence, &mut push);
        push(DATE_BEGIN);
        push(date);
        push(b"\r\n");
        match &self.head {
            Head::Nothing | Head::Fresh => {}
            Head::WithPlaceholder => push(TO_RECIPIENT),
            Head::WithTo => each_to_part(&self.recipients, sequence, push),
            Head::WithVariables(members) => {
                push(TO_RECIPIENT);
                push(FIELD_BEGIN);
                self.recipients.each_member(sequence, members, b",", &mut push);
                push(b"}\r\n");
            }
        }
    }

    /// Octets that no head of a message with To is shorter than, and none is longer than. Exact with one recipient a
    /// message.
    fn head_bytes(&self) -> (u64, u64) {
        let fresh = self.id_begin.len() + self.id.len() + DATE_BEGIN.len() + DATE_BYTES + b"\r\n".len();
        let (shortest, longest) = self.recipients.address_bytes(Escape::None);
        let to = |address: usize| match b"To: <>".len() + address <= LINE_BYTES_GOOD {
            true => b"To: <>\r\n".len() + address,
            false => b"To:\r\n <>\r\n".len() + address,
        };
        // Those that follow the first recipient fill its line at most.
        let filled = if self.recipients.per_message() == 1 { 0 } else { LINE_BYTES_GOOD + b"\r\n".len() };
        let (shortest, longest) = match &self.head {
            Head::Nothing => (0, 0),
            Head::Fresh => (fresh, fresh),
            Head::WithPlaceholder => (fresh + TO_RECIPIENT.len(), fresh + TO_RECIPIENT.len()),
            Head::WithTo => (fresh + to(shortest), fresh + to(longest).max(filled)),
            Head::WithVariables(members) => {
                let member = members.values().map(|member| member.len() + 1).max().unwrap_or_default();
                let begin = fresh + TO_RECIPIENT.len() + FIELD_BEGIN.len() + b"}\r\n".len();
                (begin, begin + member * self.recipients.per_message() as usize)
            }
        };
        (shortest as u64 + self.stamp_bytes(), longest as u64 + self.stamp_bytes())
    }
}

impl Head {
    /// That of a message with variables that the server replaces.
    fn of_variables(variables: &RecipientVariables, beside: bool) -> Result<Head, MessageError> {
        match beside {
            true => Ok(Head::WithPlaceholder),
            false => Ok(Head::WithVariables(variables.folded_members()?)),
        }
    }
}

/// The To field: the first recipient, and those after it that fit into the same line.
#[inline]
fn each_to_part(recipients: &Recipients, sequence: u64, mut push: impl FnMut(&[u8])) {
    let mut buffer = AddressBuffer::new();
    let first = recipients.of(sequence, 0, &mut buffer);
    let mut line = b"To: <>".len() + first.len();
    push(if line <= LINE_BYTES_GOOD { b"To: <" } else { b"To:\r\n <" });
    push(first);
    for j in 1..recipients.per_message() {
        let recipient = recipients.of(sequence, j, &mut buffer);
        line += b", <>".len() + recipient.len();
        if line > LINE_BYTES_GOOD {
            break;
        }
        push(b">, <");
        push(recipient);
    }
    push(b">\r\n");
}

/// The beginning of the Message-ID field, which is folded when it would be too long for a line.
fn id_begin(id: &MessageId) -> &'static [u8] {
    let line = b"Message-ID: <>".len() + id.len();
    if line <= LINE_BYTES_GOOD { b"Message-ID: <" } else { b"Message-ID:\r\n <" }
}

#[cfg(test)]
mod tests;
