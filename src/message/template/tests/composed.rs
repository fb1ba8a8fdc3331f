//! Messages that are given, put together, or have variables.

use super::*;
use crate::message::{Attachment, Entry, RecipientOrder, WeightedSize};

/// The octets behind the fields that are each message's own.
fn behind_date(message: &[u8]) -> &[u8] {
    let at = memchr::memmem::find(message, b"+0000\r\n").unwrap();
    &message[at + 7..]
}

fn of_messages(
    files: &[&str],
    change: impl Fn(GivenSpec<'_>) -> Result<(Template, Conversion), MessageError>,
    to: &Recipients,
) -> Result<Template, MessageError> {
    let messages: Vec<Bytes> = files.iter().map(|file| Bytes::copy_from_slice(file.as_bytes())).collect();
    let spec = GivenSpec {
        messages: &messages,
        verbatim: false,
        variables: None,
        expand: false,
        beside: false,
        recipients: to,
        run_id: 1,
        host: "h",
    };
    change(spec).map(|(template, _)| template)
}

fn checked_render(template: &Template, sequence: u64) -> String {
    let message = render(template, sequence);
    assert_eq!(message.len() as u64, template.bytes(sequence), "message {sequence}");
    lines(&message);
    String::from_utf8(message).unwrap()
}

#[test]
fn a_mix_has_messages_of_exactly_its_sizes() {
    let size = |bytes, weight| WeightedSize { bytes, weight };
    let sizes = Sizes::mix(&[size(1_000, 3), size(20_000, 1), size(501, 1)], 4).unwrap();
    let template = Template::generated(GeneratedSpec { sizes: sizes.clone(), ..spec(0) }).unwrap();
    let mut seen = HashSet::new();
    for sequence in 0..200 {
        assert_eq!(checked_render(&template, sequence).len() as u64, sizes.of(sequence));
        seen.insert(sizes.of(sequence));
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn recipients_of_a_pattern_are_named_and_the_size_stays_exact() {
    let entries = vec![Entry::parse("user{1..999999999999}@example.com").unwrap()];
    let recipients = Recipients::of_entries(entries, 3, RecipientOrder::Random, 5).unwrap();
    let template = Template::generated(GeneratedSpec { recipients: recipients.clone(), ..spec(1_000) }).unwrap();
    for sequence in 0..100 {
        let message = checked_render(&template, sequence);
        assert_eq!(message.len(), 1_000);
        let mut buffer = AddressBuffer::new();
        let first = String::from_utf8(recipients.of(sequence, 0, &mut buffer).to_vec()).unwrap();
        assert!(message.contains(&format!("\r\nTo: <{first}>, <user")), "{message}");
    }
}

#[test]
fn given_messages_take_turns() {
    let files = ["A: 1\n\none\n", "A: 2\n\ntwo and more\n"];
    let template = of_messages(&files, |spec| Template::of_messages(&spec), &recipients(&["a@b"], 1)).unwrap();
    for sequence in 0..4 {
        let expected = files[sequence as usize % 2].replace('\n', "\r\n");
        assert_eq!(behind_date(checked_render(&template, sequence).as_bytes()), expected.as_bytes());
    }
}

#[test]
fn a_message_sent_verbatim_is_what_was_given() {
    let verbatim = |spec: GivenSpec<'_>| Template::of_messages(&GivenSpec { verbatim: true, ..spec });
    let file = "Date: mine\r\nMessage-ID: <x>\r\n\r\n.%recipient%\r\n";
    let template = of_messages(&[file], verbatim, &recipients(&["a@b"], 1)).unwrap();
    assert_eq!(checked_render(&template, 7), file);
    let error = of_messages(&["A: 1\n"], verbatim, &recipients(&["a@b"], 1)).unwrap_err();
    assert_eq!(error, MessageError::LineEnd { line: 1 });
}

#[test]
fn variables_are_replaced_and_dots_doubled_also_across_the_seams() {
    let variables = RecipientVariables::parse(br#"{"a@b":{"dot":".","none":"","n":7},"c@d":{"dot":"x"}}"#).unwrap();
    let to = recipients(&["a@b", "c@d", "e@f"], 1);
    let file = "To: <%recipient%>\r\n\r\n%recipient.dot%x\r\n%recipient.none%.y\r\n%recipient.none%%recipient.dot%.\r\n\
                .%recipient.n%.%recipient.what%\r\n";
    let expand =
        |spec: GivenSpec<'_>| Template::of_messages(&GivenSpec { expand: true, variables: Some(&variables), ..spec });
    let template = of_messages(&[file], expand, &to).unwrap();
    let expected = [
        "To: <a@b>\r\n\r\n.x\r\n.y\r\n..\r\n.7.%recipient.what%\r\n",
        "To: <c@d>\r\n\r\nxx\r\n%recipient.none%.y\r\n%recipient.none%x.\r\n.%recipient.n%.%recipient.what%\r\n",
        &file.replace("<%recipient%>", "<e@f>"),
    ];
    for (sequence, expected) in (0..).zip(expected) {
        assert_eq!(behind_date(checked_render(&template, sequence).as_bytes()), expected.as_bytes());
    }
    let sizes: Vec<u64> = (0..3).map(|sequence| template.bytes(sequence)).collect();
    let stuffed = template.map_content(stuff);
    for (sequence, expected) in (0..).zip(expected) {
        assert_eq!(behind_date(&render(&stuffed, sequence)), stuff(expected.as_bytes()));
        assert_eq!(stuffed.bytes(sequence), sizes[sequence as usize], "the size is that of the message");
    }
}

#[test]
fn a_line_that_would_become_too_long_is_refused() {
    let long = "x".repeat(900);
    let variables = RecipientVariables::parse(format!(r#"{{"a@b":{{"v":"{long}"}}}}"#).as_bytes()).unwrap();
    let expand =
        |spec: GivenSpec<'_>| Template::of_messages(&GivenSpec { expand: true, variables: Some(&variables), ..spec });
    let to = recipients(&["a@b"], 1);
    assert!(of_messages(&["A: 1\n\n%recipient.v%\n%recipient.v%\n"], expand, &to).is_ok());
    let exactly = |more: usize| format!("A: 1\n\n%recipient.v%{}\n", "y".repeat(98 + more));
    assert!(of_messages(&[&exactly(0)], expand, &to).is_ok() && of_messages(&[&exactly(1)], expand, &to).is_err());
    let often = format!("A: 1\n\n{}", "%recipient.v%\n".repeat(1_200));
    let error = of_messages(&[&often], expand, &to).unwrap_err();
    assert_eq!(error, MessageError::ExpansionTooLarge { bytes: 1_080_000 });
    let error = of_messages(&["A: 1\n\n%recipient.v%%recipient.v%\n"], expand, &to).unwrap_err();
    assert!(matches!(error, MessageError::ExpandedLineTooLong { bytes: 1_800 }), "{error}");
}

#[test]
fn variables_go_along_in_a_folded_field_with_a_placeholder_as_to() {
    let json = r#"{"a@b":{"first":"Jörg","n":1},"c@d":{"n":2},"x@y":{"n":3}}"#;
    let variables = RecipientVariables::parse(json.as_bytes()).unwrap();
    let to = recipients(&["a@b", "e@f", "c@d"], 3);
    let file = "To: everybody\r\nSubject: Hi %recipient.first%\r\n\r\nbody\r\n";
    let along = |spec: GivenSpec<'_>| Template::of_messages(&GivenSpec { variables: Some(&variables), ..spec });
    let template = of_messages(&[file], along, &to).unwrap();
    let message = checked_render(&template, 0);
    assert!(!message.contains("everybody"));
    let parsed = MessageParser::default().parse(message.as_bytes()).unwrap();
    assert_eq!(parsed.header_raw("To").unwrap().trim(), "%recipient%");
    assert_eq!(parsed.subject(), Some("Hi %recipient.first%"));
    let field = parsed.header_raw("X-Mailgun-Recipient-Variables").unwrap().replace("\r\n", "");
    let expected = serde_json::json!({"a@b": {"first": "Jörg", "n": 1}, "c@d": {"n": 2}});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&field).unwrap(), expected);
    assert!(!template.is_8bit());
}

fn composed(parts: &Parts, expand: bool, variables: Option<&RecipientVariables>) -> Result<Template, MessageError> {
    composed_for(parts, expand, false, variables)
}

fn composed_for(
    parts: &Parts,
    expand: bool,
    beside: bool,
    variables: Option<&RecipientVariables>,
) -> Result<Template, MessageError> {
    let from = ReversePath::parse("sender@example.com").unwrap();
    let to = recipients(&["a@b"], 1);
    let spec = ComposedSpec { parts, from: &from, variables, expand, beside, recipients: &to, run_id: 1, host: "h" };
    Template::composed(&spec)
}

fn attachment(name: &str, content: &[u8]) -> Attachment {
    Attachment { name: name.to_owned(), content: Bytes::copy_from_slice(content) }
}

#[test]
fn a_composed_message_is_understood_by_a_parser() {
    let long_name = format!("{}é.pdf", "n".repeat(100));
    let binary: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let texts = [Some("plain\n.dots\n".to_owned()), Some("Grüße\n".to_owned()), Some("x".repeat(2_000)), None];
    let subjects =
        [None, Some("short".to_owned()), Some("Grüße an alle, ".repeat(20) + "!"), Some("=?utf-8?q?no?=".to_owned())];
    let attached =
        [vec![], vec![attachment("a \"b\".txt", b"text"), attachment(&long_name, &binary), attachment("empty", b"")]];
    for (text, html) in texts.iter().flat_map(|text| texts.iter().map(move |html| (text, html))) {
        for (subject, attachments) in subjects.iter().flat_map(|subject| attached.iter().map(move |all| (subject, all)))
        {
            if text.is_none() && html.is_none() {
                continue;
            }
            check_composed(&Parts {
                subject: subject.clone(),
                text: text.clone(),
                html: html.clone(),
                attachments: attachments.clone(),
            });
        }
    }
}

fn check_composed(parts: &Parts) {
    use mail_parser::MimeHeaders as _;
    let message = checked_render(&composed(parts, false, None).unwrap(), 3);
    assert!(message.split("\r\n").all(|line| line.len() <= LINE_BYTES_MAX));
    let parsed = MessageParser::default().parse(message.as_bytes()).unwrap();
    assert_eq!(parsed.subject(), Some(parts.subject.as_deref().unwrap_or(generate::SUBJECT)));
    let same = |found: Option<std::borrow::Cow<'_, str>>, given: &Option<String>| {
        let Some(given) = given else { return };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&found.unwrap()), words(given), "{message}");
    };
    same(parsed.body_text(0), &parts.text);
    same(parsed.body_html(0), &parts.html);
    assert_eq!(parsed.attachment_count(), parts.attachments.len(), "{message}");
    for (found, attachment) in parsed.attachments().zip(&parts.attachments) {
        assert_eq!(found.attachment_name(), Some(&*attachment.name), "{message}");
        assert_eq!(found.contents(), attachment.content);
    }
    assert_eq!(parsed.to().unwrap().first().unwrap().address(), Some("a@b"));
}

#[test]
fn a_composed_message_has_its_variables_replaced_or_sent_along() {
    let variables = RecipientVariables::parse(r#"{"a@b":{"first":"Jörg"}}"#.as_bytes()).unwrap();
    let parts = Parts {
        subject: Some("Hi %recipient.first%".into()),
        text: Some("%recipient.first%\n".into()),
        ..Parts::default()
    };
    let replaced = composed(&parts, true, Some(&variables)).unwrap();
    let message = checked_render(&replaced, 0);
    assert!(message.contains("\r\nSubject: Hi Jörg\r\n") && message.ends_with("\r\n\r\nJörg\r\n"), "{message}");
    assert!(message.contains("\r\nTo: <a@b>\r\n") && replaced.is_8bit() && replaced.is_8bit_header());
    let along = checked_render(&composed(&parts, false, Some(&variables)).unwrap(), 0);
    assert!(along.contains("\r\nTo: %recipient%\r\n") && along.ends_with("%recipient.first%\r\n"), "{along}");
    let field = "X-Mailgun-Recipient-Variables: {\r\n \"a@b\":{\"first\":\"J\\u00f6rg\"}}\r\n";
    assert!(along.contains(field), "{along}");
    let long = Parts { text: Some(format!("%recipient%{}", "x".repeat(1_000))), ..Parts::default() };
    assert_eq!(composed(&long, true, None).unwrap_err(), MessageError::EncodedVariables);
}

#[test]
fn variables_that_go_beside_a_message_leave_readable_placeholders() {
    let json = r#"{"a@b":{"first":"Jörg"}}"#;
    let variables = RecipientVariables::parse(json.as_bytes()).unwrap();
    let parts = Parts {
        subject: Some("Grüße, %recipient.first%".into()),
        text: Some("Hi %recipient.first%\n".into()),
        html: Some("<p>Hallo\n".into()),
        ..Parts::default()
    };
    let message = checked_render(&composed_for(&parts, false, true, Some(&variables)).unwrap(), 0);
    assert!(message.contains("\r\nTo: %recipient%\r\n") && !message.contains("X-Mailgun"), "{message}");
    assert!(message.contains("\r\nSubject: Grüße, %recipient.first%\r\n"), "{message}");
    assert!(
        message.contains("text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nHi %recip"),
        "{message}"
    );
    assert!(message.contains("text/html; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n"), "{message}");
    let beside =
        |spec: GivenSpec<'_>| Template::of_messages(&GivenSpec { beside: true, variables: Some(&variables), ..spec });
    let template = of_messages(&["To: all\n\n%recipient.first%\n"], beside, &recipients(&["a@b"], 1)).unwrap();
    let message = checked_render(&template, 0);
    assert!(message.ends_with("\r\nTo: %recipient%\r\n\r\n%recipient.first%\r\n"), "{message}");
}

#[test]
fn a_charset_is_no_wider_and_no_narrower_than_its_text() {
    let variables =
        |value: &str| RecipientVariables::parse(format!(r#"{{"a@b":{{"v":"{value}"}}}}"#).as_bytes()).unwrap();
    let long = "x".repeat(1_000);
    for (text, value, expected) in [
        ("plain", None, ("us-ascii", "7bit")),
        ("Grüße", None, ("utf-8", "base64")),
        (&long, None, ("us-ascii", "base64")),
        ("%recipient.v%", Some("plain"), ("us-ascii", "7bit")),
        ("%recipient.v%", Some("Jörg"), ("utf-8", "8bit")),
        ("Grüße %recipient.v%", Some("plain"), ("utf-8", "8bit")),
        ("plain", Some("Jörg"), ("us-ascii", "7bit")),
        ("Grüße", Some("plain"), ("utf-8", "base64")),
    ] {
        let parts = Parts { text: Some(text.to_owned()), ..Parts::default() };
        let variables = value.map(variables);
        for expand in [false, true] {
            if expand && variables.is_none() {
                continue;
            }
            let message = checked_render(&composed(&parts, expand, variables.as_ref()).unwrap(), 0);
            let (charset, encoding) = expected;
            let fields = format!("charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n");
            assert!(message.contains(&fields), "{text} {value:?} {expand}: {message}");
        }
    }
}
