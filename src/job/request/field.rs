//! The kinds of values that a request's fields have: how each is read, echoed and described. Those of load control are in
//! [`super::load_control`].

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::ser::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};

use super::{duration, short};
use crate::job::spec::ConnectionType;
pub use crate::job::spec::http::JobType;
use crate::load::Arrival;
use crate::message::RecipientOrder;

/// Most characters of any string but `body` and `recipient_variables`; a URL or an address has fewer.
pub const TEXT_CHARS_MAX: usize = 4_096;
/// Most characters of `recipient_variables`.
pub const RECIPIENT_VARIABLES_CHARS_MAX: usize = 1 << 20;
/// Recipients that a job shows one by one; of a longer list it shows the number and a digest.
pub const RECIPIENTS_ECHOED_MAX: usize = 100;

/// One kind of value.
pub(super) trait Field: Sized {
    /// What the error of a wrong value says was expected.
    fn expected() -> String;

    /// The value, if it is one. The text is valid JSON and not `null`.
    fn read(json: &RawValue) -> Option<Self>;

    /// The value, or what is wrong with it: what was expected, and what came.
    fn take(json: &RawValue) -> Result<Self, String> {
        Self::read(json).ok_or_else(|| format!("expected {}, got {}", Self::expected(), Self::got(json)))
    }

    /// What the error of a wrong value says came.
    fn got(json: &RawValue) -> String {
        short(json.get())
    }

    /// The value as a job shows it.
    fn echo(&self) -> impl Serialize;

    /// What the value may be in a request.
    fn schema() -> Schema;
}

/// Reads whatever serde reads by itself.
pub(super) fn plain<'a, T: serde::Deserialize<'a>>(json: &'a RawValue) -> Option<T> {
    serde_json::from_str(json.get()).ok()
}

/// A schema of some types.
pub(super) fn types<const N: usize>(types: [Type; N]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(or_null(types))
}

/// `null` counts as a field that is not there.
pub(super) fn or_null<const N: usize>(types: [Type; N]) -> SchemaType {
    SchemaType::from_iter(types.into_iter().chain([Type::Null]))
}

impl Field for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(json: &RawValue) -> Option<bool> {
        plain(json)
    }

    fn echo(&self) -> impl Serialize {
        *self
    }

    fn schema() -> Schema {
        types([Type::Boolean]).build().into()
    }
}

macro_rules! whole_number {
    ($number:ident) => {
        impl Field for $number {
            fn expected() -> String {
                format!("a whole number from 0 to {}", $number::MAX)
            }

            fn read(json: &RawValue) -> Option<$number> {
                plain(json)
            }

            fn echo(&self) -> impl Serialize {
                *self
            }

            fn schema() -> Schema {
                types([Type::Integer]).minimum(Some(0)).maximum(Some($number::MAX)).build().into()
            }
        }
    };
}

whole_number!(u32);
whole_number!(u64);

impl Field for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }

    fn read(json: &RawValue) -> Option<f64> {
        // A JSON number is a Rust number, and Rust reads it to the last bit.
        let is_number = json.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
        json.get().parse().ok().filter(|number: &f64| is_number && number.is_finite())
    }

    fn echo(&self) -> impl Serialize {
        // 50, as it was most likely written, and not 50.0.
        let whole = *self as i64;
        if whole as f64 == *self && whole.unsigned_abs() < 1 << 53 { json!(whole) } else { json!(self) }
    }

    fn schema() -> Schema {
        types([Type::Number]).build().into()
    }
}

/// Text that may reach the wire, so that nothing in it may control anything.
impl Field for String {
    fn expected() -> String {
        format!("a string of at most {TEXT_CHARS_MAX} characters without control characters")
    }

    fn read(json: &RawValue) -> Option<String> {
        plain(json).filter(|text: &String| text.chars().count() <= TEXT_CHARS_MAX && is_harmless(text))
    }

