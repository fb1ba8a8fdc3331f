//! Messages as they are written: sizes, headers, line ends, what is shared.

mod composed;

use std::collections::HashSet;

use mail_parser::{Address, MessageParser};
use proptest::prelude::*;

use super::*;
use crate::message::{Mailbox, ReversePath};

const WALL: WallTime = WallTime::from_unix_ns(1_700_000_000_000_000_000);
const WALL_TEXT: &str = "Tue, 14 Nov 2023 22:13:20 +0000";

fn recipients(list: &[&str], per_message: u32) -> Recipients {
    let list = list.iter().map(|text| Mailbox::parse(text).unwrap()).collect();
    Recipients::new(list, per_message).unwrap()
}

fn spec(bytes: u64) -> GeneratedSpec {
    GeneratedSpec {
        sizes: Sizes::exactly(bytes),
        subject: None,
        from: ReversePath::parse("sender@example.com").unwrap(),
        recipients: recipients(&["load@example.com"], 1),
        seed: 1,
        run_id: 0xfeed,
        host: "mail.example.com".into(),
    }
}

/// Recipients of lengths from 3 to 70 octets, so that heads differ and a To field must be folded.
fn uneven() -> Recipients {
    let list: Vec<String> = (0..67).map(|i| format!("{}@b", "r".repeat(1 + i % 64)) + &"c".repeat(i % 5)).collect();
    recipients(&list.iter().map(String::as_str).collect::<Vec<_>>(), 3)
}

fn least(spec: &GeneratedSpec) -> u64 {
    match Template::generated(GeneratedSpec { sizes: Sizes::exactly(0), ..spec.clone() }) {
        Err(MessageError::TooSmall { bytes: 0, least }) => least,
        other => panic!("expected too small, got {other:?}"),
    }
}

fn render(template: &Template, sequence: u64) -> Vec<u8> {
    let (mut dates, mut out) = (DateCache::new(), Outgoing::new());
    template.write(sequence, WALL, &mut dates, &mut out);
    out.to_vec()
}

/// Asserts CRLF and nothing else at line ends, and gives the lines without it.
fn lines(message: &[u8]) -> Vec<&[u8]> {
    let text = message.strip_suffix(b"\r\n").expect("the message ends in CRLF");
    let lines: Vec<&[u8]> = text.split(|&c| c == b'\n').collect();
    let (last, others) = lines.split_last().unwrap();
    let others = others.iter().map(|line| line.strip_suffix(b"\r").expect("every LF follows a CR"));
    let lines: Vec<&[u8]> = others.chain([*last]).collect();
    assert!(lines.iter().all(|line| !line.contains(&b'\r')), "a CR stands alone");
    lines
}

#[test]
fn a_generated_message_has_exactly_the_size_asked_for() {
    let uneven = GeneratedSpec { recipients: uneven(), ..spec(0) };
    let least = least(&uneven);
    let larger = [1_024, 4_095, 8_191, 8_192, 8_193, 9_000, 65_537, 99_999, 1_000_003];
    for bytes in (least..=least + 300).chain(larger) {
        let template = Template::generated(GeneratedSpec { sizes: Sizes::exactly(bytes), ..uneven.clone() }).unwrap();
        for sequence in (0..67).chain([u64::MAX]) {
            let message = render(&template, sequence);
            assert_eq!(message.len() as u64, bytes, "message {sequence}");
            assert_eq!(template.bytes(sequence), bytes);
            for line in lines(&message) {
                assert!(
                    line.len() <= LINE_BYTES_GOOD && !line.starts_with(b"."),
                    "{:?}",
                    String::from_utf8_lossy(line)
                );
            }
        }
    }
}

#[test]
fn a_size_out_of_bounds_is_refused() {
    let least = least(&spec(0));
    assert!(Template::generated(spec(least)).is_ok());
    let error = Template::generated(spec(least - 1)).unwrap_err();
    assert_eq!(error, MessageError::TooSmall { bytes: least - 1, least });
    assert!(error.to_string().contains(&format!("at least {least} octets")));
    let bytes = MESSAGE_BYTES_MAX + 1;
    assert_eq!(Template::generated(spec(bytes)).unwrap_err(), MessageError::TooLarge { bytes });
}

