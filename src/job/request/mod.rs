//! What `POST /v1/hammer/job.run` takes: JSON becomes a [`JobRequest`], and that a [`RawSpec`].
//!
//! A field stands once in the table below, with its kind of value; how a kind is read, echoed and described is said in
//! [`field`] and [`load_control`].

pub mod content;
pub mod duration;
pub mod field;
pub mod load_control;
pub mod search;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::error::Category;
use serde_json::value::{RawValue, to_raw_value};
use thiserror::Error;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::search::RawSearch;
use super::spec::http::RawHttp;
use super::spec::{CONNECTIONS_MAX, ConnectionType, DURATION_MAX, MESSAGES_MAX, RawSpec, SpecError, TIMEOUT_MAX};
use super::time_limits::TimeLimits;
use crate::load::stages::Stage;
use crate::load::warmup::Warmup;
use crate::load::{Arrival, RATE_PER_S_MAX};
use crate::measure::abort::AbortRule;
use crate::measure::threshold::Threshold;
use crate::message::{RECIPIENTS_PER_MESSAGE_MAX, RecipientOrder};
use crate::time::duration_ns;
use content::{MessageSize, Options, Text};
use field::{Body, Field, Pipelining, RecipientList, RecipientVariables, TargetName};
pub use field::{JobType, RECIPIENTS_ECHOED_MAX};
use load_control::List;

/// Messages of a job that names neither their number nor a duration nor stages.
pub const MESSAGES: u64 = 1_000;
/// Characters of a wrong value that its error repeats.
pub const GOT_CHARS_MAX: usize = 60;

/// Makes the struct, its reader, its echo and its schema of one table: the docs of a field, its name, the kind of its
/// value, its key in JSON where that is not its name, and what the schema says of its bounds.
macro_rules! fields {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident $(as $key:literal)?: $kind:ty $({ $($bound:ident: $value:expr),+ })?;
    )+) => {
        /// A job as the API was asked for it; `None` where nothing was said. Every value that is there is of its kind,
        /// but nobody has yet looked at its size.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct JobRequest {
            $($(#[doc = $doc])+ pub $field: Option<$kind>,)+
        }

        /// The keys that a request may have, in the order in which a job shows them.
        pub const KEYS: &[&str] = &[$(fields!(@key $field $($key)?)),+];

        impl JobRequest {
            /// Reads the value of one key.
            fn set(&mut self, key: &str, json: &RawValue) -> Result<(), SpecError> {
                $(if key.eq_ignore_ascii_case(fields!(@key $field $($key)?)) {
                    self.$field = read(fields!(@key $field $($key)?), json)?;
                    return Ok(());
                })+
                Err(unknown(key))
            }
        }

        /// As a job shows its request.
        impl Serialize for JobRequest {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(if let Some(value) = &self.$field {
                    map.serialize_entry(fields!(@key $field $($key)?), &value.echo())?;
                })+
                map.end()
            }
        }

        impl PartialSchema for JobRequest {
            fn schema() -> RefOr<Schema> {
                let mut schema = ObjectBuilder::new()
                    .schema_type(SchemaType::Type(Type::Object))
                    .description(Some("A job to run. Keys match without regard to case; null counts as absent."))
                    .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
                $(
                    let mut property = <$kind as Field>::schema();
                    let description = Some(concat!($($doc, "\n"),+).trim().to_owned());
                    match &mut property {
                        Schema::Object(object) => {
                            object.description = description;
                            $($(object.$bound = Some(($value).into());)+)?
                        }
                        Schema::Array(array) => array.description = description,
                        Schema::AnyOf(any) => any.description = description,
                        _ => {}
                    }
                    schema = schema.property(fields!(@key $field $($key)?), property);
                )+
                schema.examples([example()]).into()
            }
        }

        impl ToSchema for JobRequest {}
    };
    (@key $field:ident $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
}

