//! A response (RFC 9112 §4), read in whatever pieces it arrives. Of its body the beginning is kept, for reports.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;
use thiserror::Error;

use super::body::{BodyError, BodyReader, Framing};
use super::{FramingError, HEADERS_MAX, decimal, elements, keeps_alive, response_framing};

/// Longest head of a response, its status line included.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 16 * 1_024;
/// Longest body of a response, without what frames it.
pub const RESPONSE_BODY_BYTES_MAX: u64 = 1_024 * 1_024;
/// Most interim responses (1xx) before the one that counts.
pub const INTERIM_RESPONSES_MAX: u32 = 16;
/// Octets of a body that are kept.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// What is wrong with a response. Nothing behind it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// Not HTTP/1.x.
    #[error(
        "malformed response ({0}): a port that does not speak HTTP in the clear may speak TLS (https://), or be one of mail \
         (smtp://)"
    )]
    Head(httparse::Error),
    /// A head of more than [`RESPONSE_HEAD_BYTES_MAX`].
    #[error("a response whose head has more than {RESPONSE_HEAD_BYTES_MAX} octets")]
    HeadTooLong,
    /// A status outside of 100 to 599.
    #[error("status {0}, which is none of HTTP")]
    Status(u16),
    /// 101, though nobody asked for another protocol.
    #[error("status 101, though no other protocol was asked for")]
    Upgrade,
    /// More than [`INTERIM_RESPONSES_MAX`].
    #[error("more than {INTERIM_RESPONSES_MAX} interim responses")]
    TooManyInterim,
    /// Where the body ends is not clear.
    #[error("malformed response: {0}")]
    Framing(#[from] FramingError),
    /// A body in chunks that are none.
    #[error("malformed response: {0}")]
    Body(#[from] BodyError),
    /// A body of more than [`RESPONSE_BODY_BYTES_MAX`].
    #[error("a response whose body has more than {RESPONSE_BODY_BYTES_MAX} octets")]
    BodyTooLong,
}

/// When the server wants to be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// In so many seconds.
    Seconds(u64),
    /// At that Unix time, in seconds.
    At(u64),
}

impl RetryAfter {
    /// What Retry-After says (RFC 9110 §10.2.3), or else X-RateLimit-Reset in Unix seconds, as Mailgun has it. Dates are
    /// read in the form that servers must send; what cannot be read counts as absent.
    fn of(headers: &[Header<'_>]) -> Option<RetryAfter> {
        let said = headers.iter().find(|header| header.name.eq_ignore_ascii_case("retry-after"));
        said.and_then(|header| RetryAfter::parse(header.value.trim_ascii()))
            .or_else(|| elements(headers, "x-ratelimit-reset").next().and_then(decimal).map(RetryAfter::At))
    }

    fn parse(value: &[u8]) -> Option<RetryAfter> {
        if let Some(seconds) = decimal(value) {
            return Some(RetryAfter::Seconds(seconds));
        }
        let at = DateTimeParser::new().parse_timestamp(value).ok()?;
        Some(RetryAfter::At(u64::try_from(at.as_second()).unwrap_or(0)))
    }
}

/// What a head says, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// 200 to 599.
    pub status: u16,
    /// The connection may be used again behind the response.
    pub keeps_alive: bool,
    /// When the server wants to be asked again.
    pub retry_after: Option<RetryAfter>,
}

/// One response after another, each after a [`ResponseReader::begin`].
#[derive(Debug)]
pub struct ResponseReader {
    /// The beginning of a head that was torn apart; has no capacity until one is.
    torn: Vec<u8>,
    /// The beginning of the body.
    text: Vec<u8>,
    head: Option<Head>,
    body: BodyReader,
    body_bytes: u64,
    interim: u32,
    /// The request was HEAD, whose response has no body whatever its head says.
    is_head: bool,
}

