//! Mail from a file: checked, and brought into the form in which mail travels.

use bytes::Bytes;

use super::template::LINE_BYTES_MAX;
use super::{MESSAGE_BYTES_MAX, MessageError};

/// What had to be changed in a message file. The report says so, since what was sent is not what was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    /// Lines that ended in a bare LF and now end in CRLF.
    pub bare_lf_lines: u64,
    /// Whether the last line had no end and got one.
    pub final_crlf_added: bool,
}

impl Conversion {
    /// Whether anything was changed, the Date and Message-ID fields aside.
    pub fn is_any(&self) -> bool {
        *self != Conversion::default()
    }

    /// Adds what had to be changed in another file.
    pub(super) fn add(&mut self, other: Conversion) {
        self.bare_lf_lines += other.bare_lf_lines;
        self.final_crlf_added |= other.final_crlf_added;
    }
}

/// A message file without the fields that are written anew, all lines ending in CRLF.
#[derive(Debug)]
pub(super) struct Given {
    pub content: Bytes,
    /// Octets of the content up to the empty line that ends the header; all of them if there is no body.
    pub header_bytes: usize,
    pub conversion: Conversion,
}

/// Beginnings of lines are quoted in errors up to this many octets.
const EXCERPT_BYTES_MAX: usize = 60;

/// Takes the fields of these names out, and mends line ends.
pub(super) fn convert(file: &[u8], replaced: &[&[u8]]) -> Result<Given, MessageError> {
    let mut content = Vec::with_capacity(file.len() + file.len() / 32 + 2);
    let mut conversion = Conversion::default();
    let mut header_bytes = None;
    let mut is_dropped = false;
    for (number, raw) in (1..).zip(file.split_inclusive(|&octet| octet == b'\n')) {
        let line = strip_end(raw, &mut conversion);
        check_line(line, number)?;
        if header_bytes.is_none() {
            match header_line(line, number)? {
                HeaderLine::Field { name } => {
                    is_dropped = replaced.iter().any(|replaced| name.eq_ignore_ascii_case(replaced))
                }
                HeaderLine::Continuation => {}
                HeaderLine::End => {
                    is_dropped = false;
                    header_bytes = Some(content.len());
                }
            }
        }
        if !is_dropped {
            content.extend_from_slice(line);
            content.extend_from_slice(b"\r\n");
        }
    }
    if file.is_empty() {
        return Err(MessageError::NoHeader { got: String::new() });
    }
    Ok(Given { header_bytes: header_bytes.unwrap_or(content.len()), content: content.into(), conversion })
}

/// A file that is to be sent as it is, which it must be fit for.
pub(super) fn verbatim(file: Bytes) -> Result<Given, MessageError> {
    let mut header_bytes = None;
    let mut begin = 0;
    for (number, raw) in (1..).zip(file.split_inclusive(|&octet| octet == b'\n')) {
        let line = raw.strip_suffix(b"\r\n").ok_or(MessageError::LineEnd { line: number })?;
        check_line(line, number)?;
        if line.is_empty() {
            header_bytes.get_or_insert(begin);
        }
        begin += raw.len();
    }
    if file.is_empty() {
        return Err(MessageError::NoHeader { got: String::new() });
    }
    if file.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLarge { bytes: file.len() as u64 });
    }
    let header_bytes = header_bytes.unwrap_or(file.len());
    Ok(Given { content: file, header_bytes, conversion: Conversion::default() })
}

/// The line without its end, and a note of an end that is not CRLF.
fn strip_end<'a>(raw: &'a [u8], conversion: &mut Conversion) -> &'a [u8] {
    if let Some(line) = raw.strip_suffix(b"\r\n") {
        return line;
    }
    match raw.strip_suffix(b"\n") {
        Some(line) => {
            conversion.bare_lf_lines += 1;
            line
        }
        None => {
            conversion.final_crlf_added = true;
            raw
        }
    }
}

fn check_line(line: &[u8], number: u64) -> Result<(), MessageError> {
    match memchr::memchr2(b'\r', 0, line).map(|at| line[at]) {
        Some(0) => Err(MessageError::Nul { line: number }),
        Some(_) => Err(MessageError::BareCr { line: number }),
        None if line.len() > LINE_BYTES_MAX => Err(MessageError::LineTooLong { line: number, bytes: line.len() }),
        None => Ok(()),
    }
}

enum HeaderLine<'a> {
    Field { name: &'a [u8] },
    Continuation,
    End,
}

fn header_line(line: &[u8], number: u64) -> Result<HeaderLine<'_>, MessageError> {
    let is_first = number == 1;
    match line.first() {
        None if !is_first => return Ok(HeaderLine::End),
        Some(b' ' | b'\t') if !is_first => return Ok(HeaderLine::Continuation),
        _ => {}
    }
    if let Some(name) = field_name(line) {
        return Ok(HeaderLine::Field { name });
    }
    let got = String::from_utf8_lossy(&line[..line.len().min(EXCERPT_BYTES_MAX)]).into_owned();
    Err(if is_first { MessageError::NoHeader { got } } else { MessageError::HeaderLine { line: number, got } })
}

