//! How rules are written, and what is said of those that are none.

use super::*;
use proptest::prelude::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<Rule>().expect_err(text).to_string()
}

#[test]
fn replies_carry_a_fitting_enhanced_code_where_one_belongs() {
    let line = |text: &str| rule(text).reply_line().unwrap();
    assert_eq!(line("rcpt=451,5%"), "451 4.3.0 fault injected by the sink\r\n");
    assert_eq!(line("final=554"), "554 5.0.0 fault injected by the sink\r\n");
    assert_eq!(line("data=550,100%,no, never"), "550 5.7.1 no, never\r\n");
    assert_eq!(line("mail=421,above:5/s,10%,slow down, 5%"), "421 4.3.2 slow down, 5%\r\n");
    assert_eq!(line("banner=421"), "421 fault injected by the sink\r\n");
    assert_eq!(line("http=599"), "599 fault injected by the sink\r\n");
    assert_eq!(line("ehlo=550"), "550 fault injected by the sink\r\n");
    for code in (400..460).chain(500..560) {
        let line = line(&format!("mail={code}"));
        assert_eq!(line.as_bytes()[0], line.as_bytes()[4], "{line}");
    }
}

#[test]
fn every_kind_of_rule_is_printed_as_it_was_written() {
    for text in [
        "connect=drop,connections:100",
        "connect=reset,0.5%",
        "tls=refuse,10%",
        "tls=expired",
        "tls=wrong-name",
        "tls=drop",
        "tls=reset,connections:2/address",
        "banner=421,connections:10/address",
        "banner=delay:5s",
        "ehlo=without:PIPELINING+SIZE",
        "starttls=454,50%",
        "auth=454",
        "mail=421,above:100/s",
        "rcpt:*@example.com=451,5%,try again, later",
        "rcpt:*user=example.com@*=451",
        "rcpt:srs0=ab=cd=a,b@*=451,5%,a=b, c=451",
        "data:*=delay:1s@*=delay:1s",
        "rcpt=451,5%,busy-100%",
        "rcpt=451,5%,busy-100%,5%",
        "rcpt=450,greylist:5m",
        "data=slow:10/s",
        "final:bob?@*=delay:exp:10ms",
        "quit=drop",
        "http=503,1%",
    ] {
        assert_eq!(rule(text).to_string(), text);
    }
    assert_eq!(rule("ehlo=without:auth+Size+AUTH"), rule("ehlo=without:SIZE+AUTH"));
}

