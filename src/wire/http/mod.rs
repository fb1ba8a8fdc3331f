//! HTTP/1.1 (RFC 9110, RFC 9112) without I/O. Heads are read by httparse, bodies by [`body`].

pub mod body;
pub mod client;
pub mod form;
pub mod request;
pub mod response;
pub mod server;

use httparse::Header;
use thiserror::Error;

use self::body::Framing;

/// Most header fields of one head, on either side.
pub const HEADERS_MAX: usize = 64;

/// Why a head leaves it open where its message ends. On either side the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// Both fields: one of the two may be somebody's trick (RFC 9112 §6.1).
    #[error("Transfer-Encoding beside Content-Length")]
    BothFields,
    /// Transfer-Encoding in an HTTP/1.0 head (RFC 9112 §6.1).
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    TransferEncodingInHttp10,
    /// A transfer coding other than chunked, which nobody offered to understand (RFC 9112 §6.1 and §7), or chunked
    /// where it is not the last one, or twice.
    #[error("a Transfer-Encoding other than chunked")]
    TransferCoding,
    /// Content-Length is no decimal number, or one beyond 64 bits.
    #[error("a Content-Length that is no number")]
    ContentLength,
    /// Content-Length says two different things.
    #[error("several Content-Lengths that differ")]
    ContentLengths,
}

/// How the body behind a request's head is framed (RFC 9112 §6.3). `minor` is the head's minor version.
pub fn request_framing(minor: u8, headers: &[Header<'_>]) -> Result<Framing, FramingError> {
    Ok(framing(minor, headers)?.unwrap_or(Framing::NONE))
}

/// How the body behind a response's head is framed (RFC 9112 §6.3), unless the request was HEAD. `minor` is the head's
/// minor version.
pub fn response_framing(status: u16, minor: u8, headers: &[Header<'_>]) -> Result<Framing, FramingError> {
    match status {
        100..=199 | 204 | 304 => Ok(Framing::NONE),
        _ => Ok(framing(minor, headers)?.unwrap_or(Framing::UntilClose)),
    }
}

/// What the fields say; `None` when they say nothing.
fn framing(minor: u8, headers: &[Header<'_>]) -> Result<Option<Framing>, FramingError> {
    let mut length = None;
    for element in elements(headers, "content-length") {
        let number = decimal(element).ok_or(FramingError::ContentLength)?;
        if length.is_some_and(|known| known != number) {
            return Err(FramingError::ContentLengths);
        }
        length = Some(number);
    }
    let mut codings = elements(headers, "transfer-encoding");
    let Some(coding) = codings.next() else { return Ok(length.map(Framing::Length)) };
    if length.is_some() {
        return Err(FramingError::BothFields);
    }
    if minor == 0 {
        return Err(FramingError::TransferEncodingInHttp10);
    }
    if !coding.eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
        return Err(FramingError::TransferCoding);
    }
    Ok(Some(Framing::Chunked))
}

/// Whether the connection stays open behind a message (RFC 9112 §9.3). `minor` is the head's minor version.
pub fn keeps_alive(minor: u8, headers: &[Header<'_>]) -> bool {
    let says = |option: &[u8]| elements(headers, "connection").any(|element| element.eq_ignore_ascii_case(option));
    !says(b"close") && (minor > 0 || says(b"keep-alive"))
}

/// The elements of all fields of one name, each a list divided by commas (RFC 9110 §5.6.1). An empty field has one that
/// is empty, so that it is not passed over.
pub fn elements<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    fields.flat_map(|header| header.value.split(|octet| *octet == b',')).map(<[u8]>::trim_ascii)
}

/// A number in digits alone: no sign, no spaces, at most 64 bits.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(fields: &[(&'a str, &'a str)]) -> Vec<Header<'a>> {
        fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect()
    }

    #[test]
    fn the_fields_say_where_a_body_ends() {
        let no_fields = head(&[("Host", "a")]);
        assert_eq!(request_framing(1, &no_fields), Ok(Framing::NONE));
        assert_eq!(response_framing(200, 1, &no_fields), Ok(Framing::UntilClose));
        let length = head(&[("Content-LENGTH", " 12\t"), ("content-length", "12, 12")]);
        assert_eq!(request_framing(0, &length), Ok(Framing::Length(12)));
        assert_eq!(response_framing(500, 1, &length), Ok(Framing::Length(12)));
        for status in [100, 199, 204, 304] {
            assert_eq!(response_framing(status, 1, &length), Ok(Framing::NONE), "{status}");
        }
        let chunked = head(&[("transfer-encoding", "Chunked")]);
        assert_eq!(request_framing(1, &chunked), Ok(Framing::Chunked));
        assert_eq!(response_framing(200, 1, &chunked), Ok(Framing::Chunked));
    }

    #[test]
    fn what_leaves_the_end_open_is_refused() {
        use FramingError::*;
        type Fields = &'static [(&'static str, &'static str)];
        let wrong: [(Fields, u8, FramingError); 14] = [
            (&[("content-length", "1"), ("transfer-encoding", "chunked")], 1, BothFields),
            (&[("transfer-encoding", "chunked"), ("content-length", "0")], 1, BothFields),
            (&[("transfer-encoding", "chunked")], 0, TransferEncodingInHttp10),
            (&[("transfer-encoding", "gzip, chunked")], 1, TransferCoding),
            (&[("transfer-encoding", "chunked, gzip")], 1, TransferCoding),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 1, TransferCoding),
            (&[("transfer-encoding", "")], 1, TransferCoding),
            (&[("transfer-encoding", "xchunked")], 1, TransferCoding),
            (&[("content-length", "")], 1, ContentLength),
            (&[("content-length", "+1")], 1, ContentLength),
            (&[("content-length", "1 2")], 1, ContentLength),
            (&[("content-length", "0x1")], 1, ContentLength),
            (&[("content-length", "18446744073709551616")], 1, ContentLength),
            (&[("content-length", "1"), ("content-length", "2")], 1, ContentLengths),
        ];
        for (fields, minor, error) in wrong {
            assert_eq!(request_framing(minor, &head(fields)), Err(error), "{fields:?}");
            assert_eq!(response_framing(200, minor, &head(fields)), Err(error), "{fields:?}");
        }
    }

    #[test]
    fn a_connection_stays_open_by_version_and_by_what_is_said() {
        let said = |value| head(&[("CONNECTION", value)]);
        assert!(keeps_alive(1, &[]) && !keeps_alive(0, &[]));
        assert!(keeps_alive(0, &said("x, Keep-Alive")));
        assert!(!keeps_alive(1, &said("keep-alive , Close")) && !keeps_alive(0, &said("close")));
        assert!(keeps_alive(1, &said("closed")));
    }
}
