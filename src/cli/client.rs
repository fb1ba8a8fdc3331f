//! One request to a service, for the commands that are its clients.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::StartError;
use super::args::ServiceAddress;

/// How long the service may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What to do where something else answers.
const NAME_THE_API: &str = "--api names the address of [api] listen, http://127.0.0.1:8025 by default";
/// What to do where the answer is no TLS.
const NO_TLS: &str = "what answers there speaks no TLS, as the service itself does not: write http://";
/// Most octets of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Why a request has no answer that is of use.
pub(super) enum Failure {
    /// The service has no room or time for it now; how long to wait before it is asked again.
    Busy(Duration, StartError),
    /// Anything else.
    Other(StartError),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::Other(error)
    }
}

impl From<Failure> for StartError {
    fn from((Failure::Busy(_, error) | Failure::Other(error)): Failure) -> StartError {
        error
    }
}

/// One request to the service. What it refuses is an error in its own words.
pub(super) fn ask(service: &ServiceAddress, path: &str, body: Option<String>) -> Result<String, StartError> {
    Ok(try_ask(service, path, body)?)
}

/// The same, for those who ask again.
pub(super) fn try_ask(service: &ServiceAddress, path: &str, body: Option<String>) -> Result<String, Failure> {
    if !service.api.starts_with("http://") && !service.api.starts_with("https://") {
        let got = &service.api;
        let text = format!("--api: expected a URL such as http://127.0.0.1:8025, got {got}; write http:// before it");
        return Err(StartError::new(text).into());
    }
    let url = format!("{}{path}", service.api.trim_end_matches('/'));
    let unreachable = |error: ureq::Error| StartError::new(format!("{url}: {error}; {}", remedy(&error)));
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // A token is for the service alone, whatever the environment says of proxies.
        .proxy(None)
        .timeout_global(Some(ANSWER_WITHIN))
        .build()
        .new_agent();
    let mut request = agent.post(&url);
    if let Some(path) = &service.token_file {
        request = request.header("Authorization", format!("Bearer {}", token(path)?));
    }
    let answer = match body {
        Some(body) => request.content_type("application/json").send(body),
        None => request.send_empty(),
    };
    let mut answer = answer.map_err(unreachable)?;
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(unreachable)?;
    if answer.status().is_success() {
        return Ok(text);
    }
    let reason = serde_json::from_str::<Value>(&text).ok();
    let reason = reason.as_ref().and_then(|reason| reason["Reason"].as_str());
    let error = StartError::new(reason.map_or_else(
        || format!("{url} answered {}, as the API of `timecop serve` does not; {NAME_THE_API}", answer.status()),
        in_words,
    ));
    let again_after = answer.headers().get("Retry-After").and_then(|after| after.to_str().ok()?.parse().ok());
    Err(match again_after.filter(|_| answer.status() == 503) {
        Some(seconds) => Failure::Busy(Duration::from_secs(seconds), error),
        None => Failure::Other(error),
    })
}

/// What to do where no answer came.
fn remedy(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Protocol(_) => NAME_THE_API,
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => NO_TLS,
        _ => "is `timecop serve` running there?",
    }
}

/// What the API says in paths, in the words of the command line.
fn in_words(reason: &str) -> String {
    reason
        .replace("id: expected a job of /v1/hammer/job.list", "expected the id of a job that `timecop job list` shows")
        .replace(
            "name: expected a route of /v1/probe/route.list",
            "expected a [[probe.route]] of the service by its name",
        )
        .replace(
            "Authorization: expected Bearer and the token of the service's token_file",
            "--token-file: expected a file (or TIMECOP_TOKEN_FILE its name) with the token of the service's [api] \
             token_file",
        )
}

fn token(path: &Path) -> Result<String, StartError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| StartError::new(format!("--token-file: cannot read {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// An answer in its type.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(answer: &str) -> Result<T, StartError> {
    serde_json::from_str(answer).map_err(|error| {
        StartError::new(format!("the service's answer is not one of timecop {}: {error}", env!("CARGO_PKG_VERSION")))
    })
}

/// A value in a query.
pub(super) fn escaped(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}
