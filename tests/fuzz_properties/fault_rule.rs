//! A rule of the sink's faults, whoever wrote it: it is read or refused, in few words; what is read is printed as a rule that
//! is the same; and what it sends is a line of SMTP.

use timecop::sink::fault::{FaultPhase, Striker};
use timecop::sink::{FaultCounters, FaultError, Faults, Rule};
use timecop::time::Instant;

/// Characters of an error: those of what came, escaped, and those of our own words.
const ERROR_CHARS_MAX: usize = 1_500;

pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for read in [Rule::delay, Rule::drop, Rule::reply, |text: &str| text.parse::<Rule>()] {
        match read(&text) {
            Ok(rule) => check_rule(rule),
            Err(error) => check_error(&error),
        }
    }
}

fn check_rule(rule: Rule) {
    let printed = rule.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(&rule), "{printed}");
    let faults = Faults::new([rule], FaultCounters::default()).expect("it is one");
    let mut striker = Striker::new(&faults, Instant::ZERO, 1).expect("there is one");
    for number in 0..3 {
        striker.enter(number, Some([192, 0, 2, 1].into()));
    }
    for (phase, at) in FaultPhase::ALL.into_iter().zip(0..) {
        let struck = striker.strike(Instant::from_ns(at), phase, Some(b"bob@example.com"));
        if let Some(refusal) = struck.refusal {
            let line = refusal.line();
            assert!(line.len() <= 512 && line.ends_with(b"\r\n"), "{printed}");
            assert!(line[..line.len() - 2].iter().all(|octet| matches!(octet, b' '..=b'~')), "{printed}");
            assert!((400..600).contains(&refusal.code_and_text().0), "{printed}");
        }
    }
}

fn check_error(error: &FaultError) {
    let shown = error.to_string();
    assert!(shown.starts_with("expected ") && shown.chars().count() < ERROR_CHARS_MAX, "{shown}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
}
