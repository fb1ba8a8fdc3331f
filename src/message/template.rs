//! The message of a job: what is common to all its messages built once, what is each message's own written in front.

use bytes::Bytes;

use super::date::DATE_BYTES;
use super::{AddressError, Conversion, DateCache, GeneratedSpec, Mailbox, MessageError, Recipients, generate, given};
use crate::outgoing::Outgoing;
use crate::time::WallTime;

/// Largest message, in octets: 256 MiB. Servers seldom take a tenth of it.
pub const MESSAGE_BYTES_MAX: u64 = 256 << 20;
/// Longest line of a message, in octets without its CRLF (RFC 5322, 2.1.1).
pub const LINE_BYTES_MAX: usize = 998;
/// What a line should not pass, in octets without its CRLF (RFC 5322, 2.1.1).
pub(super) const LINE_BYTES_GOOD: usize = 78;
/// Longest content, in octets, that is copied behind the head. Copying less than this costs less than a second segment
/// in the write; a larger content is referred to.
pub const COPY_BYTES_MAX: usize = 8 << 10;

/// Octets of a number in hexadecimal digits. Fixed, so that all messages of a given file have one size.
const HEX_BYTES: usize = 16;

/// What a job sends. Built once, shared by all shards in an `Arc`.
///
/// Message number i consists of a head of its own (Message-ID, Date and, when generated, To) and of the content that
/// all messages share. Two runs never use the same Message-ID, provided that they have different run ids.
#[derive(Debug)]
pub struct Template {
    /// The Message-ID field up to the sequence number.
    id_begin: &'static [u8],
    /// From the sequence number to the beginning of the date.
    id_end: Box<[u8]>,
    /// The header fields that are the same in all messages, the empty line, and the body. Begins at a line's begin.
    content: Bytes,
    kind: Kind,
    is_8bit: bool,
    is_8bit_header: bool,
}

#[derive(Debug)]
enum Kind {
    /// The content is longer than needed, and is cut so that each message has exactly `bytes` octets.
    Generated { bytes: u64, header_bytes: usize, recipients: Recipients },
    /// The content is sent whole. `bytes` is the size of a message before its content was mapped.
    Given { bytes: u64 },
}

