//! A message put together from a subject, texts and attachments (MIME: RFC 2045 to 2047, RFC 2231).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::MessageError;
use super::draw::draw;
use super::generate::SUBJECT;
use super::template::{LINE_BYTES_GOOD, LINE_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Most attachments of a message.
pub const ATTACHMENTS_MAX: usize = 100;
/// Characters of a line of base64 (RFC 2045, 6.8).
const BASE64_LINE_CHARS: usize = 76;
/// Octets of text in one encoded word, which has at most 75 characters (RFC 2047, 2).
const ENCODED_WORD_BYTES: usize = 45;

/// What a message is put together from. It has a text, or HTML, or both as alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The subject; `None` for one that says what the message is. Without control characters.
    pub subject: Option<String>,
    /// Plain text.
    pub text: Option<String>,
    /// HTML.
    pub html: Option<String>,
    /// Files, at most [`ATTACHMENTS_MAX`].
    pub attachments: Vec<Attachment>,
}

/// A file that goes along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, without folders and control characters.
    pub name: String,
    /// Its content.
    pub content: Bytes,
}

impl Attachment {
    /// Its media type, by the ending of its name.
    pub fn content_type(&self) -> &'static str {
        let ending = self.name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
        TYPES.iter().find(|(known, _)| *known == ending).map_or("application/octet-stream", |(_, of)| of)
    }
}

/// Media types of what is often sent, by the ending of the file's name (IANA's registry).
const TYPES: &[(&str, &str)] = &[
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ics", "text/calendar"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain"),
    ("webp", "image/webp"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
];

/// The From field.
pub(super) fn from_field(author: &str) -> String {
    let fold = if b"From: <>".len() + author.len() <= LINE_BYTES_GOOD { " " } else { "\r\n " };
    format!("From:{fold}<{author}>\r\n")
}

/// The Subject field; in encoded words if it is not short ASCII (RFC 2047).
pub(super) fn subject_field(subject: &str) -> String {
    let is_plain =
        subject.is_ascii() && b"Subject: ".len() + subject.len() <= LINE_BYTES_MAX && !subject.contains("=?");
    match is_plain {
        true => format!("Subject: {subject}\r\n"),
        false => format!("Subject: {}\r\n", encoded_words(subject)),
    }
}

/// The text in encoded words, each of which has whole characters and stands on a line of its own.
fn encoded_words(text: &str) -> String {
    let (mut words, mut word) = (Vec::new(), String::new());
    for c in text.chars() {
        if word.len() + c.len_utf8() > ENCODED_WORD_BYTES {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let words: Vec<String> = words.iter().map(|word| format!("=?utf-8?B?{}?=", BASE64.encode(word))).collect();
    words.join("\r\n ")
}

/// What variables of a message are replaced by, here or by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    /// There are none.
    Nothing,
    /// ASCII alone.
    ByAscii,
    /// Any text.
    ByAnything,
}

impl Replaced {
    /// Whether anything is replaced in `text`.
    fn is_in(self, text: &str) -> bool {
        self != Replaced::Nothing && text.contains("%recipient")
    }
}

/// The message without its Message-ID, Date and To, and the octets of its header. Texts with variables are not encoded, so
/// that the variables can be found.
pub(super) fn message(parts: &Parts, author: &str, replaced: Replaced) -> Result<(Vec<u8>, usize), MessageError> {
    let attached: u64 = parts.attachments.iter().map(|attachment| attachment.content.len() as u64).sum();
    if attached > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLarge { bytes: attached });
    }
    let mut out = from_field(author).into_bytes();
    let subject = parts.subject.as_deref().unwrap_or(SUBJECT);
    match replaced.is_in(subject) {
        // The values are put in as they are; what is beyond ASCII needs SMTPUTF8 (RFC 6532).
        true => out.extend_from_slice(format!("Subject: {subject}\r\n").as_bytes()),
        false => out.extend_from_slice(subject_field(subject).as_bytes()),
    }
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    let texts: Vec<(&str, &str)> = [("plain", &parts.text), ("html", &parts.html)]
        .into_iter()
        .filter_map(|(subtype, text)| Some((subtype, text.as_deref()?)))
        .collect();
    let mixed = (!parts.attachments.is_empty()).then(|| boundary(parts, 1));
    if let Some(mixed) = &mixed {
        push_multipart(&mut out, "mixed", mixed);
    }
    match texts[..] {
        [(subtype, text)] => push_text(&mut out, subtype, text, replaced)?,
        _ => {
            let alternative = boundary(parts, 2);
            push_multipart(&mut out, "alternative", &alternative);
            for (i, (subtype, text)) in texts.into_iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(format!("\r\n--{alternative}\r\n").as_bytes());
                }
                push_text(&mut out, subtype, text, replaced)?;
            }
            out.extend_from_slice(format!("\r\n--{alternative}--\r\n").as_bytes());
        }
    }
    // The CRLF before a delimiter belongs to it, so that the text keeps its own (RFC 2046, 5.1.1).
    if let Some(mixed) = &mixed {
        for attachment in &parts.attachments {
            out.extend_from_slice(format!("\r\n--{mixed}\r\n").as_bytes());
            push_attachment(&mut out, attachment);
        }
        out.extend_from_slice(format!("\r\n--{mixed}--\r\n").as_bytes());
    }
    let header_bytes = memchr::memmem::find(&out, b"\r\n\r\n").map_or(out.len(), |at| at + 2);
    match out.len() as u64 > MESSAGE_BYTES_MAX {
        true => Err(MessageError::TooLarge { bytes: out.len() as u64 }),
        false => Ok((out, header_bytes)),
    }
}

