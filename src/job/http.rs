//! The requests of a job by HTTP: built once, and shared by all shards.

use super::plan::Circumstances;
use super::spec::http::{HttpSpec, JobType};
use super::spec::{ConnectionType, Content, JobSpec, SpecError};
use crate::message::{
    Conversion, DateCache, Form, FormContent, FormSpec, MessageError, MimeForm, MimeFormSpec, Parts, RawBody,
    RawBodySpec, Sizes, Template,
};
use crate::outgoing::Outgoing;
use crate::time::WallTime;
use crate::wire::http::client::ClientConfig;
use crate::wire::http::request::{HeadSpec, RequestHead};

/// How a job by HTTP talks, and what it says.
#[derive(Debug)]
pub struct HttpJob {
    /// How connections talk.
    pub client: ClientConfig,
    head: RequestHead,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Form(Form),
    Mime(MimeForm),
    Raw(RawBody),
}

impl HttpJob {
    /// Builds what is built once. `template` writes the messages of `http.mime`, not dot-stuffed.
    pub(super) fn new(
        spec: &JobSpec,
        http: &HttpSpec,
        at: &Circumstances,
        template: impl FnOnce() -> Result<(Template, Conversion), SpecError>,
    ) -> Result<(HttpJob, Conversion), SpecError> {
        let (body, conversion) = body(spec, http, at, template)?;
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
        Ok((HttpJob { client, head, body }, conversion))
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

fn body(
    spec: &JobSpec,
    http: &HttpSpec,
    at: &Circumstances,
    template: impl FnOnce() -> Result<(Template, Conversion), SpecError>,
) -> Result<(Body, Conversion), SpecError> {
    let wrong = |field| move |error: MessageError| SpecError::of(field, error);
    match http.kind {
        JobType::Http | JobType::Smtp => {
            let form = |content, field| {
                let spec = FormSpec {
                    content,
                    from: &spec.from,
                    recipients: &spec.recipients,
                    variables: None,
                    options: &http.options,
                    seed: spec.seed,
                    run_id: at.run_id,
                    host: &at.host,
                };
                Form::new(&spec).map(Body::Form).map_err(wrong(field))
            };
            let form = match &spec.content {
                Content::Generated(bytes) => {
                    form(FormContent::Generated { sizes: &Sizes::exactly(*bytes), subject: None }, "msg_size")?
                }
                Content::Given(text) => {
                    let text = String::from_utf8(text.clone())
                        .map_err(|_| SpecError::new("body", "text in UTF-8 for type http", "other octets"))?;
                    form(FormContent::Parts(&Parts { text: Some(text), ..Parts::default() }), "body")?
                }
            };
            Ok((form, Conversion::default()))
        }
        JobType::HttpMime => {
            let (template, conversion) = template()?;
            let spec = MimeFormSpec {
                template,
                recipients: &spec.recipients,
                variables: None,
                options: &http.options,
                run_id: at.run_id,
            };
            Ok((Body::Mime(MimeForm::new(spec).map_err(wrong("body"))?), conversion))
        }
        JobType::HttpRaw => {
            let said = http.fields.iter().find(|field| field.name().eq_ignore_ascii_case("content-type"));
            let content_type = said.map_or("application/json", |field| field.value()).to_owned();
            let spec = RawBodySpec {
                data: http.data.clone(),
                content_type,
                from: &spec.from,
                recipients: &spec.recipients,
                variables: None,
                run_id: at.run_id,
                host: &at.host,
            };
            Ok((Body::Raw(RawBody::new(spec).map_err(wrong("data"))?), Conversion::default()))
        }
    }
}
