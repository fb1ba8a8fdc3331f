//! What a job sends, and to whom.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::http::JobType;
use super::{MESSAGE_BYTES, RECIPIENT, RawSpec, SpecError};
use crate::message::{
    ATTACHMENTS_MAX, EXPANSION_BYTES_MAX, Entry, MESSAGE_BYTES_MAX, Parts, RECIPIENTS_PER_MESSAGE_MAX,
    RecipientVariables, Recipients, Sizes, WeightedSize,
};

/// Most messages that take turns.
pub const MESSAGES_GIVEN_MAX: usize = 10_000;
/// Most octets of them in all: 1 GiB.
pub const MESSAGES_GIVEN_BYTES_MAX: u64 = 1 << 30;
/// Most characters of a subject.
pub const SUBJECT_CHARS_MAX: usize = 4_096;

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Generated messages.
    Generated {
        /// Their sizes, exactly.
        sizes: Sizes,
        /// Their subject; `None` for one that says what they are.
        subject: Option<String>,
    },
    /// A message of a subject, texts and attachments.
    Parts(Arc<Parts>),
    /// Given messages, which take turns.
    Given {
        /// At least one.
        messages: Arc<[Bytes]>,
        /// They are sent octet for octet.
        verbatim: bool,
    },
}

impl Content {
    /// Generated messages of exactly so many octets.
    pub fn generated(bytes: u64) -> Content {
        Content::Generated { sizes: Sizes::exactly(bytes), subject: None }
    }

    /// The field that asks for the largest message, and that one's octets before it is encoded in any way.
    pub fn largest(&self) -> (&'static str, u64) {
        match self {
            Content::Generated { sizes, .. } => ("msg_size", sizes.greatest()),
            Content::Parts(parts) => {
                let texts = [&parts.text, &parts.html].into_iter().flatten().map(String::len);
                let attached = parts.attachments.iter().map(|attachment| attachment.content.len());
                (if parts.text.is_some() { "text" } else { "html" }, texts.chain(attached).sum::<usize>() as u64)
            }
            Content::Given { messages, .. } => {
                ("body", messages.iter().map(|message| message.len() as u64).max().unwrap_or_default())
            }
        }
    }

    /// The fields of a report's `spec` that say what is sent: content appears as its size.
    pub(super) fn describe(&self) -> [(&'static str, Value); 8] {
        let (mut msg_size, mut mix, mut body, mut bodies) = (None, None, None, None);
        let (mut subject, mut text, mut html, mut attachments) = (None, None, None, None);
        match self {
            Content::Generated { sizes, subject: asked } => {
                subject = asked.clone();
                let size = |size: &WeightedSize| json!({ "bytes": size.bytes, "weight": size.weight });
                match sizes.is_mix() {
                    true => mix = Some(sizes.list().iter().map(size).collect::<Vec<_>>()),
                    false => msg_size = Some(sizes.greatest()),
                }
            }
            Content::Parts(parts) => {
                subject = parts.subject.clone();
                text = parts.text.as_ref().map(String::len);
                html = parts.html.as_ref().map(String::len);
                attachments =
                    Some(parts.attachments.iter().map(|attachment| attachment.content.len()).collect::<Vec<_>>());
            }
            Content::Given { messages, .. } => {
                body = Some(messages.iter().map(|message| message.len() as u64).sum::<u64>());
                bodies = Some(messages.len());
            }
        }
        [
            ("msg_size", json!(msg_size)),
            ("msg_size_mix", json!(mix)),
            ("body_bytes", json!(body)),
            ("bodies", json!(bodies)),
            ("subject", json!(subject)),
            ("text_bytes", json!(text)),
            ("html_bytes", json!(html)),
            ("attachments_bytes", json!(attachments)),
        ]
    }
}

/// What differs from recipient to recipient, and who sees to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    pub variables: Option<Arc<RecipientVariables>>,
    pub expand: bool,
    pub note: Option<String>,
}

