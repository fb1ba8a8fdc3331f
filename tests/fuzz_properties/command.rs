//! One line of a client, whatever its octets: what is taken is written and taken again as the same, and smtp-proto
//! understands it in the same way, but for what `is_common` lists.

use timecop::wire::smtp::command::{self, Body, Command, Mail};

/// Asserts all of it for one input, a line without its CRLF.
pub fn check(input: &[u8]) {
    // The scanner lets no such line through.
    if input.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
        return;
    }
    match command::parse(input) {
        Ok(parsed) => {
            check_again(parsed);
            check_other(input, parsed);
        }
        Err(error) => assert!(error.reply().ends_with(b"\r\n") && matches!(error.reply()[0], b'5')),
    }
}

fn check_again(parsed: Command<'_>) {
    let mut out = Vec::new();
    match parsed {
        Command::Mail(Mail { reverse_path, parameters }) => command::encode_mail(&mut out, reverse_path, &parameters),
        Command::Rcpt(rcpt) => command::encode_rcpt(&mut out, rcpt.forward_path),
        Command::Ehlo { name } => command::encode_ehlo(&mut out, name),
        Command::Helo { name } => command::encode_helo(&mut out, name),
        _ => return,
    }
    let line = out.strip_suffix(b"\r\n").expect("a command ends its line");
    assert_eq!(command::parse(line), Ok(parsed), "{}", line.escape_ascii());
}

/// What is taken here must be taken there, where it is right.
fn check_other(input: &[u8], parsed: Command<'_>) {
    let line = [input, b"\r\n"].concat();
    let other = smtp_proto::Request::parse(&mut line.iter());
    match parsed {
        Command::Mail(Mail { reverse_path, parameters }) if is_common(input, reverse_path) => {
            let Ok(smtp_proto::Request::Mail { from }) = other else { panic!("{} is {other:?}", line.escape_ascii()) };
            assert_eq!(from.address.as_bytes(), reverse_path, "{}", line.escape_ascii());
            assert_eq!(from.size as u64, parameters.size.unwrap_or(0), "{}", line.escape_ascii());
            assert_eq!(from.flags & smtp_proto::MAIL_SMTPUTF8 != 0, parameters.smtputf8);
            let is_8bit = parameters.body == Some(Body::EightBitMime);
            assert_eq!(from.flags & smtp_proto::MAIL_BODY_8BITMIME != 0, is_8bit);
        }
        Command::Rcpt(rcpt) if is_common(input, rcpt.forward_path) => {
            let Ok(smtp_proto::Request::Rcpt { to }) = other else { panic!("{} is {other:?}", line.escape_ascii()) };
            assert_eq!(to.address.as_bytes(), rcpt.forward_path, "{}", line.escape_ascii());
        }
        Command::Data => assert_eq!(other, Ok(smtp_proto::Request::Data)),
        Command::Rset => assert_eq!(other, Ok(smtp_proto::Request::Rset)),
        Command::Quit => assert_eq!(other, Ok(smtp_proto::Request::Quit)),
        Command::StartTls => assert_eq!(other, Ok(smtp_proto::Request::StartTls)),
        _ => {}
    }
}

/// Whether both parsers are to agree over a path. The differences are known: smtp-proto drops quotes, takes no address
/// literals, no `postmaster` without a domain, no source routes and no local part with a dot at its ends or two in a row, holds
/// sizes in fewer bits, and has limits of its own for long paths.
fn is_common(line: &[u8], path: &[u8]) -> bool {
    let is_odd = |octet: &u8| matches!(octet, b'"' | b'[' | b'\\' | b':');
    let behind = line.iter().position(|octet| *octet == b':').map_or(line, |at| &line[at + 1..]);
    let size_digits = line.iter().filter(|octet| octet.is_ascii_digit()).count();
    let local = path.split(|octet| *octet == b'@').next().unwrap_or_default();
    let has_stray_dot = local.split(|octet| *octet == b'.').any(<[u8]>::is_empty) && !local.is_empty();
    !behind.iter().any(is_odd)
        && !has_stray_dot
        && (path.is_empty() || path.contains(&b'@'))
        && size_digits < 18
        && path.len() < 200
}
