//! What people write on a command line or into a field: no text makes a reader panic, errors hold nothing that controls a
//! terminal, and what is shown again is read again as the same: as a text, or as a job of the service shows it.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use timecop::job::request::load_control::List;
use timecop::job::request::{JobRequest, duration};
use timecop::job::spec::DURATION_MAX;
use timecop::job::time_limits::TimeLimits;
use timecop::load::connections::ConnectionStages;
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
    if let Some(threshold) = again(text, Threshold::parse).filter(|_| text.len() <= CONDITION_BYTES_MAX) {
        in_a_request(|request| request.fail_if = Some(List(vec![threshold])));
    }
    if let Some(rule) = again(text, AbortRule::parse).filter(|rule| rule.to_string().len() <= CONDITION_BYTES_MAX) {
        in_a_request(|request| request.abort_on = Some(List(vec![rule])));
    }
    again(text, Mailbox::parse);
    refused(ReversePath::parse(text));
    again(text, Entry::parse);
    let limits = refused(TimeLimits::parse(text)).and_then(|limits| refused(limits.checked()));
    if let Some(limits) = limits.filter(|limits| *limits != TimeLimits::default()) {
        in_a_request(|request| request.timeout = Some(limits));
    }
    if let Some(list) = refused(stages::parse(text)) {
        let of_rates = refused(Stages::new(0.0, list.clone())).map(|stages| stages.duration());
        let of_connections = refused(ConnectionStages::new(list.clone())).map(|stages| stages.duration());
        if of_rates.or(of_connections).is_some_and(|duration| duration <= DURATION_MAX) {
            in_a_request(|request| request.stages = Some(List(list)));
        }
    }
    let warmup = refused(Warmup::from_str(text)).filter(|warmup| match warmup {
        Warmup::Duration(duration) => (Duration::from_nanos(1)..=DURATION_MAX).contains(duration),
        Warmup::Messages(messages) => *messages > 0,
    });
    if let Some(warmup) = warmup {
        in_a_request(|request| request.warmup = Some(warmup));
    }
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

/// The longest condition that a request may have.
const CONDITION_BYTES_MAX: usize = 100;

/// A request with such a value is shown in a form that is taken again and means the same.
fn in_a_request(set: impl FnOnce(&mut JobRequest)) {
    let mut request = JobRequest::parse(br#"{"smtp_connection_type":"plain","msg_size":1000}"#).expect("it is valid");
    set(&mut request);
    let shown = request.echo();
    let read = JobRequest::parse(shown.get().as_bytes()).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(read, request, "{shown}");
}

/// What is shown is read again, and shown in the same way.
fn again<T: Display + PartialEq + Debug, E: Display>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
    let value = refused(parse(text))?;
    let shown = value.to_string();
    match parse(&shown) {
        Ok(read) => assert_eq!(read, value, "{text:?} is shown as {shown:?}"),
        Err(error) => panic!("{text:?} is shown as {shown:?}: {error}"),
    }
    Some(value)
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
