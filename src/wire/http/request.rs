//! The head of the requests of a client, which is built once: of one request to the next only its Content-Length changes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use thiserror::Error;

/// Most further header fields of a request.
pub const REQUEST_FIELDS_MAX: usize = 50;
/// Longest further header field, its name included.
pub const REQUEST_FIELD_BYTES_MAX: usize = 8_192;
/// Longest method.
pub const METHOD_BYTES_MAX: usize = 32;

/// Fields that belong to the connection or say how the message is framed (RFC 9110 §7.6.1, RFC 9112 §6), and Host, which
/// is the target's: nobody else may set them.
const FIELDS_OF_THE_CONNECTION: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
];

/// What is wrong with a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a method in capital letters, at most {METHOD_BYTES_MAX}, and not CONNECT or TRACE")]
pub struct MethodError;

/// A method that a request may have: one whose answer is read as any other.
pub fn check_method(method: &str) -> Result<(), MethodError> {
    let fits = !method.is_empty() && method.len() <= METHOD_BYTES_MAX;
    let letters = method.bytes().all(|octet| octet.is_ascii_uppercase() || octet == b'-');
    match fits && letters && !["CONNECT", "TRACE"].contains(&method) {
        true => Ok(()),
        false => Err(MethodError),
    }
}

/// What is wrong with a header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FieldError {
    /// It has no colon.
    #[error("a header field as in 'Name: value'")]
    NoColon,
    /// Its name is no token (RFC 9110 §5.6.2).
    #[error("a header field whose name has letters, digits and -_ alone")]
    Name,
    /// Its value has CR, LF, NUL or another control character.
    #[error("a header field without control characters in its value")]
    Value,
    /// It is nobody's but the connection's.
    #[error("a header field that is not one of the connection, of the framing or Host")]
    OfTheConnection,
    /// It is longer than [`REQUEST_FIELD_BYTES_MAX`].
    #[error("a header field of at most {REQUEST_FIELD_BYTES_MAX} octets")]
    TooLong,
}

/// A header field that cannot break out of its line.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: String,
}

/// The value may be a key.
impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: …", self.name)
    }
}

impl Field {
    /// Looks at name and value.
    pub fn new(name: &str, value: &str) -> Result<Field, FieldError> {
        let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
        let value = value.trim_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(FieldError::Name);
        }
        if value.bytes().any(|octet| octet != b'\t' && octet.is_ascii_control()) {
            return Err(FieldError::Value);
        }
        if FIELDS_OF_THE_CONNECTION.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(FieldError::OfTheConnection);
        }
        match name.len() + value.len() <= REQUEST_FIELD_BYTES_MAX {
            true => Ok(Field { name: name.to_owned(), value: value.to_owned() }),
            false => Err(FieldError::TooLong),
        }
    }

    /// Reads `Name: value`.
    pub fn parse(text: &str) -> Result<Field, FieldError> {
        let (name, value) = text.split_once(':').ok_or(FieldError::NoColon)?;
        Field::new(name, value)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// What a head says. None of it can break out of its line: the caller has looked at each part.
#[derive(Clone, Copy)]
pub struct HeadSpec<'a> {
    /// As [`check_method`] takes it.
    pub method: &'a str,
    /// Path and query, from `/` on.
    pub path: &'a str,
    /// Host, and the port where it is not the scheme's own.
    pub host: &'a str,
    /// User and password of Basic authentication (RFC 7617).
    pub basic_auth: Option<(&'a str, &'a str)>,
    /// Further fields.
    pub fields: &'a [Field],
    /// The body's Content-Type; a field of that name among the further ones goes before it.
    pub content_type: &'a str,
}

/// A head, but for the Content-Length.
pub struct RequestHead {
    /// Up to `Content-Length: `.
    before: Zeroizing<Vec<u8>>,
}

/// It holds a password.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead").finish_non_exhaustive()
    }
}

