//! From the arguments of a job by HTTP to what is asked for.

use super::StartError;
use super::args::HttpArguments;
use crate::config::{self, TargetUrl};
use crate::control::targets::{self, EMBEDDED_PATH};
use crate::job::spec::RawSpec;
use crate::job::spec::http::{JobType, RawHttp};
use crate::wire::http::request::Field;

/// What a run asks for, with what its target and its arguments say of HTTP.
pub(super) fn complete(raw: RawSpec, target: Option<&str>, arguments: HttpArguments) -> Result<RawSpec, StartError> {
    let kind = job_type(target, &arguments)?;
    let header = |text: &String| {
        // A value may be a key, and so may what has no colon.
        let got = text
            .split_once(':')
            .map_or("one without a colon".to_owned(), |(name, _)| format!("{}: …", name.escape_debug()));
        Field::parse(text).map_err(|error| StartError::new(format!("--header: expected {error}, got {got}")))
    };
    let data = arguments.data.as_deref().map(config::data_file).transpose();
    let mut headers = arguments.header.iter().map(header).collect::<Result<Vec<_>, _>>()?;
    let is_embedded = kind.is_http() && target.is_none();
    if is_embedded {
        headers.push(targets::embedded_authorization());
    }
    let embedded = RawHttp { path: EMBEDDED_PATH.to_owned(), ..RawHttp::default() };
    let of_target =
        if is_embedded { embedded } else { target.and_then(url).map(|url| url.request()).unwrap_or_default() };
    let http = RawHttp {
        method: arguments.method,
        headers,
        data: data.map_err(|problem| StartError::new(format!("--data: {problem}")))?,
        options: arguments.form.option,
        ..of_target
    };
    Ok(RawSpec { job_type: kind, http, ..raw })
}

/// What messages are sent by, which target and `--type` must agree on.
pub(super) fn job_type(target: Option<&str>, arguments: &HttpArguments) -> Result<JobType, StartError> {
    let is_http = target.and_then(url).is_some();
    let usual = if is_http { JobType::Http } else { JobType::Smtp };
    let kind = arguments.form.job_type.map_or(usual, JobType::from);
    let wrong = |expected: &str, got: &str| {
        Err(StartError::new(format!("--type: expected {expected}, got {} with {got}", kind.name())))
    };
    match (kind.is_http(), is_http) {
        // For these there is an embedded stub.
        (true, false) if target.is_none() && kind != JobType::HttpRaw => Ok(kind),
        (true, false) => wrong(
            "a TARGET such as http://127.0.0.1:8026/v3/example.com beside it",
            if target.is_some() { "a TARGET by SMTP" } else { "none" },
        ),
        (false, true) => wrong("http, http.mime or http.raw for this TARGET", "one by HTTP"),
        _ => Ok(kind),
    }
}

/// The target, where it is one of HTTP.
fn url(target: &str) -> Option<TargetUrl> {
    TargetUrl::parse(target).ok().filter(TargetUrl::is_http)
}
