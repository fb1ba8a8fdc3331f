//! The requests of a job by HTTP: built once, and shared by all shards.

use secrecy::zeroize::Zeroizing;

use super::content;
use super::plan::Circumstances;
use super::spec::http::{HttpSpec, JobType};
use super::spec::{ConnectionType, JobSpec, SpecError};
use crate::message::{Conversion, DateCache, Form, MimeForm, RawBody, Sizes};
use crate::outgoing::Outgoing;
use crate::time::WallTime;
use crate::wire::http::client::ClientConfig;
use crate::wire::http::request::{Field, HeadSpec, RequestHead};

/// Header values of fewer octets are no keys.
const SECRET_BYTES_MIN: usize = 8;
/// Octets of a key by which a text that repeats it is known, also where the text is cut.
const SECRET_BYTES_SHOWN_MAX: usize = 16;

/// How a job by HTTP talks, and what it says.
#[derive(Debug)]
pub struct HttpJob {
    /// How connections talk.
    pub client: ClientConfig,
    head: RequestHead,
    body: Body,
    /// Values of header fields, each of which may be a key.
    secrets: Secrets,
}

/// What no report shows.
struct Secrets(Vec<Zeroizing<String>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// The values of these fields, whole and behind the word that says what they are, as in `Bearer KEY`.
    fn of(fields: &[Field]) -> Secrets {
        let values = fields.iter().map(Field::value);
        let behind = fields.iter().filter_map(|field| Some(field.value().split_once(' ')?.1));
        let long = values.chain(behind).filter(|value| value.len() >= SECRET_BYTES_MIN);
        Secrets(long.map(|value| Zeroizing::new(value.to_owned())).collect())
    }

    /// Whether a text repeats one of them, or the beginning of a long one.
    fn are_shown_by(&self, text: &[u8]) -> bool {
        self.0.iter().any(|secret| {
            let begin = &secret.as_bytes()[..secret.len().min(SECRET_BYTES_SHOWN_MAX)];
            memchr::memmem::find(text, begin).is_some()
        })
    }
}

#[derive(Debug)]
enum Body {
    Form(Form),
    Mime(MimeForm),
    Raw(RawBody),
}

impl HttpJob {
    /// Builds what is built once.
    pub(super) fn new(spec: &JobSpec, http: &HttpSpec, at: &Circumstances) -> Result<(HttpJob, Conversion), SpecError> {
        let (body, conversion) = body(spec, http, at)?;
        let auth = spec.auth.as_ref();
        let head = RequestHead::new(&HeadSpec {
            method: &http.method,
            path: &http.path,
            host: &http.host,
            basic_auth: auth.map(|credentials| (credentials.user(), credentials.exposed_password())),
            fields: &http.fields,
            content_type: body.content_type(),
        });
        let client = ClientConfig {
            tls: spec.target.connection != ConnectionType::Plain,
            is_head: http.method == "HEAD",
            timeouts: spec.timeout.http(),
        };
        Ok((HttpJob { client, head, body, secrets: Secrets::of(&http.fields) }, conversion))
    }

    /// Whether a text repeats the value of a header field, or the beginning of a long one.
    pub(super) fn is_shown_by(&self, text: &[u8]) -> bool {
        self.secrets.are_shown_by(text)
    }

    /// As [`super::plan::Job::sizes`].
    pub(super) fn sizes(&self) -> Option<&Sizes> {
        match &self.body {
            Body::Form(form) => form.sizes(),
            Body::Mime(form) => form.template().sizes(),
            Body::Raw(_) => None,
        }
    }

    /// As [`super::plan::Job::expanded_bytes_max`].
    pub(super) fn expanded_bytes_max(&self) -> Option<u64> {
        match &self.body {
            Body::Form(_) => None,
            Body::Mime(form) => form.template().expanded_bytes_max(),
            Body::Raw(body) => Some(body.expanded_bytes_max()),
        }
    }

    /// Octets of message `sequence`: of the whole body where that is no MIME message.
    pub(super) fn message_bytes(&self, sequence: u64) -> u64 {
        match &self.body {
            Body::Form(form) => form.bytes(sequence),
            Body::Mime(form) => form.template().bytes(sequence),
            Body::Raw(body) => body.bytes(sequence),
        }
    }

    /// Appends the request of message `sequence`, which is dated `wall`.
    #[inline]
    pub fn write(&self, sequence: u64, wall: WallTime, dates: &mut DateCache, out: &mut Outgoing) {
        match &self.body {
            Body::Form(form) => {
                self.head.write(form.bytes(sequence), &mut out.bytes);
                form.write(sequence, wall, dates, out);
            }
            Body::Mime(form) => {
                self.head.write(form.bytes(sequence), &mut out.bytes);
                form.write(sequence, wall, dates, out);
            }
            Body::Raw(body) => {
                self.head.write(body.bytes(sequence), &mut out.bytes);
                body.write(sequence, wall, dates, out);
            }
        }
    }
}

impl Body {
    fn content_type(&self) -> &str {
        match self {
            Body::Form(form) => form.content_type(),
            Body::Mime(form) => form.content_type(),
            Body::Raw(body) => body.content_type(),
        }
    }
}

fn body(spec: &JobSpec, http: &HttpSpec, at: &Circumstances) -> Result<(Body, Conversion), SpecError> {
    match http.kind {
        JobType::Http | JobType::Smtp => {
            Ok((Body::Form(content::form(spec, at, &http.options)?), Conversion::default()))
        }
        JobType::HttpMime => {
            let (form, conversion) = content::mime_form(spec, at, &http.options)?;
            Ok((Body::Mime(form), conversion))
        }
        JobType::HttpRaw => {
            let said = http.fields.iter().find(|field| field.name().eq_ignore_ascii_case("content-type"));
            let content_type = said.map_or("application/json", |field| field.value()).to_owned();
            Ok((Body::Raw(content::raw_body(spec, at, http.data.clone(), content_type)?), Conversion::default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_value_is_known_whole_behind_its_scheme_and_cut() {
        let fields =
            ["Authorization: Bearer tanstaafl-tanstaafl-1", "Accept: a/b"].map(|text| Field::parse(text).unwrap());
        let secrets = Secrets::of(&fields);
        let is_shown = |text: &str| secrets.are_shown_by(text.as_bytes());
        for text in ["no: Bearer tanstaafl-tanstaafl-1", "token tanstaafl-tanstaafl-1", "token tanstaafl-tansta..."] {
            assert!(is_shown(text), "{text}");
        }
        assert!(!is_shown("Bearer and a/b are wanted"));
        assert!(!format!("{secrets:?}").contains("tanstaafl"));
    }
}
