//! SMTP command lines (RFC 5321 §4.1): parsed by the server, written by the client, neither with an allocation or a
//! format call.

use super::auth::Auth;

/// DATA, ready to be sent.
pub const DATA: &[u8] = b"DATA\r\n";
/// RSET, ready to be sent.
pub const RSET: &[u8] = b"RSET\r\n";
/// NOOP, ready to be sent.
pub const NOOP: &[u8] = b"NOOP\r\n";
/// QUIT, ready to be sent.
pub const QUIT: &[u8] = b"QUIT\r\n";
/// STARTTLS, ready to be sent.
pub const STARTTLS: &[u8] = b"STARTTLS\r\n";

/// A path with its angle brackets has at most this many octets (RFC 5321 §4.5.3.1.3). It bounds the domain too, whose
/// own limit of 255 lies beyond it, and the local part: the limit of 64 is not enforced, since senders of bounce
/// addresses (VERP, SRS) exceed it every day and receivers let them.
pub const PATH_BYTES_MAX: usize = 256;

/// A command that a server of ours understands. Slices are lent from the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO with the client's name, which is not checked any further than that it is one word.
    Ehlo {
        /// A domain or an address literal.
        name: &'a [u8],
    },
    /// HELO with the client's name.
    Helo {
        /// A domain or an address literal.
        name: &'a [u8],
    },
    /// MAIL FROM.
    Mail(Mail<'a>),
    /// RCPT TO.
    Rcpt(Rcpt<'a>),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP; what follows it means nothing.
    Noop,
    /// VRFY; what is to be verified is of no interest to a server that will not tell.
    Vrfy,
    /// HELP; for whatever.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth(Auth<'a>),
}

/// MAIL FROM and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mail<'a> {
    /// Without angle brackets and source route; empty for the null reverse-path `<>`.
    pub reverse_path: &'a [u8],
    /// What the client declared (RFC 1870).
    pub parameters: MailParameters,
}

/// The parameters of MAIL that we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=`: octets of the message (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152).
    pub body: Option<Body>,
    /// `SMTPUTF8`: the envelope or the header may hold UTF-8 (RFC 6531).
    pub smtputf8: bool,
}

/// The value of `BODY=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// RCPT TO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcpt<'a> {
    /// Without angle brackets and source route. `postmaster` (in any case) may come without a domain.
    pub forward_path: &'a [u8],
    /// It holds UTF-8 beyond ASCII, which is right only if MAIL carried SMTPUTF8.
    pub has_8bit: bool,
}

/// Why a line is no command that we carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No verb of SMTP.
    Unknown,
    /// A verb of SMTP or its extensions that this server does not offer.
    NotImplemented,
    /// EHLO or HELO without a name, or with more than one word.
    ClientName,
    /// An argument behind DATA, RSET or QUIT.
    UnexpectedArgument,
    /// VRFY of nothing.
    MissingArgument,
    /// MAIL without `FROM:`.
    MailSyntax,
    /// RCPT without `TO:`.
    RcptSyntax,
    /// The reverse-path is malformed.
    ReversePath,
    /// The forward-path is malformed.
    ForwardPath,
    /// The reverse-path holds UTF-8, but the command lacks SMTPUTF8.
    ReversePathNeedsUtf8,
    /// A parameter of MAIL that is known has no valid value, or comes twice.
    MailParameterValue,
    /// A parameter of MAIL that is not known.
    MailParameter,
    /// A parameter of RCPT; none is known.
    RcptParameter,
}

