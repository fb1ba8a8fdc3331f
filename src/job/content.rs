//! What a job sends, built once: the messages of SMTP sessions, and the bodies of HTTP requests.

use bytes::Bytes;

use super::plan::Circumstances;
use super::spec::{Content, JobSpec, SpecError};
use crate::message::{
    ComposedSpec, Conversion, Form, FormContent, FormSpec, GeneratedSpec, GivenSpec, MessageError, MimeForm,
    MimeFormSpec, Parts, RawBody, RawBodySpec, Template,
};

/// The messages, before dot-stuffing, and what had to be changed in given ones. Variables that are not replaced go `beside`
/// them, or else along in a header field.
pub fn messages(spec: &JobSpec, at: &Circumstances, beside: bool) -> Result<(Template, Conversion), SpecError> {
    let (recipients, run_id, host) = (&spec.recipients, at.run_id, at.host.as_str());
    let variables = spec.variables.as_deref();
    match &spec.content {
        Content::Generated { sizes, subject } => {
            let generated = GeneratedSpec {
                sizes: sizes.clone(),
                subject: subject.clone(),
                from: spec.from.clone(),
                recipients: recipients.clone(),
                seed: spec.seed,
                run_id,
                host: at.host.clone(),
            };
            let template = Template::generated(generated).map_err(wrong("msg_size"))?;
            Ok((template, Conversion::default()))
        }
        Content::Parts(parts) => {
            let (from, expand) = (&spec.from, spec.expand);
            let composed = ComposedSpec { parts, from, variables, expand, beside, recipients, run_id, host };
            let field = if parts.text.is_some() { "text" } else { "html" };
            Ok((Template::composed(&composed).map_err(wrong(field))?, Conversion::default()))
        }
        Content::Given { messages, verbatim } => {
            let (verbatim, expand) = (*verbatim, spec.expand);
            let given = GivenSpec { messages, verbatim, variables, expand, beside, recipients, run_id, host };
            Template::of_messages(&given).map_err(wrong("body"))
        }
    }
}

/// An error in a job's field; what is wrong with its variables is theirs.
fn wrong(field: &'static str) -> impl Fn(MessageError) -> SpecError {
    move |error| match error {
        MessageError::Variables(error) => SpecError::of("recipient_variables", error),
        error => SpecError::of(field, error),
    }
}

/// The messages of SMTP sessions, dot-stuffed by `stuff`, and what had to be changed in given ones.
pub fn template(
    spec: &JobSpec,
    at: &Circumstances,
    stuff: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<(Template, Conversion), SpecError> {
    let (mut template, conversion) = messages(spec, at, false)?;
    if let (Some(audit), true) = (&at.audit, spec.audit) {
        template = template.stamped(at.run_id, audit.signer.clone()).map_err(wrong(spec.content.largest().0))?;
    }
    Ok((template.map_content(stuff), conversion))
}

/// The bodies of an `http` job: Mailgun's form API. A given `body` is its text. `options` are further fields, `o:tag` and
/// such.
pub fn form(spec: &JobSpec, at: &Circumstances, options: &[(String, String)]) -> Result<Form, SpecError> {
    if spec.expand {
        return Err(SpecError::new("expand", "false for http, whose server replaces variables itself", "true"));
    }
    let text;
    let content = match &spec.content {
        Content::Generated { sizes, subject } => FormContent::Generated { sizes, subject: subject.as_deref() },
        Content::Parts(parts) => FormContent::Parts(parts),
        Content::Given { verbatim: true, .. } => {
            return Err(SpecError::new("verbatim", "type smtp or http.mime, which send whole messages", "http"));
        }
        Content::Given { messages, .. } => {
            text = only_text(messages)?;
            FormContent::Parts(&text)
        }
    };
    let form = FormSpec {
        content,
        from: &spec.from,
        recipients: &spec.recipients,
        variables: spec.variables.as_deref(),
        options,
        seed: spec.seed,
        run_id: at.run_id,
        host: &at.host,
    };
    Form::new(&form).map_err(wrong(spec.content.largest().0))
}

/// A given body as the text of a form, which has no place for a whole message.
fn only_text(messages: &[Bytes]) -> Result<Parts, SpecError> {
    let [body] = messages else {
        let got = format!("{}; type http.mime sends whole messages", messages.len());
        return Err(SpecError::new("body", "one text for http", got));
    };
    let text = String::from_utf8(body.to_vec())
        .map_err(|_| SpecError::new("body", "UTF-8 for http, whose `text` it becomes", "other octets"))?;
    Ok(Parts { text: Some(text), ..Parts::default() })
}

/// The bodies of an `http.mime` job: Mailgun's MIME API, and what had to be changed in given messages. `options` are further
/// fields, `o:tag` and such.
pub fn mime_form(
    spec: &JobSpec,
    at: &Circumstances,
    options: &[(String, String)],
) -> Result<(MimeForm, Conversion), SpecError> {
    let (template, conversion) = messages(spec, at, true)?;
    let variables = spec.variables.as_deref().filter(|_| !spec.expand);
    let form = MimeFormSpec { template, recipients: &spec.recipients, variables, options, run_id: at.run_id };
    Ok((MimeForm::new(form), conversion))
}

/// The bodies of an `http.raw` job: `data` with its variables replaced, written as `content_type` needs it.
pub fn raw_body(spec: &JobSpec, at: &Circumstances, data: Bytes, content_type: String) -> Result<RawBody, SpecError> {
    let raw = RawBodySpec {
        data,
        content_type,
        from: &spec.from,
        recipients: &spec.recipients,
        variables: spec.variables.as_deref(),
        run_id: at.run_id,
        host: &at.host,
    };
    RawBody::new(raw).map_err(wrong("data"))
}
