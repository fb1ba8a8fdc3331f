//! Forms as a server reads them.

use super::*;
use crate::message::{Attachment, Entry, GeneratedSpec, Mailbox, MimeForm, MimeFormSpec, RecipientOrder, Template};

const WALL: WallTime = WallTime::from_unix_ns(1_700_000_000_000_000_000);

fn recipients(list: &[&str], per_message: u32) -> Recipients {
    let entries = list.iter().map(|text| Entry::parse(text).unwrap()).collect();
    Recipients::of_entries(entries, per_message, RecipientOrder::Sequential, 0).unwrap()
}

fn from() -> ReversePath {
    ReversePath::parse("sender@example.com").unwrap()
}

fn variables() -> RecipientVariables {
    RecipientVariables::parse(br#"{"a+1@x":{"first":"A & \"B\"","id":1},"u3@x":{"id":3}}"#).unwrap()
}

fn spec<'a>(content: FormContent<'a>, from: &'a ReversePath, recipients: &'a Recipients) -> FormSpec<'a> {
    FormSpec { content, from, recipients, variables: None, options: &[], seed: 1, run_id: 0xfeed, host: "h.example" }
}

fn render(form: &Form, sequence: u64) -> Vec<u8> {
    let mut out = Outgoing::new();
    out.push(b"head");
    form.write(sequence, WALL, &mut DateCache::new(), &mut out);
    let body = out.to_vec().split_off(4);
    assert_eq!(body.len() as u64, form.bytes(sequence), "message {sequence}");
    body
}

fn fields(body: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The parts of a multipart form: the lines of its header, and its content.
fn parts(body: &[u8], content_type: &str) -> Vec<(String, Vec<u8>)> {
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=\"").unwrap().strip_suffix('"').unwrap();
    let delimiter = format!("\r\n--{boundary}");
    let body = [b"\r\n", body].concat();
    let mut found = Vec::new();
    let mut rest = &body[delimiter.len()..];
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = memchr::memmem::find(part, delimiter.as_bytes()).unwrap();
        let head = memchr::memmem::find(part, b"\r\n\r\n").unwrap();
        found.push((String::from_utf8(part[..head].to_vec()).unwrap(), part[head + 4..end].to_vec()));
        rest = &part[end + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n");
    found
}

#[test]
fn a_form_has_every_field_as_it_was_given() {
    let (from, to) = (from(), recipients(&["a+1@x", "u{2..9}@x"], 2));
    let given = Parts {
        subject: Some("Grüße & 100 %".into()),
        text: Some("Hi %recipient.first%,\r\nyou = me\n".into()),
        html: Some("<p>+</p>".into()),
        attachments: Vec::new(),
    };
    let (options, variables) = (pairs(&[("o:tag", "a b"), ("v:x y", "{\"k\":1}")]), variables());
    let spec =
        FormSpec { options: &options, variables: Some(&variables), ..spec(FormContent::Parts(&given), &from, &to) };
    let form = Form::new(&spec).unwrap();
    assert_eq!(form.content_type(), "application/x-www-form-urlencoded");
    let mut expected = pairs(&[
        ("from", "sender@example.com"),
        ("to", "a+1@x"),
        ("to", "u2@x"),
        ("recipient-variables", "{\"a+1@x\":{\"first\":\"A & \\\"B\\\"\",\"id\":1}}"),
        ("h:Message-Id", "<0000000000000000.000000000000feed@h.example>"),
        ("subject", "Grüße & 100 %"),
        ("o:tag", "a b"),
        ("v:x y", "{\"k\":1}"),
        ("text", "Hi %recipient.first%,\r\nyou = me\n"),
        ("html", "<p>+</p>"),
    ]);
    assert_eq!(fields(&render(&form, 0)), expected);
    (expected[1].1, expected[2].1) = ("u3@x".into(), "u4@x".into());
    expected[3].1 = "{\"u3@x\":{\"id\":3}}".into();
    expected[4].1 = "<0000000000000001.000000000000feed@h.example>".into();
    assert_eq!(fields(&render(&form, 1)), expected);
    expected[3].1 = "{}".into();
    assert_eq!(fields(&render(&form, 2))[3], expected[3], "nobody of these has variables");
}

#[test]
fn a_message_id_of_ones_own_is_the_only_one() {
    let (from, to) = (from(), recipients(&["a@x"], 1));
    let (parts, options) = (Parts { text: Some("x".into()), ..Parts::default() }, pairs(&[("h:message-ID", "<a@b>")]));
    let form = Form::new(&FormSpec { options: &options, ..spec(FormContent::Parts(&parts), &from, &to) }).unwrap();
    let ids: Vec<_> = fields(&render(&form, 7)).into_iter().filter(|(name, _)| name.starts_with("h:")).collect();
    assert_eq!(ids, options);
}

#[test]
fn a_generated_form_has_exactly_the_size_asked_for() {
    let (from, to) = (from(), recipients(&["a@x", "bö@example.com", "long{1..1000}@example.com"], 3));
    let form = |bytes| {
        let sizes = Sizes::exactly(bytes);
        Form::new(&spec(FormContent::Generated { sizes: &sizes, subject: Some("a b") }, &from, &to))
    };
    let least = match form(0) {
        Err(MessageError::TooSmall { least, .. }) => least,
        other => panic!("{other:?}"),
    };
    let mut lasts = std::collections::HashSet::new();
    for bytes in (least..least + 300).chain([9_000, 100_000]) {
        let form = form(bytes).unwrap();
        for sequence in [0, 1, 2, 500, 1_001] {
            let body = render(&form, sequence);
            assert_eq!(body.len() as u64, bytes);
            let fields = fields(&body);
            assert_eq!(fields.len(), 7, "{fields:?}");
            let (name, text) = &fields[6];
            assert_eq!(name, "text");
            assert!(!text.contains('%') && text.lines().all(|line| line.len() <= 76 + 5), "{text:?}");
            assert!(!text.ends_with('\r'), "{text:?}");
            lasts.insert(text.chars().last());
        }
    }
    assert!(lasts.contains(&Some('.')) && lasts.contains(&Some('\n')), "line ends were met: {lasts:?}");
}

#[test]
fn large_contents_are_shared_and_small_ones_copied() {
    let (from, to) = (from(), recipients(&["a@x"], 1));
    for (bytes, is_shared) in [(1_024, false), (100_000, true)] {
        let sizes = Sizes::exactly(bytes);
        let form = Form::new(&spec(FormContent::Generated { sizes: &sizes, subject: None }, &from, &to)).unwrap();
        let mut out = Outgoing::new();
        form.write(0, WALL, &mut DateCache::new(), &mut out);
        assert_eq!(out.has_shared(), is_shared);
    }
}

#[test]
fn attachments_make_it_a_multipart_form() {
    let (from, to, variables) = (from(), recipients(&["a+1@x"], 1), variables());
    // A boundary that would be chosen stands in the content.
    let taken = free_boundary(0xfeed, |_| false);
    let content = Bytes::from(format!("\0\u{1}\r\n--{taken}--\r\n").into_bytes());
    let given = Parts {
        text: Some("two\r\nlines".into()),
        attachments: vec![Attachment { name: "a \"b\".pdf".into(), content: content.clone() }],
        ..Parts::default()
    };
    let spec = FormSpec { variables: Some(&variables), ..spec(FormContent::Parts(&given), &from, &to) };
    let form = Form::new(&spec).unwrap();
    assert!(!form.content_type().contains(&taken));
    let parts = parts(&render(&form, 0), form.content_type());
    let named = |name: &str| {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"");
        let found = parts.iter().find(|(fields, _)| *fields == head).unwrap_or_else(|| panic!("{name} in {parts:?}"));
        String::from_utf8(found.1.clone()).unwrap()
    };
    assert_eq!((named("from").as_str(), named("to").as_str()), ("sender@example.com", "a+1@x"));
    assert_eq!((named("text").as_str(), named("subject").as_str()), ("two\r\nlines", SUBJECT));
    assert_eq!(named("recipient-variables"), "{\"a+1@x\":{\"first\":\"A & \\\"B\\\"\",\"id\":1}}");
    let file = parts.last().unwrap();
    assert_eq!(
        file.0,
        "Content-Disposition: form-data; name=\"attachment\"; filename=\"a %22b%22.pdf\"\r\nContent-Type: application/pdf"
    );
    assert_eq!(file.1, content);
}

