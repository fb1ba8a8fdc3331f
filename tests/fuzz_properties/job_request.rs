//! Requests for a job, whatever their octets: what is refused is refused in few words that control nothing, and what is
//! taken is shown in a form that is taken again and shown in the same form.

use timecop::job::request::content::MessageSize;
use timecop::job::request::{JobRequest, RECIPIENTS_ECHOED_MAX, RequestError};
use timecop::job::spec::{JobSpec, Target};

/// Octets of the longest error, which names all keys or repeats 60 characters of a value.
const ERROR_BYTES_MAX: usize = 700;

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let mut request = match JobRequest::parse(input) {
        Ok(request) => request,
        Err(error) => return check_error(&error),
    };
    if let Some(body) = request.body.take() {
        // A body is shown as its digest, which is no body.
        request.msg_size.get_or_insert(MessageSize::Exactly(body.0.len() as u64));
    }
    for text in [&mut request.text, &mut request.html] {
        if let Some(text) = text.take() {
            request.msg_size.get_or_insert(MessageSize::Exactly(text.0.len() as u64));
        }
    }
    // Nor are variables, options, or a long list of recipients.
    request.recipient_variables = None;
    request.options = None;
    request.recipients = request.recipients.filter(|list| list.0.len() <= RECIPIENTS_ECHOED_MAX);
    let echo = request.echo();
    let again = JobRequest::parse(echo.get().as_bytes()).unwrap_or_else(|error| panic!("{error}: {echo}"));
    assert_eq!(again, request, "{echo}");
    assert_eq!(again.echo().get(), echo.get());
    let target = Target {
        name: String::new(),
        host: "localhost".to_owned(),
        address: ([127, 0, 0, 1], 25).into(),
        connection: request.smtp_connection_type.unwrap_or_default(),
    };
    if let Err(error) = JobSpec::new(request.into_raw_spec(), target, 1) {
        check_error(&error.into());
    }
}

fn check_error(error: &RequestError) {
    let words = error.to_string();
    assert!(words.len() <= ERROR_BYTES_MAX, "{words}");
    assert!(!words.contains(char::is_control), "{words:?}");
}
