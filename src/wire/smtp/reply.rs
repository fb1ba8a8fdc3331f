//! SMTP replies (RFC 5321 §4.2): one validated line to its meaning.

use memchr::memchr;
use thiserror::Error;

use super::auth::Offered;

/// Whether a reply means success, try later, or never (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 2xx, and 3xx where the dialogue expects it.
    Positive,
    /// 4xx: the same may succeed later.
    Transient,
    /// 5xx: it will not.
    Permanent,
}

/// An enhanced status code such as 4.7.1 (RFC 3463 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl EnhancedCode {
    /// The code that a reply's text begins with, if it begins with one whose class is that of the reply, and what
    /// follows it.
    #[inline]
    fn split(text: &[u8], reply_class: u8) -> Option<(EnhancedCode, &[u8])> {
        if text.len() < 5 || text[0] != b'0' + reply_class || text[1] != b'.' {
            return None;
        }
        let (subject, rest) = number_of_up_to_three_digits(&text[2..])?;
        let rest = rest.strip_prefix(b".")?;
        let (detail, rest) = number_of_up_to_three_digits(rest)?;
        let code = EnhancedCode { class: reply_class, subject, detail };
        match rest {
            [] => Some((code, rest)),
            [b' ', rest @ ..] => Some((code, rest)),
            _ => None,
        }
    }
}

impl std::fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

fn number_of_up_to_three_digits(text: &[u8]) -> Option<(u16, &[u8])> {
    let digits = text.iter().take(3).take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || text.get(digits).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let value = text[..digits].iter().fold(0u16, |value, &b| value * 10 + u16::from(b - b'0'));
    Some((value, &text[digits..]))
}

/// One line of a reply; a reply is complete with its `last` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLine<'a> {
    /// 200 to 599.
    pub code: u16,
    /// False for `250-…`, true for `250 …`.
    pub last: bool,
    /// What follows the code and its separator; may be empty.
    pub text: &'a [u8],
}

impl<'a> ReplyLine<'a> {
    /// Reads one line that the scanner has freed from its CRLF.
    #[inline]
    pub fn parse(line: &'a [u8]) -> Result<ReplyLine<'a>, ReplyError> {
        let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
            return Err(ReplyError::NoCode);
        };
        let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        match rest {
            [b' ', text @ ..] => Ok(ReplyLine { code, last: true, text }),
            [b'-', text @ ..] => Ok(ReplyLine { code, last: false, text }),
            [] => Ok(ReplyLine { code, last: true, text: &[] }),
            _ => Err(ReplyError::NoSeparator),
        }
    }

    /// The class of the code's first digit; 3xx counts as positive.
    #[inline]
    pub fn class(&self) -> Class {
        match self.code / 100 {
            4 => Class::Transient,
            5 => Class::Permanent,
            _ => Class::Positive,
        }
    }

    /// The enhanced status code that the text begins with (RFC 2034 §4), and the text without it.
    #[inline]
    pub fn enhanced(&self) -> (Option<EnhancedCode>, &'a [u8]) {
        match EnhancedCode::split(self.text, (self.code / 100) as u8) {
            Some((code, rest)) => (Some(code), rest),
            None => (None, self.text),
        }
    }
}

/// What is wrong with a line that should have been part of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// It does not begin with a reply code.
    #[error("expected a reply code from 200 to 599")]
    NoCode,
    /// The code is followed by neither space, hyphen nor the line's end.
    #[error("expected a space or hyphen behind the reply code")]
    NoSeparator,
}

/// What the server says it can do in its reply to EHLO (RFC 5321 §4.1.1.1). All off before EHLO and after HELO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870) was offered, so MAIL may say how large the message is.
    pub size: bool,
    /// The limit that came with SIZE, in octets; `None` when there was none or it was 0.
    pub message_bytes_max: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// The mechanisms of AUTH (RFC 4954).
    pub auth: Offered,
}

