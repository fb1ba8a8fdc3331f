//! What requests are taken, what of them is refused and in which words.

use serde_json::Value;

use super::*;
use crate::job::spec::http::{OPTIONS_BYTES_MAX, OPTIONS_MAX};
use crate::job::spec::{JobSpec, Target};

/// A request that is right but for what is added to it.
fn request(more: &str) -> Result<JobRequest, RequestError> {
    let comma = if more.is_empty() { "" } else { "," };
    JobRequest::parse(format!(r#"{{"smtp_connection_type":"plain","msg_size":1000{comma}{more}}}"#).as_bytes())
}

fn parse(json: &str) -> Result<JobRequest, RequestError> {
    JobRequest::parse(json.as_bytes())
}

fn spec(request: JobRequest) -> Result<JobSpec, SpecError> {
    let target = Target {
        name: "smtp://127.0.0.1:2525".into(),
        host: "127.0.0.1".into(),
        address: "127.0.0.1:2525".parse().unwrap(),
        connection: ConnectionType::Plain,
    };
    JobSpec::new(request.into_raw_spec(), target, 7)
}

const EXAMPLE: &str = r#"{"Type":"smtp","messages":1000,"connections":10,"msg_size":100000,"timeout":"0s","smtp_connection_type":"plain"}"#;

#[test]
fn the_example_of_the_contract_is_taken_word_for_word() {
    let request = parse(EXAMPLE).unwrap();
    assert_eq!(
        request.echo().get(),
        r#"{"smtp_connection_type":"plain","Type":"smtp","msg_size":100000,"connections":10,"timeout":"0s","messages":1000}"#
    );
    let spec = spec(request).unwrap();
    assert_eq!((spec.connections, spec.timeout), (10, TimeLimits::default()));
    assert_eq!(serde_json::from_str::<Value>(EXAMPLE).unwrap(), example(), "what the schema shows");
}

/// Each key with a value that is taken, how that is echoed, and one that is refused, with the words that say why.
#[test]
fn every_key_takes_its_kind_of_value_and_no_other() {
    let table: &[(&str, &str, &str, &str, &str)] = &[
        ("skip_verify", "true", "true", "1", "expected true or false, got 1"),
        ("smtp_connection_type", r#""tls""#, r#""tls""#, r#""TLS""#, r#"expected plain, tls or starttls, got "TLS""#),
        (
            "Type",
            r#""http.mime""#,
            r#""http.mime""#,
            r#""lmtp""#,
            r#"expected smtp, http, http.mime or http.raw, got "lmtp""#,
        ),
        ("msg_size", "4096", "4096", "-1", "objects with bytes and weight, got -1"),
        (
            "options",
            r#"{"o:testmode":"","h:Reply-To":""}"#,
            &format!(r#"{{"o:testmode":{EMPTY},"h:Reply-To":{EMPTY}}}"#),
            r#"{"x:a":"b"}"#,
            r#"begins with one of o:, h:, v:, t:, got {"x:a":"b"}"#,
        ),
        ("connections", "7", "7", "4294967296", "expected a whole number from 0 to 4294967295, got 4294967296"),
        ("body", r#""""#, EMPTY, "[1]", "expected a string: a whole message, header and body, got [1]"),
        (
            "subject",
            r#""a b""#,
            r#""a b""#,
            r#""a\r\nX: b""#,
            "expected a string of at most 4096 characters without control",
        ),
        ("text", r#""""#, EMPTY, "1", "but tab, LF and CRLF, got 1"),
        ("html", r#""""#, EMPTY, "{}", "but tab, LF and CRLF, got {}"),
        (
            "recipient_variables",
            r#""""#,
            EMPTY,
            r#"{"a":1}"#,
            r#"expected a string of at most 1048576 characters that is JSON itself, got {"a":1}"#,
        ),
        ("expand", "true", "true", r#""yes""#, r#"expected true or false, got "yes""#),
        ("auth", "false", "false", r#""false""#, r#"expected true or false, got "false""#),
        (
            "timeout",
            "90000000000",
            r#""1m30s""#,
            r#""5 parsecs""#,
            r#"neither negative nor above 292 years, got "5 parsecs""#,
        ),
        ("messages", "12", "12", "1000.0", "expected a whole number from 0 to 18446744073709551615, got 1000.0"),
        (
            "recipients",
            r#"["a@b","c@d"]"#,
            r#"["a@b","c@d"]"#,
            "[]",
            "expected a list of at least one address or pattern, none with",
        ),
        (
            "recipient_order",
            r#""random""#,
            r#""random""#,
            r#""shuffled""#,
            r#"expected sequential or random, got "shuffled""#,
        ),
        ("target", r#""lab""#, r#""lab""#, "7", "expected a string of at most 4096 characters without control"),
        ("from", r#""""#, r#""""#, r#"{}"#, "expected a string of at most 4096 characters without control"),
        ("rate", "50.5", "50.5", r#""50""#, r#"expected a number, got "50""#),
        ("arrival", r#""constant""#, r#""constant""#, r#""even""#, r#"expected constant or poisson, got "even""#),
        ("duration", r#""1m30.5s""#, r#""1m30.5s""#, r#""-1s""#, r#"neither negative nor above 292 years, got "-1s""#),
        (
            "stages",
            r#"[{"duration":"1m","rate":1000},{"duration":"5m0s","rate":5000}]"#,
            r#"[{"duration":"1m0s","rate":1000},{"duration":"5m0s","rate":5000}]"#,
            r#"[{"duration":"1m","rate":1000},{"duration":"5m","rates":5000}]"#,
            "stage 2: unknown key \"rates\"; did you mean `rate`?",
        ),
        (
            "warmup",
            r#""10s""#,
            r#""10s""#,
            "1000",
            "expected a duration such as \"10s\", or {\"messages\": 1000}, got 1000",
        ),
        (
            "abort_on",
            r#"{"failure_rate":0.05,"window":"10s","grace":"5s"}"#,
            r#"[{"failure_rate":0.05,"grace":"5s","window":"10s"}]"#,
            r#"[{"p99":"2s","p50":"1s"}]"#,
            "condition 1: expected exactly one of failure_rate, p50",
        ),
        (
            "fail_if",
            r#"["p99>300ms","failures>0.1%"]"#,
            r#"["p99>300ms","failures>0.1%"]"#,
            r#"["p99"]"#,
            "condition 1: expected a condition such as p99>300ms",
        ),
        ("audit", "true", "true", "1", "expected true or false, got 1"),
        (
            "search",
            r#"{"slo":"p99<250ms,failures<0.1%","max_rate":5000}"#,
            r#"{"max_rate":5000,"slo":["p99<250ms","failures<0.1%"]}"#,
            r#"{"slo":"p99"}"#,
            "slo: expected a condition such as p99>300ms",
        ),
        ("recipients_per_message", "3", "3", "1e2", "expected a whole number from 0 to 4294967295, got 1e2"),
        (
            "messages_per_connection",
            "5",
            "5",
            "true",
            "expected a whole number from 0 to 18446744073709551615, got true",
        ),
        ("pipelining", "false", r#""off""#, r#""on""#, r#"expected "auto" or "off", got "on""#),
        ("shards", "2", "2", "[2]", "expected a whole number from 0 to 18446744073709551615, got [2]"),
        ("seed", "18446744073709551615", "18446744073709551615", "18446744073709551616", "got 18446744073709551616"),
    ];
    assert_eq!(table.iter().map(|row| row.0).collect::<Vec<_>>(), KEYS, "every key, in its order");
    let alone = |key: &str, json: &str| {
        let mut request = JobRequest::default();
        request.set(key, &RawValue::from_string(json.to_owned()).unwrap()).map(|()| request)
    };
    for (key, good, echo, wrong, words) in table {
        let request = alone(key, good).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(request.echo().get(), format!(r#"{{"{key}":{echo}}}"#));
        assert_eq!(alone(&key.to_ascii_uppercase(), good), alone(key, good));
        assert_eq!(alone(key, "null"), Ok(JobRequest::default()), "null counts as absent");
        let error = alone(key, wrong).expect_err(key);
        assert_eq!(error.field, *key);
        assert!(error.problem.contains(words), "{error}");
    }
}

/// A body of no octets, as it is echoed.
const EMPTY: &str = r#"{"bytes":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;

#[test]
fn options_are_strings_under_names_of_their_own_and_bounded() {
    let many = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| format!(r#""v:{n}":"""#)).collect();
        format!("{{{}}}", list.join(","))
    };
    assert!(request(&format!(r#""options":{}"#, many(OPTIONS_MAX))).is_ok());
    let long = format!(r#"{{"v:a":"{}"}}"#, "x".repeat(OPTIONS_BYTES_MAX));
    for wrong in [
        r#"{"o:":"b"}"#,
        r#"{"o:a":1}"#,
        r#"{"o:a":"b","o:a":"c"}"#,
        r#"{"o:a":"b\nc"}"#,
        r#"{"h:a\r\nb":"c"}"#,
        r#"["o:a"]"#,
        &many(OPTIONS_MAX + 1),
        &long,
    ] {
        let error = request(&format!(r#""options":{wrong}"#)).expect_err(wrong).to_string();
        assert!(error.starts_with("options: expected an object") && error.len() < 400, "{error}");
    }
    let error = spec(request(r#""options":{"o:a":"b"}"#).unwrap()).expect_err("the type is smtp");
    assert_eq!(error.to_string(), "options: expected a type by HTTP beside it, got smtp");
}

#[test]
fn keys_match_in_any_case_and_stand_once() {
    assert_eq!(parse(&EXAMPLE.replace("Type", "tYPE").replace("msg_size", "MSG_SIZE")), parse(EXAMPLE));
    for twice in [r#""messages":1,"messages":1"#, r#""Type":"smtp","TYPE":"smtp""#, r#""auth":null,"Auth":true"#] {
        let error = request(twice).unwrap_err().to_string();
        assert!(error.ends_with("expected the key once, got it twice"), "{error}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_name_with_the_one_that_was_meant() {
    let known = [
        ("mesages", "did you mean `messages`?"),
        ("MsgSize", "did you mean `msg_size`?"),
        ("smtp_connection", "did you mean `smtp_connection_type`?"),
        ("typ", "did you mean `Type`?"),
        ("recipient", "did you mean `recipients`?"),
        ("x", "expected one of skip_verify, smtp_connection_type, Type, msg_size"),
        ("a\\r\\nb", "expected one of skip_verify"),
        (&"k".repeat(1_000_000), "expected one of skip_verify"),
    ];
    for (key, advice) in known {
        let error = request(&format!("\"{key}\":1")).unwrap_err();
        assert!(matches!(error, RequestError::Field(_)), "{error}");
        let error = error.to_string();
        assert!(error.starts_with("unknown key: \"") && error.contains(advice), "{error}");
        assert!(error.contains(&key[..key.len().min(60)]) && !error.contains('\r') && error.len() < 500, "{error}");
    }
}

#[test]
fn what_is_no_json_object_is_said_to_be_none() {
    let wrong = [
        ("", "got what is no JSON: EOF"),
        ("{", "got what is no JSON: EOF"),
        ("[1,2]", "expected a JSON object, got [1,2]"),
        ("null", "expected a JSON object, got null"),
        (r#"{"a":1}"#, "unknown key"), // valid JSON, for comparison
        (r#"{"a":1} x"#, "got what is no JSON: trailing characters"),
        (r#"{"a":1,"#, "got what is no JSON: EOF"), // the unknown key does not hide it
        (r#"{"a":1,}"#, "got what is no JSON: trailing comma"),
        ("{1:2}", "got what is no JSON: key must be a string"),
    ];
    for (json, words) in wrong {
        let error = parse(json).expect_err(json);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(matches!(error, RequestError::NotJson(_)), words != "unknown key", "{error}");
    }
    assert!(matches!(JobRequest::parse(b"{\"from\":\"\xff\"}"), Err(RequestError::NotJson(_))));
    let long = format!("\"{}\"", "x".repeat(1_000_000));
    assert!(parse(&long).unwrap_err().to_string().len() < 200);
}

#[test]
fn deep_and_long_values_end_in_a_short_error() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    let long = format!("\"{}\"", "é".repeat(1_000_000));
    for key in KEYS {
        for value in [&deep, &long] {
            let request = parse(&format!("{{\"{key}\":{value}}}"));
            let error = request.expect_err("there is no msg_size, and the value is wrong").to_string();
            assert!(error.len() < 700, "{error}");
        }
    }
    let deep = serde_json::to_string(&deep[900_000..1_100_000]).unwrap();
    let error = request_with_body(&deep).unwrap_err();
    assert!(error.starts_with("recipient_variables: expected") && error.len() < 300, "{error}");
}

/// A job with a body and these variables, which are JSON as a JSON string.
fn request_with_body(variables: &str) -> Result<JobSpec, String> {
    let json =
        format!(r#"{{"smtp_connection_type":"plain","body":"x","messages":1,"recipient_variables":{variables}}}"#);
    spec(parse(&json).map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

#[test]
fn control_characters_are_refused_wherever_they_could_reach_the_wire() {
    for control in [r"\u0000", r"\r\n", r"\t", r"\u007f", r"\u0085"] {
        for (field, value) in [
            ("from", format!("\"a{control}@b\"")),
            ("target", format!("\"smtp://user:secret@a{control}\"")),
            ("recipients", format!("[\"a@b\",\"a{control}@b\"]")),
            ("arrival", format!("\"poisson{control}\"")),
        ] {
            let error = request(&format!("\"{field}\":{value}")).expect_err(field).to_string();
            assert!(error.starts_with(field) && !error.contains(char::is_control), "{error:?}");
            assert!(!error.contains("secret"), "{error}");
        }
        let inner = control.replace('\\', "\\\\");
        // Of what is one octet on the wire.
        let is_ascii = control != r"\u0085";
        for variables in [format!(r#""{{\"a{inner}\":{{}}}}""#), format!(r#""{{\"a\":{{\"b\":\"{inner}\"}}}}""#)] {
            let read = request_with_body(&variables);
            assert_eq!(read.is_err(), is_ascii, "{variables}");
            let Err(error) = read else { continue };
            assert!(error.starts_with("recipient_variables: ") && !error.contains(char::is_control), "{error:?}");
        }
    }
    // A body is a message; what it may contain is looked at where messages are built.
    assert!(parse(r#"{"smtp_connection_type":"plain","body":"A: b\r\n\r\n\u0000"}"#).is_ok());
}

/// Every field of the schema, as each kind of value that text may be in. A body is refused here for the size beside it.
#[test]
fn every_field_refuses_line_ends() {
    let schema = serde_json::to_value(JobRequest::schema()).unwrap();
    let fields: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert!(fields.len() > 20, "{fields:?}");
    let mut taken = Vec::new();
    for field in fields {
        for control in [r"\u0000", r"\r\n", r"\n"] {
            for value in [
                format!(r#""a{control}b""#),
                format!(r#"["a{control}b"]"#),
                format!(r#"{{"h:A":"a{control}b"}}"#),
                format!(r#"{{"h:A{control}B":"a"}}"#),
            ] {
                for kind in ["smtp", "http", "http.raw"] {
                    let plain = if *field == "msg_size" { "" } else { r#","msg_size":1000"# };
                    let json =
                        format!(r#"{{"Type":"{kind}","smtp_connection_type":"plain","{field}":{value}{plain}}}"#);
                    let read = parse(&json).map_err(|error| error.to_string());
                    match read.and_then(|request| spec(request).map_err(|error| error.to_string())) {
                        Ok(_) => taken.push(field.as_str()),
                        Err(error) => assert!(!error.contains(char::is_control), "{field}: {error:?}"),
                    }
                }
            }
        }
    }
    taken.dedup();
    // They are looked at beside a body only, as the test above does.
    assert_eq!(taken, ["recipient_variables"]);
}

#[test]
fn a_text_has_lines_and_tabs_and_nothing_else_that_controls() {
    for field in ["text", "html"] {
        let with = |text: &str| parse(&format!(r#"{{"smtp_connection_type":"plain","{field}":"{text}"}}"#));
        for good in [r"a\tb\nc\r\nd\n\n", "é\u{85}", r"\r\n"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for wrong in [r"\u0000", r"\u0007", r"\u001b[2J", r"\u007f", r"a\rb", r"a\r", r"\r\r\n", r"\u000b"] {
            let error = with(wrong).expect_err(wrong).to_string();
            assert!(error.starts_with(field) && !error.contains(char::is_control), "{error:?}");
        }
    }
}

#[test]
fn the_values_of_options_are_shown_nowhere() {
    let request = request(r#""Type":"http","options":{"h:X-Key":"secret"}"#).unwrap();
    let echo = request.echo();
    assert!(!echo.get().contains("secret"), "{echo}");
    let echo: Value = serde_json::from_str(echo.get()).unwrap();
    assert_eq!(echo["options"]["h:X-Key"]["bytes"], 6, "{echo}");
    assert_eq!(echo["options"]["h:X-Key"]["sha256"].as_str().unwrap().len(), 64, "{echo}");
    assert!(!format!("{request:?}").contains("secret"));
}

#[test]
fn recipient_variables_are_looked_at_beside_a_body_only() {
    assert!(request(r#""recipient_variables":"no JSON""#).is_ok());
    for good in [r#""{}""#, r#""{\"a@b\":{\"n\":1,\"s\":\"x\",\"t\":true,\"z\":null}}""#] {
        assert!(request_with_body(good).is_ok(), "{good}");
    }
    for wrong in
        [r#""[]""#, r#""""#, r#""{\"a\":1}""#, r#""{\"a\":{\"b\":[]}}""#, r#""{\"a\":{\"b\":{}}}""#, r#""{} x""#]
    {
        let error = request_with_body(wrong).expect_err(wrong);
        assert!(error.starts_with("recipient_variables: expected the JSON of an object"), "{error}");
    }
}

#[test]
fn a_mix_of_sizes_is_taken_in_the_place_of_one() {
    let with = |size: &str| parse(&format!(r#"{{"smtp_connection_type":"plain","msg_size":{size}}}"#));
    let mix = r#"[{"bytes":2000,"weight":70},{"bytes":100000,"weight":30}]"#;
    let request = with(mix).unwrap();
    assert!(request.echo().get().contains(mix), "{}", request.echo());
    let spec = spec(request).unwrap();
    assert_eq!(spec.describe()["msg_size_mix"], serde_json::from_str::<Value>(mix).unwrap());
    for wrong in ["[]", r#"[{"bytes":1}]"#, r#"[{"bytes":1,"weight":-1}]"#, r#"[{"bytes":1,"weight":1,"x":1}]"#, "[5]"]
    {
        let error = with(wrong).expect_err(wrong).to_string();
        assert!(error.starts_with("msg_size: expected a whole number") && error.contains("got ["), "{error}");
    }
    for wrong in [r#"[{"bytes":1000,"weight":0}]"#, r#"[{"bytes":1000000000,"weight":1}]"#] {
        let error = self::spec(with(wrong).unwrap()).expect_err(wrong).to_string();
        assert!(error.starts_with("msg_size: expected"), "{error}");
    }
}

#[test]
fn variables_need_something_that_they_can_stand_in() {
    let ignored = spec(request(r#""recipient_variables":"{\"a@b\":{}}""#).unwrap()).unwrap();
    assert!(ignored.variables.is_none() && ignored.notes[0].contains("ignored"), "{:?}", ignored.notes);
    let given = |more: &str| {
        let json =
            format!(r#"{{"smtp_connection_type":"plain","text":"x","recipient_variables":"{{\"a@b\":{{}}}}"{more}}}"#);
        spec(parse(&json).unwrap())
    };
    assert!(given("").unwrap().variables.is_some());
    assert!(given(r#","expand":true"#).unwrap().expand);
    assert_eq!(given(r#","expand":true,"recipients_per_message":2"#).unwrap_err().field, "recipients_per_message");
    assert_eq!(spec(request(r#""expand":true"#).unwrap()).unwrap_err().field, "expand");
}

#[test]
fn what_every_job_needs_is_asked_for() {
    let missing = [
        ("{}", "smtp_connection_type: expected plain, tls or starttls for type smtp, got none"),
        (r#"{"smtp_connection_type":null}"#, "smtp_connection_type: expected"),
        (r#"{"msg_size":1,"target":"smtps://a"}"#, "smtp_connection_type: expected"),
        (r#"{"target":"named"}"#, "msg_size: expected"),
        (r#"{"smtp_connection_type":"plain"}"#, "msg_size: expected either `msg_size`, or `body`, or `text` and"),
        (r#"{"Type":"http"}"#, "msg_size: expected either `msg_size`, or `body`, or `text` and"),
    ];
    for (json, words) in missing {
        let error = parse(json).expect_err(json).to_string();
        assert!(error.starts_with(words), "{error}");
    }
    assert_eq!(spec(request(r#""body":"x""#).unwrap()).unwrap_err().field, "msg_size", "both");
}

#[test]
fn defaults_are_those_of_the_contract() {
    let raw = |more| request(more).unwrap().into_raw_spec();
    assert_eq!((raw("").messages, raw("").duration), (Some(1_000), None));
    assert_eq!(raw(r#""duration":"2s""#).messages, None);
    assert_eq!(raw(r#""duration":"2s","messages":3"#).messages, Some(3), "both, which JobSpec refuses");
    assert_eq!(spec(request("").unwrap()).unwrap().connections, 1);
    assert_eq!(spec(request(r#""rate":5"#).unwrap()).unwrap().connections, 100);
    assert_eq!(raw(r#""stages":[{"duration":"1s","rate":5}]"#).messages, None);
    assert_eq!(raw(r#""stages":[{"duration":"1s","rate":5}],"messages":3"#).messages, Some(3), "refused, too");
    assert_eq!(raw(r#""pipelining":true"#).pipelining, Some(true));
    assert_eq!(raw(r#""pipelining":"off""#).pipelining, Some(false));
}

#[test]
fn rates_are_read_to_the_last_bit_and_echoed_as_written() {
    for rate in ["5000", "0.1", "33.333333333333336", "1e-7", "123456.789"] {
        let request = request(&format!("\"rate\":{rate}")).unwrap();
        assert_eq!(request.rate, Some(rate.parse().unwrap()));
        assert!(request.echo().get().contains(&format!("\"rate\":{rate}")), "{}", request.echo());
    }
    for wrong in ["1e999", "-1e999", "\"inf\"", "\"NaN\"", "true"] {
        assert!(request(&format!("\"rate\":{wrong}")).unwrap_err().to_string().starts_with("rate: expected a number"));
    }
    assert_eq!(spec(request("\"rate\":-1").unwrap()).unwrap_err().field, "rate");
}

#[test]
fn a_body_is_echoed_as_its_size_and_digest() {
    let request = parse(r#"{"smtp_connection_type":"plain","body":"abc"}"#).unwrap();
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let echo = format!(r#"{{"smtp_connection_type":"plain","body":{{"bytes":3,"sha256":"{digest}"}}}}"#);
    assert_eq!(request.echo().get(), echo);
    assert_eq!(request.into_raw_spec().body.as_deref(), Some(&b"abc"[..]));
}

#[test]
fn time_limits_are_a_duration_or_an_object_of_them_by_phase() {
    let table = [
        (r#"10000000000"#, r#""10s""#),
        (r#"{"connect":"5s","DATA":60000000000}"#, r#"{"connect":"5s","data":"1m0s"}"#),
        (r#"{"default":"10s","mail":"0s","quit":null}"#, r#"{"default":"10s","mail":"0s"}"#),
    ];
    for (asked, echoed) in table {
        let request = request(&format!(r#""timeout":{asked}"#)).unwrap();
        let echo: Value = serde_json::from_str(request.echo().get()).unwrap();
        assert_eq!(echo["timeout"].to_string(), echoed);
        let again = self::request(&format!(r#""timeout":{echoed}"#)).unwrap();
        assert_eq!(again.timeout, request.timeout, "what is shown may be asked for again");
    }
    let spec = spec(request(r#""timeout":{"connect":"5s","data":"7s"}"#).unwrap()).unwrap();
    assert_eq!(spec.describe()["timeouts_s"].to_string(), r#"{"connect":5.0,"data":7.0}"#);
    for (wrong, words) in [
        (r#"{"conect":"5s"}"#, r#"timeout: expected a phase, one of connect, tls, banner"#),
        (r#"{"mail":5.5}"#, "timeout: mail: expected a duration"),
        (r#"{"mail":"1s","MAIL":"2s"}"#, "timeout: expected one time limit of MAIL, got two"),
        ("[]", r#"timeout: expected a duration such as"#),
    ] {
        let error = request(&format!(r#""timeout":{wrong}"#)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_schema_names_every_key_with_its_words() {
    let schema = serde_json::to_value(JobRequest::schema()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), KEYS.len());
    for key in KEYS {
        let property = &properties[*key];
        assert!(property["description"].as_str().is_some_and(|words| words.len() > 10), "{key}: {property}");
        let alternatives = property["anyOf"].as_array().map_or_else(Vec::new, Vec::clone);
        assert!(
            property["type"].as_array().is_some_and(|types| types.contains(&Value::from("null")))
                || alternatives.iter().any(|schema| schema["type"].to_string().contains("\"null\"")),
            "{key}: {property}"
        );
    }
    assert_eq!(properties["connections"]["minimum"], 1);
    assert_eq!(properties["connections"]["maximum"], CONNECTIONS_MAX);
    assert_eq!(properties["rate"]["exclusiveMinimum"], 0);
    assert_eq!(properties["recipients"]["minItems"], 1);
}

/// What the schema says of a number's bounds is what becomes of numbers at and beyond them.
#[test]
fn the_bounds_of_the_schema_are_those_of_the_job() {
    let schema = serde_json::to_value(JobRequest::schema()).unwrap();
    let mut bounds = 0;
    let properties = schema["properties"].as_object().unwrap();
    // How many shards there are, the machine knows.
    for (key, property) in properties.iter().filter(|(key, _)| *key != "shards") {
        let is_taken = |number: i128| {
            let msg_size = if key == "msg_size" { "" } else { r#""msg_size":1000,"# };
            let request = parse(&format!(r#"{{"smtp_connection_type":"plain",{msg_size}"{key}":{number}}}"#));
            request.is_ok_and(|request| spec(request).is_ok())
        };
        for (bound, beyond) in [("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1)] {
            let number = if property["anyOf"][0]["type"][0] == "integer" { &property["anyOf"][0] } else { property };
            let Some(bound) = number[bound].as_u64().map(i128::from) else { continue };
            assert!(is_taken(if beyond == 0 { bound + 1 } else { bound }), "{key}: {bound}");
            assert!(!is_taken(bound + beyond), "{key}: {bound} + {beyond}");
            bounds += 1;
        }
    }
    assert!(bounds >= 17, "{bounds}");
}

#[test]
fn a_password_in_a_url_shows_nowhere() {
    let request = request(r#""target":"smtp://user:secret@example.com""#).unwrap();
    assert!(!format!("{request:?}").contains("secret"));
    assert!(format!("{:?}", self::request(r#""target":"lab""#).unwrap()).contains("lab"));
}