fields! {
    /// Whether the target's certificate is believed unseen. Without it a configured target decides for itself.
    skip_verify: bool;
    /// How connections are secured. Needed for smtp, unless `target` is the name of a configured one, whose URL decides, as
    /// the target's scheme does for all other types.
    smtp_connection_type: ConnectionType;
    /// What messages are sent by (smtp): SMTP sessions, the form API of a provider (http), the same with whole messages
    /// (http.mime), or requests of a configured target (http.raw).
    kind as "Type": JobType;
    /// Size of each generated message in octets, headers included, exactly; or a list of sizes with weights, of which each
    /// message draws one. Needed without `body`, `text` and `html`, excluded by them.
    msg_size: MessageSize;
    /// Further fields of an `http` or `http.mime` request, by names that begin with `o:`, `h:`, `v:` or `t:`, such as
    /// `{"o:tag": "load", "h:Reply-To": "a@example.com"}`.
    options: Options;
    /// Connections to the target (1; with `rate` 100).
    connections: u32 { minimum: 1, maximum: CONNECTIONS_MAX };
    /// A message to send instead of generated ones, header and body. A job shows its size and SHA-256.
    body: Body;
    /// The subject of messages without a `body` (timecop load message).
    subject: String;
    /// Plain text to send, as a message that is made of it. A job shows its size and SHA-256.
    text: Text;
    /// HTML to send, in place of `text` or as its alternative. A job shows its size and SHA-256.
    html: Text;
    /// What differs in `body`, `text` and `html` from recipient to recipient: a JSON object of objects, as a string. Ignored
    /// without them.
    recipient_variables: RecipientVariables;
    /// Whether `%recipient%` and `%recipient.NAME%` are replaced here for each message, and not by the server (false).
    expand: bool;
    /// Whether the credentials of the configured target are used.
    auth: bool;
    /// Time limit of every reply and of the connect: a Go duration, or whole nanoseconds; or an object of them by phase, in
    /// which `default` is for all others. "0s", or nothing, for the time limits of RFC 5321, section 4.5.3.2.
    timeout: TimeLimits { minimum: 0, maximum: duration_ns(TIMEOUT_MAX) };
    /// Number of messages (1000, unless there are a `duration`, `stages` or a `search`, which exclude it).
    messages: u64 { minimum: 1, maximum: MESSAGES_MAX };
    /// Envelope recipients (load@example.com): addresses, or patterns such as user{1..100000}@example.com.
    recipients: RecipientList;
    /// Whether messages take recipients in turns (sequential), or each begins at one drawn by the seed (random).
    recipient_order: RecipientOrder;
    /// Where to: a URL such as smtp://127.0.0.1:2525 or mx://example.com, or the name of a configured target (the embedded
    /// sink).
    target: TargetName;
    /// Envelope sender, "" for the null reverse-path (timecop@example.com).
    from: String;
    /// Messages a second. Makes the loop an open one: messages are due whatever the target does.
    rate: f64 { exclusive_minimum: 0, maximum: RATE_PER_S_MAX };
    /// How an open loop's messages are spaced (poisson).
    arrival: Arrival;
    /// How long new messages are sent: a Go duration, or whole nanoseconds. Excludes `messages`.
    duration: Duration { minimum: 1, maximum: duration_ns(DURATION_MAX) };
    /// Linear ramps: each stage says how long it takes, and the messages a second (`rate`) or the `connections` at its end.
    /// Those of the rate begin at `rate` or 0 and make the loop an open one; those of connections begin at 0, leave it a closed
    /// one, and exclude `rate` and `connections`. It ends with the last stage. Excludes `messages` and `duration`.
    stages: List<Stage>;
    /// The first part of the run, which is left out of all figures and shown apart: a Go duration, or a number of messages
    /// as an object.
    warmup: Warmup;
    /// Gives the run up, as failed, when a condition is true of its last seconds: `window` (10s) whole seconds, none of them
    /// within `grace` (5s) of the start. One condition an object: a share of messages not accepted, or a response time of
    /// accepted ones, that is exceeded; or a text as on the command line.
    abort_on: List<AbortRule>;
    /// Conditions under which the result is a failure, such as "p99>300ms" or "failures>0.1%". What came of them is in the
    /// result's `thresholds` when the job has ended, whose state does not depend on it.
    fail_if: List<Threshold>;
    /// Whether each message is stamped, and held against what arrives at the service's own sink, so that the result's `audit`
    /// says which of the accepted ones are missing, altered, late, or have come twice (false). Of type smtp only.
    audit: bool;
    /// Makes the job a search for the highest rate that the target holds: trials of growing length, each an open loop of one
    /// rate, until that is known. `slo` has the conditions that must be true of a trial that is held, such as
    /// "p99<250ms,failures<0.1%"; `start_rate` (100) and `max_rate` are messages a second, `trial` (5s), `confirm` (20s) and
    /// `cool_down` (1s) say how long trials and the rests between them are, `precision` (0.01) how close the rates that are
    /// held and not held must come. Excludes `messages`, `duration`, `rate`, `stages`,
    /// `fail_if` and `audit`.
    search: RawSearch;
    /// Recipients of one message (1).
    recipients_per_message: u32 { minimum: 1, maximum: RECIPIENTS_PER_MESSAGE_MAX };
    /// Messages after which a connection is closed and opened anew (unlimited).
    messages_per_connection: u64 { minimum: 1 };
    /// Whether PIPELINING is used where it is offered (auto); true and false mean auto and off.
    pipelining: Pipelining;
    /// Shards that generate, each on a CPU of its own.
    shards: u64 { minimum: 1 };
    /// Repeats sizes, recipients, arrivals and content of an earlier job (a fresh one, which the result names).
    seed: u64;
}

