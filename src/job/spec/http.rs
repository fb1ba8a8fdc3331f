//! What jobs by HTTP are asked for beside what all jobs are.

use std::fmt;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{RawSpec, SpecError};
use crate::message::MESSAGE_BYTES_MAX;
use crate::wire::http::request::{Field, REQUEST_FIELDS_MAX, check_method};

/// Most options (`o:`, `h:`, `v:`, `t:`) of a job.
pub const OPTIONS_MAX: usize = 100;
/// Octets of all options together, names included: Mailgun takes 16 kB.
pub const OPTIONS_BYTES_MAX: usize = 16 * 1_024;
/// What the names of options begin with (Mailgun's documentation, "Send an email").
pub const OPTION_PREFIXES: [&str; 4] = ["o:", "h:", "v:", "t:"];

/// What messages are sent by: `Type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobType {
    /// SMTP sessions.
    #[default]
    Smtp,
    /// The HTTP API of a mail provider (Mailgun's), field by field.
    Http,
    /// The same, with a whole MIME message.
    HttpMime,
    /// Requests to any HTTP API.
    HttpRaw,
}

impl JobType {
    /// All of them.
    pub const ALL: [JobType; 4] = [JobType::Smtp, JobType::Http, JobType::HttpMime, JobType::HttpRaw];

    /// The name in requests, options, reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            JobType::Smtp => "smtp",
            JobType::Http => "http",
            JobType::HttpMime => "http.mime",
            JobType::HttpRaw => "http.raw",
        }
    }

    /// Whether messages go by HTTP.
    pub const fn is_http(self) -> bool {
        !matches!(self, JobType::Smtp)
    }
}

/// What somebody asked for of a job by HTTP. A query, a body and options may hold keys, so none of them is shown.
#[derive(Clone, Default)]
pub struct RawHttp {
    /// The target's host, and its port where it is not the scheme's own, as the field Host has it.
    pub host: String,
    /// The target's path and query, percent-encoded, from `/` on.
    pub path: String,
    /// The method of `http.raw`.
    pub method: Option<String>,
    /// Further header fields.
    pub headers: Vec<Field>,
    /// The body of `http.raw`.
    pub data: Option<Bytes>,
    /// Options by their names, such as `o:testmode`.
    pub options: Vec<(String, String)>,
}

impl fmt::Debug for RawHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawHttp").field("host", &self.host).field("method", &self.method).finish_non_exhaustive()
    }
}

/// A valid job's requests.
#[derive(Clone)]
pub struct HttpSpec {
    /// Whose requests: never [`JobType::Smtp`].
    pub kind: JobType,
    /// Their method.
    pub method: String,
    /// What they are for: path and query, from `/` on.
    pub path: String,
    /// The field Host.
    pub host: String,
    /// Further header fields.
    pub fields: Vec<Field>,
    /// Options by their names.
    pub options: Vec<(String, String)>,
    /// The body of `http.raw`.
    pub data: Bytes,
}

impl fmt::Debug for HttpSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpSpec({})", self.describe())
    }
}

