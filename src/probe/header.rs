//! `X-Timecop-Probe`: the header by which a probe is known again.
//!
//! Its value is one line that no server has reason to fold:
//! `v=1; id=ID; route=NAME; sent=UNIX_NANOSECONDS; nonce=NONCE; mac=MAC`, numbers but `sent` in lower-case hexadecimal.
//! MAC is the HMAC-SHA256 (RFC 2104) of everything before `; mac=`, so that an arrival which passes was made by whoever
//! holds the key. Fields have one spelling each: what was parsed is written again for the check, and white space that a
//! server may have put between them is of no consequence.

use hmac::{Hmac, Mac as _};
use mail_parser::MessageParser;
use sha2::Sha256;
use thiserror::Error;

use crate::audit::stamp;
pub use crate::audit::stamp::{KEY_BYTES, Key};
use crate::time::WallTime;

/// The header's name.
pub const NAME: &str = "X-Timecop-Probe";
/// The version that is written, and the only one that is read.
const VERSION: &str = "1";
/// Characters of a route's name.
pub const ROUTE_CHARS_MAX: usize = 64;
/// Octets of the longest value that is looked at. One that was written here has fewer than 300.
const VALUE_BYTES_MAX: usize = 990;
/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The probe's number, which no other probe has.
    pub id: u64,
    /// The route that it took: letters, digits, `-` and `_`.
    pub route: String,
    /// When it was sent, by the wall clock.
    pub sent: WallTime,
    /// Random, so that a header cannot be known before it was sent.
    pub nonce: u64,
}

/// Why a message is no probe of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderFault {
    /// It has no such header.
    #[error("the message has no header {NAME}")]
    Absent,
    /// It has one that says something else than ours do, or several.
    #[error("the header {NAME} is malformed: {0}")]
    Malformed(&'static str),
    /// Of another version of timecop.
    #[error("the header {NAME} has a version that is not known here")]
    Version,
    /// Its MAC is not the one that the key gives: made by somebody else, or changed.
    #[error("the header {NAME} is forged: its MAC is wrong")]
    Forged,
}

impl Token {
    /// The header's value.
    pub fn write(&self, key: &Key) -> String {
        let signed = self.signed();
        let mac = mac(key, &signed).finalize().into_bytes();
        let mac: String = mac.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{signed}; mac={mac}")
    }

    fn signed(&self) -> String {
        let Token { id, route, sent, nonce } = self;
        format!("v={VERSION}; id={id:016x}; route={route}; sent={}; nonce={nonce:016x}", sent.as_unix_ns())
    }

    /// Reads a header's value.
    ///
    /// # Errors
    ///
    /// All but [`HeaderFault::Absent`].
    pub fn parse(value: &str, key: &Key) -> Result<Token, HeaderFault> {
        let malformed = |what| Err(HeaderFault::Malformed(what));
        if value.len() > VALUE_BYTES_MAX {
            return malformed("it is too long");
        }
        let mut fields = value.split(';').map(|field| field.trim_matches([' ', '\t', '\r', '\n']));
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name)?.strip_prefix('='));
        let Some(version) = field("v") else { return malformed("it does not begin with a version") };
        if version != VERSION {
            let is_number = !version.is_empty() && version.bytes().all(|octet| octet.is_ascii_digit());
            return if is_number { Err(HeaderFault::Version) } else { malformed("its version is no number") };
        }
        let Some(id) = field("id").and_then(hex_octets).map(u64::from_be_bytes) else {
            return malformed("id is not 16 hexadecimal digits");
        };
        let Some(route) = field("route").filter(|route| is_route(route)) else {
            return malformed("route is not a name of letters, digits, - and _");
        };
        let Some(sent) = field("sent").and_then(decimal) else { return malformed("sent is no time in nanoseconds") };
        let Some(nonce) = field("nonce").and_then(hex_octets).map(u64::from_be_bytes) else {
            return malformed("nonce is not 16 hexadecimal digits");
        };
        let Some(mac) = field("mac").and_then(hex_octets::<32>) else {
            return malformed("mac is not 64 hexadecimal digits");
        };
        if fields.next().is_some() {
            return malformed("something follows its mac");
        }
        let token = Token { id, route: route.to_owned(), sent: WallTime::from_unix_ns(sent), nonce };
        // In constant time, so that nobody can feel his way to the right one.
        self::mac(key, &token.signed()).verify_slice(&mac).map_err(|_| HeaderFault::Forged)?;
        Ok(token)
    }
}