impl RequestHead {
    /// Builds what is the same in all requests.
    pub fn new(spec: &HeadSpec<'_>) -> RequestHead {
        let HeadSpec { method, path, host, basic_auth, fields, content_type } = spec;
        let is_named = |name: &str| fields.iter().any(|field| field.name.eq_ignore_ascii_case(name));
        let mut head = Zeroizing::new(Vec::with_capacity(1_024));
        let mut push = |parts: &[&str]| parts.iter().for_each(|part| head.extend_from_slice(part.as_bytes()));
        push(&[method, " ", path, " HTTP/1.1\r\nHost: ", host, "\r\n"]);
        if !is_named("user-agent") {
            push(&["User-Agent: timecop/", env!("CARGO_PKG_VERSION"), "\r\n"]);
        }
        if !is_named("accept") {
            push(&["Accept: */*\r\n"]);
        }
        if let Some((user, password)) = basic_auth {
            let pair = Zeroizing::new([user.as_bytes(), b":", password.as_bytes()].concat());
            let encoded = Zeroizing::new(STANDARD.encode(&*pair));
            push(&["Authorization: Basic ", &encoded, "\r\n"]);
        }
        if !is_named("content-type") {
            push(&["Content-Type: ", content_type, "\r\n"]);
        }
        for field in *fields {
            push(&[&field.name, ": ", &field.value, "\r\n"]);
        }
        push(&["Content-Length: "]);
        RequestHead { before: head }
    }

    /// Appends the head of a request whose body has so many octets.
    #[inline]
    pub fn write(&self, body_bytes: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        out.extend_from_slice(itoa::Buffer::new().format(body_bytes).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[Field]) -> String {
        let spec = HeadSpec {
            method: "POST",
            path: "/v3/a.example/messages?x=1",
            host: "api.example:8080",
            basic_auth: Some(("api", "key")),
            fields,
            content_type: "text/plain",
        };
        let mut out = Vec::new();
        let head = RequestHead::new(&spec);
        assert!(!format!("{head:?}").contains("YXBp"), "no key in Debug");
        head.write(1_234, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_has_what_a_request_needs() {
        let expected = "POST /v3/a.example/messages?x=1 HTTP/1.1\r\nHost: api.example:8080\r\n\
                        User-Agent: timecop/0.1.0\r\nAccept: */*\r\nAuthorization: Basic YXBpOmtleQ==\r\n\
                        Content-Type: text/plain\r\nX-A: b\r\nContent-Length: 1234\r\n\r\n";
        assert_eq!(head(&[Field::parse("X-A:b ").unwrap()]), expected);
    }

    #[test]
    fn a_field_of_ones_own_goes_before_ours() {
        let own = head(&["user-agent: x", "Accept: y", "content-type: z"].map(|field| Field::parse(field).unwrap()));
        assert!(own.contains("user-agent: x\r\nAccept: y\r\ncontent-type: z\r\n"));
        assert!(!own.contains("timecop") && !own.contains("*/*") && !own.contains("text/plain"));
    }

    #[test]
    fn a_field_cannot_break_out_of_its_line_or_touch_the_framing() {
        for (wrong, error) in [
            ("X-A", FieldError::NoColon),
            (": b", FieldError::Name),
            ("X A: b", FieldError::Name),
            ("X-A : b", FieldError::Name),
            ("X-Ü: b", FieldError::Name),
            ("X-A: b\r\nX-C: d", FieldError::Value),
            ("X-A: b\n", FieldError::Value),
            ("X-A: b\0", FieldError::Value),
            ("content-length: 1", FieldError::OfTheConnection),
            ("Transfer-Encoding: chunked", FieldError::OfTheConnection),
            ("Host: a", FieldError::OfTheConnection),
            ("Connection: close", FieldError::OfTheConnection),
        ] {
            assert_eq!(Field::parse(wrong), Err(error), "{wrong:?}");
        }
        assert_eq!(Field::new("X", &"x".repeat(REQUEST_FIELD_BYTES_MAX)), Err(FieldError::TooLong));
        assert_eq!(format!("{:?}", Field::parse("Authorization: Bearer secret").unwrap()), "Authorization: …");
    }

    #[test]
    fn methods_are_those_whose_answers_are_ordinary() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "M-SEARCH"] {
            assert_eq!(check_method(method), Ok(()));
        }
        for method in ["", "post", "CONNECT", "TRACE", "GET /", "P\r\n", &"X".repeat(METHOD_BYTES_MAX + 1)] {
            assert_eq!(check_method(method), Err(MethodError), "{method:?}");
        }
    }
}