pub(super) fn content(raw: &mut RawSpec, seed: u64) -> Result<Content, SpecError> {
    let is_given = raw.body.is_some() || !raw.bodies.is_empty();
    let has_text = raw.text.is_some() || raw.html.is_some();
    let is_sized = raw.msg_size.is_some() || raw.msg_size_mix.is_some();
    match (is_given, has_text) {
        (true, _) if is_sized => return Err(SpecError::new("msg_size", "either `msg_size` or `body`", "both")),
        (true, true) => return Err(SpecError::new("text", "either `text` and `html`, or `body`", "both")),
        (true, _) if raw.subject.is_some() => {
            return Err(SpecError::new("subject", "none beside `body`, which has its own", "one"));
        }
        (_, true) if is_sized => {
            return Err(SpecError::new("msg_size", "either `msg_size`, or `text` and `html`", "both"));
        }
        (_, false) if !raw.attachments.is_empty() => {
            return Err(SpecError::new("attach", "`text` or `html` beside it", "neither"));
        }
        (false, _) if raw.verbatim == Some(true) => {
            return Err(SpecError::new("verbatim", "a `body` beside it", "none"));
        }
        _ => {}
    }
    if let Some(subject) = &raw.subject
        && (subject.contains(char::is_control) || subject.chars().count() > SUBJECT_CHARS_MAX)
    {
        let expected = format!("at most {SUBJECT_CHARS_MAX} characters without control characters");
        let got = subject.chars().take(60).flat_map(char::escape_debug).collect::<String>();
        return Err(SpecError::new("subject", expected, got));
    }
    if is_given {
        return given(raw);
    }
    if has_text {
        return parts(raw);
    }
    let sizes = match (raw.msg_size, &raw.msg_size_mix) {
        (Some(_), Some(_)) => return Err(SpecError::new("msg_size", "either one size or a mix", "both")),
        (_, Some(mix)) => Sizes::mix(mix, seed).map_err(|error| SpecError::of("msg_size", error))?,
        (size, None) => {
            let bytes = size.unwrap_or(MESSAGE_BYTES);
            if bytes > MESSAGE_BYTES_MAX {
                return Err(SpecError::new("msg_size", format!("at most {MESSAGE_BYTES_MAX} octets"), bytes));
            }
            Sizes::exactly(bytes)
        }
    };
    Ok(Content::Generated { sizes, subject: raw.subject.take() })
}

fn given(raw: &mut RawSpec) -> Result<Content, SpecError> {
    let mut messages = std::mem::take(&mut raw.bodies);
    messages.splice(0..0, raw.body.take().map(Bytes::from));
    if messages.len() > MESSAGES_GIVEN_MAX {
        return Err(SpecError::new("body", format!("at most {MESSAGES_GIVEN_MAX} messages"), messages.len()));
    }
    let bytes: u64 = messages.iter().map(|message| message.len() as u64).sum();
    if bytes > MESSAGES_GIVEN_BYTES_MAX {
        return Err(SpecError::new("body", format!("at most {MESSAGES_GIVEN_BYTES_MAX} octets in all"), bytes));
    }
    Ok(Content::Given { messages: messages.into(), verbatim: raw.verbatim.unwrap_or(false) })
}

fn parts(raw: &mut RawSpec) -> Result<Content, SpecError> {
    for (field, text) in [("text", &raw.text), ("html", &raw.html)] {
        if let Some(text) = text
            && text.contains('\0')
        {
            return Err(SpecError::new(field, "text without NUL", "one"));
        }
    }
    if raw.attachments.len() > ATTACHMENTS_MAX {
        return Err(SpecError::new("attach", format!("at most {ATTACHMENTS_MAX} files"), raw.attachments.len()));
    }
    if let Some(attachment) = raw.attachments.iter().find(|attachment| attachment.name.contains(char::is_control)) {
        let expected = "files whose names have no control characters";
        return Err(SpecError::new("attach", expected, format!("{:?}", attachment.name)));
    }
    Ok(Content::Parts(Arc::new(Parts {
        subject: raw.subject.take(),
        text: raw.text.take(),
        html: raw.html.take(),
        attachments: std::mem::take(&mut raw.attachments),
    })))
}