impl HttpSpec {
    /// Looks at every value; `None` for a job by SMTP.
    pub(super) fn new(kind: JobType, raw: RawHttp) -> Result<Option<HttpSpec>, SpecError> {
        let raw_only = [("method", raw.method.is_some()), ("data", raw.data.is_some())];
        let http_only = [("header", !raw.headers.is_empty()), ("options", !raw.options.is_empty())];
        let misplaced =
            |fields: &[(&'static str, bool)]| fields.iter().find(|(_, given)| *given).map(|(name, _)| *name);
        if kind != JobType::HttpRaw
            && let Some(field) = misplaced(&raw_only)
        {
            return Err(SpecError::new(field, "type http.raw beside it", kind.name()));
        }
        if kind == JobType::Smtp {
            return match misplaced(&http_only) {
                Some(field) => Err(SpecError::new(field, "a type by HTTP beside it", kind.name())),
                None => Ok(None),
            };
        }
        if kind == JobType::HttpRaw && !raw.options.is_empty() {
            return Err(SpecError::new("options", "type http or http.mime beside it", kind.name()));
        }
        let path = path(kind, &raw.path)?;
        let method = raw.method.unwrap_or_else(|| "POST".to_owned());
        check_method(&method).map_err(|error| SpecError::new("method", error, method.escape_debug()))?;
        if raw.headers.len() > REQUEST_FIELDS_MAX {
            return Err(SpecError::new("header", format!("at most {REQUEST_FIELDS_MAX}"), raw.headers.len()));
        }
        let data = raw.data.unwrap_or_default();
        if data.len() as u64 > MESSAGE_BYTES_MAX {
            return Err(SpecError::new("data", format!("at most {MESSAGE_BYTES_MAX} octets"), data.len()));
        }
        let options = options(raw.options)?;
        Ok(Some(HttpSpec { kind, method, path, host: raw.host, fields: raw.headers, options, data }))
    }

    /// Looks at what else a job has: nothing is passed over in silence.
    pub(super) fn goes_with(&self, raw: &RawSpec) -> Result<(), SpecError> {
        let has = |name: &str| self.fields.iter().any(|field| field.name().eq_ignore_ascii_case(name));
        if raw.auth.is_some() && has("authorization") {
            return Err(SpecError::new("header", "no Authorization beside a user and password", "one"));
        }
        if self.kind != JobType::HttpRaw {
            return match has("content-type") {
                true => Err(SpecError::new("header", "no Content-Type but for type http.raw", self.kind.name())),
                false => Ok(()),
            };
        }
        let content = [
            ("msg_size", raw.msg_size.is_some() || raw.msg_size_mix.is_some()),
            ("body", raw.body.is_some() || !raw.bodies.is_empty()),
            ("subject", raw.subject.is_some()),
            ("text", raw.text.is_some()),
            ("html", raw.html.is_some()),
            ("attach", !raw.attachments.is_empty()),
            ("expand", raw.expand == Some(false)),
        ];
        if let Some((field, _)) = content.into_iter().find(|(_, given)| *given) {
            return Err(SpecError::new(field, "none with type http.raw, whose requests are its data", "one"));
        }
        if raw.recipients_per_message.is_some_and(|most| most > 1) {
            let got = raw.recipients_per_message.unwrap_or_default();
            return Err(SpecError::new("recipients_per_message", "1 with type http.raw", got));
        }
        Ok(())
    }

    /// For reports: nothing that may be a key.
    pub(super) fn describe(&self) -> Value {
        json!({
            "method": self.method,
            // A query may hold a key.
            "path": self.path.split('?').next(),
            "data_bytes": (self.kind == JobType::HttpRaw).then_some(self.data.len()),
            "headers": self.fields.iter().map(Field::name).collect::<Vec<_>>(),
            "options": self.options.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        })
    }
}

/// Where requests go: Mailgun's endpoint below the target's path, or the target itself.
fn path(kind: JobType, path: &str) -> Result<String, SpecError> {
    let endpoint = match kind {
        JobType::HttpMime => "/messages.mime",
        JobType::Http => "/messages",
        JobType::HttpRaw | JobType::Smtp => return Ok(if path.is_empty() { "/".to_owned() } else { path.to_owned() }),
    };
    if path.contains('?') {
        let expected = format!("a URL without a query, such as https://api.mailgun.net/v3/DOMAIN, for {}", kind.name());
        return Err(SpecError::new("target", expected, "one with a query"));
    }
    let base = path.trim_end_matches('/');
    if let Some(given) = ["/messages", "/messages.mime"].into_iter().find(|end| base.ends_with(end)) {
        let expected = format!("the URL before {given}, which type {} puts behind it by itself", kind.name());
        return Err(SpecError::new("target", expected, format!("one that ends in it: leave {given} off")));
    }
    Ok(format!("{base}{endpoint}"))
}

fn options(options: Vec<(String, String)>) -> Result<Vec<(String, String)>, SpecError> {
    const FIELD: &str = "options";
    if options.len() > OPTIONS_MAX {
        return Err(SpecError::new(FIELD, format!("at most {OPTIONS_MAX}"), options.len()));
    }
    let bytes: usize = options.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > OPTIONS_BYTES_MAX {
        return Err(SpecError::new(FIELD, format!("at most {OPTIONS_BYTES_MAX} octets in all"), bytes));
    }
    for (name, value) in &options {
        let is_known = OPTION_PREFIXES.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
        if !is_known || name.contains(char::is_control) {
            return Err(SpecError::new(FIELD, "a name that begins with o:, h:, v: or t:", name.escape_debug()));
        }
        if value.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n')) {
            let got = format!("one in {}", name.escape_debug());
            return Err(SpecError::new(FIELD, "values without control characters", got));
        }
        if name.starts_with("h:") && value.contains(['\r', '\n']) {
            let got = format!("one in {}", name.escape_debug());
            return Err(SpecError::new(FIELD, "header fields without line ends", got));
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: JobType, change: impl FnOnce(&mut RawHttp)) -> Result<HttpSpec, SpecError> {
        let mut raw = RawHttp { host: "a".into(), path: "/v3/b".into(), ..RawHttp::default() };
        change(&mut raw);
        HttpSpec::new(kind, raw).map(|spec| spec.expect("a type by HTTP"))
    }

    #[test]
    fn a_type_has_its_endpoint() {
        let path = |kind, path: &str| spec(kind, |raw| raw.path = path.to_owned()).unwrap().path;
        assert_eq!(path(JobType::Http, "/v3/b"), "/v3/b/messages");
        assert_eq!(path(JobType::HttpMime, "/v3/b/"), "/v3/b/messages.mime");
        assert_eq!(path(JobType::Http, "/"), "/messages");
        assert_eq!(path(JobType::HttpRaw, "/v3/b?x=1"), "/v3/b?x=1");
        assert_eq!(path(JobType::HttpRaw, ""), "/");
        assert_eq!(spec(JobType::Http, |_| {}).unwrap().method, "POST");
    }

    #[test]
    fn what_may_be_a_key_is_shown_nowhere() {
        let spec = spec(JobType::HttpRaw, |raw| {
            raw.path = "/mail?key=tanstaafl".to_owned();
            raw.data = Some("tanstaafl".into());
            raw.headers = vec![Field::parse("X-Key: tanstaafl").unwrap()];
            assert!(!format!("{raw:?}").contains("tanstaafl"));
        });
        let spec = spec.unwrap();
        assert_eq!((spec.path.as_str(), &spec.describe()["path"]), ("/mail?key=tanstaafl", &json!("/mail")));
        assert!(!format!("{spec:?} {}", spec.describe()).contains("tanstaafl"));
    }

    #[test]
    fn what_does_not_go_with_a_type_is_refused() {
        let with = |kind, field: &str, raw: RawSpec| {
            let fields = Some(field).into_iter().filter(|field| !field.is_empty());
            let headers = fields.map(|field| Field::parse(field).unwrap()).collect();
            spec(kind, |raw| raw.headers = headers).unwrap().goes_with(&raw).map_err(|error| error.field)
        };
        let sized = || RawSpec { msg_size: Some(1), ..RawSpec::default() };
        let several = || RawSpec { recipients_per_message: Some(2), ..RawSpec::default() };
        assert_eq!(with(JobType::HttpRaw, "Content-Type: text/plain", RawSpec::default()), Ok(()));
        assert_eq!(with(JobType::HttpMime, "Content-Type: text/plain", RawSpec::default()), Err("header"));
        assert_eq!(with(JobType::HttpRaw, "", sized()), Err("msg_size"));
        assert_eq!(with(JobType::Http, "", sized()), Ok(()));
        assert_eq!(with(JobType::HttpRaw, "", several()), Err("recipients_per_message"));
    }

    #[test]
    fn every_wrong_value_names_its_field() {
        type Change = fn(&mut RawHttp);
        let option = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert!(spec(JobType::Http, |raw| raw.options = option("o:tag", "a\r\nb")).is_ok());
        let wrong: [(JobType, &str, Change); 14] = [
            (JobType::Http, "target", |raw| raw.path = "/v3/b/messages".into()),
            (JobType::Http, "target", |raw| raw.path = "/v3/b/messages.mime/".into()),
            (JobType::Http, "target", |raw| raw.path = "/v3?x".into()),
            (JobType::Http, "method", |raw| raw.method = Some("PUT".into())),
            (JobType::HttpRaw, "method", |raw| raw.method = Some("CONNECT".into())),
            (JobType::HttpMime, "data", |raw| raw.data = Some(Bytes::new())),
            (JobType::HttpRaw, "options", |raw| raw.options = vec![("o:a".into(), "b".into())]),
            (JobType::Smtp, "options", |raw| raw.options = vec![("o:a".into(), "b".into())]),
            (JobType::Smtp, "header", |raw| raw.headers = vec![Field::parse("A: b").unwrap()]),
            (JobType::Http, "header", |raw| raw.headers = vec![Field::parse("A: b").unwrap(); REQUEST_FIELDS_MAX + 1]),
            (JobType::Http, "options", |raw| raw.options = vec![("x:a".into(), "b".into())]),
            (JobType::Http, "options", |raw| raw.options = vec![("h:a".into(), "b\r\nc".into())]),
            (JobType::Http, "options", |raw| raw.options = vec![("o:a".into(), "b\0".into())]),
            (JobType::Http, "options", |raw| raw.options = vec![("o:a".into(), "x".repeat(OPTIONS_BYTES_MAX))]),
        ];
        for (kind, field, change) in wrong {
            let mut raw = RawHttp { path: "/v3/b".into(), ..RawHttp::default() };
            change(&mut raw);
            let error = HttpSpec::new(kind, raw).expect_err(field);
            assert_eq!(error.field, field, "{error}");
            assert!(error.problem.contains("expected") && error.problem.contains("got"), "{error}");
        }
    }
}