/// The name of a header field: visible ASCII before a colon (RFC 5322, 2.2). Blanks between the two are obsolete, and
/// met in old mail (RFC 5322, 4.5).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let name = line[..memchr::memchr(b':', line)?].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(file: &[u8]) -> Result<Given, MessageError> {
        super::convert(file, &[b"Date", b"Message-ID"])
    }

    fn content(file: &str) -> String {
        String::from_utf8(convert(file.as_bytes()).unwrap().content.to_vec()).unwrap()
    }

    fn error(file: &str) -> MessageError {
        convert(file.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_message_with_crlf_stays_as_it_is() {
        let file = "From: a@b\r\nSubject: x\r\n\ty\r\n\r\nDate: in the body\r\n.\r\n\r\n";
        let given = convert(file.as_bytes()).unwrap();
        assert_eq!(&given.content[..], file.as_bytes());
        assert_eq!(given.header_bytes, 27);
        assert!(!given.conversion.is_any());
    }

    #[test]
    fn bare_line_feeds_become_crlf_and_are_counted() {
        let given = convert(b"A: 1\nB: 2\r\n\nbody\nend").unwrap();
        assert_eq!(&given.content[..], b"A: 1\r\nB: 2\r\n\r\nbody\r\nend\r\n");
        assert_eq!(given.conversion, Conversion { bare_lf_lines: 3, final_crlf_added: true });
    }

    #[test]
    fn date_and_message_id_are_taken_out_with_their_continuations() {
        let file = "DATE: x\r\n y\r\nFrom: a@b\r\nMessage-Id :\r\n\t<1@2>\r\n  \r\nResent-Date: z\r\n 1\r\nDate:\r\n\r\nbody\r\n";
        assert_eq!(content(file), "From: a@b\r\nResent-Date: z\r\n 1\r\n\r\nbody\r\n");
        assert_eq!(content("Date: x\r\n\r\nMessage-ID: y"), "\r\nMessage-ID: y\r\n");
        assert_eq!(content("Date: x\r\n y\r\n"), "");
    }

    #[test]
    fn what_is_sent_verbatim_must_be_fit_for_it() {
        let checked = |file: &str| verbatim(Bytes::copy_from_slice(file.as_bytes()));
        let file = "Date: x\r\nno field at all\r\n\r\n.\r\nbody\r\n";
        let given = checked(file).unwrap();
        assert_eq!((&given.content[..], given.header_bytes), (file.as_bytes(), 26));
        assert_eq!(checked("A: 1\r\n\r\nx\ny\r\n").unwrap_err(), MessageError::LineEnd { line: 3 });
        assert_eq!(checked("A: 1\r\n\r\nx").unwrap_err(), MessageError::LineEnd { line: 3 });
        assert_eq!(checked("A: 1\r\n\0\r\n").unwrap_err(), MessageError::Nul { line: 2 });
        assert_eq!(checked("\rA: 1\r\n").unwrap_err(), MessageError::BareCr { line: 1 });
    }

    #[test]
    fn a_header_without_a_body_is_a_message() {
        let given = convert(b"Subject: x").unwrap();
        assert_eq!((&given.content[..], given.header_bytes), (&b"Subject: x\r\n"[..], 12));
    }

    #[test]
    fn a_file_without_a_header_is_refused() {
        for file in ["", "\r\nbody\r\n", " folded: x\r\n", "Hello there\r\n", ": x\r\n", "From me Mon Jan  1 1:2:3\r\n"]
        {
            assert!(matches!(error(file), MessageError::NoHeader { .. }), "{file:?}");
        }
        let late = error("A: 1\r\nno field\r\n\r\n");
        assert_eq!(late, MessageError::HeaderLine { line: 2, got: "no field".into() });
    }

    #[test]
    fn what_no_mail_may_contain_is_refused_with_its_line() {
        assert_eq!(error("A: 1\n\nx\ry\n"), MessageError::BareCr { line: 3 });
        assert_eq!(error("A: 1\r\n\r\nx\r\r\n"), MessageError::BareCr { line: 3 });
        assert_eq!(error("A: 1\r\n\r\nx\r"), MessageError::BareCr { line: 3 });
        assert_eq!(error("A: 1\r\nB: \0\r\n"), MessageError::Nul { line: 2 });
        let line = |bytes| format!("A: 1\n\n{}\nend\n", "x".repeat(bytes));
        assert!(convert(line(998).as_bytes()).is_ok());
        assert_eq!(error(&line(999)), MessageError::LineTooLong { line: 3, bytes: 999 });
    }
}