/// The schema of [`JobRequest::echo`]. In no other way than this does an echo differ from its request.
#[derive(Debug)]
pub struct JobEcho;

impl PartialSchema for JobEcho {
    fn schema() -> RefOr<Schema> {
        let mut schema = JobRequest::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.description = Some("What was asked for: the fields that were set.".to_owned());
            object.examples.clear();
            for (key, schema) in [
                ("body", Body::echo_schema()),
                ("text", Text::echo_schema()),
                ("html", Text::echo_schema()),
                ("options", Options::echo_schema()),
                ("recipient_variables", RecipientVariables::echo_schema()),
                ("recipients", RecipientList::echo_schema()),
            ] {
                object.properties.insert(key.to_owned(), schema);
            }
        }
        schema
    }
}

impl ToSchema for JobEcho {}

fn example() -> serde_json::Value {
    serde_json::json!({
        "Type": "smtp",
        "messages": 1000,
        "connections": 10,
        "msg_size": 100_000,
        "timeout": "0s",
        "smtp_connection_type": "plain",
    })
}

/// Why a request is no job.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// It is no JSON object: status 400.
    #[error("{0}")]
    NotJson(String),
    /// A key is unknown, stands twice or lacks, or its value cannot be: status 422.
    #[error(transparent)]
    Field(#[from] SpecError),
}

fn unknown(key: &str) -> SpecError {
    SpecError { field: "unknown key", problem: advice(key, KEYS) }
}

/// An unknown key, and what was most likely meant.
fn advice(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(known) => format!("\"{}\"; did you mean `{known}`?", short(key)),
        None => format!("\"{}\"; expected one of {}", short(key), known.join(", ")),
    }
}

impl JobRequest {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// When it is no JSON object, has a key that is unknown or stands twice, a value of the wrong kind, or lacks one that
    /// every job needs. How large values may be is looked at by [`super::spec::JobSpec::new`].
    pub fn parse(json: &[u8]) -> Result<JobRequest, RequestError> {
        let Outcome(request) = serde_json::from_slice(json).map_err(|error| {
            let got = match error.classify() {
                // serde's own words would repeat the value, however long it is.
                Category::Data => short(&String::from_utf8_lossy(&json[..json.len().min(4 * GOT_CHARS_MAX)])),
                _ => format!("what is no JSON: {error}"),
            };
            RequestError::NotJson(format!("expected a JSON object, got {got}"))
        })?;
        let request = request?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), SpecError> {
        let is_named = self.target.as_deref().is_some_and(|target| !target.contains("://"));
        if self.job_type() == JobType::Smtp && self.smtp_connection_type.is_none() && !is_named {
            return Err(SpecError::new("smtp_connection_type", "plain, tls or starttls for type smtp", "none"));
        }
        if self.search.is_some() && self.fail_if.is_some() {
            return Err(SpecError::new("fail_if", "none in a search, whose `slo` has its conditions", "one"));
        }
        if self.search.is_some() && self.audit == Some(true) {
            return Err(SpecError::new(
                "audit",
                "false in a search, each of whose trials would need one of its own",
                "true",
            ));
        }
        let is_given = self.body.is_some() || self.text.is_some() || self.html.is_some();
        if self.msg_size.is_none() && !is_given && self.job_type() != JobType::HttpRaw {
            return Err(SpecError::new(
                "msg_size",
                "either `msg_size`, or `body`, or `text` and `html`",
                "none of them",
            ));
        }
        Ok(())
    }

    /// What messages are sent by.
    pub fn job_type(&self) -> JobType {
        self.kind.unwrap_or_default()
    }

    /// Octets of the largest message that is to be generated; 0 when what is sent is given.
    pub fn generated_bytes(&self) -> u64 {
        match &self.msg_size {
            None => 0,
            Some(MessageSize::Exactly(bytes)) => *bytes,
            Some(MessageSize::Mix(mix)) => mix.iter().map(|size| size.bytes).max().unwrap_or(0),
        }
    }

