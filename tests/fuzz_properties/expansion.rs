//! Texts with variables, whatever their octets: what is written is what a naive replacement makes of them, its size is known
//! before, and dots that begin a line are doubled, wherever they come from.

use timecop::message::{
    DateCache, GivenSpec, Mailbox, RawBody, RawBodySpec, RecipientVariables, Recipients, ReversePath, Template,
};
use timecop::outgoing::Outgoing;
use timecop::time::WallTime;
use timecop::wire::smtp::data;

const VARIABLES: &[u8] = br#"{"a@b":{"v":".","e":"","two words":"x.y"},"c@d":{"v":"\u00e9"}}"#;
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 +0000";
const WALL: WallTime = WallTime::from_unix_ns(1_700_000_000_000_000_000);

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let list = ["a@b", "c@d", "e@f"].map(|text| Mailbox::parse(text).expect("the address is valid"));
    let recipients = Recipients::new(list.to_vec(), 1).expect("there are some");
    let variables = RecipientVariables::parse(VARIABLES).expect("the variables are valid");
    check_raw(input, &recipients, &variables);
    check_message(input, &recipients, &variables);
}

fn check_raw(input: &[u8], recipients: &Recipients, variables: &RecipientVariables) {
    let body = RawBody::new(RawBodySpec {
        data: input.to_vec().into(),
        content_type: "text/plain".to_owned(),
        from: &ReversePath::parse("f@g").expect("the address is valid"),
        recipients,
        variables: Some(variables),
        run_id: 0xfeed,
        host: "h",
    });
    let Ok(body) = body else { return };
    for sequence in 0..3 {
        let mut tokens = of_recipient(sequence);
        tokens.extend([
            ("%from%", "f@g".to_owned()),
            ("%message_id%", format!("{sequence:016x}.000000000000feed@h")),
            ("%date%", DATE.to_owned()),
            ("%sequence%", sequence.to_string()),
        ]);
        let mut out = Outgoing::new();
        body.write(sequence, WALL, &mut DateCache::new(), &mut out);
        assert_eq!(out.to_vec(), replaced(input, &tokens), "message {sequence}");
        assert_eq!(out.len() as u64, body.bytes(sequence), "message {sequence}");
    }
}

fn check_message(input: &[u8], recipients: &Recipients, variables: &RecipientVariables) {
    let content = [b"A: b\r\n\r\n", input, b"\r\n"].concat();
    let messages = [content.clone().into()];
    let spec = GivenSpec {
        messages: &messages,
        verbatim: false,
        variables: Some(variables),
        expand: true,
        beside: false,
        recipients,
        run_id: 1,
        host: "h",
    };
    // What no mail may contain is refused; line ends that had to be mended are another story.
    let Ok((template, conversion)) = Template::of_messages(&spec) else { return };
    if conversion.is_any() {
        return;
    }
    let template = template.map_content(data::stuff);
    for sequence in 0..3 {
        let expected = replaced(&content, &of_recipient(sequence));
        let mut out = Outgoing::new();
        template.write(sequence, WALL, &mut DateCache::new(), &mut out);
        let message = out.to_vec();
        let head = message.windows(7).position(|window| window == b"+0000\r\n").expect("a message has a date") + 7;
        assert_eq!(message[head..], data::stuff(&expected), "message {sequence}");
        assert_eq!(template.bytes(sequence), (head + expected.len()) as u64, "message {sequence}");
    }
}

fn of_recipient(sequence: u64) -> Vec<(&'static str, String)> {
    let of = |list: &[(&'static str, &str)]| list.iter().map(|(token, value)| (*token, (*value).to_owned())).collect();
    match sequence {
        0 => of(&[
            ("%recipient%", "a@b"),
            ("%recipient.v%", "."),
            ("%recipient.e%", ""),
            ("%recipient.two words%", "x.y"),
        ]),
        1 => of(&[("%recipient%", "c@d"), ("%recipient.v%", "\u{e9}")]),
        _ => of(&[("%recipient%", "e@f")]),
    }
}

/// The naive way: at each octet, is there a variable?
fn replaced(text: &[u8], tokens: &[(&str, String)]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let rest = &text[at..];
        if let Some((token, value)) = tokens.iter().find(|(token, _)| rest.starts_with(token.as_bytes())) {
            out.extend_from_slice(value.as_bytes());
            at += token.len();
        } else {
            let kept = kept(rest).unwrap_or(1);
            out.extend_from_slice(&rest[..kept]);
            at += kept;
        }
    }
    out
}

/// Octets of a variable that the recipient lacks: it stays as it is, and its percent signs are its own.
fn kept(rest: &[u8]) -> Option<usize> {
    let name = rest.strip_prefix(b"%recipient.")?;
    let length = name.iter().position(|octet| *octet == b'%')?;
    let name = std::str::from_utf8(&name[..length]).ok()?;
    let is_name = !name.is_empty() && !name.contains(char::is_control) && "recipient.".len() + length <= 256;
    is_name.then_some("%recipient.".len() + length + 1)
}