    fn echo(&self) -> impl Serialize {
        self
    }

    fn schema() -> Schema {
        types([Type::String]).max_length(Some(TEXT_CHARS_MAX)).pattern(Some(HARMLESS_PATTERN)).build().into()
    }
}

/// [`is_harmless`] as a regular expression for the schema.
pub(super) const HARMLESS_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

pub(super) fn is_harmless(text: &str) -> bool {
    !text.contains(char::is_control)
}

/// A URL, or the name of a configured target. Whoever takes it refuses a URL with a password in it; until then it is
/// shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetName(pub String);

impl Deref for TargetName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.contains('@') { "TargetName(not shown)" } else { &self.0 })
    }
}

impl Field for TargetName {
    fn expected() -> String {
        String::expected()
    }

    fn read(json: &RawValue) -> Option<TargetName> {
        String::read(json).map(TargetName)
    }

    fn got(json: &RawValue) -> String {
        match json.get().starts_with('"') {
            true => "another one, which is not shown because a URL may hold a password".to_owned(),
            false => short(json.get()),
        }
    }

    fn echo(&self) -> impl Serialize {
        &self.0
    }

    fn schema() -> Schema {
        String::schema()
    }
}

/// The addresses of `recipients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientList(pub Vec<String>);

impl RecipientList {
    /// What a list looks like in a job.
    pub(super) fn echo_schema() -> RefOr<Schema> {
        let description = format!(
            "The recipients; of more than {RECIPIENTS_ECHOED_MAX} their number, and the SHA-256 of all, a line each."
        );
        let long = digest_schema("count", "");
        AnyOfBuilder::new().item(RecipientList::schema()).item(long).description(Some(description)).into()
    }
}

impl Field for RecipientList {
    fn expected() -> String {
        "a list of at least one address or pattern, none with control characters".to_owned()
    }

    fn read(json: &RawValue) -> Option<RecipientList> {
        let list: Vec<String> = plain(json)?;
        let is_good = !list.is_empty() && list.iter().all(|address| is_harmless(address));
        is_good.then_some(RecipientList(list))
    }

    fn echo(&self) -> impl Serialize {
        match self.0.len() {
            0..=RECIPIENTS_ECHOED_MAX => json!(self.0),
            count => json!({ "count": count, "sha256": sha256(&self.0.join("\n")) }),
        }
    }

    fn schema() -> Schema {
        let address = ObjectBuilder::new().schema_type(Type::String).pattern(Some(HARMLESS_PATTERN));
        ArrayBuilder::new().schema_type(or_null([Type::Array])).items(address).min_items(Some(1)).build().into()
    }
}

/// A duration as Go writes it, or whole nanoseconds.
impl Field for Duration {
    fn expected() -> String {
        "a duration such as \"30s\", \"500ms\" or \"1m30s\" (units h, m, s, ms, us, ns), or whole nanoseconds, neither \
         negative nor above 292 years"
            .to_owned()
    }

    fn read(json: &RawValue) -> Option<Duration> {
        if let Some(text) = plain::<String>(json) {
            return duration::parse(&text);
        }
        plain(json).filter(|ns| *ns <= duration::GO_DURATION_NS_MAX).map(Duration::from_nanos)
    }

    fn echo(&self) -> impl Serialize {
        duration::format(*self)
    }

    fn schema() -> Schema {
        types([Type::String, Type::Integer]).pattern(Some(duration::PATTERN)).minimum(Some(0)).build().into()
    }
}

/// What is one of a few names.
trait Named: Copy + 'static {
    const ALL: &'static [Self];

    fn name(self) -> &'static str;
}

impl<T: Named> Field for T {
    fn expected() -> String {
        let names: Vec<_> = T::ALL.iter().map(|one| one.name()).collect();
        let (last, others) = names.split_last().expect("there is at least one name");
        format!("{} or {last}", others.join(", "))
    }