#[test]
fn a_mime_form_has_every_recipient_and_the_message_as_a_file() {
    let (to, variables) = (recipients(&["a+1@x", "u3@x"], 2), variables());
    for bytes in [1_000, 50_000] {
        let template = |run_id| {
            let spec = GeneratedSpec {
                sizes: Sizes::exactly(bytes),
                subject: None,
                from: from(),
                recipients: to.clone(),
                seed: 1,
                run_id,
                host: "h".into(),
            };
            Template::generated(spec).unwrap()
        };
        let options = pairs(&[("o:testmode", "yes")]);
        let spec = MimeFormSpec {
            template: template(9),
            recipients: &to,
            variables: Some(&variables),
            options: &options,
            run_id: 9,
        };
        let form = MimeForm::new(spec);
        let (mut out, mut message) = (Outgoing::new(), Outgoing::new());
        form.write(5, WALL, &mut DateCache::new(), &mut out);
        template(9).write(5, WALL, &mut DateCache::new(), &mut message);
        assert_eq!(out.len() as u64, form.bytes(5));
        assert_eq!(out.has_shared(), bytes > COPY_BYTES_MAX as u64);
        let parts = parts(&out.to_vec(), form.content_type());
        let field = |name: &str, value: &str| {
            (format!("Content-Disposition: form-data; name=\"{name}\""), value.as_bytes().to_vec())
        };
        assert_eq!(parts[..2], [field("to", "a+1@x"), field("to", "u3@x")]);
        assert_eq!(parts[3], field("o:testmode", "yes"));
        let head = "Content-Disposition: form-data; name=\"message\"; filename=\"message.mime\"\r\nContent-Type: message/rfc822";
        assert_eq!(parts[4], (head.to_owned(), message.to_vec()));
    }
}

#[test]
fn the_null_path_still_has_an_author() {
    let to = Recipients::new(vec![Mailbox::parse("a@x").unwrap()], 1).unwrap();
    let parts = Parts { text: Some("x".into()), ..Parts::default() };
    let form = Form::new(&spec(FormContent::Parts(&parts), &ReversePath::Null, &to)).unwrap();
    assert_eq!(fields(&render(&form, 0))[0].1, "MAILER-DAEMON@h.example");
}