    /// What a job shows of its request: the fields that were set, by their keys and in their order. A body appears as its
    /// size and SHA-256, a duration as Go writes it. Not to be shown before the target was taken: a URL with a password
    /// is refused only there.
    pub fn echo(&self) -> Arc<RawValue> {
        to_raw_value(self).expect("its keys are strings, and its numbers finite").into()
    }

    /// The values that [`super::spec::JobSpec::new`] looks at, which is also where their defaults are. The others
    /// (`target`, `smtp_connection_type`, `auth`, `skip_verify`, `shards`, `fail_if`, `search`) say where and on what the job runs, and
    /// what is made of its result.
    pub fn into_raw_spec(self) -> RawSpec {
        let job_type = self.job_type();
        let (msg_size, msg_size_mix) = match self.msg_size {
            None => (None, None),
            Some(MessageSize::Exactly(bytes)) => (Some(bytes), None),
            Some(MessageSize::Mix(mix)) => (None, Some(mix)),
        };
        RawSpec {
            job_type,
            http: RawHttp { options: self.options.map_or_else(Vec::new, |options| options.0), ..RawHttp::default() },
            messages: self.messages.or_else(|| {
                let ends = self.duration.is_some() || self.stages.is_some() || self.search.is_some();
                (!ends).then_some(MESSAGES)
            }),
            duration: self.duration,
            connections: self.connections,
            rate: self.rate,
            arrival: self.arrival,
            msg_size,
            msg_size_mix,
            body: self.body.map(|body| body.0.into_bytes()),
            subject: self.subject,
            text: self.text.map(|text| text.0),
            html: self.html.map(|html| html.0),
            recipient_variables: self.recipient_variables.map(|variables| variables.0.into_bytes()),
            expand: self.expand,
            from: self.from,
            recipients: self.recipients.map_or_else(Vec::new, |list| list.0),
            recipient_order: self.recipient_order,
            recipients_per_message: self.recipients_per_message,
            messages_per_connection: self.messages_per_connection,
            pipelining: self.pipelining.map(|pipelining| pipelining == Pipelining::Auto),
            timeout: self.timeout,
            seed: self.seed,
            stages: self.stages.map(|list| list.0),
            warmup: self.warmup,
            abort_on: self.abort_on.map_or_else(Vec::new, |list| list.0),
            audit: self.audit,
            // A request names no files.
            bodies: Vec::new(),
            attachments: Vec::new(),
            verbatim: None,
            source_addresses: Vec::new(),
            skip_verify: None,
            resumption: None,
            congestion: None,
            // Those of the configured target, which a request never holds.
            auth: None,
        }
    }
}

/// `null` counts as absent.
fn read<T: Field>(key: &'static str, json: &RawValue) -> Result<Option<T>, SpecError> {
    if json.get() == "null" {
        return Ok(None);
    }
    T::take(json).map(Some).map_err(|problem| SpecError { field: key, problem })
}

/// The beginning of a text in the form in which errors repeat it.
fn short(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(GOT_CHARS_MAX) {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    if text.chars().nth(GOT_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// What came of reading an object that was JSON to its end.
struct Outcome(Result<JobRequest, SpecError>);

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Outcome, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(Outcome)
    }
}

/// Reads value by value. None is held in any form but its own, so that a request takes little more memory than its text.
struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Result<JobRequest, SpecError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut request, mut seen) = (JobRequest::default(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let json: &RawValue = map.next_value()?;
            let outcome = once(&key, &mut seen).and_then(|()| request.set(&key, json));
            if let Err(error) = outcome {
                // The rest has only to be JSON.
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Err(error));
            }
        }
        Ok(Ok(request))
    }
}

/// A key may stand once only, however it is spelt: nobody could say which of its values is meant.
fn once(key: &str, seen: &mut Vec<&'static str>) -> Result<(), SpecError> {
    if let Some(known) = KEYS.iter().find(|known| known.eq_ignore_ascii_case(key)) {
        if seen.contains(known) {
            return Err(SpecError::new(known, "the key once", "it twice"));
        }
        seen.push(known);
    }
    Ok(())
}

/// The known word that a wrong one was most likely meant to be: at most one letter in three differs.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A longer one is nothing's neighbour, and comparing it would take long.
    if word.len() > 2 * GOT_CHARS_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let nearest = known.iter().map(|known| (distance(&word, &known.to_ascii_lowercase()), *known)).min()?;
    (nearest.0 <= nearest.1.len() / 3).then_some(nearest.1)
}

/// Octets to be inserted, removed or replaced to make one text of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.bytes().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests;