impl CommandError {
    /// The reply to give, with its CRLF.
    pub const fn reply(self) -> &'static [u8] {
        match self {
            CommandError::Unknown => {
                b"500 5.5.2 command not recognised: expected an SMTP verb such as MAIL or QUIT\r\n"
            }
            CommandError::NotImplemented => b"502 5.5.1 command not implemented\r\n",
            CommandError::ClientName => b"501 5.5.4 expected the client's name, as in EHLO client.example.com\r\n",
            CommandError::UnexpectedArgument => b"501 5.5.4 this command takes no argument\r\n",
            CommandError::MissingArgument => b"501 5.5.4 expected an argument, as in VRFY user@example.com\r\n",
            CommandError::MailSyntax => b"501 5.5.4 expected MAIL FROM:<user@example.com>\r\n",
            CommandError::RcptSyntax => b"501 5.5.4 expected RCPT TO:<user@example.com>\r\n",
            CommandError::ReversePath => b"501 5.1.7 bad sender address: expected <user@example.com> or <>\r\n",
            CommandError::ForwardPath => b"501 5.1.3 bad recipient address: expected <user@example.com>\r\n",
            CommandError::ReversePathNeedsUtf8 => b"553 5.6.7 sender address beyond ASCII: expected SMTPUTF8\r\n",
            CommandError::MailParameterValue => {
                b"501 5.5.4 bad parameter: expected SIZE=octets, BODY=7BIT, BODY=8BITMIME or SMTPUTF8, each once\r\n"
            }
            CommandError::MailParameter => {
                b"555 5.5.4 unknown parameter: expected SIZE=octets, BODY=7BIT, BODY=8BITMIME or SMTPUTF8\r\n"
            }
            CommandError::RcptParameter => b"555 5.5.4 unknown parameter: RCPT takes none here\r\n",
        }
    }
}

/// Understands one line, which comes without its CRLF. Spaces at its end are let pass (RFC 5321 §4.1.1).
#[inline]
pub fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let (verb, argument) = split_word(trim_end(line));
    let verb: [u8; 4] = match verb.try_into() {
        Ok(verb) => verb,
        Err(_) => return longer_verb(verb, argument),
    };
    // Clears the bit that makes ASCII letters small; no other octet becomes a letter by it.
    match &verb.map(|octet| octet & 0xDF) {
        b"RCPT" => rcpt(argument),
        b"MAIL" => mail(argument),
        b"DATA" => alone(argument, Command::Data),
        b"EHLO" => client_name(argument).map(|name| Command::Ehlo { name }),
        b"HELO" => client_name(argument).map(|name| Command::Helo { name }),
        b"RSET" => alone(argument, Command::Rset),
        b"QUIT" => alone(argument, Command::Quit),
        b"NOOP" => Ok(Command::Noop),
        b"HELP" => Ok(Command::Help),
        b"VRFY" if argument.is_empty() => Err(CommandError::MissingArgument),
        b"VRFY" => Ok(Command::Vrfy),
        b"AUTH" => Ok(Command::Auth(Auth::parse(argument))),
        b"BDAT" | b"EXPN" | b"ETRN" | b"TURN" => Err(CommandError::NotImplemented),
        _ => Err(CommandError::Unknown),
    }
}

fn longer_verb<'a>(verb: &[u8], argument: &[u8]) -> Result<Command<'a>, CommandError> {
    match verb.eq_ignore_ascii_case(b"STARTTLS") {
        true => alone(argument, Command::StartTls),
        false => Err(CommandError::Unknown),
    }
}

fn alone<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, CommandError> {
    match argument {
        [] => Ok(command),
        _ => Err(CommandError::UnexpectedArgument),
    }
}

fn client_name(argument: &[u8]) -> Result<&[u8], CommandError> {
    match !argument.is_empty() && argument.iter().all(u8::is_ascii_graphic) {
        true => Ok(argument),
        false => Err(CommandError::ClientName),
    }
}