impl Template {
    /// A message made up to be exactly `spec.bytes` octets long, whichever recipients it goes to.
    ///
    /// It is valid RFC 5322, in lines of 76 characters that never begin with a dot. The To field names as many of the
    /// message's recipients as fit into one line, the others are blind copies.
    ///
    /// # Errors
    ///
    /// When the size is too small for the header or above [`MESSAGE_BYTES_MAX`], or the host name does not fit into a
    /// Message-ID.
    pub fn generated(spec: GeneratedSpec) -> Result<Template, MessageError> {
        let (id_begin, id_end) = message_id(spec.run_id, &spec.host)?;
        let (bytes, recipients) = (spec.bytes, spec.recipients.clone());
        if bytes > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge { bytes });
        }
        let header = generate::header(&spec);
        let header_bytes = header.len();
        let is_8bit = !spec.from.is_ascii() || recipients.list().iter().any(|recipient| !recipient.is_ascii());
        let mut template = Template {
            id_begin,
            id_end,
            content: Bytes::new(),
            kind: Kind::Generated { bytes, header_bytes, recipients },
            is_8bit,
            is_8bit_header: is_8bit,
        };
        // The body ends in CRLF at least, so that what is cut off is never the empty line.
        let (shortest, longest) = template.head_bytes();
        let least = longest + header_bytes as u64 + generate::TAIL.len() as u64;
        if bytes < least {
            return Err(MessageError::TooSmall { bytes, least });
        }
        let mut content = header;
        // At most MESSAGE_BYTES_MAX, so the cast is exact.
        generate::push_text(&mut content, (bytes - shortest) as usize, spec.seed);
        template.content = content.into();
        Ok(template)
    }

    /// A message from a file (.eml), with a Message-ID and a Date of its own in place of those in the file. Everything
    /// else stays, but for line ends: a bare LF becomes CRLF, and the last line gets one if it has none.
    ///
    /// `run_id` is a fresh number for each run; `host` is the right side of the Message-ID.
    ///
    /// # Errors
    ///
    /// When the file has no header, or has a bare CR, a NUL or a line longer than [`LINE_BYTES_MAX`]; when the message
    /// is larger than [`MESSAGE_BYTES_MAX`]; when the host name does not fit into a Message-ID.
    pub fn given(file: &[u8], run_id: u64, host: &str) -> Result<(Template, Conversion), MessageError> {
        let (id_begin, id_end) = message_id(run_id, host)?;
        let given = given::convert(file)?;
        let (header, body) = given.content.split_at(given.header_bytes);
        let is_8bit_header = !header.is_ascii();
        let is_8bit = is_8bit_header || !body.is_ascii();
        let content = given.content.into();
        let kind = Kind::Given { bytes: 0 };
        let mut template = Template { id_begin, id_end, content, kind, is_8bit, is_8bit_header };
        let bytes = template.head_bytes().1 + template.content.len() as u64;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge { bytes });
        }
        template.kind = Kind::Given { bytes };
        Ok((template, given.conversion))
    }

    /// Replaces the content by what `stuff` makes of it, once and for all messages: for SMTP, dot-stuffing. The content
    /// begins at the beginning of a line, and no line of a head begins with a dot.
    ///
    /// Generated content has no line that begins with a dot and is left as it is: it is yet to be cut.
    pub fn map_content(mut self, stuff: impl Fn(&[u8]) -> Vec<u8>) -> Template {
        match self.kind {
            Kind::Given { .. } => self.content = stuff(&self.content).into(),
            Kind::Generated { .. } => {
                debug_assert!(memchr::memmem::find(&self.content, b"\n.").is_none(), "a line begins with a dot");
            }
        }
        self
    }

    /// Octets of message `sequence` with its header and final CRLF, before dot-stuffing: what the SIZE parameter of
    /// `MAIL FROM` declares.
    #[inline]
    pub fn bytes(&self, _sequence: u64) -> u64 {
        match self.kind {
            Kind::Generated { bytes, .. } | Kind::Given { bytes } => bytes,
        }
    }

    /// Whether it has octets above 127 anywhere: it needs 8BITMIME (RFC 6152).
    pub fn is_8bit(&self) -> bool {
        self.is_8bit
    }

    /// Whether it has octets above 127 in its header: it needs SMTPUTF8 (RFC 6531).
    pub fn is_8bit_header(&self) -> bool {
        self.is_8bit_header
    }

    /// Appends message `sequence`, dated `wall`, to `out`. A content above [`COPY_BYTES_MAX`] is referred to and not
    /// copied. Allocates nothing but room in `out`.
    #[inline]
    pub fn write(&self, sequence: u64, wall: WallTime, dates: &mut DateCache, out: &mut Outgoing) {
        let before = out.len();
        self.write_head(sequence, dates.text(wall), out);
        let (end, tail) = match &self.kind {
            Kind::Given { .. } => (self.content.len(), &b""[..]),
            Kind::Generated { bytes, header_bytes, .. } => {
                let room = *bytes as usize - (out.len() - before);
                let (text, tail) = generate::cut(room - header_bytes);
                (header_bytes + text, tail)
            }
        };
        if end > COPY_BYTES_MAX {
            out.push_shared(self.content.slice(..end));
        } else {
            out.push(&self.content[..end]);
        }
        out.push(tail);
    }

    fn write_head(&self, sequence: u64, date: &[u8; DATE_BYTES], out: &mut Outgoing) {
        out.push(self.id_begin);
        out.push(&hex(sequence));
        out.push(&self.id_end);
        out.push(date);
        out.push(b"\r\n");
        if let Kind::Generated { recipients, .. } = &self.kind {
            push_to(recipients, sequence, out);
        }
    }

    /// Octets of the shortest and of the longest head. Recipients repeat after as many messages as the list is long.
    fn head_bytes(&self) -> (u64, u64) {
        let messages = match &self.kind {
            Kind::Generated { recipients, .. } => recipients.list().len() as u64,
            Kind::Given { .. } => 1,
        };
        let mut out = Outgoing::new();
        (0..messages).fold((u64::MAX, 0), |(shortest, longest), sequence| {
            out.clear();
            self.write_head(sequence, &[b' '; DATE_BYTES], &mut out);
            let bytes = out.len() as u64;
            (shortest.min(bytes), longest.max(bytes))
        })
    }
}

