//! Stamped messages as their receiver finds them: whole, whatever their size, their head, their dots and variables.

use std::collections::HashSet;

use bytes::Bytes;
use proptest::prelude::*;

use crate::audit::scan::{Found, Scan};
use crate::audit::stamp::{FIELD_BYTES, Key, Signer};
use crate::message::{
    COPY_BYTES_MAX, DateCache, GeneratedSpec, GivenSpec, Mailbox, MessageError, RecipientVariables, Recipients,
    ReversePath, Sizes, Template, WeightedSize,
};
use crate::outgoing::Outgoing;
use crate::time::WallTime;

const WALL: WallTime = WallTime::from_unix_ns(1_700_000_000_123_456_789);

fn signer() -> Signer {
    Signer::new(&Key::new([7; 32]))
}

fn stuff(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    text.split_inclusive('\n')
        .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() })
        .collect::<String>()
        .into()
}

/// As the receiver has it.
fn unstuffed(octets: &[u8]) -> Vec<u8> {
    octets
        .split_inclusive(|&octet| octet == b'\n')
        .flat_map(|line| &line[usize::from(line[0] == b'.')..])
        .copied()
        .collect()
}

/// Writes a message and asserts that its receiver finds it whole; gives its octets.
fn assert_whole(template: &Template, sequence: u64) -> usize {
    assert_received_whole(&unstuffed(&written(template, sequence)), sequence)
}

fn written(template: &Template, sequence: u64) -> Vec<u8> {
    let (mut dates, mut out) = (DateCache::new(), Outgoing::new());
    template.write(sequence, WALL, &mut dates, &mut out);
    out.to_vec()
}

fn assert_received_whole(message: &[u8], sequence: u64) -> usize {
    let mut scan = Scan::new();
    message.chunks(77).for_each(|piece| scan.update(piece));
    let Found::Stamped { stamp, altered } = scan.finish(&signer()) else {
        panic!("{:?}: {}", scan.finish(&signer()), String::from_utf8_lossy(message));
    };
    assert_eq!((stamp.run, stamp.sequence, stamp.sent), (9, sequence, WALL));
    assert!(!altered, "{sequence}: {}", String::from_utf8_lossy(message));
    message.len()
}

fn recipients(list: &[String], per_message: u32) -> Recipients {
    Recipients::new(list.iter().map(|text| Mailbox::parse(text).unwrap()).collect(), per_message).unwrap()
}

fn generated(sizes: Sizes, recipients: Recipients) -> Result<Template, MessageError> {
    let from = ReversePath::parse("sender@example.com").unwrap();
    let host = "mail.example.com".into();
    Template::generated(GeneratedSpec { sizes, subject: None, from, recipients, seed: 1, run_id: 9, host })
}

#[test]
fn generated_messages_are_whole_whatever_their_size_and_head() {
    let uneven: Vec<String> = (0..67).map(|i| format!("{}@b", "r".repeat(1 + i % 64)) + &"c".repeat(i % 5)).collect();
    let sizes = [700, 1_024, 2_000, COPY_BYTES_MAX as u64, 20_000].map(|bytes| WeightedSize { bytes, weight: 1 });
    let template = generated(Sizes::mix(&sizes, 5).unwrap(), recipients(&uneven, 3)).unwrap();
    let template = template.stamped(9, signer()).unwrap().map_content(stuff);
    let mut met = HashSet::new();
    for sequence in 0..1_000 {
        let bytes = assert_whole(&template, sequence);
        assert_eq!(bytes as u64, template.bytes(sequence));
        met.insert(bytes);
    }
    assert_eq!(met.len(), sizes.len());
}

#[test]
fn a_message_without_room_for_a_stamp_is_refused() {
    let template = |bytes| generated(Sizes::exactly(bytes), recipients(&["load@example.com".into()], 1));
    let Err(MessageError::TooSmall { least, .. }) = template(0) else { panic!("expected too small") };
    let stamped = |bytes| template(bytes).unwrap().stamped(9, signer());
    let with_stamp = least + FIELD_BYTES as u64;
    assert_eq!(stamped(least).unwrap_err(), MessageError::TooSmall { bytes: least, least: with_stamp });
    assert_whole(&stamped(with_stamp).unwrap(), 1);
}

fn given(messages: &[Bytes], variables: Option<&RecipientVariables>, recipients: &Recipients) -> Template {
    let expand = variables.is_some();
    let spec = GivenSpec {
        messages,
        verbatim: false,
        variables,
        expand,
        beside: false,
        recipients,
        run_id: 9,
        host: "a.example",
    };
    Template::of_messages(&spec).unwrap().0.stamped(9, signer()).unwrap()
}

#[test]
fn given_messages_are_whole_with_their_dots_and_without_an_earlier_stamp() {
    let large = format!("Subject: c\n\n{}", ".a line that begins with a dot\n".repeat(1_000));
    let again = "X-Timecop-Audit: v=1; run=1\n x\nSubject: d\n\nbody\n";
    let messages =
        ["Subject: a\n\n.\n..\nx\n\n\n", "Subject: no body\n", &large, again].map(|text| Bytes::from(text.to_owned()));
    let template = given(&messages, None, &recipients(&["a@b".into()], 1)).map_content(stuff);
    for sequence in 0..8 {
        assert!(assert_whole(&template, sequence) as u64 == template.bytes(sequence));
    }
}

#[test]
fn bodies_with_variables_are_hashed_as_they_are_written() {
    let list = ["bob@example.com".to_owned(), "al@example.com".to_owned()];
    let variables = br#"{"bob@example.com":{"x":".dot"},"al@example.com":{"x":""}}"#;
    let variables = RecipientVariables::parse(variables).unwrap();
    let filler = "filler\n".repeat(COPY_BYTES_MAX);
    let text = format!("Subject: %recipient.x%\n\n%recipient.x%.\n%recipient%\n.%recipient.x%\n{filler}end\n\n");
    let messages = [Bytes::from(text)];
    let template = given(&messages, Some(&variables), &recipients(&list, 1)).map_content(stuff);
    for sequence in 0..4 {
        assert_whole(&template, sequence);
    }
    let as_it_is = given(&messages, Some(&variables), &recipients(&list, 1));
    assert_received_whole(&written(&as_it_is, 0), 0);
}

proptest! {
    #[test]
    fn any_two_sizes_and_recipients_give_whole_messages(
        sizes in proptest::array::uniform2(560u64..3_000),
        lengths in proptest::collection::vec(1usize..64, 1..6),
        sequence in 0u64..1_000,
    ) {
        let list: Vec<String> = lengths.iter().enumerate().map(|(i, length)| format!("{}@b{i}", "r".repeat(*length))).collect();
        let sizes = Sizes::mix(&sizes.map(|bytes| WeightedSize { bytes, weight: 1 }), 3).unwrap();
        let template = generated(sizes, recipients(&list, 1)).unwrap().stamped(9, signer()).unwrap();
        assert_whole(&template, sequence);
    }
}
