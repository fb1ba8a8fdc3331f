//! Responses as they are written.

use super::Answer;

/// An answer to a request that is wrong in itself; the connection ends with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: u16,
    json: &'static [u8],
}

macro_rules! faults {
    ($($name:ident = $status:literal $text:literal;)*) => {
        impl Fault {
            $(pub(super) const $name: Fault =
                Fault { status: $status, json: concat!(r#"{"message":""#, $text, r#""}"#).as_bytes() };)*
        }
    };
}

faults! {
    MALFORMED = 400 "malformed request: expected the head of an HTTP/1.1 request";
    BARE_LF = 400 "malformed request: expected CRLF at the end of each line, got a bare LF";
    HOST = 400 "malformed request: expected exactly one Host field";
    FRAMING = 400 "malformed request: expected one Content-Length or Transfer-Encoding: chunked, and not both";
    CHUNKS = 400 "malformed request: expected chunks as in RFC 9112 section 7.1";
    TIMED_OUT = 408 "timed out within a request";
    LENGTH_REQUIRED = 411 "expected Content-Length or Transfer-Encoding";
    BODY_TOO_LARGE = 413 "request body too large";
    TARGET_TOO_LONG = 414 "expected a request line of at most 8192 octets";
    EXPECTATION = 417 "expected no expectation but 100-continue";
    HEAD_TOO_LARGE = 431 "expected a request head of at most 16384 octets";
    TOO_MANY_FIELDS = 431 "expected at most 64 header fields";
    TRANSFER_CODING = 501 "expected no transfer coding but chunked";
    VERSION = 505 "expected HTTP/1.1 or HTTP/1.0";
}

impl Fault {
    pub(super) fn answer(&self) -> Answer<'static> {
        Answer { status: self.status, fields: b"", json: self.json }
    }
}

/// The interim response that asks for the content (RFC 9110 §15.2.1).
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is said of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staying {
    /// It stays, which goes without saying.
    Open,
    /// It stays, which an HTTP/1.0 client has to be told.
    OpenSaid,
    /// It closes.
    Close,
}

/// Appends a response. That to a HEAD has no content.
pub(super) fn write(out: &mut Vec<u8>, answer: &Answer<'_>, staying: Staying, is_head: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(answer.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(answer.status).as_bytes());
    out.extend_from_slice(b"\r\nContent-Type: application/json\r\nContent-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(answer.json.len()).as_bytes());
    out.extend_from_slice(match staying {
        Staying::Open => b"\r\n",
        Staying::OpenSaid => b"\r\nConnection: keep-alive\r\n",
        Staying::Close => b"\r\nConnection: close\r\n",
    });
    out.extend_from_slice(answer.fields);
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(answer.json);
    }
}

/// The reason phrase of a status (RFC 9110 §15); empty for those that have none.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