/// Finds the header in a message's header block and reads it. What follows the headers is not looked at.
///
/// # Errors
///
/// Why the message is no probe of ours.
pub fn find(headers: &[u8], key: &Key) -> Result<Token, HeaderFault> {
    let message = headers_only(headers, |parser| parser.header_raw(NAME)).ok_or(HeaderFault::Absent)?;
    let mut found = message.headers().iter().filter(|header| header.name.as_str().eq_ignore_ascii_case(NAME));
    let header = found.next().ok_or(HeaderFault::Absent)?;
    if found.next().is_some() {
        return Err(HeaderFault::Malformed("there are several"));
    }
    let value = headers.get(header.offset_start as usize..header.offset_end as usize).unwrap_or_default();
    let value = std::str::from_utf8(value).map_err(|_| HeaderFault::Malformed("it is not ASCII"))?;
    Token::parse(value.trim(), key)
}

/// Characters of a subject that are shown.
const SUBJECT_CHARS_MAX: usize = 200;

/// The subject of a message, short and without what would control a terminal; empty where there is none.
pub fn subject(headers: &[u8]) -> String {
    let message = headers_only(headers, |parser| parser.header_text("Subject"));
    let subject = message.as_ref().and_then(|message| message.subject()).unwrap_or_default();
    subject.chars().filter(|c| !c.is_control()).take(SUBJECT_CHARS_MAX).collect()
}

/// Reads these headers of a block and ignores all others; bodies and nested parts are never parsed.
pub(super) fn headers_only<'h>(
    headers: &'h [u8],
    wanted: impl FnOnce(MessageParser) -> MessageParser,
) -> Option<mail_parser::Message<'h>> {
    wanted(MessageParser::new()).default_header_ignore().parse_headers(headers)
}