    fn read(json: &RawValue) -> Option<T> {
        let name: String = plain(json)?;
        T::ALL.iter().copied().find(|one| one.name() == name)
    }

    fn echo(&self) -> impl Serialize {
        self.name()
    }

    fn schema() -> Schema {
        let names = T::ALL.iter().map(|one| json!(one.name()));
        types([Type::String]).enum_values(Some(names.chain([Value::Null]))).build().into()
    }
}

macro_rules! named {
    ($($type:ident),*) => {
        $(impl Named for $type {
            const ALL: &'static [$type] = &$type::ALL;

            fn name(self) -> &'static str {
                $type::name(self)
            }
        })*
    };
}

named!(ConnectionType, Arrival, JobType, RecipientOrder);

/// Whether PIPELINING is used where it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipelining {
    /// It is.
    Auto,
    /// It is not.
    Off,
}

/// `"auto"` and `true` mean the same, `"off"` and `false` too.
impl Field for Pipelining {
    fn expected() -> String {
        "\"auto\" or \"off\"".to_owned()
    }

    fn read(json: &RawValue) -> Option<Pipelining> {
        match json.get() {
            "\"auto\"" | "true" => Some(Pipelining::Auto),
            "\"off\"" | "false" => Some(Pipelining::Off),
            _ => None,
        }
    }

    fn echo(&self) -> impl Serialize {
        match self {
            Pipelining::Auto => "auto",
            Pipelining::Off => "off",
        }
    }

    fn schema() -> Schema {
        let values = [json!("auto"), json!("off"), json!(true), json!(false), Value::Null];
        types([Type::String, Type::Boolean]).enum_values(Some(values)).build().into()
    }
}

/// What is shown of something that is too long to be kept for each job.
pub(super) fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A text as it is shown: its size in octets and its digest.
pub(super) fn digest(text: &str) -> Value {
    json!({ "bytes": text.len(), "sha256": sha256(text) })
}

/// The schema of a size, under this key, and a digest.
pub(super) fn digest_schema(size: &str, description: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description((!description.is_empty()).then_some(description))
        .property(size, ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
        .property("sha256", ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{64}$")))
        .required(size)
        .required("sha256")
        .build()
}

/// A whole message, header and body. Echoed as its size and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(pub String);

impl Body {
    /// What a body looks like in a job.
    pub(super) fn echo_schema() -> RefOr<Schema> {
        digest_schema("bytes", "The message that was given, by its size in octets and its SHA-256 in hexadecimal.")
            .into()
    }
}

impl Field for Body {
    fn expected() -> String {
        "a string: a whole message, header and body".to_owned()
    }

    fn read(json: &RawValue) -> Option<Body> {
        plain(json).map(Body)
    }

    fn echo(&self) -> impl Serialize {
        digest(&self.0)
    }

    fn schema() -> Schema {
        types([Type::String]).build().into()
    }
}

/// What differs between the copies of a `body`, recipient by recipient, as the text of a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientVariables(pub String);

impl RecipientVariables {
    /// What they look like in a job.
    pub(super) fn echo_schema() -> RefOr<Schema> {
        digest_schema("bytes", "The variables that were given, by their size in octets and their SHA-256.").into()
    }
}

impl Field for RecipientVariables {
    fn expected() -> String {
        format!("a string of at most {RECIPIENT_VARIABLES_CHARS_MAX} characters that is JSON itself")
    }

    fn read(json: &RawValue) -> Option<RecipientVariables> {
        plain(json)
            .filter(|text: &String| text.chars().count() <= RECIPIENT_VARIABLES_CHARS_MAX)
            .map(RecipientVariables)
    }

    fn echo(&self) -> impl Serialize {
        digest(&self.0)
    }

    fn schema() -> Schema {
        types([Type::String]).max_length(Some(RECIPIENT_VARIABLES_CHARS_MAX)).build().into()
    }
}