impl ResponseReader {
    /// A reader to which nothing has come.
    pub const fn new() -> ResponseReader {
        ResponseReader {
            torn: Vec::new(),
            text: Vec::new(),
            head: None,
            body: BodyReader::none(),
            body_bytes: 0,
            interim: 0,
            is_head: false,
        }
    }

    /// The next response is that to a request, to HEAD or to another one.
    #[inline]
    pub fn begin(&mut self, is_head: bool) {
        self.torn.clear();
        self.text.clear();
        (self.head, self.body_bytes, self.interim, self.is_head) = (None, 0, 0, is_head);
    }

    /// The head, once it has come.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The beginning of the body, as far as it has come.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the response is whole.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.head.is_some() && self.body.is_ended()
    }

    /// Whether the response is whole if the stream ends here.
    pub fn may_end_here(&self) -> bool {
        self.head.is_some() && self.body.may_end_here()
    }

    /// Whether some of a response has come that is no interim one, as far as is known.
    pub fn is_begun(&self) -> bool {
        self.head.is_some() || !self.torn.is_empty()
    }

    /// Eats a part of the input: a head, or a run of a body. To be called again with the rest until the response is
    /// complete; from then on nothing is eaten.
    #[inline]
    pub fn read(&mut self, input: &[u8]) -> Result<usize, ResponseError> {
        if self.head.is_none() {
            return self.read_head(input);
        }
        let run = self.body.read(input)?;
        self.body_bytes += run.content.len() as u64;
        if self.body_bytes > RESPONSE_BODY_BYTES_MAX {
            return Err(ResponseError::BodyTooLong);
        }
        let room = TEXT_BYTES_MAX - self.text.len();
        self.text.extend_from_slice(&run.content[..run.content.len().min(room)]);
        Ok(run.consumed)
    }

    fn read_head(&mut self, input: &[u8]) -> Result<usize, ResponseError> {
        let torn = self.torn.len();
        let (octets, parsed) = if torn == 0 {
            let octets = &input[..input.len().min(RESPONSE_HEAD_BYTES_MAX)];
            (octets.len(), parse(octets, self.is_head))
        } else {
            let octets = &input[..input.len().min(RESPONSE_HEAD_BYTES_MAX - torn)];
            self.torn.extend_from_slice(octets);
            (octets.len(), parse(&self.torn, self.is_head))
        };
        let Some((length, head, framing)) = parsed? else {
            if torn + octets >= RESPONSE_HEAD_BYTES_MAX {
                return Err(ResponseError::HeadTooLong);
            }
            if torn == 0 {
                self.torn.extend_from_slice(&input[..octets]);
            }
            return Ok(octets);
        };
        self.torn.clear();
        if head.status < 200 {
            self.interim += 1;
            if self.interim > INTERIM_RESPONSES_MAX {
                return Err(ResponseError::TooManyInterim);
            }
        } else {
            self.head = Some(head);
            self.body = BodyReader::new(framing);
        }
        Ok(length - torn)
    }
}

impl Default for ResponseReader {
    fn default() -> ResponseReader {
        ResponseReader::new()
    }
}

/// The head in `octets`, its length, and how its body is framed; `None` when its end has not come.
fn parse(octets: &[u8], is_head: bool) -> Result<Option<(usize, Head, Framing)>, ResponseError> {
    // Room that is not emptied first, which would cost more than the few fields of most heads.
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parser = ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, octets, &mut headers) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(ResponseError::Head(error)),
    };
    let status = response.code.unwrap_or_default();
    let minor = response.version.unwrap_or_default();
    let framing = match status {
        101 => return Err(ResponseError::Upgrade),
        100..=199 => Framing::NONE,
        200..=599 if is_head => Framing::NONE,
        200..=599 => response_framing(status, minor, response.headers)?,
        _ => return Err(ResponseError::Status(status)),
    };
    let keeps_alive = framing != Framing::UntilClose && keeps_alive(minor, response.headers);
    let retry_after = if status < 300 { None } else { RetryAfter::of(response.headers) };
    Ok(Some((length, Head { status, keeps_alive, retry_after }, framing)))
}