impl Capabilities {
    /// Takes up one line of the EHLO reply; the first line (the server's name) must not be given. Unknown keywords are
    /// passed over, as RFC 5321 §4.1.1.1 asks.
    pub fn note(&mut self, text: &[u8]) {
        let (keyword, value) = match memchr(b' ', text) {
            Some(at) => (&text[..at], text[at + 1..].trim_ascii()),
            None => (text, &[][..]),
        };
        if keyword.eq_ignore_ascii_case(b"PIPELINING") {
            self.pipelining = true;
        } else if keyword.eq_ignore_ascii_case(b"SIZE") {
            self.size = true;
            self.message_bytes_max =
                std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).filter(|&limit: &u64| limit > 0);
        } else if keyword.eq_ignore_ascii_case(b"8BITMIME") {
            self.eight_bit_mime = true;
        } else if keyword.eq_ignore_ascii_case(b"SMTPUTF8") {
            self.smtp_utf8 = true;
        } else if keyword.eq_ignore_ascii_case(b"STARTTLS") {
            self.starttls = true;
        } else if keyword.eq_ignore_ascii_case(b"ENHANCEDSTATUSCODES") {
            self.enhanced_status_codes = true;
        } else if keyword.eq_ignore_ascii_case(b"AUTH") {
            self.auth.note(value);
        } else if let Some((name, first)) = keyword.split_at_checked(b"AUTH=".len())
            && name.eq_ignore_ascii_case(b"AUTH=")
        {
            // As servers older than RFC 2554 wrote it, which some still do for old clients.
            self.auth.note(first);
            self.auth.note(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_rfc_5321_writes_them() {
        let line = ReplyLine::parse(b"250-mx.example.com at your service").unwrap();
        assert_eq!((line.code, line.last, line.text), (250, false, &b"mx.example.com at your service"[..]));
        assert_eq!(ReplyLine::parse(b"354").unwrap(), ReplyLine { code: 354, last: true, text: b"" });
        assert_eq!(ReplyLine::parse(b"421 ").unwrap().class(), Class::Transient);
        assert_eq!(ReplyLine::parse(b"550 no").unwrap().class(), Class::Permanent);
    }

    #[test]
    fn a_line_without_a_code_is_an_error() {
        for line in [&b""[..], b"2", b"25", b"ok", b"199 x", b"600 x", b"2x0 x", b" 250 x"] {
            assert_eq!(ReplyLine::parse(line), Err(ReplyError::NoCode), "{:?}", line.escape_ascii().to_string());
        }
        assert_eq!(ReplyLine::parse(b"2500 x"), Err(ReplyError::NoSeparator));
    }

    #[test]
    fn enhanced_codes_count_only_when_their_class_is_the_replys() {
        let enhanced = |line: &'static [u8]| ReplyLine::parse(line).unwrap().enhanced().0.map(|e| e.to_string());
        assert_eq!(enhanced(b"250 2.1.5 fine").as_deref(), Some("2.1.5"));
        assert_eq!(ReplyLine::parse(b"250 2.1.5 fine").unwrap().enhanced().1, b"fine");
        assert_eq!(enhanced(b"550 5.7.1").as_deref(), Some("5.7.1"));
        assert_eq!(enhanced(b"450 4.999.123 later").as_deref(), Some("4.999.123"));
        for line in [&b"550 4.7.1 x"[..], b"250 2.1 x", b"250 2.1.5x", b"250 2.1234.5 x", b"250 2..5 x", b"250 hello"] {
            assert_eq!(enhanced(line), None, "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn capabilities_are_taken_from_their_keywords() {
        let mut capabilities = Capabilities::default();
        for line in ["pipelining", "SIZE 52428800", "8BITMIME", "XCLIENT NAME ADDR", "AUTH PLAIN LOGIN"] {
            capabilities.note(line.as_bytes());
        }
        let mut auth = Offered::default();
        auth.note(b"LOGIN PLAIN");
        let expected = Capabilities {
            auth,
            pipelining: true,
            size: true,
            message_bytes_max: Some(52_428_800),
            eight_bit_mime: true,
            ..Capabilities::default()
        };
        assert_eq!(capabilities, expected);
        let old = |text: &str| {
            let mut capabilities = Capabilities::default();
            capabilities.note(text.as_bytes());
            capabilities.auth
        };
        assert_eq!(old("auth=LOGIN PLAIN"), expected.auth);
        assert_eq!(old("AUTH="), Offered::default());
        for unlimited in ["SIZE", "SIZE 0", "SIZE 99999999999999999999"] {
            capabilities.note(unlimited.as_bytes());
            assert_eq!((capabilities.size, capabilities.message_bytes_max), (true, None));
        }
    }
}