#[inline]
fn mail(argument: &[u8]) -> Result<Command<'_>, CommandError> {
    let path = after_keyword(argument, b"FROM:").ok_or(CommandError::MailSyntax)?;
    let (path, rest) = match path {
        [b'<', b'>'] => (Path { mailbox: &[], has_8bit: false }, &[][..]),
        [b'<', b'>', b' ', rest @ ..] => (Path { mailbox: &[], has_8bit: false }, trim_start(rest)),
        path => mailbox_path(path, false).ok_or(CommandError::ReversePath)?,
    };
    let parameters = mail_parameters(rest)?;
    if path.has_8bit && !parameters.smtputf8 {
        return Err(CommandError::ReversePathNeedsUtf8);
    }
    Ok(Command::Mail(Mail { reverse_path: path.mailbox, parameters }))
}

#[inline]
fn rcpt(argument: &[u8]) -> Result<Command<'_>, CommandError> {
    let path = after_keyword(argument, b"TO:").ok_or(CommandError::RcptSyntax)?;
    let (path, rest) = mailbox_path(path, true).ok_or(CommandError::ForwardPath)?;
    if !rest.is_empty() {
        return Err(CommandError::RcptParameter);
    }
    Ok(Command::Rcpt(Rcpt { forward_path: path.mailbox, has_8bit: path.has_8bit }))
}

/// What stands behind `FROM:` or `TO:`. A space there is let pass, as Postfix does: many clients send it.
#[inline]
fn after_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (found, path) = argument.split_at_checked(keyword.len())?;
    found.eq_ignore_ascii_case(keyword).then(|| trim_start(path))
}

fn mail_parameters(mut rest: &[u8]) -> Result<MailParameters, CommandError> {
    let mut parameters = MailParameters::default();
    while !rest.is_empty() {
        let (word, behind) = split_word(rest);
        rest = behind;
        let (key, value) = match word.iter().position(|octet| *octet == b'=') {
            Some(equals) => (&word[..equals], Some(&word[equals + 1..])),
            None => (word, None),
        };
        let fresh = if key.eq_ignore_ascii_case(b"SIZE") {
            let size = value.and_then(decimal).ok_or(CommandError::MailParameterValue)?;
            parameters.size.replace(size).is_none()
        } else if key.eq_ignore_ascii_case(b"BODY") {
            let body = match value {
                Some(value) if value.eq_ignore_ascii_case(b"7BIT") => Body::SevenBit,
                Some(value) if value.eq_ignore_ascii_case(b"8BITMIME") => Body::EightBitMime,
                _ => return Err(CommandError::MailParameterValue),
            };
            parameters.body.replace(body).is_none()
        } else if key.eq_ignore_ascii_case(b"SMTPUTF8") {
            value.is_none() && !std::mem::replace(&mut parameters.smtputf8, true)
        } else {
            return Err(CommandError::MailParameter);
        };
        if !fresh {
            return Err(CommandError::MailParameterValue);
        }
    }
    Ok(parameters)
}

/// A decimal number without sign. `None` when it does not fit.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

struct Path<'a> {
    mailbox: &'a [u8],
    has_8bit: bool,
}

/// `<` source route, mailbox `>` and what follows behind spaces. The route is passed over, as RFC 5321 Appendix C asks.
#[inline]
fn mailbox_path(path: &[u8], postmaster_alone: bool) -> Option<(Path<'_>, &[u8])> {
    let inner = path.strip_prefix(b"<")?;
    let mailbox = if inner.first() == Some(&b'@') { behind_route(inner)? } else { inner };
    let local = local_part(mailbox)?;
    let end = match mailbox.get(local)? {
        b'@' => local + 1 + domain(&mailbox[local + 1..])?,
        b'>' if postmaster_alone && mailbox[..local].eq_ignore_ascii_case(b"postmaster") => local,
        _ => return None,
    };
    let (mailbox, behind) = mailbox.split_at(end);
    let rest = behind.strip_prefix(b">")?;
    if path.len() - rest.len() > PATH_BYTES_MAX || !(rest.is_empty() || rest[0] == b' ') {
        return None;
    }
    let has_8bit = !mailbox.is_ascii();
    if has_8bit && std::str::from_utf8(mailbox).is_err() {
        return None;
    }
    Some((Path { mailbox, has_8bit }, trim_start(rest)))
}

