//! Forms as they arrive in requests: application/x-www-form-urlencoded (WHATWG URL §5.1) and multipart/form-data
//! (RFC 7578), read piece by piece. Nothing is kept but what a piece ends in the middle of.

mod multipart;
mod urlencoded;

use thiserror::Error;

use self::multipart::Multipart;
use self::urlencoded::Urlencoded;

/// Octets of a field's name.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Octets of the header fields of one part of a multipart form.
pub const PART_HEAD_BYTES_MAX: usize = 4_096;

/// Octets of the boundary between parts (RFC 2046 §5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;

/// Why something is no form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FormError {
    /// Neither of the two content types.
    #[error("expected content of the type application/x-www-form-urlencoded or multipart/form-data")]
    ContentType,
    /// A multipart form without a boundary, or with one that cannot be.
    #[error("expected a boundary of 1 to {BOUNDARY_BYTES_MAX} octets in Content-Type")]
    Boundary,
    /// No line of the boundary where one must be, or none at the end.
    #[error("expected parts between lines of the boundary that Content-Type names, with a last one at the end")]
    Parts,
    /// A part's header fields are none, or name no form field.
    #[error("expected Content-Disposition: form-data with a name at the head of each part")]
    PartHead,
    /// A name or a part's head beyond its bounds.
    #[error("expected names of at most {NAME_BYTES_MAX} octets and part heads of at most {PART_HEAD_BYTES_MAX}")]
    TooLong,
}

/// What of a field's value is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Content,
    /// How long it is.
    Length,
}

/// Takes the fields of a form, in their order.
pub trait Fields {
    /// A field begins. `is_file`: it has a file name.
    fn begin(&mut self, name: &[u8], is_file: bool) -> Wanted;

    /// The next octets of its value, decoded, where they are wanted.
    fn content(&mut self, octets: &[u8]);

    /// So many octets more of its value, where its length alone is wanted. That of urlencoded text with a `%` that
    /// encodes nothing is taken for shorter than it is.
    fn length(&mut self, octets: u64);

    /// It ends.
    fn end(&mut self);
}

/// Reads one form.
#[derive(Debug)]
pub struct FormReader {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Urlencoded(Urlencoded),
    Multipart(Box<Multipart>),
}

impl FormReader {
    /// A reader for content of this type.
    pub fn new(content_type: &[u8]) -> Result<FormReader, FormError> {
        let (kind, parameters) = match memchr::memchr(b';', content_type) {
            Some(at) => (&content_type[..at], &content_type[at + 1..]),
            None => (content_type, &[][..]),
        };
        let kind = kind.trim_ascii();
        if kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            return Ok(FormReader { kind: Kind::Urlencoded(Urlencoded::default()) });
        }
        if !kind.eq_ignore_ascii_case(b"multipart/form-data") {
            return Err(FormError::ContentType);
        }
        let mut boundary = Vec::new();
        parameter(parameters, b"boundary", &mut boundary).ok_or(FormError::Boundary)?;
        // A CR or LF in it would be one that the search for it cannot go by; a space cannot end it.
        let is_right = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
            && boundary.iter().all(|octet| matches!(octet, b' '..=b'~'))
            && !boundary.ends_with(b" ");
        match is_right {
            true => Ok(FormReader { kind: Kind::Multipart(Box::new(Multipart::new(&boundary))) }),
            false => Err(FormError::Boundary),
        }
    }

    /// The next octets of the form.
    #[inline]
    pub fn read(&mut self, octets: &[u8], fields: &mut impl Fields) -> Result<(), FormError> {
        match &mut self.kind {
            Kind::Urlencoded(reader) => reader.read(octets, fields),
            Kind::Multipart(reader) => reader.read(octets, fields),
        }
    }

    /// The form is at its end.
    pub fn end(&mut self, fields: &mut impl Fields) -> Result<(), FormError> {
        match &mut self.kind {
            Kind::Urlencoded(reader) => reader.end(fields),
            Kind::Multipart(reader) => reader.end(),
        }
    }
}

/// Finds `name=value` or `name="value"` among parameters that semicolons divide (RFC 9110 §5.6.6), and appends the value.
fn parameter(mut text: &[u8], name: &[u8], value: &mut Vec<u8>) -> Option<()> {
    while !text.is_empty() {
        let equals = memchr::memchr2(b'=', b';', text)?;
        let found = text[..equals].trim_ascii().eq_ignore_ascii_case(name);
        if text[equals] == b';' {
            text = &text[equals + 1..];
            continue;
        }
        let rest = text[equals + 1..].trim_ascii_start();
        let end = match rest {
            [b'"', quoted @ ..] => {
                let mut at = 0;
                loop {
                    match *quoted.get(at)? {
                        b'"' => break at + 2,
                        // Browsers escape a quote as %22 and leave a backslash alone; others escape by backslash.
                        b'\\' if matches!(quoted.get(at + 1), Some(b'"' | b'\\')) => at += 1,
                        _ => {}
                    }
                    if found {
                        value.push(quoted[at]);
                    }
                    at += 1;
                }
            }
            _ => {
                let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
                if found {
                    value.extend_from_slice(rest[..end].trim_ascii());
                }
                end
            }
        };
        if found {
            return Some(());
        }
        let next = memchr::memchr(b';', &rest[end..])?;
        text = &rest[end + next + 1..];
    }
    None
}

#[cfg(test)]
mod tests;