/// The To field: the first recipient, and those after it that fit into the same line.
#[inline]
fn push_to(recipients: &Recipients, sequence: u64, out: &mut Outgoing) {
    let mut all = recipients.of_message(sequence).map(Mailbox::as_bytes);
    let first = all.next().unwrap_or_default();
    let mut line = b"To: <>".len() + first.len();
    out.push(if line <= LINE_BYTES_GOOD { b"To: <" } else { b"To:\r\n <" });
    out.push(first);
    for recipient in all {
        line += b", <>".len() + recipient.len();
        if line > LINE_BYTES_GOOD {
            break;
        }
        out.push(b">, <");
        out.push(recipient);
    }
    out.push(b">\r\n");
}

/// The Message-ID field, `<sequence.run@host>`, before and after the sequence number, and the beginning of the Date
/// field. It is folded when it would be too long for a line.
fn message_id(run_id: u64, host: &str) -> Result<(&'static [u8], Box<[u8]>), MessageError> {
    // The right side of a Message-ID is of the same form as the domain of an ASCII address (RFC 5322, 3.6.4).
    let fits = |error: Result<Mailbox, AddressError>| error.is_ok_and(|mailbox| mailbox.is_ascii());
    if host.contains('@') || !fits(Mailbox::parse(&format!("x@{host}"))) {
        return Err(MessageError::Host { host: host.chars().take(LINE_BYTES_GOOD).collect() });
    }
    let line = b"Message-ID: <.@>".len() + 2 * HEX_BYTES + host.len();
    let begin: &[u8] = if line <= LINE_BYTES_GOOD { b"Message-ID: <" } else { b"Message-ID:\r\n <" };
    let end = format!(".{run_id:016x}@{host}>\r\nDate: ");
    Ok((begin, end.into_bytes().into()))
}

/// A number in [`HEX_BYTES`] lower-case digits.
#[inline]
fn hex(number: u64) -> [u8; HEX_BYTES] {
    let mut digits = [0; HEX_BYTES];
    for (i, digit) in digits.iter_mut().enumerate() {
        let nibble = (number >> (4 * (HEX_BYTES - 1 - i))) as u8 & 0xf;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use mail_parser::{Address, MessageParser};
    use proptest::prelude::*;

    use super::*;
    use crate::message::ReversePath;

    const WALL: WallTime = WallTime::from_unix_ns(1_700_000_000_000_000_000);
    const WALL_TEXT: &str = "Tue, 14 Nov 2023 22:13:20 +0000";

    fn recipients(list: &[&str], per_message: u32) -> Recipients {
        let list = list.iter().map(|text| Mailbox::parse(text).unwrap()).collect();
        Recipients::new(list, per_message).unwrap()
    }

    fn spec(bytes: u64) -> GeneratedSpec {
        GeneratedSpec {
            bytes,
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
        match Template::generated(GeneratedSpec { bytes: 0, ..spec.clone() }) {
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
            let template = Template::generated(GeneratedSpec { bytes, ..uneven.clone() }).unwrap();
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
            text.contains(&format!("\r\nTo:\r\n <{long}>\r\n"))
                && text.contains(&format!("\r\nFrom:\r\n <{long}>\r\n"))
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
}
