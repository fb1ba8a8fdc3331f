//! Envelope addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest local part, in octets (RFC 5321, 4.5.3.1.1).
pub const LOCAL_BYTES_MAX: usize = 64;
/// Longest domain, in octets (RFC 5321, 4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Longest mailbox, in octets: a path has at most 256 with its angle brackets (RFC 5321, 4.5.3.1.3).
pub const MAILBOX_BYTES_MAX: usize = 254;
/// Longest label of a domain (RFC 1035, 2.3.4). Counted in characters, since that of a non-ASCII label counts once it
/// is written in ASCII, where it has at least as many octets as it had characters.
const LABEL_CHARS_MAX: usize = 63;

/// The address of a mailbox, `local@domain`, as it stands between the angle brackets of `RCPT TO`.
///
/// Follows `Mailbox` of RFC 5321, 4.1.2, with the extension to UTF-8 of RFC 6531, 3.3. It has no octet that could end
/// a command, a path or a header field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mailbox {
    text: Box<str>,
}

/// A text that is no mailbox address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address as local@domain, got {text:?}: {fault}")]
pub struct AddressError {
    text: String,
    fault: Fault,
}

/// What is wrong with an address, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it has no @; add one and a domain")]
    NoAt,
    #[error("nothing stands before the @; add a local part")]
    NoLocal,
    #[error("nothing stands after the @; add a domain")]
    NoDomain,
    #[error("it has {got} octets, {MAILBOX_BYTES_MAX} are allowed; shorten it")]
    TooLong { got: usize },
    #[error("the local part has {got} octets, {LOCAL_BYTES_MAX} are allowed; shorten it")]
    LocalTooLong { got: usize },
    #[error("the domain has {got} octets, {DOMAIN_BYTES_MAX} are allowed; shorten it")]
    DomainTooLong { got: usize },
    #[error("{0:?} is a control character; remove it")]
    Control(char),
    #[error("{0:?} may not stand in a local part; remove it, or put the local part in double quotes")]
    LocalCharacter(char),
    #[error("a dot may neither begin nor end a local part nor follow another; put the local part in double quotes")]
    LocalDot,
    #[error("the quoted local part must end with a double quote, and inside it \" and \\ need a \\ before them")]
    Quoting,
    #[error("{0:?} may not stand in a domain; use letters, digits, hyphens and dots")]
    DomainCharacter(char),
    #[error("the domain has an empty label; remove the dot too many")]
    EmptyLabel,
    #[error("a label of the domain has more than {LABEL_CHARS_MAX} characters; shorten it")]
    LabelTooLong,
    #[error("a label of the domain begins or ends with a hyphen; remove it")]
    LabelHyphen,
    #[error("expected an address literal as [192.0.2.1] or [IPv6:2001:db8::1]; correct it or give a domain")]
    Literal,
}

impl Mailbox {
    /// Reads `local@domain`, without angle brackets.
    ///
    /// Allowed are quoted local parts (`"a b"@example.com`), address literals (`load@[127.0.0.1]`, `load@[IPv6:::1]`),
    /// domains without a dot (`load@localhost`) and characters outside ASCII (see [`Mailbox::is_ascii`]).
    ///
    /// # Errors
    ///
    /// When the text does not follow the grammar or is longer than RFC 5321 allows.
    pub fn parse(text: &str) -> Result<Mailbox, AddressError> {
        match check(text) {
            Ok(()) => Ok(Mailbox { text: text.into() }),
            Err(fault) => {
                // An error is for reading: of an endless text its beginning says enough.
                let text = text.chars().take(MAILBOX_BYTES_MAX).collect();
                Err(AddressError { text, fault })
            }
        }
    }

    /// The address as text.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address as octets.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether it is all ASCII. If not, it may be sent only to a server that offers SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

/// Where notices of failure go: the argument of `MAIL FROM`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// Nowhere: `MAIL FROM:<>`, as notices of failure are sent themselves (RFC 5321, 4.5.5).
    Null,
    /// To this mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Reads `local@domain`, or the null path as an empty text or `<>`.
    ///
    /// # Errors
    ///
    /// When it is neither.
    pub fn parse(text: &str) -> Result<ReversePath, AddressError> {
        match text {
            "" | "<>" => Ok(ReversePath::Null),
            text => Mailbox::parse(text).map(ReversePath::Mailbox),
        }
    }

    /// What stands between the angle brackets; empty for the null path.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            ReversePath::Null => b"",
            ReversePath::Mailbox(mailbox) => mailbox.as_bytes(),
        }
    }

    /// Whether it is all ASCII. If not, it may be sent only to a server that offers SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.as_bytes().is_ascii()
    }
}