/// Whether a text can be a route's name.
pub fn is_route(text: &str) -> bool {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    (1..=ROUTE_CHARS_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// A whole number in its one spelling.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// Exactly `N` octets in lower-case hexadecimal.
fn hex_octets<const N: usize>(text: &str) -> Option<[u8; N]> {
    stamp::hex_octets(text.as_bytes())
}

/// The MAC of a header's text.
fn mac(key: &Key, text: &str) -> Hmac<Sha256> {
    let mut mac = key.mac();
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new([7; KEY_BYTES])
    }

    fn token() -> Token {
        Token {
            id: 0xab,
            route: "mail-gun_1".to_owned(),
            sent: WallTime::from_unix_ns(1_700_000_000_123_456_789),
            nonce: 1,
        }
    }

    fn block(value: &str) -> Vec<u8> {
        format!("Received: by a\r\nSubject: =?utf-8?q?x?=\r\n{NAME}: {value}\r\nTo: a@b\r\n\r\n").into_bytes()
    }

    #[test]
    fn what_is_written_is_read_again_whatever_folded_it() {
        let value = token().write(&key());
        assert_eq!(
            &value[..value.find("; mac=").unwrap()],
            "v=1; id=00000000000000ab; route=mail-gun_1; \
            sent=1700000000123456789; nonce=0000000000000001"
        );
        let longest = Token { route: "r".repeat(ROUTE_CHARS_MAX), sent: WallTime::from_unix_ns(u64::MAX), ..token() };
        assert!(NAME.len() + 2 + longest.write(&key()).len() < 320);
        for value in [value.clone(), value.replace("; ", ";\r\n\t"), value.replace("; ", ";"), format!("{value}  ")] {
            assert_eq!(find(&block(&value), &key()), Ok(token()), "{value}");
            assert!(find(&block(&value).to_ascii_uppercase(), &key()).is_err());
        }
        let lower = String::from_utf8(block(&value)).unwrap().replace(NAME, &NAME.to_lowercase());
        assert_eq!(find(lower.as_bytes(), &key()), Ok(token()));
    }

    #[test]
    fn a_change_of_any_character_is_found() {
        let value = token().write(&key());
        for at in 0..value.len() {
            for with in ["0", "f", "-", ";", " ", ""] {
                let changed = format!("{}{with}{}", &value[..at], &value[at + 1..]);
                let of_spaces = |text: &str| text.replace(' ', "");
                if of_spaces(&changed) == of_spaces(&value) {
                    continue;
                }
                let fault = Token::parse(&changed, &key()).expect_err(&changed);
                assert_ne!(fault, HeaderFault::Absent, "{changed}");
            }
        }
        assert_eq!(Token::parse(&value, &Key::new([8; KEY_BYTES])), Err(HeaderFault::Forged));
        let other = Token { id: 0xac, ..token() }.write(&key());
        let mixed = format!("{}{}", &value[..value.find("; mac").unwrap()], &other[other.find("; mac").unwrap()..]);
        assert_eq!(Token::parse(&mixed, &key()), Err(HeaderFault::Forged));
    }

    #[test]
    fn absent_malformed_of_another_version_and_forged_are_told_apart() {
        let value = token().write(&key());
        assert_eq!(find(b"", &key()), Err(HeaderFault::Absent));
        assert_eq!(find(b"Subject: x\r\n\r\nX-Timecop-Probe: v=1", &key()), Err(HeaderFault::Absent));
        assert_eq!(find(&block(&value.replace("v=1", "v=2")), &key()), Err(HeaderFault::Version));
        for wrong in [
            "",
            "v=1",
            "v=x",
            "v=",
            "id=0",
            &value.replace("id=", "ID="),
            &format!("{value}; x=1"),
            "\u{e9}",
            &value.replace("sent=1", "sent=+1"),
            &value.replace("sent=1", "sent=01"),
            &value.replace("mac=", "mac= "),
            &"v".repeat(2_000),
        ] {
            let fault = find(&block(wrong), &key()).unwrap_err();
            assert!(matches!(fault, HeaderFault::Malformed(_)), "{wrong}: {fault}");
        }
        let twice = [block(&value), block(&value)].concat();
        let twice = String::from_utf8(twice).unwrap().replace("\r\n\r\nReceived", "\r\nReceived");
        assert_eq!(find(twice.as_bytes(), &key()), Err(HeaderFault::Malformed("there are several")));
    }

    #[test]
    fn a_header_of_a_nested_part_is_not_looked_at() {
        let value = token().write(&key());
        let nested =
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{NAME}: {value}\r\n\r\nx\r\n--b--\r\n");
        assert_eq!(find(nested.as_bytes(), &key()), Err(HeaderFault::Absent));
        let forwarded = format!("Content-Type: message/rfc822\r\n\r\n{NAME}: {value}\r\n\r\n");
        assert_eq!(find(forwarded.as_bytes(), &key()), Err(HeaderFault::Absent));
    }

    #[test]
    fn a_subject_is_shown_short_and_without_what_controls_a_terminal() {
        assert_eq!(subject(b"To: a@b\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe=1B[2J?=\r\n\r\nx"), "gr\u{fc}\u{df}e[2J");
        assert_eq!(subject(format!("Subject: {}\r\n\r\n", "x".repeat(900)).as_bytes()).len(), SUBJECT_CHARS_MAX);
        assert_eq!(subject(b"To: a@b\r\n\r\nSubject: x\r\n"), "");
    }

    #[test]
    fn a_key_is_hexadecimal_and_never_shown() {
        assert!(Key::parse(&"0a".repeat(32)).is_some());
        assert!(Key::parse(&"0A".repeat(32)).is_none() && Key::parse("0a").is_none());
        assert_eq!(format!("{:?}", key()), "Key([REDACTED])");
    }
}