/// What stands behind `@domain,@domain:`.
fn behind_route(mut route: &[u8]) -> Option<&[u8]> {
    loop {
        route = route.strip_prefix(b"@")?;
        let length = domain(route)?;
        match route.get(length)? {
            b',' => route = &route[length + 1..],
            b':' => return Some(&route[length + 1..]),
            _ => return None,
        }
    }
}

/// Octets of the local part at the beginning of `mailbox`: a quoted string or a dot-string. Where dots stand in it is not
/// checked: addresses with two in a row or one at the end are in use.
#[inline]
fn local_part(mailbox: &[u8]) -> Option<usize> {
    if mailbox.first() != Some(&b'"') {
        let length = span(mailbox, LOCAL);
        return (length > 0).then_some(length);
    }
    let mut at = 1;
    loop {
        at += span(&mailbox[at..], QUOTED);
        match mailbox.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if is(*mailbox.get(at + 1)?, QUOTED) || matches!(mailbox[at + 1], b'"' | b'\\') => at += 2,
            _ => return None,
        }
    }
}

/// Octets of the domain or the address literal at the beginning of `text`.
#[inline]
fn domain(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'[') {
        let length = 1 + span(&text[1..], LITERAL);
        return (length > 1 && text.get(length) == Some(&b']')).then_some(length + 1);
    }
    let mut length = 0;
    loop {
        let label = span(&text[length..], LABEL);
        if label == 0 || text[length] == b'-' || text[length + label - 1] == b'-' {
            return None;
        }
        length += label;
        if text.get(length) != Some(&b'.') {
            return Some(length);
        }
        length += 1;
    }
}

/// May stand in a dot-string, the dot included.
const LOCAL: u8 = 1;
/// May stand in a quoted string without a backslash.
const QUOTED: u8 = 2;
/// May stand in a label of a domain. The underscore is no letter of host names, but of names that are in use.
const LABEL: u8 = 4;
/// May stand in an address literal.
const LITERAL: u8 = 8;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let octet = index as u8;
        let beyond_ascii = octet >= 0x80;
        let atom = octet.is_ascii_alphanumeric()
            || matches!(octet, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'/')
            || matches!(octet, b'=' | b'?' | b'^' | b'_' | b'`' | b'{' | b'|' | b'}' | b'~' | b'.');
        if atom || beyond_ascii {
            table[index] |= LOCAL;
        }
        if (octet >= b' ' && octet <= b'~' && octet != b'"' && octet != b'\\') || beyond_ascii {
            table[index] |= QUOTED;
        }
        if octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_' || beyond_ascii {
            table[index] |= LABEL;
        }
        if octet.is_ascii_graphic() && !matches!(octet, b'[' | b'\\' | b']') {
            table[index] |= LITERAL;
        }
        index += 1;
    }
    table
}

#[inline]
fn is(octet: u8, class: u8) -> bool {
    CLASSES[usize::from(octet)] & class != 0
}

/// Octets at the beginning of `text` that are of `class`.
#[inline]
fn span(text: &[u8], class: u8) -> usize {
    text.iter().position(|octet| !is(*octet, class)).unwrap_or(text.len())
}

/// The first word, and what follows behind spaces.
#[inline]
fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|octet| *octet == b' ') {
        Some(space) => (&text[..space], trim_start(&text[space..])),
        None => (text, &[]),
    }
}

#[inline]
fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

#[inline]
fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Appends EHLO with the client's name.
pub fn encode_ehlo(out: &mut Vec<u8>, name: &[u8]) {
    encode(out, &[b"EHLO ", name, b"\r\n"]);
}

/// Appends HELO with the client's name.
pub fn encode_helo(out: &mut Vec<u8>, name: &[u8]) {
    encode(out, &[b"HELO ", name, b"\r\n"]);
}