impl fmt::Display for ReversePath {
    /// With its angle brackets, as in a command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => f.write_str("<>"),
            ReversePath::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

fn check(text: &str) -> Result<(), Fault> {
    // C1 controls, in U+0080 to U+009F, are no better than those of ASCII.
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(Fault::Control(control));
    }
    // A quoted local part may contain an @, a domain may not.
    let (local, domain) = text.rsplit_once('@').ok_or(Fault::NoAt)?;
    match () {
        () if local.is_empty() => return Err(Fault::NoLocal),
        () if domain.is_empty() => return Err(Fault::NoDomain),
        () if local.len() > LOCAL_BYTES_MAX => return Err(Fault::LocalTooLong { got: local.len() }),
        () if domain.len() > DOMAIN_BYTES_MAX => return Err(Fault::DomainTooLong { got: domain.len() }),
        () if text.len() > MAILBOX_BYTES_MAX => return Err(Fault::TooLong { got: text.len() }),
        () => {}
    }
    match local.strip_prefix('"') {
        Some(quoted) => check_quoted(quoted)?,
        None => check_dot_string(local)?,
    }
    match domain.strip_prefix('[') {
        Some(literal) => check_literal(literal),
        None => check_domain(domain),
    }
}

/// The local part without quotes: atoms with single dots between them.
fn check_dot_string(local: &str) -> Result<(), Fault> {
    let may_stand = |c: char| is_atom(c) || c == '.';
    if let Some(character) = local.chars().find(|&c| !may_stand(c)) {
        return Err(Fault::LocalCharacter(character));
    }
    if local.split('.').any(str::is_empty) { Err(Fault::LocalDot) } else { Ok(()) }
}

/// `atext` of RFC 5322, 3.2.3, and everything visible outside ASCII.
fn is_atom(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) } else { !c.is_whitespace() }
}

/// What follows the opening quote of a quoted local part. Controls have been refused before.
fn check_quoted(quoted: &str) -> Result<(), Fault> {
    let mut chars = quoted.chars();
    loop {
        match chars.next() {
            Some('"') => return if chars.next().is_none() { Ok(()) } else { Err(Fault::Quoting) },
            // A quoted pair takes ASCII only.
            Some('\\') if !chars.next().is_some_and(|c| c.is_ascii()) => return Err(Fault::Quoting),
            Some(_) => {}
            None => return Err(Fault::Quoting),
        }
    }
}

fn check_domain(domain: &str) -> Result<(), Fault> {
    let may_stand = |c: char| {
        let visible = if c.is_ascii() { c.is_ascii_alphanumeric() } else { !c.is_whitespace() };
        visible || c == '-' || c == '.'
    };
    if let Some(character) = domain.chars().find(|&c| !may_stand(c)) {
        return Err(Fault::DomainCharacter(character));
    }
    for label in domain.split('.') {
        if label.is_empty() {
            return Err(Fault::EmptyLabel);
        }
        if label.chars().count() > LABEL_CHARS_MAX {
            return Err(Fault::LabelTooLong);
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Fault::LabelHyphen);
        }
    }
    Ok(())
}