#[test]
fn a_generated_message_is_understood_by_a_parser() {
    let list = ["a@example.com", "\"b c\"@example.com", "d@[127.0.0.1]", "e@localhost"];
    let spec = GeneratedSpec { recipients: recipients(&list, 3), ..spec(2_000) };
    let template = Template::generated(spec).unwrap();
    let raw = render(&template, 0x2a);
    let message = MessageParser::default().parse(&raw).unwrap();
    let addresses = |address: Option<&Address>| -> Vec<String> {
        address.unwrap().iter().map(|a| a.address().unwrap().to_owned()).collect()
    };
    assert_eq!(addresses(message.from()), ["sender@example.com"]);
    // 42 × 3 mod 4 = 2.
    let to = lines(&raw)[2];
    assert_eq!(to, b"To: <d@[127.0.0.1]>, <e@localhost>, <a@example.com>");
    assert_eq!(addresses(message.to()), ["d@[127.0.0.1]", "e@localhost", "a@example.com"]);
    assert_eq!(message.subject(), Some("timecop load message"));
    assert_eq!(message.date().unwrap().to_timestamp(), 1_700_000_000);
    assert_eq!(message.message_id(), Some("000000000000002a.000000000000feed@mail.example.com"));
    let body = message.body_text(0).unwrap();
    let at = memchr::memmem::find(&raw, b"\r\n\r\n").unwrap();
    assert!(body.split_whitespace().eq(std::str::from_utf8(&raw[at..]).unwrap().split_whitespace()));
    assert!(body.len() > 1_500);
    assert!(body.split_whitespace().all(|word| word.len() <= 9));
    assert_eq!(message.attachment_count(), 0);
    assert!(!template.is_8bit());
}

#[test]
fn addresses_and_hosts_that_fill_a_line_are_folded() {
    let long = format!("{}@{}", "l".repeat(64), ["d".repeat(60), "e".repeat(60), "f".repeat(60)].join("."));
    let spec = GeneratedSpec {
        from: ReversePath::parse(&long).unwrap(),
        recipients: recipients(&[&long, "b@c"], 2),
        host: "h".repeat(40),
        ..spec(1_500)
    };
    let raw = render(&Template::generated(spec).unwrap(), 0);
    let text = String::from_utf8(raw.clone()).unwrap();
    assert!(text.starts_with("Message-ID:\r\n <0000000000000000."));
    assert!(
        text.contains(&format!("\r\nTo:\r\n <{long}>\r\n")) && text.contains(&format!("\r\nFrom:\r\n <{long}>\r\n"))
    );
    let message = MessageParser::default().parse(&raw).unwrap();
    assert_eq!(message.to().unwrap().first().unwrap().address(), Some(long.as_str()));
    assert!(message.message_id().unwrap().ends_with(&"h".repeat(40)));
    assert_eq!(raw.len(), 1_500);
}

#[test]
fn a_null_reverse_path_still_has_an_author() {
    let spec = GeneratedSpec { from: ReversePath::Null, ..spec(1_024) };
    let text = String::from_utf8(render(&Template::generated(spec).unwrap(), 0)).unwrap();
    assert!(text.contains("\r\nFrom: <MAILER-DAEMON@mail.example.com>\r\n"));
}

#[test]
fn addresses_beyond_ascii_make_the_header_8bit() {
    let spec = GeneratedSpec { recipients: recipients(&["a@b", "jörg@example.com"], 1), ..spec(1_024) };
    let template = Template::generated(spec).unwrap();
    assert!(template.is_8bit() && template.is_8bit_header());
    assert!((0..2).all(|sequence| render(&template, sequence).len() == 1_024));
}

#[test]
fn two_runs_share_no_message_id() {
    let mut seen = HashSet::new();
    for run_id in [1, 2] {
        let template = Template::generated(GeneratedSpec { run_id, ..spec(1_024) }).unwrap();
        for sequence in 0..1_000 {
            let message = render(&template, sequence);
            assert!(seen.insert(lines(&message)[0].to_vec()));
        }
    }
}

#[test]
fn the_seed_repeats_everything_but_message_id_and_date() {
    let build = |seed, run_id| Template::generated(GeneratedSpec { seed, run_id, ..spec(3_000) }).unwrap();
    let rest = |seed, run_id| lines(&render(&build(seed, run_id), 9))[2..].concat();
    assert_eq!(rest(1, 1), rest(1, 2));
    assert_ne!(rest(1, 1), rest(2, 1));
}

#[test]
fn a_large_content_is_shared_and_a_small_one_copied() {
    for (bytes, is_shared) in [(1_024, false), (8_000, false), (9_000, true)] {
        let template = Template::generated(spec(bytes)).unwrap();
        let mut out = Outgoing::new();
        template.write(0, WALL, &mut DateCache::new(), &mut out);
        assert_eq!(out.has_shared(), is_shared, "{bytes} octets");
        assert_eq!(out.len() as u64, bytes);
    }
}

#[test]
fn the_largest_message_can_be_built() {
    let template = Template::generated(spec(MESSAGE_BYTES_MAX)).unwrap();
    let mut out = Outgoing::new();
    template.write(7, WALL, &mut DateCache::new(), &mut out);
    assert_eq!(out.len() as u64, MESSAGE_BYTES_MAX);
    assert!(out.segments()[2].ends_with(b"\r\n"));
}

