//! Texts of any kind, with their variables replaced.

use super::*;
use crate::message::Mailbox;

const WALL: WallTime = WallTime::from_unix_ns(1_700_000_000_000_000_000);

fn body(data: &str, content_type: &str, variables: Option<&RecipientVariables>) -> RawBody {
    let list = ["\"q\\\"\"@x.example", "bob@x.example"].map(|text| Mailbox::parse(text).unwrap());
    RawBody::new(RawBodySpec {
        data: Bytes::copy_from_slice(data.as_bytes()),
        content_type: content_type.into(),
        from: &ReversePath::parse("me+1@x.example").unwrap(),
        recipients: &Recipients::new(list.to_vec(), 1).unwrap(),
        variables,
        run_id: 0xfeed,
        host: "h",
    })
    .unwrap()
}

fn render(body: &RawBody, sequence: u64) -> String {
    let mut out = Outgoing::new();
    body.write(sequence, WALL, &mut DateCache::new(), &mut out);
    assert_eq!(out.len() as u64, body.bytes(sequence), "message {sequence}");
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn json_reads_the_values_as_they_were() {
    let variables = RecipientVariables::parse(br#"{"bob@x.example":{"first":"B \"o\" \\ \u00fc","id":7}}"#).unwrap();
    let data = r#"{"to":"%recipient%","from":"%from%","id":"<%message_id%>","date":"%date%","n":%sequence%,
        "first":"%recipient.first%","num":"%recipient.id%","not":"%recipient.nick% 100%% %to%"}"#;
    let body = body(data, "application/json; charset=utf-8", Some(&variables));
    let json = |sequence| serde_json::from_str::<serde_json::Value>(&render(&body, sequence)).unwrap();
    let expected = serde_json::json!({
        "to": "bob@x.example", "from": "me+1@x.example", "id": "<000000000000000b.000000000000feed@h>",
        "date": "Tue, 14 Nov 2023 22:13:20 +0000", "n": 11, "first": "B \"o\" \\ ü", "num": "7",
        "not": "%recipient.nick% 100%% %to%",
    });
    assert_eq!(json(11), expected);
    // Who has no variables leaves them as they are written.
    assert_eq!((&json(0)["to"], &json(0)["first"]), (&"\"q\\\"\"@x.example".into(), &"%recipient.first%".into()));
    assert_eq!(body.content_type(), "application/json; charset=utf-8");
}

#[test]
fn forms_read_the_values_as_they_were_and_plain_text_has_them_as_they_are() {
    let data = "to=%recipient%&from=%from%&date=%date%&n=%sequence%";
    let form = body(data, "application/x-www-form-urlencoded", None);
    for sequence in [0, 9, 10, u64::MAX] {
        let text = render(&form, sequence);
        let fields: Vec<_> = form_urlencoded::parse(text.as_bytes()).map(|(_, value)| value.into_owned()).collect();
        let to = if sequence % 2 == 0 { "\"q\\\"\"@x.example" } else { "bob@x.example" };
        assert_eq!(fields, [to, "me+1@x.example", "Tue, 14 Nov 2023 22:13:20 +0000", &sequence.to_string()]);
    }
    assert_eq!(render(&body("%from%%%from%", "text/plain", None), 1), "me+1@x.example%me+1@x.example");
}

#[test]
fn only_the_longest_text_is_referred_to() {
    let long = "x".repeat(20_000);
    let body = body(&format!("{}%recipient%{long}%sequence%{}", "y".repeat(9_000), "z".repeat(10_000)), "", None);
    let mut out = Outgoing::new();
    body.write(1, WALL, &mut DateCache::new(), &mut out);
    assert_eq!(out.segments()[1], long.as_bytes());
    assert_eq!(out.len() as u64, body.bytes(1));
}

#[test]
fn nothing_is_too_much_or_too_little() {
    assert_eq!(render(&body("", "text/plain", None), 0), "");
    assert_eq!(render(&body("%", "text/plain", None), 0), "%");
    assert_eq!(render(&body("%%recipient%%", "text/plain", None), 1), "%bob@x.example%");
    let many = "%sequence%".repeat(2 * crate::message::PLACES_MAX + 1);
    let recipients = Recipients::new(vec![Mailbox::parse("a@b").unwrap()], 1).unwrap();
    let error = RawBody::new(RawBodySpec {
        data: many.into(),
        content_type: String::new(),
        from: &ReversePath::Null,
        recipients: &recipients,
        variables: None,
        run_id: 0,
        host: "h",
    });
    assert_eq!(error.unwrap_err(), MessageError::TooManyPlaces);
}
