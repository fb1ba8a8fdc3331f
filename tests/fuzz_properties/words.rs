//! What people write on a command line or into a field: no text makes a reader panic, errors hold nothing that controls a
//! terminal, and what is shown again is read again as the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use timecop::job::request::duration;
use timecop::job::time_limits::TimeLimits;
use timecop::load::stages::{self, Stages};
use timecop::load::warmup::Warmup;
use timecop::measure::abort::AbortRule;
use timecop::measure::threshold::Threshold;
use timecop::message::{Entry, Mailbox, ReversePath};
use timecop::probe::header::Key;
use timecop::sink::{Capacity, RateLimit, Rule, Stall};
use timecop::wire::http::request::Field;
use timecop::wire::smtp::auth::Users;

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(span) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::format(span)), Some(span), "{span:?}");
    }
    again(text, Threshold::parse);
    again(text, AbortRule::parse);
    again(text, Mailbox::parse);
    refused(ReversePath::parse(text));
    again(text, Entry::parse);
    refused(TimeLimits::parse(text).map(|limits| limits.checked().err()));
    if let Some(list) = refused(stages::parse(text)) {
        refused(Stages::new(0.0, list));
    }
    refused(Warmup::from_str(text));
    refused(Capacity::from_str(text));
    refused(RateLimit::from_str(text));
    refused(Rule::delay(text));
    refused(Rule::reply(text));
    refused(Rule::drop(text));
    again(text, Rule::from_str);
    refused(Stall::from_str(text));
    refused(Field::parse(text));
    let _ = (Key::parse(text), Users::parse(text));
}

/// What is shown is read again, and shown in the same way.
fn again<T: Display + PartialEq + Debug, E: Display>(text: &str, parse: impl Fn(&str) -> Result<T, E>) {
    let Some(value) = refused(parse(text)) else { return };
    let shown = value.to_string();
    match parse(&shown) {
        Ok(read) => assert_eq!(read, value, "{text:?} is shown as {shown:?}"),
        Err(error) => panic!("{text:?} is shown as {shown:?}: {error}"),
    }
}

/// The value, or nothing if it is refused in words that control nothing.
fn refused<T, E: Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let words = error.to_string();
            assert!(!words.contains(char::is_control), "{words:?}");
            None
        }
    }
}
