//! multipart/form-data: parts between lines of the boundary (RFC 2046 §5.1.1, RFC 7578).

use memchr::memmem::Finder;

use super::{Fields, FormError, NAME_BYTES_MAX, PART_HEAD_BYTES_MAX, Wanted, parameter};

#[derive(Debug)]
pub(super) struct Multipart {
    /// CRLF, two hyphens, and the boundary. A CR stands at its beginning and nowhere else.
    delimiter: Finder<'static>,
    state: State,
    /// Octets of the delimiter that have been matched at the end of what has arrived.
    matched: usize,
    /// A part's head, or the line of a delimiter, that comes in pieces.
    kept: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter, whose CRLF may be missing.
    Preamble,
    /// Behind a delimiter: `--` makes it the last one, and white space may follow.
    DelimiterLine,
    /// In the head of a part.
    Head,
    /// In the content of a part, of which this is wanted.
    Content(Wanted),
    /// Behind the last delimiter.
    Epilogue,
}

impl Multipart {
    pub(super) fn new(boundary: &[u8]) -> Multipart {
        let delimiter = Finder::new(&[b"\r\n--", boundary].concat()).into_owned();
        // As if a CRLF stood before the form: the first delimiter needs none.
        Multipart { delimiter, state: State::Preamble, matched: 2, kept: Vec::new() }
    }

    pub(super) fn read(&mut self, mut octets: &[u8], fields: &mut impl Fields) -> Result<(), FormError> {
        while !octets.is_empty() {
            octets = match self.state {
                State::Preamble => self.content(octets, None, fields),
                State::Content(wanted) => self.content(octets, Some(wanted), fields),
                State::DelimiterLine => self.delimiter_line(octets)?,
                State::Head => self.head(octets, fields)?,
                State::Epilogue => return Ok(()),
            };
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), FormError> {
        match self.state {
            State::Epilogue => Ok(()),
            // The last delimiter's line may do without its CRLF.
            State::DelimiterLine if self.kept.starts_with(b"--") => Ok(()),
            _ => Err(FormError::Parts),
        }
    }

    /// Content up to a delimiter. What is left of the octets behind it.
    fn content<'o>(&mut self, octets: &'o [u8], wanted: Option<Wanted>, fields: &mut impl Fields) -> &'o [u8] {
        let needle = self.delimiter.needle();
        if self.matched > 0 {
            let rest = &needle[self.matched..];
            let same = rest.iter().zip(octets).take_while(|(a, b)| a == b).count();
            if same == rest.len() {
                self.matched = 0;
                return self.part_ends(&octets[same..], wanted, fields);
            }
            if same == octets.len() {
                self.matched += same;
                return &[];
            }
            // It was content after all. Since a CR only begins a delimiter, none begins within what was matched.
            let matched = std::mem::take(&mut self.matched) + same;
            give(&needle[..matched], wanted, fields);
            return &octets[same..];
        }
        if let Some(at) = self.delimiter.find(octets) {
            give(&octets[..at], wanted, fields);
            return self.part_ends(&octets[at + needle.len()..], wanted, fields);
        }
        let tail = octets.len().saturating_sub(needle.len() - 1);
        let begins = memchr::memrchr(b'\r', &octets[tail..]).map(|at| tail + at);
        let begins = begins.filter(|&at| needle.starts_with(&octets[at..])).unwrap_or(octets.len());
        self.matched = octets.len() - begins;
        give(&octets[..begins], wanted, fields);
        &[]
    }

    fn part_ends<'o>(&mut self, rest: &'o [u8], wanted: Option<Wanted>, fields: &mut impl Fields) -> &'o [u8] {
        if wanted.is_some() {
            fields.end();
        }
        self.state = State::DelimiterLine;
        self.kept.clear();
        rest
    }

    fn delimiter_line<'o>(&mut self, octets: &'o [u8]) -> Result<&'o [u8], FormError> {
        let end = memchr::memchr(b'\n', octets).map_or(octets.len(), |at| at + 1);
        if self.kept.len() + end > PART_HEAD_BYTES_MAX {
            return Err(FormError::TooLong);
        }
        self.kept.extend_from_slice(&octets[..end]);
        if self.kept.ends_with(b"\n") {
            let padding = self.kept.strip_suffix(b"\r\n").ok_or(FormError::Parts)?;
            self.state = match padding {
                [b'-', b'-', ..] => State::Epilogue,
                _ if padding.iter().all(|octet| matches!(octet, b' ' | b'\t')) => State::Head,
                _ => return Err(FormError::Parts),
            };
            self.kept.clear();
        }
        Ok(&octets[end..])
    }

    fn head<'o>(&mut self, octets: &'o [u8], fields: &mut impl Fields) -> Result<&'o [u8], FormError> {
        let end = memchr::memchr(b'\n', octets).map_or(octets.len(), |at| at + 1);
        if self.kept.len() + end > PART_HEAD_BYTES_MAX {
            return Err(FormError::TooLong);
        }
        self.kept.extend_from_slice(&octets[..end]);
        if self.kept.ends_with(b"\r\n\r\n") || self.kept == b"\r\n" {
            let (name, is_file) = disposition(&self.kept)?;
            if name.len() > NAME_BYTES_MAX {
                return Err(FormError::TooLong);
            }
            self.state = State::Content(fields.begin(&name, is_file));
            self.kept.clear();
        }
        Ok(&octets[end..])
    }
}

#[inline]
fn give(octets: &[u8], wanted: Option<Wanted>, fields: &mut impl Fields) {
    match wanted {
        _ if octets.is_empty() => {}
        Some(Wanted::Content) => fields.content(octets),
        Some(Wanted::Length) => fields.length(octets.len() as u64),
        None => {}
    }
}

/// The name in a part's head, and whether it has a file name.
fn disposition(head: &[u8]) -> Result<(Vec<u8>, bool), FormError> {
    let mut room = [httparse::EMPTY_HEADER; 16];
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(head, &mut room) else {
        return Err(FormError::PartHead);
    };
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-disposition"));
    let value = found.ok_or(FormError::PartHead)?.value;
    let at = memchr::memchr(b';', value).ok_or(FormError::PartHead)?;
    if !value[..at].trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err(FormError::PartHead);
    }
    let (mut name, mut file) = (Vec::new(), Vec::new());
    parameter(&value[at + 1..], b"name", &mut name).ok_or(FormError::PartHead)?;
    let is_file =
        [&b"filename"[..], b"filename*"].into_iter().any(|name| parameter(&value[at + 1..], name, &mut file).is_some());
    Ok((name, is_file))
}