pub(super) fn variables(raw: &RawSpec, content: &Content, per_message: u32) -> Result<Variables, SpecError> {
    let expand = raw.expand.unwrap_or(false);
    // The data of http.raw stands in no field of `content`, and its variables are always replaced.
    let is_given = raw.job_type == JobType::HttpRaw || !matches!(content, Content::Generated { .. });
    let note = "recipient_variables are ignored, because the messages are generated: give a body, text or html";
    let variables = match &raw.recipient_variables {
        None => None,
        Some(_) if !is_given => return Ok(Variables { note: Some(note.to_owned()), ..Variables::default() }),
        Some(json) => {
            let variables = RecipientVariables::parse(json);
            let variables = variables.map_err(|error| SpecError::of("recipient_variables", error))?;
            let bytes = variables.bytes_of(per_message);
            if bytes as u64 > EXPANSION_BYTES_MAX {
                let expected = format!("at most {EXPANSION_BYTES_MAX} octets for the recipients of one message");
                return Err(SpecError::new("recipient_variables", expected, bytes));
            }
            Some(Arc::new(variables))
        }
    };
    if let Content::Given { verbatim: true, .. } = content
        && (expand || variables.is_some())
    {
        let field = if expand { "expand" } else { "recipient_variables" };
        return Err(SpecError::new(field, "none with `verbatim`, which changes nothing", "both"));
    }
    match expand {
        true if !is_given => Err(SpecError::new("expand", "a `body`, `text` or `html` beside it", "none")),
        true if per_message > 1 => {
            let got = format!("{per_message}, of which all would get the first one's values");
            Err(SpecError::new("recipients_per_message", "1 with `expand`", got))
        }
        _ => Ok(Variables { variables, expand, note: None }),
    }
}

/// A note of recipients in whose messages `%recipient.NAME%` will stay, because they have no variables.
pub(super) fn unreplaced(
    raw: &RawSpec,
    content: &Content,
    variables: &Variables,
    recipients: &Recipients,
) -> Option<String> {
    const PLACEHOLDER: &[u8] = b"%recipient.";
    let has = |text: &[u8]| memchr::memmem::find(text, PLACEHOLDER).is_some();
    let is_raw = raw.job_type == JobType::HttpRaw;
    let values = variables.variables.as_deref();
    // Without either, percent signs mean nothing.
    if values.is_none() && !variables.expand && !is_raw {
        return None;
    }
    let has_placeholders = match content {
        _ if is_raw => raw.http.data.as_deref().is_some_and(has),
        Content::Generated { .. } => false,
        Content::Parts(parts) => {
            [&parts.subject, &parts.text, &parts.html].into_iter().flatten().any(|text| has(text.as_bytes()))
        }
        Content::Given { messages, .. } => messages.iter().any(|message| has(message)),
    };
    let without = if has_placeholders { recipients.count_without(values.unwrap_or(&Default::default())) } else { 0 };
    (without > 0).then(|| {
        let all = recipients.count();
        format!(
            "{without} of {all} recipients have no recipient variables: in their messages %recipient.NAME% stays as it is written"
        )
    })
}

pub(super) fn recipients(raw: &RawSpec, seed: u64) -> Result<Recipients, SpecError> {
    let given = if raw.recipients.is_empty() { &[RECIPIENT.to_owned()][..] } else { &raw.recipients };
    let list = given.iter().map(|to| Entry::parse(to)).collect::<Result<Vec<_>, _>>();
    let list = list.map_err(|error| SpecError::of("recipients", error))?;
    let per_message = raw.recipients_per_message.unwrap_or(1);
    if !(1..=RECIPIENTS_PER_MESSAGE_MAX).contains(&per_message) {
        let expected = format!("1 to {RECIPIENTS_PER_MESSAGE_MAX}");
        return Err(SpecError::new("recipients_per_message", expected, per_message));
    }
    let order = raw.recipient_order.unwrap_or_default();
    Recipients::of_entries(list, per_message, order, seed).map_err(|error| SpecError::of("recipients", error))
}
