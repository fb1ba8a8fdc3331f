//! Where the head of a request ends, and what it says.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Request, Status};

use super::response::Fault;
use crate::wire::http::body::Framing;
use crate::wire::http::{FramingError, HEADERS_MAX, elements, keeps_alive, request_framing};

/// Octets of a request's head, its empty line included.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Octets of a request's first line.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;

/// Room for the fields of a head.
pub(super) type Fields<'a> = [MaybeUninit<Header<'a>>; HEADERS_MAX];

/// Finds the end of a head, whose octets come in pieces.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Octets that were looked at.
    scanned: usize,
    /// Where the line begins that is being looked at.
    line: usize,
    /// Where the first line ends, once that is known.
    first_line_ends: Option<usize>,
}

/// What is known of a head's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// More octets are needed.
    Nothing,
    /// It ends before this octet.
    End(usize),
}

impl Scan {
    /// `head` is what there is of it so far, from its beginning. An end is found at the same octet in whatever pieces the
    /// head comes.
    pub(super) fn find(&mut self, head: &[u8]) -> Result<Found, &'static Fault> {
        for at in memchr::memchr_iter(b'\n', &head[self.scanned..]) {
            let at = self.scanned + at;
            if self.first_line_ends.is_none() && at >= REQUEST_LINE_BYTES_MAX {
                return Err(&Fault::TARGET_TOO_LONG);
            }
            if at >= HEAD_BYTES_MAX {
                return Err(&Fault::HEAD_TOO_LARGE);
            }
            let content = &head[self.line..at];
            if content.last() != Some(&b'\r') {
                return Err(&Fault::BARE_LF);
            }
            if content.len() == 1 {
                return Ok(Found::End(at + 1));
            }
            self.first_line_ends.get_or_insert(at);
            self.line = at + 1;
        }
        self.scanned = head.len();
        if self.first_line_ends.is_none() && head.len() > REQUEST_LINE_BYTES_MAX {
            return Err(&Fault::TARGET_TOO_LONG);
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(&Fault::HEAD_TOO_LARGE);
        }
        Ok(Found::Nothing)
    }
}

/// What the session itself has to know of a head.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) headers: &'a [Header<'a>],
    pub(super) framing: Framing,
    pub(super) keeps_alive: bool,
    /// HTTP/1.0: the connection stays only where that is said on both sides.
    pub(super) is_1_0: bool,
    /// The client waits for a 100 before it sends the content (RFC 9110 §10.1.1).
    pub(super) expects_100: bool,
}

/// Parses a whole head.
pub(super) fn parse<'a>(head: &'a [u8], fields: &'a mut Fields<'a>) -> Result<Parsed<'a>, &'static Fault> {
    let mut request = Request::new(&mut []);
    match ParserConfig::default().parse_request_with_uninit_headers(&mut request, head, fields) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(&Fault::MALFORMED),
        Err(httparse::Error::TooManyHeaders) => return Err(&Fault::TOO_MANY_FIELDS),
        Err(httparse::Error::Version) => return Err(&Fault::VERSION),
        Err(_) => return Err(&Fault::MALFORMED),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(&Fault::MALFORMED);
    };
    let headers: &'a [Header<'a>] = request.headers;
    // RFC 9112 §3.2.
    let hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).count();
    if hosts > 1 || (hosts == 0 && minor > 0) {
        return Err(&Fault::HOST);
    }
    let framing = request_framing(minor, headers).map_err(|error| match error {
        FramingError::TransferCoding => &Fault::TRANSFER_CODING,
        _ => &Fault::FRAMING,
    })?;
    let mut expects_100 = false;
    // An HTTP/1.0 client's expectation is ignored.
    for expectation in elements(headers, "expect").filter(|_| minor > 0) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(&Fault::EXPECTATION);
        }
        expects_100 = framing != Framing::NONE;
    }
    // No framing and no length is no content (RFC 9112 §6.3), which is no way to POST something.
    let says_length = ["content-length", "transfer-encoding"]
        .into_iter()
        .any(|name| headers.iter().any(|header| header.name.eq_ignore_ascii_case(name)));
    if method == "POST" && !says_length {
        return Err(&Fault::LENGTH_REQUIRED);
    }
    let keeps_alive = keeps_alive(minor, headers);
    Ok(Parsed { method, target, headers, framing, keeps_alive, is_1_0: minor == 0, expects_100 })
}