#[test]
fn the_short_forms_are_rules_like_others() {
    assert_eq!(Rule::delay("rcpt=10ms"), Ok(rule("rcpt=delay:10ms")));
    assert_eq!(Rule::delay("rcpt:a@*=exp:1s"), Ok(rule("rcpt:a@*=delay:exp:1s")));
    assert_eq!(Rule::drop("final=0.5%"), Ok(rule("final=drop,0.5%")));
    assert_eq!(Rule::delay("rcpt:a=b@*=1s"), Ok(rule("rcpt:a=b@*=delay:1s")));
    assert_eq!(Rule::drop("rcpt:a=b@*=1%"), Ok(rule("rcpt:a=b@*=drop,1%")));
    assert_eq!(Rule::drop("tls=5%"), Ok(rule("tls=drop,5%")));
    assert_eq!(Rule::reply("rcpt=451,5%,no"), Ok(rule("rcpt=451,5%,no")));
    for (result, expected) in [
        (Rule::delay("10ms"), "expected PHASE=VALUE, got \"10ms\"; for example rcpt=10ms or final=exp:10ms"),
        (
            Rule::delay("rcpt=10"),
            "expected a duration such as 10ms or 1s, at most 1day, got \"10\"; for example rcpt=10ms or final=exp:10ms",
        ),
        (Rule::drop("rcpt=5"), "expected a probability from 0% to 100%, got \"5\"; for example data=1%"),
        (Rule::reply("rcpt=drop"), "expected a reply code, got \"rcpt=drop\"; for example rcpt=451,5%,try again later"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
}

#[test]
fn errors_say_what_was_expected_and_what_came() {
    for (text, expected) in [
        ("", "expected PHASE=VALUE, got \"\"; for example rcpt=451,5%,try again later"),
        (
            "body=451",
            "expected one of the phases connect, tls, banner, ehlo, starttls, auth, mail, rcpt, data, final, quit, \
                      http, got \"body\"",
        ),
        ("rcpt=250", "expected a reply code from 400 to 459 or from 500 to 559, got \"250\""),
        ("rcpt=dorp", "expected one of the actions CODE, drop, reset, delay:TIME,"),
        ("http=302", "expected a status from 400 to 599, drop or delay:TIME, got \"302\""),
        ("rcpt=451,101%", "expected a probability from 0% to 100%, got \"101%\""),
        ("rcpt=451,NaN%", "expected a probability from 0% to 100%, got \"NaN%\""),
        (
            "rcpt=451,5",
            "expected one of the conditions 5%, above:100/s, connections:10, connections:10/address or \
                        greylist:5m, and a text behind it alone, got \"5\"",
        ),
        ("rcpt=451,busy-100%", "expected one of the conditions 5%,"),
        ("rcpt:a=b@*=250", "expected a reply code from 400 to 459 or from 500 to 559, got \"250\""),
        ("rcpt:a,b@*=250", "expected a reply code from 400 to 459 or from 500 to 559, got \"250\""),
        ("rcpt=451,5%,5%", "expected each kind of condition once, got \"5%\""),
        ("rcpt=451,5%,a\r\nb", "expected a text of 1 to 400 printable ASCII characters, got \"a\\r\\nb\""),
        ("rcpt=drop,5%,text", "expected one of the conditions 5%,"),
        ("mail=421,above:0/s", "expected above:RATE/s with a rate above 0, got \"above:0/s\""),
        ("mail=421,connections:+1", "expected connections:NUMBER or connections:NUMBER/address, got"),
        ("rcpt=450,greylist:2days", "expected a duration such as 10ms or 1s, at most 1day, got \"2days\""),
        ("rcpt=550,greylist:5m", "expected a greylist at rcpt alone, with a code of 4xx, got"),
        ("data=450,greylist:5m", "expected a greylist at rcpt alone, with a code of 4xx, got"),
        ("data=slow:0/s", "expected slow:OCTETS/s, with 1 to 1000000 octets, got \"slow:0/s\""),
        ("mail:a@b=451", "expected a pattern of recipients at rcpt, data or final alone, got \"mail:a@b=451\""),
        ("rcpt:a b=451", "expected a pattern of 1 to 256 printable ASCII characters without spaces, got \"a b\""),
        ("tls=451", "expected one of refuse, expired, wrong-name, drop and reset, got \"451\""),
        ("rcpt=expired", "expected refuse, expired and wrong-name at tls alone, got \"expired\""),
        ("connect=421", "expected drop or reset, at connect, got \"connect=421\""),
        (
            "ehlo=without:TLS",
            "expected capabilities out of PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, \
                              STARTTLS, AUTH, got \"TLS\"",
        ),
        ("mail=without:SIZE", "expected without:CAPABILITY at ehlo alone, and always, got"),
        ("ehlo=without:SIZE,5%", "expected without:CAPABILITY at ehlo alone, and always, got"),
        ("http=reset", "expected drop, at http, got \"http=reset\""),
        ("http=503,connections:5", "expected a cap of connections at connect, tls or a phase of SMTP, got"),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{text}: {error}");
        assert!(error.contains("; for example "), "{error}");
    }
    assert!(error(&"x".repeat(100_000)).len() < 200, "what came is shown in part");
    assert!(error(&format!("mail=421,above:{}5/s", "0".repeat(50))).starts_with("expected above:RATE/s"));
}

#[test]
fn patterns_fit_in_any_case_and_stars_stand_for_anything() {
    let fits = |pattern: &str, address: &str| Pattern::parse(pattern).unwrap().fits(address.as_bytes());
    for (pattern, address) in [
        ("*", ""),
        ("*@example.com", "bob@EXAMPLE.com"),
        ("Bob@example.com", "bob@example.com"),
        ("bob+*@*", "bob+1@x@y"),
        ("b?b@*.example", "bab@a.b.example"),
        ("*a*b*", "xaxaxb"),
        ("**a", "a"),
    ] {
        assert!(fits(pattern, address), "{pattern} {address}");
    }
    for (pattern, address) in
        [("*@example.com", "bob@example.com.org"), ("b?b", "bb"), ("a", ""), ("*a*b", "ba"), ("a*", "ba")]
    {
        assert!(!fits(pattern, address), "{pattern} {address}");
    }
    assert!(!fits(&"*a".repeat(120), &"a".repeat(119)), "and at once, too");
}

proptest! {
    #[test]
    fn what_is_read_is_printed_as_a_rule_that_is_the_same(
        phase in proptest::sample::select(FaultPhase::ALL.map(FaultPhase::name).to_vec()),
        to in "(:[!-~]{1,9}|:[a@]?(=drop|=451|=|,){0,3})?",
        action in "([45][0-5][0-9]|drop|reset|delay:(exp:)?[0-9]{1,4}(ns|ms|s)|slow:[0-9]{1,5}/s|expired|without:SIZE)",
        conditions in "(,[0-9]{1,2}(\\.[0-9]{1,3})?%)?(,above:[0-9]{1,3}/s)?(,connections:[0-9](/address)?)?(,greylist:[0-9]m)?",
        text in "(,[ -~]{1,20})?",
    ) {
        let text = format!("{phase}{to}={action}{conditions}{text}");
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule), "{}", text);
        }
    }
}