/// The header field of a multipart, and the delimiter before its first part.
fn push_multipart(out: &mut Vec<u8>, subtype: &str, boundary: &str) {
    out.extend_from_slice(format!("Content-Type: multipart/{subtype};\r\n boundary=\"{boundary}\"\r\n").as_bytes());
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
}

/// A text with its header fields; it ends in CRLF.
fn push_text(out: &mut Vec<u8>, subtype: &str, text: &str, replaced: Replaced) -> Result<(), MessageError> {
    let text = with_crlf(text);
    let fits = text.split("\r\n").all(|line| line.len() <= LINE_BYTES_MAX && !line.contains(['\r', '\0']));
    let has_variables = replaced.is_in(&text);
    let is_ascii = text.is_ascii() && !(has_variables && replaced == Replaced::ByAnything);
    let (charset, encoding) = match (fits, is_ascii) {
        (true, true) => ("us-ascii", "7bit"),
        (true, false) if has_variables => ("utf-8", "8bit"),
        (false, _) if has_variables => return Err(MessageError::EncodedVariables),
        // Such a text goes to any server, also to one without 8BITMIME.
        (_, true) => ("us-ascii", "base64"),
        (_, false) => ("utf-8", "base64"),
    };
    out.extend_from_slice(format!("Content-Type: text/{subtype}; charset={charset}\r\n").as_bytes());
    out.extend_from_slice(format!("Content-Transfer-Encoding: {encoding}\r\n").as_bytes());
    out.extend_from_slice(b"\r\n");
    match encoding {
        "7bit" | "8bit" => out.extend_from_slice(text.as_bytes()),
        _ => push_base64(out, text.as_bytes()),
    }
    Ok(())
}

/// Bare line feeds become CRLF, and the last line ends in one.
fn with_crlf(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32 + 2);
    for line in text.split_inclusive('\n') {
        out.push_str(line.strip_suffix("\r\n").or_else(|| line.strip_suffix('\n')).unwrap_or(line));
        out.push_str("\r\n");
    }
    if out.is_empty() {
        out.push_str("\r\n");
    }
    out
}

fn push_attachment(out: &mut Vec<u8>, attachment: &Attachment) {
    let (content_type, name) = (attachment.content_type(), parameter("filename", &attachment.name));
    let fields = format!(
        "Content-Type: {content_type}\r\nContent-Disposition: attachment;\r\n {name}\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n"
    );
    out.extend_from_slice(fields.as_bytes());
    push_base64(out, &attachment.content);
}

/// A parameter of a header field: quoted, or if it cannot be, percent-encoded and in pieces (RFC 2231, 3 and 4).
fn parameter(name: &str, value: &str) -> String {
    const PIECE_CHARS: usize = 60;
    if value.bytes().all(|c| c == b' ' || c.is_ascii_graphic()) && value.len() <= PIECE_CHARS {
        return format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let encode = |octet: u8| match octet {
        b'-' | b'.' | b'_' => char::from(octet).to_string(),
        _ if octet.is_ascii_alphanumeric() => char::from(octet).to_string(),
        _ => format!("%{octet:02X}"),
    };
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    for encoded in value.bytes().map(encode) {
        if piece.len() + encoded.len() > PIECE_CHARS {
            pieces.push(std::mem::take(&mut piece));
        }
        piece.push_str(&encoded);
    }
    pieces.push(piece);
    if let [whole] = &pieces[..] {
        return format!("{name}*=utf-8''{whole}");
    }
    let numbered = pieces.iter().enumerate();
    let charset = |i| if i == 0 { "utf-8''" } else { "" };
    numbered.map(|(i, piece)| format!("{name}*{i}*={}{piece}", charset(i))).collect::<Vec<_>>().join(";\r\n ")
}

fn push_base64(out: &mut Vec<u8>, content: &[u8]) {
    for line in content.chunks(BASE64_LINE_CHARS / 4 * 3) {
        out.extend_from_slice(BASE64.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// A boundary that no line of the texts begins with. Attachments are in base64, which has no hyphens.
fn boundary(parts: &Parts, stream: u64) -> String {
    let texts = [parts.text.as_deref(), parts.html.as_deref()];
    free_boundary(stream, |boundary| texts.iter().flatten().any(|text| text.contains(boundary)))
}

/// The first of a sequence of boundaries that does not occur.
pub(super) fn free_boundary(stream: u64, occurs: impl Fn(&str) -> bool) -> String {
    let boundary = |i| format!("=_timecop_{:016x}", draw(stream, i));
    (0..).map(boundary).find(|boundary| !occurs(boundary)).expect("a text of finite length has not all of them")
}