/// What follows the opening bracket of an address literal (RFC 5321, 4.1.3).
fn check_literal(literal: &str) -> Result<(), Fault> {
    const IPV6: &str = "IPv6:";
    let inner = literal.strip_suffix(']').ok_or(Fault::Literal)?;
    let is_address = match inner.get(..IPV6.len()) {
        Some(tag) if tag.eq_ignore_ascii_case(IPV6) => inner[IPV6.len()..].parse::<Ipv6Addr>().is_ok(),
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    };
    if is_address { Ok(()) } else { Err(Fault::Literal) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(text: &str) -> Fault {
        Mailbox::parse(text).expect_err(text).fault
    }

    #[test]
    fn ordinary_and_odd_addresses_are_taken_as_they_are() {
        let good = [
            "load@example.com",
            "load@localhost",
            "a.b+c!#$%&'*/=?^_`{|}~-@x-1.example",
            "\"a b<>@,\\\"\\\\\"@example.com",
            "\"\"@example.com",
            "load@[127.0.0.1]",
            "load@[IPv6:2001:db8::1]",
            "load@[ipv6:::ffff:192.0.2.1]",
            "用户@例子.广告",
            "1@2",
        ];
        for text in good {
            let mailbox = Mailbox::parse(text).unwrap();
            assert_eq!(mailbox.as_bytes(), text.as_bytes());
            assert_eq!(mailbox.is_ascii(), text.is_ascii());
            assert_eq!(mailbox.to_string(), text);
        }
    }

    #[test]
    fn nothing_that_could_end_a_command_or_a_path_is_let_through() {
        for octet in (0..0x20).chain([0x7f]) {
            let c = char::from(octet);
            for text in [format!("a{c}b@example.com"), format!("\"a{c}b\"@example.com"), format!("a@exam{c}ple")] {
                assert_eq!(fault(&text), Fault::Control(c));
            }
        }
        assert_eq!(fault("a\u{85}@example.com"), Fault::Control('\u{85}'));
        for c in [' ', '<', '>', '(', ')', ',', ';', ':', '\\', '"', '@', '[', ']'] {
            assert_eq!(fault(&format!("a{c}b@example.com")), Fault::LocalCharacter(c));
        }
        for c in [' ', '<', '>', '_', '"', ':', ']', '/'] {
            assert_eq!(fault(&format!("a@exam{c}ple")), Fault::DomainCharacter(c));
        }
        assert_eq!(fault("a\u{3000}b@example.com"), Fault::LocalCharacter('\u{3000}'));
    }

    #[test]
    fn parts_must_be_there_and_well_formed() {
        assert_eq!(fault(""), Fault::NoAt);
        assert_eq!(fault("load"), Fault::NoAt);
        assert_eq!(fault("@example.com"), Fault::NoLocal);
        assert_eq!(fault("load@"), Fault::NoDomain);
        for text in [".a@b", "a.@b", "a..b@c"] {
            assert_eq!(fault(text), Fault::LocalDot);
        }
        for text in ["\"a@b", "\"a\"b@c", "\"a\\\"@b", "\"@b", "\"\\é\"@b"] {
            assert_eq!(fault(text), Fault::Quoting);
        }
        for text in ["a@.b", "a@b.", "a@b..c", "a@."] {
            assert_eq!(fault(text), Fault::EmptyLabel);
        }
        for text in ["a@-b", "a@b-.c"] {
            assert_eq!(fault(text), Fault::LabelHyphen);
        }
        for text in ["a@[127.0.0.1", "a@[127.0.0]", "a@[::1]", "a@[IPv6:1]", "a@[]", "a@[x:y]", "a@[é12345]"] {
            assert_eq!(fault(text), Fault::Literal);
        }
    }

    #[test]
    fn lengths_end_where_the_rfc_ends_them() {
        let label = "d".repeat(63);
        let domain = |bytes: usize| format!("{label}.{label}.{label}.{}", "e".repeat(bytes - 3 * 64));
        let local = "l".repeat(64);
        assert!(Mailbox::parse(&format!("{local}@example.com")).is_ok());
        assert_eq!(fault(&format!("{local}l@example.com")), Fault::LocalTooLong { got: 65 });
        assert!(Mailbox::parse(&format!("l@{}", domain(252))).is_ok());
        assert_eq!(fault(&format!("l@{}", domain(253))), Fault::TooLong { got: 255 });
        assert_eq!(fault(&format!("l@{}.e", domain(254))), Fault::DomainTooLong { got: 256 });
        assert_eq!(fault(&format!("l@{label}d")), Fault::LabelTooLong);
        assert!(Mailbox::parse(&format!("l@{}", "例".repeat(63))).is_ok());
    }

    #[test]
    fn an_error_says_what_came_and_what_to_do() {
        let error = Mailbox::parse("a b@example.com").unwrap_err().to_string();
        assert_eq!(
            error,
            "expected an address as local@domain, got \"a b@example.com\": ' ' may not stand in a local part; remove it, \
             or put the local part in double quotes"
        );
        assert!(Mailbox::parse(&"x".repeat(1_000_000)).unwrap_err().to_string().len() < 500);
    }

    #[test]
    fn a_reverse_path_may_be_null() {
        for text in ["", "<>"] {
            let path = ReversePath::parse(text).unwrap();
            assert_eq!((path.as_bytes(), path.to_string().as_str()), (&b""[..], "<>"));
            assert!(path.is_ascii());
        }
        let path = ReversePath::parse("load@example.com").unwrap();
        assert_eq!(path.to_string(), "<load@example.com>");
        assert!(ReversePath::parse("<load@example.com>").is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_can_stand_in_a_command(text in "\\PC{0,9}[\"\\\\@ <>\r\n\0.a]{0,9}@[a-z\\[\\].\r\n >é-]{0,9}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                prop_assert!(mailbox.as_str().chars().all(|c| !c.is_control()));
                prop_assert!(mailbox.as_bytes().len() <= MAILBOX_BYTES_MAX);
                if !text.starts_with('"') {
                    prop_assert!(!text.contains([' ', '<', '>', '"', '\\']));
                }
            }
        }
    }
}