/// Appends MAIL FROM with those parameters that are set; `reverse_path` comes without angle brackets.
#[inline]
pub fn encode_mail(out: &mut Vec<u8>, reverse_path: &[u8], parameters: &MailParameters) {
    encode(out, &[b"MAIL FROM:<", reverse_path, b">"]);
    if let Some(size) = parameters.size {
        encode(out, &[b" SIZE=", itoa::Buffer::new().format(size).as_bytes()]);
    }
    match parameters.body {
        Some(Body::SevenBit) => out.extend_from_slice(b" BODY=7BIT"),
        Some(Body::EightBitMime) => out.extend_from_slice(b" BODY=8BITMIME"),
        None => {}
    }
    if parameters.smtputf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends RCPT TO; `forward_path` comes without angle brackets.
#[inline]
pub fn encode_rcpt(out: &mut Vec<u8>, forward_path: &[u8]) {
    encode(out, &[b"RCPT TO:<", forward_path, b">\r\n"]);
}

/// Appends the parts of a line. None may hold a CR, LF or NUL: that would let a value become a command of its own, and
/// whoever builds a job has to refuse it long before.
#[inline]
fn encode(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        debug_assert!(
            !part.strip_suffix(b"\r\n").unwrap_or(part).iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0))
        );
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mail_of(reverse_path: &[u8], parameters: MailParameters) -> Result<Command<'_>, CommandError> {
        Ok(Command::Mail(Mail { reverse_path, parameters }))
    }

    fn rcpt_of(forward_path: &[u8]) -> Result<Command<'_>, CommandError> {
        Ok(Command::Rcpt(Rcpt { forward_path, has_8bit: !forward_path.is_ascii() }))
    }

    #[test]
    fn verbs_are_known_in_any_case() {
        for (line, expected) in [
            ("EHLO client.example", Ok(Command::Ehlo { name: b"client.example" })),
            ("ehlo [192.0.2.1] ", Ok(Command::Ehlo { name: b"[192.0.2.1]" })),
            ("HeLo a", Ok(Command::Helo { name: b"a" })),
            ("data", Ok(Command::Data)),
            ("RSET  ", Ok(Command::Rset)),
            ("NOOP and more", Ok(Command::Noop)),
            ("HELP MAIL", Ok(Command::Help)),
            ("VRFY someone", Ok(Command::Vrfy)),
            ("quit", Ok(Command::Quit)),
            ("EHLO", Err(CommandError::ClientName)),
            ("EHLO two words", Err(CommandError::ClientName)),
            ("EHLO \u{e9}", Err(CommandError::ClientName)),
            ("DATA now", Err(CommandError::UnexpectedArgument)),
            ("VRFY", Err(CommandError::MissingArgument)),
            ("StartTLS", Ok(Command::StartTls)),
            ("STARTTLS now", Err(CommandError::UnexpectedArgument)),
            ("auth login", Ok(Command::Auth(Auth::parse(b"LOGIN")))),
            ("bdat 99999999999999999999 LAST", Err(CommandError::NotImplemented)),
            ("ETRN x", Err(CommandError::NotImplemented)),
            ("", Err(CommandError::Unknown)),
            (" QUIT", Err(CommandError::Unknown)),
            ("GET / HTTP/1.1", Err(CommandError::Unknown)),
            ("QUIT\tnow", Err(CommandError::Unknown)),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn paths_of_every_form_are_understood() {
        for (line, path) in [
            ("RCPT TO:<a@b.example>", "a@b.example"),
            ("rcpt to: <a@b.example>", "a@b.example"),
            ("RCPT TO:<postMaster>", "postMaster"),
            ("RCPT TO:<@one.example,@[192.0.2.1]:a@b.example>", "a@b.example"),
            (r#"RCPT TO:<"a b>\"c\\"@b.example>"#, r#""a b>\"c\\"@b.example"#),
            ("RCPT TO:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
            ("RCPT TO:<a..b.@x_y.example>", "a..b.@x_y.example"),
            ("RCPT TO:<j\u{f6}rg@b\u{fc}cher.example>", "j\u{f6}rg@b\u{fc}cher.example"),
        ] {
            assert_eq!(parse(line.as_bytes()), rcpt_of(path.as_bytes()), "{line}");
        }
        assert_eq!(parse(b"MAIL FROM:<>"), mail_of(b"", MailParameters::default()));
    }

    #[test]
    fn malformed_paths_are_refused() {
        let long = [b"<a@", "b.".repeat(126).as_bytes(), b"b>"].concat();
        assert_eq!(long.len(), PATH_BYTES_MAX + 1);
        let paths: [&[u8]; 24] = [
            b"",
            b"a@b",
            b"<",
            b"<a",
            b"<a@",
            b"<a@>",
            b"<a@b",
            b"<@b>",
            b"<a@b>x",
            b"<a b@c>",
            b"<a@b..c>",
            b"<a@-b>",
            b"<a@b-.c>",
            b"<a@[1]2>",
            b"<a@[]>",
            b"<\"a@b>",
            b"<\"a\\",
            b"<a\0@b>",
            b"<a@b\x07>",
            b"<a\x7f@b>",
            b"<@r:>",
            b"<@r a@b>",
            b"<\xff@b>",
            &long,
        ];
        for path in paths {
            assert_eq!(parse(&[b"MAIL FROM:", path].concat()), Err(CommandError::ReversePath), "{path:?}");
            assert_eq!(parse(&[b"RCPT TO:", path].concat()), Err(CommandError::ForwardPath), "{path:?}");
        }
        assert_eq!(parse(b"MAIL FROM:<postmaster>"), Err(CommandError::ReversePath));
        assert_eq!(parse(b"RCPT TO:<>"), Err(CommandError::ForwardPath));
        assert_eq!(parse(b"MAIL <a@b>"), Err(CommandError::MailSyntax));
        assert_eq!(parse(b"RCPT FROM:<a@b>"), Err(CommandError::RcptSyntax));
    }

    #[test]
    fn parameters_are_checked() {
        let size = |size| MailParameters { size: Some(size), ..MailParameters::default() };
        for (parameters, expected) in [
            ("SIZE=18446744073709551615", Ok(size(u64::MAX))),
            ("size=00", Ok(size(0))),
            (
                "BODY=8bitmime SMTPUTF8  SIZE=7",
                Ok(MailParameters { body: Some(Body::EightBitMime), smtputf8: true, size: Some(7) }),
            ),
            ("SIZE=18446744073709551616", Err(CommandError::MailParameterValue)),
            ("SIZE=", Err(CommandError::MailParameterValue)),
            ("SIZE", Err(CommandError::MailParameterValue)),
            ("SIZE=-1", Err(CommandError::MailParameterValue)),
            ("SIZE=1 SIZE=1", Err(CommandError::MailParameterValue)),
            ("BODY=BINARYMIME", Err(CommandError::MailParameterValue)),
            ("SMTPUTF8=yes", Err(CommandError::MailParameterValue)),
            ("RET=FULL", Err(CommandError::MailParameter)),
            ("=", Err(CommandError::MailParameter)),
        ] {
            let line = format!("MAIL FROM:<a@b> {parameters}");
            let expected = expected.map(|parameters| Command::Mail(Mail { reverse_path: b"a@b", parameters }));
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(parse(b"RCPT TO:<a@b> NOTIFY=NEVER"), Err(CommandError::RcptParameter));
    }

    #[test]
    fn the_null_reverse_path_takes_parameters() {
        // Bounces that said how large they are were refused: the space before SIZE counted as part of it.
        let size = MailParameters { size: Some(500), ..MailParameters::default() };
        assert_eq!(parse(b"MAIL FROM:<> SIZE=500"), mail_of(b"", size));
        assert_eq!(parse(b"MAIL FROM:<>  SIZE=500 "), mail_of(b"", size));
        assert_eq!(parse(b"MAIL FROM:<>SIZE=500"), Err(CommandError::ReversePath));
    }

    #[test]
    fn a_reverse_path_beyond_ascii_needs_smtputf8() {
        let line = "MAIL FROM:<\u{e9}@b>";
        assert_eq!(parse(line.as_bytes()), Err(CommandError::ReversePathNeedsUtf8));
        let with = [line, " SMTPUTF8"].concat();
        assert!(parse(with.as_bytes()).is_ok());
    }

    fn parameters() -> impl Strategy<Value = MailParameters> {
        let body = proptest::option::of(proptest::sample::select(vec![Body::SevenBit, Body::EightBitMime]));
        (proptest::option::of(any::<u64>()), body, any::<bool>()).prop_map(|(size, body, smtputf8)| MailParameters {
            size,
            body,
            smtputf8,
        })
    }

    const MAILBOX: &str = r#"([a-z0-9!#$%&'*+/=?^_`{|}~-]{1,9}(\.[a-z0-9]{1,5}){0,2}|"[a-z @<>,:]{1,9}")@([a-z0-9]{1,9}(-[a-z]{1,2})?(\.[a-z]{1,5}){0,3}|\[192\.0\.2\.[1-9]\])"#;

    proptest! {
        #[test]
        fn what_was_encoded_parses_to_itself(path in MAILBOX, parameters in parameters()) {
            let mut out = Vec::new();
            encode_mail(&mut out, path.as_bytes(), &parameters);
            prop_assert_eq!(parse(out.strip_suffix(b"\r\n").unwrap()), mail_of(path.as_bytes(), parameters));
            out.clear();
            encode_rcpt(&mut out, path.as_bytes());
            prop_assert_eq!(parse(out.strip_suffix(b"\r\n").unwrap()), rcpt_of(path.as_bytes()));
            out.clear();
            encode_ehlo(&mut out, b"client.example");
            prop_assert_eq!(parse(out.strip_suffix(b"\r\n").unwrap()), Ok(Command::Ehlo { name: b"client.example" }));
        }

        #[test]
        fn smtp_proto_understands_the_same(
            // It does not take address literals.
            path in MAILBOX.replace(r"|\[192\.0\.2\.[1-9]\]", "").as_str(),
            parameters in parameters()) {
            let mut out = Vec::new();
            // The other parser's sizes are smaller than ours.
            let parameters = MailParameters { size: parameters.size.map(|size| size >> 8), ..parameters };
            encode_mail(&mut out, path.as_bytes(), &parameters);
            let smtp_proto::Request::Mail { from } = smtp_proto::Request::parse(&mut out.iter()).unwrap() else {
                panic!("no MAIL");
            };
            prop_assert_eq!(unquoted(&from.address), unquoted(&path));
            prop_assert_eq!(from.size as u64, parameters.size.unwrap_or(0));
            let flag = |bit| from.flags & bit != 0;
            prop_assert_eq!(flag(smtp_proto::MAIL_SMTPUTF8), parameters.smtputf8);
            prop_assert_eq!(flag(smtp_proto::MAIL_BODY_8BITMIME), parameters.body == Some(Body::EightBitMime));

            out.clear();
            encode_rcpt(&mut out, path.as_bytes());
            let smtp_proto::Request::Rcpt { to } = smtp_proto::Request::parse(&mut out.iter()).unwrap() else {
                panic!("no RCPT");
            };
            prop_assert_eq!(unquoted(&to.address), unquoted(&path));
        }

        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..40), verb in "(MAIL FROM:<|RCPT TO:<|)\"?") {
            let _ = parse(&[verb.as_bytes(), &line].concat());
        }
    }

    /// The other parser may drop the quotes of a local part.
    fn unquoted(path: &str) -> String {
        path.replace('"', "")
    }
}