/// What a body says to people: the `message` of a JSON object, as Mailgun and many others answer, else the body itself.
pub fn message_of(body: &[u8]) -> Cow<'_, [u8]> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        message: Cow<'a, str>,
    }
    match serde_json::from_slice(body) {
        Ok(Answer { message: Cow::Borrowed(message) }) => Cow::Borrowed(message.as_bytes()),
        Ok(Answer { message: Cow::Owned(message) }) => Cow::Owned(message.into_bytes()),
        Err(_) => Cow::Borrowed(body.trim_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head, the text and what was left behind the response; `None` when it is not whole.
    type Outcome = Result<Option<(Head, Vec<u8>, Vec<u8>)>, ResponseError>;

    fn read_as(is_head: bool, pieces: &[&[u8]]) -> Outcome {
        let mut reader = ResponseReader::new();
        reader.begin(is_head);
        let mut rest = Vec::new();
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() && !reader.is_complete() {
                let eaten = reader.read(piece)?;
                assert!(eaten > 0 || reader.is_complete(), "no call is without progress");
                piece = &piece[eaten..];
            }
            rest.extend_from_slice(piece);
            assert!(reader.torn.len() <= RESPONSE_HEAD_BYTES_MAX && reader.text.len() <= TEXT_BYTES_MAX);
        }
        Ok(reader.is_complete().then(|| (reader.head().unwrap(), reader.text().to_vec(), rest)))
    }

    fn read(response: &str) -> Outcome {
        let octets = response.as_bytes();
        let whole = read_as(false, &[octets]);
        for at in 0..octets.len().min(400) {
            assert_eq!(read_as(false, &[&octets[..at], &octets[at..]]), whole, "{response:?} split at {at}");
        }
        let each: Vec<&[u8]> = octets.chunks(1).take(4_000).collect();
        if each.len() == octets.len() {
            assert_eq!(read_as(false, &each), whole, "{response:?} octet by octet");
        }
        whole
    }

    fn whole(response: &str) -> (u16, bool, Option<RetryAfter>, String, String) {
        let (head, text, rest) = read(response).unwrap().unwrap_or_else(|| panic!("{response:?} is not whole"));
        let shown = |octets| String::from_utf8(octets).unwrap();
        (head.status, head.keeps_alive, head.retry_after, shown(text), shown(rest))
    }

    #[test]
    fn a_response_ends_where_its_head_says() {
        let of = |response| {
            let (status, keeps_alive, _, text, rest) = whole(response);
            (status, keeps_alive, text, rest)
        };
        let expected = |status, keeps_alive, text: &str, rest: &str| (status, keeps_alive, text.into(), rest.into());
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP"), expected(200, true, "ok", "HTTP"));
        assert_eq!(of("HTTP/1.1 204\r\nContent-Length: 2\r\n\r\nok"), expected(204, true, "", "ok"));
        assert_eq!(of("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"), expected(200, false, "", ""));
        assert_eq!(
            of(
                "HTTP/1.1 500 x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
            ),
            expected(500, false, "abc", "")
        );
        assert_eq!(
            of(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
            ),
            expected(200, true, "x", "")
        );
    }

    #[test]
    fn a_body_may_end_with_the_stream() {
        let mut reader = ResponseReader::new();
        reader.begin(false);
        let input = b"HTTP/1.1 200 OK\r\n\r\nall of it";
        let eaten = reader.read(input).unwrap();
        assert!(!reader.is_complete() && reader.may_end_here());
        assert_eq!(reader.read(&input[eaten..]), Ok(9));
        assert_eq!((reader.text(), reader.head().unwrap().keeps_alive), (&b"all of it"[..], false));
    }

    #[test]
    fn the_response_to_head_has_no_body() {
        let input = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP";
        let (_, text, rest) = read_as(true, &[input]).unwrap().unwrap();
        assert_eq!((text, rest), (vec![], b"HTTP".to_vec()));
    }

    #[test]
    fn when_to_come_back_is_read_in_three_forms() {
        let said = |fields: &str| whole(&format!("HTTP/1.1 429 x\r\n{fields}Content-Length: 0\r\n\r\n")).2;
        assert_eq!(said("Retry-After: 7\r\n"), Some(RetryAfter::Seconds(7)));
        assert_eq!(said("retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), Some(RetryAfter::At(784_111_777)));
        assert_eq!(said("X-RateLimit-Reset: 1700000000\r\n"), Some(RetryAfter::At(1_700_000_000)));
        assert_eq!(said("X-RateLimit-Reset: 9\r\nRetry-After: 1\r\n"), Some(RetryAfter::Seconds(1)));
        for unreadable in ["", "Retry-After: soon\r\n", "Retry-After: -1\r\n", "Retry-After: 1e9\r\n"] {
            assert_eq!(said(unreadable), None, "{unreadable:?}");
        }
    }

    #[test]
    fn everything_is_bounded() {
        let head = |octets: usize| {
            let fixed = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: \r\n\r\n".len();
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "x".repeat(octets - fixed))
        };
        assert!(read(&head(RESPONSE_HEAD_BYTES_MAX)).unwrap().is_some());
        assert_eq!(read(&head(RESPONSE_HEAD_BYTES_MAX + 1)), Err(ResponseError::HeadTooLong));
        let headers = |n| format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "A: b\r\n".repeat(n));
        assert!(read(&headers(HEADERS_MAX - 1)).unwrap().is_some());
        assert_eq!(read(&headers(HEADERS_MAX)), Err(ResponseError::Head(httparse::Error::TooManyHeaders)));
        let interim = |n| "HTTP/1.1 100 x\r\n\r\n".repeat(n) + "HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n";
        assert!(read(&interim(INTERIM_RESPONSES_MAX as usize)).unwrap().is_some());
        assert_eq!(read(&interim(INTERIM_RESPONSES_MAX as usize + 1)), Err(ResponseError::TooManyInterim));
        let body = |n| format!("HTTP/1.1 200 x\r\nContent-Length: {n}\r\n\r\n{}", "x".repeat(n));
        let (_, text, _) = read(&body(RESPONSE_BODY_BYTES_MAX as usize)).unwrap().unwrap();
        assert_eq!(text.len(), TEXT_BYTES_MAX);
        assert_eq!(read(&body(RESPONSE_BODY_BYTES_MAX as usize + 1)), Err(ResponseError::BodyTooLong));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for wrong in
            ["220 mail ESMTP\r\n", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nA b\r\n\r\n"]
        {
            assert!(matches!(read(wrong), Err(ResponseError::Head(_))), "{wrong:?}");
        }
        let read = |response: &str| read(response).unwrap_err();
        assert_eq!(read("HTTP/1.1 600 x\r\n\r\n"), ResponseError::Status(600));
        assert_eq!(read("HTTP/1.1 099 x\r\n\r\n"), ResponseError::Status(99));
        assert_eq!(read("HTTP/1.1 101 x\r\n\r\n"), ResponseError::Upgrade);
        let both = "HTTP/1.1 200 x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(both), ResponseError::Framing(FramingError::BothFields));
        let chunk = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nx";
        assert_eq!(read(chunk), ResponseError::Body(BodyError::ChunkSize));
    }

    #[test]
    fn the_words_for_people_are_found() {
        assert_eq!(&*message_of(br#"{"id":"<1@a>","message":"Queued. Thank you."}"#), b"Queued. Thank you.");
        assert_eq!(&*message_of(br#"{"message":"a \"b\""}"#), b"a \"b\"");
        for other in [&br#""Forbidden""#[..], br#"{"message":7}"#, br#"{"message":"torn"#, b"<html>", b""] {
            assert_eq!(&*message_of(other), other);
        }
    }
}