#[test]
fn a_host_that_fits_no_message_id_is_refused() {
    for host in ["", "a b", "a\r\nX: y", "a@b", "hö.example", ">"] {
        let expected = MessageError::Host { host: host.into() };
        assert_eq!(Template::generated(GeneratedSpec { host: host.into(), ..spec(1_024) }).unwrap_err(), expected);
        assert_eq!(Template::given(b"A: 1\r\n", 0, host).unwrap_err(), expected);
    }
}

#[test]
fn a_given_message_gets_a_message_id_and_a_date_of_its_own() {
    let file =
        b"Subject: x\nDate: Mon, 1 Jan 2001 00:00:00 +0000\nMessage-ID:\n <old@host>\nTo: a@b\n\nGr\xc3\xbc\xc3\x9fe\n";
    let (template, conversion) = Template::given(file, 0xfeed, "h").unwrap();
    assert_eq!(conversion, Conversion { bare_lf_lines: 7, final_crlf_added: false });
    let expected = format!(
        "Message-ID: <00000000000000ff.000000000000feed@h>\r\nDate: {WALL_TEXT}\r\nSubject: x\r\nTo: a@b\r\n\r\nGrüße\r\n"
    );
    assert_eq!(String::from_utf8(render(&template, 255)).unwrap(), expected);
    assert_eq!(template.bytes(255), expected.len() as u64);
    assert!(template.is_8bit() && !template.is_8bit_header());
    assert!(Template::given("Subject: ü\n".as_bytes(), 0, "h").unwrap().0.is_8bit_header());
}

/// What the SMTP codec does with the content, in its simplest form.
fn stuff(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::new();
    for line in content.split_inclusive(|&c| c == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

#[test]
fn mapped_content_is_sent_and_the_size_stays_that_of_the_message() {
    // A field name may begin with a dot, even the first.
    let file = b".odd: x\r\nSubject: y\r\n\r\n.\r\n..two\r\nplain.\r\n";
    let plain = Template::given(file, 1, "h").unwrap().0;
    let (head, bytes) = (render(&plain, 3).len() - file.len(), plain.bytes(3));
    let stuffed = plain.map_content(stuff);
    let message = render(&stuffed, 3);
    assert_eq!(&message[head..], b"..odd: x\r\nSubject: y\r\n\r\n..\r\n...two\r\nplain.\r\n");
    assert_eq!(stuffed.bytes(3), bytes);
    assert_eq!(message.len() as u64, bytes + 3);
}

#[test]
fn generated_content_needs_no_stuffing_and_gets_none() {
    let plain = Template::generated(spec(5_000)).unwrap();
    let before = render(&plain, 1);
    let after = render(&plain.map_content(|_| panic!("generated content is not mapped")), 1);
    assert_eq!(before, after);
    assert_eq!(stuff(&before), before);
}

proptest! {
    #[test]
    fn whatever_the_line_ends_of_a_file_the_message_has_only_crlf(
        fields in prop::collection::vec(("(Date|Message-ID|\\.?X-[a-z]{1,5}): [ -~]{0,20}(\r?\n [ -~]{0,9})?", "\r?\n"), 1..6),
        body in prop::collection::vec(("[ -~]{0,12}", "\r?\n"), 0..12),
        unfinished in "[.a-z]{0,5}",
    ) {
        let mut file: String = fields.iter().map(|(field, end)| format!("{field}{end}")).collect();
        file.push('\n');
        let kept: String = body.iter().map(|(line, end)| format!("{line}{end}")).collect::<String>() + &unfinished;
        file.push_str(&kept);
        let (template, conversion) = Template::given(file.as_bytes(), 1, "h").unwrap();
        let bare = file.matches('\n').count() - file.matches("\r\n").count();
        prop_assert_eq!(conversion.bare_lf_lines, bare as u64);
        prop_assert_eq!(conversion.final_crlf_added, !file.ends_with('\n'));

        let message = render(&template, 0);
        prop_assert_eq!(message.len() as u64, template.bytes(0));
        let lines = lines(&message);
        let named = |name: &str| {
            let header = lines.iter().take_while(|line| !line.is_empty());
            header.filter(|line| line.to_ascii_lowercase().starts_with(name.as_bytes())).count()
        };
        prop_assert_eq!((named("date:"), named("message-id:")), (1, 1));
        let sent = String::from_utf8(message.clone()).unwrap().replace("\r\n", "\n");
        let mut expected = kept.replace("\r\n", "\n");
        if !expected.is_empty() && !expected.ends_with('\n') {
            expected.push('\n');
        }
        expected.insert_str(0, "\n\n");
        prop_assert!(sent.ends_with(&expected));
    }

    #[test]
    fn any_octets_are_taken_or_refused_but_never_break_a_line(mut file in prop::collection::vec(
        prop::sample::select(&b"\r\n\r\n\n: .aA\0\x80"[..]), 0..60)) {
        file.splice(0..0, *b"A: ");
        if let Ok((template, _)) = Template::given(&file, 1, "h") {
            lines(&render(&template, 0));
        }
    }
}
